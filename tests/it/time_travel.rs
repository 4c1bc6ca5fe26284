//! A query without `as_of` sees everything acknowledged; with it, exactly what was committed then.

use crate::harness::{TestServer, events};
use serde_json::{Value, json};
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_shows_what_was_committed_then_and_nothing_of_the_log() {
    let server = TestServer::start().await;
    server.ingest(&events(0..10)).await;
    let first = server.commit("shop.example").await["events"].clone();
    server.ingest(&events(10..30)).await;
    let second = server.commit("shop.example").await["events"].clone();
    server.ingest(&events(30..35)).await;
    let count = async |as_of: Value| {
        let request = json!({ "sql": "SELECT count(*), max(seq) FROM events", "as_of": as_of });
        let (status, answer) = server.query("shop.example", &request).await;
        assert_eq!(status, 200, "{answer}");
        answer["rows"][0].clone()
    };
    assert_eq!(server.rows("shop.example", "SELECT count(*) FROM events").await, json!([[35]]));
    assert_eq!(count(first.clone()).await, json!([10, 10]));
    assert_eq!(count(json!(first.to_string())).await, json!([10, 10]));
    assert_eq!(count(second).await, json!([30, 30]));
    let snapshots: Value =
        server.get("/v1/shop.example/tables/events/snapshots").await.json().await.unwrap();
    let at = snapshots["snapshots"][1]["timestamp_ms"].as_i64().unwrap();
    let at = chrono::DateTime::from_timestamp_millis(at).unwrap().to_rfc3339();
    assert_eq!(count(json!(at)).await, json!([10, 10]));
    let (status, _) =
        server.query("shop.example", &json!({ "sql": "SELECT 1 FROM events", "as_of": 42 })).await;
    assert_eq!(status, 404);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_may_be_called_by_its_catalog_name() {
    let server = TestServer::start().await;
    server.ingest(&events(0..10)).await;
    server.commit("shop.example").await;
    server.ingest(&events(10..15)).await;
    let count = "SELECT count(*) FROM events";
    assert_eq!(server.rows("shop_example", count).await, json!([[15]]));
    assert!(server.commit("shop_example").await["events"].is_i64());
    let (_, at_snapshot) =
        server.query("shop.example", &json!({ "sql": count, "as_of": "main" })).await;
    assert_eq!(
        at_snapshot["rows"],
        json!([[15]]),
        "the commit by the catalog name was of the same log"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_never_misses_an_acknowledged_event_nor_sees_one_twice_while_commits_run() {
    let server = Arc::new(TestServer::start().await);
    let acknowledged = Arc::new(AtomicU64::new(0));
    let done = Arc::new(AtomicBool::new(false));
    let queries = AtomicU64::new(0);
    server.ingest(&events(0..10)).await;
    acknowledged.store(10, Ordering::SeqCst);
    let writer = async {
        // On a busy machine the reader needs more steps to really run beside the commits.
        for step in (1..4000).take_while(|n| *n < 40 || queries.load(Ordering::SeqCst) < 4) {
            let (status, _) = server.ingest(&events(step * 10..step * 10 + 10)).await;
            assert_eq!(status, 200);
            acknowledged.fetch_add(10, Ordering::SeqCst);
        }
        done.store(true, Ordering::SeqCst);
    };
    let committer = async {
        while !done.load(Ordering::SeqCst) {
            server.commit("shop.example").await;
        }
    };
    let reader = async {
        while !done.load(Ordering::SeqCst) {
            let before = acknowledged.load(Ordering::SeqCst);
            let rows = server
                .rows("shop.example", "SELECT count(*), count(DISTINCT id), max(seq) FROM events")
                .await;
            let [count, ids, last] = [0, 1, 2].map(|column| rows[0][column].as_u64().unwrap());
            assert!(before <= count, "{count} rows after {before} acknowledgements");
            assert_eq!((count, count), (ids, last), "an id twice, or a seq left out");
            queries.fetch_add(1, Ordering::SeqCst);
        }
    };
    tokio::join!(writer, committer, reader);
    assert!(3 < queries.load(Ordering::SeqCst), "the reader really ran beside the commits");
}
