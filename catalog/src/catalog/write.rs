//! One table's part of a commit: its new metadata file, and how the pointer gets there.
//!
//! Files of an attempt are deleted only when it is certain that nothing points to them.

use super::{Catalog, LoadedTable};
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
};
use bytes::Bytes;
use futures::future::try_join_all;
use iceberg::{TableIdent, spec::TableMetadata};
use std::sync::Arc;
use tracing::warn;
use uuid::Uuid;

/// How long a file that nothing needs any more stays for readers that still use it.
pub(super) const GRACE_MS: i64 = 10 * 60 * 1000;

/// A new state of a table, not yet stored.
pub(super) struct TableWrite {
    pub(super) table: TableIdent,
    /// None for a new table.
    pub(super) base: Option<LoadedTable>,
    pub(super) metadata: Arc<TableMetadata>,
    /// The branches and tags of `metadata`, where they are known.
    pub(super) encoded: Option<Arc<EncodedParts>>,
    pub(super) metadata_location: String,
    /// The watermark, when the commit moves it.
    pub(super) watermark: Option<Watermark>,
    pub(super) snapshots: Vec<SnapshotRow>,
    pub(super) obsolete: Vec<ObsoleteFile>,
    /// The commits it is made of, when they are not the caller's own.
    pub(super) parts: Vec<CommitPart>,
    /// What it is made of, when it is one commit of the caller's.
    pub(super) changes: ChangeSet,
    /// Where a new table comes from.
    pub(super) comes: TableOrigin,
    /// Other files of it that are written, without their names being durable yet.
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
            metadata_location,
            watermark,
            snapshots,
            obsolete,
            parts,
            changes,
            comes: TableOrigin::Created,
            deferred: Vec::new(),
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

    fn new_table(&self) -> Option<NewTable> {
        self.base.is_none().then(|| NewTable {
            kind: NameKind::Table,
            levels: self.table.namespace.as_ref().clone(),
            name: self.table.name.clone(),
            uuid: self.metadata.uuid(),
            metadata_location: self.metadata_location.clone(),
            location: self.metadata.location().to_owned(),
            snapshots: self.snapshots.clone(),
            comes: self.comes.clone(),
            changes: self.changes.clone(),
        })
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
            snapshots: self.snapshots.clone(),
            removed_snapshots: commit::removed_snapshots(&base.metadata, &self.metadata),
            obsolete: self.obsolete.clone(),
            parts: self.parts.clone(),
            changes: self.changes.clone(),
        })
    }
}

impl Catalog {
    /// Stores the metadata files, then moves all pointers or none. The files of an attempt that
    /// definitely failed are gone afterwards.
    pub(super) async fn publish(&self, writes: &[TableWrite]) -> Result<SwapOutcome, CatalogError> {
        let locations: Vec<String> =
            writes.iter().map(|write| write.metadata_location.clone()).collect();
        let puts = writes.iter().map(|write| {
            let bytes = match &write.encoded {
                Some(encoded) => metadata_file::encode_table(&write.metadata, encoded),
                None => metadata_file::encode(write.metadata.as_ref()),
            };
            self.put_durable(write, bytes.into())
        });
        if let Err(cause) = try_join_all(puts).await {
            self.discard(&locations).await;
            return Err(cause);
        }
        let new: Vec<NewTable> = writes.iter().filter_map(TableWrite::new_table).collect();
        let swaps: Vec<PointerSwap> = writes.iter().filter_map(TableWrite::swap).collect();
        let outcome = self.metastore().commit_with_new(&new, &swaps).await;
        match &outcome {
            Ok(SwapOutcome::Done) => self.remember(writes),
            Ok(SwapOutcome::Lost(_) | SwapOutcome::Deposed(_) | SwapOutcome::Repeated(_)) => {
                self.discard(&locations).await;
            }
            Err(cause) if cause.is_definite() => self.discard(&locations).await,
            // The pointers may have moved: what they may point to stays.
            Err(_) => (),
        }
        outcome
    }

    /// Stores a metadata file. On return it is durable with the other files of the table that are
    /// new: they are in its folder, which is synced once for all of them.
    async fn put_durable(&self, write: &TableWrite, bytes: Bytes) -> Result<(), CatalogError> {
        let storage = &self.inner.storage;
        storage.put_deferred(&write.metadata_location, bytes).await?;
        let mut names: Vec<&str> = write.deferred.iter().map(String::as_str).collect();
        names.push(&write.metadata_location);
        storage.sync_names(&names).await
    }

    /// Deletes files that nothing points to; one that stays is an orphan for maintenance.
    pub(super) async fn discard(&self, locations: &[String]) {
        for location in locations {
            if let Err(cause) = self.inner.storage.delete(location).await {
                warn!(location, error = &cause as &dyn std::error::Error, "file left behind");
            }
        }
    }

    fn remember(&self, writes: &[TableWrite]) {
        self.inner.overgrown.note(writes);
        for write in writes {
            if let Some(base) = &write.base {
                self.forget(&base.metadata_location);
            }
            let weight = write.metadata.snapshots().len();
            self.inner.cache.insert(&write.metadata_location, &write.metadata, weight);
            if let Some(encoded) = &write.encoded {
                self.remember_parts(&write.metadata_location, &write.metadata, encoded);
            }
        }
    }
}

/// Metadata files that leave the table's log, if the table wants them deleted.
fn old_metadata(base: &LoadedTable, new: &TableMetadata, now_ms: i64) -> Vec<ObsoleteFile> {
    let wanted = new.properties().get("write.metadata.delete-after-commit.enabled");
    if wanted.is_none_or(|wanted| wanted != "true") {
        return Vec::new();
    }
    let Some(own) = Location::parse(new.location()) else { return Vec::new() };
    commit::dropped_metadata_files(&base.metadata, &base.metadata_location, new)
        .into_iter()
        .filter_map(|location| own.admit(&location).ok())
        .map(|own| ObsoleteFile { location: own.to_string(), not_before_ms: now_ms + GRACE_MS })
        .collect()
}
