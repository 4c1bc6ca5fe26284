//! Collections over HTTP: documents now and at every kind of point, versions, differences, events and addresses.

use crate::{access::Guarded, harness::TestServer, process::run};
use serde_json::{Value, json};

const NS: &str = "shop.example";

/// A change of a document.
fn change(id: &str, op: &str, key: &str, after: Value) -> Value {
    let mut change = json!({ "id": id, "ns": NS, "op": op, "store": "s", "collection": "users", "key": key, "bookmark": format!("b-{id}"), "actor": "User/ada" });
    if !after.is_null() {
        change["after"] = after;
    }
    change
}

/// Seq 1 to 5: two documents come, one changes, one goes, and one comes of another collection.
fn sent() -> Value {
    json!({ "batchId": "first", "events": [
        change("1", "c", "u-1", json!({"name": "Ann", "city": "Rome"})),
        change("2", "c", "u/2", json!({"name": "Bea"})),
        change("3", "u", "u-1", json!({"name": "Ann", "city": "Oslo"})),
        change("4", "d", "u/2", Value::Null),
        {"id": "5", "ns": NS, "op": "c", "collection": "places", "key": "p-1", "after": {"n": 9_007_199_254_740_993_u64}},
    ]})
}

/// Status and body of a path below the namespace.
async fn get(server: &TestServer, path: &str) -> (u16, Value) {
    let answer = server.get(&format!("/v1/{NS}/{path}")).await;
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap())
}

/// The answer of a path that must succeed.
async fn got(server: &TestServer, path: &str) -> Value {
    let (status, answer) = get(server, path).await;
    assert_eq!(status, 200, "{path}: {answer}");
    answer
}

async fn code(server: &TestServer, path: &str) -> (u16, String) {
    let (status, answer) = get(server, path).await;
    (status, answer["code"].as_str().unwrap_or_default().to_owned())
}

/// Tables of collections are made by hand alone.
const SETTINGS: &[(&str, &str)] = &[("collections.refresh_interval", "24h")];

