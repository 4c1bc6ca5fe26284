//! Aggregates over `events` that add up: what they give for the events of a range of `seq` is merged with what they
//! gave for those before it.
//!
//! Its one invariant: a query that may give another answer for the same event later, or whose groups cannot be told
//! apart by its columns, is none of these. In doubt a query is none.

use crate::{
    grammar::{self, Grammar},
    guard,
};
use datafusion::sql::sqlparser::{
    ast::{
        DuplicateTreatment, Expr, Function, FunctionArguments, GroupByExpr, Ident, Query, Select,
        SelectFlavor, SelectItem, SetExpr, Statement, TableFactor, Visit, Visitor,
    },
    parser::{Parser, ParserOptions},
    tokenizer::{Token, TokenWithSpan, Tokenizer, Word},
};
use icecore_lake::table::promoted;
use icecore_schemas::service_table::EVENTS_TABLE;
use std::ops::ControlFlow;

/// Functions of an event alone, which give the same whenever they are asked.
const STEADY_FUNCTIONS: [&str; 22] = [
    "abs",
    "btrim",
    "ceil",
    "coalesce",
    "concat",
    "date_bin",
    "date_part",
    "date_trunc",
    "floor",
    "json_extract",
    "json_extract_string",
    "left",
    "length",
    "lower",
    "ltrim",
    "nullif",
    "replace",
    "right",
    "rtrim",
    "split_part",
    "trim",
    "upper",
];

/// What a column is to the merge of two answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ColumnMerge {
    /// It tells groups apart.
    Key,
    /// Counts and sums are added up.
    Sum,
    Min,
    Max,
}

/// A query that adds up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncrementalAggregate {
    /// The query up to the name of its table, that included.
    head: String,
    /// The rest of it.
    tail: String,
    columns: Vec<ColumnMerge>,
}

impl IncrementalAggregate {
    /// The aggregate that a query is; none for every other one, also for one that does not parse.
    #[must_use]
    pub fn of(sql: &str) -> Option<Self> {
        let checked = guard::check(sql).ok()?;
        let is_plain = checked.is_query
            && !checked.is_summary
            && !checked.reads_paths
            && checked.placeholders == 0
            && checked.versions.is_empty();
        if !is_plain {
            return None;
        }
        let dialect = Grammar::default();
        let mut tokens = Tokenizer::new(&dialect, sql).tokenize_with_location().ok()?;
        let split = end_of_table(sql, &tokens)?;
        grammar::name_after_commas(&mut tokens);
        let statements = Parser::new(&dialect)
            .with_options(ParserOptions::new().with_trailing_commas(false))
            .with_recursion_limit(guard::DEPTH_MAX)
            .with_tokens_with_locations(tokens)
            .parse_statements()
            .ok()?;
        let [Statement::Query(query)] = statements.as_slice() else { return None };
        let columns = columns_of(query)?;
        let (head, tail) = sql.split_at_checked(split)?;
        Some(Self { head: head.to_owned(), tail: tail.to_owned(), columns })
    }

