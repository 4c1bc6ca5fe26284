//! Debezium envelopes: `before`, `after`, `source`, `op`, `ts_ms`, bare, in Kafka Connect's
//! `{"schema", "payload"}`, or in the `data` of a CloudEvent.
//!
//! The envelope is always kept whole in `payload`: `source` says more than the columns hold.

use super::{Cell, Draft, Fault, cell::op, excerpt, find};
use crate::event::{
    json::{self, Kind, Member, Value},
    names,
};
use icecore_schemas::error_code::ErrorCode;
use std::borrow::Cow;
use xxhash_rust::xxh3::xxh3_128;

/// What in `source` tells one change from all others of all connectors.
const POSITION: [&str; 14] = [
    "name",
    "db",
    "schema",
    "table",
    "collection",
    "file",
    "pos",
    "row",
    "lsn",
    "scn",
    "change_lsn",
    "event_serial_no",
    "ord",
    "txId",
];
/// Without one of these, `source` does not say where in the log the change was.
const LOG_POSITION: [&str; 5] = ["lsn", "pos", "scn", "change_lsn", "ord"];

/// How the attributes begin that Debezium's converter makes of `op` and `source`.
const ATTRIBUTE_PREFIX: &str = "iodebezium";

/// What an envelope says where the event itself says nothing.
#[derive(Debug, Default)]
pub(super) struct Derived<'a> {
    pub(super) event_type: Option<&'static str>,
    pub(super) id: Option<String>,
    pub(super) ts_ms: Option<Value<'a>>,
}

impl<'a> Draft<'_, 'a> {
    /// Whether this event is an envelope: in other events `source` is a text.
    pub(super) fn is_envelope(&self) -> bool {
        self.has(names::OP)
            && self.value(names::SOURCE).is_some_and(|source| source.kind == Kind::Object)
    }

    /// The envelope in Kafka Connect's wrapper, if this is one.
    pub(super) fn wrapped_change(&self) -> Option<Value<'a>> {
        if self.has(names::TYPE) || self.has(names::OP) {
            return None;
        }
        let payload = self.value(names::WRAPPED).filter(|value| value.kind == Kind::Object)?;
        let inner = json::members_of(payload);
        let has = |name| find(&inner, name).is_some();
        (has("op") && has("source")).then_some(payload)
    }

    /// Fills the columns that an envelope fills in its own way.
    pub(super) fn envelope(&mut self) -> Result<(), Fault> {
        self.is_lossy = true;
        let source = self.value(names::SOURCE).map(json::members_of).unwrap_or_default();
        let source = Origin::Source(source);
        self.forget(names::SOURCE);
        let op = change_op(self.value(names::OP))?;
        self.put(names::OP, Cell::Text(Cow::Borrowed(op)));
        self.forget(names::OP);
        for image in [names::BEFORE, names::AFTER] {
            self.mongodb_image(image);
        }
        self.origin(&source, self.value(names::TRANSACTION));
        self.change.ts_ms = self.value(names::TS_MS).or_else(|| source.get("ts_ms"));
        if self.value(names::KEY).is_none() {
            self.key_from_image();
        }
        self.change.event_type = Some(event_type(op));
        if self.value(names::ID).is_none() {
            self.change.id = self.id_from_position(&source, op);
        }
        Ok(())
    }

    /// Fills the columns of the change that a CloudEvent's `data` is, if it is one: the whole
    /// envelope, or what Debezium's own converter leaves of it, which puts `op` and `source` among the
    /// attributes. What the attributes of CloudEvents say stays.
    pub(super) fn change_in_data(&mut self) -> Result<(), Fault> {
        let wrapped = find(self.data, "schema").and(find(self.data, "payload"));
        let wrapped = wrapped.filter(|value| value.kind == Kind::Object).map(json::members_of);
        let data = wrapped.as_deref().unwrap_or(self.data);
        let attributes = Origin::Attributes(self.top);
        let source = find(data, "source").filter(|value| value.kind == Kind::Object);
        let (origin, op) = match (source, find(data, "op"), attributes.get("op")) {
            (_, _, Some(op)) => (attributes, op),
            (Some(source), Some(op), None) => (Origin::Source(json::members_of(source)), op),
            _ => return Ok(()),
        };
        self.is_lossy = true;
        let op = change_op(Some(op))?;
        if self.value(names::OP).is_none() {
            self.put(names::OP, Cell::Text(Cow::Borrowed(op)));
            self.forget(names::OP);
        }
        let images = [(names::BEFORE, find(data, "before")), (names::AFTER, find(data, "after"))];
        let images = match images {
            // Debezium can be told to send the record alone.
            [(_, None), (_, None)] => {
                let image = if op == "d" { names::BEFORE } else { names::AFTER };
                [(image, self.value(names::DATA)), (image, None)]
            }
            images => images,
        };
        for (image, value) in images {
            if let Some(value) = value
                && self.value(image).is_none()
            {
                self.put(image, Cell::Text(image_text(value)));
            }
        }
        self.origin(&origin, find(data, "transaction"));
        self.change.ts_ms = find(data, "ts_ms").or_else(|| origin.get("ts_ms"));
        if self.value(names::KEY).is_none() {
            self.key_from_image();
        }
        self.change.event_type = Some(event_type(op));
        // The converter makes `id` of the log position, which all rows of a snapshot share.
        if let Origin::Attributes(_) = origin
            && let Some(id) = self.id_from_position(&origin, op)
        {
            self.change.id = Some(id);
            self.forget(names::ID);
        }
        Ok(())
    }

    /// MongoDB's connector writes documents as text; one that is an object is taken as that.
    fn mongodb_image(&mut self, image: usize) {
        let Some(value) = self.value(image) else { return };
        if let Some(text) = document_text(value) {
            self.put(image, Cell::Text(text));
            self.forget(image);
        }
    }

    /// Database and table, log position and transaction.
    fn origin(&mut self, source: &Origin<'_, 'a>, transaction: Option<Value<'a>>) {
        let text = |name| source.get(name).and_then(|value| value.text());
        let database = text("db").filter(|name| !name.is_empty());
        let store = match (database, text("schema").filter(|name| !name.is_empty())) {
            (Some(database), Some(schema)) => Some(Cow::Owned(format!("{database}.{schema}"))),
            (database, schema) => database.or(schema),
        };
        let texts = [
            (names::STORE, store),
            (names::COLLECTION, text("table").or_else(|| text("collection"))),
            (names::SOURCE, text("name").or_else(|| text("connector"))),
        ];
        for (column, text) in texts {
            if let Some(text) = text
                && self.value(column).is_none()
            {
                self.put(column, Cell::Text(text));
            }
        }
        let transaction = transaction.map(json::members_of).unwrap_or_default();
        let txid = source.get("txId").or_else(|| find(&transaction, "id"));
        let lsn = LOG_POSITION.into_iter().find_map(|name| source.get(name));
        for (column, value) in [(names::TXID, txid), (names::LSN, lsn)] {
            if let Some(value) = value
                && self.value(column).is_none()
            {
                self.put_if_it_fits(column, value);
            }
        }
    }

    /// The record's text, as it will be in the column.
    fn image(&self, image: usize) -> Option<Cow<'a, str>> {
        let cell = self.cells.iter().find(|(column, _)| usize::from(*column) == image);
        match cell {
            Some((_, Cell::Text(text))) => Some(text.clone()),
            _ => self.value(image).map(|value| Cow::Borrowed(value.raw)),
        }
    }

    fn key_from_image(&mut self) {
        let image = self.image(names::AFTER).or_else(|| self.image(names::BEFORE));
        let Some(image) = image else { return };
        let Some(record) = json::one_value(&image).filter(|value| value.kind == Kind::Object)
        else {
            return;
        };
        let members = json::members_of(record);
        let Some(id) = find(&members, "id").or_else(|| find(&members, "_id")) else { return };
        let key = id.text().map_or_else(|| id.raw.to_owned(), Cow::into_owned);
        self.put(names::KEY, Cell::Text(Cow::Owned(key)));
    }

    /// The same change gets the same id however often the connector sends it. Rows of one
    /// snapshot share a log position, so the record is part of it.
    fn id_from_position(&self, source: &Origin<'_, 'a>, op: &str) -> Option<String> {
        LOG_POSITION.into_iter().find_map(|name| source.get(name))?;
        let mut text = op.to_owned();
        for name in POSITION {
            text.push('\0');
            text.push_str(source.get(name).map_or("", |value| value.raw));
        }
        for image in [names::BEFORE, names::AFTER] {
            text.push('\0');
            text.push_str(&self.image(image).unwrap_or_default());
        }
        Some(format!("{:032x}", xxh3_128(text.as_bytes())))
    }
}

