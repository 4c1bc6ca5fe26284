//! Where the table of a version stands in a list of tokens.

use datafusion::sql::sqlparser::{
    keywords::Keyword,
    tokenizer::{Token, TokenWithSpan, Word},
};

/// The token at this place, or the first one after it that is no space.
pub(super) fn next(tokens: &[TokenWithSpan], at: usize) -> Option<usize> {
    (at..tokens.len()).find(|at| !is_space(&tokens[*at].token))
}

/// The last token before this place that is no space.
fn before(tokens: &[TokenWithSpan], at: usize) -> Option<usize> {
    (0..at).rev().find(|at| !is_space(&tokens[*at].token))
}

fn is_space(token: &Token) -> bool {
    matches!(token, Token::Whitespace(_))
}

/// The word at this place.
pub(super) fn word(tokens: &[TokenWithSpan], at: usize) -> Option<&Word> {
    match &tokens.get(at)?.token {
        Token::Word(word) => Some(word),
        _ => None,
    }
}

/// Whether a word without quotes is this one.
pub(super) fn is_word(tokens: &[TokenWithSpan], at: usize, wanted: &str) -> bool {
    word(tokens, at)
        .is_some_and(|word| word.quote_style.is_none() && word.value.eq_ignore_ascii_case(wanted))
}

/// The last word of a table's name that stands before the token at `at`, and not as the name of a column;
/// with `past_alias` also where an alias is between.
pub(super) fn table_before(tokens: &[TokenWithSpan], at: usize, past_alias: bool) -> Option<usize> {
    let last = before(tokens, at)?;
    word(tokens, last)?;
    if is_table(tokens, last) {
        return Some(last);
    }
    if !past_alias {
        return None;
    }
    let mut name = before(tokens, last)?;
    if is_word(tokens, name, "as") {
        name = before(tokens, name)?;
    }
    word(tokens, name)?;
    is_table(tokens, name).then_some(name)
}

/// The word before the name that ends here, with a point between: the schema of a table.
pub(super) fn qualifier(tokens: &[TokenWithSpan], last: usize) -> Option<&Word> {
    let point = before(tokens, last).filter(|at| tokens[*at].token == Token::Period)?;
    word(tokens, before(tokens, point)?)
}

/// Whether a version was meant all the same: it stands behind a name, an alias or a query, where nothing else
/// can have its form.
pub(super) fn is_behind_table(tokens: &[TokenWithSpan], at: usize) -> bool {
    let Some(last) = before(tokens, at) else { return false };
    match &tokens[last].token {
        Token::RParen => true,
        Token::Word(word) => word.quote_style.is_some() || word.keyword == Keyword::NoKeyword,
        _ => false,
    }
}

/// Whether the name that ends here stands where tables do.
pub(super) fn is_table(tokens: &[TokenWithSpan], last: usize) -> bool {
    // A query in parentheses: `(SELECT version AS of …)` has a column.
    if is_word(tokens, last, "select") {
        return false;
    }
    let mut first = last;
    while let Some(point) = before(tokens, first)
        && tokens[point].token == Token::Period
        && let Some(name) = before(tokens, point)
        && word(tokens, name).is_some()
    {
        first = name;
    }
    let Some(start) = before(tokens, first) else { return false };
    match &tokens[start].token {
        Token::Comma | Token::LParen => true,
        Token::Word(_) => {
            ["from", "join", "describe", "desc"].iter().any(|it| is_word(tokens, start, it))
        }
        _ => false,
    }
}
