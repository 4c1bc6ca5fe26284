//! How often the tables of collections follow their changes: at intervals, earlier once many events came, and no table
//! more often than its share of a processor allows.
//!
//! Its one invariant: how many events come moves a refresh forward, and what refreshes cost always moves it back.

use std::{collections::HashMap, time::Duration};
use tokio::time::Instant;

/// So many events since the last look bring the next one forward: whoever reads a collection folds those that its table
/// does not have.
const TAIL_EVENTS_MAX: u64 = 100_000;
/// Longest that a table rests after a refresh, whatever that took.
const REST_MAX: Duration = Duration::from_secs(3600);

/// How often tables are refreshed.
#[derive(Clone, Copy, Debug)]
pub struct RefreshRules {
    /// From one look at a namespace to the next one, and from the start to the first one.
    pub interval: Duration,
    /// The part of the time that the refreshes of one table take, above 0 and at most 1.
    pub cpu_share: f64,
}

/// When a namespace was looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LookTimes {
    looked: Option<Instant>,
    /// The last event of its table at the last look.
    tail_from: Option<u64>,
    /// Until when no tail brings the next look forward.
    rests_until: Option<Instant>,
}

impl LookTimes {
    /// Whether the interval is over.
    pub(super) fn is_time(self, rules: RefreshRules, started: Instant, now: Instant) -> bool {
        rules.interval <= now.saturating_duration_since(self.looked.unwrap_or(started))
    }

    /// Whether many events came since the last look, which has rested. The first call after it notes where they begin.
    pub(super) fn has_long_tail(&mut self, last_seq: u64, now: Instant) -> bool {
        let from = *self.tail_from.get_or_insert(last_seq);
        let rests = self.rests_until.is_some_and(|until| now < until);
        !rests && TAIL_EVENTS_MAX <= last_seq.saturating_sub(from)
    }

    /// Notes a look that begins.
    pub(super) fn begin(&mut self, now: Instant, last_seq: Option<u64>) {
        *self = Self { looked: Some(now), tail_from: last_seq, rests_until: None };
    }

    /// Notes that the look ended. Of many tables each rests for a short time, and a look at all of them for a long one.
    pub(super) fn end(&mut self, now: Instant, rules: RefreshRules) {
        let took = now.saturating_duration_since(self.looked.unwrap_or(now));
        self.rests_until = Some(now + rest_after(took, rules.cpu_share));
    }
}

/// The tables of a namespace that rest, and until when.
#[derive(Clone, Debug, Default)]
pub(super) struct TableRests(HashMap<String, Instant>);

impl TableRests {
    /// Forgets those that have rested.
    pub(super) fn end(&mut self, now: Instant) {
        self.0.retain(|_, until| now < *until);
    }

    /// Whether the table of a collection rests.
    pub(super) fn has(&self, collection: &str) -> bool {
        self.0.contains_key(collection)
    }

    /// Has a table rest whose refresh began and ended at these times.
    pub(super) fn begin(
        &mut self,
        collection: &str,
        (began, ended): (Instant, Instant),
        rules: RefreshRules,
    ) {
        let rest = rest_after(ended.saturating_duration_since(began), rules.cpu_share);
        if !rest.is_zero() {
            self.0.insert(collection.to_owned(), ended + rest);
        }
    }
}

/// For how long a table rests after a refresh that took so long, so that refreshes have this share of the time.
fn rest_after(took: Duration, share: f64) -> Duration {
    let seconds = took.as_secs_f64() * (1.0 - share) / share;
    Duration::try_from_secs_f64(seconds).map_or(REST_MAX, |rest| rest.min(REST_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: RefreshRules = RefreshRules { interval: Duration::from_secs(60), cpu_share: 0.1 };

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_table_rests_as_long_as_its_share_says() {
        for (took, share, rest) in
            [(0, 0.1, 0), (1, 0.1, 9), (10, 0.5, 10), (7, 1.0, 0), (600, 0.01, 3600)]
        {
            let rest_of = rest_after(Duration::from_secs(took), share);
            let differs = rest_of.abs_diff(Duration::from_secs(rest));
            assert!(differs < Duration::from_millis(1), "{took} s at {share}: {rest_of:?}");
        }
    }

    #[test]
    fn the_next_refresh_of_a_table_comes_once_it_has_rested() {
        let (start, mut rests) = (Instant::now(), TableRests::default());
        rests.begin("users", (start, after(start, 10)), RULES);
        rests.begin("orders", (after(start, 10), after(start, 11)), RULES);
        for (seconds, users, orders) in
            [(11, true, true), (19, true, true), (21, true, false), (99, true, false)]
        {
            rests.end(after(start, seconds));
            assert_eq!((rests.has("users"), rests.has("orders")), (users, orders), "{seconds} s");
        }
        rests.end(after(start, 101));
        assert!(!rests.has("users"));
        // All of the time is its own.
        let whole = RefreshRules { cpu_share: 1.0, ..RULES };
        rests.begin("users", (start, after(start, 10)), whole);
        assert!(!rests.has("users"));
    }

    #[test]
    fn a_namespace_is_looked_at_at_intervals_and_once_many_events_came() {
        let (start, mut looks) = (Instant::now(), LookTimes::default());
        assert!(!looks.is_time(RULES, start, after(start, 59)));
        assert!(looks.is_time(RULES, start, after(start, 60)));
        // What was there at the start is no tail.
        assert!(!looks.has_long_tail(5_000_000, start));
        assert!(!looks.has_long_tail(5_000_000 + TAIL_EVENTS_MAX - 1, start));
        assert!(looks.has_long_tail(5_000_000 + TAIL_EVENTS_MAX, start));
        looks.begin(after(start, 30), Some(5_100_000));
        assert!(!looks.is_time(RULES, start, after(start, 89)));
        assert!(looks.is_time(RULES, start, after(start, 90)));
        assert!(!looks.has_long_tail(5_100_001, after(start, 31)));
        assert!(looks.has_long_tail(5_100_000 + TAIL_EVENTS_MAX, after(start, 31)));
        // After a look that did not ask for it, the tail begins with the next event that is seen.
        looks.begin(after(start, 90), None);
        assert!(!looks.has_long_tail(9_000_000, after(start, 91)));
        // A log that was restored gives numbers again.
        assert!(!looks.has_long_tail(7, after(start, 91)));
    }

    #[test]
    fn no_tail_brings_a_look_forward_while_the_last_one_rests() {
        let (start, mut looks) = (Instant::now(), LookTimes::default());
        looks.begin(start, Some(0));
        looks.end(after(start, 10), RULES);
        assert!(!looks.has_long_tail(TAIL_EVENTS_MAX, after(start, 99)));
        assert!(looks.has_long_tail(TAIL_EVENTS_MAX, after(start, 101)));
        // The interval does not wait for that.
        assert!(looks.is_time(RULES, start, after(start, 60)));
        // The next look has a rest of its own.
        looks.begin(after(start, 60), Some(0));
        assert!(looks.has_long_tail(TAIL_EVENTS_MAX, after(start, 61)));
    }
}
