use super::*;
use crate::{store::make_tables, tasks::Tasks};
use arrow::array::{RecordBatch, StringArray};
use iceberg::spec::{DataFile, Operation};
use icecore_catalog::{
    catalog::LoadedTable,
    metastore::{Metastore, Watermark, holds::LegalHold},
    retention::{SNAPSHOTS_MAX, SNAPSHOTS_SLACK},
    snapshot::{MarkMove, NewSnapshot},
    storage::{S3Options, Storage},
};
use icecore_lake::{
    clock::Clock,
    load::IngestLoad,
    metrics::Metrics,
    table::{erasure::ERASURE, schema::TableIdent, writer},
    wal::{WalOptions, WalWriter},
};
use icecore_schemas::erasure::ErasureSubject;
use std::{sync::Barrier, thread::JoinHandle, time::Duration};

const NOW_MS: i64 = 1_790_000_000_000;

/// Erasures of a catalog without namespaces, and an empty log.
struct House {
    erasures: Erasures,
    owner: LogOwnership,
    clock: Clock,
    _writer: WalWriter,
    _folder: tempfile::TempDir,
}

/// Rows of two types and three days, every other one of which is the user's.
fn rows_of_ann() -> RecordBatch {
    let rows = icecore_samples::events(300, 2, 1, 7);
    let at = rows.schema().index_of("user_id").unwrap();
    let users = (0..rows.num_rows()).map(|row| if row % 2 == 0 { "ann" } else { "bea" });
    let mut columns = rows.columns().to_vec();
    columns[at] = Arc::new(StringArray::from_iter_values(users));
    RecordBatch::try_new(rows.schema(), columns).unwrap()
}

impl House {
    async fn new() -> Self {
        let pace = JobPace::new(&IngestLoad::default(), &Tasks::default());
        Self::with(Failpoints::default(), pace).await
    }

    async fn with(faults: Failpoints, pace: JobPace) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let warehouse = format!("file://{}/warehouse", folder.path().display());
        let storage = Storage::open(&warehouse, &S3Options::default()).unwrap();
        let metastore = Metastore::sqlite(&folder.path().join("icecore.db")).await.unwrap();
        make_tables(metastore.database()).await.unwrap();
        let clock = Clock::manual(NOW_MS);
        let store = Store::new(metastore.database().clone(), clock.clone(), "first");
        let now = clock.clone();
        let catalog = Catalog::new("icecore", storage, metastore, Arc::new(move || now.now_ms()));
        let options = WalOptions {
            folder: folder.path().join("wal"),
            segment_bytes: 4 << 20,
            free_segments_max: 1,
            bytes_max: 1 << 30,
            disk_free_min: 0.0,
            position_floor: 0,
            metrics: Metrics::default(),
        };
        let (wal, writer) = Wal::open(options, clock.clone(), Failpoints::default()).unwrap();
        let owner = LogOwnership::first();
        let parts = ErasureParts {
            store,
            wal,
            catalog,
            ids: IdGenerator::new(clock.clone()),
            owner: owner.clone(),
            faults,
            pace,
        };
        let erasures = Erasures::new(parts, folder.path());
        Self { erasures, owner, clock, _writer: writer, _folder: folder }
    }

    /// Writes down an erasure of a namespace that is gone, asked for at this position of the log.
    async fn add(&self, through: u64) {
        self.add_to("gone", through).await;
    }

    async fn add_to(&self, namespace: &str, through: u64) {
        let subject = ErasureSubject { user_id: Some("ann".to_owned()), ..Default::default() };
        let (erasure, levels) = ("e1".to_owned(), vec![namespace.to_owned()]);
        let entry = LedgerEntry { erasure, levels, subject, requested_ms: NOW_MS, seq: None };
        self.erasures.parts.store.add_erasure(&entry.into_stored(through, false)).await.unwrap();
    }

    /// Makes a table of events.
    async fn create(&self, namespace: &str) -> TableIdent {
        let (levels, catalog) = (vec![namespace.to_owned()], &self.erasures.parts.catalog);
        catalog.namespaces().ensure(&levels, &BTreeMap::new()).await.unwrap();
        catalog.tables().create(&levels, icecore_samples::events_table()).await.unwrap();
        foreign_ident(&levels, "events").unwrap()
    }

    async fn load(&self, table: &TableIdent) -> LoadedTable {
        self.erasures.parts.catalog.tables().load(table).await.unwrap()
    }

    async fn write(&self, table: &TableIdent) -> Vec<DataFile> {
        let ErasureParts { catalog, ids, .. } = &self.erasures.parts;
        let metadata = self.load(table).await.metadata;
        writer::write(catalog.storage(), &metadata, vec![rows_of_ann()], ids).await.unwrap()
    }

    async fn append(&self, table: &TableIdent, added: Vec<DataFile>) {
        let position = self.load(table).await.version.cast_unsigned();
        let watermark = Watermark { epoch: 1, position, last_seq: 300 };
        let mark = Some(MarkMove { watermark, since: 1 });
        let append = NewSnapshot { added, mark, ..NewSnapshot::default() };
        Box::pin(self.erasures.parts.catalog.add_snapshot(table, append)).await.unwrap();
    }

    /// Puts another file with the same rows in the place of one, as a compaction does.
    async fn replace(&self, table: &TableIdent, old: &DataFile) -> DataFile {
        let read = self.load(table).await.metadata.current_snapshot_id();
        let mut added = self.write(table).await;
        added.retain(|file| file.partition() == old.partition());
        let new = added[0].clone();
        let replacement = NewSnapshot {
            operation: Operation::Replace,
            read,
            added,
            removed: vec![old.clone()],
            ..NewSnapshot::default()
        };
        Box::pin(self.erasures.parts.catalog.add_snapshot(table, replacement)).await.unwrap();
        new
    }

    async fn report(&self) -> ErasureReport {
        self.erasures.show(&["gone".to_owned()], "e1").await.unwrap()
    }
}

