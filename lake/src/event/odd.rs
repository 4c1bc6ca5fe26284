//! Fuzz test of events that are odd but well formed: no member but `id`, `type`, `ts` and `ns` is
//! ever the reason to lose one, and nothing that it says is lost.

use crate::event::{
    BodyFormat, EventLimits, RequestContext, codec,
    decode::decode,
    names::{self, known_names},
    rows,
};
use arrow::{
    array::{Array, AsArray},
    datatypes::{DataType, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType},
};
use icecore_fuzz::{Rng, StdRng, pick, run};
use icecore_schemas::names::Namespace;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// 2026-11-20T14:00:00Z.
const NOW_US: i64 = 1_795_183_200_000_000;
/// Members that may cost an event, and two which say that it is of another kind: `specversion`, and
/// what an exported event has.
const STRICT: [&str; 7] =
    ["id", "type", "ts", "timestamp", "ns", "specversion", icecore_schemas::names::KEPT_EVENT];
/// Where a member may stand.
const PLACES: [&str; 4] = ["", "data", "_meta", "do"];

/// Values of every JSON type.
fn values() -> Vec<Value> {
    let texts =
        ["", "text", "12.5", "7", "true", "c", "{\"a\":1}", "\u{0}\u{1f600}\"\\", "2026-01-01"];
    let others = json!([
        null, true, false, 0, 1, -1, 1.5, 3e20, 9_007_199_254_740_993_i64, u64::MAX, i64::MIN,
        [], [1, "a", null], {}, {"a": {"b": [1]}}, {"id": 7, "name": {}, "class": []},
    ]);
    let others = others.as_array().unwrap().clone();
    texts.iter().map(|text| json!(text)).chain(others).collect()
}

/// An event that fills a column of each kind, and of each place.
fn base() -> Map<String, Value> {
    let event = json!({
        "id": "e", "type": "t", "ts": "2026-11-20T13:59:59Z", "actor": "ann", "version": 3,
        "visibility": "user", "after": {"a": 1}, "do": {"colo": "ams"},
        "data": {"method": "m", "closeCode": 1000, "k": [1]}, "_meta": {"retries": 2},
    });
    event.as_object().unwrap().clone()
}

/// The columns of the one row that an event becomes, as JSON.
fn row(event: &Value) -> BTreeMap<String, Value> {
    let limits = EventLimits {
        event_bytes_max: 1 << 20,
        batch_events_max: 10,
        depth_max: 64,
        ts_past_us: None,
        ts_future_us: 3_600_000_000,
        redact: true,
        columns: icecore_schemas::columns::EVENTS,
        takes_merge_ids: false,
    };
    let arrival = RequestContext {
        now_us: NOW_US,
        namespace: Namespace::parse("acme").unwrap(),
        first_id: ulid::Ulid(7),
        cloud_event: Vec::new(),
        correlation_id: None,
        request_id: None,
        again: None,
    };
    let text = event.to_string();
    let (decoded, _) = decode(text.as_bytes(), BodyFormat::Json, &arrival, &limits).unwrap();
    assert!(decoded.rejected.is_empty(), "{text}: {:?}", decoded.rejected);
    let schema = rows::event_schema();
    let stored = codec::encode(&schema, &decoded.accepted[0].rows);
    let rows = codec::decode(&schema, &stored, 1).unwrap();
    assert_eq!(rows.num_rows(), 1, "{text}");
    let fields = rows.schema();
    let cells = fields.fields().iter().zip(rows.columns());
    let cells = cells.filter(|(_, column)| !column.is_null(0));
    cells.map(|(field, column)| (field.name().clone(), cell(column))).collect()
}

fn cell(column: &dyn Array) -> Value {
    match column.data_type() {
        DataType::Utf8 => json!(column.as_string::<i32>().value(0)),
        DataType::Int64 => json!(column.as_primitive::<Int64Type>().value(0)),
        DataType::Int32 => json!(column.as_primitive::<Int32Type>().value(0)),
        DataType::Float64 => json!(column.as_primitive::<Float64Type>().value(0)),
        DataType::Boolean => json!(column.as_boolean().value(0)),
        _ => json!(column.as_primitive::<TimestampMicrosecondType>().value(0)),
    }
}

