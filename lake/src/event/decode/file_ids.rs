//! What a sender of files has to know of their events: where each begins and ends, which are batches, and
//! which may be given an id.

use super::{
    batch::{batch_members, slot},
    values::{are_several, is_between},
};
use crate::event::{
    digest::digest,
    json::{self, EventParts, JsonError, JsonKind, JsonScanner, NESTING_MAX},
    names, time,
};
use icecore_schemas::columns::KNOWN_EVENTS;

/// Members with which a row of a database says that all others are its columns.
const ROW_FIELDS: [&str; 2] = ["\"__op\"", "\"__deleted\""];
/// Members of which an event has one, unless something else than its sender has written it.
const OWN_WORDS: [usize; 5] =
    [names::TYPE, names::SPEC_VERSION, names::OP, names::STORE, names::COLLECTION];

/// A line without what a server reads over at its ends: white space, commas, byte order marks, record
/// separators.
#[must_use]
pub fn bare_line(line: &[u8]) -> &[u8] {
    match std::str::from_utf8(line) {
        Ok(text) => text.trim_ascii().trim_matches(is_between).as_bytes(),
        Err(_) => line.trim_ascii(),
    }
}

/// The values of a line that a server takes one after the other, and what is left from a broken one on; none
/// of a line that it refuses as a whole.
#[must_use]
pub fn values_of_line(line: &[u8]) -> Option<(Vec<&str>, &str)> {
    std::str::from_utf8(line).ok().filter(|text| are_several(text)).map(values_of)
}

/// The values of a text, one after the other, and what is left from a broken one on.
#[must_use]
pub fn values_of(text: &str) -> (Vec<&str>, &str) {
    let mut values = Vec::new();
    let mut rest = text.trim_start_matches(is_between);
    while !rest.is_empty() {
        let mut scan = JsonScanner::new(rest);
        let is_sound = match scan.value(NESTING_MAX) {
            Err(JsonError::TooDeep) => scan.skip_blindly(0).is_ok(),
            found => found.is_ok(),
        };
        if !is_sound {
            break;
        }
        let (value, after) = rest.split_at(scan.at());
        values.push(value);
        rest = after.trim_start_matches(is_between);
    }
    (values, rest)
}

/// Whether this is one event in its sender's own words that has no id; none where it is not one object. What
/// a database wrote is known by where its log has it, and some of it by having no other members.
#[must_use]
pub fn may_get_id(event: &[u8]) -> Option<bool> {
    let text = std::str::from_utf8(event).ok()?;
    let (mut parts, mut scan) = (EventParts::default(), JsonScanner::new(text));
    scan.object(NESTING_MAX, &mut parts).and_then(|()| scan.end()).ok()?;
    let has = |slots: &[usize]| {
        parts.top.iter().any(|member| {
            let slot = slot(member.name);
            member.value.kind != JsonKind::Null && slot.is_some_and(|slot| slots.contains(&slot))
        })
    };
    let is_row = parts.top.iter().any(|member| ROW_FIELDS.contains(&member.name.raw));
    Some(has(&OWN_WORDS) && !has(&[names::ID]) && !is_row && batch_members(&parts.top).is_none())
}

/// The column that a member of this name fills, and the rank of the name: of several names of one column
/// the lowest rank is preferred. None for a name that fills no single column.
#[must_use]
pub fn column_of(name: &str) -> Option<(&'static str, u16)> {
    let known = names::find(name)?;
    KNOWN_EVENTS.get(known.slot).map(|column| (column.name, known.rank))
}

/// The microseconds since 1970 that a JSON value stands for as a time; none where it is no time.
#[must_use]
pub fn time_us(value: &str) -> Option<i64> {
    time::parse(json::one_value(value)?)
}

/// What a JSON text says, as a number that does not depend on how it is written: the order of members,
/// white space, escapes, the notation of numbers and null members do not count. None where it is not JSON.
#[must_use]
pub fn digest_of(text: &str) -> Option<u128> {
    json::one_value(text).map(digest)
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