    /// The query that merges the rows of `table`, with these columns, with the events behind `seq`; none where it has
    /// another number of columns than the query, or where the whole is too long.
    #[must_use]
    pub fn merged_with(&self, table: &str, names: &[&str], seq: u64) -> Option<String> {
        if names.len() != self.columns.len() {
            return None;
        }
        let names: Vec<String> = names.iter().map(|name| quoted(name)).collect();
        let merged = names.iter().zip(&self.columns).map(|(name, merge)| match merge {
            ColumnMerge::Key => name.clone(),
            ColumnMerge::Sum => format!("sum({name}) AS {name}"),
            ColumnMerge::Min => format!("min({name}) AS {name}"),
            ColumnMerge::Max => format!("max({name}) AS {name}"),
        });
        let merged: Vec<String> = merged.collect();
        let keys = names.iter().zip(&self.columns).filter(|(_, it)| **it == ColumnMerge::Key);
        let keys: Vec<&str> = keys.map(|(name, _)| name.as_str()).collect();
        let (merged, keys, names) = (merged.join(", "), keys.join(", "), names.join(", "));
        let (Self { head, tail, .. }, table) = (self, quoted(table));
        let (first, last) = (seq.saturating_add(1), i64::MAX);
        // The line break ends a comment that the query ends with.
        let text = format!(
            "SELECT {merged} FROM (SELECT {names} FROM {table} UNION ALL ({head} BETWEEN SEQ {first} AND {last}{tail}\n)) AS folded GROUP BY {keys}"
        );
        // It is longer and deeper than the query.
        guard::check(&text).is_ok().then_some(text)
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Where the only `FROM events` outside of brackets ends, in bytes.
fn end_of_table(sql: &str, tokens: &[TokenWithSpan]) -> Option<usize> {
    let mut tokens: Vec<&TokenWithSpan> = tokens.iter().collect();
    tokens.retain(|token| !matches!(token.token, Token::Whitespace(_)));
    let (mut depth, mut found) = (0_i64, None);
    for (at, token) in tokens.iter().enumerate() {
        match &token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            Token::Word(word) if depth == 0 && is_word(word, "from") => {
                let table = tokens.get(at + 1)?;
                let is_events = matches!(&table.token, Token::Word(word) if is_events(word));
                let is_qualified =
                    tokens.get(at + 2).is_some_and(|next| next.token == Token::Period);
                if !is_events || is_qualified {
                    continue;
                }
                if found.is_some() {
                    return None;
                }
                found = Some(table.span.end);
            }
            _ => (),
        }
    }
    let end = found?;
    // Lines and columns count from 1, columns in letters, and the end is behind the last letter.
    let lines_before = usize::try_from(end.line.checked_sub(1)?).ok()?;
    let column = usize::try_from(end.column.checked_sub(1)?).ok()?;
    let start: usize = sql.split('\n').take(lines_before).map(|line| line.len() + 1).sum();
    let rest = sql.get(start..)?;
    let place = rest.char_indices().nth(column).map_or(rest.len(), |(at, _)| at);
    // Where a place were told in another way, the table's name would not end there.
    let before = sql.get(..start + place)?.trim_end_matches('"').to_lowercase();
    before.ends_with(EVENTS_TABLE).then_some(start + place)
}

fn is_word(word: &Word, wanted: &str) -> bool {
    word.quote_style.is_none() && word.value.eq_ignore_ascii_case(wanted)
}

fn is_events(word: &Word) -> bool {
    match word.quote_style {
        Some(_) => word.value == EVENTS_TABLE,
        None => word.value.eq_ignore_ascii_case(EVENTS_TABLE),
    }
}

/// What each column is to the merge; none where the query is another one.
fn columns_of(query: &Query) -> Option<Vec<ColumnMerge>> {
    let Query { with, body, order_by, limit_clause, fetch, locks, pipe_operators, .. } = query;
    let is_bare = with.is_none()
        && order_by.is_none()
        && limit_clause.is_none()
        && fetch.is_none()
        && locks.is_empty()
        && pipe_operators.is_empty();
    let SetExpr::Select(select) = body.as_ref() else { return None };
    if !is_bare || !is_simple(select) || query.visit(&mut SteadyQuery).is_break() {
        return None;
    }
    let GroupByExpr::Expressions(keys, modifiers) = &select.group_by else { return None };
    if keys.is_empty() || !modifiers.is_empty() {
        return None;
    }
    let mut columns = Vec::with_capacity(select.projection.len());
    let mut is_shown = vec![false; keys.len()];
    for (at, item) in select.projection.iter().enumerate() {
        let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = item else {
            return None;
        };
        if let Some(merge) = aggregate(expr) {
            columns.push(merge);
            continue;
        }
        // The name of a column of the answer may be that of one of the table, too.
        let place = (at + 1).to_string();
        let is_key = |key: &Expr| key == expr || key.to_string() == place;
        let key = keys.iter().position(is_key)?;
        is_shown[key] = true;
        columns.push(ColumnMerge::Key);
    }
    is_shown.into_iter().all(|is_shown| is_shown).then_some(columns)
}

/// Whether a select has no more than columns, one table, a condition and groups.
fn is_simple(select: &Select) -> bool {
    let is_plain = |factor: &TableFactor| matches!(factor, TableFactor::Table { args: None, .. });
    let is_one_table = match select.from.as_slice() {
        [table] => table.joins.is_empty() && is_plain(&table.relation),
        _ => false,
    };
    is_one_table
        && select.distinct.is_none()
        && select.top.is_none()
        && select.having.is_none()
        && select.qualify.is_none()
        && select.lateral_views.is_empty()
        && select.named_window.is_empty()
        && select.flavor == SelectFlavor::Standard
}

/// The merge of an aggregate that adds up.
fn aggregate(expr: &Expr) -> Option<ColumnMerge> {
    let Expr::Function(function) = expr else { return None };
    let merge = match function.name.to_string().to_lowercase().as_str() {
        "count" | "sum" => ColumnMerge::Sum,
        "min" => ColumnMerge::Min,
        "max" => ColumnMerge::Max,
        _ => return None,
    };
    let FunctionArguments::List(list) = &function.args else { return None };
    let is_whole = list.duplicate_treatment != Some(DuplicateTreatment::Distinct)
        && list.clauses.is_empty()
        && function.over.is_none()
        && function.null_treatment.is_none()
        && function.within_group.is_empty();
    is_whole.then_some(merge)
}

/// Ends at what may give another answer later, and at queries in expressions. Columns of JSON paths are null in old
/// files until compaction fills them.
struct SteadyQuery;

impl SteadyQuery {
    fn is_steady(Function { name, args, .. }: &Function) -> bool {
        let name = name.to_string().to_lowercase();
        let is_known = STEADY_FUNCTIONS.contains(&name.as_str())
            || ["count", "sum", "min", "max"].contains(&name.as_str());
        is_known && matches!(args, FunctionArguments::List(_))
    }

