//! The columns of Icecore's own tables, in order, with their Iceberg field ids.
//!
//! Field ids never change meaning: a column is only ever added at the end.

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

/// One column of a table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Iceberg field id, from 1.
    pub id: i32,
    /// Name in every engine.
    pub name: &'static str,
    /// Type.
    pub kind: ColumnKind,
    /// Whether a row without it is invalid.
    pub required: bool,
    /// What it holds, also stored in the table's schema.
    pub doc: &'static str,
}

/// Name of the table that holds a namespace's events.
pub const EVENTS_TABLE: &str = "events";
/// Name of the table that holds what a namespace's senders got wrong.
pub const DEAD_LETTERS_TABLE: &str = "dead_letters";

/// Columns of `events`.
pub const EVENTS: &[Column] = &[
    Column {
        id: 1,
        name: "id",
        kind: ColumnKind::String,
        required: true,
        doc: "Unique in its namespace; a repeat is a duplicate",
    },
    Column {
        id: 2,
        name: "type",
        kind: ColumnKind::String,
        required: true,
        doc: "What happened; the first partition column",
    },
    Column {
        id: 3,
        name: "ts",
        kind: ColumnKind::Timestamptz,
        required: true,
        doc: "When it happened, by the sender's clock",
    },
    Column {
        id: 4,
        name: "ns",
        kind: ColumnKind::String,
        required: true,
        doc: "The namespace as the sender wrote it",
    },
    Column {
        id: 5,
        name: "seq",
        kind: ColumnKind::Long,
        required: true,
        doc: "Position in the namespace, in order of acknowledgement",
    },
    Column {
        id: 6,
        name: "ingested_at",
        kind: ColumnKind::Timestamptz,
        required: true,
        doc: "When the server took it",
    },
    Column {
        id: 7,
        name: "source",
        kind: ColumnKind::String,
        required: false,
        doc: "Where it came from",
    },
    Column {
        id: 8,
        name: "batch_id",
        kind: ColumnKind::String,
        required: false,
        doc: "The batch it was sent in",
    },
    Column {
        id: 9,
        name: "correlation_id",
        kind: ColumnKind::String,
        required: false,
        doc: "What ties it to other events",
    },
    Column {
        id: 10,
        name: "visibility",
        kind: ColumnKind::String,
        required: false,
        doc: "Who may see it",
    },
    Column {
        id: 11,
        name: "actor",
        kind: ColumnKind::String,
        required: false,
        doc: "Who caused it",
    },
    Column {
        id: 12,
        name: "event",
        kind: ColumnKind::String,
        required: false,
        doc: "Name of the event within its type",
    },
    Column {
        id: 13,
        name: "op",
        kind: ColumnKind::String,
        required: false,
        doc: "c, u, d or r: create, update, delete, read",
    },
    Column {
        id: 14,
        name: "store",
        kind: ColumnKind::String,
        required: false,
        doc: "Kind of store that changed",
    },
    Column {
        id: 15,
        name: "collection",
        kind: ColumnKind::String,
        required: false,
        doc: "Collection or table that changed",
    },
    Column {
        id: 16,
        name: "key",
        kind: ColumnKind::String,
        required: false,
        doc: "Key of the record that changed",
    },
    Column {
        id: 17,
        name: "before",
        kind: ColumnKind::String,
        required: false,
        doc: "JSON text of the record before",
    },
    Column {
        id: 18,
        name: "after",
        kind: ColumnKind::String,
        required: false,
        doc: "JSON text of the record after",
    },
    Column {
        id: 19,
        name: "txid",
        kind: ColumnKind::String,
        required: false,
        doc: "Transaction of the source",
    },
    Column {
        id: 20,
        name: "lsn",
        kind: ColumnKind::Long,
        required: false,
        doc: "Log position of the source",
    },
    Column {
        id: 21,
        name: "bookmark",
        kind: ColumnKind::String,
        required: false,
        doc: "Position in the change log, ordered as text",
    },
    Column {
        id: 22,
        name: "version",
        kind: ColumnKind::Long,
        required: false,
        doc: "Version of the record",
    },
    Column {
        id: 23,
        name: "do_id",
        kind: ColumnKind::String,
        required: false,
        doc: "Durable Object: id",
    },
    Column {
        id: 24,
        name: "do_name",
        kind: ColumnKind::String,
        required: false,
        doc: "Durable Object: name",
    },
    Column {
        id: 25,
        name: "do_class",
        kind: ColumnKind::String,
        required: false,
        doc: "Durable Object: class",
    },
    Column {
        id: 26,
        name: "do_colo",
        kind: ColumnKind::String,
        required: false,
        doc: "Durable Object: data centre",
    },
    Column {
        id: 27,
        name: "do_worker",
        kind: ColumnKind::String,
        required: false,
        doc: "Durable Object: worker script",
    },
    Column {
        id: 28,
        name: "method",
        kind: ColumnKind::String,
        required: false,
        doc: "Method of a call",
    },
    Column {
        id: 29,
        name: "rpc_namespace",
        kind: ColumnKind::String,
        required: false,
        doc: "Namespace of a call",
    },
    Column {
        id: 30,
        name: "duration_ms",
        kind: ColumnKind::Double,
        required: false,
        doc: "Milliseconds a call took",
    },
    Column {
        id: 31,
        name: "success",
        kind: ColumnKind::Boolean,
        required: false,
        doc: "Whether it succeeded",
    },
    Column { id: 32, name: "error", kind: ColumnKind::String, required: false, doc: "Error text" },
    Column {
        id: 33,
        name: "connection_count",
        kind: ColumnKind::Int,
        required: false,
        doc: "Open connections",
    },
    Column {
        id: 34,
        name: "close_code",
        kind: ColumnKind::Int,
        required: false,
        doc: "Close code of a connection",
    },
    Column {
        id: 35,
        name: "reason",
        kind: ColumnKind::String,
        required: false,
        doc: "Reason given",
    },
    Column {
        id: 36,
        name: "provider",
        kind: ColumnKind::String,
        required: false,
        doc: "Webhook: provider",
    },
    Column {
        id: 37,
        name: "event_type",
        kind: ColumnKind::String,
        required: false,
        doc: "Webhook: the provider's event name",
    },
    Column {
        id: 38,
        name: "verified",
        kind: ColumnKind::Boolean,
        required: false,
        doc: "Webhook: signature was checked",
    },
    Column {
        id: 39,
        name: "delivery_id",
        kind: ColumnKind::String,
        required: false,
        doc: "Webhook: the provider's delivery id",
    },
    Column {
        id: 40,
        name: "script_name",
        kind: ColumnKind::String,
        required: false,
        doc: "Tail: script",
    },
    Column {
        id: 41,
        name: "outcome",
        kind: ColumnKind::String,
        required: false,
        doc: "Tail: outcome",
    },
    Column {
        id: 42,
        name: "url",
        kind: ColumnKind::String,
        required: false,
        doc: "Tail: requested URL",
    },
    Column {
        id: 43,
        name: "status_code",
        kind: ColumnKind::Int,
        required: false,
        doc: "Tail: HTTP status",
    },
    Column {
        id: 44,
        name: "user_id",
        kind: ColumnKind::String,
        required: false,
        doc: "Analytics: user",
    },
    Column {
        id: 45,
        name: "anonymous_id",
        kind: ColumnKind::String,
        required: false,
        doc: "Analytics: visitor without an account",
    },
    Column {
        id: 46,
        name: "session_id",
        kind: ColumnKind::String,
        required: false,
        doc: "Analytics: session",
    },
    Column { id: 47, name: "verb", kind: ColumnKind::String, required: false, doc: "Action: verb" },
    Column {
        id: 48,
        name: "action_id",
        kind: ColumnKind::String,
        required: false,
        doc: "Action: id",
    },
    Column {
        id: 49,
        name: "workflow_id",
        kind: ColumnKind::String,
        required: false,
        doc: "Workflow: id",
    },
    Column {
        id: 50,
        name: "schema_version",
        kind: ColumnKind::Int,
        required: false,
        doc: "Version of the event's schema",
    },
    Column {
        id: 51,
        name: "retries",
        kind: ColumnKind::Int,
        required: false,
        doc: "Times the sender tried",
    },
    Column {
        id: 52,
        name: "data",
        kind: ColumnKind::String,
        required: false,
        doc: "JSON text of the event's data",
    },
    Column {
        id: 53,
        name: "meta",
        kind: ColumnKind::String,
        required: false,
        doc: "JSON text of the event's _meta",
    },
    Column {
        id: 54,
        name: "payload",
        kind: ColumnKind::String,
        required: false,
        doc: "The whole event as it came, when a member has no column",
    },
];

