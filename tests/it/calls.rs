//! The routes that the libraries of Segment and RudderStack post to, as they do it.

use crate::{access::Guarded, harness::TestServer};
use reqwest::Method;
use serde_json::{Value, json};

/// Posts as a library does: the write key is the user name, there is no password.
async fn post(server: &TestServer, key: &str, path: &str, body: &Value) -> (u16, Value) {
    let request = server.http.post(format!("{}{path}", server.url));
    let answer = request.basic_auth(key, Some("")).json(body).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

fn call(kind: &str, message: &str) -> Value {
    json!({ "type": kind, "messageId": message, "userId": "ada", "event": "Bought", "properties": {"n": 1} })
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_and_single_calls_of_libraries_are_taken_under_their_paths() {
    let guarded = Guarded::start().await;
    let made =
        json!({ "name": "web", "scopes": ["ingest:shop", "read:shop"], "namespace": "shop" });
    let key = guarded.token(&made).await;
    let server = &guarded.server;
    for (n, path) in ["batch", "b", "import"].iter().enumerate() {
        let batch = [call("track", &format!("b{n}")), call("page", &format!("p{n}"))];
        let body = json!({ "batch": batch, "sentAt": "2026-11-29T10:00:00Z", "writeKey": key });
        let (status, answer) = post(server, &key, &format!("/v1/{path}"), &body).await;
        assert_eq!((status, &answer["received"]), (200, &json!(2)), "{path}: {answer}");
    }
    let kinds = ["track", "identify", "page", "screen", "group", "alias"];
    for kind in kinds {
        for path in [kind, &kind[..1]] {
            // Who posts a single call need not say again what it is.
            let body = json!({ "messageId": path, "userId": "ada", "event": "Bought" });
            let (status, answer) = post(server, &key, &format!("/v1/{path}"), &body).await;
            assert_eq!((status, &answer["ok"]), (200, &json!(true)), "{path}: {answer}");
            let again = post(server, &key, &format!("/v1/{path}"), &body).await;
            assert_eq!((again.0, &again.1["duplicates"]), (200, &json!(1)), "{path}");
        }
    }
    let query = json!({ "sql": "SELECT type, count(*) FROM events GROUP BY type ORDER BY type" });
    let (_, answer) = guarded.call(Method::POST, &key, "/v1/shop/sql", &query).await;
    let expected = json!([
        ["alias", 2],
        ["group", 2],
        ["identify", 2],
        ["page", 5],
        ["screen", 2],
        ["track", 5]
    ]);
    assert_eq!(answer["rows"], expected, "{answer}");
    assert_eq!(post(server, "nobody", "/v1/batch", &json!({ "batch": [] })).await.0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_library_is_not_asked_to_send_a_batch_again_that_was_taken() {
    let server = TestServer::start().await;
    let bad = json!({ "type": "no type", "messageId": "bad" });
    let body = json!({ "batch": [call("track", "good"), bad] });
    let (status, answer) = post(&server, "any", "/v1/batch", &body).await;
    assert_eq!((status, &answer["ok"]), (200, &json!(false)), "{answer}");
    let letter = answer["errors"][0]["deadLetter"].as_str().unwrap();
    let kept = server.get(&format!("/v1/default/dead-letters/{letter}")).await;
    assert!(kept.text().await.unwrap().contains("no type"));
    let (status, answer) = post(&server, "any", "/v1/batch", &json!({ "batch": [bad] })).await;
    assert_eq!(status, 400, "nothing of it was taken: {answer}");
    // A namespace may be called as a route.
    let event = json!({ "type": "t", "ns": "batch" });
    assert_eq!(server.ingest(&event).await.0, 200);
    assert_eq!(server.rows("batch", "SELECT count(*) FROM events").await, json!([[1]]));
    server.stop().await;
}
