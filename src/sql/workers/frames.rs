//! What the server and a worker say to one another, and how: frames of a head in JSON and a body of
//! bytes.
//!
//! Each frame begins with the lengths of both as `u32` in little-endian order. Rows and schemas are
//! Arrow streams in the body. Its one invariant: a frame beyond the bounds is an error before any memory
//! is taken for it, whichever side sent it.

use crate::sql::worker::lock::LockReport;
use arrow::{
    datatypes::{Schema, SchemaRef},
    error::ArrowError,
    ipc::{reader::StreamReader, root_as_message, writer::StreamWriter},
    record_batch::RecordBatch,
};
use bytes::Bytes;
use icecore_catalog::{
    audit::AuditRange,
    storage::remote::{FileCall, FileFailure},
};
use icecore_engine::{error::SqlError, log_tail::TailRun, view::TailPlace};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    io::{self, ErrorKind, Read, Write},
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest head.
const HEAD_BYTES_MAX: usize = 1 << 20;
/// Longest body: a row of an answer that is longer is refused.
pub(in crate::sql) const BODY_BYTES_MAX: usize = 256 << 20;
/// A batch with more bytes goes in pieces, so that neither side holds a large one twice.
const PIECE_BYTES: usize = 8 << 20;
/// The lengths of head and body.
const PREFIX_BYTES: usize = 8;
/// What a message of an Arrow stream begins with, before the length of its head.
const MESSAGE_MARK: [u8; 4] = [0xff; 4];

/// What a worker is made with, before its first query.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::sql) struct WorkerStart {
    /// The warehouse.
    pub(in crate::sql) root: String,
    /// Memory of all queries together.
    pub(in crate::sql) memory_bytes_max: usize,
    /// How many columns `events` has beyond a release's.
    pub(in crate::sql) trial_columns: usize,
    /// How many columns the table has that no release has.
    pub(in crate::sql) trial_table: usize,
}

/// How long a query may run.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(in crate::sql) struct QueryTime {
    /// In all, as its sender is told.
    pub(in crate::sql) timeout: Duration,
    /// From now on.
    pub(in crate::sql) left: Duration,
}

/// What the server says.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::sql) enum ToWorker {
    /// First.
    Open(WorkerStart),
    /// The body is the query as JSON. There is one at a time.
    Query(QueryTime),
    /// A length, or the bytes in the body.
    File { id: u64, size: Option<u64>, failure: Option<FileFailure> },
    /// The body has rows of the log.
    Tail { id: u64, error: Option<SqlError> },
    /// The body has records of the audit log as JSON.
    Page { id: u64, error: Option<SqlError> },
    /// Whether the memory may be used.
    Memory { id: u64, is_granted: bool },
}

/// What a worker says.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::sql) enum FromWorker {
    /// First: how it is locked in.
    Hello(LockReport),
    /// Asks for a file.
    File { id: u64, location: String, call: FileCall },
    /// Asks for rows of the log; the body has the columns.
    Tail { id: u64, place: TailPlace, run: TailRun },
    /// Asks for records of the audit log.
    Page { id: u64, range: AuditRange, limit: u32 },
    /// Asks for more memory.
    Memory { id: u64, bytes: usize },
    /// The query runs: data files that it reads and leaves out. The body has the columns.
    Head { files: u64, pruned: u64 },
    /// The body has rows.
    Batch { bytes_read: u64 },
    /// There are no more. Where it is not idle, parts of the query still run.
    End { bytes_read: u64, is_idle: bool },
    /// The query failed.
    Failed { error: SqlError, is_idle: bool },
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, text)
}

/// The lengths and the head of a frame.
fn beginning(head: &impl Serialize, body: &[u8]) -> io::Result<Vec<u8>> {
    let head = serde_json::to_vec(head)?;
    if HEAD_BYTES_MAX < head.len() || BODY_BYTES_MAX < body.len() {
        return Err(invalid("a frame is longer than frames may be"));
    }
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
    let mut begun = Vec::with_capacity(PREFIX_BYTES + head.len());
    begun.extend_from_slice(&length(&head));
    begun.extend_from_slice(&length(body));
    begun.extend_from_slice(&head);
    Ok(begun)
}

/// The lengths of head and body.
fn lengths(prefix: [u8; PREFIX_BYTES]) -> io::Result<(usize, usize)> {
    let [a, b, c, d, e, f, g, h] = prefix;
    let length = |bytes| usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX);
    let (head, body) = (length([a, b, c, d]), length([e, f, g, h]));
    if HEAD_BYTES_MAX < head || BODY_BYTES_MAX < body {
        return Err(invalid("a frame is longer than frames may be"));
    }
    Ok((head, body))
}

/// A value as JSON for a body, without more memory than `bytes_max`.
///
/// # Errors
/// [`ErrorKind::FileTooLarge`] when it is longer.
pub(in crate::sql) fn json_of(value: &impl Serialize, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut body = BoundedBody { bytes: Vec::new(), bytes_max };
    serde_json::to_writer(&mut body, value)?;
    Ok(body.bytes)
}

struct BoundedBody {
    bytes: Vec<u8>,
    bytes_max: usize,
}

