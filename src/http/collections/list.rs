//! `GET /v1/{ns}/collections`: the collections of a namespace, how large each is, and how far its table is.
//!
//! What deleted documents there were is told by the events; the documents themselves are counted in the relation of
//! each collection, one after the other.

use crate::http::{
    AppState,
    collections::{
        NAME_BYTES_MAX,
        bases::{self, BaseTable},
        check_collection, statements,
    },
    error::ApiError,
    guard::CatalogNamespace,
    json,
    points::{FoundPoint, ReadCaller, basis, statement},
    query_string::{QueryParameters, page_size},
    rows::{RowPage, integer_at, number_at, page, text_at},
};
use arrow::record_batch::RecordBatch;
use axum::{
    extract::{Extension, Path, State},
    response::Response,
};
use icecore_catalog::access::Principal;
use icecore_engine::collections::IS_CHANGE;
use icecore_schemas::{
    collections::{
        CollectionEntry, CollectionList, CollectionPage, CollectionParameters, CollectionReply,
        TimeBasis,
    },
    error_code::ErrorCode,
    point::HistoryPoint,
    query::QueryBasis,
};
use serde_json::Value;
use std::collections::BTreeMap;

/// Collections of a page that names no limit, and most of any page: each costs a query.
const PAGE_COLLECTIONS: usize = 50;
const PAGE_COLLECTIONS_MAX: usize = 200;

/// What the events tell of a collection.
#[derive(Clone, Copy, Debug, Default)]
struct ChangeCounts {
    last_seq: u64,
    deleted: u64,
}

/// `GET /v1/{ns}/collections?after=&limit=&branch=`: by name.
///
/// # Errors
/// 404 for a namespace or branch that is not there, 422 and 429 as queries.
pub(in crate::http) async fn list(
    State(app): State<AppState>,
    Extension(principal): Extension<Principal>,
    Extension(CatalogNamespace(levels)): Extension<CatalogNamespace>,
    QueryParameters(CollectionPage { after, limit, branch }): QueryParameters<CollectionPage>,
) -> Result<Response, ApiError> {
    let caller = ReadCaller { app: &app, principal: &principal, levels: &levels };
    let limit = page_size(limit, PAGE_COLLECTIONS, PAGE_COLLECTIONS_MAX)?;
    if !caller.has_events().await? {
        let basis = basis::at_event(&app, branch.as_deref(), 0);
        return Ok(json(200, &CollectionList { collections: Vec::new(), next: None, basis }));
    }
    let head = Box::pin(head(caller, branch.as_deref())).await?;
    let bases = bases_of(caller, &head).await?;
    let (condition, params) = match &after {
        Some(after) => ("collection > $1", vec![after.as_str().into()]),
        None => ("true", Vec::new()),
    };
    let (mut found, basis) =
        Box::pin(changed(caller, &head, (condition, params), limit + 1)).await?;
    let mut page = CollectionList { collections: Vec::new(), next: None, basis };
    let behind = |name: &&String| after.as_ref().is_none_or(|after| after < *name);
    // Another engine may have deleted every change of a collection that has a table.
    for name in bases.keys().filter(behind) {
        found.entry(name.clone()).or_default();
    }
    let has_more = limit < found.len();
    for (name, counts) in found.into_iter().take(limit) {
        let (entry, read) = Box::pin(entry(caller, name, counts, (&head, &bases))).await?;
        page.collections.push(entry);
        page.basis.add(read.unwrap_or_default());
    }
    page.next = page.collections.last().filter(|_| has_more).map(|last| last.name.clone());
    Ok(json(200, &page))
}

/// `GET /v1/{ns}/collections/{collection}?branch=`
///
/// # Errors
/// 404 where there is none, 422 and 429 as queries.
pub(in crate::http) async fn show(
    State(app): State<AppState>,
    Extension(principal): Extension<Principal>,
    Extension(CatalogNamespace(levels)): Extension<CatalogNamespace>,
    Path((_, name)): Path<(String, String)>,
    QueryParameters(CollectionParameters { branch }): QueryParameters<CollectionParameters>,
) -> Result<Response, ApiError> {
    let caller = ReadCaller { app: &app, principal: &principal, levels: &levels };
    check_collection(&name)?;
    caller.check_events().await?;
    let head = Box::pin(head(caller, branch.as_deref())).await?;
    let bases = bases_of(caller, &head).await?;
    let condition = ("collection = $1", vec![name.as_str().into()]);
    let (found, mut basis) = Box::pin(changed(caller, &head, condition, 1)).await?;
    let counts = match (found.get(&name), bases.contains_key(&name)) {
        (Some(counts), _) => *counts,
        (None, true) => ChangeCounts::default(),
        (None, false) => {
            let text = format!(
                "there is no collection `{name}`; GET /v1/{{namespace}}/collections lists all of them"
            );
            return Err(ApiError::new(ErrorCode::NotFound, text));
        }
    };
    let (entry, read) = Box::pin(entry(caller, name, counts, (&head, &bases))).await?;
    basis.add(read.unwrap_or_default());
    Ok(json(200, &CollectionReply { entry, basis }))
}

