//! Files of the warehouse: local disk or an S3-compatible store, behind one durable interface.
//!
//! Every location is checked to lie inside the warehouse before any IO. A `put` returns once the
//! bytes are durable: on local disk that is temporary file, fsync, rename, fsync of the folder
//! (and of every folder that was made); on S3 it is the store's answer.

pub mod access;
pub mod bucket;
mod deferred;
mod file_io;
mod files;
pub(crate) mod listing;
mod local;
mod outage;
pub mod probe;
pub mod range_cache;
mod read_only;
pub mod remote;
mod s3;
pub mod sign;
mod sts;
#[cfg(test)]
mod tests;

use crate::{error::CatalogError, location::Location, usage};
use access::FileAccess;
use bytes::Bytes;
use files::LocalFiles;
use futures::TryStreamExt;
use local::LocalDisk;
use object_store::{
    ObjectStore, ObjectStoreExt,
    path::{Path as Key, PathPart},
};
use read_only::ReadOnlyStore;
use remote::RemoteFiles;
use s3::S3Store;
use std::{
    collections::HashSet,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// Region of S3-compatible stores that have none.
const REGION_DEFAULT: &str = "us-east-1";

/// Access keys and address of an S3-compatible store. Unset members come from the AWS defaults.
#[derive(Clone, Default)]
pub struct S3Options {
    /// Address of the server, such as `http://127.0.0.1:8333`; AWS when unset.
    pub endpoint: Option<String>,
    /// Region; `us-east-1` when unset.
    pub region: Option<String>,
    /// Access key id.
    pub access_key_id: Option<String>,
    /// Secret access key.
    pub secret_access_key: Option<String>,
    /// Session token of temporary keys.
    pub session_token: Option<String>,
    /// How clients get at the files.
    pub access: FileAccess,
}

impl std::fmt::Debug for S3Options {
    /// Shows no secrets: options end up in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3Options")
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("access_key_id", &self.access_key_id)
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

/// The warehouse's files. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Storage {
    inner: Arc<StorageInner>,
}

#[derive(Debug)]
struct StorageInner {
    root: Location,
    place: StorageBackend,
    calls: AtomicU64,
    ranges: Arc<range_cache::RangeCache>,
    /// Why it cannot be used, as the last call found.
    outage: Mutex<Option<String>>,
    /// Whether a call failed since the probe was asked for, and the warehouse may be why.
    is_suspect: AtomicBool,
    /// Parts of locations that the store does not answer for.
    #[cfg(test)]
    outages: std::sync::Mutex<Vec<String>>,
}

#[derive(Debug)]
enum StorageBackend {
    Local(LocalDisk),
    S3 {
        bucket: String,
        store: Arc<dyn ObjectStore>,
        options: S3Options,
        sessions: sts::KeyCache,
    },
    /// Another process has them.
    Remote(RemoteFiles),
}

impl Storage {
    /// Opens `file:///folder` (made when missing) or `s3://bucket/prefix`.
    ///
    /// # Errors
    /// [`CatalogError::Invalid`] for another kind of URL; [`CatalogError::Storage`] when the
    /// folder cannot be made.
    pub fn open(warehouse: &str, s3: &S3Options) -> Result<Self, CatalogError> {
        let root = Location::parse(warehouse).filter(Location::is_plain).ok_or_else(|| {
            CatalogError::Invalid(format!(
                "warehouse `{warehouse}` is neither file:///folder nor s3://bucket/prefix"
            ))
        })?;
        let place = if let Some(key) = root.as_str().strip_prefix("s3://") {
            let bucket = key.split('/').next().unwrap_or(key).to_owned();
            let store = S3Store::open(&bucket, s3);
            let store = store.map_err(outage::failed("open", root.as_str()))?;
            StorageBackend::S3 {
                bucket,
                store: Arc::new(store),
                options: s3.clone(),
                sessions: sts::KeyCache::default(),
            }
        } else {
            let disk = LocalDisk::open(&local_path(root.as_str()));
            StorageBackend::Local(disk.map_err(outage::local_failed("open", root.as_str()))?)
        };
        Ok(Self::of(root, place))
    }

    fn of(root: Location, place: StorageBackend) -> Self {
        Self {
            inner: Arc::new(StorageInner {
                root,
                place,
                calls: AtomicU64::new(0),
                ranges: Arc::default(),
                outage: Mutex::default(),
                is_suspect: AtomicBool::new(false),
                #[cfg(test)]
                outages: std::sync::Mutex::default(),
            }),
        }
    }

    /// Has every call fail for locations with one of these texts in them, and no other.
    #[cfg(test)]
    pub(crate) fn break_for(&self, parts: &[&str]) {
        *self.inner.outages.lock().unwrap() = parts.iter().map(|part| (*part).to_owned()).collect();
    }

    /// A bucket that is nowhere but in memory.
    #[cfg(test)]
    pub(crate) fn bucket_in_memory(warehouse: &str) -> Self {
        let root = Location::parse(warehouse).expect("a bucket and a prefix");
        let bucket = root.as_str()["s3://".len()..].split('/').next().unwrap_or_default();
        let place = StorageBackend::S3 {
            bucket: bucket.to_owned(),
            store: Arc::new(object_store::memory::InMemory::new()),
            options: S3Options::default(),
            sessions: sts::KeyCache::default(),
        };
        Self::of(root, place)
    }

    /// The warehouse's own location without a trailing slash: `file:///…` or `s3://bucket/prefix`.
    #[must_use]
    pub fn root(&self) -> &str {
        self.inner.root.as_str()
    }

    /// How many calls have gone to the disk or the store since this was opened.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.inner.calls.load(Ordering::Relaxed)
    }

    /// Whether the files are on a disk of this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        matches!(self.inner.place, StorageBackend::Local(_))
    }

    /// The one form of a location that clients may write in several (`file:/x`, `file:///x/`).
    ///
    /// # Errors
    /// [`CatalogError::LocationForbidden`] when it is not below the warehouse's root.
    pub fn normalize(&self, location: &str) -> Result<Location, CatalogError> {
        self.inner.root.admit(location)
    }

    /// As [`Storage::normalize`], for a call that goes there now.
    fn enter(&self, location: &str) -> Result<String, CatalogError> {
        let location = self.normalize(location)?;
        self.inner.calls.fetch_add(1, Ordering::Relaxed);
        #[cfg(test)]
        if self.inner.outages.lock().unwrap().iter().any(|part| location.as_str().contains(part)) {
            let source = object_store::Error::Generic { store: "test", source: "outage".into() };
            return Err(outage::failed("reach", location.as_str())(source));
        }
        Ok(location.to_string())
    }

    /// Writes a whole new or replaced file; durable on return.
    ///
    /// # Errors
    /// [`CatalogError::LocationForbidden`], [`CatalogError::Storage`].
    pub async fn put(&self, location: &str, bytes: Bytes) -> Result<(), CatalogError> {
        let location = self.enter(location)?;
        match &self.inner.place {
            StorageBackend::Local(_) => {
                self.on_disk("write", location, move |disk, path| disk.write(path, &bytes)).await
            }
            StorageBackend::S3 { bucket, store, .. } => {
                let length = bytes.len();
                let put = store.put(&key(bucket, &location)?, bytes.into()).await;
                put.map(|_| usage::count_written(length)).map_err(self.failed("write", &location))
            }
            StorageBackend::Remote(_) => Err(remote::only_reads("write", &location)),
        }
    }

    /// Reads a whole file.
    ///
    /// # Errors
    /// [`CatalogError::LocationForbidden`], [`CatalogError::Storage`].
    pub async fn get(&self, location: &str) -> Result<Bytes, CatalogError> {
        let location = self.enter(location)?;
        match &self.inner.place {
            StorageBackend::Local(_) => {
                let read = |_: &LocalDisk, path: &Path| local::read(path).map(Bytes::from);
                self.on_disk("read", location, read).await
            }
            StorageBackend::S3 { bucket, store, .. } => {
                let got = store.get(&key(bucket, &location)?).await;
                let got = got.map_err(self.failed("read", &location))?;
                let got = got.bytes().await.inspect(|bytes| usage::count_read(bytes.len()));
                got.map_err(self.failed("read", &location))
            }
            StorageBackend::Remote(files) => files.get(&location).await,
        }
    }

    /// Reads part of a file; shorter than asked for where the file ends.
    ///
    /// # Errors
    /// [`CatalogError::LocationForbidden`], [`CatalogError::Storage`].
    pub async fn get_range(
        &self,
        location: &str,
        range: Range<u64>,
    ) -> Result<Bytes, CatalogError> {
        let location = self.enter(location)?;
        match &self.inner.place {
            StorageBackend::Local(_) => {
                let read = move |_: &LocalDisk, path: &Path| {
                    local::read_range(path, range).map(Bytes::from)
                };
                self.on_disk("read", location, read).await
            }
            StorageBackend::S3 { bucket, store, .. } => {
                let got = store.get_range(&key(bucket, &location)?, range).await;
                let got = got.inspect(|bytes| usage::count_read(bytes.len()));
                got.map_err(self.failed("read", &location))
            }
            StorageBackend::Remote(files) => files.get_range(&location, range).await,
        }
    }

    /// As [`Storage::get_range`], and what `parse` makes of it, on a thread that may be blocked: a disk
    /// is read by the same one.
    ///
    /// # Errors
    /// As [`Storage::get_range`].
    pub async fn parse_range<T: Send + 'static>(
        &self,
        location: &str,
        range: Range<u64>,
        parse: impl FnOnce(&[u8]) -> T + Send + 'static,
    ) -> Result<T, CatalogError> {
        if self.is_local() {
            let location = self.enter(location)?;
            let read = move |_: &LocalDisk, path: &Path| {
                local::read_range(path, range).map(|bytes| parse(&bytes))
            };
            return self.on_disk("read", location, read).await;
        }
        let bytes = self.get_range(location, range).await?;
        let parsed = tokio::task::spawn_blocking(usage::carried(move || parse(&bytes))).await;
        parsed
            .map_err(|ended| outage::local_failed("parse", location)(std::io::Error::other(ended)))
    }

    /// A file's length in bytes.
    ///
    /// # Errors
    /// [`CatalogError::LocationForbidden`], [`CatalogError::Storage`].
    pub async fn size(&self, location: &str) -> Result<u64, CatalogError> {
        let location = self.enter(location)?;
        match &self.inner.place {
            StorageBackend::Local(_) => {
                let size = |_: &LocalDisk, path: &Path| local::size(path);
                self.on_disk("look at", location, size).await
            }
            StorageBackend::S3 { bucket, store, .. } => {
                let head = store.head(&key(bucket, &location)?).await;
                head.map(|object| object.size).map_err(self.failed("look at", &location))
            }
            StorageBackend::Remote(files) => files.size(&location).await,
        }
    }

    /// Whether the file is there.
    ///
    /// # Errors
    /// [`CatalogError::LocationForbidden`], [`CatalogError::Storage`].
    pub async fn exists(&self, location: &str) -> Result<bool, CatalogError> {
        match self.size(location).await {
            Ok(_) => Ok(true),
            Err(cause) if is_missing(&cause) => Ok(false),
            Err(cause) => Err(cause),
        }
    }

    /// Deletes a file; a missing one is no error.
    ///
    /// # Errors
    /// [`CatalogError::LocationForbidden`], [`CatalogError::Storage`].
    pub async fn delete(&self, location: &str) -> Result<(), CatalogError> {
        let location = self.enter(location)?;
        match &self.inner.place {
            StorageBackend::Local(_) => {
                self.on_disk("delete", location, |_, path| local::delete(path)).await
            }
            StorageBackend::S3 { bucket, store, .. } => {
                let deleted = store.delete(&key(bucket, &location)?).await;
                match deleted.map_err(self.failed("delete", &location)) {
                    Err(cause) if is_missing(&cause) => Ok(()),
                    deleted => deleted,
                }
            }
            StorageBackend::Remote(_) => Err(remote::only_reads("delete", &location)),
        }
    }

    /// Locations of all files below a folder (the root is one too), in order of name.
    ///
    /// # Errors
    /// [`CatalogError::LocationForbidden`], [`CatalogError::Storage`].
    pub async fn list(&self, folder: &str) -> Result<Vec<String>, CatalogError> {
        let is_root = Location::parse(folder).as_ref() == Some(&self.inner.root);
        let folder = if is_root { self.root().to_owned() } else { self.enter(folder)? };
        match &self.inner.place {
            StorageBackend::Local(_) => {
                let files = self.on_disk("list", folder, |_, path| local::list(path)).await?;
                let location = |file: &PathBuf| Some(format!("file://{}", file.to_str()?));
                Ok(files.iter().filter_map(location).collect())
            }
            StorageBackend::S3 { bucket, store, .. } => {
                let objects = store.list(Some(&key(bucket, &folder)?));
                let location =
                    |object: object_store::ObjectMeta| format!("s3://{bucket}/{}", object.location);
                let mut files: Vec<String> = objects
                    .map_ok(location)
                    .try_collect()
                    .await
                    .map_err(self.failed("list", &folder))?;
                files.sort();
                Ok(files)
            }
            StorageBackend::Remote(_) => Err(remote::only_reads("list", &folder)),
        }
    }

    /// Makes `data/` and `metadata/` below a table's location where the store has folders
    /// (DuckDB does not make them itself).
    ///
    /// # Errors
    /// [`CatalogError::LocationForbidden`], [`CatalogError::Storage`].
    pub async fn prepare_table(&self, location: &str) -> Result<(), CatalogError> {
        let location = self.enter(location)?;
        let StorageBackend::Local(_) = self.inner.place else { return Ok(()) };
        let make = |disk: &LocalDisk, path: &Path| {
            disk.make_folders(&[&path.join("data"), &path.join("metadata")])
        };
        self.on_disk("make folders in", location, make).await
    }

    /// Checks that no link on a local disk leads one of these files out of the warehouse, for
    /// readers that open them without this storage.
    ///
    /// # Errors
    /// [`CatalogError::LocationForbidden`], [`CatalogError::Storage`].
    pub async fn check_links(&self, files: Vec<Location>) -> Result<(), CatalogError> {
        // Where another process has the files, it looks whenever it reads one.
        let StorageBackend::Local(_) = self.inner.place else { return Ok(()) };
        let check = move |disk: &LocalDisk, _: &Path| {
            let mut folders = HashSet::new();
            for file in files {
                let path = local_path(file.as_str());
                let folder = path.parent().unwrap_or(&path);
                let is_link = path.symlink_metadata().is_ok_and(|found| found.is_symlink());
                // Most files of a table share a few folders.
                if is_link || folders.insert(folder.to_owned()) {
                    disk.check_links(&path)?;
                }
            }
            Ok(())
        };
        self.on_disk("look at", self.root().to_owned(), check).await
    }

    /// The same files for the iceberg crate's readers and writers, with the same checks and
    /// durability.
    #[must_use]
    pub fn file_io(&self) -> iceberg::io::FileIO {
        iceberg::io::FileIOBuilder::new(Arc::new(self.clone())).build()
    }

    /// The same files for readers that speak `object_store` (DataFusion): only to read, by the
    /// paths that [`Storage::object_path`] gives. The base URL to register it under is `file:///`
    /// or `s3://bucket`.
    ///
    /// # Panics
    /// Never: a bucket's name that was accepted at the start is part of a URL.
    #[must_use]
    pub fn object_store(&self) -> (url::Url, Arc<dyn ObjectStore>) {
        let (base, store): (String, Arc<dyn ObjectStore>) = match &self.inner.place {
            StorageBackend::Local(_) => {
                let files = LocalFiles(self.clone());
                ("file:///".to_owned(), Arc::new(ReadOnlyStore(files)))
            }
            StorageBackend::S3 { bucket, store, .. } => {
                (format!("s3://{bucket}"), Arc::clone(store))
            }
            StorageBackend::Remote(files) => (files.base(), Arc::new(ReadOnlyStore(files.clone()))),
        };
        (url::Url::parse(&base).expect("the bucket was accepted when the storage opened"), store)
    }

    /// What [`Storage::object_store`] calls a file.
    ///
    /// # Errors
    /// [`CatalogError::LocationForbidden`].
    pub fn object_path(&self, location: &str) -> Result<Key, CatalogError> {
        let location = self.normalize(location)?;
        match &self.inner.place {
            StorageBackend::Local(_) => Ok(files::object_path(&local_path(location.as_str()))),
            StorageBackend::S3 { bucket, .. } => key(bucket, location.as_str()),
            StorageBackend::Remote(files) => files.object_path(location.as_str()),
        }
    }
}

/// Whether an error says that the file is not there.
#[must_use]
pub fn is_missing(cause: &CatalogError) -> bool {
    matches!(cause, CatalogError::Storage { source: object_store::Error::NotFound { .. }, .. })
}

fn local_path(location: &str) -> PathBuf {
    PathBuf::from(location.strip_prefix("file://").unwrap_or(location))
}

/// The object's key in its bucket, byte for byte.
fn key(bucket: &str, location: &str) -> Result<Key, CatalogError> {
    let forbidden = || CatalogError::LocationForbidden(location.to_owned());
    let path = location.strip_prefix("s3://").and_then(|rest| rest.strip_prefix(bucket));
    let path = path.ok_or_else(forbidden)?;
    // A whole key with an empty segment does not parse, though its parts do.
    path.strip_prefix('/').unwrap_or(path).split('/').try_fold(Key::ROOT, |key, segment| {
        PathPart::parse(segment).map(|part| key.join(part)).map_err(|_| forbidden())
    })
}
