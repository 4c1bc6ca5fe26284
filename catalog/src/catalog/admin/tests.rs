use super::*;
use crate::catalog::{
    CreateTable, NewTag, TagChange,
    tests::{
        House, UNDROP_MS, add_snapshot, change, create, house, ident, new_table, on_main, own_list,
        write_list,
    },
};
use serde_json::json;
use std::sync::atomic::Ordering;

/// A table with three snapshots, ids 1 to 3, one second apart, of one data file each.
async fn with_history(house: &House, dotted: &str) -> LoadedTable {
    let table = create(&house.catalog, dotted).await;
    fill(house, dotted, table).await
}

async fn fill(house: &House, dotted: &str, mut table: LoadedTable) -> LoadedTable {
    for id in 1..=3 {
        house.clock.fetch_add(1000, Ordering::SeqCst);
        let file = format!("{}/data/{id}.parquet", table.metadata.location());
        let list = write_list(&house.catalog, &table, id, &[&file]).await;
        let head = (id > 1).then_some(id - 1);
        let sent = change(dotted, on_main(head), add_snapshot(&table, id, &list));
        table = house.catalog.commit(sent).await.unwrap();
    }
    table
}

fn invalid<T: std::fmt::Debug>(result: Result<T, CatalogError>, part: &str) {
    match result {
        Err(CatalogError::Invalid(text)) if text.contains(part) => (),
        other => panic!("expected `{part}`, got {other:?}"),
    }
}

#[tokio::test]
async fn statistics_count_what_the_manifests_hold() {
    let house = house().await;
    let empty = create(&house.catalog, "a.empty").await;
    let stats = house.catalog.tables().stats(&ident("a.empty")).await.unwrap();
    let bytes = house.catalog.storage().size(&empty.metadata_location).await.unwrap();
    assert_eq!((stats.data_files, stats.snapshots, stats.metadata_bytes), (0, 0, bytes));

    with_history(&house, "a.t").await;
    house.clock.fetch_add(60_000, Ordering::SeqCst);
    house.catalog.metastore().protect_table(&vec!["a".to_owned()], "t", true).await.unwrap();
    let stats = house.catalog.tables().stats(&ident("a.t")).await.unwrap();
    assert_eq!((stats.data_files, stats.data_rows, stats.data_bytes), (1, 1, 1));
    assert_eq!((stats.small_files, stats.delete_files, stats.manifests), (1, 0, 1));
    assert_eq!((stats.snapshots, stats.is_protected), (3, true));
    assert!(stats.age_ms >= 55_000, "{}", stats.age_ms);
    let missing = house.catalog.tables().stats(&ident("a.none")).await;
    assert!(matches!(missing, Err(CatalogError::NoSuchTable(_))));
}

#[tokio::test]
async fn snapshots_get_names_and_lose_them() {
    let house = house().await;
    let catalog = &house.catalog;
    let t = ident("a.t");
    create(catalog, "a.t").await;
    invalid(catalog.refs().create(&t, "x", RefKind::Tag, None).await, "no snapshot to name");
    house.catalog.tables().drop(&t, false).await.unwrap();
    with_history(&house, "a.t").await;

    catalog.refs().create(&t, "first", RefKind::Tag, Some(1)).await.unwrap();
    catalog.refs().create(&t, "work", RefKind::Branch, None).await.unwrap();
    let refs = catalog.refs().list(&t).await.unwrap();
    assert_eq!(refs.keys().collect::<Vec<_>>(), ["first", "main", "work"]);
    assert_eq!((refs["first"].snapshot_id, refs["first"].is_branch()), (1, false));
    assert_eq!((refs["work"].snapshot_id, refs["work"].is_branch()), (3, true));

    let taken = catalog.refs().create(&t, "first", RefKind::Branch, None).await;
    assert!(matches!(taken, Err(CatalogError::AlreadyExists(_))));
    invalid(catalog.refs().create(&t, "y", RefKind::Tag, Some(99)).await, "no snapshot 99");
    invalid(catalog.refs().create(&t, "", RefKind::Tag, None).await, "Invalid");
    invalid(catalog.refs().drop(&t, "main", None).await, "cannot be dropped");
    let missing = catalog.refs().drop(&t, "none", None).await;
    assert!(matches!(missing, Err(CatalogError::NoSuchReference(name)) if name == "none"));
    let (branch, tag) = (Some(RefKind::Branch), Some(RefKind::Tag));
    invalid(catalog.refs().drop(&t, "first", branch).await, "`first` is a tag");
    invalid(catalog.refs().drop(&t, "work", tag).await, "`work` is a branch");
    assert_eq!(catalog.refs().list(&t).await.unwrap().len(), 3);
    catalog.refs().drop(&t, "first", tag).await.unwrap();
    assert_eq!(catalog.refs().list(&t).await.unwrap().len(), 2);
    catalog.refs().drop(&t, "work", None).await.unwrap();
}

