//! Data files written anew: what is deleted of them left out, the others in the table's order, or in one that it asks for.
//!
//! The caller goes step by step, so that it can rest in between and stop. Until [`FileRewrite::finish`] has
//! ended, nothing of what is written belongs to anybody; it counts the rows first, by three ways: what the
//! manifest says of the files, what their footers and deletes leave of them, and what was written. The sum of
//! the rows that were read has to be that of the rows that were written, as well.
//!
//! What is held of the files is bounded, whatever their rows are: by their footers at most [`OPEN_BYTES_MAX`]
//! of chunks and pages, and of batches what they really take: no file is added once they have
//! [`BATCHES_BYTES`]. Files that do not fit beside those before them stay.

mod failure;

use crate::{
    ids::IdGenerator,
    table::{
        compaction::{
            described, empty_columns, layout,
            merge::{FileRows, RowMerge},
            places::RowPlaces,
            useless_deletes,
            z_order::{self, ZOrder, ZOrderRows},
        },
        deletes::{DeletesError, RowDeletes},
        erasure::condition::{RowCondition, TableCondition},
        file_columns::{BATCH_BYTES, FileBytes, FileColumns, FileError, OpenFile},
        reader::{self, ReadError},
        row_sum::{self, ReadSum, RowKeys},
        schema::file_order,
        writer::{WriteError, WrittenFiles, delete, sorted::SortedWriter},
    },
};
use arrow::{
    compute::{filter_record_batch, not},
    record_batch::RecordBatch,
};
use futures::{StreamExt, TryStreamExt, stream};
use iceberg::spec::{DataFile, Operation, TableMetadata};
use icecore_catalog::{
    commit::{COMMIT_ID, COMPACTION, MERGED},
    row_sum::RowSum,
    scan::{ManifestSource, ScanError, manifests::PlannedFile},
    snapshot::NewSnapshot,
    storage::Storage,
};
use std::{collections::BTreeMap, pin::pin, sync::Arc};

/// Most bytes that open files hold beside their batches, going by their footers. One row group of the size
/// that other engines write by default fits, as it is stored and unpacked.
const OPEN_BYTES_MAX: u64 = 256 << 20;
/// About the most bytes of the batches of open files, one of each; the last one may pass it.
const BATCHES_BYTES: usize = 128 << 20;
/// The least of them that a file gets: a merge of many files is as long as that allows.
const BATCH_BYTES_MIN: usize = 64 << 10;
/// A longer file whose rows are in no known order stays in the order that it has.
const SORTED_FILE_BYTES: u64 = 8 << 20;
/// Files that are opened at a time: a store takes long to answer each.
const OPENS_AT_ONCE: usize = 8;
/// Files whose rows are in no known order are sorted in memory, which holds them this many times.
const SORT_COPIES: u64 = 3;

/// Why files were not written anew.
#[derive(Debug, thiserror::Error)]
pub enum RewriteError {
    /// The manifests do not read.
    #[error("plan a rewrite")]
    Plan(#[from] ScanError),
    /// A file or its deletes do not read.
    #[error("read files to write them anew")]
    Read(#[from] ReadError),
    /// The deletes do not read.
    #[error("leave out deleted rows")]
    Deletes(#[from] DeletesError),
    /// The new files could not be written.
    #[error("write files anew")]
    Write(#[from] WriteError),
    /// Several files cannot be read, or not as other engines read them.
    #[error("leave {} files as they are", .locations.len())]
    Refused {
        /// All of them.
        locations: Vec<String>,
        /// What is in the way of the first.
        source: FileError,
    },
    /// A file's rows are not in the order that its manifest says.
    #[error("the rows of `{location}` are not in the order that its manifest says")]
    Unsorted {
        /// Which file.
        location: String,
    },
    /// A file takes too much memory.
    #[error("`{location}` takes more memory than a merge may: its row groups are too large")]
    TooLarge {
        /// Which file.
        location: String,
    },
    /// Rows would be lost or doubled.
    #[error(
        "{expected} rows are to be written anew and {written} were: nothing is changed, look at the \
         files of the table"
    )]
    Miscounted {
        /// What there should be.
        expected: u64,
        /// What there is.
        written: u64,
    },
    /// Other rows were written than were read.
    #[error(
        "the rows of `{first}` and the {others} files merged with it have the sum {expected}, and \
         those that were written have {written}: nothing is changed, look at the files of the table"
    )]
    RowsDiffer {
        /// The first file of the group.
        first: String,
        /// How many others there are.
        others: u64,
        /// The sum of the rows that were read, without the deleted ones.
        expected: RowSum,
        /// The sum of those that were written.
        written: RowSum,
    },
}

