//! What users read when something is wrong: each message says what to change.

use crate::harness::{TestServer, events};
use serde_json::{Value, json};

async fn refused(server: &TestServer, request: &Value) -> String {
    let (status, answer) = server.query("shop.example", request).await;
    assert!((400..500).contains(&status), "{status} {answer}");
    answer["error"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_statement_that_fails_is_told_what_to_change() {
    let server = TestServer::start().await;
    server.ingest(&events(0..2)).await;
    for (sql, expected) in [
        ("SELECT typ FROM events", "no column `typ`; did you mean `type`?"),
        (
            "SELECT e.sequence_no FROM events e",
            "no column `e.sequence_no`; there are 54 columns, DESCRIBE lists a table's",
        ),
        ("SELECT x", "no column `x`; the statement reads no table"),
        (
            "SELECT *, count(*) FROM events GROUP BY type",
            "is selected beside an aggregate: put it into GROUP BY, or into an aggregate such as min(",
        ),
        ("SELECT * FROM events WHERE id = ?", "a parameter is written $1, $2 …"),
    ] {
        let text = refused(&server, &json!({ "sql": sql })).await;
        assert!(text.contains(expected), "{sql}: {text}");
    }
}

#[tokio::test]
async fn a_point_in_time_that_is_not_there_is_told_which_ones_are() {
    let server = TestServer::start().await;
    server.ingest(&events(0..2)).await;
    let at = |as_of: &str| json!({ "sql": "SELECT count(*) FROM events", "as_of": as_of });
    let text = refused(&server, &at("2020-01-01T00:00:00Z")).await;
    let expected = "table `events` has no snapshot at 2020-01-01T00:00:00.000Z; it has none yet";
    assert_eq!(text, expected);
    server.commit("shop.example").await;
    let text = refused(&server, &at("2020-01-01T00:00:00Z")).await;
    assert!(
        text.contains("has no snapshot at 2020-01-01T00:00:00.000Z; the first one is of 20"),
        "{text}"
    );
    for name in ["2026-11-28", "yesterday", "2026-11-28 12:00"] {
        let text = refused(&server, &at(name)).await;
        let expected = format!(
            "table `events` has no branch or tag `{name}`; a time is written as 2026-11-20T12:00:00Z, with its zone"
        );
        assert_eq!(text, expected);
    }
    assert_eq!(
        refused(&server, &at("nightly")).await,
        "table `events` has no branch or tag `nightly`"
    );
}

#[tokio::test]
async fn an_administrator_needs_no_content_type() {
    let server = TestServer::start().await;
    server.ingest(&events(0..2)).await;
    let snapshot = server.commit("shop.example").await["events"].clone();
    let body = json!({"name": "a", "type": "tag", "snapshot": snapshot}).to_string();
    let path = "/v1/shop.example/tables/events/refs";
    let made = server.post(path, "application/x-www-form-urlencoded", body).await;
    assert_eq!(made.status(), 200, "{}", made.text().await.unwrap());
    let wrong = server.post(path, "application/json", "{\"nam\":1}").await;
    assert_eq!(wrong.status(), 400);
    let text = wrong.json::<Value>().await.unwrap()["error"].as_str().unwrap().to_owned();
    assert!(text.contains("unknown field `nam`"), "{text}");
}
