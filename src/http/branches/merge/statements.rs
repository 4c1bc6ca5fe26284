//! Statements that compare two branches: which documents one of them changed, and what these are on both.

use super::common::CommonPoint;
use crate::http::{bulk_changes, change_events::ADMIN_VISIBILITY};
use icecore_engine::collections::{IS_CHANGE, IS_TRUNCATE, events_at, literal, relation_at};
use icecore_schemas::service_table::EVENTS_TABLE;

/// A number behind every event that a branch may get.
const SEQ_MAX: u64 = u64::MAX >> 1;

/// A branch as an event left it; the branch is none for `main`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http::branches) struct BranchState<'a> {
    pub(in crate::http::branches) branch: Option<&'a str>,
    pub(in crate::http::branches) seq: u64,
}

impl BranchState<'_> {
    /// Its events, as a statement names them in FROM.
    pub(super) fn events(self) -> String {
        events_at(self.branch, self.seq)
    }

    fn relation(self, collection: &str) -> String {
        relation_at(collection, self.branch, self.seq)
    }

    fn at(self, seq: u64) -> Self {
        Self { seq, ..self }
    }

    /// The collections that it changed behind an event, at most `limit`, and whether it emptied them.
    pub(in crate::http::branches) fn collections_since(self, seq: u64, limit: usize) -> String {
        format!(
            "SELECT collection, CAST(max(CASE WHEN {IS_TRUNCATE} THEN 1 ELSE 0 END) AS bigint) AS emptied \
             FROM {} WHERE seq > {seq} AND collection <> '' AND (({IS_CHANGE}) OR ({IS_TRUNCATE})) \
             GROUP BY collection LIMIT {limit}",
            self.events()
        )
    }

    /// A row if it changed the collection behind an event.
    pub(super) fn change_since(self, seq: u64, collection: &str) -> String {
        format!(
            "SELECT seq FROM {} WHERE seq > {seq} AND collection = {} AND (({IS_CHANGE}) OR ({IS_TRUNCATE})) LIMIT 1",
            self.events(),
            literal(collection)
        )
    }

    /// The documents that it changed behind its last event, as columns `collection` and `key`; a row without a key is
    /// a collection that it emptied. Events with ids that begin with `own` do not count.
    pub(super) fn later_changes(self, own: &str) -> String {
        let events = match self.branch {
            None => EVENTS_TABLE.to_owned(),
            Some(_) => self.at(SEQ_MAX).events(),
        };
        bulk_changes::later_changes(&events, self.seq, own)
    }

    /// The keys that it changed in a collection behind an event, as column `doc_key`; where the collection was emptied,
    /// those that it had there as well.
    fn keys_since(self, seq: u64, collection: &str, is_emptied: bool) -> String {
        let changed = format!(
            "SELECT DISTINCT key AS doc_key FROM {} WHERE seq > {seq} AND collection = {} AND {IS_CHANGE}",
            self.events(),
            literal(collection)
        );
        match is_emptied {
            false => changed,
            true => format!(
                "{changed} UNION SELECT key AS doc_key FROM {}",
                self.at(seq).relation(collection)
            ),
        }
    }

    /// The documents, to be joined with keys.
    fn documents(self, collection: &str, side: &str) -> String {
        format!(
            "LEFT JOIN (SELECT key AS {side}_key, doc AS {side}_doc, store AS {side}_store, seq AS {side}_seq \
             FROM {}) AS {side}_state ON doc_key = {side}_key",
            self.relation(collection)
        )
    }
}

/// Both branches, and their last event in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http::branches) struct ComparedBranches<'a> {
    /// The branch.
    pub(in crate::http::branches) theirs: BranchState<'a>,
    /// The other one, into which it is merged.
    pub(in crate::http::branches) ours: BranchState<'a>,
    pub(in crate::http::branches) common: CommonPoint,
}

/// A collection that was changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::http::branches) struct ChangedCollection {
    pub(in crate::http::branches) name: String,
    /// Whether the branch emptied it.
    pub(in crate::http::branches) is_emptied: bool,
    /// Whether the other one changed it, and whether it emptied it; only known for a comparison with its head.
    pub(in crate::http::branches) is_changed_by_ours: bool,
    pub(in crate::http::branches) is_emptied_by_ours: bool,
}

