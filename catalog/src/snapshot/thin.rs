//! What thinning and expiry take from a table's history.
//!
//! Working that out may read every manifest of the history, while others commit. What was worked out on
//! an earlier state still holds when nothing that came since needs what goes: to tell that, only new
//! lists and manifests are read.

use super::{
    PLANNER_GRACE_MS, READER_GRACE_MS,
    changes::FileKey,
    obsolete::{self, SnapshotHistory, reads::HistoryReader},
};
use crate::{
    error::CatalogError,
    location::Location,
    metastore::ObsoleteFile,
    retention::{self, expiry::ExpiredHistory, lease::LeasedSnapshots},
};
use iceberg::{
    TableUpdate,
    spec::{SnapshotRef, SnapshotReference, TableMetadata},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

/// About the most files that one thinning queues, while others wait for its transaction; a single snapshot
/// may be the last with more.
const FILES_MAX: usize = 20_000;

/// Snapshots that go, and files that nothing retained refers to without them, in their normal form.
#[derive(Debug)]
pub(crate) struct SnapshotThinning {
    pub(crate) removed: Vec<i64>,
    /// Branches and tags that go, as they were found.
    pub(crate) refs: BTreeMap<String, SnapshotReference>,
    /// Why files are left behind.
    pub(crate) damage: Option<CatalogError>,
    history: SnapshotHistory,
    /// Whether they go for the bound of the history, which may be kept by then.
    is_for_bound: bool,
    /// Manifest lists and manifests.
    metadata: BTreeSet<String>,
    /// Data and delete files.
    content: HashMap<FileKey, String>,
}

/// Works out what a table of ours has too much; none when its history is within its bounds. Reads
/// manifest lists and manifests, and changes nothing.
///
/// # Errors
/// The store refuses or does not answer.
pub(crate) async fn thin(
    reader: HistoryReader<'_>,
    leased: &LeasedSnapshots,
    now_ms: i64,
) -> Result<Option<SnapshotThinning>, CatalogError> {
    let snapshots = retention::snapshots_to_remove(reader.base, leased, now_ms);
    let gone = ExpiredHistory { snapshots, ..ExpiredHistory::default() };
    remove(reader, gone, true).await
}

/// Works out what goes with snapshots, branches and tags that have expired; none when none have. Reads
/// manifest lists and manifests, and changes nothing.
///
/// # Errors
/// The store refuses or does not answer.
pub(crate) async fn expire(
    reader: HistoryReader<'_>,
    expired: ExpiredHistory,
) -> Result<Option<SnapshotThinning>, CatalogError> {
    remove(reader, expired, false).await
}

async fn remove(
    mut reader: HistoryReader<'_>,
    gone: ExpiredHistory,
    is_for_bound: bool,
) -> Result<Option<SnapshotThinning>, CatalogError> {
    if gone.is_empty() {
        return Ok(None);
    }
    let base = reader.base;
    let ExpiredHistory { snapshots: mut removed, refs } = gone;
    let history = history(base);
    let mut files = obsolete::files(&mut reader, &removed, history).await?;
    while FILES_MAX < files.metadata.len() + files.content.len() && 1 < removed.len() {
        // The others go in the next thinning.
        removed.truncate(removed.len() / 2);
        files = obsolete::files(&mut reader, &removed, history).await?;
    }
    // A registered table may list files that lie elsewhere and belong to somebody else. The queue has
    // locations in their normal form.
    let own = Location::parse(base.location());
    let admitted = |file: String| Some(own.as_ref()?.admit(&file).ok()?.to_string());
    let metadata = files.metadata.into_iter().filter_map(admitted).collect();
    let content = files.content.into_iter();
    let content = content.filter_map(|(key, file)| Some((key, admitted(file)?))).collect();
    let damage = files.damage;
    Ok(Some(SnapshotThinning { removed, refs, damage, history, is_for_bound, metadata, content }))
}

/// How the snapshots of a table hang together. Of tables of others nothing is known of what their
/// writers removed before.
fn history(base: &TableMetadata) -> SnapshotHistory {
    match retention::is_managed(base) {
        true => obsolete::history(base),
        false => SnapshotHistory::Forked { until: base.last_sequence_number() },
    }
}

impl SnapshotThinning {
    /// How many files nothing needs any more.
    pub(crate) fn files(&self) -> usize {
        self.metadata.len() + self.content.len()
    }

    /// Makes what was worked out for `before` hold for the reader's state, of which `named` are the
    /// snapshots with a branch or tag that stays. False if it does not: it is to be worked out anew then.
    ///
    /// # Errors
    /// The store refuses or does not answer.
    pub(crate) async fn follow(
        &mut self,
        before: &TableMetadata,
        mut reader: HistoryReader<'_>,
        named: &HashSet<i64>,
    ) -> Result<bool, CatalogError> {
        let base = reader.base;
        let goes = |id: &i64| base.snapshot_by_id(*id).is_some() && !named.contains(id);
        if base.location() != before.location()
            || (self.is_for_bound && !retention::is_overgrown(base))
            || !self.removed.iter().all(goes)
        {
            return Ok(false);
        }
        match (self.history, history(base)) {
            // Beside a fork every list was read, however far the fork reaches by now.
            (SnapshotHistory::Forked { .. }, now @ SnapshotHistory::Forked { .. }) => {
                self.history = now;
            }
            (SnapshotHistory::OneLine, SnapshotHistory::OneLine) => (),
            _ => return Ok(false),
        }
        match self.leave_needed(before, &mut reader).await {
            Err(cause) if cause.is_damage() => Ok(false),
            told => told,
        }
    }

    /// Leaves the data and delete files that snapshots since `before` have; false if they list a
    /// manifest that was to go, or one that stays has a list that was to go.
    async fn leave_needed(
        &mut self,
        before: &TableMetadata,
        reader: &mut HistoryReader<'_>,
    ) -> Result<bool, CatalogError> {
        let own = reader.own()?;
        let has = |file: &str| own.admit(file).is_ok_and(|it| self.metadata.contains(it.as_str()));
        let stays = |it: &&SnapshotRef| !self.removed.contains(&it.snapshot_id());
        if reader.base.snapshots().filter(stays).any(|it| has(it.manifest_list())) {
            return Ok(false);
        }
        // A client may remove a snapshot and add another of its id.
        let is_new = |it: &&SnapshotRef| {
            let old = before.snapshot_by_id(it.snapshot_id());
            old.is_none_or(|old| old.manifest_list() != it.manifest_list())
        };
        let new: Vec<SnapshotRef> =
            reader.base.snapshots().filter(is_new).map(Arc::clone).collect();
        let mut listed = reader.listed(&new).await?;
        // What the head had then was looked at.
        let head: Vec<SnapshotRef> =
            before.current_snapshot().map(Arc::clone).into_iter().collect();
        for manifest in reader.listed(&head).await? {
            listed.remove(&manifest);
        }
        if listed.iter().any(|manifest| has(manifest)) {
            return Ok(false);
        }
        reader.take_out_live(&mut self.content, &listed).await?;
        Ok(true)
    }

    /// The updates that carry it out on the state that it holds for.
    pub(crate) fn updates(&self, base: &TableMetadata) -> Vec<TableUpdate> {
        let is_ours = retention::is_managed(base);
        let mark = is_ours.then(|| obsolete::mark(base, self.history, &self.removed)).flatten();
        let refs = self.refs.keys().cloned();
        let refs = refs.map(|ref_name| TableUpdate::RemoveSnapshotRef { ref_name });
        let removal = TableUpdate::RemoveSnapshots { snapshot_ids: self.removed.clone() };
        let removal = (!self.removed.is_empty()).then_some(removal);
        mark.into_iter().chain(refs).chain(removal).collect()
    }

    /// What to delete, and when. A reader has [`READER_GRACE_MS`] from when a snapshot was current last,
    /// and a planner of a snapshot by its id has [`PLANNER_GRACE_MS`] from now.
    pub(crate) fn obsolete(self, base: &TableMetadata, now_ms: i64) -> Vec<ObsoleteFile> {
        let planned_ms = now_ms.saturating_add(PLANNER_GRACE_MS);
        let read_ms = self.current_until_ms(base, now_ms).saturating_add(READER_GRACE_MS);
        let metadata = self.metadata.into_iter().map(|file| (file, planned_ms));
        let content = self.content.into_values().map(|file| (file, read_ms.max(planned_ms)));
        let file =
            |(location, not_before_ms): (String, i64)| ObsoleteFile { location, not_before_ms };
        metadata.chain(content).map(file).collect()
    }

    /// Until when the newest of the snapshots was current at most. Beside a fork that is not known: a branch
    /// that is gone may have ended in one of them until now.
    fn current_until_ms(&self, base: &TableMetadata, now_ms: i64) -> i64 {
        if self.history != SnapshotHistory::OneLine {
            return now_ms;
        }
        let removed: HashSet<i64> = self.removed.iter().copied().collect();
        let (gone, stay): (Vec<&SnapshotRef>, Vec<&SnapshotRef>) =
            base.snapshots().partition(|it| removed.contains(&it.snapshot_id()));
        let newest = gone.iter().map(|it| it.sequence_number()).max();
        let later = stay.iter().filter(|it| newest < Some(it.sequence_number()));
        later.map(|it| it.timestamp_ms()).min().unwrap_or(now_ms).min(now_ms)
    }
}

#[cfg(test)]
mod tests;
