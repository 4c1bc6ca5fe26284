//! What is wrong with a body or a part of it, in words that say what to change.

use crate::event::{BodyError, json::JsonError, normalize::EventFault};
use icecore_schemas::error_code::ErrorCode;

/// What the body is instead of UTF-8, where its start tells.
pub(super) fn other_encoding(body: &[u8]) -> Option<&'static str> {
    match body {
        [0x1f, 0x8b, ..] => Some("the body is gzip; send it with Content-Encoding: gzip"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            Some("the body is zstd; send it with Content-Encoding: zstd")
        }
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some("the body is UTF-16; send it as UTF-8"),
        [b'{' | b'[', 0, ..] | [0, b'{' | b'[', ..] => Some("the body is UTF-16; send it as UTF-8"),
        _ => None,
    }
}

pub(super) fn not_utf8(at: usize) -> BodyError {
    BodyError::new(ErrorCode::InvalidJson, format!("the body is not UTF-8 at byte {at}"))
}

pub(super) fn not_an_object() -> EventFault {
    EventFault::new(ErrorCode::InvalidEvent, "an event must be a JSON object")
}

#[cold]
pub(super) fn broken(text: &str, flaw: JsonError) -> BodyError {
    match flaw {
        JsonError::Syntax(at) if at >= text.len() => {
            BodyError::new(ErrorCode::InvalidJson, "the JSON ends too early")
        }
        JsonError::Syntax(at) => {
            let start = text.floor_char_boundary(at);
            let near: String = text[start..].chars().take(20).collect();
            BodyError::new(
                ErrorCode::InvalidJson,
                format!("the JSON is broken at byte {at}, near {near:?}"),
            )
        }
        JsonError::TooDeep => BodyError::new(ErrorCode::TooDeep, "the JSON is nested too deep"),
    }
}

impl From<BodyError> for EventFault {
    fn from(error: BodyError) -> Self {
        Self { code: error.code, reason: error.reason }
    }
}
