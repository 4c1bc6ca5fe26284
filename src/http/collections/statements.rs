//! The texts that statements over collections are made of.

use icecore_engine::collections;

/// Columns of a document, with its times in microseconds.
pub(super) const DOCUMENT_COLUMNS: &str = "key, doc, op, version, seq, bookmark, actor, event_id, \
     CAST(created_at AS bigint) AS created_us, CAST(updated_at AS bigint) AS updated_us";

/// The relation of a collection as it stands in a statement, after the event with this `seq`, or now.
pub(super) fn relation(collection: &str, seq: Option<u64>) -> String {
    let relation = collections::relation(collection);
    match seq {
        Some(seq) => format!("{relation} FOR SEQ AS OF {seq}"),
        None => relation,
    }
}

/// The documents of a collection after one event beside those after another, each as a text, with `condition` on
/// their keys. One that is not there is null.
pub(super) fn both(collection: &str, from: u64, to: u64, condition: &str) -> String {
    let (old, new) = (relation(collection, Some(from)), relation(collection, Some(to)));
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
        let now = relation("users", None);
        assert_eq!(relation("users", Some(7)), format!("{now} FOR SEQ AS OF 7"));
        let both = both("users", 3, 9, " WHERE key > $1");
        for seq in [3, 9] {
            let part = format!("FROM {now} FOR SEQ AS OF {seq} WHERE key > $1)");
            assert!(both.contains(&part), "{both}");
        }
    }
}
