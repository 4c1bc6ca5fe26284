//! One event a line, as requests.

use crate::cli::ingest::{InputPart, identity::InputIdentity, source::InputReader};
use serde::{Deserialize, de::IgnoredAny};
use std::io;

/// What the members of an event are looked at for.
#[derive(Deserialize)]
struct IdMembers {
    id: Option<IgnoredAny>,
    events: Option<IgnoredAny>,
}

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
                        push_with_id(&mut part.body, text, (&self.identity, self.line));
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

/// The event and a line end, with an id put in where it has none. What is not an object is sent as
/// it is, for the server to say what is wrong.
pub(super) fn push_with_id(body: &mut Vec<u8>, event: &[u8], place: (&InputIdentity, u64)) {
    let parsed: Result<IdMembers, _> = serde_json::from_slice(event);
    let (identity, number) = place;
    let has_none = matches!(parsed, Ok(IdMembers { id: None, events: None }));
    push_object(body, event, has_none.then(|| identity.id(number, event)));
}

/// The event and a line end, with this id as its last member if it is an object: of two members of
/// one name the last counts, and one may be null.
pub(super) fn push_object(body: &mut Vec<u8>, event: &[u8], id: Option<String>) {
    match (id, event.strip_suffix(b"}")) {
        (Some(id), Some(members)) => {
            let comma = if members.trim_ascii_end() == b"{" { "" } else { "," };
            body.extend_from_slice(members);
            body.extend_from_slice(format!("{comma}\"id\":\"{id}\"}}").as_bytes());
        }
        _ => body.extend_from_slice(event),
    }
    body.push(b'\n');
}
