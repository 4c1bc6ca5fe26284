//! What a change was made of, as the feed of changes tells it.
//!
//! Its one invariant: the text is a JSON object of bounded length whose `updates` are a list that
//! a client of the feed can parse.

use serde::Serialize;
use serde_json::json;
use std::sync::Arc;

/// Longest text of one change. Longer updates, which a schema of very many columns has, are told
/// as an empty list with their length beside it: the metadata file has what they came to.
pub const CHANGES_BYTES_MAX: usize = 1 << 20;

/// The updates of a change, and what it required. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangeSet(Option<Arc<str>>);

impl ChangeSet {
    /// What makes a table or view.
    pub(crate) fn making(updates: &[impl Serialize]) -> Self {
        #[derive(Serialize)]
        struct UpdatesJson<'a, U> {
            updates: &'a [U],
        }
        Self::text(serde_json::to_string(&UpdatesJson { updates }))
    }

    /// What changes one.
    pub(crate) fn changing(requirements: &[impl Serialize], updates: &[impl Serialize]) -> Self {
        #[derive(Serialize)]
        struct CommitJson<'a, R, U> {
            updates: &'a [U],
            requirements: &'a [R],
        }
        Self::text(serde_json::to_string(&CommitJson { updates, requirements }))
    }

    /// The JSON object; none for a change that has no updates.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        self.0.as_deref()
    }

    fn text(text: Result<String, serde_json::Error>) -> Self {
        let text = match text {
            Ok(text) if text.len() <= CHANGES_BYTES_MAX => text,
            Ok(text) => json!({"updates": [], "updates-left-out-bytes": text.len()}).to_string(),
            // What cannot be written is in no metadata file either, so nothing else would get here.
            Err(_) => json!({"updates": []}).to_string(),
        };
        Self(Some(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn what_is_told_is_bounded_and_parses() {
        let read = |changes: &ChangeSet| -> Value {
            serde_json::from_str(changes.as_text().unwrap()).unwrap()
        };
        let small = ChangeSet::changing(&["r"], &["u"]);
        assert_eq!(read(&small), json!({"updates": ["u"], "requirements": ["r"]}));
        let long = "x".repeat(CHANGES_BYTES_MAX - r#"{"updates":[""]}"#.len());
        let fits = ChangeSet::making(&[&long]);
        assert_eq!(read(&fits), json!({"updates": [long]}));
        let large = ChangeSet::making(&[format!("{long}x")]);
        let told = json!({"updates": [], "updates-left-out-bytes": CHANGES_BYTES_MAX + 1});
        assert_eq!(read(&large), told);
        assert_eq!(ChangeSet::default().as_text(), None);
    }
}
