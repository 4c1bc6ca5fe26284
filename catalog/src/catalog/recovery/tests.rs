use super::*;
use crate::{
    catalog::{
        CatalogOptions, CreateTable, FirstAppend, ListedThrough, OwnColumn, OwnTable,
        ReservedNames,
        tests::{House, create, house, ident, new_table, set},
        views::tests::new_view,
    },
    metastore::{
        Metastore, MetastoreContents, Properties, Watermark, holds::LegalHold, suite, tests::stores,
    },
    snapshot::{MarkMove, NewSnapshot},
};
use iceberg::spec::PrimitiveType;
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
};

/// As another process has the catalog of this warehouse, over another metastore.
fn over(house: &House, metastore: Metastore) -> Catalog {
    let clock = Arc::clone(&house.clock);
    let now = Arc::new(move || clock.load(Ordering::SeqCst));
    let column = |name| OwnColumn { id: None, name, types: vec![PrimitiveType::String] };
    let own = OwnTable { name: "events", columns: vec![column("id")] };
    let reserved = ReservedNames { tables: Arc::new([own]), ..ReservedNames::default() };
    let options = CatalogOptions { reserved, ..CatalogOptions::default() };
    Catalog::with_options("icecore", house.catalog.storage().clone(), metastore, now, options)
}

async fn list(house: &House) -> bool {
    let mut listed = ListedThrough::default();
    house.catalog.upkeep().list_names(&mut listed).await.unwrap()
}

async fn find(catalog: &Catalog, with_dropped: bool) -> RecoveredCatalog {
    catalog.recovery().find(RecoveryOptions { with_dropped }).await.unwrap()
}

fn names(found: &RecoveredCatalog) -> Vec<String> {
    let tables = found.names.tables.iter().map(|table| &table.returning.table);
    let mut names: Vec<String> =
        tables.map(|table| format!("{}.{}", table.levels.join("."), table.name)).collect();
    names.sort();
    names
}

fn contents(found: RecoveredCatalog) -> MetastoreContents {
    MetastoreContents {
        namespaces: found.names.namespaces.into_iter().collect(),
        tables: found.names.tables.into_iter().map(|table| table.returning).collect(),
        holds: found.names.holds,
        holder: Some((Uuid::from_u128(7), 5)),
    }
}

fn path(location: &str) -> PathBuf {
    PathBuf::from(location.strip_prefix("file://").unwrap())
}

/// A copy of a metadata file under another name, changed.
fn write_changed(from: &str, to: &str, change: impl FnOnce(&mut Value)) {
    let text = std::fs::read_to_string(path(from)).unwrap();
    let mut json = serde_json::from_str(&text).unwrap();
    change(&mut json);
    std::fs::create_dir_all(path(to).parent().unwrap()).unwrap();
    std::fs::write(path(to), json.to_string()).unwrap();
}

