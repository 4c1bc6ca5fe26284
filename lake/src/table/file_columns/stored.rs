//! A file in the warehouse as the Parquet reader asks for it: read in parts unless it is short.

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use icecore_catalog::storage::Storage;
use parquet::{
    arrow::{arrow_reader::ArrowReaderOptions, async_reader::AsyncFileReader},
    errors::ParquetError,
    file::metadata::{ParquetMetaData, ParquetMetaDataReader},
};
use std::{ops::Range, sync::Arc};

/// Bytes at a file's end that are read at once: the footer of most files. A file that is no longer is read as
/// a whole, and held while it is open: a request for each of its columns takes longer than its rows do.
const FOOTER_BYTES: usize = 64 << 10;
/// Most bytes between two parts that are read with them: in a bucket a request takes longer.
const GAP_BYTES_MAX: u64 = 64 << 10;
/// Most bytes of parts that are read together: pages, and not the columns of a row group.
const TOGETHER_BYTES_MAX: u64 = 4 << 20;

/// A file of the warehouse.
pub(super) struct StoredFile {
    storage: Storage,
    location: String,
    bytes: u64,
    /// All of a short one, once it was read.
    whole: Option<Bytes>,
}

impl StoredFile {
    pub(super) fn new(storage: &Storage, location: &str, bytes: u64) -> Self {
        let (storage, location) = (storage.clone(), location.to_owned());
        Self { storage, location, bytes, whole: None }
    }
}

impl AsyncFileReader for StoredFile {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        async move {
            if let Some(whole) = &self.whole {
                return Ok(part(whole, 0, &range));
            }
            let read = self.storage.get_range(&self.location, range).await;
            read.map_err(|cause| ParquetError::External(Box::new(cause)))
        }
        .boxed()
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, Result<Vec<Bytes>, ParquetError>> {
        async move {
            let mut parts = Vec::with_capacity(ranges.len());
            let mut left = ranges.as_slice();
            while let Some(first) = left.first() {
                let (count, end) = together(left);
                let read = self.get_bytes(first.start..end).await?;
                let (of_read, others) = left.split_at(count);
                parts.extend(of_read.iter().map(|range| part(&read, first.start, range)));
                left = others;
            }
            Ok(parts)
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        let pages = options.map(ArrowReaderOptions::column_index_policy).unwrap_or_default();
        async move {
            let bytes = self.bytes;
            if self.whole.is_none() && bytes <= FOOTER_BYTES as u64 {
                self.whole = Some(self.get_bytes(0..bytes).await?);
            }
            let reader = ParquetMetaDataReader::new()
                .with_prefetch_hint(Some(FOOTER_BYTES))
                .with_page_index_policy(pages);
            reader.load_and_finish(self, bytes).await.map(Arc::new)
        }
        .boxed()
    }
}

/// How many of the first parts are read together, and where they end.
fn together(parts: &[Range<u64>]) -> (usize, u64) {
    let Some((first, others)) = parts.split_first() else { return (0, 0) };
    let (mut count, mut end) = (1, first.end);
    for part in others {
        let is_near = first.start <= part.start && part.start <= end.saturating_add(GAP_BYTES_MAX);
        let is_short = part.end.max(end).saturating_sub(first.start) <= TOGETHER_BYTES_MAX;
        if !is_near || !is_short {
            break;
        }
        count += 1;
        end = part.end.max(end);
    }
    (count, end)
}

/// The bytes of a range of the file, of those that were read from `start` on. As of the store, they are less where the
/// file ends.
fn part(read: &Bytes, start: u64, range: &Range<u64>) -> Bytes {
    let at = |place: u64| {
        let place = usize::try_from(place.saturating_sub(start));
        place.map_or(read.len(), |at| at.min(read.len()))
    };
    let (start, end) = (at(range.start), at(range.end));
    read.slice(start..end.max(start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::lake::TestLake;

    #[test]
    fn parts_that_are_near_are_read_together() {
        let long = TOGETHER_BYTES_MAX;
        for (parts, expected) in [
            (vec![(4, 10)], (1, 10)),
            (vec![(4, 10), (10, 12), (20, 30)], (3, 30)),
            (vec![(4, 10), (2, 12)], (1, 10)),
            (vec![(4, 10), (6, 8), (10 + GAP_BYTES_MAX, 100_000)], (3, 100_000)),
            (vec![(4, 10), (11 + GAP_BYTES_MAX, 100_000)], (1, 10)),
            (vec![(0, long), (long, long + 1)], (1, long)),
            (vec![(0, 3 * long), (3 * long, 4 * long)], (1, 3 * long)),
        ] {
            let parts: Vec<_> = parts.into_iter().map(|(start, end)| start..end).collect();
            assert_eq!(together(&parts), expected, "{parts:?}");
        }
        assert_eq!(together(&[]), (0, 0));
    }

    #[tokio::test]
    async fn each_part_has_its_bytes() {
        let mut lake = TestLake::of_people(false);
        let all: Vec<u8> = (0..=250).cycle().take(300_000).collect();
        let file = lake.put(all.clone()).await.build().unwrap();
        let mut stored = StoredFile::new(&lake.storage, file.file_path(), 300_000);
        let parts: Vec<Range<u64>> =
            vec![0..10, 10..20, 15..40_000, 5..7, 200_000..200_100, 299_990..300_000];
        let read = stored.get_byte_ranges(parts.clone()).await.unwrap();
        assert_eq!(read.len(), parts.len());
        for (part, bytes) in parts.iter().zip(read) {
            let at = |place: u64| usize::try_from(place).unwrap();
            assert!(bytes == all[at(part.start)..at(part.end)], "{part:?}");
        }
    }
}
