//! Three-way merge of a document: what one branch changed is done to what another branch has.
//!
//! Both sides are compared with what the branch had at the last event in common: a value of the other side that the
//! branch did not have then is one that it did not see, so it is in conflict with a change of the branch, however old it
//! is. A change is one of a member, as deep as all texts have objects, within a bound; arrays and other values are one
//! value. What nobody changed keeps its text: digits, escapes, the order of members. Its one invariant: a change of one
//! side alone is never lost, whatever side is preferred.

use super::json_node::{JsonNode, MemberNode, same};
use crate::event::{
    digest,
    json::{self, JsonKind, JsonValue},
};
use std::{borrow::Cow, collections::HashMap};

/// Deepest object whose members are merged one by one: it recurses. Deeper ones are one value.
const LEVELS_MAX: usize = 127;

/// A document on both sides of a merge, as JSON text each; none where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MergeSides<'a> {
    /// What the branch had at the last event in common.
    pub base: Option<&'a str>,
    /// What the branch has.
    pub theirs: Option<&'a str>,
    /// What the branch has that it is merged into.
    pub ours: Option<&'a str>,
}

/// Whose value a member has that both sides changed to different ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MergePreference {
    /// That of the branch that is merged into.
    Ours,
    /// That of the branch that is merged.
    Theirs,
}

/// Where a document of a merge comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MergedDocument {
    /// It is what the branch that is merged into has, or is not there as it has none.
    Ours,
    /// It is what the branch has that is merged, or is not there as it has none.
    Theirs,
    /// It has members of both.
    Both(String),
}

/// What became of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentMerge {
    /// The document.
    pub document: MergedDocument,
    /// The members that both sides changed to different values, as JSON pointers (RFC 6901); the empty one is the
    /// whole document.
    pub conflicts: Vec<String>,
}

/// Merges a document.
#[must_use]
pub fn merge_document(sides: MergeSides<'_>, preference: MergePreference) -> DocumentMerge {
    let MergeSides { base, theirs, ours } = sides;
    // What is equal as JSON and has another text is no change, but where nobody else changed anything it is taken.
    if base == ours {
        let document = if theirs == ours { MergedDocument::Ours } else { MergedDocument::Theirs };
        return DocumentMerge { document, conflicts: Vec::new() };
    }
    let mut merge =
        MemberMerge { preference, path: String::new(), level: 0, conflicts: Vec::new() };
    let part = merge.part(PartSides {
        base: base.map(value_of),
        theirs: theirs.map(value_of),
        ours: ours.map(value_of),
    });
    let document = match part {
        MergedPart::Ours => MergedDocument::Ours,
        MergedPart::Theirs => MergedDocument::Theirs,
        MergedPart::Both(members) => MergedDocument::Both(JsonNode::Object(members).to_text()),
    };
    DocumentMerge { document, conflicts: merge.conflicts }
}

/// A document as a value. One that is no JSON, as other engines may write it, is a value without members that is equal
/// to its own text alone.
fn value_of(text: &str) -> JsonValue<'_> {
    json::one_value(text).unwrap_or(JsonValue { raw: text, kind: JsonKind::Null })
}

/// A document or a member of it on both sides.
#[derive(Clone, Copy, Debug)]
struct PartSides<'a> {
    base: Option<JsonValue<'a>>,
    theirs: Option<JsonValue<'a>>,
    ours: Option<JsonValue<'a>>,
}

/// Where a part comes from.
#[derive(Debug)]
enum MergedPart<'a> {
    Ours,
    Theirs,
    Both(Vec<MemberNode<'a>>),
}

/// A merge on its way through a document.
#[derive(Debug)]
struct MemberMerge {
    preference: MergePreference,
    /// Where it is.
    path: String,
    /// Levels of objects around it.
    level: usize,
    conflicts: Vec<String>,
}

impl MemberMerge {
    /// Merges a part.
    fn part<'a>(&mut self, sides: PartSides<'a>) -> MergedPart<'a> {
        let PartSides { base, theirs, ours } = sides;
        if is_same(theirs, base) || is_same(theirs, ours) {
            return MergedPart::Ours;
        }
        if let (Some(base), Some(theirs), Some(ours)) = (base, theirs, ours)
            && self.level < LEVELS_MAX
            && [base, theirs, ours].iter().all(|it| it.kind == JsonKind::Object)
        {
            return self.members(base, theirs, ours);
        }
        if is_same(ours, base) {
            return MergedPart::Theirs;
        }
        self.conflicts.push(self.path.clone());
        match self.preference {
            MergePreference::Ours => MergedPart::Ours,
            MergePreference::Theirs => MergedPart::Theirs,
        }
    }

    /// Merges the members of an object: those of `ours` in their order, and new ones behind them.
    fn members<'a>(
        &mut self,
        base: JsonValue<'a>,
        theirs: JsonValue<'a>,
        ours: JsonValue<'a>,
    ) -> MergedPart<'a> {
        let base = values_of(base);
        let mut their_values = values_of(theirs);
        let mut is_changed = false;
        let mut merged = Vec::new();
        for member in JsonNode::Text(ours).into_members() {
            // A member of an object that was just taken apart.
            let JsonNode::Text(value) = member.value else { continue };
            let theirs = their_values.remove(&member.name);
            let sides =
                PartSides { base: base.get(&member.name).copied(), theirs, ours: Some(value) };
            let value = match self.member(&member.name, sides) {
                MergedPart::Ours => Some(JsonNode::Text(value)),
                MergedPart::Theirs => {
                    is_changed = true;
                    theirs.map(JsonNode::Text)
                }
                MergedPart::Both(members) => {
                    is_changed = true;
                    Some(JsonNode::Object(members))
                }
            };
            merged.extend(value.map(|value| MemberNode { value, ..member }));
        }
        for member in JsonNode::Text(theirs).into_members() {
            let Some(theirs) = their_values.remove(&member.name) else { continue };
            let sides = PartSides {
                base: base.get(&member.name).copied(),
                theirs: Some(theirs),
                ours: None,
            };
            if let MergedPart::Theirs = self.member(&member.name, sides) {
                is_changed = true;
                merged.push(member);
            }
        }
        if is_changed { MergedPart::Both(merged) } else { MergedPart::Ours }
    }

    fn member<'a>(&mut self, name: &str, sides: PartSides<'a>) -> MergedPart<'a> {
        let length = self.path.len();
        self.path.push('/');
        self.path.push_str(&name.replace('~', "~0").replace('/', "~1"));
        self.level += 1;
        let part = self.part(sides);
        self.level -= 1;
        self.path.truncate(length);
        part
    }
}

fn values_of(object: JsonValue<'_>) -> HashMap<Cow<'_, str>, JsonValue<'_>> {
    let members = json::members_of(object);
    let members = json::last_of_each(&members);
    members.iter().map(|member| (digest::text(member.name), member.value)).collect()
}

fn is_same(one: Option<JsonValue<'_>>, other: Option<JsonValue<'_>>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => same(one, other),
        (None, Some(_)) | (Some(_), None) => false,
    }
}

#[cfg(test)]
mod tests;
