//! Data files put one behind the other as one, row groups as they are stored.
//!
//! No value is decoded but id, `seq` and the columns of the table's order. It is right where nothing of the files
//! is deleted, their rows come one file after the other in the table's order, and their columns are those of
//! the table as it is; [`obstacle`] and [`FileCopy::open`] say why it is not. The caller goes a file at a time.
//!
//! Its one invariant: until [`FileCopy::finish`] has ended, nothing of what is written belongs to anybody, and
//! it ends only where the rows of the new file are as many as the manifests say, with the sum that the
//! rows of the files had, and in order.
//!
//! In memory are the new file, at most [`COPIED_BYTES_MAX`], and one of the others.

use crate::{
    blocking::blocking,
    ids::IdGenerator,
    table::{
        compaction::{
            described, has_own_name, layout,
            merge::{SortKey, keys},
            places::RowPlaces,
            rewrite::{RewriteError, RewriteInput, RewriteWay, RewrittenFiles},
            z_order::ZOrder,
        },
        encode::{
            EncodedFile,
            copied::{CopiedColumns, CopiedFile},
        },
        file_columns::{FileColumns, FileError, OpenFile},
        layout::{FileLayout, WriteError},
        partition::{field_id, sort_keys},
        promoted::Promotions,
        reader::ReadError,
        row_sum::{self, RowKeys},
        schema::file_order,
        stats::ColumnStats,
        writer::delete,
    },
};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use iceberg::spec::{
    DataFile, Datum, NestedField, PrimitiveType, SortDirection, TableMetadata, Transform, Type,
};
use icecore_catalog::{
    row_sum::RowSum,
    scan::{deletes::DeleteIndex, manifests::PlannedFile},
    storage::Storage,
};
use parquet::{
    arrow::{ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder},
    errors::ParquetError,
};
use std::{cmp::Ordering, collections::VecDeque, sync::Arc};

/// Row groups of files have at least so many bytes each on average: smaller ones are merged instead, as
/// each costs readers a request a column and a place in the footer.
const GROUP_BYTES_MIN: u64 = 1 << 20;
/// Most bytes of files that are copied together.
const COPIED_BYTES_MAX: u64 = 128 << 20;
/// Why files without all counts are not copied: nobody counts again.
const UNCOUNTED: &str = "the manifest lacks counts of a file's columns";
/// Rows that are looked at together.
const BATCH_ROWS: usize = 8192;

/// Why the row groups of files of one partition are not copied, as far as manifests tell; none where they may
/// be.
#[must_use]
pub fn obstacle(
    table: &TableMetadata,
    files: &[Arc<PlannedFile>],
    deletes: &DeleteIndex,
) -> Option<&'static str> {
    if files.len() < 2 {
        return Some("one file alone is not copied");
    }
    if ZOrder::of_files(table, files).is_some() {
        return Some("the table asks for another order of days that are over");
    }
    if !files.iter().all(|file| has_own_name(table, file)) {
        return Some("another engine wrote a file");
    }
    if files.iter().any(|file| !deletes.of(file).is_empty()) {
        return Some("delete files reach a file");
    }
    let groups =
        |file: &PlannedFile| file.split_offsets.as_ref().map_or(u64::MAX, |all| all.len() as u64);
    if files.iter().any(|file| file.bytes / groups(file).max(1) < GROUP_BYTES_MIN) {
        return Some("row groups have less than 1 MiB");
    }
    let promoted = Promotions::of(table);
    if files.iter().any(|file| promoted.ids().any(|id| file.column(id).is_none())) {
        return Some("a file lacks the column of a promoted path");
    }
    if COPIED_BYTES_MAX < files.iter().map(|file| file.bytes).sum::<u64>() {
        return Some("the files have more than 128 MiB together");
    }
    in_order(table, files).err()
}

