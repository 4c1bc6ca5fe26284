//! The step of an erasure that takes rows out of branches and tags: files are written anew without them, and
//! committed.
//!
//! Documents that events made are noted before these events go, as their rows in tables of collections are found by
//! them alone. Its one invariant: what others changed meanwhile is left as they made it, and holds up no other file,
//! branch or table.

use crate::{
    maintenance::erasure::{EraseError, ErasureParts, Erasures, limits, steps::StepEnd},
    store::StoredErasure,
};
use icecore_catalog::{
    catalog::{LoadedTable, RefKind},
    error::CatalogError,
    scan::{deletes::DeleteIndex, manifests::ManifestCache},
};
use icecore_lake::table::{
    compaction::rewrite::RewrittenFiles,
    erasure::{
        MatchedFile, MatchedFiles, NamedSnapshot, ScannedFiles, condition::RowCondition,
        delete_written, erasure_snapshot, matched_files, named_snapshots, obstacle, planned,
        written_without,
    },
    schema::TableIdent,
};
use icecore_schemas::erasure::ErasureStatus;
use tracing::info;

/// Most data files of one commit.
const FILES_MAX: usize = 32;
/// No file is added to a commit once it has so many bytes.
const BYTES_MAX: u64 = 128 << 20;
/// Most data files of one step, which looks through the manifests once for all of its commits.
const STEP_FILES_MAX: usize = 16 * FILES_MAX;
/// Most refusals of one commit that each name a file to leave out. More of them are about the whole
/// snapshot, such as equality deletes that came since.
const REFUSALS_MAX: usize = 16;
/// How long files that others change with every try are tried again, from the first step on that commits nothing. Then
/// the other steps go on without them, and the proof has what is left begin again.
pub(super) const REFUSED_WAIT_MS: i64 = 900_000;
/// No more is told of what waits once it has so many bytes.
const WAITS_BYTES_MAX: usize = 8 << 10;

/// What became of files that were written anew for a branch.
#[derive(Debug, Default)]
struct ReplacedFiles {
    /// How many stand for others now.
    committed: u64,
    /// How many were refused, since others changed what they stand for.
    refused: u64,
    /// Why, by the last refusal.
    refusal: Option<String>,
    /// Whether nothing that was read of the snapshot can be committed any more.
    is_outdated: bool,
}

impl Erasures {
    /// Some commits of one branch, until no branch and no tag has such a row. A table that is in the way
    /// holds up no other.
    pub(super) async fn rewrite(
        &self,
        erasure: &mut StoredErasure,
        condition: &RowCondition,
        scanned: &mut ScannedFiles,
    ) -> Result<StepEnd, EraseError> {
        let tables = self.tables(erasure).await?.erased;
        let (mut failure, mut waits) = (None, false);
        for table in &tables {
            match Box::pin(self.rewrite_table(erasure, table, condition, scanned)).await {
                Ok(None) => (),
                Ok(Some(StepEnd::More)) => return Ok(StepEnd::More),
                Ok(Some(StepEnd::Waits)) => waits = true,
                Err(cause) => failure = failure.or(Some(cause)),
            }
        }
        if let Some(cause) = failure {
            return Err(cause);
        }
        if waits && self.is_tried_again(erasure) {
            return Ok(StepEnd::Waits);
        }
        limits::forget_left_aside(&mut erasure.report.cannot);
        if let Some(left) = erasure.report.waits.take_if(|_| waits) {
            limits::tell(&mut erasure.report.cannot, left);
        }
        // The next step notes when it begins.
        (erasure.report.status, erasure.until_ms) = (ErasureStatus::History, 0);
        Ok(StepEnd::More)
    }

    /// Whether files that others changed are tried again by the next step. Notes until when that is.
    fn is_tried_again(&self, erasure: &mut StoredErasure) -> bool {
        let now_ms = self.parts.catalog.now_ms();
        let latest_ms = now_ms.saturating_add(REFUSED_WAIT_MS);
        // A clock that was set back makes no longer wait.
        erasure.until_ms = match erasure.until_ms {
            0 => latest_ms,
            noted_ms => noted_ms.min(latest_ms),
        };
        now_ms < erasure.until_ms
    }