/// The files of one group, and the deletes of the snapshot.
#[derive(Clone, Copy, Debug)]
pub struct RewriteInput<'a> {
    /// Where they are.
    pub source: ManifestSource<'a>,
    /// The data files, of one partition.
    pub files: &'a [Arc<PlannedFile>],
    /// What deletes rows of them.
    pub deletes: &'a RowDeletes,
}

/// How files become others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RewriteWay {
    /// Their row groups are copied as they are stored.
    Copied,
    /// Their rows are decoded, merged and encoded: nobody asked whether they can be copied.
    #[default]
    Merged,
    /// The same, as they cannot be copied for this reason.
    NotCopied(&'static str),
}

/// What was written, and what it stands for.
#[derive(Clone, Debug, Default)]
pub struct RewrittenFiles {
    /// The new data files, durable.
    pub added: Vec<DataFile>,
    /// The partition spec that these have, where the table's default one may be another by their commit.
    pub spec_id: Option<i32>,
    /// The files they stand for, and delete files that are of no use without them.
    pub removed: Vec<DataFile>,
    /// How it was written.
    pub way: RewriteWay,
    /// How many data files they stand for.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many rows were written.
    pub rows: u64,
    /// How many deleted rows were left out.
    pub deleted_rows: u64,
    /// The sum of those that were written; none of a table whose rows have none.
    pub rows_sum: Option<RowSum>,
    /// How many rows were left out that were not deleted before.
    pub erased_rows: u64,
    /// Their sum; none of a table whose rows have none.
    pub erased_sum: Option<RowSum>,
    /// Where the rows of the files are in the new ones, where that is known.
    pub places: Option<Arc<RowPlaces>>,
    /// Position delete files of the new files, durable, with their partition spec.
    pub deletes: Vec<(i32, DataFile)>,
    /// The snapshot up to which these have what was deleted of the files; none where it is the one that was read.
    pub deletes_read: Option<i64>,
}

impl RewrittenFiles {
    /// Where the new files are.
    pub fn locations(&self) -> impl Iterator<Item = &str> {
        self.added.iter().chain(self.deletes.iter().map(|(_, file)| file)).map(DataFile::file_path)
    }

    /// Whether a refusal of their commit names a file that they stand for.
    #[must_use]
    pub fn is_named_in(&self, refusal: &str) -> bool {
        self.removed.iter().any(|file| refusal.contains(&format!("`{}`", file.file_path())))
    }

    /// How long they are together.
    #[must_use]
    pub fn bytes_added(&self) -> u64 {
        self.added.iter().map(DataFile::file_size_in_bytes).sum()
    }
}

/// The snapshot that puts groups of new files in the place of the old ones, which were read of snapshot
/// `read`. It changes no row, so it moves no mark.
#[must_use]
pub fn replacement(read: i64, groups: &[RewrittenFiles], commit_id: String) -> NewSnapshot {
    let sums = groups.iter().map(|group| group.rows_sum);
    let rows = sums.reduce(|one, other| Some(one?.merge(other?))).flatten();
    // Deletes of groups that were carried over to different snapshots are looked for from the first one on.
    let carried = groups.iter().map(|group| group.deletes_read);
    let deletes_read = carried.reduce(|one, other| one.filter(|_| one == other)).flatten();
    let of_specs = groups.iter().filter_map(|group| Some((group.spec_id?, &group.added)));
    let of_specs =
        of_specs.flat_map(|(id, added)| added.iter().map(move |file| (id, file.clone())));
    let of_default = groups.iter().filter(|group| group.spec_id.is_none());
    NewSnapshot {
        operation: Operation::Replace,
        read: Some(read),
        added: of_default.flat_map(|group| &group.added).cloned().collect(),
        added_of_spec: of_specs.collect(),
        removed: groups.iter().flat_map(|group| &group.removed).cloned().collect(),
        deletes: groups.iter().flat_map(|group| &group.deletes).cloned().collect(),
        deletes_read,
        summary: BTreeMap::from([
            (COMMIT_ID.to_owned(), commit_id),
            (COMPACTION.to_owned(), MERGED.to_owned()),
        ]),
        rows_added: rows,
        rows_removed: rows,
        ..NewSnapshot::default()
    }
}

