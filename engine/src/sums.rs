//! Aggregates that are right for every value: sums and averages that fail where they do not fit, and
//! `min` and `max` for which NaN is the greatest number.
//!
//! DataFusion 54 adds in the type of its result and wraps around. Here it adds in a type with room for
//! every row that there can be, and only the outcome is put into the result's type, so the order of
//! rows does not decide about an overflow. Its `min` and `max` of floats in groups take whatever comes
//! after a NaN (no release mends it); here they see whole numbers that have the floats' order.

use crate::{
    floats,
    forward::forward,
    frames::{FrameExtremes, FrameRecompute},
    wrapped::{Accumulators, wrapped},
};
use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, UInt64Array},
    compute::cast,
    datatypes::{
        DataType, Decimal128Type, Decimal256Type, DecimalType, Field, FieldRef, Float32Type,
        Float64Type, Int32Type, Int64Type, UInt64Type, i256,
    },
};
use datafusion::{
    common::{ScalarValue, exec_datafusion_err, exec_err},
    error::DataFusionError,
    logical_expr::{
        Accumulator, AggregateUDF, EmitTo, GroupsAccumulator,
        function::{AccumulatorArgs, StateFieldsArgs},
    },
};
use std::sync::Arc;

/// Digits of decimals whose sums fit 38 digits, however many rows there are in memory's reach.
const SMALL_PRECISION: u8 = 28;

/// Functions that are right as they are.
const LEFT_ALONE: &[&str] = &["count", "first_value", "grouping", "last_value", "nth_value"];

