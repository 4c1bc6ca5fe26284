//! Both databases alike.

use super::*;
use icecore_catalog::metastore::Metastore;
use icecore_lake::collection::erased_documents::ErasedDocuments;
use icecore_schemas::{
    erasure::{ErasureLog, ErasureReport, ErasureStatus, ErasureSubject},
    jobs::{BeforeAfter, JobOutcome, JobReport, JobRun, JobTrigger, JobUsage, SkippedTable},
};
use std::{collections::BTreeMap, time::Duration};

const LENGTH: Duration = Duration::from_secs(60);

/// A database, and two servers on it whose clocks have nothing to do with each other.
struct Servers {
    stores: [Store; 2],
    clocks: [Clock; 2],
    database: Database,
    _folder: Option<tempfile::TempDir>,
}

impl Servers {
    async fn on(metastore: &Metastore, folder: Option<tempfile::TempDir>) -> Self {
        let clocks = [Clock::manual(1_000_000), Clock::manual(9_000_000_000)];
        let database = metastore.database().clone();
        make_tables(&database).await.unwrap();
        let open = |server, clock: &Clock| Store::new(database.clone(), clock.clone(), server);
        let stores = [open("first", &clocks[0]), open("second", &clocks[1])];
        Self { stores, clocks, database, _folder: folder }
    }

    fn leases(&self) -> [Lease; 2] {
        self.stores.each_ref().map(|store| store.lease("sweep", LENGTH))
    }

    fn pass(&self, ms: i64) {
        self.clocks.iter().for_each(|clock| clock.advance_ms(ms));
    }
}

/// The databases there are; PostgreSQL only where a server for tests is named.
async fn databases() -> Vec<Servers> {
    let folder = tempfile::tempdir().unwrap();
    let sqlite = Metastore::sqlite(&folder.path().join("icecore.db")).await.unwrap();
    let mut all = vec![Servers::on(&sqlite, Some(folder)).await];
    if let Some(url) = postgres().await {
        let postgres = Metastore::postgres(&url).await.unwrap();
        all.push(Servers::on(&postgres, None).await);
    }
    all
}

/// The URL of a new, empty database; none without a server.
#[expect(clippy::disallowed_methods, reason = "says where the tests' PostgreSQL is")]
async fn postgres() -> Option<String> {
    let Ok(server) = std::env::var("TEST_POSTGRES") else {
        assert!(std::env::var_os("CI").is_none(), "PostgreSQL is not tested");
        return None;
    };
    sqlx::any::install_default_drivers();
    let name = format!("test_{}", uuid::Uuid::new_v4().simple());
    let pool = sqlx::AnyPool::connect(&server).await.unwrap();
    let made = sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}")));
    made.execute(&pool).await.unwrap();
    let (server, _) = server.rsplit_once('/').unwrap();
    Some(format!("{server}/{name}"))
}

async fn epoch(lease: &mut Lease) -> Option<i64> {
    lease.hold().await.unwrap().map(|fence| fence.epoch)
}

#[tokio::test]
async fn one_holds_a_lease_and_another_gets_it_once_it_is_not_renewed() {
    for servers in databases().await {
        let [mut first, mut second] = servers.leases();
        assert_eq!((epoch(&mut first).await, epoch(&mut second).await), (Some(1), None));
        // Whoever renews keeps it for as long as that goes on.
        for _ in 0..10 {
            servers.pass(40_000);
            assert_eq!((epoch(&mut first).await, epoch(&mut second).await), (Some(1), None));
        }
        servers.pass(59_999);
        assert_eq!(first.fence().map(|fence| fence.epoch), Some(1));
        servers.pass(1);
        assert_eq!(first.fence(), None, "the holder stops before anybody else begins");
        assert_eq!(epoch(&mut second).await, None, "clocks do not tick alike");
        servers.pass(6_001);
        assert_eq!(epoch(&mut second).await, Some(2));
        assert_eq!(epoch(&mut first).await, None);
    }
}

