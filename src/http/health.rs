//! Alive, ready, counted: what operators and orchestrators ask.

use crate::{
    http::{App, error::ApiError, json},
    wal::{RecordKind, held::Failing},
};
use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use icecore_schemas::{
    columns::{DEAD_LETTERS_TABLE, EVENTS_TABLE},
    error_code::ErrorCode,
};
use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering},
};

/// Most tables that `/metrics` names, the longest failing first.
const FAILING_LISTED_MAX: usize = 100;

/// Counts since the start.
#[derive(Debug, Default)]
pub struct Counters {
    received: AtomicU64,
    duplicates: AtomicU64,
    refused: AtomicU64,
    decode_panics: AtomicU64,
    queries: AtomicU64,
    replies: [AtomicU64; 6],
}

impl Counters {
    /// Counts one reply by the first digit of its status.
    pub fn count_reply(&self, status: u16) {
        if let Some(counter) = self.replies.get(usize::from(status / 100)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts the events of one body.
    pub fn count_events(&self, received: u64, duplicates: u64, refused: u64) {
        self.received.fetch_add(received, Ordering::Relaxed);
        self.duplicates.fetch_add(duplicates, Ordering::Relaxed);
        self.refused.fetch_add(refused, Ordering::Relaxed);
    }

    /// Counts one body on which decoding panicked.
    pub fn count_decode_panic(&self) {
        self.decode_panics.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one query.
    pub fn count_query(&self) {
        self.queries.fetch_add(1, Ordering::Relaxed);
    }
}

/// `GET /healthz`: the process answers.
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: the log is recovered (the server listens only then), takes writes, and is the one
/// that events are taken into, and nothing else is in the way.
///
/// # Errors
/// 503 until the warehouse has answered, while the owner's list of what is in the way has anything,
/// while the log has no room or its last write failed, and for a server whose log events are not
/// taken into: its queries and its catalog go on.
pub async fn readyz(State(app): State<App>) -> Result<&'static str, ApiError> {
    let told = app.owner.obstacles_told();
    if !told.is_empty() {
        return Err(ApiError::new(ErrorCode::Unavailable, told.join("; ")));
    }
    app.owner.check()?;
    app.warehouse.check().map_err(|text| ApiError::new(ErrorCode::Unavailable, text))?;
    app.wal.check_writable().map_err(|full| {
        let text = format!("no event can be taken, queries go on: {full}");
        ApiError::new(ErrorCode::Unavailable, text)
    })?;
    if app.ingest.takes_writes() {
        Ok("ready\n")
    } else {
        Err(ApiError::new(
            ErrorCode::Unavailable,
            "the last write to the log failed; queries go on, and the next write tries again",
        ))
    }
}

/// `GET /version`.
pub async fn version() -> Response {
    json(200, &serde_json::json!({ "name": "icecore", "version": env!("CARGO_PKG_VERSION") }))
}

/// `GET /openapi.json`: the API outside the catalog.
pub async fn openapi() -> Response {
    let text = include_str!("../../schemas/openapi/icecore.json");
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// `GET /metrics`, in Prometheus' text format.
#[expect(clippy::cast_precision_loss, reason = "Prometheus values are doubles")]
pub async fn metrics(State(app): State<App>) -> Response {
    let counters = &app.counters;
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (waiting, lag_ms) = waiting_for_commit(&app);
    let failing = app.wal.failing();
    let (running, stuck) = app.sql.running();
    let total = |name, help, counter: &AtomicU64| (name, "counter", help, load(counter) as f64);
    let gauge = |name, help, value: f64| (name, "gauge", help, value);
    let lines = [
        total("icecore_events_received_total", "Events in request bodies.", &counters.received),
        total(
            "icecore_events_duplicate_total",
            "Events that were there before.",
            &counters.duplicates,
        ),
        total(
            "icecore_events_refused_total",
            "Events that became dead letters.",
            &counters.refused,
        ),
        total(
            "icecore_decode_panics_total",
            "Bodies on which decoding panicked: each is a fault of the server.",
            &counters.decode_panics,
        ),
        total("icecore_queries_total", "SQL queries started.", &counters.queries),
        gauge("icecore_queries_running", "SQL queries that run.", running as f64),
        gauge(
            "icecore_queries_stuck",
            "SQL queries that still run 5 s after their end.",
            stuck as f64,
        ),
        gauge(
            "icecore_wal_bytes",
            "Bytes of log records on disk that are not trimmed.",
            app.wal.bytes() as f64,
        ),
        gauge(
            "icecore_wal_waiting_bytes",
            "Bytes of acknowledged events without a snapshot.",
            waiting as f64,
        ),
        gauge(
            "icecore_commit_lag_seconds",
            "Age of the oldest acknowledged event without a snapshot.",
            lag_ms as f64 / 1000.0,
        ),
        gauge(
            "icecore_flush_failing_tables",
            "Tables that acknowledged events cannot be moved to.",
            failing.len() as f64,
        ),
    ];
    let mut text = String::new();
    for (name, kind, help, value) in lines {
        writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}")
            .expect("a String takes any text");
    }
    write_failing(&mut text, &app, &failing);
    let name = "icecore_http_replies_total";
    write!(text, "# HELP {name} Replies by status class.\n# TYPE {name} counter\n")
        .expect("a String takes any text");
    for (class, counter) in counters.replies.iter().enumerate().skip(1) {
        writeln!(text, "{name}{{status=\"{class}xx\"}} {}", load(counter))
            .expect("a String takes any text");
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

/// Bytes of the rows without a snapshot, and for how many ms the oldest has been there.
fn waiting_for_commit(app: &App) -> (u64, i64) {
    let mut pending = app.wal.pending();
    // Keys alone are no rows of a table, so no commit waits for them.
    pending.retain(|pending| pending.kind != RecordKind::Keys);
    let oldest_ms = pending.iter().map(|table| table.oldest_ms).min();
    let lag_ms = oldest_ms.map_or(0, |oldest_ms| (app.clock.now_ms() - oldest_ms).max(0));
    (pending.iter().map(|table| table.bytes).sum(), lag_ms)
}

/// One line a table, as names hold letters, digits and `_` only.
fn write_failing(text: &mut String, app: &App, failing: &[Failing]) {
    let name = "icecore_flush_failing_seconds";
    let help = "Since when a table cannot be flushed; the log has the reason.";
    write!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n").expect("a String takes any text");
    for table in failing.iter().take(FAILING_LISTED_MAX) {
        let of = match table.kind {
            RecordKind::Events => EVENTS_TABLE,
            RecordKind::DeadLetters => DEAD_LETTERS_TABLE,
            RecordKind::Keys => continue,
        };
        let seconds = (app.clock.now_ms() - table.since_ms).max(0) / 1000;
        writeln!(text, "{name}{{table=\"{}.{of}\"}} {seconds}", table.namespace.name())
            .expect("a String takes any text");
    }
}
