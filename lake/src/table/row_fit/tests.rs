use super::*;
use crate::table::{
    lake::{longs, optional, schema, texts},
    partition::field_id,
};
use arrow::{
    array::{Date32Array, Float32Array, Float64Array, NullArray},
    datatypes::TimestampMicrosecondType,
};

fn rows(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, column)| (name, column, true)),
    )
    .unwrap()
}

fn fitted(table: &Schema, targets: &[i32], given: &RecordBatch) -> Result<RecordBatch, FitError> {
    RowFit::new(table, targets, given.schema_ref())?.fit(given)
}

#[test]
fn every_type_of_a_query_becomes_a_column_or_is_refused_by_name() {
    let zone = || Some("+00:00".into());
    let item = || Arc::new(Field::new("item", DataType::Int32, true));
    for (given, wanted) in [
        (DataType::Boolean, Some("boolean")),
        (DataType::Int8, Some("int")),
        (DataType::UInt16, Some("int")),
        (DataType::UInt32, Some("long")),
        (DataType::Int64, Some("long")),
        (DataType::UInt64, Some("decimal(20,0)")),
        (DataType::Float32, Some("float")),
        (DataType::Float64, Some("double")),
        (DataType::Utf8View, Some("string")),
        (DataType::LargeBinary, Some("binary")),
        (DataType::Date32, Some("date")),
        (DataType::Time64(TimeUnit::Nanosecond), Some("time")),
        (DataType::Timestamp(TimeUnit::Nanosecond, None), Some("timestamp")),
        (DataType::Timestamp(TimeUnit::Second, zone()), Some("timestamptz")),
        (DataType::Decimal128(38, 4), Some("decimal(38,4)")),
        (DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)), Some("string")),
        (DataType::Decimal256(60, 2), None),
        (DataType::Decimal128(5, -2), None),
        (DataType::Null, None),
        (DataType::Duration(TimeUnit::Second), None),
        (DataType::List(item()), None),
        (DataType::Struct(vec![item()].into()), None),
    ] {
        let made = new_schema(&ArrowSchema::new(vec![Field::new("x", given.clone(), true)]));
        match (made, wanted) {
            (Ok(made), Some(wanted)) => {
                let field = made.field_by_name("x").unwrap();
                assert!(!field.required);
                let kind = field.field_type.to_string();
                assert_eq!(kind.replace(' ', ""), wanted, "{given}");
            }
            (Err(error), None) => assert!(error.to_string().contains("`x`"), "{given}: {error}"),
            (made, _) => panic!("{given}: {made:?}"),
        }
    }
}

#[test]
fn names_of_new_columns_are_there_once() {
    let of = |names: &[&str]| {
        let fields = names.iter().map(|name| Field::new(*name, DataType::Int64, true));
        new_schema(&ArrowSchema::new(fields.collect::<Vec<_>>()))
    };
    assert!(matches!(of(&["a", "a"]), Err(FitError::Twice(name)) if name == "a"));
    assert!(matches!(of(&["a", ""]), Err(FitError::NoName(2))));
    assert_eq!(of(&["a", "A"]).unwrap().as_struct().fields().len(), 2);
}

#[test]
fn rows_are_written_under_the_tables_names_and_ids() {
    let table = schema([
        optional(7, "n", PrimitiveType::Long),
        optional(3, "text", PrimitiveType::String),
        optional(9, "day", PrimitiveType::Date),
    ]);
    let given = rows(vec![
        ("x", texts([Some("a"), None])),
        ("y", Arc::new(arrow::array::Int32Array::from(vec![1, 2]))),
    ]);
    let written = fitted(&table, &[3, 7], &given).unwrap();
    let fields = written.schema_ref().fields();
    let ids: Vec<Option<i32>> = fields.iter().map(|field| field_id(field)).collect();
    assert_eq!(ids, [Some(7), Some(3), Some(9)]);
    assert_eq!(written.column(0), &longs([Some(1), Some(2)]));
    assert_eq!(written.column(1), &texts([Some("a"), None]));
    assert_eq!(written.column(2).null_count(), 2);
}

