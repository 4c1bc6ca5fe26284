//! What jobs did: the answers of `GET /admin/jobs` and of a job that is run by hand.

use serde::{Deserialize, Serialize};

/// Every job of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct JobList {
    /// In the order of their table.
    pub jobs: Vec<JobState>,
}

/// A job, and what became of its last runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct JobState {
    /// Its name.
    pub name: String,
    /// What it does.
    pub about: String,
    /// Milliseconds from the end of a run that left nothing to do to the next one; 0 with `cron`.
    pub every_ms: u64,
    /// The times at which it runs, in UTC, as they are set; empty where this server runs it by hand
    /// alone, null for a job without times.
    pub cron: Option<String>,
    /// Whether `POST /admin/jobs/{name}` runs it.
    #[serde(default)]
    pub is_run_by_hand: bool,
    /// What runs it before its time; only the time when null.
    pub woken_by: Option<String>,
    /// Whether of several servers on one metastore one runs it at a time.
    pub is_leased: bool,
    /// Whether another server was seen to run it when it was this one's turn.
    pub is_elsewhere: bool,
    /// Since when a run is going on, milliseconds since 1970; null between runs.
    pub running_since_ms: Option<i64>,
    /// How far the run by hand is that is going on, a dry run too; null without one, and for jobs that
    /// do not tell.
    #[serde(default)]
    pub progress: Option<JobProgress>,
    /// When the next run is due, milliseconds since 1970; null during a run, and where this server
    /// does not run the job.
    pub next_run_ms: Option<i64>,
    /// How many of the last runs failed without one between them that did not.
    pub failures_in_a_row: u32,
    /// The last run that ended.
    pub last_run: Option<JobRun>,
    /// The last ones that found something to do, or failed, the newest first; of a job with times,
    /// and by hand, also those that did not.
    pub recent_runs: Vec<JobRun>,
}

/// How far a run is. Groups of files and bytes are those of the tables that it has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct JobProgress {
    /// Tables that it is done with.
    pub tables_done: u64,
    /// Tables that it looks at.
    pub tables: u64,
    /// Groups of files that it has committed.
    pub groups_done: u64,
    /// Groups that it found, those included.
    pub groups: u64,
    /// Bytes of the files of the groups that it has committed.
    pub bytes_done: u64,
    /// Bytes of the files of all groups that it found.
    pub bytes: u64,
}

/// One run of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct JobRun {
    /// When it began, milliseconds since 1970.
    pub started_ms: i64,
    /// How many milliseconds it took.
    pub elapsed_ms: u64,
    /// How it ended.
    pub outcome: JobOutcome,
    /// Why it failed, or which tables of it did; null for a run that left things for good reasons.
    pub error: Option<String>,
    /// Why it did nothing although there may be something to do; null where it did something, found
    /// nothing to do, or failed.
    #[serde(default)]
    pub reason: Option<String>,
    /// Why it ran; null for a run that an earlier version kept.
    pub trigger: Option<JobTrigger>,
    /// What it cost; null for a run that an earlier version kept.
    #[serde(default)]
    pub usage: Option<JobUsage>,
    /// What it did, with some of what it left; null for runs of jobs that tell no more than their
    /// outcome.
    pub report: Option<JobReport>,
}

/// What a run of a job cost the server.
///
/// What it left to others is not in it: a commit that waited for its turn in a table's queue is carried
/// out together with those of clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct JobUsage {
    /// Milliseconds of processor time, of all threads together.
    pub cpu_ms: u64,
    /// Bytes of the warehouse's files that it read.
    pub bytes_read: u64,
    /// Bytes of the warehouse's files that it wrote.
    pub bytes_written: u64,
}

/// Why a run began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum JobTrigger {
    /// It was time.
    Time,
    /// Something woke it before its time.
    Woken,
    /// Somebody asked for it.
    Hand,
    /// No server was there when it was time.
    MadeUp,
    /// The run before it failed.
    Retry,
}

