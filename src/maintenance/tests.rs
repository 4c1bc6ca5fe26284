use super::{runner::BACKOFF_MAX, *};
use crate::{store, tasks::Progress};
use icecore_catalog::metastore::Metastore;
use icecore_schemas::jobs::{JobOutcome, JobState, JobTrigger, JobUsage};
use std::collections::{BTreeSet, VecDeque};

const START_MS: i64 = 1_000_000;

/// Ends as it is told, and takes 5 ms of the clock each time.
struct Scripted {
    clock: Clock,
    ends: VecDeque<Result<Progress, Broken>>,
}

#[derive(Debug, thiserror::Error)]
#[error("sweep {what}")]
struct Broken {
    what: String,
    #[source]
    source: std::fmt::Error,
}

impl Job for Scripted {
    const NAME: &'static str = "delete-obsolete";
    type Error = Broken;

    async fn tick(&mut self) -> Result<Progress, Broken> {
        self.clock.advance_ms(5);
        self.ends.pop_front().expect("one end for each run")
    }
}

fn broken(what: &str) -> Result<Progress, Broken> {
    Err(Broken { what: what.to_owned(), source: std::fmt::Error })
}

/// The job, run once for each end, and the pauses that it asked for.
async fn run(ends: Vec<Result<Progress, Broken>>) -> (JobRegistry, Vec<Duration>) {
    let clock = Clock::manual(START_MS);
    let jobs = JobRegistry::new(Tasks::default(), clock.clone(), Metrics::default());
    let count = ends.len();
    let mut runner = JobRunner::new(&jobs, Scripted { clock, ends: ends.into() }, Duration::MAX);
    let mut pauses = Vec::new();
    for _ in 0..count {
        pauses.push(runner.run(false).await);
    }
    (jobs, pauses)
}

fn state(jobs: &JobRegistry) -> JobState {
    jobs.list().jobs.into_iter().find(|job| job.name == Scripted::NAME).unwrap()
}

#[tokio::test]
async fn a_job_runs_at_its_cadence_and_at_once_while_there_is_more() {
    let ends = [Progress::Idle, Progress::More, Progress::Done].map(Ok);
    let (jobs, pauses) = run(ends.into()).await;
    let every = Duration::from_secs(30);
    assert_eq!(pauses, [every, Duration::ZERO, every]);
    let state = state(&jobs);
    assert_eq!((state.every_ms, state.failures_in_a_row), (30_000, 0));
    assert_eq!(state.next_run_ms, Some(START_MS + 15 + 30_000));
    let worked = |started_ms| JobRun {
        started_ms,
        elapsed_ms: 5,
        outcome: JobOutcome::Worked,
        error: None,
        reason: None,
        trigger: Some(JobTrigger::Time),
        usage: Some(JobUsage::default()),
        report: None,
    };
    assert_eq!(state.last_run, Some(worked(START_MS + 10)));
    assert_eq!(state.recent_runs, [worked(START_MS + 10), worked(START_MS + 5)]);
}

#[tokio::test]
async fn a_job_that_will_have_more_to_do_soon_runs_after_seconds_and_is_idle_meanwhile() {
    let ends = [true, false].map(|did_something| Ok(Progress::Soon { did_something }));
    let (jobs, pauses) = run(ends.into()).await;
    assert_eq!(pauses, [Duration::from_secs(3); 2]);
    let state = state(&jobs);
    assert_eq!(state.last_run.unwrap().outcome, JobOutcome::Idle);
    assert_eq!(state.recent_runs.len(), 1, "the one that did something");
}

#[tokio::test]
async fn a_failing_job_is_tried_again_and_tells_why_with_its_causes() {
    let (jobs, pauses) = run(vec![broken("one"), broken("two")]).await;
    assert_eq!(pauses, [BACKOFF_MAX, BACKOFF_MAX]);
    let failed = state(&jobs);
    assert_eq!(failed.failures_in_a_row, 2);
    let error = "sweep two: an error occurred when formatting an argument";
    assert_eq!(failed.last_run.unwrap().error.as_deref(), Some(error));
    let (jobs, _) = run(vec![broken("one"), Ok(Progress::Idle)]).await;
    let mended = state(&jobs);
    assert_eq!((mended.failures_in_a_row, mended.recent_runs.len()), (0, 1));
    assert_eq!(mended.last_run.unwrap().outcome, JobOutcome::Idle);
}

#[tokio::test]
async fn a_run_tells_why_it_began() {
    let clock = Clock::manual(START_MS);
    let jobs = JobRegistry::new(Tasks::default(), clock.clone(), Metrics::default());
    let ends = [Ok(Progress::Done), broken("one"), Ok(Progress::Done), Ok(Progress::Done)];
    let job = Scripted { clock, ends: ends.into() };
    let mut runner = JobRunner::new(&jobs, job, Duration::MAX);
    for is_woken in [true, false, false, false] {
        runner.run(is_woken).await;
    }
    let triggers: Vec<JobTrigger> =
        state(&jobs).recent_runs.iter().rev().filter_map(|run| run.trigger).collect();
    assert_eq!(
        triggers,
        [JobTrigger::Woken, JobTrigger::Time, JobTrigger::Retry, JobTrigger::Time]
    );
}

