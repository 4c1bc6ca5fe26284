use super::*;
use crate::{store::make_tables, tasks::Tasks};
use icecore_catalog::{
    metastore::Metastore,
    storage::{S3Options, Storage},
};
use icecore_lake::{
    clock::Clock,
    load::IngestLoad,
    metrics::Metrics,
    wal::{WalOptions, WalWriter},
};
use icecore_schemas::erasure::ErasureSubject;

const NOW_MS: i64 = 1_790_000_000_000;

/// Erasures of a catalog without namespaces, and an empty log.
struct House {
    erasures: Erasures,
    owner: LogOwnership,
    _writer: WalWriter,
    _folder: tempfile::TempDir,
}

impl House {
    async fn new() -> Self {
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
            ids: IdGenerator::new(clock),
            owner: owner.clone(),
            faults: Failpoints::default(),
            pace: JobPace::new(&IngestLoad::default(), &Tasks::default()),
        };
        let erasures = Erasures::new(parts, folder.path());
        Self { erasures, owner, _writer: writer, _folder: folder }
    }

    /// Writes down an erasure of a namespace that is gone, asked for at this position of the log.
    async fn add(&self, through: u64) {
        let subject = ErasureSubject { user_id: Some("ann".to_owned()), ..Default::default() };
        let (erasure, levels) = ("e1".to_owned(), vec!["gone".to_owned()]);
        let entry = LedgerEntry { erasure, levels, subject, requested_ms: NOW_MS, seq: None };
        self.erasures.parts.store.add_erasure(&entry.into_stored(through, false)).await.unwrap();
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
