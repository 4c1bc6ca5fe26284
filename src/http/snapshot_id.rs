//! Ids of snapshots in JSON.
//!
//! An id is a number, and beside it a text: a reader whose numbers are doubles, as JavaScript's are,
//! changes numbers beyond 2^53, which Spark and others give to snapshots. What is sent may be either.

use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};
use serde_json::Value;
use std::fmt;

/// The id of a snapshot, from a number or a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotId(pub i64);

impl<'de> Deserialize<'de> for SnapshotId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reader).map(Self)
    }
}

struct Reader;

impl Visitor<'_> for Reader {
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
        text.parse().map_err(|_| E::custom(format!("`{text}` is no snapshot id")))
    }
}

/// An answer with the id as `snapshot`, and as the text `snapshot_str`; null for none.
#[must_use]
pub fn with_id(mut answer: Value, id: Option<i64>) -> Value {
    answer["snapshot"] = id.into();
    answer["snapshot_str"] = id.map(|id| id.to_string()).into();
    answer
}
