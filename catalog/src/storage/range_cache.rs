//! Short ranges of a bucket's files that queries read lately.
//!
//! A request to a bucket takes as long as hundreds of reads of a local disk, where the system keeps what
//! was read. Files never change under their names, and a file that was damaged and then restored is read
//! anew after [`KEPT_TIME`]. Only queries read by it: who checks, copies or erases files has to see what is
//! stored. Its one invariant: what is handed out is what the store answered for that range of that file.

use super::{
    Storage, StorageBackend, key,
    read_only::{FileReader, ReadOnlyStore},
};
use crate::{byte_cache::ByteCache, error::CatalogError};
use async_trait::async_trait;
use bytes::Bytes;
use object_store::{Error, GetOptions, GetResult, ObjectStore, Result, path::Path as Key};
use std::{
    fmt,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// Most bytes that are kept.
const KEPT_BYTES_MAX: usize = 64 << 20;
/// Longest range that is kept: footers, bloom filters, pages of a look-up.
const RANGE_BYTES_MAX: usize = 1 << 20;
/// How long a range is handed out; after that it is read anew, and its place is for others.
const KEPT_TIME: Duration = Duration::from_secs(300);

/// How often ranges were there, and how much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RangeCounts {
    /// Ranges that were kept.
    pub hits: u64,
    /// Ranges that were read from the bucket.
    pub misses: u64,
    /// Bytes that are kept.
    pub bytes: u64,
}

/// The kept ranges.
#[derive(Debug)]
pub(super) struct RangeCache {
    kept: ByteCache<(Key, Range<u64>), (Bytes, Instant)>,
    kept_time: Duration,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl Default for RangeCache {
    fn default() -> Self {
        let (hits, misses) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { kept: ByteCache::new(KEPT_BYTES_MAX), kept_time: KEPT_TIME, hits, misses }
    }
}

impl RangeCache {
    fn get(&self, path: &Key, range: &Range<u64>) -> Option<Bytes> {
        let found = self.kept.get(&(path.clone(), range.clone()));
        let found = found.filter(|(_, read)| read.elapsed() < self.kept_time);
        let count = if found.is_some() { &self.hits } else { &self.misses };
        count.fetch_add(1, Ordering::Relaxed);
        found.map(|(bytes, _)| bytes)
    }

    fn keep(&self, path: &Key, range: &Range<u64>, bytes: &Bytes) {
        if RANGE_BYTES_MAX < bytes.len() {
            return;
        }
        let memory = bytes.len() + path.as_ref().len();
        // It may be part of more bytes, which would be kept with it.
        let bytes = Bytes::copy_from_slice(bytes);
        self.kept.insert((path.clone(), range.clone()), (bytes, Instant::now()), memory);
    }
}

impl Storage {
    /// As [`Storage::object_store`], for queries: short ranges of a bucket's files come from memory if they
    /// were read in the last minutes.
    #[must_use]
    pub fn query_store(&self) -> (url::Url, Arc<dyn ObjectStore>) {
        let (base, store) = self.object_store();
        if let StorageBackend::S3 { .. } = self.inner.place {
            let ranges = Arc::clone(&self.inner.ranges);
            return (base, Arc::new(ReadOnlyStore(KeptRanges { store, ranges })));
        }
        (base, store)
    }

    /// As [`Storage::get_range`], for queries: from memory where [`Storage::query_store`] has it there.
    ///
    /// # Errors
    /// As [`Storage::get_range`].
    pub async fn get_query_range(
        &self,
        location: &str,
        range: Range<u64>,
    ) -> std::result::Result<Bytes, CatalogError> {
        let StorageBackend::S3 { bucket, .. } = &self.inner.place else {
            return self.get_range(location, range).await;
        };
        let location = self.enter(location)?;
        let (_, store) = self.query_store();
        let got = store.get_ranges(&key(bucket, &location)?, &[range]).await;
        let got = got.map_err(self.failed("read", &location))?;
        Ok(got.into_iter().next().unwrap_or_default())
    }

    /// What queries found of ranges that were kept.
    #[must_use]
    pub fn range_counts(&self) -> RangeCounts {
        let ranges = &self.inner.ranges;
        RangeCounts {
            hits: ranges.hits.load(Ordering::Relaxed),
            misses: ranges.misses.load(Ordering::Relaxed),
            bytes: ranges.kept.bytes() as u64,
        }
    }
}

/// A bucket's files, to read, with ranges that are kept.
#[derive(Clone, Debug)]
struct KeptRanges {
    store: Arc<dyn ObjectStore>,
    ranges: Arc<RangeCache>,
}

impl fmt::Display for KeptRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeptRanges({})", self.store)
    }
}

#[async_trait]
impl FileReader for KeptRanges {
    async fn get_opts(&self, path: &Key, options: GetOptions) -> Result<GetResult> {
        self.store.get_opts(path, options).await
    }

    async fn get_ranges(&self, path: &Key, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let found = ranges.iter().map(|range| self.ranges.get(path, range));
        let mut found: Vec<Option<Bytes>> = found.collect();
        let missing = ranges.iter().zip(&found).filter(|(_, found)| found.is_none());
        let missing: Vec<Range<u64>> = missing.map(|(range, _)| range.clone()).collect();
        if !missing.is_empty() {
            // All at once, so that the store joins those that lie near one another.
            let read = self.store.get_ranges(path, &missing).await?;
            for (range, bytes) in missing.iter().zip(&read) {
                self.ranges.keep(path, range, bytes);
            }
            let places = found.iter_mut().filter(|place| place.is_none());
            for (place, bytes) in places.zip(read) {
                *place = Some(bytes);
            }
        }
        let whole: Option<Vec<Bytes>> = found.into_iter().collect();
        whole.ok_or_else(|| Error::Generic {
            store: "bucket",
            source: "it answered fewer ranges than were asked for".into(),
        })
    }
}

#[cfg(test)]
mod tests;
