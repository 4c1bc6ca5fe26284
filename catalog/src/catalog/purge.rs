//! Dropping tables, and deleting files that nothing needs any more.
//!
//! Files are queued in the metastore and deleted later. Only files below the table's own location
//! are ever queued, whatever its metadata names.

use super::{Catalog, LoadedTable, write::GRACE_MS};
use crate::{error::CatalogError, metastore::Obsolete, storage::location::is_below};
use futures::{StreamExt, stream};
use iceberg::{
    TableIdent,
    spec::{Manifest, ManifestList, TableMetadata},
};
use std::collections::BTreeSet;
use tracing::warn;

/// Files queued per transaction.
const QUEUE_BATCH: usize = 1000;
/// Files deleted at the same time.
const DELETES: usize = 8;

impl Catalog {
    /// Removes a table from the catalog; its files are queued for deletion when `purge` is set.
    ///
    /// A table with `gc.enabled=false` shares its files with others: they stay.
    ///
    /// # Errors
    /// `NoSuchTable`.
    pub async fn drop_table(&self, table: &TableIdent, purge: bool) -> Result<(), CatalogError> {
        let (catalog, table) = (self.clone(), table.clone());
        self.to_the_end(async move { catalog.drop_to_the_end(&table, purge).await }).await
    }

    async fn drop_to_the_end(&self, table: &TableIdent, purge: bool) -> Result<(), CatalogError> {
        let _queue = self.inner.locks.lock(std::iter::once(table)).await;
        let files = if purge { self.files_to_purge(table).await? } else { BTreeSet::new() };
        let row = self.metastore().drop_table(table.namespace.as_ref(), &table.name).await?;
        self.inner.cache.remove(&row.metadata_location);
        // After the drop, for a queue must never hold a live table's files; a crash in between
        // leaves orphans, which maintenance finds.
        let not_before_ms = self.now_ms() + GRACE_MS;
        let file = |location| Obsolete { location, not_before_ms };
        let files: Vec<Obsolete> = files.into_iter().map(file).collect();
        for batch in files.chunks(QUEUE_BATCH) {
            self.metastore().add_obsolete(batch).await?;
        }
        Ok(())
    }

    /// Deletes at most `limit` files whose time has come and says how many it deleted.
    ///
    /// # Errors
    /// `Metastore`, `Storage`.
    pub async fn delete_obsolete(&self, limit: u32) -> Result<usize, CatalogError> {
        let due = self.metastore().obsolete(self.now_ms(), limit).await?;
        let deletes = due.into_iter().map(|location| async move {
            let deleted = self.inner.storage.delete(&location).await;
            (location, deleted)
        });
        let deletes: Vec<_> = stream::iter(deletes).buffer_unordered(DELETES).collect().await;
        let (mut gone, mut deleted, mut failure) = (Vec::new(), 0, None);
        for (location, result) in deletes {
            match result {
                Ok(()) => {
                    deleted += 1;
                    gone.push(location);
                }
                Err(CatalogError::LocationForbidden(_)) => {
                    warn!(location, "a file outside of the warehouse is not deleted");
                    gone.push(location);
                }
                Err(cause) => failure = Some(cause),
            }
        }
        self.metastore().forget_obsolete(&gone).await?;
        failure.map_or(Ok(deleted), Err)
    }

    async fn files_to_purge(&self, table: &TableIdent) -> Result<BTreeSet<String>, CatalogError> {
        let loaded = match self.load_table(table).await {
            Ok(loaded) => loaded,
            Err(missing @ CatalogError::NoSuchTable(_)) => return Err(missing),
            Err(cause) => {
                // A table whose metadata is broken must still be possible to drop.
                warn!(%table, error = &cause as &dyn std::error::Error, "purge finds no files");
                return Ok(BTreeSet::new());
            }
        };
        if loaded.metadata.properties().get("gc.enabled").is_some_and(|gc| gc == "false") {
            return Ok(BTreeSet::new());
        }
        Ok(self.files_of(&loaded).await)
    }

    /// Every file that a table's metadata names, as far as it can be read.
    async fn files_of(&self, table: &LoadedTable) -> BTreeSet<String> {
        let metadata = &table.metadata;
        let mut files = BTreeSet::from([table.metadata_location.clone()]);
        files.extend(metadata.metadata_log().iter().map(|entry| entry.metadata_file.clone()));
        files.extend(metadata.statistics_iter().map(|file| file.statistics_path.clone()));
        files.extend(metadata.partition_statistics_iter().map(|file| file.statistics_path.clone()));
        let mut manifests = BTreeSet::new();
        for snapshot in metadata.snapshots() {
            files.insert(snapshot.manifest_list().to_owned());
            if let Some(list) = self.manifest_list(snapshot.manifest_list(), metadata).await {
                manifests.extend(list.entries().iter().map(|file| file.manifest_path.clone()));
            }
        }
        for location in manifests {
            if let Some(manifest) = self.manifest(&location).await {
                files.extend(manifest.entries().iter().map(|entry| entry.file_path().to_owned()));
            }
            files.insert(location);
        }
        let storage = &self.inner.storage;
        let Ok(own) = storage.normalize(metadata.location()) else { return BTreeSet::new() };
        let files = files.iter().filter_map(|file| storage.normalize(file).ok());
        files.filter(|file| is_below(file, &own)).collect()
    }

    async fn manifest_list(
        &self,
        location: &str,
        metadata: &TableMetadata,
    ) -> Option<ManifestList> {
        let bytes = self.readable(location).await?;
        let parsed = ManifestList::parse_with_version(&bytes, metadata.format_version());
        parsed.inspect_err(|cause| warn!(location, %cause, "purge skips a manifest list")).ok()
    }

    async fn manifest(&self, location: &str) -> Option<Manifest> {
        let bytes = self.readable(location).await?;
        let parsed = Manifest::parse_avro(&bytes);
        parsed.inspect_err(|cause| warn!(location, %cause, "purge skips a manifest")).ok()
    }

    async fn readable(&self, location: &str) -> Option<bytes::Bytes> {
        let read = self.inner.storage.get(location).await;
        read.inspect_err(|cause| {
            warn!(location, error = cause as &dyn std::error::Error, "purge skips a file");
        })
        .ok()
    }
}
