//! A server that ends at any step of a refresh or of a restore: the documents are those that the events make, and
//! the next try goes on.

use crate::{
    harness::TestServer,
    process::{Process, post_and_die},
};
use icecore_lake::faults::POINTS;
use serde_json::{Value, json};
use std::{collections::BTreeSet, path::Path};

const REFRESH: &str = "/v1/shop/collections/users/refresh";
const FULL: &str = "/v1/shop/collections/users/refresh?full=true";
const RESTORE: &str = "/v1/shop/collections/users/restore";
const TABLE: &str = "/catalog/v1/namespaces/shop/tables/cdc_users";
const DOCUMENTS: &str = "SELECT key, doc, version, seq FROM cdc_users ORDER BY key";
/// A restore of as many documents as these tests have takes several batches.
const SMALL: &[(&str, &str)] = &[("ingest.batch_events_max", "10"), ("compaction.enabled", "off")];

fn change(op: &str, key: &str, n: u32) -> Value {
    let after = if op == "d" { Value::Null } else { json!({ "n": n }) };
    json!({"ns": "shop", "op": op, "collection": "users", "key": key, "after": after})
}

async fn send(server: &TestServer, op: &str, keys: &[String], n: u32) {
    for keys in keys.chunks(10) {
        let events: Vec<Value> = keys.iter().map(|key| change(op, key, n)).collect();
        let (status, reply) = server.ingest(&json!(events)).await;
        assert_eq!(status, 200, "{reply}");
    }
}

fn keys(count: u32) -> Vec<String> {
    (0..count).map(|n| format!("u-{n:02}")).collect()
}

async fn fsck(server: &TestServer, case: &str) {
    let checked = server.post("/admin/fsck", "application/json", "{}").await;
    let checked: Value = checked.json().await.unwrap();
    assert_eq!(checked["whole"], true, "{case}: {checked}");
}

/// Each process ends at one step, after the one before ended at the step before.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_at_any_step_of_a_refresh_changes_no_document() {
    let server = TestServer::start_in(tempfile::tempdir().unwrap(), SMALL).await;
    let keys = keys(20);
    send(&server, "c", &keys, 1).await;
    let wanted = server.rows("shop", DOCUMENTS).await;
    let mut folder = server.stop().await;
    // The table is made.
    for (point, is_made) in [("write.before_commit", false), ("write.lost_answer", true)] {
        post_and_die(folder.path(), &format!("{point}=abort"), REFRESH, String::new()).await;
        let server = TestServer::start_in(folder, SMALL).await;
        assert_eq!(server.get(TABLE).await.status() == 200, is_made, "{point}");
        assert_eq!(server.rows("shop", DOCUMENTS).await, wanted, "{point}");
        folder = server.stop().await;
    }
    let server = TestServer::start_in(folder, SMALL).await;
    send(&server, "d", &keys[..5], 0).await;
    send(&server, "u", &keys[5..], 2).await;
    let wanted = server.rows("shop", DOCUMENTS).await;
    assert_eq!(wanted.as_array().map(Vec::len), Some(15));
    let mut folder = server.stop().await;
    // It follows, then it is made of events again: its rows are set aside, and the next refresh has to end that.
    for (path, point) in [
        (REFRESH, "refresh.before_documents"),
        (FULL, "refresh.after_set_aside"),
        (REFRESH, "refresh.before_documents"),
        (REFRESH, "write.before_commit"),
        (REFRESH, "write.lost_answer"),
    ] {
        post_and_die(folder.path(), &format!("{point}=abort"), path, String::new()).await;
        let server = TestServer::start_in(folder, SMALL).await;
        assert_eq!(server.rows("shop", DOCUMENTS).await, wanted, "{path} at {point}");
        folder = server.stop().await;
    }
    let server = TestServer::start_in(folder, SMALL).await;
    let done = server.post(REFRESH, "application/json", "").await;
    let done: Value = done.json().await.unwrap();
    assert_eq!((&done["buckets"], &done["documents"]), (&json!(0), &json!(15)), "{done}");
    assert_eq!(server.rows("shop", DOCUMENTS).await, wanted);
    fsck(&server, "refresh").await;
    server.stop().await;
}

