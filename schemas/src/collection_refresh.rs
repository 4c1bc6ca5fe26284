//! Parameters and answer of the route that refreshes a collection's table.

use crate::snapshot_id::SnapshotId;
use serde::{Deserialize, Serialize};

/// How a collection's table is refreshed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RefreshParameters {
    /// Whether all documents are made of the events again, whatever the table has.
    #[serde(default)]
    pub full: bool,
    /// The branch whose documents are written, as the branch of the table with its name; `main` when left out.
    #[serde(default)]
    pub branch: Option<String>,
}

/// What a collection's table has after a refresh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RefreshReply {
    /// The collection.
    pub collection: String,
    /// The branch whose documents these are; left out for `main`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// The last event that the table says it has. Later ones have changed nothing of the collection.
    pub applied_seq: u64,
    /// Its snapshot.
    pub snapshot: Option<SnapshotId>,
    /// How many documents it has.
    pub documents: u64,
    /// How many of its buckets were written anew; 0 where nothing changed.
    pub buckets: u64,
    /// How many documents these have.
    pub rows: u64,
}
