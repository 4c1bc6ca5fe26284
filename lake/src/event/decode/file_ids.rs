//! What a sender of files has to know of their events: which are batches, and which may be given an
//! id.

use super::batch::{batch_members, slot};
use crate::event::{
    json::{EventParts, JsonKind, JsonScanner, NESTING_MAX},
    names,
};

/// Members with which a row of a database says that all others are its columns.
const ROW_FIELDS: [&str; 2] = ["\"__op\"", "\"__deleted\""];
/// Members of which an event has one, unless something else than its sender has written it.
const OWN_WORDS: [usize; 5] =
    [names::TYPE, names::SPEC_VERSION, names::OP, names::STORE, names::COLLECTION];

/// Whether this is one event in its sender's own words that has no id. What a database wrote is known
/// by where its log has it, and some of it by having no other members.
#[must_use]
pub fn may_get_id(event: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(event) else { return false };
    let (mut parts, mut scan) = (EventParts::default(), JsonScanner::new(text));
    if scan.object(NESTING_MAX, &mut parts).and_then(|()| scan.end()).is_err() {
        return false;
    }
    let has = |slots: &[usize]| {
        parts.top.iter().any(|member| {
            let slot = slot(member.name);
            member.value.kind != JsonKind::Null && slot.is_some_and(|slot| slots.contains(&slot))
        })
    };
    let is_row = parts.top.iter().any(|member| ROW_FIELDS.contains(&member.name.raw));
    has(&OWN_WORDS) && !has(&[names::ID]) && !is_row && batch_members(&parts.top).is_none()
}

/// Whether an object is a batch of events and not one event.
///
/// # Errors
/// Why a server refuses such a batch as a whole when it is sent to this namespace.
pub fn is_batch(text: &str, namespace: &str) -> Result<bool, String> {
    let mut parts = EventParts::default();
    if JsonScanner::new(text).object(NESTING_MAX, &mut parts).is_err() {
        return Ok(false);
    }
    let Some(batch) = batch_members(&parts.top) else { return Ok(false) };
    batch.signs.check(batch.list, namespace).map(|()| true)
}
