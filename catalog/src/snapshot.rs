//! Builds the next snapshot of a table from files that come and files that go: manifests, manifest
//! list, summary.
//!
//! Manifests are merged as part of the commit, so that its cost does not grow with the number of
//! commits before it; old snapshots are left to thinning, commits of its own. It leaves the swap of the
//! table's pointer, and removing the files of an attempt that lost, to [`crate::catalog`].
//!
//! Its one invariant: the new snapshot lists every live file of its parent that it does not remove and
//! every added file, each exactly once.

mod branch;
pub(crate) mod changes;
pub(crate) mod entries;
mod manifests;
pub(crate) mod obsolete;
pub(crate) mod rebase;
mod removal;
mod summary;
pub(crate) mod thin;

pub(crate) use manifests::read_list;
pub use removal::{ReadManifests, examine};

#[cfg(test)]
mod tests;

use crate::{
    error::CatalogError,
    metastore::Watermark,
    retention::{self, BRANCH},
    row_sum::{self, RowChange, RowSum},
    storage::Storage,
};
use iceberg::{
    TableRequirement, TableUpdate,
    spec::{DataContentType, DataFile, FormatVersion, Operation, Snapshot, Summary, TableMetadata},
};
use rand::Rng;
use std::collections::BTreeMap;
use uuid::Uuid;

/// How long a file that nothing refers to any more is left for readers that still hold a snapshot
/// from before.
pub const OBSOLETE_GRACE_MS: i64 = 10 * 60 * 1000;

/// How long the manifest lists and manifests of thinned snapshots are left: as long as an engine may plan
/// with a snapshot that it loaded before. Each commit leaves about two of them.
pub const PLANNER_GRACE_MS: i64 = 60 * 60 * 1000;

/// How long their data and delete files are left after the last of the snapshots was current: as long as an
/// engine may read what it planned then. On a busy table a snapshot is thinned minutes after it was made, and
/// an export or a join of another engine reads the data files of one for hours. What expires was current a
/// day ago or more, and its files go as the lists do.
pub const READER_GRACE_MS: i64 = 24 * 60 * 60 * 1000;

/// How far before the load a snapshot is dated that is made because of it.
///
/// DuckDB reads, for a transaction, the newest snapshot whose time is at or before the start of the
/// transaction, and loads the table some milliseconds after that start.
pub const BEFORE_LOAD_MS: i64 = 1000;

/// By how much a table's times may go back, as the format allows for clocks that differ.
const TIME_BACK_MAX_MS: i64 = 60_000;

/// Snapshot ids are below this, so that JavaScript reads them exactly.
pub const SNAPSHOT_ID_END: i64 = 1 << 53;

/// What time a snapshot has. It is always after that of the snapshot before it on `main`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SnapshotTime {
    /// When it is made.
    #[default]
    Made,
    /// [`BEFORE_LOAD_MS`] before a client's load of the table, for which it is made: the client would
    /// not read it otherwise.
    BeforeLoad {
        /// When the client asked, ms since 1970.
        asked_ms: i64,
    },
}

