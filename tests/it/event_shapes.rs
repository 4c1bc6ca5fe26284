//! What today's emitters send becomes rows: members of other types, bodies in every usual form,
//! times as texts, analytics batches. And what must not be kept is not kept.

use crate::harness::{TestServer, files_below};
use serde_json::{Value, json};
use std::io::Write;

/// Sends a body under a content type and gives status and reply.
async fn send(server: &TestServer, content_type: &str, body: impl Into<Vec<u8>>) -> (u16, Value) {
    let response = server.post("/ingest?backfill=true", content_type, body.into()).await;
    (response.status().as_u16(), response.json().await.unwrap())
}

/// The single value of a query over namespace `default`.
async fn value(server: &TestServer, sql: &str) -> Value {
    server.rows("default", sql).await[0][0].clone()
}

#[tokio::test]
async fn a_member_of_another_type_never_costs_the_event() {
    let server = TestServer::start().await;
    // A member and what its column then has.
    let members = [
        ("version", json!("1.2.3"), json!(null)),
        ("version", json!(3e20), json!(null)),
        ("lsn", json!(18_446_744_073_709_551_615_u64), json!(null)),
        ("source", json!({}), json!("{}")),
        ("source", json!({"name": "shop"}), json!("{\"name\":\"shop\"}")),
        ("actor", json!({"id": 1}), json!("{\"id\":1}")),
        ("error", json!({"code": "E1"}), json!("{\"code\":\"E1\"}")),
        ("error", json!(true), json!("true")),
        ("error", json!([]), json!("[]")),
        ("success", json!("true"), json!(true)),
        ("success", json!(1), json!(true)),
        ("success", json!("yes"), json!(null)),
        ("duration_ms", json!("12.5"), json!(12.5)),
        ("duration_ms", json!("fast"), json!(null)),
        ("before", json!("cursor"), json!("\"cursor\"")),
        ("after", json!(["cursor"]), json!("[\"cursor\"]")),
        ("key", json!({}), json!("{}")),
        ("url", json!({}), json!("{}")),
        ("op", json!("send"), json!(null)),
        ("op", json!({"a": 1}), json!(null)),
        ("meta", json!("x"), json!("\"x\"")),
        ("meta", json!([1]), json!("[1]")),
        ("event", json!({}), json!("{}")),
        ("user_id", json!(true), json!("true")),
        ("schema_version", json!("v2"), json!(null)),
        ("connection_count", json!(3e9), json!(null)),
        ("verified", json!({"by": "x"}), json!(null)),
        ("collection", json!(["a"]), json!("[\"a\"]")),
    ];
    let events: Vec<Value> = members
        .iter()
        .enumerate()
        .map(|(n, (name, member, _))| json!({"id": n.to_string(), "type": "t", (*name): member}))
        .collect();
    let (status, reply) = server.ingest(&json!(events)).await;
    assert_eq!(status, 200, "{reply:#}");
    for (n, (name, member, expected)) in members.iter().enumerate() {
        let sql = format!("select \"{name}\", payload from events where id = '{n}'");
        let row = server.rows("default", &sql).await[0].clone();
        assert_eq!(row[0], *expected, "{name}: {member}");
        let payload: Value = serde_json::from_str(row[1].as_str().unwrap()).unwrap();
        assert_eq!(payload, events[n]);
    }
    let (status, reply) = server
        .ingest(&json!([
            {"id": "do", "type": "t", "do": "it", "method": "m"},
            {"id": "data", "type": "t", "data": {"error": {"a": 1}, "success": "false", "statusCode": {}}},
            {"id": "_meta", "type": "t", "_meta": {"source": {"a": 1}, "schemaVersion": "1.0"}},
            {"id": "inner", "type": "t", "do": {"id": {"a": 1}, "name": 7}},
        ]))
        .await;
    assert_eq!(status, 200, "{reply:#}");
    let sql = "select id, method, do_id, do_name, error, success, status_code, source, schema_version from events where length(id) > 2 order by id";
    assert_eq!(
        server.rows("default", sql).await,
        json!([
            ["_meta", null, null, null, null, null, null, "{\"a\":1}", null],
            ["data", null, null, null, "{\"a\":1}", false, null, null, null],
            ["inner", null, "{\"a\":1}", "7", null, null, null, null, null],
        ])
    );
    assert_eq!(value(&server, "select method from events where id = 'do'").await, json!("m"));
    server.stop().await;
}

