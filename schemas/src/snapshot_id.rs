//! Ids of snapshots in JSON.
//!
//! An id is a number, and beside it a text: a reader whose numbers are doubles, as JavaScript's are,
//! changes numbers beyond 2^53, which Spark and others give to snapshots. What is sent may be either.

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, Visitor},
};
use std::fmt;

/// The id of a snapshot in a request, as a number or a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(extend("type" = ["integer", "string"])))]
pub struct SnapshotId(pub i64);

impl<'de> Deserialize<'de> for SnapshotId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(IdVisitor).map(Self)
    }
}

struct IdVisitor;

impl Visitor<'_> for IdVisitor {
    type Value = i64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a snapshot id as a number or a text")
    }

    fn visit_i64<E: Error>(self, id: i64) -> Result<i64, E> {
        Ok(id)
    }

    fn visit_u64<E: Error>(self, id: u64) -> Result<i64, E> {
        i64::try_from(id).map_err(|_| E::custom("a snapshot id has at most 63 bits"))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<i64, E> {
        text.parse().map_err(|_| E::custom(format!("`{text}` is not a snapshot id")))
    }
}

/// The id of a snapshot in an answer; null where there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SnapshotIds {
    /// The snapshot's id.
    pub snapshot: Option<i64>,
    /// The same as a text, for readers whose numbers are doubles.
    pub snapshot_str: Option<String>,
}

impl From<Option<i64>> for SnapshotIds {
    fn from(snapshot: Option<i64>) -> Self {
        Self { snapshot, snapshot_str: snapshot.map(|id| id.to_string()) }
    }
}

impl From<i64> for SnapshotIds {
    fn from(snapshot: i64) -> Self {
        Some(snapshot).into()
    }
}
