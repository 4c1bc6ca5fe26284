//! One query in a worker: what it asks for is answered, what it says is its answer.
//!
//! Its one invariant: a worker reads files in the folders of the tables that its query sees, rows of the
//! log and records of the audit log of that same view, and nothing else, whatever it asks for.

use crate::sql::workers::{
    SqlWorkers, WorkerTenant,
    budget::MemoryShare,
    frames::{self, FromWorker, QueryTime, ToWorker},
    process::WorkerProcess,
    spill,
};
use arrow::{datatypes::SchemaRef, error::ArrowError, record_batch::RecordBatch};
use bytes::Bytes;
use futures::{
    FutureExt, StreamExt,
    future::BoxFuture,
    stream::{self, FuturesUnordered},
};
use icecore_catalog::{
    audit::AuditRange,
    error::CatalogError,
    location::Location,
    storage::{
        Storage,
        remote::{FileCall, FileFailure, RANGE_BYTES_MAX},
    },
};
use icecore_engine::{
    EngineQuery, QueryControls, RunningQuery,
    audit::AuditPages,
    counts::BytesRead,
    error::SqlError,
    log_tail::{self, TailRun},
    view::{TailPlace, View},
};
use icecore_schemas::service_table::ServiceTables;
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use tokio::time::Interval;

/// Questions of one worker that are answered at a time; it waits with more.
const ANSWERS_AT_ONCE: usize = 16;
/// Longest body of a question: the columns of a table.
const QUESTION_BYTES_MAX: usize = 1 << 20;

/// Of a location that is refused, what is in the log.
const LOCATION_CHARS_LOGGED: usize = 256;

/// What is said back to a worker.
type WorkerAnswer = (ToWorker, Bytes);

/// What a query may ask for.
#[derive(Debug)]
struct QueryInputs {
    storage: Storage,
    tables: ServiceTables,
    view: View,
    /// Those that files are read in.
    folders: Vec<Location>,
    audit: AuditPages,
    /// Whether a question for another file is in the log: a worker may ask without end.
    has_warned: AtomicBool,
}

/// What a worker said that is no question.
enum QueryEvent {
    Head(SchemaRef),
    Batch(RecordBatch),
    End { is_idle: bool },
}

/// A query that runs in a worker.
pub(super) struct WorkerQuery {
    workers: SqlWorkers,
    tenant: WorkerTenant,
    // Killed when this is dropped before its end, and before what was held for the query is let go.
    worker: WorkerProcess,
    answers: FuturesUnordered<BoxFuture<'static, WorkerAnswer>>,
    inputs: Arc<QueryInputs>,
    memory: MemoryShare,
    bytes_read: Arc<AtomicU64>,
    controls: QueryControls,
    /// When its disk is looked at.
    looks: Interval,
}

impl WorkerQuery {
    /// Sends a query and waits until it is planned.
    ///
    /// # Errors
    /// [`SqlError`], also when the worker ends.
    pub(super) async fn start(
        workers: SqlWorkers,
        (tenant, mut worker): (WorkerTenant, WorkerProcess),
        memory: MemoryShare,
        (time, query): (QueryTime, EngineQuery),
        controls: QueryControls,
    ) -> Result<RunningQuery, SqlError> {
        let bytes = frames::json_of(&query, frames::BODY_BYTES_MAX);
        let bytes = bytes.map_err(|cause| unsendable(&cause))?;
        let inputs = QueryInputs::of(&workers, query.view, controls.audit.clone());
        worker.tell(&ToWorker::Query(time), &bytes).await?;
        drop(bytes);
        let bytes_read: Arc<AtomicU64> = Arc::default();
        let mut running = Self {
            workers,
            tenant,
            worker,
            answers: FuturesUnordered::new(),
            inputs: Arc::new(inputs),
            memory,
            bytes_read: Arc::clone(&bytes_read),
            controls,
            looks: tokio::time::interval(spill::LOOK_EVERY),
        };
        let schema = match running.event().await {
            Ok(QueryEvent::Head(schema)) => schema,
            Ok(QueryEvent::Batch(_) | QueryEvent::End { .. }) => return Err(out_of_turn()),
            Err(failed) => return Err(running.fail(failed)),
        };
        let rows = stream::unfold(Some(running), Self::next).boxed();
        Ok(RunningQuery { schema, rows, read: BytesRead::told(bytes_read) })
    }

    /// The next rows; none after the last, and after an error.
    async fn next(running: Option<Self>) -> Option<(Result<RecordBatch, SqlError>, Option<Self>)> {
        let mut running = running?;
        match running.event().await {
            Ok(QueryEvent::Batch(batch)) => Some((Ok(batch), Some(running))),
            Ok(QueryEvent::End { is_idle }) => {
                if is_idle {
                    running.finish();
                } else {
                    running.end_worker();
                }
                None
            }
            Ok(QueryEvent::Head(_)) => Some((Err(out_of_turn()), None)),
            Err(failed) => Some((Err(running.fail(failed)), None)),
        }
    }

