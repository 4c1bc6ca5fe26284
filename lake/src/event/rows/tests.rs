use super::*;
use arrow::array::{Array, AsArray, Int64Array, StringArray};
use icecore_schemas::{error_code::ErrorCode, names::Namespace};

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

#[test]
fn a_dead_letter_keeps_the_event_and_the_reason() {
    let rejected = |payload: &str, id: Option<&str>| RejectedEvent {
        index: 0,
        namespace: Namespace::parse("Acme.example").unwrap(),
        kept_in: None,
        code: ErrorCode::TsWindow,
        reason: "too old".to_owned(),
        id: id.map(str::to_owned),
        event_type: Some("t".to_owned()),
        source: None,
        payload: payload.to_owned(),
    };
    let letters =
        [rejected(r#"{"id":"1","_meta":{"retries":4}}"#, Some("1")), rejected("junk", None)];
    let request =
        RequestIds { batch_id: Some("b".to_owned()), correlation_id: Some("c".to_owned()) };
    let rows = dead_letters(&letters, &request, 5, ulid::Ulid(41));
    assert_eq!(rows.schema(), dead_letter_schema());
    let text = |name: &str, row: usize| {
        let column = rows.column_by_name(name).unwrap().as_string::<i32>();
        column.is_valid(row).then(|| column.value(row).to_owned())
    };
    assert_eq!(text("id", 0), Some(ulid::Ulid(41).to_string()));
    assert_eq!(text("id", 1), Some(ulid::Ulid(42).to_string()));
    assert_eq!(text("ns", 0).as_deref(), Some("Acme.example"));
    assert_eq!(text("reason", 0).as_deref(), Some("TS_WINDOW"));
    assert_eq!(text("detail", 0).as_deref(), Some("too old"));
    assert_eq!((text("event_id", 0).as_deref(), text("event_id", 1)), (Some("1"), None));
    assert_eq!(text("batch_id", 1).as_deref(), Some("b"));
    assert_eq!(text("correlation_id", 0).as_deref(), Some("c"));
    assert_eq!(text("source", 0), None);
    assert_eq!(text("status", 1).as_deref(), Some("pending"));
    assert_eq!(text("payload", 1).as_deref(), Some("junk"));
    let retries = rows.column_by_name("retries").unwrap();
    let retries = retries.as_primitive::<arrow::datatypes::Int32Type>();
    assert_eq!((retries.value(0), retries.is_null(1)), (4, true));
    assert_eq!(dead_letters(&[], &request, 5, ulid::Ulid(1)).num_rows(), 0);
}
