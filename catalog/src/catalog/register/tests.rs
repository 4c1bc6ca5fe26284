use super::*;
use crate::{
    catalog::tests::{House, NOW, UNDROP_MS, create, house, ident, set},
    metastore::{SnapshotRow, SwapOutcome, Watermark, suite},
};
use std::sync::atomic::Ordering;

/// The same metadata under another identity, as a restored copy of a table has it.
async fn copy_of(house: &House, table: &LoadedTable, uuid: u128, key: &str) -> String {
    let mut json = serde_json::to_value(&*table.metadata).unwrap();
    json["table-uuid"] = serde_json::json!(uuid::Uuid::from_u128(uuid));
    json["properties"]["copy"] = serde_json::json!(key);
    // A place of its own: the table is still there.
    let own = format!("{}-{uuid}", table.metadata.location());
    json["location"] = serde_json::json!(own);
    let location = format!("{own}/metadata/copy.metadata.json");
    house.catalog.storage().put(&location, json.to_string().into()).await.unwrap();
    location
}

#[tokio::test]
async fn an_older_state_is_registered_over_a_table() {
    let house = house().await;
    let (catalog, a) = (&house.catalog, suite::levels("a"));
    let made = create(catalog, "a.t").await;
    let changed = catalog.commit(set("a.t", "k", "v")).await.unwrap();
    let refused =
        catalog.tables().register(&a, "t", &made.metadata_location, &suite::anywhere).await;
    assert!(matches!(refused, Err(CatalogError::AlreadyExists(_))));
    let back = catalog
        .tables()
        .register_over(&a, "t", &made.metadata_location, &suite::anywhere)
        .await
        .unwrap();
    assert_eq!(back.metadata, made.metadata);
    assert_eq!(back.version, changed.version + 1, "a commit built before is not taken for new");
    assert_eq!(house.other.tables().load(&ident("a.t")).await.unwrap().metadata, made.metadata);
    // Nothing of what was there is lost: the newer state comes back the same way.
    let again = catalog
        .tables()
        .register_over(&a, "t", &changed.metadata_location, &suite::anywhere)
        .await
        .unwrap();
    assert_eq!(again.metadata, changed.metadata);
}

#[tokio::test]
async fn another_table_is_registered_in_the_place_of_one() {
    let house = house().await;
    let (catalog, a) = (&house.catalog, suite::levels("a"));
    let made = create(catalog, "a.t").await;
    let copy = copy_of(&house, &made, 7, "1").await;
    let new = catalog.tables().register_over(&a, "t", &copy, &suite::anywhere).await.unwrap();
    assert_eq!((new.metadata.uuid().as_u128(), new.version), (7, 1));
    assert_eq!(house.other.tables().load(&ident("a.t")).await.unwrap().metadata, new.metadata);
    // The name need not be taken, and may not be a view's.
    let copy = copy_of(&house, &made, 8, "1").await;
    catalog.tables().register_over(&a, "free", &copy, &suite::anywhere).await.unwrap();
    let taken = catalog.tables().register_over(&a, "t", &copy, &suite::anywhere).await;
    assert!(matches!(taken, Err(CatalogError::Registered(_))), "it has the name `free`");
    let nowhere =
        catalog.tables().register_over(&suite::levels("none"), "t", &copy, &suite::anywhere).await;
    assert!(matches!(nowhere, Err(CatalogError::NoSuchNamespace(_))));
    let outside =
        catalog.tables().register_over(&a, "t", "file:///etc/passwd", &suite::anywhere).await;
    assert!(matches!(outside, Err(CatalogError::LocationForbidden(_))));
}

#[tokio::test]
async fn a_file_that_was_written_anew_is_read_anew() {
    let house = house().await;
    let (catalog, a) = (&house.catalog, suite::levels("a"));
    let made = create(catalog, "a.t").await;
    for key in ["1", "2"] {
        let copy = copy_of(&house, &made, 7, key).await;
        let table = catalog.tables().register_over(&a, "u", &copy, &suite::anywhere).await.unwrap();
        assert_eq!(table.metadata.properties()["copy"], key);
    }
}

#[tokio::test]
async fn a_table_that_a_log_is_written_to_is_not_registered_over() {
    let house = house().await;
    let (catalog, a) = (&house.catalog, suite::levels("a"));
    let made = create(catalog, "a.t").await;
    let copy = copy_of(&house, &made, 7, "1").await;
    let mut moved = suite::swap(made.metadata.uuid(), 1, &made.metadata_location);
    moved.watermark = Some(Watermark { epoch: 1, position: 2, last_seq: 3 });
    moved.snapshots = vec![SnapshotRow { snapshot_id: 1, timestamp_ms: 1, seq: None }];
    catalog.metastore().commit(&[moved]).await.unwrap();
    let refused = catalog.tables().register_over(&a, "t", &copy, &suite::anywhere).await;
    assert!(matches!(refused, Err(CatalogError::Invalid(text)) if text.contains("drop it first")));
    let same = catalog.tables().load(&ident("a.t")).await.unwrap();
    assert_eq!(same.metadata.uuid(), made.metadata.uuid());
}

