//! Moves what is durable in the log into Iceberg tables.
//!
//! For each table with waiting records: read them from the log, write data files, commit them with
//! the log position as watermark, trim the log. Every step may be repeated: a position that the
//! table already has is skipped by the commit. A table whose flush failed takes a smaller bite, so
//! that a disk with little room left is drained in steps that fit.

mod columns;
mod commit;
pub mod noted;
mod requests;

use crate::{
    flush::{
        columns::LeftOutColumns,
        commit::{COMMIT_BYTES_MAX, FlushBounds, FlushExtent, TableFlush},
        requests::FlushRequests,
    },
    owner::{LogOwnership, NotOwner},
    tasks::{Job, Progress},
};
use futures::{StreamExt, stream};
use icecore_catalog::{
    catalog::Catalog,
    error::{CatalogError, with_causes},
    row_sum::RowSum,
    storage,
};
use icecore_lake::{
    clock::Clock,
    faults::Failpoints,
    ids::IdGenerator,
    metrics::Metrics,
    table::{
        evolve::{SchemaFit, TableMismatch},
        schema,
        writer::WriteError,
    },
    wal::{LogPosition, TableBacklog, Wal, WalError, quota::StuckTable},
};
use icecore_schemas::{
    names::Namespace,
    service_table::{RecordKind, ServiceTables},
};
use std::{collections::HashMap, sync::Arc, time::Duration};
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
/// A flush starts this much before the interval is over (a fifth of it when that is less), so that
/// the snapshot is there when it is.
const HEAD_START_MAX: Duration = Duration::from_secs(1);
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
    /// Longest a record waits. Default 5 s, from 100 ms to 10 min.
    pub interval: Duration,
    /// A table with this many waiting bytes is committed at once. Default 64 MiB.
    pub bytes_max: u64,
    /// Whether the log may be flushed at all.
    pub owner: LogOwnership,
    /// Where flushes are counted.
    pub metrics: Metrics,
    /// The tables that its records are rows of.
    pub tables: ServiceTables,
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

impl FlushError {
    /// What is wrong with the store of the files, where it is at fault.
    #[must_use]
    pub fn of_storage(&self) -> Option<String> {
        match self {
            Self::Write(WriteError::Store(cause)) | Self::Commit(cause) => {
                storage::probe::answer_of_store(cause)
            }
            Self::Table { source, .. } => source.of_storage(),
            Self::Wal(_)
            | Self::RowsDiffer { .. }
            | Self::Decode(_)
            | Self::Write(_)
            | Self::Fault(_)
            | Self::NamespaceTaken { .. }
            | Self::Foreign { .. }
            | Self::NotOwner(_)
            | Self::Deposed
            | Self::Stopped => None,
        }
    }

    /// Whether the table itself is at fault, so that it fails until somebody puts that right; false
    /// where the log, the store or the metastore fails, which concerns every table.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Write(WriteError::Store(cause)) | Self::Commit(cause) => match cause {
                CatalogError::Storage { .. } => storage::is_missing(cause),
                CatalogError::WarehouseOutage(_)
                | CatalogError::Metastore { .. }
                | CatalogError::Busy(_)
                | CatalogError::CommitStateUnknown(_) => false,
                _ => true,
            },
            Self::Table { source, .. } => source.is_lasting(),
            Self::Decode(_)
            | Self::RowsDiffer { .. }
            | Self::Write(_)
            | Self::NamespaceTaken { .. }
            | Self::Foreign { .. } => true,
            Self::Wal(_) | Self::Fault(_) | Self::NotOwner(_) | Self::Deposed | Self::Stopped => {
                false
            }
        }
    }
}

/// Who the catalog's feed says it was that made a change of the log's.
pub const ACTOR: &str = "icecore/ingest";

/// Asks for commits and waits for them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Flush {
    owner: LogOwnership,
    wal: Wal,
    catalog: Catalog,
    requests: Arc<FlushRequests>,
    tables: ServiceTables,
    left_out: LeftOutColumns,
}

