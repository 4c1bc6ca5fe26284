//! SQL over a namespace's tables: the last snapshot together with what is acknowledged but not yet
//! committed, each row exactly once.
//!
//! A query sees a [`view::View`] by value: snapshots and places in log files. It shares no memory
//! with ingest, so it can run in another process.

pub mod allowed;
pub mod answer;
pub mod arithmetic;
pub mod audit;
pub mod clauses;
pub mod comparisons;
pub mod conform;
pub mod deletes;
pub mod described;
pub mod dialect;
pub mod distinct;
pub mod engine;
pub mod error;
mod failure;
pub mod field_ids;
pub mod filters;
pub mod floats;
pub mod frames;
pub mod fresh;
pub mod function_names;
pub mod functions;
pub mod growth;
pub mod guard;
pub mod labels;
mod min_seq;
pub mod multisets;
pub mod names;
pub mod nulls;
pub mod output;
mod parameters;
pub mod percentile;
pub mod plan;
pub mod prepare;
pub mod provider;
pub mod pushdown;
pub mod rewrite;
pub mod session;
pub mod similar;
pub mod slots;
pub mod stop;
pub mod sums;
pub mod syntax;
pub mod template;
pub mod time;
pub mod time_format;
pub mod types;
mod unreadable;
mod usage;
pub mod uuid;
pub mod view;
pub mod weight;
pub mod wrapped;

use crate::{
    faults::Faults,
    metrics::Metrics,
    owner::Ownership,
    wal::{Pin, Wal},
};
use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
use datafusion::{
    common::TableReference,
    execution::{
        SendableRecordBatchStream,
        context::SQLOptions,
        session_state::{SessionState, SessionStateBuilder},
    },
    logical_expr::{LogicalPlan, LogicalPlanBuilder},
    physical_plan::{ExecutionPlan, execute_stream},
    sql::{parser::Statement, resolve::resolve_table_references},
};
use engine::{Engine, Head, Out};
use error::SqlError;
use futures::{StreamExt, stream::BoxStream};
use icecore_catalog::{catalog::Catalog, metastore::Metastore};
use icecore_schemas::{
    as_of::AsOf,
    names::Namespace,
    query::SqlRequest,
    service_table::{EVENTS_TABLE, ServiceTables},
};
use session::{CATALOG, Sessions};
use slots::{Asker, Size, Slots, SlotsMax};
use std::{sync::Arc, time::Duration};
use stop::{Signal, Stop, between_rules, stopping, stopping_windows};
use usage::QueryUsage;
use view::{Sources, View, Wanted};

/// Bounds of a query.
#[derive(Clone, Debug)]
pub struct SqlOptions {
    /// Memory of all queries together. Default 1 GiB.
    pub memory_bytes_max: usize,
    /// Longest a query may run, and the default. Default 60 s.
    pub timeout_max: Duration,
    /// Most rows of an answer. Default 1 000 000.
    pub rows_max: u64,
    /// Queries at once; more wait a moment, then are refused. Default 16, 8 of them of one
    /// namespace, 8 of one token.
    pub concurrent: SlotsMax,
    /// Where queries are counted.
    pub metrics: Metrics,
    /// The tables that records of the log are rows of.
    pub tables: ServiceTables,
}

/// What a query may name beside the tables of its namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Nothing.
    Namespace,
    /// Tables that belong to no namespace: `system.audit`.
    System,
}

/// A running query. Dropping it cancels the query.
pub struct Answer {
    /// Columns.
    pub schema: SchemaRef,
    /// Rows; at most [`SqlOptions::rows_max`], then a [`SqlError::Limit`].
    pub batches: BoxStream<'static, Result<RecordBatch, SqlError>>,
    /// The snapshot of `events` that was read, if there is one.
    pub snapshot: Option<i64>,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("schema", &self.schema).finish_non_exhaustive()
    }
}

/// Runs queries. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sql {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: SqlOptions,
    wal: Wal,
    owner: Ownership,
    catalog: Catalog,
    audit: Metastore,
    faults: Faults,
    sessions: Sessions,
    engine: Engine,
    slots: Slots,
}

/// What is asked, and by whom.
#[derive(Debug)]
struct Question {
    asker: Asker,
    namespace: Namespace,
    reach: Reach,
    request: SqlRequest,
}

/// Longest a statement without a table may run.
const SMALL_TIME_MAX: Duration = Duration::from_secs(2);

impl Sql {
    /// Queries over these stores, on threads of their own. The audit log is in `audit`.
    ///
    /// # Panics
    /// The machine has no threads left.
    #[must_use]
    pub fn new(
        options: SqlOptions,
        (wal, owner): (Wal, Ownership),
        catalog: Catalog,
        audit: Metastore,
        faults: Faults,
    ) -> Self {
        let sessions = Sessions::new(&options, catalog.storage().clone());
        let slots = Slots::new(options.concurrent);
        let engine = Engine::new(Slots::most(options.concurrent));
        let inner = Inner { options, wal, owner, catalog, audit, faults, sessions, engine, slots };
        Self { inner: Arc::new(inner) }
    }

