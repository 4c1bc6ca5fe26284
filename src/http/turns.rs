//! Turns of writers: who reads a state and then writes on it waits for whoever does the same to that state.
//!
//! One server owns the log, so turns in its memory are enough. Their number is fixed: two names may share one, and
//! then wait for each other without need. A writer takes all of its turns at once and in one order, so none waits in a
//! circle.

use crate::http::error::ApiError;
use icecore_schemas::error_code::ErrorCode;
use std::collections::BTreeSet;
use tokio::sync::{Semaphore, SemaphorePermit};
use xxhash_rust::xxh3::xxh3_64;

/// Turns, which names are spread over.
const TURNS: usize = 1024;
/// Most writers that have a turn or wait for one; more are refused.
const WRITERS_MAX: usize = 1024;

/// The turns of everything that is written on its state.
#[derive(Debug)]
pub(super) struct WriterTurns {
    turns: Vec<Semaphore>,
    places: Semaphore,
}

/// The turns of a writer, until they are dropped.
#[derive(Debug)]
pub(super) struct WriterTurn<'a> {
    _turns: Vec<SemaphorePermit<'a>>,
    _place: SemaphorePermit<'a>,
}

impl Default for WriterTurns {
    fn default() -> Self {
        let turns = (0..TURNS).map(|_| Semaphore::new(1)).collect();
        Self { turns, places: Semaphore::new(WRITERS_MAX) }
    }
}

impl WriterTurns {
    /// Waits for the turn of this name, behind those that came first.
    ///
    /// # Errors
    /// 429 where too many wait.
    pub(super) async fn take(&self, name: &[&str]) -> Result<WriterTurn<'_>, ApiError> {
        self.take_places(BTreeSet::from([place(name)])).await
    }

    /// The same for several names: the writer has all of their turns, and waits as one.
    ///
    /// # Errors
    /// 429 where too many wait.
    pub(super) async fn take_all(&self, names: &[[&str; 3]]) -> Result<WriterTurn<'_>, ApiError> {
        self.take_places(names.iter().map(|name| place(name)).collect()).await
    }

    /// Takes turns in the order of their places.
    async fn take_places(&self, wanted: BTreeSet<usize>) -> Result<WriterTurn<'_>, ApiError> {
        let place = self.places.try_acquire().map_err(|_| {
            let text = format!("{WRITERS_MAX} writes wait for others already; send it again");
            ApiError::new(ErrorCode::TooManyRequests, text)
        })?;
        let mut turns = Vec::with_capacity(wanted.len());
        for turn in wanted {
            turns.push(self.turns[turn].acquire().await.expect("it is never closed"));
        }
        Ok(WriterTurn { _turns: turns, _place: place })
    }
}

/// The place of a name's turn.
fn place(name: &[&str]) -> usize {
    let place = usize::try_from(xxh3_64(&joined(name)) % TURNS as u64);
    place.expect("it is below the number of turns")
}

/// Texts as bytes that no other texts give.
pub(super) fn joined(texts: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for text in texts {
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text.as_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn a_name_has_one_turn_at_a_time_and_few_wait() {
        let turns = WriterTurns::default();
        let first = turns.take(&["users", "1"]).await.unwrap();
        assert!(turns.take(&["users", "1"]).now_or_never().is_none());
        assert!(turns.take(&["users", "2"]).now_or_never().is_some());
        drop(first);
        let _again = turns.take(&["users", "1"]).await.unwrap();
        let _all = turns.places.try_acquire_many(WRITERS_MAX as u32 - 1).unwrap();
        let refused = turns.take(&["users", "3"]).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::TooManyRequests);
    }

    #[tokio::test]
    async fn who_takes_several_turns_waits_for_all_of_them() {
        let turns = WriterTurns::default();
        let names = [["shop", "users", "2"], ["shop", "users", "1"], ["shop", "users", "2"]];
        let all = turns.take_all(&names).await.unwrap();
        for key in ["1", "2"] {
            assert!(turns.take(&["shop", "users", key]).now_or_never().is_none());
        }
        assert!(turns.take(&["shop", "users", "3"]).now_or_never().is_some());
        drop(all);
        let one = turns.take(&["shop", "users", "1"]).await.unwrap();
        assert!(turns.take_all(&names).now_or_never().is_none());
        drop(one);
        assert!(turns.take_all(&names).now_or_never().is_some());
        // As one writer, however many turns it has.
        let _others = turns.places.try_acquire_many(WRITERS_MAX as u32 - 1).unwrap();
        assert!(turns.take_all(&names).now_or_never().is_some_and(|taken| taken.is_ok()));
    }

    #[test]
    fn texts_are_told_apart_however_they_are_cut() {
        assert_ne!(joined(&["ab", "c"]), joined(&["a", "bc"]));
    }
}
