//! The tables of collections: what a refresh writes anew and what it leaves, after a crash in one, after an erasure,
//! and what others may do to them.

use crate::{harness::TestServer, process::post_and_die};
use icecore_schemas::{collection_refresh::RefreshReply, jobs::JobReport};
use reqwest::Method;
use serde_json::{Value, json};
use std::{collections::BTreeSet, ops::Range};

const REFRESH: &str = "/v1/shop/collections/orders/refresh";
const TABLE: &str = "/catalog/v1/namespaces/shop/tables/cdc_orders";
/// Buckets of a new table.
const BUCKETS: u64 = 4;
const DOCUMENTS: &str = "SELECT key, doc, version, seq FROM cdc_orders ORDER BY key";

fn change(op: &str, n: u32, total: u32) -> Value {
    let user = if n.is_multiple_of(2) { "ann" } else { "bea" };
    let after = json!({"total": total, "user_id": user});
    json!({"id": format!("{op}-{n}-{total}"), "type": "order", "ns": "shop", "op": op, "collection": "orders",
        "key": format!("k-{n:02}"), "after": if op == "d" { Value::Null } else { after }})
}

async fn send(server: &TestServer, events: Vec<Value>) {
    let (status, answer) = server.ingest(&json!({ "events": events })).await;
    assert_eq!(status, 200, "{answer}");
}

async fn shop(documents: Range<u32>) -> TestServer {
    let settings = [("compaction.enabled", "off")];
    let server = TestServer::start_in(tempfile::tempdir().unwrap(), &settings).await;
    send(&server, documents.map(|n| change("c", n, 1)).collect()).await;
    server
}

