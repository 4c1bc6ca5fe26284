use super::*;
use apache_avro::{
    Codec as AvroCodec, DeflateSettings, Writer as AvroWriter, ZstandardSettings,
    types::{Record, Value},
};

fn limits() -> EventLimits {
    EventLimits {
        event_bytes_max: 1 << 20,
        batch_events_max: 100,
        depth_max: 64,
        ts_past_us: None,
        ts_future_us: 0,
        redact: true,
        columns: icecore_schemas::columns::EVENTS,
        takes_merge_ids: false,
    }
}

fn file(schema: &str, codec: AvroCodec, values: Vec<Value>) -> Vec<u8> {
    let schema = Schema::parse_str(schema).unwrap();
    let mut writer = AvroWriter::with_codec(&schema, Vec::new(), codec);
    for value in values {
        writer.append(value).unwrap();
    }
    writer.into_inner().unwrap()
}

fn record(schema: &str, fields: Vec<(&str, Value)>) -> Value {
    let schema = Schema::parse_str(schema).unwrap();
    let mut record = Record::new(&schema).unwrap();
    for (name, value) in fields {
        record.put(name, value);
    }
    record.into()
}

fn refused(body: &[u8]) -> String {
    events(body, &limits()).unwrap_err().reason
}

const SMALL: &str = r#"{"type":"record","name":"E","fields":[{"name":"type","type":"string"},{"name":"n","type":"long"}]}"#;

fn small(count: i64) -> Vec<Value> {
    let value = |n| record(SMALL, vec![("type", Value::String("t".into())), ("n", Value::Long(n))]);
    (0..count).map(value).collect()
}

#[test]
fn a_schema_that_the_library_panics_on_is_refused() {
    let whole = file(SMALL, AvroCodec::Null, small(1));
    let at = whole.windows(4).position(|part| part == b"\"E\",").unwrap();
    let mut broken = whole.clone();
    broken[at + 1] = b'.';
    let unreadable = "the body is not a readable Avro file: its schema cannot be read: ";
    assert_eq!(refused(&broken), format!("{unreadable}a name in it is not valid"));
    let at = whole.windows(4).position(|part| part == b"\"n\",").unwrap();
    let mut broken = whole.clone();
    broken[at + 1] = b' ';
    let told = refused(&broken);
    assert!(told.starts_with(unreadable) && told.len() < 400, "{told}");
}

