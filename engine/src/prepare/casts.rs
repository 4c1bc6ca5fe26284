//! Casts that Arrow makes in a way of its own: text without a digit as the decimal 0, a number in text as
//! an interval of months or as microseconds of a day, and numbers as microseconds since 1970, whether
//! there is such a day or not. And casts of decimals that DataFusion takes for none.

use crate::{functions::returned, same_type::SameTypeKind};
use arrow::{
    array::{AsArray, StringViewBuilder},
    datatypes::{DataType, FieldRef},
    error::ArrowError,
};
use datafusion::{
    common::{DFSchema, arrow_err, plan_err, tree_node::Transformed},
    error::DataFusionError,
    logical_expr::{
        Cast, ColumnarValue, Expr, ExprSchemable, ScalarUDF, TryCast, Volatility, create_udf,
    },
};
use std::{borrow::Cow, sync::Arc};

/// What text is cast to.
#[derive(Clone, Copy, Debug)]
enum TextTarget {
    Decimal,
    Interval,
    Time,
}

impl TextTarget {
    fn of(target: &DataType) -> Option<Self> {
        match target {
            DataType::Decimal32(..)
            | DataType::Decimal64(..)
            | DataType::Decimal128(..)
            | DataType::Decimal256(..) => Some(Self::Decimal),
            DataType::Interval(_) => Some(Self::Interval),
            DataType::Time32(_) | DataType::Time64(_) => Some(Self::Time),
            _ => None,
        }
    }

    /// The text that Arrow reads as PostgreSQL reads this one; none for one that is no such value.
    fn read(self, text: &str) -> Option<Cow<'_, str>> {
        match self {
            Self::Decimal => {
                text.contains(|c: char| c.is_ascii_digit()).then_some(Cow::Borrowed(text))
            }
            // A number alone is of seconds.
            Self::Interval if text.trim().parse::<f64>().is_ok_and(f64::is_finite) => {
                Some(Cow::Owned(format!("{} seconds", text.trim().trim_start_matches('+'))))
            }
            Self::Interval => Some(Cow::Borrowed(text)),
            Self::Time => text.contains(':').then_some(Cow::Borrowed(text)),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Decimal => "decimal",
            Self::Interval => "interval",
            Self::Time => "time",
        }
    }
}

/// Puts a reading of the text before its cast.
///
/// # Errors
/// A cast of a number to a time.
pub fn of_expr(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>, DataFusionError> {
    let (text, field, is_try) = match &expr {
        Expr::Cast(Cast { expr, field }) => (expr, field, false),
        Expr::TryCast(TryCast { expr, field }) => (expr, field, true),
        _ => return Ok(Transformed::no(expr)),
    };
    // A place for a value that is not there yet has no type.
    let Ok(from) = text.get_type(schema) else { return Ok(Transformed::no(expr)) };
    if from.is_numeric() && is_of_time(field.data_type()) {
        return plan_err!(
            "a number cannot be cast to a date or a time; write to_timestamp(seconds), or cast a text"
        );
    }
    if drops_digits(&from, field.data_type()) {
        // DataFusion 54 takes such a cast away where its value is compared.
        return Ok(Transformed::yes(SameTypeKind::Opaque.call(expr)));
    }
    let Some(target) = TextTarget::of(field.data_type()).filter(|_| from.is_string()) else {
        return Ok(Transformed::no(expr));
    };
    let text = Box::new(reading(target, is_try).call(vec![text.as_ref().clone()]));
    Ok(Transformed::yes(cast(text, Arc::clone(field), is_try)))
}

fn cast(expr: Box<Expr>, field: FieldRef, is_try: bool) -> Expr {
    match is_try {
        true => Expr::TryCast(TryCast { expr, field }),
        false => Expr::Cast(Cast { expr, field }),
    }
}

/// Whether several decimals become one value.
fn drops_digits(from: &DataType, to: &DataType) -> bool {
    let scale_of = |found: &DataType| match found {
        DataType::Decimal32(_, scale)
        | DataType::Decimal64(_, scale)
        | DataType::Decimal128(_, scale)
        | DataType::Decimal256(_, scale) => Some(*scale),
        integer if integer.is_integer() => Some(0),
        _ => None,
    };
    scale_of(from).zip(scale_of(to)).is_some_and(|(from, to)| to < from)
}

/// Whether values of a type are dates, times, or both.
#[must_use]
pub fn is_of_time(kind: &DataType) -> bool {
    matches!(
        kind,
        DataType::Date32
            | DataType::Date64
            | DataType::Time32(_)
            | DataType::Time64(_)
            | DataType::Timestamp(..)
    )
}

/// The function that reads text; what is no such value fails, or is NULL where the cast says so.
fn reading(target: TextTarget, is_try: bool) -> ScalarUDF {
    let body = move |arguments: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(arguments)?;
        let mut texts = StringViewBuilder::with_capacity(arrays[0].len());
        for value in arrays[0].as_string_view() {
            match value.map(|value| (value, target.read(value))) {
                None => texts.append_null(),
                Some((_, Some(text))) => texts.append_value(text),
                Some((_, None)) if is_try => texts.append_null(),
                Some((value, None)) => {
                    let text = format!("Cannot cast string '{value}' to a {}", target.name());
                    return arrow_err!(ArrowError::CastError(text));
                }
            }
        }
        returned(arguments, Arc::new(texts.finish()))
    };
    let name = format!("text_of_{}{}", target.name(), if is_try { "_or_null" } else { "" });
    let kind = DataType::Utf8View;
    create_udf(&name, vec![kind.clone()], kind, Volatility::Immutable, Arc::new(body))
}
