//! One restore: compares states, and appends the changes in as few batches as the limits of a batch allow.

use super::{
    changes::{ComparedRows, DocumentChange, KEPT_BYTES_MAX, KeptChanges},
    comparison::ComparedStates,
    marker::{BegunRestore, CompletedRestore},
};
use crate::http::{
    AppState,
    bulk_changes::{
        self, ChangeBatches, ChangedBranch, DocumentCounts, DocumentList, PlannedChange,
        document_number,
    },
    change_events::ChangeEvent,
    error::ApiError,
    jobs::materialize::erasures_of,
    points::basis,
    rows::{number_at, text_at},
    state_rows,
};
use arrow::record_batch::RecordBatch;
use futures::StreamExt;
use icecore_catalog::{error::CatalogError, retention::collection_of};
use icecore_engine::collections::IS_CHANGE;
use icecore_lake::{
    collection::{ChangeOp, TABLE_PREFIX},
    table::schema::ident,
};
use icecore_schemas::{
    error_code::ErrorCode,
    names::Namespace,
    query::{QueryBasis, SqlRequest},
    restore::{CollectionCounts, RestoreReport},
    service_table::EVENTS_TABLE,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Most collections of a namespace that is restored.
const COLLECTIONS_MAX: usize = 1_000;
/// Most changes of a restore.
const CHANGES_MAX: u64 = 1_000_000;

/// A collection whose earlier state is put into one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CollectionPair {
    pub(super) from: String,
    pub(super) into: String,
    /// Whether these are two.
    pub(super) is_other: bool,
}

/// A restore that is carried out.
#[derive(Clone, Copy)]
pub(super) struct RestoreRun<'a> {
    pub(super) app: &'a AppState,
    pub(super) levels: &'a [String],
    pub(super) namespace: &'a Namespace,
    /// What it is called.
    pub(super) id: &'a str,
    /// What was asked for.
    pub(super) request: &'a str,
    /// The last event before it, or before it went on.
    pub(super) head: u64,
    /// The last event of the state that is put back.
    pub(super) to: u64,
    /// Whether it goes on with one that broke off.
    pub(super) is_resumed: bool,
}

/// How many documents change.
pub(super) fn changes(report: &RestoreReport) -> u64 {
    report.inserted + report.updated + report.deleted
}

