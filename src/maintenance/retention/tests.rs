use super::*;
use crate::tasks::Tasks;
use arrow::array::{RecordBatch, new_null_array};
use iceberg::{
    TableUpdate,
    spec::{DataFile, Operation},
};
use icecore_catalog::{
    catalog::{RefKind, TableChange},
    commit::{FIRST_SEQ, LAST_SEQ},
    metastore::{Metastore, Watermark, holds::LegalHold},
    retention::{SNAPSHOTS_MAX, SNAPSHOTS_SLACK},
    row_sum::{REMOVED_ROWS_SUM, RowSum},
    snapshot::{MarkMove, NewSnapshot},
    storage::{S3Options, Storage},
};
use icecore_lake::{
    clock::Clock,
    load::IngestLoad,
    table::{
        retention::{REASON, REMOVED_FIRST_SEQ, REMOVED_LAST_SEQ, REMOVED_ROWS},
        schema::foreign_ident,
        writer,
    },
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Barrier,
    thread::JoinHandle,
};

const DAY_MS: i64 = 86_400_000;
const START_MS: i64 = icecore_samples::START_US / 1_000;
/// Rows of a commit, of two types and three days: a file of each.
const ROWS: u64 = 300;
const FILES: u64 = 6;

/// A catalog with `events` and `dead_letters` in the namespaces `a` and `b`.
struct House {
    catalog: Catalog,
    clock: Clock,
    ids: IdGenerator,
    _folder: tempfile::TempDir,
}

/// Rows of events that are no changes.
fn plain_events(seed: u64) -> RecordBatch {
    let rows = icecore_samples::events(ROWS as usize, 2, 1, seed);
    let at = rows.schema().index_of("op").unwrap();
    let mut columns = rows.columns().to_vec();
    columns[at] = new_null_array(columns[at].data_type(), rows.num_rows());
    RecordBatch::try_new(rows.schema(), columns).unwrap()
}

fn ident(namespace: &str, name: &str) -> TableIdent {
    foreign_ident(&[namespace.to_owned()], name).unwrap()
}

impl House {
    /// The clock is an hour into the day after the last of the rows.
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let warehouse = format!("file://{}/warehouse", folder.path().display());
        let storage = Storage::open(&warehouse, &S3Options::default()).unwrap();
        let metastore = Metastore::sqlite(&folder.path().join("icecore.db")).await.unwrap();
        let clock = Clock::manual(START_MS + 3 * DAY_MS + 3_600_000);
        let now = clock.clone();
        let catalog = Catalog::new("icecore", storage, metastore, Arc::new(move || now.now_ms()));
        for namespace in ["a", "b"] {
            let levels = vec![namespace.to_owned()];
            catalog.namespaces().ensure(&levels, &BTreeMap::new()).await.unwrap();
            for table in [icecore_samples::events_table(), icecore_samples::dead_letters_table()] {
                catalog.tables().create(&levels, table).await.unwrap();
            }
        }
        let ids = IdGenerator::new(clock.clone());
        Self { catalog, clock, ids, _folder: folder }
    }

    /// Commits rows of the log, as a flush does.
    async fn append(&self, table: &TableIdent, rows: RecordBatch) -> Vec<DataFile> {
        let files = self.write(table, rows).await;
        self.append_files(table, files.clone()).await;
        self.clock.advance_ms(1_000);
        files
    }

    async fn write(&self, table: &TableIdent, rows: RecordBatch) -> Vec<DataFile> {
        let (loaded, storage) = (self.load(table).await, self.catalog.storage());
        writer::write(storage, &loaded.metadata, vec![rows], &self.ids).await.unwrap()
    }

    async fn append_files(&self, table: &TableIdent, files: Vec<DataFile>) {
        let loaded = self.load(table).await;
        let position = loaded.version.cast_unsigned();
        let watermark = Watermark { epoch: 1, position, last_seq: ROWS };
        let summary = [(FIRST_SEQ, 1), (LAST_SEQ, ROWS)];
        let append = NewSnapshot {
            added: files,
            summary: summary.map(|(key, seq)| (key.to_owned(), seq.to_string())).into(),
            mark: Some(MarkMove { watermark, since: 1 }),
            ..NewSnapshot::default()
        };
        Box::pin(self.catalog.add_snapshot(table, append)).await.unwrap();
    }

    /// Puts another file with the same rows in the place of one, as a compaction does.
    async fn replace(&self, table: &TableIdent, old: &DataFile, rows: RecordBatch) -> DataFile {
        let read = self.load(table).await.metadata.current_snapshot_id();
        let mut files = self.write(table, rows).await;
        files.retain(|file| file.partition() == old.partition());
        let replacement = NewSnapshot {
            operation: Operation::Replace,
            read,
            added: files.clone(),
            removed: vec![old.clone()],
            ..NewSnapshot::default()
        };
        Box::pin(self.catalog.add_snapshot(table, replacement)).await.unwrap();
        files.swap_remove(0)
    }

    /// The snapshots of a table by which rows went.
    async fn removals(&self, table: &TableIdent) -> usize {
        let loaded = self.load(table).await;
        let removes = |operation: &Operation| *operation == Operation::Delete;
        let snapshots = loaded.metadata.snapshots();
        snapshots.filter(|made| removes(&made.summary().operation)).count()
    }

    async fn load(&self, table: &TableIdent) -> LoadedTable {
        self.catalog.tables().load(table).await.unwrap()
    }

    async fn data_files(&self, table: &TableIdent) -> u64 {
        self.catalog.tables().stats(table).await.unwrap().data_files
    }

    fn events(&self, rules: &str) -> EventRetention {
        EventRetention::new(&self.catalog, self.ids.clone(), rules.parse().unwrap(), pace())
    }

    async fn set(&self, table: &TableIdent, key: &str, value: &str) {
        let updates = HashMap::from([(key.to_owned(), value.to_owned())]);
        let change = TableChange {
            table: table.clone(),
            requirements: Vec::new(),
            updates: vec![TableUpdate::SetProperties { updates }],
            keeps_history: false,
        };
        Box::pin(self.catalog.commit(change)).await.unwrap();
    }
}

