//! Room for the start on a disk that is full.
//!
//! A start takes a new epoch, which is a write of the metastore. On a full disk that would fail, and
//! a server that ended there could not come back to let its log drain. So there is a file beside an
//! SQLite metastore that is given up for it. Its one invariant: nothing is in it, so it may be
//! missing, cut short or there at any time.

use crate::config::MetastoreUrl;
use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
};
use tracing::warn;

/// More than a start writes: some pages of 4 KiB.
const BYTES: usize = 256 << 10;

fn path(metastore: &MetastoreUrl) -> Option<PathBuf> {
    match metastore {
        MetastoreUrl::Sqlite(path) => Some(path.with_extension("reserve")),
        MetastoreUrl::Postgres(_) => None,
    }
}

/// Gives the room up; false when there is none to give.
pub(super) fn give_up(metastore: &MetastoreUrl) -> io::Result<bool> {
    let Some(path) = path(metastore).filter(|path| path.exists()) else { return Ok(false) };
    warn!(path = %path.display(), "the disk is full: room that was kept for the start is given up");
    fs::remove_file(path).map(|()| true)
}

/// Keeps room for the next start, if there is any to keep.
pub(super) fn keep(metastore: &MetastoreUrl) {
    let Some(path) = path(metastore) else { return };
    if fs::metadata(&path).is_ok_and(|file| file.len() == BYTES as u64) {
        return;
    }
    let mut options = OpenOptions::new();
    let made = options.write(true).create(true).truncate(true).mode(0o600).open(&path);
    // Written, not only sized: a hole would keep nothing.
    let kept = made.and_then(|mut file| file.write_all(&[0; BYTES]).and_then(|()| file.sync_all()));
    if let Err(error) = kept {
        warn!(path = %path.display(), %error, "no room is kept for a start on a full disk");
    }
}
