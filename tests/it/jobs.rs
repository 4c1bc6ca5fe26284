//! What a server does by itself is listed.

use crate::{
    admin::icecore,
    harness::{TestServer, events},
};
use icecore::maintenance::JOBS;
use icecore_schemas::jobs::{JobList, JobOutcome};

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
            assert!(job.running_since_ms.or(job.next_run_ms).is_some(), "{job:?} is not run");
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
