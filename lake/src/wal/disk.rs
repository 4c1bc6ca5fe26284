//! The disk that the log is on: how much of it the log leaves to those who drain it.
//!
//! A flush writes files before it frees segments, so a log that took the last bytes would never
//! get rid of anything again.

use crate::wal::{Wal, WalError, WalOptions, segment};
use icecore_schemas::service_table::RecordKind;

/// The disk is low when less than this many times the share is free that must stay free.
const LOW_TIMES: u64 = 2;

/// A file of ids takes less than this many times what their records take in the log.
const ID_FILE_TIMES: u64 = 2;

/// A log with less than this part of its bound left counts as full for those who only ask: large
/// groups are refused by then.
const NEARLY_ALL: u64 = 64;

/// Fails when less than the share that must stay free would be left after `more` bytes.
///
/// # Errors
/// [`WalError::Full`], and [`WalError::Io`] when the disk does not answer.
pub(crate) fn check(options: &WalOptions, more: u64) -> Result<(), WalError> {
    let DiskRoom { free, all, least } = room(options)?;
    if free < least.saturating_add(more) {
        let after = match more {
            0 => String::new(),
            more => format!(" after {more} more (wal.segment_bytes)"),
        };
        let reason = format!(
            "{free} of {all} bytes of its disk are free, and {least} (wal.disk_free_min) must stay free{after}"
        );
        return Err(WalError::Full { reason });
    }
    Ok(())
}

/// The bytes that are left of a disk that is nearly full; none while there is room.
pub(crate) fn left(options: &WalOptions) -> Option<u64> {
    // A disk that does not answer is reported by whoever writes to it next.
    let DiskRoom { free, least, .. } = room(options).ok()?;
    (free < least.saturating_mul(LOW_TIMES)).then_some(free)
}

impl Wal {
    /// Gives the disk back what nobody needs: segments that a pin held while they were trimmed, and
    /// the files that wait to be segments. Blocking: a few files are removed.
    pub fn give_up_free(&self) {
        self.inner.remove_retired_unless_busy();
        self.inner.remove_free();
    }

    /// Fails while a nearly full disk has less left than a file of the ids that only the log has. A
    /// flush that took those bytes would get nothing for them: a segment goes when its ids are in a
    /// file.
    ///
    /// # Errors
    /// [`WalError::Full`].
    pub fn check_room_for_ids(&self) -> Result<(), WalError> {
        let Some(left) = self.disk_left() else { return Ok(()) };
        let pending = self.pending();
        let keys = pending.iter().filter(|pending| pending.kind == RecordKind::Keys);
        let needed = keys.map(|pending| pending.bytes).sum::<u64>() * ID_FILE_TIMES;
        if left < needed {
            let reason = format!(
                "{left} bytes of its disk are free, and the ids of what it holds need {needed} before a table may take more"
            );
            return Err(WalError::Full { reason });
        }
        Ok(())
    }

    /// Whether the next small group would find room. It may be taken meanwhile, so only an append
    /// tells for certain; this is for those who ask without writing.
    ///
    /// # Errors
    /// [`WalError::Full`] with the bound that is reached; [`WalError::Io`] when the disk does not
    /// answer.
    pub fn check_writable(&self) -> Result<(), WalError> {
        let options = &self.inner.options;
        let (waiting, has_segment, has_free) = {
            let index = self.inner.index();
            (index.bytes(), index.has_current(), !index.free.is_empty())
        };
        let bound = options.bytes_max;
        if bound - bound / NEARLY_ALL <= waiting {
            let reason =
                format!("{waiting} bytes are waiting to be committed, and the limit is {bound}");
            return Err(WalError::Full { reason });
        }
        match (has_segment, has_free) {
            (false, false) => check(options, options.segment_bytes),
            // A file that is kept for reuse can be given back to the disk, or be the next segment.
            (false | true, true) => Ok(()),
            (true, false) => check(options, 0),
        }
    }
}

/// Bytes of the disk.
struct DiskRoom {
    free: u64,
    all: u64,
    /// Must stay free.
    least: u64,
}

fn room(options: &WalOptions) -> Result<DiskRoom, WalError> {
    let folder = &options.folder;
    let disk = rustix::fs::statvfs(folder)
        .map_err(|source| segment::io_error("check the free space of", folder, source.into()))?;
    let all = disk.f_blocks.saturating_mul(disk.f_frsize);
    Ok(DiskRoom {
        free: disk.f_bavail.saturating_mul(disk.f_frsize),
        all,
        least: (all as f64 * options.disk_free_min) as u64,
    })
}
