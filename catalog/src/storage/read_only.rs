//! Stores by which readers that speak `object_store` read the warehouse's files, and do nothing else.
//!
//! Whoever can read files implements [`FileReader`], and [`ReadOnlyStore`] makes a store of it. Its one
//! invariant: nothing is written, listed or deleted through it.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, path::Path as Key,
};
use std::{fmt, ops::Range};

/// What a [`ReadOnlyStore`] reads by. The calls are those of [`ObjectStore`].
#[async_trait]
pub(super) trait FileReader: fmt::Debug + fmt::Display + Send + Sync + 'static {
    /// What every other call is told.
    const REFUSAL: &'static str = "the warehouse's files are written and listed by its storage";

    async fn get_opts(&self, path: &Key, options: GetOptions) -> Result<GetResult>;

    async fn get_ranges(&self, path: &Key, ranges: &[Range<u64>]) -> Result<Vec<Bytes>>;
}

/// A store that refuses all but reads.
#[derive(Debug)]
pub(super) struct ReadOnlyStore<R>(pub(super) R);

impl<R: fmt::Display> fmt::Display for ReadOnlyStore<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What a call that is not to read fails with.
pub(super) fn refusal<R: FileReader>() -> Error {
    Error::NotSupported { source: R::REFUSAL.into() }
}

#[async_trait]
impl<R: FileReader> ObjectStore for ReadOnlyStore<R> {
    async fn get_opts(&self, path: &Key, options: GetOptions) -> Result<GetResult> {
        self.0.get_opts(path, options).await
    }

    async fn get_ranges(&self, path: &Key, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.0.get_ranges(path, ranges).await
    }

    async fn put_opts(&self, _: &Key, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        Err(refusal::<R>())
    }

    async fn put_multipart_opts(
        &self,
        _: &Key,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(refusal::<R>())
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Key>>,
    ) -> BoxStream<'static, Result<Key>> {
        locations.map(|_| Err(refusal::<R>())).boxed()
    }

    fn list(&self, _: Option<&Key>) -> BoxStream<'static, Result<ObjectMeta>> {
        stream::once(async { Err(refusal::<R>()) }).boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Key>) -> Result<ListResult> {
        Err(refusal::<R>())
    }

    async fn copy_opts(&self, _: &Key, _: &Key, _: CopyOptions) -> Result<()> {
        Err(refusal::<R>())
    }
}

#[cfg(test)]
mod tests;
