//! Rows of several files of one partition in the table's order, as one stream of batches.
//!
//! A merge of sorted runs: each file gives its rows in order, a heap has the key of the next row of each,
//! and the least goes first; as long as the same file has the least key its rows are taken in a row. One
//! batch of each file is in memory, of a file that goes on to its next two for a moment, and a merged batch
//! of about [`BATCH_BYTES`] beside them: what a row takes is taken from the batch that it is in. What all
//! batches really take is counted, and is an error beyond [`HELD_BYTES_MAX`]. A file whose rows are in no
//! known order is read whole and sorted first. An order that a file claims and does not have is an error.

use crate::{
    blocking::blocking,
    table::{
        compaction::{places::RowPlaces, rewrite::RewriteError},
        deletes::DeletedRows,
        partition::{self, sort_keys},
        reader::ReadError,
        writer::{FileLayout, WriteError},
    },
};
use arrow::{
    compute::{concat_batches, interleave_record_batch},
    record_batch::RecordBatch,
};
use futures::{StreamExt, TryStreamExt, stream, stream::BoxStream};
use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc};

/// Rows of a merged batch.
const BATCH_ROWS: usize = 8192;
/// About the most bytes of a merged batch; a single row may take more.
const BATCH_BYTES: usize = 16 << 20;
/// A merged batch ends once batches of so many bytes came to their end in it: they are held until then.
const ENDED_BYTES_MAX: usize = 64 << 20;
/// Most bytes of the batches of all files. Nobody adds a file that takes it past half of that.
const HELD_BYTES_MAX: usize = 256 << 20;
/// Most bytes of a file's rows that are sorted here; they are held three times meanwhile.
const SORTED_BYTES_MAX: usize = 64 << 20;

/// What orders rows: the sort columns, or nothing where the table has no order.
pub(super) type SortKey = (i64, i64);

/// Rows of a data file.
pub(super) type FileRows<'a> = BoxStream<'a, Result<RecordBatch, ReadError>>;

/// A file that is merged.
struct MergedFile<'a> {
    location: String,
    rows: FileRows<'a>,
    batch: RecordBatch,
    keys: Vec<SortKey>,
    next: usize,
    /// What the batch and its keys take.
    bytes: usize,
}

/// Whether a merged batch takes another row.
fn has_room(rows: usize, bytes: usize) -> bool {
    rows < BATCH_ROWS && bytes < BATCH_BYTES
}

/// The merge of several files.
pub(super) struct RowMerge<'a> {
    layout: Arc<FileLayout>,
    files: Vec<MergedFile<'a>>,
    heap: BinaryHeap<Reverse<(SortKey, usize)>>,
    /// What the batches of all files take.
    held: usize,
    /// Where their rows go.
    places: RowPlaces,
}

impl<'a> RowMerge<'a> {
    pub(super) fn new(layout: Arc<FileLayout>) -> Self {
        let places = RowPlaces::default();
        Self { layout, files: Vec::new(), heap: BinaryHeap::new(), held: 0, places }
    }

    /// Adds a file whose rows are not at the places that are `left_out`; one that is not sorted is read now.
    pub(super) async fn add(
        &mut self,
        location: &str,
        mut rows: FileRows<'a>,
        is_sorted: bool,
        left_out: Option<DeletedRows>,
    ) -> Result<(), RewriteError> {
        if !is_sorted {
            self.places.lose();
            rows = sorted(&self.layout, location, rows).await?;
        }
        let Some(batch) = next_of(&mut rows).await? else { return Ok(()) };
        let location = location.to_owned();
        let keys = keys(&self.layout, &batch, &location, None)?;
        self.heap.push(Reverse((keys[0], self.files.len())));
        let bytes = bytes_of(&batch, &keys);
        self.held += bytes;
        self.places.add_file(&location, left_out);
        self.files.push(MergedFile { location, rows, batch, keys, next: 0, bytes });
        Ok(())
    }

    /// What the batches of all files take.
    pub(super) fn held_bytes(&self) -> usize {
        self.held
    }

    /// Where the rows went that came so far.
    pub(super) fn into_places(self) -> RowPlaces {
        self.places
    }

