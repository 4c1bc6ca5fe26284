//! Values of a query's rows by the names of their columns, and pages of rows.
//!
//! A page ends after so many rows or bytes, whichever comes first, and has one row at least.

use crate::http::error::ApiError;
use arrow::{
    array::{Array, AsArray},
    compute::cast,
    datatypes::{DataType, Int64Type},
    record_batch::RecordBatch,
};
use chrono::{DateTime, SecondsFormat};
use futures::StreamExt;
use icecore_engine::QueryAnswer;
use icecore_schemas::query::QueryBasis;
use serde_json::value::{RawValue, to_raw_value};

/// Bytes of documents after which a page ends.
pub(super) const PAGE_BYTES_MAX: usize = 8 << 20;

/// Rows of an answer.
pub(super) struct RowPage<T> {
    /// What was made of them.
    pub(super) rows: Vec<T>,
    /// Whether the answer had others.
    pub(super) has_more: bool,
    /// What the answer was made of.
    pub(super) basis: Option<QueryBasis>,
}

/// The first rows of an answer, at most `limit`. `read` makes something of a row and says how many bytes it is; a row
/// that it makes nothing of does not count.
///
/// # Errors
/// As queries.
pub(super) async fn page<T>(
    mut answer: QueryAnswer,
    limit: usize,
    read: impl Fn(&RecordBatch, usize) -> Option<(T, usize)>,
) -> Result<RowPage<T>, ApiError> {
    let basis = answer.basis.take();
    let (mut rows, mut bytes) = (Vec::new(), 0);
    while let Some(batch) = answer.batches.next().await {
        let batch = batch?;
        for row in 0..batch.num_rows() {
            let Some((value, length)) = read(&batch, row) else { continue };
            let is_full = limit <= rows.len() || PAGE_BYTES_MAX < bytes + length;
            if is_full && !rows.is_empty() {
                return Ok(RowPage { rows, has_more: true, basis });
            }
            bytes += length;
            rows.push(value);
        }
    }
    Ok(RowPage { rows, has_more: false, basis })
}

/// The text in a cell; none where it is null.
pub(super) fn text_at(batch: &RecordBatch, name: &str, row: usize) -> Option<String> {
    let column = cast(&batch.column_by_name(name)?.slice(row, 1), &DataType::Utf8).ok()?;
    let column = column.as_string_opt::<i32>()?;
    column.is_valid(0).then(|| column.value(0).to_owned())
}

/// The whole number in a cell; none where it is null, or below 0.
pub(super) fn number_at(batch: &RecordBatch, name: &str, row: usize) -> Option<u64> {
    u64::try_from(integer_at(batch, name, row)?).ok()
}

/// The whole number in a cell; none where it is null.
pub(super) fn integer_at(batch: &RecordBatch, name: &str, row: usize) -> Option<i64> {
    let column = cast(&batch.column_by_name(name)?.slice(row, 1), &DataType::Int64).ok()?;
    let column = column.as_primitive_opt::<Int64Type>()?;
    column.is_valid(0).then(|| column.value(0))
}

/// The time in a cell of microseconds, RFC 3339; none where it is null.
pub(super) fn time_at(batch: &RecordBatch, name: &str, row: usize) -> Option<String> {
    integer_at(batch, name, row).and_then(written_time)
}

/// A time in microseconds since 1970 as text; none for one that no calendar has.
pub(super) fn written_time(us: i64) -> Option<String> {
    // It may lie before 1970.
    let time = DateTime::from_timestamp_micros(us)?;
    Some(time.to_rfc3339_opts(SecondsFormat::Micros, true))
}

/// The JSON in a cell of text; none where it is null.
pub(super) fn json_at(batch: &RecordBatch, name: &str, row: usize) -> Option<Box<RawValue>> {
    text_at(batch, name, row).map(|text| json_of(&text))
}

/// A text as the JSON that it is, unchanged; as a JSON text where it is none.
pub(super) fn json_of(text: &str) -> Box<RawValue> {
    match serde_json::from_str::<&RawValue>(text) {
        Ok(json) => json.to_owned(),
        Err(_) => to_raw_value(text).expect("a text is JSON"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_stays_the_json_that_it_is() {
        for (text, expected) in [
            ("{\"a\": 12345678901234567890.00}", "{\"a\": 12345678901234567890.00}"),
            (" null ", "null"),
            ("plain", "\"plain\""),
            ("{\"a\":", "\"{\\\"a\\\":\""),
        ] {
            assert_eq!(json_of(text).get(), expected, "{text}");
        }
        assert_eq!(written_time(-1).as_deref(), Some("1969-12-31T23:59:59.999999Z"));
    }
}
