//! Events of a log that another one followed: what `icecore wal export` gives and what their senders
//! send again are one event each, whichever comes first.

use crate::{harness::TestServer, process::run};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use ring::hmac::{HMAC_SHA256, Key, sign};
use serde_json::{Value, json};
use tempfile::TempDir;

const NAMESPACE: &str = "shop.example";
const SECRET: &str = "a secret of sixteen";
const SETTINGS: [(&str, &str); 2] =
    [("webhooks.github.secret", SECRET), ("webhooks.generic.secret", SECRET)];

/// A request as its sender makes it, and makes it again.
struct Sent {
    path: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

fn sent(content_type: &str, body: &(impl ToString + ?Sized)) -> Sent {
    Sent {
        path: "/ingest?backfill=true",
        headers: vec![("content-type", content_type.to_owned())],
        body: body.to_string().into_bytes(),
    }
}

fn event(body: &Value) -> Sent {
    sent("application/json", body)
}

fn with(mut sent: Sent, headers: &[(&'static str, &str)]) -> Sent {
    sent.headers.extend(headers.iter().map(|(name, value)| (*name, (*value).to_owned())));
    sent
}

fn delivery(path: &'static str, signed: &'static str, body: &[u8]) -> Sent {
    let mac = sign(&Key::new(HMAC_SHA256, SECRET.as_bytes()), body);
    let hex: String = mac.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let headers = vec![(signed, format!("sha256={hex}"))];
    Sent { path, headers, body: body.to_vec() }
}

/// Events in the words of this service.
fn own() -> Vec<Sent> {
    let ts = "2026-11-20T18:43:48Z";
    vec![
        event(&json!({ "id": "o-1", "type": "t" })),
        event(
            &json!({ "id": "o-2", "type": "t", "ts": ts, "data": { "n": 1.50, "durationMs": 3 } }),
        ),
        event(
            &json!({ "id": "o-3", "type": "t", "colour": "red", "data": { "url": "https://a" } }),
        ),
        event(&json!({ "id": "o-4", "type": "t", "ts": ts, "colour": "red", "payload": "mine" })),
        event(
            &json!({ "id": 5, "type": "t", "do": { "id": "d", "more": 1 }, "_meta": { "a": 1 } }),
        ),
        event(&json!({ "id": "o-6", "type": "rpc.call", "namespace": "a", "success": "yes" })),
        event(&json!({ "batchId": "b", "events": [{ "type": "t" }, { "type": "t", "x": 1 }] })),
        event(&json!({ "id": "o-7", "type": "t", "payload": { "op": "c", "colour": 1 } })),
        sent("application/json", r#"{"id":"o-8","type":"t","actor":"x","actor":"y","z":"\ud800"}"#),
        sent(
            "application/json",
            "{ \"id\": \"o-9\",\n \"type\": \"t\", \"data\": { \"a\" : [1, 2] } }",
        ),
        with(event(&json!({ "id": "o-10", "type": "t" })), &[("x-correlation-id", "c-1")]),
        event(
            &json!({ "id": "c-1", "op": "u", "collection": "orders", "key": "1", "after": { "a": 1 } }),
        ),
        event(
            &json!({ "id": "c-2", "type": "collection.insert", "table": "o", "pk": "2", "doc": {}, "x": 1 }),
        ),
        event(
            &json!({ "id": "c-3", "op": "d", "store": "s", "bookmark": "mine", "before": { "a": 1 } }),
        ),
        event(&json!({ "id": "log", "type": "tail", "scriptName": "w", "outcome": "ok",
            "data": { "headers": { "authorization": "Bearer 0123456789abcdef" } } })),
        event(&json!({ "id": "long", "type": "t", "more": "\"".repeat(400_000) })),
    ]
}

/// CloudEvents, of which two have one id and two sources, and the events of buses.
fn cloud_events() -> Vec<Sent> {
    let cloud = |id: &str, source: &str, more: Value| {
        let mut event =
            json!({ "specversion": "1.0", "id": id, "source": source, "type": "com.a/b" });
        let more = more.as_object().unwrap().clone();
        event.as_object_mut().unwrap().extend(more);
        event
    };
    let structured = "application/cloudevents+json";
    let binary = [
        ("ce-specversion", "1.0"),
        ("ce-id", "ce-4"),
        ("ce-source", "/a"),
        ("ce-type", "t"),
        ("ce-time", "2026-11-20T18:43:48Z"),
    ];
    let change = json!({ "op": "c", "before": null, "after": { "id": 1 }, "ts_ms": 1,
        "source": { "connector": "postgresql", "name": "n", "db": "shop", "schema": "p",
            "table": "clouds", "lsn": 77, "txId": 5 } });
    vec![
        sent(
            structured,
            &cloud("ce-1", "/a", json!({ "data": { "a": 1 }, "time": "2026-11-20T18:43:48Z" })),
        ),
        sent(structured, &cloud("ce-1", "/b", json!({ "correlationid": "x" }))),
        sent(structured, &cloud("o-1", "/b", json!({ "data_base64": "AAE=" }))),
        sent(
            "application/cloudevents-batch+json",
            &json!([
                cloud("ce-2", "/a", json!({})),
                cloud("ce-3", "/a", json!({ "data": "text" }))
            ]),
        ),
        with(sent("text/plain", "body"), &binary),
        sent(structured, &cloud("ce-5", "/debezium", json!({ "data": change }))),
        event(
            &json!({ "version": "0", "id": "bus-1", "detail-type": "EC2 State", "source": "aws.ec2",
            "account": "1", "time": "2026-11-20T18:43:48Z", "region": "r", "resources": [],
            "detail": { "state": "off", "method": "stop" } }),
        ),
        event(&json!([{ "topic": "/t", "subject": "/s", "eventType": "A.B", "id": "grid-1",
            "eventTime": "2026-11-20T18:41:00Z", "data": { "url": "https://a" }, "dataVersion": "",
            "metadataVersion": "1" }])),
        event(&json!({ "batch": [
            { "type": "track", "messageId": "m1", "event": "Done", "userId": "u", "properties": { "a": 1 } },
            { "type": "page", "messageId": "m2", "name": "Home", "userId": "u" },
        ], "sentAt": "2026-11-20T10:00:05.000Z" })),
    ]
}

fn changes() -> Vec<Sent> {
    let source = |lsn: u64| {
        json!({ "connector": "postgresql", "name": "n", "db": "shop", "schema": "public",
            "table": "orders", "lsn": lsn, "txId": 5, "ts_ms": 1_795_901_400_000_u64 })
    };
    let change = |lsn: u64, op: &str, ms: u64| json!({ "op": op, "before": null, "after": { "id": lsn }, "source": source(lsn), "ts_ms": ms });
    let crdb = |at: u64| {
        json!({ "after": { "id": at }, "key": [at], "topic": "products",
            "updated": format!("{at}.0000000000") })
    };
    vec![
        event(&change(1, "c", 1_795_901_400_000)),
        event(
            &json!({ "schema": { "type": "struct" }, "payload": change(2, "r", 1_795_901_400_000) }),
        ),
        event(&change(3, "u", 1_795_901_400_000)),
        event(
            &json!({ "id": 4, "__op": "c", "__table": "flat", "__source_lsn": 4, "__source_ts_ms": 1,
            "__db": "shop", "__deleted": "false" }),
        ),
        event(
            &json!({ "payload": [crdb(1_795_901_400_000_000_001), crdb(1_795_901_400_000_000_002)],
            "length": 2 }),
        ),
    ]
}

fn deliveries() -> Vec<Sent> {
    let github = delivery(
        "/webhooks/github?ns=shop.example",
        "x-hub-signature-256",
        br#"{"action":"opened", "number":1}"#,
    );
    let generic =
        |body: &[u8]| delivery("/webhooks/generic?ns=shop.example", "x-signature-256", body);
    vec![
        with(github, &[("x-github-delivery", "d-1"), ("x-github-event", "pull_request")]),
        with(generic(b"a=1&b=2"), &[("x-webhook-id", "w-1")]),
        with(generic(b"\xff\xfe"), &[("x-webhook-id", "w-2")]),
        generic(br#"{"no":"id"}"#),
        generic(br#"{"specversion":"1.0","id":"x","source":"/s","type":"t"}"#),
    ]
}

fn all() -> Vec<Sent> {
    [own(), cloud_events(), changes(), deliveries()].into_iter().flatten().collect()
}

/// Sends everything; all must be taken. How many events that were, and how many were repeats.
async fn send(server: &TestServer) -> (u64, u64) {
    let mut counts = (0, 0);
    for one in all() {
        let text = String::from_utf8_lossy(&one.body[..one.body.len().min(200)]).into_owned();
        let mut headers = HeaderMap::new();
        headers.insert("x-namespace", HeaderValue::from_static(NAMESPACE));
        for (name, value) in &one.headers {
            headers.insert(HeaderName::from_static(name), value.parse().unwrap());
        }
        let request = server.http.post(format!("{}{}", server.url, one.path)).headers(headers);
        let answer = request.body(one.body).send().await.unwrap();
        let (status, reply) = (answer.status(), answer.json::<Value>().await.unwrap());
        assert_eq!(status, 200, "{text}: {reply}");
        let count = |name: &str| reply[name].as_u64().unwrap();
        let received = count("received");
        let duplicates = count("duplicates");
        assert!([0, received].contains(&duplicates), "{text}: {reply}");
        counts = (counts.0 + received, counts.1 + duplicates);
    }
    counts
}

/// What a log has that no table has.
fn export(folder: &TempDir) -> Vec<u8> {
    let settings = [("data_dir", folder.path().display().to_string())];
    let output = run(&["wal", "export"], &settings, b"");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn ingest(server: &TestServer, exported: &[u8]) -> String {
    let output = run(&["ingest", "--url", &server.url], &[], exported);
    let told = [output.stdout, output.stderr].concat();
    String::from_utf8(told).unwrap()
}

/// Every row but for what each server gives anew, a line for each value.
async fn rows(server: &TestServer) -> Vec<String> {
    // Of change events without a bookmark each log mints one.
    let sql = "SELECT * EXCLUDE (seq, ingested_at, bookmark) FROM events ORDER BY id, source";
    let (status, answer) = server.query(NAMESPACE, &json!({ "sql": sql })).await;
    assert_eq!(status, 200, "{answer}");
    let columns = answer["columns"].as_array().unwrap();
    let rows = answer["rows"].as_array().unwrap().iter();
    let told = rows.flat_map(|row| {
        let values = columns.iter().zip(row.as_array().unwrap());
        values.map(|(column, value)| format!("{}.{} = {value}", row[0], column["name"]))
    });
    told.collect()
}

/// Compares line by line, so that what differs is told and nothing else.
fn assert_same(found: &[String], expected: &[String]) {
    let differ = found.iter().zip(expected).filter(|(found, expected)| found != expected);
    assert_eq!(differ.collect::<Vec<_>>(), []);
    assert_eq!(found.len(), expected.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exported_event_and_the_one_that_is_sent_again_are_one_in_either_order() {
    let server = TestServer::start_in(tempfile::tempdir().unwrap(), &SETTINGS).await;
    let (count, duplicates) = send(&server).await;
    assert_eq!(duplicates, 0);
    assert_eq!(send(&server).await, (count, count));
    let was = rows(&server).await;
    let exported = export(&server.stop().await);
    let told = |new: u64, duplicates: u64| {
        format!("{count} events sent: {new} new, {duplicates} duplicates, 0 rejected\n")
    };
    for is_committed in [false, true] {
        let first = TestServer::start_in(tempfile::tempdir().unwrap(), &SETTINGS).await;
        assert_eq!(ingest(&first, &exported), told(count, 0));
        assert_same(&rows(&first).await, &was);
        if is_committed {
            first.commit(NAMESPACE).await;
        }
        assert_eq!(ingest(&first, &exported), told(0, count));
        assert_eq!(send(&first).await, (count, count));
        first.stop().await;

        let second = TestServer::start_in(tempfile::tempdir().unwrap(), &SETTINGS).await;
        assert_eq!(send(&second).await, (count, 0));
        if is_committed {
            second.commit(NAMESPACE).await;
        }
        assert_eq!(ingest(&second, &exported), told(0, count));
        let again = export(&second.stop().await);
        if !is_committed {
            // A log that was filled from another one is exported in turn.
            let third = TestServer::start_in(tempfile::tempdir().unwrap(), &SETTINGS).await;
            assert_eq!(ingest(&third, &again), told(count, 0));
            assert_eq!(send(&third).await, (count, count));
            third.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exported_event_with_other_words_is_a_conflict() {
    let server = TestServer::start().await;
    let kept = json!({ "id": "a", "type": "t", "colour": "red" });
    assert_eq!(server.ingest(&kept).await.0, 200);
    let exported = String::from_utf8(export(&server.stop().await)).unwrap();
    let server = TestServer::start().await;
    for (line, status, conflicts) in [
        (exported.clone(), 200, 0),
        (exported.replace("red", "blue"), 400, 1),
        (kept.to_string().replace("red", "blue"), 400, 1),
    ] {
        let (found, reply) = {
            let answer = server.post("/ingest?backfill=true", "application/json", line).await;
            (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
        };
        let errors = reply["errors"].as_array().map_or(0, Vec::len);
        assert_eq!((found, errors), (status, conflicts), "{reply}");
    }
    server.stop().await;
}
