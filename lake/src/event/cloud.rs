//! CloudEvents in binary mode (HTTP protocol binding 1.0.2, section 3.1): attributes from headers, data
//! from the body, to the structured form. Leaves reading that form to `normalize`.

use crate::event::{json, normalize::EventFault};
use base64::{Engine, prelude::BASE64_STANDARD};
use icecore_schemas::error_code::ErrorCode;
use percent_encoding::percent_decode_str;
use std::{borrow::Cow, fmt::Write};

/// Media types besides `text/…` whose bytes are text.
const TEXT: [&str; 6] = [
    "application/xml",
    "application/yaml",
    "application/x-yaml",
    "application/javascript",
    "application/graphql",
    "application/x-www-form-urlencoded",
];

/// A header's value as an attribute: what no header may hold is percent-encoded there, and other bytes
/// are by this.
#[must_use]
pub fn header_text(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) => text.to_owned(),
        Err(_) => value.iter().fold(String::new(), |mut text, byte| {
            match byte.is_ascii() {
                true => text.push(char::from(*byte)),
                false => write!(text, "%{byte:02X}").expect("a string takes every text"),
            }
            text
        }),
    }
}

/// The structured form of a binary-mode event, and why it is refused if it is.
///
/// A body that is JSON becomes `data`, text a string, other bytes `data_base64`: nothing of the body
/// is lost. The media type says which; without one the bytes do.
pub(crate) fn event_text(
    body: &[u8],
    attributes: &[(String, String)],
) -> (String, Option<EventFault>) {
    let mut out = String::with_capacity(body.len() + 64 * attributes.len());
    let mut separator = '{';
    let mut media = None;
    let mut fault = None;
    for (name, value) in attributes {
        out.push(separator);
        separator = ',';
        let name = name.to_ascii_lowercase();
        let name = name.strip_prefix("ce-").unwrap_or(&name);
        json::push_string(&mut out, name);
        out.push(':');
        // A media type is a header of its own, not an attribute that was encoded.
        if name == "datacontenttype" {
            media = Some(value.as_str());
            json::push_string(&mut out, value);
            continue;
        }
        let plain = unquoted(value);
        match percent_decode_str(&plain).decode_utf8() {
            Ok(text) => json::push_string(&mut out, &text),
            Err(_) => {
                json::push_string(&mut out, value);
                let reason = format!("the percent-decoded header ce-{name} is not UTF-8");
                fault = Some(EventFault::new(ErrorCode::InvalidEvent, reason));
            }
        }
    }
    if !body.is_empty() {
        out.push(separator);
        push_data(&mut out, body, media);
    }
    out.push('}');
    (out, fault)
}

/// A value without the quotes of a quoted string (RFC 9110, section 5.6.4).
fn unquoted(value: &str) -> Cow<'_, str> {
    let inner = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let Some(inner) = inner else { return Cow::Borrowed(value) };
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    let mut plain = String::with_capacity(inner.len());
    let mut letters = inner.chars();
    while let Some(letter) = letters.next() {
        plain.push(match letter {
            '\\' => letters.next().unwrap_or('\\'),
            other => other,
        });
    }
    Cow::Owned(plain)
}

fn push_data(out: &mut String, body: &[u8], media: Option<&str>) {
    let media =
        media.map(|media| media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    let media = media.as_deref();
    let is_json = media.is_none_or(|media| {
        media.ends_with("+json") || matches!(media, "application/json" | "text/json")
    });
    let is_text = is_json
        || media.is_some_and(|media| {
            media.starts_with("text/") || media.ends_with("+xml") || TEXT.contains(&media)
        });
    let text = std::str::from_utf8(body).ok().filter(|_| is_text);
    let value = text
        .filter(|_| is_json)
        .and_then(|text| json::one_value(text.strip_prefix('\u{feff}').unwrap_or(text)));
    match (value, text) {
        (Some(value), _) => {
            out.push_str("\"data\":");
            out.push_str(value.raw);
        }
        (None, Some(text)) => {
            out.push_str("\"data\":");
            json::push_string(out, text);
        }
        (None, None) => {
            out.push_str("\"data_base64\":\"");
            BASE64_STANDARD.encode_string(body, out);
            out.push('"');
        }
    }
}
