//! The rows that a table has, held against those that its commits say it has.
//!
//! Every commit of the service carries the sum of the table's rows on from the snapshot before it. What
//! another engine commits has no sum: its snapshot is a basis, from which the next ones count, and the
//! rows that it added and removed are found out here, from the files in which it differs from its parent.
//!
//! Its one invariant: a row is counted as another engine's, or as removed, only where a retained snapshot
//! shows that. What nobody can tell any more is said to begin anew, and is never made to fit.

use crate::table::{
    deletes::RowDeletes,
    file_columns::FileColumns,
    reader::{self, ReadError},
    row_sum::{RowKeys, sum_of},
};
use futures::TryStreamExt;
use iceberg::spec::{DataFileFormat, ManifestFile, SnapshotRef};
use icecore_catalog::{
    ancestors,
    commit::FIRST_SEQ,
    metastore::{RowAccount, RowCheckpoint},
    row_sum::{RecordedSums, RowChange, RowSum},
    scan::{
        ManifestSelection, ManifestSource, ScanPlan, deletes::DeleteIndex, filter::Filter,
        manifests::PlannedFile,
    },
};
use std::{
    collections::{HashMap, HashSet},
    pin::pin,
    sync::Arc,
};
use xxhash_rust::xxh3::xxh3_128;

/// Most commits of other engines whose rows are found out at a time, each from its own files.
const FOREIGN_MAX: usize = 1000;

/// What was found of a table's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowFindings {
    /// The rows that the current snapshot has.
    pub table: RowSum,
    /// The rows that its commits say it has.
    pub expected: RowSum,
    /// The rows that the table had before sums were kept.
    pub opening: RowSum,
    /// The rows that other engines added.
    pub foreign: RowSum,
    /// The rows that were removed.
    pub removed: RowSum,
    /// Whether the sums begin with what was read now, since it is not known what came before.
    pub begins: bool,
    /// The oldest retained snapshot that has other rows than its commits say.
    pub parts_at: Option<i64>,
    /// How many snapshots were read whole.
    pub checked_snapshots: u64,
    /// What is worth to be noted for the next time.
    pub checkpoint: Option<RowCheckpoint>,
}

impl RowFindings {
    /// Whether the table has the rows that its commits say, and all rows of the log up to its watermark
    /// that nobody removed.
    #[must_use]
    pub fn agree(&self, acked: RowSum) -> bool {
        let due = self.opening.merge(acked).merge(self.foreign).minus(self.removed);
        self.table == self.expected && self.table == due
    }
}

/// Reads the current snapshot of a table and compares its rows with what the commits say; where they
/// differ, finds the oldest retained snapshot that is not as it was committed. `account` is that of the
/// very version of the table.
///
/// # Errors
/// [`ReadError`]
pub async fn check(
    source: ManifestSource<'_>,
    keys: RowKeys,
    account: &RowAccount,
) -> Result<RowFindings, ReadError> {
    let Some(head) = source.metadata.current_snapshot() else {
        return Ok(RowHistory::default().findings(RowSum::default(), RecordedSums::NOTHING));
    };
    let recorded = RecordedSums::of(head);
    let history = explained(source, keys, account, head).await?;
    let table = of_snapshot(source, keys, head.snapshot_id()).await?;
    let Some(history) = history else { return Ok(beginning(table, recorded, account.acked)) };
    let mut findings = history.findings(table, recorded);
    if findings.table != findings.expected {
        history.find_first(source, keys, head.snapshot_id(), &mut findings).await?;
        findings.checkpoint = None;
    }
    Ok(findings)
}

