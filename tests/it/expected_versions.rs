//! Events of a batch that expect a version of their document: what is taken, what is told, and who of several writers
//! wins.

use crate::{access::Guarded, harness::TestServer};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A change of a user that expects a version, if one is given.
fn change(id: &str, op: &str, key: &str, expected: Option<u64>) -> Value {
    let mut change =
        json!({ "id": id, "ns": "shop", "op": op, "collection": "users", "key": key, "actor": id });
    if op != "d" {
        change["after"] = json!({ "by": id });
    }
    if let Some(expected) = expected {
        change["expected_version"] = json!(expected);
    }
    change
}

fn batch(events: &[Value]) -> Value {
    json!({ "events": events })
}

/// Key, version and last event of every user.
async fn users(server: &TestServer) -> Value {
    server.rows("shop", "SELECT key, version, event_id FROM cdc_users ORDER BY key").await
}

/// Place, code and version of what was refused.
fn refused(reply: &Value) -> Vec<(u64, &str, Option<u64>)> {
    let Some(errors) = reply["errors"].as_array() else { return Vec::new() };
    let of = |error: &Value| error["index"].as_u64().unwrap();
    errors
        .iter()
        .map(|error| (of(error), error["code"].as_str().unwrap(), error["actual"].as_u64()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_taken_where_its_document_has_the_version() {
    let server = TestServer::start().await;
    let first = batch(&[
        change("1", "c", "a", Some(0)),
        change("2", "u", "a", Some(1)),
        change("3", "c", "b", Some(0)),
    ]);
    let (status, reply) = server.ingest(&first).await;
    assert_eq!((status, &reply["received"]), (200, &json!(3)), "{reply}");
    assert_eq!(users(&server).await, json!([["a", 2, "2"], ["b", 1, "3"]]));
    // The versions lie in a file now.
    server.commit("shop").await;
    let second = batch(&[
        change("5", "u", "a", Some(2)),
        change("6", "u", "a", None),
        change("7", "u", "a", Some(4)),
        change("4", "u", "a", Some(1)),
        change("8", "d", "b", Some(1)),
        change("10", "c", "b", Some(0)),
        change("9", "u", "b", Some(9)),
        change("11", "u", "c", Some(7)),
    ]);
    let (status, reply) = server.ingest(&second).await;
    let mismatch = "VERSION_MISMATCH";
    let expected = [(3, mismatch, Some(5)), (6, mismatch, Some(1)), (7, mismatch, Some(0))];
    assert_eq!((status, refused(&reply)), (207, expected.to_vec()), "{reply}");
    assert_eq!(reply["errors"][0]["status"], "conflict", "{reply}");
    assert_eq!(users(&server).await, json!([["a", 5, "7"], ["b", 1, "10"]]));
    let (status, reply) = server.ingest(&change("12", "u", "a", Some(9))).await;
    assert_eq!((status, refused(&reply)), (400, vec![(0, mismatch, Some(5))]), "{reply}");
    // An event that was refused may come again with another version.
    let (status, reply) = server.ingest(&change("12", "u", "a", Some(5))).await;
    assert_eq!(status, 200, "{reply}");
    let (status, reply) = server.ingest(&change("13", "u", "a", None)).await;
    assert_eq!(status, 200, "{reply}");
    let mut wrong = change("14", "u", "a", None);
    wrong["expected_version"] = json!("7");
    let (status, reply) = server.ingest(&wrong).await;
    assert_eq!((status, refused(&reply)), (400, vec![(0, "INVALID_EVENT", None)]), "{reply}");
    // That one alone is broken, and has a dead letter.
    let ids = "SELECT event_id FROM dead_letters";
    assert_eq!(server.rows("shop", ids).await, json!([["14"]]));
    // A name may have its letters escaped.
    let escaped = change("15", "u", "a", Some(1)).to_string().replace("ed_v", "ed\\u005fv");
    let reply = server.post("/ingest", "application/json", escaped).await;
    let reply: Value = reply.json().await.unwrap();
    assert_eq!(refused(&reply), [(0, mismatch, Some(7))], "{reply}");
    assert_eq!(users(&server).await, json!([["a", 7, "13"], ["b", 1, "10"]]));
    server.stop().await;
}

/// Another writer brought the document to the version that the second change of a batch expects, behind a first one
/// that does not match.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_behind_one_that_does_not_match_overwrites_nothing() {
    let server = TestServer::start().await;
    assert_eq!(server.ingest(&change("1", "c", "a", Some(0))).await.0, 200);
    assert_eq!(server.ingest(&change("other", "u", "a", Some(1))).await.0, 200);
    let sent = batch(&[
        change("2", "u", "a", Some(1)),
        change("3", "u", "a", Some(2)),
        change("4", "c", "b", Some(0)),
    ]);
    let (status, reply) = server.ingest(&sent).await;
    let mismatch = "VERSION_MISMATCH";
    let expected = [(0, mismatch, Some(2)), (1, mismatch, Some(2))];
    assert_eq!((status, refused(&reply)), (207, expected.to_vec()), "{reply}");
    let reason = reply["errors"][1]["reason"].as_str().unwrap();
    assert!(reason.starts_with("an earlier change of the document"), "{reply}");
    assert_eq!(users(&server).await, json!([["a", 2, "other"], ["b", 1, "4"]]));
    // It is no dead letter, and its id is free for the change of what is there.
    assert_eq!(server.ingest(&change("3", "u", "a", Some(2))).await.0, 200);
    // A change that expects nothing is taken behind it all the same.
    let sent = batch(&[change("5", "u", "a", Some(9)), change("6", "u", "a", None)]);
    let (status, reply) = server.ingest(&sent).await;
    assert_eq!((status, refused(&reply)), (207, vec![(0, mismatch, Some(3))]), "{reply}");
    assert_eq!(users(&server).await, json!([["a", 4, "6"], ["b", 1, "4"]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_behind_one_of_a_type_too_many_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start_in(folder, &[("ingest.types_max", "1")]).await;
    assert_eq!(server.ingest(&change("1", "c", "a", Some(0))).await.0, 200);
    let sent = batch(&[
        change("2", "u", "a", Some(1)),
        change("3", "c", "a", Some(1)),
        change("4", "c", "a", None),
    ]);
    let (status, reply) = server.ingest(&sent).await;
    let expected = [(0, "TOO_MANY_TYPES", None), (1, "VERSION_MISMATCH", Some(1))];
    assert_eq!((status, refused(&reply)), (207, expected.to_vec()), "{reply}");
    let ids = server.rows("shop", "SELECT id FROM events ORDER BY seq").await;
    assert_eq!(ids, json!([["1"], ["4"]]));
    server.stop().await;
}

/// Nothing is written on a condition that nobody looks at.
#[tokio::test(flavor = "multi_thread")]
async fn a_version_of_no_document_is_refused() {
    let server = TestServer::start().await;
    let wrong = [
        json!({ "id": "1", "ns": "shop", "op": "c", "after": {}, "expected_version": 0 }),
        json!({ "id": "2", "ns": "shop", "op": "c", "collection": "users", "key": null, "after": {}, "expected_version": 0 }),
        json!({ "id": "3", "ns": "shop", "op": "truncate", "collection": "users", "expected_version": 7 }),
    ];
    for event in wrong {
        let (status, reply) = server.ingest(&event).await;
        assert_eq!((status, refused(&reply)), (400, vec![(0, "INVALID_EVENT", None)]), "{reply}");
    }
    let mut other = change("4", "c", "a", None);
    other["expectedVersion"] = json!(3);
    let (status, reply) = server.ingest(&other).await;
    let mismatch = vec![(0, "VERSION_MISMATCH", Some(0))];
    assert_eq!((status, refused(&reply)), (400, mismatch), "{reply}");
    let mut none = change("5", "c", "a", None);
    none["expected_version"] = Value::Null;
    assert_eq!(server.ingest(&none).await.0, 200);
    let twice = r#"{"id":"6","ns":"shop","op":"u","collection":"users","key":"a","after":{},"expected_version":9,"expected_version":1}"#;
    assert_eq!(server.post("/ingest", "application/json", twice).await.status(), 200);
    assert_eq!(users(&server).await, json!([["a", 2, "6"]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_comes_again_is_a_repeat_and_no_mismatch() {
    let mut server = TestServer::start().await;
    let sent = batch(&[
        change("1", "c", "a", Some(0)),
        change("2", "u", "a", Some(1)),
        change("3", "c", "b", Some(0)),
    ]);
    for (path, duplicates) in [("/ingest", 0), ("/ingest", 3), ("/ingest?atomic=true", 3)] {
        let (status, reply) = server.ingest_at(path, &sent).await;
        assert_eq!((status, &reply["duplicates"]), (200, &json!(duplicates)), "{reply}");
        server = server.restart().await;
    }
    // Others have written since.
    assert_eq!(server.ingest(&change("4", "u", "a", Some(2))).await.0, 200);
    let more = batch(&[
        change("1", "c", "a", Some(0)),
        change("2", "u", "a", Some(1)),
        change("5", "u", "a", Some(3)),
    ]);
    let (status, reply) = server.ingest(&more).await;
    assert_eq!((status, &reply["duplicates"]), (200, &json!(2)), "{reply}");
    assert_eq!(users(&server).await, json!([["a", 4, "5"], ["b", 1, "3"]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_atomic_batch_none_is_taken_where_one_does_not_match() {
    let server = TestServer::start().await;
    assert_eq!(server.ingest(&change("1", "c", "a", Some(0))).await.0, 200);
    let sent = |version: u64| {
        batch(&[change("2", "c", "b", Some(0)), change("3", "u", "a", Some(version))])
    };
    let (status, reply) = server.ingest_at("/ingest?atomic=true", &sent(2)).await;
    let expected = [(0, "BATCH_ABORTED", None), (1, "VERSION_MISMATCH", Some(1))];
    assert_eq!((status, refused(&reply)), (400, expected.to_vec()), "{reply}");
    assert_eq!(users(&server).await, json!([["a", 1, "1"]]));
    let (status, reply) = server.ingest_at("/ingest?atomic=true", &sent(1)).await;
    assert_eq!(status, 200, "{reply}");
    assert_eq!(users(&server).await, json!([["a", 2, "3"], ["b", 1, "2"]]));
    let many: Vec<Value> =
        (0..1001).map(|n| change(&format!("m-{n}"), "c", &format!("m-{n}"), Some(0))).collect();
    let (status, reply) = server.ingest(&batch(&many)).await;
    assert_eq!((status, &reply["code"]), (422, &json!("QUERY_LIMIT")), "{reply}");
    let first = &many[..1];
    let (status, reply) = server.ingest_at("/ingest?branch=trial", &batch(first)).await;
    assert_eq!((status, &reply["code"]), (400, &json!("INVALID_REQUEST")), "{reply}");
    let (status, reply) = server.ingest(&batch(&many[1..])).await;
    assert_eq!(status, 200, "{reply}");
    assert_eq!(server.rows("shop", "SELECT count(*) FROM events").await, json!([[1003]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_another_log_kept_was_taken_there() {
    let server = TestServer::start().await;
    let event = change("1", "u", "a", Some(7));
    let mut exported = change("1", "u", "a", None);
    exported["icecore_event"] = json!(event.to_string());
    let (status, reply) = server.ingest(&exported).await;
    assert_eq!((status, &reply["duplicates"]), (200, &json!(0)), "{reply}");
    // What its sender sends again is the same event.
    let (status, reply) = server.ingest(&event).await;
    assert_eq!((status, &reply["duplicates"]), (200, &json!(1)), "{reply}");
    assert_eq!(users(&server).await, json!([["a", 1, "1"]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_read_a_document_may_not_ask_for_its_version() {
    let guarded = Guarded::with_events().await;
    let sender = guarded.token(&json!({"name": "s", "scopes": ["ingest:shop"]})).await;
    let change = |id: &str, expected: Option<u64>| change(id, "c", "secret", expected);
    let (status, reply) = guarded.post(&sender, "/ingest", &change("e-1", Some(0))).await;
    assert_eq!((status, &reply["code"]), (403, &json!("FORBIDDEN")), "{reply}");
    assert!(reply["error"].as_str().unwrap().contains("`read:shop`"), "{reply}");
    assert_eq!(guarded.post(&sender, "/ingest", &change("e-1", None)).await.0, 200);
    let (status, reply) = guarded.post(&guarded.admin, "/ingest", &change("e-2", Some(1))).await;
    assert_eq!(status, 200, "{reply}");
    guarded.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_is_sent_again_still_expects_its_version() {
    let server = TestServer::start().await;
    assert_eq!(server.ingest(&change("1", "c", "a", Some(0))).await.0, 200);
    let late = |id: &str, expected: u64| {
        let mut change = change(id, "u", "a", Some(expected));
        change["ts"] = json!("2001-01-01T00:00:00Z");
        change
    };
    let (status, reply) = server.ingest(&batch(&[late("2", 1), late("3", 9)])).await;
    let expected = [(0, "TS_WINDOW", None), (1, "TS_WINDOW", None)];
    assert_eq!((status, refused(&reply)), (400, expected.to_vec()), "{reply}");
    let path = "/v1/shop/dead-letters/retry?backfill=true";
    let (status, reply) = server.ingest_at(path, &json!({ "all": true })).await;
    let counts = ["accepted", "rejected"].map(|name| reply[name].as_u64().unwrap());
    assert_eq!((status, counts), (200, [1, 1]), "{reply}");
    assert_eq!(users(&server).await, json!([["a", 2, "2"]]));
    server.stop().await;
}

const WRITERS: usize = 4;
const ROUNDS: usize = 10;
const KEYS: usize = 5;

/// What a writer changed: key, the version before, and its event.
type WrittenChange = (String, u64, String);

/// Sends batches over several documents, each with the versions as the writer knows them.
async fn write(server: &TestServer, writer: usize) -> Vec<WrittenChange> {
    let mut known: HashMap<String, u64> = HashMap::new();
    let mut written = Vec::new();
    for round in 0..ROUNDS {
        let mut sent: Vec<WrittenChange> = Vec::new();
        for n in 0..=(writer + round) % 3 {
            let key = format!("k{}", (writer + round * 2 + n * 3) % KEYS);
            let version = *known.get(&key).unwrap_or(&0);
            // The first document changes twice.
            for twice in 0..1 + u64::from(n == 0) {
                let id = format!("{writer}-{round}-{n}-{twice}");
                sent.push((key.clone(), version + twice, id));
            }
        }
        let events: Vec<Value> =
            sent.iter().map(|(key, version, id)| change(id, "u", key, Some(*version))).collect();
        let is_atomic = round % 2 == 1;
        let path = if is_atomic { "/ingest?atomic=true" } else { "/ingest" };
        let (status, reply) = server.ingest_at(path, &batch(&events)).await;
        assert!([200, 207, 400].contains(&status), "{reply}");
        let errors = refused(&reply);
        assert!(!is_atomic || [0, events.len()].contains(&errors.len()), "{reply}");
        let lost: BTreeSet<u64> = errors.iter().map(|(index, ..)| *index).collect();
        for (index, (key, version, id)) in (0..).zip(sent) {
            if !lost.contains(&index) {
                known.insert(key.clone(), version + 1);
                written.push((key, version, id));
            }
        }
        for (index, code, actual) in errors {
            if let Some(actual) = actual {
                assert_eq!(code, "VERSION_MISMATCH", "{reply}");
                let place = usize::try_from(index).unwrap();
                known.insert(events[place]["key"].as_str().unwrap().to_owned(), actual);
            }
        }
    }
    written
}

/// Writes some of the same documents by their keys.
async fn put(server: &TestServer) -> Vec<WrittenChange> {
    let mut known: HashMap<String, u64> = HashMap::new();
    let mut written = Vec::new();
    for round in 0..ROUNDS {
        let key = format!("k{}", round % 2);
        let version = *known.get(&key).unwrap_or(&0);
        let path = format!("/v1/shop/collections/users/docs/{key}?expected_version={version}");
        let (status, reply) = server.call(Method::PUT, &path, &json!({ "round": round })).await;
        if status == 200 {
            assert_eq!(reply["version"], version + 1, "{reply}");
            known.insert(key.clone(), version + 1);
            written.push((key, version, reply["event_id"].as_str().unwrap().to_owned()));
        } else {
            assert_eq!((status, &reply["code"]), (409, &json!("VERSION_MISMATCH")), "{reply}");
            known.insert(key, reply["details"]["actual"].as_u64().unwrap());
        }
    }
    written
}

/// Every version of every document was made by one writer, and none is missing.
#[tokio::test(flavor = "multi_thread")]
async fn writers_of_several_documents_make_each_version_once() {
    let server = TestServer::start().await;
    let writers = (0..WRITERS).map(|writer| write(&server, writer));
    let (mut written, of_keys) =
        futures::future::join(futures::future::join_all(writers), put(&server)).await;
    written.push(of_keys);
    let mut model: BTreeMap<String, BTreeMap<u64, String>> = BTreeMap::new();
    for (key, before, id) in written.into_iter().flatten() {
        let other = model.entry(key.clone()).or_default().insert(before, id.clone());
        assert_eq!(other, None, "{key} has version {before} once, and {id} changed it");
    }
    let mut expected = Vec::new();
    for (key, changes) in &model {
        let befores: Vec<u64> = changes.keys().copied().collect();
        let all: Vec<u64> = (0..changes.len() as u64).collect();
        assert_eq!(befores, all, "{key}");
        expected.push(json!([key, changes.len(), changes.values().next_back()]));
    }
    assert!(!expected.is_empty());
    assert_eq!(users(&server).await, Value::Array(expected));
    server.stop().await;
}
