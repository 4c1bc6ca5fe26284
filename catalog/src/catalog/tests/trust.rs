//! What a metadata file says of itself is a client's word: whoever may write a table's files may
//! have written it.

use super::*;
use crate::catalog::views::tests::new_view;
use iceberg::ViewUpdate;

/// A catalog over the same stores that has read nothing yet.
fn anew(house: &House) -> Catalog {
    let inner = &house.catalog.inner;
    let (storage, store) = (inner.storage.clone(), inner.metastore.clone());
    let drop_policy = DropPolicy { undrop_ms: 1000, purge: true };
    let options = CatalogOptions { drop_policy, ..CatalogOptions::default() };
    Catalog::with_options("anew", storage, store, Arc::clone(&inner.now), options)
}

/// Writes a table's metadata file anew, with these members.
async fn forge(house: &House, file: &str, members: &[(&str, &str)]) {
    let storage = house.catalog.storage();
    let mut json: Value = serde_json::from_slice(&storage.get(file).await.unwrap()).unwrap();
    for (member, value) in members {
        json[*member] = (*value).into();
    }
    storage.put(file, json.to_string().into()).await.unwrap();
}

async fn create_view(house: &House, name: &str) -> LoadedView {
    house.catalog.views().create(&suite::levels("a"), new_view(name)).await.unwrap()
}

async fn append_snapshot(house: &House, id: i64) -> LoadedTable {
    let table = house.catalog.tables().load(&ident("a.t")).await.unwrap();
    let updates = add_snapshot(&table, id, &own_list(&table, id));
    house.catalog.commit(change("a.t", json!([]), updates)).await.unwrap()
}

#[track_caller]
fn is_refused<T: std::fmt::Debug>(outcome: &Result<T, CatalogError>) {
    let Err(CatalogError::Invalid(text)) = outcome else { panic!("{outcome:?}") };
    assert!(text.contains("overwritten"), "{text}");
}

#[tokio::test]
async fn a_metadata_file_that_was_written_over_makes_no_table_anothers() {
    let house = house().await;
    let (mine, victim) =
        (create(&house.catalog, "a.mine").await, create(&house.catalog, "a.victim").await);
    let victim_uuid = victim.metadata.uuid().to_string();
    let victims = [("location", victim.metadata.location()), ("table-uuid", victim_uuid.as_str())];
    let own_uuid = mine.metadata.uuid().to_string();
    let own = [("location", mine.metadata.location()), ("table-uuid", own_uuid.as_str())];
    for forged in [&victims[..1], &victims[1..], &victims[..]] {
        forge(&house, &mine.metadata_location, forged).await;
        // One that has read the file before it was written over may go on as it was.
        let catalog = anew(&house);
        is_refused(&catalog.tables().load(&ident("a.mine")).await);
        is_refused(&catalog.commit(set("a.mine", "k", "v")).await);
        let both = vec![set("a.mine", "k", "v"), set("a.victim", "k", "v")];
        is_refused(&catalog.commit_all(both).await);
        is_refused(&catalog.tables().unregister(&ident("a.mine")).await);
        // Asking to register the file changes nothing for those who know the table.
        let levels = suite::levels("a");
        catalog
            .tables()
            .register(&levels, "new", &mine.metadata_location, &suite::anywhere)
            .await
            .unwrap_err();
        is_refused(&catalog.tables().load(&ident("a.mine")).await);
        let file = catalog.tables().load_file(mine.metadata.uuid(), &mine.metadata_location).await;
        is_refused(&file);
        let unmoved = catalog.tables().load(&ident("a.victim")).await.unwrap();
        assert_eq!(unmoved.metadata_location, victim.metadata_location);
        // The same text in another spelling is still its own.
        forge(&house, &mine.metadata_location, &own).await;
        let spelled = format!("{}/", mine.metadata.location());
        forge(&house, &mine.metadata_location, &[("location", &spelled)]).await;
        anew(&house).tables().load(&ident("a.mine")).await.unwrap();
        forge(&house, &mine.metadata_location, &own).await;
    }
}

#[tokio::test]
async fn a_purge_follows_the_folder_that_the_catalog_knows() {
    let house = house().await;
    let (mine, victim) =
        (create(&house.catalog, "a.mine").await, create(&house.catalog, "a.victim").await);
    let catalog = anew(&house);
    catalog.tables().drop(&ident("a.mine"), true).await.unwrap();
    forge(&house, &mine.metadata_location, &[("location", victim.metadata.location())]).await;
    is_refused(&anew(&house).trash().restore(mine.metadata.uuid(), None).await);
    house.clock.fetch_add(2000, Ordering::SeqCst);
    anew(&house).trash().empty(10).await.unwrap();
    house.clock.fetch_add(60 * 60 * 1000, Ordering::SeqCst);
    anew(&house).upkeep().delete_obsolete(100).await.unwrap();
    assert!(house.files().await.contains(&victim.metadata_location));
    anew(&house).tables().load_present(&ident("a.victim")).await.unwrap();
}

