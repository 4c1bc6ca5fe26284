//! Ids seen within the window, exact: a table in memory, and sorted files behind it.
//!
//! New ids go to the table. A full table is frozen and written as a file beside the requests, and
//! small files are merged the same way. What the log still holds need not be here: the sequencer
//! replays it. Invariant: an id that was inserted and not forgotten is found until every id of
//! its file is older than the window.
//!
//! An id that was read back from a table has [`UNKNOWN_CONTENT`]: its row says that it was taken, not
//! what it said.
//!
//! Memory: up to twice [`IndexOptions::fresh_max`] ids at about 40 bytes, and about 1.7 bytes for
//! each id in files.

mod bloom;
pub(super) mod run;
#[cfg(test)]
mod tests;

use icecore_lake::wal::WalError;
use run::{ArrivalTimes, FreezeSpan, IdEntry, IdRun, RunWriter};
use std::{
    collections::HashMap,
    fs,
    hash::{BuildHasherDefault, Hasher},
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};
use tracing::{debug, warn};

/// Files beyond this number are merged: each one costs a look-up of a new id one cache miss.
const RUNS_MAX: usize = 8;
/// Files merged into one.
const MERGE_RUNS: usize = 4;
/// A merged file spans at most this part of the window, so that old ids do leave.
const MERGE_WINDOW_PART: i64 = 4;
/// Pause after a failed write or merge.
const RETRY_MS: i64 = 1000;

/// The content of an id whose event is not at hand any more; no content hashes to it.
pub(super) const UNKNOWN_CONTENT: u64 = 0;

/// What is known of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SeenId {
    /// Hash of its content.
    pub(super) content: u64,
    /// The first `seq` it got.
    pub(super) seq: u64,
}

#[derive(Clone, Debug)]
pub(super) struct IndexOptions {
    pub(super) folder: PathBuf,
    /// Ids are kept at least this long.
    pub(super) window_ms: i64,
    /// Ids in memory that are worth a file.
    pub(super) fresh_max: usize,
}

/// Ids not yet in a file.
#[derive(Debug, Default)]
struct FreshIds {
    ids: HashMap<u128, SeenId, BuildHasherDefault<IdHasher>>,
    since_ms: i64,
}

#[derive(Debug)]
pub(super) struct IdIndex {
    options: IndexOptions,
    fresh: FreshIds,
    /// What is being written, and when it was frozen.
    frozen: Option<(Arc<FreshIds>, i64)>,
    /// Oldest first.
    runs: Vec<Arc<IdRun>>,
    writing: Option<JoinHandle<Result<IdRun, WalError>>>,
    merging: Option<JoinHandle<Result<IdRun, WalError>>>,
    /// Ends a merge early.
    closing: Arc<AtomicBool>,
    /// Number of the next file. It never falls back: a merge that ends late must not cover it.
    next: u64,
    retry_after_ms: i64,
    /// Since somebody asked for it.
    expired: IdTotals,
}

/// Ids in files, and these files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdTotals {
    /// How many ids.
    pub ids: u64,
    /// In how many files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl IdTotals {
    fn add(&mut self, run: &IdRun) {
        self.ids += run.count;
        self.files += 1;
        // What cannot be looked at counts for nothing here.
        self.bytes += fs::metadata(&run.path).map_or(0, |file| file.len());
    }
}

impl IdIndex {
    /// Opens the files, and clears away what an interrupted write or merge left.
    pub(super) fn open(options: IndexOptions, now_ms: i64) -> Result<Self, WalError> {
        let runs = open_runs(&options.folder)?;
        let fresh = FreshIds { since_ms: now_ms, ..FreshIds::default() };
        Ok(Self {
            options,
            fresh,
            frozen: None,
            next: runs.last().map_or(1, |run| run.span.high + 1),
            runs,
            writing: None,
            merging: None,
            closing: Arc::default(),
            retry_after_ms: i64::MIN,
            expired: IdTotals::default(),
        })
    }

    /// What left the window since it was taken last, and what is there.
    pub(super) fn totals(&self) -> (IdTotals, IdTotals) {
        let mut left = IdTotals::default();
        self.runs.iter().for_each(|run| left.add(run));
        (self.expired, left)
    }

    /// Begins to count anew what leaves the window.
    pub(super) fn take_expired(&mut self) {
        self.expired = IdTotals::default();
    }

    /// What is known of `id`.
    pub(super) fn get(&self, id: u128) -> Result<Option<SeenId>, WalError> {
        let frozen = self.frozen.as_ref().map(|(frozen, _)| frozen);
        if let Some(seen) =
            self.fresh.ids.get(&id).or_else(|| frozen.and_then(|frozen| frozen.ids.get(&id)))
        {
            return Ok(Some(*seen));
        }
        for run in self.runs.iter().rev() {
            if let Some(seen) = run.get(id)? {
                return Ok(Some(seen));
            }
        }
        Ok(None)
    }

    /// Remembers an id that [`IdIndex::get`] does not know.
    pub(super) fn insert(&mut self, id: u128, seen: SeenId) {
        self.fresh.ids.insert(id, seen);
    }

