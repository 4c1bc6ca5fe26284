//! Tags of all tables of a namespace: set in one commit, of now and of points, dropped together, and those that the
//! service sets each day; and the moment before a request that its client gave a name.

use crate::{
    admin::icecore,
    erase::{begin, reach},
    harness::TestServer,
    postgres::Databases,
};
use icecore_lake::clock::Clock;
use icecore_schemas::{erasure::ErasureStatus, jobs::JobReport};
use reqwest::Method;
use serde_json::{Value, json};

/// 2026-09-21 14:13 UTC.
const NOW_MS: i64 = 1_790_000_000_000;
const DAY_MS: i64 = 86_400_000;

fn change(op: &str, n: u32, total: u32) -> Value {
    json!({"id": format!("{op}-{n}-{total}"), "type": "order", "ns": "shop", "op": op, "collection": "orders",
        "key": format!("k-{n}"), "after": { "total": total }})
}

async fn send(server: &TestServer, events: &[Value]) {
    let (status, answer) = server.ingest(&json!({ "events": events })).await;
    assert_eq!(status, 200, "{answer}");
}

async fn refresh(server: &TestServer) {
    let path = "/v1/shop/collections/orders/refresh";
    let answer = server.post(path, "application/json", "").await;
    assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
}

async fn tag(server: &TestServer, body: Value) -> (u16, Value) {
    server.call(Method::POST, "/v1/shop/tags", &body).await
}

/// The names of the tables that have a tag, and those that were left out.
fn tables(tag: &Value) -> (Vec<&str>, Vec<&str>) {
    let names = |list: &'static str| {
        let list = tag[list].as_array().into_iter().flatten();
        list.map(|it| it["table"].as_str().unwrap()).collect()
    };
    (names("tables"), names("left_out"))
}

/// The branches and tags of a table, `main` apart.
async fn refs(server: &TestServer, table: &str) -> Vec<String> {
    let listed: Value =
        server.get(&format!("/v1/shop/tables/{table}/refs")).await.json().await.unwrap();
    let names = listed["refs"].as_array().unwrap().iter();
    let names = names.map(|it| it["name"].as_str().unwrap().to_owned());
    names.filter(|name| name != "main").collect()
}

async fn version_at(server: &TestServer, at: &str) -> Value {
    let path = format!("/v1/shop/collections/orders/docs/k-1?at={at}");
    let found: Value = server.get(&path).await.json().await.unwrap();
    found["version"].clone()
}

/// A tag of now, one that one table has already, one that is dropped.
async fn check_tags(settings: &[(&str, &str)]) {
    let server = TestServer::start_in(tempfile::tempdir().unwrap(), settings).await;
    send(&server, &[change("c", 1, 1), change("c", 2, 1)]).await;
    refresh(&server).await;
    let made = json!({ "sql": "CREATE TABLE mine AS SELECT key FROM cdc_orders" });
    assert_eq!(server.query("shop", &made).await.0, 200);
    // It is in the log alone.
    send(&server, &[change("u", 1, 2)]).await;
    let (status, set) = tag(&server, json!({ "name": "release-1" })).await;
    assert_eq!((status, &set["seq"]), (201, &json!(3)), "{set}");
    let all = vec!["cdc_orders", "events", "mine"];
    assert_eq!(tables(&set), (all.clone(), Vec::new()), "{set}");

    send(&server, &[change("u", 1, 3)]).await;
    server.commit("shop").await;
    let count = "SELECT count(*) FROM events FOR VERSION AS OF 'release-1'";
    assert_eq!(server.rows("shop", count).await, json!([[3]]));
    assert_eq!(version_at(&server, "tag:release-1").await, json!(2));
    assert_eq!(version_at(&server, "tag:release-1").await, version_at(&server, "seq:3").await);

    // One table has the name: none gets it.
    let branch = json!({ "name": "taken", "type": "branch" });
    let path = "/v1/shop/tables/cdc_orders/refs";
    assert_eq!(server.call(Method::POST, path, &branch).await.0, 200);
    for name in ["taken", "release-1"] {
        let (status, refused) = tag(&server, json!({ "name": name })).await;
        assert_eq!((status, &refused["code"]), (409, &json!("CONFLICT")), "{refused}");
    }
    assert_eq!(refs(&server, "events").await, ["release-1"]);
    assert_eq!(refs(&server, "mine").await, ["release-1"]);

    let listed: Value = server.get("/v1/shop/tags").await.json().await.unwrap();
    let listed = listed["tags"].as_array().unwrap();
    assert_eq!((listed.len(), &listed[0]["seq"]), (1, &json!(3)), "{listed:?}");
    let one: Value = server.get("/v1/shop/tags/release-1").await.json().await.unwrap();
    assert_eq!((&one, tables(&one).0), (&listed[0], all.clone()));

    check_command_line(&server);

    let folder = server.stop().await;
    let server = TestServer::start_in(folder, settings).await;
    let path = "/v1/shop/tags/release-1";
    let (status, dropped) = server.call(Method::DELETE, path, &json!({})).await;
    assert_eq!((status, &dropped["tables"]), (200, &json!(all)), "{dropped}");
    for table in ["events", "mine"] {
        assert_eq!(refs(&server, table).await, Vec::<String>::new());
    }
    assert_eq!(server.call(Method::DELETE, path, &json!({})).await.0, 404);
    assert_eq!(server.get(path).await.status(), 404);
    // The branch is none of them.
    assert_eq!(server.call(Method::DELETE, "/v1/shop/tags/taken", &json!({})).await.0, 404);
    server.stop().await;
}

