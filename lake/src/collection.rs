//! The state of a collection's documents from their changes: pure, one key at a time.
//!
//! The order is `seq`, in whatever order changes arrive and however they are grouped. A base holds
//! what the fold of all changes up to a `seq` gave, so base and the changes after it give the same
//! document as all changes do. Who reads changes, and from where, is not known here.

mod codec;
mod entry;
pub mod erased_documents;
mod json_node;
pub mod merge;
mod patch;
mod replay;
pub mod version;

use entry::{BaseState, ChangeEntry};
use icecore_schemas::columns::{
    Column,
    ColumnKind::{self, Long, String as Text, Timestamptz},
    FoundIn,
};
use replay::Replay;
use std::convert::Infallible;
use xxhash_rust::xxh3::xxh3_64;

/// What a change does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeOp {
    /// The document is new.
    Create,
    /// The document is another one, or a part of it is.
    Update,
    /// The document goes.
    Delete,
    /// The document as a snapshot of the source read it.
    Read,
}

impl ChangeOp {
    /// The operation of column `op`: c, u, d or r.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        Some(match code {
            "c" => Self::Create,
            "u" => Self::Update,
            "d" => Self::Delete,
            "r" => Self::Read,
            _ => return None,
        })
    }

    /// As it stands in column `op`.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Create => "c",
            Self::Update => "u",
            Self::Delete => "d",
            Self::Read => "r",
        }
    }
}

/// What a change says of the document after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Image {
    /// All of it, as JSON text: column `after`.
    Whole(String),
    /// How it differs, as JSON text: column `patch`. An array is RFC 6902, an object is RFC 7396.
    Patch(String),
}

/// One change of one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Position in the namespace, which is the order of changes.
    pub seq: i64,
    /// What it does.
    pub op: ChangeOp,
    /// When it happened, microseconds since 1970 UTC.
    pub ts: i64,
    /// The document after it: `after` where there is one, else `patch`.
    pub image: Option<Image>,
    /// Kind of store that changed.
    pub store: Option<String>,
    /// Who changed it.
    pub actor: Option<String>,
    /// Position in the change log.
    pub bookmark: Option<String>,
    /// Id of the event.
    pub event_id: String,
}

/// What the source said of the state around a change. Nothing of it changes the document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceClaims {
    /// The document before the change, as JSON text: column `before`.
    pub before: Option<String>,
    /// Log position of the source: column `lsn`.
    pub lsn: Option<i64>,
    /// The source's own version of the document: column `version`.
    pub version: Option<i64>,
}

/// A document as one of its changes left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// JSON text. None: it was deleted.
    pub doc: Option<String>,
    /// What the last change did.
    pub op: ChangeOp,
    /// Kind of store that changed.
    pub store: Option<String>,
    /// 1 as it is created, one more with each change since.
    pub version: i64,
    /// When it was created, microseconds since 1970 UTC.
    pub created_at: i64,
    /// When it changed last, microseconds since 1970 UTC.
    pub updated_at: i64,
    /// Who changed it last.
    pub actor: Option<String>,
    /// Position of the last change in the change log.
    pub bookmark: Option<String>,
    /// Position of the last change in the namespace.
    pub seq: i64,
    /// Id of the event of the last change.
    pub event_id: String,
}

/// Something about a change that its sender should know. None of them loses a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeAnomaly {
    /// Position of the change.
    pub seq: i64,
    /// What there is to say of it.
    pub kind: AnomalyKind,
}

/// What there is to say of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnomalyKind {
    /// `before` is another value than the document was. The change was applied.
    PrevMismatch,
    /// Its `lsn` is below that of the change before it. The change was applied.
    LsnWentBack,
    /// Its `version` is below that of the change before it. The change was applied.
    VersionWentBack,
    /// A row of a snapshot that is older than the document that there is. The change was not applied.
    StaleRead,
    /// It says neither the document nor how it differs. The change was not applied.
    NoImage,
    /// Its patch does not fit the document, which stays as it is; why.
    PatchNotApplied(String),
}

impl AnomalyKind {
    /// Its name in answers.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::PrevMismatch => "prev_mismatch",
            Self::LsnWentBack => "lsn_went_back",
            Self::VersionWentBack => "version_went_back",
            Self::StaleRead => "stale_read",
            Self::NoImage => "no_image",
            Self::PatchNotApplied(_) => "patch_not_applied",
        }
    }

    /// What there is to say besides.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::PatchNotApplied(reason) => Some(reason),
            Self::PrevMismatch
            | Self::LsnWentBack
            | Self::VersionWentBack
            | Self::StaleRead
            | Self::NoImage => None,
        }
    }
}

/// Bytes that are no [`Changes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes of a document's changes are damaged: ask again")]
pub struct DamagedChanges;