    /// Takes back an [`IdIndex::insert`]; no freeze may lie between the two.
    pub(super) fn forget(&mut self, id: u128) {
        self.fresh.ids.remove(&id);
    }

    /// The files, oldest first: which freezes each holds, and when its last id arrived.
    pub(super) fn files(&self) -> impl Iterator<Item = (FreezeSpan, i64)> {
        self.runs.iter().map(|run| (run.span, run.times.last))
    }

    /// Whether a file holds these freezes.
    pub(super) fn has_file(&self, span: FreezeSpan) -> bool {
        self.runs.iter().any(|run| run.span.contains(span))
    }

    /// Writes what is in memory to a file of ids that arrived within `times`, and returns when it is
    /// on disk.
    pub(super) fn write_fresh(&mut self, times: ArrivalTimes) -> Result<(), WalError> {
        let span = FreezeSpan { low: self.next, high: self.next };
        let run = write(&self.options.folder, span, &self.fresh, times)?;
        self.runs.push(Arc::new(run));
        self.next += 1;
        self.fresh.ids.clear();
        Ok(())
    }

    /// Whether enough ids are in memory for a file.
    pub(super) fn is_full(&self) -> bool {
        self.options.fresh_max <= self.fresh.ids.len()
    }

    /// Whether the writing has fallen so far behind that no more ids fit.
    pub(super) fn is_overfull(&self) -> bool {
        self.frozen.is_some() && 2 * self.options.fresh_max <= self.fresh.ids.len()
    }

    /// Whether frozen ids are not in a file yet.
    pub(super) fn is_writing(&self) -> bool {
        self.frozen.is_some()
    }

    /// Whether a freeze would have something to write.
    pub(super) fn has_fresh(&self) -> bool {
        !self.fresh.ids.is_empty()
    }

    /// Starts writing what is in memory to a file. Nothing may be frozen already.
    pub(super) fn freeze(&mut self, now_ms: i64) {
        assert!(self.frozen.is_none(), "one freeze at a time");
        let empty = FreshIds { since_ms: now_ms, ..FreshIds::default() };
        let frozen = std::mem::replace(&mut self.fresh, empty);
        self.frozen = Some((Arc::new(frozen), now_ms));
        if let Err(cause) = self.start_write() {
            warn!(error = &cause as &dyn std::error::Error, "id index file not started");
        }
    }

    /// Takes over what the background finished, drops files older than the window, and starts what
    /// is due. True when the frozen ids have become durable.
    ///
    /// # Errors
    /// Why they have not; it is tried again after a pause.
    pub(super) fn poll(&mut self, now_ms: i64) -> Result<bool, WalError> {
        self.expire(now_ms);
        if let Err(cause) = self.poll_merge(now_ms) {
            warn!(error = &cause as &dyn std::error::Error, "id index files not merged");
            self.retry_after_ms = now_ms + RETRY_MS;
        }
        if self.writing.as_ref().is_some_and(JoinHandle::is_finished) {
            return self.wait(now_ms);
        }
        if self.frozen.is_some() && self.writing.is_none() && self.retry_after_ms <= now_ms {
            self.retry_after_ms = now_ms + RETRY_MS;
            self.start_write()?;
        }
        Ok(false)
    }

    /// Like [`IdIndex::poll`], but waits for the write that runs, or for a new try of it.
    ///
    /// # Errors
    /// Why the frozen ids are not durable.
    pub(super) fn wait(&mut self, now_ms: i64) -> Result<bool, WalError> {
        if self.writing.is_none() {
            self.start_write()?;
        }
        let Some(writing) = self.writing.take() else { return Ok(false) };
        match join(writing) {
            Ok(run) => {
                debug!(ids = run.count, "wrote id index file");
                self.runs.push(Arc::new(run));
                self.frozen = None;
                self.next += 1;
                Ok(true)
            }
            Err(cause) => {
                self.retry_after_ms = now_ms + RETRY_MS;
                Err(cause)
            }
        }
    }

    fn start_write(&mut self) -> Result<(), WalError> {
        let Some((frozen, frozen_ms)) = &self.frozen else { return Ok(()) };
        let frozen = Arc::clone(frozen);
        let times = ArrivalTimes { first: frozen.since_ms, last: *frozen_ms };
        let folder = self.options.folder.clone();
        let span = FreezeSpan { low: self.next, high: self.next };
        self.writing = Some(self.start(move || write(&folder, span, &frozen, times))?);
        Ok(())
    }

    fn poll_merge(&mut self, now_ms: i64) -> Result<(), WalError> {
        if self.merging.as_ref().is_some_and(JoinHandle::is_finished)
            && let Some(merging) = self.merging.take()
        {
            self.replace_merged(join(merging)?);
        }
        if self.merging.is_some() || now_ms < self.retry_after_ms {
            return Ok(());
        }
        let sizes: Vec<_> = self.runs.iter().map(|run| (run.count, run.times)).collect();
        let Some(range) = pick_merge(&sizes, self.options.window_ms) else { return Ok(()) };
        let runs = self.runs[range].to_vec();
        let folder = self.options.folder.clone();
        let closing = Arc::clone(&self.closing);
        self.merging = Some(self.start(move || run::merge(&folder, &runs, &closing))?);
        Ok(())
    }

