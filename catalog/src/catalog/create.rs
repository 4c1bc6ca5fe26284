//! New tables: created, staged, adopted, or built from a client's updates.

use super::{
    Catalog, CreateTable, LoadedTable, Tables, location_rules, property_rules,
    write::{TableWrite, check_made},
};
use crate::{
    columns, commit,
    error::CatalogError,
    metastore::{ChangeSet, Levels},
    names,
};
use iceberg::{NamespaceIdent, TableIdent, TableUpdate, spec::TableMetadata};
use std::fmt::Write as _;
use uuid::Uuid;

/// Longest name of a level's folder that says the level's name; disks take 255 bytes.
const FOLDER_BYTES_MAX: usize = 100;

impl Tables<'_> {
    /// Creates a table and its first metadata file.
    ///
    /// # Errors
    /// `NoSuchNamespace`, `AlreadyExists`, `Invalid`, `LocationForbidden`, `Storage`.
    pub async fn create(
        self,
        levels: &Levels,
        table: CreateTable,
    ) -> Result<LoadedTable, CatalogError> {
        let ident = ident(levels, &table.name)?;
        let (catalog, levels) = (self.0.clone(), levels.clone());
        self.0
            .to_the_end(async move {
                let metadata = catalog.tables().stage(&levels, table).await?;
                let changes = ChangeSet::making(&commit::making(&metadata));
                let mut write = TableWrite::new(ident, None, metadata, catalog.now_ms());
                write.changes = changes;
                check_made(&catalog.publish(std::slice::from_ref(&write)).await?, &write.table)?;
                Ok(write.loaded())
            })
            .await
    }

    /// The metadata a staged create answers with: nothing is stored but the table's folders.
    ///
    /// # Errors
    /// As [`Tables::create`].
    pub async fn stage(
        self,
        levels: &Levels,
        table: CreateTable,
    ) -> Result<TableMetadata, CatalogError> {
        self.0.check_namespace(levels).await?;
        let metadata = self.stage_first(levels, table).await?;
        self.0.inner.storage.prepare_table(metadata.location()).await?;
        Ok(metadata)
    }

    /// The metadata of a table that is going to be made by [`Tables::create_with`], for whoever
    /// writes its first files: nothing is stored, not even a folder, so a try that fails leaves
    /// nothing behind. Its namespace need not be there.
    ///
    /// # Errors
    /// `AlreadyExists`, `Invalid`, `LocationForbidden`, `Storage`.
    pub async fn stage_first(
        self,
        levels: &Levels,
        table: CreateTable,
    ) -> Result<TableMetadata, CatalogError> {
        let ident = ident(levels, &table.name)?;
        self.0.check_name_is_free(&ident).await?;
        let uuid = Uuid::new_v4();
        let location = match &table.location {
            Some(location) => self.0.free_location(location, uuid).await?,
            None => self.0.default_location(levels, uuid).await?,
        };
        let properties = table.properties.clone();
        let metadata = commit::create_fresh(table, uuid, location, self.0.now_ms())?;
        let own = self.0.inner.options.reserved.property_fault;
        property_rules::check(&ident, own, None, &metadata)?;
        columns::check(None, &metadata, &[])?;
        let properties = [TableUpdate::SetProperties { updates: properties }];
        location_rules::check(&self.0.inner.storage, &metadata, &properties)?;
        Ok(metadata)
    }
}

impl Catalog {
    /// The table that `updates` make from nothing.
    pub(super) async fn built_from_updates(
        &self,
        table: &TableIdent,
        updates: &[TableUpdate],
    ) -> Result<TableMetadata, CatalogError> {
        let levels = table.namespace.as_ref();
        ident(levels, &table.name)?;
        self.check_is_free(table).await?;
        let uuid = commit::assigned_uuid(updates).unwrap_or_else(Uuid::new_v4);
        let location = self.default_location(levels, uuid).await?;
        let metadata = commit::create_from_updates(uuid, &location, updates, self.now_ms())?;
        self.check_commit(table, None, &metadata, updates).await?;
        self.inner.storage.prepare_table(metadata.location()).await?;
        Ok(metadata)
    }

