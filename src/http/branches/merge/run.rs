//! One merge: compares both branches document by document, and appends what follows to one of them.

use super::{
    COLLECTIONS_MAX, COMPARISONS_MAX, changed_collections, conflict,
    document::{ChangedDocument, merged},
    head_of,
    marker::{BegunMerge, CompletedMerge, MergeName},
    statements::{BranchState, ChangedCollection, ComparedBranches},
};
use crate::http::{
    bulk_changes::{
        ChangeBatches, ChangedBranch, DocumentCounts, DocumentList, PlannedChange, document_number,
    },
    change_events::ChangeEvent,
    error::ApiError,
    jobs::materialize::erasures_of,
    points::{ReadCaller, basis},
    state_rows,
};
use futures::StreamExt;
use icecore_lake::{
    blocking::blocking,
    collection::{ChangeOp, merge::MergePreference},
};
use icecore_schemas::{
    branch_merge::{BranchMergeReport, MergeConflict, MergeCounts, MergePolicy},
    error_code::ErrorCode,
    query::SqlRequest,
    restore::SampleChange,
};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};

/// Most changes of a merge.
const CHANGES_MAX: u64 = 1_000_000;
/// Most conflicts that are listed, and most bytes of their documents.
const CONFLICTS_LISTED_MAX: usize = 100;
const CONFLICT_BYTES_MAX: usize = 1 << 20;
/// Most members of a document that are listed.
const PATHS_LISTED_MAX: usize = 100;
/// Most changes that a dry run shows.
const SAMPLE_MAX: usize = 10;

/// The documents of each collection that both branches changed to different values, by their numbers.
type ConflictingDocuments = HashMap<String, HashSet<u128>>;

/// A merge that is carried out.
#[derive(Clone, Copy)]
pub(super) struct MergeRun<'a> {
    /// Where its changes are appended.
    pub(super) place: ChangedBranch<'a>,
    /// The branch that is merged.
    pub(super) branch: &'a str,
    /// The one collection of which `into` takes events; none for all.
    pub(super) collection: Option<&'a str>,
    /// When `into` was made; none for `main`.
    pub(super) into_created_at: Option<i64>,
    pub(super) name: MergeName<'a>,
    /// Both branches.
    pub(super) states: ComparedBranches<'a>,
    pub(super) policy: MergePolicy,
    /// The last event of `into` before the merge began.
    pub(super) undo: u64,
    /// Whether it goes on with one that broke off.
    pub(super) is_resumed: bool,
}

/// How many documents change.
pub(super) fn changes(report: &BranchMergeReport) -> u64 {
    report.inserted + report.updated + report.deleted
}

/// What a comparison found.
#[derive(Debug, Default)]
pub(super) struct MergeComparison {
    /// The counts of all, with some changes and conflicts as a dry run has them.
    pub(super) report: BranchMergeReport,
    /// Of the documents in the listed conflicts.
    bytes: usize,
}

