//! Jobs that end at any of their failpoints: the next run goes on, and no row, no snapshot that stays and no
//! file of one is lost.

use crate::{
    clocks::{copy_running, put_back},
    harness::{TestServer, config, files_below},
    postgres::Databases,
    process::post_and_die_with,
};
use icecore::{
    maintenance::{
        JOBS,
        expiry::SnapshotExpiry,
        names::ListNames,
        obsolete::DeleteObsolete,
        planned::{PlannedJob, RunRequest},
    },
    tasks::{Job, Progress},
};
use icecore_catalog::{
    catalog::Catalog,
    metastore::Metastore,
    storage::{S3Options, Storage},
};
use icecore_lake::{
    clock::Clock,
    faults::{Failpoints, POINTS},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};
use tempfile::TempDir;

const DAY_MS: i64 = 86_400_000;
const NOW_MS: i64 = 1_790_000_000_000;
/// Nothing happens by itself.
const SETTINGS: &[(&str, &str)] = &[
    ("compaction.enabled", "off"),
    ("compaction.day_cron", ""),
    ("orphans.cron", ""),
    ("retention.cron", ""),
    ("dead_letters.cron", ""),
    ("expire.cron", ""),
    ("catalog.purge", "true"),
];
/// Where the process ends at each failpoint, or its step fails there and is left: what a point begins with,
/// and a test that has it in full or passes all that begin so.
const MET: [(&str, &str); 20] = [
    ("wal.", "tests/clients/test_crash.py"),
    ("flush.", "tests/clients/test_crash.py"),
    ("flush.after_columns", "tests/it/upgrades.rs"),
    ("sql.", "src/sql/tests.rs"),
    ("write.", "tests/it/sql_writes.rs"),
    ("refresh.", "tests/it/collection_crashes.rs"),
    ("refresh.before_branch", "tests/it/branch_refresh.rs"),
    ("restore.", "tests/it/collection_crashes.rs"),
    ("merge.", "tests/it/branch_merge.rs"),
    ("changes.", "tests/it/collection_crashes.rs"),
    ("branch.", "tests/it/branch_crashes.rs"),
    ("compact.", "tests/it/compaction.rs"),
    ("orphans.", "tests/it/orphans.rs"),
    ("erase.", "tests/it/erase.rs"),
    ("retention.", "tests/it/killed_jobs.rs"),
    ("expire.", "tests/it/killed_jobs.rs"),
    ("thin.", "src/maintenance/thinning/tests.rs"),
    ("obsolete.", "tests/it/killed_jobs.rs"),
    ("names.", "tests/it/killed_jobs.rs"),
    ("repair.", "tests/it/repair.rs"),
];
/// What the failpoints of a job begin with, of each that changes tables or files in several steps.
const OF_JOBS: [(&str, &str); 14] = [
    ("flush", "flush."),
    ("delete-obsolete", "obsolete."),
    ("thin-snapshots", "thin."),
    ("compact", "compact."),
    ("compact-hour", "compact."),
    ("compact-day", "compact."),
    ("orphans", "orphans."),
    ("retention", "retention."),
    ("dead-letters", "retention."),
    ("expire", "expire."),
    ("erase", "erase."),
    ("materialize", "write."),
    ("refresh", "refresh."),
    ("list-names", "names."),
];
/// The other jobs: each step of theirs is one transaction or one file, or they only look.
const OF_ONE_STEP: [&str; 8] = [
    "dedup",
    "tags",
    "keep-runs",
    "access-upkeep",
    "watch-owner",
    "note-metastore",
    "probe-warehouse",
    "look-for-metadata",
];
/// How code passes a failpoint.
const PASSED: [&str; 3] = ["hit(", "fault(", "fail_at(config, "];
const TABLE: &str = "/v1/shop/tables/events";
const IDS: &str = "SELECT id FROM events ORDER BY id";

/// Whether a text has a point in full, as a list or a script of failpoints.
fn has_point(text: &str, point: &str) -> bool {
    text.match_indices(point).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + point.len()..].chars().next();
        matches!(before, Some('"' | ';')) && matches!(after, Some('"' | '='))
    })
}

