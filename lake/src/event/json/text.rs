//! The texts of JSON strings: escapes and what they stand for.
//!
//! Half of a surrogate pair is valid JSON (RFC 8259, section 8.2) but no text. Readers differ:
//! some refuse the whole document. So it is kept as the escape that it is written as.

/// The offset after the escape at `at`, if it is one, and whether it is half of a surrogate pair.
/// A whole pair is one step.
pub(super) fn after_escape(bytes: &[u8], at: usize) -> Option<(usize, bool)> {
    match bytes.get(at + 1)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some((at + 2, false)),
        b'u' => {
            let hex = bytes.get(at + 2..at + 6)?;
            if !hex.iter().all(u8::is_ascii_hexdigit) {
                return None;
            }
            match (surrogate(bytes, at), surrogate(bytes, at + 6)) {
                (None, _) => Some((at + 6, false)),
                (Some(SurrogateHalf::High), Some(SurrogateHalf::Low)) => Some((at + 12, false)),
                (Some(_), _) => Some((at + 6, true)),
            }
        }
        _ => None,
    }
}

/// Half of a surrogate pair.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SurrogateHalf {
    High,
    Low,
}

/// Which half of a pair the escape at `at` is, if it is one.
fn surrogate(bytes: &[u8], at: usize) -> Option<SurrogateHalf> {
    match bytes.get(at..at + 6)? {
        [b'\\', b'u', b'd' | b'D', second, third, fourth]
            if third.is_ascii_hexdigit() && fourth.is_ascii_hexdigit() =>
        {
            match second {
                b'8' | b'9' | b'a' | b'b' | b'A' | b'B' => Some(SurrogateHalf::High),
                b'c'..=b'f' | b'C'..=b'F' => Some(SurrogateHalf::Low),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Where the next half of a surrogate pair is, from `from` on, in valid JSON.
pub(super) fn lone_surrogate(json: &str, from: usize) -> Option<usize> {
    let bytes = json.as_bytes();
    let mut at = from;
    loop {
        at += json.get(at..)?.find('\\')?;
        let (next, is_lone) = after_escape(bytes, at)?;
        if is_lone {
            return Some(at);
        }
        at = next;
    }
}

/// Valid JSON in which each half of a surrogate pair is text, its own escape (`\\ud800`), so that
/// every reader of JSON takes it; none if there was no such half.
#[must_use]
pub fn without_lone_surrogates(json: &str) -> Option<String> {
    let mut next = lone_surrogate(json, 0)?;
    let mut out = String::with_capacity(json.len() + 8);
    let mut copied = 0;
    loop {
        out.push_str(&json[copied..next]);
        out.push('\\');
        copied = next;
        match lone_surrogate(json, next + 6) {
            Some(at) => next = at,
            None => break,
        }
    }
    out.push_str(&json[copied..]);
    Some(out)
}

/// The text that valid escapes stand for; half of a surrogate pair stays the escape it is written
/// as, so that different texts stay different.
pub(super) fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let escape = rest.as_bytes()[at + 1];
        rest = &rest[at + 2..];
        match escape {
            b'b' => out.push('\u{8}'),
            b'f' => out.push('\u{c}'),
            b'n' => out.push('\n'),
            b'r' => out.push('\r'),
            b't' => out.push('\t'),
            b'u' => {
                let high = hex(rest);
                let digits = &rest[..4];
                rest = &rest[4..];
                let low = rest.strip_prefix("\\u").map(hex).filter(|low| low >> 10 == 0x37);
                match low {
                    Some(low) if high >> 10 == 0x36 => {
                        rest = &rest[6..];
                        let code = 0x1_0000 + ((high & 0x3ff) << 10) + (low & 0x3ff);
                        out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                    }
                    _ => match char::from_u32(high) {
                        Some(c) => out.push(c),
                        None => {
                            out.push_str("\\u");
                            out.push_str(digits);
                        }
                    },
                }
            }
            other => out.push(char::from(other)),
        }
    }
    out.push_str(rest);
    out
}

fn hex(text: &str) -> u32 {
    u32::from_str_radix(&text[..4], 16).expect("the scan saw four hex digits")
}

/// Appends `text` as a JSON string.
pub(crate) fn push_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => {
                out.push_str("\\u00");
                let digits = b"0123456789abcdef";
                let code = c as usize;
                out.push(char::from(digits[code >> 4]));
                out.push(char::from(digits[code & 15]));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
