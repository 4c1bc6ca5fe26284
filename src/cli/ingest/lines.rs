//! One event a line, as requests.

use crate::cli::ingest::{InputPart, identity::InputIdentity, source::InputReader};
use icecore_lake::event::decode::file_ids::{bare_line, may_get_id, values_of_line};
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
    /// Why there are no more lines, until it is told.
    pub(super) fault: Option<io::Error>,
}

impl LineRequests {
    /// Adds the line of this number. One with several events is sent as a line of each: the id of an event
    /// has the line up to its end in it.
    fn push(&self, part: &mut InputPart, number: u64, line: &[u8]) {
        let needs_id = may_get_id(line);
        if needs_id.is_none()
            && let Some((values, broken)) = values_of_line(line)
        {
            if broken.is_empty() {
                for value in values {
                    let end = value.as_ptr().addr() - line.as_ptr().addr() + value.len();
                    let id = |_: &[u8]| self.identity.id(number, &line[..end]);
                    push_with_id(&mut part.body, value.as_bytes(), id);
                    part.places.push(number);
                }
                return;
            }
            // Events with ids of their own are the server's to take, and the rest its to refuse.
            if values.iter().any(|it| may_get_id(it.as_bytes()) == Some(true)) {
                let reason = "it has several events and one is not JSON, so none gets an id";
                part.unsent.push((number, reason.to_owned()));
                return;
            }
        }
        let id = |it: &[u8]| self.identity.id(number, it);
        push(&mut part.body, line, needs_id == Some(true), id);
        part.places.push(number);
    }
}

impl Iterator for LineRequests {
    type Item = io::Result<InputPart>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(cause) = self.fault.take() {
            return Some(Err(cause));
        }
        let start = self.offset;
        let mut part = InputPart::default();
        let mut line = Vec::new();
        while !part.is_full() {
            line.clear();
            let read = self.reader.read_until(b'\n', &mut line);
            let text = bare_line(&line);
            match read {
                Ok(0) => break,
                Ok(read) => {
                    self.line += 1;
                    if !text.is_empty() {
                        self.push(&mut part, self.line, text);
                    }
                    self.offset += read as u64;
                }
                // What was read before is sent first, with an event that has ended where its line has not.
                Err(cause) => {
                    let mut last = self.line;
                    if may_get_id(text).is_some() {
                        last += 1;
                        self.push(&mut part, last, text);
                    }
                    let reason =
                        format!("after line {last}: {cause}; the lines up to it were sent");
                    self.fault = Some(io::Error::new(cause.kind(), reason));
                    break;
                }
            }
        }
        (part.next, part.lines) = (self.offset, self.line);
        if start < self.offset || !part.places.is_empty() {
            return Some(Ok(part));
        }
        self.fault.take().map(Err)
    }
}

/// The event and a line end, with an id put in as its last member where it has none and may be given
/// one: of two members of one name the last counts, and one may be null. All else is sent as it is.
pub(super) fn push_with_id(body: &mut Vec<u8>, event: &[u8], id: impl FnOnce(&[u8]) -> String) {
    push(body, event, may_get_id(event) == Some(true), id);
}

fn push(body: &mut Vec<u8>, event: &[u8], needs_id: bool, id: impl FnOnce(&[u8]) -> String) {
    match event.strip_suffix(b"}") {
        Some(members) if needs_id => {
            body.extend_from_slice(members);
            body.extend_from_slice(format!(",\"id\":\"{}\"}}", id(event)).as_bytes());
        }
        _ => body.extend_from_slice(event),
    }
    body.push(b'\n');
}
