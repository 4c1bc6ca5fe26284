//! Thins the history of the service's own tables, so that their metadata stays small however many
//! commits there are.
//!
//! Which tables have too many snapshots, and which of these go, is the catalog's to know.

use crate::tasks::{Job, Progress};
use icecore_catalog::{catalog::Catalog, error::CatalogError};
use std::sync::Arc;
use tokio::sync::Notify;

/// Who the catalog's feed says it was that removed snapshots.
const ACTOR: &str = "icecore/maintenance";
/// Most tables of one tick.
const TABLES_MAX: usize = 10;

/// The job that thins tables which commits of this server have made too long.
#[derive(Debug)]
pub struct ThinSnapshots {
    catalog: Catalog,
}

impl ThinSnapshots {
    /// Thins tables of `catalog`; the notification wakes the job.
    #[must_use]
    pub fn new(catalog: &Catalog) -> (Self, Arc<Notify>) {
        let wake = catalog.upkeep().overgrown_wake();
        (Self { catalog: catalog.on_behalf_of(ACTOR) }, wake)
    }
}

impl Job for ThinSnapshots {
    const NAME: &'static str = "thin-snapshots";
    type Error = CatalogError;

    /// A table that fails does not hold up the others, and the tick reports the first failure.
    async fn tick(&mut self) -> Result<Progress, CatalogError> {
        let tables = self.catalog.upkeep().take_overgrown(TABLES_MAX);
        let was_full = tables.len() == TABLES_MAX;
        let (mut removed, mut first) = (0, None);
        for table in tables {
            match self.catalog.upkeep().thin(&table).await {
                Ok(count) => removed += count,
                // Another server was faster; the next tick tries again.
                Err(CatalogError::CommitFailed(_)) => (),
                Err(cause) => drop(first.get_or_insert(cause)),
            }
        }
        match first {
            Some(cause) => Err(cause),
            None => Ok(Progress::of(0 < removed, was_full && 0 < removed)),
        }
    }
}

#[cfg(test)]
mod tests;
