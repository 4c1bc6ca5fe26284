//! Commits of clients that name files which compaction replaced since they were read.

mod model;

use super::{late_client::*, live::*, places::strict, row_delta::*, *};
use crate::{
    commit::{self, COMPACTION, MERGED},
    row_sum::ROWS_SUM_BASIS,
};
use iceberg::spec::{DataFile, FormatVersion, ManifestFile, ManifestList, Operation};
use std::collections::BTreeMap;

/// A compaction of data files, each with its rows, and of delete files, each with its data file.
fn compaction(
    read: &LoadedTable,
    merged: &[(&str, u64)],
    deletes: &[(&str, &str)],
    added: &[(&str, u64)],
) -> NewSnapshot {
    let file = |(name, rows): &(&str, u64)| rows_of(read, name, *rows);
    let removed = merged.iter().map(file);
    let deletes = deletes.iter().map(|(name, about)| delete(read, (name, Some(about))));
    NewSnapshot {
        operation: Operation::Replace,
        read: read.metadata.current_snapshot_id(),
        removed: removed.chain(deletes).collect(),
        added: added.iter().map(file).collect(),
        summary: BTreeMap::from([(COMPACTION.to_owned(), MERGED.to_owned())]),
        ..NewSnapshot::default()
    }
}

/// A position delete file of a data file that comes with it.
fn carried(read: &LoadedTable, name: &str, about: &str) -> (i32, DataFile) {
    let place = |name: &str| format!("{}/data/{name}", read.metadata.location());
    let file = DataFileBuilder::default()
        .content(DataContentType::PositionDeletes)
        .file_path(place(name))
        .file_format(DataFileFormat::Parquet)
        .record_count(1)
        .file_size_in_bytes(10)
        .partition(Struct::empty())
        .partition_spec_id(0)
        .referenced_data_file(Some(place(about)))
        .build()
        .unwrap();
    (0, file)
}

async fn compact(catalog: &Catalog, merged: &[(&str, u64)], added: &str) -> LoadedTable {
    let read = load(catalog).await;
    let rows: u64 = merged.iter().map(|(_, rows)| rows).sum();
    let new = compaction(&read, merged, &[], &[(added, rows)]);
    catalog.add_snapshot(&ident("a.t"), new).await.unwrap()
}

const BOTH: &[(&str, u64)] = &[("f1", 10), ("f2", 10)];

async fn load(catalog: &Catalog) -> LoadedTable {
    catalog.tables().load(&ident("a.t")).await.unwrap()
}

async fn numbered(catalog: &Catalog) -> Vec<String> {
    files(catalog).await.into_iter().map(|(name, number)| format!("{name}@{number}")).collect()
}

async fn listed_in(catalog: &Catalog, list: &str) -> Vec<ManifestFile> {
    let bytes = catalog.storage().get(list).await.unwrap();
    let list = ManifestList::parse_with_version(&bytes, FormatVersion::V2).unwrap();
    list.consume_entries().into_iter().collect()
}

/// A client that writes a file anew without some of its rows: what goes and what comes are in manifests of
/// their own, as PyIceberg and Iceberg's Java library write them.
async fn copy_on_write(
    catalog: &Catalog,
    read: &LoadedTable,
    id: i64,
    removes: &[&str],
    adds: &[(&str, u64)],
) -> TableChange {
    let work = Work { operation: "overwrite", removes, ..Work::default() };
    let change = put(catalog, read, id, work).await;
    let added: Vec<DataFile> = adds.iter().map(|(name, rows)| rows_of(read, name, *rows)).collect();
    let mut list = listed_in(catalog, &own_list(read, id)).await;
    list.push(manifest((catalog, read), id, "data-new", &added, &[]).await);
    let location = format!("{}/metadata/{id}-both.avro", read.metadata.location());
    let output = catalog.storage().file_io().new_output(&location).unwrap();
    let (parent, number) =
        (read.metadata.current_snapshot_id(), read.metadata.next_sequence_number());
    let mut written = ManifestListWriter::v2(output.writer().await.unwrap(), id, parent, number);
    written.add_manifests(list.into_iter()).unwrap();
    written.close().await.unwrap();
    let mut updates = serde_json::to_value(&change.updates).unwrap();
    updates[0]["snapshot"]["manifest-list"] = json!(location);
    TableChange { updates: serde_json::from_value(updates).unwrap(), ..change }
}

