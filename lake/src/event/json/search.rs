//! The value that members' names lead to in a JSON text, found in the one pass that reads the text as JSON.
//!
//! What is read here is read alike by `serde_json`, the text around the value as well; what is nested too deep for
//! this reader is left to that one.

use crate::event::json::{JsonError, JsonKind, JsonScanner, JsonValue, NESTING_MAX};

/// What is at the end of names of members in a JSON text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonSearch<'a> {
    /// The JSON text of the value, if the names lead to one; of several members of one name the last counts.
    pub found: Option<&'a str>,
    /// Whether a string of the whole text has half of a surrogate pair, which is no text. It is read as the escape
    /// that it is written as.
    pub has_lone_surrogate: bool,
}

/// Looks for the member that these names lead to, from the outer one to the inner one; no names lead to the whole
/// value. None where the text is no JSON, or nested too deep to be read here.
#[must_use]
pub fn find_member<'a>(text: &'a str, names: &[String]) -> Option<JsonSearch<'a>> {
    let mut scan = JsonScanner::new(text);
    let found = scan.member(names, NESTING_MAX).ok()?;
    scan.end().ok()?;
    let found = found.map(|value| value.raw);
    Some(JsonSearch { found, has_lone_surrogate: scan.has_lone_surrogate })
}

impl<'a> JsonScanner<'a> {
    /// Takes the next value, and gives the one in it that the names lead to.
    fn member(
        &mut self,
        names: &[String],
        depth: usize,
    ) -> Result<Option<JsonValue<'a>>, JsonError> {
        let Some((name, inner)) = names.split_first() else {
            return self.value(depth).map(Some);
        };
        if self.peek() != Some(b'{') {
            self.value(depth)?;
            return Ok(None);
        }
        let depth = depth.checked_sub(1).ok_or(JsonError::TooDeep)?;
        self.expect(b'{')?;
        if self.take(b'}') {
            return Ok(None);
        }
        let mut found = None;
        loop {
            let is_it = is_named(&self.name()?, name);
            self.expect(b':')?;
            if is_it {
                found = self.member(inner, depth)?;
            } else {
                self.value(depth)?;
            }
            if !self.take(b',') {
                self.expect(b'}')?;
                return Ok(found);
            }
        }
    }
}

/// Whether a member's name, with its quotes, is this one.
#[inline]
fn is_named(written: &JsonValue<'_>, name: &str) -> bool {
    if written.kind == JsonKind::Escaped {
        return written.text().is_some_and(|text| text == name);
    }
    // Most names differ in their length.
    written.raw.len() == name.len() + 2 && &written.raw[1..=name.len()] == name
}
