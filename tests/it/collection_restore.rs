//! Collections as they were at a point of their history: which documents are there, what the log keeps of it, how it
//! is undone, and what becomes of a restore that breaks off.

use crate::{
    access::Guarded,
    admin::icecore,
    harness::{TestServer, config, rfc3339},
    process::post_and_die,
};
use icecore_lake::{clock::Clock, faults::Failpoints};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// 2026-09-21 14:13 UTC.
const NOW_MS: i64 = 1_790_000_000_000;
/// Nothing goes by itself.
const SETTINGS: &[(&str, &str)] = &[
    ("retention.cron", ""),
    ("dead_letters.cron", ""),
    ("expire.cron", ""),
    ("compaction.enabled", "off"),
];

type Documents = BTreeMap<String, String>;

fn change(op: &str, collection: &str, key: &str, doc: &Value) -> Value {
    json!({"ns": "shop", "op": op, "collection": collection, "key": key, "after": doc})
}

async fn take(server: &TestServer, events: &[Value]) {
    let (status, reply) = server.ingest(&json!(events)).await;
    assert_eq!(status, 200, "{reply}");
}

async fn documents(server: &TestServer, collection: &str) -> Documents {
    let sql = format!("SELECT key, doc FROM \"cdc_{collection}\" ORDER BY key");
    let rows = server.rows("shop", &sql).await;
    let text = |cell: &Value| cell.as_str().unwrap().to_owned();
    rows.as_array().unwrap().iter().map(|row| (text(&row[0]), text(&row[1]))).collect()
}

/// Restores under a key, and gives status and answer.
async fn ask(server: &TestServer, what: &str, body: &Value, key: &str) -> (u16, Value) {
    let request = server.http.post(format!("{}/v1/shop/{what}", server.url)).json(body);
    let answer = request.header("idempotency-key", key).send().await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap())
}

/// A restore that must succeed.
async fn restore(server: &TestServer, collection: &str, at: &str) -> Value {
    let path = format!("/v1/shop/collections/{collection}/restore");
    let (status, answer) = server.ingest_at(&path, &json!({ "at": at })).await;
    assert_eq!(status, 200, "{at}: {answer}");
    answer
}

