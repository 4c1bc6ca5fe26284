//! Through a JSON text from its first byte to its last, however deep or broken it is, copying what
//! is no credential. Needs neither recursion nor a valid text.

use super::{
    PLACES_MAX, REDACTED,
    names::{NameMeaning, is_count, is_secret_member, meaning},
    url,
};
use crate::event::json::{self, JsonKind, JsonScanner, push_string};
use std::borrow::Cow;

/// Deepest array or object whose path is followed; below it each name stands for itself.
const FOLLOWED_MAX: usize = 600;
/// How often text in a text is read as JSON.
const INNER_MAX: usize = 3;
/// How many places in a text are tried as the start of JSON.
const LINE_STARTS_MAX: usize = 32;
/// Longest pair of a name and a value, in bytes.
const PAIR_BYTES_MAX: usize = 64 << 10;
/// Longest name of a place, in bytes.
const PLACE_BYTES_MAX: usize = 200;
/// Members of the event whose text is its identity.
const IDENTITY: [&str; 3] = ["id", "type", "ns"];

/// An array or object that is being read.
#[derive(Debug)]
struct JsonLevel {
    is_object: bool,
    /// What the names in it mean.
    meaning: NameMeaning,
    /// Length of the path of what it is in.
    path: usize,
    /// The name of the member that comes; in an array the text before the value that comes.
    name: Option<String>,
    /// In an object `{"name":…,"value":…}`, the name there.
    pair: Option<String>,
    /// How many values it had.
    count: usize,
}

/// A walk over one text.
#[derive(Debug)]
pub(super) struct RedactionWalk<'a> {
    text: &'a str,
    at: usize,
    /// How much of the text is in `out` or left out of it.
    copied: usize,
    out: String,
    path: String,
    /// The first one stands for the text itself, which may be a part of an object.
    levels: Vec<JsonLevel>,
    /// Arrays and objects that are open below the deepest level.
    below: usize,
    /// How many texts this text is in.
    inner: usize,
    places: Vec<String>,
}

impl<'a> RedactionWalk<'a> {
    /// The text without credentials, and where those were; none if there were none.
    pub(super) fn over(text: &'a str) -> Option<(String, Vec<String>)> {
        Self::inside(text, String::new(), 0)
    }

    fn inside(text: &'a str, path: String, inner: usize) -> Option<(String, Vec<String>)> {
        let meaning = NameMeaning::Other;
        let (name, pair) = (None, None);
        let whole = JsonLevel { is_object: true, meaning, path: path.len(), name, pair, count: 0 };
        let mut walk = Self {
            text,
            at: 0,
            copied: 0,
            out: String::new(),
            path,
            levels: vec![whole],
            below: 0,
            inner,
            places: Vec::new(),
        };
        walk.run();
        if walk.places.is_empty() {
            return None;
        }
        walk.out.push_str(&text[walk.copied..]);
        Some((walk.out, walk.places))
    }

    fn run(&mut self) {
        while let Some(&byte) = self.text.as_bytes().get(self.at) {
            match byte {
                b'{' | b'[' => self.open(byte == b'{'),
                b'}' | b']' => self.close(),
                b'"' => self.string(),
                b'-' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => self.scalar(),
                _ => self.at += 1,
            }
        }
    }

    fn level(&mut self) -> &mut JsonLevel {
        self.levels.last_mut().expect("the first level is never closed")
    }

    fn open(&mut self, is_object: bool) {
        let is_number = |letter: char| letter.is_ascii_digit() || " \t\r\n,.+-eE".contains(letter);
        let mut inside = self.text[self.at + 1..].chars().take_while(|&letter| letter != ']');
        let is_secret = match !is_object && inside.all(is_number) {
            true => self.is_secret_value_here(),
            false => self.is_secret_here(),
        };
        if is_secret {
            let end = skip(self.text, self.at);
            let inside = self.text[self.at + 1..end].trim_end_matches(['}', ']']);
            match inside.trim_ascii().is_empty() {
                true => self.at = end,
                false => self.replace(end),
            }
            self.end_value(None);
            return;
        }
        let start = self.at;
        self.at += 1;
        if FOLLOWED_MAX <= self.levels.len() {
            self.below += 1;
            return;
        }
        let path = self.path.len();
        let level = self.level();
        let (is_in_array, inherited, name) = match (level.is_object, level.name.clone()) {
            (true, Some(name)) => (false, meaning(&name), Some(name)),
            // The elements of a list of headers are headers.
            (is_object, _) => (!is_object, level.meaning, None),
        };
        if let Some(name) = name
            && self.path.len() < PLACE_BYTES_MAX
        {
            // Bounded, because it is copied for every value below.
            self.path = join(&self.path, &name);
            self.path.truncate(self.path.floor_char_boundary(PLACE_BYTES_MAX));
        }
        // In an object of headers `name` may be one of them.
        let is_pair = is_object && (is_in_array || inherited == NameMeaning::Other);
        let pair = if is_pair { pair_name(&self.text[start..]) } else { None };
        self.levels.push(JsonLevel {
            is_object,
            meaning: inherited,
            path,
            name: None,
            pair,
            count: 0,
        });
    }

