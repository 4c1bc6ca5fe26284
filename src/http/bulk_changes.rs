//! Many changes of documents that the service makes at once: in as few atomic batches as the limits of a batch allow,
//! with a tag of the state before them, and not while an erasure takes rows out.
//!
//! A document that somebody wrote since it was compared is taken out of its batch before that is appended; one that is
//! written right then is told of.
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
    ingest::Receipt,
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
use std::collections::{HashMap, HashSet};
use written::{AppendedBatch, DocumentName, WrittenDocuments};
pub(super) use written::{DocumentList, later_changes};
use xxhash_rust::xxh3::xxh3_128;

/// Places of a batch that stay for the events that say where a change begins and that it ended.
const MARKERS: usize = 2;
/// Queries that a change of several batches has at a time: the comparison goes on while a batch is looked at.
const QUERIES_AT_ONCE: usize = 2;

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

/// Batches of changes on their way to the log or to a branch.
pub(super) struct ChangeBatches<'a> {
    place: ChangedBranch<'a>,
    /// What stands before the first event where one batch is not enough.
    begun: Option<String>,
    /// The statement of [`later_changes`] for what was written behind the comparison.
    later: String,
    written: WrittenDocuments,
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

    /// Appends the changes that were added and are not appended yet.
    ///
    /// # Errors
    /// As [`ChangeBatches::push`].
    pub(super) async fn flush(&mut self) -> Result<(), ApiError> {
        if self.changes.is_empty() {
            return Ok(());
        }
        let (mut events, documents) = self.take_events();
        if let Some(begun) = self.begun.take() {
            events.insert(0, begun);
        }
        self.append(&events, documents).await.map(|_| ())
    }

    /// Takes documents out that others wrote since the comparison, of those that are not appended yet.
    ///
    /// # Errors
    /// As queries.
    pub(super) async fn leave_written(&mut self) -> Result<(), ApiError> {
        if self.changes.is_empty() && !self.written.has_batch() {
            return Ok(());
        }
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
        Ok(())
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

    /// Appends the rest with the event that tells of all; gives the numbers of all events, and the documents of all
    /// batches that others wrote right before them. `completed` makes that event of the number of the first event in
    /// batches before its own, and of the events before it in its own.
    ///
    /// # Errors
    /// As [`ChangeBatches::push`].
    pub(super) async fn finish(
        mut self,
        completed: impl FnOnce(Option<u64>, u64) -> String,
    ) -> Result<(SeqRange, DocumentList), ApiError> {
        let (mut events, documents) = self.take_events();
        events.push(completed(self.seq.map(|seq| seq.first), events.len() as u64));
        let seq = self.append(&events, documents).await?;
        if self.written.has_batch()
            && let Err(error) = self.look().await
        {
            // All of it is durable: an error would say that it is not.
            let namespace = self.place.namespace;
            tracing::warn!(%namespace, %error, "whether others wrote documents right before the last batch of a change is not known");
        }
        Ok((seq, self.overwritten))
    }

    fn take_events(&mut self) -> (Vec<String>, HashSet<DocumentName>) {
        self.bytes = 0;
        let changes = std::mem::take(&mut self.changes).into_iter();
        changes.map(|it| (it.event, (it.collection, it.key))).unzip()
    }

    async fn append(
        &mut self,
        events: &[String],
        documents: HashSet<DocumentName>,
    ) -> Result<SeqRange, ApiError> {
        let ChangedBranch { app, levels, namespace, branch } = self.place;
        check_erasures(app, levels).await?;
        self.check_known_erasures().await?;
        app.sql.fault("changes.before_batch")?;
        let (first, last) = match branch {
            None => {
                let Receipt { ranges, .. } =
                    Box::pin(change_events::append(app, namespace, events, None)).await?;
                ranges.first().map_or((0, 0), |(_, first, last)| (*first, *last))
            }
            Some(branch) => {
                let BranchReceipt { first, last, .. } =
                    Box::pin(append::append(app, namespace, branch, events)).await?;
                (first, last)
            }
        };
        self.written.append(AppendedBatch { first, documents });
        app.sql.fault("changes.after_batch")?;
        let first = self.seq.map_or(first, |seq| seq.first);
        let seq = SeqRange { first, last };
        self.seq = Some(seq);
        self.count += 1;
        Ok(seq)
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
