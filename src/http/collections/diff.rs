//! `GET /v1/{ns}/collections/{collection}/diff`: the documents that are not the same at two points.
//!
//! Between two points of one history only documents differ that an event between them changes. Where these are few
//! and no event is missing, they alone are folded and compared; where they are many, or the collection was emptied, all
//! documents are, in parts where they are large.

use crate::http::{
    AppState,
    collections::{
        PAGE_DOCUMENTS, PAGE_DOCUMENTS_MAX, check_collection,
        parts::{self, DiffPage},
        statements,
    },
    error::ApiError,
    guard::CatalogNamespace,
    json,
    points::{self, FoundPoint, ReadCaller, statement},
    query_string::{QueryParameters, page_size},
    rows::{json_at, number_at, page, text_at},
};
use arrow::record_batch::RecordBatch;
use axum::{
    extract::{Extension, Path, State},
    response::Response,
};
use icecore_catalog::access::Principal;
use icecore_engine::collections::{IS_CHANGE, IS_TRUNCATE};
use icecore_schemas::{
    collections::{CollectionDiff, DiffEntry, DiffParameters, DocumentChange, TimeBasis},
    error_code::ErrorCode,
    point::HistoryPoint,
    query::QueryBasis,
};
use serde_json::Value;

/// Most documents that are compared by their keys, and most bytes of these: a plan has each key in some twenty places,
/// and one with more than a MiB of constants is refused.
const KEYS_MAX: usize = 500;
const KEYS_BYTES_MAX: usize = 40 << 10;
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
    let keys = Box::pin(changed_keys(caller, &collection, &from, &to)).await?;
    let compared = ComparedStates {
        collection: &collection,
        parts: match keys {
            Some(_) => vec![String::new()],
            None => Box::pin(parts::of_collection(caller, &collection)).await,
        },
        from,
        to,
        keys,
    };
    let counts = Box::pin(compared.counts(caller)).await?;
    let ComparedStates { from, to, .. } = &compared;
    if counts == [0; 3] {
        caller.check_known(&collection, to).await?;
    }
    let differing = Box::pin(compared.page(caller, after.as_deref(), limit)).await?;
    let DiffPage { docs, has_more, basis } = differing;
    let docs: Vec<DiffEntry> = docs.into_iter().map(|(doc, _)| doc).collect();
    let next = docs.last().filter(|_| has_more).map(|last| last.key.clone());
    let branch = to.branch.as_deref().map(str::to_owned);
    let basis = QueryBasis { seq: to.seq, branch, ..basis.unwrap_or_default() };
    let (from_seq, to_seq) = (from.seq.unwrap_or_default(), to.seq.unwrap_or_default());
    let [added, changed, removed] = counts;
    Ok(json(200, &CollectionDiff { from_seq, to_seq, added, changed, removed, docs, next, basis }))
}

/// A collection at the two points that are compared.
struct ComparedStates<'a> {
    collection: &'a str,
    from: FoundPoint,
    to: FoundPoint,
    /// The documents that may differ; none for all.
    keys: Option<Vec<String>>,
    /// Conditions on keys, which are compared one after the other.
    parts: Vec<String>,
}

