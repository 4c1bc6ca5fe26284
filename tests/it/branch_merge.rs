//! Branches of a namespace that are compared and merged: what becomes of members that one side or both changed, what
//! the log keeps of it, and what becomes of a merge that breaks off.

use crate::{
    admin::icecore,
    harness::{TestServer, beside, config, meet},
    process::post_and_die,
};
use icecore_lake::{clock::Clock, faults::Failpoints};
use reqwest::Method;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

type Documents = BTreeMap<String, Value>;

fn change(op: &str, collection: &str, key: &str, doc: &Value) -> Value {
    json!({"ns": "shop", "op": op, "collection": collection, "key": key, "after": doc})
}

/// Writes to `main`, or to a branch.
async fn take(server: &TestServer, branch: &str, events: &[Value]) {
    let path = match branch {
        "main" => "/ingest".to_owned(),
        branch => format!("/ingest?branch={branch}"),
    };
    let (status, reply) = server.ingest_at(&path, &json!(events)).await;
    assert_eq!(status, 200, "{branch}: {reply}");
}

async fn make(server: &TestServer, body: &Value) -> Value {
    server.commit("shop").await;
    let (status, made) = server.ingest_at("/v1/shop/branches", body).await;
    assert_eq!(status, 201, "{body}: {made}");
    made
}

async fn documents(server: &TestServer, branch: &str, collection: &str) -> Documents {
    let at = if branch == "main" { String::new() } else { format!("@{branch}") };
    let sql = format!("SELECT key, doc FROM \"cdc_{collection}{at}\" ORDER BY key");
    let rows = server.rows("shop", &sql).await;
    let text = |cell: &Value| cell.as_str().unwrap().to_owned();
    let row = |row: &Value| (text(&row[0]), serde_json::from_str(&text(&row[1])).unwrap());
    rows.as_array().unwrap().iter().map(row).collect()
}

/// Merges under a key, and gives status and answer.
async fn ask(server: &TestServer, branch: &str, body: &Value, key: &str) -> (u16, Value) {
    let url = format!("{}/v1/shop/branches/{branch}/merge", server.url);
    let request = server.http.post(url).json(body).header("idempotency-key", key);
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap())
}

/// A merge that must succeed.
async fn merge(server: &TestServer, branch: &str, body: &Value) -> Value {
    let path = format!("/v1/shop/branches/{branch}/merge");
    let (status, answer) = server.ingest_at(&path, body).await;
    assert_eq!(status, 200, "{branch} {body}: {answer}");
    answer
}

async fn diff(server: &TestServer, branch: &str, parameters: &str) -> Value {
    let answer = server.get(&format!("/v1/shop/branches/{branch}/diff{parameters}")).await;
    let (status, answer) = (answer.status().as_u16(), answer.json::<Value>().await.unwrap());
    assert_eq!(status, 200, "{parameters}: {answer}");
    answer
}

fn counts(report: &Value) -> [u64; 4] {
    ["inserted", "updated", "deleted", "conflicting"]
        .map(|name| report[name].as_u64().unwrap_or_else(|| panic!("{name}: {report}")))
}

