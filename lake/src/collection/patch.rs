//! Patches of JSON documents: RFC 6902 (JSON Patch) and RFC 7396 (JSON Merge Patch).
//!
//! A patch is applied whole or not at all. What a patch of a few bytes can make of a document is bounded:
//! its size, its depth, and the steps that it takes.

use super::{
    entry::ImageKind,
    json_node::{JsonNode, MemberNode},
};
use crate::event::{
    digest,
    json::{self, JsonKind, JsonValue},
};
use std::{borrow::Cow, collections::HashMap};

/// Largest document that a patch may leave: a document of the largest event, sixteen times.
const DOCUMENT_BYTES_MAX: usize = 16 << 20;
/// Deepest place that a patch may fill: readers of JSON follow a document at least as far.
const DEPTH_MAX: usize = 127;
/// Most bytes that one patch may copy, and members that it may look at: about a second's work at worst.
const STEPS_MAX: usize = 64 << 20;

/// Why an operation cannot be done: the end of a sentence that begins with it.
pub(super) type PatchRefusal = &'static str;

/// Why a patch is not applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PatchError {
    #[error("the patch is neither an array (RFC 6902) nor an object (RFC 7396)")]
    UnknownKind,
    #[error("there is no document that the patch could change")]
    NoDocument,
    #[error("the document is no JSON, so no patch can change it")]
    NotJson,
    #[error("operation {at} of the patch {refusal}")]
    Operation { at: usize, refusal: PatchRefusal },
    #[error("the patch makes the document larger than {} bytes", DOCUMENT_BYTES_MAX)]
    TooLarge,
}

/// The work that a patch may still do.
#[derive(Debug)]
pub(super) struct PatchSteps(usize);

impl PatchSteps {
    pub(super) fn take(&mut self, steps: usize) -> Result<(), PatchRefusal> {
        self.0 = self.0.checked_sub(steps).ok_or("is more work than one patch may do")?;
        Ok(())
    }
}

/// Of which kind a patch is.
pub(super) fn kind(patch: &str) -> ImageKind {
    match json::one_value(patch).map(|value| value.kind) {
        Some(JsonKind::Array) => ImageKind::JsonPatch,
        Some(JsonKind::Object) => ImageKind::MergePatch,
        None
        | Some(
            JsonKind::Null
            | JsonKind::Bool
            | JsonKind::Number
            | JsonKind::Plain
            | JsonKind::Escaped,
        ) => ImageKind::UnknownPatch,
    }
}

/// The document after a merge patch.
pub(super) fn merge_patch(document: &str, patch: &str) -> Result<String, PatchError> {
    let document = JsonNode::of(document).ok_or(PatchError::NotJson)?;
    let patch = json::one_value(patch).ok_or(PatchError::UnknownKind)?;
    rendered(&merged(Some(document), patch))
}

/// The document that a merge patch makes where there was none.
pub(super) fn merge_patch_of_none(patch: &str) -> String {
    json::one_value(patch).map_or_else(|| patch.to_owned(), |patch| merged(None, patch).to_text())
}

/// The document after a JSON patch.
pub(super) fn json_patch(document: &str, patch: &str) -> Result<String, PatchError> {
    json_patch_within(STEPS_MAX, document, patch)
}

/// The same in so many steps at most.
fn json_patch_within(steps: usize, document: &str, patch: &str) -> Result<String, PatchError> {
    let mut root = JsonNode::of(document).ok_or(PatchError::NotJson)?;
    let patch = json::one_value(patch).ok_or(PatchError::UnknownKind)?;
    let mut steps = PatchSteps(steps);
    for (at, operation) in json::elements_of(patch).into_iter().enumerate() {
        apply(&mut root, operation, &mut steps)
            .map_err(|refusal| PatchError::Operation { at, refusal })?;
    }
    rendered(&root)
}

fn rendered(root: &JsonNode<'_>) -> Result<String, PatchError> {
    let text = root.to_text();
    if DOCUMENT_BYTES_MAX < text.len() { Err(PatchError::TooLarge) } else { Ok(text) }
}

/// `MergePatch` of RFC 7396, section 2. It goes no deeper than the patch.
fn merged<'a>(target: Option<JsonNode<'a>>, patch: JsonValue<'a>) -> JsonNode<'a> {
    if patch.kind != JsonKind::Object {
        return JsonNode::Text(patch);
    }
    let patched = json::members_of(patch);
    let patched = json::last_of_each(&patched);
    let mut changes: HashMap<Cow<'a, str>, JsonValue<'a>> =
        patched.iter().map(|member| (digest::text(member.name), member.value)).collect();
    let mut members = Vec::new();
    for member in target.map(JsonNode::into_members).unwrap_or_default() {
        match changes.remove(&member.name) {
            None => members.push(member),
            Some(value) if value.kind == JsonKind::Null => {}
            Some(value) => {
                let MemberNode { raw, name, value: former } = member;
                members.push(MemberNode { raw, name, value: merged(Some(former), value) });
            }
        }
    }
    // What is left is new; it comes in the order of the patch.
    for member in patched.iter() {
        let is_new = changes.contains_key(&digest::text(member.name));
        if is_new && member.value.kind != JsonKind::Null {
            members.push(MemberNode::of(member, merged(None, member.value)));
        }
    }
    JsonNode::Object(members)
}

