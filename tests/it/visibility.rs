//! Rows that only some tokens see.

use crate::access::Guarded;
use reqwest::Method;
use serde_json::{Value, json};

const SETTINGS: &[(&str, &str)] = &[("visibility.filter", "on")];

/// One change of a document for each visibility, and one without.
fn sent() -> Value {
    let change = |id: &str, visibility: Option<&str>| json!({"id": id, "ns": "shop", "op": "c", "collection": "users", "docId": id, "doc": {"name": id}, "visibility": visibility, "bookmark": format!("b-{id}"), "url": "/a"});
    json!({ "events": [
        change("everyone", Some("public")),
        change("nobody-said", None),
        change("of-user", Some("user")),
        change("of-org", Some("org")),
        change("of-team", Some("team")),
        change("of-others", Some("secret")),
        {"id": "bad", "ns": "shop", "type": "no type at all!", "visibility": "team"},
    ]})
}

async fn house() -> Guarded {
    let guarded = Guarded::start_with(SETTINGS).await;
    assert_eq!(guarded.post(&guarded.admin, "/ingest", &sent()).await.0, 207);
    guarded
}

impl Guarded {
    async fn seen(&self, token: &str, sql: &str) -> Value {
        let (status, answer) = self.post(token, "/v1/shop/sql", &json!({ "sql": sql })).await;
        assert_eq!(status, 200, "{sql}: {answer}");
        answer["rows"].clone()
    }

