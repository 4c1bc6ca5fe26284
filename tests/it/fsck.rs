//! `icecore fsck`: a table that is whole is said to be, and each kind of damage is found.

use crate::{
    admin::icecore,
    harness::{TestServer, events, files_below},
    postgres::Databases,
    process::run,
};
use icecore_schemas::fsck::{FindingKind, FsckReport};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};

const NAMESPACE: &str = "shop.example";

async fn fsck(server: &TestServer, query: &str) -> FsckReport {
    let answer = server.post(&format!("/admin/fsck{query}"), "application/json", "").await;
    let (status, text) = (answer.status(), answer.text().await.unwrap());
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// The kinds of damage of all tables, each once.
async fn damage(server: &TestServer, query: &str) -> Vec<&'static str> {
    let report = fsck(server, query).await;
    let all = report.tables.iter().flat_map(|table| &table.damage);
    let mut kinds: Vec<&str> = all.map(|finding| finding.kind.name()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(report.whole, kinds.is_empty(), "{report:?}");
    kinds
}

fn data_files(server: &TestServer) -> Vec<PathBuf> {
    files_below(&server.folder.path().join("warehouse"), ".parquet")
}

/// Commits, a compaction, dead letters, a view, a table of somebody else.
async fn fill(server: &TestServer) {
    for start in [0, 40, 80] {
        let (status, reply) = server.ingest(&events(start..start + 40)).await;
        assert_eq!(status, 200, "{reply}");
        server.commit(NAMESPACE).await;
    }
    let refused = json!({ "events": [{ "ns": NAMESPACE }, { "ns": NAMESPACE, "type": "fine" }] });
    server.ingest(&refused).await;
    server.commit(NAMESPACE).await;
    let compact = server.post("/admin/jobs/compact", "application/json", "").await;
    assert_eq!(compact.status(), 200);
    let (status, reply) = server.ingest(&events(120..130)).await;
    assert_eq!(status, 200, "{reply}");
    server.commit(NAMESPACE).await;
    let at = "/catalog/v1/namespaces/shop_example";
    let column = json!({ "id": 1, "name": "x", "type": "long", "required": false });
    let schema = json!({ "type": "struct", "schema-id": 0, "fields": [column] });
    let table = json!({ "name": "theirs", "schema": schema });
    let made = server.post(&format!("{at}/tables"), "application/json", table.to_string()).await;
    assert_eq!(made.status(), 200, "{}", made.text().await.unwrap());
    let shown = json!({ "type": "sql", "sql": "SELECT 1", "dialect": "duckdb" });
    let version = json!({
        "version-id": 1, "timestamp-ms": 1_700_000_000_000_i64, "schema-id": 0, "summary": {},
        "default-namespace": ["shop_example"], "representations": [shown],
    });
    let view = json!({ "name": "v", "schema": schema, "view-version": version, "properties": {} });
    let made = server.post(&format!("{at}/views"), "application/json", view.to_string()).await;
    assert_eq!(made.status(), 200, "{}", made.text().await.unwrap());
}

async fn check_whole(server: &TestServer) {
    fill(server).await;
    for query in ["", "?quick=true"] {
        let report = fsck(server, query).await;
        assert!(report.whole, "{report:?}");
        let names: Vec<&str> = report.tables.iter().map(|table| table.table.as_str()).collect();
        let expected = ["shop_example.dead_letters", "shop_example.events", "shop_example.theirs"];
        assert_eq!(names, expected);
        let events = &report.tables[1];
        assert_eq!((events.rows, events.foreign_rows), (131, 0), "{events:?}");
        assert!(events.gaps.is_empty() && events.notes.is_empty(), "{events:?}");
        assert!(4 < events.snapshots && 0 < events.bytes, "{events:?}");
    }
    let one = fsck(server, "?namespace=shop.example&table=events").await;
    assert_eq!((one.whole, one.tables.len()), (true, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warehouse_that_is_whole_is_said_to_be() {
    let server = TestServer::start().await;
    check_whole(&server).await;
    let (done, text) = icecore(&server, &["fsck"]);
    assert!(done && text.contains("shop_example.events: whole, "), "{text}");
    assert!(text.contains("3 of 3 tables whole"), "{text}");
    let (done, text) = icecore(&server, &["fsck", "--quick", "--json", "--ns", NAMESPACE]);
    let report: FsckReport = serde_json::from_str(&text).unwrap();
    assert!(done && report.whole, "{text}");
    server.stop().await;
}

/// Runs `icecore fsck`: the exit code, what it printed, and what it said beside.
fn fsck_command(url: &str, words: &[&str]) -> (Option<i32>, String, String) {
    let output = run(&[&["fsck", "--url", url][..], words].concat(), &[], b"");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_tells_damage_from_a_check_that_did_not_end_and_from_wrong_usage() {
    let server = TestServer::start().await;
    let (status, reply) = server.ingest(&events(0..20)).await;
    assert_eq!(status, 200, "{reply}");
    server.commit(NAMESPACE).await;
    let (code, text, said) = fsck_command(&server.url, &["--json"]);
    let report: FsckReport = serde_json::from_str(&text).unwrap();
    assert_eq!((code, report.whole), (Some(0), true), "{text}{said}");

    let files = data_files(&server);
    let lost = files[0].file_name().unwrap().to_str().unwrap();
    fs::remove_file(&files[0]).unwrap();
    for words in [&["--json"][..], &["--json", "--quick"]] {
        let (code, text, said) = fsck_command(&server.url, words);
        let report: FsckReport = serde_json::from_str(&text).unwrap();
        assert_eq!((code, report.whole), (Some(1), false), "{text}");
        let finding = &report.tables[0].damage[0];
        assert_eq!(finding.kind, FindingKind::Missing);
        assert!(finding.file.as_ref().is_some_and(|file| file.ends_with(lost)), "{finding:?}");
        assert!(said.contains("of 1 table 1 is damaged"), "{said}");
    }

    // Nothing is printed where no check ended.
    let (code, text, said) = fsck_command(&server.url, &["--json", "--ns", "nobody"]);
    assert_eq!((code, text.as_str()), (Some(1), ""), "{said}");
    let (code, text, said) = fsck_command("http://127.0.0.1:1", &["--json"]);
    assert_eq!((code, text.as_str()), (Some(1), ""), "{said}");
    assert!(said.contains("no answer from http://127.0.0.1:1"), "{said}");
    let (code, text, said) = fsck_command(&server.url, &["--json", "--rows"]);
    assert_eq!((code, text.as_str()), (Some(2), ""), "{said}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_a_postgres_metastore_are_checked_the_same_way() {
    let Some(databases) = Databases::new("fsck").await else { return };
    databases.make("folder").await;
    let url = databases.url("folder");
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start_in(folder, &[("metastore", url.as_str())]).await;
    check_whole(&server).await;
    server.stop().await;
    databases.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_not_there_is_told_at_once() {
    let server = TestServer::start().await;
    server.ingest(&events(0..2)).await;
    server.commit(NAMESPACE).await;
    for query in ["?namespace=nobody", "?namespace=shop.example&table=event", "?table=event"] {
        let answer = server.post(&format!("/admin/fsck{query}"), "application/json", "").await;
        assert_eq!(answer.status(), 404, "{query}");
    }
    let answer = server.post("/admin/fsck?tables=x", "application/json", "").await;
    assert_eq!(answer.status(), 400);
    let (done, text) = icecore(&server, &["fsck", "--ns", "nobody"]);
    assert!(!done && text.contains("nobody") && !text.contains("whole"), "{text}");
    server.stop().await;
}

/// Puts a file back that was changed.
fn restore(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_file_that_is_not_as_it_was_is_found() {
    let server = TestServer::start().await;
    server.ingest(&events(0..200)).await;
    server.commit(NAMESPACE).await;
    let files = data_files(&server);
    assert_eq!(files.len(), 2, "one for each type");
    let (one, other) = (fs::read(&files[0]).unwrap(), fs::read(&files[1]).unwrap());

    fs::remove_file(&files[0]).unwrap();
    assert_eq!(damage(&server, "").await, ["missing"]);
    assert_eq!(damage(&server, "?quick=true").await, ["missing"]);
    let (done, text) = icecore(&server, &["fsck"]);
    assert!(!done && text.contains("shop_example.events: DAMAGED"), "{text}");
    assert!(text.contains("damage: missing: the data file is not there; file "), "{text}");
    assert!(text.contains("icecore: of 1 table 1 is damaged"), "{text}");

    restore(&files[0], &one[..one.len() - 7]);
    assert_eq!(damage(&server, "?quick=true").await, ["size"]);

    // A footer ends in the length and the mark of the format.
    let mut torn = one.clone();
    torn[one.len() - 4..].fill(0);
    restore(&files[0], &torn);
    assert_eq!(damage(&server, "?quick=true").await, ["footer"]);

    // In the longest page: the footer is whole, and the page is not.
    let page = page(&one);
    let mut flipped = one.clone();
    flipped[page] ^= 0x10;
    restore(&files[0], &flipped);
    assert_eq!(damage(&server, "?quick=true").await, [""; 0]);
    assert_eq!(damage(&server, "").await, ["rows"]);

    // Each is a whole Parquet file.
    restore(&files[0], &other);
    restore(&files[1], &one);
    let found = damage(&server, "").await;
    assert!(!found.is_empty(), "{found:?}");
    if one.len() == other.len() {
        assert!(found.contains(&"partition"), "{found:?}");
    }

    restore(&files[0], &one);
    restore(&files[1], &other);
    assert_eq!(damage(&server, "").await, [""; 0]);
    server.stop().await;
}

/// A byte in the middle of the longest compressed page.
fn page(bytes: &[u8]) -> usize {
    let magic = [0x28, 0xb5, 0x2f, 0xfd];
    let starts = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(&magic));
    let frames = starts.filter_map(|at| {
        let length = zstd::zstd_safe::find_frame_compressed_size(&bytes[at..]).ok()?;
        Some((length, at))
    });
    let (length, at) = frames.max().expect("a compressed page");
    at + length / 2
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_that_is_not_as_it_was_is_found() {
    let server = TestServer::start().await;
    server.ingest(&events(0..20)).await;
    server.commit(NAMESPACE).await;
    let warehouse = server.folder.path().join("warehouse");
    let is_list = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("snap-");
    let avro = files_below(&warehouse, ".avro").into_iter();
    let (lists, manifests): (Vec<PathBuf>, Vec<PathBuf>) = avro.partition(is_list);
    let metadata = files_below(&warehouse, ".metadata.json");
    assert!(!lists.is_empty() && !manifests.is_empty() && !metadata.is_empty());
    for (file, gone, torn) in [
        (&lists[0], "missing", "manifest-list"),
        (&manifests[0], "missing", "manifest"),
        (metadata.last().unwrap(), "metadata", "metadata"),
    ] {
        let bytes = fs::read(file).unwrap();
        fs::remove_file(file).unwrap();
        assert_eq!(damage(&server, "?quick=true").await, [gone], "{}", file.display());
        let mut other = bytes.clone();
        let middle = other.len() / 2;
        other[middle..].fill(0xff);
        restore(file, &other);
        assert_eq!(damage(&server, "?quick=true").await, [torn], "{}", file.display());
        restore(file, &bytes);
        assert_eq!(damage(&server, "?quick=true").await, [""; 0], "{}", file.display());
    }
    // Damage of one table leaves the others checked.
    let other = json!({ "events": [{ "id": "o", "type": "t", "ns": "other" }] });
    server.ingest(&other).await;
    server.commit("other").await;
    fs::remove_file(&manifests[0]).unwrap();
    let report = fsck(&server, "").await;
    let state: Vec<(&str, bool)> =
        report.tables.iter().map(|table| (table.table.as_str(), table.is_whole())).collect();
    assert_eq!(state, [("other.events", true), ("shop_example.events", false)]);
    let finding = &report.tables[1].damage[0];
    assert_eq!(finding.kind, FindingKind::Missing);
    assert!(finding.snapshot.is_some() && finding.file.is_some(), "{finding:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warehouse_that_is_away_is_an_error() {
    let server = TestServer::start().await;
    server.ingest(&events(0..2)).await;
    server.commit(NAMESPACE).await;
    let (warehouse, away) =
        (server.folder.path().join("warehouse"), server.folder.path().join("away"));
    fs::rename(&warehouse, &away).unwrap();
    let answer = server.post("/admin/fsck", "application/json", "").await;
    assert_eq!(answer.status(), 503);
    let answer: Value = answer.json().await.unwrap();
    assert!(answer["error"].as_str().unwrap().contains("warehouse"), "{answer}");
    fs::rename(&away, &warehouse).unwrap();
    assert_eq!(damage(&server, "").await, [""; 0]);
    server.stop().await;
}
