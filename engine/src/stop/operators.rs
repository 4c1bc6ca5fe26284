//! Physical plans whose operators stop.

use crate::{
    forward::{forward, one_input, shown_by_name},
    stop::{QueryStop, TaskContexts},
};
use arrow::{
    array::RecordBatch,
    datatypes::{FieldRef, Schema, SchemaRef},
};
use datafusion::{
    common::{
        JoinType, NullEquality, Statistics,
        tree_node::{Transformed, TreeNode},
    },
    error::DataFusionError,
    execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext},
    logical_expr::{ColumnarValue, Operator},
    physical_expr::{
        PhysicalExpr,
        expressions::{BinaryExpr, IsNotNullExpr, lit},
    },
    physical_plan::{
        EmptyRecordBatchStream, ExecutionPlan, PlanProperties,
        filter::FilterExec,
        joins::{
            HashJoinExec, HashJoinExecBuilder, NestedLoopJoinExec, NestedLoopJoinExecBuilder,
            utils::JoinFilter,
        },
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{FutureExt, Stream, StreamExt, future::BoxFuture};
use std::{
    cell::Cell,
    fmt,
    hash::{Hash, Hasher},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::sync::OwnedSemaphorePermit;

/// `plan` with a look at `stop` wherever it can spend time. Each operator runs in one of `contexts`.
///
/// # Errors
/// DataFusion does not take the new plan.
pub fn stopping(
    plan: Arc<dyn ExecutionPlan>,
    stop: &Arc<QueryStop>,
    contexts: &TaskContexts,
) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
    let with_stop = |node: Arc<dyn ExecutionPlan>| {
        let join = if let Some(join) = node.downcast_ref::<HashJoinExec>() {
            Some(hash_join(join, stop, contexts)?)
        } else if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
            Some(nested_loops(join, stop)?)
        } else {
            None
        };
        Ok(Transformed::yes(StopExec::around(join.unwrap_or(node), stop, contexts)))
    };
    plan.transform_up(with_stop).map(|transformed| transformed.data)
}

fn nested_loops(
    join: &NestedLoopJoinExec,
    stop: &Arc<QueryStop>,
) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
    let filter = filter(join.filter(), stop);
    Ok(Arc::new(NestedLoopJoinExecBuilder::from(join).with_filter(Some(filter)).build()?))
}

fn hash_join(
    join: &HashJoinExec,
    stop: &Arc<QueryStop>,
    contexts: &TaskContexts,
) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
    let stopped = HashJoinExecBuilder::from(join).with_filter(Some(filter(join.filter(), stop)));
    let mut stopped: Arc<dyn ExecutionPlan> = Arc::new(stopped.build()?);
    if join.null_equality() == NullEquality::NullEqualsNothing && !join.null_aware {
        // All nulls have one hash, and each pair of them is looked at before the filter is asked.
        let (left, right) = (Arc::clone(join.left()), Arc::clone(join.right()));
        let (left_keys, right_keys): (Vec<_>, Vec<_>) = join.on().iter().cloned().unzip();
        let children = match join.join_type() {
            JoinType::Inner
            | JoinType::Left
            | JoinType::LeftSemi
            | JoinType::LeftAnti
            | JoinType::LeftMark
            | JoinType::RightSemi => [left, without_nulls(right, right_keys)?],
            JoinType::Right | JoinType::RightAnti | JoinType::RightMark => {
                [without_nulls(left, left_keys)?, right]
            }
            JoinType::Full => {
                let right = Arc::new(BatchSplitter { inner: right });
                [left, StopExec::around(right, stop, contexts)]
            }
        };
        stopped = stopped.with_new_children(children.to_vec())?;
    }
    Ok(stopped)
}

/// The rows of `input` that have all keys.
fn without_nulls(
    input: Arc<dyn ExecutionPlan>,
    keys: Vec<Arc<dyn PhysicalExpr>>,
) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
    let schema = input.schema();
    let mut all: Option<Arc<dyn PhysicalExpr>> = None;
    for key in keys {
        if key.nullable(&schema)? {
            let is_there: Arc<dyn PhysicalExpr> = Arc::new(IsNotNullExpr::new(key));
            all = Some(match all {
                Some(all) => Arc::new(BinaryExpr::new(all, Operator::And, is_there)),
                None => is_there,
            });
        }
    }
    match all {
        Some(all) => Ok(Arc::new(FilterExec::try_new(all, input)?)),
        None => Ok(input),
    }
}

/// A join's filter, or one that lets everything through, with a look at `stop`.
fn filter(filter: Option<&JoinFilter>, stop: &Arc<QueryStop>) -> JoinFilter {
    let looking = |inner: &Arc<dyn PhysicalExpr>| -> Arc<dyn PhysicalExpr> {
        Arc::new(StopExpr { inner: Arc::clone(inner), stop: Arc::clone(stop) })
    };
    match filter {
        Some(filter) => JoinFilter::new(
            looking(filter.expression()),
            filter.column_indices().to_vec(),
            Arc::clone(filter.schema()),
        ),
        None => JoinFilter::new(looking(&lit(true)), Vec::new(), Arc::new(Schema::empty())),
    }
}

/// An expression that fails once its query is over.
#[derive(Debug)]
struct StopExpr {
    inner: Arc<dyn PhysicalExpr>,
    stop: Arc<QueryStop>,
}

