//! One table's step: records of the log become one snapshot, and leave the log.
//!
//! Its one invariant: the log is trimmed only up to a position that a watermark of this very log
//! has reached, which the catalog moved in the same transaction as the snapshot.

use crate::{
    flush::{FlushError, columns::LeftOutColumns, promoted::PromotionFaults},
    owner::LogOwnership,
};
use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
use bytes::Bytes;
use iceberg::{TableIdent, spec::TableMetadata};
use icecore_catalog::{
    catalog::{Catalog, FirstAppend, LoadedTable},
    commit::{COMMIT_ID, FIRST_SEQ, LAST_SEQ, VALID_THROUGH},
    error::CatalogError,
    metastore::{Levels, Properties, Watermark},
    row_sum::RowSum,
    snapshot::{MarkMove, NewSnapshot, SnapshotTime},
};
use icecore_lake::{
    blocking::blocking,
    clock::Clock,
    event::{codec, rows},
    faults::Failpoints,
    ids::IdGenerator,
    metrics::Metrics,
    table::{
        evolve::{SchemaFit, TableMismatch},
        row_sum, schema,
        unused_numbers::UNUSED_SEQ,
        writer::{self, WrittenFiles},
    },
    wal::{LogPosition, RecordRef, TableBacklog, Wal, ranges::SeqInterval},
};
use icecore_schemas::{
    names::{NAMESPACE_TEXT, Namespace},
    service_table::{RecordKind, ServiceTable, ServiceTables},
};
use std::{
    collections::{BTreeMap, HashSet},
    io,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{sync::Semaphore, time::Instant};

/// Most payload bytes of one commit; what is beyond it goes into the next one. Less after a failure:
/// see [`crate::flush`].
pub(super) const COMMIT_BYTES_MAX: u64 = 64 << 20;
/// Most payload bytes that all running flushes hold, in MiB. In memory rows take about three times
/// as much: as read, sorted, and encoded.
const HELD_MIB_MAX: u32 = 96;
/// Most payload bytes of several records that are decoded into one batch, which copies them. A batch of a
/// single event takes longer than the event itself.
const TOGETHER_BYTES_MAX: u64 = 256 << 10;

/// Whether a flush took everything that was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlushExtent {
    /// Nothing was left when it began to read.
    All,
    /// More than one commit may hold was there.
    Part,
}

/// What one commit of a table is to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct FlushBite {
    /// Most payload bytes, but one record at least.
    pub(super) bytes_max: u64,
    /// What time its snapshot has.
    pub(super) time: SnapshotTime,
}

/// Flushes tables, any number of them concurrently, within one bound on memory.
#[derive(Debug)]
pub(super) struct TableFlush {
    pub(super) owner: LogOwnership,
    pub(super) wal: Wal,
    pub(super) catalog: Catalog,
    pub(super) clock: Clock,
    pub(super) ids: IdGenerator,
    pub(super) faults: Failpoints,
    pub(super) metrics: Metrics,
    pub(super) bounds: FlushBounds,
    pub(super) ours: ServiceTables,
    pub(super) left_out: LeftOutColumns,
    pub(super) lost: Vec<(String, SeqInterval)>,
}

/// What all flushes share.
#[derive(Debug)]
pub(super) struct FlushBounds {
    /// Namespaces that are known to be in the catalog under their own text.
    ensured: Mutex<HashSet<Namespace>>,
    memory: Semaphore,
    /// What was told of paths that get no column.
    pub(super) promotion_faults: PromotionFaults,
}

impl Default for FlushBounds {
    fn default() -> Self {
        Self {
            ensured: Mutex::default(),
            memory: Semaphore::new(HELD_MIB_MAX as usize),
            promotion_faults: PromotionFaults::default(),
        }
    }
}

/// The records of one commit, at least one.
#[derive(Debug)]
struct FlushBatch {
    records: Vec<RecordRef>,
    /// Position of the last one.
    through: LogPosition,
    /// First and last `seq` of their rows.
    seq: (u64, u64),
    /// How many rows they have.
    rows: u64,
    /// Everything acknowledged up to this time is in the table with them.
    valid_through_ms: i64,
    /// What time its snapshot has.
    time: SnapshotTime,
    done: FlushExtent,
}

