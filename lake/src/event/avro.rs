//! Avro object-container files to the JSON text of their events.
//!
//! Written here rather than with the library's reader because a file is hostile input: neither a
//! compressed block nor a recursive schema nor a long name may take more than bounded memory.

mod block;
mod datum;

use crate::event::{
    BodyError, EventLimits,
    json::{JsonKind, one_value},
};
use apache_avro::{
    Schema,
    schema::{Namespace, RecordSchema, ResolvedSchema},
};
use datum::{DatumReader, JsonWriter};
use icecore_schemas::error_code::ErrorCode;
use std::fmt::Display;

/// Most bytes that the blocks of a file, and the texts made of them, may take. Default 64 MiB.
pub(crate) const AVRO_BYTES_MAX: usize = 64 << 20;

/// The events of a file, as JSON.
pub(crate) fn events(body: &[u8], limits: &EventLimits) -> Result<Vec<String>, BodyError> {
    let broken = |reason: &str| {
        BodyError::new(
            ErrorCode::InvalidJson,
            format!("the body is not a readable Avro file: {reason}"),
        )
    };
    let mut rest = DatumReader::new(body);
    let header = block::header(&mut rest).map_err(broken)?;
    let schema = parse_schema(header.schema)
        .map_err(|cause| broken(&format!("its schema cannot be read: {cause}")))?;
    let Schema::Record(record) = &schema else {
        return Err(broken("its schema must be a record, the event"));
    };
    let resolved = ResolvedSchema::try_from(&schema)
        .map_err(|_| broken("its schema uses a name that is not defined"))?;
    let mut left = AVRO_BYTES_MAX;
    let mut events = Vec::new();
    while !rest.is_empty() {
        let (count, block) =
            block::next(&mut rest, header.sync, header.codec, left).map_err(broken)?;
        left = left.saturating_sub(block.len());
        if count > (limits.batch_events_max - events.len()) as u64 {
            let most = limits.batch_events_max;
            return Err(BodyError::new(
                ErrorCode::BodyTooLarge,
                format!("the body has more than {most} events; send them in several requests"),
            ));
        }
        let mut data = DatumReader::new(&block);
        for _ in 0..count {
            // An event somewhat too large is refused by itself, a far larger one with its file.
            let most = left.min(limits.event_bytes_max.saturating_mul(2));
            let mut writer = JsonWriter::new(resolved.get_names(), most, limits.depth_max + 2);
            let namespace: Namespace = record.name.namespace.clone();
            event(&mut writer, record, &mut data, &namespace).map_err(broken)?;
            let text = writer.finish();
            left = left.saturating_sub(text.len());
            events.push(text);
        }
    }
    Ok(events)
}

/// Longest text of what the library has against a schema.
const CAUSE_CHARS_MAX: usize = 200;

/// The schema, or what is wrong with it: the library refuses some names, and panics on others.
fn parse_schema(text: &[u8]) -> Result<Schema, String> {
    let told = |cause: &dyn Display| -> String {
        cause.to_string().chars().take(CAUSE_CHARS_MAX).collect()
    };
    let mut schema: serde_json::Value =
        serde_json::from_slice(text).map_err(|cause| told(&cause))?;
    // Polars leaves the record without a name, which nobody needs to read it.
    if let Some(name) = schema.get_mut("name").filter(|name| **name == "") {
        *name = "event".into();
    }
    match std::panic::catch_unwind(|| Schema::parse(&schema)) {
        Ok(parsed) => parsed.map_err(|cause| told(&cause)),
        Err(_) => Err("a name in it is not valid".to_owned()),
    }
}

/// Columns that hold JSON text: a string there is taken as the JSON it holds.
const JSON_FIELDS: [&str; 10] =
    ["data", "before", "prev", "after", "doc", "patch", "jsonPatch", "mergePatch", "meta", "_meta"];

fn event<'s>(
    writer: &mut JsonWriter<'s>,
    record: &'s RecordSchema,
    data: &mut DatumReader<'_>,
    namespace: &Namespace,
) -> Result<(), &'static str> {
    writer.push("{")?;
    for (number, field) in record.fields.iter().enumerate() {
        if number > 0 {
            writer.push(",")?;
        }
        writer.string(&field.name)?;
        writer.push(":")?;
        let start = writer.len();
        writer.value(&field.schema, data, namespace)?;
        if JSON_FIELDS.contains(&field.name.as_str()) {
            let text = one_value(writer.since(start)).and_then(|value| value.text());
            let inner = text.filter(|text| {
                // In `data` a number or a word is more likely a text than JSON.
                one_value(text).is_some_and(|value| {
                    matches!(value.kind, JsonKind::Object | JsonKind::Array | JsonKind::Null)
                })
            });
            if let Some(inner) = inner {
                let inner = inner.into_owned();
                writer.replace(start, inner.trim());
            }
        }
    }
    writer.push("}")
}

#[cfg(test)]
mod tests;
