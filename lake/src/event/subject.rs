//! Whose rows an erasure takes: a person, a document or one event, by a member that events have.
//!
//! A row is the subject's where the column of that member has its value, or a document of the row
//! (`before`, `after`, `data`, `payload`) has it at its top, under any name that an event may use for it.
//! Its one invariant: a document that is no JSON is looked through as text, so damage hides nobody.

#[cfg(test)]
mod tests;

use crate::event::{
    dead_letter,
    names::{self, COLLECTION, ID, KEY},
};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StringArray};
use icecore_schemas::erasure::ErasureSubject;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;

/// Longest value of a subject, in bytes.
pub const VALUE_BYTES_MAX: usize = 1024;
/// Columns that are looked into.
const DOCUMENTS: [&str; 4] = ["before", "after", "data", "payload"];
/// Columns that say more of a row: the collection of its documents, and how a dead letter keeps its bytes.
const BESIDE: [&str; 2] = ["collection", "detail"];

/// Whose rows are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The member, as the column that it fills.
    slot: usize,
    /// Columns that have the value: the member's own, and for an id that of dead letters.
    columns: &'static [&'static str],
    value: String,
    /// For a key: of which collection alone.
    collection: Option<String>,
    /// The value as JSON writes it.
    quoted: String,
}

impl Subject {
    /// The subject of a request.
    ///
    /// # Errors
    /// Says what to change.
    pub fn parse(asked: &ErasureSubject) -> Result<Self, String> {
        let members: [(&Option<String>, usize, &'static [&'static str]); 5] = [
            (&asked.user_id, names::column("user_id"), &["user_id"]),
            (&asked.actor, names::column("actor"), &["actor"]),
            (&asked.anonymous_id, names::column("anonymous_id"), &["anonymous_id"]),
            (&asked.key, KEY, &["key"]),
            (&asked.id, ID, &["id", "event_id"]),
        ];
        let mut named = members.into_iter().filter_map(|(value, slot, columns)| {
            value.as_ref().map(|value| (value.clone(), slot, columns))
        });
        let (Some((value, slot, columns)), None) = (named.next(), named.next()) else {
            let text =
                "`subject` names exactly one of `user_id`, `actor`, `anonymous_id`, `key`, `id`";
            return Err(text.to_owned());
        };
        if asked.collection.is_some() && slot != KEY {
            return Err("`collection` goes with `key` alone: leave it out".to_owned());
        }
        for text in [Some(&value), asked.collection.as_ref()].into_iter().flatten() {
            let is_wrong = text.is_empty() || VALUE_BYTES_MAX < text.len() || text.contains('\0');
            if is_wrong {
                return Err(format!(
                    "a value of `subject` has 1 to {VALUE_BYTES_MAX} bytes and no zero byte"
                ));
            }
        }
        let quoted = Value::String(value.clone()).to_string();
        Ok(Self { slot, columns, value, collection: asked.collection.clone(), quoted })
    }

    /// The value that is looked for.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Columns that decide where they have exactly this value.
    #[must_use]
    pub fn columns(&self) -> &'static [&'static str] {
        self.columns
    }

    /// Columns with documents that are looked into.
    #[must_use]
    pub fn documents(&self) -> &'static [&'static str] {
        &DOCUMENTS
    }

    /// Columns that say more of a row.
    #[must_use]
    pub fn beside(&self) -> &'static [&'static str] {
        &BESIDE
    }

    /// Which rows are the subject's, given those columns in their order, where a table has them.
    #[must_use]
    pub fn rows(&self, columns: &[Option<ArrayRef>], rows: usize) -> BooleanArray {
        let texts: Vec<Option<&StringArray>> = columns
            .iter()
            .map(|column| column.as_ref().and_then(|column| column.as_string_opt::<i32>()))
            .collect();
        let (own, others) = texts.split_at(self.columns.len().min(texts.len()));
        let (documents, beside) = others.split_at(DOCUMENTS.len().min(others.len()));
        let beside = |at: usize, row| beside.get(at).and_then(|column| cell(*column, row));
        let is_of = |row: usize| {
            let (collection, detail) = (beside(0, row), beside(1, row));
            let is_own = |column: &Option<&StringArray>| {
                cell(*column, row) == Some(self.value.as_str()) && self.is_within(collection)
            };
            let has = |column: &Option<&StringArray>| {
                cell(*column, row).is_some_and(|text| self.is_in(text, collection, detail))
            };
            own.iter().any(is_own) || documents.iter().any(has)
        };
        BooleanArray::from((0..rows).map(is_of).collect::<Vec<bool>>())
    }

    /// Whether it is of every collection, or of this one.
    fn is_within(&self, collection: Option<&str>) -> bool {
        self.collection.as_deref().is_none_or(|wanted| collection == Some(wanted))
    }

    /// Whether a document of a row has it; one of a dead letter as its `detail` says.
    fn is_in(&self, text: &str, collection: Option<&str>, detail: Option<&str>) -> bool {
        let bytes = detail.map(|detail| dead_letter::bytes_of(text, detail));
        let decoded = bytes.as_ref().map(|bytes| String::from_utf8_lossy(bytes));
        let text = decoded.as_deref().unwrap_or(text);
        // An escape may stand for any character of it.
        if !text.contains(&self.value) && !text.contains('\\') {
            return false;
        }
        match serde_json::from_str::<TopMembers>(text) {
            Ok(members) => members.0.iter().any(|members| self.is_named(members, collection)),
            // It is JSON, and has no members.
            Err(cause) if cause.is_data() => false,
            Err(_) => text.contains(&self.quoted),
        }
    }

    fn is_named(&self, members: &[(String, Value)], collection: Option<&str>) -> bool {
        let means = |name: &str, slot| names::find(name).is_some_and(|known| known.slot == slot);
        let mut own = members.iter().filter(|(name, _)| means(name, self.slot));
        if !own.any(|(_, value)| is_text(value, &self.value)) {
            return false;
        }
        let Some(wanted) = self.collection.as_deref() else { return true };
        let mut said = members.iter().filter(|(name, _)| means(name, COLLECTION)).peekable();
        match said.peek() {
            Some(_) => said.any(|(_, value)| is_text(value, wanted)),
            None => collection == Some(wanted),
        }
    }
}

fn cell(column: Option<&StringArray>, row: usize) -> Option<&str> {
    column.filter(|column| column.is_valid(row)).map(|column| column.value(row))
}

/// Whether a JSON value is this text, or a number that is written so.
fn is_text(value: &Value, text: &str) -> bool {
    match value {
        Value::String(own) => own == text,
        Value::Number(number) => number.to_string() == text,
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => false,
    }
}

/// The members of a document, or of each document of an array: all of one name, which a map would not
/// keep.
struct TopMembers(Vec<Vec<(String, Value)>>);

impl<'de> Deserialize<'de> for TopMembers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MemberVisitor)
    }
}

struct MemberVisitor;

impl<'de> Visitor<'de> for MemberVisitor {
    type Value = TopMembers;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON object, or an array of some")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TopMembers, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry::<String, Value>()? {
            members.push(member);
        }
        Ok(TopMembers(vec![members]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<TopMembers, A::Error> {
        let mut all = Vec::new();
        while let Some(element) = elements.next_element::<Value>()? {
            // A repeated name within an element counts once: an array is no form of an event.
            if let Value::Object(members) = element {
                all.push(members.into_iter().collect());
            }
        }
        Ok(TopMembers(all))
    }
}
