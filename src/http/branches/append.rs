//! Events that are appended to a branch: all of a request or none, each once, in one commit.
//!
//! What the branch has of the events is looked up at its head, and the commit holds only where the branch is still
//! there. Otherwise it is looked up again. Its one invariant: an id that the branch has is appended no more.

mod stored;

use crate::{
    flush::{
        ACTOR, FlushError,
        branches::{BranchRows, BranchStart},
    },
    http::{
        AppState,
        branches::{events, failed, head},
        change_events,
        error::ApiError,
    },
    ingest::{bookmark, refusal},
};
use arrow::{
    array::{AsArray, BooleanArray},
    compute::filter_record_batch,
    record_batch::RecordBatch,
};
use icecore_catalog::error::CatalogError;
use icecore_lake::{
    blocking::blocking,
    branch::{Branch, BranchMerge},
    event::{
        DecodedBody, EventKey, NamespaceEvents, RejectedEvent, codec, rows, same::rows_say_the_same,
    },
};
use icecore_schemas::{error_code::ErrorCode, names::Namespace};
use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};
use stored::{StoredEvent, stored};

/// How often a commit is made anew for a branch or table that others changed meanwhile.
pub(in crate::http) const ATTEMPTS_MAX: usize = 8;

/// A branch and where it is.
#[derive(Clone, Debug)]
pub(in crate::http) struct BranchHead {
    /// What is said of it.
    pub(in crate::http) branch: Branch,
    /// Its head.
    pub(in crate::http) snapshot: i64,
    /// Its last event.
    pub(in crate::http) seq: u64,
}

/// What became of events for a branch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::http) struct BranchReceipt {
    /// The lowest `seq` that they have, repeats included; 0 where there was none.
    pub(in crate::http) first: u64,
    /// The highest.
    pub(in crate::http) last: u64,
    /// Events that were there before.
    pub(in crate::http) duplicates: u64,
    /// The snapshot that has them.
    pub(in crate::http) snapshot: Option<i64>,
}

/// What became of a body for a branch.
#[derive(Debug)]
pub(super) enum BranchOutcome {
    Taken(BranchReceipt),
    /// Why each of its events is refused.
    Refused(Vec<RejectedEvent>),
    /// Nothing: the branch is not at the snapshot that was asked for.
    Moved,
}

/// A branch as it is.
///
/// # Errors
/// 404 with the branches that are there, 503.
pub(in crate::http) async fn load(
    app: &AppState,
    namespace: &Namespace,
    branch: &str,
) -> Result<BranchHead, ApiError> {
    let table = events(app, namespace).await?;
    head(app, namespace, &table, branch).await
}

/// Appends events, given as JSON, to a branch: on return all of them are in its head, those of a repeat once.
///
/// # Errors
/// What one of them is refused for; then none is taken. 404 without such a branch, 429, 503.
pub(in crate::http) async fn append(
    app: &AppState,
    namespace: &Namespace,
    branch: &str,
    events: &[String],
) -> Result<BranchReceipt, ApiError> {
    let _room = app.room.take(events.iter().map(String::len).sum())?;
    let (decoded, _) = change_events::decoded(app, namespace, events, None).await?;
    let received = decoded.received as u64;
    let outcome = Box::pin(take(app, namespace, branch, decoded)).await?;
    receipt_of(app, received, outcome)?.ok_or_else(|| moved(branch))
}

/// The same for who holds the turn of the branch and has read it at snapshot `at`. None where it is at another one by
/// now, and nothing is appended.
///
/// # Errors
/// As [`append`].
pub(in crate::http) async fn append_at(
    app: &AppState,
    namespace: &Namespace,
    (branch, at): (&str, i64),
    events: &[String],
    request_id: Option<&str>,
) -> Result<Option<BranchReceipt>, ApiError> {
    let _room = app.room.take(events.iter().map(String::len).sum())?;
    let (mut decoded, _) = change_events::decoded(app, namespace, events, request_id).await?;
    let received = decoded.received as u64;
    let outcome = match without_branch(&mut decoded) {
        Some(outcome) => outcome,
        None => Box::pin(take_in_turn(app, namespace, branch, (decoded, Some(at)))).await?,
    };
    receipt_of(app, received, outcome)
}

/// Counts events and gives their receipt; none where the branch moved.
fn receipt_of(
    app: &AppState,
    received: u64,
    outcome: BranchOutcome,
) -> Result<Option<BranchReceipt>, ApiError> {
    match outcome {
        BranchOutcome::Taken(receipt) => {
            app.metrics.count_events(received, receipt.duplicates, 0);
            Ok(Some(receipt))
        }
        BranchOutcome::Moved => Ok(None),
        BranchOutcome::Refused(refused) => {
            app.metrics.count_events(received, 0, refused.len() as u64);
            // The others were refused because one was.
            let first = refused.iter().find(|one| one.code != ErrorCode::BatchAborted);
            let (code, reason) = first.or(refused.first()).map_or_else(
                || (ErrorCode::Internal, String::new()),
                |one| (one.code, one.reason.clone()),
            );
            Err(ApiError::new(code, reason))
        }
    }
}

