//! Groups of several sets, over rows in no order.
//!
//! DataFusion 54 ends groups where ordered rows go on to the next value, and the groups of sets without that column
//! with them, which then come twice (apache/datafusion#16965, #24421). It knows no order of columns that it does
//! not look into.

use crate::same_type::SameTypeKind;
use datafusion::{
    common::tree_node::Transformed,
    error::DataFusionError,
    logical_expr::{Aggregate, Expr, LogicalPlan, Projection},
};
use std::{collections::HashSet, sync::Arc};

/// Hides the columns that groups of several sets are made of.
///
/// # Errors
/// None of its own.
pub fn of_plan(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>, DataFusionError> {
    let LogicalPlan::Aggregate(aggregate) = plan else { return Ok(Transformed::no(plan)) };
    if !aggregate.group_expr.iter().any(|key| matches!(key, Expr::GroupingSet(_))) {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let Aggregate { input, group_expr, aggr_expr, .. } = aggregate;
    let keys = group_expr.iter().flat_map(Expr::column_refs);
    let keys: HashSet<String> = keys.map(|column| column.name.clone()).collect();
    let columns = input.schema().columns().into_iter().map(|column| {
        let is_key = keys.contains(&column.name);
        let (relation, name) = (column.relation.clone(), column.name.clone());
        let value = Expr::Column(column);
        match is_key {
            true => SameTypeKind::Opaque.call(value).alias_qualified(relation, name),
            false => value,
        }
    });
    let rows = Projection::try_new(columns.collect(), input)?;
    let rows = Arc::new(LogicalPlan::Projection(rows));
    let aggregate = Aggregate::try_new(rows, group_expr, aggr_expr)?;
    Ok(Transformed::yes(LogicalPlan::Aggregate(aggregate)))
}
