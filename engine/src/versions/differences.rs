//! `FROM collection_diff('users', 'seq:2', 'seq:9')`: the documents of a collection that are not the same at two points,
//! with `key`, `change` (`added`, `changed`, `removed`), `before` and `after`.
//!
//! In the tokens of a statement the call becomes the query that it stands for, before the points of tables are taken out
//! of them. So each side is an ordinary relation at a point, with the rights, bounds and errors of one.

use crate::{
    collections::{literal, relation},
    error::SqlError,
    grammar::Grammar,
    syntax,
    versions::place::{is_table, is_word, next, qualifier, word},
};
use chrono::{DateTime, SecondsFormat};
use datafusion::sql::sqlparser::{
    keywords::RESERVED_FOR_TABLE_ALIAS,
    tokenizer::{Token, TokenWithSpan, Tokenizer},
};
use icecore_schemas::point::{HistoryPoint, MAIN_BRANCH};

/// What the call is called, and the table that it is where it has no alias.
const FUNCTION: &str = "collection_diff";
/// Most of them in one statement: each compares all documents of a collection.
const CALLS_MAX: usize = 8;
/// Most arguments.
const ARGUMENTS_MAX: usize = 3;
const FORM: &str = "collection_diff stands in FROM and takes texts in single quotes, a collection and one or two points: FROM collection_diff('users', 'seq:2', 'seq:9'); without the second point it compares with what is acknowledged";
const NO_POINT: &str =
    "write seq:17, bookmark:…, time:2026-11-20T12:00:00Z, snapshot:…, tag:… or branch:…";

/// A call in the tokens.
struct DiffCall {
    /// Where it ends.
    end: usize,
    collection: String,
    from: HistoryPoint,
    to: HistoryPoint,
}

/// Puts the query in the place of each call, and says whether there was one.
///
/// # Errors
/// [`SqlError::Invalid`] for a call of another form, for what is no point here, and for too many calls.
pub fn write_out(tokens: &mut Vec<TokenWithSpan>) -> Result<bool, SqlError> {
    let grammar = Grammar::default();
    let (mut at, mut count) = (0, 0);
    while at < tokens.len() {
        let Some(call) = call_at(tokens, at)? else {
            at += 1;
            continue;
        };
        count += 1;
        if CALLS_MAX < count {
            return Err(invalid(format!(
                "the statement calls {FUNCTION} more than {CALLS_MAX} times"
            )));
        }
        let mut text = call.query()?;
        if !has_alias(tokens, call.end) {
            text.push_str(&format!(" AS {FUNCTION}"));
        }
        let written = Tokenizer::new(&grammar, &text).tokenize();
        let written = written.map_err(|cause| syntax::of_token(&cause))?;
        // Where the query does not parse, the place of the call is told.
        let (length, span) = (written.len(), tokens[at].span);
        let written = written.into_iter().map(|token| TokenWithSpan::new(token, span));
        tokens.splice(at..call.end, written);
        at += length;
    }
    Ok(0 < count)
}

/// The call that begins with this token.
fn call_at(tokens: &[TokenWithSpan], at: usize) -> Result<Option<DiffCall>, SqlError> {
    // One of another schema is another function.
    if !is_word(tokens, at, FUNCTION) || qualifier(tokens, at).is_some() {
        return Ok(None);
    }
    let open = next(tokens, at + 1).filter(|open| tokens[*open].token == Token::LParen);
    let Some(mut place) = open else { return Ok(None) };
    if !is_table(tokens, at) {
        return Err(invalid(FORM));
    }
    let mut arguments = Vec::new();
    let end = loop {
        let argument = next(tokens, place + 1).ok_or_else(|| invalid(FORM))?;
        let Token::SingleQuotedString(text) = &tokens[argument].token else {
            return Err(invalid(FORM));
        };
        arguments.push(text.as_str());
        place = next(tokens, argument + 1).ok_or_else(|| invalid(FORM))?;
        match &tokens[place].token {
            Token::Comma if arguments.len() < ARGUMENTS_MAX => (),
            Token::RParen => break place + 1,
            _ => return Err(invalid(FORM)),
        }
    };
    let (collection, from, to) = match arguments.as_slice() {
        [collection, from] => (*collection, point(from)?, HistoryPoint::Now),
        [collection, from, to] => (*collection, point(from)?, point(to)?),
        _ => return Err(invalid(FORM)),
    };
    if collection.is_empty() {
        return Err(invalid("the first argument of collection_diff is empty: name a collection"));
    }
    Ok(Some(DiffCall { end, collection: collection.to_owned(), from, to }))
}

fn point(text: &str) -> Result<HistoryPoint, SqlError> {
    text.parse::<HistoryPoint>()
        .map_err(|problem| invalid(format!("point `{text}` of collection_diff: {problem}")))
}

/// Whether an alias begins behind this place.
fn has_alias(tokens: &[TokenWithSpan], end: usize) -> bool {
    let Some(at) = next(tokens, end) else { return false };
    let Some(found) = word(tokens, at) else { return false };
    found.quote_style.is_some()
        || is_word(tokens, at, "as")
        || !RESERVED_FOR_TABLE_ALIAS.contains(&found.keyword)
}

