//! What a query took of time, rows and bytes, counted however it ends.

use icecore_engine::counts::{BytesRead, FileCounts};
use icecore_lake::metrics::{Metrics, OutcomeLabel};
use std::sync::Arc;
use tokio::time::Instant;

/// Counts one query when it is dropped. Until it is told otherwise its client went away.
#[derive(Debug)]
pub(super) struct QueryUsage {
    metrics: Metrics,
    started: Instant,
    outcome: &'static str,
    rows: u64,
    files: Arc<FileCounts>,
    bytes: Option<BytesRead>,
}

impl QueryUsage {
    /// A query that begins now.
    pub(super) fn start(metrics: Metrics) -> Self {
        let files = Arc::default();
        Self { metrics, started: Instant::now(), outcome: "canceled", rows: 0, files, bytes: None }
    }

    /// Where its files are counted.
    pub(super) fn files(&self) -> Arc<FileCounts> {
        Arc::clone(&self.files)
    }

    /// It runs, and this tells what it reads.
    pub(super) fn run(&mut self, bytes: BytesRead) {
        self.bytes = Some(bytes);
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
        self.metrics.query_read.inc_by(self.bytes.as_ref().map_or(0, BytesRead::get));
        let (read, pruned) = self.files.get();
        self.metrics.query_files.inc_by(read);
        self.metrics.query_files_pruned.inc_by(pruned);
    }
}
