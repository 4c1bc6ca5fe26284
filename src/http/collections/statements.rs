//! The texts that statements over collections are made of.

use crate::http::points::FoundPoint;
use icecore_engine::collections;

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

#[cfg(test)]
mod tests {
    use super::*;

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