#[test]
fn a_test_meets_every_failpoint() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let is_met = |point: &str, (prefix, test): (&str, &str)| {
        let text = fs::read_to_string(root.join(test)).unwrap();
        let all = format!("POINTS.iter().filter(|point| point.starts_with(\"{prefix}\"))");
        has_point(&text, point) || text.contains(&all)
    };
    for &point in POINTS {
        let mut tests = MET.into_iter().filter(|(prefix, _)| point.starts_with(prefix));
        assert!(tests.any(|of| is_met(point, of)), "no test in `MET` meets `{point}`");
    }
    for (prefix, _) in MET {
        assert!(POINTS.iter().any(|point| point.starts_with(prefix)), "{prefix}");
    }
}

#[test]
fn every_job_has_failpoints_or_is_one_step() {
    let of_several = OF_JOBS.into_iter().map(|(job, _)| job);
    let known: BTreeSet<&str> = of_several.chain(OF_ONE_STEP).collect();
    assert_eq!(known.len(), OF_JOBS.len() + OF_ONE_STEP.len(), "each is named once");
    let jobs: BTreeSet<&str> = JOBS.iter().map(|line| line.name).collect();
    assert_eq!(jobs, known);
    for (job, prefix) in OF_JOBS {
        assert!(POINTS.iter().any(|point| point.starts_with(prefix)), "{job}: {prefix}");
    }
}

#[test]
fn every_failpoint_of_the_code_is_listed_and_passed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = ["src", "lake/src"].map(|of| files_below(&root.join(of), ".rs")).concat();
    let is_code = |path: &&PathBuf| {
        let text = path.strip_prefix(root).unwrap().to_str().unwrap();
        !text.contains("/tests") && !text.ends_with("/faults.rs")
    };
    let mut passed = BTreeSet::new();
    for path in files.iter().filter(is_code) {
        let text = fs::read_to_string(path).unwrap();
        for call in PASSED {
            let calls = text.split(call).skip(1);
            let named = calls.filter_map(|rest| rest.trim_start().strip_prefix('"'));
            passed.extend(named.filter_map(|name| Some(name.split_once('"')?.0.to_owned())));
        }
    }
    let listed: BTreeSet<String> = POINTS.iter().map(|&point| point.to_owned()).collect();
    assert_eq!(passed, listed);
}

async fn post(server: &TestServer, path: &str, body: &Value) -> Value {
    let answer = server.post(path, "application/json", body.to_string()).await;
    let status = answer.status();
    let text = answer.text().await.unwrap();
    assert!(status.is_success(), "{path}: {status} {text}");
    serde_json::from_str(&text).unwrap_or_default()
}

async fn run(server: &TestServer, job: &str) -> Value {
    post(server, &format!("/admin/jobs/{job}?namespace=shop"), &json!({})).await
}

/// The ids of an event of each type that a round sends.
fn ids(rounds: u32, kinds: &[&str]) -> Value {
    let mut ids = BTreeSet::new();
    for round in 0..rounds {
        for n in 0..5 {
            ids.extend(kinds.iter().map(|kind| format!("{kind}-{round}-{n}")));
        }
    }
    ids.into_iter().map(|id| json!([id])).collect()
}

/// Three commits of ten events, the first with a tag, and a dead letter.
async fn fill(server: &TestServer) {
    for round in 0..3 {
        let event = |n: u32, kind: &str| json!({"id": format!("{kind}-{round}-{n}"), "type": format!("{kind}.made"), "ns": "shop"});
        let events: Vec<Value> =
            (0..5).flat_map(|n| [event(n, "webhook"), event(n, "order")]).collect();
        let (status, reply) = server.ingest(&json!({ "events": events })).await;
        assert_eq!(status, 200, "{reply}");
        server.commit("shop").await;
        if round == 0 {
            post(server, &format!("{TABLE}/refs"), &json!({"name": "kept", "type": "tag"})).await;
        }
    }
    server.ingest(&json!([{"id": "refused", "ns": "shop"}])).await;
    server.commit("shop").await;
    // A server of its own, which a test ends, does not know the rules of this one's settings.
    let rules = json!({"icecore.retention": "webhook.*=30d"});
    let updates = json!([{"action": "set-properties", "updates": rules}]);
    let body = json!({"requirements": [], "updates": updates});
    post(server, "/catalog/v1/namespaces/shop/tables/events", &body).await;
}