    /// The query came to its end: its worker may have another one.
    fn finish(self) {
        let Self { workers, tenant, worker, .. } = self;
        workers.give_back(tenant, worker);
        workers.keep_fresh();
    }

    /// The worker is not used any more.
    fn end_worker(self) {
        let workers = self.workers.clone();
        // It goes first, so that two do not run in its place.
        drop(self);
        workers.keep_fresh();
    }

    /// The query failed: its worker may have another one if it said so itself and is idle. One whose query
    /// came to a limit of time or memory is ended: it may hold much.
    fn fail(self, failed: QueryFailure) -> SqlError {
        match failed {
            QueryFailure::Told { error, is_idle: true } if !matches!(error, SqlError::Limit(_)) => {
                self.finish();
                error
            }
            QueryFailure::Told { error, .. } | QueryFailure::Ended(error) => {
                self.end_worker();
                error
            }
        }
    }

    /// Answers what the worker asks until it says something else.
    async fn event(&mut self) -> Result<QueryEvent, QueryFailure> {
        loop {
            // All are safe to drop: a frame that is half read stays in its stream, an answer that is half made
            // in the list, and a look comes with the next turn.
            let said = tokio::select! {
                Some((answer, body)) = self.answers.next(), if !self.answers.is_empty() => {
                    self.worker.tell(&answer, &body).await?;
                    continue;
                }
                said = self.worker.hear(), if self.answers.len() < ANSWERS_AT_ONCE => said?,
                _ = self.looks.tick(), if self.worker.spill().is_some() => {
                    let folder = self.worker.spill();
                    folder.map_or(Ok(()), |it| spill::check(it, self.workers.disk_free_min()))?;
                    continue;
                }
            };
            let (said, body) = said;
            match said {
                FromWorker::Head { files, pruned } => {
                    self.controls.counts.add(files, pruned);
                    let schema = frames::schema_of(&body).map_err(|cause| unreadable(&cause))?;
                    return Ok(QueryEvent::Head(schema));
                }
                FromWorker::Batch { bytes_read } => {
                    self.bytes_read.store(bytes_read, Ordering::Relaxed);
                    let batch = frames::batch_of(&body).map_err(|cause| unreadable(&cause))?;
                    return Ok(QueryEvent::Batch(batch));
                }
                FromWorker::End { bytes_read, is_idle } => {
                    self.bytes_read.store(bytes_read, Ordering::Relaxed);
                    return Ok(QueryEvent::End { is_idle });
                }
                FromWorker::Failed { error, is_idle } => {
                    return Err(QueryFailure::Told { error, is_idle });
                }
                FromWorker::Hello(_) => return Err(out_of_turn().into()),
                FromWorker::Memory { id, bytes } => {
                    let is_granted = self.memory.grow(bytes);
                    self.worker.tell(&ToWorker::Memory { id, is_granted }, &[]).await?;
                }
                // Those that are asked at once are held together.
                _ if QUESTION_BYTES_MAX < body.len() => return Err(out_of_turn().into()),
                question => {
                    let inputs = Arc::clone(&self.inputs);
                    self.answers.push(inputs.answer(question, body).boxed());
                }
            }
        }
    }
}

/// Why a query failed.
enum QueryFailure {
    /// Its worker said so, and waits for the next one if it is idle.
    Told { error: SqlError, is_idle: bool },
    /// Its worker ended, or is not to be used any more.
    Ended(SqlError),
}

impl From<SqlError> for QueryFailure {
    fn from(error: SqlError) -> Self {
        Self::Ended(error)
    }
}

fn out_of_turn() -> SqlError {
    SqlError::Internal("the worker of the query says what nobody asked it".to_owned())
}

/// Why a query does not go to a worker.
fn unsendable(cause: &io::Error) -> SqlError {
    tracing::error!(error = cause as &dyn std::error::Error, "a query cannot be sent");
    if cause.kind() == io::ErrorKind::FileTooLarge {
        return SqlError::Limit(format!(
            "the query has more than {} MiB for its worker: its text and parameters, records of the log that wait for a commit, and all metadata of tables whose metadata tables it reads; query again after the commit, expire snapshots, or set sql.workers to off",
            frames::BODY_BYTES_MAX >> 20
        ));
    }
    SqlError::Internal("the query cannot be sent to its worker".to_owned())
}

fn unreadable(cause: &ArrowError) -> SqlError {
    tracing::error!(error = cause as &dyn std::error::Error, "what a worker says does not read");
    SqlError::Internal("the answer of the query's worker does not read".to_owned())
}

