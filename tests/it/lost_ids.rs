//! The id index is lost: an id that is in a table or in the log is still taken once.

use crate::harness::{TestServer, duplicates};
use icecore::server::Server;
use icecore_lake::clock::Clock;
use serde_json::json;
use std::{fs, path::PathBuf};
use tempfile::TempDir;

const COUNT: &str = "SELECT count(*), count(DISTINCT id), min(seq), max(seq) FROM events";
const NOW_MS: i64 = 1_790_000_000_000;
const DAY_MS: i64 = 86_400_000;

/// The files of the id index.
fn index_files(folder: &TempDir) -> Vec<PathBuf> {
    let files = fs::read_dir(folder.path().join("ids")).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|end| end == "ids")).collect()
}

/// A log segment that is not full yet still has ids that an index file has too.
fn lose_ids_and_log(folder: &TempDir) {
    for name in ["ids", "wal"] {
        fs::remove_dir_all(folder.path().join(name)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_folder_is_rebuilt_from_tables_and_log() {
    let server = TestServer::start().await;
    duplicates(&server, 0..100).await;
    server.commit("shop.example").await;
    // Durable, but in no table yet.
    duplicates(&server, 100..150).await;
    let folder = server.stop().await;
    assert_eq!(index_files(&folder).len(), 1);
    fs::remove_dir_all(folder.path().join("ids")).unwrap();

    let server = TestServer::start_in(folder, &[]).await;
    assert_eq!(duplicates(&server, 0..200).await, 150);
    assert_eq!(server.rows("shop.example", COUNT).await, json!([[200, 200, 1, 200]]));
    server.commit("shop.example").await;
    let server = server.restart().await;
    assert_eq!(duplicates(&server, 0..200).await, 200);
    assert_eq!(server.rows("shop.example", COUNT).await, json!([[200, 200, 1, 200]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_log_the_tables_alone_tell_which_ids_were_taken() {
    let server = TestServer::start().await;
    duplicates(&server, 0..100).await;
    server.commit("shop.example").await;
    let folder = server.stop().await;
    lose_ids_and_log(&folder);
    let server = TestServer::start_in(folder, &[]).await;
    assert_eq!(duplicates(&server, 0..200).await, 100);
    // What the lost log gave out and no table has is not known, so the next `seq` is far above it.
    let count = "SELECT count(*), count(DISTINCT id), min(seq), max(seq) - min(seq) > 1000000000 \
                 FROM events";
    assert_eq!(server.rows("shop.example", count).await, json!([[200, 200, 1, true]]));
    // What the event said is not known any more, so this is a repeat and no conflict.
    let changed = json!([{ "id": "e-7", "type": "order.placed", "ns": "shop.example", "data": 1 }]);
    let (status, reply) = server.ingest(&changed).await;
    assert_eq!((status, &reply["duplicates"]), (200, &json!(1)), "{reply}");
    assert_eq!(reply["seq"], json!({ "first": 8, "last": 8 }));
    // Of what came after, it is.
    let changed =
        json!([{ "id": "e-170", "type": "order.placed", "ns": "shop.example", "data": 1 }]);
    assert_eq!(server.ingest(&changed).await.0, 400);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_refused_by_name_and_read_again_once_it_is_moved_away() {
    let server = TestServer::start().await;
    duplicates(&server, 0..100).await;
    server.commit("shop.example").await;
    let server = server.restart().await;
    duplicates(&server, 100..200).await;
    server.commit("shop.example").await;
    let folder = server.stop().await;
    let files = index_files(&folder);
    assert_eq!(files.len(), 2);
    let damaged = &files[0];
    let bytes = fs::read(damaged).unwrap();
    fs::write(damaged, &bytes[..bytes.len() - 1]).unwrap();

    let config = crate::harness::config(&folder, &[]);
    let refused = Server::start(&config, Clock::system()).await.unwrap_err();
    let mut text = String::new();
    let mut cause: Option<&dyn std::error::Error> = Some(&refused);
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    assert!(text.contains(damaged.to_str().unwrap()), "{text}");
    assert!(text.contains("move the file away and start again"), "{text}");

    fs::rename(damaged, folder.path().join("moved-away")).unwrap();
    let server = TestServer::start_in(folder, &[]).await;
    assert_eq!(duplicates(&server, 0..210).await, 200);
    assert_eq!(server.rows("shop.example", COUNT).await, json!([[210, 210, 1, 210]]));
    let folder = server.stop().await;
    // Whole again: the next start has nothing to do.
    let server = TestServer::start_in(folder, &[]).await;
    assert_eq!(duplicates(&server, 0..210).await, 210);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_older_than_the_window_are_not_loaded() {
    let clock = Clock::manual(NOW_MS);
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start_at(folder, &[], clock.clone()).await;
    duplicates(&server, 0..10).await;
    server.commit("shop.example").await;
    clock.advance_ms(6 * DAY_MS);
    duplicates(&server, 10..20).await;
    server.commit("shop.example").await;
    let folder = server.stop().await;
    lose_ids_and_log(&folder);
    clock.advance_ms(2 * DAY_MS);
    let server = TestServer::start_at(folder, &[], clock).await;
    assert_eq!(duplicates(&server, 10..20).await, 10);
    assert_eq!(duplicates(&server, 0..10).await, 0);
    server.stop().await;
}
