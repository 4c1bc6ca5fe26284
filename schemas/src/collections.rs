//! Parameters and answers of the routes that read collections: their documents at any point, the versions of one,
//! what is different between two points, and the events between them.
//!
//! A document is passed on as the JSON text that it is, so its numbers are those of its sender. One that is not JSON
//! is a text.

use crate::query::QueryBasis;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// Which point is read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PointParameters {
    /// The point: `seq:17`, `bookmark:…`, `time:2026-11-20T12:00:00Z`, `snapshot:…`, `tag:…`, `branch:trial`,
    /// `before:…` with the `batchId` or x-correlation-id of a request, or `~1` for the version before the newest.
    /// What is acknowledged when left out.
    pub at: Option<String>,
    /// What a time is of: `commit`, when events were acknowledged, or `event`, their `ts`. `commit` when left out.
    #[serde(default)]
    pub basis: TimeBasis,
    /// The branch whose events the point is of; `main` when left out. Without a point it is the head of the branch.
    pub branch: Option<String>,
}

/// What a time is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum TimeBasis {
    /// When events were acknowledged.
    #[default]
    Commit,
    /// When they happened, as their `ts` says: before the first one that is later.
    Event,
}

/// Which documents of a collection are listed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DocumentPage {
    /// The point, as for one document, without `~1`.
    pub at: Option<String>,
    /// What a time is of: `commit` or `event`.
    #[serde(default)]
    pub basis: TimeBasis,
    /// Only keys behind this one, which an earlier page gave as `next`.
    pub after: Option<String>,
    /// Most of a page; 100 when left out.
    #[cfg_attr(test, schemars(range(min = 1, max = 1000)))]
    pub limit: Option<usize>,
    /// The branch whose events the point is of; `main` when left out.
    pub branch: Option<String>,
}

/// Which collections are listed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CollectionPage {
    /// Only names behind this one, which an earlier page gave as `next`.
    pub after: Option<String>,
    /// Most of a page; 50 when left out.
    #[cfg_attr(test, schemars(range(min = 1, max = 200)))]
    pub limit: Option<usize>,
    /// The branch whose documents are counted; `main` when left out.
    pub branch: Option<String>,
}

/// Of which branch a collection is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CollectionParameters {
    /// The branch whose documents are counted; `main` when left out.
    pub branch: Option<String>,
}

/// Which versions of a document are listed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HistoryPage {
    /// Only those before the version with this `seq`, which an earlier page gave as `next`.
    pub after: Option<u64>,
    /// Most of a page; 50 when left out.
    #[cfg_attr(test, schemars(range(min = 1, max = 500)))]
    pub limit: Option<usize>,
    /// The branch; `main` when left out.
    pub branch: Option<String>,
}

/// Which documents' changes are looked at for anomalies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AnomalyPage {
    /// Only keys behind this one, which an earlier page gave as `next`.
    pub after: Option<String>,
    /// Most documents that a page looks at; 100 when left out.
    #[cfg_attr(test, schemars(range(min = 1, max = 1000)))]
    pub limit: Option<usize>,
}

/// Which points of a collection are compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DiffParameters {
    /// The earlier point, as `at`.
    pub from: String,
    /// The other one; what is acknowledged when left out.
    pub to: Option<String>,
    /// What a time is of: `commit` or `event`.
    #[serde(default)]
    pub basis: TimeBasis,
    /// Only keys behind this one, which an earlier page gave as `next`.
    pub after: Option<String>,
    /// Most of a page; 100 when left out.
    #[cfg_attr(test, schemars(range(min = 1, max = 1000)))]
    pub limit: Option<usize>,
    /// The branch whose events both points are of, but for those that name one; `main` when left out.
    pub branch: Option<String>,
}

/// Which events are listed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct EventPage {
    /// Only those with a `seq` behind this one.
    pub after_seq: Option<u64>,
    /// Only those up to this `seq`.
    pub until_seq: Option<u64>,
    /// Only those behind the last event with this bookmark.
    pub after_bookmark: Option<String>,
    /// Only those up to the last event with this bookmark.
    pub until_bookmark: Option<String>,
    /// Only those of this type.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Only those whose `ts` is before this time, RFC 3339.
    pub before: Option<String>,
    /// Only those whose `ts` is at or after this time, RFC 3339.
    pub after: Option<String>,
    /// `desc`, the newest first, or `asc`. When left out it is `asc` with `after_seq` or `after_bookmark`, else
    /// `desc`.
    pub order: Option<EventOrder>,
    /// Most of an answer. When left out it is 100, and JSON lines have no limit. A page of JSON has 10 000 at most.
    #[cfg_attr(test, schemars(range(min = 1)))]
    pub limit: Option<usize>,
    /// The branch; `main` when left out.
    pub branch: Option<String>,
}

