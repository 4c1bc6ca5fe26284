//! A worker's side of its pipes: what is asked is numbered, and a thread hands each answer to whoever
//! waits for it.

use crate::sql::workers::frames::{self, FromWorker, QueryTime, ToWorker, WorkerStart};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use icecore_catalog::{
    audit::LinkedRecord,
    storage::remote::{FileAnswer, FileFailure},
};
use icecore_engine::error::SqlError;
use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufReader},
    process,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
};
use tokio::sync::oneshot;

/// Bytes that are read from the pipe at once.
const READ_BYTES: usize = 256 << 10;
/// What waits to be worked on: the start and one query.
const TASKS_MAX: usize = 2;

/// What the server wants done.
#[derive(Debug)]
pub(super) enum WorkerTask {
    /// First.
    Open(WorkerStart),
    /// A query as JSON.
    Query(QueryTime, Bytes),
}

/// Who waits for an answer.
#[derive(Debug)]
pub(super) enum ReplySender {
    File(oneshot::Sender<Result<FileAnswer, FileFailure>>),
    Tail(oneshot::Sender<Result<RecordBatch, SqlError>>),
    Page(oneshot::Sender<Result<Vec<LinkedRecord>, SqlError>>),
    Memory(mpsc::SyncSender<bool>),
}

/// The way to the server. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct ServerLink(Arc<LinkInner>);

#[derive(Debug)]
struct LinkInner {
    output: Mutex<File>,
    waiting: Mutex<HashMap<u64, ReplySender>>,
    last: AtomicU64,
}

impl ServerLink {
    /// The way out, and what comes in. When the server is gone, so is this process.
    ///
    /// # Errors
    /// No thread can be started.
    pub(super) fn open(
        input: File,
        output: File,
    ) -> io::Result<(Self, mpsc::Receiver<WorkerTask>)> {
        let inner = LinkInner {
            output: Mutex::new(output),
            waiting: Mutex::default(),
            last: AtomicU64::new(0),
        };
        let link = Self(Arc::new(inner));
        let (sender, tasks) = mpsc::sync_channel(TASKS_MAX);
        let reading = link.clone();
        let started = thread::Builder::new().name("server".to_owned());
        started.spawn(move || reading.read_to_end(input, &sender))?;
        Ok((link, tasks))
    }

    /// Reads until the server is gone, and ends this process then.
    fn read_to_end(&self, input: File, tasks: &mpsc::SyncSender<WorkerTask>) {
        let _end = ProcessEnd;
        if let Err(cause) = self.read_all(input, tasks) {
            tracing::error!(error = &cause as &dyn std::error::Error, "the server is not heard");
        }
    }

    fn read_all(&self, input: File, tasks: &mpsc::SyncSender<WorkerTask>) -> io::Result<()> {
        let mut input = BufReader::with_capacity(READ_BYTES, input);
        while let Some((said, body)) = frames::read_frame::<ToWorker>(&mut input)? {
            let task = match said {
                ToWorker::Open(start) => WorkerTask::Open(start),
                ToWorker::Query(time) => WorkerTask::Query(time, body),
                answer => {
                    self.hand_over(answer, body);
                    continue;
                }
            };
            tasks.send(task).map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Gives an answer to who waits for it. One who is gone does not need it.
    fn hand_over(&self, answer: ToWorker, body: Bytes) {
        let is_gone = match answer {
            ToWorker::Open(_) | ToWorker::Query(_) => false,
            ToWorker::File { id, size, failure } => {
                let answer = match (failure, size) {
                    (Some(failure), _) => Err(failure),
                    (None, Some(size)) => Ok(FileAnswer::Size(size)),
                    (None, None) => Ok(FileAnswer::Bytes(body)),
                };
                match self.take(id) {
                    Some(ReplySender::File(reply)) => reply.send(answer).is_err(),
                    _ => true,
                }
            }
            ToWorker::Tail { id, error } => {
                let rows = match error {
                    Some(error) => Err(error),
                    None => frames::batch_of(&body).map_err(|cause| unreadable(&cause)),
                };
                match self.take(id) {
                    Some(ReplySender::Tail(reply)) => reply.send(rows).is_err(),
                    _ => true,
                }
            }
            ToWorker::Page { id, error } => {
                let page = match error {
                    Some(error) => Err(error),
                    None => serde_json::from_slice(&body).map_err(|cause| unreadable(&cause)),
                };
                match self.take(id) {
                    Some(ReplySender::Page(reply)) => reply.send(page).is_err(),
                    _ => true,
                }
            }
            ToWorker::Memory { id, is_granted } => match self.take(id) {
                Some(ReplySender::Memory(reply)) => reply.send(is_granted).is_err(),
                _ => true,
            },
        };
        if is_gone {
            tracing::debug!("an answer came that nobody waits for");
        }
    }

    // Whole entries go in and out, so a panic elsewhere leaves nothing half done.
    fn take(&self, id: u64) -> Option<ReplySender> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&id)
    }

    /// Asks the server; `question` gets the number of the answer.
    pub(super) fn ask(
        &self,
        waiting: ReplySender,
        question: impl FnOnce(u64) -> FromWorker,
        body: &[u8],
    ) {
        let id = self.0.last.fetch_add(1, Ordering::Relaxed);
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id, waiting);
        self.say(&question(id), body);
    }

    /// Tells the server. It waits until there is room in the pipe: who reads slowly is not run away from.
    pub(super) fn say(&self, said: &FromWorker, body: &[u8]) {
        let mut output = self.0.output.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(cause) = frames::write_frame(&mut *output, said, body) {
            tracing::error!(error = &cause as &dyn std::error::Error, "the server is not reached");
            process::exit(1);
        }
    }

    /// Forgets who waited: their query is over.
    pub(super) fn forget(&self) {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Ends this process once nobody reads what the server says, also after a panic: whoever waits for an
/// answer would wait for ever.
struct ProcessEnd;

impl Drop for ProcessEnd {
    fn drop(&mut self) {
        // At once, whatever the query does: nobody reads its answer.
        process::exit(0);
    }
}

/// What the server sent is not what it sends.
fn unreadable(cause: &dyn std::error::Error) -> SqlError {
    tracing::error!(error = %cause, "an answer of the server does not read");
    SqlError::Internal("an answer of the server to its worker does not read".to_owned())
}
