//! Concurrent histories of a catalog, for tests alone: what clients ask for, what they are told,
//! and whether some order of it all is one that a catalog gives that does one thing at a time.
//!
//! A test runs clients that draw from [`any`], notes an [`Operation`] for each request, and gives
//! them to [`check`] with what the catalog's feed tells. How a catalog is called is the test's matter.

mod checker;

pub use checker::check;
pub use rand::{Rng, SeedableRng, rngs::StdRng};

/// Names of tables; a name is an index.
pub const NAMES: usize = 12;

/// What a client asks for. A mark is the id of the operation that leaves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The contents of a table.
    Read {
        /// The table's name.
        name: usize,
    },
    /// A new table.
    Create {
        /// Its name.
        name: usize,
        /// What tells it from others of that name.
        made: u64,
    },
    /// That a table is dropped.
    Drop {
        /// The table's name.
        name: usize,
    },
    /// That a table gets another name.
    Rename {
        /// The name that it has.
        from: usize,
        /// The name that it gets.
        to: usize,
    },
    /// A commit that adds a mark to a table.
    Commit {
        /// The table's name.
        name: usize,
        /// The mark.
        mark: u64,
    },
    /// A commit that adds a mark to both tables, or to none.
    CommitBoth {
        /// Two names.
        names: [usize; 2],
        /// The mark.
        mark: u64,
    },
}

/// What it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// It is done.
    Done,
    /// A table as it is read.
    Seen {
        /// Which creation made it.
        made: u64,
        /// The marks committed to it, in no order.
        marks: Vec<u64>,
    },
    /// A table that is needed is not there.
    Missing,
    /// The name is taken.
    Exists,
    /// It did not happen, for a reason that is not the catalog's state.
    NotDone,
    /// It may have happened, or may still happen.
    Unknown,
}

/// One operation of a history.
#[derive(Clone, Debug)]
pub struct Operation {
    /// The name under which it was asked for.
    pub id: u64,
    /// When it was asked for; times are those of a counter that all clients share.
    pub called: u64,
    /// When it was told.
    pub returned: u64,
    /// What was asked for.
    pub asked: Asked,
    /// What was told.
    pub told: Told,
}

/// What a client may ask for next, in an operation of this id.
pub fn any(random: &mut StdRng, id: u64) -> Asked {
    let mut name = || random.random_range(0..NAMES);
    let (one, other) = (name(), name());
    let other = if one == other { (one + 1) % NAMES } else { other };
    match random.random_range(0..100) {
        0..35 => Asked::Read { name: one },
        35..45 => Asked::Create { name: one, made: id },
        45..49 => Asked::Drop { name: one },
        49..58 => Asked::Rename { from: one, to: other },
        58..90 => Asked::Commit { name: one, mark: id },
        _ => Asked::CommitBoth { names: [one, other], mark: id },
    }
}

#[cfg(test)]
mod tests;
