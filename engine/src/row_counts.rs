//! Rows of the log for who needs no column of them, as `count(*)` does: how many there are, the records
//! say, and DataFusion adds that to what the manifests say of the files.

use arrow::{
    datatypes::SchemaRef,
    record_batch::{RecordBatch, RecordBatchOptions},
};
use datafusion::{
    catalog::memory::MemorySourceConfig, error::DataFusionError, physical_plan::ExecutionPlan,
};
use icecore_lake::wal::RecordRef;
use std::sync::Arc;

/// Most rows of a batch: what is computed for each of them takes memory.
const BATCH_ROWS: usize = 8_192;

/// As many rows as the records have. `schema` has no column.
///
/// # Errors
/// It has one.
pub fn of_records(
    schema: &SchemaRef,
    records: &[RecordRef],
) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
    let rows: u64 = records.iter().map(|record| u64::from(record.rows)).sum();
    rows_without_columns(schema, usize::try_from(rows).unwrap_or(usize::MAX))
}

fn rows_without_columns(
    schema: &SchemaRef,
    rows: usize,
) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
    let mut batches = Vec::new();
    let mut left = rows;
    while 0 < left {
        let rows = left.min(BATCH_ROWS);
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        batches.push(RecordBatch::try_new_with_options(Arc::clone(schema), Vec::new(), &options)?);
        left -= rows;
    }
    let scan = MemorySourceConfig::try_new_exec(&[batches], Arc::clone(schema), None)?;
    Ok(scan)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::Schema;
    use datafusion::{
        common::stats::Precision, execution::context::SessionContext, physical_plan::collect,
    };

    #[tokio::test]
    async fn rows_are_counted_before_and_while_they_are_read() {
        let schema = Arc::new(Schema::empty());
        for rows in [0, 1, BATCH_ROWS, BATCH_ROWS + 1, 3 * BATCH_ROWS + 7] {
            let scan = rows_without_columns(&schema, rows).unwrap();
            let statistics = scan.partition_statistics(None).unwrap();
            assert_eq!(statistics.num_rows, Precision::Exact(rows));
            let batches = collect(scan, SessionContext::new().task_ctx()).await.unwrap();
            assert!(batches.iter().all(|batch| batch.num_rows() <= BATCH_ROWS));
            assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), rows);
        }
    }
}