#[tokio::test]
async fn positions_of_a_log_that_is_gone_are_not_waited_for() {
    let house = House::new().await;
    house.add(1_000).await;
    assert_eq!(house.erasures.reconcile().await.unwrap(), 0);
    assert_eq!(house.report().await.log.through, 0);
    assert!(house.erasures.ledger.read().await.unwrap().contains_key("e1"));
}

#[tokio::test]
async fn who_does_not_take_the_events_erases_nothing_and_a_namespace_may_be_gone() {
    let house = House::new().await;
    house.add(0).await;
    let (mut job, _wake) = house.erasures.job();
    house.owner.refuse("test", "another log is the owner".to_owned());
    assert!(matches!(job.tick().await, Ok(Progress::Skipped(_))));
    assert_eq!(house.report().await.status, ErasureStatus::Log);
    house.owner.clear("test");
    while matches!(job.tick().await.unwrap(), Progress::More) {}
    let ended = house.report().await;
    assert_eq!((ended.status, ended.error), (ErasureStatus::Done, None));
}

#[tokio::test]
async fn segments_that_do_not_go_are_waited_for_and_then_told() {
    let house = House::new().await;
    // Nobody carries out here what the log is asked for.
    house.add(1).await;
    let (mut job, _wake) = house.erasures.job();
    while matches!(job.tick().await.unwrap(), Progress::More) {}
    let waiting = house.report().await;
    assert_eq!(waiting.status, ErasureStatus::Proof);
    assert!(waiting.waits.unwrap().contains("segments of the log"));
    house.clock.advance_ms(2 * 3_600_000);
    while matches!(job.tick().await.unwrap(), Progress::More) {}
    let done = house.report().await;
    assert_eq!((done.status, &done.waits), (ErasureStatus::Done, &None));
    assert!(done.cannot.iter().any(|text| text == limits::LOG_KEEPS), "{done:?}");
}

