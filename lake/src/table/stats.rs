//! What a manifest says about a column of one file: counts and bounds.
//!
//! Computed from the rows themselves, never from Parquet statistics, which are truncated in ways
//! that make them no bounds. Its one invariant: every value that is neither null nor NaN lies
//! between the lower and the upper bound; where that cannot be said in short, there is no bound.

pub mod foreign;

use arrow::{
    array::{Array, AsArray},
    compute::{max, max_boolean, max_string, min, min_boolean, min_string},
    datatypes::{DataType, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType},
};
use iceberg::spec::Datum;
use std::cmp::Ordering;

/// Most characters (code points) of a string bound.
pub const BOUND_CHARS_MAX: usize = 16;

/// Counts and bounds of one column of one file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ColumnStats {
    /// Rows, nulls included.
    pub values: u64,
    /// Rows without a value.
    pub nulls: u64,
    /// NaN values; none for a column that cannot have them.
    pub nans: Option<u64>,
    /// Not above any value.
    pub lower: Option<Datum>,
    /// Not below any value.
    pub upper: Option<Datum>,
}

impl ColumnStats {
    /// What holds for these rows and others of the same column together.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        // A bound of rows without values says nothing and takes nothing away.
        let both = |one: Option<Datum>, two: Option<Datum>, wins: Ordering| {
            if self.nulls == self.values {
                return two;
            }
            if other.nulls == other.values {
                return one;
            }
            let (one, two) = (one?, two?);
            Some(if two.partial_cmp(&one)? == wins { two } else { one })
        };
        Self {
            lower: both(self.lower.clone(), other.lower.clone(), Ordering::Less),
            upper: both(self.upper.clone(), other.upper.clone(), Ordering::Greater),
            values: self.values + other.values,
            nulls: self.nulls + other.nulls,
            nans: self.nans.zip(other.nans).map(|(one, two)| one + two),
        }
    }
}

/// Counts of `column`, and its bounds where `bounded` asks for them.
///
/// A type that none of our tables has gets counts alone.
#[must_use]
pub fn of_column(column: &dyn Array, bounded: bool) -> ColumnStats {
    let counts = ColumnStats {
        values: column.len() as u64,
        nulls: column.null_count() as u64,
        ..ColumnStats::default()
    };
    let is_double = column.data_type() == &DataType::Float64;
    let nans = is_double.then(|| nan_count(column));
    let counts = ColumnStats { nans, ..counts };
    if !bounded || counts.nulls == counts.values {
        return counts;
    }
    match column.data_type() {
        DataType::Utf8 => {
            let array = column.as_string::<i32>();
            let (low, high) = (min_string(array), max_string(array));
            ColumnStats {
                lower: low.map(|text| Datum::string(truncate_down(text, BOUND_CHARS_MAX))),
                upper: high.and_then(|text| truncate_up(text, BOUND_CHARS_MAX)).map(Datum::string),
                ..counts
            }
        }
        DataType::Int64 => {
            let array = column.as_primitive::<Int64Type>();
            between(&counts, min(array), max(array), Datum::long)
        }
        DataType::Int32 => {
            let array = column.as_primitive::<Int32Type>();
            between(&counts, min(array), max(array), Datum::int)
        }
        DataType::Timestamp(_, Some(_)) => {
            let Some(array) = column.as_primitive_opt::<TimestampMicrosecondType>() else {
                return counts;
            };
            between(&counts, min(array), max(array), Datum::timestamptz_micros)
        }
        DataType::Boolean => {
            let array = column.as_boolean();
            between(&counts, min_boolean(array), max_boolean(array), Datum::bool)
        }
        DataType::Float64 => {
            let (low, high) = double_bounds(column);
            ColumnStats { lower: low.map(Datum::double), upper: high.map(Datum::double), ..counts }
        }
        _ => counts,
    }
}

fn between<T>(
    counts: &ColumnStats,
    low: Option<T>,
    high: Option<T>,
    datum: impl Fn(T) -> Datum,
) -> ColumnStats {
    ColumnStats { lower: low.map(&datum), upper: high.map(&datum), ..counts.clone() }
}

fn nan_count(column: &dyn Array) -> u64 {
    let doubles = column.as_primitive::<Float64Type>();
    doubles.iter().flatten().filter(|value| value.is_nan()).count() as u64
}

/// Zero bounds take the sign that lies outside, because engines order `-0.0` before `0.0`.
fn double_bounds(column: &dyn Array) -> (Option<f64>, Option<f64>) {
    let numbers =
        || column.as_primitive::<Float64Type>().iter().flatten().filter(|value| !value.is_nan());
    let low = numbers().reduce(f64::min).map(|low| if low == 0.0 { -0.0 } else { low });
    let high = numbers().reduce(f64::max).map(|high| if high == 0.0 { 0.0 } else { high });
    (low, high)
}

/// The first so many characters: a prefix is never above its text.
fn truncate_down(text: &str, chars: usize) -> &str {
    text.char_indices().nth(chars).map_or(text, |(end, _)| &text[..end])
}

/// A short text that is not below `text`; none when every character of the prefix is the last one.
///
/// UTF-8 sorts as its code points do, so raising the last character of the prefix that can be
/// raised, and dropping what follows it, passes everything that starts with the prefix.
fn truncate_up(text: &str, chars: usize) -> Option<String> {
    let prefix = truncate_down(text, chars);
    if prefix.len() == text.len() {
        return Some(text.to_owned());
    }
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        if let Some(raised) = next_char(last) {
            chars.push(raised);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

/// The code point after `c`, past the surrogates, which are no characters.
fn next_char(c: char) -> Option<char> {
    match c {
        '\u{D7FF}' => Some('\u{E000}'),
        char::MAX => None,
        c => char::from_u32(u32::from(c) + 1),
    }
}

#[cfg(test)]
mod tests;
