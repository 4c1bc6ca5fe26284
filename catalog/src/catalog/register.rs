//! Tables that come with their metadata file, and tables that leave with it.
//!
//! A file that a client names is read anew, and everything it names has to lie inside the table.

use super::{
    Catalog, LoadedTable,
    change::COMMIT_RETRIES,
    create, location_rules, managed_table_rules,
    write::{TableWrite, check_made, is_made, lost_every_race},
};
use crate::{columns, commit, error::CatalogError, metastore::Levels};
use iceberg::{TableIdent, spec::TableMetadata};

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
        let write = TableWrite::adopted(table.clone(), None, metadata, location.clone());
        let catalog = self.clone();
        let registered = self.to_the_end(async move { catalog.publish(&[write]).await });
        check_made(&registered.await?, &table)?;
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
        for _ in 0..=COMMIT_RETRIES {
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
            let replaced = base.metadata.uuid();
            let base = (metadata.uuid() == replaced).then_some(base);
            let is_same = base.is_some();
            let write = TableWrite::adopted(table.clone(), base, metadata, location.clone());
            let outcome = match is_same {
                true => self.publish(&[write]).await?,
                // One name, two tables: the other one leaves in the transaction that adds this one.
                false => self.metastore().replace_table(replaced, write.new_table()).await?,
            };
            if is_made(&outcome, &table)? {
                self.forget(&location);
                return self.load_table(&table).await;
            }
        }
        Err(lost_every_race(&table))
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
    ) -> Result<(String, TableMetadata), CatalogError> {
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
        Ok((location, metadata))
    }
}

#[cfg(test)]
mod tests;