#[tokio::test]
async fn a_time_of_day_that_jumps_moves_no_lease() {
    for servers in databases().await {
        let [mut first, mut second] = servers.leases();
        assert_eq!((epoch(&mut first).await, epoch(&mut second).await), (Some(1), None));
        servers.clocks.iter().for_each(|clock| clock.jump_ms(86_400_000));
        assert_eq!((epoch(&mut first).await, epoch(&mut second).await), (Some(1), None));
        servers.clocks.iter().for_each(|clock| clock.jump_ms(-2 * 86_400_000));
        assert_eq!((epoch(&mut first).await, epoch(&mut second).await), (Some(1), None));
    }
}

#[tokio::test]
async fn a_lease_that_is_released_goes_to_the_next_who_asks() {
    for servers in databases().await {
        let [mut first, mut second] = servers.leases();
        assert_eq!((epoch(&mut first).await, epoch(&mut second).await), (Some(1), None));
        first.release().await.unwrap();
        assert_eq!((epoch(&mut second).await, epoch(&mut first).await), (Some(2), None));
        // One that was lost is not another's to release.
        first.release().await.unwrap();
        assert_eq!(epoch(&mut second).await, Some(2));
    }
}

#[tokio::test]
async fn a_server_that_starts_again_does_not_wait_for_its_earlier_life() {
    for servers in databases().await {
        let [mut earlier, mut other] = servers.leases();
        assert_eq!((epoch(&mut earlier).await, epoch(&mut other).await), (Some(1), None));
        let [mut again, _] = servers.leases();
        assert_eq!(epoch(&mut again).await, Some(2));
        // Of two processes that call themselves the same, the earlier one waits as others do.
        servers.pass(30_000);
        assert_eq!((epoch(&mut earlier).await, epoch(&mut again).await), (None, Some(2)));
        assert_eq!(epoch(&mut earlier).await, None);
    }
}

#[tokio::test]
async fn nothing_is_written_under_a_lease_that_has_gone() {
    for servers in databases().await {
        let [mut first, mut second] = servers.leases();
        let stale = first.hold().await.unwrap().unwrap();
        servers.stores[0].begin_under(&stale).await.unwrap().commit().await.unwrap();
        first.release().await.unwrap();
        let fence = second.hold().await.unwrap().unwrap();
        let refused = servers.stores[0].begin_under(&stale).await.unwrap_err();
        assert!(matches!(refused, StoreError::Fenced(_)), "{refused}");
        servers.stores[1].begin_under(&fence).await.unwrap().commit().await.unwrap();
    }
}

#[tokio::test]
async fn of_many_who_ask_at_once_one_gets_the_lease() {
    for servers in databases().await {
        let mut seats: Vec<Lease> =
            (0..8).map(|_| servers.stores[0].lease("race", LENGTH)).collect();
        let asked = futures::future::join_all(seats.iter_mut().map(Lease::hold)).await;
        let held: Vec<i64> = asked.into_iter().flatten().flatten().map(|held| held.epoch).collect();
        assert!(!held.is_empty());
        // Seats of one server take it from each other, each under an epoch of its own.
        let mut distinct = held.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), held.len());
    }
}

fn run(started_ms: i64, error: Option<&str>) -> JobRun {
    let outcome = if error.is_some() { JobOutcome::Failed } else { JobOutcome::Worked };
    let (error, trigger) = (error.map(str::to_owned), Some(JobTrigger::Time));
    let usage = Some(JobUsage { cpu_ms: 3, bytes_read: 70, bytes_written: 30 });
    let reason = None;
    JobRun { started_ms, elapsed_ms: 5, outcome, error, reason, trigger, usage, report: None }
}

