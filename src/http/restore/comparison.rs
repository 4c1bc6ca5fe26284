//! Statements that compare a collection at two numbers: what it is, and what it was.

use super::run::CollectionPair;
use crate::http::change_events::ADMIN_VISIBILITY;
use icecore_engine::collections::{literal, relation};
use icecore_lake::collection::ChangeOp;

/// Which rows of both states are of documents that change.
const DIFFERS: &str = "now_key IS NULL OR past_key IS NULL OR now_doc IS DISTINCT FROM past_doc";
/// What is told of such a document.
const CHANGE_COLUMNS: [&str; 5] = ["now_key", "past_key", "now_doc", "past_doc", "doc_store"];

/// The two states that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ComparedStates {
    /// The last event of the state that is put back.
    pub(super) to: u64,
    /// The last event of the state that is there.
    pub(super) head: u64,
}

impl ComparedStates {
    /// Every document of both states in a row: its key, text, store and last change in each.
    fn documents(self, pair: &CollectionPair) -> String {
        let state = |collection: &str, seq: u64, side: &str| {
            format!(
                "(SELECT key AS {side}_key, doc AS {side}_doc, store AS {side}_store, seq AS {side}_seq \
                 FROM {} FOR SEQ AS OF {seq}) AS {side}_state",
                relation(collection)
            )
        };
        let is = state(&pair.into, self.head, "now");
        let was = state(&pair.from, self.to, "past");
        format!("{is} FULL JOIN {was} ON now_key = past_key")
    }

    /// Whether they are one state of a collection.
    pub(super) fn are_same(self, pair: &CollectionPair) -> bool {
        !pair.is_other && self.to == self.head
    }

    /// How many documents the state has that is there.
    pub(super) fn count(self, pair: &CollectionPair) -> String {
        format!(
            "SELECT CAST(count(*) AS bigint) AS documents FROM {} FOR SEQ AS OF {}",
            relation(&pair.into),
            self.head
        )
    }

    /// Every document of both states in a row, which says nothing of one that does not change.
    pub(super) fn all(self, pair: &CollectionPair) -> String {
        let told =
            CHANGE_COLUMNS.map(|name| format!("CASE WHEN differs THEN {name} END AS {name}"));
        format!(
            "SELECT {} FROM (SELECT now_key, past_key, now_doc, past_doc, \
             coalesce(past_store, now_store) AS doc_store, ({DIFFERS}) AS differs FROM {}) AS pairs",
            told.join(", "),
            self.documents(pair)
        )
    }

    /// The documents that change.
    pub(super) fn changes(self, pair: &CollectionPair) -> String {
        format!(
            "SELECT now_key, past_key, now_doc, past_doc, coalesce(past_store, now_store) AS doc_store, \
             now_seq, past_seq FROM {} WHERE {DIFFERS}",
            self.documents(pair)
        )
    }

    /// The same with who sees the last change of a document in each state, which its event says.
    pub(super) fn visible_changes(self, pair: &CollectionPair) -> String {
        let named = [&pair.from, &pair.into].map(|name| literal(name));
        let event = |side: &str| {
            format!(
                "LEFT JOIN (SELECT seq AS {side}_event, visibility AS {side}_said FROM events \
                 WHERE op IS NOT NULL AND collection IN ({})) AS {side}_events ON {side}_seq = {side}_event",
                named.join(", ")
            )
        };
        let seen = |side: &str| {
            format!(
                "CASE WHEN {side}_seq IS NOT NULL AND {side}_event IS NULL THEN '{ADMIN_VISIBILITY}' \
                 ELSE {side}_said END AS {side}_visibility"
            )
        };
        format!(
            "SELECT now_key, past_key, now_doc, past_doc, doc_store, {}, {} FROM ({}) AS changes {} {}",
            seen("now"),
            seen("past"),
            self.changes(pair),
            event("now"),
            event("past")
        )
    }
}

/// What becomes of a document, in the word of a report.
pub(super) fn word(op: ChangeOp) -> &'static str {
    match op {
        ChangeOp::Create => "inserted",
        ChangeOp::Update | ChangeOp::Read => "updated",
        ChangeOp::Delete => "deleted",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_queries() {
        let pair = CollectionPair {
            from: "it's \"a\"".to_owned(),
            into: "users".to_owned(),
            is_other: true,
        };
        let states = ComparedStates { to: 3, head: 9 };
        for sql in [states.all(&pair), states.changes(&pair), states.visible_changes(&pair)] {
            assert!(sql.contains("FOR SEQ AS OF 9) AS now_state"), "{sql}");
            assert!(sql.contains("FOR SEQ AS OF 3) AS past_state"), "{sql}");
            icecore_engine::guard::check(&sql).unwrap();
        }
        icecore_engine::guard::check(&states.count(&pair)).unwrap();
    }

    #[test]
    fn a_collection_is_the_same_state_at_one_event_and_another_collection_is_not() {
        let own = CollectionPair { from: "a".to_owned(), into: "a".to_owned(), is_other: false };
        let other = CollectionPair { into: "b".to_owned(), is_other: true, ..own.clone() };
        let at = |to: u64| ComparedStates { to, head: 9 };
        assert!(at(9).are_same(&own));
        assert!(!at(8).are_same(&own));
        assert!(!at(9).are_same(&other));
    }
}
