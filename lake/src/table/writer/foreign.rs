//! Rows in any order to data files of a table that is not the service's, as they come.
//!
//! What it promises:
//!
//! - Rows of one partition stay in their order. A file ends with its partition, or once it is as long as the
//!   table wants its files, at most [`FILE_BYTES_MAX`]. Rows of a partitioned table are gathered first, so that
//!   rows whose partitions alternate do not make a file each. Those of a collection's table come bucket after bucket.
//! - It holds one file that is not ended, and at most [`GATHERED_BYTES_MAX`] of rows twice.
//! - It writes at most [`FILES_MAX`] files, and refuses further rows before it writes any of them.
//! - Files are written as the table's properties ask for them, as those of
//!   [`crate::table::compaction::foreign`] are.
//! - The files that [`ForeignWriter::finish`] gives are durable, and nobody's until a snapshot names them.

use crate::{
    blocking::blocking,
    ids::IdGenerator,
    table::{
        encode::{
            EncodedFile,
            rows::{MeasuredColumn, RowsFile, RowsLayout, properties},
        },
        partition::{self, PartitionRows, PartitionSplit, field_id},
        stats::foreign::MetricsMode,
        writer::{FileLayout, WriteError, delete},
    },
};
use arrow::{
    array::{Array, ArrayRef},
    compute::concat_batches,
    datatypes::SchemaRef as ArrowSchemaRef,
    record_batch::RecordBatch,
};
use iceberg::spec::{DataFile, SortOrder, Struct, TableMetadata};
use icecore_catalog::{retention, storage::Storage};
use std::{mem, sync::Arc};

/// Most bytes of a file, whatever the table wants: it is in memory until it is stored.
const FILE_BYTES_MAX: usize = 128 << 20;
/// Rows of a partitioned table are gathered until they take so much memory.
pub const GATHERED_BYTES_MAX: usize = 32 << 20;
/// Most files of a writer: each is an entry in the manifest of its commit.
pub const FILES_MAX: usize = 10_000;

/// Writes rows to data files.
#[derive(Debug)]
pub struct ForeignWriter<'a> {
    storage: &'a Storage,
    ids: &'a IdGenerator,
    layout: Arc<FileLayout>,
    /// Of files without a partition.
    rows_layout: RowsLayout,
    /// Whether rows may come in any order of their partitions.
    is_gathering: bool,
    gathered: Vec<RecordBatch>,
    gathered_bytes: usize,
    /// The file that is not ended, with its partition.
    open: Option<(Struct, RowsFile)>,
    written: Vec<DataFile>,
}

impl<'a> ForeignWriter<'a> {
    /// A writer of new files of the table's default partition spec, for rows with these columns, each with its
    /// field id.
    #[must_use]
    pub fn new(
        storage: &'a Storage,
        table: &TableMetadata,
        schema: &ArrowSchemaRef,
        ids: &'a IdGenerator,
    ) -> Self {
        // Rows are not sorted, and no file says that it is.
        let sort_order = Arc::new(SortOrder::unsorted_order());
        let layout = FileLayout { sort_order, ..FileLayout::of(table) };
        let rows_layout = rows_layout(table, schema);
        let is_of_collection = retention::collection_of(table).is_some();
        let is_gathering = !layout.spec.is_unpartitioned() && !is_of_collection;
        Self {
            storage,
            ids,
            layout: Arc::new(layout),
            rows_layout,
            is_gathering,
            gathered: Vec::new(),
            gathered_bytes: 0,
            open: None,
            written: Vec::new(),
        }
    }