    pub(super) async fn check_is_free(&self, table: &TableIdent) -> Result<(), CatalogError> {
        self.check_namespace(table.namespace.as_ref()).await?;
        self.check_name_is_free(table).await
    }

    async fn check_name_is_free(&self, table: &TableIdent) -> Result<(), CatalogError> {
        let levels = table.namespace.as_ref();
        let metastore = self.metastore();
        if metastore.table(levels, &table.name).await?.is_some() {
            return Err(already_exists(table));
        }
        if metastore.view(levels, &table.name).await?.is_some() {
            let text = format!("View with same name already exists: {table}");
            return Err(CatalogError::AlreadyExists(text));
        }
        Ok(())
    }

    pub(super) async fn check_namespace(&self, levels: &Levels) -> Result<(), CatalogError> {
        match self.metastore().namespace(levels).await? {
            Some(_) => Ok(()),
            None => Err(CatalogError::NoSuchNamespace(levels.join("."))),
        }
    }

    /// A location that a client wants for a table or view, in normal form. That it is free holds
    /// once the table is in the metastore, but here it is known before any file is made.
    pub(super) async fn free_location(
        &self,
        location: &str,
        uuid: Uuid,
    ) -> Result<String, CatalogError> {
        let parsed = location_rules::for_a_table(&self.inner.storage, location)?;
        if self.metastore().is_free(&parsed, uuid).await? {
            return Ok(parsed.to_string());
        }
        Err(CatalogError::Invalid(format!(
            "location `{location}` overlaps that of another table: choose one that neither \
             contains nor is inside another table's"
        )))
    }

    /// `<root>/<levels>/<uuid>`. The name is not in it: a renamed table or view keeps its location,
    /// and a new one of the old name gets another. Where a client has put a table around that
    /// folder it is `<root>/<uuid>`.
    pub(super) async fn default_location(
        &self,
        levels: &Levels,
        uuid: Uuid,
    ) -> Result<String, CatalogError> {
        let root = self.inner.storage.root();
        let folder = folder_of(levels);
        let location = self.inner.storage.normalize(&format!("{root}/{folder}/{uuid}"))?;
        if self.metastore().is_free(&location, uuid).await? {
            return Ok(location.to_string());
        }
        Ok(format!("{root}/{uuid}"))
    }
}

/// The folder of a namespace's tables and of no other's, whatever the names hold: what a caller may
/// do with places follows from it.
pub(crate) fn folder_of(levels: &[String]) -> String {
    let folders: Vec<String> = levels.iter().map(|level| folder(level)).collect();
    folders.join("/")
}

/// A level's folder: readable, harmless, and of this level alone. A dot begins what stands for
/// something else.
fn folder(level: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let mut folder = String::with_capacity(level.len());
    for byte in level.bytes() {
        match is_plain(byte) {
            true => folder.push(char::from(byte)),
            false => write!(folder, ".{byte:02x}").expect("a string takes everything"),
        }
    }
    if folder.len() <= FOLDER_BYTES_MAX {
        return folder;
    }
    let digest = ring::digest::digest(&ring::digest::SHA256, level.as_bytes());
    format!(".long-{}", hex::encode(digest))
}

pub(super) fn already_exists(table: &TableIdent) -> CatalogError {
    CatalogError::AlreadyExists(format!("Table already exists: {table}"))
}

pub(super) fn ident(levels: &Levels, name: &str) -> Result<TableIdent, CatalogError> {
    let namespace = NamespaceIdent::from_vec(levels.clone());
    let namespace = namespace.map_err(|_| CatalogError::NoSuchNamespace(String::new()))?;
    names::check_new(name)?;
    Ok(TableIdent::new(namespace, name.to_owned()))
}
