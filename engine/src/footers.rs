//! Footers of data files, which are read once with their page indexes.
//!
//! DataFusion 54 asks for a footer without the page index when it opens a file, keeps that, and reads the index from
//! the file in each query that could use it. Its one invariant: a footer that is kept has the page index of its
//! file, if that has one.

use bytes::Bytes;
use datafusion::{
    datasource::{
        listing::PartitionedFile,
        physical_plan::{
            ParquetFileReaderFactory,
            parquet::{CachedParquetFileReaderFactory, CachedParquetMetaData},
        },
    },
    error::DataFusionError,
    execution::cache::cache_manager::FileMetadataCache,
    object_store::{ObjectMeta, ObjectStore},
    physical_plan::metrics::ExecutionPlanMetricsSet,
};
use futures::{
    FutureExt,
    future::{self, BoxFuture},
};
use parquet::{
    arrow::{arrow_reader::ArrowReaderOptions, async_reader::AsyncFileReader},
    errors::Result as ParquetResult,
    file::metadata::ParquetMetaData,
};
use std::{ops::Range, sync::Arc};

/// The footer of a file, if it was read already.
#[must_use]
pub fn kept(cache: &Arc<dyn FileMetadataCache>, file: &ObjectMeta) -> Option<Arc<ParquetMetaData>> {
    let entry = cache.get(&file.location).filter(|entry| entry.is_valid_for(file))?;
    let footer = entry.file_metadata.as_any().downcast_ref::<CachedParquetMetaData>()?;
    Some(Arc::clone(footer.parquet_metadata()))
}

/// Opens data files for scans.
#[derive(Debug)]
pub struct FooterReaders {
    files: CachedParquetFileReaderFactory,
    cache: Arc<dyn FileMetadataCache>,
}

impl FooterReaders {
    /// Reads files of `store`, whose footers are kept in `cache`.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>, cache: Arc<dyn FileMetadataCache>) -> Self {
        Self { files: CachedParquetFileReaderFactory::new(store, Arc::clone(&cache)), cache }
    }
}

impl ParquetFileReaderFactory for FooterReaders {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        end_bytes: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>, DataFusionError> {
        let meta = file.object_meta.clone();
        let file = self.files.create_reader(partition, file, end_bytes, metrics)?;
        Ok(Box::new(FooterReader { file, meta, cache: Arc::clone(&self.cache) }))
    }
}

/// Reads one file.
struct FooterReader {
    file: Box<dyn AsyncFileReader + Send>,
    meta: ObjectMeta,
    cache: Arc<dyn FileMetadataCache>,
}

impl AsyncFileReader for FooterReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        self.file.get_bytes(range)
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        self.file.get_byte_ranges(ranges)
    }

    fn get_metadata<'a>(
        &'a mut self,
        _: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        match kept(&self.cache, &self.meta) {
            Some(footer) => future::ready(Ok(footer)).boxed(),
            // Without options, the page index is read with it.
            None => self.file.get_metadata(None),
        }
    }
}
