//! Compaction by hand, and of days that are over at its times.
//!
//! By hand it goes as fast as it can, because somebody waits; at its times it takes the job's share of a
//! processor.

use crate::maintenance::{
    compaction::{Compaction, CompactionError, CompactionRequest, RunSpeed},
    planned::{PlannedJob, RunRequest},
};
use icecore_lake::table::compaction::choice::CompactionMode;
use icecore_schemas::jobs::JobReport;

/// Everything that is worth it now, hot hours too: by hand alone.
#[derive(Clone, Debug)]
pub struct CompactNow(pub Compaction);

impl PlannedJob for CompactNow {
    const NAME: &'static str = "compact";
    type Error = CompactionError;

    async fn run(&self, request: &RunRequest) -> Result<JobReport, CompactionError> {
        self.0.run(&asked(CompactionMode::Now, request)).await
    }
}

/// The days that are over.
#[derive(Clone, Debug)]
pub struct CompactDays {
    compaction: Compaction,
    speed: RunSpeed,
}

impl CompactDays {
    /// At the job's share of a processor.
    #[must_use]
    pub fn at_share(compaction: Compaction) -> Self {
        Self { compaction, speed: RunSpeed::Share }
    }

    /// As fast as it goes.
    #[must_use]
    pub fn at_full_speed(compaction: Compaction) -> Self {
        Self { compaction, speed: RunSpeed::Full }
    }
}

impl PlannedJob for CompactDays {
    const NAME: &'static str = "compact-day";
    type Error = CompactionError;

    async fn run(&self, request: &RunRequest) -> Result<JobReport, CompactionError> {
        self.compaction.run_at(self.speed, &asked(CompactionMode::ClosedDays, request)).await
    }
}

fn asked(mode: CompactionMode, request: &RunRequest) -> CompactionRequest {
    let RunRequest { levels, table, dry_run } = request.clone();
    CompactionRequest { mode, levels, table, dry_run }
}
