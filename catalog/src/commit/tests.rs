use super::*;
use crate::commit::CreateTable;
use iceberg::spec::Schema;
use serde_json::{Value, json};

const NOW: i64 = 1_700_000_000_000;
const FILE: &str = "file:///w/t/metadata/00000-a.metadata.json";

fn schema() -> Schema {
    let json = json!({"type": "struct", "schema-id": 0, "fields": [
        {"id": 5, "name": "id", "required": true, "type": "string"},
        {"id": 9, "name": "ts", "required": true, "type": "timestamptz"},
    ]});
    serde_json::from_value(json).unwrap()
}

fn table() -> TableMetadata {
    let new = CreateTable {
        partition_spec: Some(
            serde_json::from_value(json!({"fields": [
                {"source-id": 9, "transform": "day", "name": "dt"}
            ]}))
            .unwrap(),
        ),
        properties: [("format-version".to_owned(), "2".to_owned())].into(),
        ..CreateTable::plain("t", schema())
    };
    create_fresh(new, Uuid::from_u128(7), "file:///w/t".to_owned(), NOW).unwrap()
}

fn updates(json: Value) -> Vec<TableUpdate> {
    serde_json::from_value(json).unwrap()
}

fn snapshot(id: i64, parent: Option<i64>, number: i64, timestamp_ms: i64) -> Value {
    json!({"action": "add-snapshot", "snapshot": {
        "snapshot-id": id,
        "parent-snapshot-id": parent,
        "sequence-number": number,
        "timestamp-ms": timestamp_ms,
        "manifest-list": format!("file:///w/t/metadata/{id}.avro"),
        "schema-id": 0,
        "summary": {
            "operation": "append", "icecore.first-seq": "3", "icecore.last-seq": "8"
        },
    }})
}

fn point(name: &str, kind: &str, id: i64) -> Value {
    json!({"action": "set-snapshot-ref", "ref-name": name, "type": kind, "snapshot-id": id})
}

/// Snapshot 1 on `main`, tagged `first`.
fn with_snapshot() -> TableMetadata {
    let add = json!([
        snapshot(1, None, 1, NOW + 5),
        point("main", "branch", 1),
        point("first", "tag", 1)
    ]);
    apply_updates(&table(), FILE, &updates(add)).unwrap()
}

#[test]
fn failures_of_requirements_have_the_texts_of_the_java_reference() {
    let base = with_snapshot();
    let check = |requirement: Value, expected: &str| {
        let requirements = [serde_json::from_value(requirement.clone()).unwrap()];
        match check_requirements(&requirements, Some(&base)) {
            Ok(()) => assert_eq!("", expected, "{requirement}"),
            Err(CatalogError::CommitFailed(text)) => assert_eq!(text, expected),
            Err(other) => panic!("{other:?}"),
        }
    };
    let on_ref = |name: &str, id: Option<i64>| json!({"type": "assert-ref-snapshot-id", "ref": name, "snapshot-id": id});
    let (same, other) = (Uuid::from_u128(7), Uuid::from_u128(8));
    check(json!({"type": "assert-create"}), "Requirement failed: table already exists");
    check(json!({"type": "assert-table-uuid", "uuid": same}), "");
    check(
        json!({"type": "assert-table-uuid", "uuid": other}),
        &format!("Requirement failed: UUID does not match: expected {same} != {other}"),
    );
    check(on_ref("main", Some(1)), "");
    check(on_ref("none", None), "");
    check(
        on_ref("main", Some(2)),
        "Requirement failed: branch main has changed: expected id 2 != 1",
    );
    check(
        on_ref("first", Some(2)),
        "Requirement failed: tag first has changed: expected id 2 != 1",
    );
    check(on_ref("main", None), "Requirement failed: branch main was created concurrently");
    check(on_ref("first", None), "Requirement failed: tag first was created concurrently");
    check(on_ref("none", Some(1)), "Requirement failed: branch or tag none is missing, expected 1");
    for (kind, key, held, text) in [
        (
            "assert-last-assigned-field-id",
            "last-assigned-field-id",
            2,
            "last assigned field id changed",
        ),
        ("assert-current-schema-id", "current-schema-id", 0, "current schema changed"),
        (
            "assert-last-assigned-partition-id",
            "last-assigned-partition-id",
            1000,
            "last assigned partition id changed",
        ),
        ("assert-default-spec-id", "default-spec-id", 0, "default partition spec changed"),
        ("assert-default-sort-order-id", "default-sort-order-id", 0, "default sort order changed"),
    ] {
        check(json!({"type": kind, key: held}), "");
        let failed = format!("Requirement failed: {text}: expected id 77 != {held}");
        check(json!({"type": kind, key: 77}), &failed);
    }
}

