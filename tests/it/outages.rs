//! The warehouse or the metastore goes while the server runs: what it says, and that it goes on once
//! it is back.

use crate::{
    harness::{TestServer, events, files_below},
    postgres::{DatabaseRoute, Databases},
    restores::copy,
};
use serde_json::json;
use std::{fs, path::PathBuf, time::Duration};
use tokio::time::Instant;

const NAMESPACE: &str = "shop.example";
const COUNT: &str = "SELECT count(*), count(DISTINCT id) FROM events";
/// Reads data files: a count alone is in the manifests.
const READ: &str = "SELECT max(id) FROM events";
/// Longest that a server takes to find that its warehouse or its metastore is gone, or back.
const BACK_MAX: Duration = Duration::from_secs(20);
/// Longest that an answer takes that needs nothing of what is gone.
const TOLD_MAX: Duration = Duration::from_secs(5);

/// A server with ten events in a snapshot.
async fn house() -> (TestServer, PathBuf, PathBuf) {
    let server = TestServer::start().await;
    server.ingest(&events(0..10)).await;
    server.commit(NAMESPACE).await;
    let warehouse = server.folder.path().join("warehouse");
    let away = server.folder.path().join("away");
    (server, warehouse, away)
}

/// What every way to the tables answers.
async fn answers(server: &TestServer) -> Vec<(String, u16, String)> {
    let mut answers = Vec::new();
    let mut note = async |what: &str, answer: reqwest::Response| {
        let (status, has_pause) =
            (answer.status().as_u16(), answer.headers().contains_key("retry-after"));
        assert_eq!(has_pause, status == 503, "{what}");
        answers.push((what.to_owned(), status, answer.text().await.unwrap()));
    };
    let sql = format!("/v1/{NAMESPACE}/sql");
    note("sql", server.post(&sql, "application/json", json!({ "sql": READ }).to_string()).await)
        .await;
    let commit = format!("/v1/{NAMESPACE}/commit");
    note("commit", server.post(&commit, "application/json", "").await).await;
    let table = "/catalog/v1/namespaces/shop_example/tables/events";
    note("catalog", server.get(table).await).await;
    let made = json!({ "name": "mine", "schema": { "type": "struct", "fields": [] } }).to_string();
    let tables = "/catalog/v1/namespaces/shop_example/tables";
    note("create", server.post(tables, "application/json", made).await).await;
    note("ready", server.get("/readyz").await).await;
    answers
}

async fn is_gone(server: &TestServer, why: &str) {
    for (what, status, told) in answers(server).await {
        assert_eq!(status, 503, "{what}: {told}");
        let is_named = told.contains("the warehouse `file:///") && told.contains(why);
        assert!(is_named, "{what}: {told}");
    }
}

/// Returns what `/readyz` says at last.
async fn ready(server: &TestServer) -> String {
    let begun = Instant::now();
    loop {
        let answer = server.get("/readyz").await;
        let (status, told) = (answer.status(), answer.text().await.unwrap());
        if status == 200 || BACK_MAX < begun.elapsed() {
            return told;
        }
        tokio::task::yield_now().await;
    }
}

