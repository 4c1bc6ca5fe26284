//! The records of a CSV text as RFC 4180 writes them, and the line that each begins on.
//!
//! Its one invariant: a quote that is never closed gives no record. Its value would be the rest of
//! the file, so everything that stands there would be lost in it.

use std::io::{self, BufRead};

/// Longest record, in bytes; a quote that is still open then counts as one that is never closed.
const RECORD_BYTES_MAX: usize = 16 << 20;

/// Why there is no further record.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    #[error("read a record")]
    Read(#[from] io::Error),
    /// A value that is quoted from this line on has no end.
    #[error("unterminated CSV quoted field: the quote that begins on line {line} is never closed")]
    Unterminated { line: u64 },
    /// The record that begins on this line is longer than any event.
    #[error("the record that begins on line {line} is longer than {RECORD_BYTES_MAX} bytes")]
    TooLong { line: u64 },
}

/// The fields of one record.
#[derive(Debug, Default)]
pub(super) struct CsvRecord {
    bytes: Vec<u8>,
    /// Where each field ends in `bytes`.
    ends: Vec<usize>,
    /// Its first line, from 1.
    pub(super) line: u64,
}

impl CsvRecord {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn fields(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end])
    }

    fn end_field(&mut self) {
        self.ends.push(self.bytes.len());
    }
}

/// Where in a record a byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CsvState {
    /// A field begins here.
    Start,
    Plain,
    Quoted,
    /// Behind a quote in a quoted field: it ends the field, or is the first half of a quote in it.
    Closed,
}

/// Reads records; empty lines between them are none.
pub(super) struct CsvRecords<R> {
    reader: R,
    walk: CsvWalk,
}

/// How far the bytes were looked at.
struct CsvWalk {
    delimiter: u8,
    /// The line of the next byte, from 1.
    line: u64,
    /// Whether the byte before was a carriage return, which a line feed belongs to.
    after_return: bool,
    /// The line of the last quote that began a field.
    quoted_since: u64,
}

impl CsvWalk {
    /// Takes the next byte of a record; none when it was the last.
    fn step(&mut self, place: CsvState, byte: u8, record: &mut CsvRecord) -> Option<CsvState> {
        let is_end = matches!(byte, b'\r' | b'\n');
        let is_second = byte == b'\n' && self.after_return;
        self.after_return = byte == b'\r';
        self.line += u64::from(is_end && !is_second);
        match place {
            CsvState::Quoted if byte == b'"' => return Some(CsvState::Closed),
            CsvState::Quoted => {
                record.bytes.push(byte);
                return Some(CsvState::Quoted);
            }
            CsvState::Closed if byte == b'"' => {
                record.bytes.push(byte);
                return Some(CsvState::Quoted);
            }
            CsvState::Start if byte == b'"' => {
                self.quoted_since = self.line;
                return Some(CsvState::Quoted);
            }
            CsvState::Start if is_end && record.ends.is_empty() => {
                record.line = self.line;
                return Some(CsvState::Start);
            }
            CsvState::Start | CsvState::Plain | CsvState::Closed => (),
        }
        if is_end {
            record.end_field();
            return None;
        }
        if byte == self.delimiter {
            record.end_field();
            return Some(CsvState::Start);
        }
        record.bytes.push(byte);
        Some(CsvState::Plain)
    }
}

impl<R: BufRead> CsvRecords<R> {
    pub(super) fn new(reader: R, delimiter: u8) -> Self {
        let walk = CsvWalk { delimiter, line: 1, after_return: false, quoted_since: 1 };
        Self { reader, walk }
    }

    /// Reads the next record into `record`; false at the end of the text.
    pub(super) fn read(&mut self, record: &mut CsvRecord) -> Result<bool, RecordError> {
        record.bytes.clear();
        record.ends.clear();
        record.line = self.walk.line;
        let mut place = Some(CsvState::Start);
        while let Some(mut now) = place {
            let chunk = match self.reader.fill_buf() {
                Ok(chunk) => chunk,
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
                Err(cause) => return Err(cause.into()),
            };
            if chunk.is_empty() {
                return self.end(now, record);
            }
            let mut used = 0;
            for &byte in chunk {
                used += 1;
                place = self.walk.step(now, byte, record);
                let Some(next) = place else { break };
                now = next;
            }
            self.reader.consume(used);
            if RECORD_BYTES_MAX < record.bytes.len() {
                return Err(match now {
                    CsvState::Quoted => RecordError::Unterminated { line: self.walk.quoted_since },
                    CsvState::Start | CsvState::Plain | CsvState::Closed => {
                        RecordError::TooLong { line: record.line }
                    }
                });
            }
        }
        Ok(true)
    }

    /// The last record of the text ends in this place.
    fn end(&self, place: CsvState, record: &mut CsvRecord) -> Result<bool, RecordError> {
        match place {
            CsvState::Quoted => Err(RecordError::Unterminated { line: self.walk.quoted_since }),
            CsvState::Start if record.ends.is_empty() => Ok(false),
            CsvState::Start | CsvState::Plain | CsvState::Closed => {
                record.end_field();
                Ok(true)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    /// Each record as `line: field|field`, whatever the borders of what is read at once.
    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        for bytes in [1, 2, 3, 64] {
            let reader = BufReader::with_capacity(bytes, text.as_bytes());
            let mut records = CsvRecords::new(reader, b',');
            let mut record = CsvRecord::default();
            let mut found = Vec::new();
            loop {
                match records.read(&mut record) {
                    Ok(false) => break,
                    Ok(true) => {
                        let fields: Vec<_> = record.fields().map(String::from_utf8_lossy).collect();
                        found.push(format!("{}: {}", record.line, fields.join("|")));
                    }
                    Err(problem) => {
                        found.push(problem.to_string());
                        break;
                    }
                }
            }
            assert_eq!(found, expected, "{text:?} by {bytes}");
        }
    }

    #[test]
    fn records_have_their_fields_and_lines() {
        check("a,b\n1,2\n", &["1: a|b", "2: 1|2"]);
        check("a,b\r\n\r\n1,\r\n,2", &["1: a|b", "3: 1|", "4: |2"]);
        check("a\rb\r\rc", &["1: a", "2: b", "4: c"]);
        check("\"a\"\"b\",\"c\nd\"\nx\n", &["1: a\"b|c\nd", "3: x"]);
        check("\"a\r\nb\",\"\"\n\"\"\nx\"y,\"z\" w\n", &["1: a\r\nb|", "3: ", "4: x\"y|z w"]);
        check("", &[]);
        check("\n\n", &[]);
    }

    #[test]
    fn a_quote_that_is_never_closed_is_a_fault_where_it_begins() {
        let text = |line| {
            format!(
                "unterminated CSV quoted field: the quote that begins on line {line} is never closed"
            )
        };
        check("a,b\n1,\"x\n2,y\n", &["1: a|b", &text(2)]);
        check("a\n\"1\n2\",\"x\n", &["1: a", &text(3)]);
        check("\"", &[&text(1)]);
        check("a\n\"x\"\"", &["1: a", &text(2)]);
        check("a\n\"x\"", &["1: a", "2: x"]);
    }

    #[test]
    fn no_record_takes_more_than_its_bound() {
        let long = [b"a\n\"".as_slice(), &vec![b'x'; RECORD_BYTES_MAX + 2]].concat();
        let mut records = CsvRecords::new(&long[..], b',');
        let mut record = CsvRecord::default();
        assert!(records.read(&mut record).unwrap());
        let problem = records.read(&mut record).unwrap_err();
        assert!(matches!(problem, RecordError::Unterminated { line: 2 }), "{problem}");
    }
}
