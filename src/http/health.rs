//! Alive, ready, counted: what operators and orchestrators ask.

use crate::{
    http::{AppState, error::ApiError, json, openapi},
    owner::NotOwner,
};
use axum::{
    extract::{MatchedPath, Request, State},
    http::header::{self, AUTHORIZATION},
    middleware::Next,
    response::{IntoResponse, Response},
};
use icecore_catalog::access::{Action, Principal};
use icecore_lake::metrics::{RequestLabels, StatusLabel, TableLabel};
use icecore_schemas::{error_code::ErrorCode, service_table::RecordKind, version::Version};
use std::sync::{PoisonError, atomic::Ordering};
use tokio::time::Instant;

/// The form of `/metrics`.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Most tables that `/metrics` names, the longest failing first.
const FAILING_LISTED_MAX: usize = 100;

/// `GET /healthz`: the process answers.
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: the log is recovered (the server listens only then), takes writes, and is the one
/// that events are taken into, and nothing else is in the way. It names what this system does not enforce of
/// the bounds of queries.
///
/// # Errors
/// 503 while the warehouse does not answer or is not there, while the owner's list of what is in the
/// way has anything (such as a metastore that does not answer), while the log has no room or its last
/// write failed, and for a server whose log events are not taken into: its queries and its catalog go
/// on. Who may not know of every namespace learns in a word what it is about.
pub async fn readyz(State(app): State<AppState>, request: Request) -> Result<String, ApiError> {
    let Err(NotReady { about, text }) = check_ready(&app) else {
        let unenforced = app.sql.unenforced().iter();
        let notes = unenforced.map(|part| format!("queries run without a bound: {part}\n"));
        return Ok(["ready\n".to_owned()].into_iter().chain(notes).collect());
    };
    let (parts, _) = request.into_parts();
    // Who shows no token is nobody to be counted as unknown.
    let is_known = app.access.control().is_none() || parts.headers.contains_key(AUTHORIZATION);
    let caller = if is_known { app.access.identify(&parts).await.ok() } else { None };
    if caller.is_some_and(|caller| caller.may_everywhere(Action::Read)) {
        return Err(ApiError::new(ErrorCode::Unavailable, text));
    }
    let text = format!(
        "the server is not ready ({}): a token that may read everywhere is told the reason",
        about.join(", ")
    );
    Err(ApiError::new(ErrorCode::Unavailable, text))
}

/// Why a server is not ready.
struct NotReady {
    /// In a word each.
    about: Vec<&'static str>,
    /// With names.
    text: String,
}

fn check_ready(app: &AppState) -> Result<(), NotReady> {
    let not = |topic: &'static str, text: String| NotReady { about: vec![topic], text };
    let told = app.owner.obstacle_texts();
    if !told.is_empty() {
        return Err(NotReady { about: app.owner.obstacle_topics(), text: told.join("; ") });
    }
    app.owner.check().map_err(|owner| not("owner", owner.to_string()))?;
    if let Some(reason) = app.catalog.storage().outage() {
        let text = format!("the warehouse cannot be used, events wait in the log: {reason}");
        return Err(not("warehouse", text));
    }
    app.wal.check_writable().map_err(|full| {
        not("log", format!("the server cannot take events, queries still work: {full}"))
    })?;
    if app.ingest.takes_writes() {
        return Ok(());
    }
    let text =
        "the last write to the log failed; queries still work, and the next write tries again";
    Err(not("log", text.to_owned()))
}

/// The answer to who brings events while none are taken: the reason, which has names of all kinds, if
/// they may know of every namespace.
pub(super) fn not_taken(caller: Option<&Principal>, reason: &NotOwner) -> ApiError {
    let text = match caller {
        Some(caller) if caller.may_everywhere(Action::Read) => reason.to_string(),
        Some(_) | None => {
            "this server takes no events now: `/readyz` says why, to a token that may \
                           read everywhere"
                .to_owned()
        }
    };
    ApiError::new(ErrorCode::Unavailable, text)
}

/// `GET /version`.
pub async fn version(State(app): State<AppState>) -> Response {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let build = app.build.map(ToOwned::to_owned);
    json(200, &Version { name: "icecore".to_owned(), version, build })
}

