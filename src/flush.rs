//! Moves what is durable in the log into Iceberg tables.
//!
//! For each table with waiting records: read them from the log, write data files, commit them with
//! the log position as watermark, trim the log. Every step may be repeated: a position that the
//! table already has is skipped by the commit. A table whose flush failed takes a smaller bite, so
//! that a disk with little room left is drained in steps that fit.

pub mod branches;
mod columns;
mod commit;
mod due;
mod failure;
mod loads;
pub mod metastore_mark;
mod promoted;
mod requests;
mod unused;

use crate::{
    flush::{
        columns::LeftOutColumns,
        commit::{COMMIT_BYTES_MAX, FlushBite, FlushBounds, FlushExtent, TableFlush},
        due::{CommitAges, DueTable},
        loads::TableLoads,
        requests::{CommitScope, FailedTables, FlushRequests},
    },
    owner::{LogOwnership, NotOwner},
    tasks::{Job, Progress},
};
use futures::{StreamExt, stream};
use icecore_catalog::{
    catalog::Catalog,
    error::{CatalogError, with_causes},
    row_sum::RowSum,
};
use icecore_lake::{
    clock::Clock,
    faults::Failpoints,
    ids::IdGenerator,
    metrics::Metrics,
    table::{
        evolve::{SchemaFit, TableMismatch},
        schema,
    },
    wal::{LogPosition, TableBacklog, Wal, WalError, quota::StuckTable, ranges::SeqInterval},
};
use icecore_schemas::{
    names::Namespace,
    service_table::{RecordKind, ServiceTables},
};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::sync::Notify;
use tracing::warn;

/// Tables that are flushed at the same time, so that one large tenant does not hold up the others.
/// They wait for the disk most of the time; their memory has a bound of its own.
const TABLES_AT_ONCE: usize = 16;
/// The same on a disk that is nearly full: fewer share what is left, so that each may take more of
/// the log at once. Many small files would take more room than they free.
const TABLES_AT_ONCE_ON_LITTLE_DISK: usize = 4;
/// Most tables of one tick; the rest follow in the next one.
const TICK_TABLES_MAX: usize = 64;
/// First pause of a table whose flush failed; it doubles up to [`RETRY_MS_MAX`].
const RETRY_MS_MIN: i64 = 250;
/// Longest pause of a table whose flush fails.
const RETRY_MS_MAX: i64 = 30_000;

/// A commit that failed is tried again with this part of its bytes, down to [`BITE_BYTES_MIN`], and
/// grows again by as much with each that succeeds.
const BITE_PART: u64 = 4;
/// Least payload bytes that a commit is cut to.
const BITE_BYTES_MIN: u64 = 256 << 10;

/// The part of a nearly full disk that one commit's records may be as long as: the tables that are
/// flushed at the same time leave half of it, for ids, metadata and the metastore.
const LEFT_PART: u64 = 2 * TABLES_AT_ONCE_ON_LITTLE_DISK as u64;

/// When records are committed.
#[derive(Clone, Debug)]
pub struct FlushOptions {
    /// Longest a record waits while clients of the catalog read its table; below 5 s, also while none
    /// does. Default 5 s, from 100 ms to 10 min.
    pub interval: Duration,
    /// Longest a record waits while none does; no less than `interval`. Default 5 min.
    pub interval_max: Duration,
    /// A table with this many waiting bytes is committed at once. Default 64 MiB.
    pub bytes_max: u64,
    /// Whether the log may be flushed at all.
    pub owner: LogOwnership,
    /// Where flushes are counted.
    pub metrics: Metrics,
    /// The tables that its records are rows of.
    pub tables: ServiceTables,
    /// Numbers of rows that are written down as lost, each range with its table, as `namespace.table`.
    pub lost: Vec<(String, SeqInterval)>,
}