    /// Starts a query. Its time runs from here to its last row. `token` is who asks, if there is
    /// access control.
    ///
    /// # Errors
    /// [`SqlError`]
    pub async fn query(
        &self,
        namespace: &Namespace,
        reach: Reach,
        token: Option<&str>,
        request: SqlRequest,
    ) -> Result<Answer, SqlError> {
        let inner = Arc::clone(&self.inner);
        let wanted = request.timeout_ms.map_or(inner.options.timeout_max, Duration::from_millis);
        let signal = Signal::new(wanted.min(inner.options.timeout_max));
        // Before it takes a place from others.
        if let (Some(min_seq), None) = (request.min_seq, &request.as_of) {
            Box::pin(inner.wait_for(namespace, min_seq, signal.deadline())).await?;
        }
        let asker =
            Asker { namespace: namespace.name().to_owned(), token: token.map(str::to_owned) };
        let question = Question { asker, namespace: namespace.clone(), reach, request };
        let query = {
            let signal = Arc::clone(&signal);
            |out| async move { inner.run(&question, &signal, out).await }
        };
        let (head, batches) = self.inner.engine.run(query, signal).await?;
        Ok(Answer { schema: head.schema, batches, snapshot: head.snapshot })
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

struct Started {
    snapshot: Option<i64>,
    plan: Arc<dyn ExecutionPlan>,
    stream: SendableRecordBatchStream,
    // What the stream reads stays readable while this lives.
    _pin: Pin,
}

impl Inner {
    /// Runs a query to its end.
    async fn run(
        &self,
        question: &Question,
        signal: &Arc<Signal>,
        mut out: Out,
    ) -> Result<(), (SqlError, Out)> {
        let mut usage = QueryUsage::start(self.options.metrics.clone());
        let mut started = match Box::pin(self.start(question, signal)).await {
            Ok(started) => started,
            Err(error) => {
                usage.fail();
                return Err((error, out));
            }
        };
        usage.run(Arc::clone(&started.plan));
        let head = Head { schema: started.stream.schema(), snapshot: started.snapshot };
        if out.head(head).is_err() {
            return Ok(());
        }
        let rows_max = self.options.rows_max;
        while let Some(batch) = started.stream.next().await {
            let batch = match batch {
                Ok(batch) => batch,
                Err(cause) => {
                    usage.fail();
                    return Err((failure::of(&cause), out));
                }
            };
            if rows_max < usage.add_rows(batch.num_rows()) {
                usage.fail();
                let error = SqlError::Limit(format!(
                    "the answer has more than {rows_max} rows (sql.rows_max); add a LIMIT or aggregate"
                ));
                return Err((error, out));
            }
            if out.batch(batch).await.is_err() {
                return Ok(());
            }
        }
        usage.finish();
        Ok(())
    }

    fn sources(&self) -> Sources<'_> {
        let Self { wal, owner, catalog, faults, .. } = self;
        Sources { wal, owner, catalog, tables: &self.options.tables, faults }
    }

    async fn start(&self, question: &Question, signal: &Arc<Signal>) -> Result<Started, SqlError> {
        let Question { asker, namespace, request, .. } = question;
        let checked = guard::check(&request.sql)?;
        let size = match request.min_seq {
            // It may wait for that one.
            Some(_) => Size::Any,
            None => Size::of(&checked.statement),
        };
        let slot = self.slots.take(asker, size, signal).await?;
        let signal = match size {
            Size::Small => &signal.within(SMALL_TIME_MAX),
            Size::Any => signal,
        };
        let stop = Stop::new(Arc::clone(signal), slot);
        let as_of = request.as_of.as_ref().map(AsOf::parse).transpose()?;
        let params = parameters::values(request, checked.placeholders)?;
        let mut statement = Statement::Statement(Box::new(checked.statement));
        // A namespace of that name keeps its tables; from there the others are not seen.
        let is_schema = namespace.name() == audit::SCHEMA;
        let reach = if is_schema { Reach::Namespace } else { question.reach };
        let (mut wanted, names_system) = wanted(&statement, namespace, reach)?;
        if names_system && as_of.is_some() {
            let text = "as_of is not for tables of `system`; filter by their time instead";
            return Err(SqlError::Invalid(text.to_owned()));
        }
        if request.min_seq.is_some()
            && let Wanted::Named(names) = &mut wanted
            && !names.iter().any(|name| name == EVENTS_TABLE)
        {
            names.push(EVENTS_TABLE.to_owned());
        }
        let (view, pin) = View::take(self.sources(), namespace, &wanted, as_of.as_ref()).await?;
        if let Some(min_seq) = request.min_seq {
            min_seq::check(&view, min_seq)?;
        }
        let context = self.sessions.open(&view, signal.deadline())?;
        if reach == Reach::System {
            audit::show(&context, self.audit.clone()).map_err(|cause| failure::of(&cause))?;
        }
        if let Statement::Statement(statement) = &mut statement {
            names::resolve(statement, &self.sessions.columns(&view)?);
        }
        let state = between_rules(context.state(), signal);
        let plan = state.statement_to_plan(statement).await;
        let plan = plan.and_then(described::with_type_names);
        let mut plan = plan.map_err(|cause| failure::of(&cause))?;
        check_plan(&plan)?;
        weight::check(&plan)?;
        if !params.is_empty() {
            plan = plan.with_param_values(params).map_err(|cause| failure::of(&cause))?;
        }
        if let Some(limit) = request.limit
            && checked.is_query
        {
            let rows = usize::try_from(limit).unwrap_or(usize::MAX);
            plan = LogicalPlanBuilder::from(plan)
                .limit(0, Some(rows))
                .and_then(LogicalPlanBuilder::build)
                .map_err(|cause| failure::of(&cause))?;
        }
        let place = answer::place_of(self.catalog.storage().root());
        let (plan, stream) = execute(state, &plan, &stop).await?;
        let place = place.filter(|_| !checked.is_query);
        let stream = answer::shown(stream, &checked.labels, place);
        let snapshot = view.table(EVENTS_TABLE).and_then(|events| events.snapshot_id);
        Ok(Started { snapshot, plan, stream, _pin: pin })
    }
}

/// Optimizes and starts a plan; its batches have fewer rows where it has large constants.
async fn execute(
    state: SessionState,
    plan: &LogicalPlan,
    stop: &Arc<Stop>,
) -> Result<(Arc<dyn ExecutionPlan>, SendableRecordBatchStream), SqlError> {
    let plan = prepare::prepared(plan.clone()).map_err(|cause| failure::of(&cause))?;
    let plan = state.optimize(&plan).map_err(|cause| failure::of_optimizer(&cause))?;
    let rows_max = state.config().batch_size();
    let rows = weight::batch_rows(&plan, rows_max)?;
    let state = if rows < rows_max {
        let config = state.config().clone().with_batch_size(rows);
        SessionStateBuilder::new_from_existing(state).with_config(config).build()
    } else {
        state
    };
    let plan = stopping_windows(plan, stop).map_err(|cause| failure::of(&cause))?;
    let planned = state.query_planner().create_physical_plan(&plan, &state).await;
    let planned = planned.and_then(|plan| stopping(plan, stop));
    let planned = planned.map_err(|cause| failure::of(&cause))?;
    let stream = execute_stream(Arc::clone(&planned), state.task_ctx());
    Ok((planned, stream.map_err(|cause| failure::of(&cause))?))
}

/// The tables that a statement names, and nothing outside of its namespace and reach; whether it
/// names tables of no namespace.
fn wanted(
    statement: &Statement,
    namespace: &Namespace,
    reach: Reach,
) -> Result<(Wanted, bool), SqlError> {
    let (references, _) =
        resolve_table_references(statement, true).map_err(|cause| failure::of(&cause))?;
    let mut names = Vec::new();
    let (mut names_system, mut names_all) = (false, false);
    for reference in references {
        let is_ours = reference.catalog().is_none_or(|catalog| catalog == CATALOG);
        match &reference {
            _ if !is_ours => return Err(outside(&reference, namespace)),
            TableReference::Partial { schema, .. } | TableReference::Full { schema, .. }
                if schema.as_ref() == "information_schema" =>
            {
                names_all = true;
            }
            TableReference::Partial { schema, .. } | TableReference::Full { schema, .. }
                if schema.as_ref() == audit::SCHEMA && reach == Reach::System =>
            {
                names_system = true;
            }
            TableReference::Partial { schema, .. } | TableReference::Full { schema, .. }
                if schema.as_ref() != namespace.name() =>
            {
                return Err(outside(&reference, namespace));
            }
            TableReference::Bare { table }
            | TableReference::Partial { table, .. }
            | TableReference::Full { table, .. } => names.push(table.to_string()),
        }
    }
    names.sort();
    names.dedup();
    let wanted = if names_all { Wanted::All } else { Wanted::Named(names) };
    Ok((wanted, names_system))
}

fn outside(reference: &TableReference, namespace: &Namespace) -> SqlError {
    SqlError::Invalid(format!(
        "table `{reference}` is outside of namespace `{namespace}`; name a table alone, or as `{}.table`",
        namespace.name()
    ))
}

/// The guard let only queries through; this holds for what they became, too.
fn check_plan(plan: &LogicalPlan) -> Result<(), SqlError> {
    SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false)
        .verify_plan(plan)
        .map_err(|cause| failure::of(&cause))
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