    async fn reader(&self, scopes: &[&str]) -> String {
        self.token(&json!({"name": scopes.join(" "), "scopes": scopes})).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_seen_by_the_visibility_that_a_scope_names() {
    let guarded = house().await;
    let cases = [
        (vec!["read:shop"], json!([["everyone"], ["nobody-said"]])),
        (vec!["write:shop", "ingest:shop"], json!([["everyone"], ["nobody-said"]])),
        (vec!["read.team:shop"], json!([["everyone"], ["nobody-said"], ["of-team"]])),
        (
            vec!["read.user:*", "read.org:shop", "read.team:other"],
            json!([["everyone"], ["nobody-said"], ["of-org"], ["of-user"]]),
        ),
    ];
    let mut readers = vec![(
        guarded.admin.clone(),
        json!([["everyone"], ["nobody-said"], ["of-org"], ["of-others"], ["of-team"], ["of-user"]]),
    )];
    for (scopes, expected) in cases {
        readers.push((guarded.reader(&scopes).await, expected));
    }
    for round in ["from the log", "from the table"] {
        for (token, expected) in &readers {
            for sql in [
                "SELECT id FROM events ORDER BY id",
                "SELECT id FROM shop.events ORDER BY id",
                "SELECT id FROM things ORDER BY id",
                "SELECT pk FROM cdc_users_deltas ORDER BY pk",
                "SELECT id FROM events_global ORDER BY id",
                "SELECT id FROM events BETWEEN SEQ 1 AND 100 ORDER BY id",
            ] {
                assert_eq!(guarded.seen(token, sql).await, *expected, "{round}: {sql}");
            }
            let count = expected.as_array().unwrap().len();
            for sql in ["SELECT count(*) FROM events", "SELECT count(url) FROM events"] {
                assert_eq!(guarded.seen(token, sql).await, json!([[count]]), "{round}: {sql}");
            }
            // Hidden rows have the last ids of all, which metadata would tell.
            let ids = expected.as_array().unwrap();
            let extremes = json!([[ids[0][0], ids[count - 1][0]]]);
            let sql = "SELECT min(id), max(id) FROM events";
            assert_eq!(guarded.seen(token, sql).await, extremes, "{round}");
            let sql = "SELECT type, count(*) FROM events GROUP BY type";
            let groups = json!([["cdc.insert", count]]);
            assert_eq!(guarded.seen(token, sql).await, groups, "{round}");
            let (_, page) = guarded.get(token, "/v1/shop/search").await;
            assert_eq!(page["things"].as_array().unwrap().len(), count, "{round}: {page}");
            let (_, facets) = guarded.get(token, "/v1/shop/facets").await;
            assert_eq!(facets["count"], json!(count), "{round}: {facets}");
        }
        assert_eq!(guarded.post(&guarded.admin, "/v1/shop/commit", &Value::Null).await.0, 200);
    }
    let view = json!({ "sql": "CREATE VIEW mine AS SELECT id FROM events" });
    assert_eq!(guarded.post(&guarded.admin, "/v1/shop/sql", &view).await.0, 200);
    let past = json!({ "sql": "SELECT id FROM events ORDER BY id", "as_of": "main" });
    for (token, expected) in &readers {
        let (_, answer) = guarded.post(token, "/v1/shop/sql", &past).await;
        assert_eq!(answer["rows"], *expected, "{answer}");
        // A namespace has other names in SQL, and behind a view with a point.
        for from in ["mine", "mine FOR SEQ AS OF 100", "\"SHOP\".events FOR SEQ AS OF 100"] {
            let sql = format!("SELECT id FROM {from} ORDER BY id");
            assert_eq!(guarded.seen(token, &sql).await, *expected, "{sql}");
        }
    }
    guarded.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_patch_made_is_seen_by_who_sees_every_row() {
    let guarded = house().await;
    let patch = json!({"id": "p", "ns": "shop", "op": "u", "collection": "users", "docId": "everyone", "patch": {"age": 1}, "visibility": "public"});
    let body = json!({ "events": [patch] });
    assert_eq!(guarded.post(&guarded.admin, "/ingest", &body).await.0, 200);
    let reader = guarded.reader(&["read:shop"]).await;
    let sql = "SELECT data FROM things WHERE id = 'everyone' ORDER BY rowid";
    let sent = json!([["{\"name\":\"everyone\"}"]]);
    let made = json!(["{\"name\":\"everyone\",\"age\":1}"]);
    for _ in 0..2 {
        assert_eq!(guarded.seen(&reader, sql).await, sent);
        assert_eq!(guarded.seen(&guarded.admin, sql).await, json!([sent[0], made]));
        let ages = "/v1/shop/search?property=age:1";
        let found = |page: &Value| page["things"].as_array().unwrap().len();
        assert_eq!(found(&guarded.get(&reader, ages).await.1), 0);
        assert_eq!(found(&guarded.get(&guarded.admin, ages).await.1), 1);
        assert_eq!(guarded.post(&guarded.admin, "/v1/shop/commit", &Value::Null).await.0, 200);
    }
    guarded.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bookmark_of_an_event_that_is_not_seen_is_unknown() {
    let guarded = house().await;
    let reader = guarded.reader(&["read:shop"]).await;
    for round in ["from the log", "from the table"] {
        for (token, bookmark, expected) in [
            (&guarded.admin, "b-of-team", 200),
            (&reader, "b-everyone", 200),
            (&reader, "b-of-team", 404),
            (&reader, "b-nowhere", 404),
        ] {
            let sql = format!("SELECT count(*) FROM events FOR BOOKMARK AS OF '{bookmark}'");
            for (path, body) in [
                ("/v1/shop/sql", json!({ "sql": sql })),
                ("/v1/shop/resolve", json!({ "at": format!("bookmark:{bookmark}") })),
            ] {
                let (status, answer) = guarded.post(token, path, &body).await;
                assert_eq!(status, expected, "{round}: {path} {body}: {answer}");
                if expected == 404 {
                    let told = format!("no event of table `events` has bookmark `{bookmark}`");
                    assert!(answer["error"].as_str().unwrap().contains(&told), "{answer}");
                }
            }
        }
        assert_eq!(guarded.post(&guarded.admin, "/v1/shop/commit", &Value::Null).await.0, 200);
    }
    let sql = json!({ "sql": "SELECT 1 FROM cdc_users FOR BOOKMARK AS OF 'b-everyone'" });
    assert_eq!(guarded.post(&reader, "/v1/shop/sql", &sql).await.0, 403);
    guarded.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_branch_are_seen_as_those_of_main() {
    let guarded = house().await;
    let admin = &guarded.admin;
    let made = json!({ "name": "trial" });
    let (status, answer) = guarded.post(admin, "/v1/shop/branches", &made).await;
    assert_eq!(status, 201, "{answer}");
    let change = json!({"id": "on-trial", "ns": "shop", "op": "c", "collection": "users", "docId": "on-trial", "doc": {}, "visibility": "team"});
    let body = json!({ "events": [change] });
    let (status, answer) = guarded.post(admin, "/ingest?branch=trial", &body).await;
    assert_eq!(status, 200, "{answer}");
    let reader = guarded.reader(&["read:shop"]).await;
    for from in [
        "\"events@trial\"",
        "events FOR VERSION AS OF 'trial'",
        "events FOR SEQ AS OF 9223372036854775807 OF BRANCH 'trial'",
        "\"things@trial\"",
    ] {
        let sql = format!("SELECT id FROM {from} ORDER BY id");
        let seen = json!([["everyone"], ["nobody-said"]]);
        assert_eq!(guarded.seen(&reader, &sql).await, seen, "{from}");
        assert_eq!(guarded.seen(admin, &sql).await.as_array().unwrap().len(), 7, "{from}");
    }
    let (_, page) = guarded.get(&reader, "/v1/shop/events?branch=trial").await;
    assert_eq!(page["events"].as_array().unwrap().len(), 2, "{page}");
    let sql = json!({ "sql": "SELECT key FROM cdc_users FOR SEQ AS OF 7 OF BRANCH 'trial'" });
    assert_eq!(guarded.post(&reader, "/v1/shop/sql", &sql).await.0, 403);
    for path in ["docs", "docs/on-trial", "docs/everyone/history"] {
        let path = format!("/v1/shop/collections/users/{path}?branch=trial");
        let (status, answer) = guarded.get(&reader, &path).await;
        assert_eq!(status, 403, "{path}: {answer}");
        assert_eq!(guarded.get(admin, &path).await.0, 200, "{path}");
    }
    guarded.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_else_tells_of_rows_that_are_not_seen() {
    let guarded = house().await;
    assert_eq!(guarded.post(&guarded.admin, "/v1/shop/commit", &Value::Null).await.0, 200);
    let reader = guarded.reader(&["read.user:shop"]).await;
    // A look-up by a value that only a hidden row has, and a condition that fails for one.
    let missing = "SELECT count(*) FROM events WHERE id = 'of-team'";
    assert_eq!(guarded.seen(&reader, missing).await, json!([[0]]));
    let probe =
        "SELECT count(*) FROM events WHERE 1 / (CASE WHEN id = 'of-team' THEN 0 ELSE 1 END) = 1";
    assert_eq!(guarded.seen(&reader, probe).await, json!([[3]]));
    let asked = json!({ "sql": probe });
    assert_eq!(guarded.post(&guarded.admin, "/v1/shop/sql", &asked).await.0, 400);
    for table in ["events.snapshots", "events.history", "events.refs"] {
        guarded.seen(&reader, &format!("SELECT count(*) FROM {table}")).await;
    }
    for sql in [
        "SELECT count(*) FROM events.files",
        "SELECT count(*) FROM events.all_files",
        "SELECT count(*) FROM events.manifests",
        "SELECT count(*) FROM \"events$partitions\"",
        "SELECT count(*) FROM events.entries",
        "SELECT count(*) FROM dead_letters",
        "EXPLAIN SELECT * FROM events WHERE id = 'of-team'",
        "EXPLAIN ANALYZE SELECT * FROM events WHERE id = 'of-team'",
    ] {
        let asked = json!({ "sql": sql });
        let (status, answer) = guarded.post(&reader, "/v1/shop/sql", &asked).await;
        assert_eq!((status, &answer["code"]), (403, &json!("FORBIDDEN")), "{sql}: {answer}");
        assert_eq!(guarded.post(&guarded.admin, "/v1/shop/sql", &asked).await.0, 200, "{sql}");
    }
    let tables = guarded.seen(&reader, "SHOW TABLES").await;
    assert!(tables.to_string().contains("dead_letters"), "{tables}");
    let (status, answer) = guarded.get(&reader, "/v1/shop/dead-letters").await;
    assert_eq!((status, &answer["code"]), (403, &json!("FORBIDDEN")), "{answer}");
    let (_, letters) = guarded.get(&guarded.admin, "/v1/shop/dead-letters").await;
    let letter = letters["dead_letters"][0]["id"].as_str().unwrap();
    let path = format!("/v1/shop/dead-letters/{letter}");
    assert_eq!(guarded.get(&reader, &path).await.0, 403);
    assert_eq!(guarded.get(&guarded.admin, &path).await.0, 200);
    guarded.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_made_of_rows_has_those_that_its_maker_sees() {
    let guarded = house().await;
    let writer = guarded.reader(&["write:shop"]).await;
    let of_team = guarded.reader(&["write:shop", "read.team:shop"]).await;
    for (token, sql, rows) in [
        (&writer, "CREATE TABLE seen AS SELECT id FROM events", 2),
        (&of_team, "INSERT INTO seen SELECT id || '!' FROM events", 3),
        (&writer, "INSERT INTO seen SELECT id FROM events WHERE id = 'of-team'", 0),
    ] {
        let (status, answer) = guarded.post(token, "/v1/shop/sql", &json!({ "sql": sql })).await;
        assert_eq!((status, &answer["rowCount"]), (200, &json!(rows)), "{sql}: {answer}");
    }
    let all = json!([["everyone"], ["everyone!"], ["nobody-said"], ["nobody-said!"], ["of-team!"]]);
    let sql = "SELECT id FROM seen ORDER BY id";
    assert_eq!(guarded.seen(&guarded.admin, sql).await, all);
    guarded.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollup_keeps_rows_whose_text_of_that_name_is_no_visibility() {
    let guarded = house().await;
    let sql = "SELECT upper(coalesce(visibility, 'none')) AS visibility, count(*) AS n FROM events GROUP BY 1";
    let query = json!({"sql": sql, "every": "0 0 1 1 *"});
    let (admin, path) = (guarded.admin.clone(), "/v1/shop/materialized/counted");
    let (status, answer) = guarded.call(Method::PUT, &admin, path, &query).await;
    assert_eq!(status, 200, "{answer}");
    let rows = "SELECT visibility, n FROM counted ORDER BY visibility";
    assert_eq!(guarded.seen(&admin, rows).await, json!([["NONE", 1], ["PUBLIC", 1]]));
    let more =
        json!({"events": [{"id": "more", "ns": "shop", "type": "order", "visibility": "public"}]});
    assert_eq!(guarded.post(&admin, "/ingest", &more).await.0, 200);
    let (_, done) = guarded.post(&admin, "/admin/jobs/materialize", &Value::Null).await;
    assert_eq!((&done["tables"], &done["errors"]), (&json!(1), &json!(0)), "{done}");
    assert_eq!(guarded.seen(&admin, rows).await, json!([["NONE", 1], ["PUBLIC", 2]]));
    guarded.server.stop().await;
}

/// A client's change of a table's columns.
async fn change_columns(
    guarded: &Guarded,
    token: &str,
    table: &str,
    change: impl FnOnce(&mut Vec<Value>),
) {
    let path = format!("/catalog/v1/namespaces/shop/tables/{table}");
    let (_, loaded) = guarded.get(&guarded.admin, &path).await;
    let metadata = &loaded["metadata"];
    let mut schemas = metadata["schemas"].as_array().unwrap().iter();
    let current = schemas.find(|schema| schema["schema-id"] == metadata["current-schema-id"]);
    let mut schema = current.unwrap().clone();
    change(schema["fields"].as_array_mut().unwrap());
    let updates = json!([
        { "action": "add-schema", "schema": schema },
        { "action": "set-current-schema", "schema-id": -1 },
    ]);
    let body = json!({ "requirements": [], "updates": updates });
    let (status, answer) = guarded.post(token, &path, &body).await;
    assert_eq!(status, 200, "{table}: {answer}");
}

fn rename(fields: &mut [Value], from: &str, to: &str) {
    let field = fields.iter_mut().find(|field| field["name"] == from).unwrap();
    field["name"] = json!(to);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_says_who_sees_a_row_under_each_name_that_it_has_or_had() {
    let guarded = house().await;
    let writer = guarded.reader(&["write:shop"]).await;
    let mut snapshots = Vec::new();
    for (table, columns) in [
        ("late_name", "id, visibility AS vis"),
        ("early_name", "id, visibility"),
        ("capital", "id, visibility AS \"Visibility\""),
        ("late_column", "id"),
    ] {
        let made =
            json!({ "sql": format!("CREATE TABLE {table} AS SELECT {columns} FROM events") });
        let (status, answer) = guarded.post(&guarded.admin, "/v1/shop/sql", &made).await;
        assert_eq!((status, &answer["rowCount"]), (200, &json!(6)), "{table}: {answer}");
        snapshots.push(answer["snapshot_str"].as_str().unwrap().to_owned());
    }
    let at = |table: &str, of: usize| format!("{table} FOR VERSION AS OF {}", snapshots[of]);
    let count = |from: &str| format!("SELECT count(*), min(id), max(id) FROM {from}");
    let (seen, all) =
        (json!([[2, "everyone", "nobody-said"]]), json!([[6, "everyone", "of-user"]]));
    assert_eq!(guarded.seen(&writer, &count("capital")).await, seen);
    change_columns(&guarded, &guarded.admin, "late_name", |fields| {
        rename(fields, "vis", "visibility");
    })
    .await;
    change_columns(&guarded, &writer, "early_name", |fields| rename(fields, "visibility", "vis"))
        .await;
    // The schema with the name is what tells of it.
    let forget =
        json!({"requirements": [], "updates": [{"action": "remove-schemas", "schema-ids": [0]}]});
    let path = "/catalog/v1/namespaces/shop/tables/early_name";
    let (status, answer) = guarded.post(&writer, path, &forget).await;
    assert_eq!(status, 403, "{answer}");
    let of_now = ["late_name".to_owned(), "early_name".to_owned()];
    for from in of_now.into_iter().chain([at("late_name", 0), at("early_name", 1)]) {
        assert_eq!(guarded.seen(&writer, &count(&from)).await, seen, "{from}");
        assert_eq!(guarded.seen(&guarded.admin, &count(&from)).await, all, "{from}");
    }
    let sql = "SELECT id FROM early_name WHERE vis = 'team'";
    assert_eq!(guarded.seen(&writer, sql).await, json!([]));

    // Where a state has no such column any more, or not yet, nothing says who sees its rows.
    change_columns(&guarded, &writer, "early_name", |fields| {
        fields.retain(|field| field["name"] != "vis");
    })
    .await;
    let added = json!({ "id": 100, "name": "visibility", "type": "string", "required": false });
    change_columns(&guarded, &guarded.admin, "late_column", |fields| fields.push(added)).await;
    for from in ["early_name".to_owned(), at("late_column", 3)] {
        let asked = json!({ "sql": count(&from) });
        let (status, answer) = guarded.post(&writer, "/v1/shop/sql", &asked).await;
        assert_eq!((status, &answer["code"]), (403, &json!("FORBIDDEN")), "{from}: {answer}");
        assert!(answer["error"].as_str().unwrap().contains("column `visibility`"), "{answer}");
        assert_eq!(guarded.seen(&guarded.admin, &count(&from)).await, all, "{from}");
    }
    assert_eq!(guarded.seen(&writer, &count(&at("early_name", 1))).await, seen);
    // No row says anything yet.
    assert_eq!(guarded.seen(&writer, &count("late_column")).await, all);
    // Who replaces a table copies rows that it sees, and opens no others.
    let sql = "CREATE OR REPLACE TABLE capital AS SELECT id FROM capital";
    let (status, answer) = guarded.post(&writer, "/v1/shop/sql", &json!({ "sql": sql })).await;
    assert_eq!((status, &answer["rowCount"]), (200, &json!(2)), "{answer}");
    let asked = json!({ "sql": count("capital") });
    assert_eq!(guarded.post(&writer, "/v1/shop/sql", &asked).await.0, 403);
    assert_eq!(guarded.seen(&writer, &count(&at("capital", 2))).await, seen);
    guarded.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_setting_every_reader_sees_every_row() {
    let guarded = Guarded::start().await;
    assert_eq!(guarded.post(&guarded.admin, "/ingest", &sent()).await.0, 207);
    let reader = guarded.reader(&["read:shop"]).await;
    assert_eq!(guarded.seen(&reader, "SELECT count(*) FROM events").await, json!([[6]]));
    assert_eq!(guarded.get(&reader, "/v1/shop/dead-letters").await.0, 200);
    guarded.server.stop().await;
}
