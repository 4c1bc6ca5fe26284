//! Every job of a server: one table of them, what runs them, and what became of their last runs.
//!
//! Jobs that look after tables and rows are in the folder beside this; those that are part of
//! another module's work (`flush`, what keeps an eye on the owner and on the stores) stay there. A
//! new one is a line of [`JOBS`] and a call of [`JobRegistry::start`], or of
//! [`JobRegistry::start_planned`] where it has times of day.
//!
//! Its one invariant: what runs in the background has a line in the table, and its last runs are
//! listed, so nothing is done that an operator cannot see.

pub mod compaction;
pub mod day_tags;
pub mod erasure;
pub mod expiry;
pub mod fsck;
pub mod names;
pub mod obsolete;
pub mod orphans;
pub mod pace;
pub mod planned;
pub mod progress;
mod read_lease;
mod record;
pub mod retention;
mod row_sums;
mod runner;
pub mod runs;
mod scope;
pub mod thinning;
pub mod upkeep;

use crate::{
    store::{Store, StoreError},
    tasks::{Job, Tasks},
};
use compaction::Compaction;
use compaction::planned::CompactNow;
use day_tags::TagRules;
use fsck::Fsck;
use icecore_catalog::{access::AccessControl, metastore::database::Database};
use icecore_lake::{clock::Clock, metrics::Metrics};
use icecore_schemas::jobs::{JobList, JobRun};
use orphans::Orphans;
use pace::JobPace;
use planned::PlannedJob;
use record::JobRecord;
use retention::RetentionJobs;
use runner::JobRunner;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};
use tokio::sync::{Notify, Semaphore};

/// A line of the table of jobs.
#[derive(Debug)]
pub struct JobLine {
    /// [`Job::NAME`].
    pub name: &'static str,
    /// From the end of a run that left nothing to do to the next one; zero where `cron` is set.
    pub every: Duration,
    /// The key of the setting that has its times of day.
    pub cron: Option<&'static str>,
    /// What runs it before its time.
    pub woken_by: Option<&'static str>,
    /// Whether of several servers on one metastore one runs it at a time.
    pub is_leased: bool,
    /// What it does.
    pub about: &'static str,
}

impl JobLine {
    /// Whether `POST /admin/jobs/{name}` runs it: what has times of day, and compaction, which looks
    /// for work at intervals as well, as refreshes and tags do.
    #[must_use]
    pub fn is_run_by_hand(&self) -> bool {
        self.cron.is_some() || [CompactNow::NAME, MATERIALIZE, REFRESH, TAGS].contains(&self.name)
    }
}

/// The name of the job that refreshes tables.
pub const MATERIALIZE: &str = "materialize";

/// The name of the one that has the tables of collections follow their events.
pub const REFRESH: &str = "refresh";

/// The name of the one that tags each day and month.
pub const TAGS: &str = "tags";

