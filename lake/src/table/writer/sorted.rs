//! Sorted rows to data files as they come, without holding them all.
//!
//! What it promises:
//!
//! - Rows come partition after partition and within one in the table's order of rows; a batch may hold
//!   several partitions. Rows that are out of order are an error. A partition that comes again gets
//!   further files.
//! - A file ends with its partition or once it is as long as the table wants its files, at most
//!   [`FILE_BYTES_MAX`]. Its row groups have at most [`GROUP_BYTES_MAX`] of rows in memory.
//! - Beside the batch that is added it holds at most [`HELD_BYTES_MAX`]: a file that is not ended, and
//!   one row group as it came, in one piece, and encoded.
//! - The files that [`SortedWriter::finish`] gives are durable, and nobody's until a snapshot names them.
//!   After an error those that were written before it are deleted where possible.
//!
//! Its files are those of [`crate::table::writer::write`] but for columns without values, which they
//! have unless the caller knows at the start that none will come.

use crate::{
    blocking::blocking,
    ids::IdGenerator,
    table::{
        encode::{EncodedFile, GroupedFile, ROW_GROUP_ROWS_MAX},
        partition::{self, PartitionRows, PartitionSplit},
        row_sum::{self, RowKeys},
        writer::{FileLayout, WriteError, WrittenFiles, align, delete},
    },
};
use arrow::{
    array::{Array, ArrayRef},
    compute::concat_batches,
    error::ArrowError,
    record_batch::RecordBatch,
};
use iceberg::spec::{DataFile, Struct};
use icecore_catalog::{row_sum::RowSum, storage::Storage};
use std::{collections::HashSet, mem, sync::Arc};

/// Most bytes that the rows of a row group take in memory; a single row may take more.
const GROUP_BYTES_MAX: usize = 32 << 20;
/// Most bytes of a file, whatever the table wants.
const FILE_BYTES_MAX: usize = 128 << 20;
/// Most bytes that are held: a file, and a row group three times, with as much again for the pages that
/// are compressed at the moment.
pub const HELD_BYTES_MAX: usize = FILE_BYTES_MAX + 4 * GROUP_BYTES_MAX;

/// Writes sorted rows to data files.
#[derive(Debug)]
pub struct SortedWriter<'a> {
    storage: &'a Storage,
    ids: &'a IdGenerator,
    layout: Arc<FileLayout>,
    group_bytes_max: usize,
    /// Columns of which no row has a value.
    empty: HashSet<i32>,
    /// The partition that rows are of, with the sort keys of its last row.
    part: Option<(Struct, Option<Vec<i64>>)>,
    /// Its rows that are in no row group yet.
    rows: Vec<RecordBatch>,
    rows_bytes: usize,
    file: Option<GroupedFile>,
    written: Vec<DataFile>,
    /// The sum of the rows that were encoded; none of a table whose rows have none.
    rows_sum: Option<RowSum>,
    /// The most bytes that were held at a time.
    held_max: usize,
}

impl<'a> SortedWriter<'a> {
    /// A writer of new files that are laid out so.
    #[must_use]
    pub fn new(storage: &'a Storage, layout: FileLayout, ids: &'a IdGenerator) -> Self {
        Self::within(storage, layout, ids, GROUP_BYTES_MAX)
    }

    pub(super) fn within(
        storage: &'a Storage,
        mut layout: FileLayout,
        ids: &'a IdGenerator,
        group_bytes_max: usize,
    ) -> Self {
        layout.file_bytes = layout.file_bytes.min(FILE_BYTES_MAX);
        let rows_sum = RowKeys::of(&layout.schema).map(|_| RowSum::default());
        Self {
            storage,
            ids,
            layout: Arc::new(layout),
            group_bytes_max,
            empty: HashSet::new(),
            part: None,
            rows: Vec::new(),
            rows_bytes: 0,
            file: None,
            written: Vec::new(),
            rows_sum,
            held_max: 0,
        }
    }

    /// The same without columns, by field id, of which no row that comes will have a value. Rows that have one
    /// all the same are an error.
    #[must_use]
    pub fn without_values(self, empty: HashSet<i32>) -> Self {
        Self { empty, ..self }
    }

    /// Adds the rows that come next. After an error the writer is of no use any more.
    ///
    /// # Errors
    /// [`WriteError`]
    pub async fn write(&mut self, rows: &RecordBatch) -> Result<(), WriteError> {
        let added = self.add(rows).await;
        self.delete_after(added).await
    }

    /// Ends the last file; all files of the writer, in the order of their rows.
    ///
    /// # Errors
    /// [`WriteError`]
    pub async fn finish(self) -> Result<Vec<DataFile>, WriteError> {
        self.finish_summed().await.map(|written| written.files)
    }

    /// The same, with the sum of the rows.
    ///
    /// # Errors
    /// [`WriteError`]
    pub async fn finish_summed(mut self) -> Result<WrittenFiles, WriteError> {
        let mut ended = self.end_file().await;
        if ended.is_ok() {
            let names: Vec<&str> = self.written.iter().map(DataFile::file_path).collect();
            ended = self.storage.sync_names(&names).await.map_err(WriteError::Store);
        }
        self.delete_after(ended).await?;
        Ok(WrittenFiles { files: self.written, rows_sum: self.rows_sum })
    }

    /// Deletes the files that were written.
    pub async fn abandon(self) {
        delete(self.storage, self.written.iter().map(DataFile::file_path)).await;
    }

