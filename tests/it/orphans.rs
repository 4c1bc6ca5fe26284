//! Removal of files that nothing names: the answer, and servers that die in it.

use crate::{
    harness::{TestServer, events},
    process::post_and_die,
};
use icecore_lake::{clock::Clock, faults::POINTS};
use icecore_schemas::jobs::JobReport;
use serde_json::json;
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

const HOUR_MS: i64 = 60 * 60 * 1000;
/// No run but those by hand.
const BY_HAND: &[(&str, &str)] = &[("orphans.cron", "")];
const COUNT: &str = "SELECT count(*) FROM events";

async fn run(server: &TestServer, query: &str) -> JobReport {
    let path = format!("/admin/jobs/orphans{query}");
    let answer = server.post(&path, "application/json", "").await;
    assert_eq!(answer.status(), 200, "{query}");
    answer.json().await.unwrap()
}

/// The folders of data files below a folder.
fn data_folders(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(data_folders(&path));
            found.extend(path.ends_with("data").then_some(path));
        }
    }
    found
}

/// Leaves a file in the only table that was written at this time.
fn leave(folder: &Path, name: &str, time_ms: i64) {
    let folders = data_folders(&folder.join("warehouse"));
    assert_eq!(folders.len(), 1, "{folders:?}");
    let path = folders[0].join(name);
    let file = File::create(&path).unwrap();
    file.set_modified(UNIX_EPOCH + Duration::from_millis(time_ms.unsigned_abs())).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_are_removed_by_hand_and_counted_by_a_dry_run() {
    let now_ms = Clock::system().now_ms();
    let clock = Clock::manual(now_ms);
    let server = TestServer::start_at(tempfile::tempdir().unwrap(), BY_HAND, clock.clone()).await;
    let (status, reply) = server.ingest(&events(0..20)).await;
    assert_eq!(status, 200, "{reply}");
    server.commit("shop.example").await;
    leave(server.folder.path(), "left.parquet", now_ms - 48 * HOUR_MS);
    leave(server.folder.path(), "young.parquet", now_ms);
    leave(server.folder.path(), "notes.txt", now_ms);
    for query in ["?dry_run=true", "", "?namespace=shop.example&table=events", "?dry_run=true"] {
        let report = run(&server, query).await;
        assert_eq!((report.files.before, report.files.after, report.tables), (1, 1, 0), "{query}");
        assert_eq!(report.skipped.len(), 1, "{report:?}");
        assert!(report.skipped[0].reason.contains("notes.txt"), "{report:?}");
    }
    for nobody in ["?table=other", "?namespace=nobody"] {
        let path = format!("/admin/jobs/orphans{nobody}");
        let answer = server.post(&path, "application/json", "").await;
        assert_eq!(answer.status(), 404, "{nobody}");
    }
    clock.advance_ms(24 * HOUR_MS);
    let dry = run(&server, "?dry_run=true").await;
    assert_eq!((dry.files.before, dry.files.after, dry.tables), (2, 1, 0));
    let done = run(&server, "").await;
    assert_eq!((done.job.as_str(), done.rows), ("orphans", 0));
    assert_eq!((done.files.before, done.files.after, done.tables), (2, 1, 1));
    assert_eq!(server.rows("shop.example", COUNT).await, json!([[20]]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_in_the_removal_of_orphans_loses_no_row() {
    let now_ms = Clock::system().now_ms();
    let clock = Clock::manual(now_ms - 30 * HOUR_MS);
    let server = TestServer::start_at(tempfile::tempdir().unwrap(), BY_HAND, clock).await;
    let (status, reply) = server.ingest(&events(0..20)).await;
    assert_eq!(status, 200, "{reply}");
    server.commit("shop.example").await;
    leave(server.folder.path(), "left.parquet", now_ms - 60 * HOUR_MS);
    assert_eq!(run(&server, "").await.files.after, 1);
    let folder = server.stop().await;
    for point in POINTS.iter().filter(|point| point.starts_with("orphans.")) {
        let (script, path) = (format!("{point}=abort"), "/admin/jobs/orphans");
        post_and_die(folder.path(), &script, path, String::new()).await;
    }
    let server = TestServer::start_at(folder, BY_HAND, Clock::manual(now_ms + HOUR_MS)).await;
    // What the last of them queued is the queue's.
    assert_eq!(run(&server, "").await.files.before, 0);
    assert_eq!(server.rows("shop.example", COUNT).await, json!([[20]]));
    server.stop().await;
}

#[test]
fn no_setting_undercuts_a_day() {
    let grace = |value: &str| {
        let flags = [("orphans.grace", value.to_owned())];
        icecore::config::Config::from_sources(None, Vec::new(), &flags)
    };
    assert!(grace("24h").is_ok() && grace("7d").is_ok());
    let refused = grace("23h").unwrap_err().to_string();
    assert!(refused.contains("orphans.grace") && refused.contains("minimum"), "{refused}");
}
