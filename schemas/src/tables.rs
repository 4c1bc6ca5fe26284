//! Bodies of the routes on namespaces and tables: lists, commits, and what operators do to a table.

use crate::snapshot_id::{SnapshotId, SnapshotIds};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The namespaces that the caller may see.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NamespaceList {
    /// In the order of their levels.
    pub namespaces: Vec<NamespaceEntry>,
}

/// A namespace of the catalog.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NamespaceEntry {
    /// Its name in the catalog, levels apart by dots.
    pub name: String,
    /// Its levels.
    pub levels: Vec<String>,
    /// As its events name it; null for a namespace without events.
    pub ns: Option<String>,
}

/// The tables of a namespace.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TableList {
    /// In the order of their names.
    pub tables: Vec<TableEntry>,
}

/// A table of a namespace.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TableEntry {
    /// Its name.
    pub name: String,
    /// What is known of it.
    #[serde(flatten)]
    pub state: TableState,
}

/// What is known of a table.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum TableState {
    /// Its current state.
    Read(TableSummary),
    /// Its metadata cannot be read.
    Unreadable {
        /// Why.
        error: String,
    },
    /// Its first rows are on their way from the log.
    Waiting {
        /// Always 0.
        snapshots: u64,
        /// There is none yet.
        #[serde(flatten)]
        snapshot: SnapshotIds,
    },
}

/// The current state of a table.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TableSummary {
    /// Rows; null where its snapshot does not say, as below.
    pub records: Option<u64>,
    /// Data files.
    pub files: Option<u64>,
    /// Bytes of the data files.
    pub bytes: Option<u64>,
    /// Retained snapshots.
    pub snapshots: u64,
    /// The last `seq` in it; null for a table that the service does not write.
    pub last_seq: Option<u64>,
    /// Where its files are.
    pub location: String,
    /// The current snapshot.
    #[serde(flatten)]
    pub snapshot: SnapshotIds,
}

/// Which snapshots are listed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SnapshotPage {
    /// How many of the newest; 100 when left out.
    #[cfg_attr(test, schemars(range(min = 1, max = 10_000)))]
    pub limit: Option<usize>,
}

/// Retained snapshots of a table, the newest first.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SnapshotList {
    /// The newest.
    pub snapshots: Vec<SnapshotEntry>,
    /// How many there are.
    pub total: u64,
}

/// A snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SnapshotEntry {
    /// When it was made, milliseconds since 1970.
    pub timestamp_ms: i64,
    /// append, replace, overwrite or delete.
    pub operation: String,
    /// Rows that it added; null where it does not say, as below.
    pub added_records: Option<u64>,
    /// Rows of the table.
    pub total_records: Option<u64>,
    /// The lowest `seq` that it added.
    pub first_seq: Option<u64>,
    /// The highest `seq` that it added.
    pub last_seq: Option<u64>,
    /// Its id.
    #[serde(flatten)]
    pub snapshot: SnapshotIds,
}

/// What holds everything that was acknowledged before the call.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CommitReply {
    /// The last `seq` in a snapshot.
    pub seq: Option<u64>,
    /// The snapshot of each table that had something to commit, or was committed before.
    pub snapshots: BTreeMap<String, i64>,
}

/// How much was committed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CommitAllReply {
    /// Namespaces that had something to commit.
    pub namespaces: u64,
}

/// How a table is: its current snapshot's files, and its history.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TableStats {
    /// Data files.
    pub data_files: u64,
    /// Bytes of the data files.
    pub data_bytes: u64,
    /// Rows of the data files, deleted ones included.
    pub data_rows: u64,
    /// Data files below 32 MiB.
    pub small_files: u64,
    /// Files that delete rows of others.
    pub delete_files: u64,
    /// Entries of those files.
    pub delete_rows: u64,
    /// Manifests of the current snapshot.
    pub manifests: u64,
    /// Retained snapshots.
    pub snapshots: u64,
    /// Bytes of the metadata file.
    pub metadata_bytes: u64,
    /// When the table last changed, milliseconds since 1970.
    pub last_updated_ms: i64,
    /// How long ago that was, milliseconds.
    pub age_ms: i64,
    /// Whether dropping and renaming are refused.
    pub is_protected: bool,
}

