//! Counts and bounds of columns of other engines' tables, as these ask for them.
//!
//! What a table asks for is in its properties `write.metadata.metrics.*`. Columns of decimals, bytes and uuids,
//! and what is inside of structs, lists and maps get no bounds: a manifest may leave out any of them.

use crate::table::stats::{
    BOUND_CHARS_MAX, ColumnStats, between, double_bounds, nan_count, truncate_down, truncate_up,
};
use arrow::{
    array::{Array, AsArray},
    compute::{max, max_boolean, max_string, min, min_boolean, min_string},
    datatypes::{
        Date32Type, Float32Type, Int32Type, Int64Type, Time64MicrosecondType,
        TimestampMicrosecondType,
    },
};
use iceberg::spec::{Datum, PrimitiveType, TableMetadata};

/// What is asked for of all columns.
const DEFAULT: &str = "write.metadata.metrics.default";
/// The same of one, whose name follows.
const OF_COLUMN: &str = "write.metadata.metrics.column.";
/// To how many of the first columns it applies where nothing else is asked for.
const COLUMNS_MAX: &str = "write.metadata.metrics.max-inferred-column-defaults";
/// So many unless that says otherwise.
const COLUMNS_MAX_DEFAULT: usize = 100;

/// What is told of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsMode {
    /// Nothing.
    None,
    /// Counts alone.
    Counts,
    /// Counts, and bounds whose texts have so many characters.
    Truncated(usize),
    /// Counts, and bounds of any length.
    Full,
}

impl MetricsMode {
    /// What a table asks for of its column at this place.
    #[must_use]
    pub fn of(table: &TableMetadata, name: &str, place: usize) -> Self {
        let properties = table.properties();
        let asked = |key: &str| properties.get(key).and_then(|text| Self::parse(text));
        let otherwise = || {
            let most = properties.get(COLUMNS_MAX).and_then(|text| text.trim().parse().ok());
            match place < most.unwrap_or(COLUMNS_MAX_DEFAULT) {
                true => Self::Truncated(BOUND_CHARS_MAX),
                false => Self::None,
            }
        };
        asked(&format!("{OF_COLUMN}{name}")).or_else(|| asked(DEFAULT)).unwrap_or_else(otherwise)
    }

    fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        match text.as_str() {
            "none" => Some(Self::None),
            "counts" => Some(Self::Counts),
            "full" => Some(Self::Full),
            _ => {
                let chars = text.strip_prefix("truncate(")?.strip_suffix(')')?.trim().parse();
                chars.ok().filter(|chars| 0 < *chars).map(Self::Truncated)
            }
        }
    }

    /// Characters of a text that is a bound; none where there are no bounds.
    fn chars(self) -> Option<usize> {
        match self {
            Self::None | Self::Counts => None,
            Self::Truncated(chars) => Some(chars),
            Self::Full => Some(usize::MAX),
        }
    }
}

/// Counts of a column with values of this type, and its bounds where the mode asks for them.
#[must_use]
pub fn of_column(column: &dyn Array, kind: &PrimitiveType, mode: MetricsMode) -> ColumnStats {
    let nans = match kind {
        PrimitiveType::Float => Some(float_nan_count(column)),
        PrimitiveType::Double => Some(nan_count(column)),
        _ => None,
    };
    let (values, nulls) = (column.len() as u64, column.null_count() as u64);
    let counts = ColumnStats { values, nulls, nans, ..ColumnStats::default() };
    match mode.chars() {
        Some(chars) if nulls < values => bounded(column, kind, chars, &counts),
        _ => counts,
    }
}

