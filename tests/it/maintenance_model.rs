//! Random steps on one server, held against a model of what its table has to show: events, commits of the
//! service and of another engine, branches and tags, compaction, thinning, expiry, retention, erasures, deletion
//! of files, faults, kills and restarts on a clock that is set by hand.
//!
//! Its one invariant: after each step SQL shows every acknowledged row as often as it has to, every retained
//! snapshot shows what it showed when it was made, and every file that one of them names is there.

pub(crate) mod disk;
mod model;
mod steps;
pub(crate) mod world;
pub(crate) mod writer;

use futures::{FutureExt, StreamExt, stream};
use std::{
    any::Any,
    ffi::OsStr,
    ops::Range,
    panic::AssertUnwindSafe,
    sync::atomic::{AtomicUsize, Ordering},
};
use steps::{FIRST_STEPS, Step, steps};
use world::{RunCounts, World};

/// Runs at a time.
const RUNS_AT_ONCE: usize = 2;
/// Most runs that look for fewer steps which fail too.
const SHRINKS_MAX: usize = 25;

/// What each run has: by then the first rows are old.
const OF_EACH_RUN: [Step; 3] = [Step::Wait { hours: 49 }, Step::Retain, Step::Erase { pick: 0 }];

/// Which runs there are, and how long.
#[derive(Clone)]
struct RunLength {
    seeds: Range<u64>,
    steps: usize,
    /// Every so many runs one has a history that becomes too long, which takes hundreds of commits.
    overgrown: u64,
}

/// Why a run ended early.
struct FailedRun {
    /// How many steps had passed.
    passed: usize,
    cause: String,
}

impl RunLength {
    fn steps(&self, seed: u64) -> Vec<Step> {
        let mut steps = steps(seed, self.steps - OF_EACH_RUN.len());
        let half = self.steps / 2;
        drop(steps.splice(half..half, OF_EACH_RUN));
        if (seed + 1).is_multiple_of(self.overgrown) {
            steps.insert(self.steps * 3 / 4, Step::Overgrow);
        }
        steps
    }
}

async fn run(steps: &[Step]) -> Result<RunCounts, FailedRun> {
    let passed = AtomicUsize::new(0);
    let all = async {
        let mut world = Box::pin(World::start()).await;
        for step in steps {
            Box::pin(world.step(*step)).await?;
            passed.fetch_add(1, Ordering::SeqCst);
        }
        Box::pin(world.end()).await
    };
    let ended: Result<Result<RunCounts, String>, _> =
        AssertUnwindSafe(Box::pin(all)).catch_unwind().await;
    let cause = match ended {
        Ok(Ok(counts)) => return Ok(counts),
        Ok(Err(cause)) => cause,
        Err(panic) => text_of(panic.as_ref()),
    };
    Err(FailedRun { passed: passed.load(Ordering::SeqCst), cause })
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

/// Steps that fail too and of which none can be left out, as far as some tries tell.
async fn shrunk(steps: &[Step], failed: &FailedRun) -> Vec<Step> {
    let mut left = steps[..steps.len().min(failed.passed + 1)].to_vec();
    let last = left.len().saturating_sub(1);
    for at in (FIRST_STEPS..last).rev().take(SHRINKS_MAX) {
        let mut fewer = left.clone();
        fewer.remove(at);
        if run(&fewer).await.is_err() {
            left = fewer;
        }
    }
    left
}

#[expect(clippy::print_stdout, reason = "the long form reports what it did")]
async fn check_runs(length: &RunLength) -> RunCounts {
    let runs = length.seeds.clone().map(|seed| async move {
        let steps = length.steps(seed);
        let ended = run(&steps).await;
        (seed, steps, ended)
    });
    let mut runs = stream::iter(runs).buffer_unordered(RUNS_AT_ONCE);
    let mut all = RunCounts::default();
    while let Some((seed, steps, ended)) = runs.next().await {
        match ended {
            Ok(counts) => {
                println!("seed {seed}: {} steps, {counts:?}", steps.len());
                all.add(counts);
            }
            Err(failed) => {
                let fewer = shrunk(&steps, &failed).await;
                let FailedRun { passed, cause } = failed;
                panic!(
                    "{cause}\nin step {passed} of seed {seed}: {steps:#?}\n\nfewer steps fail too: {fewer:#?}"
                );
            }
        }
    }
    all
}

/// The seeds of the long form: all, or those that `LARGE` names as `FIRST..END`.
fn large_seeds(large: &OsStr) -> Range<u64> {
    let ends = large.to_str().and_then(|text| text.split_once(".."));
    let ends = ends.and_then(|(first, end)| first.parse().ok().zip(end.parse().ok()));
    ends.map_or(0..300, |(first, end)| first..end)
}

/// The short form, and with `LARGE=1` a long one, which prints what it did:
/// `LARGE=1 cargo test --release --test it -- random_steps --nocapture`. `LARGE=100..150` has a part of it.
#[tokio::test(flavor = "multi_thread")]
async fn random_steps_lose_and_double_no_row_of_any_retained_snapshot() {
    let length = match std::env::var_os("LARGE") {
        Some(large) => RunLength { seeds: large_seeds(&large), steps: 60, overgrown: 4 },
        None => RunLength { seeds: 0..6, steps: 40, overgrown: 6 },
    };
    let counts = Box::pin(check_runs(&length)).await;
    let RunCounts { foreign, merges, faults, thinned, erased, retained } = counts;
    // Runs in which nothing happens prove nothing.
    assert!(0 < foreign && 0 < merges && 0 < faults && 0 < thinned, "{counts:?}");
    assert!(0 < erased && 0 < retained, "{counts:?}");
}
