//! Branches of a namespace: where they begin, what is appended to them, and that `main` knows nothing of it.

use crate::{
    access::Guarded,
    erase::{begin, reach},
    harness::{TestServer, files_below},
    process::post_and_die,
};
use icecore_lake::clock::Clock;
use icecore_schemas::erasure::ErasureStatus;
use reqwest::Method;
use serde_json::{Value, json};

const BRANCHES: &str = "/v1/shop/branches";

/// An event of the namespace `shop`.
fn event(id: &str) -> Value {
    json!({"id": id, "type": "order.placed", "ns": "shop", "data": {"of": id}})
}

/// Sends events, to a branch where one is named, and gives status and reply.
async fn send(server: &TestServer, branch: Option<&str>, ids: &[&str]) -> (u16, Value) {
    let events: Vec<Value> = ids.iter().map(|id| event(id)).collect();
    let path = branch.map_or("/ingest".to_owned(), |branch| format!("/ingest?branch={branch}"));
    server.ingest_at(&path, &json!({ "events": events })).await
}

async fn make(server: &TestServer, body: Value) -> (u16, Value) {
    server.call(Method::POST, BRANCHES, &body).await
}

/// A server with the events `a` to `c`.
async fn shop() -> TestServer {
    let server = TestServer::start().await;
    assert_eq!(send(&server, None, &["a", "b", "c"]).await.0, 200);
    server
}

/// The ids and numbers that `main`, or a branch, has.
async fn events_of(server: &TestServer, branch: Option<&str>) -> Value {
    let version = branch.map_or(String::new(), |branch| format!(" FOR VERSION AS OF '{branch}'"));
    server.rows("shop", &format!("SELECT id, seq FROM events{version} ORDER BY seq")).await
}

