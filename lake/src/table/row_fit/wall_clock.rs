//! Texts of times as the clock on the wall shows them.

/// A text of a time without the offset that is behind it.
#[must_use]
pub fn without_zone(text: &str) -> &str {
    let Some(start) = text.trim_start().find(['T', 't', ' ']) else { return text };
    let start = start + text.len() - text.trim_start().len() + 1;
    let is_clock = |letter: char| letter.is_ascii_digit() || letter == ':' || letter == '.';
    let end =
        text[start..].find(|letter: char| !is_clock(letter)).map_or(text.len(), |at| start + at);
    let zone = text[end..].trim();
    let is_offset = zone.strip_prefix(['+', '-']).is_some_and(|offset| {
        offset.bytes().all(|letter| letter.is_ascii_digit() || letter == b':')
    });
    if is_offset || zone.eq_ignore_ascii_case("z") { &text[..end] } else { text }
}