impl RestoreRun<'_> {
    /// Where its changes are appended.
    pub(super) fn place(&self) -> ChangedBranch<'_> {
        let RestoreRun { app, levels, namespace, .. } = *self;
        ChangedBranch { app, levels, namespace, branch: None }
    }

    fn states(&self) -> ComparedStates {
        ComparedStates { to: self.to, head: self.head }
    }

    /// Every collection that the namespace has, or had.
    ///
    /// # Errors
    /// 422 for too many; else as queries.
    pub(super) async fn collections(&self) -> Result<Vec<CollectionPair>, ApiError> {
        let limit = COLLECTIONS_MAX + 1;
        let sql = format!(
            "SELECT DISTINCT collection FROM events WHERE collection <> '' AND {IS_CHANGE} \
             AND seq <= {} LIMIT {limit}",
            self.head
        );
        let request = SqlRequest { sql, ..SqlRequest::default() };
        let mut names = BTreeSet::new();
        for batch in state_rows::rows(self.app, self.levels, request).await? {
            names
                .extend((0..batch.num_rows()).filter_map(|row| text_at(&batch, "collection", row)));
        }
        // Of a collection whose events are all gone there may be a table. One that does not load has nothing to restore
        // from, and the others are restored all the same.
        for table in self.tables().await? {
            let table = ident(self.namespace, &table);
            let Ok(loaded) = self.app.catalog.tables().load(&table).await else { continue };
            names.extend(collection_of(&loaded.metadata).map(str::to_owned));
        }
        if COLLECTIONS_MAX < names.len() {
            let text = format!(
                "the namespace has more than {COLLECTIONS_MAX} collections: restore them one by one"
            );
            return Err(ApiError::new(ErrorCode::QueryLimit, text));
        }
        let pair =
            |name: String| CollectionPair { from: name.clone(), into: name, is_other: false };
        Ok(names.into_iter().map(pair).collect())
    }

    /// Names of the tables that may be those of collections.
    async fn tables(&self) -> Result<Vec<String>, ApiError> {
        let names = match self.app.catalog.metastore().tables(&self.levels.to_vec()).await {
            Ok(names) => names,
            // Its first events are on their way into tables.
            Err(CatalogError::NoSuchNamespace(_)) => Vec::new(),
            Err(cause) => return Err(cause.into()),
        };
        Ok(names.into_iter().filter(|name| name.starts_with(TABLE_PREFIX)).collect())
    }

    /// What keeps the changes that a comparison finds until they are appended. Who sees them is asked only then.
    ///
    /// # Errors
    /// The metastore's.
    pub(super) async fn kept(&self) -> Result<KeptChanges, ApiError> {
        if self.app.sql.filters_visibility() {
            return Ok(KeptChanges::none());
        }
        let erasures = erasures_of(&self.app.erasures, self.levels).await?;
        Ok(KeptChanges::all(KEPT_BYTES_MAX, erasures))
    }

    /// Counts what would change.
    ///
    /// # Errors
    /// 409 where another collection is to get the state and has documents, 422 for too many changes; else as queries.
    pub(super) async fn compare(
        &self,
        pairs: &[CollectionPair],
        kept: &mut KeptChanges,
    ) -> Result<RestoreReport, ApiError> {
        let mut report = RestoreReport::default();
        let mut basis = basis::at_event(self.app, None, self.head);
        for pair in pairs {
            kept.begin();
            let counts = self.counts(pair, &mut basis, kept).await?;
            if pair.is_other
                && !self.is_resumed
                && counts.updated + counts.deleted + counts.unchanged != 0
            {
                let text = format!(
                    "collection `{}` has documents: restore into one that has none",
                    pair.into
                );
                return Err(ApiError::new(ErrorCode::Conflict, text));
            }
            report.inserted += counts.inserted;
            report.updated += counts.updated;
            report.deleted += counts.deleted;
            report.unchanged += counts.unchanged;
            report.collections.push(counts);
        }
        if CHANGES_MAX < changes(&report) {
            let text = format!(
                "{} documents would change, at most {CHANGES_MAX} may: restore the collections one by one, or to a point that is nearer",
                changes(&report)
            );
            return Err(ApiError::new(ErrorCode::QueryLimit, text));
        }
        if report.collections.len() == 1 {
            report.collections.clear();
        }
        report.basis = Some(basis::of_report(basis));
        Ok(report)
    }

    async fn counts(
        &self,
        pair: &CollectionPair,
        basis: &mut QueryBasis,
        kept: &mut KeptChanges,
    ) -> Result<CollectionCounts, ApiError> {
        let states = self.states();
        let is_same = states.are_same(pair);
        let sql = if is_same { states.count(pair) } else { states.all(pair) };
        let request = SqlRequest { sql, ..SqlRequest::default() };
        let mut counts =
            CollectionCounts { name: pair.into.clone(), ..CollectionCounts::default() };
        let Some(mut answer) = state_rows::ask_all(self.app, self.levels, request).await? else {
            return Ok(counts);
        };
        basis.add(answer.basis.take().unwrap_or_default());
        while let Some(batch) = answer.batches.next().await {
            let batch = batch?;
            if is_same && batch.num_rows() != 0 {
                counts.unchanged += number_at(&batch, "documents", 0).unwrap_or(0);
            } else if !is_same {
                count_rows(&batch, &mut counts, kept);
            }
        }
        Ok(counts)
    }

    /// Appends the changes, and behind them the report. On return all of it is durable. None where a document of a
    /// restore of one batch was written since the comparison: nothing is appended then. Of several batches, or of a
    /// restore that goes on, such a document is left as it is, as the moment that they are undone to is before it.
    ///
    /// # Errors
    /// As `POST /ingest`, and as queries. What was appended stays, and the same request under its key goes on.
    pub(super) async fn append(
        &self,
        pairs: &[CollectionPair],
        report: RestoreReport,
        kept: KeptChanges,
    ) -> Result<Option<RestoreReport>, ApiError> {
        let undo = self.undo(&report);
        let begun = BegunRestore {
            restore: self.id.to_owned(),
            request: self.request.to_owned(),
            to: self.to,
            head: undo,
        };
        let begun = (!self.is_resumed).then(|| begun.text());
        let own = format!("restore-{}-", self.id);
        // One that goes on leaves what was written since it began, too: it is undone to before that.
        let later = bulk_changes::later_changes(EVENTS_TABLE, undo, &own);
        let mut batches = ChangeBatches::new(self.place(), begun, later);
        let meta = json!({ "restore_of": self.id, "restored_to": self.to });
        let erasures = erasures_of(&self.app.erasures, self.levels).await?;
        batches.stop_at_erasures(erasures.clone());
        match kept.into_all(erasures.as_deref()) {
            Some(kept) => {
                for (pair, changes) in pairs.iter().zip(kept) {
                    for change in changes {
                        self.push(&mut batches, pair, change, &meta).await?;
                    }
                }
            }
            None => Box::pin(self.push_compared(&mut batches, pairs, &meta)).await?,
        }
        Box::pin(self.finish(batches, report)).await
    }

    /// Appends the rest of the changes with the report behind them; none where a document of a restore of one batch was
    /// written.
    async fn finish(
        &self,
        mut batches: ChangeBatches<'_>,
        mut report: RestoreReport,
    ) -> Result<Option<RestoreReport>, ApiError> {
        let mut appended = None;
        while appended.is_none() {
            batches.leave_written().await?;
            if !batches.left().numbers.is_empty() {
                if batches.count() == 0 && !self.is_resumed {
                    return Ok(None);
                }
                leave(&mut report, &batches);
            }
            overwrite(&mut report, batches.overwritten());
            report.batches = batches.count() + 1;
            let completed = |first: Option<u64>, before: u64| {
                let (restore, request) = (self.id.to_owned(), self.request.to_owned());
                CompletedRestore { restore, request, first, before, report: report.clone() }.text()
            };
            // It ends: behind some looks nothing has to hold.
            appended = batches.finish(completed).await?;
        }
        report.seq = appended;
        overwrite(&mut report, batches.overwritten());
        Ok(Some(report))
    }

    /// Adds all changes, for which the states are compared again.
    async fn push_compared(
        &self,
        batches: &mut ChangeBatches<'_>,
        pairs: &[CollectionPair],
        meta: &Value,
    ) -> Result<(), ApiError> {
        for pair in pairs {
            let sql = match self.app.sql.filters_visibility() {
                true => self.states().visible_changes(pair),
                false => self.states().changes(pair),
            };
            let request = SqlRequest { sql, ..SqlRequest::default() };
            let Some(mut answer) = state_rows::ask_all(self.app, self.levels, request).await?
            else {
                continue;
            };
            while let Some(batch) = answer.batches.next().await {
                let batch = batch?;
                let rows = ComparedRows::of(&batch);
                for row in 0..batch.num_rows() {
                    let Some(change) = rows.change(row) else { continue };
                    self.push(batches, pair, change, meta).await?;
                }
            }
        }
        Ok(())
    }

    async fn push(
        &self,
        batches: &mut ChangeBatches<'_>,
        pair: &CollectionPair,
        change: DocumentChange,
        meta: &Value,
    ) -> Result<(), ApiError> {
        let event = self.event(pair, &change, meta);
        let (collection, op) = (pair.into.clone(), change.op);
        batches.push(PlannedChange { collection, key: change.key, op, event }).await
    }

    /// The last event before the restore, whether it went on or not.
    fn undo(&self, report: &RestoreReport) -> u64 {
        let bookmark = report.undo_bookmark.as_deref();
        bookmark.and_then(icecore_lake::event::bookmark::moment_seq).unwrap_or(self.head)
    }

    fn event(&self, pair: &CollectionPair, change: &DocumentChange, meta: &Value) -> String {
        let key = document_number(&pair.into, &change.key);
        // A restore that goes on compares with another state, so its changes are other ones.
        let id = format!("restore-{}-{}-{key:032x}", self.id, self.head);
        let event = ChangeEvent {
            id: &id,
            op: change.op,
            collection: &pair.into,
            key: &change.key,
            store: change.store.as_deref(),
            visibility: change.visibility.as_deref(),
            // What somebody may not see is not told beside what they may.
            before: change.before.as_deref().filter(|_| change.is_told),
            after: change.after.as_deref(),
            meta,
        };
        event.text()
    }
}

