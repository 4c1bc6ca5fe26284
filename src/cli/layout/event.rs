//! One row of a file as the event that is sent.
//!
//! Copies of an event are written in several ways: a line of JSON, a row of Parquet, a row that has the event
//! in its column `payload`. So all are given one form: members have the names of columns, times are RFC 3339
//! in microseconds, JSON inside of texts is taken out, null members go. What two forms of one event say is
//! then the same, which its digest and the server's comparison rely on.

use crate::cli::{
    ingest::rows::JSON_COLUMNS,
    layout::{
        folder::{FileKind, FilePlace},
        identity::id_of,
    },
};
use chrono::{DateTime, SecondsFormat};
use icecore_lake::event::{
    bookmark,
    decode::file_ids::{column_of, digest_of, is_batch, may_get_id, time_us, values_of_line},
};
use icecore_schemas::names::KEPT_EVENT;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_128;

/// Members and the JSON texts of their values.
pub(super) type Members = BTreeMap<String, String>;

/// Of these an event has one, unless it is written in the words of something else.
const OWN_WORDS: [&str; 4] = ["type", "op", "store", "collection"];
/// Members of events in other words than ours: `CloudEvents`, rows of databases.
const FOREIGN_WORDS: [&str; 3] = ["specversion", "__op", "__deleted"];
/// Members of other records of databases. An event with a type may have them, too.
const RECORD_WORDS: [&str; 3] = ["ts_ms", "transaction", "resolved"];
/// Columns of a row that say what the whole event in it may lack.
const ROW_COLUMNS: [&str; 3] = ["id", "ns", "ts"];
/// Where the members of `do` belong.
const OBJECT_COLUMNS: &[(&str, &str)] = &[
    ("id", "do_id"),
    ("name", "do_name"),
    ("class", "do_class"),
    ("colo", "do_colo"),
    ("worker", "do_worker"),
];
/// Columns of a document's row that are about it and no part of it. A row with others is the document.
const DOCUMENT_COLUMNS: [&str; 20] = [
    "id",
    "_id",
    "key",
    "pk",
    "docId",
    "doc_id",
    "after",
    "doc",
    "data",
    "ts",
    "timestamp",
    "created_at",
    "createdAt",
    "updated_at",
    "updatedAt",
    "version",
    "bookmark",
    "collection",
    "op",
    "deleted",
];
/// Columns with a document's key, its text and its time, the better ones first.
const KEY_COLUMNS: [&str; 6] = ["key", "pk", "docId", "doc_id", "id", "_id"];
/// The same of a row that is the document.
const OWN_KEY_COLUMNS: [&str; 6] = ["id", "_id", "key", "pk", "docId", "doc_id"];
const TEXT_COLUMNS: [&str; 3] = ["after", "doc", "data"];
const TIME_COLUMNS: [&str; 4] = ["updated_at", "updatedAt", "ts", "timestamp"];
/// Where events without a namespace go.
pub(in crate::cli) const DEFAULT_NAMESPACE: &str = "default";
/// How many lists, batches and messages are taken apart that are in one another.
const NESTING_MAX: u8 = 4;

/// What an event is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) enum EventId {
    /// What it has itself; or nothing, where the server has to say what is wrong.
    Own,
    /// This id.
    Given(String),
    /// What it says, of which this is the digest.
    Content(u128),
}

/// A change of a document: its collection, and a digest that its copies share.
pub(in crate::cli) type DocumentChange = (String, u128);

/// An event to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct LayoutEvent {
    /// On one line.
    pub(in crate::cli) text: String,
    pub(in crate::cli) id: EventId,
    /// For an event or a delta that is one.
    pub(in crate::cli) change: Option<DocumentChange>,
}

impl LayoutEvent {
    /// What has no members that can be told, but may be an event to the server.
    fn as_it_is(text: &str) -> Self {
        let text = on_one_line(text);
        let may_get_id = may_get_id(text.as_bytes()) == Some(true);
        let id = if may_get_id { EventId::Content(digest(&text)) } else { EventId::Own };
        Self { text, id, change: None }
    }

