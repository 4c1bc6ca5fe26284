//! Views of the catalog: each is planned as a query of its own and stands in the plan where it is named.
//!
//! Names in it that have no namespace are of the view's own. What it may read is decided where the view of
//! the stores is taken, by who asks and not by who made it.

use crate::{
    aliases::{self, TableColumns},
    column_lists,
    error::SqlError,
    failure,
    guard::{JOINS_MAX, RELATIONS_MAX, SUBQUERY_DEPTH_MAX},
    metadata_tables, names, plan_limits,
    query_process::QueryProcess,
    session::CATALOG,
    stop::QuerySignal,
    structs,
    view::CatalogView,
};
use datafusion::{
    common::{
        Column,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    datasource::ViewTable,
    error::DataFusionError,
    execution::session_state::SessionStateBuilder,
    logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder},
    prelude::SessionContext,
    sql::{
        parser::Statement,
        sqlparser::{
            dialect::GenericDialect,
            tokenizer::{Token, Tokenizer},
        },
    },
};
use std::sync::Arc;

/// Most steps of a plan, with those of its views: it is walked through many times before it runs.
const PLAN_STEPS_MAX: usize = 10_000;
/// Dialects where double quotes are around names and `\` is a letter like others, as here.
const STANDARD_QUOTES: &[&str] = &["icecore", "datafusion", "duckdb", "trino"];
/// Dialects where `/` of whole numbers is a whole number, as here.
const WHOLE_DIVISION: &[&str] = &["icecore", "datafusion", "trino"];

/// Refuses a query of a view with signs that may mean something else in its dialect than here.
///
/// # Errors
/// [`SqlError::Invalid`] says which.
pub fn check_dialect(dialect: &str, sql: &str) -> Result<(), SqlError> {
    let is_of = |names: &[&str]| names.iter().any(|name| name.eq_ignore_ascii_case(dialect));
    let (has_quotes, divides_whole) = (is_of(STANDARD_QUOTES), is_of(WHOLE_DIVISION));
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize();
    for token in tokens.map_err(|cause| SqlError::Invalid(cause.to_string()))? {
        let reason = match token {
            Token::Word(word) if word.quote_style == Some('"') && !has_quotes => {
                "double quotes may be around text there; write them around no name"
            }
            Token::SingleQuotedString(text) if text.contains('\\') && !has_quotes => {
                "`\\` in a text may begin an escape there; write the text without it"
            }
            Token::Div if !divides_whole => {
                "`/` of whole numbers may have a fraction there; add a query in the dialect `icecore`"
            }
            _ => continue,
        };
        return Err(SqlError::Invalid(reason.to_owned()));
    }
    Ok(())
}

/// The columns that the names in a view can mean.
#[derive(Clone, Copy, Debug)]
pub struct ColumnNames<'a> {
    /// All of them.
    pub all: &'a [String],
    /// Those of each table.
    pub by_table: &'a TableColumns,
    /// Where the view is planned.
    pub process: QueryProcess,
}

/// Plans the views and puts them beside the tables of a session, until the query is over.
///
/// # Errors
/// [`SqlError::Invalid`] names the view that cannot be planned, and why; [`SqlError::Limit`].
pub async fn register(
    context: &SessionContext,
    views: &[CatalogView],
    columns: ColumnNames<'_>,
    signal: &QuerySignal,
) -> Result<(), SqlError> {
    for view in views {
        // Planning does not yield.
        signal.check()?;
        let plan = Box::pin(plan(context, view, columns)).await?;
        let text = view.statement.text.clone();
        let table = Arc::new(ViewTable::new(plan, Some(text)));
        let schema = context.catalog(CATALOG).and_then(|catalog| catalog.schema(&view.namespace));
        let Some(schema) = schema else {
            return Err(refused(view, "its namespace is not there"));
        };
        schema.register_table(view.name.clone(), table).map_err(|cause| failure::of(&cause))?;
    }
    Ok(())
}