#[tokio::test]
async fn the_last_runs_of_each_servers_jobs_are_kept() {
    for servers in databases().await {
        let [first, second] = &servers.stores;
        let runs: Vec<(&str, JobRun)> =
            (0..25).map(|n| ("flush", run(1_000_000 + n, None))).collect();
        first.keep_runs(&runs).await.unwrap();
        first.keep_runs(&[("sweep", run(1_000_007, Some("no room")))]).await.unwrap();
        // A repeat changes nothing.
        first.keep_runs(&[("sweep", run(1_000_007, None))]).await.unwrap();
        let kept = first.runs().await.unwrap();
        let flushes: Vec<i64> = kept
            .iter()
            .filter_map(|(job, run)| (job == "flush").then_some(run.started_ms))
            .collect();
        assert_eq!(flushes, (1_000_015..1_000_025).rev().collect::<Vec<i64>>());
        let sweeps: Vec<&JobRun> =
            kept.iter().filter_map(|(job, run)| (job == "sweep").then_some(run)).collect();
        assert_eq!(sweeps, [&run(1_000_007, Some("no room"))]);
        assert!(second.runs().await.unwrap().is_empty());
        // What a server left that is gone is forgotten by another one.
        second.keep_runs(&[]).await.unwrap();
        assert!(first.runs().await.unwrap().is_empty(), "its clock is months ahead");
    }
}

