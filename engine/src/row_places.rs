//! Where the rows with a text are in a file: a hash of each row's value in a column that is looked up.
//!
//! A bloom filter tells that a row group may have a value, and then all of its column is decoded to find the rows. With
//! hashes only the pages of these rows are read, of every column. They are kept for columns with bloom filters whose
//! values are in no order: of the others the index of the pages tells the same. Its one invariant: a row is left out
//! only if the hash of its value is none of those that are looked up.

pub mod numbers;

use crate::lookups::{FooterSource, Lookup, leaf_of};
use arrow::array::{ArrayRef, AsArray};
use datafusion::{
    datasource::{
        listing::PartitionedFile,
        physical_plan::parquet::{ParquetAccessPlan, RowGroupAccess},
    },
    object_store::{ObjectMeta, ObjectStore, path::Path as Key},
};
use futures::TryStreamExt;
use icecore_catalog::byte_cache::ByteCache;
use parquet::{
    arrow::{
        ParquetRecordBatchStreamBuilder, ProjectionMask,
        arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, RowSelection},
        async_reader::ParquetObjectReader,
    },
    basic::Type as PhysicalType,
    errors::{ParquetError, Result as ParquetResult},
    file::{
        metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData},
        page_index::column_index::ColumnIndexMetaData,
    },
};
use std::{
    hash::{DefaultHasher, Hasher},
    iter,
    ops::Range,
    sync::Arc,
};

/// Most bytes of hashes that are kept; those of a million rows take four megabytes.
const KEPT_BYTES_MAX: usize = 256 << 20;
/// What the hash of a row takes.
const HASH_BYTES: u64 = 4;
/// Hashes that are looked at together.
const CHUNK_ROWS: usize = 1_024;
/// Rows that are hashed at a time.
const BATCH_ROWS: usize = 8_192;
/// Most bytes of a column of one file that is hashed, without compression.
const COLUMN_BYTES_MAX: i64 = 256 << 20;
/// Most bytes of it in one row group: these are held while it is hashed, of several files at a time.
const CHUNK_BYTES_MAX: i64 = 64 << 20;
/// Rows of a file for each of those that are found, at least: with more of them, most pages have one.
const ROWS_FOR_ONE: usize = 1_024;

/// What is known of a column of a file.
#[derive(Clone, Debug)]
enum KeptColumn {
    /// A value of it was looked up once: for one look-up, hashes are not worth their time.
    Asked,
    /// The hash of each row's value; none for a column that has none here.
    Hashes(Option<Arc<Vec<u32>>>),
    /// The hashes of a column of whole numbers, in ascending order; none for a column that has none here.
    Numbers(Option<Arc<Vec<u32>>>),
}

/// Hashes that were made already, by file, its size and column. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RowPlaces {
    kept: Arc<ByteCache<(Key, u64, i32), KeptColumn>>,
    bytes_max: usize,
}

impl Default for RowPlaces {
    fn default() -> Self {
        Self::with_share(1)
    }
}

impl RowPlaces {
    /// A cache of the usual bytes divided by `share`.
    ///
    /// # Panics
    /// `share` is zero.
    #[must_use]
    pub fn with_share(share: usize) -> Self {
        let bytes_max = KEPT_BYTES_MAX / share;
        Self { kept: Arc::new(ByteCache::new(bytes_max)), bytes_max }
    }

    /// Of how many files of a scan, with so many rows each, rows are told apart: of the first ones. With all files of a
    /// larger scan, each would take the place of another one before it is asked again.
    #[must_use]
    pub fn count_with_room(&self, rows: impl Iterator<Item = u64>) -> usize {
        let mut bytes = 0_u64;
        let rows = rows.take_while(|rows| {
            bytes = bytes.saturating_add(rows.saturating_mul(HASH_BYTES));
            usize::try_from(bytes).is_ok_and(|bytes| bytes <= self.bytes_max)
        });
        rows.count()
    }

    /// A file of a scan, with the rows of it that may have one of the texts of each of `lookups` where these are known.
    pub async fn attached(
        &self,
        source: FooterSource<'_>,
        store: &Arc<dyn ObjectStore>,
        file: PartitionedFile,
        lookups: &[Lookup],
    ) -> PartitionedFile {
        match self.access(source, store, &file.object_meta, lookups).await {
            Some(access) => file.with_extension(access),
            None => file,
        }
    }

