//! Answers as bytes: JSON, NDJSON, CSV, Arrow's stream format, and Parquet.
//!
//! One batch at a time: no encoder holds more than the batch it is writing, or the row group. What a
//! value looks like as text is decided in [`cell`].

pub mod cell;
mod parquet_file;

use crate::{QueryAnswer, error::SqlError};
use arrow::{
    datatypes::{DataType, Field, SchemaRef},
    ipc::writer::StreamWriter,
    record_batch::RecordBatch,
};
use bytes::Bytes;
use cell::CellWriter;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use icecore_lake::blocking::blocking;
use icecore_schemas::{error_code::ErrorBody, query::QueryBasis};
use parquet_file::ParquetFile;
use std::{collections::HashSet, ops::Range, time::Duration};

/// A piece of text ends behind the row that makes it longer: names of members and NULLs are larger as text than in
/// their batch, without a bound.
const PIECE_BYTES: usize = 16 << 20;

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputFormat {
    /// One object: `{"columns":[{name,type}],"rows":[[…]],"rowCount","elapsedMs","snapshot"?,"basis"?}`.
    Json,
    /// One object a row, one a line.
    Ndjson,
    /// RFC 4180 with a header line and `\n`; null is an empty field, an empty text is `""`.
    Csv,
    /// Arrow IPC stream.
    ArrowStream,
    /// A Parquet file, compressed with zstd.
    Parquet,
}

impl OutputFormat {
    /// The first format that an `Accept` header names; JSON when it names none (`*/*`, empty).
    /// None when it names only media types that are not written.
    #[must_use]
    pub fn from_accept(accept: &str) -> Option<Self> {
        let mut named = false;
        for part in accept.split(',') {
            let media = part.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
            named |= !media.is_empty();
            match media.as_str() {
                "*/*" | "application/*" | "application/json" => return Some(Self::Json),
                "application/x-ndjson" | "application/ndjson" | "application/jsonl" => {
                    return Some(Self::Ndjson);
                }
                "text/csv" | "text/*" => return Some(Self::Csv),
                "application/vnd.apache.arrow.stream" => return Some(Self::ArrowStream),
                "application/vnd.apache.parquet" => return Some(Self::Parquet),
                _ => (),
            }
        }
        (!named).then_some(Self::Json)
    }

    /// The media type of the encoded answer.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8",
            Self::ArrowStream => "application/vnd.apache.arrow.stream",
            Self::Parquet => "application/vnd.apache.parquet",
        }
    }
}

/// Where the reader of an answer looks for an error after the first rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorPlace {
    /// In the body: JSON is closed with members `error` and `code`, NDJSON has a last line with the
    /// same. The other formats have no place for it: their body breaks off.
    Body,
    /// Behind the body, which then holds rows only; JSON is closed as above.
    Trailer,
}

impl ErrorPlace {
    /// Whether a body of this format tells of an error, so that it may end like a whole one.
    #[must_use]
    pub fn is_told(self, format: OutputFormat) -> bool {
        self == Self::Trailer || matches!(format, OutputFormat::Json | OutputFormat::Ndjson)
    }
}

/// A part of an encoded answer.
#[derive(Debug)]
pub enum AnswerPiece {
    /// Bytes of the body.
    Bytes(Bytes),
    /// The query failed: the answer ends here and is not whole.
    Failed(SqlError),
}

/// An encoded answer. Dropping it cancels the query.
pub type AnswerPieces = BoxStream<'static, AnswerPiece>;

/// Refuses columns of one name where a reader would lose all but one of them.
fn check_names(schema: &SchemaRef, format: OutputFormat) -> Result<(), SqlError> {
    if !matches!(format, OutputFormat::Ndjson | OutputFormat::Parquet) {
        return Ok(());
    }
    let mut names = HashSet::new();
    let twice = schema.fields().iter().find(|field| !names.insert(field.name()));
    twice.map_or(Ok(()), |field| {
        let text = format!(
            "two columns are called `{}`: JSON lines and Parquet need different names; write AS",
            field.name()
        );
        Err(SqlError::Invalid(text))
    })
}