#[tokio::test]
async fn everything_that_has_a_name_comes_back_to_either_database() {
    let house = house().await;
    let catalog = &house.catalog;
    let deep = suite::levels("x.Ü.z");
    let noted = Properties::from([("icecore.ns".to_owned(), "X".to_owned())]);
    catalog.namespaces().ensure(&deep, &noted).await.unwrap();
    create(catalog, "a.t").await;
    catalog.commit(set("a.t", "k", "v")).await.unwrap();
    catalog.tables().rename(&ident("a.t"), &ident("x.Ü.z.renamed")).await.unwrap();
    catalog.metastore().protect_table(&deep, "renamed", true).await.unwrap();
    let (name, reason) = ("case-7".to_owned(), Some("court".to_owned()));
    let hold = LegalHold { levels: suite::levels("x"), name, reason, since_ms: 5 };
    catalog.metastore().set_hold(&hold).await.unwrap();
    create(catalog, "a.gone").await;
    let dropped = catalog.tables().drop(&ident("a.gone"), true).await.unwrap();
    create(catalog, "a.gone").await;
    catalog.views().create(&suite::levels("a"), new_view("v")).await.unwrap();
    assert!(list(&house).await);
    for (_keep, store) in stores().await {
        let rebuilt = over(&house, store);
        let found = find(&rebuilt, false).await;
        assert!(found.notes.is_empty(), "{:?}", found.notes);
        rebuilt.metastore().rebuild(&contents(found)).await.unwrap();
        let metastore = rebuilt.metastore();
        assert_eq!(metastore.namespace(&deep).await.unwrap(), Some(noted.clone()));
        for table in ["x.Ü.z.renamed", "a.gone"] {
            let was = catalog.tables().load(&ident(table)).await.unwrap();
            let is = rebuilt.tables().load(&ident(table)).await.unwrap();
            assert_eq!((is.metadata, is.metadata_location), (was.metadata, was.metadata_location));
        }
        assert!(rebuilt.views().has(&ident("a.v")).await.unwrap());
        assert_eq!(metastore.hold_over(&deep).await.unwrap(), Some(hold.clone()));
        let protected = metastore.protected(9).await.unwrap();
        assert_eq!(protected, [(deep.clone(), "renamed".to_owned())]);
        let trash = rebuilt.trash().list().await.unwrap();
        assert_eq!((trash.len(), trash[0].uuid), (1, dropped));
        let fence = metastore.fence().await.unwrap().unwrap();
        assert_eq!((fence.holder.as_u128(), fence.base), (7, 5));
        // A file that is written now has a higher number than all before.
        let next = rebuilt.commit(set("x.Ü.z.renamed", "k", "w")).await.unwrap();
        assert_eq!(candidates::number(&next.metadata_location), Some(2));
        // What has something is never rebuilt.
        let again = metastore.rebuild(&MetastoreContents::default()).await;
        assert!(matches!(again, Err(CatalogError::Invalid(text)) if text.contains("not empty")));
        std::fs::remove_file(path(&next.metadata_location)).unwrap();
    }
}

#[tokio::test]
async fn a_metastore_in_which_something_was_made_and_dropped_is_not_empty() {
    let house = house().await;
    for (_keep, store) in stores().await {
        let catalog = over(&house, store);
        catalog.metastore().check_is_empty().await.unwrap();
        let levels = suite::levels("b");
        catalog.namespaces().ensure(&levels, &Properties::new()).await.unwrap();
        catalog.metastore().drop_namespace(&levels).await.unwrap();
        let used = catalog.metastore().check_is_empty().await;
        assert!(matches!(used, Err(CatalogError::Invalid(text)) if text.contains("not empty")));
    }
}

#[tokio::test]
async fn a_commit_that_got_no_pointer_counts_only_where_its_files_are_there() {
    let house = house().await;
    let made = create(&house.catalog, "a.t").await;
    list(&house).await;
    let next = made.metadata_location.replace("/00000-", "/00001-");
    write_changed(&made.metadata_location, &next, |json| {
        json["metadata-log"] =
            json!([{"metadata-file": made.metadata_location, "timestamp-ms": 1}]);
        json["last-updated-ms"] = json!(made.metadata.last_updated_ms() + 5);
        json["properties"]["k"] = json!("v");
    });
    let current = async || {
        let found = find(&house.catalog, false).await;
        let file = found.names.tables[0].returning.table.metadata_location.clone();
        (file, found.notes)
    };
    assert_eq!(current().await, (next.clone(), Vec::new()));
    // Of an attempt that was given up the lists are deleted before the metadata file.
    let lost = format!("{}/metadata/snap-1.avro", made.metadata.location());
    write_changed(&next.clone(), &next, |json| {
        json["snapshots"] = json!([{"snapshot-id": 1, "sequence-number": 1, "timestamp-ms": 1,
            "manifest-list": lost, "schema-id": 0, "summary": {"operation": "append"}}]);
        json["last-sequence-number"] = json!(1);
    });
    let (file, notes) = current().await;
    assert_eq!(file, made.metadata_location);
    assert_eq!(notes.len(), 1);
    assert!(notes[0].text.contains("snap-1.avro"), "{notes:?}");
    // Two that are whole: the newer one counts, and the other is named.
    let other = made.metadata_location.replace("/00000-", "/00001-b");
    write_changed(&made.metadata_location, &other, |json| {
        json["metadata-log"] =
            json!([{"metadata-file": made.metadata_location, "timestamp-ms": 1}]);
        json["last-updated-ms"] = json!(made.metadata.last_updated_ms() + 9);
    });
    let (file, notes) = current().await;
    assert_eq!(file, other);
    assert!(notes.iter().any(|note| note.location == next), "{notes:?}");
}

