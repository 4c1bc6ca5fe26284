//! Folds commits that wait for one table into one metadata file and one swap of its pointer.
//!
//! They are applied one after the other in memory, each checked against what the ones before it
//! made. Its one invariant: a commit is answered only once the swap that all of them are part of
//! has ended, so no answer tells of a state that never was.

use super::{
    Catalog, LoadedTable, TableChange,
    change::Contents,
    group::{Waiting, Work},
    jail, own,
    write::{GRACE_MS, Write},
};
use crate::{
    append::{self, Append, BuiltAppend, Rewrite, rebase},
    commit,
    error::CatalogError,
    metadata_file::cache::EncodedParts,
    metastore::{Changes, Obsolete, Part, SwapOutcome, Watermark},
};
use iceberg::{TableIdent, spec::TableMetadata};
use std::{collections::HashMap, sync::Arc};
use uuid::Uuid;

/// How often commits are built anew after another process was faster. Each time one of them has
/// moved the table on, so a commit that keeps losing is one of very many.
const RETRIES: u32 = 50;

/// A table's state as commits are applied to it.
struct Fold {
    base: LoadedTable,
    metadata: Arc<TableMetadata>,
    encoded: Arc<EncodedParts>,
    watermark: Option<Watermark>,
    now_ms: i64,
    /// First and last `seq` of the snapshots that come from our own log.
    seqs: HashMap<i64, (u64, u64)>,
    obsolete: Vec<Obsolete>,
    parts: Vec<Part>,
    /// Files of this attempt, the metadata file apart.
    written: Vec<String>,
}

/// What a commit did to its table.
struct Made {
    /// The snapshots it adds.
    snapshots: Vec<i64>,
    changes: Changes,
}

/// How one commit fared in a fold.
enum Fate {
    /// The table is as the commit wants it, with what the others do.
    Made,
    /// The table was so before.
    Unchanged,
    Failed(CatalogError),
}

/// How an attempt ended.
enum Attempt {
    /// Each commit's fate, and the table with them.
    Settled(Vec<Fate>, LoadedTable),
    /// Another process was faster.
    Lost,
    /// The appends are of a log that does not own the table's events.
    Deposed,
    /// The request of this key was carried out before.
    Repeated(Uuid),
    /// No commit of the attempt was made, or it is unknown.
    Failed(Vec<Fate>, CatalogError),
}

