//! The audit log as values: what a record holds, and the chain of hashes over them. Pure.
//!
//! Each record's hash covers the hash before it and every field, so a record that was changed,
//! taken out or moved breaks the chain from there on, and the head (number and hash of the last
//! record) shows a cut at the end. The chain has no key: whoever can rewrite every later record and
//! the head can forge it. Against that, keep a head from time to time where they cannot reach, and
//! have `verify` look for it.

mod call;

pub use call::AuditedCall;

use crate::digest::sha256;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

/// The outcome of a call that changed something: this record and the change are one transaction. And that of
/// a job's run, which is recorded at its end.
pub const DONE: &str = "done";
/// The action of a record that tells of older ones being deleted; its details are the last one's
/// hash.
pub const CUT: &str = "cut the audit log";

/// What happened, before it has a number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// When the call ended, ms since 1970.
    pub time_ms: i64,
    /// Who called; see [`crate::access::Principal::id`].
    pub principal: String,
    /// From which address.
    pub address: String,
    /// The request's id, as its reply and the log have it.
    pub request: String,
    /// What was asked for: method and route.
    pub action: String,
    /// On what.
    pub object: String,
    /// [`DONE`], else the status of the reply, or `unanswered` when the caller went away before it.
    pub outcome: String,
    /// SHA-256 of path, query and body.
    pub details: String,
}

/// A record of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainRecord {
    /// From 1, without gaps.
    pub number: i64,
    /// What happened.
    #[serde(flatten)]
    pub entry: AuditEntry,
    /// The hash that the next record builds on.
    pub hash: String,
}

/// Which records of the log: those with a number and a time within these bounds, ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRange {
    /// First and last number.
    pub numbers: (i64, i64),
    /// Earliest and latest time, ms since 1970.
    pub times_ms: (i64, i64),
}

impl Default for AuditRange {
    /// Everything.
    fn default() -> Self {
        Self { numbers: (0, i64::MAX), times_ms: (i64::MIN, i64::MAX) }
    }
}

/// A record, and the hash that it builds on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkedRecord {
    /// The record.
    pub record: ChainRecord,
    /// The hash of the record before it.
    pub previous_hash: String,
}

/// The end of the chain: number and hash of the last record; 0 and an empty text before any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainHead {
    /// How many records there are.
    pub number: i64,
    /// The last one's hash.
    pub hash: String,
}

/// Both ends of the chain, read before any record between them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainEnds {
    /// The last record that was deleted for its age: the first one there follows it.
    pub start: ChainHead,
    /// The last record.
    pub head: ChainHead,
}

/// Where the chain breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokenChain {
    /// Records are missing or out of order.
    #[error("record {expected} is missing: the next record has number {found}")]
    Missing {
        /// The number that should come.
        expected: i64,
        /// The one that came.
        found: i64,
    },
    /// A record or its hash is not what was written.
    #[error("record {0} or the one before it was changed: its hash does not match")]
    Changed(i64),
    /// The log ends elsewhere than its head says.
    #[error("the log ends at record {end}, but its head says {head} or has another hash")]
    End {
        /// The last record there.
        end: i64,
        /// What the head says.
        head: i64,
    },
    /// Old records are gone, and no record tells of it.
    #[error("the records up to {0} are gone, and no record says that they were cut")]
    CutUnrecorded(i64),
    /// A head that was kept elsewhere is older than the log is kept.
    #[error("record {0} was deleted because of its age: expect a later one")]
    TooOld(i64),
    /// A head that was kept elsewhere is not in the chain.
    #[error("record {0} does not have the expected hash")]
    Unexpected(i64),
}

/// A check of the whole chain, page by page, while others may go on writing.
#[derive(Clone, Debug)]
pub struct ChainCheck {
    at: ChainHead,
    ends: ChainEnds,
    is_cut_recorded: bool,
    expected: Option<ChainHead>,
}

impl ChainCheck {
    /// A check of what lay between `ends` before the first page was read. `expected` is a head that
    /// was kept elsewhere.
    #[must_use]
    pub fn new(ends: ChainEnds, expected: Option<ChainHead>) -> Self {
        let is_cut_recorded = ends.start.number == 0;
        Self { at: ends.start.clone(), ends, is_cut_recorded, expected }
    }

    /// The number that the next page comes after.
    #[must_use]
    pub fn after(&self) -> i64 {
        self.at.number
    }

    /// Goes on over the next records; true when there is more to check.
    ///
    /// # Errors
    /// [`BrokenChain`]
    pub fn page(&mut self, records: &[ChainRecord]) -> Result<bool, BrokenChain> {
        for record in records {
            if self.at.number == self.ends.head.number {
                break;
            }
            self.at.follow(record)?;
            self.is_cut_recorded |=
                record.entry.action == CUT && record.entry.details == self.ends.start.hash;
            if self
                .expected
                .as_ref()
                .is_some_and(|head| head.number == record.number && head.hash != record.hash)
            {
                return Err(BrokenChain::Unexpected(record.number));
            }
        }
        Ok(!records.is_empty() && self.at.number < self.ends.head.number)
    }

    /// What was found when there is nothing more: the head that is worth keeping.
    ///
    /// # Errors
    /// [`BrokenChain::End`], [`BrokenChain::CutUnrecorded`], [`BrokenChain::TooOld`],
    /// [`BrokenChain::Unexpected`].
    pub fn finish(self) -> Result<ChainHead, BrokenChain> {
        let ChainEnds { start, head } = self.ends;
        if let Some(expected) = self.expected {
            if expected.number < start.number {
                return Err(BrokenChain::TooOld(expected.number));
            }
            if self.at.number < expected.number
                || expected.number == start.number && expected != start
            {
                return Err(BrokenChain::Unexpected(expected.number));
            }
        }
        if self.at != head {
            return Err(BrokenChain::End { end: self.at.number, head: head.number });
        }
        if self.is_cut_recorded {
            Ok(self.at)
        } else {
            Err(BrokenChain::CutUnrecorded(start.number))
        }
    }
}

impl ChainHead {
    /// The record that follows, and with it the new head.
    pub(crate) fn append(&mut self, entry: AuditEntry) -> ChainRecord {
        let number = self.number + 1;
        let hash = hash(&self.hash, number, &entry);
        *self = Self { number, hash: hash.clone() };
        ChainRecord { number, entry, hash }
    }

    fn follow(&mut self, record: &ChainRecord) -> Result<(), BrokenChain> {
        let expected = self.number + 1;
        if record.number != expected {
            return Err(BrokenChain::Missing { expected, found: record.number });
        }
        if record.hash != hash(&self.hash, record.number, &record.entry) {
            return Err(BrokenChain::Changed(record.number));
        }
        *self = Self { number: record.number, hash: record.hash.clone() };
        Ok(())
    }
}

/// [`AuditEntry::details`] of a request.
#[must_use]
pub fn details(path_and_query: &str, body: &[u8]) -> String {
    let mut context = Context::new(&SHA256);
    context.update(path_and_query.as_bytes());
    // No path has this byte, so no two requests have the same text.
    context.update(b"\n");
    context.update(body);
    hex::encode(context.finish())
}

/// The fields as a JSON array: no two records have the same text.
fn hash(before: &str, number: i64, entry: &AuditEntry) -> String {
    let AuditEntry { time_ms, principal, address, request, action, object, outcome, details } =
        entry;
    let fields =
        (before, number, time_ms, principal, address, request, action, object, outcome, details);
    sha256(&serde_json::to_vec(&fields).expect("texts and numbers are JSON"))
}