impl EventPage {
    /// The order that is asked for: who follows the log goes forward.
    #[must_use]
    pub fn order(&self) -> EventOrder {
        let follows = self.after_seq.is_some() || self.after_bookmark.is_some();
        let usual = if follows { EventOrder::Asc } else { EventOrder::Desc };
        self.order.unwrap_or(usual)
    }
}

/// In which order events are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum EventOrder {
    /// By `seq`, the oldest first.
    Asc,
    /// The newest first.
    Desc,
}

/// Which version of a thing is read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ThingParameters {
    /// A `seq`, or a time.
    pub v: Option<String>,
    /// The branch whose events that is of; `main` when left out.
    pub branch: Option<String>,
}

/// A point to resolve.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PointRequest {
    /// The point, as the parameter `at` of a document.
    pub at: String,
    /// What a time is of.
    #[serde(default)]
    pub basis: TimeBasis,
    /// The branch whose events the point is of; `main` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
}

/// What a point stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ResolvedPoint {
    /// The last event that counts; 0 where none does.
    pub seq: u64,
    /// The snapshot of `events` that the point names, where it names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<i64>,
    /// When that event was acknowledged, RFC 3339; null where it is not known.
    pub ts: Option<String>,
    /// What the answer was made of.
    pub basis: QueryBasis,
}

/// A collection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CollectionEntry {
    /// Its name, as its events have it.
    pub name: String,
    /// How many documents it has.
    pub documents: u64,
    /// How many keys were deleted and not created again, as far as events tell.
    pub deleted: u64,
    /// Bytes of its documents.
    pub bytes: u64,
    /// Its last change; 0 where no change is left.
    pub last_seq: u64,
    /// The last event that its table `cdc_…` has; null without one, and on a branch.
    pub applied_seq: Option<u64>,
    /// For how long the oldest change waits that the table does not have, milliseconds; null without a table.
    pub lag_ms: Option<u64>,
    /// How many values of its documents do not fit the columns of its schema; left out without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub misfits: Option<u64>,
}

/// One collection, and what the answer was made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CollectionReply {
    /// The collection.
    #[serde(flatten)]
    pub entry: CollectionEntry,
    /// What the numbers were made of; its `seq` is the last event that they count.
    pub basis: QueryBasis,
}

/// The collections of a namespace, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CollectionList {
    /// A page of them.
    pub collections: Vec<CollectionEntry>,
    /// What the next page comes after, while there may be more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// What the numbers were made of; its `seq` is the last event that they count.
    pub basis: QueryBasis,
}

/// A document at a point.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DocumentEntry {
    /// Its key.
    pub key: String,
    /// The document.
    #[cfg_attr(test, schemars(with = "serde_json::Value"))]
    pub doc: Box<RawValue>,
    /// What its last change was: c, u or r.
    pub op: Option<String>,
    /// 1 as it was created, one more with each change since.
    pub version: u64,
    /// Its last change.
    pub seq: u64,
    /// The bookmark of that change.
    pub bookmark: Option<String>,
    /// When it was created, RFC 3339.
    pub created_at: Option<String>,
    /// When it changed last, RFC 3339.
    pub updated_at: Option<String>,
    /// Who changed it last.
    pub actor: Option<String>,
    /// The event of that change.
    pub event_id: Option<String>,
}

/// One document, and what the answer was made of.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DocumentReply {
    /// Its collection.
    pub collection: String,
    /// Its key.
    pub key: String,
    /// The document.
    #[cfg_attr(test, schemars(with = "serde_json::Value"))]
    pub doc: Box<RawValue>,
    /// What its last change was: c, u or r.
    pub op: Option<String>,
    /// 1 as it was created, one more with each change since.
    pub version: u64,
    /// Its last change.
    pub seq: u64,
    /// The bookmark of that change.
    pub bookmark: Option<String>,
    /// When it was created, RFC 3339; null where only a version of its history was read.
    pub created_at: Option<String>,
    /// When it changed last, RFC 3339.
    pub updated_at: Option<String>,
    /// Who changed it last.
    pub actor: Option<String>,
    /// The event of that change.
    pub event_id: Option<String>,
    /// What the answer was made of: `at=seq:` with its `seq`, and `branch=` where it has one, repeats it.
    pub basis: QueryBasis,
}

