//! The numbers of the rows of the current snapshot: each once, none above the watermark, and none missing
//! without a reason, which [`GapAccount`] finds.
//!
//! They are kept as bitmaps of [`PASS_NUMBERS`] at a time, which take at most 64 MiB each, and there are
//! two of them and one of those that are there twice. A table with more is read once for each part of its
//! numbers that has rows. Rows of which a delete file says that they are deleted count as there, and so do
//! rows that another engine wrote anew.

use crate::table::{
    compaction::has_own_name,
    deletes::{DeletedRows, DeletesError, RowDeletes},
    file_columns::{FileColumns, FileError},
    integrity::{
        TableCheck, apart, files,
        gaps::{GapAccount, SeqRange},
        history::{CommitLedger, FileOrigin},
        manifests, of_store, removals, snapshots,
    },
};
use arrow::{array::AsArray, datatypes::Int64Type, record_batch::RecordBatch};
use futures::StreamExt;
use iceberg::spec::{DataFileFormat, Manifest, ManifestContentType, ManifestFile};
use icecore_catalog::{
    error::{CatalogError, with_causes},
    scan::{
        Deadline, ManifestSource, ScanError,
        deletes::DeleteIndex,
        manifests::{ManifestCache, PlannedFile, PlannedFiles, live_files},
    },
};
use icecore_schemas::fsck::{FindingKind, FsckFinding};
use roaring::RoaringTreemap;
use std::{ops::Range, sync::Arc};
use tokio::runtime::Handle;

/// How many numbers a pass over the rows looks at.
const PASS_NUMBERS: u64 = 1 << 29;

/// What a pass found.
#[derive(Debug)]
pub(super) struct NumberPass {
    /// The numbers that it looks at.
    range: Range<u64>,
    /// The highest number that a row may have.
    mark: u64,
    live: RoaringTreemap,
    /// Numbers that are there, and may be there again: of deleted rows, and of rows that another engine
    /// wrote anew.
    pub(super) spare: RoaringTreemap,
    twice: RoaringTreemap,
    /// The lowest number behind the range.
    beyond: Option<u64>,
    /// Rows above the mark, or without a number, in files that are not another engine's.
    above: u64,
    /// Rows whose number is not one of their commit's.
    strays: u64,
    pub(super) foreign: u64,
    /// Rows with a number in other files of another engine: its own, or ours written anew.
    pub(super) others: u64,
    /// Rows that delete files take away.
    deleted: u64,
    /// Whether rows are in files of a format that is not read.
    pub(super) has_unread: bool,
}

impl NumberPass {
    fn new(start: u64, mark: u64) -> Self {
        Self {
            range: start..start.saturating_add(PASS_NUMBERS),
            mark,
            live: RoaringTreemap::new(),
            spare: RoaringTreemap::new(),
            twice: RoaringTreemap::new(),
            beyond: None,
            above: 0,
            strays: 0,
            foreign: 0,
            others: 0,
            deleted: 0,
            has_unread: false,
        }
    }

    /// One over all numbers up to the mark, for files of which few are read.
    pub(super) fn whole(mark: u64) -> Self {
        Self { range: 1..mark.saturating_add(1), ..Self::new(1, mark) }
    }

    /// Whether each number up to the mark has a row.
    pub(super) fn has_all(&self) -> bool {
        self.beyond.is_none() && self.live.union_len(&self.spare) == self.mark
    }

    /// Takes a batch of a file, whose first row has this place.
    fn take(
        &mut self,
        batch: &RecordBatch,
        start: u64,
        deleted: Option<&DeletedRows>,
        origin: FileOrigin,
    ) {
        if let Some(deleted) = deleted {
            let places = start..start + batch.num_rows() as u64;
            self.deleted += places.filter(|place| deleted.contains(*place)).count() as u64;
        }
        if origin == FileOrigin::Foreign {
            self.foreign += batch.num_rows() as u64;
            return;
        }
        let numbers = batch.column(0).as_primitive::<Int64Type>();
        for (place, number) in (start..).zip(numbers) {
            let number = number.and_then(|number| u64::try_from(number).ok()).unwrap_or(0);
            if number == 0 || self.mark < number {
                match origin {
                    FileOrigin::Other | FileOrigin::Foreign => self.foreign += 1,
                    FileOrigin::Log(_) | FileOrigin::Service => self.above += 1,
                }
                continue;
            }
            match origin {
                FileOrigin::Log((first, last)) => {
                    self.strays += u64::from(!(first..=last).contains(&number));
                }
                FileOrigin::Other => self.others += 1,
                FileOrigin::Service | FileOrigin::Foreign => (),
            }
            if self.range.end <= number {
                self.beyond = Some(self.beyond.map_or(number, |beyond| beyond.min(number)));
            } else if self.range.start <= number {
                let is_deleted = deleted.is_some_and(|deleted| deleted.contains(place));
                if is_deleted || origin == FileOrigin::Other {
                    self.spare.insert(number);
                } else if !self.live.insert(number) {
                    self.twice.insert(number);
                }
            }
        }
    }
}

