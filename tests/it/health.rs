//! What `/readyz` and `/metrics` say, and that it is true.

use crate::harness::{TestServer, events};
use serde_json::json;

/// The value of a metric without labels.
async fn metric(server: &TestServer, name: &str) -> f64 {
    let text = server.get("/metrics").await.text().await.unwrap();
    let line = text.lines().find(|line| line.split(' ').next() == Some(name));
    line.unwrap_or_else(|| panic!("no {name} in {text}"))[name.len()..].trim().parse().unwrap()
}

#[tokio::test]
async fn nothing_waits_for_a_commit_once_all_is_committed() {
    let server = TestServer::start().await;
    server.ingest(&events(0..10)).await;
    assert!(0.0 < metric(&server, "icecore_wal_waiting_bytes").await);
    server.commit("shop.example").await;
    // Repeats leave their keys in the log, which go to no table.
    server.ingest(&events(0..10)).await;
    assert_eq!(metric(&server, "icecore_wal_waiting_bytes").await, 0.0);
    assert_eq!(metric(&server, "icecore_commit_lag_seconds").await, 0.0);
}

#[tokio::test]
async fn a_server_whose_log_is_full_is_not_ready() {
    let settings = [("wal.bytes_max", "1MiB"), ("wal.segment_bytes", "64KiB")];
    let server = TestServer::start_in(tempfile::tempdir().unwrap(), &settings).await;
    assert_eq!(server.get("/readyz").await.status(), 200);
    let text = "x".repeat(10_000);
    let mut status = 200;
    for n in 0..200 {
        let event = json!({"id": n.to_string(), "type": "t", "ns": "n", "data": {"text": text}});
        status = server.ingest(&event).await.0;
        if status == 503 {
            break;
        }
    }
    assert_eq!(status, 503);
    let ready = server.get("/readyz").await;
    assert_eq!(ready.status(), 503);
    let text = ready.text().await.unwrap();
    assert!(text.contains("the log is full"), "{text}");
    // What was refused for want of room changes nothing about queries.
    assert_eq!(server.query("n", &json!({"sql": "SELECT 1"})).await.0, 200);
    server.commit("n").await;
    assert_eq!(server.get("/readyz").await.status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn answers_of_metrics_at_the_same_time_are_whole() {
    let settings = [("failpoints", "flush.before_write=error*1000000")];
    let server = TestServer::start_in(tempfile::tempdir().unwrap(), &settings).await;
    server.ingest(&events(0..10)).await;
    let commit = server.post("/v1/shop.example/commit", "application/json", "").await;
    assert_eq!(commit.status(), 503);
    let series = "icecore_flush_failing_seconds{table=\"shop_example.events\"}";
    let scrapes = (0..8).map(|_| async {
        for _ in 0..100 {
            let text = server.get("/metrics").await.text().await.unwrap();
            assert!(text.contains(series), "{text}");
        }
    });
    futures::future::join_all(scrapes).await;
}

#[tokio::test]
async fn a_query_that_waits_for_another_one_is_counted() {
    let server =
        TestServer::start_in(tempfile::tempdir().unwrap(), &[("sql.concurrent_max", "1")]).await;
    server.ingest(&events(0..2_000)).await;
    let sql = "SELECT count(*) FROM events a, events b, events c WHERE a.seq + b.seq + c.seq < 0";
    let request = json!({ "sql": sql });
    let query = || server.query("shop.example", &request);
    let at_least_one = async |name: &str| while metric(&server, name).await < 1.0 {};
    let counted = async {
        at_least_one("icecore_queries_running").await;
        // One that waits gives up after a moment: then another one does.
        let mut is_counted = false;
        while !is_counted {
            is_counted = tokio::select! {
                _ = query() => false,
                () = at_least_one("icecore_queries_waiting") => true,
            };
        }
    };
    tokio::select! {
        ended = query() => panic!("none waited: {ended:?}"),
        () = counted => (),
    }
}

#[tokio::test]
async fn the_way_of_an_event_and_of_a_query_is_timed() {
    let server = TestServer::start().await;
    server.ingest(&events(0..10)).await;
    server.commit("shop.example").await;
    let (status, _) = server.query("shop.example", &json!({"sql": "SELECT id FROM events"})).await;
    assert_eq!(status, 200);
    let (status, _) = server.query("shop.example", &json!({"sql": "SELECT nothing"})).await;
    assert_eq!(status, 400);
    assert_eq!(server.get("/catalog/v1/namespaces/shop_example/tables/events").await.status(), 200);
    let text = server.get("/metrics").await.text().await.unwrap();
    for line in [
        "icecore_ingest_ack_seconds_count 1",
        "icecore_wal_group_rows_sum 10.0",
        "icecore_wal_sync_seconds_count 1",
        "icecore_flush_seconds_count 1",
        "icecore_flush_commit_seconds_count 1",
        "icecore_flush_rows_total 10",
        "icecore_query_seconds_count{outcome=\"ok\"} 1",
        "icecore_query_seconds_count{outcome=\"error\"} 1",
        "icecore_query_rows_total 10",
        "icecore_query_files_pruned_total 0",
    ] {
        assert!(text.lines().any(|have| have == line), "{line} is not in\n{text}");
    }
    assert!(0.0 < metric(&server, "icecore_query_read_bytes_total").await);
    assert!(0.0 < metric(&server, "icecore_query_files_total").await);
    let load = text.lines().find(|line| {
        line.starts_with("icecore_http_request_seconds_count{method=\"GET\"")
            && line.contains("/tables/{table}\"")
    });
    assert!(load.is_some_and(|line| line.ends_with("status=\"2xx\"} 1")), "{text}");
}
