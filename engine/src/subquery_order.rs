//! The order of an answer whose statement has subqueries of one value.
//!
//! DataFusion 54 notes the order that a statement asks for at the top of its plan, so that no rule takes the sort out.
//! It looks for it through steps of one input, and a plan with subqueries begins with a step that has them as further
//! inputs. Where the statement leaves out the column that it sorts by, the sort then goes, and rows come in any order.

use datafusion::{
    common::config::ConfigOptions,
    error::DataFusionError,
    physical_optimizer::{PhysicalOptimizerRule, output_requirements::OutputRequirements},
    physical_plan::{ExecutionPlan, scalar_subquery::ScalarSubqueryExec},
};
use std::sync::Arc;

/// Notes the order below the step of subqueries, too. It runs before all rules that move sorts. DataFusion's last
/// rule takes the note out wherever it is.
#[derive(Debug)]
pub struct SubqueryOrderRule;

impl PhysicalOptimizerRule for SubqueryOrderRule {
    fn name(&self) -> &'static str {
        "subquery_order"
    }

    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        if !plan.is::<ScalarSubqueryExec>() {
            return Ok(plan);
        }
        let mut inputs: Vec<_> = plan.children().into_iter().map(Arc::clone).collect();
        // The first one has the rows.
        let Some(rows) = inputs.first_mut() else { return Ok(plan) };
        *rows = OutputRequirements::new_add_mode().optimize(Arc::clone(rows), config)?;
        plan.with_new_children(inputs)
    }

    fn schema_check(&self) -> bool {
        true
    }
}
