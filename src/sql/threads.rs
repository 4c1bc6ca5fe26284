//! The threads that queries run on, apart from those of ingest and HTTP.
//!
//! Planning and executing recurse as deep as a statement is long, and do not yield while they
//! plan. So queries have threads of their own with large stacks, as many as they may keep busy all
//! together: a long plan slows down other queries at most, and a statement that the guard lets
//! through does not overflow a stack.

use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
use futures::{StreamExt, stream};
use icecore_engine::{
    RowStream,
    error::SqlError,
    failure,
    stop::{QuerySignal, THREADS_MAX},
};
use icecore_schemas::query::QueryBasis;
use std::{
    future::Future,
    mem::{self, ManuallyDrop},
    sync::Arc,
    thread,
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout_at,
};

/// Stack of a thread. Only what is used takes memory: a statement at the guard's bounds uses about
/// a quarter of it in a debug build, and far less in a release build.
pub(super) const STACK_BYTES: usize = 64 << 20;
/// Threads that run queries, at most.
const WORKERS_MAX: usize = 1024;
/// Threads that read local files, at most.
const BLOCKING_THREADS_MAX: usize = 32;
/// Batches that are made ahead of the reader.
const BATCHES_AHEAD: usize = 2;

/// Threads for queries.
#[derive(Debug)]
pub struct QueryThreads {
    // None only while it is dropped.
    runtime: Option<Runtime>,
}

/// What a query tells before its first row.
#[derive(Debug)]
pub struct ResultHeader {
    /// Columns.
    pub schema: SchemaRef,
    /// The snapshot of `events` that is read.
    pub snapshot: Option<i64>,
    /// What the answer is made of, if it can be made again.
    pub basis: Option<QueryBasis>,
}

/// Where a running query puts its answer.
#[derive(Debug)]
pub struct ResultSink {
    head: Option<oneshot::Sender<Result<ResultHeader, SqlError>>>,
    batches: mpsc::Sender<Result<RecordBatch, SqlError>>,
}

/// The reader is gone: the query has no reason to go on.
#[derive(Debug)]
pub struct ReaderGone;

impl ResultSink {
    /// Tells what comes; once, before the first batch.
    ///
    /// # Errors
    /// [`ReaderGone`]
    pub fn head(&mut self, head: ResultHeader) -> Result<(), ReaderGone> {
        let sender = self.head.take().ok_or(ReaderGone)?;
        sender.send(Ok(head)).map_err(|_| ReaderGone)
    }

    /// Gives a batch once there is room for it.
    ///
    /// # Errors
    /// [`ReaderGone`]
    pub async fn batch(&mut self, batch: RecordBatch) -> Result<(), ReaderGone> {
        self.batches.send(Ok(batch)).await.map_err(|_| ReaderGone)
    }

    /// Ends the answer with an error.
    async fn fail(mut self, error: SqlError) {
        let lost = match self.head.take() {
            Some(head) => head.send(Err(error)).is_err(),
            None => self.batches.send(Err(error)).await.is_err(),
        };
        if lost {
            tracing::debug!("a query failed after its reader was gone");
        }
    }
}

/// Ends the query when the reader drops it.
#[derive(Debug)]
struct QueryTask {
    handle: JoinHandle<TaskEnd>,
    signal: Arc<QuerySignal>,
}

impl Drop for QueryTask {
    fn drop(&mut self) {
        self.signal.leave();
        self.handle.abort();
    }
}

/// How a query's task ended.
#[derive(Debug)]
enum TaskEnd {
    /// It said all that it had to say.
    Told,
    /// Its time was up before.
    Over,
}

