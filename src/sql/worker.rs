//! The worker's side of SQL: a process that runs one query at a time and has nothing but its pipes.
//!
//! It is this same program, started by the server. It locks itself in, then it takes queries by value and
//! answers them with the same engine that runs in the server's process where there are no workers. Files,
//! rows of the log and records of the audit log it asks the server for, who gives it those of its query
//! alone.

mod link;
pub mod lock;
pub mod probe;

use crate::sql::{
    threads::STACK_BYTES,
    workers::frames::{self, FromWorker, QueryTime, WorkerStart},
};
use arrow::error::ArrowError;
use bytes::Bytes;
use futures::StreamExt;
use icecore_catalog::storage::{
    Storage,
    remote::{FileRequest, FileRequests},
};
use icecore_engine::{
    EngineQuery, QueryControls, QueryEngine, RunningQuery,
    audit::{AuditPages, PageRequest},
    counts::FileCounts,
    error::SqlError,
    failure,
    log_tail::{TailRequest, TailRequests, TailSource},
    memory::GrantedMemory,
    session::{EngineResources, SpillFolder},
    stop::{QuerySignal, QueryStop, THREADS_MAX},
};
use icecore_schemas::service_table::ServiceTables;
use link::{ReplySender, ServerLink, WorkerTask};
use lock::{LockReport, WorkerLimits};
use std::{
    fs::File,
    io,
    os::fd::AsFd,
    sync::{Arc, mpsc::sync_channel},
    time::Duration,
};
use tokio::{
    runtime::{Builder, Handle},
    sync::mpsc,
    time::Instant,
};

/// Threads beside those of the query: what it asks for is passed on whatever its operators do.
const FORWARDING_THREADS: usize = 1;
/// Threads for what blocks: reading spilled rows, and parsing.
const BLOCKING_THREADS_MAX: usize = 4;
/// How long the end of an answer waits for parts of its query that still run, as after a LIMIT.
const PARTS_PATIENCE: Duration = Duration::from_millis(200);

/// Answers queries of the server that started this process, until it ends or closes the pipe. `locked` is
/// how this process is locked in, which came first.
///
/// # Errors
/// The pipes are not there, no thread can be started, or the server says something else than it does.
pub fn serve(limits: &WorkerLimits, locked: LockReport) -> io::Result<()> {
    let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let (link, tasks) = ServerLink::open(input, output)?;
    link.say(&FromWorker::Hello(locked), &[]);
    let Ok(WorkerTask::Open(start)) = tasks.recv() else {
        return Err(io::Error::other("the server does not say which warehouse it has"));
    };
    // The pipes have threads that wait, so nothing here waits for a descriptor.
    let runtime = Builder::new_multi_thread()
        .worker_threads(THREADS_MAX + FORWARDING_THREADS)
        .thread_name("sql")
        .thread_stack_size(STACK_BYTES)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .enable_time()
        .build()?;
    let (requests, asked) = FileRequests::channel();
    runtime.spawn(forward_files(link.clone(), asked));
    let memory = granted_memory(&link, start.memory_bytes_max);
    let engine = engine(limits, &start, memory.clone(), requests)?;
    for task in tasks {
        let WorkerTask::Query(time, query) = task else { continue };
        memory.give_back();
        // On a thread with a large stack.
        let answered = runtime.spawn(answer(engine.clone(), link.clone(), time, query));
        let outcome = runtime.block_on(answered);
        link.forget();
        let end = outcome.unwrap_or_else(|_| {
            let error = failure::of_panic();
            FromWorker::Failed { error, is_idle: false }
        });
        link.say(&end, &[]);
    }
    Ok(())
}

fn granted_memory(link: &ServerLink, bytes_max: usize) -> GrantedMemory {
    let link = link.clone();
    let ask = move |bytes: usize| {
        let (reply, answer) = sync_channel(1);
        link.ask(ReplySender::Memory(reply), |id| FromWorker::Memory { id, bytes }, &[]);
        // Without an answer the query is over.
        answer.recv().unwrap_or(false)
    };
    GrantedMemory::new(bytes_max, Box::new(ask))
}

fn engine(
    limits: &WorkerLimits,
    start: &WorkerStart,
    memory: GrantedMemory,
    requests: FileRequests,
) -> io::Result<QueryEngine> {
    let bytes_max = limits.spill_bytes_max;
    let spill = limits.spill.clone().map(|path| SpillFolder { path, bytes_max });
    let storage = Storage::remote(&start.root, requests).map_err(io::Error::other)?;
    let tables = ServiceTables::with_trial(start.trial_columns)
        .and_then(|tables| tables.and_trial(start.trial_table))
        .ok_or_else(|| io::Error::other("the server has other tables than this program"))?;
    Ok(QueryEngine::with(EngineResources::Granted { memory, spill }, storage, tables))
}

