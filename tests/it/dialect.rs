//! What users of the earlier files of events ask, as they ask it: paths, names of members, changes as tables.

use crate::{access::Guarded, answers::same, harness::TestServer};
use serde_json::{Value, json};

const NS: &str = "startups.studio";

/// Changes of one document, calls, and one event of now.
fn sent() -> Value {
    json!({ "events": [
        {"id": "c1", "ns": NS, "op": "c", "ts": "2024-11-20T14:01:00Z", "collection": "users", "docId": "u-1", "doc": {"name": "Ann", "type": "Person"}, "bookmark": "b1", "actor": "User/ada"},
        {"id": "c2", "ns": NS, "op": "u", "ts": "2024-11-20T14:02:00Z", "collection": "users", "docId": "u-1", "prev": {"name": "Ann"}, "doc": {"name": "Bea"}, "bookmark": "b2"},
        {"id": "c3", "ns": NS, "op": "d", "ts": "2024-11-20T14:03:00Z", "collection": "users", "docId": "u-1", "prev": {"name": "Bea"}, "bookmark": "b3"},
        {"id": "r1", "ns": NS, "type": "rpc.call", "ts": "2024-11-20T14:05:00Z", "method": "get", "durationMs": 10, "success": true, "do": {"class": "Room"}, "url": "/a", "statusCode": 200},
        {"id": "r2", "ns": NS, "type": "rpc.call", "ts": "2024-11-20T15:05:00Z", "method": "get", "durationMs": 30, "success": false, "do": {"class": "Room"}, "url": "/a", "statusCode": 500},
        {"id": "r3", "ns": NS, "type": "rpc.call", "ts": "2024-12-01T09:00:00Z", "method": "put", "durationMs": 20, "success": true, "do": {"class": "Hall"}, "url": "/b", "statusCode": 404},
        {"id": "n1", "ns": NS, "type": "Customer.created", "_meta": {"source": "shop"}},
    ]})
}

