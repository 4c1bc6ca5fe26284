use super::*;
use crate::{
    maintenance::{erasure::ErasureParts, pace::JobPace},
    sql::{SqlOptions, slots::SlotsMax},
    store::{Store, make_tables},
    tasks::Tasks,
};
use icecore_catalog::{
    metastore::Metastore,
    storage::{S3Options, Storage},
};
use icecore_lake::{
    clock::Clock,
    faults::Failpoints,
    load::IngestLoad,
    metrics::Metrics,
    wal::{Wal, WalOptions, WalWriter},
};
use icecore_schemas::service_table::ServiceTables;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

const NOW_MS: i64 = 1_790_000_000_000;
const HOUR_MS: i64 = 60 * 60 * 1000;

/// The job over a catalog with an empty namespace `shop`.
struct JobHouse {
    job: RefreshDue,
    clock: Clock,
    _writer: WalWriter,
    _folder: tempfile::TempDir,
}

impl JobHouse {
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
        catalog.namespaces().ensure(&vec!["shop".to_owned()], &BTreeMap::new()).await.unwrap();
        let log = WalOptions {
            folder: folder.path().join("wal"),
            segment_bytes: 1 << 20,
            free_segments_max: 1,
            bytes_max: 1 << 30,
            disk_free_min: 0.0,
            position_floor: 0,
            metrics: Metrics::default(),
        };
        let (wal, writer) = Wal::open(log, clock.clone(), Failpoints::default()).unwrap();
        let (owner, ids) = (LogOwnership::first(), IdGenerator::new(clock.clone()));
        let options = SqlOptions {
            memory_bytes_max: 256 << 20,
            timeout_max: Duration::from_secs(60),
            rows_max: 1_000,
            concurrent: SlotsMax { all: 4, namespace: 4, token: 4 },
            metrics: Metrics::default(),
            tables: ServiceTables::default(),
            filters_visibility: false,
            workers: None,
        };
        let faults = Failpoints::default();
        let sql = Sql::new(options, wal.clone(), owner.clone(), catalog.clone(), faults.clone());
        let pace = JobPace::new(&IngestLoad::default(), &Tasks::default());
        let parts = ErasureParts {
            store,
            wal,
            catalog: catalog.clone(),
            ids: ids.clone(),
            owner: owner.clone(),
            faults,
            pace,
        };
        let erasures = Erasures::new(parts, folder.path());
        let job = RefreshDue::new(RefreshNow::new(&catalog, &sql, &erasures, &ids), &owner);
        Self { job, clock, _writer: writer, _folder: folder }
    }

    /// Whether a tick made rows anew.
    async fn refreshes(&mut self) -> bool {
        let ended = self.job.tick().await.unwrap();
        assert!(matches!(ended, Progress::Done | Progress::Idle), "{ended:?}");
        matches!(ended, Progress::Done)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_read_again_once_it_has_another_metadata_file() {
    let mut house = JobHouse::new().await;
    let ident = foreign_ident(&["shop".to_owned()], "one").unwrap();
    let query = MaterializedQuery::parse("SELECT 1 AS x", "@hourly").unwrap();
    let RefreshNow { catalog, sql, ids, .. } = house.job.tables.clone();
    let caller = RefreshCaller { catalog: catalog.clone(), ids: &ids, erasures: None };
    sql.materialize(&caller, ident.clone(), query).await.unwrap();
    assert!(!house.refreshes().await);
    house.clock.advance_ms(HOUR_MS);
    assert!(house.refreshes().await);
    assert!(!house.refreshes().await);
    // What is known of the file is not asked of the table.
    house.job.known.get_mut(&ident).unwrap().schedule = None;
    house.clock.advance_ms(HOUR_MS);
    assert!(!house.refreshes().await);
    let table = catalog.tables().load(&ident).await.unwrap();
    let often = MaterializedQuery::parse("SELECT 1 AS x", "0,30 * * * *").unwrap();
    crate::sql::materialized::note(&catalog, ident.clone(), &table, Some(&often)).await.unwrap();
    assert!(house.refreshes().await);
    // Another query is another origin, for which no time has to come.
    let table = catalog.tables().load(&ident).await.unwrap();
    let other = MaterializedQuery::parse("SELECT 2 AS x", "0 0 1 1 *").unwrap();
    crate::sql::materialized::note(&catalog, ident, &table, Some(&other)).await.unwrap();
    assert!(house.refreshes().await);
    assert!(!house.refreshes().await);
}