/// A rewrite of one group of files.
pub struct FileRewrite<'a> {
    merge: RowMerge<'a>,
    writer: SortedWriter<'a>,
    storage: &'a Storage,
    done: RewrittenFiles,
    /// Rows that the files have by their manifests.
    rows: u64,
    /// Rows that were read and are kept.
    read: u64,
    /// Their sum and that of those that are left out, as they come from the files.
    pub(super) read_sum: ReadSum,
    /// The field ids of the columns of a row.
    columns: Vec<i32>,
    /// Rows that are left out.
    without: Option<TableCondition>,
    /// Rows that wait to be put in another order than the table's.
    z_order: Option<ZOrderRows>,
}

impl std::fmt::Debug for FileRewrite<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileRewrite").field("done", &self.done).finish_non_exhaustive()
    }
}

impl<'a> FileRewrite<'a> {
    /// Opens the files, or as many of the first ones as are held at a time.
    ///
    /// # Errors
    /// [`RewriteError`]
    pub async fn open(
        RewriteInput { source, files, deletes }: RewriteInput<'a>,
        ids: &'a IdGenerator,
    ) -> Result<Self, RewriteError> {
        let table = source.metadata;
        let layout = layout(table).map_err(ReadError::Unsupported)?;
        let fields = layout.schema.as_struct().fields();
        let ids_of_columns: Vec<i32> = fields.iter().map(|field| field.id).collect();
        let columns = FileColumns::of(table, &ids_of_columns).map_err(ReadError::Unsupported)?;
        let order = i32::try_from(file_order(table).order_id).ok().filter(|order| *order != 0);
        let batch_bytes = (BATCHES_BYTES / files.len().max(1)).clamp(BATCH_BYTES_MIN, BATCH_BYTES);
        let z_order = ZOrder::of_files(table, files);
        // Nobody needs rows in the table's order before they get another one, or stay in their own.
        let is_any_order = z_order.is_some() || is_long_unsorted(files, order);
        let layout = if is_any_order { z_order::unsorted(layout) } else { layout };
        let mut merge = RowMerge::new(Arc::new(layout.clone()));
        let (has_sum, read_sum) = (RowKeys::of(&layout.schema).is_some(), ReadSum::default());
        let erased_sum = has_sum.then(RowSum::default);
        let mut done = RewrittenFiles { erased_sum, ..RewrittenFiles::default() };
        let (mut rows, mut held, mut taken) = (0, 0, 0);
        let opens: Vec<_> =
            files.iter().map(|file| OpenFile::new(source.storage, file, &columns)).collect();
        let mut opens = pin!(stream::iter(opens).buffered(OPENS_AT_ONCE));
        for file in files {
            let Some(opened) = opens.next().await else { break };
            let is_sorted = is_any_order || file.sort_order_id == order;
            let opened = opened.map_err(ReadError::from)?;
            held += held_bytes(opened.bytes(), is_sorted);
            if OPEN_BYTES_MAX < held {
                break;
            }
            let deleted = deletes.of(source, file).await?;
            let (kept, of_file) = reader::rows_in_batches(opened, deleted.as_ref(), batch_bytes)?;
            rows += file.rows;
            done.rows += kept;
            let last = file.rows.checked_sub(1);
            done.deleted_rows +=
                deleted.as_ref().zip(last).map_or(0, |(places, last)| places.rank(last));
            let sum = has_sum.then(|| read_sum.clone());
            let add = move |rows: &RecordBatch| {
                sum.iter().for_each(|sum| sum.add(row_sum::sum_of(rows)));
            };
            let of_file: FileRows<'a> = of_file.map_err(ReadError::from).inspect_ok(add).boxed();
            merge.add(&file.location, of_file, is_sorted, deleted).await?;
            taken += 1;
            done.files += 1;
            done.bytes += file.bytes;
            done.removed.push(described(file)?);
            if BATCHES_BYTES <= merge.held_bytes() {
                break;
            }
        }
        // One that is left of several would become the file that it is.
        if taken < files.len().min(2) {
            // A first file is in the way of the others where its own batch takes all that there is.
            let at = if OPEN_BYTES_MAX < held { taken } else { 0 };
            return Err(RewriteError::TooLarge { location: files[at].location.clone() });
        }
        for delete in &useless_deletes(&files[..taken], deletes.index()) {
            done.removed.push(described(delete)?);
        }
        let empty = empty_columns(table, &files[..taken], &layout);
        let writer = SortedWriter::new(source.storage, layout, ids).without_values(empty);
        let (storage, columns) = (source.storage, ids_of_columns);
        let (read, without, z_order) = (0, None, z_order.map(ZOrderRows::new));
        Ok(Self { merge, writer, storage, done, rows, read, read_sum, columns, without, z_order })
    }

