//! The time by which ids grow old.
//!
//! Ids are forgotten by the time that passed while a server ran, so that no clock that is wrong, at
//! a start or later, makes it forget all of them at once. Its one invariant: what seems to have
//! passed while none ran counts only where it is plausible, and then for half the window at most.

use icecore_lake::clock::Clock;
use tracing::warn;

/// A stop that seems longer than this part of the window says more of the clock than of the stop.
const STOP_PART: i64 = 2;

/// The age of ids, in ms since 1970.
#[derive(Clone, Debug)]
pub(super) struct IdClock {
    clock: Clock,
    /// The time at the start by which ids are forgotten, never later than that of the day.
    start_ms: i64,
    /// The one that new ids are given, never earlier than what earlier ids have.
    stamp_ms: i64,
    started_ms: i64,
}

impl IdClock {
    /// From the last age that was written down; 0 when there was none.
    pub(super) fn start(clock: &Clock, seen_ms: i64, window_ms: i64) -> Self {
        let now_ms = clock.now_ms();
        let stopped_ms = now_ms.saturating_sub(seen_ms);
        let start_ms = if seen_ms == 0 || stopped_ms <= window_ms / STOP_PART {
            now_ms
        } else {
            warn!(
                stopped_s = stopped_ms / 1000,
                "by the machine's clock this server was stopped for more than half the dedup \
                 window: that time does not count, and ids are remembered longer"
            );
            seen_ms
        };
        if stopped_ms < 0 && seen_ms != 0 {
            warn!(
                behind_s = -stopped_ms / 1000,
                "the machine's clock is behind the last time that this server recorded"
            );
        }
        let stamp_ms = now_ms.max(seen_ms);
        Self { clock: clock.clone(), start_ms, stamp_ms, started_ms: clock.passed_ms() }
    }

    /// By which ids are forgotten.
    pub(super) fn now_ms(&self) -> i64 {
        self.start_ms.saturating_add(self.passed_ms())
    }

    /// That new ids are given.
    pub(super) fn stamp_ms(&self) -> i64 {
        self.stamp_ms.saturating_add(self.passed_ms())
    }

    fn passed_ms(&self) -> i64 {
        self.clock.passed_ms() - self.started_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 86_400_000;
    const NOW_MS: i64 = 1_790_000_000_000;

    /// What the age is two days after a start at which the clock says so much more than was seen.
    fn check(stopped_ms: i64, expected_ms: i64, stamp_ms: i64) {
        let clock = Clock::manual(NOW_MS + stopped_ms);
        let age = IdClock::start(&clock, NOW_MS, 7 * DAY_MS);
        clock.advance_ms(2 * DAY_MS);
        clock.jump_ms(400 * DAY_MS);
        let _noticed = clock.now_ms();
        assert_eq!(age.now_ms(), NOW_MS + expected_ms + 2 * DAY_MS, "after {stopped_ms} ms");
        assert_eq!(age.stamp_ms(), NOW_MS + stamp_ms + 2 * DAY_MS, "after {stopped_ms} ms");
    }

    #[test]
    fn ids_age_by_what_passed_whatever_the_clock_says() {
        check(0, 0, 0);
        check(DAY_MS, DAY_MS, DAY_MS);
        check(8 * DAY_MS, 0, 8 * DAY_MS);
        check(20_000 * DAY_MS, 0, 20_000 * DAY_MS);
        // Behind: what is there stays, and what comes does not go before it.
        check(-8 * DAY_MS, -8 * DAY_MS, 0);
    }
}