/// Where the rows come from.
pub(super) struct NumberFiles<'a> {
    source: ManifestSource<'a>,
    manifests: Vec<ManifestFile>,
    deletes: DeleteIndex,
    columns: FileColumns,
    snapshot: i64,
}

/// Counts the numbers of the current snapshot.
pub(super) async fn check(
    check: &mut TableCheck<'_>,
    ledger: &CommitLedger,
) -> Result<(), CatalogError> {
    let (Some(ours), Some(mark)) = (check.input.ours, check.input.table.watermark) else {
        return Ok(());
    };
    let seq = ours.column("seq").and_then(|column| column.id);
    let Some(seq) = seq.filter(|_| check.table().current_snapshot().is_some()) else {
        return Ok(());
    };
    if check.is_current_torn {
        let text = "the numbers of the rows are not counted, as files do not read";
        check.note(FsckFinding::new(FindingKind::Unchecked, text));
        return Ok(());
    }
    let columns = match FileColumns::of(check.table(), &[seq]) {
        Ok(columns) => columns,
        Err(reason) => {
            check.damage(FsckFinding::new(FindingKind::Numbers, reason));
            return Ok(());
        }
    };
    match Box::pin(count(check, ledger, columns, mark.last_seq)).await? {
        Some(missing) => missing.tell(check, ledger),
        None => {
            let text = "the numbers of the rows are not counted to their end";
            check.note(FsckFinding::new(FindingKind::Unchecked, text));
        }
    }
    Ok(())
}

/// Reads the numbers of every row up to `mark`, and tells what is wrong with them; the missing ones with their
/// causes, and none where it did not come to its end, of which the reason is told.
async fn count(
    check: &mut TableCheck<'_>,
    ledger: &CommitLedger,
    columns: FileColumns,
    mark: u64,
) -> Result<Option<GapAccount>, CatalogError> {
    let cache = ManifestCache::default();
    let source = ManifestSource {
        storage: check.input.storage,
        cache: &cache,
        metadata: check.table(),
        until: Deadline::NONE,
    };
    let Some(read) = files_of(check, source, columns).await? else { return Ok(None) };
    let mut known: Option<GapAccount> = None;
    let mut start = 1;
    loop {
        let pass = NumberPass::new(start, mark);
        let Some(pass) = Box::pin(pass_over(check, &read, ledger, pass)).await? else {
            return Ok(None);
        };
        let missing = match known.take() {
            Some(missing) => missing,
            None => {
                tell_of_rows(check, &pass, ledger);
                Box::pin(removals::account(check, &read, ledger, (&pass, mark))).await?
            }
        };
        tell_of_twice(check, &pass, ledger);
        let next = pass.beyond;
        let until = next.unwrap_or(mark.saturating_add(1));
        let skipped: Vec<SeqRange> = ledger.skipped.iter().map(|skipped| skipped.range).collect();
        let found = apart(move || gaps(pass, until, &skipped, missing)).await;
        let Some(found) = found else { return Ok(None) };
        match next {
            Some(next) => (start, known) = (next, Some(found)),
            None => return Ok(Some(found)),
        }
    }
}

