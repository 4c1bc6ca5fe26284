use super::*;
use axum::routing::get;
use bytes::{Buf, Bytes};
use icecore_catalog::{
    catalog::Catalog,
    metastore::Metastore,
    rest,
    storage::{S3Options, Storage},
};
use serde_json::{Value, json};
use std::{
    io::IoSlice,
    net::Ipv4Addr,
    pin::Pin,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    sync::Semaphore,
};

/// Longest a connection may go on in a test.
const END_TIME_MAX: Duration = Duration::from_secs(30);
/// A client that takes longer is too slow.
const SHORT: Duration = Duration::from_millis(20);
/// Turns in which whatever can go on does.
const TURNS: usize = 1000;

/// A connection in memory: the client sends `request` and then nothing more, and takes whatever is
/// written at once.
struct Connection {
    request: Bytes,
    writes: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.request.is_empty() {
            return Poll::Pending;
        }
        let length = self.request.len().min(buffer.remaining());
        buffer.put_slice(&self.request[..length]);
        self.request.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(ctx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let length = bytes.len();
        self.writes.lock().unwrap().push(bytes);
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Sends `request` over a connection of its own, and gives what was written until its end.
async fn written(router: &Router, request: &str, header_time_max: Duration) -> Vec<Vec<u8>> {
    let writes = Arc::default();
    let request = Bytes::copy_from_slice(request.as_bytes());
    let stream = TokioIo::new(Connection { request, writes: Arc::clone(&writes) });
    let seat = ConnectionSeats::new(1).take(Ipv4Addr::LOCALHOST.into()).await;
    let served = answered(stream, Arc::new(seat), router.clone(), header_time_max);
    // How it ends is no matter here, only that it does.
    let _ended = tokio::time::timeout(END_TIME_MAX, served).await.expect("the connection ends");
    std::mem::take(&mut *writes.lock().unwrap())
}

fn request(method: &str, path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
}

/// Sends a request whose answer must come in one write, and gives its body.
async fn in_one_write(router: &Router, method: &str, path: &str, body: Value) -> String {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let mut writes = written(router, &request(method, path, &body), IDLE_TIME_MAX).await;
    assert_eq!(writes.len(), 1, "{method} {path}");
    let answer = String::from_utf8(writes.remove(0)).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.to_ascii_lowercase().contains(&format!("content-length: {}", body.len())));
    body.to_owned()
}

/// The catalog's routes over a new warehouse.
async fn catalog() -> (tempfile::TempDir, Router) {
    let folder = tempfile::tempdir().unwrap();
    let warehouse = format!("file://{}/warehouse", folder.path().display());
    let storage = Storage::open(&warehouse, &S3Options::default()).unwrap();
    let metastore = Metastore::sqlite(&folder.path().join("icecore.db")).await.unwrap();
    let catalog = Catalog::new("icecore", storage, metastore, Arc::new(|| 1));
    (folder, Router::new().nest("/catalog", rest::router(catalog)))
}

#[tokio::test]
async fn connections_are_accepted_without_a_delay_of_small_writes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap());
    let (accepted, client) = tokio::join!(accept(&listener), client);
    let (stream, peer) = accepted.unwrap();
    assert!(stream.nodelay().unwrap());
    assert_eq!(peer, client.unwrap().local_addr().unwrap());
}

#[tokio::test]
async fn an_answer_is_one_write_however_long_it_is() {
    let (_folder, router) = catalog().await;
    in_one_write(&router, "GET", "/catalog/v1/config", Value::Null).await;
    in_one_write(&router, "GET", "/catalog/v1/namespaces/none", Value::Null).await;
    let namespaces = "/catalog/v1/namespaces";
    in_one_write(&router, "POST", namespaces, json!({"namespace": ["ns"]})).await;
    let properties: serde_json::Map<String, Value> =
        (0..100).map(|n| (format!("p{n}"), Value::from("x".repeat(1 << 10)))).collect();
    let column = json!({"id": 1, "name": "id", "required": true, "type": "long"});
    let schema = json!({"type": "struct", "schema-id": 0, "fields": [column]});
    let table = json!({"name": "t", "schema": schema, "properties": properties});
    let tables = "/catalog/v1/namespaces/ns/tables";
    let made = in_one_write(&router, "POST", tables, table).await;
    let path = format!("{tables}/t");
    let first = in_one_write(&router, "GET", &path, Value::Null).await;
    let again = in_one_write(&router, "GET", &path, Value::Null).await;
    assert!(100 << 10 < first.len() && first == again && first == made);
}

