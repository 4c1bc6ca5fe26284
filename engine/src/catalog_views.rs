//! Views of the catalog: each is planned as a query of its own and stands in the plan where it is named.
//!
//! Names in it that have no namespace are of the view's own. What it may read is decided where the view of
//! the stores is taken, by who asks and not by who made it.

use crate::{
    column_lists,
    error::SqlError,
    failure,
    guard::{JOINS_MAX, RELATIONS_MAX},
    metadata_tables, names,
    session::CATALOG,
    view::CatalogView,
};
use datafusion::{
    common::{Column, tree_node::TreeNodeRecursion},
    datasource::ViewTable,
    error::DataFusionError,
    execution::session_state::SessionStateBuilder,
    logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder},
    prelude::SessionContext,
    sql::parser::Statement,
};
use std::sync::Arc;

/// Plans the views and puts them beside the tables of a session. `columns` are the names of all columns
/// that they can mean.
///
/// # Errors
/// [`SqlError::Invalid`] names the view that cannot be planned, and why.
pub async fn register(
    context: &SessionContext,
    views: &[CatalogView],
    columns: &[String],
) -> Result<(), SqlError> {
    for view in views {
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
    columns: &[String],
) -> Result<LogicalPlan, SqlError> {
    let mut statement = view.statement.statement.clone();
    column_lists::move_into_queries(&mut statement);
    metadata_tables::rename(&mut statement, &view.rewritten);
    names::resolve(&mut statement, columns);
    let state = context.state();
    let config = state.config().clone().with_default_catalog_and_schema(CATALOG, &view.home);
    let state = SessionStateBuilder::new_from_existing(state).with_config(config).build();
    let plan = Box::pin(state.statement_to_plan(Statement::Statement(Box::new(statement)))).await;
    let plan = plan.map_err(|cause| refused(view, &failure::of(&cause).to_string()))?;
    check_size(&plan).map_err(|cause| refused(view, &cause.to_string()))?;
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

/// Refuses a plan with too many tables: the bounds of a statement do not count what is behind a view.
///
/// # Errors
/// [`SqlError::Invalid`] says what is too much.
pub fn check_size(plan: &LogicalPlan) -> Result<(), SqlError> {
    let (mut tables, mut joins) = (0_usize, 0_usize);
    let counted = plan.apply_with_subqueries(|node| {
        tables += usize::from(matches!(node, LogicalPlan::TableScan(_)));
        joins += usize::from(matches!(node, LogicalPlan::Join(_)));
        Ok(TreeNodeRecursion::Continue)
    });
    counted.map_err(|cause| failure::of(&cause))?;
    let too_many = |most: usize, what: &str| {
        let text = format!("the statement has more than {most} {what}, with those of its views");
        Err(SqlError::Invalid(text))
    };
    if RELATIONS_MAX < tables {
        return too_many(RELATIONS_MAX, "tables");
    }
    if JOINS_MAX < joins {
        return too_many(JOINS_MAX, "joins");
    }
    Ok(())
}

/// The plan with these names for its columns.
fn named(plan: LogicalPlan, names: &[String]) -> Result<LogicalPlan, DataFusionError> {
    let columns: Vec<Expr> = plan
        .schema()
        .iter()
        .zip(names)
        .map(|(column, name)| Expr::Column(Column::from(column)).alias(name))
        .collect();
    LogicalPlanBuilder::from(plan).project(columns)?.build()
}

fn refused(view: &CatalogView, reason: &str) -> SqlError {
    SqlError::Invalid(format!("view `{}.{}` cannot be read: {reason}", view.namespace, view.name))
}
