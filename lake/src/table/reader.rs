//! Rows of one snapshot of a table, as a stream of batches, without a query engine.
//!
//! What it promises:
//!
//! - Columns come in the order asked for, by field id, in the types that they have today; a column that
//!   a file lacks has its initial default there, mostly null. They have single values: no structs, lists
//!   or maps.
//! - Each row of the snapshot that meets the filter comes once, and no other. What is deleted is left out
//!   unless it is asked for.
//! - Files come in the order of the snapshot's manifests, rows in the order of their file.
//! - Partitions, bounds of files and statistics of row groups and of pages leave out what cannot meet the filter.
//! - One file is open at a time, with one batch of it (see [`crate::table::file_columns`] for its bounds).
//!   Manifests are planned for about [`FILES_AT_ONCE`] files at a time, and their deletes are bounded as
//!   [`crate::table::deletes`] says.
//! - A file that is missing, damaged or beyond a bound ends the stream with an error that names it.

mod condition;
mod pages;
mod statistics;
#[cfg(test)]
mod tests;

use crate::table::{
    deletes::{DeletedRows, DeletesError, RowDeletes, kept_ranges},
    file_columns::{FileColumns, FileError, OpenFile},
};
use arrow::{compute::filter_record_batch, error::ArrowError, record_batch::RecordBatch};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use iceberg::spec::{DataFileFormat, ManifestFile};
use icecore_catalog::{
    scan::{
        ManifestSelection, ManifestSource, ScanError, ScanPlan, filter::Filter,
        manifests::PlannedFile,
    },
    storage::Storage,
};
use parquet::arrow::arrow_reader::RowSelection;
use std::sync::Arc;

/// About as many data files are planned at a time; each takes about 5 KiB then.
const FILES_AT_ONCE: u64 = 10_000;

/// Why a table could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// What is asked for is not read here; the text says why.
    #[error("{0}")]
    Unsupported(String),
    /// The snapshot's files are not known.
    #[error("plan a read")]
    Plan(#[from] ScanError),
    /// Its deletes are not known.
    #[error("leave out deleted rows")]
    Deletes(#[from] DeletesError),
    /// A data file does not read.
    #[error("read a data file")]
    File(#[from] FileError),
    /// Values do not compare.
    #[error("apply a filter")]
    Filter(#[from] ArrowError),
}

/// What becomes of the snapshot's deletes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteHandling {
    /// Deleted rows are left out.
    Applied,
    /// Deleted rows are read as the others.
    Ignored,
}

/// What is read.
#[derive(Clone, Debug)]
pub struct ReadRequest {
    /// Which snapshot.
    pub snapshot_id: i64,
    /// Field ids of the columns.
    pub columns: Vec<i32>,
    /// Which rows: comparisons, lists and missing values of columns as they are, with AND and OR.
    pub filter: Filter,
    /// Whether deleted rows are among them.
    pub deletes: DeleteHandling,
}

/// The rows that are asked for.
///
/// # Errors
/// [`ReadError`], here and in the stream.
pub async fn rows<'a>(
    source: ManifestSource<'a>,
    request: ReadRequest,
) -> Result<impl Stream<Item = Result<RecordBatch, ReadError>> + use<'a>, ReadError> {
    rows_within(source, request, u64::MAX).await
}

/// The same, where no file with such rows has more than about `held_max` bytes that are held while it is read; with a
/// [`ReadError::Unsupported`] for one that has.
///
/// # Errors
/// [`ReadError`], here and in the stream.
pub async fn rows_within<'a>(
    source: ManifestSource<'a>,
    request: ReadRequest,
    held_max: u64,
) -> Result<impl Stream<Item = Result<RecordBatch, ReadError>> + use<'a>, ReadError> {
    let (mut ids, wanted) = (request.columns.clone(), request.columns.len());
    // Columns that are only compared follow those that are asked for.
    let compared = condition::columns(&request.filter).map_err(ReadError::Unsupported)?;
    ids.extend(compared.into_iter().filter(|id| !request.columns.contains(id)));
    let columns = FileColumns::of(source.metadata, &ids).map_err(ReadError::Unsupported)?;
    let ReadRequest { snapshot_id, filter, deletes, .. } = request;
    let listed = source.list(snapshot_id, &filter).await?;
    let scan = Arc::new(TableRead { source, columns, wanted, filter, deletes, held_max });
    let plans = plans(source, listed, scan.filter.clone());
    Ok(plans
        .map_err(ReadError::from)
        .and_then(move |plan| {
            let scan = Arc::clone(&scan);
            async move { scan.rows_of_plan(plan).await }
        })
        .try_flatten())
}

/// A manifest of data files, as [`ManifestSelection`] has it.
type SelectedManifest = (ManifestFile, Option<i64>);

/// The plans of the listed manifests, each for about [`FILES_AT_ONCE`] data files.
pub fn plans(
    source: ManifestSource<'_>,
    listed: ManifestSelection,
    filter: Filter,
) -> impl Stream<Item = Result<ScanPlan, ScanError>> {
    let ManifestSelection { data, deletes } = listed;
    let mut parts: Vec<(u64, Vec<SelectedManifest>)> = Vec::new();
    for manifest in data {
        let count = |files: Option<u32>| u64::from(files.unwrap_or(0));
        let files = count(manifest.0.added_files_count) + count(manifest.0.existing_files_count);
        match parts.last_mut() {
            Some((count, part)) if *count + files <= FILES_AT_ONCE => {
                *count += files;
                part.push(manifest);
            }
            _ => parts.push((files, vec![manifest])),
        }
    }
    let context = Arc::new((deletes, filter));
    stream::iter(parts).then(move |(_, part)| {
        let context = Arc::clone(&context);
        async move { source.read(&part, &context.0, &context.1).await }
    })
}

