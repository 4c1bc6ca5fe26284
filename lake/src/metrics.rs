//! What the server counts and times, under the names that `/metrics` shows.
//!
//! One value holds every instrument, so that a module takes it as it takes the clock and none reads
//! what another counts. Its one invariant: each name is in `docs/operations.md` with unit and
//! meaning, and a test compares the two.
//!
//! Instruments of what happens (counters, histograms) are changed where it happens. Gauges, and
//! counters of what the catalog counts, are set when somebody asks, from what the modules know then.

use crate::load::IngestLoad;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::{Family, MetricConstructor},
        gauge::Gauge,
        histogram::Histogram,
    },
    registry::{Metric, Registry, Unit},
};
use std::{
    fmt,
    ops::Deref,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

/// Upper ends of the buckets of a time, in seconds: what a log on a fast disk needs up to what a
/// query may take.
const SECONDS: [f64; 17] = [
    0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0,
    16.0, 60.0,
];
/// Upper ends of the buckets of a number of rows.
const ROWS: [f64; 8] = [1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6, 1e7];

/// A gauge of a value that is no whole number.
pub type FloatGauge = Gauge<f64, AtomicU64>;

/// Every instrument of a server. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    inner: Arc<MetricsInner>,
}

#[derive(Debug)]
struct MetricsInner {
    registry: Registry,
    instruments: Instruments,
    load: IngestLoad,
}

/// The instruments; `docs/operations.md` tells what each means.
#[derive(Clone, Debug)]
pub struct Instruments {
    /// Events in request bodies.
    pub events_received: Counter,
    /// Events that were there before.
    pub events_duplicate: Counter,
    /// Events that became dead letters.
    pub events_refused: Counter,
    /// Bodies on which decoding panicked.
    pub decode_panics: Counter,
    /// From a body that is decoded to events that are durable.
    pub ingest_ack: Histogram,
    /// Bytes of bodies that wait for the ingest thread.
    pub ingest_waiting: Gauge,
    /// Rows that one sync of the log made durable.
    pub wal_group: Histogram,
    /// One `fdatasync` of the log.
    pub wal_sync: Histogram,
    /// Bytes of log records on disk that are not trimmed.
    pub wal_bytes: Gauge,
    /// Bytes of acknowledged events without a snapshot.
    pub wal_waiting: Gauge,
    /// Tables with acknowledged events without a snapshot.
    pub wal_waiting_tables: Gauge,
    /// Age of the oldest acknowledged event without a snapshot.
    pub commit_lag: FloatGauge,
    /// One table's flush: log read, files written, snapshot committed, log trimmed.
    pub flush: Histogram,
    /// Of that, the commit of the snapshot in the catalog.
    pub flush_commit: Histogram,
    /// Rows that are in snapshots.
    pub flush_rows: Counter,
    /// Flushes that failed; each is tried again.
    pub flush_failures: Counter,
    /// Tables that acknowledged events cannot be moved to.
    pub flush_failing: Gauge,
    /// For how long one of these tables has failed.
    pub flush_failing_since: Family<TableLabel, Gauge>,
    /// Columns that a table has no place for.
    pub columns_left_out: Family<TableLabel, Gauge>,
    /// Commits that wait for others to the same table.
    pub commits_waiting: Gauge,
    /// Transactions of the metastore that changed names or tables.
    pub metastore_transactions: Counter,
    /// Commits that wait for their transaction.
    pub metastore_waiting: Gauge,
    /// Files and folders of the warehouse that were synced to a local disk.
    pub warehouse_syncs: Counter,
    /// Ranges of files in a bucket that queries found in memory.
    pub range_cache_hits: Counter,
    /// Those that they had to read.
    pub range_cache_misses: Counter,
    /// Memory that such ranges take.
    pub range_cache_bytes: Gauge,
    /// Queries that were started.
    pub queries: Counter,
    /// Queries that wait for a slot.
    pub queries_waiting: Gauge,
    /// Queries that run.
    pub queries_running: Gauge,
    /// Queries that still run 5 s after their end.
    pub queries_stuck: Gauge,
    /// From a query's request to its last row.
    pub query: Family<OutcomeLabel, Histogram, SecondsHistogram>,
    /// Rows of answers.
    pub query_rows: Counter,
    /// Bytes that queries read of data files.
    pub query_read: Counter,
    /// Data files that queries planned to read.
    pub query_files: Counter,
    /// Data files that queries left out by partition, bounds, or snapshot.
    pub query_files_pruned: Counter,
    /// From a request's head to its reply's.
    pub http_request: Family<RequestLabels, Histogram, SecondsHistogram>,
    /// Replies by the first digit of their status.
    pub http_replies: Family<StatusLabel, Counter>,
    /// Runs of jobs.
    pub job_runs: Family<JobRunLabels, Counter>,
    /// One run of a job.
    pub job: Family<JobLabel, Histogram, SecondsHistogram>,
}

