//! What operators do to a table beside reading and writing it: see how it is, name its snapshots,
//! go back to one, protect it.
//!
//! Every change is an ordinary commit with the requirement that the table is still as it was looked
//! at, so nothing here can undo what another commits meanwhile.

pub(super) mod shared_tags;

use super::{Catalog, LoadedTable, TableChange, Tables};
use crate::{ancestors, error::CatalogError, manifest_file, metadata_file::refs, retention};
use futures::{StreamExt, TryStreamExt, stream};
use iceberg::{
    TableIdent, TableRequirement, TableUpdate,
    spec::{
        DataContentType, MAIN_BRANCH, Manifest, Snapshot, SnapshotReference, SnapshotRetention,
        TableMetadata,
    },
};
use serde::Serialize;
use std::collections::BTreeMap;

/// A data file below this size costs a reader more to open than to read.
const SMALL_FILE_BYTES: u64 = 32 << 20;
/// Manifests read at the same time.
const MANIFEST_READS: usize = 8;
/// Most manifests that statistics are made of.
const MANIFESTS_MAX: usize = 10_000;

/// How a table is: its current snapshot's files, and its history.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TableStats {
    /// Data files.
    pub data_files: u64,
    /// Bytes of the data files.
    pub data_bytes: u64,
    /// Rows of the data files, deleted ones included.
    pub data_rows: u64,
    /// Data files below 32 MiB.
    pub small_files: u64,
    /// Files that delete rows of others.
    pub delete_files: u64,
    /// Entries of those files.
    pub delete_rows: u64,
    /// Manifests of the current snapshot.
    pub manifests: u64,
    /// Retained snapshots.
    pub snapshots: u64,
    /// Bytes of the metadata file.
    pub metadata_bytes: u64,
    /// When the table last changed, ms since 1970.
    pub last_updated_ms: i64,
    /// How long ago that was, ms.
    pub age_ms: i64,
    /// Whether dropping and renaming are refused.
    pub is_protected: bool,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefKind {
    /// It moves with commits to it.
    Branch,
    /// It stays at its snapshot.
    Tag,
}

impl std::fmt::Display for RefKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Branch => "branch",
            Self::Tag => "tag",
        })
    }
}

/// The branches and tags of a catalog's tables.
#[derive(Clone, Copy, Debug)]
pub struct Refs<'a>(&'a Catalog);

impl Catalog {
    /// The branches and tags of its tables.
    #[must_use]
    pub fn refs(&self) -> Refs<'_> {
        Refs(self)
    }
}

impl Tables<'_> {
    /// Statistics of a table, from its manifests.
    ///
    /// # Errors
    /// `NoSuchTable`, `Storage`, `Iceberg`; `Invalid` for a table with more than 10 000 manifests.
    pub async fn stats(self, table: &TableIdent) -> Result<TableStats, CatalogError> {
        let loaded = self.load(table).await?;
        let metadata = &loaded.metadata;
        let mut stats = TableStats {
            snapshots: count(metadata.snapshots().len()),
            metadata_bytes: self.0.storage().size(&loaded.metadata_location).await?,
            last_updated_ms: metadata.last_updated_ms(),
            age_ms: (self.0.now_ms() - metadata.last_updated_ms()).max(0),
            is_protected: self.0.metastore().is_protected(metadata.uuid()).await?,
            ..TableStats::default()
        };
        let Some(snapshot) = metadata.current_snapshot() else { return Ok(stats) };
        let manifests = self.manifests_of(metadata, snapshot).await?;
        if manifests.len() > MANIFESTS_MAX {
            return Err(CatalogError::Invalid(format!(
                "{table} has {} manifests, but statistics read at most {MANIFESTS_MAX}: rewrite \
                 its manifests first",
                manifests.len()
            )));
        }
        stats.manifests = count(manifests.len());
        let reads = manifests.into_iter().map(|location| async move {
            let bytes = self.0.storage().get(&location).await?;
            manifest_file::parse(&bytes).map_err(unreadable("read a manifest"))
        });
        let mut reads = stream::iter(reads).buffer_unordered(MANIFEST_READS);
        while let Some(manifest) = reads.try_next().await? {
            stats.add(&manifest);
        }
        Ok(stats)
    }

    /// What is wrong with a table whose metadata file could not be read because of the file, not of
    /// the store; none for any other failure.
    ///
    /// # Errors
    /// `Metastore`.
    pub async fn why_unreadable(
        self,
        table: &TableIdent,
        cause: &CatalogError,
    ) -> Result<Option<String>, CatalogError> {
        if !super::is_of_file(cause) {
            return Ok(None);
        }
        let row = self.0.metastore().table(table.namespace.as_ref(), &table.name).await?;
        let file = row.map_or_else(String::new, |row| row.metadata_location);
        Ok(Some(super::unreadable_file(&file, cause)))
    }

    async fn manifests_of(
        self,
        metadata: &TableMetadata,
        snapshot: &Snapshot,
    ) -> Result<Vec<String>, CatalogError> {
        let bytes = self.0.storage().get(snapshot.manifest_list()).await?;
        let list = manifest_file::parse_list(&bytes, metadata.format_version());
        let list = list.map_err(unreadable("read a manifest list"))?;
        Ok(list.entries().iter().map(|manifest| manifest.manifest_path.clone()).collect())
    }
}

