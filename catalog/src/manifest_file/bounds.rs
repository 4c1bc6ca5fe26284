//! Bounds of text columns that are cut within a character.
//!
//! DuckDB cuts bounds after sixteen bytes, whatever is there, and the iceberg crate then reads nothing
//! of the manifest. A lower bound without its last, broken character is still not above any value. Of
//! an upper bound nothing certain is left, so it goes. Bounds of columns that the table does not have are
//! left alone, but for the paths in a delete file.

use super::{ManifestHeader, PATH_IDS, SCHEMA};
use apache_avro::{Reader, Writer, types::Value};
use bytes::Bytes;
use iceberg::spec::{PrimitiveType, Schema};

/// Key of the header: the table's schema.
const TABLE_SCHEMA: &str = "schema";
/// Members of a data file, with whether what is left of a bound still holds.
const BOUNDS: [(&str, bool); 2] = [("lower_bounds", true), ("upper_bounds", false)];

/// The same manifest with bounds that are text; none where it is no manifest.
pub(super) fn mended(bytes: &Bytes) -> Option<Bytes> {
    let (header, _) = ManifestHeader::parse(bytes)?;
    let columns: Schema = serde_json::from_slice(header.get(TABLE_SCHEMA)?).ok()?;
    rewritten(bytes, &header, |(key, value), keeps_start| {
        let is_text = match columns.field_by_id(key) {
            Some(field) => *field.field_type.as_primitive_type()? == PrimitiveType::String,
            None => PATH_IDS.contains(&i64::from(key)),
        };
        let Some(cut) = is_text.then(|| valid_up_to(&value)).flatten() else {
            return Some(value);
        };
        keeps_start.then(|| value[..cut].to_vec())
    })
}

/// How many bytes at the start are text, where it is not all of them.
fn valid_up_to(bytes: &[u8]) -> Option<usize> {
    std::str::from_utf8(bytes).err().map(|cause| cause.valid_up_to())
}

/// The same manifest with every bound as `change` makes it, or without it.
pub(super) fn rewritten(
    bytes: &Bytes,
    header: &ManifestHeader,
    change: impl Fn((i32, Vec<u8>), bool) -> Option<Vec<u8>>,
) -> Option<Bytes> {
    let reader = Reader::new(&bytes[..]).ok()?;
    let schema = reader.writer_schema().clone();
    let mut writer = Writer::new(&schema, Vec::new());
    for (key, value) in &header.0 {
        let key = std::str::from_utf8(key).ok()?;
        if !key.starts_with("avro.") {
            writer.add_user_metadata(key.to_owned(), value).ok()?;
        }
    }
    for record in reader {
        let mut record = record.ok()?;
        let file = member(&mut record, "data_file")?;
        for (name, keeps_start) in BOUNDS {
            let Some(Value::Array(entries)) = member(file, name).map(inner) else { continue };
            entries.retain_mut(|entry| {
                let key = match member(entry, "key") {
                    Some(Value::Int(key)) => *key,
                    _ => return false,
                };
                let Some(Value::Bytes(value)) = member(entry, "value") else { return false };
                let changed = change((key, std::mem::take(value)), keeps_start);
                let stays = changed.is_some();
                *value = changed.unwrap_or_default();
                stays
            });
        }
        writer.append(record).ok()?;
    }
    let bytes = writer.into_inner().ok()?;
    // The schema as it was written, with what only Iceberg reads in it.
    let (mut header_now, data) = ManifestHeader::parse(&bytes)?;
    header_now.set(SCHEMA, header.get(SCHEMA)?);
    Some(header_now.encode(data).into())
}

fn member<'a>(value: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    let Value::Record(fields) = value else { return None };
    fields.iter_mut().find(|(field, _)| field == name).map(|(_, value)| value)
}

/// What is in an optional value.
fn inner(value: &mut Value) -> &mut Value {
    match value {
        Value::Union(_, inner) => inner,
        other => other,
    }
}
