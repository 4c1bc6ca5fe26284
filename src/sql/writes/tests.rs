use super::*;
use crate::sql::tests::House;
use arrow::{
    array::{ArrayRef, Int64Array},
    record_batch::RecordBatch,
};
use futures::stream;
use iceberg::spec::{NestedField, PrimitiveType, Schema, Type};
use icecore_lake::clock::Clock;

#[tokio::test]
async fn a_statement_whose_client_goes_ends_and_stores_nothing() {
    let house = House::new().await;
    let column = NestedField::optional(1, "n", Type::Primitive(PrimitiveType::Long));
    let schema = Schema::builder().with_fields([Arc::new(column)]).build().unwrap();
    let levels = vec!["shop".to_owned()];
    let staged = house.catalog.tables().stage_first(&levels, CreateTable::plain("t", schema));
    let table = Arc::new(staged.await.unwrap());
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
    let rows = RecordBatch::try_from_iter([("n", numbers)]).unwrap();
    let fit = RowFit::new(table.current_schema(), &[1], rows.schema_ref()).unwrap();
    let writing = || RowsToWrite {
        storage: house.catalog.storage().clone(),
        table: Arc::clone(&table),
        fit: fit.clone(),
        ids: IdGenerator::new(Clock::manual(1_790_000_000_000)),
    };
    // It has an end as long as somebody waits.
    let (here, gone) = oneshot::channel();
    let batches = stream::iter([Ok(rows.clone()), Ok(rows.clone())]).boxed();
    let files = writing().write(batches, gone).await.unwrap();
    assert_eq!(files.iter().map(DataFile::record_count).sum::<u64>(), 6);
    drop(here);
    // Its rows never end.
    let (here, gone) = oneshot::channel();
    drop(here);
    let batches = stream::iter([Ok(rows)]).chain(stream::pending()).boxed();
    let ended = writing().write(batches, gone).await;
    assert!(matches!(ended, Err(WriteFailure::Query(SqlError::Unavailable))), "{ended:?}");
}

#[tokio::test]
async fn what_a_statement_wrote_is_not_guessed_once_its_snapshot_is_gone() {
    let house = House::new().await;
    house.take(1..4);
    let table = house.commit().await;
    assert!(table.metadata.current_snapshot().is_some());
    assert_eq!(WriteReport::of(&table, "expired"), None);
}

#[test]
fn a_statement_is_found_by_its_namespace() {
    let levels = ["a".to_owned(), "b".to_owned()];
    assert!(check_namespace(&levels, None).is_ok());
    assert!(check_namespace(&levels, Some("a.b")).is_ok());
    let of_events = ["shop_example".to_owned()];
    for written in ["shop.example", "shop_example"] {
        assert!(check_namespace(&of_events, Some(written)).is_ok(), "{written}");
    }
    let error = check_namespace(&levels, Some("b")).unwrap_err().to_string();
    assert!(error.contains("/v1/b/sql"), "{error}");
}

#[test]
fn names_of_collections_are_those_of_the_service() {
    let is_refused = |levels: &[&str], name: &str| {
        let levels: Vec<String> = levels.iter().map(|level| (*level).to_owned()).collect();
        is_of_collection(&foreign_ident(&levels, name).unwrap())
    };
    assert!(is_refused(&["shop"], "cdc_users") && is_refused(&["shop"], "CDC_x"));
    assert!(is_refused(&["shop"], "collections/users"));
    assert!(!is_refused(&["shop"], "cdcusers") && !is_refused(&["a", "b"], "cdc_users"));
}