/// Whoever checks `main` finds nothing.
async fn check(server: &TestServer) {
    let (_, audit) = server.call(Method::POST, "/v1/shop/audit/events", &json!({})).await;
    assert_eq!(audit["agrees"], true, "{audit}");
    let (_, checked) = server.call(Method::POST, "/admin/fsck", &json!({})).await;
    assert_eq!(checked["whole"], true, "{checked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_has_events_of_its_own_and_main_stays_as_it_is() {
    let server = shop().await;
    let (status, made) = make(&server, json!({"name": "try"})).await;
    assert_eq!(status, 201, "{made}");
    assert_eq!((&made["head_seq"], &made["fork_seq"]), (&json!(3), &json!(3)), "{made}");
    assert_eq!((&made["forked_from"], &made["name"]), (&json!("main"), &json!("try")), "{made}");
    let (status, reply) = send(&server, Some("try"), &["d", "e"]).await;
    assert_eq!((status, &reply["seq"]), (200, &json!({"first": 4, "last": 5})), "{reply}");
    assert!(reply["snapshot"].is_i64(), "{reply}");
    let (status, reply) = send(&server, None, &["m"]).await;
    assert_eq!((status, &reply["seq"]), (200, &json!({"first": 4, "last": 4})), "{reply}");
    server.commit("shop").await;
    let main = json!([["a", 1], ["b", 2], ["c", 3], ["m", 4]]);
    let of_try = json!([["a", 1], ["b", 2], ["c", 3], ["d", 4], ["e", 5]]);
    assert_eq!(events_of(&server, None).await, main);
    assert_eq!(events_of(&server, Some("try")).await, of_try);
    let (_, shown) = server.call(Method::GET, "/v1/shop/branches/try", &json!({})).await;
    assert_eq!((&shown["head"], &shown["head_seq"]), (&reply_head(&server).await, &json!(5)));
    check(&server).await;
    let server = server.restart().await;
    assert_eq!(events_of(&server, None).await, main);
    assert_eq!(events_of(&server, Some("try")).await, of_try);
    assert_eq!(send(&server, None, &["n"]).await.1["seq"]["first"], 5);
    check(&server).await;
    server.stop().await;
}

/// The head of the one branch, as the list has it.
async fn reply_head(server: &TestServer) -> Value {
    let (status, listed) = server.call(Method::GET, BRANCHES, &json!({})).await;
    assert_eq!((status, listed["branches"].as_array().unwrap().len()), (200, 1), "{listed}");
    listed["branches"][0]["head"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_begins_at_exactly_one_event() {
    let server = TestServer::start().await;
    let (status, refused) = make(&server, json!({"name": "early"})).await;
    assert_eq!(status, 404, "{refused}");
    for ids in [["a", "b"], ["c", "d"]] {
        assert_eq!(send(&server, None, &ids).await.0, 200);
        server.commit("shop").await;
    }
    assert_eq!(send(&server, None, &["e"]).await.0, 200);
    let all = [["a", "1"], ["b", "2"], ["c", "3"], ["d", "4"], ["e", "5"]];
    let warehouse = server.folder.path().join("warehouse");
    // Before the first snapshot, behind it, at another one, and behind all of them.
    for seq in 1..=5_usize {
        let name = format!("at-{seq}");
        let files = files_below(&warehouse, ".parquet").len();
        let (status, made) = make(&server, json!({"name": name, "at": format!("seq:{seq}")})).await;
        assert_eq!((status, &made["fork_seq"]), (201, &json!(seq)), "{made}");
        let wanted: Value =
            all[..seq].iter().map(|[id, n]| json!([id, n.parse::<u64>().unwrap()])).collect();
        assert_eq!(events_of(&server, Some(&name)).await, wanted);
        // Where a snapshot ends, its files are shared, and nothing is copied.
        let is_shared = [2, 4, 5].contains(&seq);
        assert_eq!(files_below(&warehouse, ".parquet").len() == files, is_shared, "seq {seq}");
    }
    let (status, made) = make(&server, json!({"name": "zero", "at": "seq:0"})).await;
    assert_eq!(
        (status, &made["fork_seq"], &made["base"]),
        (201, &json!(0), &Value::Null),
        "{made}"
    );
    assert_eq!(events_of(&server, Some("zero")).await, json!([]));
    assert_eq!(send(&server, Some("at-1"), &["z"]).await.0, 200);
    assert_eq!(events_of(&server, Some("at-1")).await, json!([["a", 1], ["z", 2]]));
    let (status, later) = make(&server, json!({"name": "later", "at": "seq:9"})).await;
    assert_eq!(status, 404, "{later}");
    // One that is made of another has the events of that.
    assert_eq!(send(&server, Some("at-3"), &["x", "y"]).await.0, 200);
    let (status, refused) = make(&server, json!({"name": "unclear", "at": "tag:at-3"})).await;
    assert_eq!((status, &refused["code"]), (400, &json!("INVALID_REQUEST")), "{refused}");
    for (name, body) in [
        ("of-head", json!({"name": "of-head", "from": "at-3"})),
        ("of-point", json!({"name": "of-point", "from": "at-3", "at": "seq:4"})),
        ("of-branch", json!({"name": "of-branch", "at": "branch:at-3"})),
    ] {
        let (status, made) = make(&server, body).await;
        assert_eq!((status, &made["forked_from"]), (201, &json!("at-3")), "{made}");
        let mut wanted = vec![json!(["a", 1]), json!(["b", 2]), json!(["c", 3]), json!(["x", 4])];
        wanted.extend((name != "of-point").then(|| json!(["y", 5])));
        assert_eq!(events_of(&server, Some(name)).await, Value::from(wanted), "{name}");
    }
    check(&server).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_on_a_branch_once_however_often_it_is_sent() {
    let mut server = shop().await;
    assert_eq!(make(&server, json!({"name": "try"})).await.0, 201);
    for round in 0..3 {
        let (status, reply) = send(&server, Some("try"), &["b", "d", "d"]).await;
        let duplicates = if round == 0 { 2 } else { 3 };
        assert_eq!((status, &reply["duplicates"]), (200, &json!(duplicates)), "{reply}");
        assert_eq!(reply["seq"], json!({"first": 2, "last": 4}), "{reply}");
        server = server.restart().await;
    }
    let of_try = json!([["a", 1], ["b", 2], ["c", 3], ["d", 4]]);
    // Another content of an id, or an event that is broken, takes the others with it.
    let other = json!({"id": "d", "type": "order.placed", "ns": "shop", "data": 7});
    for (events, code) in [
        (json!([event("e"), other.clone()]), "CONFLICT"),
        (json!([event("f"), {"id": "f", "type": "order.placed", "ns": "shop"}]), "CONFLICT"),
        (json!([event("e"), {"id": "x", "ns": "shop"}]), "MISSING_TYPE"),
    ] {
        let (status, reply) = server.ingest_at("/ingest?branch=try", &events).await;
        assert_eq!((status, &reply["ok"]), (400, &json!(false)), "{reply}");
        let codes: Vec<&Value> =
            reply["errors"].as_array().unwrap().iter().map(|error| &error["code"]).collect();
        assert_eq!(codes.len(), 2, "{reply}");
        assert!(codes.contains(&&json!(code)), "{reply}");
        assert!(codes.contains(&&json!("BATCH_ABORTED")), "{reply}");
    }
    assert_eq!(events_of(&server, Some("try")).await, of_try);
    let letters = server.get("/v1/shop/dead-letters").await.json::<Value>().await.unwrap();
    assert_eq!(letters["dead_letters"], json!([]), "{letters}");
    // What is new on the branch is new on `main` as well.
    assert_eq!(send(&server, None, &["d"]).await.1["duplicates"], 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_may_name_its_branch_itself() {
    let server = shop().await;
    assert_eq!(make(&server, json!({"name": "try"})).await.0, 201);
    let body = json!({"events": [event("d")], "branch": "try"});
    let (status, reply) = server.ingest(&body).await;
    assert_eq!((status, &reply["seq"]["last"]), (200, &json!(4)), "{reply}");
    let (status, reply) = server.ingest_at("/ingest?branch=other", &body).await;
    assert_eq!((status, &reply["code"]), (400, &json!("INVALID_REQUEST")), "{reply}");
    let mixed = json!([event("e"), {"id": "e", "type": "a", "ns": "elsewhere"}]);
    let (status, reply) = server.ingest_at("/ingest?branch=try", &mixed).await;
    assert_eq!((status, &reply["code"]), (400, &json!("INVALID_REQUEST")), "{reply}");
    // Nobody compares versions there.
    let expecting = json!([{"ns": "shop", "collection": "users", "key": "1", "op": "c", "after": {}, "expected_version": 0}]);
    let (status, reply) = server.ingest_at("/ingest?branch=try", &expecting).await;
    assert_eq!((status, &reply["code"]), (400, &json!("INVALID_REQUEST")), "{reply}");
    let (status, reply) = send(&server, Some("none"), &["e"]).await;
    assert_eq!((status, &reply["code"]), (404, &json!("NOT_FOUND")), "{reply}");
    assert!(reply["error"].as_str().unwrap().contains("`try`"), "{reply}");
    assert_eq!(send(&server, Some("main"), &["e"]).await.1["seq"]["last"], 4);
    assert_eq!(events_of(&server, None).await.as_array().unwrap().len(), 4);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_of_a_collection_takes_its_changes_alone() {
    let server = shop().await;
    let (status, made) = make(&server, json!({"name": "users", "collection": "users"})).await;
    assert_eq!((status, &made["collection"]), (201, &json!("users")), "{made}");
    let change = |collection: &str| json!([{"id": collection, "ns": "shop", "collection": collection, "key": "1", "op": "c", "after": {}}]);
    let (status, reply) = server.ingest_at("/ingest?branch=users", &change("users")).await;
    assert_eq!(status, 200, "{reply}");
    let (status, reply) = server.ingest_at("/ingest?branch=users", &change("orders")).await;
    assert_eq!((status, &reply["code"]), (400, &json!("INVALID_REQUEST")), "{reply}");
    assert_eq!(send(&server, Some("users"), &["e"]).await.0, 400);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_one_that_nothing_else_has_or_is_read_as() {
    let server = shop().await;
    server.commit("shop").await;
    for name in ["", "a b", "main", "17", "v17", "2026-11-20", "daily-x", "before-y"] {
        let (status, refused) = make(&server, json!({ "name": name })).await;
        assert_eq!(
            (status, &refused["code"]),
            (400, &json!("INVALID_REQUEST")),
            "{name}: {refused}"
        );
    }
    let refs = "/v1/shop/tables/events/refs";
    for (name, kind) in [("kept", "tag"), ("other", "branch")] {
        let (status, _) =
            server.call(Method::POST, refs, &json!({"name": name, "type": kind})).await;
        assert_eq!(status, 200);
        let (status, refused) = make(&server, json!({ "name": name })).await;
        assert_eq!((status, &refused["code"]), (409, &json!("CONFLICT")), "{refused}");
        // It is a name of the table, and no branch of the namespace.
        assert_eq!(send(&server, Some(name), &["e"]).await.0, 404);
    }
    assert_eq!(make(&server, json!({"name": "try"})).await.0, 201);
    assert_eq!(make(&server, json!({"name": "try"})).await.0, 409);
    let (_, listed) = server.call(Method::GET, BRANCHES, &json!({})).await;
    assert_eq!(listed["branches"].as_array().unwrap().len(), 1, "{listed}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_branch_is_gone_and_its_name_is_free() {
    let server = shop().await;
    assert_eq!(make(&server, json!({"name": "try"})).await.0, 201);
    assert_eq!(send(&server, Some("try"), &["d"]).await.0, 200);
    let path = "/v1/shop/branches/try";
    assert_eq!(server.call(Method::DELETE, path, &json!({})).await.0, 200);
    assert_eq!(server.call(Method::DELETE, path, &json!({})).await.0, 404);
    assert_eq!(server.call(Method::GET, path, &json!({})).await.0, 404);
    let (status, refs) = server.call(Method::GET, "/v1/shop/tables/events/refs", &json!({})).await;
    assert_eq!((status, refs["refs"].as_array().unwrap().len()), (200, 1), "{refs}");
    assert_eq!(make(&server, json!({"name": "try"})).await.0, 201);
    let of_main = json!([["a", 1], ["b", 2], ["c", 3]]);
    assert_eq!(events_of(&server, Some("try")).await, of_main);
    check(&server).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ref_of_that_name_that_others_make_is_not_the_branch_that_they_dropped() {
    let server = shop().await;
    assert_eq!(make(&server, json!({"name": "try"})).await.0, 201);
    let refs = "/v1/shop/tables/events/refs";
    let (status, answer) = server.call(Method::DELETE, &format!("{refs}/try"), &json!({})).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(server.call(Method::GET, BRANCHES, &json!({})).await.1["branches"], json!([]));
    let named = json!({"name": "try", "type": "branch"});
    assert_eq!(server.call(Method::POST, refs, &named).await.0, 200);
    assert_eq!(server.call(Method::GET, BRANCHES, &json!({})).await.1["branches"], json!([]));
    assert_eq!(send(&server, Some("try"), &["d"]).await.0, 404);
    // What was said of it goes with the next branch.
    assert_eq!(server.call(Method::DELETE, &format!("{refs}/try"), &json!({})).await.0, 200);
    assert_eq!(make(&server, json!({"name": "next"})).await.0, 201);
    let table = "/catalog/v1/namespaces/shop/tables/events";
    let loaded = server.get(table).await.json::<Value>().await.unwrap();
    let properties = &loaded["metadata"]["properties"];
    assert!(properties["icecore.branch.try"].is_null(), "{properties}");
    assert!(properties["icecore.branch.next"].is_string(), "{properties}");
    // Nobody else says anything of a branch.
    let set = json!([{"action": "set-properties", "updates": {"icecore.branch.mine": "{}"}}]);
    let remove = json!([{"action": "remove-properties", "removals": ["icecore.branch.next"]}]);
    for updates in [set, remove] {
        let body = json!({"requirements": [], "updates": updates});
        let (status, refused) = server.call(Method::POST, table, &body).await;
        assert_eq!(status, 400, "{refused}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_branch_never_come_to_main_by_moving_it() {
    let server = shop().await;
    assert_eq!(make(&server, json!({"name": "try"})).await.0, 201);
    assert_eq!(send(&server, Some("try"), &["d"]).await.0, 200);
    // The branch comes of the very head of `main`, and has a number that `main` gives to its next event.
    let (_, shown) = server.call(Method::GET, "/v1/shop/branches/try", &json!({})).await;
    let moved = json!([{"action": "set-snapshot-ref", "ref-name": "main", "type": "branch", "snapshot-id": shown["head"]}]);
    let body = json!({"requirements": [], "updates": moved});
    let table = "/catalog/v1/namespaces/shop/tables/events";
    let (status, refused) = server.call(Method::POST, table, &body).await;
    assert_eq!(status, 400, "{refused}");
    let path = "/v1/shop/tables/events/refs/main/fast-forward";
    let (status, refused) = server.call(Method::POST, path, &json!({"to": "try"})).await;
    assert_eq!(status, 400, "{refused}");
    assert_eq!(send(&server, None, &["m"]).await.1["seq"]["last"], 4);
    server.commit("shop").await;
    let main = json!([["a", 1], ["b", 2], ["c", 3], ["m", 4]]);
    assert_eq!(events_of(&server, None).await, main);
    check(&server).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_around_the_commit_has_all_of_a_request_or_none() {
    let server = shop().await;
    server.commit("shop").await;
    let mut folder = server.stop().await;
    for (point, has_it) in [("branch.before_commit", false), ("branch.lost_answer", true)] {
        let failpoint = format!("{point}=abort");
        let name = if has_it { "after" } else { "before" };
        let body = json!({ "name": name }).to_string();
        post_and_die(folder.path(), &failpoint, BRANCHES, body).await;
        let server = TestServer::start_in(folder, &[]).await;
        let there = server.get(&format!("{BRANCHES}/{name}")).await.status();
        assert_eq!(there, if has_it { 200 } else { 404 }, "{point}");
        if !has_it {
            assert_eq!(make(&server, json!({ "name": name })).await.0, 201);
        }
        folder = server.stop().await;
        let body = json!([event("d"), event("e")]).to_string();
        post_and_die(folder.path(), &failpoint, &format!("/ingest?branch={name}"), body).await;
        let server = TestServer::start_in(folder, &[]).await;
        let (status, reply) = send(&server, Some(name), &["d", "e"]).await;
        assert_eq!(status, 200, "{reply}");
        assert_eq!(reply["duplicates"], if has_it { 2 } else { 0 }, "{point}: {reply}");
        assert_eq!(reply["seq"], json!({"first": 4, "last": 5}), "{point}: {reply}");
        assert_eq!(events_of(&server, Some(name)).await.as_array().unwrap().len(), 5);
        assert_eq!(events_of(&server, None).await.as_array().unwrap().len(), 3);
        check(&server).await;
        folder = server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_of_one_branch_take_turns() {
    let server = shop().await;
    assert_eq!(make(&server, json!({"name": "try"})).await.0, 201);
    let ids: Vec<String> = (0..6).map(|n| format!("w-{n}")).collect();
    let writers = ids.iter().map(|id| async {
        let (status, reply) = send(&server, Some("try"), &[id.as_str()]).await;
        assert_eq!(status, 200, "{reply}");
        reply["seq"]["last"].as_u64().unwrap()
    });
    let mut seqs = futures::future::join_all(writers).await;
    seqs.sort_unstable();
    assert_eq!(seqs, [4, 5, 6, 7, 8, 9]);
    check(&server).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_written_on_a_branch_with_their_versions() {
    let server = shop().await;
    let doc = "/v1/shop/collections/users/docs/u-1";
    let put = async |query: &str, body: Value| {
        server.call(Method::PUT, &format!("{doc}{query}"), &body).await
    };
    assert_eq!(put("", json!({"n": 1})).await.0, 200);
    assert_eq!(make(&server, json!({"name": "try"})).await.0, 201);
    let (status, written) = put("?branch=try&expected_version=1", json!({"n": 2})).await;
    assert_eq!((status, &written["version"]), (200, &json!(2)), "{written}");
    assert!(written["snapshot"].is_i64(), "{written}");
    let (status, refused) = put("?branch=try&expected_version=1", json!({"n": 3})).await;
    assert_eq!((status, &refused["details"]["actual"]), (409, &json!(2)), "{refused}");
    // `main` has the version from before.
    let (status, written) = put("?expected_version=1", json!({"n": 5})).await;
    assert_eq!((status, &written["version"]), (200, &json!(2)), "{written}");
    let gone = format!("{doc}?branch=try&expected_version=2");
    assert_eq!(server.call(Method::DELETE, &gone, &json!({})).await.0, 200);
    assert_eq!(server.call(Method::DELETE, &gone, &json!({})).await.0, 409);
    assert_eq!(put("?branch=none", json!({})).await.0, 404);
    let docs = server.rows("shop", "SELECT doc, version FROM cdc_users").await;
    assert_eq!(docs, json!([["{\"n\":5}", 2]]));
    check(&server).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_squashed_branch_has_one_change_for_each_document() {
    let server = shop().await;
    let put = async |key: &str, query: &str, body: Value| {
        let path = format!("/v1/shop/collections/users/docs/{key}{query}");
        assert_eq!(server.call(Method::PUT, &path, &body).await.0, 200, "{key}");
    };
    put("kept", "", json!({"n": 0})).await;
    assert_eq!(make(&server, json!({"name": "try"})).await.0, 201);
    for n in 1..4 {
        put("kept", "?branch=try", json!({ "n": n })).await;
        put("new", "?branch=try", json!({ "n": n })).await;
    }
    assert_eq!(send(&server, Some("try"), &["d"]).await.0, 200);
    let path = "/v1/shop/branches/try/squash";
    let (status, squashed) = server.call(Method::POST, path, &json!({})).await;
    assert_eq!(status, 200, "{squashed}");
    assert_eq!((&squashed["events_before"], &squashed["events"]), (&json!(7), &json!(3)));
    assert_eq!(squashed["tag"], "try-before-squash-11", "{squashed}");
    let own = "SELECT key, op, before, after FROM events FOR VERSION AS OF 'try' WHERE seq > 4 ORDER BY key NULLS FIRST";
    let wanted = json!([
        [null, null, null, null],
        ["kept", "u", "{\"n\":0}", "{\"n\":3}"],
        ["new", "c", null, "{\"n\":3}"],
    ]);
    assert_eq!(server.rows("shop", own).await, wanted);
    let before = "SELECT count(*) FROM events FOR VERSION AS OF 'try-before-squash-11'";
    assert_eq!(server.rows("shop", before).await, json!([[11]]));
    // A second one has nothing to do.
    let (status, again) = server.call(Method::POST, path, &json!({})).await;
    assert_eq!((status, &again["tag"]), (200, &Value::Null), "{again}");
    check(&server).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_is_squashed_behind_what_others_go_on_from() {
    let server = shop().await;
    let call = async |method: Method, path: &str, body: Value| {
        server.call(method, &format!("/v1/shop/{path}"), &body).await
    };
    let put = async |branch: &str, n: u64| {
        let path = format!("collections/users/docs/u-1?branch={branch}");
        assert_eq!(call(Method::PUT, &path, json!({ "n": n })).await.0, 200);
    };
    let squash = async || call(Method::POST, "branches/try/squash", json!({})).await;
    assert_eq!(make(&server, json!({"name": "try"})).await.0, 201);
    put("try", 1).await;
    put("try", 2).await;
    assert_eq!(make(&server, json!({"name": "child", "from": "try"})).await.0, 201);
    put("try", 3).await;
    put("try", 4).await;
    put("child", 9).await;
    let (status, squashed) = squash().await;
    assert_eq!((status, &squashed["tag"]), (200, &json!("try-before-squash-7")), "{squashed}");
    assert_eq!((&squashed["events_before"], &squashed["events"]), (&json!(2), &json!(1)));
    let own =
        "SELECT seq, before, after FROM events FOR VERSION AS OF 'try' WHERE seq > 3 ORDER BY seq";
    let wanted = json!([
        [4, null, "{\"n\":1}"],
        [5, "{\"n\":1}", "{\"n\":2}"],
        [8, "{\"n\":2}", "{\"n\":4}"],
    ]);
    assert_eq!(server.rows("shop", own).await, wanted);
    // What both have in common is as it was.
    let into = json!({"into": "try"});
    let (status, refused) = call(Method::POST, "branches/child/merge", into).await;
    let conflict = &refused["details"]["conflicts"][0];
    assert_eq!((status, &conflict["base"]), (409, &json!({"n": 2})), "{refused}");
    assert_eq!((&conflict["ours"], &conflict["theirs"]), (&json!({"n": 4}), &json!({"n": 9})));
    let (status, again) = squash().await;
    assert_eq!((status, &again["tag"]), (200, &Value::Null), "{again}");
    // Nobody goes on from there any more.
    assert_eq!(call(Method::DELETE, "branches/child", json!({})).await.0, 200);
    let (status, squashed) = squash().await;
    assert_eq!((status, &squashed["tag"]), (200, &json!("try-before-squash-8")), "{squashed}");
    assert_eq!((&squashed["events_before"], &squashed["events"]), (&json!(3), &json!(1)));
    // The tag is of the branch that had the name before, whose events it keeps.
    assert_eq!(call(Method::DELETE, "branches/try", json!({})).await.0, 200);
    assert_eq!(make(&server, json!({"name": "try"})).await.0, 201);
    for n in 4..=7 {
        put("try", n).await;
    }
    let (status, refused) = squash().await;
    assert_eq!((status, &refused["code"]), (409, &json!("CONFLICT")), "{refused}");
    let count = "SELECT count(*) FROM events FOR VERSION AS OF 'try' WHERE seq > 3";
    assert_eq!(server.rows("shop", count).await, json!([[4]]));
    check(&server).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_send_none_of_the_events_is_told_nothing_of_the_branches() {
    let guarded = Guarded::with_events().await;
    assert_eq!(guarded.post(&guarded.admin, BRANCHES, &json!({"name": "try"})).await.0, 201);
    let sender = guarded.token(&json!({"name": "sender", "scopes": ["ingest:other"]})).await;
    let sent = json!([event("d")]);
    let (status, of_try) = guarded.post(&sender, "/ingest?branch=try", &sent).await;
    let (status_of_none, of_none) = guarded.post(&sender, "/ingest?branch=none", &sent).await;
    assert_eq!(status, status_of_none, "{of_try} {of_none}");
    assert!(of_try["snapshot"].is_null(), "{of_try}");
    assert!(!of_none.to_string().contains("`try`"), "{of_none}");
    guarded.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_squash_tells_what_a_document_was_only_to_those_who_saw_it() {
    let guarded = Guarded::start_with(&[("visibility.filter", "on")]).await;
    let post = async |path: &str, body: Value| {
        let (status, answer) = guarded.post(&guarded.admin, path, &body).await;
        assert!((200..300).contains(&status), "{path}: {answer}");
        answer
    };
    let change = |id: &str, op: &str, visibility: &str| json!([{"id": id, "ns": "shop", "collection": "users", "key": "1", "op": op, "after": {"of": id}, "visibility": visibility}]);
    post("/ingest", change("a", "c", "team")).await;
    post(BRANCHES, json!({"name": "try"})).await;
    post("/ingest?branch=try", change("b", "u", "team")).await;
    post("/ingest?branch=try", change("c", "u", "public")).await;
    post("/v1/shop/branches/try/squash", json!({})).await;
    let sql =
        "SELECT op, before, after, visibility FROM events FOR VERSION AS OF 'try' WHERE seq > 1";
    let answer = post("/v1/shop/sql", json!({ "sql": sql })).await;
    assert_eq!(answer["rows"], json!([["u", null, "{\"of\":\"c\"}", "public"]]), "{answer}");
    guarded.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_takes_its_rows_out_of_a_branch_which_goes_on() {
    let settings = [("expire.cron", ""), ("compaction.enabled", "off")];
    let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::manual(1_790_000_000_000));
    let server = TestServer::start_at(folder, &settings, clock).await;
    let of = |id: &str, user: &str| json!({"id": id, "type": "a", "ns": "shop", "user_id": user});
    assert_eq!(server.ingest(&json!({"events": [of("a", "bea"), of("b", "ann")]})).await.0, 200);
    assert_eq!(make(&server, json!({"name": "try"})).await.0, 201);
    let own = json!([of("c", "ann"), of("d", "bea")]);
    assert_eq!(server.ingest_at("/ingest?branch=try", &own).await.0, 200);
    let id = begin(&server, "ann").await;
    reach(&server, &id, ErasureStatus::Files).await;
    assert_eq!(events_of(&server, Some("try")).await, json!([["a", 1], ["d", 4]]));
    assert_eq!(send(&server, Some("try"), &["e"]).await.1["seq"]["last"], 5);
    server.stop().await;
}
