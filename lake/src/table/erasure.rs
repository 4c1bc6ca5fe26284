//! Erasure: which data files of a snapshot have rows that are to go, and these files written anew without
//! them. The commit is left to whoever runs it.
//!
//! Rows that a delete file deleted are looked at as well: their bytes are still in the data file. Its one
//! invariant: a file is passed over only if its bounds and counts show that no row of it meets the
//! condition, or if it was read.

pub mod condition;
pub mod foreign;
#[cfg(test)]
mod tests;

use crate::{
    collection::erased_documents::ErasedDocuments,
    ids::IdGenerator,
    table::{
        compaction::{
            foreign::{ForeignRewrite, check_file, obstacle_of_file},
            group::GroupRewrite,
            rewrite::{FileRewrite, RewriteError, RewriteInput, RewrittenFiles},
        },
        deletes::RowDeletes,
        file_columns::{BATCH_BYTES, FileColumns, OpenFile},
        reader::{self, ReadError},
        retention::{REASON, REMOVED_ROWS},
        writer,
    },
};
use condition::{RowCondition, TableCondition};
use futures::{StreamExt, TryStreamExt, stream};
use iceberg::spec::{FormatVersion, MAIN_BRANCH, Operation, TableMetadata};
use icecore_catalog::{
    commit::COMMIT_ID,
    metadata_file::refs,
    retention,
    row_sum::RowSum,
    scan::{
        ManifestSource, ScanError,
        deletes::DeleteIndex,
        filter::Filter,
        manifests::{PlannedFile, PlannedFiles},
    },
    snapshot::NewSnapshot,
    storage::Storage,
};
use std::{
    collections::{BTreeMap, HashMap},
    pin::pin,
    sync::Arc,
};
use xxhash_rust::xxh3::{xxh3_128, xxh3_128_with_seed};

/// The value of [`REASON`] of a snapshot without rows that were erased.
pub const REASON_ERASE: &str = "erase";
/// Entry of a snapshot summary: the erasure that it was made for.
pub const ERASURE: &str = "icecore.erasure";
/// Most files whose counts are kept, some 50 bytes each; others are read again.
const SCANNED_MAX: usize = 2_000_000;
/// Data files that are looked through at the same time: a store takes tens of milliseconds before it
/// sends the first byte of each.
const READS_AT_ONCE: usize = 8;
/// Data files that are looked through before their counts are noted: an error costs those of no more.
const FILES_AT_ONCE: usize = 64;