/// The files in an order in which all of their rows are in the table's.
fn in_order(
    table: &TableMetadata,
    files: &[Arc<PlannedFile>],
) -> Result<Vec<Arc<PlannedFile>>, &'static str> {
    let mut files = files.to_vec();
    let order = file_order(table);
    let Some(first) = order.fields.first() else { return Ok(files) };
    let is_plain = order.fields.iter().all(|field| {
        field.direction == SortDirection::Ascending && field.transform == Transform::Identity
    });
    if !is_plain || 2 < order.fields.len() {
        return Err("the table's sort order is not one of ascending columns");
    }
    let order_id = i32::try_from(order.order_id).ok();
    if files.iter().any(|file| file.sort_order_id != order_id) {
        return Err("a file is not in the table's sort order");
    }
    let second = order.fields.get(1).map(|field| field.source_id);
    let bounds = |file: &PlannedFile, id: i32| -> Option<(Datum, Datum)> {
        let column = file.column(id)?;
        Some((column.lower.clone()?, column.upper.clone()?))
    };
    if files.iter().any(|file| bounds(file, first.source_id).is_none()) {
        return Err("the manifest has no bounds of a file's sort columns");
    }
    files.sort_by(|one, other| {
        let pair = bounds(one, first.source_id).zip(bounds(other, first.source_id));
        pair.and_then(|(one, other)| one.partial_cmp(&other)).unwrap_or(Ordering::Equal)
    });
    let follows = |before: &PlannedFile, after: &PlannedFile, id: i32| -> Option<Ordering> {
        bounds(before, id)?.1.partial_cmp(&bounds(after, id)?.0)
    };
    let is_in_order =
        files.windows(2).all(|pair| match follows(&pair[0], &pair[1], first.source_id) {
            Some(Ordering::Less) => true,
            Some(Ordering::Equal) => second.is_none_or(|id| {
                follows(&pair[0], &pair[1], id).is_some_and(|order| order != Ordering::Greater)
            }),
            Some(Ordering::Greater) | None => false,
        });
    if is_in_order {
        Ok(files)
    } else {
        Err("the rows of the files overlap in the table's sort order")
    }
}

/// A copy of one group of files.
pub struct FileCopy<'a> {
    storage: &'a Storage,
    layout: Arc<FileLayout>,
    /// Those that are still to be copied.
    left: VecDeque<Arc<PlannedFile>>,
    /// None after an error.
    file: Option<CopiedFile>,
    done: RewrittenFiles,
    /// Rows that were looked at, with their sum and the last key.
    seen: RowsSeen,
}

impl std::fmt::Debug for FileCopy<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileCopy").field("done", &self.done).finish_non_exhaustive()
    }
}

/// What was seen of rows one after the other.
#[derive(Clone, Copy, Debug, Default)]
struct RowsSeen {
    rows: u64,
    sum: RowSum,
    last: Option<SortKey>,
}