/// The error for a branch that others write to again and again.
pub(in crate::http) fn moved(branch: &str) -> ApiError {
    let text = format!("others changed branch `{branch}` again and again: send it once more");
    ApiError::new(ErrorCode::Conflict, text)
}

/// Notes a merge of a branch into another one in the place of the one before.
///
/// # Errors
/// 404, 409 where others write to the branch again and again, 503.
pub(in crate::http) async fn record_merge(
    app: &AppState,
    namespace: &Namespace,
    branch: &str,
    merge: BranchMerge,
) -> Result<(), ApiError> {
    let _turn = app.branch_turns.take(&[namespace.name(), branch]).await?;
    let mut attempt = 1;
    loop {
        let mut head = load(app, namespace, branch).await?;
        head.branch.merges.retain(|it| it.into != merge.into);
        head.branch.merges.push(merge.clone());
        let rows = BranchRows {
            namespace: namespace.clone(),
            start: BranchStart::Head(head.snapshot),
            rows: Vec::new(),
            seq: None,
            last_seq: head.seq,
            branch: head.branch,
        };
        if commit(app, rows, attempt).await?.is_some() {
            return Ok(());
        }
        attempt += 1;
    }
}

/// Takes the events of a body, all of the one namespace, or says why none is taken.
///
/// # Errors
/// 404 without such a branch, 409 where others write to it again and again, 429, 503.
pub(super) async fn take(
    app: &AppState,
    namespace: &Namespace,
    branch: &str,
    mut decoded: DecodedBody,
) -> Result<BranchOutcome, ApiError> {
    if let Some(outcome) = without_branch(&mut decoded) {
        return Ok(outcome);
    }
    let _turn = app.branch_turns.take(&[namespace.name(), branch]).await?;
    Box::pin(take_in_turn(app, namespace, branch, (decoded, None))).await
}

/// What becomes of a body whatever the branch has, where that is known.
fn without_branch(decoded: &mut DecodedBody) -> Option<BranchOutcome> {
    let mut rejected = std::mem::take(&mut decoded.rejected);
    if !rejected.is_empty() {
        rejected.extend(refusal::aborted(decoded, &rejected));
        return Some(BranchOutcome::Refused(rejected));
    }
    // Whoever may send none of the events is told nothing of the branch.
    decoded.accepted.is_empty().then(|| BranchOutcome::Taken(BranchReceipt::default()))
}

/// Takes a body in the turn of its branch, only at snapshot `at` where one is given.
async fn take_in_turn(
    app: &AppState,
    namespace: &Namespace,
    branch: &str,
    (decoded, at): (DecodedBody, Option<i64>),
) -> Result<BranchOutcome, ApiError> {
    let decoded = Arc::new(decoded);
    let mut attempt = 1;
    loop {
        let head = load(app, namespace, branch).await?;
        if at.is_some_and(|at| at != head.snapshot) {
            return Ok(BranchOutcome::Moved);
        }
        let events = &decoded.accepted[0];
        check_collection(&head.branch, events)?;
        let stored = stored(app, &decoded, head.snapshot).await?;
        let judged = {
            let decoded = Arc::clone(&decoded);
            blocking(move || BranchVerdicts::of(&decoded.accepted[0], &stored)).await
        };
        if !judged.conflicts.is_empty() {
            let source = &decoded.source;
            let conflicts = judged.conflicts.iter();
            let mut refused: Vec<RejectedEvent> = conflicts
                .map(|(row, seq)| refusal::conflicting(events, source, *row, *seq))
                .collect();
            refused.extend(refusal::aborted(&decoded, &refused));
            return Ok(BranchOutcome::Refused(refused));
        }
        let receipt = judged.receipt(&head);
        if judged.keys.is_empty() {
            return Ok(BranchOutcome::Taken(receipt));
        }
        let rows = judged.rows(events, &head, namespace)?;
        if let Some(snapshot) = commit(app, rows, attempt).await? {
            return Ok(BranchOutcome::Taken(BranchReceipt { snapshot: Some(snapshot), ..receipt }));
        }
        attempt += 1;
    }
}

/// Commits rows; none where the branch or its table is not as it was read, and may be read again.
async fn commit(app: &AppState, rows: BranchRows, attempt: usize) -> Result<Option<i64>, ApiError> {
    let catalog = app.catalog.on_behalf_of(ACTOR);
    match Box::pin(app.flush.commit_to_branch(&catalog, rows)).await {
        Ok(snapshot) => Ok(Some(snapshot)),
        Err(FlushError::Commit(CatalogError::CommitFailed(_))) if attempt < ATTEMPTS_MAX => {
            Ok(None)
        }
        Err(cause) => Err(failed(cause)),
    }
}

