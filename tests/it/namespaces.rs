//! One namespace by both of its names: the text that its events carry, and the catalog's name.

use crate::{access::Guarded, harness::TestServer};
use icecore_catalog::metastore::{Metastore, Properties};
use reqwest::{Method, header::HeaderValue};
use serde_json::{Value, json};

async fn send(server: &TestServer, namespace: &str, ids: std::ops::Range<u32>) -> (u16, Value) {
    let events: Vec<Value> = ids.map(|n| json!({"id": format!("e{n}"), "type": "t"})).collect();
    let request = server.http.post(format!("{}/ingest", server.url));
    let response = request.header("x-namespace", namespace).json(&events).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

/// Both names, answered alike by every route that reads.
async fn check_reads(server: &TestServer, rows: u32, tables: &[&str]) {
    for name in ["acme.example", "acme_example", "ACME.example"] {
        let found = server.rows(name, "SELECT count(*), min(ns) FROM events").await;
        assert_eq!(found, json!([[rows, "acme.example"]]), "{name}");
        let (status, listed) =
            server.call(Method::GET, &format!("/v1/{name}/tables"), &json!({})).await;
        assert_eq!(status, 200, "{name}: {listed}");
        let listed = listed["tables"].as_array().unwrap();
        assert_eq!(
            listed.iter().map(|table| table["name"].as_str().unwrap()).collect::<Vec<_>>(),
            tables,
            "{name}"
        );
        let path = format!("/v1/{name}/tables/events/snapshots");
        let (status, snapshots) = server.call(Method::GET, &path, &json!({})).await;
        assert_eq!(status, 200, "{name}: {snapshots}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_names_of_a_namespace_mean_it_before_and_after_its_first_commit() {
    let server = TestServer::start().await;
    assert_eq!(server.call(Method::GET, "/v1/acme_example/tables", &json!({})).await.0, 404);
    assert_eq!(send(&server, "acme.example", 0..3).await.0, 200);
    check_reads(&server, 3, &["events"]).await;
    let (_, listed) = server.call(Method::GET, "/v1/namespaces", &json!({})).await;
    let entry = json!({"name": "acme_example", "levels": ["acme_example"], "ns": "acme.example"});
    assert_eq!(listed, json!({ "namespaces": [entry] }));
    for (method, path, missing) in [
        (Method::GET, "/v1/acme.example/tables/orders/snapshots", "Table does not exist: "),
        (
            Method::GET,
            "/v1/acme.example/tables/events/stats",
            "Table does not exist: acme_example.events: its first events wait",
        ),
        (Method::POST, "/v1/acme/commit", "Namespace does not exist: acme; there is: acme.example"),
    ] {
        let (status, answer) = server.call(method, path, &json!({})).await;
        assert_eq!(status, 404, "{path}: {answer}");
        assert!(answer["error"].as_str().unwrap().starts_with(missing), "{path}: {answer}");
    }
    // Whoever gives the catalog's name sends to the namespace that has it.
    let (status, answer) = send(&server, "acme_example", 3..5).await;
    assert_eq!((status, &answer["namespace"]), (200, &json!("acme.example")), "{answer}");
    assert_eq!(answer["seq"], json!({"first": 4, "last": 5}));
    check_reads(&server, 5, &["events"]).await;

    let (status, answer) = server.call(Method::POST, "/v1/acme_example/commit", &json!({})).await;
    assert_eq!((status, &answer["seq"]), (200, &json!(5)), "{answer}");
    assert!(answer["snapshots"]["events"].is_i64(), "{answer}");
    check_reads(&server, 5, &["events"]).await;
    assert_eq!(send(&server, "acme_example", 0..6).await.1["duplicates"], json!(5));
    let (_, answer) = server.call(Method::POST, "/v1/acme.example/commit", &json!({})).await;
    assert_eq!(answer["seq"], json!(6), "{answer}");

    let server = server.restart().await;
    assert_eq!(send(&server, "acme_example", 5..7).await.1["namespace"], json!("acme.example"));
    check_reads(&server, 7, &["events"]).await;
    // Another text for the same name is another namespace, which has no place.
    let (status, answer) = send(&server, "acme-example", 7..8).await;
    assert_eq!(status, 400, "{answer}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_sql_needs_are_no_new_namespaces() {
    let server = TestServer::start().await;
    let namespaces = "/catalog/v1/namespaces";
    for name in ["system", "Information_Schema"] {
        let (status, answer) = send(&server, name, 0..1).await;
        let refused = &answer["errors"][0];
        assert_eq!((status, &refused["code"]), (400, &json!("INVALID_NAMESPACE")), "{answer}");
        assert!(refused["reason"].as_str().unwrap().contains("reserved"), "{answer}");
        assert!(refused["deadLetter"].is_string(), "{answer}");
        let body = json!({"namespace": [name]});
        let (status, answer) = server.call(Method::POST, namespaces, &body).await;
        assert_eq!(status, 400, "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains("reserved"), "{answer}");
    }
    let letters = server.rows("default", "SELECT count(*) FROM dead_letters").await;
    assert_eq!(letters, json!([[2]]));
    // Below another one it is a name as any other.
    for levels in [json!(["other"]), json!(["other", "system"])] {
        let body = json!({"namespace": levels});
        assert_eq!(server.call(Method::POST, namespaces, &body).await.0, 200);
    }
    // Those whose first events wait for their commit stand where they will stand after it.
    assert_eq!(send(&server, "not.yet", 0..1).await.0, 200);
    let (_, listed) = server.call(Method::GET, "/v1/namespaces", &json!({})).await;
    let listed = listed["namespaces"].as_array().unwrap();
    let names: Vec<&str> = listed.iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["default", "not_yet", "other", "other.system"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_of_a_reserved_name_that_is_there_takes_events_and_keeps_its_tables() {
    let folder = tempfile::tempdir().unwrap();
    let store = Metastore::sqlite(&folder.path().join("icecore.db")).await.unwrap();
    let noted = Properties::from([("icecore.ns".to_owned(), "system".to_owned())]);
    store.create_namespace(&vec!["system".to_owned()], &noted).await.unwrap();
    drop(store);
    let server = TestServer::start_in(folder, &[]).await;
    let (status, answer) = send(&server, "system", 0..2).await;
    assert_eq!(status, 200, "{answer}");
    server.commit("system").await;
    // Its tables are there under its name, and the audit log is not among them.
    assert_eq!(server.rows("system", "SELECT count(*) FROM system.events").await, json!([[2]]));
    let audit = json!({"sql": "SELECT * FROM system.audit"});
    assert_eq!(server.query("system", &audit).await.0, 400);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_utf_8_in_the_header_as_in_the_path() {
    let server = TestServer::start().await;
    let send = async |namespace: &[u8]| {
        let request = server.http.post(format!("{}/ingest", server.url));
        let request = request.header("x-namespace", HeaderValue::from_bytes(namespace).unwrap());
        let answer = request.json(&json!({"type": "t"})).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let (status, answer) = send("größe".as_bytes()).await;
    assert_eq!((status, &answer["namespace"]), (200, &json!("größe")), "{answer}");
    assert_eq!(server.rows("größe", "SELECT ns FROM events").await, json!([["größe"]]));
    let (status, answer) = send(b"gr\xf6\xdfe").await;
    assert_eq!(status, 400, "{answer}");
    assert!(answer["error"].as_str().unwrap().contains("UTF-8"), "{answer}");
    server.stop().await;
}

/// Makes a table of another engine with one column.
async fn create_table(server: &TestServer, levels: &[&str], column: &str) {
    let body = json!({"namespace": levels});
    let made = server.call(Method::POST, "/catalog/v1/namespaces", &body).await;
    assert_eq!(made.0, 200, "{made:?}");
    let path = levels.join("%1F").replace(' ', "%20");
    let field = json!({"id": 1, "name": column, "type": "long", "required": false});
    let body = json!({"name": "t", "schema": {"type": "struct", "fields": [field]}});
    let made =
        server.call(Method::POST, &format!("/catalog/v1/namespaces/{path}/tables"), &body).await;
    assert_eq!(made.0, 200, "{made:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_reads_the_namespace_that_every_other_route_means() {
    let server = TestServer::start().await;
    for levels in [&["Sales"][..], &["sales"], &["a b"], &["größe"], &["lake"], &["lake", "raw"]]
    {
        create_table(&server, levels, &format!("of {}", levels.join("."))).await;
    }
    let columns = async |path: &str, sql: &str| {
        let (status, answer) = server.query(path, &json!({ "sql": sql })).await;
        assert_eq!(status, 200, "{path} {sql}: {answer}");
        answer["columns"].clone()
    };
    for (path, name) in [
        ("Sales", "Sales"),
        ("sales", "sales"),
        ("SALES", "sales"),
        ("a%20b", "a b"),
        ("gr%C3%B6%C3%9Fe", "größe"),
        ("lake", "lake"),
        ("lake%1Fraw", "lake.raw"),
    ] {
        let expected = json!([{"name": format!("of {name}"), "type": "bigint"}]);
        assert_eq!(columns(path, "SELECT * FROM t").await, expected, "{path}");
        assert_eq!(columns(path, &format!("SELECT * FROM \"{name}\".t")).await, expected, "{path}");
    }
    // No event has such a namespace, so there is no table of ours in it.
    let (status, answer) = server.query("a%20b", &json!({"sql": "SELECT * FROM events"})).await;
    assert_eq!(status, 400, "{answer}");
    assert!(answer["error"].as_str().unwrap().contains("it has `t`"), "{answer}");
    for (path, expected) in [("lake%1Fnone", 404), ("no%20such", 404), ("%00", 400)] {
        assert_eq!(
            server.query(path, &json!({"sql": "SELECT * FROM t"})).await.0,
            expected,
            "{path}"
        );
    }
    // Events that carry the text mean their own.
    assert_eq!(send(&server, "SALES", 0..2).await.0, 200);
    assert_eq!(server.rows("SALES", "SELECT count(*) FROM events").await, json!([[2]]));
    assert_eq!(columns("Sales", "SELECT * FROM t").await[0]["name"], json!("of Sales"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_name_tells_nobody_whose_it_is() {
    let guarded = Guarded::start().await;
    let (server, admin) = (&guarded.server, guarded.admin.clone());
    let other = guarded.token(&json!({"name": "other", "scopes": ["write:b", "ingest:b"]})).await;
    let events = json!({"events": [{"id": "1", "type": "t", "ns": "acme.example"}]});
    assert_eq!(guarded.call(Method::POST, &admin, "/ingest", &events).await.0, 200);
    for path in ["/v1/acme_example/tables", "/v1/none_example/tables"] {
        assert_eq!(guarded.call(Method::GET, &other, path, &json!({})).await.0, 404, "{path}");
    }
    let request = server.http.post(format!("{}/ingest", server.url));
    let request = request.bearer_auth(&other).header("x-namespace", "acme_example");
    let answer = request.json(&json!([{"id": "2", "type": "t"}])).send().await.unwrap();
    let text = answer.text().await.unwrap();
    assert!(!text.contains("acme.example"), "{text}");
    guarded.server.stop().await;
}
