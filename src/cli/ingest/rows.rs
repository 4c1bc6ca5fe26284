//! The rows of a Parquet file as events: each is sent as the JSON object of its columns.
//!
//! A column that is null is a member that is absent. Values are written as `icecore sql` writes
//! them, but numbers that JSON has not, which are texts; the text of a column that holds JSON in our
//! own tables is taken as JSON where it is JSON, so what `icecore sql --format parquet` wrote comes
//! back as it was. A few rows are in memory at a time, whatever the size of the file and of its row
//! groups.

use crate::cli::{
    CliError,
    ingest::{
        BATCH_EVENTS_MAX, InputPart, identity::InputIdentity, lines::push_with_id, source::FileHead,
    },
};
use arrow::{
    array::{Array, AsArray, Float64Array},
    compute::cast,
    datatypes::{DataType, Float64Type},
    record_batch::RecordBatch,
};
use icecore_engine::output::cell::{CellWriter, write_json_text};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use serde::de::IgnoredAny;
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    ops::Range,
    path::{Path, PathBuf},
};

/// Decoded rows that are in memory at a time, in bytes by the file's own account.
const DECODED_BYTES_MAX: u64 = 8 << 20;
/// How much of a file's start and end is looked at to know it again.
const HEAD_BYTES: u64 = 64 * 1024;
/// Members whose value our tables hold as JSON text.
pub(in crate::cli) const JSON_COLUMNS: &[&str] = &[
    "before",
    "prev",
    "after",
    "doc",
    "patch",
    "jsonPatch",
    "mergePatch",
    "data",
    "meta",
    "_meta",
    "do",
];

/// A Parquet file that is open for reading.
#[derive(Debug)]
pub(in crate::cli) struct RowFile {
    builder: ParquetRecordBatchReaderBuilder<File>,
    pub(super) head: FileHead,
}

impl RowFile {
    /// Opens a file and reads its index.
    pub(in crate::cli) fn open(path: &Path) -> Result<Self, CliError> {
        let mut file = File::open(path).map_err(|source| unreadable(path, source))?;
        let head = head(&mut file).map_err(|source| unreadable(path, source))?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file)
            .map_err(|source| unreadable(path, io::Error::other(source)))?;
        Ok(Self { builder, head })
    }

    /// The file's events from row `start` on, each part as large as a request may be.
    pub(super) fn parts(
        self,
        path: &Path,
        identity: InputIdentity,
        start: u64,
    ) -> Result<ParquetRequests, CliError> {
        let reader = self.batches(path, start)?;
        Ok(ParquetRequests { reader, path: path.to_owned(), identity, next: start, batch: None })
    }

    /// The rows from `start` on, as many at a time as may be in memory.
    pub(in crate::cli) fn batches(
        self,
        path: &Path,
        start: u64,
    ) -> Result<ParquetRecordBatchReader, CliError> {
        let groups = self.builder.metadata().row_groups().iter();
        let row_bytes = groups
            .filter(|group| 0 < group.num_rows())
            .map(|group| u64::try_from(group.total_byte_size() / group.num_rows()).unwrap_or(0))
            .max()
            .unwrap_or(0);
        let rows = (DECODED_BYTES_MAX / row_bytes.max(1)).clamp(1, BATCH_EVENTS_MAX as u64);
        self.builder
            .with_offset(usize::try_from(start).unwrap_or(usize::MAX))
            .with_batch_size(usize::try_from(rows).expect("at most a request's events"))
            .build()
            .map_err(|source| unreadable(path, io::Error::other(source)))
    }
}

/// The parts of a file, in order.
#[derive(Debug)]
pub(super) struct ParquetRequests {
    reader: ParquetRecordBatchReader,
    path: PathBuf,
    identity: InputIdentity,
    next: u64,
    /// What of the last batch did not fit.
    batch: Option<RecordBatch>,
}

impl Iterator for ParquetRequests {
    type Item = Result<InputPart, CliError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut part = InputPart::default();
        while !part.is_full() {
            let batch = match self.batch.take().map(Ok).or_else(|| self.reader.next()) {
                None => break,
                Some(Ok(batch)) => batch,
                Some(Err(source)) => {
                    return Some(Err(unreadable(&self.path, io::Error::other(source))));
                }
            };
            if let Err(problem) = self.add(&batch, &mut part) {
                return Some(Err(problem));
            }
        }
        part.next = self.next;
        (!part.places.is_empty()).then_some(Ok(part))
    }
}

impl ParquetRequests {
    /// Adds rows up to the bounds of a request, and keeps the rest.
    fn add(&mut self, batch: &RecordBatch, part: &mut InputPart) -> Result<(), CliError> {
        let mut rows = 0;
        let writer = EventWriter::new(&self.path, batch)?;
        while rows < batch.num_rows() && !part.is_full() {
            self.next += 1;
            let id = |event: &[u8]| self.identity.id(self.next, event);
            writer.write(&mut part.body, rows, id);
            part.places.push(self.next);
            rows += 1;
        }
        let left = batch.num_rows() - rows;
        self.batch = (0 < left).then(|| batch.slice(rows, left));
        Ok(())
    }
}

