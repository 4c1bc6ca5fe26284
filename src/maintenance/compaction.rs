//! Compaction of the service's tables, and of others where somebody asks for it: which table, how fast, and the commit.
//!
//! What is worth it is [`icecore_lake::table::compaction`]'s to know. A step reads the files of some groups
//! of one table without holding anything of it, writes them anew, and commits a `replace`, which is put on
//! top of whatever was committed meanwhile. The catalog refuses it when a file is not live any more, or
//! got deletes; then deletes are carried over, and groups whose files went are looked for by halves, and chosen
//! anew.
//!
//! Its one invariant: nothing that is committed depends on what a former run did. A run that ends in its
//! middle leaves files that no snapshot names, and the next one chooses anew.

mod commit;
pub mod job;
mod notes;
mod outcome;
mod pace;
pub mod planned;
mod row_sums;
mod step;
mod tables;
mod writers;

use crate::{
    maintenance::{
        planned::RunRequest,
        progress::RunProgress,
        scope::{ACTOR, every_table_of},
    },
    tasks::Tasks,
};
use icecore_catalog::{
    catalog::{Catalog, LoadedTable},
    error::{CatalogError, with_causes},
    scan::{ScanError, filter::Filter},
    usage::UsageCounter,
};
use icecore_lake::{
    clock::Clock,
    faults::Failpoints,
    ids::IdGenerator,
    load::IngestLoad,
    table::{
        compaction::{
            choice::{CompactionMode, CompactionRules, reasons::ReasonCounts},
            condition::{ConditionError, PartitionCondition},
            rewrite::RewriteError,
        },
        schema::TableIdent,
    },
};
use icecore_schemas::jobs::JobReport;
use notes::CompactionNotes;
use outcome::CompactionStep;
use pace::WorkPace;
use std::{
    error::Error,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{
    sync::{oneshot, watch},
    time::Instant,
};
use tracing::warn;

/// Most steps of a run for one table.
const RUN_STEPS_MAX: usize = 10_000;
/// How many times `wal.disk_free_min` stays free: the log and its flushes have the rest.
const DISK_FREE_TIMES: f64 = 1.2;
/// About the most that a step writes.
const STEP_BYTES_MAX: u64 = 2 * step::BYTES_MAX;

/// Why nothing is merged on a disk of a warehouse that is nearly full; none where it has room for a step.
#[must_use]
pub fn no_room(free: u64, all: u64, disk_free_min: f64) -> Option<String> {
    let least = (all as f64 * disk_free_min * DISK_FREE_TIMES) as u64;
    let least = least.saturating_add(STEP_BYTES_MAX);
    (free < least).then(|| {
        format!(
            "{} MiB of the warehouse's disk are free, and {} are needed: 1.2 x wal.disk_free_min and 256 MiB",
            free >> 20,
            least >> 20
        )
    })
}

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub enum CompactionError {
    /// The catalog.
    #[error("compact a table")]
    Catalog(#[from] CatalogError),
    /// Its manifests do not read.
    #[error("look for files to compact")]
    Scan(#[from] ScanError),
    /// Files were not written anew.
    #[error("compact `{table}`")]
    Rewrite {
        /// Which table.
        table: String,
        /// Why.
        #[source]
        source: RewriteError,
    },
    /// No table of the request has such partitions.
    #[error("choose partitions of `{table}`")]
    Condition {
        /// One of the tables.
        table: TableIdent,
        /// Why.
        #[source]
        source: ConditionError,
    },
    /// A planned fault of a test.
    #[error("compact a table")]
    Fault(#[from] io::Error),
    /// The server stops.
    #[error("the server stops")]
    Stopped,
}

/// How compaction is done.
#[derive(Clone, Copy, Debug)]
pub struct CompactionOptions {
    /// What is wanted of files.
    pub rules: CompactionRules,
    /// The share of one processor that the job takes.
    pub cpu_share: f64,
    /// The share of the disk that must stay free for the log.
    pub disk_free_min: f64,
}

/// What a run is about.
#[derive(Clone, Debug)]
pub struct CompactionRequest {
    /// What is worth it.
    pub mode: CompactionMode,
    /// Only tables of this namespace of the catalog.
    pub levels: Option<Vec<String>>,
    /// Only tables of this name.
    pub table: Option<String>,
    /// Whether to change nothing.
    pub dry_run: bool,
    /// Whether files of other engines stay as they are: they are merged by hand alone.
    pub leaves_foreign: bool,
    /// Only these partitions.
    pub condition: Option<PartitionCondition>,
    /// Where it is told how far the run is.
    pub progress: RunProgress,
}

impl CompactionRequest {
    /// What the job does.
    fn steady() -> Self {
        Self {
            mode: CompactionMode::Steady,
            levels: None,
            table: None,
            dry_run: false,
            leaves_foreign: true,
            condition: None,
            progress: RunProgress::default(),
        }
    }

    /// What rows of a table must meet, so that their partitions are of the request.
    fn filter(&self, table: &TableIdent, loaded: &LoadedTable) -> Result<Filter, CompactionError> {
        let Some(condition) = &self.condition else { return Ok(Filter::True) };
        condition
            .bind(&loaded.metadata)
            .map_err(|source| CompactionError::Condition { table: table.clone(), source })
    }

    /// Whether it is about one table, which may be another engine's then.
    fn names_a_table(&self) -> bool {
        self.levels.is_some() && self.table.is_some()
    }
}

/// How fast a run goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RunSpeed {
    /// As fast as it goes: somebody waits for it, and the job does not rest meanwhile.
    Full,
    /// At the job's share of a processor.
    Share,
}

/// Compaction of a server's tables, one rewrite at a time. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Compaction(Arc<CompactionInner>);

#[derive(Debug)]
struct CompactionInner {
    catalog: Catalog,
    clock: Clock,
    ids: IdGenerator,
    tasks: Tasks,
    options: CompactionOptions,
    /// Whom it must not slow down.
    load: IngestLoad,
    faults: Failpoints,
    running: tokio::sync::Mutex<()>,
    /// How many runs at full speed go on.
    hand_runs: watch::Sender<usize>,
    noted: Mutex<CompactionNotes>,
}

/// While it lives a run at full speed goes on, for which the job does not rest.
struct HandRun<'a>(&'a watch::Sender<usize>);

impl<'a> HandRun<'a> {
    fn begin(runs: &'a watch::Sender<usize>) -> Self {
        runs.send_modify(|runs| *runs += 1);
        Self(runs)
    }
}

impl Drop for HandRun<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|runs| *runs -= 1);
    }
}

