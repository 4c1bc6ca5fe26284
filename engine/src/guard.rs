//! What may be planned at all: one query statement of bounded size and shape.
//!
//! Bounds are counted on the tokens before anything recurses over the statement, because one deep
//! or exponential statement would otherwise end the process. What a name means is not decided here.

mod tokens;

use crate::{
    clauses, described, dialect, distinct, draws,
    error::SqlError,
    grammar::{self, Grammar},
    labels::ColumnLabels,
    layout, multisets, nulls, number_literals,
    query_process::is_unbounded,
    same_names,
    show_statements::{self, DefinitionKind},
    summary, syntax, table_functions,
    versions::{self, TableVersion},
};
use datafusion::sql::sqlparser::{
    ast::{
        Expr, Function, ObjectName, Query, Select, SelectItem, SetExpr, Statement, TableFactor,
        Value, ValueWithSpan, Visit, Visitor,
    },
    parser::{Parser, ParserOptions},
    tokenizer::{Token, TokenWithSpan, Tokenizer},
};
use serde::{Deserialize, Serialize};
use std::{collections::HashMap, ops::ControlFlow};

/// Longest statement.
pub const SQL_BYTES_MAX: usize = 64 * 1024;
/// Most operators between expressions; a chain of them is as deep as it is long.
pub const OPERATORS_MAX: usize = 1_000;
/// Most `UNION`, `INTERSECT` and `EXCEPT`.
pub const SET_OPERATIONS_MAX: usize = 200;
/// Deepest nesting of brackets, `CASE` and prefix operators.
pub const DEPTH_MAX: usize = 100;
/// Deepest nesting of queries in expressions (`IN (SELECT …)`): each level doubles planning time.
pub const SUBQUERY_DEPTH_MAX: usize = 8;
/// Most `JOIN`s of a statement, and most tables in one `FROM`: planning time grows with their cube.
pub const JOINS_MAX: usize = 40;
/// Most tables read, with each use of a common table expression counted as what it stands for.
pub const RELATIONS_MAX: usize = 250;

/// Most common table expressions: each may stand on the one before it, so they nest a plan.
pub const CTES_MAX: usize = 50;
/// Deepest nesting of queries with `WITH`: each level doubles the search for names of tables.
pub const WITH_DEPTH_MAX: usize = 8;

/// Most `*` and `t.*` of one SELECT: each stands for all columns of its tables.
pub const WILDCARDS_MAX: usize = 10;
/// Most columns of all `CUBE`, `ROLLUP` and `GROUPING SETS`: each doubles the groups of a cube.
pub const GROUPING_COLUMNS_MAX: usize = 10;

/// A statement that may be planned. It is sent as its text, and checked again where it arrives.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CheckedStatement {
    /// As it was sent.
    pub text: String,
    /// The statement.
    pub statement: Statement,
    /// What its columns are called.
    pub labels: ColumnLabels,
    /// Whether it gives rows of tables, so that a row limit may be put on its plan.
    pub is_query: bool,
    /// Whether a summary of its rows is asked for.
    pub is_summary: bool,
    /// Which definition it asks for: it describes the table then.
    pub definition: Option<DefinitionKind>,
    /// How often it names one of the request's values.
    pub placeholders: usize,
    /// The highest number of those that it names.
    pub params_max: usize,
    /// Whether it reads by paths of the earlier layout.
    pub reads_paths: bool,
    /// Its tables at points of their history, under names of their own.
    pub versions: Vec<TableVersion>,
}

impl From<CheckedStatement> for String {
    fn from(checked: CheckedStatement) -> Self {
        checked.text
    }
}

impl TryFrom<String> for CheckedStatement {
    type Error = SqlError;

    fn try_from(text: String) -> Result<Self, SqlError> {
        check(&text)
    }
}

