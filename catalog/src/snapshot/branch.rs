//! Snapshots of other branches than `main`: the table as one of them has it.
//!
//! A snapshot is built on the current one of a table. So a branch is built on by way of the table with
//! `main` at the branch's head. Its one invariant: that view is never stored, and the updates that come
//! of it name the branch.

use super::NewSnapshot;
use crate::{
    ancestors,
    commit::{self, COMMIT_ID},
    error::CatalogError,
    retention::BRANCH,
};
use iceberg::{
    TableUpdate,
    spec::{MAIN_BRANCH, Snapshot, SnapshotReference, SnapshotRetention, TableMetadata},
};
use std::borrow::Cow;

/// The table as the branch of `new` has it.
///
/// # Errors
/// [`CatalogError::NoSuchReference`]; [`CatalogError::Invalid`] where nothing was read for it;
/// [`CatalogError::CommitFailed`] for a branch that cannot begin so any more.
pub(super) fn seen<'a>(
    base: &'a TableMetadata,
    new: &NewSnapshot,
) -> Result<Cow<'a, TableMetadata>, CatalogError> {
    let Some(branch) = &new.branch else { return Ok(Cow::Borrowed(base)) };
    let head = base.snapshot_for_ref(branch).map(|head| head.snapshot_id());
    let parent = match (new.fork, new.read) {
        (None, None) => {
            let text = "a snapshot of a branch names the snapshot that was read for it";
            return Err(CatalogError::Invalid(text.to_owned()));
        }
        (None, Some(_)) => Some(head.ok_or_else(|| CatalogError::NoSuchReference(branch.clone()))?),
        (Some(fork), read) => {
            check_fork(base, branch, (fork.replaces, head), read)?;
            read
        }
    };
    let ref_name = MAIN_BRANCH.to_owned();
    let update = match parent {
        Some(snapshot_id) => {
            let retention = SnapshotRetention::branch(None, None, None);
            let reference = SnapshotReference { snapshot_id, retention };
            TableUpdate::SetSnapshotRef { ref_name, reference }
        }
        // The branch has none of the rows of `main`, but those that come with the snapshot.
        None => TableUpdate::RemoveSnapshotRef { ref_name },
    };
    let view = commit::apply_updates_at(base, None, &[update], base.last_updated_ms())?;
    Ok(Cow::Owned(view))
}

/// Refuses a branch that is elsewhere than its maker found it, or begins at a snapshot that is gone.
fn check_fork(
    base: &TableMetadata,
    branch: &str,
    (expected, head): (Option<i64>, Option<i64>),
    read: Option<i64>,
) -> Result<(), CatalogError> {
    if expected != head {
        let text = format!("Commit failed: branch `{branch}` was made, moved or dropped meanwhile");
        return Err(CatalogError::CommitFailed(text));
    }
    if let Some(read) = read
        && base.snapshot_by_id(read).is_none()
    {
        let text = format!("Commit failed: snapshot {read}, where `{branch}` begins, is gone");
        return Err(CatalogError::CommitFailed(text));
    }
    Ok(())
}

/// The branch of the service that the head of a table is of; none for `main`. What another engine put on a branch does
/// not say so.
pub(super) fn of_service(seen: &TableMetadata) -> Option<&String> {
    let line = ancestors::of(seen, seen.current_snapshot_id());
    let mut summaries = line.map(|snapshot| &snapshot.summary().additional_properties);
    summaries.find(|it| it.contains_key(BRANCH) || it.contains_key(COMMIT_ID))?.get(BRANCH)
}

/// The updates that add the snapshot and move its branch, `main` where none is named, to it with the
/// retention that the branch has.
///
/// # Errors
/// [`CatalogError::Iceberg`].
pub(super) fn onto(
    base: &TableMetadata,
    branch: Option<&str>,
    snapshot: Snapshot,
) -> Result<Vec<TableUpdate>, CatalogError> {
    // A ref's retention cannot be read from the metadata, but its builder carries it over.
    base.clone()
        .into_builder(None)
        .set_branch_snapshot(snapshot, branch.unwrap_or(MAIN_BRANCH))
        .and_then(|builder| builder.build())
        .map(|built| built.changes)
        .map_err(|source| CatalogError::Iceberg { operation: "add the snapshot", source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_head_is_of_the_branch_that_the_service_committed_to_before() {
        let parents = [(1, None), (2, Some(1)), (3, Some(2)), (4, Some(1)), (5, Some(1))];
        let told = |id: i64| match id {
            1 => json!({ "operation": "append", (COMMIT_ID): "a" }),
            2 => json!({ "operation": "append", (COMMIT_ID): "b", (BRANCH): "trial" }),
            5 => json!({ "operation": "append", (COMMIT_ID): "c" }),
            // Other engines.
            _ => json!({ "operation": "append" }),
        };
        for (head, expected) in
            [(1, None), (2, Some("trial")), (3, Some("trial")), (4, None), (5, None)]
        {
            let snapshots = parents.map(|(id, parent)| {
                json!({
                    "snapshot-id": id, "parent-snapshot-id": parent, "sequence-number": id,
                    "timestamp-ms": id * 1_000, "manifest-list": "file:///w/t/metadata/l.avro",
                    "summary": told(id), "schema-id": 0,
                })
            });
            let table: TableMetadata = serde_json::from_value(json!({
                "format-version": 2, "table-uuid": "7f0c6a76-3f0d-4d59-a1f8-4b1f0b0b6a11",
                "location": "file:///w/t", "last-sequence-number": 5, "last-updated-ms": 9_000,
                "last-column-id": 1, "current-schema-id": 0, "default-spec-id": 0,
                "schemas": [{ "type": "struct", "schema-id": 0, "fields": [] }],
                "partition-specs": [{ "spec-id": 0, "fields": [] }], "last-partition-id": 999,
                "sort-orders": [{ "order-id": 0, "fields": [] }], "default-sort-order-id": 0,
                "properties": {}, "current-snapshot-id": head, "snapshots": snapshots,
                "snapshot-log": [{ "timestamp-ms": 9_000, "snapshot-id": head }],
                "refs": { "main": { "type": "branch", "snapshot-id": head } },
            }))
            .unwrap();
            assert_eq!(of_service(&table).map(String::as_str), expected, "{head}");
        }
    }
}
