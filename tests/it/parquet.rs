//! Parquet out of SQL and into ingest: what one server exports, another takes as it was.

use crate::harness::{TestServer, events};
use arrow::array::AsArray;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};
use std::{path::Path, process::Output};

/// Runs the program against a server.
async fn icecore(url: &str, arguments: &[&str]) -> Output {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_icecore"));
    command.args(arguments).args(["--url", url]);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

async fn ingest(server: &TestServer, file: &Path) -> String {
    text(&icecore(&server.url, &["ingest", file.to_str().unwrap()]).await)
}

/// Changes, calls and plain events, some of them odd.
fn samples() -> Value {
    json!([
        { "id": "c1", "type": "cdc.update", "ns": "shop.example", "op": "u", "collection": "orders",
          "key": "7", "before": { "a": 1, "t": "x\"y\n" }, "after": { "a": 2.50 }, "lsn": 12, "bookmark": "b-1" },
        { "id": "c2", "type": "rpc.call", "ns": "shop.example", "data": "just text", "success": false,
          "duration_ms": 0.125, "do": { "class": "Cart", "id": "d1" }, "_meta": { "retries": 2 } },
        { "id": "c3", "type": "plain", "ns": "shop.example", "data": [1, null, "z"], "ts": "2021-05-06T07:08:09.123456Z" },
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_sql_exports_another_server_takes_as_it_was() {
    let (first, second) = (TestServer::start().await, TestServer::start().await);
    let (status, reply) = first.ingest(&events(0..3_000)).await;
    assert_eq!(status, 200, "{reply}");
    first.commit("shop.example").await;
    // These stay in the log: both halves are exported.
    let (status, reply) = first.ingest_at("/ingest?backfill=true", &samples()).await;
    assert_eq!(status, 200, "{reply}");

    let file = first.folder.path().join("export.parquet");
    let statement = "SELECT * FROM events ORDER BY seq";
    let arguments = ["sql", statement, "--ns", "shop.example", "--format", "parquet"];
    let output = ["--output", file.to_str().unwrap()];
    text(&icecore(&first.url, &[&arguments[..], &output[..]].concat()).await);
    assert!(ingest(&second, &file).await.contains("3003 events sent: 3003 new, 0 duplicates"));
    assert!(ingest(&second, &file).await.contains("3003 events sent: 0 new, 3003 duplicates"));

    // What the server gives, and what keeps members that no column has, is the other server's own.
    let columns = icecore_schemas::columns::EVENTS
        .iter()
        .map(|column| format!("\"{}\"", column.name))
        .filter(|name| !["\"seq\"", "\"ingested_at\"", "\"payload\""].contains(&name.as_str()));
    let columns: Vec<String> = columns.collect();
    let compare = format!("SELECT {} FROM events ORDER BY id", columns.join(", "));
    let expected = first.rows("shop.example", &compare).await;
    assert_eq!(expected.as_array().unwrap().len(), 3_003);
    assert_eq!(second.rows("shop.example", &compare).await, expected);
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_without_ids_are_taken_once() {
    let server = TestServer::start().await;
    server.ingest(&events(0..10)).await;
    let file = server.folder.path().join("bare.parquet");
    let statement = "SELECT 'imported' AS type, ts, key AS note, data FROM events";
    let arguments = ["sql", statement, "--ns", "shop.example", "--format", "parquet"];
    let exported = icecore(&server.url, &arguments).await;
    assert!(exported.status.success());
    std::fs::write(&file, &exported.stdout).unwrap();
    assert!(ingest(&server, &file).await.contains("10 events sent: 10 new"));
    assert!(ingest(&server, &file).await.contains("10 events sent: 0 new, 10 duplicates"));
    let rows = server
        .rows("default", "SELECT count(*), count(DISTINCT id), count(DISTINCT data) FROM events")
        .await;
    assert_eq!(rows, json!([[10, 10, 10]]));
    let refused = icecore(&server.url, &["ingest", "--format", "parquet"]).await;
    assert_eq!(refused.status.code(), Some(2));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_answers_with_parquet_when_it_is_asked_to() {
    let server = TestServer::start().await;
    server.ingest(&events(0..100)).await;
    let ask = |sql: &str| {
        server
            .http
            .post(format!("{}/v1/shop.example/sql", server.url))
            .header("accept", "application/vnd.apache.parquet")
            .body(json!({ "sql": sql }).to_string())
            .send()
    };
    let response = ask("SELECT id, seq FROM events ORDER BY seq").await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/vnd.apache.parquet");
    let bytes: Bytes = response.bytes().await.unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap();
    let seqs: Vec<i64> = reader
        .flat_map(|batch| {
            let batch = batch.unwrap();
            batch["seq"].as_primitive::<arrow::datatypes::Int64Type>().values().to_vec()
        })
        .collect();
    assert_eq!(seqs, (1..=100).collect::<Vec<i64>>());

    let response = ask("SELECT INTERVAL '1 month' AS lag").await.unwrap();
    assert_eq!(response.status(), 400);
    let body: Value = response.json().await.unwrap();
    assert!(body["error"].as_str().unwrap().contains("`lag`"), "{body}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_breaks_off_leaves_no_parquet_file() {
    let server =
        TestServer::start_in(tempfile::tempdir().unwrap(), &[("sql.rows_max", "50")]).await;
    server.ingest(&events(0..100)).await;
    let file = server.folder.path().join("half.parquet");
    let arguments = ["sql", "SELECT * FROM events", "--ns", "shop.example", "--format", "parquet"];
    let output = ["--output", file.to_str().unwrap()];
    let failed = icecore(&server.url, &[&arguments[..], &output[..]].concat()).await;
    assert_eq!(failed.status.code(), Some(1));
    let left: Vec<_> = std::fs::read_dir(server.folder.path())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("half"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    server.stop().await;
}
