//! How versions of tables are spelled, and taken out of a statement's tokens.
//!
//! | spelling | of |
//! |---|---|
//! | `FOR SYSTEM_TIME AS OF t`, `FOR TIMESTAMP AS OF t`, `TIMESTAMP AS OF t`, `AT (TIMESTAMP => t)` | SQL:2011, Trino, Spark, DuckDB |
//! | `FOR SYSTEM_VERSION AS OF v`, `FOR VERSION AS OF v`, `VERSION AS OF v`, `AT (VERSION => v)` | Impala, Trino, Spark, DuckDB |
//! | `BOOKMARK AS OF b` and `SEQ AS OF n` in the same forms, `BETWEEN SEQ a AND b` | here |
//! | `SEQ AS OF n OF BRANCH 'b'` in the same forms | here |
//!
//! A version stands behind the table's name; with FOR also behind its alias, as in BigQuery. None of the words is
//! reserved, so columns may be called `version` or `seq`: what stands before them tells.

use crate::{
    error::SqlError,
    grammar::Grammar,
    guard::DEPTH_MAX,
    syntax,
    versions::{
        TableVersion, VERSIONS_MAX, VersionPoint,
        place::{is_behind_table, is_word, next, qualifier, table_before, word},
    },
};
use datafusion::sql::sqlparser::{
    ast::{Expr, Ident},
    dialect::GenericDialect,
    parser::{Parser, ParserOptions},
    tokenizer::{Token, TokenWithSpan, Word},
};

/// Longest text of an expression in the name that a table gets.
const POINT_CHARS_MAX: usize = 120;

const NOT_BEHIND_A_TABLE: &str = "a version stands behind the name of a table, before its alias: FROM events FOR VERSION AS OF 'nightly' AS old; a query or a table function has none";
const NO_RANGE: &str = "FOR SYSTEM_TIME takes AS OF and one time here; for the events of a range write `events BETWEEN SEQ a AND b`, or a condition on ts";
const NO_BRANCH: &str = "OF BRANCH stands behind a seq, with the branch in single quotes: events FOR SEQ AS OF 17 OF BRANCH 'trial'; for the head of a branch write FOR VERSION AS OF 'trial'";

/// What a version is given by.
#[derive(Clone, Copy)]
enum VersionKind {
    Time,
    Version,
    Bookmark,
    Seq,
}

impl VersionKind {
    fn at(tokens: &[TokenWithSpan], at: usize) -> Option<Self> {
        let word = word(tokens, at).filter(|word| word.quote_style.is_none())?;
        match word.value.to_ascii_uppercase().as_str() {
            "SYSTEM_TIME" | "TIMESTAMP" => Some(Self::Time),
            "SYSTEM_VERSION" | "VERSION" => Some(Self::Version),
            "BOOKMARK" => Some(Self::Bookmark),
            "SEQ" => Some(Self::Seq),
            _ => None,
        }
    }

    fn point(self, expr: Expr) -> VersionPoint {
        match self {
            Self::Time => VersionPoint::Time(expr),
            Self::Version => VersionPoint::Version(expr),
            Self::Bookmark => VersionPoint::Bookmark(expr),
            Self::Seq => VersionPoint::Seq(expr),
        }
    }
}

/// A version in the tokens.
struct SpelledVersion {
    /// Where it ends.
    end: usize,
    point: VersionPoint,
}

/// Takes all versions out of a statement. Each table that had one has a name of its own after that.
///
/// # Errors
/// [`SqlError::Invalid`] for one that stands behind no table, and for too many of them; [`SqlError::Syntax`] for
/// an expression that is none.
pub fn take_out(tokens: &mut Vec<TokenWithSpan>, sql: &str) -> Result<Vec<TableVersion>, SqlError> {
    let mut versions: Vec<TableVersion> = Vec::new();
    let (mut at, mut count) = (0, 0);
    while at < tokens.len() {
        let start = at;
        at += 1;
        let Some((table, found)) = version_at(tokens, start, sql)? else { continue };
        count += 1;
        if VERSIONS_MAX < count {
            return Err(invalid(format!(
                "the statement gives more than {VERSIONS_MAX} tables a version"
            )));
        }
        let Some(written) = word(tokens, table).cloned() else { continue };
        let schema = qualifier(tokens, table).map(folded);
        let version = named(tokens, &versions, schema, &written, found.point);
        tokens.drain(start..found.end);
        tokens[table].token = Token::make_word(&version.name, Some('"'));
        if !versions.contains(&version) {
            versions.push(version);
        }
        at = start;
    }
    Ok(versions)
}

