//! The one thread: queue in, groups to the log, answers out.
//!
//! A submission is answered only when its group is durable, repeats included. Nothing else writes
//! the id index, the ledger or the log.

use crate::ingest::{
    IdExpiry, IngestError, IngestOutcome, OpenQuestions, Receipt, Submission,
    admit::{AdmissionOutcome, AdmittedBatch, DedupState},
    age::IdClock,
    changes::ChangeCounts,
    group::LogGroup,
    ledger::SavedLedger,
    watched::{WatchedDocuments, Watches},
};
use icecore_lake::{
    clock::Clock,
    event::RejectedEvent,
    wal::{LogPosition, LogRecord, Wal, WalError, WalWriter},
};
use icecore_schemas::{names::Namespace, service_table::RecordKind};
use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::Duration,
};
use tokio::sync::oneshot;
use tracing::{error, warn};

/// How long the thread waits for work before it looks after the id index.
const TICK: Duration = Duration::from_secs(1);
/// The same while a purge of the log takes steps of this thread.
const PURGE_TICK: Duration = Duration::from_millis(50);
/// The id index is written once this many bytes went to the log since, because until then their
/// segments cannot be reused.
const LOG_BYTES_MAX: u64 = 256 << 20;
/// How old ids are is written down so often: what passed since is no part of their age after a crash,
/// unless the machine's clock is believed. Well below half of the shortest window.
const AGE_STEP_MS: i64 = 3_600_000;

/// Where an answer goes, and whether it may be that something is undecided.
#[derive(Debug)]
pub(super) enum ReplySender {
    Decided(oneshot::Sender<Result<Receipt, IngestError>>),
    Open(oneshot::Sender<Result<IngestOutcome, IngestError>>),
}

impl ReplySender {
    // A sender that went away repeats the request and learns that it was taken.

    fn receipt(self, receipt: Receipt) {
        match self {
            Self::Decided(reply) => drop(reply.send(Ok(receipt))),
            Self::Open(reply) => drop(reply.send(Ok(IngestOutcome::Decided(receipt)))),
        }
    }

    fn undecided(self, submission: Box<Submission>, questions: OpenQuestions) {
        match self {
            Self::Decided(_) => unreachable!("it was not asked for"),
            Self::Open(reply) => {
                drop(reply.send(Ok(IngestOutcome::Undecided(submission, questions))))
            }
        }
    }

    fn error(self, cause: IngestError) {
        match self {
            Self::Decided(reply) => drop(reply.send(Err(cause))),
            Self::Open(reply) => drop(reply.send(Err(cause))),
        }
    }
}

#[derive(Debug)]
pub(super) enum SequencerMessage {
    /// One submission, its share of the bound on what waits, and where the answer goes.
    Append(Box<Submission>, QueueShare, ReplySender),
    /// Drop what has left the dedup window, and tell what did since the last time; a dry run only tells.
    Expire {
        /// Whether it is told again the next time.
        is_dry: bool,
        /// Where the answer goes.
        reply: oneshot::Sender<IdExpiry>,
    },
    /// Note writes to these documents from now on.
    Watch(Arc<WatchedDocuments>, oneshot::Sender<()>),
    /// Finish what came before.
    Stop,
}

/// Bytes that count as waiting until this is dropped.
#[derive(Debug)]
pub(super) struct QueueShare {
    waiting: Arc<AtomicUsize>,
    bytes: usize,
}

impl QueueShare {
    /// None when the bound is reached. What is larger than the bound passes alone.
    pub(super) fn take(waiting: &Arc<AtomicUsize>, bytes: usize, bytes_max: usize) -> Option<Self> {
        let add = |now: usize| (now == 0 || now + bytes <= bytes_max).then_some(now + bytes);
        waiting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, add).ok()?;
        Some(Self { waiting: Arc::clone(waiting), bytes })
    }
}

impl Drop for QueueShare {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.bytes, Ordering::SeqCst);
    }
}

/// Bounds of a group.
#[derive(Clone, Copy, Debug)]
pub(super) struct GroupBounds {
    pub(super) requests_max: usize,
    pub(super) bytes_max: usize,
}