/// Why it is not known which rows are to go, or why they stay.
#[derive(Debug, thiserror::Error)]
pub enum ErasureError {
    /// The manifests do not read.
    #[error("look for files with rows to erase")]
    Plan(#[from] ScanError),
    /// A data file does not read.
    #[error("look for rows to erase")]
    Read(#[from] ReadError),
    /// A file is not written anew.
    #[error("write `{location}` anew without rows to erase")]
    Rewrite {
        /// Which file.
        location: String,
        /// Why.
        source: RewriteError,
    },
}

/// How many rows of data files meet a condition. Data files never change, so what was counted holds.
#[derive(Clone, Debug, Default)]
pub struct ScannedFiles {
    counts: HashMap<u128, u64>,
    /// Documents that the rows of these files made.
    documents: ErasedDocuments,
}

impl ScannedFiles {
    /// How many files' counts are kept.
    #[must_use]
    pub fn count(&self) -> usize {
        self.counts.len()
    }

    /// The documents that events made which meet the condition, in all files that were looked through.
    #[must_use]
    pub fn documents(&self) -> &ErasedDocuments {
        &self.documents
    }
}

/// Rows that meet a condition, those of each data file once, in whatever snapshots it is.
#[derive(Clone, Debug, Default)]
pub struct MatchedRows(HashMap<u128, u64>);

impl MatchedRows {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many files have some.
    #[must_use]
    pub fn files(&self) -> u64 {
        self.0.len() as u64
    }

    /// How many there are.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.0.values().sum()
    }
}

/// What a file is known by.
fn key(file: &PlannedFile) -> u128 {
    xxh3_128(file.location.as_bytes())
}

/// A data file with rows that meet a condition.
#[derive(Clone, Debug)]
pub struct MatchedFile {
    /// The file.
    pub file: Arc<PlannedFile>,
    /// How many such rows it has, with those that were deleted before.
    pub rows: u64,
}

/// Data files with such rows, and the deletes of their snapshot.
#[derive(Debug, Default)]
pub struct MatchedFiles {
    /// The files.
    pub files: Vec<MatchedFile>,
    /// The deletes.
    pub deletes: DeleteIndex,
}

/// The first data files of a snapshot with rows that meet a condition, at most `limit` of them.
///
/// # Errors
/// [`ErasureError`]
pub async fn matched_files(
    source: ManifestSource<'_>,
    snapshot_id: i64,
    condition: &RowCondition,
    scanned: &mut ScannedFiles,
    limit: usize,
) -> Result<MatchedFiles, ErasureError> {
    let search = FileSearch::new(source, condition)?;
    let listed = source.list(snapshot_id, &Filter::True).await?;
    let mut plans = pin!(reader::plans(source, listed, Filter::True));
    let mut found = MatchedFiles::default();
    while found.files.len() < limit
        && let Some(plan) = plans.try_next().await?
    {
        let before = found.files.len();
        for files in plan.files.chunks(FILES_AT_ONCE) {
            let counts = search.rows(files, scanned).await?;
            let some = files.iter().zip(counts).filter(|(_, rows)| 0 < *rows);
            let some = some.map(|(file, rows)| MatchedFile { file: Arc::clone(file), rows });
            found.files.extend(some.take(limit - found.files.len()));
            if limit <= found.files.len() {
                break;
            }
        }
        if before < found.files.len() {
            // Each plan with files has all deletes of the snapshot.
            found.deletes = plan.deletes;
        }
    }
    Ok(found)
}

/// Adds the rows of a snapshot's data files that meet a condition to those that were found; whether there
/// were any.
///
/// # Errors
/// [`ErasureError`]
pub async fn count_rows(
    source: ManifestSource<'_>,
    snapshot_id: i64,
    condition: &RowCondition,
    scanned: &mut ScannedFiles,
    found: &mut MatchedRows,
) -> Result<bool, ErasureError> {
    let search = FileSearch::new(source, condition)?;
    let listed = source.list(snapshot_id, &Filter::True).await?;
    let mut plans = pin!(reader::plans(source, listed, Filter::True));
    let mut has_some = false;
    while let Some(plan) = plans.try_next().await? {
        for files in plan.files.chunks(FILES_AT_ONCE) {
            let counts = search.rows(files, scanned).await?;
            for (file, rows) in files.iter().zip(counts).filter(|(_, rows)| 0 < *rows) {
                has_some = true;
                found.0.insert(key(file), rows);
            }
        }
    }
    Ok(has_some)
}

/// How rows are looked for in the files of a table.
struct FileSearch<'a> {
    source: ManifestSource<'a>,
    condition: &'a RowCondition,
    columns: FileColumns,
    of_table: TableCondition,
    /// Which documents are looked for: counts for others say nothing.
    fingerprint: u64,
}

impl<'a> FileSearch<'a> {
    fn new(source: ManifestSource<'a>, condition: &'a RowCondition) -> Result<Self, ErasureError> {
        let ids = condition.ids(source.metadata);
        let columns = FileColumns::of(source.metadata, &ids).map_err(ReadError::Unsupported)?;
        let of_table = condition.within(source.metadata, &ids);
        let collection = retention::collection_of(source.metadata);
        let fingerprint = collection.map_or(0, |name| condition.erased.fingerprint(name));
        Ok(Self { source, condition, columns, of_table, fingerprint })
    }

    /// How many rows of each of some files meet the condition, in their order.
    async fn rows(
        &self,
        files: &[Arc<PlannedFile>],
        scanned: &mut ScannedFiles,
    ) -> Result<Vec<u64>, ErasureError> {
        let known = &*scanned;
        let reads: Vec<_> =
            files.iter().map(|file| self.rows_of(Arc::clone(file), known)).collect();
        let found: Vec<FileCount> =
            stream::iter(reads).buffered(READS_AT_ONCE).try_collect().await?;
        for file in &found {
            let Some(documents) = &file.read else { continue };
            scanned.documents.merge(documents);
            if scanned.counts.len() < SCANNED_MAX {
                scanned.counts.insert(file.key, file.rows);
            }
        }
        Ok(found.into_iter().map(|file| file.rows).collect())
    }

