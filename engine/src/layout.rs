//! Paths of the earlier layout of files, as `read_parquet('events/2026/11/**/*.parquet')`: each is a query over
//! `events`.
//!
//! `[r2://bucket/]events/{year}/{month}/{day}/{hour}/*.parquet` is a range of `ts`, and
//! `cdc/{worker}/{collection}/deltas/*.parquet` the changes of a collection. Bucket and worker say where
//! the files were, and nothing else. Nothing is read by such a path: one that is none of these is refused.

use crate::{
    change_views,
    clauses::{self, ClauseVerdict},
};
use chrono::{Days, Months, NaiveDate, NaiveDateTime, TimeDelta};
use datafusion::sql::sqlparser::{
    ast::{
        BinaryOperator, Expr, FunctionArg, FunctionArgExpr, Ident, ObjectName, Query, Statement,
        TableAlias, TableFactor, TableFunctionArgs, Value, VisitMut, VisitorMut,
    },
    dialect::GenericDialect,
    parser::Parser,
};
use icecore_schemas::service_table::EVENTS_TABLE;
use std::ops::ControlFlow;

/// The functions that take such paths.
const READERS: &[&str] = &[
    "parquet_scan",
    "read_json",
    "read_json_auto",
    "read_ndjson",
    "read_ndjson_auto",
    "read_parquet",
];
/// Options that change nothing here: there are no files whose names or folders could be columns.
const OPTIONS: &[&str] = &["filename", "hive_partitioning", "union_by_name"];
/// Where the files were that a path may have in front.
const SCHEMES: &[&str] = &["r2", "s3"];
/// How the name of the files may end.
const ENDINGS: &[&str] =
    &["parquet", "jsonl", "jsonl.gz", "ndjson", "ndjson.gz", "json", "json.gz"];
/// The levels of folders, with the smallest and the greatest number of each.
const LEVELS: [(&str, u32, u32); 4] =
    [("year", 1, 9998), ("month", 1, 12), ("day", 1, 31), ("hour", 0, 23)];

/// Writes paths as the queries that they stand for, and says whether there are any.
///
/// # Errors
/// A path that is none of the layout, or an option that is not known; the text says what is accepted.
pub fn rewrite(statement: &mut Statement) -> Result<bool, String> {
    let mut visitor = PathVisitor { has_path: false, hides_events: false };
    if let ControlFlow::Break(reason) = VisitMut::visit(statement, &mut visitor) {
        return Err(reason);
    }
    if visitor.has_path && visitor.hides_events {
        return Err(format!(
            "a path reads table `{EVENTS_TABLE}`; give the query in WITH that has this name another one"
        ));
    }
    Ok(visitor.has_path)
}

struct PathVisitor {
    has_path: bool,
    /// Whether a common table expression is called as the table that paths read.
    hides_events: bool,
}

impl VisitorMut for PathVisitor {
    type Break = String;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<String> {
        let mut queries = query.with.iter().flat_map(|with| &with.cte_tables);
        self.hides_events |=
            queries.any(|cte| cte.alias.name.value.eq_ignore_ascii_case(EVENTS_TABLE));
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<String> {
        let clauses = clauses_of(factor);
        let TableFactor::Table { name, alias, args: Some(args), version, .. } = factor else {
            return ControlFlow::Continue(());
        };
        let Some(reader) = reader(name) else { return ControlFlow::Continue(()) };
        if version.is_some() {
            return ControlFlow::Break(format!(
                "a path has no versions; read table `{EVENTS_TABLE}` with one"
            ));
        }
        clauses?;
        let query = match query_of(reader, args) {
            Ok(query) => query,
            Err(reason) => return ControlFlow::Break(reason),
        };
        let name = Ident::new(reader);
        let alias = alias.take().unwrap_or(TableAlias {
            explicit: true,
            name,
            columns: Vec::new(),
            at: None,
        });
        *factor = TableFactor::Derived {
            lateral: false,
            subquery: query,
            alias: Some(alias),
            sample: None,
        };
        self.has_path = true;
        ControlFlow::Continue(())
    }
}

/// What stands behind a call as behind a table: the query in its place has no such clauses.
fn clauses_of(factor: &TableFactor) -> ClauseVerdict {
    if !matches!(factor, TableFactor::Table { args: Some(_), .. }) {
        return ControlFlow::Continue(());
    }
    let mut table = factor.clone();
    if let TableFactor::Table { args, .. } = &mut table {
        *args = None;
    }
    clauses::table_factor(&table)
}

fn reader(name: &ObjectName) -> Option<&'static str> {
    let [part] = name.0.as_slice() else { return None };
    let name = &part.as_ident()?.value;
    READERS.iter().find(|reader| reader.eq_ignore_ascii_case(name)).copied()
}

