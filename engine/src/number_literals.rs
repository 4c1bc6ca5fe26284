//! Numbers that the parser reads as something else: `0b11` is 0 under the name `b11` to it, and `0x1f` a text of
//! bytes.

use crate::error::SqlError;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

/// Refuses numbers with a word behind them, and bytes that are written like a number.
///
/// # Errors
/// [`SqlError::Invalid`] says how to write it.
pub fn check(sql: &str, tokens: &[TokenWithSpan]) -> Result<(), SqlError> {
    for (token, next) in tokens.iter().zip(tokens.iter().skip(1)) {
        if let (Token::Number(number, _), Token::Word(word)) = (&token.token, &next.token)
            && word.quote_style.is_none()
        {
            return Err(SqlError::Invalid(format!(
                "`{number}{word}` is not a number; write numbers in decimal digits, and a space before a name"
            )));
        }
    }
    if tokens.iter().any(|token| is_hex_number(sql, token)) {
        return Err(SqlError::Invalid(
            "write numbers in decimal digits, and bytes as x'1F': 0x… is not a number here"
                .to_owned(),
        ));
    }
    Ok(())
}

/// Whether a token that is bytes to the parser is written like a number.
fn is_hex_number(sql: &str, token: &TokenWithSpan) -> bool {
    let Token::HexStringLiteral(_) = token.token else { return false };
    let start = token.span.start;
    let place = |at: u64| usize::try_from(at.checked_sub(1)?).ok();
    let line = place(start.line).and_then(|line| sql.split('\n').nth(line));
    let column = place(start.column);
    line.zip(column).and_then(|(line, column)| line.chars().nth(column)) == Some('0')
}
