//! Reads JSON text in place: values keep their text, strings are borrowed, depth is bounded.
//!
//! Leaves meaning to `normalize`. A value it hands out is valid JSON (RFC 8259) and nested no
//! deeper than asked; a hostile text costs neither stack nor memory.

mod repeats;
mod search;
mod text;

pub(crate) use repeats::last_of_each;
pub use search::{JsonSearch, find_member};
use std::borrow::Cow;
pub(crate) use text::push_string;
pub use text::without_lone_surrogates;
use text::{after_escape, lone_surrogate, unescape};

/// Deepest nesting the reader follows, whatever its caller allows: it recurses.
pub(crate) const NESTING_MAX: usize = 512;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JsonKind {
    Null,
    Bool,
    Number,
    /// A string without escapes: its text is the raw text without the quotes.
    Plain,
    /// A string with escapes.
    Escaped,
    Array,
    Object,
}

/// A valid JSON value and its text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JsonValue<'a> {
    pub(crate) raw: &'a str,
    pub(crate) kind: JsonKind,
}

/// A member of an object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JsonMember<'a> {
    /// The name as written, with its quotes.
    pub(crate) name: JsonValue<'a>,
    pub(crate) value: JsonValue<'a>,
    /// From the first quote of the name to the end of the value.
    pub(crate) text: &'a str,
}

/// An event's members and, where it has an object `data`, the members of that.
#[derive(Debug, Default)]
pub(crate) struct EventParts<'a> {
    pub(crate) top: Vec<JsonMember<'a>>,
    pub(crate) data: Vec<JsonMember<'a>>,
    /// Whether a string in it has half of a surrogate pair, which is no text.
    pub(crate) has_lone_surrogate: bool,
    /// Whether it stands in a batch of an analytics library.
    pub(crate) is_in_call_batch: bool,
}

/// Why a text cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JsonError {
    /// Not JSON, from this byte on.
    Syntax(usize),
    /// Nested deeper than asked.
    TooDeep,
}

impl<'a> JsonValue<'a> {
    /// The text of a string; none for any other value.
    pub(crate) fn text(&self) -> Option<Cow<'a, str>> {
        let inside = || &self.raw[1..self.raw.len() - 1];
        match self.kind {
            JsonKind::Plain => Some(Cow::Borrowed(inside())),
            JsonKind::Escaped => Some(Cow::Owned(unescape(inside()))),
            JsonKind::Null
            | JsonKind::Bool
            | JsonKind::Number
            | JsonKind::Array
            | JsonKind::Object => None,
        }
    }

    /// Whether it is a string with half of a surrogate pair: valid JSON, but no text.
    pub(crate) fn has_lone_surrogate(&self) -> bool {
        self.kind == JsonKind::Escaped && lone_surrogate(self.raw, 0).is_some()
    }
}