#[tokio::test]
async fn tables_that_are_there_are_not_made_again() {
    for servers in databases().await {
        servers.stores[0].keep_runs(&[("sweep", run(1_000_000, None))]).await.unwrap();
        make_tables(&servers.database).await.unwrap();
        assert_eq!(servers.stores[0].runs().await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_run_is_kept_with_its_reason_and_its_report() {
    for servers in databases().await {
        let skipped =
            SkippedTable { table: "shop.events".to_owned(), reason: "no room".to_owned() };
        let files = BeforeAfter { before: 7, after: 2 };
        let job = "compact-day".to_owned();
        let report =
            JobReport { job, tables: 1, files, skipped: vec![skipped], ..JobReport::default() };
        let triggers = JobTrigger::ALL.into_iter().map(Some).chain([None]);
        let runs: Vec<(&str, JobRun)> = (1_000_000..)
            .zip(triggers)
            .map(|(started_ms, trigger)| {
                let report = Some(report.clone());
                ("compact-day", JobRun { trigger, report, ..run(started_ms, None) })
            })
            .collect();
        servers.stores[0].keep_runs(&runs).await.unwrap();
        let idle = JobRun {
            outcome: JobOutcome::Idle,
            reason: Some("no room".to_owned()),
            ..run(1_000_100, None)
        };
        servers.stores[0].keep_runs(&[("tags", idle.clone())]).await.unwrap();
        let mut kept = servers.stores[0].runs().await.unwrap();
        assert_eq!(kept.remove(0), ("tags".to_owned(), idle));
        kept.reverse();
        let kept: Vec<(&str, JobRun)> =
            kept.iter().map(|(job, run)| (job.as_str(), run.clone())).collect();
        assert_eq!(kept, runs);
    }
}

#[tokio::test]
async fn runs_of_an_earlier_layout_stay() {
    let folder = tempfile::tempdir().unwrap();
    let sqlite = Metastore::sqlite(&folder.path().join("icecore.db")).await.unwrap();
    let mut metastores = vec![sqlite];
    if let Some(url) = postgres().await {
        metastores.push(Metastore::postgres(&url).await.unwrap());
    }
    for metastore in metastores {
        let steps = &[lease::STEP, runs::STEP];
        let before = DatabaseLayout { table: "service_layout", steps };
        metastore.database().make(&before).await.unwrap();
        let kept = "INSERT INTO service_job_runs
                    VALUES ('first', 'flush', 1000000, 5, 'worked', NULL)";
        sqlx::query(kept).execute(metastore.database().writer()).await.unwrap();
        let servers = Servers::on(&metastore, None).await;
        let expected = JobRun { trigger: None, usage: None, ..run(1_000_000, None) };
        assert_eq!(servers.stores[0].runs().await.unwrap(), [("flush".to_owned(), expected)]);
        assert_eq!(servers.stores[0].planned_time("tags").await.unwrap(), None);
    }
}

#[tokio::test]
async fn the_last_time_of_a_plan_is_known_to_every_server_and_moved_under_the_lease() {
    for servers in databases().await {
        let [first, second] = &servers.stores;
        first.plan_from("tags", 5_000).await.unwrap();
        second.plan_from("tags", 9_000).await.unwrap();
        assert_eq!(second.planned_time("tags").await.unwrap(), Some(5_000), "the first counts");
        let [mut lease, mut other] = servers.leases();
        let fence = lease.hold().await.unwrap().unwrap();
        first.note_time("tags", 60_000, &fence).await.unwrap();
        assert_eq!(second.planned_time("tags").await.unwrap(), Some(60_000));
        assert_eq!(second.planned_time("orphans").await.unwrap(), None);
        lease.release().await.unwrap();
        other.hold().await.unwrap().unwrap();
        let refused = first.note_time("tags", 120_000, &fence).await.unwrap_err();
        assert!(matches!(refused, StoreError::Fenced(_)), "{refused}");
        assert_eq!(first.planned_time("tags").await.unwrap(), Some(60_000));
    }
}

#[tokio::test]
async fn a_metastore_that_moves_to_postgres_leaves_rows_of_running_servers_behind() {
    let Some(url) = postgres().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("icecore.db");
    let servers = Servers::on(&Metastore::sqlite(&file).await.unwrap(), None).await;
    let [mut lease, _] = servers.leases();
    assert_eq!(epoch(&mut lease).await, Some(1));
    servers.stores[0].keep_runs(&[("sweep", run(1_000_000, None))]).await.unwrap();
    Metastore::copy_to_postgres(&file, &url).await.unwrap();
    let moved = Servers::on(&Metastore::postgres(&url).await.unwrap(), None).await;
    let [_, mut other] = moved.leases();
    assert_eq!(epoch(&mut other).await, Some(1));
    assert!(moved.stores[0].runs().await.unwrap().is_empty());
}

fn erasure(id: &str, status: ErasureStatus) -> StoredErasure {
    let report = ErasureReport {
        erasure: id.to_owned(),
        status,
        namespace: "shop".to_owned(),
        subject: ErasureSubject { user_id: Some("ann".to_owned()), ..ErasureSubject::default() },
        dry_run: false,
        since: "2026-09-21T14:13:20.000Z".to_owned(),
        tables: BTreeMap::new(),
        refs: Vec::new(),
        dead_letters: 0,
        log: ErasureLog::default(),
        bound: None,
        waits: None,
        cannot: vec!["a backup".to_owned()],
        error: None,
    };
    let levels = vec!["shop".to_owned()];
    let documents = ErasedDocuments::default();
    StoredErasure { levels, requested_ms: 7, passes: 0, until_ms: 0, report, documents }
}

#[tokio::test]
async fn the_ledger_of_erasures_is_the_same_for_every_server() {
    for servers in databases().await {
        let [first, second] = &servers.stores;
        let begun = erasure("a", ErasureStatus::Log);
        first.add_erasure(&begun).await.unwrap();
        first.add_erasure(&erasure("b", ErasureStatus::Done)).await.unwrap();
        // One that is there stays as it is.
        second.add_erasure(&erasure("a", ErasureStatus::Done)).await.unwrap();
        let levels = begun.levels.clone();
        assert_eq!(second.erasure(&levels, "a").await.unwrap(), Some(begun.clone()));
        assert_eq!(second.erasure(&["other".to_owned()], "a").await.unwrap(), None);
        assert_eq!(second.open_erasures().await.unwrap(), std::slice::from_ref(&begun));

        let mut next = begun.clone();
        next.report.status = ErasureStatus::Count;
        (next.passes, next.until_ms) = (1, 9);
        next.documents.add("users", "7");
        assert!(first.note_erasure(&next, ErasureStatus::Log).await.unwrap());
        assert!(!second.note_erasure(&begun, ErasureStatus::Log).await.unwrap(), "it is elsewhere");
        let ids = |all: Vec<StoredErasure>| -> Vec<String> {
            all.into_iter().map(|it| it.report.erasure).collect()
        };
        assert_eq!(ids(second.erasures(&levels).await.unwrap()), ["b", "a"]);
        assert_eq!(second.all_erasures().await.unwrap()[0], next);
    }
}
