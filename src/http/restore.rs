//! `POST /v1/{ns}/collections/{c}/restore` and `POST /v1/{ns}/restore`: documents as they were at a point of their
//! history, by ordinary changes from what they are now.
//!
//! The state is compared at two numbers, that of the point and that of the last event before the restore, so whatever
//! comes meanwhile is neither lost nor half undone. Its one invariant: history only grows, and a restore is undone by
//! another one, to the moment before it.

mod changes;
mod comparison;
mod marker;
mod run;

use crate::http::{
    self, AppState, body, bulk_changes, change_events, collections,
    documents::identity::RequestKey,
    error::ApiError,
    guard::CatalogNamespace,
    health::not_taken,
    points::{FoundPoint, ReadCaller},
    record::ChangeCaller,
    rows::time_at,
    state_rows::{self, first_row},
};
use axum::{
    body::Body,
    extract::{Extension, Path, State},
    http::HeaderMap,
    response::Response,
};
use changes::KeptChanges;
use icecore_catalog::body::parse_object;
use icecore_lake::event::bookmark;
use icecore_schemas::{
    collections::TimeBasis,
    error_code::ErrorCode,
    point::HistoryPoint,
    query::SqlRequest,
    restore::{CollectionRestore, NamespaceRestore, RestoreReport, RestoredPoint},
    service_table::EVENTS_TABLE,
};
use run::{CollectionPair, RestoreRun};
use serde_json::Value;

/// Most times that the states are compared because documents of the restore were written meanwhile.
const COMPARISONS_MAX: usize = 3;

/// What is restored.
#[derive(Clone, Debug, PartialEq, Eq)]
enum RestoreScope {
    /// One collection, into this one.
    Collection(CollectionPair),
    /// Every collection, into itself.
    Namespace,
}

/// What is asked for.
#[derive(Debug)]
struct RestoreRequest {
    namespace: String,
    levels: Vec<String>,
    scope: RestoreScope,
    at: HistoryPoint,
    /// All that it says, to tell it from another one of the same key.
    text: String,
    key: Option<RequestKey>,
    dry_run: bool,
}

/// `POST /v1/{ns}/collections/{c}/restore`. Durable on return.
///
/// # Errors
/// 400, 404 for a point that is not there, 409 where `into` has documents, 410 for a point that was removed,
/// 422 for too many changes, 429, 503.
pub(super) async fn collection(
    State(app): State<AppState>,
    Extension(CatalogNamespace(levels)): Extension<CatalogNamespace>,
    Path((namespace, collection)): Path<(String, String)>,
    caller: ChangeCaller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let body = body::read(&app, &headers, body).await?;
    let CollectionRestore { at, into, dry_run } = parse_object(&body.bytes)
        .map_err(|problem| invalid(format!("the body is not {{\"at\": \"seq:17\"}}: {problem}")))?;
    if into.as_deref().is_some_and(str::is_empty) {
        return Err(invalid("`into` is empty: name a collection, or leave it out".to_owned()));
    }
    for name in [Some(&collection), into.as_ref()].into_iter().flatten() {
        collections::check_collection(name)?;
    }
    let into = into.filter(|into| *into != collection);
    let text = format!("{collection:?} {into:?} {at}");
    let scope = RestoreScope::Collection(CollectionPair {
        is_other: into.is_some(),
        into: into.unwrap_or_else(|| collection.clone()),
        from: collection,
    });
    let (at, key) = (point(&at)?, RequestKey::of(&headers)?);
    let request = RestoreRequest { namespace, levels, scope, at, text, key, dry_run };
    Ok(http::json(200, &Box::pin(restore(&app, &caller, request)).await?))
}

/// `POST /v1/{ns}/restore`: every collection. Durable on return.
///
/// # Errors
/// As [`collection`].
pub(super) async fn namespace(
    State(app): State<AppState>,
    Extension(CatalogNamespace(levels)): Extension<CatalogNamespace>,
    Path(namespace): Path<String>,
    caller: ChangeCaller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let body = body::read(&app, &headers, body).await?;
    let NamespaceRestore { at, dry_run } = parse_object(&body.bytes)
        .map_err(|problem| invalid(format!("the body is not {{\"at\": \"seq:17\"}}: {problem}")))?;
    let text = format!("* {at}");
    let (at, key) = (point(&at)?, RequestKey::of(&headers)?);
    let scope = RestoreScope::Namespace;
    let request = RestoreRequest { namespace, levels, scope, at, text, key, dry_run };
    Ok(http::json(200, &Box::pin(restore(&app, &caller, request)).await?))
}

/// The point that a body names, as a text or a number.
fn point(at: &Value) -> Result<HistoryPoint, ApiError> {
    let text = match at {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            return Err(invalid("`at` is a text such as seq:17, or a number".to_owned()));
        }
    };
    text.parse::<HistoryPoint>().map_err(|problem| invalid(format!("`at`: {problem}")))
}