#[test]
fn a_table_that_does_not_exist_meets_only_assert_create() {
    assert!(check_requirements(&[TableRequirement::NotExist], None).is_ok());
    let uuid = TableRequirement::UuidMatch { uuid: Uuid::nil() };
    let failed = check_requirements(&[TableRequirement::NotExist, uuid], None);
    assert!(matches!(failed, Err(CatalogError::CommitFailed(_))));
}

#[test]
fn a_new_table_has_fresh_ids_and_the_given_time() {
    let table = table();
    assert_eq!(table.last_updated_ms(), NOW);
    assert_eq!(table.uuid(), Uuid::from_u128(7));
    assert_eq!(table.last_column_id(), 2);
    assert_eq!(table.default_partition_spec().fields()[0].source_id, 2);
    assert!(table.properties().is_empty(), "format-version is no property");
}

#[test]
fn time_never_goes_back_and_follows_the_given_clock() {
    let set = updates(json!([{"action": "set-properties", "updates": {"a": "b"}}]));
    for (now, expected) in [(NOW - 1_000_000, NOW + 1), (NOW, NOW + 1), (NOW + 90, NOW + 90)] {
        let new = apply_updates_at(&table(), Some(FILE), &set, now).unwrap();
        assert_eq!(new.last_updated_ms(), expected);
        assert_eq!(new.metadata_log()[0].metadata_file, FILE);
        assert_eq!(new.metadata_log()[0].timestamp_ms, NOW);
    }
    // Far beyond the machine's own clock, and back.
    let far = 9_000_000_000_000;
    let ahead = apply_updates_at(&table(), Some(FILE), &set, far).unwrap();
    let again = apply_updates_at(&ahead, Some(FILE), &set, NOW).unwrap();
    assert_eq!(again.last_updated_ms(), far + 1);
}

#[test]
fn a_rollback_is_logged_at_its_own_time() {
    let base = with_snapshot();
    let add = updates(json!([snapshot(2, Some(1), 2, NOW + 10), point("main", "branch", 2)]));
    let base = apply_updates_at(&base, Some(FILE), &add, 0).unwrap();
    assert_eq!(base.last_updated_ms(), NOW + 10);
    let back = updates(json!([point("main", "branch", 1)]));
    let new = apply_updates_at(&base, Some(FILE), &back, NOW + 50).unwrap();
    let log: Vec<_> = new.history().iter().map(|e| (e.snapshot_id, e.timestamp_ms)).collect();
    assert_eq!(log, [(1, NOW + 5), (2, NOW + 10), (1, NOW + 50)]);
    assert_eq!(new.current_snapshot_id(), Some(1));
    assert_eq!(new.last_updated_ms(), NOW + 50);
}

#[test]
fn a_snapshot_on_an_old_state_is_a_lost_race_and_not_a_bad_request() {
    let base = with_snapshot();
    let stale = updates(json!([snapshot(2, Some(1), 1, NOW + 6), point("b", "branch", 2)]));
    let failed = apply_updates(&base, FILE, &stale);
    assert!(matches!(failed, Err(CatalogError::CommitFailed(_))), "{failed:?}");
    let unfit = updates(json!([point("b", "branch", 99)]));
    assert!(matches!(apply_updates(&base, FILE, &unfit), Err(CatalogError::Invalid(_))));
}

#[test]
fn the_metadata_log_keeps_as_many_entries_as_the_table_wants() {
    let set = |n: usize| {
        updates(json!([{"action": "set-properties", "updates":
            {"n": n.to_string(), "write.metadata.previous-versions-max": "3"}}]))
    };
    let mut base = table();
    for n in 0..10 {
        let new = apply_updates(&base, &format!("f{n}"), &set(n)).unwrap();
        let dropped = dropped_metadata_files(&base, &format!("f{n}"), &new);
        let expected = if n < 3 { Vec::new() } else { vec![format!("f{}", n - 3)] };
        assert_eq!(dropped, expected);
        base = new;
    }
    let files: Vec<_> = base.metadata_log().iter().map(|e| e.metadata_file.as_str()).collect();
    assert_eq!(files, ["f7", "f8", "f9"]);
}

