//! The engine of SQL: a statement and a [`View`] in, a stream of rows out.
//!
//! All that it knows of the service's state is in the [`EngineQuery`], a value that can be sent as
//! bytes, so it runs in another process as well. It reads files, of the warehouse and of the log, or asks
//! for them, and asks for pages of the audit log. Its one invariant: it has no store. Who may ask, what is there,
//! and what stays readable meanwhile is `sql`'s.

pub mod aliases;
pub mod allowed;
pub mod answer;
pub mod arithmetic;
pub mod audit;
pub mod bounded_functions;
pub mod branches;
pub mod buckets;
pub mod catalog_views;
pub mod change_views;
pub mod clauses;
pub mod collected;
pub mod collections;
pub mod column_lists;
pub mod comparisons;
pub mod conform;
pub mod counts;
pub mod deletes;
pub mod described;
pub mod dialect;
pub mod distinct;
pub mod draws;
pub mod element_counts;
pub mod error;
pub mod failure;
pub mod field_ids;
pub mod file_failure;
pub mod filter_cost;
pub mod filters;
pub mod floats;
pub mod footers;
mod forward;
pub mod frames;
pub mod function_names;
pub mod functions;
pub mod grammar;
pub mod guard;
pub mod incremental;
pub mod labels;
pub mod layout;
pub mod lengths;
pub mod log_tail;
pub mod lookups;
pub mod manifest_aggregates;
pub mod memory;
pub mod metadata_tables;
pub mod multisets;
pub mod names;
mod namespace_schema;
pub mod nulls;
pub mod number_literals;
pub mod output;
mod parameters;
pub mod percentile;
pub mod plain;
pub mod plan;
pub mod plan_limits;
pub mod prepare;
pub mod provider;
pub mod pushdown;
pub mod query_process;
pub mod read_order;
pub mod read_report;
pub mod references;
pub mod replacement;
pub mod rewrite;
pub mod row_counts;
pub mod row_places;
pub mod same_names;
pub mod same_type;
pub mod scanned_file;
pub mod seq_range;
pub mod series;
pub mod session;
pub mod show_statements;
pub mod similar;
pub mod sort_limits;
pub mod stop;
pub mod structs;
pub mod subquery_order;
pub mod summary;
pub mod sums;
pub mod syntax;
pub mod table_functions;
pub mod template;
pub mod time;
pub mod time_format;
pub mod types;
mod unreadable;
pub mod uuid;
pub mod value_range;
pub mod versions;
pub mod view;
pub mod view_definition;
pub mod visibility;
pub mod wrapped;
pub mod write_statement;

use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
use audit::AuditPages;
use catalog_views::ColumnNames;
use chrono::DateTime;
use counts::{BytesRead, FileCounts};
use datafusion::{
    execution::{
        SendableRecordBatchStream,
        context::SQLOptions,
        session_state::{SessionState, SessionStateBuilder},
    },
    logical_expr::{LogicalPlan, LogicalPlanBuilder},
    physical_plan::{ExecutionPlan, execute_stream},
    prelude::SessionContext,
    sql::{parser::Statement, sqlparser::ast},
};
use error::SqlError;
use futures::{StreamExt, stream::BoxStream};
use guard::CheckedStatement;
use icecore_catalog::storage::Storage;
use icecore_schemas::{query::QueryBasis, service_table::ServiceTables};
use log_tail::TailSource;
use query_process::QueryProcess;
use serde::{Deserialize, Serialize};
use session::{EngineResources, QuerySessions};
use show_statements::TableDefinition;
use std::{iter, sync::Arc};
use stop::{QuerySignal, QueryStop, TaskContexts, between_rules, stopping, stopping_windows};
use view::View;

/// The highest limit that a plan can have.
const ROWS_MAX: u64 = i64::MAX.cast_unsigned();

/// What is asked, by value.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EngineQuery {
    /// The statement.
    pub statement: CheckedStatement,
    /// Values for `$1`, `$2`, … in order.
    pub params: Vec<serde_json::Value>,
    /// Most rows of the answer, where it has rows of tables.
    pub limit: Option<u64>,
    /// What it sees.
    pub view: View,
    /// What `now()` is, ms since 1970.
    pub clock_ms: i64,
}

/// What goes to and fro while a query runs.
#[derive(Debug)]
pub struct QueryControls {
    /// When it has to end.
    pub stop: Arc<QueryStop>,
    /// Where its files are counted.
    pub counts: Arc<FileCounts>,
    /// Where it asks for the audit log, if it sees it.
    pub audit: AuditPages,
    /// Where the rows of the log are read.
    pub tail: TailSource,
}

