//! Versions of documents that patches made, as things: whole, wherever the changes before them are.

use crate::harness::TestServer;
use serde_json::{Value, json};

const NS: &str = "shop";
const THINGS: &str = "SELECT rowid, id, type, op, data FROM things";
/// Nothing is committed or merged unless a test asks for it.
const SETTINGS: &[(&str, &str)] =
    &[("compaction.enabled", "off"), ("collections.refresh_interval", "24h")];

async fn start() -> TestServer {
    TestServer::start_in(tempfile::tempdir().unwrap(), SETTINGS).await
}

async fn send(server: &TestServer, events: &[Value]) {
    let (status, answer) = server.ingest(&json!({ "events": events })).await;
    assert_eq!(status, 200, "{answer}");
}

#[expect(clippy::needless_pass_by_value, reason = "a test writes the members in place")]
fn change(op: &str, (collection, key): (&str, &str), members: Value) -> Value {
    let mut event = json!({"ns": NS, "op": op, "collection": collection, "key": key});
    event.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    event
}

/// Changes with the numbers from 1. A collection is emptied between them.
fn sent() -> Vec<Value> {
    let (ann, bea, inn) = (("users", "ann"), ("users", "bea"), ("places", "inn"));
    let replaced = json!([{"op": "replace", "path": "/n", "value": 4}]);
    let removed = json!([{"op": "remove", "path": "/absent"}]);
    vec![
        change("c", ann, json!({"id": "1", "after": {"n": 1, "type": "Person"}})),
        change("c", bea, json!({"id": "2", "after": {"n": 1}})),
        change("u", ann, json!({"id": "3", "patch": {"n": 3}})),
        change("u", bea, json!({"id": "4", "patch": replaced})),
        change("d", bea, json!({"id": "5"})),
        json!({"id": "6", "ns": NS, "type": "cdc.truncate", "collection": "users"}),
        change("u", ann, json!({"id": "7", "patch": {"n": 7}})),
        change("u", bea, json!({"id": "8", "patch": replaced})),
        change("c", inn, json!({"id": "9", "after": {"n": 9}})),
        change("u", inn, json!({"id": "10", "patch": {"type": "Inn"}})),
        change("u", ann, json!({"id": "11", "patch": removed})),
        change("u", ann, json!({"id": "12"})),
    ]
}

/// The versions that they make. A JSON Patch of no document makes none, one that does not fit leaves the document.
fn versions() -> Vec<Value> {
    vec![
        json!([1, "ann", "Person", "c", "{\"n\":1,\"type\":\"Person\"}"]),
        json!([2, "bea", "users", "c", "{\"n\":1}"]),
        json!([3, "ann", "Person", "u", "{\"n\":3,\"type\":\"Person\"}"]),
        json!([4, "bea", "users", "u", "{\"n\":4}"]),
        json!([5, "bea", "users", "d", null]),
        json!([7, "ann", "users", "u", "{\"n\":7}"]),
        json!([9, "inn", "places", "c", "{\"n\":9}"]),
        json!([10, "inn", "Inn", "u", "{\"n\":9,\"type\":\"Inn\"}"]),
        json!([11, "ann", "users", "u", "{\"n\":7}"]),
    ]
}

async fn check_all(server: &TestServer, place: &str) {
    let rows = server.rows(NS, &format!("{THINGS} ORDER BY rowid")).await;
    assert_eq!(rows, Value::Array(versions()), "{place}");
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_that_patches_made_are_whole_wherever_their_changes_are() {
    let server = start().await;
    let sent = sent();
    let (first, last) = sent.split_at(3);
    send(&server, first).await;
    let rows = server.rows(NS, &format!("{THINGS} ORDER BY rowid")).await;
    assert_eq!(rows, Value::Array(versions()[..3].to_vec()));
    server.commit(NS).await;
    send(&server, last).await;
    check_all(&server, "in the log and in a table").await;
    server.commit(NS).await;
    check_all(&server, "in a table").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_chosen_after_the_patches_were_applied() {
    let server = start().await;
    send(&server, &sent()).await;
    server.commit(NS).await;
    let all = versions();
    for (condition, expected) in [
        ("WHERE rowid = 3", vec![2]),
        ("WHERE rowid > 9", vec![7, 8]),
        ("WHERE id = 'inn'", vec![6, 7]),
        ("WHERE collection = 'users' AND id = 'ann'", vec![0, 2, 5, 8]),
        ("WHERE type = 'Inn'", vec![7]),
        ("WHERE json_get_int(data, 'n') = 7", vec![5, 8]),
        ("WHERE id IN (SELECT id FROM things WHERE op = 'd')", vec![1, 3, 4]),
    ] {
        let rows = server.rows(NS, &format!("{THINGS} {condition} ORDER BY rowid")).await;
        let expected: Vec<Value> = expected.into_iter().map(|at: usize| all[at].clone()).collect();
        assert_eq!(rows, Value::Array(expected), "{condition}");
    }
    for (sql, expected) in [
        ("SELECT count(*) FROM things", json!([[9]])),
        ("SELECT rowid FROM things ORDER BY rowid DESC LIMIT 2", json!([[11], [10]])),
        (
            "SELECT collection, count(*) FROM things GROUP BY collection ORDER BY collection",
            json!([["places", 2], ["users", 7]]),
        ),
        (
            "SELECT thing_url, table_url FROM things_global WHERE rowid = 10",
            json!([["shop/places/inn", "shop/places"]]),
        ),
    ] {
        assert_eq!(server.rows(NS, sql).await, expected, "{sql}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_point_has_the_versions_up_to_it_and_a_range_those_that_events_have() {
    let server = start().await;
    send(&server, &sent()).await;
    for _ in 0..2 {
        for (from, expected) in [
            ("things FOR SEQ AS OF 4", json!([[1], [2], [3], [4]])),
            ("\"things@v3\"", json!([[1], [2], [3]])),
            ("things BETWEEN SEQ 1 AND 4", json!([[1], [2], [3], [4]])),
            ("things BETWEEN SEQ 3 AND 10", json!([[5], [9]])),
        ] {
            let sql = format!("SELECT rowid FROM {from} ORDER BY rowid");
            assert_eq!(server.rows(NS, &sql).await, expected, "{from}");
        }
        server.commit(NS).await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_with_more_patches_than_a_batch_has_rows_is_followed_to_its_last() {
    let server = start().await;
    let long = ("users", "long");
    let mut events = vec![change("c", long, json!({"id": "0", "after": {"first": 1, "n": 0}}))];
    let patch = |n: u32| change("u", long, json!({"id": n.to_string(), "patch": {"n": n}}));
    events.extend((1..=9_000).map(patch));
    send(&server, &events).await;
    server.commit(NS).await;
    let sql = "SELECT count(*), count(DISTINCT json_get_int(data, 'n')), max(json_get_int(data, 'n')), \
               count(*) FILTER (WHERE json_get_int(data, 'first') = 1) FROM things";
    assert_eq!(server.rows(NS, sql).await, json!([[9_001, 9_001, 9_000, 9_001]]));
    server.stop().await;
}