/// Carries out the erasure of `shop` in a thread of its own, which may stand at a failpoint, until rows are
/// rewritten or something is in the way; the reports after each tick.
fn run_apart(house: &House) -> JoinHandle<Vec<ErasureReport>> {
    let (erasures, levels) = (house.erasures.clone(), vec!["shop".to_owned()]);
    std::thread::spawn(move || {
        // While this thread waits at a failpoint, another one gives its connection to the metastore back.
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        runtime.unwrap().block_on(async {
            let (mut job, _wake) = erasures.job();
            let mut reports = Vec::new();
            loop {
                Box::pin(job.tick()).await.unwrap();
                let report = erasures.show(&levels, "e1").await.unwrap();
                let is_last = report.error.is_some() || report.status == ErasureStatus::History;
                reports.push(report);
                if is_last {
                    return reports;
                }
            }
        })
    })
}

/// Carries it out to its end, with a clock that goes on while files wait for readers.
fn run_to_end_apart(house: &House) -> JoinHandle<ErasureReport> {
    const TICKS_MAX: usize = 1_000;
    let (erasures, clock, levels) =
        (house.erasures.clone(), house.clock.clone(), vec!["shop".to_owned()]);
    std::thread::spawn(move || {
        // While this thread waits at a failpoint, another one gives its connection to the metastore back.
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        runtime.unwrap().block_on(async {
            let (mut job, _wake) = erasures.job();
            for _ in 0..TICKS_MAX {
                Box::pin(job.tick()).await.unwrap();
                let report = erasures.show(&levels, "e1").await.unwrap();
                assert_eq!(report.error, None);
                match report.status {
                    ErasureStatus::Done | ErasureStatus::Failed => return report,
                    ErasureStatus::Files => clock.advance_ms(11 * 60_000),
                    ErasureStatus::Log
                    | ErasureStatus::Count
                    | ErasureStatus::Rewrite
                    | ErasureStatus::History
                    | ErasureStatus::Proof => (),
                }
            }
            panic!("it does not end")
        })
    })
}

async fn meet(barrier: &Arc<Barrier>) {
    let barrier = Arc::clone(barrier);
    tokio::task::spawn_blocking(move || barrier.wait()).await.unwrap();
}

#[tokio::test]
async fn a_hold_that_comes_while_files_are_written_anew_keeps_their_rows() {
    let (faults, barrier) = Failpoints::meeting("erase.before_commit");
    let pace = JobPace::new(&IngestLoad::default(), &Tasks::default());
    let house = House::with(faults, pace).await;
    let table = house.create("shop").await;
    let files = house.write(&table).await;
    house.append(&table, files).await;
    house.add_to("shop", 0).await;
    let version = house.load(&table).await.version;
    let running = run_apart(&house);
    meet(&barrier).await;
    let hold = LegalHold {
        levels: vec!["shop".to_owned()],
        name: "case-7".to_owned(),
        reason: None,
        since_ms: 0,
    };
    house.erasures.parts.catalog.metastore().set_hold(&hold).await.unwrap();
    meet(&barrier).await;
    let reports = tokio::task::spawn_blocking(|| running.join().unwrap()).await.unwrap();
    let last = reports.last().unwrap();
    assert_eq!(last.status, ErasureStatus::Rewrite);
    assert!(last.error.as_ref().unwrap().contains("is held by `case-7`"), "{last:?}");
    assert_eq!(house.load(&table).await.version, version);
}

