//! Appends groups: one write, one fdatasync, then readers see them.
//!
//! After a failed write the segment is given up at its last durable end, which the next segment's
//! header states; nothing is ever written behind a group whose fate is unknown.

use crate::{
    clock::Clock,
    wal::{
        LogPosition, LogRecord, RecordRef, Wal, WalError, WalInner, WalWriter,
        block::{self, BlockOwner, PayloadPlace},
        disk,
        marks::{MarkFile, RowMark},
        segment::{self, HEADER_BYTES, SegmentEnd, SegmentHeader},
    },
};
use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
};
use tokio::time::Instant;

/// Free disk is looked at again after this many bytes.
const DISK_CHECK_BYTES: u64 = 64 << 20;
/// A buffer larger than this is given back after use.
const BUFFER_BYTES_MAX: usize = 32 << 20;

/// What the writer knows and readers do not.
#[derive(Debug)]
pub(crate) struct LogTip {
    /// The segment that takes the next group.
    current: Option<OpenSegment>,
    /// The segment before, when there is no current one.
    previous: SegmentEnd,
    next_generation: u64,
    next_position: LogPosition,
    buffer: Vec<u8>,
    /// A thread that fills the file of a later segment.
    spare: Option<JoinHandle<()>>,
    /// Bytes until free disk is looked at again.
    unchecked_bytes: u64,
}

#[derive(Debug)]
struct OpenSegment {
    owner: BlockOwner,
    path: Arc<PathBuf>,
    file: File,
    size: u64,
    end: u64,
}

impl LogTip {
    /// A writer behind `previous`.
    pub(crate) fn new(previous: SegmentEnd, next_position: LogPosition) -> Self {
        Self {
            current: None,
            previous,
            next_generation: previous.generation + 1,
            next_position,
            buffer: Vec::new(),
            spare: None,
            unchecked_bytes: 0,
        }
    }

    /// Position of the last durable record.
    pub(crate) fn last_position(&self) -> LogPosition {
        self.next_position - 1
    }
}

impl WalWriter {
    pub(crate) fn new(wal: Wal, clock: Clock, tip: LogTip) -> Self {
        Self { wal, clock, tip }
    }

    /// Appends a group and returns the position of its last record once all of it is durable.
    /// Readers see the group at that moment, all of it at once. An empty group changes nothing.
    ///
    /// Blocking: one write and one fdatasync.
    ///
    /// # Errors
    /// [`WalError::Full`] before anything was written; [`WalError::Io`] when the group may or may
    /// not be on disk: it does not count, and the next append tries a new segment. It is cut off
    /// at once, so it will not reappear after a restart; only where that fails as well, and the
    /// process ends before a new segment could be made, may a restart find it, whole.
    pub fn append(&mut self, group: &[LogRecord]) -> Result<LogPosition, WalError> {
        if group.is_empty() {
            return Ok(self.tip.last_position());
        }
        self.check_bounds(group)?;
        let length = block::encoded_bytes(group) as u64;
        if self.tip.current.as_ref().is_none_or(|current| current.size < current.end + length) {
            self.roll(length)?;
        }
        let current = self.tip.current.as_ref().expect("it was just made");
        let inner = &self.wal.inner;
        inner
            .faults
            .hit("wal.before_write")
            .map_err(|source| segment::io_error("write segment", &current.path, source))?;

        // A group is one block, which recovery takes as a whole or not at all.
        let written_ms = self.clock.now_ms();
        let first = self.tip.next_position;
        let buffer = &mut self.tip.buffer;
        let places = block::encode(buffer, current.owner, first, written_ms, group);
        if let Err(failed) = write_durably(inner, current, buffer) {
            self.give_up();
            return Err(failed);
        }
        // Durable from here on. Readers see the group before its senders have their answer, so whoever
        // has an answer finds the rows.
        let rows: u32 =
            group.iter().filter(|record| record.kind.is_rows()).map(|record| record.rows).sum();
        self.wal.inner.options.metrics.wal_group.observe(f64::from(rows));
        self.publish(group, &places, written_ms);
        self.note(group, first, written_ms);
        // Too late to fail: the group is durable and seen. Aborts and delays are what this is for.
        let _ = self.wal.inner.faults.hit("wal.after_publish");
        self.prepare_spare();
        Ok(self.tip.last_position())
    }

    /// Notes the last rows of a group that is durable.
    fn note(&self, group: &[LogRecord], first: LogPosition, written_ms: i64) {
        let Some(marks) = self.wal.inner.marks.get() else { return };
        let rows = group.iter().zip(first..).filter_map(|(record, position)| {
            let more = u64::from(record.rows).checked_sub(1)?;
            let mark = RowMark { seq: record.first_seq + more, position };
            record.kind.is_rows().then(|| (record.kind, record.namespace.clone(), mark))
        });
        marks.acknowledge(rows, written_ms);
    }