/// Files that come and files that go as one snapshot of `main` or of another branch.
///
/// It is built on the head of its branch as it is, whatever was committed since the snapshot that was
/// read for it.
#[derive(Clone, Debug, Default)]
pub struct NewSnapshot {
    /// What becomes of the rows. An append only adds data files. A replace changes none: its files keep
    /// the sequence number of the snapshot that was read, so that equality deletes since then reach
    /// them. An overwrite has other rows than what it removes, and a delete has none.
    pub operation: Operation,
    /// The snapshot of its branch that was read for it; none for an append.
    pub read: Option<i64>,
    /// A later snapshot whose position deletes of the removed files `deletes` has for the added ones; none
    /// where deletes were read of `read` alone.
    pub deletes_read: Option<i64>,
    /// Whether its branch has to be at the snapshot that was read, or empty where none was: its rows stand for all
    /// that was there, and are not put on top of what others committed.
    pub needs_head: bool,
    /// The table that its files were written for; none where no other one can have the name by now.
    pub table: Option<Uuid>,
    /// The branch that it goes to; none for `main`.
    pub branch: Option<String>,
    /// Where its branch begins anew with it, on top of the snapshot that was read, or without a parent where none was;
    /// none where it goes on.
    pub fork: Option<BranchFork>,
    /// Data files that come, already durable, of the table's default partition spec.
    pub added: Vec<DataFile>,
    /// Data files that come, already durable, each with the id of its partition spec, whichever is the
    /// default one by now.
    pub added_of_spec: Vec<(i32, DataFile)>,
    /// Data files that go, and delete files that are of no use without them: each as a manifest of the
    /// table has it.
    pub removed: Vec<DataFile>,
    /// Position delete files that come, already durable, each about one data file that is live or comes
    /// with it, with the partition spec of that.
    pub deletes: Vec<(i32, DataFile)>,
    /// Entries of the snapshot summary beyond Iceberg's own, such as [`crate::commit::FIRST_SEQ`] and
    /// [`crate::commit::LAST_SEQ`], which tell the first and last number of the rows.
    pub summary: BTreeMap<String, String>,
    /// The sum of the rows of `added`, which with a mark are rows that come from the holder of the
    /// fence; none where nobody summed them up.
    pub rows_added: Option<RowSum>,
    /// The sum of the rows that go with `removed` and `deletes`; none where nobody summed them up.
    pub rows_removed: Option<RowSum>,
    /// How far the holder of the fence is in the table with it; none when that stays as it is.
    pub mark: Option<MarkMove>,
    /// What else changes with it, such as properties of a table that an earlier version made.
    pub upgrades: Vec<TableUpdate>,
    /// Which other columns and partition fields the table has with it; none where they stay.
    pub evolution: Option<TableEvolution>,
    /// What time it has.
    pub time: SnapshotTime,
}

/// A branch that begins with a snapshot, whatever is on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BranchFork {
    /// The head that it must have, and leaves; none for a branch that must not be there.
    pub replaces: Option<i64>,
}

/// What becomes of a table's columns and partition fields with a snapshot, whose files are written for them.
#[derive(Clone, Debug)]
pub struct TableEvolution {
    /// What must hold of the table, so that ids are given as they were for the files.
    pub requirements: Vec<TableRequirement>,
    /// What changes, in order. Nothing where the files are of the columns that the table has.
    pub updates: Vec<TableUpdate>,
}

impl NewSnapshot {
    /// The sums of the rows that come and go; none where one of them is not known.
    fn row_change(&self) -> Option<RowChange> {
        let keeps_rows = self.removed.is_empty() && self.deletes.is_empty();
        let nothing = |is_none: bool| is_none.then(RowSum::default);
        let is_told = self.rows_added.is_some() || self.rows_removed.is_some();
        let adds_none = self.added.is_empty() && self.added_of_spec.is_empty();
        let added = self.rows_added.or(nothing(adds_none))?;
        let removed = self.rows_removed.or(nothing(keeps_rows))?;
        is_told.then_some(RowChange { added, removed })
    }
}

/// How far the holder of the fence is in a table from a snapshot on.
#[derive(Clone, Copy, Debug)]
pub struct MarkMove {
    /// The mark that the table has then. A table that has this position already stays as it is.
    pub watermark: Watermark,
    /// The first epoch of that holder: a mark of an earlier one says nothing of it.
    pub since: u64,
}

/// A snapshot that is written but not yet committed.
#[derive(Debug)]
pub struct BuiltSnapshot {
    /// What to apply to the metadata: the new snapshot, the ref.
    pub updates: Vec<TableUpdate>,
    /// The new snapshot's id: random, positive, below 2^53 so that JavaScript reads it exactly.
    pub snapshot_id: i64,
    /// Files written for this attempt, to delete when the attempt definitely lost.
    pub written: Vec<String>,
    /// Files written before for what is not in the table any more, to delete once this is committed.
    pub unused: Vec<String>,
}

