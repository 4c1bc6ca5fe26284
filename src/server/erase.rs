//! Starts what carries erasures out.

use crate::{
    config::Config,
    maintenance::{
        JobRegistry,
        erasure::{ErasureParts, Erasures},
        pace::JobPace,
    },
    owner::LogOwnership,
    server::StartError,
    store::Store,
};
use icecore_catalog::catalog::Catalog;
use icecore_lake::{clock::Clock, ids::IdGenerator, wal::Wal};
use std::time::Duration;

/// Starts the job. Who takes the events does it, and first begins those anew that the metastore does not
/// know any more.
pub(super) async fn start(
    jobs: &JobRegistry,
    config: &Config,
    (catalog, pace): (&Catalog, &JobPace),
    (ids, clock, owner, wal): (&IdGenerator, &Clock, &LogOwnership, &Wal),
) -> Result<Erasures, StartError> {
    let database = catalog.metastore().database().clone();
    let store = Store::new(database, clock.clone(), &owner.log().to_string());
    let parts = ErasureParts {
        store,
        wal: wal.clone(),
        catalog: catalog.clone(),
        ids: ids.clone(),
        owner: owner.clone(),
        faults: config.faults.clone(),
        pace: pace.clone(),
    };
    let erasures = Erasures::new(parts, &config.data_dir);
    // What else is in the way may be gone in a while, and each run looks.
    if owner.check_owner().is_ok() {
        let reconciled = erasures.reconcile().await;
        reconciled.map_err(|cause| StartError::Erasures(Box::new(cause)))?;
        let (job, wake) = erasures.job();
        jobs.start_woken(job, Duration::MAX, wake);
    }
    Ok(erasures)
}
