use super::*;
use bytes::Bytes;
use icecore_lake::event::{BodyFormat, EventLimits, RequestContext, decode};
use icecore_schemas::{columns::KNOWN_EVENTS, names::Namespace};
use serde_json::json;

fn decoded(body: &str) -> DecodedBody {
    let arrival = RequestContext {
        now_us: 1_000_000,
        namespace: Namespace::parse("shop").unwrap(),
        first_id: ulid::Ulid(1),
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
        columns: KNOWN_EVENTS,
        takes_merge_ids: false,
    };
    let (mut decoded, _) =
        decode::decode(body.as_bytes(), BodyFormat::Json, &arrival, &limits).unwrap();
    decoded.source.bytes = Bytes::copy_from_slice(body.as_bytes());
    decoded
}

#[test]
fn a_version_is_found_beside_the_members_of_a_change_and_nowhere_else() {
    for (members, expected) in [
        (r#""expected_version":3"#, Some(ExpectedVersion::Exactly(3))),
        (r#""expected_version" : 0 "#, Some(ExpectedVersion::Exactly(0))),
        (r#""expected_version":"3""#, Some(ExpectedVersion::Invalid)),
        (r#""expected_version":-1"#, Some(ExpectedVersion::Invalid)),
        (r#""expected_version":1.5"#, Some(ExpectedVersion::Invalid)),
        (r#""expected_version":null"#, None),
        (r#""expectedVersion":4"#, Some(ExpectedVersion::Exactly(4))),
        (r#""expectedVersion":"4""#, Some(ExpectedVersion::Invalid)),
        (r#""expectedVersion":4,"expected_version":3"#, Some(ExpectedVersion::Exactly(3))),
        (r#""expectedVersion":4,"expected_version":null"#, Some(ExpectedVersion::Exactly(4))),
        (r#""expected_version":5,"expected_version":0"#, Some(ExpectedVersion::Exactly(0))),
        (r#""expected_version":0,"expected_version":"x""#, Some(ExpectedVersion::Invalid)),
        (r#""other":{"expected_version":3}"#, None),
        (r#""data":{"text":"expected_version"}"#, None),
        (r#""actor":"x""#, None),
    ] {
        let body = format!(
            r#"{{"op":"u","collection":"users","key":"1","after":{{"expected_version":9}},{members}}}"#
        );
        let decoded = decoded(&body);
        let events = &decoded.accepted[0];
        let columns = ChangeColumns::of(events, &decoded.source);
        let found = columns.and_then(|columns| columns.expected(0));
        assert_eq!(found, expected, "{members}");
        assert_eq!(has_any(events, &decoded.source), expected.is_some(), "{members}");
    }
}

#[test]
fn an_event_of_an_export_expects_nothing() {
    let event = r#"{"op":"u","collection":"users","key":"1","after":{},"expected_version":3}"#;
    let exported = json!({
        "op": "u", "collection": "users", "key": "1", "after": {}, "icecore_event": event,
    });
    let mut own = exported.clone();
    own["expected_version"] = json!(4);
    for (body, expected) in [
        (event.to_owned(), Some(ExpectedVersion::Exactly(3))),
        (exported.to_string(), None),
        // A sender's own member of that name.
        (own.to_string(), Some(ExpectedVersion::Exactly(4))),
    ] {
        let decoded = decoded(&body);
        let columns = ChangeColumns::of(&decoded.accepted[0], &decoded.source).unwrap();
        assert!(columns.payload.value(0).contains(MEMBERS[0]), "{body}");
        assert_eq!(columns.expected(0), expected, "{body}");
    }
}

#[test]
fn every_change_of_such_a_document_is_among_the_rows() {
    let decoded = decoded(
        r#"[{"op":"u","collection":"users","key":"b","after":{}},
            {"op":"d","collection":"users","key":"a","expected_version":2},
            {"op":"u","collection":"users","key":"c","after":{}},
            {"op":"r","collection":"users","key":"b","after":{}},
            {"op":"truncate","collection":"users"},
            {"op":"truncate","collection":"orders"},
            {"type":"seen","collection":"users","key":"a","expected_version":7},
            {"op":"c","collection":"users","key":"b","after":{},"expected_version":0},
            {"op":"truncate","collection":"users","expected_version":1},
            {"op":"c","collection":"users","after":{},"expected_version":0},
            {"op":"c","key":"b","after":{},"expected_version":0}]"#,
    );
    let group = ExpectingGroup::of(&decoded.accepted[0], &decoded.source);
    let name = |key: &str| ("users".to_owned(), key.to_owned());
    assert_eq!(group.documents, [name("a"), name("b")]);
    let rows: Vec<String> = group
        .rows
        .iter()
        .map(|DocumentRow { row, effect }| match effect {
            RowEffect::Change { document, expected, .. } => {
                format!("{row}: {document} {expected:?}")
            }
            RowEffect::Truncate { documents } => format!("{row}: {documents:?} go"),
            RowEffect::NoDocument => format!("{row}: no document"),
        })
        .collect();
    assert_eq!(
        rows,
        [
            "0: 1 Any",
            "1: 0 Exactly(2)",
            "3: 1 Any",
            "4: 0..2 go",
            "7: 1 Exactly(0)",
            "8: no document",
            "9: no document",
            "10: no document",
        ]
    );
}

#[test]
fn a_column_of_a_row_and_a_member_of_another_event_expect_nothing() {
    for event in [
        r#"{"id":7,"name":"x","expected_version":3,"__op":"u","__table":"users","__lsn":1}"#,
        r#"{"id":7,"expectedVersion":"high","__deleted":"false","__table":"users"}"#,
        r#"{"name":"x","expected_version":3,"__deleted":true,"__lsn":1}"#,
        r#"{"type":"order.changed","op":"update","expectedVersion":3}"#,
    ] {
        let decoded = decoded(event);
        let events = &decoded.accepted[0];
        let columns = ChangeColumns::of(events, &decoded.source).unwrap();
        assert!(columns.op(0).is_some(), "{event}");
        assert!(columns.payload.value(0).contains("expected"), "{event}");
        assert!(!has_any(events, &decoded.source), "{event}");
    }
    // These fields make no row of it.
    let event = r#"{"op":"u","collection":"users","key":"1","after":{},"__op":"other","expected_version":3}"#;
    let decoded = decoded(event);
    assert!(has_any(&decoded.accepted[0], &decoded.source));
}

#[test]
fn a_version_of_no_document_is_seen_where_no_event_names_one() {
    for event in [
        r#"{"op":"c","after":{},"expected_version":0}"#,
        r#"{"op":"c","after":{},"key":"1","expectedVersion":0}"#,
        r#"{"op":"c","after":{},"collection":"users","key":null,"expected_version":0}"#,
        r#"{"op":"truncate","collection":"users","expected_version":"x"}"#,
    ] {
        let decoded = decoded(event);
        let group = ExpectingGroup::of(&decoded.accepted[0], &decoded.source);
        let [DocumentRow { row: 0, effect: RowEffect::NoDocument }] = group.rows.as_slice() else {
            panic!("{event}: {group:?}");
        };
        assert!(group.documents.is_empty(), "{event}");
    }
}
