//! The columns of Icecore's own tables: one line each, which is all that there is to say of a column.
//!
//! A new column of `events` is one more line at the end, made by [`later`]: only the columns of version
//! 0.1.0 have field ids that are known here. A later one is found in a table by its name, and every
//! table gives it an id of its own when it first gets it. What a line says never changes, and no line
//! moves or goes: the log names columns by their line.

use ColumnKind::{Boolean, Double, Int, Long, String, Timestamptz};
use FoundIn::{Change, Data, Event, Server};

/// An Iceberg primitive type that our columns use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// UTF-8 text.
    String,
    /// 64-bit signed integer.
    Long,
    /// 32-bit signed integer.
    Int,
    /// 64-bit floating point number.
    Double,
    /// True or false.
    Boolean,
    /// Microseconds since 1970-01-01 UTC.
    Timestamptz,
}

/// Where an event may have the value of a column. A member of the event itself always wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundIn {
    /// Nowhere: the server gives it.
    Server,
    /// The event itself: what it is, when it was, how it was sent.
    Event,
    /// The event or its `data`: what describes a call, a webhook, a request or an actor.
    Data,
    /// The event or, where the type begins with `cdc.`, its `data`: CloudEvents can carry a change
    /// only there.
    Change,
}

/// One column of a table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Iceberg field id, for a column of version 0.1.0. None for a later one: the table's schema has it.
    pub id: Option<i32>,
    /// Name in every engine.
    pub name: &'static str,
    /// Type.
    pub kind: ColumnKind,
    /// Whether a row without it is invalid; never for a later column.
    pub required: bool,
    /// Where an event may have its value.
    pub found_in: FoundIn,
    /// What it holds, also stored in the table's schema.
    pub doc: &'static str,
}

/// A column of version 0.1.0 that every row has.
const fn required(
    id: i32,
    name: &'static str,
    kind: ColumnKind,
    found_in: FoundIn,
    doc: &'static str,
) -> Column {
    Column { id: Some(id), name, kind, required: true, found_in, doc }
}

/// A column of version 0.1.0 that a row may lack.
const fn optional(
    id: i32,
    name: &'static str,
    kind: ColumnKind,
    found_in: FoundIn,
    doc: &'static str,
) -> Column {
    Column { id: Some(id), name, kind, required: false, found_in, doc }
}

/// A column that came after version 0.1.0. Rows that were stored before have no value for it.
#[must_use]
pub const fn later(
    name: &'static str,
    kind: ColumnKind,
    found_in: FoundIn,
    doc: &'static str,
) -> Column {
    Column { id: None, name, kind, required: false, found_in, doc }
}

