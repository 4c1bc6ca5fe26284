//! A table of ours that no release has: its entry is all that it needs, from the first event to SQL.

use crate::{
    backup::{json_of, text},
    harness::TestServer,
    process::Process,
};
use icecore_schemas::jobs::JobReport;
use serde_json::{Value, json};
use std::{fs, ops::Range};
use tempfile::TempDir;

const NS: &str = "shop";
/// The table without its later columns, and with them.
const FIRST: &str = "7";
const LATER: &str = "9";

async fn start(folder: TempDir, columns: &str) -> TestServer {
    TestServer::start_in(folder, &[("trial_table", columns)]).await
}

/// For each number a change, and an event that is none.
fn mixed(numbers: Range<u32>) -> Value {
    let pair = |n: u32| {
        let op = if n.is_multiple_of(2) { "c" } else { "u" };
        let change = json!({ "id": format!("c-{n:02}"), "ns": NS, "op": op, "collection": "users",
            "key": format!("k-{n}"), "txid": format!("t-{n}"), "version": n });
        [change, json!({ "id": format!("e-{n:02}"), "type": "order.placed", "ns": NS })]
    };
    json!({ "events": numbers.flat_map(pair).collect::<Vec<_>>() })
}

/// Sends them: how many were duplicates.
async fn duplicates(server: &TestServer, numbers: Range<u32>) -> u64 {
    let (status, reply) = server.ingest(&mixed(numbers)).await;
    assert_eq!(status, 200, "{reply}");
    reply["duplicates"].as_u64().unwrap()
}

/// So many changes were sent: each is in both tables once, with the same values.
async fn check_rows(server: &TestServer, changes: u64) {
    let events = server.rows(NS, "SELECT count(*), count(DISTINCT id) FROM events").await;
    assert_eq!(events, json!([[2 * changes, 2 * changes]]));
    let of = |table: &str| format!("SELECT id, ns, ts, op, collection, key FROM {table}");
    let copies = server.rows(NS, &format!("{} ORDER BY id", of("trial_changes"))).await;
    let changed = format!("{} WHERE op IS NOT NULL ORDER BY id", of("events"));
    assert_eq!(copies, server.rows(NS, &changed).await);
    assert_eq!(copies.as_array().unwrap().len() as u64, changes);
}

/// How far each table is: the numbers of its last row.
async fn marks(server: &TestServer) -> Vec<(String, u64)> {
    let list: Value = server.get(&format!("/v1/{NS}/tables")).await.json().await.unwrap();
    let tables = list["tables"].as_array().unwrap().iter();
    let mark = |table: &Value| {
        (table["name"].as_str().unwrap().to_owned(), table["last_seq"].as_u64().unwrap())
    };
    tables.map(mark).collect()
}

