use super::*;
use crate::event::{EventKey, NamespaceEvents, event_key, normalize, rows};
use arrow::{
    array::{Array, AsArray},
    datatypes::{Float64Type, Int32Type, Int64Type, TimestampMicrosecondType},
};
use icecore_schemas::names::Namespace;

/// 2026-11-20T14:00:00Z.
const NOW_US: i64 = 1_795_183_200_000_000;

fn limits() -> EventLimits {
    EventLimits {
        event_bytes_max: 1 << 20,
        batch_events_max: 10_000,
        depth_max: 64,
        ts_past_us: Some(7 * 86_400_000_000),
        ts_future_us: 3_600_000_000,
        redact: true,
        columns: icecore_schemas::columns::EVENTS,
        takes_merge_ids: false,
    }
}

fn arrival() -> RequestContext {
    RequestContext {
        now_us: NOW_US,
        namespace: Namespace::parse("acme.example").unwrap(),
        first_id: ulid::Ulid::from_parts(1_795_183_200_000, 7),
        cloud_event: Vec::new(),
        correlation_id: None,
        request_id: None,
        again: None,
    }
}

fn take(body: impl AsRef<[u8]>, format: BodyFormat) -> (DecodedBody, Option<String>) {
    decode(body.as_ref(), format, &arrival(), &limits()).unwrap()
}

fn refuse(body: impl AsRef<[u8]>, format: BodyFormat) -> ErrorCode {
    decode(body.as_ref(), format, &arrival(), &limits()).unwrap_err().code
}

/// The single accepted row of a body, as `column=value` of every column that is not null, without
/// ns, ingested_at and an id that was minted.
fn row(body: &str, format: BodyFormat) -> String {
    let (decoded, _) = take(body, format);
    assert!(decoded.rejected.is_empty(), "{body}: {:?}", decoded.rejected);
    assert_eq!(decoded.received, 1, "{body}");
    show(&decoded.accepted[0], 0)
}

fn show(events: &NamespaceEvents, row: usize) -> String {
    let mut shown = Vec::new();
    for (field, column) in events.rows.schema().fields().iter().zip(events.rows.columns()) {
        let name = field.name().as_str();
        if column.is_null(row) || ["ns", "ingested_at"].contains(&name) {
            continue;
        }
        let value = match field.data_type() {
            arrow::datatypes::DataType::Utf8 => column.as_string::<i32>().value(row).to_owned(),
            arrow::datatypes::DataType::Int64 => {
                column.as_primitive::<Int64Type>().value(row).to_string()
            }
            arrow::datatypes::DataType::Int32 => {
                column.as_primitive::<Int32Type>().value(row).to_string()
            }
            arrow::datatypes::DataType::Float64 => {
                column.as_primitive::<Float64Type>().value(row).to_string()
            }
            arrow::datatypes::DataType::Boolean => column.as_boolean().value(row).to_string(),
            arrow::datatypes::DataType::Timestamp(..) => {
                let us = column.as_primitive::<TimestampMicrosecondType>().value(row);
                if us == NOW_US {
                    continue;
                }
                format!("now{:+}ms", (us - NOW_US) / 1_000)
            }
            other => panic!("{other}"),
        };
        if name == "id" && value.starts_with("01") {
            continue;
        }
        shown.push(format!("{name}={value}"));
    }
    shown.join(" ")
}

fn check(event: &str, expected: &str) {
    assert_eq!(row(event, BodyFormat::Json), expected, "{event}");
}

fn check_refused(event: &str, code: ErrorCode, reason: &str) {
    let (decoded, _) = take(event, BodyFormat::Json);
    assert!(decoded.accepted.is_empty(), "{event}");
    let rejected = &decoded.rejected[0];
    assert_eq!(rejected.code, code, "{event}: {}", rejected.reason);
    assert!(rejected.reason.contains(reason), "{event}: {}", rejected.reason);
    assert_eq!(rejected.payload, event);
}

