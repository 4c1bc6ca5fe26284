//! One value for one column: which forms it may have. Leaves the column's choice to `normalize`.

use crate::event::{
    json::{self, Kind, Value},
    names::{self, KINDS},
};
use icecore_schemas::columns::ColumnKind;
use std::borrow::Cow;

/// A value that has its column's type.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell<'a> {
    Text(Cow<'a, str>),
    /// For columns of 64 and of 32 bits; the latter's range is checked.
    Long(i64),
    Double(f64),
    Bool(bool),
}

/// The value as the column holds it; none when it does not fit. Null fits nothing.
#[inline]
pub(crate) fn convert<'a>(column: usize, value: Value<'a>) -> Option<Cell<'a>> {
    let raw = || Some(Cell::Text(Cow::Borrowed(value.raw)));
    match column {
        names::DATA if value.kind != Kind::Null => return raw(),
        names::BEFORE | names::AFTER | names::META => {
            return if value.kind == Kind::Object { raw() } else { None };
        }
        names::OP => return Some(Cell::Text(Cow::Borrowed(op(&value.text()?)?))),
        names::TYPE | names::NS => return value.text().map(Cell::Text),
        names::LSN => return long(value).or_else(|| postgres_lsn(value)).map(Cell::Long),
        _ => {}
    }
    match KINDS[column] {
        ColumnKind::String => match value.kind {
            Kind::Plain | Kind::Escaped => value.text().map(Cell::Text),
            Kind::Number => raw(),
            Kind::Null | Kind::Bool | Kind::Array | Kind::Object => None,
        },
        ColumnKind::Long => long(value).map(Cell::Long),
        ColumnKind::Int => {
            long(value).filter(|number| i32::try_from(*number).is_ok()).map(Cell::Long)
        }
        ColumnKind::Double => match value.kind {
            Kind::Number => {
                value.raw.parse().ok().filter(|n: &f64| n.is_finite()).map(Cell::Double)
            }
            _ => None,
        },
        ColumnKind::Boolean => (value.kind == Kind::Bool).then(|| Cell::Bool(value.raw == "true")),
        ColumnKind::Timestamptz => None,
    }
}

/// What would fit, for a message.
pub(crate) fn wanted(column: usize) -> &'static str {
    match column {
        names::BEFORE | names::AFTER => "an object or null",
        names::META => "an object",
        names::OP => "one of c, u, d, r, insert, update, delete, read",
        names::ID => "a string that is not empty, or a number",
        _ => match KINDS[column] {
            ColumnKind::String => "a string or a number",
            ColumnKind::Long => "an integer of 64 bits",
            ColumnKind::Int => "an integer of 32 bits",
            ColumnKind::Double => "a number",
            ColumnKind::Boolean => "true or false",
            ColumnKind::Timestamptz => "a time",
        },
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
fn long(value: Value<'_>) -> Option<i64> {
    match value.kind {
        Kind::Number => {
            if let Ok(whole) = value.raw.parse() {
                return Some(whole);
            }
            let number: f64 = value.raw.parse().ok()?;
            // Beyond 2^53 a double does not say which integer was meant.
            (number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0)
                .then_some(number as i64)
        }
        Kind::Plain => json::one_value(&value.raw[1..value.raw.len() - 1])
            .filter(|inner| inner.kind == Kind::Number)
            .and_then(|inner| inner.raw.parse().ok()),
        Kind::Null | Kind::Bool | Kind::Escaped | Kind::Array | Kind::Object => None,
    }
}

/// PostgreSQL writes a log position as two hexadecimal halves: `16/B374D848`.
fn postgres_lsn(value: Value<'_>) -> Option<i64> {
    let text = value.text()?;
    let (high, low) = text.split_once('/')?;
    let half = |text: &str| {
        let digits = (1..=8).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
        digits.then(|| i64::from_str_radix(text, 16).ok()).flatten()
    };
    half(high)?.checked_shl(32)?.checked_add(half(low)?).filter(|lsn| *lsn >= 0)
}
