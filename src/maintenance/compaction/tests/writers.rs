//! Tables that Spark, Flink or Trino may be writing.

use super::*;
use crate::maintenance::compaction::writers::WRITER;
use icecore_catalog::{catalog::WRITER_PAUSE_MS, metastore::WriterLoad};

const MINUTE_MS: i64 = 60_000;

impl House {
    /// Five commits: one more than the job leaves.
    async fn with_small_files(faults: Failpoints) -> Self {
        let mut house = Self::with(faults).await;
        for _ in 0..5 {
            house.append(30, 1).await;
        }
        house
    }

    /// An engine loads the table, again where `is_refresh`.
    async fn note_writer(&self, is_refresh: bool) {
        let load = WriterLoad { at_ms: self.catalog.now_ms(), is_refresh };
        let uuid = self.load().await.metadata.uuid();
        self.catalog.metastore().note_writer_load(uuid, load, WRITER_PAUSE_MS).await.unwrap();
    }

    /// How many files the table has.
    async fn count(&self) -> usize {
        let loaded = self.load().await;
        self.planned(&loaded.metadata, self.head().await).await.len()
    }
}

fn at_its_times() -> CompactionRequest {
    CompactionRequest { mode: CompactionMode::ClosedDays, ..CompactionRequest::steady() }
}

#[tokio::test]
async fn the_job_waits_while_an_engine_may_be_writing_and_a_run_by_hand_does_not() {
    let house = House::with_small_files(Failpoints::default()).await;
    let mut job = CompactTables::new(house.compaction.clone());
    house.note_writer(false).await;
    assert_eq!(job.tick().await.unwrap(), Progress::Idle);
    let told = SkippedTable { table: house.table.to_string(), reason: WRITER.to_owned() };
    let report = house.compaction.run(&at_its_times()).await.unwrap();
    assert_eq!((report.files.before, report.skipped), (0, vec![told.clone()]));
    assert_eq!(house.count().await, 15);
    let dry = house.compaction.run(&CompactionRequest { dry_run: true, ..now() }).await.unwrap();
    assert_eq!((dry.files.before, dry.skipped), (15, vec![told]));
    house.clock.advance_ms(2 * MINUTE_MS - 1);
    assert_eq!(job.tick().await.unwrap(), Progress::Idle);
    house.clock.advance_ms(1);
    while job.tick().await.unwrap() != Progress::Idle {}
    assert_eq!(house.count().await, 3);

    let mut house = House::with_small_files(Failpoints::default()).await;
    house.note_writer(true).await;
    let report = house.compact().await;
    assert_eq!((report.files.before, report.skipped), (15, Vec::new()));
    house.check().await;
}

#[tokio::test]
async fn an_engine_that_loads_again_and_again_leaves_the_job_its_time() {
    let house = House::with_small_files(Failpoints::default()).await;
    let mut job = CompactTables::new(house.compaction.clone());
    for minute in 0..=60 {
        house.note_writer(minute % 2 == 1).await;
        let is_open = minute == 60;
        while job.tick().await.unwrap() != Progress::Idle {}
        let files = if is_open { 3 } else { 15 };
        assert_eq!(house.count().await, files, "after {minute} minutes");
        house.clock.advance_ms(MINUTE_MS);
    }
}

#[tokio::test]
async fn an_engine_that_loads_a_table_while_its_files_are_merged_finds_them_there() {
    let (faults, barrier) = Failpoints::meeting("compact.before_write");
    let house = House::with_small_files(faults).await;
    let files = house.data_files().await.len();
    // The failpoint holds a thread, so the job has one of its own.
    let compaction = house.compaction.clone();
    let run = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(CompactTables::new(compaction).tick())
    });
    let meet = || {
        let barrier = Arc::clone(&barrier);
        tokio::task::spawn_blocking(move || barrier.wait())
    };
    meet().await.unwrap();
    house.note_writer(false).await;
    meet().await.unwrap();
    let ended = tokio::task::spawn_blocking(|| run.join().unwrap()).await.unwrap().unwrap();
    assert_eq!(ended, Progress::Idle);
    assert_eq!(house.count().await, 15);
    assert_eq!(house.data_files().await.len(), files, "what was written is deleted");
    house.clock.advance_ms(2 * MINUTE_MS);
    let mut job = CompactTables::new(house.compaction.clone());
    while job.tick().await.unwrap() != Progress::Idle {}
    assert_eq!(house.count().await, 3);
}
