//! One table's part of a commit: its new metadata file, and how the pointer gets there.
//!
//! Files of an attempt are deleted only when it is certain that nothing points to them.

use super::{Catalog, LoadedTable, location_rules};
use crate::{
    commit,
    error::CatalogError,
    location::Location,
    metadata_file,
    metadata_file::cache::EncodedParts,
    metastore::{
        ChangeSet, CommitPart, NameKind, NewTable, ObsoleteFile, PointerSwap, SnapshotRow,
        SwapOutcome, TableOrigin, Watermark,
    },
    row_sum::RowSum,
    snapshot::OBSOLETE_GRACE_MS,
};
use bytes::Bytes;
use futures::future::try_join_all;
use iceberg::{TableIdent, spec::TableMetadata};
use std::{collections::HashMap, sync::Arc};
use tracing::warn;
use uuid::Uuid;

/// Longest metadata file that is written, unless it is shorter than the one before it: some 100 000
/// snapshots. Longer ones are read, so that no table is out of reach.
pub(super) const WRITTEN_BYTES_MAX: usize = 128 << 20;
/// Longest that a client's change makes one, so that there is room for our own snapshots.
pub(super) const CHANGED_BYTES_MAX: usize = WRITTEN_BYTES_MAX / 2;
/// Most metadata files of a commit that are written at the same time.
const PUTS_MAX: usize = 64;
/// Longer files are encoded off the async threads.
const INLINE_BYTES_MAX: usize = 1 << 20;

/// A new state of a table, not yet stored.
pub(super) struct TableWrite {
    pub(super) table: TableIdent,
    /// None for a new table.
    pub(super) base: Option<LoadedTable>,
    pub(super) metadata: Arc<TableMetadata>,
    /// The branches and tags of `metadata`, where they are known.
    pub(super) encoded: Option<Arc<EncodedParts>>,
    /// The bytes of its file, where they are known.
    pub(super) bytes: Option<Bytes>,
    pub(super) metadata_location: String,
    /// The watermark, when the commit moves it.
    pub(super) watermark: Option<Watermark>,
    /// The sum of the rows that it moves over, where it is known.
    pub(super) acked: Option<RowSum>,
    /// The sum of all rows of the holder of the fence, when `main` goes back.
    pub(super) acked_anew: Option<RowSum>,
    pub(super) snapshots: Vec<SnapshotRow>,
    pub(super) obsolete: Vec<ObsoleteFile>,
    /// The commits it is made of, when they are not the caller's own.
    pub(super) parts: Vec<CommitPart>,
    /// What it is made of, when it is one commit of the caller's.
    pub(super) changes: ChangeSet,
    /// Where a new table comes from.
    pub(super) comes: TableOrigin,
    /// Other files of this attempt that are written, without their names being durable yet.
    pub(super) deferred: Vec<String>,
    /// Whether its metadata file was there before, and stays whatever becomes of it.
    is_adopted: bool,
}

/// A metadata file that a pointer is going to lead to.
pub(super) struct NewFile {
    pub(super) location: String,
    pub(super) bytes: Bytes,
    /// Other files of the attempt, beside it, whose names become durable with its own.
    pub(super) deferred: Vec<String>,
}

impl TableWrite {
    pub(super) fn new(
        table: TableIdent,
        base: Option<LoadedTable>,
        metadata: TableMetadata,
        now_ms: i64,
    ) -> Self {
        let version = base.as_ref().map_or(0, |base| base.version);
        let metadata_location =
            metadata_file::location(metadata.location(), version, Uuid::new_v4());
        let before = base.as_ref().map(|base| base.metadata.as_ref());
        let snapshots = commit::added_snapshots(before, &metadata);
        let obsolete =
            base.as_ref().map_or_else(Vec::new, |base| old_metadata(base, &metadata, now_ms));
        let metadata = Arc::new(metadata);
        let (encoded, watermark, parts, changes) = (None, None, Vec::new(), ChangeSet::default());
        Self {
            table,
            base,
            metadata,
            encoded,
            bytes: None,
            metadata_location,
            watermark,
            acked: None,
            acked_anew: None,
            snapshots,
            obsolete,
            parts,
            changes,
            comes: TableOrigin::Created,
            deferred: Vec::new(),
            is_adopted: false,
        }
    }

    /// A table as a metadata file has it that is there already, in the place of `base`.
    pub(super) fn adopted(
        table: TableIdent,
        base: Option<LoadedTable>,
        metadata: TableMetadata,
        metadata_location: String,
    ) -> Self {
        let needs = location_rules::needs(&metadata, &metadata_location);
        Self {
            metadata_location,
            comes: TableOrigin::Registered { needs },
            is_adopted: true,
            // What is there stays, whatever the file says of it.
            obsolete: Vec::new(),
            ..Self::new(table, base, metadata, 0)
        }
    }