/// Columns of `events`.
#[rustfmt::skip]
pub const EVENTS: &[Column] = &[
    required(1, "id", String, Event, "Unique in its namespace; a repeat is a duplicate"),
    required(2, "type", String, Event, "What happened; the first partition column"),
    required(3, "ts", Timestamptz, Event, "When it happened, by the sender's clock"),
    required(4, "ns", String, Event, "The namespace as the sender wrote it"),
    required(5, "seq", Long, Server, "Position in the namespace, in order of acknowledgement"),
    required(6, "ingested_at", Timestamptz, Server, "When the server took it"),
    optional(7, "source", String, Event, "Where it came from"),
    optional(8, "batch_id", String, Event, "The batch it was sent in"),
    optional(9, "correlation_id", String, Event, "What ties it to other events"),
    optional(10, "visibility", String, Event, "Who may see it"),
    optional(11, "actor", String, Event, "Who caused it"),
    optional(12, "event", String, Event, "Name of the event within its type"),
    optional(13, "op", String, Change, "c, u, d or r: create, update, delete, read"),
    optional(14, "store", String, Change, "Kind of store that changed"),
    optional(15, "collection", String, Change, "Collection or table that changed"),
    optional(16, "key", String, Change, "Key of the record that changed"),
    optional(17, "before", String, Change, "JSON text of the record before"),
    optional(18, "after", String, Change, "JSON text of the record after"),
    optional(19, "txid", String, Change, "Transaction of the source"),
    optional(20, "lsn", Long, Change, "Log position of the source"),
    optional(21, "bookmark", String, Change, "Position in the change log, ordered as text"),
    optional(22, "version", Long, Change, "Version of the record"),
    optional(23, "do_id", String, Data, "Durable Object: id"),
    optional(24, "do_name", String, Data, "Durable Object: name"),
    optional(25, "do_class", String, Data, "Durable Object: class"),
    optional(26, "do_colo", String, Data, "Durable Object: data centre"),
    optional(27, "do_worker", String, Data, "Durable Object: worker script"),
    optional(28, "method", String, Data, "Method of a call"),
    optional(29, "rpc_namespace", String, Data, "Namespace of a call"),
    optional(30, "duration_ms", Double, Data, "Milliseconds a call took"),
    optional(31, "success", Boolean, Data, "Whether it succeeded"),
    optional(32, "error", String, Data, "Error text"),
    optional(33, "connection_count", Int, Data, "Open connections"),
    optional(34, "close_code", Int, Data, "Close code of a connection"),
    optional(35, "reason", String, Data, "Reason given"),
    optional(36, "provider", String, Data, "Webhook: provider"),
    optional(37, "event_type", String, Data, "Webhook: the provider's event name"),
    optional(38, "verified", Boolean, Data, "Webhook: signature was checked"),
    optional(39, "delivery_id", String, Data, "Webhook: the provider's delivery id"),
    optional(40, "script_name", String, Data, "Tail: script"),
    optional(41, "outcome", String, Data, "Tail: outcome"),
    optional(42, "url", String, Data, "Tail: requested URL"),
    optional(43, "status_code", Int, Data, "Tail: HTTP status"),
    optional(44, "user_id", String, Data, "Analytics: user"),
    optional(45, "anonymous_id", String, Data, "Analytics: visitor without an account"),
    optional(46, "session_id", String, Data, "Analytics: session"),
    optional(47, "verb", String, Data, "Action: verb"),
    optional(48, "action_id", String, Data, "Action: id"),
    optional(49, "workflow_id", String, Data, "Workflow: id"),
    optional(50, "schema_version", Int, Event, "Version of the event's schema"),
    optional(51, "retries", Int, Event, "Times the sender tried"),
    optional(52, "data", String, Event, "JSON text of the event's data"),
    optional(53, "meta", String, Event, "JSON text of the event's _meta"),
    optional(54, "payload", String, Server, "The whole event as it came, when a member has no column"),
    later("patch", String, Change, "JSON text of how the record differs: RFC 6902, an array, or RFC 7396, an object"),
];

/// Names that events also use for columns of [`EVENTS`]; in SQL they are names of these columns, which `*`
/// does not show.
pub const ALIASES: &[(&str, &str)] = &[
    ("timestamp", "ts"),
    ("batchId", "batch_id"),
    ("correlationId", "correlation_id"),
    ("table", "collection"),
    ("docId", "key"),
    ("doc_id", "key"),
    ("pk", "key"),
    ("prev", "before"),
    ("doc", "after"),
    ("jsonPatch", "patch"),
    ("mergePatch", "patch"),
    ("txId", "txid"),
    ("rpcNamespace", "rpc_namespace"),
    ("durationMs", "duration_ms"),
    ("connectionCount", "connection_count"),
    ("closeCode", "close_code"),
    ("eventType", "event_type"),
    ("deliveryId", "delivery_id"),
    ("scriptName", "script_name"),
    ("statusCode", "status_code"),
    ("userId", "user_id"),
    ("anonymousId", "anonymous_id"),
    ("sessionId", "session_id"),
    ("actionId", "action_id"),
    ("workflowId", "workflow_id"),
    ("schemaVersion", "schema_version"),
    ("_meta", "meta"),
];

