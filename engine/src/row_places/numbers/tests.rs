use super::*;
use arrow::{
    array::{Int64Array, RecordBatch, TimestampMicrosecondArray},
    datatypes::Field,
};
use datafusion::{
    execution::cache::{DefaultFilesMetadataCache, cache_manager::FileMetadataCache},
    logical_expr::{col, lit},
    object_store::{ObjectStoreExt, memory::InMemory, path::Path as Key},
};
use iceberg::spec::NestedField;
use parquet::{
    arrow::{ArrowWriter, PARQUET_FIELD_ID_META_KEY},
    file::properties::WriterProperties,
};
use std::collections::HashMap;

const GROUP_ROWS: usize = 1_000;

fn lookups(filter: Expr) -> Vec<NumberLookup> {
    let kinds = [("n", PrimitiveType::Long), ("short", PrimitiveType::Int)];
    let fields = kinds
        .into_iter()
        .zip(1..)
        .map(|((name, kind), id)| Arc::new(NestedField::optional(id, name, Type::Primitive(kind))));
    let columns = Schema::builder().with_fields(fields).build().unwrap();
    let schema = iceberg::arrow::schema_to_arrow_schema(&columns).unwrap();
    NumberLookup::all(&[filter], &columns, &schema)
}

fn one_of(values: &[i64]) -> Vec<NumberLookup> {
    vec![NumberLookup { field_id: 1, values: values.to_vec() }]
}

#[test]
fn only_conditions_that_every_row_has_to_meet_are_look_ups() {
    let is = |value: i64| col("n").eq(lit(value));
    for (filter, expected) in [
        (is(7), one_of(&[7])),
        (lit(7_i64).eq(col("n")), one_of(&[7])),
        (is(7).or(is(8)), one_of(&[7, 8])),
        (col("n").in_list(vec![lit(7_i64), lit(8_i64)], false), one_of(&[7, 8])),
        (is(7).and(col("short").gt(lit(1_i32))), one_of(&[7])),
        (is(7).or(col("short").eq(lit(1_i32))), vec![]),
        (col("n").in_list(vec![lit(7_i64)], true), vec![]),
        (col("n").not_eq(lit(7_i64)), vec![]),
        (col("n").gt(lit(7_i64)), vec![]),
        (col("n").eq(lit(ScalarValue::Int64(None))), vec![]),
        (col("n").eq(lit(7.0_f64)), vec![]),
        (col("short").eq(lit(7_i64)), vec![]),
        (col("strange").eq(lit(7_i64)), vec![]),
    ] {
        assert_eq!(lookups(filter.clone()), expected, "{filter}");
    }
    let many = (0_i64..).take(VALUES_MAX + 1).map(lit).collect();
    assert_eq!(lookups(col("n").in_list(many, false)), vec![]);
}

/// A file with this column in row groups of a thousand.
fn file(column: ArrayRef) -> Vec<u8> {
    let metadata = HashMap::from([(PARQUET_FIELD_ID_META_KEY.to_owned(), "1".to_owned())]);
    let field = Field::new("n", column.data_type().clone(), true).with_metadata(metadata);
    let schema = Arc::new(ArrowSchema::new(vec![field]));
    let rows = RecordBatch::try_new(Arc::clone(&schema), vec![column]).unwrap();
    let properties =
        WriterProperties::builder().set_max_row_group_row_count(Some(GROUP_ROWS)).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties)).unwrap();
    writer.write(&rows).unwrap();
    writer.into_inner().unwrap()
}

/// Whether the file may have a row with one of the numbers, for each of these in turn. Before the last one it goes.
async fn may_have(places: RowPlaces, bytes: Vec<u8>, asked: &[&[i64]]) -> Vec<bool> {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let location = Key::from("t/data/x.parquet");
    store.put(&location, bytes.into()).await.unwrap();
    let meta = store.head(&location).await.unwrap();
    let cache: Arc<dyn FileMetadataCache> = Arc::new(DefaultFilesMetadataCache::new(1 << 20));
    let source = FooterSource { store: store.as_ref(), cache: &cache, bytes_first: 64 };
    let mut answers = Vec::new();
    for (at, values) in asked.iter().enumerate() {
        if at + 1 == asked.len() {
            store.delete(&location).await.unwrap();
        }
        answers.push(places.may_have_numbers(source, &store, &meta, &one_of(values)).await);
    }
    answers
}

/// Every third number, in no order; each hundredth row has none.
fn thirds() -> ArrayRef {
    let number = |row: i64| (row % 100 != 0).then_some(row * 7_919 % 3_000 * 3);
    Arc::new((0..3_000).map(number).collect::<Int64Array>())
}

#[tokio::test]
async fn from_the_second_look_up_on_a_file_without_the_number_is_left_out() {
    let has = 1_234 * 7_919 % 3_000 * 3;
    let asked: &[&[i64]] = &[&[1], &[1], &[has], &[1, has], &[1, 2], &[-3], &[has]];
    let found = may_have(RowPlaces::default(), file(thirds()), asked).await;
    assert_eq!(found, [true, false, true, true, false, false, true]);
}

#[tokio::test]
async fn a_file_is_read_where_its_numbers_are_frequent_or_other_ones_or_too_many() {
    let frequent: ArrayRef =
        Arc::new(Int64Array::from_iter_values((0..3_000).map(|row| row % 500 * 2)));
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values(0..3_000));
    let absent: &[i64] = &[-1];
    let asked = &[absent; 3];
    for column in [frequent, times] {
        let found = may_have(RowPlaces::default(), file(column), asked).await;
        assert_eq!(found, [true; 3]);
    }
    let small = RowPlaces::with_share(1 << 20);
    assert_eq!(may_have(small, file(thirds()), asked).await, [true; 3]);
    // The file goes before its numbers are read.
    let gone = may_have(RowPlaces::default(), file(thirds()), &asked[1..]).await;
    assert_eq!(gone, [true; 2]);
}
