//! Materialised tables: their rows after a refresh, after a crash in one, after an erasure, and what is refused.

use crate::{access::Guarded, admin::icecore, harness::TestServer, process::post_and_die};
use icecore::cron::CronTimes;
use icecore_schemas::jobs::{JobList, JobReport};
use reqwest::Method;
use serde_json::{Value, json};
use std::ops::Range;

const BY_TYPE: &str = "SELECT type, count(*) AS n, sum(seq) AS seqs, min(id) AS low, max(seq) AS high FROM events GROUP BY type";
const DAILY: &str = "SELECT type, n, seqs, low, high FROM daily ORDER BY type";
const PATH: &str = "/v1/shop/materialized/daily";
/// It is run by hand alone.
const SELDOM: &str = "0 0 1 1 *";

/// Events of two types and two users.
fn sent(range: Range<u32>) -> Value {
    let event = |n: u32| {
        let even = n.is_multiple_of(2);
        let (kind, user) = if even { ("order", "ann") } else { ("call", "bea") };
        json!({"id": format!("e-{n:03}"), "type": kind, "ns": "shop", "user_id": user})
    };
    json!({ "events": range.map(event).collect::<Vec<_>>() })
}

async fn shop(events: u32) -> TestServer {
    let settings = [("compaction.enabled", "off")];
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start_in(folder, &settings).await;
    assert_eq!(server.ingest(&sent(0..events)).await.0, 200);
    server
}

async fn put(server: &TestServer, path: &str, sql: &str) -> Value {
    let (status, answer) =
        server.call(Method::PUT, path, &json!({"sql": sql, "every": SELDOM})).await;
    assert_eq!(status, 200, "{sql}: {answer}");
    answer
}

