//! Exact percentiles in 64-bit floats, and the most frequent value.
//!
//! DataFusion 54's `percentile_cont` rounds where it interpolates to a millionth, and its `median` of whole
//! numbers is a whole number.

use arrow::{
    array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, ListArray},
    buffer::OffsetBuffer,
    compute::cast,
    datatypes::{DataType, Field, FieldRef, Float64Type, Int64Type},
};
use datafusion::{
    common::{ScalarValue, exec_err, plan_err, utils::SingleRowListArrayBuilder},
    error::DataFusionError,
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility,
        function::{AccumulatorArgs, StateFieldsArgs},
    },
    physical_expr::expressions::{CastExpr, Literal},
};
use std::{collections::HashMap, sync::Arc};

/// Names that stand for one percentile.
const NAMED: &[(&str, f64)] =
    &[("median", 0.5), ("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)];

/// Every function of this module.
#[must_use]
pub fn all() -> Vec<AggregateUDF> {
    let signature = || Signature::user_defined(Volatility::Immutable);
    let mut made: Vec<_> = NAMED
        .iter()
        .map(|(name, fraction)| {
            let fraction = Some(fraction.to_bits());
            AggregateUDF::from(Percentile {
                name,
                fraction,
                aliases: vec![],
                signature: signature(),
            })
        })
        .collect();
    made.push(AggregateUDF::from(Percentile {
        name: "percentile_cont",
        fraction: None,
        aliases: vec!["quantile_cont".to_owned()],
        signature: signature(),
    }));
    made.push(AggregateUDF::from(ModeFunction {
        signature: Signature::any(1, Volatility::Immutable),
    }));
    made
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Percentile {
    name: &'static str,
    /// The bits of the fraction that the name says; none where it is an argument.
    fraction: Option<u64>,
    aliases: Vec<String>,
    signature: Signature,
}

impl AggregateUDFImpl for Percentile {
    fn name(&self) -> &str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>, DataFusionError> {
        let wanted = if self.fraction.is_some() { 1 } else { 2 };
        if types.len() != wanted {
            return plan_err!("`{}` takes {wanted} arguments, not {}", self.name, types.len());
        }
        match types.iter().find(|kind| !kind.is_numeric() && !kind.is_null()) {
            Some(kind) => plan_err!("`{}` takes numbers, not {kind}", self.name),
            None => Ok(vec![DataType::Float64; wanted]),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(DataType::Float64)
    }

    fn supports_within_group_clause(&self) -> bool {
        self.fraction.is_none()
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>, DataFusionError> {
        let item = Field::new_list_field(DataType::Float64, true);
        let name = format!("{}[values]", args.name);
        Ok(vec![Arc::new(Field::new(name, DataType::List(Arc::new(item)), true))])
    }

    fn accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn Accumulator>, DataFusionError> {
        let fraction = match self.fraction {
            Some(bits) => f64::from_bits(bits),
            None => fraction(&args)?,
        };
        if !(0.0..=1.0).contains(&fraction) {
            return plan_err!("the fraction of `{}` must be between 0 and 1", self.name);
        }
        let descends = args.order_bys.first().is_some_and(|order| order.options.descending);
        let fraction = if descends { 1.0 - fraction } else { fraction };
        Ok(Box::new(PercentileValues { values: Vec::new(), fraction, distinct: args.is_distinct }))
    }
}

/// The constant that says which percentile.
fn fraction(args: &AccumulatorArgs<'_>) -> Result<f64, DataFusionError> {
    let mut expr = &args.exprs[1];
    while let Some(cast) = expr.downcast_ref::<CastExpr>() {
        expr = cast.expr();
    }
    let literal =
        expr.downcast_ref::<Literal>().map(|literal| literal.value().cast_to(&DataType::Float64));
    match literal.transpose()? {
        Some(ScalarValue::Float64(Some(fraction))) => Ok(fraction),
        _ => plan_err!("the fraction of a percentile must be a constant number"),
    }
}

#[derive(Debug)]
struct PercentileValues {
    values: Vec<f64>,
    fraction: f64,
    distinct: bool,
}

impl Accumulator for PercentileValues {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<(), DataFusionError> {
        let values = cast(&values[0], &DataType::Float64)?;
        self.values.extend(values.as_primitive::<Float64Type>().iter().flatten());
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<(), DataFusionError> {
        for list in states[0].as_list::<i32>().iter().flatten() {
            self.update_batch(&[list])?;
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>, DataFusionError> {
        let values = Float64Array::from(std::mem::take(&mut self.values));
        Ok(vec![SingleRowListArrayBuilder::new(Arc::new(values)).build_list_scalar()])
    }

    fn evaluate(&mut self) -> Result<ScalarValue, DataFusionError> {
        self.values.sort_unstable_by(f64::total_cmp);
        if self.distinct {
            self.values.dedup();
        }
        let Some(last) = self.values.len().checked_sub(1) else {
            return Ok(ScalarValue::Float64(None));
        };
        let at = self.fraction * last as f64;
        let (below, above) = (at.floor() as usize, at.ceil() as usize);
        let (below_value, above_value) = (self.values[below], self.values[above]);
        let share = at - at.floor();
        // Between equal values is nothing, also between infinite ones.
        let value = if below_value == above_value {
            below_value
        } else {
            below_value + (above_value - below_value) * share
        };
        Ok(ScalarValue::Float64(Some(value)))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.capacity() * size_of::<f64>()
    }
}

/// The most frequent value; of several the least.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ModeFunction {
    signature: Signature,
}

impl AggregateUDFImpl for ModeFunction {
    fn name(&self) -> &'static str {
        "mode"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType, DataFusionError> {
        match &types[0] {
            kind if kind.is_nested() => plan_err!("`mode` does not take {kind}"),
            kind => Ok(kind.clone()),
        }
    }

    fn supports_within_group_clause(&self) -> bool {
        true
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>, DataFusionError> {
        let list = |name: &str, kind: DataType| {
            let item = Arc::new(Field::new_list_field(kind, true));
            let name = format!("{}[{name}]", args.name);
            Arc::new(Field::new(name, DataType::List(item), true))
        };
        let kind = args.return_field.data_type().clone();
        Ok(vec![list("values", kind), list("counts", DataType::Int64)])
    }

    fn accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn Accumulator>, DataFusionError> {
        let kind = args.return_field.data_type().clone();
        Ok(Box::new(ModeCounts {
            counts: HashMap::new(),
            bytes: 0,
            kind,
            distinct: args.is_distinct,
        }))
    }
}

#[derive(Debug)]
struct ModeCounts {
    counts: HashMap<ScalarValue, i64>,
    /// Memory of the values themselves.
    bytes: usize,
    kind: DataType,
    distinct: bool,
}

impl ModeCounts {
    fn add(&mut self, value: ScalarValue, count: i64) {
        let bytes = value.size();
        let before = self.counts.len();
        *self.counts.entry(value).or_insert(0) += count;
        if before < self.counts.len() {
            self.bytes += bytes + size_of::<i64>();
        }
    }
}

impl Accumulator for ModeCounts {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<(), DataFusionError> {
        for row in 0..values[0].len() {
            if values[0].is_valid(row) {
                let mut value = ScalarValue::try_from_array(&values[0], row)?;
                value.compact();
                self.add(value, 1);
            }
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<(), DataFusionError> {
        let [values, counts] = states else { return exec_err!("`mode` has a state of two lists") };
        let lists = values.as_list::<i32>().iter().zip(counts.as_list::<i32>().iter());
        for (values, counts) in lists {
            let (Some(values), Some(counts)) = (values, counts) else { continue };
            let counts = counts.as_primitive::<Int64Type>();
            for row in 0..values.len() {
                let mut value = ScalarValue::try_from_array(&values, row)?;
                value.compact();
                self.add(value, counts.value(row));
            }
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>, DataFusionError> {
        let (values, counts): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.counts).into_iter().unzip();
        let values = ScalarValue::new_list_nullable(&values, &self.kind);
        let item = Arc::new(Field::new_list_field(DataType::Int64, true));
        let length = OffsetBuffer::from_lengths([counts.len()]);
        let counts = ListArray::try_new(item, length, Arc::new(Int64Array::from(counts)), None)?;
        Ok(vec![ScalarValue::List(values), ScalarValue::List(Arc::new(counts))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue, DataFusionError> {
        if self.distinct {
            return plan_err!("with DISTINCT every value occurs once: remove DISTINCT from `mode`");
        }
        let best = self.counts.iter().max_by(|(left, of_left), (right, of_right)| {
            let least = || right.partial_cmp(left).unwrap_or(std::cmp::Ordering::Equal);
            of_left.cmp(of_right).then_with(least)
        });
        match best {
            Some((value, _)) => Ok(value.clone()),
            None => ScalarValue::try_from(&self.kind),
        }
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.bytes + self.counts.capacity() * size_of::<(ScalarValue, i64)>()
    }
}
