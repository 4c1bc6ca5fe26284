//! Many changes of documents that the service makes at once: in as few atomic batches as the limits of a batch allow,
//! with a tag of the state before them, and not while an erasure takes rows out.
//!
//! Its one invariant: what was appended of a change that breaks off is behind an event that says so, and a change that
//! was carried out has an event that tells of it behind the last of its own, in the same batch.

use crate::{
    http::{
        AppState,
        branches::append::{self, BranchReceipt},
        change_events,
        error::ApiError,
        rows::text_at,
        state_rows,
        turns::joined,
    },
    ingest::Receipt,
};
use futures::StreamExt;
use icecore_catalog::{
    catalog::{Catalog, RefKind},
    error::CatalogError,
};
use icecore_engine::collections::{IS_CHANGE, IS_TRUNCATE};
use icecore_lake::table::schema::ident;
use icecore_schemas::{
    batch::SeqRange,
    erasure::{ErasureReport, ErasureStatus},
    error_code::ErrorCode,
    names::Namespace,
    query::SqlRequest,
    service_table::EVENTS_TABLE,
};
use std::collections::HashSet;
use xxhash_rust::xxh3::xxh3_128;

/// Places of a batch that stay for the events that say where a change begins and that it ended.
const MARKERS: usize = 2;

/// Where changes are appended.
#[derive(Clone, Copy)]
pub(super) struct ChangedBranch<'a> {
    pub(super) app: &'a AppState,
    pub(super) levels: &'a [String],
    pub(super) namespace: &'a Namespace,
    /// The branch; none for `main`.
    pub(super) branch: Option<&'a str>,
}

/// Batches of changes on their way to the log or to a branch.
pub(super) struct ChangeBatches<'a> {
    place: ChangedBranch<'a>,
    /// What stands before the first event where one batch is not enough.
    begun: Option<String>,
    events: Vec<String>,
    bytes: usize,
    /// Batches that are durable.
    count: u64,
    /// Their events.
    seq: Option<SeqRange>,
}

impl<'a> ChangeBatches<'a> {
    /// None yet. `begun` is the event that says where they begin, if there are several batches.
    pub(super) fn new(place: ChangedBranch<'a>, begun: Option<String>) -> Self {
        Self { place, begun, events: Vec::new(), bytes: 0, count: 0, seq: None }
    }

    /// Batches that are durable.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Adds an event; where the batch is full, appends it first.
    ///
    /// # Errors
    /// As `POST /ingest`; 409 while an erasure goes on.
    pub(super) async fn push(&mut self, event: String) -> Result<(), ApiError> {
        let app = self.place.app;
        let is_full = app.limits.batch_events_max <= self.events.len() + MARKERS
            || app.body_bytes_max < self.bytes + event.len();
        if is_full && !self.events.is_empty() {
            if let Some(begun) = self.begun.take() {
                self.events.insert(0, begun);
            }
            let events = std::mem::take(&mut self.events);
            self.bytes = 0;
            self.append(&events).await?;
        }
        self.bytes += event.len();
        self.events.push(event);
        Ok(())
    }

    /// Appends the rest with the event that tells of all; gives the numbers of all events. `completed` makes that
    /// event of the number of the first event in batches before its own, and of the events before it in its own.
    ///
    /// # Errors
    /// As for one.
    pub(super) async fn finish(
        mut self,
        completed: impl FnOnce(Option<u64>, u64) -> String,
    ) -> Result<SeqRange, ApiError> {
        let mut events = std::mem::take(&mut self.events);
        events.push(completed(self.seq.map(|seq| seq.first), events.len() as u64));
        self.append(&events).await
    }

    async fn append(&mut self, events: &[String]) -> Result<SeqRange, ApiError> {
        let ChangedBranch { app, levels, namespace, branch } = self.place;
        check_erasures(app, levels).await?;
        app.sql.fault("changes.before_batch")?;
        let (first, last) = match branch {
            None => {
                let Receipt { ranges, .. } =
                    Box::pin(change_events::append(app, namespace, events)).await?;
                ranges.first().map_or((0, 0), |(_, first, last)| (*first, *last))
            }
            Some(branch) => {
                let BranchReceipt { first, last, .. } =
                    Box::pin(append::append(app, namespace, branch, events)).await?;
                (first, last)
            }
        };
        app.sql.fault("changes.after_batch")?;
        let first = self.seq.map_or(first, |seq| seq.first);
        let seq = SeqRange { first, last };
        self.seq = Some(seq);
        self.count += 1;
        Ok(seq)
    }
}

/// What tells the documents of a change apart.
pub(super) fn document_number(collection: &str, key: &str) -> u128 {
    xxh3_128(&joined(&[collection, key]))
}

/// The statement for the documents that were changed behind an event, as columns `collection` and `key`; a row without
/// a key is a collection that was emptied. `events` is what they are read from, as FROM names it.
pub(super) fn later_changes(events: &str, seq: u64) -> String {
    format!(
        "SELECT DISTINCT collection, key FROM {events} WHERE seq > {seq} AND collection <> '' \
         AND (({IS_CHANGE}) OR ({IS_TRUNCATE}))"
    )
}

/// The collection of a document of `changed` that the rows of [`later_changes`] have, or of one that was emptied and is
/// one of a change's; none where there is no such row.
///
/// # Errors
/// As queries.
pub(super) async fn changed_since(
    ChangedBranch { app, levels, .. }: ChangedBranch<'_>,
    sql: String,
    changed: &HashSet<u128>,
    is_changed: impl Fn(&str) -> bool,
) -> Result<Option<String>, ApiError> {
    let request = SqlRequest { sql, ..SqlRequest::default() };
    let Some(mut answer) = state_rows::ask(app, levels, request).await? else { return Ok(None) };
    while let Some(batch) = answer.batches.next().await {
        let batch = batch?;
        for row in 0..batch.num_rows() {
            let Some(collection) = text_at(&batch, "collection", row) else { continue };
            let is_ours = match text_at(&batch, "key", row) {
                Some(key) => changed.contains(&document_number(&collection, &key)),
                None => is_changed(&collection),
            };
            if is_ours {
                return Ok(Some(collection));
            }
        }
    }
    Ok(None)
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