#[tokio::test]
async fn a_late_delete_has_the_files_that_compaction_replaced_live_again() {
    let (_house, catalog) = two_files().await;
    let read = load(&catalog).await;
    let late = put(&catalog, &read, 2, DELETE).await;
    let compacted = compact(&catalog, BOTH, "f").await;
    assert_eq!(numbered(&catalog).await, ["f@1"]);
    let now = catalog.commit(late.clone()).await.unwrap();
    assert_eq!(numbered(&catalog).await, ["d1@4", "f1@1", "f2@1"]);
    let head = now.metadata.current_snapshot().unwrap();
    assert_eq!(head.snapshot_id(), 2);
    let between = now.metadata.snapshot_by_id(head.parent_snapshot_id().unwrap()).unwrap();
    assert_eq!(between.parent_snapshot_id(), compacted.metadata.current_snapshot_id());
    assert_eq!(between.summary().operation, Operation::Replace);
    let summary = &between.summary().additional_properties;
    for (key, value) in [
        (COMPACTION, commit::TAKEN_BACK),
        ("added-data-files", "2"),
        ("deleted-data-files", "1"),
        ("added-records", "20"),
        ("deleted-records", "20"),
        ("manifests-replaced", "1"),
    ] {
        assert_eq!(summary[key], value, "{key}");
    }
    // Its rows are those of the snapshot before it, so nobody has to sum them up.
    let before = compacted.metadata.current_snapshot_id().unwrap();
    assert_eq!(summary[ROWS_SUM_BASIS], before.to_string());
    // A repeat finds it, and compaction begins anew.
    assert_eq!(catalog.commit(late).await.unwrap().version, now.version);
    let again = compaction(&now, BOTH, &[("d1", "f1")], &[("f9", 19)]);
    catalog.add_snapshot(&ident("a.t"), again).await.unwrap();
    assert_eq!(numbered(&catalog).await, ["f9@4"]);
}

#[tokio::test]
async fn totals_count_what_the_client_of_a_late_commit_does_not_tell() {
    for (is_overwrite, totals) in
        [(false, ["2", "20", "30", "1", "1"]), (true, ["2", "19", "20", "0", "0"])]
    {
        let house = house().await;
        let catalog = strict(&house);
        let made = create(&catalog, "a.t").await;
        let added = vec![rows_of(&made, "f1", 10), rows_of(&made, "f2", 10)];
        let append = NewSnapshot { added, ..NewSnapshot::default() };
        let read = catalog.add_snapshot(&ident("a.t"), append).await.unwrap();
        // Its summary has the operation alone.
        let late = match is_overwrite {
            true => copy_on_write(&catalog, &read, 2, &["f1"], &[("f1-new", 9)]).await,
            false => put(&catalog, &read, 2, DELETE).await,
        };
        compact(&catalog, BOTH, "f").await;
        let now = catalog.commit(late).await.unwrap();
        let head = now.metadata.current_snapshot().unwrap();
        assert_eq!(head.snapshot_id(), 2);
        let summary = &head.summary().additional_properties;
        let told = [
            "total-data-files",
            "total-records",
            "total-files-size",
            "total-delete-files",
            "total-position-deletes",
        ];
        assert_eq!(told.map(|key| summary[key].as_str()), totals, "{summary:?}");
    }
}

