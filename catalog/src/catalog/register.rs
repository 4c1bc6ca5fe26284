//! Tables that come with their metadata file, and tables that leave with it.
//!
//! A file that a client names is read anew, and everything it names has to lie inside the table.

use super::{
    LoadedTable, Tables,
    change::COMMIT_RETRIES,
    create, location_rules, managed_table_rules,
    write::{TableWrite, check_made, is_made, lost_every_race},
};
use crate::{columns, commit, error::CatalogError, metastore::Levels};
use iceberg::{TableIdent, spec::TableMetadata};

impl Tables<'_> {
    /// Adopts an existing metadata file as a table, whose location has to pass `may_lie`.
    ///
    /// # Errors
    /// `NoSuchNamespace`, `AlreadyExists`, `Invalid` when there is no such file,
    /// `LocationForbidden`, `Storage`, what `may_lie` says.
    pub async fn register(
        self,
        levels: &Levels,
        name: &str,
        metadata_location: &str,
        may_lie: &(impl Fn(&str) -> Result<(), CatalogError> + Sync),
    ) -> Result<LoadedTable, CatalogError> {
        let table = create::ident(levels, name)?;
        self.0.check_is_free(&table).await?;
        let (location, metadata) = self.metadata_to_adopt(metadata_location, may_lie).await?;
        if self.0.metastore().table_by_uuid(metadata.uuid()).await?.is_some() {
            return Err(CatalogError::Registered(metadata.uuid()));
        }
        self.0.free_location(metadata.location(), metadata.uuid()).await?;
        self.0.check_adopted_contents(&metadata).await?;
        let write = TableWrite::adopted(table.clone(), None, metadata, location.clone());
        let catalog = self.0.clone();
        let registered = self.0.to_the_end(async move { catalog.publish(&[write]).await });
        check_made(&registered.await?, &table)?;
        // Others than this catalog may have written the file, and twice.
        self.0.forget(&location);
        // The metastore may know a watermark of it from before it was dropped.
        self.load(&table).await
    }

    /// Adopts an existing metadata file in the place of a table of that name, if there is one. The
    /// files of the table that was there stay.
    ///
    /// # Errors
    /// As [`Tables::register`] (`AlreadyExists` for a view of that name), `Invalid` for a
    /// table that the service writes, `CommitFailed`, `CommitStateUnknown`.
    pub async fn register_over(
        self,
        levels: &Levels,
        name: &str,
        metadata_location: &str,
        may_lie: &(impl Fn(&str) -> Result<(), CatalogError> + Sync),
    ) -> Result<LoadedTable, CatalogError> {
        let table = create::ident(levels, name)?;
        let _queue = self.0.inner.locks.lock(std::iter::once(&table)).await;
        for _ in 0..=COMMIT_RETRIES {
            let Some(base) = self.0.find(&table).await? else {
                return self.register(levels, name, metadata_location, may_lie).await;
            };
            if base.watermark.is_some() {
                return Err(CatalogError::Invalid(format!(
                    "Cannot register over {table}: this server writes to it; drop it first"
                )));
            }
            self.0.check_stays(&table, "replaced").await?;
            let (location, metadata) = self.metadata_to_adopt(metadata_location, may_lie).await?;
            self.0.check_adopted_contents(&metadata).await?;
            let replaced = (base.metadata.uuid(), base.version);
            let base = (metadata.uuid() == replaced.0).then_some(base);
            let is_same = base.is_some();
            let write = TableWrite::adopted(table.clone(), base, metadata, location.clone());
            let outcome = match is_same {
                true => self.0.publish(&[write]).await?,
                // One name, two tables: the other one leaves in the transaction that adds this one.
                false => self.0.metastore().replace_table(replaced, write.new_table()).await?,
            };
            if is_made(&outcome, &table)? {
                self.0.forget(&location);
                return self.load(&table).await;
            }
        }
        Err(lost_every_race(&table))
    }

    /// Removes a table from the catalog, keeps its files, and gives it as it was last.
    ///
    /// # Errors
    /// `NoSuchTable`, `Storage`.
    pub async fn unregister(self, table: &TableIdent) -> Result<LoadedTable, CatalogError> {
        let _queue = self.0.inner.locks.lock(std::iter::once(table)).await;
        // First of all, so that a table whose metadata cannot be read stays.
        let loaded = self.load(table).await?;
        self.0.check_is_there(&loaded.metadata_location).await?;
        self.0.check_stays(table, "unregistered").await?;
        let row = self.0.metastore().drop_table(table.namespace.as_ref(), &table.name).await?;
        let metadata = self.0.metadata_of(row.known()).await?;
        self.0.forget(&row.metadata_location);
        Ok(LoadedTable {
            metadata,
            metadata_location: row.metadata_location,
            version: row.version,
            watermark: row.watermark,
        })
    }

    async fn metadata_to_adopt(
        self,
        metadata_location: &str,
        may_lie: &(impl Fn(&str) -> Result<(), CatalogError> + Sync),
    ) -> Result<(String, TableMetadata), CatalogError> {
        let location = self.0.inner.storage.normalize(metadata_location)?.to_string();
        if !self.0.inner.storage.exists(&location).await? {
            return Err(CatalogError::Invalid(format!(
                "Metadata file does not exist: {metadata_location}"
            )));
        }
        let metadata: TableMetadata = self.0.foreign_metadata(&location).await?;
        // Before any other answer about the place: it would tell what is there.
        may_lie(metadata.location())?;
        managed_table_rules::check_adopted(&metadata)?;
        columns::check(None, &metadata, &[])?;
        commit::check_adopted(&metadata, self.0.now_ms())?;
        location_rules::check_adopted(&self.0.inner.storage, &metadata, &location)?;
        let needs = location_rules::needs(&metadata, &location);
        if let Some(file) = self.0.metastore().first_obsolete(&needs).await? {
            return Err(CatalogError::about_to_be_deleted(&file));
        }
        let own = self.0.inner.storage.normalize(metadata.location())?;
        self.0.check_not_queued(&own, &needs).await?;
        Ok((location, metadata))
    }
}

#[cfg(test)]
mod tests;
