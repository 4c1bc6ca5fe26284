//! Takes decoded events, lets each pass once, gives them their `seq` and makes them durable.
//!
//! One thread does this for all namespaces: it drains the queue into a group, looks every id up,
//! appends the group to the log, and answers. An id counts as seen from the moment its group is
//! formed; if the append fails it is forgotten again.

mod admit;
mod age;
pub mod bookmark;
mod changes;
mod dedup;
mod derivation;
pub mod expected;
mod group;
mod keys;
mod ledger;
mod letters;
pub mod rebuild;
mod recover;
pub mod refusal;
mod sequencer;
#[cfg(test)]
mod tests;
mod verdict;
mod watched;

use changes::ChangeCounts;
pub use dedup::IdTotals;
use expected::ExpectedVersions;
use icecore_lake::{
    clock::Clock,
    event::{DecodedBody, RequestIds, dead_letter::DeadLetter},
    ids::IdGenerator,
    wal::{LogPosition, Wal, WalError, WalWriter},
};
use icecore_schemas::{
    error_code::ErrorCode,
    names::Namespace,
    service_table::{RecordKind, ServiceTables},
};
use sequencer::{GroupBounds, QueueShare, ReplySender, Sequencer, SequencerMessage};
use std::{
    collections::{HashMap, HashSet},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};
use tokio::sync::{oneshot, watch};
use ulid::Ulid;
use uuid::Uuid;
pub use watched::WatchedDocuments;
use watched::Watches;

/// What a waiting request costs beside its body.
const SUBMISSION_BYTES: usize = 1024;

/// What has left the dedup window, and what is in its files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdExpiry {
    /// What went.
    pub expired: IdTotals,
    /// What is there.
    pub left: IdTotals,
}

/// Bounds of the ingest path.
#[derive(Clone, Debug)]
pub struct IngestOptions {
    /// Folder of the id index.
    pub dedup_folder: PathBuf,
    /// How long an id is remembered, at least. Default 7 days.
    pub dedup_window: Duration,
    /// Most bytes of decoded requests that wait for the log. Default 256 MiB.
    pub queue_bytes_max: usize,
    /// Most requests in one group. Default 1 024.
    pub group_requests_max: usize,
    /// Most bytes in one group, unless one request is larger. Default 16 MiB.
    pub group_bytes_max: usize,
    /// Most distinct types of a namespace. Default 1 000.
    pub types_max: usize,
    /// The tables that rows go to.
    pub tables: ServiceTables,
    /// Highest number of a row that each table holds, so that none is given twice. A table that is
    /// missing starts at 0, or where the log and the id folder say.
    pub seq_floor: HashMap<(RecordKind, Namespace), u64>,
    /// Every `seq` is above this one, in every namespace: another log may have given the others.
    pub seq_after: u64,
    /// Namespaces that the catalog has, so that none of another spelling takes their names. The id
    /// folder and the log know those this server wrote; this matters once either is lost.
    pub namespaces: Vec<Namespace>,
    /// The logs whose ids the id index may have, this one's first; an index of another log's ids
    /// counts as lost. Empty where there is nothing to compare.
    pub logs: Vec<Uuid>,
    /// The latest time that this server noted, ms since 1970; 0 when it never did.
    pub seen_ms: i64,
    /// Whether events come at all. Otherwise nothing is written to the id folder: what is there
    /// and what is not is still to be looked at.
    pub takes_events: bool,
}

