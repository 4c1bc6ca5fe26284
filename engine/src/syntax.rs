//! Where a statement stops to be SQL, as a line and a column.

use crate::{error::SqlError, guard::DEPTH_MAX};
use datafusion::sql::sqlparser::{parser::ParserError, tokenizer::TokenizerError};

/// What the parser puts before the place, behind its message.
const PLACE: &str = " at Line: ";

/// The error for a statement whose text is no token.
#[must_use]
pub fn of_token(cause: &TokenizerError) -> SqlError {
    SqlError::Syntax {
        reason: cause.message.clone(),
        line: cause.location.line,
        column: cause.location.column,
    }
}

/// The error for a statement whose tokens are no statement.
#[must_use]
pub fn of_statement(cause: &ParserError, sql: &str) -> SqlError {
    let text = match cause {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text,
        ParserError::RecursionLimitExceeded => {
            return SqlError::Invalid(format!(
                "the statement does not parse: it is nested more than {DEPTH_MAX} levels deep"
            ));
        }
    };
    let (reason, (line, column)) = place(text).unwrap_or_else(|| (text, end(sql)));
    SqlError::Syntax { reason: reason.to_owned(), line, column }
}

/// Message and place of an error of the parser, which has them in one text.
fn place(text: &str) -> Option<(&str, (u64, u64))> {
    let (reason, place) = text.rsplit_once(PLACE)?;
    let (line, column) = place.split_once(", Column: ")?;
    Some((reason, (line.parse().ok()?, column.parse().ok()?)))
}

/// The place behind the last letter: where the parser finds an end, it names no place.
fn end(sql: &str) -> (u64, u64) {
    let sql = sql.trim_end();
    let lines = sql.split('\n').count();
    let last = sql.rsplit('\n').next().unwrap_or_default();
    (lines as u64, last.chars().count() as u64 + 1)
}

#[cfg(test)]
mod tests;
