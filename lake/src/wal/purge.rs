//! Purges: no file of the log keeps the bytes of records that are to be gone.
//!
//! A segment keeps the bytes of its records when their tables have them, until it is written over. On a
//! quiet server that is never. A purge has the writer go on in a new file, deletes the files that wait to
//! be segments, since they were segments before, and has each earlier segment deleted once nothing needs
//! it. Nothing of it is noted: after a crash it is asked for again, and begins anew. The writer looks for
//! purges with each group, and takes no lock for that while there is none.
//!
//! Its one invariant: from its beginning on, no segment that was there becomes another file.

use crate::wal::{LogPosition, Wal, WalError, WalInner, segment};
use icecore_schemas::service_table::RecordKind;
use std::sync::atomic::Ordering;

/// How far purges are. One goes on at a time.
#[derive(Debug, Default)]
pub(crate) struct LogPurge {
    /// The last position that was asked for.
    asked: LogPosition,
    /// What the last one that began takes: records up to here.
    begun: LogPosition,
    /// What the last one that ended took.
    ended: LogPosition,
    /// They are in segments up to this generation, which are deleted and not used again.
    generation: u64,
}

impl LogPurge {
    /// Whether one is to begin.
    pub(crate) fn is_due(&self) -> bool {
        self.begun == self.ended && self.begun < self.asked
    }

    /// Whether one goes on.
    pub(crate) fn goes_on(&self) -> bool {
        self.ended < self.begun
    }

    /// Whether one was asked for that has not ended.
    fn is_wanted(&self) -> bool {
        self.is_due() || self.goes_on()
    }

    /// Whether this segment is to be deleted.
    pub(crate) fn takes(&self, generation: u64) -> bool {
        generation <= self.generation
    }
}

impl Wal {
    /// Asks that no file of the log has bytes of records up to `through` any more, and tells whether that
    /// is so. The writer's thread does it, and what keeps a segment is waited for: rows that their tables
    /// do not have yet, readers, ids that are in no file of the id index.
    #[must_use]
    pub fn purge(&self, through: LogPosition) -> bool {
        let mut index = self.inner.index();
        index.purge.asked = index.purge.asked.max(through);
        self.inner.is_purging.store(index.purge.is_wanted(), Ordering::Release);
        through <= index.purge.ended
    }

    /// Whether records of ids keep a segment that a purge is to delete, once the log goes on in another one.
    #[must_use]
    pub fn purge_waits_for_ids(&self) -> bool {
        if !self.inner.is_purging() {
            return false;
        }
        let index = self.inner.index();
        index.purge.goes_on() && index.has_purged(RecordKind::Keys)
    }
}

impl WalInner {
    /// Whether a purge was asked for that has not ended.
    pub(crate) fn is_purging(&self) -> bool {
        self.is_purging.load(Ordering::Acquire)
    }

    /// Begins a purge of all segments up to `generation`, the last one of which ends at `last` so far, unless
    /// another thread removes segments just now.
    pub(crate) fn begin_purge(&self, generation: u64, last: LogPosition) -> Result<(), WalError> {
        // Who removes a segment has decided before whether it is used again.
        let Some(_alone) = self.removal_unless_busy() else { return Ok(()) };
        {
            let mut index = self.index();
            index.purge.generation = generation;
            index.free.clear();
        }
        // A file that stayed when it was to be removed is in the folder alone.
        let folder = &self.options.folder;
        for (_, path) in segment::list(folder)?.free {
            segment::remove(&path)?;
        }
        segment::sync_folder(folder)?;
        let mut index = self.index();
        // A position that this log does not have yet is not asked for again and again.
        index.purge.begun = index.purge.asked.max(last);
        Ok(())
    }

    /// Ends the purge that goes on if its segments are gone.
    pub(crate) fn end_purge(&self) {
        if self.index().holds_purged() {
            self.remove_retired_unless_busy();
        }
        if self.index().holds_purged() {
            return;
        }
        // Segments that are being removed are not in the index, and come back where that fails.
        let Some(_alone) = self.removal_unless_busy() else { return };
        let mut index = self.index();
        if !index.holds_purged() {
            index.purge.ended = index.purge.begun;
            // Another one may have been asked for meanwhile.
            self.is_purging.store(index.purge.is_wanted(), Ordering::Release);
        }
    }
}