/// The event as the row's payload has it, or as its columns have it: then each member is in one.
fn check_whole(event: &Value, row: &BTreeMap<String, Value>) {
    if let Some(payload) = row.get("payload") {
        let payload: Value = serde_json::from_str(payload.as_str().unwrap()).unwrap();
        assert_eq!(payload, *event);
        return;
    }
    // Null says nothing: the column may have its value from elsewhere.
    let members = event.as_object().unwrap().iter().filter(|(_, value)| !value.is_null());
    for (name, value) in members {
        let Some(known) = names::find(name) else { panic!("`{name}` is in no column: {event}") };
        let column = match rows::event_schema().fields().get(known.slot) {
            Some(column) => column.name().clone(),
            None if name == "do" => continue,
            // Anywhere else these two are in no column, and the event is whole in its payload.
            None if name == "code" && event["type"] == "ws.close" => "close_code".to_owned(),
            None if name == "namespace" && event["type"] == "rpc.call" => {
                "rpc_namespace".to_owned()
            }
            None => panic!("`{name}` is in no column: {event}"),
        };
        let stored = row.get(&column).unwrap_or(&Value::Null);
        let is_same = match (stored, value) {
            _ if ["ts", "op", "bookmark"].contains(&column.as_str()) => true,
            (Value::String(text), Value::Object(_) | Value::Array(_)) => {
                serde_json::from_str::<Value>(text).unwrap() == *value
            }
            (Value::String(text), _) if column == "data" => {
                serde_json::from_str::<Value>(text).unwrap() == *value
            }
            (Value::String(text), Value::Number(number)) => *text == number.to_string(),
            (Value::Number(stored), Value::Number(number)) => stored.as_f64() == number.as_f64(),
            (stored, value) => stored == value,
        };
        assert!(is_same, "`{name}` is {stored} in {event}");
    }
}

/// The columns that this member may change, and those that keep it.
fn is_own_column(column: &str, member: &str, place: &str) -> bool {
    let slot = names::find(member).map(|known| known.slot);
    let own = slot.and_then(|slot| rows::event_schema().fields().get(slot).cloned());
    let is_of_object = (member == "do" || place == "do") && column.starts_with("do_");
    own.is_some_and(|own| own.name() == column)
        || is_of_object
        || column == "payload"
        || (place == "data" && column == "data")
        || (place == "_meta" && column == "meta")
        // `data` and `_meta` fill other columns; where they are replaced, these are empty.
        || (member == "data" && ["method", "close_code"].contains(&column))
        || (["meta", "_meta"].contains(&member) && ["retries", "schema_version", "source"].contains(&column))
}

#[test]
fn fuzz_no_known_member_costs_an_event() {
    let without = row(&Value::Object(base()));
    let values = values();
    for member in known_names().filter(|name| !STRICT.contains(name)) {
        for place in PLACES {
            for value in &values {
                let mut event = base();
                match place {
                    "" => event.insert(member.to_owned(), value.clone()),
                    place => {
                        let inside = event[place].as_object_mut().unwrap();
                        inside.insert(member.to_owned(), value.clone())
                    }
                };
                let event = Value::Object(event);
                let row = row(&event);
                check_whole(&event, &row);
                let names = row.keys().chain(without.keys());
                for name in names.filter(|name| !is_own_column(name, member, place)) {
                    assert_eq!(row.get(name), without.get(name), "`{name}` of {event}");
                }
            }
        }
    }
}

#[test]
fn fuzz_odd_members_together_cost_no_event() {
    let values = values();
    let names: Vec<&str> = known_names().filter(|name| !STRICT.contains(name)).collect();
    let others = ["mystery", "messageId", "properties", "traits", "headers", "", "a b", "日"];
    let make = |random: &mut StdRng| {
        let mut event = base();
        for _ in 0..random.random_range(1..8) {
            let name = match random.random_range(0..6) {
                0 => *pick(random, &others),
                _ => *pick(random, &names),
            };
            let place = *pick(random, &PLACES);
            let value = pick(random, &values).clone();
            match event.get_mut(place).and_then(Value::as_object_mut) {
                Some(inside) => inside.insert(name.to_owned(), value),
                None => event.insert(name.to_owned(), value),
            };
        }
        event["type"] = json!(*pick(random, &["t", "ws.close", "cdc.update", "rpc.call", "track"]));
        Value::Object(event)
    };
    run(2_000, make, |event, _| {
        let row = row(event);
        check_whole(event, &row);
        assert_eq!(row["ts"], json!(NOW_US - 1_000_000));
    });
}
