//! The changes of one key, in any order of arrival and in any groups, and what they make.
//!
//! Its one invariant: whatever order changes come in, and whoever found which of them, the answer is that of all of them
//! in the order of `seq`.

use super::{
    Change, ChangeAnomaly, ChangeOp, Document, Image, SourceClaims,
    codec::{self, WrittenChanges},
    entry::{BaseState, ChangeEntry, ChangeText, ChangeWords, ClaimWords, image_of, with_gaps},
    replay::Replay,
};
use std::convert::Infallible;

/// Fewest changes out of order that are put in order.
const UNORDERED_MIN: usize = 64;

/// A change as its columns have it, with what its source said around it. What is kept of it is copied.
#[derive(Clone, Copy, Debug)]
pub struct ChangeRow<'r> {
    /// Position in the namespace, which is the order of changes.
    pub seq: i64,
    /// What it does.
    pub op: ChangeOp,
    /// When it happened, microseconds since 1970 UTC.
    pub ts: i64,
    /// All of the document after it, as JSON text.
    pub after: Option<&'r str>,
    /// How the document differs after it, as JSON text. It counts where there is no `after`.
    pub patch: Option<&'r str>,
    /// Kind of store that changed.
    pub store: Option<&'r str>,
    /// Who changed it.
    pub actor: Option<&'r str>,
    /// Position in the change log.
    pub bookmark: Option<&'r str>,
    /// Id of the event.
    pub event_id: &'r str,
    /// The document before the change, as its source says, as JSON text.
    pub before: Option<&'r str>,
    /// Log position of the source.
    pub lsn: Option<i64>,
    /// The source's own version of the document.
    pub version: Option<i64>,
}

impl<'r> ChangeRow<'r> {
    fn of(change: &'r Change, claims: &'r SourceClaims) -> Self {
        let Change { seq, op, ts, image, store, actor, bookmark, event_id } = change;
        let (after, patch) = match image {
            None => (None, None),
            Some(Image::Whole(text)) => (Some(text.as_str()), None),
            Some(Image::Patch(text)) => (None, Some(text.as_str())),
        };
        Self {
            seq: *seq,
            op: *op,
            ts: *ts,
            after,
            patch,
            store: store.as_deref(),
            actor: actor.as_deref(),
            bookmark: bookmark.as_deref(),
            event_id,
            before: claims.before.as_deref(),
            lsn: claims.lsn,
            version: claims.version,
        }
    }
}

/// Bytes that are no [`Changes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes of a document's changes are damaged: ask again")]
pub struct DamagedChanges;

/// The changes of one key, in any order of arrival.
///
/// The default keeps the text of every change, for [`Self::versions`]. [`Self::latest`] keeps only the
/// texts that [`Self::document`] can still need; of what it no longer needs it keeps `seq`, `op` and `ts`.
/// What is merged into or with such changes keeps no more than they do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    base: Option<Box<BaseState>>,
    /// In order of `seq` up to `in_order`, in any order after it.
    entries: Vec<ChangeEntry>,
    in_order: usize,
    is_latest: bool,
    /// With `is_latest`: the newest entry that does not depend on those before it.
    text_from: Option<i64>,
    /// Of the texts in `base` and `entries`.
    text_bytes: usize,
}

impl Changes {
    /// None yet, of which only the document is asked.
    #[must_use]
    pub fn latest() -> Self {
        Self { is_latest: true, ..Self::default() }
    }

    /// A document as all of its changes up to its `seq` made it. Changes up to there are in it, and
    /// have no effect when they come again.
    #[must_use]
    pub fn of_base(document: Document) -> Self {
        let base = BaseState::of(document);
        Self { text_bytes: base.bytes(), base: Some(Box::new(base)), ..Self::default() }
    }

    /// Adds a change. One with the `seq` of another is the same change, and has no effect.
    pub fn push(&mut self, change: &Change) {
        self.push_row(&ChangeRow::of(change, &SourceClaims::default()));
    }

    /// Adds a change and what its source said around it, which [`Self::anomalies`] compares.
    pub fn push_claimed(&mut self, change: &Change, claims: &SourceClaims) {
        self.push_row(&ChangeRow::of(change, claims));
    }

