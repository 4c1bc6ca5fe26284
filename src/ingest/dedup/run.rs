//! One immutable file of ids, sorted: written once, then only read.
//!
//! Layout, little-endian: a page with the header, pages of [`BLOCK_IDS`] entries of 32 bytes (id,
//! content, seq), then for each page its first id and crc32c, then the Bloom filter. A file that
//! carries its final name is whole and on disk. Opening reads header, fences and filter, never
//! the entries: those are checked page by page as they are read.

use crate::ingest::dedup::{SeenId, bloom::BloomFilter};
use icecore_lake::wal::WalError;
use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

const MAGIC: [u8; 8] = *b"ICEIDS01";
const PAGE: usize = 4096;
const ENTRY: usize = 32;
/// Entries read for one look-up.
const BLOCK_IDS: usize = PAGE / ENTRY;
const HEADER: usize = 48;
const FENCE: usize = 20;
/// Ending of a finished file's name.
pub(super) const EXTENSION: &str = "ids";
/// Ending of a file that is being written; worth nothing after a restart.
pub(super) const UNFINISHED: &str = "tmp";

/// Which freezes a file holds, first and last. A file whose span lies within another's is the
/// left-over of a merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ingest) struct FreezeSpan {
    pub(in crate::ingest) low: u64,
    pub(in crate::ingest) high: u64,
}

impl FreezeSpan {
    pub(super) fn contains(self, other: Self) -> bool {
        self.low <= other.low && other.high <= self.high
    }

    fn path(self, folder: &Path) -> PathBuf {
        folder.join(format!("{:020}-{:020}.{EXTENSION}", self.low, self.high))
    }

    /// The span in a file's name.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let (low, high) = path.file_stem()?.to_str()?.split_once('-')?;
        Some(Self { low: low.parse().ok()?, high: high.parse().ok()? })
    }
}

/// When the ids of a file arrived, ms since 1970: not before `first`, not after `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ingest) struct ArrivalTimes {
    pub(in crate::ingest) first: i64,
    pub(in crate::ingest) last: i64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct IdEntry {
    pub(super) id: u128,
    pub(super) seen: SeenId,
}

impl IdEntry {
    fn to_bytes(self) -> [u8; ENTRY] {
        let mut bytes = [0; ENTRY];
        bytes[..16].copy_from_slice(&self.id.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.seen.content.to_le_bytes());
        bytes[24..].copy_from_slice(&self.seen.seq.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; ENTRY]) -> Self {
        let seen = SeenId { content: u64_at(bytes, 16), seq: u64_at(bytes, 24) };
        Self { id: u128_at(bytes, 0), seen }
    }
}

/// A finished file, open for look-ups.
#[derive(Debug)]
pub(super) struct IdRun {
    pub(super) path: PathBuf,
    pub(super) span: FreezeSpan,
    pub(super) times: ArrivalTimes,
    pub(super) count: u64,
    file: File,
    fences: Vec<u128>,
    crcs: Vec<u32>,
    bloom: BloomFilter,
}

