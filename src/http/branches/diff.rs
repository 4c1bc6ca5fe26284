//! `GET /v1/{ns}/branches/{b}/diff`: the documents that a branch has otherwise than at the last event in common with
//! another one, or than that other one has them.
//!
//! It reads with the rights of its caller. Its one invariant: the counts are of all, however small the page is.

use super::merge::{
    COLLECTIONS_MAX, changed_collections, pair,
    statements::{BranchState, ChangedCollection, ComparedBranches},
};
use crate::http::{
    self, AppState, change_events,
    error::ApiError,
    guard::CatalogNamespace,
    points::{ReadCaller, basis, statement},
    query_string::{QueryParameters, page_size},
    rows::{PAGE_BYTES_MAX, RowPage, json_at, number_at, page, text_at},
};
use arrow::record_batch::RecordBatch;
use axum::{
    extract::{Extension, Path, State},
    response::Response,
};
use futures::TryStreamExt;
use icecore_catalog::access::Principal;
use icecore_schemas::{
    branch_merge::{BranchDiff, BranchDiffEntry, BranchDiffParameters, DiffAgainst},
    collections::DocumentChange,
    error_code::ErrorCode,
    point::MAIN_BRANCH,
    query::QueryBasis,
};
use std::collections::BTreeMap;

/// Documents of a page that names no limit, and most of any page.
const PAGE_DOCUMENTS: usize = 100;
const PAGE_DOCUMENTS_MAX: usize = 1000;

/// Where a page begins: behind a key of a collection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct DiffPlace {
    collection: String,
    key: String,
}

/// `GET /v1/{ns}/branches/{branch}/diff?into=&against=&after=&limit=`
///
/// # Errors
/// 400 for a branch and itself, 404 for one that is not there, 410 for events that were removed, 422 and 429 as queries.
pub(in crate::http) async fn diff(
    State(app): State<AppState>,
    Extension(principal): Extension<Principal>,
    Extension(CatalogNamespace(levels)): Extension<CatalogNamespace>,
    Path((namespace, branch)): Path<(String, String)>,
    QueryParameters(wanted): QueryParameters<BranchDiffParameters>,
) -> Result<Response, ApiError> {
    let BranchDiffParameters { into, against, after, limit } = wanted;
    let limit = page_size(limit, PAGE_DOCUMENTS, PAGE_DOCUMENTS_MAX)?;
    let after = after.as_deref().map(DiffPlace::parse).transpose()?;
    let namespace = change_events::namespace_of(&app, &principal, &levels, &namespace).await?;
    let reader = ReadCaller { app: &app, principal: &principal, levels: &levels };
    let into = into.as_deref().unwrap_or(MAIN_BRANCH);
    let pair = Box::pin(pair(reader, &namespace, &branch, into)).await?;
    let theirs = BranchState { branch: Some(&branch), seq: pair.theirs.seq };
    let states = ComparedBranches { theirs, ours: pair.ours_state(), common: pair.common };
    let comparison = DiffComparison { reader, states, against };
    let collections = Box::pin(comparison.collections()).await?;
    let mut diff = BranchDiff {
        head_seq: pair.theirs.seq,
        common_seq: pair.common.seq,
        into_common_seq: pair.common.into_seq,
        added: 0,
        changed: 0,
        removed: 0,
        docs: Vec::new(),
        next: None,
        basis: basis::at_event(&app, Some(&branch), pair.theirs.seq),
    };
    let mut bytes = 0;
    for collection in &collections {
        let ([added, changed, removed], read) = Box::pin(comparison.count(collection)).await?;
        diff.basis.add(read.unwrap_or_default());
        diff.added += added;
        diff.changed += changed;
        diff.removed += removed;
        let behind = after.as_ref().filter(|after| after.collection == collection.name);
        let is_past = after.as_ref().is_some_and(|after| collection.name < after.collection);
        if added + changed + removed == 0 || is_past || diff.next.is_some() {
            continue;
        }
        // One more than the page may have says whether there is another one.
        let room = limit + 1 - diff.docs.len();
        let (docs, has_more) = Box::pin(comparison.page(collection, behind, room)).await?;
        bytes += docs.iter().map(bytes_of).sum::<usize>();
        diff.docs.extend(docs);
        if limit < diff.docs.len() || has_more || PAGE_BYTES_MAX <= bytes {
            diff.docs.truncate(limit);
            diff.next = diff.docs.last().map(DiffPlace::next);
        }
    }
    Ok(http::json(200, &diff))
}

/// A comparison for a caller.
#[derive(Clone, Copy)]
struct DiffComparison<'a> {
    reader: ReadCaller<'a>,
    states: ComparedBranches<'a>,
    against: DiffAgainst,
}

