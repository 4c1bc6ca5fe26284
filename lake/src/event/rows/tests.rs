use super::*;
use arrow::array::{Array, AsArray, Int64Array, StringArray};

fn batch(columns: &[(&str, ArrayRef)]) -> RecordBatch {
    let schema = event_schema();
    let fields: Vec<_> = columns
        .iter()
        .map(|(name, _)| schema.field_with_name(name).unwrap().clone().with_nullable(true))
        .collect();
    let arrays = columns.iter().map(|(_, array)| Arc::clone(array)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

fn texts(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

#[test]
fn concatenated_rows_have_the_columns_of_all() {
    let first = batch(&[("id", texts(&["1", "2"])), ("actor", texts(&["x", "y"]))]);
    let second =
        batch(&[("version", Arc::new(Int64Array::from(vec![Some(5)]))), ("id", texts(&["3"]))]);
    let both = concat(&event_schema(), &[first.clone(), second]).unwrap();
    let names: Vec<_> = both.schema().fields().iter().map(|f| f.name().clone()).collect();
    assert_eq!(names, ["id", "actor", "version"]);
    let ids: Vec<_> = both.column(0).as_string::<i32>().iter().flatten().collect();
    assert_eq!(ids, ["1", "2", "3"]);
    assert!(both.column(1).is_null(2) && both.column(2).is_null(0) && both.column(2).is_valid(2));
    // A column that a row must have is not made up.
    let third = batch(&[("actor", texts(&["z"]))]);
    assert!(concat(&event_schema(), &[first, third]).is_err());
    assert_eq!(concat(&event_schema(), &[]).unwrap().num_rows(), 0);
}

#[test]
fn aligned_rows_have_every_column_in_order() {
    let schema = Arc::new(event_schema().project(&[0, 6, 7, 21]).unwrap());
    let rows = batch(&[("batch_id", texts(&["b"])), ("id", texts(&["1"]))]);
    let aligned = align(&schema, &rows).unwrap();
    assert_eq!(aligned.schema(), schema);
    assert!(aligned.column(1).is_null(0) && aligned.column(3).is_null(0));
    assert_eq!(aligned.column(2).as_string::<i32>().value(0), "b");
    assert!(align(&schema, &batch(&[("batch_id", texts(&["b"]))])).is_err(), "no id");
}
