//! How busy ingest is, and whether the service's own work slows it down.
//!
//! Times of acknowledgements are told apart by whether work that has to yield went on then: those
//! without it are what the server does at this load when it is left alone. Older ones count less and
//! less. Its one invariant: what is kept does not grow, whatever the rate.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// After so long a time counts half.
const HALF_LIFE: Duration = Duration::from_secs(10);
/// Without an acknowledgement for so long, ingest is idle.
const IDLE_AFTER: Duration = Duration::from_secs(10);
/// Fewer times say nothing of the slowest of a hundred.
const SAMPLES_MIN: u32 = 100;
/// Classes of times: four to each doubling, from one microsecond to four minutes.
const CLASSES: usize = 28 * 4;

/// What ingest and the work beside it know of each other. Clones are of one server.
#[derive(Clone, Debug, Default)]
pub struct IngestLoad(Arc<LoadState>);

#[derive(Debug, Default)]
struct LoadState {
    /// How many pieces of work that have to yield go on.
    working: AtomicUsize,
    acks: Mutex<AckTimes>,
}

#[derive(Debug, Default)]
struct AckTimes {
    quiet: DecayedTimes,
    beside: DecayedTimes,
    /// The last estimate of the quiet ones that rested on enough of them.
    baseline: Option<Duration>,
    last: Option<Instant>,
}

/// What ingest looks like now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadReading {
    /// Whether nobody sends events.
    pub is_idle: bool,
    /// 99 of 100 acknowledgements took at most so long while no work went on beside them; none where
    /// there were too few to tell.
    pub quiet: Option<Duration>,
    /// The same of those beside work.
    pub beside: Option<Duration>,
}

/// While it lives, work goes on that acknowledgements may suffer from.
#[derive(Debug)]
pub struct WorkMark(Arc<LoadState>);

impl Drop for WorkMark {
    fn drop(&mut self) {
        self.0.working.fetch_sub(1, Ordering::Relaxed);
    }
}

impl IngestLoad {
    /// Notes that work begins.
    #[must_use]
    pub fn work(&self) -> WorkMark {
        self.0.working.fetch_add(1, Ordering::Relaxed);
        WorkMark(Arc::clone(&self.0))
    }

    /// Notes an acknowledgement that took so long.
    pub fn note_ack(&self, took: Duration) {
        let is_quiet = self.0.working.load(Ordering::Relaxed) == 0;
        self.acks().note(took, is_quiet, Instant::now());
    }

    /// What ingest looks like now.
    #[must_use]
    pub fn reading(&self) -> LoadReading {
        self.acks().reading(Instant::now())
    }

    fn acks(&self) -> MutexGuard<'_, AckTimes> {
        // Counts are right whatever a panic elsewhere left.
        self.0.acks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AckTimes {
    fn note(&mut self, took: Duration, is_quiet: bool, now: Instant) {
        let times = if is_quiet { &mut self.quiet } else { &mut self.beside };
        times.note(took, now);
        self.last = Some(now);
    }

    fn reading(&mut self, now: Instant) -> LoadReading {
        self.baseline = self.quiet.p99(now).or(self.baseline);
        let is_idle =
            self.last.is_none_or(|last| IDLE_AFTER <= now.saturating_duration_since(last));
        LoadReading { is_idle, quiet: self.baseline, beside: self.beside.p99(now) }
    }
}

/// Times by class, of which older ones count less.
#[derive(Debug)]
struct DecayedTimes {
    counts: [u32; CLASSES],
    /// When they were last halved.
    halved: Option<Instant>,
}

impl Default for DecayedTimes {
    fn default() -> Self {
        Self { counts: [0; CLASSES], halved: None }
    }
}

impl DecayedTimes {
    fn note(&mut self, took: Duration, now: Instant) {
        self.decay(now);
        let count = &mut self.counts[class_of(took)];
        *count = count.saturating_add(1);
    }

    /// The upper end of the class of the slowest of a hundred.
    fn p99(&mut self, now: Instant) -> Option<Duration> {
        self.decay(now);
        let all = self.counts.iter().fold(0_u32, |all, count| all.saturating_add(*count));
        if all < SAMPLES_MIN {
            return None;
        }
        let wanted = all - all / 100;
        let mut below = 0_u32;
        let is_reached = |count: &u32| {
            below = below.saturating_add(*count);
            wanted <= below
        };
        self.counts.iter().position(is_reached).map(upper_end)
    }

    fn decay(&mut self, now: Instant) {
        let halved = *self.halved.get_or_insert(now);
        let halvings = now.saturating_duration_since(halved).as_secs() / HALF_LIFE.as_secs();
        if halvings == 0 {
            return;
        }
        let shift = u32::try_from(halvings).unwrap_or(u32::MAX);
        for count in &mut self.counts {
            *count = count.checked_shr(shift).unwrap_or(0);
        }
        self.halved = Some(now);
    }
}

/// Four classes to each doubling.
fn class_of(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
    let doublings = micros.ilog2();
    let quarter = ((u128::from(micros) << 2) >> doublings) & 3;
    let class = doublings as usize * 4 + quarter as usize;
    class.min(CLASSES - 1)
}

fn upper_end(class: usize) -> Duration {
    let (doublings, quarter) = (class / 4, class % 4);
    Duration::from_micros(((5 + quarter as u64) << doublings).div_ceil(4))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_time_is_at_most_a_quarter_below_the_end_of_its_class() {
        for micros in [1_u64, 2, 3, 7, 8, 9, 100, 999, 1_000, 65_536, 1_000_000, 99_000_000] {
            let took = Duration::from_micros(micros);
            let end = upper_end(class_of(took));
            assert!(took <= end && end <= took.mul_f64(1.26) + millis(1), "{took:?} {end:?}");
        }
        assert_eq!(class_of(Duration::MAX), CLASSES - 1);
    }

    #[test]
    fn times_beside_work_are_told_apart_and_grow_old() {
        let (mut acks, start) = (AckTimes::default(), Instant::now());
        assert_eq!(acks.reading(start), LoadReading { is_idle: true, ..LoadReading::default() });
        for at in 0..1_000 {
            // One of fifty is slow where nothing is beside it, each is where something is.
            let quiet = if at % 50 == 0 { millis(8) } else { millis(1) };
            acks.note(quiet, true, start);
            acks.note(millis(40), false, start);
        }
        let reading = acks.reading(start);
        let is_about = |found: Option<Duration>, ms| {
            found.is_some_and(|found| millis(ms) <= found && found < millis(ms).mul_f64(1.26))
        };
        assert!(!reading.is_idle, "{reading:?}");
        assert!(is_about(reading.quiet, 8) && is_about(reading.beside, 40), "{reading:?}");
        // Few of them are left by then; the baseline stays what it was.
        let later = acks.reading(start + 5 * HALF_LIFE);
        assert!(later.is_idle, "{later:?}");
        assert_eq!((later.quiet, later.beside), (reading.quiet, None));
    }

    #[test]
    fn what_goes_on_decides_where_a_time_counts() {
        let load = IngestLoad::default();
        let mark = load.work();
        for _ in 0..SAMPLES_MIN {
            load.note_ack(millis(3));
        }
        assert!(load.reading().quiet.is_none() && load.reading().beside.is_some());
        drop(mark);
        for _ in 0..SAMPLES_MIN {
            load.note_ack(millis(3));
        }
        assert!(load.reading().quiet.is_some());
    }
}
