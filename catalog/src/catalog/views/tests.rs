use super::*;
use crate::{
    catalog::tests::{House, create, house, ident},
    metastore::suite,
};
use futures::future::join_all;
use serde_json::{Value, json};

fn version(sql: &str) -> Value {
    json!({"version-id": 1, "schema-id": 0, "timestamp-ms": 1000, "summary": {},
        "default-namespace": ["a"],
        "representations": [{"type": "sql", "sql": sql, "dialect": "spark"}]})
}

pub(crate) fn new_view(name: &str) -> CreateView {
    let schema = json!({"type": "struct", "schema-id": 0, "fields": [
        {"id": 1, "name": "id", "required": true, "type": "string"}]});
    CreateView {
        name: name.to_owned(),
        schema: serde_json::from_value(schema).unwrap(),
        version: serde_json::from_value(version("select 1")).unwrap(),
        location: None,
        properties: HashMap::new(),
    }
}

async fn view(house: &House, name: &str) -> LoadedView {
    house.catalog.views().create(&suite::levels("a"), new_view(name)).await.unwrap()
}

fn change(name: &str, updates: Value) -> ViewChange {
    let updates = serde_json::from_value(updates).unwrap();
    ViewChange { view: ident(name), requirements: Vec::new(), updates }
}

fn set(name: &str, key: &str, value: &str) -> ViewChange {
    change(name, json!([{"action": "set-properties", "updates": {key: value}}]))
}

#[tokio::test]
async fn a_view_is_loaded_as_it_was_made_and_changed() {
    let house = house().await;
    let made = view(&house, "v").await;
    let uuid = made.metadata.uuid();
    assert_eq!(made.metadata.location(), format!("{}/a/{uuid}", house.root()));
    assert!(made.metadata_location.starts_with(&format!("{}/metadata/", made.metadata.location())));
    let mut other = change(
        "a.v",
        json!([{"action": "add-view-version", "view-version": version("select 2")},
               {"action": "set-current-view-version", "view-version-id": -1}]),
    );
    other.requirements = vec![ViewRequirement::UuidMatch { uuid }];
    let changed = house.other.views().commit(other.clone()).await.unwrap();
    assert_eq!((changed.version, changed.metadata.versions().len()), (2, 2));
    assert_ne!(changed.metadata_location, made.metadata_location);
    for catalog in [&house.catalog, &house.other] {
        let loaded = catalog.views().load(&ident("a.v")).await.unwrap();
        assert_eq!(loaded.metadata, changed.metadata);
        assert_eq!(loaded.metadata_location, changed.metadata_location);
    }
    // Sent again it is there already, and no file is written for it.
    let files = house.files().await;
    assert_eq!(house.other.views().commit(other.clone()).await.unwrap().version, 2);
    assert_eq!(house.files().await, files);

    other.requirements = vec![ViewRequirement::UuidMatch { uuid: Uuid::from_u128(1) }];
    let failed = house.catalog.views().commit(other).await;
    assert!(matches!(failed, Err(CatalogError::CommitFailed(_))));
    let missing = house.catalog.views().commit(set("a.none", "k", "v")).await;
    assert!(matches!(missing, Err(CatalogError::NoSuchView(name)) if name == "a.none"));
}

#[tokio::test]
async fn no_concurrent_change_of_a_view_is_lost() {
    let house = house().await;
    view(&house, "v").await;
    // Two processes: each queues its own changes, and they race at the metastore.
    let changes = (0..6).flat_map(|number| {
        let (one, other) = (format!("one{number}"), format!("other{number}"));
        [(&house.catalog, set("a.v", &one, "1")), (&house.other, set("a.v", &other, "1"))]
    });
    let done = join_all(changes.map(|(catalog, change)| async move {
        for _ in 0..20 {
            match catalog.views().commit(change.clone()).await {
                Err(CatalogError::CommitFailed(_)) => (),
                done => return done.map(|_| ()),
            }
        }
        panic!("lost every race");
    }))
    .await;
    assert!(done.iter().all(Result::is_ok), "{done:?}");
    let view = house.catalog.views().load(&ident("a.v")).await.unwrap();
    assert_eq!((view.version, view.metadata.properties().len()), (13, 12));
    let files = house.files().await;
    assert_eq!(files.len(), 13, "the files of lost races are gone: {files:?}");
}

