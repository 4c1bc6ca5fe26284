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
    read_bytes: AtomicU64,
    pruned: AtomicU64,
    pruned_bytes: AtomicU64,
}

impl FileCounts {
    /// A scan reads this many files of a snapshot's, and leaves out that many.
    pub fn add(&self, read: u64, pruned: u64) {
        self.read.fetch_add(read, Ordering::Relaxed);
        self.pruned.fetch_add(pruned, Ordering::Relaxed);
    }

    /// The files that are to be read have so many bytes.
    pub fn add_read_bytes(&self, bytes: u64) {
        self.read_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// One of the files that were to be read, of so many bytes, is not.
    pub fn leave_out(&self, bytes: u64) {
        self.read.fetch_sub(1, Ordering::Relaxed);
        self.read_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.pruned.fetch_add(1, Ordering::Relaxed);
        self.add_pruned_bytes(bytes);
    }

    /// None of the files that were to be read is, where a plan has no scan: statistics gave the answer.
    pub fn leave_out_unscanned(&self, plan: &dyn ExecutionPlan) {
        if has_scan(plan) {
            return;
        }
        let files = self.read.swap(0, Ordering::Relaxed);
        self.pruned.fetch_add(files, Ordering::Relaxed);
        self.add_pruned_bytes(self.read_bytes.swap(0, Ordering::Relaxed));
    }

    /// Files of so many bytes are left out.
    pub fn add_pruned_bytes(&self, bytes: u64) {
        self.pruned_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes of files that are left out, as far as snapshots tell their size.
    #[must_use]
    pub fn pruned_bytes(&self) -> u64 {
        self.pruned_bytes.load(Ordering::Relaxed)
    }

    /// Files that are read, and those that are left out.
    #[must_use]
    pub fn get(&self) -> (u64, u64) {
        (self.read.load(Ordering::Relaxed), self.pruned.load(Ordering::Relaxed))
    }
}

/// Tells what a running query has read.
#[derive(Debug)]
pub struct BytesRead(ReadSource);

#[derive(Debug)]
enum ReadSource {
    /// A plan that runs in this process counts itself.
    Plan(Arc<dyn ExecutionPlan>),
    /// One that runs elsewhere is told of.
    Told(Arc<AtomicU64>),
}

impl BytesRead {
    pub(super) fn of(plan: Arc<dyn ExecutionPlan>) -> Self {
        Self(ReadSource::Plan(plan))
    }

    /// What a query in another process has read, as that process says.
    #[must_use]
    pub fn told(bytes: Arc<AtomicU64>) -> Self {
        Self(ReadSource::Told(bytes))
    }

    /// The bytes of data files until now.
    #[must_use]
    pub fn get(&self) -> u64 {
        match &self.0 {
            ReadSource::Plan(plan) => of_plan(plan.as_ref()),
            ReadSource::Told(bytes) => bytes.load(Ordering::Relaxed),
        }
    }
}

fn has_scan(plan: &dyn ExecutionPlan) -> bool {
    plan.downcast_ref::<DataSourceExec>().is_some()
        || plan.children().into_iter().any(|child| has_scan(child.as_ref()))
}

fn of_plan(plan: &dyn ExecutionPlan) -> u64 {
    let own = plan.downcast_ref::<DataSourceExec>().and_then(|scan| scan.metrics());
    let own = own.and_then(|metrics| metrics.sum_by_name(BYTES_SCANNED));
    let own = own.map_or(0, |bytes| bytes.as_usize() as u64);
    own + plan.children().into_iter().map(|child| of_plan(child.as_ref())).sum::<u64>()
}