/// Writes manifests and manifest list for `new` on top of `base`. `read` has what was found for it in
/// manifests before.
///
/// Returns when the bytes of these files are durable. Their names are so only after
/// [`Storage::sync_names`] of what was written, which comes before the snapshot is offered to anyone.
///
/// # Errors
/// [`CatalogError::Storage`], [`CatalogError::Iceberg`]; [`CatalogError::Invalid`] for a file that
/// is no data file of the default partition spec, and for a table this catalog cannot write to
/// (format version 1, encrypted); [`CatalogError::CommitFailed`] names a file that is not live any
/// more, or that got deletes since it was read.
pub async fn build(
    storage: &Storage,
    base: &TableMetadata,
    new: &NewSnapshot,
    read: &ReadManifests,
    now_ms: i64,
) -> Result<BuiltSnapshot, CatalogError> {
    check_readable(base, new)?;
    let seen = branch::seen(base, new)?;
    let snapshot_id = read.snapshot_id.unwrap_or_else(|| unused_id(base));
    let mut writer = manifests::SnapshotWriter::new(storage, &seen, snapshot_id);
    let written = write(storage, &seen, new, read, now_ms, &mut writer).await;
    let made = written.and_then(|(snapshot, unused)| {
        Ok((branch::onto(base, new.branch.as_deref(), snapshot)?, unused))
    });
    let (mut updates, unused) = match made {
        Ok(made) => made,
        Err(error) => {
            discard(storage, writer.into_written()).await;
            return Err(error);
        }
    };
    if retention::is_managed(base) {
        // Whoever removes snapshots may take with them what shows a fork.
        updates.extend(obsolete::mark(base, obsolete::history(base), &[]));
    }
    updates.extend_from_slice(&new.upgrades);
    Ok(BuiltSnapshot { updates, snapshot_id, written: writer.into_written(), unused })
}

/// Writes the snapshot's manifests and manifest list. Gives it with what was written in vain before.
async fn write(
    storage: &Storage,
    base: &TableMetadata,
    new: &NewSnapshot,
    read: &ReadManifests,
    now_ms: i64,
    writer: &mut manifests::SnapshotWriter<'_>,
) -> Result<(Snapshot, Vec<String>), CatalogError> {
    let parent = base.current_snapshot();
    let listed = match parent {
        Some(parent) => manifests::read_list(storage, base, parent).await?,
        None => Vec::new(),
    };
    let mut read = read.clone();
    let number = removal::check(storage, base, &listed, new, &mut read).await?;
    let removal::RewrittenManifests { rewritten, replaced, kept, unused } =
        removal::rewrite(writer, listed, new, read).await?;
    let mut added = Vec::from_iter(writer.add(&new.added, number).await?);
    added.extend(writer.add_of_specs(&new.added_of_spec, number).await?);
    added.extend(writer.add_deletes(&new.deletes).await?);
    let merged = writer.merge(kept).await?;
    let replaced = replaced + merged.replaced;
    let deletes = new.deletes.iter().chain(&new.added_of_spec).map(|(_, file)| file);
    let files = summary::SummaryCounts::of(new.added.iter().chain(deletes), new.removed.iter());
    let before = parent.map(|p| p.summary());
    let mut own = summary::own(before, &new.operation, &new.summary);
    // Whoever commits to a branch, it stays that one's.
    if let Some(branch) = branch::of_service(base) {
        own.entry(BRANCH.to_owned()).or_insert_with(|| branch.clone());
    }
    let sums = row_sum::entries(parent.map(AsRef::as_ref), &new.operation, new.row_change());
    own.extend(sums.into_iter().map(|(key, value)| (key.to_owned(), value)));
    let entries = summary::entries(before, &own, &files, replaced);
    let all = added.into_iter().chain(rewritten).chain(merged.merged).chain(merged.kept);
    let row_range = writer.list(all, parent.map(|p| p.snapshot_id())).await?;

    let operation = new.operation.clone();
    let builder = Snapshot::builder()
        .with_snapshot_id(writer.snapshot_id())
        .with_parent_snapshot_id(parent.map(|p| p.snapshot_id()))
        .with_sequence_number(base.next_sequence_number())
        .with_timestamp_ms(match new.time {
            SnapshotTime::Made => timestamp_ms(base, now_ms),
            SnapshotTime::BeforeLoad { asked_ms } => before_load_ms(base, asked_ms.min(now_ms)),
        })
        .with_manifest_list(writer.list_location())
        .with_summary(Summary { operation, additional_properties: entries })
        .with_schema_id(base.current_schema_id());
    let snapshot = match row_range {
        Some((first, rows)) => builder.with_row_range(first, rows).build(),
        None => builder.build(),
    };
    Ok((snapshot, unused))
}

