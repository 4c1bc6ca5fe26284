//! Changes of databases as Debezium and its kin send them: envelopes with `before`, `after`, `source`
//! and `op`, bare, in Kafka Connect's `{"schema", "payload"}`, or in the `data` of a CloudEvent; and
//! changes in the event's own words that need no type.
//!
//! An envelope is always kept whole in `payload`: `source` says more than the columns hold. Its one
//! invariant: a change that is sent again, by a connector that was restarted or over a connection that
//! broke, has the id and the content that it had.

mod changefeed;
mod flat;
mod former;
mod origin;
mod position;
mod record;

use super::{CellValue, EventDraft, cell::op, content::NOT_CONTENT, find};
use crate::event::{
    digest::digest,
    json::{self, JsonKind, JsonValue},
    names,
};
use icecore_schemas::service_table::TRUNCATE_TYPE;
use origin::{ChangeSource, attribute};
use position::ChangePosition;
pub(super) use record::ConnectRecord;
pub(crate) use record::is_among_cloud_events;
use std::borrow::Cow;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// What is first looked at of a change's position for the column `lsn`.
const LOG_POSITION: [&str; 7] =
    ["lsn", "commit_ts", "pos", "scn", "change_lsn", "mvcc_timestamp", "ord"];

/// Members of an envelope that its identity has, or that are another whenever it is sent.
const IN_IDENTITY: [&str; 13] = [
    "before",
    "prev",
    "after",
    "doc",
    "op",
    "transaction",
    "ts_ms",
    "ts_us",
    "ts_ns",
    "schema",
    "data",
    "time",
    "dataschema",
];

/// Columns whose value is the key of a row, the first one first. Some databases write names in capitals.
const ID_COLUMNS: [&str; 4] = ["id", "_id", "ID", "Id"];

/// Columns that name a row, in lower case. A table's own name before `_id` does too.
const KEY_COLUMNS: [&str; 5] = ["id", "_id", "uuid", "pk", "key"];

/// What a record of a database says where the event itself says nothing.
#[derive(Debug, Default)]
pub(super) struct DerivedFields<'a> {
    pub(super) event_type: Option<&'static str>,
    pub(super) id: Option<String>,
    pub(super) ts: Option<JsonValue<'a>>,
    /// Whether the time of arrival stands in for a time outside of the window: of a record whose time
    /// is not what it is about.
    pub(super) is_ts_loose: bool,
    pub(super) content: Option<u64>,
    pub(super) former: Option<FormerIdentity>,
}

/// The identity that version 0.1.0 gave an event, where that is another one now.
#[derive(Debug)]
pub(crate) struct FormerIdentity {
    /// None: the same id.
    pub(crate) id: Option<String>,
    pub(crate) content: u64,
    /// Whether no other change had that id.
    pub(crate) is_certain: bool,
}