/// The object that events may have for a Durable Object.
pub const DURABLE_OBJECT: &str = "do";

/// Members of [`DURABLE_OBJECT`], and their columns of [`EVENTS`].
pub const DURABLE_OBJECT_MEMBERS: &[(&str, &str)] = &[
    ("id", "do_id"),
    ("name", "do_name"),
    ("class", "do_class"),
    ("colo", "do_colo"),
    ("worker", "do_worker"),
    ("method", "method"),
];

/// Columns of `dead_letters`.
#[rustfmt::skip]
pub const DEAD_LETTERS: &[Column] = &[
    required(1, "id", String, Server, "Id of the dead letter"),
    required(2, "ns", String, Server, "The namespace it was sent to"),
    required(3, "received_at", Timestamptz, Server, "When the server refused it; the partition column"),
    required(4, "reason", String, Server, "Error code, such as TS_WINDOW"),
    required(5, "detail", String, Server, "What is wrong and what to change"),
    optional(6, "type", String, Server, "The event's type, where it could be read"),
    optional(7, "event_id", String, Server, "The event's id, where it could be read"),
    optional(8, "batch_id", String, Server, "The batch it was sent in"),
    optional(9, "source", String, Server, "The event's source, where it could be read"),
    optional(10, "retries", Int, Server, "The sender's retry count, where it could be read"),
    required(11, "status", String, Server, "pending, redriven or discarded"),
    required(12, "payload", String, Server, "The event as it came"),
    later("correlation_id", String, Server, "The x-correlation-id of the request it came in"),
];

/// Columns of `events` that no release has: with them a test can see what an upgrade does. So many
/// that there are more than 64 with the others, and some with long names.
#[cfg(debug_assertions)]
#[rustfmt::skip]
pub const TRIAL: &[Column] = &[
    later("deployment_environment", String, Data, "Trial: where it ran"),
    later("attempt_number", Long, Event, "Trial: how often it was tried"),
    later("trial_ratio", Double, Data, "Trial: a ratio"),
    later("trial_flag", Boolean, Data, "Trial: a flag"),
    later("trial_small", Int, Event, "Trial: a small number"),
    later("trial_change", String, Change, "Trial: of a change"),
    later("trial_7", String, Data, "Trial"),
    later("trial_8", String, Data, "Trial"),
    later("trial_9", String, Data, "Trial"),
    later("trial_10", String, Data, "Trial"),
    later("trial_11", String, Data, "Trial"),
    later("trial_column_with_the_longest_name_of_them_all", String, Data, "Trial: the last line"),
];
/// None in a release.
#[cfg(not(debug_assertions))]
pub const TRIAL: &[Column] = &[];

/// Columns of a table that no release has.
#[cfg(debug_assertions)]
#[rustfmt::skip]
pub(crate) const TRIAL_CHANGES: &[Column] = &[
    required(1, "id", String, Server, "Trial: id of the event"),
    required(2, "ns", String, Server, "Trial: its namespace"),
    required(3, "ts", Timestamptz, Server, "Trial: when it happened"),
    required(4, "op", String, Server, "Trial: the change; a partition column"),
    optional(5, "collection", String, Server, "Trial: what changed"),
    optional(6, "key", String, Server, "Trial: of which record"),
    optional(7, "payload", String, Server, "Trial: what has no column"),
    later("txid", String, Server, "Trial: its transaction"),
    later("version", Long, Server, "Trial: its version"),
];

/// Every column of `events` that this build can read from an event: those of [`EVENTS`], then
/// those of [`TRIAL`].
pub const KNOWN_EVENTS: &[Column] = &{
    let mut known = [EVENTS[0]; EVENTS.len() + TRIAL.len()];
    let mut at = 0;
    while at < known.len() {
        known[at] = if at < EVENTS.len() { EVENTS[at] } else { TRIAL[at - EVENTS.len()] };
        at += 1;
    }
    known
};
