//! Files that are written together: each folder is synced once for all of them.

use super::{Storage, StorageBackend, local, local_path};
use crate::error::CatalogError;
use bytes::Bytes;
use std::path::{Path, PathBuf};

impl Storage {
    /// As [`Storage::put`], but the file has its name for good only after [`Storage::sync_names`],
    /// which costs one sync for all files of a folder.
    ///
    /// # Errors
    /// As [`Storage::put`].
    pub async fn put_deferred(&self, location: &str, bytes: Bytes) -> Result<(), CatalogError> {
        let StorageBackend::Local(_) = self.inner.place else {
            return self.put(location, bytes).await;
        };
        let location = self.enter(location)?;
        self.on_disk("write", location, move |disk, path| disk.write_deferred(path, &bytes)).await
    }

    /// How many files and folders were synced since this was opened; none in an object store, where
    /// a file that is written is durable.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        match &self.inner.place {
            StorageBackend::Local(disk) => disk.syncs(),
            StorageBackend::S3 { .. } | StorageBackend::Remote(_) => 0,
        }
    }

    /// Makes the names of files durable that were written by [`Storage::put_deferred`].
    ///
    /// # Errors
    /// [`CatalogError::LocationForbidden`], [`CatalogError::Storage`].
    pub async fn sync_names(&self, locations: &[&str]) -> Result<(), CatalogError> {
        let StorageBackend::Local(_) = self.inner.place else { return Ok(()) };
        let Some(first) = locations.first() else { return Ok(()) };
        let mut files = Vec::new();
        for location in locations {
            files.push(local_path(self.normalize(location)?.as_str()));
        }
        let sync = move |disk: &local::LocalDisk, _: &Path| {
            disk.sync_folders(files.iter().map(PathBuf::as_path))
        };
        self.on_disk("sync the folder of", (*first).to_owned(), sync).await
    }
}
