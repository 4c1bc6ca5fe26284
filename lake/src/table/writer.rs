//! Rows to Parquet data files, one for each partition or several where one would be too long.
//!
//! Returned files are durable. Paths carry no text of the event: `data/<xx>/<ulid>.parquet`.
//!
//! [`write()`] takes all rows at once, in any order, and encodes several files at a time: it is what a
//! flush needs. [`sorted::SortedWriter`] takes rows that are sorted as they come, within a bound of
//! memory: it is for jobs that write tables anew. [`foreign::ForeignWriter`] takes rows in any order for
//! tables that are not the service's.

pub mod foreign;
pub mod sorted;

pub use crate::table::layout::{FileLayout, WriteError};

use crate::{
    blocking::blocking,
    ids::IdGenerator,
    table::{
        encode::{self, EncodedFile},
        partition::{self, FIELD_ID, PartitionRows, PartitionSplit, field_id},
        row_sum::{self, RowKeys},
    },
};
use arrow::{
    array::{Array, ArrayRef, new_null_array},
    compute::{cast, concat},
    datatypes::{DataType, Field, Schema as ArrowSchema},
    error::ArrowError,
    record_batch::RecordBatch,
};
use futures::{StreamExt, stream};
use iceberg::spec::{DataFile, NestedField, PrimitiveType, SchemaRef, Struct, TableMetadata, Type};
use icecore_catalog::{row_sum::RowSum, storage::Storage};
use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};
use tokio::sync::Semaphore;
use tracing::warn;

/// Files of one call that are encoded at a time; encoding is all CPU.
const ENCODES_AT_ONCE: usize = 2;
/// Files of one call that are encoded or stored at a time.
const PUTS_AT_ONCE: usize = 4;
/// Files of one call that go into one folder, which costs one sync of it. The folder is two hex digits
/// of the first one's id, so that no folder grows without end and object stores spread the keys.
const FOLDER_FILES: usize = 64;

/// Files that were written together.
#[derive(Clone, Debug, Default)]
pub struct WrittenFiles {
    /// The data files, durable.
    pub files: Vec<DataFile>,
    /// The sum of the rows that were encoded; none of a table whose rows have none.
    pub rows_sum: Option<RowSum>,
}

/// Splits `batches` (all with the same of the table's columns) by partition, sorts each part by
/// the table's sort order, cuts what is longer than a file should be, and writes Parquet: zstd 1, page index, bloom filters on id, key and
/// bookmark.
///
/// # Errors
/// [`WriteError`]; files that were written before it are deleted where possible, and are nobody's.
pub async fn write(
    storage: &Storage,
    table: &TableMetadata,
    batches: Vec<RecordBatch>,
    ids: &IdGenerator,
) -> Result<Vec<DataFile>, WriteError> {
    write_summed(storage, table, batches, ids).await.map(|written| written.files)
}

/// The same, with the sum of the rows.
///
/// # Errors
/// As [`write()`].
pub async fn write_summed(
    storage: &Storage,
    table: &TableMetadata,
    batches: Vec<RecordBatch>,
    ids: &IdGenerator,
) -> Result<WrittenFiles, WriteError> {
    if batches.iter().all(|batch| batch.num_rows() == 0) {
        let rows_sum = RowKeys::of(table.current_schema()).map(|_| RowSum::default());
        return Ok(WrittenFiles { files: Vec::new(), rows_sum });
    }
    write_as(storage, FileLayout::of(table), batches, ids).await
}

async fn write_as(
    storage: &Storage,
    layout: FileLayout,
    batches: Vec<RecordBatch>,
    ids: &IdGenerator,
) -> Result<WrittenFiles, WriteError> {
    let layout = Arc::new(layout);
    let split = {
        let layout = Arc::clone(&layout);
        blocking(move || {
            let rows = align(&layout.schema, &batches).and_then(|rows| layout.promoted.fill(rows));
            let rows = rows.map_err(WriteError::Split)?;
            partition::split(&layout, &rows)
        })
        .await?
    };
    let PartitionSplit { rows, parts, sorted } = split.cut(layout.file_bytes);
    let store = FileStore {
        storage,
        has_sum: RowKeys::of(&layout.schema).is_some(),
        layout,
        sorted,
        encodes: Semaphore::new(ENCODES_AT_ONCE),
        begun: Mutex::default(),
    };
    let failed = AtomicBool::new(false);
    let mut folder = 0;
    let files: Vec<Option<Result<StoredFile, WriteError>>> = stream::iter(parts)
        .enumerate()
        .map(|(index, PartitionRows { rows: range, values })| {
            let id = ids.mint();
            if index.is_multiple_of(FOLDER_FILES) {
                folder = id.0 & 0xff;
            }
            let (store, failed) = (&store, &failed);
            let location = format!("{}/data/{folder:02x}/{id}.parquet", store.layout.location);
            let put = store.put(location, rows.slice(range.start, range.len()), values);
            async move {
                if failed.load(Ordering::Relaxed) {
                    return None;
                }
                let result = put.await;
                failed.fetch_or(result.is_err(), Ordering::Relaxed);
                Some(result)
            }
        })
        .buffered(PUTS_AT_ONCE)
        .collect()
        .await;
    let files = files.into_iter().flatten().collect::<Result<Vec<StoredFile>, WriteError>>();
    let written = match files {
        Ok(files) => {
            let names: Vec<&str> = files.iter().map(|(file, _)| file.file_path()).collect();
            let synced = storage.sync_names(&names).await.map_err(WriteError::Store);
            synced.map(|()| together(files))
        }
        Err(cause) => Err(cause),
    };
    if written.is_err() {
        // No put is running any more: it would bring back what is deleted here.
        let begun = store.begun.into_inner().unwrap_or_else(PoisonError::into_inner);
        delete(storage, begun.iter().map(String::as_str)).await;
    }
    written
}

