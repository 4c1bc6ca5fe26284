//! Rows for a table that has no place for some columns: what they say goes to `payload`, where it would
//! be if this server did not know the columns.
//!
//! Its one invariant: a row that had a value in a column which is taken away has `payload`, and that
//! holds the value.

use crate::event::rows;
use arrow::{
    array::{Array, ArrayRef, AsArray, StringArray},
    compute::cast,
    datatypes::{DataType, Float64Type, Int32Type, Int64Type},
    error::ArrowError,
    record_batch::{RecordBatch, RecordBatchOptions},
};
use icecore_schemas::columns::{Column, ColumnKind, FoundIn, KNOWN_EVENTS};
use serde::de::IgnoredAny;
use serde_json::Value;
use std::{borrow::Cow, sync::Arc};

const PAYLOAD: &str = "payload";
/// Columns that hold JSON as text.
const JSON: [&str; 5] = ["before", "after", "data", "meta", "patch"];

/// The rows without these columns, each row that has a value there with the whole event in `payload`.
///
/// # Errors
/// The rows have no column `payload`, or types that are none of ours.
pub fn leave_out(rows: &RecordBatch, columns: &[&Column]) -> Result<RecordBatch, ArrowError> {
    if columns.is_empty() {
        return Ok(rows.clone());
    }
    let is_left_out = |name: &str| columns.iter().any(|column| column.name == name);
    let lost: Vec<&ArrayRef> =
        columns.iter().filter_map(|column| rows.column_by_name(column.name)).collect();
    let loses = |row: usize| lost.iter().any(|column| column.is_valid(row));
    let kept: Vec<usize> = (0..rows.num_columns())
        .filter(|at| !is_left_out(rows.schema_ref().field(*at).name()))
        .collect();
    let rest = rows.project(&kept)?;
    if !(0..rows.num_rows()).any(loses) {
        return Ok(rest);
    }
    let place = rest.schema_ref().index_of(PAYLOAD)?;
    let texts = rest.column(place).as_string_opt::<i32>();
    let texts = texts.ok_or_else(|| ArrowError::SchemaError("`payload` is no text".to_owned()))?;
    let cells = EventCells::of(rows)?;
    let payloads = (0..rows.num_rows()).map(|row| match (texts.is_valid(row), loses(row)) {
        (true, _) => Some(Cow::Borrowed(texts.value(row))),
        (false, true) => Some(Cow::Owned(cells.event(row))),
        (false, false) => None,
    });
    let payloads: StringArray = payloads.collect();
    let mut all = rest.columns().to_vec();
    all[place] = Arc::new(payloads);
    let options = RecordBatchOptions::new().with_row_count(Some(rest.num_rows()));
    RecordBatch::try_new_with_options(rest.schema(), all, &options)
}

/// The columns that an event's members fill, as text or numbers.
struct EventCells(Vec<(&'static Column, ArrayRef)>);

impl EventCells {
    fn of(rows: &RecordBatch) -> Result<Self, ArrowError> {
        let is_sent = |column: &&Column| column.found_in != FoundIn::Server;
        let mut cells = Vec::new();
        for column in KNOWN_EVENTS.iter().filter(is_sent) {
            if let Some(values) = rows.column_by_name(column.name) {
                let values = match column.kind {
                    ColumnKind::Timestamptz => cast(values, &DataType::Utf8)?,
                    _ => cast(values, &rows::data_type(column.kind))?,
                };
                cells.push((column, values));
            }
        }
        Ok(Self(cells))
    }

    /// One event, with the columns' own names for its members.
    fn event(&self, row: usize) -> String {
        let present = self.0.iter().filter(|(_, values)| values.is_valid(row));
        let members: Vec<String> = present
            .map(|(column, values)| {
                format!("{}:{}", Value::from(column.name), json_of(column, values, row))
            })
            .collect();
        format!("{{{}}}", members.join(","))
    }
}

fn json_of(column: &Column, values: &ArrayRef, row: usize) -> String {
    match column.kind {
        ColumnKind::String if JSON.contains(&column.name) => {
            let text = values.as_string::<i32>().value(row);
            match serde_json::from_str::<IgnoredAny>(text) {
                Ok(_) => text.to_owned(),
                Err(_) => Value::from(text).to_string(),
            }
        }
        ColumnKind::String | ColumnKind::Timestamptz => {
            Value::from(values.as_string::<i32>().value(row)).to_string()
        }
        ColumnKind::Long => values.as_primitive::<Int64Type>().value(row).to_string(),
        ColumnKind::Int => values.as_primitive::<Int32Type>().value(row).to_string(),
        ColumnKind::Double => {
            Value::from(values.as_primitive::<Float64Type>().value(row)).to_string()
        }
        ColumnKind::Boolean => values.as_boolean().value(row).to_string(),
    }
}

#[cfg(test)]
mod tests;
