//! How far the log and its tables are, noted beside the log: what tells that a store is older than
//! what was acknowledged.
//!
//! The log says what it holds, and the tables say what they hold; neither can say that it was put
//! back from an older copy, or that the other one was. So the writer notes the last row of each
//! table that it made durable, a trim notes the last one that the table has, and the flush notes
//! which change of the metastore was the last. A note is one small write into a page that is there,
//! without a sync: it survives the process. Before the last copy of a record goes, the notes are
//! synced.
//!
//! Its one invariant: nothing is noted before it is durable where it belongs, so that a note which
//! is behind (after a power cut) claims too little and never too much.

use crate::wal::{LogPosition, Wal, WalError, segment};
use icecore_schemas::{names::Namespace, service_table::RecordKind};
use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use uuid::Uuid;

const MAGIC: &[u8; 8] = b"ICEMARK1";
/// A note fills one sector, so that it is written whole or not at all.
const SLOT: usize = 512;
/// A namespace has at most 128 bytes.
const NAME_AT: usize = 56;
const CRC_AT: usize = SLOT - 4;
/// How often the time is noted while events come.
const TIME_STEP_MS: i64 = 1000;

/// A row of a table in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowMark {
    /// Its `seq`, or a dead letter's number.
    pub seq: u64,
    /// The record that has it.
    pub position: LogPosition,
}

impl RowMark {
    /// The one of the two that is further back.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        if other.position < self.position { other } else { self }
    }
}

/// What is noted of one table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableMarks {
    /// The last row that was made durable in the log.
    pub acknowledged: RowMark,
    /// The last one that the table had.
    pub committed: RowMark,
    /// Rows up to this one may be missing: an operator said so.
    pub accepted: u64,
}

/// The state of a metastore that was seen last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetastoreMark {
    /// Made once with the metastore.
    pub id: u64,
    /// How many changes it had seen.
    pub last: u64,
}

/// Everything that is noted.
#[derive(Clone, Debug, Default)]
pub struct NotedMarks {
    /// Whose rows these are; nil when nothing is noted.
    pub log: Uuid,
    /// The metastore; none before the first look at it.
    pub metastore: Option<MetastoreMark>,
    /// The latest time that was noted, ms since 1970; 0 before the first.
    pub seen_ms: i64,
    /// By table.
    pub tables: HashMap<(RecordKind, Namespace), TableMarks>,
}

/// The notes, open for more.
#[derive(Debug)]
pub struct MarkFile {
    path: PathBuf,
    state: Mutex<MarkFileState>,
    is_dirty: AtomicBool,
    has_failed: AtomicBool,
}

#[derive(Debug)]
struct MarkFileState {
    file: File,
    noted: NotedMarks,
    slots: MarkSlots,
}

/// Where each table's note is in the file.
#[derive(Debug, Default)]
struct MarkSlots {
    places: HashMap<(RecordKind, Namespace), u64>,
    count: u64,
}

impl Wal {
    /// From now on notes how far the log and its tables are.
    pub fn note_in(&self, marks: MarkFile) {
        // Set once, at the start.
        let _ = self.inner.marks.set(marks);
    }

    /// Whether it is noted how far the log is.
    #[must_use]
    pub fn is_noted(&self) -> bool {
        self.inner.marks.get().is_some()
    }

    /// Notes the state of the metastore that the tables are in.
    pub fn note_metastore(&self, seen: MetastoreMark) {
        if let Some(marks) = self.inner.marks.get() {
            marks.see_metastore(seen);
        }
    }
}

impl NotedMarks {
    /// What the file of an earlier life says; nothing when it is missing. A note that is not whole
    /// is left out. Blocking.
    ///
    /// # Errors
    /// [`WalError::Io`].
    pub fn read(path: &Path) -> Result<Self, WalError> {
        Ok(load(path)?.map_or_else(Self::default, |(noted, _)| noted))
    }

    /// The highest position of any row.
    #[must_use]
    pub fn highest_position(&self) -> LogPosition {
        let last = |marks: &TableMarks| marks.acknowledged.position.max(marks.committed.position);
        self.tables.values().map(last).max().unwrap_or(0)
    }

