//! Rows of `events` as members of JSON objects.

use crate::http::rows::{json_of, written_time};
use arrow::{
    array::{Array, ArrayRef, AsArray},
    compute::cast,
    datatypes::{DataType, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType},
    record_batch::RecordBatch,
};
use serde_json::value::{RawValue, to_raw_value};

/// Columns whose texts are JSON.
const JSON_COLUMNS: &[&str] = &["before", "after", "patch", "data", "meta", "payload"];

/// Rows whose cells can be read.
pub(super) struct EventBatch {
    columns: Vec<(String, EventCells)>,
    rows: usize,
}

/// The values of a column.
enum EventCells {
    Text(ArrayRef),
    Json(ArrayRef),
    Whole(ArrayRef),
    Double(ArrayRef),
    Flag(ArrayRef),
    Time(ArrayRef),
}

impl EventBatch {
    /// The rows of a batch. A column of a type that has no place in JSON is left out.
    pub(super) fn new(batch: &RecordBatch) -> Self {
        let schema = batch.schema();
        let fields = schema.fields().iter().zip(batch.columns());
        let columns = fields.filter_map(|(field, column)| {
            Some((field.name().clone(), EventCells::of(field.name(), column)?))
        });
        Self { columns: columns.collect(), rows: batch.num_rows() }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// The members of a row that have a value.
    pub(super) fn members(&self, row: usize) -> impl Iterator<Item = (&str, Box<RawValue>)> {
        self.columns
            .iter()
            .filter_map(move |(name, cells)| Some((name.as_str(), cells.value(row)?)))
    }
}

impl EventCells {
    fn of(name: &str, column: &ArrayRef) -> Option<Self> {
        let kind = column.data_type();
        let to = |kind: &DataType| cast(column, kind).ok();
        if kind.is_integer() {
            return to(&DataType::Int64).map(Self::Whole);
        }
        if kind.is_floating() {
            return to(&DataType::Float64).map(Self::Double);
        }
        if *kind == DataType::Boolean {
            return to(&DataType::Boolean).map(Self::Flag);
        }
        if let DataType::Timestamp(_, zone) = kind {
            let micros = DataType::Timestamp(TimeUnit::Microsecond, zone.clone());
            return to(&micros).map(Self::Time);
        }
        let texts = to(&DataType::Utf8)?;
        Some(if JSON_COLUMNS.contains(&name) { Self::Json(texts) } else { Self::Text(texts) })
    }

    /// The value in a row; none where it is null, and for a number that JSON has not.
    fn value(&self, row: usize) -> Option<Box<RawValue>> {
        let (Self::Text(array)
        | Self::Json(array)
        | Self::Whole(array)
        | Self::Double(array)
        | Self::Flag(array)
        | Self::Time(array)) = self;
        if array.is_null(row) {
            return None;
        }
        match self {
            Self::Text(_) => to_raw_value(array.as_string_opt::<i32>()?.value(row)).ok(),
            Self::Json(_) => Some(json_of(array.as_string_opt::<i32>()?.value(row))),
            Self::Whole(_) => to_raw_value(&array.as_primitive_opt::<Int64Type>()?.value(row)).ok(),
            Self::Double(_) => {
                let number = array.as_primitive_opt::<Float64Type>()?.value(row);
                number.is_finite().then(|| to_raw_value(&number).ok()).flatten()
            }
            Self::Flag(_) => to_raw_value(&array.as_boolean_opt()?.value(row)).ok(),
            Self::Time(_) => {
                let times = array.as_primitive_opt::<TimestampMicrosecondType>()?;
                to_raw_value(&written_time(times.value(row))?).ok()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};
    use std::sync::Arc;

    #[test]
    fn cells_are_json_and_nulls_are_left_out() {
        let column = |name: &'static str, values: ArrayRef| (name, values);
        let after = StringArray::from(vec![Some("{\"n\":1.10}"), Some("no json")]);
        let columns = vec![
            column("seq", Arc::new(Int64Array::from(vec![9_007_199_254_740_993, 2]))),
            column("type", Arc::new(StringArray::from(vec![Some("a\"b"), None]))),
            column("after", Arc::new(after)),
            column("duration_ms", Arc::new(Float64Array::from(vec![1.5, f64::NAN]))),
            column("ts", Arc::new(TimestampMicrosecondArray::from(vec![Some(1), None]))),
        ];
        let batch = EventBatch::new(&RecordBatch::try_from_iter(columns).unwrap());
        let shown = |row| -> Vec<String> {
            let members = batch.members(row);
            members.map(|(name, value)| format!("{name}={}", value.get())).collect()
        };
        assert_eq!(
            shown(0),
            [
                "seq=9007199254740993",
                "type=\"a\\\"b\"",
                "after={\"n\":1.10}",
                "duration_ms=1.5",
                "ts=\"1970-01-01T00:00:00.000001Z\"",
            ]
        );
        assert_eq!(shown(1), ["seq=2", "after=\"no json\""]);
        assert_eq!(batch.rows(), 2);
    }
}
