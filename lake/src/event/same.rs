//! Whether an event that is sent again says what the stored one says, in other words: numbers written
//! in another way, members in another order, escapes, null members, the time of sending.
//!
//! Slow, and only asked where the fast comparison of the texts says no.

use crate::event::{
    BodyFormat, EventLimits, NamespaceEvents, RequestContext,
    decode::decode,
    digest::{digest, object},
    json,
    names::{self, COLUMNS},
    normalize::content::NOT_CONTENT,
    rows,
};
use arrow::{
    array::{Array, ArrayRef, AsArray, StringArray},
    compute::cast,
    datatypes::{DataType, TimeUnit},
    record_batch::RecordBatch,
};
use icecore_schemas::columns::{Column, FoundIn, KNOWN_EVENTS};
use std::borrow::Cow;

/// When a batch was sent, by the names that senders give it: it is another whenever it is sent again.
const SENT_AT: [&str; 2] = ["sentAt", "sent_at"];
/// Columns that are not the event's own words, or compared apart.
const NOT_COMPARED: [&str; 9] =
    ["id", "ts", "ns", "seq", "ingested_at", "batch_id", "retries", "meta", "payload"];

/// Whether row `row` of `events` says the same as `stored`, which has the columns of the table `events`
/// and the same id.
#[must_use]
pub fn says_the_same(stored: &RecordBatch, events: &NamespaceEvents, row: usize) -> bool {
    let new = ComparedRow { rows: &events.rows, row };
    let old = ComparedRow { rows: stored, row: 0 };
    is_same_change(&old, events, row) || has_same_words(&old, &new)
}

/// Whether two rows of one body, with one id, say the same.
#[must_use]
pub fn rows_say_the_same(events: &NamespaceEvents, first: usize, second: usize) -> bool {
    let [first, second] = [first, second].map(|row| ComparedRow { rows: &events.rows, row });
    has_same_words(&first, &second)
}

/// One row.
struct ComparedRow<'r> {
    rows: &'r RecordBatch,
    row: usize,
}

impl ComparedRow<'_> {
    /// A column's value as text; none where it is null. What a later column would say of an event that
    /// was stored before there was one, or where the table has no place for it, is in the whole event
    /// or in `data`.
    fn text(&self, name: &str) -> Option<String> {
        let own = self.cell(name);
        let is_later = |known: &&Column| known.name == name && known.id.is_none();
        let Some(later) = KNOWN_EVENTS.iter().find(is_later).filter(|_| own.is_none()) else {
            return own;
        };
        let of_event = || member_of(&self.cell("payload")?, name);
        let of_data = || member_of(&self.cell("data")?, name);
        of_event().or_else(|| if later.found_in == FoundIn::Event { None } else { of_data() })
    }

    fn cell(&self, column: &str) -> Option<String> {
        let values = self.rows.column_by_name(column)?.slice(self.row, 1);
        let time = |values: &ArrayRef| {
            let us = cast(values, &DataType::Timestamp(TimeUnit::Microsecond, None)).ok()?;
            cast(&us, &DataType::Int64).ok()
        };
        let values = match values.data_type() {
            DataType::Timestamp(..) => time(&values)?,
            _ => values,
        };
        let texts = cast(&values, &DataType::Utf8).ok()?;
        let texts: &StringArray = texts.as_string_opt()?;
        texts.is_valid(0).then(|| texts.value(0).to_owned())
    }

    /// The time that the sender gave.
    fn own_time(&self) -> Option<String> {
        self.text("ts").filter(|ts| self.text("ingested_at").as_ref() != Some(ts))
    }
}

/// What an object says for a column, by any of its names, as text.
fn member_of(object: &str, column: &str) -> Option<String> {
    let mut found = None;
    let members = json::members_of(json::one_value(object)?);
    json::last_of_each(&members).iter().for_each(|member| {
        let known = member.name.text().and_then(|name| names::find(&name));
        let filled = known.and_then(|known| KNOWN_EVENTS.get(known.slot));
        if filled.is_some_and(|filled| filled.name == column)
            && member.value.kind != json::JsonKind::Null
        {
            let text = member.value.text().map(Cow::into_owned);
            found = Some(text.unwrap_or_else(|| member.value.raw.to_owned()));
        }
    });
    found
}