impl Catalog {
    /// Carries out commits to one table and answers each.
    pub(super) async fn fold(&self, table: &TableIdent, mut batch: Vec<Waiting>) {
        let mut sent_again = Vec::new();
        let mut attempts = 0;
        while attempts <= RETRIES && !batch.is_empty() {
            let base = match self.find(table).await {
                Ok(Some(base)) => base,
                Ok(None) => {
                    self.one_without_table(table, batch).await;
                    batch = Vec::new();
                    break;
                }
                Err(cause) => {
                    fail(std::mem::take(&mut batch), &cause);
                    break;
                }
            };
            match self.attempt(table, base, &batch).await {
                Attempt::Settled(fates, made) => {
                    self.settle(std::mem::take(&mut batch), fates, &made).await;
                }
                Attempt::Failed(fates, cause) => {
                    settle_failed(std::mem::take(&mut batch), fates, &cause);
                }
                Attempt::Lost => attempts += 1,
                Attempt::Deposed => {
                    attempts += 1;
                    let is_append = |waiting: &mut Waiting| matches!(waiting.work, Work::Append(_));
                    for append in batch.extract_if(.., is_append) {
                        answer(append, Err(super::change::deposed(table)));
                    }
                }
                Attempt::Repeated(id) => {
                    let is_it = |waiting: &Waiting| {
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
            answer(waiting, Err(super::change::lost_every_race(table)));
        }
        if !sent_again.is_empty() {
            self.inner.queues.put_back(table, sent_again);
        }
    }

    /// The first commit may make the table; the others wait for what becomes of it.
    async fn one_without_table(&self, table: &TableIdent, batch: Vec<Waiting>) {
        let mut batch = batch.into_iter();
        let Some(first) = batch.next() else { return };
        self.inner.queues.put_back(table, batch.collect());
        let made = match &first.work {
            Work::Append(_) | Work::Rewrite(_) => Err(CatalogError::NoSuchTable(table.to_string())),
            Work::Change(change, contents) => {
                let catalog = self.with_origin(first.origin.clone());
                let made = catalog.commit_locked(&[(change.clone(), contents.clone())]).await;
                made.map(|mut tables| tables.pop().expect("one change gives one table"))
            }
        };
        answer(first, made);
    }

    async fn settle(&self, batch: Vec<Waiting>, fates: Vec<Fate>, made: &LoadedTable) {
        for (waiting, fate) in batch.into_iter().zip(fates) {
            let result = match fate {
                Fate::Made => Ok(made.clone()),
                Fate::Unchanged => {
                    let catalog = self.with_origin(waiting.origin.clone());
                    catalog.keep_request(Some(made)).await.map(|()| made.clone())
                }
                Fate::Failed(cause) => Err(cause),
            };
            answer(waiting, result);
        }
    }

    async fn attempt(&self, table: &TableIdent, base: LoadedTable, batch: &[Waiting]) -> Attempt {
        let encoded = self.encoded_parts(&base);
        let mut fold = Fold::new(base, encoded, self.now_ms());
        let mut fates = Vec::with_capacity(batch.len());
        for waiting in batch {
            let applied = match &waiting.work {
                Work::Change(change, contents) => {
                    self.apply_change(&mut fold, (change, contents)).await
                }
                Work::Append(append) => self.apply_append(&mut fold, table, append).await,
                Work::Rewrite(rewrite) => self.apply_rewrite(&mut fold, rewrite).await,
            };
            match applied {
                Ok(Some(Made { snapshots, changes })) => {
                    fold.parts.push(Part { origin: waiting.origin.clone(), snapshots, changes });
                    fates.push(Fate::Made);
                }
                Ok(None) => fates.push(Fate::Unchanged),
                Err(cause) => fates.push(Fate::Failed(cause)),
            }
        }
        if fold.parts.is_empty() {
            return Attempt::Settled(fates, fold.base);
        }
        let (mut write, written) = fold.into_write(table);
        write.deferred.clone_from(&written);
        let lost = match self.publish(std::slice::from_ref(&write)).await {
            Ok(SwapOutcome::Done) => return Attempt::Settled(fates, write.loaded()),
            Ok(SwapOutcome::Lost(_)) => Attempt::Lost,
            Ok(SwapOutcome::Deposed(_)) => Attempt::Deposed,
            Ok(SwapOutcome::Repeated(id)) => Attempt::Repeated(id),
            Err(cause) if cause.is_definite() => Attempt::Failed(fates, cause),
            // Anything may point to what was written.
            Err(cause) => return Attempt::Failed(fates, cause),
        };
        self.discard(&written).await;
        lost
    }

    /// Applies a client's change; gives what it did, none when there is nothing to do.
    async fn apply_change(
        &self,
        fold: &mut Fold,
        (change, contents): (&TableChange, &Contents),
    ) -> Result<Option<Made>, CatalogError> {
        let base = Arc::clone(&fold.metadata);
        if commit::is_applied(&base, &change.requirements, &change.updates) {
            return Ok(None);
        }
        own::check_history(change, &base, &fold.encoded.refs)?;
        let rebased = match commit::check_requirements(&change.requirements, Some(&base)) {
            Ok(()) if change.updates.is_empty() => return Ok(None),
            held => self.rebased(&base, (change, contents), held).await?,
        };
        let updates = rebased.as_ref().map_or(&change.updates, |rebased| &rebased.updates);
        let checked = match fold.apply(updates) {
            Ok(metadata) => self.checked(&change.table, &base, metadata, updates).await,
            Err(cause) => Err(cause),
        };
        let metadata = match checked {
            Ok(metadata) => metadata,
            Err(cause) => {
                let written = rebased.into_iter().map(|rebased| rebased.written);
                self.discard(&written.collect::<Vec<_>>()).await;
                return Err(cause);
            }
        };
        if metadata.location() != base.location() {
            self.inner.storage.prepare_table(metadata.location()).await?;
        }
        let snapshots = commit::added(updates).map(|snapshot| snapshot.snapshot_id()).collect();
        let changes = Changes::changing(&change.requirements, updates);
        fold.make(metadata, updates);
        if let Some(rebased) = rebased {
            fold.written.push(rebased.written);
            let not_before_ms = fold.now_ms + GRACE_MS;
            fold.obsolete.push(Obsolete { location: rebased.replaced, not_before_ms });
        }
        Ok(Some(Made { snapshots, changes }))
    }

    async fn checked(
        &self,
        table: &TableIdent,
        base: &TableMetadata,
        new: TableMetadata,
        updates: &[iceberg::TableUpdate],
    ) -> Result<TableMetadata, CatalogError> {
        check_identity(base, &new)?;
        self.check_commit(table, Some(base), &new, updates).await?;
        Ok(new)
    }

    /// The change on the table's newest state if it is one of files that came too late for the one
    /// it was built on; none when it needs no rebase.
    pub(super) async fn rebased(
        &self,
        base: &TableMetadata,
        (change, contents): (&TableChange, &Contents),
        held: Result<(), CatalogError>,
    ) -> Result<Option<rebase::Rebased>, CatalogError> {
        let Some(late) = rebase::late(base, &change.requirements, &change.updates) else {
            return held.map(|()| None);
        };
        jail::check(&self.inner.storage, base, &change.updates)?;
        self.check_contents(Some(base), base, &change.updates).await?;
        let read = match contents {
            Contents::Unread => &self.contents_of(base, late.snapshot()).await,
            read => read,
        };
        let Contents::OnlyAdds(adds) = read else { return held.map(|()| None) };
        let storage = &self.inner.storage;
        match rebase::rebase(storage, base, (&late, adds), self.now_ms()).await? {
            Some(rebased) => {
                for snapshot in commit::added(&rebased.updates) {
                    let head = snapshot.parent_snapshot_id().and_then(|id| base.snapshot_by_id(id));
                    self.trust(base, snapshot, head.map(AsRef::as_ref))?;
                }
                Ok(Some(rebased))
            }
            None => held.map(|()| None),
        }
    }

    /// Applies an append of our own log; gives what it did, none when the table has it.
    async fn apply_append(
        &self,
        fold: &mut Fold,
        table: &TableIdent,
        append: &Append,
    ) -> Result<Option<Made>, CatalogError> {
        if is_replay(fold.watermark, append, table)? {
            return Ok(None);
        }
        let (storage, now_ms) = (&self.inner.storage, fold.next_ms());
        let built = append::build(storage, &fold.metadata, append, now_ms).await?;
        let id = built.snapshot_id;
        let made = self.apply_built(fold, built).await?;
        fold.watermark = Some(append.watermark);
        fold.seqs.insert(id, append.seq);
        Ok(Some(made))
    }

    /// Applies a rewrite of ours.
    async fn apply_rewrite(
        &self,
        fold: &mut Fold,
        rewrite: &Rewrite,
    ) -> Result<Option<Made>, CatalogError> {
        let (storage, now_ms) = (&self.inner.storage, fold.next_ms());
        let built = append::build_rewrite(storage, &fold.metadata, rewrite, now_ms).await?;
        self.apply_built(fold, built).await.map(Some)
    }

    /// Applies a snapshot of ours.
    async fn apply_built(&self, fold: &mut Fold, built: BuiltAppend) -> Result<Made, CatalogError> {
        let metadata = match fold.apply(&built.updates) {
            Ok(metadata) => metadata,
            Err(cause) => {
                self.discard(&built.written).await;
                return Err(cause);
            }
        };
        fold.make(metadata, &built.updates);
        fold.obsolete.extend(built.obsolete);
        fold.written.extend(built.written);
        let changes = Changes::making(&built.updates);
        Ok(Made { snapshots: vec![built.snapshot_id], changes })
    }
}

impl Fold {
    fn new(base: LoadedTable, encoded: Arc<EncodedParts>, now_ms: i64) -> Self {
        Self {
            metadata: Arc::clone(&base.metadata),
            encoded,
            watermark: base.watermark,
            base,
            now_ms,
            seqs: HashMap::new(),
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
        // Only the state that the fold began with is in a file that the table's log can name.
        let location = self.parts.is_empty().then_some(self.base.metadata_location.as_str());
        commit::apply_updates_at(&self.metadata, location, updates, self.next_ms())
    }

    /// Takes over what `updates` made of the table.
    fn make(&mut self, metadata: TableMetadata, updates: &[iceberg::TableUpdate]) {
        self.encoded = Arc::new(self.encoded.after(updates, &metadata));
        self.metadata = Arc::new(metadata);
    }

    /// What to store, and the files that are part of it.
    fn into_write(self, table: &TableIdent) -> (Write, Vec<String>) {
        let moved = self.watermark.filter(|_| self.watermark != self.base.watermark);
        let metadata = Arc::unwrap_or_clone(self.metadata);
        let mut write = Write::new(table.clone(), Some(self.base), metadata, self.now_ms);
        write.encoded = Some(self.encoded);
        write.watermark = moved;
        write.obsolete.extend(self.obsolete);
        write.parts = self.parts;
        for row in &mut write.snapshots {
            row.seq = self.seqs.get(&row.snapshot_id).copied().or(row.seq);
        }
        (write, self.written)
    }
}

/// Refuses what no commit may change.
pub(super) fn check_identity(
    base: &TableMetadata,
    new: &TableMetadata,
) -> Result<(), CatalogError> {
    if new.uuid() == base.uuid() {
        return Ok(());
    }
    Err(CatalogError::Invalid("Cannot reassign uuid of a table".to_owned()))
}

/// Whether the table already has these log positions.
fn is_replay(
    held: Option<Watermark>,
    append: &Append,
    table: &TableIdent,
) -> Result<bool, CatalogError> {
    let offered = append.watermark;
    match held {
        Some(held) if offered.epoch < held.epoch => Err(super::change::deposed(table)),
        // Positions of two logs have nothing to do with each other.
        Some(held) if held.epoch < append.log_since => Ok(false),
        Some(held) => Ok(offered.position <= held.position),
        None => Ok(false),
    }
}

fn settle_failed(batch: Vec<Waiting>, fates: Vec<Fate>, cause: &CatalogError) {
    for (waiting, fate) in batch.into_iter().zip(fates) {
        let result = match fate {
            Fate::Made | Fate::Unchanged => Err(cause.copy()),
            Fate::Failed(own) => Err(own),
        };
        answer(waiting, result);
    }
}

fn fail(batch: Vec<Waiting>, cause: &CatalogError) {
    for waiting in batch {
        answer(waiting, Err(cause.copy()));
    }
}

fn answer(waiting: Waiting, result: Result<LoadedTable, CatalogError>) {
    // A client that is gone learns from the table, or by sending the same again.
    let _gone = waiting.answer.send(result);
}
