//! Queries in processes of their own, which have no store, no file and no network.
//!
//! A worker serves the same namespaces for its life, as a rule one: what it has in its memory is of those.
//! Some are kept when they have no query, and one that served nobody yet waits for the next. Its one
//! invariant: a worker whose query did not come to its end, by whatever cause, or left parts that run, is
//! killed and never used again.

pub(in crate::sql) mod frames;

mod budget;
mod process;
mod query;
mod spill;

use crate::sql::worker::lock::LockReport;
use budget::MemoryBudget;
use frames::QueryTime;
use icecore_catalog::storage::Storage;
use icecore_engine::{EngineQuery, QueryControls, RunningQuery, error::SqlError};
use icecore_schemas::service_table::ServiceTables;
use process::WorkerProcess;
use query::WorkerQuery;
use std::{
    collections::{BTreeSet, VecDeque},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{runtime::Handle, time::Instant};

/// Workers without a query that are kept however long: each takes some tens of megabytes, and up
/// to 154 MiB more with what its caches keep.
const IDLE_KEPT: usize = 4;
/// How long the others are kept, so that none is started for each query of a busy time.
const IDLE_TIME: Duration = Duration::from_secs(60);
/// Most queries of one worker: what a process gathers over time ends with it.
const QUERIES_MAX: usize = 1_000;
/// Longest that the first worker may take to say how it is locked in.
const HELLO_PATIENCE: Duration = Duration::from_secs(10);

/// How workers are started.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// The program; its command `sql-worker` is one.
    pub program: PathBuf,
    /// Memory of all queries together.
    pub memory_bytes_max: usize,
    /// A folder for what does not fit into memory, if there is one. Each worker has one in it.
    pub spill: Option<PathBuf>,
    /// Most bytes of one worker there.
    pub spill_bytes_max: u64,
    /// The share of the disk that the log leaves free, and they more.
    pub disk_free_min: f64,
    /// The tables that records of the log are rows of.
    pub tables: ServiceTables,
    /// Most workers that are kept without a query.
    pub idle_max: usize,
    /// Whether tables may have files anywhere in the warehouse, so that their folders are no bound.
    pub has_foreign_files: bool,
}

/// Whom a worker serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerTenant {
    /// The levels of the namespaces that are looked into: with the one that is asked those that its statement
    /// names. Who may read only some of them gets another worker.
    pub namespaces: BTreeSet<Vec<String>>,
    /// Whether the tables that belong to no namespace are seen.
    pub has_system: bool,
}

/// The workers of a server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SqlWorkers {
    inner: Arc<WorkersInner>,
}

#[derive(Debug)]
struct WorkersInner {
    options: WorkerOptions,
    storage: Storage,
    memory: MemoryBudget,
    idle: Mutex<IdleWorkers>,
    started: AtomicU64,
    /// What this system does not enforce.
    missing: OnceLock<Vec<String>>,
}

#[derive(Debug, Default)]
struct IdleWorkers {
    /// It served nobody yet.
    fresh: Option<WorkerProcess>,
    /// The one that was used last at the end.
    used: VecDeque<IdleWorker>,
    /// Whether somebody looks after those that are kept for a time.
    is_watched: bool,
}

#[derive(Debug)]
struct IdleWorker {
    tenant: WorkerTenant,
    worker: WorkerProcess,
    since: Instant,
}

impl IdleWorkers {
    /// Takes out those that were kept for long enough.
    fn take_old(&mut self) -> Vec<IdleWorker> {
        let old = self.used.iter().take_while(|idle| IDLE_TIME <= idle.since.elapsed()).count();
        let over = old.min(self.used.len().saturating_sub(IDLE_KEPT));
        self.used.drain(..over).collect()
    }
}

