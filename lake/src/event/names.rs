//! Which member fills which column: every name an event may use.
//!
//! A slot below [`COLUMNS`] is the column of that line of `icecore_schemas::columns::KNOWN_EVENTS`;
//! the slots after them are members that are taken apart or say how the event is written.

use crate::event::bits::BitSet;
use icecore_schemas::columns::{ColumnKind, FoundIn, KNOWN_EVENTS};

/// Number of columns.
pub(crate) const COLUMNS: usize = KNOWN_EVENTS.len();
/// Number of slots.
pub(crate) const SLOTS: usize = COLUMNS + 15;

pub(crate) const ID: usize = column("id");
pub(crate) const TYPE: usize = column("type");
pub(crate) const TS: usize = column("ts");
pub(crate) const NS: usize = column("ns");
pub(crate) const INGESTED_AT: usize = column("ingested_at");
pub(crate) const SOURCE: usize = column("source");
pub(crate) const BATCH_ID: usize = column("batch_id");
pub(crate) const CORRELATION_ID: usize = column("correlation_id");
pub(crate) const OP: usize = column("op");
pub(crate) const STORE: usize = column("store");
pub(crate) const COLLECTION: usize = column("collection");
pub(crate) const KEY: usize = column("key");
pub(crate) const BEFORE: usize = column("before");
pub(crate) const AFTER: usize = column("after");
pub(crate) const TXID: usize = column("txid");
pub(crate) const LSN: usize = column("lsn");
pub(crate) const DO_ID: usize = column("do_id");
pub(crate) const DO_NAME: usize = column("do_name");
pub(crate) const DO_CLASS: usize = column("do_class");
pub(crate) const DO_COLO: usize = column("do_colo");
pub(crate) const DO_WORKER: usize = column("do_worker");
pub(crate) const RPC_NAMESPACE: usize = column("rpc_namespace");
pub(crate) const EVENT_TYPE: usize = column("event_type");
pub(crate) const CLOSE_CODE: usize = column("close_code");
pub(crate) const SCHEMA_VERSION: usize = column("schema_version");
pub(crate) const RETRIES: usize = column("retries");
pub(crate) const SCRIPT_NAME: usize = column("script_name");
pub(crate) const OUTCOME: usize = column("outcome");
pub(crate) const DATA: usize = column("data");
pub(crate) const META: usize = column("meta");
pub(crate) const PAYLOAD: usize = column("payload");
pub(crate) const PATCH: usize = column("patch");

/// `do`: an object for the `do_*` columns.
pub(crate) const DO: usize = COLUMNS;
/// `code`: the close code of a `ws.close`, unknown elsewhere.
pub(crate) const CODE: usize = COLUMNS + 1;
/// `events`, or `batch` of an analytics library: an array of events, if there is no type.
pub(crate) const EVENT_LIST: usize = COLUMNS + 2;
/// `payload`: Kafka Connect's wrapper around a Debezium envelope.
pub(crate) const WRAPPED: usize = COLUMNS + 3;
/// Debezium: `ts_ms`.
pub(crate) const TS_MS: usize = COLUMNS + 4;
/// Debezium: `transaction`.
pub(crate) const TRANSACTION: usize = COLUMNS + 5;
/// CloudEvents: `specversion`, which makes an event a CloudEvent.
pub(crate) const SPEC_VERSION: usize = COLUMNS + 6;
/// CloudEvents: `time`.
pub(crate) const TIME: usize = COLUMNS + 7;
/// CloudEvents: `datacontenttype`.
pub(crate) const CONTENT_TYPE: usize = COLUMNS + 8;
/// CloudEvents: extension names have no upper case and no underscore.
pub(crate) const CLOUD_CORRELATION_ID: usize = COLUMNS + 9;
/// CloudEvents: the same for the batch.
pub(crate) const CLOUD_BATCH_ID: usize = COLUMNS + 10;
/// Debezium: `ts_us`.
pub(crate) const TS_US: usize = COLUMNS + 11;
/// Debezium: `ts_ns`.
pub(crate) const TS_NS: usize = COLUMNS + 12;
/// `namespace`: the column `rpc_namespace` of an `rpc.call`, unknown elsewhere.
pub(crate) const NAMESPACE: usize = COLUMNS + 13;
/// The text of an event that another log kept whole.
pub(crate) const KEPT_EVENT: usize = COLUMNS + 14;

