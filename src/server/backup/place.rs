//! Where a backup lies, in a folder of this machine or in a bucket, and how files get there and
//! back.
//!
//! Its one invariant: whatever is copied is counted and hashed on its way, so nothing is said to be
//! there whose bytes did not pass by.

use super::{BackupError, CHUNK_BYTES, CopiedFile, CopyMode, failed};
use crate::config::folder::absolute;
use bytes::Bytes;
use futures::TryStreamExt;
use icecore_catalog::{
    error::CatalogError,
    location::Location,
    storage::{S3Options, Storage, is_missing},
};
use object_store::{
    ObjectMeta, ObjectStoreExt,
    buffered::{BufReader, BufWriter},
    path::Path,
};
use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::PathBuf,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use xxhash_rust::xxh3::Xxh3Default;

/// Where a backup is, or shall be.
#[derive(Clone, Debug)]
pub enum BackupPlace {
    /// A folder of this machine.
    Folder(PathBuf),
    /// The objects below a place in a bucket.
    Bucket(Storage),
}

/// A file that is read or written.
#[derive(Clone, Debug)]
pub(super) enum PlaceFile {
    Disk(PathBuf),
    /// An object by its whole location.
    Bucket(Storage, String),
}

enum PlaceWriter {
    Disk(tokio::fs::File),
    Bucket(Box<BufWriter>),
}

impl BackupPlace {
    /// The place that a text names: `s3://bucket/prefix`, or a folder.
    ///
    /// # Errors
    /// [`BackupError::Invalid`] for another kind of URL.
    pub fn parse(text: &str, s3: &S3Options) -> Result<Self, BackupError> {
        if text.starts_with("s3://") {
            return Ok(Self::Bucket(Storage::open(text, s3)?));
        }
        let path = text.strip_prefix("file://").unwrap_or(text);
        if path.contains("://") {
            return Err(BackupError::Invalid(format!(
                "`{text}` is neither a folder nor s3://bucket/prefix"
            )));
        }
        let path = absolute(std::path::Path::new(path)).unwrap_or_else(|_| PathBuf::from(path));
        Ok(Self::Folder(fs::canonicalize(&path).unwrap_or(path)))
    }

    /// What lists call it.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Folder(folder) => folder.display().to_string(),
            Self::Bucket(storage) => storage.root().to_owned(),
        }
    }

    /// Whether it is the warehouse or lies in it.
    pub(super) fn is_in(&self, warehouse: &str) -> bool {
        let place = match self {
            Self::Folder(folder) => Location::parse(&format!("file://{}", folder.display())),
            Self::Bucket(storage) => Location::parse(storage.root()),
        };
        let warehouse = Location::parse(warehouse);
        place
            .zip(warehouse)
            .is_some_and(|(place, warehouse)| place == warehouse || place.is_inside(&warehouse))
    }

    /// Makes the folder, for its owner alone: it gets every event, and hashes of tokens.
    pub(super) fn make(self) -> Result<Self, BackupError> {
        let Self::Folder(folder) = self else { return Ok(self) };
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(failed("make", &folder))?;
        fs::canonicalize(&folder).map(Self::Folder).map_err(failed("make", &folder))
    }

    /// Whether nothing is there.
    pub(super) async fn is_free(&self) -> Result<bool, BackupError> {
        match self {
            Self::Folder(folder) => super::is_free(folder).map_err(failed("look at", folder)),
            Self::Bucket(storage) => is_free(storage).await,
        }
    }

    /// A file of the backup.
    pub(super) fn file(&self, name: &str) -> PlaceFile {
        match self {
            Self::Folder(folder) => PlaceFile::Disk(folder.join(name)),
            Self::Bucket(storage) => {
                PlaceFile::Bucket(storage.clone(), format!("{}/{name}", storage.root()))
            }
        }
    }

    /// Puts a file into the backup. Durable on return, but for the names of folders.
    pub(super) async fn add(
        &self,
        from: PlaceFile,
        path: String,
        files: CopyMode,
    ) -> Result<CopiedFile, BackupError> {
        let to = self.file(&path);
        if let (PlaceFile::Disk(from), PlaceFile::Disk(to)) = (&from, &to) {
            super::make_parents(to).map_err(failed("make", to))?;
            if files == CopyMode::Linked && fs::hard_link(from, to).is_ok() {
                let (bytes, xxh3) = copy(&PlaceFile::Disk(to.clone()), None).await?;
                return Ok(CopiedFile { path, bytes, xxh3 });
            }
        }
        let (bytes, xxh3) = copy(&from, Some(&to)).await?;
        Ok(CopiedFile { path, bytes, xxh3 })
    }

    /// A whole small file; none when it is missing.
    pub(super) async fn read(&self, name: &str) -> Result<Option<Bytes>, BackupError> {
        match self.file(name) {
            PlaceFile::Disk(path) => match fs::read(&path) {
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
                read => read.map(|text| Some(text.into())).map_err(failed("read", &path)),
            },
            PlaceFile::Bucket(storage, location) => match storage.get(&location).await {
                Err(cause) if is_missing(&cause) => Ok(None),
                got => Ok(Some(got?)),
            },
        }
    }

    /// Writes a whole small file, which is there with all its bytes or not at all. Durable on return.
    pub(super) async fn write(&self, name: &str, bytes: Vec<u8>) -> Result<(), BackupError> {
        let path = match self.file(name) {
            PlaceFile::Disk(path) => path,
            PlaceFile::Bucket(storage, location) => {
                return Ok(storage.put(&location, bytes.into()).await?);
            }
        };
        let unfinished = path.with_extension("json.tmp");
        let written = File::create(&unfinished).and_then(|mut file| {
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&unfinished, &path)?;
            path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
        });
        written.map_err(failed("write", &path))
    }

    /// The places one level below, in order of name.
    pub(super) async fn below(&self, s3: &S3Options) -> Result<Vec<Self>, BackupError> {
        match self {
            Self::Folder(folder) => {
                let entries = fs::read_dir(folder).map_err(failed("read", folder))?;
                let mut found = Vec::new();
                for entry in entries {
                    let path = entry.map_err(failed("read", folder))?.path();
                    if path.is_dir() {
                        found.push(path);
                    }
                }
                found.sort();
                Ok(found.into_iter().map(Self::Folder).collect())
            }
            Self::Bucket(storage) => {
                let (_, store) = storage.object_store();
                let prefix = prefix(storage)?;
                let listed = store.list_with_delimiter(Some(&prefix)).await;
                let listed = listed.map_err(bucket_failed("list", storage.root()))?;
                let name = |path: &Path| path.filename().map(str::to_owned);
                let names = listed.common_prefixes.iter().filter_map(name);
                let open = |name| Storage::open(&format!("{}/{name}", storage.root()), s3);
                names.map(|name| Ok(Self::Bucket(open(name)?))).collect()
            }
        }
    }
}