/// One request's events.
#[derive(Debug, Default)]
pub struct Submission {
    /// What the body held.
    pub decoded: DecodedBody,
    /// What the request said once for all of its events.
    pub request: RequestIds,
    /// All or none.
    pub atomic: bool,
    /// Bytes of the body and of [`DecodedBody::copied`], for the bounds on what waits and on a group.
    pub bytes: usize,
    /// Where a dead letter goes whose namespace has no tables of its own, because another owns the
    /// name: the first of these that has; with the last one's owner where none has.
    pub shelters: Vec<Namespace>,
    /// Only to learn what would become of it: nothing is taken or kept.
    pub dry_run: bool,
    /// Dead letters whose new rows become durable together with the events.
    pub letters: LetterChange,
    /// Dead letters that no table has any more: what has one of them gets a new one.
    pub lost_letters: Vec<Ulid>,
    /// For each of the accepted namespaces which versions its events expect; empty where none expects one. Nobody else
    /// who expects versions of these documents changes them until the submission is decided.
    pub expected: Vec<ExpectedVersions>,
    /// Nothing of it is taken where one of these documents was written since their watch began.
    pub unless_written: Option<Arc<WatchedDocuments>>,
}

/// Dead letters that a submission changes, and the namespace that has them.
#[derive(Debug, Default)]
pub enum LetterChange {
    /// None.
    #[default]
    Unchanged,
    /// The submission is this one sent again.
    Redriven(Namespace, Box<DeadLetter>),
    /// Nobody wants these any more.
    Discarded(Namespace, Vec<DeadLetter>),
}

/// A submission's first outcome.
#[derive(Debug)]
pub enum IngestOutcome {
    /// It is decided.
    Decided(Receipt),
    /// Nothing of it was taken: what is stored has to be looked at first. What was found out goes into
    /// [`icecore_lake::event::NamespaceEvents::same`] and [`Submission::lost_letters`] before it is sent
    /// again, to [`Ingest::append`].
    Undecided(Box<Submission>, OpenQuestions),
}

/// What is to be found out about a submission, at most [`COMPARED_MAX`] of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenQuestions {
    /// Events whose id is taken: they may say the same as the event that has it.
    pub events: Vec<UndecidedEvent>,
    /// Dead letters that refused events have already, each with the namespace that keeps it: another
    /// engine may have deleted them.
    pub letters: Vec<(Namespace, Ulid)>,
}

impl OpenQuestions {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.letters.is_empty()
    }
}

/// An event whose id is taken by another content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UndecidedEvent {
    /// Which of the accepted namespaces.
    pub group: usize,
    /// Its row.
    pub row: usize,
    /// The event that has the id.
    pub seq: u64,
}

/// Most events of a submission whose content is compared with what is stored, and most dead letters
/// that are looked for; the others of the kind are conflicts, and are there.
pub const COMPARED_MAX: usize = 256;

/// What became of a submission; everything it calls taken is durable.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// Events that were there before.
    pub duplicates: u64,
    /// First and last `seq` by namespace, in order of first appearance.
    pub ranges: Vec<(Namespace, u64, u64)>,
    /// Events that were not taken, in body order.
    pub refused: Vec<RefusedEvent>,
    /// Log position that holds everything of this receipt, repeats included.
    pub position: LogPosition,
}

/// One event that was not taken.
#[derive(Clone, Debug)]
pub struct RefusedEvent {
    /// Its place in the body.
    pub index: u32,
    /// Its id, where it could be read.
    pub id: Option<String>,
    /// [`ErrorCode::Conflict`], [`ErrorCode::VersionMismatch`] or the reason it is broken.
    pub code: ErrorCode,
    /// The version that its document has, where it expects another; 0 for none.
    pub actual_version: Option<u64>,
    /// What is wrong, and what to change.
    pub reason: String,
    /// Its id in `dead_letters`; none when the batch was atomic or a dry run, and for a version that is another.
    pub dead_letter: Option<String>,
}