impl PartialEq for StopExpr {
    fn eq(&self, other: &Self) -> bool {
        self.inner.eq(&other.inner)
    }
}

impl Eq for StopExpr {}

impl Hash for StopExpr {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl fmt::Display for StopExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl PhysicalExpr for StopExpr {
    forward! {
        fn return_field(&self, schema: &Schema) -> Result<FieldRef, DataFusionError>;
        fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue, DataFusionError> {
        self.stop.check()?;
        self.inner.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.inner]
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
        Ok(Arc::new(Self { inner: children.remove(0), stop: Arc::clone(&self.stop) }))
    }
}

/// An operator whose streams end once its query is over.
#[derive(Debug)]
struct StopExec {
    inner: Arc<dyn ExecutionPlan>,
    stop: Arc<QueryStop>,
    /// What the operator runs in, whatever the one above it does.
    context: Arc<TaskContext>,
}

impl StopExec {
    fn around(
        inner: Arc<dyn ExecutionPlan>,
        stop: &Arc<QueryStop>,
        contexts: &TaskContexts,
    ) -> Arc<dyn ExecutionPlan> {
        let context = Arc::clone(contexts.of_operator(inner.as_ref()));
        Arc::new(Self { inner, stop: Arc::clone(stop), context })
    }
}

shown_by_name!(StopExec, BatchSplitter);

impl ExecutionPlan for StopExec {
    forward! {
        fn properties(&self) -> &Arc<PlanProperties>;
        fn partition_statistics(&self, partition: Option<usize>)
            -> Result<Arc<Statistics>, DataFusionError>;
    }

    one_input!("StopExec");

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let (stop, context) = (Arc::clone(&self.stop), Arc::clone(&self.context));
        Ok(Arc::new(Self { inner: children.remove(0), stop, context }))
    }

    fn execute(
        &self,
        partition: usize,
        _: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream, DataFusionError> {
        self.stop.check()?;
        let inner = self.inner.execute(partition, Arc::clone(&self.context))?;
        let schema = inner.schema();
        Ok(Box::pin(StopStream { inner, schema, stop: Arc::clone(&self.stop), waiting: None }))
    }
}

thread_local! {
    /// Whether this thread has a turn: what its task polls below belongs to the same turn.
    static HAS_TURN: Cell<bool> = const { Cell::new(false) };
}

/// Work of this thread on a query, which ends with the poll that it began in.
struct WorkTurn {
    _permit: OwnedSemaphorePermit,
}

impl WorkTurn {
    fn begin(permit: OwnedSemaphorePermit) -> Self {
        HAS_TURN.set(true);
        Self { _permit: permit }
    }
}

impl Drop for WorkTurn {
    fn drop(&mut self) {
        HAS_TURN.set(false);
    }
}

struct StopStream {
    inner: SendableRecordBatchStream,
    schema: SchemaRef,
    stop: Arc<QueryStop>,
    /// The wait for a turn, while others of the query have them all.
    waiting: Option<BoxFuture<'static, OwnedSemaphorePermit>>,
}

impl StopStream {
    /// A task polls many streams, one within the other; the outermost takes the turn.
    fn turn(&mut self, context: &mut Context<'_>) -> Poll<Option<WorkTurn>> {
        if HAS_TURN.get() {
            return Poll::Ready(None);
        }
        if self.waiting.is_none()
            && let Ok(permit) = Arc::clone(&self.stop.turns).try_acquire_owned()
        {
            return Poll::Ready(Some(WorkTurn::begin(permit)));
        }
        let turns = Arc::clone(&self.stop.turns);
        let waiting = self.waiting.get_or_insert_with(|| {
            turns.acquire_owned().map(|permit| permit.expect("turns are never closed")).boxed()
        });
        let permit = ready!(waiting.poll_unpin(context));
        self.waiting = None;
        Poll::Ready(Some(WorkTurn::begin(permit)))
    }
}

impl Stream for StopStream {
    type Item = Result<RecordBatch, DataFusionError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Err(over) = self.stop.check() {
            // Frees what the operator holds, however long its parent keeps this stream.
            self.inner = Box::pin(EmptyRecordBatchStream::new(Arc::clone(&self.schema)));
            return Poll::Ready(Some(Err(over)));
        }
        let _turn = ready!(self.turn(context));
        self.inner.poll_next_unpin(context)
    }
}

impl RecordBatchStream for StopStream {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

/// Rows of a piece: each may be held against every row of the other side of a join in one go.
const PIECE_ROWS: usize = 64;

/// Small batches of the input's rows.
#[derive(Debug)]
struct BatchSplitter {
    inner: Arc<dyn ExecutionPlan>,
}

impl ExecutionPlan for BatchSplitter {
    one_input!("InPieces");

    forward! {
        fn properties(&self) -> &Arc<PlanProperties>;
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        Ok(Arc::new(Self { inner: children.remove(0) }))
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream, DataFusionError> {
        let inner = self.inner.execute(partition, context)?;
        let schema = inner.schema();
        let pieces = inner.flat_map(|batch| {
            let pieces: Vec<_> = match batch {
                Ok(batch) => (0..batch.num_rows())
                    .step_by(PIECE_ROWS)
                    .map(|at| Ok(batch.slice(at, PIECE_ROWS.min(batch.num_rows() - at))))
                    .collect(),
                Err(cause) => vec![Err(cause)],
            };
            futures::stream::iter(pieces)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, pieces)))
    }
}