/// What is read of the current snapshot; none where it does not read, which is told.
async fn files_of<'s>(
    check: &mut TableCheck<'_>,
    source: ManifestSource<'s>,
    columns: FileColumns,
) -> Result<Option<NumberFiles<'s>>, CatalogError> {
    let Some(snapshot) = check.table().current_snapshot() else { return Ok(None) };
    let id = snapshot.snapshot_id();
    let Some(listed) = snapshots::listed(check, snapshot).await? else { return Ok(None) };
    let (data, of_deletes): (Vec<_>, Vec<_>) =
        listed.into_iter().partition(|manifest| manifest.content == ManifestContentType::Data);
    let mut deletes = PlannedFiles::new();
    for manifest in &of_deletes {
        let parsed = manifests::parsed(check, manifest, id).await?;
        let Some((parsed, _)) = parsed else { return Ok(None) };
        deletes.extend(live_files(&parsed, manifest));
    }
    let deletes = DeleteIndex::new(source.metadata, deletes);
    Ok(Some(NumberFiles { source, manifests: data, deletes, columns, snapshot: id }))
}

/// Reads the numbers of every row once; none where a file does not read, which is told.
async fn pass_over(
    check: &mut TableCheck<'_>,
    read: &NumberFiles<'_>,
    ledger: &CommitLedger,
    mut pass: NumberPass,
) -> Result<Option<NumberPass>, CatalogError> {
    for manifest in &read.manifests {
        let parsed = manifests::parsed(check, manifest, read.snapshot).await?;
        let Some((parsed, _)) = parsed else { return Ok(None) };
        let files = live_files(&parsed, manifest);
        let origins = origins(check, ledger, (&parsed, manifest), &files);
        let deletes = RowDeletes::read(read.source, read.deletes.clone(), &files).await;
        let deletes = match deletes {
            Ok(deletes) => deletes,
            Err(cause) => return unread(check, &manifest.manifest_path, cause).await,
        };
        for (file, origin) in files.iter().zip(origins) {
            if file.format != DataFileFormat::Parquet {
                pass.has_unread |= origin != FileOrigin::Foreign;
                continue;
            }
            let deleted = match deletes.of(read.source, file).await {
                Ok(deleted) => deleted,
                Err(cause) => return unread(check, &file.location, cause).await,
            };
            let done = match take_file(check, read, file, (pass, deleted, origin)).await {
                Some(Ok(done)) => done,
                Some(Err(cause)) => return unread(check, &file.location, cause.into()).await,
                None => {
                    let text = "the numbers of its rows do not read: its reader failed";
                    let finding = FsckFinding::new(FindingKind::Rows, text);
                    check.lack(&file.location, finding.of_file(&file.location));
                    return Ok(None);
                }
            };
            pass = done;
        }
    }
    Ok(Some(pass))
}

/// Who added each of a manifest's live files.
pub(super) fn origins(
    check: &TableCheck<'_>,
    ledger: &CommitLedger,
    (parsed, manifest): (&Manifest, &ManifestFile),
    files: &[Arc<PlannedFile>],
) -> Vec<FileOrigin> {
    let alive = parsed.entries().iter().filter(|entry| entry.is_alive());
    let added_by = alive.map(|entry| entry.snapshot_id().unwrap_or(manifest.added_snapshot_id));
    let known = files.iter().zip(added_by);
    known
        .map(|(file, snapshot)| ledger.origin(snapshot, has_own_name(check.table(), file)))
        .collect()
}

/// Says that the numbers of a file do not read, unless the warehouse is away. Deletes that are not applied
/// here are no damage.
async fn unread(
    check: &mut TableCheck<'_>,
    location: &str,
    cause: DeletesError,
) -> Result<Option<NumberPass>, CatalogError> {
    let text = format!("the numbers of its rows do not read: {}", with_causes(&cause));
    let finding = FsckFinding::new(FindingKind::Rows, text).of_file(location);
    let cause = match cause {
        DeletesError::Unsupported(_)
        | DeletesError::TooMany { .. }
        | DeletesError::File(FileError::Refused { .. }) => {
            check.note(FsckFinding { kind: FindingKind::Unchecked, ..finding });
            return Ok(None);
        }
        DeletesError::File(cause) => of_store(cause).ok(),
        DeletesError::Scan(ScanError::Catalog(cause)) => Some(cause),
        DeletesError::Damaged { .. } | DeletesError::Scan(_) => None,
    };
    if let Some(cause) = cause {
        check.answers(cause).await?;
    }
    // All of its rows were read before: it may be gone by now, and not be needed.
    check.lack(location, finding);
    Ok(None)
}