/// Why nothing of a submission was taken.
#[derive(Clone, Debug, thiserror::Error)]
pub enum IngestError {
    /// Too much waits already; nothing was written.
    #[error("too many events are waiting to be written")]
    Busy,
    /// The log is full or its disk fails; nothing counts as written.
    #[error("the log does not accept events now")]
    Unavailable(#[source] Arc<WalError>),
    /// What a namespace has in the log cannot be stored, and it may not have more.
    #[error(transparent)]
    Held(Arc<WalError>),
    /// A document of [`Submission::unless_written`] was written; nothing of the submission was.
    #[error("others wrote a document of the batch before it")]
    Overtaken,
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopping,
}

/// The way in. Cheap to clone. When the last clone is gone without [`Ingest::stop`], the thread
/// finishes in its own time.
#[derive(Clone, Debug)]
pub struct Ingest {
    shared: Arc<IngestQueue>,
}

#[derive(Debug)]
struct IngestQueue {
    queue: mpsc::Sender<SequencerMessage>,
    waiting: Arc<AtomicUsize>,
    queue_bytes_max: usize,
    stopping: AtomicBool,
    /// Whether the last group could not be written.
    failing: Arc<AtomicBool>,
    changes: ChangeCounts,
    /// Closed when the thread has done everything.
    ended: watch::Receiver<()>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Ingest {
    /// Opens the id index, reads again what the log has beyond it, and starts the thread.
    /// Blocking.
    ///
    /// # Errors
    /// A broken id index or log.
    pub fn start(
        options: IngestOptions,
        wal: Wal,
        writer: WalWriter,
        clock: Clock,
        ids: IdGenerator,
    ) -> Result<Self, WalError> {
        let recover::RecoveredState { dedup, unsaved, saved, age } =
            recover::recover(&options, &wal, &clock, ids)?;
        let (queue, messages) = mpsc::channel();
        let folder = options.dedup_folder.clone();
        let (failing, changes) = (Arc::new(AtomicBool::new(false)), ChangeCounts::default());
        let sequencer = Sequencer {
            queue: messages,
            bounds: GroupBounds {
                requests_max: options.group_requests_max,
                bytes_max: options.group_bytes_max,
            },
            folder: options.dedup_folder,
            dedup,
            wal,
            writer,
            clock,
            unsaved,
            freezing: None,
            saved,
            takes_events: options.takes_events,
            age,
            squeezed: false,
            is_purging: false,
            watches: Watches::default(),
            failing: Arc::clone(&failing),
            changes: changes.clone(),
        };
        let (running, ended) = watch::channel(());
        let thread = thread::Builder::new()
            .name("icecore-ingest".to_owned())
            .spawn(move || {
                sequencer.run();
                drop(running);
            })
            .map_err(|source| thread_failed(folder, source))?;
        Ok(Self {
            shared: Arc::new(IngestQueue {
                queue,
                waiting: Arc::default(),
                queue_bytes_max: options.queue_bytes_max,
                stopping: AtomicBool::new(false),
                failing,
                changes,
                ended,
                thread: Mutex::new(Some(thread)),
            }),
        })
    }

    /// Returns when every accepted event, and every dead letter of a refused one, is durable.
    ///
    /// A caller that stops waiting takes nothing back: the events may be durable all the same.
    ///
    /// # Errors
    /// [`IngestError`]; then nothing of the submission was taken, and it may be sent again.
    pub async fn append(&self, submission: Submission) -> Result<Receipt, IngestError> {
        let (reply, answer) = oneshot::channel();
        self.send(Box::new(submission), ReplySender::Decided(reply), answer).await
    }

    /// The same, but an event whose id is taken by another content is no conflict yet: see
    /// [`IngestOutcome::Undecided`].
    ///
    /// # Errors
    /// As [`Ingest::append`].
    pub async fn append_unless_undecided(
        &self,
        submission: Submission,
    ) -> Result<IngestOutcome, IngestError> {
        let (reply, answer) = oneshot::channel();
        self.send(Box::new(submission), ReplySender::Open(reply), answer).await
    }

    async fn send<T>(
        &self,
        submission: Box<Submission>,
        reply: ReplySender,
        answer: oneshot::Receiver<Result<T, IngestError>>,
    ) -> Result<T, IngestError> {
        let shared = &self.shared;
        if shared.stopping.load(Ordering::SeqCst) {
            return Err(IngestError::Stopping);
        }
        let bytes = submission.bytes + SUBMISSION_BYTES;
        let share = QueueShare::take(&shared.waiting, bytes, shared.queue_bytes_max)
            .ok_or(IngestError::Busy)?;
        let message = SequencerMessage::Append(submission, share, reply);
        shared.queue.send(message).map_err(|_| IngestError::Stopping)?;
        // Dropped unanswered only when the thread had ended, so nothing was written.
        answer.await.unwrap_or(Err(IngestError::Stopping))
    }

    /// Begins to note writes to documents, given by their collections, for [`Submission::unless_written`]. On return
    /// everything that was taken before is durable.
    ///
    /// # Errors
    /// [`IngestError::Stopping`].
    pub async fn watch(
        &self,
        namespace: &Namespace,
        keys: HashMap<String, HashSet<String>>,
    ) -> Result<Arc<WatchedDocuments>, IngestError> {
        let documents = Arc::new(WatchedDocuments::new(namespace.clone(), keys));
        let (reply, begun) = oneshot::channel();
        let message = SequencerMessage::Watch(Arc::clone(&documents), reply);
        self.shared.queue.send(message).map_err(|_| IngestError::Stopping)?;
        begun.await.map_err(|_| IngestError::Stopping)?;
        Ok(documents)
    }

    /// Forgets ids that have left the dedup window, and tells what went since this was asked last. The
    /// ingest thread does so by itself, too; a dry run is told and told again.
    ///
    /// # Errors
    /// [`IngestError::Stopping`].
    pub async fn expire_ids(&self, is_dry: bool) -> Result<IdExpiry, IngestError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.shared.queue.send(SequencerMessage::Expire { is_dry, reply });
        sent.map_err(|_| IngestError::Stopping)?;
        answer.await.map_err(|_| IngestError::Stopping)
    }