impl<'a> FileCopy<'a> {
    /// Reads the footers of the files; why they are not copied, if so.
    ///
    /// # Errors
    /// [`RewriteError`]
    pub async fn open(
        RewriteInput { source, files, deletes }: RewriteInput<'a>,
        ids: &IdGenerator,
    ) -> Result<Result<Self, &'static str>, RewriteError> {
        let table = source.metadata;
        if let Some(reason) = obstacle(table, files, deletes.index()) {
            return Ok(Err(reason));
        }
        let files = match in_order(table, files) {
            Ok(files) => files,
            Err(reason) => return Ok(Err(reason)),
        };
        let layout = Arc::new(layout(table).map_err(ReadError::Unsupported)?);
        let mut columns = CopiedColumns::of(&layout)?;
        let none = FileColumns::of(table, &[]).map_err(ReadError::Unsupported)?;
        for file in &files {
            let opened = OpenFile::new(source.storage, file, &none).await;
            let opened = opened.map_err(ReadError::from)?;
            let found = match columns.add(&layout, opened.footer()) {
                Ok(found) => found,
                Err(reason) => return Ok(Err(reason)),
            };
            if found.iter().any(|id| file.column(*id).is_none()) {
                return Ok(Err(UNCOUNTED));
            }
        }
        let Some(stats) = stats_of(&layout, &files) else {
            return Ok(Err(UNCOUNTED));
        };
        let mut done = RewrittenFiles { way: RewriteWay::Copied, ..RewrittenFiles::default() };
        done.erased_sum = RowKeys::of(&layout.schema).map(|_| RowSum::default());
        let mut places = RowPlaces::default();
        for (at, file) in files.iter().enumerate() {
            places.add_file(&file.location, None);
            places.add_rows(at, file.rows);
            done.files += 1;
            done.bytes += file.bytes;
            done.rows += file.rows;
            done.removed.push(described(file)?);
        }
        done.places = places.of_rows(done.rows).map(Arc::new);
        let id = ids.mint();
        let location = format!("{}/data/{:02x}/{id}.parquet", layout.location, id.0 & 0xff);
        let values = files[0].partition.clone();
        let file = CopiedFile::new(Arc::clone(&layout), location, values, columns, stats)?;
        if !layout.sort_order.fields.is_empty() && !file.is_sorted() {
            return Ok(Err("the table's sort order is not one of numbers and times"));
        }
        let (left, seen) = (VecDeque::from(files), RowsSeen::default());
        let (storage, file) = (source.storage, Some(file));
        Ok(Ok(Self { storage, layout, left, file, done, seen }))
    }

    /// The files that it takes; nothing is written yet.
    #[must_use]
    pub fn planned(&self) -> &RewrittenFiles {
        &self.done
    }

    /// Copies the next file; whether there was one. After an error nothing is left to do.
    ///
    /// # Errors
    /// [`RewriteError`]
    pub async fn step(&mut self) -> Result<bool, RewriteError> {
        let Some(mut file) = self.file.take() else { return Ok(false) };
        let Some(planned) = self.left.pop_front() else {
            self.file = Some(file);
            return Ok(false);
        };
        let stored = self.storage.get(&planned.location).await;
        let stored = stored
            .map_err(|cause| unread(&planned.location, ParquetError::External(Box::new(cause))))?;
        let (layout, seen) = (Arc::clone(&self.layout), self.seen);
        let (file, seen) = blocking(move || {
            let seen = look_at(&layout, &stored, &planned.location, seen)?;
            file.add(stored)?;
            Ok::<_, RewriteError>((file, seen))
        })
        .await?;
        (self.file, self.seen) = (Some(file), seen);
        Ok(true)
    }

    /// Stores the new file, once all are copied.
    ///
    /// # Errors
    /// [`RewriteError`]; what was written is deleted then.
    pub async fn finish(self) -> Result<RewrittenFiles, RewriteError> {
        let Self { storage, layout, left, file, mut done, seen } = self;
        let (expected, has_sum) = (done.rows, done.erased_sum.is_some());
        let Some(file) = file.filter(|_| left.is_empty()) else {
            return Err(RewriteError::Miscounted { expected, written: seen.rows });
        };
        let (encoded, written) = blocking(move || {
            let encoded = file.finish()?;
            let location = encoded.file.file_path();
            let written = look_at(&layout, &encoded.bytes, location, RowsSeen::default())?;
            Ok::<_, RewriteError>((encoded, written))
        })
        .await?;
        let EncodedFile { bytes, file } = encoded;
        if [seen.rows, written.rows, file.record_count()].iter().any(|rows| *rows != expected) {
            return Err(RewriteError::Miscounted { expected, written: written.rows });
        }
        if has_sum && written.sum != seen.sum {
            let first = done.removed.first().map(|file| file.file_path().to_owned());
            let (first, others) = (first.unwrap_or_default(), done.files.saturating_sub(1));
            let (expected, written) = (seen.sum, written.sum);
            return Err(RewriteError::RowsDiffer { first, others, expected, written });
        }
        done.rows_sum = has_sum.then_some(written.sum);
        if let Err(cause) = store(storage, &file, bytes).await {
            delete(storage, [file.file_path()].into_iter()).await;
            return Err(cause.into());
        }
        done.added = vec![file];
        Ok(done)
    }
}

