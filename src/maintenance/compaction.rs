//! Compaction of the service's tables: which table, how fast, and the commit.
//!
//! What is worth it is [`icecore_lake::table::compaction`]'s to know. A step reads the files of some groups
//! of one table without holding anything of it, writes them anew, and commits a `replace`, which is put on
//! top of whatever was committed meanwhile. The catalog refuses it when a file is not live any more, or
//! got deletes; then each group is committed on its own, so that only those which changed are chosen anew.
//!
//! Its one invariant: nothing that is committed depends on what a former run did. A run that ends in its
//! middle leaves files that no snapshot names, and the next one chooses anew.

mod pace;
mod step;

use crate::tasks::{Job, Progress, Tasks};
use icecore_catalog::{catalog::Catalog, error::CatalogError, scan::ScanError};
use icecore_lake::{
    clock::Clock,
    faults::Failpoints,
    ids::IdGenerator,
    table::{
        compaction::{
            choice::{CompactionMode, CompactionRules},
            rewrite::RewriteError,
        },
        schema::{TableIdent, foreign_ident},
    },
};
use icecore_schemas::jobs::JobReport;
use pace::WorkPace;
use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use step::CompactionStep;
use tokio::{
    sync::{Semaphore, oneshot},
    time::Instant,
};
use tracing::{info, warn};

/// Who the catalog's feed says it was that wrote files anew.
const ACTOR: &str = "icecore/maintenance";
/// Most steps of one tick, each with one commit.
const TICK_STEPS_MAX: usize = 4;
/// Most tables that a tick looks at; the round goes on with the next tick.
const TICK_TABLES_MAX: usize = 1_024;
/// Most runs by hand at a time.
const RUNS_MAX: usize = 1;
/// Most steps of a run by hand for one table.
const RUN_STEPS_MAX: usize = 10_000;
/// So long a table without work is not looked at again, unless it has another snapshot.
const LOOKED_MS: i64 = 10 * 60_000;
/// So long the job leaves files alone whose rewrite failed; a run by hand tries them once.
const FAILED_MS: i64 = 60 * 60_000;
/// Most tables that are remembered so, some 100 bytes each; beyond it all are forgotten.
const LOOKED_MAX: usize = 200_000;
/// Most files that are remembered so.
const FAILED_MAX: usize = 10_000;

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
    /// A planned fault of a test.
    #[error("compact a table")]
    Fault(#[from] io::Error),
    /// As many runs by hand go on as may.
    #[error("a compaction by hand goes on already: wait until it has ended")]
    Busy,
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
    faults: Failpoints,
    running: tokio::sync::Mutex<()>,
    by_hand: Arc<Semaphore>,
    noted: Mutex<NotedFiles>,
}

/// What need not be tried again yet. Its times are of the clock that is never set.
#[derive(Debug, Default)]
struct NotedFiles {
    /// Tables without work: the snapshot that was looked at, and until when that holds.
    looked: HashMap<TableIdent, (i64, i64)>,
    /// Files whose rewrite failed, and when.
    failed: HashMap<String, i64>,
}

impl Compaction {
    /// Compacts tables of `catalog`.
    #[must_use]
    pub fn new(
        catalog: &Catalog,
        clock: Clock,
        ids: IdGenerator,
        tasks: Tasks,
        options: CompactionOptions,
        faults: Failpoints,
    ) -> Self {
        let catalog = catalog.on_behalf_of(ACTOR);
        Self(Arc::new(CompactionInner {
            catalog,
            clock,
            ids,
            tasks,
            options,
            faults,
            running: tokio::sync::Mutex::default(),
            by_hand: Arc::new(Semaphore::new(RUNS_MAX)),
            noted: Mutex::default(),
        }))
    }

