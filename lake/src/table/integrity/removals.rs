//! The numbers that snapshots removed: those of the files that went with one, without those of the files that
//! came, and without those that the table has. A row that was written anew, as by an UPDATE of another engine,
//! is no missing one.
//!
//! Its one invariant: no number that may have been removed counts as lost. Where files do not read, a snapshot of
//! ours tells how many rows went, and one of another engine leaves a doubt about the numbers up to it. The
//! numbers of the files that one snapshot changed are held at a time, at most some two bytes each.

use crate::table::integrity::{
    TableCheck,
    gaps::{GapAccount, GapCause, GapDoubt},
    history::{CommitLedger, FileOrigin, RowRemoval},
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

/// Most snapshots whose files are read; what earlier ones removed is taken as they tell it.
const REMOVALS_MAX: usize = 100;
/// Why numbers may have no row where snapshots are gone.
const AMONG: &str = "rows of other engines are among those that snapshots which are gone brought";
/// Why it is not known which numbers went.
const UNREAD: &str = "the files that another engine changed are not read, or not all of them";

/// A data file, and who added it.
type TracedFile = (Arc<PlannedFile>, FileOrigin);

/// The causes that missing numbers up to `mark` can have, where the table has the numbers of this pass.
pub(super) async fn account(
    check: &mut TableCheck<'_>,
    read: &NumberFiles<'_>,
    ledger: &CommitLedger,
    (pass, mark): (&NumberPass, u64),
) -> Result<GapAccount, CatalogError> {
    let (mut causes, mut doubts) = (ledger.causes.clone(), ledger.doubts.clone());
    if let Some(snapshot) = check.table().current_snapshot_id().filter(|_| ledger.has_holes) {
        // Of snapshots that are gone the totals tell, and rows of other engines are among them.
        let (range, numbers) = ((1, mark), pass.foreign.saturating_add(pass.others));
        causes.push(GapCause { range, numbers, what: AMONG, snapshot });
    }
    let early = ledger.removals.len().saturating_sub(REMOVALS_MAX);
    for (place, removal) in ledger.removals.iter().enumerate() {
        let RowRemoval { snapshot, until, what, rows } = *removal;
        let gone = match early <= place {
            true => Box::pin(removed(check, read, ledger, (snapshot, mark))).await?,
            false => None,
        };
        match (gone, rows) {
            (Some(mut gone), _) => {
                gone -= &pass.live;
                gone -= &pass.spare;
                let range = gone.min().zip(gone.max());
                let numbers = gone.len();
                causes.extend(range.map(|range| GapCause { range, numbers, what, snapshot }));
            }
            (None, Some(numbers)) => {
                causes.push(GapCause { range: (1, until), numbers, what, snapshot });
            }
            (None, None) => doubts.push(GapDoubt::new(until, UNREAD, Some(snapshot))),
        }
    }
    Ok(GapAccount::new(causes, doubts))
}

/// The numbers that went with a snapshot and did not come again with it; none where its files do not read.
async fn removed(
    check: &mut TableCheck<'_>,
    read: &NumberFiles<'_>,
    ledger: &CommitLedger,
    (snapshot, mark): (i64, u64),
) -> Result<Option<RoaringTreemap>, CatalogError> {
    let table = check.table();
    let Some(after) = table.snapshot_by_id(snapshot) else { return Ok(None) };
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
) -> Result<Option<Vec<TracedFile>>, CatalogError> {
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
fn without(files: &[TracedFile], others: &[TracedFile]) -> Vec<TracedFile> {
    let known: HashSet<&str> = others.iter().map(|(file, _)| file.location.as_str()).collect();
    let left = files.iter().filter(|(file, _)| !known.contains(file.location.as_str()));
    left.cloned().collect()
}

/// The numbers of the rows of these files, without those that another engine gave its own; none where a
/// file does not read.
async fn numbers_of(
    check: &TableCheck<'_>,
    read: &NumberFiles<'_>,
    files: &[TracedFile],
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
