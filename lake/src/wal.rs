//! The write-ahead log: what is acknowledged is in it and durable, until it is in a table.
//!
//! A group of records is one block: one write, one fdatasync, whole or not there after a crash.
//! The log knows bytes only, not events. One writer appends; any number of readers read records
//! from the files, each by its own position.

mod block;
mod disk;
pub mod folder;
mod index;
pub mod inspect;
mod listing;
pub mod marks;
mod purge;
pub mod quota;
pub mod ranges;
mod reader;
pub mod recover;
mod segment;
mod writer;

#[cfg(test)]
mod tests;

use crate::{clock::Clock, faults::Failpoints, metrics::Metrics};
use bytes::Bytes;
use folder::LogFolder;
use icecore_schemas::{names::Namespace, service_table::RecordKind};
use index::{LogIndex, RetiredSegment};
use marks::MarkFile;
use segment::{FolderListing, SegmentEnd};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError as Busy,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use tokio::sync::watch;
use writer::LogTip;

/// A record's place in the log: dense, from 1, never reused. 0 is "before everything".
pub type LogPosition = u64;

/// The rows of one table in one group, before they have a position.
#[derive(Clone, Debug)]
pub struct LogRecord {
    /// Which table of the namespace.
    pub kind: RecordKind,
    /// Which namespace.
    pub namespace: Namespace,
    /// `seq` of its first row; rows count up from there. Dead letters have a count of their own.
    pub first_seq: u64,
    /// How many rows.
    pub rows: u32,
    /// The rows, as `event::codec` writes them.
    pub payload: Bytes,
}

/// A durable record, and where to read it. Stays readable while a [`LogPin`] taken before it was
/// listed is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordRef {
    /// Its place in the log.
    pub position: LogPosition,
    /// Which table of the namespace.
    pub kind: RecordKind,
    /// Which namespace.
    pub namespace: Namespace,
    /// `seq` of its first row.
    pub first_seq: u64,
    /// How many rows.
    pub rows: u32,
    /// The segment file.
    pub path: Arc<PathBuf>,
    /// Where the payload starts in it.
    pub offset: u64,
    /// How long the payload is.
    pub length: u32,
    /// crc32c of the payload.
    pub crc: u32,
    /// When it was written and made durable, ms since 1970 by the writer's clock; kept on disk.
    pub durable_ms: i64,
}

/// How the log is kept.
#[derive(Clone, Debug)]
pub struct WalOptions {
    /// The folder.
    pub folder: PathBuf,
    /// Size of a segment file, preallocated. Default 64 MiB.
    pub segment_bytes: u64,
    /// Free segments kept for reuse. Default 4.
    pub free_segments_max: usize,
    /// Most bytes of records that are not trimmed; beyond it appends are refused. Default 8 GiB.
    pub bytes_max: u64,
    /// Share of the disk that must stay free, so that the log can always drain. Default 0.05.
    pub disk_free_min: f64,
    /// Positions at or below this one are taken already (from the tables' watermarks).
    pub position_floor: LogPosition,
    /// Where its groups and syncs are counted.
    pub metrics: Metrics,
}

/// Why the log cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// A block is damaged and sound blocks follow it, so it was acknowledged once.
    #[error("segment `{}` is damaged at offset {offset}: {reason}; run `icecore wal inspect`, then `icecore wal quarantine` to set the rest of the segment aside", path.display())]
    Damaged {
        /// The segment file.
        path: PathBuf,
        /// Where the bad block starts.
        offset: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The file system failed. After a failed append nothing of the group counts as written, and
    /// the writer goes on in a new segment.
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
    /// Too little free disk, or too many bytes wait to be committed: nothing was written.
    #[error("the log is full: {reason}")]
    Full {
        /// Which bound, and its value.
        reason: String,
    },
    /// The records of a namespace do not leave the log, and have taken what they may of it.
    #[error(
        "namespace `{namespace}` does not accept events for now, because its earlier events cannot be stored: {reason}"
    )]
    Held {
        /// Which namespace.
        namespace: Namespace,
        /// Which table, and what is wrong with it.
        reason: String,
    },
    /// The file that says which log this is says nothing.
    #[error("`{}` is damaged and does not say which log this is: restore this file", path.display())]
    Identity {
        /// The file.
        path: PathBuf,
    },
    /// Another process has the log open.
    #[error("the log in `{}` is open in {}: stop that server first, or name another --data-dir",
        path.display(), process_name(*process))]
    InUse {
        /// The folder.
        path: PathBuf,
        /// The number of that process, where it left one.
        process: Option<u32>,
    },
}

