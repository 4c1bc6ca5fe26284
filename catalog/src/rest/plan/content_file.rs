//! Data and delete files in the JSON of the REST specification.
//!
//! Bounds are the single values of Iceberg's binary form in hexadecimal digits: the form in which
//! the Java client writes and reads them.

use crate::scan::{
    filter::datum,
    json::write_value,
    manifests::{ColumnBounds, PlannedFile},
};
use iceberg::spec::{
    DataContentType, Datum, Literal, PartitionField, PrimitiveType, TableMetadata, Type,
};
use serde_json::{Map, Value, json};
use std::collections::HashSet;

/// A file, with counts and bounds of the columns that are asked for.
pub(super) fn write(
    metadata: &TableMetadata,
    file: &PlannedFile,
    described: &HashSet<i32>,
) -> Value {
    let mut json = Map::new();
    let mut put = |name: &str, value: Value| {
        if !value.is_null() {
            json.insert(name.to_owned(), value);
        }
    };
    put("spec-id", json!(file.spec_id));
    put("content", json!(content(file.content)));
    put("file-path", json!(file.location));
    put("file-format", json!(file.format.to_string().to_ascii_lowercase()));
    put("partition", partition(metadata, file));
    put("file-size-in-bytes", json!(file.bytes));
    put("record-count", json!(file.rows));
    put("key-metadata", json!(file.key_metadata.as_deref().map(hex::encode_upper)));
    put("split-offsets", json!(file.split_offsets));
    put("sort-order-id", json!(file.sort_order_id));
    put("equality-ids", json!(file.equality_ids));
    put("referenced-data-file", json!(file.referenced_data_file));
    put("content-offset", json!(file.content_offset));
    put("content-size-in-bytes", json!(file.content_bytes));
    if file.content == DataContentType::Data {
        put("first-row-id", json!(file.first_row_id));
        put("data-sequence-number", json!(file.first_row_id.map(|_| file.sequence)));
    }
    let columns: Vec<_> =
        file.columns().iter().filter(|column| described.contains(&column.id)).collect();
    put("column-sizes", map(&columns, |column| column.bytes.map(Value::from)));
    put("value-counts", map(&columns, |column| column.values.map(Value::from)));
    put("null-value-counts", map(&columns, |column| column.nulls.map(Value::from)));
    put("nan-value-counts", map(&columns, |column| column.nans.map(Value::from)));
    put("lower-bounds", map(&columns, |column| bound(column.lower.as_ref()?)));
    put("upper-bounds", map(&columns, |column| bound(column.upper.as_ref()?)));
    Value::Object(json)
}

fn content(content: DataContentType) -> &'static str {
    match content {
        DataContentType::Data => "data",
        DataContentType::PositionDeletes => "position-deletes",
        DataContentType::EqualityDeletes => "equality-deletes",
    }
}

/// A map by field id; null when it would be empty.
fn map(columns: &[&ColumnBounds], value: impl Fn(&ColumnBounds) -> Option<Value>) -> Value {
    let known = columns.iter().filter_map(|column| Some((column.id, value(column)?)));
    let (keys, values): (Vec<i32>, Vec<Value>) = known.unzip();
    if keys.is_empty() { Value::Null } else { json!({"keys": keys, "values": values}) }
}

fn bound(value: &Datum) -> Option<Value> {
    value.to_bytes().ok().map(|bytes| json!(hex::encode_upper(bytes)))
}

fn partition(metadata: &TableMetadata, file: &PlannedFile) -> Value {
    let spec = metadata.partition_spec_by_id(file.spec_id);
    let fields = spec.map(|spec| spec.fields()).unwrap_or_default();
    let values = fields.iter().zip(file.partition.iter()).map(|(field, value)| {
        let Some(Literal::Primitive(value)) = value else { return Value::Null };
        let Some(kind) = kind(metadata, field) else { return Value::Null };
        // The value may be narrower than the column is now.
        let value = datum(value, &kind);
        value.map_or(Value::Null, |value| write_value(value.literal(), &kind))
    });
    values.collect()
}

/// The type of a partition field, also of one whose column was dropped.
fn kind(metadata: &TableMetadata, field: &PartitionField) -> Option<PrimitiveType> {
    let now = metadata.current_schema().field_by_id(field.source_id);
    let source = now.or_else(|| {
        metadata.schemas_iter().find_map(|schema| schema.field_by_id(field.source_id))
    })?;
    match field.transform.result_type(&source.field_type).ok()? {
        Type::Primitive(kind) => Some(kind),
        Type::Struct(_) | Type::List(_) | Type::Map(_) => None,
    }
}
