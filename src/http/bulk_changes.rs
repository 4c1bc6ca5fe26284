//! Many changes of documents that the service makes at once: in as few atomic batches as the limits of a batch allow,
//! with a tag of the state before them, and not while an erasure takes rows out.
//!
//! A document that somebody wrote since it was compared is taken out of its batch before that is appended. Where one is
//! written right then, the batch is not taken and is looked at again; one that is written right then each time is told of.
//!
//! Its one invariant: what was appended of a change that breaks off is behind an event that says so, and a change that
//! was carried out has an event that tells of it behind the last of its own, in the same batch.

mod written;

use crate::{
    http::{
        AppState,
        branches::append::{self, BranchReceipt},
        change_events,
        error::ApiError,
        jobs::materialize::erasures_of,
        turns::joined,
    },
    ingest::{Receipt, WatchedDocuments},
};
use icecore_catalog::{
    catalog::{Catalog, RefKind},
    error::CatalogError,
};
use icecore_lake::{collection::ChangeOp, table::schema::ident};
use icecore_schemas::{
    batch::SeqRange,
    erasure::{ErasureReport, ErasureStatus},
    error_code::ErrorCode,
    names::Namespace,
    service_table::EVENTS_TABLE,
};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};
use written::{AppendedBatch, WrittenDocuments};
pub(super) use written::{DocumentList, later_changes};
use xxhash_rust::xxh3::xxh3_128;

/// Places of a batch that stay for the events that say where a change begins and that it ended.
const MARKERS: usize = 2;
/// Queries that a change of several batches has at a time: the comparison goes on while a batch is looked at.
const QUERIES_AT_ONCE: usize = 2;
/// Most times that a batch is looked at again because others wrote between the look and the append. Behind these it is
/// appended all the same: a change would not end beside writers that never rest.
const LOOKS_AGAIN_MAX: usize = 3;

/// Where changes are appended.
#[derive(Clone, Copy)]
pub(super) struct ChangedBranch<'a> {
    pub(super) app: &'a AppState,
    pub(super) levels: &'a [String],
    pub(super) namespace: &'a Namespace,
    /// The branch; none for `main`.
    pub(super) branch: Option<&'a str>,
}

/// A change of a document on its way to the log or to a branch.
#[derive(Clone, Debug)]
pub(super) struct PlannedChange {
    pub(super) collection: String,
    pub(super) key: String,
    pub(super) op: ChangeOp,
    /// The event, as JSON.
    pub(super) event: String,
}

/// How many documents of a collection change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DocumentCounts {
    pub(super) inserted: u64,
    pub(super) updated: u64,
    pub(super) deleted: u64,
}

impl DocumentCounts {
    fn of(&mut self, op: ChangeOp) -> &mut u64 {
        match op {
            ChangeOp::Create => &mut self.inserted,
            ChangeOp::Update | ChangeOp::Read => &mut self.updated,
            ChangeOp::Delete => &mut self.deleted,
        }
    }
}

/// What has to hold from the look at a batch to its append; nothing where the batch was looked at often enough.
#[derive(Debug, Default)]
struct LookCondition {
    /// Nobody wrote one of these documents of `main`.
    unwritten: Option<Arc<WatchedDocuments>>,
    /// The branch is at this snapshot.
    head: Option<i64>,
}

/// Batches of changes on their way to the log or to a branch.
pub(super) struct ChangeBatches<'a> {
    place: ChangedBranch<'a>,
    /// What stands before the first event where one batch is not enough.
    begun: Option<String>,
    /// The statement of [`later_changes`] for what was written behind the comparison.
    later: String,
    written: WrittenDocuments,
    condition: LookCondition,
    /// How often the batch was looked at again.
    looks_again: usize,
    changes: Vec<PlannedChange>,
    bytes: usize,
    left: DocumentList,
    overwritten: DocumentList,
    /// The changes of each collection, without those of documents that are left.
    counts: HashMap<String, DocumentCounts>,
    /// Batches that are durable.
    count: u64,
    /// Their events.
    seq: Option<SeqRange>,
    /// The erasures that the namespace had before its states were read, where these are known.
    erasures: Option<String>,
}

