//! Rows as the payload of a log record: Arrow IPC without the schema, only the columns that hold
//! a value, named by a bit mask.
//!
//! ```text
//! 0  version, 1 or 2   4  bytes of the message, u32      8  columns, u64: bit n is column n of
//! 1  further words        with its padding                  the schema
//! 2  two zeros
//! 16 version 2: the mask's further words, u64, for columns 64 and on
//!    Arrow IPC message (RecordBatch), padded to 8           … its body, buffers aligned to 8
//! ```
//! Numbers are little-endian. Version 1 has no further words, and is written where none is needed. A
//! column keeps its position in the schema for ever, so a payload written before a column was added
//! decodes with the longer schema.

use crate::event::rows;
use arrow::{
    array::{Array, ArrayRef, Int64Array},
    buffer::Buffer,
    datatypes::{Schema, SchemaRef},
    error::ArrowError,
    ipc::{
        self,
        reader::read_record_batch,
        writer::{CompressionContext, DictionaryTracker, IpcDataGenerator, IpcWriteOptions},
    },
    record_batch::{RecordBatch, RecordBatchOptions},
};
use bytes::Bytes;
use std::{collections::HashMap, sync::Arc};

/// Of a payload whose columns are all among the first 64.
const VERSION: u8 = 1;
/// Of one with more words of the mask.
const WIDE_VERSION: u8 = 2;
const WORD_BITS: usize = 64;
const HEADER_BYTES: usize = 16;
const ALIGNMENT: usize = 8;
const SEQ: &str = "seq";

/// Why a payload does not decode; the log's checksum held, so another version wrote it.
#[derive(Debug, thiserror::Error)]
#[error("decode log payload: {reason}")]
pub struct CodecError {
    /// What does not fit.
    pub reason: String,
}

impl CodecError {
    fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}

impl From<ArrowError> for CodecError {
    fn from(error: ArrowError) -> Self {
        Self::new(error.to_string())
    }
}

