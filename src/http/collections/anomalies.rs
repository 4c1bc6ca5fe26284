//! `GET /v1/{ns}/collections/{collection}/anomalies`: the changes that do not fit what is known of their documents.
//!
//! They are found by the fold of all changes, so a page looks at so many documents, and not for so many anomalies: its
//! cost is known before. No number of them stands beside the counts of a collection, which would cost the fold of
//! all of it, and of `before` too, for each answer.

use crate::http::{
    AppState,
    collections::{PAGE_DOCUMENTS, PAGE_DOCUMENTS_MAX, check_collection},
    error::ApiError,
    guard::CatalogNamespace,
    json,
    points::{FoundPoint, ReadCaller, statement},
    query_string::{QueryParameters, page_size},
    rows::{RowPage, number_at, page, text_at},
};
use arrow::{
    array::{Array, AsArray},
    datatypes::Schema,
    record_batch::RecordBatch,
};
use axum::{
    extract::{Extension, Path, State},
    response::Response,
};
use icecore_catalog::access::Principal;
use icecore_engine::collections::anomalies_of;
use icecore_schemas::collections::{AnomalyEntry, AnomalyList, AnomalyPage};
use std::sync::Arc;

/// `GET /v1/{ns}/collections/{collection}/anomalies?after=&limit=`
///
/// # Errors
/// 400 for what is no name, 403 for who does not see every row, 404 for a collection that is not there, 422 and 429 as
/// queries.
pub(in crate::http) async fn anomalies(
    State(app): State<AppState>,
    Extension(principal): Extension<Principal>,
    Extension(CatalogNamespace(levels)): Extension<CatalogNamespace>,
    Path((_, collection)): Path<(String, String)>,
    QueryParameters(AnomalyPage { after, limit }): QueryParameters<AnomalyPage>,
) -> Result<Response, ApiError> {
    let caller = ReadCaller { app: &app, principal: &principal, levels: &levels };
    let limit = page_size(limit, PAGE_DOCUMENTS, PAGE_DOCUMENTS_MAX)?;
    check_collection(&collection)?;
    caller.check_events().await?;
    // The statement reads events, of which such a caller sees some: what they make together is no document.
    app.sql.check_sees_all(&principal, &levels, &collection)?;
    let (condition, params) = match &after {
        Some(after) => (" AND key > $1", vec![after.as_str().into()]),
        None => ("", Vec::new()),
    };
    let sql = anomalies_of(&collection, condition, limit + 1);
    let answer = caller.ask_of(&collection, &FoundPoint::NOW, statement(&sql, params)).await?;
    let RowPage { rows, has_more, basis } = page(answer, limit, document_at).await?;
    if rows.is_empty() && after.is_none() {
        caller.check_known(&collection, &FoundPoint::NOW).await?;
    }
    let next = rows.last().filter(|_| has_more).map(|(key, _)| key.clone());
    let anomalies = rows.into_iter().flat_map(|(_, anomalies)| anomalies).collect();
    Ok(json(200, &AnomalyList { anomalies, next, basis: basis.unwrap_or_default() }))
}

/// A document's key and its anomalies, and how long they are.
fn document_at(batch: &RecordBatch, row: usize) -> Option<((String, Vec<AnomalyEntry>), usize)> {
    let key = text_at(batch, "key", row)?;
    let lists = batch.column_by_name("anomalies")?.as_list_opt::<i32>()?;
    let mut anomalies = Vec::new();
    if lists.is_valid(row) {
        let list = lists.value(row);
        let found = list.as_struct_opt()?;
        let schema = Arc::new(Schema::new(found.fields().clone()));
        let found = RecordBatch::try_new(schema, found.columns().to_vec()).ok()?;
        anomalies.extend((0..found.num_rows()).filter_map(|row| anomaly_at(&key, &found, row)));
    }
    let length = anomalies.len() * (size_of::<AnomalyEntry>() + key.len());
    Some(((key, anomalies), length))
}

fn anomaly_at(key: &str, found: &RecordBatch, row: usize) -> Option<AnomalyEntry> {
    Some(AnomalyEntry {
        key: key.to_owned(),
        seq: number_at(found, "seq", row)?,
        kind: text_at(found, "kind", row)?,
        reason: text_at(found, "reason", row),
    })
}
