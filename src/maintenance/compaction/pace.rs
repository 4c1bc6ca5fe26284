//! How fast work is done: pauses in proportion to it.

use crate::{maintenance::compaction::CompactionError, tasks::ShutdownSignal};
use std::time::Duration;
use tokio::time::Instant;

/// Longest pause; a piece of work that no pause divides, such as reading the deletes of a step, takes seconds.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Shorter pauses are put together: a timer is no finer.
const PAUSE_MIN: Duration = Duration::from_millis(2);

/// Work that takes a share of a processor at most, and ends when the server stops.
#[derive(Debug)]
pub(super) struct WorkPace {
    /// The pause for so much work.
    per_work: f64,
    since: Instant,
    stopping: ShutdownSignal,
}

impl WorkPace {
    /// Work of this share, above 0 and at most 1.
    pub(super) fn new(share: f64, stopping: ShutdownSignal) -> Self {
        Self { per_work: (1.0 - share).max(0.0) / share, since: Instant::now(), stopping }
    }

    /// Pauses for what was done since the last pause.
    pub(super) async fn rest(&mut self) -> Result<(), CompactionError> {
        if self.stopping.is_asked() {
            return Err(CompactionError::Stopped);
        }
        let pause = self.since.elapsed().mul_f64(self.per_work).min(PAUSE_MAX);
        if pause < PAUSE_MIN {
            return Ok(());
        }
        // Cancel-safe: a sleep has no state.
        tokio::select! {
            () = tokio::time::sleep(pause) => (),
            () = self.stopping.asked() => return Err(CompactionError::Stopped),
        }
        self.since = Instant::now();
        Ok(())
    }
}
