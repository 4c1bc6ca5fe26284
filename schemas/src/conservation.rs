//! Whether every acknowledged row is there, once: the answer of `POST /v1/{ns}/audit/events`.

use crate::snapshot_id::SnapshotIds;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What an audit of the rows of a namespace found.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EventsAudit {
    /// Whether all tables agree.
    pub agrees: bool,
    /// The tables whose rows have a `seq`, by their names.
    pub tables: BTreeMap<String, TableAudit>,
}

/// What was found of a table: acked + foreign − removed = log + table.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TableAudit {
    /// Rows that were acknowledged, and those that the table had before sums were kept.
    pub acked: RowTotal,
    /// Rows of the log that are not in the table yet.
    pub log: RowTotal,
    /// Rows of the current snapshot, as they were read.
    pub table: RowTotal,
    /// Rows that it should have, by what its commits say.
    pub expected: RowTotal,
    /// Rows that other engines added. One that they wrote anew is also among those removed.
    pub foreign: RowTotal,
    /// Rows that were removed by other engines, retention or erasure.
    pub removed: RowTotal,
    /// Whether they agree.
    pub agrees: bool,
    /// Whether the sums begin with this audit, since nothing retained tells of the rows before it.
    pub begins: bool,
    /// How many snapshots were read whole.
    pub checked_snapshots: u64,
    /// The oldest retained snapshot whose rows are not those of its commits; nulls where all are.
    pub parts_at: SnapshotIds,
    /// Why the table could not be read; the numbers are zero then.
    pub error: Option<String>,
}

/// How many rows, and the sum of their hashes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RowTotal {
    /// How many rows.
    pub rows: i64,
    /// The sum of their hashes modulo 2^128, as 32 hexadecimal digits.
    pub sum: String,
}

impl Default for RowTotal {
    fn default() -> Self {
        Self { rows: 0, sum: "0".repeat(32) }
    }
}