    /// Adds a change of which only what is kept is copied.
    pub fn push_row(&mut self, row: &ChangeRow<'_>) {
        let &ChangeRow { seq, op, ts, store, actor, bookmark, event_id, .. } = row;
        if self.is_in_base(seq) {
            return;
        }
        let (kind, image) = image_of(op, row.after, row.patch);
        if self.is_former(seq) {
            // Whether it has gaps decides of its text alone.
            self.add(ChangeEntry::bare(seq, ts, op, kind));
            return;
        }
        let claims = ClaimWords { before: row.before, lsn: row.lsn, version: row.version };
        let words = ChangeWords { image, store, actor, bookmark, event_id, claims };
        self.add_words(ChangeEntry::bare(seq, ts, op, with_gaps(kind, image)), words);
    }

    /// Adds the changes, and the base, of the same key that others have found.
    pub fn merge(&mut self, other: Self) {
        self.is_latest |= other.is_latest;
        if let Some(base) = other.base {
            self.rebase(*base);
        }
        for entry in other.entries {
            self.add(entry);
        }
        self.settle();
    }

    /// Adds what [`Self::to_bytes`] of changes of the same key wrote.
    ///
    /// # Errors
    ///
    /// [`DamagedChanges`] for other bytes, of which some may be added.
    pub fn merge_bytes(&mut self, bytes: &[u8]) -> Result<(), DamagedChanges> {
        let mut written = WrittenChanges::of(bytes).ok_or(DamagedChanges)?;
        let becomes_latest = written.is_latest && !self.is_latest;
        self.is_latest |= written.is_latest;
        if let Some(base) = written.base.take() {
            self.rebase(base);
        }
        while !written.is_at_end() {
            match written.entry().ok_or(DamagedChanges)? {
                (entry, Some(words)) => self.add_words(entry, words),
                (entry, None) => self.add(entry),
            }
        }
        // What comes in order leaves nothing to be dropped.
        if becomes_latest || self.in_order < self.entries.len() {
            self.settle();
        }
        Ok(())
    }

    /// The document after all of the changes. None where there is none, or it was deleted.
    #[must_use]
    pub fn document(&self) -> Option<Document> {
        let mut replay = Replay::of(self.base.as_deref());
        if self.in_order == self.entries.len() {
            for entry in &self.entries {
                replay.apply(entry);
            }
        } else {
            for entry in self.ordered() {
                replay.apply(entry);
            }
        }
        replay.document().filter(|document| document.doc.is_some())
    }

    /// Each version of the document from the first that is known whole, deletes too, in order.
    #[must_use]
    pub fn versions(&self) -> Vec<Document> {
        let mut versions = Vec::new();
        let Ok(()) = self.each_version(|version| {
            versions.push(version);
            Ok::<(), Infallible>(())
        });
        versions
    }

    /// Hands over the same, one after the other: each has the whole document, and together they may have far
    /// more bytes than the changes.
    ///
    /// # Errors
    ///
    /// That of `take`, after which no more is handed over.
    pub fn each_version<E>(
        &self,
        mut take: impl FnMut(Document) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut replay = Replay::of(self.base.as_deref());
        if let Some(version) = replay.document() {
            take(version)?;
        }
        for entry in self.ordered() {
            if replay.apply(entry)
                && let Some(version) = replay.document()
            {
                take(version)?;
            }
        }
        Ok(())
    }

    /// What there is to say of the changes, in order. Of changes whose texts are gone it says less.
    #[must_use]
    pub fn anomalies(&self) -> Vec<ChangeAnomaly> {
        let mut replay = Replay::of(self.base.as_deref());
        for entry in self.ordered() {
            replay.apply(entry);
        }
        replay.into_anomalies()
    }

    /// Bytes that this takes in memory, nearly.
    #[must_use]
    pub fn size(&self) -> usize {
        size_of::<Self>() + self.entries.capacity() * size_of::<ChangeEntry>() + self.text_bytes
    }

