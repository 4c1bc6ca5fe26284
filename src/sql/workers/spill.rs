//! The disk of queries that need more memory: they leave the log the room that it needs.

use icecore_engine::error::SqlError;
use std::{fs, path::Path, time::Duration};

/// How often it is looked at while a query runs.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How many times `wal.disk_free_min` stays free: below once, the log takes no more events.
const DISK_FREE_TIMES: f64 = 1.2;

/// Refuses the query of a worker that has rows in its folder, where too little of the disk is free. Two system
/// calls as a rule.
///
/// # Errors
/// [`SqlError::Limit`]
pub(super) fn check(folder: &Path, disk_free_min: f64) -> Result<(), SqlError> {
    // A disk that does not answer is told of by whoever writes to it next.
    let Ok(disk) = rustix::fs::statvfs(folder) else { return Ok(()) };
    let least = (disk.f_blocks as f64 * disk_free_min * DISK_FREE_TIMES) as u64;
    if least <= disk.f_bavail || !has_files(folder) {
        return Ok(());
    }
    Err(SqlError::Limit(
        "the query needs more memory, and the server's disk is too full to help out (wal.disk_free_min); select fewer columns or rows".to_owned(),
    ))
}

/// Whether there is a file in one of the folders of a folder.
fn has_files(folder: &Path) -> bool {
    let folders = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut within = folders.filter_map(|entry| fs::read_dir(entry.path()).ok());
    within.any(|mut files| files.next().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_with_rows_on_a_full_disk_ends() {
        let folder = tempfile::tempdir().unwrap();
        let within = folder.path().join("of-a-query");
        fs::create_dir(&within).unwrap();
        // More than all of the disk is never free.
        assert!(check(folder.path(), 1.0).is_ok());
        fs::write(within.join("rows"), "rows").unwrap();
        assert!(matches!(check(folder.path(), 1.0), Err(SqlError::Limit(_))));
        assert!(check(folder.path(), 0.0).is_ok());
    }
}
