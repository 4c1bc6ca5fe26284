//! What a server does by itself is listed.

use crate::{
    admin::icecore,
    harness::{TestServer, config, events},
    process::run,
};
use icecore::maintenance::JOBS;
use icecore_lake::clock::Clock;
use icecore_schemas::jobs::{JobList, JobOutcome, JobReport, JobState, JobTrigger};
use serde_json::Value;

/// 2026-11-29T12:00:00Z.
const NOON_MS: i64 = 1_795_953_600_000;
const DAY_MS: i64 = 86_400_000;

async fn state(server: &TestServer, name: &str) -> JobState {
    let list: JobList = server.get("/admin/jobs").await.json().await.unwrap();
    list.jobs.into_iter().find(|job| job.name == name).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_job_is_listed_with_its_last_runs() {
    let server = TestServer::start().await;
    let (status, reply) = server.ingest(&events(0..5)).await;
    assert_eq!(status, 200, "{reply}");
    server.commit("shop.example").await;

    // The commit's answer is sent before its run has ended.
    let flush = loop {
        let list: JobList = server.get("/admin/jobs").await.json().await.unwrap();
        let names: Vec<&str> = list.jobs.iter().map(|job| job.name.as_str()).collect();
        assert_eq!(names, JOBS.iter().map(|line| line.name).collect::<Vec<_>>());
        for job in &list.jobs {
            // One whose times are empty is run by hand alone.
            let is_run = job.cron.as_deref() != Some("");
            let is_due = job.running_since_ms.or(job.next_run_ms).is_some();
            assert_eq!(is_due, is_run, "{job:?}");
        }
        let flush = list.jobs.into_iter().find(|job| job.name == "flush").unwrap();
        if !flush.recent_runs.is_empty() {
            break flush;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(flush.recent_runs[0].outcome, JobOutcome::Worked);
    assert_eq!((flush.every_ms, flush.failures_in_a_row), (100, 0));

    let server = server.restart().await;
    let list: JobList = server.get("/admin/jobs").await.json().await.unwrap();
    let again = list.jobs.into_iter().find(|job| job.name == "flush").unwrap();
    assert_eq!(again.recent_runs, flush.recent_runs, "they outlast a restart");

    let (done, table) = icecore(&server, &["jobs"]);
    assert!(done, "{table}");
    for line in JOBS {
        assert!(table.contains(line.name) && table.contains(line.about), "{table}");
    }
    let (done, json) = icecore(&server, &["jobs", "--json"]);
    let list: JobList = serde_json::from_str(&json).unwrap();
    assert!(done && list.jobs.len() == JOBS.len(), "{json}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_by_hand_is_listed_with_its_report_and_outlasts_a_restart() {
    let server = TestServer::start().await;
    for n in 0..3 {
        let (status, reply) = server.ingest(&events(10 * n..10 * n + 10)).await;
        assert_eq!(status, 200, "{reply}");
        server.commit("shop.example").await;
    }
    let dry = ["jobs", "run", "compact", "--ns", "shop.example", "--dry-run"];
    let (done, text) = icecore(&server, &dry);
    assert!(done && text.starts_with("6 files would become 2, in 1 table"), "{text}");
    let no_run = state(&server, "compact").await.recent_runs;
    assert!(no_run.iter().all(|run| run.trigger != Some(JobTrigger::Hand)), "{no_run:?}");
    let named = ["jobs", "run", "compact", "--ns", "shop.example", "--table", "events", "--json"];
    let (done, text) = icecore(&server, &named);
    let report: JobReport = serde_json::from_str(&text).unwrap();
    assert!(done && report.tables == 1, "{text}");
    let usage = report.usage;
    assert!(0 < usage.bytes_read && 0 < usage.bytes_written, "{usage:?}");
    let by_hand = async |server: &TestServer| {
        let runs = state(server, "compact").await.recent_runs;
        runs.into_iter().find(|run| run.trigger == Some(JobTrigger::Hand)).unwrap()
    };
    let run = by_hand(&server).await;
    assert_eq!((run.outcome, run.report.as_ref()), (JobOutcome::Worked, Some(&report)));
    let server = server.restart().await;
    assert_eq!(by_hand(&server).await, run);
    let (done, table) = icecore(&server, &["jobs"]);
    assert!(done && table.contains("0 0 * * *") && table.contains("every 100 ms"), "{table}");
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_are_run_by_hand_are_those_of_the_table() {
    let server = TestServer::start().await;
    for line in JOBS {
        let path = format!("/admin/jobs/{}", line.name);
        let answer = server.post(&path, "application/json", "").await;
        let status = if line.is_run_by_hand() { 200 } else { 404 };
        assert_eq!(answer.status().as_u16(), status, "{path}");
        assert_eq!(state(&server, line.name).await.is_run_by_hand, line.is_run_by_hand());
    }
    let answer = server.post("/admin/jobs/clean", "application/json", "").await;
    let told = answer.json::<Value>().await.unwrap()["error"].as_str().unwrap().to_owned();
    for line in JOBS {
        assert_eq!(told.contains(&format!("`{}`", line.name)), line.is_run_by_hand(), "{told}");
    }
    let (done, text) = icecore(&server, &["jobs", "run", "clean"]);
    assert!(!done && text.contains("no job `clean` is run by hand; these are: "), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_that_came_while_the_server_was_down_is_made_up() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start_at(folder, &[], Clock::manual(NOON_MS)).await;
    let first = state(&server, "compact-day").await;
    assert_eq!((first.cron.as_deref(), first.last_run), (Some("0 0 * * *"), None));
    assert_eq!(first.next_run_ms, Some(NOON_MS + DAY_MS / 2));
    // Its plan begins with its first look.
    let began = async {
        let file = format!("sqlite://{}/icecore.db", server.folder.path().display());
        let config = config(&server.folder, &[("metastore", file.as_str())]);
        let metastore = icecore::server::open_metastore(&config).await.unwrap();
        let database = metastore.database().clone();
        let store = icecore::store::Store::new(database, Clock::manual(NOON_MS), "test");
        while store.planned_time("compact-day").await.unwrap().is_none() {
            tokio::task::yield_now().await;
        }
        metastore.close().await;
    };
    began.await;
    let folder = server.stop().await;
    let server = TestServer::start_at(folder, &[], Clock::manual(NOON_MS + 3 * DAY_MS)).await;
    let run = loop {
        if let Some(run) = state(&server, "compact-day").await.last_run {
            break run;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((run.outcome, run.trigger), (JobOutcome::Idle, Some(JobTrigger::MadeUp)));
    let folder = server.stop().await;
    let server = TestServer::start_at(folder, &[], Clock::manual(NOON_MS + 3 * DAY_MS)).await;
    assert_eq!(state(&server, "compact-day").await.recent_runs, [run], "once, and it is kept");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_turned_off_runs_by_hand_alone() {
    let folder = tempfile::tempdir().unwrap();
    let hourly = ("compaction.hour_cron", "5 * * * *");
    let server = TestServer::start_in(folder, &[("compaction.enabled", "off"), hourly]).await;
    let off = state(&server, "compact-hour").await;
    assert_eq!((off.cron.as_deref(), off.next_run_ms), (Some(""), None));
    let off = state(&server, "compact-day").await;
    assert_eq!((off.cron.as_deref(), off.next_run_ms), (Some(""), None));
    assert_eq!(server.post("/admin/jobs/compact-day", "text/plain", "").await.status(), 200);
    let ran = state(&server, "compact-day").await.last_run.unwrap();
    assert_eq!((ran.outcome, ran.trigger), (JobOutcome::Idle, Some(JobTrigger::Hand)));
    let settings = [("compaction.day_cron", ""), hourly];
    let server = TestServer::start_in(server.stop().await, &settings).await;
    assert_eq!(state(&server, "compact-day").await.cron.as_deref(), Some(""));
    let hours = state(&server, "compact-hour").await;
    assert_eq!(hours.cron.as_deref(), Some("5 * * * *"));
    assert!(hours.running_since_ms.or(hours.next_run_ms).is_some());
    assert!(state(&server, "compact").await.next_run_ms.is_some());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_not_there_is_the_answer_and_no_failure_of_the_job() {
    let server = TestServer::start().await;
    server.ingest(&events(0..1)).await;
    server.commit("shop.example").await;
    for job in ["compact", "retention", "expire", "orphans"] {
        let before = state(&server, job).await.last_run;
        for named in ["namespace=nobody", "namespace=shop.example&table=nothing", "table=nothing"] {
            let path = format!("/admin/jobs/{job}?{named}");
            let answer = server.post(&path, "application/json", "").await;
            assert_eq!(answer.status(), 404, "{path}");
        }
        let after = state(&server, job).await;
        assert_eq!(after.failures_in_a_row, 0, "{job}");
        assert!(after.last_run.is_none_or(|run| run.outcome != JobOutcome::Failed), "{before:?}");
        assert!(after.recent_runs.iter().all(|run| run.trigger != Some(JobTrigger::Hand)));
        let named = ["--ns", "shop.example", "--table", "nothing", "--url", &server.url];
        let output = run(&[&["jobs", "run", job][..], &named].concat(), &[], b"");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{job}: {told}");
        assert!(told.contains("nothing") && output.stdout.is_empty(), "{job}: {told}");
    }
    let (done, told) = icecore(&server, &["compact", "--ns", "shop.example", "--table", "nothing"]);
    assert!(!done && told.contains("nothing"), "{told}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dedup_window_is_a_job_of_all_namespaces() {
    let server = TestServer::start().await;
    let planned = state(&server, "dedup").await;
    assert_eq!(planned.cron.as_deref(), Some("17 * * * *"));
    assert!(planned.next_run_ms.is_some());
    let answer = server.post("/admin/jobs/dedup", "application/json", "").await;
    assert_eq!(answer.status(), 200);
    let report: JobReport = answer.json().await.unwrap();
    assert_eq!((report.job.as_str(), report.rows, report.errors), ("dedup", 0, 0));
    let ran = state(&server, "dedup").await.last_run.unwrap();
    assert_eq!((ran.trigger, ran.report), (Some(JobTrigger::Hand), Some(report)));
    let one = server.post("/admin/jobs/dedup?namespace=shop", "application/json", "").await;
    let (status, told) = (one.status(), one.text().await.unwrap());
    assert!(status.is_client_error() && told.contains("without `namespace`"), "{status} {told}");
    assert_eq!(state(&server, "dedup").await.failures_in_a_row, 0);
    assert_eq!(state(&server, "dedup").await.last_run.unwrap().outcome, JobOutcome::Idle);
    server.stop().await;
}
