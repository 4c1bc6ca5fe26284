//! Records that stand beside the changes: heartbeats, the begin and end of transactions, changes of
//! schema, CockroachDB's resolved timestamps. Each is an event of a type of its own, so that none is
//! refused: a connector whose record is refused stops.

use super::{ChangePosition, ChangeSource, digest, find, time_of};
use crate::event::{
    json::{EventParts, JsonKind, JsonValue},
    names,
    normalize::{CellValue, EventDraft},
};
use std::borrow::Cow;
use xxhash_rust::xxh3::xxh3_128;

const HEARTBEAT: &str = "debezium.heartbeat";
const TRANSACTION: &str = "debezium.transaction";
const SCHEMA_CHANGE: &str = "debezium.schema_change";
const RESOLVED: &str = "cockroachdb.resolved";
/// A record of Kafka Connect's that says nothing of what it is.
pub(super) const OTHER: &str = "debezium.record";

/// Members that only a change of schema has.
const OF_SCHEMA_CHANGE: [&str; 3] = ["\"ddl\"", "\"tableChanges\"", "\"databaseName\""];

impl<'a> EventDraft<'_, 'a> {
    /// Takes such a record, if this is one.
    pub(super) fn service_record(&mut self) -> bool {
        let has = |name: &str| self.top.iter().any(|member| member.name.raw == name);
        let status = find(self.top, "status").and_then(|status| status.text());
        let is_only = |slots: &[usize]| {
            let members = slots.iter().filter(|slot| self.has(**slot)).count();
            0 < members && members == self.top.len()
        };
        if self.is_object(names::SOURCE) && OF_SCHEMA_CHANGE.iter().any(|name| has(name)) {
            self.schema_change();
        } else if status.as_deref().is_some_and(|status| matches!(status, "BEGIN" | "END"))
            && self.value(names::ID).is_some()
            && (has("\"event_count\"") || has("\"data_collections\"") || has("\"ts_ms\""))
        {
            self.transaction_boundary(&status.unwrap_or_default());
        } else if is_only(&[names::TS_MS, names::TS_US, names::TS_NS]) {
            let identity = self.own_time().map(digest);
            self.service(HEARTBEAT, identity);
        } else if let ([_], Some(resolved)) = (self.top, find(self.top, "resolved")) {
            self.service(RESOLVED, Some(digest(resolved)));
        } else {
            return false;
        }
        true
    }

    /// A record of which nothing is known but that Kafka Connect wrapped it.
    pub(in crate::event::normalize) fn other_record(&mut self) {
        self.service(OTHER, None);
    }

    fn transaction_boundary(&mut self, status: &str) {
        let Some(id) = self.value(names::ID) else { return };
        let text = id.text().unwrap_or(Cow::Borrowed(id.raw));
        let identity = xxh3_128(format!("{status}\0{text}").as_bytes());
        self.put(names::TXID, CellValue::Text(text));
        self.service(TRANSACTION, Some(identity));
    }

    fn schema_change(&mut self) {
        let origin =
            ChangeSource::source(self.value(names::SOURCE), self.value(names::TRANSACTION));
        for slot in [names::STORE, names::COLLECTION, names::SOURCE] {
            self.forget(slot);
        }
        self.place(&origin);
        let position = ChangePosition::of(&origin, "");
        let mut identity = position.text;
        for name in ["ddl", "databaseName", "schemaName", "tableChanges"] {
            let value = find(self.top, name).map_or(0, digest);
            identity.push_str(&format!("\0{value:032x}"));
        }
        let time = time_of(&origin);
        self.service(SCHEMA_CHANGE, position.is_in_log.then(|| xxh3_128(identity.as_bytes())));
        self.change.ts = self.change.ts.or(time);
    }

    /// Makes an event of this type of the record. What its members are called means nothing then.
    fn service(&mut self, event_type: &'static str, identity: Option<u128>) {
        self.is_lossy = true;
        self.change.ts = self.own_time();
        self.change.is_ts_loose = true;
        self.change.event_type = Some(event_type);
        if let Some(identity) = identity {
            let text = format!("{event_type}\0{identity:032x}");
            let hash = xxh3_128(text.as_bytes());
            self.change.id = Some(format!("{hash:032x}"));
            self.change.content = Some((hash as u64).max(1));
        }
        self.present.keep_only(names::NS);
    }
}

/// The record in Kafka Connect's wrapper. `payload` of other events is what their sender put there.
pub(in crate::event::normalize) enum ConnectRecord<'a> {
    /// The record.
    Record(JsonValue<'a>),
    /// The same, in a wrapper that only an envelope tells from other events.
    Perhaps(JsonValue<'a>),
    /// A deleted key's tombstone.
    Tombstone,
}

/// Whether an event that is no CloudEvent is what Debezium sends among those: its converter leaves
/// what is no change as it is.
pub(crate) fn is_among_cloud_events(parts: &EventParts<'_>) -> bool {
    let mut cells = Vec::new();
    let mut draft = EventDraft::new("", &parts.top, &parts.data, &mut cells, names::COLUMNS);
    draft.wrapped().is_some() || draft.database_record()
}

impl<'a> EventDraft<'_, 'a> {
    /// What is wrapped, if something is.
    pub(in crate::event::normalize) fn wrapped(&self) -> Option<ConnectRecord<'a>> {
        if self.has(names::TYPE) || self.has(names::OP) || !self.has(names::WRAPPED) {
            return None;
        }
        let has_schema = self.top.iter().any(|member| member.name.raw == "\"schema\"");
        let is_pair = has_schema && self.top.len() == 2;
        match self.value(names::WRAPPED) {
            None => is_pair.then_some(ConnectRecord::Tombstone),
            Some(value) if value.kind != JsonKind::Object => None,
            Some(value) if is_pair => Some(ConnectRecord::Record(value)),
            Some(value) => Some(ConnectRecord::Perhaps(value)),
        }
    }
}
