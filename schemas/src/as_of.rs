//! A point in a table's history, as requests name it.

use serde_json::Value;
use std::str::FromStr;

/// A point in a table's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AsOf {
    /// This snapshot.
    Snapshot(i64),
    /// The snapshot that was current at this time, ms since 1970.
    Time(i64),
    /// The head of a branch, or a tag.
    Reference(String),
}

/// Why a value is no point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "as_of must be a snapshot id, an RFC 3339 time such as 2026-11-20T12:00:00Z, or the name of a branch or tag"
)]
pub struct InvalidAsOf;

impl AsOf {
    /// Reads a snapshot id (number or text), an RFC 3339 time, or the name of a branch or tag. A text
    /// that is a number or a time is never looked for among names.
    ///
    /// # Errors
    /// [`InvalidAsOf`]
    pub fn parse(value: &Value) -> Result<Self, InvalidAsOf> {
        match value {
            Value::Number(number) => number.as_i64().map(Self::Snapshot).ok_or(InvalidAsOf),
            Value::String(text) => text.parse(),
            _ => Err(InvalidAsOf),
        }
    }
}

impl FromStr for AsOf {
    type Err = InvalidAsOf;

    fn from_str(text: &str) -> Result<Self, InvalidAsOf> {
        match (text.parse::<i64>(), chrono::DateTime::parse_from_rfc3339(text)) {
            // `007` and `+7` are names.
            (Ok(snapshot), _) if snapshot.to_string() == text => Ok(Self::Snapshot(snapshot)),
            (_, Ok(time)) => Ok(Self::Time(time.timestamp_millis())),
            _ if text.is_empty() => Err(InvalidAsOf),
            _ => Ok(Self::Reference(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests;
