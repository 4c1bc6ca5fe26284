//! Commits: of clients' updates to one or several tables, and snapshots of our own.

use super::{
    Catalog, LoadedTable, TableChange,
    batch_commit::{TableDraft, is_replay},
    commit_work::{ChangeContents, CommitWork, ExaminedChange},
    location_rules,
    write::{TableWrite, is_made, lost_every_race},
};
use crate::{
    commit,
    error::CatalogError,
    metastore::ChangeSet,
    snapshot::{self, NewSnapshot, ReadManifests, changes::SnapshotChanges, rebase},
};
use iceberg::{
    TableIdent, TableRequirement, TableUpdate,
    spec::{Operation, Snapshot, TableMetadata},
};
use std::collections::HashSet;

/// How often a commit that does not wait in a queue is built anew after a lost race: one of several
/// tables, one of a view, a registration over another table.
pub(super) const COMMIT_RETRIES: u32 = 10;
/// How often what a snapshot takes files out of is looked at before its turn.
const EXAMINATIONS_MAX: usize = 3;

impl Catalog {
    /// Applies a change to one table (or, with `assert-create`, makes it). A change whose snapshot
    /// is already in the table is a success that changes nothing.
    ///
    /// Changes to one table that wait at the same time become one metadata file. A lost race is
    /// retried on the new metadata as long as the requirements still hold; an append is built anew
    /// on whatever others added.
    ///
    /// # Errors
    /// `NoSuchTable`, `CommitFailed`, `CommitStateUnknown`, `Invalid`, `LocationForbidden`, `Busy`,
    /// `Storage`.
    pub async fn commit(&self, mut change: TableChange) -> Result<LoadedTable, CatalogError> {
        self.normalize(&mut change)?;
        let table = change.table.clone();
        let examined = self.examine(change).await?;
        self.enqueue(table, CommitWork::Change(examined)).await
    }

    /// Applies changes to several tables, all or none.
    ///
    /// # Errors
    /// As [`Catalog::commit`].
    pub async fn commit_all(&self, mut changes: Vec<TableChange>) -> Result<(), CatalogError> {
        changes.iter_mut().try_for_each(|change| self.normalize(change))?;
        let mut seen = HashSet::new();
        if let Some(twice) = changes.iter().find(|change| !seen.insert(&change.table)) {
            return Err(CatalogError::Invalid(format!(
                "Invalid transaction: it contains table {} twice",
                twice.table
            )));
        }
        let mut examined = Vec::with_capacity(changes.len());
        for change in changes {
            examined.push(self.examine(change).await?);
        }
        let changes = examined;
        let catalog = self.clone();
        self.to_the_end(async move {
            let tables = changes.iter().map(|examined| &examined.change.table);
            let _tables = catalog.inner.locks.lock(tables).await;
            catalog.commit_locked(&changes).await.map(|_| ())
        })
        .await
    }

    /// Adds a snapshot of ours: an append, or one that replaces or deletes files. Its mark moves in the
    /// same transaction. It is built on whatever others committed meanwhile; what has to be read and
    /// written anew of the table for it is so before its turn, so that nobody waits for that.
    ///
    /// One whose mark the table already has (a replay) changes nothing and gives the table as it stands.
    ///
    /// # Errors
    /// `NoSuchTable`, `CommitFailed` (a higher epoch holds the fence; a file is not live any more, or got
    /// deletes since it was read; races without end), `CommitStateUnknown`, `Invalid`, `Busy`, `Storage`.
    pub async fn add_snapshot(
        &self,
        table: &TableIdent,
        new: NewSnapshot,
    ) -> Result<LoadedTable, CatalogError> {
        let mut read = ReadManifests::default();
        let examined = self.examine_removal(table, &new, &mut read).await;
        let written = read.written.clone();
        let made = match examined {
            Ok(()) => self.enqueue(table.clone(), CommitWork::Snapshot(Box::new(new), read)).await,
            Err(cause) => Err(cause),
        };
        if made.as_ref().is_err_and(CatalogError::is_definite) {
            self.discard(&written).await;
        }
        made
    }

