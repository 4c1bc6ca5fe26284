//! Branches of a namespace: their names, and the bodies of the routes that make, show, drop and squash them.

use crate::{
    as_of::AsOf,
    point::{HistoryPoint, MAIN_BRANCH},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Longest name of a branch, in characters.
pub const BRANCH_NAME_MAX: usize = 64;
/// What names begin with that other things are called by.
const OTHER_PREFIXES: [&str; 3] = ["daily-", "monthly-", "before-"];

/// Why a text is no name of a new branch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBranchName {
    /// It has other characters, or another length.
    #[error(
        "the name of a branch has 1 to {BRANCH_NAME_MAX} characters, each a letter from a to z or A to Z, a digit, `.`, `_` or `-`, and is not `.` or `..`"
    )]
    Letters,
    /// It is the name of what every namespace has.
    #[error("every namespace has the branch `{MAIN_BRANCH}`: give the new one another name")]
    Main,
    /// A point or a tag is written so.
    #[error(
        "`{0}` would be read as another point of the history, such as a number, a time or a tag: start the name of the branch with a word, such as try-{0}"
    )]
    Point(String),
}

/// Refuses what no new branch may be called.
///
/// # Errors
/// Says what a name looks like.
pub fn check_branch_name(name: &str) -> Result<(), InvalidBranchName> {
    let is_letter = |letter: u8| letter.is_ascii_alphanumeric() || b"._-".contains(&letter);
    let fits = (1..=BRANCH_NAME_MAX).contains(&name.len()) && name.bytes().all(is_letter);
    if !fits || name == "." || name == ".." {
        return Err(InvalidBranchName::Letters);
    }
    if name.eq_ignore_ascii_case(MAIN_BRANCH) {
        return Err(InvalidBranchName::Main);
    }
    let is_number = name.bytes().all(|letter| letter.is_ascii_digit());
    let is_name = || matches!(name.parse::<AsOf>(), Ok(AsOf::Reference(_)));
    let is_other = || OTHER_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    if is_number || HistoryPoint::of_address(name).is_some() || !is_name() || is_other() {
        return Err(InvalidBranchName::Point(name.to_owned()));
    }
    Ok(())
}

/// A branch to make.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NewBranch {
    /// Its name.
    pub name: String,
    /// The point where it begins, such as `seq:17`; everything that is acknowledged when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(extend("type" = ["integer", "string"])))]
    pub at: Option<Value>,
    /// The branch that it is made of; `main` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The one collection whose changes it takes; those of all when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collection: Option<String>,
}

/// A branch of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BranchEntry {
    /// Its name, which is that of a branch of table `events`.
    pub name: String,
    /// The snapshot of `events` that it is at.
    pub head: i64,
    /// Its last event.
    pub head_seq: u64,
    /// The branch that it was made of.
    pub forked_from: String,
    /// The last event that it has of that one.
    pub fork_seq: u64,
    /// The one collection whose changes it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collection: Option<String>,
    /// When it was made, RFC 3339.
    pub created_at: String,
    /// The snapshot whose files it shares, while that can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<i64>,
}

/// The branches of a namespace.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BranchList {
    /// By name.
    pub branches: Vec<BranchEntry>,
}

/// A branch that was dropped.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BranchDropped {
    /// Always true.
    pub dropped: bool,
}

/// A branch that was squashed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BranchSquashed {
    /// As it is now.
    pub branch: BranchEntry,
    /// How many events of its own it had, behind those that merges and other branches go on from.
    pub events_before: u64,
    /// How many it has.
    pub events: u64,
    /// The tag of what it was; none where nothing was to be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_is_called_by_what_nothing_else_is_read_as() {
        for name in ["try", "price-2026", "a.b_c-d", "v2-prices", "x", &"n".repeat(64)] {
            assert_eq!(check_branch_name(name), Ok(()), "{name}");
        }
        for name in ["", ".", "..", "a b", "a/b", "a@b", "~1", "ä", &"n".repeat(65)] {
            assert_eq!(check_branch_name(name), Err(InvalidBranchName::Letters), "{name}");
        }
        assert_eq!(check_branch_name("main"), Err(InvalidBranchName::Main));
        for name in ["17", "99999999999999999999", "v17", "2026-11-20", "daily-x", "before-try"] {
            let refused = Err(InvalidBranchName::Point(name.to_owned()));
            assert_eq!(check_branch_name(name), refused, "{name}");
        }
    }
}