    /// The table once this is stored.
    pub(super) fn loaded(&self) -> LoadedTable {
        let base = self.base.as_ref();
        LoadedTable {
            metadata: Arc::clone(&self.metadata),
            metadata_location: self.metadata_location.clone(),
            version: base.map_or(1, |base| base.version + 1),
            watermark: self.watermark.or_else(|| base.and_then(|base| base.watermark)),
        }
    }

    /// What is added to the catalog for it.
    pub(super) fn new_table(&self) -> NewTable {
        NewTable {
            kind: NameKind::Table,
            levels: self.table.namespace.as_ref().clone(),
            name: self.table.name.clone(),
            uuid: self.metadata.uuid(),
            metadata_location: self.metadata_location.clone(),
            location: self.metadata.location().to_owned(),
            snapshots: self.snapshots.clone(),
            comes: self.comes.clone(),
            changes: self.changes.clone(),
        }
    }

    fn swap(&self) -> Option<PointerSwap> {
        let base = self.base.as_ref()?;
        Some(PointerSwap {
            // The pointer's identity: what the metadata says may be assigned anew by an update.
            uuid: base.metadata.uuid(),
            expected_version: base.version,
            metadata_location: self.metadata_location.clone(),
            moved_to: (base.metadata.location() != self.metadata.location())
                .then(|| self.metadata.location().to_owned()),
            watermark: self.watermark,
            acked: self.acked,
            acked_anew: self.acked_anew,
            snapshots: self.snapshots.clone(),
            removed_snapshots: commit::removed_snapshots(&base.metadata, &self.metadata),
            obsolete: self.obsolete.clone(),
            parts: self.parts.clone(),
            changes: self.changes.clone(),
        })
    }
}

impl Catalog {
    /// Stores the metadata files of tables and moves their pointers, as [`Catalog::swap`] does.
    pub(super) async fn publish(&self, writes: &[TableWrite]) -> Result<SwapOutcome, CatalogError> {
        let written = writes.iter().filter(|write| !write.is_adopted);
        let files = try_join_all(written.map(|write| self.file(write))).await;
        if files.is_err() {
            for write in writes {
                self.discard(&write.deferred).await;
            }
        }
        let files = files?;
        let lengths: HashMap<String, usize> =
            files.iter().map(|file| (file.location.clone(), file.bytes.len())).collect();
        let made = writes.iter().filter(|write| write.base.is_none());
        let new: Vec<NewTable> = made.map(TableWrite::new_table).collect();
        let swaps: Vec<PointerSwap> = writes.iter().filter_map(TableWrite::swap).collect();
        let outcome = self.swap(files, &new, &swaps).await;
        if let Ok(SwapOutcome::Done) = outcome {
            self.remember(writes, &lengths);
        }
        outcome
    }

    /// The metadata file of a write.
    async fn file(&self, write: &TableWrite) -> Result<NewFile, CatalogError> {
        let bytes = match &write.bytes {
            Some(bytes) => bytes.clone(),
            None => encode(&write.metadata, write.encoded.as_ref()).await,
        };
        let before = async || match &write.base {
            Some(base) => encode(&base.metadata, Some(&self.encoded_parts(base))).await.len(),
            None => 0,
        };
        check_length(&write.table, bytes.len(), WRITTEN_BYTES_MAX, before).await?;
        let (location, deferred) = (write.metadata_location.clone(), write.deferred.clone());
        Ok(NewFile { location, bytes, deferred })
    }

    /// The last steps of every commit to tables and views, once it is applied and checked: stores the
    /// metadata files, then moves all pointers or none. All files of an attempt that definitely failed
    /// are gone afterwards; where the outcome is unknown they stay, since the pointers may have moved.
    pub(super) async fn swap(
        &self,
        files: Vec<NewFile>,
        new: &[NewTable],
        swaps: &[PointerSwap],
    ) -> Result<SwapOutcome, CatalogError> {
        let (outcome, is_undone) = match self.put_all(&files).await {
            // Nothing was offered to the metastore.
            Err(cause) => (Err(cause), true),
            Ok(()) => {
                let outcome = self.metastore().commit_with_new(new, swaps).await;
                let is_undone = match &outcome {
                    Ok(outcome) => *outcome != SwapOutcome::Done,
                    Err(cause) => cause.is_definite(),
                };
                (outcome, is_undone)
            }
        };
        if is_undone {
            for file in &files {
                self.discard(&file.deferred).await;
                self.discard(std::slice::from_ref(&file.location)).await;
            }
        }
        outcome
    }

    /// Stores metadata files, some at a time.
    async fn put_all(&self, files: &[NewFile]) -> Result<(), CatalogError> {
        for some in files.chunks(PUTS_MAX) {
            try_join_all(some.iter().map(|file| self.put_durable(file))).await?;
        }
        Ok(())
    }

