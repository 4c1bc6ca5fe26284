//! How fast work is done: pauses in proportion to it.

use crate::{
    maintenance::{compaction::CompactionError, pace::share_beside},
    tasks::ShutdownSignal,
};
use icecore_lake::load::{IngestLoad, WorkMark};
use std::time::Duration;
use tokio::{sync::watch, time::Instant};

/// Longest pause; a piece of work that no pause divides, such as reading the deletes of a step, takes seconds.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Shorter pauses are put together: a timer is no finer.
const PAUSE_MIN: Duration = Duration::from_millis(2);

/// Work that takes a share of a processor at most, less while ingest suffers from it, and ends when the
/// server stops.
#[derive(Debug)]
pub(super) struct WorkPace {
    share: f64,
    load: IngestLoad,
    /// None during a pause.
    mark: Option<WorkMark>,
    /// What is left of earlier pauses.
    pub(super) owed: Duration,
    since: Instant,
    stopping: ShutdownSignal,
    /// How many wait for the work to end: there is no pause while somebody does.
    waiting: watch::Receiver<usize>,
}

impl WorkPace {
    /// Work of this share, above 0 and at most 1.
    pub(super) fn new(
        share: f64,
        load: &IngestLoad,
        stopping: ShutdownSignal,
        waiting: watch::Receiver<usize>,
    ) -> Self {
        let (owed, since, mark) = (Duration::ZERO, Instant::now(), Some(load.work()));
        Self { share, load: load.clone(), mark, owed, since, stopping, waiting }
    }

    /// Notes what was done since the last pause: the next one is longer.
    pub(super) fn note(&mut self) {
        let now = Instant::now();
        let share = share_beside(self.share, self.load.reading());
        let owed = self.owed + (now - self.since).mul_f64((1.0 - share).max(0.0) / share);
        (self.owed, self.since) = (owed.min(PAUSE_MAX), now);
    }

    /// Leaves out the time since then, which was spent waiting for others.
    pub(super) fn leave_out(&mut self) {
        self.since = Instant::now();
    }

    /// Pauses for what was done since the last pause, but not beyond `until`: the next one is longer then.
    pub(super) async fn rest(&mut self, until: Instant) -> Result<(), CompactionError> {
        if self.stopping.is_asked() {
            return Err(CompactionError::Stopped);
        }
        self.note();
        let now = self.since;
        let pause = self.owed.min(until.saturating_duration_since(now));
        let is_awaited = 0 < *self.waiting.borrow();
        if is_awaited || pause < PAUSE_MIN {
            return Ok(());
        }
        self.mark = None;
        // Cancel-safe: none of these has a state of its own.
        tokio::select! {
            () = tokio::time::sleep(pause) => (),
            () = awaited(&mut self.waiting) => (),
            () = self.stopping.asked() => return Err(CompactionError::Stopped),
        }
        self.since = Instant::now();
        self.owed = self.owed.saturating_sub(self.since - now);
        self.mark = Some(self.load.work());
        Ok(())
    }
}

async fn awaited(waiting: &mut watch::Receiver<usize>) {
    // The sender lives as long as compaction; without it nobody waits.
    drop(waiting.wait_for(|waiting| 0 < *waiting).await);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::Tasks;

    #[tokio::test]
    async fn waiting_for_others_is_no_work() {
        let (_waits, waiting) = watch::channel(0);
        let mut pace =
            WorkPace::new(0.25, &IngestLoad::default(), Tasks::default().stopping(), waiting);
        pace.since = Instant::now() - Duration::from_secs(1);
        pace.note();
        // Without ingest the share is twice as large.
        let owed = pace.owed;
        assert!(Duration::from_secs(1) <= owed);
        pace.since = Instant::now() - Duration::from_secs(30);
        pace.leave_out();
        pace.note();
        assert!(pace.owed < owed + Duration::from_secs(15), "{:?}", pace.owed);
    }

    /// Were one of these to pause, it would take a minute.
    #[tokio::test]
    async fn no_pause_keeps_a_step_from_its_commit_or_somebody_waiting() {
        let (waits, waiting) = watch::channel(0);
        let mut pace =
            WorkPace::new(0.25, &IngestLoad::default(), Tasks::default().stopping(), waiting);
        let started = Instant::now();
        pace.owed = PAUSE_MAX;
        pace.rest(started).await.unwrap();
        assert_eq!(pace.owed, PAUSE_MAX, "it is made up later");
        waits.send_replace(1);
        pace.rest(started + PAUSE_MAX).await.unwrap();
        assert_eq!(pace.owed, PAUSE_MAX);
        assert!(started.elapsed() < PAUSE_MAX);
    }
}
