//! What may happen to a table: steps that are drawn from a seed, each of which means something in any state.

use crate::maintenance_model::writer::ForeignWork;
use rand::{Rng, SeedableRng, rngs::StdRng};

/// Places where a fault or a kill meets the work of a server, or of this process. Each is passed whenever there
/// is work. Those of thinning are passed where a history becomes too long.
const POINTS: &[&str] = &[
    "flush.after_data_file",
    "flush.before_commit",
    "flush.lost_answer",
    "flush.after_commit",
    "compact.before_write",
    "compact.after_data_file",
    "compact.before_commit",
    "compact.lost_answer",
    "compact.after_commit",
    "retention.before_commit",
    "retention.after_commit",
    "expire.before_removal",
    "expire.after_removal",
    "orphans.before_mark",
    "orphans.after_mark",
    "orphans.after_queue",
    "erase.before_write",
    "erase.before_commit",
    "erase.after_commit",
    "erase.after_removal",
    "erase.after_deletion",
    "erase.before_done",
    "obsolete.after_deletion",
];
/// Maintenance that an operator runs by hand, the first more often.
const JOBS: &[&str] = &["compact", "compact", "compact-hour", "compact-day", "expire", "orphans"];
/// The hours that may pass: within a grace period, and beyond all of them.
const HOURS: &[i64] = &[1, 3, 25, 49];
/// Steps by which there is a table: without them others fail for that reason.
pub(crate) const FIRST_STEPS: usize = 2;
/// Most events of a step.
const EVENTS_MAX: u32 = 50;

/// What others do between a client's read and its commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Late {
    /// Files are merged.
    ForCompaction,
    /// Rows are committed.
    ForRows,
}

/// One step. What it picks is taken from what is there.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// Events are sent, half of them of an earlier day when they are late.
    Append { events: u32, types: u32, days_late: i64 },
    /// Events are sent again.
    Repeat,
    /// The log is committed.
    Commit,
    /// A snapshot gets a branch or a tag.
    Name { kind: &'static str, pick: usize },
    /// A branch or tag goes.
    DropName { pick: usize },
    /// Files are merged, or what nothing needs goes.
    Run { job: &'static str },
    /// The rows of one sender are erased.
    Erase { pick: usize },
    /// Rows of a type that are old enough go.
    Retain,
    /// Another engine commits.
    Foreign { work: ForeignWork, on_branch: bool, late: Option<Late>, seed: u64 },
    /// Somebody tries to move `main` back.
    Rollback { pick: usize },
    /// An admin removes a snapshot.
    Expire { pick: usize },
    /// Time passes, and obsolete files are deleted.
    Wait { hours: i64 },
    /// The server ends in good order, and a new one starts.
    Restart,
    /// Work fails at a place.
    Fail { point: &'static str },
    /// The process is killed at a place.
    Kill { point: &'static str },
    /// The history becomes too long, is thinned, and what only that needed is deleted.
    Overgrow,
}

/// The steps of a seed.
pub(crate) fn steps(seed: u64, count: usize) -> Vec<Step> {
    let random = &mut StdRng::seed_from_u64(seed);
    let first: [Step; FIRST_STEPS] =
        [Step::Append { events: 10, types: 2, days_late: 0 }, Step::Commit];
    let mut steps = Vec::from(first);
    while steps.len() < count {
        steps.push(any(random));
    }
    steps
}

fn one_of<T: Copy>(random: &mut StdRng, choices: &[T]) -> T {
    choices[random.random_range(0..choices.len())]
}

fn any(random: &mut StdRng) -> Step {
    let pick = random.random_range(0..1_000);
    match random.random_range(0..100) {
        0..22 => Step::Append {
            events: random.random_range(1..=EVENTS_MAX),
            types: random.random_range(1..4),
            days_late: one_of(random, &[0, 0, 1, 3]),
        },
        22..24 => Step::Erase { pick },
        24..27 => Step::Repeat,
        27..44 => Step::Commit,
        44..46 => Step::Retain,
        46..52 => Step::Name { kind: one_of(random, &["tag", "branch"]), pick },
        52..54 => Step::DropName { pick },
        54..64 => Step::Run { job: one_of(random, JOBS) },
        64..80 => foreign(random),
        80..81 => Step::Rollback { pick },
        81..84 => Step::Expire { pick },
        84..90 => Step::Wait { hours: one_of(random, HOURS) },
        90..93 => Step::Restart,
        93..96 => Step::Fail { point: one_of(random, POINTS) },
        _ => Step::Kill { point: one_of(random, POINTS) },
    }
}

fn foreign(random: &mut StdRng) -> Step {
    let works = [
        ForeignWork::Copy,
        ForeignWork::DeleteRows,
        ForeignWork::DeleteRows,
        ForeignWork::RemoveFile,
        ForeignWork::Update,
    ];
    let work = one_of(random, &works);
    let late = one_of(random, &[None, None, Some(Late::ForCompaction), Some(Late::ForRows)]);
    Step::Foreign { work, on_branch: random.random_ratio(1, 4), late, seed: random.random() }
}
