//! A JSON document in parts, of which only those are taken apart that something looks into.
//!
//! What nobody changes keeps its text byte for byte: the digits of a number, the escapes of a string,
//! the order of members. Depth is bounded by what parses and by who inserts.

use super::patch::{PatchRefusal, PatchSteps};
use crate::event::{
    digest,
    json::{self, JsonKind, JsonMember, JsonValue},
};
use std::{borrow::Cow, collections::HashMap};

/// What Debezium writes for a value that the source's log does not have, as it had not changed.
const UNAVAILABLE: &str = "__debezium_unavailable_value";

/// The same in values of every type that are texts: in base64 for bytes, its UUID, and JSON of an `hstore`.
const UNAVAILABLE_TEXTS: [&str; 4] = [
    UNAVAILABLE,
    "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==",
    "b68a35a7-17ad-35b3-af2a-ae46edb4545a",
    r#"{"__debezium_unavailable_value":"__debezium_unavailable_value"}"#,
];

/// The same in an array of numbers: the bytes of the text.
const UNAVAILABLE_NUMBERS: &str = "[95,95,100,101,98,101,122,105,117,109,95,117,110,97,118,97,105,108,97,98,108,101,95,118,97,108,117,101]";

/// Parts of the text of every document that has one of these. Every change is searched for them, and parts of at most
/// 32 bytes are found several times as fast as longer ones. Numbers are whole or have a fraction of one digit.
const UNAVAILABLE_MARKS: [&str; 6] = [
    UNAVAILABLE,
    "X19kZWJleml1bV91bmF2YWls",
    "b68a35a7-17ad-35b3-af2a",
    "95,95,100,101,98",
    "95, 95, 100, 101, 98",
    "95.0,95.0,100.0,101.0,98.0",
];

/// Steps of a patch that a look at one of many members, or moving one of many elements, costs.
const STEPS_A_PART: usize = 2;

/// Why no place is found.
const NO_PLACE: PatchRefusal = "names a place that the document does not have";