    /// The rows of a file that may have one of the texts of each of `lookups`; none where that is not known, or not
    /// worth telling. A file that does not read is left to its reader.
    async fn access(
        &self,
        source: FooterSource<'_>,
        store: &Arc<dyn ObjectStore>,
        file: &ObjectMeta,
        lookups: &[Lookup],
    ) -> Option<ParquetAccessPlan> {
        if lookups.is_empty() {
            return None;
        }
        let footer = source.footer(file).await.ok()?;
        // A manifest may tell of fewer rows than its file has.
        let count = row_count(&footer);
        if self.count_with_room(iter::once(count as u64)) == 0 {
            return None;
        }
        let mut found: Option<Vec<usize>> = None;
        for lookup in lookups {
            let hashes = self.hashes(&footer, store, file, lookup.field_id).await;
            let Some(hashes) = hashes.filter(|hashes| hashes.len() == count) else { continue };
            let wanted: Vec<u32> = lookup.values.iter().map(|value| hash_of(value)).collect();
            let Some(rows) = rare_places(&hashes, &wanted) else { continue };
            found = Some(match found {
                Some(mut before) => {
                    before.retain(|row| rows.binary_search(row).is_ok());
                    before
                }
                None => rows,
            });
        }
        Some(access_to(&footer, &found?))
    }

    async fn hashes(
        &self,
        footer: &Arc<ParquetMetaData>,
        store: &Arc<dyn ObjectStore>,
        file: &ObjectMeta,
        field_id: i32,
    ) -> Option<Arc<Vec<u32>>> {
        let key = (file.location.clone(), file.size, field_id);
        let leaf = match (self.kept.get(&key), unordered_leaf(footer, field_id)) {
            (Some(KeptColumn::Hashes(kept)), _) => return kept,
            (Some(KeptColumn::Numbers(_)), _) => return None,
            (Some(KeptColumn::Asked), Some(leaf)) => leaf,
            (None, Some(_)) => {
                let bytes = key.0.as_ref().len();
                self.kept.insert(key, KeptColumn::Asked, bytes);
                return None;
            }
            (Some(KeptColumn::Asked) | None, None) => return None,
        };
        let hashes = read(footer, store, file, leaf, hashes_of).await.ok().map(Arc::new);
        let bytes = hashes.as_ref().map_or(0, |hashes| size_of_val(hashes.as_slice()));
        let bytes = bytes + key.0.as_ref().len();
        self.kept.insert(key, KeptColumn::Hashes(hashes.clone()), bytes);
        hashes
    }
}

/// The column of a file with this field id, where most of its pages have values between the bounds of the next one: an
/// index of the pages says little of them. Those that are looked up have bloom filters; the values of others are
/// frequent.
fn unordered_leaf(footer: &ParquetMetaData, field_id: i32) -> Option<usize> {
    let leaf = leaf_of(footer, field_id, PhysicalType::BYTE_ARRAY)?;
    let index = footer.column_index()?;
    let is_told = |index: &&ColumnIndexMetaData| !matches!(**index, ColumnIndexMetaData::NONE);
    let of_groups = || index.iter().map(|columns| columns.get(leaf).filter(is_told));
    let all_told = of_groups().all(|index| index.is_some());
    let neighbours = of_groups().flatten().map(overlaps);
    let (overlapping, all) =
        neighbours.fold((0, 0), |sum, of_group| (sum.0 + of_group.0, sum.1 + of_group.1));
    let is_unordered = all < 2 * overlapping;
    let columns = || footer.row_groups().iter().filter_map(|group| group.columns().get(leaf));
    let is_looked_up = columns().all(|column| column.bloom_filter_offset().is_some());
    (all_told && is_unordered && is_looked_up && is_short(footer, leaf)).then_some(leaf)
}

/// Whether a column of a file has few enough bytes for hashes of it.
fn is_short(footer: &ParquetMetaData, leaf: usize) -> bool {
    let columns = || footer.row_groups().iter().filter_map(|group| group.columns().get(leaf));
    let bytes = columns().map(ColumnChunkMetaData::uncompressed_size).fold(0, i64::saturating_add);
    let longest = columns().map(|column| column.compressed_size().max(column.uncompressed_size()));
    bytes <= COLUMN_BYTES_MAX && longest.max().is_none_or(|bytes| bytes <= CHUNK_BYTES_MAX)
}

