mod lookups;
mod plans;
mod refreshes;
mod travel;

use super::*;
use crate::owner::LogOwnership;
use arrow::{
    array::{ArrayRef, Int64Array, StringArray, TimestampMicrosecondArray, new_null_array},
    datatypes::SchemaRef,
    util::pretty::pretty_format_batches,
};
use futures::TryStreamExt;
use iceberg::{
    TableIdent, TableUpdate,
    spec::{
        DataContentType, DataFile, DataFileBuilder, DataFileFormat, ManifestListWriter,
        ManifestWriterBuilder, NestedField, Operation, PrimitiveType, Schema, Snapshot, Struct,
        Summary, Type,
    },
};
use icecore_catalog::{
    catalog::{CreateTable, LoadedTable, TableChange},
    metastore::{Metastore, Properties, Watermark},
    snapshot::{MarkMove, NewSnapshot},
    storage::{S3Options, Storage},
};
use icecore_lake::{
    clock::Clock,
    event::{codec, rows},
    faults::Failpoints,
    ids::IdGenerator,
    table::{schema, writer},
    wal::{LogRecord, WalOptions, WalWriter},
};
use icecore_schemas::{
    error_code::ErrorCode,
    names::Namespace,
    service_table::{DEAD_LETTERS_TABLE, RecordKind, ServiceTables},
};
use serde_json::json;
use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::Mutex,
};
use tempfile::TempDir;

const NOW_MS: i64 = 1_760_000_000_000;
const HOUR_US: i64 = 3_600_000_000;

fn levels(namespace: &Namespace) -> Vec<String> {
    vec![namespace.name().to_owned()]
}

/// A log, a catalog and queries over both; flushed by hand.
pub(super) struct House {
    _folder: TempDir,
    clock: Clock,
    wal: Wal,
    writer: Mutex<WalWriter>,
    pub(super) catalog: Catalog,
    pub(super) sql: Sql,
    pub(super) ns: Namespace,
}

impl House {
    pub(super) async fn new() -> Self {
        Self::with_faults(Failpoints::default()).await
    }

    async fn with_faults(faults: Failpoints) -> Self {
        let options = SqlOptions {
            memory_bytes_max: 256 << 20,
            timeout_max: Duration::from_secs(600),
            rows_max: 100_000,
            concurrent: SlotsMax { all: 4, namespace: 4, token: 4 },
            metrics: Metrics::default(),
            tables: ServiceTables::default(),
            filters_visibility: false,
            workers: None,
        };
        Self::open(options, faults).await
    }

    pub(super) async fn with(options: SqlOptions) -> Self {
        Self::open(options, Failpoints::default()).await
    }

    async fn open(options: SqlOptions, faults: Failpoints) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::manual(NOW_MS);
        let log = WalOptions {
            folder: folder.path().join("wal"),
            segment_bytes: 1 << 20,
            free_segments_max: 2,
            bytes_max: 1 << 30,
            disk_free_min: 0.0,
            position_floor: 0,
            metrics: Metrics::default(),
        };
        let (wal, writer) = Wal::open(log, clock.clone(), Failpoints::default()).unwrap();
        let root = format!("file://{}", folder.path().join("warehouse").display());
        let storage = Storage::open(&root, &S3Options::default()).unwrap();
        let metastore = Metastore::sqlite(&folder.path().join("m.db")).await.unwrap();
        let now = clock.clone();
        let catalog = Catalog::new("icecore", storage, metastore, Arc::new(move || now.now_ms()));
        let sql = Sql::new(options, wal.clone(), LogOwnership::first(), catalog.clone(), faults);
        let ns = Namespace::parse("shop.example").unwrap();
        Self { _folder: folder, clock, wal, writer: Mutex::new(writer), catalog, sql, ns }
    }

    /// Acknowledges events with these `seq`s: even ones of type `order`, odd ones `call`, one an
    /// hour.
    pub(super) fn take(&self, seqs: Range<u64>) {
        self.record(RecordKind::Events, &rows::event_schema(), seqs);
    }

    fn record(&self, kind: RecordKind, schema: &SchemaRef, seqs: Range<u64>) {
        let rows = sample(schema, seqs.clone());
        let record = LogRecord {
            kind,
            namespace: self.ns.clone(),
            first_seq: seqs.start,
            rows: u32::try_from(rows.num_rows()).unwrap(),
            payload: codec::encode(schema, &rows),
        };
        self.writer.lock().unwrap().append(&[record]).unwrap();
    }

    /// Commits what waits for `events` without trimming the log.
    pub(super) async fn commit(&self) -> LoadedTable {
        let levels = vec![self.ns.name().to_owned()];
        let named = Properties::from([("icecore.ns".to_owned(), self.ns.text().to_owned())]);
        self.catalog.namespaces().ensure(&levels, &named).await.unwrap();
        let ident = self.events();
        let table = match self.catalog.tables().load(&ident).await {
            Ok(table) => table,
            Err(_) => self
                .catalog
                .tables()
                .create(&levels, icecore_samples::events_table())
                .await
                .unwrap(),
        };
        let committed = table.watermark.map_or(0, |watermark| watermark.position);
        let waiting = self.wal.records(RecordKind::Events, &self.ns, committed);
        let stored = rows::event_schema();
        let batches = waiting.iter().map(|record| {
            codec::decode(&stored, &record.read().unwrap(), record.first_seq).unwrap()
        });
        let ids = IdGenerator::new(self.clock.clone());
        let files =
            writer::write(self.catalog.storage(), &table.metadata, batches.collect(), &ids).await;
        let last = waiting.last().unwrap();
        let last_seq = last.first_seq + u64::from(last.rows) - 1;
        let append = NewSnapshot {
            added: files.unwrap(),
            summary: BTreeMap::from([("icecore.last-seq".to_owned(), last_seq.to_string())]),
            mark: Some(MarkMove {
                watermark: Watermark { epoch: 1, position: last.position, last_seq },
                since: 0,
            }),
            ..NewSnapshot::default()
        };
        let table = self.catalog.add_snapshot(&ident, append).await.unwrap();
        self.clock.advance_ms(1_000);
        table
    }

    pub(super) fn trim(&self) {
        self.wal.trim(RecordKind::Events, &self.ns, u64::MAX).unwrap();
    }

    fn events(&self) -> TableIdent {
        schema::ident(&self.ns, EVENTS_TABLE)
    }

    async fn ask(&self, request: SqlRequest) -> Result<Vec<RecordBatch>, SqlError> {
        let answer =
            self.sql.query(&levels(&self.ns), QueryScope::Namespace, None, request).await?;
        answer.batches.try_collect().await
    }

    async fn text(&self, request: SqlRequest) -> String {
        let batches = self.ask(request).await.unwrap();
        pretty_format_batches(&batches).unwrap().to_string()
    }

    async fn shown(&self, sql: &str) -> String {
        self.text(asked(sql)).await
    }

    /// The only value of the only row.
    async fn number(&self, request: SqlRequest) -> i64 {
        let batches = self.ask(request).await.unwrap();
        let batch = batches.iter().find(|batch| 0 < batch.num_rows()).unwrap();
        assert_eq!((batch.num_rows(), batch.num_columns()), (1, 1));
        arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(batch.column(0)).value(0)
    }

    async fn count(&self, sql: &str) -> i64 {
        self.number(asked(sql)).await
    }

    async fn check_refused(&self, request: SqlRequest, expected: &str) {
        let sql = request.sql.clone();
        let error = self.ask(request).await.unwrap_err();
        assert!(format!("{error:?}").contains(expected), "`{sql}` failed with {error:?}");
    }

    /// How many Parquet files a query would read.
    async fn files(&self, sql: &str) -> usize {
        self.shown(&format!("EXPLAIN {sql}")).await.matches(".parquet").count()
    }
}