/// Whether the stored event, read again as it came, is known by what the new one is known by.
fn is_same_change(old: &ComparedRow<'_>, events: &NamespaceEvents, row: usize) -> bool {
    let Some(payload) = old.text("payload") else { return false };
    let limits = EventLimits {
        event_bytes_max: usize::MAX,
        batch_events_max: 1,
        depth_max: json::NESTING_MAX,
        ts_past_us: None,
        ts_future_us: i64::MAX,
        // What is stored was redacted before.
        redact: false,
        columns: KNOWN_EVENTS,
        takes_merge_ids: true,
    };
    let arrival = RequestContext {
        now_us: 0,
        namespace: events.namespace.clone(),
        first_id: ulid::Ulid::nil(),
        cloud_event: Vec::new(),
        correlation_id: None,
        request_id: None,
        again: None,
    };
    let read = decode(payload.as_bytes(), BodyFormat::Json, &arrival, &limits);
    let Ok((decoded, _)) = read else { return false };
    let [again] = decoded.accepted.as_slice() else { return false };
    again.namespace == events.namespace && again.keys.first() == events.keys.get(row)
}

fn has_same_words(old: &ComparedRow<'_>, new: &ComparedRow<'_>) -> bool {
    // Another engine may have given a row of its own the number.
    if old.text("id") != new.text("id") {
        return false;
    }
    match (old.text("payload"), new.text("payload")) {
        (Some(first), Some(second)) => {
            let has_time = !has_time_of_one(old, new);
            whole(&first, has_time) == whole(&second, has_time)
        }
        (None, None) => has_same_columns(old, new),
        (Some(payload), None) => is_in_columns(&payload, old) && has_same_columns(old, new),
        (None, Some(payload)) => is_in_columns(&payload, new) && has_same_columns(old, new),
    }
}

fn counts(name: &str) -> bool {
    !SENT_AT.contains(&name) && !NOT_CONTENT.iter().any(|other| other.trim_matches('"') == name)
}

/// Whether one event alone says when it was. What `wal export` sends has the time of arrival as its
/// own, so that time is not compared.
fn has_time_of_one(old: &ComparedRow<'_>, new: &ComparedRow<'_>) -> bool {
    old.own_time().is_some() != new.own_time().is_some()
}

/// The digest of an event's own words, with or without its time.
fn whole(payload: &str, has_time: bool) -> Option<u128> {
    // Both are of one namespace, whether they say so or not.
    let is_apart = |slot| slot == names::NS || (slot == names::TS && !has_time);
    let is_apart = |name: &str| names::find(name).is_some_and(|known| is_apart(known.slot));
    let counts = |name: &str| counts(name) && !is_apart(name);
    json::one_value(payload).map(|event| object(event, counts))
}

/// Whether all that a whole event says is in the columns of its row.
fn is_in_columns(payload: &str, said: &ComparedRow<'_>) -> bool {
    let Some(event) = json::one_value(payload) else { return false };
    let members = json::members_of(event);
    json::last_of_each(&members).iter().all(|member| {
        let name = member.name.text().unwrap_or_default();
        if member.value.kind == json::JsonKind::Null || !counts(&name) {
            return true;
        }
        let slot = names::find(&name).map(|known| known.slot);
        let slot = slot.map(|slot| {
            let moved = names::CLOUD_EVENT_COLUMNS.iter().find(|(from, _)| *from == slot);
            moved.map_or(slot, |(_, to)| *to)
        });
        match slot {
            Some(slot) if slot < COLUMNS => said.text(KNOWN_EVENTS[slot].name).is_some(),
            // Version 0.1.0 did not keep what every CloudEvent says.
            Some(names::SPEC_VERSION) => true,
            Some(names::CONTENT_TYPE) => member.value.raw == "\"application/json\"",
            _ => false,
        }
    })
}

fn has_same_columns(old: &ComparedRow<'_>, new: &ComparedRow<'_>) -> bool {
    let schema = rows::known_event_schema();
    let mut names = schema.fields().iter().map(|field| field.name().as_str());
    let says_same = names.by_ref().filter(|name| !NOT_COMPARED.contains(name)).all(|name| {
        let (old, new) = (old.text(name), new.text(name));
        // A bookmark that was minted is no word of the sender's.
        match name {
            "bookmark" if new.is_none() => true,
            "before" | "after" | "data" | "patch" => value(old) == value(new),
            _ => old == new,
        }
    });
    says_same && (has_time_of_one(old, new) || old.own_time() == new.own_time())
}

/// What a column of JSON says; null says what no value does.
fn value(text: Option<String>) -> Option<u128> {
    let text = text?;
    json::one_value(&text).filter(|value| value.kind != json::JsonKind::Null).map(digest)
}