impl QueryInputs {
    fn of(workers: &SqlWorkers, view: View, audit: AuditPages) -> Self {
        let storage = workers.storage().clone();
        // Each table's files are in its own folder, also those of its metadata and of earlier and later states.
        let tables = view.all_tables().filter_map(|(_, table)| table.metadata.as_ref());
        let folders = tables.filter_map(|table| storage.normalize(table.location()).ok());
        let mut folders: Vec<Location> = folders.collect();
        if workers.has_foreign_files() {
            folders.extend(Location::parse(storage.root()));
        }
        let (tables, has_warned) = (workers.tables().clone(), AtomicBool::new(false));
        Self { storage, tables, view, folders, audit, has_warned }
    }

    async fn answer(self: Arc<Self>, question: FromWorker, body: Bytes) -> WorkerAnswer {
        match question {
            FromWorker::File { id, location, call } => match self.file(&location, call).await {
                Ok((size, bytes)) => (ToWorker::File { id, size, failure: None }, bytes),
                Err(failure) => {
                    let failure = Some(failure);
                    (ToWorker::File { id, size: None, failure }, Bytes::new())
                }
            },
            FromWorker::Tail { id, place, run } => {
                let (error, bytes) = told(self.tail(place, run, body).await);
                (ToWorker::Tail { id, error }, bytes)
            }
            FromWorker::Page { id, range, limit } => {
                let (error, bytes) = told(self.page(range, limit).await);
                (ToWorker::Page { id, error }, bytes)
            }
            // Those are no questions for data.
            FromWorker::Hello(_)
            | FromWorker::Memory { .. }
            | FromWorker::Head { .. }
            | FromWorker::Batch { .. }
            | FromWorker::End { .. }
            | FromWorker::Failed { .. } => (ToWorker::Memory { id: 0, is_granted: false }, body),
        }
    }

    /// A length, or bytes.
    async fn file(
        &self,
        location: &str,
        call: FileCall,
    ) -> Result<(Option<u64>, Bytes), FileFailure> {
        let Some(location) = self.folders.iter().find_map(|folder| folder.admit(location).ok())
        else {
            if !self.has_warned.swap(true, Ordering::Relaxed) {
                let location: String = location.chars().take(LOCATION_CHARS_LOGGED).collect();
                tracing::warn!(location, "a worker asks for a file of no table of its query");
            }
            return Err(FileFailure::Forbidden);
        };
        let location = location.as_str();
        let failed = |cause: CatalogError| FileFailure::of(&cause);
        match call {
            FileCall::Size => {
                Ok((Some(self.storage.size(location).await.map_err(failed)?), Bytes::new()))
            }
            FileCall::Range(range) if range.end.saturating_sub(range.start) <= RANGE_BYTES_MAX => {
                let bytes = self.storage.get_query_range(location, range).await;
                Ok((None, bytes.map_err(failed)?))
            }
            FileCall::Range(_) => {
                Err(FileFailure::Failed("more bytes are asked for than at once".to_owned()))
            }
        }
    }

    /// Rows of the log as the columns that are asked for.
    async fn tail(
        self: &Arc<Self>,
        place: TailPlace,
        run: TailRun,
        columns: Bytes,
    ) -> Result<Vec<u8>, SqlError> {
        let inputs = Arc::clone(self);
        let read = move || {
            let schema = frames::schema_of(&columns).map_err(|cause| unreadable(&cause))?;
            let Some(table) = inputs.view.with_tail(&place) else { return Err(out_of_turn()) };
            let rows = log_tail::rows_of(table, &inputs.tables, run, &schema)?;
            frames::batch_bytes(&rows).map_err(|cause| unreadable(&cause))
        };
        match tokio::task::spawn_blocking(read).await {
            Ok(rows) => rows,
            Err(_) => Err(SqlError::Internal("the log cannot be read".to_owned())),
        }
    }

    /// Records of the audit log, for a query that sees it.
    async fn page(&self, range: AuditRange, limit: u32) -> Result<Vec<u8>, SqlError> {
        if !self.view.has_system {
            return Err(out_of_turn());
        }
        let page = self.audit.page(range, limit).await?;
        serde_json::to_vec(&page).map_err(|cause| {
            let text = "audit records cannot be sent";
            tracing::error!(error = &cause as &dyn std::error::Error, "{text}");
            SqlError::Internal(text.to_owned())
        })
    }
}

/// The error or the bytes of an answer.
fn told(answer: Result<Vec<u8>, SqlError>) -> (Option<SqlError>, Bytes) {
    match answer {
        Ok(bytes) => (None, bytes.into()),
        Err(error) => (Some(error), Bytes::new()),
    }
}

#[cfg(test)]
mod tests;
