//! Which snapshots a table keeps: pure rules, no IO.
//!
//! Recent snapshots stay in full; older ones are thinned, so that metadata stays small however
//! many commits there are. A snapshot that a branch or tag names always stays, and so do the
//! newest and those that clients hold; those that are no appends stay longer than those that are. Tables
//! that are not ours are never thinned.

pub mod expiry;
pub mod lease;
#[cfg(test)]
mod tests;

use crate::{commit::COMPACTION, metadata_file::refs};
use iceberg::spec::{Operation, SnapshotRef, TableMetadata};
use lease::LeasedSnapshots;
use std::collections::{HashMap, HashSet};

/// The table property that, set to `true`, marks a table as ours to thin.
pub const MANAGED: &str = "icecore.managed";

/// The table property that names the collection whose documents a table of ours has. Its rows are computed, so
/// nobody else writes any.
pub const COLLECTION: &str = "icecore.collection";

/// The one with the name that such a table has, for a repair that finds no list of names.
pub const COLLECTION_TABLE: &str = "icecore.collection.table";

/// Table properties that say what the service's branches of a table of ours are begin so; behind it is the name of the
/// branch. Only the service sets them.
pub const BRANCHES: &str = "icecore.branch.";

/// Snapshot summary: the branch of the service that the snapshot was made for. Those after it on the branch have it
/// as well; snapshots of `main` have none.
pub const BRANCH: &str = "icecore.branch";

/// The table property that says how long rows of a table of ours are kept. Whoever sets it has rows deleted.
pub const ROWS_KEPT: &str = "icecore.retention";

/// The one with the names of the tags that the service set and removes again, apart by spaces. Whoever sets it has
/// tags of others removed, or those of the service kept for ever.
pub const SERVICE_TAGS: &str = "icecore.tags";

/// Snapshots a table has after thinning, unless branches and tags name more of them, or clients hold
/// more.
pub const SNAPSHOTS_MAX: usize = 500;

/// How far the count may pass [`SNAPSHOTS_MAX`] before thinning runs: the slack spreads its cost
/// over that many commits.
pub const SNAPSHOTS_SLACK: usize = 50;

/// The newest snapshots, which stay in full: while a table is thinned whatever their age, when
/// snapshots expire for a day.
pub const NEWEST_IN_FULL: usize = 400;

/// The newest snapshots of the service's branches, which stay as the newest of others do. Older ones go: what is
/// written to branches takes nothing of the history of `main`.
const NEWEST_OF_BRANCHES: usize = 50;

/// When snapshots expire, those of the newest stay that were current for so long, once they no longer stay in
/// full, for [`NEWEST_MS`] after the next one came. A table whose commits are as far apart, as those of one
/// that nobody reads are, keeps all of them. Of many commits in little time none stays: each has small files
/// that it alone needs, many times as long as the merged ones.
const NEWEST_CURRENT_MS: i64 = 2 * MINUTE_MS;
const NEWEST_MS: i64 = 90 * DAY_MS;

/// The newest snapshots of `main` that are no appends: deletes, overwrites and rewrites of other engines, and
/// what retention and erasure deleted. They stay for [`CHANGES_MS`], also where appends of their age go: each
/// shows what was left of rows that were there before. Compaction of the service changes no row and comes
/// often, so it is none of them.
const CHANGES_MAX: usize = 50;
const CHANGES_MS: i64 = 7 * DAY_MS;

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;

/// Up to this age (first), one snapshot stays per so much time (second). Older ones go.
const TIERS: [(i64, i64); 3] = [(HOUR_MS, MINUTE_MS), (DAY_MS, HOUR_MS), (90 * DAY_MS, DAY_MS)];