/// Asks a server of its own on `folder` for the restore, which ends in it at this failpoint.
async fn restore_and_die(folder: &Path, failpoint: &str) {
    let own = [("data_dir", folder.to_str().unwrap()), ("failpoints", failpoint)];
    let settings = [&own[..], SMALL, &[("commit.interval", "10min")]].concat();
    let settings: Vec<(&str, String)> =
        settings.into_iter().map(|(key, value)| (key, value.to_owned())).collect();
    let server = Process::start(&settings).await;
    let request = reqwest::Client::new().post(format!("{}{RESTORE}", server.url));
    let body = json!({ "at": "seq:25" }).to_string();
    let answer = request.header("idempotency-key", "k").body(body).send().await;
    assert!(answer.is_err(), "{failpoint}: {answer:?}");
}

/// Restores in this server, with the key of the tries before or without one.
async fn restore(server: &TestServer, at: &str, key: Option<&str>) -> Value {
    let mut request =
        server.http.post(format!("{}{RESTORE}", server.url)).json(&json!({ "at": at }));
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    let answer = request.send().await.unwrap();
    let (status, text) = (answer.status(), answer.text().await.unwrap());
    assert_eq!(status, 200, "{at}: {text}");
    serde_json::from_str(&text).unwrap()
}

async fn there(server: &TestServer) -> BTreeSet<String> {
    let rows = server.rows("shop", DOCUMENTS).await;
    let rows = rows.as_array().unwrap().iter();
    rows.map(|row| row[0].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_at_any_step_of_a_restore_goes_on_with_it() {
    let server = TestServer::start_in(tempfile::tempdir().unwrap(), SMALL).await;
    let keys = keys(25);
    send(&server, "c", &keys, 1).await;
    send(&server, "d", &keys, 0).await;
    let mut folder = server.stop().await;
    // Eight documents come back in a batch: two of its places are for what tells of the restore.
    let steps = [
        ("restore.before_tag", "", 0),
        ("restore.after_tag", "", 0),
        ("restore.before_append", "", 0),
        ("changes.before_batch", "", 0),
        ("changes.after_batch", "", 8),
        ("changes.before_batch", "@1", 16),
        ("changes.after_batch", "", 24),
        ("changes.before_batch", "", 24),
        ("changes.after_batch", "", 25),
    ];
    for point in POINTS.iter().filter(|point| point.starts_with("restore.")) {
        assert!(steps.iter().any(|(step, _, _)| step == point), "{point}");
    }
    let mut looked = 0;
    for (point, skip, count) in steps {
        restore_and_die(folder.path(), &format!("{point}=abort{skip}")).await;
        // A step that puts nothing back shows in the count after the next one.
        if count != looked {
            let server = TestServer::start_in(folder, SMALL).await;
            assert_eq!(there(&server).await.len(), count, "{point}{skip}");
            folder = server.stop().await;
            looked = count;
        }
    }
    let server = TestServer::start_in(folder, SMALL).await;
    let report = restore(&server, "seq:25", Some("k")).await;
    assert_eq!(report["tag"], "before-restore-50", "{report}");
    let all: BTreeSet<String> = keys.into_iter().collect();
    assert_eq!(there(&server).await, all);
    // Each document was put back once, and once it was told that all are.
    let sql = "SELECT count(key), count(DISTINCT key), count(*) FILTER (WHERE type = 'restore.completed') FROM events WHERE seq > 50";
    assert_eq!(server.rows("shop", sql).await, json!([[25, 25, 1]]));
    let undo = format!("bookmark:{}", report["undo_bookmark"].as_str().unwrap());
    let undone = restore(&server, &undo, None).await;
    assert!(there(&server).await.is_empty());
    let again = format!("bookmark:{}", undone["undo_bookmark"].as_str().unwrap());
    restore(&server, &again, None).await;
    assert_eq!(there(&server).await, all);
    fsck(&server, "restore").await;
    server.stop().await;
}
