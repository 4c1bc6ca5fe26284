//! Compaction by hand: the answer, the command, and what queries show before and after.

use crate::{access::Guarded, admin::icecore, harness::TestServer, process::post_and_die};
use icecore_lake::faults::POINTS;
use icecore_schemas::jobs::JobReport;
use serde_json::{Value, json};

/// Makes commits of ten events each, of two types.
async fn make_commits(server: &TestServer, commits: std::ops::Range<u32>) {
    for commit in commits {
        let events: Vec<Value> = (0..10)
            .map(|n| json!({ "id": format!("{commit}-{n}"), "type": format!("t{}", n % 2), "ns": "shop" }))
            .collect();
        let (status, reply) = server.ingest(&json!({ "events": events })).await;
        assert_eq!(status, 200, "{reply}");
        server.commit("shop").await;
    }
}

async fn run(server: &TestServer, path: &str) -> JobReport {
    let answer = server.post(path, "application/json", "").await;
    assert_eq!(answer.status(), 200);
    answer.json().await.unwrap()
}

const ALL: &str = "SELECT id, type, seq FROM events ORDER BY seq";

#[tokio::test(flavor = "multi_thread")]
async fn files_are_merged_by_hand_and_every_snapshot_reads_as_before() {
    let server = TestServer::start().await;
    make_commits(&server, 0..6).await;
    let snapshots: Value =
        server.get("/v1/shop/tables/events/snapshots").await.json().await.unwrap();
    let middle = &snapshots["snapshots"][3];
    let then = json!({ "sql": ALL, "as_of": middle["snapshot_str"] });
    let (before, before_then) = (server.rows("shop", ALL).await, server.query("shop", &then).await);
    assert_eq!(before_then.1["rows"].as_array().unwrap().len(), 30, "{before_then:?}");

    let dry = run(&server, "/admin/jobs/compact?dry_run=true&namespace=shop").await;
    assert_eq!((dry.files.before, dry.files.after, dry.rows), (12, 2, 60));
    let [told] = dry.not_copied.as_slice() else { panic!("{dry:?}") };
    assert_eq!((told.reason.as_str(), dry.copied_files), ("row groups have less than 1 MiB", 0));
    let days = run(&server, "/admin/jobs/compact-day").await;
    assert_eq!((days.job.as_str(), days.files.before), ("compact-day", 0), "today is not over");
    let done = run(&server, "/admin/jobs/compact?namespace=shop&table=events").await;
    assert_eq!((done.tables, done.files.before, done.files.after), (1, 12, 2));
    assert!(done.skipped.is_empty(), "{done:?}");

    assert_eq!(server.rows("shop", ALL).await, before);
    assert_eq!(server.query("shop", &then).await.1["rows"], before_then.1["rows"]);
    let stats: Value = server.get("/v1/shop/tables/events/stats").await.json().await.unwrap();
    assert_eq!(stats["data_files"], 2, "{stats}");
    // No row came with the newest snapshot, and it tells as before how far the table is.
    let newest: Value = server.get("/v1/shop/tables/events/snapshots").await.json().await.unwrap();
    let newest = &newest["snapshots"][0];
    assert_eq!((&newest["operation"], &newest["last_seq"]), (&json!("replace"), &Value::Null));
    let now = json!({ "sql": "SELECT count(*) FROM events", "as_of": newest["snapshot_str"] });
    let (status, answer) = server.query("shop", &now).await;
    assert_eq!((status, &answer["rows"]), (200, &json!([[60]])), "{answer}");
    let basis =
        server.query("shop", &json!({ "sql": "SELECT 1 FROM events", "min_seq": 60 })).await;
    assert_eq!(basis.0, 200, "{basis:?}");

    let (is_done, text) = icecore(&server, &["compact", "--ns", "shop"]);
    assert!(is_done && text.starts_with("0 files became 0"), "{text}");
    let (is_done, text) = icecore(&server, &["compact", "--dry-run", "--json"]);
    assert!(is_done && text.contains("\"skipped\":[]"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_that_the_job_waits_for_an_engine_that_may_write() {
    let guarded = Guarded::with_events().await;
    for id in ["1", "2"] {
        let events = json!([{ "id": id, "type": "a", "ns": "shop" }]);
        assert_eq!(guarded.post(&guarded.admin, "/ingest", &events).await.0, 200);
        assert_eq!(guarded.post(&guarded.admin, "/v1/shop/commit", &Value::Null).await.0, 200);
    }
    let reader = guarded.token(&json!({ "name": "r", "scopes": ["read:shop"] })).await;
    let writer = guarded.token(&json!({ "name": "w", "scopes": ["write:shop"] })).await;
    let compact = async |dry_run: &str| {
        let path = format!("/admin/jobs/compact?namespace=shop&table=events&dry_run={dry_run}");
        let (status, report) = guarded.post(&guarded.admin, &path, &Value::Null).await;
        assert_eq!((status, &report["files"]["before"]), (200, &json!(3)), "{report}");
        report["skipped"].to_string()
    };
    let load = async |token: &str, library: &str| {
        let url = format!("{}/catalog/v1/namespaces/shop/tables/events", guarded.server.url);
        let request = guarded.server.http.get(url).bearer_auth(token);
        let answer = request.header("x-client-version", library).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    };
    let java = "Apache Iceberg 1.10.1 (commit ccb8bc4)";
    load(&reader, java).await;
    load(&writer, "0.14.1").await;
    assert_eq!(compact("true").await, "[]", "a reader, and PyIceberg");
    load(&writer, java).await;
    let told = compact("true").await;
    assert!(told.contains("may be writing the table"), "{told}");
    assert_eq!(compact("false").await, "[]", "by hand it waits for nobody");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_chooses_partitions_and_a_dry_run_says_why() {
    let server = TestServer::start().await;
    make_commits(&server, 0..3).await;
    let rows = server.rows("shop", ALL).await;
    let events = ["compact", "--ns", "shop", "--table", "events", "--where", "type = 't0'"];
    let (is_done, text) = icecore(&server, &[events.as_slice(), &["--dry-run"]].concat());
    assert!(is_done && text.starts_with("3 files would become 1"), "{text}");
    assert!(text.contains("type=t0/dt=") && !text.contains("type=t1"), "{text}");
    assert!(text.contains("would be merged") && text.contains("small files of a part"), "{text}");
    let (is_done, text) = icecore(&server, &[events.as_slice(), &["--dry-run", "--json"]].concat());
    let dry: JobReport = serde_json::from_str(&text).unwrap();
    let [partition] = dry.partitions.as_slice() else { panic!("{dry:?}") };
    assert!(is_done && partition.partition.starts_with("type=t0/dt="), "{partition:?}");
    assert_eq!((partition.merged.before, partition.merged.after), (3, 1), "{partition:?}");
    assert!(partition.reasons[0].contains("small files of a part"), "{partition:?}");

    let path = "/admin/jobs/compact?namespace=shop&table=events&where=type%20%3D%20%27t1%27";
    let done = run(&server, path).await;
    assert_eq!((done.files.before, done.files.after), (3, 1), "{done:?}");
    assert_eq!((done.merged[0].files, done.partitions.len()), (3, 0), "{done:?}");
    let (is_done, text) = icecore(&server, &events);
    assert!(is_done && text.starts_with("3 files became 1"), "{text}");
    assert!(text.contains("not worth it") && text.contains("the only small file"), "{text}");
    assert_eq!(server.rows("shop", ALL).await, rows);

    for (path, told) in [
        ("compact?where=id%20%3D%201", "`id` is no partition column; this table's are `dt`, "),
        ("compact?where=type%20%3D", "query parameter `where`: the condition has its end at"),
        ("compact-day?namespace=shop&table=events&where=ts%20IS", "where NULL must be"),
        ("compact-hour?namespace=shop&table=events&where=ts%20IS", "where NULL must be"),
        ("orphans?where=type%3D%27a%27", "the job `orphans` takes no condition on partitions"),
    ] {
        let answer = server.post(&format!("/admin/jobs/{path}"), "application/json", "").await;
        let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
        assert!(status == 400 && text.contains(told), "{path}: {status} {text}");
    }
    let jobs: Value = server.get("/admin/jobs").await.json().await.unwrap();
    let jobs = jobs["jobs"].as_array().unwrap();
    let compact = jobs.iter().find(|job| job["name"] == "compact").unwrap();
    assert_eq!((&compact["failures_in_a_row"], &compact["progress"]), (&json!(0), &Value::Null));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_run_by_hand_is_told() {
    let server = TestServer::start().await;
    for (path, status) in [
        ("/admin/jobs/flush", 404),
        ("/admin/jobs/compact?namespace=nobody", 404),
        ("/admin/jobs/compact?namespace=nobody&wait=false", 404),
        ("/admin/jobs/compact?tables=x", 400),
        ("/admin/jobs/compact?wait=false", 202),
    ] {
        let answer = server.post(path, "application/json", "").await;
        assert_eq!(answer.status().as_u16(), status, "{path}");
        let told: Value = answer.json().await.unwrap();
        assert_eq!(told["is_running"] == true, status == 202, "{path}: {told}");
    }
}

/// Snapshots that are looked at before a server dies, and again after that.
const LOOKED_AT: usize = 5;

/// The snapshots, the newest first.
async fn snapshots(server: &TestServer) -> Vec<Value> {
    let listed: Value = server.get("/v1/shop/tables/events/snapshots").await.json().await.unwrap();
    listed["snapshots"].as_array().unwrap().clone()
}

/// The ids and numbers of all events now and at each snapshot but so many of the oldest.
async fn history(server: &TestServer, skipped: usize) -> Vec<(String, Value)> {
    let listed = snapshots(server).await;
    let mut shown = vec![("now".to_owned(), server.rows("shop", ALL).await)];
    for snapshot in listed.iter().rev().skip(skipped).rev() {
        let request = json!({ "sql": ALL, "as_of": snapshot["snapshot_str"] });
        let (status, answer) = server.query("shop", &request).await;
        assert_eq!(status, 200, "{answer}");
        shown.push((snapshot["snapshot_str"].to_string(), answer["rows"].clone()));
    }
    shown
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_in_a_compaction_changes_no_row_of_any_snapshot() {
    let mut folder = tempfile::tempdir().unwrap();
    let points = POINTS.iter().filter(|point| point.starts_with("compact."));
    for (commits, point) in (0..).step_by(3).zip(points) {
        let server = TestServer::start_in(folder, &[]).await;
        make_commits(&server, commits..commits + 3).await;
        let skipped = snapshots(&server).await.len().saturating_sub(LOOKED_AT);
        let before = history(&server, skipped).await;
        assert_eq!(before[0].1.as_array().unwrap().len(), 10 * (commits as usize + 3));
        folder = server.stop().await;
        let path = "/admin/jobs/compact?namespace=shop";
        post_and_die(folder.path(), &format!("{point}=abort"), path, String::new()).await;
        let server = TestServer::start_in(folder, &[]).await;
        let after = history(&server, skipped).await;
        assert_eq!(after[0], before[0], "{point}");
        assert!(before.iter().all(|shown| after.contains(shown)), "{point}");
        assert!(after[1..].iter().all(|(_, rows)| before.iter().any(|(_, was)| was == rows)));
        folder = server.stop().await;
    }
    let server = TestServer::start_in(folder, &[]).await;
    let before = server.rows("shop", ALL).await;
    run(&server, "/admin/jobs/compact?namespace=shop").await;
    assert_eq!(server.rows("shop", ALL).await, before);
    let stats: Value = server.get("/v1/shop/tables/events/stats").await.json().await.unwrap();
    assert_eq!(stats["data_files"], 2, "{stats}");
    server.stop().await;
}