impl MergeRun<'_> {
    /// The collections that the branch changed since the last event in common.
    ///
    /// # Errors
    /// 422 for too many; else as queries.
    pub(super) async fn collections(&self) -> Result<Vec<ChangedCollection>, ApiError> {
        let sql = self.states.theirs.collections_since(self.states.common.seq, COLLECTIONS_MAX + 1);
        let request = SqlRequest { sql, ..SqlRequest::default() };
        let rows = state_rows::rows(self.place.app, self.place.levels, request).await?;
        changed_collections(&rows)
    }

    /// Compares all, and counts what would change.
    ///
    /// # Errors
    /// 422 for too many changes; else as queries.
    pub(super) async fn compare(
        &self,
        collections: &[ChangedCollection],
    ) -> Result<BranchMergeReport, ApiError> {
        let mut comparison = MergeComparison::default();
        comparison.report.fast_forward = true;
        let ours = self.states.ours;
        comparison.report.basis = Some(basis::at_event(self.place.app, ours.branch, ours.seq));
        for collection in collections {
            if comparison.report.fast_forward {
                let behind = self.states.common.into_seq;
                comparison.report.fast_forward =
                    !self.is_changed_since(behind, &collection.name).await?;
            }
            let counts = Box::pin(self.compare_one(collection, &mut comparison)).await?;
            let report = &mut comparison.report;
            report.inserted += counts.inserted;
            report.updated += counts.updated;
            report.deleted += counts.deleted;
            report.conflicting += counts.conflicting;
            report.collections.push(counts);
            if CHANGES_MAX < changes(report) {
                let text = format!(
                    "more than {CHANGES_MAX} documents would change: merge branches of single collections, or more often"
                );
                return Err(ApiError::new(ErrorCode::QueryLimit, text));
            }
        }
        let mut report = comparison.report;
        report.basis = report.basis.map(basis::of_report);
        report.conflicts.sort_by(|one, other| {
            (&one.collection, &one.key).cmp(&(&other.collection, &other.key))
        });
        Ok(report)
    }

    /// Whether `into` changed a collection behind an event.
    ///
    /// # Errors
    /// As queries.
    async fn is_changed_since(&self, seq: u64, collection: &str) -> Result<bool, ApiError> {
        let sql = self.states.ours.change_since(seq, collection);
        let request = SqlRequest { sql, ..SqlRequest::default() };
        let rows = state_rows::rows(self.place.app, self.place.levels, request).await?;
        Ok(state_rows::first_row(&rows).is_some())
    }

    async fn compare_one(
        &self,
        collection: &ChangedCollection,
        comparison: &mut MergeComparison,
    ) -> Result<MergeCounts, ApiError> {
        let mut counts = MergeCounts { name: collection.name.clone(), ..MergeCounts::default() };
        let request = SqlRequest { sql: self.states.changes(collection), ..SqlRequest::default() };
        let (app, levels) = (self.place.app, self.place.levels);
        let Some(mut answer) = state_rows::ask(app, levels, request).await? else {
            return Ok(counts);
        };
        if let (Some(basis), Some(read)) = (&mut comparison.report.basis, answer.basis.take()) {
            basis.add(read);
        }
        let preference = self.preference();
        while let Some(batch) = answer.batches.next().await {
            let batch = batch?;
            let documents = blocking(move || merged(&batch, preference)).await;
            for document in &documents {
                match document.op {
                    Some(ChangeOp::Create) => counts.inserted += 1,
                    Some(ChangeOp::Update | ChangeOp::Read) => counts.updated += 1,
                    Some(ChangeOp::Delete) => counts.deleted += 1,
                    None => {}
                }
                if !document.conflicts.is_empty() {
                    counts.conflicting += 1;
                    comparison.list_conflict(&collection.name, document);
                }
                comparison.list_change(&collection.name, document);
            }
        }
        Ok(counts)
    }

    /// Whose value a conflict gets; where it ends the merge that does not matter.
    fn preference(&self) -> MergePreference {
        match self.policy {
            MergePolicy::Fail | MergePolicy::Ours => MergePreference::Ours,
            MergePolicy::Theirs => MergePreference::Theirs,
        }
    }

    /// Appends the changes, and behind them the report. On return all of it is durable. None where a document of a
    /// merge of one batch was written since the comparison: nothing is appended then. Of several batches such documents
    /// are compared again behind the others.
    ///
    /// # Errors
    /// As `POST /ingest`, and as queries; 409 for conflicts that came meanwhile, 503 where documents are written again and
    /// again. What was appended stays, and another merge goes on with the rest.
    pub(super) async fn append(
        &self,
        reader: ReadCaller<'_>,
        collections: &[ChangedCollection],
        mut report: BranchMergeReport,
    ) -> Result<Option<BranchMergeReport>, ApiError> {
        self.place.app.sql.fault("merge.before_append")?;
        let theirs = self.states.theirs;
        let request = self.name.request.to_owned();
        let begun = BegunMerge { request, seq: theirs.seq, into_seq: self.undo };
        let begun = (!self.is_resumed).then(|| begun.text(self.name, self.collection));
        let own = format!("{}-{}-", self.name.prefix, self.name.id);
        let later = self.states.ours.later_changes(&own);
        let mut batches = ChangeBatches::new(self.place, begun, later);
        let ChangedBranch { app, levels, .. } = self.place;
        batches.stop_at_erasures(erasures_of(&app.erasures, levels).await?);
        let (mut run, mut conflicting) = (*self, ConflictingDocuments::new());
        Box::pin(run.push(collections, None, (&mut batches, &mut conflicting))).await?;
        batches.leave_written().await?;
        let (mut comparison, mut is_compared_once) = (0, true);
        loop {
            if batches.left().numbers.is_empty() {
                if !is_compared_once {
                    count_again(&mut report, &batches, &conflicting);
                }
                if self.finish(&mut batches, &mut report).await? {
                    return Ok(Some(report));
                }
                batches.leave_written().await?;
                continue;
            }
            is_compared_once = false;
            comparison += 1;
            if batches.count() == 0 {
                return Ok(None);
            }
            if comparison == COMPARISONS_MAX {
                return Err(written_again(batches.left()));
            }
            // The changes that are left of this comparison go first: writes before the next one are looked for no more.
            batches.flush().await?;
            batches.look().await?;
            let ours = run.states.ours;
            let seq = Box::pin(head_of(reader, run.place.namespace, ours.branch)).await?;
            run.states.ours = BranchState { seq, ..ours };
            let left = batches.compare_behind(run.states.ours.later_changes(&own));
            let found = (&mut batches, &mut conflicting);
            Box::pin(run.push(collections, Some(&left), found)).await?;
            batches.leave_written().await?;
        }
    }

    /// Appends the rest of the changes with the report behind them. False where others wrote since the look at them:
    /// nothing is appended then.
    async fn finish(
        &self,
        batches: &mut ChangeBatches<'_>,
        report: &mut BranchMergeReport,
    ) -> Result<bool, ApiError> {
        overwrite(report, batches.overwritten());
        report.batches = batches.count() + 1;
        let completed = |first: Option<u64>, before: u64| {
            let (request, report) = (self.name.request.to_owned(), report.clone());
            CompletedMerge { request, first, before, report }.text(self.name, self.collection)
        };
        let Some(seq) = batches.finish(completed).await? else { return Ok(false) };
        report.seq = Some(seq);
        overwrite(report, batches.overwritten());
        Ok(true)
    }

    /// Adds the changes to batches; only those of some documents, if that is given. Where the policy refuses conflicts,
    /// those of these documents end the merge: they came since all were compared.
    async fn push(
        &self,
        collections: &[ChangedCollection],
        only: Option<&DocumentList>,
        (batches, conflicting): (&mut ChangeBatches<'_>, &mut ConflictingDocuments),
    ) -> Result<(), ApiError> {
        let meta = json!({ "merge_of": self.branch, "merged_seq": self.states.theirs.seq });
        let (app, levels) = (self.place.app, self.place.levels);
        let preference = self.preference();
        let mut comparison = MergeComparison::default();
        for collection in collections {
            let sql = match app.sql.filters_visibility() {
                true => self.states.visible_changes(collection),
                false => self.states.changes(collection),
            };
            let request = SqlRequest { sql, ..SqlRequest::default() };
            let Some(mut answer) = state_rows::ask(app, levels, request).await? else { continue };
            while let Some(batch) = answer.batches.next().await {
                let batch = batch?;
                let documents = blocking(move || merged(&batch, preference)).await;
                for document in documents {
                    let number = document_number(&collection.name, &document.key);
                    if let Some(only) = only {
                        if !only.numbers.contains(&number) {
                            continue;
                        }
                        if self.policy == MergePolicy::Fail && !document.conflicts.is_empty() {
                            comparison.report.conflicting += 1;
                            comparison.list_conflict(&collection.name, &document);
                            continue;
                        }
                    }
                    if !document.conflicts.is_empty() {
                        conflicting.entry(collection.name.clone()).or_default().insert(number);
                    }
                    let Some(op) = document.op else { continue };
                    let event = self.event(&collection.name, &document, op, &meta);
                    let (collection, key) = (collection.name.clone(), document.key);
                    batches.push(PlannedChange { collection, key, op, event }).await?;
                }
            }
        }
        match comparison.report.conflicting {
            0 => Ok(()),
            _ => Err(conflict(&comparison.report)),
        }
    }

    fn event(
        &self,
        collection: &str,
        document: &ChangedDocument,
        op: ChangeOp,
        meta: &Value,
    ) -> String {
        let MergeName { prefix, id, .. } = self.name;
        let key = document_number(collection, &document.key);
        // A merge that goes on compares with another state, so its changes are other ones.
        let id = format!("{prefix}-{id}-{}-{key:032x}", self.states.ours.seq);
        let event = ChangeEvent {
            id: &id,
            op,
            collection,
            key: &document.key,
            store: document.store.as_deref(),
            visibility: document.visibility.as_deref(),
            // What somebody may not see is not told beside what they may.
            before: document.ours.as_deref().filter(|_| document.is_told),
            after: document.after.as_deref(),
            meta,
        };
        event.text()
    }
}

