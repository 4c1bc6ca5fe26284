//! Bodies of the routes that compare a branch of a namespace and merge it into another one.

use crate::{
    batch::SeqRange,
    collections::DocumentChange,
    point::MAIN_BRANCH,
    query::QueryBasis,
    restore::{LeftDocument, SampleChange},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

/// What becomes of members that both branches changed to different values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum MergePolicy {
    /// Nothing is merged, and they are listed.
    #[default]
    Fail,
    /// They stay as the branch has them that is merged into.
    Ours,
    /// They become what the merged branch has.
    Theirs,
}

impl MergePolicy {
    /// As a body has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Ours => "ours",
            Self::Theirs => "theirs",
        }
    }
}

/// How a branch is merged.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NewBranchMerge {
    /// The branch that gets its changes.
    #[serde(default = "main_branch")]
    pub into: String,
    /// What becomes of conflicts.
    #[serde(default)]
    pub policy: MergePolicy,
    /// Only count, and show some of the changes and the conflicts.
    #[serde(default)]
    pub dry_run: bool,
}

fn main_branch() -> String {
    MAIN_BRANCH.to_owned()
}

/// What a merge did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BranchMergeReport {
    /// Names the merge. None for a dry run, and where nothing was changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merge: Option<String>,
    /// The branch; the events of the merge have it in `meta.merge_of`.
    pub branch: String,
    /// The branch that got its changes.
    pub into: String,
    /// The last event of the branch that was merged; the events of the merge have it in `meta.merged_seq`.
    pub head_seq: u64,
    /// The last event in common before, as the branch counts.
    pub common_seq: u64,
    /// The same, as `into` counts.
    pub into_common_seq: u64,
    /// Whether `into` had no change since then in the collections concerned.
    pub fast_forward: bool,
    /// Documents that are new in `into`.
    pub inserted: u64,
    /// Documents of `into` with another text.
    pub updated: u64,
    /// Documents that are gone from `into`.
    pub deleted: u64,
    /// Documents that both changed so that the policy had to decide.
    pub conflicting: u64,
    /// The same for each collection that the branch changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub collections: Vec<MergeCounts>,
    /// Documents of the merge that somebody wrote in `into` right before their batch was appended, behind the look for
    /// such writes: these writes are in their history, and not in what was merged. A repeat tells those of the batches
    /// before the last one.
    #[serde(default)]
    pub overwritten: u64,
    /// The first of those, at most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overwritten_documents: Vec<LeftDocument>,
    /// Atomic batches that its events were appended in: 1 unless it was too large for one, 0 where nothing changed.
    pub batches: u64,
    /// First and last `seq` of its events in `into`, of which the last one tells of it; none where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<SeqRange>,
    /// The moment before the merge, as a point for a restore of `main`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo_bookmark: Option<String>,
    /// The tag of `events` at the state before it; none where it could not be set, or `into` is not `main`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Whether nothing was changed.
    #[serde(default)]
    pub dry_run: bool,
    /// Some of the changes of a dry run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sample: Vec<SampleChange>,
    /// The first conflicts of a dry run, at most 100 and no more than 1 MiB of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<MergeConflict>,
    /// What was compared; its `seq` is the last event of `into` that counted. It names at most 100 tables, and none of
    /// more. Reports of older servers have no basis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basis: Option<QueryBasis>,
}

/// What a merge does to one collection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MergeCounts {
    /// Its name.
    pub name: String,
    /// Documents that are new in `into`.
    pub inserted: u64,
    /// Documents of `into` with another text.
    pub updated: u64,
    /// Documents that are gone from `into`.
    pub deleted: u64,
    /// Documents that both changed so that the policy had to decide.
    pub conflicting: u64,
}

/// A document that both branches changed to different values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MergeConflict {
    /// The collection.
    pub collection: String,
    /// The document's key.
    pub key: String,
    /// The members, as JSON pointers (RFC 6901), at most 100; the empty one is the whole document.
    pub paths: Vec<String>,
    /// The document at the last event in common, as the merged branch had it; null where there was none.
    pub base: Value,
    /// The document of the branch that is merged into; null where there is none.
    pub ours: Value,
    /// The document of the merged branch; null where there is none.
    pub theirs: Value,
}

/// What a branch is compared with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum DiffAgainst {
    /// What it was at the last event that it has in common with the other branch.
    #[default]
    Common,
    /// What the other branch is.
    Head,
}

/// What is compared with a branch, and which page of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct BranchDiffParameters {
    /// The other branch; `main` when left out.
    pub into: Option<String>,
    /// `common`: what the branch changed since the last event in common. `head`: what it has that the other one does
    /// not.
    #[serde(default)]
    pub against: DiffAgainst,
    /// Only documents behind this one, which an earlier page gave as `next`.
    pub after: Option<String>,
    /// Most of a page; 100 when left out.
    #[cfg_attr(test, schemars(range(min = 1, max = 1000)))]
    pub limit: Option<usize>,
}

/// A document that a branch has otherwise.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BranchDiffEntry {
    /// Its collection.
    pub collection: String,
    /// Its key.
    pub key: String,
    /// How it is different.
    pub change: DocumentChange,
    /// The document that the branch is compared with; null where there is none.
    #[cfg_attr(test, schemars(with = "serde_json::Value"))]
    pub before: Option<Box<RawValue>>,
    /// The document of the branch; null where there is none.
    #[cfg_attr(test, schemars(with = "serde_json::Value"))]
    pub after: Option<Box<RawValue>>,
}

/// What a branch has otherwise.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BranchDiff {
    /// The last event of the branch.
    pub head_seq: u64,
    /// The last event in common, as the branch counts.
    pub common_seq: u64,
    /// The same, as the other branch counts.
    pub into_common_seq: u64,
    /// Documents that the branch alone has, on all pages.
    pub added: u64,
    /// Documents with another text.
    pub changed: u64,
    /// Documents that the branch does not have.
    pub removed: u64,
    /// A page of them, in the order of collections and keys.
    pub docs: Vec<BranchDiffEntry>,
    /// What the next page comes after, while there may be more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// What the answer was made of; its `seq` is `head_seq`, of the branch.
    pub basis: QueryBasis,
}
