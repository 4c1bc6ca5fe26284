//! Erasure: what is gone afterwards, what stays, what the report says, and that it goes on after failures.

use crate::{
    admin::icecore,
    clocks::{copy_running, put_back},
    harness::{TestServer, config, files_below},
    maintenance_model::{
        disk::DiskReader,
        writer::{ForeignWork, ForeignWriter},
    },
    process::post_until_death,
};
use iceberg::spec::TableMetadata;
use icecore_catalog::storage::{S3Options, Storage};
use icecore_lake::{clock::Clock, faults::Failpoints};
use icecore_schemas::{
    erasure::{ErasedRows, ErasureList, ErasureReport, ErasureStatus},
    jobs::JobReport,
};
use serde_json::{Value, json};
use std::{path::PathBuf, sync::Arc};

/// 2026-09-21 14:13 UTC.
const NOW_MS: i64 = 1_790_000_000_000;
/// Longer than files are left for readers.
const GRACE_MS: i64 = 11 * 60_000;
/// Nothing else changes a table.
const SETTINGS: &[(&str, &str)] = &[
    ("retention.cron", ""),
    ("dead_letters.cron", ""),
    ("expire.cron", ""),
    ("compaction.enabled", "off"),
];
const IDS: &str = "SELECT id FROM events ORDER BY id";
/// What ann wrote, longer than what manifests keep of a value.
const SECRET: &str = "ann wrote this and wants it to be forgotten";

async fn start(clock: &Clock, more: &[(&str, &str)]) -> TestServer {
    let settings: Vec<(&str, &str)> = SETTINGS.iter().chain(more).copied().collect();
    TestServer::start_at(tempfile::tempdir().unwrap(), &settings, clock.clone()).await
}

async fn send(server: &TestServer, events: &Value) -> Value {
    let answer = server.post("/ingest", "application/json", events.to_string()).await;
    answer.json().await.unwrap()
}

async fn ask(server: &TestServer, namespace: &str, body: &Value) -> (u16, Value) {
    server.ingest_at(&format!("/v1/{namespace}/erase"), body).await
}

/// Begins an erasure of this user's rows in `shop`.
pub(crate) async fn begin(server: &TestServer, user: &str) -> String {
    let (status, answer) = ask(server, "shop", &json!({"subject": {"user_id": user}})).await;
    assert_eq!(status, 202, "{answer}");
    answer["erasure"].as_str().unwrap().to_owned()
}

async fn report(server: &TestServer, id: &str) -> ErasureReport {
    let answer = server.get(&format!("/v1/shop/erase/{id}")).await;
    assert_eq!(answer.status(), 200);
    answer.json().await.unwrap()
}

/// Waits until an erasure has come so far. The job is woken where it waits for its next time.
pub(crate) async fn reach(server: &TestServer, id: &str, status: ErasureStatus) -> ErasureReport {
    loop {
        let now = report(server, id).await;
        if now.status == status {
            return now;
        }
        assert!(!now.status.is_ended(), "{now:?}");
        if now.error.is_some() || now.waits.is_some() || now.status == ErasureStatus::Files {
            let wake = json!({"subject": {"id": "nobody"}, "dry_run": true});
            ask(server, "shop", &wake).await;
        }
        tokio::task::yield_now().await;
    }
}

/// Files of a server that have what ann wrote, of the log, the tables and the metastore.
fn files_with_secret(server: &TestServer) -> Vec<PathBuf> {
    let secret = SECRET.as_bytes();
    // A file that goes meanwhile has nothing any more.
    let has = |path: &PathBuf| {
        std::fs::read(path).is_ok_and(|read| read.windows(secret.len()).any(|part| part == secret))
    };
    files_below(server.folder.path(), "").into_iter().filter(has).collect()
}

/// An erasure that is done has left nothing in the log either, and says so.
fn check_forgotten(server: &TestServer, done: &ErasureReport) {
    assert_eq!(files_with_secret(server), Vec::<PathBuf>::new());
    assert_eq!(done.log.kept, 0, "{done:?}");
    assert!(!done.cannot.iter().any(|text| text.starts_with("segments of the log")), "{done:?}");
}

