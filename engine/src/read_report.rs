//! What EXPLAIN ANALYZE tells of data files beside the plan: how many were read, and how many were left out by
//! what the manifests say of them, which no operator of the plan knows.

use crate::{
    RowStream,
    counts::{BytesRead, FileCounts},
    failure,
};
use arrow::{
    array::{ArrayRef, StringArray},
    datatypes::SchemaRef,
    record_batch::RecordBatch,
};
use datafusion::{error::DataFusionError, physical_plan::ExecutionPlan};
use futures::{StreamExt, stream};
use std::sync::Arc;

/// The rows of a plan with one more behind them. It is made when they are there, as the query has run then.
#[must_use]
pub fn with_files(
    rows: RowStream,
    schema: SchemaRef,
    counts: Arc<FileCounts>,
    plan: Arc<dyn ExecutionPlan>,
) -> RowStream {
    counts.leave_out_unscanned(plan.as_ref());
    let read = BytesRead::of(plan);
    let report = stream::once(async move {
        let ((files, pruned), bytes) = (counts.get(), read.get());
        let text = format!(
            "files read: {files}, files pruned: {pruned}, bytes read: {bytes}, bytes pruned: {}",
            counts.pruned_bytes()
        );
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec!["Files"])),
            Arc::new(StringArray::from(vec![text])),
        ];
        RecordBatch::try_new(schema, columns)
            .map_err(|cause| failure::of(&DataFusionError::from(cause)))
    });
    rows.chain(report).boxed()
}
