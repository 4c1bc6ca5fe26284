//! Snapshots that clients hold: those that were current when a client loaded the table, and what came
//! after them on `main`.
//!
//! Some engines look at each snapshot from the one that they began with to the current one, and fail
//! when one is gone. Its one invariant: what is held is bounded, however many leases there are.

use crate::ancestors;
use iceberg::spec::{SnapshotRef, TableMetadata};
use std::{cmp::Reverse, collections::HashSet};

/// Most snapshots that stay for leases. With those that stay by themselves, the metadata file of a table
/// is still shorter than 1 MB.
pub const LEASED_MAX: usize = 800;
/// Most of them that are not on the line of `main`, or beyond its end, the newest ones.
pub const LEASED_ALONE_MAX: usize = 50;
/// Most of them on the line of `main`, from the current one back.
pub const LEASED_LINE_MAX: usize = LEASED_MAX - LEASED_ALONE_MAX;

/// Leases of a table, as its metastore has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeasedIds {
    /// Snapshots that were the head of `main`.
    pub main: HashSet<i64>,
    /// Snapshots that another branch or a tag was at.
    pub others: HashSet<i64>,
}

/// The snapshots of a table that stay for its leases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeasedSnapshots(HashSet<i64>);

impl LeasedSnapshots {
    /// Those of a table with these leases.
    #[must_use]
    pub fn of(metadata: &TableMetadata, leases: &LeasedIds) -> Self {
        if leases.main.is_empty() && leases.others.is_empty() {
            return Self::default();
        }
        let head = metadata.current_snapshot_id();
        let line: Vec<i64> = ancestors::of(metadata, head)
            .take(LEASED_LINE_MAX)
            .map(|snapshot| snapshot.snapshot_id())
            .collect();
        let oldest = line.iter().rposition(|id| leases.main.contains(id));
        let mut held: HashSet<i64> =
            line.into_iter().take(oldest.map_or(0, |place| place + 1)).collect();
        let is_alone = |snapshot: &&SnapshotRef| {
            let id = snapshot.snapshot_id();
            (leases.main.contains(&id) || leases.others.contains(&id)) && !held.contains(&id)
        };
        let mut alone: Vec<(i64, i64)> = metadata
            .snapshots()
            .filter(is_alone)
            .map(|snapshot| (snapshot.sequence_number(), snapshot.snapshot_id()))
            .collect();
        alone.sort_unstable_by_key(|snapshot| Reverse(*snapshot));
        held.extend(alone.into_iter().take(LEASED_ALONE_MAX).map(|(_, id)| id));
        Self(held)
    }

    /// Whether a snapshot stays.
    #[must_use]
    pub fn has(&self, id: i64) -> bool {
        self.0.contains(&id)
    }

    /// Those that stay.
    pub fn ids(&self) -> impl Iterator<Item = i64> {
        self.0.iter().copied()
    }
}
