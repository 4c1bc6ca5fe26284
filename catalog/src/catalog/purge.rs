//! Dropping tables, having them back, and deleting files that nothing needs any more.
//!
//! Files are queued in the metastore and deleted later. Only files below the table's own location
//! are ever queued, whatever its metadata names.

use super::{Catalog, jail, write::GRACE_MS};
use crate::{
    commit,
    error::CatalogError,
    location::Location,
    metastore::{Changes, Comes, Kind, NewTable, Obsolete, Trash, TrashRow},
};
use futures::{StreamExt, stream};
use iceberg::{
    TableIdent,
    spec::{Manifest, ManifestList, TableMetadata},
};
use std::collections::BTreeSet;
use tracing::warn;
use uuid::Uuid;

/// Files queued per transaction.
const QUEUE_BATCH: usize = 1000;
/// Most dropped tables in a list.
const TRASH_LISTED_MAX: u32 = 10_000;
/// Files deleted at the same time.
const DELETES: usize = 8;

/// What dropping a table means.
#[derive(Clone, Copy, Debug)]
pub struct DropPolicy {
    /// For how long a dropped table can be had back, ms.
    pub undrop_ms: i64,
    /// Whether clients may have a table's files deleted with it; they stay otherwise.
    pub purge: bool,
}

impl Default for DropPolicy {
    /// Seven days, and files stay.
    fn default() -> Self {
        Self { undrop_ms: 7 * 24 * 60 * 60 * 1000, purge: false }
    }
}

impl Catalog {
    /// Removes a table from the catalog. It can be had back with [`Catalog::undrop_table`] as long as
    /// the [`DropPolicy`] says; after that its files go if `purge` is set and the policy allows it.
    ///
    /// # Errors
    /// `NoSuchTable`, `Protected`, `Invalid` for a table that the service writes.
    pub async fn drop_table(&self, table: &TableIdent, purge: bool) -> Result<(), CatalogError> {
        let (catalog, table) = (self.clone(), table.clone());
        self.to_the_end(async move { catalog.drop_to_the_end(&table, purge).await }).await
    }

    async fn drop_to_the_end(&self, table: &TableIdent, purge: bool) -> Result<(), CatalogError> {
        let _queue = self.inner.locks.lock(std::iter::once(table)).await;
        self.check_stays(table, "dropped").await?;
        let policy = self.inner.options.drop_policy;
        let now_ms = self.now_ms();
        let trash = Trash {
            dropped_ms: now_ms,
            until_ms: now_ms.saturating_add(policy.undrop_ms),
            purge: purge && policy.purge,
        };
        let (levels, name) = (table.namespace.as_ref(), table.name.as_str());
        let row = if trash.until_ms > now_ms || trash.purge {
            self.metastore().trash_table(levels, name, &trash).await?
        } else {
            self.metastore().drop_table(levels, name).await?
        };
        self.forget(&row.metadata_location);
        Ok(())
    }

    /// Puts a dropped table back, under the name it had or another one.
    ///
    /// # Errors
    /// `NoSuchTable` when it is not in the trash or its files are being deleted, `AlreadyExists`
    /// when the name is taken, `NoSuchNamespace`; `Invalid` for a name that is kept for the service,
    /// and for another name than its own for a table that the service writes.
    pub async fn undrop_table(
        &self,
        uuid: Uuid,
        name: Option<&TableIdent>,
    ) -> Result<TableIdent, CatalogError> {
        let row = self.metastore().dropped(uuid).await?;
        let row = row.ok_or_else(|| CatalogError::NoSuchTable(format!("{uuid} (dropped)")))?;
        let before = super::create::ident(&row.levels, &row.name)?;
        let ident = name.unwrap_or(&before).clone();
        crate::names::check_new(&ident.name)?;
        let metadata = self.metadata_of(row.known()).await?;
        self.check_comes_back((&before, &ident), &metadata)?;
        let table = NewTable {
            kind: Kind::Table,
            levels: ident.namespace.as_ref().clone(),
            name: ident.name.clone(),
            uuid,
            comes: Comes::Adopted { needs: jail::needs(&metadata, &row.metadata_location) },
            metadata_location: row.metadata_location,
            location: row.location,
            snapshots: commit::added_snapshots(None, &metadata),
            changes: Changes::default(),
        };
        self.metastore().undrop(&table).await?;
        Ok(ident)
    }

    /// The dropped tables that can be had back or are being purged, the last dropped first.
    ///
    /// # Errors
    /// `Metastore`.
    pub async fn dropped_tables(&self) -> Result<Vec<TrashRow>, CatalogError> {
        self.metastore().trash(TRASH_LISTED_MAX).await
    }

