//! Finds the files that removing snapshots leaves without a use.
//!
//! Its one invariant: a file that a retained snapshot refers to is never named. Where that cannot
//! be told from the snapshots at hand, the file stays.
//!
//! Of the manifest lists each snapshot has its own. A manifest is listed by many snapshots, and reading
//! all lists to find out would cost more than the files are worth. In a history that is one line a
//! manifest comes with one snapshot, is taken over by each after it, and goes once for all, so the
//! snapshots that list it are consecutive. Of a run of removed snapshots a manifest is therefore in use
//! only if the retained neighbour before the run or the one after it lists it: two lists are read for
//! the run, and of the run only lists of snapshots after which a manifest went.
//!
//! With a fork that is not so, and all retained lists are read, up to [`LISTS_MAX`]. Thinning takes away
//! the snapshots that show a fork before it takes the last that were beside it, so the table remembers
//! it by [`FORKED`].
//!
//! A data or delete file goes with the last manifest that lists it as live: what is live in a manifest that
//! goes, and in none that a retained snapshot lists, is of no use any more. Manifests are read for that
//! only where a removed snapshot may be the last with a file, which a snapshot before an append is not, and
//! those of all retained snapshots only where the neighbours lack a file.
//!
//! A list goes together with what it lists: without it nothing would find the rest again.

mod content;
pub(crate) mod reads;

use self::reads::HistoryReader;
use super::{changes::FileKey, summary::MANIFESTS_REPLACED};
use crate::{ancestors, error::CatalogError};
use iceberg::{
    TableUpdate,
    spec::{Operation, SnapshotRef, TableMetadata},
};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

/// The table property that marks a history with more than one line of snapshots (a rollback, a
/// branch with its own commits), with the highest sequence number that a snapshot off the line of
/// `main` has had. Thinning removes the snapshots that show the fork, so it stays until nothing as
/// old as that is retained.
pub(crate) const FORKED: &str = "icecore.history-forked";

/// Most manifest lists that are read to find out what a forked history still lists; thinning keeps
/// a table far below, unless tags hold more snapshots than that.
const LISTS_MAX: usize = 2_000;

/// How a table's retained snapshots hang together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SnapshotHistory {
    /// By sequence number they are one line that ends in `main`. In such a line a manifest is listed
    /// by consecutive snapshots only.
    OneLine,
    /// Snapshots up to this sequence number may be off the line, or have been.
    Forked {
        /// The highest of them.
        until: i64,
    },
}

/// What is known of a table's history before a commit.
pub(super) fn history(base: &TableMetadata) -> SnapshotHistory {
    // A mark that is no number is as old as the mark itself, or was made by hand.
    let marked = base.properties().get(FORKED);
    let marked = marked.map(|text| text.parse().unwrap_or(base.last_sequence_number()));
    let seen = (!is_one_line(base)).then(|| highest_off_main(base));
    marked.max(seen).map_or(SnapshotHistory::OneLine, |until| SnapshotHistory::Forked { until })
}

/// The update that makes the mark say what holds once `removed` are gone, if it does not yet.
pub(super) fn mark(
    base: &TableMetadata,
    history: SnapshotHistory,
    removed: &[i64],
) -> Option<TableUpdate> {
    let wanted = match history {
        SnapshotHistory::OneLine => None,
        // As long as a snapshot stays that is as old as one beside the line, a list may be shared.
        SnapshotHistory::Forked { until } => {
            let removed: HashSet<i64> = removed.iter().copied().collect();
            let is_old = |s: &SnapshotRef| s.sequence_number() <= until;
            let stays = |s: &&SnapshotRef| !removed.contains(&s.snapshot_id());
            base.snapshots().filter(stays).any(is_old).then(|| until.to_string())
        }
    };
    if base.properties().get(FORKED) == wanted.as_ref() {
        return None;
    }
    Some(match wanted {
        Some(until) => {
            TableUpdate::SetProperties { updates: HashMap::from([(FORKED.to_owned(), until)]) }
        }
        None => TableUpdate::RemoveProperties { removals: vec![FORKED.to_owned()] },
    })
}