    /// The most bytes that were held at a time, beside the batches that were added.
    #[must_use]
    pub fn held_max(&self) -> usize {
        self.held_max
    }

    async fn delete_after<T>(&mut self, result: Result<T, WriteError>) -> Result<T, WriteError> {
        if result.is_err() {
            let written = mem::take(&mut self.written);
            delete(self.storage, written.iter().map(DataFile::file_path)).await;
        }
        result
    }

    async fn add(&mut self, rows: &RecordBatch) -> Result<(), WriteError> {
        let (layout, rows) = (Arc::clone(&self.layout), rows.clone());
        let PartitionSplit { rows, parts, sorted } = blocking(move || {
            let rows = align(&layout.schema, &[rows]).map_err(WriteError::Split)?;
            partition::split(&layout, &rows)
        })
        .await?;
        let has_order = partition::sort_keys(&self.layout, &rows.slice(0, 0)).is_some();
        if sorted != has_order {
            return Err(out_of_order());
        }
        for PartitionRows { rows: range, values } in parts {
            let rows = rows.slice(range.start, range.len());
            if self.part.as_ref().is_none_or(|(part, _)| *part != values) {
                self.end_file().await?;
                self.part = Some((values, None));
            }
            self.check_order(&rows)?;
            self.take(&rows).await?;
        }
        Ok(())
    }

    /// Rows of one partition are sorted already; here they are held against what came before.
    fn check_order(&mut self, rows: &RecordBatch) -> Result<(), WriteError> {
        let Some((_, before)) = &mut self.part else { return Ok(()) };
        let key = |row: usize| {
            let keys = partition::sort_keys(&self.layout, &rows.slice(row, 1));
            keys.map(|columns| columns.iter().map(|column| column[0]).collect::<Vec<i64>>())
        };
        if before.as_ref().zip(key(0)).is_some_and(|(before, first)| first < *before) {
            return Err(out_of_order());
        }
        *before = key(rows.num_rows() - 1);
        Ok(())
    }

    /// Puts rows of the partition into row groups.
    async fn take(&mut self, rows: &RecordBatch) -> Result<(), WriteError> {
        let bytes_of_row = bytes_of(rows).div_ceil(rows.num_rows()).max(1);
        let mut start = 0;
        while start < rows.num_rows() {
            let held: usize = self.rows.iter().map(RecordBatch::num_rows).sum();
            let room = self.group_bytes_max.saturating_sub(self.rows_bytes) / bytes_of_row;
            let room = room.min(ROW_GROUP_ROWS_MAX.saturating_sub(held));
            if room == 0 && 0 < held {
                let is_long = self.end_group().await?;
                if is_long {
                    self.store_file().await?;
                }
                continue;
            }
            let count = room.clamp(1, rows.num_rows() - start);
            self.rows.push(rows.slice(start, count));
            self.rows_bytes += count * bytes_of_row;
            start += count;
        }
        Ok(())
    }

    /// Encodes the rows that wait as one row group; whether the file would be too long with another
    /// like it.
    async fn end_group(&mut self) -> Result<bool, WriteError> {
        let (rows, bytes) = (mem::take(&mut self.rows), mem::take(&mut self.rows_bytes));
        let (Some(first), Some((values, _))) = (rows.first(), &self.part) else { return Ok(false) };
        let mut file = match self.file.take() {
            Some(file) => file,
            None => {
                let id = self.ids.mint();
                let location =
                    format!("{}/data/{:02x}/{id}.parquet", self.layout.location, id.0 & 0xff);
                let layout = Arc::clone(&self.layout);
                GroupedFile::new(layout, location, values.clone(), &first.schema(), &self.empty)?
            }
        };
        let before = file.bytes();
        let before_sum = self.rows_sum;
        let (file, plain, sum) = blocking(move || {
            let group = concat_batches(&rows[0].schema(), &rows).map_err(WriteError::Split)?;
            let sum = before_sum.map(|before| before.merge(row_sum::sum_of(&group)));
            let plain = file.add(&group)?;
            Ok::<_, WriteError>((file, plain, sum))
        })
        .await?;
        self.rows_sum = sum;
        self.held_max = self.held_max.max(2 * bytes + plain + file.bytes());
        let of_group = file.bytes() - before;
        let is_long = self.layout.file_bytes < file.bytes() + of_group;
        self.file = Some(file);
        Ok(is_long)
    }

    /// Ends the partition's file, with the rows that wait.
    async fn end_file(&mut self) -> Result<(), WriteError> {
        self.end_group().await?;
        self.store_file().await
    }

    async fn store_file(&mut self) -> Result<(), WriteError> {
        let Some(file) = self.file.take() else { return Ok(()) };
        let EncodedFile { bytes, file } = blocking(move || file.finish()).await?;
        // It is among those that are deleted after an error before anything of it may be stored.
        let location = file.file_path().to_owned();
        self.written.push(file);
        self.storage.put_deferred(&location, bytes).await.map_err(WriteError::Store)
    }
}

/// Rows came after rows that they belong before, or lack a value that the order needs.
fn out_of_order() -> WriteError {
    let text = "rows do not come in the table's order".to_owned();
    WriteError::Split(ArrowError::InvalidArgumentError(text))
}

fn bytes_of(rows: &RecordBatch) -> usize {
    let bytes = |column: &ArrayRef| column.to_data().get_slice_memory_size().unwrap_or_default();
    rows.columns().iter().map(bytes).sum()
}
