//! Room for the start on a disk that is full.
//!
//! A start opens the metastore and takes a new epoch. Both write: SQLite makes the index of its
//! journal anew, moves the journal to the file when a connection ends, and appends to it. On a full
//! disk that would fail, and a server that ended there could not come back to let its log drain. So
//! there is a file beside an SQLite metastore that is given up for it, and after that the log's free
//! segments. Its one invariant: nothing is in either, so they may be missing, cut short or there at
//! any time.

use crate::config::{Config, MetastoreUrl};
use icecore_catalog::{error::CatalogError, metastore::Metastore};
use icecore_lake::wal::folder::LogFolder;
use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
};
use tracing::warn;

/// Does `work`, again with the room that is kept for it where the disk is full.
///
/// # Errors
/// As `work` has it at last.
pub(super) async fn with_room<T>(
    config: &Config,
    folder: &LogFolder,
    work: impl AsyncFn() -> Result<T, CatalogError>,
) -> Result<T, CatalogError> {
    let kept: [&dyn Fn() -> io::Result<u64>; 2] =
        [&|| give_up(&config.metastore), &|| folder.remove_free().map_err(io::Error::other)];
    for give_up in kept {
        match work().await {
            Err(cause) if cause.is_out_of_space() => match give_up() {
                Ok(bytes) => {
                    warn!(bytes, "the disk is full: releasing the space reserved for a start")
                }
                Err(error) => {
                    warn!(%error, "the disk is full, and no reserved space can be released")
                }
            },
            done => return done,
        }
    }
    work().await
}

fn path(metastore: &MetastoreUrl) -> Option<PathBuf> {
    match metastore {
        MetastoreUrl::Sqlite(path) => Some(path.with_extension("reserve")),
        MetastoreUrl::Postgres(_) => None,
    }
}

/// How many bytes it gave.
fn give_up(metastore: &MetastoreUrl) -> io::Result<u64> {
    let Some(path) = path(metastore).filter(|path| path.exists()) else { return Ok(0) };
    let bytes = fs::metadata(&path)?.len();
    fs::remove_file(path).map(|()| bytes)
}

/// Keeps room for the next start, if there is any to keep. What is there already stays.
pub(super) fn keep(metastore: &MetastoreUrl) {
    let Some(path) = path(metastore) else { return };
    let held = fs::metadata(&path).map_or(0, |file| file.len());
    let Some(missing) =
        (Metastore::SQLITE_START_BYTES as u64).checked_sub(held).filter(|more| 0 < *more)
    else {
        return;
    };
    let missing = usize::try_from(missing).unwrap_or(Metastore::SQLITE_START_BYTES);
    let mut options = OpenOptions::new();
    let made = options.append(true).create(true).mode(0o600).open(&path);
    // Written, not only sized: a hole would keep nothing.
    let kept =
        made.and_then(|mut file| file.write_all(&vec![0; missing]).and_then(|()| file.sync_all()));
    if let Err(error) = kept {
        warn!(path = %path.display(), %error, "no space is reserved for a start on a full disk");
    }
}
