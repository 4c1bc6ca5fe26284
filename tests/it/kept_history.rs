//! What stays while every job runs for days: the rows, whatever a client sends that stood still for a week between
//! its files and its commit, and what bookmarks, tags and branches show.

use crate::{
    harness::{TestServer, files_below},
    maintenance_model::{
        disk::DiskReader,
        world::{open_catalog, open_storage},
        writer::{ForeignWork, ForeignWriter},
    },
};
use iceberg::spec::TableMetadata;
use icecore::{
    maintenance::obsolete::DeleteObsolete,
    tasks::{Job, Progress},
};
use icecore_catalog::catalog::Catalog;
use icecore_lake::clock::Clock;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const DAY_MS: i64 = 86_400_000;
/// Nothing happens by itself.
const SETTINGS: &[(&str, &str)] = &[
    ("compaction.enabled", "off"),
    ("compaction.day_cron", ""),
    ("orphans.cron", ""),
    ("retention.cron", ""),
    ("retention.events", "webhook.*=3d"),
    ("dead_letters.cron", ""),
    ("expire.cron", ""),
];
/// In the order in which they run.
const JOBS: [&str; 6] =
    ["compact", "compact-hour", "compact-day", "expire", "retention", "orphans"];
/// Events of a type in a commit.
const EVENTS: u32 = 4;
const TABLE: &str = "/catalog/v1/namespaces/shop/tables/events";
const IDS: &str = "SELECT id FROM events ORDER BY id";

/// A server, and the catalog of another process, which deletes files when a test says so.
async fn start(clock: &Clock) -> (TestServer, Catalog) {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start_at(folder, SETTINGS, clock.clone()).await;
    let catalog = open_catalog(&server.folder, clock).await;
    (server, catalog)
}

async fn stop(server: TestServer, catalog: &Catalog) {
    let _folder = server.stop().await;
    catalog.metastore().clone().close().await;
}

/// Sends some events of each type and commits them. The bookmark of an event is its id.
async fn send(server: &TestServer, kinds: &[&str], round: u32) {
    let mut events = Vec::new();
    for kind in kinds {
        for n in 0..EVENTS {
            let (id, of_type) = (format!("{kind}-{round}-{n}"), format!("{kind}.made"));
            events.push(json!({"id": id, "type": of_type, "ns": "shop", "bookmark": id}));
        }
    }
    let (status, reply) = server.ingest(&json!({ "events": events })).await;
    assert_eq!(status, 200, "{reply}");
    server.commit("shop").await;
}

/// The ids of the orders of so many rounds.
fn orders(rounds: u32) -> Value {
    let of_round = |round: u32| (0..EVENTS).map(move |n| format!("order-{round}-{n}"));
    let ids: BTreeSet<String> = (0..rounds).flat_map(of_round).collect();
    ids.into_iter().map(|id| json!([id])).collect()
}

/// Runs every job, and deletes what is due. Gives how many files were merged.
async fn maintain(server: &TestServer, catalog: &Catalog) -> u64 {
    let mut merged = 0;
    for name in JOBS {
        let path = format!("/admin/jobs/{name}?namespace=shop");
        let (status, report) = server.ingest_at(&path, &json!({})).await;
        assert_eq!((status, &report["errors"]), (200, &json!(0)), "{name}: {report}");
        if name.starts_with("compact") {
            merged += report["files"]["before"].as_u64().unwrap();
        }
    }
    let mut job = DeleteObsolete::new(catalog.clone());
    while job.tick().await.unwrap() != Progress::Idle {}
    merged
}

async fn check_whole(server: &TestServer) {
    let (status, checked) = server.ingest_at("/admin/fsck", &json!({})).await;
    assert_eq!((status, &checked["whole"]), (200, &json!(true)), "{checked}");
}

