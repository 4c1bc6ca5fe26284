//! The time of day, held against the time that passes, and passed in so that tests can set it.
//!
//! Its one invariant: what the time of day jumps by within a moment is not believed. Until it has
//! stayed there for [`HELD`], the time goes on from where it was, so nothing is dated or expired by
//! a clock that was wrong for seconds. What passed since a process started never jumps at all.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicI64, Ordering},
};
use tokio::time::{Duration, Instant};

/// A clock that is set by less than this is followed at once.
const STEP_US: i64 = 10_000_000;
/// How long the time of day has to stay where it jumped to.
const HELD: Duration = Duration::from_secs(300);
/// Has the seconds since the machine started, also those that it slept through.
const UPTIME: &str = "/proc/uptime";

/// Where the wall-clock time comes from. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock {
    source: ClockSource,
    held: Arc<Mutex<ClockOffset>>,
}

#[derive(Clone, Debug)]
enum ClockSource {
    /// When the process began to look, and how long the machine had slept by then.
    System {
        start: Instant,
        slept_us: i64,
    },
    Manual {
        wall_us: Arc<AtomicI64>,
        passed_us: Arc<AtomicI64>,
    },
}

/// What is believed of the time of day.
#[derive(Debug, Default)]
struct ClockOffset {
    /// By how much it is ahead of the time that passed.
    offset_us: Option<i64>,
    /// Where it jumped to, and when that was noticed, in time that passed.
    jump: Option<(i64, i64)>,
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        let start = Instant::now();
        Self::of(ClockSource::System { start, slept_us: slept_us(start).unwrap_or(0) })
    }

    /// A clock that stands still until [`Clock::advance_ms`] moves it.
    #[must_use]
    pub fn manual(start_ms: i64) -> Self {
        let wall_us = Arc::new(AtomicI64::new(start_ms * 1000));
        Self::of(ClockSource::Manual { wall_us, passed_us: Arc::default() })
    }

    fn of(source: ClockSource) -> Self {
        let clock = Self { source, held: Arc::default() };
        // What it says now is what later jumps are seen by.
        let _start = clock.now_us();
        clock
    }

    /// Milliseconds since 1970-01-01 UTC.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        self.now_us() / 1000
    }

    /// Microseconds since 1970-01-01 UTC, the precision of the tables' timestamps.
    #[must_use]
    pub fn now_us(&self) -> i64 {
        let (wall_us, passed_us) = (self.source.wall_us(), self.source.passed_us());
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.resolve(wall_us, passed_us, || self.source.slept_us())
    }

    /// Milliseconds that passed since this clock was made; no change of the time of day shows in it.
    #[must_use]
    pub fn passed_ms(&self) -> i64 {
        self.source.passed_us() / 1000
    }

    /// Moves a manual clock forward; does nothing to the system clock.
    pub fn advance_ms(&self, by_ms: i64) {
        self.jump_ms(by_ms);
        if let ClockSource::Manual { passed_us, .. } = &self.source {
            passed_us.fetch_add(by_ms * 1000, Ordering::SeqCst);
        }
    }

    /// Sets a manual clock's time of day that much later (or earlier), while no time passes.
    pub fn jump_ms(&self, by_ms: i64) {
        if let ClockSource::Manual { wall_us, .. } = &self.source {
            wall_us.fetch_add(by_ms * 1000, Ordering::SeqCst);
        }
    }
}

impl ClockSource {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    fn wall_us(&self) -> i64 {
        match self {
            Self::System { .. } => {
                let since = std::time::SystemTime::now()
                    .duration_since(std::time::UNIX_EPOCH)
                    .expect("the machine's clock is set after 1970");
                i64::try_from(since.as_micros()).expect("the year is below 294 000")
            }
            Self::Manual { wall_us, .. } => wall_us.load(Ordering::SeqCst),
        }
    }

    fn passed_us(&self) -> i64 {
        match self {
            Self::System { start, .. } => micros(start.elapsed()),
            Self::Manual { passed_us, .. } => passed_us.load(Ordering::SeqCst),
        }
    }