#[test]
fn what_does_not_fit_is_told_with_its_column() {
    let required = NestedField::required(2, "need", Type::Primitive(PrimitiveType::Int));
    let table = schema([
        optional(1, "n", PrimitiveType::Int),
        required,
        optional(3, "id", PrimitiveType::Uuid),
    ]);
    let one = |column: ArrayRef| rows(vec![("a", longs([Some(1)])), ("b", column)]);
    let check = |targets: &[i32], given: &RecordBatch, told: &str| {
        let error = fitted(&table, targets, given).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    };
    check(&[2], &one(longs([Some(1)])), "2 columns, but 1");
    check(&[1], &rows(vec![("a", longs([Some(1)]))]), "`need` needs a value");
    check(&[1, 2], &one(longs([None])), "`need` needs a value");
    check(&[1, 2], &one(longs([Some(1 << 40)])), "fit column `need`");
    check(&[1, 2], &one(texts([Some("1")])), "`need` of the table is of type int");
    check(&[1, 2], &one(Arc::new(Float64Array::from(vec![1.5]))), "CAST");
    check(&[2, 3], &one(texts([Some("1")])), "`id` of the table is of type uuid");
}

#[test]
fn text_is_taken_for_times_and_nothing_for_everything() {
    let table = schema([
        optional(1, "day", PrimitiveType::Date),
        optional(2, "at", PrimitiveType::Timestamptz),
    ]);
    let given = rows(vec![
        ("a", texts([Some("2026-01-02")])),
        ("b", Arc::new(NullArray::new(1)) as ArrayRef),
    ]);
    let written = fitted(&table, &[1, 2], &given).unwrap();
    let days: ArrayRef = Arc::new(Date32Array::from(vec![20_455]));
    assert_eq!(written.column(0), &days);
    assert_eq!(written.column(1).null_count(), 1);
    let wrong = rows(vec![("a", texts([Some("soon")])), ("b", texts([None]))]);
    let error = fitted(&table, &[1, 2], &wrong).unwrap_err().to_string();
    assert!(error.contains("`day`"), "{error}");
}

#[test]
fn a_zone_behind_a_text_is_ignored_where_the_column_has_none() {
    let table = schema([
        optional(1, "local", PrimitiveType::Timestamp),
        optional(2, "at", PrimitiveType::Timestamptz),
    ]);
    let text = || texts([Some("2026-01-01 01:00:00+05")]);
    let written = fitted(&table, &[1, 2], &rows(vec![("a", text()), ("b", text())])).unwrap();
    let times = |column: usize| written.column(column).as_primitive::<TimestampMicrosecondType>();
    let hour = 3_600 * 1_000_000;
    assert_eq!(times(0).value(0) - times(1).value(0), 5 * hour);
    assert_eq!(times(0).value(0) % (24 * hour), hour);
}

#[test]
fn a_number_that_is_too_large_for_a_float_is_told_and_infinity_stays() {
    let table = schema([optional(1, "x", PrimitiveType::Float)]);
    let of = |values: Vec<Option<f64>>| {
        rows(vec![("a", Arc::new(Float64Array::from(values)) as ArrayRef)])
    };
    let fits = of(vec![Some(1.5), None, Some(f64::INFINITY), Some(f64::from(f32::MIN))]);
    let written = fitted(&table, &[1], &fits).unwrap();
    let values: ArrayRef =
        Arc::new(Float32Array::from(vec![Some(1.5), None, Some(f32::INFINITY), Some(f32::MIN)]));
    assert_eq!(written.column(0), &values);
    for value in [1e39, -1e300] {
        let error = fitted(&table, &[1], &of(vec![Some(0.5), Some(value)])).unwrap_err();
        assert!(error.to_string().contains("fit column `x`"), "{error}");
    }
}