impl<'a> EventDraft<'_, 'a> {
    /// Takes a record of a database's, if this is one.
    pub(super) fn database_record(&mut self) -> bool {
        if self.is_flat_row() {
            self.flat_row();
        } else if self.has(names::OP) && self.is_object(names::SOURCE) {
            self.envelope();
        } else if self.value(names::TYPE).is_some() {
            return false;
        } else if self.is_changefeed() {
            self.changefeed();
        } else {
            return self.service_record();
        }
        true
    }

    fn is_object(&self, slot: usize) -> bool {
        self.value(slot).is_some_and(|value| value.kind == JsonKind::Object)
    }

    /// Fills the columns that an envelope fills in its own way.
    fn envelope(&mut self) {
        self.is_lossy = true;
        let origin =
            ChangeSource::source(self.value(names::SOURCE), self.value(names::TRANSACTION));
        self.forget(names::SOURCE);
        let operation = ChangeOperation::of(self.value(names::OP));
        if let Some(op) = operation.op {
            self.put(names::OP, CellValue::Text(Cow::Borrowed(op)));
        }
        self.forget(names::OP);
        for image in [names::BEFORE, names::AFTER] {
            self.mongodb_image(image);
        }
        // Old connectors for MongoDB send what its log says of an update as text, which is no patch of ours.
        if self.value(names::PATCH).is_some_and(|patch| patch.text().is_some()) {
            self.forget(names::PATCH);
        }
        self.describe(&origin, &operation);
        self.change.ts = self.own_time().or_else(|| time_of(&origin));
    }

    /// Fills the columns of the change that a CloudEvent's `data` is, if it is one: the whole
    /// envelope, or what Debezium's own converter leaves of it, which puts `op` and `source` among the
    /// attributes. What the attributes of CloudEvents say stays.
    pub(super) fn change_in_data(&mut self) {
        let has = |name: &str| self.data.iter().any(|member| member.name.raw == name);
        let wrapped = find(self.data, "payload").filter(|_| has("\"schema\""));
        let wrapped = wrapped.filter(|value| value.kind == JsonKind::Object).map(json::members_of);
        let data = wrapped.as_deref().unwrap_or(self.data);
        let transaction = find(data, "transaction");
        let attributes = ChangeSource::attributes(self.top, transaction);
        let source = find(data, "source").filter(|value| value.kind == JsonKind::Object);
        let (origin, op) = match (source, find(data, "op"), attributes.get("op")) {
            (_, _, Some(op)) => (attributes, op),
            (Some(source), Some(op), None) => (ChangeSource::source(Some(source), transaction), op),
            _ => {
                let content = self.content;
                self.change.former = Some(FormerIdentity { id: None, content, is_certain: false });
                return;
            }
        };
        let operation = ChangeOperation::of(Some(op));
        if self.value(names::OP).is_none()
            && let Some(op) = operation.op
        {
            self.put(names::OP, CellValue::Text(Cow::Borrowed(op)));
            self.forget(names::OP);
        }
        let images = [(names::BEFORE, find(data, "before")), (names::AFTER, find(data, "after"))];
        let images = match images {
            // Debezium can be told to send the record alone.
            [(_, None), (_, None)] if operation.op.is_some() => {
                let image = if operation.op == Some("d") { names::BEFORE } else { names::AFTER };
                [(image, self.value(names::DATA)), (image, None)]
            }
            images => images,
        };
        for (image, value) in images {
            if let Some(value) = value
                && self.value(image).is_none()
            {
                self.put(image, CellValue::Text(image_text(value)));
            }
        }
        let times = ["ts_ms", "ts_us", "ts_ns"].into_iter().find_map(|name| find(data, name));
        self.describe(&origin, &operation);
        self.change.ts = times.or_else(|| time_of(&origin));
    }

    /// What the event is where it has no type but says that it is a change.
    pub(super) fn change_without_type(&mut self) {
        let word = self.value(names::OP);
        let said = word.and_then(|value| op(&value.text()?));
        let is_somewhere = [names::STORE, names::COLLECTION, names::PATCH]
            .into_iter()
            .any(|slot| self.value(slot).is_some());
        if said.is_none() && !is_somewhere {
            return;
        }
        let op = said.unwrap_or_else(|| {
            match (self.value(names::BEFORE).is_some(), self.value(names::AFTER).is_some()) {
                _ if self.value(names::PATCH).is_some() => "u",
                (false, true) => "c",
                (true, false) => "d",
                _ => "u",
            }
        });
        if said.is_none() {
            self.forget(names::OP);
            match word {
                None => self.put(names::OP, CellValue::Text(Cow::Borrowed(op))),
                // A word for something else: the column is null, whatever the type and `data` say.
                Some(_) => {
                    self.is_lossy = true;
                    self.filled.add(names::OP);
                }
            }
        }
        let is_truncate = word
            .and_then(|value| value.text())
            .is_some_and(|word| ["t", "truncate"].contains(&&*word.to_ascii_lowercase()));
        self.change.event_type = Some(if is_truncate { TRUNCATE_TYPE } else { event_type(op) });
        self.change.ts = self.own_time();
    }

    /// The time of an envelope.
    fn own_time(&self) -> Option<JsonValue<'a>> {
        [names::TS_MS, names::TS_US, names::TS_NS].into_iter().find_map(|slot| self.value(slot))
    }

    /// MongoDB's connector writes documents as text; one that is an object is taken as that.
    fn mongodb_image(&mut self, image: usize) {
        let Some(value) = self.value(image) else { return };
        if let Some(text) = document_text(value) {
            self.put(image, CellValue::Text(text));
            self.forget(image);
        }
    }

    /// Where the change comes from, which one it is, and what kind.
    fn describe(&mut self, origin: &ChangeSource<'_, 'a>, operation: &ChangeOperation<'_>) {
        self.place(origin);
        self.identify(origin, operation);
        match self.value(names::KEY) {
            None => self.key_from_image(origin),
            Some(key) if origin.text("origin").as_deref() == Some(changefeed::ORIGIN) => {
                self.single_key(key);
            }
            Some(_) => {}
        }
        self.change.event_type = Some(operation.event_type());
    }

    /// Database and table, log position and transaction.
    fn place(&mut self, origin: &ChangeSource<'_, 'a>) {
        let first = |names: &[&str]| {
            names.iter().find_map(|name| origin.text(name).filter(|text| !text.is_empty()))
        };
        let database = first(&["db", "database_name", "keyspace", "database_id"]);
        let store = match (database, first(&["schema", "schema_name"])) {
            (Some(database), Some(schema)) => Some(Cow::Owned(format!("{database}.{schema}"))),
            (database, schema) => database.or(schema),
        };
        let texts = [
            (names::STORE, store),
            (names::COLLECTION, first(&["table", "table_name", "collection"])),
            (names::SOURCE, first(&["name", "connector", "origin"])),
        ];
        for (column, text) in texts {
            if let Some(text) = text
                && self.value(column).is_none()
                && !self.is_filled(column)
            {
                self.put(column, CellValue::Text(text));
            }
        }
        let txid = ["txId", "server_transaction_id"].into_iter().find_map(|name| origin.text(name));
        let txid = txid.or_else(|| origin.transaction("id"));
        if let Some(txid) = txid
            && self.value(names::TXID).is_none()
        {
            self.put(names::TXID, CellValue::Text(txid));
        }
        if self.value(names::LSN).is_none()
            && let Some(lsn) = LOG_POSITION.into_iter().find_map(|name| log_position(origin, name))
        {
            self.put(names::LSN, CellValue::Long(lsn));
        }
    }

    /// The record's text, as it will be in the column.
    fn image(&self, image: usize) -> Option<Cow<'a, str>> {
        let cell = self.cells.iter().find(|(column, _)| usize::from(*column) == image);
        match cell {
            Some((_, CellValue::Text(text))) => Some(text.clone()),
            _ => self.value(image).map(|value| Cow::Borrowed(value.raw)),
        }
    }

    fn key_from_image(&mut self, origin: &ChangeSource<'_, 'a>) {
        let image = self.image(names::AFTER).or_else(|| self.image(names::BEFORE));
        let Some(image) = image else { return };
        let Some(record) = json::one_value(&image).filter(|value| value.kind == JsonKind::Object)
        else {
            return;
        };
        let members = json::members_of(record);
        let key_columns = origin.get("primary_keys").map(|keys| keys.raw).unwrap_or_default();
        let key_columns: Vec<String> = serde_json::from_str(key_columns).unwrap_or_default();
        let primary = match key_columns.as_slice() {
            [one] => find(&members, one),
            _ => None,
        };
        let id = || ID_COLUMNS.into_iter().find_map(|name| find(&members, name));
        let Some(id) = primary.or_else(id) else { return };
        let key = id.text().map_or_else(|| id.raw.to_owned(), Cow::into_owned);
        self.put(names::KEY, CellValue::Text(Cow::Owned(key)));
    }

    /// Gives the change its id, unless the sender did, and its content.
    fn identify(&mut self, origin: &ChangeSource<'_, 'a>, operation: &ChangeOperation<'_>) {
        let op = operation.op.unwrap_or(&operation.text);
        let images = [names::BEFORE, names::AFTER].map(|image| self.image(image));
        let key = self.value(names::KEY).map(|value| digest(value));
        let names_row = key.is_some()
            || images.iter().flatten().any(|image| has_key(image, origin.text("table").as_deref()));
        let mut position = ChangePosition::of(origin, op);
        if position.is_snapshot && !(names_row && position.is_in_log) {
            // Rows that are equal are as many as the table has, if anything tells them apart.
            let times = [names::TS_MS, names::TS_US, names::TS_NS];
            let outer = times.map(|slot| self.value(slot).map(|it| it.raw));
            position.push_times(origin, outer, names_row);
        }
        // What the converter calls the change, unless it calls all rows of a snapshot that.
        let own_id = self.value(names::ID);
        if let (true, false, false, Some(id)) =
            (origin.is_attributes(), position.is_in_log, position.is_snapshot, own_id)
        {
            position.text.push_str(id.raw);
            position.is_in_log = true;
        }
        let mut text = format!("2\0{op}{}", position.text);
        let message = find(self.top, "message").or_else(|| find(self.data, "message"));
        let message = message.filter(|_| operation.text == "m").map(digest);
        let digests = images.iter().map(|image| image.as_deref().map(digest_of));
        for digest in digests.chain([key, message]) {
            text.push_str(&digest.map_or_else(|| "\0".to_owned(), |it| format!("\0{it:032x}")));
        }
        let hash = xxh3_128(text.as_bytes());
        let mut content = hash as u64;
        let former_id = || {
            let images = [0, 1].map(|at| images[at].as_deref().unwrap_or_default());
            former::id(origin, op, images)
        };
        let replaces_id = own_id.is_none() || origin.is_attributes();
        let former_id = if replaces_id { former_id() } else { None };
        if replaces_id {
            self.forget(names::ID);
            self.change.id = position.is_in_log.then(|| format!("{hash:032x}"));
        } else {
            content = content.wrapping_add(self.other_members());
        }
        let log = ["lsn", "pos", "scn", "change_lsn"];
        let is_certain = log.iter().any(|name| log_text(origin, name).is_some())
            && (names_row || (position.total_order.is_none() && !position.is_snapshot));
        // Without an id of that version's making the event had a new one each time.
        if !replaces_id || former_id.is_some() {
            let former = FormerIdentity { id: former_id, content: self.content, is_certain };
            self.change.former = Some(former);
        }
        self.change.content = Some(content.max(1));
    }

    /// What an event with an id of its own says beside the change.
    fn other_members(&self) -> u64 {
        let is_cloud_event = self.has(names::SPEC_VERSION);
        let counts = |name: &str| {
            let bare = name.trim_matches('"');
            let is_source = bare == "source" && !is_cloud_event;
            !is_source && !IN_IDENTITY.contains(&bare) && !NOT_CONTENT.contains(&name)
        };
        let top = json::last_of_each(self.top);
        let members =
            top.iter().filter(|member| attribute(member).is_none() && counts(member.name.raw));
        members.fold(0, |sum: u64, member| {
            let text = format!("{}:{}", member.name.raw, member.value.raw);
            sum.wrapping_add(xxh3_64(text.as_bytes()))
        })
    }
}

