//! Fuzz test of bodies: whatever arrives is taken, refused event by event, or refused whole, and
//! what is taken goes through the log's codec unchanged. How to run it for longer: crate
//! `icecore-fuzz`.

use crate::event::{
    BodyFormat, DecodedBody, EventLimits, RequestContext, RequestIds, codec, dead_letter,
    decode::decode, rows,
};
use apache_avro::{Codec, DeflateSettings, Schema, Writer, ZstandardSettings, types::Value};
use icecore_fuzz::{Rng, StdRng, mutate_bytes, mutate_json, pick, run};
use icecore_schemas::names::Namespace;
use serde_json::json;

/// Longest body that is made.
const BODY_BYTES_MAX: usize = 256 << 10;
/// Most bytes of dead letters for a byte of body: a control character becomes `\u0001` in JSON.
const GROWTH_MAX: usize = 6;
/// 2026-11-20T14:00:00Z.
const NOW_US: i64 = 1_795_183_200_000_000;

const FORMATS: [BodyFormat; 5] = [
    BodyFormat::Json,
    BodyFormat::Ndjson,
    BodyFormat::CloudEvent,
    BodyFormat::CloudEventBatch,
    BodyFormat::Avro,
];

/// A request, as far as decoding sees it.
#[derive(Debug)]
struct Case {
    format: BodyFormat,
    is_binary_mode: bool,
    is_backfill: bool,
    body: Body,
}

/// Bytes that are shown as the text they mostly are.
struct Body(Vec<u8>);

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

#[test]
fn fuzz_bodies_are_taken_or_refused() {
    let json = json_bodies();
    let avro = avro_bodies();
    let mut all: Vec<Vec<u8>> = json.iter().map(|body| body.to_string().into_bytes()).collect();
    all.push(json.iter().map(|body| format!("{body}\n")).collect::<String>().into_bytes());
    all.extend(avro.iter().cloned());
    run(
        6_000,
        |random| {
            let format = *pick(random, &FORMATS);
            let body = match (format, random.random_range(0..3)) {
                (BodyFormat::Avro, 0..2) => bytes(random, &avro, &all),
                (_, 0) => {
                    let body = pick(random, &json);
                    mutate_json(random, body, &json).to_string().into_bytes()
                }
                _ => bytes(random, &all, &all),
            };
            Case {
                format,
                is_binary_mode: random.random_range(0..8) == 0,
                is_backfill: random.random_range(0..4) == 0,
                body: Body(body),
            }
        },
        check,
    );
}

fn bytes(random: &mut StdRng, bodies: &[Vec<u8>], others: &[Vec<u8>]) -> Vec<u8> {
    let body = pick(random, bodies);
    mutate_bytes(random, body, others, BODY_BYTES_MAX)
}

fn check(case: &Case, random: &mut StdRng) {
    let limits = EventLimits {
        event_bytes_max: *pick(random, &[200, 64 << 10]),
        batch_events_max: *pick(random, &[3, 10_000]),
        depth_max: 64,
        ts_past_us: (!case.is_backfill).then_some(7 * 86_400_000_000),
        ts_future_us: 3_600_000_000,
        redact: true,
        columns: icecore_schemas::columns::EVENTS,
        takes_merge_ids: false,
    };
    let attributes = [("specversion", "1.0"), ("id", "1"), ("type", "t"), ("ce-Source", "%2e%ff/")];
    let cloud_event = if case.is_binary_mode { &attributes[..] } else { &[] };
    let arrival = RequestContext {
        now_us: NOW_US,
        namespace: Namespace::parse("acme.example").unwrap(),
        first_id: ulid::Ulid::from_parts(1_795_183_200_000, u128::MAX >> 48),
        cloud_event: cloud_event.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect(),
        correlation_id: None,
        request_id: None,
        again: None,
    };
    match decode(&case.body.0, case.format, &arrival, &limits) {
        Ok((decoded, _)) => check_decoded(&decoded, case, &limits),
        Err(refused) => assert!(!refused.reason.is_empty() && refused.reason.len() < 1_000),
    }
}

fn check_decoded(decoded: &DecodedBody, case: &Case, limits: &EventLimits) {
    assert!(decoded.received <= limits.batch_events_max);
    let accepted = decoded.accepted.iter().flat_map(|events| events.index.iter().copied());
    let refused = decoded.rejected.iter().map(|event| event.index);
    let mut places: Vec<u32> = accepted.chain(refused).collect();
    places.sort_unstable();
    assert!(places.is_sorted_by(|a, b| a < b), "no event is taken or refused twice");
    assert!(places.last().is_none_or(|last| (*last as usize) < decoded.received));
    // A tombstone alone is neither.
    let may_skip = case.body.0.windows(4).any(|text| text == b"null");
    assert!(places.len() == decoded.received || may_skip, "each event is taken or refused");
    let made = &decoded.source.bytes;
    let source = if made.is_empty() { &case.body.0[..] } else { made };
    for events in &decoded.accepted {
        assert!(events.index.is_sorted());
        assert_eq!(events.keys.len(), events.rows.num_rows());
        assert_eq!(events.index.len(), events.rows.num_rows());
        assert_eq!(events.came.len(), events.rows.num_rows());
        for came in &events.came {
            let event = &source[came.clone()];
            assert!(event.starts_with(b"{") && event.ends_with(b"}"), "as it came");
        }
        assert!(events.keys.iter().all(|key| key.content != 0));
        let schema = rows::event_schema();
        let stored = codec::encode(&schema, &events.rows);
        let read = codec::decode(&schema, &stored, 1).unwrap();
        for (field, column) in events.rows.schema().fields().iter().zip(events.rows.columns()) {
            assert_eq!(read.column_by_name(field.name()).unwrap(), column, "{}", field.name());
        }
    }
    let kept: usize = decoded.rejected.iter().map(|event| event.payload.len()).sum();
    // An Avro file's events become JSON, which may be far longer; it has a bound of its own.
    let most = match case.format {
        BodyFormat::Avro => crate::event::avro::AVRO_BYTES_MAX,
        _ => case.body.0.len() * GROWTH_MAX + 1_000,
    };
    assert!(kept <= most, "{kept} bytes of dead letters");
    assert!(decoded.rejected.iter().all(|event| event.reason.len() < 1_000));
    let letters = dead_letter::rejected_rows(
        &decoded.rejected,
        &RequestIds::default(),
        NOW_US,
        ulid::Ulid(u128::MAX),
    );
    let schema = rows::dead_letter_schema();
    assert_eq!(codec::decode(&schema, &codec::encode(&schema, &letters), 1).unwrap(), letters);
}