/// A part of a document.
#[derive(Clone, Debug)]
pub(super) enum JsonNode<'a> {
    /// As it is written.
    Text(JsonValue<'a>),
    Array(Vec<JsonNode<'a>>),
    Object(Vec<MemberNode<'a>>),
}

/// A member of an object.
#[derive(Clone, Debug)]
pub(super) struct MemberNode<'a> {
    /// The name as it is written, with its quotes.
    pub(super) raw: Cow<'a, str>,
    pub(super) name: Cow<'a, str>,
    pub(super) value: JsonNode<'a>,
}

impl<'a> MemberNode<'a> {
    pub(super) fn of(member: &JsonMember<'a>, value: JsonNode<'a>) -> Self {
        let raw = Cow::Borrowed(member.name.raw);
        Self { raw, name: digest::text(member.name), value }
    }

    fn named(name: &str, value: JsonNode<'a>) -> Self {
        let mut raw = String::with_capacity(name.len() + 2);
        json::push_string(&mut raw, name);
        Self { raw: Cow::Owned(raw), name: Cow::Owned(name.to_owned()), value }
    }
}

impl<'a> JsonNode<'a> {
    /// A document; none if the text is no JSON.
    pub(super) fn of(text: &'a str) -> Option<Self> {
        json::one_value(text).map(Self::Text)
    }

    /// The members of an object; none of any other value.
    pub(super) fn into_members(mut self) -> Vec<MemberNode<'a>> {
        self.expand();
        match self {
            Self::Object(members) => members,
            Self::Text(_) | Self::Array(_) => Vec::new(),
        }
    }

    /// Takes an array or object apart, one level; the bytes that its parts take.
    fn expand(&mut self) -> usize {
        let Self::Text(value) = *self else { return 0 };
        let parts = match value.kind {
            JsonKind::Array => {
                let elements: Vec<Self> =
                    json::elements_of(value).into_iter().map(Self::Text).collect();
                let parts = elements.len();
                *self = Self::Array(elements);
                parts
            }
            JsonKind::Object => {
                let members = json::members_of(value);
                let members: Vec<MemberNode<'a>> = json::last_of_each(&members)
                    .iter()
                    .map(|member| MemberNode::of(member, Self::Text(member.value)))
                    .collect();
                let parts = members.len();
                *self = Self::Object(members);
                parts
            }
            JsonKind::Null
            | JsonKind::Bool
            | JsonKind::Number
            | JsonKind::Plain
            | JsonKind::Escaped => 0,
        };
        parts * size_of::<MemberNode<'a>>()
    }

    /// The element or member of this name.
    pub(super) fn child(
        &mut self,
        token: &str,
        steps: &mut PatchSteps,
    ) -> Result<&mut Self, PatchRefusal> {
        steps.take(self.expand())?;
        match self {
            Self::Array(elements) => elements.get_mut(index(token)?).ok_or(NO_PLACE),
            Self::Object(members) => {
                steps.take(members.len() * STEPS_A_PART)?;
                let found = members.iter_mut().find(|member| member.name == token);
                found.map(|member| &mut member.value).ok_or(NO_PLACE)
            }
            Self::Text(_) => Err(NO_PLACE),
        }
    }

    /// Adds an element or member, or replaces the member.
    pub(super) fn insert(
        &mut self,
        token: &str,
        value: Self,
        steps: &mut PatchSteps,
    ) -> Result<(), PatchRefusal> {
        steps.take(self.expand())?;
        match self {
            Self::Array(elements) => {
                let at = if token == "-" { elements.len() } else { index(token)? };
                let behind = elements.len().checked_sub(at).ok_or(NO_PLACE)?;
                steps.take(behind * STEPS_A_PART)?;
                elements.insert(at, value);
            }
            Self::Object(members) => {
                steps.take(members.len() * STEPS_A_PART)?;
                match members.iter_mut().find(|member| member.name == token) {
                    Some(member) => member.value = value,
                    None => members.push(MemberNode::named(token, value)),
                }
            }
            Self::Text(_) => return Err(NO_PLACE),
        }
        Ok(())
    }

    /// Takes an element or member out.
    pub(super) fn remove(
        &mut self,
        token: &str,
        steps: &mut PatchSteps,
    ) -> Result<Self, PatchRefusal> {
        steps.take(self.expand())?;
        match self {
            Self::Array(elements) => {
                let at = index(token)?;
                if elements.len() <= at {
                    return Err(NO_PLACE);
                }
                steps.take((elements.len() - at) * STEPS_A_PART)?;
                Ok(elements.remove(at))
            }
            Self::Object(members) => {
                steps.take(members.len() * STEPS_A_PART)?;
                let at = members.iter().position(|member| member.name == token);
                Ok(members.remove(at.ok_or(NO_PLACE)?).value)
            }
            Self::Text(_) => Err(NO_PLACE),
        }
    }

    /// Whether this is the value.
    pub(super) fn is(&self, value: JsonValue<'_>) -> bool {
        if let Self::Text(own) = self {
            return same(*own, value);
        }
        let text = self.to_text();
        json::one_value(&text).is_some_and(|own| same(own, value))
    }

    /// Levels of arrays and objects in it.
    pub(super) fn depth(&self) -> usize {
        match self {
            Self::Text(value) => depth_of_text(value.raw),
            Self::Array(elements) => 1 + elements.iter().map(Self::depth).max().unwrap_or(0),
            Self::Object(members) => {
                1 + members.iter().map(|member| member.value.depth()).max().unwrap_or(0)
            }
        }
    }

    /// Bytes that it takes in memory, with its text.
    pub(super) fn bytes(&self) -> usize {
        let parts: usize = match self {
            Self::Text(value) => value.raw.len(),
            Self::Array(elements) => elements.iter().map(Self::bytes).sum(),
            Self::Object(members) => {
                members.iter().map(|member| member.raw.len() + member.value.bytes()).sum()
            }
        };
        size_of::<MemberNode<'a>>() + parts
    }

    pub(super) fn to_text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Text(value) => out.push_str(value.raw),
            Self::Array(elements) => {
                out.push('[');
                for (at, element) in elements.iter().enumerate() {
                    if 0 < at {
                        out.push(',');
                    }
                    element.write(out);
                }
                out.push(']');
            }
            Self::Object(members) => {
                out.push('{');
                for (at, member) in members.iter().enumerate() {
                    if 0 < at {
                        out.push(',');
                    }
                    out.push_str(&member.raw);
                    out.push(':');
                    member.value.write(out);
                }
                out.push('}');
            }
        }
    }
}

/// The place that a token names in an array (RFC 6901, section 4).
fn index(token: &str) -> Result<usize, PatchRefusal> {
    let is_number = token.bytes().all(|byte| byte.is_ascii_digit());
    let has_outer_zero = 1 < token.len() && token.starts_with('0');
    match token.parse() {
        Ok(index) if is_number && !has_outer_zero => Ok(index),
        _ => Err("names a place of an array by no number"),
    }
}