impl<'a> ChangeBatches<'a> {
    /// None yet. `begun` is the event that says where they begin, if there are several batches; `later` is the
    /// statement of [`later_changes`] behind the comparison.
    pub(super) fn new(place: ChangedBranch<'a>, begun: Option<String>, later: String) -> Self {
        Self {
            place,
            begun,
            later,
            written: WrittenDocuments::default(),
            condition: LookCondition::default(),
            looks_again: 0,
            changes: Vec::new(),
            bytes: 0,
            left: DocumentList::default(),
            overwritten: DocumentList::default(),
            counts: HashMap::new(),
            count: 0,
            seq: None,
            erasures: None,
        }
    }

    /// Appends nothing more once the namespace has had other erasures than these.
    pub(super) fn stop_at_erasures(&mut self, known: Option<String>) {
        self.erasures = known;
    }

    /// Batches that are durable.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The documents that are left because others wrote them.
    pub(super) fn left(&self) -> &DocumentList {
        &self.left
    }

    /// The documents that others wrote between the look at their batch and its append, as far as it was looked at.
    pub(super) fn overwritten(&self) -> &DocumentList {
        &self.overwritten
    }

    /// The changes of a collection, without those of documents that are left.
    pub(super) fn counts(&self, collection: &str) -> DocumentCounts {
        self.counts.get(collection).copied().unwrap_or_default()
    }

    /// The changes of all collections together.
    pub(super) fn all_counts(&self) -> DocumentCounts {
        let mut all = DocumentCounts::default();
        for DocumentCounts { inserted, updated, deleted } in self.counts.values() {
            all.inserted += inserted;
            all.updated += updated;
            all.deleted += deleted;
        }
        all
    }

    /// Goes on with changes from another comparison, and gives the documents that were left before it. The comparison is
    /// behind a look at the last batch.
    pub(super) fn compare_behind(&mut self, later: String) -> DocumentList {
        self.later = later;
        self.written = WrittenDocuments::default();
        std::mem::take(&mut self.left)
    }

    /// Adds a change; where the batch is full, appends it first, without the documents that others wrote meanwhile.
    ///
    /// # Errors
    /// As `POST /ingest`; 409 while an erasure goes on.
    pub(super) async fn push(&mut self, change: PlannedChange) -> Result<(), ApiError> {
        let app = self.place.app;
        let is_full = app.limits.batch_events_max <= self.changes.len() + MARKERS
            || app.body_bytes_max < self.bytes + change.event.len();
        if is_full && !self.changes.is_empty() {
            check_queries(app)?;
            Box::pin(self.leave_written()).await?;
            Box::pin(self.flush()).await?;
        }
        self.bytes += change.event.len();
        match self.counts.get_mut(&change.collection) {
            Some(counts) => *counts.of(change.op) += 1,
            None => {
                let mut counts = DocumentCounts::default();
                *counts.of(change.op) += 1;
                self.counts.insert(change.collection.clone(), counts);
            }
        }
        self.changes.push(change);
        Ok(())
    }

    /// Appends the changes that were added and are not appended yet, without the documents that others wrote meanwhile.
    ///
    /// # Errors
    /// As [`ChangeBatches::push`].
    pub(super) async fn flush(&mut self) -> Result<(), ApiError> {
        // It ends: behind some looks nothing has to hold.
        while !self.changes.is_empty() && self.append(None).await?.is_none() {
            Box::pin(self.leave_written()).await?;
        }
        Ok(())
    }

    /// Takes documents out that others wrote since the comparison, of those that are not appended yet.
    ///
    /// # Errors
    /// As queries.
    pub(super) async fn leave_written(&mut self) -> Result<(), ApiError> {
        if self.changes.is_empty() && !self.written.has_batch() {
            return Ok(());
        }
        self.condition = Box::pin(self.condition()).await?;
        self.look().await?;
        for change in std::mem::take(&mut self.changes) {
            if !self.written.has(&change) {
                self.changes.push(change);
                continue;
            }
            let PlannedChange { collection, key, op, event } = change;
            self.bytes -= event.len();
            if let Some(counts) = self.counts.get_mut(&collection) {
                *counts.of(op) -= 1;
            }
            self.left.add(collection, key);
        }
        if self.changes.is_empty() {
            // What is appended next has none of the documents that were watched.
            self.condition = LookCondition::default();
        }
        Ok(())
    }

