//! A server that ends at any step of a large merge, of one into a branch, of a squash or of a drop: documents are those
//! of before or of after it, and the next try goes on.

use crate::{
    harness::TestServer,
    process::{Process, call_until_death, post_and_die},
};
use reqwest::Method;
use serde_json::{Value, json};
use std::path::Path;

const BRANCHES: &str = "/v1/shop/branches";
const MERGE: &str = "/v1/shop/branches/trial/merge";
/// A merge of as many documents as these tests have takes several batches.
const SMALL: &[(&str, &str)] = &[("ingest.batch_events_max", "10"), ("compaction.enabled", "off")];

fn change(op: &str, key: &str, n: u32) -> Value {
    let after = if op == "d" { Value::Null } else { json!({ "n": n }) };
    json!({"ns": "shop", "op": op, "collection": "users", "key": key, "after": after})
}

async fn send(server: &TestServer, path: &str, events: &[Value]) {
    for events in events.chunks(10) {
        let (status, reply) = server.ingest_at(path, &json!(events)).await;
        assert_eq!(status, 200, "{reply}");
    }
}

/// A server with a document on `main` and a branch of it.
async fn forked() -> TestServer {
    let server = TestServer::start_in(tempfile::tempdir().unwrap(), SMALL).await;
    send(&server, "/ingest", &[change("c", "first", 0)]).await;
    server.commit("shop").await;
    let (status, made) = server.ingest_at(BRANCHES, &json!({"name": "trial"})).await;
    assert_eq!(status, 201, "{made}");
    server
}

/// The keys and texts of documents, of `main` or of a branch.
async fn documents(server: &TestServer, branch: &str) -> Value {
    let sql = format!("SELECT key, doc FROM \"cdc_users{branch}\" ORDER BY key");
    server.rows("shop", &sql).await
}

async fn fsck(server: &TestServer, case: &str) {
    let (_, checked) = server.ingest_at("/admin/fsck", &json!({})).await;
    assert_eq!(checked["whole"], true, "{case}: {checked}");
}

/// Asks a server of its own on `folder` for the merge, which ends in it at this failpoint.
async fn merge_and_die(folder: &Path, failpoint: &str) {
    let own = [("data_dir", folder.to_str().unwrap()), ("failpoints", failpoint)];
    let settings = [&own[..], SMALL, &[("commit.interval", "10min")]].concat();
    let settings: Vec<(&str, String)> =
        settings.into_iter().map(|(key, value)| (key, value.to_owned())).collect();
    let server = Process::start(&settings).await;
    let request = reqwest::Client::new().post(format!("{}{MERGE}", server.url));
    let answer = request.header("idempotency-key", "k").body("{}").send().await;
    assert!(answer.is_err(), "{failpoint}: {answer:?}");
}