    /// Does everything that is worth it by the request, as fast as it goes.
    ///
    /// # Errors
    /// [`CompactionError`]; what was committed before stays.
    pub async fn run(&self, request: &CompactionRequest) -> Result<JobReport, CompactionError> {
        let (started, since_ms) = (Instant::now(), self.0.clock.passed_ms());
        let mut report = JobReport {
            job: match request.mode {
                CompactionMode::ClosedDays => "compact-day",
                CompactionMode::Steady | CompactionMode::Now => "compact",
            }
            .to_owned(),
            ..JobReport::default()
        };
        let mut pace = WorkPace::new(1.0, self.0.tasks.stopping());
        for table in self.tables(request).await? {
            let mut is_changed = false;
            for _ in 0..RUN_STEPS_MAX {
                // For each step alone: the job goes on in between.
                let one = self.0.running.lock().await;
                let step = self.step(&table, request, since_ms, &mut pace).await;
                drop(one);
                let step = step?;
                is_changed |= 0 < step.files.before;
                step.add_to(&mut report, &table);
                // What was lost to others is chosen anew as long as something was done, and others where
                // files were found that are left alone.
                if request.dry_run || (step.files.before == 0 && step.failed == 0) {
                    break;
                }
            }
            report.tables += u64::from(is_changed);
        }
        report.skipped.sort();
        report.skipped.dedup();
        report.elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(report)
    }

    /// The same as a task of the server, which goes on when nobody waits for its answer any more: a run that
    /// is dropped in its middle would leave its files behind.
    ///
    /// # Errors
    /// [`CompactionError::Busy`]
    pub fn start(
        &self,
        request: CompactionRequest,
    ) -> Result<oneshot::Receiver<Result<JobReport, CompactionError>>, CompactionError> {
        let place = Arc::clone(&self.0.by_hand).try_acquire_owned();
        let place = place.map_err(|_| CompactionError::Busy)?;
        let (answer, answered) = oneshot::channel();
        let compaction = self.clone();
        self.0.tasks.spawn("compact-now", async move {
            let ended = compaction.run(&request).await;
            match &ended {
                Ok(report) => info!(?report, "compaction ended"),
                Err(CompactionError::Stopped) => (),
                Err(cause) => {
                    warn!(error = cause as &dyn std::error::Error, "compaction failed");
                }
            }
            // Whoever has the answer may start the next one.
            drop(place);
            // Nobody may wait for it any more.
            drop(answer.send(ended));
        });
        Ok(answered)
    }

    /// Starts it, and waits for its end.
    ///
    /// # Errors
    /// [`CompactionError`]
    pub async fn start_and_wait(
        &self,
        request: CompactionRequest,
    ) -> Result<JobReport, CompactionError> {
        // The task answers unless the server stops before.
        self.start(request)?.await.unwrap_or(Err(CompactionError::Stopped))
    }

    /// A step of the job as a task of its own: a tick is dropped when its lease is lost, and a rewrite that
    /// is dropped in its middle leaves its files behind.
    async fn step_apart(
        &self,
        table: TableIdent,
        request: CompactionRequest,
        mut pace: WorkPace,
    ) -> Result<(WorkPace, Result<CompactionStep, CompactionError>), CompactionError> {
        let (answer, answered) = oneshot::channel();
        let compaction = self.clone();
        self.0.tasks.spawn("compact-step", async move {
            let one = compaction.0.running.lock().await;
            let step = compaction.step(&table, &request, i64::MIN, &mut pace).await;
            drop(one);
            // Nobody waits for it where the tick was dropped.
            drop(answer.send((pace, step)));
        });
        // The task answers unless the server stops before.
        answered.await.map_err(|_| CompactionError::Stopped)
    }

    /// The tables of the request, those of the service alone unless one is named.
    async fn tables(&self, request: &CompactionRequest) -> Result<Vec<TableIdent>, CatalogError> {
        let metastore = self.0.catalog.metastore();
        let tables: Vec<(Vec<String>, String)> = match &request.levels {
            Some(levels) => {
                let names = metastore.tables(levels).await?;
                names.into_iter().map(|name| (levels.clone(), name)).collect()
            }
            None => metastore.tables_at_the_top().await?,
        };
        let is_wanted = |name: &String| request.table.as_ref().is_none_or(|wanted| wanted == name);
        let wanted = tables.iter().filter(|(_, name)| is_wanted(name));
        Ok(wanted.filter_map(|(levels, name)| foreign_ident(levels, name)).collect())
    }

