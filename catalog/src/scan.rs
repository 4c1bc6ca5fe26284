//! Which files of a snapshot a reader has to open: the one planner, for our own SQL and for
//! clients of the REST protocol.
//!
//! It reads manifests through a cache and knows no engine; who has expressions of its own puts them
//! into a [`filter::Filter`] first. Its one invariant: a file is left out only if no row of it can
//! meet the filter.

pub mod deletes;
pub mod facts;
pub mod filter;
#[cfg(test)]
pub(crate) mod fixture;
mod inspect;
pub mod json;
pub mod manifests;
pub mod prune;
mod range;
#[cfg(test)]
mod tests;

use crate::{ancestors, error::CatalogError, storage::Storage};
use deletes::DeleteIndex;
use filter::Filter;
use iceberg::spec::{ManifestFile, Operation, TableMetadata};
use manifests::{ManifestCache, PlannedFile, PlannedFiles, has_deletes};
use std::{collections::HashSet, sync::Arc};
use tokio::time::Instant;

/// Why a scan is not planned.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The snapshot has expired or never was.
    #[error("snapshot {0} has expired")]
    NoSuchSnapshot(i64),
    /// The request does not fit the table; the text says what to change.
    #[error("{0}")]
    Invalid(String),
    /// The table has something that is not planned here.
    #[error("{0}")]
    Unsupported(String),
    /// It did not end before its [`Deadline`].
    #[error("planning the scan takes too long")]
    TooSlow,
    /// A manifest or manifest list does not read: no other copy of it is known.
    #[error(
        "`{location}` of the table {reason}: restore the file, or roll back to an earlier snapshot"
    )]
    Damaged {
        /// Which file.
        location: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The files do not read.
    #[error("plan a scan")]
    Catalog(#[from] CatalogError),
}

/// When planning has to end. It looks at it again and again and stops by itself: nobody can stop
/// work that does not wait for anything.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// Planning may take as long as it takes.
    pub const NONE: Self = Self(None);

    /// Planning ends at this time.
    #[must_use]
    pub fn at(end: Instant) -> Self {
        Self(Some(end))
    }

    /// Fails once the time is over.
    ///
    /// # Errors
    /// [`ScanError::TooSlow`].
    pub fn check(self) -> Result<(), ScanError> {
        if self.0.is_some_and(|end| end <= Instant::now()) {
            return Err(ScanError::TooSlow);
        }
        Ok(())
    }
}

/// Where a table's manifests come from.
#[derive(Clone, Copy, Debug)]
pub struct ManifestSource<'a> {
    /// The store.
    pub storage: &'a Storage,
    /// Manifests that are read already.
    pub cache: &'a ManifestCache,
    /// The table.
    pub metadata: &'a TableMetadata,
    /// How long that may take.
    pub until: Deadline,
}

/// What is left to read.
#[derive(Debug)]
pub struct ScanPlan {
    /// The data files.
    pub files: PlannedFiles,
    /// The snapshot's delete files; [`DeleteIndex::of`] tells which of them reach a data file.
    pub deletes: DeleteIndex,
}

/// The manifests that may list files for a filter.
#[derive(Debug)]
pub struct ManifestSelection {
    /// Those of data files, each with the snapshot whose additions alone are wanted, if any.
    pub data: Vec<(ManifestFile, Option<i64>)>,
    /// Those of delete files.
    pub deletes: Vec<ManifestFile>,
}

