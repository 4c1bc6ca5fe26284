//! What is counted on the tokens of a statement, before anything recurses over it.

use crate::guard::{DEPTH_MAX, JOINS_MAX, OPERATORS_MAX, SET_OPERATIONS_MAX, at_most, refuse};
use datafusion::sql::sqlparser::tokenizer::Token;
use std::ops::ControlFlow;

/// Counts what recursion depth and plan size follow from.
pub(super) fn check(tokens: &[Token]) -> ControlFlow<String> {
    let mut operators = 0;
    let mut set_operations = 0;
    let mut joins = 0;
    let mut depth = 0_usize;
    let mut depth_most = 0;
    let mut prefixes = 0;
    for token in tokens.iter().filter(|token| !matches!(token, Token::Whitespace(_))) {
        let kind = kind(token);
        match kind {
            TokenKind::Open => depth += 1,
            TokenKind::Close => depth = depth.saturating_sub(1),
            TokenKind::Operator => operators += 1,
            TokenKind::SetOperation => set_operations += 1,
            TokenKind::Join => joins += 1,
            TokenKind::Other => (),
        }
        // `NOT NOT NOT …` and `- - - …` nest without brackets.
        prefixes = if kind == TokenKind::Operator { prefixes + 1 } else { 0 };
        depth_most = depth_most.max(depth).max(prefixes);
    }
    if DEPTH_MAX < depth_most {
        return refuse(format!("the statement is nested more than {DEPTH_MAX} levels deep"));
    }
    at_most(OPERATORS_MAX, operators, "operators; use IN (…) for long lists")?;
    at_most(JOINS_MAX, joins, "JOINs")?;
    at_most(SET_OPERATIONS_MAX, set_operations, "UNION, INTERSECT or EXCEPT")
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum TokenKind {
    Open,
    Close,
    Operator,
    SetOperation,
    Join,
    Other,
}

fn kind(token: &Token) -> TokenKind {
    match token {
        Token::LParen | Token::LBracket | Token::LBrace => TokenKind::Open,
        Token::RParen | Token::RBracket | Token::RBrace => TokenKind::Close,
        Token::Word(word) if word.quote_style.is_none() => {
            let text = word.value.to_ascii_uppercase();
            match text.as_str() {
                "CASE" => TokenKind::Open,
                "END" => TokenKind::Close,
                "AND" | "OR" | "XOR" | "NOT" | "LIKE" | "ILIKE" | "IS" | "BETWEEN" | "DIV"
                | "SIMILAR" | "RLIKE" | "REGEXP" | "OVERLAPS" | "COLLATE" | "AT" => {
                    TokenKind::Operator
                }
                "JOIN" => TokenKind::Join,
                "UNION" | "INTERSECT" | "EXCEPT" | "MINUS" => TokenKind::SetOperation,
                _ => TokenKind::Other,
            }
        }
        Token::EOF
        | Token::Word(_)
        | Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::DoubleQuotedString(_)
        | Token::Comma
        | Token::Period
        | Token::SemiColon
        | Token::Placeholder(_)
        | Token::Whitespace(_)
        | Token::NationalStringLiteral(_)
        | Token::EscapedStringLiteral(_)
        | Token::UnicodeStringLiteral(_)
        | Token::HexStringLiteral(_)
        | Token::DollarQuotedString(_) => TokenKind::Other,
        // Every sign that stands between or before expressions; counting one too many does no harm.
        _ => TokenKind::Operator,
    }
}
