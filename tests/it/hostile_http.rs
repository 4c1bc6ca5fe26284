//! Clients that break the rules of HTTP: each is answered or cut off, nothing is taken from a
//! request that did not arrive whole, and other clients notice nothing.

use crate::harness::{TestServer, events};
use icecore_fuzz::{mutate_bytes, pick};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Longest a reply may take.
const REPLY_TIME_MAX: Duration = Duration::from_secs(30);

async fn connect(server: &TestServer) -> TcpStream {
    TcpStream::connect(server.url.strip_prefix("http://").unwrap()).await.unwrap()
}

/// Sends these bytes and no more, and gives everything that comes back. A server that reads the
/// end before it answers takes it for a client that is gone.
async fn cut_off(server: &TestServer, request: &[u8]) -> String {
    let mut stream = connect(server).await;
    // A server that has seen enough may close before all is sent.
    let _ = stream.write_all(request).await;
    let _ = stream.shutdown().await;
    rest(stream).await
}

/// Sends requests of which the last asks to close, and gives every reply.
async fn raw(server: &TestServer, request: &[u8]) -> String {
    let mut stream = connect(server).await;
    stream.write_all(request).await.unwrap();
    rest(stream).await
}

async fn rest(mut stream: TcpStream) -> String {
    let mut reply = Vec::new();
    let read = tokio::time::timeout(REPLY_TIME_MAX, stream.read_to_end(&mut reply)).await;
    // A reset after the reply is as good as an end.
    let _ = read.expect("the server answers or hangs up in time");
    String::from_utf8_lossy(&reply).into_owned()
}

/// The status of each reply.
fn statuses(reply: &str) -> Vec<u16> {
    let lines = reply.split("HTTP/1.").skip(1);
    lines.map(|line| line[2..5].parse().unwrap()).collect()
}

