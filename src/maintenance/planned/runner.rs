//! Runs one planned job: whether it is time, under which lease, and what is noted of it.

use crate::{
    cron::CronTimes,
    maintenance::{
        JobRegistry,
        planned::{PlannedJob, RunRequest},
        record::{self, RunSpan},
        runner::{LEASE, millis, while_held},
    },
    store::{Lease, LeaseFence, Store, StoreError},
};
use icecore_catalog::usage::UsageCounter;
use icecore_schemas::jobs::{JobReport, JobTrigger, JobUsage};
use std::{error::Error, time::Duration};
use tracing::warn;

/// Longest time between two looks: the time of day may jump, and another server may go away.
pub(super) const LOOK_MAX: Duration = Duration::from_secs(30);
/// First pause after a run that failed; it doubles up to [`RETRY_MAX`].
pub(super) const RETRY_MIN: Duration = Duration::from_secs(60);
/// Longest pause after a run that failed.
pub(super) const RETRY_MAX: Duration = Duration::from_secs(30 * 60);
/// A time that is noted and lies further ahead was noted by a clock that was wrong. Those nearer are not
/// run for again when the clock is set back.
pub(super) const AHEAD_MAX: Duration = Duration::from_secs(24 * 3600);

/// One job, its times, and its lease.
pub(super) struct PlannedRunner<J> {
    jobs: JobRegistry,
    job: J,
    times: CronTimes,
    /// None only in tests: then this server is the only one, and forgets.
    shared: Option<SharedPlan>,
    /// What was due before this is made up.
    since_ms: i64,
    /// The last time that the job was run for; none until it is read.
    planned_ms: Option<i64>,
    retry: Option<RunRetry>,
}

/// What servers on one metastore share of a job.
struct SharedPlan {
    store: Store,
    lease: Lease,
}

/// The next try after a run that failed.
#[derive(Clone, Copy)]
struct RunRetry {
    pause: Duration,
    /// By the time that passes.
    at_ms: i64,
}

/// How a look at a time that is due ended.
enum LookEnd {
    /// It was run, under this fence.
    Ran(Box<JobReport>, Option<LeaseFence>),
    /// Another server runs it.
    Elsewhere,
    /// Another server ran it for this time.
    WasRun(i64),
}

type RunError = Box<dyn Error + Send + Sync>;

impl<J: PlannedJob> PlannedRunner<J> {
    pub(super) fn new(jobs: &JobRegistry, job: J, times: CronTimes) -> Self {
        // The name is that of a line, or there is no turn.
        drop(jobs.turn(J::NAME));
        let shared = jobs.inner.store.get().map(|store| SharedPlan {
            store: store.clone(),
            lease: store.lease(&format!("job {}", J::NAME), LEASE),
        });
        let since_ms = jobs.inner.clock.now_ms();
        let (cron, next_ms) = (times.to_string(), times.after(since_ms));
        jobs.record(J::NAME, |record| {
            record.set_cron(cron);
            record.plan_next(next_ms);
        });
        let jobs = jobs.clone();
        Self { jobs, job, times, shared, since_ms, planned_ms: None, retry: None }
    }

    /// Runs the job if it is time, notes what became of it, and gives the time to the next look.
    pub(super) async fn look(&mut self) -> Duration {
        if let Some(retry) = self.retry {
            let left_ms = retry.at_ms - self.jobs.inner.clock.passed_ms();
            if 0 < left_ms {
                return duration(left_ms).min(LOOK_MAX);
            }
        }
        let due_ms = match self.due().await {
            Ok(Some(due_ms)) => due_ms,
            Ok(None) => return self.rest(),
            Err(cause) => {
                let started_ms = self.jobs.inner.clock.now_ms();
                let (trigger, usage) = (self.trigger(started_ms), JobUsage::default());
                return self.fail(RunSpan { started_ms, elapsed_ms: 0, trigger, usage }, &cause);
            }
        };
        // A run by hand ends before this one begins.
        let turn = self.jobs.turn(J::NAME).acquire_owned().await;
        let clock = self.jobs.inner.clock.clone();
        let (started_ms, began_ms) = (clock.now_ms(), clock.passed_ms());
        self.jobs.record(J::NAME, |record| record.begin(started_ms));
        let counter = UsageCounter::default();
        let ended = counter.measure(self.run(due_ms)).await;
        let elapsed_ms = u64::try_from(clock.passed_ms() - began_ms).unwrap_or(0);
        let (trigger, usage) = (self.trigger(due_ms), record::usage_of(&counter));
        let span = RunSpan { started_ms, elapsed_ms, trigger, usage };
        match &ended {
            Ok(LookEnd::Ran(report, fence)) => {
                // Before it is noted: a run that is made up finds nothing more to change.
                self.jobs.record_run(J::NAME, trigger, report).await;
                self.note(due_ms, fence.as_ref()).await;
            }
            Ok(LookEnd::Elsewhere | LookEnd::WasRun(_)) => (),
            Err(_) => self.jobs.record_failed_run(J::NAME, trigger, usage).await,
        }
        // Another server looks whether it is time for it.
        self.end().await;
        drop(turn);
        match ended {
            Ok(LookEnd::Ran(report, _)) => {
                (self.planned_ms, self.retry) = (Some(due_ms), None);
                self.told(span, Ok(&JobReport { usage, ..*report }));
                self.rest()
            }
            Ok(LookEnd::WasRun(planned_ms)) => {
                (self.planned_ms, self.retry) = (Some(planned_ms), None);
                self.skip(started_ms);
                self.rest()
            }
            Ok(LookEnd::Elsewhere) => {
                self.skip(started_ms.saturating_add(millis(LOOK_MAX)));
                LOOK_MAX
            }
            Err(cause) => self.fail(span, cause.as_ref()),
        }
    }

