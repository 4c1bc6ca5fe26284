//! What the typed columns of documents have.
//!
//! A value that does not fit its column is null there and counted. The document has it all the same.

use crate::table::{
    promoted::json::{boolean_of, double_of, long_of, members_of, text_of},
    typed_columns::{TypedColumns, TypedKind, TypedMember, UTC},
};
use arrow::{
    array::{
        Array, ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array,
        Int32Array, Int64Array, StringViewArray, StructArray, TimestampMicrosecondArray,
    },
    error::ArrowError,
};
use chrono::{DateTime, Datelike, NaiveDate};
use serde_json::value::RawValue;
use std::{collections::HashMap, ops::RangeInclusive, sync::Arc};
use uuid::Uuid;

/// What every engine can read: 0001-01-01T00:00:00Z to 9999-12-31T23:59:59.999999Z.
const READABLE_US: RangeInclusive<i64> = -62_135_596_800_000_000..=253_402_300_799_999_999;
/// Day 1970-01-01, counted from 0001-01-01, which is day 1.
const EPOCH_DAY: i32 = 719_163;
/// How long a day is as JSON Schema has it.
const DAY_LENGTH: usize = 10;
/// How long a UUID is as JSON Schema has it.
const UUID_LENGTH: usize = 36;

/// What a row has for a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DocumentForm {
    Nothing,
    Object,
    /// A document without members.
    Other,
}

impl TypedColumns {
    /// The typed columns of these documents, as a struct with [`TypedColumns::fields`].
    ///
    /// # Errors
    /// Arrow's, for columns that do not make a struct.
    pub fn values(&self, docs: &StringViewArray) -> Result<StructArray, ArrowError> {
        let width = self.columns.len();
        let places = self.columns.iter().enumerate();
        let places: HashMap<String, usize> =
            places.map(|(at, column)| (column.of.member.clone(), at)).collect();
        let mut forms = Vec::with_capacity(docs.len());
        let mut found: Vec<Option<&RawValue>> = Vec::with_capacity(docs.len() * width);
        for doc in docs {
            let whole = doc.and_then(|doc| serde_json::from_str::<&RawValue>(doc).ok());
            let members = whole.and_then(|whole| members_of(whole, &places));
            forms.push(match (doc, &members) {
                (None, _) => DocumentForm::Nothing,
                (Some(_), Some(_)) => DocumentForm::Object,
                (Some(_), None) => DocumentForm::Other,
            });
            match members {
                Some(members) => found.extend(members),
                None => found.resize(found.len() + width, None),
            }
        }
        let others = forms.iter().map(|form| i32::from(*form == DocumentForm::Other));
        let mut misfits: Vec<i32> = others.collect();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(width + 1);
        for (at, column) in self.columns.iter().enumerate() {
            let values = column.of.kind.values(found.iter().skip(at).step_by(width).copied())?;
            for (row, count) in misfits.iter_mut().enumerate() {
                let is_null = forms[row] == DocumentForm::Object && values.is_null(row);
                if is_null && column.of.is_misfit(found[row * width + at]) {
                    *count += 1;
                }
            }
            columns.push(values);
        }
        columns.insert(0, Arc::new(Int32Array::from(misfits)));
        StructArray::try_new(self.fields(), columns, None)
    }
}

impl TypedMember {
    /// Whether what is there is not wanted, where the column has no value of it.
    fn is_misfit(&self, found: Option<&RawValue>) -> bool {
        match found {
            None => self.required,
            Some(value) if value.get() == "null" => !self.nullable,
            Some(_) => true,
        }
    }
}

impl TypedKind {
    /// The values of this kind among what was found; null in the place of everything else.
    fn values<'a>(
        self,
        found: impl Iterator<Item = Option<&'a RawValue>>,
    ) -> Result<ArrayRef, ArrowError> {
        Ok(match self {
            Self::Boolean => {
                Arc::new(found.map(|value| boolean_of(value?)).collect::<BooleanArray>())
            }
            Self::Int => {
                let numbers = found.map(|value| i32::try_from(long_of(value?)?).ok());
                Arc::new(numbers.collect::<Int32Array>())
            }
            Self::Long => Arc::new(found.map(|value| long_of(value?)).collect::<Int64Array>()),
            Self::Float => Arc::new(found.map(|value| float_of(value?)).collect::<Float32Array>()),
            Self::Double => {
                // SQL has one zero where it reads files, and some engines tell two apart.
                let numbers = found.map(|value| Some(double_of(value?)? + 0.0));
                Arc::new(numbers.collect::<Float64Array>())
            }
            Self::Decimal { precision, scale } => {
                let numbers = found.map(|value| decimal_of(value?, precision, scale));
                let numbers = numbers.collect::<Decimal128Array>();
                Arc::new(numbers.with_precision_and_scale(precision, scale.cast_signed())?)
            }
            Self::String => {
                Arc::new(found.map(|value| text_of(value?)).collect::<StringViewArray>())
            }
            Self::Uuid => Arc::new(found.map(|value| uuid_of(value?)).collect::<StringViewArray>()),
            Self::Date => Arc::new(found.map(|value| day_of(value?)).collect::<Date32Array>()),
            Self::Timestamptz => {
                let times = found.map(|value| time_of(value?));
                let times = times.collect::<TimestampMicrosecondArray>();
                Arc::new(times.with_timezone(UTC))
            }
            Self::Object => {
                let texts = found.map(|value| json_of(value?, '{'));
                Arc::new(texts.collect::<StringViewArray>())
            }
            Self::Array => {
                let texts = found.map(|value| json_of(value?, '['));
                Arc::new(texts.collect::<StringViewArray>())
            }
        })
    }
}