/// What a change does.
struct ChangeOperation<'t> {
    /// The column's letter, for one that changes rows.
    op: Option<&'static str>,
    text: Cow<'t, str>,
}

impl<'t> ChangeOperation<'t> {
    fn of(value: Option<JsonValue<'t>>) -> Self {
        let text = value.and_then(|value| value.text()).unwrap_or(Cow::Borrowed(""));
        Self { op: op(&text), text }
    }

    fn event_type(&self) -> &'static str {
        match (self.op, &*self.text) {
            (Some(op), _) => event_type(op),
            (None, "t") => TRUNCATE_TYPE,
            (None, "m") => "debezium.message",
            (None, _) => record::OTHER,
        }
    }
}

/// The letter of the change that a type like `collection.update` names.
pub(super) fn op_of_type(event_type: &str) -> Option<&'static str> {
    if !event_type.starts_with("cdc.") && !event_type.starts_with("collection.") {
        return None;
    }
    // A type of one letter more is a name that somebody gave a collection.
    let (_, word) = event_type.rsplit_once('.')?;
    op(word).filter(|_| word.len() > 1)
}

fn event_type(op: &str) -> &'static str {
    match op {
        "c" => "cdc.insert",
        "u" => "cdc.update",
        "d" => "cdc.delete",
        _ => "cdc.read",
    }
}

