//! Columns' default values in what clients send, tried before anything is made of them.
//!
//! The library that reads and writes them panics on some: a time at a leap second, a decimal that
//! is no number. Such a panic would end the process, so it is caught here, where nothing is held
//! yet. Others it drops without a word, as it does every one of a `timestamp_ns`. The one invariant
//! here: a default that passes is in the file that is written, with the same value.

use iceberg::spec::NestedField;
use serde_json::Value;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Members of a column that hold a value of its type.
const MEMBERS: [&str; 2] = ["initial-default", "write-default"];

/// Most digits of a decimal.
const DIGITS_MAX: u32 = 38;

/// Refuses JSON in which a column has a default value that cannot be read and written again. What
/// is no JSON, and what is no column after all, is left to those who read it.
///
/// # Errors
/// What to change.
pub fn check(json: &[u8]) -> Result<(), String> {
    // Nearly no request has one, and none is worth reading twice.
    let names_one = |text: &str| MEMBERS.into_iter().any(|member| text.contains(member));
    if !std::str::from_utf8(json).is_ok_and(names_one) {
        return Ok(());
    }
    serde_json::from_slice(json).map_or(Ok(()), |value| check_value(&value))
}

fn check_value(value: &Value) -> Result<(), String> {
    match value {
        Value::Array(items) => items.iter().try_for_each(check_value),
        Value::Object(members) => {
            if MEMBERS.iter().any(|member| members.contains_key(*member)) {
                check_column(value)?;
            }
            members.values().try_for_each(check_value)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

fn check_column(column: &Value) -> Result<(), String> {
    let again = || {
        let read = serde_json::from_value::<NestedField>(column.clone());
        read.map(|field| serde_json::to_value(&field))
    };
    let tried =
        (!has_odd_decimal(&column.to_string())).then(|| catch_unwind(AssertUnwindSafe(again)));
    let lost = match tried {
        // It is no column after all.
        Some(Ok(Err(_))) => None,
        Some(Ok(Ok(Ok(back)))) => MEMBERS.into_iter().find(|member| {
            let (sent, back) = (column.get(*member), back.get(*member));
            !is_same(sent.unwrap_or(&Value::Null), back.unwrap_or(&Value::Null), &column["type"])
        }),
        None | Some(Ok(Ok(Err(_))) | Err(_)) => {
            MEMBERS.into_iter().find(|m| column.get(*m).is_some())
        }
    };
    let Some(member) = lost else { return Ok(()) };
    Err(format!(
        "the default value of column {} cannot be stored: {member} {} with the type {}; write it \
         as the specification requires for this type, or omit it (timestamp_ns and timestamptz_ns \
         cannot have one here)",
        column.get("name").unwrap_or(&Value::Null),
        column.get(member).unwrap_or(&Value::Null),
        column["type"],
    ))
}

/// Whether two texts of JSON stand for one value of a type.
fn is_same(sent: &Value, back: &Value, kind: &Value) -> bool {
    let kind = kind.as_str().unwrap_or_default();
    match (sent, back) {
        (Value::Number(sent), Value::Number(back)) if kind == "float" => {
            // It is written with all the digits of a double.
            let float = |number: &serde_json::Number| number.to_string().parse::<f32>().ok();
            float(sent).is_some_and(f32::is_finite) && float(sent) == float(back)
        }
        (Value::Number(sent), Value::Number(back)) if kind == "double" => {
            sent.as_f64() == back.as_f64()
        }
        (Value::String(sent), Value::String(back)) if kind != "string" => {
            plain(sent) == plain(back)
        }
        _ => sent == back,
    }
}

/// A text without what does not change its value: digits behind the point that are 0, the case of
/// hexadecimal digits, and which of its two names UTC has.
fn plain(text: &str) -> String {
    let text = text.to_ascii_lowercase();
    let (text, zone) = match text.strip_suffix("+00:00").or_else(|| text.strip_suffix('z')) {
        Some(text) if text.contains('t') => (text.to_owned(), "z"),
        _ => (text, ""),
    };
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => &text,
    };
    format!("{text}{zone}")
}

/// Whether a decimal has more digits than the specification allows: working one out with billions
/// of digits takes for ever.
fn has_odd_decimal(column: &str) -> bool {
    column.split("decimal(").skip(1).any(|rest| {
        let digits = rest.split(')').next().unwrap_or_default();
        let mut digits = digits.split(',').map(|number| number.trim().parse::<u32>());
        let (precision, scale) = (digits.next(), digits.next());
        !matches!((precision, scale), (Some(Ok(all)), Some(Ok(part))) if part <= all && all <= DIGITS_MAX)
    })
}

#[cfg(test)]
mod tests;
