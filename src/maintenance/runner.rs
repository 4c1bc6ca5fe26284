//! Runs one job: when, under which lease, and what is noted of it.

use crate::{
    maintenance::{
        JOBS, JobLine, JobRegistry,
        record::{self, RunSpan},
    },
    store::{Lease, StoreError},
    tasks::{Job, Progress},
};
use icecore_catalog::usage::UsageCounter;
use icecore_schemas::jobs::JobTrigger;
use std::{error::Error, time::Duration};
use tracing::warn;

/// Longest pause between two tries of a failing job.
pub(super) const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// First pause after a failure; it doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// How long a job's lease lasts. Longer than a pause of it, so that a server that runs it goes on.
pub(super) const LEASE: Duration = Duration::from_secs(60);

/// The pause of a job that will have more to do in a few seconds.
const SOON: Duration = Duration::from_secs(3);
/// Between two tries to renew it.
const RENEW_AGAIN: Duration = Duration::from_secs(1);

/// One job, its pauses, and its lease.
pub(super) struct JobRunner<J> {
    jobs: JobRegistry,
    job: J,
    pub(super) every: Duration,
    /// The pause before the run that comes next.
    pause: Duration,
    /// Whether the last run failed.
    has_failed: bool,
    /// None for a job that every server runs.
    lease: Option<Lease>,
}

/// How a run ended.
enum RunEnd {
    Ran(Progress),
    /// Another server runs the job.
    Elsewhere,
}

/// The run was ended in its middle.
#[derive(Debug, thiserror::Error)]
#[error("the job's lease could not be renewed in time")]
pub(super) struct LeaseLost {
    #[source]
    source: Option<StoreError>,
}

impl<J: Job> JobRunner<J> {
    pub(super) fn new(jobs: &JobRegistry, job: J, every: Duration) -> Self {
        let line = JOBS.iter().find(|line| line.name == J::NAME);
        let line: &JobLine = line.expect("every job has a line in the table");
        let store = jobs.inner.store.get().filter(|_| line.is_leased);
        let lease = store.map(|store| store.lease(&format!("job {}", J::NAME), LEASE));
        let every = line.every.min(every);
        let due_ms = jobs.inner.clock.now_ms().saturating_add(millis(every));
        jobs.record(J::NAME, |record| record.plan(every, due_ms));
        Self { jobs: jobs.clone(), job, every, pause: every, has_failed: false, lease }
    }

    /// Runs the job once, notes what became of it, and gives the pause before the next run. A run that
    /// nothing woke is one again after a failure, or because it was time.
    pub(super) async fn run(&mut self, is_woken: bool) -> Duration {
        let trigger = match (is_woken, self.has_failed) {
            (true, _) => JobTrigger::Woken,
            (false, true) => JobTrigger::Retry,
            (false, false) => JobTrigger::Time,
        };
        let clock = self.jobs.inner.clock.clone();
        let (started_ms, began_ms) = (clock.now_ms(), clock.passed_ms());
        self.jobs.record(J::NAME, |record| record.begin(started_ms));
        let counter = UsageCounter::default();
        let ended = counter.measure(self.tick()).await;
        self.has_failed = ended.is_err();
        self.pause = match &ended {
            Ok(RunEnd::Ran(Progress::More)) => Duration::ZERO,
            Ok(RunEnd::Ran(Progress::Soon { .. })) => SOON.min(self.every),
            Ok(
                RunEnd::Ran(Progress::Done | Progress::Idle | Progress::Skipped(_))
                | RunEnd::Elsewhere,
            ) => self.every,
            Err(cause) => {
                let next = (self.pause * 2).clamp(BACKOFF_MIN, BACKOFF_MAX);
                warn!(job = J::NAME, error = cause.as_ref() as &dyn Error, ?next, "job failed");
                next
            }
        };
        let due_ms = clock.now_ms().saturating_add(millis(self.pause));
        let ended = match ended {
            Ok(RunEnd::Elsewhere) => {
                self.jobs.record(J::NAME, |record| record.skip(due_ms));
                return self.pause;
            }
            Ok(RunEnd::Ran(progress)) => Ok(progress),
            Err(cause) => Err(cause),
        };
        let elapsed_ms = u64::try_from(clock.passed_ms() - began_ms).unwrap_or(0);
        let told = ended.as_ref().map_err(|cause| cause.as_ref() as &dyn Error);
        let usage = record::usage_of(&counter);
        let run = record::run(RunSpan { started_ms, elapsed_ms, trigger, usage }, told);
        let took = Duration::from_millis(elapsed_ms);
        self.jobs.inner.metrics.count_job(J::NAME, run.outcome.name(), took);
        self.jobs.record(J::NAME, |record| record.end(run, due_ms));
        self.pause
    }

    /// Lets another server run the job at once.
    pub(super) async fn end(&mut self) {
        if let Some(lease) = &mut self.lease
            && let Err(cause) = lease.release().await
        {
            warn!(job = J::NAME, error = &cause as &dyn Error, "another server has to wait");
        }
    }

    async fn tick(&mut self) -> Result<RunEnd, Box<dyn Error + Send + Sync>> {
        let Some(lease) = &mut self.lease else {
            return Ok(RunEnd::Ran(self.job.tick().await?));
        };
        match lease.hold().await {
            Ok(Some(_)) => (),
            Ok(None) => return Ok(RunEnd::Elsewhere),
            // A lease only saves work. A job may be what makes room on the disk that is too full
            // for a lease.
            Err(cause) => {
                warn!(
                    job = J::NAME,
                    error = &cause as &dyn Error,
                    "the job runs without its lease"
                );
                return Ok(RunEnd::Ran(self.job.tick().await?));
            }
        }
        Ok(RunEnd::Ran(while_held(lease, self.job.tick()).await??))
    }
}

/// Works while the lease, which is held now, can be renewed. Work whose lease is lost is dropped.
pub(super) async fn while_held<F: Future>(
    lease: &mut Lease,
    work: F,
) -> Result<F::Output, LeaseLost> {
    let mut work = std::pin::pin!(work);
    loop {
        let renew_in = lease.renew_in().unwrap_or_default().max(RENEW_AGAIN);
        // Cancel-safe: work that is dropped is as work that a crash ended, and a sleep has no state.
        tokio::select! {
            ended = &mut work => return Ok(ended),
            () = tokio::time::sleep(renew_in) => (),
        }
        let source = match lease.hold().await {
            Ok(Some(_)) => continue,
            Ok(None) => None,
            Err(cause) => Some(cause),
        };
        return Err(LeaseLost { source });
    }
}

pub(super) fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
