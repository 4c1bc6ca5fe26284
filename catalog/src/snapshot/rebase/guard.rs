//! Which commits must not be put on top of others, however plain they are.
//!
//! Some clients keep their place in what they copy in the summaries of their own snapshots: Kafka
//! Connect its offsets, Flink the number of its last checkpoint. They assert the head of the branch
//! to find out that another of them was there first, and look at that summary before they try again.
//! Iceberg's Java library builds a commit that deletes rows anew by itself, and checks first what the
//! isolation level of its table asks for, which nobody can tell from the commit. A compaction of ours changes
//! no row, so such a commit would find nothing that speaks against it, but that its files are not there.
//! Its one invariant: no commit is moved past a snapshot that has an entry of that kind in common
//! with it, and no delete of a client that looks itself past one that changes rows.

use crate::{ancestors, commit::COMPACTION};
use iceberg::spec::{Operation, Snapshot, SnapshotRef, TableMetadata};
use std::collections::HashSet;

/// Table property: `false` has every late append refused, for its client to build anew.
pub(crate) const REBASE_APPENDS: &str = "icecore.rebase-appends";

/// Entries that Iceberg itself gives a meaning (its Java library's `SnapshotSummary`, and what
/// writers count), and entries that only say which program wrote: they guard nothing.
const KNOWN: [&str; 53] = [
    "added-data-files",
    "added-delete-files",
    "added-dvs",
    "added-equality-delete-files",
    "added-equality-deletes",
    "added-files-size",
    "added-position-delete-files",
    "added-position-deletes",
    "added-records",
    "app-id",
    "app-name",
    "changed-partition-count",
    "deleted-data-files",
    "deleted-duplicate-files",
    "deleted-records",
    "engine-name",
    "engine-version",
    "entries-processed",
    "iceberg-version",
    "manifests-created",
    "manifests-kept",
    "manifests-replaced",
    "operation",
    "partition-summaries-included",
    "presto_query_id",
    "published-wap-id",
    "removed-delete-files",
    "removed-dvs",
    "removed-equality-delete-files",
    "removed-equality-deletes",
    "removed-files-size",
    "removed-position-delete-files",
    "removed-position-deletes",
    "replace-partitions",
    "replaced-partitions",
    "session-id",
    "source-snapshot-id",
    "spark.app.id",
    "spark.app.name",
    "spark.sql.execution.id",
    "total-data-files",
    "total-delete-files",
    "total-dvs",
    "total-equality-deletes",
    "total-files-size",
    "total-position-deletes",
    "total-records",
    "trino_query_id",
    "trino_user",
    "user",
    "user-agent",
    "user-name",
    "wap.id",
];
/// Entries of a partition, and this catalog's own.
const KNOWN_PREFIXES: [&str; 2] = ["partitions.", "icecore."];
/// Ends of names by which programs tell their own version: `pyiceberg-version`.
const KNOWN_SUFFIX: &str = "-version";

/// Entry of snapshots that Iceberg's Java library makes.
const JAVA: &str = "iceberg-version";

/// Whether a commit that was built on `parent` has to be built anew by its client: the table wants it so, or
/// an entry of its summary is in a snapshot between the branch's head and the snapshot it was built on.
pub(super) fn keeps(
    base: &TableMetadata,
    late: &Snapshot,
    parent: Option<i64>,
    head: Option<i64>,
) -> bool {
    if base.properties().get(REBASE_APPENDS).is_some_and(|wanted| wanted == "false") {
        return true;
    }
    // From the head back to what the client read: all that came in between.
    let between = || {
        ancestors::ids(base, head)
            .take_while(move |id| Some(*id) != parent)
            .filter_map(move |id| base.snapshot_by_id(id))
    };
    let summary = late.summary();
    // Java's library checks a delete by itself before it tries again.
    if summary.operation != Operation::Append
        && summary.additional_properties.contains_key(JAVA)
        && !between().all(is_compaction)
    {
        return true;
    }
    let own: HashSet<&str> = own_entries(late).collect();
    if own.is_empty() {
        return false;
    }
    between().any(|other| own_entries(other).any(|entry| own.contains(entry)))
}

/// Whether the service made a snapshot that only has the same rows in other files.
pub(super) fn is_compaction(snapshot: &SnapshotRef) -> bool {
    let summary = snapshot.summary();
    summary.operation == Operation::Replace
        && summary.additional_properties.contains_key(COMPACTION)
}

/// The names of a summary's entries that are its client's own.
fn own_entries(snapshot: &Snapshot) -> impl Iterator<Item = &str> {
    let names = snapshot.summary().additional_properties.keys().map(String::as_str);
    names.filter(|name| {
        !KNOWN.contains(name)
            && !KNOWN_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            && !name.ends_with(KNOWN_SUFFIX)
    })
}