impl QueryThreads {
    /// Threads for this many queries at a time.
    ///
    /// # Panics
    /// The machine has no threads left at the start of the process.
    #[must_use]
    pub fn new(queries_max: usize) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(queries_max.saturating_mul(THREADS_MAX).clamp(1, WORKERS_MAX))
            .thread_name("sql")
            .thread_stack_size(STACK_BYTES)
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .enable_all()
            .build()
            .expect("threads can be started when the server starts");
        Self { runtime: Some(runtime) }
    }

    /// Runs `work` to its end on a thread for queries; none where it panics, or the threads are stopped.
    pub async fn complete<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let runtime = self.runtime.as_ref().expect("it is there until it is dropped");
        runtime.spawn(work).await.ok()
    }

    /// Runs `query` until it ends, the reader drops the rows, or it is over by `signal`: then the
    /// answer ends, even if nobody reads it, or the query holds its thread for a moment longer.
    ///
    /// # Errors
    /// What `query` gave before its head, or [`SqlError::Limit`].
    pub async fn run<F, Q>(
        &self,
        query: F,
        signal: Arc<QuerySignal>,
    ) -> Result<(ResultHeader, RowStream), SqlError>
    where
        F: FnOnce(ResultSink) -> Q,
        Q: Future<Output = Result<(), (SqlError, ResultSink)>> + Send + 'static,
    {
        let (head_sender, head) = oneshot::channel();
        let (batch_sender, batches) = mpsc::channel(BATCHES_AHEAD);
        let running = query(ResultSink { head: Some(head_sender), batches: batch_sender });
        let runtime = self.runtime.as_ref().expect("it is there until it is dropped");
        let deadline = signal.deadline();
        let handle = runtime.spawn(async move {
            match timeout_at(deadline, running).await {
                Ok(Ok(())) => TaskEnd::Told,
                Ok(Err((error, out))) => {
                    out.fail(error).await;
                    TaskEnd::Told
                }
                Err(_) => TaskEnd::Over,
            }
        });
        // From here on the end of this future, too, ends the query.
        let task = QueryTask { handle, signal: Arc::clone(&signal) };
        let head = timeout_at(deadline, head).await.map_err(|_| signal.too_slow())?;
        let head = match head {
            Ok(head) => head?,
            // Without an answer the query panicked, or its time was up just now.
            Err(_) => return Err(signal.check().err().unwrap_or_else(failure::of_panic)),
        };
        let rows = ReceivedRows { task, batches, ended: false };
        Ok((head, stream::unfold(rows, ReceivedRows::next).boxed()))
    }
}

impl Drop for QueryThreads {
    /// Does not wait for queries, which may run for as long as their limits let them; a thread of
    /// its own does, and joins theirs.
    ///
    /// No thread is detached here. Up to glibc 2.36 at least, `pthread_detach` reads the thread's
    /// memory once more after it gave it away (its bug 19951): a thread that ends at this moment
    /// takes its stack with it, and the process dies of SIGSEGV. `Runtime::shutdown_background`
    /// detaches all threads while they end.
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        // Where no thread can be started the runtime stays: it may not be dropped on this one,
        // which may be one of another runtime.
        let runtime = ManuallyDrop::new(runtime);
        let stop = move || drop(ManuallyDrop::into_inner(runtime));
        match thread::Builder::new().name("sql-stop".to_owned()).spawn(stop) {
            Ok(thread) => mem::forget(thread),
            Err(error) => tracing::warn!(%error, "the threads of queries are not stopped"),
        }
    }
}

struct ReceivedRows {
    task: QueryTask,
    batches: mpsc::Receiver<Result<RecordBatch, SqlError>>,
    ended: bool,
}

impl ReceivedRows {
    async fn next(mut self) -> Option<(Result<RecordBatch, SqlError>, Self)> {
        if self.ended {
            return None;
        }
        let signal = &self.task.signal;
        let item = match timeout_at(signal.deadline(), self.batches.recv()).await {
            Ok(Some(batch)) => batch,
            Ok(None) => match (&mut self.task.handle).await {
                Ok(TaskEnd::Told) => return None,
                Ok(TaskEnd::Over) => Err(self.task.signal.too_slow()),
                Err(ended) if ended.is_panic() => Err(failure::of_panic()),
                // The server stops.
                Err(_) => Err(SqlError::Unavailable),
            },
            Err(_) => Err(signal.too_slow()),
        };
        self.ended = item.is_err();
        Some((item, self))
    }
}
