//! Statements that write tables of their callers: what is there afterwards, and what is not.

use crate::{
    access::Guarded,
    harness::{TestServer, config},
    process::{self, post_and_die},
};
use icecore_lake::clock::Clock;
use reqwest::Method;
use serde_json::{Value, json};
use std::{ops::Range, path::Path};

/// Events of two types, one an hour.
fn sent(range: Range<u32>) -> Value {
    let event = |n: u32| {
        let kind = if n.is_multiple_of(2) { "order" } else { "call" };
        json!({"id": format!("e-{n}"), "type": kind, "ns": "shop", "data": {"n": n}, "ts": format!("2024-01-{:02}T{:02}:00:00Z", 1 + n / 24, n % 24)})
    };
    json!({ "events": range.map(event).collect::<Vec<_>>() })
}

async fn shop(events: u32) -> TestServer {
    shop_with(events, &[]).await
}

async fn shop_with(events: u32, more: &[(&str, &str)]) -> TestServer {
    let all = [("ingest.ts_past", "10000d"), ("compaction.enabled", "off")];
    let settings = [&all[..], more].concat();
    let server = TestServer::start_in(tempfile::tempdir().unwrap(), &settings).await;
    assert_eq!(server.ingest(&sent(0..events)).await.0, 200);
    server.commit("shop").await;
    server
}

async fn run(server: &TestServer, sql: &str) -> (u16, Value) {
    server.query("shop", &json!({ "sql": sql })).await
}

/// A statement that must write.
async fn write(server: &TestServer, sql: &str) -> Value {
    let (status, answer) = run(server, sql).await;
    assert_eq!(status, 200, "{sql}: {answer}");
    answer
}

async fn refused(server: &TestServer, sql: &str, wanted: u16, told: &str) {
    let (status, answer) = run(server, sql).await;
    assert_eq!(status, wanted, "{sql}: {answer}");
    assert!(answer["error"].as_str().unwrap().contains(told), "{sql}: {answer}");
}