    /// Some commits of one branch of a table; none where no branch and no tag has such a row.
    async fn rewrite_table(
        &self,
        erasure: &mut StoredErasure,
        (table, loaded): &(TableIdent, LoadedTable),
        condition: &RowCondition,
        scanned: &mut ScannedFiles,
    ) -> Result<Option<StepEnd>, EraseError> {
        let mut waits = None;
        for named in named_snapshots(&loaded.metadata) {
            let rewritten =
                self.rewrite_named(erasure, (table, loaded, &named), condition, scanned);
            let lease = self.lease(loaded, named.snapshot_id);
            match Box::pin(lease.over(Box::pin(rewritten))).await? {
                None => (),
                Some(StepEnd::More) => return Ok(Some(StepEnd::More)),
                // What is in the way of one branch is not in that of another.
                Some(StepEnd::Waits) => waits = Some(StepEnd::Waits),
            }
        }
        Ok(waits)
    }

    /// Some commits of a branch, or the removal of a tag; none where a branch has no such row.
    async fn rewrite_named(
        &self,
        erasure: &mut StoredErasure,
        (table, loaded, named): (&TableIdent, &LoadedTable, &NamedSnapshot),
        condition: &RowCondition,
        scanned: &mut ScannedFiles,
    ) -> Result<Option<StepEnd>, EraseError> {
        let cache = ManifestCache::default();
        let source = self.source(loaded, &cache);
        let found = matched_files(source, named.snapshot_id, condition, scanned, STEP_FILES_MAX);
        let found = self.parts.pace.over(Box::pin(found)).await?;
        if erasure.documents.merge(scanned.documents()) {
            // They are on disk before the next step begins.
            return Ok(Some(StepEnd::More));
        }
        if found.files.is_empty() {
            return Ok(None);
        }
        self.check_hold(&erasure.levels).await?;
        if named.is_branch {
            let at = (table, loaded, named);
            return Box::pin(self.replace(erasure, at, &found, condition)).await.map(Some);
        }
        self.drop_tag(table, named).await?;
        let told = format!("{}:{}", table.name, named.name);
        if !erasure.report.refs.contains(&told) {
            erasure.report.refs.push(told);
        }
        Ok(None)
    }

    /// A tag stays at its snapshot, so one that has such rows goes.
    async fn drop_tag(&self, table: &TableIdent, tag: &NamedSnapshot) -> Result<(), EraseError> {
        match self.parts.catalog.refs().drop(table, &tag.name, Some(RefKind::Tag)).await {
            Ok(()) => info!(%table, tag = tag.name, "a tag with erased rows is removed"),
            // Somebody else did.
            Err(CatalogError::NoSuchReference(_)) => (),
            Err(cause) => return Err(cause.into()),
        }
        Ok(())
    }

    /// Writes files of a branch anew, in commits of some of them. Those that others changed meanwhile are
    /// told, and looked at again by the next step, which begins at once only if others were committed.
    async fn replace(
        &self,
        erasure: &mut StoredErasure,
        at: (&TableIdent, &LoadedTable, &NamedSnapshot),
        found: &MatchedFiles,
        condition: &RowCondition,
    ) -> Result<StepEnd, EraseError> {
        let (table, loaded, branch) = at;
        if let Some(reason) = obstacle(&loaded.metadata) {
            let reason = format!("its files are not written anew: {reason}");
            return Err(EraseError::Table { table: table.to_string(), reason });
        }
        let (mut left, mut failure) = (found.files.as_slice(), None);
        let mut done = ReplacedFiles::default();
        while !left.is_empty() && !done.is_outdated {
            self.check_hold(&erasure.levels).await?;
            let (files, later) = left.split_at(count_within_bounds(left));
            let files = (files, &found.deletes);
            match Box::pin(self.replace_some(erasure, at, files, condition, &mut done)).await {
                Ok(()) => (),
                // A file that cannot be written anew holds up those of its commit alone.
                Err(cause @ EraseError::Scan(_)) => failure = failure.or(Some(cause)),
                Err(cause) => return Err(cause),
            }
            left = later;
        }
        if 0 < done.committed && done.refusal.is_none() {
            erasure.until_ms = 0;
        }
        if let Some(cause) = failure {
            return Err(cause);
        }
        let Some(refusal) = done.refusal else { return Ok(StepEnd::More) };
        let (branch, refused) = (&branch.name, done.refused);
        let told = format!(
            "others changed {refused} data files of branch `{branch}` of `{table}` {}: {refusal}",
            limits::TRIED_AGAIN
        );
        erasure.report.waits = Some(match erasure.report.waits.take() {
            Some(before) if WAITS_BYTES_MAX < before.len() => before,
            Some(before) => format!("{before}; {told}"),
            None => told,
        });
        // Who adds rows all the time as well gives each step something to commit.
        let is_tried_again = self.is_tried_again(erasure);
        Ok(if 0 < done.committed && is_tried_again { StepEnd::More } else { StepEnd::Waits })
    }

