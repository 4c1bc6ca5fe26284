//! An answer as a Parquet file, row group by row group.
//!
//! Parquet's index stands at its end, so the file can be streamed: what a row group encodes to is
//! sent when the group is full, and no more than one group is held. A file without its end does
//! not open, so an answer that breaks off cannot be taken for a whole one.

use crate::{error::SqlError, output::type_name};
use arrow::{
    datatypes::{DataType, SchemaRef},
    record_batch::RecordBatch,
};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    errors::ParquetError,
    file::properties::WriterProperties,
};

/// Most rows of a row group: the grain of parallel reading.
const GROUP_ROWS_MAX: usize = 131_072;
/// A row group of this many encoded bytes is full.
const GROUP_BYTES_MAX: usize = 16 << 20;
/// Rows that are encoded before the size of the group is looked at again.
const SLICE_ROWS: usize = 1024;

/// A file that is being written.
#[derive(Debug)]
pub(super) struct ParquetFile {
    writer: ArrowWriter<Vec<u8>>,
}

impl ParquetFile {
    /// Starts a file with these columns.
    ///
    /// # Errors
    /// [`SqlError::Invalid`] names a column whose type Parquet does not have.
    pub(super) fn start(schema: &SchemaRef) -> Result<Self, SqlError> {
        if schema.fields().is_empty() {
            return Err(SqlError::Invalid("Parquet needs at least one column".to_owned()));
        }
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).expect("1 is a zstd level")))
            .set_max_row_group_row_count(Some(GROUP_ROWS_MAX))
            .set_max_row_group_bytes(Some(GROUP_BYTES_MAX))
            .build();
        let writer = ArrowWriter::try_new(Vec::new(), SchemaRef::clone(schema), Some(properties))
            .map_err(|cause| misfit(schema).unwrap_or_else(|| unwritable(&cause)))?;
        // Some types are refused only when a column's writer is made.
        misfit(schema).map_or(Ok(Self { writer }), Err)
    }

    /// The bytes before the first row group.
    pub(super) fn header(&mut self) -> Result<Vec<u8>, SqlError> {
        self.writer.sync().map_err(|cause| unwritable(&cause.into()))?;
        Ok(std::mem::take(self.writer.inner_mut()))
    }

    /// Adds rows; gives the bytes of the row groups that became full, often none.
    pub(super) fn push(&mut self, batch: &RecordBatch) -> Result<Vec<u8>, SqlError> {
        let mut from = 0;
        while from < batch.num_rows() {
            let rows = SLICE_ROWS.min(batch.num_rows() - from);
            let slice = batch.slice(from, rows);
            self.writer.write(&slice).map_err(|cause| unwritable(&cause))?;
            from += rows;
        }
        self.writer.sync().map_err(|cause| unwritable(&cause.into()))?;
        // The writer counts what it wrote by itself, so places in the file stay right.
        Ok(std::mem::take(self.writer.inner_mut()))
    }

    /// The rest of the file.
    pub(super) fn finish(self) -> Result<Vec<u8>, SqlError> {
        self.writer.into_inner().map_err(|cause| unwritable(&cause))
    }
}

/// The column that has no type in Parquet.
fn misfit(schema: &SchemaRef) -> Option<SqlError> {
    let field = schema.fields().iter().find(|field| !is_known(field.data_type()))?;
    Some(SqlError::Invalid(format!(
        "column `{}` has type {}, which Parquet does not have; cast it, as in CAST({} AS VARCHAR)",
        field.name(),
        type_name(field.data_type()),
        field.name()
    )))
}

fn is_known(data_type: &DataType) -> bool {
    match data_type {
        DataType::Interval(_) | DataType::Union(..) | DataType::RunEndEncoded(..) => false,
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _) => is_known(item.data_type()),
        DataType::Struct(fields) => {
            !fields.is_empty() && fields.iter().all(|field| is_known(field.data_type()))
        }
        DataType::Dictionary(_, values) => is_known(values),
        _ => true,
    }
}

fn unwritable(error: &ParquetError) -> SqlError {
    tracing::error!(error = error as &dyn std::error::Error, "answer does not encode");
    SqlError::Internal("the answer could not be encoded".to_owned())
}