/// Runs a query and tells its rows. Gives its end, which is to be told.
async fn answer(
    engine: QueryEngine,
    link: ServerLink,
    QueryTime { timeout, left }: QueryTime,
    query: Bytes,
) -> FromWorker {
    let now = Instant::now();
    let start = now.checked_sub(timeout.saturating_sub(left)).unwrap_or(now);
    let signal = QuerySignal::since(start, timeout);
    let (held, mut parts) = mpsc::channel::<()>(1);
    let stop = QueryStop::new(Arc::clone(&signal), Box::new(held));
    let told = Box::pin(run(engine, &link, query, stop)).await;
    // Where the answer ended early, by a LIMIT or an error, parts of the query know it only now. Their
    // memory would count as the next query's.
    signal.leave();
    let is_idle = tokio::time::timeout(PARTS_PATIENCE, parts.recv()).await.is_ok();
    match told {
        Ok(bytes_read) => FromWorker::End { bytes_read, is_idle },
        Err(error) => FromWorker::Failed { error, is_idle },
    }
}

/// The bytes that the query read.
async fn run(
    engine: QueryEngine,
    link: &ServerLink,
    query: Bytes,
    stop: Arc<QueryStop>,
) -> Result<u64, SqlError> {
    let query: EngineQuery = serde_json::from_slice(&query).map_err(|cause| {
        tracing::error!(error = &cause as &dyn std::error::Error, "a query does not read");
        SqlError::Internal("the query cannot be sent to its worker".to_owned())
    })?;
    let counts: Arc<FileCounts> = Arc::default();
    let (audit, pages) = AuditPages::channel();
    let (tail, tails) = TailRequests::channel();
    // They end when the query has nothing more to ask.
    Handle::current().spawn(forward_pages(link.clone(), pages));
    Handle::current().spawn(forward_tails(link.clone(), tails));
    let tail = TailSource::Asked(tail);
    let controls = QueryControls { stop, counts: Arc::clone(&counts), audit, tail };
    let running = Box::pin(engine.start(query, controls)).await?;
    let RunningQuery { schema, mut rows, read } = running;
    let (files, pruned) = counts.get();
    let columns = frames::schema_bytes(&schema).map_err(|cause| unsendable(&cause))?;
    link.say(&FromWorker::Head { files, pruned }, &columns);
    while let Some(batch) = rows.next().await {
        for piece in frames::pieces(batch?) {
            let bytes = frames::batch_bytes(&piece).map_err(|cause| unsendable(&cause))?;
            if frames::BODY_BYTES_MAX < bytes.len() {
                return Err(SqlError::Limit(format!(
                    "a row of the answer has more than {} MiB; select less of it",
                    frames::BODY_BYTES_MAX >> 20
                )));
            }
            link.say(&FromWorker::Batch { bytes_read: read.get() }, &bytes);
        }
    }
    Ok(read.get())
}

fn unsendable(cause: &ArrowError) -> SqlError {
    tracing::error!(error = cause as &dyn std::error::Error, "an answer cannot be sent");
    SqlError::Internal("the answer cannot be sent by its worker".to_owned())
}

async fn forward_files(link: ServerLink, mut asked: mpsc::Receiver<FileRequest>) {
    while let Some(FileRequest { location, call, reply }) = asked.recv().await {
        link.ask(ReplySender::File(reply), |id| FromWorker::File { id, location, call }, &[]);
    }
}

async fn forward_pages(link: ServerLink, mut asked: mpsc::Receiver<PageRequest>) {
    while let Some(PageRequest { range, limit, reply }) = asked.recv().await {
        link.ask(ReplySender::Page(reply), |id| FromWorker::Page { id, range, limit }, &[]);
    }
}

async fn forward_tails(link: ServerLink, mut asked: mpsc::Receiver<TailRequest>) {
    while let Some(TailRequest { place, run, schema, reply }) = asked.recv().await {
        match frames::schema_bytes(&schema) {
            Ok(columns) => {
                let question = |id| FromWorker::Tail { id, place, run };
                link.ask(ReplySender::Tail(reply), question, &columns);
            }
            Err(cause) => {
                if reply.send(Err(unsendable(&cause))).is_err() {
                    tracing::debug!("a query ended while it waited for rows of the log");
                }
            }
        }
    }
}
