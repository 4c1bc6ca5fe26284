//! One value for one column: which forms it may have. Leaves the column's choice to `normalize`.

use crate::event::{
    digest,
    json::{self, JsonKind, JsonValue},
    names::{self, KINDS},
};
use icecore_schemas::columns::ColumnKind;
use std::borrow::Cow;

/// A value that has its column's type.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum CellValue<'a> {
    Text(Cow<'a, str>),
    /// For columns of 64 and of 32 bits; the latter's range is checked.
    Long(i64),
    Double(f64),
    Bool(bool),
}

/// What the column holds of the value: the value itself, where it is of another type the JSON text
/// in a column of text and what is sure elsewhere (`"12.5"`, `"true"`), or nothing. Null is nothing.
#[inline]
pub(crate) fn convert<'a>(column: usize, value: JsonValue<'a>) -> Option<CellValue<'a>> {
    let raw = || Some(CellValue::Text(Cow::Borrowed(value.raw)));
    match column {
        names::DATA | names::BEFORE | names::AFTER | names::META
            if value.kind != JsonKind::Null =>
        {
            return raw();
        }
        names::OP => return Some(CellValue::Text(Cow::Borrowed(op(&value.text()?)?))),
        names::TYPE | names::NS => return value.text().map(CellValue::Text),
        names::LSN => return long(value).or_else(|| postgres_lsn(value)).map(CellValue::Long),
        _ => {}
    }
    match KINDS[column] {
        ColumnKind::String => match value.kind {
            JsonKind::Plain | JsonKind::Escaped => value.text().map(CellValue::Text),
            JsonKind::Number | JsonKind::Bool | JsonKind::Array | JsonKind::Object => raw(),
            JsonKind::Null => None,
        },
        ColumnKind::Long => long(value).map(CellValue::Long),
        ColumnKind::Int => {
            long(value).filter(|number| i32::try_from(*number).is_ok()).map(CellValue::Long)
        }
        ColumnKind::Double => double(value).map(CellValue::Double),
        ColumnKind::Boolean => flag(value).map(CellValue::Bool),
        ColumnKind::Timestamptz => None,
    }
}

/// Whether the column says all that the value says; if not, the event is kept whole beside it. A
/// number in a column of text does.
#[inline]
pub(super) fn is_kept(column: usize, value: JsonValue<'_>) -> bool {
    match (column, KINDS[column]) {
        (names::DATA, _) => true,
        (names::BEFORE | names::AFTER | names::META, _) => value.kind == JsonKind::Object,
        (names::PATCH, _) => matches!(value.kind, JsonKind::Array | JsonKind::Object),
        (_, ColumnKind::String) => {
            matches!(value.kind, JsonKind::Plain | JsonKind::Escaped | JsonKind::Number)
        }
        (_, ColumnKind::Boolean) => value.kind == JsonKind::Bool,
        (_, ColumnKind::Double) => value.kind == JsonKind::Number && has_all_digits(value.raw),
        (_, ColumnKind::Long | ColumnKind::Int) => value.kind == JsonKind::Number,
        (_, ColumnKind::Timestamptz) => false,
    }
}

/// A text that is not empty, or a number: what may name an event or a batch.
pub(crate) fn identifier(value: JsonValue<'_>) -> Option<Cow<'_, str>> {
    match value.kind {
        JsonKind::Plain | JsonKind::Escaped if value.has_lone_surrogate() => None,
        JsonKind::Plain | JsonKind::Escaped => value.text().filter(|text| !text.is_empty()),
        JsonKind::Number => Some(digest::name(value.raw)),
        JsonKind::Null | JsonKind::Bool | JsonKind::Array | JsonKind::Object => None,
    }
}

/// The letter of a change.
pub(super) fn op(text: &str) -> Option<&'static str> {
    Some(match text {
        "c" | "C" | "i" | "I" => "c",
        "u" | "U" => "u",
        "d" | "D" => "d",
        "r" | "R" => "r",
        _ => match text.to_ascii_lowercase().as_str() {
            "create" | "created" | "insert" | "inserted" => "c",
            "update" | "updated" | "replace" | "replaced" | "upsert" => "u",
            "delete" | "deleted" | "remove" | "removed" => "d",
            "read" | "snapshot" => "r",
            _ => return None,
        },
    })
}

/// An integer, also written as `12.0`, `1e3` or as text.
fn long(value: JsonValue<'_>) -> Option<i64> {
    match value.kind {
        JsonKind::Number => {
            if let Ok(whole) = value.raw.parse() {
                return Some(whole);
            }
            let number: f64 = value.raw.parse().ok()?;
            // Beyond 2^53 a double does not say which integer was meant.
            (number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0)
                .then_some(number as i64)
        }
        JsonKind::Plain => json::one_value(&value.raw[1..value.raw.len() - 1])
            .filter(|inner| inner.kind == JsonKind::Number)
            .and_then(|inner| inner.raw.parse().ok()),
        JsonKind::Null
        | JsonKind::Bool
        | JsonKind::Escaped
        | JsonKind::Array
        | JsonKind::Object => None,
    }
}

/// A number, also one written as text.
fn double(value: JsonValue<'_>) -> Option<f64> {
    let number = match value.kind {
        JsonKind::Number => value,
        JsonKind::Plain => json::one_value(&value.raw[1..value.raw.len() - 1])
            .filter(|inner| inner.kind == JsonKind::Number)?,
        JsonKind::Null
        | JsonKind::Bool
        | JsonKind::Escaped
        | JsonKind::Array
        | JsonKind::Object => return None,
    };
    number.raw.parse().ok().filter(|number: &f64| number.is_finite())
}

/// Most digits that every double gives back as they were written.
const DOUBLE_DIGITS: usize = 15;

/// Whether a double has all digits of this number.
fn has_all_digits(number: &str) -> bool {
    if number.len() <= DOUBLE_DIGITS {
        return true;
    }
    let digits = |text: &str| {
        let mantissa = text.split(['e', 'E']).next().unwrap_or("");
        let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
        digits.trim_matches('0').to_owned()
    };
    let Ok(double) = number.parse::<f64>() else { return false };
    digits(number) == digits(&format!("{double:e}"))
}

/// True or false, also as a number or as text.
fn flag(value: JsonValue<'_>) -> Option<bool> {
    match value.kind {
        JsonKind::Bool => Some(value.raw == "true"),
        JsonKind::Number => match value.raw {
            "1" => Some(true),
            "0" => Some(false),
            _ => None,
        },
        JsonKind::Plain => match &value.raw[1..value.raw.len() - 1] {
            text if text.eq_ignore_ascii_case("true") => Some(true),
            text if text.eq_ignore_ascii_case("false") => Some(false),
            _ => None,
        },
        JsonKind::Null | JsonKind::Escaped | JsonKind::Array | JsonKind::Object => None,
    }
}

/// PostgreSQL writes a log position as two hexadecimal halves: `16/B374D848`.
fn postgres_lsn(value: JsonValue<'_>) -> Option<i64> {
    let text = value.text()?;
    let (high, low) = text.split_once('/')?;
    let half = |text: &str| {
        let digits = (1..=8).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
        digits.then(|| i64::from_str_radix(text, 16).ok()).flatten()
    };
    half(high)?.checked_shl(32)?.checked_add(half(low)?).filter(|lsn| *lsn >= 0)
}