/// Every job of a server.
pub const JOBS: &[JobLine] = &[
    JobLine {
        name: "flush",
        every: Duration::from_millis(100),
        cron: None,
        woken_by: Some("a request for a commit"),
        is_leased: false,
        about: "moves acknowledged events that are due into tables",
    },
    JobLine {
        name: "delete-obsolete",
        every: Duration::from_secs(30),
        cron: None,
        woken_by: None,
        is_leased: true,
        about: "deletes files that nothing needs any more, forgets old requests and changes",
    },
    JobLine {
        name: "thin-snapshots",
        every: Duration::from_secs(10),
        cron: None,
        woken_by: Some("a commit that leaves a table with too many snapshots"),
        is_leased: false,
        about: "removes old snapshots of the service's tables",
    },
    JobLine {
        name: "compact",
        every: Duration::from_secs(15),
        cron: None,
        woken_by: None,
        is_leased: true,
        about: "merges small data files of the service's tables, writes files with deletes anew",
    },
    JobLine {
        name: "compact-hour",
        every: Duration::ZERO,
        cron: Some("compaction.hour_cron"),
        woken_by: None,
        is_leased: true,
        about: "merges small files that were committed before this hour, those of today too",
    },
    JobLine {
        name: "compact-day",
        every: Duration::ZERO,
        cron: Some("compaction.day_cron"),
        woken_by: None,
        is_leased: true,
        about: "merges the files of days that are over, however few they are",
    },
    JobLine {
        name: "orphans",
        every: Duration::ZERO,
        cron: Some("orphans.cron"),
        woken_by: None,
        is_leased: true,
        about: "removes files of tables that no metadata names, once they were seen so for a day",
    },
    JobLine {
        name: "retention",
        every: Duration::ZERO,
        cron: Some("retention.cron"),
        woken_by: None,
        is_leased: true,
        about: "takes events out that are older than they are to be kept",
    },
    JobLine {
        name: "dead-letters",
        every: Duration::ZERO,
        cron: Some("dead_letters.cron"),
        woken_by: None,
        is_leased: true,
        about: "takes dead letters out that are older than they are to be kept",
    },
    JobLine {
        name: "dedup",
        every: Duration::ZERO,
        cron: Some("dedup.cron"),
        woken_by: None,
        is_leased: true,
        about: "forgets ids of events that have left the dedup window, tells how many did",
    },
    JobLine {
        name: "expire",
        every: Duration::ZERO,
        cron: Some("expire.cron"),
        woken_by: None,
        is_leased: true,
        about: "removes snapshots, branches and tags whose time is over",
    },
    JobLine {
        name: "erase",
        every: Duration::from_secs(5),
        cron: None,
        woken_by: Some("a request for an erasure"),
        is_leased: false,
        about: "takes the rows of a subject out of tables, branches and history",
    },
    JobLine {
        name: MATERIALIZE,
        every: Duration::from_secs(15),
        cron: None,
        woken_by: None,
        is_leased: true,
        about: "runs the queries of materialised tables anew whose time has come",
    },
    JobLine {
        name: REFRESH,
        every: Duration::from_secs(15),
        cron: None,
        woken_by: None,
        is_leased: true,
        about: "has the tables of collections follow the changes of their documents",
    },
    JobLine {
        name: TAGS,
        every: Duration::from_secs(60),
        cron: None,
        woken_by: None,
        is_leased: true,
        about: "tags events and the tables of collections once a day and once a month",
    },
    JobLine {
        name: "keep-runs",
        every: Duration::from_secs(30),
        cron: None,
        woken_by: None,
        is_leased: false,
        about: "writes the last runs of jobs to the metastore",
    },
    JobLine {
        name: "access-upkeep",
        every: Duration::from_secs(1),
        cron: None,
        woken_by: None,
        is_leased: false,
        about: "writes audit records that wait, cuts old ones, forgets tokens that ended",
    },
    // For so long a server that nobody sends anything to commits nothing, and does not know that
    // another one took over, or that the metastore does not answer.
    JobLine {
        name: "watch-owner",
        every: Duration::from_secs(1),
        cron: None,
        woken_by: None,
        is_leased: false,
        about: "asks the metastore whether another server took over the events",
    },
    JobLine {
        name: "note-metastore",
        every: Duration::from_secs(1),
        cron: None,
        woken_by: None,
        is_leased: false,
        about: "notes beside the log which change of the metastore was the last",
    },
    JobLine {
        name: "probe-warehouse",
        every: Duration::from_secs(1),
        cron: None,
        woken_by: None,
        is_leased: false,
        about: "looks whether the warehouse is there, tries one that does not answer",
    },
    JobLine {
        name: "look-for-metadata",
        every: Duration::from_secs(5),
        cron: None,
        woken_by: None,
        is_leased: false,
        about: "looks for metadata files that were not found at the start",
    },
    // What is named within the last second before a metastore is lost gets another name by a repair.
    JobLine {
        name: "list-names",
        every: Duration::from_secs(1),
        cron: None,
        woken_by: None,
        is_leased: false,
        about: "lists the names of tables and namespaces in the warehouse, for a repair",
    },
];

/// What looks after tables. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TableJobs {
    /// Merges small files.
    pub compaction: Compaction,
    /// Removes files that nothing names.
    pub orphans: Orphans,
    /// Removes old rows and snapshots.
    pub retention: RetentionJobs,
    /// Checks them.
    pub fsck: Fsck,
    /// How fast other work goes that reads whole tables.
    pub pace: JobPace,
    /// How many tags of days and months stay.
    pub day_tags: TagRules,
}

