//! Thins the history of the service's own tables, so that their metadata stays small however many
//! commits there are.
//!
//! Which tables have too many snapshots, and which of these go, is the catalog's to know.

use crate::{
    maintenance::scope::ACTOR,
    tasks::{Job, Progress},
};
use icecore_catalog::{catalog::Catalog, error::CatalogError};
use icecore_lake::faults::Failpoints;
use std::{io, sync::Arc};
use tokio::sync::Notify;

/// Most tables of one tick.
const TABLES_MAX: usize = 10;

/// Why a tick failed.
#[derive(Debug, thiserror::Error)]
pub enum ThinningError {
    /// The catalog.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A planned fault of a test.
    #[error("remove old snapshots")]
    Fault(#[from] io::Error),
}

/// The job that thins tables which commits of this server have made too long.
#[derive(Debug)]
pub struct ThinSnapshots {
    catalog: Catalog,
    faults: Failpoints,
}

impl ThinSnapshots {
    /// Thins tables of `catalog`; the notification wakes the job.
    #[must_use]
    pub fn new(catalog: &Catalog) -> (Self, Arc<Notify>) {
        let wake = catalog.upkeep().overgrown_wake();
        (Self { catalog: catalog.on_behalf_of(ACTOR), faults: Failpoints::default() }, wake)
    }

    /// The same job, with the faults of a test.
    #[must_use]
    pub fn with_faults(self, faults: Failpoints) -> Self {
        Self { faults, ..self }
    }
}

impl Job for ThinSnapshots {
    const NAME: &'static str = "thin-snapshots";
    type Error = ThinningError;

    /// A table that fails does not hold up the others, and the tick reports the first failure.
    async fn tick(&mut self) -> Result<Progress, ThinningError> {
        // What is noted is taken after this: a tick that fails here leaves it to the next one.
        self.faults.hit("thin.before_removal")?;
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
        self.faults.hit("thin.after_removal")?;
        match first {
            Some(cause) => Err(cause.into()),
            None => Ok(Progress::of(0 < removed, was_full && 0 < removed)),
        }
    }
}

#[cfg(test)]
mod tests;