#[tokio::test]
async fn a_late_overwrite_comes_on_top_of_the_files_that_compaction_replaced_and_of_appends() {
    let (house, catalog) = two_files().await;
    let read = load(&catalog).await;
    let late = copy_on_write(&catalog, &read, 2, &["f1"], &[("f1-new", 9)]).await;
    compact(&catalog, BOTH, "f").await;
    catalog.add_snapshot(&ident("a.t"), own_append(&read, "own", 1)).await.unwrap();
    // Another process has the table as it was.
    let other = strict(&house);
    other.commit(late).await.unwrap();
    assert_eq!(numbered(&catalog).await, ["f1-new@5", "f2@1", "own@3"]);
    let mut queued = catalog.metastore().obsolete(i64::MAX, 10).await.unwrap();
    queued.retain(|file| file.contains("/data/"));
    assert!(queued.is_empty(), "{queued:?}");
    // What comes after it goes on as ever.
    commit(&catalog, 9, Work { removes: &["f2"], adds: &[("f2-new", 9)], ..UPDATE }).await.unwrap();
    assert_eq!(numbered(&catalog).await, ["f1-new@5", "f2-new@6", "own@3"]);
}

#[tokio::test]
async fn a_late_overwrite_comes_on_top_of_appends_alone() {
    let (_house, catalog) = two_files().await;
    let read = load(&catalog).await;
    let late = copy_on_write(&catalog, &read, 2, &["f1"], &[("f1-new", 9)]).await;
    let again = copy_on_write(&catalog, &read, 3, &["f1"], &[("f1-newer", 9)]).await;
    catalog.add_snapshot(&ident("a.t"), own_append(&read, "own", 1)).await.unwrap();
    catalog.commit(late).await.unwrap();
    assert_eq!(numbered(&catalog).await, ["f1-new@3", "f2@1", "own@2"]);
    let lost = catalog.commit(again).await;
    let Err(CatalogError::CommitFailed(text)) = &lost else { panic!("{lost:?}") };
    assert!(text.contains("/data/f1` was removed or rewritten since"), "{text}");
}

/// PyIceberg sends an overwrite as a snapshot that removes and one that adds.
#[tokio::test]
async fn a_late_commit_of_two_snapshots_is_put_on_top_whole() {
    let (_house, catalog) = two_files().await;
    let read = load(&catalog).await;
    let first = copy_on_write(&catalog, &read, 2, &["f1"], &[("f1-new", 9)]).await;
    let metadata = commit::apply_updates_at(&read.metadata, None, &first.updates, NOW).unwrap();
    let after = LoadedTable { metadata: Arc::new(metadata), ..read.clone() };
    let append = Work { operation: "append", adds: &[("f3", 1)], ..Work::default() };
    let second = put(&catalog, &after, 3, append).await;
    let updates = first.updates.iter().chain(&second.updates).cloned().collect();
    let both = TableChange { updates, ..first };
    compact(&catalog, BOTH, "f").await;
    let now = catalog.commit(both.clone()).await.unwrap();
    assert_eq!(numbered(&catalog).await, ["f1-new@4", "f2@1", "f3@5"]);
    assert_eq!(now.metadata.current_snapshot_id(), Some(3));
    assert_eq!(catalog.commit(both).await.unwrap().version, now.version);
}

#[tokio::test]
async fn compactions_of_what_compaction_wrote_are_taken_back_together() {
    let (_house, catalog) = two_files().await;
    let read = load(&catalog).await;
    let late = put(&catalog, &read, 2, DELETE).await;
    compact(&catalog, BOTH, "f").await;
    commit(&catalog, 3, Work { operation: "append", adds: &[("f3", 5)], ..Work::default() })
        .await
        .unwrap();
    compact(&catalog, &[("f", 20), ("f3", 5)], "g").await;
    catalog.commit(late).await.unwrap();
    assert_eq!(numbered(&catalog).await, ["d1@6", "f1@1", "f2@1", "f3@3"]);
    // And one that read the same, after what was taken back was compacted once more.
    let d2 = Work { deletes: &[("d2", "f2")], ..DELETE };
    let late = put(&catalog, &read, 4, d2).await;
    let read = load(&catalog).await;
    let new = compaction(&read, BOTH, &[("d1", "f1")], &[("h", 19)]);
    catalog.add_snapshot(&ident("a.t"), new).await.unwrap();
    catalog.commit(late).await.unwrap();
    assert_eq!(numbered(&catalog).await, ["d1@6", "d2@9", "f1@1", "f2@1", "f3@3"]);
}