    /// The same of one file.
    async fn rows_of(
        &self,
        file: Arc<PlannedFile>,
        scanned: &ScannedFiles,
    ) -> Result<FileCount, ErasureError> {
        let key = xxh3_128_with_seed(file.location.as_bytes(), self.fingerprint);
        if let Some(rows) = scanned.counts.get(&key) {
            return Ok(FileCount { key, rows: *rows, read: None });
        }
        if !self.condition.may_have(self.source.metadata, &file) {
            return Ok(FileCount { key, rows: 0, read: None });
        }
        let (rows, documents) = self.count(&file).await?;
        Ok(FileCount { key, rows, read: Some(documents) })
    }

    /// How many rows of a file meet the condition, and the documents that these made.
    async fn count(&self, file: &PlannedFile) -> Result<(u64, ErasedDocuments), ReadError> {
        let ManifestSource { storage, metadata, .. } = self.source;
        let opened = OpenFile::new(storage, file, &self.columns).await?;
        if foreign::column_of(metadata, self.condition.person).is_some() {
            // Values that are elsewhere than in the column would not be found.
            check_file(metadata, file, &opened)?;
        }
        let (_, rows) = reader::rows_in_batches(opened, None, BATCH_BYTES)?;
        let mut rows = pin!(rows);
        let (mut count, mut documents) = (0, ErasedDocuments::default());
        while let Some(batch) = rows.try_next().await? {
            let met = self.of_table.met(&batch).await;
            count += met.true_count() as u64;
            self.of_table.note_documents(&batch, &met, &mut documents);
        }
        Ok((count, documents))
    }
}

/// How many rows of a file meet a condition.
struct FileCount {
    key: u128,
    rows: u64,
    /// The documents that these rows made; none where the file was not read for it.
    read: Option<ErasedDocuments>,
}

/// Writes data files anew without the rows that meet a condition, each alone. Where one fails, what was
/// written is deleted.
///
/// # Errors
/// [`ErasureError`]
pub async fn written_without(
    source: ManifestSource<'_>,
    files: &[Arc<PlannedFile>],
    deletes: &DeleteIndex,
    condition: &RowCondition,
    ids: &IdGenerator,
) -> Result<Vec<RewrittenFiles>, ErasureError> {
    let mut written: Vec<RewrittenFiles> = Vec::new();
    for file in files {
        let one = std::slice::from_ref(file);
        match rewrite(source, one, deletes, condition, ids).await {
            Ok(done) => written.push(done),
            Err(cause) => {
                delete_written(source.storage, &written).await;
                let location = file.location.clone();
                return Err(ErasureError::Rewrite { location, source: cause });
            }
        }
    }
    Ok(written)
}

/// Deletes what was written, as far as that is possible: it is nobody's.
pub async fn delete_written(storage: &Storage, written: &[RewrittenFiles]) {
    let files = written.iter().flat_map(RewrittenFiles::locations);
    let files: Vec<String> = files.map(str::to_owned).collect();
    writer::delete(storage, files.iter().map(String::as_str)).await;
}

async fn rewrite(
    source: ManifestSource<'_>,
    files: &[Arc<PlannedFile>],
    deletes: &DeleteIndex,
    condition: &RowCondition,
    ids: &IdGenerator,
) -> Result<RewrittenFiles, RewriteError> {
    let deletes = RowDeletes::read(source, deletes.clone(), files).await?;
    let input = RewriteInput { source, files, deletes: &deletes };
    let mut rewrite = Box::pin(opened_without(input, condition, ids)).await?;
    loop {
        match rewrite.step().await {
            Ok(true) => (),
            Ok(false) => return rewrite.finish().await,
            Err(cause) => {
                rewrite.abandon().await;
                return Err(cause);
            }
        }
    }
}

/// Files whose rows are written anew without those that meet a condition, by the engine of the table.
async fn opened_without<'a>(
    input: RewriteInput<'a>,
    condition: &RowCondition,
    ids: &'a IdGenerator,
) -> Result<GroupRewrite<'a>, RewriteError> {
    let table = input.source.metadata;
    if foreign::column_of(table, condition.person).is_none() {
        let rewrite = Box::pin(FileRewrite::open(input, ids)).await?.without(table, condition);
        return Ok(GroupRewrite::Merged(Box::new(rewrite)));
    }
    if let Some(reason) = input.files.iter().find_map(|file| obstacle_of_file(table, file)) {
        return Err(ReadError::Unsupported(reason.to_owned()).into());
    }
    let rewrite = Box::pin(ForeignRewrite::open(input, ids)).await?.without(table, condition);
    Ok(GroupRewrite::Foreign(Box::new(rewrite)))
}