impl MergeComparison {
    fn list_conflict(&mut self, collection: &str, document: &ChangedDocument) {
        let listed = &mut self.report.conflicts;
        let documents = [&document.base, &document.ours, &document.theirs];
        let bytes: usize = documents.into_iter().flatten().map(String::len).sum();
        let is_full =
            CONFLICTS_LISTED_MAX <= listed.len() || CONFLICT_BYTES_MAX < self.bytes + bytes;
        // One is listed however large it is.
        if is_full && !listed.is_empty() {
            return;
        }
        self.bytes += bytes;
        let [base, ours, theirs] = documents.map(value_of);
        listed.push(MergeConflict {
            collection: collection.to_owned(),
            key: document.key.clone(),
            paths: document.conflicts.iter().take(PATHS_LISTED_MAX).cloned().collect(),
            base,
            ours,
            theirs,
        });
    }

    fn list_change(&mut self, collection: &str, document: &ChangedDocument) {
        let sample = &mut self.report.sample;
        let Some(op) = document.op.filter(|_| sample.len() < SAMPLE_MAX) else { return };
        let change = match op {
            ChangeOp::Create => "inserted",
            ChangeOp::Update | ChangeOp::Read => "updated",
            ChangeOp::Delete => "deleted",
        };
        sample.push(SampleChange {
            collection: collection.to_owned(),
            key: document.key.clone(),
            change: change.to_owned(),
            before: value_of(&document.ours),
            after: value_of(&document.after),
        });
    }
}

