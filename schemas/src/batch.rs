//! The parameters of `POST /ingest` and its reply.

use crate::error_code::ErrorCode;
use serde::{Deserialize, Serialize};

/// How a batch is taken.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct IngestParameters {
    /// What the reply waits for.
    #[serde(default)]
    pub ack: Ack,
    /// All events or none.
    #[serde(default)]
    pub atomic: bool,
    /// Lift the bounds on how old, and how far in the future, an event's time may be.
    #[serde(default)]
    pub backfill: bool,
    /// The branch that the events go to, all or none; `main` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
}

/// What a reply waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Ack {
    /// The log.
    #[default]
    Durable,
    /// An Iceberg snapshot.
    Committed,
}

/// What Azure's Event Grid is answered that asks whether an address is its owner's.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct GridValidation {
    /// What it sent.
    pub validation_response: String,
}

/// What became of a batch. Status 200 when every event was taken, 207 when some were not, 400
/// when none was.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct IngestReply {
    /// Whether every event was taken.
    pub ok: bool,
    /// Events in the request.
    pub received: u64,
    /// Events that were there before: taken, once.
    pub duplicates: u64,
    /// The namespace of the events; of the first event when there are several.
    pub namespace: String,
    /// First and last `seq` the batch's events have in that namespace, repeats included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<SeqRange>,
    /// The same for each further namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<NamespaceRange>,
    /// One entry for each event that was not taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<EventError>,
    /// With `ack=committed`: the snapshot that holds the events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<i64>,
}

/// First and last `seq`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SeqRange {
    /// The lowest.
    pub first: u64,
    /// The highest.
    pub last: u64,
}

/// The `seq` range of one namespace of a mixed batch.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NamespaceRange {
    /// The namespace.
    pub namespace: String,
    /// Its range.
    pub seq: SeqRange,
}

/// One event that was not taken.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct EventError {
    /// Its place in the request, from 0.
    pub index: u64,
    /// Its id, where it could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Rejected (broken) or conflict (same id, other content; or another version than was expected).
    pub status: EventStatus,
    /// Why.
    pub code: ErrorCode,
    /// With `VERSION_MISMATCH`: the version that the document has, 0 where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actual: Option<u64>,
    /// Why, and what to change.
    pub reason: String,
    /// Id of the row in `dead_letters` that keeps it whole; none for a batch that was atomic, and for a version that
    /// is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_letter: Option<String>,
}

/// How an event was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum EventStatus {
    /// It is broken.
    Rejected,
    /// Its id belongs to an event with other content, or its document has another version than it expects.
    Conflict,
}
