//! Which change this is: what each of Debezium's connectors says in `source` of where in its
//! database's log a change stands.
//!
//! More in the identity, less in the content: everything that tells one change from another is part
//! of the identity, and nothing that a connector makes up anew when it sends a change again. What a
//! connector does not say is left out, so that a member it says only in a later version does not
//! touch the identity of changes without it. Source: the section "data change events" of each
//! connector's page in Debezium's documentation, and those of TiCDC and CockroachDB on theirs.

use super::origin::{ChangeSource, letters};

/// What tells the database, the table and the stream apart. Names of all connectors.
const PLACE: [&str; 16] = [
    "name",
    "cluster",
    "cluster_id",
    "project_id",
    "instance_id",
    "database_id",
    "change_stream_name",
    "db",
    "database_name",
    "keyspace",
    "schema",
    "schema_name",
    "table",
    "table_name",
    "collection",
    "tablet_id",
];

/// A connector's members that say where in the log a change stands.
struct Connector {
    names: &'static [&'static str],
    /// Without one of these that is not zero, nothing is said.
    log: &'static [&'static str],
    /// What tells changes apart that share those.
    more: &'static [&'static str],
}

const CONNECTORS: [Connector; 13] = [
    // YugabyteDB's connector calls itself `postgresql` too.
    Connector { names: &["postgresql", "yugabytedb"], log: &["lsn"], more: &["txId"] },
    Connector {
        names: &["mysql", "mariadb"],
        log: &["gtid", "pos"],
        more: &["server_id", "file", "row"],
    },
    // `ord` counts within one second of the cluster's clock.
    Connector {
        names: &["mongodb"],
        log: &["ord"],
        more: &["ts_ms", "wallTime", "h", "tord", "stxnid", "lsid", "txnNumber"],
    },
    Connector {
        names: &["oracle"],
        log: &["scn", "lcr_position"],
        more: &["commit_scn", "rs_id", "ssn", "redo_thread", "row_id", "txId"],
    },
    Connector {
        names: &["sqlserver"],
        log: &["change_lsn", "commit_lsn"],
        more: &["event_serial_no"],
    },
    Connector { names: &["db2"], log: &["change_lsn", "commit_lsn"], more: &[] },
    Connector {
        names: &["informix"],
        log: &["change_lsn", "commit_lsn"],
        more: &["begin_lsn", "txId"],
    },
    Connector { names: &["cassandra"], log: &["pos", "file"], more: &[] },
    Connector { names: &["vitess"], log: &["vgtid", "gtid"], more: &["shard"] },
    // A sequence counts within one transaction and partition.
    Connector {
        names: &["spanner"],
        log: &["server_transaction_id", "record_sequence"],
        more: &["partition_token", "mod_number"],
    },
    // `file`, `pos` and `row` are there and always empty.
    Connector { names: &["ticdc"], log: &["commit_ts"], more: &[] },
    // A row that is read again for a new column has its old `mvcc_timestamp`.
    Connector { names: &["cockroachdb"], log: &["mvcc_timestamp"], more: &[] },
    // Debezium's own connector for it says the other one only.
    Connector { names: &["cockroachdb"], log: &["ts_hlc"], more: &[] },
];

/// How a position's name ends in the `source` of any other connector.
const POSITION_ENDS: [&str; 8] =
    ["lsn", "scn", "gtid", "pos", "position", "offset", "seq", "_sequence"];

/// Times of the cluster's clock that are part of a position.
const TIMES: [&str; 2] = ["ts_ms", "wallTime"];
/// When a row of a snapshot was read; equal rows may share a millisecond, and nothing finer.
const READ_TIMES: [&str; 3] = ["ts_ms", "ts_us", "ts_ns"];

/// What a source block says of one change.
#[derive(Debug)]
pub(super) struct ChangePosition {
    /// Everything that tells the change from others but its record.
    pub(super) text: String,
    /// Whether a change that says the same has the same position in the log.
    pub(super) is_in_log: bool,
    /// Whether it is a row of a snapshot: all of those share one position.
    pub(super) is_snapshot: bool,
    /// The change's place in its transaction, where it is not the first.
    pub(super) total_order: Option<String>,
}