/// Slots, a bit each.
pub(crate) type SlotSet = BitSet<{ SLOTS.div_ceil(64) }>;

/// Members that no column holds.
pub(crate) const KEPT_IN_PAYLOAD: SlotSet = SlotSet::of(&[
    EVENT_LIST,
    WRAPPED,
    TS_MS,
    TS_US,
    TS_NS,
    TRANSACTION,
    TIME,
    CLOUD_CORRELATION_ID,
    CLOUD_BATCH_ID,
    KEPT_EVENT,
    CONTENT_TYPE,
    // The row of a CloudEvent says in its payload that it is one.
    SPEC_VERSION,
]);

/// The column a CloudEvents member fills.
pub(crate) const CLOUD_EVENT_COLUMNS: [(usize, usize); 3] =
    [(TIME, TS), (CLOUD_CORRELATION_ID, CORRELATION_ID), (CLOUD_BATCH_ID, BATCH_ID)];

/// Type of each column.
pub(crate) const KINDS: [ColumnKind; COLUMNS] = {
    let mut kinds = [ColumnKind::String; COLUMNS];
    let mut at = 0;
    while at < COLUMNS {
        kinds[at] = KNOWN_EVENTS[at].kind;
        at += 1;
    }
    kinds
};

/// Names other than the columns' own. Where an event has several names for one column, the
/// column's own name wins, then the first in this list.
const ALIASES: &[(&str, usize)] = &[
    ("timestamp", TS),
    ("batchId", BATCH_ID),
    ("correlationId", CORRELATION_ID),
    ("table", COLLECTION),
    ("docId", KEY),
    ("doc_id", KEY),
    ("pk", KEY),
    ("prev", BEFORE),
    ("doc", AFTER),
    ("jsonPatch", PATCH),
    ("mergePatch", PATCH),
    ("txId", TXID),
    ("rpcNamespace", RPC_NAMESPACE),
    ("durationMs", column("duration_ms")),
    ("connectionCount", column("connection_count")),
    ("closeCode", CLOSE_CODE),
    ("eventType", EVENT_TYPE),
    ("deliveryId", column("delivery_id")),
    ("scriptName", column("script_name")),
    ("statusCode", column("status_code")),
    ("userId", column("user_id")),
    ("anonymousId", column("anonymous_id")),
    ("sessionId", column("session_id")),
    ("actionId", column("action_id")),
    ("workflowId", column("workflow_id")),
    ("schemaVersion", SCHEMA_VERSION),
    ("_meta", META),
    ("do", DO),
    ("code", CODE),
    ("events", EVENT_LIST),
    ("batch", EVENT_LIST),
    ("payload", WRAPPED),
    ("ts_ms", TS_MS),
    ("ts_us", TS_US),
    ("ts_ns", TS_NS),
    ("namespace", NAMESPACE),
    ("transaction", TRANSACTION),
    ("specversion", SPEC_VERSION),
    ("time", TIME),
    ("datacontenttype", CONTENT_TYPE),
    ("correlationid", CLOUD_CORRELATION_ID),
    ("batchid", CLOUD_BATCH_ID),
    (icecore_schemas::names::KEPT_EVENT, KEPT_EVENT),
];

const NAMES_MAX: usize = COLUMNS + ALIASES.len();
/// An eighth of it is in use at most, so that runs are short.
const TABLE: usize = (8 * NAMES_MAX).next_power_of_two();
/// Longest name whose bytes are all in its [`NameKey`].
const KEY_BYTES: usize = 16;

/// A name in a form that is compared at once: its length and its bytes; of a long one the first and
/// the last.
#[derive(Clone, Copy, PartialEq, Eq)]
struct NameKey {
    length: usize,
    bytes: u128,
}

/// The key of each name, so that a look-up compares no text of at most [`KEY_BYTES`].
static KEYS: [NameKey; NAMES_MAX] = {
    let mut keys = [NameKey { length: 0, bytes: 0 }; NAMES_MAX];
    let mut number = 0;
    while number < NAMES_MAX {
        keys[number] = key(name(number).as_bytes());
        number += 1;
    }
    keys
};

/// Open addressing: a name's number plus one, or 0. Built by the compiler.
static SLOT_OF_NAME: [u16; TABLE] = {
    let mut table = [0_u16; TABLE];
    let mut number = 0;
    while number < NAMES_MAX {
        if number >= COLUMNS || !is_given_by_the_server(number) {
            let mut at = hash(key(name(number).as_bytes()));
            // Linear probing: a taken place sends the name to the next one.
            while table[at] != 0 {
                at = (at + 1) % TABLE;
            }
            table[at] = number as u16 + 1;
        }
        number += 1;
    }
    table
};