/// The rows of a query.
pub type RowStream = BoxStream<'static, Result<RecordBatch, SqlError>>;

/// A query that runs as its rows are taken.
pub struct RunningQuery {
    /// Columns.
    pub schema: SchemaRef,
    /// Rows.
    pub rows: RowStream,
    /// What it reads.
    pub read: BytesRead,
}

impl std::fmt::Debug for RunningQuery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunningQuery").field("schema", &self.schema).finish_non_exhaustive()
    }
}

/// An answer as it is written for a client. Dropping it cancels the query.
pub struct QueryAnswer {
    /// Columns.
    pub schema: SchemaRef,
    /// Rows.
    pub batches: RowStream,
    /// The snapshot of `events` that was read, if there is one.
    pub snapshot: Option<i64>,
    /// What it was made of, where that is known.
    pub basis: Option<QueryBasis>,
}

impl std::fmt::Debug for QueryAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueryAnswer").field("schema", &self.schema).finish_non_exhaustive()
    }
}

/// Runs queries over the files of a warehouse. Cheap to clone.
#[derive(Clone, Debug)]
pub struct QueryEngine {
    sessions: QuerySessions,
}

impl QueryEngine {
    /// An engine whose queries share this much memory, and caches of what they read of files.
    #[must_use]
    pub fn new(memory_bytes_max: usize, storage: Storage, tables: ServiceTables) -> Self {
        Self::with(EngineResources::Own { memory_bytes_max }, storage, tables)
    }

    /// An engine whose queries share these resources, and caches of what they read of files.
    #[must_use]
    pub fn with(resources: EngineResources, storage: Storage, tables: ServiceTables) -> Self {
        Self { sessions: QuerySessions::new(resources, storage, tables) }
    }

    /// Plans a query and starts it. Planning recurses as deep as the statement is long and does not
    /// yield, so the caller's thread has a large stack and is one for queries.
    ///
    /// # Errors
    /// [`SqlError`]
    pub async fn start(
        &self,
        query: EngineQuery,
        controls: QueryControls,
    ) -> Result<RunningQuery, SqlError> {
        // What is tested is what another process would be sent.
        #[cfg(debug_assertions)]
        let query = query.sent()?;
        let EngineQuery { statement: checked, params, limit, view, clock_ms } = query;
        let CheckedStatement {
            mut statement,
            labels,
            is_query,
            is_summary,
            definition,
            placeholders,
            params_max,
            ..
        } = checked;
        let is_analyzed = matches!(statement, ast::Statement::Explain { analyze: true, .. });
        visibility::check_statement(&statement, &view)?;
        let params = parameters::values(&params, placeholders, params_max)?;
        let signal = controls.stop.signal();
        let (tail, counts) = (&controls.tail, &controls.counts);
        let process = self.sessions.process();
        let behind_views = view.catalog_views.iter().map(|seen| &seen.statement.statement);
        iter::once(&statement).chain(behind_views).try_for_each(|part| process.check(part))?;
        let context = self.sessions.open(&view, tail, counts, signal.deadline())?;
        if view.has_system {
            let shown = audit::show(&context, controls.audit.clone());
            shown.map_err(|cause| failure::of(&cause))?;
        }
        Box::pin(self.resolve(&mut statement, &view, &context, signal)).await?;
        let definition = definition.map(|kind| TableDefinition::of(kind, &statement, &view));
        let definition = definition.transpose()?;
        let mut state = between_rules(context.state(), signal);
        state.execution_props_mut().query_execution_start_time =
            DateTime::from_timestamp_millis(clock_ms);
        let plan = state.statement_to_plan(Statement::Statement(Box::new(statement))).await;
        let plan = plan.map_err(|cause| failure::of(&cause))?;
        if !view.catalog_views.is_empty() {
            catalog_views::check_size(&plan)?;
        }
        let mut plan = told(plan, is_summary, definition, &state)?;
        check_plan(&plan)?;
        plan_limits::check(&plan, process)?;
        if !params.is_empty() {
            plan = plan.with_param_values(params).map_err(|cause| failure::of(&cause))?;
        }
        if let Some(limit) = limit
            && is_query
        {
            let rows = usize::try_from(limit.min(ROWS_MAX)).unwrap_or(usize::MAX);
            plan = LogicalPlanBuilder::from(plan)
                .limit(0, Some(rows))
                .and_then(LogicalPlanBuilder::build)
                .map_err(|cause| failure::of(&cause))?;
        }
        let (plan, stream) = execute(state, &plan, &controls.stop, process).await?;
        let place = answer::place_of(self.sessions.storage().root()).filter(|_| !is_query);
        let stream = answer::shown(stream, &labels, place);
        let (schema, read) = (stream.schema(), BytesRead::of(Arc::clone(&plan)));
        let mut rows = stream.map(|batch| batch.map_err(|cause| failure::of(&cause))).boxed();
        if is_analyzed {
            rows = read_report::with_files(rows, Arc::clone(&schema), controls.counts, plan);
        }
        Ok(RunningQuery { schema, rows, read })
    }

