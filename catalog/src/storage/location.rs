//! Locations in their one normal form: `file:///folder/file` or `s3://bucket/key`.
//!
//! Its invariant: a location that passes has no empty, `.` or `..` segment, neither as written nor
//! after any number of percent-decodings, so a prefix comparison is all a jail needs.

use percent_encoding::percent_decode_str;

/// How often a location may be percent-encoded; one that is still encoded afterwards is refused.
const DECODINGS_MAX: usize = 4;
/// Longest location in bytes; S3 keys end at 1 024, Linux paths at 4 096.
const LENGTH_MAX: usize = 4096;

/// The normal form of `location`, or none when it is of no known kind or tries to leave its place.
///
/// `file:/folder`, as Hadoop writes it, becomes `file:///folder`, and one trailing slash goes.
pub(super) fn normalize(location: &str) -> Option<String> {
    let (scheme, path) = if let Some(path) = location.strip_prefix("file://") {
        ("file:///", path.strip_prefix('/')?)
    } else if let Some(path) = location.strip_prefix("file:/") {
        ("file:///", path)
    } else {
        ("s3://", location.strip_prefix("s3://")?)
    };
    let path = path.strip_suffix('/').unwrap_or(path);
    let fits = location.len() <= LENGTH_MAX && is_safe(path);
    fits.then(|| format!("{scheme}{path}"))
}

/// Whether `location` is a file or folder below `folder`; both in normal form.
pub(crate) fn is_below(location: &str, folder: &str) -> bool {
    location
        .strip_prefix(folder)
        .and_then(|rest| rest.strip_prefix('/'))
        .is_some_and(|rest| !rest.is_empty())
}

fn is_safe(path: &str) -> bool {
    let mut path = path.to_owned();
    for _ in 0..DECODINGS_MAX {
        if !path.split('/').all(is_safe_segment) {
            return false;
        }
        let Ok(decoded) = percent_decode_str(&path).decode_utf8() else { return false };
        if decoded == path.as_str() {
            return true;
        }
        path = decoded.into_owned();
    }
    false
}

fn is_safe_segment(segment: &str) -> bool {
    !matches!(segment, "" | "." | "..") && !segment.contains(|c: char| c.is_control() || c == '\\')
}
