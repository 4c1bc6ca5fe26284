//! A look at a log that no server uses, and the way out when it is damaged.
//!
//! Answers plain values; printing them is the command line's matter. [`inspect`] changes nothing,
//! [`quarantine`] copies a damaged segment before it cuts it.

use crate::wal::{
    LogPosition, RecordRef, WalError,
    folder::{identity, lock},
    recover::{self, SegmentScan, SegmentTail},
    segment::{self, SegmentEnd, io_error},
};
use icecore_schemas::{names::Namespace, service_table::RecordKind};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
};
use uuid::Uuid;

/// What a log folder holds.
#[derive(Clone, Debug)]
pub struct LogReport {
    /// Which log it is; none for one that an earlier version made.
    pub log: Option<Uuid>,
    /// Its segments, oldest first.
    pub segments: Vec<SegmentReport>,
    /// Records by table, of sound blocks only.
    pub tables: Vec<TableReport>,
    /// Files kept to make segments of.
    pub free_segments: usize,
}

/// One segment.
#[derive(Clone, Debug)]
pub struct SegmentReport {
    /// The file.
    pub path: PathBuf,
    /// Its number.
    pub generation: u64,
    /// Size of the file.
    pub file_bytes: u64,
    /// Its sound blocks end here; a bad block, if there is one, starts here.
    pub end: u64,
    /// How many records its sound blocks have.
    pub records: usize,
    /// Positions of the first and the last one.
    pub positions: Option<(LogPosition, LogPosition)>,
    /// What follows the sound blocks.
    pub tail: SegmentTail,
}

/// The records of one table.
#[derive(Clone, Debug)]
pub struct TableReport {
    /// Which table.
    pub kind: RecordKind,
    /// Of which namespace.
    pub namespace: Namespace,
    /// How many records.
    pub records: u64,
    /// How many rows.
    pub rows: u64,
    /// Payload bytes.
    pub bytes: u64,
    /// Positions of the first and the last one.
    pub positions: (LogPosition, LogPosition),
}

/// A segment that was cut.
#[derive(Clone, Debug)]
pub struct QuarantinedSegment {
    /// The segment; gone when its header was damaged.
    pub segment: PathBuf,
    /// The copy of the whole file as it was.
    pub copy: PathBuf,
    /// Where it was cut.
    pub offset: u64,
    /// Records that are still in the log.
    pub records_kept: usize,
    /// What was wrong.
    pub reason: String,
}

/// Lists segments, tables and damage. Changes nothing. Blocking.
///
/// # Errors
/// [`WalError::Io`]; [`WalError::InUse`] while a server has the log open. Damage is in the report.
pub fn inspect(folder: &Path) -> Result<LogReport, WalError> {
    let listing = segment::list(folder)?;
    let _lock = existing_lock(folder)?;
    let scans = recover::scan_all(&listing)?;
    let mut tables = BTreeMap::new();
    for record in scans.iter().flat_map(|scan| &scan.records) {
        let key = (record.namespace.clone(), record.kind);
        let table = tables.entry(key).or_insert_with(|| TableReport {
            kind: record.kind,
            namespace: record.namespace.clone(),
            records: 0,
            rows: 0,
            bytes: 0,
            positions: (record.position, record.position),
        });
        table.records += 1;
        table.rows += u64::from(record.rows);
        table.bytes += u64::from(record.length);
        table.positions.1 = record.position;
    }
    Ok(LogReport {
        log: identity(folder)?,
        segments: scans.iter().map(report_segment).collect(),
        tables: tables.into_values().collect(),
        free_segments: listing.free.len(),
    })
}

/// The records of a log that no server has open, which stay readable while this lives.
#[derive(Debug)]
pub struct OfflineRecords {
    /// Which log it is; none for one that an earlier version made.
    pub log: Option<Uuid>,
    /// All that its files hold, in order; also those that are in a table.
    pub records: Vec<RecordRef>,
    _lock: Option<File>,
}

/// Lists the records of sound blocks. Changes nothing. Blocking.
///
/// # Errors
/// [`WalError::Io`]; [`WalError::InUse`] while a server has the log open; [`WalError::Damaged`].
pub fn records(folder: &Path) -> Result<OfflineRecords, WalError> {
    let listing = segment::list(folder)?;
    let lock = existing_lock(folder)?;
    let records = recover::sound_records(&listing)?;
    Ok(OfflineRecords { log: identity(folder)?, records, _lock: lock })
}

/// Makes a damaged log start again: copies each damaged segment to `quarantine/` in the folder,
/// then cuts it where the damage begins. Acknowledged events of the rest are then only in the
/// copy. Does nothing to a log without damage. Blocking.
///
/// # Errors
/// [`WalError::Io`]; [`WalError::InUse`] while a server has the log open.
pub fn quarantine(folder: &Path) -> Result<Vec<QuarantinedSegment>, WalError> {
    let _lock = lock(folder)?;
    let listing = segment::list(folder)?;
    let mut done = Vec::new();
    for scan in recover::scan_all(&listing)? {
        let SegmentTail::Damaged { reason } = &scan.tail else { continue };
        let copy = copy_aside(folder, &scan)?;
        cut(folder, &scan)?;
        done.push(QuarantinedSegment {
            segment: scan.path.to_path_buf(),
            copy,
            offset: scan.end,
            records_kept: scan.records.len(),
            reason: reason.clone(),
        });
    }
    Ok(done)
}

/// Takes the folder as long as the file lives. A log that no one ever opened has no lock, and gets
/// none here.
fn existing_lock(folder: &Path) -> Result<Option<File>, WalError> {
    folder.join("lock").exists().then(|| lock(folder)).transpose()
}

fn report_segment(scan: &SegmentScan) -> SegmentReport {
    let first = scan.records.first().map(|record| record.position);
    let last = scan.records.last().map(|record| record.position);
    SegmentReport {
        path: scan.path.to_path_buf(),
        generation: scan.generation,
        file_bytes: scan.file_bytes,
        end: scan.end,
        records: scan.records.len(),
        positions: first.zip(last),
        tail: scan.tail.clone(),
    }
}

/// A durable copy under a name that is not taken.
fn copy_aside(folder: &Path, scan: &SegmentScan) -> Result<PathBuf, WalError> {
    let aside = folder.join("quarantine");
    segment::create_folder(&aside)?;
    let copy = (0..u32::MAX)
        .map(|number| aside.join(format!("{:020}-{number}.seg", scan.generation)))
        .find(|path| !path.exists())
        .expect("a folder has fewer files than that");
    fs::copy(scan.path.as_path(), &copy)
        .and_then(|_| File::open(&copy)?.sync_all())
        .map_err(|source| io_error("copy segment to", &copy, source))?;
    segment::sync_folder(&aside)?;
    Ok(copy)
}

fn cut(folder: &Path, scan: &SegmentScan) -> Result<(), WalError> {
    let path = scan.path.as_path();
    if scan.header.is_none() {
        fs::remove_file(path).map_err(|source| io_error("remove segment", path, source))?;
        return segment::sync_folder(folder);
    }
    // The seal comes first: without it the cut segment would be shorter than others say it is.
    segment::seal(folder, SegmentEnd { generation: scan.generation, end: scan.end })?;
    File::options()
        .write(true)
        .open(path)
        .and_then(|file| {
            file.set_len(scan.end)?;
            file.sync_all()
        })
        .map_err(|source| io_error("cut segment", path, source))
}