fn pace() -> JobPace {
    JobPace::new(&IngestLoad::default(), &Tasks::default())
}

async fn run<J: PlannedJob>(job: &J, request: RunRequest) -> JobReport {
    Box::pin(job.run(&request)).await.unwrap()
}

/// Runs a job in a thread of its own, which may stand at a failpoint.
fn run_apart(job: EventRetention) -> JoinHandle<JobReport> {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(run(&job, everything()))
    })
}

async fn meet(barrier: &Arc<Barrier>) {
    let barrier = Arc::clone(barrier);
    tokio::task::spawn_blocking(move || barrier.wait()).await.unwrap();
}

async fn end_of(run: JoinHandle<JobReport>) -> JobReport {
    tokio::task::spawn_blocking(|| run.join().unwrap()).await.unwrap()
}

fn everything() -> RunRequest {
    RunRequest::default()
}

#[tokio::test]
async fn old_events_go_by_their_type_and_stay_in_what_was_before() {
    let house = House::new().await;
    let table = ident("a", "events");
    house.append(&table, plain_events(1)).await;
    let before = house.load(&table).await;
    house.catalog.refs().create(&table, "kept", RefKind::Tag, None).await.unwrap();
    assert_eq!(house.data_files(&table).await, FILES);
    let job = house.events("type.0=1d");

    let dry = run(&job, RunRequest { dry_run: true, ..everything() }).await;
    assert_eq!((dry.files.before, house.data_files(&table).await), (2, FILES));
    // The first day and the second are over for more than a day.
    let done = run(&job, everything()).await;
    assert_eq!((done.job.as_str(), done.tables), ("retention", 1));
    assert_eq!((done.files, done.bytes, done.rows), (dry.files, dry.bytes, dry.rows));
    assert_eq!((done.files.after, done.skipped.len()), (0, 0), "{done:?}");
    assert_eq!(house.data_files(&table).await, FILES - 2);

    let after = house.load(&table).await;
    assert_eq!(after.watermark, before.watermark, "the log's mark stays");
    let summary = after.metadata.current_snapshot().unwrap().summary();
    assert_eq!(summary.operation.as_str(), "delete");
    let entries = &summary.additional_properties;
    assert_eq!((entries[REASON].as_str(), entries[LAST_SEQ].as_str()), ("retention", "300"));
    assert_eq!(entries[REMOVED_ROWS], done.rows.to_string());
    let sum: RowSum = entries[REMOVED_ROWS_SUM].parse().unwrap();
    assert_eq!(sum.rows().cast_unsigned(), done.rows, "an audit need not read what went");
    assert_eq!(entries["deleted-records"], done.rows.to_string());
    let bound = |key: &str| entries[key].parse::<u64>().unwrap();
    assert!(1 <= bound(REMOVED_FIRST_SEQ) && bound(REMOVED_LAST_SEQ) <= ROWS);
    assert!(!entries.contains_key(FIRST_SEQ), "no row came with it");
    let tagged = after.metadata.snapshot_for_ref("kept").unwrap();
    assert_eq!(Some(tagged.snapshot_id()), before.metadata.current_snapshot_id());
    let data = format!("{}/data", after.metadata.location());
    assert_eq!(house.catalog.storage().list(&data).await.unwrap().len() as u64, FILES);

    let again = run(&job, everything()).await;
    assert_eq!((again.tables, again.files.before), (0, 0));
    house.clock.advance_ms(DAY_MS);
    assert_eq!(run(&job, everything()).await.files.before, 1, "the third day");
    house.append(&table, plain_events(2)).await;
    assert_eq!(run(&job, everything()).await.files.before, 3, "late ones go with the next run");
}