    /// What has to hold until the changes are appended. It is asked for before the look, so that no write is in between.
    async fn condition(&self) -> Result<LookCondition, ApiError> {
        let ChangedBranch { app, namespace, branch, .. } = self.place;
        if self.changes.is_empty() || LOOKS_AGAIN_MAX <= self.looks_again {
            return Ok(LookCondition::default());
        }
        if let Some(branch) = branch {
            let head = append::load(app, namespace, branch).await?.snapshot;
            return Ok(LookCondition { head: Some(head), ..LookCondition::default() });
        }
        let mut keys: HashMap<String, HashSet<String>> = HashMap::new();
        for PlannedChange { collection, key, .. } in &self.changes {
            keys.entry(collection.clone()).or_default().insert(key.clone());
        }
        let watched = app.ingest.watch(namespace, keys).await?;
        Ok(LookCondition { unwritten: Some(watched), ..LookCondition::default() })
    }

    /// Looks at what others wrote since the look before, and notes which documents of the last batch that was.
    ///
    /// # Errors
    /// As queries.
    pub(super) async fn look(&mut self) -> Result<(), ApiError> {
        let last = self.seq.map_or(0, |seq| seq.last);
        let overwritten = Box::pin(self.written.look(self.place, &self.later, last)).await?;
        for (collection, key) in overwritten {
            self.overwritten.add(collection, key);
        }
        Ok(())
    }

    /// Appends the rest with the event that tells of all; gives the numbers of all events. None where others wrote since
    /// the look at the rest: nothing of it is appended then. `completed` makes that event of the number of the first event
    /// in batches before its own, and of the events before it in its own.
    ///
    /// # Errors
    /// As [`ChangeBatches::push`].
    pub(super) async fn finish(
        &mut self,
        completed: impl FnOnce(Option<u64>, u64) -> String,
    ) -> Result<Option<SeqRange>, ApiError> {
        let completed = completed(self.seq.map(|seq| seq.first), self.changes.len() as u64);
        let Some(seq) = self.append(Some(completed)).await? else { return Ok(None) };
        if self.written.has_batch()
            && let Err(error) = self.look().await
        {
            // All of it is durable: an error would say that it is not.
            let namespace = self.place.namespace;
            tracing::warn!(%namespace, %error, "whether others wrote documents right before the last batch of a change is not known");
        }
        Ok(Some(seq))
    }

    /// Appends the changes, and `completed` behind them. None where others wrote since the look at them: they stay.
    async fn append(&mut self, completed: Option<String>) -> Result<Option<SeqRange>, ApiError> {
        let ChangedBranch { app, levels, .. } = self.place;
        check_erasures(app, levels).await?;
        self.check_known_erasures().await?;
        app.sql.fault("changes.before_batch")?;
        let begun = self.begun.clone().filter(|_| completed.is_none());
        let begun_count = usize::from(begun.is_some());
        let changes = self.changes.iter_mut().map(|change| std::mem::take(&mut change.event));
        let events: Vec<String> = begun.into_iter().chain(changes).chain(completed).collect();
        let appended = Box::pin(self.append_events(&events)).await?;
        let Some((first, last)) = appended else {
            let events = events.into_iter().skip(begun_count);
            for (change, event) in self.changes.iter_mut().zip(events) {
                change.event = event;
            }
            self.looks_again += 1;
            return Ok(None);
        };
        self.looks_again = 0;
        self.bytes = 0;
        if begun_count != 0 {
            self.begun = None;
        }
        let changes = std::mem::take(&mut self.changes).into_iter();
        let documents = changes.map(|it| (it.collection, it.key)).collect();
        self.written.append(AppendedBatch { first, documents });
        app.sql.fault("changes.after_batch")?;
        let first = self.seq.map_or(first, |seq| seq.first);
        let seq = SeqRange { first, last };
        self.seq = Some(seq);
        self.count += 1;
        Ok(Some(seq))
    }

