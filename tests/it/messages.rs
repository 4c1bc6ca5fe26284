//! What users read when something is wrong: each message says what to change.

use crate::{
    access::Guarded,
    admin::icecore,
    harness::{TestServer, events},
};
use icecore_lake::clock::Clock;
use reqwest::Method;
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
            "no column `e.sequence_no`; there are 55 columns; DESCRIBE lists those of a table",
        ),
        ("SELECT x", "no column `x`; the statement reads no table"),
        (
            "SELECT *, count(*) FROM events GROUP BY type",
            "is selected next to an aggregate: add it to GROUP BY, or use an aggregate such as min(",
        ),
        ("SELECT * FROM events WHERE id = ?", "write parameters as $1, $2 …"),
        (
            "SELECT quantile(seq) FROM events",
            "no function `quantile`; did you mean `quantile_cont`?",
        ),
        ("SELECT date_trunk('day', ts) FROM events", "did you mean `date_trunc`?"),
        ("SELECT xyzzy(seq) FROM events", "no function `xyzzy`; docs/sql.md lists"),
        ("SELECT id->>'order' FROM events", "`e-0` is not JSON"),
        ("SELECT data.amount FROM events", "json_extract_string(data, '$.order')"),
        ("SELECT * FROM events WHERE id = \"o-1\"", "a text is in single quotes: 'o-1'"),
        ("SELECT 1/0", "division by zero"),
        ("INSERT INTO events SELECT 1", "send events with POST /ingest"),
    ] {
        let text = refused(&server, &json!({ "sql": sql })).await;
        assert!(text.contains(expected), "{sql}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_takes_too_long_is_told_what_makes_it_shorter() {
    let server = TestServer::start().await;
    server.ingest(&events(0..250)).await;
    let sql =
        "SELECT count(*) FROM events a, events b, events c WHERE (a.seq + b.seq + c.seq) % 7 = 8";
    let text = refused(&server, &json!({ "sql": sql, "timeout_ms": 100 })).await;
    assert_eq!(text, "the query took longer than 100 ms; narrow it by type or ts");
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
        text.contains("has no snapshot at 2020-01-01T00:00:00.000Z; the first one is from 20"),
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

#[tokio::test]
async fn a_statement_that_is_no_sql_is_told_line_and_column() {
    let server = TestServer::start().await;
    let (status, answer) =
        server.query("n", &json!({ "sql": "SELECT 1,\n  count(*) fro events" })).await;
    assert_eq!(status, 400, "{answer}");
    assert_eq!(answer["code"], "INVALID_SQL");
    assert_eq!(answer["details"], json!({ "line": 2, "column": 16 }));
    let text = answer["error"].as_str().unwrap();
    assert!(text.starts_with("the statement does not parse at line 2, column 16: "), "{text}");
}

#[tokio::test]
async fn a_time_in_the_future_is_no_point_to_go_back_to() {
    let clock = Clock::manual(1_795_901_400_000);
    let server = TestServer::start_at(tempfile::tempdir().unwrap(), &[], clock).await;
    server.ingest(&events(0..2)).await;
    server.commit("shop.example").await;
    let at = |as_of: &str| json!({ "sql": "SELECT count(*) FROM events", "as_of": as_of });
    // Clocks differ by seconds.
    for time in ["2026-11-28T21:30:01Z", "2026-11-28T21:30:05Z"] {
        let (status, answer) = server.query("shop.example", &at(time)).await;
        assert_eq!((status, &answer["rows"]), (200, &json!([[2]])), "{answer}");
    }
    assert_eq!(
        refused(&server, &at("2026-11-28T21:30:05.001Z")).await,
        "2026-11-28T21:30:05.001Z is in the future: the server's clock is at 2026-11-28T21:30:00.000Z; omit the time to read the newest snapshot"
    );
    let path = "/v1/shop.example/tables/events/rollback";
    let body = json!({ "time": "2030-01-01T00:00:00Z" }).to_string();
    let answer: Value = server.post(path, "application/json", body).await.json().await.unwrap();
    let text = answer["error"].as_str().unwrap();
    assert!(text.starts_with("2030-01-01T00:00:00.000Z is in the future"), "{text}");
}

#[tokio::test]
async fn a_namespace_without_events_is_told_which_ones_have_some() {
    let server = TestServer::start().await;
    let ask = json!({ "sql": "SELECT count(*) FROM events" });
    let (status, answer) = server.query("default", &ask).await;
    assert_eq!((status, &answer["error"]), (404, &json!("namespace `default` has no events")));
    // Also of events that are in no table yet.
    server.ingest(&json!({ "type": "t", "ns": "b.example" })).await;
    server.ingest(&json!({ "type": "t", "ns": "a" })).await;
    server.commit("a").await;
    let (status, answer) = server.query("default", &ask).await;
    assert_eq!(status, 404);
    assert_eq!(answer["error"], "namespace `default` has no events; there are: a, b.example");
    assert_eq!(answer["details"], json!({ "namespaces": ["a", "b.example"] }));
    for name in 0..9 {
        server.ingest(&json!({ "type": "t", "ns": format!("n{name}") })).await;
    }
    let (_, answer) = server.query("default", &ask).await;
    let expected = "namespace `default` has no events; there are: a, b.example, n0, n1, n2, …";
    assert_eq!(answer["error"], expected);
    for path in ["/v1/default/tables", "/v1/default/tables/events/snapshots"] {
        let response = server.get(path).await;
        assert_eq!(response.status(), 404, "{path}");
        let answer: Value = response.json().await.unwrap();
        let text = answer["error"].as_str().unwrap();
        assert!(text.contains("there are: a, b.example, n0"), "{path}: {text}");
    }
}

#[tokio::test]
async fn nobody_is_told_of_namespaces_that_they_may_not_read() {
    let guarded = Guarded::start().await;
    for ns in ["a", "b", "c"] {
        let event = json!({ "type": "t", "ns": ns });
        assert_eq!(guarded.post(&guarded.admin, "/ingest", &event).await.0, 200);
    }
    guarded.post(&guarded.admin, "/v1/b/commit", &Value::Null).await;
    let ask = json!({ "sql": "SELECT count(*) FROM events" });
    let reader =
        guarded.token(&json!({ "name": "t", "scopes": ["read:b", "read:d", "ingest:c"] })).await;
    // Of what is there and of what is not, alike.
    for ns in ["a", "default"] {
        let (status, answer) = guarded.post(&reader, &format!("/v1/{ns}/sql"), &ask).await;
        assert_eq!(status, 404, "{answer}");
        assert_eq!(answer["error"], format!("Namespace does not exist: {ns}; there is: b"));
    }
    let (status, answer) = guarded.post(&reader, "/v1/c/sql", &ask).await;
    let text = "the token may only send events to namespace `c`: this needs the scope `read:c`";
    assert_eq!((status, &answer["error"]), (404, &json!(text)), "{answer}");
    let (_, answer) = guarded.post(&reader, "/v1/d/sql", &ask).await;
    assert_eq!(answer["error"], "namespace `d` has no events; there is: b");
    let (_, answer) = guarded.get(&reader, "/v1/a/tables").await;
    assert_eq!(answer["error"], "Namespace does not exist: a; there is: b");
    let writer = guarded.token(&json!({ "name": "t", "scopes": ["ingest:a"] })).await;
    let (_, answer) = guarded.post(&writer, "/v1/b/sql", &ask).await;
    assert_eq!(answer["error"], "Namespace does not exist: b", "{answer}");
}

#[tokio::test]
async fn a_query_parameter_that_does_not_fit_is_named() {
    let server = TestServer::start().await;
    let ask = async |method: &str, path: &str| {
        let method = method.parse().unwrap();
        let request = server.http.request(method, format!("{}{path}", server.url)).body("{}");
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 400, "{path}");
        response.json::<Value>().await.unwrap()["error"].as_str().unwrap().to_owned()
    };
    for (method, path, expected) in [
        (
            "POST",
            "/ingest?ns=t2",
            "unknown query parameter `ns`; known are `ack`, `atomic`, `backfill`",
        ),
        ("POST", "/ingest?atomic=yes", "query parameter `atomic`: "),
        (
            "POST",
            "/ingest?ack=never",
            "query parameter `ack`: unknown variant `never`, expected `durable` or `committed`",
        ),
        ("GET", "/v1/n/dead-letters?limit=x", "query parameter `limit`: "),
        (
            "DELETE",
            "/v1/n/dead-letters?after=x",
            "unknown query parameter `after`; known are `before` or `dry_run`",
        ),
        (
            "POST",
            "/v1/n/dead-letters/retry?force=1",
            "unknown query parameter `force`; known are `backfill`",
        ),
        ("GET", "/v1/n/tables/events/snapshots?limit=-1", "query parameter `limit`: "),
        ("DELETE", "/v1/n/tables/t?force=1", "unknown query parameter `force`; known are `purge`"),
        (
            "DELETE",
            "/v1/n/tables/t/refs/r?kind=tag",
            "unknown query parameter `kind`; known are `type`",
        ),
        (
            "GET",
            "/admin/audit?from=1",
            "unknown query parameter `from`; known are `after` or `limit`",
        ),
    ] {
        let text = ask(method, path).await;
        assert!(text.starts_with(expected), "{path}: {text}");
    }
}

#[tokio::test]
async fn ids_of_snapshots_are_texts_too_and_may_be_given_as_texts() {
    let server = TestServer::start().await;
    server.ingest(&events(0..2)).await;
    server.commit("shop.example").await;
    let table = "/v1/shop.example/tables/events";
    let get = async |path: String| server.get(&path).await.json::<Value>().await.unwrap();
    let listed = get(format!("{table}/snapshots")).await["snapshots"][0].clone();
    let text = listed["snapshot_str"].as_str().unwrap().to_owned();
    assert_eq!(listed["snapshot"].to_string(), text);
    let named = json!({ "name": "a", "type": "tag", "snapshot": text }).to_string();
    let made = server.post(&format!("{table}/refs"), "application/json", named).await;
    assert_eq!(made.json::<Value>().await.unwrap()["snapshot_str"], text.as_str());
    let tables = get("/v1/shop.example/tables".to_owned()).await;
    assert_eq!(tables["tables"][0]["snapshot_str"], text.as_str(), "{tables}");
    let refs = get(format!("{table}/refs")).await["refs"].clone();
    assert!(
        refs.as_array().unwrap().iter().all(|row| row["snapshot_str"] == text.as_str()),
        "{refs}"
    );
    let ask = json!({ "sql": "SELECT count(*) FROM events", "as_of": text });
    let (_, answer) = server.query("shop.example", &ask).await;
    assert_eq!(answer["snapshot_str"], text.as_str(), "{answer}");
    let wrong = json!({ "name": "b", "type": "tag", "snapshot": "12x" }).to_string();
    let refused = server.post(&format!("{table}/refs"), "application/json", wrong).await;
    let answer: Value = refused.json().await.unwrap();
    assert!(answer["error"].as_str().unwrap().contains("`12x` is not a snapshot id"), "{answer}");
}

#[tokio::test]
async fn a_table_that_is_not_there_is_told_which_ones_are() {
    let server = TestServer::start().await;
    server.ingest(&json!({"type": "t", "ns": "mine"})).await;
    let body = json!({"namespace": ["theirs"]});
    assert_eq!(server.ingest_at("/catalog/v1/namespaces", &body).await.0, 200);
    for (namespace, expected) in
        [("mine", "it has `dead_letters`, `events`"), ("theirs", "it has no tables")]
    {
        let request = json!({"sql": "SELECT * FROM orders"});
        let (status, answer) = server.query(namespace, &request).await;
        let text = answer["error"].as_str().unwrap();
        assert!(status == 400 && text.ends_with(expected), "{namespace}: {answer}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_body_of_another_form_is_told_what_it_is_not() {
    let server = TestServer::start().await;
    for path in ["/v1/shop.example/sql", "/v1/shop.example/dead-letters/retry"] {
        let (status, answer) = server.ingest_at(path, &json!(["select 1"])).await;
        let text = answer["error"].as_str().unwrap();
        assert!(status == 400 && text.ends_with("it is a list, not an object"), "{path}: {answer}");
        let (_, answer) = server.ingest_at(path, &json!("select 1")).await;
        assert!(!answer.to_string().contains("struct"), "{path}: {answer}");
    }
    let (status, answer) = server.ingest_at("/catalog/v1/namespaces", &json!(7)).await;
    let text = answer["error"]["message"].as_str().unwrap();
    assert!(status == 400 && text.contains("expected an object"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn a_limit_beyond_all_rows_and_a_name_that_is_none_are_told_in_their_own_words() {
    let server = TestServer::start().await;
    server.ingest(&events(0..2)).await;
    let request =
        json!({ "sql": "SELECT count(*) FROM events", "limit": u64::MAX, "params": null });
    let (status, answer) = server.query("shop.example", &request).await;
    assert_eq!((status, &answer["rows"]), (200, &json!([[2]])), "{answer}");
    server.commit("shop.example").await;
    let refs = "/v1/shop.example/tables/events/refs";
    let (status, answer) = server.ingest_at(refs, &json!({ "name": "", "type": "tag" })).await;
    assert_eq!(status, 400, "{answer}");
    assert!(answer["error"].as_str().unwrap().starts_with("Invalid name: ``"), "{answer}");
}

#[tokio::test]
async fn an_event_of_another_time_is_told_how_it_is_sent() {
    let server = TestServer::start().await;
    for (ts, side) in [("2001-01-01T00:00:00Z", "before"), ("2999-01-01T00:00:00Z", "after")] {
        let event = json!({ "id": side, "type": "t", "ns": "n", "ts": ts });
        let (status, reply) = server.ingest(&event).await;
        let error = &reply["errors"][0];
        assert_eq!((status, &error["code"]), (400, &json!("TS_WINDOW")), "{reply}");
        let reason = error["reason"].as_str().unwrap();
        assert!(
            reason.contains(ts) && reason.contains(&format!("h {side} its arrival")),
            "{reason}"
        );
        assert!(reason.ends_with("; send it with `backfill=true` if it is right"), "{reason}");
        let (status, reply) = server.ingest_at("/ingest?backfill=true", &event).await;
        assert_eq!(status, 200, "{reply}");
    }
    server.stop().await;
}

#[tokio::test]
async fn who_may_not_do_something_is_told_the_scope_and_its_namespace() {
    let guarded = Guarded::start().await;
    let token = guarded.token(&json!({ "name": "t", "scopes": ["ingest:a", "read:b"] })).await;
    let events = json!({ "events": [{ "type": "t", "ns": "a" }, { "type": "t", "ns": "B.c" }] });
    let (status, reply) = guarded.post(&token, "/ingest", &events).await;
    assert_eq!((status, reply["errors"].as_array().unwrap().len()), (207, 1), "{reply}");
    assert_eq!(
        reply["errors"][0]["reason"],
        "the token may not send events to namespace `B.c`: that needs the scope `ingest:b_c`"
    );
    let event = json!({ "type": "t", "ns": "b" });
    assert_eq!(guarded.post(&guarded.admin, "/ingest", &event).await.0, 200);
    guarded.post(&guarded.admin, "/v1/b/commit", &Value::Null).await;
    for (method, path, scope) in
        [(Method::DELETE, "/v1/b/tables/events", "write:b"), (Method::GET, "/admin/jobs", "admin")]
    {
        let (status, answer) = guarded.call(method, &token, path, &Value::Null).await;
        let expected = format!("the token does not allow this: it needs the scope `{scope}`");
        assert_eq!((status, &answer["error"]), (403, &json!(expected)), "{path}");
    }
    guarded.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_table_of_the_server_stays_is_told_with_another_way() {
    let server = TestServer::start().await;
    server.ingest(&events(0..2)).await;
    let snapshot = server.commit("shop.example").await["events"].to_string();
    let stays = |what: &str| {
        format!(
            "shop_example.events is written by this server and cannot be {what}; copy its rows to a table of your own, and delete those that shall go"
        )
    };
    let (dropped, renamed) = (stays("dropped"), stays("renamed"));
    let moved = "moving `main` would lose acknowledged rows; read the earlier state with time travel, or create a branch of it";
    for (words, expected) in [
        (&["drop", "events"][..], dropped.as_str()),
        (&["rename", "events", "mine"], renamed.as_str()),
        (&["rollback", "events", "--to", snapshot.as_str()], moved),
    ] {
        let words = [&["catalog"][..], words, &["--ns", "shop.example"]].concat();
        let (is_done, said) = icecore(&server, &words);
        assert!(!is_done && said.trim_end().ends_with(expected), "{words:?}: {said}");
    }
    let path = "/catalog/v1/namespaces/shop_example/tables/events";
    let request = server.http.delete(format!("{}{path}", server.url));
    let answer: Value = request.send().await.unwrap().json().await.unwrap();
    assert_eq!(answer["error"]["message"], dropped);
    let named = |name: &str| json!({ "namespace": ["shop_example"], "name": name });
    let body = json!({ "source": named("events"), "destination": named("mine") });
    let (status, answer) = server.ingest_at("/catalog/v1/tables/rename", &body).await;
    assert_eq!((status, &answer["error"]["message"]), (400, &json!(renamed)));
    server.stop().await;
}
