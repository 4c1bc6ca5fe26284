//! Rows that are acknowledged but in no snapshot yet: read from the log's files while the query
//! runs, a few records at a time.

use crate::{floats, view::ServiceTableView};
use arrow::{
    array::{ArrayRef, RecordBatchOptions, new_null_array},
    compute::{cast, concat_batches},
    datatypes::SchemaRef,
    record_batch::RecordBatch,
};
use datafusion::{
    error::DataFusionError,
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{stream::RecordBatchStreamAdapter, streaming::PartitionStream},
};
use futures::{StreamExt, stream};
use icecore_lake::{
    event::{codec, left_out::leave_out, rows},
    wal::RecordRef,
};
use std::sync::Arc;

/// Runs of records that are read and decoded ahead of the query.
const READ_AHEAD: usize = 2;
/// A run of records ends with the one that passes this many payload bytes …
const RUN_BYTES: u64 = 2 << 20;
/// … or rows. Single events come as records of one row, and a batch each would be slow.
const RUN_ROWS: u64 = 8_192;

/// Records of one table after a snapshot.
#[derive(Debug)]
pub struct LogTail {
    ours: Arc<ServiceTableView>,
    runs: Vec<Vec<RecordRef>>,
    schema: SchemaRef,
}

impl LogTail {
    /// These records, which hold rows of a table of ours, as the columns of `schema` by name.
    #[must_use]
    pub fn new(ours: &ServiceTableView, records: Vec<RecordRef>, schema: SchemaRef) -> Self {
        let mut runs: Vec<Vec<RecordRef>> = Vec::new();
        let (mut bytes, mut rows) = (u64::MAX, u64::MAX);
        for record in records {
            if RUN_BYTES <= bytes || RUN_ROWS <= rows {
                runs.push(Vec::new());
                (bytes, rows) = (0, 0);
            }
            bytes += u64::from(record.length);
            rows += u64::from(record.rows);
            runs.last_mut().expect("a run was begun").push(record);
        }
        Self { ours: Arc::new(ours.clone()), runs, schema }
    }
}

impl PartitionStream for LogTail {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (ours, schema) = (Arc::clone(&self.ours), Arc::clone(&self.schema));
        let batches = stream::iter(self.runs.clone())
            .map(move |run| {
                let (ours, schema) = (Arc::clone(&ours), Arc::clone(&schema));
                async move {
                    tokio::task::spawn_blocking(move || read_run(&ours, &run, &schema))
                        .await
                        .map_err(|stopped| DataFusionError::External(Box::new(stopped)))?
                }
            })
            .buffered(READ_AHEAD);
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches))
    }
}

fn read_run(
    ours: &ServiceTableView,
    run: &[RecordRef],
    schema: &SchemaRef,
) -> Result<RecordBatch, DataFusionError> {
    let stored = rows::schema_of(ours.table.columns);
    let batches = run
        .iter()
        .map(|record| read(ours, &stored, record, schema))
        .collect::<Result<Vec<_>, _>>()?;
    match <[RecordBatch; 1]>::try_from(batches) {
        Ok([batch]) => Ok(batch),
        Err(batches) => Ok(concat_batches(schema, &batches)?),
    }
}

/// One record's rows with the columns of `schema`: by name, null where the log has none, and where a
/// column of another's has the name.
fn read(
    ours: &ServiceTableView,
    stored: &SchemaRef,
    record: &RecordRef,
    schema: &SchemaRef,
) -> Result<RecordBatch, DataFusionError> {
    let payload = record.read().map_err(|cause| DataFusionError::External(Box::new(cause)))?;
    let batch = codec::decode(stored, &payload, record.first_seq)
        .map_err(|cause| DataFusionError::External(Box::new(cause)))?;
    let batch = leave_out(&batch, &ours.fit.left_out)?;
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        columns.push(match batch.column_by_name(field.name()) {
            // As files are read: an answer does not change with a commit.
            Some(column) => floats::normal(&cast(column, field.data_type())?),
            None => new_null_array(field.data_type(), batch.num_rows()),
        });
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}