/// The version that begins with this token, and the last word of its table's name.
fn version_at(
    tokens: &[TokenWithSpan],
    start: usize,
    sql: &str,
) -> Result<Option<(usize, SpelledVersion)>, SqlError> {
    let Some(first) = word(tokens, start).filter(|word| word.quote_style.is_none()) else {
        return Ok(None);
    };
    match first.value.to_ascii_uppercase().as_str() {
        "FOR" => of_standard(tokens, start, sql),
        "AT" => of_duckdb(tokens, start, sql),
        "BETWEEN" => Ok(of_range(tokens, start)),
        _ => of_spark(tokens, start, sql),
    }
}

/// `FOR VERSION AS OF …`
fn of_standard(
    tokens: &[TokenWithSpan],
    start: usize,
    sql: &str,
) -> Result<Option<(usize, SpelledVersion)>, SqlError> {
    let Some(kind_at) = next(tokens, start + 1) else { return Ok(None) };
    let Some(kind) = VersionKind::at(tokens, kind_at) else { return Ok(None) };
    let Some(from) = behind_as_of(tokens, kind_at) else {
        let is_standard = is_word(tokens, kind_at, "system_time");
        return if is_standard { Err(invalid(NO_RANGE)) } else { Ok(None) };
    };
    let Some(table) = table_before(tokens, start, true) else {
        return Err(invalid(NOT_BEHIND_A_TABLE));
    };
    Ok(Some((table, version_of(kind, tokens, from, sql)?)))
}

/// `VERSION AS OF …`
fn of_spark(
    tokens: &[TokenWithSpan],
    start: usize,
    sql: &str,
) -> Result<Option<(usize, SpelledVersion)>, SqlError> {
    let Some(kind) = VersionKind::at(tokens, start) else { return Ok(None) };
    let Some(from) = behind_as_of(tokens, start) else { return Ok(None) };
    let Some(table) = table_before(tokens, start, false) else {
        // `SELECT version AS of` has a column.
        let is_meant = is_behind_table(tokens, start);
        return if is_meant { Err(invalid(NOT_BEHIND_A_TABLE)) } else { Ok(None) };
    };
    Ok(Some((table, version_of(kind, tokens, from, sql)?)))
}

/// `AT (VERSION => …)`
fn of_duckdb(
    tokens: &[TokenWithSpan],
    start: usize,
    sql: &str,
) -> Result<Option<(usize, SpelledVersion)>, SqlError> {
    let parts = next(tokens, start + 1)
        .filter(|at| tokens[*at].token == Token::LParen)
        .and_then(|open| next(tokens, open + 1))
        .and_then(|kind_at| Some((VersionKind::at(tokens, kind_at)?, next(tokens, kind_at + 1)?)))
        .filter(|(_, arrow)| tokens[*arrow].token == Token::RArrow);
    let Some((kind, arrow)) = parts else { return Ok(None) };
    let Some(table) = table_before(tokens, start, false) else {
        return Err(invalid(NOT_BEHIND_A_TABLE));
    };
    let SpelledVersion { end, point } = version_of(kind, tokens, arrow + 1, sql)?;
    match next(tokens, end).filter(|at| tokens[*at].token == Token::RParen) {
        Some(close) => Ok(Some((table, SpelledVersion { end: close + 1, point }))),
        None => Err(invalid("AT (…) takes one point, as in events AT (VERSION => 'nightly')")),
    }
}

/// `BETWEEN SEQ a AND b`. A column may be called `seq`: then no number follows it at once.
fn of_range(tokens: &[TokenWithSpan], start: usize) -> Option<(usize, SpelledVersion)> {
    let seq = next(tokens, start + 1).filter(|at| is_word(tokens, *at, "seq"))?;
    let first_at = next(tokens, seq + 1)?;
    let first = number(&tokens[first_at].token)?;
    let and = next(tokens, first_at + 1).filter(|at| is_word(tokens, *at, "and"))?;
    let last_at = next(tokens, and + 1)?;
    let last = number(&tokens[last_at].token)?;
    let table = table_before(tokens, start, false)?;
    let point = VersionPoint::SeqRange(Box::new(first), Box::new(last));
    Some((table, SpelledVersion { end: last_at + 1, point }))
}

/// A number, or the place for one.
fn number(token: &Token) -> Option<Expr> {
    let tokens = vec![token.clone()];
    match token {
        Token::Number(..) | Token::Placeholder(_) => {
            Parser::new(&GenericDialect {}).with_tokens(tokens).parse_expr().ok()
        }
        _ => None,
    }
}