/// Encodes rows whose columns are all found by name in `schema` (columns that are absent or all
/// null take no space). `seq` is not encoded. Of sliced rows only the slice is.
///
/// # Panics
/// If a column of `rows` has another type than in `schema`: its bytes could not be read back.
#[must_use]
pub fn encode(schema: &SchemaRef, rows: &RecordBatch) -> Bytes {
    let mut mask = vec![0_u64];
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (position, field) in schema.fields().iter().enumerate() {
        let Some(column) = rows.column_by_name(field.name()) else { continue };
        if field.name() == SEQ || column.null_count() == column.len() {
            continue;
        }
        assert_eq!(column.data_type(), field.data_type(), "type of column `{}`", field.name());
        mask.resize(mask.len().max(position / WORD_BITS + 1), 0);
        mask[position / WORD_BITS] |= 1 << (position % WORD_BITS);
        fields.push(Arc::clone(field));
        columns.push(Arc::clone(column));
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    let kept = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
        .expect("the columns have the fields' types and the rows' length");
    let options = IpcWriteOptions::try_new(ALIGNMENT, false, ipc::MetadataVersion::V5)
        .expect("8 is an alignment that Arrow knows");
    let (_, encoded) = IpcDataGenerator::default()
        .encode(
            &kept,
            &mut DictionaryTracker::new(false),
            &options,
            &mut CompressionContext::default(),
        )
        .expect("columns without dictionaries and compression always encode");
    let message_bytes = encoded.ipc_message.len().next_multiple_of(ALIGNMENT);
    let header_bytes = HEADER_BYTES + (mask.len() - 1) * size_of::<u64>();
    let mut payload = Vec::with_capacity(header_bytes + message_bytes + encoded.arrow_data.len());
    let version = if mask.len() == 1 { VERSION } else { WIDE_VERSION };
    let further = u8::try_from(mask.len() - 1).expect("a table has at most 16 384 columns");
    payload.extend([version, further, 0, 0]);
    payload.extend(
        u32::try_from(message_bytes)
            .expect("columns are described in less than a GiB")
            .to_le_bytes(),
    );
    mask.iter().for_each(|word| payload.extend(word.to_le_bytes()));
    payload.extend(&encoded.ipc_message);
    payload.resize(header_bytes + message_bytes, 0);
    payload.extend(&encoded.arrow_data);
    payload.into()
}

/// The rows of a payload with every column of `schema`; a column `seq` counts up from `first_seq`.
/// Buffers are shared with `payload`, not copied, if it is aligned to 8 bytes.
///
/// # Errors
/// [`CodecError`] when the payload was not made for `schema`.
pub fn decode(
    schema: &SchemaRef,
    payload: &Bytes,
    first_seq: u64,
) -> Result<RecordBatch, CodecError> {
    Ok(rows::align(schema, &decode_kept(schema, payload, first_seq)?)?)
}

/// The rows of several payloads, each with its first `seq`, in one batch and in their order: what
/// [`decode`] gives of each, one after another. Buffers are copied where there are several payloads.
///
/// A batch costs as much as all columns of the schema, however few rows it has.
///
/// # Errors
/// As [`decode`], for the first payload that fails.
pub fn decode_all(
    schema: &SchemaRef,
    payloads: &[(Bytes, u64)],
) -> Result<RecordBatch, CodecError> {
    let kept = payloads.iter().map(|(payload, first_seq)| decode_kept(schema, payload, *first_seq));
    let kept = kept.collect::<Result<Vec<_>, _>>()?;
    Ok(rows::align(schema, &rows::concat(schema, &kept)?)?)
}

/// The rows of a payload with `seq` and the columns that the payload has.
fn decode_kept(
    schema: &SchemaRef,
    payload: &Bytes,
    first_seq: u64,
) -> Result<RecordBatch, CodecError> {
    let (mask, message, body) = parts(payload)?;
    let has = |position: &usize| mask[position / WORD_BITS] >> (position % WORD_BITS) & 1 == 1;
    let positions: Vec<usize> = (0..mask.len() * WORD_BITS).filter(has).collect();
    if positions.last().is_some_and(|last| schema.fields().len() <= *last) {
        return Err(CodecError::new("it has columns that the schema has not"));
    }
    let kept = Arc::new(schema.project(&positions)?);
    let message = ipc::root_as_message(&message)
        .map_err(|error| CodecError::new(format!("its message is broken: {error}")))?;
    let batch = message
        .header_as_record_batch()
        .ok_or_else(|| CodecError::new("its message is no record batch"))?;
    // The reader trusts the message: it panics on other arrays and on buffers beyond the body.
    let nodes = batch.nodes().map_or(0, |nodes| nodes.len());
    if nodes != positions.len() {
        return Err(CodecError::new("its columns are not those of its mask"));
    }
    let is_inside = |buffer: &ipc::Buffer| {
        let end = buffer.offset().checked_add(buffer.length());
        buffer.offset() >= 0
            && buffer.length() >= 0
            && end.is_some_and(|end| end as usize <= body.len())
    };
    if !batch.buffers().is_some_and(|buffers| buffers.iter().all(is_inside)) {
        return Err(CodecError::new("its body is too short"));
    }
    let none = HashMap::new();
    let rows =
        read_record_batch(&Buffer::from(body), batch, kept, &none, None, &message.version())?;
    with_seq(schema, rows, first_seq)
}

/// Mask, message and body.
fn parts(payload: &Bytes) -> Result<(Vec<u64>, Bytes, Bytes), CodecError> {
    let short = || CodecError::new("it is too short");
    let header: &[u8; HEADER_BYTES] = payload.first_chunk().ok_or_else(short)?;
    let further = match header[0] {
        VERSION => 0,
        WIDE_VERSION => usize::from(header[1]),
        other => {
            let known = format!("{VERSION} or {WIDE_VERSION}");
            return Err(CodecError::new(format!("it has version {other}, not {known}")));
        }
    };
    let length = u32::from_le_bytes(header[4..8].try_into().expect("four bytes")) as usize;
    let start = HEADER_BYTES + further * size_of::<u64>();
    let words = payload.get(8..start).ok_or_else(short)?;
    let mask = words.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
    let rest = payload.slice(start..);
    if rest.len() < length {
        return Err(short());
    }
    Ok((mask, rest.slice(..length), rest.slice(length..)))
}

fn with_seq(
    schema: &SchemaRef,
    rows: RecordBatch,
    first_seq: u64,
) -> Result<RecordBatch, CodecError> {
    let Ok(field) = schema.field_with_name(SEQ) else { return Ok(rows) };
    let first = i64::try_from(first_seq).map_err(|_| CodecError::new("its seq is too large"))?;
    let last = first
        .checked_add(rows.num_rows() as i64)
        .ok_or_else(|| CodecError::new("its seq is too large"))?;
    let mut fields = rows.schema().fields().to_vec();
    fields.push(Arc::new(field.clone()));
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new(Int64Array::from_iter_values(first..last)));
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

#[cfg(test)]
mod tests;