async fn tag(server: &TestServer, name: &str, kind: &str) {
    let body = json!({"name": name, "type": kind}).to_string();
    let path = "/v1/shop/tables/events/refs";
    assert_eq!(server.post(path, "application/json", body).await.status(), 200);
}

/// One commit without the user `ann`, tagged `clean`; one with, tagged `old` and the branch `b`; more in
/// the log, and two dead letters.
async fn fill(server: &TestServer) {
    let event = |id: &str, event_type: &str, user: &str| json!({"id": id, "type": event_type, "ns": "shop", "user_id": user});
    send(server, &json!([event("e0", "a", "bea")])).await;
    server.commit("shop").await;
    tag(server, "clean", "tag").await;
    let change = json!({"id": "e4", "type": "a", "ns": "shop", "op": "c", "collection": "users",
        "key": "7", "after": {"userId": "ann"}});
    let inside = json!({"id": "e3", "type": "a", "ns": "shop", "data": {"user_id": "ann", "n": 1, "text": SECRET}});
    let events = json!([
        event("e1", "a", "ann"),
        event("e2", "a", "bea"),
        inside,
        change,
        event("e5", "b", "bea")
    ]);
    let reply = send(server, &events).await;
    assert_eq!(reply["received"], 5, "{reply}");
    server.commit("shop").await;
    tag(server, "old", "tag").await;
    tag(server, "b", "branch").await;
    send(server, &json!([event("e6", "a", "ann")])).await;
    let refused = json!([{"id": "x", "ns": "shop", "data": {"user_id": "ann", "text": SECRET}},
        {"id": "y", "ns": "shop", "user_id": "bea"}]);
    let reply = send(server, &refused).await;
    assert_eq!(reply["errors"].as_array().map(Vec::len), Some(2), "{reply}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_rows_are_gone_from_the_log_tables_branches_tags_history_and_files() {
    let clock = Clock::manual(NOW_MS);
    let server = start(&clock, &[]).await;
    fill(&server).await;
    let logs = server.folder.path().join("wal");
    assert!(files_with_secret(&server).iter().any(|path| path.starts_with(&logs)));
    let id = begin(&server, "ann").await;
    let found = reach(&server, &id, ErasureStatus::Files).await;
    assert_eq!(found.tables["events"], ErasedRows { rows: 4, files: 2 }, "{found:?}");
    assert_eq!((found.dead_letters, found.log.pending), (1, false));
    assert_eq!(found.refs, ["events:old"]);

    let left = json!([["e0"], ["e2"], ["e5"]]);
    assert_eq!(server.rows("shop", IDS).await, left);
    for (name, rows) in [("b", &left), ("clean", &json!([["e0"]]))] {
        let (status, answer) = server.query("shop", &json!({ "sql": IDS, "as_of": name })).await;
        assert_eq!((status, &answer["rows"]), (200, rows), "{name}: {answer}");
    }
    let letters = "SELECT event_id FROM dead_letters";
    assert_eq!(server.rows("shop", letters).await, json!([["y"]]));
    let listed: Value = server.get("/v1/shop/tables/events/snapshots").await.json().await.unwrap();
    let snapshots = listed["snapshots"].as_array().unwrap();
    assert_eq!(snapshots.len(), 3, "the heads of both branches and a tag: {listed}");

    // Whoever reads them has had time.
    clock.advance_ms(GRACE_MS);
    let done = reach(&server, &id, ErasureStatus::Done).await;
    check_forgotten(&server, &done);
    assert_eq!((&done.tables, done.error), (&found.tables, None));
    assert!(done.cannot.iter().any(|text| text.contains("outside of the warehouse")));
    let audit = server.post("/v1/shop/audit/events", "application/json", "").await;
    let audit: Value = audit.json().await.unwrap();
    assert_eq!(audit["agrees"], true, "{audit}");
    let warehouse = server.folder.path().join("warehouse");
    // Of `main` three, of `b` one more, and one of dead letters.
    assert_eq!(files_below(&warehouse, ".parquet").len(), 5);
    let resent = json!([{"id": "e1", "type": "a", "ns": "shop", "user_id": "ann"}]);
    assert_eq!(send(&server, &resent).await["duplicates"], 1, "its id is still known");

    let later = ["erase", "--ns", "shop", "--user-id", "bea", "--dry-run"];
    let (begun, text) = icecore(&server, &later);
    assert!(begun && text.contains("`icecore erase --ns shop --show 0"), "{text}");
    let (done, text) = icecore(&server, &["erase", "--ns", "shop", "--list"]);
    assert!(done && text.contains(&id), "{text}");
    let (done, text) = icecore(&server, &["erase", "--ns", "shop", "--show", &id]);
    assert!(done && text.starts_with(&format!("erasure {id}: done")), "{text}");
    let dry = ["erase", "--ns", "shop", "--user-id", "bea", "--dry-run", "--wait", "--json"];
    let (done, text) = icecore(&server, &dry);
    let counted: ErasureReport = serde_json::from_str(&text).unwrap();
    assert!(done && counted.status == ErasureStatus::Done && counted.dry_run, "{text}");
    assert_eq!(server.rows("shop", IDS).await, left);
    server.stop().await;
}

/// Keys of the collection's table at a branch, as every engine reads it.
const KEYS_OF_BRANCH: &str = "SELECT key FROM cdc_notes FOR VERSION AS OF 'b' ORDER BY key";
const KEYS: &str = "SELECT key FROM cdc_notes ORDER BY key";
const REFRESH: &str = "/v1/shop/collections/notes/refresh";

/// Documents say nothing of who sent their changes: `s1` is of ann alone, `s2` of bea, `s3` of both. Their table
/// has a tag and a branch.
async fn fill_notes(server: &TestServer) {
    let change = |id: &str, op: &str, key: &str, user: &str| {
        json!({"id": id, "type": "note", "ns": "shop", "op": op, "collection": "notes", "key": key,
            "user_id": user, "after": {"secret": id}})
    };
    let events = json!([
        change("n1", "c", "s1", "ann"),
        change("n2", "c", "s2", "bea"),
        change("n3", "c", "s3", "ann"),
        change("n4", "u", "s3", "bea")
    ]);
    assert_eq!(send(server, &events).await["received"], 4);
    let made = server.post(REFRESH, "application/json", "").await;
    assert_eq!(made.status(), 200);
    let tag = json!({"name": "release"}).to_string();
    assert_eq!(server.post("/v1/shop/tags", "application/json", tag).await.status(), 201);
    let branch = json!({"name": "b", "type": "branch"}).to_string();
    let path = "/v1/shop/tables/cdc_notes/refs";
    assert_eq!(server.post(path, "application/json", branch).await.status(), 200);
    assert_eq!(server.rows("shop", KEYS_OF_BRANCH).await, json!([["s1"], ["s2"], ["s3"]]));
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_erased_events_made_are_gone_from_branches_tags_and_history() {
    let clock = Clock::manual(NOW_MS);
    let server = start(&clock, &[]).await;
    fill_notes(&server).await;
    let id = begin(&server, "ann").await;
    let found = reach(&server, &id, ErasureStatus::Files).await;
    assert_eq!(found.tables["cdc_notes"].rows, 2, "{found:?}");
    assert_eq!(found.tables["events"].rows, 2, "{found:?}");
    assert_eq!(found.refs, ["cdc_notes:release", "events:release"]);
    assert_eq!(server.rows("shop", KEYS_OF_BRANCH).await, json!([["s2"]]));
    assert_eq!(server.rows("shop", KEYS).await, json!([["s2"], ["s3"]]), "what bea said stays");
    let gone = server.get("/v1/shop/collections/notes/docs/s1").await;
    assert_eq!(gone.status(), 404);
    let listed: Value =
        server.get("/v1/shop/tables/cdc_notes/snapshots").await.json().await.unwrap();
    let snapshots = listed["snapshots"].as_array().unwrap();
    assert_eq!(snapshots.len(), 2, "the heads of both branches: {listed}");
    // A document of others with such a key would be taken for one of the subject by the proof.
    let refused = server.post(REFRESH, "application/json", "").await;
    assert_eq!(refused.status(), 503);
    let run = server.post("/admin/jobs/refresh?namespace=shop", "application/json", "").await;
    let run: JobReport = run.json().await.unwrap();
    assert_eq!((run.tables, run.errors), (0, 1), "{run:?}");
    assert!(run.skipped[0].reason.contains("an erasure goes on"), "{run:?}");

    // What is looked for is known after a restart, too.
    let server = TestServer::start_at(server.stop().await, SETTINGS, clock.clone()).await;
    server.commit("shop").await;
    clock.advance_ms(GRACE_MS);
    let done = reach(&server, &id, ErasureStatus::Done).await;
    assert_eq!((&done.tables, done.error), (&found.tables, None));
    assert!(done.cannot.iter().any(|text| text.contains("copies of documents")));
    let made = server.post(REFRESH, "application/json", "").await;
    assert_eq!(made.status(), 200, "{}", made.text().await.unwrap());
    assert_eq!(server.rows("shop", KEYS).await, json!([["s2"], ["s3"]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_counts_the_documents_that_events_made_and_takes_none() {
    let clock = Clock::manual(NOW_MS);
    let server = start(&clock, &[]).await;
    fill_notes(&server).await;
    let dry = json!({"subject": {"user_id": "ann"}, "dry_run": true});
    let (status, begun) = ask(&server, "shop", &dry).await;
    assert_eq!(status, 202, "{begun}");
    let id = begun["erasure"].as_str().unwrap();
    let counted = reach(&server, id, ErasureStatus::Done).await;
    assert_eq!(counted.tables["cdc_notes"].rows, 2, "{counted:?}");
    assert_eq!(counted.refs, ["cdc_notes:release", "events:release"]);
    assert_eq!(server.rows("shop", KEYS_OF_BRANCH).await, json!([["s1"], ["s2"], ["s3"]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_goes_on_after_each_failure_and_a_restart() {
    let clock = Clock::manual(NOW_MS);
    let points = icecore_lake::faults::POINTS.iter().filter(|point| point.starts_with("erase."));
    let script: Vec<String> = points.map(|point| format!("{point}=error")).collect();
    let script = script.join(";");
    let server = start(&clock, &[("failpoints", script.as_str())]).await;
    fill(&server).await;
    let id = begin(&server, "ann").await;
    let before = reach(&server, &id, ErasureStatus::Files).await;
    assert_eq!(before.tables["events"], ErasedRows { rows: 4, files: 2 }, "counted once");
    let failing = [SETTINGS, &[("failpoints", script.as_str())]].concat();
    let server = TestServer::start_at(server.stop().await, &failing, clock.clone()).await;
    // The log was opened anew, and has its records trimmed by that.
    server.commit("shop").await;
    clock.advance_ms(GRACE_MS);
    let done = reach(&server, &id, ErasureStatus::Done).await;
    assert_eq!(done.tables, before.tables);
    assert_eq!(server.rows("shop", IDS).await, json!([["e0"], ["e2"], ["e5"]]));
    server.stop().await;
}

/// These come after the time of readers, which the clock of another process is not set to.
const LAST_POINTS: [&str; 2] = ["erase.after_deletion", "erase.before_done"];

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_whose_server_dies_goes_on_with_the_next_one() {
    let points = icecore_lake::faults::POINTS.iter().filter(|point| point.starts_with("erase."));
    for point in points.filter(|point| !LAST_POINTS.contains(point)) {
        let clock = Clock::system();
        let server = start(&clock, &[]).await;
        fill(&server).await;
        let folder = server.stop().await;
        let body = json!({"subject": {"user_id": "ann"}}).to_string();
        let fault = format!("{point}=abort");
        // The answer may be lost with the server.
        drop(post_until_death(folder.path(), &fault, "/v1/shop/erase", body).await);
        let server = TestServer::start_at(folder, SETTINGS, clock).await;
        server.commit("shop").await;
        let listed: ErasureList = server.get("/v1/shop/erase").await.json().await.unwrap();
        let [begun] = listed.erasures.as_slice() else { panic!("{point}: {listed:?}") };
        let found = reach(&server, &begun.erasure, ErasureStatus::Files).await;
        assert_eq!(found.tables["events"], ErasedRows { rows: 4, files: 2 }, "{point}");
        assert_eq!(server.rows("shop", IDS).await, json!([["e0"], ["e2"], ["e5"]]), "{point}");
        server.stop().await;
    }
}

/// What is left where the process ends after the files went, and right before all of it is done.
#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_whose_server_is_killed_at_its_end_goes_on_with_the_next_one() {
    for point in LAST_POINTS {
        let clock = Clock::manual(NOW_MS);
        let folder = tempfile::tempdir().unwrap();
        let (faults, meeting) = Failpoints::meeting(point);
        let mut config = config(&folder, SETTINGS);
        config.faults = faults;
        let server = TestServer::start_with(folder, &config, clock.clone()).await;
        fill(&server).await;
        server.commit("shop").await;
        let id = begin(&server, "ann").await;
        let before = reach(&server, &id, ErasureStatus::Files).await;
        clock.advance_ms(GRACE_MS);
        let meet = async || {
            let meeting = Arc::clone(&meeting);
            tokio::task::spawn_blocking(move || meeting.wait()).await.unwrap();
        };
        ask(&server, "shop", &json!({"subject": {"id": "nobody"}, "dry_run": true})).await;
        meet().await;
        let left = tempfile::tempdir().unwrap();
        copy_running(server.folder.path(), left.path());
        meet().await;
        let folder = server.stop().await;
        put_back(&folder, &left);
        let server = TestServer::start_at(folder, SETTINGS, clock.clone()).await;
        server.commit("shop").await;
        let done = reach(&server, &id, ErasureStatus::Done).await;
        check_forgotten(&server, &done);
        assert_eq!(done.tables, before.tables, "{point}");
        assert_eq!(server.rows("shop", IDS).await, json!([["e0"], ["e2"], ["e5"]]), "{point}");
        let audit = server.post("/v1/shop/audit/events", "application/json", "").await;
        let audit: Value = audit.json().await.unwrap();
        assert_eq!(audit["agrees"], true, "{point}: {audit}");
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_that_a_restored_metastore_does_not_know_is_applied_again() {
    let clock = Clock::manual(NOW_MS);
    let server = start(&clock, &[]).await;
    fill(&server).await;
    server.commit("shop").await;
    let folder = server.stop().await;
    // As the folder has it, where the metastore is of a time before.
    let line = json!({"erasure": "01K5P0000000000000000000AA", "levels": ["shop"],
        "subject": {"user_id": "ann"}, "requested_ms": NOW_MS});
    let of_gone = json!({"erasure": "01K5P0000000000000000000AB", "levels": ["gone"],
        "subject": {"user_id": "ann"}, "requested_ms": NOW_MS});
    let lines = format!("{line}\n{of_gone}\n");
    std::fs::write(folder.path().join("erasures.ndjson"), lines).unwrap();
    let server = TestServer::start_at(folder, SETTINGS, clock.clone()).await;
    server.commit("shop").await;
    let id = line["erasure"].as_str().unwrap();
    reach(&server, id, ErasureStatus::Files).await;
    assert_eq!(server.rows("shop", IDS).await, json!([["e0"], ["e2"], ["e5"]]));
    // A namespace that is gone has nothing to erase, and that is no failure.
    clock.advance_ms(GRACE_MS);
    reach(&server, id, ErasureStatus::Done).await;
    let of_gone = format!("/v1/gone/erase/{}", of_gone["erasure"].as_str().unwrap());
    let report: ErasureReport = server.get(&of_gone).await.json().await.unwrap();
    assert_eq!(report.error, None);
    assert!(!matches!(report.status, ErasureStatus::Log | ErasureStatus::Count), "{report:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_in_the_way_holds_up_no_other() {
    let clock = Clock::manual(NOW_MS);
    let server = start(&clock, &[]).await;
    fill(&server).await;
    server.commit("shop").await;
    let updates = json!([{"action": "set-properties", "updates": {"gc.enabled": "false"}}]);
    let body = json!({"requirements": [], "updates": updates}).to_string();
    let letters = "/catalog/v1/namespaces/shop/tables/dead_letters";
    assert_eq!(server.post(letters, "application/json", body).await.status(), 200);
    let id = begin(&server, "ann").await;
    let stopped = loop {
        let now = report(&server, &id).await;
        if now.error.is_some() {
            break now;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(stopped.status, ErasureStatus::History);
    assert!(stopped.error.as_ref().unwrap().contains("gc.enabled"), "{stopped:?}");
    let listed: Value = server.get("/v1/shop/tables/events/snapshots").await.json().await.unwrap();
    assert_eq!(listed["snapshots"].as_array().map(Vec::len), Some(3), "{listed}");
    server.stop().await;
}

/// Has the table `accounts` of another writer say that its column `who` has users, and gives its folder.
async fn take_accounts(server: &TestServer) -> PathBuf {
    let named = json!({"icecore.erasure.user_id": "who"});
    let updates = json!([{"action": "set-properties", "updates": named}]);
    let body = json!({"requirements": [], "updates": updates}).to_string();
    let accounts = "/catalog/v1/namespaces/shop/tables/accounts";
    let made = server.post(accounts, "application/json", body).await;
    assert_eq!(made.status(), 200);
    let made: Value = made.json().await.unwrap();
    let location = made["metadata"]["location"].as_str().unwrap();
    PathBuf::from(location.strip_prefix("file://").unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_another_writer_that_does_not_read_holds_up_no_other() {
    let clock = Clock::manual(NOW_MS);
    let server = start(&clock, &[]).await;
    fill(&server).await;
    let sql = "CREATE TABLE accounts AS SELECT id, user_id AS who FROM events WHERE id = 'e1'";
    let (status, answer) = server.query("shop", &json!({ "sql": sql })).await;
    assert_eq!(status, 200, "{answer}");
    for file in files_below(&take_accounts(&server).await, ".parquet") {
        std::fs::remove_file(file).unwrap();
    }
    let id = begin(&server, "ann").await;
    let stopped = loop {
        let now = report(&server, &id).await;
        if now.error.is_some() {
            break now;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(stopped.status, ErasureStatus::Rewrite, "{stopped:?}");
    assert_eq!(stopped.tables["events"], ErasedRows { rows: 4, files: 2 }, "{stopped:?}");
    let untold = "rows of the table `accounts` are not counted: ";
    assert!(stopped.cannot.iter().any(|text| text.starts_with(untold)), "{stopped:?}");
    assert_eq!(server.rows("shop", IDS).await, json!([["e0"], ["e2"], ["e5"]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_go_from_a_table_of_another_writer_whose_property_names_the_column() {
    let clock = Clock::manual(NOW_MS);
    let server = start(&clock, &[]).await;
    fill(&server).await;
    for table in ["accounts", "notes"] {
        let sql = format!(
            "CREATE TABLE {table} AS SELECT id, user_id AS who FROM events WHERE id IN ('e1', 'e2')"
        );
        let (status, answer) = server.query("shop", &json!({ "sql": sql })).await;
        assert_eq!(status, 200, "{answer}");
    }
    let location = take_accounts(&server).await;
    let id = begin(&server, "ann").await;
    let found = reach(&server, &id, ErasureStatus::Files).await;
    assert_eq!(found.tables["accounts"], ErasedRows { rows: 1, files: 1 }, "{found:?}");
    assert_eq!(found.tables["events"], ErasedRows { rows: 4, files: 2 }, "{found:?}");
    assert!(!found.tables.contains_key("notes"), "{found:?}");
    assert_eq!(files_below(&location, ".parquet").len(), 2, "readers have their time");
    clock.advance_ms(GRACE_MS);
    let done = reach(&server, &id, ErasureStatus::Done).await;
    assert_eq!((&done.tables, &done.error), (&found.tables, &None));
    assert_eq!(files_below(&location, ".parquet").len(), 1);
    let ids = async |table: &str| {
        server.rows("shop", &format!("SELECT id FROM {table} ORDER BY id")).await
    };
    assert_eq!(ids("accounts").await, json!([["e2"]]));
    assert_eq!(ids("notes").await, json!([["e1"], ["e2"]]));
    let told = |name: &str, text: &str| {
        let begins = format!("the table `{name}` is another engine's");
        done.cannot.iter().any(|limit| limit.starts_with(&begins) && limit.contains(text))
    };
    assert!(told("notes", "`icecore.erasure.user_id`"), "{done:?}");
    assert!(!told("accounts", ""), "{done:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_refuses_it_and_a_dry_run_only_counts() {
    let clock = Clock::manual(NOW_MS);
    let server = start(&clock, &[]).await;
    fill(&server).await;
    let ann = json!({"subject": {"user_id": "ann"}});
    let hold = format!("{}/v1/shop/holds/case-7", server.url);
    server.commit("shop").await;
    assert_eq!(server.http.put(&hold).send().await.unwrap().status(), 200);
    let (status, refused) = ask(&server, "shop", &ann).await;
    assert_eq!((status, &refused["code"]), (409, &json!("CONFLICT")), "{refused}");
    assert!(refused["error"].as_str().unwrap().contains("held by `case-7`"), "{refused}");

    let dry = json!({"subject": {"user_id": "ann"}, "dry_run": true});
    let (status, answer) = ask(&server, "shop", &dry).await;
    assert_eq!(status, 202, "{answer}");
    let id = answer["erasure"].as_str().unwrap();
    let counted = reach(&server, id, ErasureStatus::Done).await;
    assert_eq!(counted.tables["events"].rows, 4);
    assert_eq!((counted.refs, counted.dead_letters), (vec!["events:old".to_owned()], 1));
    assert_eq!(server.rows("shop", "SELECT count(*) FROM events").await, json!([[7]]));

    let wrong = [
        json!({"subject": {}}),
        json!({"subject": {"user_id": "a", "id": "b"}}),
        json!({"subject": {"id": "a", "collection": "c"}}),
        json!({"subject": {"name": "a"}}),
        json!([]),
    ];
    for body in wrong {
        let (status, refused) = ask(&server, "shop", &body).await;
        assert_eq!(status, 400, "{body}: {refused}");
    }
    assert_eq!(ask(&server, "nowhere", &ann).await.0, 404);
    assert_eq!(server.get("/v1/shop/erase/none").await.status(), 404);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_waits_for_snapshots_that_clients_loaded() {
    let clock = Clock::manual(NOW_MS);
    let server = start(&clock, &[]).await;
    fill(&server).await;
    let events = "/catalog/v1/namespaces/shop/tables/events";
    assert_eq!(server.get(events).await.status(), 200);
    let id = begin(&server, "ann").await;
    let waiting = loop {
        let now = report(&server, &id).await;
        assert!(!now.status.is_ended() && now.status != ErasureStatus::Files, "{now:?}");
        assert_eq!(now.error, None);
        if now.waits.is_some() {
            break now;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(waiting.status, ErasureStatus::History);
    let why = waiting.waits.unwrap();
    assert!(why.contains("stay for them until 2026-09-21T15:"), "{why}");
    // Whoever loads it now gets what is left, and is not waited for.
    clock.advance_ms(50 * 60_000);
    assert_eq!(server.get(events).await.status(), 200);
    clock.advance_ms(12 * 60_000);
    let after = reach(&server, &id, ErasureStatus::Files).await;
    assert_eq!(after.waits, None);
    let listed: Value = server.get("/v1/shop/tables/events/snapshots").await.json().await.unwrap();
    let snapshots = listed["snapshots"].as_array().unwrap();
    assert_eq!(snapshots.len(), 3, "the heads of both branches and a tag: {listed}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_that_are_made_while_an_erasure_waits_stay() {
    let clock = Clock::manual(NOW_MS);
    let server = start(&clock, &[]).await;
    fill(&server).await;
    assert_eq!(server.get("/catalog/v1/namespaces/shop/tables/events").await.status(), 200);
    let id = begin(&server, "ann").await;
    while report(&server, &id).await.waits.is_none() {
        tokio::task::yield_now().await;
    }
    let listed = "/v1/shop/tables/events/snapshots";
    let mut made = Value::Null;
    for event in ["e8", "e7"] {
        clock.advance_ms(1_000);
        send(&server, &json!([{"id": event, "type": "a", "ns": "shop"}])).await;
        server.commit("shop").await;
        let newest: Value = server.get(listed).await.json().await.unwrap();
        made = if made.is_null() { newest["snapshots"][0].clone() } else { made };
    }
    clock.advance_ms(62 * 60_000);
    reach(&server, &id, ErasureStatus::Files).await;
    let left: Value = server.get(listed).await.json().await.unwrap();
    assert!(left["snapshots"].as_array().unwrap().contains(&made), "{made} {left}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_that_is_applied_again_spares_who_came_back() {
    let clock = Clock::manual(NOW_MS);
    let server = start(&clock, &[]).await;
    fill(&server).await;
    clock.advance_ms(1_000);
    let again = json!([{"id": "e7", "type": "a", "ns": "shop", "user_id": "ann"}]);
    let reply = send(&server, &again).await;
    let last = reply["seq"]["first"].as_u64().unwrap() - 1;
    server.commit("shop").await;
    let folder = server.stop().await;
    let id = "01K5P0000000000000000000AA";
    let line = json!({"erasure": id, "levels": ["shop"], "subject": {"user_id": "ann"},
        "requested_ms": NOW_MS, "seq": last});
    std::fs::write(folder.path().join("erasures.ndjson"), format!("{line}\n")).unwrap();
    let server = TestServer::start_at(folder, SETTINGS, clock.clone()).await;
    server.commit("shop").await;
    let found = reach(&server, id, ErasureStatus::Files).await;
    assert_eq!(found.bound.and_then(|bound| bound.seq), Some(last));
    let left = json!([["e0"], ["e2"], ["e5"], ["e7"]]);
    assert_eq!(server.rows("shop", IDS).await, left);
    clock.advance_ms(GRACE_MS);
    reach(&server, id, ErasureStatus::Done).await;
    assert_eq!(server.rows("shop", IDS).await, left);
    server.stop().await;
}

/// Has another engine take one of two data files out of `events`, each with a row of either user. Gives the
/// manifest list of the snapshot before.
async fn take_file_out(server: &TestServer) -> PathBuf {
    let event = |id: &str, event_type: &str, user: &str| json!({"id": id, "type": event_type, "ns": "shop", "user_id": user});
    let events = json!([
        event("a1", "a", "ann"),
        event("a2", "a", "bea"),
        event("b1", "b", "ann"),
        event("b2", "b", "bea")
    ]);
    send(server, &events).await;
    server.commit("shop").await;
    let path = "/catalog/v1/namespaces/shop/tables/events";
    let loaded: Value = server.get(path).await.json().await.unwrap();
    let metadata: TableMetadata = serde_json::from_value(loaded["metadata"].clone()).unwrap();
    let warehouse = format!("file://{}/warehouse", server.folder.path().display());
    let mut disk = DiskReader::new(Storage::open(&warehouse, &S3Options::default()).unwrap());
    let writer = ForeignWriter { disk: &mut disk, metadata: &metadata, branch: "main" };
    let commit = Box::pin(writer.write(ForeignWork::RemoveFile, 1)).await.unwrap();
    let (status, answer) = server.ingest_at(path, &commit.body).await;
    assert_eq!(status, 200, "{answer}");
    let list = metadata.current_snapshot().unwrap().manifest_list();
    PathBuf::from(list.strip_prefix("file://").unwrap())
}

/// Whether the audit of `events` agrees, whether its sums begin anew, and what it counts.
async fn audited(server: &TestServer) -> (bool, bool, [i64; 3]) {
    let audit = server.post("/v1/shop/audit/events", "application/json", "").await;
    let audit: Value = audit.json().await.unwrap();
    let events = &audit["tables"]["events"];
    let rows = ["acked", "removed", "table"].map(|of| events[of]["rows"].as_i64().unwrap());
    (events["agrees"] == true, events["begins"] == true, rows)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_engine_removed_before_an_erasure_is_accounted_for_after_it() {
    let clock = Clock::manual(NOW_MS);
    let server = start(&clock, &[]).await;
    take_file_out(&server).await;
    // The client has no lease any more.
    clock.advance_ms(62 * 60_000);
    let id = begin(&server, "ann").await;
    reach(&server, &id, ErasureStatus::Files).await;
    let listed: Value = server.get("/v1/shop/tables/events/snapshots").await.json().await.unwrap();
    assert_eq!(listed["snapshots"].as_array().map(Vec::len), Some(1), "{listed}");
    for _ in 0..2 {
        assert_eq!(audited(&server).await, (true, false, [4, 3, 1]));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_does_not_read_holds_up_no_erasure() {
    let clock = Clock::manual(NOW_MS);
    let server = start(&clock, &[]).await;
    let list = take_file_out(&server).await;
    std::fs::remove_file(list).unwrap();
    clock.advance_ms(62 * 60_000);
    let id = begin(&server, "ann").await;
    reach(&server, &id, ErasureStatus::Files).await;
    assert_eq!(server.rows("shop", "SELECT count(*) FROM events").await, json!([[1]]));
    let (agrees, begins, _) = audited(&server).await;
    assert!(agrees && begins, "nothing tells any more what the other engine did");
    server.stop().await;
}
