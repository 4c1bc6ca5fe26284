//! A branch of a namespace: its events up to a fork, and then events of its own.
//!
//! The branch is the ref of that name of table `events`; what the ref does not say of it is one property of that
//! table, which is committed together with the ref. So table, ref and property cannot disagree, and a repair that
//! brings the table back brings its branches back. Events of a branch have the numbers behind the fork, so a
//! `seq` is one event of one branch. Its one invariant: a branch and what is said of it come and go in one commit.

use iceberg::spec::{MAIN_BRANCH, TableMetadata};
use icecore_catalog::{
    ancestors,
    commit::{COMMIT_ID, LAST_SEQ},
    retention::{self, BRANCH},
};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};

/// Properties of `events` that say what its branches are begin so; behind it is the name of the branch.
pub const BRANCH_PREFIX: &str = retention::BRANCHES;

/// What is kept of a branch beside its ref.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branch {
    /// The name of its ref.
    #[serde(skip)]
    pub name: String,
    /// The branch that it was made of.
    pub forked_from: String,
    /// The last event that it has of that branch.
    pub fork_seq: u64,
    /// When it was made, ms since 1970.
    pub created_at: i64,
    /// The one collection whose changes it takes; none for all of the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collection: Option<String>,
    /// The newest merge into each other branch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub merges: Vec<BranchMerge>,
}

/// A merge of a branch into another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BranchMerge {
    /// The branch that it went into.
    pub into: String,
    /// When that one was made, ms since 1970: one of its name that is made later is another one. None for `main`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub into_created_at: Option<i64>,
    /// The last event of the branch that it has.
    pub seq: u64,
    /// The last event of the other branch with it.
    pub into_seq: u64,
}

/// What a branch has of `main` and of no other branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MainPart {
    /// The last event of it.
    pub seq: u64,
    /// When it was taken, ms since 1970: what came to `main` later is no part of it.
    pub taken_at: i64,
}

/// Most branches that are looked at on the way from one to `main`. Of one that is farther nothing is said.
const FORKS_MAX: usize = 32;

impl Branch {
    /// The branches that a snapshot of table `events` is the head of, or that were built on it.
    #[must_use]
    pub fn with_snapshot(events: &TableMetadata, id: i64) -> Vec<Self> {
        let is_on = |branch: &Self| {
            let head = events.snapshot_for_ref(&branch.name).map(|head| head.snapshot_id());
            ancestors::of(events, head).any(|snapshot| snapshot.snapshot_id() == id)
        };
        Self::all(events).into_iter().filter(is_on).collect()
    }

    /// Whether a snapshot of table `events` was made for a branch that is gone, or that leads there no more: its events
    /// behind the fork are no others'.
    #[must_use]
    pub fn is_lost(events: &TableMetadata, id: i64) -> bool {
        // Other engines say nothing of it.
        let mut line =
            ancestors::of(events, Some(id)).map(|it| &it.summary().additional_properties);
        let made = line.find(|summary| summary.contains_key(COMMIT_ID));
        made.is_some_and(|summary| summary.contains_key(BRANCH))
            && Self::with_snapshot(events, id).is_empty()
    }

    /// The last event up to which it has the events of `main` and no other; none where a branch that it was made of is
    /// gone.
    #[must_use]
    pub fn main_seq(&self, events: &TableMetadata) -> Option<u64> {
        self.main_part(events).map(|part| part.seq)
    }

    /// The same, with the time of the branch that was made of `main`.
    #[must_use]
    pub fn main_part(&self, events: &TableMetadata) -> Option<MainPart> {
        let (mut seq, mut created_at) = (self.fork_seq, self.created_at);
        let mut from = self.forked_from.clone();
        for _ in 0..FORKS_MAX {
            if from == MAIN_BRANCH {
                return Some(MainPart { seq, taken_at: created_at });
            }
            // One that was made later is another branch of that name.
            let parent = Self::of(events, &from).filter(|it| it.created_at <= created_at)?;
            seq = seq.min(parent.fork_seq);
            (from, created_at) = (parent.forked_from, parent.created_at);
        }
        None
    }
}

impl Branch {
    /// The name of the property of a branch.
    #[must_use]
    pub fn property(name: &str) -> String {
        format!("{BRANCH_PREFIX}{name}")
    }