impl ComparedStates<'_> {
    /// How many documents were added, changed and removed.
    async fn counts(&self, caller: ReadCaller<'_>) -> Result<[u64; 3], ApiError> {
        let (condition, params) = statements::key_condition(self.keys.as_deref(), None);
        let mut counts = [0; 3];
        for part in &self.parts {
            let pairs = self.pairs(&condition, part);
            let pairs = (&self.to, pairs.as_str());
            let counted = Box::pin(count(caller, self.collection, pairs, params.clone())).await?;
            for (sum, counted) in counts.iter_mut().zip(counted) {
                *sum += counted;
            }
        }
        Ok(counts)
    }

    /// The documents that differ behind `after`, at most `limit`.
    async fn page(
        &self,
        caller: ReadCaller<'_>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<DiffPage, ApiError> {
        let (condition, params) = statements::key_condition(self.keys.as_deref(), after);
        let read = |batch: &RecordBatch, row: usize| {
            entry_at(batch, row).map(|(entry, length)| ((entry, length), length))
        };
        let mut differing = DiffPage::default();
        for part in &self.parts {
            let pairs = self.pairs(&condition, part);
            let sql = format!(
                "SELECT key, old_doc, new_doc FROM ({pairs}) AS pairs WHERE {DIFFERS} ORDER BY key LIMIT {}",
                limit + 1
            );
            let request = statement(&sql, params.clone());
            let answer = Box::pin(caller.ask_of(self.collection, &self.to, request)).await?;
            differing.add(page(answer, limit, read).await?, limit);
        }
        Ok(differing)
    }

    /// The documents of a part at both points.
    fn pairs(&self, condition: &str, part: &str) -> String {
        let condition = parts::within(condition, part);
        statements::both(self.collection, &self.from, &self.to, &condition)
    }
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

/// The keys that events between two points change; none where all documents have to be compared.
async fn changed_keys(
    caller: ReadCaller<'_>,
    collection: &str,
    from: &FoundPoint,
    to: &FoundPoint,
) -> Result<Option<Vec<String>>, ApiError> {
    // Between points of two branches are the events of both.
    let (Some(from_seq), Some(to_seq), None, None) = (from.seq, to.seq, &from.branch, &to.branch)
    else {
        return Ok(None);
    };
    let (first, last) = (from_seq.min(to_seq), from_seq.max(to_seq));
    if first == last {
        return Ok(Some(Vec::new()));
    }
    let between = format!("events BETWEEN SEQ {} AND {last}", first + 1);
    let sql = format!(
        "SELECT DISTINCT key FROM {between} \
         WHERE collection = $1 AND ({IS_CHANGE} OR {IS_TRUNCATE}) LIMIT {}",
        KEYS_MAX + 1
    );
    let answer = match caller.ask(statement(&sql, vec![collection.into()])).await {
        Ok(answer) => answer,
        // The events between them cannot be read by themselves, while the states may be.
        Err(error) if [ErrorCode::Gone, ErrorCode::NotFound].contains(&error.code()) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let read = |batch: &RecordBatch, row: usize| Some((text_at(batch, "key", row), 0));
    let keys = page(answer, KEYS_MAX + 1, read).await?.rows;
    // An event without a key empties the collection.
    let Some(keys) = keys.into_iter().collect::<Option<Vec<String>>>() else { return Ok(None) };
    let longest = keys.iter().map(String::len).max().unwrap_or(0);
    if KEYS_MAX < keys.len() || KEYS_BYTES_MAX < keys.len() * longest {
        return Ok(None);
    }
    // A table may have the change of an event that somebody took away.
    let sql = format!("SELECT CAST(count(*) AS bigint) AS events FROM {between}");
    let answer = caller.ask(statement(&sql, Vec::new())).await?;
    let read = |batch: &RecordBatch, row: usize| Some((number_at(batch, "events", row)?, 0));
    let is_complete = page(answer, 1, read).await?.rows.first() == Some(&(last - first));
    Ok(is_complete.then_some(keys))
}

/// How many documents were added, changed and removed in these pairs, of which the later ones are at `to`.
async fn count(
    caller: ReadCaller<'_>,
    collection: &str,
    (to, pairs): (&FoundPoint, &str),
    params: Vec<Value>,
) -> Result<[u64; 3], ApiError> {
    let sql = format!(
        "SELECT CAST(count(*) AS bigint) AS differing, CAST(count(old_doc) AS bigint) AS old_docs, \
         CAST(count(new_doc) AS bigint) AS new_docs FROM ({pairs}) AS pairs WHERE {DIFFERS}"
    );
    let answer = caller.ask_of(collection, to, statement(&sql, params)).await?;
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