async fn plan(
    context: &SessionContext,
    view: &CatalogView,
    columns: ColumnNames<'_>,
) -> Result<LogicalPlan, SqlError> {
    let mut statement = view.statement.statement.clone();
    column_lists::move_into_queries(&mut statement);
    metadata_tables::rename(&mut statement, &view.rewritten);
    aliases::resolve(&mut statement, &view.home, columns.by_table);
    names::resolve(&mut statement, columns.all);
    structs::read_members(&mut statement);
    let state = context.state();
    let config = state.config().clone().with_default_catalog_and_schema(CATALOG, &view.home);
    let state = SessionStateBuilder::new_from_existing(state).with_config(config).build();
    let plan = Box::pin(state.statement_to_plan(Statement::Statement(Box::new(statement)))).await;
    let plan = plan.map_err(|cause| refused(view, &failure::of(&cause).to_string()))?;
    let is_small = check_size(&plan).and_then(|()| plan_limits::check(&plan, columns.process));
    is_small.map_err(|cause| refused(view, &cause.to_string()))?;
    // Its mentions are numbered from 1 like those of the statement, and are not told from them.
    if is_drawn(&plan).map_err(|cause| failure::of(&cause))? {
        let reason = "it draws values, as random() and uuid() do; write its query";
        return Err(refused(view, reason));
    }
    let (found, told) = (plan.schema().fields().len(), view.columns.len());
    if found != told {
        return Err(refused(
            view,
            &format!("its query has {found} columns, and the view {told}; replace the view"),
        ));
    }
    named(plan, &view.columns).map_err(|cause| failure::of(&cause))
}

/// Whether a plan has a function whose value is another one each time.
fn is_drawn(plan: &LogicalPlan) -> Result<bool, DataFusionError> {
    let mut is_drawn = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expression| {
            is_drawn |= expression.is_volatile();
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(is_drawn)
}

/// Refuses a plan that is too large: the bounds of a statement do not count what is behind a view.
///
/// # Errors
/// [`SqlError::Invalid`] says what is too much.
pub fn check_size(plan: &LogicalPlan) -> Result<(), SqlError> {
    PlanSize::default().add(plan, 0).map_err(|cause| failure::of(&cause))
}

/// What is counted of a plan.
#[derive(Default)]
struct PlanSize {
    steps: usize,
    tables: usize,
    joins: usize,
}

impl PlanSize {
    /// Counts a plan that is inside of so many queries in expressions. It ends where there is too much: views
    /// that name one another several times make plans that nobody could walk through.
    fn add(&mut self, plan: &LogicalPlan, subqueries: usize) -> Result<(), DataFusionError> {
        at_most(SUBQUERY_DEPTH_MAX, subqueries, "levels of queries in expressions")?;
        plan.apply(|node| {
            self.steps += 1;
            // Rows of constants are a table, too.
            self.tables += usize::from(node.inputs().is_empty());
            self.joins += usize::from(matches!(node, LogicalPlan::Join(_)));
            at_most(RELATIONS_MAX, self.tables, "tables")?;
            at_most(JOINS_MAX, self.joins, "joins")?;
            at_most(PLAN_STEPS_MAX, self.steps, "steps of its plan")?;
            node.apply_subqueries(|query| {
                self.add(query, subqueries + 1)?;
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        Ok(())
    }
}

fn at_most(most: usize, count: usize, what: &str) -> Result<(), DataFusionError> {
    if count <= most {
        return Ok(());
    }
    let text = format!("the statement has more than {most} {what}, with those of its views");
    Err(DataFusionError::External(Box::new(SqlError::Invalid(text))))
}

/// The plan with these names for its columns. A column that has its name already is not named again: DataFusion's
/// rule that moves the members of structs down would add it a second time.
fn named(plan: LogicalPlan, names: &[String]) -> Result<LogicalPlan, DataFusionError> {
    let columns: Vec<Expr> = plan
        .schema()
        .iter()
        .zip(names)
        .map(|((qualifier, field), name)| {
            let column = Expr::Column(Column::from((qualifier, field)));
            if field.name() == name { column } else { column.alias(name) }
        })
        .collect();
    LogicalPlanBuilder::from(plan).project(columns)?.build()
}

fn refused(view: &CatalogView, reason: &str) -> SqlError {
    SqlError::Invalid(format!("view `{}.{}` cannot be read: {reason}", view.namespace, view.name))
}

#[cfg(test)]
mod tests;
