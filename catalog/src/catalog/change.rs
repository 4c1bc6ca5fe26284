//! Commits: of clients' updates to one or several tables, and of our own appends.

use super::{Catalog, LoadedTable, TableChange, jail, write::Write};
use crate::{
    append::{self, Append},
    commit,
    error::CatalogError,
    metastore::{SwapOutcome, Watermark},
};
use iceberg::{TableIdent, TableRequirement};
use std::collections::HashSet;

/// How often a client's commit is built anew after a lost race.
const COMMIT_RETRIES: u32 = 4;
/// How often an append is built anew; more, because what it brings never conflicts.
const APPEND_RETRIES: u32 = 10;

/// What one change comes to.
enum Plan {
    /// The table already is as the change wants it.
    Unchanged(LoadedTable),
    /// What to write.
    Write(Box<Write>),
}

impl Catalog {
    /// Applies a change to one table (or, with `assert-create`, makes it). A change whose snapshot
    /// is already in the table is a success that changes nothing.
    ///
    /// A lost race is retried on the new metadata as long as the requirements still hold.
    ///
    /// # Errors
    /// `NoSuchTable`, `CommitFailed`, `CommitStateUnknown`, `Invalid`, `LocationForbidden`, `Storage`.
    pub async fn commit(&self, change: TableChange) -> Result<LoadedTable, CatalogError> {
        let mut tables = self.commit_together(vec![change]).await?;
        Ok(tables.pop().expect("one change gives one table"))
    }

    /// Applies changes to several tables, all or none.
    ///
    /// # Errors
    /// As [`Catalog::commit`].
    pub async fn commit_all(&self, changes: Vec<TableChange>) -> Result<(), CatalogError> {
        self.commit_together(changes).await.map(|_| ())
    }

    /// Appends data files as one snapshot and moves the watermark in the same transaction; rebases
    /// on whatever others committed meanwhile.
    ///
    /// An append whose watermark position the table already has (a replay) changes nothing and
    /// gives the table as it stands.
    ///
    /// # Errors
    /// `NoSuchTable`, `CommitFailed` (a higher epoch owns the log, or races without end),
    /// `CommitStateUnknown`, `Storage`.
    pub async fn append(
        &self,
        table: &TableIdent,
        append: Append,
    ) -> Result<LoadedTable, CatalogError> {
        let _queue = self.inner.locks.lock(std::iter::once(table)).await;
        for _ in 0..=APPEND_RETRIES {
            let base = self.load_table(table).await?;
            if is_replay(base.watermark, append.watermark, table)? {
                return Ok(base);
            }
            let now_ms = self.now_ms().max(base.metadata.last_updated_ms() + 1);
            let built = append::build(&self.inner.storage, &base.metadata, &append, now_ms).await?;
            let applied = commit::apply_updates_at(
                &base.metadata,
                &base.metadata_location,
                &built.updates,
                now_ms,
            );
            let metadata = match applied {
                Ok(metadata) => metadata,
                Err(cause) => {
                    self.discard(&built.written).await;
                    return Err(cause);
                }
            };
            let mut write = Write::new(table.clone(), Some(base), metadata, now_ms);
            write.watermark = Some(append.watermark);
            write.obsolete.extend(built.obsolete);
            for row in &mut write.snapshots {
                row.seq = Some(append.seq);
            }
            let lost = match self.publish(std::slice::from_ref(&write)).await {
                Ok(SwapOutcome::Done) => return Ok(write.loaded()),
                Ok(SwapOutcome::Lost(_)) => None,
                Ok(SwapOutcome::Deposed(_)) => Some(deposed(table)),
                // The metadata file was not stored, so no pointer was touched.
                Err(cause @ CatalogError::Storage { .. }) => Some(cause),
                // Anything may point to what was written.
                Err(cause) => return Err(cause),
            };
            self.discard(&built.written).await;
            if let Some(cause) = lost {
                return Err(cause);
            }
        }
        Err(lost_every_race(table))
    }

    async fn commit_together(
        &self,
        mut changes: Vec<TableChange>,
    ) -> Result<Vec<LoadedTable>, CatalogError> {
        for update in changes.iter_mut().flat_map(|change| &mut change.updates) {
            jail::normalize(&self.inner.storage, update)?;
        }
        let mut seen = HashSet::new();
        if let Some(twice) = changes.iter().find(|change| !seen.insert(&change.table)) {
            return Err(CatalogError::Invalid(format!(
                "Invalid transaction: table {} is in it twice",
                twice.table
            )));
        }
        let _queue = self.inner.locks.lock(changes.iter().map(|change| &change.table)).await;
        for _ in 0..=COMMIT_RETRIES {
            // Every change is checked before anything is written.
            let mut tables = Vec::with_capacity(changes.len());
            let mut writes = Vec::new();
            for change in &changes {
                match self.plan(change).await? {
                    Plan::Unchanged(table) => tables.push(table),
                    Plan::Write(write) => {
                        tables.push(write.loaded());
                        writes.push(*write);
                    }
                }
            }
            if writes.is_empty() {
                return Ok(tables);
            }
            match self.publish(&writes).await.map_err(lost_create)? {
                SwapOutcome::Done => return Ok(tables),
                SwapOutcome::Lost(_) => (),
                SwapOutcome::Deposed(_) => return Err(deposed(&changes[0].table)),
            }
        }
        Err(lost_every_race(&changes[0].table))
    }

    /// Checks a change against the table as it is now.
    async fn plan(&self, change: &TableChange) -> Result<Plan, CatalogError> {
        let TableChange { table, requirements, updates } = change;
        let now_ms = self.now_ms();
        let Some(base) = self.find(table).await? else {
            if !requirements.contains(&TableRequirement::NotExist) {
                return Err(CatalogError::NoSuchTable(table.to_string()));
            }
            let metadata = self.built_from_updates(table, updates).await?;
            return Ok(Plan::Write(Box::new(Write::new(table.clone(), None, metadata, now_ms))));
        };
        if commit::is_applied(&base.metadata, requirements, updates) {
            return Ok(Plan::Unchanged(base));
        }
        commit::check_requirements(requirements, Some(&base.metadata))?;
        if updates.is_empty() {
            return Ok(Plan::Unchanged(base));
        }
        let metadata =
            commit::apply_updates_at(&base.metadata, &base.metadata_location, updates, now_ms)?;
        if metadata.uuid() != base.metadata.uuid() {
            return Err(CatalogError::Invalid("Cannot reassign uuid of a table".to_owned()));
        }
        self.check_commit(table, Some(&base.metadata), &metadata, updates).await?;
        if metadata.location() != base.metadata.location() {
            self.inner.storage.prepare_table(metadata.location()).await?;
        }
        Ok(Plan::Write(Box::new(Write::new(table.clone(), Some(base), metadata, now_ms))))
    }
}

/// Whether the table already has these log positions.
fn is_replay(
    held: Option<Watermark>,
    offered: Watermark,
    table: &TableIdent,
) -> Result<bool, CatalogError> {
    match held {
        // A deposed writer's positions may be another writer's by now, so they prove nothing.
        Some(held) if offered.epoch < held.epoch => Err(deposed(table)),
        Some(held) => Ok(offered.position <= held.position),
        None => Ok(false),
    }
}

fn deposed(table: &TableIdent) -> CatalogError {
    CatalogError::CommitFailed(format!("Commit failed: another writer owns the log of {table}"))
}

fn lost_every_race(table: &TableIdent) -> CatalogError {
    CatalogError::CommitFailed(format!("Commit failed: {table} was changed concurrently"))
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