/// Encodes an answer as it runs. Returns once the first rows are encoded, or all of them: until
/// then a failing query is an error and not half an answer. `elapsed` is asked once, at the end.
///
/// # Errors
/// What the query failed with before its first rows; [`SqlError::Invalid`] when the format has no
/// such columns.
pub async fn encode(
    answer: QueryAnswer,
    format: OutputFormat,
    errors: ErrorPlace,
    elapsed: impl Fn() -> Duration + Clone + Send + Sync + 'static,
) -> Result<AnswerPieces, SqlError> {
    check_names(&answer.schema, format)?;
    let parquet = match format {
        OutputFormat::Parquet => Some(ParquetFile::start(&answer.schema)?),
        OutputFormat::Json
        | OutputFormat::Ndjson
        | OutputFormat::Csv
        | OutputFormat::ArrowStream => None,
    };
    let mut encoder = AnswerEncoder {
        format,
        errors,
        schema: answer.schema,
        snapshot: answer.snapshot,
        basis: answer.basis,
        rows: 0,
        ended: false,
        parquet,
        pending: None,
    };
    let mut batches = answer.batches;
    let mut first = encoder.start()?;
    let header = first.len();
    while first.len() == header && !encoder.ended {
        first.extend_from_slice(&encoder.next(&mut batches, &elapsed).await?);
    }
    let first = stream::iter([AnswerPiece::Bytes(first.into())]);
    let rest = stream::unfold((encoder, batches), move |(mut encoder, mut batches)| {
        let elapsed = elapsed.clone();
        async move {
            if encoder.ended {
                return None;
            }
            let pieces = match encoder.next(&mut batches, &elapsed).await {
                Ok(bytes) => vec![AnswerPiece::Bytes(bytes.into())],
                Err(error) => {
                    let last = encoder.fail(&error, elapsed());
                    vec![AnswerPiece::Bytes(last.into()), AnswerPiece::Failed(error)]
                }
            };
            Some((stream::iter(pieces), (encoder, batches)))
        }
    });
    let has_bytes =
        |piece: &AnswerPiece| !matches!(piece, AnswerPiece::Bytes(bytes) if bytes.is_empty());
    let pieces = first.chain(rest.flatten());
    Ok(pieces.filter(move |piece| std::future::ready(has_bytes(piece))).boxed())
}

struct AnswerEncoder {
    format: OutputFormat,
    errors: ErrorPlace,
    schema: SchemaRef,
    snapshot: Option<i64>,
    basis: Option<QueryBasis>,
    rows: u64,
    /// Nothing comes any more.
    ended: bool,
    /// There until the end of an answer in Parquet.
    parquet: Option<ParquetFile>,
    pending: Option<PendingRows>,
}

/// Rows of a batch that are still to be written as text.
struct PendingRows {
    cells: CellWriter,
    rows: Range<usize>,
}