/// Runs jobs and knows what became of them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct JobRegistry {
    inner: Arc<JobsInner>,
}

#[derive(Debug)]
struct JobsInner {
    tasks: Tasks,
    clock: Clock,
    metrics: Metrics,
    /// Has the leases and earlier runs, once it is open.
    store: OnceLock<Store>,
    /// Has the audit log, once it is open.
    access: OnceLock<AccessControl>,
    /// One for each line of the table.
    records: Mutex<HashMap<&'static str, JobRecord>>,
    /// One for each line, too: a planned run takes it, and one by hand.
    turns: HashMap<&'static str, Arc<Semaphore>>,
}

impl JobRegistry {
    /// Runs jobs as tasks of `tasks`.
    #[must_use]
    pub fn new(tasks: Tasks, clock: Clock, metrics: Metrics) -> Self {
        let records = JOBS.iter().map(|line| (line.name, JobRecord::new(line.every))).collect();
        let (store, access) = (OnceLock::new(), OnceLock::new());
        let records = Mutex::new(records);
        let turns = JOBS.iter().map(|line| (line.name, Arc::new(Semaphore::new(1)))).collect();
        Self { inner: Arc::new(JobsInner { tasks, clock, metrics, store, access, records, turns }) }
    }

    /// Has the leases of jobs that start later, and earlier runs of this server's, in `database`.
    ///
    /// # Errors
    /// [`StoreError::Database`]: the earlier runs cannot be read.
    pub async fn keep_in(&self, database: Database, server: &str) -> Result<(), StoreError> {
        let store = Store::new(database, self.inner.clock.clone(), server);
        let runs = store.runs().await?;
        let mut records = self.records();
        for (job, run) in runs {
            // A job of a later version has no line here.
            if let Some(record) = records.get_mut(job.as_str()) {
                record.restore(run);
            }
        }
        self.inner.store.get_or_init(|| store);
        Ok(())
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
    /// As [`JobRegistry::start`].
    pub fn start_woken<J: Job>(&self, job: J, every: Duration, wake: Arc<Notify>) {
        let mut runner = JobRunner::new(self, job, every);
        let mut stopping = self.inner.tasks.stopping();
        self.inner.tasks.spawn(J::NAME, async move {
            let mut pause = runner.every;
            loop {
                // Cancel-safe: nothing is held across these waits.
                let is_woken = tokio::select! {
                    () = tokio::time::sleep(pause) => false,
                    () = wake.notified() => true,
                    () = stopping.asked() => break,
                };
                pause = runner.run(is_woken).await;
            }
            runner.end().await;
        });
    }

    /// Every job of the table with its last runs. One that this server does not run has none.
    #[must_use]
    pub fn list(&self) -> JobList {
        let records = self.records();
        let state = |line: &JobLine| records.get(line.name).map(|record| record.state(line));
        JobList { jobs: JOBS.iter().filter_map(state).collect() }
    }

    /// Writes the runs that the store does not have yet.
    ///
    /// # Errors
    /// [`StoreError::Database`]; the next call tries again.
    pub async fn keep_runs(&self) -> Result<(), StoreError> {
        let Some(store) = self.inner.store.get() else { return Ok(()) };
        let new: Vec<(&'static str, JobRun)> = {
            let mut records = self.records();
            let new = |(name, record): (&&'static str, &mut JobRecord)| {
                record.take_unkept().into_iter().map(|run| (*name, run)).collect::<Vec<_>>()
            };
            records.iter_mut().flat_map(new).collect()
        };
        if new.is_empty() {
            return Ok(());
        }
        let kept = store.keep_runs(&new).await;
        if kept.is_err() {
            new.into_iter().for_each(|(name, _)| self.record(name, JobRecord::keep_again));
        }
        kept
    }

    fn record(&self, name: &'static str, change: impl FnOnce(&mut JobRecord)) {
        if let Some(record) = self.records().get_mut(name) {
            change(record);
        }
    }

    fn records(&self) -> MutexGuard<'_, HashMap<&'static str, JobRecord>> {
        // Each change of a record is whole, so a panic elsewhere leaves nothing half done.
        self.inner.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
