//! Fuzz tests: many mutations of valid inputs, each made from a seed of its own.
//!
//! A test runs the same bounded number of cases each time. A case that fails is printed with its
//! seed and its input; `FUZZ_SEED=<seed>` runs that case alone, and `FUZZ_SECONDS=<n>` runs new
//! cases for that long instead: `FUZZ_SECONDS=600 cargo test --workspace fuzz -- --test-threads 2`.

mod bytes;
mod json;

pub use bytes::mutate as mutate_bytes;
pub use json::mutate as mutate_json;
pub use rand::{Rng, SeedableRng, rngs::StdRng};

use std::{
    fmt::Debug,
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

/// Longest input that is printed whole.
const SHOWN_BYTES_MAX: usize = 4 << 10;

/// Makes `cases` inputs and checks each; `check` panics on what must not be.
///
/// # Panics
/// With the seed and the input of the first case that fails.
#[expect(clippy::panic, reason = "this is how a test fails")]
pub fn run<I: Debug>(
    cases: u64,
    mut make: impl FnMut(&mut StdRng) -> I,
    mut check: impl FnMut(&I, &mut StdRng),
) {
    let mut one = |seed: u64| {
        let mut random = StdRng::seed_from_u64(seed);
        let input = make(&mut random);
        if catch_unwind(AssertUnwindSafe(|| check(&input, &mut random))).is_err() {
            let mut shown = format!("{input:?}");
            if SHOWN_BYTES_MAX < shown.len() {
                shown.truncate(shown.floor_char_boundary(SHOWN_BYTES_MAX));
                shown.push_str(" …");
            }
            panic!("a case failed; run it alone with FUZZ_SEED={seed}; its input is {shown}");
        }
    };
    match (setting("FUZZ_SEED"), setting("FUZZ_SECONDS")) {
        (Some(seed), _) => one(seed),
        (None, None) => (0..cases).for_each(one),
        (None, Some(seconds)) => {
            let end = now() + Duration::from_secs(seconds);
            let mut seeds = rand::rng();
            while now() < end {
                one(seeds.random());
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a test is told by its environment how long to run")]
fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect("FUZZ_SEED and FUZZ_SECONDS are whole numbers"))
}

#[expect(clippy::disallowed_methods, reason = "a long run ends by the clock on the wall")]
fn now() -> Instant {
    Instant::now()
}

/// One of `items`, which are not none.
///
/// # Panics
/// There are none.
pub fn pick<'a, T>(random: &mut StdRng, items: &'a [T]) -> &'a T {
    &items[random.random_range(0..items.len())]
}

#[cfg(test)]
mod tests;