    /// What the property of the branch says.
    ///
    /// # Errors
    /// A text that JSON cannot have, which there is none of here.
    pub fn to_property(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// The branch of this name of table `events`; none where it has no such ref, or where nothing is said of it:
    /// another engine made it.
    #[must_use]
    pub fn of(events: &TableMetadata, name: &str) -> Option<Self> {
        let head = events.snapshot_for_ref(name)?.snapshot_id();
        // Another engine may have dropped the branch and given its name to something else.
        let mut line =
            ancestors::of(events, Some(head)).map(|it| &it.summary().additional_properties);
        let made = line.find(|summary| summary.contains_key(COMMIT_ID));
        if made.is_some_and(|summary| summary.get(BRANCH).is_none_or(|branch| branch != name)) {
            return None;
        }
        let text = events.properties().get(&Self::property(name))?;
        let branch = serde_json::from_str::<Self>(text).ok()?;
        Some(Self { name: name.to_owned(), ..branch })
    }

    /// All branches of table `events`, in order of their names.
    #[must_use]
    pub fn all(events: &TableMetadata) -> Vec<Self> {
        let names = events.properties().keys().filter_map(|key| key.strip_prefix(BRANCH_PREFIX));
        let mut branches: Vec<_> = names.filter_map(|name| Self::of(events, name)).collect();
        branches.sort_by(|one, other| one.name.cmp(&other.name));
        branches
    }

    /// The snapshot that it was made of; none where its own first one is gone.
    #[must_use]
    pub fn base(&self, events: &TableMetadata) -> Option<i64> {
        let head = events.snapshot_for_ref(&self.name)?.snapshot_id();
        let own = |summary: &HashMap<String, String>| summary.get(BRANCH) == Some(&self.name);
        let mut line = ancestors::of(events, Some(head)).skip_while(|snapshot| {
            let summary = &snapshot.summary().additional_properties;
            own(summary) || !summary.contains_key(COMMIT_ID)
        });
        line.next().map(|snapshot| snapshot.snapshot_id())
    }

    /// Whether the service alone wrote to the branch, as far as its snapshots are retained.
    #[must_use]
    pub fn is_of_service(&self, events: &TableMetadata) -> bool {
        let Some(head) = events.snapshot_for_ref(&self.name) else { return true };
        let mut has_others = false;
        for snapshot in ancestors::of(events, Some(head.snapshot_id())) {
            let summary = &snapshot.summary().additional_properties;
            if !summary.contains_key(COMMIT_ID) {
                has_others = true;
            } else if summary.get(BRANCH) != Some(&self.name) {
                return true;
            } else if has_others {
                return false;
            }
        }
        !has_others
    }

    /// The last of its events that merges of the branch, merges into it or branches made of it go on from, given all
    /// branches; 0 without any. No other event may have its number, also where the branch has that event no more:
    /// another engine moved the branch back, or the event was erased.
    #[must_use]
    pub fn named_seq(&self, all: &[Self]) -> u64 {
        let place = (self.name.as_str(), Some(self.created_at));
        let merged = self.merges.iter().map(|merge| merge.seq);
        let by_others = all.iter().flat_map(|other| {
            // One that was made earlier is of another branch of this name.
            let is_made_of_it =
                other.forked_from == self.name && self.created_at <= other.created_at;
            let into = other.merges.iter();
            let into = into.filter(move |it| (it.into.as_str(), it.into_created_at) == place);
            is_made_of_it.then_some(other.fork_seq).into_iter().chain(into.map(|it| it.into_seq))
        });
        merged.chain(by_others).max().unwrap_or(0)
    }

    /// The last event of this branch and the last one of `into` that both have in common: the newest merge, else the
    /// fork where the branch was made of `into`.
    #[must_use]
    pub fn common_with(&self, into: &str) -> Option<(u64, u64)> {
        let merge = self.merges.iter().find(|merge| merge.into == into);
        let fork = || (self.forked_from == into).then_some((self.fork_seq, self.fork_seq));
        merge.map(|merge| (merge.seq, merge.into_seq)).or_else(fork)
    }
}

/// The newest snapshot of a branch that has no event behind `seq`, with its last event. `head` is that of the branch,
/// and `from` what is said of it, none for `main`. None where no such snapshot is retained.
#[must_use]
pub fn newest_until(
    events: &TableMetadata,
    from: Option<&Branch>,
    head: i64,
    seq: u64,
) -> Option<(i64, u64)> {
    let line: HashSet<i64> =
        ancestors::of(events, Some(head)).map(|snapshot| snapshot.snapshot_id()).collect();
    let numbers = line.iter().filter_map(|id| events.snapshot_by_id(*id));
    let oldest = numbers.map(|snapshot| snapshot.sequence_number()).min()?;
    let found = events.snapshots().filter_map(|snapshot| {
        let summary = &snapshot.summary().additional_properties;
        let last: u64 = summary.get(LAST_SEQ)?.parse().ok()?;
        // Where thinning cut the line, what is older than the cut and of the same branch is still of it.
        let is_of_line = line.contains(&snapshot.snapshot_id())
            || (snapshot.sequence_number() < oldest
                && match (summary.get(BRANCH), from) {
                    (None, None) => true,
                    (None, Some(from)) => from.forked_from == MAIN_BRANCH && last <= from.fork_seq,
                    // An earlier branch may have had the name.
                    (Some(branch), from) => from.is_some_and(|from| {
                        from.name == *branch && from.created_at <= snapshot.timestamp_ms()
                    }),
                });
        (is_of_line && last <= seq)
            .then(|| ((last, snapshot.sequence_number()), snapshot.snapshot_id()))
    });
    found.max().map(|((last, _), id)| (id, last))
}

/// The branch of the service that a snapshot of `events` was made for; none for those of `main`.
#[must_use]
pub fn branch_of(events: &TableMetadata, snapshot: i64) -> Option<&str> {
    let snapshot = events.snapshot_by_id(snapshot)?;
    snapshot.summary().additional_properties.get(BRANCH).map(String::as_str)
}

/// The last event in a snapshot of `events`; none where the snapshots that would tell are gone. Those of other engines
/// tell nothing of it.
#[must_use]
pub fn last_seq(events: &TableMetadata, snapshot: i64) -> Option<u64> {
    ancestors::of(events, Some(snapshot))
        .find_map(|it| it.summary().additional_properties.get(LAST_SEQ)?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_is_the_text_of_its_property() {
        let mut branch = Branch {
            name: "trial".to_owned(),
            forked_from: "main".to_owned(),
            fork_seq: 17,
            created_at: 1_700_000_000_000,
            collection: None,
            merges: Vec::new(),
        };
        let text = branch.to_property().unwrap();
        assert_eq!(text, r#"{"forked_from":"main","fork_seq":17,"created_at":1700000000000}"#);
        let read: Branch = serde_json::from_str(&text).unwrap();
        assert_eq!(Branch { name: branch.name.clone(), ..read }, branch);
        assert_eq!(branch.common_with("main"), Some((17, 17)));
        assert_eq!(branch.common_with("other"), None);
        let into = "main".to_owned();
        branch.merges.push(BranchMerge { into, into_created_at: None, seq: 20, into_seq: 31 });
        assert_eq!(branch.common_with("main"), Some((20, 31)));
    }

    #[test]
    fn a_number_that_merges_and_branches_go_on_from_is_known() {
        let branch = |name: &str, from: &str, fork_seq: u64, created_at: i64| Branch {
            name: name.to_owned(),
            forked_from: from.to_owned(),
            fork_seq,
            created_at,
            collection: None,
            merges: Vec::new(),
        };
        let merged = |into: &str, into_created_at: Option<i64>| {
            let merge =
                BranchMerge { into: into.to_owned(), into_created_at, seq: 30, into_seq: 40 };
            Branch { merges: vec![merge], ..branch("other", "main", 10, 9) }
        };
        let trial = branch("trial", "main", 20, 5);
        for (other, seq) in [
            (branch("other", "trial", 25, 9), 25),
            // Of an earlier branch of that name.
            (branch("other", "trial", 25, 4), 0),
            (branch("other", "main", 25, 9), 0),
            (merged("trial", Some(5)), 40),
            (merged("trial", Some(4)), 0),
            (merged("main", None), 0),
        ] {
            assert_eq!(trial.named_seq(std::slice::from_ref(&other)), seq, "{other:?}");
        }
        assert_eq!(merged("main", None).named_seq(&[]), 30);
    }
}