/// A statement and its rows; without rows where these depend on the day.
type QueryCase = (&'static str, Option<Value>);

/// Of documents and of who changed them.
fn about_changes() -> Vec<QueryCase> {
    let ann = "{\"name\":\"Ann\",\"type\":\"Person\"}";
    vec![
        // The history of a document, and its changes between two bookmarks.
        (
            "SELECT docId, doc, prev, bookmark FROM read_json_auto('r2://log/2024/**/*.jsonl') WHERE \"table\" = 'users' AND docId = 'u-1' ORDER BY timestamp ASC",
            Some(json!([
                ["u-1", ann, null, "b1"],
                ["u-1", "{\"name\":\"Bea\"}", "{\"name\":\"Ann\"}", "b2"],
                ["u-1", null, "{\"name\":\"Bea\"}", "b3"]
            ])),
        ),
        (
            "SELECT id FROM (SELECT * FROM read_json_auto('r2://log/2024/**/*.jsonl') WHERE bookmark > 'b1' AND bookmark <= 'b3') ORDER BY id",
            Some(json!([["c2"], ["c3"]])),
        ),
        (
            "SELECT op, pk, data FROM read_parquet('r2://log/cdc/w/users/deltas/*.parquet') WHERE pk = 'u-1' AND bookmark > 'b2' ORDER BY ts ASC",
            Some(json!([["d", "u-1", null]])),
        ),
        (
            "SELECT pk, prev FROM cdc_users_deltas WHERE op = 'u'",
            Some(json!([["u-1", "{\"name\":\"Ann\"}"]])),
        ),
        ("SELECT count(*) FROM cdc_other_deltas", Some(json!([[0]]))),
        (
            "SELECT a.docId, b.docId, a.doc, b.doc FROM events a JOIN events b ON a.seq = b.seq WHERE a.seq = 1",
            Some(json!([["u-1", "u-1", ann, ann]])),
        ),
        (
            "SELECT \"do\".class, \"do\" FROM events WHERE id IN ('r1', 'c1') ORDER BY id DESC",
            Some(json!([
                ["Room", {"id": null, "name": null, "class": "Room", "colo": null, "worker": null, "method": "get"}],
                [null, null]
            ])),
        ),
        ("SELECT a, sort, b FROM (SELECT 1 AS a, 2 AS sort, 3 AS b)", Some(json!([[1, 2, 3]]))),
        ("SELECT op FROM cdc_users_deltas ORDER BY timestamp DESC LIMIT 1", Some(json!([["d"]]))),
        ("SELECT count(*) FROM things WHERE \"table\" = 'users'", Some(json!([[3]]))),
        // Versions.
        (
            "SELECT * FROM (SELECT rowid, id, type, collection, data, op FROM things WHERE rowid = 1)",
            Some(json!([[1, "u-1", "Person", "users", ann, "c"]])),
        ),
        (
            "SELECT rowid, type FROM things WHERE id = 'u-1' ORDER BY rowid DESC",
            Some(json!([[3, "users"], [2, "users"], [1, "Person"]])),
        ),
        (
            "SELECT id FROM events WHERE actor = 'User/ada' AND op IN ('c', 'u', 'd') ORDER BY timestamp DESC LIMIT 100",
            Some(json!([["c1"]])),
        ),
    ]
}

/// Of calls, volumes and what came today.
fn about_calls() -> Vec<QueryCase> {
    vec![
        (
            "SELECT method, AVG(durationMs), P95(durationMs), COUNT(*) FROM read_json_auto('r2://log/2024/11/**/*.jsonl') WHERE type = 'rpc.call' GROUP BY method",
            Some(json!([["get", 20.0, 29.0, 2]])),
        ),
        (
            "SELECT \"do\".class AS do_class, method, durationMs, success FROM read_parquet('r2://log/events/2024/11/**/*.parquet') WHERE type = 'rpc.call' ORDER BY ts DESC LIMIT 1000",
            Some(json!([["Room", "get", 30.0, false], ["Room", "get", 10.0, true]])),
        ),
        (
            "SELECT \"do\".class, method, COUNT(*) AS calls, PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY durationMs) AS p50, MAX(durationMs) AS most FROM read_parquet('r2://log/events/2024/**/*.parquet') WHERE type = 'rpc.call' GROUP BY \"do\".class, method ORDER BY calls DESC",
            Some(json!([["Room", "get", 2, 20.0, 30.0], ["Hall", "put", 1, 20.0, 20.0]])),
        ),
        (
            "SELECT url, statusCode, COUNT(*) AS errors FROM read_parquet('r2://log/events/2024/11/**/*.parquet') WHERE status_code >= 400 GROUP BY url, statusCode ORDER BY errors DESC LIMIT 20",
            Some(json!([["/a", 500, 1]])),
        ),
        // Volumes by hour and day, of one hour, and of both formats, which are the same rows.
        (
            "SELECT type, COUNT(*) AS count FROM read_parquet('r2://log/events/2024/11/20/14/*.parquet') GROUP BY type ORDER BY count DESC, type",
            Some(json!([["cdc.delete", 1], ["cdc.insert", 1], ["cdc.update", 1], ["rpc.call", 1]])),
        ),
        (
            "SELECT id FROM read_parquet('events/2024/11/20/*/*.parquet', filename=true, hive_partitioning=false) UNION ALL SELECT id FROM read_json_auto('events/2024/11/20/*/*.jsonl', filename=true, hive_partitioning=false) WHERE type IN ('rpc.call') ORDER BY id DESC LIMIT 3",
            Some(json!([["r2"], ["r2"], ["r1"]])),
        ),
        (
            "SELECT DATE(DATE_TRUNC('day', timestamp)) AS day, type, COUNT(*) AS count FROM read_parquet('events/2024/11/20/*/*.parquet') GROUP BY day, type ORDER BY day DESC, count DESC LIMIT 1",
            Some(json!([["2024-11-20", "rpc.call", 2]])),
        ),
        (
            "SELECT id FROM events WHERE type = 'Customer.created' AND DATE(timestamp) = CURRENT_DATE AND ns LIKE 'startups.%'",
            None,
        ),
        (
            "SELECT type, DATE_TRUNC('hour', timestamp) AS hour, COUNT(*) AS count FROM events WHERE timestamp > NOW() - INTERVAL '24 hours' GROUP BY type, hour ORDER BY hour DESC",
            None,
        ),
        // A projection.
        (
            "SELECT CONCAT(ns, '/', \"table\") AS url, _meta FROM events WHERE type IN ('Customer.created', 'cdc.insert') ORDER BY id",
            Some(json!([
                ["startups.studio/users", null],
                ["startups.studio/", "{\"source\":\"shop\"}"]
            ])),
        ),
    ]
}

/// Of whole rows, whose number is checked.
fn about_whole_rows() -> Vec<(&'static str, usize)> {
    vec![
        (
            "SELECT * FROM read_json_auto('r2://log/2024/**/*.jsonl') WHERE bookmark > 'b1' AND bookmark <= 'b3'",
            2,
        ),
        (
            "SELECT * FROM read_json_auto('r2://log/2024/**/*.jsonl') WHERE type = 'cdc.update' AND collection = 'users';",
            1,
        ),
        ("SELECT * FROM things WHERE id = 'u-1' ORDER BY rowid DESC", 3),
        (
            "SELECT id, type, timestamp, CONCAT(ns, '/', source) AS source, CONCAT(ns, '/', \"table\") AS table_url, op, store, key, before, after,\n       actor, data, correlation_id, _meta FROM events",
            7,
        ),
        (
            "SELECT * FROM read_parquet('r2://log/events/2024/11/**/*.parquet', filename=true, hive_partitioning=false) WHERE type = 'rpc.call' ORDER BY ts DESC LIMIT 100",
            2,
        ),
        (
            "SELECT * FROM read_parquet('events/2024/11/20/*/*.parquet', filename=true, hive_partitioning=false) UNION ALL SELECT * FROM read_json_auto('events/2024/11/20/*/*.jsonl', filename=true, hive_partitioning=false) WHERE type IN ('rpc.call') ORDER BY ts DESC",
            7,
        ),
        (
            "SELECT * FROM read_parquet('r2://log/cdc/w/users/deltas/*.parquet') WHERE bookmark > 'b1' AND bookmark <= 'b2' ORDER BY ts ASC",
            1,
        ),
        (
            "SELECT DATE_TRUNC('day', ts) AS day, type, COUNT(*) AS event_count FROM read_parquet('r2://log/events/2024/**/*.parquet') GROUP BY day, type ORDER BY day DESC, event_count DESC",
            5,
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_may_only_read_asks_as_it_asked_the_files() {
    let guarded = Guarded::start().await;
    let (status, answer) = guarded.post(&guarded.admin, "/ingest?backfill=true", &sent()).await;
    assert_eq!((status, &answer["received"]), (200, &json!(7)), "{answer}");
    let scopes = json!({ "name": "analyst", "scopes": ["read:startups_studio"] });
    let token = guarded.token(&scopes).await;
    for place in ["the log", "a data file"] {
        for (sql, rows) in about_changes().into_iter().chain(about_calls()) {
            let asked = json!({ "sql": sql });
            let (status, answer) = guarded.post(&token, &format!("/v1/{NS}/sql"), &asked).await;
            assert_eq!(status, 200, "{sql}\nover {place}: {answer}");
            if let Some(rows) = rows {
                assert!(same(&answer["rows"], &rows), "{sql}\nover {place}: {answer}");
            }
        }
        for (sql, count) in about_whole_rows() {
            let asked = json!({ "sql": sql });
            let (status, answer) = guarded.post(&token, &format!("/v1/{NS}/sql"), &asked).await;
            let rows = answer["rows"].as_array().map_or(0, Vec::len);
            assert_eq!((status, rows), (200, count), "{sql}\nover {place}: {answer}");
        }
        let path = format!("/v1/{NS}/commit");
        let (status, answer) = guarded.post(&guarded.admin, &path, &Value::Null).await;
        assert_eq!(status, 200, "{answer}");
    }
    guarded.server.stop().await;
}

async fn names(server: &TestServer, sql: &str) -> Value {
    let (status, answer) = server.query(NS, &json!({ "sql": sql })).await;
    assert_eq!(status, 200, "{sql}: {answer}");
    answer["columns"].as_array().unwrap().iter().map(|column| column["name"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_is_a_label_as_written_and_no_column_of_a_wildcard() {
    let server = TestServer::start().await;
    assert_eq!(server.ingest_at("/ingest?backfill=true", &sent()).await.0, 200);
    let check = async |sql: &str, expected: Value| assert_eq!(names(&server, sql).await, expected);
    check(
        "SELECT docId, e.durationMs, \"do\".class, e.\"do\".name FROM events e",
        json!(["docId", "durationMs", "class", "name"]),
    )
    .await;
    check(
        "SELECT a.docId, b.docId, a.doc, b.doc, a.\"do\" FROM events a JOIN events b ON a.id = b.id",
        json!(["docId", "docId", "doc", "doc", "do"]),
    )
    .await;
    check(
        "SELECT docId AS d, max(durationMs) FROM events GROUP BY docId",
        json!(["d", "max(durationMs)"]),
    )
    .await;
    let all = names(&server, "SELECT * FROM events").await;
    assert!(all.as_array().unwrap().contains(&json!("key")), "{all}");
    assert!(!all.as_array().unwrap().contains(&json!("docId")), "{all}");
    check("SELECT * FROM read_parquet('events/2024/**/*.parquet', filename=true)", all.clone())
        .await;
    check("FROM events", all).await;
    check("SELECT * FROM cdc_users_deltas", json!(["op", "pk", "ts", "data", "prev", "bookmark"]))
        .await;
    check("SELECT * FROM things", json!(["rowid", "id", "type", "collection", "data", "op", "ts"]))
        .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_is_none_of_the_layout_reads_nothing() {
    let server = TestServer::start().await;
    assert_eq!(server.ingest_at("/ingest?backfill=true", &sent()).await.0, 200);
    for path in [
        "/etc/passwd",
        "file:///etc/passwd",
        "events/../../2024/*.parquet",
        "https://e.example/events/2024/**/*.parquet",
    ] {
        let sql = format!("SELECT * FROM read_parquet('{path}')");
        let (status, answer) = server.query(NS, &json!({ "sql": sql })).await;
        let text = answer["error"].as_str().unwrap_or_default();
        assert!(
            status == 400 && text.contains("'events/2026/11/20/14/*.parquet'"),
            "{path}: {answer}"
        );
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_analysis_tells_which_files_a_path_left_out() {
    let server = TestServer::start().await;
    assert_eq!(server.ingest_at("/ingest?backfill=true", &sent()).await.0, 200);
    server.commit(NS).await;
    let sql = "EXPLAIN ANALYZE SELECT max(id) FROM read_parquet('events/2024/11/**/*.parquet') WHERE type = 'rpc.call'";
    let rows = server.rows(NS, sql).await;
    let last = rows.as_array().unwrap().last().unwrap();
    let text = last[1].as_str().unwrap();
    // A file for each of five types, and two days of one.
    assert!(text.starts_with("files read: 1, files pruned: 5, bytes read: "), "{rows}");
    let pruned = text.rsplit_once("bytes pruned: ").unwrap().1.parse::<u64>().unwrap();
    let files = "SELECT sum(file_size_in_bytes) - min(CASE WHEN partition['type'] = 'rpc.call' THEN file_size_in_bytes END) FROM events.files";
    let at_most = server.rows(NS, files).await[0][0].as_u64().unwrap();
    assert!(0 < pruned && pruned <= at_most, "{rows}: {at_most}");
    assert!(!rows.to_string().contains(server.folder.path().to_str().unwrap()), "{rows}");
    // A count of whole days is in the manifests.
    let counted = server.rows(NS, &sql.replace("max(id)", "count(*)")).await.to_string();
    assert!(counted.contains("files read: 0, files pruned: 6, bytes read: 0"), "{counted}");
    // A count of the whole table is in its statistics, and the plan scans nothing.
    let counted = server.rows(NS, "EXPLAIN ANALYZE SELECT count(*) FROM events").await.to_string();
    let files = "SELECT count(*), sum(file_size_in_bytes) FROM events.files";
    let files = server.rows(NS, files).await;
    let (count, bytes) = (files[0][0].as_u64().unwrap(), files[0][1].as_u64().unwrap());
    let text =
        format!("files read: 0, files pruned: {count}, bytes read: 0, bytes pruned: {bytes}");
    assert!(counted.contains(&text), "{counted}: {files}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_catalog_has_keeps_its_name_before_a_view_of_changes() {
    let server = TestServer::start().await;
    assert_eq!(server.ingest_at("/ingest?backfill=true", &sent()).await.0, 200);
    server.commit(NS).await;
    let count = "SELECT count(*) FROM things";
    assert_eq!(server.rows(NS, count).await, json!([[3]]));
    assert_eq!(server.rows(NS, "DESCRIBE things").await[0][0], "rowid");
    let rows = server.rows(NS, "WITH things AS (SELECT 1 AS x) SELECT x FROM things").await;
    assert_eq!(rows, json!([[1]]));
    let body = json!({ "name": "things", "schema": { "type": "struct", "fields": [{ "id": 1, "name": "x", "required": false, "type": "long" }] } });
    let path = "/catalog/v1/namespaces/startups_studio/tables";
    assert_eq!(server.post(path, "application/json", body.to_string()).await.status(), 200);
    assert_eq!(server.rows(NS, count).await, json!([[0]]));
    assert_eq!(server.rows(NS, "SELECT x FROM things").await, json!([]));
    let schema = json!({ "type": "struct", "schema-id": 0, "fields": [{ "id": 1, "name": "x", "required": false, "type": "long" }] });
    let version = json!({
        "version-id": 1, "timestamp-ms": 1_700_000_000_000_i64, "schema-id": 0, "summary": {},
        "default-namespace": ["startups_studio"],
        "representations": [{ "type": "sql", "sql": "SELECT 1", "dialect": "duckdb" }],
    });
    let view = json!({ "name": "cdc_users_deltas", "schema": schema, "view-version": version, "properties": {} });
    let path = "/catalog/v1/namespaces/startups_studio/views";
    assert_eq!(server.post(path, "application/json", view.to_string()).await.status(), 200);
    assert_eq!(server.rows(NS, "SELECT x FROM cdc_users_deltas").await, json!([[1]]));
    server.stop().await;
}
