//! Sums and averages that fail where they do not fit.
//!
//! DataFusion 54 adds in the type of its result and wraps around. Here it adds in a type with room for
//! every row that there can be, and only the outcome is put into the result's type, so the order of
//! rows does not decide about an overflow.

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, UInt64Array},
    compute::cast,
    datatypes::{
        DataType, Decimal128Type, Decimal256Type, DecimalType, Field, FieldRef, Float64Type,
        Int64Type, UInt64Type, i256,
    },
};
use datafusion::{
    common::{ScalarValue, exec_datafusion_err, exec_err},
    error::DataFusionError,
    functions_aggregate::{average::avg_udaf, sum::sum_udaf},
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF,
        Signature,
        function::{AccumulatorArgs, StateFieldsArgs},
        utils::AggregateOrderSensitivity,
    },
};
use std::sync::Arc;

/// Digits of decimals whose sums fit 38 digits, however many rows there are in memory's reach.
const SMALL_PRECISION: u8 = 28;

/// The functions of this module, in place of DataFusion's of the same names.
#[must_use]
pub fn all() -> Vec<AggregateUDF> {
    [sum_udaf(), avg_udaf()]
        .into_iter()
        .map(|inner| AggregateUDF::from(Widened { inner }))
        .collect()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Widened {
    inner: Arc<AggregateUDF>,
}

/// The type in which values of a type are added up; none where its own is wide enough.
fn wide(function: &str, kind: &DataType) -> Option<DataType> {
    match kind {
        DataType::Int64 | DataType::UInt64 if function == "sum" => {
            Some(DataType::Decimal128(Decimal128Type::MAX_PRECISION, 0))
        }
        DataType::Decimal128(precision, scale) if SMALL_PRECISION < *precision => {
            Some(DataType::Decimal256(Decimal256Type::MAX_PRECISION, *scale))
        }
        _ => None,
    }
}

impl Widened {
    /// What the inner function is told: the wide types, and the narrow one to answer in.
    fn plan(&self, fields: &[FieldRef]) -> Result<Option<Plan>, DataFusionError> {
        let given = fields.first().map(|field| field.data_type());
        let Some(wide) = given.and_then(|kind| wide(self.inner.name(), kind)) else {
            return Ok(None);
        };
        let returns = self.inner.return_type(std::slice::from_ref(&wide))?;
        let field = |kind: &DataType| Arc::new(Field::new("wide", kind.clone(), true));
        Ok(Some(Plan { given: field(&wide), returned: field(&returns), wide }))
    }
}

struct Plan {
    given: FieldRef,
    returned: FieldRef,
    wide: DataType,
}

/// Hands `$args` on with the wide types of `$plan`.
macro_rules! widened {
    ($args:ident, $plan:ident, $fields:ident) => {
        let $fields = [Arc::clone(&$plan.given)];
        let $args = AccumulatorArgs {
            return_field: Arc::clone(&$plan.returned),
            expr_fields: &$fields,
            ..$args
        };
    };
}

impl AggregateUDFImpl for Widened {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType, DataFusionError> {
        self.inner.return_type(types)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>, DataFusionError> {
        self.inner.coerce_types(types)
    }

    fn accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn Accumulator>, DataFusionError> {
        let Some(plan) = self.plan(args.expr_fields)? else { return self.inner.accumulator(args) };
        let answer = args.return_field.data_type().clone();
        widened!(args, plan, fields);
        let inner = self.inner.accumulator(args)?;
        Ok(Box::new(Narrowing { inner, wide: plan.wide, answer }))
    }

    fn create_sliding_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn Accumulator>, DataFusionError> {
        let kind = args.expr_fields.first().map(|field| field.data_type());
        if kind == Some(&DataType::Float64) && !args.is_distinct {
            let is_average = self.inner.name() == "avg";
            return Ok(Box::new(Window { is_average, ..Window::default() }));
        }
        let Some(plan) = self.plan(args.expr_fields)? else {
            return self.inner.create_sliding_accumulator(args);
        };
        let answer = args.return_field.data_type().clone();
        widened!(args, plan, fields);
        let inner = self.inner.create_sliding_accumulator(args)?;
        Ok(Box::new(Narrowing { inner, wide: plan.wide, answer }))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>, DataFusionError> {
        let Some(plan) = self.plan(args.input_fields)? else {
            return self.inner.state_fields(args);
        };
        let fields = [plan.given];
        self.inner.state_fields(StateFieldsArgs {
            input_fields: &fields,
            return_field: plan.returned,
            ..args
        })
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        let Ok(Some(plan)) = self.plan(args.expr_fields) else {
            return self.inner.groups_accumulator_supported(args);
        };
        widened!(args, plan, fields);
        self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>, DataFusionError> {
        let Some(plan) = self.plan(args.expr_fields)? else {
            return self.inner.create_groups_accumulator(args);
        };
        let answer = args.return_field.data_type().clone();
        widened!(args, plan, fields);
        let inner = self.inner.create_groups_accumulator(args)?;
        Ok(Box::new(NarrowingGroups { inner, wide: plan.wide, answer }))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.inner.order_sensitivity()
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }
}

/// Adds in the wide type, answers in the narrow one.
#[derive(Debug)]
struct Narrowing {
    inner: Box<dyn Accumulator>,
    wide: DataType,
    answer: DataType,
}

impl Accumulator for Narrowing {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<(), DataFusionError> {
        self.inner.update_batch(&[widen(&values[0], &self.wide)?])
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<(), DataFusionError> {
        self.inner.retract_batch(&[widen(&values[0], &self.wide)?])
    }

    fn supports_retract_batch(&self) -> bool {
        self.inner.supports_retract_batch()
    }

    fn evaluate(&mut self) -> Result<ScalarValue, DataFusionError> {
        let array = self.inner.evaluate()?.to_array()?;
        ScalarValue::try_from_array(&narrow(&array, &self.answer)?, 0)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>, DataFusionError> {
        self.inner.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<(), DataFusionError> {
        self.inner.merge_batch(states)
    }
}

/// A sum or average of floats over a window that moves.
///
/// DataFusion 54 takes what leaves the window off the sum: what is not a number then stays in it for
/// ever, and a large number takes the digits of small ones with it.
#[derive(Debug, Default)]
struct Window {
    is_average: bool,
    sum: f64,
    /// What the additions so far have cut off (Neumaier).
    cut: f64,
    count: u64,
    nans: u64,
    infinite: u64,
    negative_infinite: u64,
}

impl Window {
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

impl Accumulator for Window {
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
    wide: DataType,
    answer: DataType,
}

impl GroupsAccumulator for NarrowingGroups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        count: usize,
    ) -> Result<(), DataFusionError> {
        self.inner.update_batch(&[widen(&values[0], &self.wide)?], groups, filter, count)
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef, DataFusionError> {
        narrow(&self.inner.evaluate(emit)?, &self.answer)
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>, DataFusionError> {
        self.inner.state(emit)
    }

    fn merge_batch(
        &mut self,
        states: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        count: usize,
    ) -> Result<(), DataFusionError> {
        self.inner.merge_batch(states, groups, filter, count)
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>, DataFusionError> {
        self.inner.convert_to_state(&[widen(&values[0], &self.wide)?], filter)
    }

    fn supports_convert_to_state(&self) -> bool {
        self.inner.supports_convert_to_state()
    }

    fn size(&self) -> usize {
        self.inner.size()
    }
}

fn widen(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, DataFusionError> {
    // A cast would check each value, and these always fit.
    Ok(match (array.data_type(), to) {
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
