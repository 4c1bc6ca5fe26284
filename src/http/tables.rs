//! Tables of a namespace for operators: list, snapshots, commit now.

use crate::{
    http::{App, error::ApiError, guard, json, operate, parse_namespace},
    table::schema::{self, TableIdent, ident},
    wal::RecordKind,
};
use axum::{
    extract::{Extension, Path, State},
    response::Response,
};
use futures::{StreamExt, TryStreamExt, stream};
use icecore_catalog::{
    access::{Action, Principal},
    catalog::LoadedTable,
    error::CatalogError,
};
use icecore_schemas::{
    columns::{DEAD_LETTERS_TABLE, EVENTS_TABLE},
    error_code::ErrorCode,
    names::Namespace,
};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Most namespaces of one answer.
const NAMESPACES_MAX: usize = 10_000;
/// Namespaces that wait for their commits at a time; the flush job takes them together.
const COMMITS_AT_ONCE: usize = 256;

/// `GET /v1/namespaces`: every namespace that the caller may see.
///
/// # Errors
/// 500.
pub async fn namespaces(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
) -> Result<Response, ApiError> {
    let metastore = app.catalog.metastore();
    let mut found = Vec::new();
    let mut waiting = metastore.namespaces(&Vec::new()).await?;
    waiting.reverse();
    while let Some(levels) = waiting.pop() {
        if NAMESPACES_MAX <= found.len() {
            let text = format!(
                "there are more than {NAMESPACES_MAX} namespaces; list them by pages with GET /catalog/v1/namespaces"
            );
            return Err(ApiError::new(ErrorCode::InvalidRequest, text));
        }
        match metastore.namespaces(&levels).await {
            Ok(below) => waiting.extend(below.into_iter().rev()),
            // Dropped since its name was listed.
            Err(CatalogError::NoSuchNamespace(_)) => continue,
            Err(cause) => return Err(cause.into()),
        }
        if !principal.sees(&levels) {
            continue;
        }
        let properties = metastore.namespace(&levels).await?.unwrap_or_default();
        let noted = Namespace::noted(&levels, &properties);
        found.push(serde_json::json!({
            "name": levels.join("."),
            "levels": levels,
            "ns": noted.as_ref().map(Namespace::text),
        }));
    }
    Ok(json(200, &serde_json::json!({ "namespaces": found })))
}

/// `GET /v1/{ns}/tables`: name, rows, files, bytes and snapshot of each table.
///
/// # Errors
/// 404 for a namespace without tables.
pub async fn list(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(namespace): Path<String>,
) -> Result<Response, ApiError> {
    let levels = operate::levels(&app, &principal, Action::Read, &namespace).await?;
    let mut tables = Vec::new();
    for name in app.catalog.metastore().tables(&levels).await? {
        let table = table_of(&levels, &name)?;
        match app.catalog.load_table(&table).await {
            Ok(loaded) => tables.push(describe(&name, &loaded)),
            // Dropped since the names were listed.
            Err(CatalogError::NoSuchTable(_)) => (),
            // One bad table must not hide the others.
            Err(cause) => match app.catalog.why_unreadable(&table, &cause).await? {
                Some(error) => {
                    tables.push(serde_json::json!({ "name": name, "error": error }));
                }
                None => return Err(cause.into()),
            },
        }
    }
    Ok(json(200, &serde_json::json!({ "tables": tables })))
}

fn table_of(levels: &[String], name: &str) -> Result<TableIdent, ApiError> {
    schema::foreign_ident(levels, name)
        .ok_or_else(|| ApiError::new(ErrorCode::InvalidRequest, "a namespace has a name"))
}

