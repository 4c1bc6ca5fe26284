//! One event a line, as requests.

use crate::cli::ingest::{InputPart, identity::InputIdentity, source::InputReader};
use icecore_lake::event::decode::file_ids::may_get_id;
use std::io;

/// The requests of an input with an event a line.
pub(super) struct LineRequests {
    pub(super) reader: InputReader,
    /// For the ids of events that have none.
    pub(super) identity: InputIdentity,
    /// Bytes before the next line.
    pub(super) offset: u64,
    /// Lines before the next one.
    pub(super) line: u64,
}

impl Iterator for LineRequests {
    type Item = io::Result<InputPart>;

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.offset;
        let mut part = InputPart::default();
        let mut line = Vec::new();
        while !part.is_full() {
            line.clear();
            match self.reader.read_until(b'\n', &mut line) {
                Ok(0) => break,
                Ok(read) => {
                    let text = line.trim_ascii();
                    self.line += 1;
                    if !text.is_empty() {
                        push_with_id(&mut part.body, text, |it| self.identity.id(self.line, it));
                        part.places.push(self.line);
                    }
                    self.offset += read as u64;
                }
                Err(cause) => return Some(Err(cause)),
            }
        }
        (part.next, part.lines) = (self.offset, self.line);
        (start < self.offset).then_some(Ok(part))
    }
}

/// The event and a line end, with an id put in as its last member where it has none and may be given
/// one: of two members of one name the last counts, and one may be null. All else is sent as it is.
pub(super) fn push_with_id(body: &mut Vec<u8>, event: &[u8], id: impl FnOnce(&[u8]) -> String) {
    match event.strip_suffix(b"}") {
        Some(members) if may_get_id(event) => {
            body.extend_from_slice(members);
            body.extend_from_slice(format!(",\"id\":\"{}\"}}", id(event)).as_bytes());
        }
        _ => body.extend_from_slice(event),
    }
    body.push(b'\n');
}
