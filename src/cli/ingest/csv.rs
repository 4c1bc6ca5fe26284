//! CSV as requests: a row is the object of its columns, named by the header.
//!
//! A value is text, but in columns of `events` that hold numbers or truth values, and in those of
//! JSON. An empty value is a member that is absent. The delimiter is the one of `,`, `;`, tab and
//! `|` that the header has most of.

use crate::cli::{
    CliError,
    ingest::{Part, rows::JSON_COLUMNS, source::Reader},
};
use icecore_schemas::columns::{ColumnKind, EVENTS};
use serde::de::IgnoredAny;
use std::{io, path::Path};

/// Characters that may stand between values, the usual one first.
const DELIMITERS: &[u8] = b",;\t|";

/// What the text of a column is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    /// A number or a truth value, where it reads as one.
    Scalar,
    /// An object or an array, where it reads as one.
    Json,
}

/// The requests of a CSV file.
pub(super) struct Rows {
    records: csv::ByteRecordsIntoIter<Reader>,
    columns: Vec<(String, Kind)>,
    identity: String,
    row: u64,
}

impl Rows {
    /// Reads the header.
    pub(super) fn new(
        mut reader: Reader,
        path: &Path,
        identity: String,
        start: u64,
    ) -> Result<Self, CliError> {
        let failed = |cause: io::Error| CliError::Io {
            operation: format!("read `{}` as CSV", path.display()),
            source: cause,
        };
        let head = reader.fill_buf().map_err(failed)?;
        let delimiter = delimiter_of(head);
        let mut rows =
            csv::ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(reader);
        let header = rows.byte_headers().map_err(|cause| failed(io::Error::other(cause)))?;
        let name = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            text.trim_start_matches('\u{feff}').trim().to_owned()
        };
        let columns = header.iter().map(name).map(|name| (name.clone(), kind_of(&name))).collect();
        let mut rows = Self { records: rows.into_byte_records(), columns, identity, row: 0 };
        for _ in 0..start {
            rows.row += 1;
            if rows.records.next().is_none() {
                break;
            }
        }
        Ok(rows)
    }

    fn write(&self, body: &mut Vec<u8>, record: &csv::ByteRecord) -> io::Result<()> {
        let mut separator = b'{';
        let mut has_id = false;
        for (number, value) in record.iter().enumerate() {
            if value.is_empty() {
                continue;
            }
            let text = String::from_utf8_lossy(value);
            let extra = format!("column_{}", number + 1);
            let (name, kind) =
                self.columns.get(number).map_or((&extra, Kind::Text), |(name, kind)| (name, *kind));
            has_id |= name == "id";
            body.push(separator);
            serde_json::to_writer(&mut *body, name)?;
            body.push(b':');
            match plain(&text, kind) {
                Some(json) => body.extend_from_slice(json.as_bytes()),
                None => serde_json::to_writer(&mut *body, &text)?,
            }
            separator = b',';
        }
        if !has_id {
            let id =
                format!("{}\"id\":\"{}-{:012x}\"", char::from(separator), self.identity, self.row);
            body.extend_from_slice(id.as_bytes());
        }
        body.extend_from_slice(b"}\n");
        Ok(())
    }
}

impl Iterator for Rows {
    type Item = io::Result<Part>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut part = Part::default();
        while !part.is_full() {
            match self.records.next() {
                None => break,
                Some(Err(cause)) => return Some(Err(io::Error::other(cause))),
                Some(Ok(record)) => {
                    self.row += 1;
                    if let Err(cause) = self.write(&mut part.body, &record) {
                        return Some(Err(cause));
                    }
                    part.places.push(record.position().map_or(self.row, csv::Position::line));
                }
            }
        }
        part.next = self.row;
        (!part.places.is_empty()).then_some(Ok(part))
    }
}

/// JSON that a value stands for by itself, on one line.
fn plain(text: &str, kind: Kind) -> Option<String> {
    let trimmed = text.trim();
    let is_meant = match kind {
        Kind::Text => false,
        Kind::Scalar => {
            matches!(trimmed, "true" | "false")
                || serde_json::from_str::<serde_json::Number>(trimmed).is_ok()
        }
        Kind::Json => {
            trimmed.starts_with(['{', '[']) && serde_json::from_str::<IgnoredAny>(trimmed).is_ok()
        }
    };
    is_meant.then(|| trimmed.replace(['\n', '\r'], " "))
}

fn kind_of(name: &str) -> Kind {
    if JSON_COLUMNS.contains(&name) {
        return Kind::Json;
    }
    // An event may write duration_ms as durationMs.
    let folded = |name: &str| name.replace('_', "").to_lowercase();
    let column = EVENTS.iter().find(|column| folded(column.name) == folded(name));
    match column.map(|column| column.kind) {
        Some(ColumnKind::Long | ColumnKind::Int | ColumnKind::Double | ColumnKind::Boolean) => {
            Kind::Scalar
        }
        Some(ColumnKind::String | ColumnKind::Timestamptz) | None => Kind::Text,
    }
}

fn delimiter_of(head: &[u8]) -> u8 {
    let header = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let count = |delimiter: u8| header.iter().filter(|byte| **byte == delimiter).count();
    // Of equals the first counts: `max_by_key` gives the last, so they are asked backwards.
    DELIMITERS.iter().rev().copied().max_by_key(|delimiter| count(*delimiter)).unwrap_or(b',')
}
