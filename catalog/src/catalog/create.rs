//! New tables: created, staged, adopted, or built from a client's updates.

use super::{Catalog, CreateTable, LoadedTable, jail, write::Write};
use crate::{
    commit,
    error::CatalogError,
    metastore::{Levels, NewTable, SwapOutcome},
};
use iceberg::{NamespaceIdent, TableIdent, TableUpdate, spec::TableMetadata};
use uuid::Uuid;

impl Catalog {
    /// Creates a table and its first metadata file.
    ///
    /// # Errors
    /// `NoSuchNamespace`, `AlreadyExists`, `Invalid`, `LocationForbidden`, `Storage`.
    pub async fn create_table(
        &self,
        levels: &Levels,
        table: CreateTable,
    ) -> Result<LoadedTable, CatalogError> {
        let ident = ident(levels, &table.name)?;
        let (catalog, levels) = (self.clone(), levels.clone());
        self.to_the_end(async move {
            let metadata = catalog.stage_table(&levels, table).await?;
            let write = Write::new(ident, None, metadata, catalog.now_ms());
            match catalog.publish(std::slice::from_ref(&write)).await? {
                SwapOutcome::Repeated(_) => Err(CatalogError::Repeated),
                SwapOutcome::Done | SwapOutcome::Lost(_) | SwapOutcome::Deposed(_) => {
                    Ok(write.loaded())
                }
            }
        })
        .await
    }

    /// The metadata a staged create answers with: nothing is stored but the table's folders.
    ///
    /// # Errors
    /// As [`Catalog::create_table`].
    pub async fn stage_table(
        &self,
        levels: &Levels,
        table: CreateTable,
    ) -> Result<TableMetadata, CatalogError> {
        let ident = ident(levels, &table.name)?;
        self.check_is_free(&ident).await?;
        let uuid = Uuid::new_v4();
        let location = match &table.location {
            Some(location) => self.inner.storage.normalize(location)?,
            None => self.default_location(levels, uuid),
        };
        let properties = table.properties.clone();
        let metadata = commit::create_fresh(table, uuid, location, self.now_ms())?;
        self.check_new(&metadata, &[TableUpdate::SetProperties { updates: properties }])?;
        self.inner.storage.prepare_table(metadata.location()).await?;
        Ok(metadata)
    }

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
        let ident = ident(levels, name)?;
        self.check_is_free(&ident).await?;
        let location = self.inner.storage.normalize(metadata_location)?;
        if !self.inner.storage.exists(&location).await? {
            return Err(CatalogError::Invalid(format!(
                "Metadata file does not exist: {metadata_location}"
            )));
        }
        let metadata = self.metadata(&location).await?;
        jail::check_adopted(&self.inner.storage, &metadata, &location)?;
        let new = NewTable {
            levels: levels.clone(),
            name: name.to_owned(),
            uuid: metadata.uuid(),
            metadata_location: location,
            snapshots: commit::added_snapshots(None, &metadata),
            adopted: true,
        };
        let catalog = self.clone();
        let outcome =
            self.to_the_end(async move { catalog.metastore().commit_with_new(&[new], &[]).await });
        if let SwapOutcome::Repeated(_) = outcome.await? {
            return Err(CatalogError::Repeated);
        }
        // The metastore may know a watermark of it from before it was dropped.
        self.load_table(&ident).await
    }

    /// The table that `updates` make from nothing.
    pub(super) async fn built_from_updates(
        &self,
        table: &TableIdent,
        updates: &[TableUpdate],
    ) -> Result<TableMetadata, CatalogError> {
        let levels = table.namespace.as_ref();
        ident(levels, &table.name)?;
        self.check_namespace(levels).await?;
        let uuid = commit::assigned_uuid(updates).unwrap_or_else(Uuid::new_v4);
        let location = self.default_location(levels, uuid);
        let metadata = commit::create_from_updates(uuid, &location, updates, self.now_ms())?;
        self.check_new(&metadata, updates)?;
        self.inner.storage.prepare_table(metadata.location()).await?;
        Ok(metadata)
    }

    fn check_new(
        &self,
        metadata: &TableMetadata,
        updates: &[TableUpdate],
    ) -> Result<(), CatalogError> {
        jail::check(&self.inner.storage, None, metadata, updates)
    }

    async fn check_is_free(&self, table: &TableIdent) -> Result<(), CatalogError> {
        let levels = table.namespace.as_ref();
        self.check_namespace(levels).await?;
        match self.inner.metastore.table(levels, &table.name).await? {
            Some(_) => Err(CatalogError::AlreadyExists(format!("Table already exists: {table}"))),
            None => Ok(()),
        }
    }

    async fn check_namespace(&self, levels: &Levels) -> Result<(), CatalogError> {
        match self.inner.metastore.namespace(levels).await? {
            Some(_) => Ok(()),
            None => Err(CatalogError::NoSuchNamespace(levels.join("."))),
        }
    }

    /// `<root>/<levels>/<uuid>`. The name is not in it: a renamed table keeps its location, and a
    /// new one of the old name gets another.
    fn default_location(&self, levels: &Levels, uuid: Uuid) -> String {
        let folders: Vec<String> = levels.iter().map(|level| folder(level)).collect();
        format!("{}/{}/{uuid}", self.inner.storage.root(), folders.join("/"))
    }
}

/// A level's folder: readable, and harmless whatever the name holds. Two levels may share one, as
/// the uuid keeps tables apart.
fn folder(level: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    level.chars().map(safe).collect()
}

fn ident(levels: &Levels, name: &str) -> Result<TableIdent, CatalogError> {
    let namespace = NamespaceIdent::from_vec(levels.clone());
    let namespace = namespace.map_err(|_| CatalogError::NoSuchNamespace(String::new()))?;
    check_name(name)?;
    Ok(TableIdent::new(namespace, name.to_owned()))
}

/// Refuses names that are no table's.
pub(super) fn check_name(name: &str) -> Result<(), CatalogError> {
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err(CatalogError::Invalid(format!(
            "Invalid table name: `{}`",
            name.escape_debug()
        )));
    }
    Ok(())
}
