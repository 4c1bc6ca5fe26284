//! Single members of an object, and their texts in messages.

use crate::event::json::{JsonKind, JsonMember, JsonValue};
use std::borrow::Cow;

/// The value of the member with this name; null is none.
pub(super) fn find<'a>(members: &[JsonMember<'a>], name: &str) -> Option<JsonValue<'a>> {
    members
        .iter()
        .rfind(|member| member.name.raw.get(1..member.name.raw.len() - 1) == Some(name))
        .map(|member| member.value)
        .filter(|value| value.kind != JsonKind::Null)
}

/// The start of a text, for a message.
pub(super) fn excerpt(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{}…", &text[..at]).into(),
        None => text.into(),
    }
}
