//! `GET /v1/{ns}/collections/{collection}/diff`: the documents that are not the same at two points.

use crate::http::{
    AppState,
    collections::{PAGE_DOCUMENTS, PAGE_DOCUMENTS_MAX, check_collection, statements},
    error::ApiError,
    guard::CatalogNamespace,
    json,
    points::{self, FoundPoint, ReadCaller, statement},
    query_string::{QueryParameters, page_size},
    rows::{RowPage, json_at, number_at, page, text_at},
};
use arrow::record_batch::RecordBatch;
use axum::{
    extract::{Extension, Path, State},
    response::Response,
};
use icecore_catalog::access::Principal;
use icecore_schemas::{
    collections::{CollectionDiff, DiffEntry, DiffParameters, DocumentChange, TimeBasis},
    point::HistoryPoint,
    query::QueryBasis,
};

/// Which documents differ.
const DIFFERS: &str = "old_doc IS DISTINCT FROM new_doc";

/// `GET /v1/{ns}/collections/{collection}/diff?from=&to=&after=&limit=&branch=`
///
/// # Errors
/// 400 for what is no point, 404 for one that is not there, 410 for one that was removed, 422 and 429 as queries.
pub(in crate::http) async fn diff(
    State(app): State<AppState>,
    Extension(principal): Extension<Principal>,
    Extension(CatalogNamespace(levels)): Extension<CatalogNamespace>,
    Path((_, collection)): Path<(String, String)>,
    QueryParameters(wanted): QueryParameters<DiffParameters>,
) -> Result<Response, ApiError> {
    let caller = ReadCaller { app: &app, principal: &principal, levels: &levels };
    let DiffParameters { from, to, basis, after, limit, branch } = wanted;
    let limit = page_size(limit, PAGE_DOCUMENTS, PAGE_DOCUMENTS_MAX)?;
    check_collection(&collection)?;
    let from = points::parse("from", Some(from.as_str()))?;
    let to = points::parse("to", to.as_deref())?;
    caller.check_events().await?;
    let branch = branch.as_deref();
    let from = Box::pin(end(caller, branch, &from, basis)).await?;
    let to = Box::pin(end(caller, branch, &to, basis)).await?;
    let all = statements::both(&collection, &from, &to, "");
    let counts = Box::pin(count(caller, &collection, (&to, all.as_str()))).await?;
    if counts == [0; 3] {
        caller.check_known(&collection, &to).await?;
    }
    let (condition, params) = match &after {
        Some(after) => (" WHERE key > $1", vec![after.as_str().into()]),
        None => ("", Vec::new()),
    };
    let both = statements::both(&collection, &from, &to, condition);
    let sql = format!(
        "SELECT key, old_doc, new_doc FROM ({both}) AS pairs WHERE {DIFFERS} ORDER BY key LIMIT {}",
        limit + 1
    );
    let answer = caller.ask_of(&collection, &to, statement(&sql, params)).await?;
    let RowPage { rows: docs, has_more, basis } = page(answer, limit, entry_at).await?;
    let next = docs.last().filter(|_| has_more).map(|last| last.key.clone());
    let branch = to.branch.as_deref().map(str::to_owned);
    let basis = QueryBasis { seq: to.seq, branch, ..basis.unwrap_or_default() };
    let (from_seq, to_seq) = (from.seq.unwrap_or_default(), to.seq.unwrap_or_default());
    let [added, changed, removed] = counts;
    Ok(json(200, &CollectionDiff { from_seq, to_seq, added, changed, removed, docs, next, basis }))
}

/// A point of the comparison, with the event that it is. One that names a branch is of that, and the others are of the
/// one that the request names.
async fn end(
    caller: ReadCaller<'_>,
    branch: Option<&str>,
    point: &HistoryPoint,
    basis: TimeBasis,
) -> Result<FoundPoint, ApiError> {
    let named = if let HistoryPoint::Branch(name) = point { Some(name.as_str()) } else { branch };
    let found = Box::pin(caller.find_on(named, point, basis)).await?;
    let seq = Box::pin(caller.seq_of(found.clone())).await?;
    Ok(found.with_seq(seq))
}

/// How many documents were added, changed and removed in these pairs, of which the later ones are at `to`.
async fn count(
    caller: ReadCaller<'_>,
    collection: &str,
    (to, pairs): (&FoundPoint, &str),
) -> Result<[u64; 3], ApiError> {
    let sql = format!(
        "SELECT CAST(count(*) AS bigint) AS differing, CAST(count(old_doc) AS bigint) AS old_docs, \
         CAST(count(new_doc) AS bigint) AS new_docs FROM ({pairs}) AS pairs WHERE {DIFFERS}"
    );
    let answer = caller.ask_of(collection, to, statement(&sql, Vec::new())).await?;
    let read = |batch: &RecordBatch, row: usize| {
        let number = |name: &str| number_at(batch, name, row);
        let (differing, old, new) =
            (number("differing")?, number("old_docs")?, number("new_docs")?);
        let (added, removed) = (differing.checked_sub(old)?, differing.checked_sub(new)?);
        Some(([added, differing.checked_sub(added + removed)?, removed], 0))
    };
    let counted = page(answer, 1, read).await?.rows;
    Ok(counted.first().copied().unwrap_or_default())
}

fn entry_at(batch: &RecordBatch, row: usize) -> Option<(DiffEntry, usize)> {
    let (before, after) = (json_at(batch, "old_doc", row), json_at(batch, "new_doc", row));
    let change = match (&before, &after) {
        (None, Some(_)) => DocumentChange::Added,
        (Some(_), Some(_)) => DocumentChange::Changed,
        (Some(_), None) => DocumentChange::Removed,
        (None, None) => return None,
    };
    let length = [&before, &after].into_iter().flatten().map(|doc| doc.get().len()).sum();
    Some((DiffEntry { key: text_at(batch, "key", row)?, change, before, after }, length))
}
