//! What a failed call says of the warehouse: a file at fault, or the warehouse as a whole.
//!
//! A local folder is gone when it is not there, or another folder is in its place; a store is when
//! it does not know the bucket, or the probe fails. A call that is refused or not answered is a reason
//! to probe and no more: stores refuse single objects, and some refuse missing ones.
//!
//! Its one invariant: no file is read, written or deleted in a folder that is not the warehouse, and none
//! of it counts as missing then.

use super::{Storage, StorageBackend, key, local, local::LocalDisk, local_path, probe};
use crate::{error::CatalogError, location::Location, usage};
use object_store::ObjectStoreExt;
use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

/// A store that takes longer for a look does not answer.
const LOOK_TIME_MAX: Duration = Duration::from_secs(5);

/// What a store calls a bucket that it does not have; the status alone is that of a missing file.
const NO_BUCKET: &str = "NoSuchBucket";

impl Storage {
    /// Why the warehouse cannot be used, as the last call found; none where nothing is known to be
    /// wrong.
    #[must_use]
    pub fn outage(&self) -> Option<String> {
        self.inner.outage.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes that the warehouse cannot be used, or, with none, that it can be again.
    pub fn note_outage(&self, reason: Option<String>) {
        let mut noted = self.inner.outage.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*noted, &reason) {
            (None, Some(reason)) => tracing::warn!("{reason}"),
            (Some(_), None) => tracing::info!(warehouse = self.root(), "the warehouse answers"),
            _ => (),
        }
        *noted = reason;
    }

    /// Whether a call failed since this was asked last, and the warehouse as a whole may be why.
    #[must_use]
    pub fn take_suspicion(&self) -> bool {
        self.inner.is_suspect.swap(false, Ordering::SeqCst)
    }

    /// Whether a store answers anything, asked for the file `name` at the root of the warehouse.
    pub async fn answers(&self, name: &str) -> bool {
        let StorageBackend::S3 { bucket, store, .. } = &self.inner.place else { return true };
        let Ok(key) = key(bucket, &format!("{}/{name}", self.root())) else { return true };
        match tokio::time::timeout(LOOK_TIME_MAX, store.head(&key)).await {
            Ok(Err(object_store::Error::Generic { .. })) | Err(_) => false,
            Ok(_) => true,
        }
    }

    /// Looks whether a local warehouse is there. A store is not asked.
    ///
    /// # Errors
    /// [`CatalogError::WarehouseOutage`].
    pub async fn look(&self) -> Result<(), CatalogError> {
        match self.inner.place {
            StorageBackend::Local(_) => {
                self.on_disk("look at", self.root().to_owned(), |_, _| Ok(())).await
            }
            StorageBackend::S3 { .. } | StorageBackend::Remote(_) => Ok(()),
        }
    }

    /// The free and all bytes of the disk that a local warehouse is on; none of a store.
    ///
    /// # Errors
    /// [`CatalogError::WarehouseOutage`], and [`CatalogError::Storage`] of a disk that does not answer.
    pub async fn disk_bytes(&self) -> Result<Option<(u64, u64)>, CatalogError> {
        if !self.is_local() {
            return Ok(None);
        }
        let asked = self.on_disk("ask the disk of", self.root().to_owned(), |_, folder| {
            let disk = rustix::fs::statvfs(folder)?;
            let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
            Ok((bytes(disk.f_bavail), bytes(disk.f_blocks)))
        });
        asked.await.map(Some)
    }

    /// As [`Storage::look`], and a folder that took the warehouse's place is the warehouse from now
    /// on if it has all `files`, which are the newest that are known.
    ///
    /// # Errors
    /// [`CatalogError::WarehouseOutage`].
    pub async fn adopt(&self, files: &[Location]) -> Result<(), CatalogError> {
        let files: Vec<PathBuf> = files.iter().map(|file| local_path(file.as_str())).collect();
        let adopt = move |disk: &LocalDisk| disk.adopt(&files);
        self.blocking("look at", self.root(), adopt).await
    }

