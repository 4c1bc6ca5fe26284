//! Whether the warehouse is there: asked at the start, and while the server runs.
//!
//! A store that refuses stops the start: a wrong key does not mend itself. One that does not answer
//! may come back, so the server starts, takes events into its log, and says that it is not ready; so
//! it does when a running server's warehouse goes. A store is looked at now and then, and probed where
//! it says nothing or a call failed. Its one invariant: another folder in the place of the warehouse is
//! taken for it only if it has the current metadata file of every table.

use crate::tasks::{Job, Progress};
use icecore_catalog::{
    catalog::Catalog, error::CatalogError, location::Location, storage::probe::ProbeFailure,
};
use std::time::Duration;
use tokio::time::Instant;

/// How often a store is looked at that no call had trouble with: one small request each time.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Tries a warehouse that is known not to answer, and looks whether a local one is there.
#[derive(Debug)]
pub struct ProbeWarehouse {
    catalog: Catalog,
    name: String,
    /// When a store was looked at last.
    looked: Instant,
}

impl ProbeWarehouse {
    /// Tries it a first time. A local folder is made when the storage opens, and needs no probe.
    ///
    /// # Errors
    /// [`ProbeFailure`] of a store that refuses.
    pub async fn start(catalog: Catalog, name: String) -> Result<Self, ProbeFailure> {
        let storage = catalog.storage();
        if !storage.is_local()
            && let Err(failure) = storage.probe(&name).await
        {
            if failure.is_refusal {
                return Err(failure);
            }
            storage.note_outage(Some(failure.reason));
        }
        Ok(Self { catalog, name, looked: Instant::now() })
    }

    /// Takes the folder that is there now for the warehouse if it has what the tables need.
    async fn adopt(&self) -> Result<(), CatalogError> {
        let places = self.catalog.metastore().places().await?;
        let files = places.iter().filter_map(|place| Location::parse(&place.metadata_location));
        self.catalog.storage().adopt(&files.collect::<Vec<_>>()).await
    }
}

impl Job for ProbeWarehouse {
    const NAME: &'static str = "probe-warehouse";
    type Error = CatalogError;

    async fn tick(&mut self) -> Result<Progress, CatalogError> {
        let storage = self.catalog.storage();
        if storage.is_local() {
            if storage.look().await.is_ok() {
                return Ok(Progress::Idle);
            }
            return match self.adopt().await {
                Ok(()) => Ok(Progress::Done),
                // What is in the way is noted, and told by `/readyz`.
                Err(CatalogError::WarehouseOutage(_)) => Ok(Progress::Idle),
                Err(cause) => Err(cause),
            };
        }
        if storage.outage().is_none() && !storage.take_suspicion() {
            if self.looked.elapsed() < LOOK_EVERY {
                return Ok(Progress::Idle);
            }
            self.looked = Instant::now();
            if storage.answers(&self.name).await {
                return Ok(Progress::Idle);
            }
        }
        let failure = storage.probe(&self.name).await.err();
        let is_over = failure.is_none();
        storage.note_outage(failure.map(|failure| failure.reason));
        Ok(if is_over { Progress::Done } else { Progress::Idle })
    }
}