fn process_name(process: Option<u32>) -> String {
    process.map_or_else(|| "another process".to_owned(), |number| format!("process {number}"))
}

/// What waits for one table.
#[derive(Clone, Debug)]
pub struct TableBacklog {
    /// Which table.
    pub kind: RecordKind,
    /// Of which namespace.
    pub namespace: Namespace,
    /// Position of its last record.
    pub last: LogPosition,
    /// Payload bytes of its records.
    pub bytes: u64,
    /// When its oldest record became durable.
    pub oldest_ms: i64,
    /// How many segments came after that of its oldest record: all of them may be kept for it.
    pub segments_since: u64,
    /// Whether its oldest record keeps a segment that a purge is to delete.
    pub is_purged: bool,
}

/// The log as readers see it. Cheap to clone.
///
/// The folder stays locked until every clone, pin and the writer are gone.
#[derive(Clone, Debug)]
pub struct Wal {
    inner: Arc<WalInner>,
}

#[derive(Debug)]
struct WalInner {
    options: WalOptions,
    faults: Failpoints,
    durable: watch::Sender<LogPosition>,
    /// Held for moments only, never during IO.
    index: Mutex<LogIndex>,
    /// Held while files of retired segments are removed; readers do not take it.
    removal: Mutex<()>,
    /// Whether a purge was asked for that has not ended. Changed under the lock of the index.
    is_purging: AtomicBool,
    /// Number of the next free file.
    next_file: AtomicU64,
    /// Where it is noted how far the log is, once that was compared with what is there.
    marks: OnceLock<MarkFile>,
    _lock: File,
}

/// While it lives, no record that was there when it was taken is overwritten.
#[derive(Debug)]
pub struct LogPin {
    wal: Wal,
    number: u64,
}

/// The only writer.
#[derive(Debug)]
pub struct WalWriter {
    wal: Wal,
    clock: Clock,
    tip: LogTip,
}

impl Wal {
    /// Takes the folder, and opens the log in it.
    ///
    /// # Errors
    /// [`WalError::InUse`], and as [`Wal::open_in`].
    pub fn open(
        options: WalOptions,
        clock: Clock,
        faults: Failpoints,
    ) -> Result<(Self, WalWriter), WalError> {
        Self::open_in(LogFolder::take(&options.folder)?, options, clock, faults)
    }

    /// Opens a log: cuts a torn tail, finds every record that is not trimmed, makes a new segment.
    /// Trims of an earlier life are not known; the caller trims again by the tables' watermarks.
    ///
    /// Where no segment can be made, as on a full disk, the log opens all the same so that it can
    /// drain, and the first append reports it. Blocking.
    ///
    /// # Errors
    /// [`WalError::Damaged`], [`WalError::Io`].
    pub fn open_in(
        folder: LogFolder,
        options: WalOptions,
        clock: Clock,
        faults: Failpoints,
    ) -> Result<(Self, WalWriter), WalError> {
        let listing = segment::list(&options.folder)?;
        let mut index = LogIndex::default();
        let tip = recover_into(&mut index, &listing, options.position_floor)?;
        let next_file = listing.free.last().map_or(1, |(number, _)| number + 1);
        index.free = sort_out_files(listing, &options);
        let inner = Arc::new(WalInner {
            durable: watch::Sender::new(tip.last_position()),
            options,
            faults,
            index: Mutex::new(index),
            removal: Mutex::new(()),
            is_purging: AtomicBool::new(false),
            next_file: AtomicU64::new(next_file),
            marks: OnceLock::new(),
            _lock: folder.lock,
        });
        // Segments without records give the file for the new one.
        inner.remove_retired()?;
        let wal = Self { inner };
        let mut writer = WalWriter::new(wal.clone(), clock, tip);
        if let Err(error) = writer.ensure_segment() {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the log has no segment to write to yet");
        }
        Ok((wal, writer))
    }