impl CheckedStatement {
    /// Whether its work may be more than its length.
    #[must_use]
    pub fn reads_tables(&self) -> bool {
        struct TableSearch;
        impl Visitor for TableSearch {
            type Break = ();
            fn pre_visit_table_factor(&mut self, _: &TableFactor) -> ControlFlow<()> {
                ControlFlow::Break(())
            }
            fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
                let is_more = matches!(expr, Expr::Function(call) if is_unbounded(&call.name));
                if is_more { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            }
        }
        match &self.statement {
            Statement::Query(query) => query.visit(&mut TableSearch).is_break(),
            _ => true,
        }
    }
}

/// Parses `sql` and refuses everything but one bounded query.
///
/// # Errors
/// [`SqlError::Invalid`] says what is too much or not allowed.
pub fn check(sql: &str) -> Result<CheckedStatement, SqlError> {
    if SQL_BYTES_MAX < sql.len() {
        return Err(invalid(format!("the statement is longer than {SQL_BYTES_MAX} bytes")));
    }
    let dialect = Grammar::default();
    let mut located = Tokenizer::new(&dialect, sql)
        .tokenize_with_location()
        .map_err(|error| syntax::of_token(&error))?;
    let tokens: Vec<Token> = located.iter().map(|located| located.token.clone()).collect();
    if let ControlFlow::Break(reason) = tokens::check(&tokens) {
        return Err(invalid(reason));
    }
    number_literals::check(sql, &located)?;
    if let ControlFlow::Break(reason) = clauses::words(&tokens) {
        return Err(invalid(reason));
    }
    let is_summary = summary::take_word(&mut located);
    write_out_differences(&mut located)?;
    let versions = versions::spelling::take_out(&mut located, sql)?;
    grammar::name_after_commas(&mut located);
    distinct::mark(&mut located).map_err(invalid)?;
    let statements = Parser::new(&dialect)
        .with_options(ParserOptions::new().with_trailing_commas(false))
        .with_recursion_limit(DEPTH_MAX)
        .with_tokens_with_locations(located)
        .parse_statements()
        .map_err(|error| syntax::of_statement(&error, sql))?;
    let [mut statement] = <[Statement; 1]>::try_from(statements).map_err(|statements| {
        invalid(format!("exactly one statement is allowed, not {}", statements.len()))
    })?;
    let is_query = check_statement(&statement)?;
    if is_summary && !is_query {
        return Err(invalid("SUMMARIZE takes a table or a query"));
    }
    distinct::unmark(&mut statement);
    grammar::select_all(&mut statement);
    let reads_paths = layout::rewrite(&mut statement).map_err(invalid)?;
    table_functions::rewrite(&mut statement);
    let params_max = check_shape(&statement)?.params_max.max(versions::params_max(&versions));
    versions::scopes::name_tables(&mut statement, &versions).map_err(invalid)?;
    let labels = match is_summary {
        true => ColumnLabels::default(),
        false => ColumnLabels::of(&statement),
    };
    described::show_tables(&mut statement);
    let definition = show_statements::rewrite(&mut statement).map_err(invalid)?;
    draws::number(&mut statement).map_err(invalid)?;
    multisets::number_copies(&mut statement).map_err(invalid)?;
    dialect::translate(&mut statement).map_err(invalid)?;
    same_names::tell_apart(&mut statement);
    nulls::spell_out(&mut statement).map_err(invalid)?;
    // What is written once may now be read several times.
    let placeholders = check_shape(&statement)?.placeholders;
    let text = sql.to_owned();
    Ok(CheckedStatement {
        text,
        statement,
        labels,
        is_query,
        is_summary,
        definition,
        placeholders,
        params_max,
        reads_paths,
        versions,
    })
}

/// Puts queries in the place of calls of `collection_diff`. They count as if they had been sent.
fn write_out_differences(located: &mut Vec<TokenWithSpan>) -> Result<(), SqlError> {
    if !versions::differences::write_out(located)? {
        return Ok(());
    }
    let tokens: Vec<Token> = located.iter().map(|located| located.token.clone()).collect();
    match tokens::check(&tokens) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(reason) => Err(invalid(reason)),
    }
}

