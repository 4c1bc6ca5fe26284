//! The verdict on one event: new, a repeat, or refused.
//!
//! Its one invariant: an event is new only if nothing that was acknowledged has its id, and then index
//! and ledger have it before the next event is looked at.

use crate::ingest::{
    admit::AcceptedRows,
    dedup::{IdIndex, SeenId, UNKNOWN_CONTENT},
    expected::VersionCheck,
    ledger::NamespaceCounters,
    refusal::RefusalReason,
};
use arrow::array::StringArray;
use icecore_lake::{
    event::{EquivalentEvent, EventKey, FormerKey},
    wal::WalError,
};
use icecore_schemas::service_table::RecordKind;

#[derive(Debug)]
pub(super) enum EventVerdict {
    New(u64),
    Repeat(u64),
    Refused(RefusalReason),
}

/// What the verdicts on one namespace's events need.
pub(super) struct NamespaceState<'a> {
    pub(super) index: &'a mut IdIndex,
    pub(super) entry: &'a mut NamespaceCounters,
    pub(super) types: Option<&'a StringArray>,
    pub(super) types_max: usize,
    /// Former identities of the rows that are still to come.
    pub(super) former: &'a [FormerKey],
    /// Rows that were compared and say the same.
    pub(super) same: &'a [(usize, EquivalentEvent)],
    /// Whether an event that another one conflicts with keeps its `seq`.
    pub(super) gives_seq: bool,
    /// The versions that new events expect, if any does.
    pub(super) versions: Option<VersionCheck<'a>>,
    /// Rows that another content of their id may say the same as, and its `seq`.
    pub(super) asks: Vec<(usize, u64)>,
}

impl NamespaceState<'_> {
    pub(super) fn judge(
        &mut self,
        row: usize,
        key: EventKey,
        taken: &mut AcceptedRows,
    ) -> Result<EventVerdict, WalError> {
        let former = self.former_of(row);
        // A known id is a repeat where its event says the same: by its hash, by the hash that an
        // earlier version made, or because the two were compared. An id that was read back from a
        // table has no hash; its event counts as the same.
        if let Some(seen) = self.index.get(key.id)? {
            let is_former = |it: FormerKey| (it.key.id, it.key.content) == (key.id, seen.content);
            if [key.content, UNKNOWN_CONTENT].contains(&seen.content)
                || former.is_some_and(is_former)
                || self.says_the_same(row, seen, taken.first_seq)
            {
                return Ok(EventVerdict::Repeat(seen.seq));
            }
            self.asks.push((row, seen.seq));
            if let Some(versions) = &mut self.versions {
                versions.refuse(row);
            }
            let is_given = self.gives_seq || seen.seq < taken.first_seq;
            return Ok(EventVerdict::Refused(RefusalReason::Conflict {
                seq: is_given.then_some(seen.seq),
            }));
        }
        if let Some(former) = former
            && let Some(seen) = self.index.get(former.key.id)?
        {
            if former.is_certain
                || former.key.content == seen.content
                || self.says_the_same(row, seen, taken.first_seq)
            {
                return Ok(EventVerdict::Repeat(seen.seq));
            }
            // Another event had that id then, unless what is stored says otherwise.
            self.asks.push((row, seen.seq));
        }
        // The id is new, so the event is: it takes the next number, unless its document has another version or its
        // type is one too many.
        if let Some(Err(reason)) = self.versions.as_mut().map(|versions| versions.check(row)) {
            return Ok(EventVerdict::Refused(reason));
        }
        let event_type = self.types.map_or("", |types| types.value(row));
        if !self.entry.types.contains(event_type) {
            if self.types_max <= self.entry.types.len() {
                let types_max = self.types_max;
                if let Some(versions) = &mut self.versions {
                    versions.refuse(row);
                }
                return Ok(EventVerdict::Refused(RefusalReason::TooManyTypes { types_max }));
            }
            self.entry.types.insert(event_type.to_owned());
            taken.types.push(event_type.to_owned());
        }
        let seq = self.entry.give(RecordKind::Events, 1);
        taken.keys.push(key);
        self.index.insert(key.id, SeenId { content: key.content, seq });
        if let Some(versions) = &mut self.versions {
            versions.take(row);
        }
        Ok(EventVerdict::New(seq))
    }

    fn former_of(&mut self, row: usize) -> Option<FormerKey> {
        let (first, rest) = self.former.split_first()?;
        if first.row != row {
            return None;
        }
        self.former = rest;
        Some(*first)
    }

    /// Whether the row was found to say what the event with this id says. One of the same body has no
    /// `seq` before it is judged.
    fn says_the_same(&self, row: usize, seen: SeenId, first_seq: u64) -> bool {
        self.same.iter().any(|(same, what)| {
            *same == row
                && match what {
                    EquivalentEvent::Stored(seq) => *seq == seen.seq,
                    EquivalentEvent::Before => first_seq <= seen.seq,
                }
        })
    }
}