#[tokio::test]
async fn tables_and_views_share_their_names() {
    let house = house().await;
    let (catalog, a) = (&house.catalog, suite::levels("a"));
    create(catalog, "a.t").await;
    view(&house, "v").await;
    let files = house.files().await;
    let taken = catalog.views().create(&a, new_view("t")).await.unwrap_err();
    assert_eq!(taken.to_string(), "Table with same name already exists: a.t");
    let taken = catalog.views().create(&a, new_view("v")).await.unwrap_err();
    assert_eq!(taken.to_string(), "View already exists: a.v");
    assert_eq!(house.files().await, files);
    let missing = catalog.tables().load(&ident("a.v")).await;
    assert!(matches!(missing, Err(CatalogError::NoSuchTable(_))));
    let missing = catalog.views().load(&ident("a.t")).await;
    assert!(matches!(missing, Err(CatalogError::NoSuchView(_))));
    let homeless = catalog.views().create(&suite::levels("none"), new_view("v")).await;
    assert!(matches!(homeless, Err(CatalogError::NoSuchNamespace(_))));
}

#[tokio::test]
async fn a_dropped_view_can_be_registered_again() {
    let house = house().await;
    let (catalog, a) = (&house.catalog, suite::levels("a"));
    let made = view(&house, "v").await;
    let taken = catalog.views().register(&a, "w", &made.metadata_location, &suite::anywhere).await;
    assert!(matches!(taken, Err(CatalogError::Registered(_))), "one view has one name");
    catalog.views().drop(&ident("a.v")).await.unwrap();
    let gone = catalog.views().load(&ident("a.v")).await;
    assert!(matches!(gone, Err(CatalogError::NoSuchView(_))));
    let back =
        catalog.views().register(&a, "w", &made.metadata_location, &suite::anywhere).await.unwrap();
    assert_eq!(back.metadata, made.metadata);

    let table = create(catalog, "a.t").await;
    for wrong in [table.metadata_location, format!("{}/none.metadata.json", house.root())] {
        let refused = catalog.views().register(&a, "x", &wrong, &suite::anywhere).await;
        assert!(matches!(refused, Err(CatalogError::Invalid(_))), "{wrong}");
    }
    let taken = catalog
        .views()
        .register(&a, "t", &made.metadata_location, &suite::anywhere)
        .await
        .unwrap_err();
    assert_eq!(taken.to_string(), "Table with same name already exists: a.t");
}

#[tokio::test]
async fn a_view_stays_in_the_warehouse() {
    let house = house().await;
    let (catalog, a) = (&house.catalog, suite::levels("a"));
    let made = view(&house, "v").await;
    let files = house.files().await;
    let root = house.root().to_owned();
    for outside in [
        "file:///etc",
        "s3://b/v",
        root.as_str(),
        &format!("{root}/../v"),
        &format!("{root}/%2e%2e/v"),
    ] {
        let new = CreateView { location: Some(outside.to_owned()), ..new_view("x") };
        let refused = catalog.views().create(&a, new).await;
        assert!(matches!(refused, Err(CatalogError::LocationForbidden(_))), "{outside}");
        let paths = HashMap::from([("write.metadata.path".to_owned(), outside.to_owned())]);
        let new = CreateView { properties: paths, ..new_view("x") };
        let refused = catalog.views().create(&a, new).await;
        assert!(matches!(refused, Err(CatalogError::LocationForbidden(_))), "{outside}");
        let moved = json!([{"action": "set-location", "location": outside}]);
        let refused = catalog.views().commit(change("a.v", moved)).await;
        assert!(matches!(refused, Err(CatalogError::LocationForbidden(_))), "{outside}");
        let refused = catalog.views().commit(set("a.v", "write.metadata.path", outside)).await;
        assert!(matches!(refused, Err(CatalogError::LocationForbidden(_))), "{outside}");
        let refused = catalog.views().register(&a, "x", outside, &suite::anywhere).await;
        assert!(matches!(refused, Err(CatalogError::LocationForbidden(_))), "{outside}");
    }
    assert_eq!(house.files().await, files);
    // Metadata from elsewhere is not adopted either, wherever its file lies.
    let forged =
        view::to_json(&made.metadata).to_string().replace(made.metadata.location(), "file:///etc");
    let inside = format!("{}/metadata/forged.metadata.json", made.metadata.location());
    catalog.storage().put(&inside, forged.into()).await.unwrap();
    let refused = catalog.views().register(&a, "x", &inside, &suite::anywhere).await;
    assert!(matches!(refused, Err(CatalogError::LocationForbidden(_))));
}

#[tokio::test]
async fn a_view_may_choose_where_its_metadata_lies() {
    let house = house().await;
    let place = format!("{}/views/one", house.root());
    let paths = HashMap::from([("write.metadata.path".to_owned(), format!("{place}/own/"))]);
    let new = CreateView {
        location: Some(place.replacen("file:///", "file:/", 1)),
        properties: paths,
        ..new_view("v")
    };
    let made = house.catalog.views().create(&suite::levels("a"), new).await.unwrap();
    assert_eq!(made.metadata.location(), place);
    assert!(made.metadata_location.starts_with(&format!("{place}/own/")));
}
