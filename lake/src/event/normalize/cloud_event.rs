//! What a CloudEvent says in a way of its own. Leaves the HTTP binding to `event::cloud`.

use super::{CellValue, EventDraft, EventFault, known};
use crate::event::{
    json::{self, EventParts},
    names,
};
use icecore_schemas::{error_code::ErrorCode, names::is_event_type};
use std::borrow::Cow;

/// Longest type that is stored.
const TYPE_BYTES_MAX: usize = 256;

/// Whether a stored event is a CloudEvent.
pub(crate) fn is_cloud_event(payload: &str) -> bool {
    if !payload.contains("specversion") && !payload.contains('\\') {
        return false;
    }
    let mut parts = EventParts::default();
    // What is stored was read before.
    let _broken = json::JsonScanner::new(payload).object(json::NESTING_MAX, &mut parts);
    parts.top.iter().filter_map(known).any(|known| known.slot == names::SPEC_VERSION)
}

impl<'a> EventDraft<'_, 'a> {
    /// Gives a CloudEvent's attributes the places of the columns they mean.
    pub(super) fn cloud_event(&mut self) -> Result<(), EventFault> {
        let version = self.value(names::SPEC_VERSION).and_then(|value| value.text());
        if !version.is_some_and(|version| version.starts_with("1.")) {
            return Err(EventFault::new(
                ErrorCode::InvalidEvent,
                "`specversion` of a CloudEvent must be \"1.0\"",
            ));
        }
        for (from, to) in names::CLOUD_EVENT_COLUMNS {
            if self.has(from) && !self.has(to) {
                self.present.add(to);
                self.member[to] = self.member[from];
                self.forget(from);
            }
        }
        Ok(())
    }

    /// A type that the specification allows and a table's partition does not: the original goes to
    /// `event_type`.
    pub(super) fn cloud_event_type(&mut self, text: Cow<'a, str>) -> Cow<'a, str> {
        let stored = stored_type(&text);
        if self.value(names::EVENT_TYPE).is_none() {
            self.put(names::EVENT_TYPE, CellValue::Text(text));
        }
        Cow::Owned(stored)
    }
}

/// The type with `_` for each character that a type may not have.
fn stored_type(text: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    // A type begins with a letter or a digit.
    let text = text.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    let replaced = text.chars().map(|c| if allowed(c) { c } else { '_' });
    let stored: String = replaced.take(TYPE_BYTES_MAX).collect();
    debug_assert!(stored.is_empty() || is_event_type(&stored));
    if stored.is_empty() { "cloudevent".to_owned() } else { stored }
}
