//! What `icecore history users/u-1` and `icecore diff users@v3 users@v9` name, in the form of the addresses of the API.

use crate::cli::CliError;
use icecore_schemas::point::HistoryPoint;
use percent_encoding::percent_decode_str;

/// The points of a collection that are compared, as the API takes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ComparedPoints {
    pub(super) collection: String,
    pub(super) from: String,
    /// None for what is acknowledged.
    pub(super) to: Option<String>,
}

/// The collection and the key of a document: two words, or one address. What is there of an `@` belongs to the key.
///
/// # Errors
/// [`CliError::Usage`] for a key without a collection.
pub(super) fn document(collection: &str, key: Option<&str>) -> Result<(String, String), CliError> {
    if let Some(key) = key {
        return Ok((collection.to_owned(), key.to_owned()));
    }
    match collection.split_once('/') {
        Some((collection, key)) if !collection.is_empty() && !key.is_empty() => {
            Ok((decoded(collection), decoded(key)))
        }
        _ => Err(usage("name a document: `history users u-1`, or `history users/u-1`")),
    }
}

/// What is compared: a collection with its points in options, or its addresses at them.
///
/// # Errors
/// [`CliError::Usage`] where no earlier point is named, or two collections are.
pub(super) fn compared(
    first: &str,
    second: Option<&str>,
    (from, to): (Option<&str>, Option<&str>),
) -> Result<ComparedPoints, CliError> {
    let to = to.map(str::to_owned);
    if let Some(from) = from {
        if has_version(first) {
            return Err(usage(
                "name the earlier point once: `diff users --from seq:17`, or `diff users@v17`; write %40 for an @ in the name of a collection, as `diff users%40v17@v3`",
            ));
        }
        return Ok(ComparedPoints { collection: first.to_owned(), from: from.to_owned(), to });
    }
    let (collection, Some(from)) = at_point(first) else {
        return Err(usage(
            "name the earlier point: `diff users --from seq:17`, or `diff users@v17`",
        ));
    };
    let Some(second) = second else { return Ok(ComparedPoints { collection, from, to }) };
    match at_point(second) {
        (other, to) if other == collection => Ok(ComparedPoints { collection, from, to }),
        _ => {
            Err(usage("a diff is of one collection: name it in both, as `diff users@v3 users@v9`"))
        }
    }
}

/// Whether a version stands behind an `@` that is hardly of the collection's name: a number, a count or a time.
fn has_version(address: &str) -> bool {
    let version = address.rsplit_once('@').and_then(|(_, point)| HistoryPoint::of_address(point));
    matches!(version, Some(HistoryPoint::Seq(_) | HistoryPoint::Back(_) | HistoryPoint::Time(_)))
}

/// The collection of an address, and the point behind its `@`.
fn at_point(address: &str) -> (String, Option<String>) {
    match address.rsplit_once('@') {
        Some((collection, point)) if !collection.is_empty() && !point.is_empty() => {
            (decoded(collection), Some(written(&decoded(point))))
        }
        _ => (decoded(address), None),
    }
}

/// A version as it stands in an address, as the parameters of a request have it.
fn written(version: &str) -> String {
    match HistoryPoint::of_address(version) {
        Some(HistoryPoint::Seq(seq)) => format!("seq:{seq}"),
        Some(HistoryPoint::Branch(name)) => format!("branch:{name}"),
        Some(HistoryPoint::Time(_)) => format!("time:{version}"),
        // The server says what it takes, and what a name is.
        Some(
            HistoryPoint::Back(_)
            | HistoryPoint::Now
            | HistoryPoint::Bookmark(_)
            | HistoryPoint::Snapshot(_)
            | HistoryPoint::Tag(_)
            | HistoryPoint::Before(_)
            | HistoryPoint::Number(_)
            | HistoryPoint::Named(_),
        )
        | None => version.to_owned(),
    }
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn usage(text: &str) -> CliError {
    CliError::Usage(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_two_words_or_an_address() {
        for (collection, key, expected) in [
            ("users", Some("u-1"), ("users", "u-1")),
            ("a/b", Some("c/d"), ("a/b", "c/d")),
            ("users/u-1", None, ("users", "u-1")),
            ("users/a/b", None, ("users", "a/b")),
            ("a%2Fb/c%40d", None, ("a/b", "c@d")),
            ("users/ann@example.com", None, ("users", "ann@example.com")),
        ] {
            let (found, key) = document(collection, key).unwrap();
            assert_eq!((found.as_str(), key.as_str()), expected);
        }
        for collection in ["users", "/u-1", "users/"] {
            let error = document(collection, None).unwrap_err().to_string();
            assert!(error.contains("history users/u-1"), "{collection}: {error}");
        }
    }

    #[test]
    fn points_are_options_or_stand_in_addresses() {
        let check = |first: &str, second: Option<&str>, options, expected: (&str, Option<&str>)| {
            let found = compared(first, second, options).unwrap();
            let points = (found.from.as_str(), found.to.as_deref());
            assert_eq!((found.collection.as_str(), points), ("users", expected), "{first}");
        };
        let none = (None, None);
        check("users", None, (Some("seq:3"), None), ("seq:3", None));
        check("users", None, (Some("seq:3"), Some("b-1")), ("seq:3", Some("b-1")));
        check("users@v3", None, none, ("seq:3", None));
        check("users@v3", None, (None, Some("seq:9")), ("seq:3", Some("seq:9")));
        check("users@v3", Some("users@v9"), none, ("seq:3", Some("seq:9")));
        check("users@v3", Some("users"), none, ("seq:3", None));
        check("users@nightly", Some("users@main"), none, ("nightly", Some("branch:main")));
        check("users@2024-01-08", Some("users@~1"), none, ("time:2024-01-08", Some("~1")));
        // A name with the sign is written with its number, or beside an option.
        let odd = compared("a@b", None, (Some("seq:1"), None)).unwrap();
        assert_eq!(odd.collection, "a@b");
        assert_eq!(compared("a%40b@v1", Some("a%40b"), none).unwrap().collection, "a@b");
        for (first, second, expected) in [
            ("users", None, "name the earlier point"),
            ("users", Some("users@v3"), "name the earlier point"),
            ("users@v3", Some("orders@v9"), "of one collection"),
        ] {
            let error = compared(first, second, none).unwrap_err().to_string();
            assert!(error.contains(expected), "{first}: {error}");
        }
        for first in ["users@v3", "users@~1", "users@2024-01-08"] {
            let error = compared(first, None, (Some("seq:1"), None)).unwrap_err().to_string();
            assert!(error.contains("the earlier point once"), "{first}: {error}");
        }
    }
}
