//! Reads a condition: a small part of SQL's.
//!
//! Its one invariant: what is not understood is an error that says where it stands.

use super::{CheckOperator, CheckValue, ColumnCheck, ConditionError, ConditionNode};

/// Most parentheses and negations inside one another.
const DEPTH_MAX: usize = 50;
/// Words that are no columns unless they are in quotes.
const KEYWORDS: &[&str] = &["AND", "OR", "NOT", "IN", "BETWEEN", "IS", "NULL", "TRUE", "FALSE"];
/// What a check may be, longer signs first.
const SIGNS: &[(&str, CheckOperator)] = &[
    ("<=", CheckOperator::LessOrEqual),
    (">=", CheckOperator::GreaterOrEqual),
    ("<>", CheckOperator::NotEqual),
    ("!=", CheckOperator::NotEqual),
    ("=", CheckOperator::Equal),
    ("<", CheckOperator::Less),
    (">", CheckOperator::Greater),
];

#[derive(Clone, Debug, PartialEq, Eq)]
enum ConditionToken {
    /// A keyword or a column.
    Word(String),
    /// A column in double quotes or backticks.
    Name(String),
    /// What stands in single quotes.
    Text(String),
    Number(String),
    Sign(CheckOperator),
    Open,
    Close,
    Comma,
}

/// A condition as it is read.
#[derive(Debug)]
pub(super) struct ConditionParser {
    /// Each with its place, from 1, and its text.
    tokens: Vec<(usize, String, ConditionToken)>,
    next: usize,
    depth: usize,
    /// Behind the last character.
    end: usize,
}

impl ConditionParser {
    pub(super) fn of(text: &str) -> Result<Self, ConditionError> {
        let chars: Vec<char> = text.chars().collect();
        let (mut tokens, mut at) = (Vec::new(), 0);
        while let Some(first) = chars.get(at) {
            if first.is_whitespace() {
                at += 1;
                continue;
            }
            let (length, token) = token(&chars[at..]).map_err(|expected| {
                ConditionError::Syntax { at: at + 1, found: format!("`{first}`"), expected }
            })?;
            tokens.push((at + 1, chars[at..at + length].iter().collect(), token));
            at += length;
        }
        Ok(Self { tokens, next: 0, depth: 0, end: chars.len() + 1 })
    }

    /// All of it.
    pub(super) fn condition(mut self) -> Result<ConditionNode, ConditionError> {
        let condition = self.any()?;
        match self.tokens.len() == self.next {
            true => Ok(condition),
            false => Err(self.unexpected("AND, OR or the end")),
        }
    }