    /// Whether a name may be that of a column that compaction fills in for events of before.
    fn is_of_path(name: &Ident) -> bool {
        name.value.contains(promoted::SEPARATOR)
    }
}

impl Visitor for SteadyQuery {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        let is_steady = match expr {
            Expr::Function(function) => Self::is_steady(function),
            Expr::Identifier(name) => !Self::is_of_path(name),
            Expr::CompoundIdentifier(names) => !names.iter().any(Self::is_of_path),
            Expr::Subquery(_) | Expr::InSubquery { .. } | Expr::Exists { .. } => false,
            _ => true,
        };
        if is_steady { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 3] = ["k", "n", "most"];

    fn merged(sql: &str) -> Option<String> {
        IncrementalAggregate::of(sql)?.merged_with("Daily", &NAMES, 7)
    }

    #[test]
    fn counts_sums_and_bounds_by_group_are_merged_with_the_rows_of_before() {
        let sql = "SELECT lower(type) AS k, count(*) AS n, max(duration_ms) AS most\nFROM Events e WHERE extract(hour FROM ts) < 6 GROUP BY 1 -- by type";
        let wanted = "SELECT \"k\", sum(\"n\") AS \"n\", max(\"most\") AS \"most\" FROM (SELECT \"k\", \"n\", \"most\" FROM \"Daily\" UNION ALL (SELECT lower(type) AS k, count(*) AS n, max(duration_ms) AS most\nFROM Events BETWEEN SEQ 8 AND 9223372036854775807 e WHERE extract(hour FROM ts) < 6 GROUP BY 1 -- by type\n)) AS folded GROUP BY \"k\"";
        assert_eq!(merged(sql).as_deref(), Some(wanted));
        guard::check(wanted).unwrap();
        let by_expression = "SELECT date_trunc('day', ts), sum(seq), min(seq) FROM \"events\" GROUP BY date_trunc('day', ts)";
        guard::check(&merged(by_expression).unwrap()).unwrap();
        let filtered =
            "SELECT type, count(*) FILTER (WHERE seq > 3), max(ts) FROM events GROUP BY type";
        guard::check(&merged(filtered).unwrap()).unwrap();
        let two = IncrementalAggregate::of("SELECT type, count(*) FROM events GROUP BY type");
        assert_eq!(two.unwrap().merged_with("t", &NAMES, 7), None, "a column was added");
    }

    #[test]
    fn every_other_query_is_none() {
        for sql in [
            "SELECT type, count(DISTINCT actor) FROM events GROUP BY type",
            "SELECT type, avg(seq) FROM events GROUP BY type",
            "SELECT type, count(*) + 1 FROM events GROUP BY type",
            "SELECT count(*) FROM events",
            "SELECT count(*) FROM events GROUP BY type",
            "SELECT type FROM events",
            "SELECT date_trunc('day', ts) AS ts, count(*) FROM events GROUP BY ts",
            "SELECT type, count(*) FROM events WHERE ts > now() GROUP BY type",
            "SELECT type, count(*) FROM events WHERE ts > current_date GROUP BY type",
            "SELECT type, count(*) FROM events WHERE random() < 0.5 GROUP BY type",
            "SELECT type, count(*) FROM events WHERE seq IN (SELECT 1) GROUP BY type",
            "SELECT type, count(*) FROM events GROUP BY type HAVING count(*) > 1",
            "SELECT type, count(*) FROM events GROUP BY type ORDER BY 1",
            "SELECT type, count(*) FROM events GROUP BY type LIMIT 1",
            "SELECT type, count(*) FROM events GROUP BY ROLLUP (type)",
            "SELECT type, count(*) FROM shop.events GROUP BY type",
            "SELECT type, count(*) FROM other GROUP BY type",
            "SELECT type, count(*) FROM events FOR VERSION AS OF 'a' GROUP BY type",
            "SELECT type, count(*) FROM events, other GROUP BY type",
            "SELECT type, count(*) FROM (SELECT * FROM events) AS e GROUP BY type",
            "WITH e AS (SELECT 1) SELECT type, count(*) FROM events GROUP BY type",
            "SELECT type, count(*) OVER () FROM events GROUP BY type",
            "SELECT type, sum(data__count) FROM events GROUP BY type",
            "SELECT e.\"data__user__id\", count(*) FROM events e GROUP BY 1",
            "SELECT type, count(*) FROM events WHERE data__is_paid GROUP BY type",
            "SELECT DISTINCT type, count(*) FROM events GROUP BY type",
            "SELECT type, sum(data__amount) FROM events GROUP BY type",
            "SELECT type, count(*) FROM events e WHERE e.\"data__amount\" > 1 GROUP BY type",
            "SELEC",
        ] {
            assert_eq!(IncrementalAggregate::of(sql), None, "{sql}");
        }
    }
}