    /// Position of the last durable record; changes wake the receiver.
    #[must_use]
    pub fn durable(&self) -> watch::Receiver<LogPosition> {
        self.inner.durable.subscribe()
    }

    /// Holds what is there now.
    #[must_use]
    pub fn pin(&self) -> LogPin {
        LogPin { number: self.inner.index().pin(), wal: self.clone() }
    }

    /// Every durable record after `after`, of all tables, in order; also trimmed ones, as long as
    /// [`Wal::set_keep_after`] or a record that is not trimmed keeps their segment.
    #[must_use]
    pub fn all_records(&self, after: LogPosition) -> Vec<RecordRef> {
        self.inner.index().all_records(after)
    }

    /// What waits, a line a table, in no order.
    #[must_use]
    pub fn pending(&self) -> Vec<TableBacklog> {
        self.pending_of(|_| true)
    }

    /// Forgets the records of one table up to `through`: they are in the table. Segments without
    /// records are recycled once the last pin that saw them is gone: by this or a later trim, or
    /// when the writer goes on to a new segment. Blocking.
    ///
    /// # Errors
    /// [`WalError::Io`]; the records are forgotten all the same, and found again at the next start.
    pub fn trim(
        &self,
        kind: RecordKind,
        namespace: &Namespace,
        through: LogPosition,
    ) -> Result<(), WalError> {
        let last = self.inner.index().trim(kind, namespace, through);
        if let (Some(marks), Some(last)) = (self.inner.marks.get(), last) {
            marks.commit(kind, namespace, last);
        }
        self.inner.remove_retired()?;
        let folder = &self.inner.options.folder;
        let hit = self.inner.faults.hit("wal.after_trim");
        hit.map_err(|source| segment::io_error("trim log in", folder, source))
    }

    /// The bytes that are left of the log's disk when it is nearly full; none while there is room.
    /// Whoever moves the log elsewhere then does it in steps that fit.
    #[must_use]
    pub fn disk_left(&self) -> Option<u64> {
        disk::left(&self.inner.options)
    }

    /// Size of a segment file: records that take less may hold one for themselves.
    #[must_use]
    pub fn segment_bytes(&self) -> u64 {
        self.inner.options.segment_bytes
    }

    /// Keeps segments with records after `position` on disk even when their tables have them: the
    /// id index needs to read them again after a crash. Starts at 0, which keeps everything.
    pub fn set_keep_after(&self, position: LogPosition) {
        self.inner.index().set_keep_after(position);
    }

    /// Payload bytes of all records that are not trimmed.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.inner.index().bytes()
    }

    /// Most of them; beyond it appends are refused.
    #[must_use]
    pub fn bytes_max(&self) -> u64 {
        self.inner.options.bytes_max
    }
}

impl Drop for LogPin {
    fn drop(&mut self) {
        self.wal.inner.index().unpin(self.number);
    }
}

impl WalInner {
    fn index(&self) -> MutexGuard<'_, LogIndex> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock of removals, unless another thread has it: with many segments it has it for seconds.
    fn removal_unless_busy(&self) -> Option<MutexGuard<'_, ()>> {
        match self.removal.try_lock() {
            Ok(alone) => Some(alone),
            Err(Busy::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(Busy::WouldBlock) => None,
        }
    }

