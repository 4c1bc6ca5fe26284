//! One commit with rows of very many partitions.

use crate::harness::{TestServer, files_below};
use serde_json::{Value, json};
use tokio::time::Instant;

const NAMESPACE: &str = "shop.example";
const TYPES: u32 = 100;
/// The day of the first events, 2025-01-01, in days since 1970.
const FIRST_DAY: i64 = 20_089;

/// An event of each type on one day.
fn day(day: u32) -> Value {
    let date = chrono::DateTime::from_timestamp((FIRST_DAY + i64::from(day)) * 86_400, 0).unwrap();
    let date = date.format("%Y-%m-%dT12:00:00Z").to_string();
    let event = |n| json!({ "id": format!("{day}-{n}"), "type": format!("type.{n}"), "ns": NAMESPACE, "ts": date });
    (0..TYPES).map(event).collect()
}

/// A commit of 300 partitions, and of 9 000 with `LARGE=1`, which then prints the time that it takes:
/// `LARGE=1 cargo test --release --test it -- one_commit_has_rows_of_very_many --nocapture`.
#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stdout, reason = "says how long it took")]
async fn one_commit_has_rows_of_very_many_partitions() {
    let days = if std::env::var_os("LARGE").is_some() { 90 } else { 3 };
    let partitions = days * TYPES;
    let server = TestServer::start().await;
    for n in 0..days {
        let (status, reply) = server.ingest_at("/ingest?backfill=true", &day(n)).await;
        assert_eq!((status, &reply["duplicates"]), (200, &json!(0)), "{reply}");
    }
    let start = Instant::now();
    server.commit(NAMESPACE).await;
    println!("{partitions} partitions in one commit: {:?}", start.elapsed());
    let snapshots: Value =
        server.get(&format!("/v1/{NAMESPACE}/tables/events/snapshots")).await.json().await.unwrap();
    assert_eq!(
        (&snapshots["total"], &snapshots["snapshots"][0]["added_records"]),
        (&json!(1), &json!(partitions)),
        "{snapshots}"
    );
    let files = files_below(&server.folder.path().join("warehouse"), ".parquet");
    assert_eq!(files.len(), partitions as usize);
    let count = "SELECT count(*), count(DISTINCT id), count(DISTINCT type) FROM events";
    let start = Instant::now();
    let rows = server.rows(NAMESPACE, count).await;
    println!("{partitions} files read: {:?}", start.elapsed());
    assert_eq!(rows, json!([[partitions, partitions, TYPES]]));
    let one = "SELECT id FROM events WHERE type = 'type.7' AND ts < '2025-01-02T00:00:00Z'";
    assert_eq!(server.rows(NAMESPACE, one).await, json!([["0-7"]]));
    // Everything is in the table, and a start takes nothing of it for new.
    let server = server.restart().await;
    let (status, reply) = server.ingest_at("/ingest?backfill=true", &day(0)).await;
    assert_eq!((status, &reply["duplicates"]), (200, &json!(TYPES)), "{reply}");
    assert_eq!(server.rows(NAMESPACE, count).await, json!([[partitions, partitions, TYPES]]));
    server.stop().await;
}