async fn events(server: &TestServer) -> Value {
    server.rows("shop", "SELECT count(*), max(seq) FROM events").await
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_both_branches_are_merged_in_one_batch() {
    let server = TestServer::start().await;
    let doc = json!({"a": 1, "b": {"x": 1, "y": 1}});
    let first: Vec<Value> = ["1", "2"].map(|key| change("c", "users", key, &doc)).into();
    take(&server, "main", &first).await;
    make(&server, &json!({"name": "trial"})).await;
    let theirs = json!({"a": 2, "b": {"x": 2, "y": 1}});
    let written = [
        change("u", "users", "1", &theirs),
        change("d", "users", "2", &Value::Null),
        change("c", "users", "3", &doc),
        change("c", "places", "p", &doc),
    ];
    take(&server, "trial", &written).await;
    take(&server, "main", &[change("u", "users", "1", &json!({"a": 1, "b": {"x": 1, "y": 3}}))])
        .await;

    let planned = merge(&server, "trial", &json!({"dry_run": true})).await;
    assert_eq!(counts(&planned), [2, 1, 1, 0], "{planned}");
    assert_eq!(planned["sample"].as_array().map(Vec::len), Some(4), "{planned}");
    assert_eq!(planned["basis"]["seq"], 3, "{planned}");
    assert_eq!(events(&server).await, json!([[3, 3]]));
    let report = merge(&server, "trial", &json!({})).await;
    assert_eq!(counts(&report), [2, 1, 1, 0], "{report}");
    assert_eq!((&report["batches"], &report["fast_forward"]), (&json!(1), &json!(false)));
    assert_eq!((&report["common_seq"], &report["head_seq"]), (&json!(2), &json!(6)), "{report}");
    assert_eq!((&report["tag"], &report["seq"]["first"]), (&json!("before-merge-3"), &json!(4)));
    let users: Documents =
        [("1".to_owned(), json!({"a": 2, "b": {"x": 2, "y": 3}})), ("3".to_owned(), doc.clone())]
            .into();
    assert_eq!(documents(&server, "main", "users").await, users);
    let places = Documents::from([("p".to_owned(), doc)]);
    assert_eq!(documents(&server, "main", "places").await, places);
    // The branch stays as it was.
    assert_eq!(documents(&server, "trial", "users").await["1"], theirs);
    let told = "SELECT DISTINCT meta->>'merge_of', meta->>'merged_seq' FROM events WHERE seq > 3 AND key IS NOT NULL";
    assert_eq!(server.rows("shop", told).await, json!([["trial", "6"]]));
    // There is nothing more to merge.
    let before = events(&server).await;
    let again = merge(&server, "trial", &json!({})).await;
    assert_eq!((counts(&again), &again["batches"]), ([0; 4], &json!(0)), "{again}");
    assert_eq!(again["common_seq"], 6, "{again}");
    assert_eq!(events(&server).await, before);
    // It is undone as a restore is.
    let undo = json!({"at": format!("bookmark:{}", report["undo_bookmark"].as_str().unwrap())});
    let (status, answer) = server.ingest_at("/v1/shop/restore", &undo).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(documents(&server, "main", "users").await.len(), 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_both_changed_is_listed_or_decided_by_the_policy() {
    let server = TestServer::start().await;
    let doc = json!({"a": 1, "b": 1});
    let first: Vec<Value> = ["1", "2", "3"].map(|key| change("c", "users", key, &doc)).into();
    take(&server, "main", &first).await;
    for name in ["ours", "theirs"] {
        make(&server, &json!({ "name": name })).await;
        let written = [
            change("u", "users", "1", &json!({"a": 2, "b": 2})),
            change("d", "users", "2", &Value::Null),
            change("u", "users", "3", &json!({"a": 5, "b": 1})),
        ];
        take(&server, name, &written).await;
    }
    let written = [
        change("u", "users", "1", &json!({"a": 3, "b": 1})),
        change("u", "users", "2", &json!({"a": 3, "b": 1})),
        // The same on both sides is no conflict.
        change("u", "users", "3", &json!({"a": 5, "b": 1})),
    ];
    take(&server, "main", &written).await;
    let before = events(&server).await;
    let (status, refused) = server.ingest_at("/v1/shop/branches/ours/merge", &json!({})).await;
    assert_eq!((status, &refused["code"]), (409, &json!("CONFLICT")), "{refused}");
    assert_eq!(
        refused["details"]["conflicts"],
        json!([
            {"collection": "users", "key": "1", "paths": ["/a"],
             "base": doc, "ours": {"a": 3, "b": 1}, "theirs": {"a": 2, "b": 2}},
            {"collection": "users", "key": "2", "paths": [""],
             "base": doc, "ours": {"a": 3, "b": 1}, "theirs": null},
        ])
    );
    assert_eq!(events(&server).await, before);
    let planned = merge(&server, "ours", &json!({"dry_run": true})).await;
    assert_eq!(planned["conflicts"], refused["details"]["conflicts"]);
    let report = merge(&server, "ours", &json!({"policy": "ours"})).await;
    assert_eq!(counts(&report), [0, 1, 0, 2], "{report}");
    let found = documents(&server, "main", "users").await;
    assert_eq!((&found["1"], &found["2"]), (&json!({"a": 3, "b": 2}), &json!({"a": 3, "b": 1})));
    // What was decided once is no conflict any more.
    let again = merge(&server, "ours", &json!({})).await;
    assert_eq!(counts(&again), [0; 4], "{again}");
    let report = merge(&server, "theirs", &json!({"policy": "theirs"})).await;
    assert_eq!(counts(&report), [0, 1, 1, 2], "{report}");
    let found = documents(&server, "main", "users").await;
    assert_eq!((found.get("1"), found.get("2")), (Some(&json!({"a": 2, "b": 2})), None));
    for (body, status) in [
        (json!({"into": "theirs", "policy": "mine"}), 400),
        (json!({"into": "ours"}), 400),
        (json!({"into": "none"}), 404),
    ] {
        let answer = server.ingest_at("/v1/shop/branches/ours/merge", &body).await;
        assert_eq!(answer.0, status, "{body}: {}", answer.1);
    }
    let (status, _) = server.ingest_at("/v1/shop/branches/none/merge", &json!({})).await;
    assert_eq!(status, 404);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_branch_never_saw_is_in_conflict_behind_a_merge_as_well() {
    let server = TestServer::start().await;
    let doc = json!({"a": 1, "b": 1});
    let first: Vec<Value> = ["1", "2", "3"].map(|key| change("c", "users", key, &doc)).into();
    take(&server, "main", &first).await;
    make(&server, &json!({"name": "trial"})).await;
    let written = [
        change("u", "users", "1", &json!({"a": 7, "b": 1})),
        change("d", "users", "2", &Value::Null),
    ];
    take(&server, "main", &written).await;
    // The merge of another document gives the branch nothing of what `main` changed.
    take(&server, "trial", &[change("u", "users", "3", &json!({"a": 2, "b": 1}))]).await;
    let report = merge(&server, "trial", &json!({})).await;
    assert_eq!(counts(&report), [0, 1, 0, 0], "{report}");
    let written = [
        change("u", "users", "1", &json!({"a": 5, "b": 1})),
        change("u", "users", "2", &json!({"a": 5, "b": 1})),
        // What it had merged is its own.
        change("u", "users", "3", &json!({"a": 3, "b": 1})),
    ];
    take(&server, "trial", &written).await;
    let (status, refused) = server.ingest_at("/v1/shop/branches/trial/merge", &json!({})).await;
    assert_eq!((status, &refused["code"]), (409, &json!("CONFLICT")), "{refused}");
    let listed = &refused["details"]["conflicts"];
    assert_eq!((&listed[0]["key"], &listed[0]["paths"]), (&json!("1"), &json!(["/a"])));
    assert_eq!((&listed[1]["key"], &listed[1]["paths"]), (&json!("2"), &json!([""])));
    assert_eq!(refused["details"]["conflicting"], 2, "{refused}");
    let report = merge(&server, "trial", &json!({"policy": "ours"})).await;
    assert_eq!(counts(&report), [0, 1, 0, 2], "{report}");
    let found = documents(&server, "main", "users").await;
    assert_eq!((&found["1"]["a"], &found["3"]["a"]), (&json!(7), &json!(3)));
    assert!(!found.contains_key("2"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_diff_has_pages_and_a_merge_into_what_stayed_is_a_fast_forward() {
    let server = TestServer::start().await;
    let (one, two) = (json!({"n": 1}), json!({"n": 2}));
    let first = [change("c", "users", "1", &one), change("c", "users", "2", &one)];
    take(&server, "main", &first).await;
    make(&server, &json!({"name": "trial"})).await;
    let written = [
        change("u", "users", "1", &two),
        change("d", "users", "2", &Value::Null),
        change("c", "users", "3", &one),
        change("c", "places", "p", &one),
        // It was changed, and is as it was.
        change("c", "users", "4", &one),
        change("d", "users", "4", &Value::Null),
    ];
    take(&server, "trial", &written).await;
    let all = diff(&server, "trial", "").await;
    assert_eq!(
        (&all["added"], &all["changed"], &all["removed"]),
        (&json!(2), &json!(1), &json!(1))
    );
    let entry = |collection: &str, key: &str, change: &str, before: &Value, after: &Value| json!({"collection": collection, "key": key, "change": change, "before": before, "after": after});
    let expected = [
        entry("places", "p", "added", &Value::Null, &one),
        entry("users", "1", "changed", &one, &two),
        entry("users", "2", "removed", &one, &Value::Null),
        entry("users", "3", "added", &Value::Null, &one),
    ];
    assert_eq!(all["docs"], json!(expected));
    assert_eq!(
        (&all["basis"]["seq"], &all["basis"]["branch"]),
        (&all["head_seq"], &json!("trial"))
    );
    let (mut docs, mut after) = (Vec::new(), String::new());
    for _ in 0..expected.len() {
        let page = diff(&server, "trial", &format!("?limit=1{after}")).await;
        assert_eq!(page["added"], 2);
        docs.extend(page["docs"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_str() else { break };
        let next: String = url::form_urlencoded::byte_serialize(next.as_bytes()).collect();
        after = format!("&after={next}");
    }
    assert_eq!(docs, expected);
    let head = diff(&server, "trial", "?against=head").await;
    assert_eq!(head["docs"], all["docs"]);
    // Changes of another collection do not matter.
    take(&server, "main", &[change("c", "others", "o", &one)]).await;
    let head = diff(&server, "trial", "?against=head").await;
    assert_eq!(head["removed"], 2, "{head}");
    let report = merge(&server, "trial", &json!({})).await;
    assert_eq!(report["fast_forward"], true, "{report}");
    assert_eq!(diff(&server, "trial", "").await["docs"], json!([]));
    let head = diff(&server, "trial", "?against=head").await;
    assert_eq!((&head["removed"], &head["added"]), (&json!(1), &json!(0)), "{head}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_is_carried_out_once_wherever_the_server_ends() {
    let points = [
        ("wal.before_write", 1),
        ("wal.after_sync", 2),
        // Nothing says of the branch that it is merged, or nobody knows that it is said.
        ("branch.before_commit", 2),
        ("branch.lost_answer", 2),
    ];
    let server = TestServer::start().await;
    let doc = |a: u64| json!({"a": a, "b": 1});
    for n in 0..points.len() {
        let key = format!("u-{n}");
        take(&server, "main", &[change("c", "users", &key, &doc(1))]).await;
        make(&server, &json!({"name": format!("trial-{n}")})).await;
        let changes = [4, 2].map(|a| change("u", "users", &key, &doc(a)));
        take(&server, &format!("trial-{n}"), &changes).await;
    }
    let mut folder = server.stop().await;
    for (n, (point, there)) in points.into_iter().enumerate() {
        let (branch, key) = (format!("trial-{n}"), format!("u-{n}"));
        let path = format!("/v1/shop/branches/{branch}/merge");
        post_and_die(folder.path(), &format!("{point}=abort"), &path, "{}".to_owned()).await;
        let server = TestServer::start_in(folder, &[]).await;
        assert_eq!(documents(&server, "main", "users").await[&key], doc(there), "{point}");
        if there == 1 {
            let report = merge(&server, &branch, &json!({})).await;
            assert_eq!(counts(&report), [0, 1, 0, 0], "{point}: {report}");
        }
        // The document changes since. That is no conflict with the merge.
        take(&server, "main", &[change("u", "users", &key, &doc(3))]).await;
        let path = format!("/v1/shop/branches/{branch}/squash");
        let (status, squashed) = server.ingest_at(&path, &json!({})).await;
        assert_eq!((status, &squashed["events_before"]), (200, &json!(0)), "{point}: {squashed}");
        let before = events(&server).await;
        let planned = merge(&server, &branch, &json!({"dry_run": true})).await;
        assert_eq!(counts(&planned), [0; 4], "{point}: {planned}");
        assert_eq!(planned["common_seq"], planned["head_seq"], "{point}: {planned}");
        let report = merge(&server, &branch, &json!({})).await;
        assert_eq!(counts(&report), [0; 4], "{point}: {report}");
        assert_eq!(events(&server).await, before, "{point}");
        assert_eq!(documents(&server, "main", "users").await[&key], doc(3), "{point}");
        folder = server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_document_that_is_written_during_a_merge_is_compared_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder, &[]);
    // One comparison where another document was written, two where another member was, five where one always is, and one
    // where the same member was.
    let (faults, meeting) = Failpoints::meetings("merge.before_append", 9);
    config.faults = faults;
    let server = TestServer::start_with(folder, &config, Clock::system()).await;
    let doc = json!({"a": 1});
    let first = [change("c", "users", "1", &doc), change("c", "users", "2", &doc)];
    take(&server, "main", &first).await;
    make(&server, &json!({"name": "trial"})).await;
    let body = json!({});
    let merge_while = async |n: u64, writes: &[Option<Value>]| {
        take(&server, "trial", &[change("u", "users", "1", &json!({ "a": n }))]).await;
        let merged = server.ingest_at("/v1/shop/branches/trial/merge", &body);
        let meanwhile = async {
            for write in writes {
                meet(&meeting).await;
                if let Some(write) = write {
                    take(&server, "main", std::slice::from_ref(write)).await;
                }
                meet(&meeting).await;
            }
        };
        beside(&meeting, merged, meanwhile).await.0
    };
    let of_one = |doc: &Value| Some(change("u", "users", "1", doc));
    // Another document of the collection does not matter.
    let other = Some(change("u", "users", "2", &json!({"a": 9})));
    let (status, report) = merge_while(2, &[other]).await;
    assert_eq!((status, counts(&report)), (200, [0, 1, 0, 0]), "{report}");
    // Another member is kept, and the merge is undone to it.
    let both = json!({"a": 2, "b": 1});
    let (status, report) = merge_while(3, &[of_one(&both), None]).await;
    assert_eq!((status, counts(&report)), (200, [0, 1, 0, 0]), "{report}");
    assert_eq!(documents(&server, "main", "users").await["1"], json!({"a": 3, "b": 1}));
    let undo = report["undo_bookmark"].as_str().unwrap();
    let path = format!("/v1/shop/collections/users/docs/1?at=bookmark:{undo}");
    assert_eq!(server.get(&path).await.json::<Value>().await.unwrap()["doc"], both);
    // What never rests is left alone.
    let writes = [2, 3, 4, 5, 6].map(|b| of_one(&json!({"a": 3, "b": b})));
    let (status, refused) = merge_while(4, &writes).await;
    assert_eq!((status, &refused["code"]), (503, &json!("UNAVAILABLE")), "{refused}");
    let found = documents(&server, "main", "users").await;
    assert_eq!((&found["1"], &found["2"]), (&json!({"a": 3, "b": 6}), &json!({"a": 9})));
    // A conflict that comes meanwhile is one.
    let (status, refused) = merge_while(5, &[of_one(&json!({"a": 8, "b": 6}))]).await;
    assert_eq!((status, &refused["code"]), (409, &json!("CONFLICT")), "{refused}");
    let report = merge(&server, "trial", &json!({"policy": "theirs"})).await;
    assert_eq!(counts(&report), [0, 1, 0, 1], "{report}");
    assert_eq!(documents(&server, "main", "users").await["1"], json!({"a": 5, "b": 6}));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_written_right_before_a_batch_of_a_merge_is_merged() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder, &[]);
    // For each of both merges the batch that is not taken, and the one of the next comparison.
    let (faults, meeting) = Failpoints::meetings("changes.before_batch", 4);
    config.faults = faults;
    let server = TestServer::start_with(folder, &config, Clock::system()).await;
    let first = ["1", "2"].map(|key| change("c", "users", key, &json!({"a": 1})));
    take(&server, "main", &first).await;
    for name in ["trial", "staging"] {
        make(&server, &json!({ "name": name })).await;
    }
    take(&server, "trial", &[change("u", "users", "1", &json!({"a": 2}))]).await;
    for into in ["main", "staging"] {
        let meanwhile = async {
            meet(&meeting).await;
            let both = json!({"a": 1, "b": 7});
            take(&server, into, &["1", "2"].map(|key| change("u", "users", key, &both))).await;
            for _ in 0..3 {
                meet(&meeting).await;
            }
        };
        let body = json!({ "into": into });
        let merged = server.ingest_at("/v1/shop/branches/trial/merge", &body);
        let (status, report) = beside(&meeting, merged, meanwhile).await.0;
        assert_eq!((status, &report["overwritten"]), (200, &json!(0)), "{into}: {report}");
        assert_eq!(counts(&report), [0, 1, 0, 0], "{into}: {report}");
        let found = documents(&server, into, "users").await;
        assert_eq!(found["1"], json!({"a": 2, "b": 7}), "{into}");
        assert_eq!(found["2"], json!({"a": 1, "b": 7}), "{into}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_written_between_the_batches_of_a_merge_is_merged_or_a_conflict() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder, &[("ingest.batch_events_max", "10")]);
    // Four batches of the first merge, and one of the second.
    let (faults, meeting) = Failpoints::meetings("changes.after_batch", 5);
    config.faults = faults;
    let server = TestServer::start_with(folder, &config, Clock::system()).await;
    let send = async |branch: &str, op: &str, a: u64| {
        let change = |n: u64| change(op, "users", &format!("u-{n:02}"), &json!({ "a": a }));
        let changes: Vec<Value> = (0..20).map(change).collect();
        for events in changes.chunks(10) {
            take(&server, branch, events).await;
        }
    };
    // Writes a document that the first batch did not merge, and gives its key.
    let write = async |a: u64, doc: &Value| {
        let there = documents(&server, "main", "users").await;
        let key = there.iter().find(|(_, doc)| doc["a"] == a).unwrap().0.clone();
        take(&server, "main", &[change("u", "users", &key, doc)]).await;
        key
    };
    send("main", "c", 1).await;
    make(&server, &json!({"name": "trial"})).await;
    send("trial", "u", 2).await;
    let (path, body) = ("/v1/shop/branches/trial/merge", json!({}));
    let theirs = json!({"policy": "theirs"});
    let meanwhile = async {
        meet(&meeting).await;
        let of_both = write(1, &json!({"a": 5})).await;
        let key = write(1, &json!({"a": 1, "b": 7})).await;
        meet(&meeting).await;
        for _ in 0..3 {
            meet(&meeting).await;
            meet(&meeting).await;
        }
        (of_both, key)
    };
    let merged = server.ingest_at(path, &theirs);
    let ((status, report), (of_both, key)) = beside(&meeting, merged, meanwhile).await;
    assert_eq!((status, counts(&report)), (200, [0, 20, 0, 1]), "{report}");
    assert_eq!((&report["batches"], &report["overwritten"]), (&json!(4), &json!(0)), "{report}");
    let found = documents(&server, "main", "users").await;
    assert_eq!((&found[&of_both], &found[&key]), (&json!({"a": 2}), &json!({"a": 2, "b": 7})));
    assert!(found.values().all(|doc| doc["a"] == 2), "{found:?}");

    send("trial", "u", 3).await;
    let meanwhile = async {
        meet(&meeting).await;
        let key = write(2, &json!({"a": 9})).await;
        meet(&meeting).await;
        key
    };
    let merged = server.ingest_at(path, &body);
    let ((status, refused), key) = beside(&meeting, merged, meanwhile).await;
    assert_eq!((status, &refused["code"]), (409, &json!("CONFLICT")), "{refused}");
    let details = &refused["details"];
    assert_eq!(
        (&details["conflicting"], &details["conflicts"][0]["key"]),
        (&json!(1), &json!(key))
    );
    let found = documents(&server, "main", "users").await;
    assert_eq!(found[&key], json!({"a": 9}));
    assert_eq!(found.values().filter(|doc| doc["a"] == 3).count(), 19, "{found:?}");
    // What a merge began with stays, as it may go on.
    let (status, squashed) = server.ingest_at("/v1/shop/branches/trial/squash", &body).await;
    assert_eq!((status, &squashed["events_before"]), (200, &json!(0)), "{squashed}");
    // The next merge goes on from there.
    let report = merge(&server, "trial", &theirs).await;
    assert_eq!(counts(&report), [0, 1, 0, 1], "{report}");
    let found = documents(&server, "main", "users").await;
    assert!(found.values().all(|doc| doc["a"] == 3), "{found:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_under_a_key_goes_on_and_is_answered_again() {
    let folder = tempfile::tempdir().unwrap();
    let small = [("ingest.batch_events_max", "10")];
    let server = TestServer::start_in(folder, &small).await;
    let keys: Vec<String> = (0..25).map(|n| format!("u-{n:02}")).collect();
    take(&server, "main", &[change("c", "users", "first", &json!({}))]).await;
    make(&server, &json!({"name": "trial"})).await;
    for keys in keys.chunks(10) {
        let created = |key: &String| change("c", "users", key, &json!({"n": 1}));
        take(&server, "trial", &keys.iter().map(created).collect::<Vec<_>>()).await;
    }
    let folder = server.stop().await;
    let mut config = config(&folder, &small);
    config.faults = Failpoints::parse("wal.before_write=error@1").unwrap();
    let server = TestServer::start_with(folder, &config, Clock::system()).await;
    let (status, answer) = ask(&server, "trial", &json!({}), "k").await;
    assert_eq!(status, 503, "{answer}");
    let there = documents(&server, "main", "users").await.len();
    assert!(1 < there && there < 26, "{there}");
    // What comes to the branch meanwhile is not in this merge.
    take(&server, "trial", &[change("c", "users", "late", &json!({}))]).await;
    let (status, report) = ask(&server, "trial", &json!({}), "k").await;
    assert_eq!((status, &report["head_seq"]), (200, &json!(26)), "{report}");
    let found = documents(&server, "main", "users").await;
    assert_eq!(found.len(), 26);
    assert!(!found.contains_key("late"));
    assert_eq!(report["tag"], "before-merge-1");
    let before = events(&server).await;
    let (status, again) = ask(&server, "trial", &json!({}), "k").await;
    assert_eq!((status, &again), (200, &report));
    let (status, other) = ask(&server, "trial", &json!({"policy": "ours"}), "k").await;
    assert_eq!((status, &other["code"]), (409, &json!("CONFLICT")), "{other}");
    assert_eq!(events(&server).await, before);
    let report = merge(&server, "trial", &json!({})).await;
    assert_eq!(counts(&report), [1, 0, 0, 0], "{report}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn branches_are_merged_into_one_another_and_truncates_are_deletes() {
    let server = TestServer::start().await;
    let (one, two) = (json!({"n": 1, "m": 1}), json!({"n": 2, "m": 1}));
    let first = [change("c", "users", "1", &one), change("c", "users", "2", &one)];
    take(&server, "main", &first).await;
    make(&server, &json!({"name": "parent"})).await;
    take(&server, "parent", &[change("c", "users", "3", &one)]).await;
    make(&server, &json!({"name": "child", "from": "parent", "collection": "users"})).await;
    take(&server, "child", &[json!({"ns": "shop", "type": "cdc.truncate", "collection": "users"})])
        .await;
    take(&server, "child", &[change("c", "users", "1", &two)]).await;
    take(&server, "parent", &[change("u", "users", "1", &json!({"n": 1, "m": 9}))]).await;
    let main = documents(&server, "main", "users").await;

    let report = merge(&server, "child", &json!({"into": "parent"})).await;
    assert_eq!(counts(&report), [0, 1, 2, 0], "{report}");
    assert_eq!((&report["undo_bookmark"], &report["tag"]), (&Value::Null, &Value::Null));
    let expected: Documents = [("1".to_owned(), json!({"n": 2, "m": 9}))].into();
    assert_eq!(documents(&server, "parent", "users").await, expected);
    assert_eq!(documents(&server, "main", "users").await, main);
    // What a merge goes on from is a number among the events of both, so these stay.
    let (status, squashed) = server.ingest_at("/v1/shop/branches/parent/squash", &json!({})).await;
    assert_eq!((status, &squashed["events_before"]), (200, &json!(0)), "{squashed}");
    // A branch of one collection takes a merge of that collection, and not of others.
    take(&server, "parent", &[change("u", "users", "1", &json!({"n": 3, "m": 9}))]).await;
    let report = merge(&server, "parent", &json!({"into": "child", "policy": "theirs"})).await;
    assert_eq!(documents(&server, "child", "users").await["1"]["n"], 3, "{report}");
    take(&server, "parent", &[change("c", "places", "p", &one)]).await;
    let (status, refused) =
        server.ingest_at("/v1/shop/branches/parent/merge", &json!({"into": "child"})).await;
    assert_eq!(status, 400, "{refused}");
    // What came into a branch by a merge is its own to the next one.
    let report = merge(&server, "parent", &json!({})).await;
    assert_eq!(counts(&report), [1, 1, 1, 0], "{report}");
    assert_eq!(
        documents(&server, "main", "users").await,
        documents(&server, "parent", "users").await
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_is_made_again_gets_what_the_one_before_had() {
    let server = TestServer::start().await;
    let (one, two) = (json!({"n": 1}), json!({"n": 2}));
    take(&server, "main", &[change("c", "users", "1", &one)]).await;
    make(&server, &json!({"name": "trial"})).await;
    take(&server, "trial", &[change("u", "users", "1", &two)]).await;
    for _ in 0..2 {
        make(&server, &json!({"name": "staging"})).await;
        let report = merge(&server, "trial", &json!({"into": "staging"})).await;
        assert_eq!(counts(&report), [0, 1, 0, 0], "{report}");
        assert_eq!(documents(&server, "staging", "users").await["1"], two);
        let path = "/v1/shop/branches/staging";
        let (status, dropped) = server.call(Method::DELETE, path, &json!({})).await;
        assert_eq!(status, 200, "{dropped}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_squashed_branch_is_merged_as_it_was() {
    let server = TestServer::start().await;
    let doc = json!({"n": 0});
    take(&server, "main", &[change("c", "users", "1", &doc), change("c", "users", "2", &doc)])
        .await;
    make(&server, &json!({"name": "trial"})).await;
    for n in 1..4 {
        take(&server, "trial", &[change("u", "users", "1", &json!({ "n": n }))]).await;
    }
    let gone = [change("d", "users", "2", &Value::Null), change("c", "users", "3", &doc)];
    take(&server, "trial", &gone).await;
    let before = merge(&server, "trial", &json!({"dry_run": true})).await;
    let (status, squashed) = server.ingest_at("/v1/shop/branches/trial/squash", &json!({})).await;
    assert_eq!(status, 200, "{squashed}");
    let after = merge(&server, "trial", &json!({"dry_run": true})).await;
    assert_eq!(counts(&before), counts(&after), "{after}");
    merge(&server, "trial", &json!({})).await;
    assert_eq!(
        documents(&server, "main", "users").await,
        documents(&server, "trial", "users").await
    );
    // Behind the merge it is squashed as well, and the next merge goes on from the one before.
    take(&server, "main", &[change("u", "users", "1", &json!({"n": 3, "m": 1}))]).await;
    for n in 4..7 {
        let changes = [
            change("u", "users", "1", &json!({ "n": n })),
            change("d", "users", "3", &Value::Null),
        ];
        take(&server, "trial", &changes).await;
    }
    let (status, squashed) = server.ingest_at("/v1/shop/branches/trial/squash", &json!({})).await;
    let counted = (&squashed["events_before"], &squashed["events"]);
    assert_eq!((status, counted), (200, (&json!(6), &json!(2))), "{squashed}");
    let report = merge(&server, "trial", &json!({})).await;
    assert_eq!(counts(&report), [0, 1, 1, 0], "{report}");
    let found = documents(&server, "main", "users").await;
    assert_eq!(found, Documents::from([("1".to_owned(), json!({"n": 6, "m": 1}))]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_branch_takes_after_others_moved_it_back_is_merged() {
    let server = TestServer::start().await;
    let doc = json!({"n": 0});
    take(&server, "main", &[change("c", "users", "1", &doc)]).await;
    make(&server, &json!({"name": "trial"})).await;
    take(&server, "trial", &[change("c", "users", "2", &doc)]).await;
    let (_, shown) = server.call(Method::GET, "/v1/shop/branches/trial", &json!({})).await;
    take(&server, "trial", &[change("c", "users", "3", &doc)]).await;
    merge(&server, "trial", &json!({})).await;
    let moved = json!([{"action": "set-snapshot-ref", "ref-name": "trial", "type": "branch", "snapshot-id": shown["head"]}]);
    let body = json!({"requirements": [], "updates": moved});
    let table = "/catalog/v1/namespaces/shop/tables/events";
    let (status, answer) = server.call(Method::POST, table, &body).await;
    assert_eq!(status, 200, "{answer}");
    // Its number is not that of the event that was merged.
    take(&server, "trial", &[change("c", "users", "4", &doc)]).await;
    let report = merge(&server, "trial", &json!({})).await;
    assert_eq!(counts(&report), [1, 0, 0, 0], "{report}");
    let keys: Vec<String> = documents(&server, "main", "users").await.into_keys().collect();
    assert_eq!(keys, ["1", "2", "3", "4"]);
    let (status, answer) = ask(&server, "main", &json!({"into": "trial"}), "main").await;
    assert!(status == 400 && answer.to_string().contains("in the path"), "{answer}");
    // What tells of a merge is not taken from a sender.
    let ids = "SELECT id FROM events WHERE type = 'merge.completed' ORDER BY seq";
    let ids = server.rows("shop", ids).await;
    let id = ids[0][0].as_str().unwrap().replace("-completed", "-7-completed");
    let forged = json!([{"ns": "shop", "id": id, "type": "merge.completed", "data": {}}]);
    let (_, reply) = server.ingest_at("/ingest", &forged).await;
    assert!(reply.to_string().contains("INVALID_EVENT"), "{reply}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_show_a_branch_and_merge_it_once_they_are_told_to() {
    let server = TestServer::start().await;
    let doc = json!({"n": 1});
    take(&server, "main", &[change("c", "users", "1", &doc)]).await;
    make(&server, &json!({"name": "trial"})).await;
    take(&server, "trial", &[change("u", "users", "1", &json!({"n": 2}))]).await;
    let (done, text) = icecore(&server, &["branches", "diff", "trial", "--ns", "shop"]);
    assert!(done && text.contains("1 changed"), "{text}");
    let line = ["branches", "merge", "trial", "--ns", "shop"];
    let (done, text) = icecore(&server, &[&line[..], &["--dry-run"]].concat());
    assert!(done && text.contains("would be merged into main"), "{text}");
    assert!(text.contains("users/1 updated: {\"n\":1} -> {\"n\":2}"), "{text}");
    // Nobody is there to be asked.
    assert!(!icecore(&server, &line).0);
    assert_eq!(documents(&server, "main", "users").await["1"], doc);
    let (done, text) = icecore(&server, &[&line[..], &["--yes"]].concat());
    assert!(done && text.contains("fast-forward"), "{text}");
    assert_eq!(documents(&server, "main", "users").await["1"], json!({"n": 2}));
    server.stop().await;
}

/// Numbers that are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    /// Changes of a few documents, done to the state as well.
    fn changes(&mut self, state: &mut Documents) -> Vec<Value> {
        let mut events = Vec::new();
        for _ in 0..6 {
            let key = format!("u-{}", self.below(6));
            let member = ["a", "b", "c"][self.below(3) as usize];
            match (self.below(5), state.get(&key).cloned()) {
                (0, Some(_)) => {
                    state.remove(&key);
                    events.push(change("d", "users", &key, &Value::Null));
                }
                (_, Some(mut doc)) => {
                    doc[member] = json!(self.below(9));
                    doc["inner"][member] = json!(self.below(9));
                    events.push(change("u", "users", &key, &doc));
                    state.insert(key, doc);
                }
                (_, None) => {
                    let doc = json!({ member: self.below(9), "inner": {"a": 0} });
                    events.push(change("c", "users", &key, &doc));
                    state.insert(key, doc);
                }
            }
        }
        events
    }
}

/// What a merge makes of a value: theirs at the last event in common, theirs, ours. Counts conflicts.
fn merged(sides: [Option<Value>; 3], is_ours: bool, conflicts: &mut u64) -> Option<Value> {
    let objects = sides.iter().map(|it| it.as_ref().and_then(Value::as_object).cloned());
    let objects: Option<Vec<Map<String, Value>>> = objects.collect();
    let [base, theirs, ours] = sides;
    if theirs == base || theirs == ours {
        return ours;
    }
    if let Some(objects) = objects {
        let names: BTreeSet<&String> = objects[1].keys().chain(objects[2].keys()).collect();
        let mut members = Map::new();
        for name in names {
            let of = |at: usize| objects[at].get(name).cloned();
            if let Some(value) = merged([of(0), of(1), of(2)], is_ours, conflicts) {
                members.insert(name.clone(), value);
            }
        }
        return Some(Value::Object(members));
    }
    if ours == base {
        return theirs;
    }
    *conflicts += 1;
    if is_ours { ours } else { theirs }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_changes_on_both_sides_are_merged_as_a_model_merges_them() {
    let server = TestServer::start().await;
    let mut numbers = Numbers(11);
    let mut ours = Documents::new();
    take(&server, "main", &numbers.changes(&mut ours)).await;
    make(&server, &json!({"name": "trial"})).await;
    let mut theirs = ours.clone();
    let mut base = theirs.clone();
    for round in 0..8 {
        take(&server, "trial", &numbers.changes(&mut theirs)).await;
        take(&server, "main", &numbers.changes(&mut ours)).await;
        let is_ours = round % 2 == 0;
        let (mut after, mut conflicting) = (Documents::new(), 0);
        let keys = (0..6).map(|n| format!("u-{n}"));
        for key in keys {
            let sides = [&base, &theirs, &ours].map(|it| it.get(&key).cloned());
            let mut conflicts = 0;
            if let Some(doc) = merged(sides, is_ours, &mut conflicts) {
                after.insert(key, doc);
            }
            conflicting += u64::from(0 < conflicts);
        }
        if conflicting != 0 {
            let answer = server.ingest_at("/v1/shop/branches/trial/merge", &json!({})).await;
            assert_eq!(answer.0, 409, "{round}: {}", answer.1);
            assert_eq!(answer.1["details"]["conflicting"], conflicting, "{round}: {}", answer.1);
        }
        let policy = if is_ours { "ours" } else { "theirs" };
        let report = merge(&server, "trial", &json!({ "policy": policy })).await;
        assert_eq!(counts(&report)[3], conflicting, "{round}: {report}");
        assert_eq!(documents(&server, "main", "users").await, after, "{round}: {report}");
        assert_eq!(documents(&server, "trial", "users").await, theirs, "{round}");
        ours = after;
        base = theirs.clone();
    }
    server.stop().await;
}
