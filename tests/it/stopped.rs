//! What `icecore doctor` says of a server that does not run is what its start then says, and looking
//! changes nothing.

use crate::{
    harness::{TestServer, config, events, files_below},
    process::run,
    restores::copy,
};
use icecore::server::Server;
use icecore_lake::clock::Clock;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    error::Error,
    fs, iter,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// A folder with ten events in a snapshot and ten in its log.
async fn house() -> TempDir {
    let server = TestServer::start().await;
    server.ingest(&events(0..10)).await;
    server.commit("shop.example").await;
    server.ingest(&events(10..20)).await;
    server.stop().await
}

fn remove(folder: &Path, names: &[&str]) {
    for name in names {
        let path = folder.join(name);
        match path.is_dir() {
            true => fs::remove_dir_all(path).unwrap(),
            false => fs::remove_file(path).unwrap(),
        }
    }
}

/// Every file with its bytes, but for SQLite's, which moves its journal when a reader ends, and the
/// lock, which has the number of the last process.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = files_below(folder, "");
    files.retain(|path| {
        let path = path.to_str().unwrap();
        !["icecore.db", "wal/lock"].iter().any(|name| path.contains(name))
    });
    let with_bytes = files.into_iter().map(|path| {
        let bytes = fs::read(&path).unwrap();
        (path, bytes)
    });
    with_bytes.collect()
}

/// What doctor finds in the way, check by check.
fn doctor(folder: &TempDir) -> Vec<String> {
    let settings = [
        ("data_dir", folder.path().display().to_string()),
        ("listen", "127.0.0.1:0".to_owned()),
        ("wal.disk_free_min", "0".to_owned()),
    ];
    let output = run(&["doctor", "--json"], &settings, b"");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = report["checks"].as_array().unwrap().iter();
    let failed = checks.filter(|check| check["ok"] == false);
    let failed: Vec<String> =
        failed.map(|check| check["text"].as_str().unwrap().to_owned()).collect();
    assert_eq!(output.status.code(), Some(i32::from(!failed.is_empty())), "{report}");
    failed
}

/// What a start says that fails, or the server that it starts; none when that is ready.
async fn start(folder: &TempDir) -> Option<String> {
    let server = match Server::start(&config(folder, &[]), Clock::system()).await {
        Err(cause) => {
            let chain = iter::successors(Some(&cause as &dyn Error), |cause| (*cause).source());
            return Some(chain.map(ToString::to_string).collect::<Vec<_>>().join(": "));
        }
        Ok(server) => server,
    };
    let answer = reqwest::get(format!("http://{}/readyz", server.address())).await.unwrap();
    let told = match answer.status().as_u16() {
        200 => None,
        _ => answer.json::<Value>().await.unwrap()["error"].as_str().map(str::to_owned),
    };
    server.stop().await;
    told
}

