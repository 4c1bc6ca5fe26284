//! Bodies of the routes on erasures.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Whose rows are erased: exactly one member, and `collection` with `key` alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ErasureSubject {
    /// The user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// Who acted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// The user before it was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anonymous_id: Option<String>,
    /// The key of a document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The collection of the key; every one when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collection: Option<String>,
    /// The id of an event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// An erasure to begin.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NewErasure {
    /// Whose rows.
    pub subject: ErasureSubject,
    /// Only counts them.
    #[serde(default)]
    pub dry_run: bool,
}

/// Where an erasure stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ErasureStatus {
    /// It waits until what was acknowledged before it is in tables.
    Log,
    /// Rows are looked for and counted.
    Count,
    /// Files are written anew without them.
    Rewrite,
    /// Snapshots that have them are removed.
    History,
    /// Files that have them are deleted, once running readers have had their time.
    Files,
    /// What is left is looked through.
    Proof,
    /// No live file and no pending record of the log has a row; of a dry run: the rows are counted.
    Done,
    /// It ended, and rows are left: the error says why.
    Failed,
}

impl ErasureStatus {
    /// Every one, in the order in which an erasure passes them.
    pub const ALL: [Self; 8] = [
        Self::Log,
        Self::Count,
        Self::Rewrite,
        Self::History,
        Self::Files,
        Self::Proof,
        Self::Done,
        Self::Failed,
    ];

    /// As JSON has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Count => "count",
            Self::Rewrite => "rewrite",
            Self::History => "history",
            Self::Files => "files",
            Self::Proof => "proof",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    /// Whether nothing more is done.
    #[must_use]
    pub fn is_ended(self) -> bool {
        match self {
            Self::Done | Self::Failed => true,
            Self::Log | Self::Count | Self::Rewrite | Self::History | Self::Files | Self::Proof => {
                false
            }
        }
    }
}

/// What was found of the subject in a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ErasedRows {
    /// Rows, those of branches counted for each file once.
    pub rows: u64,
    /// Data files with such rows.
    pub files: u64,
}

/// What the log still has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ErasureLog {
    /// The last position of the log when the erasure was asked for.
    pub through: u64,
    /// Whether records up to there wait for their tables.
    pub pending: bool,
    /// Records of the namespace up to there whose bytes segments of the log still have, although their
    /// tables have the rows: until these segments are reused or removed.
    pub kept: u64,
}

/// Which rows came no later than the request for an erasure: those up to this `seq`, or up to this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ErasureBound {
    /// The last `seq` of the namespace; null where it is not known, and the time alone decides.
    pub seq: Option<u64>,
    /// The time, ms since 1970.
    pub at_ms: i64,
}

/// An erasure and how far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ErasureReport {
    /// Its id.
    pub erasure: String,
    /// Where it stands.
    pub status: ErasureStatus,
    /// The namespace of the catalog.
    pub namespace: String,
    /// Whose rows.
    pub subject: ErasureSubject,
    /// Whether it only counts.
    pub dry_run: bool,
    /// Since when, RFC 3339.
    pub since: String,
    /// What was found, by table.
    pub tables: BTreeMap<String, ErasedRows>,
    /// Tags that had such rows and were removed, of a dry run those that would be: `table:tag`.
    pub refs: Vec<String>,
    /// Rows of `dead_letters` among them.
    pub dead_letters: u64,
    /// What the log has.
    pub log: ErasureLog,
    /// Up to when rows came that it takes, where it is applied again after a restore; otherwise it takes
    /// all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<ErasureBound>,
    /// What it waits for, and until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<String>,
    /// What it cannot reach, or does not know of.
    pub cannot: Vec<String>,
    /// Why it does not go on, or ended.
    pub error: Option<String>,
}

/// The erasures of a namespace.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ErasureList {
    /// The newest first.
    pub erasures: Vec<ErasureReport>,
}
