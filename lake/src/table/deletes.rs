//! Rows of data files that are deleted: position deletes, deletion vectors and equality deletes, all of
//! them brought into one form, the places of rows in their data file.
//!
//! Its one invariant: a delete file is applied or the read is refused, never passed over. A reader that
//! skips the places of [`RowDeletes::of`] shows what the snapshot holds, whatever wrote its
//! deletes.
//!
//! Which delete file reaches which data file is Iceberg's rule (specification, "Scan Planning"), and the
//! planner's [`DeleteIndex`] has it: position deletes reach data files that are not younger, equality
//! deletes those that are older; both stay within their partition, but for equality deletes of an
//! unpartitioned spec, which reach the whole table. A deletion vector stands for all position deletes of
//! its data file. An equality delete compares values of any columns with single values, also of columns
//! that were dropped since; a missing value equals a missing one, and a data file that lacks the column
//! has its default.
//!
//! Delete files are read once, as streams. What is kept of them is bounded by [`HELD_BYTES_MAX`]: places
//! as compressed bitmaps, and each deleted key once with the age of its youngest delete. The places that
//! keys delete are found when a data file is asked for, in a pass over its key columns.

mod keys;
mod positions;
#[cfg(test)]
mod tests;

use crate::table::{
    deletes::keys::KeySet,
    file_columns::{FileColumns, FileError, OpenFile},
};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use futures::{Stream, StreamExt, TryFutureExt, TryStreamExt, stream};
use iceberg::spec::{DataContentType, DataFileFormat};
use icecore_catalog::{
    scan::{
        ManifestSource, ScanError,
        deletes::{DeleteIndex, partition_key},
        manifests::{PlannedFile, PlannedFiles},
    },
    storage::Storage,
};
use parquet::errors::ParquetError;
use roaring::RoaringTreemap;
use std::{collections::HashMap, ops::Range, sync::Arc};

/// Most bytes that deletes of one read take in memory.
const HELD_BYTES_MAX: usize = 256 << 20;
/// Delete files that are read at the same time.
const READS_AT_ONCE: usize = 8;
/// Data files whose keys are looked at at the same time.
const LOOKUPS_AT_ONCE: usize = 4;