/// A member beside `"type":"t"`, and the columns of that event.
const MEMBERS: &[(&str, &str)] = &[
    (r#""id":"e1""#, "id=e1 type=t"),
    (r#""id":12"#, "id=12 type=t"),
    (r#""id":null"#, "type=t"),
    (r#""ts":"2026-11-20T13:59:59Z""#, "type=t ts=now-1000ms"),
    (r#""timestamp":"2026-11-20T13:59:59Z""#, "type=t ts=now-1000ms"),
    (r#""ts":1795183199"#, "type=t ts=now-1000ms"),
    (r#""ts":1795183199000"#, "type=t ts=now-1000ms"),
    (r#""ts":1795183199000000"#, "type=t ts=now-1000ms"),
    (r#""ts":"2026-11-20T14:59:59+01:00""#, "type=t ts=now-1000ms"),
    (r#""ts":"2026-11-20T13:59:59""#, "type=t ts=now-1000ms"),
    (r#""ts":null"#, "type=t"),
    (r#""source":"s""#, "type=t source=s"),
    (r#""batch_id":"b""#, "type=t batch_id=b"),
    (r#""batchId":"b""#, "type=t batch_id=b"),
    (r#""correlation_id":"c""#, "type=t correlation_id=c"),
    (r#""correlationId":"c""#, "type=t correlation_id=c"),
    (r#""visibility":"user""#, "type=t visibility=user"),
    (r#""actor":"User/ada""#, "type=t actor=User/ada"),
    (r#""event":"created""#, "type=t event=created"),
    (r#""op":"insert""#, "type=t op=c"),
    (r#""op":"CREATED""#, "type=t op=c"),
    (r#""op":"u""#, "type=t op=u"),
    (r#""op":"updated""#, "type=t op=u"),
    (r#""op":"delete""#, "type=t op=d"),
    (r#""op":"deleted""#, "type=t op=d"),
    (r#""op":"read""#, "type=t op=r"),
    (r#""store":"document""#, "type=t store=document"),
    (r#""collection":"users""#, "type=t collection=users"),
    (r#""table":"users""#, "type=t collection=users"),
    (r#""key":"k""#, "type=t key=k"),
    (r#""key":42"#, "type=t key=42"),
    (r#""docId":"k""#, "type=t key=k"),
    (r#""doc_id":"k""#, "type=t key=k"),
    (r#""pk":"k""#, "type=t key=k"),
    (r#""before":{"a": 1}"#, r#"type=t before={"a": 1}"#),
    (r#""prev":{"a":1}"#, r#"type=t before={"a":1}"#),
    (r#""after":{"a":"\u00e9"}"#, r#"type=t after={"a":"\u00e9"}"#),
    (r#""doc":{"a":[]}"#, r#"type=t after={"a":[]}"#),
    (r#""before":null,"after":null"#, "type=t"),
    (r#""txid":"tx-1""#, "type=t txid=tx-1"),
    (r#""txid":7"#, "type=t txid=7"),
    (r#""lsn":7"#, "type=t lsn=7"),
    (r#""bookmark":"0-1-2-3""#, "type=t bookmark=0-1-2-3"),
    (r#""version":3"#, "type=t version=3"),
    (
        r#""do":{"id":"i","name":"n","class":"C","colo":"ORD","worker":"w"}"#,
        "type=t do_id=i do_name=n do_class=C do_colo=ORD do_worker=w",
    ),
    (r#""do_class":"C","do_id":"i""#, "type=t do_id=i do_class=C"),
    (r#""method":"m""#, "type=t method=m"),
    (r#""rpc_namespace":"n""#, "type=t rpc_namespace=n"),
    (r#""rpcNamespace":"n""#, "type=t rpc_namespace=n"),
    (r#""duration_ms":1.5"#, "type=t duration_ms=1.5"),
    (r#""durationMs":2"#, "type=t duration_ms=2"),
    (r#""success":false"#, "type=t success=false"),
    (r#""error":"e\"x""#, "type=t error=e\"x"),
    (r#""connectionCount":3"#, "type=t connection_count=3"),
    (r#""closeCode":1000"#, "type=t close_code=1000"),
    (r#""reason":"r""#, "type=t reason=r"),
    (r#""provider":"github""#, "type=t provider=github"),
    (r#""eventType":"push""#, "type=t event_type=push"),
    (r#""event_type":"push""#, "type=t event_type=push"),
    (r#""verified":true"#, "type=t verified=true"),
    (r#""deliveryId":"d""#, "type=t delivery_id=d"),
    (r#""scriptName":"s""#, "type=t script_name=s"),
    (r#""outcome":"ok""#, "type=t outcome=ok"),
    (r#""url":"https://x""#, "type=t url=https://x"),
    (r#""statusCode":200"#, "type=t status_code=200"),
    (r#""status_code":200.0"#, "type=t status_code=200"),
    (r#""userId":"u""#, "type=t user_id=u"),
    (r#""anonymousId":"a""#, "type=t anonymous_id=a"),
    (r#""sessionId":"s""#, "type=t session_id=s"),
    (r#""verb":"v""#, "type=t verb=v"),
    (r#""actionId":"a""#, "type=t action_id=a"),
    (r#""workflowId":"w""#, "type=t workflow_id=w"),
    (
        r#""_meta":{"schemaVersion":2,"source":"DO/1","retries":3,"x":1}"#,
        r#"type=t source=DO/1 schema_version=2 retries=3 meta={"schemaVersion":2,"source":"DO/1","retries":3,"x":1}"#,
    ),
    (
        r#""source":"s","_meta":{"source":"other","schemaVersion":"1.0"}"#,
        r#"type=t source=s meta={"source":"other","schemaVersion":"1.0"}"#,
    ),
    (r#""data":{"a" :1}"#, r#"type=t data={"a" :1}"#),
    (r#""data":"text""#, r#"type=t data="text""#),
    (r#""data":[1,2]"#, "type=t data=[1,2]"),
    (r#""\u0069d":"e1""#, "id=e1 type=t"),
];

#[test]
fn every_name_fills_its_column() {
    for (member, expected) in MEMBERS {
        check(&format!("{{\"type\":\"t\",{member}}}"), expected);
    }
}

#[test]
fn every_word_for_a_change_is_one_of_four() {
    for (op, words) in [
        ("c", ["c", "i", "create", "created", "insert", "inserted"].as_slice()),
        ("u", &["u", "update", "updated", "replace", "replaced", "upsert"]),
        ("d", &["d", "delete", "deleted", "remove", "removed"]),
        ("r", &["r", "read", "snapshot"]),
    ] {
        for word in words {
            for word in [(*word).to_owned(), word.to_uppercase()] {
                check(&format!("{{\"type\":\"t\",\"op\":\"{word}\"}}"), &format!("type=t op={op}"));
            }
        }
    }
}

#[test]
fn known_members_of_data_fill_columns() {
    for (event, expected) in [
        (
            r#"{"type":"rpc.call","data":{"method":"m","durationMs":1.25,"success":false,"do":{"class":"C","id":"1","colo":"ORD"},"error":"Timeout"}}"#,
            r#"type=rpc.call do_id=1 do_class=C do_colo=ORD method=m duration_ms=1.25 success=false error=Timeout data={"method":"m","durationMs":1.25,"success":false,"do":{"class":"C","id":"1","colo":"ORD"},"error":"Timeout"}"#,
        ),
        (
            r#"{"type":"ws.close","data":{"connectionId":"x","code":1006}}"#,
            r#"type=ws.close close_code=1006 data={"connectionId":"x","code":1006}"#,
        ),
        (r#"{"type":"ws.close","code":1000}"#, "type=ws.close close_code=1000"),
        (r#"{"type":"other","data":{"code":7}}"#, r#"type=other data={"code":7}"#),
        (
            r#"{"type":"webhook.github","data":{"provider":"github","eventType":"push","verified":true,"deliveryId":"d","body":{"note":"ünï \"q\""}}}"#,
            r#"type=webhook.github provider=github event_type=push verified=true delivery_id=d data={"provider":"github","eventType":"push","verified":true,"deliveryId":"d","body":{"note":"ünï \"q\""}}"#,
        ),
        (
            r#"{"type":"tail.request","data":{"scriptName":"w","outcome":"ok","method":"GET","url":"u","statusCode":200,"durationMs":3}}"#,
            r#"type=tail.request method=GET duration_ms=3 script_name=w outcome=ok url=u status_code=200 data={"scriptName":"w","outcome":"ok","method":"GET","url":"u","statusCode":200,"durationMs":3}"#,
        ),
        // Of two names the column's own wins, of one name the last, as in the event itself.
        (
            r#"{"type":"t","data":{"method":"a","duration_ms":1,"durationMs":2,"method":"b"}}"#,
            r#"type=t method=b duration_ms=1 data={"method":"a","duration_ms":1,"durationMs":2,"method":"b"}"#,
        ),
        (
            r#"{"type":"t","data":{"method":"a"},"data":5}"#,
            r#"type=t data=5 payload={"type":"t","data":{"method":"a"},"data":5}"#,
        ),
        // The event's own member wins, a value of another type stays in `data`, and identity is
        // never taken from there.
        (
            r#"{"type":"t","method":"top","data":{"method":"in","success":"yes","id":"9","source":"signup","op":"c","key":"k"}}"#,
            r#"type=t method=top data={"method":"in","success":"yes","id":"9","source":"signup","op":"c","key":"k"}"#,
        ),
        (
            r#"{"type":"cdc.update","data":{"op":"u","table":"users","key":"k","after":{"a":1}}}"#,
            r#"type=cdc.update op=u collection=users key=k after={"a":1} data={"op":"u","table":"users","key":"k","after":{"a":1}}"#,
        ),
    ] {
        check(event, expected);
    }
}

#[test]
fn an_event_with_more_than_columns_hold_is_kept_whole() {
    for (member, columns) in [
        (r#""mystery":1"#, ""),
        (r#""do":{"id":"i","zone":"z"}"#, "do_id=i "),
        (r#""ts":"2026-11-20T14:00:00Z","timestamp":"2026-11-20T13:00:00Z""#, ""),
        (r#""method":"a","method":"b""#, "method=b "),
        (r#""pk":"second","docId":"first""#, "key=first "),
        (r#""key":"own","pk":"other""#, "key=own "),
        (r#""code":1"#, ""),
        (r#""seq":5"#, ""),
        (r#""time":"x""#, ""),
        (r#""payload":{"a":1}"#, ""),
        (r#""lsn":"16/B374D848""#, "lsn=97500059720 "),
        (r#""method":{"a":1}"#, "method={\"a\":1} "),
        (r#""statusCode":"200""#, "status_code=200 "),
        (r#""op":"send""#, ""),
        (r#""do":[1]"#, ""),
        (r#""do":{"id":"a","id":"b","name":[1]}"#, "do_id=b do_name=[1] "),
    ] {
        let event = format!("{{\"type\":\"t\", {member}}}");
        check(&event, &format!("type=t {columns}payload={event}"));
    }
}

#[test]
fn a_broken_event_is_refused_with_its_reason() {
    use ErrorCode::*;
    for (event, code, reason) in [
        (r#"{"id":"1"}"#, MissingType, "`type`"),
        (r#"{"type":null}"#, MissingType, "`type`"),
        (r#"{}"#, MissingType, "`type`"),
        (r#"{"type":"a b"}"#, InvalidType, "\"a b\""),
        (r#"{"type":""}"#, InvalidType, "A-Za-z0-9"),
        (r#"{"type":7}"#, InvalidType, "not 7"),
        (r#"{"type":"../x"}"#, InvalidType, "../x"),
        (r#"{"type":"t","timestamp":"yesterday-ish"}"#, InvalidTimestamp, "`timestamp`"),
        (r#"{"type":"t","ts":true}"#, InvalidTimestamp, "`ts`"),
        (r#"{"type":"t","ts":"2026-11-01T00:00:00Z"}"#, TsWindow, "168 h before"),
        (r#"{"type":"t","ts":"2026-11-20T15:00:01Z"}"#, TsWindow, "1 h after"),
        (r#"{"type":"t","ns":"..."}"#, InvalidNamespace, "`ns`"),
        (r#"{"type":"t","ns":5}"#, InvalidNamespace, "`ns`"),
        (r#"{"type":"t","ns":""}"#, InvalidNamespace, "`ns`"),
        (r#"{"type":"t","id":""}"#, InvalidEvent, "`id`"),
        (r#"{"type":"t","id":{}}"#, InvalidEvent, "`id`"),
        (r#"{"type":"t","id":[1]}"#, InvalidEvent, "non-empty text, or a number"),
        (r#"{"type":"t","id":"\udc00"}"#, InvalidEvent, "lone surrogate"),
        (r#"{"type":"t","ns":"a\udc00"}"#, InvalidNamespace, "`ns`"),
        (r#"{"type":"t","specversion":"0.3"}"#, InvalidEvent, "specversion"),
    ] {
        check_refused(event, code, reason);
    }
}

#[test]
fn a_refused_event_shows_what_can_be_read() {
    let (decoded, _) = take(
        r#"[{"type":"t","id":7,"ns":"Other.NS","ts":"x","_meta":{"source":"s","retries":2}}, "text", {"type":"ok"}]"#,
        BodyFormat::Json,
    );
    assert_eq!(decoded.received, 3);
    assert_eq!(decoded.accepted[0].index, [2]);
    let first = &decoded.rejected[0];
    assert_eq!((first.index, first.namespace.text()), (0, "Other.NS"));
    assert_eq!(first.id.as_deref(), Some("7"));
    assert_eq!(first.event_type.as_deref(), Some("t"));
    assert_eq!(first.source.as_deref(), Some("s"));
    assert_eq!(normalize::retries(&first.payload), Some(2));
    let second = &decoded.rejected[1];
    assert_eq!((second.index, second.code), (1, ErrorCode::InvalidEvent));
    assert_eq!((second.namespace.text(), second.payload.as_str()), ("acme.example", "\"text\""));
}

#[test]
fn size_and_depth_are_bounded_by_event() {
    let deep = format!("{{\"type\":\"t\",\"data\":{}1{}}}", "[".repeat(64), "]".repeat(64));
    let fits = format!("{{\"type\":\"t\",\"data\":{}1{}}}", "[".repeat(63), "]".repeat(63));
    let large = format!("{{\"type\":\"t\",\"data\":\"{}\"}}", "x".repeat(1 << 20));
    let body = format!("[{deep},{fits},{large},{{\"type\":\"u\"}}]");
    for (body, format) in [
        (body.clone(), BodyFormat::Json),
        (format!("{{\"events\":{body}}}"), BodyFormat::Json),
        (format!("{deep}\n{fits}\n{large}\n{{\"type\":\"u\"}}\n"), BodyFormat::Ndjson),
        (format!("{{\"events\":{body}}}"), BodyFormat::Ndjson),
    ] {
        let (decoded, _) = take(body, format);
        assert_eq!(decoded.received, 4);
        let codes: Vec<_> = decoded.rejected.iter().map(|r| (r.index, r.code)).collect();
        assert_eq!(codes, [(0, ErrorCode::TooDeep), (2, ErrorCode::EventTooLarge)]);
        assert_eq!(decoded.rejected[0].payload, deep);
        assert_eq!(decoded.rejected[0].event_type.as_deref(), Some("t"));
        assert_eq!(decoded.accepted[0].index, [1, 3]);
    }
    let hostile = "[".repeat(5_000_000);
    assert_eq!(refuse(&hostile, BodyFormat::Json), ErrorCode::InvalidJson);
    let (decoded, _) = take(&hostile, BodyFormat::Ndjson);
    assert_eq!(decoded.rejected[0].code, ErrorCode::TooDeep);
}

#[test]
fn backfill_lifts_the_window() {
    let open = EventLimits { ts_past_us: None, ..limits() };
    for ts in ["1999-01-01", "2050-01-01"] {
        let body = format!("{{\"type\":\"t\",\"ts\":\"{ts}\"}}");
        let (decoded, _) = decode(body.as_bytes(), BodyFormat::Json, &arrival(), &open).unwrap();
        assert!(decoded.rejected.is_empty(), "{ts}");
    }
}

#[test]
fn a_body_is_a_batch_an_array_or_an_event() {
    for (body, events, batch_id) in [
        (r#"{"type":"a"}"#, 1, None),
        (r#"[{"type":"a"},{"type":"b"}]"#, 2, None),
        (r#" [ ] "#, 0, None),
        (r#"{"events":[]}"#, 0, None),
        (r#"{"events":[{"type":"a"}]}"#, 1, None),
        (r#"{"events":[{"type":"a"},{"type":"b"}],"batchId":"b1"}"#, 2, Some("b1")),
        (r#"{"batchId":"b1","events":[{"type":"a"}]}"#, 1, Some("b1")),
        (r#"{"batch_id":7,"x":{"y":[1]},"events":[{"type":"a"}]}"#, 1, Some("7")),
        (r#"{ "events" : [ {"type":"a"} ] , "sent" : [1] , "batchId" : "b1" }"#, 1, Some("b1")),
        (r#"{"events":[{"type":"a"}],"note":"],","batchId":"b]1"}"#, 1, Some("b]1")),
        (r#"{"events":[{"type":"a"}],"batchId":"b1","x":[{"batchId":"no"}]}"#, 1, Some("b1")),
        (r#"{"events":[{"type":"a"}],"batchId":null}"#, 1, None),
        (r#"{"type":"a","events":[{"type":"b"}]}"#, 1, None),
        (r#"{"type":"a","data":{"events":[]}}"#, 1, None),
        (r#"{"events":[{"type":"b"},{"type":"c"}],"type":"a"}"#, 1, None),
        (r#"{"events":[7],"batchId":"b1","type":"a"}"#, 1, None),
        (r#"{"batch":[{"type":"b"},7],"x":1,"type":"a"}"#, 1, None),
        (r#"{"batch":[{"type":"b"},{"type":"c"}],"sentAt":"2026-11-20T14:00:00Z"}"#, 2, None),
    ] {
        for format in [BodyFormat::Json, BodyFormat::Ndjson, BodyFormat::JsonSequence] {
            let (decoded, found) = take(body, format);
            assert_eq!(decoded.received, events, "{body}");
            assert!(decoded.rejected.is_empty(), "{body}: {:?}", decoded.rejected);
            if format == BodyFormat::Json {
                assert_eq!(found.as_deref(), batch_id, "{body}");
            }
            if let (Some(batch_id), Some(group)) = (batch_id, decoded.accepted.first()) {
                assert!(show(group, 0).contains(&format!("batch_id={batch_id}")), "{body}");
            }
        }
    }
    let (decoded, _) = take(format!("\u{feff}{}", r#"{"type":"a"}"#), BodyFormat::Json);
    assert_eq!(decoded.accepted.len(), 1);
}

/// Carts, orders and sessions have a column `events` as others have one called `total`.
#[test]
fn what_is_recognised_as_an_event_is_no_batch_whatever_list_it_has() {
    let lists = ["[]", "[ ]", r#"[{"type":"click","id":"inner"}]"#, r#"[{"a":1}]"#, "[7]"];
    for event in [
        r#""id":1,LIST,"__op":"c","__table":"t","__lsn":1,"__deleted":"false""#,
        r#""op":"u","collection":"cart","key":"1",LIST"#,
        r#"LIST,"store":"s","key":"1""#,
        r#"LIST,"before":null,"after":{"id":1},"op":"c""#,
        r#""version":"0","id":"eb","detail-type":"d","source":"a","time":"2026-11-20T14:00:00Z",LIST,"detail":{}"#,
        r#""id":"g","eventType":"t","eventTime":"2026-11-20T14:00:00Z","subject":"s","data":{},LIST"#,
        r#""messageId":"m10","event":"E","userId":"u",LIST"#,
    ] {
        for (name, list) in ["events", "batch"].iter().flat_map(|name| lists.map(|it| (name, it))) {
            let body = format!("{{{}}}", event.replace("LIST", &format!("\"{name}\":{list}")));
            for format in [BodyFormat::Json, BodyFormat::Ndjson, BodyFormat::JsonSequence] {
                assert!(row(&body, format).contains(&body), "{body}");
            }
        }
    }
    // An empty list makes no batch of what nobody would keep then.
    for body in [r#"{"id":"1","name":"x","events":[]}"#, r#"{"batch":[],"name":"x"}"#] {
        for format in [BodyFormat::Json, BodyFormat::Ndjson, BodyFormat::JsonSequence] {
            let (decoded, _) = take(body, format);
            assert_eq!(decoded.rejected[0].code, ErrorCode::MissingType, "{body}");
            assert_eq!(decoded.rejected[0].payload, body);
        }
    }
    for body in [r#"{"batch":[],"sentAt":"x","context":{}}"#, r#"{"batchId":"b","events":[]}"#] {
        assert_eq!(take(body, BodyFormat::Json).0.received, 0, "{body}");
    }
}

#[test]
fn a_batch_that_asks_for_what_its_events_would_not_get_is_refused() {
    for body in [
        r#"{"ns":"other","events":[{"type":"a"}]}"#,
        r#"{"events":[{"type":"a"}],"batchId":"b","ns":"other"}"#,
        r#"{"ns":7,"events":[{"type":"a"}]}"#,
        r#"{"ns":"other","events":[{"type":"a"},{"ns":"other","type":"a"}]}"#,
        r#"{"events":[{"type":"a"}],"events":[{"type":"b"}]}"#,
        r#"{"events":[],"batchId":"b","batch":[{"type":"b"}]}"#,
    ] {
        assert_eq!(refuse(body, BodyFormat::Json), ErrorCode::InvalidRequest, "{body}");
        let (decoded, _) = take(format!("{{\"type\":\"b\"}}\n{body}"), BodyFormat::Ndjson);
        assert_eq!(decoded.received, 2, "{body}");
        assert_eq!(decoded.rejected[0].code, ErrorCode::InvalidEvent, "{body}");
        assert_eq!(decoded.rejected[0].payload, body);
        assert!(file_ids::is_batch(body, "acme.example").is_err(), "{body}");
    }
    // What says nothing, or what the events get anyway, is nothing that is lost.
    for body in [
        r#"{"ns":null,"events":[{"type":"a"}],"batch":null}"#,
        r#"{"ns":"","events":[{"type":"a"}],"batch": [ ]}"#,
        r#"{"batch":[{"type":"a"}],"events":[]}"#,
        r#"{"ns":"acme.example","events":[{"type":"a"}]}"#,
        r#"{"events":[{"type":"a"}],"ns": "acme.example","batchId":"b"}"#,
        r#"{"events":[{"ns":"shop","type":"a"}],"ns":"shop"}"#,
        r#"{"ns":"shop","events":[{"type":"a","ns":"shop"}],"x":1}"#,
    ] {
        for format in [BodyFormat::Json, BodyFormat::Ndjson, BodyFormat::JsonSequence] {
            let (decoded, _) = take(body, format);
            assert_eq!((decoded.received, decoded.rejected.len()), (1, 0), "{body}");
        }
        assert_eq!(file_ids::is_batch(body, "acme.example"), Ok(true), "{body}");
    }
    check(
        r#"{"ns":"other","type":"a","events":[{}],"batch":[1]}"#,
        "type=a payload={\"ns\":\"other\",\"type\":\"a\",\"events\":[{}],\"batch\":[1]}",
    );
}

#[test]
fn a_batch_names_a_branch_where_it_is_the_whole_body() {
    let named = r#"{"branch":"trial","events":[{"type":"a"}]}"#;
    let (decoded, _) = take(named, BodyFormat::Json);
    assert_eq!((decoded.branch.as_deref(), decoded.received), (Some("trial"), 1));
    let escaped = r#"{"br\u0061nch":"trial","events":[{"type":"a"}]}"#;
    assert_eq!(take(escaped, BodyFormat::Json).0.branch.as_deref(), Some("trial"));
    let twice = r#"{"branch":"a","events":[{"type":"a"}],"branch":null}"#;
    assert_eq!(refuse(twice, BodyFormat::Json), ErrorCode::InvalidRequest);
    for twice in [twice, r#"{"branch":null,"events":[{"type":"a"}],"branch":null}"#] {
        let (decoded, _) = take(twice, BodyFormat::Ndjson);
        let reasons = decoded.rejected.iter().map(|it| it.reason.contains("not two"));
        assert_eq!(reasons.collect::<Vec<_>>(), [true], "{twice}");
    }
    // All of a body goes to one branch.
    for format in [BodyFormat::Ndjson, BodyFormat::JsonSequence] {
        let (decoded, _) = take(format!("{{\"type\":\"b\"}}\n{named}"), format);
        assert_eq!((decoded.branch.as_deref(), decoded.received), (None, 2));
        let [refused] = &decoded.rejected[..] else { panic!("{:?}", decoded.rejected) };
        assert_eq!(refused.code, ErrorCode::InvalidEvent);
        assert!(refused.reason.contains("query parameter `branch`"), "{}", refused.reason);
    }
    for body in [format!("{named} {named}"), format!("{named}\n{{\"type\":\"b\"}}")] {
        assert_eq!(refuse(&body, BodyFormat::Json), ErrorCode::InvalidRequest, "{body}");
    }
    for branch in ["7", "[\"trial\"]", "{}"] {
        let body = format!(r#"{{"events":[{{"type":"a"}}],"branch":{branch}}}"#);
        assert_eq!(refuse(&body, BodyFormat::Json), ErrorCode::InvalidRequest, "{body}");
    }
    // An event may have such a member.
    for (body, branch) in [
        (r#"{"type":"git.push","branch":"trial"}"#, None),
        (r#"{"events":[{"type":"a"}],"branch":null}"#, None),
        (r#"{"events":[{"type":"a"}],"branch":"main"}"#, Some("main")),
    ] {
        let (decoded, _) = take(body, BodyFormat::Json);
        assert_eq!(decoded.branch.as_deref(), branch, "{body}");
        let (decoded, _) = take(body, BodyFormat::Ndjson);
        assert_eq!((decoded.received, decoded.rejected.len()), (1, 0), "{body}");
        // The request may name another one than `main`.
        assert_eq!(decoded.branch.as_deref(), branch, "{body}");
    }
}

#[test]
fn a_body_without_events_to_find_is_an_error() {
    use ErrorCode::*;
    for (body, code) in [
        ("", InvalidRequest),
        (" \n", InvalidRequest),
        ("nonsense", InvalidJson),
        ("7", InvalidJson),
        (r#"{"type":"a""#, InvalidJson),
        (r#"{"type":"a"} x"#, InvalidJson),
        (r#"[{"type":"a"},]"#, InvalidJson),
        (r#"[{"type":"a"}"#, InvalidJson),
        (r#"{"events":[{"type":"a"}]"#, InvalidJson),
        (r#"{"events":[{"type":"a"}],}"#, InvalidJson),
        (r#"{"events":[{"type":"a"}]}]"#, InvalidJson),
        (r#"{"type":"a","data":"\u12x4"}"#, InvalidJson),
    ] {
        assert_eq!(refuse(body, BodyFormat::Json), code, "{body}");
    }
    assert_eq!(refuse(b"{\"type\":\"\xff\"}", BodyFormat::Json), InvalidJson);
    let many = vec!["{\"type\":\"a\"}"; 10_001];
    assert_eq!(refuse(format!("[{}]", many.join(",")), BodyFormat::Json), TooManyEvents);
    assert_eq!(refuse(many.join("\n"), BodyFormat::Ndjson), TooManyEvents);
    assert_eq!(refuse(many.join(","), BodyFormat::Json), TooManyEvents);
}

#[test]
fn a_broken_line_is_one_refused_event() {
    let body = b"{\"type\":\"a\"}\r\n\n{\"type\":\"b\n\"text\"\n[1\n{\"events\":[{\"type\":\"c\"},\n{\"type\":\"\xff\"}\n{\"type\":\"d\"} {}\n{\"events\":[{\"type\":\"e\"},7]}";
    for body in [&body[..], std::str::from_utf8(&body[..60]).unwrap_or("").as_bytes()] {
        if body.is_empty() {
            continue;
        }
        let (decoded, _) = take(body, BodyFormat::Ndjson);
        let refused: Vec<_> =
            decoded.rejected.iter().map(|r| (r.index, r.code, r.payload.as_str())).collect();
        use ErrorCode::*;
        let expected = [
            (1, InvalidJson, "{\"type\":\"b"),
            (2, InvalidEvent, "\"text\""),
            (3, InvalidJson, "[1"),
            (4, InvalidJson, "{\"events\":[{\"type\":\"c\"},"),
            (5, InvalidJson, "eyJ0eXBlIjoi/yJ9"),
            (7, MissingType, "{}"),
            (9, InvalidEvent, "7"),
        ];
        assert_eq!(refused[..], expected[..refused.len()]);
        assert_eq!(decoded.accepted[0].index[0], 0);
    }
}

#[test]
fn values_in_a_row_are_each_an_event_a_batch_or_refused_alone() {
    use ErrorCode::*;
    for (body, received, refused) in [
        ("{\"type\":\"a\"}{\"type\":\"a\"}", 2, vec![]),
        (
            "{\"type\":\"a\"},[{\"type\":\"a\"},7]{\"events\":[{\"type\":\"a\"}]}\n,",
            4,
            vec![(2, InvalidEvent)],
        ),
        ("{\"type\":\"a\"}\n{\"type\":\"a\n{\"type\":\"a\"}", 3, vec![(1, InvalidJson)]),
        (
            "{\"type\":\"a\"}\n{\n\"type\":\"a\",\n}\n{\n\"type\":\"a\"\n}",
            3,
            vec![(1, InvalidJson)],
        ),
        ("\u{1e}{\"type\":\"a\"\u{1e}{\"type\":\"a\"}\n", 2, vec![(0, InvalidJson)]),
        ("{\"type\":\"a\"}\u{feff}{\"type\":\"a\"}", 2, vec![]),
        ("{\"type\":\"a\"}\nnull\n{\"type\":\"a\"}", 3, vec![]),
        ("\u{1e}null\n\u{1e}{\"type\":\"a\"}\n\u{1e}7", 3, vec![(2, InvalidEvent)]),
    ] {
        let format = match body.starts_with('\u{1e}') {
            true => BodyFormat::JsonSequence,
            false => BodyFormat::Json,
        };
        let (decoded, _) = take(body, format);
        let codes: Vec<_> = decoded.rejected.iter().map(|r| (r.index, r.code)).collect();
        assert_eq!((decoded.received, codes), (received, refused), "{body}");
    }
    // A text that looks endless again and again is given up.
    let hostile = format!("{{\"type\":\"a\"}}{}", "\n{\"a\":[\n{\"b\":1},".repeat(9_000));
    let (decoded, _) = take(hostile, BodyFormat::Json);
    assert!(decoded.received < 100, "{}", decoded.received);
}

#[test]
fn what_a_batch_of_calls_has_for_all_is_in_each() {
    let call = r#"{"type":"track","messageId":"1","context":{"own":1}}"#;
    let body = format!(
        r#"{{"batch":[{{"type":"track","messageId":"2","userId":"u"}},{call}],"context":{{"ip":"x"}},"writeKey":"w"}}"#
    );
    for format in [BodyFormat::Json, BodyFormat::Ndjson] {
        let (decoded, _) = take(&body, format);
        assert!(decoded.rejected.is_empty(), "{:?}", decoded.rejected);
        let shared = r#"{"type":"track","messageId":"2","userId":"u","context":{"ip":"x"}}"#;
        let expected = [
            format!("id=2 type=track user_id=u payload={shared}"),
            format!("id=1 type=track payload={call}"),
        ];
        assert_eq!([0, 1].map(|row| show(&decoded.accepted[0], row)), expected);
        // So it is in the dead letter of a call that is refused for what is known later, or at once.
        let source = SourceBytes { bytes: body.clone().into(), ..decoded.source };
        let kept = [0, 1].map(|row| source.event(&decoded.accepted[0], row).into_owned());
        assert_eq!(kept, [shared.as_bytes(), call.as_bytes()]);
        let (decoded, _) = take(body.replace(r#""userId":"u""#, r#""ns":"!""#), format);
        assert_eq!(decoded.rejected[0].payload, shared.replace(r#""userId":"u""#, r#""ns":"!""#));
    }
}

#[test]
fn what_a_batch_says_once_makes_no_event_too_large() {
    let batch = |calls: usize, context: usize| {
        let call = r#"{"type":"a"}"#;
        let calls = vec![call; calls].join(",");
        format!(r#"{{"batch":[{calls}],"context":{{"x":"{}"}}}}"#, "a".repeat(context))
    };
    for format in [BodyFormat::Json, BodyFormat::Ndjson] {
        let (decoded, _) = take(batch(9_999, 1 << 20), format);
        assert_eq!((decoded.rejected.len(), decoded.copied), (9_999, 0));
        let RejectedEvent { code, reason, payload, .. } = &decoded.rejected[0];
        assert_eq!((*code, payload.as_str()), (ErrorCode::EventTooLarge, r#"{"type":"a"}"#));
        assert!(reason.contains("with its batch's `context`"), "{reason}");

        // Each is small enough, all together are not.
        assert_eq!(refuse(batch(9_999, 4_000), format), ErrorCode::BodyTooLarge);
        let (decoded, _) = take(batch(1_000, 4_000), format);
        assert_eq!((decoded.rejected.len(), decoded.copied), (0, 1_000 * (4_000 + 8)));
    }
}

#[test]
fn an_id_that_each_event_of_a_batch_gets_is_short() {
    let long = "b".repeat(1_025);
    for body in [
        format!(r#"{{"batchId":"{long}","events":[{{"type":"a"}}]}}"#),
        format!(r#"{{"events":[{{"type":"a"}}],"batchId":"{long}"}}"#),
        format!(r#"{{"events":[{{"type":"a","data":[]}}],"batchId":"{long}","x":[1]}}"#),
    ] {
        assert_eq!(refuse(&body, BodyFormat::Json), ErrorCode::InvalidRequest, "{body}");
        // Of several lines only that one is refused.
        let (decoded, _) = take(format!("{{\"type\":\"b\"}}\n{body}"), BodyFormat::Ndjson);
        let codes: Vec<ErrorCode> = decoded.rejected.iter().map(|one| one.code).collect();
        assert_eq!((decoded.received, codes), (2, vec![ErrorCode::InvalidEvent]), "{body}");
        // What has a type is an event, and such an id one of its own.
        let event = body.replacen('{', r#"{"type":"e","#, 1);
        assert_eq!(take(&event, BodyFormat::Json).0.received, 1, "{body}");
        let event = format!(r#"{},"type":"e"}}"#, body.strip_suffix('}').unwrap());
        let (decoded, batch_id) = take(&event, BodyFormat::Json);
        assert_eq!((decoded.accepted[0].keys.len(), batch_id), (1, None), "{body}");
    }
    let (_, batch_id) =
        take(format!(r#"{{"batchId":"{}","events":[]}}"#, &long[1..]), BodyFormat::Json);
    assert_eq!(batch_id.map(|id| id.len()), Some(1_024));
    // What an id costs counts in each event, accepted or not.
    let arrival = RequestContext { correlation_id: Some("c".repeat(5_000)), ..arrival() };
    let body = format!(r#"{{"batchId":"b","events":[{}]}}"#, vec!["{}"; 9_000].join(","));
    let refused = decode(body.as_bytes(), BodyFormat::Json, &arrival, &limits()).unwrap_err();
    assert_eq!(refused.code, ErrorCode::BodyTooLarge);
}

#[test]
fn the_name_of_a_request_is_the_batch_of_events_without_one_and_tells_no_event_from_another() {
    let named = RequestContext { request_id: Some("r".to_owned()), ..arrival() };
    for (body, batch_id) in [
        (r#"[{"type":"t","id":"1"}]"#, "r"),
        (r#"[{"type":"t"}]"#, "r"),
        (r#"{"batchId":"b","events":[{"type":"t"}]}"#, "b"),
        (r#"[{"type":"t","batch_id":"own"}]"#, "own"),
    ] {
        let events = |arrival: &RequestContext| {
            let decoded = decode(body.as_bytes(), BodyFormat::Json, arrival, &limits()).unwrap().0;
            decoded.accepted.into_iter().next().unwrap()
        };
        let (with, without) = (events(&named), events(&arrival()));
        let shown = show(&with, 0);
        assert!(shown.contains(&format!("batch_id={batch_id}")), "{body}: {shown}");
        assert_eq!(with.keys, without.keys, "{body}");
    }
}

#[test]
fn a_dead_letter_of_a_redacted_event_is_redacted() {
    let body = r#"[{"type":"t"},{"type":"tail","id":"1","headers":{"cookie":"SECRET"}}]"#;
    let (decoded, _) = take(body, BodyFormat::Json);
    let source = SourceBytes { bytes: body.into(), ..decoded.source };
    let events = &decoded.accepted[0];
    assert_eq!(&*source.event(events, 0), br#"{"type":"t"}"#);
    let kept = source.event(events, 1);
    let kept = std::str::from_utf8(&kept).unwrap();
    assert!(kept.contains("REDACTED") && !kept.contains("SECRET"), "{kept}");
    assert!(show(events, 1).ends_with(&format!("payload={kept}")));
}

#[test]
fn events_are_grouped_by_namespace_in_order() {
    let (decoded, _) = take(
        r#"[{"type":"a","ns":"B.x"},{"type":"b"},{"type":"c","ns":"B.x"},{"type":"d","ns":"b_x"}]"#,
        BodyFormat::Json,
    );
    let groups: Vec<_> = decoded
        .accepted
        .iter()
        .map(|group| {
            let ns = group.rows.column_by_name("ns").unwrap().as_string::<i32>().value(0);
            (group.namespace.text(), ns, group.index.clone())
        })
        .collect();
    let expected = [
        ("B.x", "B.x", vec![0, 2]),
        ("acme.example", "acme.example", vec![1]),
        ("b_x", "b_x", vec![3]),
    ];
    assert_eq!(groups, expected);
}

fn keys(body: &str) -> Vec<EventKey> {
    let (decoded, _) = take(body, BodyFormat::Json);
    decoded.accepted.into_iter().flat_map(|group| group.keys).collect()
}

#[test]
fn the_content_hash_sees_values_and_neither_order_nor_space_between_members() {
    let base = keys(r#"{"id":"1","type":"a","data":{"x":1}}"#);
    for same in [
        r#"{"type":"a","id":"1","data":{"x":1}}"#,
        r#" { "data" : {"x":1} ,
            "id":"1", "type" :"a" } "#,
        r#"{"id":"1","type":"a","data":{"x":1},"_meta":{"retries":1},"batchId":"b"}"#,
        r#"{"id":"0","type":"b","data":{"x":1},"id":"1","type":"a"}"#,
        r#"{"data":{"x":2},"id":"1","type":"a","d\u0061ta":{"x":3},"data":{"x":1}}"#,
    ] {
        assert_eq!(keys(same), base, "{same}");
    }
    assert_eq!(keys(r#"{"events":[{"id":"1","type":"a","data":{"x":1}}],"batchId":"b"}"#), base);
    for other in [
        r#"{"id":"1","type":"a","data":{"x":2}}"#,
        r#"{"id":"1","type":"b","data":{"x":1}}"#,
        r#"{"id":"1","type":"a"}"#,
        r#"{"id":"1","type":"a","data":{"x":1},"actor":"me"}"#,
        r#"{"id":"1","type":"a","data":{"x":1},"type":"b"}"#,
    ] {
        assert_eq!(keys(other)[0].id, base[0].id);
        assert_ne!(keys(other)[0].content, base[0].content, "{other}");
    }
    // Without an id the content of two equal events is equal, their ids are not.
    let minted = keys(r#"[{"type":"a"},{"type":"a"}]"#);
    assert_eq!(minted[0].content, minted[1].content);
    assert_ne!(minted[0].id, minted[1].id);
}

#[test]
fn the_id_hash_is_that_of_catalog_name_and_id() {
    let base = keys(r#"{"id":"1","type":"a"}"#)[0].id;
    assert_eq!(base, event_key(&Namespace::parse("ACME_example").unwrap(), "1"));
    assert_ne!(base, keys(r#"{"id":"1","type":"a","ns":"other"}"#)[0].id);
    assert_eq!(base, keys(r#"{"id":1,"type":"a"}"#)[0].id);
    // Short and long ids take the same function over another path.
    let namespace = Namespace::parse("n").unwrap();
    for length in [1, 253, 254, 255, 400] {
        let id = "x".repeat(length);
        assert_eq!(
            event_key(&namespace, &id),
            xxhash_rust::xxh3::xxh3_128(format!("n\0{id}").as_bytes())
        );
    }
}

fn ids(body: &str, format: BodyFormat) -> Vec<String> {
    let (decoded, _) = take(body, format);
    let group = &decoded.accepted[0];
    let ids = group.rows.column_by_name("id").unwrap().as_string::<i32>();
    ids.iter().map(|id| id.unwrap().to_owned()).collect()
}

#[test]
fn ids_are_minted_by_place_or_derived_from_the_batch() {
    let first = arrival().first_id;
    let minted = ids(r#"[{"type":"a"},{"type":"b","id":"own"},{"type":"c"}]"#, BodyFormat::Json);
    assert_eq!(minted, [first.to_string(), "own".into(), ulid::Ulid(first.0 + 2).to_string()]);
    let one = ids(r#"{"events":[{"type":"a"},{"type":"b"}],"batchId":"x"}"#, BodyFormat::Json);
    let again = ids(r#"{"batchId":"x","events":[{"type":"a"},{"type":"b"}]}"#, BodyFormat::Json);
    let other = ids(r#"{"batchId":"y","events":[{"type":"a"},{"type":"b"}]}"#, BodyFormat::Json);
    assert_eq!(one, again);
    assert!(one[0] != one[1] && one.iter().all(|id| !other.contains(id)));
    let lines = "{\"type\":\"z\",\"id\":\"z\"}\n{\"events\":[{\"type\":\"a\"},{\"type\":\"b\"}],\"batchId\":\"x\"}";
    assert_eq!(ids(lines, BodyFormat::Ndjson)[1..], one);
}

#[test]
fn cloud_events_are_read_in_all_modes() {
    let event = r#"{"specversion":"1.0","id":"1","source":"/s","type":"com.x.made","time":"2026-11-20T13:59:59Z","datacontenttype":"application/json","correlationid":"c","data":{"method":"m"}}"#;
    let columns = r#"id=1 type=com.x.made ts=now-1000ms source=/s correlation_id=c method=m data={"method":"m"}"#;
    // The row says that it is one by keeping it whole.
    let whole = format!("{columns} payload={event}");
    assert_eq!(row(event, BodyFormat::CloudEvent), whole);
    assert_eq!(row(&format!("[{event}]"), BodyFormat::CloudEventBatch), whole);
    assert_eq!(row(event, BodyFormat::Json), whole);
    let extended = event.replace("\"data\":", "\"subject\":\"s\",\"data\":");
    assert_eq!(row(&extended, BodyFormat::CloudEvent), format!("{columns} payload={extended}"));
    let (decoded, _) = take(r#"[{"type":"a","id":"1"}]"#, BodyFormat::CloudEventBatch);
    assert_eq!(decoded.rejected[0].code, ErrorCode::InvalidEvent);
}

#[test]
fn a_binary_cloud_event_takes_its_attributes_from_headers() {
    let headers = [
        ("ce-specversion", "1.0"),
        ("Ce-Id", "1"),
        ("ce-source", "/caf%C3%A9"),
        ("ce-type", "com.x.made"),
        ("time", "2026-11-20T13:59:59Z"),
    ];
    let cloud_event = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let arrival = RequestContext { cloud_event, ..arrival() };
    for (body, data) in [
        ("{\"method\":\"m\"}\n", " method=m data={\"method\":\"m\"}"),
        ("[1, 2]", " data=[1, 2]"),
        ("plain \"text\"", " data=\"plain \\\"text\\\"\""),
        ("", ""),
    ] {
        let (decoded, _) = decode(body.as_bytes(), BodyFormat::Json, &arrival, &limits()).unwrap();
        assert!(decoded.rejected.is_empty(), "{:?}", decoded.rejected);
        let expected = format!("id=1 type=com.x.made ts=now-1000ms source=/café{data} payload=");
        let shown = show(&decoded.accepted[0], 0);
        assert!(shown.starts_with(&expected), "{shown}");
    }
}

#[test]
fn debezium_envelopes_are_changes() {
    let source = r#"{"version":"2.7","connector":"postgresql","name":"shop","db":"store","schema":"public","table":"orders","txId":571,"lsn":24023128,"ts_ms":1795183198000}"#;
    for (op, images, event_type, key) in [
        ("c", r#""before":null,"after":{"id":7,"v":1}"#, "cdc.insert", "7"),
        ("u", r#""before":{"id":7,"v":1},"after":{"id":7,"v":2}"#, "cdc.update", "7"),
        ("d", r#""before":{"id":"k7"},"after":null"#, "cdc.delete", "k7"),
        ("r", r#""before":null,"after":{"_id":"m"}"#, "cdc.read", "m"),
    ] {
        let envelope = format!(
            r#"{{{images},"source":{source},"op":"{op}","ts_ms":1795183199000,"transaction":null}}"#
        );
        let wrapped = format!(r#"{{"schema":{{"type":"struct"}},"payload":{envelope}}}"#);
        for body in [&envelope, &wrapped] {
            let shown = row(body, BodyFormat::Json);
            for part in [
                format!(
                    "type={event_type} ts=now-1000ms source=shop op={op} store=store.public collection=orders key={key} "
                ),
                " txid=571 lsn=24023128 ".to_owned(),
                format!(" payload={body}"),
            ] {
                assert!(format!(" {shown}").contains(&part), "{part} in {shown}");
            }
        }
        // The position in the log names the change, however it is sent.
        assert_eq!(ids(&envelope, BodyFormat::Json), ids(&wrapped, BodyFormat::Ndjson));
        let moved = envelope.replace("24023128", "24023129");
        assert_ne!(ids(&envelope, BodyFormat::Json), ids(&moved, BodyFormat::Json));
    }
}

/// What Debezium's converter sends for a row of PostgreSQL.
fn debezium_cloud_event(op: &str, data: &str) -> String {
    format!(
        r#"{{"id":"name:test_server;lsn:29274832;txId:565","source":"/debezium/postgresql/test_server","specversion":"1.0","type":"io.debezium.connector.postgresql.DataChangeEvent","time":"2026-11-20T13:59:59Z","datacontenttype":"application/json","iodebeziumop":"{op}","iodebeziumversion":"2.7.3.Final","iodebeziumconnector":"postgresql","iodebeziumname":"test_server","iodebeziumtsms":"1795183199000","iodebeziumsnapshot":"true","iodebeziumdb":"postgres","iodebeziumschema":"s1","iodebeziumtable":"a","iodebeziumlsn":"29274832","iodebeziumxmin":null,"iodebeziumtxid":"565","iodebeziumtxtotalorder":"1","iodebeziumtxdatacollectionorder":"1","data":{data}}}"#
    )
}

#[test]
fn debezium_envelopes_in_cloud_events_are_changes() {
    for (op, data, images) in [
        ("r", r#"{"before":null,"after":{"pk":1,"id":"k"}}"#, r#" after={"pk":1,"id":"k"}"#),
        (
            "u",
            r#"{"schema":{"type":"struct"},"payload":{"before":{"id":"k","v":1},"after":{"id":"k"}}}"#,
            r#" before={"id":"k","v":1} after={"id":"k"}"#,
        ),
        ("d", r#"{"before":{"id":"k"},"after":null}"#, r#" before={"id":"k"}"#),
        // The record alone, as the transformation that unwraps it sends it.
        ("c", r#"{"id":"k","v":1}"#, r#" after={"id":"k","v":1}"#),
    ] {
        let event = debezium_cloud_event(op, data);
        for (body, format) in [
            (event.clone(), BodyFormat::CloudEvent),
            (format!("[{event}]"), BodyFormat::CloudEventBatch),
            (event.clone(), BodyFormat::Json),
        ] {
            let shown = row(&body, format);
            for part in [
                format!(
                    " type=io.debezium.connector.postgresql.DataChangeEvent ts=now-1000ms source=/debezium/postgresql/test_server op={op} store=postgres.s1 collection=a key=k{images} txid=565 lsn=29274832 "
                ),
                format!(" payload={event}"),
            ] {
                assert!(format!(" {shown}").contains(&part), "{part} in {shown}");
            }
        }
    }
    // The rows of a snapshot come with one id, and are not one.
    let snapshot = |data| ids(&debezium_cloud_event("r", data), BodyFormat::CloudEvent);
    let first = r#"{"before":null,"after":{"id":1}}"#;
    assert_eq!(snapshot(first), snapshot(first));
    assert_ne!(snapshot(first), snapshot(r#"{"before":null,"after":{"id":2}}"#));
    let truncate = row(&debezium_cloud_event("t", "{}"), BodyFormat::CloudEvent);
    assert!(truncate.contains(" collection=a ") && !truncate.contains(" op="), "{truncate}");
}

#[test]
fn a_whole_envelope_in_a_cloud_event_is_a_change_under_the_cloud_events_name() {
    let event = r#"{"specversion":"1.0","id":"c1","source":"/bridge","type":"row.changed","data":{"before":null,"after":"{\"_id\":{\"$oid\":\"5\"}}","source":{"connector":"mongodb","db":"d","collection":"c","ord":3},"op":"c","ts_ms":1795183199000,"transaction":{"id":"t9"}}}"#;
    let shown = row(event, BodyFormat::CloudEvent);
    let expected = r#"id=c1 type=row.changed ts=now-1000ms source=/bridge op=c store=d collection=c key={"$oid":"5"} after={"_id":{"$oid":"5"}} txid=t9 lsn=3 "#;
    assert!(shown.starts_with(expected), "{shown}");
    // What only looks like one stays data.
    let other = r#"{"specversion":"1.0","id":"c2","source":"/x","type":"t","data":{"op":"zoom","source":"lens","before":1}}"#;
    let shown = row(other, BodyFormat::CloudEvent);
    assert!(!shown.contains(" op=") && !shown.contains(" before="), "{shown}");
}

#[test]
fn a_row_of_a_database_has_the_key_of_its_id_in_capitals_too() {
    for name in ["id", "_id", "ID", "Id"] {
        let event = format!(
            r#"{{"op":"c","before":null,"after":{{"V":1,"{name}":7}},"source":{{"connector":"oracle","db":"d","schema":"S","table":"T","scn":"9"}},"ts_ms":1795183199000}}"#
        );
        let shown = row(&event, BodyFormat::Json);
        assert!(shown.contains(" collection=T key=7 "), "{shown}");
    }
    let both = r#"{"op":"c","after":{"ID":1,"id":2},"source":{"connector":"oracle","table":"T","scn":"9"},"ts_ms":1795183199000}"#;
    let shown = row(both, BodyFormat::Json);
    assert!(shown.contains(" key=2 "), "{shown}");
}

#[test]
fn debezium_keeps_what_the_event_says_itself() {
    let event = r#"{"id":"mine","type":"order.changed","key":"k","ns":"x","op":"c","before":null,"after":"{\"_id\":{\"$oid\":\"5\"}}","source":{"connector":"mongodb","db":"d","collection":"c","ord":3}}"#;
    let shown = row(event, BodyFormat::Json);
    let expected = r#"id=mine type=order.changed source=mongodb op=c store=d collection=c key=k after={"_id":{"$oid":"5"}} lsn=3 payload="#;
    assert!(shown.starts_with(expected), "{shown}");
    for (op, event_type) in
        [("t", "cdc.truncate"), ("m", "debezium.message"), ("x", "debezium.record")]
    {
        let event = format!(r#"{{"op":"{op}","source":{{"table":"t"}}}}"#);
        check(&event, &format!("type={event_type} collection=t payload={event}"));
    }
    check(r#"{"op":"c","after":{"id":1}}"#, r#"type=cdc.insert op=c after={"id":1}"#);
}

#[test]
fn an_op_that_is_no_change_of_a_row_is_null() {
    for (members, shown) in [
        (r#""op":"truncate","collection":"o""#, "type=cdc.truncate collection=o"),
        (r#""op":"T","collection":"o""#, "type=cdc.truncate collection=o"),
        (r#""op":7,"store":"s""#, "type=cdc.update store=s"),
        (
            r#""op":"merge","collection":"o","after":{"a":1}"#,
            r#"type=cdc.insert collection=o after={"a":1}"#,
        ),
        (
            r#""op":"x","store":"s","data":{"op":"c","key":"k"}"#,
            r#"type=cdc.update store=s data={"op":"c","key":"k"}"#,
        ),
    ] {
        let event = format!("{{{members}}}");
        check(&event, &format!("{shown} payload={event}"));
    }
    // Without `op`, the records say what happened.
    check(r#"{"store":"s"}"#, "type=cdc.update op=u store=s");
    check(r#"{"op":null,"store":"s"}"#, "type=cdc.update op=u store=s");
    check(r#"{"store":"s","after":{}}"#, "type=cdc.insert op=c store=s after={}");
}

#[test]
fn a_patch_is_an_update() {
    for (members, shown) in [
        (
            r#""collection":"o","key":"k","patch":{"a": null}"#,
            r#"type=cdc.update op=u collection=o key=k patch={"a": null}"#,
        ),
        (
            r#""collection":"o","before":{"a":1},"jsonPatch":[{"op":"remove","path":"/a"}]"#,
            r#"type=cdc.update op=u collection=o before={"a":1} patch=[{"op":"remove","path":"/a"}]"#,
        ),
        (r#""mergePatch":{}"#, "type=cdc.update op=u patch={}"),
        (
            r#""op":"c","collection":"o","patch":{"a":1}"#,
            r#"type=cdc.insert op=c collection=o patch={"a":1}"#,
        ),
        (
            r#""type":"collection.updated","collection":"o","patch":{"a":1}"#,
            r#"type=collection.updated op=u collection=o patch={"a":1}"#,
        ),
        // CloudEvents and others may have a change in `data`.
        (
            r#""type":"cdc.update","data":{"collection":"o","patch":{"a":1}}"#,
            r#"type=cdc.update op=u collection=o data={"collection":"o","patch":{"a":1}} patch={"a":1}"#,
        ),
    ] {
        check(&format!("{{{members}}}"), shown);
    }
    // A text is the JSON that it holds. The event says what it was.
    let event = r#"{"collection":"o","patch":"{\"a\":1}"}"#;
    check(event, &format!(r#"type=cdc.update op=u collection=o payload={event} patch={{"a":1}}"#));
    // MongoDB's own description of an update is none.
    let event = r#"{"op":"u","patch":"{\"$set\":{\"a\":1}}","source":{"connector":"mongodb","db":"d","collection":"c","ord":3}}"#;
    let shown = row(event, BodyFormat::Json);
    assert!(!shown.contains(" patch="), "{shown}");
}

#[test]
fn columns_that_no_event_fills_are_not_there() {
    let (decoded, _) = take(r#"[{"type":"a"},{"type":"b","actor":"x"}]"#, BodyFormat::Json);
    let rows = &decoded.accepted[0].rows;
    let names: Vec<_> = rows.schema().fields().iter().map(|f| f.name().clone()).collect();
    assert_eq!(names, ["id", "type", "ts", "ns", "ingested_at", "actor"]);
    assert!(rows.column_by_name("actor").unwrap().is_null(0));
    let aligned = rows::concat(&rows::event_schema(), std::slice::from_ref(rows)).unwrap();
    assert_eq!(aligned.num_rows(), 2);
}

#[test]
fn real_shapes_lose_nothing() {
    let events = [
        r#"{"id":"01JD4Y0000ABCDEFGHJKMNPQRS","type":"cdc.update","timestamp":"2026-11-20T13:00:00.123Z","ns":"startups.example","op":"u","store":"document","table":"users","key":"user-0-1","before":{"id":"user-0-1","city":"東京","v":1},"after":{"id":"user-0-1","city":"São Paulo","v":2},"txid":"tx-00000001","lsn":4,"bookmark":"00000004-1a2b3c4d-6b000000-deadbeef","_meta":{"schemaVersion":1,"source":"DO/startups.example/7"}}"#,
        r#"{"id":"a","type":"do.alarm","timestamp":"2026-11-20T13:00:00.123Z","ns":"startups.example","data":{"do":{"class":"ChatRoom","id":"00ff","colo":"LHR"}},"_meta":{"schemaVersion":1,"source":"DO/x/1"}}"#,
        r#"{"id":"b","type":"ws.message","timestamp":"2026-11-20T13:00:00.123Z","ns":"startups.example","data":{"connectionId":"00ff","bytes":12}}"#,
        r#"{"id":"c","type":"Customer.created","timestamp":"2026-11-20T13:00:00.123Z","ns":"startups.example","actor":"User/ada","visibility":"team","data":{"customerId":"cust_1","source":"signup","amount":12.5}}"#,
    ];
    let (decoded, _) = take(events.join("\n"), BodyFormat::Ndjson);
    assert_eq!((decoded.received, decoded.rejected.len()), (4, 0));
    let group = &decoded.accepted[0];
    assert!(group.rows.column_by_name("payload").is_none());
    let expected = r#"type=cdc.update ts=now-3599877ms source=DO/startups.example/7 op=u store=document collection=users key=user-0-1 before={"id":"user-0-1","city":"東京","v":1} after={"id":"user-0-1","city":"São Paulo","v":2} txid=tx-00000001 lsn=4 bookmark=00000004-1a2b3c4d-6b000000-deadbeef schema_version=1 meta={"schemaVersion":1,"source":"DO/startups.example/7"}"#;
    assert_eq!(show(group, 0), expected);
    assert!(
        show(group, 3).ends_with(r#"data={"customerId":"cust_1","source":"signup","amount":12.5}"#)
    );
    assert!(!show(group, 3).contains(" source="));
}

#[test]
fn ids_of_merges_are_taken_from_the_service_alone() {
    let event = |id: &str| format!(r#"{{"id":"{id}","type":"merge.completed"}}"#);
    let own = "merge-0123456789abcdef-01K5P0000000000000000000AA-completed";
    let (decoded, _) = take(event(own), BodyFormat::Json);
    assert!(decoded.accepted.is_empty());
    let [refused] = decoded.rejected.as_slice() else { panic!("{:?}", decoded.rejected) };
    assert_eq!(refused.code, ErrorCode::InvalidEvent);
    assert!(refused.reason.contains("send another `id`"), "{}", refused.reason);
    for id in [
        "merge-1",
        "merge-0123456789abcdef",
        "merge-0123456789abcdef-7-1",
        "merge-0123456789abcdeg-7-completed",
        "merge-é",
    ] {
        let (decoded, _) = take(event(id), BodyFormat::Json);
        assert_eq!((decoded.accepted.len(), decoded.rejected.len()), (1, 0), "{id}");
    }
    let service = EventLimits { takes_merge_ids: true, ..limits() };
    let decoded = decode(event(own).as_bytes(), BodyFormat::Json, &arrival(), &service);
    assert_eq!(decoded.unwrap().0.accepted.len(), 1);
}
