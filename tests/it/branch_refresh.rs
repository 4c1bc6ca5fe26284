//! The documents of a branch as a branch of the collection's table: what a refresh writes and shares, after the branch
//! was squashed, dropped and made again, and that `main` of the table is as before.

use crate::{
    erase::{begin, reach},
    harness::TestServer,
    process::post_and_die,
};
use icecore_lake::clock::Clock;
use icecore_schemas::{collection_refresh::RefreshReply, erasure::ErasureStatus};
use rand::{Rng, SeedableRng, rngs::StdRng};
use reqwest::Method;
use serde_json::{Value, json};

const COLUMNS: &str = "key, doc, version, seq, op, created_at, event_id";

async fn start() -> TestServer {
    let settings = [("compaction.enabled", "off")];
    TestServer::start_in(tempfile::tempdir().unwrap(), &settings).await
}

/// A change of the document `u-{key}` of collection `users`; a delete without a number.
fn change(id: &str, key: u32, n: Option<u32>) -> Value {
    let op = if n.is_some() { "u" } else { "d" };
    let after = n.map_or(Value::Null, |n| json!({ "n": n }));
    json!({ "id": id, "ns": "shop", "op": op, "collection": "users", "key": format!("u-{key}"), "after": after })
}

async fn send(server: &TestServer, branch: Option<&str>, events: Vec<Value>) {
    let query = branch.map(|branch| format!("?branch={branch}")).unwrap_or_default();
    let (status, answer) =
        server.ingest_at(&format!("/ingest{query}"), &json!({ "events": events })).await;
    assert_eq!(status, 200, "{answer}");
}

/// `main` with so many documents, of which there is a table.
async fn refreshed(documents: u32) -> TestServer {
    let server = start().await;
    let events = (0..documents).map(|key| change(&format!("first-{key}"), key, Some(0)));
    send(&server, None, events.collect()).await;
    refresh(&server, "").await;
    server
}

async fn fork(server: &TestServer, body: Value) {
    let (status, answer) = server.call(Method::POST, "/v1/shop/branches", &body).await;
    assert_eq!(status, 201, "{body}: {answer}");
}

async fn squash(server: &TestServer, branch: &str) {
    let path = format!("/v1/shop/branches/{branch}/squash");
    let (status, answer) = server.call(Method::POST, &path, &json!({})).await;
    assert_eq!((status, answer["tag"].is_string()), (200, true), "{answer}");
}

async fn drop_at(server: &TestServer, path: &str) {
    let (status, answer) = server.call(Method::DELETE, path, &json!({})).await;
    assert_eq!(status, 200, "{answer}");
}

async fn answer_of(server: &TestServer, collection: &str, query: &str) -> (u16, Value) {
    let path = format!("/v1/shop/collections/{collection}/refresh{query}");
    server.call(Method::POST, &path, &json!({})).await
}

async fn refresh(server: &TestServer, query: &str) -> RefreshReply {
    let (status, answer) = answer_of(server, "users", query).await;
    assert_eq!(status, 200, "{answer}");
    serde_json::from_value(answer).unwrap()
}

async fn metadata(server: &TestServer, table: &str) -> Value {
    let path = format!("/catalog/v1/namespaces/shop/tables/{table}");
    let answer: Value = server.get(&path).await.json().await.unwrap();
    answer["metadata"].clone()
}

/// Where a branch of the table is; null where it has none of the name.
async fn head(server: &TestServer, branch: &str) -> Value {
    metadata(server, "cdc_users").await["refs"][branch]["snapshot-id"].clone()
}

async fn summary(server: &TestServer, id: i64) -> Value {
    let table = metadata(server, "cdc_users").await;
    let mut snapshots = table["snapshots"].as_array().unwrap().iter();
    let found = snapshots.find(|snapshot| snapshot["snapshot-id"] == json!(id)).unwrap();
    found["summary"].clone()
}

/// The rows of one snapshot of the table, as every engine reads them.
async fn rows_of(server: &TestServer, snapshot: i64) -> Value {
    let sql = format!("SELECT {COLUMNS} FROM cdc_users FOR VERSION AS OF {snapshot} ORDER BY key");
    server.rows("shop", &sql).await
}