/// The table that rows go to.
#[derive(Debug)]
pub(super) enum FlushTarget {
    /// As it stands.
    There(LoadedTable),
    /// It is made with the rows.
    New {
        metadata: Arc<TableMetadata>,
        /// What its namespace is made with.
        namespace: Option<Properties>,
    },
}

impl FlushTarget {
    pub(super) fn metadata(&self) -> &TableMetadata {
        match self {
            Self::There(table) => &table.metadata,
            Self::New { metadata, .. } => metadata,
        }
    }

    pub(super) fn watermark(&self) -> Option<Watermark> {
        match self {
            Self::There(table) => table.watermark,
            Self::New { .. } => None,
        }
    }
}

impl TableFlush {
    /// What waits for a table of ours; records that are no rows of one are left out.
    pub(super) fn pending(&self) -> Vec<TableBacklog> {
        self.wal.pending_of(|kind| self.ours.of(kind).is_some())
    }

    /// Commits what waits for one table, as much as `bite` says, and trims the log.
    pub(super) async fn flush(
        &self,
        pending: &TableBacklog,
        bite: FlushBite,
    ) -> Result<FlushExtent, FlushError> {
        match self.flush_once(pending, bite).await {
            // Someone else made the table or its namespace in between.
            Err(FlushError::Commit(CatalogError::AlreadyExists(_))) => {
                self.flush_once(pending, bite).await
            }
            flushed => flushed,
        }
    }

    async fn flush_once(
        &self,
        pending: &TableBacklog,
        bite: FlushBite,
    ) -> Result<FlushExtent, FlushError> {
        let (kind, namespace) = (pending.kind, &pending.namespace);
        let mib = pending.bytes.min(bite.bytes_max).div_ceil(1 << 20).max(1);
        let mib = u32::try_from(mib).unwrap_or(HELD_MIB_MAX).min(HELD_MIB_MAX);
        let memory = self.bounds.memory.acquire_many(mib).await;
        let _memory = memory.expect("the semaphore is never closed");
        let started = Instant::now();

        self.wal.check_room_for_ids()?;
        let ours = self.ours.of(kind).expect("only what waits for a table of ours is flushed");
        let ident = schema::ident(namespace, ours.name);
        let table = self.target(namespace, &ident, ours).await?;
        let fit = self.fit(&ident, ours, table.metadata())?;
        // The pin comes before the list: listed records stay readable while it is held.
        let _pin = self.wal.pin();
        let after = self.owner.committed(table.watermark()).ok_or(FlushError::Deposed)?;
        let (through, done) = match self.take(kind, namespace, after, bite) {
            // The table has them all, by this log's own watermark: a crash came between commit and
            // trim.
            None => (after, FlushExtent::All),
            Some(taken) => {
                self.commit(&ident, table, ours, fit, &taken).await?;
                self.ensured().insert(namespace.clone());
                self.faults.hit("flush.after_commit")?;
                (taken.through, taken.done)
            }
        };
        self.faults.hit("flush.before_trim")?;
        // What was committed to a file that is gone by now is gone with it: the log keeps the rows.
        self.catalog.metastore().check_file()?;
        let (wal, namespace) = (self.wal.clone(), namespace.clone());
        blocking(move || wal.trim(kind, &namespace, through)).await?;
        self.metrics.flush.observe(started.elapsed().as_secs_f64());
        Ok(done)
    }

    /// The next records, as many as one commit may hold.
    fn take(
        &self,
        kind: RecordKind,
        namespace: &Namespace,
        after: LogPosition,
        bite: FlushBite,
    ) -> Option<FlushBatch> {
        // The time is taken before the list: what is acknowledged in between is in the list, but
        // nothing is promised of it.
        let now_ms = self.clock.now_ms();
        let (records, left) = self.wal.records_within(kind, namespace, after, bite.bytes_max);
        let left_ms = left.map(|first_left| first_left.durable_ms);
        let (first, last) = (records.first()?, records.last()?);
        Some(FlushBatch {
            through: last.position,
            rows: records.iter().map(|record| u64::from(record.rows)).sum(),
            seq: (first.first_seq, last.first_seq + u64::from(last.rows.saturating_sub(1))),
            valid_through_ms: left_ms.map_or(now_ms, |left_ms| now_ms.min(left_ms)) - 1,
            time: bite.time,
            done: if left_ms.is_some() { FlushExtent::Part } else { FlushExtent::All },
            records,
        })
    }