impl Refs<'_> {
    /// The branches and tags of a table, by name.
    ///
    /// # Errors
    /// `NoSuchTable`.
    pub async fn list(
        self,
        table: &TableIdent,
    ) -> Result<BTreeMap<String, SnapshotReference>, CatalogError> {
        let loaded = self.0.tables().load(table).await?;
        Ok(refs::of(&loaded.metadata).into_iter().collect())
    }

    /// Gives a snapshot (the current one when none is named) a name.
    ///
    /// # Errors
    /// `NoSuchTable`, `AlreadyExists`, `Invalid` for a snapshot that is not there.
    pub async fn create(
        self,
        table: &TableIdent,
        name: &str,
        kind: RefKind,
        snapshot: Option<i64>,
    ) -> Result<LoadedTable, CatalogError> {
        crate::names::check_new(name)?;
        let loaded = self.0.tables().load(table).await?;
        if refs::of(&loaded.metadata).contains_key(name) {
            return Err(CatalogError::AlreadyExists(format!("Ref already exists: {name}")));
        }
        let snapshot_id = match snapshot {
            Some(id) => known(&loaded.metadata, id)?,
            None => loaded.metadata.current_snapshot_id().ok_or_else(|| {
                CatalogError::Invalid(format!("{table} has no snapshot to name yet"))
            })?,
        };
        self.0.commit(set_ref(table, &loaded, name, None, snapshot_id, retention_of(kind))).await
    }

    /// Removes a branch or tag; its snapshots stay until they expire.
    ///
    /// # Errors
    /// `NoSuchTable`, `NoSuchReference`, `Invalid` for a name of another kind than is said, and for
    /// `main`.
    pub async fn drop(
        self,
        table: &TableIdent,
        name: &str,
        kind: Option<RefKind>,
    ) -> Result<(), CatalogError> {
        let loaded = self.0.tables().load(table).await?;
        let found = existing(&loaded.metadata, name)?;
        let is = if found.is_branch() { RefKind::Branch } else { RefKind::Tag };
        if kind.is_some_and(|kind| kind != is) {
            return Err(CatalogError::Invalid(format!("`{name}` is a {is}; drop it as one")));
        }
        if name == MAIN_BRANCH {
            return Err(CatalogError::Invalid("the branch `main` cannot be dropped".to_owned()));
        }
        let updates = vec![TableUpdate::RemoveSnapshotRef { ref_name: name.to_owned() }];
        let requirements = as_found(&loaded, name, Some(found.snapshot_id));
        let table = table.clone();
        let change = TableChange { table, requirements, updates, keeps_history: false };
        self.0.commit(change).await.map(|_| ())
    }

    /// Moves a branch forward to where another name is, if all of its history is part of that.
    ///
    /// # Errors
    /// `NoSuchTable`, `NoSuchReference`, `Invalid` when the branch is no ancestor.
    pub async fn fast_forward(
        self,
        table: &TableIdent,
        branch: &str,
        to: &str,
    ) -> Result<LoadedTable, CatalogError> {
        let loaded = self.0.tables().load(table).await?;
        let (from, to_ref) = (existing(&loaded.metadata, branch)?, existing(&loaded.metadata, to)?);
        check_own_main(&loaded, branch)?;
        if !from.is_branch() {
            return Err(CatalogError::Invalid(format!("`{branch}` is a tag, which does not move")));
        }
        if !ancestors::is_ancestor(&loaded.metadata, from.snapshot_id, Some(to_ref.snapshot_id)) {
            return Err(CatalogError::Invalid(format!(
                "`{branch}` has commits that `{to}` does not have: it cannot be fast-forwarded"
            )));
        }
        let (at, to) = (Some(from.snapshot_id), to_ref.snapshot_id);
        self.0.commit(set_ref(table, &loaded, branch, at, to, from.retention)).await
    }

    /// Makes an earlier state of the table its current one. Nothing is lost: the snapshots after it
    /// stay until they expire.
    ///
    /// # Errors
    /// `NoSuchTable`; `Invalid` for a snapshot that is no ancestor of the current one, and for a
    /// table that the service writes, where acknowledged rows would go.
    pub async fn rollback(
        self,
        table: &TableIdent,
        snapshot: i64,
    ) -> Result<LoadedTable, CatalogError> {
        let loaded = self.0.tables().load(table).await?;
        check_own_main(&loaded, MAIN_BRANCH)?;
        let to = known(&loaded.metadata, snapshot)?;
        let current = loaded.metadata.current_snapshot_id();
        if !ancestors::is_ancestor(&loaded.metadata, to, current) {
            return Err(CatalogError::Invalid(format!(
                "snapshot {snapshot} is not an ancestor of the current one"
            )));
        }
        let main = existing(&loaded.metadata, MAIN_BRANCH)?;
        self.0.commit(set_ref(table, &loaded, MAIN_BRANCH, current, to, main.retention)).await
    }
}

