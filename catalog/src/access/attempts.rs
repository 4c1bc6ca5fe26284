//! How often somebody failed to log in lately: a bound on guessing and on the work it makes.

use super::lock;
use std::{collections::HashMap, sync::Mutex, time::Duration};
use tokio::time::Instant;

/// Most failures of one client id or one address within [`WINDOW`].
const FAILURES_MAX: u32 = 20;
/// How long failures count.
const WINDOW: Duration = Duration::from_secs(60);
/// Most client ids and addresses that are watched. Beyond it the oldest are forgotten.
const WATCHED_MAX: usize = 4096;

/// Failures by client id or address.
#[derive(Debug, Default)]
pub(crate) struct Attempts(Mutex<HashMap<String, Failures>>);

#[derive(Debug)]
struct Failures {
    count: u32,
    since: Instant,
}

impl Attempts {
    /// Whether none of `keys` failed too often.
    pub(crate) fn allow(&self, keys: &[String]) -> bool {
        let watched = lock(&self.0);
        let is_barred = |failures: &Failures| {
            FAILURES_MAX <= failures.count && failures.since.elapsed() < WINDOW
        };
        !keys.iter().filter_map(|key| watched.get(key)).any(is_barred)
    }

    /// Counts a failure of each of `keys`.
    pub(crate) fn failed(&self, keys: Vec<String>) {
        let mut watched = lock(&self.0);
        if WATCHED_MAX <= watched.len() + keys.len() {
            watched.retain(|_, failures| failures.since.elapsed() < WINDOW);
        }
        for key in keys {
            if WATCHED_MAX <= watched.len() && !watched.contains_key(&key) {
                let oldest = watched.iter().min_by_key(|(_, failures)| failures.since);
                let oldest = oldest.map(|(key, _)| key.clone());
                oldest.and_then(|oldest| watched.remove(&oldest));
            }
            let fresh = || Failures { count: 0, since: Instant::now() };
            let failures = watched.entry(key).or_insert_with(fresh);
            if WINDOW <= failures.since.elapsed() {
                *failures = fresh();
            }
            failures.count += 1;
        }
    }
}
