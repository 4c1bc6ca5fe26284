//! Starts the jobs by which rows and snapshots go for their age.

use crate::{
    config::{Config, retention::RetentionConfig},
    maintenance::{
        JobRegistry,
        expiry::SnapshotExpiry,
        retention::{EventRetention, LetterRetention, RetentionJobs},
    },
    owner::LogOwnership,
};
use icecore_catalog::catalog::Catalog;
use icecore_lake::ids::IdGenerator;

/// Starts what takes rows and snapshots away that are too old. Who takes the events does it.
pub(super) fn start(
    jobs: &JobRegistry,
    config: &Config,
    catalog: &Catalog,
    (ids, owner): (&IdGenerator, &LogOwnership),
) -> RetentionJobs {
    let RetentionConfig { events, events_cron, letters_kept, letters_cron, expire_cron } =
        config.retention.clone();
    let retention = RetentionJobs {
        events: EventRetention::new(catalog, ids.clone(), events),
        letters: LetterRetention::new(catalog, ids.clone(), letters_kept),
        expiry: SnapshotExpiry::new(catalog),
    };
    if owner.check().is_ok() {
        jobs.start_planned(retention.events.clone(), events_cron);
        jobs.start_planned(retention.letters.clone(), letters_cron);
        jobs.start_planned(retention.expiry.clone(), expire_cron);
    }
    retention
}
