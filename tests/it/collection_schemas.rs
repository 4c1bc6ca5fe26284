//! Schemas of collections: typed columns in the table and in SQL, at every point, and what a schema may become.

use crate::{harness::TestServer, process::call_until_death};
use reqwest::Method;
use serde_json::{Value, json};

const SCHEMA: &str = "/v1/shop/collections/orders/schema";
const REFRESH: &str = "/v1/shop/collections/orders/refresh";
const TABLE: &str = "/catalog/v1/namespaces/shop/tables/cdc_orders";
const COLUMNS: &str = "key, total, paid, placed, misfits";
/// Nothing is refreshed unless a test asks for it.
const SETTINGS: &[(&str, &str)] =
    &[("compaction.enabled", "off"), ("collections.refresh_interval", "24h")];

fn order(op: &str, key: &str, after: &Value) -> Value {
    json!({"type": "order", "ns": "shop", "op": op, "collection": "orders", "key": key, "after": after})
}

async fn send(server: &TestServer, events: Vec<Value>) {
    let (status, answer) = server.ingest(&json!({ "events": events })).await;
    assert_eq!(status, 200, "{answer}");
}

/// Two documents that fit, and one of which nothing does.
async fn shop() -> TestServer {
    let server = TestServer::start_in(tempfile::tempdir().unwrap(), SETTINGS).await;
    let events = vec![
        order("c", "a", &json!({"total": 1.5, "paid": true, "placed": "2026-11-20T12:00:00Z"})),
        order("c", "b", &json!({"total": "2.25", "placed": null, "note": {"x": 1}})),
        order("c", "c", &json!({"total": 1.234, "paid": "yes", "placed": "today"})),
    ];
    send(&server, events).await;
    server
}

fn first_schema() -> Value {
    json!({"type": "object", "required": ["total"], "properties": {
        "total": {"type": "number", "format": "decimal", "precision": 10, "scale": 2},
        "paid": {"type": "boolean"},
        "placed": {"type": ["string", "null"], "format": "date-time"},
    }})
}

fn first_rows() -> Value {
    json!([
        ["a", "1.50", true, "2026-11-20T12:00:00Z", 0],
        ["b", "2.25", null, null, 0],
        ["c", null, null, null, 3],
    ])
}

async fn put(server: &TestServer, parameters: &str, schema: &Value) -> (u16, Value) {
    server.call(Method::PUT, &format!("{SCHEMA}{parameters}"), schema).await
}

async fn registered(server: &TestServer, schema: &Value) -> Value {
    let (status, answer) = put(server, "", schema).await;
    assert_eq!((status, &answer["pending"]), (200, &Value::Null), "{answer}");
    answer
}