#[tokio::test]
async fn a_long_rewrite_keeps_what_it_reads_and_commits_all_but_what_others_changed() {
    let (faults, barrier) = Failpoints::meeting("erase.before_commit");
    let pace = JobPace::new(&IngestLoad::default(), &Tasks::default());
    let house = House::with(faults, pace.leasing_after(Duration::ZERO)).await;
    let table = house.create("shop").await;
    let files = house.write(&table).await;
    assert_eq!(files.len(), 6);
    house.append(&table, files.clone()).await;
    house.add_to("shop", 0).await;
    let running = run_apart(&house);
    meet(&barrier).await;
    let hot = &files[3];
    house.replace(&table, hot).await;
    for _ in 0..=SNAPSHOTS_MAX + SNAPSHOTS_SLACK {
        house.append(&table, Vec::new()).await;
    }
    let thinned = house.erasures.parts.catalog.upkeep().thin(&table).await.unwrap();
    assert_eq!(thinned, 0, "what is read stays");
    meet(&barrier).await;
    let reports = tokio::task::spawn_blocking(|| running.join().unwrap()).await.unwrap();
    assert!(reports.iter().all(|report| report.error.is_none()), "{reports:?}");
    let told: Vec<&str> = reports.iter().filter_map(|report| report.waits.as_deref()).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains(&format!("`{}`", hot.file_path())), "{told:?}");
    let loaded = house.load(&table).await;
    let summaries = loaded.metadata.snapshots().map(|made| &made.summary().additional_properties);
    let mut replaced: Vec<&str> = summaries
        .filter(|entries| entries.contains_key(ERASURE))
        .map(|entries| entries["deleted-data-files"].as_str())
        .collect();
    replaced.sort_unstable();
    assert_eq!(replaced, ["1", "5"]);
    let rows = house.erasures.parts.catalog.tables().stats(&table).await.unwrap().data_rows;
    assert_eq!(rows, 150);
}

#[tokio::test]
async fn files_that_others_change_with_every_try_hold_up_the_other_steps_for_a_while_alone() {
    const TRIES: u32 = 3;
    let (faults, barrier) = Failpoints::meetings("erase.before_commit", TRIES);
    let pace = JobPace::new(&IngestLoad::default(), &Tasks::default());
    let house = House::with(faults, pace).await;
    let table = house.create("shop").await;
    let mut hot = house.write(&table).await.swap_remove(0);
    house.append(&table, vec![hot.clone()]).await;
    house.add_to("shop", 0).await;
    let running = run_apart(&house);
    let mut refused = String::new();
    for _ in 0..TRIES {
        meet(&barrier).await;
        refused = format!("`{}`", hot.file_path());
        hot = house.replace(&table, &hot).await;
        house.clock.advance_ms(rewrite::REFUSED_WAIT_MS / 2);
        meet(&barrier).await;
    }
    let reports = tokio::task::spawn_blocking(|| running.join().unwrap()).await.unwrap();
    assert!(reports.iter().all(|report| report.error.is_none()), "{reports:?}");
    assert_eq!(reports.iter().filter(|report| report.waits.is_some()).count(), 2, "{reports:?}");
    let left = reports.last().unwrap();
    assert_eq!((left.status, &left.waits), (ErasureStatus::History, &None), "{left:?}");
    let is_left = |text: &&String| text.contains(limits::TRIED_AGAIN);
    let told: Vec<&String> = left.cannot.iter().filter(is_left).collect();
    assert!(told.len() == 1 && told[0].contains(&refused), "{left:?}");
    // Nobody changes it any more: the proof finds it, and its rows go. They were counted once.
    let running = run_to_end_apart(&house);
    let done = tokio::task::spawn_blocking(|| running.join().unwrap()).await.unwrap();
    assert_eq!((done.status, &done.tables), (ErasureStatus::Done, &left.tables), "{done:?}");
    assert_eq!(done.cannot.iter().filter(is_left).count(), 0, "{done:?}");
    let rows = house.erasures.parts.catalog.tables().stats(&table).await.unwrap().data_rows;
    assert_eq!(rows, hot.record_count() - done.tables["events"].rows);
}

