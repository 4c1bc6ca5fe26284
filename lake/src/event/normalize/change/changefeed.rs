//! Messages of CockroachDB's changefeeds in their default envelope, `wrapped`: the row as it is now,
//! the row as it was if the feed has `diff`, and no word of what was done to it.
//!
//! Source: the pages on changefeed messages, envelopes and sinks of CockroachDB's documentation.

use super::{ChangeSource, digest, digest_of, event_type, find};
use crate::event::{
    json::{self, JsonKind, JsonValue},
    names,
    normalize::{CellValue, EventDraft, convert},
};
use std::borrow::Cow;
use xxhash_rust::xxh3::xxh3_128;

/// The origin that the enriched envelope names, too.
pub(super) const ORIGIN: &str = "cockroachdb";
/// When a change was made: the row's own time, which is the same for every time it is emitted, and
/// when the feed saw it.
const CLOCKS: [&str; 2] = ["mvcc_timestamp", "updated"];

impl<'a> EventDraft<'_, 'a> {
    /// Whether this is such a message: it says the row, and when it was changed, or its key and where
    /// it belongs.
    pub(super) fn is_changefeed(&self) -> bool {
        let says = |slot: usize| self.value(slot).is_some();
        if !self.has(names::AFTER)
            || [names::OP, names::STORE, names::COLLECTION].map(says) != [false; 3]
        {
            return false;
        }
        let has_key = self.value(names::KEY).is_some_and(|key| key.kind == JsonKind::Array);
        let is_row = |slot: usize| self.value(slot).is_none_or(|row| row.kind == JsonKind::Object);
        let is_placed = has_key && find(self.top, "topic").is_some_and(|it| it.text().is_some());
        is_row(names::BEFORE)
            && is_row(names::AFTER)
            && (is_placed || CLOCKS.iter().any(|name| self.clock(name).is_some()))
    }

    /// A reading of the cluster's clock: nanoseconds, a point and a counter.
    fn clock(&self, name: &str) -> Option<(JsonValue<'a>, i64)> {
        let value = find(self.top, name)?;
        let text = value.text()?;
        let (ns, counter) = text.split_once('.')?;
        let is_counter = !counter.is_empty() && counter.bytes().all(|byte| byte.is_ascii_digit());
        Some((value, ns.parse().ok().filter(|_| is_counter)?))
    }

    /// Fills the columns of the change.
    pub(super) fn changefeed(&mut self) {
        self.is_lossy = true;
        let op = match (self.value(names::AFTER), self.value(names::BEFORE)) {
            (None, _) => "d",
            // Without `diff` nothing tells a new row from one that was there.
            (Some(_), None) if self.has(names::BEFORE) => "c",
            (Some(_), _) => "u",
        };
        self.put(names::OP, CellValue::Text(Cow::Borrowed(op)));
        self.change.event_type = Some(event_type(op));
        let topic = find(self.top, "topic").and_then(|topic| topic.text());
        if let Some(topic) = &topic {
            let (store, table) = split_topic(topic);
            if let Some(store) = store {
                self.put(names::STORE, CellValue::Text(Cow::Owned(store.to_owned())));
            }
            self.put(names::COLLECTION, CellValue::Text(Cow::Owned(table.to_owned())));
        }
        if self.value(names::SOURCE).is_none() {
            self.put(names::SOURCE, CellValue::Text(Cow::Borrowed(ORIGIN)));
        }
        let clocks = CLOCKS.map(|name| self.clock(name));
        if let Some((_, ns)) = clocks.into_iter().flatten().next() {
            self.put(names::LSN, CellValue::Long(ns));
        }
        self.change.ts = clocks.into_iter().flatten().next_back().map(|(value, _)| value);
        // The first scan of a table emits rows of any age.
        self.change.is_ts_loose = true;
        self.changefeed_id(op, topic.as_deref().unwrap_or_default());
        match self.value(names::KEY) {
            Some(key) => self.single_key(key),
            None => self.key_from_image(&ChangeSource::source(None, None)),
        }
    }

    /// What the change is known by: table, key, time and row.
    fn changefeed_id(&mut self, op: &str, topic: &str) {
        let clocks = CLOCKS.map(|name| self.clock(name));
        let Some((clock, _)) = clocks.into_iter().flatten().next() else { return };
        if self.value(names::ID).is_some() {
            return;
        }
        let mut text = format!("{ORIGIN}\0{op}\0{topic}\0{}", clock.raw);
        let key = self.value(names::KEY).map(digest);
        let images = [names::BEFORE, names::AFTER].map(|image| self.image(image));
        let images = images.iter().map(|image| image.as_deref().map(digest_of));
        for digest in images.chain([key]) {
            text.push_str(&digest.map_or_else(|| "\0".to_owned(), |it| format!("\0{it:032x}")));
        }
        let hash = xxh3_128(text.as_bytes());
        self.change.id = Some(format!("{hash:032x}"));
        self.change.content = Some((hash as u64).max(1));
    }

    /// A primary key of one column is that column's value.
    pub(super) fn single_key(&mut self, key: JsonValue<'a>) {
        let parts = match key.kind {
            JsonKind::Array => json::elements_of(key),
            JsonKind::Object => json::members_of(key).iter().map(|member| member.value).collect(),
            _ => return,
        };
        if let [one] = parts.as_slice()
            && let Some(CellValue::Text(text)) = convert(names::KEY, *one)
        {
            self.put(names::KEY, CellValue::Text(text));
            self.forget(names::KEY);
        }
    }
}

/// Database and schema of a topic, if the feed has `full_table_name`, and the table.
fn split_topic(topic: &str) -> (Option<&str>, &str) {
    match topic.rsplit_once('.') {
        Some((store, table)) if store.split('.').count() == 2 => (Some(store), table),
        _ => (None, topic),
    }
}