    /// Recycles or deletes the files of retired segments that no pin holds.
    fn remove_retired(&self) -> Result<(), WalError> {
        let _alone = self.removal.lock().unwrap_or_else(PoisonError::into_inner);
        self.remove_retired_alone()
    }

    /// The same, unless another thread is at it.
    fn remove_retired_unless_busy(&self) {
        let Some(_alone) = self.removal_unless_busy() else { return };
        if let Err(error) = self.remove_retired_alone() {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "cannot recycle a trimmed segment; it is retried");
        }
    }

    fn remove_retired_alone(&self) -> Result<(), WalError> {
        let mut removable = self.index().take_removable().into_iter();
        if let (Some(marks), false) = (self.marks.get(), removable.as_slice().is_empty())
            && let Err(failed) = marks.sync()
        {
            self.index().put_back(removable);
            return Err(failed);
        }
        while let Some(retired) = removable.next() {
            if let Err(failed) = self.remove(&retired) {
                self.index().put_back(std::iter::once(retired).chain(removable));
                return Err(failed);
            }
        }
        Ok(())
    }

    /// Takes one file away; it is no harm when it is gone already.
    fn remove(&self, retired: &RetiredSegment) -> Result<(), WalError> {
        let folder = &self.options.folder;
        // The file states where the segment before it ends: that must not be lost.
        segment::seal(folder, retired.previous)?;
        let path = retired.path.as_path();
        let may_stay = {
            let index = self.index();
            let has_room = index.free.len() < self.options.free_segments_max;
            has_room && !index.purge.takes(retired.generation)
        };
        let reusable = may_stay
            && fs::metadata(path).is_ok_and(|file| file.len() == self.options.segment_bytes)
            && disk::check(&self.options, 0).is_ok();
        let free = segment::free_path(folder, self.next_file.fetch_add(1, Ordering::Relaxed));
        let gone = if reusable { fs::rename(path, &free) } else { fs::remove_file(path) };
        match gone {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(segment::io_error("remove segment", path, source));
            }
            _ => segment::sync_folder(folder)?,
        }
        if reusable {
            self.keep_free(free);
        }
        Ok(())
    }
}

/// Puts what the segments hold into `index`, and says where the writer goes on.
fn recover_into(
    index: &mut LogIndex,
    listing: &FolderListing,
    position_floor: LogPosition,
) -> Result<LogTip, WalError> {
    let mut last_position = position_floor;
    let mut previous = SegmentEnd::default();
    for scan in recover::scan_all(listing)? {
        let (scan, header) = scan.check()?;
        if let recover::SegmentTail::Torn { reason } = &scan.tail {
            let (path, offset) = (scan.path.display(), scan.end);
            tracing::warn!(%path, offset, reason, "cut off a group that was never acknowledged");
        }
        last_position = last_position.max(scan.last_position());
        previous = SegmentEnd { generation: scan.generation, end: scan.end };
        index.add_segment(scan.generation, scan.path, header.previous);
        index.add_records(scan.generation, scan.records);
    }
    index.set_current(None);
    Ok(LogTip::new(previous, last_position + 1))
}

/// Keeps the free files that fit and removes the others.
fn sort_out_files(listing: FolderListing, options: &WalOptions) -> Vec<PathBuf> {
    let fits =
        |path: &PathBuf| fs::metadata(path).is_ok_and(|file| file.len() == options.segment_bytes);
    let paths = listing.free.into_iter().map(|(_, path)| path);
    let (mut free, mut useless): (Vec<_>, Vec<_>) = paths.partition(fits);
    if options.free_segments_max < free.len() {
        useless.extend(free.split_off(options.free_segments_max));
    }
    useless.iter().chain(&listing.unfinished).for_each(|path| segment::remove_quietly(path));
    free
}
