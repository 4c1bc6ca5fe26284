//! The values that a request gives for the places of its statement.

use crate::{error::SqlError, plan_limits};
use datafusion::common::ScalarValue;

/// Most values for the places of a statement.
const PARAMS_MAX: usize = 10_000;

/// Digits of the largest integer of 64 bits without a sign.
const U64_DIGITS: u8 = 20;

/// Values for `$1`, `$2`, … up to the highest; each use of one is a copy.
pub(super) fn values(
    params: &[serde_json::Value],
    uses: usize,
    highest: usize,
) -> Result<Vec<ScalarValue>, SqlError> {
    let params = params.iter().map(parameter).collect::<Result<Vec<ScalarValue>, _>>()?;
    let longest = params.iter().map(ScalarValue::size).max().unwrap_or(0);
    if PARAMS_MAX < params.len() {
        return Err(SqlError::Invalid(format!("there are more than {PARAMS_MAX} params")));
    }
    if highest < params.len() {
        return Err(SqlError::Invalid(format!(
            "params has {} values, and the statement names {highest}: write $1, $2 … for each",
            params.len()
        )));
    }
    if plan_limits::CONSTANTS_BYTES_MAX < longest.saturating_mul(uses) {
        return Err(SqlError::Invalid(format!(
            "the longest value of params has {longest} bytes, which is too long for a statement with {uses} parameters"
        )));
    }
    Ok(params)
}

/// A value for `$n`.
fn parameter(value: &serde_json::Value) -> Result<ScalarValue, SqlError> {
    match value {
        serde_json::Value::Null => Ok(ScalarValue::Null),
        serde_json::Value::Bool(value) => Ok(ScalarValue::Boolean(Some(*value))),
        serde_json::Value::Number(number) => Ok(match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => ScalarValue::Int64(Some(value)),
            (None, Some(value)) => ScalarValue::Decimal128(Some(value.into()), U64_DIGITS, 0),
            (None, None) => ScalarValue::Float64(number.as_f64()),
        }),
        serde_json::Value::String(text) => Ok(ScalarValue::Utf8(Some(text.clone()))),
        serde_json::Value::Array(_) | serde_json::Value::Object(_) => {
            Err(SqlError::Invalid("params must be texts, numbers, booleans or null".to_owned()))
        }
    }
}
