//! What the log holds, in memory: records by segment and by table, pins, and files to reuse.
//!
//! No IO, so that the lock around it is short. A record that is not trimmed is in exactly one
//! table's queue, and its segment is in `segments`.

use crate::wal::{
    LogPosition, RecordRef, TableBacklog, WalError,
    marks::RowMark,
    purge::LogPurge,
    quota::{LogBounds, StuckTable, StuckTables, TableUsage},
    segment::SegmentEnd,
};
use icecore_schemas::{names::Namespace, service_table::RecordKind};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    path::PathBuf,
    sync::Arc,
};

/// The records of the log.
#[derive(Debug, Default)]
pub(crate) struct LogIndex {
    segments: BTreeMap<u64, IndexedSegment>,
    /// Segments that no one can list any more; their files wait for the pins that saw them.
    retired: Vec<RetiredSegment>,
    tables: HashMap<(RecordKind, Namespace), TableRecords>,
    /// Some of `tables`.
    failing: StuckTables,
    bytes: u64,
    keep_after: LogPosition,
    /// The segment that is being written.
    current: Option<u64>,
    pins: BTreeSet<u64>,
    next_pin: u64,
    /// Files a segment can be made of.
    pub(crate) free: Vec<PathBuf>,
    /// Which segments are to be deleted.
    pub(crate) purge: LogPurge,
}

#[derive(Debug)]
struct IndexedSegment {
    path: Arc<PathBuf>,
    previous: SegmentEnd,
    records: Vec<RecordRef>,
    untrimmed: usize,
}

/// A segment whose file may go.
#[derive(Debug)]
pub(crate) struct RetiredSegment {
    /// Its generation.
    pub(crate) generation: u64,
    /// Its file.
    pub(crate) path: Arc<PathBuf>,
    /// What its header states about the segment before it.
    pub(crate) previous: SegmentEnd,
    /// Pins with a lower number may have seen it.
    pin: u64,
}

#[derive(Debug, Default)]
struct TableRecords {
    queue: VecDeque<RecordSlot>,
    /// What is in the queue, and in how many segments.
    held: TableUsage,
}

/// Where a record is in `segments`.
#[derive(Clone, Copy, Debug)]
struct RecordSlot {
    position: LogPosition,
    generation: u64,
    index: usize,
    durable_ms: i64,
}

impl LogIndex {
    /// Adds a segment without records.
    pub(crate) fn add_segment(
        &mut self,
        generation: u64,
        path: Arc<PathBuf>,
        previous: SegmentEnd,
    ) {
        let segment = IndexedSegment { path, previous, records: Vec::new(), untrimmed: 0 };
        self.segments.insert(generation, segment);
    }

    /// Says which segment is being written, so that it is kept even when it has no records.
    pub(crate) fn set_current(&mut self, generation: Option<u64>) {
        self.current = generation;
        self.retire();
    }

    /// Adds durable records to a segment, with ascending positions.
    pub(crate) fn add_records(&mut self, generation: u64, records: Vec<RecordRef>) {
        let segment = self.segments.get_mut(&generation).expect("the segment was added before");
        for record in records {
            let table = self.tables.entry((record.kind, record.namespace.clone())).or_default();
            let index = segment.records.len();
            let is_first = table.queue.back().is_none_or(|last| last.generation != generation);
            table.held.segments += u64::from(is_first);
            table.queue.push_back(RecordSlot {
                position: record.position,
                generation,
                index,
                durable_ms: record.durable_ms,
            });
            table.held.bytes += u64::from(record.length);
            self.bytes += u64::from(record.length);
            segment.untrimmed += 1;
            segment.records.push(record);
        }
    }

    /// The first untrimmed records of a table after `after`, at most `count_max`.
    pub(crate) fn records(
        &self,
        kind: RecordKind,
        namespace: &Namespace,
        after: LogPosition,
        count_max: usize,
    ) -> Vec<RecordRef> {
        let Some(table) = self.tables.get(&(kind, namespace.clone())) else { return Vec::new() };
        let from = table.queue.partition_point(|slot| slot.position <= after);
        let slots = table.queue.range(from..).take(count_max);
        slots.map(|slot| self.record(*slot).clone()).collect()
    }