/// Writes rows of a batch as events.
#[derive(Debug)]
pub(in crate::cli) struct EventWriter {
    cells: CellWriter,
    columns: Vec<ParquetColumn>,
}

#[derive(Debug)]
struct ParquetColumn {
    /// Its place in the batch.
    index: usize,
    /// `"name":`
    name: Vec<u8>,
    is_json: bool,
    /// The values, where some may be none of JSON's numbers.
    floats: Option<Float64Array>,
    nulls: Option<arrow::buffer::NullBuffer>,
}

impl EventWriter {
    pub(in crate::cli) fn new(path: &Path, batch: &RecordBatch) -> Result<Self, CliError> {
        let failed =
            |source: &dyn std::error::Error| unreadable(path, io::Error::other(source.to_string()));
        let mut arrays = Vec::with_capacity(batch.num_columns());
        let mut columns = Vec::with_capacity(batch.num_columns());
        for (index, (field, array)) in
            batch.schema_ref().fields().iter().zip(batch.columns()).enumerate()
        {
            let is_json = JSON_COLUMNS.contains(&field.name().as_str());
            // JSON columns are often marked as bytes by those who write them.
            let is_bytes = matches!(
                array.data_type(),
                DataType::Binary | DataType::LargeBinary | DataType::BinaryView
            );
            let array = if is_json && is_bytes {
                cast(array, &DataType::Utf8View).map_err(|source| failed(&source))?
            } else {
                std::sync::Arc::clone(array)
            };
            let mut name = Vec::new();
            write_json_text(&mut name, field.name());
            name.push(b':');
            let floats = match array.data_type().is_floating() {
                true => Some(cast(&array, &DataType::Float64).map_err(|source| failed(&source))?),
                false => None,
            };
            columns.push(ParquetColumn {
                index,
                name,
                is_json,
                floats: floats.map(|floats| floats.as_primitive::<Float64Type>().clone()),
                nulls: array.logical_nulls(),
            });
            arrays.push((field.name().clone(), array, true));
        }
        let batch =
            RecordBatch::try_from_iter_with_nullable(arrays).map_err(|source| failed(&source))?;
        let cells = CellWriter::new(&batch).map_err(|source| failed(&source))?;
        Ok(Self { cells, columns })
    }

    /// One line: the row as an object, with an id made of it where it has none of its own.
    pub(in crate::cli) fn write(
        &self,
        out: &mut Vec<u8>,
        row: usize,
        id: impl FnOnce(&[u8]) -> String,
    ) {
        push_with_id(out, &self.object(row), id);
    }

    /// The row as an object on one line.
    pub(in crate::cli) fn object(&self, row: usize) -> Vec<u8> {
        let mut object = vec![b'{'];
        let present = |column: &&ParquetColumn| {
            !column.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
        };
        for column in self.columns.iter().filter(present) {
            object.extend_from_slice(&column.name);
            let start = object.len();
            match column.floats.as_ref().and_then(|floats| non_finite(floats.value(row))) {
                Some(text) => write_json_text(&mut object, text),
                None => self.cells.write_json(&mut object, column.index, row),
            }
            if column.is_json {
                let written = start..object.len();
                unquote_json(&mut object, written);
            }
            object.push(b',');
        }
        object.pop_if(|last| *last == b',');
        object.push(b'}');
        object
    }
}

/// The text of a number that JSON has not.
fn non_finite(number: f64) -> Option<&'static str> {
    match number {
        _ if number.is_finite() => None,
        _ if number.is_nan() => Some("NaN"),
        _ if 0.0 < number => Some("Infinity"),
        _ => Some("-Infinity"),
    }
}

/// Puts the JSON that a JSON text holds in its place.
fn unquote_json(out: &mut Vec<u8>, written: Range<usize>) {
    let Ok(text) = serde_json::from_slice::<String>(&out[written.clone()]) else { return };
    if serde_json::from_str::<IgnoredAny>(&text).is_ok() {
        out.truncate(written.start);
        // A line ends an event. JSON has no line ends but between its tokens.
        let bytes =
            text.bytes().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte });
        out.extend(bytes);
    }
}

/// A Parquet file is written once, so its length and its ends tell it from others.
fn head(file: &mut File) -> io::Result<FileHead> {
    let length = file.metadata()?.len();
    let mut ends = length.to_le_bytes().to_vec();
    file.by_ref().take(HEAD_BYTES).read_to_end(&mut ends)?;
    file.seek(SeekFrom::Start(length.saturating_sub(HEAD_BYTES)))?;
    file.by_ref().take(HEAD_BYTES).read_to_end(&mut ends)?;
    file.rewind()?;
    Ok(FileHead::of_bytes(&ends))
}

pub(in crate::cli) fn unreadable(path: &Path, source: io::Error) -> CliError {
    CliError::Io { operation: format!("read `{}` as Parquet", path.display()), source }
}
