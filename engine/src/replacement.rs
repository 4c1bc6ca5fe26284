//! `regexp_replace` and `replace`, as in PostgreSQL.
//!
//! In what takes the place of a match, the engine reads `$1` as a group too, and `\0` and `\12`, which are none in
//! PostgreSQL, and does not know `\&`, the whole match. And it finds an empty text before each character.

use crate::{functions::returned, template::fill};
use arrow::{
    array::{Array, AsArray, StringViewBuilder},
    datatypes::DataType,
};
use datafusion::{
    common::exec_err,
    error::DataFusionError,
    logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf},
    sql::sqlparser::ast::{Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments},
};
use std::sync::Arc;

/// The function that writes a replacement as the engine reads it.
const FUNCTION: &str = "replacement_of";

/// The functions of this module.
#[must_use]
pub fn all() -> [ScalarUDF; 2] {
    let text = || DataType::Utf8View;
    let (three, stays) = (vec![text(), text(), text()], Volatility::Immutable);
    [
        create_udf(FUNCTION, vec![text()], text(), stays, Arc::new(written)),
        create_udf("replace", three, text(), stays, Arc::new(replaced)),
    ]
}

fn replaced(arguments: &[ColumnarValue]) -> Result<ColumnarValue, DataFusionError> {
    let arrays = ColumnarValue::values_to_arrays(arguments)?;
    let [texts, from, to] = [0, 1, 2].map(|at| arrays[at].as_string_view());
    let mut made = StringViewBuilder::with_capacity(texts.len());
    for ((text, from), to) in texts.iter().zip(from).zip(to) {
        match (text, from, to) {
            (Some(text), Some(""), Some(_)) => made.append_value(text),
            (Some(text), Some(from), Some(to)) => made.append_value(text.replace(from, to)),
            _ => made.append_null(),
        }
    }
    returned(arguments, Arc::new(made.finish()))
}

/// A call of `regexp_replace` whose replacement is `made`, read as PostgreSQL reads it.
pub fn of_regex(call: &Function, made: &Expr) -> Option<Expr> {
    let mut call = call.clone();
    let FunctionArguments::List(list) = &mut call.args else { return None };
    let read = fill(&format!("{FUNCTION}(__x)"), &[("__x", made)], None);
    list.args[2] = FunctionArg::Unnamed(FunctionArgExpr::Expr(read));
    Some(Expr::Function(call))
}

fn written(arguments: &[ColumnarValue]) -> Result<ColumnarValue, DataFusionError> {
    let arrays = ColumnarValue::values_to_arrays(arguments)?;
    let mut texts = StringViewBuilder::with_capacity(arrays[0].len());
    for text in arrays[0].as_string_view() {
        texts.append_option(text.map(of_text).transpose()?);
    }
    returned(arguments, Arc::new(texts.finish()))
}

fn of_text(text: &str) -> Result<String, DataFusionError> {
    let mut made = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match (letter, letters.peek().copied()) {
            ('$', _) => made.push_str("$$"),
            ('\\', Some(group @ '1'..='9')) => {
                letters.next();
                made.push_str(&format!("${{{group}}}"));
            }
            ('\\', Some('&')) => {
                letters.next();
                made.push_str("${0}");
            }
            ('\\', next) => {
                if next == Some('\\') {
                    letters.next();
                }
                // The engine takes a backslash before a digit for a group, however it is written.
                if letters.peek().is_some_and(char::is_ascii_digit) {
                    return exec_err!(
                        "a replacement cannot have a backslash before a digit, but for the groups \\1 to \\9; \\& is the whole match"
                    );
                }
                made.push('\\');
            }
            (other, _) => made.push(other),
        }
    }
    Ok(made)
}