#[tokio::test]
async fn what_is_in_no_list_was_dropped_before_or_made_after_it() {
    let house = house().await;
    let catalog = &house.catalog;
    let old = create(catalog, "a.old").await;
    catalog.tables().unregister(&ident("a.old")).await.unwrap();
    house.clock.fetch_add(600_000, Ordering::SeqCst);
    create(catalog, "a.kept").await;
    list(&house).await;
    house.clock.fetch_add(1_000, Ordering::SeqCst);
    let new = create(catalog, "a.new").await;
    let found = find(catalog, false).await;
    let derived = format!("a.recovered_{}", new.metadata.uuid().simple());
    assert_eq!(names(&found), ["a.kept".to_owned(), derived.clone()]);
    let left: Vec<&RecoveryNote> =
        found.notes.iter().filter(|note| note.text.contains("--with-dropped")).collect();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].location, old.metadata.location());
    let mut all = vec![format!("a.recovered_{}", old.metadata.uuid().simple()), derived];
    all.sort();
    all.insert(0, "a.kept".to_owned());
    assert_eq!(names(&find(catalog, true).await), all);
}

#[tokio::test]
async fn the_list_of_a_metastore_that_stood_in_for_the_lost_one_takes_no_table_away() {
    let house = house().await;
    create(&house.catalog, "a.old").await;
    create(&house.catalog, "a.gone").await;
    list(&house).await;
    house.clock.fetch_add(600_000, Ordering::SeqCst);
    let (_keep, store) = stores().await.remove(0);
    let other = over(&house, store);
    other.namespaces().ensure(&suite::levels("b"), &Properties::new()).await.unwrap();
    create(&other, "b.new").await;
    assert!(other.upkeep().list_names(&mut ListedThrough::default()).await.unwrap());
    let found = find(&other, false).await;
    assert_eq!(names(&found), ["a.gone", "a.old", "b.new"]);
    // Once a metastore is rebuilt from both lists they are over: what it drops stays dropped.
    let metastores = found.metastores.clone();
    assert_eq!(metastores.len(), 2);
    let (_keep_too, store) = stores().await.remove(0);
    let rebuilt = over(&house, store);
    rebuilt.metastore().rebuild(&contents(found)).await.unwrap();
    rebuilt.recovery().list_names(metastores).await.unwrap();
    rebuilt.tables().unregister(&ident("a.gone")).await.unwrap();
    assert!(rebuilt.upkeep().list_names(&mut ListedThrough::default()).await.unwrap());
    assert_eq!(names(&find(&rebuilt, false).await), ["a.old", "b.new"]);
}