impl AnswerEncoder {
    /// The bytes of the next batch, or of the end.
    async fn next(
        &mut self,
        batches: &mut BoxStream<'static, Result<RecordBatch, SqlError>>,
        elapsed: &(impl Fn() -> Duration + Send + Sync),
    ) -> Result<Vec<u8>, SqlError> {
        if let Some(pending) = self.pending.take() {
            return self.text(pending);
        }
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            if batch.num_rows() != 0 {
                return self.rows(batch).await;
            }
        }
        self.ended = true;
        self.end(elapsed()).await
    }

    fn start(&mut self) -> Result<Vec<u8>, SqlError> {
        let mut out = Vec::new();
        match self.format {
            OutputFormat::Json => {
                out.extend_from_slice(b"{\"columns\":[");
                let fields = self.schema.fields();
                cell::write_list(&mut out, fields, |out, field| write_column(out, field));
                out.extend_from_slice(b"],\"rows\":[");
            }
            OutputFormat::Ndjson => (),
            OutputFormat::Parquet => {
                if let Some(file) = &mut self.parquet {
                    return file.header();
                }
            }
            OutputFormat::Csv => {
                let names = self.schema.fields().iter().map(|field| field.name());
                cell::write_list(&mut out, names, |out, name| cell::write_csv_text(out, name));
                out.push(b'\n');
            }
            OutputFormat::ArrowStream => {
                // The writer starts with the schema; the end mark follows in `end`.
                let mut writer = StreamWriter::try_new(&mut out, &self.schema)
                    .map_err(|cause| unwritable(&cause))?;
                writer.flush().map_err(|cause| unwritable(&cause))?;
            }
        }
        Ok(out)
    }

    async fn rows(&mut self, batch: RecordBatch) -> Result<Vec<u8>, SqlError> {
        let Some(mut file) = self.parquet.take() else { return self.batch(&batch) };
        self.rows += batch.num_rows() as u64;
        // Compressing a row group is tens of milliseconds of work.
        let (file, bytes) = blocking(move || {
            let bytes = file.push(&batch);
            (file, bytes)
        })
        .await;
        self.parquet = Some(file);
        bytes
    }

    fn batch(&mut self, batch: &RecordBatch) -> Result<Vec<u8>, SqlError> {
        if self.format == OutputFormat::ArrowStream {
            self.rows += batch.num_rows() as u64;
            return self.arrow_batch(batch);
        }
        let cells = CellWriter::new(batch)?;
        self.text(PendingRows { cells, rows: 0..batch.num_rows() })
    }

    /// Rows until the piece is long enough; what is left waits for the next one.
    fn text(&mut self, mut pending: PendingRows) -> Result<Vec<u8>, SqlError> {
        let mut out = Vec::with_capacity(pending.rows.len() * 64);
        while out.len() < PIECE_BYTES
            && let Some(row) = pending.rows.next()
        {
            let (cells, start) = (&pending.cells, out.len());
            match self.format {
                OutputFormat::Json => {
                    out.extend_from_slice(if self.rows == 0 { b"\n[" } else { b",\n[" });
                    cells.write_json_values(&mut out, row);
                    out.push(b']');
                }
                OutputFormat::Ndjson => {
                    cells.write_json_object(&mut out, row);
                    out.push(b'\n');
                }
                OutputFormat::Csv | OutputFormat::ArrowStream | OutputFormat::Parquet => {
                    cells.write_csv(&mut out, row);
                    out.push(b'\n');
                }
            }
            if cell::TEXT_BYTES_MAX < out.len() && start == 0 {
                return Err(SqlError::Limit(format!(
                    "a row of the answer has more than {} MiB of text; select less of it",
                    cell::TEXT_BYTES_MAX >> 20
                )));
            }
            if cell::TEXT_BYTES_MAX < out.len() {
                // Those before it are answered; it has all of the next piece.
                out.truncate(start);
                pending.rows.start = row;
                break;
            }
            self.rows += 1;
        }
        if !pending.rows.is_empty() {
            self.pending = Some(pending);
        }
        Ok(out)
    }

    /// Each batch goes through a writer of its own, whose schema message was sent at the start.
    /// Dictionaries would need state between batches, so their columns are sent as plain values.
    fn arrow_batch(&self, batch: &RecordBatch) -> Result<Vec<u8>, SqlError> {
        let mut out = Vec::new();
        let mut writer =
            StreamWriter::try_new(&mut out, &self.schema).map_err(|cause| unwritable(&cause))?;
        writer.flush().map_err(|cause| unwritable(&cause))?;
        let header = writer.get_ref().len();
        writer.write(batch).map_err(|cause| unwritable(&cause))?;
        writer.flush().map_err(|cause| unwritable(&cause))?;
        drop(writer);
        Ok(out.split_off(header))
    }

    /// What the body ends with after an error.
    fn fail(&mut self, error: &SqlError, elapsed: Duration) -> Vec<u8> {
        self.ended = true;
        let mut out = Vec::new();
        match (self.format, self.errors) {
            // The line begins with `]`, as no line of a row does.
            (OutputFormat::Json, _) => {
                out.push(b'\n');
                out.extend_from_slice(self.totals(elapsed).as_bytes());
                out.push(b',');
                out.extend_from_slice(&error_text(error)[1..]);
                out.push(b'\n');
            }
            // A row's line never begins with a space, whatever its columns are called.
            (OutputFormat::Ndjson, ErrorPlace::Body) => {
                out.push(b' ');
                out.extend_from_slice(&error_text(error));
                out.push(b'\n');
            }
            (
                OutputFormat::Ndjson
                | OutputFormat::Csv
                | OutputFormat::ArrowStream
                | OutputFormat::Parquet,
                _,
            ) => (),
        }
        out
    }

    /// What follows the rows of JSON.
    fn totals(&self, elapsed: Duration) -> String {
        let mut text =
            format!("],\"rowCount\":{},\"elapsedMs\":{}", self.rows, elapsed.as_millis());
        if let Some(snapshot) = self.snapshot {
            text += &format!(",\"snapshot\":{snapshot},\"snapshot_str\":\"{snapshot}\"");
        }
        if let Some(basis) = &self.basis {
            text += ",\"basis\":";
            text += &serde_json::to_string(basis).expect("its keys are texts");
        }
        text
    }

    async fn end(&mut self, elapsed: Duration) -> Result<Vec<u8>, SqlError> {
        if let Some(file) = self.parquet.take() {
            return blocking(move || file.finish()).await;
        }
        match self.format {
            OutputFormat::Json => Ok((self.totals(elapsed) + "}\n").into_bytes()),
            OutputFormat::Ndjson | OutputFormat::Csv | OutputFormat::Parquet => Ok(Vec::new()),
            // The end of an IPC stream: continuation mark and length 0.
            OutputFormat::ArrowStream => Ok(vec![0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]),
        }
    }
}

