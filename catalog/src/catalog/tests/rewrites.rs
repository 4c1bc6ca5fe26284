//! Rewrites, overwrites and deletes of our own, beside what others commit.

use super::{late_client::*, live::*, row_delta::files, *};
use crate::{
    catalog::RefKind,
    retention::BRANCH,
    snapshot::{self, BranchFork, ReadManifests, TableEvolution},
};
use iceberg::{
    TableRequirement, TableUpdate,
    spec::{DataFile, NestedField, Operation, PrimitiveType, Schema, Type},
};
use std::collections::BTreeMap;

fn rewrite(operation: Operation, read: &LoadedTable) -> NewSnapshot {
    NewSnapshot {
        operation,
        read: read.metadata.current_snapshot_id(),
        removed: vec![rows_of(read, "f1", 10)],
        added: vec![rows_of(read, "f1-small", 10)],
        summary: BTreeMap::from([("icecore.test".to_owned(), "yes".to_owned())]),
        ..NewSnapshot::default()
    }
}

/// A position delete file of one row of `about`.
fn one_row(table: &LoadedTable, name: &str, about: &str) -> DataFile {
    DataFileBuilder::default()
        .content(DataContentType::PositionDeletes)
        .file_path(format!("{}/data/{name}", table.metadata.location()))
        .file_format(DataFileFormat::Parquet)
        .record_count(1)
        .file_size_in_bytes(10)
        .partition(Struct::empty())
        .partition_spec_id(0)
        .referenced_data_file(Some(format!("{}/data/{about}", table.metadata.location())))
        .build()
        .unwrap()
}

async fn load(catalog: &Catalog) -> LoadedTable {
    catalog.tables().load(&ident("a.t")).await.unwrap()
}

async fn numbered(catalog: &Catalog) -> Vec<String> {
    files(catalog).await.into_iter().map(|(name, number)| format!("{name}@{number}")).collect()
}

#[tokio::test]
async fn a_replace_is_put_on_top_of_appends_that_came_in_between() {
    let (_house, catalog) = two_files().await;
    let table = ident("a.t");
    let read = load(&catalog).await;
    catalog.add_snapshot(&table, own_append(&read, "own", 1)).await.unwrap();
    commit(&catalog, 2, Work { operation: "append", adds: &[("f3", 5)], ..Work::default() })
        .await
        .unwrap();
    let (own, replaced) = tokio::join!(
        catalog.add_snapshot(&table, own_append(&read, "own2", 2)),
        catalog.add_snapshot(&table, rewrite(Operation::Replace, &read)),
    );
    own.unwrap();
    let now = replaced.unwrap();
    assert_eq!(now.watermark.unwrap().position, 2);
    let expected = ["f1-small@1", "f2@1", "f3@3", "own@2", "own2@4"];
    assert_eq!(numbered(&catalog).await, expected);
    let summary = now.metadata.current_snapshot().unwrap().summary();
    assert_eq!(summary.operation.as_str(), "replace");
    for (key, value) in [
        ("icecore.test", "yes"),
        ("added-data-files", "1"),
        ("deleted-data-files", "1"),
        ("added-records", "10"),
        ("deleted-records", "10"),
        ("manifests-replaced", "1"),
    ] {
        assert_eq!(summary.additional_properties[key], value, "{key}");
    }
    // What it made is as good for others as what clients make.
    let again = NewSnapshot {
        removed: vec![rows_of(&now, "f1-small", 10), rows_of(&now, "f2", 10)],
        added: vec![rows_of(&now, "f", 20)],
        ..rewrite(Operation::Replace, &now)
    };
    catalog.add_snapshot(&table, again).await.unwrap();
    commit(&catalog, 9, Work { removes: &["f"], ..UPDATE }).await.unwrap();
    assert_eq!(numbered(&catalog).await, ["f1-new@7", "f3@3", "own@2", "own2@4"]);
}

/// After `between` a rewrite is refused, names the file and leaves nothing behind.
async fn check_refused(operation: Operation, between: Work<'_>, why: &str) {
    let (house, catalog) = two_files().await;
    let read = load(&catalog).await;
    commit(&catalog, 2, between).await.unwrap();
    let before = (house.files().await, numbered(&catalog).await);
    let lost = catalog.add_snapshot(&ident("a.t"), rewrite(operation, &read)).await;
    let Err(CatalogError::CommitFailed(text)) = &lost else { panic!("{why}: {lost:?}") };
    assert!(text.contains(why), "{text}");
    assert_eq!((house.files().await, numbered(&catalog).await), before);
}