    /// Whether the last write to the log succeeded, or none was tried yet. What needs no write
    /// changes nothing.
    #[must_use]
    pub fn takes_writes(&self) -> bool {
        !self.shared.failing.load(Ordering::Relaxed)
    }

    /// A number that is another one once more events of a collection are durable in a namespace, which the catalog
    /// calls `name`, and the same as long as none came. It grows before their sender has the answer, and begins
    /// anew with each start.
    #[must_use]
    pub fn change_count(&self, name: &str) -> u64 {
        self.shared.changes.of(name)
    }

    /// Bytes of the submissions that wait.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.shared.waiting.load(Ordering::Relaxed)
    }

    /// Takes no more, finishes what waits, writes the id index, ends the thread.
    pub async fn stop(&self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // It fails when the thread has ended, which is what is wanted.
        let _ = self.shared.queue.send(SequencerMessage::Stop);
        let mut ended = self.shared.ended.clone();
        while ended.changed().await.is_ok() {}
        let thread = self.shared.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // It is past its last step, so this does not block; a panic in it ends the process.
            let _ = thread.join();
        }
    }
}

/// The highest `seq` of each namespace's events that `log` made durable, by the ledger of an id
/// folder; empty where there is none, or none of this log. Blocking.
///
/// # Errors
/// The ledger is there and does not open.
pub fn acknowledged(folder: &Path, log: Uuid) -> Result<HashMap<Namespace, u64>, WalError> {
    if !folder.is_dir() {
        return Ok(HashMap::new());
    }
    let ledger = ledger::NamespaceLedger::open(folder)?;
    Ok(if ledger.log() == Some(log) { ledger.acknowledged() } else { HashMap::new() })
}

/// The highest `seq` that each namespace gave to an event, durable or not, by the ledger of an id
/// folder; empty where there is none. Blocking.
///
/// # Errors
/// The ledger is there and does not open.
pub fn given(folder: &Path) -> Result<HashMap<Namespace, u64>, WalError> {
    if !folder.is_dir() {
        return Ok(HashMap::new());
    }
    Ok(ledger::NamespaceLedger::open(folder)?.event_counters())
}

fn thread_failed(path: PathBuf, source: io::Error) -> WalError {
    WalError::Io { operation: "start the thread for", path, source }
}
