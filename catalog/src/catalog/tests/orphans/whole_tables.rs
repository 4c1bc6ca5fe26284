//! Tables of which no file is removed, files that are held, and other stores.

use super::*;

#[tokio::test]
async fn a_table_of_which_something_does_not_read_is_left_alone() {
    let house = house().await;
    let (catalog, table) = one_file(&house).await;
    leave(&catalog, &table, "data/left.parquet", NOW - 3 * DAY_MS).await;
    for name in ["metadata/m1-data.avro", "metadata/1.avro"] {
        let file = in_table(&table, name);
        let whole = catalog.storage().get(&file).await.unwrap();
        for damaged in [Some("not avro"), None] {
            match damaged {
                Some(text) => catalog.storage().put(&file, text.into()).await.unwrap(),
                None => catalog.storage().delete(&file).await.unwrap(),
            }
            let search = catalog.orphans().search(&ident("a.t"), 0).await;
            assert!(search.is_err(), "{name} {damaged:?}");
        }
        catalog.storage().put(&file, whole).await.unwrap();
    }
    assert_eq!(sweep(&catalog, "a.t").await.0.len(), 1);
    catalog.commit(set("a.t", "gc.enabled", "false")).await.unwrap();
    let shared = catalog.orphans().search(&ident("a.t"), 0).await.unwrap_err();
    assert!(shared.to_string().contains("gc.enabled"), "{shared}");
}

#[tokio::test]
async fn a_table_that_another_catalog_commits_to_is_left_alone() {
    let house = house().await;
    let (catalog, table) = one_file(&house).await;
    leave(&catalog, &table, "metadata/00001-before.metadata.json", NOW - 10 * DAY_MS).await;
    assert_eq!(sweep(&catalog, "a.t").await.0.len(), 1);
    leave(&catalog, &table, "metadata/00009-other.metadata.json", NOW - 3 * DAY_MS).await;
    let told = catalog.orphans().search(&ident("a.t"), 0).await.unwrap_err();
    assert!(told.to_string().contains("another catalog"), "{told}");
    catalog.commit(set("a.t", "k", "v")).await.unwrap();
    assert_eq!(sweep(&catalog, "a.t").await.0.len(), 2);
}

#[tokio::test]
async fn a_table_with_an_unregistered_one_in_its_folder_is_left_alone() {
    let house = house().await;
    let (catalog, table) = one_file(&house).await;
    leave(&catalog, &table, "inner/data/1.parquet", NOW - 10 * DAY_MS).await;
    assert_eq!(sweep(&catalog, "a.t").await.0.len(), 1);
    leave(&catalog, &table, "inner/metadata/00000-x.metadata.json", NOW - 10 * DAY_MS).await;
    let told = catalog.orphans().search(&ident("a.t"), 0).await.unwrap_err();
    assert!(told.to_string().contains("another table in its folder"), "{told}");
}

#[tokio::test]
async fn a_dropped_table_is_left_alone_and_has_its_marks_when_it_is_back() {
    let house = house().await;
    let (catalog, table) = one_file(&house).await;
    let left = leave(&catalog, &table, "data/left.parquet", NOW - 3 * DAY_MS).await;
    sweep(&catalog, "a.t").await;
    house.clock.fetch_add(DAY_MS, Ordering::SeqCst);
    let search = catalog.orphans().search(&ident("a.t"), 0).await.unwrap();
    let uuid = house.catalog.tables().drop(&ident("a.t"), false).await.unwrap();
    let dropped = catalog.orphans().queue(search).await;
    assert!(matches!(dropped, Err(CatalogError::NoSuchTable(_))), "{dropped:?}");
    let dropped = catalog.orphans().search(&ident("a.t"), 0).await;
    assert!(matches!(dropped, Err(CatalogError::NoSuchTable(_))), "{dropped:?}");
    assert_eq!(queued(&catalog).await, Vec::<String>::new());
    catalog.trash().restore(uuid, None).await.unwrap();
    assert_eq!(sweep(&catalog, "a.t").await, (vec![left], 1));
}

#[tokio::test]
async fn a_backup_holds_orphans_as_it_holds_other_files() {
    for (_kept, metastore) in stores().await {
        let house = house_over(tempfile::tempdir().unwrap(), metastore).await;
        let (catalog, table) = one_file(&house).await;
        let left = leave(&catalog, &table, "data/left.parquet", NOW - 3 * DAY_MS).await;
        sweep(&catalog, "a.t").await;
        catalog.metastore().begin_backup("b", "/b", NOW).await.unwrap();
        house.clock.fetch_add(DAY_MS, Ordering::SeqCst);
        assert_eq!(sweep(&catalog, "a.t").await.1, 1);
        delete_queued(&house).await;
        assert!(catalog.storage().exists(&left).await.unwrap());
        assert!(catalog.metastore().forget_backup("b").await.unwrap());
        delete_queued(&house).await;
        assert!(!catalog.storage().exists(&left).await.unwrap());
    }
}

#[tokio::test]
async fn orphans_in_a_bucket_are_found_by_the_times_of_the_store() {
    let (_folder, catalog, clock) = in_a_bucket().await;
    let storage = catalog.storage();
    let made = create(&catalog, "a.t").await;
    let sent = put(&catalog, &made, 1, append(&[("live.parquet", 10)])).await;
    storage.put(&in_table(&made, "data/live.parquet"), Bytes::from_static(b"x")).await.unwrap();
    let head = catalog.commit(sent).await.unwrap();
    // Hadoop calls the same bucket so.
    let of_hadoop = in_table(&made, "data/hadoop.parquet").replacen("s3://", "s3a://", 1);
    let work = [(of_hadoop.as_str(), 10)];
    let sent = put(&catalog, &head, 2, append(&work)).await;
    storage.put(&of_hadoop, Bytes::from_static(b"x")).await.unwrap();
    catalog.commit(sent).await.unwrap();
    let left = in_table(&made, "data/left.parquet");
    storage.put(&left, Bytes::from_static(b"x")).await.unwrap();
    let search = catalog.orphans().search(&ident("a.t"), 0).await.unwrap();
    assert!(search.kept()[0].contains("later than now"), "{:?}", search.kept());
    let own = storage.normalize(made.metadata.location()).unwrap();
    let files = storage.list_files(&own).unwrap().next_page().await.unwrap();
    let written_ms = files.iter().filter_map(|file| file.modified_ms).max().unwrap();
    clock.store(written_ms + DAY_MS, Ordering::SeqCst);
    assert_eq!(sweep(&catalog, "a.t").await, (vec![left.clone()], 0));
    clock.fetch_add(DAY_MS, Ordering::SeqCst);
    assert_eq!(sweep(&catalog, "a.t").await, (vec![left.clone()], 1));
    clock.fetch_add(DAY_MS, Ordering::SeqCst);
    while catalog.upkeep().delete_obsolete(100).await.unwrap() > 0 {}
    assert!(!storage.exists(&left).await.unwrap());
    assert!(storage.exists(&in_table(&made, "data/live.parquet")).await.unwrap());
    assert!(storage.exists(&in_table(&made, "data/hadoop.parquet")).await.unwrap());
}