impl Compaction {
    /// Compacts tables of `catalog`, beside this ingest.
    #[must_use]
    pub fn new(
        catalog: &Catalog,
        (clock, ids): (Clock, IdGenerator),
        tasks: Tasks,
        options: CompactionOptions,
        load: &IngestLoad,
        faults: Failpoints,
    ) -> Self {
        let catalog = catalog.on_behalf_of(ACTOR);
        Self(Arc::new(CompactionInner {
            catalog,
            clock,
            ids,
            tasks,
            options,
            load: load.clone(),
            faults,
            running: tokio::sync::Mutex::default(),
            hand_runs: watch::Sender::new(0),
            noted: Mutex::default(),
        }))
    }

    /// Does everything that is worth it by the request, as fast as it goes.
    ///
    /// # Errors
    /// [`CompactionError`]; what was committed before stays.
    pub async fn run(&self, request: &CompactionRequest) -> Result<JobReport, CompactionError> {
        self.run_at(RunSpeed::Full, request).await
    }

    async fn run_at(
        &self,
        speed: RunSpeed,
        request: &CompactionRequest,
    ) -> Result<JobReport, CompactionError> {
        let (started, since_ms) = (Instant::now(), self.failures_since(speed, request.mode));
        let (share, _hand_run) = match speed {
            RunSpeed::Full => (1.0, Some(HandRun::begin(&self.0.hand_runs))),
            RunSpeed::Share => (self.0.options.cpu_share, None),
        };
        let mut report = JobReport {
            job: match request.mode {
                CompactionMode::ClosedDays => "compact-day",
                CompactionMode::ClosedHours => "compact-hour",
                CompactionMode::Steady | CompactionMode::Now => "compact",
            }
            .to_owned(),
            ..JobReport::default()
        };
        let mut pace = self.pace(share);
        let tables = self.tables(request).await?;
        request.progress.begin(tables.len());
        let mut misfits = Vec::new();
        for table in &tables {
            let (mut is_changed, mut kept) = (false, ReasonCounts::new());
            for _ in 0..RUN_STEPS_MAX {
                let apart = self.step_apart(table.clone(), request.clone(), since_ms, pace);
                let (left, step) = apart.await?;
                pace = left;
                let mut step = match step {
                    Err(cause) if self.ends_all(&cause) => return Err(cause),
                    Err(cause @ CompactionError::Condition { .. }) => {
                        let step = CompactionStep::skip(with_causes(&cause));
                        misfits.push(cause);
                        step
                    }
                    Err(cause) => {
                        warn!(%table, error = &cause as &dyn Error, "a table is not compacted");
                        report.errors += 1;
                        CompactionStep::skip(with_causes(&cause))
                    }
                    Ok(step) => step,
                };
                is_changed |= 0 < step.files.before;
                // What stays is known after the last step.
                kept = std::mem::take(&mut step.kept);
                step.add_to(&mut report, table);
                // What was lost to others is chosen anew as long as something was done, and others where
                // files were found that are left alone.
                if request.dry_run || (step.files.before == 0 && step.failed == 0) {
                    break;
                }
            }
            outcome::add_reasons(&mut report.kept, table, &kept);
            report.tables += u64::from(is_changed);
            request.progress.end_table();
            // A look at a table without work costs something, too.
            pace.rest(Instant::now() + pace.pause_max()).await?;
        }
        if misfits.len() == tables.len()
            && let Some(cause) = misfits.pop()
        {
            return Err(cause);
        }
        report.skipped.sort();
        report.skipped.dedup();
        report.not_copied.sort();
        report.not_copied.dedup();
        report.elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(report)
    }