/// Where a change comes from.
enum Origin<'m, 'a> {
    /// The members of an envelope's `source`.
    Source(Vec<Member<'a>>),
    /// The attributes of a CloudEvent, among them those that Debezium's converter made of `source`:
    /// `txId` is `iodebeziumtxid` there, `ts_ms` is `iodebeziumtsms`.
    Attributes(&'m [Member<'a>]),
}

impl<'a> Origin<'_, 'a> {
    fn get(&self, name: &str) -> Option<Value<'a>> {
        let members = match self {
            Self::Source(members) => return find(members, name),
            Self::Attributes(members) => members,
        };
        let means = |member: &&Member<'a>| {
            let attribute = member.name.raw.trim_matches('"').strip_prefix(ATTRIBUTE_PREFIX);
            let letters = name.bytes().filter(u8::is_ascii_alphanumeric);
            let wanted = letters.map(|letter| letter.to_ascii_lowercase());
            attribute.is_some_and(|attribute| wanted.eq(attribute.bytes()))
        };
        members.iter().find(means).map(|it| it.value).filter(|value| value.kind != Kind::Null)
    }
}

fn change_op(value: Option<Value<'_>>) -> Result<&'static str, Fault> {
    let text = value.and_then(|value| value.text());
    text.and_then(|text| op(&text)).ok_or_else(|| {
        Fault::new(
            ErrorCode::InvalidEvent,
            format!(
                "`op` of a Debezium envelope must be c, u, d or r, not {}",
                excerpt(value.map_or("null", |value| value.raw))
            ),
        )
    })
}

fn event_type(op: &str) -> &'static str {
    match op {
        "c" => "cdc.insert",
        "u" => "cdc.update",
        "d" => "cdc.delete",
        _ => "cdc.read",
    }
}

/// A record's JSON.
fn image_text(value: Value<'_>) -> Cow<'_, str> {
    document_text(value).unwrap_or(Cow::Borrowed(value.raw))
}

/// The object that a text holds, as MongoDB's connector writes documents.
fn document_text(value: Value<'_>) -> Option<Cow<'_, str>> {
    let text = value.text()?;
    json::one_value(&text).is_some_and(|inner| inner.kind == Kind::Object).then_some(text)
}
