//! UUIDs, which SQL shows as text: `123e4567-e89b-12d3-a456-426614174000`.

use crate::functions::returned;
use arrow::{
    array::{Array, ArrayRef, AsArray, StringViewBuilder},
    compute::cast,
    datatypes::DataType,
};
use datafusion::{
    common::exec_err,
    error::DataFusionError,
    logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf},
};
use std::{fmt::Write, sync::Arc};

/// What `CAST(x AS uuid)` is planned as.
pub const FUNCTION: &str = "to_uuid";

/// Bytes of a UUID.
const BYTES: usize = 16;
/// Where hyphens stand, in bytes.
const HYPHENS: [usize; 4] = [4, 6, 8, 10];

/// UUIDs of 16 bytes as text of the type `target`.
///
/// # Errors
/// The array has no values of 16 bytes.
pub fn to_text(array: &ArrayRef, target: &DataType) -> Result<ArrayRef, DataFusionError> {
    let bytes = cast(array, &DataType::BinaryView)?;
    let mut texts = StringViewBuilder::with_capacity(array.len());
    for value in bytes.as_binary_view() {
        match value {
            None => texts.append_null(),
            Some(value) if value.len() == BYTES => texts.append_value(hyphenated(value)),
            Some(value) => return exec_err!("a uuid has {} bytes", value.len()),
        }
    }
    Ok(cast(&texts.finish(), target)?)
}

fn hyphenated(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if HYPHENS.contains(&at) {
            text.push('-');
        }
        write!(text, "{byte:02x}").expect("writing to memory does not fail");
    }
    text
}

/// The UUID that a text means, in the one form that SQL shows.
fn canonical(written: &str) -> Option<String> {
    let inner = written.trim();
    let inner = inner.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(inner);
    let digits: String = inner.chars().filter(|c| *c != '-').collect();
    let is_uuid = digits.len() == 2 * BYTES && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let number = u128::from_str_radix(&digits, 16).ok().filter(|_| is_uuid)?;
    Some(hyphenated(&number.to_be_bytes()))
}

/// The function behind the cast.
#[must_use]
pub fn function() -> ScalarUDF {
    let kind = || DataType::Utf8View;
    let body = |arguments: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(arguments)?;
        let mut texts = StringViewBuilder::with_capacity(arrays[0].len());
        for value in arrays[0].as_string_view() {
            match value.map(|value| (value, canonical(value))) {
                None => texts.append_null(),
                Some((_, Some(uuid))) => texts.append_value(uuid),
                Some((value, None)) => return exec_err!("`{value}` is not a uuid"),
            }
        }
        returned(arguments, Arc::new(texts.finish()))
    };
    create_udf(FUNCTION, vec![kind()], kind(), Volatility::Immutable, Arc::new(body))
}
