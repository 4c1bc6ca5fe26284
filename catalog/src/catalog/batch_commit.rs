//! Makes commits that wait for one table into one metadata file and one swap of its pointer.
//!
//! They are applied one after the other in memory, each checked against what the ones before it
//! made. Its one invariant: a commit is answered only once the swap that all of them are part of
//! has ended, so no answer tells of a state that never was.
//!
//! One attempt goes so: load the table, apply each commit to the draft that the ones before it left
//! (one that fails leaves the draft as it was, and the others go on), write one metadata file, swap the
//! pointer. What the swap says decides who is answered:
//!
//! - done: everybody, with the same table;
//! - lost to another process: nobody; all are applied anew to the table as it is now;
//! - deposed: whoever moves a mark is refused, and the others try again without them;
//! - repeated: the commit with that key is answered or put aside, and the others try again;
//! - failed or unknown: everybody who was in it, with that error.
//!
//! So each attempt but the lost ones has fewer commits than the one before, and lost ones are counted.

use super::{
    Catalog, LoadedTable,
    commit_queue::QueuedCommit,
    commit_work::{CommitWork, ExaminedChange},
    managed_table_rules,
    write::{CHANGED_BYTES_MAX, TableWrite, check_length, deposed, encode, lost_every_race},
};
use crate::{
    commit,
    error::CatalogError,
    metadata_file::cache::EncodedParts,
    metastore::{ChangeSet, CommitPart, ObsoleteFile, SwapOutcome, Watermark},
    row_sum::RowSum,
    snapshot::{self, MarkMove, NewSnapshot, OBSOLETE_GRACE_MS, ReadManifests},
};
use bytes::Bytes;
use iceberg::{TableIdent, spec::TableMetadata};
use std::sync::Arc;
use uuid::Uuid;

/// How often commits are built anew after another process was faster. Each time one of them has
/// moved the table on, so a commit that keeps losing is one of very many.
const RETRIES: u32 = 50;

/// A table's state as commits are applied to it.
pub(super) struct TableDraft {
    base: LoadedTable,
    metadata: Arc<TableMetadata>,
    encoded: Arc<EncodedParts>,
    /// The bytes of the metadata's file, where they were made to see how many they are.
    file: Option<Bytes>,
    watermark: Option<Watermark>,
    /// The sum of the rows that the watermark moves over, where it is known.
    acked: Option<RowSum>,
    now_ms: i64,
    obsolete: Vec<ObsoleteFile>,
    parts: Vec<CommitPart>,
    /// Files of this attempt, the metadata file apart.
    written: Vec<String>,
}

/// What a commit did to its table.
pub(super) struct CommitEffect {
    /// The snapshots it adds.
    snapshots: Vec<i64>,
    pub(super) changes: ChangeSet,
}

/// How one commit of a batch ended.
enum CommitOutcome {
    /// The table is as the commit wants it, with what the others do.
    Done,
    /// The table was so before.
    Unchanged,
    Failed(CatalogError),
}

/// How an attempt ended.
enum BatchOutcome {
    /// Each commit's outcome, and the table with them.
    Settled(Vec<CommitOutcome>, LoadedTable),
    /// Another process was faster.
    Lost,
    /// Marks were to move under an epoch that is not the fence's any more.
    Deposed,
    /// The request of this key was carried out before.
    Repeated(Uuid),
    /// No commit of the attempt was made, or it is unknown.
    Failed(Vec<CommitOutcome>, CatalogError),
}

impl Catalog {
    /// Carries out commits to one table and answers each.
    pub(super) async fn commit_batch(&self, table: &TableIdent, mut batch: Vec<QueuedCommit>) {
        let mut sent_again = Vec::new();
        let mut attempts = 0;
        while attempts <= RETRIES && !batch.is_empty() {
            let known = self.known_base(&batch).filter(|_| attempts == 0);
            let known_version = known.as_ref().map(|known| known.version);
            let found = match known {
                Some(known) => Ok(Some(known)),
                None => self.find(table).await,
            };
            let base = match found {
                Ok(Some(base)) => base,
                Ok(None) => {
                    self.commit_without_table(table, batch).await;
                    batch = Vec::new();
                    break;
                }
                Err(cause) => {
                    fail(std::mem::take(&mut batch), &cause);
                    break;
                }
            };
            match self.attempt(table, base, &batch).await {
                // Nothing was swapped that would tell whether the known one is the newest.
                BatchOutcome::Settled(_, made) if known_version == Some(made.version) => {
                    attempts += 1;
                }
                BatchOutcome::Settled(outcomes, made) => {
                    self.settle(std::mem::take(&mut batch), outcomes, &made).await;
                }
                BatchOutcome::Failed(outcomes, cause) => {
                    settle_failed(std::mem::take(&mut batch), outcomes, &cause);
                }
                BatchOutcome::Lost => attempts += 1,
                BatchOutcome::Deposed => {
                    attempts += 1;
                    let moves_mark = |waiting: &mut QueuedCommit| matches!(&waiting.work, CommitWork::Snapshot(new, _) if new.mark.is_some());
                    for refused in batch.extract_if(.., moves_mark) {
                        answer(refused, Err(deposed(table)));
                    }
                }
                BatchOutcome::Repeated(id) => {
                    let is_it = |waiting: &QueuedCommit| {
                        waiting.origin.request.as_ref().is_some_and(|request| request.id == id)
                    };
                    match batch.iter().rposition(is_it) {
                        Some(index) => {
                            let again = batch.remove(index);
                            match batch.iter().any(is_it) {
                                // What becomes of its first sending decides, so it comes after it.
                                true => sent_again.push(again),
                                false => answer(again, Err(CatalogError::Repeated)),
                            }
                        }
                        None => attempts += 1,
                    }
                }
            }
        }
        for waiting in batch {
            answer(waiting, Err(lost_every_race(table)));
        }
        if !sent_again.is_empty() {
            self.inner.queues.put_back(table, sent_again);
        }
    }

