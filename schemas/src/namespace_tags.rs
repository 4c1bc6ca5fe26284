//! Bodies of the routes on tags of a namespace: one name for a snapshot of each of its tables.

use crate::snapshot_id::SnapshotIds;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A tag that a namespace gets.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NewNamespaceTag {
    /// Its name: 1 to 64 letters, digits, `.`, `_` and `-`, and nothing that is read as a point of another kind.
    pub name: String,
    /// The point that it names, such as `seq:17`; everything that is acknowledged when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Value>,
    /// How long it stays, milliseconds; until it is dropped when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retain_ms: Option<u64>,
}

/// The tags of a namespace.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NamespaceTagList {
    /// In the order of their names.
    pub tags: Vec<NamespaceTag>,
}

/// A tag of a namespace.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NamespaceTag {
    /// Its name.
    pub name: String,
    /// The last event that `events` has at the tag; null where `events` does not have the tag.
    pub seq: Option<u64>,
    /// The tables that have it.
    pub tables: Vec<TableTag>,
    /// Of a tag that was just set: the tables that do not have it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOutTable>,
}

/// A table with a tag.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TableTag {
    /// Its name.
    pub table: String,
    /// What the tag names.
    #[serde(flatten)]
    pub snapshot: SnapshotIds,
}

/// A table that a tag was not set on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LeftOutTable {
    /// Its name.
    pub table: String,
    /// Why.
    pub reason: String,
}

/// A tag of a namespace was dropped.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NamespaceTagDropped {
    /// Its name.
    pub name: String,
    /// The tables that had it.
    pub tables: Vec<String>,
}
