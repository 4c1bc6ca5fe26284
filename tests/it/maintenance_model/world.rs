//! A server, what its table has to show, and the steps that change both.
//!
//! After each step everything is looked at: [`checks`].

mod checks;
mod crashes;
mod removals;

use crate::{
    harness::{TestServer, config, rfc3339},
    maintenance_model::{
        disk::DiskReader,
        model::{RowCounts, TableModel},
        steps::{Late, Step},
        writer::{ForeignCommit, ForeignWork, ForeignWriter},
    },
};
use futures::future::join_all;
use iceberg::{
    TableIdent,
    spec::{SnapshotRef, TableMetadata},
};
use icecore::{
    maintenance::{obsolete::DeleteObsolete, thinning::ThinSnapshots},
    tasks::{Job, Progress},
};
use icecore_catalog::{
    catalog::Catalog,
    error::CatalogError,
    metastore::Metastore,
    retention::{SNAPSHOTS_MAX, SNAPSHOTS_SLACK},
    snapshot::{NewSnapshot, READER_GRACE_MS},
    storage::{S3Options, Storage},
};
use icecore_lake::{clock::Clock, faults::Failpoints};
use reqwest::Method;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tempfile::TempDir;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
const NOW_MS: i64 = 1_790_000_000_000;
/// Nothing happens by itself: maintenance is a step.
const SETTINGS: &[(&str, &str)] = &[
    ("compaction.enabled", "off"),
    ("orphans.cron", ""),
    ("retention.cron", ""),
    ("dead_letters.cron", ""),
    ("expire.cron", ""),
    ("retention.events", "t1=1d"),
];
/// Each so many events of a step are of one sender.
const ACTORS: u32 = 3;
/// For so long an event may be sent again: its id is known for a day more.
const REPEATED_MS: i64 = 6 * DAY_MS;
/// Most events that are sent again.
const REPEATS_MAX: usize = 20;
/// Most of the newest snapshots of a step that SQL reads at once.
const NEWEST_READ_MAX: usize = 3;
/// Most snapshots that SQL reads at the end, from all of the history, and with `LARGE=1`. What each has on
/// disk was read when it came.
const READ_AT_END_MAX: usize = 16;
const LARGE_READ_AT_END_MAX: usize = 100;
/// Tries of a thinning while the server may thin, too.
const THINNINGS_MAX: usize = 5;
/// Tries of a look at files while others may remove snapshots.
const LOOKS_MAX: usize = 3;
const TABLE: &str = "/v1/shop/tables/events";
const COMMITS: &str = "/catalog/v1/namespaces/shop/tables/events";

/// What a run did, so that one which did nothing does not pass for a proof.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RunCounts {
    /// Commits of other engines that were taken.
    pub(crate) foreign: u64,
    /// Compactions that merged files.
    pub(crate) merges: u64,
    /// Steps that a kill or a fault met.
    pub(crate) faults: u64,
    /// Snapshots that were thinned away.
    pub(crate) thinned: usize,
    /// Senders whose rows were erased.
    pub(crate) erased: u64,
    /// Runs of retention that took rows out.
    pub(crate) retained: u64,
}

impl RunCounts {
    pub(crate) fn add(&mut self, other: Self) {
        self.foreign += other.foreign;
        self.merges += other.merges;
        self.faults += other.faults;
        self.thinned += other.thinned;
        self.erased += other.erased;
        self.retained += other.retained;
    }
}

/// What tells whether an event is to go.
struct EventFacts {
    kind: String,
    actor: String,
    ts_ms: i64,
}

/// Whether the long form runs.
fn is_large() -> bool {
    std::env::var_os("LARGE").is_some()
}

/// A server and its model.
pub(crate) struct World {
    /// None between two servers.
    server: Option<TestServer>,
    /// Of another process of the catalog, which does maintenance when a step says so.
    catalog: Catalog,
    disk: DiskReader,
    clock: Clock,
    model: TableModel,
    counts: RunCounts,
    /// Events that were sent, when, as they were.
    sent: Vec<(i64, Value)>,
    /// Every event that was ever sent, by its id.
    events: BTreeMap<String, EventFacts>,
    /// Ids and names that were given.
    named: u64,
    /// Which of the older snapshots the next check reads.
    turn: usize,
}

/// The table as it was looked at.
struct SeenTable {
    metadata: Arc<TableMetadata>,
    /// The snapshots, the oldest first.
    snapshots: Vec<SnapshotRef>,
}

impl SeenTable {
    fn head(&self) -> Option<i64> {
        self.metadata.current_snapshot_id()
    }
}

