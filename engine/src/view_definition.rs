//! `CREATE [OR REPLACE] VIEW name AS query`: the name, and the text of the query as it was written.
//!
//! The text is stored and not what the parser makes of it, so that people and other engines read what its author
//! wrote. Whether the query may run is for the guard, and where the name belongs for whoever stores the view.

use crate::{error::SqlError, grammar::Grammar, guard::SQL_BYTES_MAX};
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

/// A view that a statement makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewDefinition {
    /// The namespace that the name has, if it has one.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Whether it takes the place of a view of this name.
    pub replaces: bool,
    /// Its query, as it was written.
    pub query: String,
}

/// The view that `sql` makes; none for every other statement.
///
/// # Errors
/// [`SqlError::Invalid`] for a statement that makes a view in a way that is not supported. The text says what to
/// write.
pub fn parse(sql: &str) -> Result<Option<ViewDefinition>, SqlError> {
    // Every query passes here; most tell by these words that they are none.
    let has =
        |word: &[u8]| sql.as_bytes().windows(word.len()).any(|it| it.eq_ignore_ascii_case(word));
    if SQL_BYTES_MAX < sql.len() || !has(b"create") || !has(b"view") {
        return Ok(None);
    }
    // What is no token is for the guard to tell.
    let Ok(mut tokens) = Tokenizer::new(&Grammar::default(), sql).tokenize_with_location() else {
        return Ok(None);
    };
    tokens.retain(|token| !matches!(token.token, Token::Whitespace(_)));
    let mut words = StatementWords { tokens: &tokens, at: 0 };
    if !words.take("create") {
        return Ok(None);
    }
    let replaces = words.take("or");
    if replaces && !words.take("replace") || !words.take("view") {
        return Ok(None);
    }
    if words.take("if") {
        return Err(invalid(
            "IF NOT EXISTS is not supported: write CREATE OR REPLACE VIEW, or CREATE VIEW and expect 409",
        ));
    }
    let (namespace, name) = words.name()?;
    if !words.take("as") {
        return Err(invalid(
            "write CREATE VIEW name AS query; columns get their names in the query: SELECT a AS b",
        ));
    }
    let start = words.next().and_then(|token| offset(sql, token.span.start));
    let query = start.and_then(|start| sql.get(start..)).unwrap_or_default();
    let query = query.trim_end().trim_end_matches(';').trim_end().to_owned();
    if query.is_empty() {
        return Err(invalid("there is no query behind AS: write CREATE VIEW name AS SELECT …"));
    }
    Ok(Some(ViewDefinition { namespace, name, replaces, query }))
}

/// The tokens of a statement that are not read yet.
struct StatementWords<'a> {
    tokens: &'a [TokenWithSpan],
    at: usize,
}

impl StatementWords<'_> {
    fn next(&self) -> Option<&TokenWithSpan> {
        self.tokens.get(self.at)
    }

    /// Goes on behind this word, if it is the next one.
    fn take(&mut self, expected: &str) -> bool {
        let is_it = self.next().is_some_and(|token| {
            matches!(&token.token, Token::Word(word)
                if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(expected))
        });
        self.at += usize::from(is_it);
        is_it
    }

    /// A name, with the namespace before it.
    fn name(&mut self) -> Result<(Option<String>, String), SqlError> {
        let first = self.part()?;
        if self.next().is_none_or(|token| token.token != Token::Period) {
            return Ok((None, first));
        }
        self.at += 1;
        let second = self.part()?;
        if self.next().is_some_and(|token| token.token == Token::Period) {
            return Err(invalid("the name of a view is `name` or `namespace.name`"));
        }
        Ok((Some(first), second))
    }

    fn part(&mut self) -> Result<String, SqlError> {
        let Some(Token::Word(word)) = self.next().map(|token| &token.token) else {
            return Err(invalid(
                "there is no name behind VIEW: write CREATE VIEW name AS SELECT …",
            ));
        };
        let name = match word.quote_style {
            Some(_) => word.value.clone(),
            None => word.value.to_ascii_lowercase(),
        };
        self.at += 1;
        Ok(name)
    }
}

/// Where a place of the text is in its bytes. Lines and columns count from 1, columns in letters.
fn offset(sql: &str, place: Location) -> Option<usize> {
    let before = usize::try_from(place.line.checked_sub(1)?).ok()?;
    let column = usize::try_from(place.column.checked_sub(1)?).ok()?;
    let start: usize = sql.split('\n').take(before).map(|line| line.len() + 1).sum();
    let (at, _) = sql.get(start..)?.char_indices().nth(column)?;
    Some(start + at)
}

fn invalid(text: &str) -> SqlError {
    SqlError::Invalid(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sql: &str, expected: Option<(&str, bool, &str)>) {
        let found = parse(sql).unwrap();
        let found = found.as_ref().map(|view| {
            let name = match &view.namespace {
                Some(namespace) => format!("{namespace}.{}", view.name),
                None => view.name.clone(),
            };
            (name, view.replaces, view.query.as_str())
        });
        let expected = expected.map(|(name, replaces, query)| (name.to_owned(), replaces, query));
        assert_eq!(found, expected, "{sql}");
    }

    #[test]
    fn the_query_of_a_view_is_the_text_behind_as() {
        check("CREATE VIEW v AS SELECT 1", Some(("v", false, "SELECT 1")));
        check("create or replace view V as select 'ü' ;\n", Some(("v", true, "select 'ü'")));
        check(
            "-- of today\nCREATE VIEW \"Große View\"\nAS /* all */ SELECT *\n  FROM t;",
            Some(("Große View", false, "SELECT *\n  FROM t")),
        );
        check("CREATE VIEW a.v AS (SELECT 1)", Some(("a.v", false, "(SELECT 1)")));
    }

    #[test]
    fn other_statements_are_none() {
        for sql in [
            "SELECT 'create view v as select 1'",
            "CREATE TABLE view AS SELECT 1",
            "CREATE MATERIALIZED VIEW v AS SELECT 1",
            "CREATE OR VIEW v AS SELECT 1",
            "CREATE VIEW 'v",
        ] {
            check(sql, None);
        }
    }

    #[test]
    fn a_view_that_is_made_in_another_way_is_refused_with_what_to_write() {
        for (sql, text) in [
            ("CREATE VIEW IF NOT EXISTS v AS SELECT 1", "OR REPLACE"),
            ("CREATE VIEW v (a) AS SELECT 1", "SELECT a AS b"),
            ("CREATE VIEW v AS ;", "no query"),
            ("CREATE VIEW AS SELECT 1", "AS query"),
            ("CREATE VIEW a.b.c AS SELECT 1", "namespace.name"),
        ] {
            let error = parse(sql).unwrap_err().to_string();
            assert!(error.contains(text), "{sql}: {error}");
        }
    }
}
