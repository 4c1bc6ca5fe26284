//! The audit log as the table `system.audit`, for those who may read it.
//!
//! It is asked for in pages, the newest records first, while the query runs: the log may be larger than
//! what a view can hold. Who has the metastore answers. Its one invariant: to whoever may not read it,
//! it is a table outside of the namespace like any other that is not there.

use crate::{error::SqlError, session::CATALOG};
use arrow::{
    array::{ArrayRef, Int64Array, StringArray, TimestampMicrosecondArray},
    compute::SortOptions,
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
    error::ArrowError,
    record_batch::RecordBatch,
};
use async_trait::async_trait;
use datafusion::{
    catalog::{CatalogProvider, MemorySchemaProvider, SchemaProvider, Session, TableProvider},
    common::ScalarValue,
    datasource::TableType,
    error::DataFusionError,
    execution::{SendableRecordBatchStream, TaskContext},
    logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown},
    physical_expr::{LexOrdering, PhysicalSortExpr},
    physical_plan::{
        ExecutionPlan,
        expressions::col as column,
        stream::RecordBatchStreamAdapter,
        streaming::{PartitionStream, StreamingTableExec},
    },
    prelude::SessionContext,
};
use futures::stream;
use icecore_catalog::audit::{AuditRange, LinkedRecord};
use icecore_lake::event::rows::UTC;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// The schema of tables that belong to no namespace. In a namespace of that name it is hidden.
pub const SCHEMA: &str = "system";
/// The table.
const TABLE: &str = "audit";
/// Records that are read at once; one has at most some kilobytes.
const PAGE_RECORDS: u32 = 1_000;

/// Records of a range that are asked for.
#[derive(Debug)]
pub struct PageRequest {
    /// Which ones, the newest first.
    pub range: AuditRange,
    /// Most records of the page.
    pub limit: u32,
    /// Where they go.
    pub reply: oneshot::Sender<Result<Vec<LinkedRecord>, SqlError>>,
}

/// Asks for pages of the audit log. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AuditPages(mpsc::Sender<PageRequest>);

impl AuditPages {
    /// The asking side, and the one that is asked.
    #[must_use]
    pub fn channel() -> (Self, mpsc::Receiver<PageRequest>) {
        let (asking, asked) = mpsc::channel(1);
        (Self(asking), asked)
    }

    /// A page, once it is there.
    ///
    /// # Errors
    /// What the one who is asked says; [`SqlError::Unavailable`] when nobody is asked any more.
    pub async fn page(&self, range: AuditRange, limit: u32) -> Result<Vec<LinkedRecord>, SqlError> {
        let (reply, page) = oneshot::channel();
        // Whoever passes on what another process asks for has the same bound.
        let request = PageRequest { range, limit: limit.min(PAGE_RECORDS), reply };
        let page = match self.0.send(request).await {
            Ok(()) => page.await.ok(),
            Err(_) => None,
        };
        // Nobody answers a query that nobody waits for.
        page.unwrap_or(Err(SqlError::Unavailable))
    }
}

/// Shows the audit log to a session.
///
/// # Errors
/// Never, as a session has a catalog of ours that takes schemas.
pub fn show(context: &SessionContext, pages: AuditPages) -> Result<(), DataFusionError> {
    let schema = MemorySchemaProvider::new();
    let table = AuditTable { pages, schema: columns() };
    schema.register_table(TABLE.to_owned(), Arc::new(table))?;
    let catalog = context.catalog(CATALOG).ok_or_else(|| {
        DataFusionError::Internal(format!("a session has no catalog `{CATALOG}`"))
    })?;
    CatalogProvider::register_schema(catalog.as_ref(), SCHEMA, Arc::new(schema)).map(|_| ())
}

fn columns() -> SchemaRef {
    let text = |name| Field::new(name, DataType::Utf8, false);
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into()));
    Arc::new(Schema::new(vec![
        Field::new("number", DataType::Int64, false),
        Field::new("time", time, false),
        text("principal"),
        text("address"),
        text("request"),
        text("action"),
        text("object"),
        text("outcome"),
        text("details"),
        text("previous_hash"),
        text("hash"),
    ]))
}

#[derive(Debug)]
struct AuditTable {
    pages: AuditPages,
    schema: SchemaRef,
}

