//! Aggregate functions with accumulators of ours: everything else about them stays as it is.

use crate::forward::forward;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::{
    common::ScalarValue,
    error::DataFusionError,
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, ReversedUDAF,
        SetMonotonicity, Signature,
        expr::{AggregateFunctionParams, WindowFunctionParams},
        function::{AccumulatorArgs, StateFieldsArgs},
        utils::AggregateOrderSensitivity,
    },
};
use std::{fmt::Debug, hash::Hash, sync::Arc};

/// What takes the place of a function's accumulators.
pub trait Accumulators: Clone + Debug + Eq + Hash + Send + Sync + 'static {
    /// Whether the function takes its rows in the reverse order as well.
    const REVERSES: bool = true;

    /// One for a group or a frame that only grows.
    ///
    /// # Errors
    /// The function has none for these arguments.
    fn accumulator(
        &self,
        inner: &AggregateUDF,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn Accumulator>, DataFusionError>;

    /// One for a frame that moves.
    ///
    /// # Errors
    /// The function has none for these arguments.
    fn sliding(
        &self,
        inner: &AggregateUDF,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn Accumulator>, DataFusionError>;

    /// What an accumulator hands to another one.
    ///
    /// # Errors
    /// The function has none for these arguments.
    fn state_fields(
        &self,
        inner: &AggregateUDF,
        args: StateFieldsArgs<'_>,
    ) -> Result<Vec<FieldRef>, DataFusionError> {
        inner.state_fields(args)
    }

    /// One for all groups; none where there is one for each.
    ///
    /// # Errors
    /// The function has none for these arguments.
    fn groups(
        &self,
        _inner: &AggregateUDF,
        _args: AccumulatorArgs<'_>,
    ) -> Result<Option<Box<dyn GroupsAccumulator>>, DataFusionError> {
        Ok(None)
    }
}

/// `inner` with these accumulators.
#[must_use]
pub fn wrapped<A: Accumulators>(inner: Arc<AggregateUDF>, accumulators: A) -> AggregateUDF {
    AggregateUDF::from(AggregateWrapper { inner, accumulators })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct AggregateWrapper<A> {
    inner: Arc<AggregateUDF>,
    accumulators: A,
}

impl<A: Accumulators> AggregateUDFImpl for AggregateWrapper<A> {
    forward! {
        fn name(&self) -> &str;
        fn aliases(&self) -> &[String];
        fn schema_name(&self, params: &AggregateFunctionParams) -> Result<String, DataFusionError>;
        fn display_name(&self, params: &AggregateFunctionParams) -> Result<String, DataFusionError>;
        fn window_function_schema_name(&self, params: &WindowFunctionParams)
            -> Result<String, DataFusionError>;
        fn window_function_display_name(&self, params: &WindowFunctionParams)
            -> Result<String, DataFusionError>;
        fn signature(&self) -> &Signature;
        fn return_type(&self, types: &[DataType]) -> Result<DataType, DataFusionError>;
        fn return_field(&self, fields: &[FieldRef]) -> Result<FieldRef, DataFusionError>;
        fn is_nullable(&self) -> bool;
        fn order_sensitivity(&self) -> AggregateOrderSensitivity;
        fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>, DataFusionError>;
        fn is_descending(&self) -> Option<bool>;
        fn default_value(&self, data_type: &DataType) -> Result<ScalarValue, DataFusionError>;
        fn supports_null_handling_clause(&self) -> bool;
        fn supports_within_group_clause(&self) -> bool;
    }

    fn accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn Accumulator>, DataFusionError> {
        self.accumulators.accumulator(&self.inner, args)
    }

    fn create_sliding_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn Accumulator>, DataFusionError> {
        self.accumulators.sliding(&self.inner, args)
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>, DataFusionError> {
        self.accumulators.state_fields(&self.inner, args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        matches!(self.accumulators.groups(&self.inner, args), Ok(Some(_)))
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>, DataFusionError> {
        let missing = || DataFusionError::Internal(format!("no groups for `{}`", self.name()));
        self.accumulators.groups(&self.inner, args)?.ok_or_else(missing)
    }

    fn with_beneficial_ordering(
        self: Arc<Self>,
        beneficial: bool,
    ) -> Result<Option<Arc<dyn AggregateUDFImpl>>, DataFusionError> {
        let ordered = self.inner.as_ref().clone().with_beneficial_ordering(beneficial)?;
        let again =
            |inner| Self { inner: Arc::new(inner), accumulators: self.accumulators.clone() };
        Ok(ordered.map(|inner| Arc::new(again(inner)) as Arc<dyn AggregateUDFImpl>))
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        match self.inner.reverse_udf() {
            _ if !A::REVERSES => ReversedUDAF::NotSupported,
            ReversedUDAF::Reversed(inner) => {
                ReversedUDAF::Reversed(Arc::new(wrapped(inner, self.accumulators.clone())))
            }
            other => other,
        }
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.inner.inner().set_monotonicity(data_type)
    }
}