/// Refuses a shape that is too large.
fn check_shape(statement: &Statement) -> Result<StatementShape, SqlError> {
    let mut shape = StatementShape::default();
    match statement.visit(&mut shape) {
        ControlFlow::Continue(()) => Ok(shape),
        ControlFlow::Break(reason) => Err(invalid(reason)),
    }
}

fn invalid(text: impl Into<String>) -> SqlError {
    SqlError::Invalid(text.into())
}

/// Whether the statement is a query; an error when it may not run at all.
fn check_statement(statement: &Statement) -> Result<bool, SqlError> {
    match statement {
        Statement::Query(_) => Ok(true),
        Statement::Explain { statement, .. } => match statement.as_ref() {
            Statement::Query(_) => Ok(false),
            _ => Err(not_a_query()),
        },
        Statement::ExplainTable { .. }
        | Statement::ShowTables { .. }
        | Statement::ShowColumns { .. }
        | Statement::ShowSchemas { .. }
        | Statement::ShowDatabases { .. }
        | Statement::ShowFunctions { .. }
        | Statement::ShowCreate { .. } => Ok(false),
        Statement::ShowViews { .. } => Err(invalid(
            "SHOW does not list views: GET /catalog/v1/namespaces/NAMESPACE/views does, and SHOW CREATE VIEW shows one",
        )),
        _ => Err(not_a_query()),
    }
}

fn not_a_query() -> SqlError {
    invalid(
        "only queries are allowed: SELECT, WITH, VALUES, EXPLAIN, DESCRIBE and SHOW of tables, columns, schemas, functions and CREATE; send events with POST /ingest",
    )
}

/// Walks the whole statement for what no token tells.
#[derive(Default)]
struct StatementShape {
    /// How many tables each common table expression stands for.
    weights: HashMap<String, usize>,
    /// Common table expressions by the address of their query, until that query ends.
    names: HashMap<usize, String>,
    /// Tables read by each open query.
    open: Vec<usize>,
    /// Open expressions that hold a query.
    subqueries: usize,
    /// Common table expressions so far.
    ctes: usize,
    /// Open queries that have some.
    open_withs: usize,
    /// Columns of grouping sets so far.
    grouping_columns: usize,
    /// Places for the request's values so far.
    placeholders: usize,
    /// The highest number of one.
    params_max: usize,
}

impl StatementShape {
    fn add(&mut self, relations: usize) -> ControlFlow<String> {
        let Some(count) = self.open.last_mut() else { return ControlFlow::Continue(()) };
        *count = count.saturating_add(relations);
        if *count <= RELATIONS_MAX {
            return ControlFlow::Continue(());
        }
        refuse(format!("the statement reads more than {RELATIONS_MAX} tables"))
    }
}

fn refuse(reason: impl Into<String>) -> ControlFlow<String> {
    ControlFlow::Break(reason.into())
}

fn at_most(most: usize, count: usize, what: &str) -> ControlFlow<String> {
    if count <= most {
        return ControlFlow::Continue(());
    }
    refuse(format!("the statement has more than {most} {what}"))
}

fn address(query: &Query) -> usize {
    std::ptr::from_ref(query).addr()
}

