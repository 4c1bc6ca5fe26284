//! Which refused events have a dead letter already: a sender that tries again adds none.
//!
//! Kept among the ids. What was refused has the id of its letter, and a letter that is pending no more
//! has an entry of its own. Its one invariant: an event finds a letter here only while that is
//! pending.

use crate::ingest::{
    dedup::{IdIndex, SeenId},
    refusal::text_at,
};
use arrow::record_batch::RecordBatch;
use icecore_lake::{
    event::{RejectedEvent, dead_letter},
    wal::WalError,
};
use icecore_schemas::names::Namespace;
use std::collections::HashMap;
use ulid::Ulid;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_128;

/// What such keys begin with; no namespace's name does, so no event has one of them.
const REFUSED: &[u8] = b"\x01";
const CLOSED: &[u8] = b"\x02";

/// What a refused event is known by: where it was sent and is kept, why and in which batch its bytes
/// were refused. A provider
/// gives a delivery's id beside its bytes. The log is part of it, because letters are lost with one.
#[derive(Clone, Copy, Debug)]
struct LetterIdentity<'a> {
    log: Option<Uuid>,
    namespace: &'a Namespace,
    sent_to: &'a str,
    code: &'a str,
    detail: &'a str,
    payload: &'a str,
    batch_id: Option<&'a str>,
    id: Option<&'a str>,
}

impl LetterIdentity<'_> {
    fn hash(&self) -> u128 {
        let marks = dead_letter::marks(self.detail);
        let id = self.id.filter(|_| dead_letter::is_webhook(self.detail));
        let parts = [
            self.namespace.name().as_bytes(),
            self.code.as_bytes(),
            marks.as_bytes(),
            self.batch_id.unwrap_or_default().as_bytes(),
            id.unwrap_or_default().as_bytes(),
            self.payload.as_bytes(),
        ];
        let mut text = REFUSED.to_vec();
        text.extend_from_slice(self.log.unwrap_or_default().as_bytes());
        for part in parts {
            text.extend_from_slice(&(part.len() as u64).to_le_bytes());
            text.extend_from_slice(part);
        }
        // Letters of earlier versions have the namespace that keeps them.
        if self.sent_to != self.namespace.text() {
            text.extend_from_slice(self.sent_to.as_bytes());
        }
        xxh3_128(&text)
    }
}

/// What is known of a refused event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KnownLetter {
    /// It has this letter.
    Letter(Ulid),
    /// It has none; a new one is noted under this key.
    Nothing(u128),
}

/// Looks for the letters of one submission's events. Equal ones of a body are several events, and each
/// has a letter of its own: the first finds the first one, and so on.
#[derive(Debug)]
pub(super) struct LetterLookup {
    log: Option<Uuid>,
    next: HashMap<u128, u64>,
}

impl LetterLookup {
    pub(super) fn new(log: Option<Uuid>) -> Self {
        Self { log, next: HashMap::new() }
    }

    pub(super) fn of(
        &mut self,
        index: &IdIndex,
        keeper: &Namespace,
        one: &RejectedEvent,
        batch_id: Option<&str>,
    ) -> Result<KnownLetter, WalError> {
        let words = LetterIdentity {
            log: self.log,
            namespace: keeper,
            sent_to: one.namespace.text(),
            code: one.code.as_str(),
            detail: &one.reason,
            payload: &one.payload,
            batch_id,
            id: one.id.as_deref(),
        };
        let hash = words.hash();
        let next = self.next.entry(hash).or_default();
        loop {
            let key = numbered(hash, *next);
            *next += 1;
            let Some(seen) = index.get(key)? else { return Ok(KnownLetter::Nothing(key)) };
            let id = letter_of(seen);
            if index.get(closed(&id.to_string()))?.is_none() {
                return Ok(KnownLetter::Letter(id));
            }
        }
    }
}

/// Notes the letter of an event that has none.
pub(super) fn note(index: &mut IdIndex, key: u128, letter: Ulid) {
    index.insert(key, SeenId { content: (letter.0 >> 64) as u64, seq: letter.0 as u64 });
}

/// Notes that a letter is pending no more; gives the key of the note, if it is a new one.
pub(super) fn close(index: &mut IdIndex, letter: &str) -> Result<Option<u128>, WalError> {
    let key = closed(letter);
    if index.get(key)?.is_some() {
        return Ok(None);
    }
    index.insert(key, SeenId { content: 1, seq: 0 });
    Ok(Some(key))
}

/// Notes the letters of rows that the log has.
pub(super) fn replay(
    index: &mut IdIndex,
    log: Option<Uuid>,
    namespace: &Namespace,
    rows: &RecordBatch,
) -> Result<(), WalError> {
    for row in 0..rows.num_rows() {
        let text = |name: &str| text_at(rows, name, row);
        let Some(letter) = text("id") else { continue };
        if text("status") != Some(dead_letter::LetterStatus::Pending.as_str()) {
            close(index, letter)?;
            continue;
        }
        let Ok(id) = Ulid::from_string(letter) else { continue };
        let words = LetterIdentity {
            log,
            namespace,
            sent_to: text("ns").unwrap_or_else(|| namespace.text()),
            code: text("reason").unwrap_or_default(),
            detail: text("detail").unwrap_or_default(),
            payload: text("payload").unwrap_or_default(),
            batch_id: text("batch_id"),
            id: text("event_id"),
        };
        let hash = words.hash();
        for number in 0.. {
            let key = numbered(hash, number);
            match index.get(key)? {
                Some(seen) if letter_of(seen) == id => break,
                Some(_) => (),
                None => {
                    note(index, key, id);
                    break;
                }
            }
        }
    }
    Ok(())
}

fn numbered(hash: u128, number: u64) -> u128 {
    xxh3_128(&[&hash.to_le_bytes()[..], &number.to_le_bytes()].concat())
}

fn closed(letter: &str) -> u128 {
    xxh3_128(&[CLOSED, letter.as_bytes()].concat())
}

fn letter_of(seen: SeenId) -> Ulid {
    Ulid(u128::from(seen.content) << 64 | u128::from(seen.seq))
}
