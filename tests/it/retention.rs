//! Rows and snapshots that go for their age, run by hand: what queries, earlier snapshots, the ids and the
//! dead letters show then, and the legal holds that forbid it.

use crate::harness::{TestServer, rfc3339};
use icecore_lake::clock::Clock;
use icecore_schemas::{
    holds::{HoldEntry, HoldList},
    jobs::JobReport,
};
use serde_json::{Value, json};

/// 2026-09-21 14:13 UTC.
const NOW_MS: i64 = 1_790_000_000_000;
const DAY_MS: i64 = 86_400_000;
/// Nothing goes by itself.
const SETTINGS: &[(&str, &str)] = &[
    ("retention.events", "webhook.*=30d"),
    ("retention.cron", ""),
    ("dead_letters.cron", ""),
    ("expire.cron", ""),
    ("compaction.enabled", "off"),
];

async fn start(clock: &Clock) -> TestServer {
    TestServer::start_at(tempfile::tempdir().unwrap(), SETTINGS, clock.clone()).await
}

async fn run(server: &TestServer, path: &str) -> JobReport {
    let answer = server.post(&format!("/admin/jobs/{path}"), "application/json", "").await;
    let status = answer.status();
    let text = answer.text().await.unwrap();
    assert_eq!(status, 200, "{path}: {text}");
    serde_json::from_str(&text).unwrap()
}

/// Sends events of these ids, types and ages in days; gives how many are duplicates.
async fn send(server: &TestServer, events: &[(&str, &str, i64)]) -> Value {
    let event = |(id, event_type, days): &(&str, &str, i64)| json!({ "id": id, "type": event_type, "ns": "shop", "ts": rfc3339(NOW_MS - days * DAY_MS) });
    let events: Vec<Value> = events.iter().map(event).collect();
    let (status, reply) =
        server.ingest_at("/ingest?backfill=true", &json!({ "events": events })).await;
    assert_eq!(status, 200, "{reply}");
    reply["duplicates"].clone()
}

const IDS: &str = "SELECT id FROM events ORDER BY id";

