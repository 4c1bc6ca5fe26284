//! CSV as requests: a row is the object of its columns, named by the header.
//!
//! A value is text, but in columns of `events` that hold numbers or truth values, and in those of
//! JSON. An empty value is a member that is absent. The delimiter is the one of `,`, `;`, tab and
//! `|` that the header has most of. Its one invariant: a row is sent as it stands in the file, or
//! not at all.

mod records;

use crate::cli::{
    CliError,
    ingest::{
        InputPart, identity::InputIdentity, lines::push_with_id, rows::JSON_COLUMNS,
        source::InputReader, source::failed_at,
    },
};
use icecore_schemas::columns::{ColumnKind, EVENTS};
use records::{CsvRecord, CsvRecords, RecordError};
use serde::de::IgnoredAny;
use std::{
    borrow::Cow,
    collections::HashSet,
    io,
    path::{Path, PathBuf},
};

/// Characters that may stand between values, the usual one first.
const DELIMITERS: &[u8] = b",;\t|";

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
const NOT_UTF8: &str = "not UTF-8: write the file as UTF-8, for example with iconv";

/// What the text of a column is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CsvColumnKind {
    Text,
    /// A number or a truth value, where it reads as one.
    Scalar,
    /// An object or an array, where it reads as one.
    Json,
}

/// The requests of a CSV file.
pub(super) struct CsvRequests {
    records: CsvRecords<InputReader>,
    record: CsvRecord,
    columns: Vec<(String, CsvColumnKind)>,
    path: PathBuf,
    identity: InputIdentity,
    row: u64,
    /// Why there are no more rows, until it is told.
    fault: Option<CliError>,
}

impl CsvRequests {
    /// Reads the header, and passes over `start` rows.
    pub(super) fn new(
        mut reader: InputReader,
        path: &Path,
        identity: InputIdentity,
        start: u64,
    ) -> Result<Self, CliError> {
        let head = reader.fill_buf().map_err(failed_at(path))?;
        let mark = if head.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
        let delimiter = delimiter_of(&head[mark..]);
        reader.consume(mark);
        let mut rows = Self {
            records: CsvRecords::new(reader, delimiter),
            record: CsvRecord::default(),
            columns: Vec::new(),
            path: path.to_owned(),
            identity,
            row: 0,
            fault: None,
        };
        if rows.read()? {
            let names = rows.record.fields().map(|name| Some(str::from_utf8(name).ok()?.trim()));
            let column = |name: &str| (name.to_owned(), kind_of(name));
            let columns: Option<Vec<_>> = names.map(|name| name.map(column)).collect();
            let refused = |text: String| CliError::Refused(format!("{}:1: {text}", path.display()));
            rows.columns = columns.ok_or_else(|| refused(format!("the header is {NOT_UTF8}")))?;
            if let Some(name) = repeated(&rows.columns) {
                return Err(refused(format!("the header has `{name}` more than once: rename one")));
            }
        }
        while rows.row < start && rows.read()? {
            rows.row += 1;
        }
        Ok(rows)
    }

    /// The next record; false at the end of the file.
    fn read(&mut self) -> Result<bool, CliError> {
        let (path, last) = (&self.path, self.record.line);
        self.records.read(&mut self.record).map_err(|cause| match cause {
            RecordError::Read(cause) => {
                let reason = format!("after line {last}: {cause}; the rows up to it were sent");
                failed_at(path)(io::Error::new(cause.kind(), reason))
            }
            RecordError::Unterminated { line } | RecordError::TooLong { line } => {
                let place = format!("{}:{line}", path.display());
                CliError::Refused(format!("{place}: {cause}; the rows before it were sent"))
            }
        })
    }

    /// The record as an object, or why it is not sent.
    fn object(&self) -> Result<Vec<u8>, String> {
        let (found, named) = (self.record.len(), self.columns.len());
        if found != named {
            return Err(format!("fields in the row: {found}, in the header: {named}"));
        }
        let mut object = Vec::new();
        let mut separator = b'{';
        for ((name, kind), value) in self.columns.iter().zip(self.record.fields()) {
            if value.is_empty() {
                continue;
            }
            let text = str::from_utf8(value)
                .map_err(|_| format!("the value of column `{name}` is {NOT_UTF8}"))?;
            object.push(separator);
            object.extend_from_slice(json_text(name).as_bytes());
            object.push(b':');
            let json = plain(text, *kind).map_or_else(|| json_text(text), Cow::Owned);
            object.extend_from_slice(json.as_bytes());
            separator = b',';
        }
        if object.is_empty() {
            object.push(b'{');
        }
        object.push(b'}');
        Ok(object)
    }
}

impl Iterator for CsvRequests {
    type Item = Result<InputPart, CliError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(fault) = self.fault.take() {
            return Some(Err(fault));
        }
        let start = self.row;
        let mut part = InputPart::default();
        while !part.is_full() {
            match self.read() {
                Ok(false) => break,
                Ok(true) => {
                    self.row += 1;
                    let line = self.record.line;
                    match self.object() {
                        Ok(object) => {
                            push_with_id(&mut part.body, &object, |it| self.identity.id(line, it));
                            part.places.push(line);
                        }
                        Err(reason) => part.unsent.push((line, reason)),
                    }
                }
                // What was read before is sent first.
                Err(fault) if start < self.row => {
                    self.fault = Some(fault);
                    break;
                }
                Err(fault) => return Some(Err(fault)),
            }
        }
        part.next = self.row;
        (start < self.row).then_some(Ok(part))
    }
}

/// A name that several columns have. Columns without one are many programs' margins.
fn repeated(columns: &[(String, CsvColumnKind)]) -> Option<&str> {
    let mut seen = HashSet::new();
    let mut names = columns.iter().map(|(name, _)| name.as_str());
    names.find(|name| !name.is_empty() && !seen.insert(*name))
}

fn json_text(text: &str) -> Cow<'static, str> {
    serde_json::Value::from(text).to_string().into()
}

/// JSON that a value stands for by itself, on one line.
fn plain(text: &str, kind: CsvColumnKind) -> Option<String> {
    let trimmed = text.trim();
    let is_meant = match kind {
        CsvColumnKind::Text => false,
        CsvColumnKind::Scalar => {
            matches!(trimmed, "true" | "false")
                || serde_json::from_str::<serde_json::Number>(trimmed).is_ok()
        }
        CsvColumnKind::Json => {
            trimmed.starts_with(['{', '[']) && serde_json::from_str::<IgnoredAny>(trimmed).is_ok()
        }
    };
    is_meant.then(|| trimmed.replace(['\n', '\r'], " "))
}

fn kind_of(name: &str) -> CsvColumnKind {
    if JSON_COLUMNS.contains(&name) {
        return CsvColumnKind::Json;
    }
    // An event may write duration_ms as durationMs.
    let folded = |name: &str| name.replace('_', "").to_lowercase();
    let column = EVENTS.iter().find(|column| folded(column.name) == folded(name));
    match column.map(|column| column.kind) {
        Some(ColumnKind::Long | ColumnKind::Int | ColumnKind::Double | ColumnKind::Boolean) => {
            CsvColumnKind::Scalar
        }
        Some(ColumnKind::String | ColumnKind::Timestamptz) | None => CsvColumnKind::Text,
    }
}

fn delimiter_of(head: &[u8]) -> u8 {
    let header = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let count = |delimiter: u8| header.iter().filter(|byte| **byte == delimiter).count();
    // Of equals the first counts: `max_by_key` gives the last, so they are asked backwards.
    DELIMITERS.iter().rev().copied().max_by_key(|delimiter| count(*delimiter)).unwrap_or(b',')
}
