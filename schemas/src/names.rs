//! Namespaces and types: what may be written, and how a namespace's text becomes a catalog name.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, sync::Arc};

/// The member of an exported event that is its text as it came, where the log it was in kept it whole.
pub const KEPT_EVENT: &str = "icecore_event";

/// A namespace: the sender's text and the catalog name it maps to. Cheap to clone.
///
/// Equality is that of the text. Two texts with one catalog name (`a.b` and `a_b`) are two
/// namespaces that cannot both exist; the first one to be used owns the name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Namespace {
    text: Arc<str>,
    name: Arc<str>,
}

/// Why a text is no namespace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "namespace must have 1 to {NAMESPACE_BYTES_MAX} bytes with at least one ASCII letter or digit (a-z, A-Z, 0-9) and no control characters"
)]
pub struct InvalidNamespace;

/// The property of a catalog namespace with the text of the namespace whose events it has.
pub const NAMESPACE_TEXT: &str = "icecore.ns";

/// Catalog names that no new namespace gets: SQL has something else under them.
pub const RESERVED_NAMES: [&str; 2] = ["information_schema", "system"];

/// Longest namespace text, in bytes.
pub const NAMESPACE_BYTES_MAX: usize = 128;

impl Namespace {
    /// Checks `text` and derives the catalog name: lower case, every character but `a-z`, `0-9`
    /// and `_` becomes `_` (`startups.studio` is `startups_studio`).
    ///
    /// # Errors
    /// [`InvalidNamespace`] when the text is empty, too long, has control characters, or maps to
    /// underscores alone.
    pub fn parse(text: &str) -> Result<Self, InvalidNamespace> {
        let length_ok = !text.is_empty() && text.len() <= NAMESPACE_BYTES_MAX;
        if !length_ok
            || text.chars().any(char::is_control)
            || !text.chars().any(|c| c.is_ascii_alphanumeric())
        {
            return Err(InvalidNamespace);
        }
        let name: String = text
            .chars()
            .map(|c| match c.to_ascii_lowercase() {
                c @ ('a'..='z' | '0'..='9' | '_') => c,
                _ => '_',
            })
            .collect();
        Ok(Self { text: text.into(), name: name.into() })
    }

    /// The namespace whose events a catalog namespace with these properties has; none where no text
    /// is noted, or one that has another catalog name: whoever noted that had no right to.
    #[must_use]
    pub fn from_properties(
        levels: &[String],
        properties: &BTreeMap<String, String>,
    ) -> Option<Self> {
        let noted = Self::parse(properties.get(NAMESPACE_TEXT)?).ok()?;
        (levels == [noted.name()]).then_some(noted)
    }

    /// Whether no new namespace is called so. One that is there goes on.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        RESERVED_NAMES.contains(&self.name())
    }

    /// The sender's text, which the column `ns` holds.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The catalog namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl From<Namespace> for String {
    fn from(namespace: Namespace) -> Self {
        namespace.text().to_owned()
    }
}

impl TryFrom<String> for Namespace {
    type Error = InvalidNamespace;

    fn try_from(text: String) -> Result<Self, InvalidNamespace> {
        Self::parse(&text)
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether `text` may be an event's type: `[A-Za-z0-9][A-Za-z0-9._-]{0,255}`.
#[must_use]
pub fn is_event_type(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let bytes = text.as_bytes();
    bytes.len() <= 256
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|b| allowed(*b))
}
