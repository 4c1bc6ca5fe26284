//! Compaction by hand, and of hours and days that are over at its times.
//!
//! By hand it goes as fast as it can, because somebody waits, and takes files of other engines, too. At its
//! times it takes the job's share of a processor, and leaves those files.

use crate::maintenance::{
    compaction::{Compaction, CompactionError, CompactionRequest, RunSpeed},
    planned::{PlannedJob, RunRequest},
    progress::RunProgress,
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
        self.0.run(&asked(CompactionMode::Now, RunSpeed::Full, request)).await
    }
}

/// The days that are over.
#[derive(Clone, Debug)]
pub struct CompactDays {
    compaction: Compaction,
    speed: RunSpeed,
}

impl CompactDays {
    /// As it runs at its times: at the job's share of a processor.
    #[must_use]
    pub fn at_share(compaction: Compaction) -> Self {
        Self { compaction, speed: RunSpeed::Share }
    }

    /// As it runs by hand: as fast as it goes.
    #[must_use]
    pub fn at_full_speed(compaction: Compaction) -> Self {
        Self { compaction, speed: RunSpeed::Full }
    }
}

impl PlannedJob for CompactDays {
    const NAME: &'static str = "compact-day";
    type Error = CompactionError;

    async fn run(&self, request: &RunRequest) -> Result<JobReport, CompactionError> {
        let request = asked(CompactionMode::ClosedDays, self.speed, request);
        self.compaction.run_at(self.speed, &request).await
    }
}

/// The hours that are over.
#[derive(Clone, Debug)]
pub struct CompactHours {
    compaction: Compaction,
    speed: RunSpeed,
}

impl CompactHours {
    /// As it runs at its times: at the job's share of a processor.
    #[must_use]
    pub fn at_share(compaction: Compaction) -> Self {
        Self { compaction, speed: RunSpeed::Share }
    }

    /// As it runs by hand: as fast as it goes.
    #[must_use]
    pub fn at_full_speed(compaction: Compaction) -> Self {
        Self { compaction, speed: RunSpeed::Full }
    }
}

impl PlannedJob for CompactHours {
    const NAME: &'static str = "compact-hour";
    type Error = CompactionError;

    async fn run(&self, request: &RunRequest) -> Result<JobReport, CompactionError> {
        let request = asked(CompactionMode::ClosedHours, self.speed, request);
        self.compaction.run_at(self.speed, &request).await
    }
}

fn asked(mode: CompactionMode, speed: RunSpeed, request: &RunRequest) -> CompactionRequest {
    let RunRequest { levels, table, dry_run, condition } = request.clone();
    let (leaves_foreign, progress) = (speed == RunSpeed::Share, RunProgress::current());
    CompactionRequest { mode, levels, table, dry_run, leaves_foreign, condition, progress }
}
