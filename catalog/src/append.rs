//! Builds the next snapshot of a table from data files: manifests, manifest list, summary.
//!
//! Manifests are merged as part of the commit, so that its cost does not grow with the number of
//! commits before it; old snapshots are left to thinning, commits of its own. It leaves the swap of the table's pointer, and
//! removing the files of an attempt that lost, to [`crate::catalog`].
//!
//! Its one invariant: the new snapshot lists every live file of its parent and every added file,
//! each exactly once.

pub(crate) mod changes;
pub(crate) mod entries;
mod manifests;
mod obsolete;
pub(crate) mod rebase;
mod rewrite;
mod summary;
pub(crate) mod thin;

pub(crate) use manifests::read_list;
pub use rewrite::{Rewrite, RewriteKind, build_rewrite};

#[cfg(test)]
mod tests;

use crate::{error::CatalogError, metastore::Watermark, retention, storage::Storage};
use iceberg::{
    TableUpdate,
    spec::{
        DataContentType, DataFile, FormatVersion, MAIN_BRANCH, Operation, Snapshot, Summary,
        TableMetadata,
    },
};
use rand::Rng;
use std::collections::BTreeMap;

/// How long a file that nothing refers to any more is left for readers that still hold a snapshot
/// from before.
pub const OBSOLETE_GRACE_MS: i64 = 10 * 60 * 1000;

/// Snapshot ids are below this, so that JavaScript reads them exactly.
pub const SNAPSHOT_ID_END: i64 = 1 << 53;

/// Data files to add as one snapshot.
#[derive(Clone, Debug)]
pub struct Append {
    /// The files, already durable, all of the table's default partition spec.
    pub files: Vec<DataFile>,
    /// Entries of the snapshot summary beyond Iceberg's own, such as `icecore.last-seq`.
    pub summary: BTreeMap<String, String>,
    /// The log position that the table has with these files.
    pub watermark: Watermark,
    /// The first epoch of that log: a watermark of an earlier one says nothing of it.
    pub log_since: u64,
    /// First and last `seq` of the rows.
    pub seq: (u64, u64),
    /// What else changes with them, such as properties of a table that an earlier version made.
    pub upgrades: Vec<TableUpdate>,
}

/// A snapshot that is written but not yet committed.
#[derive(Debug)]
pub struct BuiltAppend {
    /// What to apply to the metadata: the new snapshot, the ref.
    pub updates: Vec<TableUpdate>,
    /// The new snapshot's id: random, positive, below 2^53 so that JavaScript reads it exactly.
    pub snapshot_id: i64,
    /// Files written for this attempt, to delete when the attempt definitely lost.
    pub written: Vec<String>,
}

/// Writes manifests and manifest list for `append` on top of `base`.
///
/// Returns when the bytes of these files are durable. Their names are so only after
/// [`Storage::sync_names`] of what was written, which comes before the snapshot is offered to anyone.
///
/// # Errors
/// [`CatalogError::Storage`], [`CatalogError::Iceberg`]; [`CatalogError::Invalid`] for a file that
/// is no data file of the default partition spec, and for a table this catalog cannot write to
/// (format version 1, encrypted).
pub async fn build(
    storage: &Storage,
    base: &TableMetadata,
    append: &Append,
    now_ms: i64,
) -> Result<BuiltAppend, CatalogError> {
    check(base, &append.files)?;
    let mut writer = manifests::SnapshotWriter::new(storage, base, unused_id(base));
    let written = write(storage, base, append, now_ms, &mut writer).await;
    let mut built = finish(storage, base, writer, written).await?;
    built.updates.extend_from_slice(&append.upgrades);
    Ok(built)
}

/// What to apply for the snapshot that was written; after a failure its files are deleted.
async fn finish(
    storage: &Storage,
    base: &TableMetadata,
    writer: manifests::SnapshotWriter<'_>,
    written: Result<Snapshot, CatalogError>,
) -> Result<BuiltAppend, CatalogError> {
    let mut updates = match written.and_then(|snapshot| onto_main(base, snapshot)) {
        Ok(updates) => updates,
        Err(error) => {
            discard(storage, writer.into_written()).await;
            return Err(error);
        }
    };
    if retention::is_managed(base) {
        // Whoever removes snapshots may take with them what shows a fork.
        updates.extend(obsolete::mark(base, obsolete::history(base), &[]));
    }
    let snapshot_id = writer.snapshot_id();
    Ok(BuiltAppend { updates, snapshot_id, written: writer.into_written() })
}

/// Writes the snapshot's manifests and manifest list.
async fn write(
    storage: &Storage,
    base: &TableMetadata,
    append: &Append,
    now_ms: i64,
    writer: &mut manifests::SnapshotWriter<'_>,
) -> Result<Snapshot, CatalogError> {
    let parent = base.current_snapshot();
    let kept = match parent {
        Some(parent) => manifests::read_list(storage, base, parent).await?,
        None => Vec::new(),
    };
    let added = writer.add(&append.files, None).await?;
    let merged = writer.merge(kept).await?;
    let counts = summary::ManifestCounts {
        created: usize::from(added.is_some()) + usize::from(merged.merged.is_some()),
        kept: merged.kept.len(),
        replaced: merged.replaced,
    };
    let files = summary::SummaryCounts::of(append.files.iter(), [].iter());
    let own = (&append.summary, &files);
    let entries = summary::entries(parent.map(|p| p.summary()), own, counts);
    let all = added.into_iter().chain(merged.merged).chain(merged.kept);
    let row_range = writer.list(all, parent.map(|p| p.snapshot_id())).await?;

    let builder = Snapshot::builder()
        .with_snapshot_id(writer.snapshot_id())
        .with_parent_snapshot_id(parent.map(|p| p.snapshot_id()))
        .with_sequence_number(base.next_sequence_number())
        .with_timestamp_ms(timestamp_ms(base, now_ms))
        .with_manifest_list(writer.list_location())
        .with_summary(Summary { operation: Operation::Append, additional_properties: entries })
        .with_schema_id(base.current_schema_id());
    Ok(match row_range {
        Some((first, rows)) => builder.with_row_range(first, rows).build(),
        None => builder.build(),
    })
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
fn check(base: &TableMetadata, files: &[DataFile]) -> Result<(), CatalogError> {
    if base.format_version() == FormatVersion::V1 {
        return Err(CatalogError::Invalid(
            "cannot append to a table of format version 1: upgrade it to version 2".to_owned(),
        ));
    }
    if base.encryption_keys_iter().len() > 0 {
        return Err(CatalogError::Invalid("cannot append to an encrypted table".to_owned()));
    }
    let columns = base.default_partition_type().fields().len();
    for file in files {
        if file.content_type() != DataContentType::Data {
            return Err(CatalogError::Invalid(format!(
                "`{}` is not a data file",
                file.file_path()
            )));
        }
        if file.partition().fields().len() != columns {
            return Err(CatalogError::Invalid(format!(
                "`{}` is not of the table's default partition spec",
                file.file_path()
            )));
        }
    }
    Ok(())
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

/// The updates that add the snapshot and move `main` to it with the retention `main` has.
fn onto_main(base: &TableMetadata, snapshot: Snapshot) -> Result<Vec<TableUpdate>, CatalogError> {
    // A ref's retention cannot be read from the metadata, but its builder carries it over.
    base.clone()
        .into_builder(None)
        .set_branch_snapshot(snapshot, MAIN_BRANCH)
        .and_then(|builder| builder.build())
        .map(|built| built.changes)
        .map_err(|source| CatalogError::Iceberg { operation: "add the snapshot", source })
}