/// What the account lacks of other engines' commits, read from the files that these changed while their
/// snapshots are retained; none where it lacks nothing, or nobody can tell.
///
/// # Errors
/// [`ReadError`]
pub async fn settle(
    source: ManifestSource<'_>,
    keys: RowKeys,
    account: &RowAccount,
) -> Result<Option<RowCheckpoint>, ReadError> {
    let Some(head) = source.metadata.current_snapshot() else { return Ok(None) };
    let history = explained(source, keys, account, head).await?;
    let found = history.and_then(|history| history.checkpoint(RecordedSums::of(head)));
    Ok(found.filter(|found| account.checkpoint != Some(*found)))
}

/// The sums of a table of which nobody knows what its rows were before.
fn beginning(table: RowSum, recorded: RecordedSums, acked: RowSum) -> RowFindings {
    let checkpoint = recorded.basis.map(|basis| RowCheckpoint {
        basis,
        rows: table.minus(recorded.rows),
        opening: table.merge(recorded.removed).minus(acked),
        foreign: RowSum::default(),
        removed: RowSum::default(),
    });
    let opening = checkpoint.map_or(RowSum::default(), |checkpoint| checkpoint.opening);
    RowFindings {
        table,
        expected: table,
        opening,
        foreign: RowSum::default(),
        removed: recorded.removed,
        begins: true,
        parts_at: None,
        checked_snapshots: 1,
        checkpoint,
    }
}

/// What is known of snapshots without a sum of their own.
#[derive(Clone, Debug, Default)]
struct RowHistory {
    /// The rows of each, by its id.
    rows: HashMap<i64, RowSum>,
    /// Up to the last of them.
    opening: RowSum,
    foreign: RowSum,
    removed: RowSum,
}

impl RowHistory {
    /// The rows of a snapshot that says this of them.
    fn total(&self, recorded: RecordedSums) -> Option<RowSum> {
        match recorded.basis {
            None => Some(recorded.rows),
            Some(basis) => Some(self.rows.get(&basis)?.merge(recorded.rows)),
        }
    }

    /// What is found of a table with these rows.
    fn findings(&self, table: RowSum, recorded: RecordedSums) -> RowFindings {
        RowFindings {
            table,
            expected: self.total(recorded).unwrap_or_default(),
            opening: self.opening,
            foreign: self.foreign,
            removed: self.removed.merge(recorded.removed),
            begins: false,
            parts_at: None,
            checked_snapshots: 1,
            checkpoint: self.checkpoint(recorded),
        }
    }

    /// What is known up to the basis of a snapshot that says this of its rows.
    fn checkpoint(&self, recorded: RecordedSums) -> Option<RowCheckpoint> {
        let basis = recorded.basis?;
        Some(RowCheckpoint {
            basis,
            rows: *self.rows.get(&basis)?,
            opening: self.opening,
            foreign: self.foreign,
            removed: self.removed,
        })
    }

    /// Bisects for the oldest ancestor of `head` that is not as it was committed: files that are wrong
    /// in a snapshot are so in those that were built on it. Those before the first known sum are left out.
    async fn find_first(
        &self,
        source: ManifestSource<'_>,
        keys: RowKeys,
        head: i64,
        findings: &mut RowFindings,
    ) -> Result<(), ReadError> {
        let chain: Vec<(i64, RowSum)> = ancestors::of(source.metadata, Some(head))
            .map_while(|made| Some((made.snapshot_id(), self.total(RecordedSums::of(made))?)))
            .collect();
        let (mut wrong, mut right) = (0, chain.len());
        while wrong + 1 < right {
            let middle = wrong.midpoint(right);
            let (id, expected) = chain[middle];
            findings.checked_snapshots += 1;
            match of_snapshot(source, keys, id).await? == expected {
                true => right = middle,
                false => wrong = middle,
            }
        }
        findings.parts_at = chain.get(wrong).map(|(id, _)| *id);
        Ok(())
    }
}