/// Counts the rows of a comparison, and keeps their changes.
fn count_rows(batch: &RecordBatch, counts: &mut CollectionCounts, kept: &mut KeptChanges) {
    let rows = ComparedRows::of(batch);
    for row in 0..batch.num_rows() {
        let Some((op, key)) = rows.op(row) else {
            counts.unchanged += 1;
            continue;
        };
        match op {
            ChangeOp::Create => counts.inserted += 1,
            ChangeOp::Update | ChangeOp::Read => counts.updated += 1,
            ChangeOp::Delete => counts.deleted += 1,
        }
        if kept.takes(key)
            && let Some(change) = rows.change(row)
        {
            kept.push(change);
        }
    }
}

/// Says in a report which documents were left, and counts the others.
fn leave(report: &mut RestoreReport, batches: &ChangeBatches<'_>) {
    for counts in &mut report.collections {
        let DocumentCounts { inserted, updated, deleted } = batches.counts(&counts.name);
        (counts.inserted, counts.updated, counts.deleted) = (inserted, updated, deleted);
    }
    let all = batches.all_counts();
    (report.inserted, report.updated, report.deleted) = (all.inserted, all.updated, all.deleted);
    report.written_meanwhile = batches.left().count();
    report.left = batches.left().entries();
}

/// Says in a report which documents others wrote right before a batch had them.
fn overwrite(report: &mut RestoreReport, documents: &DocumentList) {
    report.overwritten = documents.count();
    report.overwritten_documents = documents.entries();
}
