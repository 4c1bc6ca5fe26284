//! Locations in their one normal form: `file:///folder/file` or `s3://bucket/key`.
//!
//! Its invariant: a [`Location`] has no segment that any reader could take for "here" or "one up",
//! neither as written nor percent-decoded as often as anybody likes, so comparing whole segments is
//! all a jail needs. It is text: links on a disk are looked at where the disk is used.

use crate::error::CatalogError;
use std::fmt;

/// Longest location on a local disk in bytes; Linux paths end there.
const PATH_BYTES_MAX: usize = 4096;
/// Longest key in a bucket in bytes, as S3 has it.
const KEY_BYTES_MAX: usize = 1024;
/// The kinds of locations as they are written, and the normal form of each. Hadoop writes
/// `file:/folder`, and `s3a` for its way to the same objects.
const SCHEMES: [(&str, &str); 4] =
    [("file:///", "file:///"), ("file:/", "file:///"), ("s3://", "s3://"), ("s3a://", "s3://")];

/// Where a file or a folder is, in normal form and without a trailing slash.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location(String);

impl Location {
    /// The location that `text` names, or none when it is of no known kind or tries to be taken
    /// for another. One trailing slash goes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (written, scheme) =
            SCHEMES.into_iter().find(|(written, _)| text.starts_with(written))?;
        let path = &text[written.len()..];
        let path = path.strip_suffix('/').unwrap_or(path);
        let fits = match scheme {
            "s3://" => {
                let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
                is_bucket(bucket) && key.len() <= KEY_BYTES_MAX
            }
            _ => path.len() < PATH_BYTES_MAX,
        };
        let is_plain = |c: char| !c.is_control() && !matches!(c, '\\' | '?' | '#');
        let is_safe = fits && path.chars().all(is_plain) && are_safe(path.as_bytes());
        (is_safe && are_safe(&decoded(path))).then(|| Self(format!("{scheme}{path}")))
    }

    /// The normal form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is a file or folder below `folder`.
    #[must_use]
    pub fn is_inside(&self, folder: &Self) -> bool {
        let rest = self.0.strip_prefix(&folder.0);
        rest.and_then(|rest| rest.strip_prefix('/')).is_some_and(|rest| !rest.is_empty())
    }

    /// The location of `file`, which has to be below this folder.
    ///
    /// # Errors
    /// [`CatalogError::LocationForbidden`].
    pub fn admit(&self, file: &str) -> Result<Self, CatalogError> {
        Self::parse(file)
            .filter(|location| location.is_inside(self))
            .ok_or_else(|| CatalogError::LocationForbidden(file.to_owned()))
    }

    /// What `path` is called once everything at and below this folder is at and below `to`; none
    /// when it is elsewhere.
    #[must_use]
    pub fn moved(&self, path: &str, to: &Self) -> Option<String> {
        let path = Self::parse(path)?;
        (path == *self || path.is_inside(self)).then(|| format!("{to}{}", &path.0[self.0.len()..]))
    }

    /// The folders that this is in, the nearest last.
    pub(crate) fn folders(&self) -> impl Iterator<Item = &str> {
        let start = self.0.find("//").map_or(0, |at| at + 3);
        let ends = self.0.char_indices().filter(move |(at, c)| *at >= start && *c == '/');
        ends.map(|(at, _)| &self.0[..at])
    }

    /// Whether a table may lie here: some file systems drop dots and spaces at a name's end.
    pub(crate) fn is_fit_for_a_table(&self) -> bool {
        !self.0.split('/').any(|segment| segment.ends_with(['.', ' ']) || segment.starts_with(' '))
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether this is a bucket's name and nothing else: no user, no port.
fn is_bucket(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    name.len() <= 255 && name.bytes().all(allowed)
}

fn are_safe(path: &[u8]) -> bool {
    let is_safe_byte = |b: &u8| !b.is_ascii_control() && *b != b'\\';
    path.iter().all(is_safe_byte)
        && !path
            .split(|b| *b == b'/')
            .any(|segment| segment.iter().all(|b| matches!(b, b'.' | b' ')))
}

/// `path` percent-decoded until nothing is left to decode. What is dangerous stays in the result
/// whatever else is decoded, so looking at the last form is looking at all of them.
fn decoded(path: &str) -> Vec<u8> {
    let mut decoded: Vec<u8> = Vec::with_capacity(path.len());
    for byte in path.bytes() {
        decoded.push(byte);
        while let [.., b'%', high, low] = decoded[..]
            && let (Some(high), Some(low)) = (nibble(high), nibble(low))
        {
            decoded.truncate(decoded.len() - 3);
            decoded.push(high << 4 | low);
        }
    }
    decoded
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests;