/// `{"error":…,"code":…}`
#[must_use]
pub fn error_text(error: &SqlError) -> Vec<u8> {
    let body =
        ErrorBody { error: error.to_string(), code: error.code(), details: None, actual: None };
    serde_json::to_vec(&body).expect("an error's members are texts")
}

fn unwritable(error: &arrow::error::ArrowError) -> SqlError {
    tracing::error!(error = error as &dyn std::error::Error, "answer does not encode");
    SqlError::Internal("the answer could not be encoded".to_owned())
}

fn write_column(out: &mut Vec<u8>, field: &Field) {
    out.extend_from_slice(b"{\"name\":");
    cell::write_json_text(out, field.name());
    out.extend_from_slice(b",\"type\":");
    cell::write_json_text(out, &type_name(field.data_type()));
    out.push(b'}');
}

/// A type's name as SQL writes it, lower case.
#[must_use]
pub fn type_name(data_type: &DataType) -> String {
    let name = match data_type {
        DataType::Null => "null",
        DataType::Boolean => "boolean",
        DataType::Int8 => "tinyint",
        DataType::Int16 => "smallint",
        DataType::Int32 => "integer",
        DataType::Int64 => "bigint",
        DataType::UInt8 => "utinyint",
        DataType::UInt16 => "usmallint",
        DataType::UInt32 => "uinteger",
        DataType::UInt64 => "ubigint",
        DataType::Float16 | DataType::Float32 => "real",
        DataType::Float64 => "double",
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "varchar",
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => "varbinary",
        DataType::Date32 | DataType::Date64 => "date",
        DataType::Time32(_) | DataType::Time64(_) => "time",
        DataType::Timestamp(_, None) => "timestamp",
        DataType::Timestamp(_, Some(_)) => "timestamptz",
        DataType::Duration(_) | DataType::Interval(_) => "interval",
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => return format!("decimal({precision},{scale})"),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _) => return format!("{}[]", type_name(item.data_type())),
        DataType::Struct(_) => "struct",
        DataType::Map(..) => "map",
        DataType::Dictionary(_, values) => return type_name(values),
        DataType::RunEndEncoded(_, values) => return type_name(values.data_type()),
        DataType::Union(..) => "union",
    };
    name.to_owned()
}

#[cfg(test)]
mod tests;