/// A file that is stored, with the sum of its rows.
type StoredFile = (DataFile, Option<RowSum>);

fn together(stored: Vec<StoredFile>) -> WrittenFiles {
    let mut written = WrittenFiles::default();
    for (file, sum) in stored {
        written.files.push(file);
        if let Some(sum) = sum {
            written.rows_sum = Some(written.rows_sum.unwrap_or_default().merge(sum));
        }
    }
    written
}

/// Where the files of one call go.
struct FileStore<'a> {
    storage: &'a Storage,
    layout: Arc<FileLayout>,
    sorted: bool,
    /// Whether the table's rows have a sum.
    has_sum: bool,
    encodes: Semaphore,
    /// Files that may have been stored.
    begun: Mutex<Vec<String>>,
}

impl FileStore<'_> {
    /// Encodes rows of one partition as a file, and stores it.
    async fn put(
        &self,
        location: String,
        rows: RecordBatch,
        values: Struct,
    ) -> Result<StoredFile, WriteError> {
        let permit = self.encodes.acquire().await.expect("the semaphore is never closed");
        let (layout, sorted, has_sum) = (Arc::clone(&self.layout), self.sorted, self.has_sum);
        let (encoded, sum) = blocking(move || {
            let sum = has_sum.then(|| row_sum::sum_of(&rows));
            let encoded = encode::encode(&layout, location, &rows, values, sorted)?;
            Ok::<_, WriteError>((encoded, sum))
        })
        .await?;
        drop(permit);
        let EncodedFile { bytes, file } = encoded;
        let location = file.file_path();
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).push(location.to_owned());
        self.storage.put_deferred(location, bytes).await.map_err(WriteError::Store)?;
        Ok((file, sum))
    }
}

/// Deletes data files that no snapshot names. A file that stays is logged and harms nobody: it is
/// found by orphan removal.
pub async fn delete(storage: &Storage, locations: impl Iterator<Item = &str>) {
    for location in locations {
        if let Err(error) = storage.delete(location).await {
            warn!(location, error = &error as &dyn std::error::Error, "orphan data file stays");
        }
    }
}

/// One batch of all rows, with the columns that the table has, under the table's names and types.
///
/// Columns are matched by field id, so a rename by another engine is followed; a column it dropped
/// is left out, and one it added is absent, which readers take as null.
fn align(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<RecordBatch, ArrowError> {
    let Some(first) = batches.first() else {
        return Ok(RecordBatch::new_empty(Arc::new(ArrowSchema::empty())));
    };
    let mut fields = Vec::new();
    let mut columns = Vec::new();
    for (index, field) in first.schema_ref().fields().iter().enumerate() {
        let of_table = match field_id(field) {
            Some(id) => schema.field_by_id(id),
            None => schema.field_by_name(field.name()),
        };
        let Some(of_table) = of_table else { continue };
        let column = promote(concat_column(batches, index)?, of_table)?;
        let metadata = [(FIELD_ID.to_owned(), of_table.id.to_string())];
        fields.push(
            Field::new(&of_table.name, column.data_type().clone(), !of_table.required)
                .with_metadata(metadata.into()),
        );
        columns.push(column);
    }
    RecordBatch::try_new(Arc::new(ArrowSchema::new(fields)), columns)
}

fn concat_column(batches: &[RecordBatch], index: usize) -> Result<ArrayRef, ArrowError> {
    let parts: Vec<&dyn Array> = batches.iter().map(|batch| batch.column(index).as_ref()).collect();
    if let [_] = parts.as_slice() {
        return Ok(Arc::clone(batches[0].column(index)));
    }
    // Most columns of most events are empty; one buffer of nulls then stands for all.
    if parts.iter().all(|part| part.null_count() == part.len()) {
        let rows = parts.iter().map(|part| part.len()).sum();
        return Ok(new_null_array(parts[0].data_type(), rows));
    }
    concat(&parts)
}

/// Follows a promotion that another engine made of our type; others are not valid Iceberg.
fn promote(column: ArrayRef, of_table: &NestedField) -> Result<ArrayRef, ArrowError> {
    let is_long = matches!(of_table.field_type.as_ref(), Type::Primitive(PrimitiveType::Long));
    if is_long && column.data_type() == &DataType::Int32 {
        return cast(&column, &DataType::Int64);
    }
    Ok(column)
}

#[cfg(test)]
mod tests;