/// Numbers that are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// Sends random changes of a few documents, and gives the documents after each of them, by its `seq`.
async fn history(server: &TestServer, changes: u64) -> Vec<Documents> {
    let mut numbers = Numbers(7);
    let (mut now, mut events) = (Documents::new(), Vec::new());
    let mut states = vec![now.clone()];
    for n in 0..changes {
        let key = format!("u-{}", numbers.below(9));
        let doc = json!({"n": n, "of": "übung \"a\""});
        let (op, doc) = match (numbers.below(3), now.contains_key(&key)) {
            (0, true) => ("d", Value::Null),
            (_, true) => ("u", doc),
            (_, false) => ("c", doc),
        };
        match op {
            "d" => now.remove(&key),
            _ => now.insert(key.clone(), doc.to_string()),
        };
        events.push(change(op, "users", &key, &doc));
        states.push(now.clone());
    }
    let half = events.len() / 2;
    take(server, &events[..half]).await;
    server.commit("shop").await;
    take(server, &events[half..]).await;
    states
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_as_they_were_at_any_event_and_a_restore_is_undone() {
    let server = TestServer::start().await;
    let states = history(&server, 60).await;
    let now = states.last().unwrap();
    let mut undone = Vec::new();
    for seq in [0, 1, 30, 31, 59] {
        let before = documents(&server, "users").await;
        let report = restore(&server, "users", &format!("seq:{seq}")).await;
        let expected = &states[usize::try_from(seq).unwrap()];
        assert_eq!(&documents(&server, "users").await, expected, "seq {seq}");
        let count = |name: &str| report[name].as_u64().unwrap();
        let there = |key: &&String| before.contains_key(*key);
        assert_eq!(count("inserted"), expected.keys().filter(|key| !there(key)).count() as u64);
        let same = expected.iter().filter(|(key, doc)| before.get(*key) == Some(doc)).count();
        assert_eq!(count("unchanged"), same as u64, "{report}");
        assert_eq!(count("batches"), 1);
        undone.push((report["undo_bookmark"].as_str().unwrap().to_owned(), before));
    }
    // Each of them is undone, and one undo as well.
    for (at, (bookmark, before)) in undone.iter().rev().enumerate() {
        let again = documents(&server, "users").await;
        let report = restore(&server, "users", &format!("bookmark:{bookmark}")).await;
        assert_eq!(&documents(&server, "users").await, before);
        if at == 0 {
            let undo = report["undo_bookmark"].as_str().unwrap();
            restore(&server, "users", &format!("bookmark:{undo}")).await;
            assert_eq!(documents(&server, "users").await, again);
            restore(&server, "users", &format!("bookmark:{bookmark}")).await;
        }
    }
    assert_eq!(&documents(&server, "users").await, now);
    // An event that has such a bookmark is in nobody's way.
    let undo = restore(&server, "users", "seq:1").await["undo_bookmark"].clone();
    take(&server, &[json!({"ns": "shop", "type": "a", "bookmark": undo})]).await;
    restore(&server, "users", &format!("bookmark:{}", undo.as_str().unwrap())).await;
    assert_eq!(&documents(&server, "users").await, now);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_is_ordinary_changes_a_tag_and_an_event_that_tells_of_it() {
    let server = TestServer::start().await;
    let (ann, bea) = (json!({"name": "Ann"}), json!({"name": "Bea"}));
    take(&server, &[change("c", "users", "1", &ann), change("c", "users", "2", &ann)]).await;
    take(&server, &[change("u", "users", "1", &bea), change("d", "users", "2", &Value::Null)])
        .await;
    take(&server, &[change("c", "users", "3", &bea)]).await;
    let body = json!({"at": "seq:2", "dry_run": true});
    let (status, planned) = server.ingest_at("/v1/shop/collections/users/restore", &body).await;
    assert_eq!((status, &planned["dry_run"]), (200, &json!(true)), "{planned}");
    assert_eq!(planned["basis"]["seq"], 5, "{planned}");
    assert_eq!(
        planned["sample"],
        json!([
            {"collection": "users", "key": "1", "change": "updated", "before": bea, "after": ann},
            {"collection": "users", "key": "2", "change": "inserted", "before": null, "after": ann},
            {"collection": "users", "key": "3", "change": "deleted", "before": bea, "after": null},
        ])
    );
    assert_eq!(server.rows("shop", "SELECT max(seq) FROM events").await, json!([[5]]));
    let report = restore(&server, "users", "seq:2").await;
    assert_eq!((&report["restored_to"]["seq"], &report["basis"]["seq"]), (&json!(2), &json!(5)));
    assert_eq!((&report["tag"], &report["seq"]["first"]), (&json!("before-restore-5"), &json!(6)));
    let id = report["restore"].as_str().unwrap();
    let sql = "SELECT key, op, before, after, meta->>'restore_of' FROM events \
               WHERE seq > 5 AND key IS NOT NULL ORDER BY key";
    assert_eq!(
        server.rows("shop", sql).await,
        json!([
            ["1", "u", bea.to_string(), ann.to_string(), id],
            ["2", "c", null, ann.to_string(), id],
            ["3", "d", bea.to_string(), null, id],
        ])
    );
    let tagged = server.rows("shop", "SELECT max(seq) FROM \"events@before-restore-5\"").await;
    assert_eq!(tagged, json!([[5]]));
    let told = "SELECT seq FROM events WHERE type = 'restore.completed'";
    assert_eq!(server.rows("shop", told).await, json!([[report["seq"]["last"]]]));
    // A tag is a point as well. What is as it was changes nothing.
    restore(&server, "users", "tag:before-restore-5").await;
    let same = restore(&server, "users", "seq:5").await;
    assert_eq!((&same["unchanged"], &same["tag"]), (&json!(2), &Value::Null), "{same}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_are_no_objects_come_back_as_they_were() {
    let server = TestServer::start().await;
    let docs = [json!("a \"text\""), json!(""), json!("5"), json!(5), json!([1, "b"]), json!(true)];
    let of_each = |op: &str| -> Vec<Value> {
        let changes = docs.iter().enumerate().map(|(n, doc)| {
            let doc = if op == "d" { &Value::Null } else { doc };
            change(op, "users", &n.to_string(), doc)
        });
        changes.collect()
    };
    take(&server, &of_each("c")).await;
    let before = documents(&server, "users").await;
    assert_eq!(before.len(), docs.len());
    take(&server, &of_each("d")).await;
    let point = format!("seq:{}", docs.len());
    restore(&server, "users", &point).await;
    assert_eq!(documents(&server, "users").await, before);
    let again = restore(&server, "users", &point).await;
    assert_eq!(again["unchanged"], docs.len(), "{again}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_namespace_and_a_dropped_collection_come_back() {
    let server = TestServer::start().await;
    let doc = json!({"n": 1});
    let keys = ["a", "b", "c"];
    let all = |op: &str, collection: &str, doc: &Value| -> Vec<Value> {
        keys.iter().map(|key| change(op, collection, key, doc)).collect()
    };
    take(&server, &all("c", "users", &doc)).await;
    take(&server, &all("c", "It's/odd", &doc)).await;
    let before = documents(&server, "users").await;
    take(&server, &all("d", "users", &Value::Null)).await;
    take(&server, &all("u", "It's/odd", &json!({"n": 2}))).await;
    take(&server, &[change("c", "later", "x", &doc)]).await;
    assert!(documents(&server, "users").await.is_empty());
    let (status, report) = ask(&server, "restore", &json!({"at": "seq:6"}), "k").await;
    assert_eq!(status, 200, "{report}");
    let counts = ["inserted", "updated", "deleted", "batches"].map(|name| report[name].clone());
    assert_eq!(counts, [json!(3), json!(3), json!(1), json!(1)], "{report}");
    assert_eq!(report["collections"].as_array().map(Vec::len), Some(3));
    for collection in ["users", "It's/odd"] {
        assert_eq!(documents(&server, collection).await, before, "{collection}");
    }
    assert!(documents(&server, "later").await.is_empty());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_before_a_truncate_comes_back_and_what_was_before_all_is_nothing() {
    let server = TestServer::start().await;
    let doc = json!({"n": 1});
    take(&server, &[change("c", "users", "1", &doc), change("c", "users", "2", &doc)]).await;
    take(&server, &[json!({"ns": "shop", "type": "cdc.truncate", "collection": "users"})]).await;
    assert!(documents(&server, "users").await.is_empty());
    let report = restore(&server, "users", "seq:2").await;
    assert_eq!((&report["inserted"], &report["unchanged"]), (&json!(2), &json!(0)), "{report}");
    let there = documents(&server, "users").await;
    assert_eq!(there.len(), 2);
    let report = restore(&server, "users", "seq:0").await;
    assert_eq!((&report["deleted"], &report["inserted"]), (&json!(2), &json!(0)), "{report}");
    assert!(documents(&server, "users").await.is_empty());
    let undo = report["undo_bookmark"].as_str().unwrap();
    restore(&server, "users", &format!("bookmark:{undo}")).await;
    assert_eq!(documents(&server, "users").await, there);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_collection_gets_the_state_if_it_has_no_documents() {
    // The answers of queries are bounded so, and restores are not.
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start_in(folder, &[("sql.rows_max", "2")]).await;
    let doc = json!({"n": 1});
    take(&server, &[change("c", "users", "1", &doc), change("d", "users", "1", &Value::Null)])
        .await;
    let path = "/v1/shop/collections/users/restore";
    let body = json!({"at": "seq:1", "into": "copies"});
    let (status, report) = server.ingest_at(path, &body).await;
    assert_eq!((status, &report["inserted"]), (200, &json!(1)), "{report}");
    let expected: Documents = [("1".to_owned(), doc.to_string())].into();
    assert_eq!(documents(&server, "copies").await, expected);
    assert!(documents(&server, "users").await.is_empty());
    let (status, refused) = server.ingest_at(path, &body).await;
    assert_eq!((status, &refused["code"]), (409, &json!("CONFLICT")), "{refused}");
    for (at, status) in [("seq:99", 404), ("seq:x", 400), ("bookmark:none", 404), ("~1", 400)] {
        let answer = server.ingest_at(path, &json!({ "at": at })).await;
        assert_eq!(answer.0, status, "{at}: {}", answer.1);
    }
    let all = ["a", "b", "c"].map(|key| change("c", "many", key, &doc));
    take(&server, &all).await;
    let last = server.rows("shop", "SELECT max(seq) FROM events").await;
    let path = "/v1/shop/collections/many/restore";
    let body = json!({"at": format!("seq:{}", last[0][0]), "into": "more"});
    let (status, report) = server.ingest_at(path, &body).await;
    assert_eq!((status, &report["inserted"]), (200, &json!(3)), "{report}");
    let more = server.rows("shop", "SELECT count(*), min(doc), max(doc) FROM cdc_more").await;
    assert_eq!(more, json!([[3, doc.to_string(), doc.to_string()]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_broke_off_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let small = [("ingest.batch_events_max", "10")];
    let server = TestServer::start_in(folder, &small).await;
    let keys: Vec<String> = (0..25).map(|n| format!("u-{n:02}")).collect();
    for (op, doc) in [("c", json!({"n": 1})), ("d", Value::Null)] {
        for keys in keys.chunks(10) {
            let events: Vec<Value> =
                keys.iter().map(|key| change(op, "users", key, &doc)).collect();
            take(&server, &events).await;
        }
    }
    let folder = server.stop().await;
    let mut config = config(&folder, &small);
    config.faults = Failpoints::parse("wal.before_write=error@1").unwrap();
    let server = TestServer::start_with(folder, &config, Clock::system()).await;
    let (what, body) = ("collections/users/restore", json!({"at": "seq:25"}));
    let (status, answer) = ask(&server, what, &body, "k").await;
    assert_eq!(status, 503, "{answer}");
    let there = documents(&server, "users").await;
    assert!(!there.is_empty() && there.len() < 25, "{there:?}");
    // What somebody writes meanwhile stays: the moment that the restore is undone to is before it.
    let (back, doc) = (there.keys().next().unwrap().as_str(), json!({"n": 7}));
    take(&server, &["new", back].map(|key| change("u", "users", key, &doc))).await;
    let (status, report) = ask(&server, what, &body, "k").await;
    assert_eq!((status, &report["written_meanwhile"]), (200, &json!(2)), "{report}");
    let found = documents(&server, "users").await;
    assert_eq!(found.keys().filter(|key| keys.contains(key)).count(), 25, "{found:?}");
    let doc = doc.to_string();
    let written: Vec<&str> =
        found.iter().filter(|(_, text)| **text == doc).map(|(key, _)| key.as_str()).collect();
    assert_eq!(written, ["new", back]);
    assert_eq!(report["tag"], "before-restore-50");
    // The moment before its first batch is the one that it is undone to.
    let events = server.rows("shop", "SELECT count(*), max(seq) FROM events").await;
    let (status, again) = ask(&server, what, &body, "k").await;
    assert_eq!((status, &again), (200, &report));
    let (status, other) = ask(&server, what, &json!({"at": "seq:1"}), "k").await;
    assert_eq!((status, &other["code"]), (409, &json!("CONFLICT")), "{other}");
    assert_eq!(server.rows("shop", "SELECT count(*), max(seq) FROM events").await, events);
    let undo = report["undo_bookmark"].as_str().unwrap();
    restore(&server, "users", &format!("bookmark:{undo}")).await;
    assert!(documents(&server, "users").await.is_empty());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_in_a_restore_has_all_of_its_batch_or_none() {
    let server = TestServer::start().await;
    let doc = json!({"n": 1});
    take(&server, &[change("c", "users", "1", &doc), change("c", "users", "2", &doc)]).await;
    let gone = ["1", "2"].map(|key| change("d", "users", key, &Value::Null));
    take(&server, &gone).await;
    let mut folder = server.stop().await;
    let path = "/v1/shop/collections/users/restore";
    for (point, there) in [("wal.before_write", 0), ("wal.after_sync", 2)] {
        let body = json!({"at": "seq:2"}).to_string();
        post_and_die(folder.path(), &format!("{point}=abort"), path, body).await;
        let server = TestServer::start_in(folder, &[]).await;
        assert_eq!(documents(&server, "users").await.len(), there, "{point}");
        let told = "SELECT count(*) FROM events WHERE type = 'restore.completed'";
        assert_eq!(server.rows("shop", told).await, json!([[there / 2]]), "{point}");
        folder = server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_takes_no_state_away() {
    let settings = [SETTINGS, &[("retention.events", "cdc.*=30d, order.*=30d")]].concat();
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start_at(folder, &settings, Clock::manual(NOW_MS)).await;
    let created = |key: &str| change("c", "users", key, &json!({}));
    let mut sent = vec![
        created("gone"),
        json!({"ns": "shop", "type": "cdc.truncate", "collection": "users"}),
        created("old"),
        json!({"ns": "shop", "type": "order.placed"}),
        created("new"),
    ];
    for event in &mut sent {
        event["ts"] = json!(rfc3339(NOW_MS - 40 * 86_400_000));
    }
    let (status, reply) = server.ingest_at("/ingest?backfill=true", &json!(sent)).await;
    assert_eq!(status, 200, "{reply}");
    server.commit("shop").await;
    let ran = server.post("/admin/jobs/retention?namespace=shop", "application/json", "").await;
    assert_eq!(ran.status(), 200);
    let types = "SELECT type, count(*) FROM events GROUP BY type ORDER BY type";
    let kept = json!([["cdc.insert", 3], ["cdc.truncate", 1]]);
    assert_eq!(server.rows("shop", types).await, kept);
    let now: Vec<String> = documents(&server, "users").await.into_keys().collect();
    assert_eq!(now, ["new", "old"]);
    restore(&server, "users", "seq:3").await;
    let then: Vec<String> = documents(&server, "users").await.into_keys().collect();
    assert_eq!(then, ["old"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_subject_does_not_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start_at(folder, SETTINGS, Clock::manual(NOW_MS)).await;
    let doc = json!({"n": 1});
    take(&server, &[change("c", "users", "ann", &doc), change("c", "users", "bea", &doc)]).await;
    server.commit("shop").await;
    take(&server, &[change("d", "users", "bea", &Value::Null)]).await;
    let subject = json!({"subject": {"key": "ann", "collection": "users"}});
    let (status, begun) = server.ingest_at("/v1/shop/erase", &subject).await;
    assert_eq!(status, 202, "{begun}");
    let path = format!("/v1/shop/erase/{}", begun["erasure"].as_str().unwrap());
    loop {
        let report: Value = server.get(&path).await.json().await.unwrap();
        // The rows are gone by then; files wait until readers had their time.
        if ["files", "proof", "done"].contains(&report["status"].as_str().unwrap()) {
            break;
        }
        assert_ne!(report["status"], "failed", "{report}");
        if !report["error"].is_null() || !report["waits"].is_null() {
            // A step that waits for its next time goes on at once.
            let wake = json!({"subject": {"id": "nobody"}, "dry_run": true});
            server.ingest_at("/v1/shop/erase", &wake).await;
        }
        tokio::task::yield_now().await;
    }
    restore(&server, "users", "seq:2").await;
    let found: Vec<String> = documents(&server, "users").await.into_keys().collect();
    assert_eq!(found, ["bea"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_restored_while_an_erasure_takes_rows_out() {
    let folder = tempfile::tempdir().unwrap();
    let stuck = [SETTINGS, &[("failpoints", "erase.before_write=error*1000000")]].concat();
    let server = TestServer::start_at(folder, &stuck, Clock::manual(NOW_MS)).await;
    let doc = json!({"n": 1});
    take(&server, &[change("c", "users", "ann", &doc), change("d", "users", "ann", &Value::Null)])
        .await;
    let subject = json!({"subject": {"key": "ann", "collection": "users"}});
    assert_eq!(server.ingest_at("/v1/shop/erase", &subject).await.0, 202);
    for (what, dry_run, expected) in [
        ("collections/users/restore", false, 409),
        ("restore", false, 409),
        ("collections/users/restore", true, 200),
    ] {
        let body = json!({"at": "seq:1", "dry_run": dry_run});
        let (status, answer) = server.ingest_at(&format!("/v1/shop/{what}"), &body).await;
        assert_eq!(status, expected, "{what}: {answer}");
    }
    assert_eq!(server.rows("shop", "SELECT max(seq) FROM events").await, json!([[2]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_saw_a_document_sees_its_restore_and_nothing_else() {
    let guarded = Guarded::start_with(&[("visibility.filter", "on")]).await;
    let told = |op: &str, key: &str, doc: &Value, visibility: Option<&str>| {
        let mut event = change(op, "users", key, doc);
        event["visibility"] = json!(visibility);
        event
    };
    let (ann, bea) = (json!({"name": "Ann"}), json!({"name": "Bea"}));
    let sent = json!([
        told("c", "secret", &ann, Some("team")),
        told("c", "shared", &ann, Some("team")),
        told("d", "secret", &Value::Null, Some("team")),
        told("u", "shared", &bea, Some("org")),
    ]);
    assert_eq!(guarded.post(&guarded.admin, "/ingest", &sent).await.0, 200);
    let path = "/v1/shop/collections/users/restore";
    let writer = guarded.token(&json!({"name": "w", "scopes": ["write:shop"]})).await;
    let body = json!({"at": "seq:2"});
    assert_eq!(guarded.post(&writer, path, &body).await.0, 403);
    // It would count documents.
    let refresh = "/v1/shop/collections/users/refresh";
    assert_eq!(guarded.post(&writer, refresh, &Value::Null).await.0, 403);
    let (status, report) = guarded.post(&guarded.admin, path, &body).await;
    assert_eq!(status, 200, "{report}");
    let sql = json!({"sql": "SELECT key, visibility, before, after FROM events WHERE seq > 4 AND key IS NOT NULL ORDER BY key"});
    let (_, answer) = guarded.post(&guarded.admin, "/v1/shop/sql", &sql).await;
    let reader = guarded.token(&json!({"name": "r", "scopes": ["read.team:shop"]})).await;
    let seen = json!({"sql": "SELECT count(*) FROM events WHERE seq > 4"});
    let (_, counted) = guarded.post(&reader, "/v1/shop/sql", &seen).await;
    assert_eq!(counted["rows"], json!([[2]]), "{counted}");
    // What the organisation alone may see is not told to the team.
    let doc = ann.to_string();
    assert_eq!(
        answer["rows"],
        json!([["secret", "team", null, doc], ["shared", "team", null, doc]])
    );
    guarded.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_restores_once_it_is_told_to() {
    let server = TestServer::start().await;
    let doc = json!({"n": 1});
    take(&server, &[change("c", "users", "1", &doc), change("d", "users", "1", &Value::Null)])
        .await;
    let line = ["restore", "users", "--ns", "shop", "--at", "seq:1"];
    let (done, text) = icecore(&server, &[&line[..], &["--dry-run"]].concat());
    assert!(done && text.contains("would be restored to seq 1"), "{text}");
    assert!(text.contains("users/1 inserted: null -> {\"n\":1}"), "{text}");
    // Nobody is there to be asked.
    assert!(!icecore(&server, &line).0);
    assert!(documents(&server, "users").await.is_empty());
    let (done, text) = icecore(&server, &[&line[..], &["--yes"]].concat());
    assert!(done && text.contains("restored to seq 1"), "{text}");
    assert_eq!(documents(&server, "users").await.len(), 1);
    let all = ["restore", "--namespace", "--ns", "shop", "--at", "seq:2", "--yes", "--json"];
    let (done, text) = icecore(&server, &all);
    assert!(done, "{text}");
    assert!(documents(&server, "users").await.is_empty());
    server.stop().await;
}
