//! Which snapshots of a namespace's tables belong together: those of one tag, as far as one event.
//!
//! Snapshots of `main` alone are looked at. Its one invariant: no snapshot is taken for one of an event whose rows or
//! documents are of a later one.

use crate::table::documents::AppliedChanges;
use iceberg::spec::{SnapshotRef, TableMetadata};
use icecore_catalog::{ancestors, commit::LAST_SEQ};
use std::collections::HashSet;

/// Most tables of one tag, some more than those of a namespace with very many collections: each has a metadata file in
/// the commit, and all of them are in memory until it ends.
pub const TAGGED_TABLES_MAX: usize = 1_100;

/// The last event in a snapshot of `events`; none where the snapshots that would tell are removed.
#[must_use]
pub fn last_seq(events: &TableMetadata, snapshot_id: i64) -> Option<u64> {
    ancestors::of(events, Some(snapshot_id)).find_map(noted_seq)
}

/// Whether a snapshot of `events` was made on another branch than `main`, whose events have numbers of their own. One of
/// `main` that is cut off by a gap in the history is not.
#[must_use]
pub fn is_of_branch(events: &TableMetadata, snapshot_id: i64) -> bool {
    let main: HashSet<i64> = ancestors::of(events, events.current_snapshot_id())
        .map(|snapshot| snapshot.snapshot_id())
        .collect();
    let mut line = ancestors::of(events, Some(snapshot_id));
    !main.contains(&snapshot_id) && line.any(|snapshot| main.contains(&snapshot.snapshot_id()))
}

/// The newest snapshot of `events` that has no event behind `seq`, and the last one that it has.
#[must_use]
pub fn events_until(events: &TableMetadata, seq: u64) -> Option<(i64, u64)> {
    // The newest of those whose last event is told by one before them.
    let mut newest = None;
    for snapshot in ancestors::of(events, events.current_snapshot_id()) {
        let id = *newest.get_or_insert(snapshot.snapshot_id());
        if let Some(last) = noted_seq(snapshot) {
            if last <= seq {
                return Some((id, last));
            }
            newest = None;
        }
    }
    None
}

/// The newest snapshot of a collection's table that has no change behind `seq`, of the events of `log`.
#[must_use]
pub fn documents_until(table: &TableMetadata, log: &str, seq: u64) -> Option<i64> {
    let mut snapshots = ancestors::of(table, table.current_snapshot_id());
    let is_until = |snapshot: &&SnapshotRef| {
        let applied = AppliedChanges::of(table, Some(snapshot.snapshot_id()));
        applied.is_some_and(|applied| applied.log == log && applied.seq <= seq)
    };
    snapshots.find(is_until).map(|snapshot| snapshot.snapshot_id())
}

fn noted_seq(snapshot: &SnapshotRef) -> Option<u64> {
    snapshot.summary().additional_properties.get(LAST_SEQ)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::documents::{APPLIED_SEQ, LOG};
    use serde_json::{Value, json};

    /// A table whose snapshots follow one another and have these summaries; ids count from 1.
    fn table(summaries: &[Value]) -> TableMetadata {
        forked(summaries, summaries.len())
    }

    /// The same, of which `main` has as many, and a branch the others.
    fn forked(summaries: &[Value], current: usize) -> TableMetadata {
        let snapshots: Vec<Value> = (1..)
            .zip(summaries)
            .map(|(id, summary)| {
                let parent: Option<i64> = (1 < id).then_some(id - 1);
                json!({
                    "snapshot-id": id, "parent-snapshot-id": parent, "sequence-number": id,
                    "timestamp-ms": 1_000 * id, "manifest-list": "file:///w/t/metadata/l.avro",
                    "summary": summary, "schema-id": 0,
                })
            })
            .collect();
        serde_json::from_value(json!({
            "format-version": 2, "table-uuid": "7f0c6a76-3f0d-4d59-a1f8-4b1f0b0b6a11",
            "location": "file:///w/t", "last-sequence-number": 9, "last-updated-ms": 9_000,
            "last-column-id": 1, "current-schema-id": 0, "default-spec-id": 0,
            "schemas": [{ "type": "struct", "schema-id": 0, "fields": [] }],
            "partition-specs": [{ "spec-id": 0, "fields": [] }], "last-partition-id": 999,
            "sort-orders": [{ "order-id": 0, "fields": [] }], "default-sort-order-id": 0,
            "current-snapshot-id": current, "snapshots": snapshots,
            "refs": { "main": { "type": "branch", "snapshot-id": current } },
        }))
        .unwrap()
    }

    #[test]
    fn the_newest_snapshot_without_later_events_is_taken() {
        let append = |last: u64| json!({ "operation": "append", LAST_SEQ: last.to_string() });
        let merged = json!({ "operation": "replace" });
        let events = table(&[append(10), merged.clone(), append(20), merged]);
        for (seq, expected) in [
            (9, None),
            (10, Some((2, 10))),
            (19, Some((2, 10))),
            (20, Some((4, 20))),
            (u64::MAX, Some((4, 20))),
        ] {
            assert_eq!(events_until(&events, seq), expected, "{seq}");
        }
        assert_eq!(last_seq(&events, 2), Some(10));
        assert_eq!(last_seq(&events, 4), Some(20));
        assert_eq!(last_seq(&events, 99), None);
    }

    #[test]
    fn a_snapshot_that_is_built_on_one_of_main_and_is_none_is_of_a_branch() {
        let append = json!({ "operation": "append" });
        let events = forked(&[append.clone(), append.clone(), append], 2);
        for (snapshot, expected) in [(1, false), (2, false), (3, true), (99, false)] {
            assert_eq!(is_of_branch(&events, snapshot), expected, "{snapshot}");
        }
    }

    #[test]
    fn documents_are_those_of_this_log_without_later_changes() {
        let refreshed = |seq: u64, log: &str| json!({ "operation": "overwrite", APPLIED_SEQ: seq.to_string(), LOG: log });
        let documents = table(&[refreshed(5, "a/0"), refreshed(8, "b/0"), refreshed(12, "b/0")]);
        for (log, seq, expected) in [
            ("b/0", 12, Some(3)),
            ("b/0", 11, Some(2)),
            ("b/0", 7, None),
            ("a/0", 7, Some(1)),
            ("c/0", 99, None),
        ] {
            assert_eq!(documents_until(&documents, log, seq), expected, "{log} {seq}");
        }
    }
}
