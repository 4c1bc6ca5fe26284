//! Aggregates that keep every value they are given, reckoned with all that these take.
//!
//! DataFusion 54 reckons of a text the 16 bytes of its view, and of no value the copies that are made when
//! the whole is handed on and written. Here each value is reckoned as it is kept and as it is copied,
//! so a query over its memory ends before either is made.

use crate::{
    forward::forward,
    wrapped::{Accumulators, wrapped},
};
use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, OffsetSizeTrait},
    datatypes::{BinaryViewType, ByteViewType, DataType, StringViewType},
};
use datafusion::{
    common::ScalarValue,
    error::DataFusionError,
    logical_expr::{
        Accumulator, AggregateUDF, EmitTo, GroupsAccumulator, function::AccumulatorArgs,
    },
};
use std::sync::Arc;

/// How often a value is there besides where it is kept: in the answer, and in the answer's bytes.
const COPIES: usize = 2;
/// Views keep their buffers while these are at most this many times as large as the values.
const BUFFERS_PER_VALUES_MAX: usize = 2;

/// The function with accumulators of this module, if it keeps its values.
#[must_use]
pub fn reckoned(function: &Arc<AggregateUDF>) -> Option<AggregateUDF> {
    let collects = ["array_agg", "string_agg"].contains(&function.name());
    collects.then(|| wrapped(Arc::clone(function), CollectedValues))
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct CollectedValues;

impl Accumulators for CollectedValues {
    // DataFusion 54 merges parts in the reverse order as if they were in the other one (no release mends it).
    const REVERSES: bool = false;

    fn accumulator(
        &self,
        inner: &AggregateUDF,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn Accumulator>, DataFusionError> {
        let distinct = args.is_distinct;
        Ok(Box::new(CollectingAccumulator { inner: inner.accumulator(args)?, distinct, bytes: 0 }))
    }

    fn sliding(
        &self,
        inner: &AggregateUDF,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn Accumulator>, DataFusionError> {
        inner.create_sliding_accumulator(args)
    }

    fn groups(
        &self,
        inner: &AggregateUDF,
        args: AccumulatorArgs<'_>,
    ) -> Result<Option<Box<dyn GroupsAccumulator>>, DataFusionError> {
        // It takes its arguments by value.
        let again = AccumulatorArgs { return_field: Arc::clone(&args.return_field), ..args };
        if !inner.groups_accumulator_supported(again) {
            return Ok(None);
        }
        let inner = inner.create_groups_accumulator(args)?;
        Ok(Some(Box::new(CollectingGroups { inner, bytes: Vec::new(), total: 0 })))
    }
}

#[derive(Debug)]
struct CollectingAccumulator {
    inner: Box<dyn Accumulator>,
    distinct: bool,
    /// Of all values so far.
    bytes: usize,
}

impl Accumulator for CollectingAccumulator {
    forward! {
        fn evaluate(&mut self) -> Result<ScalarValue, DataFusionError>;
        fn state(&mut self) -> Result<Vec<ScalarValue>, DataFusionError>;
    }

    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<(), DataFusionError> {
        self.bytes += values.first().map_or(0, bytes);
        self.inner.update_batch(&compact(values))
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<(), DataFusionError> {
        self.bytes += states.first().map_or(0, bytes);
        self.inner.merge_batch(states)
    }

    fn size(&self) -> usize {
        // Of values that come twice one is kept.
        let inner = self.inner.size();
        inner + if self.distinct { inner } else { self.bytes } * COPIES
    }
}

struct CollectingGroups {
    inner: Box<dyn GroupsAccumulator>,
    /// Of the values of each group so far.
    bytes: Vec<usize>,
    /// Of all of them.
    total: usize,
}

impl CollectingGroups {
    /// Notes a batch, but for what the filter leaves out; of its bytes each row has the same part.
    fn note(
        &mut self,
        batch: &ArrayRef,
        groups: &[usize],
        filter: Option<&BooleanArray>,
        count: usize,
    ) {
        self.bytes.resize(self.bytes.len().max(count), 0);
        let part = bytes(batch) / groups.len().max(1) + 1;
        for (row, group) in groups.iter().enumerate() {
            if filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row)) {
                self.bytes[*group] += part;
                self.total += part;
            }
        }
    }

    fn forget(&mut self, emit: EmitTo) {
        let gone: usize = match emit {
            EmitTo::All => std::mem::take(&mut self.bytes).into_iter().sum(),
            EmitTo::First(count) => self.bytes.drain(..count.min(self.bytes.len())).sum(),
        };
        self.total -= gone;
    }
}

impl GroupsAccumulator for CollectingGroups {
    forward! {
        fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>)
            -> Result<Vec<ArrayRef>, DataFusionError>;
        fn supports_convert_to_state(&self) -> bool;
    }

    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        count: usize,
    ) -> Result<(), DataFusionError> {
        self.note(&values[0], groups, filter, count);
        self.inner.update_batch(&compact(values), groups, filter, count)
    }

    fn merge_batch(
        &mut self,
        states: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        count: usize,
    ) -> Result<(), DataFusionError> {
        self.note(&states[0], groups, filter, count);
        self.inner.merge_batch(states, groups, filter, count)
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef, DataFusionError> {
        self.forget(emit);
        self.inner.evaluate(emit)
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>, DataFusionError> {
        self.forget(emit);
        self.inner.state(emit)
    }

    fn size(&self) -> usize {
        self.inner.size() + self.total * COPIES + self.bytes.capacity() * size_of::<usize>()
    }
}

/// Views without the buffers that they hold for a few of their values.
fn compact(values: &[ArrayRef]) -> Vec<ArrayRef> {
    let compact = |array: &ArrayRef| -> ArrayRef {
        let Some(views) = array.as_string_view_opt() else { return Arc::clone(array) };
        let buffers: usize = views.data_buffers().iter().map(|buffer| buffer.len()).sum();
        if views.total_buffer_bytes_used() * BUFFERS_PER_VALUES_MAX < buffers {
            return Arc::new(views.gc());
        }
        Arc::clone(array)
    };
    values.iter().map(compact).collect()
}

/// The bytes of these values, each reckoned as if it were a copy of its own.
fn bytes(array: &ArrayRef) -> usize {
    match array.data_type() {
        DataType::Utf8View => bytes_of_views::<StringViewType>(array),
        DataType::BinaryView => bytes_of_views::<BinaryViewType>(array),
        DataType::List(_) => bytes_of_list::<i32>(array),
        DataType::LargeList(_) => bytes_of_list::<i64>(array),
        DataType::Struct(_) => array.as_struct().columns().iter().map(bytes).sum(),
        _ => array.to_data().get_slice_memory_size().unwrap_or(0),
    }
}

fn bytes_of_views<T: ByteViewType>(array: &ArrayRef) -> usize {
    let views = array.as_byte_view::<T>();
    views.total_buffer_bytes_used() + size_of_val(views.views().as_ref())
}

fn bytes_of_list<O: OffsetSizeTrait>(array: &ArrayRef) -> usize {
    let list = array.as_list::<O>();
    let offsets = list.value_offsets();
    let (first, last) = (offsets[0].as_usize(), offsets[list.len()].as_usize());
    bytes(&list.values().slice(first, last - first)) + size_of_val(offsets)
}