/// The query that a call stands for.
fn query_of(
    reader: &str,
    TableFunctionArgs { args, settings }: &TableFunctionArgs,
) -> Result<Box<Query>, String> {
    let Some((path, options)) = args.split_first() else {
        return Err(format!("`{reader}` needs a path; {ACCEPTED}"));
    };
    let path = match path {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(literal))) => match &literal.value {
            Value::SingleQuotedString(path) => path,
            _ => return Err(format!("the path of `{reader}` is a text; {ACCEPTED}")),
        },
        FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Array(_))) => {
            return Err(format!(
                "`{reader}` takes one path here, not a list; write UNION ALL for several"
            ));
        }
        _ => return Err(format!("the path of `{reader}` is a text; {ACCEPTED}")),
    };
    if settings.is_some() {
        return Err(format!("SETTINGS of `{reader}` are not supported here; remove them"));
    }
    for option in options {
        check_option(reader, option)?;
    }
    let sql = sql_of(path).ok_or_else(|| {
        format!("path '{path}' cannot be read: nothing but tables is; {ACCEPTED}")
    })?;
    let query = Parser::new(&GenericDialect {})
        .try_with_sql(&sql)
        .and_then(|mut parser| parser.parse_query());
    Ok(query.expect("the text is SQL"))
}

/// What is said of every path that is refused.
const ACCEPTED: &str = "write the table, or a path of the earlier layout: \
     'events/2026/11/20/14/*.parquet', where `*` or `**` may stand for levels from the year to the hour, \
     or 'cdc/worker/collection/deltas/*.parquet', with r2://bucket/ before it if you like";

/// An option is `name=true`, to the parser a comparison.
fn check_option(reader: &str, option: &FunctionArg) -> Result<(), String> {
    let (name, value) = match option {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::BinaryOp {
            left,
            op: BinaryOperator::Eq,
            right,
        })) => match left.as_ref() {
            Expr::Identifier(name) => (Some(name), Some(right.as_ref())),
            _ => (None, None),
        },
        FunctionArg::Named { name, arg: FunctionArgExpr::Expr(value), .. } => {
            (Some(name), Some(value))
        }
        _ => (None, None),
    };
    let is_known = name
        .is_some_and(|name| OPTIONS.iter().any(|option| option.eq_ignore_ascii_case(&name.value)));
    let is_boolean = value.is_some_and(
        |value| matches!(value, Expr::Value(literal) if matches!(literal.value, Value::Boolean(_))),
    );
    if is_known && is_boolean {
        return Ok(());
    }
    Err(format!(
        "`{option}` is no option of `{reader}` here; it takes {} as true or false, which change nothing",
        OPTIONS.join(", ")
    ))
}

/// The query that a path stands for; none for one that is not of the layout.
fn sql_of(path: &str) -> Option<String> {
    let (has_bucket, path) = match path.split_once("://") {
        Some((scheme, rest)) => {
            let (bucket, path) = rest.split_once('/')?;
            let is_ours = SCHEMES.contains(&scheme) && is_name(bucket);
            is_ours.then_some((true, path))?
        }
        None => (false, path),
    };
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        ["cdc", worker, collection, "deltas", file]
            if (*worker == "*" || is_name(worker)) && is_name(collection) && is_file(file) =>
        {
            Some(change_views::deltas_of(collection))
        }
        ["events", levels @ .., file] if is_file(file) => sql_of_events(levels),
        // The bucket was called so.
        [levels @ .., file] if has_bucket && is_file(file) => sql_of_events(levels),
        _ => None,
    }
}