#[test]
fn the_snapshot_index_follows_added_and_removed_snapshots() {
    let (empty, base) = (table(), with_snapshot());
    let row = SnapshotRow { snapshot_id: 1, timestamp_ms: NOW + 5, seq: Some((3, 8)) };
    assert_eq!(added_snapshots(Some(&empty), &base), std::slice::from_ref(&row));
    assert_eq!(added_snapshots(None, &base), [row]);
    assert_eq!(removed_snapshots(&base, &empty), [1]);
    assert_eq!(removed_snapshots(&empty, &base), Vec::<i64>::new());
}

#[test]
fn a_repeated_commit_is_recognized_by_its_snapshots() {
    let base = with_snapshot();
    let sent = updates(json!([snapshot(1, None, 1, NOW + 5), point("main", "branch", 1)]));
    let other = updates(json!([snapshot(2, Some(1), 2, NOW + 9)]));
    assert!(is_applied(&base, &[], &sent));
    assert!(!is_applied(&base, &[], &other));
    assert!(!is_applied(&base, &[], &[]));
    assert!(!is_applied(&base, &[], &updates(json!([point("main", "branch", 1)]))));
    let create =
        |uuid: u128| updates(json!([{"action": "assign-uuid", "uuid": Uuid::from_u128(uuid)}]));
    assert!(is_applied(&base, &[TableRequirement::NotExist], &create(7)));
    assert!(!is_applied(&base, &[TableRequirement::NotExist], &create(8)));
    assert!(!is_applied(&base, &[TableRequirement::NotExist], &sent), "another table's create");
}

#[test]
fn a_table_built_from_updates_keeps_every_id_of_the_client() {
    let uuid = Uuid::from_u128(3);
    let sent = updates(json!([
        {"action": "assign-uuid", "uuid": uuid},
        {"action": "upgrade-format-version", "format-version": 2},
        {"action": "add-schema", "schema": serde_json::to_value(schema()).unwrap()},
        {"action": "set-current-schema", "schema-id": -1},
        {"action": "add-spec", "spec": {"spec-id": 0, "fields": [
            {"source-id": 9, "field-id": 1000, "transform": "day", "name": "dt"}]}},
        {"action": "set-default-spec", "spec-id": -1},
        {"action": "add-sort-order", "sort-order": {"order-id": 1, "fields": [
            {"source-id": 5, "transform": "identity", "direction": "asc", "null-order": "nulls-first"}]}},
        {"action": "set-default-sort-order", "sort-order-id": -1},
        {"action": "set-location", "location": "file:///w/x"},
        {"action": "set-properties", "updates": {"a": "b", "format-version": "2"}},
        snapshot(1, None, 1, NOW - 500_000),
        point("main", "branch", 1),
    ]));
    let table = create_from_updates(Uuid::nil(), "file:///w/default", &sent, NOW).unwrap();
    assert_eq!(table.uuid(), uuid);
    assert_eq!(table.location(), "file:///w/x");
    assert_eq!(table.current_schema_id(), 0);
    let ids: Vec<_> = table.current_schema().as_struct().fields().iter().map(|f| f.id).collect();
    assert_eq!(ids, [5, 9]);
    assert_eq!((table.schemas_iter().len(), table.partition_specs_iter().len()), (1, 1));
    assert_eq!(table.default_partition_spec_id(), 0);
    assert_eq!(table.default_partition_spec().fields()[0].field_id, 1000);
    assert_eq!((table.default_sort_order_id(), table.sort_orders_iter().len()), (1, 1));
    assert_eq!((table.last_column_id(), table.last_partition_id()), (9, 1000));
    assert_eq!(table.current_snapshot_id(), Some(1));
    assert_eq!(table.properties().len(), 1);
    assert!(table.metadata_log().is_empty());
}

