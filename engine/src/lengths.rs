//! `varchar(n)` and `char(n)`: texts of at most so many characters.
//!
//! The planner passes over the length of a type (DataFusion 54); here a cast to it cuts the text, as the
//! standard says. Blanks at the end of a `char(n)` mean nothing, so there are none: it is not filled up.

use crate::template::fill;
use datafusion::sql::sqlparser::ast::{
    ArrayElemTypeDef, CastKind, CharacterLength, DataType, Expr, TypedString, Value,
};
use std::ops::ControlFlow;

/// What a type of texts says of their length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextLength {
    characters: u64,
    is_filled: bool,
}

/// The length that a type has, also as the type of a list's elements.
#[must_use]
pub fn of(kind: &DataType) -> Option<TextLength> {
    let (length, is_filled) = match kind {
        DataType::Character(length) | DataType::Char(length) => (length, true),
        DataType::CharacterVarying(length)
        | DataType::CharVarying(length)
        | DataType::Varchar(length)
        | DataType::Nvarchar(length) => (length, false),
        DataType::Array(
            ArrayElemTypeDef::SquareBracket(inner, _)
            | ArrayElemTypeDef::AngleBracket(inner)
            | ArrayElemTypeDef::Parenthesis(inner),
        ) => return of(inner),
        _ => return None,
    };
    let characters = match length {
        Some(CharacterLength::IntegerLength { length, .. }) => *length,
        None if is_filled => 1,
        Some(CharacterLength::Max) | None => return None,
    };
    Some(TextLength { characters, is_filled })
}

/// The cast to such a type as a cast to a text of any length that is cut.
///
/// # Errors
/// Breaks with the reason where it cannot be cut.
pub fn shortened(expr: &Expr) -> ControlFlow<String, Expr> {
    let (inner, data_type, kind) = match expr {
        Expr::Cast { expr, data_type, kind, .. } => (expr.as_ref().clone(), data_type, kind),
        Expr::TypedString(TypedString { value, data_type, .. }) => {
            (Expr::Value(value.clone()), data_type, &CastKind::Cast)
        }
        other => return ControlFlow::Continue(other.clone()),
    };
    let Some(TextLength { characters, is_filled }) = of(data_type) else {
        return ControlFlow::Continue(expr.clone());
    };
    if matches!(data_type, DataType::Array(_)) {
        let text = "a length in the type of a list's elements is not supported here; leave it out";
        return ControlFlow::Break(text.to_owned());
    }
    let length = Expr::value(Value::Number(characters.to_string(), false));
    let text = match (kind, is_filled) {
        (CastKind::Cast | CastKind::DoubleColon, false) => "left(CAST(__x AS VARCHAR), __n)",
        (CastKind::Cast | CastKind::DoubleColon, true) => "rtrim(left(CAST(__x AS VARCHAR), __n))",
        (CastKind::TryCast | CastKind::SafeCast, false) => "left(TRY_CAST(__x AS VARCHAR), __n)",
        (CastKind::TryCast | CastKind::SafeCast, true) => {
            "rtrim(left(TRY_CAST(__x AS VARCHAR), __n))"
        }
    };
    ControlFlow::Continue(fill(text, &[("__x", &inner), ("__n", &length)], None))
}