#[derive(Debug)]
pub(super) struct Sequencer {
    pub(super) queue: Receiver<SequencerMessage>,
    pub(super) bounds: GroupBounds,
    pub(super) folder: PathBuf,
    pub(super) dedup: DedupState,
    pub(super) wal: Wal,
    pub(super) writer: WalWriter,
    pub(super) clock: Clock,
    pub(super) unsaved: UnsavedIds,
    pub(super) freezing: Option<PendingFreeze>,
    /// The ledger as its file has it.
    pub(super) saved: SavedLedger,
    /// The log refused a group for want of room: what it holds for the ids alone should go.
    pub(super) squeezed: bool,
    /// A purge of the log waits for this thread.
    pub(super) is_purging: bool,
    /// Otherwise the id folder stays as it is.
    pub(super) takes_events: bool,
    /// Whose documents are watched.
    pub(super) watches: Watches,
    /// Whether the last group could not be written.
    pub(super) failing: Arc<AtomicBool>,
    pub(super) changes: ChangeCounts,
    pub(super) age: IdClock,
}

/// What the log holds beyond the last freeze.
#[derive(Debug, Default)]
pub(super) struct UnsavedIds {
    pub(super) namespaces: HashSet<Namespace>,
    bytes: u64,
}

/// What becomes due once the frozen ids are in their file.
#[derive(Debug)]
pub(super) struct PendingFreeze {
    saved: SavedLedger,
    through: LogPosition,
    namespaces: HashSet<Namespace>,
}

/// Submissions of one group.
type QueuedSubmissions = Vec<(Box<Submission>, QueueShare, ReplySender)>;

impl Sequencer {
    /// Runs until it is told to stop, or every handle is gone.
    pub(super) fn run(mut self) {
        let _guard = AbortOnPanic;
        let mut stopping = false;
        while !stopping {
            let tick = if self.is_purging { PURGE_TICK } else { TICK };
            let first = match self.queue.recv_timeout(tick) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            stopping = self.serve(first);
            self.look_after_index();
        }
        while let Ok(message) = self.queue.try_recv() {
            self.serve(Some(message));
        }
        self.finish();
    }

    /// Gathers a group around `first` and commits it. True when the stop message was among it.
    pub(super) fn serve(&mut self, first: Option<SequencerMessage>) -> bool {
        let mut stopping = false;
        let mut waiting = QueuedSubmissions::new();
        let mut bytes = 0;
        let mut next = first;
        while let Some(message) = next.take() {
            match message {
                SequencerMessage::Stop => stopping = true,
                // Nothing of this group is decided yet.
                SequencerMessage::Expire { is_dry, reply } => {
                    let told = self.expire(is_dry);
                    if reply.send(told).is_err() {
                        tracing::debug!("nobody waits for the expiry of ids any more");
                    }
                }
                // What waits is judged later, so it is noted.
                SequencerMessage::Watch(documents, reply) => {
                    self.watches.begin(&documents);
                    if reply.send(()).is_err() {
                        tracing::debug!("nobody waits for a watch of documents any more");
                    }
                }
                SequencerMessage::Append(submission, share, reply) => {
                    bytes += submission.bytes;
                    waiting.push((submission, share, reply));
                }
            }
            if waiting.len() < self.bounds.requests_max && bytes < self.bounds.bytes_max {
                next = self.queue.try_recv().ok();
            }
        }
        if !waiting.is_empty() {
            self.commit(waiting);
        }
        stopping
    }