#[tokio::test]
async fn a_rewrite_of_a_file_that_is_not_live_or_got_deletes_is_refused() {
    for operation in [Operation::Replace, Operation::Overwrite, Operation::Delete] {
        check_refused(operation, UPDATE, "/data/f1` is not live any more").await;
    }
    for operation in [Operation::Replace, Operation::Overwrite] {
        check_refused(operation, DELETE, "/data/f1` since").await;
    }
}

#[tokio::test]
async fn a_rewrite_takes_the_deletes_out_that_it_has_carried_out() {
    let (_house, catalog) = two_files().await;
    commit(&catalog, 2, DELETE).await.unwrap();
    let read = load(&catalog).await;
    let of_deletes = NewSnapshot {
        removed: vec![rows_of(&read, "f1", 10), one_row(&read, "d1", "f1")],
        added: vec![rows_of(&read, "f1-small", 9)],
        ..rewrite(Operation::Replace, &read)
    };
    let now = catalog.add_snapshot(&ident("a.t"), of_deletes.clone()).await.unwrap();
    assert_eq!(numbered(&catalog).await, ["f1-small@2", "f2@1"]);
    let summary = now.metadata.current_snapshot().unwrap().summary();
    assert_eq!(summary.additional_properties["removed-position-deletes"], "1");
    // Sent again it is another one, whose files are gone.
    let again = catalog.add_snapshot(&ident("a.t"), of_deletes).await;
    assert!(matches!(again, Err(CatalogError::CommitFailed(_))), "{again:?}");
}

#[tokio::test]
async fn rows_are_deleted_by_their_place_on_top_of_others() {
    let (_house, catalog) = two_files().await;
    let read = load(&catalog).await;
    commit(&catalog, 2, DELETE).await.unwrap();
    let delete = NewSnapshot {
        removed: Vec::new(),
        added: Vec::new(),
        deletes: vec![(0, one_row(&read, "d2", "f1"))],
        ..rewrite(Operation::Delete, &read)
    };
    catalog.add_snapshot(&ident("a.t"), delete.clone()).await.unwrap();
    assert_eq!(numbered(&catalog).await, ["d1@2", "d2@3", "f1@1", "f2@1"]);
    // With new rows for those that go it counts who was first.
    let update = NewSnapshot {
        operation: Operation::Overwrite,
        added: vec![rows_of(&read, "f3", 1)],
        deletes: vec![(0, one_row(&read, "d3", "f1"))],
        ..delete
    };
    let lost = catalog.add_snapshot(&ident("a.t"), update.clone()).await;
    assert!(matches!(lost, Err(CatalogError::CommitFailed(_))), "{lost:?}");
    let read = load(&catalog).await.metadata.current_snapshot_id();
    catalog.add_snapshot(&ident("a.t"), NewSnapshot { read, ..update }).await.unwrap();
    let expected = ["d1@2", "d2@3", "d3@4", "f1@1", "f2@1", "f3@4"];
    assert_eq!(numbered(&catalog).await, expected);
}

#[tokio::test]
async fn rows_that_stand_for_all_of_a_table_are_put_on_nothing_newer() {
    let (_house, catalog) = two_files().await;
    let table = ident("a.t");
    let read = load(&catalog).await;
    let whole = NewSnapshot { needs_head: true, ..rewrite(Operation::Overwrite, &read) };
    catalog.add_snapshot(&table, own_append(&read, "own", 1)).await.unwrap();
    // As of an empty table.
    let first = NewSnapshot {
        needs_head: true,
        added: vec![rows_of(&read, "f9", 1)],
        ..NewSnapshot::default()
    };
    for late in [whole.clone(), first] {
        let lost = catalog.add_snapshot(&table, late).await;
        assert!(matches!(lost, Err(CatalogError::CommitFailed(_))), "{lost:?}");
    }
    let read = load(&catalog).await.metadata.current_snapshot_id();
    catalog.add_snapshot(&table, NewSnapshot { read, ..whole }).await.unwrap();
    assert_eq!(numbered(&catalog).await, ["f1-small@3", "f2@1", "own@2"]);
}