impl TableStats {
    fn add(&mut self, manifest: &Manifest) {
        for entry in manifest.entries().iter().filter(|entry| entry.is_alive()) {
            let file = entry.data_file();
            if file.content_type() != DataContentType::Data {
                self.delete_files += 1;
                self.delete_rows += file.record_count();
                continue;
            }
            self.data_files += 1;
            self.data_rows += file.record_count();
            self.data_bytes += file.file_size_in_bytes();
            self.small_files += u64::from(file.file_size_in_bytes() < SMALL_FILE_BYTES);
        }
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn unreadable(operation: &'static str) -> impl FnOnce(iceberg::Error) -> CatalogError {
    move |source| CatalogError::Iceberg { operation, source }
}

fn retention_of(kind: RefKind) -> SnapshotRetention {
    match kind {
        RefKind::Branch => SnapshotRetention::branch(None, None, None),
        RefKind::Tag => SnapshotRetention::Tag { max_ref_age_ms: None },
    }
}

fn existing(metadata: &TableMetadata, name: &str) -> Result<SnapshotReference, CatalogError> {
    let found = refs::of(metadata).remove(name);
    found.ok_or_else(|| CatalogError::NoSuchReference(name.to_owned()))
}

fn known(metadata: &TableMetadata, snapshot: i64) -> Result<i64, CatalogError> {
    match metadata.snapshot_by_id(snapshot) {
        Some(_) => Ok(snapshot),
        None => Err(CatalogError::Invalid(format!("the table has no snapshot {snapshot}"))),
    }
}

fn check_own_main(loaded: &LoadedTable, branch: &str) -> Result<(), CatalogError> {
    if branch == MAIN_BRANCH && retention::is_managed(&loaded.metadata) {
        return Err(CatalogError::Invalid(
            "the service writes to this table: moving `main` would lose acknowledged rows; read \
             the earlier state with time travel, or create a branch of it"
                .to_owned(),
        ));
    }
    Ok(())
}

fn as_found(loaded: &LoadedTable, name: &str, snapshot_id: Option<i64>) -> Vec<TableRequirement> {
    vec![
        TableRequirement::UuidMatch { uuid: loaded.metadata.uuid() },
        TableRequirement::RefSnapshotIdMatch { r#ref: name.to_owned(), snapshot_id },
    ]
}

/// Moves a name from one snapshot to another.
fn set_ref(
    table: &TableIdent,
    loaded: &LoadedTable,
    name: &str,
    from: Option<i64>,
    to: i64,
    retention: SnapshotRetention,
) -> TableChange {
    let reference = SnapshotReference { snapshot_id: to, retention };
    let update = TableUpdate::SetSnapshotRef { ref_name: name.to_owned(), reference };
    TableChange {
        table: table.clone(),
        requirements: as_found(loaded, name, from),
        updates: vec![update],
        keeps_history: false,
    }
}

#[cfg(test)]
mod tests;
