//! Reading tables.

use super::{Catalog, LoadedTable, Tables, VerifyAtLoad};
use crate::{error::CatalogError, metadata_file::cache::EncodedParts, metastore::TableRow};
use iceberg::{TableIdent, spec::TableMetadata};
use std::sync::Arc;
use uuid::Uuid;

impl Tables<'_> {
    /// A table as it stands now. Parsed metadata is cached by file.
    ///
    /// # Errors
    /// `NoSuchTable` (also when the namespace is missing), `MissingMetadata`, `Storage`.
    pub async fn load(self, table: &TableIdent) -> Result<LoadedTable, CatalogError> {
        let found = self.0.find(table).await?;
        found.ok_or_else(|| CatalogError::NoSuchTable(table.to_string()))
    }

    /// A table for a client, whose metadata file is there as far as [`VerifyAtLoad`] says.
    ///
    /// # Errors
    /// As [`Tables::load`].
    pub async fn load_present(self, table: &TableIdent) -> Result<LoadedTable, CatalogError> {
        let loaded = self.load(table).await?;
        self.0.verify(&loaded.metadata_location).await?;
        Ok(loaded)
    }

    /// A table as its metadata file says now, whatever this process knows of the file.
    ///
    /// # Errors
    /// As [`Tables::load`].
    pub async fn load_anew(self, table: &TableIdent) -> Result<LoadedTable, CatalogError> {
        let row = self.0.metastore().table(table.namespace.as_ref(), &table.name).await?;
        let row = row.ok_or_else(|| CatalogError::NoSuchTable(table.to_string()))?;
        self.0.forget(&row.metadata_location);
        self.load(table).await
    }

    /// A table as one of its metadata files has it, whether or not it is there any more.
    ///
    /// # Errors
    /// `NoSuchTable` when the file is not the table's, `MissingMetadata`, `Invalid`, `Storage`.
    pub(crate) async fn load_file(
        self,
        uuid: Uuid,
        file: &str,
    ) -> Result<LoadedTable, CatalogError> {
        let metadata = match self.0.metastore().table_by_uuid(uuid).await? {
            Some(row) => {
                let metadata_location = file.to_owned();
                self.0.metadata_of(TableRow { metadata_location, ..row }.known()).await?
            }
            // It was dropped since, and nobody gets at its files any more.
            None => Arc::new(self.0.foreign_metadata::<TableMetadata>(file).await?),
        };
        if metadata.uuid() != uuid {
            return Err(CatalogError::NoSuchTable(uuid.to_string()));
        }
        let metadata_location = file.to_owned();
        Ok(LoadedTable { metadata, metadata_location, version: 0, watermark: None })
    }
}

impl Catalog {
    /// What a load does beside loading.
    pub(super) async fn verify(&self, metadata_location: &str) -> Result<(), CatalogError> {
        let looks = match self.inner.options.verify_at_load {
            VerifyAtLoad::Always => true,
            VerifyAtLoad::OnLocalDisk => self.inner.storage.is_local(),
            VerifyAtLoad::Never => false,
        };
        if looks { self.check_is_there(metadata_location).await } else { Ok(()) }
    }

    pub(super) async fn check_is_there(&self, metadata_location: &str) -> Result<(), CatalogError> {
        match self.inner.storage.exists(metadata_location).await? {
            true => Ok(()),
            false => Err(CatalogError::MissingMetadata(metadata_location.to_owned())),
        }
    }

    /// Remembers the request that changes nothing, as the table is as it wants it.
    pub(super) async fn keep_request(
        &self,
        table: Option<&LoadedTable>,
    ) -> Result<(), CatalogError> {
        let made = table.map(|table| (table.metadata.uuid(), table.metadata_location.as_str()));
        self.metastore().keep_request(made).await
    }

    pub(super) async fn find(
        &self,
        table: &TableIdent,
    ) -> Result<Option<LoadedTable>, CatalogError> {
        let row = self.metastore().table(table.namespace.as_ref(), &table.name).await?;
        let Some(row) = row else { return Ok(None) };
        match self.metadata_of(row.known()).await {
            Ok(metadata) => Ok(Some(loaded(row, metadata))),
            // A commit in between may have let this file be deleted: the pointer is looked at again.
            Err(cause) => self.find_again(table, &row, cause).await,
        }
    }

    async fn find_again(
        &self,
        table: &TableIdent,
        before: &TableRow,
        cause: CatalogError,
    ) -> Result<Option<LoadedTable>, CatalogError> {
        let row = self.metastore().table(table.namespace.as_ref(), &table.name).await?;
        match row {
            None => Ok(None),
            Some(row) if row == *before => Err(cause),
            Some(row) => {
                let metadata = self.metadata_of(row.known()).await?;
                Ok(Some(loaded(row, metadata)))
            }
        }
    }

    /// The encoded parts of a table; made anew only when its last commit was not made here.
    pub(crate) fn encoded_parts(&self, table: &LoadedTable) -> Arc<EncodedParts> {
        self.parts_of(&table.metadata_location, &table.metadata)
    }

    /// The same, of the metadata in a file.
    pub(super) fn parts_of(
        &self,
        location: &str,
        metadata: &Arc<TableMetadata>,
    ) -> Arc<EncodedParts> {
        match self.inner.parts_cache.get(location) {
            Some(known) if Arc::ptr_eq(&known.0, metadata) => Arc::clone(&known.1),
            // None, or a client wrote the file anew before it was registered again.
            _ => {
                let encoded = Arc::new(EncodedParts::of(metadata));
                self.remember_parts(location, metadata, &encoded);
                encoded
            }
        }
    }

    pub(super) fn remember_parts(
        &self,
        location: &str,
        metadata: &Arc<TableMetadata>,
        encoded: &Arc<EncodedParts>,
    ) {
        // They go with the metadata, and are about as long.
        let Some(length) = self.inner.cache.weight(location) else { return };
        let entry = Arc::new((Arc::clone(metadata), Arc::clone(encoded)));
        self.inner.parts_cache.insert(location, &entry, length);
    }

    /// Forgets a metadata file that is no table's any more, or may have been written anew.
    pub(super) fn forget(&self, location: &str) {
        self.inner.cache.remove(location);
        self.inner.parts_cache.remove(location);
    }
}

fn loaded(row: TableRow, metadata: Arc<TableMetadata>) -> LoadedTable {
    LoadedTable {
        metadata,
        metadata_location: row.metadata_location,
        version: row.version,
        watermark: row.watermark,
    }
}