    /// The rows that come next, with the columns that are computed; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>, RewriteError> {
        let mut batches: Vec<RecordBatch> = Vec::new();
        // Where the current batch of a file is among them.
        let mut slots: Vec<Option<usize>> = vec![None; self.files.len()];
        let mut taken: Vec<(usize, usize)> = Vec::with_capacity(BATCH_ROWS);
        let (mut bytes, mut ended) = (0, 0);
        while has_room(taken.len(), bytes)
            && ended < ENDED_BYTES_MAX
            && let Some(Reverse((_, at))) = self.heap.pop()
        {
            let bound = self.heap.peek().map(|Reverse((key, _))| *key);
            let file = &mut self.files[at];
            let slot = *slots[at].get_or_insert_with(|| {
                batches.push(file.batch.clone());
                batches.len() - 1
            });
            let of_row = file.batch.get_array_memory_size() / file.batch.num_rows().max(1);
            let is_next = |key: &SortKey| bound.is_none_or(|bound| *key <= bound);
            let before = taken.len();
            while has_room(taken.len(), bytes) && file.keys.get(file.next).is_some_and(is_next) {
                taken.push((slot, file.next));
                file.next += 1;
                bytes += of_row;
            }
            self.places.add_rows(at, (taken.len() - before) as u64);
            if file.next == file.keys.len() {
                slots[at] = None;
                self.held -= file.bytes;
                ended += file.bytes;
                let goes_on = file.advance(&self.layout).await?;
                self.held += file.bytes;
                if HELD_BYTES_MAX < self.held + ended {
                    return Err(self.too_large());
                }
                if !goes_on {
                    continue;
                }
            }
            self.heap.push(Reverse((file.keys[file.next], at)));
        }
        if taken.is_empty() {
            return Ok(None);
        }
        let promoted = Arc::clone(&self.layout.promoted);
        let merged = blocking(move || {
            let rows = interleave_record_batch(&batches.iter().collect::<Vec<_>>(), &taken)?;
            promoted.fill(rows)
        });
        Ok(Some(merged.await.map_err(WriteError::Split)?))
    }

    /// Names the file that takes the most.
    fn too_large(&self) -> RewriteError {
        let largest = self.files.iter().max_by_key(|file| file.bytes);
        let location = largest.map(|file| file.location.clone()).unwrap_or_default();
        RewriteError::TooLarge { location }
    }
}

impl MergedFile<'_> {
    /// Goes on to the next batch; whether there is one.
    async fn advance(&mut self, layout: &FileLayout) -> Result<bool, RewriteError> {
        let last = self.keys.last().copied();
        let Some(batch) = next_of(&mut self.rows).await? else {
            // What it holds is of no use any more.
            self.batch = RecordBatch::new_empty(self.batch.schema());
            (self.keys, self.bytes) = (Vec::new(), 0);
            self.rows = stream::empty().boxed();
            return Ok(false);
        };
        self.keys = keys(layout, &batch, &self.location, last)?;
        (self.bytes, self.batch, self.next) = (bytes_of(&batch, &self.keys), batch, 0);
        Ok(true)
    }
}

fn bytes_of(rows: &RecordBatch, keys: &[SortKey]) -> usize {
    rows.get_array_memory_size() + size_of_val(keys)
}

/// The next batch with rows.
async fn next_of(rows: &mut FileRows<'_>) -> Result<Option<RecordBatch>, ReadError> {
    while let Some(batch) = rows.try_next().await? {
        if 0 < batch.num_rows() {
            return Ok(Some(batch));
        }
    }
    Ok(None)
}

/// The keys of rows that come after `last`.
pub(super) fn keys(
    layout: &FileLayout,
    rows: &RecordBatch,
    location: &str,
    last: Option<SortKey>,
) -> Result<Vec<SortKey>, RewriteError> {
    let Some(columns) = sort_keys(layout, rows) else { return Ok(vec![(0, 0); rows.num_rows()]) };
    let second = |row: usize| columns.get(1).map_or(0, |column| column[row]);
    let keys: Vec<SortKey> =
        (0..rows.num_rows()).map(|row| (columns[0][row], second(row))).collect();
    let follows = last.zip(keys.first()).is_none_or(|(last, first)| last <= *first);
    if follows && keys.is_sorted() {
        return Ok(keys);
    }
    Err(RewriteError::Unsorted { location: location.to_owned() })
}

/// The same rows in order, of a file that is small enough to be held.
async fn sorted<'a>(
    layout: &Arc<FileLayout>,
    location: &str,
    mut rows: FileRows<'a>,
) -> Result<FileRows<'a>, RewriteError> {
    let (mut batches, mut bytes): (Vec<RecordBatch>, usize) = (Vec::new(), 0);
    while let Some(batch) = rows.try_next().await? {
        bytes += batch.get_array_memory_size();
        if SORTED_BYTES_MAX < bytes {
            return Err(RewriteError::TooLarge { location: location.to_owned() });
        }
        batches.push(batch);
    }
    let Some(first) = batches.first() else { return Ok(stream::empty().boxed()) };
    let (schema, layout) = (first.schema(), Arc::clone(layout));
    let split = blocking(move || {
        let all = concat_batches(&schema, &batches).map_err(WriteError::Split)?;
        partition::split(&layout, &all)
    });
    let rows = split.await?.rows;
    Ok(stream::once(async move { Ok(rows) }).boxed())
}
