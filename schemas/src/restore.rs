//! Bodies of the routes that write documents by their keys and put collections back to an earlier state.

use crate::{
    batch::{Ack, IngestReply, SeqRange},
    query::QueryBasis,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How a document is written.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DocumentParameters {
    /// Write only if this is the document's version now; 0 for one that is not there.
    pub expected_version: Option<u64>,
    /// What the reply waits for.
    #[serde(default)]
    pub ack: Ack,
    /// The branch that it is written to; `main` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
}

/// What became of a document that was written by its key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DocumentWritten {
    /// The acknowledgement of the event.
    #[serde(flatten)]
    pub receipt: IngestReply,
    /// The document's version after it.
    pub version: u64,
    /// The event's id, which a repeat of the request has too.
    pub event_id: String,
    /// The state that the event left, which the point `seq:` with its `seq` names; none where the event is gone. It names
    /// no tables. Answers of older servers have no basis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basis: Option<QueryBasis>,
}

/// Where a collection is put back to.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CollectionRestore {
    /// The point: `seq:17`, `bookmark:…`, `time:2026-11-20T12:00:00Z`, `snapshot:…`, `tag:…`, `branch:…`.
    #[cfg_attr(test, schemars(extend("type" = ["integer", "string"])))]
    pub at: Value,
    /// Another collection, without documents, that gets the state; none for the collection itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub into: Option<String>,
    /// Only count, and show some of the changes.
    #[serde(default)]
    pub dry_run: bool,
}

/// Where all collections of a namespace are put back to.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NamespaceRestore {
    /// The point, written as for one collection.
    #[cfg_attr(test, schemars(extend("type" = ["integer", "string"])))]
    pub at: Value,
    /// Only count, and show some of the changes.
    #[serde(default)]
    pub dry_run: bool,
}

/// What a restore did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RestoreReport {
    /// Names the restore; its events have it in `meta.restore_of`. None for a dry run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<String>,
    /// The state that was put back.
    pub restored_to: RestoredPoint,
    /// The moment before the restore, as a point for another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo_bookmark: Option<String>,
    /// Documents that are there again.
    pub inserted: u64,
    /// Documents with their earlier text.
    pub updated: u64,
    /// Documents that are gone again.
    pub deleted: u64,
    /// Documents that were as they had been.
    pub unchanged: u64,
    /// Documents that somebody wrote while a restore of several batches went on: they stay as they were written.
    #[serde(default)]
    pub written_meanwhile: u64,
    /// The first of those, at most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<LeftDocument>,
    /// Documents of the restore that somebody wrote right before their batch was appended, behind the look for such
    /// writes: these writes are in their history, and were taken back. A repeat tells those of the batches before the
    /// last one.
    #[serde(default)]
    pub overwritten: u64,
    /// The first of those, at most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overwritten_documents: Vec<LeftDocument>,
    /// The counts of each collection, where there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub collections: Vec<CollectionCounts>,
    /// Atomic batches that its events were appended in: 1 unless it was too large for one.
    pub batches: u64,
    /// First and last `seq` of its events, of which the last one tells of it; none for a dry run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<SeqRange>,
    /// The tag of `events` at the state before it; none where it could not be set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Whether nothing was changed.
    #[serde(default)]
    pub dry_run: bool,
    /// Some of the changes of a dry run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sample: Vec<SampleChange>,
    /// What was compared; its `seq` is the last event that counted. It names at most 100 tables, and none of more.
    /// Reports of older servers have no basis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basis: Option<QueryBasis>,
}

/// A document that somebody wrote while a restore or a merge went on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LeftDocument {
    /// The collection.
    pub collection: String,
    /// The document's key.
    pub key: String,
}

/// A point of the history as a restore found it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RestoredPoint {
    /// The last event of the state.
    pub seq: u64,
    /// When that event arrived, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ts: Option<String>,
    /// The snapshot that the point is, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<i64>,
}

/// What a restore does to one collection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CollectionCounts {
    /// Its name.
    pub name: String,
    /// Documents that are there again.
    pub inserted: u64,
    /// Documents with their earlier text.
    pub updated: u64,
    /// Documents that are gone again.
    pub deleted: u64,
    /// Documents that were as they had been.
    pub unchanged: u64,
}

/// One change that a restore would make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SampleChange {
    /// The collection.
    pub collection: String,
    /// The document's key.
    pub key: String,
    /// `inserted`, `updated` or `deleted`.
    pub change: String,
    /// The document as it is.
    pub before: Value,
    /// The document as it would be.
    pub after: Value,
}
