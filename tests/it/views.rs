//! Views that SQL stores in the catalog, and those that every namespace has.

use crate::{
    access::Guarded,
    harness::{TestServer, config},
    process,
};
use icecore_lake::clock::Clock;
use reqwest::Method;
use serde_json::{Value, json};

const NS: &str = "shop.example";

/// Changes of three documents, one of them deleted, and an event that is no change.
fn sent() -> Value {
    json!({ "events": [
        {"id": "c1", "ns": NS, "source": "till", "op": "c", "collection": "users", "docId": "u-1", "doc": {"name": "Ann", "type": "Person"}, "actor": "User/ada"},
        {"id": "c2", "ns": NS, "op": "c", "collection": "users", "docId": "u-2", "doc": {"name": "Bea"}},
        {"id": "c3", "ns": NS, "op": "d", "collection": "users", "docId": "u-2", "prev": {"name": "Bea"}},
        {"id": "o1", "ns": NS, "type": "order.placed", "data": {"amount": 7}},
    ]})
}

async fn call(server: &TestServer, method: Method, path: &str, body: &Value) -> (u16, Value) {
    let request = server.http.request(method, format!("{}{path}", server.url)).json(body);
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_is_stored_replaced_shown_and_removed() {
    let server = TestServer::start().await;
    assert_eq!(server.ingest(&sent()).await.0, 200);
    // The namespace is in the log alone.
    let sql = "SELECT type AS kind, count(*) AS events, max(ts) AS last FROM events GROUP BY type";
    let made = json!({ "sql": format!("CREATE VIEW kinds AS\n  {sql};") });
    let (status, answer) = server.query("shop_example", &made).await;
    assert_eq!((status, &answer["rows"]), (200, &json!([["kinds"]])), "{answer}");
    let (status, answer) = server.query("shop_example", &made).await;
    assert_eq!((status, &answer["code"]), (409, &json!("CONFLICT")), "{answer}");
    let of_orders = "SELECT events FROM kinds WHERE kind = 'order.placed'";
    assert_eq!(server.rows(NS, of_orders).await, json!([[1]]));

    let path = "/v1/shop.example/views/kinds";
    let shown: Value = server.get(path).await.json().await.unwrap();
    let columns = json!([
        {"name": "kind", "type": "string"},
        {"name": "events", "type": "long"},
        {"name": "last", "type": "timestamptz"},
    ]);
    let expected = json!({"namespace": "shop_example", "name": "kinds", "sql": sql, "dialect": "icecore", "columns": columns, "version": 1});
    assert_eq!(shown, expected);
    let catalog = "/catalog/v1/namespaces/shop_example/views/kinds";
    let loaded: Value = server.get(catalog).await.json().await.unwrap();
    let version = &loaded["metadata"]["versions"][0];
    let query = json!([{"type": "sql", "sql": sql, "dialect": "icecore"}]);
    assert_eq!(version["representations"], query, "{loaded}");
    assert_eq!(version["default-namespace"], json!(["shop_example"]));

    let other = json!({ "sql": "SELECT id FROM events WHERE type LIKE 'order.%'" });
    let (status, put) = call(&server, Method::PUT, path, &other).await;
    assert_eq!((status, &put["version"]), (200, &json!(2)), "{put}");
    assert_eq!(server.rows(NS, "SELECT * FROM kinds").await, json!([["o1"]]));
    // A point of the request is one of the tables behind a view.
    server.commit(NS).await;
    let first = server.rows(NS, "SELECT snapshot_id FROM events.snapshots").await[0][0].clone();
    let shipped = json!({"id": "o2", "ns": NS, "type": "order.shipped"});
    assert_eq!(server.ingest(&shipped).await.0, 200);
    let ids = "SELECT id FROM kinds ORDER BY id";
    let (status, answer) = server.query(NS, &json!({ "sql": ids, "as_of": first })).await;
    assert_eq!((status, &answer["rows"]), (200, &json!([["o1"]])), "{answer}");
    assert_eq!(server.rows(NS, ids).await, json!([["o1"], ["o2"]]));
    let replaced = json!({ "sql": "CREATE OR REPLACE VIEW kinds AS SELECT 1 AS one" });
    assert_eq!(server.query(NS, &replaced).await.0, 200);
    assert_eq!(server.rows(NS, "SELECT one FROM kinds").await, json!([[1]]));

    let (status, removed) = call(&server, Method::DELETE, path, &Value::Null).await;
    assert_eq!(status, 200);
    assert_eq!(removed, json!({"removed": "kinds", "namespace": "shop_example"}));
    assert_eq!(server.get(path).await.status(), 404);
    assert_eq!(call(&server, Method::DELETE, path, &Value::Null).await.0, 404);
    assert_eq!(server.query(NS, &json!({ "sql": of_orders })).await.0, 400);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_loses_queries_in_other_dialects_only_where_it_allows_that() {
    let server = TestServer::start().await;
    assert_eq!(server.ingest(&sent()).await.0, 200);
    server.commit(NS).await;
    for (name, allowed, expected, value) in [("kept", "false", 400, 1), ("given", "true", 200, 2)] {
        let fields = json!([{"id": 1, "name": "a", "type": "long", "required": true}]);
        let version = json!({"version-id": 1, "timestamp-ms": 1, "schema-id": 0, "summary": {}, "default-namespace": ["shop_example"], "representations": [{"type": "sql", "sql": "SELECT 1 AS a", "dialect": "spark"}]});
        let made = json!({"name": name, "schema": {"type": "struct", "schema-id": 0, "fields": fields}, "view-version": version, "properties": {"replace.drop-dialect.allowed": allowed}});
        let path = "/catalog/v1/namespaces/shop_example/views";
        let (status, answer) = call(&server, Method::POST, path, &made).await;
        assert_eq!(status, 200, "{answer}");
        let replaced = json!({ "sql": format!("CREATE OR REPLACE VIEW {name} AS SELECT 2 AS a") });
        let (status, answer) = server.query(NS, &replaced).await;
        assert_eq!(status, expected, "{answer}");
        let error = answer["error"].as_str().unwrap_or_default();
        assert_eq!(error.contains("replace.drop-dialect.allowed"), expected == 400, "{answer}");
        let read = server.rows(NS, &format!("SELECT a FROM {name}")).await;
        assert_eq!(read, json!([[value]]), "{name}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_could_not_be_read_is_not_stored() {
    let server = TestServer::start().await;
    assert_eq!(server.ingest(&sent()).await.0, 200);
    server.commit("shop.example").await;
    for (sql, text) in [
        ("CREATE VIEW v AS SELECT nothing FROM events", "nothing"),
        ("CREATE VIEW v AS SELECT * FROM absent", "does not exist"),
        ("CREATE VIEW v AS SELECT * FROM v", "reads itself"),
        ("CREATE VIEW v AS SELECT id, type AS id FROM events", "two columns `id`"),
        ("CREATE VIEW v AS SELECT id FROM events WHERE id = $1", "without parameters"),
        ("CREATE VIEW v AS SELECT * FROM events FOR SEQ AS OF 1", "version"),
        ("CREATE VIEW v AS SELECT * FROM \"events@main\"", "version"),
        ("CREATE VIEW v AS SELECT * FROM shop_example.\"events@main\"", "version"),
        ("CREATE VIEW v AS SELECT * FROM \"events@main$files\"", "version"),
        ("CREATE VIEW v AS SELECT table_name FROM information_schema.tables", "who asks"),
        ("CREATE VIEW v AS SELECT now() - ts AS age FROM events", "cast it"),
        ("CREATE VIEW v AS SELECT random() AS r", "draws values"),
        ("CREATE VIEW v AS SELECT \"random\"() AS r", "draws values"),
        ("CREATE VIEW v AS SELECT 1; SELECT 2", "exactly one statement"),
        ("CREATE VIEW v AS DELETE FROM events", "only queries"),
        ("CREATE VIEW bank.v AS SELECT 1 AS a", "namespace of the request"),
        ("CREATE VIEW events AS SELECT 1 AS a", "another name"),
        ("DROP VIEW v", "only queries"),
    ] {
        let (status, answer) = server.query(NS, &json!({ "sql": sql })).await;
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(status == 400 && error.contains(text), "{sql}: {status} {answer}");
    }
    let with_point = json!({ "sql": "CREATE VIEW v AS SELECT 1 AS a", "as_of": "main" });
    assert_eq!(server.query(NS, &with_point).await.0, 400);
    // Here the sign is a part of the collection's name.
    let named = json!({ "sql": "CREATE VIEW named AS SELECT key FROM \"collections/a@b\"" });
    let (status, answer) = server.query(NS, &named).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(server.rows(NS, "SELECT key FROM named").await, json!([]));
    assert_eq!(server.get("/v1/shop.example/views/v").await.status(), 404);
    let (status, answer) =
        call(&server, Method::PUT, "/v1/shop.example/views/v", &json!({ "query": "x" })).await;
    assert_eq!((status, &answer["code"]), (400, &json!("INVALID_REQUEST")), "{answer}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_structs_and_maps_are_read_through_a_view() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder, &[]);
    config.worker_program = Some(process::binary());
    let server = TestServer::start_with(folder, &config, Clock::system()).await;
    assert_eq!(server.ingest(&sent()).await.0, 200);
    let sql =
        "CREATE VIEW parts AS SELECT {'a': 1} AS s, MAP {'k': 2} AS m FROM events WHERE id = 'c1'";
    let (status, answer) = server.query("shop_example", &json!({ "sql": sql })).await;
    assert_eq!(status, 200, "{answer}");
    let sql = "SELECT s.a, s['a'] AS b, m['k'] AS k FROM parts";
    assert_eq!(server.rows(NS, sql).await, json!([[1, 1, 2]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_with_a_key_makes_its_view_once() {
    let server = TestServer::start().await;
    assert_eq!(server.ingest(&sent()).await.0, 200);
    let send = async |key: &str, sql: &str| {
        let asked = server.http.post(format!("{}/v1/{NS}/sql", server.url));
        let body = json!({ "sql": sql });
        let answer = asked.header("idempotency-key", key).json(&body).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json::<Value>().await.unwrap())
    };
    let (one, two) =
        ("018f6b5e-0000-7000-8000-000000000011", "018f6b5e-0000-7000-8000-000000000012");
    let (make, replace) =
        ("CREATE VIEW v AS SELECT 1 AS a", "CREATE OR REPLACE VIEW v AS SELECT 2 AS a");
    for _ in 0..2 {
        let (status, answer) = send(one, make).await;
        assert_eq!((status, &answer["rows"]), (200, &json!([["v"]])), "{answer}");
    }
    assert_eq!(send(two, replace).await.0, 200);
    let other = json!({ "sql": "CREATE OR REPLACE VIEW v AS SELECT 3 AS a" });
    assert_eq!(server.query(NS, &other).await.0, 200);
    assert_eq!(send(two, replace).await.0, 200);
    // What others did meanwhile stays.
    assert_eq!(server.rows(NS, "SELECT a FROM v").await, json!([[3]]));
    let (status, answer) = send(one, replace).await;
    assert_eq!(status, 400, "{answer}");
    assert!(answer["error"].as_str().unwrap().contains("another request"), "{answer}");
    assert_eq!(send("no key", make).await.0, 400);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_needs_the_scope_write_and_is_recorded() {
    let guarded = Guarded::with_events().await;
    let reader = guarded.token(&json!({"name": "r", "scopes": ["read:shop"]})).await;
    let writer = guarded.token(&json!({"name": "w", "scopes": ["write:shop"]})).await;
    let sql = json!({ "sql": "CREATE VIEW ids AS SELECT id FROM events" });
    let (status, answer) = guarded.post(&reader, "/v1/shop/sql", &sql).await;
    assert_eq!((status, &answer["code"]), (403, &json!("FORBIDDEN")), "{answer}");
    assert_eq!(guarded.post(&writer, "/v1/other/sql", &sql).await.0, 404);
    let (status, answer) = guarded.post(&writer, "/v1/shop/sql", &sql).await;
    assert_eq!(status, 200, "{answer}");
    let read = json!({ "sql": "SELECT id FROM ids" });
    assert_eq!(guarded.post(&reader, "/v1/shop/sql", &read).await.1["rows"], json!([["0"]]));
    // It reads with the rights of who asks, not of who made it.
    let across = json!({ "sql": "CREATE VIEW across AS SELECT id FROM other.events" });
    assert_eq!(guarded.post(&writer, "/v1/shop/sql", &across).await.0, 400);
    assert_eq!(guarded.post(&guarded.admin, "/v1/shop/sql", &across).await.0, 200);
    let read = json!({ "sql": "SELECT id FROM across" });
    assert_eq!(guarded.post(&reader, "/v1/shop/sql", &read).await.0, 400);
    let (_, page) = guarded.get(&guarded.admin, "/admin/audit").await;
    let records = page["records"].as_array().unwrap().iter();
    let made: Vec<(&Value, &Value)> = records
        .filter(|record| record["action"] == "CREATE VIEW")
        .map(|record| (&record["object"], &record["outcome"]))
        .collect();
    for object in ["shop.ids", "shop.across"] {
        assert!(made.contains(&(&json!(object), &json!("done"))), "{made:?}");
    }
    guarded.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn global_names_begin_with_the_namespace() {
    let server = TestServer::start().await;
    assert_eq!(server.ingest(&sent()).await.0, 200);
    for round in 0..2 {
        let sql =
            "SELECT id, source, table_url, event_url, actor FROM events_global WHERE id = 'c1'";
        let expected = json!([[
            "c1",
            format!("{NS}/till"),
            format!("{NS}/users"),
            format!("{NS}/c1"),
            "User/ada"
        ]]);
        assert_eq!(server.rows(NS, sql).await, expected, "{round}");
        let columns = server.rows(NS, "DESCRIBE events_global").await;
        let names: Vec<&Value> = columns.as_array().unwrap().iter().map(|row| &row[0]).collect();
        let first = ["id", "type", "timestamp", "source", "table_url", "op", "store", "key"];
        assert_eq!(names[..8], first.map(Value::from).iter().collect::<Vec<_>>()[..]);
        let sql = "SELECT DISTINCT thing_url, table_url FROM things_global ORDER BY thing_url";
        let users = format!("{NS}/users");
        let expected = json!([[format!("{users}/u-1"), users], [format!("{users}/u-2"), users]]);
        assert_eq!(server.rows(NS, sql).await, expected, "{round}");
        server.commit(NS).await;
    }
    server.stop().await;
}
