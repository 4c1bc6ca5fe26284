//! The numbers that snapshots removed: those of the files that went with one, without those of the files that
//! came, and without those that the table has. A row that was written anew, as by an UPDATE of another engine,
//! is no missing one.
//!
//! Its one invariant: no number that may have been removed counts as lost. Where files do not read, a snapshot of
//! ours tells how many rows went, and one of another engine leaves a doubt about the numbers up to it. The
//! same holds for old snapshots once so many were read, or files with so many rows. Their numbers are held, at
//! most some two bytes each.

use crate::table::integrity::{
    TableCheck,
    gaps::{GapAccount, GapCause, GapDoubt, RemovedNumbers, SeqRange},
    history::{CommitLedger, FileOrigin, PartedSnapshot, RowRemoval},
    manifests,
    numbers::{self, NumberFiles, NumberPass},
    of_store, snapshots,
};
use iceberg::spec::{
    DataFile, DataFileFormat, Datum, Manifest, ManifestContentType, ManifestFile, ManifestStatus,
    PrimitiveLiteral,
};
use icecore_catalog::{
    error::CatalogError,
    scan::manifests::{PlannedFile, live_files},
};
use roaring::RoaringTreemap;
use std::{collections::HashSet, sync::Arc};

/// Most snapshots whose files are read; what earlier ones removed is taken as they tell it.
const REMOVALS_MAX: usize = 100;
/// Most rows of their files, of all of these snapshots together.
const ROWS_MAX: u64 = 1 << 27;
/// Most files in the manifests that a snapshot changed.
const FILES_MAX: usize = 100_000;
/// Why numbers may have no row where snapshots are gone.
const AMONG: &str = "rows of other engines are among those that snapshots which are gone brought";
/// Why it is not known which numbers went.
const UNREAD: &str = "the files that another engine changed are not read, or not all of them";
/// Why it is not known which numbers are there.
const NOT_PARQUET: &str = "rows are in files that are not Parquet, which are not read";

/// A data file, and who added it.
type TracedFile = (Arc<PlannedFile>, FileOrigin);

/// The causes that missing numbers up to `mark` can have, where the table has the numbers of this pass.
pub(super) async fn account(
    check: &mut TableCheck<'_>,
    read: &NumberFiles<'_>,
    ledger: &CommitLedger,
    (pass, mark): (&NumberPass, u64),
) -> Result<GapAccount, CatalogError> {
    if ledger.skipped.is_empty() && pass.has_all() {
        return Ok(GapAccount::new(Vec::new(), Vec::new(), Vec::new()));
    }
    let (mut causes, mut doubts) = (ledger.causes.clone(), ledger.doubts.clone());
    if let Some(snapshot) = check.table().current_snapshot_id().filter(|_| ledger.has_holes) {
        // Of snapshots that are gone the totals tell, and rows of other engines are among them.
        let (range, numbers) = ((1, mark), pass.foreign.saturating_add(pass.others));
        causes.push(GapCause { range, numbers, what: AMONG, snapshot });
    }
    if pass.has_unread {
        doubts.push(GapDoubt::new(mark, NOT_PARQUET, None));
    }
    let mut doubted = doubts.iter().map(|doubt| doubt.until).max().unwrap_or(0);
    let (mut found, mut room) = (Vec::new(), ROWS_MAX);
    // The newest first: where it leaves a doubt, those before it have nothing to explain.
    for (place, removal) in ledger.removals.iter().rev().enumerate() {
        let RowRemoval { snapshot, until, what, rows } = *removal;
        if until <= doubted {
            continue;
        }
        let gone = match place < REMOVALS_MAX {
            true => Box::pin(removed(check, read, ledger, (snapshot, mark, &mut room))).await?,
            false => None,
        };
        match (gone, rows) {
            (Some(numbers), _) => found.push(RemovedNumbers { numbers, what, snapshot }),
            (None, Some(numbers)) => {
                causes.push(GapCause { range: (1, until), numbers, what, snapshot });
            }
            (None, None) => {
                doubts.push(GapDoubt::new(until, UNREAD, Some(snapshot)));
                doubted = until;
            }
        }
    }
    let parted = Box::pin(of_parted(check, ledger)).await?;
    Ok(GapAccount::new(found, causes, doubts).with_parted(parted))
}

/// The numbers that went with a snapshot and did not come again with it; none where its files do not read, or
/// have more rows than there is room for.
async fn removed(
    check: &mut TableCheck<'_>,
    read: &NumberFiles<'_>,
    ledger: &CommitLedger,
    (snapshot, mark, room): (i64, u64, &mut u64),
) -> Result<Option<RoaringTreemap>, CatalogError> {
    let table = check.table();
    let Some(after) = table.snapshot_by_id(snapshot) else { return Ok(None) };
    let before = after.parent_snapshot_id().and_then(|id| table.snapshot_by_id(id));
    let Some(before) = before else { return Ok(None) };
    let (new_id, old_id) = (after.snapshot_id(), before.snapshot_id());
    if [new_id, old_id].iter().any(|id| !check.sums.contains_key(id)) {
        // It is encrypted, or what does not read of it is told.
        return Ok(None);
    }
    let Some(new) = snapshots::listed(check, after).await? else { return Ok(None) };
    let Some(old) = snapshots::listed(check, before).await? else { return Ok(None) };
    let (only_new, only_old) = (unshared(&new, &old), unshared(&old, &new));
    let Some(added) = files_of(check, ledger, &only_new, new_id).await? else { return Ok(None) };
    let Some(gone) = files_of(check, ledger, &only_old, old_id).await? else { return Ok(None) };
    let (came, went) = (without(&added, &gone), without(&gone, &added));
    let rows = came.iter().chain(&went).map(|(file, _)| file.rows);
    let rows = rows.fold(0, u64::saturating_add);
    let Some(left) = room.checked_sub(rows) else { return Ok(None) };
    *room = left;
    let came = numbers_of(check, read, &came, mark).await?;
    let went = numbers_of(check, read, &went, mark).await?;
    let (Some(came), Some(mut went)) = (came, went) else { return Ok(None) };
    went -= came;
    Ok(Some(went))
}

