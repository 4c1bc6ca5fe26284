//! The parts of `{"events":[…],"batchId"}`: its events, and its id wherever it stands.
//! Leaves reading the events to `decode`.

use crate::event::{
    json::{EventParts, JsonError, JsonKind, JsonMember, JsonScanner, JsonValue, NESTING_MAX},
    names, normalize,
};
use std::borrow::Cow;

/// If these are the members of a batch: its array of events, its id, and whether it is one of an
/// analytics library.
pub(super) fn batch_members<'a>(
    members: &[JsonMember<'a>],
) -> Option<(&'a str, Option<String>, bool)> {
    if let Some(events) = changefeed_members(members) {
        return Some((events, None, false));
    }
    let first = members.iter().find(|member| {
        member.value.kind == JsonKind::Array && slot(member.name) == Some(names::EVENT_LIST)
    })?;
    if members.iter().any(|member| slot(member.name) == Some(names::TYPE)) {
        return None;
    }
    let batch_id = members.iter().find_map(|member| {
        (slot(member.name) == Some(names::BATCH_ID)).then(|| batch_id_of(member.value)).flatten()
    });
    Some((first.value.raw, batch_id, is_call_list(first.name)))
}

/// The messages of what CockroachDB's webhook sink sends, if these are its members: `payload` and how
/// many messages it has. `payload` of other events is what their sender put there.
pub(super) fn changefeed_members<'a>(members: &[JsonMember<'a>]) -> Option<&'a str> {
    let value = |name: &str| members.iter().find(|it| it.name.raw == name).map(|it| it.value);
    let (messages, length) = (value("\"payload\"")?, value("\"length\"")?);
    let is_it =
        members.len() == 2 && messages.kind == JsonKind::Array && length.kind == JsonKind::Number;
    is_it.then_some(messages.raw)
}

/// Whether a body is one of CockroachDB's webhook sink.
pub(super) fn is_changefeed(body: &str) -> bool {
    let mut parts = EventParts::default();
    // A broken body is found to be one where it is read.
    let _broken = JsonScanner::new(body).object(NESTING_MAX, &mut parts);
    changefeed_members(&parts.top).is_some()
}

/// Whether the list of events is one of an analytics library.
pub(super) fn is_call_list(name: JsonValue<'_>) -> bool {
    name.raw == "\"batch\""
}

/// Whether a text is what Kafka Connect sends for a key that was deleted: it is taken and says nothing
/// that is stored.
pub(super) fn is_tombstone(text: &str) -> bool {
    text.trim_ascii() == "null"
}

/// What a member of this name means.
pub(super) fn slot(name: JsonValue<'_>) -> Option<usize> {
    names::find(&name.text()?).map(|known| known.slot)
}

/// A text or a number that is a batch's id.
pub(super) fn batch_id_of(value: JsonValue<'_>) -> Option<String> {
    normalize::identifier(value).map(Cow::into_owned)
}

/// Longest id of a batch, which each of its events and dead letters has.
const BATCH_ID_BYTES_MAX: usize = 1024;

/// Refuses a batch id that is too long.
pub(super) fn check_batch_id(batch_id: Option<&str>) -> Result<(), String> {
    match batch_id.map_or(0, str::len) {
        ..=BATCH_ID_BYTES_MAX => Ok(()),
        bytes => Err(format!(
            "`batchId` has {bytes} bytes, at most {BATCH_ID_BYTES_MAX} are allowed; send a shorter one"
        )),
    }
}

/// The batch id after the events, guessed from what follows the last bracket of the text: mostly
/// right, so that the events need not be read twice. Wrong is harmless: it is compared later.
pub(super) fn guess(text: &str) -> Option<String> {
    let tail = &text[text.rfind(']')? + 1..];
    rest_of_batch(&mut JsonScanner::new(tail)).ok()?.batch_id
}

/// The batch id after the events, with the scan at their array.
pub(super) fn look_ahead(mut scan: JsonScanner<'_>) -> Option<String> {
    let start = scan.at();
    scan.skip_blindly(start).ok()?;
    rest_of_batch(&mut scan).ok()?.batch_id
}

/// What stands in a batch behind its events.
pub(super) struct BatchRest {
    /// Its id, if that is there.
    pub(super) batch_id: Option<String>,
    /// Whether a type is there: then it is no batch but an event.
    pub(super) has_type: bool,
}

/// Goes to the end of a batch whose events were read.
pub(super) fn rest_of_batch(scan: &mut JsonScanner<'_>) -> Result<BatchRest, JsonError> {
    let mut rest = BatchRest { batch_id: None, has_type: false };
    while scan.take(b',') {
        let name = scan.name()?;
        scan.expect(b':')?;
        let value = scan.value(NESTING_MAX)?;
        match slot(name) {
            Some(names::BATCH_ID) if rest.batch_id.is_none() => rest.batch_id = batch_id_of(value),
            Some(names::TYPE) => rest.has_type = true,
            _ => {}
        }
    }
    scan.expect(b'}')?;
    Ok(rest)
}