    /// Writes the rows of `taken` and appends them; a definite failure leaves no files behind.
    async fn commit(
        &self,
        ident: &TableIdent,
        table: FlushTarget,
        ours: &ServiceTable,
        fit: SchemaFit,
        taken: &FlushBatch,
    ) -> Result<(), FlushError> {
        self.faults.hit("flush.before_write")?;
        let (batches, read_sum) =
            read(rows::schema_of(ours.columns), taken.records.clone(), ours.has_seq()).await?;
        let (table, batches) = self.with_columns(ident, table, ours, fit, batches).await?;
        let table = self.with_promoted(ident, table).await?;
        let storage = self.catalog.storage();
        if let FlushTarget::New { metadata, .. } = &table {
            // Both folders at once: one sync of the folder that they are in.
            storage.prepare_table(metadata.location()).await?;
        }
        let mut written =
            writer::write_summed(storage, table.metadata(), batches, &self.ids).await?;
        let locations: Vec<String> =
            written.files.iter().map(|file| file.file_path().to_owned()).collect();
        // Another engine may have given a column `seq` to a table whose rows have none.
        written.rows_sum = written.rows_sum.filter(|_| ours.has_seq());
        let result = match written.rows_sum {
            Some(sum) if sum != read_sum => {
                Err(FlushError::RowsDiffer { read: read_sum, written: sum })
            }
            Some(_) | None => self.append(ident, ours, &table, written, taken).await,
        };
        if result.as_ref().is_err_and(is_definite) {
            writer::delete(storage, locations.iter().map(String::as_str)).await;
        }
        result
    }

    async fn append(
        &self,
        ident: &TableIdent,
        ours: &ServiceTable,
        table: &FlushTarget,
        written: WrittenFiles,
        taken: &FlushBatch,
    ) -> Result<(), FlushError> {
        self.faults.hit("flush.after_data_file")?;
        let (first_seq, last_seq) = taken.seq;
        let mut summary = BTreeMap::from(
            [
                (FIRST_SEQ, first_seq.to_string()),
                (LAST_SEQ, last_seq.to_string()),
                (VALID_THROUGH, taken.valid_through_ms.to_string()),
                (COMMIT_ID, self.ids.mint().to_string()),
                ("icecore.wal-position", taken.through.to_string()),
            ]
            .map(|(key, value)| (key.to_owned(), value)),
        );
        if ours.kind == RecordKind::Events
            && let Some(unused) = self.unused(ident, table, &taken.records)
        {
            summary.insert(UNUSED_SEQ.to_owned(), unused);
        }
        let watermark = Watermark {
            epoch: self.owner.epoch(),
            position: taken.through,
            last_seq: table.watermark().map_or(last_seq, |before| before.last_seq.max(last_seq)),
        };
        let snapshot = NewSnapshot {
            added: written.files,
            rows_added: written.rows_sum,
            summary,
            mark: Some(MarkMove { watermark, since: self.owner.since() }),
            upgrades: schema::upgrades(ours, table.metadata()),
            time: taken.time,
            ..NewSnapshot::default()
        };
        self.faults.hit("flush.before_commit")?;
        let started = Instant::now();
        match table {
            FlushTarget::There(_) => self.catalog.add_snapshot(ident, snapshot).await?,
            FlushTarget::New { metadata, namespace } => {
                let (metadata, namespace) = (Arc::clone(metadata), namespace.clone());
                let first = FirstAppend { table: ident.clone(), metadata, namespace, snapshot };
                self.catalog.tables().create_with(first).await?
            }
        };
        self.metrics.flush_commit.observe(started.elapsed().as_secs_f64());
        self.metrics.flush_rows.inc_by(taken.rows);
        let unknown = |fault: io::Error| CatalogError::CommitStateUnknown(fault.to_string());
        Ok(self.faults.hit("flush.lost_answer").map_err(unknown)?)
    }