/// Levels of arrays and objects in a valid JSON text.
fn depth_of_text(json: &str) -> usize {
    let (mut depth, mut deepest, mut is_string, mut is_escaped) = (0_usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => is_string = !is_string,
            _ if is_string => {}
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Whether two values are equal as RFC 6902 (section 4.6) has it: numbers by their value, strings by
/// their characters, objects in any order.
pub(super) fn same(a: JsonValue<'_>, b: JsonValue<'_>) -> bool {
    use JsonKind::{Array, Escaped, Number, Object, Plain};
    match (a.kind, b.kind) {
        (Number, Number) => a.raw == b.raw || digest::name(a.raw) == digest::name(b.raw),
        (Plain | Escaped, Plain | Escaped) => digest::text(a) == digest::text(b),
        (Array, Array) => {
            let (a, b) = (json::elements_of(a), json::elements_of(b));
            a.len() == b.len() && a.into_iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Object, Object) => has_same_members(a, b, |_| false),
        (a_kind, b_kind) => a_kind == b_kind && a.raw == b.raw,
    }
}

/// Whether two objects have the same members, but for the values of the first that may be any.
fn has_same_members(
    a: JsonValue<'_>,
    b: JsonValue<'_>,
    is_any: impl Fn(JsonValue<'_>) -> bool,
) -> bool {
    let (a, b) = (json::members_of(a), json::members_of(b));
    let (a, b) = (json::last_of_each(&a), json::last_of_each(&b));
    let values: HashMap<Cow<'_, str>, JsonValue<'_>> =
        b.iter().map(|member| (digest::text(member.name), member.value)).collect();
    a.len() == b.len()
        && a.iter().all(|member| {
            let other = values.get(&digest::text(member.name));
            other.is_some_and(|other| is_any(member.value) || same(member.value, *other))
        })
}

/// Whether a value is one that the source could not read. One of an array is an array of one such text, or of the
/// bytes of the text; one of a map is a map of the text to itself.
fn is_gap(value: JsonValue<'_>) -> bool {
    match value.kind {
        JsonKind::Plain | JsonKind::Escaped => is_unavailable_text(value),
        JsonKind::Array => {
            let elements = json::elements_of(value);
            match elements.as_slice() {
                [one] => is_unavailable_text(*one),
                _ if elements.len() == UNAVAILABLE.len() => {
                    json::one_value(UNAVAILABLE_NUMBERS).is_some_and(|numbers| same(numbers, value))
                }
                _ => false,
            }
        }
        JsonKind::Object => {
            let members = json::members_of(value);
            let is_unavailable = |text: JsonValue<'_>| digest::text(text) == UNAVAILABLE;
            matches!(members.as_slice(), [one] if is_unavailable(one.name) && is_unavailable(one.value))
        }
        JsonKind::Null | JsonKind::Bool | JsonKind::Number => false,
    }
}

/// Whether a value is a text that stands for one that the source could not read.
fn is_unavailable_text(value: JsonValue<'_>) -> bool {
    value.text().is_some_and(|text| UNAVAILABLE_TEXTS.contains(&&*text))
}

/// Whether a document has members that its source could not read.
pub(super) fn has_gaps(text: &str) -> bool {
    UNAVAILABLE_MARKS.iter().any(|mark| text.contains(*mark))
        && json::one_value(text).is_some_and(|document| {
            json::members_of(document).iter().any(|member| is_gap(member.value))
        })
}

/// A document whose members that the source could not read are those of the document before. None where
/// either is no object.
pub(super) fn fill_gaps(text: &str, former: &str) -> Option<String> {
    let [new, old] = [json::one_value(text)?, json::one_value(former)?];
    if [new, old].iter().any(|value| value.kind != JsonKind::Object) {
        return None;
    }
    let old = json::members_of(old);
    let old: HashMap<Cow<'_, str>, JsonValue<'_>> =
        old.iter().map(|member| (digest::text(member.name), member.value)).collect();
    let mut members = JsonNode::Text(new).into_members();
    for member in &mut members {
        if let JsonNode::Text(value) = member.value
            && is_gap(value)
            && let Some(former) = old.get(&member.name)
        {
            member.value = JsonNode::Text(*former);
        }
    }
    Some(JsonNode::Object(members).to_text())
}

/// Whether a document is what a change says that it was before.
pub(super) fn is_former(before: &str, document: &str) -> bool {
    if before == document {
        return true;
    }
    let values = (json::one_value(before), json::one_value(document));
    let (Some(before), Some(document)) = values else { return false };
    match (before.kind, document.kind) {
        (JsonKind::Object, JsonKind::Object) => has_same_members(before, document, is_gap),
        _ => same(before, document),
    }
}
