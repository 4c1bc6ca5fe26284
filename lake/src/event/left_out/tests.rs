use super::*;
use crate::event::{BodyFormat, EventLimits, RequestContext, decode::decode};
use icecore_schemas::{columns::TRIAL, names::Namespace};
use serde_json::json;

/// The rows of these events, every known column there.
fn rows_of(events: &Value, columns: &'static [Column]) -> RecordBatch {
    let arrival = RequestContext {
        now_us: 1_772_323_200_000_000,
        namespace: Namespace::parse("a").unwrap(),
        first_id: ulid::Ulid::nil(),
        cloud_event: Vec::new(),
        correlation_id: None,
        request_id: None,
        again: None,
    };
    let limits = EventLimits {
        event_bytes_max: 1 << 20,
        batch_events_max: 100,
        depth_max: 64,
        ts_past_us: None,
        ts_future_us: i64::MAX,
        redact: false,
        columns,
        takes_merge_ids: false,
    };
    let decoded = decode(events.to_string().as_bytes(), BodyFormat::Json, &arrival, &limits);
    let (decoded, _) = decoded.unwrap();
    rows::align(&with_seq(), &add_seq(&decoded.accepted[0].rows)).unwrap()
}

fn with_seq() -> arrow::datatypes::SchemaRef {
    rows::known_event_schema()
}

fn add_seq(rows: &RecordBatch) -> RecordBatch {
    let mut fields = rows.schema().fields().to_vec();
    fields.push(Arc::new(arrow::datatypes::Field::new("seq", DataType::Int64, false)));
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new(arrow::array::Int64Array::from_iter_values(1..=rows.num_rows() as i64)));
    RecordBatch::try_new(Arc::new(arrow::datatypes::Schema::new(fields)), columns).unwrap()
}

fn payloads(rows: &RecordBatch) -> Vec<Option<Value>> {
    let texts = rows.column_by_name("payload").unwrap().as_string::<i32>();
    texts.iter().map(|text| text.map(|text| serde_json::from_str(text).unwrap())).collect()
}

#[test]
fn values_without_a_place_are_in_the_payload_with_the_whole_event() {
    let events = json!([
        { "id": "1", "type": "a.b", "ts": "2026-03-01T00:00:00Z", "attempt_number": 3,
          "data": { "x": [1, "\u{fc}"] }, "success": true, "duration_ms": 1.5, "retries": 2 },
        { "id": "2", "type": "a.b", "ts": "2026-03-01T00:00:00Z" },
        { "id": "3", "type": "a.b", "ts": "2026-03-01T00:00:00Z", "attempt_number": 4, "mine": 1 },
    ]);
    let rows = rows_of(&events, KNOWN_EVENTS);
    assert_eq!(payloads(&rows)[..2], [None, None]);
    let left = leave_out(&rows, &[&TRIAL[1]]).unwrap();
    assert!(left.column_by_name("attempt_number").is_none());
    let payloads = payloads(&left);
    let mut first = payloads[0].clone().unwrap();
    assert_eq!(first["ts"].as_str().unwrap()[..19], *"2026-03-01T00:00:00");
    first["ts"] = events[0]["ts"].clone();
    first.as_object_mut().unwrap().remove("ns");
    assert_eq!(first, events[0]);
    assert_eq!(payloads[1], None);
    // What came whole stays as it came.
    assert_eq!(payloads[2], Some(events[2].clone()));
}

#[test]
fn a_column_that_there_is_not_is_a_member_that_nobody_knows() {
    let events = json!([{ "id": "1", "type": "a.b", "attempt_number": 3 }]);
    let rows = rows_of(&events, icecore_schemas::columns::EVENTS);
    assert_eq!(payloads(&rows), [Some(events[0].clone())]);
    let column = rows.column_by_name("attempt_number").unwrap();
    assert_eq!(column.null_count(), 1);
}

#[test]
fn nothing_changes_where_nothing_is_left_out() {
    let rows = rows_of(&json!([{ "id": "1", "type": "a.b", "attempt_number": 3 }]), KNOWN_EVENTS);
    assert_eq!(leave_out(&rows, &[]).unwrap(), rows);
    let left = leave_out(&rows, &[&TRIAL[0]]).unwrap();
    assert_eq!(payloads(&left), [None]);
    assert_eq!(left.num_columns(), rows.num_columns() - 1);
}
