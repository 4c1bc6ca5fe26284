//! Queries in expressions that name columns of the query around them.
//!
//! DataFusion 54 makes joins of them by pulling the conditions that name such columns above all that stands
//! over them. What sees all rows at once then sees those of all outer rows together, and an aggregate that has a row
//! where nothing matches has none (apache/datafusion#24960, #25519, #22317). Here what has one answer for all rows
//! is answered at once, and what would be answered wrong is refused.

use datafusion::{
    common::{
        JoinType,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    error::DataFusionError,
    logical_expr::{
        Aggregate, Distinct, Expr, FetchType, Limit, LogicalPlan, Operator, SkipType, Subquery,
        binary_expr,
        expr::{Exists, InSubquery},
        lit,
    },
};

/// Checks the query of one expression.
///
/// # Errors
/// It has a clause that would be evaluated over the rows of all outer rows together.
pub fn of_expr(expr: Expr) -> Result<Transformed<Expr>, DataFusionError> {
    match expr {
        Expr::Exists(Exists { ref subquery, negated }) if is_correlated(&subquery.subquery) => {
            Ok(match existence(&subquery.subquery)? {
                Some(exists) => Transformed::yes(lit(exists != negated)),
                None => Transformed::no(expr),
            })
        }
        Expr::InSubquery(InSubquery { expr, subquery, negated })
            if is_correlated(&subquery.subquery) =>
        {
            if !is_one_row(&subquery.subquery) {
                check_inner_rows(&subquery.subquery)?;
                let same = InSubquery { expr, subquery, negated };
                return Ok(Transformed::no(Expr::InSubquery(same)));
            }
            check_value(&subquery)?;
            let operator = if negated { Operator::NotEq } else { Operator::Eq };
            Ok(Transformed::yes(binary_expr(*expr, operator, Expr::ScalarSubquery(subquery))))
        }
        Expr::ScalarSubquery(ref subquery) if is_correlated(&subquery.subquery) => {
            check_value(subquery)?;
            Ok(Transformed::no(expr))
        }
        other => Ok(Transformed::no(other)),
    }
}

fn is_correlated(plan: &LogicalPlan) -> bool {
    !plan.all_out_ref_exprs().is_empty()
}

/// Whether there is a row, where that does not depend on what matches.
fn existence(plan: &LogicalPlan) -> Result<Option<bool>, DataFusionError> {
    match plan {
        LogicalPlan::Limit(limit) => match rows_at_most(limit)? {
            Some(0) => Ok(Some(false)),
            _ => existence(&limit.input),
        },
        LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.is_empty() => Ok(Some(true)),
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::Sort(_) => {
            plan.inputs().into_iter().try_fold(None, |_, input| existence(input))
        }
        LogicalPlan::Distinct(Distinct::All(input)) => existence(input),
        _ => check_inner_rows(plan).map(|()| None),
    }
}

/// The row limit of a LIMIT that leaves no rows out before.
fn rows_at_most(limit: &Limit) -> Result<Option<usize>, DataFusionError> {
    match (limit.get_skip_type()?, limit.get_fetch_type()?) {
        (SkipType::Literal(0), FetchType::Literal(rows)) => Ok(rows),
        _ => Err(refused("OFFSET")),
    }
}

/// Whether the query is an aggregate over all of its rows.
fn is_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) => {
            plan.inputs().into_iter().all(is_one_row)
        }
        _ => false,
    }
}

/// The engine knows what the uppermost aggregate of a value gives for no rows.
fn check_value(subquery: &Subquery) -> Result<(), DataFusionError> {
    let mut plan = subquery.subquery.as_ref();
    loop {
        plan = match plan {
            LogicalPlan::Projection(projection) => &projection.input,
            LogicalPlan::SubqueryAlias(alias) => &alias.input,
            LogicalPlan::Filter(filter) => &filter.input,
            LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.is_empty() => {
                return check_inner_rows(&aggregate.input);
            }
            _ => return check_inner_rows(&subquery.subquery),
        };
    }
}

/// Refuses what sees all rows at once above a condition that names an outer column.
fn check_inner_rows(plan: &LogicalPlan) -> Result<(), DataFusionError> {
    plan.apply(|node| {
        let is_above = |input: &LogicalPlan| is_correlated(input);
        let what = match node {
            LogicalPlan::Limit(limit) if is_above(&limit.input) => Some("LIMIT and OFFSET"),
            LogicalPlan::Window(window) if is_above(&window.input) => Some("window functions"),
            LogicalPlan::Distinct(Distinct::On(on)) if is_above(&on.input) => Some("DISTINCT ON"),
            LogicalPlan::Aggregate(aggregate) if is_above(&aggregate.input) => of_groups(aggregate),
            LogicalPlan::Join(join) => {
                let (left, right) = match join.join_type {
                    JoinType::Inner => (false, false),
                    JoinType::Left | JoinType::LeftSemi => (false, true),
                    JoinType::Right | JoinType::RightSemi => (true, false),
                    _ => (true, true),
                };
                (left && is_above(&join.left) || right && is_above(&join.right))
                    .then_some("an outer column below an outer join")
            }
            _ => None,
        };
        match what {
            Some(what) => Err(refused(what)),
            None => Ok(TreeNodeRecursion::Continue),
        }
    })
    .map(|_| ())
}

fn of_groups(aggregate: &Aggregate) -> Option<&'static str> {
    let has_sets = aggregate.group_expr.iter().any(|key| matches!(key, Expr::GroupingSet(_)));
    if has_sets {
        return Some("ROLLUP, CUBE and GROUPING SETS");
    }
    aggregate.group_expr.is_empty().then_some("an aggregate without GROUP BY below another clause")
}

fn refused(what: &str) -> DataFusionError {
    DataFusionError::Plan(format!(
        "Correlated queries cannot have {what} here: write a JOIN with a query that has GROUP BY"
    ))
}