fn both(events: u64, changes: u64) -> Vec<(String, u64)> {
    vec![("events".to_owned(), events), ("trial_changes".to_owned(), changes)]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_further_table_has_its_rows_from_the_first_one_on() {
    let server = start(tempfile::tempdir().unwrap(), FIRST).await;
    // Without a row there is no table, and SQL knows it all the same.
    let plain = json!([{ "id": "e", "type": "order.placed", "ns": "plain" }]);
    assert_eq!(server.ingest(&plain).await.0, 200);
    let made = server.commit("plain").await;
    assert!(made["events"].is_u64() && made["trial_changes"].is_null(), "{made}");
    let count = "SELECT count(*) FROM trial_changes";
    assert_eq!(server.rows("plain", count).await, json!([[0]]));

    assert_eq!(duplicates(&server, 0..3).await, 0);
    check_rows(&server, 3).await;
    let mut broken = mixed(3..5);
    broken["events"].as_array_mut().unwrap().push(json!({ "id": "x", "type": "", "ns": NS }));
    assert_eq!(server.ingest_at("/ingest?atomic=true", &broken).await.0, 400);
    check_rows(&server, 3).await;
    let made = server.commit(NS).await;
    assert!(made["events"].is_u64() && made["trial_changes"].is_u64(), "{made}");
    check_rows(&server, 3).await;
    assert_eq!(marks(&server).await, both(6, 3));
    // Some in the tables and some in the log, and of those that come again none is a new row.
    assert_eq!(duplicates(&server, 0..5).await, 6);
    check_rows(&server, 5).await;
    server.commit(NS).await;
    check_rows(&server, 5).await;
    assert_eq!(marks(&server).await, both(10, 5), "what was refused has used up no number");

    // It is made as its entry says, and protected as the others are.
    let path = format!("/catalog/v1/namespaces/{NS}/tables/trial_changes");
    let table: Value = server.get(&path).await.json().await.unwrap();
    let metadata = &table["metadata"];
    assert_eq!(metadata["properties"]["icecore.managed"], "true", "{table}");
    let fields = metadata["partition-specs"][0]["fields"].as_array().unwrap().iter();
    let fields: Vec<&str> = fields.map(|field| field["name"].as_str().unwrap()).collect();
    assert_eq!(fields, ["op", "dt"]);
    let dropped = server.http.delete(format!("{}/v1/{NS}/tables/trial_changes", server.url));
    assert_eq!(dropped.send().await.unwrap().status(), 400);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_was_not_written_leaves_no_row_of_any_table() {
    let settings = [("trial_table", FIRST), ("failpoints", "wal.after_write=error@1")];
    let server = TestServer::start_in(tempfile::tempdir().unwrap(), &settings).await;
    assert_eq!(duplicates(&server, 0..2).await, 0);
    let (status, reply) = server.ingest(&mixed(2..4)).await;
    assert_eq!(status, 503, "{reply}");
    check_rows(&server, 2).await;
    assert_eq!(duplicates(&server, 0..4).await, 4);
    check_rows(&server, 4).await;
    server.commit(NS).await;
    check_rows(&server, 4).await;
    assert_eq!(marks(&server).await, both(8, 4), "what was not written has used up no number");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_further_table_outlives_the_ids_and_moves_with_a_backup() {
    let server = start(tempfile::tempdir().unwrap(), FIRST).await;
    duplicates(&server, 0..4).await;
    server.commit(NS).await;
    let folder = server.stop().await;
    fs::remove_dir_all(folder.path().join("ids")).unwrap();
    let server = start(folder, FIRST).await;
    assert_eq!(duplicates(&server, 0..5).await, 8);
    check_rows(&server, 5).await;
    server.commit(NS).await;
    assert_eq!(marks(&server).await, both(10, 5));
    assert_eq!(duplicates(&server, 5..6).await, 0);
    let folder = server.stop().await;

    let place = tempfile::tempdir().unwrap();
    let (backup, other) = (place.path().join("b1"), tempfile::tempdir().unwrap());
    json_of(&["backup", "create", text(&backup), "--data-dir", text(folder.path())]);
    json_of(&["backup", "restore", text(&backup), "--data-dir", text(other.path())]);
    let server = start(other, FIRST).await;
    check_rows(&server, 6).await;
    assert_eq!(duplicates(&server, 0..7).await, 12);
    server.commit(NS).await;
    check_rows(&server, 7).await;
    assert_eq!(marks(&server).await, both(14, 7));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn later_columns_of_a_further_table_come_with_their_first_value() {
    let server = start(tempfile::tempdir().unwrap(), FIRST).await;
    for n in 0..6 {
        duplicates(&server, 2 * n..2 * n + 2).await;
        server.commit(NS).await;
    }
    let server = start(server.stop().await, LATER).await;
    let later = "SELECT id, txid, version FROM trial_changes \
         WHERE txid IS NOT NULL OR version IS NOT NULL ORDER BY id";
    assert_eq!(server.rows(NS, later).await, json!([]));
    duplicates(&server, 12..14).await;
    let expected = json!([["c-12", "t-12", 12], ["c-13", "t-13", 13]]);
    assert_eq!(server.rows(NS, later).await, expected);
    server.commit(NS).await;
    assert_eq!(server.rows(NS, later).await, expected);
    check_rows(&server, 14).await;

    let compact = format!("/admin/jobs/compact?namespace={NS}&table=trial_changes");
    let done = server.post(&compact, "application/json", "").await;
    let done: JobReport = done.json().await.unwrap();
    assert_eq!(done.tables, 1, "{done:?}");
    assert!(done.files.after < done.files.before && done.skipped.is_empty(), "{done:?}");
    assert_eq!(server.rows(NS, later).await, expected);
    check_rows(&server, 14).await;
    assert_eq!(marks(&server).await, both(28, 14));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_between_its_tables_has_each_row_once_in_both() {
    for failpoint in [
        "flush.before_commit=abort@1",
        "flush.after_commit=abort",
        "flush.after_commit=abort@1",
        "flush.before_trim=abort@1",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let settings = [
            ("data_dir", text(folder.path())),
            ("trial_table", FIRST),
            ("wal.segment_bytes", "1MiB"),
            ("commit.interval", "10min"),
            ("failpoints", failpoint),
        ];
        let server = Process::start(&settings.map(|(key, value)| (key, value.to_owned()))).await;
        let post = |path: &str, body: String| {
            let call = reqwest::Client::new().post(format!("{}{path}", server.url));
            call.header("content-type", "application/json").body(body).send()
        };
        let sent = post("/ingest", mixed(0..4).to_string()).await.unwrap();
        assert_eq!(sent.status(), 200, "{failpoint}");
        let answer = post(&format!("/v1/{NS}/commit"), String::new()).await;
        assert!(answer.is_err(), "{failpoint}: {answer:?}");
        drop(server);

        let server = start(folder, FIRST).await;
        check_rows(&server, 4).await;
        assert_eq!(duplicates(&server, 0..5).await, 8, "{failpoint}");
        server.commit(NS).await;
        check_rows(&server, 5).await;
        assert_eq!(marks(&server).await, both(10, 5), "{failpoint}");
        server.stop().await;
    }
}
