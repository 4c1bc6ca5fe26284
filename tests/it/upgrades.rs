//! A data folder of a release with fewer columns: the tables evolve by themselves, and nothing is lost
//! or doubled.

use crate::harness::TestServer;
use base64::{Engine, engine::general_purpose::STANDARD};
use icecore_lake::clock::Clock;
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs, path::Path, process::Command};
use tempfile::TempDir;

/// A minute after the folders were left.
const NOW_MS: i64 = 1_795_911_150_000;
const NS: &str = "shop.example";
const EVENTS_OF: &str = "/catalog/v1/namespaces/shop_example/tables/events";
const COUNT: &str = "SELECT count(*), count(DISTINCT id), count(DISTINCT seq) FROM events";
const BOTH: &str = "SELECT id, deployment_environment, attempt_number FROM events \
     WHERE deployment_environment IS NOT NULL OR attempt_number IS NOT NULL ORDER BY id";

/// The folder as that server left it, where it is now; and what was sent to it.
fn folder_of_a_release_with_fewer_columns(name: &str) -> (TempDir, Vec<Value>) {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/folders_before_columns");
    let packed = fs::File::open(kept.join(format!("{name}.json.zst"))).unwrap();
    let files: BTreeMap<String, String> =
        serde_json::from_slice(&zstd::decode_all(packed).unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (path, bytes) in &files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, STANDARD.decode(bytes).unwrap()).unwrap();
    }
    let sent = fs::read_to_string(folder.path().join("events.ndjson")).unwrap();
    let sent = sent.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut relocate = Command::new(env!("CARGO_BIN_EXE_icecore"));
    relocate.args(["catalog", "relocate", "--data-dir", folder.path().to_str().unwrap()]);
    let output = relocate.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (folder, sent)
}

/// A release with so many columns more, on this folder.
async fn release(folder: TempDir, columns: &str) -> TestServer {
    let settings = [("trial_columns", columns), ("ingest.ts_past", "10000d")];
    TestServer::start_at(folder, &settings, Clock::manual(NOW_MS)).await
}

/// Sends events: how many of them were duplicates.
async fn duplicates(server: &TestServer, events: &[Value]) -> u64 {
    let (status, reply) = server.ingest(&json!(events)).await;
    assert_eq!(status, 200, "{reply}");
    assert_eq!(reply["received"], events.len(), "{reply}");
    reply["duplicates"].as_u64().unwrap()
}

/// The same events in other words: numbers written in another way, members in another order.
fn in_other_words(events: &[Value]) -> String {
    let line = |event: &Value| {
        let members = event.as_object().unwrap().iter().rev();
        let members = members.map(|(name, value)| match value.as_i64() {
            Some(number) if name == "attempt_number" => format!("\"{name}\": {number}.0"),
            _ => format!("\"{name}\": {value}"),
        });
        format!("{{ {} }}\n", members.collect::<Vec<_>>().join(", "))
    };
    events.iter().map(line).collect()
}

/// An event of a sender who knows both new columns.
fn new_event(n: u32) -> Value {
    json!({ "id": format!("new-{n}"), "type": "order.placed", "ns": NS, "attempt_number": n,
        "data": { "n": n, "deployment_environment": format!("env-{n}") } })
}

async fn check_whole(server: &TestServer) {
    let answer = server.post("/admin/fsck", "application/json", "").await;
    let report: Value = answer.json().await.unwrap();
    assert_eq!(report["whole"], true, "{report}");
}

async fn metadata(server: &TestServer) -> Value {
    server.get(EVENTS_OF).await.json::<Value>().await.unwrap()["metadata"].clone()
}

/// Names of the table's columns with their field ids, after those of the first version.
async fn later_columns(server: &TestServer) -> Vec<(String, i64)> {
    let metadata = metadata(server).await;
    let current = &metadata["current-schema-id"];
    let schemas = metadata["schemas"].as_array().unwrap();
    let schema = schemas.iter().find(|schema| schema["schema-id"] == *current).unwrap();
    let fields = schema["fields"].as_array().unwrap().iter();
    let fields = fields.map(|field| {
        assert!(field["id"].as_i64().unwrap() <= 54 || field["required"] == false, "{field}");
        (field["name"].as_str().unwrap().to_owned(), field["id"].as_i64().unwrap())
    });
    fields.skip(54).collect()
}