/// Whether a table can be dropped and renamed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Protection {
    /// Whether both are refused.
    pub protected: bool,
}

/// Where a table is to be.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NewTableName {
    /// The namespace.
    pub ns: Option<String>,
    /// The name in it.
    pub name: Option<String>,
}

/// The table by its new name.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TableName {
    /// Namespace and name, apart by dots.
    pub table: String,
}

/// Where a table goes back to: exactly one of these.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// To this snapshot.
    pub snapshot: Option<SnapshotId>,
    /// To the snapshot that was current at this RFC 3339 time.
    pub time: Option<String>,
}

/// How a table is dropped.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DropTable {
    /// Whether its files are deleted after `catalog.undrop_window`, if `catalog.purge` is on.
    #[serde(default)]
    pub purge: bool,
}

/// A table that was dropped.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TableDropped {
    /// Always true.
    pub dropped: bool,
    /// What undrop takes.
    pub uuid: String,
}

/// The branches and tags of a table.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RefList {
    /// In the order of their names.
    pub refs: Vec<RefEntry>,
}

/// A branch or tag.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RefEntry {
    /// Its name.
    pub name: String,
    /// Which of the two it is.
    #[serde(rename = "type")]
    pub kind: RefKind,
    /// Where it is.
    #[serde(flatten)]
    pub snapshot: SnapshotIds,
}

/// What a name of a snapshot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum RefKind {
    /// It moves with commits to it.
    Branch,
    /// It stays at its snapshot.
    Tag,
}

impl RefKind {
    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Branch => "branch",
            Self::Tag => "tag",
        }
    }
}

/// A new branch or tag.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NewRef {
    /// Its name.
    pub name: String,
    /// Which of the two it is.
    #[serde(rename = "type")]
    pub kind: RefKind,
    /// Where it is; at the current snapshot when left out.
    pub snapshot: Option<SnapshotId>,
}

/// Where a branch or tag is now.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RefReply {
    /// Its name.
    pub name: String,
    /// Where it is.
    #[serde(flatten)]
    pub snapshot: SnapshotIds,
}

/// Where a branch goes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FastForward {
    /// To the snapshot of this branch or tag.
    pub to: String,
}

/// What is dropped.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DropRef {
    /// Refuse to drop one of the other kind.
    #[serde(rename = "type")]
    pub kind: Option<RefKind>,
}

/// That a branch or tag was dropped.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RefDropped {
    /// Always true.
    pub dropped: bool,
}

/// The tables that can be neither dropped nor renamed, at most 10 000.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ProtectedList {
    /// In the order of their names.
    pub protected: Vec<ProtectedTable>,
}

/// A protected table.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ProtectedTable {
    /// Its namespace, levels apart by dots.
    pub namespace: String,
    /// The levels of its namespace.
    pub levels: Vec<String>,
    /// Its name.
    pub name: String,
}

/// The dropped tables that undrop can put back, the last dropped first, at most 10 000.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DroppedList {
    /// The tables.
    pub dropped: Vec<DroppedTable>,
    /// Files of all tables that wait to be deleted.
    pub queued_files: u64,
}

/// A dropped table.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DroppedTable {
    /// What undrop takes.
    pub uuid: String,
    /// The namespace it was in, levels apart by dots.
    pub namespace: String,
    /// The levels of that namespace.
    pub levels: Vec<String>,
    /// The name it had.
    pub name: String,
    /// When it was dropped, milliseconds since 1970.
    pub dropped_ms: i64,
    /// Until when it can be put back, milliseconds since 1970.
    pub until_ms: i64,
    /// Whether its files are deleted then.
    pub purge: bool,
    /// Whether they are being deleted.
    pub purging: bool,
}

/// That the files of a dropped table are queued for deletion.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TablePurging {
    /// Always true.
    pub purging: bool,
}