/// `GET /v1/{ns}/tables/{t}/snapshots`: the retained snapshots, oldest first.
///
/// # Errors
/// 404.
pub async fn snapshots(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path((namespace, table)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let levels = operate::levels(&app, &principal, Action::Read, &namespace).await?;
    let table = table_of(&levels, &table)?;
    let loaded = match app.catalog.load_table(&table).await {
        Ok(loaded) => loaded,
        Err(cause) => match app.catalog.why_unreadable(&table, &cause).await? {
            Some(error) => return Err(ApiError::new(ErrorCode::NotFound, error)),
            None => return Err(cause.into()),
        },
    };
    let mut snapshots: Vec<_> = loaded.metadata.snapshots().collect();
    snapshots.sort_by_key(|snapshot| snapshot.sequence_number());
    let rows: Vec<Value> = snapshots
        .into_iter()
        .map(|snapshot| {
            let summary = &snapshot.summary().additional_properties;
            serde_json::json!({
                "snapshot": snapshot.snapshot_id(),
                "timestamp_ms": snapshot.timestamp_ms(),
                "operation": snapshot.summary().operation.as_str(),
                "added_records": number(summary.get("added-records")),
                "total_records": number(summary.get("total-records")),
                "first_seq": number(summary.get("icecore.first-seq")),
                "last_seq": number(summary.get("icecore.last-seq")),
            })
        })
        .collect();
    Ok(json(200, &serde_json::json!({ "snapshots": rows })))
}

/// `POST /v1/{ns}/commit`: everything acknowledged before the call is in a snapshot on return.
///
/// # Errors
/// 503 when the commit failed; what waits is safe and tried again.
pub async fn commit(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(namespace): Path<String>,
) -> Result<Response, ApiError> {
    app.owner.check()?;
    let namespace = owner(&app, &principal, parse_namespace(&namespace)?).await?;
    let through = *app.wal.durable().borrow();
    let committed = app
        .flush
        .commit_now(&namespace, through)
        .await
        .map_err(|cause| ApiError::from(cause.as_ref()))?;
    let mut snapshots = Map::new();
    let mut seq = None;
    for (kind, snapshot) in committed {
        let name = match kind {
            RecordKind::Events => {
                let loaded = app.catalog.load_table(&ident(&namespace, EVENTS_TABLE)).await?;
                seq = loaded.watermark.map(|watermark| watermark.last_seq);
                EVENTS_TABLE
            }
            RecordKind::DeadLetters => DEAD_LETTERS_TABLE,
            RecordKind::Keys => continue,
        };
        snapshots.insert(name.to_owned(), snapshot.into());
    }
    Ok(json(200, &serde_json::json!({ "seq": seq, "snapshots": snapshots })))
}

/// `POST /admin/commit`: everything acknowledged before the call, in every namespace, is in a
/// snapshot on return.
///
/// # Errors
/// 503 when a commit failed; what waits is safe and tried again.
pub async fn commit_all(State(app): State<App>) -> Result<Response, ApiError> {
    app.owner.check()?;
    let through = *app.wal.durable().borrow();
    let waiting = app.wal.pending().into_iter().filter(|table| table.kind != RecordKind::Keys);
    let namespaces: BTreeSet<Namespace> = waiting.map(|table| table.namespace).collect();
    let committed = namespaces.len();
    let flush = &app.flush;
    stream::iter(namespaces)
        .map(|namespace| async move { flush.commit_now(&namespace, through).await })
        .buffer_unordered(COMMITS_AT_ONCE)
        .try_for_each(|_| async { Ok(()) })
        .await
        .map_err(|cause| ApiError::from(cause.as_ref()))?;
    Ok(json(200, &serde_json::json!({ "namespaces": committed })))
}

/// The namespace as its events name it, when it was asked for by its catalog name by one who may
/// know of it.
///
/// # Errors
/// 500.
pub async fn owner(
    app: &App,
    principal: &Principal,
    asked: Namespace,
) -> Result<Namespace, ApiError> {
    let levels = guard::levels(&asked);
    if !principal.sees(&levels) && !principal.may(Action::Ingest, &levels) {
        return Ok(asked);
    }
    let properties = app.catalog.metastore().namespace(&levels).await?.unwrap_or_default();
    Ok(Namespace::noted(&levels, &properties).unwrap_or(asked))
}

fn describe(name: &str, loaded: &LoadedTable) -> Value {
    let snapshot = loaded.metadata.current_snapshot();
    let total = |key: &str| {
        number(snapshot.and_then(|snapshot| snapshot.summary().additional_properties.get(key)))
    };
    serde_json::json!({
        "name": name,
        "records": total("total-records"),
        "files": total("total-data-files"),
        "bytes": total("total-files-size"),
        "snapshot": snapshot.map(|snapshot| snapshot.snapshot_id()),
        "snapshots": loaded.metadata.snapshots().len(),
        "last_seq": loaded.watermark.map(|watermark| watermark.last_seq),
        "location": loaded.metadata.location(),
    })
}

fn number(text: Option<&String>) -> Option<u64> {
    text.and_then(|text| text.parse().ok())
}