    /// Shows a session the views of its query, and writes names as those of the tables and columns that they mean.
    async fn resolve(
        &self,
        statement: &mut ast::Statement,
        view: &View,
        context: &SessionContext,
        signal: &QuerySignal,
    ) -> Result<(), SqlError> {
        let all = self.sessions.columns(view)?;
        let by_table = self.sessions.columns_by_table(view)?;
        let shown = change_views::show(context, &view.change_views).await;
        shown.map_err(|cause| failure::of(&cause))?;
        branches::show(context, &view.branches).map_err(|cause| failure::of(&cause))?;
        let shown = Box::pin(collections::show(context, &view.collections)).await;
        shown.map_err(|cause| failure::of(&cause))?;
        let process = self.sessions.process();
        let names = ColumnNames { all: &all, by_table: &by_table, process };
        Box::pin(catalog_views::register(context, &view.catalog_views, names, signal)).await?;
        column_lists::move_into_queries(statement);
        metadata_tables::rename(statement, &view.rewritten);
        aliases::resolve(statement, &view.namespace, &by_table);
        names::resolve(statement, &all);
        structs::read_members(statement);
        Ok(())
    }
}

impl EngineQuery {
    /// The query as it is after it was sent as bytes.
    #[cfg(debug_assertions)]
    fn sent(&self) -> Result<Self, SqlError> {
        let bytes = serde_json::to_vec(self);
        bytes.and_then(|bytes| serde_json::from_slice(&bytes)).map_err(|cause| {
            tracing::error!(error = &cause as &dyn std::error::Error, "a query cannot be sent");
            SqlError::Internal("the query cannot be sent to its engine".to_owned())
        })
    }
}

/// The plan of what is asked of a query's rows, or of the table that is described.
fn told(
    plan: LogicalPlan,
    is_summary: bool,
    definition: Option<TableDefinition>,
    state: &SessionState,
) -> Result<LogicalPlan, SqlError> {
    let plan = match definition {
        Some(definition) => definition.shown(plan),
        None if is_summary => summary::of(plan, state),
        None => described::with_type_names(plan),
    };
    plan.map_err(|cause| failure::of(&cause))
}

/// Optimizes and starts a plan; its batches have fewer rows where it has large constants.
async fn execute(
    state: SessionState,
    plan: &LogicalPlan,
    stop: &Arc<QueryStop>,
    process: QueryProcess,
) -> Result<(Arc<dyn ExecutionPlan>, SendableRecordBatchStream), SqlError> {
    let plan = draws::once_a_row(plan.clone()).and_then(prepare::prepared);
    let plan = plan.map_err(|cause| failure::of(&cause))?;
    let plan = state.optimize(&plan).map_err(|cause| failure::of_optimizer(&cause))?;
    let rows_max = state.config().batch_size();
    let rows = plan_limits::batch_rows(&plan, rows_max, process)?;
    let state = if rows < rows_max {
        let config = state.config().clone().with_batch_size(rows);
        SessionStateBuilder::new_from_existing(state).with_config(config).build()
    } else {
        state
    };
    let plan = stopping_windows(plan, stop).map_err(|cause| failure::of(&cause))?;
    let planned = state.query_planner().create_physical_plan(&plan, &state).await;
    let contexts = TaskContexts::of(&state).map_err(|cause| failure::of(&cause))?;
    let planned = planned.and_then(|plan| stopping(plan, stop, &contexts));
    let planned = planned.map_err(|cause| failure::of_optimizer(&cause))?;
    let stream = execute_stream(Arc::clone(&planned), state.task_ctx());
    Ok((planned, stream.map_err(|cause| failure::of(&cause))?))
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