/// The last event of a branch: several statements read the state that it left.
async fn head(caller: ReadCaller<'_>, branch: Option<&str>) -> Result<FoundPoint, ApiError> {
    let now = HistoryPoint::Now;
    let head = Box::pin(caller.find_on(branch, &now, TimeBasis::Commit)).await?;
    if head.seq.is_some() {
        return Ok(head);
    }
    match Box::pin(caller.seq_of(head.clone())).await? {
        // There are rows of other engines at most, which no event is the last of.
        0 => Ok(head),
        seq => Ok(head.with_seq(seq)),
    }
}

/// How far the table of each collection has the events of `head`. Tables are of `main`.
async fn bases_of(
    caller: ReadCaller<'_>,
    head: &FoundPoint,
) -> Result<BTreeMap<String, BaseTable>, ApiError> {
    match &head.branch {
        None => bases::of_namespace(caller).await,
        Some(_) => Ok(BTreeMap::new()),
    }
}

/// The first collections by name that events up to `head` under this condition name, what the events tell of them, and
/// the basis of that.
async fn changed(
    caller: ReadCaller<'_>,
    head: &FoundPoint,
    (condition, params): (&str, Vec<Value>),
    limit: usize,
) -> Result<(BTreeMap<String, ChangeCounts>, QueryBasis), ApiError> {
    let sql = format!(
        "SELECT collection, CAST(max(newest) AS bigint) AS last_seq, \
         CAST(sum(CASE WHEN newest = gone THEN 1 ELSE 0 END) AS bigint) AS deleted \
         FROM (SELECT collection, key, max(seq) AS newest, max(CASE WHEN op = 'd' THEN seq END) AS gone \
         FROM {} WHERE {IS_CHANGE} AND octet_length(collection) BETWEEN 1 AND {NAME_BYTES_MAX} \
         AND {condition} GROUP BY collection, key) AS documents \
         GROUP BY collection ORDER BY collection LIMIT {limit}",
        head.events()
    );
    let answer = caller.ask(statement(&sql, params)).await?;
    let read = |batch: &RecordBatch, row: usize| {
        let counts = ChangeCounts {
            last_seq: number_at(batch, "last_seq", row)?,
            deleted: number_at(batch, "deleted", row).unwrap_or_default(),
        };
        Some(((text_at(batch, "collection", row)?, counts), 0))
    };
    let RowPage { rows, basis, .. } = page(answer, limit, read).await?;
    Ok((rows.into_iter().collect(), basis::of_head(head, basis)))
}

/// A collection with its documents counted, as they are at `head`, and the basis of the count.
async fn entry(
    caller: ReadCaller<'_>,
    name: String,
    counts: ChangeCounts,
    (head, bases): (&FoundPoint, &BTreeMap<String, BaseTable>),
) -> Result<(CollectionEntry, Option<QueryBasis>), ApiError> {
    let base = bases.get(&name);
    let relation = statements::relation(&name, head);
    let misfits = if base.is_some_and(|base| base.is_typed) { "sum(misfits)" } else { "NULL" };
    let sql = format!(
        "SELECT CAST(count(*) AS bigint) AS documents, CAST(sum(octet_length(doc)) AS bigint) AS bytes, \
         CAST({misfits} AS bigint) AS misfits FROM {relation}"
    );
    let request = statement(&sql, Vec::new());
    let answer = caller.ask_of(&name, head, request).await?;
    let read = |batch: &RecordBatch, row: usize| {
        let documents = number_at(batch, "documents", row)?;
        let bytes = number_at(batch, "bytes", row).unwrap_or_default();
        Some(((documents, bytes, number_at(batch, "misfits", row)), 0))
    };
    let RowPage { rows, basis, .. } = page(answer, 1, read).await?;
    let (documents, bytes, misfits) = rows.first().copied().unwrap_or_default();
    // The sum over no documents is none.
    let misfits = base.filter(|base| base.is_typed).map(|_| misfits.unwrap_or_default());
    let applied_seq = base.and_then(|base| base.applied_seq);
    let lag_ms = match applied_seq {
        Some(applied) if applied < counts.last_seq => Box::pin(lag(caller, &name, applied)).await?,
        Some(_) => Some(0),
        None => None,
    };
    let entry = CollectionEntry {
        name,
        documents,
        deleted: counts.deleted,
        bytes,
        last_seq: counts.last_seq,
        applied_seq,
        lag_ms,
        misfits,
    };
    Ok((entry, basis))
}

/// For how long the oldest change waits that a table does not have, milliseconds.
async fn lag(
    caller: ReadCaller<'_>,
    collection: &str,
    applied: u64,
) -> Result<Option<u64>, ApiError> {
    let sql = format!(
        "SELECT CAST(min(ingested_at) AS bigint) AS since FROM events \
         WHERE collection = $1 AND {IS_CHANGE} AND seq > {applied}"
    );
    let answer = caller.ask(statement(&sql, vec![collection.into()])).await?;
    let read = |batch: &RecordBatch, row: usize| Some((integer_at(batch, "since", row)?, 0));
    let since = page(answer, 1, read).await?.rows.first().copied();
    let waited_us = since.map(|since| caller.app.clock.now_us().saturating_sub(since));
    Ok(waited_us.map(|waited| u64::try_from(waited / 1000).unwrap_or_default()))
}