/// Ids of the snapshots that should go at `now_ms`; none unless the table is overgrown by more than
/// what clients hold of it.
#[must_use]
pub fn snapshots_to_remove(
    metadata: &TableMetadata,
    leased: &LeasedSnapshots,
    now_ms: i64,
) -> Vec<i64> {
    if !is_overgrown(metadata) {
        return Vec::new();
    }
    let mut candidates = candidates(metadata);
    // Where leases hold a table above its bound, each commit finds it overgrown: then nothing goes until
    // it is worth a commit, and the branches and tags, which take long to find, are not looked for.
    if thin(&mut candidates, &HashSet::new(), leased, now_ms).len() <= SNAPSHOTS_SLACK {
        return Vec::new();
    }
    let named = refs::of(metadata).into_values().map(|r| r.snapshot_id).collect();
    thin(&mut candidates, &named, leased, now_ms)
}

fn candidates(metadata: &TableMetadata) -> Vec<SnapshotCandidate> {
    let is_gone = |branch: &String| metadata.snapshot_for_ref(branch).is_none();
    // Each refresh replaces what is computed: that is to such a table what appends are to others.
    let is_computed = collection_of(metadata).is_some();
    let candidate = |s: &SnapshotRef| SnapshotCandidate {
        id: s.snapshot_id(),
        parent: s.parent_snapshot_id(),
        sequence: s.sequence_number(),
        at_ms: s.timestamp_ms(),
        is_of_branch: is_of_branch(s),
        is_change: !is_computed && is_change(s),
        is_dropped: s.summary().additional_properties.get(BRANCH).is_some_and(is_gone),
    };
    metadata.snapshots().map(candidate).collect()
}

/// Whether the snapshot was made for a branch of the service, or built on such a one.
#[must_use]
pub fn is_of_branch(snapshot: &SnapshotRef) -> bool {
    snapshot.summary().additional_properties.contains_key(BRANCH)
}

/// Whether the snapshot is neither an append nor compaction of the service.
fn is_change(snapshot: &SnapshotRef) -> bool {
    let summary = snapshot.summary();
    summary.operation != Operation::Append
        && !summary.additional_properties.contains_key(COMPACTION)
}

/// Whether the table is one of ours and has so many snapshots that it is to be thinned.
#[must_use]
pub fn is_overgrown(metadata: &TableMetadata) -> bool {
    // The bound comes first: it is all that most commits pay.
    SNAPSHOTS_MAX + SNAPSHOTS_SLACK < metadata.snapshots().len() && is_managed(metadata)
}

/// Whether the table is one of ours, whose history this catalog thins.
#[must_use]
pub fn is_managed(metadata: &TableMetadata) -> bool {
    metadata.properties().get(MANAGED).is_some_and(|v| v == "true")
}

/// The first of the properties that only tables of ours have, where it is among these.
#[must_use]
pub(crate) fn mark_in(properties: &HashMap<String, String>) -> Option<&'static str> {
    [MANAGED, COLLECTION].into_iter().find(|mark| properties.contains_key(*mark))
}

/// The collection whose documents a table has; none for every other table.
#[must_use]
pub fn collection_of(metadata: &TableMetadata) -> Option<&str> {
    metadata.properties().get(COLLECTION).filter(|_| is_managed(metadata)).map(String::as_str)
}

#[derive(Clone, Copy, Debug)]
struct SnapshotCandidate {
    id: i64,
    parent: Option<i64>,
    sequence: i64,
    at_ms: i64,
    /// Whether it is of a branch of the service.
    is_of_branch: bool,
    /// Whether it is no append.
    is_change: bool,
    /// Whether that branch is gone: once it no longer stays in full, nothing needs it.
    is_dropped: bool,
}

/// What to remove of `snapshots` so that at most [`SNAPSHOTS_MAX`] stay beside what is leased.
fn thin(
    snapshots: &mut [SnapshotCandidate],
    named: &HashSet<i64>,
    leased: &LeasedSnapshots,
    now_ms: i64,
) -> Vec<i64> {
    thin_beyond(snapshots, named, leased, (now_ms, i64::MAX))
}