impl SqlWorkers {
    /// Workers that read these files; none is started yet.
    #[must_use]
    pub fn new(options: WorkerOptions, storage: Storage) -> Self {
        let memory = MemoryBudget::new(options.memory_bytes_max);
        let inner = WorkersInner {
            options,
            storage,
            memory,
            idle: Mutex::default(),
            started: AtomicU64::new(0),
            missing: OnceLock::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Starts a worker, and notes what this system does not enforce of how it is locked in. The thread is
    /// one for queries.
    ///
    /// # Errors
    /// [`SqlError::Internal`] when none can be started, or does not say so.
    pub async fn warm(&self) -> Result<(), SqlError> {
        let mut worker = self.start_worker()?;
        let lock = match tokio::time::timeout(HELLO_PATIENCE, worker.lock()).await {
            Ok(lock) => lock?,
            Err(_) => {
                let text = "a worker for queries does not start within 10 s";
                return Err(SqlError::Internal(text.to_owned()));
            }
        };
        self.idle().fresh = Some(worker);
        self.note_lock(lock);
        Ok(())
    }

    /// Keeps what this system does not enforce, and says it in the log.
    fn note_lock(&self, lock: LockReport) {
        let missing = self.inner.missing.get_or_init(|| lock.missing);
        if !missing.is_empty() {
            tracing::warn!(missing = missing.join("; "), "queries are not locked in fully");
        }
    }

    /// What this system does not enforce; nothing where no worker said so yet.
    #[must_use]
    pub fn missing(&self) -> &[String] {
        self.inner.missing.get().map(Vec::as_slice).unwrap_or_default()
    }

    /// Plans a query in a worker and starts it. Dropping its rows kills the worker.
    ///
    /// # Errors
    /// [`SqlError`], also when the worker ends.
    pub async fn start(
        &self,
        tenant: WorkerTenant,
        query: EngineQuery,
        controls: QueryControls,
    ) -> Result<RunningQuery, SqlError> {
        // Before a worker is started: where the machine is busy, that takes longer than a small statement has.
        // The time of the whole query ends in any case.
        let signal = controls.stop.signal();
        let left = signal.deadline().saturating_duration_since(Instant::now());
        let time = QueryTime { timeout: signal.timeout(), left };
        let mut worker = self.take(&tenant)?;
        worker.queries += 1;
        worker.lock().await?;
        let memory = self.inner.memory.share();
        let worker = (tenant, worker);
        let running = WorkerQuery::start(self.clone(), worker, memory, (time, query), controls);
        Box::pin(running).await
    }

    /// The files that queries read.
    fn storage(&self) -> &Storage {
        &self.inner.storage
    }

    fn disk_free_min(&self) -> f64 {
        self.inner.options.disk_free_min
    }

    fn has_foreign_files(&self) -> bool {
        self.inner.options.has_foreign_files
    }

    fn tables(&self) -> &ServiceTables {
        &self.inner.options.tables
    }

    /// A worker that serves this tenant, or nobody yet.
    fn take(&self, tenant: &WorkerTenant) -> Result<WorkerProcess, SqlError> {
        while let Some(mut worker) = self.take_kept(tenant) {
            // One that was ended from outside meanwhile costs no query.
            if !worker.has_ended() {
                return Ok(worker);
            }
        }
        self.start_worker()
    }

    fn take_kept(&self, tenant: &WorkerTenant) -> Option<WorkerProcess> {
        let mut idle = self.idle();
        let at = idle.used.iter().rposition(|idle| idle.tenant == *tenant);
        let used = at.and_then(|at| idle.used.remove(at)).map(|idle| idle.worker);
        used.or_else(|| idle.fresh.take())
    }

    /// Takes a worker back whose query came to its end.
    fn give_back(&self, tenant: WorkerTenant, worker: WorkerProcess) {
        let given = IdleWorker { tenant, worker, since: Instant::now() };
        let over = {
            let mut idle = self.idle();
            if given.worker.queries < QUERIES_MAX {
                idle.used.push_back(given);
                let is_full = self.inner.options.idle_max.max(IDLE_KEPT) < idle.used.len();
                if IDLE_KEPT < idle.used.len() && !idle.is_watched {
                    idle.is_watched = true;
                    Handle::current().spawn(self.clone().watch());
                }
                if is_full { idle.used.pop_front() } else { None }
            } else {
                Some(given)
            }
        };
        // Without the lock: to end a process takes a moment.
        drop(over);
    }

    /// Ends workers that nobody used for some time, until no more are left than are kept.
    async fn watch(self) {
        loop {
            tokio::time::sleep(IDLE_TIME / 4).await;
            let (old, is_done) = {
                let mut idle = self.idle();
                let old = idle.take_old();
                idle.is_watched = IDLE_KEPT < idle.used.len();
                (old, !idle.is_watched)
            };
            drop(old);
            if is_done {
                return;
            }
        }
    }

    /// Has one worker wait for the next tenant. Whoever needs it later is told if that fails.
    fn keep_fresh(&self) {
        if self.idle().fresh.is_some() {
            return;
        }
        if let Ok(worker) = self.start_worker() {
            let before = self.idle().fresh.replace(worker);
            // Another query had the same thought.
            drop(before);
        }
    }

    fn start_worker(&self) -> Result<WorkerProcess, SqlError> {
        let number = self.inner.started.fetch_add(1, Ordering::Relaxed);
        let root = self.inner.storage.root();
        WorkerProcess::start(&self.inner.options, root, number).map_err(|cause| {
            let cause = &cause as &dyn std::error::Error;
            tracing::error!(error = cause, "no worker for queries can be started");
            SqlError::Internal("no worker for queries can be started".to_owned())
        })
    }

    // Whole entries go in and out, so a panic elsewhere leaves nothing half done.
    fn idle(&self) -> MutexGuard<'_, IdleWorkers> {
        self.inner.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
