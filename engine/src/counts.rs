//! What a query reads, for those who count it.

use datafusion::{datasource::source::DataSourceExec, physical_plan::ExecutionPlan};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// What DataFusion's Parquet reader calls the bytes that it read.
const BYTES_SCANNED: &str = "bytes_scanned";

/// The data files that the scans of a query were planned over.
#[derive(Debug, Default)]
pub struct FileCounts {
    read: AtomicU64,
    pruned: AtomicU64,
}

impl FileCounts {
    /// A scan reads this many files of a snapshot's, and leaves out that many.
    pub fn add(&self, read: u64, pruned: u64) {
        self.read.fetch_add(read, Ordering::Relaxed);
        self.pruned.fetch_add(pruned, Ordering::Relaxed);
    }

    /// Files that are read, and those that are left out.
    #[must_use]
    pub fn get(&self) -> (u64, u64) {
        (self.read.load(Ordering::Relaxed), self.pruned.load(Ordering::Relaxed))
    }
}

/// Tells what a running query has read.
#[derive(Debug)]
pub struct BytesRead {
    plan: Arc<dyn ExecutionPlan>,
}

impl BytesRead {
    pub(super) fn of(plan: Arc<dyn ExecutionPlan>) -> Self {
        Self { plan }
    }

    /// The bytes of data files until now.
    #[must_use]
    pub fn get(&self) -> u64 {
        of_plan(self.plan.as_ref())
    }
}

fn of_plan(plan: &dyn ExecutionPlan) -> u64 {
    let own = plan.downcast_ref::<DataSourceExec>().and_then(|scan| scan.metrics());
    let own = own.and_then(|metrics| metrics.sum_by_name(BYTES_SCANNED));
    let own = own.map_or(0, |bytes| bytes.as_usize() as u64);
    own + plan.children().into_iter().map(|child| of_plan(child.as_ref())).sum::<u64>()
}