    fn commit(&mut self, waiting: QueuedSubmissions) {
        let now_us = self.clock.now_us();
        let mut group = LogGroup::default();
        let mut answers = Vec::with_capacity(waiting.len());
        let (mut undecided, mut overtaken) = (Vec::new(), Vec::new());
        let room = self.make_room();
        for (submission, share, reply) in waiting {
            if let Err(cause) = self.wal.check_room(namespaces(&submission)) {
                reply.error(IngestError::Held(Arc::new(cause)));
                continue;
            }
            if submission.unless_written.as_ref().is_some_and(|it| it.is_written()) {
                overtaken.push(reply);
                continue;
            }
            let may_ask = matches!(reply, ReplySender::Open(_));
            let judged = match &room {
                Ok(()) => AdmittedBatch::judge(&mut self.dedup, submission, now_us, may_ask)
                    .map_err(Arc::new),
                Err(cause) => Err(Arc::clone(cause)),
            };
            match judged {
                // The event that has the id may be of this very group, so it is answered with it.
                Ok(AdmissionOutcome::Undecided(submission, questions)) => {
                    undecided.push((submission, questions, reply));
                }
                Ok(AdmissionOutcome::Decided(mut draft)) => {
                    self.watches.note(&draft.taken);
                    group.add(&mut draft);
                    answers.push((draft, share, reply));
                }
                Err(cause) => reply.error(IngestError::Unavailable(cause)),
            }
        }
        let records = group.records();
        let outcome = self.append(&records).map_err(Arc::new);
        self.squeezed |=
            outcome.as_ref().is_err_and(|cause| matches!(**cause, WalError::Full { .. }));
        if outcome.is_ok() {
            group.acknowledge(&mut self.dedup);
            self.changes.note(group.changed());
        }
        if let Err(cause) = &outcome {
            warn!(error = cause as &dyn std::error::Error, "a group was not written");
            group.undo(&mut self.dedup);
        }
        for (submission, questions, reply) in undecided {
            match &outcome {
                Ok(_) => reply.undecided(submission, questions),
                Err(cause) => reply.error(IngestError::Unavailable(Arc::clone(cause))),
            }
        }
        // The write that was first may be of this very group, so they are answered with it.
        overtaken.into_iter().for_each(|reply| reply.error(IngestError::Overtaken));
        for (draft, share, reply) in answers {
            // Released first: whoever has the answer may count on the room.
            drop(share);
            match &outcome {
                Ok(position) => reply.receipt(receipt(draft, *position)),
                Err(cause) => reply.error(IngestError::Unavailable(Arc::clone(cause))),
            }
        }
    }

    /// Position that holds the records; the log's end when there are none.
    fn append(&mut self, records: &[LogRecord]) -> Result<LogPosition, WalError> {
        if records.is_empty() {
            return Ok(*self.wal.durable().borrow());
        }
        let appended = self.writer.append(records);
        // A full log says so itself, and has room again without a write.
        if !matches!(appended, Err(WalError::Full { .. })) {
            self.failing.store(appended.is_err(), Ordering::Relaxed);
        }
        let position = appended?;
        for record in records {
            self.unsaved.bytes += record.payload.len() as u64;
            if record.kind == RecordKind::Keys
                && !self.unsaved.namespaces.contains(&record.namespace)
            {
                self.unsaved.namespaces.insert(record.namespace.clone());
            }
        }
        Ok(position)
    }

    /// Waits for the id index when its files have fallen behind, so that memory stays bounded.
    fn make_room(&mut self) -> Result<(), Arc<WalError>> {
        if !self.dedup.index.is_overfull() {
            return Ok(());
        }
        let written = self.dedup.index.wait(self.age.now_ms());
        // Nothing is written before there is room.
        self.failing.fetch_or(written.is_err(), Ordering::Relaxed);
        if written? {
            self.save();
        }
        Ok(())
    }

    fn expire(&mut self, is_dry: bool) -> IdExpiry {
        self.look_after_index();
        let (expired, left) = self.dedup.index.totals();
        if !is_dry {
            self.dedup.index.take_expired();
        }
        IdExpiry { expired, left }
    }

    pub(super) fn look_after_index(&mut self) {
        if !self.takes_events {
            return;
        }
        let now_ms = self.age.now_ms();
        if self.saved.age_ms().saturating_add(AGE_STEP_MS) <= now_ms
            || self.dedup.index.has_expired(now_ms)
        {
            self.note_age(now_ms);
        }
        match self.dedup.index.poll(now_ms) {
            Ok(true) => self.save(),
            // The ids are in their file, but what goes with it had no room.
            Ok(false) if self.freezing.is_some() && !self.dedup.index.is_writing() => self.save(),
            Ok(false) => (),
            Err(cause) => {
                error!(error = &cause as &dyn std::error::Error, "id index file not written");
            }
        }
        let holds_purge = self.purge_log();
        let due = holds_purge || self.squeezed || self.dedup.index.is_full() || self.log_is_long();
        if due && self.dedup.index.has_fresh() && !self.dedup.index.is_writing() {
            self.freeze();
        }
    }

