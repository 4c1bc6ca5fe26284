//! The files of a warehouse with their lengths and times, in one listing: for whoever looks at all of
//! them, where a question for each would take hours.

use super::{Storage, StorageBackend, key, local};
use crate::{error::CatalogError, location::Location};
use futures::TryStreamExt;
use object_store::ObjectStore;
use std::{os::unix::fs::MetadataExt, path::Path};

/// A file as a listing of the warehouse has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileFacts {
    /// Where it is.
    pub location: String,
    /// Its length.
    pub bytes: u64,
    /// When it was last written, ms since 1970, by the clock of the disk or store.
    pub modified_ms: i64,
}

impl Storage {
    /// All files below a folder (the root is one too), in order of name.
    ///
    /// # Errors
    /// [`CatalogError::LocationForbidden`], [`CatalogError::Storage`].
    pub async fn list_with_facts(&self, folder: &str) -> Result<Vec<FileFacts>, CatalogError> {
        let is_root = Location::parse(folder).as_ref() == Some(&self.inner.root);
        let folder = if is_root { self.root().to_owned() } else { self.enter(folder)? };
        match &self.inner.place {
            StorageBackend::Local(_) => {
                let list = |_: &local::LocalDisk, path: &Path| local::list_with_facts(path);
                let files = self.on_disk("list", folder, list).await?;
                let listed = files.into_iter().filter_map(|(path, facts)| {
                    Some(FileFacts {
                        location: format!("file://{}", path.to_str()?),
                        bytes: facts.len(),
                        modified_ms: facts.mtime() * 1000 + facts.mtime_nsec() / 1_000_000,
                    })
                });
                Ok(listed.collect())
            }
            StorageBackend::S3 { bucket, store, .. } => {
                let listed = |object: object_store::ObjectMeta| FileFacts {
                    location: format!("s3://{bucket}/{}", object.location),
                    bytes: object.size,
                    modified_ms: object.last_modified.timestamp_millis(),
                };
                let objects = store.list(Some(&key(bucket, &folder)?)).map_ok(listed);
                let mut files: Vec<FileFacts> =
                    objects.try_collect().await.map_err(self.failed("list", &folder))?;
                files.sort_by(|a, b| a.location.cmp(&b.location));
                Ok(files)
            }
        }
    }
}