/// Documents of a collection, in the order of their keys.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DocumentList {
    /// A page of them.
    pub docs: Vec<DocumentEntry>,
    /// What the next page comes after, while there may be more. Read it with `at=seq:` and the `seq` of the basis,
    /// and with `branch=` where the basis has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// What the answer was made of.
    pub basis: QueryBasis,
}

/// A version of a document.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct VersionEntry {
    /// 1 as it was created, one more with each change since, and one more for its deletion.
    pub version: u64,
    /// The change that made it.
    pub seq: u64,
    /// c, u, d or r.
    pub op: Option<String>,
    /// The document; null where it was deleted.
    #[cfg_attr(test, schemars(with = "serde_json::Value"))]
    pub doc: Option<Box<RawValue>>,
    /// The document before; null where there was none.
    #[cfg_attr(test, schemars(with = "serde_json::Value"))]
    pub prev: Option<Box<RawValue>>,
    /// A merge patch (RFC 7396) that makes `doc` of `prev`, where both are objects and there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "serde_json::Value"))]
    pub patch: Option<Box<RawValue>>,
    /// When it happened, RFC 3339.
    pub ts: Option<String>,
    /// The bookmark of the change.
    pub bookmark: Option<String>,
    /// Who changed it.
    pub actor: Option<String>,
    /// The event of the change.
    pub event_id: Option<String>,
}

/// Versions of a document, the newest first.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DocumentHistory {
    /// A page of them.
    pub history: Vec<VersionEntry>,
    /// What the next page comes after, while there may be more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
    /// What the answer was made of.
    pub basis: QueryBasis,
}

/// Something about a change that its sender should know. None of them loses a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AnomalyEntry {
    /// The document's key.
    pub key: String,
    /// The change.
    pub seq: u64,
    /// `prev_mismatch`, `lsn_went_back`, `version_went_back`, `stale_read`, `no_image` or `patch_not_applied`.
    pub kind: String,
    /// Why, for a patch that was not applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Anomalies among the changes of a collection since it was emptied last, in the order of keys and changes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AnomalyList {
    /// Those of the documents that the page looked at; there may be none.
    pub anomalies: Vec<AnomalyEntry>,
    /// What the next page comes after, while there may be more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// What the answer was made of.
    pub basis: QueryBasis,
}

/// How a document is different.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum DocumentChange {
    /// It is there at the later point alone.
    Added,
    /// It is another text.
    Changed,
    /// It is there at the earlier point alone.
    Removed,
}

/// A document that is different at two points.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DiffEntry {
    /// Its key.
    pub key: String,
    /// How it is different.
    pub change: DocumentChange,
    /// The document at the earlier point; null where there was none.
    #[cfg_attr(test, schemars(with = "serde_json::Value"))]
    pub before: Option<Box<RawValue>>,
    /// The document at the later point; null where there is none.
    #[cfg_attr(test, schemars(with = "serde_json::Value"))]
    pub after: Option<Box<RawValue>>,
}

/// What is different in a collection at two points.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CollectionDiff {
    /// The last event of the earlier point.
    pub from_seq: u64,
    /// The last event of the later point.
    pub to_seq: u64,
    /// Documents that are there at the later point alone, on all pages.
    pub added: u64,
    /// Documents with another text.
    pub changed: u64,
    /// Documents that are there at the earlier point alone.
    pub removed: u64,
    /// A page of them, in the order of their keys.
    pub docs: Vec<DiffEntry>,
    /// What the next page comes after, while there may be more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// What the answer was made of; its `seq` is that of the later point.
    pub basis: QueryBasis,
}

/// An event by its columns. Those without a value are left out; those with JSON text are that JSON.
pub type EventColumns = BTreeMap<String, Box<RawValue>>;

/// Events of a namespace.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EventList {
    /// A page of them.
    #[cfg_attr(test, schemars(with = "Vec<serde_json::Map<String, serde_json::Value>>"))]
    pub events: Vec<EventColumns>,
    /// While there may be more: what to send next as `after_seq`, or, newest first, as `until_seq`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
    /// What the answer was made of: `until_seq` with its `seq`, and `branch=` where it has one, repeats it.
    pub basis: QueryBasis,
}