    /// Replaces the file, and returns when that is durable. Blocking.
    ///
    /// # Errors
    /// [`WalError::Io`]; what was there is still there.
    pub fn write(&self, path: &Path) -> Result<(), WalError> {
        let mut bytes = encode_head(self).to_vec();
        for (key, marks) in &self.tables {
            bytes.extend_from_slice(&encode_table(key, marks));
        }
        let unfinished = path.with_extension("tmp");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(segment::PRIVATE);
        let written = options.open(&unfinished).and_then(|file| {
            file.write_all_at(&bytes, 0)?;
            file.sync_all()?;
            fs::rename(&unfinished, path)
        });
        written.map_err(|source| segment::io_error("write", path, source))?;
        segment::sync_folder(path.parent().unwrap_or(Path::new(".")))
    }
}

impl MarkFile {
    /// Opens the notes of this log. Those of another log are given up, but for what they say of the
    /// metastore and the time. Blocking.
    ///
    /// # Errors
    /// [`WalError::Io`].
    pub fn open(path: &Path, log: Uuid) -> Result<Self, WalError> {
        let (noted, slots) = match load(path)? {
            Some(loaded) if loaded.0.log == log => loaded,
            other => {
                let before = other.map_or_else(NotedMarks::default, |(noted, _)| noted);
                let noted = NotedMarks { log, tables: HashMap::new(), ..before };
                noted.write(path)?;
                (noted, MarkSlots::default())
            }
        };
        let file = OpenOptions::new().write(true).open(path);
        let file = file.map_err(|source| segment::io_error("open", path, source))?;
        Ok(Self {
            path: path.to_owned(),
            state: Mutex::new(MarkFileState { file, noted, slots }),
            is_dirty: AtomicBool::new(false),
            has_failed: AtomicBool::new(false),
        })
    }

    /// Notes rows that are durable in the log.
    pub(crate) fn acknowledge(
        &self,
        rows: impl Iterator<Item = (RecordKind, Namespace, RowMark)>,
        now_ms: i64,
    ) {
        let mut state = self.state();
        for (kind, namespace, mark) in rows {
            self.keep(state.note(kind, &namespace, |marks| marks.acknowledged = mark));
        }
        if state.noted.seen_ms.saturating_add(TIME_STEP_MS) <= now_ms {
            state.noted.seen_ms = now_ms;
            self.keep(state.note_head());
        }
    }

    /// Notes a row that a table has.
    pub(crate) fn commit(&self, kind: RecordKind, namespace: &Namespace, mark: RowMark) {
        if !kind.is_rows() {
            return;
        }
        let mut state = self.state();
        self.keep(state.note(kind, namespace, |marks| {
            if marks.committed.position < mark.position {
                marks.committed = mark;
            }
        }));
    }

    /// Notes the state of the metastore.
    pub(crate) fn see_metastore(&self, seen: MetastoreMark) {
        let mut state = self.state();
        if state.noted.metastore != Some(seen) {
            state.noted.metastore = Some(seen);
            self.keep(state.note_head());
        }
    }

    /// Returns when everything that was noted is on the disk. Blocking.
    ///
    /// # Errors
    /// [`WalError::Io`].
    pub(crate) fn sync(&self) -> Result<(), WalError> {
        if !self.is_dirty.swap(false, Ordering::SeqCst) {
            return Ok(());
        }
        // Not under the lock: the writer goes on.
        let file = self.state().file.try_clone();
        file.and_then(|file| file.sync_data()).map_err(|source| {
            self.is_dirty.store(true, Ordering::SeqCst);
            segment::io_error("sync", &self.path, source)
        })
    }

    /// A note that fails is told of once: the log itself is what has to work.
    fn keep(&self, noted: io::Result<()>) {
        self.is_dirty.store(true, Ordering::SeqCst);
        if let Err(error) = noted
            && !self.has_failed.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot record the position of the log");
        }
    }

    fn state(&self) -> MutexGuard<'_, MarkFileState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MarkFileState {
    fn note(
        &mut self,
        kind: RecordKind,
        namespace: &Namespace,
        change: impl FnOnce(&mut TableMarks),
    ) -> io::Result<()> {
        let key = (kind, namespace.clone());
        let MarkSlots { places, count } = &mut self.slots;
        let slot = *places.entry(key.clone()).or_insert_with(|| {
            *count += 1;
            *count
        });
        let marks = self.noted.tables.entry(key.clone()).or_default();
        change(marks);
        self.file.write_all_at(&encode_table(&key, marks), slot * SLOT as u64)
    }

    fn note_head(&mut self) -> io::Result<()> {
        self.file.write_all_at(&encode_head(&self.noted), 0)
    }
}