/// Lists of a namespace and of a table, a drop that is only shown, and one that nobody agrees to.
fn check_command_line(server: &TestServer) {
    let (done, text) = icecore(server, &["tags", "list", "--namespace", "--ns", "shop"]);
    assert!(done && text.contains("cdc_orders, events, mine"), "{text}");
    let (done, text) = icecore(server, &["tags", "list", "events", "--ns", "shop"]);
    assert!(done && text.contains("release-1"), "{text}");
    let drop = ["tags", "drop", "release-1", "--namespace", "--ns", "shop"];
    let (done, text) = icecore(server, &[&drop[..], &["--dry-run"]].concat());
    assert!(done && text.contains("release-1 is of seq 3"), "{text}");
    let (done, text) = icecore(server, &drop);
    assert!(!done && text.contains("add --yes"), "{text}");
    let (done, text) = icecore(server, &["tags", "create", "one", "--ns", "shop"]);
    assert!(!done && text.contains("name a table and a tag"), "{text}");
    let at = ["tags", "create", "again-3", "--namespace", "--ns", "shop", "--at", "tag:release-1"];
    let (done, text) = icecore(server, &at);
    assert!(done && text.contains("again-3 is of seq 3"), "{text}");
    let (done, text) =
        icecore(server, &[&drop[..2], &["again-3"], &drop[3..], &["--yes"]].concat());
    assert!(done && text.contains("again-3 is dropped of cdc_orders, events"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_tables_have_a_tag_or_none_has() {
    check_tags(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_tables_have_a_tag_or_none_has_in_postgresql() {
    let Some(databases) = Databases::new("tags").await else { return };
    databases.make("folder").await;
    check_tags(&[("metastore", databases.url("folder").as_str())]).await;
    databases.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_of_a_point_has_nothing_that_came_after_it() {
    let server = TestServer::start().await;
    send(&server, &[change("c", 1, 1), change("c", 2, 1), change("c", 3, 1)]).await;
    refresh(&server).await;
    server.commit("shop").await;
    send(&server, &[change("u", 1, 2), change("u", 1, 3), change("d", 2, 0)]).await;
    refresh(&server).await;
    server.commit("shop").await;

    // The fifth event is in no snapshot that ends there: the one before it has three.
    let (status, set) = tag(&server, json!({ "name": "up-to-five", "at": "seq:5" })).await;
    assert_eq!((status, &set["seq"]), (201, &json!(3)), "{set}");
    assert_eq!(tables(&set), (vec!["cdc_orders", "events"], Vec::new()));
    assert_eq!(version_at(&server, "tag:up-to-five").await, json!(1));
    let first = server.get("/catalog/v1/namespaces/shop/tables/cdc_orders").await;
    let first: Value = first.json().await.unwrap();
    let snapshots = first["metadata"]["snapshots"].as_array().unwrap();
    let tagged = &set["tables"][0]["snapshot"];
    let tagged = snapshots.iter().find(|it| it["snapshot-id"] == *tagged).unwrap();
    assert_eq!(tagged["summary"]["icecore.applied-seq"], "3");

    let (status, set) =
        tag(&server, json!({ "name": "six", "at": 6, "retain_ms": 3_600_000 })).await;
    assert_eq!((status, &set["seq"]), (201, &json!(6)), "{set}");
    for (body, expected) in [
        (json!({ "name": "none", "at": "seq:2" }), 404),
        (json!({ "name": "none", "at": "seq:99" }), 404),
        (json!({ "name": "none", "at": "branch:trial" }), 400),
        (json!({ "name": "none", "at": "~1" }), 400),
        (json!({ "name": "none", "at": true }), 400),
        (json!({ "name": "none", "retain_ms": 0 }), 400),
        (json!({ "name": "daily-2026-11-20" }), 400),
        (json!({ "name": "17" }), 400),
        (json!({ "name": "before-five" }), 400),
        (json!({ "nam": "x" }), 400),
    ] {
        let (status, refused) = tag(&server, body.clone()).await;
        assert_eq!(status, expected, "{body}: {refused}");
    }
    assert_eq!(refs(&server, "events").await, ["six", "up-to-five"]);
    let (status, set) = tag(&server, json!({ "name": "all", "at": "branch:main" })).await;
    assert_eq!(status, 201, "{set}");
    server.stop().await;
}

async fn run(server: &TestServer, parameters: &str) -> JobReport {
    let path = format!("/admin/jobs/tags{parameters}");
    let answer = server.post(&path, "application/json", "").await;
    let (status, text) = (answer.status(), answer.text().await.unwrap());
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

const DAYS: &[(&str, &str)] = &[
    ("collections.daily_tags", "2"),
    ("collections.monthly_tags", "1"),
    ("compaction.enabled", "off"),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_day_has_a_tag_and_the_oldest_of_the_service_go() {
    let clock = Clock::manual(NOW_MS);
    let server = TestServer::start_at(tempfile::tempdir().unwrap(), DAYS, clock.clone()).await;
    send(&server, &[change("c", 1, 1)]).await;
    server.commit("shop").await;
    // Somebody's own, of an earlier day, with a name as the service gives them.
    let own = json!({ "name": "daily-2026-09-01", "type": "tag" });
    assert_eq!(server.call(Method::POST, "/v1/shop/tables/events/refs", &own).await.0, 200);
    assert_eq!(run(&server, "?dry_run=true").await.tables, 1);
    let done = run(&server, "").await;
    assert_eq!((done.tables, done.errors, done.skipped.len()), (2, 0, 0), "{done:?}");
    let first = ["daily-2026-09-21", "monthly-2026-09"];
    assert_eq!(refs(&server, "cdc_orders").await, first);
    assert_eq!(run(&server, "").await.tables, 0, "once a day");

    // What came later on the day is not of its tag, and the tag of the next one has it.
    send(&server, &[change("u", 1, 2)]).await;
    clock.advance_ms(DAY_MS);
    assert_eq!(run(&server, "?namespace=shop").await.tables, 2);
    assert_eq!(version_at(&server, "tag:daily-2026-09-21").await, json!(1));
    assert_eq!(version_at(&server, "tag:daily-2026-09-22").await, json!(2));

    // A day without the server has none, and the oldest goes by number.
    let folder = server.stop().await;
    clock.advance_ms(10 * DAY_MS);
    let server = TestServer::start_at(folder, DAYS, clock.clone()).await;
    assert_eq!(run(&server, "").await.tables, 2);
    let kept = ["daily-2026-09-22", "daily-2026-10-02", "monthly-2026-10"];
    assert_eq!(refs(&server, "cdc_orders").await, kept);
    let own = ["daily-2026-09-01", "daily-2026-09-22", "daily-2026-10-02", "monthly-2026-10"];
    assert_eq!(refs(&server, "events").await, own);

    // One that was dropped does not come again.
    let path = "/v1/shop/tags/daily-2026-10-02";
    assert_eq!(server.call(Method::DELETE, path, &json!({})).await.0, 200);
    assert_eq!(run(&server, "").await.tables, 0);
    // A hold keeps those that would go.
    assert_eq!(server.call(Method::PUT, "/v1/shop/holds/case", &json!({})).await.0, 200);
    for _ in 0..2 {
        clock.advance_ms(DAY_MS);
        assert_eq!(run(&server, "").await.tables, 2);
    }
    let held = ["daily-2026-09-22", "daily-2026-10-03", "daily-2026-10-04", "monthly-2026-10"];
    assert_eq!(refs(&server, "cdc_orders").await, held);
    let skipped = run(&server, "?namespace=shop&table=events").await.skipped;
    assert!(skipped[0].reason.contains("of all tables"), "{skipped:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_has_no_tags_of_a_day_before_its_erasure_ends() {
    let clock = Clock::manual(NOW_MS);
    let crons = [("retention.cron", ""), ("dead_letters.cron", ""), ("expire.cron", "")];
    let settings = [DAYS, &crons].concat();
    let server = TestServer::start_at(tempfile::tempdir().unwrap(), &settings, clock.clone()).await;
    let of_subject = json!({"id": "ann-1", "type": "t", "ns": "shop", "user_id": "ann"});
    send(&server, &[change("c", 1, 1), of_subject]).await;
    server.commit("shop").await;
    let erasure = begin(&server, "ann").await;
    reach(&server, &erasure, ErasureStatus::Files).await;
    let waiting = run(&server, "").await;
    assert_eq!((waiting.tables, waiting.errors), (0, 1), "{waiting:?}");
    assert!(waiting.skipped[0].reason.contains("an erasure goes on"), "{waiting:?}");
    assert_eq!(refs(&server, "events").await, Vec::<String>::new());

    // The files have had the time that is left to their readers.
    clock.advance_ms(11 * 60_000);
    reach(&server, &erasure, ErasureStatus::Done).await;
    assert_eq!(run(&server, "").await.tables, 2);
    for table in ["cdc_orders", "events"] {
        assert_eq!(refs(&server, table).await, ["daily-2026-09-21", "monthly-2026-09"]);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_job_sets_the_tags_of_a_day_by_itself() {
    let settings = [("collections.refresh_interval", "1s"), DAYS[0], DAYS[1]];
    let clock = Clock::manual(NOW_MS);
    let server = TestServer::start_at(tempfile::tempdir().unwrap(), &settings, clock.clone()).await;
    send(&server, &[change("c", 1, 1)]).await;
    server.commit("shop").await;
    for expected in [1, 2] {
        while version_at(&server, &format!("tag:daily-2026-09-2{expected}")).await != json!(1) {
            // Behind a jump of the clock the lease of the job is waited for, in time that passes.
            clock.advance_ms(1_000);
        }
        clock.advance_ms(DAY_MS);
    }
    server.stop().await;
}

/// Sends events in a request with this name; gives how many were there before.
async fn send_named(server: &TestServer, name: &str, body: &Value) -> Value {
    let request = server.http.post(format!("{}/ingest", server.url));
    let answer = request.header("x-request-id", name).json(body).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["x-request-id"], name);
    answer.json::<Value>().await.unwrap()["duplicates"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_found_by_the_name_that_its_client_gave_it() {
    let server = TestServer::start().await;
    send_named(&server, "good", &json!([change("c", 1, 1)])).await;
    send_named(&server, "bad", &json!([change("u", 1, 2), change("u", 1, 3)])).await;
    assert_eq!(version_at(&server, "before:bad").await, json!(1));
    // The same events under another name are duplicates, and keep the first one.
    assert_eq!(send_named(&server, "again", &json!([change("u", 1, 2)])).await, 1);
    let path = "/v1/shop/collections/orders/docs/k-1?at=before:again";
    assert_eq!(server.get(path).await.status(), 404);

    // A batch that has an id of its own keeps that, and no id of an event follows from the name of a request.
    let batch = json!({ "batchId": "b-1", "events": [{ "type": "t", "ns": "shop" }] });
    send_named(&server, "named", &batch).await;
    assert_eq!(send_named(&server, "other", &batch).await, 1);
    let single = json!([{ "type": "t", "ns": "shop" }]);
    assert_eq!(send_named(&server, "twice", &single).await, 0);
    assert_eq!(send_named(&server, "twice", &single).await, 0);
    send(&server, &[json!({ "type": "t", "ns": "shop" })]).await;
    let ids = server.rows("shop", "SELECT batch_id FROM events ORDER BY seq").await;
    assert_eq!(ids, json!([["good"], ["bad"], ["bad"], ["b-1"], ["twice"], ["twice"], [null]]));
    server.stop().await;
}
