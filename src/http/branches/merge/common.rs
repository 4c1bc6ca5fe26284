//! The last event that two branches have in common: where the changes of a merge begin.

use icecore_lake::branch::{Branch, BranchMerge};
use icecore_schemas::point::MAIN_BRANCH;

/// The last event in common of a branch and the one that it is merged into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http::branches) struct CommonPoint {
    /// As the branch counts.
    pub(in crate::http::branches) seq: u64,
    /// As the other one counts.
    pub(in crate::http::branches) into_seq: u64,
    /// Whether both were the same then: it is a fork and no merge.
    pub(in crate::http::branches) is_fork: bool,
}

impl CommonPoint {
    /// After a merge.
    pub(super) fn of_merge(merge: &BranchMerge) -> Self {
        Self { seq: merge.seq, into_seq: merge.into_seq, is_fork: false }
    }

    fn of_fork(seq: u64) -> Self {
        Self { seq, into_seq: seq, is_fork: true }
    }
}

/// A branch, and up to which event it is in the history of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ancestor<'a> {
    name: &'a str,
    /// When it was made; `main` before all others.
    made_at: i64,
    until: u64,
}

/// The newest point that `branch` and `into` have in common, given all branches; none where neither comes of the
/// other one nor both of a third.
pub(super) fn common_point(
    branches: &[Branch],
    branch: &Branch,
    into: &str,
) -> Option<CommonPoint> {
    let made = branches.iter().find(|other| other.name == into);
    // A merge into a branch of this name that was dropped since is none into this one.
    let begins = made.map_or(0, |made| made.fork_seq);
    let merged = branch.merges.iter().filter(|merge| merge.into == into && begins < merge.into_seq);
    let merged = merged.map(CommonPoint::of_merge);
    let forked = fork_point(branches, branch, into);
    merged.chain(forked).max_by_key(|point| point.seq)
}

/// The same by forks alone, and by merges into what both come of.
fn fork_point(branches: &[Branch], branch: &Branch, into: &str) -> Option<CommonPoint> {
    let ours = ancestors(branches, into);
    let (theirs, until) = ancestors(branches, &branch.name).into_iter().find_map(|theirs| {
        let is_it =
            |ours: &&Ancestor<'_>| (ours.name, ours.made_at) == (theirs.name, theirs.made_at);
        let ours = ours.iter().find(is_it)?;
        Some((theirs, ours.until))
    })?;
    let forked = CommonPoint::of_fork(theirs.until.min(until));
    // Where `into` was made after a merge into the branch that it was made of, it has that merge.
    let merged = branch
        .merges
        .iter()
        .filter(|merge| merge.into == theirs.name && merge.into_seq <= until && merge.into != into);
    merged.map(CommonPoint::of_merge).chain([forked]).max_by_key(|point| point.seq)
}

/// A branch and all that it comes of as far as that is there, the nearest first.
fn ancestors<'a>(branches: &'a [Branch], name: &'a str) -> Vec<Ancestor<'a>> {
    let mut all = Vec::new();
    let (mut name, mut until, mut made_before) = (name, u64::MAX, i64::MAX);
    while all.len() <= branches.len() {
        // Another one of this name may be there, which was made later.
        let is_it = |branch: &&Branch| branch.name == name && branch.created_at <= made_before;
        let branch = branches.iter().find(is_it).filter(|_| name != MAIN_BRANCH);
        let is_main = (name == MAIN_BRANCH).then_some(i64::MIN);
        let Some(made_at) = branch.map(|branch| branch.created_at).or(is_main) else { break };
        all.push(Ancestor { name, made_at, until });
        let Some(branch) = branch else { break };
        name = &branch.forked_from;
        until = until.min(branch.fork_seq);
        made_before = branch.created_at;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Branches as `name < parent @ fork`, with merges as `into seq:into_seq`; one made after the other.
    fn branches(text: &str) -> Vec<Branch> {
        let number = |text: &str| text.parse::<u64>().unwrap();
        let branch = |(at, line): (usize, &str)| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let merges = words[5..].chunks(2).map(|merge| {
                let (seq, into_seq) = merge[1].split_once(':').unwrap();
                let (seq, into_seq) = (number(seq), number(into_seq));
                BranchMerge { into: merge[0].to_owned(), seq, into_seq }
            });
            Branch {
                name: words[0].to_owned(),
                forked_from: words[2].to_owned(),
                fork_seq: number(words[4]),
                created_at: i64::try_from(at).unwrap(),
                collection: None,
                merges: merges.collect(),
            }
        };
        text.trim().lines().enumerate().map(branch).collect()
    }

    #[test]
    fn the_last_event_in_common_is_the_newest_merge_or_fork() {
        let all = branches(
            "a < main @ 10
             b < main @ 20 main 25:40
             c < a @ 12 a 15:14
             d < main @ 50
             e < gone @ 7
             f < e @ 9",
        );
        for (name, into, expected) in [
            ("a", "main", Some((10, 10, true))),
            ("b", "main", Some((25, 40, false))),
            ("a", "b", Some((10, 10, true))),
            ("b", "a", Some((10, 10, true))),
            ("c", "main", Some((10, 10, true))),
            ("c", "a", Some((15, 14, false))),
            ("a", "c", Some((12, 12, true))),
            // It was made of `main` with the merge.
            ("b", "d", Some((25, 40, false))),
            ("d", "b", Some((20, 20, true))),
            ("e", "main", None),
            ("f", "e", Some((9, 9, true))),
        ] {
            let branch = all.iter().find(|branch| branch.name == name).unwrap();
            let found = common_point(&all, branch, into);
            let found = found.map(|point| (point.seq, point.into_seq, point.is_fork));
            assert_eq!(found, expected, "{name} into {into}");
        }
    }

    #[test]
    fn a_branch_that_was_made_again_is_another_one() {
        let all = branches(
            "c < p @ 12 p 15:30
             p < main @ 40",
        );
        assert_eq!(common_point(&all, &all[0], "main"), None);
        assert_eq!(common_point(&all, &all[0], "p"), None);
    }
}
