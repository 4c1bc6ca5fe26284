//! What the summary of a snapshot says: its numbers, and whether the service made it.

use crate::table::unused_numbers::{self, UNUSED_SEQ, UnusedNumbers};
use iceberg::spec::SnapshotRef;
use icecore_catalog::commit::{COMMIT_ID, COMPACTION, TAKEN_BACK};

/// Whether the service made a snapshot: all of its own have the id of their commit, but those that take
/// compaction back.
pub(super) fn is_own(snapshot: &SnapshotRef) -> bool {
    snapshot.summary().additional_properties.contains_key(COMMIT_ID) || is_taken_back(snapshot)
}

/// Whether a snapshot has files live again that compaction had replaced.
pub(super) fn is_taken_back(snapshot: &SnapshotRef) -> bool {
    let kind = snapshot.summary().additional_properties.get(COMPACTION);
    kind.is_some_and(|kind| kind == TAKEN_BACK)
}

/// A number of a summary; none where it has none.
pub(super) fn number(snapshot: &SnapshotRef, key: &str) -> Option<u64> {
    snapshot.summary().additional_properties.get(key)?.parse().ok()
}

/// The numbers without a row that a commit gives a reason for; none where it is of a version that says nothing.
pub(super) fn unused(snapshot: &SnapshotRef) -> Option<Vec<UnusedNumbers>> {
    snapshot
        .summary()
        .additional_properties
        .get(UNUSED_SEQ)
        .map(|text| unused_numbers::of_entry(text))
}
