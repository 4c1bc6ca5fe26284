//! Bookmarks of changes that their sender gave none.

use arrow::{
    array::{Array, ArrayRef, AsArray, StringArray, StringBuilder},
    datatypes::Schema,
    record_batch::RecordBatch,
};
use icecore_lake::event::{EventKey, bookmark, rows};
use std::sync::Arc;

/// The rows with a bookmark for each change; the first has `first_seq`, and each has a key.
///
/// # Panics
/// Never: rows have columns of the table only.
#[must_use]
pub fn mint(rows: RecordBatch, first_seq: u64, keys: &[EventKey]) -> RecordBatch {
    let text = |name| rows.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
    let Some(ops) = text("op") else { return rows };
    let given: Option<&StringArray> = text("bookmark");
    let has = |row| given.is_some_and(|given| given.is_valid(row));
    if (0..rows.num_rows()).all(|row| ops.is_null(row) || has(row)) {
        return rows;
    }
    let mut bookmarks = StringBuilder::new();
    for (row, (seq, key)) in (first_seq..).zip(keys).enumerate() {
        match given.filter(|given| given.is_valid(row)) {
            Some(given) => bookmarks.append_value(given.value(row)),
            None if ops.is_null(row) => bookmarks.append_null(),
            None => bookmarks.append_value(bookmark::minted(seq, key.id)),
        }
    }
    with_bookmarks(&rows, Arc::new(bookmarks.finish()))
}

/// The rows with their bookmarks, in the place that the table's schema has for them.
fn with_bookmarks(rows: &RecordBatch, bookmarks: ArrayRef) -> RecordBatch {
    let schema = rows::known_event_schema();
    let place = |name: &str| schema.index_of(name).expect("rows have columns of the table only");
    let (mut fields, mut columns) = (rows.schema().fields().to_vec(), rows.columns().to_vec());
    let new = place("bookmark");
    if let Some(had) = fields.iter().position(|field| place(field.name()) == new) {
        fields.remove(had);
        columns.remove(had);
    }
    let at = fields.partition_point(|field| place(field.name()) < new);
    fields.insert(at, Arc::clone(&schema.fields()[new]));
    columns.insert(at, bookmarks);
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
        .expect("the column has the schema's type and a value or null for every row")
}
