//! Every file below a folder with its length and its time, page by page: a folder may have millions.

use super::{Storage, StorageBackend, key, local, local::FolderWalk, local_path, remote};
use crate::{error::CatalogError, location::Location};
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::ObjectMeta;
use std::time::{SystemTime, UNIX_EPOCH};

/// Files of one page.
const PAGE_FILES: usize = 1_000;

/// A file as the store lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListedFile {
    pub(crate) location: String,
    pub(crate) bytes: u64,
    /// When it was last written by the store's clock, ms since 1970; none where it does not tell.
    pub(crate) modified_ms: Option<i64>,
    /// Whether it is a file itself: no link, no device, and its name is text.
    pub(crate) is_plain: bool,
}

/// The files below a folder, of which some were given. Not to be gone on with after an error.
pub(crate) struct FileListing {
    storage: Storage,
    folder: String,
    rest: ListingRest,
}

/// What was not given yet.
enum ListingRest {
    Disk(FolderWalk),
    Store { bucket: String, objects: BoxStream<'static, object_store::Result<ObjectMeta>> },
}

impl Storage {
    /// Lists the files below a folder, in no order, with those that are being written.
    ///
    /// # Errors
    /// [`CatalogError::LocationForbidden`].
    pub(crate) fn list_files(&self, folder: &Location) -> Result<FileListing, CatalogError> {
        self.listing(self.enter(folder.as_str())?)
    }

    /// All files of the warehouse, in order of name: for whoever looks at all of them, where a question
    /// for each would take hours.
    ///
    /// # Errors
    /// [`CatalogError::LocationForbidden`], [`CatalogError::Storage`].
    pub(crate) async fn list_all(&self) -> Result<Vec<ListedFile>, CatalogError> {
        self.listing(self.root().to_owned())?.rest().await
    }

    /// The same of a folder below it.
    ///
    /// # Errors
    /// [`CatalogError::LocationForbidden`], [`CatalogError::Storage`].
    pub(crate) async fn list_below(&self, folder: &str) -> Result<Vec<ListedFile>, CatalogError> {
        self.listing(self.enter(folder)?)?.rest().await
    }

    /// The names of the folders in a folder, in order; none where it is not there.
    ///
    /// # Errors
    /// [`CatalogError::LocationForbidden`] where a link leads to the folder, [`CatalogError::Storage`].
    pub(crate) async fn folders_in(&self, folder: &str) -> Result<Vec<String>, CatalogError> {
        let folder = self.enter(folder)?;
        let mut names = match &self.inner.place {
            StorageBackend::Local(_) => {
                let work = |disk: &local::LocalDisk, folder: &std::path::Path| {
                    disk.check_is_real(folder)?;
                    local::folders_in(folder)
                };
                self.on_disk("list", folder, work).await?
            }
            StorageBackend::S3 { bucket, store, .. } => {
                let listed = store.list_with_delimiter(Some(&key(bucket, &folder)?)).await;
                let listed = listed.map_err(self.failed("list", &folder))?;
                let names = listed.common_prefixes.iter().filter_map(|prefix| prefix.filename());
                names.map(str::to_owned).collect()
            }
            StorageBackend::Remote(_) => return Err(remote::only_reads("list", &folder)),
        };
        names.sort();
        Ok(names)
    }

    fn listing(&self, folder: String) -> Result<FileListing, CatalogError> {
        let rest = match &self.inner.place {
            StorageBackend::Local(_) => ListingRest::Disk(FolderWalk::new(local_path(&folder))),
            StorageBackend::S3 { bucket, store, .. } => ListingRest::Store {
                bucket: bucket.clone(),
                // An empty page comes after the last one, so it is asked once more.
                objects: store.list(Some(&key(bucket, &folder)?)).fuse().boxed(),
            },
            StorageBackend::Remote(_) => return Err(remote::only_reads("list", &folder)),
        };
        Ok(FileListing { storage: self.clone(), folder, rest })
    }

    /// Whether a name is one that a file has here while it is written, or after a crash then.
    #[must_use]
    pub(crate) fn is_temporary(&self, name: &str) -> bool {
        self.is_local() && local::is_temporary(name)
    }
}

impl FileListing {
    /// All that are left and are whole, in order of name.
    async fn rest(mut self) -> Result<Vec<ListedFile>, CatalogError> {
        let mut files = Vec::new();
        loop {
            let page = self.next_page().await?;
            if page.is_empty() {
                break;
            }
            files.extend(page.into_iter().filter(|file| file.is_plain));
        }
        files.sort_by(|one, other| one.location.cmp(&other.location));
        Ok(files)
    }

    /// The next files; no more after an empty page.
    ///
    /// # Errors
    /// [`CatalogError::LocationForbidden`] where a link leads to the folder, [`CatalogError::Storage`].
    pub(crate) async fn next_page(&mut self) -> Result<Vec<ListedFile>, CatalogError> {
        match &mut self.rest {
            ListingRest::Disk(rest) => {
                let (mut walk, folder) = (std::mem::take(rest), self.folder.clone());
                let work = move |disk: &local::LocalDisk, folder: &std::path::Path| {
                    disk.check_is_real(folder)?;
                    let files = walk.next_files(PAGE_FILES)?;
                    Ok((walk, files))
                };
                let (walk, files) = self.storage.on_disk("list", folder, work).await?;
                *rest = walk;
                Ok(files.iter().map(walked).collect())
            }
            ListingRest::Store { bucket, objects } => {
                let mut files = Vec::new();
                while files.len() < PAGE_FILES {
                    let next = objects.try_next().await;
                    let next = next.map_err(self.storage.failed("list", &self.folder))?;
                    let Some(object) = next else { break };
                    files.push(ListedFile {
                        location: format!("s3://{bucket}/{}", object.location),
                        bytes: object.size,
                        modified_ms: Some(object.last_modified.timestamp_millis()),
                        is_plain: true,
                    });
                }
                Ok(files)
            }
        }
    }
}

fn walked(file: &local::WalkedFile) -> ListedFile {
    let is_text = file.path.to_str().is_some();
    ListedFile {
        location: format!("file://{}", file.path.display()),
        bytes: file.bytes,
        modified_ms: file.modified.and_then(since_1970),
        is_plain: file.is_plain && is_text,
    }
}

/// None for a time before 1970, which no file of a warehouse has by itself.
fn since_1970(time: SystemTime) -> Option<i64> {
    let passed = time.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(passed.as_millis()).ok()
}

#[cfg(test)]
mod tests;