/// The catalog of a folder, at the time of this clock.
pub(crate) async fn open_catalog(folder: &TempDir, clock: &Clock) -> Catalog {
    let metastore = Metastore::sqlite(&folder.path().join("icecore.db")).await.unwrap();
    let now = clock.clone();
    Catalog::new("icecore", open_storage(folder), metastore, Arc::new(move || now.now_ms()))
}

pub(crate) fn open_storage(folder: &TempDir) -> Storage {
    let warehouse = format!("file://{}/warehouse", folder.path().display());
    Storage::open(&warehouse, &S3Options::default()).unwrap()
}

fn table() -> TableIdent {
    TableIdent::from_strs(["shop", "events"]).unwrap()
}

impl World {
    pub(crate) async fn start() -> Self {
        let clock = Clock::manual(NOW_MS);
        let folder = tempfile::tempdir().unwrap();
        let server = TestServer::start_at(folder, SETTINGS, clock.clone()).await;
        let catalog = open_catalog(&server.folder, &clock).await;
        let disk = DiskReader::new(open_storage(&server.folder));
        let (model, counts) = (TableModel::default(), RunCounts::default());
        let (server, sent, events) = (Some(server), Vec::new(), BTreeMap::new());
        Self { server, catalog, disk, clock, model, counts, sent, events, named: 0, turn: 0 }
    }