/// What a client gets who takes a column out of the table.
async fn drop_column(server: &TestServer, name: &str) -> u16 {
    let metadata = metadata(server).await;
    let schemas = metadata["schemas"].as_array().unwrap().iter();
    let mut schema =
        schemas.max_by_key(|schema| schema["schema-id"].as_i64().unwrap()).unwrap().clone();
    assert_eq!(schema["schema-id"], metadata["current-schema-id"]);
    schema["fields"].as_array_mut().unwrap().retain(|field| field["name"] != name);
    let updates = json!([
        { "action": "add-schema", "schema": schema },
        { "action": "set-current-schema", "schema-id": -1 },
    ]);
    let body = json!({ "requirements": [], "updates": updates });
    let answer = server.post(EVENTS_OF, "application/json", body.to_string()).await;
    answer.status().as_u16()
}

fn pair(name: &str, id: i64) -> (String, i64) {
    (name.to_owned(), id)
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_an_earlier_release_get_two_columns_and_keep_every_row() {
    let (folder, sent) = folder_of_a_release_with_fewer_columns("plain");
    let (of_shop, of_log_only) = sent.split_at(60);
    let server = release(folder, "2").await;
    // Before anything is flushed: what is in the table and what is in the log.
    assert_eq!(server.rows(NS, COUNT).await, json!([[60, 60, 60]]));
    assert_eq!(server.rows("log.only", COUNT).await, json!([[10, 10, 10]]));
    assert_eq!(server.rows(NS, BOTH).await, json!([]));
    let whole = "SELECT count(*) FROM events WHERE payload LIKE '%attempt_number%'";
    assert_eq!(server.rows(NS, whole).await, json!([[15]]));
    assert_eq!(server.rows(NS, "SELECT count(*) FROM dead_letters").await, json!([[3]]));
    for events in [of_shop, of_log_only] {
        assert_eq!(duplicates(&server, events).await, events.len() as u64);
        let again = in_other_words(events);
        let reply = server.post("/ingest", "application/x-ndjson", again).await;
        let reply: Value = reply.json().await.unwrap();
        assert_eq!(reply["duplicates"], events.len(), "{reply}");
    }
    // A flush without a value for the new columns changes nothing of the table.
    server.commit(NS).await;
    assert_eq!(later_columns(&server).await, []);
    let before = metadata(&server).await["current-snapshot-id"].clone();

    let new: Vec<Value> = (0..3).map(new_event).collect();
    assert_eq!(duplicates(&server, &new).await, 0);
    let expected = json!([["new-0", "env-0", 0], ["new-1", "env-1", 1], ["new-2", "env-2", 2]]);
    assert_eq!(server.rows(NS, BOTH).await, expected);
    server.commit(NS).await;
    let columns = [pair("deployment_environment", 55), pair("attempt_number", 56)];
    assert_eq!(later_columns(&server).await, columns);
    assert_eq!(server.rows(NS, BOTH).await, expected);
    assert_eq!(server.rows(NS, COUNT).await, json!([[63, 63, 63]]));
    assert_eq!(server.rows(NS, whole).await, json!([[15]]), "new rows need no payload");
    let filtered = "SELECT id FROM events WHERE attempt_number >= 1 ORDER BY attempt_number DESC";
    assert_eq!(server.rows(NS, filtered).await, json!([["new-2"], ["new-1"]]));
    // An earlier state has the columns of its time.
    let then = json!({ "sql": "SELECT * FROM events LIMIT 1", "as_of": before });
    let (_, answer) = server.query(NS, &then).await;
    assert_eq!(answer["columns"].as_array().unwrap().len(), 54, "{answer}");
    // A namespace without a table gets one with all columns.
    server.commit("log.only").await;
    assert_eq!(server.rows("log.only", COUNT).await, json!([[10, 10, 10]]));
    // They are ours as the others are.
    assert_eq!(drop_column(&server, "attempt_number").await, 400);

    // The ids are lost: they are read from the evolved table.
    let folder = server.stop().await;
    fs::remove_dir_all(folder.path().join("ids")).unwrap();
    let server = release(folder, "2").await;
    for events in [of_shop, of_log_only, &new] {
        assert_eq!(duplicates(&server, events).await, events.len() as u64);
    }
    let reply = server.post("/ingest", "application/x-ndjson", in_other_words(of_shop)).await;
    assert_eq!(reply.json::<Value>().await.unwrap()["duplicates"], 60);
    assert_eq!(server.rows(NS, COUNT).await, json!([[63, 63, 63]]));
    check_whole(&server).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_an_earlier_release_get_the_column_of_patches_with_the_first_one() {
    let (folder, _) = folder_of_a_release_with_fewer_columns("plain");
    let server = release(folder, "0").await;
    server.commit(NS).await;
    assert_eq!(later_columns(&server).await, []);
    let merge =
        json!({ "id": "p-1", "ns": NS, "collection": "c", "key": "k", "patch": { "a": null } });
    let patch = json!([{ "op": "remove", "path": "/a" }]);
    let json_patch =
        json!({ "id": "p-2", "ns": NS, "collection": "c", "key": "k", "jsonPatch": patch });
    let patches = [merge, json_patch];
    assert_eq!(duplicates(&server, &patches).await, 0);
    let seen =
        "SELECT type, op, patch, payload, jsonPatch FROM events WHERE id LIKE 'p-%' ORDER BY id";
    let [first, second] = ["{\"a\":null}".to_owned(), patch.to_string()];
    let expected =
        json!(
            [["cdc.update", "u", first, null, first], ["cdc.update", "u", second, null, second],]
        );
    assert_eq!(server.rows(NS, seen).await, expected);
    server.commit(NS).await;
    assert_eq!(later_columns(&server).await, [pair("patch", 55)]);
    assert_eq!(server.rows(NS, seen).await, expected);
    assert_eq!(duplicates(&server, &patches).await, 2);
    check_whole(&server).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_upgrade_brings_more_than_64_columns() {
    let (folder, sent) = folder_of_a_release_with_fewer_columns("plain");
    let server = release(folder, "1").await;
    assert_eq!(duplicates(&server, &[new_event(1)]).await, 0);
    server.commit(NS).await;
    assert_eq!(later_columns(&server).await, [pair("deployment_environment", 55)]);
    assert_eq!(duplicates(&server, &[new_event(2)]).await, 0);

    let server = release(server.stop().await, "12").await;
    let long = "trial_column_with_the_longest_name_of_them_all";
    let mut event = new_event(3);
    event["data"][long] = json!("last");
    event["trial_small"] = json!(7);
    event["trial_ratio"] = json!(0.5);
    event["trial_flag"] = json!(true);
    assert_eq!(duplicates(&server, &[event.clone()]).await, 0);
    let seen = format!(
        "SELECT id, attempt_number, trial_small, trial_ratio, trial_flag, {long} FROM events \
         WHERE id LIKE 'new-%' ORDER BY id"
    );
    // What came before there was a column stays in the whole event.
    let expected = json!([
        ["new-1", null, null, null, null, null],
        ["new-2", null, null, null, null, null],
        ["new-3", 3, 7, 0.5, true, "last"],
    ]);
    assert_eq!(server.rows(NS, &seen).await, expected);
    server.commit(NS).await;
    assert_eq!(server.rows(NS, &seen).await, expected);
    let ids: Vec<i64> = later_columns(&server).await.into_iter().map(|(_, id)| id).collect();
    assert_eq!(ids, [55, 56, 57, 58, 59, 60]);
    assert_eq!(duplicates(&server, &[new_event(1), new_event(2), event]).await, 3);
    let reply = server.post("/ingest", "application/x-ndjson", in_other_words(&sent)).await;
    assert_eq!(reply.json::<Value>().await.unwrap()["duplicates"], sent.len());
    assert_eq!(server.rows(NS, COUNT).await, json!([[63, 63, 63]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_of_others_with_a_new_columns_name_are_adopted_or_keep_it_out() {
    let (folder, sent) = folder_of_a_release_with_fewer_columns("foreign");
    let server = release(folder, "2").await;
    let theirs = json!(["theirs", "lab", "first"]);
    let named = "SELECT id, deployment_environment, attempt_number, payload FROM events \
         WHERE id LIKE 'new-%' OR id = 'theirs' ORDER BY id";
    let check = async |server: &TestServer| {
        let rows = server.rows(NS, named).await;
        let rows = rows.as_array().unwrap();
        assert_eq!(rows.len(), 3, "{rows:?}");
        for (n, row) in rows[..2].iter().enumerate() {
            assert_eq!(row[1], format!("env-{n}"), "adopted");
            assert_eq!(row[2], Value::Null, "a number has no place in a column of text");
            let payload: Value = serde_json::from_str(row[3].as_str().unwrap()).unwrap();
            assert_eq!(payload["attempt_number"], n, "{payload}");
            assert_eq!(payload["data"], new_event(n as u32)["data"], "{payload}");
        }
        assert_eq!(rows[2].as_array().unwrap()[..3], *theirs.as_array().unwrap());
        assert_eq!(server.rows(NS, "SELECT count(*) FROM events").await, json!([[63]]));
    };
    assert_eq!(server.rows(NS, "SELECT count(*) FROM events").await, json!([[61]]));
    assert_eq!(duplicates(&server, &sent).await, 60);
    let new: Vec<Value> = (0..2).map(new_event).collect();
    assert_eq!(duplicates(&server, &new).await, 0);
    check(&server).await;
    server.commit(NS).await;
    check(&server).await;
    let columns =
        [pair("note", 55), pair("deployment_environment", 56), pair("attempt_number", 57)];
    assert_eq!(later_columns(&server).await, columns);
    let metrics = server.get("/metrics").await.text().await.unwrap();
    let line = "icecore_columns_left_out{table=\"shop_example.events\"} 1\n";
    assert!(metrics.contains(line), "{metrics}");
    for events in [&sent, &new] {
        let reply = server.post("/ingest", "application/x-ndjson", in_other_words(events)).await;
        let reply: Value = reply.json().await.unwrap();
        assert_eq!(reply["duplicates"], events.len(), "{reply}");
    }
    // What was adopted is ours from now on; the others are not.
    assert_eq!(drop_column(&server, "deployment_environment").await, 400);
    assert_eq!(drop_column(&server, "attempt_number").await, 200);
    assert_eq!(duplicates(&server, &[new_event(2)]).await, 0);
    let both = "SELECT deployment_environment, attempt_number FROM events WHERE id = 'new-2'";
    assert_eq!(server.rows(NS, both).await, json!([["env-2", 2]]));
    server.commit(NS).await;
    assert_eq!(server.rows(NS, both).await, json!([["env-2", 2]]));
    assert_eq!(later_columns(&server).await.last(), Some(&pair("attempt_number", 58)));
    let metrics = server.get("/metrics").await.text().await.unwrap();
    assert!(!metrics.contains("icecore_columns_left_out{"), "{metrics}");
    assert_eq!(
        server.rows(NS, "SELECT note FROM events WHERE id = 'theirs'").await,
        json!([["by hand"]])
    );
    check_whole(&server).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_that_fails_after_the_columns_were_added_is_made_again() {
    for point in ["flush.after_columns", "flush.after_data_file", "flush.lost_answer"] {
        let (folder, _) = folder_of_a_release_with_fewer_columns("plain");
        let script = format!("{point}=error");
        let settings =
            [("trial_columns", "2"), ("ingest.ts_past", "10000d"), ("failpoints", script.as_str())];
        let server = TestServer::start_at(folder, &settings, Clock::manual(NOW_MS)).await;
        assert_eq!(duplicates(&server, &[new_event(0)]).await, 0);
        let path = format!("/v1/{NS}/commit");
        let first = server.post(&path, "application/json", "").await.status();
        assert_eq!(first, 503, "{point}");
        server.commit(NS).await;
        let columns = [pair("deployment_environment", 55), pair("attempt_number", 56)];
        assert_eq!(later_columns(&server).await, columns, "{point}");
        assert_eq!(server.rows(NS, COUNT).await, json!([[61, 61, 61]]), "{point}");
        assert_eq!(server.rows(NS, BOTH).await, json!([["new-0", "env-0", 0]]), "{point}");
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sums_of_rows_begin_with_the_first_audit() {
    let (folder, _) = folder_of_a_release_with_fewer_columns("plain");
    let server = release(folder, "0").await;
    let audit = async || -> Value {
        let path = format!("/v1/{NS}/audit/events");
        let answer = server.post(&path, "application/json", "").await;
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(answer["agrees"], true, "{answer}");
        answer["tables"]["events"].clone()
    };
    let first = audit().await;
    assert_eq!(first["begins"], true, "{first}");
    assert_eq!(first["acked"]["rows"], 60, "{first}");
    server.commit(NS).await;
    assert_eq!(duplicates(&server, &[new_event(0)]).await, 0);
    server.commit(NS).await;
    let next = audit().await;
    let rows = ["acked", "log", "table", "foreign", "removed"].map(|of| next[of]["rows"].clone());
    assert_eq!(json!(rows), json!([61, 0, 61, 0, 0]));
    assert_eq!(next["begins"], false, "{next}");
    server.stop().await;
}
