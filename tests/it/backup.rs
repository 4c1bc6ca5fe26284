//! Backups: made under load, restored, exact; a broken one is refused.

use crate::harness::{TestServer, duplicates, events};
use serde_json::{Value, json};
use std::{
    fs,
    path::Path,
    process::{Command, Output},
};
use tempfile::TempDir;

pub(crate) const COUNT: &str = "SELECT count(*), count(DISTINCT id) FROM events";

pub(crate) fn icecore(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_icecore")).args(arguments).output().unwrap()
}

pub(crate) fn json_of(arguments: &[&str]) -> Value {
    let output = icecore(&[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

pub(crate) fn refused(arguments: &[&str]) -> String {
    let output = icecore(arguments);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap()
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

async fn create(server: &TestServer, to: &Path) -> Value {
    let (data, to, url) =
        (text(server.folder.path()).to_owned(), text(to).to_owned(), server.url.clone());
    let made = tokio::task::spawn_blocking(move || {
        json_of(&["backup", "create", &to, "--data-dir", &data, "--url", &url])
    });
    made.await.unwrap()
}

/// A restored server, and the folder that its data folder is in.
async fn restored(backup: &Path) -> (TestServer, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let done = json_of(&["backup", "restore", text(backup), "--data-dir", text(folder.path())]);
    assert!(done["files"].as_u64().unwrap() > 0, "{done}");
    let holder = tempfile::tempdir().unwrap();
    let data_dir = [("data_dir", text(folder.path()))];
    (TestServer::start_in(holder, &data_dir).await, folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_running_server_has_all_that_was_acknowledged_before() {
    let server = TestServer::start().await;
    duplicates(&server, 0..300).await;
    server.commit("shop.example").await;
    duplicates(&server, 300..500).await;
    // Of a namespace that no table has yet, and a dead letter.
    server.ingest(&json!([{ "id": "n", "type": "a", "ns": "new" }])).await;
    server.ingest(&json!([{ "id": "d", "type": "", "ns": "new" }])).await;
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("b1");
    // Others go on sending meanwhile.
    let http = server.http.clone();
    let url = format!("{}/ingest", server.url);
    let load = async move {
        for n in 0..40 {
            let body = events(1_000 + n * 10..1_010 + n * 10);
            let sent = http.post(&url).header("content-type", "application/json");
            assert_eq!(sent.body(body.to_string()).send().await.unwrap().status(), 200);
        }
    };
    let (made, ()) = tokio::join!(create(&server, &backup), load);
    assert_eq!(made["has_log"], false);
    let after = duplicates(&server, 5_000..5_100).await;
    assert_eq!(after, 0);
    let listed = json_of(&["backup", "list", "--data-dir", text(server.folder.path())]);
    assert_eq!(listed["backups"][0]["state"], "whole", "{listed}");
    assert_eq!(listed["backups"][0]["holds"], false, "{listed}");
    assert_eq!(listed["backups"][0]["id"], made["id"]);
    server.stop().await;

    let (server, _folder) = restored(&backup).await;
    let rows = server.rows("shop.example", COUNT).await;
    let (count, distinct) = (rows[0][0].as_u64().unwrap(), rows[0][1].as_u64().unwrap());
    assert!((500..=900).contains(&count) && count == distinct, "{rows}");
    assert_eq!(server.rows("new", COUNT).await, json!([[1, 1]]));
    assert_eq!(server.rows("new", "SELECT count(*) FROM dead_letters").await, json!([[1]]));
    // Everything again: what is in the backup is a duplicate, the rest is taken once.
    assert_eq!(duplicates(&server, 0..500).await, 500);
    let known = duplicates(&server, 1_000..1_400).await;
    assert_eq!(known, count - 500);
    assert_eq!(duplicates(&server, 5_000..5_100).await, 0);
    assert_eq!(server.rows("shop.example", COUNT).await, json!([[1_000, 1_000]]));
    server.commit("shop.example").await;
    assert_eq!(server.rows("shop.example", COUNT).await, json!([[1_000, 1_000]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_stopped_server_has_its_log() {
    let server = TestServer::start().await;
    duplicates(&server, 0..100).await;
    server.commit("shop.example").await;
    duplicates(&server, 100..150).await;
    let data = server.stop().await;
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("b1");
    let data_dir = ["--data-dir", text(data.path())];
    // What queries of a killed server left on disk.
    fs::create_dir_all(data.path().join("spill/0")).unwrap();
    fs::write(data.path().join("spill/0/rows"), "spilled").unwrap();
    let made = json_of(&[&["backup", "create", text(&backup)], &data_dir[..]].concat());
    assert_eq!(made["has_log"], true);
    assert!(backup.join("data/wal").exists() && !backup.join("data/spill").exists());
    // No second backup in the same folder.
    let again = refused(&[&["backup", "create", text(&backup)], &data_dir[..]].concat());
    assert!(again.contains("is not empty"), "{again}");
    let store = refused(&[&["backup", "create", "gs://bucket/b"], &data_dir[..]].concat());
    assert!(store.contains("neither a folder nor s3://"), "{store}");
    let inside = data.path().join("warehouse/b");
    let inside = refused(&[&["backup", "create", text(&inside)], &data_dir[..]].concat());
    assert!(inside.contains("is in the warehouse"), "{inside}");
    // The list of a place, and of the places below it.
    fs::create_dir(folder.path().join("b0")).unwrap();
    for place in [folder.path(), &backup] {
        let listed = json_of(&["backup", "list", text(place)]);
        let row = listed["backups"].as_array().unwrap().last().unwrap();
        assert_eq!((&row["id"], &row["state"]), (&made["id"], &json!("whole")), "{listed}");
        assert_eq!(row["files"], made["files"], "{listed}");
    }
    let listed = json_of(&["backup", "list", text(folder.path())]);
    assert_eq!(listed["backups"][0]["state"], "incomplete", "{listed}");

    let (server, _folder) = restored(&backup).await;
    assert_eq!(server.rows("shop.example", COUNT).await, json!([[150, 150]]));
    assert_eq!(duplicates(&server, 0..160).await, 150);
    server.commit("shop.example").await;
    assert_eq!(server.rows("shop.example", COUNT).await, json!([[160, 160]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_table_that_lost_a_file_is_in_nobodys_way() {
    let server = TestServer::start().await;
    duplicates(&server, 0..10).await;
    server.commit("shop.example").await;
    let schema = json!({"type": "struct", "fields": [
        {"id": 1, "name": "id", "required": false, "type": "string"}]});
    let tables = "/catalog/v1/namespaces/shop_example/tables";
    let table = json!({ "name": "lost", "schema": schema }).to_string();
    let made = server.post(tables, "application/json", table).await;
    let made: Value = made.json().await.unwrap();
    let dropped = server.http.delete(format!("{}{tables}/lost", server.url)).send().await.unwrap();
    assert_eq!(dropped.status(), 204, "{made}");
    let file = made["metadata-location"].as_str().unwrap().strip_prefix("file://").unwrap();
    fs::remove_file(file).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("b1");
    create(&server, &backup).await;
    server.stop().await;
    // The table goes along to the other place.
    let (server, _folder) = restored(&backup).await;
    assert_eq!(server.rows("shop.example", COUNT).await, json!([[10, 10]]));
    let trash: Value = server.get("/admin/dropped").await.json().await.unwrap();
    assert!(trash.to_string().contains("lost"), "{trash}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_not_whole_is_refused() {
    let server = TestServer::start().await;
    duplicates(&server, 0..100).await;
    server.commit("shop.example").await;
    let data = server.stop().await;
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("b1");
    let data_dir = ["--data-dir", text(data.path())];
    json_of(&[&["backup", "create", text(&backup), "--copy"], &data_dir[..]].concat());
    let whole = icecore(&["backup", "restore", text(&backup), "--dry-run"]);
    assert!(whole.status.success());

    // One byte of one file.
    let list: Value =
        serde_json::from_slice(&fs::read(backup.join("backup.json")).unwrap()).unwrap();
    let files: Vec<&str> =
        list["files"].as_array().unwrap().iter().map(|f| f["path"].as_str().unwrap()).collect();
    let new = folder.path().join("new");
    let restore = ["backup", "restore", text(&backup), "--data-dir", text(&new)];
    for end in [".parquet", ".avro", ".metadata.json", "icecore.db"] {
        let path = backup.join(files.iter().find(|path| path.ends_with(end)).unwrap());
        let bytes = fs::read(&path).unwrap();
        let mut damaged = bytes.clone();
        damaged[bytes.len() / 2] ^= 1;
        fs::write(&path, damaged).unwrap();
        let told = refused(&restore);
        assert!(told.contains("is not what was backed up"), "{told}");
        assert!(!new.join("icecore.db").exists());
        let _ = fs::remove_dir_all(&new);
        fs::write(&path, bytes).unwrap();
    }
    fs::remove_file(backup.join("backup.json")).unwrap();
    let told = refused(&restore);
    assert!(told.contains("not finished"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_was_killed_is_incomplete_and_keeps_files_until_it_is_forgotten() {
    let server = TestServer::start().await;
    duplicates(&server, 0..100).await;
    server.commit("shop.example").await;
    let data = server.stop().await;
    let folder = tempfile::tempdir().unwrap();
    let data_dir = ["--data-dir", text(data.path())];
    // The command is ended once it copies; now and then it is too quick.
    let mut incomplete = None;
    for n in 0..20 {
        let place = folder.path().join(format!("b{n}"));
        let mut child = Command::new(env!("CARGO_BIN_EXE_icecore"))
            .args(["backup", "create", text(&place)])
            .args(data_dir)
            .stderr(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        while !place.join("metastore").exists() && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let listed = json_of(&[&["backup", "list"], &data_dir[..]].concat());
        let rows = listed["backups"].as_array().unwrap();
        let here = |row: &&Value| row["place"].as_str().unwrap().ends_with(&format!("/b{n}"));
        if let Some(row) = rows.iter().find(here).filter(|row| row["state"] == "incomplete") {
            assert!(row["holds"].as_bool().unwrap(), "{row}");
            incomplete = Some((place, row["id"].as_str().unwrap().to_owned()));
            break;
        }
    }
    let (place, id) = incomplete.expect("one of twenty was in the middle");
    if !place.join("backup.json").exists() {
        let new = folder.path().join("new");
        let told = refused(&["backup", "restore", text(&place), "--data-dir", text(&new)]);
        assert!(told.contains("not finished"), "{told}");
    }
    // By its place or by its id.
    assert!(
        icecore(&[&["backup", "forget", text(&place), "--dry-run"], &data_dir[..]].concat())
            .status
            .success()
    );
    assert!(
        icecore(&[&["backup", "forget", text(&place)], &data_dir[..]].concat()).status.success()
    );
    let told = refused(&[&["backup", "forget", &id], &data_dir[..]].concat());
    assert!(told.contains("there is no backup"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_was_killed_is_no_data_folder() {
    let server = TestServer::start().await;
    duplicates(&server, 0..100).await;
    server.commit("shop.example").await;
    let data = server.stop().await;
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("b1");
    json_of(&["backup", "create", text(&backup), "--data-dir", text(data.path())]);
    // The command is ended once it has begun; now and then it is too quick.
    let half = (0..50).find_map(|n| {
        let new = folder.path().join(format!("new{n}"));
        let mut child = Command::new(env!("CARGO_BIN_EXE_icecore"))
            .args(["backup", "restore", text(&backup), "--data-dir", text(&new)])
            .stderr(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        while !new.join("restoring").exists() && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        new.join("restoring").exists().then_some(new)
    });
    let half = half.expect("one of fifty was in the middle");
    let told = refused(&["serve", "--listen", "127.0.0.1:0", "--data-dir", text(&half)]);
    assert!(told.contains("not finished"), "{told}");
    let looked = icecore(&["doctor", "--listen", "127.0.0.1:0", "--data-dir", text(&half)]);
    let told = String::from_utf8(looked.stdout).unwrap();
    assert!(told.contains("not finished"), "{told}");
    let restore = ["backup", "restore", text(&backup), "--data-dir", text(&half)];
    let told = refused(&restore);
    assert!(told.contains("not finished"), "{told}");
    fs::remove_dir_all(&half).unwrap();
    json_of(&restore);
    let half = [("data_dir", text(&half))];
    let server = TestServer::start_in(tempfile::tempdir().unwrap(), &half).await;
    assert_eq!(server.rows("shop.example", COUNT).await, json!([[100, 100]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_fails_says_what_it_leaves() {
    let server = TestServer::start().await;
    server.ingest(&events(0..10)).await;
    server.commit("shop.example").await;
    let data = server.stop().await;
    let folder = tempfile::tempdir().unwrap();
    let (backup, new) = (folder.path().join("b1"), folder.path().join("new"));
    json_of(&["backup", "create", text(&backup), "--copy", "--data-dir", text(data.path())]);
    let metastore = backup.join("metastore/icecore.db");
    let whole = fs::read(&metastore).unwrap();
    fs::write(&metastore, &whole[..whole.len() - 1]).unwrap();
    let restore = ["backup", "restore", text(&backup), "--data-dir", text(&new)];
    let told = refused(&restore);
    assert!(told.contains("is not what was backed up"), "{told}");
    assert!(told.contains(&format!("`{}` is left behind: remove it", text(&new))), "{told}");
    fs::write(&metastore, whole).unwrap();
    assert!(refused(&restore).contains("not finished"));
    fs::remove_dir_all(&new).unwrap();
    json_of(&restore);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_make_no_backup_leaves_nothing_of_one() {
    let guarded = crate::access::Guarded::start().await;
    let sender = json!({ "name": "s", "scopes": ["ingest:mine"] });
    let sender = guarded.token(&sender).await;
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("b1");
    let data = text(guarded.server.folder.path()).to_owned();
    let url = guarded.server.url.as_str();
    let address = url.trim_start_matches("http://");
    for more in [vec![], vec!["--url", url]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_icecore"));
        command.args(["backup", "create", text(&backup), "--data-dir", &data]).args(more);
        command.env("ICECORE_TOKEN", &sender).env("ICECORE_LISTEN", address);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
        assert!(!backup.exists());
    }
    let listed = json_of(&["backup", "list", "--data-dir", &data]);
    assert_eq!(listed["backups"], json!([]));
    guarded.server.stop().await;
}
