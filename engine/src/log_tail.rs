//! Rows that are acknowledged but in no snapshot yet: read from the log's files while the query
//! runs, a few records at a time. A process that may not open the log asks another one for them.

use crate::{
    error::SqlError,
    failure, floats, provider,
    view::{ServiceTableView, TableView, TailPlace},
};
use arrow::{
    array::{ArrayRef, RecordBatchOptions, new_null_array},
    compute::cast,
    datatypes::{FieldRef, SchemaRef},
    record_batch::RecordBatch,
};
use bytes::Bytes;
use datafusion::{
    error::DataFusionError,
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{stream::RecordBatchStreamAdapter, streaming::PartitionStream},
};
use futures::{StreamExt, stream};
use icecore_lake::{
    event::{codec, left_out::leave_out, rows},
    wal::{LogPosition, RecordRef},
};
use icecore_schemas::service_table::ServiceTables;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Runs of records that are read and decoded ahead of the query.
const READ_AHEAD: usize = 2;
/// A run of records ends with the one that passes this many payload bytes …
const RUN_BYTES: u64 = 2 << 20;
/// … or rows. Single events come as records of one row, and a batch each would be slow.
const RUN_ROWS: u64 = 8_192;
/// Most records of a run.
const RUN_RECORDS_MAX: usize = 8_192;

/// Where the records of the log are read.
#[derive(Clone, Debug)]
pub enum TailSource {
    /// In this process, from the log's files.
    Files,
    /// By another process, which is asked.
    Asked(TailRequests),
}

/// Records of one tail: the first and the last position, and how many they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TailRun {
    /// Where the first is.
    pub first: LogPosition,
    /// Where the last is.
    pub last: LogPosition,
    /// How many there are, with both.
    pub count: usize,
}

/// Rows of the log that are asked for.
#[derive(Debug)]
pub struct TailRequest {
    /// The table.
    pub place: TailPlace,
    /// The records of its tail.
    pub run: TailRun,
    /// The columns.
    pub schema: SchemaRef,
    /// Where they go.
    pub reply: oneshot::Sender<Result<RecordBatch, SqlError>>,
}

/// Asks for rows of the log. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TailRequests(mpsc::Sender<TailRequest>);

impl TailRequests {
    /// The asking side, and the one that is asked.
    #[must_use]
    pub fn channel() -> (Self, mpsc::Receiver<TailRequest>) {
        let (asking, asked) = mpsc::channel(READ_AHEAD);
        (Self(asking), asked)
    }

    async fn run(
        &self,
        place: TailPlace,
        run: &[RecordRef],
        schema: SchemaRef,
    ) -> Result<RecordBatch, SqlError> {
        let position = |record: Option<&RecordRef>| record.map_or(0, |record| record.position);
        let (first, last) = (position(run.first()), position(run.last()));
        let run = TailRun { first, last, count: run.len() };
        let (reply, rows) = oneshot::channel();
        let request = TailRequest { place, run, schema, reply };
        let rows = match self.0.send(request).await {
            Ok(()) => rows.await.ok(),
            Err(_) => None,
        };
        rows.unwrap_or(Err(SqlError::Unavailable))
    }
}

/// The rows of these records of a table's tail, as the columns of `schema`. It reads files and blocks.
///
/// # Errors
/// [`SqlError::Internal`] when the log does not read, or the table has no such columns, or not as many
/// records.
pub fn rows_of(
    view: &TableView,
    tables: &ServiceTables,
    TailRun { first, last, count }: TailRun,
    schema: &SchemaRef,
) -> Result<RecordBatch, SqlError> {
    let Some(ours) = ServiceTableView::of(view, tables) else {
        return Err(SqlError::Internal("the table has no rows in the log".to_owned()));
    };
    // A value of another type may be of any width, and each row gets one.
    let columns = provider::columns_of(view, Some(&ours)).map_err(|cause| failure::of(&cause))?.1;
    let is_column = |field: &FieldRef| {
        let column = columns.field_with_name(field.name());
        column.is_ok_and(|column| column.data_type().equals_datatype(field.data_type()))
    };
    let fields = schema.fields();
    if columns.fields().len() < fields.len() || !fields.iter().all(is_column) {
        return Err(SqlError::Internal("the table has no such columns".to_owned()));
    }
    let run = view.tail.iter().filter(|record| (first..=last).contains(&record.position));
    let run: Vec<RecordRef> = run.take(RUN_RECORDS_MAX).cloned().collect();
    // An answer without some of them would look whole.
    if run.len() != count {
        return Err(SqlError::Internal("the log has other records than are asked for".to_owned()));
    }
    let but_last = run.len().saturating_sub(1);
    let bytes: u64 = run.iter().take(but_last).map(|record| u64::from(record.length)).sum();
    if RUN_BYTES < bytes {
        return Err(SqlError::Internal(
            "more rows of the log are asked for than at once".to_owned(),
        ));
    }
    read_run(&ours, &run, schema).map_err(|cause| failure::of(&cause))
}