async fn merge(server: &TestServer) -> Value {
    let request = server.http.post(format!("{}{MERGE}", server.url));
    let answer = request.header("idempotency-key", "k").json(&json!({})).send().await.unwrap();
    let (status, text) = (answer.status(), answer.text().await.unwrap());
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_at_any_step_of_a_merge_goes_on_with_it() {
    let server = forked().await;
    let changes: Vec<Value> = (0..25).map(|n| change("c", &format!("u-{n:02}"), n)).collect();
    send(&server, "/ingest?branch=trial", &changes).await;
    let wanted = documents(&server, "@trial").await;
    let mut folder = server.stop().await;
    // Eight documents come in a batch: two of its places are for what tells of the merge.
    let mut looked = 1;
    for (point, skip, count) in [
        ("merge.before_append", "", 1),
        ("changes.before_batch", "", 1),
        ("changes.after_batch", "", 9),
        ("changes.before_batch", "@1", 17),
        ("changes.after_batch", "", 25),
        ("changes.after_batch", "", 26),
    ] {
        merge_and_die(folder.path(), &format!("{point}=abort{skip}")).await;
        // A step that brings nothing shows in the count after the next one.
        if count != looked {
            let server = TestServer::start_in(folder, SMALL).await;
            let there = documents(&server, "").await;
            assert_eq!(there.as_array().map(Vec::len), Some(count), "{point}{skip}: {there}");
            folder = server.stop().await;
            looked = count;
        }
    }
    let server = TestServer::start_in(folder, SMALL).await;
    let report = merge(&server).await;
    assert_eq!(report["tag"], "before-merge-1", "{report}");
    assert_eq!(documents(&server, "").await, wanted);
    // Each document was merged once.
    let sql = "SELECT count(key), count(DISTINCT key) FROM events WHERE seq > 1";
    assert_eq!(server.rows("shop", sql).await, json!([[25, 25]]));
    let (status, planned) = server.ingest_at(MERGE, &json!({"dry_run": true})).await;
    let changed = ["inserted", "updated", "deleted"].map(|name| planned[name].as_u64());
    assert_eq!((status, changed), (200, [Some(0); 3]), "{planned}");
    fsck(&server, "merge").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_in_a_merge_into_a_branch_has_all_of_it_or_none() {
    let server = forked().await;
    let (status, made) = server.ingest_at(BRANCHES, &json!({"name": "staging"})).await;
    assert_eq!(status, 201, "{made}");
    let changes = [change("u", "first", 1), change("c", "other", 1)];
    send(&server, "/ingest?branch=trial", &changes).await;
    send(&server, "/ingest?branch=staging", &[change("c", "own", 2)]).await;
    let [main, before] = [documents(&server, "").await, documents(&server, "@staging").await];
    let after = json!([["first", "{\"n\":1}"], ["other", "{\"n\":1}"], ["own", "{\"n\":2}"]]);
    let into = json!({"into": "staging"});
    let mut folder = server.stop().await;
    post_and_die(folder.path(), "changes.before_batch=abort", MERGE, into.to_string()).await;
    for (point, wanted) in [("branch.before_commit", &before), ("branch.lost_answer", &after)] {
        post_and_die(folder.path(), &format!("{point}=abort"), MERGE, into.to_string()).await;
        let server = TestServer::start_in(folder, SMALL).await;
        assert_eq!(&documents(&server, "@staging").await, wanted, "{point}");
        assert_eq!(documents(&server, "").await, main, "{point}");
        folder = server.stop().await;
    }
    // The next one finds that it was carried out.
    let server = TestServer::start_in(folder, SMALL).await;
    let (status, merged) = server.ingest_at(MERGE, &into).await;
    let changed = ["inserted", "updated", "deleted"].map(|name| merged[name].as_u64());
    assert_eq!((status, changed), (200, [Some(0); 3]), "{merged}");
    assert_eq!(documents(&server, "@staging").await, after);
    fsck(&server, "merge into a branch").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_in_a_squash_has_the_branch_of_before_or_of_after() {
    let server = forked().await;
    for n in 1..4 {
        let changes = [change("u", "first", n), change("u", "other", n)];
        send(&server, "/ingest?branch=trial", &changes).await;
    }
    let wanted = documents(&server, "@trial").await;
    let squash = format!("{BRANCHES}/trial/squash");
    let mut folder = server.stop().await;
    for (point, is_done) in [("branch.before_commit", false), ("branch.lost_answer", true)] {
        post_and_die(folder.path(), &format!("{point}=abort"), &squash, "{}".to_owned()).await;
        let server = TestServer::start_in(folder, SMALL).await;
        assert_eq!(documents(&server, "@trial").await, wanted, "{point}");
        let own = "SELECT count(*) FROM \"events@trial\" WHERE seq > 1";
        let expected = if is_done { 2 } else { 6 };
        assert_eq!(server.rows("shop", own).await, json!([[expected]]), "{point}");
        // The tag was there before the branch left its head.
        let tagged = "SELECT count(*) FROM \"events@trial-before-squash-7\" WHERE seq > 1";
        assert_eq!(server.rows("shop", tagged).await, json!([[6]]), "{point}");
        fsck(&server, point).await;
        folder = server.stop().await;
    }
    let server = TestServer::start_in(folder, SMALL).await;
    let (status, again) = server.ingest_at(&squash, &json!({})).await;
    assert_eq!((status, &again["tag"]), (200, &Value::Null), "{again}");
    send(&server, "/ingest?branch=trial", &[change("d", "other", 0)]).await;
    assert_eq!(documents(&server, "@trial").await, json!([["first", "{\"n\":3}"]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_in_a_drop_has_the_branch_or_its_name_is_free() {
    let server = forked().await;
    send(&server, "/ingest?branch=trial", &[change("u", "first", 1)]).await;
    let main = documents(&server, "").await;
    let trial = format!("{BRANCHES}/trial");
    let mut folder = server.stop().await;
    for (point, is_there) in [("branch.before_drop", true), ("branch.after_drop", false)] {
        let failpoint = format!("{point}=abort");
        let place = (Method::DELETE, trial.as_str());
        let answer = call_until_death(folder.path(), &failpoint, place, String::new()).await;
        assert!(answer.is_err(), "{point}: {answer:?}");
        let server = TestServer::start_in(folder, SMALL).await;
        let status = server.get(&trial).await.status();
        assert_eq!(status, if is_there { 200 } else { 404 }, "{point}");
        assert_eq!(documents(&server, "").await, main, "{point}");
        fsck(&server, point).await;
        folder = server.stop().await;
    }
    let server = TestServer::start_in(folder, SMALL).await;
    let (status, made) = server.ingest_at(BRANCHES, &json!({"name": "trial"})).await;
    assert_eq!((status, &made["head_seq"]), (201, &json!(1)), "{made}");
    assert_eq!(documents(&server, "@trial").await, main);
    server.stop().await;
}
