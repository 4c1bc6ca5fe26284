//! The state of a collection's documents from their changes: pure, one key at a time.
//!
//! The order is `seq`, in whatever order changes arrive and however they are grouped. A base holds
//! what the fold of all changes up to a `seq` gave, so base and the changes after it give the same
//! document as all changes do. Who reads changes, and from where, is not known here.

pub mod changes;
mod codec;
mod entry;
pub mod erased_documents;
pub mod followed;
mod json_node;
pub mod merge;
mod patch;
mod replay;
pub mod version;

use icecore_schemas::columns::{
    Column,
    ColumnKind::{self, Long, String as Text, Timestamptz},
    FoundIn,
};
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

#[cfg(test)]
mod tests;
