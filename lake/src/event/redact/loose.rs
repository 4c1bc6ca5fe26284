//! Credentials in text that is no valid JSON, where nobody knows which quote opens and which closes:
//! each quote may begin a name with its value.

use super::{
    REDACTED,
    names::{NAME_BYTES_MAX, is_secret_header},
    url,
};

/// The text without credentials; none if it had none.
pub(super) fn redact(text: &str) -> Option<String> {
    let named = named_values(text);
    let in_urls = url::redact(named.as_deref().unwrap_or(text));
    in_urls.map(|(clean, _)| clean).or(named)
}

fn named_values(text: &str) -> Option<String> {
    let (mut out, mut copied) = (String::new(), 0);
    for (quote, _) in text.match_indices('"') {
        if quote < copied {
            continue;
        }
        let Some((start, end)) = secret_value(text, quote + 1) else { continue };
        if &text[start..end] != REDACTED {
            out.push_str(&text[copied..start]);
            out.push_str(REDACTED);
            copied = end;
        }
    }
    (copied > 0).then(|| out + &text[copied..])
}

/// The text of the value behind a name that begins at `at`, if it is a credential.
fn secret_value(text: &str, at: usize) -> Option<(usize, usize)> {
    let rest = &text[at..];
    let within = &rest[..rest.floor_char_boundary(NAME_BYTES_MAX + 1)];
    let name = &within[..within.find('"')?];
    if !is_secret_header(name) {
        return None;
    }
    let value = rest[name.len() + 1..].trim_ascii_start().strip_prefix([':', ','])?;
    let value = value.trim_ascii_start().trim_start_matches(['[', ' ']).strip_prefix('"')?;
    let mut is_escaped = false;
    let end = value.find(|c: char| {
        let is_end = c == '"' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        is_end
    });
    let start = text.len() - value.len();
    Some((start, start + end.unwrap_or(value.len())))
}
