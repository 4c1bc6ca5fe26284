//! Whose rows an erasure takes: a person, a document or one event, by a member that events have.
//!
//! A row is the subject's where the column of that member has its value, or a document of the row
//! (`before`, `after`, `data`, `payload`, `patch`, or `doc` of a collection's table) has it at its top, under any name that an event may use for it. An
//! event that a `payload` has is looked through as if it had columns of its own.
//! Its one invariant: a document that is no JSON is looked through as text, so damage hides nobody.

#[cfg(test)]
mod tests;

use crate::event::{
    dead_letter, digest,
    names::{
        self, AFTER, BEFORE, COLLECTION, DATA, EVENT_LIST, ID, KEPT_EVENT, KEY, PATCH, PAYLOAD,
        WRAPPED,
    },
};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StringArray};
use icecore_schemas::erasure::ErasureSubject;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::{RawValue, Value};

/// Longest value of a subject, in bytes.
pub const VALUE_BYTES_MAX: usize = 1024;
/// Columns that are looked into.
const DOCUMENTS: [&str; 6] = ["before", "after", "data", "payload", "patch", "doc"];
/// The one among them that may have a whole event: of a dead letter, or of one that columns do not hold.
const EVENT: &str = "payload";
/// The one among them that may say what is done to members, one after another.
const PATCHES: &str = "patch";
/// Members of an event that are documents, or events.
const NESTED: [usize; 7] = [BEFORE, AFTER, PATCH, DATA, PAYLOAD, WRAPPED, EVENT_LIST];
/// How deep they are looked into: a list of events, a wrapper, an event that was kept, its document.
const NESTING_MAX: u8 = 4;
/// Members that name a person, who may be in tables of other engines as well.
const PERSONS: [&str; 3] = ["user_id", "actor", "anonymous_id"];
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

    /// The member, where it names a person: a key or an id means nothing in a table of another engine.
    #[must_use]
    pub fn person(&self) -> Option<&'static str> {
        self.columns.first().copied().filter(|name| PERSONS.contains(name))
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
            let has = |(column, name): (&Option<&StringArray>, &str)| {
                cell(*column, row).is_some_and(|text| self.is_in((name, text), collection, detail))
            };
            own.iter().any(is_own) || documents.iter().zip(DOCUMENTS).any(has)
        };
        BooleanArray::from((0..rows).map(is_of).collect::<Vec<bool>>())
    }

    /// Whether it is of every collection, or of this one.
    fn is_within(&self, collection: Option<&str>) -> bool {
        self.collection.as_deref().is_none_or(|wanted| collection == Some(wanted))
    }

    /// Whether a document of a row has it; one of a dead letter as its `detail` says.
    fn is_in(
        &self,
        (name, text): (&str, &str),
        collection: Option<&str>,
        detail: Option<&str>,
    ) -> bool {
        let bytes = detail.map(|detail| dead_letter::bytes_of(text, detail));
        let decoded = bytes.as_ref().map(|bytes| String::from_utf8_lossy(bytes));
        let text = decoded.as_deref().unwrap_or(text);
        // An escape may stand for any character of it, and a number is written in many ways.
        let is_numeric =
            self.value.starts_with(|first: char| first == '-' || first.is_ascii_digit());
        if !is_numeric && !text.contains(&self.value) && !text.contains('\\') {
            return false;
        }
        self.is_in_text(text, collection, if name == EVENT { NESTING_MAX } else { 0 })
            || (name == PATCHES && self.is_in_operations(text, collection))
    }

    /// Whether operations of a JSON patch (RFC 6902) give it to the member, or to a whole document.
    fn is_in_operations(&self, text: &str, collection: Option<&str>) -> bool {
        let Ok(operations) = serde_json::from_str::<Vec<ObjectMembers<'_>>>(text) else {
            return false;
        };
        operations.iter().any(|ObjectMembers(members)| {
            let of = |wanted: &'static str| {
                let named = members.iter().filter(move |(name, _)| name == wanted);
                named.map(|(_, value)| value.get())
            };
            let mut paths = of("path").filter_map(|path| serde_json::from_str::<String>(path).ok());
            paths.any(|path| match path.strip_prefix('/') {
                Some(name) => {
                    slot_of(name) == Some(self.slot)
                        && self.is_within(collection)
                        && of("value").any(|value| is_text(value, &self.value))
                }
                None => of("value").any(|value| self.is_in_text(value, collection, 0)),
            })
        })
    }

    /// Whether a document has it at its top, or in those documents that it has down to `nesting`.
    fn is_in_text(&self, text: &str, collection: Option<&str>, nesting: u8) -> bool {
        if let Ok(ObjectMembers(members)) = serde_json::from_str(text) {
            return self.is_in_members(&members, collection, nesting);
        }
        if let Ok(elements) = serde_json::from_str::<Vec<&RawValue>>(text) {
            let mut objects =
                elements.into_iter().map(RawValue::get).filter(|element| element.starts_with('{'));
            return objects.any(|element| self.is_in_text(element, collection, nesting));
        }
        // Other JSON has no members.
        let has_members = text.trim_start().starts_with(['{', '[']);
        let is_damaged = has_members || serde_json::from_str::<IgnoredAny>(text).is_err();
        is_damaged && (text.contains(&self.quoted) || self.is_unquoted_in(text))
    }

    /// Whether a text that is no JSON has the value without quotes after a name of the member.
    fn is_unquoted_in(&self, text: &str) -> bool {
        text.match_indices(self.value.as_str()).any(|(at, found)| {
            let after = text[at + found.len()..].chars().next();
            let is_whole = after.is_none_or(|next| {
                !next.is_ascii_alphanumeric() && !matches!(next, '.' | '+' | '-' | '_')
            });
            let before = text[..at].trim_end().strip_suffix(':');
            let before = before.and_then(|before| before.trim_end().strip_suffix('"'));
            let name = before.and_then(|before| before.rsplit('"').next());
            is_whole && name.is_some_and(|name| slot_of(name) == Some(self.slot))
        })
    }

    fn is_in_members(
        &self,
        members: &[(String, &RawValue)],
        collection: Option<&str>,
        nesting: u8,
    ) -> bool {
        let of = |slot: usize| {
            let named = members.iter().filter(move |(name, _)| slot_of(name) == Some(slot));
            named.map(|(_, value)| value.get())
        };
        let wanted = self.collection.as_deref();
        let is_within = wanted.is_none_or(|wanted| {
            let mut said = of(COLLECTION).peekable();
            match said.peek() {
                Some(_) => said.any(|value| is_text(value, wanted)),
                None => collection == Some(wanted),
            }
        });
        if is_within && of(self.slot).any(|value| is_text(value, &self.value)) {
            return true;
        }
        let Some(nesting) = nesting.checked_sub(1) else { return false };
        // What the document says of the collection holds for those in it.
        let collection = wanted.filter(|_| is_within);
        let is_in = |value: &str| {
            value.starts_with(['{', '[']) && self.is_in_text(value, collection, nesting)
        };
        let is_kept = |value: &str| {
            serde_json::from_str::<String>(value)
                .is_ok_and(|text| self.is_in_text(&text, collection, nesting))
        };
        NESTED.iter().any(|slot| of(*slot).any(is_in)) || of(KEPT_EVENT).any(is_kept)
    }
}

fn cell(column: Option<&StringArray>, row: usize) -> Option<&str> {
    column.filter(|column| column.is_valid(row)).map(|column| column.value(row))
}

fn slot_of(name: &str) -> Option<usize> {
    names::find(name).map(|known| known.slot)
}

/// Whether a JSON value is this text, or a number that is written so or has that name.
fn is_text(value: &str, text: &str) -> bool {
    match value.as_bytes().first() {
        Some(b'"') => serde_json::from_str::<String>(value).is_ok_and(|own| own == text),
        Some(b'-' | b'0'..=b'9') => value == text || digest::name(value) == text,
        _ => false,
    }
}

/// The members of a document: all of one name, which a map would not keep.
struct ObjectMembers<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for ObjectMembers<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MemberVisitor)
    }
}

struct MemberVisitor;

impl<'de> Visitor<'de> for MemberVisitor {
    type Value = ObjectMembers<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ObjectMembers<'de>, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry::<String, &'de RawValue>()? {
            members.push(member);
        }
        Ok(ObjectMembers(members))
    }
}