#[test]
fn a_record_needs_no_name() {
    let mut unnamed = file(SMALL, AvroCodec::Null, small(1));
    let at = unnamed.windows(3).position(|part| part == b"\"E\"").unwrap();
    unnamed[at..at + 3].copy_from_slice(b" \"\"");
    assert_eq!(events(&unnamed, &limits()).unwrap(), [r#"{"type":"t","n":0}"#]);
}

#[test]
fn every_codec_is_read() {
    for codec in [
        AvroCodec::Null,
        AvroCodec::Deflate(DeflateSettings::default()),
        AvroCodec::Snappy,
        AvroCodec::Zstandard(ZstandardSettings::default()),
    ] {
        let found = events(&file(SMALL, codec, small(3)), &limits()).unwrap();
        let expected: Vec<_> = (0..3).map(|n| format!(r#"{{"type":"t","n":{n}}}"#)).collect();
        assert_eq!(found, expected, "{codec:?}");
    }
}

#[test]
fn the_generated_schema_is_read_into_its_columns() {
    use crate::event::{BodyFormat, RequestContext, decode::decode};
    use arrow::array::{Array, AsArray};
    let schema = icecore_schemas::generate::avro_event_schema();
    let text = |text: &str| Value::Union(1, Box::new(Value::String(text.to_owned())));
    let parsed = Schema::parse_str(&schema).unwrap();
    let Schema::Record(event) = &parsed else { panic!("not a record") };
    let now_us = 1_795_183_200_000_000;
    let fields = event.fields.iter().map(|field| {
        let value = match (field.name.as_str(), &field.schema) {
            ("type", _) => Value::String("cdc.update".into()),
            ("ts", _) => Value::Union(1, Box::new(Value::TimestampMicros(now_us - 1))),
            ("op", _) => text("u"),
            ("before" | "after" | "data", _) => text(" {\"a\": 1} "),
            ("meta" | "patch", _) => text("{\"x\":1}"),
            (name, Schema::Union(union)) => match &union.variants()[1] {
                Schema::String => text(name),
                Schema::Long => Value::Union(1, Box::new(Value::Long(7))),
                Schema::Int => Value::Union(1, Box::new(Value::Int(7))),
                Schema::Double => Value::Union(1, Box::new(Value::Double(1.5))),
                Schema::Boolean => Value::Union(1, Box::new(Value::Boolean(true))),
                other => panic!("{other:?}"),
            },
            (name, _) => panic!("{name} is required"),
        };
        (field.name.as_str(), value)
    });
    let full = record(&schema, fields.collect());
    let bare = record(&schema, vec![("type", Value::String("t".into()))]);
    let body = file(&schema, AvroCodec::Null, vec![full, bare]);
    let arrival = RequestContext {
        now_us,
        namespace: icecore_schemas::names::Namespace::parse("other").unwrap(),
        first_id: ulid::Ulid(1),
        cloud_event: Vec::new(),
        correlation_id: None,
        request_id: None,
        again: None,
    };
    let (decoded, _) = decode(&body, BodyFormat::Avro, &arrival, &limits()).unwrap();
    assert!(decoded.rejected.is_empty(), "{:?}", decoded.rejected);
    assert_eq!((decoded.received, decoded.accepted.len()), (2, 2));
    let rows = &decoded.accepted[0].rows;
    for field in &event.fields {
        let column = rows.column_by_name(&field.name).unwrap_or_else(|| panic!("{}", field.name));
        assert!(column.is_valid(0), "{}", field.name);
    }
    assert!(rows.column_by_name("payload").is_none(), "nothing is lost");
    let column = |name: &str| rows.column_by_name(name).unwrap().as_string::<i32>().value(0);
    assert_eq!((column("ns"), column("actor"), column("data")), ("ns", "actor", "{\"a\": 1}"));
}

#[test]
fn avro_types_become_json() {
    let schema = r#"{"type":"record","name":"E","fields":[
        {"name":"type","type":{"type":"enum","name":"T","symbols":["a.b_","c"]}},
        {"name":"f","type":"float"},{"name":"d","type":"double"},{"name":"b","type":"bytes"},
        {"name":"i","type":"float"},{"name":"j","type":"double"},
        {"name":"x","type":{"type":"fixed","name":"X","size":2}},
        {"name":"l","type":{"type":"array","items":["null","int"]}},
        {"name":"m","type":{"type":"map","values":"string"}},
        {"name":"r","type":{"type":"record","name":"R","fields":[{"name":"y","type":"boolean"}]}},
        {"name":"s","type":"R"},
        {"name":"ms","type":{"type":"long","logicalType":"timestamp-millis"}},
        {"name":"lo","type":{"type":"long","logicalType":"local-timestamp-micros"}},
        {"name":"day","type":{"type":"int","logicalType":"date"}},
        {"name":"data","type":"string"}]}"#
        .replace("a.b_", "ab");
    let inner = || Value::Record(vec![("y".into(), Value::Boolean(true))]);
    let value = Value::Record(vec![
        ("type".into(), Value::Enum(0, "ab".into())),
        ("f".into(), Value::Float(0.5)),
        ("d".into(), Value::Double(f64::NAN)),
        ("b".into(), Value::Bytes(vec![b'a', 0xe9])),
        ("i".into(), Value::Float(f32::INFINITY)),
        ("j".into(), Value::Double(f64::NEG_INFINITY)),
        ("x".into(), Value::Fixed(2, vec![1, b'"'])),
        (
            "l".into(),
            Value::Array(vec![
                Value::Union(0, Box::new(Value::Null)),
                Value::Union(1, Box::new(Value::Int(-3))),
            ]),
        ),
        ("m".into(), Value::Map([("k".to_owned(), Value::String("v".into()))].into())),
        ("r".into(), inner()),
        ("s".into(), inner()),
        ("ms".into(), Value::TimestampMillis(1_795_183_200_001)),
        ("lo".into(), Value::LocalTimestampMicros(1_795_183_200_000_001)),
        ("day".into(), Value::Date(-1)),
        ("data".into(), Value::String("7".into())),
    ]);
    let found = events(&file(&schema, AvroCodec::Null, vec![value]), &limits()).unwrap();
    let expected = r#"{"type":"ab","f":0.5,"d":"NaN","b":"aé","i":"Infinity","j":"-Infinity","x":"\u0001\"","l":[null,-3],"m":{"k":"v"},"r":{"y":true},"s":{"y":true},"ms":"2026-11-20T14:00:00.001Z","lo":"2026-11-20T14:00:00.000001","day":"1969-12-31","data":"7"}"#;
    assert_eq!(found, [expected]);
}

#[test]
fn a_file_that_is_broken_is_refused() {
    let whole = file(SMALL, AvroCodec::Null, small(3));
    for length in 0..whole.len() {
        // The header alone is a file without events.
        if let Ok(events) = events(&whole[..length], &limits()) {
            assert!(events.is_empty(), "{length}");
        }
    }
    let mut marker = whole.clone();
    *marker.last_mut().unwrap() ^= 1;
    assert!(refused(&marker).contains("marker"));
    assert!(refused(b"PAR1 and so on").contains("Obj1"));
    let text = file("\"string\"", AvroCodec::Null, vec![Value::String("x".into())]);
    assert!(refused(&text).contains("record"));
    let most = events(&file(SMALL, AvroCodec::Null, small(101)), &limits()).unwrap_err();
    assert_eq!(most.code, ErrorCode::BodyTooLarge);
}

#[test]
fn a_hostile_file_takes_bounded_memory_and_stack() {
    // A small block that unpacks to more than is allowed.
    let schema = r#"{"type":"record","name":"E","fields":[{"name":"b","type":"bytes"}]}"#;
    for codec in [
        AvroCodec::Deflate(DeflateSettings::default()),
        AvroCodec::Snappy,
        AvroCodec::Zstandard(ZstandardSettings::default()),
    ] {
        let value = record(schema, vec![("b", Value::Bytes(vec![0; AVRO_BYTES_MAX + 1]))]);
        assert!(refused(&file(schema, codec, vec![value])).contains("larger than 64 MiB"));
    }
    // A list of lists of lists …
    let list = r#"{"type":"record","name":"L","fields":[{"name":"next","type":["null","L"]}]}"#;
    let mut body = file(list, AvroCodec::Null, Vec::new());
    let sync = body[body.len() - 16..].to_vec();
    body.extend([2, 0x80, 0x80, 0x40]);
    body.extend(vec![2; 1 << 19]);
    body.extend(&sync);
    assert!(refused(&body).contains("nested too deep"), "{}", refused(&body));
    // Nulls take no bytes in the file, but do in the text.
    let nulls = r#"{"type":"record","name":"N","fields":[{"name":"a","type":{"type":"array","items":"null"}}]}"#;
    let mut body = file(nulls, AvroCodec::Null, Vec::new());
    let sync = body[body.len() - 16..].to_vec();
    body.extend([2, 22, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0]);
    body.extend(&sync);
    assert!(refused(&body).contains("too large"), "{}", refused(&body));
}