/// Carries out a restore, goes on with one that broke off, or tells of one that was carried out.
async fn restore(
    app: &AppState,
    caller: &ChangeCaller,
    request: RestoreRequest,
) -> Result<RestoreReport, ApiError> {
    let principal = &caller.principal;
    app.owner.check().map_err(|reason| not_taken(Some(principal), &reason))?;
    let RestoreRequest { namespace, levels, scope, at, text, key, dry_run } = request;
    app.sql.check_sees_all(principal, &levels, EVENTS_TABLE)?;
    let namespace = change_events::namespace_of(app, principal, &levels, &namespace).await?;
    let _turn = app.restore_turns.take(&[namespace.name()]).await?;
    let reader = ReadCaller { app, principal, levels: &levels };
    reader.check_events().await?;
    // Before the marks of earlier tries are looked for: what one of them still appends is behind it or has a mark.
    let head = Box::pin(reader.seq_of(FoundPoint::NOW)).await?;
    let id = match &key {
        Some(key) => marker::restore_id(&namespace, &key.0),
        None => app.ids.mint().to_string(),
    };
    let mut begun = None;
    if key.is_some() && !dry_run {
        if let Some(report) = marker::completed(app, &levels, &id, &text).await? {
            return Ok(report);
        }
        begun = marker::begun(app, &levels, &id, &text).await?;
    }
    let (point, undo) = match &begun {
        // What its point stands for may be something else by now.
        Some(begun) => (RestoredPoint { seq: begun.to, ts: None, snapshot: None }, begun.head),
        None => {
            let found = Box::pin(reader.find(&at, TimeBasis::Commit)).await?;
            let snapshot = found.snapshot;
            let seq = Box::pin(reader.seq_of(found)).await?;
            (RestoredPoint { seq, ts: None, snapshot }, head)
        }
    };
    let ts = arrival(app, &levels, point.seq).await?;
    let point = RestoredPoint { ts, ..point };
    let run = RestoreRun {
        app,
        levels: &levels,
        namespace: &namespace,
        id: &id,
        request: &text,
        head,
        to: point.seq,
        is_resumed: begun.is_some(),
    };
    let pairs = match scope {
        RestoreScope::Collection(pair) => vec![pair],
        RestoreScope::Namespace => Box::pin(run.collections()).await?,
    };
    let mut kept = if dry_run { KeptChanges::first() } else { run.kept().await? };
    let compared = Box::pin(run.compare(&pairs, &mut kept)).await?;
    let mut report = RestoreReport { restored_to: point, ..compared };
    if dry_run {
        report.sample = kept.into_sample(&pairs);
        report.dry_run = true;
        return Ok(report);
    }
    bulk_changes::check_erasures(app, &levels).await?;
    caller.call.about(&format!("{} {text} {id}", namespace.name()));
    let to = run.to;
    let report = Box::pin(carry_out(reader, run, &pairs, (undo, report, kept))).await?;
    let changes = run::changes(&report);
    tracing::info!(%namespace, restore = %id, to, changes, "documents were restored");
    Ok(report)
}

/// Names the state before a restore that changes something, and appends it. Compares again where a document of it was
/// written since: its undo is then the moment behind that.
async fn carry_out(
    reader: ReadCaller<'_>,
    mut run: RestoreRun<'_>,
    pairs: &[CollectionPair],
    (mut undo, mut report, mut kept): (u64, RestoreReport, KeptChanges),
) -> Result<RestoreReport, ApiError> {
    let app = run.app;
    for comparison in 1..=COMPARISONS_MAX {
        report.restore = Some(run.id.to_owned());
        report.undo_bookmark = Some(bookmark::of_moment(undo));
        if run::changes(&report) != 0 {
            app.sql.fault("restore.before_tag")?;
            let catalog = app.catalog.on_behalf_of(reader.principal.id());
            let name = format!("before-restore-{undo}");
            let tag = bulk_changes::tag_before(run.place(), &catalog, name, run.is_resumed);
            report.tag = Box::pin(tag).await;
            app.sql.fault("restore.after_tag")?;
        }
        app.sql.fault("restore.before_append")?;
        if let Some(done) = Box::pin(run.append(pairs, report.clone(), kept)).await? {
            return Ok(done);
        }
        if comparison == COMPARISONS_MAX {
            break;
        }
        run.head = Box::pin(reader.seq_of(FoundPoint::NOW)).await?;
        if !run.is_resumed {
            undo = run.head;
        }
        kept = run.kept().await?;
        let compared = Box::pin(run.compare(pairs, &mut kept)).await?;
        report = RestoreReport { restored_to: report.restored_to, ..compared };
    }
    let text =
        "documents were written while they were restored, and nothing was changed; send it again";
    Err(ApiError::new(ErrorCode::Unavailable, text))
}

/// When the event with this `seq` arrived, where it is there.
async fn arrival(app: &AppState, levels: &[String], seq: u64) -> Result<Option<String>, ApiError> {
    let sql =
        format!("SELECT CAST(ingested_at AS bigint) AS acknowledged FROM events WHERE seq = {seq}");
    let request = SqlRequest { sql, ..SqlRequest::default() };
    let row = first_row(&state_rows::rows(app, levels, request).await?);
    Ok(row.and_then(|row| time_at(&row, "acknowledged", 0)))
}

fn invalid(text: String) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, text)
}