/// A change that sets a tag of this name at snapshot `snapshot`.
async fn tagging(house: &House, dotted: &str, name: &str, snapshot: i64) -> TagChange {
    let base = house.catalog.tables().load(&ident(dotted)).await.unwrap();
    let set = vec![NewTag { name: name.to_owned(), snapshot, max_age_ms: None }];
    let properties = [("k".to_owned(), name.to_owned())].into();
    TagChange { table: ident(dotted), base, set, removed: Vec::new(), properties }
}

#[tokio::test]
async fn several_tables_get_and_lose_a_tag_together_or_not_at_all() {
    let house = house().await;
    let catalog = &house.catalog;
    for dotted in ["a.one", "a.two"] {
        with_history(&house, dotted).await;
    }
    let both = async |name: &str, second: i64| {
        vec![tagging(&house, "a.one", name, 2).await, tagging(&house, "a.two", name, second).await]
    };
    catalog.refs().change_tags(both("t", 3).await).await.unwrap();
    for (dotted, snapshot) in [("a.one", 2), ("a.two", 3)] {
        let refs = catalog.refs().list(&ident(dotted)).await.unwrap();
        assert_eq!((refs["t"].snapshot_id, refs["t"].is_branch()), (snapshot, false));
        let table = house.other.tables().load(&ident(dotted)).await.unwrap();
        assert_eq!((table.metadata.properties()["k"].as_str(), table.version), ("t", 5));
    }

    // One of them has the name already, or no such snapshot, or changed meanwhile.
    catalog.refs().create(&ident("a.two"), "taken", RefKind::Branch, None).await.unwrap();
    let taken = catalog.refs().change_tags(both("taken", 3).await).await;
    assert!(
        matches!(&taken, Err(CatalogError::AlreadyExists(text)) if text.contains("has a branch `taken`")),
        "{taken:?}"
    );
    invalid(catalog.refs().change_tags(both("u", 99).await).await, "no snapshot 99");
    let late = both("late", 3).await;
    house.other.refs().create(&ident("a.two"), "late", RefKind::Tag, Some(1)).await.unwrap();
    let lost = catalog.refs().change_tags(late).await;
    assert!(matches!(lost, Err(CatalogError::CommitFailed(_))), "{lost:?}");
    let refs = catalog.refs().list(&ident("a.one")).await.unwrap();
    assert_eq!(refs.keys().collect::<Vec<_>>(), ["main", "t"]);

    let mut gone = both("v", 3).await;
    for change in &mut gone {
        change.set.clear();
        change.properties.clear();
        change.removed.push("t".to_owned());
    }
    gone[0].set.push(NewTag { name: "next".to_owned(), snapshot: 1, max_age_ms: Some(5) });
    catalog.refs().change_tags(gone).await.unwrap();
    let refs = catalog.refs().list(&ident("a.one")).await.unwrap();
    assert_eq!(refs.keys().collect::<Vec<_>>(), ["main", "next"]);
    let refs = catalog.refs().list(&ident("a.two")).await.unwrap();
    assert_eq!(refs.keys().collect::<Vec<_>>(), ["late", "main", "taken"]);
    let mut missing = both("w", 3).await;
    missing[1].removed.push("taken".to_owned());
    let missing = catalog.refs().change_tags(missing).await;
    assert!(matches!(missing, Err(CatalogError::NoSuchReference(name)) if name == "taken"));
    catalog.refs().change_tags(Vec::new()).await.unwrap();
}

#[tokio::test]
async fn a_branch_moves_forward_only_along_its_own_history() {
    let house = house().await;
    let catalog = &house.catalog;
    let t = ident("a.t");
    let table = with_history(&house, "a.t").await;
    catalog.refs().create(&t, "old", RefKind::Branch, Some(1)).await.unwrap();
    catalog.refs().create(&t, "tag", RefKind::Tag, Some(1)).await.unwrap();
    invalid(catalog.refs().fast_forward(&t, "tag", "main").await, "is a tag");
    catalog.refs().fast_forward(&t, "old", "main").await.unwrap();
    assert_eq!(catalog.refs().list(&t).await.unwrap()["old"].snapshot_id, 3);
    // `main` stays where it is once another line of history left it.
    let list = own_list(&table, 4);
    catalog.storage().put(&list, bytes::Bytes::from_static(b"x")).await.unwrap();
    let table = catalog.tables().load(&t).await.unwrap();
    catalog.refs().rollback(&t, 2).await.unwrap();
    invalid(
        catalog.refs().fast_forward(&t, "old", "main").await,
        "has commits that `main` does not have",
    );
    let main = catalog.refs().fast_forward(&t, "main", "old").await.unwrap();
    assert_eq!(main.metadata.current_snapshot_id(), table.metadata.current_snapshot_id());
}