/// A name that an event may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KnownName {
    pub(crate) slot: usize,
    /// Lower is preferred.
    pub(crate) rank: u16,
}

/// What a member of this name means; none for a name nobody knows.
#[inline]
pub(crate) fn find(text: &str) -> Option<KnownName> {
    let key = key(text.as_bytes());
    let mut at = hash(key);
    // The run of names that share a place ends at the first empty one. Equal keys decide, but for
    // names longer than a key: of those the bytes between are compared as well.
    while SLOT_OF_NAME[at] != 0 {
        let number = usize::from(SLOT_OF_NAME[at]) - 1;
        if KEYS[number] == key && (key.length <= KEY_BYTES || name(number) == text) {
            let slot = if number < COLUMNS { number } else { ALIASES[number - COLUMNS].1 };
            return Some(KnownName { slot, rank: number as u16 });
        }
        at = (at + 1) % TABLE;
    }
    None
}

/// Whether a member of `data` fills this column when the event itself does not: what describes a
/// call, a webhook, a request or an actor. An event's identity, time, place and change never come
/// from `data`, where the same names are the sender's own.
pub(crate) const fn is_found_in_data(slot: usize) -> bool {
    slot == DO || (slot < COLUMNS && matches!(KNOWN_EVENTS[slot].found_in, FoundIn::Data))
}

/// Whether a member of `data` fills this column when the type begins with `cdc.`: CloudEvents can
/// carry a change only there.
pub(crate) const fn is_change(slot: usize) -> bool {
    slot < COLUMNS && matches!(KNOWN_EVENTS[slot].found_in, FoundIn::Change)
}

/// Whether no member fills this column.
const fn is_given_by_the_server(column: usize) -> bool {
    matches!(KNOWN_EVENTS[column].found_in, FoundIn::Server)
}

/// Every name that an event may use.
#[cfg(test)]
pub(crate) fn known_names() -> impl Iterator<Item = &'static str> {
    (0..NAMES_MAX).filter(|number| COLUMNS <= *number || !is_given_by_the_server(*number)).map(name)
}

const fn name(number: usize) -> &'static str {
    if number < COLUMNS { KNOWN_EVENTS[number].name } else { ALIASES[number - COLUMNS].0 }
}

/// The bytes of a name in one number, by two loads that may overlap: of one of at most
/// [`KEY_BYTES`] all of them.
const fn key(name: &[u8]) -> NameKey {
    let length = name.len();
    let bytes = match length {
        0 => 0,
        // First, middle and last are all bytes of a name of three, and repeat those of a shorter one.
        1..4 => {
            let (first, middle, last) = (name[0], name[length / 2], name[length - 1]);
            first as u128 | (middle as u128) << 8 | (last as u128) << 16
        }
        4..8 => load(name, 0, 4) | load(name, length - 4, 4) << 32,
        _ => load(name, 0, 8) | load(name, length - 8, 8) << 64,
    };
    NameKey { length, bytes }
}

/// Bytes `at..at + count`, the lowest first.
const fn load(name: &[u8], at: usize, count: usize) -> u128 {
    let name = name.split_at(at).1.split_at(count).0;
    let mut number = 0;
    let mut byte = 0;
    while byte < count {
        number |= (name[byte] as u64) << (8 * byte);
        byte += 1;
    }
    number as u128
}

/// The top bits of a product, which depend on all bits of the key (Knuth's multiplicative hash).
const fn hash(key: NameKey) -> usize {
    let folded = key.bytes as u64 ^ (key.bytes >> 64) as u64 ^ key.length as u64;
    (folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - TABLE.trailing_zeros())) as usize
}

pub(crate) const fn column(name: &str) -> usize {
    let mut at = 0;
    while at < COLUMNS {
        if same(KNOWN_EVENTS[at].name.as_bytes(), name.as_bytes()) {
            return at;
        }
        at += 1;
    }
    // Evaluated by the compiler only: a wrong name does not build.
    unreachable!()
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    true
}

// A name's number plus one has to fit.
const _: () = assert!(NAMES_MAX < u16::MAX as usize);

#[cfg(test)]
mod tests;
