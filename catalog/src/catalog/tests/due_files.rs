//! Files that are queued for deletion by mistake.

use super::{
    late_client::{Work, put},
    live::UPDATE,
    places::strict,
    row_delta::listed,
    *,
};
use crate::{
    catalog::{DueDeletions, RefKind},
    metastore::tests::stores,
};

/// Writes data files of a table.
async fn write(catalog: &Catalog, table: &LoadedTable, names: &[&str]) -> Vec<String> {
    let mut files = Vec::new();
    for name in names {
        let file = format!("{}/data/{name}", table.metadata.location());
        catalog.storage().put(&file, Bytes::from_static(b"x")).await.unwrap();
        files.push(file);
    }
    files
}

/// Queues files that may be deleted at once, whoever has them.
async fn queue(catalog: &Catalog, files: &[String]) {
    let file = |location: &String| ObsoleteFile { location: location.clone(), not_before_ms: 0 };
    let files: Vec<ObsoleteFile> = files.iter().map(file).collect();
    catalog.metastore().add_obsolete(&files).await.unwrap();
}

/// Which of the files are there.
async fn there(catalog: &Catalog, files: &[String]) -> Vec<bool> {
    let mut there = Vec::new();
    for file in files {
        there.push(catalog.storage().exists(file).await.unwrap());
    }
    there
}

#[tokio::test]
async fn a_file_that_a_branch_or_tag_has_is_not_deleted_whatever_the_queue_says() {
    for (_kept, metastore) in stores().await {
        let house = house_over(tempfile::tempdir().unwrap(), metastore).await;
        let (catalog, table) = (strict(&house), ident("a.t"));
        let made = create(&catalog, "a.t").await;
        let files = write(&catalog, &made, &["f1", "f2", "f1-new", "left"]).await;
        let both = Work { operation: "append", adds: &[("f1", 10), ("f2", 10)], ..Work::default() };
        let first = catalog.commit(put(&catalog, &made, 1, both).await).await.unwrap();
        catalog.refs().create(&table, "kept", RefKind::Tag, None).await.unwrap();
        catalog.commit(put(&catalog, &first, 2, UPDATE).await).await.unwrap();
        queue(&catalog, &files).await;
        assert_eq!(catalog.upkeep().delete_obsolete(100).await.unwrap(), 1);
        assert_eq!(there(&catalog, &files).await, [true, true, true, false]);
        assert_eq!(
            catalog.metastore().count_obsolete().await.unwrap(),
            0,
            "they are no longer in it"
        );
        // The first one was the tag's alone.
        catalog.refs().drop(&table, "kept", Some(RefKind::Tag)).await.unwrap();
        queue(&catalog, &files[..2]).await;
        assert_eq!(catalog.upkeep().delete_obsolete(100).await.unwrap(), 1);
        assert_eq!(there(&catalog, &files).await, [false, true, true, false]);
    }
}

#[tokio::test]
async fn lists_and_manifests_of_branches_and_tags_are_not_deleted_whatever_the_queue_says() {
    for (_kept, metastore) in stores().await {
        let house = house_over(tempfile::tempdir().unwrap(), metastore).await;
        let (catalog, table) = (strict(&house), ident("a.t"));
        let made = create(&catalog, "a.t").await;
        let both = Work { operation: "append", adds: &[("f1", 10), ("f2", 10)], ..Work::default() };
        let first = catalog.commit(put(&catalog, &made, 1, both).await).await.unwrap();
        catalog.refs().create(&table, "kept", RefKind::Tag, None).await.unwrap();
        let head = catalog.commit(put(&catalog, &first, 2, UPDATE).await).await.unwrap();
        let mut lists = Vec::new();
        let mut manifests = Vec::new();
        for state in [&first, &head] {
            let snapshot = state.metadata.current_snapshot().unwrap();
            lists.push(snapshot.manifest_list().to_owned());
            let of_list = listed(&catalog, state).await;
            manifests.push(of_list.into_iter().map(|it| it.manifest_path).collect::<Vec<String>>());
        }
        let of_head = manifests.pop().unwrap();
        let of_tag = manifests.pop().unwrap();
        let live = [lists, of_head, of_tag.clone(), vec![head.metadata_location.clone()]].concat();
        let left = format!("{}/metadata/left.avro", made.metadata.location());
        catalog.storage().put(&left, Bytes::from_static(b"x")).await.unwrap();
        queue(&catalog, &live).await;
        queue(&catalog, std::slice::from_ref(&left)).await;
        assert_eq!(catalog.upkeep().delete_obsolete(100).await.unwrap(), 1);
        assert_eq!(there(&catalog, &[left]).await, [false]);
        assert_eq!(there(&catalog, &live).await, vec![true; live.len()]);
        assert_eq!(catalog.metastore().count_obsolete().await.unwrap(), 0, "the rows are gone");
        // No branch lists it once the tag is gone.
        catalog.refs().drop(&table, "kept", Some(RefKind::Tag)).await.unwrap();
        queue(&catalog, &of_tag).await;
        assert_eq!(catalog.upkeep().delete_obsolete(100).await.unwrap(), 1);
        assert_eq!(there(&catalog, &of_tag).await, [false]);
    }
}

