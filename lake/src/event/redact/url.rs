//! Credentials in URLs, wherever in a text these are: query parameters, also percent-encoded inside
//! of other URLs, the user before the host, bearer tokens, and headers and pairs on a line of a log.

use super::{
    REDACTED,
    names::{NAME_BYTES_MAX, is_count, is_secret_line, is_secret_member, is_secret_parameter},
};
use percent_encoding::percent_decode_str;
use std::ops::Range;

/// Shortest word after `Bearer` or a colon that is taken for a token.
const BEARER_BYTES_MIN: usize = 16;
/// The same for a word that has what words of a language do not have.
const SHORT_BEARER_BYTES_MIN: usize = 6;

/// The text without credentials, and the names of those it had; none if it had none.
pub(super) fn redact(text: &str) -> Option<(String, Vec<String>)> {
    let mut found: Vec<(Range<usize>, String)> = Vec::new();
    users(text, &mut found);
    parameters(text, &mut found);
    bearers(text, &mut found);
    headers(text, &mut found);
    pairs(text, &mut found);
    found.retain(|(range, _)| !range.is_empty() && &text[range.clone()] != REDACTED);
    if found.is_empty() {
        return None;
    }
    found.sort_by_key(|(range, _)| range.start);
    let (mut out, mut copied) = (String::with_capacity(text.len()), 0);
    let mut names = Vec::new();
    for (range, name) in found {
        // One may lie inside another.
        if copied <= range.start {
            out.push_str(&text[copied..range.start]);
            out.push_str(REDACTED);
        }
        copied = copied.max(range.end);
        names.push(name);
    }
    out.push_str(&text[copied..]);
    Some((out, names))
}

/// `user:password@` behind `://`.
fn users(text: &str, found: &mut Vec<(Range<usize>, String)>) {
    for (at, _) in text.match_indices("://") {
        let start = at + 3;
        let host = &text[start..];
        let is_end = |c: char| c.is_whitespace() || "/?#\"'<>\\".contains(c);
        let host = &host[..host.find(is_end).unwrap_or(host.len())];
        if let Some(end) = host.rfind('@') {
            found.push((start..start + end, "userinfo".to_owned()));
        }
    }
}

/// `name=value` behind `?`, `&`, `;` or `#`, each also percent-encoded.
fn parameters(text: &str, found: &mut Vec<(Range<usize>, String)>) {
    let mut at = 0;
    while let Some((start, is_encoded)) = next_separator(text, at) {
        at = start;
        let rest = &text[start..];
        let Some((name, value)) = split_name(rest) else { continue };
        let name = percent_decode_str(name).decode_utf8_lossy();
        if is_secret_parameter(&name) {
            let value_start = start + value;
            let end = value_start + value_length(&text[value_start..], is_encoded);
            found.push((value_start..end, name.into_owned()));
            at = end;
        }
    }
}

/// The place after the next separator, and whether that one is percent-encoded.
fn next_separator(text: &str, from: usize) -> Option<(usize, bool)> {
    let bytes = text.as_bytes();
    (from..bytes.len()).find_map(|at| match bytes[at] {
        b'?' | b'&' | b';' | b'#' => Some((at + 1, false)),
        b'%' => {
            let code = bytes.get(at + 1..at + 3)?;
            is_code(code, &[b"3F", b"26", b"23", b"3B"]).then_some((at + 3, true))
        }
        _ => None,
    })
}

fn is_code(code: &[u8], codes: &[&[u8; 2]]) -> bool {
    codes.iter().any(|known| code.eq_ignore_ascii_case(*known))
}

/// A parameter's name, and where its value begins.
fn split_name(text: &str) -> Option<(&str, usize)> {
    for (at, c) in text.char_indices().take_while(|(at, _)| *at <= NAME_BYTES_MAX) {
        match c {
            '=' => return Some((&text[..at], at + 1)),
            '%' if is_code(text.as_bytes().get(at + 1..at + 3)?, &[b"3D"]) => {
                return Some((&text[..at], at + 3));
            }
            '?' | '&' | ';' | '#' | '"' | '\'' | '<' | '>' => return None,
            c if c.is_whitespace() => return None,
            _ => {}
        }
    }
    None
}

/// The length of the value at the start of the text.
fn value_length(text: &str, is_encoded: bool) -> usize {
    let end = text.char_indices().find(|(at, c)| match c {
        '&' | '#' | '"' | '\'' | '<' | '>' => true,
        '%' if is_encoded => {
            let code = text.as_bytes().get(at + 1..at + 3);
            code.is_some_and(|code| is_code(code, &[b"26", b"23"]))
        }
        c => c.is_whitespace(),
    });
    end.map_or(text.len(), |(at, _)| at)
}