/// Reads the numbers of a file off the async threads, a batch at a time; none where its reader panics.
pub(super) async fn take_file(
    check: &TableCheck<'_>,
    read: &NumberFiles<'_>,
    file: &Arc<PlannedFile>,
    (mut pass, deleted, origin): (NumberPass, Option<DeletedRows>, FileOrigin),
) -> Option<Result<NumberPass, FileError>> {
    let opened = match files::open(check, file, &read.columns).await? {
        Ok(opened) => opened,
        Err(cause) => return Some(Err(cause)),
    };
    let mut rows = match opened.rows() {
        Ok(rows) => Box::pin(rows),
        Err(cause) => return Some(Err(cause)),
    };
    let deleted = Arc::new(deleted);
    let mut start = 0;
    loop {
        let (handle, of_file) = (Handle::current(), Arc::clone(&deleted));
        let next = apart(move || {
            let next = handle.block_on(rows.next());
            let next = next.map(|batch| {
                batch.map(|batch| {
                    pass.take(&batch, start, of_file.as_ref().as_ref(), origin);
                    batch.num_rows() as u64
                })
            });
            (next, rows, pass)
        });
        let (next, rows_left, so_far) = next.await?;
        (rows, pass) = (rows_left, so_far);
        match next {
            None => return Some(Ok(pass)),
            Some(Err(cause)) => return Some(Err(cause)),
            Some(Ok(count)) => start += count,
        }
    }
}

fn tell_of_rows(check: &mut TableCheck<'_>, pass: &NumberPass, ledger: &CommitLedger) {
    let report = &mut check.found.report;
    report.foreign_rows = pass.foreign;
    // Manifests know how many rows delete files name, and not whether each of them is there.
    report.rows = (report.rows + report.deleted_rows).saturating_sub(pass.deleted);
    report.deleted_rows = pass.deleted;
    let mark = pass.mark;
    if 0 < pass.strays {
        let text = format!("{} rows have a number that their commit does not have", pass.strays);
        check.damage(FsckFinding::new(FindingKind::Numbers, text));
    }
    if 0 < pass.above {
        let text = format!("{} rows have no number, or one above the watermark {mark}", pass.above);
        // Those of other engines may have been merged with ours.
        let finding = FsckFinding::new(FindingKind::Numbers, text);
        match ledger.has_others {
            true => check.note(finding),
            false => check.damage(finding),
        }
    }
}

fn tell_of_twice(check: &mut TableCheck<'_>, pass: &NumberPass, ledger: &CommitLedger) {
    let Some(first) = pass.twice.min() else { return };
    let count = pass.twice.len();
    let text = format!("{count} numbers are those of two rows or more, the first is {first}");
    let finding = FsckFinding::new(FindingKind::Numbers, text);
    match ledger.has_others {
        false => check.damage(finding),
        true => {
            let what = format!("{}: other engines wrote to the table", finding.what);
            check.note(FsckFinding { what, ..finding });
        }
    }
}

/// Adds the numbers of a pass that have no row, without those that no commit has. `until` ends the part of
/// all numbers that the pass tells of.
fn gaps(pass: NumberPass, until: u64, skipped: &[SeqRange], mut missing: GapAccount) -> GapAccount {
    let start = pass.range.start;
    let mut present = pass.live;
    present |= pass.spare;
    missing.begin_part(&present, until);
    if present.len() == until.saturating_sub(start) {
        return missing;
    }
    let mut next = start;
    let ends = present.iter().chain([until]);
    for number in ends {
        if next < number {
            without((next, number - 1), skipped).into_iter().for_each(|gap| missing.add(gap));
        }
        next = next.max(number.saturating_add(1));
    }
    missing
}

/// What is left of a range without others, which are in order.
pub(super) fn without((first, last): SeqRange, others: &[SeqRange]) -> Vec<SeqRange> {
    let mut left = Vec::new();
    let mut next = first;
    for (start, end) in others.iter().filter(|(start, end)| *start <= last && first <= *end) {
        if next < *start {
            left.push((next, start - 1));
        }
        next = next.max(end.saturating_add(1));
    }
    if next <= last {
        left.push((next, last));
    }
    left
}