    /// Makes a step and checks everything.
    pub(crate) async fn step(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Append { events, types, days_late } => {
                self.append(events, types, days_late).await;
            }
            Step::Repeat => self.repeat().await,
            Step::Commit => self.commit().await?,
            Step::Name { kind, pick } => self.name(kind, pick).await,
            Step::DropName { pick } => self.drop_name(pick).await,
            Step::Run { job } => self.run(job).await,
            Step::Erase { pick } => Box::pin(self.erase(pick)).await?,
            Step::Retain => Box::pin(self.retain()).await?,
            Step::Foreign { work, on_branch, late, seed } => {
                Box::pin(self.foreign(work, on_branch, late, seed)).await?;
            }
            Step::Rollback { pick } => self.roll_back(pick).await?,
            Step::Expire { pick } => self.expire(pick).await,
            Step::Wait { hours } => self.wait(hours * HOUR_MS).await,
            Step::Restart => Box::pin(self.restart(Failpoints::default())).await,
            Step::Fail { point } => Box::pin(self.fail(point)).await?,
            Step::Kill { point } => Box::pin(self.kill(point)).await?,
            Step::Overgrow => Box::pin(self.overgrow()).await?,
        }
        Box::pin(self.check()).await
    }

    /// Reads retained snapshots by SQL and ends the server.
    pub(crate) async fn end(mut self) -> Result<RunCounts, String> {
        Box::pin(self.commit()).await?;
        let seen = self.look().await.ok_or("there is no table")?;
        let most = if is_large() { LARGE_READ_AT_END_MAX } else { READ_AT_END_MAX };
        let step = seen.snapshots.len().div_ceil(most).max(1);
        for snapshot in seen.snapshots.iter().rev().step_by(step) {
            self.read_snapshot(snapshot.snapshot_id()).await?;
        }
        drop(self.stop().await);
        Ok(self.counts)
    }

    fn server(&self) -> &TestServer {
        self.server.as_ref().unwrap()
    }

    async fn stop(&mut self) -> TempDir {
        let folder = self.server.take().unwrap().stop().await;
        self.catalog.metastore().clone().close().await;
        folder
    }

    async fn start_in(&mut self, folder: TempDir, faults: Failpoints) {
        let mut config = config(&folder, SETTINGS);
        config.faults = faults;
        let started = TestServer::start_with(folder, &config, self.clock.clone());
        let server = Box::pin(started).await;
        self.catalog = open_catalog(&server.folder, &self.clock).await;
        self.server = Some(server);
    }

    async fn restart(&mut self, faults: Failpoints) {
        let folder = self.stop().await;
        self.start_in(folder, faults).await;
    }

    async fn call(&self, method: Method, path: &str, body: &Value) -> (u16, Value) {
        let server = self.server();
        let request = server.http.request(method, format!("{}{path}", server.url)).json(body);
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default())
    }

    async fn append(&mut self, events: u32, types: u32, days_late: i64) {
        let now_ms = self.clock.now_ms();
        let (mut list, mut ids) = (Vec::new(), Vec::new());
        let step = self.named;
        for n in 0..events {
            self.named += 1;
            let id = format!("e-{}", self.named);
            let (kind, actor) = (format!("t{}", n % types), format!("a-{step}-{}", n % ACTORS));
            let mut event =
                json!({"id": id, "type": kind, "ns": "shop", "actor": actor, "data": {"n": n}});
            let mut ts_ms = now_ms;
            if 0 < days_late && n % 2 == 0 {
                ts_ms -= days_late * DAY_MS;
                event["ts"] = json!(rfc3339(ts_ms));
            }
            self.events.insert(id.clone(), EventFacts { kind, actor, ts_ms });
            self.sent.push((now_ms, event.clone()));
            list.push(event);
            ids.push(id);
        }
        // One of them is there twice.
        list.push(list[0].clone());
        let reply = self.ingest(&list).await;
        assert_eq!(reply["duplicates"], 1, "{reply}");
        let (first, last) = (reply["seq"]["first"].as_i64(), reply["seq"]["last"].as_i64());
        let (first, last) = (first.unwrap(), last.unwrap());
        assert_eq!(last - first + 1, i64::from(events), "{reply}");
        let rows: RowCounts = ids.into_iter().zip(first..).collect();
        self.model.acknowledge(&rows);
    }

    /// Sends some events again.
    async fn repeat(&mut self) {
        let since_ms = self.clock.now_ms() - REPEATED_MS;
        self.sent.retain(|(at_ms, _)| since_ms < *at_ms);
        let again = self.sent.iter().step_by(3).take(REPEATS_MAX);
        let again: Vec<Value> = again.map(|(_, event)| event.clone()).collect();
        if !again.is_empty() {
            let reply = self.ingest(&again).await;
            assert_eq!(reply["duplicates"], again.len(), "{reply}");
        }
    }

    async fn ingest(&self, events: &[Value]) -> Value {
        let body = json!({ "events": events });
        let (status, reply) = self.server().ingest_at("/ingest?backfill=true", &body).await;
        assert_eq!(status, 200, "{reply}");
        reply
    }

    /// Commits everything that was acknowledged.
    async fn commit(&mut self) -> Result<(), String> {
        self.server().commit("shop").await;
        self.observe().await?;
        if self.model.log().is_empty() {
            return Ok(());
        }
        Err(format!("rows are in no snapshot after a commit: {:?}", self.model.log()))
    }

    async fn name(&mut self, kind: &'static str, pick: usize) {
        let Some(seen) = self.look().await else { return };
        let Some(snapshot) = seen.snapshots.get(pick % seen.snapshots.len().max(1)) else { return };
        self.named += 1;
        let name = format!("{kind}-{}", self.named);
        let body = json!({"name": name, "type": kind, "snapshot": snapshot.snapshot_id()});
        let (status, answer) = self.call(Method::POST, &format!("{TABLE}/refs"), &body).await;
        assert_eq!(status, 200, "{answer}");
        self.model.names.insert(name, snapshot.snapshot_id());
    }

    async fn drop_name(&mut self, pick: usize) {
        let names = &self.model.names;
        let Some(name) = names.keys().nth(pick % names.len().max(1)).cloned() else { return };
        let path = format!("{TABLE}/refs/{name}");
        let (status, answer) = self.call(Method::DELETE, &path, &json!({})).await;
        assert_eq!(status, 200, "{answer}");
        self.model.names.remove(&name);
    }

    async fn report_of(&self, job: &str) -> Value {
        let path = format!("/admin/jobs/{job}?namespace=shop");
        let (status, report) = self.call(Method::POST, &path, &json!({})).await;
        assert_eq!(status, 200, "{report}");
        report
    }

    async fn run(&mut self, job: &'static str) {
        let report = self.report_of(job).await;
        let is_merge = job.starts_with("compact");
        let files = report["files"]["before"].as_u64().unwrap();
        self.counts.merges += u64::from(is_merge && 0 < files);
    }

    /// A commit of another engine to `main` or to a branch; one that is late was made before others.
    async fn foreign(
        &mut self,
        work: ForeignWork,
        on_branch: bool,
        late: Option<Late>,
        seed: u64,
    ) -> Result<(), String> {
        let Some(seen) = self.look().await else { return Ok(()) };
        let is_branch = |name: &&String| on_branch && name.starts_with("branch");
        let branch = self.model.names.keys().rfind(is_branch).cloned();
        let branch = branch.unwrap_or_else(|| "main".to_owned());
        let (disk, metadata) = (&mut self.disk, seen.metadata.as_ref());
        let writer = ForeignWriter { disk, metadata, branch: &branch };
        let Some(commit) = Box::pin(writer.write(work, seed)).await else { return Ok(()) };
        match late {
            None => (),
            Some(Late::ForCompaction) => self.run("compact").await,
            Some(Late::ForRows) => {
                self.append(5, 2, 0).await;
                self.commit().await?;
            }
        }
        let ForeignCommit { id, change, body, .. } = commit;
        let (status, answer) = self.call(Method::POST, COMMITS, &body).await;
        if status == 200 {
            self.counts.foreign += 1;
            self.model.announce(id, change);
            if branch != "main" {
                self.model.names.insert(branch, id);
            }
            return Ok(());
        }
        // Others were faster, and the writer has to begin anew.
        assert_eq!(status, 409, "{answer}");
        Ok(())
    }

    /// `main` of a table of the service does not go back.
    async fn roll_back(&mut self, pick: usize) -> Result<(), String> {
        let Some(seen) = self.look().await else { return Ok(()) };
        let Some(snapshot) = seen.snapshots.get(pick % seen.snapshots.len().max(1)) else {
            return Ok(());
        };
        let body = json!({"snapshot": snapshot.snapshot_id()});
        let (status, answer) = self.call(Method::POST, &format!("{TABLE}/rollback"), &body).await;
        if status == 400 {
            return Ok(());
        }
        Err(format!("a rollback is answered by {status} {answer}"))
    }

    /// An admin removes a snapshot that nobody names.
    async fn expire(&mut self, pick: usize) {
        let Some(seen) = self.look().await else { return };
        let named: BTreeSet<i64> = self.model.names.values().copied().chain(seen.head()).collect();
        let ids = seen.snapshots.iter().map(|snapshot| snapshot.snapshot_id());
        let free: Vec<i64> = ids.filter(|id| !named.contains(id)).collect();
        let Some(id) = free.get(pick % free.len().max(1)) else { return };
        let remove = json!({"action": "remove-snapshots", "snapshot-ids": [id]});
        let body = json!({"requirements": [], "updates": [remove]});
        let (status, answer) = self.call(Method::POST, COMMITS, &body).await;
        assert_eq!(status, 200, "{answer}");
    }

    /// Time passes, and what nothing needs any more is deleted.
    async fn wait(&mut self, by_ms: i64) {
        self.clock.advance_ms(by_ms);
        let mut job = DeleteObsolete::new(self.catalog.clone());
        while job.tick().await.unwrap() != Progress::Idle {}
    }

    /// Makes the history so long that it is thinned, and deletes what is of no use then.
    async fn overgrow(&mut self) -> Result<(), String> {
        let Some(seen) = self.look().await else { return Ok(()) };
        let (catalog, events) = (&self.catalog, table());
        let more = seen.snapshots.len()..=SNAPSHOTS_MAX + SNAPSHOTS_SLACK;
        let adds = more.map(|_| catalog.add_snapshot(&events, NewSnapshot::default()));
        // Those that come together are few metadata files.
        for added in join_all(adds).await {
            added.map_err(|cause| format!("add a snapshot: {cause}"))?;
        }
        let Some((long, _)) = self.observe().await? else { return Ok(()) };
        // By then the older ones are thinned to one for each hour.
        self.clock.advance_ms(2 * HOUR_MS);
        for point in ["thin.before_removal", "thin.after_removal"] {
            let faults = Failpoints::parse(&format!("{point}=error")).unwrap();
            let (job, _) = ThinSnapshots::new(&self.catalog);
            job.with_faults(faults).tick().await.unwrap_err();
        }
        self.thin().await?;
        // Rows of the log are due by then, too. The server commits them, finds the table too long and may
        // thin it before this process does, so what counts is what is gone, whoever it was.
        let Some(now) = self.look().await else { return Ok(()) };
        let is_gone = |it: &&SnapshotRef| now.metadata.snapshot_by_id(it.snapshot_id()).is_none();
        let thinned = long.snapshots.iter().filter(is_gone).count();
        if thinned == 0 {
            return Err(format!("of {} snapshots none was thinned away", long.snapshots.len()));
        }
        self.counts.thinned += thinned;
        Box::pin(self.check()).await?;
        self.wait(READER_GRACE_MS + HOUR_MS).await;
        Ok(())
    }

    /// Returns when the table is within its bounds, unless others change it again and again.
    async fn thin(&self) -> Result<(), String> {
        for _ in 0..THINNINGS_MAX {
            match self.catalog.upkeep().thin(&table()).await {
                Ok(_) => return Ok(()),
                // The server was faster.
                Err(CatalogError::CommitFailed(_)) => (),
                Err(cause) => return Err(format!("thin the table: {cause}")),
            }
        }
        Ok(())
    }
}
