//! Files that cannot be found or deleted for now, and others that never can.

use super::*;

const MINUTES: i64 = 60 * 1000;

/// A house with the table `a.t` of one data file, which is dropped for good.
async fn house_with_a_dropped_table() -> House {
    let house = house().await;
    let made = create(&house.catalog, "a.t").await;
    let data = format!("{}/data/own.parquet", made.metadata.location());
    house.catalog.storage().put(&data, Bytes::from_static(b"x")).await.unwrap();
    let list = write_list(&house.catalog, &made, 1, &[&data]).await;
    let sent = change("a.t", on_main(None), add_snapshot(&made, 1, &list));
    house.catalog.commit(sent).await.unwrap();
    house.catalog.tables().drop(&ident("a.t"), true).await.unwrap();
    house.clock.fetch_add(UNDROP_MS, Ordering::SeqCst);
    house
}

#[tokio::test]
async fn a_purge_deletes_files_of_any_name_and_no_others() {
    let house = house().await;
    let storage = house.catalog.storage();
    let made = create(&house.catalog, "a.t").await;
    let beside = format!("{}/x", house.root());
    let data: Vec<String> =
        ["k=..%2F..%2F..%2Fx/x", "k=%2F/x", "k=a\\b/x", "k=a\tb/x", "k=a?b#1/x#2"]
            .map(|name| format!("{}/data/{name}", made.metadata.location()))
            .into();
    for file in data.iter().chain([&beside]) {
        storage.put(file, Bytes::from_static(b"x")).await.unwrap();
    }
    let named: Vec<&str> = data.iter().map(String::as_str).collect();
    let list = write_list(&house.catalog, &made, 1, &named).await;
    let sent = change("a.t", on_main(None), add_snapshot(&made, 1, &list));
    house.catalog.commit(sent).await.unwrap();
    house.catalog.tables().drop(&ident("a.t"), true).await.unwrap();
    house.clock.fetch_add(UNDROP_MS, Ordering::SeqCst);
    assert_eq!(house.other.trash().empty(10).await.unwrap(), 1);
    house.clock.fetch_add(10 * MINUTES, Ordering::SeqCst);
    while house.other.upkeep().delete_obsolete(100).await.unwrap() > 0 {}
    assert_eq!(house.files().await, [beside]);
}

#[tokio::test]
async fn a_purge_that_a_store_outage_stops_goes_on_after_it() {
    // The metadata, the manifest list, the manifest.
    for broken in ["metadata.json", "/metadata/1.avro", "/metadata/m1.avro"] {
        let house = house_with_a_dropped_table().await;
        let storage = house.other.storage();
        storage.break_for(&[broken]);
        let failed = house.other.trash().empty(10).await.unwrap_err();
        assert!(failed.is_temporary(), "{failed:?}");
        let dropped = house.other.trash().list().await.unwrap();
        assert!(dropped[0].is_purging, "{broken}");
        assert_eq!(house.other.trash().empty(10).await.unwrap(), 0, "its turn comes later");

        storage.break_for(&[]);
        house.clock.fetch_add(10 * MINUTES, Ordering::SeqCst);
        assert_eq!(house.other.trash().empty(10).await.unwrap(), 1, "{broken}");
        assert_eq!(house.other.trash().list().await.unwrap(), []);
        house.clock.fetch_add(10 * MINUTES, Ordering::SeqCst);
        assert_eq!(house.other.upkeep().delete_obsolete(100).await.unwrap(), 5);
        assert_eq!(house.files().await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_purge_goes_on_without_files_that_are_gone_or_broken() {
    for (file, contents, left) in [
        ("/metadata/m1.avro", None, 1),
        ("/metadata/1.avro", None, 2),
        ("/metadata/m1.avro", Some("not avro"), 1),
        ("/metadata/1.avro", Some("not avro"), 2),
    ] {
        let house = house_with_a_dropped_table().await;
        let storage = house.other.storage();
        let files = house.files().await;
        let found = files.iter().find(|name| name.ends_with(file)).unwrap();
        match contents {
            Some(text) => storage.put(found, text.into()).await.unwrap(),
            None => storage.delete(found).await.unwrap(),
        }
        assert_eq!(house.other.trash().empty(10).await.unwrap(), 1);
        house.clock.fetch_add(10 * MINUTES, Ordering::SeqCst);
        while house.other.upkeep().delete_obsolete(100).await.unwrap() > 0 {}
        assert_eq!(house.files().await.len(), left, "{file} {contents:?}");
    }
}

#[tokio::test]
async fn files_that_cannot_be_deleted_let_others_go_on() {
    let house = house().await;
    let storage = house.catalog.storage();
    let mut queued = Vec::new();
    for n in 0..6 {
        let location = format!("{}/{n}{}", house.root(), if n < 4 { "-stuck" } else { "" });
        storage.put(&location, Bytes::from_static(b"x")).await.unwrap();
        queued.push(ObsoleteFile { location, not_before_ms: 0 });
    }
    house.catalog.metastore().add_obsolete(&queued).await.unwrap();
    storage.break_for(&["-stuck"]);
    let failed = house.catalog.upkeep().delete_obsolete(2).await.unwrap_err();
    assert!(failed.is_temporary(), "{failed:?}");
    house.catalog.upkeep().delete_obsolete(2).await.unwrap_err();
    assert_eq!(house.catalog.upkeep().delete_obsolete(2).await.unwrap(), 2, "the others");
    assert_eq!(house.catalog.upkeep().delete_obsolete(2).await.unwrap(), 0);
    storage.break_for(&[]);
    house.clock.fetch_add(10 * MINUTES, Ordering::SeqCst);
    assert_eq!(house.catalog.upkeep().delete_obsolete(10).await.unwrap(), 4);
    assert_eq!(house.files().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_store_that_deletes_nothing_is_not_asked_for_every_file() {
    let house = house().await;
    let catalog = &house.catalog;
    let file = |n: usize| ObsoleteFile {
        location: format!("{}/{n}-stuck", house.root()),
        not_before_ms: 0,
    };
    let queued: Vec<ObsoleteFile> = (0..100).map(file).collect();
    catalog.metastore().add_obsolete(&queued).await.unwrap();
    catalog.storage().break_for(&["-stuck"]);
    catalog.upkeep().delete_obsolete(1_000).await.unwrap_err();
    let due = catalog.metastore().obsolete(NOW, 1_000).await.unwrap();
    assert_eq!(due.len(), 68, "the others are not put off");
}

#[tokio::test]
async fn what_is_no_file_leaves_the_queue() {
    let house = house().await;
    let file = format!("{}/folder/file", house.root());
    house.catalog.storage().put(&file, Bytes::from_static(b"x")).await.unwrap();
    let below = format!("{file}/below");
    let long = format!("{}/{}", house.root(), "x".repeat(300));
    let folder = format!("{}/folder", house.root());
    let queued = [&folder, &below, &long]
        .map(|location| ObsoleteFile { location: location.clone(), not_before_ms: 0 });
    house.catalog.metastore().add_obsolete(&queued).await.unwrap();
    house.catalog.upkeep().delete_obsolete(10).await.unwrap();
    assert_eq!(house.catalog.metastore().count_obsolete().await.unwrap(), 0);
    assert_eq!(house.files().await, [file]);
}