/// Stores a file; durable when it returns.
async fn store(storage: &Storage, file: &DataFile, bytes: Bytes) -> Result<(), WriteError> {
    let location = file.file_path();
    storage.put_deferred(location, bytes).await.map_err(WriteError::Store)?;
    storage.sync_names(&[location]).await.map_err(WriteError::Store)
}

/// What the manifests say of all rows, of each column of the layout; none where they do not tell.
fn stats_of(layout: &FileLayout, files: &[Arc<PlannedFile>]) -> Option<Vec<ColumnStats>> {
    let of_column = |field: &NestedField| -> Option<ColumnStats> {
        let mut of_files = files.iter().map(|file| stats_in(file, field));
        let first = of_files.next()??;
        of_files.try_fold(first, |all, of_file| Some(all.and(&of_file?)))
    };
    layout.schema.as_struct().fields().iter().map(|field| of_column(field)).collect()
}

/// What a manifest says of a column of a file. Our files have counts of all columns that the table had.
fn stats_in(file: &PlannedFile, field: &NestedField) -> Option<ColumnStats> {
    let Some(column) = file.column(field.id) else {
        // It was added later: each row lacks it.
        let is_double = *field.field_type == Type::Primitive(PrimitiveType::Double);
        let nans = is_double.then_some(0);
        let (values, nulls) = (file.rows, file.rows);
        return Some(ColumnStats { values, nulls, nans, ..ColumnStats::default() });
    };
    Some(ColumnStats {
        values: column.values.filter(|values| *values == file.rows)?,
        nulls: column.nulls?,
        nans: column.nans,
        lower: column.lower.clone(),
        upper: column.upper.clone(),
    })
}

/// A file that is missing or damaged.
fn unread(location: &str, source: ParquetError) -> RewriteError {
    ReadError::from(FileError::Parquet { location: location.to_owned(), source }).into()
}

/// Looks at the rows of a file that come after those before: their number, their sum and their order.
fn look_at(
    layout: &FileLayout,
    stored: &Bytes,
    location: &str,
    mut seen: RowsSeen,
) -> Result<RowsSeen, RewriteError> {
    let order = layout.sort_order.fields.iter().map(|field| field.source_id);
    let of_sum = RowKeys::of(&layout.schema).map(RowKeys::columns).unwrap_or_default();
    let wanted: Vec<i32> = order.chain(of_sum).collect();
    let builder = ParquetRecordBatchReaderBuilder::try_new(stored.clone());
    let builder = builder.map_err(|cause| unread(location, cause))?;
    let fields = builder.schema().fields().iter().enumerate();
    let roots = fields.filter(|(_, field)| field_id(field).is_some_and(|id| wanted.contains(&id)));
    let roots: Vec<usize> = roots.map(|(at, _)| at).collect();
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
    let rows = builder.with_projection(mask).with_batch_size(BATCH_ROWS).build();
    for batch in rows.map_err(|cause| unread(location, cause))? {
        let batch: RecordBatch = batch.map_err(|source| {
            let location = location.to_owned();
            ReadError::from(FileError::Columns { location, source })
        })?;
        let has_order = !layout.sort_order.fields.is_empty();
        if has_order && sort_keys(layout, &batch).is_none() {
            return Err(RewriteError::Unsorted { location: location.to_owned() });
        }
        let of_rows = keys(layout, &batch, location, seen.last)?;
        seen.last = of_rows.last().copied().or(seen.last);
        seen.rows += batch.num_rows() as u64;
        seen.sum = seen.sum.merge(row_sum::sum_of(&batch));
    }
    Ok(seen)
}

#[cfg(test)]
mod tests;