impl Visitor for StatementShape {
    type Break = String;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Self::Break> {
        if let Some(with) = &query.with {
            if with.recursive {
                return refuse("WITH RECURSIVE is not available: its result can exceed memory");
            }
            self.ctes += with.cte_tables.len();
            at_most(CTES_MAX, self.ctes, "common table expressions")?;
            self.open_withs += 1;
            at_most(WITH_DEPTH_MAX, self.open_withs, "queries with WITH inside of one another")?;
            for cte in &with.cte_tables {
                let name = cte.alias.name.value.to_lowercase();
                self.names.insert(address(&cte.query), name);
            }
        }
        clauses::query(query)?;
        if has_write(&query.body) {
            return refuse(not_a_query().to_string());
        }
        self.open.push(0);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<Self::Break> {
        let relations = self.open.pop().unwrap_or(0);
        self.open_withs -= usize::from(query.with.is_some());
        match self.names.remove(&address(query)) {
            Some(name) => {
                let weight = self.weights.entry(name).or_insert(1);
                *weight = (*weight).max(relations);
                ControlFlow::Continue(())
            }
            None => self.add(relations),
        }
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Self::Break> {
        clauses::select(select)?;
        if JOINS_MAX < select.from.len() {
            return refuse(format!("a FROM has more than {JOINS_MAX} tables"));
        }
        let wildcards = select.projection.iter().filter(|item| is_wildcard(item)).count();
        if WILDCARDS_MAX < wildcards {
            return refuse(format!("a SELECT has `*` more than {WILDCARDS_MAX} times"));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<Self::Break> {
        let weight = self.weights.get(&relation.to_string().to_lowercase()).copied().unwrap_or(1);
        self.add(weight)
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Self::Break> {
        clauses::table_factor(factor)
    }

    fn pre_visit_value(&mut self, value: &ValueWithSpan) -> ControlFlow<Self::Break> {
        if let Value::Placeholder(name) = &value.value {
            self.placeholders += 1;
            let number = name.strip_prefix('$').and_then(|number| number.parse().ok());
            self.params_max = self.params_max.max(number.unwrap_or(0));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Self::Break> {
        self.subqueries -= levels(expr);
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Self::Break> {
        self.subqueries += levels(expr);
        if SUBQUERY_DEPTH_MAX < self.subqueries {
            return refuse(format!(
                "queries in expressions are nested more than {SUBQUERY_DEPTH_MAX} levels deep; a list behind ANY or ALL counts as two"
            ));
        }
        clauses::expression(expr)?;
        match expr {
            Expr::Function(Function { name, .. }) => {
                let name = name.to_string().to_lowercase();
                if name == "age" {
                    return refuse(
                        "function `age` is not available: write `later - earlier`, or date_part('year', later) - date_part('year', earlier)",
                    );
                }
            }
            Expr::Tuple(parts) if parts.is_empty() => {
                return refuse(
                    "GROUP BY () is not supported here; leave it out, aggregates alone have one row",
                );
            }
            // As structs they would be compared with other rules for NULL than SQL's.
            Expr::Tuple(_) => {
                return refuse("tuples cannot be compared here; compare columns one by one");
            }
            Expr::Cube(sets) | Expr::Rollup(sets) | Expr::GroupingSets(sets) => {
                self.grouping_columns += sets.iter().map(Vec::len).sum::<usize>();
                if GROUPING_COLUMNS_MAX < self.grouping_columns {
                    return refuse(format!(
                        "CUBE, ROLLUP and GROUPING SETS name more than {GROUPING_COLUMNS_MAX} columns"
                    ));
                }
            }
            _ => (),
        }
        ControlFlow::Continue(())
    }
}

fn is_wildcard(item: &SelectItem) -> bool {
    matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..))
}

/// How many levels deeper what is in an expression stands: the planner copies a list and what it is
/// compared with.
fn levels(expr: &Expr) -> usize {
    match expr {
        Expr::Subquery(_) | Expr::InSubquery { .. } | Expr::Exists { .. } => 1,
        Expr::AnyOp { right, .. } | Expr::AllOp { right, .. }
            if nulls::query_of(right).is_none() =>
        {
            2
        }
        _ => 0,
    }
}

fn has_write(body: &SetExpr) -> bool {
    match body {
        SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => true,
        SetExpr::SetOperation { left, right, .. } => has_write(left) || has_write(right),
        SetExpr::Select(_) | SetExpr::Query(_) | SetExpr::Values(_) | SetExpr::Table(_) => false,
    }
}

#[cfg(test)]
mod tests;