#[tokio::test]
async fn rows_of_other_columns_than_a_table_has_by_now_are_refused() {
    let (_house, catalog) = two_files().await;
    let table = ident("a.t");
    let read = load(&catalog).await;
    let current = read.metadata.current_schema();
    let id = read.metadata.last_column_id() + 1;
    let more = NestedField::optional(id, "more", Type::Primitive(PrimitiveType::Int));
    let fields = current.as_struct().fields().iter().cloned().chain([more.into()]);
    let schema = Schema::builder().with_fields(fields).build().unwrap();
    let rows = |name: &str, updates: Vec<TableUpdate>| NewSnapshot {
        added: vec![rows_of(&read, name, 1)],
        evolution: Some(TableEvolution {
            requirements: vec![TableRequirement::CurrentSchemaIdMatch {
                current_schema_id: current.schema_id(),
            }],
            updates,
        }),
        ..NewSnapshot::default()
    };
    catalog.add_snapshot(&table, rows("f3", Vec::new())).await.unwrap();
    let updates =
        vec![TableUpdate::AddSchema { schema }, TableUpdate::SetCurrentSchema { schema_id: -1 }];
    let now = catalog.add_snapshot(&table, rows("f4", updates)).await.unwrap();
    assert_eq!(now.metadata.current_schema().field_id_by_name("more"), Some(id));
    let of = now.metadata.current_snapshot().unwrap().schema_id();
    assert_eq!(of, Some(now.metadata.current_schema_id()));
    let late = catalog.add_snapshot(&table, rows("f5", Vec::new())).await;
    assert!(matches!(late, Err(CatalogError::CommitFailed(_))), "{late:?}");
    assert_eq!(numbered(&catalog).await, ["f1@1", "f2@1", "f3@2", "f4@3"]);
}

/// What was found for `read` before its turn, and the state of the table in its turn, which came after
/// `between`.
async fn examined(between: Option<Work<'_>>) -> (House, LoadedTable, NewSnapshot, ReadManifests) {
    let (house, catalog) = two_files().await;
    let read = load(&catalog).await;
    let new = rewrite(Operation::Replace, &read);
    let mut found = ReadManifests::default();
    snapshot::examine(catalog.storage(), &read.metadata, &new, &mut found).await.unwrap();
    if let Some(between) = between {
        commit(&catalog, 2, between).await.unwrap();
    }
    let now = load(&catalog).await;
    (house, now, new, found)
}

#[tokio::test]
async fn what_a_rewrite_takes_out_is_read_before_its_turn() {
    let (house, now, new, found) = examined(None).await;
    let storage = house.catalog.storage();
    let head = now.metadata.current_snapshot().unwrap();
    for manifest in snapshot::read_list(storage, &now.metadata, head).await.unwrap() {
        storage.delete(&manifest.manifest_path).await.unwrap();
    }
    let built =
        |found| snapshot::build(storage, &now.metadata, &new, found, house.catalog.now_ms());
    built(&found).await.unwrap();
    let unread = built(&ReadManifests::default()).await;
    assert!(matches!(unread, Err(CatalogError::Storage { .. })), "{unread:?}");
}

#[tokio::test]
async fn what_others_commit_before_the_turn_of_a_rewrite_is_seen_in_it() {
    for (between, why) in [(UPDATE, "is not live any more"), (DELETE, "/data/f1` since")] {
        let (house, now, new, found) = examined(Some(between)).await;
        let storage = house.catalog.storage();
        let built =
            snapshot::build(storage, &now.metadata, &new, &found, house.catalog.now_ms()).await;
        let Err(CatalogError::CommitFailed(text)) = &built else { panic!("{built:?}") };
        assert!(text.contains(why), "{text}");
    }
}

#[tokio::test]
async fn a_replace_moves_the_mark_that_it_has_and_no_other() {
    let (_house, catalog) = two_files().await;
    let table = ident("a.t");
    let read = load(&catalog).await;
    let at = |epoch, position| {
        let watermark = Watermark { epoch, position, last_seq: 0 };
        NewSnapshot {
            mark: Some(MarkMove { watermark, since: 2 }),
            ..rewrite(Operation::Replace, &read)
        }
    };
    let moved = catalog.add_snapshot(&table, at(2, 7)).await.unwrap();
    assert_eq!(moved.watermark.map(|held| (held.epoch, held.position)), Some((2, 7)));
    // Sent again its files are gone, but its mark tells that it was made.
    let again = catalog.add_snapshot(&table, at(2, 7)).await.unwrap();
    assert_eq!(again.version, moved.version);
    let deposed = catalog.add_snapshot(&table, at(1, 8)).await;
    assert!(matches!(deposed, Err(CatalogError::CommitFailed(_))), "{deposed:?}");
    let small = NewSnapshot {
        removed: vec![rows_of(&moved, "f1-small", 10)],
        ..rewrite(Operation::Replace, &moved)
    };
    let unmarked = catalog.add_snapshot(&table, small).await.unwrap();
    assert_eq!(unmarked.watermark, moved.watermark);
}