    /// Its line, with this id if it has none.
    pub(in crate::cli) fn line(&self, id: Option<&str>) -> String {
        match (id, self.text.strip_suffix('}')) {
            (Some(id), Some(members)) => format!("{members},\"id\":\"{id}\"}}\n"),
            _ => format!("{}\n", self.text),
        }
    }
}

/// What makes events of the rows of one file.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) struct RowReader<'a> {
    pub(in crate::cli) place: &'a FilePlace,
    /// Whether the rows are of Parquet.
    pub(in crate::cli) is_table: bool,
    /// Where all events go, whatever they say.
    pub(in crate::cli) namespace: Option<&'a str>,
}

impl RowReader<'_> {
    /// The events of a row: one, or those of a list, a batch, a message or a line with several.
    pub(in crate::cli) fn events(&self, row: &[u8]) -> Vec<LayoutEvent> {
        let mut events = Vec::new();
        match std::str::from_utf8(row) {
            Ok(text) => self.push(text, NESTING_MAX, &mut events),
            // The server keeps it as a dead letter.
            Err(_) => events.push(LayoutEvent::as_it_is(&String::from_utf8_lossy(row))),
        }
        events
    }

    fn push(&self, text: &str, depth: u8, events: &mut Vec<LayoutEvent>) {
        if text.trim().is_empty() {
            return;
        }
        if depth == 0 {
            return events.push(LayoutEvent::as_it_is(text));
        }
        let Some(members) = members_of(text) else {
            if let Ok(list) = serde_json::from_str::<Vec<&RawValue>>(text) {
                return list.iter().for_each(|it| self.push(it.get(), depth - 1, events));
            }
            return match values_of_line(text.as_bytes()) {
                Some((values, broken)) if 1 < values.len() => {
                    values.iter().for_each(|it| self.push(it, depth - 1, events));
                    self.push(broken, 0, events);
                }
                _ => events.push(LayoutEvent::as_it_is(text)),
            };
        };
        if self.place.kind == FileKind::DeadLetters
            && let Some(body) = message_body(&members)
        {
            return self.push(&body, depth - 1, events);
        }
        // What a batch has beside its events counts for none of them.
        let namespace = self.namespace.or(self.place.namespace.as_deref());
        let namespace = namespace.unwrap_or(DEFAULT_NAMESPACE);
        // A document or a change may have such a list as well.
        let may_be_batch = matches!(self.place.kind, FileKind::Events | FileKind::DeadLetters);
        let is_batch = |_: &&String| may_be_batch && is_batch(text, namespace) == Ok(true);
        match members.get("events").filter(is_batch) {
            Some(list) => self.push(list, depth - 1, events),
            None => events.push(self.event(text, members)),
        }
    }

    fn event(&self, text: &str, mut members: Members) -> LayoutEvent {
        let is_event_table = self.is_table && self.place.kind == FileKind::Events;
        let is_ours = ["id", "seq", "ingested_at"].iter().all(|name| members.contains_key(*name));
        if is_event_table && is_ours {
            return self.exported(members);
        }
        let inner = if is_event_table { whole_event(&mut members) } else { None };
        let text = match &inner {
            Some((text, whole)) => {
                members.clone_from(whole);
                text.as_str()
            }
            None => text,
        };
        match self.place.kind {
            FileKind::Documents => return self.document(members),
            FileKind::Deltas => members = self.delta(members),
            FileKind::Events | FileKind::DeadLetters => {
                let may_get = may_get_id(text.as_bytes());
                if is_foreign(&members) || !has_own_words(&members) || may_get.is_none() {
                    return self.foreign(text, members, may_get == Some(true));
                }
                members = canonical(members);
            }
        }
        let change = self.change(&members);
        if let Some(hour) = self.place.hour.as_ref().filter(|_| !members.contains_key("ts")) {
            members.insert("ts".to_owned(), format!("\"{hour}\""));
        }
        let id = match members.contains_key("id") {
            true => EventId::Own,
            false => EventId::Content(self.content(&members)),
        };
        if self.namespace.is_some() {
            members.remove("ns");
        }
        LayoutEvent { text: written(&members), id, change }
    }

    /// The digest of what an event says in the namespace that it was written for. Where all namespaces go to
    /// one, events that say the same in two of them are two.
    fn content(&self, members: &Members) -> u128 {
        let mut members = members.clone();
        let namespace = self.place.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
        members.entry("ns".to_owned()).or_insert_with(|| quoted(namespace));
        digest(&written(&members))
    }

    /// An event in other words than ours: as it is, with an id where it may get one.
    fn foreign(&self, text: &str, mut members: Members, may_get_id: bool) -> LayoutEvent {
        let id = match may_get_id {
            true => EventId::Content(self.content(&members)),
            false => EventId::Own,
        };
        let has_other = self.namespace.is_some() && members.remove("ns").is_some();
        let text = if has_other { written(&members) } else { on_one_line(text) };
        LayoutEvent { text, id, change: None }
    }

    /// A row of our table `events`: what the server gives is left out, and the text of an event that was
    /// kept whole has a name that says so.
    fn exported(&self, mut members: Members) -> LayoutEvent {
        members.retain(|_, raw| raw.as_str() != "null");
        let seq = members.remove("seq").and_then(|raw| raw.parse::<u64>().ok());
        members.remove("ingested_at");
        if let Some(payload) = members.remove("payload") {
            members.insert(KEPT_EVENT.to_owned(), payload);
        }
        let bookmark = members.get("bookmark").and_then(|raw| text_of(raw));
        if seq.zip(bookmark).is_some_and(|(seq, text)| bookmark::is_minted(&text, seq)) {
            members.remove("bookmark");
        }
        if self.namespace.is_some() {
            members.remove("ns");
        }
        LayoutEvent { change: self.change(&members), text: written(&members), id: EventId::Own }
    }

    /// A row of a delta file in the words of a change.
    fn delta(&self, members: Members) -> Members {
        let mut members = canonical(members);
        if !members.contains_key("after")
            && let Some(data) = members.remove("data")
        {
            members.insert("after".to_owned(), data);
        }
        if let Some(collection) = &self.place.collection {
            members.entry("collection".to_owned()).or_insert_with(|| quoted(collection));
        }
        members
    }

    /// A document as it is now, as a read of it.
    fn document(&self, mut members: Members) -> LayoutEvent {
        members.retain(|_, raw| raw.as_str() != "null");
        let first = |names: &[&str]| names.iter().find_map(|name| members.get(*name)).cloned();
        let is_wrapped = TEXT_COLUMNS.iter().any(|name| members.contains_key(*name))
            && members.keys().all(|name| DOCUMENT_COLUMNS.contains(&name.as_str()));
        let key_columns = if is_wrapped { KEY_COLUMNS } else { OWN_KEY_COLUMNS };
        let key = first(&key_columns);
        let ts = first(&TIME_COLUMNS).and_then(|raw| time(&raw));
        let version = first(&["version"]).filter(|_| is_wrapped);
        let is_deleted = first(&["deleted"]).is_some_and(|raw| raw == "true") && is_wrapped;
        let after = match first(&TEXT_COLUMNS).filter(|_| is_wrapped) {
            Some(raw) => Some(unquoted(&raw)),
            None if is_wrapped => None,
            None => {
                let mut rest = members.clone();
                if let Some(name) = key_columns.into_iter().find(|name| rest.contains_key(*name)) {
                    rest.remove(name);
                }
                Some(written(&rest))
            }
        };
        let bookmark = first(&["bookmark"]).filter(|_| is_wrapped);
        let collection = self.place.collection.as_deref().map(quoted);
        let op = if is_deleted { "\"d\"" } else { "\"r\"" };
        let parts = [
            ("collection", collection),
            (
                "key",
                key.as_deref().map(|raw| text_of(raw).map_or(raw.to_owned(), |it| quoted(&it))),
            ),
            ("op", Some(op.to_owned())),
            ("ts", ts),
            ("version", version),
            ("bookmark", bookmark),
            ("after", after.filter(|_| !is_deleted)),
        ];
        let event: Members = parts
            .into_iter()
            .filter_map(|(name, raw)| raw.map(|raw| (name.to_owned(), raw)))
            .collect();
        let id = EventId::Given(id_of(self.content(&event)));
        LayoutEvent { text: written(&event), id, change: None }
    }

    /// The change that an event is: the same for its row among the events and its row among the deltas.
    fn change(&self, members: &Members) -> Option<DocumentChange> {
        let member = |name: &str| members.get(name).and_then(|raw| text_of(raw));
        let (collection, key) = (member("collection")?, member("key")?);
        let op = member("op").or_else(|| Some(member("type")?.rsplit('.').next()?.to_owned()));
        let is_delete = op.is_some_and(|op| {
            let op = op.to_ascii_lowercase();
            op == "d" || op.starts_with("delete") || op.starts_with("remove")
        });
        let after = members.get("after").filter(|_| !is_delete).map_or(0, |raw| digest(raw));
        let ts = members.get("ts").map(|raw| time(raw).unwrap_or_else(|| raw.clone()));
        let place = match (member("bookmark"), ts) {
            // Of bookmarks that only count, two namespaces have the same.
            (Some(bookmark), ts) => format!("{bookmark}\0{}", ts.unwrap_or_default()),
            (None, Some(ts)) => {
                let own = member("ns").or_else(|| self.place.namespace.clone());
                let namespace = self.namespace.map(str::to_owned).or(own).unwrap_or_default();
                format!("{namespace}\0{ts}")
            }
            (None, None) => return None,
        };
        let text = format!("{collection}\0{key}\0{place}\0{after:032x}");
        Some((collection, xxh3_128(text.as_bytes())))
    }
}

