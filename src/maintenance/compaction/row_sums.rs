//! What other engines' commits add and remove, found out while their snapshots are retained.
//!
//! A commit of another engine has no sum of its rows. The audit of the rows would find it out, and may come
//! when the snapshot before it is thinned away; so a look at a table that has a new one comes first. Its one
//! invariant: nothing of a table changes, and a failure costs no more than a warning.

use crate::maintenance::compaction::Compaction;
use icecore_catalog::{
    catalog::LoadedTable,
    error::CatalogError,
    row_sum::RecordedSums,
    scan::{Deadline, ManifestSource, manifests::ManifestCache},
};
use icecore_lake::table::{conservation, reader::ReadError, row_sum::RowKeys, schema::TableIdent};
use std::error::Error;
use tracing::warn;

/// Why it is not known what others added and removed.
#[derive(Debug, thiserror::Error)]
enum SettleError {
    #[error("look up what is known of the rows")]
    Catalog(#[from] CatalogError),
    #[error("read the files that were changed")]
    Read(#[from] ReadError),
}

impl Compaction {
    /// Finds out what commits of other engines did since the last time; once for each newest of them.
    pub(super) async fn settle_rows(&self, table: &TableIdent, loaded: &LoadedTable) {
        let metadata = loaded.metadata.as_ref();
        let keys = RowKeys::of(metadata.current_schema());
        let (Some(keys), Some(head)) = (keys, metadata.current_snapshot()) else { return };
        let Some(basis) = RecordedSums::of(head).basis else { return };
        if !self.noted().is_new_basis(table, basis) {
            return;
        }
        if let Err(cause) = self.try_settle(keys, loaded).await {
            let error = &cause as &dyn Error;
            warn!(%table, error, "it is not known what other engines did to the rows");
        }
    }

    async fn try_settle(&self, keys: RowKeys, loaded: &LoadedTable) -> Result<(), SettleError> {
        let metadata = loaded.metadata.as_ref();
        let (storage, store) = (self.0.catalog.storage(), self.0.catalog.metastore());
        let account = store.row_account(metadata.uuid()).await?;
        let Some((_, account)) = account else { return Ok(()) };
        let cache = ManifestCache::default();
        let source = ManifestSource { storage, cache: &cache, metadata, until: Deadline::NONE };
        if let Some(found) = conservation::settle(source, keys, &account).await? {
            store.note_rows(metadata.uuid(), account.checkpoint, &found).await?;
        }
        Ok(())
    }
}
