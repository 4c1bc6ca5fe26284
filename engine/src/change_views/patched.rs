//! The documents that patches make, as a window function over the changes of one document in the order of `seq`.
//!
//! It has one document at a time in memory, whatever the length of the history. Its one invariant: the texts are
//! those of the versions that a collection has.

use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::{DataType, Field, FieldRef, Int64Type},
};
use datafusion::{
    common::{ScalarValue, exec_err, plan_err},
    error::DataFusionError,
    execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation},
    logical_expr::{
        LimitEffect, PartitionEvaluator, Signature, Volatility, WindowUDF, WindowUDFImpl,
        function::{PartitionEvaluatorArgs, WindowUDFFieldArgs},
        window_state::WindowAggState,
    },
    physical_plan::PhysicalExpr,
};
use icecore_lake::collection::{ChangeOp, changes::ChangeRow, followed::FollowedDocument};
use std::{
    hash::{Hash, Hasher},
    ops::Range,
    sync::Arc,
};

/// The name of the function.
pub(super) const PATCHED_DOCUMENT: &str = "patched_document";
/// What it takes: `seq`, `op`, the time in microseconds, `after`, `patch`.
const ARGUMENTS: usize = 5;
/// How often a text is there until an operator has handed it on: as a value, and in the column.
const COPIES: usize = 2;

/// The function. Its answer is the JSON text of a document where a patch made it, and else null. Texts that were not
/// handed on yet count in `memory`, because a short patch makes a whole document.
pub(super) fn patched_document(memory: Arc<dyn MemoryPool>) -> WindowUDF {
    let signature = Signature::user_defined(Volatility::Immutable);
    WindowUDF::from(PatchedDocument { signature, memory })
}

#[derive(Debug)]
struct PatchedDocument {
    signature: Signature,
    memory: Arc<dyn MemoryPool>,
}

impl PartialEq for PatchedDocument {
    fn eq(&self, other: &Self) -> bool {
        self.signature == other.signature
    }
}

impl Eq for PatchedDocument {}

impl Hash for PatchedDocument {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.signature.hash(state);
    }
}

impl WindowUDFImpl for PatchedDocument {
    fn name(&self) -> &'static str {
        PATCHED_DOCUMENT
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>, DataFusionError> {
        if types.len() != ARGUMENTS {
            return plan_err!(
                "`{PATCHED_DOCUMENT}` takes {ARGUMENTS} arguments, not {}: seq, op, time, after, patch",
                types.len()
            );
        }
        let text = DataType::Utf8View;
        Ok(vec![DataType::Int64, text.clone(), DataType::Int64, text.clone(), text])
    }

    fn partition_evaluator(
        &self,
        _: PartitionEvaluatorArgs<'_>,
    ) -> Result<Box<dyn PartitionEvaluator>, DataFusionError> {
        Ok(Box::new(PatchesOfOne {
            document: FollowedDocument::default(),
            held: MemoryConsumer::new(PATCHED_DOCUMENT).register(&self.memory),
            is_handed_on: false,
        }))
    }

    fn field(&self, arguments: WindowUDFFieldArgs<'_>) -> Result<FieldRef, DataFusionError> {
        Ok(Arc::new(Field::new(arguments.name(), DataType::Utf8View, true)))
    }

    fn limit_effect(&self, _: &[Arc<dyn PhysicalExpr>]) -> LimitEffect {
        LimitEffect::Unknown
    }
}

/// The changes of one document, up to a row.
#[derive(Debug)]
struct PatchesOfOne {
    document: FollowedDocument,
    /// The texts that were made of the rows of one batch.
    held: MemoryReservation,
    /// Whether the rows of that batch are done: the next one begins once they went on.
    is_handed_on: bool,
}

impl PartitionEvaluator for PatchesOfOne {
    fn memoize(&mut self, _: &mut WindowAggState) -> Result<(), DataFusionError> {
        self.is_handed_on = true;
        Ok(())
    }

    fn is_causal(&self) -> bool {
        true
    }

    fn supports_bounded_execution(&self) -> bool {
        true
    }

