//! Dropping tables, having them back, and deleting files that nothing needs any more.
//!
//! Files are queued in the metastore and deleted later. Only files below the table's own location
//! are ever queued, whatever its metadata names.

use super::{Catalog, Tables, managed_table_rules, write::TableWrite};
use crate::{
    error::CatalogError,
    location::Location,
    manifest_file,
    metastore::{DropTerms, NewTable, ObsoleteFile, TrashRow},
    retention::expiry,
    snapshot::OBSOLETE_GRACE_MS,
    storage,
};
use iceberg::{
    TableIdent,
    spec::{Manifest, ManifestList, TableMetadata},
};
use std::{collections::BTreeSet, sync::Arc};
use tracing::warn;
use uuid::Uuid;

/// Files queued per transaction.
const QUEUE_BATCH: usize = 1000;
/// Most dropped tables in a list.
const TRASH_LISTED_MAX: u32 = 10_000;
/// When a file that could not be deleted, or a dropped table whose files could not be found, is
/// tried again: others come first.
pub(super) const RETRY_MS: i64 = 10 * 60 * 1000;

/// What dropping a table means.
#[derive(Clone, Copy, Debug)]
pub struct DropPolicy {
    /// For how long a dropped table can be restored, ms.
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

/// The dropped tables of a catalog, until they are gone for good.
#[derive(Clone, Copy, Debug)]
pub struct Trash<'a>(&'a Catalog);

impl Catalog {
    /// Its dropped tables.
    #[must_use]
    pub fn trash(&self) -> Trash<'_> {
        Trash(self)
    }

    async fn drop_to_the_end(&self, table: &TableIdent, purge: bool) -> Result<Uuid, CatalogError> {
        let _queue = self.inner.locks.lock(std::iter::once(table)).await;
        self.check_stays(table, "dropped").await?;
        let policy = self.inner.options.drop_policy;
        let now_ms = self.now_ms();
        let terms = DropTerms {
            dropped_ms: now_ms,
            until_ms: now_ms.saturating_add(policy.undrop_ms),
            purge: purge && policy.purge,
        };
        let (levels, name) = (table.namespace.as_ref(), table.name.as_str());
        let row = if terms.until_ms > now_ms || terms.purge {
            self.metastore().trash_table(levels, name, &terms).await?
        } else {
            self.metastore().drop_table(levels, name).await?
        };
        self.forget(&row.metadata_location);
        Ok(row.uuid)
    }
}

impl Tables<'_> {
    /// Removes a table from the catalog and gives its identity, by which it can be restored with
    /// [`Trash::restore`] as long as the [`DropPolicy`] says; after that its files go if
    /// `purge` is set and the policy allows it.
    ///
    /// # Errors
    /// `NoSuchTable`, `Protected`, `Invalid` for a table that the service writes.
    pub async fn drop(self, table: &TableIdent, purge: bool) -> Result<Uuid, CatalogError> {
        let (catalog, table) = (self.0.clone(), table.clone());
        self.0.to_the_end(async move { catalog.drop_to_the_end(&table, purge).await }).await
    }
}