fn is_name(text: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || ['-', '_', '.'].contains(&c);
    !text.is_empty() && !text.starts_with('.') && text.chars().all(is_allowed)
}

fn is_file(text: &str) -> bool {
    let ending = text.strip_prefix("*.");
    ["*", "**"].contains(&text) || ending.is_some_and(|ending| ENDINGS.contains(&ending))
}

/// The rows whose folder has these levels.
fn sql_of_events(levels: &[&str]) -> Option<String> {
    let numbers = numbers(levels)?;
    let known = numbers.iter().take_while(|number| number.is_some()).count();
    let mut conditions = Vec::new();
    if let Some((from, until)) = range(&numbers[..known]) {
        let [from, until] = [from, until].map(|time| time.format("%Y-%m-%dT%H:%M:%SZ"));
        conditions.push(format!("ts >= CAST('{from}' AS TIMESTAMPTZ)"));
        conditions.push(format!("ts < CAST('{until}' AS TIMESTAMPTZ)"));
    } else if 0 < known {
        return None;
    }
    for ((level, ..), number) in LEVELS.iter().zip(&numbers).skip(known) {
        if let Some(number) = number {
            conditions.push(format!("date_part('{level}', ts) = {number}"));
        }
    }
    let filter = match conditions.is_empty() {
        true => String::new(),
        false => format!(" WHERE {}", conditions.join(" AND ")),
    };
    Some(format!("SELECT * FROM {EVENTS_TABLE}{filter}"))
}

/// The number of each level, where the path names one. `**` stands for any levels, and those that are left out
/// at the end for all that there are.
fn numbers(levels: &[&str]) -> Option<[Option<u32>; 4]> {
    let mut numbers = [None; 4];
    let first = levels.iter().position(|level| *level == "**");
    let last = levels.iter().rposition(|level| *level == "**");
    let (front, back) = match first.zip(last) {
        None => (levels, &[][..]),
        // Several in a row are one.
        Some((first, last)) if levels[first..=last].iter().all(|level| *level == "**") => {
            (&levels[..first], &levels[last + 1..])
        }
        Some(_) => return None,
    };
    if LEVELS.len() < front.len() + back.len() {
        return None;
    }
    let places = (0..front.len()).chain(LEVELS.len() - back.len()..LEVELS.len());
    for (place, level) in places.zip(front.iter().chain(back)) {
        if *level != "*" {
            numbers[place] = Some(number(level, place)?);
        }
    }
    Some(numbers)
}

/// The number that a level is, in its bounds.
fn number(text: &str, place: usize) -> Option<u32> {
    let (_, least, most) = LEVELS[place];
    let digits = if place == 0 { 4..=4 } else { 1..=2 };
    let is_number = digits.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|number| is_number && (least..=most).contains(number))
}

/// From when until when a folder of these levels has rows; none without a year, and for a day that no calendar
/// has.
fn range(numbers: &[Option<u32>]) -> Option<(NaiveDateTime, NaiveDateTime)> {
    let number = |at: usize| numbers.get(at).copied().flatten();
    let year = i32::try_from(number(0)?).ok()?;
    let day = NaiveDate::from_ymd_opt(year, number(1).unwrap_or(1), number(2).unwrap_or(1))?;
    let from = day.and_hms_opt(number(3).unwrap_or(0), 0, 0)?;
    let until = match numbers.len() {
        1 => from.checked_add_months(Months::new(12))?,
        2 => from.checked_add_months(Months::new(1))?,
        3 => from.checked_add_days(Days::new(1))?,
        _ => from.checked_add_signed(TimeDelta::hours(1))?,
    };
    Some((from, until))
}

#[cfg(test)]
mod tests;