#[tokio::test]
async fn rows_of_changes_and_events_without_a_rule_stay() {
    let house = House::new().await;
    let table = ident("a", "events");
    house.append(&table, icecore_samples::events(ROWS as usize, 2, 1, 3)).await;
    let done = run(&house.events("*=1d"), everything()).await;
    assert_eq!((done.tables, house.data_files(&table).await), (0, FILES));
    assert!(done.skipped[0].reason.contains("rows with `op`"), "{done:?}");
    let none = run(&house.events("other.*=1d"), everything()).await;
    assert_eq!((none.tables, none.skipped.len()), (0, 0), "{none:?}");
    assert!(run(&house.events(""), everything()).await.skipped.is_empty());
}

#[tokio::test]
async fn the_rules_of_a_table_stand_for_those_of_the_setting() {
    let house = House::new().await;
    let (one, other) = (ident("a", "events"), ident("b", "events"));
    for table in [&one, &other] {
        house.append(table, plain_events(4)).await;
    }
    let job = house.events("*=1d");
    house.set(&one, ROWS_KEPT, "type.*=2d").await;
    house.set(&other, ROWS_KEPT, "a week").await;
    let done = run(&job, everything()).await;
    assert_eq!((done.tables, done.files.before), (1, 2), "of `a` the first day: {done:?}");
    assert_eq!(done.skipped.len(), 1);
    assert!(done.skipped[0].reason.contains("`a week` is not TYPE=DAYS"), "{done:?}");
    // An empty list keeps everything.
    house.set(&other, ROWS_KEPT, "").await;
    let done = run(&job, everything()).await;
    assert_eq!((done.tables, done.skipped.len()), (0, 0), "{done:?}");
    assert_eq!(house.data_files(&other).await, FILES);
}

#[tokio::test]
async fn a_namespace_that_is_held_loses_nothing() {
    let house = House::new().await;
    let (events, letters) = (ident("a", "events"), ident("a", "dead_letters"));
    house.append(&events, plain_events(5)).await;
    house.append(&letters, icecore_samples::dead_letters(ROWS as usize, 5)).await;
    let hold = LegalHold {
        levels: vec!["a".to_owned()],
        name: "case-7".to_owned(),
        reason: Some("court".to_owned()),
        since_ms: 0,
    };
    house.catalog.metastore().set_hold(&hold).await.unwrap();
    let by_type = house.events("*=1d");
    let day = Duration::from_secs(86_400);
    let by_age = LetterRetention::new(&house.catalog, house.ids.clone(), day, pace());
    let without_rule = run(&house.events(""), everything()).await;
    for report in
        [run(&by_type, everything()).await, run(&by_age, everything()).await, without_rule]
    {
        let held = report.skipped.iter().filter(|table| table.table.starts_with("a."));
        let reasons: Vec<&str> = held.map(|table| table.reason.as_str()).collect();
        assert_eq!(reasons, ["the namespace `a` is held by `case-7` (court)"]);
        assert_eq!(report.tables, 0);
    }
    house.catalog.metastore().remove_hold(&hold.levels, "case-7").await.unwrap();
    assert_eq!(run(&by_type, everything()).await.files.before, 4);
    let done = run(&by_age, everything()).await;
    assert_eq!((done.job.as_str(), done.tables, done.files.before), ("dead-letters", 1, 2));
    assert_eq!(house.data_files(&letters).await, 1);
}

#[tokio::test]
async fn two_runs_and_an_append_at_once_take_and_lose_nothing_twice() {
    let house = House::new().await;
    let table = ident("a", "events");
    house.append(&table, plain_events(6)).await;
    let (one, other) = (house.events("*=1d"), house.events("*=1d"));
    let all = async {
        let both = async { tokio::join!(run(&one, everything()), run(&other, everything())) };
        tokio::join!(both, house.append(&table, plain_events(7)))
    };
    let ((first, second), _) = Box::pin(all).await;
    let last = run(&one, everything()).await;
    let removed = first.files.before + second.files.before + last.files.before;
    assert_eq!(removed, 8, "{first:?} {second:?} {last:?}");
    assert_eq!(house.data_files(&table).await, 2 * FILES - 8);
    let total = first.rows + second.rows + last.rows;
    let left = house.catalog.tables().stats(&table).await.unwrap().data_rows;
    assert_eq!(total + left, 2 * ROWS);
}