/// A place in a document (RFC 6901): names of members and places in arrays, from the root.
type JsonPointer = Vec<String>;

/// An operation of a JSON patch.
#[derive(Debug)]
struct PatchOperation<'a> {
    op: Option<Cow<'a, str>>,
    path: Option<Cow<'a, str>>,
    from: Option<Cow<'a, str>>,
    value: Option<JsonValue<'a>>,
}

impl<'a> PatchOperation<'a> {
    fn of(operation: JsonValue<'a>) -> Self {
        let mut found = Self { op: None, path: None, from: None, value: None };
        // Of two members with one name the last one counts; others are ignored (RFC 6902, section 4).
        json::each_member(operation, |member| match member.name.text().as_deref() {
            Some("op") => found.op = member.value.text(),
            Some("path") => found.path = member.value.text(),
            Some("from") => found.from = member.value.text(),
            Some("value") => found.value = Some(member.value),
            _ => {}
        });
        found
    }

    fn path(&self) -> Result<JsonPointer, PatchRefusal> {
        pointer(self.path.as_deref()).ok_or("has no `path` that is a JSON pointer")
    }

    fn origin(&self) -> Result<JsonPointer, PatchRefusal> {
        pointer(self.from.as_deref()).ok_or("has no `from` that is a JSON pointer")
    }

    fn value(&self) -> Result<JsonValue<'a>, PatchRefusal> {
        self.value.ok_or("has no `value`")
    }
}

/// The tokens of a JSON pointer; none if it is none.
fn pointer(text: Option<&str>) -> Option<JsonPointer> {
    let text = text?;
    if text.is_empty() {
        return Some(Vec::new());
    }
    text.strip_prefix('/')?.split('/').map(unescaped).collect()
}

fn unescaped(token: &str) -> Option<String> {
    let mut parts = token.split('~');
    let mut name = parts.next()?.to_owned();
    for part in parts {
        let (sign, rest) = match part.as_bytes().first()? {
            b'0' => ('~', &part[1..]),
            b'1' => ('/', &part[1..]),
            _ => return None,
        };
        name.push(sign);
        name.push_str(rest);
    }
    Some(name)
}

/// Does one operation (RFC 6902, section 4).
fn apply<'a>(
    root: &mut JsonNode<'a>,
    operation: JsonValue<'a>,
    steps: &mut PatchSteps,
) -> Result<(), PatchRefusal> {
    let operation = PatchOperation::of(operation);
    let path = operation.path()?;
    match operation.op.as_deref() {
        Some("add") => add(root, &path, JsonNode::Text(operation.value()?), steps),
        Some("remove") => remove(root, &path, steps).map(drop),
        Some("replace") => {
            let value = fitting(JsonNode::Text(operation.value()?), &path, steps)?;
            *find(root, &path, steps)? = value;
            Ok(())
        }
        Some("move") => {
            let from = operation.origin()?;
            if from == path {
                find(root, &from, steps)?;
                return Ok(());
            }
            if path.starts_with(&from) {
                return Err("moves a value into itself");
            }
            let value = remove(root, &from, steps)?;
            add(root, &path, value, steps)
        }
        Some("copy") => {
            let value = find(root, &operation.origin()?, steps)?;
            steps.take(value.bytes())?;
            let value = value.clone();
            add(root, &path, value, steps)
        }
        Some("test") => {
            let value = operation.value()?;
            let found = find(root, &path, steps)?;
            steps.take(found.bytes())?;
            if found.is(value) { Ok(()) } else { Err("tests for another value than there is") }
        }
        _ => Err("has no `op` of RFC 6902"),
    }
}

fn find<'n, 'a>(
    root: &'n mut JsonNode<'a>,
    path: &[String],
    steps: &mut PatchSteps,
) -> Result<&'n mut JsonNode<'a>, PatchRefusal> {
    let mut node = root;
    for token in path {
        node = node.child(token, steps)?;
    }
    Ok(node)
}

fn add<'a>(
    root: &mut JsonNode<'a>,
    path: &[String],
    value: JsonNode<'a>,
    steps: &mut PatchSteps,
) -> Result<(), PatchRefusal> {
    let value = fitting(value, path, steps)?;
    let Some((last, parents)) = path.split_last() else {
        *root = value;
        return Ok(());
    };
    find(root, parents, steps)?.insert(last, value, steps)
}

fn remove<'a>(
    root: &mut JsonNode<'a>,
    path: &[String],
    steps: &mut PatchSteps,
) -> Result<JsonNode<'a>, PatchRefusal> {
    let (last, parents) =
        path.split_last().ok_or("takes the whole document away; send a delete instead")?;
    find(root, parents, steps)?.remove(last, steps)
}

/// A value that may go to a place.
fn fitting<'a>(
    value: JsonNode<'a>,
    path: &[String],
    steps: &mut PatchSteps,
) -> Result<JsonNode<'a>, PatchRefusal> {
    steps.take(value.bytes())?;
    if DEPTH_MAX < path.len() + value.depth() {
        return Err("nests the document too deep");
    }
    Ok(value)
}

#[cfg(test)]
mod tests;