#[tokio::test]
async fn what_is_left_of_a_compaction_that_was_taken_back_in_part_is_taken_back_later() {
    let (_house, catalog) = two_files().await;
    let read = load(&catalog).await;
    let first = put(&catalog, &read, 2, DELETE).await;
    compact(&catalog, BOTH, "f").await;
    let append = Work { operation: "append", adds: &[("f3", 5)], ..Work::default() };
    let read = commit(&catalog, 3, append).await.unwrap();
    let second = put(&catalog, &read, 4, Work { deletes: &[("d3", "f3")], ..DELETE }).await;
    compact(&catalog, &[("f", 20), ("f3", 5)], "g").await;
    catalog.commit(second).await.unwrap();
    assert_eq!(numbered(&catalog).await, ["d3@6", "f@1", "f3@3"]);
    catalog.commit(first).await.unwrap();
    assert_eq!(numbered(&catalog).await, ["d1@8", "d3@6", "f1@1", "f2@1", "f3@3"]);
}

#[tokio::test]
async fn a_delete_of_what_compaction_wrote_is_not_lost_where_it_was_carried_out() {
    let (_house, catalog) = two_files().await;
    let read = load(&catalog).await;
    let late = put(&catalog, &read, 2, DELETE).await;
    compact(&catalog, BOTH, "f").await;
    let now = commit(&catalog, 3, Work { deletes: &[("d9", "f")], ..DELETE }).await.unwrap();
    // Its file stays when its rows are left out, and goes by itself.
    let merged = compaction(&now, &[("f", 20)], &[], &[("g", 19)]);
    let now = catalog.add_snapshot(&ident("a.t"), merged).await.unwrap();
    let dangling =
        NewSnapshot { summary: BTreeMap::new(), ..compaction(&now, &[], &[("d9", "f")], &[]) };
    catalog.add_snapshot(&ident("a.t"), dangling).await.unwrap();
    let lost = catalog.commit(late).await;
    let Err(CatalogError::CommitFailed(text)) = &lost else { panic!("{lost:?}") };
    assert!(text.contains("/data/d9`, which deleted rows of it, was removed"), "{text}");
    assert_eq!(numbered(&catalog).await, ["g@3"]);
}

/// After a compaction and `between`, a late delete of rows of `f1` is refused, says why and changes nothing.
async fn check_refused(between: Work<'_>, why: &str) {
    let (house, catalog) = two_files().await;
    let read = load(&catalog).await;
    let late = put(&catalog, &read, 2, DELETE).await;
    compact(&catalog, BOTH, "f").await;
    commit(&catalog, 3, between).await.unwrap();
    let before = (house.files().await, numbered(&catalog).await);
    let lost = catalog.commit(late).await;
    let Err(CatalogError::CommitFailed(text)) = &lost else { panic!("{why}: {lost:?}") };
    assert!(text.contains("/data/f1`") && text.contains(why), "{text}");
    assert_eq!((house.files().await, numbered(&catalog).await), before);
}

#[tokio::test]
async fn what_others_made_of_compacted_files_is_not_taken_back() {
    let deletes = Work { deletes: &[("d9", "f")], ..DELETE };
    check_refused(deletes, "/data/d9` deletes rows of what it wrote").await;
    let removes = Work { removes: &["f"], adds: &[], operation: "delete", ..UPDATE };
    check_refused(removes, "/data/f`, which it wrote, was removed").await;
    check_refused(Work { removes: &["f"], ..UPDATE }, "/data/f`, which it wrote").await;
}

#[tokio::test]
async fn a_rewrite_of_others_is_not_taken_back() {
    let (_house, catalog) = two_files().await;
    let read = load(&catalog).await;
    let late = put(&catalog, &read, 2, DELETE).await;
    let foreign =
        NewSnapshot { summary: BTreeMap::new(), ..compaction(&read, BOTH, &[], &[("f", 20)]) };
    catalog.add_snapshot(&ident("a.t"), foreign).await.unwrap();
    let lost = catalog.commit(late).await;
    let Err(CatalogError::CommitFailed(text)) = &lost else { panic!("{lost:?}") };
    assert!(text.contains("/data/f1` was removed or rewritten since"), "{text}");
    assert_eq!(numbered(&catalog).await, ["f@1"]);
}

