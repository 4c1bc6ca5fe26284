//! What is known of one job: when it runs next, and how its last runs ended.

use crate::{
    maintenance::{JobLine, progress::RunProgress},
    tasks::Progress,
};
use icecore_catalog::{
    error::with_causes,
    usage::{ResourceUsage, UsageCounter},
};
use icecore_schemas::jobs::{
    JobOutcome, JobReport, JobRun, JobState, JobTrigger, JobUsage, SkippedTable,
};
use std::{collections::VecDeque, error::Error, time::Duration};

/// How many runs that were not idle are kept of each job.
const RECENT_MAX: usize = 10;
/// Longest text that is kept of an error, and of why a table was left.
const ERROR_CHARS_MAX: usize = 1000;
/// How many of the tables that a run left are kept with it.
const SKIPPED_MAX: usize = 20;

/// The record of a job.
#[derive(Debug)]
pub(super) struct JobRecord {
    every: Duration,
    is_elsewhere: bool,
    running_since_ms: Option<i64>,
    /// Since when a run by hand goes on.
    hand_since_ms: Option<i64>,
    /// How far a run by hand is, also a dry one.
    progress: Option<RunProgress>,
    /// The times at which it runs; empty for none.
    cron: String,
    next_run_ms: Option<i64>,
    failures_in_a_row: u32,
    last: Option<JobRun>,
    /// Those that were not idle or have a report, the newest first; of skipped ones without a report
    /// that follow each other the first.
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
            hand_since_ms: None,
            progress: None,
            cron: String::new(),
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

    /// It runs at these times here.
    pub(super) fn set_cron(&mut self, cron: String) {
        self.cron = cron;
    }

    /// When it is time again; none when it never is.
    pub(super) fn plan_next(&mut self, next_run_ms: Option<i64>) {
        (self.running_since_ms, self.next_run_ms) = (None, next_run_ms);
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
        self.note(run);
    }

    pub(super) fn begin_by_hand(&mut self, now_ms: i64) {
        self.hand_since_ms = Some(now_ms);
    }

    /// Somebody may ask how far a run by hand is.
    pub(super) fn show(&mut self, progress: RunProgress) {
        self.progress = Some(progress);
    }

    /// That run has ended.
    pub(super) fn hide(&mut self) {
        self.progress = None;
    }

    /// The run by hand was of nothing that is there, and is none.
    pub(super) fn leave_by_hand(&mut self) {
        self.hand_since_ms = None;
    }

    pub(super) fn end_by_hand(&mut self, run: JobRun) {
        self.hand_since_ms = None;
        self.note(run);
    }

    fn note(&mut self, run: JobRun) {
        self.failures_in_a_row = match run.outcome {
            JobOutcome::Failed => self.failures_in_a_row.saturating_add(1),
            JobOutcome::Idle | JobOutcome::Worked | JobOutcome::Skipped => 0,
        };
        let is_news = match run.outcome {
            JobOutcome::Idle => run.report.is_some(),
            // Once for all of a row: they would take the place of the others.
            JobOutcome::Skipped => {
                run.report.is_some()
                    || self.last.as_ref().is_none_or(|last| last.outcome != JobOutcome::Skipped)
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
            cron: line.cron.map(|_| self.cron.clone()),
            is_run_by_hand: line.is_run_by_hand(),
            woken_by: line.woken_by.map(str::to_owned),
            is_leased: line.is_leased,
            is_elsewhere: self.is_elsewhere,
            running_since_ms: self.hand_since_ms.or(self.running_since_ms),
            progress: self.progress.as_ref().and_then(RunProgress::read),
            next_run_ms: self.next_run_ms,
            failures_in_a_row: self.failures_in_a_row,
            last_run: self.last.clone(),
            recent_runs: self.recent.iter().cloned().collect(),
        }
    }
}

/// When a run was, why, and what it cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct RunSpan {
    pub(super) started_ms: i64,
    pub(super) elapsed_ms: u64,
    pub(super) trigger: JobTrigger,
    pub(super) usage: JobUsage,
}