#[tokio::test]
async fn a_table_of_the_service_is_known_by_its_columns_and_says_how_far_it_is() {
    let house = house().await;
    let catalog = over(&house, house.catalog.metastore().clone());
    let table = ident("a.events");
    let managed = HashMap::from([(retention::MANAGED.to_owned(), "true".to_owned())]);
    let new = CreateTable { properties: managed, ..new_table("events") };
    let metadata = catalog.tables().stage_first(&suite::levels("a"), new).await.unwrap();
    let watermark = Watermark { epoch: 1, position: 9, last_seq: 3 };
    let summary = [(commit::FIRST_SEQ, "1"), (commit::LAST_SEQ, "3"), (POSITION, "9")];
    let snapshot = NewSnapshot {
        summary: summary.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        mark: Some(MarkMove { watermark, since: 1 }),
        ..NewSnapshot::default()
    };
    let metadata = Arc::new(metadata);
    let first = FirstAppend { table, metadata, namespace: None, snapshot };
    catalog.tables().create_with(first).await.unwrap();
    // No list says its name.
    let found = find(&catalog, false).await;
    assert_eq!(names(&found), ["a.events"]);
    let found = &found.names.tables[0];
    assert_eq!((found.is_managed, found.last_seq, found.position), (true, Some(3), Some(9)));
    assert_eq!(found.returning.table.snapshots[0].seq, Some((1, 3)));
}

#[tokio::test]
async fn a_table_with_the_documents_of_a_collection_says_its_name() {
    let house = house().await;
    let catalog = over(&house, house.catalog.metastore().clone());
    let properties = [
        (retention::MANAGED, "true"),
        (retention::COLLECTION, "Orders"),
        (retention::COLLECTION_TABLE, "cdc_orders_1"),
    ];
    let properties = properties.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let new = CreateTable { properties, ..new_table("cdc_orders_1") };
    let levels = suite::levels("a");
    let metadata = catalog.tables().stage_first(&levels, new).await.unwrap();
    let (table, rows) = (ident("a.cdc_orders_1"), NewSnapshot::default());
    catalog.tables().create_filled(table, metadata, rows).await.unwrap();
    // No list says its name.
    let found = find(&catalog, false).await;
    assert_eq!(names(&found), ["a.cdc_orders_1"]);
    assert!(!found.names.tables[0].is_managed, "it has no rows of the log");
}

#[tokio::test]
async fn many_tables_are_listed_once_and_read_once_each() {
    const TABLES: u128 = 1_000;
    let house = house().await;
    let made = create(&house.catalog, "a.t").await;
    for n in 1..TABLES {
        let own = format!("{}/a/{}", house.root(), Uuid::from_u128(n));
        let file = format!("{own}/metadata/00000-{}.metadata.json", Uuid::from_u128(n));
        write_changed(&made.metadata_location, &file, |json| {
            json["table-uuid"] = json!(Uuid::from_u128(n));
            json["location"] = json!(own);
        });
    }
    let before = house.catalog.storage().calls();
    let found = find(&house.catalog, false).await;
    assert_eq!(found.names.tables.len() as u128, TABLES);
    let calls = u128::from(house.catalog.storage().calls() - before);
    assert!(calls < 3 * TABLES, "{calls}");
}

#[tokio::test]
async fn no_file_makes_a_table_of_a_folder_that_is_not_its_own() {
    let house = house().await;
    let made = create(&house.catalog, "a.t").await;
    list(&house).await;
    let inside = format!("{}/inner/metadata/00000-x.metadata.json", made.metadata.location());
    write_changed(&made.metadata_location, &inside, |json| {
        json["table-uuid"] = json!(Uuid::from_u128(2));
        json["location"] = json!(format!("{}/inner", made.metadata.location()));
    });
    let elsewhere = format!("{}/b/1/metadata/00000-x.metadata.json", house.root());
    write_changed(&made.metadata_location, &elsewhere, |json| {
        json["table-uuid"] = json!(Uuid::from_u128(3));
    });
    let broken = format!("{}/b/2/metadata/00000-x.metadata.json", house.root());
    std::fs::create_dir_all(path(&broken).parent().unwrap()).unwrap();
    std::fs::write(path(&broken), "{").unwrap();
    let found = find(&house.catalog, false).await;
    assert_eq!(names(&found), ["a.t"]);
    assert_eq!(found.notes.len(), 3, "{:?}", found.notes);
}