/// The same, where the newest stay in full only if they were the newest of all within the time
/// `in_full_ms`, which the newest still is.
fn thin_beyond(
    snapshots: &mut [SnapshotCandidate],
    named: &HashSet<i64>,
    leased: &LeasedSnapshots,
    (now_ms, in_full_ms): (i64, i64),
) -> Vec<i64> {
    // Newest first, so that the last snapshot of a minute, hour or day is the one that stays: a
    // later thinning with wider steps then keeps a subset of what this one keeps.
    snapshots.sort_unstable_by_key(|s| std::cmp::Reverse((s.sequence, s.at_ms, s.id)));
    let in_full_since_ms = now_ms.saturating_sub(in_full_ms);
    let mut taken = HashSet::new();
    let mut kept = Vec::with_capacity(snapshots.len());
    let mut removed = Vec::new();
    // They would go but for their leases, and take no place of those that stay by themselves.
    let mut only_leased = 0;
    let changes = kept_changes(snapshots, now_ms);
    let mut replaced_ms: HashMap<i64, i64> = HashMap::new();
    for snapshot in snapshots.iter() {
        let Some(parent) = snapshot.parent else { continue };
        let at_ms = replaced_ms.entry(parent).or_insert(snapshot.at_ms);
        *at_ms = snapshot.at_ms.max(*at_ms);
    }
    // Of those of branches and of the others: how many were newer, and when the next one came.
    let mut newer = [(0, i64::MAX); 2];
    for snapshot in snapshots.iter() {
        let of_branch = snapshot.is_of_branch;
        let newest = if of_branch { NEWEST_OF_BRANCHES } else { NEWEST_IN_FULL };
        let (age_rank, next_ms) = newer[usize::from(of_branch)];
        let is_among_newest = age_rank < newest;
        // Until when the snapshot was the newest of its branch. One on which none was made may be of a branch
        // that is gone.
        let until_ms = replaced_ms.get(&snapshot.id).copied().unwrap_or(next_ms);
        // The one that was current when the time began comes last: most often it stands for its day.
        let is_recent = is_among_newest && now_ms.saturating_sub(NEWEST_MS) <= until_ms;
        let was_current = NEWEST_CURRENT_MS <= until_ms.saturating_sub(snapshot.at_ms);
        let mut is_last_of_step =
            || step(snapshot.at_ms, now_ms).is_some_and(|step| taken.insert(step));
        let stays = (is_among_newest && in_full_since_ms <= snapshot.at_ms)
            || named.contains(&snapshot.id)
            || (!of_branch && is_last_of_step())
            || changes.contains(&snapshot.id)
            || (!snapshot.is_dropped
                && ((is_recent && was_current)
                    || (is_among_newest && in_full_since_ms <= until_ms)));
        newer[usize::from(of_branch)] = (age_rank + 1, snapshot.at_ms);
        if stays {
            kept.push(*snapshot);
        } else if leased.has(snapshot.id) {
            kept.push(*snapshot);
            only_leased += 1;
        } else {
            removed.push(snapshot.id);
        }
    }
    let mut excess = kept.len().saturating_sub(SNAPSHOTS_MAX + only_leased);
    for snapshot in kept.iter().skip(1).rev() {
        if excess == 0 {
            break;
        }
        let has_place = named.contains(&snapshot.id) || changes.contains(&snapshot.id);
        if !has_place && !leased.has(snapshot.id) {
            removed.push(snapshot.id);
            excess -= 1;
        }
    }
    removed
}

/// Those of the snapshots, which are in order with the newest first, that stay because they are no appends.
fn kept_changes(snapshots: &[SnapshotCandidate], now_ms: i64) -> HashSet<i64> {
    let since_ms = now_ms.saturating_sub(CHANGES_MS);
    let changes = snapshots.iter().filter(|it| it.is_change && !it.is_of_branch).take(CHANGES_MAX);
    changes.filter(|it| since_ms <= it.at_ms).map(|it| it.id).collect()
}

/// The step of time that a snapshot stands for: its width and its number; none when it is too old
/// to stand for any.
fn step(at_ms: i64, now_ms: i64) -> Option<(i64, i64)> {
    let age_ms = now_ms.saturating_sub(at_ms);
    let (_, width) = TIERS.into_iter().find(|(age_max, _)| age_ms <= *age_max)?;
    Some((width, at_ms.div_euclid(width)))
}