/// The time that `source` says, which is the database's.
fn time_of<'a>(origin: &ChangeSource<'_, 'a>) -> Option<JsonValue<'a>> {
    ["ts_ms", "ts_us", "ts_ns"].into_iter().find_map(|name| origin.get(name))
}

/// A position that is not the one of a connector that has none.
fn log_text<'a>(origin: &ChangeSource<'_, 'a>, name: &str) -> Option<Cow<'a, str>> {
    origin.text(name).filter(|text| !position::is_zero(text))
}

/// The same as a number, if it is one.
fn log_position(origin: &ChangeSource<'_, '_>, name: &str) -> Option<i64> {
    let value = origin.get(name).filter(|_| log_text(origin, name).is_some())?;
    match super::convert(names::LSN, value) {
        Some(CellValue::Long(lsn)) => Some(lsn),
        // CockroachDB's clock: nanoseconds, a point and a counter.
        _ => value.text()?.split_once('.')?.0.parse().ok(),
    }
}

/// Whether a record has a column that names its row.
fn has_key(image: &str, table: Option<&str>) -> bool {
    let table = table.unwrap_or_default().to_lowercase();
    let mut found = false;
    let Some(record) = json::one_value(image) else { return false };
    json::each_member(record, |member| {
        let name = member.name.text().unwrap_or_default().to_lowercase();
        let owner = name.strip_suffix("id").map(|owner| owner.trim_end_matches('_'));
        let is_own = owner.is_some_and(|owner| {
            !owner.is_empty() && (table == owner || table.strip_suffix('s') == Some(owner))
        });
        let is_key = is_own || KEY_COLUMNS.contains(&&*name);
        found |= is_key && member.value.kind != JsonKind::Null;
    });
    found
}

fn digest_of(text: &str) -> u128 {
    json::one_value(text).map_or_else(|| xxh3_128(text.as_bytes()), digest)
}

/// A record's JSON.
fn image_text(value: JsonValue<'_>) -> Cow<'_, str> {
    document_text(value).unwrap_or(Cow::Borrowed(value.raw))
}

/// The object that a text holds, as MongoDB's connector writes documents.
fn document_text(value: JsonValue<'_>) -> Option<Cow<'_, str>> {
    let text = value.text()?;
    json::one_value(&text).is_some_and(|inner| inner.kind == JsonKind::Object).then_some(text)
}
