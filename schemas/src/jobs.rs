//! The answer of `GET /admin/jobs`.

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
    /// Milliseconds from the end of a run that left nothing to do to the next one.
    pub every_ms: u64,
    /// What runs it before its time; only the time when null.
    pub woken_by: Option<String>,
    /// Whether of several servers on one metastore one runs it at a time.
    pub is_leased: bool,
    /// Whether another server was seen to run it when it was this one's turn.
    pub is_elsewhere: bool,
    /// Since when a run is going on, milliseconds since 1970; null between runs.
    pub running_since_ms: Option<i64>,
    /// When the next run is due, milliseconds since 1970; null during a run, and where this server
    /// does not run the job.
    pub next_run_ms: Option<i64>,
    /// How many of the last runs failed without one between them that did not.
    pub failures_in_a_row: u32,
    /// The last run that ended.
    pub last_run: Option<JobRun>,
    /// The last ones that found something to do, or failed, the newest first.
    pub recent_runs: Vec<JobRun>,
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
    /// Why it failed.
    pub error: Option<String>,
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
}

impl JobOutcome {
    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Worked => "worked",
            Self::Failed => "failed",
        }
    }
}
