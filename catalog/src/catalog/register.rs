//! Tables that come with their metadata file, and tables that leave with it.
//!
//! A file that a client names is read anew, and everything it names has to lie inside the table.

use super::{Catalog, LoadedTable, create, location_rules, managed_table_rules};
use crate::{
    columns, commit,
    error::CatalogError,
    metastore::{ChangeSet, Levels, NameKind, NewTable, PointerSwap, SwapOutcome, TableOrigin},
};
use iceberg::{TableIdent, spec::TableMetadata};
use std::sync::Arc;

/// How often a registration over another table is tried anew after a lost race.
const RETRIES: u32 = 4;

impl Catalog {
    /// Adopts an existing metadata file as a table.
    ///
    /// # Errors
    /// `NoSuchNamespace`, `AlreadyExists`, `Invalid` when there is no such file,
    /// `LocationForbidden`, `Storage`.
    pub async fn register_table(
        &self,
        levels: &Levels,
        name: &str,
        metadata_location: &str,
    ) -> Result<LoadedTable, CatalogError> {
        let table = create::ident(levels, name)?;
        self.check_not_reserved(name)?;
        self.check_is_free(&table).await?;
        let (location, metadata) = self.metadata_to_adopt(metadata_location).await?;
        if self.metastore().table_by_uuid(metadata.uuid()).await?.is_some() {
            return Err(CatalogError::Registered(metadata.uuid()));
        }
        self.free_location(metadata.location(), metadata.uuid()).await?;
        self.check_adopted_contents(&metadata).await?;
        let new = new_table(&table, &metadata, location.clone());
        let catalog = self.clone();
        let registered =
            self.to_the_end(async move { catalog.metastore().commit_with_new(&[new], &[]).await });
        if let SwapOutcome::Repeated(_) = registered.await? {
            return Err(CatalogError::Repeated);
        }
        // Others than this catalog may have written the file, and twice.
        self.forget(&location);
        // The metastore may know a watermark of it from before it was dropped.
        self.load_table(&table).await
    }

    /// Adopts an existing metadata file in the place of a table of that name, if there is one. The
    /// files of the table that was there stay.
    ///
    /// # Errors
    /// As [`Catalog::register_table`] (`AlreadyExists` for a view of that name), `Invalid` for a
    /// table that a log is written to, `CommitFailed`, `CommitStateUnknown`.
    pub async fn register_over(
        &self,
        levels: &Levels,
        name: &str,
        metadata_location: &str,
    ) -> Result<LoadedTable, CatalogError> {
        let table = create::ident(levels, name)?;
        let _queue = self.inner.locks.lock(std::iter::once(&table)).await;
        for _ in 0..=RETRIES {
            let Some(base) = self.find(&table).await? else {
                return self.register_table(levels, name, metadata_location).await;
            };
            if base.watermark.is_some() {
                return Err(CatalogError::Invalid(format!(
                    "Cannot register over {table}: this server writes to it; drop it first"
                )));
            }
            self.check_stays(&table, "replaced").await?;
            self.check_not_reserved(name)?;
            let (location, metadata) = self.metadata_to_adopt(metadata_location).await?;
            self.check_adopted_contents(&metadata).await?;
            let metastore = self.metastore();
            let outcome = if metadata.uuid() == base.metadata.uuid() {
                metastore.commit(&[swap(&base, &metadata, location.clone())]).await?
            } else {
                let new = new_table(&table, &metadata, location.clone());
                metastore.replace_table(base.metadata.uuid(), new).await?
            };
            match outcome {
                SwapOutcome::Done => {
                    self.forget(&location);
                    return self.load_table(&table).await;
                }
                SwapOutcome::Repeated(_) => return Err(CatalogError::Repeated),
                SwapOutcome::Lost(_) | SwapOutcome::Deposed(_) => (),
            }
        }
        Err(CatalogError::CommitFailed(format!("Commit failed: {table} was changed concurrently")))
    }

    /// Removes a table from the catalog, keeps its files, and gives it as it was last.
    ///
    /// # Errors
    /// `NoSuchTable`, `Storage`.
    pub async fn unregister_table(&self, table: &TableIdent) -> Result<LoadedTable, CatalogError> {
        let _queue = self.inner.locks.lock(std::iter::once(table)).await;
        // First of all, so that a table whose metadata cannot be read stays.
        let loaded = self.load_table(table).await?;
        self.check_is_there(&loaded.metadata_location).await?;
        self.check_stays(table, "unregistered").await?;
        let row = self.metastore().drop_table(table.namespace.as_ref(), &table.name).await?;
        let metadata = self.metadata_of(row.known()).await?;
        self.forget(&row.metadata_location);
        Ok(LoadedTable {
            metadata,
            metadata_location: row.metadata_location,
            version: row.version,
            watermark: row.watermark,
        })
    }

    async fn metadata_to_adopt(
        &self,
        metadata_location: &str,
    ) -> Result<(String, Arc<TableMetadata>), CatalogError> {
        let location = self.inner.storage.normalize(metadata_location)?.to_string();
        if !self.inner.storage.exists(&location).await? {
            return Err(CatalogError::Invalid(format!(
                "Metadata file does not exist: {metadata_location}"
            )));
        }
        let metadata: TableMetadata = self.foreign_metadata(&location).await?;
        managed_table_rules::check_adopted(&metadata)?;
        columns::check(None, &metadata, &[])?;
        commit::check_adopted(&metadata, self.now_ms())?;
        location_rules::check_adopted(&self.inner.storage, &metadata, &location)?;
        let needs = location_rules::needs(&metadata, &location);
        if let Some(file) = self.metastore().first_obsolete(&needs).await? {
            return Err(CatalogError::about_to_be_deleted(&file));
        }
        Ok((location, Arc::new(metadata)))
    }
}

fn new_table(table: &TableIdent, metadata: &TableMetadata, location: String) -> NewTable {
    NewTable {
        kind: NameKind::Table,
        levels: table.namespace.as_ref().clone(),
        name: table.name.clone(),
        uuid: metadata.uuid(),
        comes: TableOrigin::Registered { needs: location_rules::needs(metadata, &location) },
        metadata_location: location,
        location: metadata.location().to_owned(),
        snapshots: commit::added_snapshots(None, metadata),
        changes: ChangeSet::default(),
    }
}

/// The same table in another state.
fn swap(base: &LoadedTable, metadata: &TableMetadata, location: String) -> PointerSwap {
    PointerSwap {
        uuid: base.metadata.uuid(),
        expected_version: base.version,
        metadata_location: location,
        moved_to: (base.metadata.location() != metadata.location())
            .then(|| metadata.location().to_owned()),
        watermark: None,
        snapshots: commit::added_snapshots(Some(&base.metadata), metadata),
        removed_snapshots: commit::removed_snapshots(&base.metadata, metadata),
        obsolete: Vec::new(),
        parts: Vec::new(),
        changes: ChangeSet::default(),
    }
}

#[cfg(test)]
mod tests;
