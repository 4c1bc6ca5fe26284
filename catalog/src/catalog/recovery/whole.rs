//! The last whole snapshot of a damaged table, and the way back to it.
//!
//! A snapshot is whole where its list, its manifests and all live files are there with their sizes. Its one
//! invariant: the way back is a commit like any other. It names `main` alone, deletes nothing, and the
//! snapshots that are left behind stay until they expire.

use super::Recovery;
use crate::{
    ancestors,
    catalog::{
        LoadedTable,
        write::{TableWrite, check_made},
    },
    commit,
    error::CatalogError,
    location::Location,
    manifest_file,
    metadata_file::refs,
    metastore::{ChangeSet, Watermark},
    retention, row_sum,
    snapshot::read_list,
};
use iceberg::{
    TableIdent, TableUpdate,
    spec::{MAIN_BRANCH, ManifestFile, SnapshotRef, SnapshotReference, TableMetadata},
};
use std::{collections::HashMap, sync::Arc};

/// A snapshot that lacks something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedSnapshot {
    /// Its id.
    pub snapshot_id: i64,
    /// The first file that is not there, has another size or does not read, and which of these.
    pub damage: String,
}

/// The snapshots of `main`, from the newest back to one that is whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotChoice {
    /// The newest whole one; none where all lack something.
    pub whole: Option<i64>,
    /// Those after it, the newest first.
    pub damaged: Vec<DamagedSnapshot>,
}

/// The files of a table's folder, and what was found out of its manifests.
struct TableFiles {
    sizes: HashMap<String, u64>,
    /// What is wrong with the live files of each.
    manifests: HashMap<String, Option<String>>,
}

impl Recovery<'_> {
    /// Looks for the newest whole snapshot of `main`, or whether the one `to` is whole.
    ///
    /// # Errors
    /// [`CatalogError::Invalid`] where `to` is no snapshot of `main`; [`CatalogError::Storage`] of a store
    /// that does not answer.
    pub async fn last_whole(
        self,
        metadata: &TableMetadata,
        to: Option<i64>,
    ) -> Result<SnapshotChoice, CatalogError> {
        let mut line: Vec<&SnapshotRef> =
            ancestors::of(metadata, metadata.current_snapshot_id()).collect();
        if let Some(to) = to {
            line.retain(|snapshot| snapshot.snapshot_id() == to);
            if line.is_empty() {
                return Err(CatalogError::Invalid(format!(
                    "snapshot {to} is not in the history of `main`: name one that `icecore snapshots` \
                     lists"
                )));
            }
        }
        let listed = self.0.storage().list_below(metadata.location()).await?;
        let sizes = listed.into_iter().map(|file| (file.location, file.bytes)).collect();
        let mut files = TableFiles { sizes, manifests: HashMap::new() };
        let mut choice = SnapshotChoice::default();
        for snapshot in line {
            match self.damage(metadata, snapshot, &mut files).await? {
                None => {
                    choice.whole = Some(snapshot.snapshot_id());
                    break;
                }
                Some(damage) => choice
                    .damaged
                    .push(DamagedSnapshot { snapshot_id: snapshot.snapshot_id(), damage }),
            }
        }
        Ok(choice)
    }

    /// Moves `main` back to one of its snapshots, and the mark with it where one is given. Durable on
    /// return. Only for a repair: acknowledged rows leave the table.
    ///
    /// # Errors
    /// [`CatalogError::CommitFailed`] where the table is not as it was loaded any more; others as a commit.
    pub async fn move_back(
        self,
        table: &TableIdent,
        base: LoadedTable,
        to: i64,
        mark: Option<Watermark>,
    ) -> Result<LoadedTable, CatalogError> {
        let catalog = self.0;
        let _table = catalog.inner.locks.lock(std::iter::once(table)).await;
        let main = refs::of(&base.metadata).remove(MAIN_BRANCH);
        let main = main.ok_or_else(|| CatalogError::NoSuchReference(MAIN_BRANCH.to_owned()))?;
        let reference = SnapshotReference { snapshot_id: to, retention: main.retention };
        let ref_name = MAIN_BRANCH.to_owned();
        let updates = vec![TableUpdate::SetSnapshotRef { ref_name, reference }];
        let now_ms = catalog.now_ms().max(base.metadata.last_updated_ms().saturating_add(1));
        let location = Some(base.metadata_location.as_str());
        let metadata = commit::apply_updates_at(&base.metadata, location, &updates, now_ms)?;
        let encoded = catalog.encoded_parts(&base).after(&updates, &metadata);
        let mut write = TableWrite::new(table.clone(), Some(base), metadata, now_ms);
        write.encoded = Some(Arc::new(encoded));
        write.changes = ChangeSet::making(&updates);
        write.watermark = mark;
        if retention::is_managed(&write.metadata) {
            // Rows that come again are counted again.
            write.acked_anew = Some(row_sum::acked(&write.metadata, Some(to)));
        }
        check_made(&catalog.publish(std::slice::from_ref(&write)).await?, table)?;
        Ok(write.loaded())
    }

    async fn damage(
        self,
        metadata: &TableMetadata,
        snapshot: &SnapshotRef,
        files: &mut TableFiles,
    ) -> Result<Option<String>, CatalogError> {
        let manifests = match read_list(self.0.storage(), metadata, snapshot).await {
            Ok(manifests) => manifests,
            Err(cause) if cause.is_damage() => {
                return Ok(Some(format!("`{}` does not read", snapshot.manifest_list())));
            }
            Err(cause) => return Err(cause),
        };
        for manifest in manifests {
            if let Some(damage) = self.damage_of(&manifest, files).await? {
                return Ok(Some(damage));
            }
        }
        Ok(None)
    }

    /// What is wrong with a manifest or its files; each is looked at once.
    async fn damage_of(
        self,
        manifest: &ManifestFile,
        files: &mut TableFiles,
    ) -> Result<Option<String>, CatalogError> {
        let path = &manifest.manifest_path;
        if let Some(known) = files.manifests.get(path) {
            return Ok(known.clone());
        }
        let damage = match self.0.storage().get(path).await {
            Err(cause) if cause.is_damage() => Some(format!("`{path}` does not read")),
            Err(cause) => return Err(cause),
            Ok(bytes) => match manifest_file::parse(&bytes) {
                Err(_) => Some(format!("`{path}` does not read")),
                Ok(parsed) => {
                    let live = parsed.entries().iter().filter(|entry| entry.is_alive());
                    let mut files_of = live.map(|entry| entry.data_file());
                    files_of
                        .find_map(|file| files.damage(file.file_path(), file.file_size_in_bytes()))
                }
            },
        };
        files.manifests.insert(path.clone(), damage.clone());
        Ok(damage)
    }
}

impl TableFiles {
    fn damage(&self, path: &str, bytes: u64) -> Option<String> {
        let size = Location::parse(path).and_then(|path| self.sizes.get(path.as_str()).copied());
        match size {
            None => Some(format!("`{path}` is not there")),
            Some(size) if size != bytes => {
                Some(format!("`{path}` has {size} bytes, but its manifest says {bytes}"))
            }
            Some(_) => None,
        }
    }
}