#[tokio::test]
async fn a_view_whose_file_was_written_over_is_refused_and_moves_no_other() {
    let house = house().await;
    let mine = create_view(&house, "mine").await;
    let victim = create_view(&house, "victim").await;
    let uuid = victim.metadata.uuid().to_string();
    for forged in [("location", victim.metadata.location()), ("view-uuid", uuid.as_str())] {
        let before = house.catalog.storage().get(&mine.metadata_location).await.unwrap();
        forge(&house, &mine.metadata_location, &[forged]).await;
        let catalog = anew(&house);
        is_refused(&catalog.views().load(&ident("a.mine")).await);
        let updates = vec![ViewUpdate::SetProperties {
            updates: HashMap::from([("k".to_owned(), "v".to_owned())]),
        }];
        let change = ViewChange { view: ident("a.mine"), requirements: Vec::new(), updates };
        is_refused(&catalog.views().commit(change).await);
        let unmoved = catalog.views().load(&ident("a.victim")).await.unwrap();
        assert_eq!(unmoved.metadata_location, victim.metadata_location);
        house.catalog.storage().put(&mine.metadata_location, before).await.unwrap();
    }
}

#[tokio::test]
async fn a_view_writes_nothing_where_it_may_not_go() {
    let house = house().await;
    let table = create(&house.catalog, "a.t").await;
    let view = create_view(&house, "v").await;
    let before = house.files().await;
    let location = table.metadata.location().to_owned();
    let updates = vec![ViewUpdate::SetLocation { location }];
    let change = ViewChange { view: ident("a.v"), requirements: Vec::new(), updates };
    let moved = house.catalog.views().commit(change).await;
    assert!(matches!(moved, Err(CatalogError::Invalid(_))), "{moved:?}");
    assert_eq!(house.files().await, before);
    let now = house.catalog.views().load(&ident("a.v")).await.unwrap();
    assert_eq!(now.metadata_location, view.metadata_location);
}

#[tokio::test]
async fn a_metadata_file_is_read_within_its_bound() {
    use std::io::Write;
    let house = house().await;
    let table = create(&house.catalog, "a.t").await;
    let file = format!("{}/metadata/large.gz.metadata.json", table.metadata.location());
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    // Blanks are no metadata, but they are what a parser would have to read.
    let blanks = vec![b' '; 1 << 20];
    for _ in 0..129 {
        packed.write_all(&blanks).unwrap();
    }
    let packed = packed.finish().unwrap();
    assert!(packed.len() < 1 << 20);
    house.catalog.storage().put(&file, packed.into()).await.unwrap();
    let adopted =
        house.catalog.tables().register(&suite::levels("a"), "n", &file, &suite::anywhere).await;
    let Err(CatalogError::Invalid(text)) = adopted else { panic!("{adopted:?}") };
    assert!(text.contains("more than 128 MiB"), "{text}");
}

/// A default value on which the library panics, in a file that is the table's own.
#[tokio::test]
async fn a_file_that_was_written_over_does_not_end_the_process() {
    let house = house().await;
    let table = create(&house.catalog, "a.t").await;
    let storage = house.catalog.storage();
    let file = &table.metadata_location;
    let mut json: Value = serde_json::from_slice(&storage.get(file).await.unwrap()).unwrap();
    json["schemas"][0]["fields"] = json!([{"id": 1, "name": "t", "required": false, "type": "time", "initial-default": "23:59:60"}]);
    storage.put(file, json.to_string().into()).await.unwrap();
    let loaded = anew(&house).tables().load(&ident("a.t")).await;
    assert!(matches!(loaded, Err(CatalogError::Iceberg { .. })), "{loaded:?}");
}

#[tokio::test]
async fn a_table_is_not_registered_on_files_that_are_about_to_be_deleted() {
    let house = house().await;
    let table = create(&house.catalog, "a.t").await;
    let old = append_snapshot(&house, 1).await;
    append_snapshot(&house, 2).await;
    let catalog = anew(&house);
    // A copy of an older state under a name and an identity that nobody knows.
    let storage = catalog.storage();
    let mut json: Value =
        serde_json::from_slice(&storage.get(&old.metadata_location).await.unwrap()).unwrap();
    json["table-uuid"] = Uuid::new_v4().to_string().into();
    json["metadata-log"] = json!([]);
    let copy = format!("{}/metadata/copy.metadata.json", table.metadata.location());
    storage.put(&copy, json.to_string().into()).await.unwrap();
    catalog.tables().drop(&ident("a.t"), true).await.unwrap();
    house.clock.fetch_add(2000, Ordering::SeqCst);
    assert_eq!(catalog.trash().empty(10).await.unwrap(), 1);
    for file in [&copy, &old.metadata_location] {
        let adopted =
            catalog.tables().register(&suite::levels("a"), "n", file, &suite::anywhere).await;
        let Err(CatalogError::Invalid(text)) = adopted else { panic!("{adopted:?}") };
        assert!(text.contains("about to be deleted"), "{text}");
    }
}
