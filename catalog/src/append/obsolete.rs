//! Finds the files that removing snapshots leaves without a use.
//!
//! Its one invariant: a file that a retained snapshot refers to is never named. Where that cannot
//! be told from the snapshots at hand, the file stays.

use super::{manifests, summary::MANIFESTS_REPLACED};
use crate::{error::CatalogError, storage::Storage};
use iceberg::spec::{SnapshotRef, TableMetadata};
use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

/// The table property that marks a history with more than one line of snapshots (a rollback, a
/// branch with its own commits). It is set while the fork can still be seen, because thinning
/// removes the snapshots that show it, and never taken away.
pub(super) const FORKED: &str = "icecore.history-forked";

/// Whether [`FORKED`] is set.
pub(super) fn is_marked_forked(base: &TableMetadata) -> bool {
    base.properties().contains_key(FORKED)
}

/// Whether the table's snapshots, by sequence number, are anything but one line that ends in
/// `main`. In such a line a manifest is listed by consecutive snapshots only.
pub(super) fn is_forked(base: &TableMetadata) -> bool {
    if is_marked_forked(base) {
        return true;
    }
    let line = by_sequence(base);
    let ends_in_main = line.last().map(|s| s.snapshot_id()) == base.current_snapshot_id();
    let grows = line.windows(2).all(|pair| {
        let (before, after) = (&pair[0], &pair[1]);
        // A parent that is gone was removed by thinning while the line was whole, and then there
        // is a gap in the sequence numbers too.
        let gap = after.sequence_number() - before.sequence_number();
        let follows = after.parent_snapshot_id().is_some_and(|parent| {
            parent == before.snapshot_id() || (gap > 1 && base.snapshot_by_id(parent).is_none())
        });
        gap > 0 && follows
    });
    !(ends_in_main && grows)
}

/// Locations of the files that nothing refers to once `removed` are gone: their manifest lists
/// and, unless the history is forked, the manifests that only they list.
pub(super) async fn files(
    storage: &Storage,
    base: &TableMetadata,
    removed: &[i64],
    forked: bool,
) -> Vec<String> {
    let removed: HashSet<i64> = removed.iter().copied().collect();
    let in_use: HashSet<&str> = base
        .snapshots()
        .filter(|s| !removed.contains(&s.snapshot_id()))
        .map(|s| s.manifest_list())
        .collect();
    let mut files: BTreeSet<String> = base
        .snapshots()
        .filter(|s| removed.contains(&s.snapshot_id()))
        .map(|s| s.manifest_list())
        .filter(|list| !in_use.contains(list))
        .map(str::to_owned)
        .collect();
    if !forked {
        match unlisted_manifests(storage, base, &removed).await {
            Ok(manifests) => files.extend(manifests),
            // They only take up space; the commit matters more.
            Err(error) => tracing::warn!(
                table = %base.uuid(),
                error = &error as &dyn std::error::Error,
                "manifests of removed snapshots are left behind"
            ),
        }
    }
    // A registered table may list files that lie elsewhere and belong to somebody else.
    let own = format!("{}/", base.location());
    files.into_iter().filter(|file| file.starts_with(&own)).collect()
}

/// Manifests that a removed snapshot lists and neither its retained neighbour before nor the one
/// after.
async fn unlisted_manifests(
    storage: &Storage,
    base: &TableMetadata,
    removed: &HashSet<i64>,
) -> Result<BTreeSet<String>, CatalogError> {
    let line = by_sequence(base);
    let is_removed = |s: &SnapshotRef| removed.contains(&s.snapshot_id());
    let mut unlisted = BTreeSet::new();
    let mut start = 0;
    while start < line.len() {
        if !is_removed(&line[start]) {
            start += 1;
            continue;
        }
        let end = (start..line.len()).find(|i| !is_removed(&line[*i])).unwrap_or(line.len());
        let Some(after) = line.get(end) else {
            // The newest snapshot always stays; without it there is nothing to compare with.
            break;
        };
        let mut candidates = BTreeSet::new();
        for (snapshot, next) in line[start..end].iter().zip(&line[start + 1..=end]) {
            if may_drop_manifests(snapshot, next) {
                candidates.extend(listed(storage, base, snapshot).await?);
            }
        }
        if !candidates.is_empty() {
            let before = start.checked_sub(1).map(|i| &line[i]);
            for neighbour in before.into_iter().chain([after]) {
                for manifest in listed(storage, base, neighbour).await? {
                    candidates.remove(&manifest);
                }
            }
        }
        unlisted.extend(candidates);
        start = end + 1;
    }
    Ok(unlisted)
}

/// Whether a manifest may be listed by `snapshot` and no longer by `next`. Most appends only add
/// to the list and say so in their summary: then the list need not be read.
fn may_drop_manifests(snapshot: &SnapshotRef, next: &SnapshotRef) -> bool {
    let adjacent = next.parent_snapshot_id() == Some(snapshot.snapshot_id());
    let replaced = next.summary().additional_properties.get(MANIFESTS_REPLACED);
    !(adjacent && replaced.is_some_and(|count| count == "0"))
}

async fn listed(
    storage: &Storage,
    base: &TableMetadata,
    snapshot: &SnapshotRef,
) -> Result<Vec<String>, CatalogError> {
    let manifests = manifests::read_list(storage, base, snapshot).await?;
    Ok(manifests.into_iter().map(|m| m.manifest_path).collect())
}

fn by_sequence(base: &TableMetadata) -> Vec<SnapshotRef> {
    let mut line: Vec<SnapshotRef> = base.snapshots().map(Arc::clone).collect();
    line.sort_unstable_by_key(|s| s.sequence_number());
    line
}