    /// Lets another server run the job at once.
    pub(super) async fn end(&mut self) {
        if let Some(shared) = &mut self.shared
            && let Err(cause) = shared.lease.release().await
        {
            warn!(job = J::NAME, error = &cause as &dyn Error, "another server has to wait");
        }
    }

    /// The last time that is due and that, as far as is known here, the job was not run for.
    async fn due(&mut self) -> Result<Option<i64>, StoreError> {
        let now_ms = self.jobs.inner.clock.now_ms();
        let planned_ms = match self.planned_ms {
            Some(planned_ms) => planned_ms,
            None => self.begun(now_ms).await?,
        };
        // After a clock that was wrong the plan begins anew.
        let planned_ms = if is_believed(planned_ms, now_ms) { planned_ms } else { now_ms };
        self.planned_ms = Some(planned_ms);
        Ok(self.times.last(now_ms).filter(|due_ms| planned_ms < *due_ms))
    }

    /// The last time that a server ran it for; the first one of all begins its plan now.
    async fn begun(&self, now_ms: i64) -> Result<i64, StoreError> {
        let Some(SharedPlan { store, .. }) = &self.shared else { return Ok(now_ms) };
        store.plan_from(J::NAME, now_ms).await?;
        Ok(store.planned_time(J::NAME).await?.unwrap_or(now_ms))
    }

    async fn run(&mut self, due_ms: i64) -> Result<LookEnd, RunError> {
        let request = RunRequest::default();
        let Some(SharedPlan { store, lease }) = &mut self.shared else {
            return Ok(LookEnd::Ran(Box::new(self.job.run(&request).await?), None));
        };
        if lease.hold().await?.is_none() {
            return Ok(LookEnd::Elsewhere);
        }
        let now_ms = self.jobs.inner.clock.now_ms();
        let planned_ms = store.planned_time(J::NAME).await?;
        if let Some(planned_ms) = planned_ms
            && due_ms <= planned_ms
            && is_believed(planned_ms, now_ms)
        {
            return Ok(LookEnd::WasRun(planned_ms));
        }
        let report = while_held(lease, self.job.run(&request)).await??;
        Ok(LookEnd::Ran(Box::new(report), lease.fence()))
    }

    /// Tells other servers, and later lives of this one, that it was run for this time. Where that fails
    /// the next time tells it, or the run is made up, which does no harm.
    async fn note(&self, due_ms: i64, fence: Option<&LeaseFence>) {
        let (Some(SharedPlan { store, .. }), Some(fence)) = (&self.shared, fence) else { return };
        if let Err(cause) = store.note_time(J::NAME, due_ms, fence).await {
            warn!(job = J::NAME, error = &cause as &dyn Error, "a run may be repeated");
        }
    }

    /// Why a run for this time begins.
    fn trigger(&self, due_ms: i64) -> JobTrigger {
        match self.retry {
            Some(_) => JobTrigger::Retry,
            None if due_ms < self.since_ms => JobTrigger::MadeUp,
            None => JobTrigger::Time,
        }
    }

    /// Waits for the next time.
    fn rest(&self) -> Duration {
        let now_ms = self.jobs.inner.clock.now_ms();
        let next_ms = self.times.after(self.planned_ms.unwrap_or(now_ms).max(now_ms));
        self.jobs.record(J::NAME, |record| record.plan_next(next_ms));
        next_ms.map_or(LOOK_MAX, |next_ms| duration(next_ms - now_ms).min(LOOK_MAX))
    }

    /// Another server has this turn; the next look is then.
    fn skip(&self, next_ms: i64) {
        self.jobs.record(J::NAME, |record| record.skip(next_ms));
    }

    fn fail(&mut self, span: RunSpan, cause: &(dyn Error + 'static)) -> Duration {
        let pause = self.retry.map_or(RETRY_MIN, |retry| (retry.pause * 2).min(RETRY_MAX));
        let clock = &self.jobs.inner.clock;
        self.retry = Some(RunRetry { pause, at_ms: clock.passed_ms() + millis(pause) });
        self.told(span, Err(cause));
        let next_ms = self.jobs.inner.clock.now_ms().saturating_add(millis(pause));
        self.jobs.record(J::NAME, |record| record.plan_next(Some(next_ms)));
        pause.min(LOOK_MAX)
    }

    /// Keeps what became of a run.
    fn told(&self, span: RunSpan, ended: Result<&JobReport, &(dyn Error + 'static)>) {
        let run = record::planned_run(span, ended);
        self.jobs.tell_of(J::NAME, span, ended);
        let took = Duration::from_millis(span.elapsed_ms);
        self.jobs.inner.metrics.count_job(J::NAME, run.outcome.name(), took);
        self.jobs.record(J::NAME, |record| record.end(run, span.started_ms));
    }
}

/// Whether a time that is noted may be one that was due.
fn is_believed(planned_ms: i64, now_ms: i64) -> bool {
    planned_ms.saturating_sub(now_ms) <= millis(AHEAD_MAX)
}

fn duration(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}
