//! Backups of a metastore in PostgreSQL: made under load, restored to either database, exact.

use crate::{
    backup::{COUNT, json_of, refused, text},
    harness::{TestServer, duplicates, events},
    postgres::Databases,
};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use tempfile::TempDir;

/// A server whose metastore is a database of its own.
struct Lake {
    databases: Databases,
    server: TestServer,
}

impl Lake {
    async fn start() -> Option<Self> {
        let databases = Databases::new("backup").await?;
        databases.make("folder").await;
        let url = databases.url("folder");
        let folder = tempfile::tempdir().unwrap();
        let server = TestServer::start_in(folder, &[("metastore", &url)]).await;
        Some(Self { databases, server })
    }

    async fn create(&self, to: &Path, more: &[&str]) -> Value {
        let mut arguments = vec!["backup", "create", text(to)];
        arguments.extend(more);
        run(&arguments, self.server.folder.path(), &self.databases.url("folder")).await
    }
}

/// The answer of a command that must succeed.
async fn run(arguments: &[&str], data_dir: &Path, metastore: &str) -> Value {
    let mut arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
    let settings = ["--data-dir", text(data_dir), "--metastore", metastore];
    arguments.extend(settings.map(str::to_owned));
    let done = tokio::task::spawn_blocking(move || {
        json_of(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    });
    done.await.unwrap()
}

/// A server on what was restored. Without a database its metastore is an SQLite file.
async fn restored(backup: &Path, metastore: Option<&str>) -> (TestServer, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = format!("sqlite://{}/icecore.db", folder.path().display());
    let metastore = metastore.unwrap_or(&file);
    run(&["backup", "restore", text(backup)], folder.path(), metastore).await;
    let settings = [("data_dir", text(folder.path())), ("metastore", metastore)];
    let server = TestServer::start_in(tempfile::tempdir().unwrap(), &settings).await;
    assert_eq!(server.get("/readyz").await.status(), 200);
    (server, folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_running_server_on_postgres_has_all_that_was_acknowledged_before() {
    let Some(lake) = Lake::start().await else { return };
    let Lake { databases, server } = &lake;
    duplicates(server, 0..300).await;
    server.commit("shop.example").await;
    duplicates(server, 300..500).await;
    server.ingest(&json!([{ "id": "n", "type": "a", "ns": "new" }])).await;
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("b1");
    // Others go on sending and committing meanwhile.
    let load = async {
        for n in 0..60 {
            let (status, _) = server.ingest(&events(1_000 + n * 10..1_010 + n * 10)).await;
            assert_eq!(status, 200);
            if n % 5 == 0 {
                server.commit("shop.example").await;
            }
        }
    };
    let url = ["--url", &*server.url];
    let (made, ()) = tokio::join!(lake.create(&backup, &url), load);
    assert_eq!(made["has_log"], false);
    duplicates(server, 5_000..5_100).await;
    server.commit("shop.example").await;
    let listed = run(&["backup", "list"], server.folder.path(), &databases.url("folder")).await;
    assert_eq!(listed["backups"][0]["state"], "whole", "{listed}");
    assert_eq!(listed["backups"][0]["holds"], false, "{listed}");

    databases.make("other").await;
    let url = databases.url("other");
    for metastore in [Some(&*url), None] {
        let (server, _folder) = restored(&backup, metastore).await;
        let rows = server.rows("shop.example", COUNT).await;
        let (count, distinct) = (rows[0][0].as_u64().unwrap(), rows[0][1].as_u64().unwrap());
        assert!((500..=1_100).contains(&count) && count == distinct, "{rows}");
        assert_eq!(server.rows("new", COUNT).await, json!([[1, 1]]));
        // Everything again: what is in the backup is a duplicate, the rest is taken once.
        assert_eq!(duplicates(&server, 0..500).await, 500);
        assert_eq!(duplicates(&server, 1_000..1_600).await, count - 500);
        assert_eq!(duplicates(&server, 5_000..5_100).await, 0);
        server.commit("shop.example").await;
        let numbers = "SELECT count(*), count(DISTINCT id), count(DISTINCT seq) FROM events";
        assert_eq!(server.rows("shop.example", numbers).await, json!([[1_200, 1_200, 1_200]]));
        server.stop().await;
    }
    // The server that was backed up is as it was.
    assert_eq!(server.rows("shop.example", COUNT).await, json!([[1_200, 1_200]]));
    lake.server.stop().await;
    lake.databases.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_stopped_server_on_postgres_has_its_log() {
    let Some(lake) = Lake::start().await else { return };
    duplicates(&lake.server, 0..100).await;
    lake.server.commit("shop.example").await;
    duplicates(&lake.server, 100..150).await;
    let Lake { databases, server } = lake;
    let (data, url) = (server.stop().await, databases.url("folder"));
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("b1");
    // The data folder of another server has not the log.
    let other = folder.path().join("other");
    let create = ["backup", "create", text(&backup), "--metastore", &url];
    let told = refused(&[&create[..], &["--data-dir", text(&other)]].concat());
    assert!(told.contains("name the running server with --url"), "{told}");
    let made = run(&["backup", "create", text(&backup)], data.path(), &url).await;
    assert_eq!(made["has_log"], true);

    // A database in use is refused before anything is written.
    let new = folder.path().join("new");
    let told = refused(&[
        "backup",
        "restore",
        text(&backup),
        "--data-dir",
        text(&new),
        "--metastore",
        &url,
    ]);
    assert!(told.contains("has a metastore already") && !new.exists(), "{told}");
    // So is a damaged copy of the metastore, and then the database stays empty.
    databases.make("other").await;
    let copy = backup.join("metastore/icecore.db");
    let bytes = fs::read(&copy).unwrap();
    let mut damaged = bytes.clone();
    damaged[bytes.len() / 2] ^= 1;
    fs::write(&copy, damaged).unwrap();
    let other = databases.url("other");
    let restore =
        ["backup", "restore", text(&backup), "--data-dir", text(&new), "--metastore", &other];
    let told = refused(&restore);
    assert!(told.contains("is not what was backed up"), "{told}");
    fs::write(&copy, bytes).unwrap();
    fs::remove_dir_all(&new).unwrap();

    for metastore in [Some(&*other), None] {
        let (server, _folder) = restored(&backup, metastore).await;
        assert_eq!(server.rows("shop.example", COUNT).await, json!([[150, 150]]));
        assert_eq!(duplicates(&server, 0..160).await, 150);
        server.commit("shop.example").await;
        assert_eq!(server.rows("shop.example", COUNT).await, json!([[160, 160]]));
        server.stop().await;
    }
    databases.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_sqlite_is_restored_to_postgres() {
    let Some(databases) = Databases::new("backup").await else { return };
    databases.make("folder").await;
    let server = TestServer::start().await;
    duplicates(&server, 0..100).await;
    server.commit("shop.example").await;
    duplicates(&server, 100..150).await;
    let data = server.stop().await;
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("b1");
    json_of(&["backup", "create", text(&backup), "--data-dir", text(data.path())]);
    let url = databases.url("folder");
    let (server, _folder) = restored(&backup, Some(&url)).await;
    assert_eq!(duplicates(&server, 0..160).await, 150);
    server.commit("shop.example").await;
    assert_eq!(server.rows("shop.example", COUNT).await, json!([[160, 160]]));
    server.stop().await;
    databases.remove().await;
}

/// Runs a command and ends it with `kill -9` as soon as a file is there, or it has ended itself.
fn kill_at(arguments: &[&str], file: &Path) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_icecore"))
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while !file.exists() && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// How often a command may end before it is killed.
const TRIES_MAX: usize = 20;

/// A backup that was ended while the rows of the database were read.
async fn killed_backup(folder: &Path, data: &Path, url: &str) -> PathBuf {
    for tries in 0..TRIES_MAX {
        let name = format!("killed-{tries}");
        let place = folder.join(&name);
        let own = ["--data-dir", text(data), "--metastore", url];
        let create = [&["backup", "create", text(&place)], &own[..]].concat();
        kill_at(&create, &place.join("metastore/icecore.db"));
        let listed = run(&["backup", "list"], data, url).await;
        let mut rows = listed["backups"].as_array().unwrap().iter();
        let row = rows.find(|row| row["place"].as_str().unwrap().ends_with(&name)).unwrap();
        if row["state"] == "incomplete" {
            assert_eq!(row["holds"], true, "{listed}");
            return place;
        }
    }
    panic!("each of them ended before it was killed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_or_a_restore_on_postgres_that_was_killed_is_made_again() {
    let Some(lake) = Lake::start().await else { return };
    duplicates(&lake.server, 0..100).await;
    lake.server.commit("shop.example").await;
    let Lake { databases, server } = lake;
    let (data, url) = (server.stop().await, databases.url("folder"));
    let folder = tempfile::tempdir().unwrap();
    let killed = killed_backup(folder.path(), data.path(), &url).await;
    let told = refused(&["backup", "restore", text(&killed), "--data-dir", text(&killed)]);
    assert!(told.contains("not finished"), "{told}");
    let backup = folder.path().join("whole");
    run(&["backup", "create", text(&backup)], data.path(), &url).await;

    // At the begin, and while the rows are written to the database.
    for at in ["restoring", "metastore.restored", "metastore.restored-wal"] {
        databases.make("other").await;
        let other = databases.url("other");
        let new = folder.path().join("new");
        let to = ["--data-dir", text(&new), "--metastore", &other];
        let restore = [&["backup", "restore", text(&backup)], &to[..]].concat();
        for tries in 0.. {
            kill_at(&restore, &new.join(at));
            if new.join("restoring").exists() {
                break;
            }
            assert!(tries < TRIES_MAX, "it was too quick at `{at}`");
            fs::remove_dir_all(&new).unwrap();
            databases.make("other").await;
        }
        let told = refused(&[&["serve", "--listen", "127.0.0.1:0"], &to[..]].concat());
        assert!(told.contains("not finished"), "{told}");
        fs::remove_dir_all(&new).unwrap();
        // The database is as it was, or has all of it.
        let output = Command::new(env!("CARGO_BIN_EXE_icecore")).args(&restore).output().unwrap();
        if !output.status.success() {
            let told = String::from_utf8_lossy(&output.stderr);
            assert!(told.contains("has a metastore already"), "{told}");
            databases.make("other").await;
            json_of(&restore);
        }
        let settings = [("data_dir", text(&new)), ("metastore", &other)];
        let server = TestServer::start_in(tempfile::tempdir().unwrap(), &settings).await;
        assert_eq!(duplicates(&server, 0..110).await, 100);
        assert_eq!(server.rows("shop.example", COUNT).await, json!([[110, 110]]));
        server.stop().await;
        fs::remove_dir_all(&new).unwrap();
    }
    databases.remove().await;
}