/// Columns of `dead_letters`.
pub const DEAD_LETTERS: &[Column] = &[
    Column {
        id: 1,
        name: "id",
        kind: ColumnKind::String,
        required: true,
        doc: "Id of the dead letter",
    },
    Column {
        id: 2,
        name: "ns",
        kind: ColumnKind::String,
        required: true,
        doc: "The namespace it was sent to",
    },
    Column {
        id: 3,
        name: "received_at",
        kind: ColumnKind::Timestamptz,
        required: true,
        doc: "When the server refused it; the partition column",
    },
    Column {
        id: 4,
        name: "reason",
        kind: ColumnKind::String,
        required: true,
        doc: "Error code, such as TS_WINDOW",
    },
    Column {
        id: 5,
        name: "detail",
        kind: ColumnKind::String,
        required: true,
        doc: "What is wrong and what to change",
    },
    Column {
        id: 6,
        name: "type",
        kind: ColumnKind::String,
        required: false,
        doc: "The event's type, where it could be read",
    },
    Column {
        id: 7,
        name: "event_id",
        kind: ColumnKind::String,
        required: false,
        doc: "The event's id, where it could be read",
    },
    Column {
        id: 8,
        name: "batch_id",
        kind: ColumnKind::String,
        required: false,
        doc: "The batch it was sent in",
    },
    Column {
        id: 9,
        name: "source",
        kind: ColumnKind::String,
        required: false,
        doc: "The event's source, where it could be read",
    },
    Column {
        id: 10,
        name: "retries",
        kind: ColumnKind::Int,
        required: false,
        doc: "The sender's retry count, where it could be read",
    },
    Column {
        id: 11,
        name: "status",
        kind: ColumnKind::String,
        required: true,
        doc: "pending, redriven or discarded",
    },
    Column {
        id: 12,
        name: "payload",
        kind: ColumnKind::String,
        required: true,
        doc: "The event as it came",
    },
];