impl ManifestSource<'_> {
    /// The files that may hold a row of a snapshot that meets the filter.
    ///
    /// # Errors
    /// As [`Self::list`] and [`Self::read`].
    pub async fn plan(&self, snapshot_id: i64, filter: &Filter) -> Result<ScanPlan, ScanError> {
        let listed = self.list(snapshot_id, filter).await?;
        self.read(&listed.data, &listed.deletes, filter).await
    }

    /// The manifests of a snapshot that may list such files.
    ///
    /// # Errors
    /// [`ScanError::NoSuchSnapshot`], [`ScanError::Unsupported`] for encrypted tables,
    /// [`ScanError::Catalog`].
    pub async fn list(
        &self,
        snapshot_id: i64,
        filter: &Filter,
    ) -> Result<ManifestSelection, ScanError> {
        let manifests = self.manifests(snapshot_id).await?;
        let (deletes, data): (Vec<_>, Vec<_>) = manifests.iter().cloned().partition(has_deletes);
        let data =
            data.into_iter().filter(|manifest| prune::may_list(self.metadata, manifest, filter));
        Ok(ManifestSelection { data: data.map(|manifest| (manifest, None)).collect(), deletes })
    }

    /// The manifests with files that were appended after the snapshot `start` up to `end`.
    ///
    /// Snapshots in between that did something else than append add nothing, and deletes are not
    /// applied: each file is what was added then.
    ///
    /// # Errors
    /// As [`Self::list`]; [`ScanError::Invalid`] when `start` is no ancestor of `end`.
    pub async fn list_appended(
        &self,
        start: i64,
        end: i64,
        filter: &Filter,
    ) -> Result<ManifestSelection, ScanError> {
        let mut data = Vec::new();
        let mut is_reached = false;
        for id in ancestors::ids(self.metadata, Some(end)) {
            self.until.check()?;
            is_reached = id == start;
            let snapshot = self.metadata.snapshot_by_id(id).filter(|_| !is_reached);
            let Some(snapshot) = snapshot else { break };
            if snapshot.summary().operation == Operation::Append {
                let manifests = self.manifests(id).await?;
                let added = manifests.iter().filter(|manifest| {
                    manifest.added_snapshot_id == id
                        && !has_deletes(manifest)
                        && prune::may_list(self.metadata, manifest, filter)
                });
                data.extend(added.map(|manifest| (manifest.clone(), Some(id))));
            }
        }
        if !is_reached {
            return Err(match self.metadata.snapshot_by_id(end) {
                None => ScanError::NoSuchSnapshot(end),
                Some(_) => ScanError::Invalid(format!(
                    "start-snapshot-id {start} is not an ancestor of end-snapshot-id {end}, or a snapshot between them has expired"
                )),
            });
        }
        data.reverse();
        Ok(ManifestSelection { data, deletes: Vec::new() })
    }

    /// The files in some of the listed manifests, with all delete files.
    ///
    /// # Errors
    /// [`ScanError::Catalog`] when a manifest does not read.
    pub async fn read(
        &self,
        data: &[(ManifestFile, Option<i64>)],
        deletes: &[ManifestFile],
        filter: &Filter,
    ) -> Result<ScanPlan, ScanError> {
        let mut files = PlannedFiles::new();
        let all: Vec<&ManifestFile> = data.iter().map(|(manifest, _)| manifest).collect();
        let wanted: HashSet<i64> = data.iter().filter_map(|(_, added_by)| *added_by).collect();
        let is_wanted = |file: &PlannedFile| {
            wanted.is_empty() || file.added_by.is_some_and(|id| wanted.contains(&id))
        };
        for file in self.cache.files(self.storage, self.metadata, &all, self.until).await? {
            self.until.check()?;
            if is_wanted(&file) && prune::may_match(self.metadata, &file, filter) {
                files.push(file);
            }
        }
        let deletes: Vec<&ManifestFile> =
            if files.is_empty() { Vec::new() } else { deletes.iter().collect() };
        let deletes = self.cache.files(self.storage, self.metadata, &deletes, self.until).await?;
        Ok(ScanPlan { files, deletes: DeleteIndex::new(self.metadata, deletes) })
    }

    /// What a file's partition leaves of the filter to check on its rows.
    #[must_use]
    pub fn residual(&self, file: &PlannedFile, filter: &Filter) -> Filter {
        prune::residual(self.metadata, file, filter)
    }

    async fn manifests(&self, snapshot_id: i64) -> Result<Arc<Vec<ManifestFile>>, ScanError> {
        self.check_is_plain(snapshot_id)?;
        self.cache.manifests(self.storage, self.metadata, snapshot_id).await
    }

    /// Refuses a snapshot whose manifest list is encrypted.
    fn check_is_plain(&self, snapshot_id: i64) -> Result<(), ScanError> {
        let snapshot = self.metadata.snapshot_by_id(snapshot_id);
        if snapshot.is_some_and(|snapshot| snapshot.encryption_key_id().is_some()) {
            return Err(ScanError::Unsupported(
                "the table is encrypted, so its manifests cannot be read here: plan the scan in the client".to_owned(),
            ));
        }
        Ok(())
    }
}
