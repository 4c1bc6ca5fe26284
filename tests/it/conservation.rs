//! Every acknowledged row is in the log or in its table, once: what the audit of a namespace tells.

use crate::{
    admin::icecore,
    harness::{TestServer, files_below},
    process::post_and_die,
};
use serde_json::{Value, json};
use std::{fs, path::PathBuf};

const AUDIT: &str = "/v1/shop/audit/events";

/// Ten events of two types, whose ids begin with `batch`.
fn batch(batch: &str) -> Value {
    let event =
        |n: u32| json!({"id": format!("{batch}-{n}"), "type": format!("t{}", n % 2), "ns": "shop"});
    json!({ "events": (0..10).map(event).collect::<Vec<Value>>() })
}

async fn send(server: &TestServer, name: &str) {
    let (status, reply) = server.ingest(&batch(name)).await;
    assert_eq!(status, 200, "{reply}");
}

/// The audit of `events`, and whether all agrees.
async fn audit(server: &TestServer) -> (bool, Value) {
    let answer = server.post(AUDIT, "application/json", "").await;
    assert_eq!(answer.status(), 200);
    let answer: Value = answer.json().await.unwrap();
    (answer["agrees"].as_bool().unwrap(), answer["tables"]["events"].clone())
}

/// Rows that are acknowledged, in the log and in the table, of an audit that agrees.
async fn counts(server: &TestServer) -> [i64; 3] {
    let (agrees, events) = audit(server).await;
    assert!(agrees && events["begins"] == false && events["error"].is_null(), "{events}");
    ["acked", "log", "table"].map(|of| events[of]["rows"].as_i64().unwrap())
}

async fn acked(server: &TestServer) -> Value {
    audit(server).await.1["acked"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_go_from_the_log_to_the_table_and_their_sum_stays() {
    // Nothing is merged before the test does it by hand.
    let by_hand = [("compaction.enabled", "off")];
    let server = TestServer::start_in(tempfile::tempdir().unwrap(), &by_hand).await;
    assert_eq!(server.post(AUDIT, "application/json", "").await.status(), 404);
    send(&server, "a").await;
    assert_eq!(counts(&server).await, [10, 10, 0]);
    let sum = acked(&server).await;
    server.commit("shop").await;
    assert_eq!(counts(&server).await, [10, 0, 10]);
    assert_eq!(acked(&server).await, sum);
    // A repeat is no row.
    send(&server, "a").await;
    assert_eq!(acked(&server).await, sum);
    for name in ["b", "c", "d", "e"] {
        send(&server, name).await;
        server.commit("shop").await;
    }
    send(&server, "f").await;
    assert_eq!(counts(&server).await, [60, 10, 50]);
    let sum = acked(&server).await;
    let path = "/admin/jobs/compact?namespace=shop";
    let done: Value = server.post(path, "application/json", "").await.json().await.unwrap();
    assert_eq!(done["files"]["before"], 10, "{done}");
    assert_eq!(counts(&server).await, [60, 10, 50]);
    assert_eq!(acked(&server).await, sum);
    let server = server.restart().await;
    assert_eq!(counts(&server).await, [60, 10, 50]);
    server.commit("shop").await;
    assert_eq!(counts(&server).await, [60, 0, 60]);
    assert_eq!(acked(&server).await, sum);

    let (is_done, text) = icecore(&server, &["audit", "events", "--ns", "shop"]);
    assert!(is_done && text.contains("acked") && text.contains("60"), "{text}");
    assert!(text.contains("table `events` agrees") && !text.contains("begin"), "{text}");
    let (is_done, text) = icecore(&server, &["audit", "events", "--ns", "shop", "--json"]);
    let told: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert!(is_done && told["tables"]["events"]["acked"] == sum, "{text}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_tell_the_sums_of_their_rows() {
    let server = TestServer::start().await;
    send(&server, "a").await;
    server.commit("shop").await;
    let first = acked(&server).await;
    send(&server, "b").await;
    server.commit("shop").await;
    let both = acked(&server).await;
    let path = "/catalog/v1/namespaces/shop/tables/events";
    let table: Value = server.get(path).await.json().await.unwrap();
    let snapshots = table["metadata"]["snapshots"].as_array().unwrap();
    let text = |of: &Value| format!("{}:{}", of["rows"], of["sum"].as_str().unwrap());
    let mut made: Vec<&Value> = snapshots.iter().collect();
    made.sort_by_key(|made| made["sequence-number"].as_i64());
    let summaries: Vec<&Value> = made.iter().map(|made| &made["summary"]).collect();
    assert_eq!(summaries[0]["icecore.added-rows-sum"], text(&first));
    assert_eq!(summaries[0]["icecore.rows-sum"], text(&first));
    assert_eq!(summaries[1]["icecore.rows-sum"], text(&both));
    assert_ne!(summaries[1]["icecore.added-rows-sum"], text(&both));
    assert!(summaries.iter().all(|summary| summary["icecore.rows-sum-basis"].is_null()));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_in_a_flush_counts_each_row_once() {
    let mut folder = tempfile::tempdir().unwrap();
    let points =
        ["flush.after_data_file", "flush.before_commit", "flush.after_commit", "flush.before_trim"];
    for (rows, point) in (10..).step_by(10).zip(points) {
        let server = TestServer::start_in(folder, &[]).await;
        send(&server, point).await;
        let sum = acked(&server).await;
        folder = server.stop().await;
        let script = format!("{point}=abort");
        post_and_die(folder.path(), &script, "/v1/shop/commit", String::new()).await;
        let server = TestServer::start_in(folder, &[]).await;
        let [all, log, table] = counts(&server).await;
        assert_eq!((all, log + table), (rows, rows), "{point}");
        server.commit("shop").await;
        assert_eq!(counts(&server).await, [rows, 0, rows], "{point}");
        assert_eq!(acked(&server).await, sum, "{point}");
        folder = server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_in_the_place_of_another_is_found() {
    let server = TestServer::start().await;
    send(&server, "a").await;
    server.commit("shop").await;
    let first = files_below(&server.folder.path().join("warehouse"), ".parquet");
    send(&server, "b").await;
    server.commit("shop").await;
    assert_eq!(counts(&server).await, [20, 0, 20]);
    let all = files_below(&server.folder.path().join("warehouse"), ".parquet");
    let later: Vec<&PathBuf> = all.iter().filter(|path| !first.contains(path)).collect();
    // Rows that are there twice, and others nowhere.
    for (path, other) in later.iter().zip(&first) {
        fs::write(path, fs::read(other).unwrap()).unwrap();
    }
    let (agrees, events) = audit(&server).await;
    assert!(!agrees && events["agrees"] == false, "{events}");
    let (is_done, text) = icecore(&server, &["audit", "events", "--ns", "shop"]);
    assert!(!is_done && text.contains("table `events`"), "{text}");
    let checked = server.post("/admin/fsck", "application/json", "").await;
    let checked: Value = checked.json().await.unwrap();
    assert_eq!(checked["whole"], false, "{checked}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_with_a_slash_is_audited_by_its_text() {
    let server = TestServer::start().await;
    let event = json!({"id": "1", "type": "t", "ns": "shop/eu"});
    let (status, reply) = server.ingest(&json!({ "events": [event] })).await;
    assert_eq!(status, 200, "{reply}");
    let (is_done, text) = icecore(&server, &["audit", "events", "--ns", "shop/eu"]);
    assert!(is_done && text.contains("acked"), "{text}");
    server.stop().await;
}
