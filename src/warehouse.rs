//! Whether the warehouse has answered since the start.
//!
//! A store that refuses stops the start: a wrong key does not mend itself. One that does not answer
//! may come back, so the server starts, takes events into its log, and says that it is not ready.
//! Its one invariant: once the warehouse has answered it counts as there; what fails later is told
//! by the commits that fail.

use crate::tasks::{Job, Progress};
use icecore_catalog::storage::{Storage, probe::ProbeFailure};
use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
};
use tracing::{info, warn};

/// What is known of the warehouse. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct WarehouseState(Arc<Mutex<Option<String>>>);

impl WarehouseState {
    /// Fails until the warehouse has answered.
    ///
    /// # Errors
    /// The reason, for an operator.
    pub fn check(&self) -> Result<(), String> {
        let reason = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        reason.as_ref().map_or(Ok(()), |reason| {
            Err(format!("the warehouse cannot be used, events wait in the log: {reason}"))
        })
    }

    fn set(&self, reason: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }
}

/// Tries a warehouse until it has answered once.
#[derive(Debug)]
pub struct ProbeWarehouse {
    storage: Storage,
    name: String,
    state: WarehouseState,
}

impl ProbeWarehouse {
    /// Tries it a first time. A local folder is made when the storage opens, and needs no probe.
    ///
    /// # Errors
    /// [`ProbeFailure`] of a store that refuses.
    pub async fn start(
        storage: Storage,
        name: String,
    ) -> Result<(Self, WarehouseState), ProbeFailure> {
        let state = WarehouseState::default();
        let probe = Self { storage, name, state: state.clone() };
        if !probe.storage.is_local()
            && let Err(failure) = probe.storage.probe(&probe.name).await
        {
            if failure.is_refusal {
                return Err(failure);
            }
            warn!(reason = failure.reason, "the warehouse does not answer yet");
            state.set(Some(failure.reason));
        }
        Ok((probe, state))
    }
}

impl Job for ProbeWarehouse {
    const NAME: &'static str = "probe-warehouse";
    type Error = Infallible;

    async fn tick(&mut self) -> Result<Progress, Infallible> {
        if self.state.check().is_err() {
            match self.storage.probe(&self.name).await {
                Ok(()) => {
                    info!("the warehouse answers");
                    self.state.set(None);
                    return Ok(Progress::Done);
                }
                Err(failure) => self.state.set(Some(failure.reason)),
            }
        }
        Ok(Progress::Idle)
    }
}
