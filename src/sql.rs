//! SQL over a namespace's tables: the last snapshot together with what is acknowledged but not yet
//! committed, each row exactly once.
//!
//! This side has the stores: who may ask now, which tables a query sees, and what stays readable while
//! it runs. The answer is made by [`icecore_engine`], which gets a [`View`] by value and shares no memory
//! with ingest or the catalog.

mod audit;
mod basis;
pub mod collection_refresh;
pub mod collection_schema;
pub mod document_lookup;
pub mod materialized;
mod min_seq;
pub mod points;
pub mod slots;
pub mod statement_view;
pub mod stored_views;
mod things;
pub mod threads;
mod usage;
pub mod view;
mod view_query;
mod visibility;
pub mod worker;
pub mod workers;
pub mod writes;

use crate::owner::LogOwnership;
use arrow::record_batch::RecordBatch;
use collection_schema::PendingValues;
use document_lookup::DocumentReader;
use futures::StreamExt;
use icecore_catalog::{access::Principal, catalog::Catalog};
use icecore_engine::{
    EngineQuery, QueryAnswer, QueryControls, QueryEngine, RowStream, RunningQuery,
    audit::{AuditPages, PageRequest},
    error::SqlError,
    guard,
    log_tail::TailSource,
    references::{self, QueryScope, WantedTables},
    stop::{QuerySignal, QueryStop},
    view::View,
};
use icecore_lake::{
    faults::Failpoints,
    metrics::Metrics,
    wal::{LogPin, Wal},
};
use icecore_schemas::{
    query::{QueryBasis, SqlRequest},
    service_table::{EVENTS_TABLE, ServiceTables},
};
use points::{PointReader, RequestTime};
use slots::{QueryOwner, QuerySize, QuerySlots, SlotsMax};
use statement_view::StatementReader;
use std::{sync::Arc, time::Duration};
use threads::{QueryThreads, ResultHeader, ResultSink};
use tokio::sync::{Semaphore, mpsc};
use usage::QueryUsage;
use view::ViewSources;
use workers::{SqlWorkers, WorkerOptions, WorkerTenant};

/// Bounds of a query.
#[derive(Clone, Debug)]
pub struct SqlOptions {
    /// Memory of all queries together. Default 1 GiB.
    pub memory_bytes_max: usize,
    /// Longest a query may run, and the default. Default 60 s.
    pub timeout_max: Duration,
    /// Most rows of an answer, then a [`SqlError::Limit`]. Default 1 000 000.
    pub rows_max: u64,
    /// Queries at once; more wait a moment, then are refused. Default 16, 8 of them of one
    /// namespace, 8 of one token.
    pub concurrent: SlotsMax,
    /// Where queries are counted.
    pub metrics: Metrics,
    /// The tables that records of the log are rows of.
    pub tables: ServiceTables,
    /// Whether a token sees only the rows whose visibility its scopes name. Default off.
    pub filters_visibility: bool,
    /// How the processes are started that queries run in; none to run them in this one.
    pub workers: Option<WorkerOptions>,
}

/// Runs queries. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sql {
    inner: Arc<SqlInner>,
}

#[derive(Debug)]
struct SqlInner {
    options: SqlOptions,
    wal: Wal,
    owner: LogOwnership,
    catalog: Catalog,
    faults: Failpoints,
    runner: QueryRunner,
    threads: QueryThreads,
    slots: QuerySlots,
    documents: DocumentReader,
    /// Queries that wait for their `min_seq`.
    seq_waits: Semaphore,
    /// Turns of statements that write.
    writes: Semaphore,
    /// Turns of tables of collections that are written.
    collection_writes: Semaphore,
    /// Tables of collections that got columns.
    pending_values: PendingValues,
}

/// Where queries run.
#[derive(Debug)]
enum QueryRunner {
    /// In this process.
    Engine(QueryEngine),
    /// In processes of their own.
    Workers(SqlWorkers),
}

