//! Places, the trash and protection.

use super::{id, levels, swap, with_table};
use crate::{
    error::CatalogError,
    location::Location,
    metastore::{
        ChangeSet, DropTerms, Metastore, NameKind, NewTable, ObjectKey, PointerSwap, Properties,
        SnapshotRow, TableOrigin, Watermark,
    },
};
use uuid::Uuid;

pub(crate) async fn places(store: &Metastore) {
    store.create_namespace(&levels("a"), &Properties::new()).await.unwrap();
    let at = |n: u128, location: &str| NewTable {
        kind: NameKind::Table,
        levels: levels("a"),
        name: format!("t{n}"),
        uuid: id(n),
        metadata_location: format!("{location}/metadata/1.json"),
        location: location.to_owned(),
        snapshots: Vec::new(),
        comes: TableOrigin::Created,
        changes: ChangeSet::default(),
    };
    let make = async |n, location: &str| store.commit_with_new(&[at(n, location)], &[]).await;
    make(1, "s3://b/a/test").await.unwrap();
    make(2, "s3://b/a/test2").await.unwrap();
    make(3, "s3://b/a/Test").await.unwrap();
    make(4, "s3://b/a/tes%_").await.unwrap();
    for taken in ["s3://b/a/test", "s3://b/a", "s3://b", "s3://b/a/test/x/y", "s3://b/a/test2/x"] {
        let refused = make(5, taken).await;
        assert!(matches!(refused, Err(CatalogError::Invalid(_))), "{taken}");
        assert!(!store.is_free(&Location::parse(taken).unwrap(), id(99)).await.unwrap(), "{taken}");
    }
    for free in ["s3://b/a/test0", "s3://b/a/tes", "s3://c/a/test", "s3://b/a/testx/y"] {
        assert!(store.is_free(&Location::parse(free).unwrap(), id(99)).await.unwrap(), "{free}");
    }
    let both = store.commit_with_new(&[at(6, "s3://b/n"), at(7, "s3://b/n/m")], &[]).await;
    assert!(matches!(both, Err(CatalogError::Invalid(_))));
    assert!(store.table_by_uuid(id(6)).await.unwrap().is_none());
    // A name that is taken says so, whatever the location.
    let named = store.commit_with_new(&[at(1, "s3://b/a/test")], &[]).await;
    assert!(matches!(named, Err(CatalogError::AlreadyExists(_))));

    let moved = |to: &str| PointerSwap { moved_to: Some(to.to_owned()), ..swap(id(1), 1, "m2") };
    let refused = store.commit(&[moved("s3://b/a/test2/in")]).await;
    assert!(matches!(refused, Err(CatalogError::Invalid(_))));
    assert_eq!(store.table_by_uuid(id(1)).await.unwrap().unwrap().version, 1);
    store.commit(&[moved("s3://b/a/test/deeper")]).await.unwrap();
    make(5, "s3://b/a/test/beside").await.unwrap();
    store.drop_table(&levels("a"), "t1").await.unwrap();
    make(8, "s3://b/a/test/deeper/still").await.unwrap();
    // What can be had back keeps its place.
    let trash = DropTerms { dropped_ms: 0, until_ms: 1, purge: false };
    store.trash_table(&levels("a"), "t8", &trash).await.unwrap();
    let refused = make(9, "s3://b/a/test/deeper").await;
    assert!(matches!(refused, Err(CatalogError::Invalid(_))));
    store.expire_trash(1, 10).await.unwrap();
    make(9, "s3://b/a/test/deeper").await.unwrap();
}

pub(crate) async fn of_nested_places_that_race_one_is_taken(store: &Metastore) {
    store.create_namespace(&levels("a"), &Properties::new()).await.unwrap();
    for round in 0..5 {
        let race = (0..8).map(|racer| async move {
            let new = NewTable {
                kind: NameKind::Table,
                levels: levels("a"),
                name: format!("t{round}-{racer}"),
                uuid: Uuid::new_v4(),
                metadata_location: "m".to_owned(),
                location: format!("s3://b/{round}{}", "/x".repeat(racer)),
                snapshots: Vec::new(),
                comes: TableOrigin::Created,
                changes: ChangeSet::default(),
            };
            store.commit_with_new(&[new], &[]).await
        });
        let outcomes = futures::future::join_all(race).await;
        let won = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!(won, 1, "{outcomes:?}");
    }
}