/// `GET /openapi.json`: the API outside the catalog.
pub async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], openapi::document()).into_response()
}

/// `GET /metrics`, in `OpenMetrics`' text format, which Prometheus reads.
pub async fn metrics(State(app): State<AppState>) -> Response {
    let metrics = &app.metrics;
    // Some series are cleared and set anew: nobody else's answer may come in between.
    let _alone = app.scrape.lock().unwrap_or_else(PoisonError::into_inner);
    metrics.wal_bytes.set(whole(app.wal.bytes()));
    metrics.ingest_waiting.set(whole(app.ingest.waiting_bytes() as u64));
    set_waiting(&app);
    let (running, stuck) = app.sql.running();
    metrics.queries_waiting.set(whole(app.sql.waiting() as u64));
    metrics.queries_running.set(whole(running as u64));
    metrics.queries_stuck.set(whole(stuck as u64));
    set_failing(&app);
    set_left_out(&app);
    let (metastore, syncs) = (app.catalog.metastore(), app.catalog.storage().syncs());
    metrics.commits_waiting.set(whole(app.catalog.waiting_commits() as u64));
    metrics.metastore_transactions.inner().store(metastore.transactions(), Ordering::Relaxed);
    metrics.metastore_waiting.set(whole(metastore.waiting_commits() as u64));
    metrics.warehouse_syncs.inner().store(syncs, Ordering::Relaxed);
    let ranges = app.catalog.storage().range_counts();
    metrics.range_cache_hits.inner().store(ranges.hits, Ordering::Relaxed);
    metrics.range_cache_misses.inner().store(ranges.misses, Ordering::Relaxed);
    metrics.range_cache_bytes.set(whole(ranges.bytes));
    ([(header::CONTENT_TYPE, OPEN_METRICS)], metrics.text()).into_response()
}

/// Times a request by its route.
pub async fn time(State(app): State<AppState>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or_else(String::new, |route| route.as_str().to_owned());
    let method = request.method().as_str().to_owned();
    let reply = next.run(request).await;
    let status = StatusLabel::of(reply.status().as_u16()).status;
    let labels = RequestLabels { method, route, status };
    app.metrics.http_request.get_or_create(&labels).observe(started.elapsed().as_secs_f64());
    reply
}

/// As gauges take it.
fn whole(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The rows without a snapshot: their bytes, their tables, and for how long the oldest has been there.
#[expect(clippy::cast_precision_loss, reason = "a metric is a double")]
fn set_waiting(app: &AppState) {
    // Keys alone are no rows of a table, so no commit waits for them.
    let pending = app.wal.pending_of(RecordKind::is_rows);
    let oldest_ms = pending.iter().map(|table| table.oldest_ms).min();
    let lag_ms = oldest_ms.map_or(0, |oldest_ms| (app.clock.now_ms() - oldest_ms).max(0));
    app.metrics.wal_waiting.set(whole(pending.iter().map(|table| table.bytes).sum()));
    app.metrics.wal_waiting_tables.set(whole(pending.len() as u64));
    app.metrics.commit_lag.set(lag_ms as f64 / 1000.0);
}

/// The tables that cannot be flushed, the longest first.
fn set_failing(app: &AppState) {
    let failing = app.wal.failing();
    app.metrics.flush_failing.set(whole(failing.len() as u64));
    app.metrics.flush_failing_since.clear();
    for table in failing.iter().take(FAILING_LISTED_MAX) {
        let Some(name) = table.kind.table_name() else { continue };
        let label = TableLabel { table: format!("{}.{name}", table.namespace.name()) };
        let seconds = (app.clock.now_ms() - table.since_ms).max(0) / 1000;
        app.metrics.flush_failing_since.get_or_create(&label).set(seconds);
    }
}

/// The tables that have no place for columns of ours.
fn set_left_out(app: &AppState) {
    app.metrics.columns_left_out.clear();
    for (table, columns) in app.flush.left_out().into_iter().take(FAILING_LISTED_MAX) {
        let label = TableLabel { table };
        app.metrics.columns_left_out.get_or_create(&label).set(whole(columns as u64));
    }
}
