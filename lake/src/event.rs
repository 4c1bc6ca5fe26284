//! Events as values: from a request body to typed rows. Pure: no IO, no clock, no state.
//!
//! One parse: body bytes go straight into Arrow builders; `before`, `after`, `data` and the whole
//! event keep their JSON text byte for byte. An event is accepted whole or refused whole.

mod avro;
mod bits;
pub mod bookmark;
mod build;
pub mod cloud;
pub mod codec;
pub mod dead_letter;
pub mod decode;
pub(crate) mod digest;
#[cfg(test)]
mod fuzz;
pub mod json;
pub mod left_out;
mod names;
mod normalize;
#[cfg(test)]
mod odd;
mod redact;
pub mod rows;
pub mod same;
pub mod subject;
mod time;
pub mod webhook;

use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use decode::take::with_shared;
use icecore_schemas::{columns::Column, error_code::ErrorCode, names::Namespace};
use std::{borrow::Cow, collections::HashMap, ops::Range, sync::Arc};
use xxhash_rust::xxh3::xxh3_128;

/// Limits that a body and its events must keep.
#[derive(Clone, Debug)]
pub struct EventLimits {
    /// Largest event, in bytes of its JSON text. Default 1 MiB.
    pub event_bytes_max: usize,
    /// Most events in a body. Default 10 000.
    pub batch_events_max: usize,
    /// Deepest JSON nesting. Default 64.
    pub depth_max: usize,
    /// How far `ts` may lie before the arrival; none lifts both bounds. Default 7 days.
    pub ts_past_us: Option<i64>,
    /// How far `ts` may lie after the arrival. Default 1 hour.
    pub ts_future_us: i64,
    /// Whether credentials in what Tail Workers send are taken out. Default yes.
    pub redact: bool,
    /// The columns that members may fill: the first of `icecore_schemas::columns::KNOWN_EVENTS`.
    pub columns: &'static [Column],
    /// Whether events that begin or complete a merge are taken, which are known by their ids: later merges believe
    /// them, so the service alone may send them.
    pub takes_merge_ids: bool,
}

/// What the ids of the events of a merge of branches begin with; behind it are 16 hexadecimal digits and a hyphen.
pub const MERGE_ID: &str = "merge-";
/// What the id of the one that begins a merge ends with.
pub const MERGE_BEGUN: &str = "-begun";
/// What the id of the one that completes a merge ends with.
pub const MERGE_COMPLETED: &str = "-completed";

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFormat {
    /// `{"events":[…],"batchId"?}`, an array of events, one event, or several of these in a row.
    Json,
    /// One event a line, or several.
    Ndjson,
    /// JSON texts one after another, each of any number of lines (RFC 7464 and looser forms).
    JsonSequence,
    /// One CloudEvents 1.0 event, structured mode.
    CloudEvent,
    /// An array of CloudEvents.
    CloudEventBatch,
    /// An Avro object container file.
    Avro,
}

/// A body that cannot be taken apart into events; nothing of it is accepted.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct BodyError {
    /// What is wrong.
    pub code: ErrorCode,
    /// What is wrong, where, and what to change.
    pub reason: String,
}

impl BodyError {
    pub(crate) fn new(code: ErrorCode, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }
}

/// What is known about a request besides its body.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// Microseconds since 1970: `ingested_at`, and `ts` where an event has none.
    pub now_us: i64,
    /// Namespace of an event that names none.
    pub namespace: Namespace,
    /// First of a run of 80-bit-random ids for events without one: id `n` of the request is this
    /// ULID plus `n`. With a `batchId` ids are derived from it instead.
    pub first_id: ulid::Ulid,
    /// CloudEvents attributes of binary mode (`ce-*` headers), if the request has them.
    pub cloud_event: Vec<(String, String)>,
    /// What ties the request to others: `correlation_id` of an event that has none.
    pub correlation_id: Option<String>,
    /// What its sender calls the request: `batch_id` of an event that has none and whose body is no batch. No id of
    /// an event is derived from it.
    pub request_id: Option<String>,
    /// What the dead letter says of an event that is sent again from there.
    pub again: Option<RedriveContext>,
}

impl RequestContext {
    /// When the event came first, microseconds since 1970: its `ts` where it has none, and the time
    /// that its `ts` may not lie far from.
    pub(crate) fn first_came_us(&self) -> i64 {
        self.again.as_ref().map_or(self.now_us, |again| again.received_us)
    }

    /// `batch_id` of an event that has none and whose body is no batch.
    pub(crate) fn batch_id(&self) -> Option<&str> {
        let again = self.again.as_ref().and_then(|again| again.batch_id.as_deref());
        again.or(self.request_id.as_deref())
    }
}

/// What a dead letter knows of its event besides the bytes.
#[derive(Clone, Debug)]
pub struct RedriveContext {
    /// The event's id where it names none: whenever it is sent again, it is the same event.
    pub id: String,
    /// The batch that it was sent in.
    pub batch_id: Option<String>,
    /// When it was refused first, microseconds since 1970.
    pub received_us: i64,
}

/// A decoded body.
#[derive(Debug, Default)]
pub struct DecodedBody {
    /// Events in the body, good and bad.
    pub received: usize,
    /// Bytes that they have more than the body, as copies of what it says once for all of them.
    pub copied: usize,
    /// The good ones by namespace, in order of first appearance.
    pub accepted: Vec<NamespaceEvents>,
    /// The bad ones.
    pub rejected: Vec<RejectedEvent>,
    /// The events as they came.
    pub source: SourceBytes,
    /// Whether this is a provider's delivery, which dead letters of it say.
    pub is_webhook: bool,
    /// The branch that a body of one batch names beside its events.
    pub branch: Option<String>,
}

