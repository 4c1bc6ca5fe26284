//! What a sender may rely on: replies, limits, formats, errors.

use crate::harness::{TestServer, events};
use serde_json::{Value, json};
use std::io::Write;

#[tokio::test(flavor = "multi_thread")]
async fn good_events_of_a_mixed_batch_are_taken_and_bad_ones_kept_whole() {
    let server = TestServer::start().await;
    let body = json!({ "events": [
        { "id": "1", "type": "ok", "data": { "x": 1 } },
        { "id": "2", "data": { "x": 2 } },
        { "id": "3", "type": "ok", "ts": "yesterday-ish" },
        { "id": "4", "type": "ok", "ts": "2001-01-01T00:00:00Z" },
        { "id": "", "type": "ok", "after": "not an object" },
        { "type": "ok" },
    ] });
    let (status, reply) = server.ingest(&body).await;
    assert_eq!(status, 207, "{reply}");
    let codes: Vec<&str> = reply["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["code"].as_str().unwrap())
        .collect();
    assert_eq!(codes, ["MISSING_TYPE", "INVALID_TIMESTAMP", "TS_WINDOW", "INVALID_EVENT"]);
    assert_eq!(
        (&reply["ok"], &reply["received"], &reply["seq"]["last"]),
        (&json!(false), &json!(6), &json!(2))
    );
    let letters = server
        .rows("default", "SELECT event_id, reason, payload FROM dead_letters ORDER BY event_id")
        .await;
    assert_eq!(letters.as_array().unwrap().len(), 4);
    let kept: Value = serde_json::from_str(letters[2][2].as_str().unwrap()).unwrap();
    assert_eq!(kept, json!({ "id": "4", "type": "ok", "ts": "2001-01-01T00:00:00Z" }));
    server.commit("default").await;
    assert_eq!(
        letters,
        server
            .rows("default", "SELECT event_id, reason, payload FROM dead_letters ORDER BY event_id")
            .await
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_atomic_batch_is_all_or_nothing() {
    let server = TestServer::start().await;
    let body = json!({ "events": [{ "id": "1", "type": "ok" }, { "id": "2" }] });
    let (status, reply) = server.ingest_at("/ingest?atomic=true", &body).await;
    assert_eq!((status, &reply["errors"][0]["code"]), (400, &json!("BATCH_ABORTED")), "{reply}");
    assert_eq!(reply["errors"][1]["code"], "MISSING_TYPE", "{reply}");
    let body = json!([{ "id": "2", "type": "a" }, { "id": "2", "type": "b" }]);
    let (_, reply) = server.ingest_at("/ingest?atomic=true", &body).await;
    let codes = [&reply["errors"][0]["code"], &reply["errors"][1]["code"]];
    assert_eq!(codes, ["BATCH_ABORTED", "CONFLICT"], "{reply}");
    assert!(!reply["errors"][1]["reason"].as_str().unwrap().contains("seq"), "none was given");
    let (status, _) =
        server.ingest_at("/ingest?atomic=true", &json!([{ "id": "1", "type": "ok" }])).await;
    assert_eq!(status, 200);
    assert_eq!(server.rows("default", "SELECT count(*) FROM events").await, json!([[1]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_body_format_lands() {
    let server = TestServer::start().await;
    let ndjson = "{\"type\":\"a\"}\n\n{\"type\":\"b\"}\n";
    let cloud = json!({ "specversion": "1.0", "id": "c1", "source": "/s", "type": "com.example.c", "data": { "k": 1 } });
    let debezium = json!({ "before": null, "after": { "id": 7 }, "op": "c", "ts_ms": null, "source": { "db": "shop", "table": "orders", "lsn": 9 } });
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(ndjson.as_bytes()).unwrap();
    let ok = |response: reqwest::Response| assert_eq!(response.status(), 200);
    ok(server.post("/ingest", "application/x-ndjson", ndjson).await);
    ok(server.post("/e", "application/json", json!({ "type": "one" }).to_string()).await);
    ok(server.post("/ingest", "application/cloudevents+json", cloud.to_string()).await);
    ok(server
        .post("/ingest", "application/cloudevents-batch+json", json!([cloud]).to_string())
        .await);
    ok(server.post("/ingest", "application/json", debezium.to_string()).await);
    let request = server
        .http
        .post(format!("{}/ingest", server.url))
        .header("content-type", "application/x-ndjson");
    ok(request
        .header("content-encoding", "gzip")
        .body(gzip.finish().unwrap())
        .send()
        .await
        .unwrap());
    let request = server
        .http
        .post(format!("{}/ingest", server.url))
        .header("content-type", "application/x-ndjson");
    ok(request
        .header("content-encoding", "zstd")
        .body(zstd::encode_all(ndjson.as_bytes(), 1).unwrap())
        .send()
        .await
        .unwrap());
    let request = server
        .http
        .post(format!("{}/ingest", server.url))
        .header("content-type", "application/json");
    let request = request
        .header("ce-specversion", "1.0")
        .header("ce-id", "b1")
        .header("ce-source", "/s")
        .header("ce-type", "binary");
    ok(request.body("{\"k\":2}").send().await.unwrap());
    let rows = server
        .rows("default", "SELECT type, count(*) FROM events GROUP BY type ORDER BY type")
        .await;
    assert_eq!(
        rows,
        json!([
            ["a", 3],
            ["b", 3],
            ["binary", 1],
            ["cdc.insert", 1],
            ["com.example.c", 1],
            ["one", 1]
        ])
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_cannot_be_taken_says_what_to_change() {
    let server =
        TestServer::start_in(tempfile::tempdir().unwrap(), &[("ingest.body_bytes_max", "64KiB")])
            .await;
    let check = async |path: &str, content_type: &str, body: String, status: u16, code: &str| {
        let response = server.post(path, content_type, body).await;
        assert_eq!(response.status().as_u16(), status, "{path} {content_type}");
        assert!(response.headers().contains_key("x-request-id"));
        let reply: Value = response.json().await.unwrap();
        let found = reply["code"].as_str().or(reply["errors"][0]["code"].as_str());
        assert_eq!(found, Some(code), "{reply}");
    };
    check("/ingest", "application/json", "{\"events\":[".to_owned(), 400, "INVALID_JSON").await;
    check("/ingest", "image/png", "x".to_owned(), 415, "UNSUPPORTED_MEDIA_TYPE").await;
    check("/ingest", "application/json", "x".repeat(70_000), 413, "BODY_TOO_LARGE").await;
    check("/ingest?acks=1", "application/json", "{}".to_owned(), 400, "INVALID_REQUEST").await;
    check("/nowhere", "application/json", "{}".to_owned(), 404, "NOT_FOUND").await;
    let twice = server.http.post(format!("{}/ingest", server.url)).body("{\"type\":\"a\"}");
    let twice = twice.header("x-namespace", "a").header("x-namespace", "b").send().await.unwrap();
    assert_eq!(twice.status(), 400);
    let reply: Value = twice.json().await.unwrap();
    assert_eq!(reply["code"], "INVALID_REQUEST", "{reply}");
    check(
        "/v1/default/sql",
        "application/json",
        "{\"sql\":\"DROP TABLE events\"}".to_owned(),
        400,
        "INVALID_SQL",
    )
    .await;
    let long = format!("{{\"type\":\"{}\"}}", "x".repeat(70_000)).into_bytes();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&long).unwrap();
    let zstd = zstd::encode_all(&long[..], 1).unwrap();
    for (encoding, body) in [("gzip", gzip.finish().unwrap()), ("zstd", zstd)] {
        assert!(body.len() < 4096, "short as it is sent");
        let request = server.http.post(format!("{}/ingest", server.url)).body(body);
        let response = request.header("content-encoding", encoding).send().await.unwrap();
        assert_eq!(response.status(), 413, "{encoding}");
    }
    let response = server.post("/ingest", "application/json", "x".repeat(70_000)).await;
    assert_eq!(response.headers()["connection"], "close", "the rest of the body is not read");
    let response = server.get("/ingest").await;
    assert_eq!(response.status(), 405);
    assert_eq!(response.headers()["allow"], "POST,OPTIONS", "the handshake of CloudEvents is one");
    let letters = server.rows("default", "SELECT payload FROM dead_letters").await;
    assert_eq!(letters, json!([["{\"events\":["]]), "even a body that does not parse is kept");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ack_of_committed_names_the_snapshot_that_has_the_events() {
    let server = TestServer::start().await;
    let (status, reply) = server.ingest_at("/ingest?ack=committed", &events(0..10)).await;
    assert_eq!(status, 200, "{reply}");
    let snapshot = &reply["snapshot"];
    assert!(snapshot.is_i64(), "{reply}");
    let (_, answer) = server
        .query("shop.example", &json!({ "sql": "SELECT count(*) FROM events", "as_of": snapshot }))
        .await;
    assert_eq!(answer["rows"], json!([[10]]), "{answer}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_health_tables_and_snapshots() {
    let server = TestServer::start().await;
    server.ingest(&events(0..10)).await;
    server.commit("shop.example").await;
    for path in ["/healthz", "/readyz", "/metrics", "/version", "/openapi.json", "/v1/namespaces"] {
        assert_eq!(server.get(path).await.status(), 200, "{path}");
    }
    let tables: Value = server.get("/v1/shop.example/tables").await.json().await.unwrap();
    assert_eq!(
        (&tables["tables"][0]["name"], &tables["tables"][0]["records"]),
        (&json!("events"), &json!(10)),
        "{tables}"
    );
    let snapshots: Value =
        server.get("/v1/shop.example/tables/events/snapshots").await.json().await.unwrap();
    assert_eq!(
        (&snapshots["snapshots"][0]["first_seq"], &snapshots["snapshots"][0]["last_seq"]),
        (&json!(1), &json!(10))
    );
    assert_eq!(server.get("/v1/nobody/tables").await.status(), 404);
    server.stop().await;
}
