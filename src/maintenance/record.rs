//! What is known of one job: when it runs next, and how its last runs ended.

use crate::{maintenance::JobLine, tasks::Progress};
use icecore_schemas::jobs::{JobOutcome, JobRun, JobState};
use std::{collections::VecDeque, error::Error, time::Duration};

/// How many runs that were not idle are kept of each job.
const RECENT_MAX: usize = 10;
/// Longest text that is kept of an error.
const ERROR_CHARS_MAX: usize = 1000;

/// The record of a job.
#[derive(Debug)]
pub(super) struct Record {
    every: Duration,
    running_since_ms: Option<i64>,
    next_run_ms: Option<i64>,
    failures_in_a_row: u32,
    last: Option<JobRun>,
    /// Those that were not idle, the newest first.
    recent: VecDeque<JobRun>,
}

impl Record {
    pub(super) fn new(every: Duration, next_run_ms: Option<i64>) -> Self {
        let (running_since_ms, failures_in_a_row, last) = (None, 0, None);
        let recent = VecDeque::new();
        Self { every, running_since_ms, next_run_ms, failures_in_a_row, last, recent }
    }

    pub(super) fn begin(&mut self, now_ms: i64) {
        (self.running_since_ms, self.next_run_ms) = (Some(now_ms), None);
    }

    pub(super) fn end(&mut self, run: JobRun, next_run_ms: i64) {
        (self.running_since_ms, self.next_run_ms) = (None, Some(next_run_ms));
        self.failures_in_a_row = match run.outcome {
            JobOutcome::Failed => self.failures_in_a_row.saturating_add(1),
            JobOutcome::Idle | JobOutcome::Worked => 0,
        };
        if run.outcome != JobOutcome::Idle {
            self.recent.push_front(run.clone());
            self.recent.truncate(RECENT_MAX);
        }
        self.last = Some(run);
    }

    pub(super) fn state(&self, line: &JobLine) -> JobState {
        JobState {
            name: line.name.to_owned(),
            about: line.about.to_owned(),
            every_ms: u64::try_from(self.every.as_millis()).unwrap_or(u64::MAX),
            woken_by: line.woken_by.map(str::to_owned),
            running_since_ms: self.running_since_ms,
            next_run_ms: self.next_run_ms,
            failures_in_a_row: self.failures_in_a_row,
            last_run: self.last.clone(),
            recent_runs: self.recent.iter().cloned().collect(),
        }
    }
}

/// A run that ended so.
pub(super) fn run<E: Error>(
    started_ms: i64,
    elapsed_ms: u64,
    ended: Result<Progress, E>,
) -> JobRun {
    let (outcome, error) = match ended {
        Ok(Progress::Idle) => (JobOutcome::Idle, None),
        Ok(Progress::Done | Progress::More) => (JobOutcome::Worked, None),
        Err(cause) => (JobOutcome::Failed, Some(told(&cause))),
    };
    JobRun { started_ms, elapsed_ms, outcome, error }
}

/// An error with its causes.
fn told<E: Error>(cause: &E) -> String {
    let mut text = cause.to_string();
    let mut cause = cause.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text.chars().take(ERROR_CHARS_MAX).collect()
}
