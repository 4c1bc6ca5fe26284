//! The number of a row among those that say the same, for rows without an id.
//!
//! A row's id is the digest of what it says, and from the second equal row on its number. The raw files of a
//! day are numbered together, and each file that repeats rows of others is numbered from 1: the first copy in
//! a compacted file has the id of the first row in the files that it was made of, and two equal rows that
//! are both in the raw files stay two.

use std::collections::{HashMap, HashSet};

/// Most rows without an id in the raw files of a day, or in a compacted one: the largest set that needs no more than 150 MB.
pub(in crate::cli) const ROWS_MAX: usize = 14_680_064;

/// The rows of a layer so far.
#[derive(Debug, Default)]
pub(in crate::cli) struct RowCounts {
    scope: (String, u8),
    seen: HashSet<u64>,
    /// How many there were of those that were there twice.
    repeats: HashMap<u64, u32>,
}

impl RowCounts {
    /// Begins a layer anew, unless it is the one before.
    pub(in crate::cli) fn enter(&mut self, group: &str, layer: u8) {
        if self.scope.0 != group || self.scope.1 != layer {
            *self = Self { scope: (group.to_owned(), layer), ..Self::default() };
        }
    }

    /// The id of the next row with this digest; none when there are too many rows to number.
    pub(in crate::cli) fn id(&mut self, content: u128) -> Option<String> {
        // Half of the digest: where two rows share that, the second only has a number more in its id.
        let short = content as u64;
        if !self.seen.contains(&short) {
            if ROWS_MAX <= self.seen.len() {
                return None;
            }
            self.seen.insert(short);
            return Some(id_of(content));
        }
        let count = self.repeats.entry(short).or_insert(1);
        *count = count.saturating_add(1);
        Some(format!("{}-{count}", id_of(content)))
    }
}

/// The id of what has this digest.
pub(super) fn id_of(digest: u128) -> String {
    format!("r2-{digest:032x}")
}