impl IdRun {
    /// Opens a finished file.
    pub(super) fn open(path: &Path, span: FreezeSpan) -> Result<Self, WalError> {
        let failed = |source| failed("open id index file", path, source);
        let file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, 0).map_err(failed)?;
        if header[..8] != MAGIC || crc32c::crc32c(&header[..44]) != u32_at(&header, 44) {
            return Err(damaged(path, "its header"));
        }
        let count = u64_at(&header, 8);
        let times = ArrivalTimes { first: i64_at(&header, 16), last: i64_at(&header, 24) };
        let blocks = count.div_ceil(BLOCK_IDS as u64);
        let index_start = PAGE as u64 + count * ENTRY as u64;
        let index_bytes = u64_at(&header, 32);
        if length != index_start + index_bytes || index_bytes < blocks * FENCE as u64 {
            return Err(damaged(path, "its length"));
        }
        let size = |n: u64| usize::try_from(n).map_err(|_| damaged(path, "its length"));
        let mut index = vec![0; size(index_bytes)?];
        file.read_exact_at(&mut index, index_start).map_err(failed)?;
        if crc32c::crc32c(&index) != u32_at(&header, 40) {
            return Err(damaged(path, "its fences or filter"));
        }
        let (fences, bloom) = index.split_at(size(blocks)? * FENCE);
        let (fences, _) = fences.as_chunks::<FENCE>();
        Ok(Self {
            path: path.to_owned(),
            span,
            times,
            count,
            file,
            fences: fences.iter().map(|fence| u128_at(fence, 0)).collect(),
            crcs: fences.iter().map(|fence| u32_at(fence, 16)).collect(),
            bloom: BloomFilter::from_bytes(bloom).ok_or_else(|| damaged(path, "its filter"))?,
        })
    }

    /// What is known of `id`: at most one page is read.
    pub(super) fn get(&self, id: u128) -> Result<Option<SeenId>, WalError> {
        if !self.bloom.may_hold(id) {
            return Ok(None);
        }
        let Some(block) = self.fences.partition_point(|first| *first <= id).checked_sub(1) else {
            return Ok(None);
        };
        let mut page = [0; PAGE];
        let entries = self.read_block(block, &mut page)?;
        let found = entries.binary_search_by_key(&id, |entry| u128_at(entry, 0));
        Ok(found.ok().map(|at| IdEntry::from_bytes(&entries[at]).seen))
    }

    fn read_block<'a>(
        &self,
        block: usize,
        page: &'a mut [u8; PAGE],
    ) -> Result<&'a [[u8; ENTRY]], WalError> {
        let first = (block * BLOCK_IDS) as u64;
        let entries = usize::try_from((self.count - first).min(BLOCK_IDS as u64))
            .expect("a block is smaller than a page");
        let bytes = &mut page[..entries * ENTRY];
        self.file
            .read_exact_at(bytes, PAGE as u64 + first * ENTRY as u64)
            .map_err(|source| failed("read id index file", &self.path, source))?;
        if crc32c::crc32c(bytes) != self.crcs[block] {
            return Err(damaged(&self.path, &format!("block {block}")));
        }
        Ok(bytes.as_chunks().0)
    }
}

/// Writes a file; ids must come in ascending order.
#[derive(Debug)]
pub(super) struct RunWriter {
    folder: PathBuf,
    unfinished: PathBuf,
    span: FreezeSpan,
    file: BufWriter<File>,
    block: Vec<u8>,
    block_first: u128,
    fences: Vec<u128>,
    crcs: Vec<u32>,
    bloom: BloomFilter,
    count: u64,
}

impl RunWriter {
    /// Starts a file for at most `ids_max` ids.
    pub(super) fn create(folder: &Path, span: FreezeSpan, ids_max: u64) -> Result<Self, WalError> {
        let unfinished = span.path(folder).with_extension(UNFINISHED);
        let failed = |source| failed("create id index file", &unfinished, source);
        let mut file =
            BufWriter::with_capacity(1 << 18, File::create(&unfinished).map_err(failed)?);
        file.write_all(&[0; PAGE]).map_err(failed)?;
        Ok(Self {
            folder: folder.to_owned(),
            unfinished,
            span,
            file,
            block: Vec::with_capacity(PAGE),
            block_first: 0,
            fences: Vec::new(),
            crcs: Vec::new(),
            bloom: BloomFilter::with_capacity(ids_max),
            count: 0,
        })
    }

    pub(super) fn push(&mut self, entry: IdEntry) -> Result<(), WalError> {
        if self.block.is_empty() {
            self.block_first = entry.id;
        }
        self.bloom.add(entry.id);
        self.block.extend_from_slice(&entry.to_bytes());
        self.count += 1;
        if self.block.len() == PAGE { self.end_block() } else { Ok(()) }
    }

    fn end_block(&mut self) -> Result<(), WalError> {
        if self.block.is_empty() {
            return Ok(());
        }
        self.fences.push(self.block_first);
        self.crcs.push(crc32c::crc32c(&self.block));
        let written = self.file.write_all(&self.block);
        self.block.clear();
        written.map_err(|source| failed("write id index file", &self.unfinished, source))
    }

    /// Returns when the file is on disk under its final name.
    pub(super) fn finish(mut self, times: ArrivalTimes) -> Result<IdRun, WalError> {
        self.end_block()?;
        let mut index = Vec::with_capacity(self.fences.len() * FENCE);
        for (fence, crc) in self.fences.iter().zip(&self.crcs) {
            index.extend_from_slice(&fence.to_le_bytes());
            index.extend_from_slice(&crc.to_le_bytes());
        }
        index.extend_from_slice(&self.bloom.to_bytes());
        let header = header(self.count, times, &index);
        let path = self.span.path(&self.folder);
        let file = write_out(self.file, &index, &header, &self.unfinished, &path, &self.folder)
            .map_err(|source| failed("write id index file", &self.unfinished, source))?;
        Ok(IdRun {
            path,
            span: self.span,
            times,
            count: self.count,
            file,
            fences: self.fences,
            crcs: self.crcs,
            bloom: self.bloom,
        })
    }
}

