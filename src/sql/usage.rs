//! What a query took of time, rows and bytes, counted however it ends.

use crate::metrics::{Metrics, OutcomeLabel};
use datafusion::{datasource::source::DataSourceExec, physical_plan::ExecutionPlan};
use std::sync::Arc;
use tokio::time::Instant;

/// What DataFusion's Parquet reader calls the bytes that it read.
const BYTES_SCANNED: &str = "bytes_scanned";

/// Counts one query when it is dropped. Until it is told otherwise its client went away.
#[derive(Debug)]
pub(super) struct QueryUsage {
    metrics: Metrics,
    started: Instant,
    outcome: &'static str,
    rows: u64,
    plan: Option<Arc<dyn ExecutionPlan>>,
}

impl QueryUsage {
    /// A query that begins now.
    pub(super) fn start(metrics: Metrics) -> Self {
        Self { metrics, started: Instant::now(), outcome: "canceled", rows: 0, plan: None }
    }

    /// It runs this plan.
    pub(super) fn run(&mut self, plan: Arc<dyn ExecutionPlan>) {
        self.plan = Some(plan);
    }

    /// It gave this many more rows; how many there are now.
    pub(super) fn add_rows(&mut self, rows: usize) -> u64 {
        self.rows += rows as u64;
        self.rows
    }

    /// It is at its end.
    pub(super) fn finish(mut self) {
        self.outcome = "ok";
    }

    /// It failed.
    pub(super) fn fail(mut self) {
        self.outcome = "error";
    }
}

impl Drop for QueryUsage {
    fn drop(&mut self) {
        let took = self.started.elapsed().as_secs_f64();
        let label = OutcomeLabel { outcome: self.outcome };
        self.metrics.query.get_or_create(&label).observe(took);
        self.metrics.query_rows.inc_by(self.rows);
        if let Some(plan) = &self.plan {
            self.metrics.query_read.inc_by(bytes_read(plan.as_ref()));
        }
    }
}

/// The bytes that the scans of a plan read until now.
fn bytes_read(plan: &dyn ExecutionPlan) -> u64 {
    let own = plan.downcast_ref::<DataSourceExec>().and_then(|scan| scan.metrics());
    let own = own.and_then(|metrics| metrics.sum_by_name(BYTES_SCANNED));
    let own = own.map_or(0, |bytes| bytes.as_usize() as u64);
    own + plan.children().into_iter().map(|child| bytes_read(child.as_ref())).sum::<u64>()
}