/// All events are there once, before and after a commit.
async fn goes_on(server: &TestServer, count: u32) {
    assert_eq!(ready(server).await, "ready\n");
    for _ in 0..2 {
        assert_eq!(server.rows(NAMESPACE, COUNT).await, json!([[count, count]]));
        server.commit(NAMESPACE).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warehouse_that_goes_is_named_and_events_wait_until_it_is_back() {
    let (server, warehouse, away) = house().await;
    fs::rename(&warehouse, &away).unwrap();
    let (status, reply) = server.ingest(&events(10..20)).await;
    assert_eq!((status, &reply["duplicates"]), (200, &json!(0)), "{reply}");
    is_gone(&server, "is not there: its folder does not exist").await;
    assert!(!warehouse.exists(), "nothing is made in its place");
    let (status, reply) = server.ingest(&events(0..30)).await;
    assert_eq!((status, &reply["duplicates"]), (200, &json!(20)), "{reply}");
    fs::rename(&away, &warehouse).unwrap();
    goes_on(&server, 30).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_folder_in_the_place_of_the_warehouse_is_not_it_and_a_whole_copy_is() {
    let (server, warehouse, away) = house().await;
    fs::rename(&warehouse, &away).unwrap();
    // A mount point without its disk.
    fs::create_dir(&warehouse).unwrap();
    server.ingest(&events(10..20)).await;
    is_gone(&server, "is not there: another folder is in its place").await;
    assert_eq!(fs::read_dir(&warehouse).unwrap().count(), 0, "nothing is written there");
    fs::remove_dir(&warehouse).unwrap();
    copy(&away, &warehouse);
    goes_on(&server, 20).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_in_the_place_of_the_warehouse_is_not_it() {
    let (server, warehouse, away) = house().await;
    let older = server.folder.path().join("older");
    copy(&warehouse, &older);
    server.ingest(&events(10..20)).await;
    server.commit(NAMESPACE).await;
    fs::rename(&warehouse, &away).unwrap();
    fs::rename(&older, &warehouse).unwrap();
    server.ingest(&events(20..30)).await;
    is_gone(&server, "is not there: another folder is in its place").await;
    let begun = Instant::now();
    loop {
        let told = server.get("/readyz").await.text().await.unwrap();
        if told.contains(".metadata.json`") {
            break;
        }
        assert!(begun.elapsed() < BACK_MAX, "{told}");
        tokio::task::yield_now().await;
    }
    fs::rename(&warehouse, &older).unwrap();
    fs::rename(&away, &warehouse).unwrap();
    goes_on(&server, 30).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_data_file_is_named() {
    let (server, warehouse, away) = house().await;
    for file in files_below(&warehouse, ".parquet") {
        fs::rename(&file, &away).unwrap();
        let (status, answer) = server.query(NAMESPACE, &json!({ "sql": READ })).await;
        let name = file.file_name().unwrap().to_str().unwrap();
        assert_eq!((status, &answer["code"]), (404, &json!("NOT_FOUND")), "{answer}");
        let told = answer["error"].as_str().unwrap();
        assert!(told.contains(name) && told.contains("is not there"), "{told}");
        assert_eq!(server.get("/readyz").await.status(), 200);
        fs::rename(&away, &file).unwrap();
    }
    goes_on(&server, 10).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_whose_folder_goes_is_named_and_the_others_go_on() {
    let (server, warehouse, away) = house().await;
    let other = json!([{ "id": "x", "type": "a", "ns": "other" }]);
    server.ingest(&other).await;
    server.commit("other").await;
    server.ingest(&events(10..20)).await;
    fs::rename(warehouse.join("shop_example"), &away).unwrap();
    for (what, status, told) in answers(&server).await {
        match what.as_str() {
            "ready" => assert_eq!(status, 200, "{told}"),
            "create" => assert_eq!(status, 200, "{told}"),
            "commit" => assert_eq!(status, 503, "{told}"),
            _ => assert_eq!(status, 404, "{what}: {told}"),
        }
        let is_named = told.contains("/shop_example/") && told.contains("/metadata/");
        assert!(is_named || ["ready", "create"].contains(&what.as_str()), "{what}: {told}");
    }
    assert_eq!(server.rows("other", COUNT).await, json!([[1, 1]]));
    fs::remove_dir_all(warehouse.join("shop_example")).unwrap();
    fs::rename(&away, warehouse.join("shop_example")).unwrap();
    goes_on(&server, 20).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_metastore_that_does_not_answer_is_told_until_it_is_back() {
    let Some(databases) = Databases::new("outage").await else { return };
    databases.make("folder").await;
    let mut route = DatabaseRoute::to(&databases.url("folder")).await;
    let settings = [("metastore", route.url.as_str())];
    let server = TestServer::start_in(tempfile::tempdir().unwrap(), &settings).await;
    server.ingest(&events(0..10)).await;
    server.commit(NAMESPACE).await;
    assert_eq!(ready(&server).await, "ready\n");
    route.cut().await;
    let (status, reply) = server.ingest(&events(5..20)).await;
    assert_eq!((status, &reply["duplicates"]), (200, &json!(5)), "{reply}");
    let begun = Instant::now();
    loop {
        let answer = server.get("/readyz").await;
        let (status, told) = (answer.status(), answer.text().await.unwrap());
        if status == 503 {
            assert!(told.contains("the metastore does not answer"), "{told}");
            break;
        }
        assert!(begun.elapsed() < BACK_MAX, "{told}");
        tokio::task::yield_now().await;
    }
    let (status, _) = server.ingest(&events(20..30)).await;
    assert_eq!(status, 200, "the log bridges the time");
    let begun = Instant::now();
    let (status, answer) = server.query(NAMESPACE, &json!({ "sql": COUNT })).await;
    assert_eq!((status, &answer["code"]), (503, &json!("UNAVAILABLE")), "{answer}");
    assert!(begun.elapsed() < TOLD_MAX, "what is known is told at once");
    route.open().await;
    goes_on(&server, 30).await;
    server.stop().await;
    databases.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_metastore_file_that_goes_is_noticed_and_no_event_is_taken_until_it_is_back() {
    let (server, _, _) = house().await;
    let file = server.folder.path().join("icecore.db");
    let aside = server.folder.path().join("aside.db");
    fs::rename(&file, &aside).unwrap();
    let begun = Instant::now();
    let told = loop {
        let answer = server.get("/readyz").await;
        let (status, told) = (answer.status(), answer.text().await.unwrap());
        if status == 503 {
            break told;
        }
        assert!(begun.elapsed() < BACK_MAX, "{told}");
        tokio::task::yield_now().await;
    };
    assert!(told.contains("icecore.db` is gone while the server runs"), "{told}");
    let (status, reply) = server.ingest(&events(10..20)).await;
    assert_eq!(status, 503, "{reply}");
    assert!(reply["error"].as_str().unwrap().contains("is gone while the server runs"), "{reply}");
    assert!(!file.exists(), "nothing is made in its place");
    fs::rename(&aside, &file).unwrap();
    assert_eq!(ready(&server).await, "ready\n");
    let (status, reply) = server.ingest(&events(10..20)).await;
    assert_eq!((status, &reply["duplicates"]), (200, &json!(0)), "{reply}");
    goes_on(&server, 20).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_file_that_was_emptied_or_is_no_parquet_is_named() {
    for is_emptied in [true, false] {
        let (server, warehouse, _) = house().await;
        let files = files_below(&warehouse, ".parquet");
        assert!(!files.is_empty());
        for file in &files {
            let length = fs::metadata(file).unwrap().len() as usize;
            fs::write(file, vec![b'x'; if is_emptied { 0 } else { length }]).unwrap();
        }
        let sql = format!("/v1/{NAMESPACE}/sql");
        let answer =
            server.post(&sql, "application/json", json!({ "sql": READ }).to_string()).await;
        let (status, told) = (answer.status(), answer.text().await.unwrap());
        let is_named =
            files.iter().any(|file| told.contains(file.file_name().unwrap().to_str().unwrap()));
        assert!(!status.is_success() && is_named, "{status} {told}");
        assert!(told.contains("damaged") && told.contains("restore the file"), "{told}");
        server.stop().await;
    }
}
