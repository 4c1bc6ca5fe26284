//! Delete files of a commit, before it is committed: each has to reach what it is about.
//!
//! A position delete applies to a data file of its own partition spec and partition only. Readers that
//! follow the specification pass over any other, and readers that go by the file's name do not: the
//! same snapshot would have two contents. So a commit with such a delete file is refused.

use super::Catalog;
use crate::{
    append::{self, rebase::row_delta},
    commit,
    error::CatalogError,
    manifest_file,
};
use iceberg::{
    TableUpdate,
    spec::{ManifestContentType, ManifestFile, Snapshot, TableMetadata},
};
use std::collections::HashMap;

/// Most manifests of other specs that are looked through; a table that has more is read by the rule
/// alone.
const MANIFESTS_MAX: usize = 1_000;

impl Catalog {
    /// Checks the position deletes that the snapshots of `updates` add to a table whose partition
    /// spec was changed: of any other table they cannot be of the wrong spec.
    pub(super) async fn check_deletes(
        &self,
        new: &TableMetadata,
        updates: &[TableUpdate],
    ) -> Result<(), CatalogError> {
        if new.partition_specs_iter().len() < 2 || !self.inner.options.checks_contents {
            return Ok(());
        }
        for snapshot in commit::added(updates) {
            self.check_deletes_of(new, snapshot).await?;
        }
        Ok(())
    }

    async fn check_deletes_of(
        &self,
        new: &TableMetadata,
        snapshot: &Snapshot,
    ) -> Result<(), CatalogError> {
        let storage = &self.inner.storage;
        let manifests = append::read_list(storage, new, snapshot).await?;
        let (deletes, data): (Vec<_>, Vec<_>) = manifests
            .into_iter()
            .partition(|manifest| manifest.content == ManifestContentType::Deletes);
        let mut specs: HashMap<String, (i32, String)> = HashMap::new();
        let id = snapshot.snapshot_id();
        for manifest in deletes.iter().filter(|manifest| manifest.added_snapshot_id == id) {
            for entry in self.live_entries(new, manifest).await? {
                if let Some(path) = row_delta::referenced(entry.data_file()) {
                    let file = entry.file_path().to_owned();
                    specs.insert(path, (manifest.partition_spec_id, file));
                }
            }
        }
        let is_other = |manifest: &&ManifestFile| {
            specs.values().any(|(spec, _)| *spec != manifest.partition_spec_id)
        };
        let others: Vec<&ManifestFile> = data.iter().filter(is_other).collect();
        if MANIFESTS_MAX < others.len() {
            return Ok(());
        }
        for manifest in others {
            let written = manifest.partition_spec_id;
            for entry in self.live_entries(new, manifest).await? {
                let found = specs.get(entry.file_path());
                let Some((spec, file)) = found.filter(|(spec, _)| *spec != written) else {
                    continue;
                };
                return Err(CatalogError::Invalid(format!(
                    "`{file}` deletes rows of `{}`, which is of partition spec {written}, and is \
                     itself of spec {spec}: by the specification no reader applies it. Delete with an \
                     engine that writes deletes under the spec of the data file, such as Spark, or \
                     have the older files rewritten first",
                    entry.file_path()
                )));
            }
        }
        Ok(())
    }

    async fn live_entries(
        &self,
        new: &TableMetadata,
        manifest: &ManifestFile,
    ) -> Result<Vec<iceberg::spec::ManifestEntryRef>, CatalogError> {
        let own = self.inner.storage.normalize(new.location())?;
        let bytes = self.inner.storage.get(own.admit(&manifest.manifest_path)?.as_str()).await?;
        let parsed = manifest_file::parse(&bytes)
            .map_err(|source| CatalogError::Iceberg { operation: "read a manifest", source })?;
        Ok(parsed.into_parts().0.into_iter().filter(|entry| entry.is_alive()).collect())
    }
}