#[tokio::test]
async fn a_job_that_skips_its_runs_says_why_and_keeps_one_of_them() {
    let skipped = || Ok(Progress::Skipped("no room".to_owned()));
    let (jobs, pauses) = run(vec![Ok(Progress::Done), skipped(), skipped()]).await;
    assert_eq!(pauses, [Duration::from_secs(30); 3]);
    let state = state(&jobs);
    assert_eq!((state.failures_in_a_row, state.recent_runs.len()), (0, 2));
    let last = state.last_run.unwrap();
    assert_eq!((last.outcome, last.reason.as_deref()), (JobOutcome::Skipped, Some("no room")));
    assert_eq!(last.error, None, "nothing failed");
}

#[tokio::test]
async fn what_is_kept_of_runs_is_bounded() {
    let long = "x".repeat(5_000);
    let (jobs, _) = run((0..40).map(|_| broken(&long)).collect()).await;
    let state = state(&jobs);
    assert_eq!((state.failures_in_a_row, state.recent_runs.len()), (40, 10));
    assert_eq!(state.recent_runs[0].error.as_ref().unwrap().len(), 1000);
}

#[tokio::test]
async fn runs_are_counted_and_timed_by_job() {
    let (jobs, _) = run(vec![Ok(Progress::Done), broken("one"), Ok(Progress::Done)]).await;
    let text = jobs.inner.metrics.text();
    for line in [
        "icecore_job_runs_total{job=\"delete-obsolete\",outcome=\"worked\"} 2",
        "icecore_job_runs_total{job=\"delete-obsolete\",outcome=\"failed\"} 1",
        "icecore_job_seconds_count{job=\"delete-obsolete\"} 3",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[test]
fn no_two_lines_of_the_table_have_one_name() {
    let names: BTreeSet<&str> = JOBS.iter().map(|line| line.name).collect();
    assert_eq!(names.len(), JOBS.len());
}

/// Jobs of servers on one metastore.
async fn on_one_metastore<const N: usize>(
    servers: [&str; N],
    clock: &Clock,
) -> (tempfile::TempDir, [JobRegistry; N]) {
    let folder = tempfile::tempdir().unwrap();
    let metastore = Metastore::sqlite(&folder.path().join("icecore.db")).await.unwrap();
    store::make_tables(metastore.database()).await.unwrap();
    let jobs =
        servers.map(|_| JobRegistry::new(Tasks::default(), clock.clone(), Metrics::default()));
    for (server, jobs) in servers.iter().zip(&jobs) {
        jobs.keep_in(metastore.database().clone(), server).await.unwrap();
    }
    (folder, jobs)
}

fn busy(jobs: &JobRegistry, clock: &Clock) -> JobRunner<Scripted> {
    let ends = (0..9).map(|_| Ok(Progress::Done)).collect();
    JobRunner::new(jobs, Scripted { clock: clock.clone(), ends }, Duration::MAX)
}

#[tokio::test]
async fn of_two_servers_one_runs_a_leased_job() {
    let clock = Clock::manual(START_MS);
    let (_folder, jobs) = on_one_metastore(["first", "second"], &clock).await;
    let [mut first, mut second] = jobs.each_ref().map(|jobs| busy(jobs, &clock));
    for _ in 0..4 {
        assert_eq!(first.run(false).await, Duration::from_secs(30));
        assert_eq!(second.run(false).await, Duration::from_secs(30));
        clock.advance_ms(30_000);
    }
    let [here, elsewhere] = jobs.each_ref().map(state);
    assert_eq!((here.is_leased, here.is_elsewhere, here.recent_runs.len()), (true, false, 4));
    assert_eq!((elsewhere.is_elsewhere, elsewhere.last_run), (true, None));
    // One that stops lets the other have it.
    first.end().await;
    second.run(false).await;
    let went_on = state(&jobs[1]);
    assert_eq!((went_on.is_elsewhere, went_on.recent_runs.len()), (false, 1));
}

#[tokio::test]
async fn another_server_goes_on_with_the_job_of_one_that_was_killed() {
    let clock = Clock::manual(START_MS);
    let (_folder, jobs) = on_one_metastore(["first", "second"], &clock).await;
    let [mut first, mut second] = jobs.each_ref().map(|jobs| busy(jobs, &clock));
    first.run(false).await;
    drop(first);
    for _ in 0..3 {
        second.run(false).await;
        clock.advance_ms(30_000);
    }
    assert!(state(&jobs[1]).recent_runs.is_empty(), "60 s are not longer than the lease");
    second.run(false).await;
    assert_eq!(state(&jobs[1]).recent_runs.len(), 1);
}

#[tokio::test]
async fn runs_are_written_once_and_read_by_the_next_start() {
    let clock = Clock::manual(START_MS);
    let (folder, [jobs, again]) = on_one_metastore(["one", "one"], &clock).await;
    let mut runner = busy(&jobs, &clock);
    runner.run(false).await;
    jobs.keep_runs().await.unwrap();
    runner.run(false).await;
    jobs.keep_runs().await.unwrap();
    jobs.keep_runs().await.unwrap();
    assert_eq!(jobs.inner.store.get().unwrap().runs().await.unwrap().len(), 2);
    let file = folder.path().join("icecore.db");
    let database = Metastore::sqlite(&file).await.unwrap().database().clone();
    again.keep_in(database, "one").await.unwrap();
    let (before, after) = (state(&jobs), state(&again));
    assert_eq!((&after.recent_runs, &after.last_run), (&before.recent_runs, &before.last_run));
    assert_eq!(after.next_run_ms, None, "it is not run yet");
}
