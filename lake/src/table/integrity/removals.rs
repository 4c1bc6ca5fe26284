//! The numbers that other engines removed: those of the files that went with a snapshot of theirs, without
//! those of the files that came. A row that was written anew, as by an UPDATE, is in both.
//!
//! Its one invariant: files that do not read leave a doubt about the numbers up to that snapshot, and no
//! number that may have been among them counts as lost.

use crate::table::integrity::{
    TableCheck,
    gaps::{GapAccount, GapCause, GapDoubt},
    history::{CommitLedger, FileOrigin, ForeignRemoval},
    manifests,
    numbers::{self, NumberFiles, NumberPass},
    of_store, snapshots,
};
use iceberg::spec::{DataFileFormat, ManifestContentType, ManifestFile};
use icecore_catalog::{
    error::CatalogError,
    scan::manifests::{PlannedFile, live_files},
};
use roaring::RoaringTreemap;
use std::{collections::HashSet, sync::Arc};

/// Most snapshots of other engines whose files are read; what earlier ones removed is not known.
const REMOVALS_MAX: usize = 100;
/// Why their numbers have no row.
const REMOVED: &str = "another engine removed them";
/// Why numbers may have no row where snapshots are gone.
const AMONG: &str = "rows of other engines are among those that snapshots which are gone brought";
const UNREAD: &str = "the files that another engine changed do not all read";
const TOO_MANY: &str = "more snapshots of other engines removed rows than are looked at";

/// A data file, and who added it.
type KnownFile = (Arc<PlannedFile>, FileOrigin);

/// The causes that missing numbers up to `mark` can have. `foreign` rows of the table may be other engines'.
pub(super) async fn account(
    check: &mut TableCheck<'_>,
    read: &NumberFiles<'_>,
    ledger: &CommitLedger,
    (foreign, mark): (u64, u64),
) -> Result<GapAccount, CatalogError> {
    let (mut causes, mut doubts) = (ledger.causes.clone(), ledger.doubts.clone());
    if let Some(current) = check.table().current_snapshot_id().filter(|_| ledger.has_holes) {
        // Of snapshots that are gone the totals tell, and rows of other engines are among them.
        let (range, snapshot) = ((1, mark), current);
        causes.push(GapCause { range, numbers: foreign, what: AMONG, snapshot });
    }
    let early = ledger.removals.len().saturating_sub(REMOVALS_MAX);
    let (early, late) = ledger.removals.split_at(early);
    doubts.extend(early.last().map(|it| GapDoubt::new(it.until, TOO_MANY, Some(it.snapshot))));
    for removal in late {
        match Box::pin(removed(check, read, ledger, (removal, mark))).await? {
            None => {
                doubts.push(GapDoubt::new(removal.until, UNREAD, Some(removal.snapshot)));
            }
            Some(gone) => {
                let range = gone.min().zip(gone.max());
                let (numbers, snapshot) = (gone.len(), removal.snapshot);
                let cause = |range| GapCause { range, numbers, what: REMOVED, snapshot };
                causes.extend(range.map(cause));
            }
        }
    }
    Ok(GapAccount::new(causes, doubts))
}

/// The numbers that went with a snapshot and did not come again with it; none where its files do not read.
async fn removed(
    check: &mut TableCheck<'_>,
    read: &NumberFiles<'_>,
    ledger: &CommitLedger,
    (removal, mark): (&ForeignRemoval, u64),
) -> Result<Option<RoaringTreemap>, CatalogError> {
    let table = check.table();
    let Some(after) = table.snapshot_by_id(removal.snapshot) else { return Ok(None) };
    let before = after.parent_snapshot_id().and_then(|id| table.snapshot_by_id(id));
    let Some(before) = before else { return Ok(None) };
    let Some(new) = snapshots::listed(check, after).await? else { return Ok(None) };
    let Some(old) = snapshots::listed(check, before).await? else { return Ok(None) };
    let (only_new, only_old) = (unshared(&new, &old), unshared(&old, &new));
    let (new_id, old_id) = (after.snapshot_id(), before.snapshot_id());
    let Some(added) = files_of(check, ledger, &only_new, new_id).await? else { return Ok(None) };
    let Some(gone) = files_of(check, ledger, &only_old, old_id).await? else { return Ok(None) };
    let came = numbers_of(check, read, &without(&added, &gone), mark).await?;
    let went = numbers_of(check, read, &without(&gone, &added), mark).await?;
    let (Some(came), Some(mut went)) = (came, went) else { return Ok(None) };
    went -= came;
    Ok(Some(went))
}

/// The manifests of data files that the others are not.
fn unshared(these: &[ManifestFile], others: &[ManifestFile]) -> Vec<ManifestFile> {
    let known: HashSet<&str> = others.iter().map(|it| it.manifest_path.as_str()).collect();
    let is_own = |it: &&ManifestFile| {
        it.content == ManifestContentType::Data && !known.contains(it.manifest_path.as_str())
    };
    these.iter().filter(is_own).cloned().collect()
}

/// The live files of these manifests; none where one does not read, which is told.
async fn files_of(
    check: &mut TableCheck<'_>,
    ledger: &CommitLedger,
    listed: &[ManifestFile],
    snapshot: i64,
) -> Result<Option<Vec<KnownFile>>, CatalogError> {
    let mut found = Vec::new();
    for manifest in listed {
        let parsed = manifests::parsed(check, manifest, snapshot).await?;
        let Some((parsed, _)) = parsed else { return Ok(None) };
        let files = live_files(&parsed, manifest);
        let origins = numbers::origins(check, ledger, (&parsed, manifest), &files);
        found.extend(files.into_iter().zip(origins));
    }
    Ok(Some(found))
}

/// The files that are not among the others.
fn without(files: &[KnownFile], others: &[KnownFile]) -> Vec<KnownFile> {
    let known: HashSet<&str> = others.iter().map(|(file, _)| file.location.as_str()).collect();
    let left = files.iter().filter(|(file, _)| !known.contains(file.location.as_str()));
    left.cloned().collect()
}

/// The numbers of the rows of these files, without those that another engine gave its own; none where a
/// file does not read.
async fn numbers_of(
    check: &TableCheck<'_>,
    read: &NumberFiles<'_>,
    files: &[KnownFile],
    mark: u64,
) -> Result<Option<RoaringTreemap>, CatalogError> {
    let mut pass = NumberPass::whole(mark);
    for (file, origin) in files {
        if *origin == FileOrigin::Foreign {
            continue;
        }
        if file.format != DataFileFormat::Parquet {
            return Ok(None);
        }
        let taken = numbers::take_file(check, read, file, (pass, None, FileOrigin::Other)).await;
        pass = match taken {
            Some(Ok(pass)) => pass,
            Some(Err(cause)) => {
                if let Ok(cause) = of_store(cause) {
                    check.answers(cause).await?;
                }
                return Ok(None);
            }
            None => return Ok(None),
        };
    }
    Ok(Some(pass.spare))
}
