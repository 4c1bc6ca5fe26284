//! Three-way merge of a document: what one branch changed is done to what another branch has.
//!
//! Each side is compared with what it was when both had the last event in common. A change is one of a member, as deep
//! as all texts have objects, within a bound; arrays and other values are one value. What nobody changed keeps its text: digits,
//! escapes, the order of members. Its one invariant: a change of one side alone is never lost, whatever side is
//! preferred.

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
    pub base_theirs: Option<&'a str>,
    /// What the branch has.
    pub theirs: Option<&'a str>,
    /// What the branch that it is merged into had at the last event in common.
    pub base_ours: Option<&'a str>,
    /// What that branch has.
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
    let MergeSides { base_theirs, theirs, base_ours, ours } = sides;
    // What is equal as JSON and has another text is no change, but where nobody else changed anything it is taken.
    if base_ours == ours && base_theirs == base_ours {
        let document = if theirs == ours { MergedDocument::Ours } else { MergedDocument::Theirs };
        return DocumentMerge { document, conflicts: Vec::new() };
    }
    let mut merge =
        MemberMerge { preference, path: String::new(), level: 0, conflicts: Vec::new() };
    let part = merge.part(PartSides {
        base_theirs: base_theirs.map(value_of),
        theirs: theirs.map(value_of),
        base_ours: base_ours.map(value_of),
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
    base_theirs: Option<JsonValue<'a>>,
    theirs: Option<JsonValue<'a>>,
    base_ours: Option<JsonValue<'a>>,
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
        let PartSides { base_theirs, theirs, base_ours, ours } = sides;
        if is_same(theirs, base_theirs) || is_same(theirs, ours) {
            return MergedPart::Ours;
        }
        if let (Some(base_theirs), Some(theirs), Some(base_ours), Some(ours)) =
            (base_theirs, theirs, base_ours, ours)
            && self.level < LEVELS_MAX
            && [base_theirs, theirs, base_ours, ours].iter().all(|it| it.kind == JsonKind::Object)
        {
            return self.members(base_theirs, theirs, base_ours, ours);
        }
        if is_same(ours, base_ours) {
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
        base_theirs: JsonValue<'a>,
        theirs: JsonValue<'a>,
        base_ours: JsonValue<'a>,
        ours: JsonValue<'a>,
    ) -> MergedPart<'a> {
        let (base_theirs, base_ours) = (values_of(base_theirs), values_of(base_ours));
        let mut their_values = values_of(theirs);
        let mut is_changed = false;
        let mut merged = Vec::new();
        for member in JsonNode::Text(ours).into_members() {
            // A member of an object that was just taken apart.
            let JsonNode::Text(value) = member.value else { continue };
            let theirs = their_values.remove(&member.name);
            let sides = PartSides {
                base_theirs: base_theirs.get(&member.name).copied(),
                theirs,
                base_ours: base_ours.get(&member.name).copied(),
                ours: Some(value),
            };
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
                base_theirs: base_theirs.get(&member.name).copied(),
                theirs: Some(theirs),
                base_ours: base_ours.get(&member.name).copied(),
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