async fn check(server: &TestServer, request: impl AsRef<[u8]>, allowed: &[u16]) {
    let reply = cut_off(server, request.as_ref()).await;
    let shown: String = String::from_utf8_lossy(request.as_ref()).chars().take(200).collect();
    let statuses = statuses(&reply);
    let fits = statuses.iter().all(|status| allowed.contains(status));
    // Cut off without a word is an answer, too.
    assert!(fits, "{shown:?} was answered with {statuses:?}: {reply}");
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_connections_keep_nobody_else_waiting() {
    let server = TestServer::start().await;
    let starts: [&str; 5] = [
        "",
        "P",
        "POST /ingest HTTP/1.1\r\nhost: localhost\r\ncontent-le",
        "POST /ingest HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{\"type\":\"half\"",
        "POST /ingest HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n20\r\n{\"type\":",
    ];
    let mut held = Vec::new();
    for start in starts.iter().cycle().take(100) {
        let mut stream = connect(&server).await;
        stream.write_all(start.as_bytes()).await.unwrap();
        held.push(stream);
    }
    for n in 0..5 {
        assert_eq!(server.ingest(&events(n * 10..n * 10 + 10)).await.0, 200);
    }
    let rows = server.rows("shop.example", "SELECT count(*) FROM events").await;
    assert_eq!(rows, json!([[50]]));
    // The end does not wait for them for ever, either.
    let stopped = tokio::time::timeout(REPLY_TIME_MAX, server.stop()).await;
    drop(stopped.unwrap());
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_framing_is_refused_and_takes_nothing() {
    let server = TestServer::start().await;
    let event = r#"{"type":"smuggled"}"#;
    let post = |headers: &str, body: &str| {
        format!("POST /ingest HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n\r\n{body}")
    };
    let refused = [400, 413, 431, 501, 505];
    for headers in [
        "content-length: 19\r\ncontent-length: 20",
        "content-length: -1",
        "content-length: 1e3",
        "content-length: 99999999999999999999999",
        "content-length: 18446744073709551615",
        "content-length: 20",
        "transfer-encoding: chunked, identity",
        "transfer-encoding: nothing",
        "bad header",
        ": nameless",
        "host : localhost",
    ] {
        check(&server, post(headers, event), &refused).await;
    }
    let chunked = "transfer-encoding: chunked";
    for body in [
        "zz\r\n{}\r\n0\r\n\r\n",
        "-1\r\n{}\r\n0\r\n\r\n",
        "fffffffffffffffff\r\n{}",
        "ffffffffffffffff\r\n{}",
        "13\r\n{\"type\":\"smuggled\"}",
        "13\r\n{\"type\":\"smuggled\"}0\r\n\r\n",
        "13\r\n{\"type\":\"smuggled\"}\r\n",
        "\r\n\r\n",
    ] {
        check(&server, post(chunked, body), &refused).await;
    }
    let long = format!("x: {}", "x".repeat(1 << 20));
    check(&server, post(&long, event), &refused).await;
    let many = (0..500).map(|n| format!("x-{n}: 1\r\n")).collect::<String>();
    check(&server, post(many.trim_end(), event), &refused).await;
    check(&server, format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(1 << 20)), &[400, 404, 414, 431])
        .await;
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
        b"\r\n\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\n\r\n",
    ] {
        check(&server, garbage, &[400, 404, 505]).await;
    }
    assert_eq!(server.ingest(&events(0..1)).await.0, 200);
    let query = json!({ "sql": "SELECT type FROM events" });
    assert_eq!(server.query("default", &query).await.0, 404, "nothing arrived there");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_a_whole_body_before_it_reads_gets_the_answer() {
    let server = TestServer::start().await;
    let body = vec![b'x'; 32 << 20];
    for (path, status) in [("/ingest", 413), ("/v1/default/sql", 413), ("/nowhere", 404)] {
        for framing in
            ["content-length: 33554432\r\n\r\n", "transfer-encoding: chunked\r\n\r\n2000000\r\n"]
        {
            let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\n{framing}");
            let mut stream = connect(&server).await;
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(&body).await.expect("the server reads all of it");
            assert_eq!(statuses(&rest(stream).await), [status], "{head}");
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_order() {
    let server = TestServer::start().await;
    let event = r#"{"type":"piped","id":"1","ns":"p"}"#;
    let length = event.len();
    let post = format!(
        "POST /ingest HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n{event}"
    );
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let last = "GET /version HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".to_owned();
    let all = [get("/healthz"), post.clone(), get("/nowhere"), post, last].concat();
    let reply = raw(&server, all.as_bytes()).await;
    assert_eq!(statuses(&reply), [200, 200, 404, 200, 200], "{reply}");
    let (first, second) = (reply.find("\"duplicates\":0"), reply.find("\"duplicates\":1"));
    assert!(first.is_some() && first < second, "{reply}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_first_is_told_to_go_on() {
    let server = TestServer::start().await;
    let event = r#"{"type":"asked"}"#;
    let mut stream = connect(&server).await;
    let head = format!(
        "POST /ingest HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        event.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut reply = vec![0; 25];
    stream.read_exact(&mut reply).await.unwrap();
    assert_eq!(reply, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(event.as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    assert_eq!(statuses(&reply), [200], "{reply}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn methods_and_paths_of_every_kind_have_an_answer_in_the_servers_form() {
    let server = TestServer::start().await;
    server.ingest(&events(0..1)).await;
    let send = async |method: &str, path: &str| {
        let request =
            format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        raw(&server, request.as_bytes()).await
    };
    let head = send("HEAD", "/version").await;
    assert!(statuses(&head) == [200] && head.ends_with("\r\n\r\n"), "{head}");
    for method in ["BREW", "get", "TRACE", "CONNECT", "DELETE", "PROPFIND"] {
        let reply = send(method, "/ingest").await;
        assert!(statuses(&reply).iter().all(|status| [400, 404, 405].contains(status)), "{reply}");
    }
    let reply = send("BREW", "/ingest").await;
    assert!(reply.to_ascii_lowercase().contains("allow: post"), "{reply}");
    for path in [
        "/v1/%ff/tables",
        "/v1/%00/tables",
        "/v1/%/tables",
        "/v1/%zz/tables",
        "/v1/..%2f..%2fetc/tables",
        "/v1/%2e%2e/tables",
        "/v1/shop.example/tables/%ff/snapshots",
        "/v1/shop.example/tables/..%2f..%2fevents/snapshots",
        "/v1/shop.example/tables/%f0%9f%98%80/snapshots",
        "/v1//tables",
        "//",
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/healthz%00",
        "/ingest/",
        "/ingest?ack=%ff",
        "http://elsewhere/nowhere",
        "/catalog/v1/namespaces/%ff",
        "/catalog/v1/namespaces/%00",
        "/catalog/v1/namespaces/a%1f%1fb/tables/%ff",
        "/catalog/v1/namespaces?parent=%ff&pageSize=-1",
        "/catalog/v1/namespaces/..%2f..%2f/tables/..",
    ] {
        let reply = send("GET", path).await;
        let status = statuses(&reply)[0];
        assert!((400..500).contains(&status), "{path}: {reply}");
        let body: Value = serde_json::from_str(reply.split("\r\n\r\n").nth(1).unwrap())
            .unwrap_or_else(|_| panic!("{path}: {reply}"));
        assert!(
            body["error"].is_string() || body["error"]["message"].is_string(),
            "{path}: {body}"
        );
    }
    assert_eq!(server.get("/healthz").await.status(), 200);
    server.stop().await;
}

const KINDS: &[&str] = &[
    "application/json",
    "application/x-ndjson",
    "application/cloudevents+json",
    "application/avro",
    "text/plain; charset=x",
];

fn bodies() -> Vec<Vec<u8>> {
    let event = r#"{"id":"e","type":"t","ts":"2026-11-20T13:59:59Z","op":"c","key":7,"after":{"a":1},"do":{"id":"d"},"durationMs":1.5,"data":{"userId":"u"}}"#;
    vec![
        event.into(),
        format!("[{event},{event}]").into(),
        format!("{{\"events\":[{event}],\"batchId\":\"b\"}}").into(),
        format!("{event}\n{event}\n").into(),
        r#"{"specversion":"1.0","id":"c","source":"/s","type":"x","data":{"k":1}}"#.into(),
        zstd::encode_all(event.as_bytes(), 1).unwrap(),
    ]
}

/// The whole way: bodies of every kind, broken at random, through the server into tables.
#[tokio::test(flavor = "multi_thread")]
async fn fuzz_bodies_sent_to_a_server_end_in_tables() {
    let server = TestServer::start().await;
    let bodies = bodies();
    let server = std::cell::RefCell::new(Some(server));
    type Names = std::collections::BTreeSet<String>;
    let tally = std::cell::RefCell::new((0, Names::new(), Names::new()));
    let handle = tokio::runtime::Handle::current();
    let one = |case: &(Vec<u8>, &str, Option<&str>, &str)| {
        let (body, kind, encoding, query) = case;
        let server = server.borrow();
        let server = server.as_ref().unwrap();
        let mut request = server
            .http
            .post(format!("{}/ingest{query}", server.url))
            .header("content-type", *kind)
            .body(body.clone());
        if let Some(encoding) = encoding {
            request = request.header("content-encoding", *encoding);
        }
        let (status, reply) = handle.block_on(async {
            let reply = request.send().await.unwrap();
            (reply.status().as_u16(), reply.json::<Value>().await.unwrap())
        });
        assert!([200, 207, 400, 413, 415].contains(&status), "{status} {reply}");
        let mut tally = tally.borrow_mut();
        let ranges = reply["namespaces"].as_array().cloned().unwrap_or_default();
        for name in ranges.iter().chain([&reply]).filter_map(|range| range["namespace"].as_str()) {
            tally.2.insert(name.to_owned());
        }
        if status != 400 || reply["errors"].is_array() {
            let refused = reply["errors"].as_array().map_or(0, Vec::len) as u64;
            let duplicates = reply["duplicates"].as_u64().unwrap();
            tally.0 += reply["received"].as_u64().unwrap() - refused - duplicates;
            let errors = reply["errors"].as_array().into_iter().flatten();
            tally.1.extend(errors.map(|error| error["deadLetter"].as_str().unwrap().to_owned()));
        }
    };
    tokio::task::block_in_place(|| {
        icecore_fuzz::run(
            250,
            |random| {
                let body = pick(random, &bodies);
                let body = mutate_bytes(random, body, &bodies, 64 << 10);
                let encoding = *pick(random, &[None, None, None, Some("zstd"), Some("gzip")]);
                let query = *pick(random, &["", "?backfill=true"]);
                (body, *pick(random, KINDS), encoding, query)
            },
            |case, _| one(case),
        );
    });
    let server = server.into_inner().unwrap();
    let (taken, refused, namespaces) = tally.into_inner();
    for _ in 0..2 {
        let (mut rows, mut letters) = (0, 0);
        for name in &namespaces {
            let name = name.replace('/', "%2F");
            let count = async |table: &str| {
                let sql = json!({ "sql": format!("SELECT count(*) FROM {table}") });
                let (status, answer) = server.query(&name, &sql).await;
                if status == 404 { 0 } else { answer["rows"][0][0].as_u64().unwrap() }
            };
            rows += count("events").await;
            letters += count("dead_letters").await;
            server.commit(&name).await;
        }
        assert_eq!((rows, letters), (taken, refused.len() as u64), "{namespaces:?}");
    }
    server.stop().await;
}
