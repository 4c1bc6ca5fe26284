//! Every acknowledged id is in the table exactly once, whatever is repeated, committed or restarted.

use crate::harness::{TestServer, events};
use serde_json::json;

const COUNT: &str = "SELECT count(*), count(DISTINCT id), min(seq), max(seq) FROM events";

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_batch_is_a_success_that_adds_nothing() {
    let server = TestServer::start().await;
    let (status, reply) = server.ingest(&events(0..100)).await;
    assert_eq!((status, &reply["seq"]), (200, &json!({ "first": 1, "last": 100 })), "{reply}");
    let (status, reply) = server.ingest(&events(50..150)).await;
    assert_eq!(status, 200);
    assert_eq!(reply["duplicates"], 50);
    assert_eq!(reply["seq"], json!({ "first": 51, "last": 150 }));
    assert_eq!(server.rows("shop.example", COUNT).await, json!([[150, 150, 1, 150]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_remembered_across_commit_and_restart() {
    let server = TestServer::start().await;
    server.ingest(&events(0..10)).await;
    server.commit("shop.example").await;
    server.ingest(&events(10..20)).await;
    let server = server.restart().await;
    let (_, reply) = server.ingest(&events(0..25)).await;
    assert_eq!(
        (&reply["duplicates"], &reply["seq"]),
        (&json!(20), &json!({ "first": 1, "last": 25 })),
        "{reply}"
    );
    assert_eq!(server.rows("shop.example", COUNT).await, json!([[25, 25, 1, 25]]));
    server.commit("shop.example").await;
    let server = server.restart().await;
    assert_eq!(server.rows("shop.example", COUNT).await, json!([[25, 25, 1, 25]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_with_other_content_is_a_conflict_and_kept_as_a_dead_letter() {
    let server = TestServer::start().await;
    let event = |n: u32| json!({ "events": [{ "id": "a", "type": "t", "ns": "shop.example", "data": { "n": n } }] });
    server.ingest(&event(1)).await;
    let server = server.restart().await;
    let (status, reply) = server.ingest(&event(2)).await;
    assert_eq!(
        (status, &reply["errors"][0]["status"], &reply["errors"][0]["code"]),
        (400, &json!("conflict"), &json!("CONFLICT")),
        "{reply}"
    );
    let letters = server.rows("shop.example", "SELECT reason, event_id FROM dead_letters").await;
    assert_eq!(letters, json!([["CONFLICT", "a"]]));
    assert_eq!(
        server.rows("shop.example", "SELECT data FROM events").await,
        json!([["{\"n\":1}"]])
    );
    server.stop().await;
}

/// Sends one event as it is written.
async fn send_text(server: &TestServer, text: &str) -> (u16, serde_json::Value) {
    let response = server.post("/ingest", "application/json", text.to_owned()).await;
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_written_in_another_way_is_a_repeat() {
    let server = TestServer::start().await;
    let first = r#"{"id":"a","type":"t","actor":"caf\u00e9","ts":"2026-11-28T20:00:00Z","version":3,"data":{"n":1,"list":[1,2.5],"o":{"x":1,"y":null}}}"#;
    let path = "/ingest?backfill=true";
    let send = async |text: &str| {
        let response = server.post(path, "application/json", text.to_owned()).await;
        let status = response.status().as_u16();
        (status, response.json::<serde_json::Value>().await.unwrap())
    };
    assert_eq!(send(first).await.0, 200);
    for _ in 0..2 {
        for again in [
            r#"{"id":"a","type":"t","actor":"café","ts":"2026-11-28T20:00:00Z","version":3,"data":{"n":1,"list":[1,2.5],"o":{"x":1,"y":null}}}"#,
            r#"{"id":"a","type":"t","actor":"café","ts":"2026-11-28T20:00:00Z","version":3,"data":{ "o" : {"y":null, "x":1.0}, "list":[1.0, 25e-1],"n":1E0 }}"#,
            r#"{"\u0069d":"a","type":"t","actor":"café","ts":1795896000,"version":3.0,"data":{"n":1,"list":[1,2.5],"o":{"x":1}}}"#,
            r#"{"id":"a","type":"t","actor":"café","ts":"2026-11-28T20:00:00Z","version":3,"sentAt":"2026-11-28T20:00:01Z","other":null,"data":{"n":1,"list":[1,2.5],"o":{"x":1,"y":null}}}"#,
        ] {
            let (status, reply) = send(again).await;
            assert_eq!((status, &reply["duplicates"]), (200, &json!(1)), "{again}: {reply}");
        }
        for other in [
            r#"{"id":"a","type":"t","actor":"café","ts":"2026-11-28T20:00:00Z","version":3,"data":{"n":2,"list":[1,2.5],"o":{"x":1,"y":null}}}"#,
            r#"{"id":"a","type":"t","actor":"café","ts":"2026-11-28T20:00:00Z","version":3,"data":{"n":1,"list":[2.5,1],"o":{"x":1,"y":null}}}"#,
            r#"{"id":"a","type":"t","actor":"café","ts":"2026-11-28T20:00:01Z","version":3,"data":{"n":1,"list":[1,2.5],"o":{"x":1,"y":null}}}"#,
            r#"{"id":"a","type":"t","actor":"café","ts":"2026-11-28T20:00:00Z","version":3,"data":{"n":"1","list":[1,2.5],"o":{"x":1,"y":null}}}"#,
            r#"{"id":"a","type":"t","actor":"café","ts":"2026-11-28T20:00:00Z","version":3,"more":1,"data":{"n":1,"list":[1,2.5],"o":{"x":1}}}"#,
            r#"{"id":"a","type":"t","ts":"2026-11-28T20:00:00Z","version":3,"data":{"n":1,"list":[1,2.5],"o":{"x":1}}}"#,
        ] {
            let (status, reply) = send(other).await;
            assert_eq!(status, 400, "{other}: {reply}");
            assert_eq!(reply["errors"][0]["code"], "CONFLICT", "{other}");
        }
        server.commit("default").await;
    }
    let rows = server.rows("default", "SELECT count(*) FROM events").await;
    assert_eq!(rows, json!([[1]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_that_was_only_the_arrival_is_not_compared() {
    let server = TestServer::start().await;
    let plain = |id: &str| format!(r#"{{"id":"{id}","type":"t","data":{{"n":1}}}}"#);
    // As `wal export` writes it.
    let exported = |id: &str| {
        let ts = r#""2026-11-28T20:00:00Z""#;
        format!(r#"{{"id":"{id}","type":"t","ts":{ts},"ns":"default","data":{{"n":1}}}}"#)
    };
    let send = async |text: String| {
        let response = server.post("/ingest?backfill=true", "application/json", text).await;
        response.json::<serde_json::Value>().await.unwrap()
    };
    let whole = |text: String| text.replace("\"data\"", "\"more\"");
    for (first, again) in [
        (plain("a"), exported("a")),
        (exported("b"), plain("b")),
        (whole(plain("c")), whole(exported("c"))),
        (whole(exported("d")), whole(plain("d"))),
    ] {
        assert_eq!(send(first).await["duplicates"], 0);
        let reply = send(again.clone()).await;
        assert_eq!(reply["duplicates"], 1, "{again}: {reply}");
    }
    for other in [exported("b"), whole(exported("d"))] {
        let reply = send(other.replace("20:00:00", "20:00:01")).await;
        assert_eq!(reply["errors"][0]["code"], "CONFLICT", "{other}: {reply}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_repeated_members_the_last_one_is_compared() {
    let server = TestServer::start().await;
    for (number, (first, again, other)) in [
        (r#""type":"a","type":"b""#, r#""type":"b""#, r#""type":"b","type":"a""#),
        (
            r#""type":"t","actor":"x","actor":"y""#,
            r#""actor":"y","type":"t""#,
            r#""actor":"y","actor":"x","type":"t""#,
        ),
        (
            r#""type":"t","data":{"a":1,"a":2}"#,
            r#""type":"t","data":{"a":2}"#,
            r#""type":"t","data":{"a":2,"a":1}"#,
        ),
        (
            r#""type":"t","more":[{"a":1,"b":0,"a":2}]"#,
            r#""type":"t","more":[{"b":0,"a":2}]"#,
            r#""type":"t","more":[{"a":2,"b":0,"a":1}]"#,
        ),
        (
            r#""type":"t","more":1,"more":2"#,
            r#""type":"t","mor\u0065":2"#,
            r#""type":"t","more":2,"more":1"#,
        ),
        (
            r#""type":"t","data":{"a":1},"data":null"#,
            r#""type":"t""#,
            r#""type":"t","data":null,"data":{"a":1}"#,
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let event = |members: &str| format!("{{\"id\":\"{number}\",{members}}}");
        assert_eq!(send_text(&server, &event(first)).await.0, 200);
        for _ in 0..2 {
            for same in [first, again] {
                let (status, reply) = send_text(&server, &event(same)).await;
                assert_eq!((status, &reply["duplicates"]), (200, &json!(1)), "{same}: {reply}");
            }
            let (_, reply) = send_text(&server, &event(other)).await;
            assert_eq!(reply["errors"][0]["code"], "CONFLICT", "{other}: {reply}");
            server.commit("default").await;
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_whole_event_and_one_of_the_same_body_are_compared_too() {
    let server = TestServer::start().await;
    let body = r#"[{"id":"b","type":"t","extra":{"n":1}},{"id":"b","type":"t","extra":{"n":1.0}},{"id":"c","type":"t"},{"id":"b","type":"t","extra":{"n":2}}]"#;
    let (status, reply) = send_text(&server, body).await;
    assert_eq!((status, &reply["duplicates"]), (207, &json!(1)), "{reply}");
    assert_eq!(reply["errors"].as_array().unwrap().len(), 1, "{reply}");
    assert_eq!(reply["errors"][0]["index"], 3, "{reply}");
    let (status, reply) = send_text(&server, r#"{"extra":{"n":10e-1},"type":"t","id":"b"}"#).await;
    assert_eq!((status, &reply["duplicates"]), (200, &json!(1)), "{reply}");
    let (status, reply) =
        send_text(&server, r#"[{"id":"d","type":"t"},{"id":"b","type":"t"}]"#).await;
    assert_eq!((status, &reply["duplicates"]), (207, &json!(0)), "{reply}");
    let rows = server.rows("default", "SELECT id, seq FROM events ORDER BY seq").await;
    assert_eq!(rows, json!([["b", 1], ["c", 2], ["d", 3]]), "numbers are given once");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_senders_of_the_same_events_add_each_once() {
    let server = std::sync::Arc::new(TestServer::start().await);
    let first = |sender: u32, step: u32| (sender * 7 + step * 13) % 200;
    let sends = (0..8).map(|sender: u32| {
        let server = std::sync::Arc::clone(&server);
        async move {
            for step in 0..10 {
                let from = first(sender, step);
                let (status, reply) = server.ingest(&events(from..from + 100)).await;
                assert_eq!(status, 200, "{reply}");
            }
        }
    });
    futures::future::join_all(sends).await;
    let starts = (0..8).flat_map(|sender| (0..10).map(move |step| first(sender, step)));
    let sent: std::collections::BTreeSet<u32> = starts.flat_map(|from| from..from + 100).collect();
    let sql = "SELECT count(*), count(DISTINCT id), count(DISTINCT seq) FROM events";
    let expected = json!([[sent.len(), sent.len(), sent.len()]]);
    assert_eq!(server.rows("shop.example", sql).await, expected);
    server.commit("shop.example").await;
    assert_eq!(server.rows("shop.example", sql).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_acknowledges_nothing_and_the_next_send_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start_in(folder, &[("failpoints", "wal.after_write=error@1")]).await;
    assert_eq!(server.ingest(&events(0..5)).await.0, 200);
    let (status, _) = server.ingest(&events(5..10)).await;
    assert_eq!(status, 503);
    assert_eq!(
        server.rows("shop.example", "SELECT count(*) FROM events").await,
        json!([[5]]),
        "reads go on"
    );
    assert_eq!(server.ingest(&events(5..10)).await.0, 200);
    let server = server.restart().await;
    assert_eq!(
        server.rows("shop.example", "SELECT count(*), count(DISTINCT id) FROM events").await,
        json!([[10, 10]])
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_that_fails_anywhere_is_repeated_without_a_double() {
    for point in [
        "flush.before_write",
        "flush.after_data_file",
        "flush.before_commit",
        "flush.after_commit",
        "flush.before_trim",
    ] {
        let server = TestServer::start_in(
            tempfile::tempdir().unwrap(),
            &[("failpoints", &format!("{point}=error"))],
        )
        .await;
        server.ingest(&events(0..40)).await;
        // The first commit may answer 503; what it was to commit is safe.
        server.post("/v1/shop.example/commit", "application/json", "").await;
        server.commit("shop.example").await;
        server.ingest(&events(20..60)).await;
        server.commit("shop.example").await;
        assert_eq!(server.rows("shop.example", COUNT).await, json!([[60, 60, 1, 60]]), "{point}");
        let server = server.restart().await;
        assert_eq!(
            server.rows("shop.example", COUNT).await,
            json!([[60, 60, 1, 60]]),
            "{point} after a restart"
        );
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_as_an_id_is_one_id_however_it_is_written() {
    let server = TestServer::start().await;
    let mut duplicates = Vec::new();
    for id in ["10", "1e1", "10.0", "\"10\"", "1.50", "15e-1"] {
        let body = format!("{{\"id\":{id},\"type\":\"t\"}}");
        let sent = server.http.post(format!("{}/ingest", server.url)).body(body).send().await;
        let reply: serde_json::Value = sent.unwrap().json().await.unwrap();
        assert_eq!(reply["ok"], true, "{id}: {reply}");
        duplicates.push(reply["duplicates"].as_u64().unwrap());
    }
    assert_eq!(duplicates, [0, 1, 1, 1, 0, 1]);
    let ids = server.rows("default", "SELECT id FROM events ORDER BY seq").await;
    assert_eq!(ids, json!([["10"], ["1.5"]]));
    server.stop().await;
}
