//! Tables of a namespace for operators: list, snapshots, commit now.

use crate::{
    http::{App, error::ApiError, guard, json, parse_namespace},
    table::schema::ident,
    wal::RecordKind,
};
use axum::{
    extract::{Extension, Path, State},
    response::Response,
};
use icecore_catalog::{
    access::{Action, Principal},
    catalog::LoadedTable,
};
use icecore_schemas::{
    columns::{DEAD_LETTERS_TABLE, EVENTS_TABLE},
    names::Namespace,
};
use serde_json::{Map, Value};

/// `GET /v1/namespaces`: every namespace that the caller may see.
///
/// # Errors
/// 500.
pub async fn namespaces(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
) -> Result<Response, ApiError> {
    let mut found = Vec::new();
    let listed = app.catalog.metastore().namespaces(&Vec::new()).await?;
    for levels in listed.into_iter().filter(|levels| principal.sees(levels)) {
        let properties = app.catalog.metastore().namespace(&levels).await?.unwrap_or_default();
        let noted = Namespace::noted(&levels, &properties);
        let text = noted.as_ref().map(Namespace::text);
        found.push(serde_json::json!({ "name": levels.join("."), "ns": text }));
    }
    Ok(json(200, &serde_json::json!({ "namespaces": found })))
}

/// `GET /v1/{ns}/tables`: name, rows, files, bytes and snapshot of each table.
///
/// # Errors
/// 404 for a namespace without tables.
pub async fn list(
    State(app): State<App>,
    Path(namespace): Path<String>,
) -> Result<Response, ApiError> {
    let namespace = parse_namespace(&namespace)?;
    let levels = vec![namespace.name().to_owned()];
    let mut tables = Vec::new();
    for name in app.catalog.metastore().tables(&levels).await? {
        let loaded = app.catalog.load_table(&ident(&namespace, &name)).await?;
        tables.push(describe(&name, &loaded));
    }
    Ok(json(200, &serde_json::json!({ "tables": tables })))
}

/// `GET /v1/{ns}/tables/{t}/snapshots`: the retained snapshots, oldest first.
///
/// # Errors
/// 404.
pub async fn snapshots(
    State(app): State<App>,
    Path((namespace, table)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let namespace = parse_namespace(&namespace)?;
    let loaded = app.catalog.load_table(&ident(&namespace, &table)).await?;
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
