//! Backups: what one consists of, and the list of its files.
//!
//! A backup is a folder, or a place in a bucket, with a copy of the metastore, the files of every
//! table (or, for a warehouse in S3, the list of its objects), and `backup.json`, which has a
//! checksum of each file and comes last. Its one invariant: a place without that file is no backup.
//! Making one is in [`create`], using one in [`restore`], where it lies in [`place`].

pub mod create;
pub mod place;
pub mod restore;

use crate::server::StartError;
use icecore_catalog::{error::CatalogError, metastore::backups, storage::S3Options};
use icecore_lake::wal::WalError;
use place::BackupPlace;
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The list of a backup's files.
const LIST: &str = "backup.json";
/// Form of that list that this program writes and reads.
const FORMAT: u32 = 1;
/// The copy of the metastore, an SQLite file whichever database it is a copy of.
const METASTORE: &str = "metastore/icecore.db";
/// The files of the warehouse.
const WAREHOUSE: &str = "warehouse";
/// Log, index of ids and what else lies in the data folder, of a server that was stopped.
const DATA: &str = "data";
/// Files that are copied, or looked at, at the same time.
const AT_ONCE: usize = 8;
/// Bytes that are read at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// Why there is no backup, or nothing of one.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// What was asked for.
    #[error("{0}")]
    Invalid(String),
    /// A file of the backup.
    #[error("{operation} `{}`", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The metastore or the warehouse.
    #[error("read the tables")]
    Catalog(#[from] CatalogError),
    /// The log.
    #[error("look at the log")]
    Wal(#[from] WalError),
    /// A restore ended in its middle.
    #[error(
        "nothing is restored, and `{}` is left behind: remove it, with the warehouse and the database \
         of this restore, before you restore again",
        folder.display()
    )]
    HalfRestored {
        /// The data folder.
        folder: PathBuf,
        /// Why it ended.
        #[source]
        source: Box<BackupError>,
    },
    /// A restored folder does not open.
    #[error("open what was restored")]
    Start(#[from] StartError),
}

/// Whether data files may be links to those of the warehouse, or stay where they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyMode {
    /// Links where the file system can, which take no room and no time; objects stay in their
    /// bucket.
    Linked,
    /// Copies, which outlive damage of the originals.
    Copied,
}

/// What `backup.json` says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BackupManifest {
    format: u32,
    /// Its name.
    pub id: String,
    /// When it was begun, ms since 1970.
    pub begun_ms: i64,
    /// When it was whole.
    pub ended_ms: i64,
    /// The warehouse, as its tables name it.
    pub warehouse: String,
    /// Whether it has the log; without it everything that was acknowledged before is in tables.
    pub has_log: bool,
    /// Its files, by their paths in the place.
    pub files: Vec<CopiedFile>,
    /// Objects that stay in the store and that the server keeps there until the backup is forgotten.
    pub objects: Vec<HeldObject>,
}

/// A file of a backup.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CopiedFile {
    /// Path in the place.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// XXH3 with 128 bits of its contents, in hex.
    pub xxh3: String,
}

/// An object that a backup names.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HeldObject {
    /// Where it is.
    pub location: String,
    /// Its size.
    pub bytes: u64,
    /// Which version of its bytes, as the store tells them apart.
    #[serde(default)]
    pub etag: Option<String>,
}

impl BackupManifest {
    /// Reads the list of a backup.
    ///
    /// # Errors
    /// [`BackupError::Invalid`] when the backup is not whole or of another form.
    pub async fn read(place: &BackupPlace) -> Result<Self, BackupError> {
        Self::find(place).await?.ok_or_else(|| {
            BackupError::Invalid(format!(
                "`{}` has no `{LIST}`: it is not a backup, or one that was not finished; `icecore \
                 backup list` shows which are complete",
                place.name()
            ))
        })
    }

    /// As [`BackupManifest::read`]; none where no list is.
    async fn find(place: &BackupPlace) -> Result<Option<Self>, BackupError> {
        let Some(text) = place.read(LIST).await? else { return Ok(None) };
        let name = place.name();
        let backup: Self = serde_json::from_slice(&text)
            .map_err(|cause| BackupError::Invalid(format!("`{LIST}` of `{name}`: {cause}")))?;
        if backup.format != FORMAT {
            return Err(BackupError::Invalid(format!(
                "the backup `{name}` has format {}, but this program supports {FORMAT}: use a newer program",
                backup.format
            )));
        }
        Ok(Some(backup))
    }

    /// Their sizes together, objects included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let files = self.files.iter().map(|file| file.bytes);
        files.chain(self.objects.iter().map(|object| object.bytes)).sum()
    }

    /// What the metastore has of it.
    fn row(&self, place: &str) -> backups::Backup {
        backups::Backup {
            id: self.id.clone(),
            place: place.to_owned(),
            begun_ms: self.begun_ms,
            ended_ms: Some(self.ended_ms),
            files: (self.files.len() + self.objects.len()) as u64,
            bytes: self.bytes(),
            holds: !self.objects.is_empty(),
        }
    }

    async fn write(&self, place: &BackupPlace) -> Result<(), BackupError> {
        let text = serde_json::to_vec_pretty(self)
            .map_err(|cause| failed("write", Path::new(LIST))(io::Error::from(cause)))?;
        place.write(LIST, text).await
    }
}

/// What lies at a place.
#[derive(Debug)]
pub struct BackupEntry {
    /// Where.
    pub place: String,
    /// The backup; none where one was not finished, or something else is.
    pub backup: Option<BackupManifest>,
}

/// The backup at a place, or those one level below.
///
/// # Errors
/// [`BackupError`].
pub async fn list(place: &BackupPlace, s3: &S3Options) -> Result<Vec<BackupEntry>, BackupError> {
    if let Some(backup) = BackupManifest::find(place).await? {
        return Ok(vec![BackupEntry { place: place.name(), backup: Some(backup) }]);
    }
    let mut listed = Vec::new();
    for place in place.below(s3).await? {
        listed
            .push(BackupEntry { place: place.name(), backup: BackupManifest::find(&place).await? });
    }
    Ok(listed)
}

fn failed<'a>(
    operation: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> BackupError + use<'a> {
    move |source| BackupError::Io { operation, path: path.to_owned(), source }
}

/// Makes the folders above a file.
fn make_parents(file: &Path) -> io::Result<()> {
    file.parent().map_or(Ok(()), fs::create_dir_all)
}

/// Removes an SQLite file that is closed, and what lies beside it.
fn remove_database(file: &Path) -> Result<(), BackupError> {
    for end in ["", "-wal", "-shm"] {
        let mut name = file.as_os_str().to_owned();
        name.push(end);
        match fs::remove_file(&name) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", Path::new(&name))(cause));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether a folder is missing or has nothing in it.
fn is_free(folder: &Path) -> io::Result<bool> {
    match fs::read_dir(folder) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(cause) => Err(cause),
    }
}