impl ComparedBranches<'_> {
    /// The documents that the branch changed: their key, what they were on it at the last event in common, and what
    /// they are on both.
    pub(super) fn changes(self, collection: &ChangedCollection) -> String {
        let Self { theirs, ours, common } = self;
        let ChangedCollection { name, is_emptied, .. } = collection;
        format!(
            "SELECT doc_key, common_doc, their_doc, their_store, their_seq, our_doc, our_store, our_seq \
             FROM ({}) AS touched {} {} {} WHERE their_doc IS DISTINCT FROM common_doc",
            theirs.keys_since(common.seq, name, *is_emptied),
            theirs.at(common.seq).documents(name, "common"),
            theirs.documents(name, "their"),
            ours.documents(name, "our"),
        )
    }

    /// The same with who sees the last change of a document on each, which its event says.
    pub(super) fn visible_changes(self, collection: &ChangedCollection) -> String {
        let event = |state: BranchState<'_>, side: &str| {
            format!(
                "LEFT JOIN (SELECT seq AS {side}_event, visibility AS {side}_said FROM {} \
                 WHERE op IS NOT NULL AND collection = {}) AS {side}_events ON {side}_seq = {side}_event",
                state.events(),
                literal(&collection.name)
            )
        };
        let seen = |side: &str| {
            format!(
                "CASE WHEN {side}_seq IS NOT NULL AND {side}_event IS NULL THEN '{ADMIN_VISIBILITY}' \
                 ELSE {side}_said END AS {side}_visibility"
            )
        };
        format!(
            "SELECT changes.*, {}, {} FROM ({}) AS changes {} {}",
            seen("their"),
            seen("our"),
            self.changes(collection),
            event(self.theirs, "their"),
            event(self.ours, "our"),
        )
    }

    /// What the branch has otherwise than at the last event in common, as columns `doc_key`, `old_doc` and `new_doc`.
    pub(in crate::http::branches) fn since_common(self, collection: &ChangedCollection) -> String {
        let Self { theirs, common, .. } = self;
        let ChangedCollection { name, is_emptied, .. } = collection;
        let keys = theirs.keys_since(common.seq, name, *is_emptied);
        pairs(&keys, theirs.at(common.seq), theirs, name)
    }

    /// What the branch has otherwise than the other one.
    pub(in crate::http::branches) fn against_head(self, collection: &ChangedCollection) -> String {
        let Self { theirs, ours, common } = self;
        let name = &collection.name;
        let mut keys = theirs.keys_since(common.seq, name, collection.is_emptied);
        if collection.is_changed_by_ours {
            let others = ours.keys_since(common.into_seq, name, collection.is_emptied_by_ours);
            keys = format!("{keys} UNION {others}");
        }
        // After a merge both may differ in what neither changed since, as conflicts were decided.
        if !common.is_fork {
            keys = format!(
                "SELECT key AS doc_key FROM {} UNION SELECT key AS doc_key FROM {}",
                theirs.relation(name),
                ours.relation(name)
            );
        }
        pairs(&keys, ours, theirs, name)
    }
}

/// The documents with these keys that are not the same in two states.
fn pairs(keys: &str, old: BranchState<'_>, new: BranchState<'_>, collection: &str) -> String {
    format!(
        "SELECT doc_key, old_doc, new_doc FROM ({keys}) AS touched {} {} WHERE old_doc IS DISTINCT FROM new_doc",
        old.documents(collection, "old"),
        new.documents(collection, "new"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_and_an_event_stand_behind_what_is_read() {
        let common = CommonPoint { seq: 3, into_seq: 4, is_fork: false };
        let theirs = BranchState { branch: Some("it's"), seq: 9 };
        let ours = BranchState { branch: None, seq: 8 };
        let compared = ComparedBranches { theirs, ours, common };
        let collection = ChangedCollection {
            name: "users".to_owned(),
            is_emptied: true,
            is_changed_by_ours: true,
            is_emptied_by_ours: true,
        };
        let sql = compared.visible_changes(&collection);
        for part in [
            "FROM events FOR SEQ AS OF 9 OF BRANCH 'it''s' WHERE seq > 3 AND collection = 'users'",
            "FROM \"collections/users\" FOR SEQ AS OF 3 OF BRANCH 'it''s') AS common_state",
            "FROM \"collections/users\" FOR SEQ AS OF 9 OF BRANCH 'it''s') AS their_state",
            "FROM \"collections/users\" FOR SEQ AS OF 8) AS our_state",
            "UNION SELECT key AS doc_key FROM \"collections/users\" FOR SEQ AS OF 3 OF BRANCH 'it''s'",
        ] {
            assert!(sql.contains(part), "{part}: {sql}");
        }
        let forked = CommonPoint { seq: 3, into_seq: 3, is_fork: true };
        let forked = ComparedBranches { common: forked, ..compared };
        assert!(
            compared.since_common(&collection).contains("AS OF 3 OF BRANCH 'it''s') AS old_state")
        );
        assert!(
            forked.against_head(&collection).contains("FROM events FOR SEQ AS OF 8 WHERE seq > 3")
        );
        assert!(compared.against_head(&collection).contains("AS OF 8) AS old_state"));
        let later = ours.later_changes("merge-0-1-");
        assert!(later.contains("FROM events WHERE seq > 8 AND"), "{later}");
        assert!(later.ends_with("AND (id LIKE 'merge-0-1-%') IS NOT TRUE"), "{later}");
        assert!(theirs.later_changes("").contains("OF BRANCH 'it''s' WHERE seq > 9 AND"));
    }
}
