//! CloudEvents in binary mode: attributes from headers, data from the body, to the structured
//! form. Leaves reading that form to `normalize`.

use crate::event::json;
use percent_encoding::percent_decode_str;

/// The structured form of a binary-mode event. A body that is JSON becomes `data`, other text a
/// string, other bytes nothing that can be read back: they are replaced by U+FFFD.
pub(crate) fn event_text(body: &[u8], attributes: &[(String, String)]) -> String {
    let mut out = String::with_capacity(body.len() + 64 * attributes.len());
    let mut separator = '{';
    for (name, value) in attributes {
        out.push(separator);
        separator = ',';
        let name = name.to_ascii_lowercase();
        json::push_string(&mut out, name.strip_prefix("ce-").unwrap_or(&name));
        out.push(':');
        // The HTTP binding percent-encodes what a header cannot hold.
        json::push_string(&mut out, &percent_decode_str(value).decode_utf8_lossy());
    }
    let text = String::from_utf8_lossy(body);
    let text = text.trim_ascii();
    if !text.is_empty() {
        out.push(separator);
        out.push_str("\"data\":");
        match json::one_value(text) {
            Some(value) => out.push_str(value.raw),
            None => json::push_string(&mut out, text),
        }
    }
    out.push('}');
    out
}