    /// Since when files are left alone whose rewrite failed: a run tries those of before once more. One that
    /// comes each hour leaves them alone as long as the job does.
    fn failures_since(&self, speed: RunSpeed, mode: CompactionMode) -> i64 {
        match speed == RunSpeed::Share && mode == CompactionMode::ClosedHours {
            true => i64::MIN,
            false => self.0.clock.passed_ms(),
        }
    }

    /// A step as a task of its own, one at a time: a tick or a run is dropped when its lease is lost, and a
    /// rewrite that is dropped in its middle leaves its files behind.
    async fn step_apart(
        &self,
        table: TableIdent,
        request: CompactionRequest,
        since_ms: i64,
        mut pace: WorkPace,
    ) -> Result<(WorkPace, Result<CompactionStep, CompactionError>), CompactionError> {
        let (answer, answered) = oneshot::channel();
        let compaction = self.clone();
        // What the step costs is the run's.
        let counter = UsageCounter::current().unwrap_or_default();
        self.0.tasks.spawn("compact-step", async move {
            // Who waits for a turn does no work.
            pace.note();
            let one = compaction.0.running.lock().await;
            pace.leave_out();
            let step = Box::pin(compaction.step(&table, &request, since_ms, &mut pace));
            let step = counter.measure(step).await;
            drop(one);
            // Nobody waits for it where the tick was dropped.
            drop(answer.send((pace, step)));
        });
        // The task answers unless the server stops before.
        answered.await.map_err(|_| CompactionError::Stopped)
    }

    /// The tables of the request; a step leaves those of other engines alone that nobody asks for.
    async fn tables(&self, request: &CompactionRequest) -> Result<Vec<TableIdent>, CatalogError> {
        let CompactionRequest { levels, table, dry_run, .. } = request.clone();
        let request = RunRequest { levels, table, dry_run, condition: None };
        every_table_of(&self.0.catalog, &request).await
    }

    fn pace(&self, share: f64) -> WorkPace {
        let Self(inner) = self;
        let (stopping, waiting) = (inner.tasks.stopping(), inner.hand_runs.subscribe());
        WorkPace::new(share, &inner.load, stopping, waiting)
    }

    /// Whether a failed step says that those of other tables would fail too.
    fn ends_all(&self, cause: &CompactionError) -> bool {
        let is_of_all = matches!(
            cause,
            CompactionError::Stopped
                | CompactionError::Fault(_)
                | CompactionError::Catalog(
                    CatalogError::WarehouseOutage(_) | CatalogError::Metastore { .. }
                )
        );
        is_of_all || self.0.catalog.storage().outage().is_some()
    }

    /// Why the disk of a local warehouse has no room for a step, if it has none.
    async fn lacks_room(&self) -> Result<Option<String>, CatalogError> {
        let bytes = self.0.catalog.storage().disk_bytes().await?;
        Ok(bytes.and_then(|(free, all)| no_room(free, all, self.0.options.disk_free_min)))
    }

    fn noted(&self) -> MutexGuard<'_, CompactionNotes> {
        // Whole entries go in and out, so a panic elsewhere leaves nothing half done.
        self.0.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
