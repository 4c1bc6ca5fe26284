use super::*;
use serde_json::json;

/// A table whose `main` is at the first of these snapshots; each has its parent beside it.
fn table(snapshots: &[(i64, Option<i64>)]) -> TableMetadata {
    let listed = snapshots.iter().map(|(id, parent)| {
        json!({
            "snapshot-id": id, "parent-snapshot-id": parent, "sequence-number": 1,
            "timestamp-ms": 1_000, "manifest-list": "file:///w/t/metadata/l.avro",
            "summary": { "operation": "append" }, "schema-id": 0,
        })
    });
    serde_json::from_value(json!({
        "format-version": 2, "table-uuid": "7f0c6a76-3f0d-4d59-a1f8-4b1f0b0b6a11",
        "location": "file:///w/t", "last-sequence-number": 1, "last-updated-ms": 1_000,
        "last-column-id": 1, "current-schema-id": 0, "default-spec-id": 0,
        "schemas": [{ "type": "struct", "schema-id": 0, "fields": [] }],
        "partition-specs": [{ "spec-id": 0, "fields": [] }], "last-partition-id": 999,
        "sort-orders": [{ "order-id": 0, "fields": [] }], "default-sort-order-id": 0,
        "current-snapshot-id": snapshots[0].0, "snapshots": listed.collect::<Vec<_>>(),
        "refs": { "main": { "type": "branch", "snapshot-id": snapshots[0].0 } },
    }))
    .unwrap()
}

fn check(snapshots: &[(i64, Option<i64>)], expected: &[i64], expected_ids: &[i64]) {
    let table = table(snapshots);
    let found = of(&table, table.current_snapshot_id()).map(|snapshot| snapshot.snapshot_id());
    assert_eq!(found.collect::<Vec<_>>(), expected);
    assert_eq!(ids(&table, table.current_snapshot_id()).collect::<Vec<_>>(), expected_ids);
}

#[test]
fn a_walk_goes_back_as_far_as_snapshots_are_retained() {
    check(&[(3, Some(2)), (2, Some(1)), (1, None)], &[3, 2, 1], &[3, 2, 1]);
    check(&[(3, Some(2)), (2, Some(1)), (9, Some(2))], &[3, 2], &[3, 2, 1]);
    let table = table(&[(3, Some(2)), (2, Some(1))]);
    assert!(is_ancestor(&table, 2, Some(3)) && is_ancestor(&table, 3, Some(3)));
    assert!(!is_ancestor(&table, 1, Some(3)), "it is gone");
    assert!(!is_ancestor(&table, 2, None));
}

#[test]
fn a_circle_of_parents_ends() {
    check(&[(1, Some(1))], &[1, 1], &[1, 1]);
    check(&[(1, Some(2)), (2, Some(1))], &[1, 2, 1], &[1, 2, 1]);
}
