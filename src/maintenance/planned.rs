//! Jobs with times of day, which are also run by hand, both times through one function.
//!
//! The last time of its plan that a job was run for is a row that all servers on a metastore share. So
//! one of them runs it for each time, and a time at which none was there is made up once. Its one
//! invariant: a time is noted under the job's lease, and only once its run has ended. A run that was
//! killed begins again.

mod runner;

use crate::{
    cron::CronTimes,
    maintenance::{
        JobRegistry,
        compaction::CompactionError,
        progress::RunProgress,
        record::{self, JobRecord, RunSpan},
        scope::{ACTOR, every_table_of, tables_of},
    },
};
use icecore_catalog::{
    access::AccessControl, audit::AuditEntry, catalog::Catalog, error::CatalogError,
    usage::UsageCounter,
};
use icecore_lake::table::{compaction::condition::PartitionCondition, schema::TableIdent};
use icecore_schemas::jobs::{JobReport, JobTrigger, JobUsage};
use runner::PlannedRunner;
use std::{error::Error, sync::Arc, time::Duration};
use tokio::sync::{Semaphore, oneshot};
use tracing::{info, warn};

/// The action of an audit record of a run at its time. A run by hand has the record of its call.
const RUN: &str = "run a job at its time";

/// What a run of a planned job is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunRequest {
    /// Only tables of this namespace of the catalog.
    pub levels: Option<Vec<String>>,
    /// Only tables of this name.
    pub table: Option<String>,
    /// Whether to tell what would be done, and change nothing.
    pub dry_run: bool,
    /// Only these partitions, of a job that heeds it.
    pub condition: Option<PartitionCondition>,
}

impl RunRequest {
    fn names_something(&self) -> bool {
        self.levels.is_some() || self.table.is_some() || self.condition.is_some()
    }

    /// The tables that it is about, in namespaces of any depth; other engines' too, but no views.
    ///
    /// # Errors
    /// `NoSuchNamespace`, `NoSuchTable`; `Metastore`.
    pub async fn every_table(&self, catalog: &Catalog) -> Result<Vec<TableIdent>, CatalogError> {
        every_table_of(catalog, self).await
    }

    /// Looks whether the namespace is there, and a table of the name, for whoever does not wait for the
    /// run's own answer.
    ///
    /// # Errors
    /// `NoSuchNamespace`, `NoSuchTable`; `Metastore`.
    pub async fn check_names(&self, catalog: &Catalog) -> Result<(), CatalogError> {
        match (&self.levels, &self.table) {
            (None, None) => Ok(()),
            _ => tables_of(catalog, self).await.map(drop),
        }
    }
}

/// A job that runs at its cron times and by hand, both times through the same function.
pub trait PlannedJob: Clone + Send + Sync + 'static {
    /// The name of its line in the table of all jobs.
    const NAME: &'static str;
    /// Why a run failed.
    type Error: Error + Send + Sync + 'static;

    /// Does all there is to do, in bounded steps. Idempotent: it may be dropped at any await or killed,
    /// and the next run goes on. A table that fails goes into `skipped` of the report with its reason
    /// and does not end the run.
    fn run(
        &self,
        request: &RunRequest,
    ) -> impl Future<Output = Result<JobReport, Self::Error>> + Send;
}

/// What a run by hand answers with.
pub type RunAnswer<J> = oneshot::Receiver<Result<JobReport, <J as PlannedJob>::Error>>;

/// Why a run by hand does not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunRefusal {
    /// A run of this job goes on, by hand or because it was time.
    #[error("a run of this job goes on already: wait until it has ended")]
    Busy,
}

impl JobRegistry {
    /// Runs a job at its times, under its lease, until the tasks are stopped. Without times it is run by
    /// hand alone.
    ///
    /// # Panics
    /// When the job has no line in the table, which is a fault of the program.
    pub fn start_planned<J: PlannedJob>(&self, job: J, times: Option<CronTimes>) {
        let Some(times) = times else { return };
        let mut runner = PlannedRunner::new(self, job, times);
        let mut stopping = self.inner.tasks.stopping();
        self.inner.tasks.spawn(J::NAME, async move {
            // At once: a run may have to be made up.
            let mut pause = Duration::ZERO;
            loop {
                // Cancel-safe: a sleep has no state.
                tokio::select! {
                    () = tokio::time::sleep(pause) => (),
                    () = stopping.asked() => break,
                }
                // Cancel-safe: a run that is dropped is as one that was killed, and is made up.
                tokio::select! {
                    next = runner.look() => pause = next,
                    () = stopping.asked() => break,
                }
            }
            runner.end().await;
        });
    }

    /// Runs a job now, as a task that goes on when nobody waits for its answer any more. The answer does
    /// not come when the server stops before the run has ended.
    ///
    /// # Errors
    /// [`RunRefusal::Busy`].
    ///
    /// # Panics
    /// As [`JobRegistry::start_planned`].
    pub fn run_by_hand<J: PlannedJob>(
        &self,
        job: J,
        request: RunRequest,
    ) -> Result<RunAnswer<J>, RunRefusal> {
        let turn = self.turn(J::NAME).try_acquire_owned().map_err(|_| RunRefusal::Busy)?;
        let (answer, answered) = oneshot::channel();
        let (jobs, mut stopping) = (self.clone(), self.inner.tasks.stopping());
        self.inner.tasks.spawn(J::NAME, async move {
            // Cancel-safe: a run that is dropped is as one that was killed, and the next one goes on.
            let ended = tokio::select! {
                ended = jobs.noted_run(&job, &request) => ended,
                () = stopping.asked() => return,
            };
            // Whoever has the answer may start the next one.
            drop(turn);
            // Nobody may wait for it any more.
            drop(answer.send(ended));
        });
        Ok(answered)
    }

