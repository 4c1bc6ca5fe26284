//! `GET /v1/{ns}/collections/{collection}/docs/{key}/history`: the versions of a document, the newest first, each
//! with the one before it and how it differs.

use crate::http::{
    AppState,
    collections::{DocumentPlace, merge_patch::merge_patch},
    error::ApiError,
    guard::CatalogNamespace,
    json,
    points::{FoundPoint, ReadCaller, statement},
    query_string::{QueryParameters, page_size},
    rows::{PAGE_BYTES_MAX, json_at, number_at, text_at, time_at},
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
use futures::StreamExt;
use icecore_catalog::access::Principal;
use icecore_engine::collections::{versions_of, versions_of_branch};
use icecore_schemas::{
    collections::{DocumentEntry, DocumentHistory, HistoryPage, TimeBasis, VersionEntry},
    error_code::ErrorCode,
    point::HistoryPoint,
    query::QueryBasis,
};
use serde_json::value::RawValue;
use std::sync::Arc;

/// Versions of a page that names no limit, and most of any page.
const PAGE_VERSIONS: usize = 50;
const PAGE_VERSIONS_MAX: usize = 500;

/// `GET /v1/{ns}/collections/{collection}/docs/{key}/history?after=&limit=&branch=`
///
/// # Errors
/// 403 for who does not see every row, 404 for a document that never was, 422 and 429 as queries.
pub(in crate::http) async fn history(
    State(app): State<AppState>,
    Extension(principal): Extension<Principal>,
    Extension(CatalogNamespace(levels)): Extension<CatalogNamespace>,
    Path((_, collection, key)): Path<(String, String, String)>,
    QueryParameters(HistoryPage { after, limit, branch }): QueryParameters<HistoryPage>,
) -> Result<Response, ApiError> {
    let caller = ReadCaller { app: &app, principal: &principal, levels: &levels };
    let limit = page_size(limit, PAGE_VERSIONS, PAGE_VERSIONS_MAX)?;
    let place = DocumentPlace::new(&collection, &key)?;
    caller.check_events().await?;
    let now = HistoryPoint::Now;
    let head = Box::pin(caller.find_on(branch.as_deref(), &now, TimeBasis::Commit)).await?;
    let (versions, basis) = Box::pin(versions(caller, place, &head)).await?;
    if versions.is_empty() {
        let text = format!("collection `{collection}` never had a document `{key}`");
        return Err(ApiError::new(ErrorCode::NotFound, text));
    }
    Ok(json(200, &DocumentHistory { basis, ..history_page(versions, after, limit) }))
}

/// Every version of a document up to `head` since its collection was emptied last, the newest first, without the ones
/// before them, and what they were made of. Of one whose events are gone it is the newest version alone.
///
/// # Errors
/// As queries.
pub(super) async fn versions(
    caller: ReadCaller<'_>,
    place: DocumentPlace<'_>,
    head: &FoundPoint,
) -> Result<(Vec<VersionEntry>, QueryBasis), ApiError> {
    let DocumentPlace { collection, key } = place;
    // Their statement reads events, of which such a caller sees some: what they make together is no version.
    caller.app.sql.check_sees_all(caller.principal, caller.levels, collection)?;
    let sql = match (&head.branch, head.seq) {
        (Some(branch), Some(seq)) => versions_of_branch(collection, key, branch, seq),
        (Some(_) | None, None) | (None, Some(_)) => versions_of(collection, key),
    };
    let mut answer = caller.ask_of(collection, head, statement(&sql, Vec::new())).await?;
    let basis = head.clone().basis(answer.basis.take())?;
    let mut versions = Vec::new();
    while let Some(batch) = answer.batches.next().await {
        let batch = batch?;
        let column = batch.column_by_name("versions");
        let Some(lists) = column.and_then(|column| column.as_list_opt::<i32>()) else { continue };
        for row in (0..lists.len()).filter(|row| lists.is_valid(*row)) {
            let list = lists.value(row);
            let Some(entries) = list.as_struct_opt() else { continue };
            let schema = Arc::new(Schema::new(entries.fields().clone()));
            let entries = RecordBatch::try_new(schema, entries.columns().to_vec())
                .map_err(|cause| ApiError::internal(&cause))?;
            versions.extend((0..entries.num_rows()).filter_map(|row| version_at(&entries, row)));
        }
    }
    versions.sort_by_key(|version| std::cmp::Reverse(version.seq));
    if versions.is_empty() {
        // Another engine may have deleted its events, while the table of the collection has it.
        let (document, _) = Box::pin(caller.document(place, head.clone())).await?;
        versions.extend(document.map(version_of));
    }
    Ok((versions, basis))
}

/// A document as its newest version.
fn version_of(entry: DocumentEntry) -> VersionEntry {
    let DocumentEntry { doc, op, version, seq, bookmark, updated_at, actor, event_id, .. } = entry;
    VersionEntry {
        version,
        seq,
        op,
        doc: Some(doc),
        prev: None,
        patch: None,
        ts: updated_at,
        bookmark,
        actor,
        event_id,
    }
}

/// A page of versions, each with the one before it; its basis is still to be filled.
fn history_page(versions: Vec<VersionEntry>, after: Option<u64>, limit: usize) -> DocumentHistory {
    let mut versions =
        versions.into_iter().filter(|version| after.is_none_or(|after| version.seq < after));
    let mut page =
        DocumentHistory { history: Vec::new(), next: None, basis: QueryBasis::default() };
    let (mut newer, mut bytes): (Option<VersionEntry>, usize) = (None, 0);
    loop {
        let older = versions.next();
        if let Some(version) = newer {
            let prev = older.as_ref().and_then(|older| older.doc.clone());
            let patch = prev.as_deref().zip(version.doc.as_deref());
            let patch = patch.and_then(|(prev, doc)| merge_patch(prev, doc));
            let length = |doc: Option<&RawValue>| doc.map_or(0, |doc| doc.get().len());
            bytes += length(version.doc.as_deref()) + length(prev.as_deref());
            page.history.push(VersionEntry { prev, patch, ..version });
        }
        let is_full = limit <= page.history.len() || PAGE_BYTES_MAX < bytes;
        if older.is_none() || is_full {
            page.next = older.and_then(|_| page.history.last().map(|last| last.seq));
            return page;
        }
        newer = older;
    }
}

fn version_at(entries: &RecordBatch, row: usize) -> Option<VersionEntry> {
    Some(VersionEntry {
        version: number_at(entries, "version", row)?,
        seq: number_at(entries, "seq", row)?,
        op: text_at(entries, "op", row),
        doc: json_at(entries, "doc", row),
        prev: None,
        patch: None,
        ts: time_at(entries, "updated_at", row),
        bookmark: text_at(entries, "bookmark", row),
        actor: text_at(entries, "actor", row),
        event_id: text_at(entries, "event_id", row),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::rows::json_of;

    fn version(seq: u64, doc: Option<&str>) -> VersionEntry {
        VersionEntry {
            version: seq,
            seq,
            op: None,
            doc: doc.map(json_of),
            prev: None,
            patch: None,
            ts: None,
            bookmark: None,
            actor: None,
            event_id: None,
        }
    }

    #[test]
    fn a_version_knows_the_one_before_it_also_beyond_the_page() {
        let versions =
            || vec![version(9, None), version(7, Some("{\"a\":2}")), version(3, Some("{\"a\":1}"))];
        let text = |doc: &Option<Box<RawValue>>| doc.as_ref().map(|doc| doc.get().to_owned());
        let shown = |page: &DocumentHistory| -> Vec<(u64, Option<String>, Option<String>)> {
            page.history.iter().map(|it| (it.seq, text(&it.prev), text(&it.patch))).collect()
        };
        let page = history_page(versions(), None, 2);
        let (one, two) = (Some("{\"a\":1}".to_owned()), Some("{\"a\":2}".to_owned()));
        assert_eq!(shown(&page), [(9, two.clone(), None), (7, one, two)]);
        assert_eq!(page.next, Some(7));
        let page = history_page(versions(), page.next, 2);
        assert_eq!((shown(&page), page.next), (vec![(3, None, None)], None));
        assert_eq!(history_page(versions(), None, 3).next, None);
        assert!(history_page(Vec::new(), None, 3).history.is_empty());
    }
}