    /// Stores a metadata file. On return it is durable with the other files of the table that are
    /// new: its folder, where they are, is synced once for all of them. Those of a table that moves in
    /// the same commit may be in the folder before.
    async fn put_durable(&self, file: &NewFile) -> Result<(), CatalogError> {
        fn folder(location: &str) -> Option<&str> {
            location.rsplit_once('/').map(|(folder, _)| folder)
        }
        let names = file.deferred.iter().map(String::as_str);
        let elsewhere: Vec<&str> =
            names.filter(|name| folder(name) != folder(&file.location)).collect();
        let storage = &self.inner.storage;
        storage.sync_names(&elsewhere).await?;
        storage.put(&file.location, file.bytes.clone()).await
    }

    /// Deletes files that nothing points to; one that stays is an orphan for maintenance.
    pub(super) async fn discard(&self, locations: &[String]) {
        for location in locations {
            if let Err(cause) = self.inner.storage.delete(location).await {
                warn!(location, error = &cause as &dyn std::error::Error, "file left behind");
            }
        }
    }

    /// Keeps what was written, with the lengths of the files.
    fn remember(&self, writes: &[TableWrite], lengths: &HashMap<String, usize>) {
        self.inner.overgrown.note(writes);
        for write in writes {
            let new = write.snapshots.iter();
            for snapshot in new.filter_map(|row| write.metadata.snapshot_by_id(row.snapshot_id)) {
                self.inner.lists.keep(snapshot.manifest_list());
            }
            if let Some(base) = &write.base {
                self.forget(&base.metadata_location);
            }
            // One that was there before is read when it is asked for.
            let Some(length) = lengths.get(&write.metadata_location) else { continue };
            self.inner.cache.insert(&write.metadata_location, &write.metadata, *length);
            if let Some(encoded) = &write.encoded {
                self.remember_parts(&write.metadata_location, &write.metadata, encoded);
            }
        }
    }
}

/// A metadata file's bytes.
pub(super) async fn encode(
    metadata: &Arc<TableMetadata>,
    encoded: Option<&Arc<EncodedParts>>,
) -> Bytes {
    let is_small = metadata_file::length_estimate(metadata) <= INLINE_BYTES_MAX;
    let (metadata, encoded) = (Arc::clone(metadata), encoded.cloned());
    let work = move || match encoded {
        Some(encoded) => metadata_file::encode_table(&metadata, &encoded),
        None => metadata_file::encode(metadata.as_ref()),
    };
    match is_small {
        true => work().into(),
        false => {
            let made = tokio::task::spawn_blocking(work).await;
            made.expect("metadata that was built always serializes").into()
        }
    }
}

/// Refuses a metadata file that is longer than `most` and than the one `before` it.
pub(super) async fn check_length(
    table: &TableIdent,
    length: usize,
    most: usize,
    before: impl AsyncFnOnce() -> usize,
) -> Result<(), CatalogError> {
    if length <= most || length <= before().await {
        return Ok(());
    }
    let (length, most) = (length.div_ceil(1 << 20), most >> 20);
    Err(CatalogError::Invalid(format!(
        "the metadata file of {table} would have {length} MiB, but it may have {most} MiB: expire \
         snapshots, or remove properties, schemas and statistics that nobody needs"
    )))
}

/// Whether a commit to a table or view was made; when not, another process was faster, and it can be
/// made anew.
pub(super) fn is_made(outcome: &SwapOutcome, table: &TableIdent) -> Result<bool, CatalogError> {
    match outcome {
        SwapOutcome::Done => Ok(true),
        SwapOutcome::Lost(_) => Ok(false),
        SwapOutcome::Deposed(_) => Err(deposed(table)),
        SwapOutcome::Repeated(_) => Err(CatalogError::Repeated),
    }
}

/// As [`is_made`], of a commit that is not made anew.
pub(super) fn check_made(outcome: &SwapOutcome, table: &TableIdent) -> Result<(), CatalogError> {
    if is_made(outcome, table)? { Ok(()) } else { Err(lost_every_race(table)) }
}

pub(super) fn deposed(table: &TableIdent) -> CatalogError {
    CatalogError::CommitFailed(format!(
        "Commit failed: a writer of a higher epoch has the marks of {table}"
    ))
}

pub(super) fn lost_every_race(table: &TableIdent) -> CatalogError {
    CatalogError::CommitFailed(format!("Commit failed: {table} was changed concurrently"))
}

/// Metadata files that leave the table's log, if the table wants them deleted.
fn old_metadata(base: &LoadedTable, new: &TableMetadata, now_ms: i64) -> Vec<ObsoleteFile> {
    if !commit::versions::are_deleted(new) {
        return Vec::new();
    }
    let Some(own) = Location::parse(new.location()) else { return Vec::new() };
    commit::dropped_metadata_files(&base.metadata, &base.metadata_location, new)
        .into_iter()
        .filter_map(|location| own.admit(&location).ok())
        .map(|own| ObsoleteFile {
            location: own.to_string(),
            not_before_ms: now_ms + OBSOLETE_GRACE_MS,
        })
        .collect()
}