impl RunSpan {
    fn ended(self, outcome: JobOutcome) -> JobRun {
        let Self { started_ms, elapsed_ms, trigger, usage } = self;
        JobRun {
            started_ms,
            elapsed_ms,
            outcome,
            error: None,
            reason: None,
            trigger: Some(trigger),
            usage: Some(usage),
            report: None,
        }
    }
}

/// What was counted, as it is told.
pub(super) fn usage_of(counter: &UsageCounter) -> JobUsage {
    let ResourceUsage { cpu, bytes_read, bytes_written } = counter.usage();
    let cpu_ms = u64::try_from(cpu.as_millis()).unwrap_or(u64::MAX);
    JobUsage { cpu_ms, bytes_read, bytes_written }
}

/// A run that ended so.
pub(super) fn run(span: RunSpan, ended: Result<&Progress, &dyn Error>) -> JobRun {
    match ended {
        Ok(Progress::Idle | Progress::Soon { did_something: false }) => {
            span.ended(JobOutcome::Idle)
        }
        Ok(Progress::Done | Progress::More | Progress::Soon { did_something: true }) => {
            span.ended(JobOutcome::Worked)
        }
        Ok(Progress::Skipped(reason)) => {
            JobRun { reason: Some(shortened(reason)), ..span.ended(JobOutcome::Skipped) }
        }
        Err(cause) => {
            let error = Some(shortened(&with_causes(cause)));
            JobRun { error, ..span.ended(JobOutcome::Failed) }
        }
    }
}

/// The same of a job that tells what it did. A run that did nothing and left tables was skipped.
pub(super) fn planned_run(span: RunSpan, ended: Result<&JobReport, &dyn Error>) -> JobRun {
    let report = match ended {
        Ok(report) => report,
        Err(cause) => return run(span, Err(cause)),
    };
    let is_changed = is_changed(report);
    let (outcome, reason) = match report.skipped.as_slice() {
        _ if is_changed => (JobOutcome::Worked, None),
        [] => (JobOutcome::Idle, None),
        [first, ..] => {
            let text = format!("{}: {}", first.table, first.reason);
            (JobOutcome::Skipped, Some(shortened(&text)))
        }
    };
    let error = (0 < report.errors)
        .then(|| format!("{} tables failed: `report.skipped` has the reasons", report.errors));
    JobRun { error, reason, report: Some(kept_of(report)), ..span.ended(outcome) }
}

/// Whether a run changed something.
pub(super) fn is_changed(report: &JobReport) -> bool {
    0 < report.tables
        || 0 < report.rows
        || report.files.before != report.files.after
        || report.bytes.before != report.bytes.after
}

/// As much of a report as is kept.
fn kept_of(report: &JobReport) -> JobReport {
    let shown = report.skipped.iter().take(SKIPPED_MAX).map(|left| SkippedTable {
        table: shortened(&left.table),
        reason: shortened(&left.reason),
    });
    let mut skipped: Vec<SkippedTable> = shown.collect();
    let more = report.skipped.len() - skipped.len();
    if 0 < more {
        let reason = format!("{more} more were left; a run by hand tells all of them");
        skipped.push(SkippedTable { table: "…".to_owned(), reason });
    }
    JobReport {
        job: report.job.clone(),
        is_running: report.is_running,
        tables: report.tables,
        files: report.files,
        bytes: report.bytes,
        rows: report.rows,
        elapsed_ms: report.elapsed_ms,
        usage: report.usage,
        errors: report.errors,
        skipped,
        copied_files: report.copied_files,
        not_copied: report.not_copied.iter().take(SKIPPED_MAX).cloned().collect(),
        merged: report.merged.iter().take(SKIPPED_MAX).cloned().collect(),
        kept: report.kept.iter().take(SKIPPED_MAX).cloned().collect(),
        partitions: Vec::new(),
        partitions_more: 0,
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(ERROR_CHARS_MAX).collect()
}
