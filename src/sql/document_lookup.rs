//! One document, read from the table of its collection without a query engine.
//!
//! The statement of such a question is planned in another process, which takes far longer than the one page of each
//! column that the row is in. Rights, the point and the view are those of the statement. Its one invariant: the answer
//! is the one that the statement has, which is run where a later event may have changed the document, something does
//! not read, many documents are read just now, or the warehouse is a bucket.

mod later;

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
use icecore_schemas::{query::SqlRequest, service_table::ServiceTables};
use later::LaterEvents;
use std::{pin::pin, sync::Arc};
use tokio::{runtime::Handle, sync::Semaphore, task::spawn_blocking, time::Instant};

/// Documents that are read at a time; queries read more of them. Each holds one of the threads that read local files,
/// and its own reads need others.
const READS_AT_ONCE: usize = 8;
/// Most bytes, about, that each of them holds of a file. Row groups without an index of their pages may have more: a
/// query reads these.
const HELD_BYTES_MAX: u64 = 64 << 20;
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
    tables: ServiceTables,
    manifests: ManifestCache,
    reads: Arc<Semaphore>,
}

impl DocumentReader {
    /// A reader of a warehouse. Records of the log are rows of `tables`.
    pub(super) fn new(storage: Storage, tables: ServiceTables) -> Self {
        let manifests = ManifestCache::with_share(CACHE_SHARE);
        Self { storage, tables, manifests, reads: Arc::new(Semaphore::new(READS_AT_ONCE)) }
    }

    /// The answer with the row of this key in the one collection of a view; none where its statement has to tell.
    pub(super) async fn read(
        &self,
        view: &View,
        key: &str,
        until: Instant,
    ) -> Option<RunningQuery> {
        // Of a bucket, the processes for queries keep footers and pages of files.
        if self.storage.root().starts_with("s3://") {
            return None;
        }
        let FreshBase { table, later } = FreshBase::of(view, &self.tables)?;
        let (metadata, snapshot_id) = (Arc::clone(table.metadata.as_ref()?), table.snapshot_id?);
        let request = request(&metadata, snapshot_id, key)?;
        // None waits for those of other namespaces.
        let turn = Arc::clone(&self.reads).try_acquire_owned().ok()?;
        let (storage, cache) = (self.storage.clone(), self.manifests.clone());
        let (key, until, handle) = (key.to_owned(), Deadline::at(until), Handle::current());
        let read = move || {
            let (storage, cache, metadata) = (&storage, &cache, &*metadata);
            let may_change = match later {
                Some(later) => later.may_change(&key, (storage, cache, until), &handle)?,
                None => false,
            };
            let source = ManifestSource { storage, cache, metadata, until };
            let row = match may_change {
                true => None,
                false => Some(handle.block_on(first_row(source, request))?),
            };
            drop(turn);
            Ok::<_, ReadError>(row)
        };
        let row = match spawn_blocking(read).await.ok()? {
            Ok(row) => row?,
            // The statement says what is wrong with the table.
            Err(cause) => {
                tracing::debug!(
                    error = &cause as &dyn std::error::Error,
                    table = %table.name,
                    "a document does not read"
                );
                return None;
            }
        };
        let schema = row.schema();
        let rows = stream::iter((row.num_rows() != 0).then_some(Ok(row))).boxed();
        Some(RunningQuery { schema, rows, read: BytesRead::told(Arc::default()) })
    }
}

/// The table of the one collection of a view.
struct FreshBase<'a> {
    table: &'a TableView,
    /// The events that came after those that are in its rows; none where none came.
    later: Option<LaterEvents>,
}

impl<'a> FreshBase<'a> {
    /// That of a view; none where there is none, or many events came since.
    fn of(view: &'a View, tables: &ServiceTables) -> Option<Self> {
        let [collection] = view.collections.as_slice() else { return None };
        let applied = collection.applied_seq?;
        let table =
            view.table(&collection.name).filter(|_| collection.namespace == view.namespace)?;
        let later = match collection.until {
            Some(until) if until <= applied => None,
            _ => Some(LaterEvents::of(view, collection, tables, applied)?),
        };
        Some(Self { table, later })
    }
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
    let mut rows = pin!(reader::rows_within(source, request, HELD_BYTES_MAX).await?);
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