/// The rows that a snapshot brought and took out, by its own manifests.
#[derive(Debug, Default)]
struct PartedRows {
    added: u64,
    deleted: u64,
    /// The lowest and the highest number of the files that went.
    bounds: Option<SeqRange>,
    /// Whether some of them do not tell.
    has_unbounded: bool,
}

impl PartedRows {
    fn take(&mut self, parsed: &Manifest, seq: i32) {
        for entry in parsed.entries() {
            let rows = entry.record_count();
            match entry.status() {
                ManifestStatus::Existing => (),
                ManifestStatus::Added => self.added = self.added.saturating_add(rows),
                ManifestStatus::Deleted => {
                    self.deleted = self.deleted.saturating_add(rows);
                    match bounds_of(entry.data_file(), seq) {
                        Some((low, high)) => {
                            let (lowest, highest) = self.bounds.unwrap_or((low, high));
                            self.bounds = Some((lowest.min(low), highest.max(high)));
                        }
                        None => self.has_unbounded = true,
                    }
                }
            }
        }
    }

    /// The numbers that may have gone, where they are in doubt up to this one.
    fn range(&self, until: u64) -> SeqRange {
        let bounds = self.bounds.filter(|_| !self.has_unbounded);
        bounds.map_or((1, until), |(low, high)| (low.max(1), high.min(until)))
    }
}

/// The lowest and the highest value of a column of a file, as its entry has them.
fn bounds_of(file: &DataFile, column: i32) -> Option<SeqRange> {
    let number = |bound: Option<&Datum>| match bound?.literal() {
        PrimitiveLiteral::Long(number) => u64::try_from(*number).ok(),
        _ => None,
    };
    number(file.lower_bounds().get(&column)).zip(number(file.upper_bounds().get(&column)))
}

/// What snapshots removed whose parents are gone: of the numbers that the files had which went with one, as many
/// as it took out more rows than it brought.
async fn of_parted(
    check: &mut TableCheck<'_>,
    ledger: &CommitLedger,
) -> Result<Vec<GapCause>, CatalogError> {
    let seq = check.input.ours.and_then(|ours| ours.column("seq")?.id);
    let Some(seq) = seq else { return Ok(Vec::new()) };
    let mut causes = Vec::new();
    for parted in ledger.parted.iter().rev().take(REMOVALS_MAX) {
        let PartedSnapshot { snapshot, until, what } = *parted;
        let Some(rows) = parted_rows(check, snapshot, seq).await? else { continue };
        let (range, numbers) = (rows.range(until), rows.deleted.saturating_sub(rows.added));
        if 0 < numbers && range.0 <= range.1 {
            causes.push(GapCause { range, numbers, what, snapshot });
        }
    }
    Ok(causes)
}

/// What a snapshot's own manifests tell; none where one does not read.
async fn parted_rows(
    check: &mut TableCheck<'_>,
    snapshot: i64,
    seq: i32,
) -> Result<Option<PartedRows>, CatalogError> {
    let Some(made) = check.table().snapshot_by_id(snapshot) else { return Ok(None) };
    if !check.sums.contains_key(&snapshot) {
        // It is encrypted, or what does not read of it is told.
        return Ok(None);
    }
    let Some(listed) = snapshots::listed(check, made).await? else { return Ok(None) };
    let mut rows = PartedRows::default();
    let is_own = |it: &&ManifestFile| {
        it.content == ManifestContentType::Data && it.added_snapshot_id == snapshot
    };
    for manifest in listed.iter().filter(is_own) {
        let parsed = manifests::parsed(check, manifest, snapshot).await?;
        let Some((parsed, _)) = parsed else { return Ok(None) };
        rows.take(&parsed, seq);
    }
    Ok(Some(rows))
}

/// The manifests of data files that the others are not.
fn unshared(these: &[ManifestFile], others: &[ManifestFile]) -> Vec<ManifestFile> {
    let known: HashSet<&str> = others.iter().map(|it| it.manifest_path.as_str()).collect();
    let is_own = |it: &&ManifestFile| {
        it.content == ManifestContentType::Data && !known.contains(it.manifest_path.as_str())
    };
    these.iter().filter(is_own).cloned().collect()
}

/// The live files of these manifests; none where one does not read, which is told, or where they are too many.
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
        if FILES_MAX < found.len() + files.len() {
            return Ok(None);
        }
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
