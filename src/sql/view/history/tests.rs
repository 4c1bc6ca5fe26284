use super::*;
use serde_json::{Value, json};
use std::sync::Arc;

/// Main has snapshots 1 to 3 with events up to 10, 20 and 30. Branch `trial` was forked of it after event 12 and
/// has 13, `inner` of that after 13 and has 14, and `same` of main after event 20, without events of its own.
fn metadata(properties: &Value) -> TableMetadata {
    let parents = [(1, None), (2, Some(1)), (3, Some(2)), (4, Some(1)), (5, Some(4)), (6, Some(5))];
    let last = [10, 20, 30, 12, 13, 14];
    let made_for = [(4, "trial"), (5, "trial"), (6, "inner")];
    let snapshots = parents.iter().zip(last).map(|((id, parent), last)| {
        let mut summary = json!({ "operation": "append", "icecore.last-seq": last.to_string() });
        if let Some((_, branch)) = made_for.iter().find(|(made, _)| made == id) {
            summary["icecore.branch"] = json!(branch);
            summary["icecore.commit-id"] = json!(id.to_string());
        }
        json!({
            "snapshot-id": id, "parent-snapshot-id": parent, "sequence-number": id,
            "timestamp-ms": id * 1_000, "manifest-list": "file:///w/t/metadata/l.avro",
            "summary": summary, "schema-id": 0,
        })
    });
    let branch = |id: i64| json!({ "type": "branch", "snapshot-id": id });
    serde_json::from_value(json!({
        "format-version": 2, "table-uuid": "7f0c6a76-3f0d-4d59-a1f8-4b1f0b0b6a11",
        "location": "file:///w/t", "last-sequence-number": 9, "last-updated-ms": 9_000,
        "last-column-id": 1, "current-schema-id": 0, "default-spec-id": 0,
        "schemas": [{ "type": "struct", "schema-id": 0, "fields": [] }],
        "partition-specs": [{ "spec-id": 0, "fields": [] }], "last-partition-id": 999,
        "sort-orders": [{ "order-id": 0, "fields": [] }], "default-sort-order-id": 0,
        "properties": properties, "current-snapshot-id": 3,
        "snapshots": snapshots.collect::<Vec<_>>(),
        "snapshot-log": [{ "timestamp-ms": 3_000, "snapshot-id": 3 }],
        "refs": {
            "main": branch(3), "trial": branch(5), "inner": branch(6), "same": branch(2),
            "other": branch(5),
        },
    }))
    .unwrap()
}

fn branches() -> Value {
    let branch = |from: &str, seq: u64, at: i64| {
        let branch = Branch {
            name: String::new(),
            forked_from: from.to_owned(),
            fork_seq: seq,
            created_at: at,
            collection: None,
            merges: Vec::new(),
        };
        branch.to_property().unwrap()
    };
    json!({
        "icecore.branch.trial": branch("main", 12, 1),
        "icecore.branch.inner": branch("trial", 13, 2),
        "icecore.branch.same": branch("main", 20, 3),
        "icecore.branch.gone": branch("main", 20, 3),
    })
}

fn table(snapshot_id: i64, last_seq: u64) -> TableView {
    TableView {
        name: "events".to_owned(),
        metadata: Some(Arc::new(metadata(&branches()))),
        snapshot_id: Some(snapshot_id),
        has_past_columns: false,
        ours: Some(RecordKind::Events),
        tail: Vec::new(),
        last_seq,
        metadata_location: None,
        inspected: Vec::new(),
        seqs: None,
        later: None,
    }
}

#[test]
fn a_state_is_of_the_branch_that_was_built_on_it() {
    for (snapshot, last, named, expected) in [
        (3, 30, None, None),
        (3, 30, Some("main"), None),
        (2, 20, Some("nightly"), None),
        (2, 20, Some("same"), Some("same")),
        (5, 13, Some("trial"), Some("trial")),
        (5, 13, None, Some("trial")),
        // What another engine called so is the same state.
        (5, 13, Some("other"), Some("trial")),
        (6, 14, None, Some("inner")),
        (6, 14, Some("gone"), Some("inner")),
        // All of it is of main.
        (4, 12, None, None),
    ] {
        let found = branch_of(&table(snapshot, last), named).map(|branch| branch.name);
        assert_eq!(found.as_deref(), expected, "{snapshot} {named:?}");
    }
    assert!(![2, 5, 6].map(|snapshot| is_lost(&table(snapshot, 20))).contains(&true));
    let foreign = TableView { ours: None, ..table(5, 13) };
    assert_eq!(branch_of(&foreign, Some("trial")), None);
}

#[test]
fn a_branch_has_the_events_of_main_up_to_its_fork() {
    for (snapshot, expected) in
        [(3, Some(u64::MAX)), (2, Some(u64::MAX)), (5, Some(12)), (6, Some(12)), (7, None)]
    {
        let found = main_part(&table(snapshot, 0));
        assert_eq!(found.map(|part| part.seq), expected, "{snapshot}");
    }
    // One that was made of a branch has what that one took of main.
    assert_eq!(main_part(&table(6, 0)).map(|part| part.taken_at), Some(1));
    // A branch of that name that was made later is not the one that another was made of.
    let later = Branch { created_at: 9, ..Branch::of(&metadata(&branches()), "trial").unwrap() };
    let mut properties = branches();
    properties["icecore.branch.trial"] = later.to_property().unwrap().into();
    let changed = metadata(&properties);
    assert_eq!(Branch::of(&changed, "inner").unwrap().main_seq(&changed), None);
}

#[test]
fn a_state_of_a_branch_that_is_gone_is_lost() {
    let mut properties = branches();
    for name in ["icecore.branch.trial", "icecore.branch.inner"] {
        properties.as_object_mut().unwrap().remove(name);
    }
    let metadata = Some(Arc::new(metadata(&properties)));
    for (snapshot, expected) in [(2, false), (3, false), (5, true), (6, true)] {
        let table = TableView { metadata: metadata.clone(), ..table(snapshot, 20) };
        assert_eq!(is_lost(&table), expected, "{snapshot}");
        assert_eq!(branch_of(&table, Some("other")), None);
    }
}

#[test]
fn the_last_event_of_a_branch_is_never_before_its_fork() {
    let metadata = metadata(&branches());
    let of = |name: &str, id| last_seq_of(&metadata, &AsOf::Reference(name.to_owned()), Some(id));
    assert_eq!((of("trial", 5), of("same", 1), of("main", 1)), (13, 20, 10));
    assert_eq!(last_seq_of(&metadata, &AsOf::Snapshot(5), Some(5)), 13);
}

#[test]
fn the_rows_of_branches_tell_what_they_were_made_of() {
    let rows = branch_rows(&metadata(&branches()));
    let rows: Vec<_> = rows
        .iter()
        .map(|it| (it.name.as_str(), it.head, it.base, it.forked_from.as_str(), it.head_seq))
        .collect();
    let expected = [
        ("inner", 6, Some(5), "trial", Some(14)),
        ("same", 2, Some(2), "main", Some(20)),
        ("trial", 5, Some(1), "main", Some(13)),
    ];
    assert_eq!(rows, expected);
}
