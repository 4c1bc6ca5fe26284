use super::{
    runner::{AHEAD_MAX, LOOK_MAX, RETRY_MAX, RETRY_MIN},
    *,
};
use crate::{store, tasks::Tasks};
use icecore_catalog::{
    audit::ChainRecord,
    metastore::Metastore,
    storage::{S3Options, Storage},
};
use icecore_lake::{clock::Clock, metrics::Metrics};
use icecore_schemas::jobs::{JobOutcome, JobRun, JobState, JobUsage, SkippedTable};
use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};
use tokio::sync::Notify;

/// 2026-11-29T12:00:00Z, and the midnight after it.
const NOON_MS: i64 = 1_795_953_600_000;
const MIDNIGHT_MS: i64 = NOON_MS + 12 * HOUR_MS;
const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
const MINUTE_MS: i64 = 60_000;

/// Ends as it is told, else with an idle report, and notes what it was asked for.
#[derive(Clone, Default)]
struct ScriptedRuns(Arc<RunScript>);

#[derive(Default)]
struct RunScript {
    ends: Mutex<VecDeque<Result<JobReport, NoRoom>>>,
    asked: Mutex<Vec<RunRequest>>,
    /// Each run waits for it, where there is one.
    gate: Option<Notify>,
    /// Each run writes this file, where there is one.
    file: Option<(Storage, String)>,
}