impl Write for BoundedBody {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes_max.saturating_sub(self.bytes.len()) < bytes.len() {
            return Err(ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a frame.
///
/// # Errors
/// It is too long, or nobody reads.
pub(in crate::sql) fn write_frame(
    to: &mut impl Write,
    head: &impl Serialize,
    body: &[u8],
) -> io::Result<()> {
    to.write_all(&beginning(head, body)?)?;
    to.write_all(body)
}

/// Reads a frame; none where the other side ended between frames.
///
/// # Errors
/// The other side ended within one, or it is none.
pub(in crate::sql) fn read_frame<T: DeserializeOwned>(
    from: &mut impl Read,
) -> io::Result<Option<(T, Bytes)>> {
    let mut prefix = [0; PREFIX_BYTES];
    match from.read_exact(&mut prefix) {
        Err(cause) if cause.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let (head, body) = lengths(prefix)?;
    let mut bytes = vec![0; head];
    from.read_exact(&mut bytes)?;
    let head = serde_json::from_slice(&bytes)?;
    let mut bytes = vec![0; body];
    from.read_exact(&mut bytes)?;
    Ok(Some((head, bytes.into())))
}

/// As [`write_frame`], without a thread that waits.
///
/// # Errors
/// As [`write_frame`].
pub(in crate::sql) async fn send_frame(
    to: &mut (impl AsyncWrite + Unpin),
    head: &impl Serialize,
    body: &[u8],
) -> io::Result<()> {
    let begun = beginning(head, body)?;
    to.write_all(&begun).await?;
    to.write_all(body).await
}

/// As [`read_frame`], without a thread that waits.
///
/// # Errors
/// As [`read_frame`].
pub(in crate::sql) async fn receive_frame<T: DeserializeOwned>(
    from: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<(T, Bytes)>> {
    let mut prefix = [0; PREFIX_BYTES];
    match from.read_exact(&mut prefix).await {
        Err(cause) if cause.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    };
    let (head, body) = lengths(prefix)?;
    let mut bytes = vec![0; head];
    from.read_exact(&mut bytes).await?;
    let head = serde_json::from_slice(&bytes)?;
    let mut bytes = vec![0; body];
    from.read_exact(&mut bytes).await?;
    Ok(Some((head, bytes.into())))
}

/// Columns as an Arrow stream without rows.
///
/// # Errors
/// A type has no such form.
pub(in crate::sql) fn schema_bytes(schema: &Schema) -> Result<Vec<u8>, ArrowError> {
    let mut writer = StreamWriter::try_new(Vec::new(), schema)?;
    writer.finish()?;
    writer.into_inner()
}

/// Looks at the messages of an Arrow stream before they are read. The reader takes as much memory as the
/// lengths in them say, also those of compressed values, and whoever made them may have lied: the process
/// would end.
fn check_messages(mut bytes: &[u8]) -> Result<(), ArrowError> {
    let broken = || ArrowError::IpcError("it is no whole Arrow stream".to_owned());
    loop {
        let (mark, rest) = bytes.split_first_chunk::<4>().ok_or_else(broken)?;
        let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(broken)?;
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        if *mark != MESSAGE_MARK {
            return Err(broken());
        }
        if length == 0 {
            return Ok(());
        }
        let (head, rest) = rest.split_at_checked(length).ok_or_else(broken)?;
        let message = root_as_message(head).map_err(|_| broken())?;
        let body = usize::try_from(message.bodyLength()).map_err(|_| broken())?;
        let (_, rest) = rest.split_at_checked(body).ok_or_else(broken)?;
        let of_dictionary = message.header_as_dictionary_batch().and_then(|batch| batch.data());
        let rows = message.header_as_record_batch().or(of_dictionary);
        if rows.is_some_and(|rows| rows.compression().is_some()) {
            return Err(ArrowError::IpcError("it is compressed".to_owned()));
        }
        bytes = rest;
    }
}

/// The columns of an Arrow stream.
///
/// # Errors
/// It is none.
pub(in crate::sql) fn schema_of(bytes: &[u8]) -> Result<SchemaRef, ArrowError> {
    check_messages(bytes)?;
    Ok(StreamReader::try_new(bytes, None)?.schema())
}

/// Rows as an Arrow stream of their own.
///
/// # Errors
/// A type has no such form.
pub(in crate::sql) fn batch_bytes(batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let mut writer = StreamWriter::try_new(Vec::new(), batch.schema_ref())?;
    writer.write(batch)?;
    writer.finish()?;
    writer.into_inner()
}

/// The rows of an Arrow stream of one batch. Its values are checked, so they cannot be read beyond its
/// bytes whoever made them.
///
/// # Errors
/// It is none.
pub(in crate::sql) fn batch_of(bytes: &[u8]) -> Result<RecordBatch, ArrowError> {
    check_messages(bytes)?;
    let mut reader = StreamReader::try_new(bytes, None)?;
    reader.next().unwrap_or_else(|| Err(ArrowError::IpcError("there are no rows".to_owned())))
}

/// A batch in pieces that are each not much larger than a piece should be, where it has several rows.
pub(in crate::sql) fn pieces(batch: RecordBatch) -> Vec<RecordBatch> {
    let mut whole = vec![batch];
    let mut pieces = Vec::new();
    while let Some(batch) = whole.pop() {
        let rows = batch.num_rows();
        if rows <= 1 || bytes_of(&batch) <= PIECE_BYTES {
            pieces.push(batch);
        } else {
            // The first half is the next one to look at.
            whole.push(batch.slice(rows / 2, rows - rows / 2));
            whole.push(batch.slice(0, rows / 2));
        }
    }
    pieces
}

fn bytes_of(batch: &RecordBatch) -> usize {
    let columns = batch.columns().iter();
    columns.map(|column| column.to_data().get_slice_memory_size().unwrap_or(0)).sum()
}

#[cfg(test)]
mod tests;