    /// Makes the segment that the next group goes to, if there is none.
    pub(crate) fn ensure_segment(&mut self) -> Result<(), WalError> {
        if self.tip.current.is_some() { Ok(()) } else { self.roll(0) }
    }

    fn publish(&mut self, group: &[LogRecord], places: &[PayloadPlace], written_ms: i64) {
        let tip = &mut self.tip;
        let current = tip.current.as_mut().expect("the group was written to it");
        let records = group.iter().zip(places).zip(tip.next_position..);
        let records = records.map(|((record, place), position)| RecordRef {
            position,
            kind: record.kind,
            namespace: record.namespace.clone(),
            first_seq: record.first_seq,
            rows: record.rows,
            path: Arc::clone(&current.path),
            offset: current.end + place.offset as u64,
            length: place.length,
            crc: place.crc,
            durable_ms: written_ms,
        });
        let records = records.collect();
        current.end += tip.buffer.len() as u64;
        tip.next_position += group.len() as u64;
        tip.unchecked_bytes = tip.unchecked_bytes.saturating_sub(tip.buffer.len() as u64);
        if BUFFER_BYTES_MAX < tip.buffer.capacity() {
            tip.buffer = Vec::new();
        }
        self.wal.inner.index().add_records(current.owner.generation, records);
        self.wal.inner.durable.send_replace(tip.last_position());
    }

    /// Refuses what the log has no room for.
    fn check_bounds(&mut self, group: &[LogRecord]) -> Result<(), WalError> {
        let inner = &self.wal.inner;
        if group.iter().any(|record| u32::try_from(record.payload.len()).is_err()) {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "a record is over 4 GiB");
            return Err(segment::io_error("append to", &inner.options.folder, source));
        }
        let bytes: usize = group.iter().map(|record| record.payload.len()).sum();
        let (bytes, held) = (bytes as u64, inner.index().bytes());
        let bytes_max = inner.options.bytes_max;
        if bytes_max < held + bytes {
            let reason = format!(
                "{held} bytes are waiting to be committed, {bytes} more would exceed the limit of {bytes_max}"
            );
            return Err(WalError::Full { reason });
        }
        if self.tip.unchecked_bytes == 0 {
            if let Err(full) = disk::check(&inner.options, 0) {
                // What is kept for reuse is disk that a flush can use instead.
                if inner.remove_free() == 0 {
                    return Err(full);
                }
                disk::check(&inner.options, 0)?;
            }
            self.tip.unchecked_bytes = DISK_CHECK_BYTES;
        }
        Ok(())
    }

    /// Goes on in a new segment that has room for a block of `length` bytes.
    fn roll(&mut self, length: u64) -> Result<(), WalError> {
        let inner = &self.wal.inner;
        let tip = &mut self.tip;
        if let Some(full) = tip.current.take() {
            tip.previous = SegmentEnd { generation: full.owner.generation, end: full.end };
            inner.index().set_current(None);
            // A new segment takes disk, so the next append looks at what is left.
            tip.unchecked_bytes = 0;
            inner.remove_retired_unless_busy();
        }
        let folder = &inner.options.folder;
        let usual = inner.options.segment_bytes;
        // A block is never split. One that is longer than a segment gets a segment of its own, made
        // to its length.
        let oversize = usual < HEADER_BYTES + length;
        let free = if oversize {
            disk::check(&inner.options, length)?;
            None
        } else {
            Some(take_free(inner, tip)?)
        };
        // Counted before it is tried: a failed one may have left a file.
        let generation = tip.next_generation;
        tip.next_generation += 1;
        let owner = BlockOwner { generation, salt: rand::random() };
        let header =
            SegmentHeader { owner, first_position: tip.next_position, previous: tip.previous };
        let (path, file) = segment::create(folder, free, &header)?;
        let path = Arc::new(path);
        {
            let mut index = inner.index();
            index.add_segment(generation, Arc::clone(&path), tip.previous);
            index.set_current(Some(generation));
        }
        let size = usual.max(HEADER_BYTES + length);
        tip.current = Some(OpenSegment { owner, path, file, size, end: HEADER_BYTES });
        Ok(())
    }

    /// Leaves a segment whose last write failed, and cuts off what that may have left.
    fn give_up(&mut self) {
        let Some(failed) = self.tip.current.take() else { return };
        self.tip.previous = SegmentEnd { generation: failed.owner.generation, end: failed.end };
        self.tip.unchecked_bytes = 0;
        self.wal.inner.index().set_current(None);
        let cut = failed.file.set_len(failed.end).and_then(|()| failed.file.sync_all());
        if let Err(error) = cut {
            tracing::error!(
                path = %failed.path.display(),
                %error,
                "a failed group cannot be cut off; the next segment will say that it does not count"
            );
        }
    }

    /// Starts to fill a file for the next segment when the current one is half full.
    fn prepare_spare(&mut self) {
        let half_full = self.tip.current.as_ref().is_some_and(|now| now.size < 2 * now.end);
        if half_full && self.wal.inner.index().free.is_empty() {
            // Where there is no room, the next roll looks again and reports it.
            self.fill_spare();
        }
    }

    /// Starts to fill a file for the next segment, unless that goes on. Whether one is being filled.
    fn fill_spare(&mut self) -> bool {
        if self.is_filling() {
            return true;
        }
        let inner = &self.wal.inner;
        let tip = &mut self.tip;
        if disk::check(&inner.options, inner.options.segment_bytes).is_err() {
            return false;
        }
        join_spare(tip);
        let inner = Arc::clone(inner);
        let fill = std::thread::Builder::new().name("wal-spare".to_owned()).spawn(move || {
            match inner.fill_file() {
                Ok(path) => inner.keep_free(path),
                // The next roll tries again and reports it.
                Err(error) => tracing::warn!(%error, "a spare segment cannot be made"),
            }
        });
        tip.spare = fill.ok();
        tip.spare.is_some()
    }

    fn is_filling(&self) -> bool {
        self.tip.spare.as_ref().is_some_and(|spare| !spare.is_finished())
    }

    /// Does what a purge that was asked for needs of the writer, see [`Wal::purge`]. Whether it is to be
    /// called again soon, since the log goes on in a new segment then. Blocking.
    ///
    /// # Errors
    /// [`WalError::Io`]; the next call tries again.
    pub fn purge(&mut self) -> Result<bool, WalError> {
        if !self.wal.inner.is_purging() {
            return Ok(false);
        }
        let inner = Arc::clone(&self.wal.inner);
        let is_due = inner.index().purge.is_due();
        if is_due {
            // No file is made for reuse while those that are there are removed, and appends do not wait for it.
            if self.is_filling() {
                return Ok(true);
            }
            join_spare(&mut self.tip);
            inner.begin_purge(self.tip.next_generation - 1, self.tip.last_position())?;
        }
        let (goes_on, has_free) = {
            let index = inner.index();
            (index.purge.goes_on(), !index.free.is_empty())
        };
        if !goes_on {
            return Ok(false);
        }
        let current = self.tip.current.as_ref().map(|current| current.owner.generation);
        if current.is_some_and(|generation| inner.index().purge.takes(generation)) {
            if !has_free {
                // Without a file at hand appends would wait for one, or fail on a full disk.
                return Ok(self.fill_spare());
            }
            self.roll(0)?;
        }
        inner.end_purge();
        Ok(false)
    }
}