/// Why a flush failed; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum FlushError {
    /// Other rows were encoded than the log has.
    #[error(
        "the rows of the log have the sum {read} and those that were written have {written}: nothing \
         is committed; if it stays so, check the memory and the disk of this machine"
    )]
    RowsDiffer {
        /// The sum of the rows that were read.
        read: RowSum,
        /// The sum of the rows that were written.
        written: RowSum,
    },
    /// The log could not be read or trimmed.
    #[error("read the log")]
    Wal(#[from] WalError),
    /// A record does not decode.
    #[error("decode a record")]
    Decode(#[from] icecore_lake::event::codec::CodecError),
    /// Data files could not be written.
    #[error("write data files")]
    Write(#[from] icecore_lake::table::writer::WriteError),
    /// The commit failed.
    #[error("commit")]
    Commit(#[from] CatalogError),
    /// A failpoint.
    #[error("failpoint")]
    Fault(#[from] std::io::Error),
    /// Another namespace with the same catalog name owns the tables.
    #[error("catalog namespace `{name}` belongs to `{owner}`, not to `{namespace}`")]
    NamespaceTaken {
        /// The catalog name of both.
        name: String,
        /// The namespace that was there first.
        owner: Namespace,
        /// The one that came later.
        namespace: Namespace,
    },
    /// The table of that name is not one that rows of the log may go to.
    #[error("table `{table}` cannot take rows; rename it, and the service creates a new one")]
    Foreign {
        /// Which one, as `namespace.table`.
        table: String,
        /// What is wrong with it.
        source: TableMismatch,
    },
    /// One table's flush failed.
    #[error("flush table `{table}`")]
    Table {
        /// Which one, as `namespace.table`.
        table: String,
        /// Why.
        source: Arc<FlushError>,
    },
    /// Another log owns the events: nothing is flushed.
    #[error(transparent)]
    NotOwner(#[from] NotOwner),
    /// Another log has owned the events since this server last asked.
    #[error("another log wrote the table's last watermark")]
    Deposed,
    /// The job has ended, so nothing will be committed any more.
    #[error("the server is stopping")]
    Stopped,
}

/// Who the catalog's feed says it was that made a change of the log's.
pub const ACTOR: &str = "icecore/ingest";

/// Asks for commits and waits for them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Flush {
    owner: LogOwnership,
    wal: Wal,
    catalog: Catalog,
    clock: Clock,
    requests: Arc<FlushRequests>,
    loads: TableLoads,
    tables: ServiceTables,
    left_out: LeftOutColumns,
    commits: Arc<TableFlush>,
}

/// The job behind [`Flush`].
#[derive(Debug)]
pub struct FlushJob {
    options: FlushOptions,
    ages: CommitAges,
    clock: Clock,
    requests: Arc<FlushRequests>,
    loads: TableLoads,
    tables: Arc<TableFlush>,
    failing: HashMap<(RecordKind, Namespace), FlushRetry>,
    /// Tables that this job has committed rows of.
    committed: HashSet<(RecordKind, Namespace)>,
}

/// When a table whose flush failed is tried again, and with how much.
#[derive(Clone, Copy, Debug)]
struct FlushRetry {
    at_ms: i64,
    pause_ms: i64,
    bite_bytes: u64,
}

impl Flush {
    /// The handle, the job to run, and the notification that wakes it.
    #[must_use]
    pub fn new(
        options: FlushOptions,
        wal: Wal,
        catalog: &Catalog,
        clock: Clock,
        ids: IdGenerator,
        faults: Failpoints,
    ) -> (Self, FlushJob, Arc<Notify>) {
        let catalog = catalog.on_behalf_of(ACTOR);
        let wake = Arc::new(Notify::new());
        let requests = Arc::new(FlushRequests::new(Arc::clone(&wake)));
        let tables = Arc::new(TableFlush {
            owner: options.owner.clone(),
            wal: wal.clone(),
            catalog: catalog.clone(),
            clock: clock.clone(),
            ids,
            faults,
            metrics: options.metrics.clone(),
            bounds: FlushBounds::default(),
            ours: options.tables.clone(),
            left_out: LeftOutColumns::default(),
            lost: options.lost.clone(),
        });
        let commits = Arc::clone(&tables);
        let (ours, left_out) = (tables.ours.clone(), tables.left_out.clone());
        let (owner, loads) = (options.owner.clone(), TableLoads::default());
        let job = FlushJob {
            ages: CommitAges::new(options.interval, options.interval_max),
            options,
            clock: clock.clone(),
            requests: Arc::clone(&requests),
            loads: loads.clone(),
            tables,
            failing: HashMap::new(),
            committed: HashSet::new(),
        };
        let tables = ours;
        let flush = Self { owner, wal, catalog, clock, requests, loads, tables, left_out, commits };
        (flush, job, wake)
    }

    /// Columns that tables had no place for at their last flush: how many, by `namespace.table`.
    #[must_use]
    pub fn left_out(&self) -> Vec<(String, usize)> {
        self.left_out.counts()
    }

    /// Commits everything of `namespace` up to `through` without waiting for the interval, and
    /// returns when it is committed: for each table its name and current snapshot.
    ///
    /// # Errors
    /// The commit that failed; what waits is kept and tried again.
    pub async fn commit_now(
        &self,
        namespace: &Namespace,
        through: LogPosition,
    ) -> Result<Vec<(RecordKind, i64)>, Arc<FlushError>> {
        self.owner.check().map_err(|not| Arc::new(not.into()))?;
        let scope = CommitScope::Namespace(namespace.clone());
        if is_waiting(&self.wal, &self.tables, &scope, through) {
            self.requests.wait(scope, through).await?;
        }
        let mut snapshots = Vec::new();
        for ours in self.tables.iter() {
            match self.catalog.tables().load(&schema::ident(namespace, ours.name)).await {
                Ok(table) if SchemaFit::of(ours, &table.metadata).is_ok() => {
                    let snapshot = table.metadata.current_snapshot_id();
                    snapshots.extend(snapshot.map(|id| (ours.kind, id)));
                }
                Ok(_) | Err(CatalogError::NoSuchTable(_)) => (),
                Err(error) => return Err(Arc::new(error.into())),
            }
        }
        Ok(snapshots)
    }
}

/// Whether a record of `scope` up to `through` is still in the log alone.
fn is_waiting(
    wal: &Wal,
    tables: &ServiceTables,
    scope: &CommitScope,
    through: LogPosition,
) -> bool {
    tables.iter().filter(|table| scope.has(table.kind)).any(|table| {
        wal.first_position(table.kind, scope.namespace()).is_some_and(|first| first <= through)
    })
}

impl FlushJob {
    /// Whether a table's flush failed just now.
    fn is_paused(&self, kind: RecordKind, namespace: &Namespace, now_ms: i64) -> bool {
        self.failing.get(&(kind, namespace.clone())).is_some_and(|retry| now_ms < retry.at_ms)
    }

    /// After a commit: a start with a copy of the metastore from before it is to be noticed.
    async fn note_metastore(&self, has_committed: bool) {
        if has_committed
            && let Err(cause) = metastore_mark::note(&self.tables.wal, &self.tables.catalog).await
        {
            // The commits stand; it is noted later.
            warn!(
                error = &cause as &dyn std::error::Error,
                "cannot record the state of the metastore"
            );
        }
    }

    /// Most bytes of a table's next commit.
    fn bite_bytes(&self, pending: &TableBacklog) -> u64 {
        let key = (pending.kind, pending.namespace.clone());
        self.failing.get(&key).map_or(COMMIT_BYTES_MAX, |retry| retry.bite_bytes)
    }

    /// The same on a disk that is nearly full: what a commit frees of the log comes after what it
    /// writes.
    fn fitting_bytes(&self, pending: &TableBacklog, disk_left: Option<u64>) -> u64 {
        let fits = disk_left.map_or(u64::MAX, |left| (left / LEFT_PART).max(BITE_BYTES_MIN));
        self.bite_bytes(pending).min(fits)
    }

    /// What the next commit of a table is to be.
    fn bite(&self, due: DueTable, disk_left: Option<u64>) -> (TableBacklog, FlushBite) {
        let DueTable { backlog, time, .. } = due;
        let bytes_max = self.fitting_bytes(&backlog, disk_left);
        (backlog, FlushBite { bytes_max, time })
    }

    /// Answers who waits, and says whether anyone is left.
    fn answer(&self, failed: &FailedTables) -> bool {
        let TableFlush { wal, ours, .. } = &*self.tables;
        self.requests.answer(failed, |scope, through| is_waiting(wal, ours, scope, through))
    }

    /// Remembers how a table's flush ended.
    fn note(&mut self, pending: &TableBacklog, failed: bool, now_ms: i64) {
        let key = (pending.kind, pending.namespace.clone());
        let tried = self.bite_bytes(pending);
        if failed {
            let retry = self.failing.entry(key).or_insert(FlushRetry {
                at_ms: 0,
                pause_ms: 0,
                bite_bytes: 0,
            });
            retry.pause_ms = (retry.pause_ms * 2).clamp(RETRY_MS_MIN, RETRY_MS_MAX);
            retry.at_ms = now_ms.saturating_add(retry.pause_ms);
            retry.bite_bytes = (tried.min(pending.bytes) / BITE_PART).max(BITE_BYTES_MIN);
            if self.tables.wal.disk_left().is_some() {
                // The next try may need the room more than the log does.
                self.tables.wal.give_up_free();
            }
        } else if tried.saturating_mul(BITE_PART) < COMMIT_BYTES_MAX {
            let bite_bytes = tried * BITE_PART;
            self.failing.insert(key, FlushRetry { at_ms: 0, pause_ms: 0, bite_bytes });
        } else {
            self.failing.remove(&key);
        }
    }
}

impl Job for FlushJob {
    const NAME: &'static str = "flush";
    type Error = FlushError;

    /// Flushes every table that is due. A table that fails does not hold up the others: it is
    /// tried again after a pause of its own, and the tick reports the first failure at its end.
    async fn tick(&mut self) -> Result<Progress, FlushError> {
        let now_ms = self.clock.now_ms();
        // Who waits for what an attempt took that began before needs none.
        self.answer(&FailedTables::new());
        let is_paused = |kind, namespace: &Namespace| self.is_paused(kind, namespace, now_ms);
        let wanted = self.requests.wanted(is_paused);
        if let Err(not) = self.options.owner.check() {
            self.requests.refuse(&Arc::new(not.into()));
            return Ok(Progress::Idle);
        }
        let mut due = self.due(now_ms, &wanted);
        if due.is_empty() && wanted.is_empty() {
            return Ok(Progress::Idle);
        }
        let mut more = TICK_TABLES_MAX < due.len();
        due.truncate(TICK_TABLES_MAX);
        let tables = &self.tables;
        let disk_left = tables.wal.disk_left();
        let due: Vec<(TableBacklog, FlushBite)> =
            due.into_iter().map(|table| self.bite(table, disk_left)).collect();
        let results: Vec<(TableBacklog, Result<FlushExtent, FlushError>)> = stream::iter(due)
            .map(|(pending, bite)| async move {
                let result = Box::pin(tables.flush(&pending, bite)).await;
                (pending, result)
            })
            .buffer_unordered(disk_left.map_or(TABLES_AT_ONCE, |_| TABLES_AT_ONCE_ON_LITTLE_DISK))
            .collect()
            .await;

        let worked = results.iter().any(|(_, result)| result.is_ok());
        self.note_metastore(worked).await;
        let mut failed = FailedTables::new();
        let mut first = None;
        for (pending, result) in results {
            self.note(&pending, result.is_err(), now_ms);
            match result {
                Ok(done) => {
                    self.tables.wal.note_flushed(pending.kind, &pending.namespace);
                    self.committed.insert((pending.kind, pending.namespace));
                    more |= done == FlushExtent::Part;
                }
                Err(error) => {
                    let name = pending.kind.table_name().unwrap_or("?");
                    let table = schema::ident(&pending.namespace, name).to_string();
                    self.tables.wal.note_failing(StuckTable {
                        kind: pending.kind,
                        namespace: pending.namespace.clone(),
                        since_ms: now_ms,
                        reason: format!("flush of `{table}`: {}", with_causes(&error)),
                        is_lasting: error.is_lasting(),
                    });
                    warn!(table, error = &error as &dyn std::error::Error, "flush failed");
                    self.options.metrics.flush_failures.inc();
                    let error = Arc::new(error);
                    let of_namespace = failed.entry(pending.namespace).or_default();
                    of_namespace.push((pending.kind, Arc::clone(&error)));
                    first.get_or_insert(FlushError::Table { table, source: error });
                }
            }
        }
        if first.is_some()
            && let Err(cause) = self.options.owner.refresh().await
        {
            // What is known stays; the table's own failure is told of below.
            warn!(error = &cause as &dyn std::error::Error, "cannot read who owns the events");
        }
        let unanswered = self.answer(&failed);
        match first {
            Some(error) => Err(error),
            None => Ok(Progress::of(worked, more || unanswered)),
        }
    }
}

impl Drop for FlushJob {
    fn drop(&mut self) {
        self.requests.close();
    }
}

#[cfg(test)]
mod tests;