    /// Writes some files of a branch anew and commits them. Where the commit is refused, the others are
    /// committed without the file that the refusal names. Files that no snapshot names are deleted, unless it
    /// is not known whether one does.
    async fn replace_some(
        &self,
        erasure: &StoredErasure,
        at: (&TableIdent, &LoadedTable, &NamedSnapshot),
        (found, deletes): (&[MatchedFile], &DeleteIndex),
        condition: &RowCondition,
        done: &mut ReplacedFiles,
    ) -> Result<(), EraseError> {
        let ErasureParts { catalog, ids, faults, .. } = &self.parts;
        let files = planned(found);
        let (cache, storage) = (ManifestCache::default(), catalog.storage());
        let source = self.source(at.1, &cache);
        faults.hit("erase.before_write")?;
        let written = Box::pin(written_without(source, &files, deletes, condition, ids));
        let mut left = self.parts.pace.over(written).await?;
        for _ in 0..REFUSALS_MAX {
            match Box::pin(self.commit(erasure, at, &left)).await {
                Ok(()) => {
                    done.committed += left.len() as u64;
                    return Ok(faults.hit("erase.after_commit")?);
                }
                // It may have been made: then its files are the table's.
                Err(cause @ EraseError::Catalog(CatalogError::CommitStateUnknown(_))) => {
                    return Err(cause);
                }
                Err(EraseError::Catalog(CatalogError::CommitFailed(why))) => {
                    let named: Vec<RewrittenFiles> =
                        left.extract_if(.., |group| group.is_named_in(&why)).collect();
                    delete_written(storage, &named).await;
                    done.refused += named.len() as u64;
                    done.refusal = Some(why);
                    if left.is_empty() {
                        return Ok(());
                    }
                    if named.is_empty() {
                        break;
                    }
                }
                Err(cause) => {
                    delete_written(storage, &left).await;
                    return Err(cause);
                }
            }
        }
        delete_written(storage, &left).await;
        done.refused += left.len() as u64;
        done.is_outdated = true;
        Ok(())
    }

    /// Commits files that were written anew for a branch.
    async fn commit(
        &self,
        erasure: &StoredErasure,
        (table, _, branch): (&TableIdent, &LoadedTable, &NamedSnapshot),
        written: &[RewrittenFiles],
    ) -> Result<(), EraseError> {
        self.parts.faults.hit("erase.before_commit")?;
        // Writing took a while, and so do tries that are refused.
        self.check_hold(&erasure.levels).await?;
        let (id, commit_id) = (&erasure.report.erasure, self.parts.ids.mint().to_string());
        let at = (branch.name.as_str(), branch.snapshot_id);
        let new = erasure_snapshot(at, written, id, commit_id);
        self.parts.catalog.add_snapshot(table, new).await?;
        let rows: u64 = written.iter().map(|done| done.erased_rows).sum();
        let (branch, files) = (&branch.name, written.len());
        info!(%table, branch, rows, files, "rows of a table are erased");
        Ok(())
    }
}

/// How many of the first files one commit takes.
fn count_within_bounds(found: &[MatchedFile]) -> usize {
    let mut bytes = 0;
    let fits = |it: &&MatchedFile| {
        let fits = bytes < BYTES_MAX;
        bytes += it.file.bytes;
        fits
    };
    found.iter().take(FILES_MAX).take_while(fits).count()
}