#[test]
fn a_table_built_from_a_schema_alone_has_the_defaults() {
    for version in [1, 2, 3] {
        let sent = updates(json!([
            {"action": "upgrade-format-version", "format-version": version},
            {"action": "add-schema", "schema": serde_json::to_value(schema()).unwrap()},
            {"action": "add-spec", "spec": {"fields": [
                {"source-id": 9, "transform": "day", "name": "dt"}]}},
            {"action": "set-default-spec", "spec-id": -1},
        ]));
        let table = create_from_updates(Uuid::nil(), "file:///w/default", &sent, NOW).unwrap();
        assert_eq!(table.format_version() as u8, version);
        assert_eq!(table.location(), "file:///w/default");
        assert_eq!(table.last_updated_ms(), NOW);
        assert_eq!(table.default_partition_spec().fields()[0].field_id, 1000);
        assert!(table.default_sort_order().is_unsorted());
    }
    let schema =
        json!([{"action": "add-schema", "schema": serde_json::to_value(schema()).unwrap()}]);
    let table = create_from_updates(Uuid::nil(), "file:///w/default", &updates(schema), NOW);
    assert_eq!(table.unwrap().format_version(), FormatVersion::V2, "what every engine writes");
    let none = create_from_updates(Uuid::nil(), "file:///w/default", &[], NOW);
    assert!(matches!(none, Err(CatalogError::Invalid(_))));
}

#[test]
fn format_versions_that_do_not_exist_are_refused() {
    let mut new = CreateTable {
        properties: [("format-version".to_owned(), "4".to_owned())].into(),
        ..CreateTable::plain("t", schema())
    };
    let create = |new| create_fresh(new, Uuid::nil(), "file:///w/t".to_owned(), NOW);
    assert!(matches!(create(new.clone()), Err(CatalogError::Invalid(_))));
    new.properties.insert("format-version".to_owned(), "3".to_owned());
    assert_eq!(create(new).unwrap().format_version(), FormatVersion::V3);
}

#[test]
fn a_branch_goes_to_what_comes_after_its_head() {
    let base = with_snapshot();
    let check = |added: &[(i64, Option<i64>)], to: i64, is_taken: bool| {
        let mut sent: Vec<Value> =
            added.iter().map(|(id, parent)| snapshot(*id, *parent, 9, NOW + 9)).collect();
        sent.push(point("main", "branch", to));
        let checked = check_heads(&base, &updates(Value::Array(sent)));
        assert_eq!(checked.is_ok(), is_taken, "{added:?} to {to}: {checked:?}");
    };
    check(&[(2, Some(1))], 2, true);
    check(&[(2, Some(1)), (3, Some(2))], 3, true);
    check(&[(2, None)], 2, true);
    check(&[(2, None), (3, Some(2))], 3, true);
    check(&[(2, Some(7))], 2, false);
    check(&[(2, Some(3)), (3, Some(7))], 2, false);
    // In a circle there is no end.
    check(&[(2, Some(2))], 2, false);
    check(&[(2, Some(3)), (3, Some(2))], 2, false);
}

#[test]
fn a_name_is_set_to_no_snapshot_that_the_same_commit_removes() {
    let removed = |ids: &[i64]| json!({"action": "remove-snapshots", "snapshot-ids": ids});
    let unset = json!({"action": "remove-snapshot-ref", "ref-name": "work"});
    let work = |id| point("work", "branch", id);
    let check = |sent: Value, lost: Option<&str>| match (check_set_names(&updates(sent)), lost) {
        (Ok(()), None) => (),
        (Err(CatalogError::Invalid(text)), Some(lost)) => {
            assert!(text.starts_with(&format!("Cannot set `{lost}` to snapshot 1")), "{text}");
        }
        (answer, lost) => panic!("{answer:?}, not {lost:?}"),
    };
    check(json!([work(1), removed(&[1])]), Some("work"));
    check(json!([work(1), point("also", "tag", 1), removed(&[2, 1])]), Some("also"));
    check(json!([work(1), removed(&[2])]), None);
    // The name goes, or is elsewhere, in so many words.
    check(json!([work(1), unset.clone(), removed(&[1])]), None);
    check(json!([work(1), removed(&[1]), unset]), None);
    check(json!([work(1), work(2), removed(&[1])]), None);
    check(json!([work(1), removed(&[1]), work(2)]), None);
}
