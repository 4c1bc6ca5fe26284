//! Administration of tables over HTTP and from the command line.

use crate::harness::{TestServer, events};
use serde_json::{Value, json};
use std::process::Command;

const NS: &str = "shop.example";
const EVENTS: &str = "/v1/shop.example/tables/events";

/// A server whose table `events` has two snapshots, and their ids.
async fn with_history() -> (TestServer, Vec<i64>) {
    let server = TestServer::start().await;
    for first in [0, 10] {
        let (status, reply) = server.ingest(&events(first..first + 5)).await;
        assert_eq!(status, 200, "{reply}");
        server.commit(NS).await;
    }
    let answer = call(&server, "GET", &format!("{EVENTS}/snapshots"), None).await;
    let ids = answer.1["snapshots"].as_array().unwrap().iter().rev();
    let ids = ids.map(|row| row["snapshot"].as_i64().unwrap()).collect();
    (server, ids)
}

async fn call(server: &TestServer, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
    let method = method.parse().unwrap();
    let mut request = server.http.request(method, format!("{}{path}", server.url));
    if let Some(body) = body {
        request = request.json(&body);
    }
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

pub(crate) fn icecore(server: &TestServer, args: &[&str]) -> (bool, String) {
    let done = Command::new(env!("CARGO_BIN_EXE_icecore"))
        .args(args)
        .args(["--url", &server.url])
        .output()
        .unwrap();
    let text = [done.stdout, done.stderr].concat();
    (done.status.success(), String::from_utf8(text).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_and_names_of_a_table() {
    let (server, ids) = with_history().await;
    let table = EVENTS;
    let (status, stats) = call(&server, "GET", &format!("{table}/stats"), None).await;
    assert_eq!(status, 200, "{stats}");
    assert_eq!(stats["data_rows"], 10);
    assert_eq!(stats["small_files"], stats["data_files"]);
    assert_eq!((&stats["snapshots"], &stats["delete_files"]), (&json!(2), &json!(0)));

    let refs = format!("{table}/refs");
    let tag = json!({ "name": "first", "type": "tag", "snapshot": ids[0] });
    assert_eq!(call(&server, "POST", &refs, Some(tag.clone())).await.0, 200);
    assert_eq!(call(&server, "POST", &refs, Some(tag)).await.0, 409);
    let branch = json!({ "name": "trial", "type": "branch", "snapshot": ids[0] });
    assert_eq!(call(&server, "POST", &refs, Some(branch)).await.0, 200);
    let forward = format!("{refs}/trial/fast-forward");
    let moved = call(&server, "POST", &forward, Some(json!({ "to": "main" }))).await;
    let text = ids[1].to_string();
    let expected = json!({ "name": "trial", "snapshot": ids[1], "snapshot_str": text });
    assert_eq!(moved, (200, expected));
    let listed = call(&server, "GET", &refs, None).await.1;
    let names: Vec<&str> =
        listed["refs"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["first", "main", "trial"]);
    assert_eq!(call(&server, "DELETE", &format!("{refs}/first"), None).await.0, 200);
    assert_eq!(call(&server, "DELETE", &format!("{refs}/first"), None).await.0, 404);
    assert_eq!(call(&server, "POST", &forward, Some(json!({ "to": "first" }))).await.0, 404);

    // The service writes this table: going back would lose what was acknowledged.
    let back = json!({ "snapshot": ids[0] });
    let (status, answer) = call(&server, "POST", &format!("{table}/rollback"), Some(back)).await;
    assert_eq!((status, answer["code"].as_str()), (400, Some("INVALID_REQUEST")));
    for (body, part) in [
        (json!({}), "either"),
        (json!({ "snapshot": 1, "time": "x" }), "either"),
        (json!({ "time": "yesterday" }), "RFC 3339"),
        (json!({ "snap": 1 }), "unknown field"),
    ] {
        let (status, answer) =
            call(&server, "POST", &format!("{table}/rollback"), Some(body)).await;
        assert_eq!(status, 400);
        assert!(answer["error"].as_str().unwrap().contains(part), "{answer}");
    }
    assert_eq!(call(&server, "GET", "/v1/shop.example/tables/none/stats", None).await.0, 404);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_others_is_protected_dropped_and_had_back() {
    let server = TestServer::start().await;
    let levels = json!({ "namespace": ["Up", "down"] });
    for namespace in [json!({ "namespace": ["Up"] }), levels] {
        let made = call(&server, "POST", "/catalog/v1/namespaces", Some(namespace)).await;
        assert_eq!(made.0, 200, "{made:?}");
    }
    let table = json!({ "name": "t", "schema": { "type": "struct", "fields": [] } });
    let made = call(&server, "POST", "/catalog/v1/namespaces/Up%1Fdown/tables", Some(table)).await;
    assert_eq!(made.0, 200, "{made:?}");
    let path = "/v1/Up%1Fdown/tables/t";
    assert_eq!(call(&server, "PUT", &format!("{path}/protection"), None).await.0, 200);
    assert_eq!(call(&server, "DELETE", path, None).await.0, 409);
    assert_eq!(call(&server, "DELETE", &format!("{path}/protection"), None).await.0, 200);
    let renamed = json!({ "name": "u", "ns": "Up" });
    assert_eq!(call(&server, "POST", &format!("{path}/rename"), Some(renamed)).await.0, 200);
    assert_eq!(call(&server, "DELETE", "/v1/Up/tables/u", None).await.0, 200);
    let listed = call(&server, "GET", "/admin/dropped", None).await.1;
    let row = &listed["dropped"][0];
    assert_eq!(
        (&row["namespace"], &row["name"], &row["purge"]),
        (&json!("Up"), &json!("u"), &json!(false))
    );
    let uuid = row["uuid"].as_str().unwrap();
    let undrop = format!("/admin/dropped/{uuid}/undrop");
    assert_eq!(call(&server, "POST", &undrop, Some(json!({ "name": "x" }))).await.0, 400);
    assert_eq!(call(&server, "POST", &undrop, Some(json!({}))).await.0, 200);
    assert_eq!(call(&server, "POST", &undrop, Some(json!({}))).await.0, 404);
    assert_eq!(call(&server, "GET", "/v1/Up/tables/u/stats", None).await.0, 200);
    assert_eq!(call(&server, "DELETE", "/v1/Up/tables/u?purge=perhaps", None).await.0, 400);
    assert_eq!(call(&server, "DELETE", "/v1/Up/tables/u", None).await.0, 200);
    for namespace in ["Up%1Fdown", "Up"] {
        let url = format!("{}/catalog/v1/namespaces/{namespace}", server.url);
        assert_eq!(server.http.delete(url).send().await.unwrap().status(), 204);
    }
    let (status, answer) = call(&server, "POST", &undrop, Some(json!({}))).await;
    let missing = "Namespace does not exist: Up; create it first, or set `ns` and `name`";
    assert_eq!(status, 404, "{answer}");
    assert!(answer["error"].as_str().unwrap().starts_with(missing), "{answer}");
    assert_eq!(call(&server, "DELETE", &format!("/admin/dropped/{uuid}"), None).await.0, 200);
    assert_eq!(call(&server, "DELETE", "/admin/dropped/x", None).await.0, 400);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_administers_the_catalog() {
    let (server, ids) = with_history().await;
    let (done, text) = icecore(&server, &["catalog", "check"]);
    assert!(done, "{text}");
    assert_eq!(text.matches(" ok").count(), 9, "{text}");
    let dropped = call(&server, "GET", "/admin/dropped", None).await.1;
    assert_eq!(dropped["dropped"][0]["purge"], true, "the probe leaves nothing to have back");

    for (args, part) in [
        (&["catalog", "stats", "events"][..], "data_rows"),
        (&["tags", "create", "events", "first", "--snapshot", &ids[0].to_string()], "first is at"),
        (&["tags", "list", "events"], "first"),
        (&["branches", "create", "events", "trial"], "trial is at"),
        (&["branches", "fast-forward", "events", "trial", "--to", "main"], &ids[1].to_string()),
        (&["tags", "drop", "events", "first"], "first is dropped"),
        (&["catalog", "protect", "events"], "true"),
        (&["catalog", "unprotect", "events"], "false"),
    ] {
        let (done, text) = icecore(&server, &[args, &["--ns", NS]].concat());
        assert!(done && text.contains(part), "{args:?}: {text}");
    }
    let (done, text) =
        icecore(&server, &["catalog", "rollback", "events", "--to", "1", "--ns", NS]);
    assert!(!done && text.contains("acknowledged rows"), "{text}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_of_several_levels_are_typed_with_slashes() {
    let server = TestServer::start().await;
    for levels in [json!(["Up"]), json!(["Up", "down"])] {
        let body = Some(json!({ "namespace": levels }));
        assert_eq!(call(&server, "POST", "/catalog/v1/namespaces", body).await.0, 200);
    }
    let table = json!({ "name": "t", "schema": { "type": "struct", "fields": [] } });
    let made = call(&server, "POST", "/catalog/v1/namespaces/Up%1Fdown/tables", Some(table)).await;
    assert_eq!(made.0, 200, "{made:?}");
    let event = json!({"type": "t", "ns": "shop.example"});
    assert_eq!(server.ingest(&event).await.0, 200);
    server.commit("shop.example").await;
    for (args, part) in [
        (&["tables"][..], "shop.example"),
        (&["tables"][..], "Up/down"),
        (&["tables", "--ns", "Up/down"], "Up/down"),
        (&["snapshots", "t", "--ns", "Up/down"], "snapshot"),
        (&["catalog", "stats", "t", "--ns", "Up/down"], "data_rows"),
        (&["catalog", "protect", "t", "--ns", "Up/down"], "true"),
        (&["catalog", "protected"], "Up/down    t"),
        (&["catalog", "unprotect", "t", "--ns", "Up/down"], "false"),
        (&["catalog", "rename", "t", "u", "--ns", "Up/down", "--to-ns", "Up"], "Up.u"),
        (&["catalog", "rename", "u", "t", "--ns", "Up", "--to-ns", "Up/down"], "Up.down.t"),
        (&["catalog", "drop", "t", "--ns", "Up/down"], "uuid"),
        (&["catalog", "dropped"], "Up/down"),
        (&["catalog", "dropped"], "files waiting for deletion: 0"),
        (&["catalog", "events"], "drop-table"),
        (&["catalog", "events", "--limit", "1"], "next page: --after"),
    ] {
        let (done, text) = icecore(&server, args);
        assert!(done && text.contains(part), "{args:?}: {text}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_dropped_only_as_what_it_is() {
    let (server, _) = with_history().await;
    let run = |args: &[&str]| icecore(&server, &[args, &["--ns", NS]].concat());
    assert!(run(&["tags", "create", "events", "v1"]).0);
    // No query could name these.
    for (name, read_as) in [("123", "a snapshot id"), ("2026-11-20T12:00:00Z", "a time")] {
        let (done, said) = run(&["tags", "create", "events", name]);
        assert!(!done && said.contains(&format!("as_of reads it as {read_as}")), "{said}");
    }
    assert!(run(&["branches", "create", "events", "work"]).0);
    for (args, part) in [
        (["branches", "drop", "events", "v1"], "`v1` is a tag"),
        (["tags", "drop", "events", "work"], "`work` is a branch"),
    ] {
        let (done, text) = run(&args);
        assert!(!done && text.contains(part), "{text}");
    }
    assert!(run(&["tags", "drop", "events", "v1"]).0);
    assert!(run(&["branches", "drop", "events", "work"]).0);
    let unknown = format!("{EVENTS}?prge=true");
    let (status, answer) = call(&server, "DELETE", &unknown, None).await;
    assert!(status == 400 && answer["error"].as_str().unwrap().contains("prge"), "{answer}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_metadata_hides_no_other() {
    let server = TestServer::start().await;
    let body = Some(json!({ "namespace": ["a"] }));
    assert_eq!(call(&server, "POST", "/catalog/v1/namespaces", body).await.0, 200);
    let mut files = Vec::new();
    for name in ["broken", "gone", "good"] {
        let schema = json!({ "type": "struct", "fields": [
            { "id": 1, "name": "x", "required": false, "type": "long" }] });
        let table = json!({ "name": name, "schema": schema });
        let made = call(&server, "POST", "/catalog/v1/namespaces/a/tables", Some(table)).await;
        assert_eq!(made.0, 200, "{made:?}");
        let file = made.1["metadata-location"].as_str().unwrap();
        files.push(file.strip_prefix("file://").unwrap().to_owned());
    }
    // A server that has not read them yet.
    let server = server.restart().await;
    std::fs::write(&files[0], "{}").unwrap();
    std::fs::remove_file(&files[1]).unwrap();

    let (status, listed) = call(&server, "GET", "/v1/a/tables", None).await;
    assert_eq!(status, 200, "{listed}");
    let rows = listed["tables"].as_array().unwrap();
    assert_eq!(rows.len(), 3);
    for (row, file) in rows.iter().zip(&files) {
        let error = row["error"].as_str().unwrap_or_default();
        assert_eq!(error.contains(file), row["name"] != "good", "{row}");
    }
    let (done, text) = icecore(&server, &["tables", "--ns", "a"]);
    assert!(done && text.contains("error") && text.contains(&files[1]), "{text}");

    let tables = server.rows("a", "SHOW TABLES").await.to_string();
    assert!(["broken", "gone", "good"].iter().all(|name| tables.contains(name)), "{tables}");
    assert_eq!(server.rows("a", "SELECT count(*) AS n FROM good").await, json!([[0]]));
    for (sql, file) in [
        ("SELECT * FROM broken", &files[0]),
        ("SELECT * FROM gone", &files[1]),
        ("SELECT count(*) FROM gone, information_schema.tables", &files[1]),
    ] {
        let (status, answer) = server.query("a", &json!({ "sql": sql })).await;
        let error = answer["error"].as_str().unwrap();
        assert!(status == 404 && error.contains(file.as_str()), "{status} {answer}");
    }

    let (status, answer) = call(&server, "DELETE", "/v1/a/tables/gone", None).await;
    assert_eq!(status, 200, "{answer}");
    let undrop = format!("/admin/dropped/{}/undrop", answer["uuid"].as_str().unwrap());
    let (status, answer) = call(&server, "POST", &undrop, Some(json!({}))).await;
    assert!(status == 400 && answer["error"].as_str().unwrap().contains(&files[1]), "{answer}");
    server.stop().await;
}

#[test]
fn commands_without_a_server_make_no_metastore_where_none_is() {
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let done = Command::new(env!("CARGO_BIN_EXE_icecore"))
            .args(args)
            .args(["--data-dir", folder.path().join("data").to_str().unwrap()])
            .output()
            .unwrap();
        let (out, err) = (String::from_utf8(done.stdout), String::from_utf8(done.stderr));
        (done.status.code(), out.unwrap(), err.unwrap())
    };
    for args in [
        &["audit", "verify"][..],
        &["audit", "list"],
        &["token", "list"],
        &["token", "revoke", "x"],
        &["wal", "inspect"],
        &["wal", "quarantine"],
        &["wal", "accept-loss", "--all"],
    ] {
        let (code, out, err) = run(args);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{args:?}: {err}");
        assert!(err.contains("--data-dir") && err.contains("/data"), "{args:?}: {err}");
        assert!(!folder.path().join("data").exists(), "{args:?}");
    }
    let (code, _, err) = run(&["token", "create", "x"]);
    assert!(code == Some(2) && err.contains("--scope"), "{err}");
    assert!(!folder.path().join("data").exists());
    let (code, _, err) = run(&["token", "create", "x", "--scope", "read", "--ns", "*"]);
    assert!(code == Some(2) && err.contains("write --scope 'read:*' without it"), "{err}");
    let (code, _, err) = run(&["token", "create", "", "--admin"]);
    assert!(
        code == Some(1) && err.contains("name") && !err.contains("open the metastore"),
        "{err}"
    );
    // The first token comes before the first start.
    let (code, _, err) = run(&["token", "create", "x", "--admin"]);
    assert!(code == Some(0) && err.contains("icecore.db"), "{err}");
    let (code, out, err) = run(&["token", "list"]);
    assert!(code == Some(0) && out.contains("admin:*") && err.contains("icecore.db"), "{err}");
}

#[test]
fn who_has_read_enough_gets_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_icecore"))
        .arg("config")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // Closed before anything is written, or at least before it is flushed to its end.
    drop(child.stdout.take());
    let done = child.wait_with_output().unwrap();
    assert_eq!((done.status.code(), done.stderr), (Some(0), Vec::new()));
}
