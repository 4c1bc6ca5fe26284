//! Changes that do not fit what is known of their documents are told, and none of them is lost.

use crate::{access::Guarded, harness::TestServer};
use serde_json::{Value, json};

/// A change of a user with some members more.
fn change(id: u64, op: &str, key: &str, members: &Value) -> Value {
    let mut change =
        json!({ "id": id.to_string(), "ns": "shop", "op": op, "collection": "users", "key": key });
    for (name, value) in members.as_object().unwrap() {
        change[name] = value.clone();
    }
    change
}

fn sent() -> Value {
    json!([
        change(1, "c", "ann", &json!({"after": {"n": 1}, "lsn": 10, "version": 1})),
        change(
            2,
            "u",
            "ann",
            &json!({"before": {"n": 1}, "after": {"n": 2}, "lsn": 11, "version": 2})
        ),
        change(
            3,
            "u",
            "ann",
            &json!({"before": {"n": 1}, "after": {"n": 3}, "lsn": 9, "version": 3})
        ),
        change(4, "c", "bea", &json!({"after": {"n": 1}})),
        change(5, "u", "cay", &json!({"patch": [{"op": "remove", "path": "/n"}]})),
        change(6, "u", "cay", &json!({"after": {"n": 1}, "version": 7})),
        change(7, "u", "cay", &json!({"patch": [{"op": "remove", "path": "/m"}], "version": 6})),
        change(8, "u", "dan", &json!({})),
    ])
}

async fn page(server: &TestServer, query: &str) -> (Vec<String>, Value) {
    let path = format!("/v1/shop/collections/users/anomalies{query}");
    let answer = server.get(&path).await;
    assert_eq!(answer.status(), 200, "{path}");
    let answer: Value = answer.json().await.unwrap();
    let line = |it: &Value| {
        let reason = if it["reason"].is_string() { " and why" } else { "" };
        format!(
            "{} {} {}{reason}",
            it["key"].as_str().unwrap(),
            it["seq"],
            it["kind"].as_str().unwrap()
        )
    };
    let lines = answer["anomalies"].as_array().unwrap().iter().map(line).collect();
    (lines, answer["next"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn anomalies_are_listed_by_key_and_no_change_is_lost() {
    let server = TestServer::start().await;
    let (status, reply) = server.ingest(&sent()).await;
    assert_eq!(status, 200, "{reply}");
    let ann = ["ann 3 prev_mismatch", "ann 3 lsn_went_back"];
    let cay = [
        "cay 5 patch_not_applied and why",
        "cay 7 version_went_back",
        "cay 7 patch_not_applied and why",
    ];
    let dan = ["dan 8 no_image"];
    for round in ["in the log", "in a file"] {
        let all: Vec<&str> = [&ann[..], &cay, &dan].concat();
        assert_eq!(
            page(&server, "").await,
            (all.iter().map(ToString::to_string).collect(), Value::Null),
            "{round}"
        );
        let (lines, next) = page(&server, "?limit=2").await;
        assert_eq!((lines, next), (ann.map(str::to_owned).to_vec(), json!("bea")), "{round}");
        let (lines, next) = page(&server, "?limit=1&after=ann").await;
        assert_eq!((lines, next), (Vec::new(), json!("bea")), "{round}");
        let (lines, next) = page(&server, "?limit=1&after=cay").await;
        assert_eq!((lines, next), (dan.map(str::to_owned).to_vec(), Value::Null), "{round}");
        server.commit("shop").await;
    }
    let users = server.rows("shop", "SELECT key, doc FROM cdc_users ORDER BY key").await;
    let n = |n: u64| format!("{{\"n\":{n}}}");
    assert_eq!(users, json!([["ann", n(3)], ["bea", n(1)], ["cay", n(1)]]));
    let sql = "SELECT document_anomalies(seq, op, ts, after, patch, store, actor, bookmark, id, before, lsn, version) \
         FROM events WHERE collection = 'users' AND key = 'dan'";
    let found = server.rows("shop", sql).await;
    let found = &found[0][0][0];
    assert_eq!((&found["seq"], &found["kind"]), (&json!(8), &json!("no_image")), "{found}");
    // What was before the collection was emptied is no longer told.
    let emptied = json!({"id": "9", "ns": "shop", "collection": "users", "op": "truncate"});
    assert_eq!(server.ingest(&emptied).await.0, 200);
    assert_eq!(page(&server, "").await, (Vec::new(), Value::Null));
    let missing = server.get("/v1/shop/collections/nobody/anomalies").await;
    assert_eq!(missing.status(), 404);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_see_every_row_sees_no_anomalies() {
    let guarded = Guarded::start_with(&[("visibility.filter", "on")]).await;
    assert_eq!(guarded.post(&guarded.admin, "/ingest", &sent()).await.0, 200);
    let reader = guarded.token(&json!({"name": "r", "scopes": ["read:shop"]})).await;
    let path = "/v1/shop/collections/users/anomalies";
    assert_eq!(guarded.get(&guarded.admin, path).await.0, 200);
    let (status, answer) = guarded.get(&reader, path).await;
    assert_eq!((status, &answer["code"]), (403, &json!("FORBIDDEN")), "{answer}");
    guarded.server.stop().await;
}