impl Trash<'_> {
    /// Puts a dropped table back, under the name it had or another one.
    ///
    /// # Errors
    /// `NoSuchTable` when it is not in the trash or its files are being deleted, `AlreadyExists`
    /// when the name is taken, `NoSuchNamespace`; `Invalid` when its metadata file does not read,
    /// for a name that is kept for the service, and for another name than its own for a table that
    /// the service writes.
    pub async fn restore(
        self,
        uuid: Uuid,
        name: Option<&TableIdent>,
    ) -> Result<TableIdent, CatalogError> {
        let row = self.0.metastore().dropped(uuid).await?;
        let row = row.ok_or_else(|| CatalogError::NoSuchTable(format!("{uuid} (dropped)")))?;
        let before = super::create::ident(&row.levels, &row.name)?;
        let ident = name.unwrap_or(&before).clone();
        crate::names::check_new(&ident.name)?;
        let read = self.0.metadata_of(row.known()).await;
        let metadata = read.map_err(|cause| match super::is_of_file(&cause) {
            true => CatalogError::Invalid(format!(
                "{uuid} cannot be restored: {}",
                super::unreadable_file(&row.metadata_location, &cause)
            )),
            false => cause,
        })?;
        managed_table_rules::check_comes_back(&before, &ident, &metadata)?;
        let metadata = Arc::unwrap_or_clone(metadata);
        let write = TableWrite::adopted(ident.clone(), None, metadata, row.metadata_location);
        let table = NewTable { uuid, location: row.location, ..write.new_table() };
        self.0.metastore().undrop(&table).await?;
        Ok(ident)
    }

    /// The dropped tables that can be restored or are being purged, the last dropped first.
    ///
    /// # Errors
    /// `Metastore`.
    pub async fn list(self) -> Result<Vec<TrashRow>, CatalogError> {
        self.0.metastore().trash(TRASH_LISTED_MAX).await
    }

    /// Ends the time in which a dropped table can be restored, and has its files deleted.
    ///
    /// # Errors
    /// `NoSuchTable`.
    pub async fn purge(self, uuid: Uuid) -> Result<(), CatalogError> {
        let now_ms = self.0.now_ms();
        let terms = DropTerms { dropped_ms: now_ms, until_ms: now_ms, purge: true };
        self.0.metastore().change_trash(uuid, &terms).await
    }

    /// Forgets dropped tables whose time is over, and queues the files of at most `limit` that are
    /// purged; says how many those were. One whose files cannot be found now is tried again later.
    ///
    /// # Errors
    /// `Metastore`; `Storage` when it kept a table's files from being found, after the others.
    pub async fn empty(self, limit: u32) -> Result<usize, CatalogError> {
        // A crash before the last step repeats them all: files are queued once, however often.
        let expired = self.0.metastore().expire_trash(self.0.now_ms(), limit).await?;
        let mut failure = None;
        for row in &expired {
            if let Err(cause) = self.queue_files(row).await {
                self.0.metastore().put_off_purge(row.uuid, self.0.now_ms() + RETRY_MS).await?;
                failure = Some(cause);
                continue;
            }
            self.0.metastore().forget_trash(row.uuid).await?;
        }
        failure.map_or(Ok(expired.len()), Err)
    }

    /// Queues every file that a table's metadata names, but for what lost files would have named, and
    /// none of a table whose `gc.enabled` is not `true`, which shares its files with others. Fails when the
    /// store does: what it could not read may name files.
    ///
    /// A table may have millions of files, so those of one manifest are queued after another's, and a
    /// file that names others after these: a try that is repeated still finds what is not queued.
    async fn queue_files(self, dropped: &TrashRow) -> Result<(), CatalogError> {
        let read = self.0.metadata_of(dropped.known()).await;
        let read = unless_lost(&dropped.metadata_location, read)?;
        let Some(metadata) = read.filter(|metadata| !is_shared(metadata)) else { return Ok(()) };
        let Ok(own) = self.0.inner.storage.normalize(&dropped.location) else { return Ok(()) };
        let mut files = vec![dropped.metadata_location.clone()];
        files.extend(metadata.metadata_log().iter().map(|entry| entry.metadata_file.clone()));
        files.extend(metadata.statistics_iter().map(|file| file.statistics_path.clone()));
        files.extend(metadata.partition_statistics_iter().map(|file| file.statistics_path.clone()));
        let mut manifests = BTreeSet::new();
        for snapshot in metadata.snapshots() {
            files.push(snapshot.manifest_list().to_owned());
            if let Some(list) =
                self.manifest_list(&own, snapshot.manifest_list(), &metadata).await?
            {
                manifests.extend(list.entries().iter().map(|file| file.manifest_path.clone()));
            }
        }
        for location in manifests {
            let manifest = self.manifest(&own, &location).await?;
            let entries = manifest.iter().flat_map(|manifest| manifest.entries());
            let mut named: Vec<String> =
                entries.map(|entry| entry.file_path().to_owned()).collect();
            named.push(location);
            self.queue(&own, named).await?;
        }
        self.queue(&own, files).await
    }

    async fn queue(self, own: &Location, files: Vec<String>) -> Result<(), CatalogError> {
        let not_before_ms = self.0.now_ms() + OBSOLETE_GRACE_MS;
        let admitted = files.iter().filter_map(|file| own.admit(file).ok());
        let file = |own: Location| ObsoleteFile { location: own.to_string(), not_before_ms };
        let files: Vec<ObsoleteFile> = admitted.map(file).collect();
        for batch in files.chunks(QUEUE_BATCH) {
            self.0.metastore().add_obsolete(batch).await?;
        }
        Ok(())
    }

    async fn manifest_list(
        self,
        own: &Location,
        location: &str,
        metadata: &TableMetadata,
    ) -> Result<Option<ManifestList>, CatalogError> {
        let Some(bytes) = self.readable(own, location).await? else { return Ok(None) };
        let parsed = manifest_file::parse_list(&bytes, metadata.format_version());
        unless_lost(location, parsed.map_err(unreadable("read a manifest list")))
    }

    async fn manifest(
        self,
        own: &Location,
        location: &str,
    ) -> Result<Option<Manifest>, CatalogError> {
        let Some(bytes) = self.readable(own, location).await? else { return Ok(None) };
        unless_lost(location, manifest_file::parse(&bytes).map_err(unreadable("read a manifest")))
    }

    async fn readable(
        self,
        own: &Location,
        location: &str,
    ) -> Result<Option<bytes::Bytes>, CatalogError> {
        let read = match own.admit(location) {
            Ok(location) => self.0.inner.storage.get(location.as_str()).await,
            Err(cause) => Err(cause),
        };
        unless_lost(location, read)
    }
}

/// None for what no later try would read either.
fn unless_lost<T>(
    location: &str,
    read: Result<T, CatalogError>,
) -> Result<Option<T>, CatalogError> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(cause) if is_no_file(&cause) || matches!(cause, CatalogError::Iceberg { .. }) => {
            let error = &cause as &dyn std::error::Error;
            warn!(location, error, "purge goes on without what a file names");
            Ok(None)
        }
        Err(cause) => Err(cause),
    }
}

/// Whether there is nothing at a place that could be read or deleted, or the place is not ours.
pub(super) fn is_no_file(cause: &CatalogError) -> bool {
    storage::is_missing(cause)
        || matches!(
            cause,
            CatalogError::MissingMetadata(_)
                | CatalogError::LocationForbidden(_)
                | CatalogError::Invalid(_)
        )
}

fn unreadable(operation: &'static str) -> impl FnOnce(iceberg::Error) -> CatalogError {
    move |source| CatalogError::Iceberg { operation, source }
}

pub(super) fn is_shared(metadata: &TableMetadata) -> bool {
    expiry::gc_obstacle(metadata).is_some()
}
