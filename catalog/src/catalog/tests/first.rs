use super::*;
use crate::{
    commit::{FIRST_SEQ, LAST_SEQ},
    metastore::Watermark,
    snapshot::{MarkMove, NewSnapshot},
};

fn noted(text: &str) -> Properties {
    Properties::from([("icecore.ns".to_owned(), text.to_owned())])
}

async fn staged(house: &House, dotted: &str, namespace: Option<Properties>) -> FirstAppend {
    let table = ident(dotted);
    let watermark = Watermark { epoch: 1, position: 9, last_seq: 3 };
    let append = NewSnapshot {
        summary: [(FIRST_SEQ, "1"), (LAST_SEQ, "3")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        mark: Some(MarkMove { watermark, since: 1 }),
        ..NewSnapshot::default()
    };
    let metadata = house
        .catalog
        .tables()
        .stage_first(table.namespace.as_ref(), new_table(&table.name))
        .await
        .unwrap();
    FirstAppend { table, metadata: Arc::new(metadata), namespace, snapshot: append }
}

#[tokio::test]
async fn a_table_and_its_first_rows_are_one_metadata_file_and_one_change() {
    let house = house().await;
    let metastore = house.catalog.metastore();
    let before = metastore.transactions();
    let first = staged(&house, "new.t", Some(noted("New"))).await;
    let made = house.catalog.tables().create_with(first).await.unwrap();
    assert_eq!(metastore.transactions() - before, 1);
    assert_eq!(metastore.namespace(&suite::levels("new")).await.unwrap(), Some(noted("New")));
    // Another process finds what this one knows.
    let found = house.other.tables().load(&ident("new.t")).await.unwrap();
    assert_eq!(found.metadata, made.metadata);
    assert_eq!((found.version, found.watermark), (1, made.watermark));
    let snapshot = found.metadata.current_snapshot().unwrap();
    assert_eq!(snapshot.summary().additional_properties["icecore.last-seq"], "3");
    assert_eq!(found.metadata.metadata_log(), []);
    let rows = house.other.tables().snapshots(&ident("new.t")).await.unwrap();
    assert_eq!(rows[0].seq, Some((1, 3)));
    let files = house.files().await;
    assert_eq!(files.len(), 2, "a manifest list and a metadata file: {files:?}");
}

#[tokio::test]
async fn a_table_that_came_meanwhile_stays_and_what_was_written_is_gone() {
    let house = house().await;
    let same = staged(&house, "b.t", Some(noted("B"))).await;
    let late = staged(&house, "b.t", Some(noted("B"))).await;
    let other = staged(&house, "c.t", Some(noted("C"))).await;
    house.other.metastore().create_namespace(&suite::levels("c"), &noted("c")).await.unwrap();
    let made = house.catalog.tables().create_with(same).await.unwrap();
    let files = house.files().await;
    for first in [late, other] {
        let refused = house.catalog.tables().create_with(first).await;
        assert!(matches!(refused, Err(CatalogError::AlreadyExists(_))), "{refused:?}");
    }
    assert_eq!(house.files().await, files);
    let stays = house.other.tables().load(&ident("b.t")).await.unwrap();
    assert_eq!(stays.metadata_location, made.metadata_location);
}

#[tokio::test]
async fn the_first_rows_of_a_table_come_with_its_mark_or_not_at_all() {
    let house = house().await;
    let mut first = staged(&house, "a.t", None).await;
    first.snapshot.mark = None;
    let refused = house.catalog.tables().create_with(first).await;
    let Err(CatalogError::Invalid(text)) = &refused else { panic!("{refused:?}") };
    assert!(text.contains("mark"), "{text}");
    assert_eq!(house.files().await, [""; 0]);
    let missing = house.other.tables().load(&ident("a.t")).await;
    assert!(matches!(missing, Err(CatalogError::NoSuchTable(_))));
}

#[tokio::test]
async fn a_callers_table_comes_with_its_first_rows_where_its_name_is_free() {
    let house = house().await;
    let tables = house.catalog.tables();
    let staged = async || {
        let levels = suite::levels("a");
        house.catalog.tables().stage_first(&levels, new_table("filled")).await.unwrap()
    };
    let (first, late, elsewhere) = (staged().await, staged().await, staged().await);
    let rows = NewSnapshot::default;
    let made = tables.create_filled(ident("a.filled"), first, rows()).await.unwrap();
    let found = house.other.tables().load(&ident("a.filled")).await.unwrap();
    assert_eq!((&found.metadata, found.version), (&made.metadata, 1));
    assert!(found.metadata.current_snapshot().is_some());
    assert_eq!(found.watermark, None);
    let files = house.files().await;
    let refused = tables.create_filled(ident("a.filled"), late, rows()).await;
    assert!(matches!(refused, Err(CatalogError::AlreadyExists(_))), "{refused:?}");
    let refused = tables.create_filled(ident("nowhere.filled"), elsewhere, rows()).await;
    assert!(matches!(refused, Err(CatalogError::NoSuchNamespace(_))), "{refused:?}");
    assert_eq!(house.files().await, files);
}

#[tokio::test]
async fn files_for_a_table_that_was_dropped_do_not_go_to_another_one_of_its_name() {
    let house = house().await;
    let made = create(&house.catalog, "a.t").await;
    let table = Some(made.metadata.uuid());
    let append = NewSnapshot { table, ..NewSnapshot::default() };
    let added = house.catalog.add_snapshot(&ident("a.t"), append.clone()).await.unwrap();
    assert!(added.metadata.current_snapshot().is_some());
    house.catalog.tables().rename(&ident("a.t"), &ident("a.old")).await.unwrap();
    let other = create(&house.catalog, "a.t").await;
    let refused = house.catalog.add_snapshot(&ident("a.t"), append).await;
    let Err(CatalogError::CommitFailed(text)) = &refused else { panic!("{refused:?}") };
    assert!(text.contains("another one"), "{text}");
    let now = house.catalog.tables().load(&ident("a.t")).await.unwrap();
    assert_eq!(now.metadata_location, other.metadata_location);
}

#[tokio::test]
async fn a_keyed_change_is_made_once_and_told_again() {
    let house = house().await;
    create(&house.catalog, "a.t").await;
    let (id, table) = (Uuid::new_v4(), ident("a.t"));
    let new = house.catalog.keyed(id, "print").await.unwrap();
    let KeyedRequest::New(keyed) = new else { panic!("{new:?}") };
    let made = keyed.add_snapshot(&table, NewSnapshot::default()).await.unwrap();
    let twice = keyed.add_snapshot(&table, NewSnapshot::default()).await;
    assert!(matches!(twice, Err(CatalogError::Repeated)), "{twice:?}");
    // Others go on.
    house.catalog.add_snapshot(&table, NewSnapshot::default()).await.unwrap();
    let done = house.other.keyed(id, "print").await.unwrap();
    let KeyedRequest::Done(Some(told)) = done else { panic!("{done:?}") };
    assert_eq!(told.metadata.current_snapshot_id(), made.metadata.current_snapshot_id());
    let other = house.other.keyed(id, "another").await.unwrap();
    assert!(matches!(other, KeyedRequest::Other), "{other:?}");
}