async fn refresh(server: &TestServer, parameters: &str) -> JobReport {
    let path = format!("/admin/jobs/materialize?namespace=shop{parameters}");
    let answer = server.post(&path, "application/json", "").await;
    let (status, text) = (answer.status(), answer.text().await.unwrap());
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

async fn set_property(server: &TestServer, key: &str, value: &str) {
    let updates = json!([{"action": "set-properties", "updates": {key: value}}]);
    let body = json!({"requirements": [], "updates": updates});
    let path = "/catalog/v1/namespaces/shop/tables/daily";
    let (status, answer) = server.call(Method::POST, path, &body).await;
    assert_eq!(status, 200, "{answer}");
}

/// The table has the rows that its query has now.
async fn check_daily(server: &TestServer) {
    let wanted = server.rows("shop", &format!("{BY_TYPE} ORDER BY type")).await;
    assert_eq!(server.rows("shop", DAILY).await, wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollup_gets_new_events_in_one_commit_each_and_nothing_where_none_came() {
    let server = shop(6).await;
    let made = put(&server, PATH, BY_TYPE).await;
    assert_eq!((&made["is_incremental"], &made["seq"]), (&json!(true), &json!(6)), "{made}");
    check_daily(&server).await;
    let none = refresh(&server, "&table=daily").await;
    assert_eq!((none.tables, none.errors), (0, 0), "{none:?}");

    // Some are in the log, some in the table, and one group is new.
    assert_eq!(server.ingest(&sent(6..9)).await.0, 200);
    server.commit("shop").await;
    let new = json!([{"id": "a", "type": "refund", "ns": "shop"}]);
    assert_eq!(server.ingest(&new).await.0, 200);
    let dry = refresh(&server, "&table=daily&dry_run=true").await;
    assert_eq!((dry.tables, dry.rows), (1, 0), "{dry:?}");
    let done = refresh(&server, "").await;
    assert_eq!((done.tables, done.rows, done.errors), (1, 3, 0), "{done:?}");
    check_daily(&server).await;
    let shown: Value = server.get(PATH).await.json().await.unwrap();
    assert_eq!((&shown["seq"], &shown["every"]), (&json!(10), &json!(SELDOM)), "{shown}");
    let snapshots = "SELECT operation FROM daily.snapshots ORDER BY committed_at";
    assert_eq!(server.rows("shop", snapshots).await, json!([["append"], ["overwrite"]]));
    let files = server.rows("shop", "SELECT count(*) FROM daily.files").await;
    assert_eq!(files, json!([[1]]));

    let listed = icecore(&server, &["materialize", "daily", "--ns", "shop", "--show"]);
    assert!(listed.0 && listed.1.contains("new events alone"), "{}", listed.1);
    // Whoever may write may change the query: its rows are not merged with those of another one.
    let calls = BY_TYPE.replace("FROM events", "FROM events WHERE type = 'call'");
    set_property(&server, "icecore.materialize.sql", &calls).await;
    // The job may come first.
    refresh(&server, "&table=daily").await;
    let wanted = server.rows("shop", &calls).await;
    assert_eq!(server.rows("shop", DAILY).await, wanted);
    set_property(&server, "icecore.materialize.cron", "never").await;
    let failed = refresh(&server, "&table=daily").await;
    assert_eq!((failed.tables, failed.errors), (0, 1), "{failed:?}");
    assert!(failed.skipped[0].reason.contains("icecore.materialize.cron"), "{failed:?}");
    let checked = server.post("/admin/fsck", "application/json", "{}").await;
    let checked: Value = checked.json().await.unwrap();
    assert_eq!(checked["whole"], true, "{checked}");
    server.stop().await;
}

/// The rollups of the documentation: names, times and queries.
fn documented() -> Vec<[String; 3]> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/sql.md");
    let text = std::fs::read_to_string(path).unwrap();
    let parts = text.split("\n-- materialize ").skip(1);
    let rollups = parts.map(|part| {
        let (head, rest) = part.split_once('\n').unwrap();
        let (name, every) = head.split_once(" --every ").unwrap();
        let (sql, _) = rest.split_once(';').unwrap();
        [name, every.trim_matches('"'), sql].map(str::to_owned)
    });
    rollups.collect()
}

fn sorted(rows: &Value) -> Vec<String> {
    let mut rows: Vec<String> = rows.as_array().unwrap().iter().map(Value::to_string).collect();
    rows.sort();
    rows
}

/// Calls of some minutes, hours and days, a part of which failed. Sums of their times are exact.
fn calls(range: Range<u32>) -> Value {
    let call = |n: u32| {
        let (day, hour, minute) = (20 + n % 2, 10 + n % 3, n % 7);
        let method = if n.is_multiple_of(2) { "get" } else { "put" };
        let status = if n.is_multiple_of(5) { 503 } else { 200 };
        let error = (n % 6 == 1).then_some("late");
        json!({
            "id": format!("r-{n:03}"), "type": "rpc.call", "ns": "shop", "ts": format!("2024-11-{day}T{hour}:{minute:02}:00Z"),
            "method": method, "durationMs": f64::from(n) / 2.0, "url": format!("/{}", n % 4), "statusCode": status, "error": error,
        })
    };
    json!({ "events": range.map(call).collect::<Vec<_>>() })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rollups_of_the_documentation_read_new_events_alone() {
    let settings = [("compaction.enabled", "off")];
    let server = TestServer::start_in(tempfile::tempdir().unwrap(), &settings).await;
    let path = "/ingest?backfill=true";
    assert_eq!(server.ingest_at(path, &calls(0..40)).await.0, 200);
    let rollups = documented();
    let names: Vec<&str> = rollups.iter().map(|[name, ..]| name.as_str()).collect();
    let wanted =
        ["events_by_minute", "events_by_hour", "events_by_day", "rpc_by_method", "errors_by_url"];
    assert_eq!(names, wanted);
    for [name, every, sql] in &rollups {
        assert!(CronTimes::parse(every).is_ok(), "{name}: {every}");
        let made = put(&server, &format!("/v1/shop/materialized/{name}"), sql).await;
        assert_eq!((&made["is_incremental"], &made["seq"]), (&json!(true), &json!(40)), "{made}");
    }
    // Groups that are there, and new ones; some of the events are in the table, some in the log.
    server.commit("shop").await;
    assert_eq!(server.ingest_at(path, &calls(40..70)).await.0, 200);
    let done = refresh(&server, "").await;
    assert_eq!((done.tables, done.errors), (5, 0), "{done:?}");
    for [name, _, sql] in &rollups {
        let rows = sorted(&server.rows("shop", &format!("SELECT * FROM {name}")).await);
        let wanted = sorted(&server.rows("shop", sql).await);
        assert!(1 < rows.len(), "{name}: {rows:?}");
        assert_eq!(rows, wanted, "{name}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_renamed_into_another_namespace_has_the_rows_of_that_one() {
    let server = shop(4).await;
    put(&server, PATH, BY_TYPE).await;
    // More than there were, so that some have a higher `seq` than the last one of the table's rows.
    let event = |n: u32| json!({"id": format!("b-{n}"), "type": "loan", "ns": "bank"});
    let events: Vec<Value> = (0..7).map(event).collect();
    assert_eq!(server.ingest(&json!({ "events": events })).await.0, 200);
    server.commit("bank").await;
    let renamed = json!({"name": "daily", "ns": "bank"});
    let path = "/v1/shop/tables/daily/rename";
    let (status, answer) = server.call(Method::POST, path, &renamed).await;
    assert_eq!(status, 200, "{answer}");
    let path = "/admin/jobs/materialize?namespace=bank&table=daily";
    let answer = server.post(path, "application/json", "").await;
    // The job may come first.
    assert_eq!(answer.status(), 200);
    let rows = server.rows("bank", "SELECT type, n FROM daily").await;
    assert_eq!(rows, json!([["loan", 7]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_job_runs_where_files_of_the_warehouse_are_restored_after_the_start() {
    let server = shop(2).await;
    server.commit("shop").await;
    let folder = server.stop().await;
    let place = |name: &str| folder.path().join(name);
    std::fs::rename(place("warehouse/shop"), place("away")).unwrap();
    let server = TestServer::start_in(folder, &[]).await;
    assert_eq!(server.get("/readyz").await.status(), 503);
    let list: JobList = server.get("/admin/jobs").await.json().await.unwrap();
    let job = list.jobs.into_iter().find(|job| job.name == "materialize").unwrap();
    assert!(job.running_since_ms.or(job.next_run_ms).is_some(), "{job:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollup_of_events_that_are_not_of_the_service_is_run_as_a_whole() {
    let server = TestServer::start().await;
    for levels in [&["lake"][..], &["lake", "raw"]] {
        let body = json!({ "namespace": levels });
        let (status, answer) = server.call(Method::POST, "/catalog/v1/namespaces", &body).await;
        assert_eq!(status, 200, "{answer}");
    }
    let write = async |sql: &str| {
        let (status, answer) = server.query("lake%1Fraw", &json!({ "sql": sql })).await;
        assert_eq!(status, 200, "{sql}: {answer}");
    };
    for column in ["seq", "number"] {
        write(&format!("CREATE TABLE events AS SELECT 1 AS {column}, 'a' AS type")).await;
        let path = format!("/v1/lake%1Fraw/materialized/by_{column}");
        put(&server, &path, "SELECT type, count(*) AS n FROM events GROUP BY type").await;
        write("INSERT INTO events SELECT 2 AS n, 'a' AS type").await;
        let answer = server.post("/admin/jobs/materialize", "application/json", "").await;
        let done: JobReport = answer.json().await.unwrap();
        assert_eq!((done.tables, done.errors), (1, 0), "{done:?}");
        let rows = server.rows("lake%1Fraw", &format!("SELECT type, n FROM by_{column}")).await;
        assert_eq!(rows, json!([["a", 2]]));
        for table in [format!("by_{column}"), "events".to_owned()] {
            let path = format!("/v1/lake%1Fraw/tables/{table}");
            let (status, answer) = server.call(Method::DELETE, &path, &Value::Null).await;
            assert_eq!(status, 200, "{answer}");
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_does_not_add_up_is_run_again_and_a_failing_table_holds_up_no_other() {
    let server = shop(4).await;
    put(
        &server,
        "/v1/shop/materialized/newest",
        "SELECT id, type FROM events ORDER BY seq DESC LIMIT 2",
    )
    .await;
    let (status, answer) =
        server.query("shop", &json!({"sql": "CREATE TABLE source AS SELECT id FROM events"})).await;
    assert_eq!(status, 200, "{answer}");
    let made =
        put(&server, "/v1/shop/materialized/copied", "SELECT count(*) AS n FROM source").await;
    assert_eq!((&made["is_incremental"], &made["seq"]), (&json!(false), &json!(0)), "{made}");
    let (status, answer) =
        server.call(Method::DELETE, "/v1/shop/tables/source", &Value::Null).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(server.ingest(&sent(4..6)).await.0, 200);
    let done = refresh(&server, "").await;
    assert_eq!((done.tables, done.errors), (1, 1), "{done:?}");
    let skipped = &done.skipped[0];
    assert!(skipped.table.contains("copied") && skipped.reason.contains("source"), "{skipped:?}");
    let rows = server.rows("shop", "SELECT id FROM newest ORDER BY id").await;
    assert_eq!(rows, json!([["e-004"], ["e-005"]]));
    assert_eq!(server.rows("shop", "SELECT n FROM copied").await, json!([[4]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_table_that_others_call_events_are_read_with_each_refresh() {
    let server = TestServer::start().await;
    let namespaces = "/catalog/v1/namespaces";
    for levels in [json!(["lake"]), json!(["lake", "raw"])] {
        let (status, answer) =
            server.call(Method::POST, namespaces, &json!({"namespace": levels})).await;
        assert_eq!(status, 200, "{answer}");
    }
    let (raw, columns) = ("lake%1Fraw", "SELECT 'a' AS k, CAST(1 AS bigint) AS seq");
    let make = json!({"sql": format!("CREATE TABLE events AS {columns}")});
    let (status, answer) = server.query(raw, &make).await;
    assert_eq!(status, 200, "{answer}");
    let sql = "SELECT k, count(*) AS n FROM events GROUP BY k";
    let made = put(&server, "/v1/lake%1Fraw/materialized/counted", sql).await;
    assert_eq!(made["seq"], json!(0), "{made}");
    let more = json!({"sql": format!("INSERT INTO events {columns}")});
    assert_eq!(server.query(raw, &more).await.0, 200);
    let done = server.post("/admin/jobs/materialize", "application/json", "").await;
    let done: JobReport = done.json().await.unwrap();
    assert_eq!((done.tables, done.errors), (1, 0), "{done:?}");
    assert_eq!(server.rows(raw, "SELECT k, n FROM counted").await, json!([["a", 2]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_in_a_refresh_has_each_event_in_the_table_once() {
    let server = shop(6).await;
    put(&server, PATH, BY_TYPE).await;
    let before = server.rows("shop", DAILY).await;
    assert_eq!(server.ingest(&sent(6..10)).await.0, 200);
    let mut folder = server.stop().await;
    let path = "/admin/jobs/materialize?namespace=shop";
    for (point, is_made) in [("write.before_commit", false), ("write.lost_answer", true)] {
        post_and_die(folder.path(), &format!("{point}=abort"), path, String::new()).await;
        let server = TestServer::start_in(folder, &[]).await;
        match is_made {
            true => check_daily(&server).await,
            false => assert_eq!(server.rows("shop", DAILY).await, before),
        }
        folder = server.stop().await;
    }
    let server = TestServer::start_in(folder, &[]).await;
    let again = refresh(&server, "").await;
    assert_eq!((again.tables, again.errors), (0, 0), "{again:?}");
    check_daily(&server).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_loss_is_accepted_the_whole_query_is_run_again() {
    let server = shop(4).await;
    put(&server, PATH, BY_TYPE).await;
    let folder = server.stop().await;
    // What `icecore wal accept-loss` and `icecore repair table` note.
    std::fs::write(folder.path().join("accepted-losses.ndjson"), "{}\n").unwrap();
    let server = TestServer::start_in(folder, &[("compaction.enabled", "off")]).await;
    // The job may come first, so what is told of these runs is not looked at.
    for _ in 0..2 {
        refresh(&server, "&table=daily").await;
    }
    let snapshots = server.rows("shop", "SELECT count(*) FROM daily.snapshots").await;
    assert_eq!(snapshots, json!([[2]]));
    check_daily(&server).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_erasure_nothing_of_the_subject_is_in_the_table() {
    let server = shop(6).await;
    let by_user = "SELECT user_id, count(*) AS n FROM events GROUP BY user_id";
    put(&server, "/v1/shop/materialized/users", by_user).await;
    let users = "SELECT user_id, n FROM users ORDER BY user_id";
    assert_eq!(server.rows("shop", users).await, json!([["ann", 3], ["bea", 3]]));
    let subject = json!({"subject": {"user_id": "ann"}});
    let (status, begun) = server.ingest_at("/v1/shop/erase", &subject).await;
    assert_eq!(status, 202, "{begun}");
    let path = format!("/v1/shop/erase/{}", begun["erasure"].as_str().unwrap());
    loop {
        let now: Value = server.get(&path).await.json().await.unwrap();
        assert!(now["status"] != "failed" && now["status"] != "done", "{now}");
        // Its rows are out of the table, and its files are left for readers.
        if now["status"] == "files" {
            break;
        }
        // The job is woken where it waits for its next time.
        if !now["error"].is_null() || !now["waits"].is_null() {
            let wake = json!({"subject": {"id": "nobody"}, "dry_run": true});
            server.ingest_at("/v1/shop/erase", &wake).await;
        }
        tokio::task::yield_now().await;
    }
    for _ in 0..2 {
        let done = refresh(&server, "&table=users").await;
        assert_eq!((done.tables, done.errors), (1, 0), "{done:?}");
        assert_eq!(server.rows("shop", users).await, json!([["bea", 3]]));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_is_checked_and_ends_without_its_table() {
    let server = shop(4).await;
    for (name, sql, every, wanted) in [
        ("daily", "DROP TABLE x", SELDOM, 400),
        ("daily", BY_TYPE, "daily", 400),
        ("daily", "SELECT nothing FROM events", SELDOM, 400),
        ("events", BY_TYPE, SELDOM, 409),
        ("dead_letters", BY_TYPE, SELDOM, 400),
    ] {
        server.commit("shop").await;
        let path = format!("/v1/shop/materialized/{name}");
        let body = json!({"sql": sql, "every": every});
        let (status, answer) = server.call(Method::PUT, &path, &body).await;
        assert_eq!(status, wanted, "{name} {sql} {every}: {answer}");
    }
    assert_eq!(server.get(PATH).await.status(), 404);
    let made = icecore(
        &server,
        &["materialize", "daily", "--ns", "shop", "--sql", BY_TYPE, "--every", SELDOM],
    );
    assert!(made.0 && made.1.contains("shop.daily"), "{}", made.1);
    let hourly = json!({"sql": format!("{BY_TYPE};"), "every": "@hourly"});
    let (status, answer) = server.call(Method::PUT, PATH, &hourly).await;
    assert_eq!((status, &answer["every"]), (200, &json!("@hourly")), "{answer}");
    let other = json!({"sql": "SELECT 1 AS x", "every": SELDOM});
    assert_eq!(server.call(Method::PUT, PATH, &other).await.0, 409);
    let insert = json!({"sql": "INSERT INTO daily SELECT * FROM daily"});
    let (status, answer) = server.query("shop", &insert).await;
    assert_eq!(status, 400, "{answer}");
    let replace = json!({"sql": "CREATE OR REPLACE TABLE daily AS SELECT 1 AS x"});
    assert_eq!(server.query("shop", &replace).await.0, 400);
    let ended = icecore(&server, &["materialize", "daily", "--ns", "shop", "--end"]);
    assert!(ended.0, "{}", ended.1);
    assert_eq!(server.get(PATH).await.status(), 404);
    assert_eq!(server.query("shop", &insert).await.0, 200);
    let named = refresh(&server, "&table=daily").await;
    assert_eq!((named.tables, named.errors, named.skipped.len()), (0, 0, 1), "{named:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_sees_its_own_namespace_alone_whoever_made_it() {
    let guarded = Guarded::with_events().await;
    let reader = guarded.token(&json!({"name": "r", "scopes": ["read:shop"]})).await;
    let body = |sql: &str| json!({"sql": sql, "every": SELDOM});
    let own = body("SELECT type, count(*) AS n FROM events GROUP BY type");
    assert_eq!(guarded.call(Method::PUT, &reader, PATH, &own).await.0, 403);
    let admin = guarded.admin.clone();
    let (status, answer) = guarded.call(Method::PUT, &admin, PATH, &own).await;
    assert_eq!(status, 200, "{answer}");
    for sql in ["SELECT id FROM other.events", "SELECT actor FROM system.audit"] {
        let path = "/v1/shop/materialized/foreign";
        let (status, answer) = guarded.call(Method::PUT, &admin, path, &body(sql)).await;
        assert!((400..500).contains(&status), "{sql}: {status} {answer}");
    }
    guarded.server.stop().await;
}