async fn with_documents() -> TestServer {
    let server = TestServer::start_in(tempfile::tempdir().unwrap(), SETTINGS).await;
    let (status, reply) = server.ingest(&sent()).await;
    assert_eq!(status, 200, "{reply}");
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_read_now_and_at_every_point() {
    let server = with_documents().await;
    let found = got(&server, "collections/users/docs/u-1").await;
    assert_eq!(found["doc"], json!({"name": "Ann", "city": "Oslo"}), "{found}");
    for (member, expected) in [
        ("collection", json!("users")),
        ("key", json!("u-1")),
        ("op", json!("u")),
        ("version", json!(2)),
        ("seq", json!(3)),
        ("bookmark", json!("b-3")),
        ("actor", json!("User/ada")),
        ("event_id", json!("3")),
    ] {
        assert_eq!(found[member], expected, "{member}: {found}");
    }
    assert_eq!(found["basis"]["seq"], 5, "{found}");
    assert!(found["created_at"].is_string() && found["updated_at"].is_string(), "{found}");
    let snapshot = server.commit(NS).await["events"].to_string();
    let tag = json!({ "name": "nightly", "type": "tag" }).to_string();
    let tagged =
        server.post(&format!("/v1/{NS}/tables/events/refs"), "application/json", tag).await;
    assert_eq!(tagged.status(), 200);
    let late = change("6", "u", "u-1", json!({"name": "Ann", "city": "Lima"}));
    let request = server
        .http
        .post(format!("{}/ingest", server.url))
        .header("x-correlation-id", "bad-batch")
        .json(&json!({ "events": [late] }));
    assert_eq!(request.send().await.unwrap().status(), 200);
    let (by_id, by_digits) = (format!("?at=snapshot:{snapshot}"), format!("?at={snapshot}"));
    for (at, city, version) in [
        ("", "Lima", 3),
        ("?at=seq:6", "Lima", 3),
        ("?at=seq:5", "Oslo", 2),
        ("?at=seq:2", "Rome", 1),
        ("?at=2", "Rome", 1),
        ("?at=bookmark:b-3", "Oslo", 2),
        ("?at=b-1", "Rome", 1),
        (by_id.as_str(), "Oslo", 2),
        (by_digits.as_str(), "Oslo", 2),
        ("?at=tag:nightly", "Oslo", 2),
        ("?at=nightly", "Oslo", 2),
        ("?at=branch:main", "Lima", 3),
        ("?at=before:bad-batch", "Oslo", 2),
        ("?at=~0", "Lima", 3),
        ("?at=~2", "Rome", 1),
    ] {
        let found = got(&server, &format!("collections/users/docs/u-1{at}")).await;
        assert_eq!(
            (&found["doc"]["city"], &found["version"]),
            (&json!(city), &json!(version)),
            "{at}"
        );
        // What an answer was made of can be asked for again.
        let seq = found["basis"]["seq"].as_u64().unwrap();
        let again = got(&server, &format!("collections/users/docs/u-1?at=seq:{seq}")).await;
        assert_eq!(again["doc"], found["doc"], "{at}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_there_is_not_found() {
    let server = with_documents().await;
    let not_found = (404, "NOT_FOUND".to_owned());
    for path in [
        "collections/users/docs/absent",
        // It was deleted.
        "collections/users/docs/u%2F2",
        "collections/users/docs/u-1?at=before:first",
        "collections/users/docs/u-1?at=seq:0",
        "collections/users/docs/u-1?at=seq:99",
        "collections/users/docs/u-1?at=seq:18446744073709551615",
        "collections/users/docs/u-1?at=snapshot:1",
        "collections/users/docs/u-1?at=bookmark:absent",
        "collections/users/docs/u-1?at=absent",
        "collections/users/docs/u-1?at=tag:absent",
        "collections/users/docs/u-1?at=branch:experiment",
        "collections/users/docs/u-1?at=before:absent",
        "collections/users/docs/u-1?at=~2",
        "collections/users/docs/absent/history",
        "collections/users/docs?branch=experiment",
        "collections/absent",
        "collections/absent/docs",
        "collections/absent/diff?from=seq:1",
    ] {
        assert_eq!(code(&server, path).await, not_found, "{path}");
    }
    // It was there before it was deleted, and `/` stands in a key as %2F.
    let found = got(&server, "collections/users/docs/u%2F2?at=seq:3").await;
    assert_eq!((&found["key"], &found["doc"]), (&json!("u/2"), &json!({"name": "Bea"})));
    let invalid = (400, "INVALID_REQUEST".to_owned());
    for path in [
        "collections/users/docs/u-1?at=seq:x",
        "collections/users/docs/u-1?at=time:noon",
        "collections/users/docs/u-1?colour=red",
        "collections/users/docs?at=~1",
        "collections/users/docs?limit=0",
        "collections/users/diff",
        "events?after=yesterday",
        "events?after_seq=1&after_bookmark=b-1",
    ] {
        assert_eq!(code(&server, path).await, invalid, "{path}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_those_of_the_sender() {
    let server = with_documents().await;
    for path in [
        "collections/places/docs/p-1",
        "collections/places/docs",
        "collections/places/docs/p-1/history",
        "collections/places/diff?from=seq:1",
        "events?type=cdc.insert&limit=1",
        "things/p-1",
    ] {
        let text = server.get(&format!("/v1/{NS}/{path}")).await.text().await.unwrap();
        assert!(text.contains("9007199254740993"), "{path}: {text}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_listed_in_pages_by_key() {
    let server = with_documents().await;
    let keys = async |query: &str| -> (Vec<String>, Value) {
        let page = got(&server, &format!("collections/users/docs{query}")).await;
        let docs = page["docs"].as_array().unwrap().iter();
        (docs.map(|it| it["key"].as_str().unwrap().to_owned()).collect(), page["next"].clone())
    };
    assert_eq!(keys("").await, (vec!["u-1".to_owned()], Value::Null));
    let first = (vec!["u-1".to_owned()], json!("u-1"));
    assert_eq!(keys("?at=seq:3&limit=1").await, first);
    let second = (vec!["u/2".to_owned()], Value::Null);
    assert_eq!(keys("?at=seq:3&limit=1&after=u-1").await, second);
    assert_eq!(keys("?at=seq:3&after=u%2F2").await, (Vec::new(), Value::Null));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_of_a_document_has_each_version_and_the_one_before() {
    let server = with_documents().await;
    let back = change("6", "c", "u/2", json!({"name": "Bea", "age": 7}));
    assert_eq!(server.ingest(&json!({ "events": [back] })).await.0, 200);
    let found = got(&server, "collections/users/docs/u-1/history").await;
    let history = found["history"].as_array().unwrap();
    assert_eq!(history.len(), 2, "{found}");
    assert_eq!(found["basis"]["seq"], 6, "{found}");
    let (rome, oslo) =
        (json!({"name": "Ann", "city": "Rome"}), json!({"name": "Ann", "city": "Oslo"}));
    assert_eq!((&history[0]["doc"], &history[0]["prev"]), (&oslo, &rome));
    assert_eq!(history[0]["patch"], json!({"city": "Oslo"}));
    assert_eq!((&history[0]["version"], &history[0]["seq"]), (&json!(2), &json!(3)));
    assert_eq!((&history[1]["doc"], &history[1]["prev"]), (&rome, &Value::Null));
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let path = format!("collections/users/docs/u%2F2/history?limit=1{after}");
        let page = got(&server, &path).await;
        for it in page["history"].as_array().unwrap() {
            seen.push((it["seq"].as_u64().unwrap(), it["op"].as_str().unwrap().to_owned()));
        }
        match page["next"].as_u64() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    let expected = [(6, "c"), (4, "d"), (2, "c")].map(|(seq, op)| (seq, op.to_owned()));
    assert_eq!(seen, expected);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_diff_counts_and_lists_what_is_different() {
    let server = with_documents().await;
    let found = got(&server, "collections/users/diff?from=seq:2&to=seq:5").await;
    let counts = ["added", "changed", "removed"].map(|name| found[name].as_u64().unwrap());
    assert_eq!(counts, [0, 1, 1], "{found}");
    assert_eq!(found["basis"]["seq"], 5, "{found}");
    assert_eq!(
        found["docs"],
        json!([
            {"key": "u-1", "change": "changed", "before": {"name": "Ann", "city": "Rome"}, "after": {"name": "Ann", "city": "Oslo"}},
            {"key": "u/2", "change": "removed", "before": {"name": "Bea"}, "after": null},
        ])
    );
    let found = got(&server, "collections/users/diff?from=seq:0&limit=1").await;
    assert_eq!((&found["added"], &found["to_seq"]), (&json!(1), &json!(5)), "{found}");
    let page = got(&server, "collections/users/diff?from=seq:2&to=seq:5&limit=1").await;
    assert_eq!((&page["docs"][0]["key"], &page["next"]), (&json!("u-1"), &json!("u-1")));
    let path = "collections/users/diff?from=seq:2&to=seq:5&limit=1&after=u-1";
    let page = got(&server, path).await;
    assert_eq!((&page["docs"][0]["key"], &page["removed"]), (&json!("u/2"), &json!(1)));
    assert!(page["next"].is_null(), "{page}");
    // The way back is what a restore would do.
    let back = got(&server, "collections/users/diff?from=b-4&to=b-2").await;
    assert_eq!((&back["added"], &back["changed"]), (&json!(1), &json!(1)), "{back}");
    server.stop().await;
}

/// Whether the documents between two points are few, many or all, a diff is what both states say.
#[tokio::test(flavor = "multi_thread")]
async fn a_diff_is_the_same_however_many_documents_are_compared() {
    let server = TestServer::start_in(tempfile::tempdir().unwrap(), SETTINGS).await;
    let many = |from: usize, op: &str| -> Vec<Value> {
        let one = |n: usize| {
            change(&format!("{from}-{n}"), op, &format!("k-{n:04}"), json!({"from": from}))
        };
        (0..600).map(one).collect()
    };
    for batch in [
        many(1, "c"),
        vec![
            change("2-1", "u", "k-0007", json!({"from": 2})),
            change("2-2", "d", "k-0008", Value::Null),
            change("2-3", "c", "new", json!({"from": 2})),
            // As it was.
            change("2-4", "u", "k-0009", json!({"from": 1})),
        ],
        many(3, "u"),
        vec![json!({"id": "4", "ns": NS, "op": "truncate", "collection": "users"})],
        vec![change("5", "c", "k-0001", json!({"from": 3}))],
    ] {
        let (status, reply) = server.ingest(&json!({ "events": batch })).await;
        assert_eq!(status, 200, "{reply}");
    }
    for round in ["in the log", "in a file"] {
        for (from, to, counts, first) in [
            (600, 604, [1, 1, 1], "k-0007"),
            (604, 600, [1, 1, 1], "k-0007"),
            (604, 604, [0, 0, 0], ""),
            (600, 1204, [1, 600, 0], "k-0000"),
            (1204, 1206, [0, 0, 600], "k-0000"),
            (1205, 1206, [1, 0, 0], "k-0001"),
        ] {
            let path = format!("collections/users/diff?from=seq:{from}&to=seq:{to}");
            let found = got(&server, &path).await;
            let told = ["added", "changed", "removed"].map(|name| found[name].as_u64().unwrap());
            assert_eq!(told, counts, "{round}: {from} to {to}");
            assert_eq!(found["docs"][0]["key"].as_str().unwrap_or_default(), first, "{round}");
            let behind = got(&server, &format!("{path}&after={first}&limit=1")).await;
            assert_eq!(behind["added"], found["added"], "{round}");
            let second = |page: &Value, place: usize| page["docs"][place]["key"].clone();
            assert_eq!(
                second(&behind, 0),
                second(&found, usize::from(!first.is_empty())),
                "{round}"
            );
        }
        server.commit(NS).await;
    }
    server.stop().await;
}

/// A document that does not compress well: its table has more than one part.
fn noise(seed: u64) -> String {
    let next = |state: &u64| {
        Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407))
    };
    let states = std::iter::successors(Some(seed), next).skip(1).take(600);
    states.map(|state| format!("{state:016x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_diff_of_a_large_table_is_made_of_parts() {
    const DOCUMENTS: u64 = 520;
    let server = TestServer::start_in(tempfile::tempdir().unwrap(), SETTINGS).await;
    let key = |n: u64| format!("k-{n:04}");
    let all = |op: &str, doc: &dyn Fn(u64) -> Value| -> Value {
        let one = |n: u64| change(&format!("{op}-{n}"), op, &key(n), doc(n));
        json!({ "events": (0..DOCUMENTS).map(one).collect::<Vec<_>>() })
    };
    assert_eq!(server.ingest(&all("c", &|n| json!({ "text": noise(n) }))).await.0, 200);
    let path = format!("/v1/{NS}/collections/users/refresh");
    assert_eq!(server.post(&path, "application/json", "").await.status(), 200);
    let bytes = server.rows(NS, "SELECT sum(file_size_in_bytes) FROM cdc_users.files").await;
    assert!(2 << 20 < bytes[0][0].as_u64().unwrap(), "{bytes}");
    assert_eq!(server.ingest(&all("u", &|n| json!({ "n": n }))).await.0, 200);
    let others = [
        change("new", "c", "k-0000a", json!({})),
        change("gone", "d", &key(7), Value::Null),
        change("as-before", "u", &key(8), json!({ "text": noise(8) })),
    ];
    assert_eq!(server.ingest(&json!({ "events": others })).await.0, 200);

    let path = format!("collections/users/diff?from=seq:{DOCUMENTS}");
    let mut expected: Vec<String> = (0..DOCUMENTS).filter(|n| *n != 8).map(key).collect();
    expected.insert(1, "k-0000a".to_owned());
    let found = got(&server, &format!("{path}&limit=1000")).await;
    let told = ["added", "changed", "removed"].map(|name| found[name].as_u64().unwrap());
    assert_eq!(told, [1, DOCUMENTS - 2, 1]);
    let keys = |page: &Value| -> Vec<String> {
        let docs = page["docs"].as_array().unwrap().iter();
        docs.map(|doc| doc["key"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(keys(&found), expected);
    assert!(found["next"].is_null());
    let page = got(&server, &format!("{path}&limit=9&after=k-0003")).await;
    assert_eq!((keys(&page), &page["next"]), (expected[5..14].to_vec(), &json!(expected[13])));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn collections_are_counted_before_and_behind_their_tables() {
    let server = with_documents().await;
    let expected = |applied: Value, lag: Value| json!({"name": "users", "documents": 1, "deleted": 1, "bytes": 28, "last_seq": 4, "applied_seq": applied, "lag_ms": lag});
    let list = got(&server, "collections").await;
    assert_eq!(list["collections"][1], expected(Value::Null, Value::Null), "{list}");
    assert_eq!(list["collections"][0]["name"], "places");
    assert_eq!((&list["basis"]["seq"], list["basis"]["clock"].is_string()), (&json!(5), true));
    let mut with_basis = list["collections"][1].clone();
    let one = got(&server, "collections/users").await;
    with_basis["basis"] = one["basis"].clone();
    assert_eq!((&one, &one["basis"]["seq"]), (&with_basis, &json!(5)));
    let page = got(&server, "collections?limit=1").await;
    assert_eq!(
        (&page["collections"][0]["name"], &page["next"]),
        (&json!("places"), &json!("places"))
    );
    let page = got(&server, "collections?limit=1&after=places").await;
    assert_eq!(page["collections"][0]["name"], "users");
    assert!(page["next"].is_null(), "{page}");

    server.commit(NS).await;
    let path = format!("/v1/{NS}/collections/users/refresh");
    let refreshed = server.post(&path, "application/json", "").await;
    assert_eq!(refreshed.status(), 200, "{}", refreshed.text().await.unwrap());
    let fresh = got(&server, "collections/users").await;
    assert!(4 <= fresh["applied_seq"].as_u64().unwrap(), "{fresh}");
    let mut with_basis = expected(fresh["applied_seq"].clone(), json!(0));
    with_basis["basis"] = fresh["basis"].clone();
    assert_eq!(fresh, with_basis);
    let mut read = fresh["basis"]["snapshots"].as_object().unwrap().iter();
    assert!(read.any(|(name, id)| name.starts_with("collections/users") && id.is_i64()), "{fresh}");
    let late = change("6", "c", "u-3", json!({"name": "Cid"}));
    assert_eq!(server.ingest(&json!({ "events": [late] })).await.0, 200);
    let behind = got(&server, "collections/users").await;
    let now = (&behind["documents"], &behind["applied_seq"]);
    assert_eq!(now, (&json!(2), &fresh["applied_seq"]), "{behind}");
    assert_eq!(behind["basis"]["seq"], 6, "{behind}");
    assert!(behind["lag_ms"].is_u64(), "{behind}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_names_and_keys_are_in_no_other_collections_way() {
    let server = with_documents().await;
    let of = |id: &str, collection: &str, key: &str| {
        let mut odd = change(id, "c", key, json!({"n": 1}));
        odd["collection"] = json!(collection);
        odd
    };
    let long = "x".repeat(2000);
    let events = [of("6", "", "u-9"), of("7", &long, "u-9"), of("8", "Order \"Items\"", "/o/1")];
    assert_eq!(server.ingest(&json!({ "events": events })).await.0, 200);
    let list = got(&server, "collections").await;
    let listed = list["collections"].as_array().unwrap().iter();
    let names: Vec<&str> = listed.map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["Order \"Items\"", "places", "users"], "{list}");
    let path = "collections/Order%20%22Items%22/docs/%2Fo%2F1";
    assert_eq!(got(&server, path).await["doc"], json!({"n": 1}));
    assert_eq!(got(&server, "things/%2Fo%2F1").await["collection"], "Order \"Items\"");
    // What cannot be read is not written either.
    for name in [long.as_str(), "%00"] {
        let url = format!("{}/v1/{NS}/collections/{name}/docs/u-9", server.url);
        let written = server.http.put(url).body("{}").send().await.unwrap();
        assert_eq!(written.status(), 400, "{name}");
    }
    for into in [long.as_str(), "a\0", ""] {
        let url = format!("/v1/{NS}/collections/users/restore");
        let body = json!({"at": "seq:1", "into": into}).to_string();
        let restored = server.post(&url, "application/json", body).await;
        assert_eq!(restored.status(), 400, "{into}");
    }
    let events = [of("9", &long, "u-1"), of("10", "", "u-1"), of("11", "a\0", "u-1")];
    assert_eq!(server.ingest(&json!({ "events": events })).await.0, 200);
    assert_eq!(got(&server, "things/u-1").await["collection"], "users");
    assert_eq!(code(&server, "things/u-9").await, (404, "NOT_FOUND".to_owned()));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_listed_by_seq_bookmark_type_and_time() {
    let server = with_documents().await;
    let seqs = async |query: &str| -> (Vec<u64>, Value) {
        let page = got(&server, &format!("events{query}")).await;
        let events = page["events"].as_array().unwrap().iter();
        (events.map(|it| it["seq"].as_u64().unwrap()).collect(), page["next"].clone())
    };
    for (query, expected, next) in [
        ("", vec![5, 4, 3, 2, 1], Value::Null),
        ("?limit=2", vec![5, 4], json!(3)),
        ("?limit=2&until_seq=3", vec![3, 2], json!(1)),
        ("?after_seq=3", vec![4, 5], Value::Null),
        ("?after_seq=1&limit=2", vec![2, 3], json!(3)),
        ("?after_seq=1&until_seq=3", vec![2, 3], Value::Null),
        ("?after_bookmark=b-1&until_bookmark=b-4", vec![2, 3, 4], Value::Null),
        ("?after_seq=1&order=desc", vec![5, 4, 3, 2], Value::Null),
        ("?type=cdc.update", vec![3], Value::Null),
        ("?before=2000-01-01T00:00:00Z", vec![], Value::Null),
        ("?after=2000-01-01T00:00:00Z&order=asc", vec![1, 2, 3, 4, 5], Value::Null),
    ] {
        assert_eq!(seqs(query).await, (expected, next), "{query}");
    }
    assert_eq!(code(&server, "events?after_bookmark=absent").await.0, 404);
    let page = got(&server, "events?until_seq=1").await;
    let event = &page["events"][0];
    assert_eq!(page["basis"]["seq"], 5, "{page}");
    assert_eq!(event["after"], json!({"name": "Ann", "city": "Rome"}), "{event}");
    assert_eq!((&event["batch_id"], &event["op"]), (&json!("first"), &json!("c")));
    assert!(event.get("before").is_none() && event["ts"].is_string(), "{event}");

    let lines = server
        .http
        .get(format!("{}/v1/{NS}/events?after_seq=2", server.url))
        .header("accept", "application/x-ndjson")
        .send()
        .await
        .unwrap();
    assert_eq!(lines.headers()["content-type"], "application/x-ndjson");
    let basis = lines.headers()["x-icecore-basis"].to_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(basis).unwrap()["seq"], 5, "{basis}");
    let text = lines.text().await.unwrap();
    let seqs: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].clone())
        .collect();
    assert_eq!(seqs, [3, 4, 5]);
    server.stop().await;
}

/// More events than one statement of a stream gives.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_stream_has_each_event_once() {
    let server = TestServer::start().await;
    for first in [0, 5_100] {
        let events: Vec<Value> = (first..first + 5_100)
            .map(|n| json!({ "id": format!("e{n}"), "ns": NS, "type": "t" }))
            .collect();
        assert_eq!(server.ingest(&json!({ "events": events })).await.0, 200);
        server.commit(NS).await;
    }
    let seqs = async |query: &str| -> Vec<u64> {
        let url = format!("{}/v1/{NS}/events?{query}", server.url);
        let lines = server.http.get(url).header("accept", "application/x-ndjson").send().await;
        let text = lines.unwrap().text().await.unwrap();
        let seq =
            |line: &str| serde_json::from_str::<Value>(line).unwrap()["seq"].as_u64().unwrap();
        text.lines().map(seq).collect()
    };
    assert_eq!(seqs("after_seq=10").await, (11..=10_200).collect::<Vec<u64>>());
    assert_eq!(seqs("limit=10050").await, (151..=10_200).rev().collect::<Vec<u64>>());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_point_resolves_to_the_last_event_that_counts() {
    let server = TestServer::start().await;
    let old = json!({ "id": "0", "ns": NS, "op": "c", "collection": "users", "key": "old", "after": {}, "ts": "2020-01-01T00:00:00Z" });
    assert_eq!(server.ingest_at("/ingest?backfill=true", &json!({ "events": [old] })).await.0, 200);
    let resolved = async |body: Value| -> (u16, Value) {
        server.call(reqwest::Method::POST, &format!("/v1/{NS}/resolve"), &body).await
    };
    let (status, first) = resolved(json!({ "at": "seq:1" })).await;
    assert_eq!(
        (status, &first["seq"], &first["basis"]["seq"]),
        (200, &json!(1), &json!(1)),
        "{first}"
    );
    assert_eq!(server.ingest(&sent()).await.0, 200);
    let snapshot = server.commit(NS).await["events"].clone();
    for (at, basis, expected) in [
        ("branch:main".to_owned(), "commit", 6),
        ("bookmark:b-2".to_owned(), "commit", 3),
        ("before:first".to_owned(), "commit", 1),
        (format!("snapshot:{snapshot}"), "commit", 6),
        // The time of an event's acknowledgement is the moment behind it and those of its batch.
        (format!("time:{}", first["ts"].as_str().unwrap()), "commit", 1),
        ("time:2020-01-02".to_owned(), "commit", 0),
        ("time:2020-01-02".to_owned(), "event", 1),
        ("time:2019-01-01".to_owned(), "event", 0),
    ] {
        let (status, found) = resolved(json!({ "at": at, "basis": basis })).await;
        assert_eq!((status, &found["seq"]), (200, &json!(expected)), "{at}: {found}");
        assert_eq!(found["snapshot"].is_null(), !at.starts_with("snapshot:"), "{at}: {found}");
        assert_eq!(found["ts"].is_string(), expected != 0, "{at}: {found}");
    }
    assert_eq!(resolved(json!({ "at": "~1" })).await.0, 400);
    assert_eq!(resolved(json!({ "at": "seq:99" })).await.0, 404);
    assert_eq!(resolved(json!({ "from": "seq:1" })).await.0, 400);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thing_has_an_address_and_versions_of_it() {
    let server = with_documents().await;
    let mail = change("6", "c", "ann@example.com", json!({"name": "Mail"}));
    let twin = json!({ "id": "7", "ns": NS, "op": "c", "collection": "places", "key": "u-1", "after": {"twin": true} });
    assert_eq!(server.ingest(&json!({ "events": [mail] })).await.0, 200);
    for (address, doc) in [
        ("users/u-1", json!({"name": "Ann", "city": "Oslo"})),
        ("users%2Fu-1", json!({"name": "Ann", "city": "Oslo"})),
        ("u-1", json!({"name": "Ann", "city": "Oslo"})),
        ("u-1@main", json!({"name": "Ann", "city": "Oslo"})),
        ("users/u-1@v1", json!({"name": "Ann", "city": "Rome"})),
        ("users/u-1@~1", json!({"name": "Ann", "city": "Rome"})),
        ("users/u-1@b-1", json!({"name": "Ann", "city": "Rome"})),
        ("u-1?v=2", json!({"name": "Ann", "city": "Rome"})),
        ("u%2F2@v3", json!({"name": "Bea"})),
        ("users/u%2F2@v3", json!({"name": "Bea"})),
        ("ann@example.com", json!({"name": "Mail"})),
        ("users/ann%40example.com", json!({"name": "Mail"})),
    ] {
        let found = got(&server, &format!("things/{address}")).await;
        assert_eq!((&found["doc"], &found["collection"]), (&doc, &json!("users")), "{address}");
    }
    for address in ["users/u%2F2", "absent", "users/u-1@experiment", "users/u-1@2000-01-01"] {
        assert_eq!(code(&server, &format!("things/{address}")).await.0, 404, "{address}");
    }
    assert_eq!(code(&server, "things/users/u-1@v1?v=2").await.0, 400);
    assert_eq!(server.ingest(&json!({ "events": [twin] })).await.0, 200);
    let (status, answer) = get(&server, "things/u-1").await;
    assert_eq!((status, &answer["code"]), (409, &json!("CONFLICT")), "{answer}");
    assert_eq!(answer["details"]["collections"], json!(["places", "users"]));
    // Before the second one came it was clear.
    assert_eq!(got(&server, "things/u-1@v6").await["collection"], "users");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_without_events_has_no_collections() {
    let server = TestServer::start().await;
    let namespace = json!({"namespace": ["shop_example"]}).to_string();
    let made = server.post("/catalog/v1/namespaces", "application/json", namespace).await;
    assert_eq!(made.status(), 200);
    for list in ["collections", "events"] {
        let answer = got(&server, list).await;
        assert_eq!((&answer[list], answer["basis"]["clock"].is_string()), (&json!([]), true));
    }
    for path in ["collections/users", "collections/users/docs/1", "things/users/1"] {
        assert_eq!(code(&server, path).await.0, 404, "{path}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_read_with_the_right_to_read() {
    let guarded = Guarded::with_events().await;
    let reader = guarded.token(&json!({"name": "r", "scopes": ["read:shop"]})).await;
    let sender = guarded.token(&json!({"name": "s", "scopes": ["ingest:shop"]})).await;
    for path in ["collections", "events", "collections/users/docs/1", "things/users/1"] {
        assert_eq!(guarded.get(&sender, &format!("/v1/shop/{path}")).await.0, 404, "{path}");
        assert_eq!(guarded.get(&reader, &format!("/v1/other/{path}")).await.0, 404, "{path}");
    }
    assert_eq!(guarded.get(&reader, "/v1/shop/events").await.0, 200);
    let at = json!({ "at": "seq:1" });
    assert_eq!(guarded.post(&reader, "/v1/shop/resolve", &at).await.0, 200);
    assert_eq!(guarded.post(&sender, "/v1/shop/resolve", &at).await.0, 404);
    guarded.server.stop().await;
}

/// A document is made of changes of every visibility, and so are its versions.
#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_see_every_row_reads_events_and_no_documents() {
    let guarded = Guarded::start_with(&[("visibility.filter", "on")]).await;
    let change = |id: &str, op: &str, visibility: &str| json!({"id": id, "ns": "shop", "op": op, "collection": "users", "key": "ann", "after": {"by": visibility}, "visibility": visibility});
    let sent = json!({ "events": [change("1", "c", "public"), change("2", "u", "team")] });
    assert_eq!(guarded.post(&guarded.admin, "/ingest", &sent).await.0, 200);
    let reader = guarded.token(&json!({"name": "r", "scopes": ["read:shop"]})).await;
    for path in [
        "collections",
        "collections/users",
        "collections/users/docs",
        "collections/users/docs/ann",
        "collections/users/docs/ann?at=~1",
        "collections/users/docs/ann/history",
        "collections/users/diff?from=seq:1",
        "things/ann",
        "things/users/ann@~1",
    ] {
        let path = format!("/v1/shop/{path}");
        assert_eq!(guarded.get(&guarded.admin, &path).await.0, 200, "{path}");
        let (status, answer) = guarded.get(&reader, &path).await;
        assert_eq!((status, &answer["code"]), (403, &json!("FORBIDDEN")), "{path}: {answer}");
    }
    for (token, expected) in [(&guarded.admin, vec!["1", "2"]), (&reader, vec!["1"])] {
        let (_, page) = guarded.get(token, "/v1/shop/events?order=asc").await;
        let events = page["events"].as_array().unwrap().iter();
        let ids: Vec<&str> = events.map(|it| it["id"].as_str().unwrap()).collect();
        assert_eq!(ids, expected, "{page}");
        let url = format!("{}/v1/shop/events", guarded.server.url);
        let lines = guarded.server.http.get(url).bearer_auth(token);
        let lines = lines.header("accept", "application/x-ndjson").send().await.unwrap();
        assert_eq!(lines.text().await.unwrap().lines().count(), expected.len());
    }
    guarded.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_shows_documents_as_tables_and_json() {
    let server = with_documents().await;
    let icecore = |words: &[&str]| {
        let arguments = [words, &["--ns", NS, "--url", &server.url]].concat();
        let output = run(&arguments, &[], b"");
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let collections = icecore(&["collections"]);
    assert!(collections.contains("places") && collections.contains("applied_seq"), "{collections}");
    assert!(icecore(&["collections", "users"]).contains("users"));
    let rome: Value =
        serde_json::from_str(&icecore(&["docs", "users", "u-1", "--at", "~1"])).unwrap();
    assert_eq!(rome, json!({"name": "Ann", "city": "Rome"}));
    for address in ["users/u-1@~1", "users/u-1@v1", "users/u-1@main", "users/u-1"] {
        let shown: Value = serde_json::from_str(&icecore(&["docs", address])).unwrap();
        let expected = got(&server, &format!("things/{address}")).await["doc"].clone();
        assert_eq!(shown, expected, "{address}");
    }
    assert!(icecore(&["docs", "users/u-1", "--at", "~1"]).contains("Rome"));
    let exact = icecore(&["docs", "places", "p-1", "--json"]);
    assert!(exact.contains("9007199254740993"), "{exact}");
    assert!(icecore(&["docs", "users", "--at", "seq:3"]).contains("u/2"));
    let history = icecore(&["history", "users", "u-1"]);
    assert!(history.contains("patch {\"city\":\"Oslo\"}"), "{history}");
    let diff = icecore(&["diff", "users", "--from", "seq:2"]);
    assert!(diff.starts_with("0 documents added, 1 changed, 1 removed"), "{diff}");
    assert!(diff.contains("removed") && diff.contains("u/2"), "{diff}");
    assert_eq!(icecore(&["history", "users/u-1"]), history);
    assert_eq!(icecore(&["diff", "users@v2", "users@v5"]), diff);
    server.stop().await;
}