    /// Reads and writes anew what a snapshot takes files out of, until nothing came meanwhile: each time
    /// there is less to do, and little is left for its turn.
    async fn examine_removal(
        &self,
        table: &TableIdent,
        new: &NewSnapshot,
        read: &mut ReadManifests,
    ) -> Result<(), CatalogError> {
        if new.operation == Operation::Append {
            return Ok(());
        }
        for _ in 0..EXAMINATIONS_MAX {
            let base = self.tables().load(table).await?;
            let is_done = is_replay(base.watermark, new, table)?
                || !snapshot::examine(&self.inner.storage, &base.metadata, new, read).await?;
            if is_done {
                break;
            }
        }
        Ok(())
    }

    /// Reads and checks the files that a change names, while nobody waits for its table: they never
    /// change, and a snapshot is checked against its parent whatever the table has become since. What
    /// was found whole is not read again in the change's turn.
    ///
    /// # Errors
    /// As [`Catalog::commit`].
    async fn examine(&self, change: TableChange) -> Result<ExaminedChange, CatalogError> {
        let updates = &change.updates;
        let lists = commit::added(updates).map(|snapshot| snapshot.manifest_list());
        lists.for_each(|list| self.inner.lists.forget(list));
        let moves = updates.iter().any(|it| matches!(it, TableUpdate::SetLocation { .. }));
        let base = match moves || commit::added(updates).next().is_none() {
            true => None,
            false => self.find(&change.table).await?,
        };
        let (contents, added) = match &base {
            Some(base) => self.contents(&base.metadata, &change).await?,
            None => (ChangeContents::Unread, Vec::new()),
        };
        Ok(ExaminedChange { change, contents, added, base })
    }

    /// What a change does, and the paths that it adds.
    async fn contents(
        &self,
        base: &TableMetadata,
        TableChange { requirements, updates, .. }: &TableChange,
    ) -> Result<(ChangeContents, Vec<String>), CatalogError> {
        let held = commit::check_requirements(requirements, Some(base));
        // What is done already, or refused as it is, is told from the table alone.
        let is_settled = commit::is_applied(base, requirements, updates)
            || (held.is_err() && rebase::late(base, requirements, updates).is_none());
        if is_settled {
            return Ok((ChangeContents::Unread, Vec::new()));
        }
        let mut changes = self.check_contents(Some(base), base, updates).await?;
        let mut added = Vec::new();
        let is_one = matches!(updates.as_slice(), [TableUpdate::AddSnapshot { .. }, _]);
        let may_be_moved = is_one || changes.is_some();
        if changes.is_none() {
            // They were looked at for an attempt before this one, or are not looked at in this catalog.
            for snapshot in commit::added(updates) {
                changes = match self.inner.options.checks_contents {
                    // What does not read any more may have been deleted since.
                    true => self.read_changes(base, snapshot).await?,
                    false => self.changes_on(base, snapshot).await,
                };
                added.extend(changes.iter_mut().flat_map(|it| it.added_paths.drain(..)));
            }
            self.check_not_queued(&self.inner.storage.normalize(base.location())?, &added).await?;
        } else if let Some(changes) = &mut changes {
            added = std::mem::take(&mut changes.added_paths);
        }
        let contents = ChangeContents::of(changes.filter(|_| may_be_moved));
        Ok((contents, added))
    }

    /// What a snapshot that may be put on top of others does; none where that cannot be read.
    pub(super) async fn changes_on(
        &self,
        base: &TableMetadata,
        snapshot: &Snapshot,
    ) -> Option<SnapshotChanges> {
        self.read_changes(base, snapshot).await.ok().flatten()
    }