impl ChangePosition {
    /// The position of a change with this operation.
    pub(super) fn of(origin: &ChangeSource<'_, '_>, op: &str) -> Self {
        let flag = origin.text("snapshot");
        let is_snapshot = op == "r" || flag.is_some_and(|flag| flag != "false");
        let mut text = String::new();
        for name in PLACE {
            push(&mut text, name, origin.text(name).as_deref());
        }
        let mut is_in_log = match connector(origin) {
            Some(connector) => connector.push(&mut text, origin, is_snapshot),
            None => push_all(&mut text, origin),
        };
        let order = origin.transaction("total_order").filter(|order| !is_zero(order));
        // Where nothing else is said, the place in the transaction is one.
        if !is_in_log && let (Some(id), Some(_)) = (origin.transaction("id"), &order) {
            push(&mut text, "transaction", Some(&id));
            is_in_log = true;
        }
        // The first of a transaction is what it was before transactions were told.
        let total_order = order.filter(|order| order != "1").map(|order| order.into_owned());
        push(&mut text, "total_order", total_order.as_deref());
        Self { text, is_in_log, is_snapshot, total_order }
    }

    /// Adds when a row of a snapshot was read, which is what tells it from others where nothing else
    /// does. `outer` are the times of the envelope; `names_row` is whether the row has a key: then a
    /// millisecond is enough.
    pub(super) fn push_times(
        &mut self,
        origin: &ChangeSource<'_, '_>,
        outer: [Option<&str>; 3],
        names_row: bool,
    ) {
        self.is_in_log = false;
        for (name, outer) in READ_TIMES.into_iter().zip(outer) {
            for time in [origin.text(name).as_deref(), outer] {
                self.is_in_log |= time.is_some() && (names_row || name != READ_TIMES[0]);
                push(&mut self.text, name, time);
            }
        }
    }
}

impl Connector {
    /// Whether there is a position.
    fn push(&self, text: &mut String, origin: &ChangeSource<'_, '_>, is_snapshot: bool) -> bool {
        let mut is_in_log = false;
        for name in self.log {
            let value = origin.text(name).filter(|value| !is_zero(value));
            is_in_log |= value.is_some();
            push(text, name, value.as_deref());
        }
        let mut has_time = false;
        for name in self.more {
            let is_time = TIMES.contains(name);
            // The rows of a snapshot have the time at which they were read.
            if is_time && is_snapshot {
                continue;
            }
            let value = origin.text(name);
            has_time |= is_time && value.as_deref().is_some_and(|value| !is_zero(value));
            push(text, name, value.as_deref());
        }
        let needs_time = self.more.contains(&TIMES[0]) && !is_snapshot;
        push(text, "sequence", last_of_sequence(origin).as_deref());
        is_in_log && (has_time || !needs_time)
    }
}

/// Which connector this is, if it is one that is known.
fn connector(origin: &ChangeSource<'_, '_>) -> Option<&'static Connector> {
    let name = origin.text("connector").or_else(|| origin.text("origin"));
    // A flattened row seldom says its connector, and no other one counts like MongoDB's.
    let name = name.or_else(|| origin.get("ord").map(|_| "mongodb".into()))?;
    let mut all = CONNECTORS
        .iter()
        .filter(|connector| connector.names.iter().any(|known| name.eq_ignore_ascii_case(known)));
    let first = all.next()?;
    // The next of the same name serves where the first finds nothing.
    let finds = |it: &&Connector| it.log.iter().any(|log| origin.get(log).is_some());
    Some(std::iter::once(first).chain(all).find(finds).unwrap_or(first))
}

/// What a connector that nobody knows says under a name that means a position to others, or looks
/// like one. Whether there is a position.
fn push_all(text: &mut String, origin: &ChangeSource<'_, '_>) -> bool {
    let mut is_in_log = false;
    for (name, value) in origin.all() {
        let is = |known: &&str| letters(&name).eq(letters(known));
        let is_log = CONNECTORS.iter().any(|connector| connector.log.iter().any(is))
            || POSITION_ENDS.iter().any(|end| name.to_ascii_lowercase().ends_with(end));
        let is_more = CONNECTORS.iter().any(|connector| connector.more.iter().any(is))
            && !TIMES.iter().any(is);
        if is_log || is_more {
            is_in_log |= is_log && !is_zero(&value);
            push(text, &name, Some(&value));
        }
    }
    let sequence = last_of_sequence(origin);
    is_in_log |= sequence.is_some();
    push(text, "sequence", sequence.as_deref());
    is_in_log
}

/// `sequence` is the text of an array: where the connector stood, which is another place after a
/// restart, and where the change stands.
fn last_of_sequence(origin: &ChangeSource<'_, '_>) -> Option<String> {
    let sequence: Vec<Option<String>> = serde_json::from_str(&origin.text("sequence")?).ok()?;
    sequence.into_iter().next_back().flatten().filter(|last| !is_zero(last))
}

/// Whether a position is the one that connectors give where they have none.
pub(super) fn is_zero(text: &str) -> bool {
    text == "-1" || text.bytes().all(|byte| matches!(byte, b'0' | b':' | b'/' | b'.' | b'-'))
}

fn push(text: &mut String, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        text.push('\0');
        text.push_str(name);
        text.push('=');
        text.push_str(value);
    }
}
