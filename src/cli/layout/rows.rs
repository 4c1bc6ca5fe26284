//! The rows of a file, one JSON text each, in bounded memory.

use crate::cli::{
    CliError,
    ingest::{
        FileFormat,
        rows::{EventWriter, RowFile, unreadable},
        source::{failed_at, plain_file},
    },
};
use arrow::{
    array::{Array, ArrayRef},
    compute::cast,
    datatypes::DataType,
    error::ArrowError,
    record_batch::RecordBatch,
};
use icecore_lake::event::decode::file_ids::{bare_line, column_of, values_of};
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;
use std::{
    io::{self, BufRead, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Longest line that is read; an event has at most 1 MiB where the server is not told otherwise.
const LINE_BYTES_MAX: u64 = 64 << 20;
/// Largest file of JSON values, which is read whole.
const JSON_BYTES_MAX: u64 = 64 << 20;

/// The column with the whole event.
const PAYLOAD: &str = "payload";

/// One row.
#[derive(Debug)]
pub(in crate::cli) struct FileRow {
    /// Its line, row or value, from 1.
    pub(in crate::cli) place: u64,
    /// JSON where the file is what it is called.
    pub(in crate::cli) text: Vec<u8>,
}

/// The rows of a file, in order.
pub(in crate::cli) enum FileRows {
    /// Lines.
    Lines(LineRows),
    /// Rows of Parquet.
    Table(Box<TableRows>),
    /// JSON values.
    Values(std::vec::IntoIter<FileRow>),
}

impl FileRows {
    /// Opens a file.
    ///
    /// # Errors
    /// [`CliError::Io`].
    pub(in crate::cli) fn open(path: &Path, format: FileFormat) -> Result<Self, CliError> {
        match format {
            FileFormat::Parquet => {
                let reader = RowFile::open(path)?.batches(path, 0)?;
                let rows = TableRows { path: path.to_owned(), reader, batch: None, place: 0 };
                Ok(Self::Table(Box::new(rows)))
            }
            FileFormat::Ndjson => {
                let reader = plain_file(path).map_err(failed_at(path))?;
                Ok(Self::Lines(LineRows { path: path.to_owned(), reader, place: 0 }))
            }
            FileFormat::Json | FileFormat::Csv | FileFormat::Cloudevents | FileFormat::Avro => {
                Ok(Self::Values(values(path).map_err(failed_at(path))?.into_iter()))
            }
        }
    }
}

impl Iterator for FileRows {
    type Item = Result<FileRow, CliError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Lines(rows) => rows.next_row().transpose(),
            Self::Table(rows) => rows.next_row().transpose(),
            Self::Values(rows) => rows.next().map(Ok),
        }
    }
}

/// The values of a JSON file. What is no JSON is a row as well: the server says what is wrong with it.
fn values(path: &Path) -> io::Result<Vec<FileRow>> {
    let mut bytes = Vec::new();
    plain_file(path)?.take(JSON_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if JSON_BYTES_MAX < bytes.len() as u64 {
        return Err(io::Error::other("a JSON file is read whole and has more than 64 MiB"));
    }
    let Ok(text) = std::str::from_utf8(&bytes) else {
        return Ok(vec![FileRow { place: 1, text: bytes }]);
    };
    let (mut values, broken) = values_of(text);
    values.extend((!broken.is_empty()).then_some(broken));
    let rows = (1..).zip(values);
    Ok(rows.map(|(place, value)| FileRow { place, text: value.as_bytes().to_vec() }).collect())
}

/// The lines of a file that are not empty.
pub(in crate::cli) struct LineRows {
    path: PathBuf,
    reader: Box<dyn BufRead + Send>,
    place: u64,
}

impl LineRows {
    fn next_row(&mut self) -> Result<Option<FileRow>, CliError> {
        let mut line = Vec::new();
        loop {
            line.clear();
            let mut bounded = self.reader.by_ref().take(LINE_BYTES_MAX);
            let read = bounded.read_until(b'\n', &mut line).map_err(failed_at(&self.path))?;
            if read == 0 {
                return Ok(None);
            }
            self.place += 1;
            if read as u64 == LINE_BYTES_MAX && !line.ends_with(b"\n") {
                let reason = format!("line {} has more than 64 MiB", self.place);
                return Err(failed_at(&self.path)(io::Error::other(reason)));
            }
            let text = bare_line(&line);
            if !text.is_empty() {
                return Ok(Some(FileRow { place: self.place, text: text.to_vec() }));
            }
        }
    }
}

/// The rows of a Parquet file.
pub(in crate::cli) struct TableRows {
    path: PathBuf,
    reader: ParquetRecordBatchReader,
    /// What writes the rows of the batch that is being read, how many it has, and how many are read.
    batch: Option<(EventWriter, usize, usize)>,
    place: u64,
}

impl TableRows {
    fn next_row(&mut self) -> Result<Option<FileRow>, CliError> {
        loop {
            if let Some((writer, rows, read)) = &mut self.batch
                && *read < *rows
            {
                let text = writer.object(*read);
                *read += 1;
                self.place += 1;
                return Ok(Some(FileRow { place: self.place, text }));
            }
            self.batch = match self.reader.next() {
                None => return Ok(None),
                Some(Ok(batch)) => {
                    let failed =
                        |cause: ArrowError| unreadable(&self.path, io::Error::other(cause));
                    let batch = as_events_have_it(&batch).map_err(failed)?;
                    Some((EventWriter::new(&self.path, &batch)?, batch.num_rows(), 0))
                }
                Some(Err(cause)) => {
                    return Err(unreadable(&self.path, io::Error::other(cause)));
                }
            };
        }
    }
}

/// A batch whose known columns have the types that copies of its events in JSON have: some writers mark texts
/// as bytes, and write fractions as decimals.
fn as_events_have_it(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns = batch.schema_ref().fields().iter().zip(batch.columns());
    RecordBatch::try_from_iter_with_nullable(columns.map(|(field, values)| {
        let is_known = field.name() == PAYLOAD || column_of(field.name()).is_some();
        let wanted = wanted_type(values.data_type()).filter(|_| is_known);
        let found = wanted.and_then(|wanted| cast(values, &wanted).ok());
        // Bytes that are no text would be null.
        let found = found.filter(|found: &ArrayRef| found.null_count() == values.null_count());
        (field.name().as_str(), found.unwrap_or_else(|| Arc::clone(values)), true)
    }))
}

fn wanted_type(written: &DataType) -> Option<DataType> {
    match written {
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => Some(DataType::Utf8View),
        DataType::Decimal32(_, 1..)
        | DataType::Decimal64(_, 1..)
        | DataType::Decimal128(_, 1..)
        | DataType::Decimal256(_, 1..) => Some(DataType::Float64),
        _ => None,
    }
}