pub(crate) async fn trash(store: &Metastore) {
    let a = levels("a");
    let (kept, purged) = (with_table(store, 1).await, with_table(store, 2).await);
    let trash = |until_ms, purge| DropTerms { dropped_ms: 100, until_ms, purge };
    let first = SnapshotRow { snapshot_id: 7, timestamp_ms: 5, seq: Some((1, 2)) };
    let held = Watermark { epoch: 1, position: 4, last_seq: 9 };
    let filled = PointerSwap {
        watermark: Some(held),
        snapshots: vec![first.clone()],
        ..swap(kept, 1, "m2")
    };
    store.commit(&[filled]).await.unwrap();

    store.trash_table(&a, "t1", &trash(200, false)).await.unwrap();
    store.trash_table(&a, "t2", &trash(300, true)).await.unwrap();
    assert_eq!(store.tables(&a).await.unwrap(), Vec::<String>::new());
    let listed = store.trash(10).await.unwrap();
    assert_eq!(listed.iter().map(|row| row.uuid).collect::<Vec<_>>(), [kept, purged]);
    assert_eq!((&listed[0].levels, listed[0].name.as_str()), (&a, "t1"));
    assert_eq!(store.dropped(kept).await.unwrap().as_ref(), Some(&listed[0]));
    let none = store.trash_table(&a, "t1", &trash(1, false)).await;
    assert!(matches!(none, Err(CatalogError::NoSuchTable(_))));

    // Back, with its watermark and what the caller knows of its snapshots.
    let back = NewTable {
        kind: NameKind::Table,
        levels: a.clone(),
        name: "again".to_owned(),
        uuid: kept,
        metadata_location: "m2".to_owned(),
        location: "s3://b/kept".to_owned(),
        snapshots: vec![first.clone()],
        comes: TableOrigin::Registered { needs: Vec::new() },
        changes: ChangeSet::default(),
    };
    store.undrop(&back).await.unwrap();
    assert_eq!(store.table(&a, "again").await.unwrap().unwrap().watermark, Some(held));
    assert_eq!(store.snapshots(kept).await.unwrap(), [first]);
    let twice = store.undrop(&back).await;
    assert!(matches!(twice, Err(CatalogError::NoSuchTable(_))));

    // Registering a table of the trash takes it out of there too, but nowhere else, and nobody
    // makes another of its identity.
    store.trash_table(&a, "again", &trash(200, false)).await.unwrap();
    let third = NewTable { name: "third".to_owned(), ..back.clone() };
    let b = levels("b");
    store.create_namespace(&b, &Properties::new()).await.unwrap();
    for refused in [
        NewTable { levels: b, ..third.clone() },
        NewTable { comes: TableOrigin::Created, ..third.clone() },
    ] {
        let taken = store.commit_with_new(&[refused], &[]).await;
        assert!(matches!(taken, Err(CatalogError::AlreadyExists(_))), "{taken:?}");
        assert!(store.dropped(kept).await.unwrap().is_some());
    }
    store.commit_with_new(&[third], &[]).await.unwrap();
    assert_eq!(store.dropped(kept).await.unwrap(), None);

    store.trash_table(&a, "third", &trash(200, false)).await.unwrap();
    assert_eq!(store.expire_trash(199, 10).await.unwrap(), []);
    assert_eq!(store.expire_trash(200, 10).await.unwrap(), [], "its files stay");
    assert_eq!(store.dropped(kept).await.unwrap(), None);
    store.change_trash(purged, &trash(250, true)).await.unwrap();
    for _ in 0..2 {
        // Until it is forgotten it is given again, as after a crash.
        let expired = store.expire_trash(250, 10).await.unwrap();
        assert_eq!(expired.iter().map(|row| row.uuid).collect::<Vec<_>>(), [purged]);
    }
    let back = NewTable { uuid: purged, name: "t2".to_owned(), ..back };
    assert!(matches!(store.undrop(&back).await, Err(CatalogError::NoSuchTable(_))));
    let registered = store.commit_with_new(std::slice::from_ref(&back), &[]).await;
    assert!(matches!(registered, Err(CatalogError::Invalid(text)) if text.contains("deleted")));
    let changed = store.change_trash(purged, &trash(900, false)).await;
    assert!(matches!(changed, Err(CatalogError::NoSuchTable(_))));
    store.forget_trash(purged).await.unwrap();
    assert_eq!(store.trash(10).await.unwrap(), []);
}

pub(crate) async fn protection(store: &Metastore) {
    let a = levels("a");
    let uuid = with_table(store, 1).await;
    let missing = store.protect_table(&a, "none", true).await;
    assert!(matches!(missing, Err(CatalogError::NoSuchTable(_))));
    for _ in 0..2 {
        store.protect_table(&a, "t1", true).await.unwrap();
    }
    assert!(store.is_protected(uuid).await.unwrap());
    let trash = DropTerms { dropped_ms: 0, until_ms: 0, purge: false };
    for refused in [
        store.drop_table(&a, "t1").await.map(drop),
        store.trash_table(&a, "t1", &trash).await.map(drop),
        store.rename_table(ObjectKey::new(&a, "t1"), ObjectKey::new(&a, "t2")).await,
    ] {
        assert!(matches!(refused, Err(CatalogError::Protected(name)) if name == "a.t1"));
    }
    store.commit(&[swap(uuid, 1, "m2")]).await.unwrap();
    store.protect_table(&a, "t1", false).await.unwrap();
    store.rename_table(ObjectKey::new(&a, "t1"), ObjectKey::new(&a, "t2")).await.unwrap();
    store.protect_table(&a, "t2", true).await.unwrap();
    store.protect_table(&a, "t2", false).await.unwrap();
    store.drop_table(&a, "t2").await.unwrap();
    assert!(!store.is_protected(uuid).await.unwrap());
}