/// Deletes the files of an attempt that was never offered to the catalog.
async fn discard(storage: &Storage, written: Vec<String>) {
    for location in written {
        // A file that stays is an orphan, which takes up space and no more.
        if let Err(error) = storage.delete(&location).await {
            tracing::warn!(location, error = &error as &dyn std::error::Error, "file left behind");
        }
    }
}

/// Refuses what would make an unreadable snapshot.
fn check_readable(base: &TableMetadata, new: &NewSnapshot) -> Result<(), CatalogError> {
    if new.table.is_some_and(|table| table != base.uuid()) {
        let text = "Commit failed: the table was dropped, and another one has its name";
        return Err(CatalogError::CommitFailed(text.to_owned()));
    }
    let head = match &new.branch {
        None => base.current_snapshot_id(),
        Some(branch) => base.snapshot_for_ref(branch).map(|head| head.snapshot_id()),
    };
    if new.needs_head && head != new.read {
        let text = "Commit failed: another commit came since the table was read";
        return Err(CatalogError::CommitFailed(text.to_owned()));
    }
    let refuse = |text: &str| Err(CatalogError::Invalid(text.to_owned()));
    if base.format_version() == FormatVersion::V1 {
        return refuse("cannot append to a table of format version 1: upgrade it to version 2");
    }
    if base.encryption_keys_iter().len() > 0 {
        return refuse("cannot append to an encrypted table");
    }
    if new.operation == Operation::Append {
        if !new.removed.is_empty() || !new.deletes.is_empty() {
            return refuse("an append only adds data files");
        }
    } else if base.format_version() != FormatVersion::V2 {
        // Entries of version 3 have row ids that the iceberg crate does not carry over.
        return refuse("cannot rewrite files of a table that is not of format version 2");
    }
    let default = base.default_partition_spec_id();
    let of_default = new.added.iter().map(|file| (default, file));
    let of_specs = new.added_of_spec.iter().map(|(spec_id, file)| (*spec_id, file));
    for (spec_id, file) in of_default.chain(of_specs) {
        let path = file.file_path();
        if file.content_type() != DataContentType::Data {
            return refuse(&format!("`{path}` is not a data file"));
        }
        let columns = base.partition_spec_by_id(spec_id).map(|spec| spec.fields().len());
        if columns != Some(file.partition().fields().len()) {
            let whose = if spec_id == default { "default partition spec" } else { "spec" };
            return refuse(&format!("`{path}` is not of the table's {whose}"));
        }
    }
    let is_about_one = |file: &DataFile| {
        file.content_type() == DataContentType::PositionDeletes
            && file.referenced_data_file().is_some()
    };
    match new.deletes.iter().find(|(_, file)| !is_about_one(file)) {
        Some((_, file)) => {
            refuse(&format!("`{}` is no position delete file of one data file", file.file_path()))
        }
        None => Ok(()),
    }
}

/// A random id that no snapshot of the table has.
fn unused_id(base: &TableMetadata) -> i64 {
    let mut random = rand::rng();
    loop {
        let id = random.random_range(1..SNAPSHOT_ID_END);
        if base.snapshot_by_id(id).is_none() {
            return id;
        }
    }
}

/// The new snapshot's time: snapshots' times only grow, whatever the clock does.
fn timestamp_ms(base: &TableMetadata, now_ms: i64) -> i64 {
    let parent_ms = base.current_snapshot().map_or(i64::MIN, |s| s.timestamp_ms());
    now_ms.max(base.last_updated_ms().saturating_add(1)).max(parent_ms.saturating_add(1))
}

/// The time of a snapshot that is made because of a load at `asked_ms`. What changed the table without
/// a snapshot, such as a new column, does not count: the snapshot would be too late for the load then,
/// and `last-updated-ms` goes back for that moment.
fn before_load_ms(base: &TableMetadata, asked_ms: i64) -> i64 {
    let parent_ms = base.current_snapshot().map_or(i64::MIN, |parent| parent.timestamp_ms());
    let logged_ms = base.history().last().map_or(i64::MIN, |entry| entry.timestamp_ms);
    asked_ms
        .saturating_sub(BEFORE_LOAD_MS)
        .max(parent_ms.saturating_add(1))
        .max(logged_ms.saturating_add(1))
        .max(base.last_updated_ms().saturating_sub(TIME_BACK_MAX_MS))
}