/// The members of an object; none of anything else. Of several with one name the last counts.
pub(super) fn members_of(text: &str) -> Option<Members> {
    let members: BTreeMap<String, &RawValue> = serde_json::from_str(text).ok()?;
    Some(members.into_iter().map(|(name, raw)| (name, raw.get().to_owned())).collect())
}

/// What a message of a queue carried, where this is the note on one that was given up.
fn message_body(members: &Members) -> Option<String> {
    let is_note = ["messageId", "attempts"].iter().any(|name| members.contains_key(*name));
    let body = members.get("body").filter(|_| is_note && !members.contains_key("type"))?;
    // A body that was sent as text is JSON inside of it, or is refused as what it is.
    Some(text_of(body).unwrap_or_else(|| body.clone()))
}

/// The whole event that a row has in its column `payload`, if that is the event of its type. A payload
/// that is something else, such as the body of a webhook, becomes the event's data.
fn whole_event(members: &mut Members) -> Option<(String, Members)> {
    let payload = text_of(members.get("payload")?)?;
    let mut whole = members_of(&payload)?;
    let type_of = |members: &Members| members.get("type").and_then(|raw| text_of(raw));
    if type_of(&whole).is_some_and(|own| Some(own) == type_of(members)) {
        for column in ROW_COLUMNS {
            if let Some(raw) = members.get(column).filter(|_| !has_column(&whole, &[column])) {
                whole.insert(column.to_owned(), raw.clone());
            }
        }
        return Some((payload, whole));
    }
    if members.get("data").is_none_or(|data| data == "null") {
        members.remove("payload");
        members.insert("data".to_owned(), on_one_line(&payload));
    }
    None
}