/// The table as a client loads it.
async fn loaded(server: &TestServer) -> TableMetadata {
    let answer: Value = server.get(TABLE).await.json().await.unwrap();
    serde_json::from_value(answer["metadata"].clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_commits_a_week_late_is_refused_and_no_row_is_lost() {
    // Files are as old as the clock of the machine says.
    let clock = Clock::manual(Clock::system().now_ms());
    let (server, catalog) = start(&clock).await;
    for round in 0..3 {
        send(&server, &["order", "webhook"], round).await;
    }
    let mut disk = DiskReader::new(open_storage(&server.folder));
    let read = loaded(&server).await;
    let mut late = Vec::new();
    for (work, seed) in
        [(ForeignWork::Copy, 1), (ForeignWork::DeleteRows, 2), (ForeignWork::RemoveFile, 3)]
    {
        let writer = ForeignWriter { disk: &mut disk, metadata: &read, branch: "main" };
        late.push(Box::pin(writer.write(work, seed)).await.unwrap());
    }

    let mut merged = 0;
    for round in 3..10 {
        clock.advance_ms(DAY_MS);
        send(&server, &["order"], round).await;
        merged += maintain(&server, &catalog).await;
    }
    assert!(0 < merged, "what the client read was merged");
    let left = files_below(server.folder.path(), ".parquet");
    assert!(!left.iter().any(|file| file.to_str().unwrap().contains("foreign-")), "{left:?}");

    for commit in &late {
        let (status, answer) = server.ingest_at(TABLE, &commit.body).await;
        assert!(matches!(status, 400 | 409), "{status} {answer}");
    }
    // A client that lost a race tries again with the files that it has: the rows to add, and the deletes.
    for (commit, id) in late.iter().take(2).zip(1_001_i64..) {
        let head = loaded(&server).await;
        let writer = ForeignWriter { disk: &mut disk, metadata: &head, branch: "main" };
        let body = Box::pin(writer.again(commit, id)).await;
        let (status, answer) = server.ingest_at(TABLE, &body).await;
        // By the name of its own file that was deleted, or of the one that its deletes are about.
        let text = answer.to_string();
        let is_named = text.contains(&format!("foreign-{}", commit.id))
            || text.contains("`, which is not live any more");
        assert!(matches!(status, 400 | 409) && is_named, "{status} {text}");
    }
    assert_eq!(server.rows("shop", IDS).await, orders(10));
    check_whole(&server).await;

    // It begins anew.
    let head = loaded(&server).await;
    let writer = ForeignWriter { disk: &mut disk, metadata: &head, branch: "main" };
    let anew = Box::pin(writer.write(ForeignWork::Copy, 4)).await.unwrap();
    let (status, answer) = server.ingest_at(TABLE, &anew.body).await;
    assert_eq!(status, 200, "{answer}");
    let rows = orders(10).as_array().unwrap().len() + anew.change.added.ids().count();
    assert_eq!(server.rows("shop", "SELECT count(*) FROM events").await, json!([[rows]]));
    stop(server, &catalog).await;
}

/// What bookmarks of every commit show, and then a tag and a branch.
async fn shown(server: &TestServer, rounds: u32) -> Vec<Value> {
    let mut shown = Vec::new();
    for round in 0..rounds {
        for n in [0, EVENTS - 1] {
            let at = format!("FOR BOOKMARK AS OF 'order-{round}-{n}'");
            let sql = format!("SELECT id FROM events {at} ORDER BY id");
            shown.push(server.rows("shop", &sql).await);
        }
    }
    for name in ["kept", "side"] {
        let (status, answer) = server.query("shop", &json!({ "sql": IDS, "as_of": name })).await;
        assert_eq!(status, 200, "{name}: {answer}");
        shown.push(answer["rows"].clone());
    }
    shown
}

#[tokio::test(flavor = "multi_thread")]
async fn bookmarks_tags_and_branches_show_the_same_once_all_other_history_is_gone() {
    let clock = Clock::manual(Clock::system().now_ms());
    let (server, catalog) = start(&clock).await;
    for round in 0..4 {
        send(&server, &["order"], round).await;
        for (name, kind, at) in [("kept", "tag", 0), ("side", "branch", 1)] {
            if round == at {
                let body = json!({"name": name, "type": kind});
                let (status, answer) = server.ingest_at("/v1/shop/tables/events/refs", &body).await;
                assert_eq!(status, 200, "{answer}");
            }
        }
    }
    let before = shown(&server, 4).await;
    assert_eq!(before[5], orders(3), "the last bookmark of the third commit");
    assert_eq!(before[8..], [orders(1), orders(2)]);
    let of_table = json!({"history.expire.max-snapshot-age-ms": "1"});
    let updates = json!([{"action": "set-properties", "updates": of_table}]);
    let body = json!({"requirements": [], "updates": updates});
    let (status, answer) = server.ingest_at(TABLE, &body).await;
    assert_eq!(status, 200, "{answer}");
    // The second time what nothing needs any more is off the disk.
    for _ in 0..2 {
        clock.advance_ms(2 * DAY_MS);
        maintain(&server, &catalog).await;
    }
    let listed: Value = server.get("/v1/shop/tables/events/snapshots").await.json().await.unwrap();
    let snapshots = listed["snapshots"].as_array().unwrap();
    assert_eq!(snapshots.len(), 3, "the heads of both branches and the tag's: {listed}");
    assert_eq!(shown(&server, 4).await, before);
    check_whole(&server).await;
    stop(server, &catalog).await;
}
