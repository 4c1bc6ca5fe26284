//! What every metastore must do, run against each of them. Every function takes an empty one.

mod again;
mod names;
mod operators;
mod orphans;
mod row_accounts;

pub(crate) use again::{no_version_comes_back, remembered_requests};
pub(crate) use names::{
    names_that_nothing_has, one_of_many_racing_renames_gets_the_name, pages, views,
};
pub(crate) use operators::{of_nested_places_that_race_one_is_taken, places, protection, trash};
pub(crate) use orphans::orphans;
pub(crate) use row_accounts::row_accounts;

use crate::{
    error::CatalogError,
    metastore::{
        ChangeSet, Levels, Metastore, MetricsReport, NameKind, NewTable, ObjectKey, ObsoleteFile,
        PointerSwap, Properties, SnapshotRow, SwapOutcome, TableOrigin, Watermark,
    },
};
use uuid::Uuid;

pub(crate) fn levels(dotted: &str) -> Levels {
    dotted.split('.').filter(|level| !level.is_empty()).map(str::to_owned).collect()
}

/// What of adopted tables may lie where it says: all.
pub(crate) fn anywhere(_: &str) -> Result<(), CatalogError> {
    Ok(())
}

pub(crate) fn swap(uuid: Uuid, expected_version: i64, to: &str) -> PointerSwap {
    PointerSwap {
        uuid,
        expected_version,
        metadata_location: to.to_owned(),
        moved_to: None,
        watermark: None,
        acked: None,
        acked_anew: None,
        snapshots: Vec::new(),
        removed_snapshots: Vec::new(),
        obsolete: Vec::new(),
        parts: Vec::new(),
        changes: ChangeSet::default(),
    }
}

