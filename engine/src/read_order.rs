//! The order in which files are read for `ORDER BY … LIMIT`: those with the first rows first, so that what was found
//! in them leaves out the others.
//!
//! DataFusion 54 tells a scan the order of a sort above it, but not through a filter or a union, and a table with rows
//! in the log is a union. The sort stays, so the order of reading changes no answer but that of a statement which
//! leaves it open.

use datafusion::{
    common::{
        config::ConfigOptions,
        tree_node::{Transformed, TreeNode},
    },
    datasource::source::DataSourceExec,
    error::DataFusionError,
    physical_expr::{PhysicalExpr, PhysicalSortExpr, expressions::Column},
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{
        ExecutionPlan, SortOrderPushdownResult, coalesce_partitions::CoalescePartitionsExec,
        coop::CooperativeExec, filter::FilterExec, projection::ProjectionExec,
        repartition::RepartitionExec, sorts::sort::SortExec, union::UnionExec,
    },
};
use std::sync::Arc;

/// Tells scans the order of the sort with a limit that is above them. It runs before sorts with a limit hand their
/// filters to scans.
#[derive(Debug)]
pub struct ReadOrderRule;

impl PhysicalOptimizerRule for ReadOrderRule {
    fn name(&self) -> &'static str {
        "read_order"
    }

    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let with_order = |node: Arc<dyn ExecutionPlan>| {
            let Some(sort) = node.downcast_ref::<SortExec>() else {
                return Ok(Transformed::no(node));
            };
            let order = sort.expr();
            let input = match sort.fetch() {
                Some(_) => in_order(sort.input(), order)?,
                None => None,
            };
            let Some(input) = input else { return Ok(Transformed::no(node)) };
            let sort = SortExec::new(order.clone(), input)
                .with_fetch(sort.fetch())
                .with_preserve_partitioning(sort.preserve_partitioning());
            Ok(Transformed::yes(Arc::new(sort) as Arc<dyn ExecutionPlan>))
        };
        plan.transform_up(with_order).map(|transformed| transformed.data)
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The plan whose scans read in this order as far as their files allow it; none if no scan is told.
fn in_order(
    node: &Arc<dyn ExecutionPlan>,
    order: &[PhysicalSortExpr],
) -> Result<Option<Arc<dyn ExecutionPlan>>, DataFusionError> {
    // A step that ends early would hand on other rows.
    if node.fetch().is_some() {
        return Ok(None);
    }
    if node.is::<DataSourceExec>() {
        return Ok(match node.try_pushdown_sort(order)? {
            SortOrderPushdownResult::Exact { inner }
            | SortOrderPushdownResult::Inexact { inner } => Some(inner),
            SortOrderPushdownResult::Unsupported => None,
        });
    }
    let below = order_below(node, order);
    if below.is_empty() {
        return Ok(None);
    }
    let mut is_told = false;
    let mut children = Vec::new();
    for child in node.children() {
        let told = in_order(child, &below)?;
        is_told |= told.is_some();
        children.push(told.unwrap_or_else(|| Arc::clone(child)));
    }
    if !is_told {
        return Ok(None);
    }
    Arc::clone(node).with_new_children(children).map(Some)
}

/// The order in columns of the inputs of a step, as far as it hands them on as they are; nothing for a step whose
/// rows are not those of its inputs.
fn order_below(step: &Arc<dyn ExecutionPlan>, order: &[PhysicalSortExpr]) -> Vec<PhysicalSortExpr> {
    if let Some(projection) = step.downcast_ref::<ProjectionExec>() {
        return order_of(order, |at| {
            let made = &projection.expr().get(at)?.expr;
            made.is::<Column>().then(|| Arc::clone(made))
        });
    }
    if let Some(filter) = step.downcast_ref::<FilterExec>()
        && let Some(kept) = filter.projection()
    {
        let schema = filter.input().schema();
        return order_of(order, |at| {
            let at = *kept.get(at)?;
            Some(Arc::new(Column::new(schema.field(at).name(), at)))
        });
    }
    let keeps_rows = step.is::<UnionExec>()
        || step.is::<FilterExec>()
        || step.is::<CooperativeExec>()
        || step.is::<CoalescePartitionsExec>()
        || step.is::<RepartitionExec>();
    if keeps_rows { order.to_vec() } else { Vec::new() }
}

/// The order by what columns come from, up to the first that comes from none.
fn order_of(
    order: &[PhysicalSortExpr],
    source: impl Fn(usize) -> Option<Arc<dyn PhysicalExpr>>,
) -> Vec<PhysicalSortExpr> {
    let below = order.iter().map_while(|by| {
        let column = by.expr.downcast_ref::<Column>()?;
        Some(PhysicalSortExpr { expr: source(column.index())?, options: by.options })
    });
    below.collect()
}
