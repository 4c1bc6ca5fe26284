mod loads;
mod promoted;

use super::{Flush, FlushError, FlushJob, FlushOptions};
use crate::{
    owner::LogOwnership,
    tasks::{Job, Progress},
};
use arrow::{compute::concat_batches, record_batch::RecordBatch};
use futures::TryStreamExt;
use iceberg::{expr::Reference, spec::Datum, table::Table};
use icecore_catalog::{
    catalog::{Catalog, LoadedTable},
    commit::{COMMIT_ID, FIRST_SEQ, LAST_SEQ},
    error::CatalogError,
    metastore::{Metastore, Watermark},
    row_sum::RowSum,
    scan::{Deadline, ManifestSource, manifests::ManifestCache},
    snapshot::{MarkMove, NewSnapshot},
    storage::{S3Options, Storage},
};
use icecore_lake::{
    clock::Clock,
    event::{codec, rows},
    faults::Failpoints,
    ids::IdGenerator,
    metrics::Metrics,
    table::{
        integrity::{self, CheckDepth, CheckedTable},
        known_ids, schema, writer,
    },
    wal::{LogRecord, Wal, WalOptions, WalWriter},
};
use icecore_samples as sample;
use icecore_schemas::{
    fsck::{FindingKind, FsckTable, SeqGap},
    names::Namespace,
    service_table::{RecordKind, ServiceTables},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tempfile::TempDir;
use tokio::sync::Notify;

const START_MS: i64 = 1_772_323_200_000;
const INTERVAL: Duration = Duration::from_secs(5);

/// A log and a catalog on disk; what is in memory can be thrown away and opened again.
struct Server {
    folder: TempDir,
    clock: Clock,
    catalog: Catalog,
    wal: Wal,
    writer: WalWriter,
    flush: Flush,
    wake: Arc<Notify>,
    job: FlushJob,
}

impl Server {
    async fn start() -> Self {
        Self::open(tempfile::tempdir().unwrap(), Clock::manual(START_MS), "", 64 << 20).await
    }

    async fn start_with(faults: &str) -> Self {
        Self::open(tempfile::tempdir().unwrap(), Clock::manual(START_MS), faults, 64 << 20).await
    }

    /// As after `kill -9`: only what is on disk is still there.
    async fn restart(self) -> Self {
        let Self { folder, clock, catalog, wal, writer, flush, wake: _, job } = self;
        drop((catalog, wal, writer, flush, job));
        Self::open(folder, clock, "", 64 << 20).await
    }

    /// Another log in the place of this one, with positions from 1 on; the tables stay.
    async fn with_new_log(self, owner: LogOwnership) -> Self {
        let Self { folder, clock, catalog, wal, writer, flush, wake: _, job } = self;
        drop((catalog, wal, writer, flush, job));
        std::fs::remove_dir_all(folder.path().join("wal")).unwrap();
        Self::open_as(owner, folder, clock, INTERVAL, ("", 64 << 20, Some(0))).await
    }

    async fn open(folder: TempDir, clock: Clock, faults: &str, bytes_max: u64) -> Self {
        let owner = LogOwnership::first();
        Self::open_as(owner, folder, clock, INTERVAL, (faults, bytes_max, None)).await
    }

    async fn open_as(
        owner: LogOwnership,
        folder: TempDir,
        clock: Clock,
        interval_max: Duration,
        (faults, bytes_max, floor): (&str, u64, Option<u64>),
    ) -> Self {
        let faults = Failpoints::parse(faults).unwrap();
        let warehouse = format!("file://{}/warehouse", folder.path().display());
        let storage = Storage::open(&warehouse, &S3Options::default()).unwrap();
        let metastore = Metastore::sqlite(&folder.path().join("icecore.db")).await.unwrap();
        let now = {
            let clock = clock.clone();
            Arc::new(move || clock.now_ms())
        };
        let catalog = Catalog::new("icecore", storage, metastore, now);
        let highest = catalog.metastore().highest_position().await.unwrap();
        let options = WalOptions {
            folder: folder.path().join("wal"),
            segment_bytes: 4 << 20,
            free_segments_max: 1,
            bytes_max: 1 << 30,
            disk_free_min: 0.0,
            position_floor: floor.unwrap_or(highest),
            metrics: Metrics::default(),
        };
        let (wal, writer) = Wal::open(options, clock.clone(), Failpoints::default()).unwrap();
        let options = FlushOptions {
            interval: INTERVAL,
            interval_max,
            bytes_max,
            owner,
            metrics: Metrics::default(),
            tables: ServiceTables::default(),
            lost: vec![("a.events".to_owned(), (101, 105))],
        };
        let ids = IdGenerator::new(clock.clone());
        let (flush, job, wake) =
            Flush::new(options, wal.clone(), &catalog, clock.clone(), ids, faults);
        Self { folder, clock, catalog, wal, writer, flush, wake, job }
    }

    /// Makes `rows` durable in the log, and gives their position.
    fn append(&mut self, ns: &str, rows: &RecordBatch) -> u64 {
        let first = sample::longs(rows, "seq").value(0);
        self.writer.append(&[event_record(ns, rows, first)]).unwrap()
    }

    fn dead_letters(&mut self, ns: &str, rows: &RecordBatch, first: u64) -> u64 {
        let record = LogRecord {
            kind: RecordKind::DeadLetters,
            namespace: namespace(ns),
            first_seq: first,
            rows: u32::try_from(rows.num_rows()).unwrap(),
            payload: codec::encode(&rows::dead_letter_schema(), rows),
        };
        self.writer.append(&[record]).unwrap()
    }

    /// Lets the interval pass, and flushes.
    async fn tick(&mut self) -> Result<Progress, FlushError> {
        self.clock.advance_ms(i64::try_from(INTERVAL.as_millis()).unwrap());
        self.job.tick().await
    }

    async fn load(&self, ns: &str, name: &str) -> LoadedTable {
        self.catalog.tables().load(&schema::ident(&namespace(ns), name)).await.unwrap()
    }

    async fn snapshots(&self, ns: &str) -> usize {
        self.load(ns, "events").await.metadata.snapshots().len()
    }

    /// The `seq` of every row of the table, as iceberg's own reader finds them.
    async fn seqs(&self, ns: &str) -> Vec<i64> {
        let rows = self.scan(ns, "events", None).await;
        let mut seqs = sample::longs(&rows, "seq").values().to_vec();
        seqs.sort_unstable();
        seqs
    }

    async fn scan(&self, ns: &str, name: &str, id: Option<&str>) -> RecordBatch {
        let loaded = self.load(ns, name).await;
        let table = Table::builder()
            .identifier(schema::ident(&namespace(ns), name))
            .metadata(Arc::clone(&loaded.metadata))
            .metadata_location(loaded.metadata_location)
            .file_io(self.catalog.storage().file_io())
            .runtime(iceberg::Runtime::current())
            .build()
            .unwrap();
        let scan = table.scan();
        let scan = match id {
            Some(id) => scan.with_filter(Reference::new("id").equal_to(Datum::string(id))),
            None => scan,
        };
        let batches: Vec<RecordBatch> =
            scan.build().unwrap().to_arrow().await.unwrap().try_collect().await.unwrap();
        match batches.first() {
            Some(first) => concat_batches(&first.schema(), &batches).unwrap(),
            None => RecordBatch::new_empty(rows::event_schema()),
        }
    }

    /// Data files on disk, named by a snapshot or not.
    fn data_files(&self) -> usize {
        fn count(folder: &std::path::Path) -> usize {
            let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
            entries
                .map(|path| match path.is_dir() {
                    true => count(&path),
                    false => usize::from(path.extension().is_some_and(|end| end == "parquet")),
                })
                .sum()
        }
        count(&self.folder.path().join("warehouse"))
    }
}

fn namespace(text: &str) -> Namespace {
    Namespace::parse(text).unwrap()
}

fn event_record(ns: &str, rows: &RecordBatch, first: i64) -> LogRecord {
    LogRecord {
        kind: RecordKind::Events,
        namespace: namespace(ns),
        first_seq: u64::try_from(first).unwrap(),
        rows: u32::try_from(rows.num_rows()).unwrap(),
        payload: codec::encode(&rows::event_schema(), rows),
    }
}

#[tokio::test]
async fn records_are_committed_once_and_leave_the_log() {
    let mut server = Server::start().await;
    server.append("a.b", &sample::events(30, 3, 1, 1));
    server.append("a.b", &sample::events(20, 3, 31, 2));
    assert_eq!(server.tick().await.unwrap(), Progress::Done);
    assert!(server.wal.pending().is_empty());
    assert_eq!(server.tick().await.unwrap(), Progress::Idle);
    assert_eq!(server.snapshots("a.b").await, 1);
    assert_eq!(server.seqs("a.b").await, (1..=50).collect::<Vec<_>>());
    server.append("a.b", &sample::events(5, 1, 51, 3));
    server.tick().await.unwrap();
    assert_eq!(server.snapshots("a.b").await, 2);
    assert_eq!(server.seqs("a.b").await, (1..=55).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_feed_says_that_the_log_made_its_changes() {
    let mut server = Server::start().await;
    server.append("a", &sample::events(30, 3, 1, 1));
    server.tick().await.unwrap();
    server.append("a", &sample::events(30, 3, 31, 2));
    server.tick().await.unwrap();
    let events = server.catalog.metastore().events(0, 100).await.unwrap();
    let told: Vec<(&str, &str)> = events
        .iter()
        .map(|event| (event.operation["operation-type"].as_str().unwrap(), event.actor.as_str()))
        .collect();
    let by_log = ["create-namespace", "create-table", "update-table"];
    assert_eq!(told, by_log.map(|what| (what, "icecore/ingest")));
    // The first rows come with the table.
    let table = server.load("a", "events").await;
    let first: Vec<i64> = table.metadata.history().iter().map(|log| log.snapshot_id).collect();
    assert_eq!(events[1].operation["snapshot-ids"], serde_json::json!([first[0]]));
    assert_eq!((first.len(), table.version), (2, 2));
    let last = events.last().unwrap();
    let made = server.catalog.metastore().event_changes(&[last.number]).await.unwrap();
    let made: serde_json::Value = serde_json::from_str(made[0].1.as_ref().unwrap()).unwrap();
    let actions: Vec<_> = made["updates"].as_array().unwrap().iter().collect();
    assert_eq!(actions[0]["action"], "add-snapshot");
    assert_eq!(actions[0]["snapshot"]["snapshot-id"], last.operation["snapshot-ids"][0]);
    assert_eq!(actions[1]["action"], "set-snapshot-ref");
    assert!(last.bytes < 4096, "an append takes {} bytes of the feed", last.bytes);
}

#[tokio::test]
async fn the_summary_says_what_the_snapshot_holds() {
    let mut server = Server::start().await;
    server.append("a", &sample::events(30, 3, 1, 1));
    let position = server.append("a", &sample::events(20, 3, 31, 2));
    server.tick().await.unwrap();
    let table = server.load("a", "events").await;
    let snapshot = table.metadata.current_snapshot().unwrap();
    let summary = &snapshot.summary().additional_properties;
    let number = |key: &str| summary[key].parse::<i64>().unwrap();
    assert_eq!((number("icecore.first-seq"), number("icecore.last-seq")), (1, 50));
    assert_eq!(number("icecore.wal-position"), i64::try_from(position).unwrap());
    assert_eq!(number("icecore.valid-through-ms"), server.clock.now_ms() - 1);
    assert_eq!(summary["icecore.commit-id"].len(), 26);
    assert_eq!(summary["icecore.unused-seq"], "none");
    let watermark = table.watermark.unwrap();
    assert_eq!((watermark.epoch, watermark.position, watermark.last_seq), (1, position, 50));
    let rows =
        server.catalog.tables().snapshots(&schema::ident(&namespace("a"), "events")).await.unwrap();
    assert_eq!(rows[0].seq, Some((1, 50)));
}

/// What the current snapshot says of numbers without a row.
async fn unused(server: &Server) -> String {
    let table = server.load("a", "events").await;
    let snapshot = table.metadata.current_snapshot().unwrap();
    snapshot.summary().additional_properties["icecore.unused-seq"].clone()
}

#[tokio::test]
async fn numbers_without_a_row_are_told_with_what_is_known_of_them() {
    let mut server = Server::start().await;
    // As an earlier version numbered after groups that it could not write.
    server.append("a", &sample::events(10, 1, 4, 1));
    server.append("a", &sample::events(5, 1, 16, 2));
    server.tick().await.unwrap();
    assert_eq!(unused(&server).await, "1-3=not-logged,14-15=not-logged");
    server.append("a", &sample::events(5, 1, 106, 3));
    server.tick().await.unwrap();
    assert_eq!(unused(&server).await, "101-105=given-up,21-100=not-logged");
    // Where nobody knows above what a log began that took over, the size of the gap tells.
    let mut server = server.with_new_log(LogOwnership::of_epochs(2, 2)).await;
    server.append("a", &sample::events(5, 1, (1 << 32) + 111, 4));
    server.tick().await.unwrap();
    assert_eq!(unused(&server).await, "none");
    let report = check(&server).await;
    assert!(report.is_whole() && report.notes.is_empty(), "{report:?}");
    let gaps: Vec<(u64, u64)> = report.gaps.iter().map(|gap| (gap.first, gap.last)).collect();
    assert_eq!(gaps, [(1, 3), (14, 15), (21, 100), (101, 105), (111, (1 << 32) + 110)]);
}

/// What a check of the table finds.
async fn check(server: &Server) -> FsckTable {
    let (table, tables) = (server.load("a", "events").await, ServiceTables::default());
    let input = CheckedTable {
        storage: server.catalog.storage(),
        name: "a.events",
        table: &table,
        ours: tables.of(RecordKind::Events),
        lost: &[],
        depth: CheckDepth::Rows,
    };
    integrity::check(input).await.unwrap().report
}

#[tokio::test]
async fn records_that_leave_the_log_without_a_commit_are_damage() {
    let mut server = Server::start().await;
    server.append("a", &sample::events(10, 1, 1, 1));
    server.tick().await.unwrap();
    let passed = server.append("a", &sample::events(5, 1, 11, 2));
    server.wal.trim(RecordKind::Events, &namespace("a"), passed).unwrap();
    server.append("a", &sample::events(10, 1, 16, 3));
    server.tick().await.unwrap();
    assert_eq!(unused(&server).await, "none");
    let head = server.load("a", "events").await.metadata.current_snapshot_id();
    let report = check(&server).await;
    let found: Vec<_> = report.damage.iter().map(|it| (it.kind, it.snapshot)).collect();
    assert_eq!(found, [(FindingKind::Numbers, head)], "{report:?}");
    assert_eq!(report.gaps, [SeqGap { first: 11, last: 15, reason: None }]);
}

#[tokio::test]
async fn numbers_without_a_row_after_a_commit_of_an_earlier_version_are_no_damage() {
    let mut server = Server::start().await;
    server.append("a", &sample::events(10, 1, 1, 1));
    server.tick().await.unwrap();
    let of_earlier = sample::events(5, 1, 11, 2);
    let position = server.append("a", &of_earlier);
    let table = server.load("a", "events").await;
    let (storage, ids) = (server.catalog.storage(), IdGenerator::new(server.clock.clone()));
    let added = writer::write(storage, &table.metadata, vec![of_earlier], &ids).await.unwrap();
    let summary = [(COMMIT_ID, "c"), (FIRST_SEQ, "11"), (LAST_SEQ, "15")];
    let summary = summary.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let watermark = Watermark { epoch: 1, position, last_seq: 15 };
    let new = NewSnapshot {
        added,
        summary: BTreeMap::from(summary),
        mark: Some(MarkMove { watermark, since: 0 }),
        ..NewSnapshot::default()
    };
    server.catalog.add_snapshot(&schema::ident(&namespace("a"), "events"), new).await.unwrap();
    // As numbers of a group that its version could not write: the log does not tell whether they had rows.
    let passed = server.append("a", &sample::events(5, 1, 16, 3));
    server.wal.trim(RecordKind::Events, &namespace("a"), passed).unwrap();
    server.append("a", &sample::events(10, 1, 21, 4));
    server.tick().await.unwrap();
    let table = server.load("a", "events").await;
    let summary = table.metadata.current_snapshot().unwrap().summary();
    assert_eq!(summary.additional_properties.get("icecore.unused-seq"), None);
    let report = check(&server).await;
    assert!(report.is_whole(), "{report:?}");
    assert!(report.notes.iter().any(|it| it.what.contains("from 16 to 20")), "{report:?}");
    // From the next commit on all is told.
    server.append("a", &sample::events(5, 1, 31, 5));
    server.tick().await.unwrap();
    assert_eq!(unused(&server).await, "none");
}

#[tokio::test]
async fn records_that_leave_a_log_that_took_over_without_a_commit_are_damage() {
    let mut server = Server::start().await;
    server.append("a", &sample::events(105, 1, 1, 1));
    server.tick().await.unwrap();
    let base = (1_u64 << 32) + 105;
    let mut server = server.with_new_log(LogOwnership::above(2, 2, base)).await;
    let passed = server.append("a", &sample::events(5, 1, base.cast_signed() + 1, 2));
    server.wal.trim(RecordKind::Events, &namespace("a"), passed).unwrap();
    server.append("a", &sample::events(10, 1, base.cast_signed() + 6, 3));
    server.tick().await.unwrap();
    assert_eq!(unused(&server).await, format!("106-{base}=taken-over"));
    let report = check(&server).await;
    let found: Vec<_> = report.damage.iter().map(|it| it.kind).collect();
    assert_eq!(found, [FindingKind::Numbers], "{report:?}");
    let reason = Some("no commit has them: a log that took over begins above them".to_owned());
    let expected = [
        SeqGap { first: 106, last: base, reason },
        SeqGap { first: base + 1, last: base + 5, reason: None },
    ];
    assert_eq!(report.gaps, expected);
}

#[tokio::test]
async fn a_row_is_found_by_its_id() {
    let mut server = Server::start().await;
    let rows = sample::events(200, 5, 1, 1);
    server.append("a", &rows);
    server.tick().await.unwrap();
    for row in [0, 99, 199] {
        let id = sample::texts(&rows, "id").value(row);
        let found = server.scan("a", "events", Some(id)).await;
        assert_eq!(found.num_rows(), 1, "{id}");
    }
}

#[tokio::test]
async fn the_ids_of_a_table_are_read_back() {
    let mut server = Server::start().await;
    let rows = sample::events(500, 3, 1, 1);
    server.append("a", &rows);
    server.tick().await.unwrap();
    let table = server.load("a", "events").await;
    let (storage, cache) = (server.catalog.storage(), ManifestCache::default());
    let (metadata, until) = (&table.metadata, Deadline::NONE);
    let source = ManifestSource { storage, cache: &cache, metadata, until };
    let types = known_ids::types(source).await.unwrap();
    assert_eq!(types.iter().collect::<Vec<_>>(), ["type.0", "type.1", "type.2"]);
    let rows_since = async |since_us, seq_min| {
        let ours = ServiceTables::default();
        let read = known_ids::rows(source, ours.events(), since_us, seq_min).await.unwrap();
        read.try_collect::<Vec<known_ids::IdRows>>().await.unwrap()
    };
    let parts = rows_since(i64::MIN, 0).await;
    assert!(1 < parts.len());
    let mut found: Vec<(i64, String, i64)> = parts
        .iter()
        .flat_map(|part| {
            let ids = part.ids.iter().map(|id| id.unwrap().to_owned());
            let rows = part.seqs.values().iter().zip(ids).zip(part.ingested_us.values());
            rows.map(|((seq, id), time)| (*seq, id, *time)).collect::<Vec<_>>()
        })
        .collect();
    found.sort();
    let times = sample::times(&rows, "ingested_at");
    let expected: Vec<(i64, String, i64)> = (0..rows.num_rows())
        .map(|row| {
            let seq = sample::longs(&rows, "seq").value(row);
            (seq, sample::texts(&rows, "id").value(row).to_owned(), times.value(row))
        })
        .collect();
    assert_eq!(found, expected);
    let newest = *times.values().iter().max().unwrap();
    let count = async |since_us, seq_min| {
        rows_since(since_us, seq_min)
            .await
            .iter()
            .map(|part| part.ids.iter().count())
            .sum::<usize>()
    };
    assert_eq!((count(newest, 0).await, count(newest + 1, 0).await), (1, 0));
    assert_eq!((count(i64::MIN, 491).await, count(newest, 1_000).await), (10, 0));
}

#[tokio::test]
async fn nothing_is_flushed_before_the_interval_or_the_size() {
    let mut server = Server::start().await;
    server.append("a", &sample::events(10, 1, 1, 1));
    server.clock.advance_ms(3_000);
    assert_eq!(server.job.tick().await.unwrap(), Progress::Idle);
    assert_eq!(server.wal.pending().len(), 1);
    server.clock.advance_ms(1_900);
    server.job.tick().await.unwrap();
    assert!(server.wal.pending().is_empty(), "the snapshot is there before 5 s are over");
}

#[tokio::test]
async fn many_waiting_bytes_are_flushed_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::open(folder, Clock::manual(START_MS), "", 10_000).await;
    server.append("small", &sample::events(1, 1, 1, 1));
    server.append("large", &sample::events(200, 1, 1, 1));
    server.job.tick().await.unwrap();
    assert_eq!(server.snapshots("large").await, 1);
    assert_eq!(server.wal.pending().len(), 1);
}

#[tokio::test]
async fn a_failure_at_any_point_neither_loses_nor_repeats_rows() {
    for point in [
        "flush.before_write",
        "flush.after_data_file",
        "flush.before_commit",
        "flush.after_commit",
        "flush.before_trim",
    ] {
        let mut server = Server::start_with(&format!("{point}=error")).await;
        server.append("a", &sample::events(30, 1, 1, 1));
        let error = server.tick().await.unwrap_err();
        let FlushError::Table { table, source } = error else { panic!("{error:?}") };
        assert_eq!(table, "a.events");
        assert!(matches!(*source, FlushError::Fault(_)), "{source:?}");
        assert_eq!(server.wal.pending().len(), 1, "{point}");
        server.append("a", &sample::events(30, 1, 31, 2));
        server.tick().await.unwrap();
        server.tick().await.unwrap();
        assert!(server.wal.pending().is_empty(), "{point}");
        assert_eq!(server.seqs("a").await, (1..=60).collect::<Vec<_>>(), "{point}");
        let named = named_files(&server, "a").await;
        assert_eq!(server.data_files(), named, "{point} leaves files behind");
    }
}

async fn named_files(server: &Server, ns: &str) -> usize {
    let table = server.load(ns, "events").await;
    let snapshot = table.metadata.current_snapshot().unwrap();
    snapshot.summary().additional_properties["total-data-files"].parse().unwrap()
}

#[tokio::test]
async fn files_of_a_commit_whose_outcome_is_unknown_stay() {
    let mut server = Server::start_with("flush.lost_answer=error").await;
    server.append("a", &sample::events(30, 1, 1, 1));
    let error = server.tick().await.unwrap_err();
    let FlushError::Table { source, .. } = error else { panic!("{error:?}") };
    let is_unknown = matches!(*source, FlushError::Commit(CatalogError::CommitStateUnknown(_)));
    assert!(is_unknown, "{source:?}");
    assert_eq!(server.data_files(), named_files(&server, "a").await);
    server.tick().await.unwrap();
    assert!(server.wal.pending().is_empty());
    assert_eq!(server.seqs("a").await, (1..=30).collect::<Vec<_>>());
    assert_eq!(server.snapshots("a").await, 1);
}

#[tokio::test]
async fn rows_stay_in_the_log_while_the_metastore_file_that_has_their_commit_is_gone() {
    let mut server = Server::start_with("flush.before_trim=error").await;
    server.append("a", &sample::events(30, 1, 1, 1));
    server.tick().await.unwrap_err();
    assert_eq!(server.snapshots("a").await, 1);
    let file = server.folder.path().join("icecore.db");
    let aside = file.with_extension("aside");
    std::fs::rename(&file, &aside).unwrap();
    // A connection that is open reads all the same that the table has them all.
    let error = server.tick().await.unwrap_err();
    let FlushError::Table { source, .. } = error else { panic!("{error:?}") };
    let is_of_metastore = matches!(*source, FlushError::Commit(CatalogError::Metastore { .. }));
    assert!(is_of_metastore, "{source:?}");
    assert_eq!(server.wal.pending().len(), 1);
    std::fs::rename(&aside, &file).unwrap();
    server.tick().await.unwrap();
    server.tick().await.unwrap();
    assert!(server.wal.pending().is_empty());
    assert_eq!(server.snapshots("a").await, 1);
}

#[tokio::test]
async fn a_crash_between_commit_and_trim_repeats_nothing() {
    let mut server = Server::start_with("flush.before_trim=error").await;
    server.append("a", &sample::events(30, 2, 1, 1));
    server.tick().await.unwrap_err();
    assert_eq!(server.snapshots("a").await, 1);
    let mut server = server.restart().await;
    assert_eq!(server.wal.pending().len(), 1);
    server.tick().await.unwrap();
    assert!(server.wal.pending().is_empty());
    assert_eq!(server.snapshots("a").await, 1);
    assert_eq!(server.seqs("a").await, (1..=30).collect::<Vec<_>>());
    let position = server.append("a", &sample::events(10, 2, 31, 2));
    assert!(server.load("a", "events").await.watermark.unwrap().position < position);
    server.tick().await.unwrap();
    assert_eq!(server.seqs("a").await, (1..=40).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_watermark_of_another_log_skips_no_record() {
    let mut server = Server::start().await;
    server.append("a", &sample::events(30, 2, 1, 1));
    server.append("a", &sample::events(20, 2, 31, 2));
    server.tick().await.unwrap();
    let held = server.load("a", "events").await.watermark.unwrap();
    let mut server = server.with_new_log(LogOwnership::of_epochs(2, 2)).await;
    let position = server.append("a", &sample::events(10, 2, 51, 3));
    assert!(position < held.position);
    server.tick().await.unwrap();
    assert_eq!(server.seqs("a").await, (1..=60).collect::<Vec<_>>());
    assert!(server.wal.pending().is_empty());
    let watermark = server.load("a", "events").await.watermark.unwrap();
    assert_eq!((watermark.epoch, watermark.position), (2, position));
}

#[tokio::test]
async fn a_watermark_of_a_later_owner_trims_no_record() {
    let mut server = Server::start().await.with_new_log(LogOwnership::of_epochs(2, 2)).await;
    server.append("a", &sample::events(30, 2, 1, 1));
    server.append("a", &sample::events(20, 2, 31, 2));
    server.tick().await.unwrap();
    let mut server = server.with_new_log(LogOwnership::of_epochs(0, 1)).await;
    server.append("a", &sample::events(10, 2, 51, 3));
    let error = server.tick().await.unwrap_err();
    let FlushError::Table { source, .. } = error else { panic!("{error:?}") };
    assert!(matches!(*source, FlushError::Deposed), "{source:?}");
    assert_eq!(server.wal.pending().len(), 1);
    assert_eq!(server.seqs("a").await, (1..=50).collect::<Vec<_>>());
}

#[tokio::test]
async fn records_wait_through_a_crash_before_the_commit() {
    let mut server = Server::start_with("flush.before_commit=error").await;
    server.append("a", &sample::events(30, 2, 1, 1));
    server.tick().await.unwrap_err();
    let mut server = server.restart().await;
    server.tick().await.unwrap();
    assert_eq!(server.seqs("a").await, (1..=30).collect::<Vec<_>>());
}

/// The table as version 0.1 made it.
async fn old_table(server: &Server, new: icecore_catalog::catalog::CreateTable) {
    let mut old = new;
    old.sort_order = old.file_order.take();
    if old.name == "events" {
        for column in ["id", "key", "bookmark"] {
            let key = format!("write.parquet.bloom-filter-enabled.column.{column}");
            old.properties.insert(key, "true".to_owned());
        }
    }
    let text = [("icecore.ns".to_owned(), "a".to_owned())].into();
    let levels = vec!["a".to_owned()];
    server.catalog.namespaces().ensure(&levels, &text).await.unwrap();
    server.catalog.tables().create(&levels, old).await.unwrap();
}

#[tokio::test]
async fn a_table_of_version_0_1_is_brought_up_to_date_by_its_first_commit() {
    let mut server = Server::start().await;
    old_table(&server, sample::events_table()).await;
    old_table(&server, sample::dead_letters_table()).await;
    server.append("a", &sample::events(5, 1, 1, 1));
    server.dead_letters("a", &sample::dead_letters(3, 1), 1);
    server.tick().await.unwrap();
    for (name, new) in
        [("events", sample::events_table()), ("dead_letters", sample::dead_letters_table())]
    {
        let table = server.load("a", name).await.metadata;
        assert!(table.default_sort_order().is_unsorted(), "{name}");
        assert_eq!(table.properties(), &new.properties, "{name}");
        let order = schema::file_order(&table);
        assert_eq!((order.order_id, &order.fields), (1, &new.file_order.unwrap().fields), "{name}");
        assert_eq!(table.current_snapshot().unwrap().sequence_number(), 1, "one commit did both");
    }
    // A new table is the same from the start, and what its owner changes later stays.
    server.append("b", &sample::events(5, 1, 1, 1));
    server.tick().await.unwrap();
    let made = server.load("b", "events").await.metadata;
    assert!(made.default_sort_order().is_unsorted());
    assert_eq!(schema::file_order(&made).order_id, 1);
    let key = "write.parquet.bloom-filter-enabled.column.id".to_owned();
    let change = icecore_catalog::catalog::TableChange {
        table: schema::ident(&namespace("b"), "events"),
        requirements: Vec::new(),
        updates: vec![iceberg::TableUpdate::SetProperties {
            updates: [(key.clone(), "true".to_owned())].into(),
        }],
        keeps_history: false,
    };
    server.catalog.commit(change).await.unwrap();
    server.append("b", &sample::events(5, 1, 6, 1));
    server.tick().await.unwrap();
    assert_eq!(server.load("b", "events").await.metadata.properties()[&key], "true");
}

#[tokio::test]
async fn a_table_that_fails_does_not_hold_up_the_others_and_pauses() {
    let mut server = Server::start().await;
    server.append("a.b", &sample::events(5, 1, 1, 1));
    server.tick().await.unwrap();
    // The same catalog name: the first namespace owns it.
    server.append("a_b", &sample::events(5, 1, 1, 1));
    server.append("c", &sample::events(5, 1, 1, 1));
    let error = server.tick().await.unwrap_err();
    let FlushError::Table { source, .. } = error else { panic!("{error:?}") };
    assert!(matches!(*source, FlushError::NamespaceTaken { .. }), "{source:?}");
    assert_eq!(server.seqs("c").await, [1, 2, 3, 4, 5]);
    assert_eq!(server.seqs("a.b").await, [1, 2, 3, 4, 5]);
    assert_eq!(server.wal.pending()[0].namespace, namespace("a_b"));
    assert_eq!(server.job.tick().await.unwrap(), Progress::Idle, "the table pauses");
    server.tick().await.unwrap_err();
}

#[tokio::test]
async fn a_commit_that_failed_is_tried_in_smaller_parts() {
    let mut server = Server::start_with("flush.before_write=error").await;
    for (first, seed) in [(1, 1), (201, 2), (401, 3), (601, 4)] {
        server.append("a", &sample::events(200, 1, first, seed));
    }
    let sizes: Vec<u32> = server
        .wal
        .records(RecordKind::Events, &namespace("a"), 0)
        .iter()
        .map(|record| record.length)
        .collect();
    // One fits into the least that a commit is cut to, two do not, and all four do after a success.
    assert!(sizes.iter().all(|size| (131_072..262_144).contains(size)), "{sizes:?}");
    server.tick().await.unwrap_err();
    assert_eq!(server.tick().await.unwrap(), Progress::More);
    assert_eq!(server.seqs("a").await, (1..=200).collect::<Vec<_>>());
    assert_eq!(server.tick().await.unwrap(), Progress::Done);
    assert_eq!(server.snapshots("a").await, 2);
    assert_eq!(server.seqs("a").await, (1..=800).collect::<Vec<_>>());
}

#[tokio::test]
async fn many_namespaces_are_flushed_by_their_own_tables() {
    let mut server = Server::start().await;
    let group: Vec<LogRecord> = (0..70)
        .map(|n| event_record(&format!("tenant-{n}"), &sample::events(3, 1, 1, n), 1))
        .collect();
    server.writer.append(&group).unwrap();
    assert_eq!(server.tick().await.unwrap(), Progress::More);
    assert_eq!(server.job.tick().await.unwrap(), Progress::Done);
    assert!(server.wal.pending().is_empty());
    for n in [0, 33, 69] {
        assert_eq!(server.seqs(&format!("tenant-{n}")).await, [1, 2, 3]);
    }
    let properties = server.catalog.metastore().namespace(&vec!["tenant_5".to_owned()]).await;
    assert_eq!(properties.unwrap().unwrap()["icecore.ns"], "tenant-5");
}

/// Files of the warehouse whose path holds this text.
fn files_with(server: &Server, text: &str) -> usize {
    fn count(folder: &std::path::Path, text: &str) -> usize {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let found = |path: std::path::PathBuf| match path.is_dir() {
            true => count(&path, text),
            false => usize::from(path.to_str().unwrap().contains(text)),
        };
        entries.map(found).sum()
    }
    count(&server.folder.path().join("warehouse"), text)
}

#[tokio::test]
async fn a_new_namespace_costs_one_metadata_file_a_transaction_at_most_and_ten_syncs() {
    const NAMESPACES: usize = 100;
    let mut server = Server::start().await;
    let record = |n: usize| event_record(&format!("n{n}"), &sample::events(1, 1, 1, 1), 1);
    server.writer.append(&(0..NAMESPACES).map(record).collect::<Vec<_>>()).unwrap();
    let costs = |server: &Server| {
        (server.catalog.metastore().transactions(), server.catalog.storage().syncs())
    };
    let before = costs(&server);
    while server.tick().await.unwrap() == Progress::More {}
    assert!(server.wal.pending().is_empty());
    let after = costs(&server);
    let count = NAMESPACES as u64;
    assert!(after.0 - before.0 <= count, "{} transactions", after.0 - before.0);
    // Data file, manifest, list, metadata file; and the folders that they and their folders are in.
    assert_eq!(after.1 - before.1, 10 * count);
    assert_eq!(files_with(&server, "/metadata/"), 3 * NAMESPACES);
    assert_eq!(files_with(&server, "/metadata/00000-"), NAMESPACES);

    let more: Vec<LogRecord> = (0..NAMESPACES)
        .map(|n| event_record(&format!("n{n}"), &sample::events(1, 1, 2, 2), 2))
        .collect();
    server.writer.append(&more).unwrap();
    while server.tick().await.unwrap() == Progress::More {}
    let last = costs(&server);
    assert!(last.0 - after.0 <= count, "{} transactions", last.0 - after.0);
    // The files, their two folders, and the folder of a new folder of data files.
    assert!(last.1 - after.1 <= 7 * count, "{} syncs", last.1 - after.1);
    assert_eq!(server.seqs("n57").await, [1, 2]);
}

#[tokio::test]
async fn a_new_namespace_gets_both_of_its_tables_at_once() {
    let mut server = Server::start().await;
    server.append("a-b", &sample::events(3, 1, 1, 1));
    server.dead_letters("a-b", &sample::dead_letters(2, 1), 1);
    server.tick().await.unwrap();
    assert!(server.wal.pending().is_empty());
    assert_eq!(server.seqs("a-b").await, [1, 2, 3]);
    assert_eq!(server.scan("a-b", "dead_letters", None).await.num_rows(), 2);
    let made = server.catalog.metastore().events(0, 100).await.unwrap();
    let made = made.iter().filter(|event| event.operation["operation-type"] == "create-namespace");
    assert_eq!(made.count(), 1);
}

#[tokio::test]
async fn dead_letters_have_a_table_and_a_count_of_their_own() {
    let mut server = Server::start().await;
    server.dead_letters("a", &sample::dead_letters(12, 1), 1);
    server.tick().await.unwrap();
    assert_eq!(server.scan("a", "dead_letters", None).await.num_rows(), 12);
    let missing = server.catalog.tables().load(&schema::ident(&namespace("a"), "events")).await;
    assert!(matches!(missing, Err(CatalogError::NoSuchTable(_))));
}

#[tokio::test]
async fn a_namespace_that_another_engine_made_is_taken_over() {
    let mut server = Server::start().await;
    let levels = vec!["a".to_owned()];
    server.catalog.metastore().create_namespace(&levels, &[].into()).await.unwrap();
    server.append("a", &sample::events(1, 1, 1, 1));
    server.tick().await.unwrap();
    let properties = server.catalog.metastore().namespace(&levels).await.unwrap().unwrap();
    assert_eq!(properties["icecore.ns"], "a");
}

#[tokio::test]
async fn a_text_of_another_namespace_is_no_owner() {
    for wrong in ["vic", "", "___"] {
        let mut server = Server::start().await;
        let levels = vec!["evil".to_owned()];
        let noted = [("icecore.ns".to_owned(), wrong.to_owned())].into();
        server.catalog.metastore().create_namespace(&levels, &noted).await.unwrap();
        server.append("Evil", &sample::events(1, 1, 1, 1));
        server.tick().await.unwrap();
        let properties = server.catalog.metastore().namespace(&levels).await.unwrap().unwrap();
        assert_eq!(properties["icecore.ns"], "Evil");
    }
}

#[tokio::test]
async fn a_table_of_somebody_else_takes_no_rows() {
    // Columns are numbered anew when a table is made: without the later one none has the number of the last.
    let mut without_data = sample::events_table();
    let fields = without_data.schema.as_struct().fields().iter();
    let fields = fields.filter(|field| !["data", "patch"].contains(&&*field.name)).cloned();
    without_data.schema = iceberg::spec::Schema::builder().with_fields(fields).build().unwrap();
    let mut unmarked = sample::events_table();
    unmarked.properties.remove(schema::MANAGED);
    for (foreign, expected) in [(unmarked, schema::MANAGED), (without_data, "its column")] {
        let mut server = Server::start().await;
        let levels = vec!["a".to_owned()];
        server.catalog.namespaces().ensure(&levels, &[].into()).await.unwrap();
        let made = server.catalog.tables().create(&levels, foreign).await.unwrap();
        let through = server.append("a", &sample::events(3, 1, 1, 1));
        server.append("b", &sample::events(2, 1, 1, 1));
        let failed = server.tick().await.unwrap_err();
        let text = format!("{failed:?} {}", failed_text(&failed));
        assert!(text.contains(expected), "{text}");
        assert_eq!(server.seqs("b").await, [1, 2]);
        assert_eq!(server.load("a", "events").await.metadata, made.metadata);
        let (namespace, flush) = (namespace("a"), server.flush.clone());
        let (told, _) = tokio::join!(flush.commit_now(&namespace, through), server.job.tick());
        told.unwrap_err();
        server.catalog.metastore().drop_table(&levels, "events").await.unwrap();
        server.clock.advance_ms(60_000);
        server.tick().await.unwrap();
        assert_eq!(server.seqs("a").await, [1, 2, 3]);
    }
}

#[tokio::test]
async fn a_view_with_the_name_of_a_table_is_told() {
    let mut server = Server::start().await;
    let levels = vec!["a".to_owned()];
    server.catalog.namespaces().ensure(&levels, &[].into()).await.unwrap();
    let version = serde_json::json!({
        "version-id": 1, "timestamp-ms": 1, "schema-id": 0, "summary": {}, "default-namespace": ["a"],
        "representations": [{"type": "sql", "sql": "select 1", "dialect": "spark"}],
    });
    let view = icecore_catalog::catalog::CreateView {
        name: "events".to_owned(),
        schema: sample::events_table().schema,
        version: serde_json::from_value(version).unwrap(),
        location: None,
        properties: [].into(),
    };
    server.catalog.views().create(&levels, view).await.unwrap();
    server.append("a", &sample::events(3, 1, 1, 1));
    let text = failed_text(&server.tick().await.unwrap_err());
    assert!(text.contains("`a.events`") && text.contains("it is a view"), "{text}");
    server.catalog.views().drop(&schema::ident(&namespace("a"), "events")).await.unwrap();
    server.clock.advance_ms(60_000);
    server.tick().await.unwrap();
    assert_eq!(server.seqs("a").await, [1, 2, 3]);
}

fn failed_text(error: &FlushError) -> String {
    let first = Some(error as &dyn std::error::Error);
    let chain = std::iter::successors(first, |error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[tokio::test]
async fn a_dropped_table_is_made_again_for_what_comes_next() {
    let mut server = Server::start().await;
    server.append("a", &sample::events(3, 1, 1, 1));
    server.tick().await.unwrap();
    // The catalog refuses this to everybody.
    server.catalog.metastore().drop_table(&vec!["a".to_owned()], "events").await.unwrap();
    server.append("a", &sample::events(2, 1, 4, 2));
    server.tick().await.unwrap();
    assert_eq!(server.seqs("a").await, [4, 5]);
}

#[tokio::test]
async fn commit_now_returns_when_both_tables_are_committed() {
    let mut server = Server::start().await;
    server.append("a", &sample::events(3, 1, 1, 1));
    let through = server.dead_letters("a", &sample::dead_letters(2, 1), 1);
    let (namespace, flush) = (namespace("a"), server.flush.clone());
    let (result, ticked) = tokio::join!(flush.commit_now(&namespace, through), server.job.tick());
    ticked.unwrap();
    let events = server.load("a", "events").await.metadata.current_snapshot_id().unwrap();
    let dead = server.load("a", "dead_letters").await.metadata.current_snapshot_id().unwrap();
    assert_eq!(result.unwrap(), [(RecordKind::Events, events), (RecordKind::DeadLetters, dead)]);
}

#[tokio::test]
async fn commit_now_without_waiting_records_answers_at_once() {
    let mut server = Server::start().await;
    assert_eq!(server.flush.commit_now(&namespace("a"), 9).await.unwrap(), []);
    let through = server.append("a", &sample::events(3, 1, 1, 1));
    server.tick().await.unwrap();
    let snapshots = server.flush.commit_now(&namespace("a"), through).await.unwrap();
    let current = server.load("a", "events").await.metadata.current_snapshot_id().unwrap();
    assert_eq!(snapshots, [(RecordKind::Events, current)]);
}

#[tokio::test]
async fn commit_now_tells_of_the_attempt_that_failed() {
    let mut server = Server::start_with("flush.before_commit=error").await;
    let through = server.append("a", &sample::events(3, 1, 1, 1));
    let (namespace, flush) = (namespace("a"), server.flush.clone());
    let (result, ticked) = tokio::join!(flush.commit_now(&namespace, through), server.job.tick());
    ticked.unwrap_err();
    assert!(matches!(*result.unwrap_err(), FlushError::Fault(_)));
    // Asking again does not wait for the pause after the failure.
    let (result, ticked) = tokio::join!(flush.commit_now(&namespace, through), server.job.tick());
    assert_eq!((result.unwrap().len(), ticked.unwrap()), (1, Progress::Done));
}

#[tokio::test]
async fn commit_now_ends_with_the_job() {
    let mut server = Server::start().await;
    let through = server.append("a", &sample::events(3, 1, 1, 1));
    let (namespace, flush) = (namespace("a"), server.flush.clone());
    let job = server.job;
    let (result, ()) = tokio::join!(flush.commit_now(&namespace, through), async { drop(job) });
    assert!(matches!(*result.unwrap_err(), FlushError::Stopped));
    let late = flush.commit_now(&namespace, through).await;
    assert!(matches!(*late.unwrap_err(), FlushError::Stopped));
}

#[tokio::test]
async fn a_request_wakes_the_job() {
    let mut server = Server::start().await;
    let through = server.append("a", &sample::events(3, 1, 1, 1));
    let (flush, namespace) = (server.flush.clone(), namespace("a"));
    let wake = Arc::clone(&server.wake);
    let job = async {
        wake.notified().await;
        server.job.tick().await
    };
    let (result, ticked) = tokio::join!(flush.commit_now(&namespace, through), job);
    ticked.unwrap();
    assert_eq!(result.unwrap().len(), 1);
}

/// The others go on, and the log has room for them.
#[test]
fn a_table_whose_rows_come_out_differently_is_at_fault_itself() {
    let mut read = RowSum::default();
    read.add(7);
    let differ = FlushError::RowsDiffer { read, written: RowSum::default() };
    let told = FlushError::Table { table: "a.events".to_owned(), source: Arc::new(differ) };
    assert!(told.is_lasting() && told.of_storage().is_none());
}