#[tokio::test]
async fn an_overwrite_of_a_branch_leaves_main_as_it_is() {
    let (_house, catalog) = two_files().await;
    let table = ident("a.t");
    let read = load(&catalog).await;
    catalog.refs().create(&table, "b", RefKind::Branch, None).await.unwrap();
    catalog.add_snapshot(&table, own_append(&read, "own", 1)).await.unwrap();
    let before = load(&catalog).await;
    let of = |branch: &str| NewSnapshot {
        branch: Some(branch.to_owned()),
        ..rewrite(Operation::Overwrite, &read)
    };
    let made = catalog.add_snapshot(&table, of("b")).await.unwrap();
    assert_eq!(numbered(&catalog).await, ["f1@1", "f2@1", "own@2"]);
    assert_eq!(made.metadata.current_snapshot_id(), before.metadata.current_snapshot_id());
    assert_eq!(made.watermark, before.watermark);
    let head = made.metadata.snapshot_for_ref("b").unwrap();
    assert_eq!(head.parent_snapshot_id(), read.metadata.current_snapshot_id());
    assert_eq!(head.summary().operation, Operation::Overwrite);
    let entries = &head.summary().additional_properties;
    assert_eq!(entries["deleted-data-files"], "1");
    // What it was read of is not the branch's head any more, and the file is gone there.
    let again = catalog.add_snapshot(&table, of("b")).await;
    assert!(matches!(again, Err(CatalogError::CommitFailed(_))), "{again:?}");
    let nowhere = catalog.add_snapshot(&table, of("c")).await;
    assert!(matches!(nowhere, Err(CatalogError::NoSuchReference(_))), "{nowhere:?}");
}

#[tokio::test]
async fn a_branch_begins_with_a_snapshot_and_goes_on_from_its_head_alone() {
    let (_house, catalog) = two_files().await;
    let table = ident("a.t");
    let read = load(&catalog).await;
    let at = read.metadata.current_snapshot_id().unwrap();
    let main = catalog.add_snapshot(&table, own_append(&read, "own", 1)).await.unwrap();
    let fork = |replaces: Option<i64>| NewSnapshot {
        branch: Some("b".to_owned()),
        read: Some(at),
        fork: Some(BranchFork { replaces }),
        summary: [(BRANCH.to_owned(), "b".to_owned())].into(),
        ..NewSnapshot::default()
    };
    let head = async || {
        let table = load(&catalog).await;
        table.metadata.snapshot_for_ref("b").map(|head| head.snapshot_id())
    };
    let made = catalog.add_snapshot(&table, fork(None)).await.unwrap();
    let first = head().await.unwrap();
    let snapshot = made.metadata.snapshot_by_id(first).unwrap();
    assert_eq!(snapshot.parent_snapshot_id(), Some(at));
    assert_eq!(made.metadata.current_snapshot_id(), main.metadata.current_snapshot_id());
    assert_eq!(made.watermark, main.watermark);
    let again = catalog.add_snapshot(&table, fork(None)).await;
    assert!(matches!(again, Err(CatalogError::CommitFailed(_))), "{again:?}");
    let next = |read: i64| NewSnapshot {
        branch: Some("b".to_owned()),
        read: Some(read),
        needs_head: true,
        ..NewSnapshot::default()
    };
    let made = catalog.add_snapshot(&table, next(first)).await.unwrap();
    let second = head().await.unwrap();
    let snapshot = made.metadata.snapshot_by_id(second).unwrap();
    assert_eq!(snapshot.summary().additional_properties[BRANCH], "b");
    let late = catalog.add_snapshot(&table, next(first)).await;
    assert!(matches!(late, Err(CatalogError::CommitFailed(_))), "{late:?}");
    let anew = catalog.add_snapshot(&table, fork(Some(second))).await.unwrap();
    let third = anew.metadata.snapshot_for_ref("b").unwrap();
    assert_eq!(third.parent_snapshot_id(), Some(at));
    // One may begin with nothing of what is there.
    let empty = NewSnapshot { branch: Some("c".to_owned()), read: None, ..fork(None) };
    let made = catalog.add_snapshot(&table, empty).await.unwrap();
    let root = made.metadata.snapshot_for_ref("c").unwrap();
    assert_eq!(root.parent_snapshot_id(), None);
    let rows = root.summary().additional_properties.get("total-records");
    assert!(rows.is_none_or(|rows| rows == "0"), "{rows:?}");
    assert_eq!(made.metadata.current_snapshot_id(), main.metadata.current_snapshot_id());
}