    /// Position of the first untrimmed record of a table.
    pub(crate) fn first_position(
        &self,
        kind: RecordKind,
        namespace: &Namespace,
    ) -> Option<LogPosition> {
        let table = self.tables.get(&(kind, namespace.clone()))?;
        table.queue.front().map(|slot| slot.position)
    }

    /// Every record after `after` whose segment is kept, trimmed or not.
    pub(crate) fn all_records(&self, after: LogPosition) -> Vec<RecordRef> {
        let mut found = Vec::new();
        for segment in self.segments.values() {
            let from = segment.records.partition_point(|record| record.position <= after);
            found.extend_from_slice(&segment.records[from..]);
        }
        found
    }

    /// What waits for tables of the kinds that `counts` names, by table.
    pub(crate) fn pending(&self, counts: impl Fn(RecordKind) -> bool) -> Vec<TableBacklog> {
        let newest = self.segments.last_key_value().map_or(0, |(generation, _)| *generation);
        let line = |(key, table): (&(RecordKind, Namespace), &TableRecords)| {
            let (oldest, last) = (table.queue.front()?, table.queue.back()?);
            Some(TableBacklog {
                kind: key.0,
                namespace: key.1.clone(),
                last: last.position,
                bytes: table.held.bytes,
                oldest_ms: oldest.durable_ms,
                segments_since: newest.saturating_sub(oldest.generation),
                is_purged: self.purge.takes(oldest.generation),
            })
        };
        let counted = self.tables.iter().filter(|((kind, _), _)| counts(*kind));
        counted.filter_map(line).collect()
    }

    /// Position of the last record that waits for such tables of the namespaces with this catalog name.
    pub(crate) fn last_position(
        &self,
        name: &str,
        counts: impl Fn(RecordKind) -> bool,
    ) -> Option<LogPosition> {
        let counted = self.tables.iter();
        let counted = counted.filter(|((kind, of), _)| counts(*kind) && of.name() == name);
        counted.filter_map(|(_, table)| table.queue.back()).map(|last| last.position).max()
    }

    /// The namespaces of what waits that have this catalog name.
    pub(crate) fn namespaces_named(&self, name: &str) -> Vec<Namespace> {
        let namespaces = self.tables.keys().map(|(_, namespace)| namespace);
        namespaces.filter(|namespace| namespace.name() == name).cloned().collect()
    }

    /// Whether there is a segment to write to.
    pub(crate) fn has_current(&self) -> bool {
        self.current.is_some()
    }

    /// Payload bytes of the untrimmed records.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes the records of a table up to `through` out of its queue; the last row of those that
    /// were there.
    pub(crate) fn trim(
        &mut self,
        kind: RecordKind,
        namespace: &Namespace,
        through: LogPosition,
    ) -> Option<RowMark> {
        let key = (kind, namespace.clone());
        let table = self.tables.get_mut(&key)?;
        let trimmed = table.queue.partition_point(|slot| slot.position <= through);
        let last = trimmed.checked_sub(1).map(|last| table.queue[last]);
        let last = last.map(|slot| {
            let record = &self.segments[&slot.generation].records[slot.index];
            let rows = u64::from(record.rows.saturating_sub(1));
            RowMark { seq: record.first_seq + rows, position: record.position }
        });
        let mut left = None;
        for slot in table.queue.drain(..trimmed) {
            table.held.segments -= u64::from(left != Some(slot.generation));
            left = Some(slot.generation);
            let segment = self.segments.get_mut(&slot.generation).expect("it has this record");
            let length = u64::from(segment.records[slot.index].length);
            segment.untrimmed -= 1;
            table.held.bytes -= length;
            self.bytes -= length;
        }
        let next = table.queue.front().map(|slot| slot.generation);
        table.held.segments += u64::from(left.is_some() && left == next);
        if table.queue.is_empty() {
            self.tables.remove(&key);
            self.failing.forget(&key);
        }
        self.retire();
        last
    }