impl QueryRunner {
    /// Plans a query of the namespace of these levels, and starts it. The thread is one for queries.
    async fn start(
        &self,
        levels: &[String],
        query: EngineQuery,
        controls: QueryControls,
    ) -> Result<RunningQuery, SqlError> {
        match self {
            Self::Engine(engine) => Box::pin(engine.start(query, controls)).await,
            Self::Workers(workers) => {
                let mut namespaces = query.view.other_levels.clone();
                namespaces.insert(levels.to_vec());
                let tenant = WorkerTenant { namespaces, has_system: query.view.has_system };
                Box::pin(workers.start(tenant, query, controls)).await
            }
        }
    }
}

/// What is asked, and by whom.
#[derive(Debug)]
struct QueryContext {
    asker: QueryOwner,
    reader: Option<Principal>,
    levels: Vec<String>,
    reach: QueryScope,
    asked: AskedStatement,
}

/// A statement that is asked.
#[derive(Debug)]
struct AskedStatement {
    request: SqlRequest,
    /// The key of the one document that it has; none for other statements.
    key: Option<String>,
    /// Most rows.
    rows_max: u64,
}

/// Longest a statement without a table may run.
const SMALL_TIME_MAX: Duration = Duration::from_secs(2);

impl Sql {
    /// Queries over these stores, on threads of their own.
    ///
    /// # Panics
    /// The machine has no threads left.
    #[must_use]
    pub fn new(
        options: SqlOptions,
        wal: Wal,
        owner: LogOwnership,
        catalog: Catalog,
        faults: Failpoints,
    ) -> Self {
        let storage = catalog.storage().clone();
        let documents = DocumentReader::new(storage.clone(), options.tables.clone());
        let runner = match &options.workers {
            Some(workers) => QueryRunner::Workers(SqlWorkers::new(workers.clone(), storage)),
            None => {
                let (memory, tables) = (options.memory_bytes_max, options.tables.clone());
                QueryRunner::Engine(QueryEngine::new(memory, storage, tables))
            }
        };
        let slots = QuerySlots::new(options.concurrent);
        let threads = QueryThreads::new(QuerySlots::most(options.concurrent));
        let seq_waits = Semaphore::new(min_seq::SEQ_WAITS_MAX);
        let writes = Semaphore::new(writes::WRITES_MAX);
        let collection_writes = Semaphore::new(materialized::COLLECTION_WRITES_MAX);
        let inner = SqlInner {
            options,
            wal,
            owner,
            catalog,
            faults,
            runner,
            threads,
            slots,
            documents,
            seq_waits,
            writes,
            collection_writes,
            pending_values: PendingValues::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Starts a query over the tables of a namespace, given by its levels in the catalog. Its time
    /// runs from here to its last row. `reader` is who asks, and which other namespaces may be named; the service
    /// itself names none.
    ///
    /// # Errors
    /// [`SqlError`]
    pub async fn query(
        &self,
        levels: &[String],
        reach: QueryScope,
        reader: Option<&Principal>,
        request: SqlRequest,
    ) -> Result<QueryAnswer, SqlError> {
        self.query_within(levels, reach, reader, self.bounded(request)).await
    }

    /// The same for the service itself, which reads every row one after the other.
    ///
    /// # Errors
    /// [`SqlError`]
    pub async fn query_all(
        &self,
        levels: &[String],
        request: SqlRequest,
    ) -> Result<QueryAnswer, SqlError> {
        let asked = AskedStatement { request, key: None, rows_max: u64::MAX };
        self.query_within(levels, QueryScope::Namespace, None, asked).await
    }

    /// A statement with the usual bound on its rows.
    fn bounded(&self, request: SqlRequest) -> AskedStatement {
        AskedStatement { request, key: None, rows_max: self.inner.options.rows_max }
    }

    /// The same with bounds of its own.
    async fn query_within(
        &self,
        levels: &[String],
        reach: QueryScope,
        reader: Option<&Principal>,
        asked: AskedStatement,
    ) -> Result<QueryAnswer, SqlError> {
        let (inner, request) = (Arc::clone(&self.inner), &asked.request);
        let wanted = request.timeout_ms.map_or(inner.options.timeout_max, Duration::from_millis);
        let signal = QuerySignal::new(wanted.min(inner.options.timeout_max));
        // Before it takes a place from others.
        if let (Some(min_seq), None, None) = (request.min_seq, &request.as_of, &request.basis) {
            Box::pin(inner.wait_for(levels, min_seq, signal.deadline())).await?;
        }
        let namespace = levels.join(".");
        let reach = reach.within(&namespace);
        // Whoever calls while access control is off has no token.
        let token = reader.map(Principal::id).filter(|id| *id != Principal::anonymous().id());
        let asker = QueryOwner { namespace, token: token.map(str::to_owned) };
        let (reader, levels) = (reader.cloned(), levels.to_vec());
        let question = QueryContext { asker, reader, levels, reach, asked };
        let query = {
            let signal = Arc::clone(&signal);
            |out| async move { inner.run(question, &signal, out).await }
        };
        let (head, batches) = self.inner.threads.run(query, signal).await?;
        let ResultHeader { schema, snapshot, basis } = head;
        Ok(QueryAnswer { schema, batches, snapshot, basis })
    }

    /// Starts the first worker, where queries run in processes of their own.
    ///
    /// # Errors
    /// [`SqlError::Internal`] when it does not start; queries will try again.
    pub async fn warm(&self) -> Result<(), SqlError> {
        let QueryRunner::Workers(workers) = &self.inner.runner else { return Ok(()) };
        let workers = workers.clone();
        let warmed = self.inner.threads.complete(async move { workers.warm().await }).await;
        warmed.unwrap_or(Err(SqlError::Unavailable))
    }

    /// What this system does not enforce of the bounds of a query's process; nothing where queries run in
    /// this one.
    #[must_use]
    pub fn unenforced(&self) -> &[String] {
        match &self.inner.runner {
            QueryRunner::Engine(_) => &[],
            QueryRunner::Workers(workers) => workers.missing(),
        }
    }

    /// Whether a namespace may have so many queries at a time.
    #[must_use]
    pub fn has_places(&self, queries: usize) -> bool {
        let SlotsMax { all, namespace, .. } = self.inner.options.concurrent;
        queries <= all.min(namespace)
    }

    /// How many queries wait for a slot.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.inner.slots.waiting()
    }

    /// How many queries run, and how many of them go on although they were to end.
    #[must_use]
    pub fn running(&self) -> (usize, usize) {
        (self.inner.slots.running(), self.inner.slots.stuck())
    }
}

#[cfg(test)]
impl Sql {
    /// Returns once no query runs.
    async fn idle(&self) {
        while self.inner.slots.running() != 0 {
            tokio::task::yield_now().await;
        }
    }
}

struct QueryStream {
    snapshot: Option<i64>,
    basis: Option<QueryBasis>,
    running: RunningQuery,
    // What the query reads stays readable while this lives.
    _pin: LogPin,
}

impl SqlInner {
    /// Runs a query to its end.
    async fn run(
        &self,
        question: QueryContext,
        signal: &Arc<QuerySignal>,
        mut out: ResultSink,
    ) -> Result<(), (SqlError, ResultSink)> {
        let mut usage = QueryUsage::start(self.options.metrics.clone());
        let (audit, mut pages) = AuditPages::channel();
        let rows_max = question.asked.rows_max;
        let started = Box::pin(self.start(question, signal, &usage, audit)).await;
        let QueryStream { snapshot, basis, running, _pin } = match started {
            Ok(started) => started,
            Err(error) => {
                usage.fail();
                return Err((error, out));
            }
        };
        let RunningQuery { schema, mut rows, read } = running;
        usage.run(read);
        if out.head(ResultHeader { schema, snapshot, basis }).is_err() {
            return Ok(());
        }
        while let Some(batch) = self.next(&mut rows, &mut pages).await {
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => {
                    usage.fail();
                    return Err((error, out));
                }
            };
            if let Err(error) = check_rows(usage.add_rows(batch.num_rows()), rows_max) {
                usage.fail();
                return Err((error, out));
            }
            if out.batch(batch).await.is_err() {
                return Ok(());
            }
        }
        usage.finish();
        Ok(())
    }