/// What is known of the snapshots that `head` counts from, found out for those that the account does not
/// know; none where one of them, or its parent, is not retained any more.
async fn explained(
    source: ManifestSource<'_>,
    keys: RowKeys,
    account: &RowAccount,
    head: &SnapshotRef,
) -> Result<Option<RowHistory>, ReadError> {
    let table = source.metadata;
    let checkpoint = account.checkpoint;
    let is_known = |id: i64| checkpoint.is_some_and(|checkpoint| checkpoint.basis == id);
    let mut unknown: Vec<(&SnapshotRef, Option<&SnapshotRef>)> = Vec::new();
    let mut basis = RecordedSums::of(head).basis;
    while let Some(id) = basis.filter(|id| !is_known(*id)) {
        let Some(made) = table.snapshot_by_id(id) else { return Ok(None) };
        // Rows of the log from before sums were kept are not another engine's.
        if made.summary().additional_properties.contains_key(FIRST_SEQ) {
            return Ok(None);
        }
        let parent = made.parent_snapshot_id().map(|parent| table.snapshot_by_id(parent));
        let parent = match parent {
            Some(None) => return Ok(None),
            Some(parent) => parent,
            None => None,
        };
        if FOREIGN_MAX <= unknown.len() {
            return Ok(None);
        }
        basis = parent.and_then(|parent| RecordedSums::of(parent).basis);
        unknown.push((made, parent));
    }
    let mut history = RowHistory::default();
    if let (Some(_), Some(known)) = (basis, checkpoint) {
        history.rows.insert(known.basis, known.rows);
        let RowCheckpoint { opening, foreign, removed, .. } = known;
        (history.opening, history.foreign, history.removed) = (opening, foreign, removed);
    }
    for (made, parent) in unknown.into_iter().rev() {
        let before = parent.map_or(RecordedSums::NOTHING, |parent| RecordedSums::of(parent));
        let Some(rows) = history.total(before) else { return Ok(None) };
        let parent = parent.map(|parent| parent.snapshot_id());
        let RowChange { added, removed } =
            between(source, keys, parent, made.snapshot_id()).await?;
        history.rows.insert(made.snapshot_id(), rows.merge(added).minus(removed));
        history.foreign = history.foreign.merge(added);
        history.removed = history.removed.merge(before.removed).merge(removed);
    }
    Ok(Some(history))
}

/// The sum of the rows of a snapshot that are not deleted.
///
/// # Errors
/// [`ReadError`]
pub async fn of_snapshot(
    source: ManifestSource<'_>,
    keys: RowKeys,
    snapshot_id: i64,
) -> Result<RowSum, ReadError> {
    let listed = source.list(snapshot_id, &Filter::True).await?;
    of_others(source, keys, listed, &HashSet::new()).await
}

/// The sums of the rows that a snapshot has more and less than its parent, which is none for the empty
/// table. Only files are read that one of them has and the other has not, or of which other rows are
/// deleted: a row that was written anew counts as added and as removed.
///
/// # Errors
/// [`ReadError`]
pub async fn between(
    source: ManifestSource<'_>,
    keys: RowKeys,
    parent: Option<i64>,
    snapshot_id: i64,
) -> Result<RowChange, ReadError> {
    let Some(parent) = parent else {
        let added = of_snapshot(source, keys, snapshot_id).await?;
        return Ok(RowChange { added, removed: RowSum::default() });
    };
    let before = file_states(source, changed(source, parent, snapshot_id).await?).await?;
    let after = file_states(source, changed(source, snapshot_id, parent).await?).await?;
    let news = changed(source, snapshot_id, parent).await?;
    let added = of_others(source, keys, news, &before).await?;
    let olds = changed(source, parent, snapshot_id).await?;
    let removed = of_others(source, keys, olds, &after).await?;
    Ok(RowChange { added, removed })
}

/// The manifests of a snapshot, without those that the other one has too. Where not both have the same
/// delete files, any data file may have lost rows, and all are listed.
async fn changed(
    source: ManifestSource<'_>,
    snapshot_id: i64,
    other: i64,
) -> Result<ManifestSelection, ReadError> {
    let mut listed = source.list(snapshot_id, &Filter::True).await?;
    let others = source.list(other, &Filter::True).await?;
    if paths(listed.deletes.iter()) == paths(others.deletes.iter()) {
        let known = paths(others.data.iter().map(|(manifest, _)| manifest));
        listed.data.retain(|(manifest, _)| !known.contains(manifest.manifest_path.as_str()));
    }
    Ok(listed)
}