/// Whether the snapshots show no fork.
fn is_one_line(base: &TableMetadata) -> bool {
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
    ends_in_main && grows
}

/// The highest sequence number of those that `main` is not seen to come from: too high a number
/// only keeps the mark for longer.
fn highest_off_main(base: &TableMetadata) -> i64 {
    let main = ancestors::of(base, base.current_snapshot_id());
    let main: HashSet<i64> = main.map(|s| s.snapshot_id()).collect();
    let off = base.snapshots().filter(|s| !main.contains(&s.snapshot_id()));
    off.map(|s| s.sequence_number()).max().unwrap_or_default()
}

/// Manifests that go with removed snapshots.
#[derive(Debug, Default)]
struct UnlistedManifests {
    manifests: BTreeSet<String>,
    /// Whether files that are live in them may be of no use without them.
    may_drop_files: bool,
    /// Manifests of the retained snapshots that most likely still need such files.
    retained: BTreeSet<String>,
    /// All others that are retained, where their manifests are not known yet.
    others: Vec<SnapshotRef>,
}

/// Files that nothing refers to once snapshots are gone.
#[derive(Debug, Default)]
pub(super) struct UnneededFiles {
    /// Manifest lists, and manifests that only they list, as the table spells them.
    pub(super) metadata: Vec<String>,
    /// Data and delete files that are live only in these, in their normal form.
    pub(super) content: HashMap<FileKey, String>,
    /// Why none is named: a file of the history is damaged or missing.
    pub(super) damage: Option<CatalogError>,
}

/// The files that nothing refers to once `removed` are gone; none of them where a file that tells so is
/// damaged or missing.
///
/// # Errors
/// The store refuses or does not answer: nothing is to be removed then.
pub(super) async fn files(
    reader: &mut HistoryReader<'_>,
    removed: &[i64],
    history: SnapshotHistory,
) -> Result<UnneededFiles, CatalogError> {
    let base = reader.base;
    let removed: HashSet<i64> = removed.iter().copied().collect();
    let mut unneeded = match listed_files(reader, &removed, history).await {
        // They only take up space; the bound of the history matters more.
        Err(error) if error.is_damage() => {
            return Ok(UnneededFiles { damage: Some(error), ..UnneededFiles::default() });
        }
        read => read?,
    };
    let (gone, kept): (Vec<&SnapshotRef>, Vec<&SnapshotRef>) =
        base.snapshots().partition(|s| removed.contains(&s.snapshot_id()));
    let in_use: HashSet<&str> = kept.iter().map(|s| s.manifest_list()).collect();
    let lists: BTreeSet<&str> = gone.iter().map(|s| s.manifest_list()).collect();
    let lists = lists.into_iter().filter(|list| !in_use.contains(list));
    unneeded.metadata.extend(lists.map(str::to_owned));
    Ok(unneeded)
}

/// The manifests that only removed snapshots list, and what goes with them.
async fn listed_files(
    reader: &mut HistoryReader<'_>,
    removed: &HashSet<i64>,
    history: SnapshotHistory,
) -> Result<UnneededFiles, CatalogError> {
    let unlisted = match history {
        SnapshotHistory::OneLine => unlisted_manifests(reader, removed).await?,
        SnapshotHistory::Forked { .. } => unlisted_anywhere(reader, removed).await?,
    };
    let content = content::unneeded(reader, &unlisted).await?;
    let metadata = unlisted.manifests.into_iter().collect();
    Ok(UnneededFiles { metadata, content, damage: None })
}