    /// All of it as bytes, for [`Self::from_bytes`] of the same build.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write(&mut bytes);
        bytes
    }

    /// Writes the same behind what is there.
    pub fn write(&self, bytes: &mut Vec<u8>) {
        let base = self.base.as_deref();
        if self.in_order == self.entries.len() {
            codec::write(bytes, base, &self.entries, self.is_latest);
        } else {
            codec::write(bytes, base, self.ordered(), self.is_latest);
        }
    }

    /// What [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    ///
    /// [`DamagedChanges`] for other bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DamagedChanges> {
        let mut changes = Self::default();
        changes.merge_bytes(bytes)?;
        Ok(changes)
    }

    /// Whether the base has the change at this place, if it is one.
    fn is_in_base(&self, seq: i64) -> bool {
        self.base.as_ref().is_some_and(|base| seq <= base.document.seq)
    }

    /// Whether no text of the change at this place can matter.
    fn is_former(&self, seq: i64) -> bool {
        self.is_latest && self.text_from.is_some_and(|from| seq < from)
    }

    /// Adds a change with its words, as far as they can matter.
    fn add_words(&mut self, mut entry: ChangeEntry, mut words: ChangeWords<'_>) {
        if self.is_in_base(entry.seq) {
            return;
        }
        if !self.is_former(entry.seq) {
            let mut text = None;
            if self.is_latest {
                words.claims = ClaimWords::default();
                if entry.is_independent() {
                    text = self.drop_former_texts(self.entries.len(), entry.seq);
                }
            }
            let mut text = text.unwrap_or_default();
            text.fill(&words);
            entry.text = Some(text);
        }
        self.add(entry);
    }

    fn add(&mut self, mut entry: ChangeEntry) {
        if self.is_in_base(entry.seq) {
            return;
        }
        if self.is_latest {
            entry.drop_claims();
            if self.is_former(entry.seq) {
                entry.drop_text();
            } else if entry.is_independent() {
                self.text_from = Some(entry.seq);
            }
        }
        self.text_bytes += entry.text_bytes();
        let is_in_order = self.in_order == self.entries.len()
            && self.entries.last().is_none_or(|last| last.seq < entry.seq);
        let (seq, ends_former) = (entry.seq, self.text_from == Some(entry.seq));
        self.entries.push(entry);
        if ends_former {
            self.drop_former_texts(self.entries.len() - 1, seq);
        }
        if is_in_order {
            self.in_order = self.entries.len();
        } else if self.in_order.max(UNORDERED_MIN) <= self.entries.len() - self.in_order {
            self.settle();
        }
    }

    /// Takes a base, if it is newer than the one that there is, for the changes that are in it.
    fn rebase(&mut self, base: BaseState) {
        let seq = base.document.seq;
        if self.base.as_ref().is_some_and(|own| seq <= own.document.seq) {
            return;
        }
        self.base = Some(Box::new(base));
        self.entries.retain(|entry| seq < entry.seq);
        self.settle();
    }

    /// Puts the entries in order, takes out repeats, and drops texts that are no longer needed.
    fn settle(&mut self) {
        // Of two entries of one change the one with its text comes first, and stays.
        self.entries.sort_by_key(|entry| (entry.seq, entry.text.is_none()));
        self.entries.dedup_by_key(|entry| entry.seq);
        self.in_order = self.entries.len();
        if self.is_latest {
            self.entries.iter_mut().for_each(ChangeEntry::drop_claims);
            if let Some(at) = self.entries.iter().rposition(ChangeEntry::is_independent) {
                self.text_from = Some(self.entries[at].seq);
                if let Some(base) = &mut self.base {
                    base.drop_text();
                }
                for entry in &mut self.entries[..at] {
                    entry.drop_text();
                }
            }
        }
        let of_base = self.base.as_deref().map_or(0, BaseState::bytes);
        self.text_bytes = of_base + self.entries.iter().map(ChangeEntry::text_bytes).sum::<usize>();
    }

    /// Drops the texts of entries among the first `count` that are before the one at `seq`, which does not depend on
    /// them: back to one without a text, as in order all before it have none either, or to a newer one. Gives the memory
    /// of one of them.
    fn drop_former_texts(&mut self, count: usize, seq: i64) -> Option<Box<ChangeText>> {
        let mut dropped = self.base.as_deref_mut().map_or(0, BaseState::drop_text);
        let mut room = None;
        for entry in self.entries[..count].iter_mut().rev() {
            if seq <= entry.seq {
                break;
            }
            let Some(text) = entry.text.take() else { break };
            dropped += text.bytes();
            room = Some(text);
        }
        self.text_bytes = self.text_bytes.saturating_sub(dropped);
        room
    }

    /// The entries in order, each once.
    fn ordered(&self) -> Vec<&ChangeEntry> {
        let mut ordered: Vec<&ChangeEntry> = self.entries.iter().collect();
        if self.in_order < ordered.len() {
            ordered.sort_by_key(|entry| (entry.seq, entry.text.is_none()));
            ordered.dedup_by_key(|entry| entry.seq);
        }
        ordered
    }
}
