//! The request of `POST /v1/{ns}/sql`.

use crate::snapshot_id::SnapshotId;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// A request that sends this header as `trailer`, and `TE: trailers`, gets a trailer of that name
/// which says how the query ended: `ok`, or an error body in percent-encoding.
pub const OUTCOME_HEADER: &str = "x-icecore-outcome";

/// The header of an answer with its [`QueryBasis`], where its format has no member for it.
pub const BASIS_HEADER: &str = "x-icecore-basis";

/// What an answer was made of. A request that sends it back as `basis` is answered the same again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct QueryBasis {
    /// The last event that it has of the query's namespace, where it is of tables with a `seq`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// The branch whose event that is; left out for `main`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// The snapshots of its tables; null where a table had none yet. A table with a version in the statement is
    /// here by its name and that version.
    pub snapshots: BTreeMap<String, Option<SnapshotId>>,
    /// What it has of other namespaces, by their names as the statement writes them: `seq` counts in each.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub namespaces: BTreeMap<String, NamespaceBasis>,
    /// What `now()` was.
    pub clock: String,
    /// Tables of which retention removed events that the answer would have. It is told anew with each answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inexact: Vec<String>,
}

impl QueryBasis {
    /// Adds the tables of another statement of the same answer.
    pub fn add(&mut self, other: Self) {
        self.snapshots.extend(other.snapshots);
        self.namespaces.extend(other.namespaces);
        for table in other.inexact {
            if !self.inexact.contains(&table) {
                self.inexact.push(table);
            }
        }
    }
}

/// What an answer was made of in a namespace that is not the query's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NamespaceBasis {
    /// The last event that it has of the namespace, where it is of tables with a `seq`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// The branch whose event that is; left out for `main`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// The snapshots of its tables, as for the query's own namespace.
    pub snapshots: BTreeMap<String, Option<SnapshotId>>,
}

/// One SQL query.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SqlRequest {
    /// The statement, at most 64 KiB.
    pub sql: String,
    /// A snapshot id, tag, branch or RFC 3339 time: what was committed then, nothing newer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(extend("type" = ["integer", "string"])))]
    pub as_of: Option<serde_json::Value>,
    /// The `basis` of an earlier answer: the same state of the same tables, and the same clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basis: Option<QueryBasis>,
    /// Answer only from a state that includes this `seq`. It is waited for, at most 5 s and as long as the
    /// query may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_seq: Option<u64>,
    /// Values for `$1`, `$2`, … in order.
    #[serde(default, deserialize_with = "none_or_list", skip_serializing_if = "Vec::is_empty")]
    pub params: Vec<serde_json::Value>,
    /// Most rows of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Milliseconds the query may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// `null` is no list, as it is no number in the other members.
fn none_or_list<'de, D: Deserializer<'de>>(value: D) -> Result<Vec<serde_json::Value>, D::Error> {
    Option::deserialize(value).map(Option::unwrap_or_default)
}