    fn close(&mut self) {
        self.at += 1;
        if self.below > 0 {
            self.below -= 1;
        } else if self.levels.len() > 1
            && let Some(level) = self.levels.pop()
        {
            self.path.truncate(level.path);
        }
        self.end_value(None);
    }

    /// A name, or a value that is text.
    fn string(&mut self) {
        let end = string_end(self.text, self.at);
        let raw = &self.text[self.at..end];
        let text = match JsonScanner::new(raw).value(0).ok().and_then(|value| value.text()) {
            Some(text) => text,
            None => Cow::Borrowed(raw.trim_matches('"')),
        };
        let follows = self.text[end..].bytes().find(|b| !b.is_ascii_whitespace());
        let may_be_name = self.level().is_object || self.below > 0;
        if follows == Some(b':') && may_be_name {
            self.at = end;
            self.level().name = Some(text.into_owned());
            return;
        }
        if !self.is_secret_here() {
            self.clean(&text, end);
        } else if text.is_empty() || text == REDACTED {
            self.at = end;
        } else {
            self.replace(end);
        }
        self.end_value(Some(text.into_owned()));
    }

    /// Takes over a text that is no credential itself: it may be JSON, or have URLs in it.
    fn clean(&mut self, text: &str, end: usize) {
        let place = self.place();
        let clean = if self.is_identity() {
            None
        } else if self.inner < INNER_MAX && is_json(text) {
            RedactionWalk::inside(text, place, self.inner + 1)
        } else {
            self.clean_line(text, &place)
        };
        let Some((clean, places)) = clean else {
            self.at = end;
            return;
        };
        places.into_iter().for_each(|place| self.note(place));
        let mut quoted = String::with_capacity(clean.len() + 2);
        push_string(&mut quoted, &clean);
        self.put(end, &quoted);
    }

    /// The same for a text that is no JSON, but may have some in it.
    fn clean_line(&self, text: &str, place: &str) -> Option<(String, Vec<String>)> {
        let (mut line, mut places) = match url::redact(text) {
            None => (Cow::Borrowed(text), Vec::new()),
            Some((clean, names)) => {
                (Cow::Owned(clean), names.iter().map(|name| join(place, name)).collect())
            }
        };
        let (mut from, mut starts) = (0, 0);
        while self.inner < INNER_MAX
            && starts < LINE_STARTS_MAX
            && let Some(at) = line[from..].find(['{', '[']).map(|at| from + at)
        {
            starts += 1;
            let value = JsonScanner::new(&line[at..]).value(json::NESTING_MAX);
            let Ok(length) = value.map(|value| value.raw.len()) else {
                from = at + 1;
                continue;
            };
            from = at + length;
            let inside = RedactionWalk::inside(&line[at..from], place.to_owned(), self.inner + 1);
            if let Some((clean, found)) = inside {
                line.to_mut().replace_range(at..from, &clean);
                from = at + clean.len();
                places.extend(found);
            }
        }
        (!places.is_empty()).then(|| (line.into_owned(), places))
    }

    /// A number or a word.
    fn scalar(&mut self) {
        let rest = &self.text.as_bytes()[self.at..];
        let is_part = |b: &u8| b.is_ascii_alphanumeric() || b"+-._".contains(b);
        let end = self.at + rest.iter().take_while(|b| is_part(b)).count();
        let word = &self.text[self.at..end];
        if self.is_secret_value_here() && !["null", "true", "false"].contains(&word) {
            self.replace(end);
        } else {
            self.at = end;
        }
        self.end_value(None);
    }

