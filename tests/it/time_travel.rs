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

const NAMESPACE: &str = "shop.example";
const TABLE: &str = "/catalog/v1/namespaces/shop_example/tables/events";

/// What a client's updates of the table answer; they must succeed.
async fn updated(server: &TestServer, updates: Value) -> Value {
    let body = json!({ "requirements": [], "updates": updates }).to_string();
    let answer = server.post(TABLE, "application/json", body).await;
    let (status, answer) = (answer.status(), answer.json::<Value>().await.unwrap());
    assert_eq!(status, 200, "{answer}");
    answer["metadata"].clone()
}

/// The times of the table's snapshots, the oldest first.
async fn times(server: &TestServer) -> Vec<String> {
    let path = format!("/v1/{NAMESPACE}/tables/events/snapshots");
    let listed: Value = server.get(&path).await.json().await.unwrap();
    let listed = listed["snapshots"].as_array().unwrap().iter().rev();
    listed
        .map(|snapshot| {
            let ms = snapshot["timestamp_ms"].as_i64().unwrap();
            let time = chrono::DateTime::from_timestamp_millis(ms).unwrap();
            time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_whose_snapshot_was_removed_is_refused_and_answered_by_no_other() {
    let server = TestServer::start().await;
    let mut snapshots = Vec::new();
    for range in [0..3, 3..6, 6..9, 9..12] {
        server.ingest(&events(range)).await;
        snapshots.push(server.commit(NAMESPACE).await["events"].clone());
    }
    let times = times(&server).await;
    let ask = async |as_of: &Value| {
        let request = json!({ "sql": "SELECT count(*) FROM events", "as_of": as_of });
        server.query(NAMESPACE, &request).await
    };
    assert_eq!(ask(&json!(times[2])).await.1["rows"], json!([[9]]));
    updated(&server, json!([{ "action": "remove-snapshots", "snapshot-ids": [snapshots[2]] }]))
        .await;
    for (time, kept) in [(&times[1], 1), (&times[2], 1), (&times[0], 0)] {
        let (status, answer) = ask(&json!(time)).await;
        assert_eq!((status, &answer["code"]), (410, &json!("GONE")), "{time}: {answer}");
        let around = json!([times[3], snapshots[kept].to_string()]);
        assert_eq!(answer["details"]["nearest"], around, "{time}: {answer}");
        assert_eq!(ask(&around[1]).await.0, 200, "each is a point that can be read");
        let told = answer["error"].as_str().unwrap();
        let nearest = format!("snapshot before it is {} of {}", snapshots[kept], times[kept]);
        assert!(told.contains(&nearest) && told.contains(&times[3]), "{told}");
        // An operator is not led elsewhere either.
        let back = json!({ "time": time }).to_string();
        let path = format!("/v1/{NAMESPACE}/tables/events/rollback");
        let answer = server.post(&path, "application/json", back).await;
        assert_eq!(answer.status(), 400, "{time}");
        assert!(answer.text().await.unwrap().contains("is not known"), "{time}");
    }
    for (as_of, rows) in [(json!(times[3]), 12), (snapshots[1].clone(), 6), (json!("main"), 12)] {
        assert_eq!(ask(&as_of).await.1["rows"], json!([[rows]]), "{as_of}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_point_in_the_past_has_its_columns_and_a_branch_those_of_now() {
    let server = TestServer::start().await;
    server.ingest(&events(0..3)).await;
    let first = server.commit(NAMESPACE).await["events"].clone();
    let set = |name: &str, kind: &str| json!({ "action": "set-snapshot-ref", "ref-name": name, "type": kind, "snapshot-id": first });
    let now = updated(&server, json!([set("then", "tag"), set("side", "branch")])).await;
    let time = times(&server).await.pop().unwrap();
    let mut schema = now["schemas"].as_array().unwrap().last().unwrap().clone();
    let id = now["last-column-id"].as_i64().unwrap() + 1;
    let mine = json!({ "id": id, "name": "mine", "type": "long", "required": false });
    schema["fields"].as_array_mut().unwrap().push(mine);
    let added = json!([
        { "action": "add-schema", "schema": schema },
        { "action": "set-current-schema", "schema-id": -1 },
    ]);
    updated(&server, added).await;
    // The same before and after the commit that the snapshot is not the current one any more.
    for is_current in [true, false] {
        for (as_of, is_past) in [
            (first.clone(), true),
            (json!(time), true),
            (json!("then"), true),
            (json!("side"), false),
            (json!("main"), false),
        ] {
            let request = json!({ "sql": "SELECT * FROM events ORDER BY seq", "as_of": as_of });
            let (status, answer) = server.query(NAMESPACE, &request).await;
            assert_eq!(status, 200, "{as_of}: {answer}");
            let columns = answer["columns"].as_array().unwrap();
            let has_mine = columns.iter().any(|column| column["name"] == "mine");
            assert_eq!(has_mine, !is_past, "{as_of}, {is_current}");
            let rows = if as_of == json!("main") && !is_current { 6 } else { 3 };
            assert_eq!(answer["rowCount"], json!(rows), "{as_of}, {is_current}");
        }
        server.ingest(&events(3..6)).await;
        server.commit(NAMESPACE).await;
    }
    server.stop().await;
}
