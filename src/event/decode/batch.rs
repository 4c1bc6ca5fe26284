//! The parts of `{"events":[…],"batchId"}`: its events, and its id wherever it stands.
//! Leaves reading the events to `decode`.

use crate::event::{
    json::{Flaw, Kind, Member, NESTING_MAX, Scan, Value},
    names,
    normalize::{self, Cell},
};

/// If these are the members of a batch: its array of events, and its id.
pub(super) fn batch_members<'a>(members: &[Member<'a>]) -> Option<(&'a str, Option<String>)> {
    let first = members.iter().find_map(|member| match slot(member.name) {
        Some(names::TYPE) => Some(None),
        Some(names::EVENT_LIST) if member.value.kind == Kind::Array => Some(Some(member.value)),
        _ => None,
    })??;
    let batch_id = members.iter().find_map(|member| {
        (slot(member.name) == Some(names::BATCH_ID)).then(|| batch_id_of(member.value)).flatten()
    });
    Some((first.raw, batch_id))
}

/// Whether a text is what Kafka Connect sends for a key that was deleted: it is taken and says nothing
/// that is stored.
pub(super) fn is_tombstone(text: &str) -> bool {
    text.trim_ascii() == "null"
}

/// What a member of this name means.
pub(super) fn slot(name: Value<'_>) -> Option<usize> {
    names::find(&name.text()?).map(|known| known.slot)
}

/// A text or a number that is a batch's id.
pub(super) fn batch_id_of(value: Value<'_>) -> Option<String> {
    match normalize::convert(names::BATCH_ID, value) {
        Some(Cell::Text(text)) if !text.is_empty() => Some(text.into_owned()),
        _ => None,
    }
}

/// The batch id after the events, guessed from what follows the last bracket of the text: mostly
/// right, so that the events need not be read twice. Wrong is harmless: it is compared later.
pub(super) fn guess(text: &str) -> Option<String> {
    let tail = &text[text.rfind(']')? + 1..];
    rest_of_batch(&mut Scan::new(tail)).ok().flatten()
}

/// The batch id after the events, with the scan at their array.
pub(super) fn look_ahead(mut scan: Scan<'_>) -> Option<String> {
    let start = scan.at();
    scan.skip_blindly(start).ok()?;
    rest_of_batch(&mut scan).ok().flatten()
}

/// Goes to the end of a batch whose events were read, and returns the batch id if it is there.
pub(super) fn rest_of_batch(scan: &mut Scan<'_>) -> Result<Option<String>, Flaw> {
    let mut batch_id = None;
    while scan.take(b',') {
        let name = scan.name()?;
        scan.expect(b':')?;
        let value = scan.value(NESTING_MAX)?;
        if batch_id.is_none() && slot(name) == Some(names::BATCH_ID) {
            batch_id = batch_id_of(value);
        }
    }
    scan.expect(b'}')?;
    Ok(batch_id)
}