impl DiffComparison<'_> {
    /// The collections that may differ, in order of their names.
    async fn collections(self) -> Result<Vec<ChangedCollection>, ApiError> {
        let ComparedBranches { theirs, ours, common } = self.states;
        let collections = self.changed_since(theirs, common.seq).await?;
        if self.against == DiffAgainst::Common {
            return Ok(collections);
        }
        let mut all: BTreeMap<String, ChangedCollection> =
            collections.into_iter().map(|it| (it.name.clone(), it)).collect();
        // After a merge they may differ in what neither changed since, as conflicts were decided.
        if !common.is_fork {
            for state in [theirs, ours] {
                for ChangedCollection { name, .. } in self.changed_since(state, 0).await? {
                    let unchanged =
                        ChangedCollection { name: name.clone(), ..ChangedCollection::default() };
                    all.entry(name).or_insert(unchanged);
                }
            }
        }
        for collection in self.changed_since(ours, common.into_seq).await? {
            let ChangedCollection { name, is_emptied, .. } = collection;
            let entry = all.entry(name.clone()).or_default();
            entry.name = name;
            entry.is_changed_by_ours = true;
            entry.is_emptied_by_ours = is_emptied;
        }
        Ok(all.into_values().collect())
    }

    async fn changed_since(
        self,
        state: BranchState<'_>,
        seq: u64,
    ) -> Result<Vec<ChangedCollection>, ApiError> {
        let sql = state.collections_since(seq, COLLECTIONS_MAX + 1);
        let answer = self.reader.ask(statement(&sql, Vec::new())).await?;
        let rows: Vec<RecordBatch> = answer.batches.try_collect().await?;
        changed_collections(&rows)
    }

    fn pairs(self, collection: &ChangedCollection) -> String {
        match self.against {
            DiffAgainst::Common => self.states.since_common(collection),
            DiffAgainst::Head => self.states.against_head(collection),
        }
    }

    /// How many documents were added, changed and removed, and the basis of the count.
    async fn count(
        self,
        collection: &ChangedCollection,
    ) -> Result<([u64; 3], Option<QueryBasis>), ApiError> {
        let sql = format!(
            "SELECT CAST(count(*) AS bigint) AS differing, CAST(count(old_doc) AS bigint) AS old_docs, \
             CAST(count(new_doc) AS bigint) AS new_docs FROM ({}) AS pairs",
            self.pairs(collection)
        );
        let answer = self.reader.ask(statement(&sql, Vec::new())).await?;
        let read = |batch: &RecordBatch, row: usize| {
            let number = |name: &str| number_at(batch, name, row);
            let (differing, old, new) =
                (number("differing")?, number("old_docs")?, number("new_docs")?);
            let (added, removed) = (differing.checked_sub(old)?, differing.checked_sub(new)?);
            Some(([added, differing.checked_sub(added + removed)?, removed], 0))
        };
        let RowPage { rows, basis, .. } = page(answer, 1, read).await?;
        Ok((rows.first().copied().unwrap_or_default(), basis))
    }

    /// The first documents of a collection behind a place, and whether a page of them ended before.
    async fn page(
        self,
        collection: &ChangedCollection,
        behind: Option<&DiffPlace>,
        limit: usize,
    ) -> Result<(Vec<BranchDiffEntry>, bool), ApiError> {
        let (condition, params) = match behind {
            Some(place) => (" WHERE doc_key > $1", vec![place.key.as_str().into()]),
            None => ("", Vec::new()),
        };
        let sql = format!(
            "SELECT doc_key, old_doc, new_doc FROM ({}) AS pairs{condition} ORDER BY doc_key LIMIT {limit}",
            self.pairs(collection)
        );
        let answer = self.reader.ask(statement(&sql, params)).await?;
        let name = &collection.name;
        let read = |batch: &RecordBatch, row: usize| entry_at(name, batch, row);
        let RowPage { rows, has_more, .. } = page(answer, limit, read).await?;
        Ok((rows, has_more))
    }
}

impl DiffPlace {
    fn parse(text: &str) -> Result<Self, ApiError> {
        let parts = serde_json::from_str::<(String, String)>(text);
        let (collection, key) = parts.map_err(|_| {
            let text = "query parameter `after` is what an earlier page gave as `next`: leave it out for the first page";
            ApiError::new(ErrorCode::InvalidRequest, text)
        })?;
        Ok(Self { collection, key })
    }

    /// What the page behind an entry comes after.
    fn next(BranchDiffEntry { collection, key, .. }: &BranchDiffEntry) -> String {
        serde_json::json!([collection, key]).to_string()
    }
}

fn entry_at(collection: &str, batch: &RecordBatch, row: usize) -> Option<(BranchDiffEntry, usize)> {
    let (before, after) = (json_at(batch, "old_doc", row), json_at(batch, "new_doc", row));
    let change = match (&before, &after) {
        (None, Some(_)) => DocumentChange::Added,
        (Some(_), Some(_)) => DocumentChange::Changed,
        (Some(_), None) => DocumentChange::Removed,
        (None, None) => return None,
    };
    let (collection, key) = (collection.to_owned(), text_at(batch, "doc_key", row)?);
    let entry = BranchDiffEntry { collection, key, change, before, after };
    let length = bytes_of(&entry);
    Some((entry, length))
}

fn bytes_of(BranchDiffEntry { before, after, .. }: &BranchDiffEntry) -> usize {
    [before, after].into_iter().flatten().map(|doc| doc.get().len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_begins_where_the_last_one_ended() {
        let entry = BranchDiffEntry {
            collection: "a\"b".to_owned(),
            key: "1/2".to_owned(),
            change: DocumentChange::Added,
            before: None,
            after: None,
        };
        let place = DiffPlace::parse(&DiffPlace::next(&entry)).unwrap();
        assert_eq!(place, DiffPlace { collection: entry.collection, key: entry.key });
        assert!(DiffPlace::parse("users").is_err());
    }
}
