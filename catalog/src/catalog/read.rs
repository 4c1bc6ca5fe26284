//! Reading metadata files, of tables and of views.
//!
//! Its one invariant: what a file says is a table's only where identity and folder in it are those
//! that the metastore has for the table. Clients that may write a table's files may write anything
//! into its metadata file, and whose files a request reads, signs, moves or deletes must not follow
//! from that. Files are bounded as stored and as unpacked.

use super::{Catalog, write::WRITTEN_BYTES_MAX};
use crate::{
    columns, defaults,
    error::CatalogError,
    location::Location,
    metadata_file::GZIP,
    metastore::{TableRow, TrashRow},
    storage,
};
use bytes::Bytes;
use flate2::read::GzDecoder;
use iceberg::{
    ErrorKind,
    spec::{TableMetadata, ViewMetadata},
};
use serde::de::DeserializeOwned;
use std::{io::Read, sync::Arc};
use tracing::warn;
use uuid::Uuid;

/// Largest metadata file of a table or view, unpacked too. None as large is written, see
/// [`WRITTEN_BYTES_MAX`].
const FILE_BYTES_MAX: usize = 2 * WRITTEN_BYTES_MAX;
/// Larger and packed files are read off the async threads.
const INLINE_BYTES_MAX: usize = 1 << 20;

/// What the metastore knows of a table or view, whatever its file says.
#[derive(Clone, Copy, Debug)]
pub(super) struct KnownPointer<'a> {
    pub(super) uuid: Uuid,
    pub(super) location: &'a str,
    pub(super) metadata_location: &'a str,
}

impl TableRow {
    pub(super) fn known(&self) -> KnownPointer<'_> {
        let Self { uuid, location, metadata_location, .. } = self;
        KnownPointer { uuid: *uuid, location, metadata_location }
    }
}

impl TrashRow {
    pub(super) fn known(&self) -> KnownPointer<'_> {
        let Self { uuid, location, metadata_location, .. } = self;
        KnownPointer { uuid: *uuid, location, metadata_location }
    }
}

impl KnownPointer<'_> {
    fn check(&self, uuid: Uuid, location: &str) -> Result<(), CatalogError> {
        let is_same = match (Location::parse(self.location), Location::parse(location)) {
            (Some(own), Some(found)) => own == found,
            _ => self.location == location,
        };
        if self.uuid == uuid && is_same {
            return Ok(());
        }
        let file = self.metadata_location;
        warn!(file, table = %self.uuid, "a metadata file was overwritten: it names another table");
        Err(CatalogError::Invalid(format!(
            "metadata file `{file}` does not belong to the table that points to it: it was \
             overwritten with another `table-uuid`, `view-uuid` or `location`"
        )))
    }
}

impl Catalog {
    /// The metadata of a table; parsed files are cached.
    pub(super) async fn metadata_of(
        &self,
        known: KnownPointer<'_>,
    ) -> Result<Arc<TableMetadata>, CatalogError> {
        let location = known.metadata_location;
        if let Some(metadata) = self.inner.cache.get(location) {
            known.check(metadata.uuid(), metadata.location())?;
            return Ok(metadata);
        }
        let (metadata, bytes) =
            self.read_metadata::<TableMetadata>(location, FILE_BYTES_MAX).await?;
        let metadata = metadata.map_err(|text| broken(location, text))?;
        known.check(metadata.uuid(), metadata.location())?;
        let metadata = Arc::new(metadata);
        self.inner.cache.insert(location, &metadata, bytes);
        Ok(metadata)
    }

    /// The metadata of a view; parsed files are cached.
    pub(super) async fn view_metadata_of(
        &self,
        known: KnownPointer<'_>,
    ) -> Result<Arc<ViewMetadata>, CatalogError> {
        let location = known.metadata_location;
        if let Some(metadata) = self.inner.view_cache.get(location) {
            known.check(metadata.uuid(), metadata.location())?;
            return Ok(metadata);
        }
        let (metadata, bytes) =
            self.read_metadata::<ViewMetadata>(location, FILE_BYTES_MAX).await?;
        let metadata = metadata.map_err(|text| broken(location, text))?;
        known.check(metadata.uuid(), metadata.location())?;
        let metadata = Arc::new(metadata);
        self.inner.view_cache.insert(location, &metadata, bytes);
        Ok(metadata)
    }

    /// The metadata in a file that is no table's yet. Nothing of it is kept.
    pub(super) async fn foreign_metadata<M: DeserializeOwned + Send + 'static>(
        &self,
        location: &str,
    ) -> Result<M, CatalogError> {
        let (metadata, _) = self.read_metadata(location, WRITTEN_BYTES_MAX).await?;
        metadata.map_err(|text| {
            CatalogError::Invalid(format!("no metadata in file `{location}`: {text}"))
        })
    }

    /// What a metadata file says, and its length unpacked.
    async fn read_metadata<M: DeserializeOwned + Send + 'static>(
        &self,
        location: &str,
        bytes_max: usize,
    ) -> Result<(Result<M, String>, usize), CatalogError> {
        let range = 0..bytes_max as u64 + 1;
        let bytes = self.inner.storage.get_range(location, range).await.map_err(|cause| {
            if storage::is_missing(&cause) {
                return CatalogError::MissingMetadata(location.to_owned());
            }
            cause
        })?;
        if bytes.len() > bytes_max {
            return Err(too_large(location, bytes_max));
        }
        let is_small = bytes.len() <= INLINE_BYTES_MAX && !bytes.starts_with(&GZIP);
        let file = location.to_owned();
        let read = move || {
            let bytes = unpacked(&file, bytes, bytes_max)?;
            Ok((parsed(&bytes), bytes.len()))
        };
        if is_small {
            return read();
        }
        // A file that makes the parser panic is as unreadable as any other.
        let unreadable = |_| CatalogError::Invalid(format!("metadata file `{location}` is broken"));
        tokio::task::spawn_blocking(read).await.map_err(unreadable)?
    }
}

fn unpacked(location: &str, bytes: Bytes, bytes_max: usize) -> Result<Bytes, CatalogError> {
    if !bytes.starts_with(&GZIP) {
        return Ok(bytes);
    }
    let mut unpacked = Vec::new();
    let read = GzDecoder::new(&*bytes).take(bytes_max as u64 + 1).read_to_end(&mut unpacked);
    read.map_err(|cause| {
        CatalogError::Invalid(format!("metadata file `{location}` does not decompress: {cause}"))
    })?;
    if unpacked.len() > bytes_max {
        return Err(too_large(location, bytes_max));
    }
    Ok(unpacked.into())
}

/// A client may have written the file, so nothing in it is trusted to be readable.
fn parsed<M: DeserializeOwned>(bytes: &[u8]) -> Result<M, String> {
    defaults::check(bytes)?;
    serde_json::from_slice(bytes)
        .map_err(|cause| columns::explain(bytes).unwrap_or_else(|| cause.to_string()))
}

/// For the file of a table that was readable when it became the table's.
fn broken(location: &str, text: String) -> CatalogError {
    let source = iceberg::Error::new(ErrorKind::DataInvalid, text);
    CatalogError::Iceberg {
        operation: "read metadata",
        source: source.with_context("file", location),
    }
}

fn too_large(location: &str, bytes_max: usize) -> CatalogError {
    CatalogError::Invalid(format!(
        "metadata file `{location}` has more than {} MiB, compressed or not",
        bytes_max >> 20
    ))
}
