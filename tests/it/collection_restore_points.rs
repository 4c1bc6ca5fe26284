//! Restores beside writers, of points of every kind, and of points that are gone.

use crate::harness::{TestServer, config};
use icecore_lake::{clock::Clock, faults::Failpoints};
use serde_json::{Value, json};
use std::sync::Arc;

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
    let meet = async || {
        let meeting = Arc::clone(&meeting);
        tokio::task::spawn_blocking(move || meeting.wait()).await.unwrap();
    };
    let restore_while = async |at: &str, writes: &[Option<Value>]| {
        let restored = restore(&server, at);
        let meanwhile = async {
            for write in writes {
                meet().await;
                if let Some(write) = write {
                    take(&server, std::slice::from_ref(write)).await;
                }
                meet().await;
            }
        };
        tokio::join!(restored, meanwhile).0
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
