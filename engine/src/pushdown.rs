//! Filters that are handed down to scans: only where a column's name is that of one column.
//!
//! DataFusion 54's rule looks a filter's columns up by their names in what is below. Where two have one
//! name, as above a join whose sides were changed, it takes the first of them, and the filter comes to
//! the wrong table (no release mends it). The planner has put filters on one table above its scan before, so
//! nothing is lost here but those that it left above a join.

use datafusion::{
    common::config::ConfigOptions, error::DataFusionError,
    physical_optimizer::PhysicalOptimizerRule, physical_plan::ExecutionPlan,
};
use std::{collections::HashSet, sync::Arc};

/// The rule's name in DataFusion, and the start of it for the pass at the end.
const RULE: &str = "FilterPushdown";

type PhysicalRule = Arc<dyn PhysicalOptimizerRule + Send + Sync>;

/// `rule`, kept from plans in which names are not unique if it hands filters down.
#[must_use]
pub fn by_unique_names(rule: &PhysicalRule) -> PhysicalRule {
    if rule.name().starts_with(RULE) {
        Arc::new(UniqueNameRule(Arc::clone(rule)))
    } else {
        Arc::clone(rule)
    }
}

#[derive(Debug)]
struct UniqueNameRule(PhysicalRule);

impl PhysicalOptimizerRule for UniqueNameRule {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        if has_unique_names(&plan) {
            return self.0.optimize(plan, config);
        }
        let below =
            plan.children().into_iter().map(|child| self.optimize(Arc::clone(child), config));
        let below = below.collect::<Result<Vec<_>, _>>()?;
        if below.is_empty() { Ok(plan) } else { plan.with_new_children(below) }
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }
}

/// Whether in each step of the plan each column has a name of its own.
fn has_unique_names(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let schema = plan.schema();
    let mut names = HashSet::new();
    schema.fields().iter().all(|field| names.insert(field.name()))
        && plan.children().into_iter().all(has_unique_names)
}