    /// Remembers that what waits for a table cannot be moved there.
    pub(crate) fn note_failing(&mut self, failing: StuckTable) {
        if self.tables.contains_key(&(failing.kind, failing.namespace.clone())) {
            self.failing.note(failing);
        }
    }

    /// The table takes rows again.
    pub(crate) fn note_flushed(&mut self, kind: RecordKind, namespace: &Namespace) {
        self.failing.forget(&(kind, namespace.clone()));
    }

    /// The failing tables, the longest failing first.
    pub(crate) fn failing(&self) -> Vec<StuckTable> {
        self.failing.list()
    }

    /// Refuses records of namespaces whose tables have taken what they may while they fail.
    pub(crate) fn check_room<'a>(
        &self,
        namespaces: impl Iterator<Item = &'a Namespace>,
        room: LogBounds,
    ) -> Result<(), WalError> {
        let held = |key: &(RecordKind, Namespace)| {
            self.tables.get(key).map_or_else(TableUsage::default, |table| table.held)
        };
        self.failing.check(namespaces, room, held)
    }

    /// Keeps segments with records after `position`.
    pub(crate) fn set_keep_after(&mut self, position: LogPosition) {
        self.keep_after = position;
        self.retire();
    }

    /// Numbers a new pin.
    pub(crate) fn pin(&mut self) -> u64 {
        let pin = self.next_pin;
        self.next_pin += 1;
        self.pins.insert(pin);
        pin
    }

    /// Ends a pin.
    pub(crate) fn unpin(&mut self, pin: u64) {
        self.pins.remove(&pin);
    }

    /// Takes out the retired segments that no pin holds, oldest first.
    pub(crate) fn take_removable(&mut self) -> Vec<RetiredSegment> {
        let oldest = self.pins.first().copied().unwrap_or(u64::MAX);
        let (mut removable, held): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.retired).into_iter().partition(|one| one.pin <= oldest);
        self.retired = held;
        removable.sort_by_key(|segment| segment.generation);
        removable
    }

    /// Puts back segments whose files could not be removed.
    pub(crate) fn put_back(&mut self, segments: impl IntoIterator<Item = RetiredSegment>) {
        self.retired.extend(segments);
    }

    /// Whether a segment that a purge is to delete is there.
    pub(crate) fn holds_purged(&self) -> bool {
        let first = self.segments.first_key_value().map(|(generation, _)| *generation);
        let retired = self.retired.iter().map(|segment| segment.generation);
        retired.chain(first).any(|generation| self.purge.takes(generation))
    }

    /// Whether records of this kind keep such a segment, and no more of them come to one.
    pub(crate) fn has_purged(&self, kind: RecordKind) -> bool {
        if self.current.is_some_and(|generation| self.purge.takes(generation)) {
            return false;
        }
        let mut tables = self.tables.iter().filter(|(key, _)| key.0 == kind);
        tables.any(|(_, table)| {
            table.queue.front().is_some_and(|first| self.purge.takes(first.generation))
        })
    }

    /// Moves segments that nothing needs out of sight: later pins cannot have seen them.
    fn retire(&mut self) {
        let (keep_after, current, pin) = (self.keep_after, self.current, self.next_pin);
        let gone = self.segments.extract_if(.., |generation, segment| {
            let last = segment.records.last().map_or(0, |record| record.position);
            segment.untrimmed == 0 && last <= keep_after && current != Some(*generation)
        });
        self.retired.extend(gone.map(|(generation, segment)| RetiredSegment {
            generation,
            path: segment.path,
            previous: segment.previous,
            pin,
        }));
    }

    fn record(&self, slot: RecordSlot) -> &RecordRef {
        let segment = self.segments.get(&slot.generation);
        &segment.expect("a segment with untrimmed records is kept").records[slot.index]
    }
}