#[tokio::test]
async fn lists_and_manifests_in_other_folders_are_not_deleted_either() {
    let house = house().await;
    let catalog = &house.catalog;
    let made = create(catalog, "a.t").await;
    let file = format!("{}/data/f", made.metadata.location());
    let list = write_list(catalog, &made, 1, &[&file]).await;
    let bytes = catalog.storage().get(&list).await.unwrap();
    let elsewhere = format!("{}/lists/1.avro", made.metadata.location());
    catalog.storage().put(&elsewhere, bytes).await.unwrap();
    let sent = change("a.t", on_main(None), add_snapshot(&made, 1, &elsewhere));
    catalog.commit(sent).await.unwrap();
    let live = [elsewhere];
    queue(catalog, &live).await;
    assert_eq!(catalog.upkeep().delete_obsolete(100).await.unwrap(), 0);
    assert_eq!(there(catalog, &live).await, [true]);
    assert_eq!(catalog.metastore().count_obsolete().await.unwrap(), 0);
}

#[tokio::test]
async fn a_live_file_of_a_dropped_table_stays_while_the_table_can_be_had_back() {
    for (_kept, metastore) in stores().await {
        let house = house_over(tempfile::tempdir().unwrap(), metastore).await;
        let (catalog, table) = (&house.catalog, ident("a.t"));
        let made = create(catalog, "a.t").await;
        let files = write(catalog, &made, &["live", "left"]).await;
        let list = write_list(catalog, &made, 1, &[&files[0]]).await;
        let sent = change("a.t", on_main(None), add_snapshot(&made, 1, &list));
        catalog.commit(sent).await.unwrap();
        catalog.tables().drop(&table, true).await.unwrap();
        queue(catalog, &files).await;
        assert_eq!(catalog.upkeep().delete_obsolete(100).await.unwrap(), 1);
        assert_eq!(there(catalog, &files).await, [true, false]);
        // Once its time is over, its files go.
        house.clock.fetch_add(UNDROP_MS, Ordering::SeqCst);
        assert_eq!(catalog.trash().empty(10).await.unwrap(), 1);
        house.clock.fetch_add(10 * 60 * 1000, Ordering::SeqCst);
        while catalog.upkeep().delete_obsolete(100).await.unwrap() > 0 {}
        assert_eq!(there(catalog, &files).await, [false, false]);
    }
}

#[tokio::test]
async fn files_of_a_table_that_does_not_read_wait_and_hold_up_no_others() {
    let house = house().await;
    let catalog = &house.catalog;
    let (torn, whole) = (create(catalog, "a.torn").await, create(catalog, "a.whole").await);
    let files = write(catalog, &torn, &["live", "left"]).await;
    let others = write(catalog, &whole, &["left"]).await;
    let sent = change("a.torn", on_main(None), add_snapshot(&torn, 1, &own_list(&torn, 1)));
    catalog.commit(sent).await.unwrap();
    queue(catalog, &files).await;
    queue(catalog, &others).await;
    // So a full batch of them is followed by the next one at once.
    let done = catalog.upkeep().work_off_obsolete(100).await.unwrap();
    assert_eq!(done, DueDeletions { deleted: 1, settled: 3 });
    assert_eq!(there(catalog, &others).await, [false]);
    assert_eq!(there(catalog, &files).await, [true, true], "nobody knows what the table has");
    assert_eq!(catalog.upkeep().delete_obsolete(100).await.unwrap(), 0, "not at once again");
    write_list(catalog, &torn, 1, &[&files[0]]).await;
    house.clock.fetch_add(10 * 60 * 1000, Ordering::SeqCst);
    assert_eq!(catalog.upkeep().delete_obsolete(100).await.unwrap(), 1);
    assert_eq!(there(catalog, &files).await, [true, false]);
}