#[async_trait]
impl TableProvider for AuditTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>, DataFusionError> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let mut range = AuditRange::default();
        filters.iter().for_each(|filter| narrow(&mut range, filter));
        let projection =
            projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let schema = Arc::new(self.schema.project(&projection)?);
        let pages = self.pages.clone();
        let records = AuditScan { pages, range, limit, projection, schema: Arc::clone(&schema) };
        let parts: Vec<Arc<dyn PartitionStream>> = vec![Arc::new(records)];
        let order = newest_first(&schema);
        Ok(Arc::new(StreamingTableExec::try_new(schema, parts, None, order, false, limit)?))
    }
}

/// The order of the rows, so that who asks for the newest records does not read all of them.
fn newest_first(schema: &SchemaRef) -> Option<LexOrdering> {
    let number = column("number", schema).ok()?;
    let options = SortOptions { descending: true, nulls_first: true };
    LexOrdering::new([PhysicalSortExpr { expr: number, options }])
}

/// Narrows `range` to what a filter leaves of it, as far as that is numbers and times.
fn narrow(range: &mut AuditRange, filter: &Expr) {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = filter else { return };
    if *op == Operator::And {
        narrow(range, left);
        narrow(range, right);
        return;
    }
    let (column, op, value) = match (left.as_ref(), right.as_ref()) {
        (Expr::Column(column), Expr::Literal(value, _)) => (column, Some(*op), value),
        (Expr::Literal(value, _), Expr::Column(column)) => (column, op.swap(), value),
        _ => return,
    };
    let (bounds, value) = match (column.name.as_str(), value) {
        ("number", ScalarValue::Int64(Some(value))) => (&mut range.numbers, *value),
        // Times have whole milliseconds. Rounding down keeps more than the filter does, not less.
        ("time", ScalarValue::TimestampMicrosecond(Some(value), _)) => {
            (&mut range.times_ms, value.div_euclid(1_000))
        }
        _ => return,
    };
    if matches!(op, Some(Operator::Gt | Operator::GtEq | Operator::Eq)) {
        bounds.0 = bounds.0.max(value);
    }
    if matches!(op, Some(Operator::Lt | Operator::LtEq | Operator::Eq)) {
        bounds.1 = bounds.1.min(value);
    }
}

/// The records of a range as columns.
#[derive(Debug)]
struct AuditScan {
    pages: AuditPages,
    range: AuditRange,
    /// Most records that are wanted.
    limit: Option<usize>,
    projection: Vec<usize>,
    schema: SchemaRef,
}

/// What is left to read.
struct AuditCursor {
    pages: AuditPages,
    range: AuditRange,
    rows: usize,
    projection: Vec<usize>,
}

impl PartitionStream for AuditScan {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rest = AuditCursor {
            pages: self.pages.clone(),
            range: self.range,
            rows: self.limit.unwrap_or(usize::MAX),
            projection: self.projection.clone(),
        };
        let pages = stream::try_unfold(rest, AuditCursor::next);
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), pages))
    }
}

impl AuditCursor {
    async fn next(mut self) -> Result<Option<(RecordBatch, Self)>, DataFusionError> {
        let limit = u32::try_from(self.rows).unwrap_or(PAGE_RECORDS).min(PAGE_RECORDS);
        if limit == 0 || self.range.numbers.1 < self.range.numbers.0 {
            return Ok(None);
        }
        let page = self.pages.page(self.range, limit).await;
        let page = page.map_err(|cause| DataFusionError::External(Box::new(cause)))?;
        let Some(oldest) = page.last() else { return Ok(None) };
        // What is written meanwhile has higher numbers and is not seen.
        self.range.numbers.1 = oldest.record.number - 1;
        self.rows = self.rows.saturating_sub(page.len());
        let batch = batch(&page)?.project(&self.projection)?;
        Ok(Some((batch, self)))
    }
}

fn batch(page: &[LinkedRecord]) -> Result<RecordBatch, ArrowError> {
    let text = |of: fn(&LinkedRecord) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(page.iter().map(of)))
    };
    let numbers = page.iter().map(|one| one.record.number);
    let times = page.iter().map(|one| one.record.entry.time_ms.saturating_mul(1_000));
    let times = TimestampMicrosecondArray::from_iter_values(times).with_timezone(UTC);
    RecordBatch::try_new(
        columns(),
        vec![
            Arc::new(Int64Array::from_iter_values(numbers)),
            Arc::new(times),
            text(|one| &one.record.entry.principal),
            text(|one| &one.record.entry.address),
            text(|one| &one.record.entry.request),
            text(|one| &one.record.entry.action),
            text(|one| &one.record.entry.object),
            text(|one| &one.record.entry.outcome),
            text(|one| &one.record.entry.details),
            text(|one| &one.previous_hash),
            text(|one| &one.record.hash),
        ],
    )
}

#[cfg(test)]
mod tests;