    /// Adds the rows that come next. After an error only [`ForeignWriter::abandon`] is left.
    ///
    /// # Errors
    /// [`WriteError`]
    pub async fn write(&mut self, rows: RecordBatch) -> Result<(), WriteError> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        // The columns of a batch may share one buffer, which counts once.
        let bytes =
            |column: &ArrayRef| column.to_data().get_slice_memory_size().unwrap_or_default();
        self.gathered_bytes += rows.columns().iter().map(bytes).sum::<usize>();
        self.gathered.push(rows);
        let is_enough = !self.is_gathering || GATHERED_BYTES_MAX <= self.gathered_bytes;
        if is_enough { self.add_gathered().await } else { Ok(()) }
    }

    /// Ends the last file; all files, in the order of their rows.
    ///
    /// # Errors
    /// [`WriteError`]; what was written is deleted then.
    pub async fn finish(mut self) -> Result<Vec<DataFile>, WriteError> {
        match self.end().await {
            Ok(()) => Ok(self.written),
            Err(cause) => {
                self.abandon().await;
                Err(cause)
            }
        }
    }

    async fn end(&mut self) -> Result<(), WriteError> {
        self.add_gathered().await?;
        self.store_file().await?;
        let names: Vec<&str> = self.written.iter().map(DataFile::file_path).collect();
        self.storage.sync_names(&names).await.map_err(WriteError::Store)
    }

    /// Deletes the files that were written.
    pub async fn abandon(self) {
        delete(self.storage, self.written.iter().map(DataFile::file_path)).await;
    }

    async fn add_gathered(&mut self) -> Result<(), WriteError> {
        let gathered = mem::take(&mut self.gathered);
        self.gathered_bytes = 0;
        let Some(first) = gathered.first() else { return Ok(()) };
        let (schema, layout) = (first.schema(), Arc::clone(&self.layout));
        let PartitionSplit { rows, parts, .. } = blocking(move || {
            // One batch is not copied.
            let rows = match gathered.as_slice() {
                [rows] => rows.clone(),
                several => concat_batches(&schema, several).map_err(WriteError::Split)?,
            };
            partition::split(&layout, &rows)
        })
        .await?;
        if FILES_MAX < self.written.len() + parts.len() {
            return Err(WriteError::TooManyFiles(FILES_MAX));
        }
        for PartitionRows { rows: range, values } in parts {
            self.add(rows.slice(range.start, range.len()), values).await?;
        }
        Ok(())
    }

    /// Adds rows of one partition.
    async fn add(&mut self, rows: RecordBatch, partition: Struct) -> Result<(), WriteError> {
        if self.open.as_ref().is_some_and(|(open, _)| *open != partition) {
            self.store_file().await?;
        }
        let mut file = match self.open.take() {
            Some((_, file)) => file,
            None => {
                let id = self.ids.mint();
                let folder = &self.layout.location;
                let location = format!("{folder}/data/{:02x}/{id}.parquet", id.0 & 0xff);
                let layout =
                    RowsLayout { partition: partition.clone(), ..self.rows_layout.clone() };
                RowsFile::new(Arc::new(layout), location)?
            }
        };
        let file = blocking(move || {
            file.add(&rows)?;
            Ok::<_, WriteError>(file)
        })
        .await?;
        let is_long = self.layout.file_bytes.min(FILE_BYTES_MAX) <= file.bytes();
        self.open = Some((partition, file));
        if is_long { self.store_file().await } else { Ok(()) }
    }

    async fn store_file(&mut self) -> Result<(), WriteError> {
        let Some((_, file)) = self.open.take() else { return Ok(()) };
        let EncodedFile { bytes, file } = blocking(move || file.finish()).await?;
        // It is among those that are deleted after an error before anything of it may be stored.
        let location = file.file_path().to_owned();
        self.written.push(file);
        self.storage.put_deferred(&location, bytes).await.map_err(WriteError::Store)
    }
}

fn rows_layout(table: &TableMetadata, schema: &ArrowSchemaRef) -> RowsLayout {
    let columns = table.current_schema().as_struct().fields();
    let measured = schema.fields().iter().enumerate().filter_map(|(at, field)| {
        let id = field_id(field)?;
        let place = columns.iter().position(|column| column.id == id)?;
        let kind = columns[place].field_type.as_primitive_type()?.clone();
        let mode = MetricsMode::of(table, field.name(), place);
        (mode != MetricsMode::None).then_some(MeasuredColumn { at, id, kind, mode })
    });
    RowsLayout {
        properties: properties(table, schema),
        measured: measured.collect(),
        schema: Arc::clone(schema),
        spec_id: table.default_partition_spec_id(),
        partition: Struct::empty(),
        sort_order_id: None,
    }
}

#[cfg(test)]
mod tests;