/// Where the expression begins behind `… AS OF`.
fn behind_as_of(tokens: &[TokenWithSpan], kind_at: usize) -> Option<usize> {
    let word_as = next(tokens, kind_at + 1).filter(|at| is_word(tokens, *at, "as"))?;
    let word_of = next(tokens, word_as + 1).filter(|at| is_word(tokens, *at, "of"))?;
    Some(word_of + 1)
}

/// The version whose expression begins at `from`. Behind a `seq` may stand the branch that it counts on.
fn version_of(
    kind: VersionKind,
    tokens: &[TokenWithSpan],
    from: usize,
    sql: &str,
) -> Result<SpelledVersion, SqlError> {
    let (expr, end) = expression(tokens, from, sql)?;
    let branch_at = next(tokens, end)
        .filter(|at| is_word(tokens, *at, "of"))
        .and_then(|word_of| next(tokens, word_of + 1))
        .filter(|at| is_word(tokens, *at, "branch"))
        .and_then(|word_branch| next(tokens, word_branch + 1));
    let Some(branch_at) = branch_at else {
        return Ok(SpelledVersion { end, point: kind.point(expr) });
    };
    let branch = match (kind, &tokens[branch_at].token) {
        (VersionKind::Seq, Token::SingleQuotedString(_) | Token::Placeholder(_)) => {
            expression(&tokens[..=branch_at], branch_at, sql)?.0
        }
        _ => return Err(invalid(NO_BRANCH)),
    };
    let point = VersionPoint::BranchSeq(Box::new(expr), Box::new(branch));
    Ok(SpelledVersion { end: branch_at + 1, point })
}

/// The expression that begins at `from`, and where it ends.
fn expression(tokens: &[TokenWithSpan], from: usize, sql: &str) -> Result<(Expr, usize), SqlError> {
    let grammar = Grammar::default();
    let mut parser = Parser::new(&grammar)
        .with_options(ParserOptions::new().with_trailing_commas(false))
        .with_recursion_limit(DEPTH_MAX)
        .with_tokens_with_locations(tokens[from..].to_vec());
    let expr = parser.parse_expr().map_err(|cause| syntax::of_statement(&cause, sql))?;
    Ok((expr, tokens.len().min(from + parser.index())))
}

/// The version under a name that nothing else in the statement has.
fn named(
    tokens: &[TokenWithSpan],
    versions: &[TableVersion],
    schema: Option<String>,
    written: &Word,
    point: VersionPoint,
) -> TableVersion {
    let table = folded(written);
    let same = |version: &&TableVersion| {
        version.schema == schema && version.table == table && version.point == point
    };
    let mut name = match versions.iter().find(same) {
        Some(known) => known.name.clone(),
        None => format!("{table} {}", shown(&point)),
    };
    let is_of_other = |version: &TableVersion, name: &str| {
        version.name == name && !same(&version)
            || version.point != point && name.strip_prefix(table.as_str()) == Some(version.words())
    };
    let is_taken = |name: &str| {
        versions.iter().any(|version| is_of_other(version, name))
            || tokens.iter().any(|it| {
                let is_it = matches!(&it.token, Token::Word(word) if word.value == name);
                is_it && !versions.iter().any(|version| version.name == name)
            })
    };
    while is_taken(&name) {
        name.push(' ');
    }
    let alias = Ident { quote_style: written.quote_style, ..Ident::new(written.value.as_str()) };
    TableVersion { name, schema, table, alias, point }
}

/// A name as the planner reads it.
fn folded(word: &Word) -> String {
    match word.quote_style {
        Some(_) => word.value.clone(),
        None => word.value.to_lowercase(),
    }
}

/// A point in one spelling.
fn shown(point: &VersionPoint) -> String {
    let (words, expr) = match point {
        VersionPoint::Time(expr) => ("FOR TIMESTAMP AS OF", expr),
        VersionPoint::Version(expr) => ("FOR VERSION AS OF", expr),
        VersionPoint::Bookmark(expr) => ("FOR BOOKMARK AS OF", expr),
        VersionPoint::Seq(expr) => ("FOR SEQ AS OF", expr),
        VersionPoint::SeqRange(first, last) => return format!("BETWEEN SEQ {first} AND {last}"),
        VersionPoint::BranchSeq(seq, branch) => {
            return format!("FOR SEQ AS OF {} OF BRANCH {}", short(seq), short(branch));
        }
    };
    format!("{words} {}", short(expr))
}

/// The text of an expression, as far as it is short.
fn short(expr: &Expr) -> String {
    let text = expr.to_string();
    match text.char_indices().nth(POINT_CHARS_MAX) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text,
    }
}

fn invalid(text: impl Into<String>) -> SqlError {
    SqlError::Invalid(text.into())
}
