//! Text of tables as a terminal may show it. Its one invariant: no character of the data moves the
//! cursor, turns the line around or is read as a command of the terminal.

use unicode_width::UnicodeWidthStr;

/// What stands for what is left out.
pub(super) const ELLIPSIS: &str = "…";

/// The text in one line, with control characters as escapes.
pub(super) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            letter if is_control(letter) => {
                out.push_str(&format!("\\u{{{:x}}}", u32::from(letter)));
            }
            letter => out.push(letter),
        }
    }
    out
}

/// The same for a text of several lines, which stay.
pub(super) fn printable_lines(text: &str) -> String {
    text.split('\n').map(printable).collect::<Vec<_>>().join("\n")
}

/// Control characters, those that set the direction of writing, and line ends that are none to `\n`.
fn is_control(letter: char) -> bool {
    letter.is_control()
        || matches!(
            letter,
            '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'
                ..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
        )
}

/// How many columns of a terminal a text takes.
pub(super) fn width(text: &str) -> usize {
    text.width()
}

/// The first `max` characters of a text, and an ellipsis where there are more.
pub(super) fn first_letters(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((end, _)) => format!("{}{ELLIPSIS}", &text[..end]),
        None => text.to_owned(),
    }
}

/// The text, or as much of its beginning as fits with an ellipsis, in at most `max` columns.
pub(super) fn fitted(text: &str, max: usize) -> String {
    if width(text) <= max {
        return text.to_owned();
    }
    let mut end = 0;
    for (at, letter) in text.char_indices() {
        let next = at + letter.len_utf8();
        // The beginning is measured as a whole: several characters may be one emoji.
        if max <= width(&text[..next]) {
            break;
        }
        end = next;
    }
    format!("{}{ELLIPSIS}", &text[..end])
}

/// The text with blanks up to `columns`, before it or behind it.
pub(super) fn padded(text: &str, columns: usize, is_right: bool) -> String {
    let blanks = " ".repeat(columns.saturating_sub(width(text)));
    if is_right { format!("{blanks}{text}") } else { format!("{text}{blanks}") }
}

#[cfg(test)]
mod tests;