fn paths<'a>(manifests: impl Iterator<Item = &'a ManifestFile>) -> HashSet<&'a str> {
    manifests.map(|manifest| manifest.manifest_path.as_str()).collect()
}

/// A data file with the delete files that reach it, in little room.
type FileState = u128;

fn state_of(file: &PlannedFile, deletes: &DeleteIndex) -> FileState {
    let mut names: Vec<String> =
        deletes.of(file).iter().map(|delete| delete.location.clone()).collect();
    names.sort_unstable();
    names.insert(0, file.location.clone());
    xxh3_128(names.join("\n").as_bytes())
}

/// The states of all data files of these manifests.
async fn file_states(
    source: ManifestSource<'_>,
    listed: ManifestSelection,
) -> Result<HashSet<FileState>, ReadError> {
    let mut plans = pin!(reader::plans(source, listed, Filter::True));
    let mut states = HashSet::new();
    while let Some(plan) = plans.try_next().await? {
        states.extend(plan.files.iter().map(|file| state_of(file, &plan.deletes)));
    }
    Ok(states)
}

/// The rows of the files of these manifests that are in none of these states. One file is open at a time.
async fn of_others(
    source: ManifestSource<'_>,
    keys: RowKeys,
    listed: ManifestSelection,
    known: &HashSet<FileState>,
) -> Result<RowSum, ReadError> {
    let columns = FileColumns::of(source.metadata, &keys.columns());
    let columns = columns.map_err(ReadError::Unsupported)?;
    let mut plans = pin!(reader::plans(source, listed, Filter::True));
    let mut sum = RowSum::default();
    while let Some(ScanPlan { mut files, deletes }) = plans.try_next().await? {
        if !known.is_empty() {
            files.retain(|file| !known.contains(&state_of(file, &deletes)));
        }
        let sums = of_files(source, &columns, &files, deletes).await?;
        sum = sums.into_iter().fold(sum, RowSum::merge);
    }
    Ok(sum)
}

/// The sums of the rows of these files of a snapshot that its deletes leave, in their order.
///
/// # Errors
/// [`ReadError`]
pub(super) async fn of_planned(
    source: ManifestSource<'_>,
    keys: RowKeys,
    files: &[Arc<PlannedFile>],
    deletes: DeleteIndex,
) -> Result<Vec<RowSum>, ReadError> {
    let columns = FileColumns::of(source.metadata, &keys.columns());
    let columns = columns.map_err(ReadError::Unsupported)?;
    of_files(source, &columns, files, deletes).await
}

/// The rows of these files that are not deleted.
async fn of_files(
    source: ManifestSource<'_>,
    columns: &FileColumns,
    files: &[Arc<PlannedFile>],
    deletes: DeleteIndex,
) -> Result<Vec<RowSum>, ReadError> {
    let mut sums = Vec::new();
    let deletes = RowDeletes::read(source, deletes, files).await?;
    for file in files {
        if file.format != DataFileFormat::Parquet {
            let text =
                format!("the table has {} data files, and only Parquet is read", file.format);
            return Err(ReadError::Unsupported(text));
        }
        let deleted = deletes.of(source, file).await?;
        let (_, rows) =
            reader::rows_of_file(source.storage, file, columns, deleted.as_ref()).await?;
        let (mut rows, mut sum) = (Box::pin(rows), RowSum::default());
        while let Some(rows) = rows.try_next().await? {
            sum = sum.merge(sum_of(&rows));
        }
        sums.push(sum);
    }
    Ok(sums)
}

#[cfg(test)]
mod tests;
