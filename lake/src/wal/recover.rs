//! Reads segments back: which records are in them, and where they end.
//!
//! A group is written only once the one before it is durable. So in a segment's tail, a bad block
//! that no block follows was never acknowledged: it is torn, and is cut. A bad block that another
//! one follows, or that lies before an end stated elsewhere, was durable once: that is damage.
//! Nothing here writes.

use crate::wal::{
    LogPosition, RecordRef, WalError,
    block::{self, Block},
    segment::{self, FolderListing, HEADER_BYTES, SegmentHeader},
};
use std::{
    collections::HashMap,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
};

/// What follows the last sound block of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SegmentTail {
    /// Nothing.
    Clean,
    /// A block that was never acknowledged.
    Torn {
        /// What is wrong with it.
        reason: String,
    },
    /// A block that was durable once.
    Damaged {
        /// What is wrong with it.
        reason: String,
    },
}

impl std::fmt::Display for SegmentTail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Clean => f.write_str("clean"),
            Self::Torn { reason } => write!(f, "torn: {reason}"),
            Self::Damaged { reason } => write!(f, "DAMAGED: {reason}"),
        }
    }
}

/// A segment as it was read.
#[derive(Debug)]
pub(crate) struct SegmentScan {
    /// The file.
    pub(crate) path: Arc<PathBuf>,
    /// From its name.
    pub(crate) generation: u64,
    /// None when it is damaged.
    pub(crate) header: Option<SegmentHeader>,
    /// The records of its sound blocks.
    pub(crate) records: Vec<RecordRef>,
    /// Behind its last sound block.
    pub(crate) end: u64,
    /// What is there.
    pub(crate) tail: SegmentTail,
    /// Size of the file.
    pub(crate) file_bytes: u64,
}

impl SegmentScan {
    /// Position of its last record, or the last one before it.
    pub(crate) fn last_position(&self) -> LogPosition {
        let before = self.header.map_or(0, |header| header.first_position.saturating_sub(1));
        self.records.last().map_or(before, |record| record.position)
    }

    /// The segment when it is whole but for a torn tail.
    ///
    /// # Errors
    /// [`WalError::Damaged`].
    pub(crate) fn check(self) -> Result<(Self, SegmentHeader), WalError> {
        let reason = match (&self.tail, self.header) {
            (SegmentTail::Clean | SegmentTail::Torn { .. }, Some(header)) => {
                return Ok((self, header));
            }
            (SegmentTail::Damaged { reason } | SegmentTail::Torn { reason }, _) => reason.clone(),
            (SegmentTail::Clean, None) => "the segment has no header".to_owned(),
        };
        Err(WalError::Damaged { path: self.path.to_path_buf(), offset: self.end, reason })
    }
}

/// Reads every segment of a folder.
///
/// # Errors
/// [`WalError::Io`]. Damage is no error here, see [`SegmentScan::check`].
pub(crate) fn scan_all(listing: &FolderListing) -> Result<Vec<SegmentScan>, WalError> {
    let stated = stated_ends(listing)?;
    let mut bytes = Vec::new();
    let mut scans: Vec<SegmentScan> = Vec::with_capacity(listing.segments.len());
    let mut last_position = 0;
    for (generation, path) in &listing.segments {
        read_all(path, &mut bytes)?;
        let path = Arc::new(path.clone());
        let end = stated.get(generation).copied();
        let scan = scan(&bytes, &path, *generation, last_position, end);
        last_position = last_position.max(scan.last_position());
        scans.push(scan);
    }
    Ok(scans)
}

/// The records of segments that are whole but for torn tails, in order.
///
/// # Errors
/// [`WalError::Io`], [`WalError::Damaged`].
pub(crate) fn sound_records(listing: &FolderListing) -> Result<Vec<RecordRef>, WalError> {
    let mut records = Vec::new();
    for scan in scan_all(listing)? {
        records.extend(scan.check()?.0.records);
    }
    Ok(records)
}

/// The ends that later segments state of earlier ones.
fn stated_ends(listing: &FolderListing) -> Result<HashMap<u64, u64>, WalError> {
    let mut stated = HashMap::new();
    for (_, path) in &listing.segments {
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(HEADER_BYTES).read_to_end(&mut bytes))
            .map_err(|source| segment::io_error("read segment", path, source))?;
        if let Ok(header) = SegmentHeader::decode(&bytes) {
            let end = stated.entry(header.previous.generation).or_insert(header.previous.end);
            *end = header.previous.end.min(*end);
        }
    }
    Ok(stated)
}

