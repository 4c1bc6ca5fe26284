//! Names of namespaces, tables and views, which of them new ones may have, and those of the service's
//! data files. Pure.
//!
//! Its one invariant: a name that passes fits into every database that the metastore runs on, with
//! its namespace, as one key of an index (PostgreSQL takes 2704 bytes), and into one line of a log.
//! What is there from before stays readable, whatever its name.

use crate::error::CatalogError;
use std::fmt;

/// A namespace is its levels: `["a", "b"]`.
pub type Levels = Vec<String>;

/// The namespace of a table or view, and its name there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectKey<'a> {
    pub(crate) levels: &'a Levels,
    pub(crate) name: &'a str,
}

impl<'a> ObjectKey<'a> {
    /// The key of what has this name in the namespace `levels`.
    #[must_use]
    pub fn new(levels: &'a Levels, name: &'a str) -> Self {
        Self { levels, name }
    }
}

impl fmt::Display for ObjectKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.levels.join("."), self.name)
    }
}

/// Longest name of a table or view, and longest level of a namespace, in characters.
pub const NAME_CHARS_MAX: usize = 255;
/// Most levels of a namespace.
pub const LEVELS_MAX: usize = 32;
/// Longest namespace, all its levels with what separates them, in bytes.
pub const NAMESPACE_BYTES_MAX: usize = 1024;

/// Whether the service gives such names to data files below a table's `data`: a folder of two hex digits,
/// and an id of 26 characters.
#[must_use]
pub fn is_own_file(name: &str) -> bool {
    let Some((folder, file)) = name.split_once('/') else { return false };
    let is_id = |id: &str| {
        let mut letters = id.bytes();
        id.len() == 26 && letters.all(|it| it.is_ascii_digit() || it.is_ascii_uppercase())
    };
    folder.len() == 2
        && folder.bytes().all(|digit| digit.is_ascii_hexdigit())
        && file.strip_suffix(".parquet").is_some_and(is_id)
}

/// Refuses what no new table, view, branch or tag may be called.
///
/// # Errors
/// [`CatalogError::Invalid`].
pub fn check_new(name: &str) -> Result<(), CatalogError> {
    if is_plain(name) {
        return Ok(());
    }
    let shown: String = name.chars().take(NAME_CHARS_MAX).collect();
    Err(CatalogError::Invalid(format!(
        "Invalid name: `{}`: it needs 1 to {NAME_CHARS_MAX} characters, none of them a control \
         character, and it cannot be `.` or `..`, which no URL can name",
        shown.escape_debug()
    )))
}

/// Refuses what no new namespace may be called.
///
/// # Errors
/// [`CatalogError::Invalid`].
pub fn check_new_namespace(levels: &[String]) -> Result<(), CatalogError> {
    let bytes = levels.iter().map(|level| level.len() + 1).sum::<usize>();
    if (1..=LEVELS_MAX).contains(&levels.len())
        && bytes <= NAMESPACE_BYTES_MAX
        && levels.iter().all(|level| is_plain(level))
    {
        return Ok(());
    }
    Err(CatalogError::Invalid(format!(
        "Invalid namespace: it needs 1 to {LEVELS_MAX} levels of at most {NAMESPACE_BYTES_MAX} bytes \
         together, each of 1 to {NAME_CHARS_MAX} characters, none of them a control character, and none `.` or `..`, \
         which no URL can name"
    )))
}

/// Clients and proxies take the segments `.` and `..` out of a path, also percent-encoded.
fn is_plain(name: &str) -> bool {
    !matches!(name, "" | "." | "..")
        && name.chars().count() <= NAME_CHARS_MAX
        && !name.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_names_are_bounded_and_plain() {
        let check = |name: &str, fits: bool| {
            assert_eq!(check_new(name).is_ok(), fits, "{name:?}");
            assert_eq!(check_new_namespace(&[name.to_owned()]).is_ok(), fits, "{name:?}");
        };
        check("a", true);
        check(&"ü".repeat(NAME_CHARS_MAX), true);
        check(&"x".repeat(NAME_CHARS_MAX + 1), false);
        check("...", true);
        for name in ["", ".", "..", "\0", "a\0b", "a\u{1f}b", "a\nb", "a\u{7f}", "a\u{85}"] {
            check(name, false);
        }
        let levels = |count: usize, bytes: usize| vec!["x".repeat(bytes); count];
        assert!(check_new_namespace(&levels(LEVELS_MAX, 1)).is_ok());
        assert!(check_new_namespace(&levels(LEVELS_MAX + 1, 1)).is_err());
        assert!(check_new_namespace(&levels(4, 255)).is_ok());
        assert!(check_new_namespace(&levels(5, 255)).is_err());
        assert!(check_new_namespace(&[]).is_err());
    }
}