async fn refresh(server: &TestServer) -> Value {
    let (status, answer) = server.call(Method::POST, REFRESH, &Value::Null).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

async fn typed(server: &TestServer, columns: &str, point: &str) -> Value {
    let sql = format!("SELECT {columns} FROM cdc_orders {point} ORDER BY key");
    server.rows("shop", &sql).await
}

/// The columns of the table itself, as every engine finds them.
async fn fields(server: &TestServer) -> Vec<Value> {
    let table: Value = server.get(TABLE).await.json().await.unwrap();
    let metadata = &table["metadata"];
    let schemas = metadata["schemas"].as_array().unwrap();
    let current = schemas.iter().find(|it| it["schema-id"] == metadata["current-schema-id"]);
    current.unwrap()["fields"].as_array().unwrap().clone()
}

fn field<'a>(fields: &'a [Value], name: &str) -> &'a Value {
    fields.iter().find(|field| field["name"] == name).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn typed_columns_are_the_same_from_base_and_log_and_at_every_point() {
    let server = shop().await;
    refresh(&server).await;
    let (status, told) = put(&server, "?dry_run=true", &first_schema()).await;
    assert_eq!((status, &told["dry_run"]), (200, &json!(true)), "{told}");
    assert_eq!(told["changes"].as_array().unwrap().len(), 3, "{told}");
    assert_eq!(fields(&server).await.len(), 11);
    assert_eq!(server.get(SCHEMA).await.status(), 404);

    let made = registered(&server, &first_schema()).await;
    assert_eq!(made["changes"], told["changes"]);
    let found: Value = server.get(SCHEMA).await.json().await.unwrap();
    assert_eq!((&found["schema"], &found["columns"]), (&first_schema(), &made["columns"]));
    let fields = fields(&server).await;
    assert_eq!(field(&fields, "total")["type"], "decimal(10, 2)");
    assert_eq!(field(&fields, "misfits")["type"], "int");
    assert_eq!(typed(&server, COLUMNS, "").await, first_rows());
    // The files have them.
    let counts = server.rows("shop", "SELECT count(*) FROM cdc_orders.snapshots").await;
    assert_eq!(counts, json!([[3]]));
    assert_eq!(refresh(&server).await["buckets"], 0);

    // One document changes in the log alone, and others are read of the table.
    send(&server, vec![order("u", "c", &json!({"total": 3}))]).await;
    let mut rows = first_rows();
    rows[2] = json!(["c", "3.00", null, null, 0]);
    assert_eq!(typed(&server, COLUMNS, "").await, rows);
    // Before the schema the table had none of the columns.
    for point in ["FOR SEQ AS OF 3", "FOR SEQ AS OF 3 WHERE total IS NOT NULL OR misfits = 3"] {
        assert_eq!(typed(&server, COLUMNS, point).await, first_rows(), "{point}");
    }
    let one = typed(&server, "key", "WHERE total > 2.5").await;
    assert_eq!(one, json!([["c"]]));
    refresh(&server).await;
    assert_eq!(typed(&server, COLUMNS, "").await, rows);
    assert_eq!(
        typed(&server, COLUMNS, "FOR SEQ AS OF 2").await,
        json!(first_rows().as_array().unwrap()[..2])
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_counted_with_the_collection() {
    let server = shop().await;
    let path = "/v1/shop/collections/orders";
    let before: Value = server.get(path).await.json().await.unwrap();
    assert_eq!(before["misfits"], Value::Null, "{before}");
    let mut schema = first_schema();
    // The service's own statements give these names, in small letters.
    for name in ["Documents", "CREATED_US", "Key"] {
        schema["properties"][name] = json!({"type": "integer"});
    }
    registered(&server, &schema).await;
    let found: Value = server.get(path).await.json().await.unwrap();
    assert_eq!((&found["misfits"], &found["documents"]), (&json!(3), &json!(3)), "{found}");
    send(&server, vec![order("u", "a", &json!({"paid": 1}))]).await;
    let found: Value = server.get(path).await.json().await.unwrap();
    assert_eq!(found["misfits"], 5, "{found}");
    let of_one: Value = server.get(&format!("{path}/docs/a")).await.json().await.unwrap();
    assert!(of_one["created_at"].is_string(), "{of_one}");
    let any_case = typed(&server, "KEY, documents, Created_us", "").await;
    assert_eq!(any_case[0], json!(["a", null, null]));
    let list: Value = server.get("/v1/shop/collections").await.json().await.unwrap();
    assert_eq!(list["collections"][0]["misfits"], 5, "{list}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_are_added_and_widened_and_nothing_else() {
    let server = shop().await;
    registered(&server, &first_schema()).await;
    let before = fields(&server).await;
    let mut wider = first_schema();
    wider["properties"]["total"]["precision"] = json!(20);
    wider["properties"]["Note"] = json!({"type": "string"});
    wider["properties"]["note"] = json!({"type": "object"});
    wider["properties"]["key"] = json!({"type": "string"});
    wider["required"] = json!([]);
    let made = registered(&server, &wider).await;
    let changes = made["changes"].as_array().unwrap();
    assert_eq!(changes.len(), 4, "{made}");
    let total = json!({"column": "total", "before": "decimal(10,2) not null required", "now": "decimal(20,2) not null"});
    assert!(changes.contains(&total), "{made}");
    let after = fields(&server).await;
    assert_eq!(field(&after, "total")["id"], field(&before, "total")["id"]);
    assert_eq!(field(&after, "total")["type"], "decimal(20, 2)");
    let lower = made["columns"].as_array().unwrap().iter().find(|it| it["property"] == "note");
    let lower = lower.unwrap()["column"].as_str().unwrap();
    assert!(lower.starts_with("note_"), "{made}");
    // Documents of before have the new columns, too.
    let rows = typed(&server, &format!("key, doc_key, total, \"{lower}\""), "").await;
    assert_eq!(rows[1], json!(["b", null, "2.25", "{\"x\":1}"]));

    for (name, property, text) in [
        ("paid", json!({"type": "string"}), "`paid` is boolean, and would be string"),
        ("placed", json!({"type": "string", "format": "date-time"}), "`placed` may be null"),
    ] {
        let mut other = wider.clone();
        other["properties"][name] = property;
        let (status, answer) = put(&server, "?dry_run=true", &other).await;
        assert_eq!((status, &answer["code"]), (409, &json!("CONFLICT")), "{answer}");
        let differences = &answer["details"]["differences"];
        assert!(differences[0].as_str().unwrap().contains(text), "{answer}");
        assert_eq!(put(&server, "", &other).await.0, 409);
    }
    let (status, answer) = put(&server, "", &json!({"type": "object"})).await;
    assert_eq!((status, &answer["code"]), (400, &json!("INVALID_REQUEST")), "{answer}");
    // Of two members of one name only the second one would be there.
    let twice = r#"{"type":"object","properties":{"a":{"type":"integer"},"a":{"type":"string"}}}"#;
    let request = server.http.put(format!("{}{SCHEMA}", server.url)).body(twice);
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 400);
    assert!(answer.text().await.unwrap().contains("property `a` is there twice"));
    let found: Value = server.get(SCHEMA).await.json().await.unwrap();
    assert_eq!(found["schema"], wider);
    let again = registered(&server, &wider).await;
    assert_eq!(again["changes"], json!([]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_may_come_before_the_first_document() {
    let server = TestServer::start_in(tempfile::tempdir().unwrap(), SETTINGS).await;
    let other = json!({"type": "t", "ns": "shop", "data": {}});
    send(&server, vec![other]).await;
    for parameters in ["", "?dry_run=true"] {
        let path = format!("/v1/nowhere/collections/orders/schema{parameters}");
        assert_eq!(server.call(Method::PUT, &path, &first_schema()).await.0, 404, "{path}");
    }
    registered(&server, &first_schema()).await;
    assert_eq!(typed(&server, COLUMNS, "").await, json!([]));
    send(&server, vec![order("c", "a", &json!({"total": 7}))]).await;
    let rows = json!([["a", "7.00", null, null, 0]]);
    assert_eq!(typed(&server, COLUMNS, "").await, rows);
    assert_eq!(refresh(&server).await["documents"], 1);
    assert_eq!(typed(&server, COLUMNS, "").await, rows);
    let checked = server.post("/admin/fsck", "application/json", "{}").await;
    let checked: Value = checked.json().await.unwrap();
    assert_eq!(checked["whole"], true, "{checked}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_once_a_schema_is_there_has_the_rows_follow_later() {
    let server = shop().await;
    refresh(&server).await;
    let folder = server.stop().await;
    let (call, body) = ((Method::PUT, SCHEMA), first_schema().to_string());
    let died = call_until_death(folder.path(), "write.before_commit=abort", call, body).await;
    assert!(died.is_err(), "{died:?}");
    let server = TestServer::start_in(folder, SETTINGS).await;
    let found: Value = server.get(SCHEMA).await.json().await.unwrap();
    assert_eq!(found["schema"], first_schema());
    // The files lack the columns, which are computed.
    assert_eq!(typed(&server, COLUMNS, "").await, first_rows());
    let done = refresh(&server).await;
    assert_eq!((&done["buckets"], &done["rows"]), (&json!(4), &json!(3)), "{done}");
    assert_eq!(typed(&server, COLUMNS, "").await, first_rows());
    assert_eq!(refresh(&server).await["buckets"], 0);
    server.stop().await;
}

/// Returns once a snapshot of the table says that all rows have the columns of now.
async fn wait_for_values(server: &TestServer) {
    loop {
        let answer = server.get(TABLE).await;
        if answer.status() == 200 {
            let table: Value = answer.json().await.unwrap();
            let metadata = &table["metadata"];
            let wanted = json!(metadata["current-schema-id"].to_string());
            let snapshots = metadata["snapshots"].as_array().unwrap();
            if snapshots.iter().any(|it| it["summary"]["icecore.collection.schema-id"] == wanted) {
                return;
            }
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_get_no_values_at_once_get_them_by_the_job() {
    let settings = [
        ("compaction.enabled", "off"),
        ("collections.refresh_interval", "1s"),
        ("collections.cpu_share", "1"),
        // The first refresh makes the table.
        ("failpoints", "write.before_commit=error@1"),
    ];
    let server = TestServer::start_in(tempfile::tempdir().unwrap(), &settings).await;
    send(&server, vec![order("c", "a", &json!({"total": 1.5}))]).await;
    server.commit("shop").await;
    wait_for_values(&server).await;
    let (status, answer) = put(&server, "", &first_schema()).await;
    assert_eq!((status, answer["changes"].as_array().unwrap().len()), (200, 3), "{answer}");
    wait_for_values(&server).await;
    let rows = json!([["a", "1.50", null, null, 0]]);
    assert_eq!(typed(&server, COLUMNS, "").await, rows);
    assert_eq!(refresh(&server).await["buckets"], 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn others_do_not_change_the_schema_by_the_table() {
    let server = shop().await;
    registered(&server, &first_schema()).await;
    let set = json!({"action": "set-properties", "updates": {"icecore.collection.schema": "{}"}});
    let body = json!({"requirements": [], "updates": [set]});
    let (status, answer) = server.call(Method::POST, TABLE, &body).await;
    assert_eq!(status, 400, "{answer}");
    assert!(answer.to_string().contains("computes"), "{answer}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_may_change_while_the_table_lacks_changes() {
    let server = shop().await;
    // The first one comes to a table that has rows, and lacks some.
    refresh(&server).await;
    for (total, has_note) in [(3, false), (4, true)] {
        let doc = json!({"total": total, "note": {"x": total}});
        send(&server, vec![order("u", "b", &doc), order("c", &format!("d{total}"), &doc)]).await;
        let mut schema = first_schema();
        if has_note {
            schema["properties"]["note"] = json!({"type": "object"});
        }
        let answer = put(&server, "", &schema).await;
        assert_eq!((answer.0, &answer.1["pending"]), (200, &Value::Null), "{answer:?}");
    }
    let keys = json!([["a"], ["b"], ["c"], ["d3"], ["d4"]]);
    let totals = json!([
        ["a", "1.50", null],
        ["b", "4.00", "{\"x\":4}"],
        ["c", null, null],
        ["d3", "3.00", "{\"x\":3}"],
        ["d4", "4.00", "{\"x\":4}"],
    ]);
    assert_eq!(typed(&server, "key", "").await, keys);
    assert_eq!(typed(&server, "key, total, note", "").await, totals);
    // Rows of the log beside a base that lacks columns: as they were before each of the two.
    for (seq, count) in [(3, 3), (5, 4), (7, 5)] {
        let found = typed(&server, "key", &format!("FOR SEQ AS OF {seq}")).await;
        assert_eq!(found, Value::from(keys.as_array().unwrap()[..count].to_vec()), "{seq}");
    }
    server.stop().await;
}
