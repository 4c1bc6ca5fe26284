//! What a plan is made into before the engine settles its types.

pub mod branches;
pub mod casts;
pub mod correlated;
pub mod exact;
pub mod grouping_sets;
pub mod instants;
pub mod memberships;

use datafusion::{
    common::tree_node::{Transformed, TreeNode},
    error::DataFusionError,
    logical_expr::{LogicalPlan, expr_rewriter::NamePreserver, utils::merge_schema},
};

/// Prepares a plan: numbers, CASE, queries in expressions and times mean what they do in PostgreSQL.
///
/// # Errors
/// It has an expression that would be answered wrong.
pub fn prepared(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    plan.transform_up_with_subqueries(of_node).map(|done| done.data)
}

fn of_node(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>, DataFusionError> {
    let schema = merge_schema(&plan.inputs());
    let names = NamePreserver::new(&plan);
    let done = plan.map_expressions(|expr| {
        let name = names.save(&expr);
        let done = expr.transform_up(|part| {
            casts::of_expr(part, &schema)?
                .transform_data(correlated::of_expr)?
                .transform_data(|part| instants::of_expr(part, &schema))?
                .transform_data(|part| exact::of_expr(part, &schema))?
                .transform_data(|part| branches::of_expr(part, &schema))?
                .transform_data(memberships::of_expr)
        })?;
        Ok(if done.transformed { done.update_data(|expr| name.restore(expr)) } else { done })
    })?;
    done.map_data(LogicalPlan::recompute_schema)?.transform_data(grouping_sets::of_plan)
}