/// Refuses events of other collections on a branch of one.
fn check_collection(branch: &Branch, events: &NamespaceEvents) -> Result<(), ApiError> {
    let Some(collection) = &branch.collection else { return Ok(()) };
    let named = events.rows.column_by_name("collection");
    let named = named.and_then(|column| column.as_string_opt::<i32>());
    let is_all = named.is_some_and(|named| named.iter().all(|it| it == Some(collection.as_str())));
    if is_all {
        return Ok(());
    }
    let text = format!(
        "branch `{}` takes changes of collection `{collection}` alone: send other events to `main`, or to a branch without a collection",
        branch.name
    );
    Err(ApiError::new(ErrorCode::InvalidRequest, text))
}

/// What is new of the events of a body.
#[derive(Debug, Default)]
struct BranchVerdicts {
    /// For each event, whether it is new.
    is_new: Vec<bool>,
    /// The keys of those.
    keys: Vec<EventKey>,
    duplicates: u64,
    /// The lowest and the highest `seq` of events that were there before.
    known: Option<(u64, u64)>,
    /// Events with the id of another content, and the `seq` of that, where it is no event of this body.
    conflicts: Vec<(usize, Option<u64>)>,
}

impl BranchVerdicts {
    /// `stored` is what the branch has, for each event.
    fn of(events: &NamespaceEvents, stored: &[Option<StoredEvent>]) -> Self {
        let mut verdicts = Self::default();
        let mut first: HashMap<u128, usize> = HashMap::new();
        for (row, key) in events.keys.iter().enumerate() {
            let mut is_new = false;
            if let Some(StoredEvent { seq, is_same }) = stored[row] {
                match is_same {
                    true => verdicts.repeats(Some(seq)),
                    false => verdicts.conflicts.push((row, Some(seq))),
                }
            } else {
                match first.entry(key.id) {
                    Entry::Vacant(place) => {
                        place.insert(row);
                        verdicts.keys.push(*key);
                        is_new = true;
                    }
                    Entry::Occupied(first) => {
                        let before = *first.get();
                        let is_same = events.keys[before].content == key.content
                            || rows_say_the_same(events, before, row);
                        match is_same {
                            true => verdicts.repeats(None),
                            false => verdicts.conflicts.push((row, None)),
                        }
                    }
                }
            }
            verdicts.is_new.push(is_new);
        }
        verdicts
    }

    fn repeats(&mut self, seq: Option<u64>) {
        self.duplicates += 1;
        let Some(seq) = seq else { return };
        let (first, last) = self.known.unwrap_or((seq, seq));
        self.known = Some((first.min(seq), last.max(seq)));
    }

    /// The acknowledgement, while the branch is at `head`.
    fn receipt(&self, head: &BranchHead) -> BranchReceipt {
        let new = match self.keys.len() as u64 {
            0 => None,
            count => Some((head.seq + 1, head.seq + count)),
        };
        let ranges = self.known.into_iter().chain(new);
        let range = ranges.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)));
        let (first, last) = range.unwrap_or_default();
        let (duplicates, snapshot) = (self.duplicates, Some(head.snapshot));
        BranchReceipt { first, last, duplicates, snapshot }
    }

    /// The new rows, for the branch while it is at `head`; at least one.
    fn rows(
        &self,
        events: &NamespaceEvents,
        head: &BranchHead,
        namespace: &Namespace,
    ) -> Result<BranchRows, ApiError> {
        let (first, last) = (head.seq + 1, head.seq + self.keys.len() as u64);
        let kept = filter_record_batch(&events.rows, &BooleanArray::from(self.is_new.clone()))
            .expect("there is one flag a row");
        let rows = numbered(kept, &self.keys, first)?;
        Ok(BranchRows {
            namespace: namespace.clone(),
            start: BranchStart::Head(head.snapshot),
            rows: vec![rows],
            seq: Some((first, last)),
            last_seq: last,
            branch: head.branch.clone(),
        })
    }
}

/// Rows of events with every column, with their bookmarks and their numbers from `first` on.
///
/// # Errors
/// 500; there is none of rows that were decoded.
pub(super) fn numbered(
    rows: RecordBatch,
    keys: &[EventKey],
    first: u64,
) -> Result<RecordBatch, ApiError> {
    let minted = bookmark::mint(rows, first, keys);
    // They take the way through the log's form, as all events do.
    let schema = rows::known_event_schema();
    let rows = codec::decode(&schema, &codec::encode(&schema, &minted), first);
    rows.map_err(|cause| ApiError::internal(&cause))
}