/// `password=…`, `password: …` and `'password': '…'` where a word begins. Words that programs write
/// for no value are none, and behind a colon often come words of a sentence.
fn pairs(text: &str, found: &mut Vec<(Range<usize>, String)>) {
    let mut end = 0;
    for (at, separator) in text.match_indices(['=', ':']) {
        // Inside a value that was found, no other is looked for.
        if at < end {
            continue;
        }
        let is_part = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        let quoted = text[..at].strip_suffix('\'');
        let named = quoted.unwrap_or(&text[..at]);
        let before = named.trim_end_matches(is_part);
        let name = &named[before.len()..];
        let is_word = before.is_empty()
            || before.ends_with(|c: char| c.is_whitespace() || ",([{\"'".contains(c));
        if !is_word || !is_secret_member(name) {
            continue;
        }
        let rest = &text[at + 1..];
        let rest = if separator == ":" { rest.trim_start_matches(' ') } else { rest };
        // `==`, `=>` and `=~` are of code.
        if rest.starts_with(['=', '>', '~']) {
            continue;
        }
        let quote = rest.starts_with(['"', '\'']).then(|| &rest[..1]);
        let start = quote.map_or(0, str::len);
        let length = match quote {
            Some(quote) => rest[1..].find(quote).unwrap_or(rest.len() - 1),
            None => value_length(rest, false),
        };
        let value = &rest[start..start + length];
        let is_none = ["null", "none", "nil", "undefined", "true", "false"].contains(&value);
        let number = value.trim_end_matches([')', ']', '}']);
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let is_count = is_count(name) && is_number;
        let is_assigned = separator == "=" || quoted.is_some();
        // A parser's tokens are words: `Unexpected token: end-of-file`.
        let hyphens = if name.eq_ignore_ascii_case("token") { "-" } else { "" };
        let is_value = is_assigned || is_token(value.replace(hyphens, "").as_bytes());
        if !is_none && !is_count && is_value {
            let start = text.len() - rest.len() + start;
            end = start + length;
            found.push((start..end, name.to_owned()));
        }
    }
}

/// Whether a word is none of a language: it is long, or has other characters than letters. Letters that
/// are not ASCII make no word long: some languages have no spaces.
fn is_token(word: &[u8]) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphabetic() || !byte.is_ascii();
    let is_odd = |at: usize| {
        let is_inside = 0 < at && at + 1 < word.len();
        word[at].is_ascii_digit() || (is_inside && !is_letter(word[at]))
    };
    let length = word.iter().filter(|byte| byte.is_ascii()).count();
    BEARER_BYTES_MIN <= length
        || (SHORT_BEARER_BYTES_MIN <= word.len() && (0..word.len()).any(is_odd))
}

/// The token behind `Bearer`.
fn bearers(text: &str, found: &mut Vec<(Range<usize>, String)>) {
    const WORD: &[u8] = b"bearer ";
    let bytes = text.as_bytes();
    for at in 0..bytes.len().saturating_sub(WORD.len()) {
        if !bytes[at..at + WORD.len()].eq_ignore_ascii_case(WORD) {
            continue;
        }
        let start = at + WORD.len();
        let is_part = |b: &u8| b.is_ascii_alphanumeric() || b"-._~+/=|:".contains(b);
        let length = bytes[start..].iter().take_while(|b| is_part(b)).count();
        if is_token(&bytes[start..start + length]) {
            found.push((start..start + length, "bearer".to_owned()));
        }
    }
}

/// `Authorization: …` and the like, to the end of the line or of what is in quotes.
fn headers(text: &str, found: &mut Vec<(Range<usize>, String)>) {
    for (colon, _) in text.match_indices(':') {
        let is_part = |b: &u8| b.is_ascii_alphanumeric() || b"-_".contains(b);
        let bytes = text.as_bytes()[..colon].iter().rev().take(NAME_BYTES_MAX);
        let name = &text[colon - bytes.take_while(|b| is_part(b)).count()..colon];
        if !is_secret_line(name) {
            continue;
        }
        let value = text[colon + 1..].trim_start_matches(' ');
        let start = text.len() - value.len();
        let end = value.find(['\n', '\r', '"', '\'']).unwrap_or(value.len());
        found.push((start..start + end, name.to_owned()));
    }
}