    fn any(&mut self) -> Result<ConditionNode, ConditionError> {
        let first = self.all()?;
        let mut parts = vec![first];
        while self.takes_word("OR") {
            parts.push(self.all()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { ConditionNode::Any(parts) })
    }

    fn all(&mut self) -> Result<ConditionNode, ConditionError> {
        let first = self.part()?;
        let mut parts = vec![first];
        while self.takes_word("AND") {
            parts.push(self.part()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { ConditionNode::All(parts) })
    }

    /// What is inside a negation or parentheses, or a check.
    fn part(&mut self) -> Result<ConditionNode, ConditionError> {
        if DEPTH_MAX < self.depth {
            return Err(self.unexpected("an expression with at most 50 levels"));
        }
        self.depth += 1;
        let part = if self.takes_word("NOT") {
            self.part()?.negate()
        } else if self.takes(&ConditionToken::Open) {
            let inside = self.any()?;
            self.expect(&ConditionToken::Close, "`)`")?;
            inside
        } else {
            self.check()?
        };
        self.depth -= 1;
        Ok(part)
    }

    fn check(&mut self) -> Result<ConditionNode, ConditionError> {
        let column = self.column()?;
        let one = |operator, values| {
            ConditionNode::Check(ColumnCheck { column: column.clone(), operator, values })
        };
        if let Some(ConditionToken::Sign(operator)) = self.peek() {
            let operator = *operator;
            self.next += 1;
            return Ok(one(operator, vec![self.value()?]));
        }
        if self.takes_word("IS") {
            let is_not = self.takes_word("NOT");
            if !self.takes_word("NULL") {
                return Err(self.unexpected("NULL"));
            }
            let operator = if is_not { CheckOperator::NotNull } else { CheckOperator::IsNull };
            return Ok(one(operator, Vec::new()));
        }
        let is_not = self.takes_word("NOT");
        let check = if self.takes_word("IN") {
            self.expect(&ConditionToken::Open, "`(`")?;
            let mut values = vec![self.value()?];
            while self.takes(&ConditionToken::Comma) {
                values.push(self.value()?);
            }
            self.expect(&ConditionToken::Close, "`,` or `)`")?;
            one(CheckOperator::In, values)
        } else if self.takes_word("BETWEEN") {
            let lower = self.value()?;
            if !self.takes_word("AND") {
                return Err(self.unexpected("AND and the upper end"));
            }
            let upper = self.value()?;
            ConditionNode::All(vec![
                one(CheckOperator::GreaterOrEqual, vec![lower]),
                one(CheckOperator::LessOrEqual, vec![upper]),
            ])
        } else if is_not {
            return Err(self.unexpected("IN or BETWEEN"));
        } else {
            return Err(self.unexpected("a comparison, IN, BETWEEN or IS NULL"));
        };
        Ok(if is_not { check.negate() } else { check })
    }

    fn column(&mut self) -> Result<String, ConditionError> {
        let name = match self.peek() {
            Some(ConditionToken::Name(name)) => name.clone(),
            Some(ConditionToken::Word(word)) if !is_keyword(word) => word.clone(),
            _ => return Err(self.unexpected("a column")),
        };
        self.next += 1;
        Ok(name)
    }

    fn value(&mut self) -> Result<CheckValue, ConditionError> {
        // A text is of its column's type, so these say nothing more.
        let is_typed = self.takes_word("DATE") || self.takes_word("TIMESTAMP");
        let value = match self.peek() {
            Some(ConditionToken::Text(text)) => CheckValue::Text(text.clone()),
            Some(ConditionToken::Number(digits)) if !is_typed => CheckValue::Number(digits.clone()),
            Some(ConditionToken::Word(word)) if !is_typed && word.eq_ignore_ascii_case("TRUE") => {
                CheckValue::Boolean(true)
            }
            Some(ConditionToken::Word(word)) if !is_typed && word.eq_ignore_ascii_case("FALSE") => {
                CheckValue::Boolean(false)
            }
            _ => return Err(self.unexpected("a value such as 5 or 'text'")),
        };
        self.next += 1;
        Ok(value)
    }

    fn peek(&self) -> Option<&ConditionToken> {
        self.tokens.get(self.next).map(|(_, _, token)| token)
    }

    fn takes(&mut self, wanted: &ConditionToken) -> bool {
        let is_there = self.peek() == Some(wanted);
        self.next += usize::from(is_there);
        is_there
    }

    fn takes_word(&mut self, wanted: &str) -> bool {
        let is_there = matches!(
            self.peek(),
            Some(ConditionToken::Word(word)) if word.eq_ignore_ascii_case(wanted)
        );
        self.next += usize::from(is_there);
        is_there
    }

    fn expect(
        &mut self,
        wanted: &ConditionToken,
        expected: &'static str,
    ) -> Result<(), ConditionError> {
        match self.takes(wanted) {
            true => Ok(()),
            false => Err(self.unexpected(expected)),
        }
    }

    fn unexpected(&self, expected: &'static str) -> ConditionError {
        match self.tokens.get(self.next) {
            Some((at, text, _)) => {
                ConditionError::Syntax { at: *at, found: format!("`{text}`"), expected }
            }
            None => ConditionError::Syntax { at: self.end, found: "its end".to_owned(), expected },
        }
    }
}

fn is_keyword(word: &str) -> bool {
    KEYWORDS.iter().any(|keyword| keyword.eq_ignore_ascii_case(word))
}

/// The token that these characters begin with, and how many of them it has; or what should be there.
fn token(chars: &[char]) -> Result<(usize, ConditionToken), &'static str> {
    let (first, second) = (chars[0], chars.get(1).copied().unwrap_or(' '));
    let is_negative = first == '-' && second.is_ascii_digit();
    let while_in = |is_part: fn(&char) -> bool| {
        let length = 1 + chars[1..].iter().take_while(|part| is_part(part)).count();
        (length, chars[..length].iter().collect::<String>())
    };
    match first {
        '(' => return Ok((1, ConditionToken::Open)),
        ')' => return Ok((1, ConditionToken::Close)),
        ',' => return Ok((1, ConditionToken::Comma)),
        '\'' => {
            let (length, text) = quoted(chars)?;
            return Ok((length, ConditionToken::Text(text)));
        }
        '"' | '`' => {
            let (length, name) = quoted(chars)?;
            return Ok((length, ConditionToken::Name(name)));
        }
        _ => (),
    }
    if is_negative || first.is_ascii_digit() {
        let (length, digits) = while_in(|part| part.is_ascii_alphanumeric() || *part == '.');
        return Ok((length, ConditionToken::Number(digits)));
    }
    if first.is_alphabetic() || first == '_' {
        let (length, word) = while_in(|part| part.is_alphanumeric() || matches!(part, '_' | '.'));
        return Ok((length, ConditionToken::Word(word)));
    }
    let start: String = [first, second].into_iter().collect();
    let sign = SIGNS.iter().find(|(sign, _)| start.starts_with(sign));
    let (sign, operator) = sign.ok_or("a column, a value or a comparison")?;
    Ok((sign.len(), ConditionToken::Sign(*operator)))
}

/// What is between quotes, of which two stand for one, and how many characters that takes.
fn quoted(chars: &[char]) -> Result<(usize, String), &'static str> {
    let quote = chars[0];
    let (mut text, mut at) = (String::new(), 1);
    while let Some(part) = chars.get(at) {
        let is_quote = *part == quote;
        if is_quote && chars.get(at + 1) != Some(&quote) {
            return Ok((at + 1, text));
        }
        text.push(*part);
        at += if is_quote { 2 } else { 1 };
    }
    Err("a text with a closing quote")
}