    fn evaluate(
        &mut self,
        values: &[ArrayRef],
        range: &Range<usize>,
    ) -> Result<ScalarValue, DataFusionError> {
        if std::mem::take(&mut self.is_handed_on) {
            self.held.free();
        }
        let [seq, op, ts, after, patch, ..] = values else {
            return exec_err!("`{PATCHED_DOCUMENT}` takes {ARGUMENTS} arguments");
        };
        let row = range.start;
        let (after, patch) = (text(after, row), text(patch, row));
        let change =
            (number(seq, row), text(op, row).and_then(ChangeOp::from_code), number(ts, row));
        let (Some(seq), Some(op), Some(ts)) = change else {
            return Ok(ScalarValue::Utf8View(None));
        };
        let is_version = self.document.apply(&ChangeRow {
            seq,
            op,
            ts,
            after,
            patch,
            store: None,
            actor: None,
            bookmark: None,
            event_id: "",
            before: None,
            lsn: None,
            version: None,
        });
        let is_patched = is_version && after.is_none() && patch.is_some();
        let Some(made) = self.document.text().filter(|_| is_patched) else {
            return Ok(ScalarValue::Utf8View(None));
        };
        self.held.try_grow(made.len().saturating_mul(COPIES))?;
        Ok(ScalarValue::Utf8View(Some(made.to_owned())))
    }
}

fn text(column: &ArrayRef, row: usize) -> Option<&str> {
    let column = column.as_string_view();
    column.is_valid(row).then(|| column.value(row))
}

fn number(column: &ArrayRef, row: usize) -> Option<i64> {
    let column = column.as_primitive::<Int64Type>();
    column.is_valid(row).then(|| column.value(row))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringViewArray};
    use datafusion::execution::memory_pool::GreedyMemoryPool;

    fn changes() -> Vec<ArrayRef> {
        let texts = |values: Vec<Option<&str>>| Arc::new(StringViewArray::from(values)) as ArrayRef;
        let numbers = || Arc::new(Int64Array::from(vec![1, 2, 3, 4])) as ArrayRef;
        let ops = vec![Some("c"), Some("u"), Some("d"), Some("u")];
        let after = vec![Some("{\"a\":1}"), None, None, None];
        let patches = vec![None, Some("{\"b\":2}"), None, Some("{\"c\":3}")];
        vec![numbers(), texts(ops), numbers(), texts(after), texts(patches)]
    }

    fn evaluator(bytes: usize) -> (Box<dyn PartitionEvaluator>, Arc<dyn MemoryPool>) {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(bytes));
        let function = patched_document(Arc::clone(&pool));
        let arguments = PartitionEvaluatorArgs::default();
        (function.partition_evaluator_factory(arguments).unwrap(), pool)
    }

    #[test]
    fn only_what_a_patch_made_is_told() {
        let (mut evaluator, pool) = evaluator(1 << 20);
        let answers = evaluator.evaluate_all(&changes(), 4).unwrap();
        let answers: Vec<_> = answers.as_string_view().iter().collect();
        assert_eq!(answers, [None, Some("{\"a\":1,\"b\":2}"), None, Some("{\"c\":3}")]);
        assert_ne!(pool.reserved(), 0);
        drop(evaluator);
        assert_eq!(pool.reserved(), 0);
    }

    #[test]
    fn texts_count_until_they_are_handed_on() {
        let longest = COPIES * "{\"a\":1,\"b\":2}".len();
        let (mut evaluator, pool) = evaluator(longest);
        let changes = changes();
        evaluator.evaluate(&changes, &(0..1)).unwrap();
        evaluator.evaluate(&changes, &(1..2)).unwrap();
        assert_eq!(pool.reserved(), longest);
        evaluator.evaluate(&changes, &(2..3)).unwrap();
        assert!(evaluator.evaluate(&changes, &(3..4)).is_err());
        let mut state = WindowAggState::new(&DataType::Utf8View).unwrap();
        evaluator.memoize(&mut state).unwrap();
        assert_eq!(pool.reserved(), longest);
        evaluator.evaluate(&changes, &(3..4)).unwrap();
        assert!(pool.reserved() < longest);
    }
}
