//! Tables at points of their own in one statement, and answers that are made again from their basis, over HTTP.

use crate::harness::{TestServer, events};
use serde_json::{Value, json};

const NAMESPACE: &str = "shop.example";
const EVERY: &str = "SELECT count(*), count(DISTINCT id), max(seq) FROM events";

/// The rows and the basis of an answer.
async fn asked(server: &TestServer, request: Value) -> (Value, Value) {
    let (status, answer) = server.query(NAMESPACE, &request).await;
    assert_eq!(status, 200, "{request}: {answer}");
    (answer["rows"].clone(), answer["basis"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_basis_repeats_an_answer_whatever_came_and_was_compacted_since() {
    let server = TestServer::start().await;
    for commit in 0..4 {
        server.ingest(&events(commit * 10..commit * 10 + 10)).await;
        server.commit(NAMESPACE).await;
    }
    server.ingest(&events(40..45)).await;
    let (rows, basis) = asked(&server, json!({ "sql": EVERY })).await;
    assert_eq!(rows, json!([[45, 45, 45]]));
    assert_eq!(basis["seq"], 45, "{basis}");
    assert!(basis["snapshots"]["events"].is_i64() && basis["clock"].is_string(), "{basis}");

    server.ingest(&events(45..60)).await;
    let again = json!({ "sql": EVERY, "basis": basis });
    assert_eq!(asked(&server, again.clone()).await, (rows.clone(), basis.clone()));
    server.commit(NAMESPACE).await;
    let answer = server.post("/admin/jobs/compact", "application/json", "").await;
    assert_eq!(answer.status(), 200);
    assert_eq!(asked(&server, again.clone()).await, (rows.clone(), basis.clone()));
    assert_eq!(asked(&server, json!({ "sql": EVERY })).await.0, json!([[60, 60, 60]]));

    // The other formats have it in a header, which is sent back as it is.
    let body = json!({ "sql": EVERY, "basis": basis }).to_string();
    let answer = server
        .http
        .post(format!("{}/v1/{NAMESPACE}/sql", server.url))
        .header("content-type", "application/json")
        .header("accept", "text/csv")
        .body(body)
        .send()
        .await
        .unwrap();
    let header = answer.headers()["x-icecore-basis"].to_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(header).unwrap(), basis);
    assert!(answer.text().await.unwrap().ends_with("45,45,45\n"));

    let removed = json!([
        { "action": "remove-snapshots", "snapshot-ids": [basis["snapshots"]["events"]] }
    ]);
    let body = json!({ "requirements": [], "updates": removed }).to_string();
    let path = "/catalog/v1/namespaces/shop_example/tables/events";
    assert_eq!(server.post(path, "application/json", body).await.status(), 200);
    let (status, answer) = server.query(NAMESPACE, &again).await;
    assert_eq!((status, &answer["code"]), (410, &json!("GONE")), "{answer}");
    assert_eq!(answer["details"]["nearest"].as_array().map(Vec::len), Some(1), "{answer}");
    assert!(answer["error"].as_str().unwrap().contains("cannot be repeated"), "{answer}");
    // Before it there were no more than a handful.
    for (back, told) in [(4, (410, "GONE")), (99, (404, "NOT_FOUND"))] {
        let request = json!({ "sql": format!("SELECT count(*) FROM \"events@~{back}\"") });
        let (status, answer) = server.query(NAMESPACE, &request).await;
        assert_eq!((status, answer["code"].as_str().unwrap()), told, "{answer}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bookmark_is_the_state_after_its_last_event() {
    let server = TestServer::start().await;
    let change = |key: &str, bookmark: &str| json!({ "op": "c", "store": "s", "collection": "users", "key": key, "ns": NAMESPACE, "bookmark": bookmark, "after": { "a": 1 } });
    let changes = [change("1", "b1"), change("2", "it's"), change("3", "it's"), change("4", "b4")];
    let (status, reply) = server.ingest(&json!({ "events": changes[..3] })).await;
    assert_eq!(status, 200, "{reply}");
    for is_committed in [false, true] {
        for (bookmark, expected) in [("b1", 1), ("it''s", 3)] {
            let sql = format!("SELECT count(*) FROM events FOR BOOKMARK AS OF '{bookmark}' AS e");
            let rows = server.rows(NAMESPACE, &sql).await;
            assert_eq!(rows, json!([[expected]]), "{bookmark}, {is_committed}");
        }
        server.commit(NAMESPACE).await;
    }
    server.ingest(&json!({ "events": changes[3..] })).await;
    let added = "SELECT n.\"key\" FROM events n LEFT JOIN events FOR BOOKMARK AS OF $1 AS old ON n.id = old.id WHERE old.id IS NULL";
    let (rows, _) = asked(&server, json!({ "sql": added, "params": ["it's"] })).await;
    assert_eq!(rows, json!([["4"]]));
    // Another event with a bookmark of before is after the answer that is made again.
    let mut request = json!({ "sql": "SELECT count(*) FROM events FOR BOOKMARK AS OF 'b1'" });
    let (rows, basis) = asked(&server, request.clone()).await;
    server.ingest(&json!({ "events": [change("5", "b1")] })).await;
    assert_eq!(asked(&server, request.clone()).await.0, json!([[5]]));
    request["basis"] = basis;
    assert_eq!(asked(&server, request).await.0, rows);
    let (status, answer) = server
        .query(NAMESPACE, &json!({ "sql": "SELECT 1 FROM events FOR BOOKMARK AS OF 'none'" }))
        .await;
    assert_eq!(status, 404, "{answer}");
    server.stop().await;
}