    /// The table as it stands, or as it is going to be made with its first rows.
    async fn target(
        &self,
        namespace: &Namespace,
        ident: &TableIdent,
        ours: &ServiceTable,
    ) -> Result<FlushTarget, FlushError> {
        let is_known = self.ensured().contains(namespace);
        let missing = if is_known { None } else { self.missing_namespace(namespace).await? };
        if missing.is_none() {
            match self.catalog.tables().load(ident).await {
                Err(CatalogError::NoSuchTable(_)) => (),
                loaded => return Ok(FlushTarget::There(loaded?)),
            }
        }
        if self.catalog.views().has(ident).await? {
            let source = TableMismatch::View;
            return Err(FlushError::Foreign { table: ident.to_string(), source });
        }
        // Someone may have dropped the namespace with the table.
        let missing = if is_known { self.missing_namespace(namespace).await? } else { missing };
        let metadata =
            self.catalog.tables().stage_first(&levels(namespace), schema::create(ours)).await?;
        Ok(FlushTarget::New { metadata: Arc::new(metadata), namespace: missing })
    }

    /// What the namespace is to be made with if it is not there. One that is there is checked to be
    /// this one: rows of two namespaces in one table would share one watermark, and the one that is
    /// behind would be lost.
    async fn missing_namespace(
        &self,
        namespace: &Namespace,
    ) -> Result<Option<Properties>, FlushError> {
        let text = Properties::from([(NAMESPACE_TEXT.to_owned(), namespace.text().to_owned())]);
        let levels = levels(namespace);
        let Some(properties) = self.catalog.metastore().namespace(&levels).await? else {
            return Ok(Some(text));
        };
        match Namespace::from_properties(&levels, &properties) {
            Some(owner) if owner == *namespace => (),
            Some(owner) => {
                return Err(FlushError::NamespaceTaken {
                    name: namespace.name().to_owned(),
                    owner,
                    namespace: namespace.clone(),
                });
            }
            // Another engine made it before the first event came, or noted what it may not.
            None => self.catalog.metastore().update_namespace(&levels, &text, &[]).await?,
        }
        self.ensured().insert(namespace.clone());
        Ok(None)
    }

    fn ensured(&self) -> std::sync::MutexGuard<'_, HashSet<Namespace>> {
        self.bounds.ensured.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn levels(namespace: &Namespace) -> Levels {
    vec![namespace.name().to_owned()]
}

/// Reads and decodes records off the async threads. Gives them with the sum of the rows, where they have
/// one.
async fn read(
    schema: SchemaRef,
    records: Vec<RecordRef>,
    has_sum: bool,
) -> Result<(Vec<RecordBatch>, RowSum), FlushError> {
    blocking(move || {
        let (mut batches, mut sum) = (Vec::new(), RowSum::default());
        let mut left = records.as_slice();
        while !left.is_empty() {
            let (together, later) = left.split_at(count_together(left));
            left = later;
            let payloads = RecordRef::read_all(together)?.into_iter();
            let payloads: Vec<(Bytes, u64)> =
                payloads.zip(together.iter().map(|record| record.first_seq)).collect();
            let rows = codec::decode_all(&schema, &payloads)?;
            if has_sum {
                sum = sum.merge(row_sum::sum_of(&rows));
            }
            batches.push(rows);
        }
        Ok((batches, sum))
    })
    .await
}

/// How many of the first records are decoded into one batch; one at least.
fn count_together(records: &[RecordRef]) -> usize {
    let mut bytes = 0;
    let fitting = records.iter().take_while(|record| {
        bytes += u64::from(record.length);
        bytes <= TOGETHER_BYTES_MAX
    });
    fitting.count().max(1)
}

/// Whether a failed append certainly left no snapshot that names its files.
pub(super) fn is_definite(error: &FlushError) -> bool {
    !matches!(error, FlushError::Commit(CatalogError::CommitStateUnknown(_)))
}
