//! Tables that are made together with their first rows: one metadata file and one transaction of the
//! metastore for all of it. The service's own come with their namespace, where it is missing.

use super::{
    Catalog, LoadedTable, Tables,
    write::{TableWrite, check_made},
};
use crate::{
    commit,
    error::CatalogError,
    metadata_file::cache::EncodedParts,
    metastore::{ChangeSet, Properties, TableOrigin},
    snapshot::{self, NewSnapshot, ReadManifests},
};
use iceberg::{TableIdent, spec::TableMetadata};
use std::sync::Arc;

/// A table that is made with its first rows.
#[derive(Clone, Debug)]
pub struct FirstAppend {
    /// Its name.
    pub table: TableIdent,
    /// What [`Tables::stage_first`] gave.
    pub metadata: Arc<TableMetadata>,
    /// What its namespace has, which is made with it when it is not there; none for a namespace that
    /// has to be there.
    pub namespace: Option<Properties>,
    /// Its first rows, with the mark that the table has then.
    pub snapshot: NewSnapshot,
}

impl Tables<'_> {
    /// Makes a table with its first snapshot and its watermark, all or nothing. Durable on return.
    ///
    /// # Errors
    /// `AlreadyExists` of the table, or of its namespace with other properties; `NoSuchNamespace`,
    /// `CommitFailed` (a higher epoch holds the fence), `CommitStateUnknown`, `Invalid`, `Storage`.
    pub async fn create_with(self, first: FirstAppend) -> Result<LoadedTable, CatalogError> {
        let catalog = self.0.clone();
        self.0.to_the_end(async move { catalog.create_first(first).await }).await
    }

    /// Makes a table of a caller's with its first rows, all or nothing: what [`Tables::stage_first`] gave, with a
    /// snapshot whose files are written already. Durable on return.
    ///
    /// # Errors
    /// `AlreadyExists`, `NoSuchNamespace`, `CommitStateUnknown`, `Invalid`, `Storage`.
    pub async fn create_filled(
        self,
        table: TableIdent,
        staged: TableMetadata,
        rows: NewSnapshot,
    ) -> Result<LoadedTable, CatalogError> {
        let catalog = self.0.clone();
        self.0
            .to_the_end(async move {
                catalog.check_is_free(&table).await?;
                let write = catalog.first_write(table, &staged, &rows).await?;
                check_made(&catalog.publish(std::slice::from_ref(&write)).await?, &write.table)?;
                Ok(write.loaded())
            })
            .await
    }
}

impl Catalog {
    async fn create_first(&self, first: FirstAppend) -> Result<LoadedTable, CatalogError> {
        let FirstAppend { table, metadata: staged, namespace, snapshot: new } = first;
        let mark = new.mark.ok_or_else(|| {
            CatalogError::Invalid("the first rows of a table come with its mark".to_owned())
        })?;
        let mut write = self.first_write(table, &staged, &new).await?;
        write.watermark = Some(mark.watermark);
        let (watermark, acked) = (mark.watermark, new.rows_added);
        write.comes = TableOrigin::OfHolder { watermark, acked, namespace };
        check_made(&self.publish(std::slice::from_ref(&write)).await?, &write.table)?;
        Ok(write.loaded())
    }

    /// A staged table with a snapshot, whose manifests are written.
    async fn first_write(
        &self,
        table: TableIdent,
        staged: &TableMetadata,
        new: &NewSnapshot,
    ) -> Result<TableWrite, CatalogError> {
        let read = ReadManifests::default();
        // Those that were written days ago are taken for what a killed process left.
        self.check_own_files(staged, new, &read).await?;
        let now_ms = self.now_ms().max(staged.last_updated_ms().saturating_add(1));
        let built = snapshot::build(&self.inner.storage, staged, new, &read, now_ms).await?;
        let metadata = match commit::apply_updates_at(staged, None, &built.updates, now_ms) {
            Ok(metadata) => metadata,
            Err(cause) => {
                self.discard(&built.written).await;
                return Err(cause);
            }
        };
        let mut updates = commit::making(staged);
        updates.extend_from_slice(&built.updates);
        let encoded = EncodedParts::of(staged).after(&built.updates, &metadata);
        let mut write = TableWrite::new(table, None, metadata, now_ms);
        write.encoded = Some(Arc::new(encoded));
        write.changes = ChangeSet::making(&updates);
        write.deferred = built.written;
        Ok(write)
    }
}