impl PlaceFile {
    /// A file of a warehouse.
    pub(super) fn of(warehouse: &Storage, location: &str) -> Self {
        match location.strip_prefix("file://") {
            Some(path) => Self::Disk(PathBuf::from(path)),
            None => Self::Bucket(warehouse.clone(), location.to_owned()),
        }
    }

    /// As messages call it.
    fn name(&self) -> PathBuf {
        match self {
            Self::Disk(path) => path.clone(),
            Self::Bucket(_, location) => PathBuf::from(location),
        }
    }

    async fn open(&self) -> Result<Box<dyn AsyncRead + Send + Unpin>, BackupError> {
        Ok(match self {
            Self::Disk(path) => {
                let opened = tokio::fs::File::open(path).await;
                Box::new(opened.map_err(failed("read", path))?)
            }
            Self::Bucket(storage, location) => {
                let found = look(storage, location).await?;
                let (_, store) = storage.object_store();
                Box::new(BufReader::with_capacity(store, &found, CHUNK_BYTES))
            }
        })
    }

    async fn create(&self) -> Result<PlaceWriter, BackupError> {
        match self {
            Self::Disk(path) => {
                super::make_parents(path).map_err(failed("make", path))?;
                let made = tokio::fs::File::create(path).await;
                made.map(PlaceWriter::Disk).map_err(failed("write", path))
            }
            Self::Bucket(storage, location) => {
                let (_, store) = storage.object_store();
                let key = storage.object_path(location)?;
                Ok(PlaceWriter::Bucket(Box::new(BufWriter::new(store, key))))
            }
        }
    }
}

impl PlaceWriter {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Disk(file) => file.write_all(bytes).await,
            Self::Bucket(object) => object.write_all(bytes).await,
        }
    }

    /// Durable on return.
    async fn finish(self) -> io::Result<()> {
        match self {
            Self::Disk(mut file) => {
                file.flush().await?;
                file.sync_all().await
            }
            Self::Bucket(mut object) => object.shutdown().await,
        }
    }
}

/// Reads a file to its end and gives its size and checksum; writes it where `to` is given.
pub(super) async fn copy(
    from: &PlaceFile,
    to: Option<&PlaceFile>,
) -> Result<(u64, String), BackupError> {
    let mut reader = from.open().await?;
    let mut writer = match to {
        Some(to) => Some((to.name(), to.create().await?)),
        None => None,
    };
    let (mut hash, mut bytes) = (Xxh3Default::new(), 0);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = reader.read(&mut chunk).await.map_err(failed("read", &from.name()))?;
        if read == 0 {
            break;
        }
        hash.update(&chunk[..read]);
        bytes += read as u64;
        if let Some((name, writer)) = &mut writer {
            writer.write(&chunk[..read]).await.map_err(failed("write", name))?;
        }
    }
    if let Some((name, writer)) = writer {
        writer.finish().await.map_err(failed("write", &name))?;
    }
    Ok((bytes, format!("{:032x}", hash.digest128())))
}

/// Size and version of an object.
pub(super) async fn look(storage: &Storage, location: &str) -> Result<ObjectMeta, BackupError> {
    let (_, store) = storage.object_store();
    let found = store.head(&storage.object_path(location)?).await;
    Ok(found.map_err(bucket_failed("look at", location))?)
}

/// Whether a bucket has nothing at and below the storage's root.
pub(super) async fn is_free(storage: &Storage) -> Result<bool, BackupError> {
    let (_, store) = storage.object_store();
    let prefix = prefix(storage)?;
    let found = store.list(Some(&prefix)).try_next().await;
    Ok(found.map_err(bucket_failed("list", storage.root()))?.is_none())
}

/// What the keys of all objects below the root begin with.
fn prefix(storage: &Storage) -> Result<Path, BackupError> {
    let root = storage.root();
    let key = root.strip_prefix("s3://").and_then(|rest| rest.split_once('/'));
    Path::parse(key.map_or("", |(_, key)| key)).map_err(|cause| {
        BackupError::Invalid(format!("`{root}` is not a location in a bucket: {cause}"))
    })
}

fn bucket_failed(
    operation: &'static str,
    location: &str,
) -> impl FnOnce(object_store::Error) -> CatalogError {
    let location = location.to_owned();
    move |source| CatalogError::Storage { operation, location, source }
}

/// Makes the names of all files below a folder durable.
pub(super) fn sync_folders(folder: &std::path::Path) -> io::Result<()> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            }
        }
        File::open(&folder)?.sync_all()?;
    }
    Ok(())
}