/// Whether it is in other words than ours, so that it is sent as it is.
fn is_foreign(members: &Members) -> bool {
    let has = |names: &[&str]| names.iter().any(|name| members.contains_key(*name));
    let has_object = |name: &str| members.get(name).is_some_and(|raw| raw.starts_with('{'));
    // The envelope of a change is known by these two, whatever else it has.
    let is_envelope = has(&["op"]) && has_object("source");
    has(&FOREIGN_WORDS) || is_envelope || (has(&RECORD_WORDS) && !has(&["type"]))
}

fn has_own_words(members: &Members) -> bool {
    has_column(members, &OWN_WORDS)
}

/// Whether a member fills one of these columns.
fn has_column(members: &Members, columns: &[&str]) -> bool {
    members.iter().any(|(name, raw)| {
        raw != "null" && column_of(name).is_some_and(|(column, _)| columns.contains(&column))
    })
}

/// The members under the names of their columns, in the form that all copies of an event share.
fn canonical(mut members: Members) -> Members {
    members.retain(|_, raw| raw.as_str() != "null");
    let mut members = renamed(members);
    if let Some(time) = members.get("ts").and_then(|raw| time(raw)) {
        members.insert("ts".to_owned(), time);
    }
    for (_, raw) in members.iter_mut().filter(|(name, _)| JSON_COLUMNS.contains(&name.as_str())) {
        *raw = unquoted(raw);
    }
    object_columns(&mut members);
    members
}