/// The members of a valid object; none of any other value.
pub(crate) fn members_of(object: JsonValue<'_>) -> Vec<JsonMember<'_>> {
    let mut members = Vec::new();
    each_member(object, |member| members.push(member));
    members
}

/// Visits the members of a valid object; none of any other value, nor those after one that is
/// nested too deep.
#[inline]
pub(crate) fn each_member<'a>(object: JsonValue<'a>, visit: impl FnMut(JsonMember<'a>)) {
    // The value was read before, so only its kind or its depth can end this early.
    let _ended_early = JsonScanner::new(object.raw).visit(NESTING_MAX, visit);
}

/// The elements of a valid array; none of any other value.
pub(crate) fn elements_of(array: JsonValue<'_>) -> Vec<JsonValue<'_>> {
    let mut elements = Vec::new();
    let mut scan = JsonScanner::new(array.raw);
    if scan.take(b'[') && scan.peek() != Some(b']') {
        // The value was read before, so only its depth can end this early.
        while let Ok(element) = scan.value(NESTING_MAX) {
            elements.push(element);
            if !scan.take(b',') {
                break;
            }
        }
    }
    elements
}

/// A place in a JSON text.
#[derive(Clone, Debug)]
pub(crate) struct JsonScanner<'a> {
    text: &'a str,
    at: usize,
    has_lone_surrogate: bool,
}

impl<'a> JsonScanner<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0, has_lone_surrogate: false }
    }

    /// The next byte that is not white space, not taken.
    #[inline]
    pub(crate) fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(&byte) = bytes.get(self.at) {
            match byte {
                b' ' | b'\n' | b'\r' | b'\t' => self.at += 1,
                _ => return Some(byte),
            }
        }
        None
    }

    /// Takes the next byte that is not white space if it is `byte`.
    #[inline]
    pub(crate) fn take(&mut self, byte: u8) -> bool {
        let is = self.peek() == Some(byte);
        self.at += usize::from(is);
        is
    }

    /// Takes `byte`.
    #[inline]
    pub(crate) fn expect(&mut self, byte: u8) -> Result<(), JsonError> {
        if self.take(byte) { Ok(()) } else { Err(JsonError::Syntax(self.at)) }
    }

    /// Nothing but white space may follow.
    pub(crate) fn end(&mut self) -> Result<(), JsonError> {
        if self.peek().is_none() { Ok(()) } else { Err(JsonError::Syntax(self.at)) }
    }

    /// What comes after here.
    pub(crate) fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// The offset of the next byte.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// The text from `start` to here.
    #[inline]
    pub(crate) fn since(&self, start: usize) -> &'a str {
        &self.text[start..self.at]
    }

    /// The next value, with at most `depth` levels of arrays and objects.
    #[inline]
    pub(crate) fn value(&mut self, depth: usize) -> Result<JsonValue<'a>, JsonError> {
        let first = self.peek();
        let start = self.at;
        let kind = match first {
            Some(b'"') => self.string()?,
            Some(b'{') => {
                self.skip_object(depth)?;
                JsonKind::Object
            }
            Some(b'[') => {
                self.skip_array(depth)?;
                JsonKind::Array
            }
            Some(b'-' | b'0'..=b'9') => {
                self.number()?;
                JsonKind::Number
            }
            Some(b't') => self.literal("true", JsonKind::Bool)?,
            Some(b'f') => self.literal("false", JsonKind::Bool)?,
            Some(b'n') => self.literal("null", JsonKind::Null)?,
            _ => return Err(JsonError::Syntax(start)),
        };
        Ok(JsonValue { raw: self.since(start), kind })
    }

    /// The next value, an object: adds its members to `parts.top`, and those of its member `data`
    /// to `parts.data`.
    pub(crate) fn object(
        &mut self,
        depth: usize,
        parts: &mut EventParts<'a>,
    ) -> Result<(), JsonError> {
        let EventParts { top, data, has_lone_surrogate, .. } = parts;
        self.has_lone_surrogate = false;
        *has_lone_surrogate = false;
        let depth = depth.checked_sub(1).ok_or(JsonError::TooDeep)?;
        self.expect(b'{')?;
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            let name = self.name()?;
            let start = self.at - name.raw.len();
            self.expect(b':')?;
            let is_data = name.raw == "\"data\"";
            if is_data {
                // Of two members of one name the last one counts.
                data.clear();
            }
            let value = if is_data && self.peek() == Some(b'{') {
                let start = self.at;
                self.visit(depth, |member| data.push(member))?;
                JsonValue { raw: self.since(start), kind: JsonKind::Object }
            } else {
                self.value(depth)?
            };
            top.push(JsonMember { name, value, text: self.since(start) });
            if !self.take(b',') {
                *has_lone_surrogate = self.has_lone_surrogate;
                return self.expect(b'}');
            }
        }
    }

    fn visit(
        &mut self,
        depth: usize,
        mut visit: impl FnMut(JsonMember<'a>),
    ) -> Result<(), JsonError> {
        let depth = depth.checked_sub(1).ok_or(JsonError::TooDeep)?;
        self.expect(b'{')?;
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            let name = self.name()?;
            let start = self.at - name.raw.len();
            self.expect(b':')?;
            let value = self.value(depth)?;
            visit(JsonMember { name, value, text: self.since(start) });
            if !self.take(b',') {
                return self.expect(b'}');
            }
        }
    }

    /// The next value, the name of a member.
    #[inline]
    pub(crate) fn name(&mut self) -> Result<JsonValue<'a>, JsonError> {
        if self.peek() != Some(b'"') {
            return Err(JsonError::Syntax(self.at));
        }
        let start = self.at;
        let kind = self.string()?;
        Ok(JsonValue { raw: self.since(start), kind })
    }

    fn skip_object(&mut self, depth: usize) -> Result<(), JsonError> {
        let depth = depth.checked_sub(1).ok_or(JsonError::TooDeep)?;
        self.expect(b'{')?;
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            self.name()?;
            self.expect(b':')?;
            self.value(depth)?;
            if !self.take(b',') {
                return self.expect(b'}');
            }
        }
    }

    fn skip_array(&mut self, depth: usize) -> Result<(), JsonError> {
        let depth = depth.checked_sub(1).ok_or(JsonError::TooDeep)?;
        self.expect(b'[')?;
        if self.take(b']') {
            return Ok(());
        }
        loop {
            self.value(depth)?;
            if !self.take(b',') {
                return self.expect(b']');
            }
        }
    }

    /// Goes to the end of the array or object that starts at `start` by its brackets alone: for
    /// one that is too deep to be read.
    pub(crate) fn skip_blindly(&mut self, start: usize) -> Result<(), JsonError> {
        self.at = start;
        let mut open = 0_usize;
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => {
                    self.string()?;
                    continue;
                }
                b'{' | b'[' => open += 1,
                b'}' | b']' => open = open.saturating_sub(1),
                _ => {}
            }
            // Only ASCII is stepped over outside strings, so the next slice is on a boundary.
            if !byte.is_ascii() {
                return Err(JsonError::Syntax(self.at));
            }
            self.at += 1;
            if open == 0 {
                return Ok(());
            }
        }
        Err(JsonError::Syntax(self.at))
    }

    /// A string whose first quote is the next byte.
    #[inline]
    fn string(&mut self) -> Result<JsonKind, JsonError> {
        let bytes = self.text.as_bytes();
        let mut at = self.at + 1;
        let mut kind = JsonKind::Plain;
        loop {
            while let Some(chunk) = bytes.get(at..at + 8) {
                let special = special(u64::from_le_bytes(chunk.try_into().expect("eight bytes")));
                if special != 0 {
                    at += (special.trailing_zeros() / 8) as usize;
                    break;
                }
                at += 8;
            }
            match bytes.get(at) {
                Some(b'"') => {
                    self.at = at + 1;
                    return Ok(kind);
                }
                Some(b'\\') => {
                    kind = JsonKind::Escaped;
                    let (next, is_lone) = after_escape(bytes, at).ok_or(JsonError::Syntax(at))?;
                    at = next;
                    self.has_lone_surrogate |= is_lone;
                }
                Some(0..=0x1f) | None => return Err(JsonError::Syntax(at)),
                Some(_) => at += 1,
            }
        }
    }

    fn number(&mut self) -> Result<(), JsonError> {
        let bytes = self.text.as_bytes();
        let digits = |mut at: usize| {
            while bytes.get(at).is_some_and(u8::is_ascii_digit) {
                at += 1;
            }
            at
        };
        let mut at = self.at + usize::from(bytes.get(self.at) == Some(&b'-'));
        let whole = digits(at);
        if whole == at || (bytes.get(at) == Some(&b'0') && whole > at + 1) {
            return Err(JsonError::Syntax(at));
        }
        at = whole;
        if bytes.get(at) == Some(&b'.') {
            let fraction = digits(at + 1);
            if fraction == at + 1 {
                return Err(JsonError::Syntax(at));
            }
            at = fraction;
        }
        if matches!(bytes.get(at), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
            let exponent = digits(at + 1 + sign);
            if exponent == at + 1 + sign {
                return Err(JsonError::Syntax(at));
            }
            at = exponent;
        }
        self.at = at;
        Ok(())
    }

    #[inline]
    fn literal(&mut self, literal: &str, kind: JsonKind) -> Result<JsonKind, JsonError> {
        if !self.text.as_bytes()[self.at..].starts_with(literal.as_bytes()) {
            return Err(JsonError::Syntax(self.at));
        }
        self.at += literal.len();
        Ok(kind)
    }
}

/// A bit in every byte of `word`, lowest first, that is a quote, a backslash or a control
/// character. Only the lowest bit is exact: a borrow may set bits above it.
#[inline]
fn special(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let quote = word ^ (ONES * 0x22);
    let backslash = word ^ (ONES * 0x5c);
    let is_quote = quote.wrapping_sub(ONES) & !quote;
    let is_backslash = backslash.wrapping_sub(ONES) & !backslash;
    let is_control = word.wrapping_sub(ONES * 0x20) & !word;
    (is_quote | is_backslash | is_control) & HIGH
}

/// Whether a JSON text has more than `levels` of arrays and objects in each other, as an event's levels are counted.
/// What is no JSON is not deep.
#[must_use]
pub fn is_deeper(text: &str, levels: usize) -> bool {
    let read = JsonScanner::new(text).value(levels.min(NESTING_MAX));
    matches!(read, Err(JsonError::TooDeep))
}

/// Whether `text` is one valid JSON value.
pub(crate) fn one_value(text: &str) -> Option<JsonValue<'_>> {
    let mut scan = JsonScanner::new(text);
    let value = scan.value(NESTING_MAX).ok()?;
    scan.end().ok()?;
    Some(value)
}

#[cfg(test)]
mod tests;