    /// The table as a commit found it while it was examined, if it is not known here that it changed
    /// since. If it did all the same, the swap fails and the table is looked for.
    fn known_base(&self, batch: &[QueuedCommit]) -> Option<LoadedTable> {
        let bases = batch.iter().filter_map(|waiting| match &waiting.work {
            CommitWork::Change(examined) => examined.base.as_ref(),
            CommitWork::Snapshot(..) => None,
        });
        let is_newest = |base: &&LoadedTable| {
            let known = self.inner.cache.get(&base.metadata_location);
            known.is_some_and(|known| Arc::ptr_eq(&known, &base.metadata))
        };
        bases.rev().find(is_newest).cloned()
    }

    /// The first commit may make the table; the others wait for what becomes of it.
    async fn commit_without_table(&self, table: &TableIdent, batch: Vec<QueuedCommit>) {
        let mut batch = batch.into_iter();
        let Some(first) = batch.next() else { return };
        self.inner.queues.put_back(table, batch.collect());
        let made = match &first.work {
            CommitWork::Snapshot(..) => Err(CatalogError::NoSuchTable(table.to_string())),
            CommitWork::Change(examined) => {
                let catalog = self.with_origin(first.origin.clone());
                let made = catalog.commit_locked(std::slice::from_ref(examined)).await;
                made.map(|mut tables| tables.pop().expect("one change gives one table"))
            }
        };
        answer(first, made);
    }

    async fn settle(
        &self,
        batch: Vec<QueuedCommit>,
        outcomes: Vec<CommitOutcome>,
        made: &LoadedTable,
    ) {
        for (waiting, outcome) in batch.into_iter().zip(outcomes) {
            let result = match outcome {
                CommitOutcome::Done => Ok(made.clone()),
                CommitOutcome::Unchanged => {
                    let catalog = self.with_origin(waiting.origin.clone());
                    catalog.keep_request(Some(made)).await.map(|()| made.clone())
                }
                CommitOutcome::Failed(cause) => Err(cause),
            };
            answer(waiting, result);
        }
    }

    async fn attempt(
        &self,
        table: &TableIdent,
        base: LoadedTable,
        batch: &[QueuedCommit],
    ) -> BatchOutcome {
        let encoded = self.encoded_parts(&base);
        let mut draft = TableDraft::new(base, encoded, self.now_ms());
        let mut outcomes = Vec::with_capacity(batch.len());
        for waiting in batch {
            let applied = match &waiting.work {
                CommitWork::Change(examined) => self.apply_change(&mut draft, examined).await,
                CommitWork::Snapshot(new, read) => {
                    self.apply_snapshot(&mut draft, table, new, read).await
                }
            };
            match applied {
                Ok(Some(CommitEffect { snapshots, changes })) => {
                    draft.parts.push(CommitPart {
                        origin: waiting.origin.clone(),
                        snapshots,
                        changes,
                    });
                    outcomes.push(CommitOutcome::Done);
                }
                Ok(None) => outcomes.push(CommitOutcome::Unchanged),
                Err(cause) => outcomes.push(CommitOutcome::Failed(cause)),
            }
        }
        // No metadata file and no swap for commits that are done already or cannot be done.
        if draft.parts.is_empty() {
            return BatchOutcome::Settled(outcomes, draft.base);
        }
        let write = draft.into_write(table);
        match self.publish(std::slice::from_ref(&write)).await {
            Ok(SwapOutcome::Done) => BatchOutcome::Settled(outcomes, write.loaded()),
            Ok(SwapOutcome::Lost(_)) => BatchOutcome::Lost,
            Ok(SwapOutcome::Deposed(_)) => BatchOutcome::Deposed,
            Ok(SwapOutcome::Repeated(id)) => BatchOutcome::Repeated(id),
            Err(cause) => BatchOutcome::Failed(outcomes, cause),
        }
    }