    /// How long the machine slept since the start: for so long no time passed here.
    fn slept_us(&self) -> i64 {
        match self {
            Self::System { start, slept_us: before } => {
                slept_us(*start).map_or(0, |slept| slept - before)
            }
            Self::Manual { .. } => 0,
        }
    }
}

impl ClockOffset {
    fn resolve(&mut self, wall_us: i64, passed_us: i64, slept_us: impl Fn() -> i64) -> i64 {
        let offset_us = wall_us - passed_us;
        let is_at = |expected: i64| (offset_us - expected).abs() <= STEP_US;
        let kept_us = *self.offset_us.get_or_insert(offset_us);
        let is_believed = is_at(kept_us)
            || match self.jump {
                Some((to_us, since_us)) if is_at(to_us) => micros(HELD) <= passed_us - since_us,
                _ => {
                    let by_s = (offset_us - kept_us) / 1_000_000;
                    self.jump = Some((offset_us, passed_us));
                    tracing::warn!(
                        by_s,
                        held_s = HELD.as_secs(),
                        "the machine's clock jumped; until it stays there, time continues from its \
                         previous value"
                    );
                    false
                }
            };
        if is_believed {
            if self.jump.take().is_some() && !is_at(kept_us) {
                tracing::warn!(
                    "the machine's clock stayed where it jumped to and is followed again"
                );
            }
            self.offset_us = Some(offset_us);
            return wall_us;
        }
        // A machine that slept has the right time at once.
        if let Some((_, since_us)) = self.jump
            && since_us == passed_us
            && is_at(kept_us + slept_us())
        {
            self.offset_us = Some(offset_us);
            self.jump = None;
            return wall_us;
        }
        kept_us + passed_us
    }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

/// By how much more the machine's age grew than the time that passed since `start`.
fn slept_us(start: Instant) -> Option<i64> {
    let text = std::fs::read_to_string(UPTIME).ok()?;
    let age_s: f64 = text.split_whitespace().next()?.parse().ok()?;
    Some((age_s * 1e6) as i64 - micros(start.elapsed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 86_400_000;
    const NOW_MS: i64 = 1_790_000_000_000;

    #[test]
    fn a_jump_is_not_believed_until_it_has_stayed() {
        for by_ms in [8 * DAY_MS, -8 * DAY_MS, 400 * DAY_MS, 60_000] {
            let clock = Clock::manual(NOW_MS);
            clock.jump_ms(by_ms);
            assert_eq!(clock.now_ms(), NOW_MS);
            clock.advance_ms(4000);
            assert_eq!(clock.now_ms(), NOW_MS + 4000);
            clock.jump_ms(-by_ms);
            assert_eq!(clock.now_ms(), NOW_MS + 4000);
            // Another one begins anew, and stays.
            clock.jump_ms(by_ms);
            assert_eq!(clock.now_ms(), NOW_MS + 4000);
            clock.advance_ms(299_000);
            assert_eq!(clock.now_ms(), NOW_MS + 303_000);
            clock.advance_ms(2000);
            assert_eq!(clock.now_ms(), NOW_MS + 305_000 + by_ms);
            assert_eq!(clock.passed_ms(), 305_000);
        }
    }

    #[test]
    fn a_clock_that_is_set_a_little_is_followed() {
        let clock = Clock::manual(NOW_MS);
        clock.jump_ms(-9000);
        assert_eq!(clock.now_ms(), NOW_MS - 9000);
        clock.jump_ms(9000);
        assert_eq!(clock.now_ms(), NOW_MS);
    }

    #[test]
    fn a_machine_that_slept_has_the_right_time_at_once() {
        let mut held = ClockOffset::default();
        assert_eq!(held.resolve(100, 0, || 0), 100);
        let slept_us = 3_600_000_000;
        let now_us = 100 + slept_us + 5_000_000;
        assert_eq!(held.resolve(now_us, 5_000_000, || slept_us), now_us);
        assert_eq!(held.resolve(now_us + 1, 5_000_001, || slept_us), now_us + 1);
    }
}