    /// The numbers of the first and the last of these events, which are durable; none where the condition of the look at
    /// them does not hold any more.
    async fn append_events(&mut self, events: &[String]) -> Result<Option<(u64, u64)>, ApiError> {
        let ChangedBranch { app, namespace, branch, .. } = self.place;
        let LookCondition { unwritten, head } = std::mem::take(&mut self.condition);
        let Some(branch) = branch else {
            let appended = change_events::append_unless_written(app, namespace, events, unwritten);
            let receipt = Box::pin(appended).await?;
            let range_of = |Receipt { ranges, .. }: Receipt| {
                ranges.first().map_or((0, 0), |(_, first, last)| (*first, *last))
            };
            return Ok(receipt.map(range_of));
        };
        let receipt = match head {
            Some(head) => {
                let _turn = app.branch_turns.take(&[namespace.name(), branch]).await?;
                let at = (branch, head);
                Box::pin(append::append_at(app, namespace, at, events, None)).await?
            }
            None => Some(Box::pin(append::append(app, namespace, branch, events)).await?),
        };
        Ok(receipt.map(|BranchReceipt { first, last, .. }| (first, last)))
    }

    /// Refuses what may have been read before an erasure took it out.
    async fn check_known_erasures(&self) -> Result<(), ApiError> {
        let Some(known) = &self.erasures else { return Ok(()) };
        let ChangedBranch { app, levels, .. } = self.place;
        let erasures = erasures_of(&app.erasures, levels).await?;
        if erasures.as_ref() == Some(known) {
            return Ok(());
        }
        let text =
            "an erasure began in this namespace since the documents were compared: send this again";
        Err(ApiError::new(ErrorCode::Conflict, text))
    }
}

/// What tells the documents of a change apart.
pub(super) fn document_number(collection: &str, key: &str) -> u128 {
    xxh3_128(&joined(&[collection, key]))
}

/// Refuses a change of several batches where it would wait for its own query.
///
/// # Errors
/// 422.
fn check_queries(app: &AppState) -> Result<(), ApiError> {
    if app.sql.has_places(QUERIES_AT_ONCE) {
        return Ok(());
    }
    let text = format!(
        "the changes are more than one batch, which takes {QUERIES_AT_ONCE} queries at a time: set sql.concurrent_max and sql.concurrent_per_namespace to {QUERIES_AT_ONCE} or more, or raise ingest.batch_events_max"
    );
    Err(ApiError::new(ErrorCode::QueryLimit, text))
}

/// Refuses to go on while an erasure takes rows out: a change made of them would be behind it and stay.
///
/// # Errors
/// 409; else the metastore's.
pub(super) async fn check_erasures(app: &AppState, levels: &[String]) -> Result<(), ApiError> {
    let erasures = app.erasures.list(levels).await?.erasures;
    let has_rows = |erasure: &&ErasureReport| match erasure.status {
        ErasureStatus::Log
        | ErasureStatus::Count
        | ErasureStatus::Rewrite
        | ErasureStatus::History => !erasure.dry_run,
        ErasureStatus::Files
        | ErasureStatus::Proof
        | ErasureStatus::Done
        | ErasureStatus::Failed => false,
    };
    let Some(ErasureReport { erasure, .. }) = erasures.iter().find(has_rows) else {
        return Ok(());
    };
    let text = format!(
        "erasure `{erasure}` still takes rows out of this namespace: send this again when its status is `files`"
    );
    Err(ApiError::new(ErrorCode::Conflict, text))
}

/// Tags the state of `events` before a change, after everything that is acknowledged was committed. The events tell
/// that state as well, so a change does not wait for a warehouse that is not there, and has no tag then.
pub(super) async fn tag_before(
    ChangedBranch { app, namespace, .. }: ChangedBranch<'_>,
    catalog: &Catalog,
    name: String,
    is_resumed: bool,
) -> Option<String> {
    let events = ident(namespace, EVENTS_TABLE);
    if is_resumed {
        // What is there now is not the state before it. It was tagged then, or is not.
        let refs = catalog.refs().list(&events).await.unwrap_or_default();
        return refs.contains_key(&name).then_some(name);
    }
    let through = *app.wal.durable().borrow();
    if let Err(cause) = app.flush.commit_now(namespace, through).await {
        let error = cause.as_ref() as &dyn std::error::Error;
        tracing::warn!(%namespace, tag = %name, error, "the state before a change is not tagged");
        return None;
    }
    match catalog.refs().create(&events, &name, RefKind::Tag, None).await {
        // Another one began at the same event, and changed nothing.
        Ok(_) | Err(CatalogError::AlreadyExists(_)) => Some(name),
        Err(cause) => {
            let error = &cause as &dyn std::error::Error;
            tracing::warn!(%namespace, tag = %name, error, "the state before a change is not tagged");
            None
        }
    }
}