    /// Applies a client's change; gives what it did, none when there is nothing to do.
    pub(super) async fn apply_change(
        &self,
        draft: &mut TableDraft,
        examined: &ExaminedChange,
    ) -> Result<Option<CommitEffect>, CatalogError> {
        let change = &examined.change;
        let base = Arc::clone(&draft.metadata);
        if commit::is_applied(&base, &change.requirements, &change.updates) {
            return Ok(None);
        }
        managed_table_rules::check_history(change, &base, &draft.encoded.refs)?;
        managed_table_rules::check_summaries(change, &base)?;
        managed_table_rules::check_computed(change, &base)?;
        Box::pin(self.check_removal(change, &base, &draft.encoded.refs)).await?;
        let at = |base: &LoadedTable| (base.metadata_location.clone(), base.version);
        let examined_at = examined.base.as_ref().map(at);
        if !examined.added.is_empty() && examined_at != Some(at(&draft.base)) {
            // They may have been queued for deletion since they were looked at: by a commit, or as orphans,
            // which leaves the metadata file as it is.
            let own = self.inner.storage.normalize(base.location())?;
            self.check_not_queued(&own, &examined.added).await?;
        } else if examined.added.is_empty() {
            self.look_again(&base, &change.updates)?;
        }
        // A change that fits the draft is applied as it is, one that is late on top of it if it can be.
        let rebased = match commit::check_requirements(&change.requirements, Some(&base)) {
            Ok(()) if change.updates.is_empty() => return Ok(None),
            held => Box::pin(self.rebased(&base, examined, held)).await?,
        };
        let updates = rebased.as_ref().map_or(&change.updates, |rebased| &rebased.updates);
        let made = draft.apply(updates).and_then(|metadata| {
            self.check_rows_stay_hidden(change, &base, &metadata).map(|()| metadata)
        });
        let checked = match made {
            Ok(metadata) => self.checked(draft, &change.table, metadata, updates).await,
            Err(cause) => Err(cause),
        };
        let (metadata, encoded, file) = match checked {
            Ok(checked) => checked,
            Err(cause) => {
                self.discard(&rebased.unwrap_or_default().written).await;
                return Err(cause);
            }
        };
        if metadata.location() != base.location() {
            self.inner.storage.prepare_table(metadata.location()).await?;
        }
        // From here on nothing fails: the draft takes the change over whole.
        let snapshots = commit::added(updates).map(|snapshot| snapshot.snapshot_id()).collect();
        let changes = ChangeSet::changing(&change.requirements, updates);
        draft.make(metadata, encoded, Some(file));
        if let Some(rebased) = rebased {
            let not_before_ms = draft.now_ms + OBSOLETE_GRACE_MS;
            let file = |location| ObsoleteFile { location, not_before_ms };
            draft.obsolete.extend(self.replaced_lists(&base, &rebased).into_iter().map(file));
            draft.written.extend(rebased.written);
        }
        Ok(Some(CommitEffect { snapshots, changes }))
    }

    /// What a client's change makes of the draft, with the bytes of its file, if it may.
    async fn checked(
        &self,
        draft: &TableDraft,
        table: &TableIdent,
        new: TableMetadata,
        updates: &[iceberg::TableUpdate],
    ) -> Result<(Arc<TableMetadata>, Arc<EncodedParts>, Bytes), CatalogError> {
        let base = &draft.metadata;
        check_identity(base, &new)?;
        self.check_commit(table, Some(base), &new, updates).await?;
        let encoded = Arc::new(draft.encoded.after(updates, &new));
        let new = Arc::new(new);
        let file = encode(&new, Some(&encoded)).await;
        let before = async || encode(base, Some(&draft.encoded)).await.len();
        check_length(table, file.len(), CHANGED_BYTES_MAX, before).await?;
        Ok((new, encoded, file))
    }

