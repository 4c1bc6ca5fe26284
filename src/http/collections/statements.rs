//! The texts that statements over collections are made of.

use crate::http::points::FoundPoint;
use icecore_engine::collections;
use serde_json::Value;

/// Columns of a document, with its times in microseconds.
pub(super) const DOCUMENT_COLUMNS: &str = "key, doc, op, version, seq, bookmark, actor, event_id, \
     CAST(created_at AS bigint) AS created_us, CAST(updated_at AS bigint) AS updated_us";

/// The relation of a collection as it stands in a statement, at a point.
pub(super) fn relation(collection: &str, point: &FoundPoint) -> String {
    match point.seq {
        Some(seq) => collections::relation_at(collection, point.branch.as_deref(), seq),
        None => collections::relation(collection),
    }
}

/// The documents of a collection at one point beside those at another, each as a text, with `condition` on
/// their keys. One that is not there is null.
pub(super) fn both(
    collection: &str,
    from: &FoundPoint,
    to: &FoundPoint,
    condition: &str,
) -> String {
    let (old, new) = (relation(collection, from), relation(collection, to));
    format!(
        "SELECT coalesce(a.key, b.key) AS key, a.doc AS old_doc, b.doc AS new_doc \
         FROM (SELECT key, doc FROM {old}{condition}) AS a \
         FULL JOIN (SELECT key, doc FROM {new}{condition}) AS b ON a.key = b.key"
    )
}

/// A condition on keys and its parameters: one of these, if some are given, and behind `after`.
pub(super) fn key_condition(keys: Option<&[String]>, after: Option<&str>) -> (String, Vec<Value>) {
    let Some(keys) = keys else {
        return match after {
            Some(after) => (" WHERE key > $1".to_owned(), vec![after.into()]),
            None => (String::new(), Vec::new()),
        };
    };
    let is_behind = |key: &&str| after.is_none_or(|after| after < *key);
    let keys: Vec<&str> = keys.iter().map(String::as_str).filter(is_behind).collect();
    if keys.is_empty() {
        return (" WHERE false".to_owned(), Vec::new());
    }
    let places: Vec<String> =
        (1..=keys.len()).map(|place| format!("CAST(${place} AS text)")).collect();
    let params = keys.into_iter().map(Value::from).collect();
    (format!(" WHERE key IN ({})", places.join(", ")), params)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_has_the_keys_behind_a_page() {
        let keys = ["a", "b", "c"].map(str::to_owned);
        let of = |keys: Option<&[String]>, after: Option<&str>| {
            let (condition, params) = key_condition(keys, after);
            format!("{condition} {}", Value::from(params))
        };
        let one = |place: usize| format!("CAST(${place} AS text)");
        for (keys, after, expected) in [
            (None, None, " []".to_owned()),
            (None, Some("b"), r#" WHERE key > $1 ["b"]"#.to_owned()),
            (Some(&keys[..0]), None, " WHERE false []".to_owned()),
            (Some(&keys[..]), Some("c"), " WHERE false []".to_owned()),
            (Some(&keys[..]), Some("b"), format!(r#" WHERE key IN ({}) ["c"]"#, one(1))),
            (
                Some(&keys[..2]),
                None,
                format!(r#" WHERE key IN ({}, {}) ["a","b"]"#, one(1), one(2)),
            ),
        ] {
            assert_eq!(of(keys, after), expected);
        }
    }

    #[test]
    fn a_point_stands_behind_the_relation() {
        let now = relation("users", &FoundPoint::NOW);
        let at = FoundPoint::NOW.with_seq(3);
        assert_eq!(relation("users", &at), format!("{now} FOR SEQ AS OF 3"));
        let of_branch = FoundPoint { branch: Some("trial".into()), ..at.with_seq(9) };
        let both = both("users", &at, &of_branch, " WHERE key > $1");
        for point in ["3", "9 OF BRANCH 'trial'"] {
            let part = format!("FROM {now} FOR SEQ AS OF {point} WHERE key > $1)");
            assert!(both.contains(&part), "{both}");
        }
    }
}
