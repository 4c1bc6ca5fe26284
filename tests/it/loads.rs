//! A client of the catalog that loads a table reads what was acknowledged before it asked.

use crate::{
    access::Guarded,
    harness::{TestServer, events},
};
use icecore_lake::clock::Clock;
use reqwest::{Method, Response, StatusCode, header};
use serde_json::{Value, json};

const NS: &str = "shop.example";
const TABLE: &str = "/catalog/v1/namespaces/shop_example/tables/events";
const NOW_MS: i64 = 1_795_911_150_000;

/// How many rows the table has, as its current snapshot says.
async fn rows(answer: Response) -> u64 {
    assert_eq!(answer.status(), 200);
    let table: Value = answer.json().await.unwrap();
    let metadata = &table["metadata"];
    let snapshots = metadata["snapshots"].as_array().unwrap();
    let is_current = |one: &&Value| one["snapshot-id"] == metadata["current-snapshot-id"];
    let current = snapshots.iter().find(is_current).unwrap();
    current["summary"]["total-records"].as_str().unwrap().parse().unwrap()
}

/// How many snapshots the table has; it is not loaded for that.
async fn snapshots(server: &TestServer) -> u64 {
    let path = format!("/v1/{NS}/tables/events/snapshots");
    let listed: Value = server.get(&path).await.json().await.unwrap();
    listed["total"].as_u64().unwrap()
}

async fn take(server: &TestServer, range: std::ops::Range<u32>) {
    assert_eq!(server.ingest(&events(range)).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_has_what_waits_committed_before_its_etag_is_looked_at() {
    let clock = Clock::manual(NOW_MS);
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start_at(folder, &[], clock.clone()).await;
    let load = async |known: &str| {
        let request = server.http.get(format!("{}{TABLE}", server.url));
        request.header(header::IF_NONE_MATCH, known).send().await.unwrap()
    };
    let etag = |answer: &Response| answer.headers()[header::ETAG].to_str().unwrap().to_owned();
    // The first load of all makes the table.
    take(&server, 0..4).await;
    let first = load("\"none\"").await;
    let known = etag(&first);
    assert_eq!(rows(first).await, 4);
    // Within the second that follows there is no other commit.
    take(&server, 4..8).await;
    assert_eq!(load(&known).await.status(), StatusCode::NOT_MODIFIED);
    clock.advance_ms(1_000);
    let second = load(&known).await;
    assert_ne!(etag(&second), known);
    assert_eq!(rows(second).await, 8);
    // Nothing waits, so the second that follows begins with nothing.
    clock.advance_ms(1_000);
    assert_eq!(rows(server.get(TABLE).await).await, 8);
    take(&server, 8..12).await;
    let with_prefix = TABLE.replace("/v1/", "/v1/icecore/").replace("shop_", "shop%5F");
    assert_eq!(rows(server.get(&with_prefix).await).await, 12);
    assert_eq!(snapshots(&server).await, 3);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_loads_no_table_commits_nothing() {
    let server = TestServer::start().await;
    take(&server, 0..4).await;
    server.commit(NS).await;
    take(&server, 4..8).await;
    let head = server.http.head(format!("{}{TABLE}", server.url)).send().await.unwrap();
    assert_eq!(head.status(), StatusCode::NO_CONTENT);
    let tables = "/catalog/v1/namespaces/shop_example/tables";
    for path in [tables, "/catalog/v1/namespaces/shop_example", "/catalog/v1/config"] {
        assert_eq!(server.get(path).await.status(), 200);
    }
    assert_eq!(server.get(&format!("{tables}/dead_letters")).await.status(), 404);
    assert_eq!(server.rows(NS, "SELECT count(*) FROM events").await, json!([[8]]));
    assert_eq!(snapshots(&server).await, 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_may_read_the_table_has_anything_committed() {
    let guarded = Guarded::with_events().await;
    let event = json!([{"id": "1", "type": "a", "ns": "shop"}]);
    assert_eq!(guarded.post(&guarded.admin, "/ingest", &event).await.0, 200);
    let token = async |scope: &str| guarded.token(&json!({ "name": "t", "scopes": [scope] })).await;
    let (other, sender, reader) =
        (token("read:other").await, token("ingest:shop").await, token("read:shop").await);
    let table = "/catalog/v1/namespaces/shop/tables/events";
    let total = async || {
        let path = "/v1/shop/tables/events/snapshots";
        guarded.get(&guarded.admin, path).await.1["total"].as_u64().unwrap()
    };
    for (token, status) in
        [("", 401), ("ice_no_token", 401), (other.as_str(), 404), (sender.as_str(), 404)]
    {
        let (answered, body) = guarded.call(Method::GET, token, table, &Value::Null).await;
        assert_eq!(answered, status, "{body}");
        assert_eq!(total().await, 1, "{token}");
    }
    assert_eq!(guarded.get(&reader, table).await.0, 200);
    assert_eq!(total().await, 2);
    guarded.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_is_answered_with_what_is_there_when_its_commit_fails() {
    let settings = [("failpoints", "flush.before_commit=error@1")];
    let server = TestServer::start_in(tempfile::tempdir().unwrap(), &settings).await;
    take(&server, 0..4).await;
    server.commit(NS).await;
    take(&server, 4..8).await;
    assert_eq!(rows(server.get(TABLE).await).await, 4);
    server.commit(NS).await;
    assert_eq!(rows(server.get(TABLE).await).await, 8);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_no_events_answers_what_is_there() {
    let shared = tempfile::tempdir().unwrap();
    let metastore = format!("sqlite://{}/shared.db", shared.path().display());
    let warehouse = format!("file://{}/warehouse", shared.path().display());
    let settings = [("metastore", metastore.as_str()), ("warehouse", warehouse.as_str())];
    let owner = TestServer::start_in(tempfile::tempdir().unwrap(), &settings).await;
    take(&owner, 0..4).await;
    owner.commit(NS).await;
    let other = TestServer::start_in(tempfile::tempdir().unwrap(), &settings).await;
    take(&owner, 4..8).await;
    assert_eq!(rows(other.get(TABLE).await).await, 4);
    assert_eq!(rows(owner.get(TABLE).await).await, 8);
    assert_eq!(rows(other.get(TABLE).await).await, 8);
    other.stop().await;
    owner.stop().await;
}