impl JobTrigger {
    /// Every one of them.
    pub const ALL: [Self; 5] = [Self::Time, Self::Woken, Self::Hand, Self::MadeUp, Self::Retry];

    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Woken => "woken",
            Self::Hand => "hand",
            Self::MadeUp => "made-up",
            Self::Retry => "retry",
        }
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum JobOutcome {
    /// There was nothing to do.
    Idle,
    /// It did something.
    Worked,
    /// It will be tried again.
    Failed,
    /// It did nothing; `reason` says why.
    Skipped,
}

impl JobOutcome {
    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Worked => "worked",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// What stands behind the `?` of `POST /admin/jobs/{name}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct JobParameters {
    /// Only tables of this namespace.
    pub namespace: Option<String>,
    /// Only tables of this name.
    pub table: Option<String>,
    /// Of `compact`, `compact-hour` and `compact-day`: only partitions that may have rows which meet this
    /// condition, such as `type = 'a' AND dt >= '2026-11-01'`.
    #[serde(rename = "where")]
    pub condition: Option<String>,
    /// Whether to tell what would be done, and change nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Whether to answer when the run has ended; yes when left out.
    pub wait: Option<bool>,
}

/// What a run of a job did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct JobReport {
    /// Which job.
    pub job: String,
    /// Whether the run goes on, and nothing is told of it yet: the answer with `wait=false`.
    #[serde(default)]
    pub is_running: bool,
    /// How many tables it changed.
    pub tables: u64,
    /// Data files that it replaced, and those in their place.
    pub files: BeforeAfter,
    /// Their bytes.
    pub bytes: BeforeAfter,
    /// How many rows were written anew.
    pub rows: u64,
    /// How many milliseconds it took.
    pub elapsed_ms: u64,
    /// What it cost.
    #[serde(default)]
    pub usage: JobUsage,
    /// How many tables failed; `skipped` has them with the reasons, among those that were left for
    /// good ones.
    #[serde(default)]
    pub errors: u64,
    /// What it left as it is, and why.
    pub skipped: Vec<SkippedTable>,
    /// Of the data files that it replaced, those whose row groups were copied as they were stored.
    #[serde(default)]
    pub copied_files: u64,
    /// Why the rows of other data files were written anew instead, each reason once for each table.
    #[serde(default)]
    pub not_copied: Vec<SkippedTable>,
    /// Of `compact`, `compact-hour` and `compact-day`: how many files were merged, and why.
    #[serde(default)]
    pub merged: Vec<FileReason>,
    /// How many of the other files that may be merged were not worth it, and why; `skipped` has those
    /// that may not be.
    #[serde(default)]
    pub kept: Vec<FileReason>,
    /// What a dry run says of single partitions, at most 100 of a table and 1 000 in all, those first
    /// that change.
    #[serde(default)]
    pub partitions: Vec<PartitionPreview>,
    /// How many partitions a dry run looked at and does not list.
    #[serde(default)]
    pub partitions_more: u64,
}

/// Files of a table that are treated alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FileReason {
    /// Namespace and name.
    pub table: String,
    /// How many files.
    pub files: u64,
    /// Why.
    pub reason: String,
}

/// What would become of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PartitionPreview {
    /// Namespace and name of the table.
    pub table: String,
    /// Its values, such as `type=a/dt=2026-11-01`; empty for a table without partitions.
    pub partition: String,
    /// Its data files that may be merged.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of them, those that would be merged, and how many files they would become.
    pub merged: BeforeAfter,
    /// Why files would be merged, and why others would stay.
    pub reasons: Vec<String>,
}

/// A number before and after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BeforeAfter {
    /// Before the run.
    pub before: u64,
    /// After it. A dry run expects a file for each group of files, and as many bytes as before.
    pub after: u64,
}

/// A table that a job left as it is, or files of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SkippedTable {
    /// Namespace and name.
    pub table: String,
    /// Why.
    pub reason: String,
}