#[tokio::test]
async fn a_delete_that_compaction_carried_out_comes_back_with_its_file() {
    let (_house, catalog) = two_files().await;
    commit(&catalog, 2, DELETE).await.unwrap();
    let read = load(&catalog).await;
    let of_f2 = Work { deletes: &[("d2", "f2")], ..DELETE };
    let late = put(&catalog, &read, 3, of_f2).await;
    let new = compaction(&read, BOTH, &[("d1", "f1")], &[("f", 19)]);
    catalog.add_snapshot(&ident("a.t"), new).await.unwrap();
    assert_eq!(numbered(&catalog).await, ["f@2"]);
    catalog.commit(late).await.unwrap();
    assert_eq!(numbered(&catalog).await, ["d1@2", "d2@5", "f1@1", "f2@1"]);
}

/// A compaction of both files that was built on a state before these deletes, each with what carries it over,
/// is committed; gives a late delete of `f2` by a client that read the same state.
async fn carried_over(catalog: &Catalog, deletes: &[(&str, &str, &str)]) -> TableChange {
    let read = load(catalog).await;
    let late = put(catalog, &read, 2, Work { deletes: &[("d2", "f2")], ..DELETE }).await;
    let mut new = compaction(&read, BOTH, &[], &[("f", 20)]);
    for (id, &(delete, about, carries)) in (3..).zip(deletes) {
        let work = Work { deletes: &[(delete, about)], ..DELETE };
        let now = commit(catalog, id, work).await.unwrap();
        let lost = catalog.add_snapshot(&ident("a.t"), new.clone()).await;
        let Err(CatalogError::CommitFailed(text)) = &lost else { panic!("{lost:?}") };
        assert!(text.contains(&format!("/data/{about}` since")), "{text}");
        new.removed.push(super::row_delta::delete(&read, (delete, Some(about))));
        new.deletes.push(carried(&read, carries, "f"));
        new.deletes_read = now.metadata.current_snapshot_id();
    }
    catalog.add_snapshot(&ident("a.t"), new).await.unwrap();
    late
}

#[tokio::test]
async fn a_compaction_carries_deletes_over_that_came_meanwhile() {
    let (_house, catalog) = two_files().await;
    let late = carried_over(&catalog, &[("d1", "f1", "e1")]).await;
    assert_eq!(numbered(&catalog).await, ["e1@3", "f@1"]);
    // What it carried over is in the inputs again.
    let now = catalog.commit(late).await.unwrap();
    assert_eq!(numbered(&catalog).await, ["d1@2", "d2@5", "f1@1", "f2@1"]);
    let between = now.metadata.current_snapshot().unwrap().parent_snapshot_id().unwrap();
    let between = now.metadata.snapshot_by_id(between).unwrap();
    let summary = &between.summary().additional_properties;
    for (key, value) in [
        (COMPACTION, commit::TAKEN_BACK),
        ("added-delete-files", "1"),
        ("removed-delete-files", "1"),
    ] {
        assert_eq!(summary[key], value, "{key}");
    }
}

#[tokio::test]
async fn what_was_carried_over_goes_back_through_a_further_compaction() {
    let (_house, catalog) = two_files().await;
    let late = carried_over(&catalog, &[("d1", "f1", "e1"), ("d3", "f1", "e3")]).await;
    assert_eq!(numbered(&catalog).await, ["e1@4", "e3@4", "f@1"]);
    let append = Work { operation: "append", adds: &[("f3", 5)], ..Work::default() };
    let now = commit(&catalog, 9, append).await.unwrap();
    let merged = [("f", 20), ("f3", 5)];
    let again = compaction(&now, &merged, &[("e1", "f"), ("e3", "f")], &[("g", 23)]);
    catalog.add_snapshot(&ident("a.t"), again).await.unwrap();
    assert_eq!(numbered(&catalog).await, ["g@5"]);
    catalog.commit(late).await.unwrap();
    assert_eq!(numbered(&catalog).await, ["d1@2", "d2@8", "d3@3", "f1@1", "f2@1", "f3@5"]);
}