    /// The same without the rows that meet a condition on columns of the table.
    #[must_use]
    pub fn without(self, table: &TableMetadata, condition: &RowCondition) -> Self {
        let condition = condition.within(table, &self.columns);
        Self { without: Some(condition), ..self }
    }

    /// The same of files that cannot be copied for this reason.
    #[must_use]
    pub(super) fn not_copied(mut self, reason: &'static str) -> Self {
        self.done.way = RewriteWay::NotCopied(reason);
        self
    }

    /// The files that it takes, and what is left of them; nothing is written yet.
    #[must_use]
    pub fn planned(&self) -> &RewrittenFiles {
        &self.done
    }

    /// Writes the next few thousand rows; whether there were any. After an error only
    /// [`FileRewrite::abandon`] is left.
    ///
    /// # Errors
    /// [`RewriteError`]
    pub async fn step(&mut self) -> Result<bool, RewriteError> {
        let Some(mut rows) = self.merge.next().await? else { return Ok(false) };
        if let Some(condition) = &self.without {
            let before = rows.num_rows();
            let met = condition.met(&rows).await;
            if let Some(sum) = &mut self.done.erased_sum {
                let erased = filter_record_batch(&rows, &met).map_err(ReadError::from)?;
                *sum = sum.merge(row_sum::sum_of(&erased));
            }
            let kept = not(&met).map_err(ReadError::from)?;
            rows = filter_record_batch(&rows, &kept).map_err(ReadError::from)?;
            self.done.erased_rows += (before - rows.num_rows()) as u64;
        }
        if 0 < rows.num_rows() {
            self.read += rows.num_rows() as u64;
            let ready = match &mut self.z_order {
                Some(held) => held.add(rows).await?,
                None => Some(rows),
            };
            if let Some(rows) = ready {
                self.writer.write(&rows).await?;
            }
        }
        Ok(true)
    }

    /// Ends the last file, once there are no more rows.
    ///
    /// # Errors
    /// [`RewriteError`]; what was written is deleted then.
    pub async fn finish(self) -> Result<RewrittenFiles, RewriteError> {
        let Self { merge, mut writer, storage, mut done, rows, read, read_sum, .. } = self;
        let (z_order, is_whole) = (self.z_order, self.without.is_none());
        // Another order, or rows that are left out on the way, are not noted.
        let places = (z_order.is_none() && is_whole).then(|| merge.into_places());
        if let Some(mut held) = z_order {
            match held.take().await {
                Ok(Some(rows)) => writer.write(&rows).await?,
                Ok(None) => (),
                Err(cause) => {
                    writer.abandon().await;
                    return Err(cause.into());
                }
            }
        }
        let WrittenFiles { files, rows_sum } = writer.finish_summed().await?;
        (done.added, done.rows_sum) = (files, rows_sum);
        let written: u64 = done.added.iter().map(DataFile::record_count).sum();
        done.rows = done.rows.saturating_sub(done.erased_rows);
        let expected = rows.saturating_sub(done.deleted_rows + done.erased_rows);
        if [done.rows, read, written].iter().any(|counted| *counted != expected) {
            delete(storage, done.locations()).await;
            return Err(RewriteError::Miscounted { expected, written });
        }
        let expected = read_sum.get().minus(done.erased_sum.unwrap_or_default());
        if let Some(written) = rows_sum.filter(|written| *written != expected) {
            delete(storage, done.locations()).await;
            let first = done.removed.first().map(|file| file.file_path().to_owned());
            let (first, others) = (first.unwrap_or_default(), done.files.saturating_sub(1));
            return Err(RewriteError::RowsDiffer { first, others, expected, written });
        }
        // Rows of several partitions, which no file should have, are parted as they are written.
        let is_of_one = |pair: &[DataFile]| pair[0].partition() == pair[1].partition();
        let places = places.filter(|_| done.added.windows(2).all(is_of_one));
        done.places = places.and_then(|places| places.of_rows(done.rows)).map(Arc::new);
        Ok(done)
    }

    /// Deletes what was written.
    pub async fn abandon(self) {
        self.writer.abandon().await;
    }
}

/// Whether this is one file whose rows are in no known order and too many to be sorted in memory.
fn is_long_unsorted(files: &[Arc<PlannedFile>], order: Option<i32>) -> bool {
    matches!(files, [file] if file.sort_order_id != order && SORTED_FILE_BYTES < file.bytes)
}

/// What a file holds while it is merged, beside a batch.
fn held_bytes(bytes: FileBytes, is_sorted: bool) -> u64 {
    match is_sorted {
        true => bytes.open,
        false => bytes.open.saturating_add(bytes.values.saturating_mul(SORT_COPIES)),
    }
}