/// How many data files there are.
fn data_files(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| match path.is_dir() {
            true => data_files(&path),
            false => usize::from(path.extension().is_some_and(|it| it == "parquet")),
        })
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_made_of_a_query_and_rows_are_added_to_it() {
    let server = shop(10).await;
    let made = write(
        &server,
        "CREATE TABLE Daily AS SELECT type, count(*) AS n, min(seq) AS \"First\", max(ts) AS last FROM events GROUP BY type ORDER BY type",
    )
    .await;
    assert_eq!((&made["rowCount"], &made["rows"]), (&json!(2), &json!([])), "{made}");
    assert!(made["elapsedMs"].is_u64(), "{made}");
    let rows = "SELECT type, n, \"First\" FROM daily ORDER BY type, n";
    let first = json!([["call", 5, 2], ["order", 5, 1]]);
    assert_eq!(server.rows("shop", rows).await, first);
    let table = server.get("/catalog/v1/namespaces/shop/tables/daily").await;
    let table: Value = table.json().await.unwrap();
    assert_eq!(table["metadata"]["current-snapshot-id"], made["snapshot"], "{table}");
    let fields = table["metadata"]["schemas"][0]["fields"].as_array().unwrap().clone();
    let kinds: Vec<&Value> = fields.iter().map(|field| &field["type"]).collect();
    assert_eq!(kinds, ["string", "long", "long", "timestamptz"]);

    let added = write(&server, "INSERT INTO daily (n, TYPE) VALUES (7, 'refund'), (8, NULL)").await;
    assert_eq!(added["rowCount"], 2, "{added}");
    assert_ne!(added["snapshot"], made["snapshot"]);
    write(&server, "INSERT INTO shop.daily SELECT * FROM daily WHERE type = 'call'").await;
    let all = json!([
        ["call", 5, 2],
        ["call", 5, 2],
        ["order", 5, 1],
        ["refund", 7, null],
        [null, 8, null]
    ]);
    assert_eq!(server.rows("shop", rows).await, all);
    // A point of its history is read as of any table.
    let was = json!({ "sql": rows, "as_of": made["snapshot_str"] });
    assert_eq!(server.query("shop", &was).await.1["rows"], first);

    refused(&server, "CREATE TABLE daily AS SELECT 1 AS x", 409, "already exists").await;
    let there = write(&server, "CREATE TABLE IF NOT EXISTS daily AS SELECT 1 AS x").await;
    assert_eq!(there["rowCount"], 0, "{there}");
    let none = write(&server, "INSERT INTO daily SELECT * FROM daily WHERE false").await;
    assert_eq!((&none["rowCount"], &none["snapshot"]), (&json!(0), &there["snapshot"]));
    write(&server, "CREATE TABLE nobody AS SELECT type FROM events WHERE false").await;
    assert_eq!(server.rows("shop", "SELECT count(*) FROM nobody").await, json!([[0]]));
    let checked = server.post("/admin/fsck", "application/json", "{}").await;
    let checked: Value = checked.json().await.unwrap();
    assert_eq!(checked["whole"], true, "{checked}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_made_where_all_events_are_in_the_log_alone() {
    let settings = [("ingest.ts_past", "10000d"), ("commit.interval", "10min")];
    let server = TestServer::start_in(tempfile::tempdir().unwrap(), &settings).await;
    refused(&server, "CREATE TABLE t AS SELECT 1 AS x", 404, "namespace `shop` is not there").await;
    assert_eq!(server.ingest(&sent(0..3)).await.0, 200);
    let made = write(&server, "CREATE TABLE t AS SELECT id FROM events").await;
    assert_eq!(made["rowCount"], 3, "{made}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_formats_answer_with_one_row() {
    let server = shop(4).await;
    let body = json!({ "sql": "CREATE TABLE t AS SELECT id FROM events" }).to_string();
    let asked = server.http.post(format!("{}/v1/shop/sql", server.url)).body(body);
    let answer = asked.header("accept", "application/x-ndjson").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let line: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    assert_eq!(line["row_count"], 4, "{line}");
    assert!(line["snapshot"].is_i64(), "{line}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partitioned_table_has_a_file_a_partition() {
    let server = shop(48).await;
    write(
        &server,
        "CREATE TABLE parts PARTITIONED BY (type, day(ts)) AS SELECT id, type, ts FROM events",
    )
    .await;
    let files = server.rows("shop", "SELECT count(*) FROM parts.files").await;
    assert_eq!(files, json!([[4]]));
    write(&server, "INSERT INTO parts SELECT id || 'x', type, ts FROM events").await;
    let counts =
        "SELECT type, CAST(ts AS date) AS day, count(*) FROM parts GROUP BY 1, 2 ORDER BY 1, 2";
    let counts = server.rows("shop", counts).await;
    let counts: Vec<&Value> = counts.as_array().unwrap().iter().map(|row| &row[2]).collect();
    assert_eq!(counts, [24, 24, 24, 24]);
    let one = "SELECT count(*) FROM parts WHERE type = 'call' AND ts < CAST('2024-01-02T00:00:00Z' AS timestamptz)";
    assert_eq!(server.rows("shop", one).await, json!([[24]]));
    refused(&server, "CREATE TABLE p PARTITIONED BY (seq) AS SELECT seq FROM events", 400, "`seq`")
        .await;
    refused(
        &server,
        "CREATE TABLE p PARTITIONED BY (x) AS SELECT seq FROM events",
        400,
        "names `x`",
    )
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_written_leaves_nothing_behind() {
    let server = shop(10).await;
    write(&server, "CREATE TABLE t AS SELECT type, seq, ts FROM events").await;
    let files = data_files(server.folder.path());
    for (sql, status, told) in [
        ("INSERT INTO events SELECT * FROM events", 400, "POST /ingest"),
        ("INSERT INTO dead_letters SELECT 1", 400, "POST /ingest"),
        ("CREATE TABLE dead_letters AS SELECT 1 AS x", 400, "that this server writes"),
        ("CREATE TABLE cdc_users AS SELECT 1 AS x", 400, "that this server writes"),
        ("INSERT INTO nothing SELECT 1", 404, "nothing"),
        ("INSERT INTO bank.t SELECT 1", 400, "/v1/bank/sql"),
        ("INSERT INTO t (type) SELECT type, seq FROM events", 400, "2 columns, but 1"),
        ("INSERT INTO t (size) VALUES (1)", 400, "no column `size`"),
        ("INSERT INTO t (seq, seq) VALUES (1, 2)", 400, "named twice"),
        ("INSERT INTO t (seq) VALUES ('x')", 400, "column `seq`"),
        ("INSERT INTO t (ts) VALUES ('soon')", 400, "column `ts`"),
        ("INSERT INTO t SELEC 1", 400, "SELECT"),
        ("CREATE TABLE n AS SELECT NULL AS x", 400, "`x`"),
        ("CREATE TABLE n AS SELECT ts - ts AS length FROM events", 400, "`length`"),
        ("CREATE TABLE n AS SELECT 1 AS \"A\", 2 AS a", 400, "differ by case"),
        ("CREATE TABLE n AS SELECT 1 AS x, 2 AS x", 400, "`x`"),
        ("CREATE TABLE n AS SELECT * FROM nowhere", 400, "nowhere"),
        // Rows come before the one that fails.
        ("CREATE TABLE n AS SELECT 10 / (seq - 9) AS x FROM events", 400, "division by zero"),
        ("INSERT INTO t (seq) SELECT 10 / (seq - 9) FROM events", 400, "division by zero"),
        ("CREATE OR REPLACE TABLE t AS SELECT 10 / (seq - 9) AS x FROM events", 400, "by zero"),
        ("CREATE OR REPLACE TABLE dead_letters AS SELECT 1 AS x", 400, "that this server writes"),
        ("DROP TABLE t", 400, "only queries"),
        ("UPDATE t SET seq = 1", 400, ""),
        ("DELETE FROM t", 400, "only queries"),
        ("COPY t TO 'file'", 400, ""),
        ("SET x = 1", 400, ""),
        ("EXPLAIN INSERT INTO t SELECT * FROM t", 400, "only queries"),
    ] {
        refused(&server, sql, status, told).await;
    }
    assert_eq!(data_files(server.folder.path()), files);
    assert_eq!(server.rows("shop", "SELECT count(*) FROM t").await, json!([[10]]));
    let tables: Value = server.get("/v1/shop/tables").await.json().await.unwrap();
    let names: Vec<&Value> =
        tables["tables"].as_array().unwrap().iter().map(|table| &table["name"]).collect();
    assert!(names.contains(&&json!("t")) && !names.contains(&&json!("n")), "{tables}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_replaced_in_one_commit_and_its_history_stays() {
    let server = shop(6).await;
    let first = write(
        &server,
        "CREATE OR REPLACE TABLE t AS SELECT type, count(*) AS n FROM events GROUP BY type",
    )
    .await;
    assert_eq!(first["rowCount"], 2, "{first}");
    // The query reads the table that it replaces.
    let second = write(
        &server,
        "CREATE OR REPLACE TABLE t PARTITIONED BY (day(ts)) AS SELECT e.id, e.ts, CAST(t.n AS varchar) AS n, [1] AS list FROM events e JOIN t ON e.type = t.type",
    )
    .await;
    assert_eq!(second["rowCount"], 6, "{second}");
    let rows = "SELECT count(*), min(id), min(n), count(list) FROM t";
    assert_eq!(server.rows("shop", rows).await, json!([[6, "e-0", "3", 6]]));
    let was = "SELECT type, n FROM t ORDER BY type";
    let was = json!({ "sql": was, "as_of": first["snapshot_str"] });
    let (_, answer) = server.query("shop", &was).await;
    assert_eq!(answer["rows"], json!([["call", 3], ["order", 3]]), "{answer}");
    let snapshots = "SELECT operation FROM t.snapshots ORDER BY committed_at";
    assert_eq!(server.rows("shop", snapshots).await, json!([["append"], ["overwrite"]]));
    write(&server, "INSERT INTO t (id) VALUES ('more')").await;
    // Files lie by the days of this column.
    refused(&server, "CREATE OR REPLACE TABLE t AS SELECT id FROM events", 400, "`ts`").await;
    // One without rows, and then one without files.
    for (column, rows) in [("id", "id, ts FROM events"), ("n", "seq AS n, ts FROM events")] {
        let sql = format!("CREATE OR REPLACE TABLE t AS SELECT {rows} WHERE false");
        assert_eq!(write(&server, &sql).await["rowCount"], 0);
        let count = format!("SELECT count({column}) FROM t");
        assert_eq!(server.rows("shop", &count).await, json!([[0]]));
    }
    write(&server, "INSERT INTO t (n) VALUES (1)").await;
    assert_eq!(server.rows("shop", "SELECT n FROM t").await, json!([[1]]));
    let checked = server.post("/admin/fsck", "application/json", "{}").await;
    let checked: Value = checked.json().await.unwrap();
    assert_eq!(checked["whole"], true, "{checked}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_structs_and_maps_are_written_and_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut config =
        config(&folder, &[("ingest.ts_past", "10000d"), ("compaction.enabled", "off")]);
    // The server's own process makes no structs.
    config.worker_program = Some(process::binary());
    let server = TestServer::start_with(folder, &config, Clock::system()).await;
    assert_eq!(server.ingest(&sent(0..2)).await.0, 200);
    server.commit("shop").await;
    let made = write(
        &server,
        "CREATE TABLE nested AS SELECT seq, [1, NULL, 3] AS several, {'a': 1, 'b': ['x', 'y']} AS parts, MAP {'k': 2} AS pairs FROM events",
    )
    .await;
    assert_eq!(made["rowCount"], 2, "{made}");
    write(&server, "INSERT INTO nested SELECT * FROM nested WHERE seq = 2").await;
    write(&server, "INSERT INTO nested (several) SELECT [7]").await;
    let sql = "SELECT several[1] AS one, parts.a AS a, pairs['k'] AS k, seq FROM nested ORDER BY one, seq";
    let rows = json!([[1, 1, 2, 1], [1, 1, 2, 2], [1, 1, 2, 2], [7, null, null, null]]);
    assert_eq!(server.rows("shop", sql).await, rows);
    let other = "INSERT INTO nested (parts) SELECT {'a': 1, 'c': ['x']}";
    refused(&server, other, 400, "`parts`").await;
    refused(&server, "INSERT INTO nested (several) VALUES (1)", 400, "`several`").await;
    let checked = server.post("/admin/fsck", "application/json", "{}").await;
    let checked: Value = checked.json().await.unwrap();
    assert_eq!(checked["whole"], true, "{checked}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_with_a_name_of_the_service_is_not_written_to_whoever_made_it() {
    let server = TestServer::start().await;
    let events = json!({"events": [{"id": "e", "ns": "shop", "type": "order"}]});
    let namespace = json!({"namespace": ["shop"]}).to_string();
    let path = "/catalog/v1/namespaces";
    let made = server.post(path, "application/json", namespace).await;
    assert_eq!(made.status(), 200, "{}", made.text().await.unwrap());
    let field = json!({"id": 1, "name": "n", "type": "long", "required": false});
    let schema = json!({"type": "struct", "schema-id": 0, "fields": [field]});
    let table = json!({"name": "events", "schema": schema}).to_string();
    let path = "/catalog/v1/namespaces/shop/tables";
    let made = server.post(path, "application/json", table).await;
    assert_eq!(made.status(), 200, "{}", made.text().await.unwrap());
    refused(&server, "INSERT INTO events VALUES (1)", 400, "POST /ingest").await;
    assert_eq!(server.ingest(&events).await.0, 200);
    refused(&server, "INSERT INTO events VALUES (1)", 400, "POST /ingest").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_ends_before_its_commit_deletes_its_files() {
    let server = shop_with(6, &[("failpoints", "write.before_commit=error@1*2")]).await;
    write(&server, "CREATE TABLE t AS SELECT id FROM events").await;
    let files = data_files(server.folder.path());
    for sql in ["CREATE TABLE n AS SELECT id FROM events", "INSERT INTO t SELECT id FROM events"] {
        let (status, answer) = run(&server, sql).await;
        assert_eq!(status, 500, "{sql}: {answer}");
        assert_eq!(data_files(server.folder.path()), files, "{sql}");
    }
    write(&server, "INSERT INTO t SELECT id FROM events").await;
    assert_eq!(server.rows("shop", "SELECT count(*) FROM t").await, json!([[12]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_statements_that_make_the_same_table_one_wins() {
    let server = shop(20).await;
    let files_before = data_files(server.folder.path());
    let make = |n: u32| {
        let (server, sql) = (&server, format!("CREATE TABLE one AS SELECT {n} AS n FROM events"));
        async move { run(server, &sql).await }
    };
    let ((first, one), (second, two)) = tokio::join!(make(1), make(2));
    let mut statuses = [first, second];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409], "{one} {two}");
    let winner = if first == 200 { 1 } else { 2 };
    let rows = server.rows("shop", "SELECT n, count(*) FROM one GROUP BY n").await;
    assert_eq!(rows, json!([[winner, 20]]));
    let files = server.rows("shop", "SELECT file_path FROM one.files").await;
    assert_eq!(files.as_array().unwrap().len(), 1);
    assert_eq!(data_files(server.folder.path()), files_before + 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_is_sent_again_under_its_key_is_carried_out_once() {
    let server = shop(6).await;
    let send = async |key: &str, sql: &str| {
        let asked = server.http.post(format!("{}/v1/shop/sql", server.url));
        let asked = asked.header("idempotency-key", key).body(json!({ "sql": sql }).to_string());
        let answer = asked.send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json::<Value>().await.unwrap())
    };
    let (one, two) =
        ("018f6b5e-0000-7000-8000-000000000001", "018f6b5e-0000-7000-8000-000000000002");
    let make = "CREATE TABLE t AS SELECT id FROM events";
    let add = "INSERT INTO t SELECT id || 'x' FROM events";
    for (key, sql) in [(one, make), (two, add)] {
        let (status, first) = send(key, sql).await;
        assert_eq!((status, &first["rowCount"]), (200, &json!(6)), "{first}");
        // What others do meanwhile is not told.
        write(&server, "INSERT INTO t VALUES ('other')").await;
        let (status, again) = send(key, sql).await;
        assert_eq!((status, &again["rowCount"]), (200, &json!(6)), "{again}");
        assert_eq!(again["snapshot"], first["snapshot"]);
    }
    assert_eq!(server.rows("shop", "SELECT count(*) FROM t").await, json!([[14]]));
    let (status, answer) = send(one, add).await;
    assert_eq!(status, 400, "{answer}");
    assert!(answer["error"].as_str().unwrap().contains("another request"), "{answer}");
    assert_eq!(send("no key", add).await.0, 400);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_may_write_writes_and_what_was_written_is_recorded() {
    let guarded = Guarded::start().await;
    let admin = guarded.admin.clone();
    let event = |n: u32| json!({"id": format!("e-{n}"), "type": "order", "ns": "shop"});
    let events = json!({ "events": (0..3).map(event).collect::<Vec<_>>() });
    assert_eq!(guarded.post(&admin, "/ingest", &events).await.0, 200);
    assert_eq!(guarded.post(&admin, "/v1/shop/commit", &json!({})).await.0, 200);
    let reader = guarded.token(&json!({"name": "r", "scopes": ["read:shop"]})).await;
    let writer = guarded.token(&json!({"name": "w", "scopes": ["write:shop"]})).await;
    let make = json!({"sql": "CREATE TABLE t AS SELECT id FROM events"});
    let add = json!({"sql": "INSERT INTO t VALUES ('own')"});
    let path = "/v1/shop/sql";
    let (status, answer) = guarded.post(&reader, path, &make).await;
    assert_eq!(status, 403, "{answer}");
    assert!(answer["error"].as_str().unwrap().contains("write:shop"), "{answer}");
    assert_eq!(guarded.call(Method::POST, "", path, &make).await.0, 401);
    for statement in [&make, &add] {
        let (status, answer) = guarded.post(&writer, path, statement).await;
        assert_eq!(status, 200, "{answer}");
    }
    assert_eq!(guarded.post(&reader, path, &add).await.0, 403);
    let count = json!({"sql": "SELECT count(*) FROM t"});
    assert_eq!(guarded.post(&reader, path, &count).await.1["rows"], json!([[4]]));
    let seen = json!({"sql": "SELECT action, outcome FROM system.audit WHERE object = 'shop.t' AND outcome = 'done' ORDER BY number"});
    let (_, seen) = guarded.post(&admin, path, &seen).await;
    let wanted = json!([
        ["POST /v1/{namespace}/sql CREATE TABLE", "done"],
        ["POST /v1/{namespace}/sql INSERT INTO", "done"],
    ]);
    assert_eq!(seen["rows"], wanted, "{seen}");
    guarded.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_before_the_commit_shows_nothing_and_after_it_everything() {
    let server = shop(6).await;
    write(&server, "CREATE TABLE kept AS SELECT id FROM events").await;
    let mut folder = server.stop().await;
    let count = "SELECT count(*) FROM kept";
    for (point, made, rows) in [("write.before_commit", 404_u16, 6), ("write.lost_answer", 200, 12)]
    {
        for sql in [
            "CREATE TABLE fresh AS SELECT id FROM events",
            "INSERT INTO kept SELECT id FROM events",
        ] {
            let body = json!({ "sql": sql }).to_string();
            post_and_die(folder.path(), &format!("{point}=abort"), "/v1/shop/sql", body).await;
        }
        let server = TestServer::start_in(folder, &[]).await;
        let table = server.get("/catalog/v1/namespaces/shop/tables/fresh").await;
        assert_eq!(table.status(), made, "{point}");
        assert_eq!(server.rows("shop", count).await, json!([[rows]]), "{point}");
        folder = server.stop().await;
    }
    let server = TestServer::start_in(folder, &[]).await;
    write(&server, "INSERT INTO fresh SELECT id FROM kept").await;
    assert_eq!(server.rows("shop", "SELECT count(*) FROM fresh").await, json!([[18]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_a_statement_that_was_killed_are_found_two_days_later() {
    let server = shop(6).await;
    let folder = server.stop().await;
    let statement = json!({"sql": "CREATE TABLE fresh AS SELECT id FROM events"}).to_string();
    post_and_die(folder.path(), "write.before_commit=abort", "/v1/shop/sql", statement).await;
    let later = Clock::manual(Clock::system().now_ms() + 2 * 86_400_000);
    let server = TestServer::start_at(folder, &[("orphans.cron", "")], later).await;
    let report = server.post("/admin/jobs/orphans?dry_run=true", "application/json", "").await;
    let report: Value = report.json().await.unwrap();
    assert_eq!((&report["files"]["before"], &report["errors"]), (&json!(1), &json!(0)), "{report}");
    server.stop().await;
}
