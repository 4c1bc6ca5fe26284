//! One client takes every connection that it may have and sends half a request on each: others are
//! answered all the same.

use crate::{
    harness::{TestServer, events},
    process::{Process, open_files_max},
};
use serde_json::json;
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

/// As many as a server takes connections.
const HALF_SENT: usize = 1024;
/// Descriptors that the test needs: both ends of each connection are in its process, and the tests
/// beside it have some.
const DESCRIPTORS_MIN: u64 = 4096;
/// Longest an answer may take. A body of which nothing comes any more has ten seconds.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);

/// A connection from that address of this machine.
async fn connect(server: &TestServer, from: [u8; 4]) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((from, 0))).unwrap();
    let to = server.url.strip_prefix("http://").unwrap().parse().unwrap();
    socket.connect(to).await.unwrap()
}

/// What another client is answered.
async fn ask(server: &TestServer, request: &str) -> String {
    let asked = async {
        let mut stream = connect(server, [127, 0, 0, 2]).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = tokio::time::timeout(ANSWER_TIME_MAX, asked).await;
    answer.unwrap_or_else(|_| panic!("no answer in {ANSWER_TIME_MAX:?} to: {request}"))
}

/// One client sends so much of each request; what another one asks is answered.
async fn check(half: &str) {
    let server = TestServer::start().await;
    let mut held = Vec::new();
    for _ in 0..HALF_SENT {
        let mut stream = connect(&server, [127, 0, 0, 1]).await;
        // One that gave its seat to the next takes no more.
        let _sent = stream.write_all(half.as_bytes()).await;
        held.push(stream);
    }
    let healthy = "GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let body = events(0..10).to_string();
    let length = body.len();
    let ingest = format!(
        "POST /ingest HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    for request in [healthy, ingest.as_str()] {
        let answer = ask(&server, request).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{half:?}: {answer}");
    }
    drop(held);
    let rows = server.rows("shop.example", "SELECT count(*) FROM events").await;
    assert_eq!(rows, json!([[10]]), "{half:?}");
    let (status, _) = server.query("default", &json!({ "sql": "SELECT id FROM events" })).await;
    assert_eq!(status, 404, "{half:?}: nothing of the halves is taken");
    let stopped = tokio::time::timeout(ANSWER_TIME_MAX, server.stop()).await;
    drop(stopped.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_half_a_request_on_each_of_1024_connections_keeps_no_other_one_out() {
    let most = rlimit::increase_nofile_limit(DESCRIPTORS_MIN).unwrap();
    assert!(
        DESCRIPTORS_MIN <= most,
        "{most} open files are too few: `ulimit -Hn {DESCRIPTORS_MIN}`"
    );
    // In the head, which makes room for the next after a second; in the body, which has ten.
    for half in [
        "POST /ingest HTTP/1.1\r\nhost: localhost\r\ncontent-le",
        "POST /ingest HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{\"type\":\"half\"",
    ] {
        check(half).await;
    }
}

/// Shells and service managers start a process with few files, and let it raise their number.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_has_as_many_files_as_it_may() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [("data_dir", folder.path().display().to_string())];
    let server = Process::start_after("ulimit -Sn 256", &settings).await;
    let (_, hard) = open_files_max("self");
    assert_eq!(server.open_files_max(), hard);
    let to = server.url.strip_prefix("http://").unwrap();
    let mut held = Vec::new();
    for _ in 0..300 {
        held.push(TcpStream::connect(to).await.unwrap());
    }
    let body = events(0..10).to_string();
    let sent = reqwest::Client::new()
        .post(format!("{}/ingest?ack=committed", server.url))
        .header("content-type", "application/json")
        .body(body);
    assert_eq!(sent.send().await.unwrap().status(), 200);
}