/// Records of one table after a snapshot.
#[derive(Debug)]
pub struct LogTail {
    ours: Arc<ServiceTableView>,
    asked: Option<(TailRequests, TailPlace)>,
    runs: Vec<Vec<RecordRef>>,
    schema: SchemaRef,
}

impl LogTail {
    /// These records, which hold rows of a table of ours, as the columns of `schema` by name. Another process
    /// is `asked` for them as those of its place, or this one reads them.
    #[must_use]
    pub fn new(
        ours: &ServiceTableView,
        asked: Option<(TailRequests, TailPlace)>,
        records: Vec<RecordRef>,
        schema: SchemaRef,
    ) -> Self {
        let mut runs: Vec<Vec<RecordRef>> = Vec::new();
        let (mut bytes, mut rows) = (u64::MAX, u64::MAX);
        for record in records {
            let is_long = runs.last().is_some_and(|run| RUN_RECORDS_MAX <= run.len());
            if RUN_BYTES <= bytes || RUN_ROWS <= rows || is_long {
                runs.push(Vec::new());
                (bytes, rows) = (0, 0);
            }
            bytes += u64::from(record.length);
            rows += u64::from(record.rows);
            runs.last_mut().expect("a run was begun").push(record);
        }
        Self { ours: Arc::new(ours.clone()), asked, runs, schema }
    }
}

impl PartitionStream for LogTail {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (ours, schema) = (Arc::clone(&self.ours), Arc::clone(&self.schema));
        let asked = self.asked.clone();
        let batches = stream::iter(self.runs.clone())
            .map(move |run| {
                let (ours, schema) = (Arc::clone(&ours), Arc::clone(&schema));
                let asked = asked.clone();
                async move {
                    match asked {
                        None => tokio::task::spawn_blocking(move || read_run(&ours, &run, &schema))
                            .await
                            .map_err(|stopped| DataFusionError::External(Box::new(stopped)))?,
                        Some((requests, place)) => {
                            let rows = requests.run(place, &run, schema).await;
                            rows.map_err(|cause| DataFusionError::External(Box::new(cause)))
                        }
                    }
                }
            })
            .buffered(READ_AHEAD);
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches))
    }
}

/// The rows of records with the columns of `schema`: by name, null where the log has none, and where a
/// column of another's has the name. Columns of promoted paths are computed, as they are for files.
fn read_run(
    ours: &ServiceTableView,
    run: &[RecordRef],
    schema: &SchemaRef,
) -> Result<RecordBatch, DataFusionError> {
    let stored = rows::schema_of(ours.table.columns);
    let payloads =
        RecordRef::read_all(run).map_err(|cause| DataFusionError::External(Box::new(cause)))?;
    let payloads: Vec<(Bytes, u64)> =
        payloads.into_iter().zip(run.iter().map(|record| record.first_seq)).collect();
    let batch = codec::decode_all(&stored, &payloads)
        .map_err(|cause| DataFusionError::External(Box::new(cause)))?;
    let batch = leave_out(&batch, &ours.fit.left_out)?;
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let column = match batch.column_by_name(field.name()) {
            Some(column) => Some(Arc::clone(column)),
            None => ours.promoted.column(field.name(), &batch)?,
        };
        columns.push(match column {
            // As files are read: an answer does not change with a commit.
            Some(column) => floats::normal(&cast(&column, field.data_type())?),
            None => new_null_array(field.data_type(), batch.num_rows()),
        });
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}
