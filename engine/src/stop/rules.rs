//! A look at the signal between the steps of the optimizer, which take seconds for the largest
//! statements.

use crate::stop::QuerySignal;
use datafusion::{
    common::{config::ConfigOptions, tree_node::Transformed},
    error::DataFusionError,
    execution::session_state::{SessionState, SessionStateBuilder},
    logical_expr::LogicalPlan,
    optimizer::{OptimizerConfig, OptimizerRule},
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::ExecutionPlan,
};
use std::sync::Arc;

/// `state` with an optimizer that stops.
#[must_use]
pub fn between_rules(state: SessionState, signal: &Arc<QuerySignal>) -> SessionState {
    let look = SignalCheck(Arc::clone(signal));
    let mut logical: Vec<Arc<dyn OptimizerRule + Send + Sync>> = Vec::new();
    for rule in state.optimizers() {
        logical.extend([Arc::new(look.clone()) as _, Arc::clone(rule)]);
    }
    let mut physical: Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> = Vec::new();
    for rule in state.physical_optimizers() {
        physical.extend([Arc::new(look.clone()) as _, Arc::clone(rule)]);
    }
    SessionStateBuilder::new_from_existing(state)
        .with_optimizer_rules(logical)
        .with_physical_optimizer_rules(physical)
        .build()
}

/// A rule that changes nothing, and fails once the query is over.
#[derive(Clone, Debug)]
struct SignalCheck(Arc<QuerySignal>);

impl SignalCheck {
    fn check(&self) -> Result<(), DataFusionError> {
        self.0.check().map_err(|over| DataFusionError::External(Box::new(over)))
    }
}

impl OptimizerRule for SignalCheck {
    fn name(&self) -> &'static str {
        "look_at_signal"
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>, DataFusionError> {
        self.check().map(|()| Transformed::no(plan))
    }
}

impl PhysicalOptimizerRule for SignalCheck {
    fn name(&self) -> &'static str {
        "look_at_signal"
    }

    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        self.check().map(|()| plan)
    }

    fn schema_check(&self) -> bool {
        true
    }
}