fn asked(sql: &str) -> SqlRequest {
    SqlRequest { sql: sql.to_owned(), ..SqlRequest::default() }
}

fn at(sql: &str, as_of: serde_json::Value) -> SqlRequest {
    SqlRequest { as_of: Some(as_of), ..asked(sql) }
}

/// Rows whose required columns tell them apart.
fn sample(schema: &SchemaRef, seqs: Range<u64>) -> RecordBatch {
    let rows = usize::try_from(seqs.end - seqs.start).unwrap();
    let text = |make: &dyn Fn(u64) -> String| -> ArrayRef {
        Arc::new(seqs.clone().map(|n| Some(make(n))).collect::<StringArray>())
    };
    let columns = schema.fields().iter().map(|field| match field.name().as_str() {
        "id" => text(&|n| format!("e-{n}")),
        "type" => text(&|n| if n % 2 == 0 { "order" } else { "call" }.to_owned()),
        "seq" => Arc::new(seqs.clone().map(|n| i64::try_from(n).unwrap()).collect::<Int64Array>()),
        "key" => text(&|n| format!("k{}", n % 10)),
        // Files of the other type lack the column.
        "actor" => {
            let actors = seqs.clone().map(|n| (n % 2 == 0).then(|| format!("a{}", n % 10)));
            Arc::new(actors.collect::<StringArray>())
        }
        "ts" | "ingested_at" | "received_at" => {
            let times = seqs.clone().map(|n| NOW_MS * 1000 + i64::try_from(n).unwrap() * HOUR_US);
            Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("+00:00"))
        }
        _ if !field.is_nullable() => text(&|n| format!("x{n}")),
        _ => new_null_array(field.data_type(), rows),
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect()).unwrap()
}

const EVERY: &str = "SELECT count(*) * 1000000 + count(DISTINCT id) * 1000 + max(seq) FROM events";

