use super::*;
use crate::table::{
    lake::{longs, optional, schema, texts},
    partition::field_id,
};
use arrow::{
    array::{
        Date32Array, Float32Array, Float64Array, Int32Array, Int64Builder, ListArray, MapBuilder,
        NullArray, StringBuilder, StructArray,
    },
    datatypes::{Fields, Int32Type, TimestampMicrosecondType},
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
        (DataType::List(item()), Some("list")),
        (DataType::FixedSizeList(item(), 2), Some("list")),
        (DataType::Struct(vec![item()].into()), Some("struct<int>")),
        (DataType::Struct(Fields::empty()), None),
        (DataType::List(Arc::new(Field::new("item", DataType::Null, true))), None),
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
    let told = of(&["a", "b", "A"]).unwrap_err().to_string();
    assert!(told.contains("`a` and `A` differ by case"), "{told}");
    let members = ["n", "N"].map(|name| Field::new(name, DataType::Int64, true));
    let kind = DataType::Struct(members.to_vec().into());
    let made = new_schema(&ArrowSchema::new(vec![Field::new("s", kind, true)]));
    assert!(matches!(made, Err(FitError::Members(name)) if name == "s"));
    let member = Field::new("b", DataType::Int64, true);
    let fields = vec![
        Field::new("a", DataType::Struct(vec![member].into()), true),
        Field::new("a.b", DataType::Int64, true),
    ];
    let told = new_schema(&ArrowSchema::new(fields)).unwrap_err().to_string();
    assert!(told.contains("multiple fields for name a.b"), "{told}");
}

/// Rows with a list, a struct with a list, and a map.
fn nested_rows() -> RecordBatch {
    let list = |values: Vec<Option<Vec<Option<i32>>>>| -> ArrayRef {
        Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(values))
    };
    let within = list(vec![Some(vec![Some(7)]), None]);
    let member = Field::new("l", within.data_type().clone(), true);
    let structs = StructArray::new(vec![member].into(), vec![within], None);
    let mut map = MapBuilder::new(None, StringBuilder::new(), Int64Builder::new());
    map.keys().append_value("k");
    map.values().append_value(2);
    map.append(true).unwrap();
    map.append(false).unwrap();
    rows(vec![
        ("list", list(vec![Some(vec![Some(1), None]), None])),
        ("parts", Arc::new(structs)),
        ("map", Arc::new(map.finish())),
    ])
}

#[test]
fn lists_structs_and_maps_are_written_with_field_ids_at_each_depth() {
    let given = nested_rows();
    let table = new_schema(given.schema_ref()).unwrap();
    let written = fitted(&table, &[1, 2, 3], &given).unwrap();
    let ids = |fields: &Fields| fields.iter().map(|field| field_id(field)).collect::<Vec<_>>();
    assert_eq!(ids(written.schema_ref().fields()), [Some(1), Some(2), Some(3)]);
    let DataType::Struct(members) = written.column(1).data_type() else { panic!("no struct") };
    assert_eq!(ids(members), [Some(5)]);
    let DataType::List(item) = members[0].data_type() else { panic!("no list") };
    assert_eq!((item.name().as_str(), field_id(item)), ("element", Some(6)));
    let DataType::Map(entries, _) = written.column(2).data_type() else { panic!("no map") };
    let DataType::Struct(entry) = entries.data_type() else { panic!("no entries") };
    assert_eq!(ids(entry), [Some(7), Some(8)]);
    let list = written.column(0).as_list::<i32>();
    let first: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None]));
    assert_eq!((&list.value(0), list.is_null(1)), (&first, true));
    let within = written.column(1).as_struct().column(0).as_list::<i32>();
    assert_eq!((within.value(0).len(), within.is_null(1)), (1, true));
    assert_eq!(written.column(2).as_map().value(0).len(), 1);
    // Nothing stands for all of them.
    let nothing = ["a", "b", "c"].map(|name| (name, Arc::new(NullArray::new(1)) as ArrayRef));
    let nulls = fitted(&table, &[1, 2, 3], &rows(nothing.to_vec())).unwrap();
    assert!(nulls.columns().iter().all(|column| column.null_count() == 1), "{nulls:?}");
}

#[test]
fn nested_values_go_to_columns_of_the_same_form_alone() {
    let given = nested_rows();
    let table = new_schema(given.schema_ref()).unwrap();
    for (targets, told) in [([2, 1, 3], "`list` of the table"), ([1, 3, 2], "`parts` of the table")]
    {
        let error = fitted(&table, &targets, &given).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
    // A column that is left out is not in the file.
    let one = rows(vec![("list", Arc::clone(given.column(0)))]);
    assert_eq!(fitted(&table, &[1], &one).unwrap().num_columns(), 1);
    let whole = schema([optional(1, "n", PrimitiveType::Int)]);
    let error = fitted(&whole, &[1], &one).unwrap_err().to_string();
    assert!(error.contains("`n` of the table is of type int"), "{error}");
}

#[test]
fn a_column_that_is_replaced_by_one_of_its_name_and_type_keeps_its_id() {
    let before = schema([
        optional(3, "n", PrimitiveType::Long),
        optional(5, "text", PrimitiveType::String),
        optional(6, "gone", PrimitiveType::String),
    ]);
    let item = Arc::new(Field::new("item", DataType::Int64, true));
    let kinds = [
        ("new", DataType::Int64),
        ("text", DataType::Utf8),
        ("n", DataType::Utf8),
        ("list", DataType::List(item)),
    ];
    let fields = kinds.map(|(name, kind)| Field::new(name, kind, true));
    let made = replacing_schema(&ArrowSchema::new(fields.to_vec()), &before, 7).unwrap();
    let ids: Vec<i32> = made.as_struct().fields().iter().map(|field| field.id).collect();
    assert_eq!(ids, [8, 5, 10, 11]);
    assert_eq!(made.highest_field_id(), 12);
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