    /// The name that makes a credential of the value that comes, if one does.
    fn secret_name(&self) -> Option<&str> {
        let level = self.levels.last()?;
        let name = level.name.as_deref()?;
        if let Some(pair) = level.pair.as_deref()
            && is_value_name(name)
            && level.meaning.is_secret(pair)
        {
            return Some(pair);
        }
        // `["cookie","…"]`, also as one long list of names and values.
        let is_named = level.is_object || self.below > 0 || level.count % 2 == 1;
        let is_secret = match level.pair {
            Some(_) => is_secret_member(name),
            None => is_named && level.meaning.is_secret(name),
        };
        is_secret.then_some(name)
    }

    /// Whether the text that comes is a credential by its name.
    fn is_secret_here(&self) -> bool {
        self.secret_name().is_some()
    }

    /// The same for a number.
    fn is_secret_value_here(&self) -> bool {
        self.secret_name().is_some_and(|name| !is_count(name))
    }

    /// Two events whose ids differ must not become one.
    fn is_identity(&self) -> bool {
        let is_top = self.levels.len() == 2 && self.inner == 0;
        let name = self.levels.last().and_then(|level| level.name.as_deref());
        is_top && name.is_some_and(|name| IDENTITY.contains(&name))
    }

    /// A value is over; in an array it may be the name of the next one.
    fn end_value(&mut self, text: Option<String>) {
        if self.below > 0 {
            return;
        }
        let level = self.level();
        level.name = if level.is_object { None } else { text };
        level.count += 1;
    }

    /// Leaves out the value that ends at `end`, which is a credential.
    fn replace(&mut self, end: usize) {
        let place = self.place();
        self.note(place);
        self.put(end, &format!("\"{REDACTED}\""));
    }

    fn put(&mut self, end: usize, new: &str) {
        self.out.push_str(&self.text[self.copied..self.at]);
        self.out.push_str(new);
        self.copied = end;
        self.at = end;
    }

    /// The path of the value that comes.
    fn place(&self) -> String {
        let Some(level) = self.levels.last() else { return self.path.clone() };
        let is_named = level.is_object || self.is_secret_here();
        let pair = level.pair.as_ref().filter(|_| level.name.as_deref().is_some_and(is_value_name));
        match pair.or(level.name.as_ref()).filter(|_| is_named) {
            Some(name) => join(&self.path, name),
            None => self.path.clone(),
        }
    }

    fn note(&mut self, mut place: String) {
        place.truncate(place.floor_char_boundary(PLACE_BYTES_MAX));
        if self.places.len() < PLACES_MAX && !self.places.contains(&place) {
            self.places.push(place);
        }
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn is_json(text: &str) -> bool {
    let value = json::one_value(text);
    // Text in quotes may be JSON that was written as text twice.
    let is_deep = |kind| matches!(kind, JsonKind::Array | JsonKind::Object | JsonKind::Escaped);
    value.is_some_and(|value| is_deep(value.kind))
}

/// Whether a member of a pair has the pair's value.
fn is_value_name(name: &str) -> bool {
    ["value", "values", "v"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// The name of a pair `{"name":…,"value":…}` at the start of the text.
fn pair_name(text: &str) -> Option<String> {
    let text = &text[..text.floor_char_boundary(PAIR_BYTES_MAX)];
    let value = JsonScanner::new(text).value(json::NESTING_MAX).ok()?;
    let names = ["name", "key", "header", "field", "k"];
    json::members_of(value).iter().find_map(|member| {
        let name = member.name.text()?;
        let is_name = names.iter().any(|known| name.eq_ignore_ascii_case(known));
        is_name.then(|| member.value.text().map(Cow::into_owned)).flatten()
    })
}

/// Where the string that begins at `at` ends, also if it is no valid one.
fn string_end(text: &str, at: usize) -> usize {
    let bytes = text.as_bytes();
    let mut end = at + 1;
    while let Some(byte) = bytes.get(end) {
        match byte {
            b'"' => return end + 1,
            b'\\' => end += 2,
            _ => end += 1,
        }
    }
    text.len()
}

/// Where the array or object that begins at `at` ends; the end of the text where it does not.
fn skip(text: &str, at: usize) -> usize {
    let mut scan = JsonScanner::new(text);
    match scan.skip_blindly(at) {
        Ok(()) => scan.at(),
        Err(_) => text.len(),
    }
}