#[tokio::test]
async fn an_unregistered_table_leaves_with_its_state_and_comes_back() {
    let house = house().await;
    let (catalog, a) = (&house.catalog, suite::levels("a"));
    create(catalog, "a.t").await;
    let changed = catalog.commit(set("a.t", "k", "v")).await.unwrap();
    let files = house.files().await;
    let left = house.other.tables().unregister(&ident("a.t")).await.unwrap();
    assert_eq!((&left.metadata, &left.metadata_location), {
        (&changed.metadata, &changed.metadata_location)
    });
    assert_eq!(house.files().await, files);
    assert_eq!(catalog.metastore().obsolete(i64::MAX, 10).await.unwrap(), Vec::<String>::new());
    let twice = catalog.tables().unregister(&ident("a.t")).await;
    assert!(matches!(twice, Err(CatalogError::NoSuchTable(_))));
    let back = catalog
        .tables()
        .register(&a, "t", &left.metadata_location, &suite::anywhere)
        .await
        .unwrap();
    assert_eq!(back.metadata, changed.metadata);
    // One whose metadata is gone stays: nobody could register it anywhere.
    catalog.storage().delete(&back.metadata_location).await.unwrap();
    let gone = catalog.tables().unregister(&ident("a.t")).await;
    assert!(matches!(gone, Err(CatalogError::MissingMetadata(_))));
    assert_eq!(catalog.metastore().tables(&a).await.unwrap(), ["t"]);
}

#[tokio::test]
async fn a_commit_from_before_a_table_left_is_lost_once_it_is_back() {
    for undropped in [false, true] {
        let house = house().await;
        let (catalog, a) = (&house.catalog, suite::levels("a"));
        let base = create(catalog, "a.t").await;
        let mut metadata = (*base.metadata).clone().into_builder(None);
        metadata = metadata.set_properties([("late".to_owned(), "1".to_owned())].into()).unwrap();
        let metadata = metadata.build().unwrap().metadata;
        let late = TableWrite::new(ident("a.t"), Some(base.clone()), metadata, NOW);
        if undropped {
            catalog.tables().drop(&ident("a.t"), false).await.unwrap();
            catalog.trash().restore(base.metadata.uuid(), None).await.unwrap();
        } else {
            catalog.tables().unregister(&ident("a.t")).await.unwrap();
            catalog
                .tables()
                .register(&a, "t", &base.metadata_location, &suite::anywhere)
                .await
                .unwrap();
        }
        let outcome = house.other.publish(std::slice::from_ref(&late)).await.unwrap();
        assert_eq!(outcome, SwapOutcome::Lost(base.metadata.uuid()));
        let now = catalog.tables().load(&ident("a.t")).await.unwrap();
        assert_eq!(now.metadata, base.metadata);
        // A commit that looks at the table as it is now is made.
        catalog.commit(set("a.t", "k", "v")).await.unwrap();
    }
}

#[tokio::test]
async fn a_table_whose_files_are_about_to_be_deleted_is_not_adopted() {
    let house = house().await;
    let (catalog, a) = (&house.catalog, suite::levels("a"));
    let refused = async |name: &str, location: &str, over: bool| {
        let adopted = match over {
            true => catalog.tables().register_over(&a, name, location, &suite::anywhere).await,
            false => catalog.tables().register(&a, name, location, &suite::anywhere).await,
        };
        let text = match adopted {
            Err(CatalogError::Invalid(text)) => text,
            other => panic!("{other:?}"),
        };
        assert!(text.contains("about to be deleted"), "{text}");
    };
    // The table was purged; its files are still there for those who read them.
    let purged = create(catalog, "a.t").await;
    catalog.tables().drop(&ident("a.t"), true).await.unwrap();
    house.clock.fetch_add(UNDROP_MS, Ordering::SeqCst);
    assert_eq!(catalog.trash().empty(10).await.unwrap(), 1);
    refused("t", &purged.metadata_location, false).await;
    refused("t", &purged.metadata_location, true).await;

    // The file has left the log of a table that wants such files deleted.
    let old = create(catalog, "a.u").await;
    for (key, value) in [
        ("write.metadata.delete-after-commit.enabled", "true"),
        ("write.metadata.previous-versions-max", "1"),
        ("k", "v"),
    ] {
        catalog.commit(set("a.u", key, value)).await.unwrap();
    }
    let queued = catalog.metastore().obsolete(i64::MAX, 10).await.unwrap();
    assert!(queued.contains(&old.metadata_location), "{queued:?}");
    refused("u", &old.metadata_location, true).await;

    house.clock.fetch_add(i64::from(u32::MAX), Ordering::SeqCst);
    while catalog.upkeep().delete_obsolete(100).await.unwrap() > 0 {}
    house.other.tables().load_present(&ident("a.u")).await.unwrap();
}
