//! Restores beside writers, of points of every kind, and of points that are gone.

use crate::harness::{TestServer, beside, config, meet};
use icecore_lake::{clock::Clock, faults::Failpoints};
use serde_json::{Value, json};

/// 2026-09-21 14:13 UTC.
const NOW_MS: i64 = 1_790_000_000_000;
const DAY_MS: i64 = 86_400_000;
const RESTORE: &str = "/v1/shop/collections/users/restore";

fn change(op: &str, key: &str, n: u64) -> Value {
    json!({"ns": "shop", "op": op, "collection": "users", "key": key, "after": {"n": n}})
}

async fn take(server: &TestServer, events: &[Value]) {
    let (status, reply) = server.ingest(&json!(events)).await;
    assert_eq!(status, 200, "{reply}");
}

/// The documents by their keys.
async fn documents(server: &TestServer) -> Value {
    server.rows("shop", "SELECT key, doc FROM cdc_users ORDER BY key").await
}

async fn restore(server: &TestServer, at: &str) -> (u16, Value) {
    server.ingest_at(RESTORE, &json!({ "at": at })).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_document_that_is_written_during_a_restore_is_compared_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder, &[]);
    // One look where another document was written, two where it is the document once, three where it always is.
    let (faults, meeting) = Failpoints::meetings("restore.before_append", 6);
    config.faults = faults;
    let server = TestServer::start_with(folder, &config, Clock::system()).await;
    take(&server, &[change("c", "1", 1), change("c", "2", 1), change("u", "1", 2)]).await;
    let restore_while = async |at: &str, writes: &[Option<Value>]| {
        let restored = restore(&server, at);
        let meanwhile = async {
            for write in writes {
                meet(&meeting).await;
                if let Some(write) = write {
                    take(&server, std::slice::from_ref(write)).await;
                }
                meet(&meeting).await;
            }
        };
        beside(&meeting, restored, meanwhile).await.0
    };
    let (status, report) = restore_while("seq:1", &[Some(change("u", "3", 9))]).await;
    assert_eq!((status, &report["updated"], &report["deleted"]), (200, &json!(1), &json!(1)));
    assert_eq!(documents(&server).await, json!([["1", "{\"n\":1}"], ["3", "{\"n\":9}"]]));
    // What was written once is compared and undone with the rest.
    let written = [Some(change("u", "1", 7)), None];
    let (status, report) = restore_while("seq:3", &written).await;
    assert_eq!(status, 200, "{report}");
    let restored = json!([["1", "{\"n\":2}"], ["2", "{\"n\":1}"]]);
    assert_eq!(documents(&server).await, restored);
    let sql = "SELECT before FROM events WHERE key = '1' ORDER BY seq DESC LIMIT 1";
    assert_eq!(server.rows("shop", sql).await, json!([["{\"n\":7}"]]), "{report}");
    let undo = format!("bookmark:{}", report["undo_bookmark"].as_str().unwrap());
    let doc = server.get(&format!("/v1/shop/collections/users/docs/1?at={undo}")).await;
    assert_eq!(doc.json::<Value>().await.unwrap()["doc"], json!({"n": 7}));
    let events = server.rows("shop", "SELECT count(*) FROM events").await;
    let written = [3, 4, 5].map(|n| Some(change("u", "1", n)));
    let (status, refused) = restore_while("seq:1", &written).await;
    assert_eq!(status, 503, "{refused}");
    assert_eq!(documents(&server).await, json!([["1", "{\"n\":5}"], ["2", "{\"n\":1}"]]));
    let after = server.rows("shop", "SELECT count(*) FROM events").await;
    assert_eq!(after[0][0].as_u64().unwrap(), events[0][0].as_u64().unwrap() + 3);
    let (status, report) = restore(&server, "seq:1").await;
    assert_eq!((status, documents(&server).await), (200, json!([["1", "{\"n\":1}"]])), "{report}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_written_between_the_batches_of_a_restore_stays_and_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder, &[("ingest.batch_events_max", "10")]);
    let (faults, meeting) = Failpoints::meeting("changes.after_batch");
    config.faults = faults;
    let server = TestServer::start_with(folder, &config, Clock::system()).await;
    let created: Vec<Value> = (0..20).map(|n| change("c", &format!("u-{n:02}"), n)).collect();
    for events in created.chunks(10) {
        take(&server, events).await;
    }
    let before = documents(&server).await;
    // Eight documents go in a batch: two of its places are for what tells of the restore.
    let meanwhile = async {
        meet(&meeting).await;
        let there = documents(&server).await;
        let key = there[0][0].as_str().unwrap().to_owned();
        take(&server, &[change("u", &key, 99), change("c", "u-new", 99)]).await;
        meet(&meeting).await;
        (there.as_array().unwrap().len(), key)
    };
    let restored = restore(&server, "seq:0");
    let ((status, report), (count, key)) = beside(&meeting, restored, meanwhile).await;
    assert_eq!((status, count), (200, 12), "{report}");
    let written = "{\"n\":99}";
    assert_eq!(documents(&server).await, json!([[key, written], ["u-new", written]]));
    assert_eq!((&report["deleted"], &report["batches"]), (&json!(19), &json!(3)), "{report}");
    assert_eq!((&report["written_meanwhile"], &report["overwritten"]), (&json!(1), &json!(0)));
    assert_eq!(report["left"], json!([{"collection": "users", "key": key}]), "{report}");
    // The moment before it has neither the restore nor what came meanwhile.
    let undo = format!("bookmark:{}", report["undo_bookmark"].as_str().unwrap());
    let (status, undone) = restore(&server, &undo).await;
    assert_eq!((status, &undone["updated"]), (200, &json!(1)), "{undone}");
    assert_eq!(documents(&server).await, before);
    server.stop().await;
}

