//! Accumulators for frames that move.
//!
//! DataFusion 54's `min` remembers a value that has left the frame where only nulls are left, its `stddev`
//! and `var` do not forget a NaN, and most functions have none (no release mends it).

use arrow::{
    array::{Array, ArrayRef},
    compute::concat,
    datatypes::{DataType, FieldRef, Schema},
};
use datafusion::{
    common::{ScalarValue, exec_err},
    error::DataFusionError,
    logical_expr::{Accumulator, AggregateUDF, function::AccumulatorArgs},
    physical_expr::{PhysicalExpr, PhysicalSortExpr},
};
use std::{cmp::Ordering, collections::VecDeque, sync::Arc};

/// The least or greatest value of a frame.
#[derive(Debug)]
pub struct FrameExtremes {
    /// How a value compares to one that came before it and can never be the answer again.
    better: Ordering,
    none: ScalarValue,
    /// Values that may become the answer, each with its row: the answer first, each next one worse.
    values: VecDeque<(u64, ScalarValue)>,
    /// Rows that came so far.
    came: u64,
    /// Rows that have left.
    left: u64,
}

impl FrameExtremes {
    /// Of values of this type.
    ///
    /// # Errors
    /// There is no null of this type.
    pub fn new(is_max: bool, kind: &DataType) -> Result<Self, DataFusionError> {
        let better = if is_max { Ordering::Greater } else { Ordering::Less };
        let none = ScalarValue::try_from(kind)?;
        Ok(Self { better, none, values: VecDeque::new(), came: 0, left: 0 })
    }

    fn add(&mut self, value: ScalarValue) -> Result<(), DataFusionError> {
        while let Some((_, last)) = self.values.back() {
            match value.partial_cmp(last) {
                Some(order) if order == self.better || order == Ordering::Equal => {
                    self.values.pop_back();
                }
                Some(_) => break,
                None => return exec_err!("values of {} have no order", value.data_type()),
            }
        }
        self.values.push_back((self.came, value));
        Ok(())
    }
}

impl Accumulator for FrameExtremes {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<(), DataFusionError> {
        for row in 0..values[0].len() {
            if values[0].is_valid(row) {
                let mut value = ScalarValue::try_from_array(&values[0], row)?;
                value.compact();
                self.add(value)?;
            }
            self.came += 1;
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<(), DataFusionError> {
        self.left += values[0].len() as u64;
        while self.values.front().is_some_and(|(row, _)| *row < self.left) {
            self.values.pop_front();
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue, DataFusionError> {
        Ok(self.values.front().map_or_else(|| self.none.clone(), |(_, value)| value.clone()))
    }

    fn size(&self) -> usize {
        let values: usize = self.values.iter().map(|(_, value)| value.size() + 8).sum();
        size_of_val(self) + values
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>, DataFusionError> {
        exec_err!("a frame is not merged")
    }

    fn merge_batch(&mut self, _: &[ArrayRef]) -> Result<(), DataFusionError> {
        exec_err!("a frame is not merged")
    }
}

/// Any function over a frame, worked out anew for each: time grows with the length of frames, and the
/// answer is that of the same rows in a group.
#[derive(Debug)]
pub struct FrameRecompute {
    function: AggregateUDF,
    arguments: OwnedArguments,
    /// The rows of the frame, and before them some that have left.
    rows: Vec<ArrayRef>,
    /// How many of them have left.
    left: usize,
}

/// [`AccumulatorArgs`] that are kept.
#[derive(Debug)]
struct OwnedArguments {
    return_field: FieldRef,
    schema: Schema,
    ignore_nulls: bool,
    order_bys: Vec<PhysicalSortExpr>,
    is_reversed: bool,
    name: String,
    is_distinct: bool,
    exprs: Vec<Arc<dyn PhysicalExpr>>,
    expr_fields: Vec<FieldRef>,
}

impl FrameRecompute {
    /// What `function` makes of its arguments.
    #[must_use]
    pub fn new(function: AggregateUDF, args: &AccumulatorArgs<'_>) -> Self {
        let arguments = OwnedArguments {
            return_field: Arc::clone(&args.return_field),
            schema: args.schema.clone(),
            ignore_nulls: args.ignore_nulls,
            order_bys: args.order_bys.to_vec(),
            is_reversed: args.is_reversed,
            name: args.name.to_owned(),
            is_distinct: args.is_distinct,
            exprs: args.exprs.to_vec(),
            expr_fields: args.expr_fields.to_vec(),
        };
        Self { function, arguments, rows: Vec::new(), left: 0 }
    }

    fn begin(&self) -> Result<Box<dyn Accumulator>, DataFusionError> {
        let kept = &self.arguments;
        self.function.accumulator(AccumulatorArgs {
            return_field: Arc::clone(&kept.return_field),
            schema: &kept.schema,
            ignore_nulls: kept.ignore_nulls,
            order_bys: &kept.order_bys,
            is_reversed: kept.is_reversed,
            name: &kept.name,
            is_distinct: kept.is_distinct,
            exprs: &kept.exprs,
            expr_fields: &kept.expr_fields,
        })
    }

    fn frame(&self) -> Vec<ArrayRef> {
        self.rows.iter().map(|rows| rows.slice(self.left, rows.len() - self.left)).collect()
    }
}

impl Accumulator for FrameRecompute {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<(), DataFusionError> {
        let had = self.frame();
        let both = |(had, more): (&ArrayRef, &ArrayRef)| concat(&[had.as_ref(), more.as_ref()]);
        self.rows = if had.is_empty() {
            // A slice would keep the whole batch.
            values.iter().map(|more| concat(&[more.as_ref()])).collect::<Result<_, _>>()?
        } else {
            had.iter().zip(values).map(both).collect::<Result<_, _>>()?
        };
        self.left = 0;
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<(), DataFusionError> {
        self.left += values[0].len();
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue, DataFusionError> {
        let mut accumulator = self.begin()?;
        if !self.rows.is_empty() {
            accumulator.update_batch(&self.frame())?;
        }
        accumulator.evaluate()
    }

    fn size(&self) -> usize {
        let rows: usize = self.rows.iter().map(|rows| rows.get_array_memory_size()).sum();
        size_of_val(self) + rows
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>, DataFusionError> {
        exec_err!("a frame is not merged")
    }

    fn merge_batch(&mut self, _: &[ArrayRef]) -> Result<(), DataFusionError> {
        exec_err!("a frame is not merged")
    }
}