/// Bodies of every kind that is JSON.
fn json_bodies() -> Vec<serde_json::Value> {
    let event = json!({
        "id": "e-1", "type": "order.created", "ts": "2026-11-20T13:59:59.123456Z", "ns": "shop",
        "source": "till", "correlationId": "c", "actor": "ann", "visibility": "user",
        "op": "update", "store": "db", "collection": "orders", "key": 7,
        "before": {"a": [1, 2.5, null]}, "after": {"a": "\u{e9}\u{1f600}\n\""}, "txid": 9,
        "lsn": 123_456_789_012_i64, "bookmark": "0-1-2-3", "retries": 2, "url": "https://x/?a=1",
        "do": {"id": "d", "name": "n", "class": "C", "colo": "ams", "worker": "w"},
        "method": "GET", "durationMs": 12.75, "success": true, "statusCode": 200,
        "data": {"userId": "u", "closeCode": 1000, "version": 3, "deep": {"deeper": [{}]}},
        "_meta": {"schemaVersion": 1, "source": "s", "retries": 0}, "unknown": {"kept": true},
    });
    let cloud = json!({
        "specversion": "1.0", "id": "c1", "source": "/s", "type": "com.example.c",
        "time": "2026-11-20T13:00:00Z", "subject": "x", "datacontenttype": "application/json",
        "data": {"k": 1}, "data_base64": "AAEC",
    });
    let debezium = json!({"schema": {}, "payload": {
        "before": null, "after": {"id": 7}, "op": "c", "ts_ms": 1_795_183_199_000_i64,
        "source": {"db": "shop", "table": "orders", "lsn": 9, "ts_us": 1_795_183_199_000_000_i64},
        "transaction": {"id": "t", "total_order": 1},
    }});
    let mut change = cloud.clone();
    for (name, value) in [("iodebeziumop", "u"), ("iodebeziumdb", "shop"), ("iodebeziumlsn", "9")] {
        change[name] = value.into();
    }
    change["data"] = json!({"schema": {}, "payload": {"before": {"id": 1}, "after": null}});
    let bare = json!({"type": "t", "ts": 1_795_183_199, "data": "{\"text\":1}"});
    vec![
        event.clone(),
        json!([event, bare, debezium["payload"]]),
        json!({"events": [event, bare], "batchId": "b-1"}),
        json!({"batchId": 7, "events": [bare]}),
        cloud.clone(),
        json!([cloud, cloud]),
        change,
        debezium,
        bare,
    ]
}

/// Files in every codec, of a schema with every kind of type.
fn avro_bodies() -> Vec<Vec<u8>> {
    let schema = json!({"type": "record", "name": "E", "namespace": "a.b", "fields": [
        {"name": "type", "type": "string"},
        {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "n", "type": ["null", "double"], "default": null},
        {"name": "data", "type": {"type": "map", "values": {"type": "array", "items": "int"}}},
        {"name": "kind", "type": {"type": "enum", "name": "K", "symbols": ["A", "B"]}},
        {"name": "hash", "type": {"type": "fixed", "name": "H", "size": 4}},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "next", "type": ["null", "a.b.E"], "default": null},
    ]});
    let schema = Schema::parse_str(&schema.to_string()).unwrap();
    let event = |next| {
        let field = |name: &str, value| (name.to_owned(), value);
        Value::Record(vec![
            field("type", Value::String("t".into())),
            field("ts", Value::TimestampMicros(NOW_US)),
            field("day", Value::Date(20_000)),
            field("n", Value::Union(1, Box::new(Value::Double(1.5)))),
            field("data", Value::Map([("k".into(), Value::Array(vec![Value::Int(3)]))].into())),
            field("kind", Value::Enum(1, "B".into())),
            field("hash", Value::Fixed(4, vec![1, 2, 3, 4])),
            field("price", Value::Decimal(vec![1, 2, 3].into())),
            field("next", next),
        ])
    };
    let last = event(Value::Union(0, Box::new(Value::Null)));
    let first = event(Value::Union(1, Box::new(last)));
    [
        Codec::Null,
        Codec::Deflate(DeflateSettings::default()),
        Codec::Snappy,
        Codec::Zstandard(ZstandardSettings::default()),
    ]
    .map(|codec| {
        let mut file = Writer::with_codec(&schema, Vec::new(), codec);
        file.append(first.clone()).unwrap();
        file.into_inner().unwrap()
    })
    .to_vec()
}