#[tokio::test]
async fn a_table_whose_files_do_not_read_holds_up_no_other() {
    let house = House::new().await;
    let (broken, whole) = (ident("a", "events"), ident("b", "events"));
    for table in [&broken, &whole] {
        house.append(table, plain_events(8)).await;
    }
    let loaded = house.load(&broken).await;
    let list = loaded.metadata.current_snapshot().unwrap().manifest_list().to_owned();
    house.catalog.storage().delete(&list).await.unwrap();
    let done = run(&house.events("*=1d"), everything()).await;
    assert_eq!((done.tables, done.files.before), (1, 4), "{done:?}");
    assert_eq!(done.skipped.len(), 1);
    assert_eq!(done.skipped[0].table, "a.events");
    assert!(done.skipped[0].reason.contains("is not there"), "{done:?}");
}

#[tokio::test]
async fn a_run_is_about_the_namespace_and_table_that_it_names() {
    let house = House::new().await;
    for namespace in ["a", "b"] {
        house.append(&ident(namespace, "events"), plain_events(9)).await;
    }
    let job = house.events("*=1d");
    let of = |table: &str| RunRequest {
        levels: Some(vec!["b".to_owned()]),
        table: Some(table.to_owned()),
        ..everything()
    };
    assert_eq!(run(&job, of("dead_letters")).await.tables, 0);
    assert_eq!(run(&job, of("events")).await.tables, 1);
    assert_eq!(house.data_files(&ident("a", "events")).await, FILES);
    // Without a namespace it is enough that one has such a table, wherever it is.
    let levels = vec!["a".to_owned(), "deep".to_owned()];
    house.catalog.namespaces().ensure(&levels, &BTreeMap::new()).await.unwrap();
    let mut elsewhere = icecore_samples::events_table();
    elsewhere.name = "elsewhere".to_owned();
    house.catalog.tables().create(&levels, elsewhere).await.unwrap();
    let any = |table: &str| RunRequest { levels: None, ..of(table) };
    assert_eq!(run(&job, any("elsewhere")).await.tables, 0, "it is not at the top");
    let nothing = any("nothing");
    assert!(nothing.check_names(&house.catalog).await.is_err(), "told before the run, too");
    let refused = job.run(&nothing).await;
    assert!(matches!(refused, Err(RetentionError::Catalog(CatalogError::NoSuchTable(_)))));
    let nobody = RunRequest { levels: Some(vec!["nobody".to_owned()]), ..everything() };
    let refused = job.run(&nobody).await;
    assert!(matches!(refused, Err(RetentionError::Catalog(CatalogError::NoSuchNamespace(_)))));
}

#[tokio::test]
async fn a_file_that_others_replace_is_left_out_and_goes_with_the_next_commit() {
    let house = House::new().await;
    let table = ident("a", "events");
    let files = house.append(&table, plain_events(10)).await;
    let (faults, barrier) = Failpoints::meeting("retention.before_commit");
    // The first day, a file of each type.
    let running = run_apart(house.events("type.*=2d").with_faults(faults));
    meet(&barrier).await;
    let asked = RunRequest { dry_run: true, ..everything() };
    let dry = run(&house.events("type.*=2d"), asked).await;
    assert_eq!(dry.files.before, 2);
    let first_day =
        files.iter().map(|file| &file.partition()[1]).min_by_key(|day| format!("{day:?}"));
    let hot = files.iter().find(|file| Some(&file.partition()[1]) == first_day).unwrap();
    house.replace(&table, hot, plain_events(10)).await;
    meet(&barrier).await;
    let done = end_of(running).await;
    assert_eq!((done.files.before, done.rows, done.errors), (2, dry.rows, 0), "{done:?}");
    assert_eq!(house.data_files(&table).await, FILES - 2);
    assert_eq!(house.removals(&table).await, 2, "the other one was not looked for again");
    let loaded = house.load(&table).await;
    let told = loaded.metadata.snapshots().filter_map(|made| {
        made.summary().additional_properties.get(REMOVED_ROWS_SUM)?.parse::<RowSum>().ok()
    });
    let removed: i64 = told.map(RowSum::rows).sum();
    assert_eq!(removed.cast_unsigned(), dry.rows, "each row once");
}

