//! Expiry: removes the snapshots, branches and tags of tables whose time is over, also of tables that
//! nobody writes to any more.
//!
//! What has expired is the catalog's to know. Files that nothing needs then go by its queue of files to
//! delete, with the time that readers and planners have, and not while a backup holds them.
//!
//! Its one invariant: of a table of another engine nothing goes unless its properties or refs ask for it,
//! or an operator names it with its namespace.

use crate::maintenance::{
    planned::{PlannedJob, RunRequest},
    scope::{ACTOR, every_table_of, is_of_all},
};
use icecore_catalog::{
    catalog::{Catalog, ExpiryRequest, HistoryExpiry},
    error::{CatalogError, with_causes},
};
use icecore_lake::{faults::Failpoints, table::schema::TableIdent};
use icecore_schemas::jobs::{JobReport, SkippedTable};
use std::{
    collections::HashMap,
    error::Error,
    io,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::time::Instant;
use tracing::{info, warn};

/// Most commits of a run for one table.
const STEPS_MAX: usize = 100;
/// Most tables of which it is remembered that a warning told why they stay. Beyond that they are told once more.
const TOLD_MAX: usize = 10_000;

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub enum ExpiryError {
    /// The catalog.
    #[error("expire snapshots")]
    Catalog(#[from] CatalogError),
    /// A planned fault of a test.
    #[error("expire snapshots")]
    Fault(#[from] io::Error),
}

/// The job that does it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SnapshotExpiry {
    catalog: Catalog,
    faults: Failpoints,
    /// Why tables stay whose properties are wrong, as a warning told it.
    told: Arc<Mutex<HashMap<TableIdent, String>>>,
}

impl SnapshotExpiry {
    /// Looks through the tables of `catalog`.
    #[must_use]
    pub fn new(catalog: &Catalog) -> Self {
        let (faults, told) = (Failpoints::default(), Arc::default());
        Self { catalog: catalog.on_behalf_of(ACTOR), faults, told }
    }

    /// The same job, with the faults of a test.
    #[must_use]
    pub fn with_faults(self, faults: Failpoints) -> Self {
        Self { faults, ..self }
    }

    /// Everything of one table; what went, and why something stays.
    async fn expire(
        &self,
        table: &TableIdent,
        request: ExpiryRequest,
        errors: &mut u64,
    ) -> Result<(HistoryExpiry, Option<String>), ExpiryError> {
        let mut all = HistoryExpiry::default();
        for _ in 0..STEPS_MAX {
            self.faults.hit("expire.before_removal")?;
            let step = match Box::pin(self.catalog.upkeep().expire(table, request)).await {
                // What was done before stays done.
                Err(cause) if !is_of_all(&self.catalog, Some(&cause)) => {
                    warn!(%table, error = &cause as &dyn Error, "snapshots of a table stay");
                    *errors += 1;
                    return Ok((all, Some(with_causes(&cause))));
                }
                step => step?,
            };
            if step.is_empty() {
                self.warn_of_fault(table, &step);
                return Ok((all, step.obstacle));
            }
            all.snapshots += step.snapshots;
            all.refs += step.refs;
            all.files += step.files;
            if request.is_dry {
                break;
            }
            self.faults.hit("expire.after_removal")?;
        }
        Ok((all, None))
    }

    /// Warns once of a table of which everything stays because a property of it says nothing.
    fn warn_of_fault(&self, table: &TableIdent, step: &HistoryExpiry) {
        let why = step.obstacle.as_deref().filter(|_| step.is_fault);
        if let Some(why) = why
            && self.is_news(table, why)
        {
            warn!(%table, why, "snapshots of a table do not expire");
        }
    }

    fn is_news(&self, table: &TableIdent, why: &str) -> bool {
        // Whole entries go in and out, so a panic elsewhere leaves nothing half done.
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(table).is_some_and(|before| before == why) {
            return false;
        }
        if TOLD_MAX <= told.len() {
            told.clear();
        }
        told.insert(table.clone(), why.to_owned());
        true
    }
}

impl PlannedJob for SnapshotExpiry {
    const NAME: &'static str = "expire";
    type Error = ExpiryError;

    async fn run(&self, request: &RunRequest) -> Result<JobReport, ExpiryError> {
        let started = Instant::now();
        let mut report = JobReport { job: Self::NAME.to_owned(), ..JobReport::default() };
        // A name alone is that of tables in many namespaces.
        let is_named = request.table.is_some() && request.levels.is_some();
        let asked = ExpiryRequest { is_named, is_dry: request.dry_run };
        for table in every_table_of(&self.catalog, request).await? {
            let (gone, stays) = self.expire(&table, asked, &mut report.errors).await?;
            if !gone.is_empty() {
                report.tables += 1;
                report.files.before += gone.files as u64;
                let HistoryExpiry { snapshots, refs, files, .. } = gone;
                let is_dry = asked.is_dry;
                info!(%table, snapshots, refs, files, is_dry, "snapshots of a table have expired");
            }
            let skipped = stays.map(|reason| SkippedTable { table: table.to_string(), reason });
            report.skipped.extend(skipped);
        }
        report.elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(report)
    }
}

#[cfg(test)]
mod tests;
