//! Bookmarks of changes that their sender gave none.
//!
//! Four groups of hexadecimal digits, 8-8-8-32: the `seq` in the first two, so that the order of the
//! texts is the order of the changes, then zeros, then what the event is known by.

use arrow::{
    array::{Array, ArrayRef, AsArray, StringArray, StringBuilder},
    datatypes::Schema,
    record_batch::RecordBatch,
};
use icecore_lake::event::{EventKey, rows};
use std::sync::Arc;

/// The rows with a bookmark for each change; the first has `first_seq`, and each has a key.
pub(super) fn mint(rows: RecordBatch, first_seq: u64, keys: &[EventKey]) -> RecordBatch {
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
            None => bookmarks.append_value(bookmark(seq, key.id)),
        }
    }
    with_bookmarks(&rows, Arc::new(bookmarks.finish()))
}

fn bookmark(seq: u64, id: u128) -> String {
    format!("{:08x}-{:08x}-{:08x}-{id:032x}", seq >> 32, seq & 0xffff_ffff, 0)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bookmarks_sort_like_the_changes() {
        let seqs = [1, 9, 10, 255, 256, u64::from(u32::MAX), 1 << 32, u64::MAX];
        let minted: Vec<String> =
            seqs.iter().rev().map(|seq| bookmark(*seq, u128::MAX - 5)).collect();
        let mut sorted = minted.clone();
        sorted.sort();
        sorted.reverse();
        assert_eq!(minted, sorted);
        assert_eq!(bookmark(17, 10), "00000000-00000011-00000000-0000000000000000000000000000000a");
    }
}