    /// The next rows of a query, which may want pages of the audit log first.
    async fn next(
        &self,
        rows: &mut RowStream,
        pages: &mut mpsc::Receiver<PageRequest>,
    ) -> Option<Result<RecordBatch, SqlError>> {
        loop {
            // Both are safe to drop: neither takes something that it does not give.
            let request = tokio::select! {
                batch = rows.next() => return batch,
                Some(request) = pages.recv() => request,
            };
            audit::answer(self.catalog.metastore(), request).await;
        }
    }

    fn sources(&self) -> ViewSources<'_> {
        let Self { wal, owner, catalog, faults, .. } = self;
        ViewSources { wal, owner, catalog, tables: &self.options.tables, faults }
    }

    async fn start(
        &self,
        QueryContext { asker, reader, levels, reach, asked }: QueryContext,
        signal: &Arc<QuerySignal>,
        usage: &QueryUsage,
        audit: AuditPages,
    ) -> Result<QueryStream, SqlError> {
        let AskedStatement { request, key, .. } = asked;
        let statement = guard::check(&request.sql)?;
        let size = match request.min_seq {
            // It may wait for that one.
            Some(_) => QuerySize::Any,
            None => QuerySize::of(&statement),
        };
        let slot = self.slots.take(&asker, size, signal).await?;
        let signal = match size {
            QuerySize::Small => &signal.within(SMALL_TIME_MAX),
            QuerySize::Any => signal,
        };
        let stop = QueryStop::new(Arc::clone(signal), Box::new(slot));
        let RequestTime { as_of, clock_ms } = RequestTime::of(&request)?;
        let mut tables = references::wanted(&statement.statement, &levels.join("."), reach)?;
        if tables.names_system && (as_of.is_some() || request.basis.is_some()) {
            let member = if as_of.is_some() { "as_of" } else { "basis" };
            let text = "does not apply to tables of `system`; filter by their time instead";
            return Err(SqlError::Invalid(format!("{member} {text}")));
        }
        let min_seq = request.min_seq.filter(|_| request.basis.is_none());
        if min_seq.is_some()
            && let WantedTables::Named(names) = &mut tables.wanted
            && !names.iter().any(|name| name == EVENTS_TABLE)
        {
            names.push(EVENTS_TABLE.to_owned());
        }
        let is_past = as_of.is_some();
        let now_ms = clock_ms.unwrap_or_else(|| self.catalog.now_ms());
        let asking = PointReader { levels: &levels, principal: reader.as_ref() };
        let points = self.points(asking, &statement, &request, (as_of, now_ms), signal);
        let points = Box::pin(points).await?;
        let reader = StatementReader {
            levels: &levels,
            principal: reader.as_ref(),
            points: &points,
            filters_rows: self.options.filters_visibility,
        };
        let (view, pin) = Box::pin(self.sources().of_statement(reader, &tables)).await?;
        if let Some(min_seq) = min_seq {
            min_seq::check(&view, min_seq)?;
        }
        // The clock of a snapshot that a request names is when it was made.
        let made_ms = match (is_past, clock_ms) {
            (true, None) if view.all_tables().next().is_none() => {
                Box::pin(self.events_ms(&levels, &points)).await?
            }
            (true, None) => basis::newest_snapshot_ms(&view, &points),
            _ => None,
        };
        let clock_ms = made_ms.unwrap_or(now_ms);
        let basis = Some(basis::of(&view, &points, clock_ms, &tables.named));
        let view = View { has_system: reach == QueryScope::System, ..view };
        let snapshot = view.table(EVENTS_TABLE).and_then(|events| events.snapshot_id);
        if let Some(key) = &key
            && let Some(running) =
                Box::pin(self.documents.read(&view, key, signal.deadline())).await
        {
            return Ok(QueryStream { snapshot, basis, running, _pin: pin });
        }
        let SqlRequest { params, limit, .. } = request;
        let query = EngineQuery { statement, params, limit, view, clock_ms };
        let (counts, tail) = (usage.files(), TailSource::Files);
        let controls = QueryControls { stop, counts, audit, tail };
        let running = Box::pin(self.runner.start(&levels, query, controls)).await?;
        Ok(QueryStream { snapshot, basis, running, _pin: pin })
    }
}

fn check_rows(rows: u64, rows_max: u64) -> Result<(), SqlError> {
    if rows <= rows_max {
        return Ok(());
    }
    Err(SqlError::Limit(format!(
        "the answer has more than {rows_max} rows (sql.rows_max); add a LIMIT or aggregate"
    )))
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