/// Breaks a folder; doctor and start say this of it, or nothing.
async fn check(spoil: impl FnOnce(&Path), expected: Option<&str>) {
    let folder = house().await;
    spoil(folder.path());
    let before = files(folder.path());
    let found = doctor(&folder);
    assert!(files(folder.path()) == before, "{found:?}");
    let told = start(&folder).await;
    match expected {
        None => assert_eq!((found, told), (Vec::new(), None)),
        Some(part) => {
            let told = told.unwrap_or_default();
            assert!(told.contains(part), "`{part}` in: {told}");
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(told.contains(&found[0]), "{} in: {told}", found[0]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_finds_what_a_start_would_find() {
    check(|_| (), None).await;
    check(|folder| remove(folder, &["marks"]), None).await;
    check(|folder| remove(folder, &["ids"]), None).await;
    check(|folder| remove(folder, &["wal"]), Some("seq 11..20")).await;
    check(|folder| remove(folder, &["icecore.db"]), Some("is not the one that this server used"))
        .await;
    check(|folder| remove(folder, &["icecore.db", "marks"]), Some("is new and has no tables"))
        .await;
    let lacks = "the warehouse lacks files that the metastore references";
    check(|folder| remove(folder, &["warehouse"]), Some(lacks)).await;
    check(|folder| remove(folder, &["warehouse", "ids"]), Some(lacks)).await;
    let empty = |folder: &Path| fs::write(folder.join("wal/identity"), "").unwrap();
    check(empty, Some("wal/identity` is damaged")).await;
}

/// The newest metadata file of each table, called as the metastore calls it.
fn newest_metadata(folder: &Path) -> Vec<String> {
    let mut newest = BTreeMap::new();
    // In the order of their names, which begin with a number of five digits.
    for (path, _) in files(&folder.join("warehouse")) {
        let text = path.to_str().unwrap();
        if text.ends_with(".metadata.json") {
            newest.insert(path.parent().unwrap().to_owned(), format!("file://{text}"));
        }
    }
    newest.into_values().collect()
}

/// Puts the metastore in place as another folder has it, or removes it.
fn put_metastore(folder: &Path, from: Option<&Path>) {
    for name in ["icecore.db", "icecore.db-wal", "icecore.db-shm"] {
        let path = folder.join(name);
        if path.exists() {
            fs::remove_file(&path).unwrap();
        }
        if let Some(from) = from.map(|from| from.join(name)).filter(|from| from.exists()) {
            fs::copy(from, path).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_metastore_that_is_gone_or_too_old_names_the_newest_metadata_files() {
    const NEWER: &str = "metadata files that it does not know, or newer ones than it knows: ";
    for (is_older, is_noted, part) in [
        (true, true, "is older than the data"),
        (false, true, "is not the one that this server used"),
        (false, false, "is new and has no tables"),
    ] {
        let folder = house().await;
        let older = tempfile::tempdir().unwrap();
        copy(folder.path(), older.path());
        let first = newest_metadata(folder.path());
        let server = TestServer::start_in(folder, &[]).await;
        server.commit("shop.example").await;
        let folder = server.stop().await;
        let newest = newest_metadata(folder.path());
        assert_eq!((first.len(), newest.len()), (1, 1), "{first:?} {newest:?}");
        assert_ne!(first, newest);

        put_metastore(folder.path(), is_older.then(|| older.path()));
        if !is_noted {
            remove(folder.path(), &["marks"]);
        }
        let found = doctor(&folder);
        let told = start(&folder).await.unwrap_or_default();
        for told in [found.join("\n"), told] {
            assert!(told.contains(part), "`{part}` in: {told}");
            assert!(told.contains(&format!("{NEWER}{}", newest[0])), "{part}: {told}");
            assert!(!told.contains(&first[0]), "{part}: {told}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_metastore_is_right_no_metadata_files_are_named() {
    let folder = house().await;
    remove(folder.path(), &["wal"]);
    for told in [doctor(&folder).join("\n"), start(&folder).await.unwrap()] {
        assert!(told.contains("seq 11..20") && !told.contains(".metadata.json"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_finds_that_a_folder_was_copied() {
    let folder = house().await;
    let copied = tempfile::tempdir().unwrap();
    copy(folder.path(), copied.path());
    let before = files(copied.path());
    let found = doctor(&copied);
    assert!(files(copied.path()) == before, "{found:?}");
    assert_eq!(found, [start(&copied).await.unwrap()]);
    assert!(found[0].contains("icecore catalog relocate"), "{found:?}");
    assert_eq!(doctor(&folder), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_identity_is_damaged_is_said_to_be_which() {
    let folder = house().await;
    let identity = folder.path().join("wal/identity");
    let was = fs::read_to_string(&identity).unwrap();
    fs::write(&identity, b"\xff\n").unwrap();
    let told = start(&folder).await.unwrap();
    let line = format!("restore this file, or write this line into it: {}", was.trim());
    assert!(told.contains(&line), "{told}");
    fs::write(&identity, was.trim()).unwrap();
    assert_eq!(start(&folder).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_that_cannot_be_rebuilt_yet_keep_events_out_until_a_restart() {
    let folder = house().await;
    let away = tempfile::tempdir().unwrap();
    remove(folder.path(), &["ids"]);
    fs::rename(folder.path().join("warehouse"), away.path()).unwrap();
    let server = TestServer::start_in(folder, &[]).await;
    let (status, reply) = server.ingest(&events(0..30)).await;
    let told = reply["error"].as_str().unwrap();
    assert_eq!(status, 503, "{reply}");
    for part in ["the id index is lost", ".metadata.json", "restart the server"] {
        assert!(told.contains(part), "`{part}` in: {told}");
    }
    let folder = server.stop().await;
    remove(folder.path(), &["warehouse"]);
    copy(away.path(), &folder.path().join("warehouse"));
    let server = TestServer::start_in(folder, &[]).await;
    let (status, reply) = server.ingest(&events(0..30)).await;
    assert_eq!((status, &reply["duplicates"]), (200, &serde_json::json!(20)), "{reply}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_is_not_accepted_while_the_warehouse_is_gone() {
    let folder = house().await;
    let away = tempfile::tempdir().unwrap();
    fs::rename(folder.path().join("warehouse"), away.path()).unwrap();
    let settings = [("data_dir", folder.path().display().to_string())];
    let accept = |more: &[&str]| {
        let output = run(&[&["wal", "accept-loss", "--all"], more].concat(), &settings, b"");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    for (more, code) in [(&["--dry-run"][..], 0), (&["--json"], 1), (&[], 1)] {
        let (found, told) = accept(more);
        assert_eq!(found, Some(code), "{told}");
        assert!(!told.contains("nothing is missing"), "{told}");
        assert!(told.contains("the warehouse lacks files that the metastore references"), "{told}");
        assert!(told.contains("restore the newer warehouse"), "{told}");
        assert!(!folder.path().join("warehouse").exists());
    }
    fs::rename(away.path(), folder.path().join("warehouse")).unwrap();
    let (code, told) = accept(&[]);
    assert_eq!((code, told.contains("nothing is missing")), (Some(0), true), "{told}");
    assert_eq!(start(&folder).await, None);
}
