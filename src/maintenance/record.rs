//! What is known of one job: when it runs next, and how its last runs ended.

use crate::{maintenance::JobLine, tasks::Progress};
use icecore_catalog::error::with_causes;
use icecore_schemas::jobs::{JobOutcome, JobRun, JobState};
use std::{collections::VecDeque, error::Error, time::Duration};

/// How many runs that were not idle are kept of each job.
const RECENT_MAX: usize = 10;
/// Longest text that is kept of an error.
const ERROR_CHARS_MAX: usize = 1000;

/// The record of a job.
#[derive(Debug)]
pub(super) struct JobRecord {
    every: Duration,
    is_elsewhere: bool,
    running_since_ms: Option<i64>,
    next_run_ms: Option<i64>,
    failures_in_a_row: u32,
    last: Option<JobRun>,
    /// Those that were not idle, the newest first; of skipped ones in a row the first.
    recent: VecDeque<JobRun>,
    /// How many of the newest of them the store does not have.
    unkept: usize,
}

impl JobRecord {
    /// A job that is not run.
    pub(super) fn new(every: Duration) -> Self {
        Self {
            every,
            is_elsewhere: false,
            running_since_ms: None,
            next_run_ms: None,
            failures_in_a_row: 0,
            last: None,
            recent: VecDeque::new(),
            unkept: 0,
        }
    }

    /// A run of an earlier life of this server; the newest come first.
    pub(super) fn restore(&mut self, run: JobRun) {
        self.last.get_or_insert_with(|| run.clone());
        self.recent.push_back(run);
        self.recent.truncate(RECENT_MAX);
    }

    /// The runs that the store does not have, the oldest first.
    pub(super) fn take_unkept(&mut self) -> Vec<JobRun> {
        let count = std::mem::take(&mut self.unkept);
        self.recent.iter().take(count).rev().cloned().collect()
    }

    /// What was taken was not written. A run that is written twice is one row.
    pub(super) fn keep_again(&mut self) {
        self.unkept = self.recent.len();
    }

    pub(super) fn plan(&mut self, every: Duration, next_run_ms: i64) {
        (self.every, self.next_run_ms) = (every, Some(next_run_ms));
    }

    pub(super) fn begin(&mut self, now_ms: i64) {
        (self.running_since_ms, self.next_run_ms) = (Some(now_ms), None);
    }

    /// Another server has the job's lease.
    pub(super) fn skip(&mut self, next_run_ms: i64) {
        self.is_elsewhere = true;
        (self.running_since_ms, self.next_run_ms) = (None, Some(next_run_ms));
    }

    pub(super) fn end(&mut self, run: JobRun, next_run_ms: i64) {
        (self.running_since_ms, self.next_run_ms) = (None, Some(next_run_ms));
        self.is_elsewhere = false;
        self.failures_in_a_row = match run.outcome {
            JobOutcome::Failed => self.failures_in_a_row.saturating_add(1),
            JobOutcome::Idle | JobOutcome::Worked | JobOutcome::Skipped => 0,
        };
        let is_news = match run.outcome {
            JobOutcome::Idle => false,
            // Once for all of a row: they would take the place of the others.
            JobOutcome::Skipped => {
                self.last.as_ref().is_none_or(|last| last.outcome != JobOutcome::Skipped)
            }
            JobOutcome::Worked | JobOutcome::Failed => true,
        };
        if is_news {
            self.recent.push_front(run.clone());
            self.recent.truncate(RECENT_MAX);
            self.unkept = (self.unkept + 1).min(self.recent.len());
        }
        self.last = Some(run);
    }

    pub(super) fn state(&self, line: &JobLine) -> JobState {
        JobState {
            name: line.name.to_owned(),
            about: line.about.to_owned(),
            every_ms: u64::try_from(self.every.as_millis()).unwrap_or(u64::MAX),
            woken_by: line.woken_by.map(str::to_owned),
            is_leased: line.is_leased,
            is_elsewhere: self.is_elsewhere,
            running_since_ms: self.running_since_ms,
            next_run_ms: self.next_run_ms,
            failures_in_a_row: self.failures_in_a_row,
            last_run: self.last.clone(),
            recent_runs: self.recent.iter().cloned().collect(),
        }
    }
}

/// A run that ended so.
pub(super) fn run(
    started_ms: i64,
    elapsed_ms: u64,
    ended: Result<&Progress, &dyn Error>,
) -> JobRun {
    let (outcome, error) = match ended {
        Ok(Progress::Idle) => (JobOutcome::Idle, None),
        Ok(Progress::Done | Progress::More) => (JobOutcome::Worked, None),
        Ok(Progress::Skipped(reason)) => (JobOutcome::Skipped, Some(reason.clone())),
        Err(cause) => {
            let text: String = with_causes(cause).chars().take(ERROR_CHARS_MAX).collect();
            (JobOutcome::Failed, Some(text))
        }
    };
    JobRun { started_ms, elapsed_ms, outcome, error }
}