#[tokio::test]
async fn a_file_that_others_replace_again_and_again_is_told_as_an_error() {
    let house = House::new().await;
    let table = ident("a", "events");
    let files = house.append(&table, plain_events(11)).await;
    let tries = u32::try_from(RACES_MAX).unwrap();
    let (faults, barrier) = Failpoints::meetings("retention.before_commit", tries);
    let job = house.events("type.0=2d");
    let running = run_apart(job.clone().with_faults(faults));
    let days = files.iter().filter(|file| format!("{:?}", file.partition()[0]).contains("type.0"));
    let first = days.min_by_key(|file| format!("{:?}", file.partition()[1]));
    let mut hot = first.unwrap().clone();
    for _ in 0..tries {
        meet(&barrier).await;
        hot = house.replace(&table, &hot, plain_events(11)).await;
        meet(&barrier).await;
    }
    let report = end_of(running).await;
    assert_eq!((report.errors, report.tables, report.skipped.len()), (1, 0, 1), "{report:?}");
    assert!(report.skipped[0].reason.contains("is not live any more"), "{report:?}");
    assert_eq!(house.data_files(&table).await, FILES);
    assert_eq!(run(&job, everything()).await.files.before, 1, "the next run takes it");
}

#[tokio::test]
async fn what_a_long_run_reads_stays_until_its_commit_and_no_longer() {
    let house = House::new().await;
    let table = ident("a", "events");
    house.append(&table, plain_events(12)).await;
    let read = house.load(&table).await.metadata.current_snapshot_id().unwrap();
    let (faults, barrier) = Failpoints::meeting("retention.before_commit");
    let pace = pace().leasing_after(Duration::ZERO);
    let rules = "type.*=2d".parse().unwrap();
    let job = EventRetention::new(&house.catalog, house.ids.clone(), rules, pace);
    let running = run_apart(job.with_faults(faults));
    meet(&barrier).await;
    for _ in 0..=SNAPSHOTS_MAX + SNAPSHOTS_SLACK {
        house.append_files(&table, Vec::new()).await;
    }
    assert_eq!(house.catalog.upkeep().thin(&table).await.unwrap(), 0);
    meet(&barrier).await;
    let done = end_of(running).await;
    assert_eq!((done.files.before, done.errors), (2, 0), "{done:?}");
    assert_eq!(house.removals(&table).await, 1);
    house.clock.advance_ms(120_000);
    assert!(0 < house.catalog.upkeep().thin(&table).await.unwrap());
    assert!(house.load(&table).await.metadata.snapshot_by_id(read).is_none());
}

#[tokio::test]
async fn files_of_a_branch_that_was_fast_forwarded_outlive_the_expiry_of_where_it_was() {
    let house = House::new().await;
    let (table, catalog) = (ident("a", "events"), &house.catalog);
    let (refs, branch) = (catalog.refs(), Some(RefKind::Branch));
    let first = house.append(&table, plain_events(13)).await;
    refs.create(&table, "b", RefKind::Branch, None).await.unwrap();
    let second = house.append(&table, plain_events(14)).await;
    refs.create(&table, "c", RefKind::Branch, None).await.unwrap();
    // On `main` the first files go, and only branches have them.
    let delete = NewSnapshot {
        operation: Operation::Delete,
        read: house.load(&table).await.metadata.current_snapshot_id(),
        removed: first.clone(),
        ..NewSnapshot::default()
    };
    Box::pin(catalog.add_snapshot(&table, delete)).await.unwrap();
    refs.fast_forward(&table, "b", "c").await.unwrap();
    refs.drop(&table, "c", branch).await.unwrap();
    let job = SnapshotExpiry::new(catalog);
    let expire = async || {
        house.clock.advance_ms(100 * DAY_MS);
        let expired = run(&job, everything()).await;
        house.clock.advance_ms(2 * DAY_MS);
        while 0 < catalog.upkeep().delete_obsolete(1_000).await.unwrap() {}
        expired
    };
    let there = async |files: &[DataFile]| {
        let mut count = 0;
        for file in files {
            count += usize::from(catalog.storage().exists(file.file_path()).await.unwrap());
        }
        count
    };
    assert_eq!(expire().await.tables, 1);
    assert_eq!(house.load(&table).await.metadata.snapshots().len(), 2, "the heads of both");
    assert_eq!((there(&first).await, there(&second).await), (first.len(), second.len()));
    refs.drop(&table, "b", branch).await.unwrap();
    expire().await;
    assert_eq!((there(&first).await, there(&second).await), (0, second.len()));
}