/// The job behind [`Flush`].
#[derive(Debug)]
pub struct FlushJob {
    options: FlushOptions,
    clock: Clock,
    requests: Arc<FlushRequests>,
    tables: TableFlush,
    failing: HashMap<(RecordKind, Namespace), FlushRetry>,
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
        let tables = TableFlush {
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
        };
        let (ours, left_out) = (tables.ours.clone(), tables.left_out.clone());
        let owner = options.owner.clone();
        let job = FlushJob {
            options,
            clock,
            requests: Arc::clone(&requests),
            tables,
            failing: HashMap::new(),
        };
        (Self { owner, wal, catalog, requests, tables: ours, left_out }, job, wake)
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
        if is_waiting(&self.wal, &self.tables, namespace, through) {
            self.requests.wait(namespace, through).await?;
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

/// Whether a record of `namespace` up to `through` is still in the log alone.
fn is_waiting(
    wal: &Wal,
    tables: &ServiceTables,
    namespace: &Namespace,
    through: LogPosition,
) -> bool {
    tables.iter().any(|table| {
        wal.first_position(table.kind, namespace).is_some_and(|first| first <= through)
    })
}

impl FlushJob {
    /// The tables to flush now: what was asked for first, then the oldest.
    fn due(&self, now_ms: i64, wanted: &[Namespace]) -> Vec<TableBacklog> {
        let head_start = (self.options.interval / 5).min(HEAD_START_MAX);
        let wait = self.options.interval.saturating_sub(head_start);
        let wait_ms = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
        let is_wanted = |pending: &TableBacklog| wanted.contains(&pending.namespace);
        let is_due = |pending: &TableBacklog| {
            let paused = self
                .failing
                .get(&(pending.kind, pending.namespace.clone()))
                .is_some_and(|retry| now_ms < retry.at_ms);
            let is_old = pending.oldest_ms.saturating_add(wait_ms) <= now_ms;
            let is_large = self.options.bytes_max <= pending.bytes;
            is_wanted(pending) || (!paused && (is_old || is_large))
        };
        let mut due = self.tables.pending();
        due.retain(is_due);
        due.sort_by_key(|pending| (!is_wanted(pending), pending.oldest_ms));
        due
    }

    /// After a commit: a start with a copy of the metastore from before it is to be noticed.
    async fn note_metastore(&self, has_committed: bool) {
        if has_committed
            && let Err(cause) = noted::note(&self.tables.wal, &self.tables.catalog).await
        {
            // The commits stand; it is noted later.
            warn!(
                error = &cause as &dyn std::error::Error,
                "cannot record the state of the metastore"
            );
        }
    }

    /// Tells everyone who waits that nothing will be committed.
    fn refuse(&self, wanted: Vec<Namespace>, not: &NotOwner) {
        let error = Arc::new(FlushError::from(not.clone()));
        let failed = wanted.into_iter().map(|namespace| (namespace, Arc::clone(&error))).collect();
        self.requests.answer(&failed, |_, _| true);
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
        let wanted = self.requests.wanted();
        if let Err(not) = self.options.owner.check() {
            self.refuse(wanted, &not);
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
        let due: Vec<(TableBacklog, u64)> = due
            .into_iter()
            .map(|pending| (pending.clone(), self.fitting_bytes(&pending, disk_left)))
            .collect();
        let results: Vec<(TableBacklog, Result<FlushExtent, FlushError>)> = stream::iter(due)
            .map(|(pending, bite_bytes)| async move {
                let result = Box::pin(tables.flush(&pending, bite_bytes)).await;
                (pending, result)
            })
            .buffer_unordered(disk_left.map_or(TABLES_AT_ONCE, |_| TABLES_AT_ONCE_ON_LITTLE_DISK))
            .collect()
            .await;

        let worked = results.iter().any(|(_, result)| result.is_ok());
        self.note_metastore(worked).await;
        let mut failed: HashMap<Namespace, Arc<FlushError>> = HashMap::new();
        let mut first = None;
        for (pending, result) in results {
            self.note(&pending, result.is_err(), now_ms);
            match result {
                Ok(done) => {
                    self.tables.wal.note_flushed(pending.kind, &pending.namespace);
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
                    failed.insert(pending.namespace, Arc::clone(&error));
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
        let TableFlush { wal, ours, .. } = &self.tables;
        let is_waiting = |namespace: &Namespace, through| is_waiting(wal, ours, namespace, through);
        let unanswered = self.requests.answer(&failed, is_waiting);
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
