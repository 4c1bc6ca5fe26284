//! Documents that are written by their keys: versions, what a repeat does, and who of several writers wins.

use crate::harness::TestServer;
use reqwest::Method;
use serde_json::{Value, json};

const DOC: &str = "/v1/shop/collections/users/docs/u-1";

/// Sends a request with these headers, and gives status and answer.
async fn send(
    server: &TestServer,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (u16, Value) {
    let mut request = server.http.request(method, format!("{}{path}", server.url));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.body(body.to_owned()).send().await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap())
}

async fn put(server: &TestServer, query: &str, body: &str) -> (u16, Value) {
    send(server, Method::PUT, &format!("{DOC}{query}"), &[], body).await
}

async fn delete(server: &TestServer, query: &str) -> (u16, Value) {
    send(server, Method::DELETE, &format!("{DOC}{query}"), &[], "").await
}

/// Key, document and version of every user.
async fn users(server: &TestServer) -> Value {
    server.rows("shop", "SELECT key, doc, version FROM cdc_users ORDER BY key").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_inserted_updated_and_deleted_by_what_is_there() {
    let server = TestServer::start().await;
    let (status, answer) = put(&server, "", "{\"n\": 1.0}\n").await;
    assert_eq!((status, &answer["version"], &answer["duplicates"]), (200, &json!(1), &json!(0)));
    assert_eq!(users(&server).await, json!([["u-1", "{\"n\": 1.0}", 1]]));
    // The state lies in a file now.
    server.commit("shop").await;
    let (status, answer) = put(&server, "?expected_version=1&ack=committed", "{\"n\":2}").await;
    assert_eq!((status, &answer["version"]), (200, &json!(2)), "{answer}");
    assert!(answer["snapshot"].is_i64(), "{answer}");
    assert_eq!(answer["seq"], json!({"first": 2, "last": 2}));
    assert_eq!((&answer["basis"]["seq"], answer["basis"].get("branch")), (&json!(2), None));
    let named = [("x-request-id", "clean-up")];
    let (status, deleted) = send(&server, Method::DELETE, DOC, &named, "").await;
    assert_eq!((status, &deleted["version"]), (200, &json!(3)), "{deleted}");
    assert_eq!(users(&server).await, json!([]));
    // A request is found by the name that its client gave it, and what one left by the `seq` of its basis.
    for (at, status) in [("before:clean-up", 200), ("seq:2", 200), ("seq:3", 404)] {
        assert_eq!(server.get(&format!("{DOC}?at={at}")).await.status(), status, "{at}");
    }
    let (status, answer) = delete(&server, "").await;
    assert_eq!((status, &answer["code"]), (404, &json!("NOT_FOUND")));
    let events = "SELECT type, op, before, after FROM events ORDER BY seq";
    assert_eq!(
        server.rows("shop", events).await,
        json!([
            ["cdc.insert", "c", null, "{\"n\": 1.0}"],
            ["cdc.update", "u", "{\"n\": 1.0}", "{\"n\":2}"],
            ["cdc.delete", "d", "{\"n\":2}", null],
        ])
    );
    server.stop().await;
}

/// Whether the collection's table has the state, or events behind it change that.
#[tokio::test(flavor = "multi_thread")]
async fn the_version_that_is_expected_is_that_of_now_where_the_table_of_the_collection_is_older() {
    let server = TestServer::start().await;
    assert_eq!(put(&server, "", "{\"n\":1}").await.0, 200);
    server.commit("shop").await;
    let path = "/v1/shop/collections/users/refresh";
    assert_eq!(server.post(path, "application/json", "").await.status(), 200);
    let other = json!({"ns": "shop", "op": "c", "collection": "users", "key": "u-2", "after": {}});
    let foreign = json!({"ns": "shop", "type": "cdc.truncate", "collection": "orders"});
    let (status, answer) = server.ingest(&json!({ "events": [other, foreign] })).await;
    assert_eq!(status, 200, "{answer}");
    // Nothing of it is the document's.
    let (status, read) = send(&server, Method::GET, DOC, &[], "").await;
    assert_eq!((status, &read["version"], &read["doc"]), (200, &json!(1), &json!({"n": 1})));
    assert_eq!(put(&server, "?expected_version=0", "{}").await.0, 409);
    assert_eq!(put(&server, "?expected_version=1", "{\"n\":2}").await.1["version"], 2);
    assert_eq!(put(&server, "?expected_version=1", "{}").await.0, 409);
    server.commit("shop").await;
    let (status, read) = send(&server, Method::GET, DOC, &[], "").await;
    assert_eq!((status, &read["version"], &read["doc"]), (200, &json!(2), &json!({"n": 2})));
    assert_eq!(put(&server, "?expected_version=1", "{}").await.0, 409);
    assert_eq!(server.post(path, "application/json", "").await.status(), 200);
    let emptied = json!({"ns": "shop", "type": "cdc.truncate", "collection": "users"});
    let (status, answer) = server.ingest(&json!({ "events": [emptied] })).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(send(&server, Method::GET, DOC, &[], "").await.0, 404);
    let (status, answer) = put(&server, "?expected_version=2", "{}").await;
    assert_eq!((status, &answer["actual"]), (409, &json!(0)), "{answer}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_version_than_was_expected_is_told_and_nothing_is_written() {
    let server = TestServer::start().await;
    for (query, body, expected) in [
        ("?expected_version=1", "{}", (409, json!(0))),
        ("?expected_version=0", "{\"a\":1}", (200, Value::Null)),
        ("?expected_version=0", "{\"a\":2}", (409, json!(1))),
        ("?expected_version=2", "{\"a\":2}", (409, json!(1))),
    ] {
        let (status, answer) = put(&server, query, body).await;
        assert_eq!((status, answer["actual"].clone()), expected, "{query}: {answer}");
        assert_eq!(answer["details"]["actual"], answer["actual"], "{query}: {answer}");
        if status == 409 {
            assert_eq!(answer["code"], "VERSION_MISMATCH");
        }
    }
    let (status, answer) = delete(&server, "?expected_version=7").await;
    assert_eq!((status, &answer["details"]["actual"]), (409, &json!(1)));
    assert_eq!(users(&server).await, json!([["u-1", "{\"a\":1}", 1]]));
    for body in ["", "[]", "null", "{", "\"text\""] {
        let (status, answer) = put(&server, "", body).await;
        assert_eq!((status, &answer["code"]), (400, &json!("INVALID_JSON")), "{body}");
    }
    let (status, answer) = put(&server, "?expected_version=-1", "{}").await;
    assert_eq!((status, &answer["code"]), (400, &json!("INVALID_REQUEST")));
    assert_eq!(server.rows("shop", "SELECT count(*) FROM events").await, json!([[1]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_answers_as_the_first_one_and_writes_nothing() {
    let mut server = TestServer::start().await;
    let named = async |server: &TestServer, method: Method, query: &str, name: &str, body: &str| {
        let headers = [("idempotency-key", name)];
        send(server, method, &format!("{DOC}{query}"), &headers, body).await
    };
    let create = ("?expected_version=0", "create", "{\"a\":1}");
    let first = named(&server, Method::PUT, create.0, create.1, create.2).await.1;
    assert_eq!((&first["version"], &first["duplicates"]), (&json!(1), &json!(0)), "{first}");
    for _ in 0..2 {
        let (status, again) = named(&server, Method::PUT, create.0, create.1, create.2).await;
        assert_eq!((status, &again["duplicates"]), (200, &json!(1)), "{again}");
        for member in ["version", "seq", "event_id"] {
            assert_eq!(again[member], first[member]);
        }
        server = server.restart().await;
    }
    // Others have written since, and it is still a repeat.
    assert_eq!(put(&server, "", "{\"a\":2}").await.1["version"], 2);
    let again = named(&server, Method::PUT, create.0, create.1, create.2).await.1;
    assert_eq!((&again["version"], &again["seq"]), (&json!(1), &first["seq"]), "{again}");
    let gone = named(&server, Method::DELETE, "?expected_version=2", "delete", "").await.1;
    let again = named(&server, Method::DELETE, "?expected_version=2", "delete", "").await.1;
    assert_eq!((&again["duplicates"], &again["seq"]), (&json!(1), &gone["seq"]), "{again}");
    // A document that was deleted is created by the same words under another name.
    let (status, anew) = named(&server, Method::PUT, create.0, "create again", create.2).await;
    assert_eq!((status, &anew["duplicates"], &anew["version"]), (200, &json!(0), &json!(1)));
    assert_eq!(users(&server).await, json!([["u-1", "{\"a\":1}", 1]]));
    let count = server.rows("shop", "SELECT count(*) FROM events").await;
    assert_eq!(count, json!([[4]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_name_the_same_words_are_another_request() {
    let server = TestServer::start().await;
    let create = ("?expected_version=0", "{\"n\":1}");
    assert_eq!(put(&server, create.0, create.1).await.0, 200);
    let (status, again) = put(&server, create.0, create.1).await;
    assert_eq!((status, &again["code"]), (409, &json!("VERSION_MISMATCH")), "{again}");
    assert_eq!(again["details"]["actual"], 1, "{again}");
    // Clients that count one up from the same state send the same document, and one of them has to read it again.
    let counters = (0..6).map(|_| put(&server, "?expected_version=1", "{\"n\":2}"));
    let answers = futures::future::join_all(counters).await;
    let won = answers.iter().filter(|(status, _)| *status == 200).count();
    assert_eq!(won, 1, "{answers:?}");
    for (_, answer) in answers.iter().filter(|(status, _)| *status != 200) {
        assert_eq!(answer["code"], "VERSION_MISMATCH", "{answer}");
        assert_eq!(answer["details"]["actual"], 2, "{answer}");
    }
    // The document tells whose event made it.
    let event_ids: Vec<&Value> =
        answers.iter().filter(|(status, _)| *status == 200).map(|(_, a)| &a["event_id"]).collect();
    let read = send(&server, Method::GET, DOC, &[], "").await.1;
    assert_eq!(event_ids, [&read["event_id"]], "{read}");
    assert_eq!(delete(&server, "?expected_version=2").await.0, 200);
    let (status, again) = delete(&server, "?expected_version=2").await;
    assert_eq!((status, &again["details"]["actual"]), (409, &json!(0)), "{again}");
    // Nothing of the document's earlier life stands in the way.
    let (status, anew) = put(&server, create.0, create.1).await;
    assert_eq!((status, &anew["duplicates"], &anew["version"]), (200, &json!(0), &json!(1)));
    let count = server.rows("shop", "SELECT count(*) FROM events").await;
    assert_eq!(count, json!([[4]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_a_name_is_carried_out_once() {
    let server = TestServer::start().await;
    let named = [("idempotency-key", "order 17")];
    let put = async |body: &str| send(&server, Method::PUT, DOC, &named, body).await;
    let first = put("{\"a\":1}").await.1;
    assert_eq!((&first["version"], &first["duplicates"]), (&json!(1), &json!(0)));
    let (status, again) = put("{ \"a\": 1 }").await;
    assert_eq!((status, &again["duplicates"], &again["seq"]), (200, &json!(1), &first["seq"]));
    let (status, other) = put("{\"a\":2}").await;
    assert_eq!((status, &other["code"]), (409, &json!("CONFLICT")), "{other}");
    let (status, other) = send(&server, Method::DELETE, DOC, &named, "").await;
    assert_eq!((status, &other["code"]), (409, &json!("CONFLICT")), "{other}");
    let unnamed = [("idempotency-key", "")];
    let (status, _) = send(&server, Method::PUT, DOC, &unnamed, "{}").await;
    assert_eq!(status, 400);
    assert_eq!(users(&server).await, json!([["u-1", "{\"a\":1}", 1]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_of_the_catalog_that_takes_no_events_gets_no_documents() {
    let server = TestServer::start().await;
    // Events that carry this text go to `sales`.
    let made = json!({"namespace": ["Sales"]}).to_string();
    let made = server.post("/catalog/v1/namespaces", "application/json", made).await;
    assert_eq!(made.status(), 200);
    for (method, path, body) in [
        (Method::PUT, "collections/users/docs/u-1", "{}"),
        (Method::DELETE, "collections/users/docs/u-1", ""),
        (Method::POST, "collections/users/restore", "{\"at\":\"seq:0\"}"),
        (Method::POST, "restore", "{\"at\":\"seq:0\"}"),
    ] {
        let (status, answer) = send(&server, method, &format!("/v1/Sales/{path}"), &[], body).await;
        assert_eq!((status, &answer["code"]), (404, &json!("NOT_FOUND")), "{path}: {answer}");
    }
    let (status, answer) = server.query("sales", &json!({"sql": "SELECT 1 FROM events"})).await;
    assert_ne!(status, 200, "{answer}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_keeps_its_numbers_and_may_not_be_too_large() {
    let server = TestServer::start().await;
    let doc = "{\"n\":12345678901234567890123,\"m\":1.10}";
    assert_eq!(put(&server, "", doc).await.0, 200);
    assert_eq!(put(&server, "", "{}").await.0, 200);
    let back = "{\"at\":\"seq:1\"}";
    let path = "/v1/shop/collections/users/restore";
    assert_eq!(send(&server, Method::POST, path, &[], back).await.0, 200);
    assert_eq!(users(&server).await, json!([["u-1", doc, 3]]));
    let large = format!("{{\"n\":\"{}\"}}", "x".repeat(1 << 20));
    let (status, answer) = put(&server, "", &large).await;
    assert_eq!((status, &answer["code"]), (400, &json!("EVENT_TOO_LARGE")), "{answer}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_no_deeper_than_that_of_an_event() {
    let server = TestServer::start().await;
    let nested =
        |levels: usize| format!("{{\"a\":{}1{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
    let ingest = async |doc: &str| {
        let event =
            format!("{{\"collection\":\"users\",\"key\":\"u-2\",\"op\":\"c\",\"after\":{doc}}}");
        let headers = [("x-namespace", "shop"), ("content-type", "application/json")];
        send(&server, Method::POST, "/ingest", &headers, &event).await
    };
    for levels in [64, 65, 66, 300, 100_000] {
        let (status, answer) = put(&server, "", &nested(levels)).await;
        assert_eq!((status, &answer["code"]), (400, &json!("TOO_DEEP")), "{levels}: {answer}");
    }
    assert_eq!(put(&server, "", &nested(63)).await.0, 200);
    // The way of events has the same limit.
    let (_, answer) = ingest(&nested(64)).await;
    assert_eq!(answer["errors"][0]["code"], "TOO_DEEP", "{answer}");
    assert_eq!(ingest(&nested(63)).await.0, 200);
    assert_eq!(users(&server).await.as_array().unwrap().len(), 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_writers_that_expect_the_same_version_one_wins() {
    let server = TestServer::start().await;
    assert_eq!(put(&server, "", "{}").await.0, 200);
    for version in 1..4_u64 {
        let query = format!("?expected_version={version}");
        let bodies: Vec<String> = (0..6).map(|n| format!("{{\"n\":{n}}}")).collect();
        let writers = bodies.iter().map(|body| put(&server, &query, body));
        let answers = futures::future::join_all(writers).await;
        let won: Vec<usize> = (0..6).filter(|n| answers[*n].0 == 200).collect();
        assert_eq!(won.len(), 1, "{answers:?}");
        let lost = answers.iter().filter(|(status, _)| *status != 200);
        for (status, answer) in lost {
            assert_eq!((*status, &answer["details"]["actual"]), (409, &json!(version + 1)));
        }
        let expected = json!([["u-1", bodies[won[0]], version + 1]]);
        assert_eq!(users(&server).await, expected);
    }
    // Without a version all of them are written, one after the other.
    let bodies: Vec<String> = (0..6).map(|n| format!("{{\"m\":{n}}}")).collect();
    let writers = bodies.iter().map(|body| put(&server, "", body));
    let mut versions: Vec<u64> = futures::future::join_all(writers)
        .await
        .iter()
        .map(|(_, answer)| answer["version"].as_u64().unwrap())
        .collect();
    versions.sort_unstable();
    assert_eq!(versions, [5, 6, 7, 8, 9, 10]);
    server.stop().await;
}
