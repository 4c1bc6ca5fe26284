//! The one walk from a snapshot back through those that it was built on.
//!
//! Parents are what a writer says they are, so every walk is bounded: it ends at a snapshot that is
//! gone, and where snapshots name one another in a circle after as many steps as there are snapshots.

use iceberg::spec::{SnapshotRef, TableMetadata};

/// A snapshot, the one it was built on, and so on back, as far as they are retained.
pub fn of(metadata: &TableMetadata, head: Option<i64>) -> impl Iterator<Item = &SnapshotRef> {
    ids(metadata, head).map_while(|id| metadata.snapshot_by_id(id))
}

/// The same as ids. The last one may be of a snapshot that is gone: that much its child tells of it.
pub(crate) fn ids(metadata: &TableMetadata, head: Option<i64>) -> impl Iterator<Item = i64> {
    let parent = |id| metadata.snapshot_by_id(id)?.parent_snapshot_id();
    walk(head, metadata.snapshots().len(), parent)
}

/// The same over snapshots of which not all are in a table yet, `known` of them in all.
pub(crate) fn walk(
    head: Option<i64>,
    known: usize,
    parent: impl Fn(i64) -> Option<i64>,
) -> impl Iterator<Item = i64> {
    std::iter::successors(head, move |id| parent(*id)).take(known + 1)
}

/// Whether a retained snapshot is `head` or one of those that `head` was built on.
pub(crate) fn is_ancestor(metadata: &TableMetadata, ancestor: i64, head: Option<i64>) -> bool {
    of(metadata, head).any(|snapshot| snapshot.snapshot_id() == ancestor)
}

#[cfg(test)]
mod tests;
