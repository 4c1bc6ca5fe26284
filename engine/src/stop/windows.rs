//! Window functions that stop. An operator calls them for each row of a partition in one go, and
//! some look at the whole frame each time.

use crate::{
    forward::forward,
    stop::QueryStop,
    wrapped::{Accumulators, wrapped},
};
use arrow::{
    array::ArrayRef,
    compute::SortOptions,
    datatypes::{DataType, FieldRef},
};
use datafusion::{
    common::{
        ScalarValue,
        tree_node::{Transformed, TreeNode},
    },
    error::DataFusionError,
    logical_expr::{
        Accumulator, AggregateUDF, Expr, LimitEffect, LogicalPlan, PartitionEvaluator,
        ReversedUDWF, Signature, WindowFunctionDefinition, WindowUDF, WindowUDFImpl,
        function::{AccumulatorArgs, ExpressionArgs, PartitionEvaluatorArgs, WindowUDFFieldArgs},
        window_state::WindowAggState,
    },
    physical_plan::PhysicalExpr,
};
use std::{
    hash::{Hash, Hasher},
    ops::Range,
    sync::Arc,
};

/// `plan`, which is optimized, with window functions that look at `stop`.
///
/// # Errors
/// DataFusion does not take the new plan.
pub fn stopping_windows(
    plan: LogicalPlan,
    stop: &Arc<QueryStop>,
) -> Result<LogicalPlan, DataFusionError> {
    let of_expression = |expression: Expr| {
        let Expr::WindowFunction(mut call) = expression else {
            return Ok(Transformed::no(expression));
        };
        call.fun = match &call.fun {
            WindowFunctionDefinition::AggregateUDF(inner) => {
                let inner = aggregate(Arc::clone(inner), stop);
                WindowFunctionDefinition::AggregateUDF(Arc::new(inner))
            }
            WindowFunctionDefinition::WindowUDF(inner) => {
                WindowFunctionDefinition::WindowUDF(Arc::new(window(Arc::clone(inner), stop)))
            }
        };
        Ok::<_, DataFusionError>(Transformed::yes(Expr::WindowFunction(call)))
    };
    let of_node = |node: LogicalPlan| match node {
        LogicalPlan::Window(_) => {
            node.map_expressions(|expression| expression.transform_up(of_expression))
        }
        other => Ok(Transformed::no(other)),
    };
    plan.transform_up_with_subqueries(of_node).map(|transformed| transformed.data)
}

fn aggregate(inner: Arc<AggregateUDF>, stop: &Arc<QueryStop>) -> AggregateUDF {
    wrapped(inner, StopCheck(Arc::clone(stop)))
}

fn window(inner: Arc<WindowUDF>, stop: &Arc<QueryStop>) -> WindowUDF {
    WindowUDF::from(StopWindow { inner, stop: Arc::clone(stop) })
}

/// An aggregate over the frame of a window looks at this.
#[derive(Clone, Debug)]
struct StopCheck(Arc<QueryStop>);

// Functions are the same whichever query they are part of.
impl PartialEq for StopCheck {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for StopCheck {}

impl Hash for StopCheck {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl StopCheck {
    fn around(&self, inner: Box<dyn Accumulator>) -> Box<dyn Accumulator> {
        Box::new(StopAccumulator { inner, stop: Arc::clone(&self.0) })
    }
}

impl Accumulators for StopCheck {
    fn accumulator(
        &self,
        inner: &AggregateUDF,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn Accumulator>, DataFusionError> {
        inner.accumulator(args).map(|inner| self.around(inner))
    }

    fn sliding(
        &self,
        inner: &AggregateUDF,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn Accumulator>, DataFusionError> {
        inner.create_sliding_accumulator(args).map(|inner| self.around(inner))
    }
}

#[derive(Debug)]
struct StopAccumulator {
    inner: Box<dyn Accumulator>,
    stop: Arc<QueryStop>,
}

impl Accumulator for StopAccumulator {
    forward! {
        fn size(&self) -> usize;
        fn state(&mut self) -> Result<Vec<ScalarValue>, DataFusionError>;
        fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<(), DataFusionError>;
        fn supports_retract_batch(&self) -> bool;
    }

    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<(), DataFusionError> {
        self.stop.check()?;
        self.inner.update_batch(values)
    }

    fn evaluate(&mut self) -> Result<ScalarValue, DataFusionError> {
        self.stop.check()?;
        self.inner.evaluate()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<(), DataFusionError> {
        self.stop.check()?;
        self.inner.merge_batch(states)
    }
}

/// A function of a row's place in its partition.
#[derive(Debug)]
struct StopWindow {
    inner: Arc<WindowUDF>,
    stop: Arc<QueryStop>,
}

impl PartialEq for StopWindow {
    fn eq(&self, other: &Self) -> bool {
        self.inner == other.inner
    }
}

impl Eq for StopWindow {}

impl Hash for StopWindow {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl WindowUDFImpl for StopWindow {
    forward! {
        fn name(&self) -> &str;
        fn aliases(&self) -> &[String];
        fn signature(&self) -> &Signature;
        fn expressions(&self, arguments: ExpressionArgs<'_>) -> Vec<Arc<dyn PhysicalExpr>>;
        fn field(&self, arguments: WindowUDFFieldArgs<'_>) -> Result<FieldRef, DataFusionError>;
        fn sort_options(&self) -> Option<SortOptions>;
        fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>, DataFusionError>;
    }

    fn partition_evaluator(
        &self,
        arguments: PartitionEvaluatorArgs<'_>,
    ) -> Result<Box<dyn PartitionEvaluator>, DataFusionError> {
        let inner = self.inner.partition_evaluator_factory(arguments)?;
        Ok(Box::new(StopEvaluator { inner, stop: Arc::clone(&self.stop) }))
    }

    fn reverse_expr(&self) -> ReversedUDWF {
        match self.inner.reverse_expr() {
            ReversedUDWF::Reversed(inner) => {
                ReversedUDWF::Reversed(Arc::new(window(inner, &self.stop)))
            }
            other => other,
        }
    }

    fn limit_effect(&self, arguments: &[Arc<dyn PhysicalExpr>]) -> LimitEffect {
        self.inner.inner().limit_effect(arguments)
    }
}

#[derive(Debug)]
struct StopEvaluator {
    inner: Box<dyn PartitionEvaluator>,
    stop: Arc<QueryStop>,
}

impl PartitionEvaluator for StopEvaluator {
    forward! {
        fn memoize(&mut self, state: &mut WindowAggState) -> Result<(), DataFusionError>;
        fn get_range(&self, row: usize, rows: usize) -> Result<Range<usize>, DataFusionError>;
        fn is_causal(&self) -> bool;
        fn supports_bounded_execution(&self) -> bool;
        fn uses_window_frame(&self) -> bool;
        fn include_rank(&self) -> bool;
    }

    fn evaluate_all(
        &mut self,
        values: &[ArrayRef],
        rows: usize,
    ) -> Result<ArrayRef, DataFusionError> {
        self.stop.check()?;
        self.inner.evaluate_all(values, rows)
    }

    fn evaluate(
        &mut self,
        values: &[ArrayRef],
        range: &Range<usize>,
    ) -> Result<ScalarValue, DataFusionError> {
        self.stop.check()?;
        self.inner.evaluate(values, range)
    }

    fn evaluate_all_with_rank(
        &self,
        rows: usize,
        ranks: &[Range<usize>],
    ) -> Result<ArrayRef, DataFusionError> {
        self.stop.check()?;
        self.inner.evaluate_all_with_rank(rows, ranks)
    }
}
