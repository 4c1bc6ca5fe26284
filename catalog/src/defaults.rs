//! Columns' default values in what clients send, tried before anything is made of them.
//!
//! The library that reads and writes them panics on some: a time at a leap second, a decimal that
//! is no number. Such a panic would end the process, so it is caught here, where nothing is held
//! yet.

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
    let names_one = |member: &str| json.windows(member.len()).any(|part| part == member.as_bytes());
    if !MEMBERS.into_iter().any(names_one) {
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
        read.map(|field| serde_json::to_vec(&field))
    };
    let tried =
        (!has_odd_decimal(&column.to_string())).then(|| catch_unwind(AssertUnwindSafe(again)));
    match tried {
        Some(Ok(Ok(Ok(_)) | Err(_))) => Ok(()),
        None | Some(Ok(Ok(Err(_))) | Err(_)) => Err(format!(
            "the default value of column {} cannot be stored; give another one",
            column.get("name").unwrap_or(&Value::Null)
        )),
    }
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