#[tokio::test]
async fn files_that_others_change_are_left_for_a_while_though_others_are_committed() {
    // Each step commits twice: with the file that is changed, and without it.
    const STEPS: u32 = 3;
    let (faults, barrier) = Failpoints::meetings("erase.before_commit", 2 * STEPS);
    let pace = JobPace::new(&IngestLoad::default(), &Tasks::default());
    let house = House::with(faults, pace).await;
    let table = house.create("shop").await;
    let mut hot = house.write(&table).await.swap_remove(0);
    house.append(&table, vec![hot.clone()]).await;
    let more = house.write(&table).await;
    house.append(&table, more).await;
    house.add_to("shop", 0).await;
    let running = run_apart(&house);
    let mut refused = String::new();
    for _ in 0..STEPS {
        meet(&barrier).await;
        refused = format!("`{}`", hot.file_path());
        hot = house.replace(&table, &hot).await;
        let more = house.write(&table).await;
        house.append(&table, more).await;
        house.clock.advance_ms(rewrite::REFUSED_WAIT_MS / 2);
        meet(&barrier).await;
        meet(&barrier).await;
        meet(&barrier).await;
    }
    let reports = tokio::task::spawn_blocking(|| running.join().unwrap()).await.unwrap();
    let left = reports.last().unwrap();
    assert_eq!((left.status, &left.waits), (ErasureStatus::History, &None), "{left:?}");
    let is_left = |text: &&String| text.contains(limits::TRIED_AGAIN);
    let told: Vec<&String> = left.cannot.iter().filter(is_left).collect();
    assert!(told.len() == 1 && told[0].contains(&refused), "{left:?}");
    // Nobody changes or adds any more.
    let running = run_to_end_apart(&house);
    let done = tokio::task::spawn_blocking(|| running.join().unwrap()).await.unwrap();
    assert_eq!(done.status, ErasureStatus::Done, "{done:?}");
    assert_eq!(done.cannot.iter().filter(is_left).count(), 0, "{done:?}");
}

#[tokio::test]
async fn a_snapshot_that_comes_while_the_proof_reads_others_is_looked_through() {
    let (faults, barrier) = Failpoints::meeting("erase.before_done");
    let pace = JobPace::new(&IngestLoad::default(), &Tasks::default());
    let house = House::with(faults, pace).await;
    let table = house.create("shop").await;
    let files = house.write(&table).await;
    house.append(&table, files).await;
    house.add_to("shop", 0).await;
    let running = run_to_end_apart(&house);
    meet(&barrier).await;
    // A writer that read the rows before they were erased brings them back.
    let again = house.write(&table).await;
    house.append(&table, again).await;
    meet(&barrier).await;
    let done = tokio::task::spawn_blocking(|| running.join().unwrap()).await.unwrap();
    assert_eq!(done.status, ErasureStatus::Done, "{done:?}");
    assert_eq!(done.tables["events"].rows, 2 * 150, "{done:?}");
    let rows = house.erasures.parts.catalog.tables().stats(&table).await.unwrap().data_rows;
    assert_eq!(rows, 2 * 150, "those of others");
}

#[tokio::test]
async fn a_refresh_waits_from_the_removal_of_the_history_to_the_end() {
    let house = House::new().await;
    let levels = vec!["shop".to_owned()];
    let mut documents = ErasedDocuments::default();
    documents.add("notes", "1");
    let user = ErasureSubject { user_id: Some("ann".to_owned()), ..Default::default() };
    let key = ErasureSubject { key: Some("1".to_owned()), ..Default::default() };
    for status in ErasureStatus::ALL {
        let from_history =
            [ErasureStatus::History, ErasureStatus::Files, ErasureStatus::Proof].contains(&status);
        for (subject, name, expected) in [(&user, "user", from_history), (&key, "key", false)] {
            let entry = LedgerEntry {
                erasure: format!("{name}-{}", status.name()),
                levels: levels.clone(),
                subject: subject.clone(),
                requested_ms: NOW_MS,
                seq: None,
            };
            let mut erasure = entry.into_stored(0, false);
            (erasure.report.status, erasure.documents) = (status, documents.clone());
            let (erasures, store) = (&house.erasures, &house.erasures.parts.store);
            store.add_erasure(&erasure).await.unwrap();
            let takes = erasures.takes_documents_of(&levels, "notes").await.unwrap();
            assert_eq!(takes, expected, "{name} {status:?}");
            assert!(!erasures.takes_documents_of(&levels, "orders").await.unwrap());
            erasure.report.status = ErasureStatus::Done;
            assert!(store.note_erasure(&erasure, status).await.unwrap());
        }
    }
}