impl Drop for WalWriter {
    fn drop(&mut self) {
        join_spare(&mut self.tip);
        if let Some(Err(error)) = self.wal.inner.marks.get().map(MarkFile::sync) {
            tracing::warn!(%error, "the recorded position of the log may not be on disk");
        }
    }
}

impl WalInner {
    fn fill_file(&self) -> Result<PathBuf, WalError> {
        disk::check(&self.options, self.options.segment_bytes)?;
        let number = self.next_file.fetch_add(1, Ordering::Relaxed);
        segment::fill(&self.options.folder, number, self.options.segment_bytes)
    }

    /// Gives back the disk of the files that wait to be segments; how many there were.
    pub(crate) fn remove_free(&self) -> usize {
        let free = std::mem::take(&mut self.index().free);
        free.iter().for_each(|path| segment::remove_quietly(path));
        free.len()
    }

    /// Keeps a file to make a segment of, unless there are enough meanwhile.
    pub(crate) fn keep_free(&self, path: PathBuf) {
        let free = &mut self.index().free;
        if free.len() < self.options.free_segments_max.max(1) {
            free.push(path);
            return;
        }
        segment::remove_quietly(&path);
    }
}

/// A file for a new segment, a waiting one where there is one.
fn take_free(inner: &WalInner, tip: &mut LogTip) -> Result<PathBuf, WalError> {
    let waiting = inner.index().free.pop();
    if let Some(path) = waiting {
        return Ok(path);
    }
    join_spare(tip);
    let made = inner.index().free.pop();
    made.map_or_else(|| inner.fill_file(), Ok)
}

/// Waits for the thread that fills a file.
fn join_spare(tip: &mut LogTip) {
    if let Some(spare) = tip.spare.take()
        && spare.join().is_err()
    {
        tracing::error!("the thread that makes spare segments panicked");
    }
}

/// Writes a block behind the current end and makes it durable.
fn write_durably(inner: &WalInner, current: &OpenSegment, block: &[u8]) -> Result<(), WalError> {
    let failed =
        |operation| move |source: io::Error| segment::io_error(operation, &current.path, source);
    current.file.write_all_at(block, current.end).map_err(failed("write segment"))?;
    inner.faults.hit("wal.after_write").map_err(failed("write segment"))?;
    let started = Instant::now();
    current.file.sync_data().map_err(failed("sync segment"))?;
    inner.options.metrics.wal_sync.observe(started.elapsed().as_secs_f64());
    inner.faults.hit("wal.after_sync").map_err(failed("sync segment"))
}
