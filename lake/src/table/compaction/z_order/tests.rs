use super::*;
use crate::table::{
    lake::{TestLake, longs},
    partition::FIELD_ID,
};
use arrow::{
    array::AsArray,
    datatypes::{DataType, Field, Int64Type, Schema},
};

fn with_property(value: &str) -> TestLake {
    let mut lake = TestLake::of_people(false);
    let property = [(MERGE_ORDER.to_owned(), value.to_owned())];
    lake.change(|builder| builder.set_properties(property.into()));
    lake
}

#[test]
fn the_property_names_one_column_or_two() {
    assert_eq!(ZOrder::of(&TestLake::of_people(false).metadata), Ok(None));
    assert_eq!(ZOrder::of(&with_property("city, id").metadata), Ok(Some(ZOrder::Pair([3, 1]))));
    let of_one = ZOrder::Column { id: 3, seq: None };
    assert_eq!(ZOrder::of(&with_property(" city ").metadata), Ok(Some(of_one)));
    assert_eq!(ZOrder::of(&with_property(" ").metadata), Ok(None));
    for wrong in ["nothing", "id,", "id,id", "id,name,city", "id,nothing"] {
        let told = ZOrder::of(&with_property(wrong).metadata).unwrap_err();
        assert!(told.contains(MERGE_ORDER) && told.contains("two columns"), "{told}");
    }
}

#[test]
fn rows_that_are_alike_in_either_column_come_near_one_another() {
    const SIDE: i64 = 16;
    // Neither the values nor their number tell where they are: only their order counts.
    let places: Vec<i64> = (0..SIDE * SIDE).map(|row| row * 97 % (SIDE * SIDE)).collect();
    let field = |id: i32, name: &str| {
        let metadata = [(FIELD_ID.to_owned(), id.to_string())];
        Field::new(name, DataType::Int64, true).with_metadata(metadata.into())
    };
    let schema = Arc::new(Schema::new(vec![field(7, "a"), field(9, "b")]));
    let columns = vec![
        longs(places.iter().map(|place| Some((place / SIDE).pow(3) - 50))),
        longs(places.iter().map(|place| Some(1_000_000 * (place % SIDE)))),
    ];
    let rows = RecordBatch::try_new(schema, columns).unwrap();
    let sorted = ZOrder::Pair([7, 9]).sorted(&rows).unwrap();
    let pairs = |rows: &RecordBatch| -> Vec<(i64, i64)> {
        let column = |at: usize| rows.column(at).as_primitive::<Int64Type>().values().to_vec();
        column(0).into_iter().zip(column(1)).collect()
    };
    let found = pairs(&sorted);
    for (quarter, rows) in found.chunks(found.len() / 4).enumerate() {
        let is_in_it = |(a, b): &(i64, i64)| {
            (8_i64.pow(3) - 50 <= *a, 8_000_000 <= *b) == (1 < quarter, quarter % 2 == 1)
        };
        assert!(rows.iter().all(is_in_it), "quarter {quarter}: {rows:?}");
    }
    let (mut found, mut before) = (found, pairs(&rows));
    found.sort_unstable();
    before.sort_unstable();
    assert_eq!(found, before);
}

#[test]
fn rows_that_are_alike_in_the_only_column_are_in_the_order_of_seq() {
    let field = |id: i32, name: &str| {
        let metadata = [(FIELD_ID.to_owned(), id.to_string())];
        Field::new(name, DataType::Int64, true).with_metadata(metadata.into())
    };
    let schema = Arc::new(Schema::new(vec![field(1, "seq"), field(2, "a")]));
    let columns = vec![
        longs([Some(5), Some(4), Some(3), Some(2), Some(1)]),
        longs([Some(2), None, Some(-1), Some(2), Some(-1)]),
    ];
    let rows = RecordBatch::try_new(schema, columns).unwrap();
    let sorted = ZOrder::Column { id: 2, seq: Some(1) }.sorted(&rows).unwrap();
    let seqs = sorted.column(0).as_primitive::<Int64Type>().values().to_vec();
    assert_eq!(seqs, [4, 1, 3, 2, 5]);
}

#[tokio::test]
async fn rows_are_held_until_they_are_many() {
    let field = |id: i32, name: &str| {
        let metadata = [(FIELD_ID.to_owned(), id.to_string())];
        Field::new(name, DataType::Int64, true).with_metadata(metadata.into())
    };
    let schema = Arc::new(Schema::new(vec![field(1, "a"), field(2, "b")]));
    let columns = || vec![longs([Some(2), None, Some(1)]), longs([None, Some(1), Some(1)])];
    let mut held = ZOrderRows::new(ZOrder::Pair([1, 2]));
    for _ in 0..2 {
        let rows = RecordBatch::try_new(Arc::clone(&schema), columns()).unwrap();
        assert!(held.add(rows).await.unwrap().is_none());
    }
    assert_eq!(held.take().await.unwrap().map(|rows| rows.num_rows()), Some(6));
    assert!(held.take().await.unwrap().is_none());
}
