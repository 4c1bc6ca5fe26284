//! The folder of a log: whose process it is, and which log it holds.
//!
//! A log has an identity from its first moment on: positions are places in that log and in no
//! other. Its one invariant: a folder's identity is durable before the first record, and changes
//! only together with all records.

use crate::wal::{
    RecordRef, WalError,
    recover::{self, SegmentTail},
    segment::{self, io_error},
};
use std::{
    fs::{self, File, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};
use uuid::Uuid;

const IDENTITY: &str = "identity";

/// A log folder that this process has for itself, as long as this lives.
#[derive(Debug)]
pub struct LogFolder {
    pub(super) lock: File,
    path: PathBuf,
    log: Uuid,
    has_segments: bool,
}

impl LogFolder {
    /// Takes a folder for this process; a folder without a log gets one. Durable on return.
    /// Blocking.
    ///
    /// # Errors
    /// [`WalError::Io`], [`WalError::InUse`], [`WalError::Identity`].
    pub fn take(path: &Path) -> Result<Self, WalError> {
        segment::create_folder(path)?;
        let lock = lock(path)?;
        let has_segments = !segment::list(path)?.segments.is_empty();
        let log = match identity(path)? {
            Some(log) => log,
            None => identify(path)?,
        };
        Ok(Self { lock, path: path.to_owned(), log, has_segments })
    }

    /// Which log this is.
    #[must_use]
    pub fn log(&self) -> Uuid {
        self.log
    }

    /// Whether there was never a record in it.
    #[must_use]
    pub fn is_new(&self) -> bool {
        !self.has_segments
    }

    /// The records that it holds, in order. Blocking.
    ///
    /// # Errors
    /// [`WalError::Io`], [`WalError::Damaged`].
    pub fn records(&self) -> Result<Vec<RecordRef>, WalError> {
        recover::sound_records(&segment::list(&self.path)?)
    }

    /// Gives back the disk of the files that wait to be segments; how many bytes. Blocking.
    ///
    /// # Errors
    /// [`WalError::Io`].
    pub fn remove_free(&self) -> Result<u64, WalError> {
        let mut given = 0;
        for (_, path) in segment::list(&self.path)?.free {
            let bytes =
                fs::metadata(&path).and_then(|file| fs::remove_file(&path).map(|()| file.len()));
            given += bytes.map_err(|source| io_error("remove", &path, source))?;
        }
        Ok(given)
    }

    /// Makes room for a new log, and takes the folder again: a log that has records, or does not
    /// read, goes to the folder that comes back as well. Blocking.
    ///
    /// # Errors
    /// [`WalError::Io`]; what was there is still there, under the one name or the other.
    pub fn set_aside(self) -> Result<(Self, Option<PathBuf>), WalError> {
        if self.is_new() {
            return Ok((self, None));
        }
        let path = self.path.clone();
        let scans = recover::scan_all(&segment::list(&path)?)?;
        let is_empty = |scan: &recover::SegmentScan| {
            scan.records.is_empty() && !matches!(scan.tail, SegmentTail::Damaged { .. })
        };
        if scans.iter().all(is_empty) {
            fs::remove_dir_all(&path).map_err(|source| io_error("remove", &path, source))?;
            return Ok((Self::take(&path)?, None));
        }
        let parent = path.parent().unwrap_or(Path::new("."));
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let aside = parent.join(format!("{name}.left-{}", self.log));
        fs::rename(&path, &aside).map_err(|source| io_error("set aside", &path, source))?;
        segment::sync_folder(parent)?;
        Ok((Self::take(&path)?, Some(aside)))
    }
}

/// Which log a folder holds; none for one that an earlier version made, or that is empty.
///
/// # Errors
/// [`WalError::Io`], [`WalError::Identity`].
pub(super) fn identity(folder: &Path) -> Result<Option<Uuid>, WalError> {
    let path = folder.join(IDENTITY);
    match fs::read(&path) {
        Ok(text) => {
            let text = String::from_utf8_lossy(&text);
            Uuid::parse_str(text.trim()).map(Some).map_err(|_| WalError::Identity { path })
        }
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(io_error("read the log's identity in", &path, cause)),
    }
}

fn identify(folder: &Path) -> Result<Uuid, WalError> {
    let (path, log) = (folder.join(IDENTITY), Uuid::new_v4());
    let unfinished = path.with_extension("tmp");
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(segment::PRIVATE);
    let written = options.open(&unfinished).and_then(|mut file| {
        writeln!(file, "{log}")?;
        file.sync_all()?;
        fs::rename(&unfinished, &path)
    });
    written.map_err(|source| io_error("write the log's identity to", &path, source))?;
    segment::sync_folder(folder)?;
    Ok(log)
}

/// Takes the folder for this process, until the file is closed.
pub(super) fn lock(folder: &Path) -> Result<File, WalError> {
    let path = folder.join("lock");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|source| io_error("open", &path, source))?;
    match file.try_lock() {
        Ok(()) => {
            let number = std::process::id();
            // For the message to others alone, who see it only while the lock is held.
            let _ = file.set_len(0).and_then(|()| writeln!(file, "{number}"));
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            // As above: without it the message names no process.
            let _ = file.read_to_string(&mut text);
            let process = text.trim().parse().ok();
            Err(WalError::InUse { path: folder.to_owned(), process })
        }
        Err(TryLockError::Error(source)) => Err(io_error("lock", &path, source)),
    }
}