/// Manifests that a removed snapshot lists and neither its retained neighbour before nor the one
/// after.
async fn unlisted_manifests(
    reader: &mut HistoryReader<'_>,
    removed: &HashSet<i64>,
) -> Result<UnlistedManifests, CatalogError> {
    let base = reader.base;
    let line = by_sequence(base);
    let is_removed = |s: &SnapshotRef| removed.contains(&s.snapshot_id());
    let mut unlisted = UnlistedManifests::default();
    let mut start = 0;
    while start < line.len() {
        if !is_removed(&line[start]) {
            start += 1;
            continue;
        }
        // One run: removed snapshots from `start` up to the retained one at `end`.
        let end = (start..line.len()).find(|i| !is_removed(&line[*i])).unwrap_or(line.len());
        let Some(after) = line.get(end) else {
            // The newest snapshot always stays; without it there is nothing to compare with.
            break;
        };
        let mut candidates = BTreeSet::new();
        for (snapshot, next) in line[start..end].iter().zip(&line[start + 1..=end]) {
            // What `snapshot` lists and `next` does not went for good between the two.
            if may_drop_manifests(snapshot, next) {
                candidates.extend(reader.listed(std::slice::from_ref(snapshot)).await?);
                unlisted.may_drop_files |= may_drop_files(snapshot, next);
            }
        }
        if !candidates.is_empty() {
            // The one after keeps what is still live; the one before keeps what came before the run.
            let before = start.checked_sub(1).map(|i| &line[i]);
            for neighbour in before.into_iter().chain([after]) {
                for manifest in reader.listed(std::slice::from_ref(neighbour)).await? {
                    candidates.remove(&manifest);
                    unlisted.retained.insert(manifest);
                }
            }
        }
        unlisted.manifests.extend(candidates);
        start = end + 1;
    }
    // A client's snapshot may list again what one before it did not; the current rows need it.
    if let Some(head) = base.current_snapshot().filter(|_| !unlisted.manifests.is_empty()) {
        unlisted.retained.extend(reader.listed(std::slice::from_ref(head)).await?);
    }
    unlisted.manifests.retain(|manifest| !unlisted.retained.contains(manifest));
    unlisted.others = line.into_iter().filter(|s| !is_removed(s)).collect();
    Ok(unlisted)
}

/// Manifests that a removed snapshot lists and no retained one, wherever it hangs.
async fn unlisted_anywhere(
    reader: &mut HistoryReader<'_>,
    removed: &HashSet<i64>,
) -> Result<UnlistedManifests, CatalogError> {
    let base = reader.base;
    let (removed, retained): (Vec<SnapshotRef>, Vec<SnapshotRef>) =
        by_sequence(base).into_iter().partition(|s| removed.contains(&s.snapshot_id()));
    if LISTS_MAX < removed.len() + retained.len() {
        tracing::warn!(
            table = %base.uuid(),
            "more than {LISTS_MAX} snapshots with a fork: manifests of removed ones are left behind"
        );
        return Ok(UnlistedManifests::default());
    }
    let mut manifests = reader.listed(&removed).await?;
    let retained = reader.listed(&retained).await?;
    manifests.retain(|manifest| !retained.contains(manifest));
    Ok(UnlistedManifests { manifests, may_drop_files: true, retained, others: Vec::new() })
}

/// Whether a manifest may be listed by `snapshot` and no longer by `next`. Most appends only add
/// to the list and say so in their summary: then the list need not be read.
fn may_drop_manifests(snapshot: &SnapshotRef, next: &SnapshotRef) -> bool {
    let adjacent = next.parent_snapshot_id() == Some(snapshot.snapshot_id());
    let replaced = next.summary().additional_properties.get(MANIFESTS_REPLACED);
    !(adjacent && replaced.is_some_and(|count| count == "0"))
}

/// Whether a file may be live in `snapshot` and no longer in `next`.
fn may_drop_files(snapshot: &SnapshotRef, next: &SnapshotRef) -> bool {
    let adjacent = next.parent_snapshot_id() == Some(snapshot.snapshot_id());
    !(adjacent && next.summary().operation == Operation::Append)
}

fn by_sequence(base: &TableMetadata) -> Vec<SnapshotRef> {
    let mut line: Vec<SnapshotRef> = base.snapshots().map(Arc::clone).collect();
    line.sort_unstable_by_key(|s| s.sequence_number());
    line
}
