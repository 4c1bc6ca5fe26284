//! Removes files of tables that nothing names: what writers and crashes left behind.
//!
//! Which files those are is the catalog's to know, see [`icecore_catalog::catalog::Orphans`]. They are
//! marked in one run and queued for deletion in another, at least the grace later; the job
//! `delete-obsolete` deletes what is queued. A table of which anything is doubtful is left alone and
//! reported, and the run goes on with the others.
//!
//! So are the files of folders of new tables that were never made.
//!
//! Its one invariant: a run that ends in its middle leaves marks and whole entries of the queue, so the next
//! one goes on from there.

use crate::maintenance::{
    pace::JobPace,
    planned::{PlannedJob, RunRequest},
    scope::{ACTOR, every_table_of, namespaces_of},
};
use icecore_catalog::{
    catalog::{Catalog, OrphanFile, QueuedOrphans},
    error::{CatalogError, with_causes},
    metastore::Levels,
};
use icecore_lake::{faults::Failpoints, table::schema::TableIdent};
use icecore_schemas::jobs::{JobReport, SkippedTable};
use std::{error::Error, io, time::Duration};
use tokio::time::Instant;
use tracing::{debug, info, warn};

/// Most files of a table that are named in the log of every server; all are with `log=debug`.
const LOGGED_MAX: usize = 20;

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub enum OrphansError {
    /// The catalog.
    #[error("remove orphans")]
    Catalog(#[from] CatalogError),
    /// A planned fault of a test.
    #[error("remove orphans")]
    Fault(#[from] io::Error),
}

/// The job that removes orphans. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Orphans {
    catalog: Catalog,
    grace: Duration,
    faults: Failpoints,
    pace: JobPace,
}

impl Orphans {
    /// Removes orphans of the tables of `catalog` that are older than `grace`, and were seen so long ago.
    /// A grace of less than 24 hours counts as 24 hours.
    #[must_use]
    pub fn new(catalog: &Catalog, grace: Duration, faults: Failpoints, pace: JobPace) -> Self {
        Self { catalog: catalog.on_behalf_of(ACTOR), grace, faults, pace }
    }

    /// Looks after one table, and adds what was found to the report.
    async fn sweep(
        &self,
        table: &TableIdent,
        dry_run: bool,
        report: &mut JobReport,
    ) -> Result<(), OrphansError> {
        let grace_ms = i64::try_from(self.grace.as_millis()).unwrap_or(i64::MAX);
        let search = self.catalog.orphans().search(table, grace_ms).await?;
        let (files, bytes) = count(search.orphans().iter());
        report.files.before += files;
        report.bytes.before += bytes;
        report.files.after += files;
        report.bytes.after += bytes;
        for reason in search.kept() {
            report.skipped.push(SkippedTable { table: table.to_string(), reason });
        }
        tell(table, search.orphans(), dry_run);
        let due = count(search.orphans().iter().filter(|file| file.is_due));
        let gone = match dry_run {
            true => QueuedOrphans { files: due.0, bytes: due.1 },
            false => {
                self.faults.hit("orphans.before_mark")?;
                self.catalog.orphans().mark(&search).await?;
                self.faults.hit("orphans.after_mark")?;
                let queued = self.catalog.orphans().queue(search).await?;
                self.faults.hit("orphans.after_queue")?;
                queued
            }
        };
        report.tables += u64::from(0 < gone.files && !dry_run);
        report.files.after -= gone.files;
        report.bytes.after -= gone.bytes;
        Ok(())
    }

    /// Looks after folders of tables that statements were killed before they made, and adds what was found to the
    /// report. A folder is left whole, or goes whole.
    async fn sweep_folders(
        &self,
        levels: &Levels,
        dry_run: bool,
        report: &mut JobReport,
    ) -> Result<(), OrphansError> {
        let grace_ms = i64::try_from(self.grace.as_millis()).unwrap_or(i64::MAX);
        let orphans = self.catalog.orphans();
        for folder in orphans.search_folders(levels, grace_ms).await? {
            let (files, bytes) = count(folder.orphans().iter());
            report.files.before += files;
            report.bytes.before += bytes;
            report.files.after += files;
            report.bytes.after += bytes;
            let location = folder.location();
            let is_deleted = folder.is_due() && !dry_run;
            info!(location, files, bytes, is_deleted, "folder of a table that was never made");
            let gone = match dry_run {
                true if folder.is_due() => QueuedOrphans { files, bytes },
                true => QueuedOrphans::default(),
                false => {
                    orphans.mark_folder(&folder).await?;
                    self.faults.hit("orphans.after_mark")?;
                    let queued = orphans.queue_folder(&folder).await?;
                    self.faults.hit("orphans.after_queue")?;
                    queued
                }
            };
            report.files.after -= gone.files;
            report.bytes.after -= gone.bytes;
        }
        Ok(())
    }

    /// Whether a failed table says that the others would fail too.
    fn ends_all(&self, cause: &OrphansError) -> bool {
        let is_of_all = match cause {
            OrphansError::Fault(_) => true,
            OrphansError::Catalog(cause) => {
                matches!(cause, CatalogError::WarehouseOutage(_) | CatalogError::Metastore { .. })
            }
        };
        is_of_all || self.catalog.storage().outage().is_some()
    }
}

impl PlannedJob for Orphans {
    const NAME: &'static str = "orphans";
    type Error = OrphansError;

    async fn run(&self, request: &RunRequest) -> Result<JobReport, OrphansError> {
        let started = Instant::now();
        let mut report = JobReport { job: Self::NAME.to_owned(), ..JobReport::default() };
        let mut pace = self.pace.begin();
        for table in every_table_of(&self.catalog, request).await? {
            match self.sweep(&table, request.dry_run, &mut report).await {
                // One that was dropped meanwhile is nobody's to look after.
                Ok(()) | Err(OrphansError::Catalog(CatalogError::NoSuchTable(_))) => (),
                Err(cause) if self.ends_all(&cause) => return Err(cause),
                Err(cause) => {
                    warn!(%table, error = &cause as &dyn Error, "orphans of a table are not removed");
                    let reason = match &cause {
                        OrphansError::Catalog(cause) => with_causes(cause),
                        OrphansError::Fault(_) => with_causes(&cause),
                    };
                    report.errors += 1;
                    report.skipped.push(SkippedTable { table: table.to_string(), reason });
                }
            }
            pace.settle().await;
        }
        // A run for one table is about that one alone.
        if request.table.is_none() {
            for levels in namespaces_of(&self.catalog, request).await? {
                let swept = self.sweep_folders(&levels, request.dry_run, &mut report);
                match Box::pin(swept).await {
                    Ok(()) => (),
                    Err(cause) if self.ends_all(&cause) => return Err(cause),
                    Err(cause) => {
                        let table = format!("{}.*", levels.join("."));
                        warn!(table, error = &cause as &dyn Error, "folders of no table stay");
                        let reason = with_causes(&cause);
                        report.errors += 1;
                        report.skipped.push(SkippedTable { table, reason });
                    }
                }
                pace.settle().await;
            }
        }
        if !request.dry_run {
            self.catalog.orphans().forget_old().await?;
        }
        report.skipped.sort();
        report.skipped.dedup();
        report.elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(report)
    }
}

/// How many files, and their bytes.
fn count<'a>(files: impl Iterator<Item = &'a OrphanFile>) -> (u64, u64) {
    files.fold((0, 0), |(count, bytes), file| (count + 1, bytes + file.bytes))
}

/// Names the orphans of a table in the log.
fn tell(table: &TableIdent, orphans: &[OrphanFile], dry_run: bool) {
    for (at, OrphanFile { location, bytes, is_due, .. }) in orphans.iter().enumerate() {
        let is_deleted = *is_due && !dry_run;
        if at < LOGGED_MAX {
            info!(%table, location, bytes, is_deleted, "orphan");
        } else {
            debug!(%table, location, bytes, is_deleted, "orphan");
        }
    }
}

#[cfg(test)]
mod tests;