/// The function with accumulators of this module, if it needs them.
#[must_use]
pub fn exact(function: Arc<AggregateUDF>) -> Option<AggregateUDF> {
    (!LEFT_ALONE.contains(&function.name())).then(|| wrapped(function, ExactSums))
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ExactSums;

fn is_extreme(function: &AggregateUDF) -> bool {
    ["max", "min"].contains(&function.name())
}

/// The type in which the one argument of a function is taken; none where its own is right.
fn wide(function: &AggregateUDF, kind: &DataType) -> Option<DataType> {
    let is_sum = function.name() == "sum";
    match kind {
        DataType::Float64 if is_extreme(function) => Some(DataType::Int64),
        DataType::Float32 if is_extreme(function) => Some(DataType::Int32),
        DataType::Int64 | DataType::UInt64 if is_sum => {
            Some(DataType::Decimal128(Decimal128Type::MAX_PRECISION, 0))
        }
        DataType::Decimal128(precision, scale)
            if SMALL_PRECISION < *precision && (is_sum || function.name() == "avg") =>
        {
            Some(DataType::Decimal256(Decimal256Type::MAX_PRECISION, *scale))
        }
        _ => None,
    }
}

/// What the inner function is told: the wide types, and the narrow one to answer in.
struct SumTypes {
    given: FieldRef,
    returned: FieldRef,
    wide: DataType,
}

impl SumTypes {
    fn of(inner: &AggregateUDF, fields: &[FieldRef]) -> Result<Option<Self>, DataFusionError> {
        let given = fields.first().map(|field| field.data_type());
        let Some(wide) = given.and_then(|kind| wide(inner, kind)) else { return Ok(None) };
        let returns = inner.return_type(std::slice::from_ref(&wide))?;
        let field = |kind: &DataType| Arc::new(Field::new("wide", kind.clone(), true));
        Ok(Some(Self { given: field(&wide), returned: field(&returns), wide }))
    }
}

/// Calls `$make` with arguments that have the wide types of `$plan`, or as they are.
macro_rules! with_plan {
    ($plan:expr, $args:ident, $make:expr) => {
        match $plan {
            Some(plan) => {
                let fields = [Arc::clone(&plan.given)];
                let return_field = Arc::clone(&plan.returned);
                $make(AccumulatorArgs { return_field, expr_fields: &fields, ..$args })
            }
            None => $make($args),
        }
    };
}

/// What a value of the inner function becomes.
#[derive(Clone, Debug)]
struct ValueForms {
    /// The type in which it takes its argument.
    wide: Option<DataType>,
    answer: DataType,
    /// Whether what it hands on has the form of an answer.
    is_extreme: bool,
}

impl ValueForms {
    fn new(inner: &AggregateUDF, plan: Option<&SumTypes>, args: &AccumulatorArgs<'_>) -> Self {
        Self {
            wide: plan.map(|plan| plan.wide.clone()),
            answer: args.return_field.data_type().clone(),
            is_extreme: is_extreme(inner),
        }
    }

    fn is_needed(&self) -> bool {
        self.wide.is_some() || self.answer.is_floating()
    }

    fn widen(&self, values: &[ArrayRef]) -> Result<Vec<ArrayRef>, DataFusionError> {
        match &self.wide {
            Some(wide) => Ok(vec![widen(&values[0], wide)?]),
            None => Ok(values.to_vec()),
        }
    }

    fn widen_states(&self, states: &[ArrayRef]) -> Result<Vec<ArrayRef>, DataFusionError> {
        if self.is_extreme { self.widen(states) } else { Ok(states.to_vec()) }
    }

    fn narrow_states(&self, states: Vec<ArrayRef>) -> Result<Vec<ArrayRef>, DataFusionError> {
        if !self.is_extreme {
            return Ok(states);
        }
        states.iter().map(|state| narrow(state, &self.answer)).collect()
    }
}

impl Accumulators for ExactSums {
    fn accumulator(
        &self,
        inner: &AggregateUDF,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn Accumulator>, DataFusionError> {
        let plan = SumTypes::of(inner, args.expr_fields)?;
        let forms = ValueForms::new(inner, plan.as_ref(), &args);
        let inner = with_plan!(&plan, args, |args| inner.accumulator(args))?;
        Ok(if forms.is_needed() { Box::new(NarrowingAccumulator { inner, forms }) } else { inner })
    }

    fn sliding(
        &self,
        inner: &AggregateUDF,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn Accumulator>, DataFusionError> {
        let kind = args.expr_fields.first().map(|field| field.data_type());
        let is_sum = ["avg", "sum"].contains(&inner.name());
        if is_extreme(inner) && !args.return_field.data_type().is_nested() {
            let is_max = inner.name() == "max";
            return Ok(Box::new(FrameExtremes::new(is_max, args.return_field.data_type())?));
        }
        if !is_sum || args.is_distinct {
            let function = wrapped(Arc::new(inner.clone()), self.clone());
            return Ok(Box::new(FrameRecompute::new(function, &args)));
        }
        if kind == Some(&DataType::Float64) {
            let is_average = inner.name() == "avg";
            return Ok(Box::new(FloatWindow { is_average, ..FloatWindow::default() }));
        }
        let plan = SumTypes::of(inner, args.expr_fields)?;
        let forms = ValueForms::new(inner, plan.as_ref(), &args);
        let inner = with_plan!(&plan, args, |args| inner.create_sliding_accumulator(args))?;
        Ok(if forms.is_needed() { Box::new(NarrowingAccumulator { inner, forms }) } else { inner })
    }

    fn state_fields(
        &self,
        inner: &AggregateUDF,
        args: StateFieldsArgs<'_>,
    ) -> Result<Vec<FieldRef>, DataFusionError> {
        let plan = SumTypes::of(inner, args.input_fields)?.filter(|_| !is_extreme(inner));
        let Some(plan) = plan else { return inner.state_fields(args) };
        let fields = [plan.given];
        inner.state_fields(StateFieldsArgs {
            input_fields: &fields,
            return_field: plan.returned,
            ..args
        })
    }

    fn groups(
        &self,
        inner: &AggregateUDF,
        args: AccumulatorArgs<'_>,
    ) -> Result<Option<Box<dyn GroupsAccumulator>>, DataFusionError> {
        let plan = SumTypes::of(inner, args.expr_fields)?;
        let forms = ValueForms::new(inner, plan.as_ref(), &args);
        let groups = |args: AccumulatorArgs<'_>| {
            // It takes its arguments by value.
            let again = AccumulatorArgs { return_field: Arc::clone(&args.return_field), ..args };
            let is_there = inner.groups_accumulator_supported(again);
            is_there.then(|| inner.create_groups_accumulator(args)).transpose()
        };
        let Some(inner) = with_plan!(&plan, args, groups)? else { return Ok(None) };
        Ok(Some(if forms.is_needed() { Box::new(NarrowingGroups { inner, forms }) } else { inner }))
    }
}

/// Works in the wide type, answers in the narrow one.
#[derive(Debug)]
struct NarrowingAccumulator {
    inner: Box<dyn Accumulator>,
    forms: ValueForms,
}

impl Accumulator for NarrowingAccumulator {
    forward! {
        fn supports_retract_batch(&self) -> bool;
        fn size(&self) -> usize;
    }

    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<(), DataFusionError> {
        self.inner.update_batch(&self.forms.widen(values)?)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<(), DataFusionError> {
        self.inner.retract_batch(&self.forms.widen(values)?)
    }

    fn evaluate(&mut self) -> Result<ScalarValue, DataFusionError> {
        let array = self.inner.evaluate()?.to_array()?;
        ScalarValue::try_from_array(&narrow(&array, &self.forms.answer)?, 0)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>, DataFusionError> {
        let states = self.inner.state()?;
        if !self.forms.is_extreme {
            return Ok(states);
        }
        let states = states.iter().map(ScalarValue::to_array).collect::<Result<_, _>>()?;
        let states = self.forms.narrow_states(states)?;
        states.iter().map(|state| ScalarValue::try_from_array(state, 0)).collect()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<(), DataFusionError> {
        self.inner.merge_batch(&self.forms.widen_states(states)?)
    }
}

/// A sum or average of floats over a window that moves.
///
/// DataFusion 54 takes what leaves the window off the sum: what is not a number then stays in it for
/// ever, and a large number takes the digits of small ones with it.
#[derive(Debug, Default)]
struct FloatWindow {
    is_average: bool,
    sum: f64,
    /// What the additions so far have cut off (Neumaier).
    cut: f64,
    count: u64,
    nans: u64,
    infinite: u64,
    negative_infinite: u64,
}

impl FloatWindow {
    fn add(&mut self, value: f64) {
        let sum = self.sum + value;
        self.cut += if value.abs() <= self.sum.abs() {
            (self.sum - sum) + value
        } else {
            (value - sum) + self.sum
        };
        self.sum = sum;
    }

    /// Where a value is counted that has no place in a sum.
    fn odd(&mut self, value: f64) -> Option<&mut u64> {
        match value {
            value if value.is_nan() => Some(&mut self.nans),
            f64::INFINITY => Some(&mut self.infinite),
            f64::NEG_INFINITY => Some(&mut self.negative_infinite),
            _ => None,
        }
    }
}

impl Accumulator for FloatWindow {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<(), DataFusionError> {
        for value in values[0].as_primitive::<Float64Type>().iter().flatten() {
            self.count += 1;
            match self.odd(value) {
                Some(count) => *count += 1,
                None => self.add(value),
            }
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<(), DataFusionError> {
        for value in values[0].as_primitive::<Float64Type>().iter().flatten() {
            self.count -= 1;
            match self.odd(value) {
                Some(count) => *count -= 1,
                None => self.add(-value),
            }
        }
        if self.count == 0 {
            (self.sum, self.cut) = (0.0, 0.0);
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue, DataFusionError> {
        if self.count == 0 {
            return Ok(ScalarValue::Float64(None));
        }
        let sum = match (self.nans, self.infinite, self.negative_infinite) {
            (0, 0, 0) => self.sum + self.cut,
            (0, _, 0) => f64::INFINITY,
            (0, 0, _) => f64::NEG_INFINITY,
            _ => f64::NAN,
        };
        let count = self.count as f64;
        Ok(ScalarValue::Float64(Some(if self.is_average { sum / count } else { sum })))
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>, DataFusionError> {
        exec_err!("a window is not merged")
    }

    fn merge_batch(&mut self, _: &[ArrayRef]) -> Result<(), DataFusionError> {
        exec_err!("a window is not merged")
    }
}

struct NarrowingGroups {
    inner: Box<dyn GroupsAccumulator>,
    forms: ValueForms,
}

impl GroupsAccumulator for NarrowingGroups {
    forward! {
        fn supports_convert_to_state(&self) -> bool;
        fn size(&self) -> usize;
    }

    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        count: usize,
    ) -> Result<(), DataFusionError> {
        self.inner.update_batch(&self.forms.widen(values)?, groups, filter, count)
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef, DataFusionError> {
        narrow(&self.inner.evaluate(emit)?, &self.forms.answer)
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>, DataFusionError> {
        self.forms.narrow_states(self.inner.state(emit)?)
    }

    fn merge_batch(
        &mut self,
        states: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        count: usize,
    ) -> Result<(), DataFusionError> {
        self.inner.merge_batch(&self.forms.widen_states(states)?, groups, filter, count)
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>, DataFusionError> {
        let states = self.inner.convert_to_state(&self.forms.widen(values)?, filter)?;
        self.forms.narrow_states(states)
    }
}

fn widen(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, DataFusionError> {
    // A cast would check each value, and these always fit.
    Ok(match (array.data_type(), to) {
        (DataType::Float64, DataType::Int64) => {
            let values = array.as_primitive::<Float64Type>();
            Arc::new(values.unary::<_, Int64Type>(|value| ordered(floats::one(value).to_bits())))
        }
        (DataType::Float32, DataType::Int32) => {
            let floats = floats::normal(array);
            let values = floats.as_primitive::<Float32Type>();
            Arc::new(values.unary::<_, Int32Type>(|value| ordered_32(value.to_bits())))
        }
        (DataType::Int64, DataType::Decimal128(..)) => {
            let wide = array.as_primitive::<Int64Type>().unary::<_, Decimal128Type>(i128::from);
            Arc::new(wide.with_data_type(to.clone()))
        }
        (DataType::UInt64, DataType::Decimal128(..)) => {
            let wide = array.as_primitive::<UInt64Type>().unary::<_, Decimal128Type>(i128::from);
            Arc::new(wide.with_data_type(to.clone()))
        }
        (DataType::Decimal128(..), DataType::Decimal256(..)) => {
            let values = array.as_primitive::<Decimal128Type>();
            let wide = values.unary::<_, Decimal256Type>(i256::from_i128);
            Arc::new(wide.with_data_type(to.clone()))
        }
        _ => cast(array, to)?,
    })
}

fn narrow(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, DataFusionError> {
    let out = || exec_datafusion_err!("a sum is out of range of its type {to}");
    Ok(match (array.data_type(), to) {
        (DataType::Int64, DataType::Float64) => {
            let values = array.as_primitive::<Int64Type>();
            let float = |value: i64| f64::from_bits(ordered(value.cast_unsigned()).cast_unsigned());
            Arc::new(values.unary::<_, Float64Type>(float))
        }
        (DataType::Int32, DataType::Float32) => {
            let values = array.as_primitive::<Int32Type>();
            let float =
                |value: i32| f32::from_bits(ordered_32(value.cast_unsigned()).cast_unsigned());
            Arc::new(values.unary::<_, Float32Type>(float))
        }
        (from, to) if from == to => floats::normal(array),
        (DataType::Decimal128(..), DataType::Int64) => {
            let sums = array.as_primitive::<Decimal128Type>().iter();
            let sums = sums.map(|sum| sum.map(i64::try_from).transpose().map_err(|_| out()));
            Arc::new(sums.collect::<Result<Int64Array, _>>()?)
        }
        (DataType::Decimal128(..), DataType::UInt64) => {
            let sums = array.as_primitive::<Decimal128Type>().iter();
            let sums = sums.map(|sum| sum.map(u64::try_from).transpose().map_err(|_| out()));
            Arc::new(sums.collect::<Result<UInt64Array, _>>()?)
        }
        (DataType::Decimal256(..), DataType::Decimal128(..)) => {
            let strict = arrow::compute::CastOptions { safe: false, ..Default::default() };
            arrow::compute::cast_with_options(array, to, &strict).map_err(|_| out())?
        }
        _ => cast(array, to)?,
    })
}

/// A whole number that has among others the place of the float with these bits; of such a number the bits.
fn ordered(bits: u64) -> i64 {
    let bits = bits.cast_signed();
    bits ^ (bits >> 63) & i64::MAX
}

fn ordered_32(bits: u32) -> i32 {
    let bits = bits.cast_signed();
    bits ^ (bits >> 31) & i32::MAX
}
