//! Patterns of `SIMILAR TO` and `LIKE` with their escape characters.

use crate::{dialect::refuse, similar, template::fill};
use datafusion::sql::sqlparser::ast::{Expr, Value, ValueWithSpan};
use std::ops::ControlFlow;

/// The comparison with a regular expression that is the same as `SIMILAR TO`.
pub(super) fn similar_to(
    negated: bool,
    expr: &Expr,
    pattern: &Expr,
    escape: Option<&ValueWithSpan>,
) -> ControlFlow<String, Expr> {
    let text = |value: &ValueWithSpan| match &value.value {
        Value::SingleQuotedString(text) => Some(text.clone()),
        _ => None,
    };
    let Expr::Value(literal) = pattern else {
        return ControlFlow::Break(
            "SIMILAR TO is supported for a constant pattern only".to_owned(),
        );
    };
    let escape = match escape.map(text) {
        None => Some('\\'),
        Some(Some(escape)) if escape.is_empty() => None,
        Some(Some(escape)) if escape.chars().count() == 1 => escape.chars().next(),
        Some(_) => return ControlFlow::Break("ESCAPE takes one character in quotes".to_owned()),
    };
    let Some(regex) = text(literal).and_then(|pattern| similar::to_regex(&pattern, escape)) else {
        return ControlFlow::Break(format!(
            "{literal} is not a SIMILAR TO pattern: its brackets must be closed, and it must not end with its ESCAPE character"
        ));
    };
    let regex = Expr::value(Value::SingleQuotedString(regex));
    let form = if negated { "(__x !~ __p)" } else { "(__x ~ __p)" };
    ControlFlow::Continue(fill(form, &[("__x", expr), ("__p", &regex)], None))
}

/// Writes a pattern for the one escape character that the engine knows, the backslash.
pub(super) fn escaped(pattern: &mut Expr, escape: &Value) -> ControlFlow<String> {
    let Value::SingleQuotedString(escape) = escape else {
        return refuse("ESCAPE takes one character in quotes");
    };
    let mut letters = escape.chars();
    let (escape, more) = (letters.next(), letters.next());
    let Expr::Value(literal) = pattern else {
        return refuse("ESCAPE is supported for a constant pattern only");
    };
    let Value::SingleQuotedString(text) = &mut literal.value else {
        return refuse("ESCAPE is supported for a constant pattern only");
    };
    if more.is_some() {
        return refuse("ESCAPE takes one character in quotes");
    }
    let mut made = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if Some(letter) == escape {
            let Some(next) = letters.next() else {
                return refuse("a LIKE pattern must not end with its ESCAPE character");
            };
            made.push('\\');
            made.push(next);
        } else {
            if letter == '\\' {
                made.push('\\');
            }
            made.push(letter);
        }
    }
    *text = made;
    ControlFlow::Continue(())
}