impl DiffCall {
    /// The query that the call stands for, in parentheses.
    fn query(&self) -> Result<String, SqlError> {
        let relation = relation(&self.collection);
        let (from, to) = (behind_relation(&self.from)?, behind_relation(&self.to)?);
        Ok(format!(
            "(SELECT coalesce(a.key, b.key) AS key, CASE WHEN a.key IS NULL THEN 'added' \
             WHEN b.key IS NULL THEN 'removed' ELSE 'changed' END AS change, a.doc AS before, b.doc AS after \
             FROM (SELECT key, doc FROM {relation}{from}) AS a \
             FULL JOIN (SELECT key, doc FROM {relation}{to}) AS b ON a.key = b.key \
             WHERE a.doc IS DISTINCT FROM b.doc)"
        ))
    }
}

/// A point as it stands behind a relation; nothing for what is acknowledged.
fn behind_relation(point: &HistoryPoint) -> Result<String, SqlError> {
    Ok(match point {
        HistoryPoint::Now => String::new(),
        HistoryPoint::Branch(name) if name == MAIN_BRANCH => String::new(),
        HistoryPoint::Seq(seq) => format!(" FOR SEQ AS OF {seq}"),
        HistoryPoint::Bookmark(bookmark) => format!(" FOR BOOKMARK AS OF {}", literal(bookmark)),
        HistoryPoint::Snapshot(id) => format!(" FOR VERSION AS OF {id}"),
        HistoryPoint::Tag(name) | HistoryPoint::Branch(name) => {
            format!(" FOR VERSION AS OF {}", literal(name))
        }
        HistoryPoint::Time(us) => {
            let time = DateTime::from_timestamp_micros(*us);
            let time = time.ok_or_else(|| invalid("the time is beyond every calendar"))?;
            let text = time.to_rfc3339_opts(SecondsFormat::Micros, true);
            format!(" FOR SYSTEM_TIME AS OF {}", literal(&text))
        }
        // What these are depends on what is there, or on one document.
        HistoryPoint::Number(number) => {
            return Err(invalid(format!("`{number}` may be a snapshot or a seq: {NO_POINT}")));
        }
        HistoryPoint::Named(name) => {
            return Err(invalid(format!(
                "`{name}` may be a bookmark, a tag or a branch: {NO_POINT}"
            )));
        }
        HistoryPoint::Before(_) | HistoryPoint::Back(_) => {
            return Err(invalid(format!(
                "collection_diff takes no before:… and no ~n: {NO_POINT}"
            )));
        }
    })
}

fn invalid(text: impl Into<String>) -> SqlError {
    SqlError::Invalid(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard;

    #[test]
    fn a_call_is_the_query_of_both_points() {
        let sql = "SELECT key FROM collection_diff('it''s \"a\"', 'seq:2', 'tag:nightly') AS d WHERE change = 'added'";
        let checked = guard::check(sql).unwrap();
        let points: Vec<String> =
            checked.versions.iter().map(|version| version.name.clone()).collect();
        assert_eq!(points.len(), 2, "{points:?}");
        assert!(points.iter().all(|name| name.starts_with("collections/it's \"a\"")), "{points:?}");
        let statement = checked.statement.to_string();
        assert!(statement.contains("FULL JOIN") && statement.contains(" d"), "{statement}");
        // It is sent as it was written.
        assert_eq!(checked.text, sql);
        for (sql, versions) in [
            ("FROM collection_diff('a', 'seq:2')", 1),
            ("SELECT * FROM COLLECTION_DIFF ( 'a' , 'branch:main' ) WHERE key = 'k'", 0),
            (
                "SELECT d.key FROM collection_diff('a', 'bookmark:b', 'time:2026-11-20T12:00:00Z') d",
                2,
            ),
            (
                "SELECT 1 FROM t, collection_diff('a', 'snapshot:7', 'branch:trial') JOIN u ON true",
                2,
            ),
            ("SELECT collection_diff.key FROM collection_diff('a', 'seq:1') ORDER BY 1", 1),
        ] {
            let checked = guard::check(sql).unwrap_or_else(|error| panic!("`{sql}`: {error}"));
            assert_eq!(checked.versions.len(), versions, "{sql}");
        }
    }

    #[test]
    fn what_is_no_call_or_no_point_is_told() {
        for (sql, expected) in [
            ("SELECT * FROM collection_diff('a')", "collection_diff stands in FROM"),
            ("SELECT * FROM collection_diff('a', 'seq:1', 'seq:2', 'x')", "stands in FROM"),
            ("SELECT * FROM collection_diff(a, 'seq:1')", "single quotes"),
            ("SELECT * FROM collection_diff('a', 'seq:1'", "stands in FROM"),
            ("SELECT x + collection_diff('a', 'seq:1') FROM t", "stands in FROM"),
            ("SELECT * FROM collection_diff('', 'seq:1')", "name a collection"),
            ("SELECT * FROM collection_diff('a', 'seq:x')", "`x` is not a whole number"),
            ("SELECT * FROM collection_diff('a', '17')", "may be a snapshot or a seq"),
            ("SELECT * FROM collection_diff('a', 'nightly')", "a bookmark, a tag or a branch"),
            ("SELECT * FROM collection_diff('a', '~1')", "no ~n"),
        ] {
            let error = guard::check(sql).expect_err(sql).to_string();
            assert!(error.contains(expected), "`{sql}` was refused with {error}");
        }
        let many = ["collection_diff('a', 'seq:1')"; CALLS_MAX + 1].join(", ");
        let error = guard::check(&format!("SELECT 1 FROM {many}")).unwrap_err().to_string();
        assert!(error.contains("more than 8 times"), "{error}");
    }
}