/// Each member under the name of its column. Of two names of one column the one that the server prefers
/// gets it, and the other stays what it is.
fn renamed(members: Members) -> Members {
    let mut best: BTreeMap<&'static str, (u16, String)> = BTreeMap::new();
    for name in members.keys() {
        if let Some((column, rank)) = column_of(name)
            && best.get(column).is_none_or(|(other, _)| rank < *other)
        {
            best.insert(column, (rank, name.clone()));
        }
    }
    let own_name = |name: String| {
        let column = column_of(&name).map(|(column, _)| column);
        let column = column.filter(|it| best.get(it).is_some_and(|(_, best)| *best == name));
        column.map_or(name, str::to_owned)
    };
    members.into_iter().map(|(name, raw)| (own_name(name), raw)).collect()
}

/// Puts the members of `do` into the columns that they belong to, if each has one.
fn object_columns(members: &mut Members) {
    let Some(inner) = members.get("do").and_then(|raw| members_of(raw)) else { return };
    let column = |name: &str| OBJECT_COLUMNS.iter().find(|(own, _)| *own == name);
    if !inner.keys().all(|name| column(name).is_some()) {
        return;
    }
    members.remove("do");
    for (name, raw) in inner {
        if let Some((_, column)) = column(&name).filter(|_| raw != "null") {
            members.entry((*column).to_owned()).or_insert(raw);
        }
    }
}

/// A time as the JSON text of RFC 3339; none where it is no time.
fn time(raw: &str) -> Option<String> {
    let at = DateTime::from_timestamp_micros(time_us(raw)?)?;
    Some(format!("\"{}\"", at.to_rfc3339_opts(SecondsFormat::Micros, true)))
}

/// The object or list that a JSON text holds as text, or the JSON text itself.
fn unquoted(raw: &str) -> String {
    let inner = text_of(raw).filter(|text| {
        text.trim_start().starts_with(['{', '['])
            && serde_json::from_str::<IgnoredAny>(text).is_ok()
    });
    inner.map_or_else(|| raw.to_owned(), |text| text.trim().to_owned())
}

/// The text of a JSON text or number.
fn text_of(raw: &str) -> Option<String> {
    match raw.as_bytes().first()? {
        b'"' => serde_json::from_str(raw).ok(),
        b'-' | b'0'..=b'9' => Some(raw.to_owned()),
        _ => None,
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The object with these members, on one line.
fn written(members: &Members) -> String {
    let members: Vec<String> = members
        .iter()
        .map(|(name, raw)| format!("{}:{}", quoted(name), on_one_line(raw)))
        .collect();
    format!("{{{}}}", members.join(","))
}

/// JSON has line ends between its tokens only, and here one ends an event.
fn on_one_line(text: &str) -> String {
    text.trim().replace(['\n', '\r'], " ")
}

/// What a JSON text says, as a number.
fn digest(text: &str) -> u128 {
    digest_of(text).unwrap_or_else(|| xxh3_128(text.as_bytes()))
}
