//! The threads that queries run on, apart from those of ingest and HTTP.
//!
//! Planning and executing recurse as deep as a statement is long, and do not yield while they
//! plan. So queries have threads of their own with large stacks: a long plan slows down other
//! queries at most, and a statement that the guard lets through does not overflow a stack.

use crate::sql::{SqlError, failure};
use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use std::future::Future;
use tokio::{
    runtime::{Builder, Runtime},
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, timeout_at},
};

/// Stack of a thread. Only what is used takes memory: a statement at the guard's bounds uses about
/// a quarter of it in a debug build, and far less in a release build.
const STACK_BYTES: usize = 64 << 20;
/// Threads that read local files, at most.
const BLOCKING_THREADS_MAX: usize = 32;
/// Batches that are made ahead of the reader.
const BATCHES_AHEAD: usize = 2;

/// Threads for queries.
#[derive(Debug)]
pub struct Engine {
    // None only while it is dropped.
    runtime: Option<Runtime>,
}

/// What a query tells before its first row.
#[derive(Debug)]
pub struct Head {
    /// Columns.
    pub schema: SchemaRef,
    /// The snapshot of `events` that is read.
    pub snapshot: Option<i64>,
}

/// Where a running query puts its answer.
#[derive(Debug)]
pub struct Out {
    head: Option<oneshot::Sender<Result<Head, SqlError>>>,
    batches: mpsc::Sender<Result<RecordBatch, SqlError>>,
}

/// The reader is gone: the query has no reason to go on.
#[derive(Debug)]
pub struct Gone;

impl Out {
    /// Tells what comes; once, before the first batch.
    ///
    /// # Errors
    /// [`Gone`]
    pub fn head(&mut self, head: Head) -> Result<(), Gone> {
        let sender = self.head.take().ok_or(Gone)?;
        sender.send(Ok(head)).map_err(|_| Gone)
    }

    /// Gives a batch once there is room for it.
    ///
    /// # Errors
    /// [`Gone`]
    pub async fn batch(&mut self, batch: RecordBatch) -> Result<(), Gone> {
        self.batches.send(Ok(batch)).await.map_err(|_| Gone)
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
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The rows of a query.
pub type Batches = BoxStream<'static, Result<RecordBatch, SqlError>>;

impl Default for Engine {
    /// # Panics
    /// The machine has no threads left at the start of the process.
    fn default() -> Self {
        let runtime = Builder::new_multi_thread()
            .thread_name("sql")
            .thread_stack_size(STACK_BYTES)
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .enable_all()
            .build()
            .expect("threads can be started when the server starts");
        Self { runtime: Some(runtime) }
    }
}

impl Engine {
    /// Runs `query` until it ends, the reader drops the rows, or `deadline`; then the answer ends
    /// with `too_slow`, even if the query holds its thread for longer.
    ///
    /// # Errors
    /// What `query` gave before its head, or `too_slow`.
    pub async fn run<F, Q>(
        &self,
        query: F,
        deadline: Instant,
        too_slow: SqlError,
    ) -> Result<(Head, Batches), SqlError>
    where
        F: FnOnce(Out) -> Q,
        Q: Future<Output = Result<(), (SqlError, Out)>> + Send + 'static,
    {
        let (head_sender, head) = oneshot::channel();
        let (batch_sender, batches) = mpsc::channel(BATCHES_AHEAD);
        let running = query(Out { head: Some(head_sender), batches: batch_sender });
        let runtime = self.runtime.as_ref().expect("it is there until it is dropped");
        let task = Task(runtime.spawn(async move {
            if let Err((error, out)) = running.await {
                out.fail(error).await;
            }
        }));
        let head = timeout_at(deadline, head).await.map_err(|_| too_slow.clone())?;
        // Without an answer the query panicked.
        let head = head.map_err(|_| failure::of_panic())??;
        let rows = Rows { task, batches, deadline, too_slow, ended: false };
        Ok((head, stream::unfold(rows, Rows::next).boxed()))
    }
}

impl Drop for Engine {
    /// Does not wait for queries, which may run for as long as their limits let them.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

struct Rows {
    task: Task,
    batches: mpsc::Receiver<Result<RecordBatch, SqlError>>,
    deadline: Instant,
    too_slow: SqlError,
    ended: bool,
}

impl Rows {
    async fn next(mut self) -> Option<(Result<RecordBatch, SqlError>, Self)> {
        if self.ended {
            return None;
        }
        let item = match timeout_at(self.deadline, self.batches.recv()).await {
            Ok(Some(batch)) => batch,
            Ok(None) => match (&mut self.task.0).await {
                Err(ended) if ended.is_panic() => Err(failure::of_panic()),
                _ => return None,
            },
            Err(_) => Err(self.too_slow.clone()),
        };
        self.ended = item.is_err();
        Some((item, self))
    }
}