/// A table by `namespace.table`, in the catalog's spelling.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TableLabel {
    /// The table.
    pub table: String,
}

/// How a query ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabel {
    /// `ok`, `error`, or `canceled` for a client that went away.
    pub outcome: &'static str,
}

/// The class of a status.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StatusLabel {
    /// `2xx`.
    pub status: &'static str,
}

/// A request by its route.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// `GET`.
    pub method: String,
    /// The route's pattern, never a path, so that their number is bounded.
    pub route: String,
    /// `2xx`.
    pub status: &'static str,
}

/// A job by its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct JobLabel {
    /// The job.
    pub job: &'static str,
}

/// How a run of a job ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct JobRunLabels {
    /// The job.
    pub job: &'static str,
    /// `idle`, `worked` or `failed`.
    pub outcome: &'static str,
}

impl StatusLabel {
    /// The label of a status code.
    #[must_use]
    pub fn of(code: u16) -> Self {
        let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"];
        let class = usize::from(code / 100).checked_sub(1);
        Self { status: class.and_then(|class| classes.get(class)).unwrap_or(&"5xx") }
    }
}

/// Makes the histogram of a time for a new set of labels.
#[derive(Clone, Debug)]
pub struct SecondsHistogram;

impl MetricConstructor<Histogram> for SecondsHistogram {
    fn new_metric(&self) -> Histogram {
        Histogram::new(SECONDS)
    }
}

impl Deref for Metrics {
    type Target = Instruments;

    fn deref(&self) -> &Instruments {
        &self.inner.instruments
    }
}

impl Metrics {
    /// All of it in `OpenMetrics`' text format.
    ///
    /// # Panics
    /// Never: a text takes any text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.inner.registry).expect("a String takes any text");
        text
    }

    /// How busy ingest is, for work that has to yield to it.
    #[must_use]
    pub fn load(&self) -> &IngestLoad {
        &self.inner.load
    }

    /// Times a submission whose events are durable.
    pub fn count_ack(&self, took: Duration) {
        self.ingest_ack.observe(took.as_secs_f64());
        self.inner.load.note_ack(took);
    }

    /// Counts the events of one body.
    pub fn count_events(&self, received: u64, duplicates: u64, refused: u64) {
        self.events_received.inc_by(received);
        self.events_duplicate.inc_by(duplicates);
        self.events_refused.inc_by(refused);
    }

    /// Counts and times one run of a job.
    pub fn count_job(&self, job: &'static str, outcome: &'static str, took: Duration) {
        self.job_runs.get_or_create(&JobRunLabels { job, outcome }).inc();
        self.job.get_or_create(&JobLabel { job }).observe(took.as_secs_f64());
    }
}

impl Default for MetricsInner {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("icecore");
        let instruments = Instruments::register(&mut MetricNames { registry: &mut registry });
        Self { registry, instruments, load: IngestLoad::default() }
    }
}