/// Reads a whole segment. What is read is durable: after a crash of the process alone, a block
/// may be in the page cache only, and readers are about to rely on it.
fn read_all(path: &Path, bytes: &mut Vec<u8>) -> Result<(), WalError> {
    let mut file =
        File::open(path).map_err(|source| segment::io_error("open segment", path, source))?;
    file.sync_data().map_err(|source| segment::io_error("sync segment", path, source))?;
    bytes.clear();
    file.seek(SeekFrom::Start(0))
        .and_then(|_| file.read_to_end(bytes))
        .map(|_| ())
        .map_err(|source| segment::io_error("read segment", path, source))
}

/// Reads a segment's bytes; `stated` is where it ends, if another segment says so.
pub(crate) fn scan(
    bytes: &[u8],
    path: &Arc<PathBuf>,
    generation: u64,
    last_position: LogPosition,
    stated: Option<u64>,
) -> SegmentScan {
    let mut scan = SegmentScan {
        path: Arc::clone(path),
        generation,
        header: None,
        records: Vec::new(),
        end: 0,
        tail: SegmentTail::Clean,
        file_bytes: bytes.len() as u64,
    };
    let header = match read_header(bytes, generation) {
        Ok(header) => header,
        Err(reason) => {
            scan.tail = SegmentTail::Damaged { reason };
            return scan;
        }
    };
    scan.header = Some(header);
    scan.end = HEADER_BYTES;
    // A seal may be below the statement: `quarantine` cuts a damaged segment that way.
    let stated = match (stated, header.sealed_end(bytes)) {
        (Some(stated), Some(sealed)) => Some(stated.min(sealed)),
        (stated, sealed) => stated.or(sealed),
    };
    let mut expected = header.first_position.max(last_position + 1);
    while stated.is_none_or(|end| scan.end < end) {
        let rest = &bytes[scan.end as usize..];
        match block::decode(rest, header.owner) {
            // A block that nobody finished is not sound: this one is lost, or is not its place.
            Ok(block) if block.first_position != expected => {
                let found = block.first_position;
                let reason = format!("it has position {found} instead of {expected}");
                scan.tail = SegmentTail::Damaged { reason };
                break;
            }
            Ok(block) => {
                expected = block.first_position + block.entries.len() as u64;
                let length = block.length as u64;
                let records = records_of(block, Arc::clone(path), scan.end);
                scan.records.extend(records);
                scan.end += length;
            }
            Err(reason) => {
                scan.tail = judge(rest, &header, reason, stated.is_some());
                break;
            }
        }
    }
    scan
}

fn read_header(bytes: &[u8], generation: u64) -> Result<SegmentHeader, String> {
    let header = SegmentHeader::decode(bytes)?;
    if header.owner.generation != generation {
        return Err(format!("its header has generation {}", header.owner.generation));
    }
    Ok(header)
}

/// Says what a bad block at the start of `rest` means.
fn judge(
    rest: &[u8],
    header: &SegmentHeader,
    reason: String,
    before_stated_end: bool,
) -> SegmentTail {
    let later = rest.get(block::ALIGN..).and_then(|later| block::find_head(later, header.owner));
    if let Some(later) = later {
        let distance = later + block::ALIGN;
        let reason = format!("{reason}, but a sound block follows {distance} bytes later");
        return SegmentTail::Damaged { reason };
    }
    if before_stated_end {
        return SegmentTail::Damaged { reason };
    }
    if block::has_begun(rest, header.owner) {
        SegmentTail::Torn { reason }
    } else {
        SegmentTail::Clean
    }
}

fn records_of(block: Block, path: Arc<PathBuf>, start: u64) -> impl Iterator<Item = RecordRef> {
    block.entries.into_iter().zip(block.first_position..).map(move |(entry, position)| RecordRef {
        position,
        kind: entry.kind,
        namespace: entry.namespace,
        first_seq: entry.first_seq,
        rows: entry.rows,
        path: Arc::clone(&path),
        offset: start + entry.place.offset as u64,
        length: entry.place.length,
        crc: entry.place.crc,
        durable_ms: block.written_ms,
    })
}
