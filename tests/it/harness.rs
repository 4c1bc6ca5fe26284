//! A real server in a temporary folder on a free port, and a client for it.

use icecore::{config::Config, server::Server};
use icecore_lake::clock::Clock;
use reqwest::{Client, Response};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Barrier},
    thread,
    time::Duration,
};
use tempfile::TempDir;

/// A running server. Its folder outlives it, so that it can be started again.
pub(crate) struct TestServer {
    pub(crate) folder: TempDir,
    pub(crate) url: String,
    pub(crate) http: Client,
    server: Server,
}

/// What a server is started with.
pub(crate) fn config(folder: &TempDir, settings: &[(&str, &str)]) -> Config {
    let mut flags = vec![
        ("listen", "127.0.0.1:0".to_owned()),
        ("data_dir", folder.path().display().to_string()),
        // Nothing is committed unless a test asks for it.
        ("commit.interval", "10min".to_owned()),
        // No table appears because a test takes long.
        ("collections.refresh_interval", "24h".to_owned()),
        // No tag is there that a test did not set.
        ("collections.daily_tags", "0".to_owned()),
        ("collections.monthly_tags", "0".to_owned()),
        // No files are merged because a clock is set ahead.
        ("compaction.hour_cron", String::new()),
        ("wal.segment_bytes", "1MiB".to_owned()),
        // What is free on the machine is no matter of these tests.
        ("wal.disk_free_min", "0".to_owned()),
    ];
    flags.extend(settings.iter().map(|(key, value)| (*key, (*value).to_owned())));
    Config::from_sources(None, Vec::new(), &flags).unwrap()
}

impl TestServer {
    pub(crate) async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), &[]).await
    }

    pub(crate) async fn start_in(folder: TempDir, settings: &[(&str, &str)]) -> Self {
        Self::start_at(folder, settings, Clock::system()).await
    }

    pub(crate) async fn start_at(folder: TempDir, settings: &[(&str, &str)], clock: Clock) -> Self {
        let config = config(&folder, settings);
        Self::start_with(folder, &config, clock).await
    }

    /// Starts one with what `config` gives for its folder, changed as a test likes.
    pub(crate) async fn start_with(folder: TempDir, config: &Config, clock: Clock) -> Self {
        let server = Server::start(config, clock).await.unwrap();
        let url = format!("http://{}", server.address());
        Self { folder, url, http: Client::new(), server }
    }

    pub(crate) async fn stop(self) -> TempDir {
        self.server.stop().await;
        self.folder
    }

    pub(crate) async fn restart(self) -> Self {
        Self::start_in(self.stop().await, &[]).await
    }

    pub(crate) async fn post(
        &self,
        path: &str,
        content_type: &str,
        body: impl Into<reqwest::Body>,
    ) -> Response {
        self.http
            .post(format!("{}{path}", self.url))
            .header("content-type", content_type)
            .body(body)
            .send()
            .await
            .unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.http.get(format!("{}{path}", self.url)).send().await.unwrap()
    }

    /// Sends JSON to `/ingest` and gives status and reply.
    pub(crate) async fn ingest(&self, body: &Value) -> (u16, Value) {
        self.ingest_at("/ingest", body).await
    }

    pub(crate) async fn ingest_at(&self, path: &str, body: &Value) -> (u16, Value) {
        let response = self.post(path, "application/json", body.to_string()).await;
        (response.status().as_u16(), response.json().await.unwrap())
    }

    /// Status and body of an answer to a request with a body of JSON; null for a body that is not JSON.
    pub(crate) async fn call(
        &self,
        method: reqwest::Method,
        path: &str,
        body: &Value,
    ) -> (u16, Value) {
        let request = self.http.request(method, format!("{}{path}", self.url)).json(body);
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default())
    }

    /// Rows of a query that must succeed.
    pub(crate) async fn rows(&self, namespace: &str, sql: &str) -> Value {
        let (status, answer) = self.query(namespace, &json!({ "sql": sql })).await;
        assert_eq!(status, 200, "{answer}");
        answer["rows"].clone()
    }

    pub(crate) async fn query(&self, namespace: &str, request: &Value) -> (u16, Value) {
        let response = self
            .post(&format!("/v1/{namespace}/sql"), "application/json", request.to_string())
            .await;
        (response.status().as_u16(), response.json().await.unwrap())
    }

    /// Commits what waits and gives the snapshots by table.
    pub(crate) async fn commit(&self, namespace: &str) -> Value {
        let response = self.post(&format!("/v1/{namespace}/commit"), "application/json", "").await;
        assert_eq!(response.status(), 200);
        response.json::<Value>().await.unwrap()["snapshots"].clone()
    }
}

/// Events `from..until` of namespace `shop.example`.
pub(crate) fn events(range: std::ops::Range<u32>) -> Value {
    let list: Vec<Value> = range
        .map(|n| json!({ "id": format!("e-{n}"), "type": if n % 2 == 0 { "order.placed" } else { "rpc.call" }, "ns": "shop.example", "data": { "n": n, "durationMs": f64::from(n) } }))
        .collect();
    json!({ "events": list })
}

/// Sends these events, and gives how many of them were known.
pub(crate) async fn duplicates(server: &TestServer, range: std::ops::Range<u32>) -> u64 {
    let (status, reply) = server.ingest(&events(range)).await;
    assert_eq!(status, 200, "{reply}");
    reply["duplicates"].as_u64().unwrap()
}

/// The files below a folder, however deep, whose paths end so, in order.
pub(crate) fn files_below(folder: &Path, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_str().unwrap().ends_with(end) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// A time as events and queries write it.
pub(crate) fn rfc3339(ms: i64) -> String {
    let time = chrono::DateTime::from_timestamp_millis(ms).unwrap();
    time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

/// Longest that a step stands at a failpoint with what is done meanwhile. How long it takes is no matter.
const MEETINGS_TIME_MAX: Duration = Duration::from_secs(300);
/// More comings to a barrier than a test has.
const COMINGS: u16 = u16::MAX;

/// Comes to the meeting of a failpoint, without a wait on a thread of the tests.
pub(crate) async fn meet(meeting: &Arc<Barrier>) {
    let meeting = Arc::clone(meeting);
    tokio::task::spawn_blocking(move || meeting.wait()).await.unwrap();
}

/// What a request gives that stands at failpoints, and what is done meanwhile. Where one of both waits for the other one
/// in vain, the test fails.
pub(crate) async fn beside<R, M>(
    meeting: &Arc<Barrier>,
    request: impl Future<Output = R>,
    meanwhile: impl Future<Output = M>,
) -> (R, M) {
    let mut step = MetStep { meeting: Arc::clone(meeting), is_over: false };
    let both = Box::pin(async { tokio::join!(request, meanwhile) });
    let both = tokio::time::timeout(MEETINGS_TIME_MAX, both).await;
    let both = both.expect("the request and the test come to the same meetings");
    step.is_over = true;
    both
}

/// A step that stands at failpoints.
struct MetStep {
    meeting: Arc<Barrier>,
    is_over: bool,
}

impl Drop for MetStep {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        // The runtime of a test that failed ends when nobody waits at the barrier any more.
        let meeting = Arc::clone(&self.meeting);
        thread::spawn(move || {
            for _ in 0..COMINGS {
                meeting.wait();
            }
        });
    }
}
