//! The tables of a catalog: how they are named, read, made, adopted, dropped.
//!
//! What changes the contents of a table is a commit: [`Catalog::commit`], [`Catalog::add_snapshot`].

use super::Catalog;
use crate::{
    error::CatalogError,
    metastore::{ObjectKey, SnapshotRow, Watermark},
};
use iceberg::{TableIdent, spec::TableMetadata};
use std::sync::Arc;

/// A table as it stands. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LoadedTable {
    /// Its current metadata.
    pub metadata: Arc<TableMetadata>,
    /// The file that holds it.
    pub metadata_location: String,
    /// The pointer's version.
    pub version: i64,
    /// How far the holder of the fence is in it.
    pub watermark: Option<Watermark>,
}

/// The tables of a catalog.
#[derive(Clone, Copy, Debug)]
pub struct Tables<'a>(pub(super) &'a Catalog);

impl Catalog {
    /// Its tables.
    #[must_use]
    pub fn tables(&self) -> Tables<'_> {
        Tables(self)
    }
}

impl Tables<'_> {
    /// Gives a table another name or namespace. Its files stay where they are.
    ///
    /// # Errors
    /// `NoSuchTable`, `NoSuchNamespace` for the target's, `AlreadyExists`; `Invalid` for a table
    /// that the service writes.
    pub async fn rename(self, from: &TableIdent, to: &TableIdent) -> Result<(), CatalogError> {
        crate::names::check_new(&to.name)?;
        let (catalog, from, to) = (self.0.clone(), from.clone(), to.clone());
        self.0
            .to_the_end(async move {
                catalog.check_stays(&from, "renamed").await?;
                // A commit that was examined under the old name is looked for under it again.
                if let Some(table) = catalog.find(&from).await? {
                    catalog.forget(&table.metadata_location);
                }
                let from = ObjectKey::new(from.namespace.as_ref(), &from.name);
                let to = ObjectKey::new(to.namespace.as_ref(), &to.name);
                catalog.metastore().rename_table(from, to).await
            })
            .await
    }

    /// Whether there is a table of this name.
    ///
    /// # Errors
    /// The metastore's.
    pub async fn has(self, table: &TableIdent) -> Result<bool, CatalogError> {
        Ok(self.0.metastore().table(table.namespace.as_ref(), &table.name).await?.is_some())
    }

    /// Snapshot index of a table, oldest first.
    ///
    /// # Errors
    /// `NoSuchTable`, `Metastore`.
    pub async fn snapshots(self, table: &TableIdent) -> Result<Vec<SnapshotRow>, CatalogError> {
        let row = self.0.metastore().table(table.namespace.as_ref(), &table.name).await?;
        let row = row.ok_or_else(|| CatalogError::NoSuchTable(table.to_string()))?;
        self.0.metastore().snapshots(row.uuid).await
    }
}