#[derive(Debug, thiserror::Error)]
#[error("sweep")]
struct NoRoom(#[source] std::fmt::Error);

impl PlannedJob for ScriptedRuns {
    const NAME: &'static str = "compact-day";
    type Error = NoRoom;

    async fn run(&self, request: &RunRequest) -> Result<JobReport, NoRoom> {
        self.0.asked.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
        if let Some(gate) = &self.0.gate {
            gate.notified().await;
        }
        if let Some((storage, location)) = &self.0.file {
            storage.put(location, "written".into()).await.unwrap();
        }
        let end = self.0.ends.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        end.unwrap_or_else(|| Ok(report(0)))
    }
}

impl ScriptedRuns {
    fn ending(ends: Vec<Result<JobReport, NoRoom>>) -> Self {
        Self(Arc::new(RunScript { ends: Mutex::new(ends.into()), ..RunScript::default() }))
    }

    /// The same of runs that write this file.
    fn writing(file: (Storage, String), ends: Vec<Result<JobReport, NoRoom>>) -> Self {
        let (file, ends) = (Some(file), Mutex::new(ends.into()));
        Self(Arc::new(RunScript { file, ends, ..RunScript::default() }))
    }

    /// Whose runs do not end before they are let.
    fn gated() -> Self {
        Self(Arc::new(RunScript { gate: Some(Notify::new()), ..RunScript::default() }))
    }

    fn count(&self) -> usize {
        self.0.asked.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

fn report(tables: u64) -> JobReport {
    JobReport { job: ScriptedRuns::NAME.to_owned(), tables, ..JobReport::default() }
}

fn alone(clock: &Clock) -> JobRegistry {
    JobRegistry::new(Tasks::default(), clock.clone(), Metrics::default())
}

fn planned(jobs: &JobRegistry, job: &ScriptedRuns, cron: &str) -> PlannedRunner<ScriptedRuns> {
    PlannedRunner::new(jobs, job.clone(), CronTimes::parse(cron).unwrap())
}

fn state(jobs: &JobRegistry) -> JobState {
    jobs.list().jobs.into_iter().find(|job| job.name == ScriptedRuns::NAME).unwrap()
}

/// Why the runs that are kept began, the first first.
fn triggers(jobs: &JobRegistry) -> Vec<JobTrigger> {
    state(jobs).recent_runs.iter().rev().filter_map(|run| run.trigger).collect()
}

/// A metastore for servers that start one after the other, or beside each other.
struct House {
    folder: tempfile::TempDir,
    clock: Clock,
}

impl House {
    async fn new() -> Self {
        let house = Self { folder: tempfile::tempdir().unwrap(), clock: Clock::manual(NOON_MS) };
        store::make_tables(house.open().await.database()).await.unwrap();
        house
    }

    async fn open(&self) -> Metastore {
        Metastore::sqlite(&self.folder.path().join("icecore.db")).await.unwrap()
    }

    async fn server(&self, name: &str) -> JobRegistry {
        self.server_at(name, &self.clock).await
    }

    async fn server_at(&self, name: &str, clock: &Clock) -> JobRegistry {
        let jobs = alone(clock);
        jobs.keep_in(self.open().await.database().clone(), name).await.unwrap();
        jobs
    }
}

#[tokio::test]
async fn a_job_runs_once_at_each_of_its_times() {
    let clock = Clock::manual(NOON_MS);
    let (jobs, job) = (alone(&clock), ScriptedRuns::default());
    let mut runner = planned(&jobs, &job, "0 0 * * *");
    assert_eq!(runner.look().await, LOOK_MAX, "nothing is made up at the first start");
    let waiting = state(&jobs);
    assert_eq!((waiting.cron.as_deref(), waiting.every_ms), (Some("0 0 * * *"), 0));
    assert_eq!((waiting.next_run_ms, waiting.last_run), (Some(MIDNIGHT_MS), None));
    clock.advance_ms(12 * HOUR_MS - 10);
    assert_eq!(runner.look().await, Duration::from_millis(10));
    assert_eq!(job.count(), 0);
    clock.advance_ms(10);
    for _ in 0..3 {
        assert_eq!(runner.look().await, LOOK_MAX);
    }
    assert_eq!(job.count(), 1);
    assert_eq!(job.0.asked.lock().unwrap()[0], RunRequest::default());
    let ran = state(&jobs);
    assert_eq!(ran.next_run_ms, Some(MIDNIGHT_MS + DAY_MS));
    let run = JobRun {
        started_ms: MIDNIGHT_MS,
        elapsed_ms: 0,
        outcome: JobOutcome::Idle,
        error: None,
        reason: None,
        trigger: Some(JobTrigger::Time),
        usage: Some(JobUsage::default()),
        report: Some(report(0)),
    };
    assert_eq!(ran.recent_runs, [run], "a run that found nothing to do is kept, too");
}

#[tokio::test]
async fn a_clock_that_jumps_repeats_no_run_and_leaves_none_out() {
    let clock = Clock::manual(NOON_MS);
    let (jobs, job) = (alone(&clock), ScriptedRuns::default());
    let mut runner = planned(&jobs, &job, "0 * * * *");
    runner.look().await;
    // What it jumps by is believed once it has stayed there.
    let jump = |by_ms: i64| {
        clock.jump_ms(by_ms);
        let _jumped = clock.now_ms();
        clock.advance_ms(10 * MINUTE_MS);
    };
    jump(DAY_MS);
    for _ in 0..3 {
        runner.look().await;
    }
    assert_eq!(job.count(), 1, "forward by a day is one run");
    jump(-DAY_MS);
    for _ in 0..24 {
        runner.look().await;
        clock.advance_ms(HOUR_MS);
    }
    assert_eq!(job.count(), 1, "these hours were run for");
    clock.advance_ms(HOUR_MS);
    runner.look().await;
    assert_eq!(job.count(), 2);
    // A clock that was wrong by years does not stop the job for years.
    jump(1000 * DAY_MS);
    runner.look().await;
    assert_eq!(job.count(), 3);
    jump(-1000 * DAY_MS);
    runner.look().await;
    assert_eq!(job.count(), 3);
    clock.advance_ms(HOUR_MS);
    runner.look().await;
    runner.look().await;
    assert_eq!(job.count(), 4);
    assert_eq!(AHEAD_MAX, Duration::from_millis(DAY_MS.cast_unsigned()));
}

#[tokio::test]
async fn a_time_at_which_no_server_was_there_is_made_up_once() {
    let house = House::new().await;
    let job = ScriptedRuns::default();
    let jobs = house.server("one").await;
    let mut runner = planned(&jobs, &job, "0 0 * * *");
    runner.look().await;
    runner.end().await;
    drop(runner);
    house.clock.advance_ms(3 * DAY_MS);
    let jobs = house.server("one").await;
    let mut runner = planned(&jobs, &job, "0 0 * * *");
    runner.look().await;
    runner.look().await;
    assert_eq!((job.count(), triggers(&jobs)), (1, vec![JobTrigger::MadeUp]));
    jobs.keep_runs().await.unwrap();
    // It is not made up again, and the run is known.
    let jobs = house.server("one").await;
    let mut runner = planned(&jobs, &job, "0 0 * * *");
    runner.look().await;
    assert_eq!((job.count(), triggers(&jobs)), (1, vec![JobTrigger::MadeUp]));
    assert_eq!(state(&jobs).last_run.unwrap().outcome, JobOutcome::Idle);
}

#[tokio::test]
async fn a_run_that_was_killed_begins_again() {
    let house = House::new().await;
    let job = ScriptedRuns::gated();
    let jobs = house.server("one").await;
    let mut runner = planned(&jobs, &job, "0 0 * * *");
    runner.look().await;
    house.clock.advance_ms(DAY_MS);
    // Dropped in the middle of its run, as a process that is killed.
    {
        let mut look = std::pin::pin!(runner.look());
        while job.count() == 0 {
            assert!(futures::poll!(look.as_mut()).is_pending());
            tokio::task::yield_now().await;
        }
    }
    assert!(state(&jobs).running_since_ms.is_some());
    drop(runner);
    let jobs = house.server("one").await;
    let mut runner = planned(&jobs, &job, "0 0 * * *");
    job.0.gate.as_ref().unwrap().notify_one();
    runner.look().await;
    runner.look().await;
    assert_eq!((job.count(), triggers(&jobs)), (2, vec![JobTrigger::MadeUp]));
}

#[tokio::test]
async fn of_two_servers_one_runs_a_job_for_each_time() {
    let house = House::new().await;
    let job = ScriptedRuns::default();
    let jobs = [house.server("first").await, house.server("second").await];
    let [mut first, mut second] = jobs.each_ref().map(|jobs| planned(jobs, &job, "0 * * * *"));
    for hour in 0..4 {
        let (one, other) = match hour % 2 {
            0 => (&mut first, &mut second),
            _ => (&mut second, &mut first),
        };
        one.look().await;
        other.look().await;
        assert_eq!(job.count(), hour, "whoever comes first runs it");
        house.clock.advance_ms(HOUR_MS);
    }
    let [here, elsewhere] = jobs.each_ref().map(|jobs| state(jobs).recent_runs.len());
    assert_eq!((here, elsewhere), (1, 2));
    assert!(state(&jobs[0]).is_elsewhere);
}

#[tokio::test]
async fn a_server_whose_clock_is_behind_does_not_run_it_again() {
    let house = House::new().await;
    let job = ScriptedRuns::default();
    let (first, behind) = (house.server("first").await, Clock::manual(NOON_MS - HOUR_MS / 2));
    let second = house.server_at("second", &behind).await;
    let mut first = planned(&first, &job, "0 * * * *");
    let mut second = planned(&second, &job, "0 * * * *");
    first.look().await;
    second.look().await;
    house.clock.advance_ms(HOUR_MS);
    first.look().await;
    assert_eq!(job.count(), 1);
    // At half past twelve nothing is due, at half past one what the other server has run.
    for _ in 0..2 {
        behind.advance_ms(HOUR_MS);
        second.look().await;
    }
    assert_eq!(job.count(), 1);
    behind.advance_ms(HOUR_MS);
    second.look().await;
    assert_eq!(job.count(), 2);
}

#[tokio::test]
async fn another_server_makes_up_the_run_of_one_that_was_killed() {
    let house = House::new().await;
    let job = ScriptedRuns::gated();
    let jobs = [house.server("first").await, house.server("second").await];
    let [mut first, mut second] = jobs.each_ref().map(|jobs| planned(jobs, &job, "0 0 * * *"));
    first.look().await;
    second.look().await;
    house.clock.advance_ms(DAY_MS);
    {
        let mut look = std::pin::pin!(first.look());
        while job.count() == 0 {
            assert!(futures::poll!(look.as_mut()).is_pending());
            tokio::task::yield_now().await;
        }
        assert_eq!(second.look().await, LOOK_MAX, "its lease is held");
        assert!(state(&jobs[1]).is_elsewhere);
    }
    drop(first);
    job.0.gate.as_ref().unwrap().notify_one();
    for _ in 0..3 {
        house.clock.advance_ms(30_000);
        second.look().await;
    }
    assert_eq!((job.count(), triggers(&jobs[1])), (2, vec![JobTrigger::Time]));
    assert!(!state(&jobs[1]).is_elsewhere);
}

#[tokio::test]
async fn a_run_that_fails_is_tried_again_after_growing_pauses() {
    let clock = Clock::manual(NOON_MS);
    let failed = || Err(NoRoom(std::fmt::Error));
    let ends = vec![failed(), failed(), failed(), failed(), failed(), failed(), Ok(report(2))];
    let (jobs, job) = (alone(&clock), ScriptedRuns::ending(ends));
    let mut runner = planned(&jobs, &job, "0 0 * * *");
    runner.look().await;
    clock.advance_ms(12 * HOUR_MS);
    let minutes = [1, 2, 4, 8, 16, 30];
    for (failures, pause) in (1..).zip(minutes) {
        assert_eq!(runner.look().await, LOOK_MAX);
        let failed = state(&jobs);
        assert_eq!((job.count(), failed.failures_in_a_row), (failures, failures as u32));
        assert_eq!(failed.next_run_ms, Some(clock.now_ms() + pause * MINUTE_MS));
        let error = "sweep: an error occurred when formatting an argument";
        assert_eq!(failed.last_run.unwrap().error.as_deref(), Some(error));
        clock.advance_ms(pause * MINUTE_MS - 1);
        assert_eq!(runner.look().await, Duration::from_millis(1), "it waits");
        clock.advance_ms(1);
    }
    runner.look().await;
    let mended = state(&jobs);
    assert_eq!((mended.failures_in_a_row, job.count()), (0, 7));
    let last = mended.last_run.unwrap();
    assert_eq!((last.outcome, last.trigger), (JobOutcome::Worked, Some(JobTrigger::Retry)));
    assert_eq!((RETRY_MIN.as_secs(), RETRY_MAX.as_secs()), (60, 1800));
    assert_eq!(triggers(&jobs)[0], JobTrigger::Time);
}

#[tokio::test]
async fn a_run_by_hand_goes_on_without_its_client_and_alone() {
    let clock = Clock::manual(NOON_MS);
    let (jobs, job) = (alone(&clock), ScriptedRuns::gated());
    let gate = job.0.gate.as_ref().unwrap();
    let request = RunRequest { table: Some("events".to_owned()), ..RunRequest::default() };
    drop(jobs.run_by_hand(job.clone(), request.clone()).unwrap());
    let busy = jobs.run_by_hand(job.clone(), RunRequest::default());
    assert_eq!(busy.unwrap_err(), RunRefusal::Busy);
    while job.count() == 0 {
        tokio::task::yield_now().await;
    }
    assert!(state(&jobs).running_since_ms.is_some());
    gate.notify_one();
    drop(jobs.turn(ScriptedRuns::NAME).acquire_owned().await.unwrap());
    assert_eq!(job.0.asked.lock().unwrap()[0], request);
    let ran = state(&jobs);
    assert_eq!((ran.running_since_ms, triggers(&jobs)), (None, vec![JobTrigger::Hand]));
    // A dry run changes nothing, and is no run.
    gate.notify_one();
    let dry = RunRequest { dry_run: true, ..RunRequest::default() };
    assert_eq!(jobs.run_by_hand(job.clone(), dry).unwrap().await.unwrap().unwrap(), report(0));
    assert_eq!(triggers(&jobs), [JobTrigger::Hand]);
}

#[tokio::test]
async fn a_run_by_hand_and_one_by_time_wait_for_each_other() {
    let clock = Clock::manual(NOON_MS);
    let (jobs, job) = (alone(&clock), ScriptedRuns::gated());
    let gate = job.0.gate.as_ref().unwrap();
    let mut runner = planned(&jobs, &job, "0 0 * * *");
    runner.look().await;
    clock.advance_ms(12 * HOUR_MS);
    let by_hand = jobs.run_by_hand(job.clone(), RunRequest::default()).unwrap();
    while job.count() == 0 {
        tokio::task::yield_now().await;
    }
    let mut look = std::pin::pin!(runner.look());
    assert!(futures::poll!(look.as_mut()).is_pending());
    assert_eq!(job.count(), 1, "the run by hand ends first");
    gate.notify_one();
    by_hand.await.unwrap().unwrap();
    while job.count() == 1 {
        assert!(futures::poll!(look.as_mut()).is_pending());
        tokio::task::yield_now().await;
    }
    let busy = jobs.run_by_hand(job.clone(), RunRequest::default());
    assert_eq!(busy.unwrap_err(), RunRefusal::Busy, "it is time for this one");
    gate.notify_one();
    look.await;
    assert_eq!(triggers(&jobs), [JobTrigger::Hand, JobTrigger::Time]);
}

#[tokio::test]
async fn a_run_tells_what_it_did_and_some_of_what_it_left() {
    let clock = Clock::manual(NOON_MS);
    let left = |n: usize| SkippedTable { table: format!("t{n}"), reason: "no room".to_owned() };
    let many: Vec<SkippedTable> = (0..50).map(left).collect();
    let ends = vec![
        Ok(JobReport { skipped: many.clone(), ..report(0) }),
        Ok(JobReport { skipped: many.clone(), ..report(3) }),
        Ok(JobReport { skipped: many, errors: 2, ..report(0) }),
    ];
    let (jobs, job) = (alone(&clock), ScriptedRuns::ending(ends));
    let told = jobs.run_by_hand(job.clone(), RunRequest::default()).unwrap().await;
    assert_eq!(told.unwrap().unwrap().skipped.len(), 50, "the answer has all of them");
    let skipped = state(&jobs).last_run.unwrap();
    assert_eq!(
        (skipped.outcome, skipped.reason.as_deref(), skipped.error),
        (JobOutcome::Skipped, Some("t0: no room"), None)
    );
    drop(jobs.run_by_hand(job.clone(), RunRequest::default()).unwrap().await);
    let worked = state(&jobs).last_run.unwrap();
    assert_eq!((worked.outcome, worked.error), (JobOutcome::Worked, None));
    let kept = worked.report.unwrap();
    assert_eq!((kept.tables, kept.skipped.len()), (3, 21));
    assert_eq!(kept.skipped[20].reason, "30 more were left; a run by hand tells all of them");
    drop(jobs.run_by_hand(job, RunRequest::default()).unwrap().await);
    let failed = state(&jobs).last_run.unwrap();
    let error = "2 tables failed: `report.skipped` has the reasons";
    assert_eq!((failed.outcome, failed.error.as_deref()), (JobOutcome::Skipped, Some(error)));
}

#[tokio::test]
async fn a_job_without_times_runs_by_hand_alone_and_tasks_that_stop_end_a_run() {
    let (clock, tasks) = (Clock::manual(NOON_MS), Tasks::default());
    let jobs = JobRegistry::new(tasks.clone(), clock.clone(), Metrics::default());
    let job = ScriptedRuns::gated();
    jobs.start_planned(job.clone(), None);
    let idle = state(&jobs);
    assert_eq!((idle.cron.as_deref(), idle.next_run_ms), (Some(""), None));
    assert!(idle.is_run_by_hand);
    let by_hand = jobs.run_by_hand(job.clone(), RunRequest::default()).unwrap();
    tasks.stop(Duration::from_secs(60)).await;
    assert!(by_hand.await.is_err(), "there is no answer");
}

#[tokio::test]
async fn a_run_at_its_time_that_changed_something_is_in_the_audit_log_and_no_other() {
    let house = House::new().await;
    let (jobs, metastore) = (house.server("first").await, house.open().await);
    let clock = house.clock.clone();
    let access = AccessControl::recorded(metastore.clone(), Arc::new(move || clock.now_ms()));
    jobs.record_by(&access);
    let failed = Err(NoRoom(std::fmt::Error));
    let job = ScriptedRuns::ending(vec![Ok(report(2)), Ok(report(0)), failed, Ok(report(1))]);
    let mut runner = planned(&jobs, &job, "0 0 * * *");
    runner.look().await;
    for _ in 0..5 {
        house.clock.advance_ms(DAY_MS);
        runner.look().await;
    }
    assert_eq!(job.count(), 5);
    let by_hand = RunRequest::default();
    let again = ScriptedRuns::ending(vec![Ok(report(3))]);
    jobs.run_by_hand(again, by_hand).unwrap().await.unwrap().unwrap();
    // What took too long to be written is written now.
    access.tick().await.unwrap();
    let records = metastore.audit(0, 10).await.unwrap();
    let told = |record: &ChainRecord| {
        let entry = &record.entry;
        assert_eq!((entry.principal.as_str(), entry.action.as_str()), (ACTOR, RUN));
        assert_eq!(entry.outcome, "done");
        entry.object.clone()
    };
    let told: Vec<String> = records.iter().map(told).collect();
    let object = |trigger: &str, tables: u64| {
        format!("compact-day trigger={trigger} tables={tables} files=0/0 rows=0 errors=0")
    };
    assert_eq!(told, [object("time", 2), object("retry", 1)]);
}

#[tokio::test]
async fn a_run_that_failed_after_it_wrote_is_in_the_audit_log() {
    let house = House::new().await;
    let (jobs, metastore) = (house.server("first").await, house.open().await);
    let clock = house.clock.clone();
    let access = AccessControl::recorded(metastore.clone(), Arc::new(move || clock.now_ms()));
    jobs.record_by(&access);
    let warehouse = format!("file://{}/warehouse", house.folder.path().display());
    let storage = Storage::open(&warehouse, &S3Options::default()).unwrap();
    let failed = || Err(NoRoom(std::fmt::Error));
    let job =
        ScriptedRuns::writing((storage, format!("{warehouse}/file")), vec![failed(), failed()]);
    let mut runner = planned(&jobs, &job, "0 0 * * *");
    runner.look().await;
    for _ in 0..3 {
        house.clock.advance_ms(DAY_MS);
        runner.look().await;
    }
    assert_eq!(job.count(), 3, "the last one did nothing");
    access.tick().await.unwrap();
    let records = metastore.audit(0, 10).await.unwrap();
    let told: Vec<&str> = records.iter().map(|record| record.entry.object.as_str()).collect();
    let object = |trigger: &str| format!("compact-day trigger={trigger} failed written=7");
    assert_eq!(told, [object("time"), object("retry")]);
}