#[tokio::test]
async fn a_row_is_seen_once_in_the_log_in_both_and_in_the_snapshot_alone() {
    let house = House::new().await;
    house.take(1..11);
    assert_eq!(house.count(EVERY).await, 10_010_010, "in the log alone");
    house.commit().await;
    assert_eq!(house.count(EVERY).await, 10_010_010, "committed but not trimmed");
    house.trim();
    assert_eq!(house.count(EVERY).await, 10_010_010, "in the snapshot alone");
    house.take(11..16);
    assert_eq!(house.count(EVERY).await, 15_015_015, "in both");
    house.commit().await;
    house.trim();
    house.take(16..18);
    let rows =
        house.shown("SELECT seq, id, type, ns FROM events WHERE 13 < seq ORDER BY seq").await;
    expect_test::expect![[r#"
        +-----+------+-------+-----+
        | seq | id   | type  | ns  |
        +-----+------+-------+-----+
        | 14  | e-14 | order | x14 |
        | 15  | e-15 | call  | x15 |
        | 16  | e-16 | order | x16 |
        | 17  | e-17 | call  | x17 |
        +-----+------+-------+-----+"#]]
    .assert_eq(&rows);
}

#[tokio::test]
async fn an_answer_goes_on_while_its_records_are_committed_and_trimmed() {
    let house = House::new().await;
    for n in 1..200 {
        house.take(n..n + 1);
    }
    let answer = house
        .sql
        .query(&levels(&house.ns), QueryScope::Namespace, None, asked("SELECT id FROM events"))
        .await
        .unwrap();
    house.commit().await;
    house.trim();
    // Without the pin these would overwrite the trimmed segment.
    for n in 200..400 {
        house.take(n..n + 1);
    }
    let batches: Vec<RecordBatch> = answer.batches.try_collect().await.unwrap();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 199);
}

#[tokio::test]
async fn rows_that_are_committed_and_trimmed_while_a_view_is_taken_are_in_it() {
    let house = House::new().await;
    house.take(1..11);
    house.commit().await;
    for round in 0..20_u64 {
        let first = 11 + round * 10;
        house.take(first..first + 10);
        let move_on = async {
            house.commit().await;
            house.trim();
        };
        // Both are polled in turn, so the view is taken at every stage of the commit.
        let (count, ()) = tokio::join!(house.count("SELECT count(*) FROM events"), move_on);
        assert_eq!(count, i64::try_from(first + 9).unwrap(), "round {round}");
    }
}

#[tokio::test]
async fn rows_that_are_committed_and_trimmed_between_listing_and_loading_are_seen_once() {
    let (faults, meeting) = Failpoints::meeting("sql.after_list");
    let house = House::with_faults(faults).await;
    house.take(1..11);
    let meet = async || {
        let meeting = Arc::clone(&meeting);
        tokio::task::spawn_blocking(move || meeting.wait()).await.unwrap();
    };
    let move_on = async {
        meet().await;
        house.commit().await;
        house.trim();
        meet().await;
    };
    let (seen, ()) = tokio::join!(house.count(EVERY), move_on);
    assert_eq!(seen, 10_010_010);
}

#[tokio::test]
async fn a_filter_leaves_out_files_by_partition_and_bounds() {
    let house = House::new().await;
    house.take(1..100);
    house.commit().await;
    house.trim();
    assert_eq!(house.files("SELECT id FROM events").await, 10, "two types, five days");
    assert_eq!(house.files("SELECT id FROM events WHERE type = 'call'").await, 5);
    assert_eq!(house.files("SELECT id FROM events WHERE type IN ('a', 'b')").await, 0);
    assert_eq!(house.files("SELECT id FROM events WHERE type = 'call' AND seq = 3").await, 1);
    assert_eq!(house.files("SELECT id FROM events WHERE seq BETWEEN 3 AND 4").await, 2);
    assert_eq!(house.files("SELECT id FROM events WHERE user_id IS NOT NULL").await, 0);
    assert_eq!(house.files("SELECT id FROM events WHERE user_id = 'u'").await, 0);
    let day = "SELECT id FROM events WHERE ts < '2025-10-10' AND type = 'order'";
    assert_eq!(house.files(day).await, 1);
    assert_eq!(house.count("SELECT count(*) FROM events WHERE seq BETWEEN 3 AND 7").await, 5);
    assert_eq!(house.count("SELECT count(*) FROM events WHERE id = 'e-77'").await, 1);
    assert_eq!(house.count("SELECT count(*) FROM events WHERE id LIKE '%-1_'").await, 10);
}

#[tokio::test]
async fn a_condition_selects_the_same_rows_of_the_log_and_of_files_that_are_left_out_by_it() {
    let house = House::new().await;
    house.take(1..60);
    let mut expected = Vec::new();
    for condition in CONDITIONS {
        let sql = format!("SELECT count(*) FROM events WHERE {condition}");
        expected.push((sql.clone(), house.count(&sql).await));
    }
    house.commit().await;
    house.trim();
    for (sql, expected) in expected {
        assert_eq!(house.count(&sql).await, expected, "{sql}");
    }
    let all = house.files("SELECT id FROM events").await;
    for condition in &CONDITIONS[..PRUNING] {
        let read = house.files(&format!("SELECT id FROM events WHERE {condition}")).await;
        assert!(read < all, "{condition} reads {read} of {all} files");
    }
}

/// How many of the conditions leave out files.
const PRUNING: usize = 14;
const CONDITIONS: [&str; 30] = [
    "type = 'call'",
    "'call' = type AND seq < 20",
    "type <> 'call'",
    "NOT (type = 'call' OR seq > 40)",
    "type LIKE 'ca%'",
    "type NOT LIKE 'ca%'",
    "seq BETWEEN 5 AND 9",
    "seq IN (3, 4, 50)",
    "seq > 40.5",
    "CAST(ts AS DATE) = DATE '2025-10-10'",
    "ts >= TIMESTAMP '2025-10-10 12:00:00' AND ts < TIMESTAMP '2025-10-11'",
    "ts < '2025-10-10T06:30:00+02:00'",
    "type = 'order' AND (seq = 8 OR seq = 30)",
    "user_id IS NOT NULL",
    "user_id IS NULL",
    "user_id = 'u' OR seq = 7",
    "NOT (user_id = 'u')",
    "coalesce(user_id, 'u') = 'u'",
    "seq % 2 = 0",
    "NOT (seq % 2 = 0 AND type = 'order')",
    "length(id) = 3 OR type = 'call'",
    "type IN ('call', id)",
    "key LIKE 'k_' AND key NOT LIKE '%3'",
    "key ILIKE 'K3'",
    "NOT (key LIKE 'k3%x')",
    "date_trunc('day', ts) = TIMESTAMP '2025-10-10'",
    "seq = 5 IS NOT TRUE",
    "CASE WHEN seq < 10 THEN type = 'call' ELSE false END",
    "-seq > -10",
    "id >= 'e-5' AND id < 'e-6' OR id = 'e-1'",
];

#[tokio::test]
async fn counting_a_committed_table_reads_no_file() {
    let house = House::new().await;
    house.take(1..50);
    house.commit().await;
    house.trim();
    assert_eq!(house.files("SELECT count(*) FROM events").await, 0);
    assert_eq!(house.count("SELECT count(*) FROM events").await, 49);
    assert!(0 < house.files("SELECT count(*) FROM events WHERE id <> ''").await);
}

#[tokio::test]
async fn a_filter_runs_in_the_reader_once_and_nowhere_else() {
    let house = House::new().await;
    house.take(1..50);
    house.commit().await;
    house.trim();
    let plan = house.shown("EXPLAIN SELECT * FROM events WHERE key = 'k3'").await;
    assert!(!plan.contains("FilterExec"), "{plan}");
    assert!(plan.contains(" predicate=key@15 = k3, "), "{plan}");
    // Nothing but the filter's column is read, so the reader would save nothing.
    let plan = house.shown("EXPLAIN SELECT key FROM events WHERE key = 'k3'").await;
    assert!(plan.contains("FilterExec"), "{plan}");
    assert!(plan.contains(" predicate=key@15 = k3"), "{plan}");
    assert_eq!(house.count("SELECT count(*) FROM events WHERE key = 'k3'").await, 5);
    assert_eq!(house.count("SELECT count(*) FROM events WHERE key = 'k3' AND seq > 20").await, 3);
}

#[tokio::test]
async fn filters_hold_for_files_that_lack_a_column_because_it_is_empty() {
    let house = House::new().await;
    house.take(1..51);
    house.commit().await;
    house.trim();
    for (filter, expected) in [
        ("actor = 'a4'", 5),
        ("actor <> 'a4'", 20),
        ("NOT (actor = 'a4')", 20),
        ("actor IS NULL", 25),
        ("actor IS NOT NULL", 25),
        ("actor IS DISTINCT FROM 'a4'", 45),
        ("actor IS NULL AND type = 'call' AND seq > 40", 5),
        ("actor = 'a4' OR key = 'k3'", 10),
        ("actor IS NULL OR actor LIKE '%4'", 30),
        ("coalesce(actor, id) = 'e-7'", 1),
        ("coalesce(actor, key) IN ('a4', 'k7')", 10),
        ("actor < key", 25),
        ("user_id IS NULL", 50),
        ("user_id = 'u' OR seq = 3", 1),
        ("user_id IS NULL AND actor = 'a4'", 5),
        ("seq IN (SELECT max(seq) FROM events WHERE actor IS NULL)", 1),
    ] {
        let sql = format!("SELECT count(*) FROM events WHERE {filter}");
        assert_eq!(house.count(&sql).await, expected, "{filter}");
    }
    let rows = "SELECT seq, actor, user_id FROM events ORDER BY actor DESC NULLS LAST, seq LIMIT 2";
    expect_test::expect![[r#"
        +-----+-------+---------+
        | seq | actor | user_id |
        +-----+-------+---------+
        | 8   | a8    |         |
        | 18  | a8    |         |
        +-----+-------+---------+"#]]
    .assert_eq(&house.shown(rows).await);
    let pairs = "SELECT count(*) FROM events a JOIN events b ON a.actor = b.actor WHERE b.seq < 11";
    assert_eq!(house.count(pairs).await, 25);
}

#[tokio::test]
async fn time_travel_shows_a_snapshot_and_nothing_of_the_log() {
    let house = House::new().await;
    house.take(1..11);
    let first = house.commit().await.metadata.current_snapshot_id().unwrap();
    house.take(11..31);
    let second = house.commit().await.metadata.current_snapshot_id().unwrap();
    house.take(31..36);
    let count = "SELECT count(*) FROM events";
    let check = async |as_of: serde_json::Value, expected: i64| {
        assert_eq!(house.number(at(count, as_of.clone())).await, expected, "{as_of}");
    };
    check(json!(first), 10).await;
    check(json!(first.to_string()), 10).await;
    check(json!(second), 30).await;
    check(json!("main"), 30).await;
    let time =
        |ms: i64| json!(chrono::DateTime::from_timestamp_millis(NOW_MS + ms).unwrap().to_rfc3339());
    check(time(1), 10).await;
    check(time(999), 10).await;
    check(time(1_000), 30).await;
    check(time(6_000), 30).await;
    house.check_refused(at(count, time(1_000_000)), "in the future").await;
    house.check_refused(at(count, time(-1)), "NotFound").await;
    house
        .check_refused(at(count, json!(42)), "NotFound(\"table `events` has no snapshot 42\")")
        .await;
    house.check_refused(at(count, json!("nobody")), "NotFound").await;
    let answer = house
        .sql
        .query(&levels(&house.ns), QueryScope::Namespace, None, at(count, json!(first)))
        .await
        .unwrap();
    assert_eq!(answer.snapshot, Some(first));
}

#[tokio::test]
async fn a_snapshot_that_names_no_schema_is_read_with_todays() {
    let house = House::new().await;
    house.take(1..11);
    let metadata = house.commit().await.metadata;
    let current = metadata.current_snapshot().unwrap();
    let snapshot = |id: i64, parent: i64| {
        Snapshot::builder()
            .with_snapshot_id(id)
            .with_parent_snapshot_id(Some(parent))
            .with_sequence_number(metadata.last_sequence_number() + id)
            .with_timestamp_ms(house.clock.now_ms() + id)
            .with_manifest_list(current.manifest_list())
            .with_summary(Summary {
                operation: Operation::Append,
                additional_properties: HashMap::new(),
            })
            .build()
    };
    add_to_main(&house, snapshot(1, current.snapshot_id())).await;
    add_to_main(&house, snapshot(2, 1)).await;
    house.take(11..13);
    let count = "SELECT count(*) FROM events WHERE type = 'order'";
    assert_eq!(house.number(asked(count)).await, 6);
    for id in [1, 2] {
        assert_eq!(house.number(at(count, json!(id))).await, 5, "{id}");
    }
}

#[tokio::test]
async fn dead_letters_are_a_table_like_any_other() {
    let house = House::new().await;
    house.take(1..3);
    assert_eq!(house.count("SELECT count(*) FROM dead_letters").await, 0);
    house.record(RecordKind::DeadLetters, &rows::dead_letter_schema(), 1..4);
    let rows = house.shown("SELECT id, reason FROM dead_letters ORDER BY id").await;
    assert!(rows.contains("e-3") && rows.contains("x3"), "{rows}");
    assert_eq!(house.count("SELECT count(*) FROM events").await, 2);
}

#[tokio::test]
async fn a_catalog_name_finds_the_rows_of_its_owner() {
    let house = House::new().await;
    house.take(1..4);
    let by_name = Namespace::parse("shop_example").unwrap();
    let count = async || {
        let answer = house
            .sql
            .query(&levels(&by_name), QueryScope::Namespace, None, asked("SELECT id FROM events"))
            .await
            .unwrap();
        let batches: Vec<RecordBatch> = answer.batches.try_collect().await.unwrap();
        batches.iter().map(RecordBatch::num_rows).sum::<usize>()
    };
    assert_eq!(count().await, 3);
    house.commit().await;
    house.take(4..6);
    assert_eq!(count().await, 5);
}

#[tokio::test]
async fn only_the_namespace_is_visible() {
    let house = House::new().await;
    house.check_refused(asked("SELECT * FROM events"), "NoNamespace").await;
    assert_eq!(house.count("SELECT 1").await, 1);
    house.take(1..4);
    let unknown = "table `orders` does not exist in namespace `shop.example`; it has `dead_letters`, `events`";
    house.check_refused(asked("SELECT * FROM orders"), unknown).await;
    house.check_refused(asked("SELECT * FROM other.events"), "outside namespace").await;
    house.check_refused(asked("SELECT * FROM cat.shop_example.events"), "outside").await;
    house.check_refused(asked("SELECT * FROM '/etc/passwd'"), "Invalid").await;
    assert_eq!(house.count("SELECT count(*) FROM shop_example.events").await, 3);
    assert_eq!(house.count("SELECT count(*) FROM icecore.shop_example.events").await, 3);
    let tables = house.shown("SHOW TABLES").await;
    assert!(tables.contains(DEAD_LETTERS_TABLE) && tables.contains(EVENTS_TABLE), "{tables}");
    for (sql, listed) in
        [("SHOW TABLES LIKE 'ev%'", [true, false]), ("SHOW TABLES ILIKE '%LETTERS'", [false, true])]
    {
        let tables = house.shown(sql).await;
        let found = [EVENTS_TABLE, DEAD_LETTERS_TABLE].map(|name| tables.contains(name));
        assert_eq!(found, listed, "{sql}: {tables}");
    }
    let columns = house.shown("SHOW COLUMNS FROM events").await;
    assert!(columns.contains("ingested_at"), "{columns}");
    assert!(house.shown("DESCRIBE events").await.contains("ingested_at"));
}

#[tokio::test]
async fn params_limit_and_min_seq_hold() {
    let house = House::new().await;
    house.take(1..31);
    house.commit().await;
    house.take(31..41);
    let sql = "SELECT count(*) FROM events WHERE seq > $1 AND type = $2";
    let request = SqlRequest { params: vec![json!(20), json!("call")], ..asked(sql) };
    assert_eq!(house.number(request).await, 10);
    house.check_refused(asked("SELECT $1"), "Invalid").await;
    let request = SqlRequest { params: vec![json!(1), json!(2)], ..asked("SELECT $1") };
    house.check_refused(request, "params has 2 values, and the statement names 1").await;
    let all = SqlRequest { limit: Some(u64::MAX), ..asked("SELECT 1") };
    assert_eq!(house.number(all).await, 1);
    let request = SqlRequest { params: vec![json!({})], ..asked("SELECT $1") };
    house.check_refused(request, "params must be").await;

    let limited = |sql: &str| SqlRequest { limit: Some(7), ..asked(sql) };
    let rows = house.ask(limited("SELECT id FROM events ORDER BY seq DESC")).await.unwrap();
    assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 7);
    house.ask(limited("EXPLAIN SELECT id FROM events")).await.unwrap();

    let since = |seq| SqlRequest { min_seq: Some(seq), ..asked("SELECT 1") };
    // It is waited for, as long as the query may take.
    let hurried = |seq| SqlRequest { timeout_ms: Some(100), ..since(seq) };
    house.ask(since(40)).await.unwrap();
    house
        .check_refused(
            hurried(41),
            "min_seq 41 is not readable yet: the query sees events up to 40",
        )
        .await;
    // So many may wait; one that need not is answered all the same.
    let taken = u32::try_from(min_seq::SEQ_WAITS_MAX).unwrap();
    let waiting = house.sql.inner.seq_waits.try_acquire_many(taken).unwrap();
    house.check_refused(since(41), "Busy(\"64 queries already wait").await;
    house.ask(since(40)).await.unwrap();
    drop(waiting);
    let past = SqlRequest { min_seq: Some(31), ..at("SELECT 1", json!("main")) };
    house.check_refused(past, "sees events up to 30").await;
}

#[tokio::test]
async fn a_query_over_a_limit_ends_with_an_error_and_the_next_one_runs() {
    let house = House::with(SqlOptions {
        memory_bytes_max: 2 << 20,
        timeout_max: Duration::from_secs(60),
        rows_max: 50,
        concurrent: SlotsMax { all: 1, namespace: 1, token: 1 },
        metrics: Metrics::default(),
        tables: ServiceTables::default(),
        filters_visibility: false,
        workers: None,
    })
    .await;
    house.take(1..101);
    house
        .check_refused(asked("SELECT id FROM events"), "Limit(\"the answer has more than 50")
        .await;
    let pairs =
        "SELECT a.id || b.id AS x FROM events a, events b, events c ORDER BY x LIMIT 500000";
    house.check_refused(asked(pairs), "Limit(\"the query needs more memory").await;
    // The views of these texts alone would fit.
    let from = "FROM (SELECT a.id || b.id || repeat('x', 20) AS x, a.seq % 2 AS g \
                FROM events a, events b, (VALUES (1), (2), (3), (4)) c(v)) t";
    for collected in ["array_agg(x)", "array_agg(x ORDER BY x)", "string_agg(x, ',')"] {
        for grouped in ["", "GROUP BY g"] {
            let one = format!("SELECT {collected} {from} {grouped}");
            house.check_refused(asked(&one), "Limit(\"the query needs more memory").await;
        }
    }
    assert_eq!(
        house.count("SELECT CAST(cardinality(array_agg(id)) AS bigint) FROM events").await,
        100
    );
    assert_eq!(house.count("SELECT count(*) FROM events").await, 100);
}

#[tokio::test]
async fn a_query_waits_for_its_turn_and_a_dropped_answer_ends_its_query() {
    let house = House::with(SqlOptions {
        memory_bytes_max: 256 << 20,
        timeout_max: Duration::from_secs(60),
        rows_max: 10_000_000,
        concurrent: SlotsMax { all: 1, namespace: 1, token: 1 },
        metrics: Metrics::default(),
        tables: ServiceTables::default(),
        filters_visibility: false,
        workers: None,
    })
    .await;
    house.take(1..201);
    let million = asked("SELECT a.id FROM events a, events b, events c");
    let held =
        house.sql.query(&levels(&house.ns), QueryScope::Namespace, None, million).await.unwrap();
    let patient = asked("SELECT count(*) FROM events");
    house.check_refused(patient, "Busy(\"too many other queries of namespace `shop_example`").await;
    assert_eq!(house.count("SELECT 1").await, 1, "a statement without a table does not wait");
    drop(held);
    house.sql.idle().await;
    let slow = SqlRequest {
        timeout_ms: Some(50),
        ..asked(
            "SELECT count(*) FROM events a, events b, events c, events d WHERE a.seq + b.seq + c.seq = d.seq * 3 + 1",
        )
    };
    house.check_refused(slow, "Limit(\"the query took longer than 50 ms").await;
    assert_eq!(house.count("SELECT 1").await, 1);
}

#[tokio::test]
async fn the_largest_statements_that_the_guard_lets_through_plan_and_run() {
    let house = House::new().await;
    house.take(1..3);
    let sum = format!("SELECT max(seq{}) FROM events", " + 1".repeat(990));
    assert_eq!(house.count(&sum).await, 992);
    let any = format!("SELECT count(*) FROM events WHERE {} seq = 2", "seq = 1 OR ".repeat(490));
    assert_eq!(house.count(&any).await, 2);
    let union = format!("SELECT 1 AS x{}", " UNION ALL SELECT 1".repeat(200));
    assert_eq!(house.count(&format!("SELECT count(*) FROM ({union})")).await, 201);
    let deep = format!("SELECT {}1{}", "(".repeat(95), ")".repeat(95));
    house.ask(asked(&deep)).await.ok();
    assert_eq!(house.count("SELECT 1").await, 1);
}

#[tokio::test]
async fn a_mistake_is_answered_with_what_is_wrong() {
    let house = House::new().await;
    house.take(1..3);
    for (sql, expected) in [
        ("SELECT nothing FROM events", "nothing"),
        ("SELECT CAST(id AS BIGINT) FROM events", "Cannot cast string 'e-1'"),
        ("SELECT 1 / (seq - seq) FROM events", "division by zero"),
        ("SELECT nofunction(1)", "nofunction"),
        ("SELECT regexp_like(id, '(') FROM events", "regex parse error"),
        ("SELECT sum(id) FROM events GROUP BY", "does not parse"),
    ] {
        let error = house.ask(asked(sql)).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidSql, "`{sql}` failed with {error:?}");
        assert!(error.to_string().contains(expected), "`{sql}` failed with {error:?}");
    }
}

#[tokio::test]
async fn a_statement_that_would_outgrow_memory_is_told_what_to_change() {
    let house = House::new().await;
    house.take(1..30);
    house.commit().await;
    house.take(30..60);
    let twice = |step: &str, times: usize| {
        let first = "SELECT id AS x FROM events".to_owned();
        (0..times).fold(first, |below, _| format!("SELECT {step} AS x FROM ({below} LIMIT 50)"))
    };
    for (sql, expected) in [
        (
            r"SELECT id FROM events WHERE id ~ '((\w{100}){100}){100}'".to_owned(),
            "smaller repetitions",
        ),
        (
            r"SELECT regexp_like(id, '((\w{100}){100}){100}') FROM events".to_owned(),
            "smaller repetitions",
        ),
        (
            r"SELECT regexp_count(id, '((\w{100}){100}){100}') FROM events".to_owned(),
            "smaller repetitions",
        ),
        (format!("SELECT regexp_like(id, '{}') FROM events", "ab|".repeat(15_000)), "longer than"),
        ("SELECT id FROM events WHERE id ~ id".to_owned(), "must be a constant"),
        ("SELECT regexp_replace(id, 'x' || id, '') FROM events".to_owned(), "must be a constant"),
        ("SELECT repeat('x', 2000000000)".to_owned(), "more than 4096 bytes"),
        ("SELECT repeat(id, 2000000000) FROM events".to_owned(), "134217728 bytes"),
        ("SELECT count(*) FROM events WHERE lpad(id, 2000000000) = ''".to_owned(), "134217728"),
        (format!("SELECT max(x) FROM ({})", twice("x || x", 40)), "more"),
        (format!("SELECT max(x) FROM ({})", twice("replace(x || x, 'e', x)", 6)), "more"),
        (format!("SELECT max(array_to_string(x, '')) FROM ({})", twice("[x, x]", 14)), "more"),
        ("SELECT array_agg(id) OVER (ORDER BY seq) FROM events".to_owned(), "with OVER"),
        ("SELECT array_repeat(1, 1000000000)".to_owned(), "not available"),
        ("SELECT named_struct('a', 1)".to_owned(), "no function `named_struct`"),
        ("SELECT \"mod\"()".to_owned(), "function `mod` is not called like this"),
        ("SELECT cume_dist()".to_owned(), "function `cume_dist` is not called like this"),
    ] {
        let outcome = house.ask(asked(&sql)).await;
        let Err(error) = outcome else { panic!("`{sql:.200}` was answered") };
        assert!(matches!(error, SqlError::Invalid(_) | SqlError::Limit(_)), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(expected) && text.len() < 3_000, "`{sql:.200}` failed with {text}");
    }
    let long = SqlRequest {
        params: vec!["x".repeat(100_000).into()],
        ..asked("SELECT $1, $1, $1, $1, $1, $1, $1, $1, $1, $1, $1 FROM events")
    };
    house.check_refused(long, "too long for a statement with 11 parameters").await;
}

#[tokio::test]
async fn equal_steps_one_upon_the_other_are_all_taken() {
    let house = House::new().await;
    house.take(1..3);
    let twice = |step: &str, between: &str, times: usize| {
        let first = "SELECT seq AS x, seq AS y FROM events".to_owned();
        let steps = (0..times)
            .fold(first, |below, _| format!("SELECT {step} AS x, y FROM ({below}) {between}"));
        format!("SELECT max(x) FROM ({steps})")
    };
    for between in ["", "WHERE 0 < x", "LIMIT 9", "WHERE y IS NOT NULL"] {
        assert_eq!(house.count(&twice("x + x", between, 5)).await, 64, "`{between}`");
        assert_eq!(house.count(&twice("x + 1", between, 6)).await, 8, "`{between}`");
        assert_eq!(house.count(&twice("x + y", between, 4)).await, 10, "`{between}`");
    }
    let both = "SELECT sum(x) FROM (SELECT x + 1 AS x FROM (SELECT x + 1 AS x FROM (SELECT x + 1 AS x FROM (SELECT seq AS x FROM events))) UNION ALL SELECT seq AS x FROM events)";
    assert_eq!(house.count(both).await, 3 + 2 * 3 + 3);
    let rows = house.ask(asked("SELECT seq + 1 AS seq FROM (SELECT seq + 1 AS seq FROM events)"));
    assert_eq!(rows.await.unwrap().iter().map(RecordBatch::num_rows).sum::<usize>(), 2);
}

#[tokio::test]
async fn functions_that_are_bounded_answer_as_they_did() {
    let house = House::new().await;
    house.take(1..3);
    let rows = house
        .shown(
            "SELECT lpad(id, 6, '.') AS l, repeat(type, 2) AS r, id || '/' || seq AS c, NULL || id AS n,
                    concat(id, NULL, 1) AS k, array_to_string([id] || ['x'], '+') AS a, upper(id) AS u
             FROM events WHERE id || 'x' LIKE 'e%' GROUP BY id, type, seq ORDER BY id || type",
        )
        .await;
    expect_test::expect![[r#"
        +--------+------------+-------+---+------+-------+-----+
        | l      | r          | c     | n | k    | a     | u   |
        +--------+------------+-------+---+------+-------+-----+
        | ...e-1 | callcall   | e-1/1 |   | e-11 | e-1+x | E-1 |
        | ...e-2 | orderorder | e-2/2 |   | e-21 | e-2+x | E-2 |
        +--------+------------+-------+---+------+-------+-----+"#]]
    .assert_eq(&rows);
}

/// A delete file with these columns, which it has under their names.
fn delete_file(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut bytes = Vec::new();
    let mut parquet =
        parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    parquet.write(&batch).unwrap();
    parquet.close().unwrap();
    bytes
}

fn position_deletes(rows: &[(&str, i64)]) -> Vec<u8> {
    let paths = StringArray::from_iter_values(rows.iter().map(|row| row.0));
    let positions = Int64Array::from_iter_values(rows.iter().map(|row| row.1));
    delete_file(vec![("file_path", Arc::new(paths)), ("pos", Arc::new(positions))])
}

/// Adds manifests by hand, as another engine would. `equality` are the columns that are compared.
async fn commit_deletes(house: &House, equality: &[i32], partitions: Vec<(Struct, Vec<u8>)>) {
    let table = house.catalog.tables().load(&house.events()).await.unwrap();
    let metadata = &table.metadata;
    let storage = house.catalog.storage();
    let mut files = Vec::new();
    for (number, (partition, bytes)) in partitions.into_iter().enumerate() {
        let location = format!("{}/data/deletes-{number}.parquet", metadata.location());
        let mut file = DataFileBuilder::default();
        file.content(DataContentType::PositionDeletes)
            .file_path(location.clone())
            .file_format(DataFileFormat::Parquet)
            .partition(partition)
            .partition_spec_id(0)
            .record_count(1)
            .file_size_in_bytes(bytes.len() as u64);
        if !equality.is_empty() {
            file.content(DataContentType::EqualityDeletes).equality_ids(Some(equality.to_vec()));
        }
        storage.put(&location, bytes.into()).await.unwrap();
        files.push(file.build().unwrap());
    }
    let current = metadata.current_snapshot().unwrap();
    let list = storage.get(current.manifest_list()).await.unwrap();
    let list =
        iceberg::spec::ManifestList::parse_with_version(&list, metadata.format_version()).unwrap();
    let (id, sequence) = (77, metadata.next_sequence_number());
    let output = |name: &str| {
        let location = format!("{}/metadata/{name}.avro", metadata.location());
        storage.file_io().new_output(location).unwrap()
    };
    let mut manifest = ManifestWriterBuilder::new(
        output("deletes"),
        Some(id),
        Arc::clone(metadata.current_schema()),
        metadata.default_partition_spec().as_ref().clone(),
    )
    .build_v2_deletes();
    for file in files {
        manifest.add_file(file, sequence).unwrap();
    }
    let manifest = manifest.write_manifest_file().await.unwrap();
    let list_file = output("list").writer().await.unwrap();
    let mut lists = ManifestListWriter::v2(list_file, id, Some(current.snapshot_id()), sequence);
    lists.add_manifests(list.consume_entries().into_iter().chain([manifest])).unwrap();
    lists.close().await.unwrap();
    let snapshot = Snapshot::builder()
        .with_snapshot_id(id)
        .with_parent_snapshot_id(Some(current.snapshot_id()))
        .with_sequence_number(sequence)
        .with_timestamp_ms(house.clock.now_ms())
        .with_manifest_list(format!("{}/metadata/list.avro", metadata.location()))
        .with_summary(Summary {
            operation: Operation::Delete,
            additional_properties: HashMap::new(),
        })
        .with_schema_id(metadata.current_schema_id())
        .build();
    add_to_main(house, snapshot).await;
}

/// Commits a snapshot as another engine does.
async fn add_to_main(house: &House, snapshot: Snapshot) {
    let reference = iceberg::spec::SnapshotReference::new(
        snapshot.snapshot_id(),
        iceberg::spec::SnapshotRetention::branch(None, None, None),
    );
    let change = TableChange {
        table: house.events(),
        requirements: Vec::new(),
        keeps_history: false,
        updates: vec![
            TableUpdate::AddSnapshot { snapshot },
            TableUpdate::SetSnapshotRef { ref_name: "main".to_owned(), reference },
        ],
    };
    house.catalog.commit(change).await.unwrap();
}

async fn file_of(house: &House, seq: i64) -> DataFile {
    let table = house.catalog.tables().load(&house.events()).await.unwrap();
    let storage = house.catalog.storage();
    let list = table.metadata.current_snapshot().unwrap().manifest_list();
    let list = storage.get(list).await.unwrap();
    let list =
        iceberg::spec::ManifestList::parse_with_version(&list, table.metadata.format_version());
    for manifest in list.unwrap().entries() {
        for entry in manifest.load_manifest(&storage.file_io()).await.unwrap().entries() {
            let (lower, upper) =
                (entry.data_file().lower_bounds(), entry.data_file().upper_bounds());
            let bound = |bounds: &HashMap<i32, iceberg::spec::Datum>| bounds[&5].to_string();
            let range = bound(lower).parse::<i64>().unwrap()..=bound(upper).parse::<i64>().unwrap();
            let kind = if seq % 2 == 0 { "order" } else { "call" };
            let of_type = lower[&2].to_string().contains(kind);
            if range.contains(&seq) && of_type {
                return entry.data_file().clone();
            }
        }
    }
    panic!("no file has seq {seq}");
}

#[tokio::test]
async fn rows_that_another_engine_deleted_are_gone() {
    let house = House::new().await;
    house.take(1..31);
    house.commit().await;
    house.trim();
    // Files are sorted by ts and so by seq; the first rows of two files go, and all of none.
    let (two, three) = (file_of(&house, 2).await, file_of(&house, 3).await);
    // A delete file reaches data files of its own partition, and the other one none of this row.
    let of_two = [(two.file_path(), 0), (three.file_path(), 0), ("file:///elsewhere.parquet", 0)];
    let of_three = [(three.file_path(), 1)];
    assert_ne!(two.partition(), three.partition());
    let gone = [(&two, &of_two[..]), (&three, &of_three[..])];
    let gone = gone.map(|(file, rows)| (file.partition().clone(), position_deletes(rows)));
    commit_deletes(&house, &[], gone.into()).await;
    house.take(31..33);
    assert_eq!(house.count("SELECT count(*) FROM events").await, 30);
    let left = house.shown("SELECT seq FROM events WHERE seq < 6 ORDER BY seq").await;
    expect_test::expect![[r#"
        +-----+
        | seq |
        +-----+
        | 1   |
        | 4   |
        | 5   |
        +-----+"#]]
    .assert_eq(&left);
    assert_eq!(house.count("SELECT count(*) FROM events WHERE id = 'e-2'").await, 0);
}

#[tokio::test]
async fn rows_with_values_that_another_engine_deleted_are_gone() {
    let house = House::new().await;
    house.take(1..31);
    house.commit().await;
    house.trim();
    // Three events have the first pair, on two days; none has the second.
    let texts =
        |values: [Option<&str>; 2]| Arc::new(StringArray::from(values.to_vec())) as ArrayRef;
    let columns =
        vec![("key", texts([Some("k2"), Some("k4")])), ("actor", texts([Some("a2"), None]))];
    let partition = file_of(&house, 2).await.partition().clone();
    commit_deletes(&house, &[16, 11], vec![(partition, delete_file(columns))]).await;
    house.take(31..34);
    assert_eq!(house.count("SELECT count(*) FROM events").await, 31);
    let left = house.shown("SELECT seq FROM events WHERE key = 'k2' ORDER BY seq").await;
    expect_test::expect![[r#"
        +-----+
        | seq |
        +-----+
        | 22  |
        | 32  |
        +-----+"#]]
    .assert_eq(&left);
    assert_eq!(house.count("SELECT count(*) FROM events WHERE key = 'k4'").await, 3);
    assert_eq!(house.count("SELECT count(actor) FROM events").await, 14);
}

#[tokio::test]
async fn deletes_that_are_not_applied_refuse_the_query() {
    let house = House::new().await;
    house.take(1..5);
    house.commit().await;
    let partition = file_of(&house, 1).await.partition().clone();
    let deletes = position_deletes(&[("x", 0)]);
    commit_deletes(&house, &[999], vec![(partition, deletes)]).await;
    let refused = "Invalid(\"the table has an equality delete that is not applied here";
    house.check_refused(asked("SELECT count(*) FROM events"), refused).await;
}

#[tokio::test]
async fn a_manifest_that_was_changed_after_its_commit_leads_nowhere() {
    let house = House::new().await;
    house.take(1..5);
    house.commit().await;
    let storage = house.catalog.storage();
    let elsewhere = format!("{}/elsewhere.parquet", storage.root());
    let file = file_of(&house, 1).await;
    storage.put(&elsewhere, storage.get(file.file_path()).await.unwrap()).await.unwrap();
    list_instead(&house, elsewhere, DataFileFormat::Parquet).await;
    house.check_refused(asked("SELECT id FROM events"), "Internal(").await;
}

#[tokio::test]
async fn data_files_that_are_no_parquet_are_refused_by_their_format() {
    for format in [DataFileFormat::Avro, DataFileFormat::Orc] {
        let house = House::new().await;
        house.take(1..5);
        house.commit().await;
        let path = file_of(&house, 1).await.file_path().to_owned();
        list_instead(&house, path, format).await;
        let refused = format!("Invalid(\"the table has {format} data files");
        for sql in ["SELECT count(*) FROM events", "SELECT id FROM events"] {
            house.check_refused(asked(sql), &refused).await;
        }
    }
}

/// Writes the only manifest anew, with a file at this path in place of its own.
async fn list_instead(house: &House, path: String, format: DataFileFormat) {
    let table = house.catalog.tables().load(&house.events()).await.unwrap();
    let (metadata, storage) = (&table.metadata, house.catalog.storage());
    let list = storage.get(metadata.current_snapshot().unwrap().manifest_list()).await.unwrap();
    let list = iceberg::spec::ManifestList::parse_with_version(&list, metadata.format_version());
    let manifest = list.unwrap().entries()[0].clone();
    let file = file_of(house, 1).await;
    let mut listed = DataFileBuilder::default();
    listed
        .content(DataContentType::Data)
        .file_path(path)
        .file_format(format)
        .partition(file.partition().clone())
        .partition_spec_id(0)
        .record_count(file.record_count())
        .file_size_in_bytes(file.file_size_in_bytes());
    let mut changed = ManifestWriterBuilder::new(
        storage.file_io().new_output(&manifest.manifest_path).unwrap(),
        Some(manifest.added_snapshot_id),
        Arc::clone(metadata.current_schema()),
        metadata.default_partition_spec().as_ref().clone(),
    )
    .build_v2_data();
    changed.add_file(listed.build().unwrap(), -1).unwrap();
    changed.write_manifest_file().await.unwrap();
}

#[tokio::test]
async fn files_keep_their_columns_when_the_table_renames_adds_and_drops_some() {
    let house = House::new().await;
    house.take(1..3);
    house.commit().await;
    let levels = vec![house.ns.name().to_owned()];
    let long =
        |id, name: &str| NestedField::optional(id, name, Type::Primitive(PrimitiveType::Long));
    let first = schema_of([long(1, "a"), long(2, "b"), long(3, "c")]);
    let table =
        house.catalog.tables().create(&levels, CreateTable::plain("plain", first)).await.unwrap();
    let ident = schema::ident(&house.ns, "plain");
    let append = async |table: &LoadedTable, columns: &[(&str, i64)]| {
        let batch = columns.iter().map(|(name, value)| {
            (*name, Arc::new(Int64Array::from(vec![*value])) as ArrayRef, true)
        });
        let batch = RecordBatch::try_from_iter_with_nullable(batch).unwrap();
        let ids = IdGenerator::new(house.clock.clone());
        let storage = house.catalog.storage();
        let files = writer::write(storage, &table.metadata, vec![batch], &ids).await.unwrap();
        let position = u64::try_from(table.version).unwrap();
        let append = NewSnapshot {
            added: files,
            mark: Some(MarkMove {
                watermark: Watermark { epoch: 1, position, last_seq: position },
                since: 0,
            }),
            ..NewSnapshot::default()
        };
        let table = house.catalog.add_snapshot(&ident, append).await.unwrap();
        house.clock.advance_ms(1_000);
        table
    };
    let table = append(&table, &[("a", 1), ("b", 2), ("c", 3)]).await;
    let before = table.metadata.current_snapshot_id().unwrap();
    // `a` becomes `x`, `b` is dropped and its name given to a new column, `c` becomes `a`.
    let second = schema_of([long(1, "x"), long(4, "b"), long(3, "a")]);
    let change = TableChange {
        table: ident.clone(),
        requirements: Vec::new(),
        keeps_history: false,
        updates: vec![
            TableUpdate::AddSchema { schema: second },
            TableUpdate::SetCurrentSchema { schema_id: -1 },
        ],
    };
    let table = house.catalog.commit(change).await.unwrap();
    append(&table, &[("x", 10), ("b", 20), ("a", 30)]).await;
    expect_test::expect![[r#"
        +----+----+----+
        | x  | b  | a  |
        +----+----+----+
        | 1  |    | 3  |
        | 10 | 20 | 30 |
        +----+----+----+"#]]
    .assert_eq(&house.shown("SELECT * FROM plain ORDER BY x").await);
    assert_eq!(house.count("SELECT x FROM plain WHERE a = 3").await, 1);
    assert_eq!(house.count("SELECT x FROM plain WHERE b = 20").await, 10);
    assert_eq!(house.count("SELECT a FROM plain WHERE b IS NULL").await, 3);
    assert_eq!(house.count("SELECT count(*) FROM plain WHERE a = 1").await, 0);
    let then = house.text(at("SELECT * FROM plain", json!(before))).await;
    expect_test::expect![[r#"
        +---+---+---+
        | a | b | c |
        +---+---+---+
        | 1 | 2 | 3 |
        +---+---+---+"#]]
    .assert_eq(&then);
}

fn schema_of(fields: [NestedField; 3]) -> Schema {
    Schema::builder().with_fields(fields.map(Arc::new)).build().unwrap()
}

#[tokio::test]
async fn filters_hold_for_files_written_before_a_column_was_added() {
    let house = House::new().await;
    house.take(1..11);
    let table = house.commit().await;
    let mut fields: Vec<_> = table.metadata.current_schema().as_struct().fields().to_vec();
    let added = NestedField::optional(900, "added", Type::Primitive(PrimitiveType::String));
    fields.push(Arc::new(added));
    let schema = Schema::builder().with_fields(fields).build().unwrap();
    let change = TableChange {
        table: house.events(),
        requirements: Vec::new(),
        keeps_history: false,
        updates: vec![
            TableUpdate::AddSchema { schema },
            TableUpdate::SetCurrentSchema { schema_id: -1 },
        ],
    };
    house.catalog.commit(change).await.unwrap();
    house.take(11..21);
    house.commit().await;
    house.take(21..31);
    for (filter, expected) in [
        ("added IS NULL", 30),
        ("added = 'x'", 0),
        ("id = 'e-5'", 1),
        ("id = 'e-15' AND added IS NULL", 1),
        ("added IS NULL AND type = 'call'", 15),
        ("coalesce(added, id) = 'e-25'", 1),
        ("key = 'k3' AND seq > 10", 2),
    ] {
        let sql = format!("SELECT count(*) FROM events WHERE {filter}");
        assert_eq!(house.count(&sql).await, expected, "{filter}");
    }
}