fn bounded(
    column: &dyn Array,
    kind: &PrimitiveType,
    chars: usize,
    counts: &ColumnStats,
) -> ColumnStats {
    match kind {
        PrimitiveType::Boolean => {
            let values = column.as_boolean();
            between(counts, min_boolean(values), max_boolean(values), Datum::bool)
        }
        PrimitiveType::Int => {
            let values = column.as_primitive::<Int32Type>();
            between(counts, min(values), max(values), Datum::int)
        }
        PrimitiveType::Long => {
            let values = column.as_primitive::<Int64Type>();
            between(counts, min(values), max(values), Datum::long)
        }
        PrimitiveType::Float => {
            let (low, high) = float_bounds(column);
            between(counts, low, high, Datum::float)
        }
        PrimitiveType::Double => {
            let (low, high) = double_bounds(column);
            between(counts, low, high, Datum::double)
        }
        PrimitiveType::Date => {
            let values = column.as_primitive::<Date32Type>();
            between(counts, min(values), max(values), Datum::date)
        }
        PrimitiveType::Time => {
            let values = column.as_primitive::<Time64MicrosecondType>();
            let datum = |micros: Option<i64>| Datum::time_micros(micros?).ok();
            ColumnStats { lower: datum(min(values)), upper: datum(max(values)), ..counts.clone() }
        }
        PrimitiveType::Timestamp => {
            let values = column.as_primitive::<TimestampMicrosecondType>();
            between(counts, min(values), max(values), Datum::timestamp_micros)
        }
        PrimitiveType::Timestamptz => {
            let values = column.as_primitive::<TimestampMicrosecondType>();
            between(counts, min(values), max(values), Datum::timestamptz_micros)
        }
        PrimitiveType::String => {
            let values = column.as_string::<i32>();
            let upper = max_string(values).and_then(|text| truncate_up(text, chars));
            ColumnStats {
                lower: min_string(values).map(|text| Datum::string(truncate_down(text, chars))),
                upper: upper.map(Datum::string),
                ..counts.clone()
            }
        }
        _ => counts.clone(),
    }
}

fn float_nan_count(column: &dyn Array) -> u64 {
    let values = column.as_primitive::<Float32Type>();
    values.iter().flatten().filter(|value| value.is_nan()).count() as u64
}

/// As [`double_bounds`].
fn float_bounds(column: &dyn Array) -> (Option<f32>, Option<f32>) {
    let values = column.as_primitive::<Float32Type>();
    let numbers = || values.iter().flatten().filter(|value| !value.is_nan());
    let low = numbers().reduce(f32::min).map(|low| if low == 0.0 { -0.0 } else { low });
    let high = numbers().reduce(f32::max).map(|high| if high == 0.0 { 0.0 } else { high });
    (low, high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float32Array, StringArray};

    #[test]
    fn what_a_property_says_is_what_is_told() {
        let modes = ["none", "Counts", "full", "truncate(3)", "truncate(0)", "most"];
        let expected = [
            Some(MetricsMode::None),
            Some(MetricsMode::Counts),
            Some(MetricsMode::Full),
            Some(MetricsMode::Truncated(3)),
            None,
            None,
        ];
        assert_eq!(modes.map(MetricsMode::parse), expected);
    }

    #[test]
    fn texts_are_truncated_to_what_is_asked_for() {
        let texts = StringArray::from(vec![Some("abcdef"), None, Some("abcxyz")]);
        let told = |mode| of_column(&texts, &PrimitiveType::String, mode);
        let bounds = |stats: ColumnStats| (stats.lower, stats.upper);
        let text = |text: &str| Some(Datum::string(text));
        assert_eq!(bounds(told(MetricsMode::Truncated(3))), (text("abc"), text("abd")));
        assert_eq!(bounds(told(MetricsMode::Full)), (text("abcdef"), text("abcxyz")));
        assert_eq!(bounds(told(MetricsMode::Counts)), (None, None));
        assert_eq!((told(MetricsMode::Counts).values, told(MetricsMode::Counts).nulls), (3, 1));
    }

    #[test]
    fn what_is_no_number_is_counted_and_bounds_nothing() {
        let floats = Float32Array::from(vec![f32::NAN, 2.0, 0.0]);
        let told = of_column(&floats, &PrimitiveType::Float, MetricsMode::Full);
        assert_eq!((told.nans, told.lower), (Some(1), Some(Datum::float(-0.0_f32))));
        assert_eq!(told.upper, Some(Datum::float(2.0_f32)));
    }
}