/// Why deletes could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum DeletesError {
    /// They are of a kind that is not applied here; the text says what to do.
    #[error("{0}")]
    Unsupported(String),
    /// They take too much memory.
    #[error(
        "the deletes of the table at `{table}` take more than 256 MiB of memory: compact it with the \
         engine that writes them, or read fewer of its partitions"
    )]
    TooMany {
        /// The table's location.
        table: String,
    },
    /// A delete file has something that no writer puts there.
    #[error("the delete file `{location}` is damaged: {reason}")]
    Damaged {
        /// Which file.
        location: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file does not read.
    #[error("apply deletes")]
    File(#[from] FileError),
    /// The time for planning is over, or a file cannot be had from the store.
    #[error(transparent)]
    Scan(#[from] ScanError),
}

/// The columns of position delete files.
///
/// # Errors
/// Never: they are constant.
pub(super) fn position_columns() -> Result<FileColumns, String> {
    positions::columns()
}

/// A position delete file of one data file, for these places in order.
///
/// # Errors
/// What Parquet's writer says.
pub(in crate::table) fn encoded_positions(
    location: &str,
    places: &[u64],
) -> Result<Bytes, ParquetError> {
    positions::encoded(location, places)
}

/// Places of rows in a data file, counted from 0.
pub type DeletedRows = RoaringTreemap;

/// Equality deletes that compare the same columns in the same partition.
type KeyScope = (Vec<i32>, (i32, String));

/// What the delete files of a scan say.
#[derive(Debug)]
pub struct RowDeletes {
    index: DeleteIndex,
    /// By location of their data file.
    places: HashMap<String, DeletedRows>,
    keys: HashMap<KeyScope, KeySet>,
    held: DeleteMemory,
}

/// How much of the bound is taken.
#[derive(Clone, Debug)]
struct DeleteMemory {
    table: String,
    bytes: usize,
    bytes_max: usize,
}

impl DeleteMemory {
    fn take(&mut self, bytes: usize) -> Result<(), DeletesError> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes_max < self.bytes {
            return Err(DeletesError::TooMany { table: self.table.clone() });
        }
        Ok(())
    }
}

impl RowDeletes {
    /// Reads the delete files that reach any of `files`.
    ///
    /// # Errors
    /// [`DeletesError`]
    pub async fn read(
        source: ManifestSource<'_>,
        index: DeleteIndex,
        files: &[Arc<PlannedFile>],
    ) -> Result<Self, DeletesError> {
        Self::read_within(source, index, files, HELD_BYTES_MAX).await
    }

    async fn read_within(
        source: ManifestSource<'_>,
        index: DeleteIndex,
        files: &[Arc<PlannedFile>],
        bytes_max: usize,
    ) -> Result<Self, DeletesError> {
        let reached = index.of_all(files, source.until)?;
        let held =
            DeleteMemory { table: source.metadata.location().to_owned(), bytes: 0, bytes_max };
        let mut deletes = Self { index, places: HashMap::new(), keys: HashMap::new(), held };
        let (mut by_place, mut by_key) = (PlannedFiles::new(), PlannedFiles::new());
        for delete in reached {
            match (delete.content, delete.format) {
                (DataContentType::EqualityDeletes, DataFileFormat::Parquet) => by_key.push(delete),
                (DataContentType::PositionDeletes, DataFileFormat::Parquet) => {
                    by_place.push(delete);
                }
                (DataContentType::PositionDeletes, DataFileFormat::Puffin) => {
                    positions::add_vector(source, &delete, &mut deletes).await?;
                }
                (_, format) => {
                    return Err(DeletesError::Unsupported(format!(
                        "the table has {format} delete files, and only Parquet is read here; compact it with the engine that wrote them, or query it there"
                    )));
                }
            }
        }
        positions::add(source, by_place, files, &mut deletes).await?;
        keys::add(source, by_key, &mut deletes).await?;
        Ok(deletes)
    }

    /// The deleted rows of a data file; none where there are none.
    ///
    /// # Errors
    /// [`DeletesError`]
    pub async fn of(
        &self,
        source: ManifestSource<'_>,
        file: &PlannedFile,
    ) -> Result<Option<DeletedRows>, DeletesError> {
        source.until.check()?;
        let mut rows = self.places.get(&file.location).cloned().unwrap_or_default();
        let mut scopes: Vec<KeyScope> =
            self.index.of(file).iter().filter_map(|delete| scope(delete)).collect();
        scopes.sort_unstable();
        scopes.dedup();
        for keys in scopes.iter().filter_map(|scope| self.keys.get(scope)) {
            keys.find(source, file, &mut rows).await?;
        }
        Ok(Some(rows).filter(|rows| !rows.is_empty()))
    }

    /// The rows of a data file that are deleted by their places, not those by their values; none where there are
    /// none.
    #[must_use]
    pub fn places_of(&self, location: &str) -> Option<&DeletedRows> {
        self.places.get(location)
    }

    /// Which delete files reach which data files.
    #[must_use]
    pub fn index(&self) -> &DeleteIndex {
        &self.index
    }

    /// The deleted rows of all these files by location, without files that have none.
    ///
    /// # Errors
    /// [`DeletesError`]
    pub async fn of_all(
        mut self,
        source: ManifestSource<'_>,
        files: &[Arc<PlannedFile>],
    ) -> Result<HashMap<String, DeletedRows>, DeletesError> {
        if self.keys.is_empty() {
            self.places.retain(|_, rows| !rows.is_empty());
            return Ok(self.places);
        }
        let mut held = self.held.clone();
        let mut found = HashMap::new();
        let deletes = &self;
        let lookup = |file: Arc<PlannedFile>| async move {
            let rows = deletes.of(source, &file).await?;
            Ok::<_, DeletesError>((file, rows))
        };
        let lookups: Vec<_> = files.iter().map(|file| lookup(Arc::clone(file))).collect();
        let mut lookups = stream::iter(lookups).buffer_unordered(LOOKUPS_AT_ONCE);
        while let Some((file, rows)) = lookups.try_next().await? {
            let Some(rows) = rows else { continue };
            held.take(rows.serialized_size())?;
            found.insert(file.location.clone(), rows);
        }
        Ok(found)
    }
}

/// What is left of some rows of a data file without the deleted ones, counted from the first of them.
#[must_use]
pub fn kept_ranges(deleted: Option<&DeletedRows>, rows: Range<u64>) -> Vec<Range<usize>> {
    let offset = |row: u64| usize::try_from(row - rows.start).expect("a row group fits memory");
    let mut kept = Vec::new();
    let mut next = rows.start;
    let mut deleted = deleted.map(DeletedRows::iter).into_iter().flat_map(|mut places| {
        places.advance_to(rows.start);
        places
    });
    for row in deleted.by_ref().take_while(|row| *row < rows.end) {
        kept.push(offset(next)..offset(row));
        next = row + 1;
    }
    kept.push(offset(next)..offset(rows.end));
    kept.retain(|range| !range.is_empty());
    kept
}

/// What an equality delete compares and where; none for other delete files.
fn scope(delete: &PlannedFile) -> Option<KeyScope> {
    if delete.content != DataContentType::EqualityDeletes {
        return None;
    }
    let mut ids = delete.equality_ids.clone().unwrap_or_default();
    ids.sort_unstable();
    ids.dedup();
    Some((ids, partition_key(delete)))
}

/// The rows of several delete files, each with its file.
fn rows_of<'a>(
    storage: &'a Storage,
    files: impl Iterator<Item = (Arc<PlannedFile>, FileColumns)> + 'a,
) -> impl Stream<Item = Result<(Arc<PlannedFile>, RecordBatch), FileError>> + 'a {
    stream::iter(files)
        .map(move |(file, columns)| {
            async move {
                let rows = OpenFile::new(storage, &file, &columns).await?;
                let rows = rows.with_every_column()?.rows()?;
                Ok::<_, FileError>(rows.map_ok(move |rows| (Arc::clone(&file), rows)))
            }
            .try_flatten_stream()
            .boxed()
        })
        .flatten_unordered(READS_AT_ONCE)
}
