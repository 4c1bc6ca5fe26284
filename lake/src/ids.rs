//! Identifiers that the server mints: event ids, request ids, data file names.

use crate::clock::Clock;
use std::sync::{Arc, Mutex, PoisonError};
use ulid::Ulid;

/// Mints ULIDs: 26 characters, unique, and sorted by time of minting within one process.
#[derive(Clone, Debug)]
pub struct IdGenerator {
    clock: Clock,
    last: Arc<Mutex<Ulid>>,
}

impl IdGenerator {
    /// Ids stamped with `clock`'s time.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, last: Arc::new(Mutex::new(Ulid::nil())) }
    }

    /// The next id, greater than every one this value minted before.
    #[must_use]
    pub fn mint(&self) -> Ulid {
        let now_ms = u64::try_from(self.clock.now_ms()).unwrap_or(0);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = Ulid::from_parts(now_ms, rand::random::<u128>() & ((1 << 80) - 1));
        // Within one millisecond, or when the clock steps back, counting on keeps the order.
        *last = if last.0 < fresh.0 { fresh } else { Ulid(last.0 + 1) };
        *last
    }
    /// The first of a run of ids, `n`th is this plus `n`, for less than 2^79 of them.
    ///
    /// [`IdGenerator::mint`] counts on within a millisecond, so a run that began at its value would
    /// meet the next one; this one begins at a random place, low enough not to run over.
    #[must_use]
    pub fn first_of_run(&self) -> Ulid {
        Ulid::from_parts(self.mint().timestamp_ms(), rand::random::<u128>() & ((1 << 79) - 1))
    }
}

#[cfg(test)]
mod tests;