fn properties(pairs: &[(&str, &str)]) -> Properties {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

impl Metastore {
    pub(crate) async fn create_table(
        &self,
        levels: &Levels,
        name: &str,
        uuid: Uuid,
        metadata_location: &str,
    ) -> Result<(), CatalogError> {
        let table = NewTable {
            kind: NameKind::Table,
            levels: levels.clone(),
            name: name.to_owned(),
            uuid,
            metadata_location: metadata_location.to_owned(),
            location: format!("{metadata_location}/{uuid}"),
            snapshots: Vec::new(),
            comes: TableOrigin::Created,
            changes: ChangeSet::default(),
        };
        self.commit_with_new(&[table], &[]).await.map(|_| ())
    }
}

async fn with_table(store: &Metastore, n: u128) -> Uuid {
    let a = levels("a");
    if store.namespace(&a).await.unwrap().is_none() {
        store.create_namespace(&a, &Properties::new()).await.unwrap();
    }
    let new = NewTable {
        kind: NameKind::Table,
        levels: a,
        name: format!("t{n}"),
        uuid: id(n),
        metadata_location: "m1".to_owned(),
        location: format!("m1/{n}"),
        snapshots: Vec::new(),
        // It may have been there before.
        comes: TableOrigin::Registered { needs: Vec::new() },
        changes: ChangeSet::default(),
    };
    store.commit_with_new(&[new], &[]).await.unwrap();
    id(n)
}

pub(crate) async fn namespaces(store: &Metastore) {
    let (a, ab, abc) = (levels("a"), levels("a.b"), levels("a.b.c"));
    let none = store.create_namespace(&ab, &Properties::new()).await;
    assert!(matches!(none, Err(CatalogError::NoSuchNamespace(name)) if name == "a"));
    store.create_namespace(&a, &properties(&[("k", "v"), ("x", "y")])).await.unwrap();
    let twice = store.create_namespace(&a, &Properties::new()).await;
    assert!(matches!(twice, Err(CatalogError::AlreadyExists(_))));
    store.create_namespace(&ab, &Properties::new()).await.unwrap();
    store.create_namespace(&abc, &Properties::new()).await.unwrap();
    store.create_namespace(&levels("b"), &Properties::new()).await.unwrap();
    // A dot within a level is part of its name.
    store.create_namespace(&vec!["a.b".to_owned()], &Properties::new()).await.unwrap();

    assert_eq!(
        store.namespaces(&Levels::new()).await.unwrap(),
        [a.clone(), vec!["a.b".to_owned()], levels("b")]
    );
    assert_eq!(store.namespaces(&a).await.unwrap(), std::slice::from_ref(&ab));
    assert_eq!(store.namespaces(&abc).await.unwrap(), Vec::<Levels>::new());
    let missing = store.namespaces(&levels("none")).await;
    assert!(matches!(missing, Err(CatalogError::NoSuchNamespace(_))));

    let (set, remove) = (properties(&[("k", "w"), ("n", "1")]), ["x".to_owned(), "?".to_owned()]);
    store.update_namespace(&a, &set, &remove).await.unwrap();
    assert_eq!(store.namespace(&a).await.unwrap(), Some(properties(&[("k", "w"), ("n", "1")])));
    let missing = store.update_namespace(&levels("none"), &set, &remove).await;
    assert!(matches!(missing, Err(CatalogError::NoSuchNamespace(_))));

    let full = store.drop_namespace(&ab).await;
    assert!(matches!(full, Err(CatalogError::NamespaceNotEmpty(name)) if name == "a.b"));
    store.drop_namespace(&abc).await.unwrap();
    store.create_table(&ab, "t", id(1), "m").await.unwrap();
    let full = store.drop_namespace(&ab).await;
    assert!(matches!(full, Err(CatalogError::NamespaceNotEmpty(_))));
    store.drop_table(&ab, "t").await.unwrap();
    store.drop_namespace(&ab).await.unwrap();
    assert_eq!(store.namespace(&ab).await.unwrap(), None);
    let gone = store.drop_namespace(&ab).await;
    assert!(matches!(gone, Err(CatalogError::NoSuchNamespace(_))));

    for invalid in [Levels::new(), vec![String::new()], vec!["a\u{1f}b".to_owned()]] {
        let refused = store.create_namespace(&invalid, &Properties::new()).await;
        assert!(matches!(refused, Err(CatalogError::Invalid(_))), "{invalid:?}");
    }
}

pub(crate) async fn tables(store: &Metastore) {
    let (a, b) = (levels("a"), levels("b"));
    let homeless = store.create_table(&a, "t", id(1), "m1").await;
    assert!(matches!(homeless, Err(CatalogError::NoSuchNamespace(_))));
    for levels in [&a, &b] {
        store.create_namespace(levels, &Properties::new()).await.unwrap();
    }
    store.create_table(&a, "t", id(1), "m1").await.unwrap();
    store.create_table(&a, "T", id(2), "m2").await.unwrap();
    let taken = store.create_table(&a, "t", id(3), "m3").await;
    assert!(matches!(taken, Err(CatalogError::AlreadyExists(text)) if text.contains("a.t")));
    let same_identity = store.create_table(&a, "u", id(1), "m3").await;
    assert!(matches!(same_identity, Err(CatalogError::Registered(uuid)) if uuid == id(1)));
    assert_eq!(store.tables(&a).await.unwrap(), ["T", "t"]);
    assert_eq!(store.tables(&b).await.unwrap(), Vec::<String>::new());
    let missing = store.tables(&levels("none")).await;
    assert!(matches!(missing, Err(CatalogError::NoSuchNamespace(_))));

    let row = store.table(&a, "t").await.unwrap().unwrap();
    assert_eq!((row.uuid, row.version, row.metadata_location.as_str()), (id(1), 1, "m1"));
    assert_eq!(row.watermark, None);
    assert_eq!(store.table_by_uuid(id(1)).await.unwrap(), Some(row.clone()));
    assert_eq!(store.table(&a, "none").await.unwrap(), None);
    assert_eq!(store.table(&levels("none"), "t").await.unwrap(), None);

    let onto_another = store.rename_table(ObjectKey::new(&a, "t"), ObjectKey::new(&a, "T")).await;
    assert!(matches!(onto_another, Err(CatalogError::AlreadyExists(_))));
    let nowhere =
        store.rename_table(ObjectKey::new(&a, "t"), ObjectKey::new(&levels("none"), "t")).await;
    assert!(matches!(nowhere, Err(CatalogError::NoSuchNamespace(_))));
    let nothing = store.rename_table(ObjectKey::new(&a, "none"), ObjectKey::new(&b, "t")).await;
    assert!(matches!(nothing, Err(CatalogError::NoSuchTable(_))));
    store.rename_table(ObjectKey::new(&a, "t"), ObjectKey::new(&b, "moved")).await.unwrap();
    assert_eq!(store.table(&a, "t").await.unwrap(), None);
    // A commit that found it under the old name is built on a version that is gone.
    let moved = crate::metastore::TableRow { version: row.version + 1, ..row };
    assert_eq!(store.table(&b, "moved").await.unwrap(), Some(moved.clone()));
    assert_eq!(store.commit(&[swap(id(1), 1, "m2")]).await.unwrap(), SwapOutcome::Lost(id(1)));

    assert_eq!(store.drop_table(&b, "moved").await.unwrap(), moved);
    let gone = store.drop_table(&b, "moved").await;
    assert!(matches!(gone, Err(CatalogError::NoSuchTable(name)) if name == "b.moved"));
    assert_eq!(store.table_by_uuid(id(1)).await.unwrap(), None);
}

pub(crate) async fn reports(store: &Metastore) {
    let (one, two) = (with_table(store, 1).await, with_table(store, 2).await);
    let report =
        |number: i64| MetricsReport { received_ms: number, body: format!("{{\"n\":{number}}}") };
    for number in 1..=5 {
        store.add_report(one, &report(number), 3).await.unwrap();
    }
    store.add_report(two, &report(9), 3).await.unwrap();
    assert_eq!(store.reports(one).await.unwrap(), [report(5), report(4), report(3)]);
    assert_eq!(store.reports(two).await.unwrap(), [report(9)]);
    store.add_report(id(99), &report(1), 3).await.unwrap();
    assert_eq!(store.reports(id(99)).await.unwrap(), []);
    store.drop_table(&levels("a"), "t1").await.unwrap();
    assert_eq!(store.reports(one).await.unwrap(), []);
}

pub(crate) async fn replaced_tables(store: &Metastore) {
    let one = with_table(store, 1).await;
    let snapshot = SnapshotRow { snapshot_id: 5, timestamp_ms: 1, seq: None };
    let new = |number| NewTable {
        kind: NameKind::Table,
        levels: levels("a"),
        name: "t1".to_owned(),
        uuid: id(number),
        metadata_location: format!("m{number}"),
        location: format!("s3://b/new{number}"),
        snapshots: vec![snapshot.clone()],
        comes: TableOrigin::Created,
        changes: ChangeSet::default(),
    };
    let replace = async |old, new| store.replace_table(old, new).await;
    assert_eq!(replace((id(9), 1), new(2)).await.unwrap(), SwapOutcome::Lost(id(9)));
    assert_eq!(replace((one, 2), new(2)).await.unwrap(), SwapOutcome::Lost(one), "it changed");
    let other = with_table(store, 3).await;
    let taken = replace((one, 1), new(3)).await;
    assert!(matches!(taken, Err(CatalogError::Registered(_))), "{other} has another name");
    assert_eq!(store.table(&levels("a"), "t1").await.unwrap().unwrap().uuid, one);

    assert_eq!(replace((one, 1), new(2)).await.unwrap(), SwapOutcome::Done);
    let row = store.table(&levels("a"), "t1").await.unwrap().unwrap();
    assert_eq!((row.uuid, row.version, row.metadata_location.as_str()), (id(2), 1, "m2"));
    assert_eq!(store.snapshots(id(2)).await.unwrap(), [snapshot]);
    assert_eq!(store.table_by_uuid(one).await.unwrap(), None);
    assert_eq!(store.commit(&[swap(one, 1, "m")]).await.unwrap(), SwapOutcome::Lost(one));
}

pub(crate) async fn commits(store: &Metastore) {
    let (one, two) = (with_table(store, 1).await, with_table(store, 2).await);
    let done = store.commit(&[swap(one, 1, "one2"), swap(two, 1, "two2")]).await.unwrap();
    assert_eq!(done, SwapOutcome::Done);
    let row = store.table_by_uuid(one).await.unwrap().unwrap();
    assert_eq!((row.version, row.metadata_location.as_str()), (2, "one2"));

    // One stale pointer undoes the whole commit, new tables and queued files included.
    let mut first = swap(one, 2, "one3");
    first.obsolete.push(ObsoleteFile { location: "f".to_owned(), not_before_ms: 0 });
    first.snapshots.push(SnapshotRow { snapshot_id: 1, timestamp_ms: 1, seq: None });
    let new = NewTable {
        kind: NameKind::Table,
        levels: levels("a"),
        name: "new".to_owned(),
        uuid: id(3),
        metadata_location: "m".to_owned(),
        location: "m/new".to_owned(),
        snapshots: vec![SnapshotRow { snapshot_id: 9, timestamp_ms: 5, seq: None }],
        comes: TableOrigin::Created,
        changes: ChangeSet::default(),
    };
    let lost = store
        .commit_with_new(std::slice::from_ref(&new), &[first.clone(), swap(two, 1, "two3")])
        .await;
    assert_eq!(lost.unwrap(), SwapOutcome::Lost(two));
    assert_eq!(store.table_by_uuid(one).await.unwrap().unwrap().version, 2);
    assert_eq!(store.table(&levels("a"), "new").await.unwrap(), None);
    assert_eq!(store.obsolete(i64::MAX, 10).await.unwrap(), Vec::<String>::new());
    assert_eq!(store.snapshots(one).await.unwrap(), []);

    let done = store.commit_with_new(std::slice::from_ref(&new), &[first]).await;
    assert_eq!(done.unwrap(), SwapOutcome::Done);
    assert_eq!(store.table(&levels("a"), "new").await.unwrap().unwrap().version, 1);
    assert_eq!(store.snapshots(id(3)).await.unwrap(), new.snapshots);
    assert_eq!(store.obsolete(i64::MAX, 10).await.unwrap(), ["f"]);
    let taken = store.commit_with_new(&[new], &[swap(one, 3, "one4")]).await;
    assert!(matches!(taken, Err(CatalogError::AlreadyExists(_))));
    assert_eq!(store.table_by_uuid(one).await.unwrap().unwrap().version, 3);

    assert_eq!(store.commit(&[swap(id(99), 1, "m")]).await.unwrap(), SwapOutcome::Lost(id(99)));
}

pub(crate) async fn watermarks(store: &Metastore) {
    assert_eq!(store.highest_position().await.unwrap(), 0);
    let one = with_table(store, 1).await;
    let at = |epoch, position| Watermark { epoch, position, last_seq: position * 10 };
    let moved = |version, watermark| PointerSwap {
        watermark: Some(watermark),
        ..swap(one, version, &format!("m{}", version + 1))
    };
    store.commit(&[moved(1, at(2, 7))]).await.unwrap();
    store.commit(&[swap(one, 2, "m3")]).await.unwrap();
    let row = store.table_by_uuid(one).await.unwrap().unwrap();
    assert_eq!(row.watermark, Some(at(2, 7)), "others' commits leave it alone");

    let deposed = SwapOutcome::Deposed(one);
    assert_eq!(store.commit(&[moved(3, at(1, 8))]).await.unwrap(), deposed);
    assert_eq!(store.commit(&[moved(1, at(1, 8))]).await.unwrap(), deposed, "also when stale");
    assert_eq!(store.table_by_uuid(one).await.unwrap().unwrap(), row);
    assert_eq!(store.commit(&[moved(3, at(2, 8))]).await.unwrap(), SwapOutcome::Done);
    assert_eq!(store.commit(&[moved(4, at(3, 9))]).await.unwrap(), SwapOutcome::Done);
    assert_eq!(store.highest_position().await.unwrap(), 9);

    store.drop_table(&levels("a"), "t1").await.unwrap();
    assert_eq!(store.highest_position().await.unwrap(), 9, "a dropped table still counts");
    let two = with_table(store, 2).await;
    store.commit(&[PointerSwap { watermark: Some(at(3, 4)), ..swap(two, 1, "m2") }]).await.unwrap();
    store.drop_table(&levels("a"), "t2").await.unwrap();
    assert_eq!(store.highest_position().await.unwrap(), 9);

    let back = with_table(store, 1).await;
    let row = store.table_by_uuid(back).await.unwrap().unwrap();
    assert_eq!(row.watermark, Some(at(3, 9)), "a table that comes back");

    let three = with_table(store, 3).await;
    let beyond = PointerSwap { watermark: Some(at(u64::MAX, 1)), ..swap(three, 1, "m2") };
    assert!(matches!(store.commit(&[beyond]).await, Err(CatalogError::Invalid(_))));
    assert_eq!(store.table_by_uuid(three).await.unwrap().unwrap().version, 1);
}

pub(crate) async fn snapshot_index(store: &Metastore) {
    let one = with_table(store, 1).await;
    let row = |snapshot_id, timestamp_ms, seq| SnapshotRow { snapshot_id, timestamp_ms, seq };
    let (late, early) = (row(5, 200, Some((11, 20))), row(9, 100, Some((1, 10))));
    let both = PointerSwap { snapshots: vec![late.clone(), early.clone()], ..swap(one, 1, "m2") };
    store.commit(&[both]).await.unwrap();
    assert_eq!(store.snapshots(one).await.unwrap(), [early, late.clone()]);
    let foreign = row(7, 300, None);
    let next = PointerSwap {
        snapshots: vec![foreign.clone()],
        removed_snapshots: vec![9, 1234],
        ..swap(one, 2, "m3")
    };
    store.commit(&[next]).await.unwrap();
    assert_eq!(store.snapshots(one).await.unwrap(), [late, foreign]);
    store.drop_table(&levels("a"), "t1").await.unwrap();
    assert_eq!(store.snapshots(one).await.unwrap(), []);
}

pub(crate) async fn deletion_queue(store: &Metastore) {
    let file = |location: &str, not_before_ms| ObsoleteFile {
        location: location.to_owned(),
        not_before_ms,
    };
    store.add_obsolete(&[file("c", 30), file("a", 10), file("b", 20)]).await.unwrap();
    store.add_obsolete(&[file("a", 15), file("b", 5)]).await.unwrap();
    assert_eq!(store.obsolete(14, 10).await.unwrap(), Vec::<String>::new());
    assert_eq!(store.obsolete(15, 10).await.unwrap(), ["a"]);
    assert_eq!(store.obsolete(100, 2).await.unwrap(), ["a", "b"]);
    store.forget_obsolete(&["a".to_owned(), "none".to_owned()]).await.unwrap();
    assert_eq!(store.obsolete(100, 10).await.unwrap(), ["b", "c"]);
    store.put_off_obsolete(&["b".to_owned(), "none".to_owned()], 50).await.unwrap();
    assert_eq!(store.obsolete(49, 10).await.unwrap(), ["c"]);
    assert_eq!(store.obsolete(50, 10).await.unwrap(), ["c", "b"]);
    assert_eq!(store.count_obsolete().await.unwrap(), 2);
    // More than one statement takes, one of them twice in a row.
    let many: Vec<ObsoleteFile> =
        (0..1_201).map(|at| file(&format!("m{}", at % 1_200), 1_000 + at)).collect();
    store.add_obsolete(&many).await.unwrap();
    assert_eq!(store.count_obsolete().await.unwrap(), 2 + 1_200);
    let found = store.obsolete(2_200, 2_000).await.unwrap();
    assert_eq!((found.len(), found.last().unwrap().as_str()), (1_202, "m0"), "the later time");
    let many: Vec<String> = many.into_iter().map(|file| file.location).collect();
    store.put_off_obsolete(&many, 9_000).await.unwrap();
    assert_eq!(store.obsolete(8_999, 2_000).await.unwrap(), ["c", "b"]);
    store.forget_obsolete(&many).await.unwrap();
    assert_eq!(store.count_obsolete().await.unwrap(), 2);
    // A folder's files, whatever signs of patterns its name has, and no other's.
    let of_folders = [file("s/ü_%/data/x", 90), file("s/ü_%/y", 40), file("s/üab/z", 90)];
    store.add_obsolete(&of_folders).await.unwrap();
    store.hasten_obsolete("s/ü_%", 60).await.unwrap();
    assert_eq!(store.obsolete(60, 10).await.unwrap(), ["c", "s/ü_%/y", "b", "s/ü_%/data/x"]);
    assert_eq!(store.queued_below("s/ü_%/", None, 59).await.unwrap(), (1, 0));
    assert_eq!(store.queued_below("s/ü_%", None, 60).await.unwrap(), (2, 0));
    let without = Some("s/ü_%/data");
    assert_eq!(store.queued_below("s/ü_%", without, 60).await.unwrap(), (1, 0));
}

pub(crate) async fn one_of_many_racing_commits_wins_each_version(store: &Metastore) {
    let one = with_table(store, 1).await;
    for version in 1..=5 {
        let race = (0..16).map(|racer| async move {
            store.commit(&[swap(one, version, &format!("{version}-{racer}"))]).await.unwrap()
        });
        let outcomes = futures::future::join_all(race).await;
        let won = outcomes.iter().filter(|outcome| **outcome == SwapOutcome::Done).count();
        assert_eq!(won, 1, "{outcomes:?}");
    }
    assert_eq!(store.table_by_uuid(one).await.unwrap().unwrap().version, 6);
}