    /// Applies a snapshot of ours; gives what it did, none when the table has it.
    async fn apply_snapshot(
        &self,
        draft: &mut TableDraft,
        table: &TableIdent,
        new: &NewSnapshot,
        read: &ReadManifests,
    ) -> Result<Option<CommitEffect>, CatalogError> {
        if is_replay(draft.watermark, new, table)? {
            return Ok(None);
        }
        self.check_own_files(&draft.metadata, new, read).await?;
        let (storage, now_ms) = (&self.inner.storage, draft.next_ms());
        let base = Box::pin(self.evolved(&draft.metadata, table, new, now_ms)).await?;
        let mut built = snapshot::build(storage, &base, new, read, now_ms).await?;
        let evolution = new.evolution.iter().flat_map(|it| it.updates.iter().cloned());
        built.updates.splice(0..0, evolution);
        let metadata = match draft.apply(&built.updates) {
            Ok(metadata) => metadata,
            Err(cause) => {
                self.discard(&built.written).await;
                return Err(cause);
            }
        };
        let encoded = draft.encoded.after(&built.updates, &metadata);
        draft.make(Arc::new(metadata), Arc::new(encoded), None);
        draft.written.extend(built.written);
        let not_before_ms = draft.now_ms + OBSOLETE_GRACE_MS;
        let file = |location| ObsoleteFile { location, not_before_ms };
        draft.obsolete.extend(built.unused.into_iter().map(file));
        if let Some(mark) = new.mark {
            draft.watermark = Some(mark.watermark);
            let before = draft.acked.unwrap_or_default();
            draft.acked = new.rows_added.map(|added| before.merge(added)).or(draft.acked);
        }
        let changes = ChangeSet::making(&built.updates);
        Ok(Some(CommitEffect { snapshots: vec![built.snapshot_id], changes }))
    }
}

impl TableDraft {
    pub(super) fn new(base: LoadedTable, encoded: Arc<EncodedParts>, now_ms: i64) -> Self {
        Self {
            metadata: Arc::clone(&base.metadata),
            encoded,
            file: None,
            watermark: base.watermark,
            acked: None,
            base,
            now_ms,
            obsolete: Vec::new(),
            parts: Vec::new(),
            written: Vec::new(),
        }
    }

    /// The time of the next snapshot.
    fn next_ms(&self) -> i64 {
        self.now_ms.max(self.metadata.last_updated_ms().saturating_add(1))
    }

    fn apply(&self, updates: &[iceberg::TableUpdate]) -> Result<TableMetadata, CatalogError> {
        // Only the state that the draft began with is in a file that the table's log can name.
        let location = self.parts.is_empty().then_some(self.base.metadata_location.as_str());
        commit::apply_updates_at(&self.metadata, location, updates, self.next_ms())
    }

    /// Takes over what was made of the table.
    fn make(
        &mut self,
        metadata: Arc<TableMetadata>,
        encoded: Arc<EncodedParts>,
        file: Option<Bytes>,
    ) {
        (self.metadata, self.encoded, self.file) = (metadata, encoded, file);
    }

    /// What to store.
    pub(super) fn into_write(self, table: &TableIdent) -> TableWrite {
        let moved = self.watermark.filter(|_| self.watermark != self.base.watermark);
        let metadata = Arc::unwrap_or_clone(self.metadata);
        let mut write = TableWrite::new(table.clone(), Some(self.base), metadata, self.now_ms);
        write.encoded = Some(self.encoded);
        write.bytes = self.file;
        write.watermark = moved;
        write.acked = self.acked;
        write.obsolete.extend(self.obsolete);
        write.parts = self.parts;
        write.deferred = self.written;
        write
    }
}

/// Refuses what no commit may change.
fn check_identity(base: &TableMetadata, new: &TableMetadata) -> Result<(), CatalogError> {
    if new.uuid() == base.uuid() {
        return Ok(());
    }
    Err(CatalogError::Invalid("Cannot reassign uuid of a table".to_owned()))
}

/// Whether the table already has the mark of a snapshot.
pub(super) fn is_replay(
    held: Option<Watermark>,
    new: &NewSnapshot,
    table: &TableIdent,
) -> Result<bool, CatalogError> {
    let (Some(held), Some(MarkMove { watermark, since })) = (held, new.mark) else {
        return Ok(false);
    };
    if watermark.epoch < held.epoch {
        return Err(deposed(table));
    }
    // Positions of two holders have nothing to do with each other.
    Ok(since <= held.epoch && watermark.position <= held.position)
}

fn settle_failed(batch: Vec<QueuedCommit>, outcomes: Vec<CommitOutcome>, cause: &CatalogError) {
    for (waiting, outcome) in batch.into_iter().zip(outcomes) {
        let result = match outcome {
            CommitOutcome::Done | CommitOutcome::Unchanged => Err(cause.copy()),
            CommitOutcome::Failed(own) => Err(own),
        };
        answer(waiting, result);
    }
}

fn fail(batch: Vec<QueuedCommit>, cause: &CatalogError) {
    for waiting in batch {
        answer(waiting, Err(cause.copy()));
    }
}

fn answer(waiting: QueuedCommit, result: Result<LoadedTable, CatalogError>) {
    // A client that is gone learns from the table, or by sending the same again.
    let _gone = waiting.answer.send(result);
}