/// The error for documents that others wrote each time before their changes were appended.
fn written_again(left: &DocumentList) -> ApiError {
    let first = left.listed.first();
    let first = first.map(|(collection, key)| format!(", such as `{key}` of `{collection}`"));
    let text = format!(
        "documents{} were written each time they were compared, {} in all; the others are merged: send it again, and it goes on with these",
        first.unwrap_or_default(),
        left.numbers.len()
    );
    ApiError::new(ErrorCode::Unavailable, text)
}

/// Counts what was appended, and the conflicts that a policy decided, where some of it was compared more than once.
fn count_again(
    report: &mut BranchMergeReport,
    batches: &ChangeBatches<'_>,
    conflicting: &ConflictingDocuments,
) {
    report.conflicting = 0;
    for counts in &mut report.collections {
        let DocumentCounts { inserted, updated, deleted } = batches.counts(&counts.name);
        (counts.inserted, counts.updated, counts.deleted) = (inserted, updated, deleted);
        counts.conflicting = conflicting.get(&counts.name).map_or(0, |found| found.len() as u64);
        report.conflicting += counts.conflicting;
    }
    let all = batches.all_counts();
    (report.inserted, report.updated, report.deleted) = (all.inserted, all.updated, all.deleted);
}

/// Says in a report which documents of `into` others wrote right before a batch had them.
fn overwrite(report: &mut BranchMergeReport, documents: &DocumentList) {
    report.overwritten = documents.count();
    report.overwritten_documents = documents.entries();
}

/// A document as JSON; null where there is none.
fn value_of(text: &Option<String>) -> Value {
    text.as_ref().map_or(Value::Null, |text| {
        serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone()))
    })
}