    /// Runs `work` on a blocking thread; only for a local place.
    pub(super) async fn on_disk<T: Send + 'static>(
        &self,
        operation: &'static str,
        location: String,
        work: impl FnOnce(&LocalDisk, &Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T, CatalogError> {
        let path = local_path(&location);
        let guarded = move |disk: &LocalDisk| {
            disk.check_root()?;
            let done = disk.check_links(&path).and_then(|()| work(disk, &path));
            // What was done in a folder that is not the root any more does not count.
            disk.check_root()?;
            done
        };
        self.blocking(operation, &location, guarded).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        operation: &'static str,
        location: &str,
        work: impl FnOnce(&LocalDisk) -> io::Result<T> + Send + 'static,
    ) -> Result<T, CatalogError> {
        let inner = Arc::clone(&self.inner);
        let done = tokio::task::spawn_blocking(usage::carried(move || match &inner.place {
            StorageBackend::Local(disk) => work(disk),
            StorageBackend::S3 { .. } | StorageBackend::Remote(_) => {
                Err(io::Error::other("not a local place"))
            }
        }));
        // A thread that ends without an answer panicked or met the end of the process.
        let answer = done.await.unwrap_or_else(|ended| Err(io::Error::other(ended)));
        let answer = answer.map_err(local_failed(operation, location));
        self.note_outage(match &answer {
            Err(CatalogError::WarehouseOutage(reason)) => Some(reason.clone()),
            _ => None,
        });
        answer
    }

    /// What a failed call to the store of files means: the outage that is noted, if that may be why.
    pub(super) fn failed<'a>(
        &'a self,
        operation: &'static str,
        location: &'a str,
    ) -> impl FnOnce(object_store::Error) -> CatalogError + 'a {
        move |source| {
            if let Some(outage) = self.missing_bucket(&source) {
                return outage;
            }
            let may_be_outage = matches!(
                source,
                object_store::Error::PermissionDenied { .. }
                    | object_store::Error::Unauthenticated { .. }
                    | object_store::Error::Generic { .. }
            );
            if may_be_outage {
                if let Some(reason) = self.outage() {
                    return CatalogError::WarehouseOutage(reason);
                }
                self.inner.is_suspect.store(true, Ordering::SeqCst);
            }
            failed(operation, location)(source)
        }
    }

    /// The same of a call of the probe, which finds out anew what is wrong: what is noted may be over by
    /// now, or something else.
    pub(super) fn failed_probe<'a>(
        &'a self,
        operation: &'static str,
        location: &'a str,
    ) -> impl FnOnce(object_store::Error) -> CatalogError + 'a {
        move |source| match self.missing_bucket(&source) {
            Some(outage) => outage,
            None => failed(operation, location)(source),
        }
    }

    /// The outage that is noted where the store does not know the bucket.
    fn missing_bucket(&self, cause: &object_store::Error) -> Option<CatalogError> {
        if !lacks_bucket(cause) {
            return None;
        }
        let answer = probe::answer(cause);
        let reason = format!("the warehouse `{}` is not there: {answer}", self.root());
        self.note_outage(Some(reason.clone()));
        Some(CatalogError::WarehouseOutage(reason))
    }
}

fn lacks_bucket(cause: &object_store::Error) -> bool {
    matches!(cause, object_store::Error::NotFound { source, .. } if source.to_string().contains(NO_BUCKET))
}

pub(super) fn failed(
    operation: &'static str,
    location: &str,
) -> impl FnOnce(object_store::Error) -> CatalogError + use<> {
    let location = location.to_owned();
    move |source| CatalogError::Storage { operation, location, source }
}

pub(super) fn local_failed(
    operation: &'static str,
    location: &str,
) -> impl FnOnce(io::Error) -> CatalogError + use<> {
    let location = location.to_owned();
    move |cause| {
        if let Some(reason) = local::missing_root(&cause) {
            return CatalogError::WarehouseOutage(reason);
        }
        if local::is_outside(&cause) {
            return CatalogError::LocationForbidden(location);
        }
        if cause.kind() == io::ErrorKind::InvalidFilename {
            return CatalogError::Invalid(format!(
                "location `{location}` has a name that is too long for a file"
            ));
        }
        let source = if cause.kind() == io::ErrorKind::NotFound {
            object_store::Error::NotFound { path: location.clone(), source: cause.into() }
        } else {
            object_store::Error::Generic { store: "local disk", source: cause.into() }
        };
        CatalogError::Storage { operation, location, source }
    }
}