#[tokio::test]
async fn an_id_that_is_no_text_is_refused_and_other_such_text_is_kept() {
    let server = TestServer::start().await;
    for event in [
        r#"{"type":"t","id":"\ud800"}"#,
        r#"{"type":"t","id":"a\udfffb"}"#,
        r#"{"type":"t","id":"\ud800\ud800"}"#,
        r#"{"type":"t\ud800","id":"1"}"#,
        r#"{"type":"t","ns":"a\ud800","id":"1"}"#,
        r#"{"type":"t","id":""}"#,
        r#"{"type":"t","id":true}"#,
    ] {
        let (status, reply) = send(&server, "application/json", event).await;
        assert_eq!(status, 400, "{event}: {reply}");
        assert!(!reply["errors"][0]["reason"].as_str().unwrap().is_empty());
    }
    let (_, reply) = send(&server, "application/json", r#"{"type":"t","id":"\udc00"}"#).await;
    let reason = reply["errors"][0]["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("`id`") && reason.contains("surrogate"), "{reason}");
    let body = r#"{"type":"t","id":"\ud83d\ude00","actor":"x\ud800y","after":{"a":"\udc00","b":[1]},"data":{"c":"\ud800\ud801","d":2},"odd":"\ud800"}"#;
    let (status, reply) = send(&server, "application/json", body).await;
    assert_eq!(status, 200, "{reply}");
    let sql = "select id, actor, after, data, payload from events";
    let row = server.rows("default", sql).await[0].clone();
    assert_eq!(row[0], "\u{1f600}");
    assert_eq!(row[1], "x\\ud800y");
    for (column, member, expected) in [
        (2, "b", json!([1])),
        (3, "d", json!(2)),
        (3, "c", json!("\\ud800\\ud801")),
        (4, "actor", json!("x\\ud800y")),
    ] {
        let text = row[column].as_str().unwrap();
        let parsed: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(parsed[member], expected, "{text}");
    }
    server.stop().await;
}

#[tokio::test]
async fn codings_of_a_body_are_read_in_any_case_and_order() {
    let server = TestServer::start().await;
    let plain = br#"{"type":"t"}"#.to_vec();
    let gzip = |bytes: &[u8]| {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap()
    };
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    let two_members = [gzip(&plain[..5]), gzip(&plain[5..])].concat();
    let mut expected = 0;
    for (coding, body) in [
        ("GZIP", gzip(&plain)),
        ("Gzip", gzip(&plain)),
        ("x-gzip", gzip(&plain)),
        ("X-GZIP", two_members),
        ("ZSTD", zstd(&plain)),
        ("identity, gzip", gzip(&plain)),
        ("Identity , GZIP", gzip(&plain)),
        ("gzip,identity", gzip(&plain)),
        ("gzip, zstd", zstd(&gzip(&plain))),
        ("IDENTITY", plain.clone()),
        ("", plain.clone()),
    ] {
        let url = format!("{}/ingest", server.url);
        let request = server.http.post(url).header("content-encoding", coding).body(body);
        assert_eq!(request.send().await.unwrap().status(), 200, "{coding}");
        expected += 1;
    }
    for (coding, body, status) in [
        ("br", plain.clone(), 415),
        ("gzip, deflate", plain.clone(), 415),
        ("gzip,gzip,gzip,gzip,gzip", plain.clone(), 415),
        ("gzip", plain.clone(), 400),
    ] {
        let url = format!("{}/ingest", server.url);
        let request = server.http.post(url).header("content-encoding", coding).body(body);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status, "{coding}");
        assert!(response.json::<Value>().await.unwrap()["error"].is_string());
    }
    assert_eq!(value(&server, "select count(*) from events").await, json!(expected));
    server.stop().await;
}

/// Bodies of several events each, under content types that are not NDJSON's own, and how many
/// events each has.
const BODIES: &[(&str, &str, u64)] = &[
    ("application/json", "{\"type\":\"a\"}{\"type\":\"a\"}", 2),
    ("application/json", "{\"type\":\"a\"}\n{\"type\":\"a\"}\n", 2),
    ("application/json", "{\"type\":\"a\"}\r\n\r\n{\"type\":\"a\"}\r\n", 2),
    ("application/json", "{\"type\":\"a\"},{\"type\":\"a\"}", 2),
    ("application/json", "{\"type\":\"a\"},\n{\"type\":\"a\"},\n", 2),
    ("application/json", "{\n \"type\":\"a\"\n}\n{\n \"type\":\"a\"\n}\n", 2),
    ("application/json", "[{\"type\":\"a\"}]\n[{\"type\":\"a\"},{\"type\":\"a\"}]", 3),
    ("application/json", "{\"events\":[{\"type\":\"a\"}]}{\"events\":[{\"type\":\"a\"}]}", 2),
    ("application/json", "\u{feff}{\"type\":\"a\"}\n\u{feff}{\"type\":\"a\"}", 2),
    ("application/x-www-form-urlencoded", "{\"type\":\"a\"}\n{\"type\":\"a\"}", 2),
    ("text/plain", "{\"type\":\"a\"}\n{\"type\":\"a\"}", 2),
    ("text/plain;charset=UTF-8", "{\"type\":\"a\"}", 1),
    ("application/vnd.acme+json", "{\"type\":\"a\"}", 1),
    ("application/ld+json; charset=\"utf-8\"", "[{\"type\":\"a\"}]", 1),
    ("application/json; Charset=utf8", "{\"type\":\"a\"}", 1),
    ("application/json; charset=iso-8859-1", "{\"type\":\"a\"}", 1),
    ("application/json-seq", "\u{1e}{\"type\":\"a\"}\n\u{1e}{\n\"type\":\"a\"\n}\n", 2),
    ("application/geo+json-seq", "\u{1e}{\"type\":\"a\"}\n", 1),
    ("application/stream+json", "{\"type\":\"a\"}\n{\"type\":\"a\"}", 2),
    ("application/x-json-stream", "{\"type\":\"a\"}{\"type\":\"a\"}", 2),
    ("application/jsonlines", "{\"type\":\"a\"}\n{\"type\":\"a\"}", 2),
    ("application/x-jsonlines", "{\"type\":\"a\"}\n{\"type\":\"a\"}", 2),
    ("text/x-ndjson", "{\"type\":\"a\"}\n{\"type\":\"a\"}", 2),
    ("application/x-ndjson", "{\"type\":\"a\"}\n\u{feff}{\"type\":\"a\"}\r\n", 2),
    (
        "application/x-ndjson",
        "{\"type\":\"a\"}{\"type\":\"a\"}\n{\"type\":\"a\"},{\"type\":\"a\"},\n",
        4,
    ),
    ("application/x-ndjson", "[{\"type\":\"a\"},{\"type\":\"a\"}]\n", 2),
];

#[tokio::test]
async fn several_values_in_a_body_are_events_of_their_own() {
    let server = TestServer::start().await;
    let mut expected = 0;
    for (content_type, body, events) in BODIES {
        let (status, reply) = send(&server, content_type, *body).await;
        assert_eq!(
            (status, &reply["received"]),
            (200, &json!(events)),
            "{content_type}: {body}: {reply}"
        );
        expected += events;
    }
    let url = format!("{}/ingest", server.url);
    let untyped = server.http.post(url).body("{\"type\":\"a\"}\n{\"type\":\"a\"}");
    assert_eq!(untyped.send().await.unwrap().status(), 200);
    expected += 2;
    assert_eq!(value(&server, "select count(*) from events").await, json!(expected));
    // What is broken among others is refused alone.
    let body = "{\"type\":\"a\"}\n{\"type\":\"a\"\n{\"type\":\"a\"}\n";
    let (status, reply) = send(&server, "application/json", body).await;
    assert_eq!((status, &reply["received"]), (207, &json!(3)), "{reply}");
    assert_eq!(reply["errors"][0]["index"], 1);
    server.stop().await;
}

#[tokio::test]
async fn a_body_that_is_refused_names_the_form_to_use() {
    let server = TestServer::start().await;
    let utf16: Vec<u8> = "{\"type\":\"a\"}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (content_type, body, status, word) in [
        ("application/xml", b"<a/>".to_vec(), 415, "application/x-ndjson"),
        ("application/json; charset=utf-16", utf16.clone(), 415, "UTF-8"),
        ("application/json;charset=UTF-32LE", b"{}".to_vec(), 415, "UTF-8"),
        ("application/json", utf16.clone(), 400, "UTF-16"),
        ("application/x-ndjson", [&b"\xff\xfe"[..], &utf16].concat(), 400, "UTF-16"),
        ("application/json", b"\x1f\x8b\x08\0\0\0".to_vec(), 400, "Content-Encoding: gzip"),
        ("application/json", b"{\"type\":\"a\"} and more".to_vec(), 400, "application/x-ndjson"),
        ("application/x-www-form-urlencoded", b"type=a".to_vec(), 400, "application/json"),
    ] {
        let (found, reply) = send(&server, content_type, body).await;
        let text = reply.to_string();
        assert_eq!(found, status, "{content_type}: {text}");
        assert!(text.contains(word), "{content_type}: {text}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_slash_at_the_end_of_the_path_changes_nothing() {
    let server = TestServer::start().await;
    for path in ["/ingest", "/ingest/", "/e", "/e/"] {
        let (status, reply) = server.ingest_at(path, &json!({"type": "t"})).await;
        assert_eq!(status, 200, "{path}: {reply}");
    }
    server.stop().await;
}

#[tokio::test]
async fn the_requests_correlation_id_is_that_of_events_without_one() {
    let server = TestServer::start().await;
    let body = json!([{"id": "1", "type": "t"}, {"id": "2", "type": "t", "correlationId": "own"}]);
    for (correlation, status) in [("req-7", 200), ("req-8", 200), ("", 200)] {
        let request = server.http.post(format!("{}/ingest", server.url));
        let request = request.header("x-correlation-id", correlation).body(body.to_string());
        assert_eq!(request.send().await.unwrap().status(), status);
    }
    let sql = "select correlation_id from events order by id";
    assert_eq!(server.rows("default", sql).await, json!([["req-7"], ["own"]]));
    // Each event of a request has it, so it is short.
    let request = server.http.post(format!("{}/ingest", server.url)).body(body.to_string());
    let reply = request.header("x-correlation-id", "c".repeat(1_025)).send().await.unwrap();
    assert_eq!(reply.status(), 400);
    assert!(reply.text().await.unwrap().contains("`x-correlation-id` has 1025 bytes"));
    server.stop().await;
}

#[tokio::test]
async fn more_events_than_a_body_may_have_are_413() {
    let server = TestServer::start().await;
    let many = vec!["{\"type\":\"a\"}"; 10_001];
    for (content_type, body) in [
        ("application/json", format!("[{}]", many.join(","))),
        ("application/json", many.join("\n")),
        ("application/x-ndjson", many.join("\n")),
    ] {
        let (status, reply) = send(&server, content_type, body).await;
        assert_eq!((status, &reply["code"]), (413, &json!("TOO_MANY_EVENTS")), "{reply}");
        assert!(reply["error"].as_str().unwrap().contains("10000"), "{reply}");
    }
    let (status, reply) =
        send(&server, "application/json", format!("[{}]", many[1..].join(","))).await;
    assert_eq!((status, &reply["received"]), (200, &json!(10_000)));
    server.stop().await;
}

#[tokio::test]
async fn what_a_batch_says_once_for_all_does_not_fill_the_memory() {
    let server = TestServer::start().await;
    let batch = |events: usize, ns: &dyn Fn(usize) -> usize, context: usize| {
        let event = |n| json!({"type": "a", "ns": format!("n{}", ns(n))});
        let events: Vec<Value> = (0..events).map(event).collect();
        json!({"batch": events, "context": {"x": "a".repeat(context)}}).to_string()
    };
    for ns in [&|_| 0 as _, &|n| n / 100] as [&dyn Fn(usize) -> usize; 2] {
        // 78 GB, were each a row with it; then one that is in bounds by event.
        let (status, reply) = send(&server, "application/json", batch(9_999, ns, 8 << 20)).await;
        assert_eq!((status, &reply["errors"][9_998]["code"]), (400, &json!("EVENT_TOO_LARGE")));
        let (status, reply) = send(&server, "application/json", batch(9_999, ns, 100_000)).await;
        assert_eq!((status, &reply["code"]), (413, &json!("BODY_TOO_LARGE")), "{reply}");
        assert!(reply["error"].as_str().unwrap().contains("send smaller batches"), "{reply}");
    }
    let (status, reply) = send(&server, "application/json", batch(300, &|_| 0, 100_000)).await;
    assert_eq!((status, &reply["seq"]["last"]), (200, &json!(300)));
    server.stop().await;
}

#[tokio::test]
async fn analytics_batches_are_events_known_by_their_message() {
    let server = TestServer::start().await;
    let batch = |sent: &str| {
        json!({"batch": [
            {"type": "track", "messageId": "m1", "event": "Order Completed", "userId": "u1",
             "anonymousId": "a1", "properties": {"revenue": 12.5, "url": "https://shop.example/"},
             "timestamp": "2026-11-20T10:00:00.000Z", "originalTimestamp": "2026-11-20T10:00:00.000Z",
             "sentAt": sent, "context": {"library": {"name": "js"}}, "integrations": {}, "version": 2},
            {"type": "identify", "messageId": "m2", "userId": "u1", "traits": {"plan": "pro"},
             "originalTimestamp": "2026-11-20T10:00:01+00:00", "sentAt": sent, "receivedAt": sent},
            {"event": "Clicked", "anonymousId": "a2", "messageId": "m3", "properties": {},
             "timestamp": "2026-11-20T10:00:02Z"},
            {"messageId": "m4", "userId": "u1", "groupId": "g1", "traits": {"name": "Acme"}},
            {"type": "page", "messageId": "m5", "name": "Home", "userId": "u1"},
            {"type": "screen", "messageId": "m6", "name": "Home", "userId": "u1"},
            {"messageId": "m7", "userId": "u1", "previousId": "a1"},
        ], "sentAt": sent, "writeKey": "w"})
    };
    let path = "/ingest?backfill=true";
    let (status, reply) = server.ingest_at(path, &batch("2026-11-20T10:00:05.000Z")).await;
    assert_eq!((status, &reply["received"]), (200, &json!(7)), "{reply:#}");
    // The library sends it again, with the time of that, also one by one.
    let again = batch("2026-11-20T11:11:11.000Z");
    let (status, reply) = server.ingest_at(path, &again).await;
    assert_eq!((status, &reply["duplicates"]), (200, &json!(7)), "{reply:#}");
    for call in again["batch"].as_array().unwrap() {
        let (status, reply) = server.ingest_at(path, call).await;
        assert_eq!((status, &reply["duplicates"]), (200, &json!(1)), "{call}: {reply:#}");
    }
    let sql = "select id, type, event, user_id, anonymous_id, data, url, to_char(ts, '%H:%M:%S') from events where type in ('track', 'identify') order by id";
    assert_eq!(
        server.rows("default", sql).await,
        json!([
            [
                "m1",
                "track",
                "Order Completed",
                "u1",
                "a1",
                "{\"revenue\":12.5,\"url\":\"https://shop.example/\"}",
                "https://shop.example/",
                "10:00:00"
            ],
            ["m2", "identify", null, "u1", null, "{\"plan\":\"pro\"}", null, "10:00:01"],
            ["m3", "track", "Clicked", null, "a2", "{}", null, "10:00:02"],
        ])
    );
    let sql = "select type, count(*) from events group by 1 order by 1";
    assert_eq!(
        server.rows("default", sql).await,
        json!([
            ["alias", 1],
            ["group", 1],
            ["identify", 1],
            ["page", 1],
            ["screen", 1],
            ["track", 2]
        ])
    );
    // `messageId` of any other event is no id: two events may well be about one message.
    let mails =
        json!([{"type": "mail.sent", "messageId": "x"}, {"type": "mail.opened", "messageId": "x"}]);
    let (status, reply) = server.ingest(&mails).await;
    assert_eq!((status, &reply["duplicates"]), (200, &json!(0)), "{reply}");
    server.stop().await;
}

#[tokio::test]
async fn times_are_read_in_the_forms_that_systems_write() {
    let server = TestServer::start().await;
    let at = "2024-02-29T12:34:56";
    for text in [
        "2024-02-29 12:34:56 UTC",
        "2024-02-29 12:34:56 +0000 UTC",
        "2024-02-29 13:34:56 +01:00",
        "20240229T123456Z",
        "Thu, 29 Feb 2024 12:34:56 GMT",
        "2024-060T12:34:56Z",
        "2024-W09-4T12:34:56Z",
        "2024-02-29T13:34:56+01:00[Europe/Paris]",
        "1709210096.0",
    ] {
        let event = json!({"type": "time", "ts": text, "source": text});
        let (status, reply) = server.ingest_at("/ingest?backfill=true", &event).await;
        assert_eq!(status, 200, "{text}: {reply}");
    }
    let sql = format!("select source from events where ts <> timestamp '{at}'");
    assert_eq!(server.rows("default", &sql).await, json!([]));
    for text in [
        "0000-06-01T00:00:00Z",
        "9999-12-31T23:59:59-14:00",
        "0001-01-01T00:00:00+00:01",
        "+010000-01-01T00:00:00Z",
        "02/03/2024",
        "20240229",
        "2024-02-29T12:34:56[Europe/Paris]",
    ] {
        let event = json!({"type": "time", "ts": text});
        let (status, reply) = server.ingest_at("/ingest?backfill=true", &event).await;
        assert_eq!(status, 400, "{text}: {reply}");
        let reason = reply["errors"][0]["reason"].as_str().unwrap();
        assert!(reason.contains("2026-11-20T14:03:05Z") || reason.contains("0001"), "{reason}");
    }
    server.stop().await;
}

/// What Cloudflare's runtime tells a Tail Worker of one request.
fn trace() -> Value {
    json!({
        "scriptName": "api", "outcome": "exception", "eventTimestamp": 1_795_183_200_000_i64,
        "event": {
            "request": {
                "url": "https://ada:pass1@api.example/v1/pay?token=tok-secret&page=2&X-Amz-Signature=sig-secret#frag",
                "method": "POST",
                "headers": {"Authorization": "Bearer bearer-secret", "cookie": "sid=cookie-secret",
                    "CF-Access-Client-Secret": "cf-secret", "x-api-key": "key-secret",
                    "proxy-authorization": "Basic cHJveHk6c2VjcmV0", "user-agent": "curl"},
                "cf": {"colo": "AMS"},
            },
            "response": {"status": 500, "headers": [{"name": "Set-Cookie", "value": "sid=set-secret"},
                {"name": "content-type", "value": "text/html"}]},
        },
        "logs": [{"level": "log", "timestamp": 1, "message": [
            "calling https://up.example/?access_token=log-secret&x=1",
            "{\"headers\":{\"authorization\":\"Bearer inner-secret\"}}",
            ["set-cookie", "a=pair-secret"]]}],
        "exceptions": [{"name": "Error", "message": "GET /cb?code=code-secret\\u0026ok=1 failed", "timestamp": 1}],
    })
}

#[tokio::test]
async fn credentials_in_tail_events_are_written_nowhere() {
    let server = TestServer::start().await;
    let mut whole = trace();
    whole["type"] = json!("tail.request");
    whole["id"] = json!("whole");
    let nested = json!({"id": "nested", "type": "tail.request", "_meta": {"schemaVersion": 1}, "data": trace()});
    let flat = json!({"id": "flat", "type": "tail.request", "data": {"scriptName": "api", "outcome": "ok",
        "url": "https://api.example/?api_key=flat-secret&q=1", "headers": {"authorization": "flat-secret"}}});
    let (status, reply) = server.ingest(&json!([whole, nested, flat])).await;
    assert_eq!(status, 200, "{reply:#}");
    // The same again is a duplicate, with another credential too.
    let renewed = flat.to_string().replace("flat-secret", "renewed-secret");
    let (_, reply) = send(&server, "application/json", renewed).await;
    assert_eq!(reply["duplicates"], json!(1), "{reply}");
    // Refused: no type, no valid time, broken JSON.
    let mut late = trace();
    late["type"] = json!("tail.request");
    late["ts"] = json!("no time");
    let (status, _) = server.ingest(&json!([trace(), late])).await;
    assert_eq!(status, 400);
    let mut broken = whole.to_string();
    broken.truncate(broken.len() - 1);
    assert_eq!(send(&server, "application/json", broken.clone()).await.0, 400);
    assert_eq!(send(&server, "application/x-ndjson", broken).await.0, 400);

    let rows = server.rows("default", "select * from events order by id").await.to_string();
    let letters = server.rows("default", "select * from dead_letters").await.to_string();
    for text in [&rows, &letters] {
        assert!(!text.contains("secret\"") && !text.contains("-secret"), "{text}");
        assert!(!text.contains("pass1") && !text.contains("cHJveHk6"), "{text}");
        assert!(text.contains("page=2") && text.contains("curl") && text.contains("text/html"));
    }
    let sql = "select url, meta, json_extract_string(data, '$.url') from events where id = 'flat'";
    let url = "https://api.example/?api_key=REDACTED&q=1";
    let meta = "{\"redacted\":[\"data.headers.authorization\",\"data.url.api_key\"]}";
    assert_eq!(server.rows("default", sql).await, json!([[url, meta, url]]));
    let sql = "select json_extract_string(meta, '$.schemaVersion'), schema_version, meta like '%\"data.event.request.headers.Authorization\"%' from events where id = 'nested'";
    assert_eq!(server.rows("default", sql).await, json!([["1", 1, true]]));
    // Nor is any of it in a file of the server.
    let folder = server.stop().await;
    assert_eq!(files_with(folder.path(), "-secret"), Vec::<String>::new());
}

#[tokio::test]
async fn events_that_are_no_traces_are_stored_as_they_came() {
    let server = TestServer::start_in(tempfile::tempdir().unwrap(), &[]).await;
    let data =
        json!({"headers": {"authorization": "mine"}, "url": "https://x.example/?token=mine"});
    let (status, _) =
        server.ingest(&json!({"id": "1", "type": "order.placed", "data": data})).await;
    assert_eq!(status, 200);
    let sql = "select data, url, meta from events";
    let expected = json!([[data.to_string(), "https://x.example/?token=mine", null]]);
    assert_eq!(server.rows("default", sql).await, expected);
    server.stop().await;

    let settings = [("ingest.redact", "false")];
    let server = TestServer::start_in(tempfile::tempdir().unwrap(), &settings).await;
    let (status, _) =
        server.ingest(&json!({"id": "1", "type": "tail.request", "data": data})).await;
    assert_eq!(status, 200);
    assert_eq!(server.rows("default", sql).await, expected);
    server.stop().await;
}

/// Files below `folder` with `text` in them.
fn files_with(folder: &std::path::Path, text: &str) -> Vec<String> {
    let files = files_below(folder, "").into_iter();
    let with_text = files.filter(|path| {
        let bytes = std::fs::read(path).unwrap();
        bytes.windows(text.len()).any(|part| part == text.as_bytes())
    });
    with_text.map(|path| path.display().to_string()).collect()
}

#[test]
fn the_page_on_events_has_every_column() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/events.md")).unwrap();
    let listed: Vec<&str> = page
        .lines()
        .skip_while(|line| !line.starts_with("| column | type |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .filter_map(|line| line.split('`').nth(1))
        .collect();
    let columns: Vec<&str> = icecore_schemas::columns::EVENTS.iter().map(|c| c.name).collect();
    assert_eq!(listed, columns);
    for column in icecore_schemas::columns::EVENTS {
        let kind = format!("{:?}", column.kind).to_lowercase();
        let row = format!("| `{}` | {kind} |", column.name);
        assert!(page.contains(&row), "{row}");
    }
}

#[tokio::test]
async fn events_of_event_buses_need_no_change() {
    let server = TestServer::start().await;
    // As the references of EventBridge and Event Grid show them.
    let bridge = json!({
        "version": "0", "id": "6a7e8feb-b491-4cf7-a9f1-bf3703467718",
        "detail-type": "EC2 Instance State-change Notification", "source": "aws.ec2",
        "account": "111122223333", "time": "2026-11-20T18:43:48Z", "region": "us-west-1",
        "resources": ["arn:aws:ec2:us-west-1:123456789012:instance/i-1"],
        "detail": {"instance-id": "i-1", "state": "terminated", "method": "stop"}
    });
    let grid = json!([{
        "topic": "/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/a",
        "subject": "/blobServices/default/containers/c/blobs/b.txt",
        "eventType": "Microsoft.Storage.BlobCreated", "eventTime": "2026-11-20T18:41:00.9584103Z",
        "id": "831e1650-001e-001b-66ab-eeb76e069631",
        "data": {"api": "PutBlockList", "url": "https://a.blob.core.windows.net/c/b.txt"},
        "dataVersion": "", "metadataVersion": "1"
    }]);
    for body in [&bridge, &grid] {
        for duplicates in [0, 1] {
            let (status, reply) = server.ingest_at("/ingest?backfill=true", body).await;
            assert_eq!((status, &reply["duplicates"]), (200, &json!(duplicates)), "{reply}");
        }
    }
    // Out of an archive it has one member more.
    let mut replayed = bridge.clone();
    replayed["replay-name"] = json!("again");
    let (status, reply) = server.ingest_at("/ingest?backfill=true", &replayed).await;
    assert_eq!((status, &reply["duplicates"]), (200, &json!(1)), "{reply}");
    let sql = "select id, type, event_type, source, to_char(ts, '%H:%M:%S'), method, url, version, data, payload is not null from events order by seq";
    assert_eq!(
        server.rows("default", sql).await,
        json!([
            [
                "6a7e8feb-b491-4cf7-a9f1-bf3703467718",
                "EC2_Instance_State-change_Notification",
                "EC2 Instance State-change Notification",
                "aws.ec2",
                "18:43:48",
                "stop",
                null,
                null,
                bridge["detail"].to_string(),
                true
            ],
            [
                "831e1650-001e-001b-66ab-eeb76e069631",
                "Microsoft.Storage.BlobCreated",
                "Microsoft.Storage.BlobCreated",
                grid[0]["topic"],
                "18:41:00",
                null,
                "https://a.blob.core.windows.net/c/b.txt",
                null,
                grid[0]["data"].to_string(),
                true
            ],
        ])
    );
    server.stop().await;
}

#[tokio::test]
async fn event_grid_is_told_that_its_subscription_is_wanted() {
    let server = TestServer::start().await;
    let ask = async |body: &Value| {
        let request = server.http.post(format!("{}/ingest", server.url));
        let request = request.header("aeg-event-type", "SubscriptionValidation").json(body);
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    let event = json!([{
        "id": "2d1781af-3a4c-4d7c-bd0c-e34b19da4e66", "topic": "/subscriptions/s", "subject": "",
        "data": {"validationCode": "512d38b6-c7b8-40c8-89fe-f46f9e9622b6"},
        "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
        "eventTime": "2026-11-28T22:12:19.4556811Z", "metadataVersion": "1", "dataVersion": "1"
    }]);
    let expected = json!({ "validationResponse": "512d38b6-c7b8-40c8-89fe-f46f9e9622b6" });
    assert_eq!(ask(&event).await, (200, expected));
    assert_eq!(ask(&json!([])).await.0, 400);
    let (status, _) = server.query("default", &json!({ "sql": "select 1 from events" })).await;
    assert_eq!(status, 404, "nothing is stored of it");
    server.stop().await;
}

#[tokio::test]
async fn an_event_without_a_type_is_refused_with_what_to_do_at_its_sender() {
    let server = TestServer::start().await;
    for (event, advice) in [
        (json!({"a": 1}), "add one, such as"),
        (
            json!({"message": {"data": "e30=", "messageId": "1", "publishTime": "2026-11-20T10:00:00Z"}, "subscription": "projects/p/subscriptions/s"}),
            "enable payload unwrapping",
        ),
        (
            json!({"Type": "Notification", "MessageId": "1", "TopicArn": "arn", "Message": "{}"}),
            "enable raw message delivery",
        ),
        (
            json!({"Type": "SubscriptionConfirmation", "TopicArn": "arn", "Message": "m", "SubscribeURL": "https://x"}),
            "open the event's SubscribeURL",
        ),
        (
            json!({"requestId": "r", "timestamp": 1_795_183_385_000_i64, "records": [{"data": "e30="}]}),
            "send its records as events",
        ),
        (json!({"__crdb__": {"updated": "1.0"}, "id": 1}), "envelope=wrapped"),
        (json!([{"batchId": "b", "events": [{"type": "a"}]}]), "the batch alone"),
        (json!({"date": 1_795_183_385.25, "log": "line"}), "Fluent Bit"),
        (
            json!({"message": "line", "source_type": "file", "timestamp": "2026-11-20T10:00:00Z"}),
            "Vector",
        ),
    ] {
        let (status, reply) = server.ingest(&event).await;
        assert_eq!(status, 400, "{reply}");
        assert_eq!(reply["errors"][0]["code"], "MISSING_TYPE");
        let reason = reply["errors"][0]["reason"].as_str().unwrap();
        assert!(
            reason.starts_with("the event has no `type`; ") && reason.contains(advice),
            "{reason}"
        );
        assert!(reply["errors"][0]["deadLetter"].is_string());
    }
    server.stop().await;
}