async fn refresh(server: &TestServer, parameters: &str) -> RefreshReply {
    let path = format!("{REFRESH}{parameters}");
    let answer = server.post(&path, "application/json", "").await;
    let (status, text) = (answer.status(), answer.text().await.unwrap());
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// What the table itself has, as every engine reads it.
async fn metadata(server: &TestServer) -> Value {
    let answer: Value = server.get(TABLE).await.json().await.unwrap();
    answer["metadata"].clone()
}

/// The summaries of its snapshots, the oldest first.
async fn summaries(server: &TestServer) -> Vec<Value> {
    let mut snapshots = metadata(server).await["snapshots"].as_array().unwrap().clone();
    snapshots.sort_by_key(|snapshot| snapshot["sequence-number"].as_i64());
    snapshots.into_iter().map(|snapshot| snapshot["summary"].clone()).collect()
}

async fn files(server: &TestServer) -> BTreeSet<String> {
    let rows = server.rows("shop", "SELECT file_path FROM cdc_orders.files").await;
    let rows = rows.as_array().unwrap().iter();
    rows.map(|row| row[0].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_writes_the_buckets_anew_that_changed_and_leaves_the_others() {
    let server = shop(0..40).await;
    let wanted = server.rows("shop", DOCUMENTS).await;
    let made = refresh(&server, "").await;
    assert_eq!((made.applied_seq, made.documents), (40, 40), "{made:?}");
    assert_eq!((made.buckets, made.rows), (BUCKETS, 40), "{made:?}");
    assert_eq!(server.rows("shop", DOCUMENTS).await, wanted);
    let first = files(&server).await;
    assert_eq!(first.len() as u64, BUCKETS);

    // One that changed is in the log alone, and another one in the table of events.
    send(&server, vec![change("u", 5, 2)]).await;
    server.commit("shop").await;
    send(&server, vec![change("u", 5, 3)]).await;
    let wanted = server.rows("shop", DOCUMENTS).await;
    let one = refresh(&server, "").await;
    assert_eq!((one.applied_seq, one.documents, one.buckets), (42, 40, 1), "{one:?}");
    assert!(one.rows < 40, "{one:?}");
    let second = files(&server).await;
    assert_eq!((second.len() as u64, first.intersection(&second).count() as u64), (4, 3));
    assert_eq!(server.rows("shop", DOCUMENTS).await, wanted);

    let none = refresh(&server, "").await;
    assert_eq!((none.buckets, none.snapshot), (0, one.snapshot), "{none:?}");
    send(&server, vec![change("d", 5, 0), change("c", 40, 1)]).await;
    let both = refresh(&server, "").await;
    assert_eq!((both.documents, both.applied_seq), (40, 44), "{both:?}");
    let keys = server.rows("shop", "SELECT count(*) FROM cdc_orders WHERE key = 'k-05'").await;
    assert_eq!(keys, json!([[0]]));

    let table = metadata(&server).await;
    assert_eq!(table["partition-specs"][0]["fields"][0]["transform"], "bucket[4]", "{table}");
    let summaries = summaries(&server).await;
    let operations: Vec<&str> =
        summaries.iter().filter_map(|it| it["operation"].as_str()).collect();
    assert_eq!(operations, ["append", "overwrite", "overwrite"]);
    assert_eq!(summaries[2]["icecore.applied-seq"], "44");
    let checked = server.post("/admin/fsck", "application/json", "{}").await;
    let checked: Value = checked.json().await.unwrap();
    assert_eq!(checked["whole"], true, "{checked}");
    server.stop().await;
}

/// The data files that queries read until now.
async fn files_read(server: &TestServer) -> f64 {
    let text = server.get("/metrics").await.text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("icecore_query_files_total "));
    line.unwrap_or_else(|| panic!("no such metric in {text}")).trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_after_few_changes_reads_the_table_by_no_query() {
    let rows = "SELECT key, doc, op, store, version, created_at, updated_at, actor, bookmark, seq, event_id FROM cdc_orders ORDER BY key";
    let folder = tempfile::tempdir().unwrap();
    let settings = [("compaction.enabled", "off"), ("collections.refresh_interval", "24h")];
    let server = TestServer::start_in(folder, &settings).await;
    send(&server, (10..40).map(|n| change("c", n, 1)).collect()).await;
    refresh(&server, "").await;
    for round in 2..6 {
        let mut changes: Vec<Value> = (10..30).map(|n| change("u", n, round)).collect();
        // Some go, and come again in the next round. Others are new before all that there are, and behind them.
        changes.push(change("d", 10 + round, 0));
        changes.extend([round, 40 + round].map(|n| change("c", n, 1)));
        changes.push(
            json!({"id": format!("patch-{round}"), "ns": "shop", "op": "u", "collection": "orders",
            "key": "k-35", "patch": {"round": round}}),
        );
        send(&server, changes).await;
        let wanted = server.rows("shop", rows).await;
        let before = files_read(&server).await;
        let done = refresh(&server, "").await;
        let read = files_read(&server).await - before;
        assert!(read < BUCKETS as f64, "round {round}: {read} files");
        assert_eq!(done.buckets, BUCKETS, "round {round}: {done:?}");
        assert_eq!(Some(done.rows as usize), wanted.as_array().map(Vec::len), "round {round}");
        // The table has them all by itself.
        assert_eq!(server.rows("shop", rows).await, wanted, "round {round}");
    }
    let checked = server.post("/admin/fsck", "application/json", "{}").await;
    let checked: Value = checked.json().await.unwrap();
    assert_eq!(checked["whole"], true, "{checked}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_goes_on_after_a_restart_and_is_made_of_events_again_where_it_is_asked_for() {
    let server = shop(0..20).await;
    let made = refresh(&server, "").await;
    let server = server.restart().await;
    let none = refresh(&server, "").await;
    assert_eq!((none.buckets, none.snapshot), (0, made.snapshot), "{none:?}");
    let wanted = server.rows("shop", DOCUMENTS).await;
    let full = refresh(&server, "?full=true").await;
    assert_eq!((full.buckets, full.rows, full.documents), (BUCKETS, 20, 20), "{full:?}");
    assert_eq!(server.rows("shop", DOCUMENTS).await, wanted);
    let summaries = summaries(&server).await;
    assert_eq!(summaries.len(), 3, "{summaries:?}");
    let aside = &summaries[1];
    assert_eq!(aside["icecore.collection.set-aside"], "true", "{summaries:?}");
    assert_eq!(aside["icecore.applied-seq"], Value::Null);
    let checked = server.post("/admin/fsck", "application/json", "{}").await;
    let checked: Value = checked.json().await.unwrap();
    assert_eq!(checked["whole"], true, "{checked}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_made_of_events_again_where_another_log_takes_them() {
    let server = shop(0..20).await;
    refresh(&server, "").await;
    server.commit("shop").await;
    let folder = server.stop().await;
    std::fs::remove_dir_all(folder.path().join("wal")).unwrap();
    let server = TestServer::start_in(folder, &[]).await;
    send(&server, vec![change("u", 3, 2)]).await;
    let wanted = server.rows("shop", DOCUMENTS).await;
    let made = refresh(&server, "").await;
    assert_eq!((made.buckets, made.rows, made.documents), (BUCKETS, 20, 20), "{made:?}");
    assert_eq!(server.rows("shop", DOCUMENTS).await, wanted);
    assert_eq!(refresh(&server, "").await.buckets, 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_made_of_events_again_after_a_loss_is_accepted() {
    let server = shop(0..8).await;
    refresh(&server, "").await;
    let folder = server.stop().await;
    // What `icecore wal accept-loss` and `icecore repair table` note.
    std::fs::write(folder.path().join("accepted-losses.ndjson"), "{}\n").unwrap();
    let server = TestServer::start_in(folder, &[("compaction.enabled", "off")]).await;
    let wanted = server.rows("shop", DOCUMENTS).await;
    let made = refresh(&server, "").await;
    assert_eq!((made.buckets, made.rows, made.documents), (BUCKETS, 8, 8), "{made:?}");
    assert_eq!(server.rows("shop", DOCUMENTS).await, wanted);
    assert_eq!(refresh(&server, "").await.buckets, 0);
    server.stop().await;
}

/// Returns once a table has the changes up to an event.
async fn wait_for(server: &TestServer, table: &str, seq: &str) {
    loop {
        let answer = server.get(table).await;
        if answer.status() == 200 {
            let table: Value = answer.json().await.unwrap();
            let snapshots = table["metadata"]["snapshots"].as_array().unwrap();
            if snapshots.iter().any(|it| it["summary"]["icecore.applied-seq"] == seq) {
                return;
            }
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_job_makes_the_table_by_itself_and_has_it_follow() {
    let settings = [("collections.refresh_interval", "1s"), ("collections.cpu_share", "1")];
    let server = TestServer::start_in(tempfile::tempdir().unwrap(), &settings).await;
    send(&server, (0..4).map(|n| change("c", n, 1)).collect()).await;
    server.commit("shop").await;
    wait_for(&server, TABLE, "4").await;
    // This one is in the log alone.
    send(&server, vec![change("u", 2, 2)]).await;
    wait_for(&server, TABLE, "5").await;
    let doc = server.rows("shop", "SELECT version FROM cdc_orders WHERE key = 'k-02'").await;
    assert_eq!(doc, json!([[2]]));
    // Events of no collection are no changes, and a change behind them is seen.
    let plain =
        |n: u32| json!({"id": format!("plain-{n}"), "type": "t", "ns": "shop", "data": {"n": n}});
    send(&server, (0..3).map(plain).collect()).await;
    send(&server, vec![change("u", 3, 5)]).await;
    wait_for(&server, TABLE, "9").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_that_got_no_table_before_the_server_ended_gets_one_after_the_start() {
    let server = shop(0..1).await;
    let other = json!({"id": "i", "type": "t", "ns": "shop", "op": "c", "collection": "items", "key": "1",
        "after": {"a": 1}});
    send(&server, vec![other, change("u", 0, 2)]).await;
    // The other one changed before the last event of this table.
    assert_eq!(refresh(&server, "").await.applied_seq, 3);
    let settings = [("collections.refresh_interval", "1s")];
    let server = TestServer::start_in(server.stop().await, &settings).await;
    wait_for(&server, "/catalog/v1/namespaces/shop/tables/cdc_items", "3").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_that_is_emptied_has_no_documents() {
    let server = shop(0..8).await;
    refresh(&server, "").await;
    let emptied = json!({"id": "t", "type": "cdc.truncate", "ns": "shop", "collection": "orders"});
    send(&server, vec![emptied, change("c", 99, 7)]).await;
    let after = refresh(&server, "").await;
    assert_eq!((after.buckets, after.documents), (BUCKETS, 1), "{after:?}");
    assert_eq!(files(&server).await.len(), 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_in_a_refresh_has_each_document_in_the_table_once() {
    let server = shop(0..20).await;
    refresh(&server, "").await;
    send(&server, (0..20).map(|n| change("u", n, 2)).collect()).await;
    let wanted = server.rows("shop", DOCUMENTS).await;
    let mut folder = server.stop().await;
    for (point, is_made) in [("write.before_commit", false), ("write.lost_answer", true)] {
        post_and_die(folder.path(), &format!("{point}=abort"), REFRESH, String::new()).await;
        let server = TestServer::start_in(folder, &[]).await;
        assert_eq!(summaries(&server).await.len(), 1 + usize::from(is_made), "{point}");
        assert_eq!(server.rows("shop", DOCUMENTS).await, wanted, "{point}");
        folder = server.stop().await;
    }
    let server = TestServer::start_in(folder, &[]).await;
    let again = refresh(&server, "").await;
    assert_eq!((again.buckets, again.documents), (0, 20), "{again:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_erasure_nothing_of_the_subject_is_in_the_table() {
    let server = shop(0..10).await;
    refresh(&server, "").await;
    let subject = json!({"subject": {"user_id": "ann"}});
    let (status, begun) = server.ingest_at("/v1/shop/erase", &subject).await;
    assert_eq!(status, 202, "{begun}");
    let path = format!("/v1/shop/erase/{}", begun["erasure"].as_str().unwrap());
    let report = loop {
        let now: Value = server.get(&path).await.json().await.unwrap();
        assert!(now["status"] != "failed" && now["status"] != "done", "{now}");
        if now["status"] == "files" {
            break now;
        }
        // The job is woken where it waits for its next time.
        if !now["error"].is_null() || !now["waits"].is_null() {
            let wake = json!({"subject": {"id": "nobody"}, "dry_run": true});
            server.ingest_at("/v1/shop/erase", &wake).await;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(report["tables"]["cdc_orders"]["rows"], json!(5), "{report}");
    let names = report["cannot"].to_string();
    assert!(!names.contains("cdc_orders"), "{report}");
    let left = json!([[5]]);
    assert_eq!(server.rows("shop", "SELECT count(*) FROM cdc_orders").await, left);
    // What had the rows is gone from the history.
    assert_eq!(summaries(&server).await.len(), 1);
    let refused = server.post(REFRESH, "application/json", "").await;
    assert_eq!(refused.status(), 503, "before the erasure has ended");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn others_read_and_tag_the_table_and_change_nothing_of_it() {
    let server = shop(0..4).await;
    refresh(&server, "").await;
    let schema = json!({"type": "struct", "schema-id": 1, "fields": [
        {"id": 1, "name": "key", "required": true, "type": "string"}]});
    for updates in [
        json!([{"action": "set-properties", "updates": {"icecore.collection": "x"}}]),
        json!([{"action": "remove-properties", "removals": ["icecore.collection.table"]}]),
        json!([{"action": "add-schema", "schema": schema}, {"action": "set-current-schema", "schema-id": -1}]),
        json!([{"action": "add-spec", "spec": {"fields": []}}, {"action": "set-default-spec", "spec-id": -1}]),
    ] {
        let body = json!({"requirements": [], "updates": updates});
        let (status, answer) = server.call(Method::POST, TABLE, &body).await;
        assert_eq!(status, 400, "{updates}: {answer}");
        assert!(answer.to_string().contains("computes"), "{updates}: {answer}");
    }
    let dropped = server.call(Method::DELETE, TABLE, &Value::Null).await;
    assert_eq!(dropped.0, 400, "{}", dropped.1);
    let insert = json!({"sql": "INSERT INTO cdc_orders SELECT * FROM cdc_orders"});
    assert_eq!(server.query("shop", &insert).await.0, 400);
    let tag = json!({"name": "month", "type": "tag"});
    let (status, answer) = server.call(Method::POST, "/v1/shop/tables/cdc_orders/refs", &tag).await;
    assert_eq!(status, 200, "{answer}");
    let compacted =
        server.post("/admin/jobs/compact?namespace=shop&table=cdc_orders", "application/json", "");
    let compacted: JobReport = compacted.await.json().await.unwrap();
    assert!(compacted.skipped[0].reason.contains("collection"), "{compacted:?}");
    let again = refresh(&server, "").await;
    assert_eq!((again.buckets, again.documents), (0, 4), "{again:?}");
    server.stop().await;
}

/// Each of them reads the table before the others commit.
#[tokio::test(flavor = "multi_thread")]
async fn refreshes_beside_each_other_all_end_well() {
    let server = shop(0..4).await;
    // The first ones make it.
    for round in 2..6 {
        send(&server, vec![change("u", 1, round)]).await;
        let done = futures::future::join_all((0..3).map(|_| refresh(&server, ""))).await;
        assert!(done.iter().all(|done| done.documents == 4), "{done:?}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_whose_table_is_in_the_way_holds_up_no_other() {
    let server = shop(0..4).await;
    let other = json!({"id": "b", "type": "t", "ns": "shop", "op": "c", "collection": "blocked", "key": "1",
        "after": {"a": 1}});
    let no_change = json!({"id": "n", "type": "t", "ns": "shop", "collection": "seen", "key": "1"});
    send(&server, vec![other, no_change]).await;
    server.commit("shop").await;
    let schema = json!({"type": "struct", "schema-id": 0, "fields": [
        {"id": 1, "name": "n", "required": false, "type": "long"}]});
    let body = json!({"name": "cdc_blocked", "schema": schema});
    let path = "/catalog/v1/namespaces/shop/tables";
    let (status, answer) = server.call(Method::POST, path, &body).await;
    assert_eq!(status, 200, "{answer}");
    let path = "/admin/jobs/refresh?namespace=shop";
    let answer = server.post(path, "application/json", "").await;
    let done: JobReport = answer.json().await.unwrap();
    assert_eq!((done.tables, done.rows, done.errors), (1, 4, 1), "{done:?}");
    let skipped = &done.skipped[0];
    assert_eq!(skipped.table, "shop.cdc_blocked");
    assert!(skipped.reason.contains("rename it"), "{skipped:?}");
    let named = server.post(&format!("{path}&table=events"), "application/json", "").await;
    let named: JobReport = named.json().await.unwrap();
    assert!(named.skipped[0].reason.contains("no collection"), "{named:?}");
    let none = "/v1/shop/collections/nothing/refresh";
    assert_eq!(server.post(none, "application/json", "").await.status(), 404);
    server.stop().await;
}
