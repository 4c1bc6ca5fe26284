//! Locations in their one normal form: `file:///folder/file` or `s3://bucket/key`.
//!
//! Its invariant: a [`Location`] has no segment that a reader could take for "here" or "one up", be
//! it as written or percent-decoded once, so comparing whole segments is all a jail needs. Anything
//! else is a name, because writers put the values of partitions into paths. It is text: links on a
//! disk are looked at where the disk is used.

use crate::error::CatalogError;
use percent_encoding::percent_decode_str;
use std::{borrow::Cow, fmt};

/// Properties with which writers place files elsewhere.
pub(crate) const PATH_PROPERTIES: [&str; 4] = [
    "write.data.path",
    "write.metadata.path",
    "write.object-storage.path",
    "write.folder-storage.path",
];

/// Longest location on a local disk in bytes; Linux paths end there.
const PATH_BYTES_MAX: usize = 4096;
/// Longest key in a bucket in bytes, as S3 has it.
const KEY_BYTES_MAX: usize = 1024;
/// The kinds of locations as they are written, and the normal form of each. Hadoop writes
/// `file:/folder`, and `s3a` for its way to the same objects.
const SCHEMES: [(&str, &str); 4] =
    [("file:///", LOCAL), ("file:/", LOCAL), ("s3://", S3), ("s3a://", S3)];
const LOCAL: &str = "file:///";
const S3: &str = "s3://";

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
        // A slash more would make the first folder look like the name of a host.
        let is_odd = path.is_empty() || path.starts_with('/') || path.contains('\0');
        if is_odd || !path.split('/').all(is_name) {
            return None;
        }
        let path = path.strip_suffix('/').unwrap_or(path);
        match scheme {
            LOCAL => local(path),
            _ => object(path),
        }
        .map(|path| Self([scheme, &path].concat()))
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

    /// The file that this is for whoever percent-decodes names, if that is another one.
    pub(crate) fn decoded(&self) -> Option<String> {
        let decoded = percent_decode_str(&self.0).decode_utf8().ok()?;
        (decoded != self.0).then(|| decoded.into_owned())
    }

    /// The folders that this is in, the nearest last.
    pub(crate) fn folders(&self) -> impl Iterator<Item = &str> {
        let start = self.0.find("//").map_or(0, |at| at + 3);
        let ends = self.0.char_indices().filter(move |(at, c)| *at >= start && *c == '/');
        ends.map(|(at, _)| &self.0[..at])
    }

    /// Whether a folder at this place is one and the same for every client: some cut a location at
    /// `?` or `#`, take `\` for a slash, leave out an empty segment or decode more than once. What
    /// they take for a file is still in the table's folder; what they take for a folder is not.
    pub(crate) fn is_plain(&self) -> bool {
        let path = &self.0[self.0.find("//").map_or(0, |at| at + 2)..];
        let path = path.strip_prefix('/').unwrap_or(path);
        let is_odd = |c: char| c.is_control() || matches!(c, '\\' | '?' | '#');
        !path.contains(is_odd) && are_plain(path.as_bytes()) && are_plain(&decoded(path))
    }

    /// Whether a table may lie here: some file systems drop dots and spaces at a name's end.
    pub(crate) fn is_fit_for_a_table(&self) -> bool {
        self.is_plain()
            && !self
                .0
                .split('/')
                .any(|segment| segment.ends_with(['.', ' ']) || segment.starts_with(' '))
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The path on a local disk, where an empty segment is no folder: two texts that open one file have
/// one normal form.
fn local(path: &str) -> Option<Cow<'_, str>> {
    let is_normal = !path.contains("//") && !path.ends_with('/');
    let path = if is_normal {
        Cow::Borrowed(path)
    } else {
        let path: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        Cow::Owned(path.join("/"))
    };
    (path.len() < PATH_BYTES_MAX).then_some(path)
}

/// The bucket and the key of an object. A key that ends in a slash is a folder of a console, and
/// the client of this server has no way to name one with control characters.
fn object(path: &str) -> Option<Cow<'_, str>> {
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    let is_object = key.len() <= KEY_BYTES_MAX
        && !key.starts_with('/')
        && !path.ends_with('/')
        && !key.contains(|c: char| c.is_ascii_control());
    (is_bucket(bucket) && is_object).then_some(Cow::Borrowed(path))
}

/// Whether this is a bucket's name and nothing else: no user, no port.
fn is_bucket(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    !name.is_empty() && name.len() <= 255 && name.bytes().all(allowed)
}

fn are_plain(path: &[u8]) -> bool {
    let is_plain = |b: &u8| !b.is_ascii_control() && *b != b'\\';
    path.iter().all(is_plain)
        && !path
            .split(|b| *b == b'/')
            .any(|segment| segment.iter().all(|b| matches!(b, b'.' | b' ')))
}

/// `path` percent-decoded until nothing is left to decode. What is odd stays in the result whatever
/// else is decoded, so looking at the last form is looking at all of them.
pub(crate) fn decoded(path: &str) -> Vec<u8> {
    let nibble =
        |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
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

/// Whether a segment is a name for everybody. Parsers of URLs leave out tabs and line ends before
/// they look for dots.
fn is_name(segment: &str) -> bool {
    // Mostly it begins with what is neither a dot nor a way to write one.
    if !segment.starts_with(['.', '%', '\t', '\r', '\n']) {
        return true;
    }
    let mut dots = 0;
    let is_dots = percent_decode_str(segment)
        .filter(|byte| !matches!(byte, b'\t' | b'\r' | b'\n'))
        .inspect(|_| dots += 1)
        .all(|byte| byte == b'.');
    !(is_dots && (1..=2).contains(&dots))
}

#[cfg(test)]
mod tests;
