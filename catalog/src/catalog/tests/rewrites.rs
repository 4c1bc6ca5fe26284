//! Rewrites, overwrites and deletes of our own, beside what others commit.

use super::{late_client::*, live::*, row_delta::files, *};
use crate::append::{Rewrite, RewriteKind};
use iceberg::spec::DataFile;
use std::collections::BTreeMap;

fn rewrite(kind: RewriteKind, read: &LoadedTable) -> Rewrite {
    Rewrite {
        kind,
        read: read.metadata.current_snapshot_id().unwrap(),
        removed: vec![rows_of(read, "f1", 10)],
        added: vec![rows_of(read, "f1-small", 10)],
        deletes: Vec::new(),
        summary: BTreeMap::from([("icecore.test".to_owned(), "yes".to_owned())]),
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
    catalog.load_table(&ident("a.t")).await.unwrap()
}

async fn numbered(catalog: &Catalog) -> Vec<String> {
    files(catalog).await.into_iter().map(|(name, number)| format!("{name}@{number}")).collect()
}

#[tokio::test]
async fn a_replace_is_put_on_top_of_appends_that_came_in_between() {
    let (_house, catalog) = two_files().await;
    let table = ident("a.t");
    let read = load(&catalog).await;
    catalog.append(&table, own_append(&read, "own", 1)).await.unwrap();
    commit(&catalog, 2, Work { operation: "append", adds: &[("f3", 5)], ..Work::default() })
        .await
        .unwrap();
    let (own, replaced) = tokio::join!(
        catalog.append(&table, own_append(&read, "own2", 2)),
        catalog.rewrite(&table, rewrite(RewriteKind::Replace, &read)),
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
    let again = Rewrite {
        removed: vec![rows_of(&now, "f1-small", 10), rows_of(&now, "f2", 10)],
        added: vec![rows_of(&now, "f", 20)],
        ..rewrite(RewriteKind::Replace, &now)
    };
    catalog.rewrite(&table, again).await.unwrap();
    commit(&catalog, 9, Work { removes: &["f"], ..UPDATE }).await.unwrap();
    assert_eq!(numbered(&catalog).await, ["f1-new@7", "f3@3", "own@2", "own2@4"]);
}

/// After `between` a rewrite is refused, names the file and leaves nothing behind.
async fn check_refused(kind: RewriteKind, between: Work<'_>, why: &str) {
    let (house, catalog) = two_files().await;
    let read = load(&catalog).await;
    commit(&catalog, 2, between).await.unwrap();
    let before = (house.files().await, numbered(&catalog).await);
    let lost = catalog.rewrite(&ident("a.t"), rewrite(kind, &read)).await;
    let Err(CatalogError::CommitFailed(text)) = &lost else { panic!("{why}: {lost:?}") };
    assert!(text.contains(why), "{text}");
    assert_eq!((house.files().await, numbered(&catalog).await), before);
}

#[tokio::test]
async fn a_rewrite_of_a_file_that_is_not_live_or_got_deletes_is_refused() {
    for kind in [RewriteKind::Replace, RewriteKind::Overwrite, RewriteKind::Delete] {
        check_refused(kind, UPDATE, "/data/f1` is not live any more").await;
    }
    for kind in [RewriteKind::Replace, RewriteKind::Overwrite] {
        check_refused(kind, DELETE, "/data/f1` since").await;
    }
}

#[tokio::test]
async fn a_rewrite_takes_the_deletes_out_that_it_has_carried_out() {
    let (_house, catalog) = two_files().await;
    commit(&catalog, 2, DELETE).await.unwrap();
    let read = load(&catalog).await;
    let of_deletes = Rewrite {
        removed: vec![rows_of(&read, "f1", 10), one_row(&read, "d1", "f1")],
        added: vec![rows_of(&read, "f1-small", 9)],
        ..rewrite(RewriteKind::Replace, &read)
    };
    let now = catalog.rewrite(&ident("a.t"), of_deletes.clone()).await.unwrap();
    assert_eq!(numbered(&catalog).await, ["f1-small@2", "f2@1"]);
    let summary = now.metadata.current_snapshot().unwrap().summary();
    assert_eq!(summary.additional_properties["removed-position-deletes"], "1");
    // Sent again it is another one, whose files are gone.
    let again = catalog.rewrite(&ident("a.t"), of_deletes).await;
    assert!(matches!(again, Err(CatalogError::CommitFailed(_))), "{again:?}");
}

#[tokio::test]
async fn rows_are_deleted_by_their_place_on_top_of_others() {
    let (_house, catalog) = two_files().await;
    let read = load(&catalog).await;
    commit(&catalog, 2, DELETE).await.unwrap();
    let delete = Rewrite {
        removed: Vec::new(),
        added: Vec::new(),
        deletes: vec![(0, one_row(&read, "d2", "f1"))],
        ..rewrite(RewriteKind::Delete, &read)
    };
    catalog.rewrite(&ident("a.t"), delete.clone()).await.unwrap();
    assert_eq!(numbered(&catalog).await, ["d1@2", "d2@3", "f1@1", "f2@1"]);
    // With new rows for those that go it counts who was first.
    let update = Rewrite {
        kind: RewriteKind::Overwrite,
        added: vec![rows_of(&read, "f3", 1)],
        deletes: vec![(0, one_row(&read, "d3", "f1"))],
        ..delete
    };
    let lost = catalog.rewrite(&ident("a.t"), update.clone()).await;
    assert!(matches!(lost, Err(CatalogError::CommitFailed(_))), "{lost:?}");
    let read = load(&catalog).await.metadata.current_snapshot_id().unwrap();
    catalog.rewrite(&ident("a.t"), Rewrite { read, ..update }).await.unwrap();
    let expected = ["d1@2", "d2@3", "d3@4", "f1@1", "f2@1", "f3@4"];
    assert_eq!(numbered(&catalog).await, expected);
}
