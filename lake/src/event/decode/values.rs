//! Several JSON texts in one body: concatenated, a line each, with commas or record separators
//! between them.
//!
//! A text that is broken is one refused event; reading goes on where the next one may begin.

use super::{DecodePass, EventBuffers, PassEnd, batch::is_tombstone, broken};
use crate::event::{
    BodyError,
    decode::BYTE_ORDER_MARK,
    json::{JsonError, JsonScanner, NESTING_MAX},
};
use icecore_schemas::error_code::ErrorCode;

/// What begins a record of a JSON text sequence (RFC 7464).
const RECORD_SEPARATOR: char = '\u{1e}';

/// How many times the text's length may be read in vain, looking for the end of broken values: a
/// hostile text could make each one look endless.
const REREADS_MAX: usize = 4;

/// What may lie between two values.
pub(super) fn is_between(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n' | ',' | RECORD_SEPARATOR) || BYTE_ORDER_MARK.contains(c)
}

/// Whether `rest` goes on with another array, object or tombstone, or ends.
fn goes_on(rest: &str) -> bool {
    let rest = rest.trim_start_matches(is_between);
    rest.is_empty() || rest.starts_with(['{', '[']) || rest.starts_with("null")
}

/// Whether the text is more than one value, each of which is sound as far as this can see.
pub(super) fn are_several(text: &str) -> bool {
    let mut scan = JsonScanner::new(text.trim_start_matches(is_between));
    let start = scan.at();
    match scan.value(NESTING_MAX) {
        Ok(_) => {}
        Err(JsonError::TooDeep) if scan.skip_blindly(start).is_ok() => {}
        Err(_) => return false,
    }
    goes_on(scan.rest())
}

impl DecodePass<'_> {
    /// What follows the first value of a body of JSON: nothing, or more values.
    pub(super) fn rest<'a>(
        &mut self,
        scan: &JsonScanner<'a>,
        text: &str,
        sink: &mut EventBuffers<'a>,
    ) -> Result<(), PassEnd> {
        let rest = scan.rest();
        if rest.trim_ascii().is_empty() {
            return Ok(());
        }
        if goes_on(rest) {
            return self.values(rest, sink);
        }
        let BodyError { reason, .. } = broken(text, JsonError::Syntax(scan.at()));
        let reason = format!(
            "{reason}: what follows the JSON is not an event; send one event a line as application/x-ndjson"
        );
        Err(BodyError::new(ErrorCode::InvalidJson, reason).into())
    }

    /// Values one after another, each an event, an array of events or a batch.
    pub(super) fn values<'a>(
        &mut self,
        text: &'a str,
        sink: &mut EventBuffers<'a>,
    ) -> Result<(), PassEnd> {
        let mut in_vain = text.len().saturating_mul(REREADS_MAX);
        let mut rest = text.trim_start_matches(is_between);
        while !rest.is_empty() {
            let mut scan = JsonScanner::new(rest);
            let end = match scan.value(NESTING_MAX) {
                Ok(_) => scan.at(),
                Err(JsonError::TooDeep) if scan.skip_blindly(0).is_ok() => scan.at(),
                Err(_) => {
                    in_vain = in_vain.saturating_sub(scan.at());
                    if in_vain == 0 { rest.len() } else { next_start(rest) }
                }
            };
            let (value, after) = rest.split_at(end);
            let value = value.trim_end_matches(is_between);
            if is_tombstone(value) {
                self.next_index()?;
            } else {
                self.line(value, sink)?;
            }
            rest = after.trim_start_matches(is_between);
        }
        Ok(())
    }
}

/// Where the value after a broken one may begin: at a record separator, or at a line that begins as
/// an array or object does.
fn next_start(text: &str) -> usize {
    let mut at = 0;
    while let Some(found) = text[at..].find(['\n', RECORD_SEPARATOR]) {
        let after = text[at + found..].trim_start_matches(is_between);
        let start = text.len() - after.len();
        if after.starts_with(['{', '[']) {
            return start;
        }
        at = start;
    }
    text.len()
}
