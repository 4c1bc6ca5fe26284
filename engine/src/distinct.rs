//! `IS [NOT] DISTINCT FROM` with the precedence that it has.
//!
//! The parser (sqlparser 0.62) takes everything that follows for its right side: `a IS DISTINCT FROM b OR c`
//! is read as `a IS DISTINCT FROM (b OR c)`. As operators of comparison they are read right, so the
//! tokens are replaced before it parses, and what it made of them afterwards.

use datafusion::sql::sqlparser::{
    ast::{BinaryOperator, Expr, Statement, VisitMut, VisitorMut},
    keywords::Keyword,
    tokenizer::{Token, TokenWithSpan},
};
use std::ops::ControlFlow;

/// Stands for `IS DISTINCT FROM`; written by the sender it is refused.
const DISTINCT: Token = Token::ExclamationMarkDoubleTildeAsterisk;
/// Stands for `IS NOT DISTINCT FROM`, which it means in MySQL, too.
const NOT_DISTINCT: Token = Token::Spaceship;

/// Replaces the words by operators.
///
/// # Errors
/// The operator that stands for them is there already.
pub fn mark(tokens: &mut Vec<TokenWithSpan>) -> Result<(), String> {
    if tokens.iter().any(|token| token.token == DISTINCT) {
        return Err("the operator !~~* is not supported here; write NOT ILIKE".to_owned());
    }
    let mut at = 0;
    while at < tokens.len() {
        let words = words(&tokens[at..]);
        let (operator, length) = match words.map(|(word, _)| word) {
            [Some(Keyword::IS), Some(Keyword::DISTINCT), Some(Keyword::FROM), _] => {
                (DISTINCT, words[2].1 + 1)
            }
            [
                Some(Keyword::IS),
                Some(Keyword::NOT),
                Some(Keyword::DISTINCT),
                Some(Keyword::FROM),
            ] => (NOT_DISTINCT, words[3].1 + 1),
            _ => {
                at += 1;
                continue;
            }
        };
        let span = tokens[at].span;
        tokens.splice(at..at + length, [TokenWithSpan { token: operator, span }]);
        at += 1;
    }
    Ok(())
}

/// The next words that are not quoted, and how far away each is.
fn words(tokens: &[TokenWithSpan]) -> [(Option<Keyword>, usize); 4] {
    let mut found = [(None, 0); 4];
    let written = tokens.iter().enumerate();
    let written = written.filter(|(_, token)| !matches!(token.token, Token::Whitespace(_)));
    for (slot, (at, token)) in found.iter_mut().zip(written) {
        if let Token::Word(word) = &token.token
            && word.quote_style.is_none()
        {
            *slot = (Some(word.keyword), at);
        }
    }
    // What begins elsewhere is found when it is its turn.
    if matches!(tokens.first().map(|token| &token.token), Some(Token::Whitespace(_))) {
        found[0] = (None, 0);
    }
    found
}

/// Puts what the operators stand for into a parsed statement.
pub fn unmark(statement: &mut Statement) {
    let ControlFlow::Continue(()) = statement.visit(&mut UnmarkDistinct);
}

struct UnmarkDistinct;

impl VisitorMut for UnmarkDistinct {
    type Break = std::convert::Infallible;

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        if let Expr::BinaryOp { left, op, right } = expr {
            match op {
                BinaryOperator::PGNotILikeMatch => {
                    *expr = Expr::IsDistinctFrom(left.clone(), right.clone());
                }
                BinaryOperator::Spaceship => {
                    *expr = Expr::IsNotDistinctFrom(left.clone(), right.clone());
                }
                _ => (),
            }
        }
        ControlFlow::Continue(())
    }
}