#[tokio::test]
async fn deletes_of_an_output_that_others_carried_out_or_added_are_not_taken_back() {
    for (between, why) in [
        (Some("d9"), "/data/d9` deletes rows of what it wrote"),
        (None, "/data/e1`, which deleted rows of it, was removed"),
    ] {
        let (_house, catalog) = two_files().await;
        let late = carried_over(&catalog, &[("d1", "f1", "e1")]).await;
        let now = load(&catalog).await;
        match between {
            Some(delete) => {
                commit(&catalog, 9, Work { deletes: &[(delete, "f")], ..DELETE }).await.unwrap();
            }
            None => {
                let new = compaction(&now, &[], &[("e1", "f")], &[]);
                let gone = NewSnapshot { summary: BTreeMap::new(), ..new };
                catalog.add_snapshot(&ident("a.t"), gone).await.unwrap();
            }
        }
        let before = numbered(&catalog).await;
        let lost = catalog.commit(late).await;
        let Err(CatalogError::CommitFailed(text)) = &lost else { panic!("{lost:?}") };
        assert!(text.contains(why), "{text}");
        assert_eq!(numbered(&catalog).await, before);
    }
}

#[tokio::test]
async fn a_delete_that_came_before_compaction_speaks_against_a_late_one_as_ever() {
    let (_house, catalog) = two_files().await;
    let read = load(&catalog).await;
    let late = put(&catalog, &read, 2, Work { deletes: &[("d2", "f1")], ..DELETE }).await;
    let now = commit(&catalog, 3, DELETE).await.unwrap();
    let new = compaction(&now, BOTH, &[("d1", "f1")], &[("f", 19)]);
    catalog.add_snapshot(&ident("a.t"), new).await.unwrap();
    let lost = catalog.commit(late).await;
    let Err(CatalogError::CommitFailed(text)) = &lost else { panic!("{lost:?}") };
    assert!(text.contains("another commit deleted rows of `"), "{text}");
    assert_eq!(numbered(&catalog).await, ["f@2"]);
}

#[tokio::test]
async fn files_that_are_about_to_be_deleted_do_not_come_back() {
    let (house, catalog) = two_files().await;
    let read = load(&catalog).await;
    let late = put(&catalog, &read, 2, DELETE).await;
    compact(&catalog, BOTH, "f").await;
    let location = format!("{}/data/f2", read.metadata.location());
    let file = ObsoleteFile { location, not_before_ms: i64::MAX };
    catalog.metastore().add_obsolete(&[file]).await.unwrap();
    let before = house.files().await;
    let lost = catalog.commit(late).await;
    let Err(CatalogError::CommitFailed(text)) = &lost else { panic!("{lost:?}") };
    assert!(text.contains("/data/f2` is about to be deleted"), "{text}");
    assert_eq!(numbered(&catalog).await, ["f@1"]);
    assert_eq!(house.files().await, before);
}

#[tokio::test]
async fn a_client_that_looks_for_conflicts_itself_is_moved_past_compaction_alone() {
    for with_append in [false, true] {
        let (_house, catalog) = two_files().await;
        let read = load(&catalog).await;
        let late = put(&catalog, &read, 2, DELETE).await;
        let mut updates = serde_json::to_value(&late.updates).unwrap();
        updates[0]["snapshot"]["summary"]["iceberg-version"] = json!("Apache Iceberg 1.10.1");
        let late = TableChange { updates: serde_json::from_value(updates).unwrap(), ..late };
        compact(&catalog, BOTH, "f").await;
        if with_append {
            catalog.add_snapshot(&ident("a.t"), own_append(&read, "own", 1)).await.unwrap();
        }
        assert_eq!(catalog.commit(late).await.is_ok(), !with_append);
    }
}
