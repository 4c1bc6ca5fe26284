//! Files of a folder with the times of their last change.

use super::{Storage, StorageBackend, key, local, local::LocalDisk};
use crate::error::CatalogError;
use futures::TryStreamExt;
use std::{io, path::Path, time::UNIX_EPOCH};

/// A file, and when it was changed last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgedFile {
    /// Where it is.
    pub location: String,
    /// When that was, ms since 1970; none where the store does not tell.
    pub changed_ms: Option<i64>,
}

impl Storage {
    /// The files below a folder with their times, at most `most` of them.
    ///
    /// # Errors
    /// [`CatalogError::LocationForbidden`], [`CatalogError::Storage`].
    pub async fn list_aged(
        &self,
        folder: &str,
        most: usize,
    ) -> Result<Vec<AgedFile>, CatalogError> {
        let folder = self.enter(folder)?;
        match &self.inner.place {
            StorageBackend::Local(_) => {
                let aged = move |_: &LocalDisk, path: &Path| -> io::Result<Vec<AgedFile>> {
                    let files = local::list(path)?;
                    Ok(files.iter().take(most).filter_map(|file| on_disk(file)).collect())
                };
                self.on_disk("list", folder, aged).await
            }
            StorageBackend::S3 { bucket, store, .. } => {
                let mut objects = store.list(Some(&key(bucket, &folder)?));
                let mut files = Vec::new();
                while files.len() < most
                    && let Some(object) =
                        objects.try_next().await.map_err(self.failed("list", &folder))?
                {
                    files.push(AgedFile {
                        location: format!("s3://{bucket}/{}", object.location),
                        changed_ms: Some(object.last_modified.timestamp_millis()),
                    });
                }
                Ok(files)
            }
        }
    }
}

/// None for a name that is no text.
fn on_disk(file: &Path) -> Option<AgedFile> {
    let location = format!("file://{}", file.to_str()?);
    let changed = file.metadata().and_then(|found| found.modified()).ok();
    let since = changed.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    Some(AgedFile {
        location,
        changed_ms: since.and_then(|since| i64::try_from(since.as_millis()).ok()),
    })
}