impl Instruments {
    fn register(to: &mut MetricNames<'_>) -> Self {
        let rows = || Histogram::new(ROWS);
        Self {
            events_received: to.add("events_received", "Events in request bodies"),
            events_duplicate: to.add("events_duplicate", "Events that were already stored"),
            events_refused: to
                .add("events_refused", "Events that were rejected and became dead letters"),
            decode_panics: to.add("decode_panics", "Bodies whose decoding panicked"),
            ingest_ack: to.add_time("ingest_ack", "From a decoded body to durable events"),
            ingest_waiting: to.add_bytes("ingest_waiting", "Bodies waiting to be written"),
            wal_group: to.put("wal_group_rows", "Rows made durable by one sync", rows()),
            wal_sync: to.add_time("wal_sync", "One sync of the log"),
            wal_bytes: to.add_bytes("wal", "Log records not yet trimmed"),
            wal_waiting: to.add_bytes("wal_waiting", "Acknowledged events without a snapshot"),
            wal_waiting_tables: to
                .add("wal_waiting_tables", "Tables with acknowledged events without a snapshot"),
            commit_lag: to.put_in(
                "commit_lag",
                "Age of the oldest acknowledged event without a snapshot",
                Unit::Seconds,
                FloatGauge::default(),
            ),
            flush: to.add_time("flush", "One flush of a table, from the log to the snapshot"),
            flush_commit: to.add_time("flush_commit", "The commit of a flush in the catalog"),
            flush_rows: to.add("flush_rows", "Rows moved from the log to snapshots"),
            flush_failures: to.add("flush_failures", "Failed flushes; each is retried"),
            flush_failing: to.add("flush_failing_tables", "Tables whose last flush failed"),
            flush_failing_since: to.put_in(
                "flush_failing",
                "How long the flush of a table has been failing; the log has the reason",
                Unit::Seconds,
                Family::default(),
            ),
            columns_left_out: to.add(
                "columns_left_out",
                "Columns that a table cannot have because foreign columns use their names",
            ),
            commits_waiting: to.add("commits_waiting", "Commits waiting for their table"),
            metastore_transactions: to.add(
                "metastore_transactions",
                "Transactions of the metastore that changed names or tables",
            ),
            metastore_waiting: to
                .add("metastore_waiting_commits", "Commits waiting for a transaction"),
            warehouse_syncs: to.add(
                "warehouse_syncs",
                "Files and folders of the warehouse synced to a local disk",
            ),
            range_cache_hits: to
                .add("range_cache_hits", "Ranges of files in a bucket found in memory"),
            range_cache_misses: to
                .add("range_cache_misses", "Ranges of files in a bucket read for queries"),
            range_cache_bytes: to.add_bytes("range_cache", "Memory of ranges of files in a bucket"),
            queries: to.add("queries", "SQL queries started"),
            queries_waiting: to.add("queries_waiting", "SQL queries waiting for a slot"),
            queries_running: to.add("queries_running", "Running SQL queries"),
            queries_stuck: to.add("queries_stuck", "SQL queries still running 5 s after their end"),
            query: to.add_times("query", "From a query's request to its last row"),
            query_rows: to.add("query_rows", "Rows returned by queries"),
            query_read: to.add_bytes("query_read", "Data read from files by queries"),
            query_files: to.add("query_files", "Data files that queries planned to read"),
            query_files_pruned: to.add("query_files_pruned", "Data files that query plans pruned"),
            http_request: to
                .add_times("http_request", "From the request head to the response head"),
            http_replies: to.add("http_replies", "Responses by status class"),
            job_runs: to.add("job_runs", "Runs of jobs by how they ended"),
            job: to.add_times("job", "One run of a job"),
        }
    }
}

/// Registers instruments under their names.
struct MetricNames<'a> {
    registry: &'a mut Registry,
}

impl MetricNames<'_> {
    fn put<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.registry.register(name, help, metric.clone());
        metric
    }

    fn put_in<M: Metric + Clone>(&mut self, name: &str, help: &str, unit: Unit, metric: M) -> M {
        self.registry.register_with_unit(name, help, unit, metric.clone());
        metric
    }

    fn add<M: Metric + Clone + Default>(&mut self, name: &str, help: &str) -> M {
        self.put(name, help, M::default())
    }

    fn add_bytes<M: Metric + Clone + Default>(&mut self, name: &str, help: &str) -> M {
        self.put_in(name, help, Unit::Bytes, M::default())
    }

    fn add_time(&mut self, name: &str, help: &str) -> Histogram {
        self.put_in(name, help, Unit::Seconds, SecondsHistogram.new_metric())
    }

    fn add_times<L>(&mut self, name: &str, help: &str) -> Family<L, Histogram, SecondsHistogram>
    where
        Family<L, Histogram, SecondsHistogram>: Metric + Clone,
        L: Clone + std::hash::Hash + Eq,
    {
        self.put_in(name, help, Unit::Seconds, Family::new_with_constructor(SecondsHistogram))
    }
}

impl fmt::Debug for MetricNames<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricNames").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