fn load(path: &Path) -> Result<Option<(NotedMarks, MarkSlots)>, WalError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(segment::io_error("read", path, source)),
    };
    let mut found = bytes.as_chunks::<SLOT>().0.iter();
    let Some(mut noted) = found.next().and_then(decode_head) else { return Ok(None) };
    let mut slots = MarkSlots::default();
    for slot in found {
        slots.count += 1;
        if let Some((key, marks)) = decode_table(slot) {
            slots.places.insert(key.clone(), slots.count);
            noted.tables.insert(key, marks);
        }
    }
    Ok(Some((noted, slots)))
}

fn encode_head(noted: &NotedMarks) -> [u8; SLOT] {
    let mut slot = [0; SLOT];
    slot[..8].copy_from_slice(MAGIC);
    slot[8..24].copy_from_slice(noted.log.as_bytes());
    if let Some(seen) = noted.metastore {
        slot[24] = 1;
        put(&mut slot, 32, seen.id);
        put(&mut slot, 40, seen.last);
    }
    put(&mut slot, 48, noted.seen_ms.cast_unsigned());
    sealed(slot)
}

fn decode_head(slot: &[u8; SLOT]) -> Option<NotedMarks> {
    if !is_whole(slot) || !slot.starts_with(MAGIC) {
        return None;
    }
    let metastore =
        (slot[24] == 1).then(|| MetastoreMark { id: get(slot, 32), last: get(slot, 40) });
    Some(NotedMarks {
        log: Uuid::from_slice(&slot[8..24]).ok()?,
        metastore,
        seen_ms: get(slot, 48).cast_signed(),
        tables: HashMap::new(),
    })
}

fn encode_table((kind, namespace): &(RecordKind, Namespace), marks: &TableMarks) -> [u8; SLOT] {
    let mut slot = [0; SLOT];
    let TableMarks { acknowledged, committed, accepted } = marks;
    let numbers =
        [acknowledged.seq, acknowledged.position, committed.seq, committed.position, *accepted];
    for (at, number) in (0..).step_by(8).zip(numbers) {
        put(&mut slot, at, number);
    }
    slot[40] = kind.code();
    let text = namespace.text().as_bytes();
    slot[41] = u8::try_from(text.len()).expect("a namespace has at most 128 bytes");
    slot[NAME_AT..NAME_AT + text.len()].copy_from_slice(text);
    sealed(slot)
}

fn decode_table(slot: &[u8; SLOT]) -> Option<((RecordKind, Namespace), TableMarks)> {
    if !is_whole(slot) {
        return None;
    }
    let kind = RecordKind::from_code(slot[40]).filter(|kind| kind.is_rows())?;
    let text = slot.get(NAME_AT..NAME_AT + usize::from(slot[41]))?;
    let namespace = Namespace::parse(std::str::from_utf8(text).ok()?).ok()?;
    let marks = TableMarks {
        acknowledged: RowMark { seq: get(slot, 0), position: get(slot, 8) },
        committed: RowMark { seq: get(slot, 16), position: get(slot, 24) },
        accepted: get(slot, 32),
    };
    Some(((kind, namespace), marks))
}

fn sealed(mut slot: [u8; SLOT]) -> [u8; SLOT] {
    let crc = crc32c::crc32c(&slot[..CRC_AT]);
    slot[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    slot
}

fn is_whole(slot: &[u8; SLOT]) -> bool {
    slot[CRC_AT..] == crc32c::crc32c(&slot[..CRC_AT]).to_le_bytes()
}

fn put(slot: &mut [u8; SLOT], at: usize, number: u64) {
    slot[at..at + 8].copy_from_slice(&number.to_le_bytes());
}

fn get(slot: &[u8; SLOT], at: usize) -> u64 {
    u64::from_le_bytes(slot[at..at + 8].try_into().expect("8 bytes are 8 bytes"))
}
