//! Branches that are read: documents, versions, differences and events of a branch at any of its events, over HTTP and
//! in SQL, beside what `main` has.

use crate::harness::TestServer;
use rand::{Rng, SeedableRng, rngs::StdRng};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const NS: &str = "shop";
const DOCS: &str = "/v1/shop/collections/users/docs";

async fn got(server: &TestServer, path: &str) -> (u16, Value) {
    let answer = server.get(&format!("/v1/{NS}/{path}")).await;
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// An answer that has to be there.
async fn found(server: &TestServer, path: &str) -> Value {
    let (status, answer) = got(server, path).await;
    assert_eq!(status, 200, "{path}: {answer}");
    answer
}

/// Writes a document, or deletes one, and gives the event of that.
async fn write(server: &TestServer, branch: Option<&str>, key: &str, n: Option<u64>) -> u64 {
    let query = branch.map(|branch| format!("?branch={branch}")).unwrap_or_default();
    let (path, method) = match n {
        Some(_) => (format!("{DOCS}/{key}{query}"), Method::PUT),
        None => (format!("{DOCS}/{key}{query}"), Method::DELETE),
    };
    let body = n.map(|n| json!({ "n": n })).unwrap_or_default();
    let (status, answer) = server.call(method, &path, &body).await;
    assert_eq!(status, 200, "{path}: {answer}");
    answer["seq"]["last"].as_u64().unwrap()
}

async fn fork(server: &TestServer, body: &Value) -> Value {
    let (status, answer) = server.call(Method::POST, &format!("/v1/{NS}/branches"), body).await;
    assert_eq!(status, 201, "{body}: {answer}");
    answer
}

async fn refresh(server: &TestServer) {
    let path = format!("/v1/{NS}/collections/users/refresh");
    let answer = server.post(&path, "application/json", "").await;
    assert_eq!(answer.status(), 200);
}

/// Main has `u-1` and `u-2`, of which a table is made, and `u-3` after the fork. The branch has another `u-1`, no `u-2`
/// and a `u-9`.
async fn forked() -> TestServer {
    let settings = [("compaction.enabled", "off")];
    let server = TestServer::start_in(tempfile::tempdir().unwrap(), &settings).await;
    assert_eq!(write(&server, None, "u-1", Some(1)).await, 1);
    // A branch begins at a snapshot.
    server.commit(NS).await;
    assert_eq!(write(&server, None, "u-2", Some(1)).await, 2);
    refresh(&server).await;
    assert_eq!(write(&server, None, "u-1", Some(2)).await, 3);
    let made = fork(&server, &json!({ "name": "trial", "at": "seq:2" })).await;
    assert_eq!((&made["fork_seq"], &made["head_seq"]), (&json!(2), &json!(2)), "{made}");
    assert_eq!(write(&server, None, "u-3", Some(3)).await, 4);
    assert_eq!(write(&server, Some("trial"), "u-1", Some(10)).await, 3);
    assert_eq!(write(&server, Some("trial"), "u-2", None).await, 4);
    assert_eq!(write(&server, Some("trial"), "u-9", Some(9)).await, 5);
    server
}

/// The bookmark of the moment after this event of `main`, as restores and merges give one.
fn moment(seq: u64) -> String {
    format!("00000000-{seq:08x}-00000000-{}", "f".repeat(32))
}

/// The keys of an answer with documents.
fn keys(answer: &Value) -> Vec<&str> {
    let docs = answer["docs"].as_array().unwrap().iter();
    docs.map(|doc| doc["key"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_read_at_any_event_of_a_branch() {
    let server = forked().await;
    for (query, n, seq, branch) in [
        ("", 2, 4, Value::Null),
        ("?branch=main", 2, 4, Value::Null),
        ("?at=branch:main", 2, 4, Value::Null),
        ("?branch=trial", 10, 5, json!("trial")),
        ("?at=branch:trial", 10, 5, json!("trial")),
        ("?at=trial", 10, 5, json!("trial")),
        ("?branch=trial&at=seq:2", 1, 2, json!("trial")),
        ("?branch=trial&at=3", 10, 3, json!("trial")),
        ("?branch=trial&at=~1", 1, 1, json!("trial")),
        (format!("?branch=trial&at=bookmark:{}", moment(2)).as_str(), 1, 2, json!("trial")),
        ("?branch=trial&at=time:2999-01-01", 10, 5, json!("trial")),
        ("?branch=trial&at=time:2999-01-01&basis=event", 10, 5, json!("trial")),
    ] {
        let answer = found(&server, &format!("collections/users/docs/u-1{query}")).await;
        assert_eq!(answer["doc"], json!({ "n": n }), "{query}");
        assert_eq!(
            (&answer["basis"]["seq"], &answer["basis"]["branch"]),
            (&json!(seq), &branch),
            "{query}"
        );
    }
    let newest = found(&server, "collections/users/docs/u-1?branch=trial").await;
    let bookmark = newest["bookmark"].as_str().unwrap();
    write(&server, Some("trial"), "u-1", Some(11)).await;
    let basis = &newest["basis"];
    let repeated = format!("at=seq:{}&branch={}", basis["seq"], basis["branch"].as_str().unwrap());
    for point in [repeated, format!("branch=trial&at=bookmark:{bookmark}")] {
        let again = found(&server, &format!("collections/users/docs/u-1?{point}")).await;
        assert_eq!(again["doc"], newest["doc"], "{point}");
    }
    for (path, expected) in [
        ("docs/u-2?branch=trial", 404),
        ("docs/u-3?branch=trial", 404),
        ("docs/u-9", 404),
        ("docs/u-1?branch=trial&at=seq:99", 404),
        ("docs/u-1?branch=trial&at=bookmark:none", 404),
        // It is a moment of main, after the fork.
        (format!("docs/u-1?branch=trial&at=bookmark:{}", moment(4)).as_str(), 404),
        ("docs/u-1?branch=main&at=branch:trial", 400),
        ("docs/u-1?branch=main&at=tag:trial", 404),
        ("docs/u-1?branch=main&at=trial", 404),
        ("docs?branch=none", 404),
        ("docs/u-1/history?branch=none", 404),
        // What can be the name of no branch is told as one that is not there.
        ("docs?branch=", 404),
        ("docs?branch=7", 404),
        ("docs/u-1/history?branch=2026-11-20T12:00:00Z", 404),
    ] {
        let (status, answer) = got(&server, &format!("collections/users/{path}")).await;
        assert_eq!(status, expected, "{path}: {answer}");
        if let Some((_, branch)) = path.split_once("branch=")
            && ["none", "", "7", "2026-11-20T12:00:00Z"].contains(&branch)
        {
            let text = answer["error"].as_str().unwrap();
            assert!(text.contains(&format!("no branch `{branch}`")), "{text}");
            assert!(text.contains("`main`, `trial`"), "{text}");
        }
    }
    server.stop().await;
}

async fn check_things(server: &TestServer) {
    for (path, expected) in [
        ("things/users/u-1@trial", Some(10)),
        ("things/u-1@trial", Some(10)),
        ("things/u-9@trial", Some(9)),
        ("things/users/u-1?branch=trial", Some(10)),
        ("things/users/u-1?v=2&branch=trial", Some(1)),
        ("things/users/u-1@~1?branch=trial", Some(1)),
        ("things/users/u-1@main", Some(2)),
        ("things/u-9", None),
        ("things/u-2@trial", None),
        ("things/u-1?branch=none", None),
    ] {
        let (status, answer) = got(server, path).await;
        let n = (status == 200).then(|| answer["doc"]["n"].as_u64().unwrap());
        assert_eq!(n, expected, "{path}: {answer}");
    }
}

async fn check_numbers(server: &TestServer) {
    for (path, documents, deleted, last) in [
        ("collections/users", 3, 0, 4),
        ("collections/users?branch=trial", 2, 1, 5),
        ("collections/users?branch=main", 3, 0, 4),
    ] {
        let numbers = found(server, path).await;
        let told = ["documents", "deleted", "last_seq"].map(|name| numbers[name].as_u64().unwrap());
        assert_eq!(told, [documents, deleted, last], "{path}");
        assert_eq!(numbers["applied_seq"].is_null(), path.ends_with("trial"), "{numbers}");
        assert_eq!(numbers["basis"]["branch"] == "trial", path.ends_with("trial"), "{numbers}");
        let (_, query) = path.split_at("collections/users".len());
        let list = found(server, &format!("collections{query}")).await;
        assert_eq!(list["collections"][0]["last_seq"], json!(last), "{path}: {list}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_versions_differences_and_events_are_those_of_the_branch() {
    let server = forked().await;
    let list = found(&server, "collections/users/docs?branch=trial&limit=1").await;
    assert_eq!((keys(&list), &list["next"]), (vec!["u-1"], &json!("u-1")));
    let next = found(&server, "collections/users/docs?branch=trial&after=u-1&at=seq:5").await;
    assert_eq!((keys(&next), &next["basis"]["branch"]), (vec!["u-9"], &json!("trial")));
    let history = found(&server, "collections/users/docs/u-1/history?branch=trial").await;
    let seqs: Vec<_> = history["history"].as_array().unwrap().iter().map(|it| &it["seq"]).collect();
    assert_eq!(seqs, [&json!(3), &json!(1)]);
    assert_eq!(
        (&history["basis"]["seq"], &history["basis"]["branch"]),
        (&json!(5), &json!("trial"))
    );
    for (query, counts, to) in [
        ("from=branch:main&to=branch:trial", [1, 1, 2], json!("trial")),
        ("from=branch:trial&to=branch:main", [2, 1, 1], Value::Null),
        ("from=seq:2&branch=trial", [1, 1, 1], json!("trial")),
        ("from=seq:2&to=branch:main&branch=trial", [1, 1, 0], Value::Null),
        ("from=seq:2", [1, 1, 0], Value::Null),
    ] {
        let diff = found(&server, &format!("collections/users/diff?{query}")).await;
        let told = ["added", "changed", "removed"].map(|name| diff[name].as_u64().unwrap());
        assert_eq!((told, &diff["basis"]["branch"]), (counts, &to), "{query}: {diff}");
    }
    check_things(&server).await;
    check_numbers(&server).await;
    let events = found(&server, "events?branch=trial&after_seq=2").await;
    let seqs: Vec<_> = events["events"].as_array().unwrap().iter().map(|it| &it["seq"]).collect();
    assert_eq!(seqs, [&json!(3), &json!(4), &json!(5)]);
    let lines = server
        .http
        .get(format!("{}/v1/{NS}/events?branch=trial", server.url))
        .header("accept", "application/x-ndjson")
        .send()
        .await
        .unwrap();
    assert_eq!(lines.text().await.unwrap().lines().count(), 5);
    for (body, seq) in [
        (json!({ "at": "branch:trial" }), 5),
        (json!({ "at": "seq:4", "branch": "trial" }), 4),
        (json!({ "at": "branch:main" }), 4),
    ] {
        let (status, answer) = server.call(Method::POST, "/v1/shop/resolve", &body).await;
        assert_eq!((status, &answer["seq"]), (200, &json!(seq)), "{body}: {answer}");
    }
    let restore = json!({ "at": "branch:trial", "dry_run": true });
    let path = "/v1/shop/collections/users/restore";
    let (status, answer) = server.call(Method::POST, path, &restore).await;
    assert_eq!(status, 400, "{answer}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_reads_tables_collections_and_things_of_a_branch() {
    let server = forked().await;
    let docs = "SELECT key, doc FROM";
    let head = json!([["u-1", "{\"n\":10}"], ["u-9", "{\"n\":9}"]]);
    let at_3 = json!([["u-1", "{\"n\":10}"], ["u-2", "{\"n\":1}"]]);
    let first = json!([["u-1", "{\"n\":1}"], ["u-2", "{\"n\":1}"]]);
    // A table of the collection with later events of main is no base of the branch.
    for round in 0..2 {
        for (relation, expected) in [
            ("cdc_users FOR SEQ AS OF 5 OF BRANCH 'trial'", &head),
            ("\"collections/users\" FOR SEQ AS OF 5 OF BRANCH 'trial'", &head),
            ("cdc_users FOR VERSION AS OF 'trial'", &head),
            ("\"collections/users\" FOR VERSION AS OF 'trial'", &head),
            ("\"cdc_users@trial\"", &head),
            ("cdc_users FOR SEQ AS OF 3 OF BRANCH 'trial'", &at_3),
            ("cdc_users FOR SEQ AS OF 2 OF BRANCH 'trial'", &first),
            ("cdc_users FOR SEQ AS OF 2 OF BRANCH 'main'", &first),
            ("\"cdc_users@v2\"", &first),
        ] {
            let sql = format!("{docs} {relation} ORDER BY key");
            assert_eq!(server.rows(NS, &sql).await, *expected, "{relation}, {round}");
        }
        refresh(&server).await;
    }
    for (relation, count) in [
        ("events", 4),
        ("\"events@trial\"", 5),
        ("events FOR VERSION AS OF 'trial'", 5),
        ("events FOR SEQ AS OF 4 OF BRANCH 'trial'", 4),
        ("events FOR SEQ AS OF 3 OF BRANCH 'main'", 3),
        ("things", 4),
        ("\"things@trial\"", 5),
        ("things FOR VERSION AS OF 'trial'", 5),
        ("things FOR SEQ AS OF 4 OF BRANCH 'trial'", 4),
        ("things FOR SEQ AS OF 2", 2),
        ("\"things@v2\"", 2),
        ("\"cdc_users_deltas@v3\"", 3),
        ("\"cdc_users_deltas@trial\"", 5),
    ] {
        let sql = format!("SELECT count(*) FROM {relation}");
        assert_eq!(server.rows(NS, &sql).await, json!([[count]]), "{relation}");
    }
    let diff = |points: &str| {
        format!("SELECT key, change FROM collection_diff('users', {points}) ORDER BY key")
    };
    let differing =
        json!([["u-1", "changed"], ["u-2", "removed"], ["u-3", "removed"], ["u-9", "added"]]);
    assert_eq!(server.rows(NS, &diff("'branch:main', 'branch:trial'")).await, differing);
    let back = json!([["u-1", "changed"], ["u-2", "added"], ["u-9", "removed"]]);
    assert_eq!(server.rows(NS, &diff("'branch:trial', 'seq:2'")).await, back);
    let rows = "SELECT name, forked_from, fork_seq, head_seq, head IS NOT NULL, created_at < now() FROM branches";
    assert_eq!(server.rows(NS, rows).await, json!([["trial", "main", 2, 5, true, true]]));
    for point in ["1 OF BRANCH 'none'", "6 OF BRANCH 'trial'"] {
        let unknown = json!({ "sql": format!("SELECT 1 FROM cdc_users FOR SEQ AS OF {point}") });
        let (status, answer) = server.query(NS, &unknown).await;
        assert_eq!(status, 404, "{point}: {answer}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_over_a_branch_is_made_again_from_its_basis() {
    let server = forked().await;
    for (sql, seq, branch) in [
        ("SELECT count(*), max(seq) FROM \"events@trial\"", json!(5), json!("trial")),
        (
            "SELECT count(*) FROM cdc_users FOR SEQ AS OF 4 OF BRANCH 'trial'",
            json!(5),
            json!("trial"),
        ),
        (
            "SELECT count(*) FROM events JOIN \"events@trial\" AS t ON events.seq = t.seq",
            json!(6),
            Value::Null,
        ),
    ] {
        let (status, before) = server.query(NS, &json!({ "sql": sql })).await;
        assert_eq!(status, 200, "{sql}: {before}");
        assert_eq!((&before["basis"]["seq"], &before["basis"]["branch"]), (&seq, &branch), "{sql}");
        write(&server, Some("trial"), "u-9", Some(1)).await;
        write(&server, None, "u-9", Some(1)).await;
        let again = json!({ "sql": sql, "basis": before["basis"] });
        let (status, after) = server.query(NS, &again).await;
        assert_eq!(status, 200, "{sql}: {after}");
        assert_eq!((&after["rows"], &after["basis"]), (&before["rows"], &before["basis"]), "{sql}");
        // The next answer begins where this one did.
        if branch != Value::Null {
            let dropped = format!("/v1/{NS}/branches/trial");
            let (status, answer) = server.call(Method::DELETE, &dropped, &Value::Null).await;
            assert_eq!(status, 200, "{answer}");
            fork(&server, &json!({ "name": "trial", "at": "seq:2" })).await;
            for n in 3..6 {
                assert_eq!(write(&server, Some("trial"), "u-1", Some(n)).await, n);
            }
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ref_of_another_engine_is_read_as_a_snapshot() {
    let server = forked().await;
    server.commit(NS).await;
    let plain = json!({ "name": "plain", "type": "branch" });
    let path = format!("/v1/{NS}/tables/events/refs");
    let (status, answer) = server.call(Method::POST, &path, &plain).await;
    assert!((200..300).contains(&status), "{answer}");
    assert_eq!(server.rows(NS, "SELECT count(*) FROM \"events@plain\"").await, json!([[4]]));
    assert_eq!(server.rows(NS, "SELECT count(*) FROM branches").await, json!([[1]]));
    let answer = found(&server, "collections/users/docs/u-1?at=plain").await;
    assert_eq!((&answer["doc"], &answer["basis"]["branch"]), (&json!({ "n": 2 }), &Value::Null));
    for query in ["branch=plain", "at=branch:plain"] {
        let path = format!("collections/users/docs/u-1?{query}");
        assert_eq!(got(&server, &path).await.0, 404, "{query}");
    }
    server.stop().await;
}

/// What a branch has, in a model.
#[derive(Clone, Debug, Default)]
struct Line {
    /// The changes: event, key and document.
    changes: Vec<(u64, String, Option<u64>)>,
}

impl Line {
    fn last(&self) -> u64 {
        self.changes.last().map_or(0, |change| change.0)
    }

    fn at(&self, seq: u64) -> Self {
        let changes = self.changes.iter().filter(|change| change.0 <= seq);
        Self { changes: changes.cloned().collect() }
    }

    fn documents(&self) -> BTreeMap<String, u64> {
        let mut documents = BTreeMap::new();
        for (_, key, n) in &self.changes {
            match n {
                Some(n) => documents.insert(key.clone(), *n),
                None => documents.remove(key),
            };
        }
        documents
    }
}

/// The documents of a branch at one of its events, over HTTP and in SQL.
async fn read(server: &TestServer, name: &str, seq: u64) -> [BTreeMap<String, u64>; 2] {
    let path = format!("collections/users/docs?branch={name}&at=seq:{seq}");
    let list = found(server, &path).await;
    let docs = list["docs"].as_array().unwrap().iter();
    let listed = docs
        .map(|doc| (doc["key"].as_str().unwrap().to_owned(), doc["doc"]["n"].as_u64().unwrap()));
    let sql = format!(
        "SELECT key, json_get_int(doc, 'n') FROM cdc_users FOR SEQ AS OF {seq} OF BRANCH '{name}'"
    );
    let rows = server.rows(NS, &sql).await;
    let rows = rows.as_array().unwrap().iter();
    let selected =
        rows.map(|row| (row[0].as_str().unwrap().to_owned(), row[1].as_u64().unwrap())).collect();
    [listed.collect(), selected]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_branch_has_the_documents_of_the_model_at_every_event() {
    const WRITES: u64 = 45;
    const READS: usize = 30;
    let settings = [("compaction.enabled", "off")];
    let server = TestServer::start_in(tempfile::tempdir().unwrap(), &settings).await;
    let random = &mut StdRng::seed_from_u64(75);
    let mut lines = BTreeMap::from([("main", Line::default())]);
    for n in 1..=WRITES {
        // Each branch is made of main or of the one before, at any event that this has.
        let fork_of = match n {
            12 => Some(("one", "main")),
            24 => Some(("two", if random.random_bool(0.5) { "main" } else { "one" })),
            _ => None,
        };
        if let Some((name, from)) = fork_of {
            let seq = random.random_range(1..=lines[from].last());
            fork(&server, &json!({ "name": name, "from": from, "at": format!("seq:{seq}") })).await;
            let line = lines[from].at(seq);
            lines.insert(name, line);
        }
        if n.is_multiple_of(10) {
            refresh(&server).await;
        }
        let names: Vec<&str> = lines.keys().copied().collect();
        let name = names[random.random_range(0..names.len())];
        let key = format!("u-{}", random.random_range(0..6));
        let line = lines.get_mut(name).unwrap();
        let deletes = random.random_bool(0.3) && line.documents().contains_key(&key);
        let document = (!deletes).then_some(n);
        let branch = (name != "main").then_some(name);
        let seq = write(&server, branch, &key, document).await;
        assert_eq!(seq, line.last() + 1, "{name}");
        line.changes.push((seq, key, document));
        if n == 1 {
            // A branch begins at a snapshot.
            server.commit(NS).await;
        }
    }
    for _ in 0..READS {
        let names: Vec<&str> = lines.keys().copied().collect();
        let name = names[random.random_range(0..names.len())];
        let seq = random.random_range(1..=lines[name].last());
        let expected = lines[name].at(seq).documents();
        let found = read(&server, name, seq).await;
        assert_eq!(found, [expected.clone(), expected], "{name} at {seq}: {:?}", lines[name]);
    }
    server.stop().await;
}