/// The snapshot of a branch that puts new files in the place of those with erased rows, which were read
/// of snapshot `read`. No row comes with it, so it moves no mark.
#[must_use]
pub fn erasure_snapshot(
    (branch, read): (&str, i64),
    groups: &[RewrittenFiles],
    erasure: &str,
    commit_id: String,
) -> NewSnapshot {
    let rows: u64 = groups.iter().map(|group| group.erased_rows).sum();
    let all = |one: Option<RowSum>, other: Option<RowSum>| Some(one?.merge(other?));
    // Rows that were written anew neither come nor go.
    let erased = groups.iter().map(|group| group.erased_sum).reduce(all).flatten();
    let (mut added, mut added_of_spec) = (Vec::new(), Vec::new());
    for group in groups {
        let files = group.added.iter().cloned();
        match group.spec_id {
            Some(spec_id) => added_of_spec.extend(files.map(|file| (spec_id, file))),
            None => added.extend(files),
        }
    }
    let is_empty = added.is_empty() && added_of_spec.is_empty();
    NewSnapshot {
        operation: if is_empty { Operation::Delete } else { Operation::Overwrite },
        read: Some(read),
        branch: (branch != MAIN_BRANCH).then(|| branch.to_owned()),
        added,
        added_of_spec,
        removed: unique_removed(groups),
        summary: BTreeMap::from([
            (COMMIT_ID.to_owned(), commit_id),
            (REASON.to_owned(), REASON_ERASE.to_owned()),
            (ERASURE.to_owned(), erasure.to_owned()),
            (REMOVED_ROWS.to_owned(), rows.to_string()),
        ]),
        rows_added: erased.map(|_| RowSum::default()),
        rows_removed: erased,
        ..NewSnapshot::default()
    }
}

/// The files that go, each once: a delete file may be of no use without any of several groups.
fn unique_removed(groups: &[RewrittenFiles]) -> Vec<iceberg::spec::DataFile> {
    let files = groups.iter().flat_map(|group| &group.removed);
    let by_path: BTreeMap<&str, _> = files.map(|file| (file.file_path(), file)).collect();
    by_path.into_values().cloned().collect()
}

/// A branch or tag of a table, and the snapshot that it is at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedSnapshot {
    /// Its name.
    pub name: String,
    /// The snapshot.
    pub snapshot_id: i64,
    /// Whether it is a branch.
    pub is_branch: bool,
}

/// The branches and tags of a table, `main` first.
#[must_use]
pub fn named_snapshots(table: &TableMetadata) -> Vec<NamedSnapshot> {
    let mut named: Vec<NamedSnapshot> = refs::of(table)
        .into_iter()
        .map(|(name, reference)| NamedSnapshot {
            is_branch: reference.is_branch(),
            snapshot_id: reference.snapshot_id,
            name,
        })
        .collect();
    named.sort_by(|one, other| {
        (one.name != MAIN_BRANCH, &one.name).cmp(&(other.name != MAIN_BRANCH, &other.name))
    });
    named
}

/// The retained snapshots of a table, the oldest first.
#[must_use]
pub fn retained_snapshots(table: &TableMetadata) -> Vec<i64> {
    let mut all: Vec<(i64, i64)> =
        table.snapshots().map(|made| (made.sequence_number(), made.snapshot_id())).collect();
    all.sort_unstable();
    all.into_iter().map(|(_, id)| id).collect()
}

/// Why no file of a table is written anew; none where they may be.
#[must_use]
pub fn obstacle(table: &TableMetadata) -> Option<String> {
    let version = table.format_version();
    (version != FormatVersion::V2).then(|| format!("it has format version {version}"))
}

/// Files as the rewriting takes them.
#[must_use]
pub fn planned(files: &[MatchedFile]) -> PlannedFiles {
    files.iter().map(|found| Arc::clone(&found.file)).collect()
}
