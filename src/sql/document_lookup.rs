//! One document, read from the table of its collection without a query engine.
//!
//! The statement of such a question is planned in another process, which takes far longer than the one page of each
//! column that the row is in. Rights, the point and the view are those of the statement, and so is the answer: where the
//! table is not known to have the last event that is seen, or does not read, the statement is run.

use crate::sql::{AskedStatement, Sql};
use arrow::{
    compute::cast,
    datatypes::{DataType, Field, FieldRef, Schema},
    error::ArrowError,
    record_batch::RecordBatch,
};
use futures::{StreamExt, TryStreamExt, stream};
use iceberg::spec::{Datum, TableMetadata};
use icecore_catalog::{
    access::Principal,
    scan::{
        Deadline, ManifestSource,
        filter::{Comparison, Filter, FilterTest, Term, ValueCheck},
        manifests::ManifestCache,
    },
    storage::Storage,
};
use icecore_engine::{
    QueryAnswer, RunningQuery,
    counts::BytesRead,
    error::SqlError,
    references::QueryScope,
    view::{TableView, View},
};
use icecore_lake::{
    collection::COLUMNS,
    table::reader::{self, DeleteHandling, ReadError, ReadRequest},
};
use icecore_schemas::query::SqlRequest;
use std::{pin::pin, sync::Arc};
use tokio::{runtime::Handle, sync::Semaphore, task::spawn_blocking, time::Instant};

/// Documents that are read at a time. Each holds one of the threads that read local files, and its own reads need others.
const READS_AT_ONCE: usize = 8;
/// What the usual bytes of descriptions of files are divided by: tables of collections have few files.
const CACHE_SHARE: usize = 4;
/// The column that has the key.
const KEY: &str = "key";
/// The columns of times, and what they are called in microseconds.
const TIMES: [(&str, &str); 2] = [("created_at", "created_us"), ("updated_at", "updated_us")];

/// A document that is asked for.
#[derive(Clone, Debug)]
pub struct DocumentLookup {
    /// The statement that has it as its one row: of one collection, with a condition on the key and no other. It takes
    /// of the columns of collections, and of `created_us` and `updated_us`, which are its times in microseconds.
    pub statement: SqlRequest,
    /// Its key.
    pub key: String,
}

impl Sql {
    /// The row of a document, or none, as [`Self::query`] has it of its statement.
    ///
    /// # Errors
    /// [`SqlError`]
    pub async fn look_up(
        &self,
        levels: &[String],
        reach: QueryScope,
        reader: Option<&Principal>,
        lookup: DocumentLookup,
    ) -> Result<QueryAnswer, SqlError> {
        let DocumentLookup { statement, key } = lookup;
        let asked = AskedStatement { key: Some(key), ..self.bounded(statement) };
        self.query_within(levels, reach, reader, asked).await
    }
}

/// Reads tables of collections.
#[derive(Debug)]
pub(super) struct DocumentReader {
    storage: Storage,
    manifests: ManifestCache,
    reads: Arc<Semaphore>,
}

impl DocumentReader {
    /// A reader of the tables of a warehouse.
    pub(super) fn new(storage: Storage) -> Self {
        let manifests = ManifestCache::with_share(CACHE_SHARE);
        Self { storage, manifests, reads: Arc::new(Semaphore::new(READS_AT_ONCE)) }
    }

    /// The answer with the row of this key in the one collection of a view; none where its statement has to tell.
    pub(super) async fn read(
        &self,
        view: &View,
        key: &str,
        until: Instant,
    ) -> Option<RunningQuery> {
        let base = whole_base(view)?;
        let (metadata, snapshot_id) = (Arc::clone(base.metadata.as_ref()?), base.snapshot_id?);
        let request = request(&metadata, snapshot_id, key)?;
        let turn = Arc::clone(&self.reads).acquire_owned().await.ok()?;
        let (storage, cache) = (self.storage.clone(), self.manifests.clone());
        let (until, handle) = (Deadline::at(until), Handle::current());
        let read = move || {
            let (storage, cache, metadata) = (&storage, &cache, &*metadata);
            let source = ManifestSource { storage, cache, metadata, until };
            let row = handle.block_on(first_row(source, request));
            drop(turn);
            row
        };
        let row = match spawn_blocking(read).await.ok()? {
            Ok(row) => row,
            // The statement says what is wrong with the table.
            Err(cause) => {
                let error = &cause as &dyn std::error::Error;
                tracing::debug!(error, table = %base.name, "a document does not read");
                return None;
            }
        };
        let schema = row.schema();
        let rows = stream::iter((row.num_rows() != 0).then_some(Ok(row))).boxed();
        Some(RunningQuery { schema, rows, read: BytesRead::told(Arc::default()) })
    }
}

/// The table of the one collection of a view, where no event came after those that are in its rows.
fn whole_base(view: &View) -> Option<&TableView> {
    let [collection] = view.collections.as_slice() else { return None };
    let applied = collection.applied_seq?;
    let is_whole = collection.until == Some(applied) && collection.namespace == view.namespace;
    view.table(&collection.name).filter(|_| is_whole)
}

/// The read of the rows with a key; none where the table has other columns than those of a collection.
fn request(table: &TableMetadata, snapshot_id: i64, key: &str) -> Option<ReadRequest> {
    let schema = table.current_schema();
    let columns = COLUMNS.iter().map(|column| Some(schema.field_by_name(column.name)?.id));
    let columns = columns.collect::<Option<Vec<i32>>>()?;
    let check = ValueCheck::Compare(Comparison::Equal, Datum::string(key));
    let term = Term::column(schema, KEY, true).ok()?;
    let (filter, deletes) = (Filter::Test(FilterTest { term, check }), DeleteHandling::Applied);
    Some(ReadRequest { snapshot_id, columns, filter, deletes })
}

/// The first row of a read, if it has one.
async fn first_row(
    source: ManifestSource<'_>,
    request: ReadRequest,
) -> Result<RecordBatch, ReadError> {
    let mut rows = pin!(reader::rows(source, request).await?);
    match rows.try_next().await? {
        Some(rows) => Ok(with_microseconds(&rows.slice(0, 1))?),
        None => Ok(RecordBatch::new_empty(Arc::new(Schema::empty()))),
    }
}

/// A row with its times as numbers besides.
fn with_microseconds(row: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let mut fields: Vec<FieldRef> = row.schema_ref().fields().to_vec();
    let mut columns = row.columns().to_vec();
    for (time, name) in TIMES {
        if let Some(column) = row.column_by_name(time) {
            columns.push(cast(column, &DataType::Int64)?);
            fields.push(Arc::new(Field::new(name, DataType::Int64, true)));
        }
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}