    fn replace_merged(&mut self, merged: IdRun) {
        let span = merged.span;
        debug!(ids = merged.count, "merged id index files");
        let at = self.runs.iter().position(|run| span.contains(run.span));
        for run in self.runs.extract_if(.., |run| span.contains(run.span)) {
            remove(&run.path);
        }
        // With all of its parts expired meanwhile, the merged file goes by its own age next.
        self.runs.insert(at.unwrap_or(0), Arc::new(merged));
    }

    /// Whether the next [`IdIndex::poll`] drops a file.
    pub(super) fn has_expired(&self, now_ms: i64) -> bool {
        self.runs.iter().any(|run| run.times.last < self.horizon_ms(now_ms))
    }

    /// What arrived before it has left the window.
    fn horizon_ms(&self, now_ms: i64) -> i64 {
        now_ms.saturating_sub(self.options.window_ms)
    }

    fn expire(&mut self, now_ms: i64) {
        let horizon_ms = self.horizon_ms(now_ms);
        for run in self.runs.extract_if(.., |run| run.times.last < horizon_ms) {
            debug!(ids = run.count, "id index file left the window");
            self.expired.add(&run);
            remove(&run.path);
        }
    }

    /// Runs `work` beside the requests.
    fn start(
        &self,
        work: impl FnOnce() -> Result<IdRun, WalError> + Send + 'static,
    ) -> Result<JoinHandle<Result<IdRun, WalError>>, WalError> {
        thread::Builder::new()
            .name("icecore-ids".to_owned())
            .spawn(work)
            .map_err(|source| run::failed("start a thread for", &self.options.folder, source))
    }
}

impl Drop for IdIndex {
    /// Leaves no thread behind that writes into the folder.
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        for thread in [self.writing.take(), self.merging.take()].into_iter().flatten() {
            if let Ok(Err(cause)) = thread.join() {
                debug!(error = &cause as &dyn std::error::Error, "id index file not finished");
            }
        }
    }
}

/// Which neighbours, oldest first, to merge: the fewest ids among those whose file would not span
/// too much of the window.
fn pick_merge(runs: &[(u64, ArrivalTimes)], window_ms: i64) -> Option<Range<usize>> {
    if runs.len() <= RUNS_MAX {
        return None;
    }
    let span_max = window_ms / MERGE_WINDOW_PART;
    let (start, _) = runs
        .windows(MERGE_RUNS)
        .enumerate()
        .filter(|(_, part)| {
            // Files that were rebuilt are younger than the ids in them, so the order says nothing.
            let first = part.iter().map(|(_, times)| times.first).min().unwrap_or(0);
            let last = part.iter().map(|(_, times)| times.last).max().unwrap_or(0);
            last - first <= span_max
        })
        .min_by_key(|(_, part)| part.iter().map(|(count, _)| count).sum::<u64>())?;
    Some(start..start + MERGE_RUNS)
}

fn write(
    folder: &Path,
    span: FreezeSpan,
    fresh: &FreshIds,
    times: ArrivalTimes,
) -> Result<IdRun, WalError> {
    let mut entries: Vec<IdEntry> =
        fresh.ids.iter().map(|(id, seen)| IdEntry { id: *id, seen: *seen }).collect();
    entries.sort_unstable_by_key(|entry| entry.id);
    let mut writer = RunWriter::create(folder, span, entries.len() as u64)?;
    for entry in entries {
        writer.push(entry)?;
    }
    writer.finish(times)
}

fn open_runs(folder: &Path) -> Result<Vec<Arc<IdRun>>, WalError> {
    let failed = |source| run::failed("list id index folder", folder, source);
    fs::create_dir_all(folder).map_err(failed)?;
    let mut found = Vec::new();
    for file in fs::read_dir(folder).map_err(failed)? {
        let path = file.map_err(failed)?.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some(run::EXTENSION) => found.extend(FreezeSpan::of(&path).map(|span| (span, path))),
            Some(run::UNFINISHED) => remove(&path),
            _ => (),
        }
    }
    found.sort_by_key(|(span, _)| (span.low, span.high));
    let spans: Vec<FreezeSpan> = found.iter().map(|(span, _)| *span).collect();
    let mut runs = Vec::new();
    for (span, path) in found {
        if spans.iter().any(|other| *other != span && other.contains(span)) {
            remove(&path);
        } else {
            runs.push(Arc::new(IdRun::open(&path, span)?));
        }
    }
    Ok(runs)
}

/// A file that stays is found and removed again at the next start.
fn remove(path: &Path) {
    if let Err(cause) = fs::remove_file(path) {
        warn!(path = %path.display(), error = &cause as &dyn std::error::Error, "id index file not removed");
    }
}

fn join(thread: JoinHandle<Result<IdRun, WalError>>) -> Result<IdRun, WalError> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Ids are hashes already.
#[derive(Debug, Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, id: u128) {
        self.0 = (id as u64) ^ ((id >> 64) as u64);
    }
}