/// Rows are those of one of these, the tag shows what it did, and whoever checks finds nothing.
async fn check(server: &TestServer, wanted: &[Value], case: &str) {
    let rows = server.rows("shop", IDS).await;
    assert!(wanted.contains(&rows), "{case}: {rows}");
    let tagged = json!({ "sql": IDS, "as_of": "kept" });
    let (status, answer) = server.query("shop", &tagged).await;
    assert_eq!((status, &answer["rows"]), (200, &ids(1, &["order", "webhook"])), "{case}");
    let audit = post(server, "/v1/shop/audit/events", &json!({})).await;
    assert_eq!(audit["agrees"], true, "{case}: {audit}");
    let checked = post(server, "/admin/fsck", &json!({})).await;
    assert_eq!(checked["whole"], true, "{case}: {checked}");
}

/// Each process ends at one point of a job, after the one before ended at the point before; the server after
/// the last of them, where none of the jobs has anything left to do.
async fn die_at(points: &[(&str, &str)], more: &[(&str, &str)]) -> TestServer {
    let settings = [SETTINGS, more].concat();
    let long_ago = Clock::manual(Clock::system().now_ms() - 100 * DAY_MS);
    let server = TestServer::start_at(tempfile::tempdir().unwrap(), &settings, long_ago).await;
    fill(&server).await;
    let mut folder = server.stop().await;
    let (all, kept) = (ids(3, &["order", "webhook"]), ids(3, &["order"]));
    for (job, point) in points {
        let path = format!("/admin/jobs/{job}?namespace=shop");
        post_and_die_with(folder.path(), &format!("{point}=abort"), &path, more).await;
        let server = TestServer::start_in(folder, &settings).await;
        let has_begun = *job != "retention" || *point == "retention.after_commit";
        let wanted = if has_begun { &kept } else { &all };
        check(&server, std::slice::from_ref(wanted), &format!("{job} at {point}")).await;
        folder = server.stop().await;
    }
    let server = TestServer::start_in(folder, &settings).await;
    let jobs: BTreeSet<&str> = points.iter().map(|(job, _)| *job).collect();
    for job in jobs {
        let left = run(&server, job).await;
        assert_eq!((&left["tables"], &left["skipped"]), (&json!(0), &json!([])), "{left}");
    }
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_while_old_rows_and_snapshots_go_loses_nothing_else() {
    let points = [
        ("retention", "retention.before_commit"),
        ("retention", "retention.after_commit"),
        ("dead-letters", "retention.before_commit"),
        ("dead-letters", "retention.after_commit"),
        ("expire", "expire.before_removal"),
        ("expire", "expire.after_removal"),
    ];
    let server = Box::pin(die_at(&points, &[])).await;
    let letters = "SELECT count(*) FROM dead_letters";
    assert_eq!(server.rows("shop", letters).await, json!([[0]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_while_hours_and_days_that_are_over_are_merged_loses_nothing() {
    // The first leaves one partition, of three files.
    let points = [
        ("retention", "retention.after_commit"),
        ("compact-hour", "compact.before_write"),
        ("compact-hour", "compact.before_commit"),
        ("compact-day", "compact.after_data_file"),
        ("compact-day", "compact.after_commit"),
    ];
    let server = Box::pin(die_at(&points, &[])).await;
    let stats: Value = server.get("/v1/shop/tables/events/stats").await.json().await.unwrap();
    assert_eq!(stats["data_files"], 1, "{stats}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_goes_for_a_postgres_metastore() {
    let Some(databases) = Databases::new("killed").await else { return };
    databases.make("folder").await;
    let url = databases.url("folder");
    let points = [("retention", "retention.after_commit"), ("expire", "expire.after_removal")];
    let server = Box::pin(die_at(&points, &[("metastore", url.as_str())])).await;
    server.stop().await;
    databases.remove().await;
}

/// The catalog of a folder that no server has, at this time.
async fn open(folder: &TempDir, clock: &Clock) -> Catalog {
    let metastore = Metastore::sqlite(&folder.path().join("icecore.db")).await.unwrap();
    let warehouse = format!("file://{}/warehouse", folder.path().display());
    let storage = Storage::open(&warehouse, &S3Options::default()).unwrap();
    let now = clock.clone();
    Catalog::new("icecore", storage, metastore, Arc::new(move || now.now_ms()))
}

fn failing(point: &str) -> Failpoints {
    Failpoints::parse(&format!("{point}=error")).unwrap()
}

/// A table of another engine, which is dropped with its files.
async fn drop_foreign(server: &TestServer) {
    let column = json!({"id": 1, "name": "a", "required": false, "type": "long"});
    let schema = json!({"type": "struct", "schema-id": 0, "fields": [column]});
    let tables = "/catalog/v1/namespaces/shop/tables";
    post(server, tables, &json!({"name": "mine", "schema": schema})).await;
    let mine = format!("{}{tables}/mine?purgeRequested=true", server.url);
    assert_eq!(server.http.delete(mine).send().await.unwrap().status(), 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_ends_while_obsolete_files_go_is_gone_on_with() {
    let clock = Clock::manual(NOW_MS);
    let server = TestServer::start_at(tempfile::tempdir().unwrap(), SETTINGS, clock.clone()).await;
    fill(&server).await;
    assert!(run(&server, "compact").await["files"]["before"].as_u64().unwrap() > 0);
    drop_foreign(&server).await;
    let folder = server.stop().await;
    clock.advance_ms(100 * DAY_MS);
    let catalog = open(&folder, &clock).await;
    let expiry = SnapshotExpiry::new(&catalog);
    let expired = Box::pin(expiry.run(&RunRequest::default())).await.unwrap();
    assert_eq!(expired.tables, 1, "{expired:?}");
    catalog.metastore().clone().close().await;
    let before = files_below(&folder.path().join("warehouse"), "").len();
    // Two days later those have had their time that only expired snapshots needed.
    for (days, point) in [(0, "obsolete.after_trash"), (2, "obsolete.after_deletion")] {
        clock.advance_ms(days * DAY_MS);
        let catalog = open(&folder, &clock).await;
        let mut job = DeleteObsolete::new(catalog.clone()).with_faults(failing(point));
        let ended = job.tick().await;
        assert!(ended.is_err(), "{point} after {days} days: {ended:?}");
        catalog.metastore().clone().close().await;
    }
    let catalog = open(&folder, &clock).await;
    let mut job = DeleteObsolete::new(catalog.clone());
    while job.tick().await.unwrap() != Progress::Idle {}
    catalog.metastore().clone().close().await;
    assert!(files_below(&folder.path().join("warehouse"), "").len() < before);
    let server = TestServer::start_at(folder, SETTINGS, clock).await;
    check(&server, &[ids(3, &["order", "webhook"])], "obsolete files").await;
    server.stop().await;
}

/// What the lists of names in the warehouse say.
fn listed(folder: &Path) -> String {
    let lists = fs::read_dir(folder.join("warehouse/.icecore")).into_iter().flatten();
    lists.map(|list| fs::read_to_string(list.unwrap().path()).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_names_that_was_not_written_is_written_by_the_next_run() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder, SETTINGS);
    // The server of the folder lists nothing.
    config.faults = Failpoints::parse("names.before_list=error*4000000000").unwrap();
    let clock = Clock::manual(NOW_MS);
    let server = TestServer::start_with(folder, &config, clock.clone()).await;
    fill(&server).await;
    let left = tempfile::tempdir().unwrap();
    copy_running(server.folder.path(), left.path());
    // A stop lists them.
    let folder = server.stop().await;
    put_back(&folder, &left);
    let catalog = open(&folder, &clock).await;
    let tick = async |faults: Failpoints| ListNames::new(&catalog).with_faults(faults).tick().await;
    tick(failing("names.before_list")).await.unwrap_err();
    assert!(!listed(folder.path()).contains("events"));
    tick(failing("names.after_list")).await.unwrap_err();
    assert!(listed(folder.path()).contains("events"));
    assert_eq!(tick(Failpoints::default()).await.unwrap(), Progress::Idle);
    catalog.metastore().clone().close().await;
}