    /// Ends the time in which a dropped table can be had back, and has its files deleted.
    ///
    /// # Errors
    /// `NoSuchTable`.
    pub async fn purge_dropped(&self, uuid: Uuid) -> Result<(), CatalogError> {
        let now_ms = self.now_ms();
        let trash = Trash { dropped_ms: now_ms, until_ms: now_ms, purge: true };
        self.metastore().change_trash(uuid, &trash).await
    }

    /// Forgets dropped tables whose time is over, and queues the files of at most `limit` that are
    /// purged; says how many those were.
    ///
    /// # Errors
    /// `Metastore`.
    pub async fn empty_trash(&self, limit: u32) -> Result<usize, CatalogError> {
        // A crash before the last step repeats them all: files are queued once, however often.
        let expired = self.metastore().expire_trash(self.now_ms(), limit).await?;
        for row in &expired {
            let not_before_ms = self.now_ms() + GRACE_MS;
            let file = |location| Obsolete { location, not_before_ms };
            let files = self.files_to_purge(row).await.into_iter();
            let files: Vec<Obsolete> = files.map(file).collect();
            for batch in files.chunks(QUEUE_BATCH) {
                self.metastore().add_obsolete(batch).await?;
            }
            self.metastore().forget_trash(row.uuid).await?;
        }
        Ok(expired.len())
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

    /// None for a table with `gc.enabled=false`, which shares its files with others.
    async fn files_to_purge(&self, dropped: &TrashRow) -> BTreeSet<String> {
        match self.metadata_of(dropped.known()).await {
            Ok(metadata) if is_shared(&metadata) => BTreeSet::new(),
            Ok(metadata) => self.files_of(dropped, &metadata).await,
            Err(cause) => {
                let error = &cause as &dyn std::error::Error;
                warn!(uuid = %dropped.uuid, error, "purge finds no files");
                BTreeSet::new()
            }
        }
    }

    /// Every file that a table's metadata names, as far as it can be read.
    async fn files_of(&self, dropped: &TrashRow, metadata: &TableMetadata) -> BTreeSet<String> {
        let Ok(own) = self.inner.storage.normalize(&dropped.location) else {
            return BTreeSet::new();
        };
        let mut files = BTreeSet::from([dropped.metadata_location.clone()]);
        files.extend(metadata.metadata_log().iter().map(|entry| entry.metadata_file.clone()));
        files.extend(metadata.statistics_iter().map(|file| file.statistics_path.clone()));
        files.extend(metadata.partition_statistics_iter().map(|file| file.statistics_path.clone()));
        let mut manifests = BTreeSet::new();
        for snapshot in metadata.snapshots() {
            files.insert(snapshot.manifest_list().to_owned());
            if let Some(list) = self.manifest_list(&own, snapshot.manifest_list(), metadata).await {
                manifests.extend(list.entries().iter().map(|file| file.manifest_path.clone()));
            }
        }
        for location in manifests {
            if let Some(manifest) = self.manifest(&own, &location).await {
                files.extend(manifest.entries().iter().map(|entry| entry.file_path().to_owned()));
            }
            files.insert(location);
        }
        files.iter().filter_map(|file| Some(own.admit(file).ok()?.to_string())).collect()
    }

    async fn manifest_list(
        &self,
        own: &Location,
        location: &str,
        metadata: &TableMetadata,
    ) -> Option<ManifestList> {
        let bytes = self.readable(own, location).await?;
        let parsed = ManifestList::parse_with_version(&bytes, metadata.format_version());
        parsed.inspect_err(|cause| warn!(location, %cause, "purge skips a manifest list")).ok()
    }

    async fn manifest(&self, own: &Location, location: &str) -> Option<Manifest> {
        let bytes = self.readable(own, location).await?;
        let parsed = Manifest::parse_avro(&bytes);
        parsed.inspect_err(|cause| warn!(location, %cause, "purge skips a manifest")).ok()
    }

    async fn readable(&self, own: &Location, location: &str) -> Option<bytes::Bytes> {
        let read = match own.admit(location) {
            Ok(location) => self.inner.storage.get(location.as_str()).await,
            Err(cause) => Err(cause),
        };
        read.inspect_err(|cause| {
            warn!(location, error = cause as &dyn std::error::Error, "purge skips a file");
        })
        .ok()
    }
}

fn is_shared(metadata: &TableMetadata) -> bool {
    metadata.properties().get("gc.enabled").is_some_and(|gc| gc == "false")
}
