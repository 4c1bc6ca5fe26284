use super::*;
use arrow::array::{Array, AsArray};
use icecore_schemas::{error_code::ErrorCode, names::Namespace};

#[test]
fn a_dead_letter_keeps_the_event_and_the_reason() {
    let rejected = |payload: &str, id: Option<&str>| RejectedEvent {
        index: 0,
        namespace: Namespace::parse("Acme.example").unwrap(),
        kept_in: None,
        code: ErrorCode::TsWindow,
        actual_version: None,
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
    let rows = rejected_rows(&letters, &request, 5, ulid::Ulid(41));
    assert_eq!(rows.schema(), rows::dead_letter_schema());
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
    assert_eq!(rejected_rows(&[], &request, 5, ulid::Ulid(1)).num_rows(), 0);
}
