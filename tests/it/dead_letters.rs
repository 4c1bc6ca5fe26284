//! What becomes of refused events: kept as they came, listed, shown, sent again, discarded.

use crate::{access::Guarded, admin::icecore, harness::TestServer, process::post_and_die};
use icecore_lake::clock::Clock;
use reqwest::Method;
use serde_json::{Value, json};

/// The dead letter that a reply names for its only refused event.
fn letter(reply: &Value) -> String {
    let errors = reply["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 1, "{reply}");
    errors[0]["deadLetter"].as_str().unwrap_or_else(|| panic!("no dead letter: {reply}")).to_owned()
}

impl TestServer {
    /// Sends bytes with these headers and gives status and reply.
    async fn send(&self, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> (u16, Value) {
        let mut request = self.http.post(format!("{}/ingest", self.url)).body(body.into());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    /// What is kept under this id: namespace, reason, payload.
    async fn kept(&self, namespace: &str, id: &str) -> Value {
        let sql = format!("SELECT ns, reason, payload FROM dead_letters WHERE id = '{id}'");
        self.rows(namespace, &sql).await[0].clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_is_kept_as_it_came() {
    let server = TestServer::start().await;
    let first = r#"{"id":"x","type":"a","data":{"n":1}}"#;
    assert_eq!(server.send(&[], first).await.0, 200);
    for other in [
        // The first says nothing that has no column.
        r#"{ "data" : {"n":2},"type":"a" ,"id":"x" }"#,
        r#"{"id":"x","type":"a","data":{"n":1e0},"shop":"ünï"}"#,
    ] {
        for (body, format) in [
            (other.to_owned(), "application/json"),
            (format!("[\n{other}\n]"), "application/json"),
            (format!("{{\"batchId\":\"b\", \"events\": [{other}] }}"), "application/json"),
            (format!("{other}\r\n"), "application/x-ndjson"),
        ] {
            let (status, reply) = server.send(&[("content-type", format)], body).await;
            assert_eq!((status, &reply["errors"][0]["status"]), (400, &json!("conflict")));
            let kept = server.kept("default", &letter(&reply)).await;
            assert_eq!(kept, json!(["default", "CONFLICT", other]));
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_a_namespace_whose_name_is_taken_is_kept_in_the_requests_own() {
    let server = TestServer::start().await;
    assert_eq!(server.send(&[], r#"{"id":"1","type":"a","ns":"a.b"}"#).await.0, 200);
    let event = r#"{"id":"2", "type":"a", "ns":"a_b"}"#;
    for (headers, namespace) in [
        (vec![], "default"),
        (vec![("x-namespace", "mine")], "mine"),
        // Another spelling of the name; the name itself means the namespace that has it.
        (vec![("x-namespace", "A.b")], "default"),
    ] {
        let (status, reply) = server.send(&headers, event).await;
        assert_eq!((status, &reply["errors"][0]["code"]), (400, &json!("INVALID_NAMESPACE")));
        let kept = server.kept(namespace, &letter(&reply)).await;
        assert_eq!(kept, json!(["a_b", "INVALID_NAMESPACE", event]));
    }
    // Without a name of its own in the event it is the same.
    let (_, reply) = server.send(&[("x-namespace", "A.b")], r#"{"type":"a"}"#).await;
    let kept = server.kept("default", &letter(&reply)).await;
    assert_eq!(kept, json!(["A.b", "INVALID_NAMESPACE", r#"{"type":"a"}"#]));
    // A broken event of such a namespace, too.
    let (_, reply) = server.send(&[], r#"{"ns":"a_b","id":"3"}"#).await;
    let kept = server.kept("default", &letter(&reply)).await;
    assert_eq!(kept, json!(["a_b", "MISSING_TYPE", r#"{"ns":"a_b","id":"3"}"#]));
    assert_eq!(server.rows("a.b", "SELECT count(*) FROM dead_letters").await, json!([[0]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_every_name_is_taken_it_lies_with_the_owner() {
    let server = TestServer::start().await;
    for owner in ["Default", "a.b"] {
        let event = json!({"id": "1", "type": "a", "ns": owner}).to_string();
        assert_eq!(server.send(&[], event).await.0, 200);
    }
    let (_, reply) = server.send(&[], r#"{"id":"2","type":"a","ns":"a_b"}"#).await;
    let kept = server.kept("Default", &letter(&reply)).await;
    assert_eq!(kept, json!(["a_b", "INVALID_NAMESPACE", r#"{"id":"2","type":"a","ns":"a_b"}"#]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_the_sender_may_not_send_is_kept_as_it_came() {
    let guarded = Guarded::start().await;
    let sender = guarded.token(&json!({"name": "s", "scopes": ["ingest:mine"]})).await;
    let event = r#"{"type" : "a", "ns":"other", "id":"2", "data":{ "n" : 1.0 }}"#;
    for namespace in [None, Some("other")] {
        let mut request = guarded.server.http.post(format!("{}/ingest", guarded.server.url));
        request = request.bearer_auth(&sender).body(event);
        if let Some(namespace) = namespace {
            request = request.header("x-namespace", namespace);
        }
        let reply: Value = request.send().await.unwrap().json().await.unwrap();
        let sql =
            format!("SELECT ns, reason, payload FROM dead_letters WHERE id = '{}'", letter(&reply));
        let path = "/v1/mine/sql";
        let (_, answer) = guarded.post(&guarded.admin, path, &json!({ "sql": sql })).await;
        assert_eq!(answer["rows"], json!([["other", "FORBIDDEN", event]]), "{namespace:?}");
    }
    let (status, _) =
        guarded.call(Method::GET, &guarded.admin, "/v1/other/tables", &Value::Null).await;
    assert_eq!(status, 404, "nothing was made of the foreign name");
    guarded.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_text_are_kept_too() {
    let server = TestServer::start().await;
    let base64 = |bytes: &[u8]| {
        use base64::{Engine, engine::general_purpose::STANDARD};
        STANDARD.encode(bytes)
    };
    let bytes = b"{\"id\":\"1\",\"type\":\"a\xff\xfe\"}".to_vec();
    let mut lines = b"{\"id\":\"0\",\"type\":\"a\"}\n".to_vec();
    lines.extend_from_slice(&bytes);
    lines.push(b'\n');
    for (format, body) in [("application/json", bytes.clone()), ("application/x-ndjson", lines)] {
        let (_, reply) = server.send(&[("content-type", format)], body).await;
        let id = letter(&reply);
        let sql = format!("SELECT payload, detail FROM dead_letters WHERE id = '{id}'");
        let kept = server.rows("default", &sql).await;
        assert_eq!(kept[0][0], json!(base64(&bytes)), "{format}");
        assert!(kept[0][1].as_str().unwrap().contains("base64"), "{kept}");
        assert!(kept[0][1].as_str().unwrap().contains("not UTF-8"), "{kept}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_type_too_many_is_kept_as_it_came_and_an_atomic_batch_keeps_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start_in(folder, &[("ingest.types_max", "1")]).await;
    let event = r#"{"type":"b",  "id":"2","x":null}"#;
    let body = format!(r#"[{{"type":"a","id":"1"}},{event}]"#);
    let (status, reply) = server.send(&[], body.clone()).await;
    assert_eq!(status, 207);
    let kept = server.kept("default", &letter(&reply)).await;
    assert_eq!(kept, json!(["default", "TOO_MANY_TYPES", event]));
    let path = format!("{}/ingest?atomic=true", server.url);
    let body = format!(r#"[{{"type":"a","id":"3"}},{event}]"#);
    let response = server.http.post(path).body(body).send().await.unwrap();
    assert_eq!(response.status(), 400);
    let reply: Value = response.json().await.unwrap();
    let errors: Vec<_> = reply["errors"].as_array().unwrap().iter().collect();
    let codes: Vec<_> = errors.iter().map(|error| json!([error["id"], error["code"]])).collect();
    assert_eq!(codes, [json!(["3", "BATCH_ABORTED"]), json!(["2", "TOO_MANY_TYPES"])], "{reply}");
    assert!(errors.iter().all(|error| error["deadLetter"].is_null()), "{reply}");
    assert_eq!(server.rows("default", "SELECT count(*) FROM dead_letters").await, json!([[1]]));
    server.stop().await;
}

impl TestServer {
    async fn letters(&self, namespace: &str, query: &str) -> Value {
        let response = self.get(&format!("/v1/{namespace}/dead-letters{query}")).await;
        assert_eq!(response.status(), 200);
        response.json().await.unwrap()
    }

    async fn retry(&self, namespace: &str, body: &Value) -> Value {
        let path = format!("/v1/{namespace}/dead-letters/retry");
        let (status, answer) = self.ingest_at(&path, body).await;
        assert_eq!(status, 200, "{answer}");
        json!([answer["retried"], answer["accepted"], answer["duplicates"], answer["rejected"]])
    }

    async fn purge(&self, namespace: &str, query: &str) -> (u16, Value) {
        let path = format!("{}/v1/{namespace}/dead-letters{query}", self.url);
        let response = self.http.delete(path).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }
}

/// A member of every listed letter.
fn all(page: &Value, name: &str) -> Vec<String> {
    let letters = page["dead_letters"].as_array().unwrap().iter();
    letters.map(|letter| letter[name].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_listed_in_pages_before_and_after_a_commit() {
    let server = TestServer::start().await;
    assert_eq!(server.send(&[], r#"{"type":"a","id":"x"}"#).await.0, 200);
    for n in 0..7 {
        let other = if n % 2 == 0 { r#""ts":"2001-01-01T00:00:00Z","# } else { "" };
        let event = format!(r#"{{{other}"type":"a","id":"x","n":{n}}}"#);
        assert_eq!(server.send(&[], event).await.0, 400);
        if n == 3 {
            server.commit("default").await;
        }
    }
    let whole = server.letters("default", "").await;
    let ids = all(&whole, "id");
    assert_eq!((ids.len(), whole.get("next")), (7, None));
    assert!(ids.is_sorted());
    assert_eq!(all(&whole, "status"), ["pending"; 7]);
    assert_eq!(all(&whole, "event_id"), ["x"; 7]);
    let mut paged = Vec::new();
    let mut query = "?limit=3".to_owned();
    loop {
        let page = server.letters("default", &query).await;
        paged.extend(all(&page, "id"));
        let Some(next) = page["next"].as_str() else { break };
        query = format!("?limit=3&after={next}");
    }
    assert_eq!(paged, ids);
    let old = server.letters("default", "?reason=TS_WINDOW&limit=4").await;
    assert_eq!(all(&old, "id"), [0, 2, 4, 6].map(|n: usize| ids[n].clone()));
    assert_eq!(old.get("next"), None);
    let page = server.letters("default", "?reason=CONFLICT&limit=2").await;
    assert_eq!(
        (all(&page, "id"), &page["next"]),
        (vec![ids[1].clone(), ids[3].clone()], &json!(ids[3]))
    );
    assert_eq!(server.letters("default", "?reason=NO").await, json!({ "dead_letters": [] }));
    assert_eq!(server.get("/v1/default/dead-letters?colour=red").await.status(), 400);
    assert_eq!(server.get("/v1/nowhere/dead-letters").await.status(), 404);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_is_shown_as_its_bytes_came() {
    let server = TestServer::start().await;
    let bodies: [&[u8]; 4] = [
        b"{ \"id\" : 1, \"no\":\"type\" }",
        b"{\"type\":\"a\xff\"}",
        b"not json",
        b"{\"type\":\"a\0\"}",
    ];
    for body in bodies {
        let (_, reply) = server.send(&[], body).await;
        let path = format!("/v1/default/dead-letters/{}", letter(&reply));
        for _ in 0..2 {
            let response = server.get(&path).await;
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()["x-icecore-status"], "pending");
            assert_eq!(response.headers()["x-content-type-options"], "nosniff");
            assert_eq!(response.bytes().await.unwrap(), body);
            server.commit("default").await;
        }
    }
    for path in ["01ARZ3NDEKTSV4RRFFQ69G5FAV", "%27%20OR%201%3D1"] {
        assert_eq!(server.get(&format!("/v1/default/dead-letters/{path}")).await.status(), 404);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_is_sent_again_under_its_id_once() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start_in(folder, &[("ingest.types_max", "1")]).await;
    // One event with an id, one without, one without in a batch that has one, one that stays wrong.
    let first = r#"[{"type":"a","id":"0"},{"type":"b","id":"1","data":{"n":1}},{"type":"b"}]"#;
    let batch = r#"{"batchId":"b7","events":[{"type":"a"},{"type":"b","data":{"n":3}}]}"#;
    for body in [first, batch] {
        assert_eq!(server.send(&[], body).await.0, 207);
    }
    assert_eq!(server.send(&[], r#"{"id":"wrong"}"#).await.0, 400);
    let listed = server.letters("default", "").await;
    assert_eq!(
        all(&listed, "reason"),
        ["TOO_MANY_TYPES", "TOO_MANY_TYPES", "TOO_MANY_TYPES", "MISSING_TYPE"]
    );
    let ids = all(&listed, "id");
    assert_eq!(server.retry("default", &json!({"all": true})).await, json!([4, 0, 0, 4]));
    let status = "SELECT status, max(retries), count(*) FROM dead_letters GROUP BY 1 ORDER BY 1";
    assert_eq!(server.rows("default", status).await, json!([["pending", 1, 8]]));
    server.commit("default").await;

    // The fix.
    let folder = server.stop().await;
    let server = TestServer::start_in(folder, &[]).await;
    let would = server.retry("default", &json!({"all": true, "dry_run": true})).await;
    assert_eq!(would, json!([4, 3, 0, 1]));
    assert_eq!(server.rows("default", "SELECT count(*) FROM events").await, json!([[2]]));
    assert_eq!(server.retry("default", &json!({"ids": [ids[0]]})).await, json!([1, 1, 0, 0]));
    // A client that sends it again itself finds it there.
    let (status, reply) = server.send(&[], r#"{"type":"b","id":"1","data":{"n":1}}"#).await;
    assert_eq!((status, &reply["duplicates"]), (200, &json!(1)));
    assert_eq!(server.retry("default", &json!({"ids": [ids[0]]})).await, json!([1, 0, 1, 0]));
    let reason = json!({"reason": "TOO_MANY_TYPES"});
    assert_eq!(server.retry("default", &reason).await, json!([2, 2, 0, 0]));
    assert_eq!(server.retry("default", &reason).await, json!([0, 0, 0, 0]));
    assert_eq!(server.retry("default", &json!({"all": true})).await, json!([1, 0, 0, 1]));
    // The batch sent again is the same batch.
    let (status, reply) = server.send(&[], batch).await;
    assert_eq!((status, &reply["duplicates"]), (200, &json!(2)), "{reply}");
    let events = "SELECT count(*), count(DISTINCT id) FROM events WHERE type = 'b'";
    assert_eq!(server.rows("default", events).await, json!([[3, 3]]));
    let listed = server.letters("default", "").await;
    assert_eq!(all(&listed, "status"), ["redriven", "redriven", "redriven", "pending"]);
    assert_eq!(listed["dead_letters"][0]["retries"], 2);
    assert_eq!(listed["dead_letters"][3]["retries"], 2);
    assert_eq!(all(&server.letters("default", "?status=pending").await, "id"), [ids[3].clone()]);
    for body in [json!({}), json!({"all": true, "reason": "X"}), json!({"all": false}), json!([])] {
        let (status, _) = server.ingest_at("/v1/default/dead-letters/retry", &body).await;
        assert_eq!(status, 400, "{body}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_sent_again_keeps_the_time_at_which_it_came() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(1_795_183_200_000);
    let settings = [("ingest.types_max", "1"), ("ingest.ts_past", "1h")];
    let server = TestServer::start_at(folder, &settings, clock.clone()).await;
    let body = r#"[{"type":"a","id":"0"},{"type":"b","id":"1"},{"type":"b","id":"2","ts":1795181400000},{"type":"b","id":"3","ts":1795176000000}]"#;
    assert_eq!(server.send(&[], body).await.0, 207);
    let folder = server.stop().await;
    clock.advance_ms(3 * 3_600_000);
    let server = TestServer::start_at(folder, &settings[1..], clock).await;
    assert_eq!(server.retry("default", &json!({"all": true})).await, json!([3, 2, 0, 1]));
    let times = "SELECT id, CAST(ts AS BIGINT) / 1000, CAST(ingested_at AS BIGINT) / 1000 FROM events WHERE type = 'b' ORDER BY id";
    let now = 1_795_183_200_000_i64 + 3 * 3_600_000;
    let expected = json!([["1", 1_795_183_200_000_i64, now], ["2", 1_795_181_400_000_i64, now]]);
    assert_eq!(server.rows("default", times).await, expected);
    let path = "/v1/default/dead-letters/retry?backfill=true";
    let (_, answer) = server.ingest_at(path, &json!({"all": true})).await;
    assert_eq!((&answer["accepted"], &answer["rejected"]), (&json!(1), &json!(0)), "{answer}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_breaks_off_is_run_again_and_doubles_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start_in(folder, &[("ingest.types_max", "1")]).await;
    let lines: String = (0..300).map(|n| format!("{{\"type\":\"b\",\"data\":{n}}}\n")).collect();
    let body = format!("{{\"type\":\"a\"}}\n{lines}");
    let ndjson = [("content-type", "application/x-ndjson")];
    assert_eq!(server.send(&ndjson, body).await.0, 207);
    let folder = server.stop().await;
    // The log fails on the way.
    let settings = [("failpoints", "wal.after_write=error@3*1")];
    let server = TestServer::start_in(folder, &settings).await;
    let (status, _) =
        server.ingest_at("/v1/default/dead-letters/retry", &json!({"all": true})).await;
    assert_eq!(status, 503);
    let rest = server.retry("default", &json!({"all": true})).await;
    assert_eq!(rest[3], 0, "{rest}");
    let events =
        "SELECT count(*), count(DISTINCT id), count(DISTINCT data) FROM events WHERE type = 'b'";
    assert_eq!(server.rows("default", events).await, json!([[300, 300, 300]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_names_a_branch_does_not_come_to_main() {
    let server = TestServer::start().await;
    let lines = "{\"type\":\"a\"}\n{\"branch\":\"trial\",\"events\":[{\"type\":\"b\"}]}";
    let response = server.post("/ingest", "application/x-ndjson", lines).await;
    assert_eq!(response.status(), 207);
    assert_eq!(server.retry("default", &json!({"all": true})).await, json!([1, 0, 0, 1]));
    assert_eq!(server.rows("default", "SELECT type FROM events").await, json!([["a"]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_from_before_a_time_are_discarded() {
    let clock = Clock::manual(1_795_183_200_000);
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start_at(folder, &[], clock.clone()).await;
    for n in 0..4 {
        assert_eq!(server.send(&[], format!("{{\"id\":{n}}}")).await.0, 400);
        clock.advance_ms(1000);
    }
    server.commit("default").await;
    let ids = all(&server.letters("default", "").await, "id");
    // Sent again in vain, it is still as old as it was.
    assert_eq!(server.retry("default", &json!({"ids": [ids[0]]})).await, json!([1, 0, 0, 1]));
    let before = "?before=2026-11-20T14:00:02Z";
    let (status, answer) = server.purge("default", &format!("{before}&dry_run=true")).await;
    assert_eq!((status, &answer["purged"]), (200, &json!(2)), "{answer}");
    assert_eq!(all(&server.letters("default", "").await, "id"), ids);
    assert_eq!(server.purge("default", before).await.1["purged"], 2);
    assert_eq!(server.purge("default", before).await.1["purged"], 0);
    for _ in 0..2 {
        assert_eq!(all(&server.letters("default", "").await, "id"), ids[2..]);
        assert_eq!(server.get(&format!("/v1/default/dead-letters/{}", ids[1])).await.status(), 404);
        assert_eq!(server.retry("default", &json!({"ids": [ids[1]]})).await, json!([0, 0, 0, 0]));
        server.commit("default").await;
    }
    for query in ["", "?before=yesterday", "?after=x"] {
        assert_eq!(server.purge("default", query).await.0, 400, "{query}");
    }
    for query in ["?limit=0", "?after=zzz", "?limit=-1"] {
        let path = format!("/v1/default/dead-letters{query}");
        assert_eq!(server.get(&path).await.status(), 400, "{query}");
    }
    // Of an id that is unknown, one that was discarded and one that is there.
    let asked = json!({"ids": ["01JD0000000000000000000000", ids[1], ids[3]]});
    let path = "/v1/default/dead-letters/retry";
    let (status, answer) = server.ingest_at(path, &asked).await;
    assert_eq!((status, &answer["retried"], &answer["missing"]), (200, &json!(1), &json!(2)));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_read_lists_and_who_may_send_sends_again() {
    let guarded = Guarded::start().await;
    let sender = guarded.token(&json!({"name": "s", "scopes": ["ingest:mine"]})).await;
    let reader = guarded.token(&json!({"name": "r", "scopes": ["read:mine"]})).await;
    let both = guarded
        .token(
            &json!({"name": "b", "scopes": ["ingest:mine", "ingest:other"], "namespace": "mine"}),
        )
        .await;
    let stranger = guarded.token(&json!({"name": "x", "scopes": ["admin:else"]})).await;
    let event = json!({"id": "1", "type": "a", "ns": "other"});
    let (_, reply) = guarded.post(&sender, "/ingest", &event).await;
    let id = letter(&reply);
    let letters = "/v1/mine/dead-letters";
    let one = format!("{letters}/{id}");
    let retry = format!("{letters}/retry");
    let purge = format!("{letters}?before=2026-01-01T00:00:00Z");
    let all = json!({"all": true});
    for (token, expected) in
        [(&reader, [200, 200, 403, 403]), (&sender, [404, 404, 200, 404]), (&stranger, [404; 4])]
    {
        let statuses = [
            guarded.get(token, letters).await.0,
            guarded.get(token, &one).await.0,
            guarded.post(token, &retry, &all).await.0,
            guarded.call(Method::DELETE, token, &purge, &Value::Null).await.0,
        ];
        assert_eq!(statuses, expected);
    }
    // Still not where its sender may send; one that may, sends it.
    let (_, answer) = guarded.get(&reader, letters).await;
    assert_eq!(answer["dead_letters"][0]["retries"], 1, "{answer}");
    let (_, answer) = guarded.post(&both, &retry, &all).await;
    assert_eq!(answer["accepted"], 1, "{answer}");
    let sql = json!({"sql": "SELECT id FROM events"});
    let (_, answer) = guarded.post(&guarded.admin, "/v1/other/sql", &sql).await;
    assert_eq!(answer["rows"], json!([["1"]]));
    let sql = "SELECT action, object, outcome FROM system.audit WHERE action LIKE '%dead-letters%' AND outcome = '200' ORDER BY number";
    let (_, answer) = guarded.post(&guarded.admin, "/v1/mine/sql", &json!({ "sql": sql })).await;
    let record = json!(["POST /v1/{namespace}/dead-letters/retry", "mine", "200"]);
    assert_eq!(answer["rows"], json!([record, record]));
    guarded.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_in_a_retry_doubles_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start_in(folder, &[("ingest.types_max", "1")]).await;
    let lines: String = (0..600).map(|n| format!("{{\"type\":\"b\",\"data\":{n}}}\n")).collect();
    let body = format!("{{\"type\":\"a\"}}\n{lines}");
    let ndjson = [("content-type", "application/x-ndjson")];
    assert_eq!(server.send(&ndjson, body).await.0, 207);
    let folder = server.stop().await;
    for point in ["wal.before_write", "wal.after_write", "wal.after_sync", "wal.after_publish"] {
        let body = json!({"all": true}).to_string();
        let failpoint = format!("{point}=abort@2");
        post_and_die(folder.path(), &failpoint, "/v1/default/dead-letters/retry", body).await;
    }
    let server = TestServer::start_in(folder, &[]).await;
    let rest = server.retry("default", &json!({"all": true})).await;
    assert_eq!((&rest[2], &rest[3]), (&json!(0), &json!(0)), "a letter and its event are one");
    assert_ne!(rest[1], 600, "some were taken before");
    let events =
        "SELECT count(*), count(DISTINCT id), count(DISTINCT data) FROM events WHERE type = 'b'";
    assert_eq!(server.rows("default", events).await, json!([[600, 600, 600]]));
    assert_eq!(server.letters("default", "?status=pending").await, json!({ "dead_letters": [] }));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_letters_are_listed_by_pages_and_sent_again() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start_in(folder, &[("ingest.types_max", "1")]).await;
    for half in 0..2 {
        let filler = "x".repeat(500);
        let event =
            |n: u32| format!("{{\"type\":\"b\",\"id\":\"{half}-{n}\",\"data\":\"{filler}\"}}\n");
        let lines: String = (0..4000).map(event).collect();
        let body = format!("{{\"type\":\"a\"}}\n{lines}");
        assert_eq!(server.send(&[("content-type", "application/x-ndjson")], body).await.0, 207);
        if half == 0 {
            server.commit("default").await;
        }
    }
    let (mut after, mut ids) = (String::new(), std::collections::BTreeSet::new());
    for page in 1.. {
        let answer = server.letters("default", &format!("?limit=1000{after}")).await;
        ids.extend(all(&answer, "id"));
        let Some(next) = answer["next"].as_str() else {
            assert_eq!(page, 8);
            break;
        };
        after = format!("&after={next}");
    }
    assert_eq!(ids.len(), 8000);
    let server = TestServer::start_in(server.stop().await, &[]).await;
    let sent = server.retry("default", &json!({"reason": "TOO_MANY_TYPES"})).await;
    assert_eq!(sent, json!([8000, 8000, 0, 0]));
    let events = "SELECT count(*), count(DISTINCT id) FROM events WHERE type = 'b'";
    assert_eq!(server.rows("default", events).await, json!([[8000, 8000]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_lists_shows_retries_and_purges() {
    let server = TestServer::start().await;
    let (_, reply) = server.send(&[], "{\"id\":\"1\", \"no\":\"type\"}").await;
    let id = letter(&reply);
    let (done, text) = icecore(&server, &["deadletters", "list"]);
    assert!(done && text.contains(&id) && text.contains("MISSING_TYPE"), "{text}");
    let (done, text) = icecore(&server, &["deadletters", "list", "--reason", "CONFLICT"]);
    assert!(done && !text.contains(&id), "{text}");
    let (done, text) = icecore(&server, &["deadletters", "list", "--json"]);
    let listed: Value = serde_json::from_str(&text).unwrap();
    assert!(done && listed["dead_letters"][0]["id"] == id, "{text}");
    let shown = icecore(&server, &["deadletters", "show", &id]);
    assert_eq!(shown, (true, "{\"id\":\"1\", \"no\":\"type\"}".to_owned()));
    assert!(!icecore(&server, &["deadletters", "show", "none"]).0);
    let (done, text) = icecore(&server, &["deadletters", "retry", "--all", "--dry-run"]);
    assert!(done && text.contains("1 would be sent again"), "{text}");
    let (done, text) = icecore(&server, &["deadletters", "retry", &id]);
    assert!(!done && text.contains("1 rejected"), "{text}");
    assert!(!icecore(&server, &["deadletters", "retry"]).0, "which?");
    let (done, text) = icecore(&server, &["deadletters", "retry", "none"]);
    assert!(!done && text.contains("1 id without a dead letter"), "{text}");
    let purge = ["deadletters", "purge", "--before", "2100-01-01T00:00:00Z"];
    let (done, text) = icecore(&server, &[&purge[..], &["--dry-run"]].concat());
    assert!(done && text.contains("1 dead letter would be discarded"), "{text}");
    let (done, text) = icecore(&server, &purge);
    assert!(done && text.contains("1 dead letter discarded"), "{text}");
    assert_eq!(server.letters("default", "").await, json!({ "dead_letters": [] }));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_refused_again_has_the_letter_that_it_had() {
    let server = TestServer::start().await;
    let event = r#"{"id":"1","data":{"n":1}}"#;
    let (_, reply) = server.send(&[], event).await;
    let first = letter(&reply);
    for body in [event.to_owned(), format!("[{event}]")] {
        assert_eq!(letter(&server.send(&[], body).await.1), first);
    }
    server.commit("default").await;
    assert_eq!(letter(&server.send(&[], event).await.1), first);
    // Elsewhere, for another reason or in a batch it is another.
    let (_, elsewhere) = server.send(&[("x-namespace", "mine")], event).await;
    let batch = format!("{{\"batchId\":\"b\",\"events\":[{event}]}}");
    let (_, in_batch) = server.send(&[], batch.clone()).await;
    assert_ne!(letter(&elsewhere), first);
    assert_ne!(letter(&in_batch), first);
    assert_eq!(letter(&server.send(&[], batch).await.1), letter(&in_batch));
    assert_eq!(server.rows("default", "SELECT count(*) FROM dead_letters").await, json!([[2]]));
    // Equal events of one body are several, whenever the body comes.
    let body = r#"[{"n":1},{"n":1},{"n":2}]"#;
    let (_, reply) = server.send(&[], body).await;
    let (_, again) = server.send(&[], body).await;
    assert_eq!(reply, again);
    assert_eq!(server.rows("default", "SELECT count(*) FROM dead_letters").await, json!([[5]]));
    // Also after a restart.
    let server = TestServer::start_in(server.stop().await, &[]).await;
    assert_eq!(letter(&server.send(&[], event).await.1), first);
    assert_eq!(server.send(&[], body).await.1, again);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_again_after_its_letter_was_discarded_or_taken_is_kept_again() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start_in(folder, &[("ingest.types_max", "1")]).await;
    assert_eq!(server.send(&[], r#"{"type":"a","id":"0"}"#).await.0, 200);
    let (broken, full) = (r#"{"id":"1"}"#, r#"{"type":"b","id":"2"}"#);
    let discarded = letter(&server.send(&[], broken).await.1);
    let taken = letter(&server.send(&[], full).await.1);
    let server = TestServer::start_in(server.stop().await, &[]).await;
    assert_eq!(server.retry("default", &json!({"ids": [taken]})).await, json!([1, 1, 0, 0]));
    let (status, _) = server.purge("default", "?before=2100-01-01T00:00:00Z").await;
    assert_eq!(status, 200);
    let server = TestServer::start_in(server.stop().await, &[]).await;
    let second = letter(&server.send(&[], broken).await.1);
    assert_ne!(second, discarded);
    assert_eq!(letter(&server.send(&[], broken).await.1), second);
    let pending = server.letters("default", "?status=pending").await;
    assert_eq!(all(&pending, "id"), std::slice::from_ref(&second));
    let path = format!("/v1/default/dead-letters/{second}");
    assert_eq!(server.get(&path).await.bytes().await.unwrap(), broken.as_bytes());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_goes_to_the_namespace_that_its_request_named() {
    let guarded = Guarded::start().await;
    let sender = guarded.token(&json!({"name": "s", "scopes": ["ingest:mine"]})).await;
    let event = r#"{"type":"a","id":"6"}"#;
    let send = async |token: &str, namespace: &str| -> Value {
        let request = guarded.server.http.post(format!("{}/ingest", guarded.server.url));
        let request = request.bearer_auth(token).header("x-namespace", namespace).body(event);
        request.send().await.unwrap().json().await.unwrap()
    };
    let first = letter(&send(&sender, "other").await);
    assert_ne!(letter(&send(&sender, "third").await), first, "two events");
    assert_eq!(letter(&send(&sender, "other").await), first);
    let (path, all) = ("/v1/mine/dead-letters/retry", json!({"all": true}));
    let (_, answer) = guarded.post(&sender, path, &all).await;
    assert_eq!(json!([answer["accepted"], answer["rejected"]]), json!([0, 2]), "{answer}");
    let (_, answer) = guarded.post(&guarded.admin, path, &all).await;
    assert_eq!(json!([answer["accepted"], answer["rejected"]]), json!([2, 0]), "{answer}");
    for (namespace, stored) in [
        ("other", json!([["6", "other"]])),
        ("third", json!([["6", "third"]])),
        ("mine", json!([])),
    ] {
        let sql = json!({"sql": "SELECT id, ns FROM events"});
        let (_, answer) = guarded.post(&guarded.admin, &format!("/v1/{namespace}/sql"), &sql).await;
        assert_eq!(answer["rows"], stored, "{namespace}");
    }
    let reply = send(&guarded.admin, "other").await;
    assert_eq!(reply["duplicates"], 1, "sent again by who may: {reply}");
    guarded.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_sent_again_has_what_its_request_said_of_all_events() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start_in(folder, &[("ingest.types_max", "1")]).await;
    assert_eq!(server.send(&[], r#"{"type":"ok","id":"0"}"#).await.0, 200);
    let headers = [("x-correlation-id", "c1")];
    let batch = r#"{"batchId":"B1","events":[{"type":"a"},{"type":"a","id":"2","batchId":"own","correlationId":"mine"}]}"#;
    let calls = r#"{"batch":[{"type":"track","event":"X","userId":"u","messageId":"m1","properties":{"a":1}}],"context":{"ip":"1"}}"#;
    for body in [batch, calls] {
        assert_eq!(server.send(&headers, body).await.0, 400);
    }
    let listed = server.letters("default", "").await;
    assert_eq!(all(&listed, "correlation_id"), ["c1"; 3]);
    server.commit("default").await;
    let server = TestServer::start_in(server.stop().await, &[]).await;
    assert_eq!(server.retry("default", &json!({"all": true})).await, json!([3, 3, 0, 0]));
    let sql = "SELECT type, batch_id, correlation_id, payload LIKE '%\"context\":{\"ip\":\"1\"}%' FROM events WHERE type <> 'ok' ORDER BY 1, 2";
    let stored =
        json!([["a", "B1", "c1", null], ["a", "own", "mine", null], ["track", null, "c1", true]]);
    assert_eq!(server.rows("default", sql).await, stored);
    for (body, count) in [(batch, 2), (calls, 1)] {
        let (status, reply) = server.send(&headers, body).await;
        assert_eq!((status, &reply["duplicates"]), (200, &json!(count)), "{reply}");
    }
    server.stop().await;
}