/// Events as dead letters keep them.
#[derive(Clone, Debug, Default)]
pub struct SourceBytes {
    /// What [`NamespaceEvents::came`] points into: the texts that were made of a body that is not
    /// JSON; empty when it is the body itself, which the caller has.
    pub bytes: Bytes,
    /// Events whose credentials were taken out, by their place in the body.
    pub redacted: HashMap<u32, String>,
    /// What events got that their batch has for all of its events, by their place in the body.
    pub shared: HashMap<u32, Arc<str>>,
}

impl SourceBytes {
    /// The event of a row.
    #[must_use]
    pub fn event(&self, events: &NamespaceEvents, row: usize) -> Cow<'_, [u8]> {
        let index = &events.index[row];
        if let Some(text) = self.redacted.get(index) {
            return text.as_bytes().into();
        }
        let came = &self.bytes[events.came[row].clone()];
        match (self.shared.get(index), std::str::from_utf8(came)) {
            (Some(shared), Ok(text)) => with_shared(text, shared).into_bytes().into(),
            _ => came.into(),
        }
    }
}

/// The accepted events of one namespace, in body order.
#[derive(Debug)]
pub struct NamespaceEvents {
    /// Where they go.
    pub namespace: Namespace,
    /// Columns of [`rows::event_schema`] in its order, without `seq`, which the log gives, and
    /// without columns that no row has a value for: see [`rows::concat`] and [`rows::align`].
    pub rows: RecordBatch,
    /// For each row, what tells it from others.
    pub keys: Vec<EventKey>,
    /// For each row, its place in the body, from 0.
    pub index: Vec<u32>,
    /// For each row, where its event stands in [`SourceBytes::bytes`].
    pub came: Vec<Range<usize>>,
    /// Keys that version 0.1.0 gave to some of the rows, in order of the rows.
    pub former: Vec<FormerKey>,
    /// Rows that were compared with the event that has their id, and say the same.
    pub same: Vec<(usize, EquivalentEvent)>,
}

/// Which event a row says the same as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EquivalentEvent {
    /// The stored one with this `seq`.
    Stored(u64),
    /// One before it in its body.
    Before,
}

/// What version 0.1.0 told an event by, where that is something else now.
#[derive(Clone, Copy, Debug)]
pub struct FormerKey {
    /// The event's row.
    pub row: usize,
    /// Its identity then.
    pub key: EventKey,
    /// Whether no other event had that id.
    pub is_certain: bool,
}

/// The identity of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EventKey {
    /// 128-bit hash of catalog namespace name and id, and for CloudEvents of their source.
    pub id: u128,
    /// 64-bit hash of the content, independent of member order and white space between members;
    /// never 0. Minted values are not part of it, nor are `_meta`, `retries` and `batchId`, which
    /// may differ when an event is sent again.
    pub content: u64,
}

/// [`EventKey::id`] of the CloudEvent with this id and this source: the specification wants the two
/// together to tell one from all others.
#[must_use]
pub fn cloud_event_key(namespace: &Namespace, source: &str, id: &str) -> u128 {
    // No namespace's name begins with a zero byte, so no other event's text is this one's.
    let length = (source.len() as u64).to_le_bytes();
    let name = namespace.name().as_bytes();
    xxh3_128(&[b"\0", name, b"\0", &length, source.as_bytes(), id.as_bytes()].concat())
}

/// [`EventKey::id`] of a row that is stored: a CloudEvent is stored whole, which tells it from others.
#[must_use]
pub fn stored_key(
    namespace: &Namespace,
    id: &str,
    source: Option<&str>,
    payload: Option<&str>,
) -> u128 {
    match payload.is_some_and(normalize::is_cloud_event) {
        true => cloud_event_key(namespace, source.unwrap_or_default(), id),
        false => event_key(namespace, id),
    }
}

/// [`EventKey::id`] of the event with this id.
#[must_use]
pub fn event_key(namespace: &Namespace, id: &str) -> u128 {
    let name = namespace.name().as_bytes();
    let length = name.len() + 1 + id.len();
    let mut short = [0; 256];
    if let Some(text) = short.get_mut(..length) {
        text[..name.len()].copy_from_slice(name);
        text[name.len() + 1..].copy_from_slice(id.as_bytes());
        return xxh3_128(text);
    }
    xxh3_128(&[name, &[0], id.as_bytes()].concat())
}

/// What a request says once for all of its events.
#[derive(Clone, Debug, Default)]
pub struct RequestIds {
    /// The batch's own id.
    pub batch_id: Option<String>,
    /// As [`RequestContext::correlation_id`].
    pub correlation_id: Option<String>,
}

/// An event that was not accepted.
#[derive(Clone, Debug)]
pub struct RejectedEvent {
    /// Its place in the body, from 0.
    pub index: u32,
    /// Where it was sent: the event's own namespace if it could be read, else the request's.
    pub namespace: Namespace,
    /// Where its dead letter goes, if not there.
    pub kept_in: Option<Namespace>,
    /// What is wrong.
    pub code: ErrorCode,
    /// The version that its document has, where it expects another; 0 for none.
    pub actual_version: Option<u64>,
    /// What is wrong, and what to change.
    pub reason: String,
    /// Its id, where it could be read.
    pub id: Option<String>,
    /// Its type, where it could be read.
    pub event_type: Option<String>,
    /// Its source, where it could be read.
    pub source: Option<String>,
    /// The event as it came; base64 where that is no text, which the reason says: see
    /// [`dead_letter::keep`].
    pub payload: String,
}

impl RejectedEvent {
    /// The namespace of its dead letter.
    #[must_use]
    pub fn keeper(&self) -> &Namespace {
        self.kept_in.as_ref().unwrap_or(&self.namespace)
    }
}
