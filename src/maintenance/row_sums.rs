//! What other engines' commits add to tables of the service and remove, found out while the snapshots that
//! tell it are retained: beside compaction, and before an erasure takes the history.
//!
//! Its one invariant: it changes nothing of a table, and notes no more than retained snapshots show.

use icecore_catalog::{
    catalog::{Catalog, LoadedTable},
    error::CatalogError,
    row_sum::RecordedSums,
    scan::{Deadline, ManifestSource, manifests::ManifestCache},
};
use icecore_lake::table::{conservation, reader::ReadError, row_sum::RowKeys};

/// How often what is known is looked up anew, since others noted what they found.
const LOOKS_MAX: u32 = 3;

/// Why it is not known what others added and removed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SettleError {
    #[error("look up what is known of the rows")]
    Catalog(#[from] CatalogError),
    #[error("read the files that were changed")]
    Read(#[from] ReadError),
    #[error("others noted what they found at each of {} looks", LOOKS_MAX)]
    Busy,
}

/// Finds out what commits of other engines on `main` did since the last time, up to this state of a table,
/// and notes it, durable on return. What no retained snapshot tells any more is left to the next audit.
///
/// # Errors
/// [`SettleError`]
pub(super) async fn settle(
    catalog: &Catalog,
    loaded: &LoadedTable,
    until: Deadline,
) -> Result<(), SettleError> {
    let metadata = loaded.metadata.as_ref();
    let keys = RowKeys::of(metadata.current_schema());
    let (Some(keys), Some(head)) = (keys, metadata.current_snapshot()) else { return Ok(()) };
    if RecordedSums::of(head).basis.is_none() {
        return Ok(());
    }
    let (storage, store) = (catalog.storage(), catalog.metastore());
    let cache = ManifestCache::default();
    let source = ManifestSource { storage, cache: &cache, metadata, until };
    for _ in 0..LOOKS_MAX {
        let account = store.row_account(metadata.uuid()).await?;
        let Some((_, account)) = account else { return Ok(()) };
        let found = Box::pin(conservation::settle(source, keys, &account)).await?;
        let Some(found) = found else { return Ok(()) };
        // Where others noted something meanwhile, that stays: the next look goes on from there.
        store.note_rows(metadata.uuid(), account.checkpoint, &found).await?;
    }
    Err(SettleError::Busy)
}
