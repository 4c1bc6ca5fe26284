//! The disk that the log is on: how much of it the log leaves to those who drain it.
//!
//! A flush writes files before it frees segments, so a log that took the last bytes would never
//! get rid of anything again.

use crate::wal::{WalError, WalOptions, segment};

/// Fails when less than the share that must stay free would be left after `more` bytes.
///
/// # Errors
/// [`WalError::Full`], and [`WalError::Io`] when the disk does not answer.
pub(crate) fn check(options: &WalOptions, more: u64) -> Result<(), WalError> {
    let folder = &options.folder;
    let disk = rustix::fs::statvfs(folder)
        .map_err(|source| segment::io_error("look at free disk of", folder, source.into()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let all = disk.f_blocks.saturating_mul(disk.f_frsize);
    let least = (all as f64 * options.disk_free_min) as u64;
    if free < least.saturating_add(more) {
        let reason = format!(
            "{free} of {all} bytes of its disk are free, and {least} must stay free after {more} more"
        );
        return Err(WalError::Full { reason });
    }
    Ok(())
}
