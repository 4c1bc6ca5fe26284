//! Files made from [`crate::columns`] for other tools: Iceberg schemas and the Avro schema of an
//! event. The files in `schemas/iceberg` and `schemas/avro` are exactly what these functions return.
//! Its tests write `schemas/openapi/types.json` too, the schemas of all bodies; the service, which has the
//! routes, makes the description of its API from that.

use crate::columns::{Column, ColumnKind, EVENTS, FoundIn};
use serde::Serialize;
use serde_json::{Value, json};

#[derive(Serialize)]
struct IcebergSchema<'a> {
    r#type: &'a str,
    #[serde(rename = "schema-id")]
    schema_id: i32,
    fields: Vec<IcebergField<'a>>,
}

#[derive(Serialize)]
struct IcebergField<'a> {
    id: i32,
    name: &'a str,
    required: bool,
    r#type: &'a str,
    doc: &'a str,
}

#[derive(Serialize)]
struct AvroSchema<'a> {
    r#type: &'a str,
    name: &'a str,
    namespace: &'a str,
    doc: &'a str,
    fields: Vec<AvroField<'a>>,
}

#[derive(Serialize)]
struct AvroField<'a> {
    name: &'a str,
    r#type: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    default: Option<Value>,
    doc: &'a str,
}

/// The Iceberg schema, as JSON, of a table with these columns.
#[must_use]
pub fn iceberg_schema(columns: &[Column]) -> String {
    // A table that is made with all of them has them in this order.
    let fields = (1..).zip(columns).map(|(place, column)| IcebergField {
        id: column.id.unwrap_or(place),
        name: column.name,
        required: column.required,
        r#type: match column.kind {
            ColumnKind::String => "string",
            ColumnKind::Long => "long",
            ColumnKind::Int => "int",
            ColumnKind::Double => "double",
            ColumnKind::Boolean => "boolean",
            ColumnKind::Timestamptz => "timestamptz",
        },
        doc: column.doc,
    });
    pretty(&IcebergSchema { r#type: "struct", schema_id: 0, fields: fields.collect() })
}

/// The Avro schema of an event, for senders of Avro files: every column that a sender may fill.
///
/// `before`, `after`, `data` and `meta` are JSON text. Only `type` must be there.
#[must_use]
pub fn avro_event_schema() -> String {
    let columns = EVENTS.iter().filter(|column| column.found_in != FoundIn::Server);
    let fields = columns.map(|column| {
        let kind = match column.kind {
            ColumnKind::String => json!("string"),
            ColumnKind::Long => json!("long"),
            ColumnKind::Int => json!("int"),
            ColumnKind::Double => json!("double"),
            ColumnKind::Boolean => json!("boolean"),
            ColumnKind::Timestamptz => json!({"type": "long", "logicalType": "timestamp-micros"}),
        };
        let is_required = column.name == "type";
        AvroField {
            name: column.name,
            r#type: if is_required { kind } else { json!(["null", kind]) },
            default: (!is_required).then_some(Value::Null),
            doc: column.doc,
        }
    });
    pretty(&AvroSchema {
        r#type: "record",
        name: "Event",
        namespace: "icecore",
        doc: "One event, as POST /ingest takes it; before, after, data and meta are JSON text",
        fields: fields.collect(),
    })
}

fn pretty(value: &impl Serialize) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("the names are text");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests;