#[tokio::test]
async fn a_table_goes_back_to_an_ancestor() {
    let house = house().await;
    let catalog = &house.catalog;
    let t = ident("a.t");
    with_history(&house, "a.t").await;
    let back = catalog.refs().rollback(&t, 2).await.unwrap();
    assert_eq!(back.metadata.current_snapshot_id(), Some(2));
    assert!(back.metadata.snapshot_by_id(3).is_some(), "nothing is lost");
    invalid(catalog.refs().rollback(&t, 3).await, "not an ancestor");
    invalid(catalog.refs().rollback(&t, 99).await, "no snapshot 99");
}

#[tokio::test]
async fn a_table_that_the_service_writes_goes_on_whoever_asks() {
    let house = house().await;
    let catalog = &house.catalog;
    let own = CreateTable {
        properties: [(retention::MANAGED.to_owned(), "true".to_owned())].into(),
        ..new_table("own")
    };
    let made = catalog.tables().create(&vec!["a".to_owned()], own).await.unwrap();
    fill(&house, "a.own", made).await;
    let t = ident("a.own");
    invalid(catalog.refs().rollback(&t, 1).await, "acknowledged rows");
    catalog.refs().create(&t, "b", RefKind::Branch, Some(1)).await.unwrap();
    invalid(catalog.refs().fast_forward(&t, "main", "b").await, "acknowledged rows");
    let back = json!([{"action": "set-snapshot-ref", "ref-name": "main", "type": "branch",
        "snapshot-id": 1}]);
    invalid(catalog.commit(change("a.own", json!([]), back)).await, "acknowledged rows");
    let gone = json!([{"action": "remove-snapshot-ref", "ref-name": "main"}]);
    invalid(catalog.commit(change("a.own", json!([]), gone)).await, "acknowledged rows");
    assert_eq!(catalog.tables().load(&t).await.unwrap().metadata.current_snapshot_id(), Some(3));
}

#[tokio::test]
async fn a_dropped_table_comes_back_until_its_time_is_over() {
    let house = house().await;
    let catalog = &house.catalog;
    let t = ident("a.t");
    let table = with_history(&house, "a.t").await;
    let uuid = table.metadata.uuid();
    catalog.tables().drop(&t, true).await.unwrap();
    let other = create(catalog, "a.t").await;
    let taken = catalog.trash().restore(uuid, None).await;
    assert!(matches!(taken, Err(CatalogError::AlreadyExists(_))));
    let back = catalog.trash().restore(uuid, Some(&ident("a.back"))).await.unwrap();
    assert_eq!(back, ident("a.back"));
    let loaded = house.other.tables().load(&back).await.unwrap();
    assert_eq!(loaded.metadata, table.metadata);
    assert_eq!(catalog.tables().snapshots(&back).await.unwrap().len(), 3);
    assert!(catalog.trash().list().await.unwrap().is_empty());

    let files = house.files().await.len();
    catalog.tables().drop(&back, true).await.unwrap();
    catalog.tables().drop(&t, false).await.unwrap();
    assert_eq!(catalog.trash().list().await.unwrap().len(), 2);
    house.clock.fetch_add(UNDROP_MS, Ordering::SeqCst);
    assert_eq!(catalog.trash().empty(10).await.unwrap(), 1);
    for uuid in [uuid, other.metadata.uuid()] {
        let gone = catalog.trash().restore(uuid, None).await;
        assert!(matches!(gone, Err(CatalogError::NoSuchTable(_))));
    }
    house.clock.fetch_add(UNDROP_MS, Ordering::SeqCst);
    // Four metadata files, three lists and manifests; data files were never written but are named.
    assert_eq!(catalog.upkeep().delete_obsolete(100).await.unwrap(), 4 + 3 + 3 + 3);
    assert_eq!(house.files().await.len(), files - 4 - 3 - 3);
}

#[tokio::test]
async fn an_operator_may_purge_at_once() {
    let house = house().await;
    let made = create(&house.catalog, "a.t").await;
    house.catalog.tables().drop(&ident("a.t"), false).await.unwrap();
    house.catalog.trash().purge(made.metadata.uuid()).await.unwrap();
    assert_eq!(house.catalog.trash().empty(10).await.unwrap(), 1);
    house.clock.fetch_add(UNDROP_MS, Ordering::SeqCst);
    assert_eq!(house.catalog.upkeep().delete_obsolete(10).await.unwrap(), 1);
    let again = house.catalog.trash().purge(made.metadata.uuid()).await;
    assert!(matches!(again, Err(CatalogError::NoSuchTable(_))));
}