/// Writes twelve documents, which a restore deletes in two batches: ten events are one, and two of them are for what tells
/// of the restore.
async fn write_twelve(server: &TestServer, op: &str, n: u64) {
    let changes: Vec<Value> = (0..12).map(|key| change(op, &format!("u-{key:02}"), n)).collect();
    for events in changes.chunks(10) {
        take(server, events).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_written_right_before_a_batch_of_a_restore_is_compared_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder, &[("ingest.batch_events_max", "10")]);
    // The batch that is not taken, and both batches of the next comparison.
    let (faults, meeting) = Failpoints::meetings("changes.before_batch", 3);
    config.faults = faults;
    let server = TestServer::start_with(folder, &config, Clock::system()).await;
    write_twelve(&server, "c", 1).await;
    let meanwhile = async {
        meet(&meeting).await;
        write_twelve(&server, "u", 9).await;
        for _ in 0..5 {
            meet(&meeting).await;
        }
    };
    let restored = restore(&server, "seq:0");
    let (status, report) = beside(&meeting, restored, meanwhile).await.0;
    assert_eq!((status, &report["deleted"], &report["batches"]), (200, &json!(12), &json!(2)));
    assert_eq!((&report["overwritten"], &report["written_meanwhile"]), (&json!(0), &json!(0)));
    assert_eq!(documents(&server).await, json!([]));
    // What was written is before the restore, so it is undone to.
    let undo = format!("bookmark:{}", report["undo_bookmark"].as_str().unwrap());
    let (status, undone) = restore(&server, &undo).await;
    assert_eq!((status, &undone["inserted"]), (200, &json!(12)), "{undone}");
    let sql = "SELECT DISTINCT doc FROM cdc_users";
    assert_eq!(server.rows("shop", sql).await, json!([["{\"n\":9}"]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_batch_of_a_restore_is_looked_at_again_and_what_is_overwritten_in_the_end_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder, &[("ingest.batch_events_max", "10")]);
    // The first batch, and the second one after each look at it.
    let (faults, meeting) = Failpoints::meetings("changes.before_batch", 5);
    config.faults = faults;
    let server = TestServer::start_with(folder, &config, Clock::system()).await;
    write_twelve(&server, "c", 1).await;
    let meanwhile = async {
        meet(&meeting).await;
        // It is no document of the restore, so the batch is taken.
        take(&server, &[change("c", "u-new", 9)]).await;
        meet(&meeting).await;
        // The first document of the second batch that nobody wrote yet.
        let sql = "SELECT min(key) FROM cdc_users WHERE doc = '{\"n\":1}'";
        let mut written: Vec<String> = Vec::new();
        for _ in 0..4 {
            meet(&meeting).await;
            let key = server.rows("shop", sql).await[0][0].as_str().unwrap().to_owned();
            take(&server, &[change("u", &key, 9)]).await;
            written.push(key);
            meet(&meeting).await;
        }
        written
    };
    let restored = restore(&server, "seq:0");
    let ((status, report), written) = beside(&meeting, restored, meanwhile).await;
    assert_eq!((status, written.len()), (200, 4), "{report}");
    assert_eq!((&report["deleted"], &report["batches"]), (&json!(9), &json!(2)), "{report}");
    let told = |key: &String| json!({"collection": "users", "key": key});
    assert_eq!((&report["written_meanwhile"], &report["overwritten"]), (&json!(3), &json!(1)));
    assert_eq!(report["left"], json!(written[..3].iter().map(told).collect::<Vec<Value>>()));
    assert_eq!(report["overwritten_documents"], json!([told(&written[3])]), "{report}");
    let keys = server.rows("shop", "SELECT key FROM cdc_users ORDER BY key").await;
    assert_eq!(keys, json!([[written[0]], [written[1]], [written[2]], ["u-new"]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_of_several_batches_says_that_it_has_two_queries_at_a_time() {
    let settings = [("ingest.batch_events_max", "10"), ("sql.concurrent_per_namespace", "1")];
    let server = TestServer::start_in(tempfile::tempdir().unwrap(), &settings).await;
    let created: Vec<Value> = (0..16).map(|n| change("c", &format!("u-{n:02}"), n)).collect();
    for events in created.chunks(8) {
        take(&server, events).await;
    }
    let (status, refused) = restore(&server, "seq:0").await;
    assert_eq!((status, &refused["code"]), (422, &json!("QUERY_LIMIT")), "{refused}");
    assert!(refused["error"].as_str().unwrap().contains("sql.concurrent_per_namespace"));
    // One batch has one query at a time, and nothing was changed before.
    let (status, report) = restore(&server, "seq:8").await;
    assert_eq!((status, &report["deleted"]), (200, &json!(8)), "{report}");
    assert_eq!(report["seq"]["first"], 17, "{report}");
    server.stop().await;
}

/// Sends events in a request of this name.
async fn take_named(server: &TestServer, name: &str, events: &[Value]) {
    let request = server.http.post(format!("{}/ingest", server.url));
    let answer = request.header("x-request-id", name).json(events).send().await.unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_request_is_taken_back_and_everybody_sees_by_what() {
    let server = TestServer::start().await;
    take_named(&server, "good", &[change("c", "1", 1)]).await;
    take_named(&server, "bad", &[change("u", "1", 2), change("u", "1", 3)]).await;
    let (status, report) = restore(&server, "before:bad").await;
    assert_eq!((status, &report["restored_to"]["seq"]), (200, &json!(1)), "{report}");
    assert_eq!(documents(&server).await, json!([["1", "{\"n\":1}"]]));
    let is_restored = |event: &&Value| event["meta"]["restore_of"] == report["restore"];
    let listed = server.get("/v1/shop/events").await.json::<Value>().await.unwrap();
    let events = listed["events"].as_array().unwrap();
    let found: Vec<&Value> = events.iter().filter(is_restored).collect();
    assert_eq!((found.len(), &found[0]["op"], &found[0]["key"]), (1, &json!("u"), &json!("1")));
    let request = server.http.get(format!("{}/v1/shop/events", server.url));
    let lines = request.header("accept", "application/x-ndjson").send().await.unwrap();
    let lines = lines.text().await.unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ids: Vec<&Value> = lines.iter().filter(is_restored).map(|event| &event["id"]).collect();
    assert_eq!(ids, [&found[0]["id"]]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_restored_to_until_it_is_removed() {
    let server = TestServer::start().await;
    take(&server, &[change("c", "1", 1)]).await;
    server.commit("shop").await;
    let (_, answer) = server.query("shop", &json!({ "sql": "SELECT count(*) FROM events" })).await;
    let snapshot = answer["basis"]["snapshots"]["events"].clone();
    take(&server, &[change("u", "1", 2)]).await;
    server.commit("shop").await;
    let at = format!("snapshot:{snapshot}");
    let (status, report) = restore(&server, &at).await;
    assert_eq!((status, &report["restored_to"]["snapshot"]), (200, &snapshot), "{report}");
    assert_eq!(documents(&server).await, json!([["1", "{\"n\":1}"]]));
    let removed = json!([{ "action": "remove-snapshots", "snapshot-ids": [snapshot] }]);
    let body = json!({ "requirements": [], "updates": removed });
    let table = "/catalog/v1/namespaces/shop/tables/events";
    let (status, answer) = server.ingest_at(table, &body).await;
    assert_eq!(status, 200, "{answer}");
    let read = server.get(&format!("/v1/shop/collections/users/docs/1?at={at}")).await;
    for (status, answer) in [
        restore(&server, &at).await,
        (read.status().as_u16(), read.json().await.unwrap()),
        server.ingest_at("/v1/shop/resolve", &json!({ "at": at })).await,
    ] {
        assert_eq!((status, &answer["code"]), (410, &json!("GONE")), "{answer}");
        assert_eq!(answer["details"]["nearest"].as_array().map(Vec::len), Some(1), "{answer}");
    }
    // One that a client has loaded is not removed, and neither is what came after it.
    let loaded: Value = server.get(table).await.json().await.unwrap();
    let snapshot = &loaded["metadata"]["current-snapshot-id"];
    take(&server, &[change("u", "1", 3)]).await;
    server.commit("shop").await;
    let removed = json!([{ "action": "remove-snapshots", "snapshot-ids": [snapshot] }]);
    let body = json!({ "requirements": [], "updates": removed });
    let (status, answer) = server.ingest_at(table, &body).await;
    let (kind, told) = (&answer["error"]["type"], answer["error"]["message"].as_str().unwrap());
    assert_eq!((status, kind), (409, &json!("CommitFailedException")), "{answer}");
    assert!(told.contains(&format!("work with snapshot {snapshot} ")), "{told}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_found_at_a_time_and_at_the_start_of_a_day() {
    let clock = Clock::manual(NOW_MS);
    let server = TestServer::start_at(tempfile::tempdir().unwrap(), &[], clock.clone()).await;
    take(&server, &[change("c", "1", 1)]).await;
    clock.advance_ms(DAY_MS);
    take(&server, &[change("u", "1", 2)]).await;
    clock.advance_ms(DAY_MS);
    for (address, n) in [
        ("users/1?v=2026-09-21T20:00:00Z", 1),
        ("users/1?v=2026-09-22T20:00:00Z", 2),
        ("users/1@2026-09-22", 1),
        ("users/1@2026-09-23", 2),
        ("users/1@2026-09-22T00:00:00Z", 1),
    ] {
        let found = server.get(&format!("/v1/shop/things/{address}")).await;
        let found = found.json::<Value>().await.unwrap();
        assert_eq!(found["doc"], json!({ "n": n }), "{address}: {found}");
    }
    let path = "/v1/shop/things/users/1@2026-09-21";
    assert_eq!(server.get(path).await.status(), 404);
    server.stop().await;
}