    /// Does what a purge of the log needs of this thread. Whether ids hold it up that are to be written now.
    fn purge_log(&mut self) -> bool {
        let goes_on = self.writer.purge().unwrap_or_else(|cause| {
            warn!(error = &cause as &dyn std::error::Error, "the log keeps bytes of old records");
            false
        });
        let has_ids = self.wal.purge_waits_for_ids();
        // A ledger that has no room is written again later, and no further files of ids meanwhile.
        let is_noted = self.freezing.is_none();
        self.is_purging = goes_on || (has_ids && (is_noted || self.dedup.index.is_writing()));
        has_ids && is_noted
    }

    /// Whether segments wait for the ids in them. On a disk that is nearly full one is enough: a
    /// flush gets no room from what it moved to a table until they can go.
    fn log_is_long(&self) -> bool {
        let bytes = self.unsaved.bytes;
        LOG_BYTES_MAX <= bytes
            || (self.wal.segment_bytes() <= bytes && self.wal.disk_left().is_some())
    }

    fn freeze(&mut self) {
        self.squeezed = false;
        let mut unsaved = std::mem::take(&mut self.unsaved);
        unsaved
            .namespaces
            .extend(self.freezing.take().into_iter().flat_map(|left| left.namespaces));
        self.freezing = Some(PendingFreeze {
            saved: self.dedup.ledger.save(),
            through: *self.wal.durable().borrow(),
            namespaces: unsaved.namespaces,
        });
        self.dedup.index.freeze(self.age.stamp_ms());
    }

    /// The ids are in their file: writes the ledger that goes with them, then lets the log forget
    /// its copy.
    fn save(&mut self) {
        let Some(mut freezing) = self.freezing.take() else { return };
        freezing.saved.set_files(self.dedup.index.files());
        freezing.saved.set_age(self.age.now_ms());
        if let Err(cause) = freezing.saved.write(&self.folder) {
            warn!(error = &cause as &dyn std::error::Error, "the log keeps ids for now");
            self.freezing = Some(freezing);
            return;
        }
        self.saved = freezing.saved;
        for namespace in &freezing.namespaces {
            let trimmed = self.wal.trim(RecordKind::Keys, namespace, freezing.through);
            if let Err(cause) = trimmed {
                // The records count as trimmed; what is left of their files goes with a later trim.
                warn!(error = &cause as &dyn std::error::Error, "the log keeps files for now");
            }
        }
    }

    /// Writes down how old ids are and which files they are in, before a file that is too old goes:
    /// a start that took them for younger would miss it. The counters stay those of ids in files.
    fn note_age(&mut self, now_ms: i64) {
        self.saved.set_files(self.dedup.index.files());
        self.saved.set_age(now_ms);
        if let Err(cause) = self.saved.write(&self.folder) {
            warn!(error = &cause as &dyn std::error::Error, "the age of the ids is not written");
        }
    }

    /// Writes down everything that is known, without ids in memory. A ledger whose ids are not all in
    /// a file is left alone.
    fn write_ledger(&self) -> Result<(), WalError> {
        if self.freezing.is_some() || self.dedup.index.is_writing() {
            return Ok(());
        }
        let mut saved = self.dedup.ledger.save();
        saved.set_files(self.dedup.index.files());
        saved.set_age(self.age.now_ms());
        saved.write(&self.folder)
    }

    /// Writes everything down, so that the next start has nothing to replay. What fails here is
    /// still in the log.
    fn finish(&mut self) {
        if !self.takes_events {
            return;
        }
        let now_ms = self.age.now_ms();
        let outcome = self.dedup.index.wait(now_ms).and_then(|written| {
            if written {
                self.save();
            }
            if !self.dedup.index.has_fresh() {
                return self.write_ledger();
            }
            self.freeze();
            self.dedup.index.wait(now_ms).map(|_| self.save())
        });
        if let Err(cause) = outcome {
            warn!(error = &cause as &dyn std::error::Error, "the log keeps ids for the next start");
        }
    }
}

/// The namespaces that a submission has rows for.
fn namespaces(submission: &Submission) -> impl Iterator<Item = &Namespace> {
    let accepted = submission.decoded.accepted.iter().map(|events| &events.namespace);
    accepted.chain(submission.decoded.rejected.iter().map(RejectedEvent::keeper))
}

fn receipt(draft: AdmittedBatch, position: LogPosition) -> Receipt {
    Receipt { duplicates: draft.duplicates, ranges: draft.ranges, refused: draft.refused, position }
}

/// Half a server would go on reading what it can no longer write.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            error!("the ingest thread panicked, stopping the process");
            std::process::abort();
        }
    }
}