#[tokio::test(flavor = "multi_thread")]
async fn old_events_go_and_stay_readable_before_and_known_by_their_ids() {
    let clock = Clock::manual(NOW_MS);
    let server = start(&clock).await;
    let old = ("old", "webhook.github", 40);
    send(&server, &[old, ("new", "webhook.github", 1), ("other", "order.placed", 40)]).await;
    server.commit("shop").await;
    let dry = run(&server, "retention?dry_run=true").await;
    assert_eq!((dry.tables, dry.files.before, dry.rows), (1, 1, 1), "{dry:?}");
    assert_eq!(server.rows("shop", IDS).await, json!([["new"], ["old"], ["other"]]));
    let done = run(&server, "retention?namespace=shop&table=events").await;
    assert_eq!((done.job.as_str(), done.tables, done.files.before), ("retention", 1, 1));
    assert_eq!(server.rows("shop", IDS).await, json!([["new"], ["other"]]));
    // A point whose events went says so; the table of now lacks nothing.
    for (sql, inexact) in [
        (
            "SELECT id FROM events FOR SEQ AS OF 1000 ORDER BY id",
            json!(["events FOR SEQ AS OF 1000"]),
        ),
        ("SELECT id FROM events BETWEEN SEQ 900 AND 1000 ORDER BY id", Value::Null),
        (IDS, Value::Null),
    ] {
        let (_, answer) = server.query("shop", &json!({ "sql": sql })).await;
        assert_eq!(answer["basis"]["inexact"], inexact, "{sql}: {answer}");
        let request = json!({ "sql": sql, "basis": answer["basis"] });
        assert_eq!(server.query("shop", &request).await.1["rows"], answer["rows"], "{sql}");
    }

    let listed: Value = server.get("/v1/shop/tables/events/snapshots").await.json().await.unwrap();
    let listed = listed["snapshots"].as_array().unwrap();
    assert_eq!(listed[0]["operation"], "delete", "{listed:?}");
    let then = listed.last().unwrap()["snapshot_str"].clone();
    let (status, answer) = server.query("shop", &json!({ "sql": IDS, "as_of": then })).await;
    assert_eq!((status, &answer["rows"]), (200, &json!([["new"], ["old"], ["other"]])));
    assert_eq!(send(&server, &[old]).await, 1, "its id is known as long as any other");

    // What is still in the log stays until it is in the table.
    send(&server, &[("late", "webhook.stripe", 35)]).await;
    assert_eq!(run(&server, "retention").await.files.before, 0);
    assert_eq!(server.rows("shop", IDS).await, json!([["late"], ["new"], ["other"]]));
    server.commit("shop").await;
    assert_eq!(run(&server, "retention").await.files.before, 1);
    assert_eq!(server.rows("shop", IDS).await, json!([["new"], ["other"]]));

    // After three months without a commit one snapshot is left.
    clock.advance_ms(100 * DAY_MS);
    assert_eq!(run(&server, "expire?namespace=shop").await.tables, 1);
    let listed: Value = server.get("/v1/shop/tables/events/snapshots").await.json().await.unwrap();
    assert_eq!(listed["snapshots"].as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(server.rows("shop", IDS).await, json!([["new"], ["other"]]));

    // What went is accounted for although nothing has it any more.
    let audit = server.post("/v1/shop/audit/events", "application/json", "").await;
    let audit: Value = audit.json().await.unwrap();
    let of_events = &audit["tables"]["events"];
    assert!(audit["agrees"] == true && of_events["begins"] == false, "{audit}");
    assert_eq!(
        (&of_events["removed"]["rows"], &of_events["acked"]["rows"]),
        (&json!(2), &json!(4))
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bookmark_whose_event_went_is_gone_and_one_that_never_was_is_not_found() {
    let clock = Clock::manual(NOW_MS);
    let server = start(&clock).await;
    // As the server makes them: of the event with this `seq`.
    let minted = "00000000-00000002-00000000-0000000000000000000000000000000a";
    let event = |id: &str, kind: &str, bookmark: &str| json!({ "id": id, "type": kind, "ns": "shop", "bookmark": bookmark, "ts": rfc3339(NOW_MS - 40 * DAY_MS) });
    let events = json!({ "events": [
        event("given", "webhook.github", "b-1"),
        event("minted", "webhook.github", minted),
        event("kept", "order.placed", "b-2"),
    ]});
    let (status, reply) = server.ingest_at("/ingest?backfill=true", &events).await;
    assert_eq!(status, 200, "{reply}");
    server.commit("shop").await;
    let at = async |bookmark: &str| {
        let sql = format!("SELECT count(*) FROM events FOR BOOKMARK AS OF '{bookmark}'");
        server.query("shop", &json!({ "sql": sql })).await
    };
    assert_eq!(at("b-1").await.1["rows"], json!([[1]]));
    assert_eq!(run(&server, "retention").await.rows, 2);
    assert_eq!(at("b-2").await.1["rows"], json!([[1]]));
    for bookmark in ["b-1", minted] {
        let (status, answer) = at(bookmark).await;
        assert_eq!((status, &answer["code"]), (410, &json!("GONE")), "{answer}");
        // There it can still be read.
        let as_of = &answer["details"]["nearest"][0];
        let sql = format!("SELECT count(*) FROM events WHERE bookmark = '{bookmark}'");
        let (_, then) = server.query("shop", &json!({ "sql": sql, "as_of": as_of })).await;
        assert_eq!(then["rows"], json!([[1]]), "{answer} {then}");
    }
    assert_eq!(at("never").await.0, 404);
    // One of a later event, and one of an event that is there.
    for seq in ["000000ff", "00000003"] {
        let other = minted.replace("00000000-00000002-", &format!("00000000-{seq}-"));
        assert_eq!(at(other.as_str()).await.0, 404, "{other}");
    }
    // Of the bookmarks of senders nothing is known once the earlier snapshots went.
    clock.advance_ms(100 * DAY_MS);
    run(&server, "expire?namespace=shop").await;
    assert_eq!((at(minted).await.0, at("b-1").await.0), (410, 404));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_shown_after_its_first_row_went() {
    let clock = Clock::manual(NOW_MS);
    let server = start(&clock).await;
    // Of a day to come: it is refused today, and taken later.
    let taken = format!(r#"{{"id":"t","type":"a","ts":"{}"}}"#, rfc3339(NOW_MS + 5 * DAY_MS));
    let mut ids = Vec::new();
    for body in [taken.as_str(), r#"{"id":"p"}"#, r#"{"id":"gone"}"#] {
        let answer = server.post("/ingest", "application/json", body.to_owned()).await;
        let reply: Value = answer.json().await.unwrap();
        let id = reply["errors"][0]["deadLetter"].as_str();
        ids.push(id.unwrap_or_else(|| panic!("no dead letter: {reply}")).to_owned());
    }
    server.commit("default").await;
    clock.advance_ms(25 * DAY_MS);
    let retried = json!({ "ids": &ids[..2] }).to_string();
    let path = "/v1/default/dead-letters/retry?backfill=true";
    let reply: Value = server.post(path, "application/json", retried).await.json().await.unwrap();
    assert_eq!((&reply["accepted"], &reply["rejected"]), (&json!(1), &json!(1)), "{reply}");
    server.commit("default").await;

    clock.advance_ms(7 * DAY_MS);
    let done = run(&server, "dead-letters").await;
    assert_eq!((done.job.as_str(), done.tables, done.files.before), ("dead-letters", 1, 1));
    let rows = "SELECT count(*), count(DISTINCT id) FROM dead_letters";
    assert_eq!(server.rows("default", rows).await, json!([[2, 2]]));
    for (id, body, status) in
        [(&ids[0], taken.as_str(), "redriven"), (&ids[1], r#"{"id":"p"}"#, "pending")]
    {
        let shown = server.get(&format!("/v1/default/dead-letters/{id}")).await;
        assert_eq!(shown.status(), 200, "{status}");
        let header = |name: &str| shown.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("x-icecore-status"), status);
        assert!(header("x-icecore-received-at").starts_with("2026-09-21T14:13:20"));
        assert_eq!(shown.text().await.unwrap(), body);
    }
    let gone = server.get(&format!("/v1/default/dead-letters/{}", ids[2])).await;
    assert_eq!(gone.status(), 404);
    server.stop().await;
}

async fn held(server: &TestServer, method: &str, name: &str, body: &'static str) -> (u16, Value) {
    let url = format!("{}/v1/shop/holds/{name}", server.url);
    let request = server.http.request(method.parse().unwrap(), url).body(body);
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_forbids_it_until_it_is_removed() {
    let clock = Clock::manual(NOW_MS);
    let server = start(&clock).await;
    assert_eq!(held(&server, "PUT", "case-7", "").await.0, 404, "there is no such namespace");
    send(&server, &[("old", "webhook.github", 40)]).await;
    server.commit("shop").await;

    let (status, set) = held(&server, "PUT", "case-7", "").await;
    let set: HoldEntry = serde_json::from_value(set).unwrap();
    let entry = |reason: Option<&str>| HoldEntry {
        namespace: "shop".to_owned(),
        name: "case-7".to_owned(),
        reason: reason.map(str::to_owned),
        since: rfc3339(NOW_MS),
    };
    assert_eq!((status, set), (200, entry(None)));
    clock.advance_ms(1_000);
    let (status, again) = held(&server, "PUT", "case-7", r#"{"reason":"court"}"#).await;
    assert_eq!(status, 200, "{again}");
    let listed: HoldList = server.get("/v1/shop/holds").await.json().await.unwrap();
    assert_eq!(listed.holds, [entry(Some("court"))], "it keeps its time");
    assert_eq!(server.get("/v1/nobody/holds").await.status(), 404);
    for (name, body) in [("a%20b", ""), ("x", r#"{"why":"court"}"#), ("x", "[]"), ("x", "court")] {
        let (status, refused) = held(&server, "PUT", name, body).await;
        assert_eq!(status, 400, "{name} {body}: {refused}");
    }

    let done = run(&server, "retention").await;
    assert_eq!((done.tables, done.skipped.len()), (0, 1));
    assert_eq!(done.skipped[0].reason, "the namespace `shop` is held by `case-7` (court)");
    assert_eq!(held(&server, "DELETE", "case-7", "").await.0, 200);
    assert_eq!(held(&server, "DELETE", "case-7", "").await.0, 404);
    assert_eq!(run(&server, "retention").await.tables, 1);
    server.stop().await;
}
