//! Credentials in what a Tail Worker says of a request are taken out before anything is written.
//!
//! Headers, query parameters and the user part of URLs that carry credentials become `REDACTED`, at
//! any depth, in lists of names and values, in text that is JSON itself and in URLs inside of log
//! lines. It works on text that is broken, too: what is refused is kept as well.

mod loose;
mod names;
mod url;
mod walk;

use crate::event::{
    json::{self, EventParts, JsonKind, JsonScanner, push_string},
    names as members,
};
use walk::RedactionWalk;

/// What stands in place of a credential.
const REDACTED: &str = "REDACTED";
/// Most places that are named in `_meta`.
const PLACES_MAX: usize = 64;

/// The event without credentials, and in its `_meta` a list `redacted` of where they were; none if
/// there were none.
pub(crate) fn redact(event: &str) -> Option<String> {
    let walked = RedactionWalk::over(event);
    if json::one_value(event).is_none() {
        let walked = walked.map(|(text, _)| text);
        let loose = loose::redact(walked.as_deref().unwrap_or(event));
        return loose.or(walked);
    }
    let (text, places) = walked?;
    Some(noted(&text, &places).unwrap_or(text))
}

/// Whether a text that was not read as an event may be one of a Tail Worker.
pub(crate) fn may_be_trace(text: &str) -> bool {
    let is_tail =
        |at: usize| matches!(text.as_bytes().get(at + 5), Some(b'"' | b'.' | b'_' | b'-'));
    text.match_indices("\"tail").any(|(at, _)| is_tail(at)) || has_script(text)
}

/// Whether a text names the script that a Tail Worker watched.
pub(crate) fn has_script(text: &str) -> bool {
    ["scriptName", "script_name", "ScriptName"].iter().any(|name| text.contains(name))
}

/// Whether a type is one of a Tail Worker's: `tail`, `tail.request`.
pub(crate) fn is_trace_type(event_type: &str) -> bool {
    let rest = event_type.strip_prefix("tail");
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '_', '-']))
}

/// The event with the list in its `_meta`; none if it is no object.
fn noted(event: &str, places: &[String]) -> Option<String> {
    let mut parts = EventParts::default();
    let mut scan = JsonScanner::new(event);
    scan.object(json::NESTING_MAX, &mut parts).ok()?;
    let mut list = String::from("\"redacted\":[");
    for (number, place) in places.iter().take(PLACES_MAX).enumerate() {
        if number > 0 {
            list.push(',');
        }
        push_string(&mut list, place);
    }
    list.push(']');
    let is_meta = |known: &members::KnownName| known.slot == members::META;
    // Of two names the column's own counts, of one name the last.
    let meta = parts.top.iter().rev().filter_map(|member| {
        let known = members::find(&member.name.text()?).filter(is_meta)?;
        Some((known.rank, member.value))
    });
    let meta = meta.min_by_key(|(rank, _)| *rank).map(|(_, value)| value);
    // Where the list goes, and whether something stands before it there.
    let (at, is_first, is_inside) = match meta {
        Some(meta) if meta.kind == JsonKind::Object => {
            let end = offset(event, meta.raw) + meta.raw.len() - 1;
            (end, meta.raw[1..meta.raw.len() - 1].trim_ascii().is_empty(), true)
        }
        _ => (event.rfind('}')?, parts.top.is_empty(), false),
    };
    let comma = if is_first { "" } else { "," };
    let (before, after) = event.split_at(at);
    Some(match (is_inside, meta) {
        (true, _) => format!("{before}{comma}{list}{after}"),
        (false, None) => format!("{before}{comma}\"_meta\":{{{list}}}{after}"),
        // This name wins over `_meta`, and over itself further up.
        (false, Some(_)) => format!("{before}{comma}\"meta\":{{{list}}}{after}"),
    })
}

/// Where a part of a text begins in it.
fn offset(text: &str, part: &str) -> usize {
    part.as_ptr() as usize - text.as_ptr() as usize
}

#[cfg(test)]
mod tests;
