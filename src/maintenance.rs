//! Every job of a server: one table of them, what runs them, and what became of their last runs.
//!
//! Jobs that look after tables and rows are in the folder beside this; those that are part of
//! another module's work (`flush`, what keeps an eye on the owner and on the stores) stay there. A
//! new one is a line of [`JOBS`] and a call of [`Jobs::start`].
//!
//! Its one invariant: what runs in the background has a line in the table, and its last runs are
//! listed, so nothing is done that an operator cannot see.

pub mod obsolete;
mod record;
pub mod thinning;
pub mod upkeep;

use crate::{
    clock::Clock,
    metrics::Metrics,
    tasks::{Job, Progress, Tasks},
};
use icecore_schemas::jobs::{JobList, JobState};
use record::Record;
use std::{
    collections::HashMap,
    error::Error,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::Notify;
use tracing::warn;

/// Longest pause between two tries of a failing job.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// First pause after a failure; it doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(100);

/// A line of the table of jobs.
#[derive(Debug)]
pub struct JobLine {
    /// [`Job::NAME`].
    pub name: &'static str,
    /// From the end of a run that left nothing to do to the next one.
    pub every: Duration,
    /// What runs it before its time.
    pub woken_by: Option<&'static str>,
    /// What it does.
    pub about: &'static str,
}

/// Every job of a server.
pub const JOBS: &[JobLine] = &[
    JobLine {
        name: "flush",
        every: Duration::from_millis(100),
        woken_by: Some("a request for a commit"),
        about: "moves acknowledged events that are due into tables",
    },
    JobLine {
        name: "delete-obsolete",
        every: Duration::from_secs(30),
        woken_by: None,
        about: "deletes files that nothing needs any more, forgets old requests and changes",
    },
    JobLine {
        name: "thin-snapshots",
        every: Duration::from_secs(10),
        woken_by: Some("a commit that leaves a table with too many snapshots"),
        about: "removes old snapshots of the service's tables",
    },
    JobLine {
        name: "access-upkeep",
        every: Duration::from_secs(1),
        woken_by: None,
        about: "writes audit records that wait, cuts old ones, forgets tokens that ended",
    },
    // For so long a server that nobody sends anything to commits nothing, and does not know that
    // another one took over.
    JobLine {
        name: "watch-owner",
        every: Duration::from_secs(1),
        woken_by: None,
        about: "asks whether another server took over the events",
    },
    JobLine {
        name: "note-metastore",
        every: Duration::from_secs(1),
        woken_by: None,
        about: "notes beside the log which change of the metastore was the last",
    },
    JobLine {
        name: "probe-warehouse",
        every: Duration::from_secs(5),
        woken_by: None,
        about: "tries a warehouse that has not answered yet",
    },
    JobLine {
        name: "look-for-metadata",
        every: Duration::from_secs(5),
        woken_by: None,
        about: "looks for metadata files that were not found at the start",
    },
];

/// Runs jobs and knows what became of them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Jobs {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    tasks: Tasks,
    clock: Clock,
    metrics: Metrics,
    records: Mutex<HashMap<&'static str, Record>>,
}

impl Jobs {
    /// Runs jobs as tasks of `tasks`.
    #[must_use]
    pub fn new(tasks: Tasks, clock: Clock, metrics: Metrics) -> Self {
        Self { inner: Arc::new(Inner { tasks, clock, metrics, records: Mutex::default() }) }
    }

    /// Runs a job as often as its line says, until the tasks are stopped.
    ///
    /// # Panics
    /// When the job has no line in [`JOBS`], which is a fault of the program.
    pub fn start<J: Job>(&self, job: J) {
        self.start_woken(job, Duration::MAX, Arc::new(Notify::new()));
    }

    /// The same, at least every `every`, and at once when `wake` is notified.
    ///
    /// # Panics
    /// As [`Jobs::start`].
    pub fn start_woken<J: Job>(&self, job: J, every: Duration, wake: Arc<Notify>) {
        let mut runner = Runner::new(self, job, every);
        let mut stopping = self.inner.tasks.stopping();
        self.inner.tasks.spawn(J::NAME, async move {
            let mut pause = runner.every;
            loop {
                // Cancel-safe: nothing is held across these waits.
                tokio::select! {
                    () = tokio::time::sleep(pause) => (),
                    () = wake.notified() => (),
                    () = stopping.asked() => break,
                }
                pause = runner.run().await;
            }
        });
    }

    /// Every job of the table with its last runs. One that this server does not run has none.
    #[must_use]
    pub fn list(&self) -> JobList {
        let records = self.records();
        let state = |line: &JobLine| match records.get(line.name) {
            Some(record) => record.state(line),
            None => Record::new(line.every, None).state(line),
        };
        let jobs: Vec<JobState> = JOBS.iter().map(state).collect();
        JobList { jobs }
    }

    fn record(&self, name: &'static str, change: impl FnOnce(&mut Record)) {
        if let Some(record) = self.records().get_mut(name) {
            change(record);
        }
    }

    fn records(&self) -> MutexGuard<'_, HashMap<&'static str, Record>> {
        // Each change of a record is whole, so a panic elsewhere leaves nothing half done.
        self.inner.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One job, its pauses, and its record.
struct Runner<J> {
    jobs: Jobs,
    job: J,
    every: Duration,
    /// The pause before the run that comes next.
    pause: Duration,
}

impl<J: Job> Runner<J> {
    fn new(jobs: &Jobs, job: J, every: Duration) -> Self {
        let line = JOBS.iter().find(|line| line.name == J::NAME);
        let line = line.expect("every job has a line in the table");
        let every = line.every.min(every);
        let due_ms = jobs.inner.clock.now_ms().saturating_add(millis(every));
        jobs.records().insert(J::NAME, Record::new(every, Some(due_ms)));
        Self { jobs: jobs.clone(), job, every, pause: every }
    }

    /// Runs the job once, notes what became of it, and gives the pause before the next run.
    async fn run(&mut self) -> Duration {
        let (clock, metrics) = (&self.jobs.inner.clock, &self.jobs.inner.metrics);
        let (started_ms, began_ms) = (clock.now_ms(), clock.passed_ms());
        self.jobs.record(J::NAME, |record| record.begin(started_ms));
        let ended = self.job.tick().await;
        self.pause = match &ended {
            Ok(Progress::More) => Duration::ZERO,
            Ok(Progress::Done | Progress::Idle) => self.every,
            Err(cause) => {
                let next = (self.pause * 2).clamp(BACKOFF_MIN, BACKOFF_MAX);
                warn!(job = J::NAME, error = cause as &dyn Error, ?next, "job failed");
                next
            }
        };
        let elapsed_ms = u64::try_from(clock.passed_ms() - began_ms).unwrap_or(0);
        let run = record::run(started_ms, elapsed_ms, ended);
        metrics.count_job(J::NAME, run.outcome.name(), Duration::from_millis(elapsed_ms));
        let due_ms = clock.now_ms().saturating_add(millis(self.pause));
        self.jobs.record(J::NAME, |record| record.end(run, due_ms));
        self.pause
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
