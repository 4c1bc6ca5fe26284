//! Backups: what one consists of, and the list of its files.
//!
//! A backup is a folder with a copy of the metastore, the files of every table (or, for a warehouse
//! in S3, the list of its objects), and `backup.json`, which has a checksum of each file and comes
//! last. Its one invariant: a folder without that file is no backup. Making one is in [`create`],
//! using one in [`restore`].

pub mod create;
pub mod restore;

use crate::{server::StartError, wal::WalError};
use icecore_catalog::{error::CatalogError, metastore::sql::backups};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};
use xxhash_rust::xxh3::Xxh3Default;

/// The list of a backup's files.
const LIST: &str = "backup.json";
/// Form of that list that this program writes and reads.
const FORMAT: u32 = 1;
/// The copy of the metastore.
const METASTORE: &str = "metastore/icecore.db";
/// The files of the warehouse.
const WAREHOUSE: &str = "warehouse";
/// Log, index of ids and what else lies in the data folder, of a server that was stopped.
const DATA: &str = "data";
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
    /// A restored folder does not open.
    #[error("open what was restored")]
    Start(#[from] StartError),
}

/// What `backup.json` says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Backup {
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
    /// Its files, by their paths in the folder.
    pub files: Vec<CopiedFile>,
    /// Objects that stay in the store and that the server keeps there until the backup is forgotten.
    pub objects: Vec<HeldObject>,
}

/// A file of a backup.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CopiedFile {
    /// Path in the folder.
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
}

impl Backup {
    /// Reads the list of a backup.
    ///
    /// # Errors
    /// [`BackupError::Invalid`] when the backup is not whole or of another form.
    pub fn read(folder: &Path) -> Result<Self, BackupError> {
        let path = folder.join(LIST);
        let text = match fs::read(&path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                return Err(BackupError::Invalid(format!(
                    "`{}` has no `{LIST}`: it is no backup, or one that was not finished; `icecore \
                     backup list` tells which are",
                    folder.display()
                )));
            }
            read => read.map_err(failed("read", &path))?,
        };
        let backup: Self = serde_json::from_slice(&text)
            .map_err(|cause| failed("read", &path)(io::Error::from(cause)))?;
        if backup.format != FORMAT {
            return Err(BackupError::Invalid(format!(
                "`{}` has form {}, this program knows {FORMAT}: use a newer program",
                path.display(),
                backup.format
            )));
        }
        Ok(backup)
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

    fn write(&self, folder: &Path) -> Result<(), BackupError> {
        let (path, unfinished) = (folder.join(LIST), folder.join(format!("{LIST}.tmp")));
        let text = serde_json::to_vec_pretty(self)
            .map_err(|cause| failed("write", &path)(io::Error::from(cause)))?;
        let written = File::create(&unfinished).and_then(|mut file| {
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&unfinished, &path)?;
            File::open(folder)?.sync_all()
        });
        written.map_err(failed("write", &path))
    }
}

fn failed<'a>(
    operation: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> BackupError + use<'a> {
    move |source| BackupError::Io { operation, path: path.to_owned(), source }
}

/// Reads a file to its end and gives its size and checksum; copies it where `to` is given.
fn checksum(from: &Path, mut to: Option<&mut File>) -> io::Result<(u64, String)> {
    let mut file = File::open(from)?;
    let (mut hash, mut bytes) = (Xxh3Default::new(), 0);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = file.read(&mut chunk)?;
        if read == 0 {
            return Ok((bytes, format!("{:032x}", hash.digest128())));
        }
        hash.update(&chunk[..read]);
        bytes += read as u64;
        if let Some(to) = to.as_mut() {
            to.write_all(&chunk[..read])?;
        }
    }
}

/// Makes the folders above a file.
fn make_parents(file: &Path) -> io::Result<()> {
    file.parent().map_or(Ok(()), fs::create_dir_all)
}

/// Whether a folder is missing or has nothing in it.
fn is_free(folder: &Path) -> io::Result<bool> {
    match fs::read_dir(folder) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(cause) => Err(cause),
    }
}