    /// Runs a job and notes what became of it. A dry run is no run: the one before it stays the last.
    async fn noted_run<J: PlannedJob>(
        &self,
        job: &J,
        request: &RunRequest,
    ) -> Result<JobReport, J::Error> {
        let (counter, progress) = (UsageCounter::default(), RunProgress::default());
        let with_usage =
            |report: JobReport| JobReport { usage: record::usage_of(&counter), ..report };
        let shown = progress.clone();
        self.record(J::NAME, |record| record.show(shown));
        let run = progress.told(counter.measure(job.run(request)));
        if request.dry_run {
            let ended = run.await.map(with_usage);
            self.record(J::NAME, JobRecord::hide);
            return ended;
        }
        let (started_ms, began_ms) = (self.inner.clock.now_ms(), self.inner.clock.passed_ms());
        self.record(J::NAME, |record| record.begin_by_hand(started_ms));
        let ended = run.await.map(with_usage);
        self.record(J::NAME, JobRecord::hide);
        let told = ended.as_ref().map_err(|cause| cause as &(dyn Error + 'static));
        // It is the answer to a name that was mistyped, and says nothing of the job.
        if told.is_err_and(|cause| request.names_something() && is_of_request(cause)) {
            self.record(J::NAME, JobRecord::leave_by_hand);
            return ended;
        }
        let (trigger, usage) = (JobTrigger::Hand, record::usage_of(&counter));
        let elapsed_ms = u64::try_from(self.inner.clock.passed_ms() - began_ms).unwrap_or(0);
        let span = RunSpan { started_ms, elapsed_ms, trigger, usage };
        let run = record::planned_run(span, told);
        self.tell_of(J::NAME, span, told);
        let took = Duration::from_millis(elapsed_ms);
        self.inner.metrics.count_job(J::NAME, run.outcome.name(), took);
        self.record(J::NAME, |record| record.end_by_hand(run));
        ended
    }

    /// Has runs at their times recorded in the audit log from now on, where there is one.
    pub fn record_by(&self, access: &AccessControl) {
        self.inner.access.get_or_init(|| access.clone());
    }

    /// Records a run at its time, if it changed something.
    async fn record_run(&self, job: &'static str, trigger: JobTrigger, report: &JobReport) {
        if record::is_changed(report) {
            let JobReport { tables, files, rows, errors, .. } = report;
            let (before, after) = (files.before, files.after);
            let numbers =
                format!("tables={tables} files={before}/{after} rows={rows} errors={errors}");
            self.record_numbers(job, trigger, &numbers).await;
        }
    }

    /// Records a run at its time that failed, if it wrote files of the warehouse before: what it committed
    /// stays, and it has no report that tells of it.
    async fn record_failed_run(&self, job: &'static str, trigger: JobTrigger, usage: JobUsage) {
        let JobUsage { bytes_written, .. } = usage;
        if 0 < bytes_written {
            self.record_numbers(job, trigger, &format!("failed written={bytes_written}")).await;
        }
    }

    /// Records a run at its time in the audit log, where there is one.
    async fn record_numbers(&self, job: &'static str, trigger: JobTrigger, numbers: &str) {
        let recorder = self.inner.access.get().and_then(AccessControl::recorder);
        let Some(recorder) = recorder else { return };
        let entry = AuditEntry {
            principal: ACTOR.to_owned(),
            action: RUN.to_owned(),
            object: format!("{job} trigger={} {numbers}", trigger.name()),
            ..AuditEntry::default()
        };
        recorder.record_done(entry).await;
    }

    /// Logs how a run ended.
    fn tell_of(
        &self,
        job: &'static str,
        RunSpan { elapsed_ms, trigger, usage, .. }: RunSpan,
        ended: Result<&JobReport, &(dyn Error + 'static)>,
    ) {
        let (trigger, cpu_ms) = (trigger.name(), usage.cpu_ms);
        match ended {
            Ok(JobReport { tables, files, rows, errors, skipped, .. }) => {
                let (before, after, skipped) = (files.before, files.after, skipped.len());
                info!(
                    job,
                    trigger,
                    elapsed_ms,
                    cpu_ms,
                    tables,
                    before,
                    after,
                    rows,
                    errors,
                    skipped,
                    "job ended"
                );
            }
            Err(error) => warn!(job, trigger, elapsed_ms, cpu_ms, error, "job failed"),
        }
    }

    /// The turn of a job's planned runs and of those by hand: one goes on at a time.
    pub(super) fn turn(&self, name: &'static str) -> Arc<Semaphore> {
        let turn = self.inner.turns.get(name);
        Arc::clone(turn.expect("every job has a line in the table"))
    }
}

/// Whether a run failed because a namespace or table is not there, or has no such partitions.
fn is_of_request(cause: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(cause), |cause| (*cause).source()).any(|cause| {
        matches!(
            cause.downcast_ref::<CatalogError>(),
            Some(CatalogError::NoSuchNamespace(_) | CatalogError::NoSuchTable(_))
        ) || matches!(
            cause.downcast_ref::<CompactionError>(),
            Some(CompactionError::Condition { .. })
        )
    })
}

#[cfg(test)]
mod tests;