    fn noted(&self) -> MutexGuard<'_, NotedFiles> {
        // Whole entries go in and out, so a panic elsewhere leaves nothing half done.
        self.0.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl NotedFiles {
    /// Whether nothing was to do in this snapshot a while ago.
    fn is_looked_at(&self, table: &TableIdent, snapshot_id: i64, now_ms: i64) -> bool {
        self.looked.get(table).is_some_and(|(id, until)| *id == snapshot_id && now_ms < *until)
    }

    fn look_at(&mut self, table: &TableIdent, snapshot_id: i64, now_ms: i64) {
        if LOOKED_MAX <= self.looked.len() {
            self.looked.clear();
        }
        self.looked.insert(table.clone(), (snapshot_id, now_ms.saturating_add(LOOKED_MS)));
    }

    /// Whether the rewrite of a file failed not long ago, and not before `since_ms`.
    fn is_failed(&self, file: &str, since_ms: i64, now_ms: i64) -> bool {
        let is_recent = |at: &i64| now_ms < at.saturating_add(FAILED_MS) && since_ms <= *at;
        self.failed.get(file).is_some_and(is_recent)
    }

    fn fail<'a>(&mut self, files: impl IntoIterator<Item = &'a str>, now_ms: i64) {
        self.failed.retain(|_, at| now_ms < at.saturating_add(FAILED_MS));
        if FAILED_MAX <= self.failed.len() {
            self.failed.clear();
        }
        self.failed.extend(files.into_iter().map(|file| (file.to_owned(), now_ms)));
    }
}

/// The job that does it now and then, at its share of a processor.
#[derive(Debug)]
pub struct CompactTables {
    compaction: Compaction,
    /// Tables that are still to be looked at in this round.
    round: Vec<TableIdent>,
}

impl CompactTables {
    /// The job of `compaction`.
    #[must_use]
    pub fn new(compaction: Compaction) -> Self {
        Self { compaction, round: Vec::new() }
    }
}

impl Job for CompactTables {
    const NAME: &'static str = "compact";
    type Error = CompactionError;

    /// Looks at each table once in a round, and goes on with a round until it has done a few steps or seen
    /// many tables. A table that fails does not hold up the others, and the tick reports the first failure.
    async fn tick(&mut self) -> Result<Progress, CompactionError> {
        let inner = &self.compaction.0;
        let request = CompactionRequest {
            mode: CompactionMode::Steady,
            levels: None,
            table: None,
            dry_run: false,
        };
        if self.round.is_empty() {
            self.round = self.compaction.tables(&request).await?;
        }
        let mut pace = WorkPace::new(inner.options.cpu_share, inner.tasks.stopping());
        let (mut steps, mut seen, mut first) = (0, 0, None);
        while steps < TICK_STEPS_MAX
            && seen < TICK_TABLES_MAX
            && let Some(table) = self.round.pop()
        {
            seen += 1;
            let apart = self.compaction.step_apart(table.clone(), request.clone(), pace).await;
            let Ok((rested, step)) = apart else { return Ok(Progress::Done) };
            pace = rested;
            match step {
                Ok(step) => {
                    steps += usize::from(0 < step.files.before);
                    if step.is_more {
                        // The others come first.
                        self.round.insert(0, table);
                    }
                }
                Err(CompactionError::Stopped) => return Ok(Progress::Done),
                Err(cause) => drop(first.get_or_insert(cause)),
            }
            match pace.rest().await {
                Err(CompactionError::Stopped) => return Ok(Progress::Done),
                rested => rested?,
            }
        }
        match first {
            Some(cause) => Err(cause),
            None => Ok(Progress::of(0 < steps, 0 < steps && !self.round.is_empty())),
        }
    }
}

#[cfg(test)]
mod tests;