/// Columns of the table of a collection's base, and of its relation in SQL, in their order.
#[rustfmt::skip]
pub const COLUMNS: &[Column] = &[
    column(1, "key", Text, "Key of the document"),
    column(2, "doc", Text, "JSON text of the document"),
    column(3, "op", Text, "c, u or r: what the last change did"),
    column(4, "store", Text, "Kind of store that changed"),
    column(5, "version", Long, "1 as it is created, one more with each change since"),
    column(6, "created_at", Timestamptz, "When it was created, by the sender's clock"),
    column(7, "updated_at", Timestamptz, "When it changed last, by the sender's clock"),
    column(8, "actor", Text, "Who changed it last"),
    column(9, "bookmark", Text, "Position of the last change in the change log"),
    column(10, "seq", Long, "Position of the last change in the namespace"),
    column(11, "event_id", Text, "Id of the event of the last change"),
];

/// A column of a collection's table; every row has its key.
const fn column(id: i32, name: &'static str, kind: ColumnKind, doc: &'static str) -> Column {
    Column { id: Some(id), name, kind, required: id == 1, found_in: FoundIn::Server, doc }
}

/// What the names of tables of collections begin with.
pub const TABLE_PREFIX: &str = "cdc_";

/// Fewest changes out of order that are put in order.
const UNORDERED_MIN: usize = 64;
/// Longest name of a collection that its table has as it is.
const NAME_CHARS_MAX: usize = 200;
/// Most characters of any other collection's name in that of its table.
const MAPPED_CHARS_MAX: usize = 120;
/// Digits of the hash in the name of a table.
const HASH_DIGITS: usize = 8;

/// The name of a collection's table. Two collections have two tables: where a name is no name of a table,
/// ends as that of another view or table does, or ends like a hash, a hash of it follows.
#[must_use]
pub fn table_name(collection: &str) -> String {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let is_short = (1..=NAME_CHARS_MAX).contains(&collection.len());
    let is_own = collection.chars().all(is_plain) && !collection.ends_with("_deltas");
    if is_short && is_own && !ends_like_a_hash(collection) {
        return format!("{TABLE_PREFIX}{collection}");
    }
    let lower = collection.chars().map(|c| c.to_ascii_lowercase());
    let mapped = lower.map(|c| if is_plain(c) { c } else { '_' });
    let mapped: String = mapped.take(MAPPED_CHARS_MAX).collect();
    let hash = xxh3_64(collection.as_bytes()) & 0xffff_ffff;
    format!("{TABLE_PREFIX}{mapped}_{hash:0HASH_DIGITS$x}")
}

fn ends_like_a_hash(collection: &str) -> bool {
    let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    let last = collection.rsplit_once('_').map(|(_, last)| last);
    last.is_some_and(|last| last.len() == HASH_DIGITS && last.chars().all(is_hex))
}

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
    pub fn push(&mut self, change: Change) {
        self.push_claimed(change, SourceClaims::default());
    }

    /// Adds a change and what its source said around it, which [`Self::anomalies`] compares.
    pub fn push_claimed(&mut self, change: Change, claims: SourceClaims) {
        self.add(ChangeEntry::of(change, claims));
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

    /// The document after all of the changes. None where there is none, or it was deleted.
    #[must_use]
    pub fn document(&self) -> Option<Document> {
        let mut replay = Replay::of(self.base.as_deref());
        for entry in self.ordered() {
            replay.apply(entry);
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
        codec::write(self.base.as_deref(), &self.ordered(), self.is_latest)
    }

    /// What [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    ///
    /// [`DamagedChanges`] for other bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DamagedChanges> {
        let (base, entries, is_latest) = codec::read(bytes).ok_or(DamagedChanges)?;
        let mut changes = Self { is_latest, ..Self::default() };
        if let Some(base) = base {
            changes.rebase(base);
        }
        for entry in entries {
            changes.add(entry);
        }
        Ok(changes)
    }

    fn add(&mut self, mut entry: ChangeEntry) {
        if self.base.as_ref().is_some_and(|base| entry.seq <= base.document.seq) {
            return;
        }
        if self.is_latest {
            entry.drop_claims();
            if self.text_from.is_some_and(|from| entry.seq < from) {
                entry.drop_text();
            } else if entry.is_independent() {
                self.text_from = Some(entry.seq);
            }
        }
        self.text_bytes += entry.text_bytes();
        let is_in_order = self.in_order == self.entries.len()
            && self.entries.last().is_none_or(|last| last.seq < entry.seq);
        let ends_former = self.text_from == Some(entry.seq);
        self.entries.push(entry);
        if ends_former {
            self.drop_former_texts(self.entries.len() - 1);
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

    /// Drops the texts of entries that came before the one at `at`, which does not depend on them: back to
    /// one without a text, as in order all before it have none either, or to a newer one.
    fn drop_former_texts(&mut self, at: usize) {
        let mut dropped = self.base.as_deref_mut().map_or(0, BaseState::drop_text);
        let seq = self.entries[at].seq;
        let former = self.entries[..at].iter_mut().rev();
        for entry in former.take_while(|entry| entry.seq < seq && entry.text.is_some()) {
            dropped += entry.drop_text();
        }
        self.text_bytes = self.text_bytes.saturating_sub(dropped);
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

#[cfg(test)]
mod tests;