#[tokio::test]
async fn who_takes_too_long_for_headers_is_cut_off() {
    let router = Router::new().route("/", get(async || "here"));
    for started in ["", "G", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nhost: x\r\nx-more: "] {
        let writes = written(&router, started, SHORT).await.concat();
        assert!(!String::from_utf8(writes).unwrap().contains("here"), "{started:?}");
    }
    // So is who keeps a connection and sends nothing more.
    let writes = written(&router, "GET / HTTP/1.1\r\nhost: x\r\n\r\n", SHORT).await.concat();
    assert!(String::from_utf8(writes).unwrap().ends_with("here"));
}

#[tokio::test]
async fn only_so_many_connections_are_served_at_once() {
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let end = Arc::new(Semaphore::new(0));
    let handler = {
        let (running, most, end) = (Arc::clone(&running), Arc::clone(&most), Arc::clone(&end));
        async move || {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            end.acquire().await.unwrap().forget();
            running.fetch_sub(1, Ordering::SeqCst);
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tasks = Tasks::default();
    serve(&tasks, listener, Router::new().route("/", get(handler)), 2);
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(request("GET", "/", "").as_bytes()).await.unwrap();
        clients.push(client);
    }
    while running.load(Ordering::SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    for _ in 0..TURNS {
        tokio::task::yield_now().await;
    }
    end.add_permits(clients.len());
    for mut client in clients {
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert_eq!(most.load(Ordering::SeqCst), 2);
    tasks.stop(END_TIME_MAX).await;
}

#[tokio::test]
async fn probes_are_answered_when_every_request_has_to_wait() {
    let end = Arc::new(Semaphore::new(0));
    let handler = {
        let end = Arc::clone(&end);
        async move || end.acquire().await.unwrap().forget()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tasks = Tasks::default();
    let router = Router::new().route("/", get(handler)).route("/healthz", get(async || "ok"));
    serve(&tasks, listener, router, 2);
    let ask = async |path: &str| {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(request("GET", path, "").as_bytes()).await.unwrap();
        client
    };
    let mut waiting = Vec::new();
    for _ in 0..5 {
        waiting.push(ask("/").await);
    }
    for mut probe in [ask("/healthz").await, ask("/healthz").await] {
        let mut answer = String::new();
        probe.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("ok"), "{answer}");
    }
    end.add_permits(waiting.len());
    for mut client in waiting {
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    tasks.stop(END_TIME_MAX).await;
}

#[test]
fn failures_to_accept_are_counted_and_seldom_logged() {
    let mut failures = AcceptFailures::default();
    let full = io::Error::other("too many open files");
    let pauses: Vec<u128> = (0..7).map(|_| failures.pause(&full).as_millis()).collect();
    assert_eq!(pauses, [50, 100, 200, 400, 800, 1000, 1000]);
    assert_eq!(failures.since, 6, "all but the first wait for the next line of the log");
}

#[tokio::test]
async fn who_never_stops_sending_is_read_so_far_and_no_further() {
    let seat = Arc::new(ConnectionSeats::new(1).take(Ipv4Addr::LOCALHOST.into()).await);
    let endless = tokio::io::join(tokio::io::repeat(0), tokio::io::sink());
    let mut stream = WatchedStream::new(endless, seat);
    tokio::time::timeout(END_TIME_MAX, stream.shutdown()).await.unwrap().unwrap();
}