/// Of how many pages the values lie between the bounds of the next one's, and how many have a next one.
fn overlaps(index: &ColumnIndexMetaData) -> (usize, usize) {
    let ColumnIndexMetaData::BYTE_ARRAY(index) = index else { return (0, 0) };
    let bounds = index.min_values_iter().zip(index.max_values_iter());
    let bounds: Vec<(&[u8], &[u8])> = bounds.filter_map(|(low, high)| low.zip(high)).collect();
    let overlapping = bounds.windows(2).filter(|pair| {
        matches!(pair, [(low, high), (next_low, next_high)] if low < next_high && next_low < high)
    });
    (overlapping.count(), bounds.len().saturating_sub(1))
}

fn row_count(footer: &ParquetMetaData) -> usize {
    let rows = footer.row_groups().iter().map(RowGroupMetaData::num_rows);
    usize::try_from(rows.fold(0, i64::saturating_add)).unwrap_or(0)
}

/// The hash of each row's value in a column, as `hashes_in` makes them, which has none for another type.
async fn read(
    footer: &Arc<ParquetMetaData>,
    store: &Arc<dyn ObjectStore>,
    file: &ObjectMeta,
    leaf: usize,
    hashes_in: fn(&ArrayRef) -> Option<Vec<u32>>,
) -> ParquetResult<Vec<u32>> {
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let metadata = ArrowReaderMetadata::try_new(Arc::clone(footer), options)?;
    let reader = ParquetObjectReader::new(Arc::clone(store), file.location.clone())
        .with_file_size(file.size);
    let mask = ProjectionMask::leaves(footer.file_metadata().schema_descr(), [leaf]);
    let mut batches = ParquetRecordBatchStreamBuilder::new_with_metadata(reader, metadata)
        .with_projection(mask)
        .with_batch_size(BATCH_ROWS)
        .build()?;
    let rows = row_count(footer);
    let mut hashes = Vec::with_capacity(rows);
    while let Some(batch) = batches.try_next().await? {
        let Some(of_batch) = batch.columns().first().and_then(hashes_in) else {
            return Err(ParquetError::General("the column is of another type".to_owned()));
        };
        hashes.extend(of_batch);
        // Pages may have more rows than the footer says.
        if rows < hashes.len() {
            break;
        }
    }
    match hashes.len() == rows {
        true => Ok(hashes),
        false => Err(ParquetError::General("the column has other rows than the file".to_owned())),
    }
}

/// A row without a value may have any hash: it is none that a look-up finds.
fn hashes_of(column: &ArrayRef) -> Option<Vec<u32>> {
    let texts = column.as_string_opt::<i32>()?;
    Some(texts.iter().map(|text| text.map_or(0, hash_of)).collect())
}

fn hash_of(value: &str) -> u32 {
    hash_of_bytes(value.as_bytes())
}

fn hash_of_bytes(value: &[u8]) -> u32 {
    let mut hasher = DefaultHasher::new();
    hasher.write(value);
    let [a, b, c, d, ..] = hasher.finish().to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// The rows with one of these hashes, in their order; none where they are not rare. A look at a whole chunk takes a
/// fraction of one at each row of it.
fn rare_places(hashes: &[u32], wanted: &[u32]) -> Option<Vec<usize>> {
    let rare_max = hashes.len() / ROWS_FOR_ONE;
    let chunks = hashes.chunks(CHUNK_ROWS).enumerate();
    let chunks = chunks.filter(|(_, chunk)| wanted.iter().any(|hash| chunk.contains(hash)));
    let places = chunks.flat_map(|(at, chunk)| {
        let rows = chunk.iter().enumerate().filter(move |(_, hash)| wanted.contains(hash));
        rows.map(move |(row, _)| at * CHUNK_ROWS + row)
    });
    let places: Vec<usize> = places.take(rare_max + 1).collect();
    (places.len() <= rare_max).then_some(places)
}

/// These rows of a file, by their row groups.
fn access_to(footer: &ParquetMetaData, mut found: &[usize]) -> ParquetAccessPlan {
    let mut start = 0;
    let mut groups = Vec::with_capacity(footer.num_row_groups());
    for group in footer.row_groups() {
        let rows = usize::try_from(group.num_rows()).unwrap_or(0);
        let (of_group, others) = found.split_at(found.partition_point(|row| *row < start + rows));
        groups.push(match of_group {
            [] => RowGroupAccess::Skip,
            _ => {
                let places = of_group.iter().map(|row| {
                    let place = row - start;
                    Range { start: place, end: place + 1 }
                });
                RowGroupAccess::Selection(RowSelection::from_consecutive_ranges(places, rows))
            }
        });
        found = others;
        start += rows;
    }
    ParquetAccessPlan::new(groups)
}

#[cfg(test)]
mod tests;