/// Any number, as the nearest float of 32 bits.
fn float_of(value: &RawValue) -> Option<f32> {
    let number = value.get().parse::<f32>().ok().filter(|number| number.is_finite())?;
    Some(number + 0.0)
}

/// The text of an object or an array, by its first sign.
fn json_of(value: &RawValue, first: char) -> Option<&str> {
    Some(value.get()).filter(|text| text.starts_with(first))
}

fn uuid_of(value: &RawValue) -> Option<String> {
    let text = text_of(value).filter(|text| text.len() == UUID_LENGTH)?;
    Uuid::try_parse(&text).ok().map(|uuid| uuid.hyphenated().to_string())
}

/// Days since 1970-01-01.
fn day_of(value: &RawValue) -> Option<i32> {
    let text = text_of(value)?;
    // The parser takes spaces and signs before numbers.
    let is_of_form = |(at, sign): (usize, u8)| match at {
        4 | 7 => sign == b'-',
        _ => sign.is_ascii_digit(),
    };
    if text.len() != DAY_LENGTH || !text.bytes().enumerate().all(is_of_form) {
        return None;
    }
    let day = NaiveDate::parse_from_str(&text, "%Y-%m-%d").ok()?.num_days_from_ce();
    // Some engines have no year 0.
    (1 <= day).then_some(day - EPOCH_DAY)
}

/// Microseconds since 1970 UTC.
fn time_of(value: &RawValue) -> Option<i64> {
    let time = DateTime::parse_from_rfc3339(&text_of(value)?).ok()?.timestamp_micros();
    READABLE_US.contains(&time).then_some(time)
}

/// A JSON number, or a text with one, times ten to the power of `scale`; none where that is no whole number or has
/// more than `precision` digits.
fn decimal_of(value: &RawValue, precision: u8, scale: u8) -> Option<i128> {
    let text = text_of(value);
    let written = text.as_deref().unwrap_or_else(|| value.get());
    let (sign, rest) = match written.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, written),
    };
    let (digits, exponent) = match rest.split_once(['e', 'E']) {
        Some((digits, exponent)) => (digits, Some(exponent)),
        None => (rest, None),
    };
    let (whole, fraction) = match digits.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (digits, None),
    };
    // A text is held to the form of a JSON number, too.
    let power = exponent.map(|power| power.strip_prefix(['+', '-']).unwrap_or(power));
    let is_of_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let mut parts = [Some(whole), fraction, power].into_iter().flatten();
    if !parts.all(is_of_digits) || (1 < whole.len() && whole.starts_with('0')) {
        return None;
    }
    let fraction = fraction.unwrap_or("");
    let all = format!("{whole}{fraction}");
    let all = all.trim_start_matches('0');
    if all.is_empty() {
        // Also with an exponent beyond all numbers.
        return Some(0);
    }
    let exponent = exponent.map_or(Some(0), |power| power.parse::<i32>().ok())?;
    let behind = i64::try_from(fraction.len()).ok()?;
    let shift = i64::from(scale) + i64::from(exponent) - behind;
    let (kept, zeros) = match u32::try_from(shift) {
        Ok(zeros) => (all, zeros),
        // What is cut off has to be zeros.
        Err(_) => {
            let cut = usize::try_from(shift.checked_neg()?).ok()?;
            let (kept, lost) = all.split_at_checked(all.len().checked_sub(cut)?)?;
            if !lost.bytes().all(|digit| digit == b'0') {
                return None;
            }
            (kept, 0)
        }
    };
    let count = u64::from(zeros) + u64::try_from(kept.len()).ok()?;
    if u64::from(precision) < count {
        return None;
    }
    let number = kept.parse::<i128>().ok()?;
    Some(sign * number.checked_mul(10_i128.checked_pow(zeros)?)?)
}