    /// The same; none for one whose parent the table does not have.
    async fn read_changes(
        &self,
        base: &TableMetadata,
        snapshot: &Snapshot,
    ) -> Result<Option<SnapshotChanges>, CatalogError> {
        let own = self.inner.storage.normalize(base.location())?;
        let parent = match snapshot.parent_snapshot_id() {
            Some(parent) => match base.snapshot_by_id(parent) {
                Some(parent) => Some(parent.as_ref()),
                None => return Ok(None),
            },
            None => None,
        };
        self.changes(&own, snapshot, parent).await.map(Some)
    }

    fn normalize(&self, change: &mut TableChange) -> Result<(), CatalogError> {
        let mut updates = change.updates.iter_mut();
        updates.try_for_each(|update| location_rules::normalize(&self.inner.storage, update))
    }

    /// Applies changes to tables that are locked, all or none.
    pub(super) async fn commit_locked(
        &self,
        changes: &[ExaminedChange],
    ) -> Result<Vec<LoadedTable>, CatalogError> {
        for _ in 0..=COMMIT_RETRIES {
            // Every change is checked before anything is offered to the metastore.
            let mut writes = Vec::new();
            let made = self.write_all(changes, &mut writes).await;
            if made.is_err() {
                for write in &writes {
                    self.discard(&write.deferred).await;
                }
            }
            let tables = made?;
            if writes.is_empty() {
                self.keep_request(tables.first()).await?;
                return Ok(tables);
            }
            let outcome = self.publish(&writes).await.map_err(lost_create)?;
            if is_made(&outcome, &writes[0].table)? {
                return Ok(tables);
            }
        }
        Err(lost_every_race(&changes[0].change.table))
    }

    /// The tables as the changes make them; `writes` has what is to be written for that, as far as it
    /// got even when it fails.
    async fn write_all(
        &self,
        changes: &[ExaminedChange],
        writes: &mut Vec<TableWrite>,
    ) -> Result<Vec<LoadedTable>, CatalogError> {
        let mut tables = Vec::with_capacity(changes.len());
        for examined in changes {
            let write = match self.find(&examined.change.table).await? {
                Some(base) => match self.write(base, examined).await? {
                    Ok(write) => write,
                    Err(unchanged) => {
                        tables.push(unchanged);
                        continue;
                    }
                },
                None => self.write_new(&examined.change).await?,
            };
            tables.push(write.loaded());
            writes.push(write);
        }
        Ok(tables)
    }

    /// What to write for a change; the table itself if it is as the change wants it.
    async fn write(
        &self,
        base: LoadedTable,
        examined: &ExaminedChange,
    ) -> Result<Result<TableWrite, LoadedTable>, CatalogError> {
        let mut draft = TableDraft::new(base.clone(), self.encoded_parts(&base), self.now_ms());
        let Some(made) = self.apply_change(&mut draft, examined).await? else {
            return Ok(Err(base));
        };
        let mut write = draft.into_write(&examined.change.table);
        write.changes = made.changes;
        Ok(Ok(write))
    }

    /// What to write for a table that a change makes.
    async fn write_new(&self, change: &TableChange) -> Result<TableWrite, CatalogError> {
        let TableChange { table, requirements, updates, .. } = change;
        if !requirements.contains(&TableRequirement::NotExist) {
            return Err(CatalogError::NoSuchTable(table.to_string()));
        }
        let metadata = self.built_from_updates(table, updates).await?;
        let mut write = TableWrite::new(table.clone(), None, metadata, self.now_ms());
        write.changes = ChangeSet::making(updates);
        Ok(write)
    }
}

/// A name that was taken since the change was planned is a requirement that no longer holds.
fn lost_create(cause: CatalogError) -> CatalogError {
    match cause {
        CatalogError::AlreadyExists(_) => {
            CatalogError::CommitFailed("Requirement failed: table already exists".to_owned())
        }
        other => other,
    }
}