/// Refreshes a branch of the table, which then has the documents that SQL finds on the branch.
async fn check_refresh(server: &TestServer, branch: &str, query: &str) -> RefreshReply {
    let done = refresh(server, &format!("?branch={branch}{query}")).await;
    let snapshot = done.snapshot.unwrap().0;
    assert_eq!(head(server, branch).await, json!(snapshot), "{done:?}");
    assert_eq!(done.branch.as_deref(), Some(branch));
    let sql = format!("SELECT {COLUMNS} FROM \"cdc_users@{branch}\" ORDER BY key");
    let wanted = server.rows("shop", &sql).await;
    assert_eq!(rows_of(server, snapshot).await, wanted, "{branch} {done:?}");
    assert_eq!(wanted.as_array().unwrap().len() as u64, done.documents, "{done:?}");
    assert_eq!(summary(server, snapshot).await["icecore.branch"], json!(branch));
    done
}

async fn check_whole(server: &TestServer) {
    let (_, checked) = server.call(Method::POST, "/admin/fsck", &json!({})).await;
    assert_eq!(checked["whole"], true, "{checked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_shares_the_buckets_of_main_that_it_did_not_change() {
    let server = refreshed(40).await;
    let main = head(&server, "main").await.as_i64().unwrap();
    let before = rows_of(&server, main).await;
    fork(&server, json!({ "name": "trial" })).await;
    // Without a change of its own the branch is there all the same.
    let none = check_refresh(&server, "trial", "").await;
    assert_eq!((none.documents, none.buckets, none.rows), (40, 0, 0), "{none:?}");
    assert_ne!(none.snapshot.unwrap().0, main);
    send(&server, Some("trial"), vec![change("b-1", 5, Some(1))]).await;
    let one = check_refresh(&server, "trial", "").await;
    assert_eq!((one.documents, one.buckets), (40, 1), "{one:?}");
    let again = check_refresh(&server, "trial", "").await;
    assert_eq!((again.snapshot, again.buckets), (one.snapshot, 0), "{again:?}");
    let full = check_refresh(&server, "trial", "&full=true").await;
    assert_eq!((full.buckets, full.rows), (4, 40), "{full:?}");

    // What main has is what it had, for its readers and for its next refresh.
    assert_eq!(head(&server, "main").await, json!(main));
    assert_eq!(rows_of(&server, main).await, before);
    let of_main = refresh(&server, "?branch=main").await;
    assert_eq!((of_main.snapshot.unwrap().0, of_main.buckets), (main, 0), "{of_main:?}");
    send(&server, None, vec![change("m-1", 6, Some(7))]).await;
    let next = refresh(&server, "").await;
    assert_eq!((next.documents, next.buckets, next.branch.as_deref()), (40, 1, None), "{next:?}");
    check_refresh(&server, "trial", "").await;
    check_whole(&server).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_has_the_documents_that_sql_reads_on_the_branch() {
    let server = refreshed(12).await;
    let mut random = StdRng::seed_from_u64(11);
    let mut count = 0;
    let mut changes = |least: u32| -> Vec<Value> {
        let number = random.random_range(least..6);
        let mut one = || {
            count += 1;
            let n = random.random_bool(0.8).then_some(count);
            change(&format!("r-{count}"), random.random_range(0..16), n)
        };
        (0..number).map(|_| one()).collect()
    };
    // Events of main behind its table, which the branch gets as its own.
    send(&server, None, changes(2)).await;
    fork(&server, json!({ "name": "trial" })).await;
    send(&server, Some("trial"), changes(1)).await;
    fork(&server, json!({ "name": "deep", "from": "trial" })).await;
    for round in 0..4 {
        send(&server, Some("trial"), changes(1)).await;
        send(&server, Some("deep"), changes(1)).await;
        send(&server, None, changes(1)).await;
        if round == 2 {
            // A table with later events of main is no beginning for a branch.
            refresh(&server, "").await;
        }
        for branch in ["trial", "deep"] {
            check_refresh(&server, branch, "").await;
        }
    }
    let sql = format!("SELECT {COLUMNS} FROM cdc_users ORDER BY key");
    let wanted = server.rows("shop", &sql).await;
    let main = refresh(&server, "").await.snapshot.unwrap().0;
    assert_eq!(rows_of(&server, main).await, wanted);
    check_whole(&server).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_was_squashed_is_not_gone_on_from() {
    let server = refreshed(8).await;
    fork(&server, json!({ "name": "trial" })).await;
    // All but one are what they were at the fork in the end, with fewer versions once the branch is squashed.
    let there = (0..8).map(|key| change(&format!("there-{key}"), key, Some(9)));
    let back = (1..8).map(|key| change(&format!("back-{key}"), key, Some(0)));
    send(&server, Some("trial"), there.chain(back).collect()).await;
    let before = check_refresh(&server, "trial", "").await;
    let rows = rows_of(&server, before.snapshot.unwrap().0).await;
    squash(&server, "trial").await;
    // It is right for the events that it has.
    assert_eq!(rows_of(&server, before.snapshot.unwrap().0).await, rows);
    let after = check_refresh(&server, "trial", "").await;
    assert_ne!(rows_of(&server, after.snapshot.unwrap().0).await, rows);
    let heads = [&before, &after].map(|done| done.snapshot.unwrap().0);
    let mut told = Vec::new();
    for snapshot in heads {
        told.push(summary(&server, snapshot).await["icecore.collection.branch-head"].clone());
    }
    assert_ne!(told[0], told[1]);
    check_whole(&server).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_branch_of_the_name_has_nothing_of_an_earlier_one() {
    let server = refreshed(8).await;
    fork(&server, json!({ "name": "trial" })).await;
    send(&server, Some("trial"), vec![change("b-1", 1, Some(1)), change("b-2", 2, None)]).await;
    check_refresh(&server, "trial", "").await;
    drop_at(&server, "/v1/shop/branches/trial").await;
    assert_eq!(head(&server, "trial").await, Value::Null);
    fork(&server, json!({ "name": "trial" })).await;
    send(&server, Some("trial"), vec![change("c-1", 3, Some(1)), change("c-2", 4, None)]).await;
    check_refresh(&server, "trial", "").await;

    // Whoever drops the branch of `events` alone leaves that of the table.
    drop_at(&server, "/v1/shop/tables/events/refs/trial").await;
    assert!(head(&server, "trial").await.is_i64());
    let sql = "SELECT count(*) FROM \"cdc_users@trial\"";
    let (status, answer) = server.query("shop", &json!({ "sql": sql })).await;
    assert_ne!(status, 200, "{answer}");
    assert_eq!(answer_of(&server, "users", "?branch=trial").await.0, 404);
    fork(&server, json!({ "name": "trial" })).await;
    assert_eq!(head(&server, "trial").await, Value::Null);
    let fresh = check_refresh(&server, "trial", "").await;
    assert_eq!((fresh.documents, fresh.buckets), (8, 0), "{fresh:?}");
    check_whole(&server).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_of_a_branch_alone_gets_a_table_that_is_empty_on_main() {
    let server = start().await;
    send(&server, None, vec![json!({ "id": "e-1", "ns": "shop", "type": "other" })]).await;
    fork(&server, json!({ "name": "trial" })).await;
    let (status, refused) = answer_of(&server, "users", "?branch=trial").await;
    assert_eq!(status, 404, "{refused}");
    assert_eq!(answer_of(&server, "users", "?branch=none").await.0, 404);
    send(&server, Some("trial"), vec![change("b-1", 1, Some(1)), change("b-2", 2, Some(2))]).await;
    let made = check_refresh(&server, "trial", "").await;
    assert_eq!(made.documents, 2, "{made:?}");
    let main = head(&server, "main").await.as_i64().unwrap();
    assert_eq!(rows_of(&server, main).await, json!([]));
    // All documents go: a snapshot without files says so.
    send(&server, Some("trial"), vec![change("b-3", 1, None), change("b-4", 2, None)]).await;
    let none = check_refresh(&server, "trial", "").await;
    assert_eq!((none.documents, none.rows), (0, 0), "{none:?}");
    check_whole(&server).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_somebody_else_gave_to_a_snapshot_of_the_table_stays() {
    let server = refreshed(4).await;
    let main = head(&server, "main").await;
    fork(&server, json!({ "name": "trial" })).await;
    let tag = json!({ "name": "trial", "type": "tag", "snapshot": main });
    let (status, answer) = server.call(Method::POST, "/v1/shop/tables/cdc_users/refs", &tag).await;
    assert_eq!(status, 200, "{answer}");
    let (status, refused) = answer_of(&server, "users", "?branch=trial").await;
    assert_eq!(status, 409, "{refused}");
    drop_at(&server, "/v1/shop/branches/trial").await;
    assert_eq!(head(&server, "trial").await, main);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_takes_its_rows_out_of_branches_of_the_table_too() {
    let clock = Clock::manual(1_790_000_000_000);
    let settings = [("compaction.enabled", "off"), ("retention.cron", ""), ("expire.cron", "")];
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start_at(folder, &settings, clock.clone()).await;
    let of = |id: &str, user: &str| json!({ "id": id, "type": "user", "ns": "shop", "op": "c", "collection": "users", "key": id, "after": { "user_id": user } });
    send(&server, None, vec![of("a", "ann"), of("b", "bea"), of("e", "ann")]).await;
    refresh(&server, "").await;
    fork(&server, json!({ "name": "trial" })).await;
    // A document of both, whose content is of somebody else by now.
    let shared = json!({ "id": "e-2", "ns": "shop", "op": "u", "collection": "users", "key": "e", "after": { "n": 1 } });
    send(&server, Some("trial"), vec![of("c", "ann"), of("d", "bea"), shared]).await;
    // Nobody loads the table by the catalog before: its snapshots would be held for that client.
    assert_eq!(refresh(&server, "?branch=trial").await.documents, 5);
    let id = begin(&server, "ann").await;
    reach(&server, &id, ErasureStatus::Files).await;
    let keys = async || {
        let snapshot = head(&server, "trial").await.as_i64().unwrap();
        let rows = rows_of(&server, snapshot).await;
        rows.as_array().unwrap().iter().map(|row| row[0].clone()).collect::<Vec<_>>()
    };
    assert_eq!(keys().await, [json!("b"), json!("d")]);
    // The proof would take it for a document of the subject.
    let (status, refused) = answer_of(&server, "users", "?branch=trial").await;
    assert_eq!(status, 409, "{refused}");
    // The files have had the time that is left to their readers.
    clock.advance_ms(11 * 60_000);
    reach(&server, &id, ErasureStatus::Done).await;
    // Nothing that was there before is gone on from.
    let after = check_refresh(&server, "trial", "").await;
    assert_eq!((after.documents, after.buckets), (3, 4), "{after:?}");
    assert_eq!(keys().await, [json!("b"), json!("d"), json!("e")]);
    server.stop().await;
}

/// Each process ends at one step, after the one before ended at the step before.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_at_any_step_of_a_refresh_leaves_no_wrong_branch() {
    let server = start().await;
    send(&server, None, vec![json!({ "id": "e-1", "ns": "shop", "type": "other" })]).await;
    fork(&server, json!({ "name": "trial" })).await;
    let changes = (0..6).map(|key| change(&format!("b-{key}"), key, Some(1)));
    send(&server, Some("trial"), changes.collect()).await;
    let mut folder = server.stop().await;
    for (point, is_there) in [
        ("refresh.before_branch", false),
        ("refresh.before_documents", false),
        ("write.before_commit", false),
        ("write.lost_answer", true),
    ] {
        let path = "/v1/shop/collections/users/refresh?branch=trial";
        post_and_die(folder.path(), &format!("{point}=abort"), path, String::new()).await;
        let server = TestServer::start_in(folder, &[("compaction.enabled", "off")]).await;
        assert_eq!(head(&server, "trial").await.is_i64(), is_there, "{point}");
        let main = head(&server, "main").await.as_i64().unwrap();
        assert_eq!(rows_of(&server, main).await, json!([]), "{point}");
        folder = server.stop().await;
    }
    let server = TestServer::start_in(folder, &[("compaction.enabled", "off")]).await;
    let done = check_refresh(&server, "trial", "").await;
    assert_eq!((done.documents, done.buckets), (6, 0), "{done:?}");
    check_whole(&server).await;
    server.stop().await;
}
