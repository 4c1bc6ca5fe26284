//! Limits of sorts above groups and window functions, which stay above them.
//!
//! Where such rows come in the order that is asked for in each part, DataFusion 54 drops the sort and hands its limit
//! to what is below (apache/datafusion#24927): between the two steps of a group by, where a group may be there several
//! times, and below window functions, which need rows beyond it. Its rule for limits gives those sorts that are left
//! their limits again.

use datafusion::{
    common::{
        config::ConfigOptions,
        tree_node::{Transformed, TreeNode},
    },
    error::DataFusionError,
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{
        ExecutionPlan,
        aggregates::AggregateExec,
        limit::GlobalLimitExec,
        sorts::sort::SortExec,
        windows::{BoundedWindowAggExec, WindowAggExec},
    },
};
use std::sync::Arc;

/// Makes the limit of a sort a step of its own. It runs before all rules that move sorts.
#[derive(Debug)]
pub struct SortLimitRule;

impl PhysicalOptimizerRule for SortLimitRule {
    fn name(&self) -> &'static str {
        "sort_limits"
    }

    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let without_limit = |node: Arc<dyn ExecutionPlan>| {
            let Some(sort) = node.downcast_ref::<SortExec>() else {
                return Ok(Transformed::no(node));
            };
            let is_whole = !sort.preserve_partitioning();
            let Some(fetch) = sort.fetch().filter(|_| is_whole && needs_all_rows(sort.input()))
            else {
                return Ok(Transformed::no(node));
            };
            let all = SortExec::new(sort.expr().clone(), Arc::clone(sort.input()));
            let mut limit = GlobalLimitExec::new(Arc::new(all), 0, Some(fetch));
            limit.set_required_ordering(Some(sort.expr().clone()));
            Ok(Transformed::yes(Arc::new(limit) as Arc<dyn ExecutionPlan>))
        };
        plan.transform_up(without_limit).map(|transformed| transformed.data)
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Whether the rows of a step, or of one below it, are made of several of its input.
fn needs_all_rows(step: &Arc<dyn ExecutionPlan>) -> bool {
    step.is::<AggregateExec>()
        || step.is::<WindowAggExec>()
        || step.is::<BoundedWindowAggExec>()
        || step.children().into_iter().any(needs_all_rows)
}