/// What is the same for all files of a read.
struct TableRead<'a> {
    source: ManifestSource<'a>,
    columns: FileColumns,
    /// How many of the columns are asked for; the others are compared.
    wanted: usize,
    filter: Filter,
    deletes: DeleteHandling,
    /// Most bytes that may be held of a file.
    held_max: u64,
}

impl<'a> TableRead<'a> {
    async fn rows_of_plan(
        self: Arc<Self>,
        plan: ScanPlan,
    ) -> Result<impl Stream<Item = Result<RecordBatch, ReadError>> + use<'a>, ReadError> {
        let ScanPlan { files, deletes } = plan;
        let deletes = match self.deletes {
            DeleteHandling::Applied => Some(RowDeletes::read(self.source, deletes, &files).await?),
            DeleteHandling::Ignored => None,
        };
        let deletes = Arc::new(deletes);
        Ok(stream::iter(files)
            .then(move |file| {
                let (scan, deletes) = (Arc::clone(&self), Arc::clone(&deletes));
                async move { scan.rows_of_file(&file, deletes.as_ref().as_ref()).await }
            })
            .try_flatten())
    }

    async fn rows_of_file(
        self: Arc<Self>,
        file: &PlannedFile,
        deletes: Option<&RowDeletes>,
    ) -> Result<impl Stream<Item = Result<RecordBatch, ReadError>> + use<'a>, ReadError> {
        self.source.until.check()?;
        if file.format != DataFileFormat::Parquet {
            let text =
                format!("the table has {} data files, and only Parquet is read", file.format);
            return Err(ReadError::Unsupported(text));
        }
        let deleted = match deletes {
            Some(deletes) => deletes.of(self.source, file).await?,
            None => None,
        };
        let storage = self.source.storage;
        let opened = match self.filter == Filter::True {
            true => OpenFile::new(storage, file, &self.columns).await?,
            false => OpenFile::with_pages(storage, file, &self.columns).await?,
        };
        if self.held_max < u64::MAX && self.held_max < pages::held_bytes(&self.filter, &opened) {
            let text = format!("more of {} is to be held than there is room for", file.location);
            return Err(ReadError::Unsupported(text));
        }
        let (_, rows) = kept_rows(opened, &self.filter, deleted.as_ref())?;
        Ok(rows.map(move |rows| self.finish(&rows?)).try_filter(|rows| {
            let has_rows = 0 < rows.num_rows();
            async move { has_rows }
        }))
    }

    /// Of the rows those that meet the filter, with the columns that are asked for.
    fn finish(&self, rows: &RecordBatch) -> Result<RecordBatch, ReadError> {
        let asked: Vec<usize> = (0..self.wanted).collect();
        if self.filter == Filter::True {
            return Ok(rows.project(&asked)?);
        }
        let met = condition::met(&self.filter, rows)?;
        Ok(filter_record_batch(&rows.project(&asked)?, &met)?)
    }
}

/// The rows of a data file that are not deleted, in its order; and how many.
///
/// # Errors
/// [`ReadError`], here and in the stream.
pub async fn rows_of_file(
    storage: &Storage,
    file: &PlannedFile,
    columns: &FileColumns,
    deleted: Option<&DeletedRows>,
) -> Result<(u64, impl Stream<Item = Result<RecordBatch, FileError>> + use<>), ReadError> {
    let opened = OpenFile::new(storage, file, columns).await?;
    kept_rows(opened, &Filter::True, deleted)
}

/// The same, of a file that is open, in batches whose values take about so many bytes.
pub(super) fn rows_in_batches(
    opened: OpenFile,
    deleted: Option<&DeletedRows>,
    batch_bytes: usize,
) -> Result<(u64, impl Stream<Item = Result<RecordBatch, FileError>> + use<>), ReadError> {
    kept_rows(opened.with_batches_of(batch_bytes), &Filter::True, deleted)
}

/// The same, of the row groups and pages that may have rows which meet the filter.
fn kept_rows(
    opened: OpenFile,
    filter: &Filter,
    deleted: Option<&DeletedRows>,
) -> Result<(u64, impl Stream<Item = Result<RecordBatch, FileError>> + use<>), ReadError> {
    let (mut groups, mut kept) = (Vec::new(), Vec::new());
    let (mut start, mut read) = (0_u64, 0_usize);
    for (at, group) in opened.footer().row_groups().iter().enumerate() {
        let rows = u64::try_from(group.num_rows()).unwrap_or(0);
        if statistics::may_match(filter, group, &opened) {
            groups.push(at);
            // A selection counts the rows of the row groups that are read.
            let ranges = kept_ranges(deleted, start..start + rows);
            let ranges = pages::in_both(&ranges, &pages::rows_of(filter, at, &opened));
            kept.extend(ranges.into_iter().map(|range| range.start + read..range.end + read));
            read += usize::try_from(rows).unwrap_or(usize::MAX);
        }
        start += rows;
    }
    let count: u64 = kept.iter().map(|range| range.len() as u64).sum();
    let is_selective = count < read as u64;
    let selection =
        is_selective.then(|| RowSelection::from_consecutive_ranges(kept.into_iter(), read));
    Ok((count, opened.rows_of(groups, selection)?))
}
