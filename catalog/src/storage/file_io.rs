//! [`Storage`] for the iceberg crate's readers and writers: same checks, same durability.
//!
//! The crate's traits are made for storages that travel as JSON. Ours holds open connections and
//! keys, so serializing it is an error, and the two hidden methods that the trait's macro would
//! add are written by hand: it would also register a deserializer, which must not exist.

use crate::{error::CatalogError, storage::Storage};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use iceberg::{
    Error, ErrorKind, Result,
    io::{
        FileMetadata, FileRead, FileWrite, InputFile, OutputFile, Storage as IcebergStorage,
        StorageConfig, StorageFactory,
    },
};
use serde::{Serialize, Serializer, ser::Error as _};
use std::{ops::Range, sync::Arc};

impl Serialize for Storage {
    fn serialize<S: Serializer>(&self, _: S) -> std::result::Result<S::Ok, S::Error> {
        Err(S::Error::custom("the warehouse's storage stays in its process"))
    }
}

impl StorageFactory for Storage {
    fn build(&self, _: &StorageConfig) -> Result<Arc<dyn IcebergStorage>> {
        Ok(Arc::new(self.clone()))
    }

    fn typetag_name(&self) -> &'static str {
        "icecore"
    }

    fn typetag_deserialize(&self) {}
}

#[async_trait]
impl IcebergStorage for Storage {
    async fn exists(&self, path: &str) -> Result<bool> {
        Storage::exists(self, path).await.map_err(foreign)
    }

    async fn metadata(&self, path: &str) -> Result<FileMetadata> {
        Ok(FileMetadata { size: self.size(path).await.map_err(foreign)? })
    }

    async fn read(&self, path: &str) -> Result<Bytes> {
        self.get(path).await.map_err(foreign)
    }

    async fn reader(&self, path: &str) -> Result<Box<dyn FileRead>> {
        Ok(Box::new(StorageReader { storage: self.clone(), location: path.to_owned() }))
    }

    async fn write(&self, path: &str, bytes: Bytes) -> Result<()> {
        self.put(path, bytes).await.map_err(foreign)
    }

    async fn writer(&self, path: &str) -> Result<Box<dyn FileWrite>> {
        let location = self.normalize(path).map_err(foreign)?.to_string();
        Ok(Box::new(StorageWriter { storage: self.clone(), location, bytes: Some(Vec::new()) }))
    }

    async fn delete(&self, path: &str) -> Result<()> {
        Storage::delete(self, path).await.map_err(foreign)
    }

    async fn delete_prefix(&self, path: &str) -> Result<()> {
        for location in self.list(path).await.map_err(foreign)? {
            Storage::delete(self, &location).await.map_err(foreign)?;
        }
        Ok(())
    }

    async fn delete_stream(&self, mut paths: BoxStream<'static, String>) -> Result<()> {
        while let Some(path) = paths.next().await {
            Storage::delete(self, &path).await.map_err(foreign)?;
        }
        Ok(())
    }

    fn new_input(&self, path: &str) -> Result<InputFile> {
        Ok(InputFile::new(
            Arc::new(self.clone()),
            self.normalize(path).map_err(foreign)?.to_string(),
        ))
    }

    fn new_output(&self, path: &str) -> Result<OutputFile> {
        Ok(OutputFile::new(
            Arc::new(self.clone()),
            self.normalize(path).map_err(foreign)?.to_string(),
        ))
    }

    fn typetag_name(&self) -> &'static str {
        "icecore"
    }

    fn typetag_deserialize(&self) {}
}

struct StorageReader {
    storage: Storage,
    location: String,
}

#[async_trait]
impl FileRead for StorageReader {
    async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        self.storage.get_range(&self.location, range).await.map_err(foreign)
    }
}

/// Collects a file in memory and puts it at the end, so that it appears whole or not at all.
struct StorageWriter {
    storage: Storage,
    location: String,
    /// None once closed.
    bytes: Option<Vec<u8>>,
}

#[async_trait]
impl FileWrite for StorageWriter {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let Some(collected) = &mut self.bytes else { return Err(closed(&self.location)) };
        collected.extend_from_slice(&bytes);
        Ok(())
    }

    async fn close(&mut self) -> Result<()> {
        let Some(collected) = self.bytes.take() else { return Err(closed(&self.location)) };
        self.storage.put(&self.location, collected.into()).await.map_err(foreign)
    }
}

fn closed(location: &str) -> Error {
    Error::new(ErrorKind::PreconditionFailed, format!("`{location}` is closed already"))
}

/// The error as the iceberg crate passes it on.
fn foreign(cause: CatalogError) -> Error {
    let kind = match &cause {
        CatalogError::LocationForbidden(_) => ErrorKind::DataInvalid,
        _ => ErrorKind::Unexpected,
    };
    Error::new(kind, "access the warehouse").with_source(Arc::new(cause))
}