fn header(count: u64, times: ArrivalTimes, index: &[u8]) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&MAGIC);
    header[8..16].copy_from_slice(&count.to_le_bytes());
    header[16..24].copy_from_slice(&times.first.to_le_bytes());
    header[24..32].copy_from_slice(&times.last.to_le_bytes());
    header[32..40].copy_from_slice(&(index.len() as u64).to_le_bytes());
    header[40..44].copy_from_slice(&crc32c::crc32c(index).to_le_bytes());
    let crc = crc32c::crc32c(&header[..44]);
    header[44..].copy_from_slice(&crc.to_le_bytes());
    header
}

fn write_out(
    mut file: BufWriter<File>,
    index: &[u8],
    header: &[u8],
    unfinished: &Path,
    path: &Path,
    folder: &Path,
) -> io::Result<File> {
    file.write_all(index)?;
    drop(file.into_inner().map_err(io::IntoInnerError::into_error)?);
    // Opened anew for both directions: the finished file serves look-ups through this handle.
    let file = File::options().read(true).write(true).open(unfinished)?;
    file.write_all_at(header, 0)?;
    file.sync_all()?;
    fs::rename(unfinished, path)?;
    File::open(folder)?.sync_all()?;
    Ok(file)
}

/// Writes adjacent runs, oldest first, as one. Gives up when `closing` turns true.
pub(super) fn merge(
    folder: &Path,
    runs: &[Arc<IdRun>],
    closing: &AtomicBool,
) -> Result<IdRun, WalError> {
    let (oldest, newest) = (&runs[0], &runs[runs.len() - 1]);
    let span = FreezeSpan { low: oldest.span.low, high: newest.span.high };
    let times = runs.iter().map(|run| run.times).fold(oldest.times, |all, one| ArrivalTimes {
        first: all.first.min(one.first),
        last: all.last.max(one.last),
    });
    let ids_max = runs.iter().map(|run| run.count).sum();
    let mut writer = RunWriter::create(folder, span, ids_max)?;
    let mut cursors = Vec::with_capacity(runs.len());
    for run in runs {
        cursors.push(RunCursor::start(run)?);
    }
    let mut last = None;
    loop {
        // The first of equals is the oldest, whose `seq` is the id's first.
        let next = cursors
            .iter_mut()
            .filter(|cursor| cursor.entry.is_some())
            .min_by_key(|cursor| cursor.entry.map(|entry| entry.id));
        let Some(cursor) = next else { break };
        if closing.load(Ordering::Relaxed) {
            return Err(failed("merge", folder, io::ErrorKind::Interrupted.into()));
        }
        if let Some(entry) = cursor.advance()?
            && last != Some(entry.id)
        {
            last = Some(entry.id);
            writer.push(entry)?;
        }
    }
    writer.finish(times)
}

/// Reads a run from its first id to its last.
struct RunCursor<'a> {
    run: &'a IdRun,
    block: usize,
    entries: std::vec::IntoIter<IdEntry>,
    entry: Option<IdEntry>,
}

impl<'a> RunCursor<'a> {
    fn start(run: &'a IdRun) -> Result<Self, WalError> {
        let mut cursor = Self { run, block: 0, entries: Vec::new().into_iter(), entry: None };
        cursor.advance()?;
        Ok(cursor)
    }

    /// The current entry, which is then the next one.
    fn advance(&mut self) -> Result<Option<IdEntry>, WalError> {
        let current = self.entry.take();
        self.entry = self.entries.next();
        if self.entry.is_none() && self.block < self.run.fences.len() {
            let mut page = [0; PAGE];
            let entries = self.run.read_block(self.block, &mut page)?;
            self.entries = entries.iter().map(IdEntry::from_bytes).collect::<Vec<_>>().into_iter();
            self.block += 1;
            self.entry = self.entries.next();
        }
        Ok(current)
    }
}

pub(super) fn failed(operation: &'static str, path: &Path, source: io::Error) -> WalError {
    WalError::Io { operation, path: path.to_owned(), source }
}

fn damaged(path: &Path, part: &str) -> WalError {
    let reason = format!(
        "{part} is damaged; move the file away and start again: its ids are then read from the tables"
    );
    failed("use id index file", path, io::Error::new(io::ErrorKind::InvalidData, reason))
}

fn u128_at(bytes: &[u8], at: usize) -> u128 {
    u128::from_le_bytes(bytes[at..at + 16].try_into().expect("16 bytes are 16 bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes are 8 bytes"))
}

fn i64_at(bytes: &[u8], at: usize) -> i64 {
    i64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes are 8 bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes are 4 bytes"))
}
