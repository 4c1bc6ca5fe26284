//! Fuzz test of requests: whatever a client sends, the server does not panic, says that the fault
//! is the client's (never 5xx), and every table can be loaded and committed to afterwards, also by
//! a server that starts anew. How to run it for longer: crate `icecore-fuzz`.

use super::*;
use iceberg::spec::TableMetadata;
use icecore_fuzz::{Rng, StdRng, mutate_bytes, mutate_json, pick, run};

const TABLE: &str = "/v1/namespaces/ns/tables/t";
/// Stand for what the server makes up.
const UUID: &str = "the table's uuid";
const LOCATION: &str = "the table's location";
/// Most requests of a case.
const REQUESTS_MAX: usize = 10;

#[derive(Debug)]
struct Sent {
    path: &'static str,
    body: String,
}

#[test]
fn fuzz_requests_are_the_clients_fault_and_tables_stay_whole() {
    let requests = requests();
    let bodies: Vec<Value> = requests.iter().map(|(_, body)| body.clone()).collect();
    run(
        40,
        |random| {
            let number = random.random_range(1..=REQUESTS_MAX);
            (0..number).map(|_| sent(random, &requests, &bodies)).collect::<Vec<Sent>>()
        },
        |requests, _| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(check(requests));
        },
    );
}

fn sent(random: &mut StdRng, requests: &[(&'static str, Value)], bodies: &[Value]) -> Sent {
    let (path, body) = pick(random, requests);
    let body = match random.random_range(0..10) {
        0..4 => body.to_string(),
        4 => {
            let bytes = mutate_bytes(random, body.to_string().as_bytes(), &[], 64 << 10);
            String::from_utf8_lossy(&bytes).into_owned()
        }
        _ => mutate_json(random, body, bodies).to_string(),
    };
    Sent { path, body }
}

async fn check(requests: &[Sent]) {
    let (server, table) = Server::with_table().await;
    for Sent { path, body } in requests {
        let metadata = &table["metadata"];
        let body = body
            .replace(UUID, metadata["table-uuid"].as_str().unwrap())
            .replace(LOCATION, metadata["location"].as_str().unwrap());
        let answer = server.post(path, &body).await;
        assert!(answer.status.as_u16() < 500, "{path}: {} {}\n{body}", answer.status, answer.body);
        if answer.status.is_client_error() {
            let error = &answer.body["error"];
            assert_eq!(error["code"], json!(answer.status.as_u16()), "{path}: {}", answer.body);
            assert!(error["message"].is_string() && error["type"].is_string(), "{}", answer.body);
        }
    }
    check_tables(&server, "at the end").await;
    let server = Server::start_in(server.folder).await;
    check_tables(&server, "after a restart").await;
}

/// Loads every table and commits to it.
async fn check_tables(server: &Server, when: &str) {
    for namespace in server.get("/v1/namespaces").await.ok()["namespaces"].as_array().unwrap() {
        let levels: Vec<&str> =
            namespace.as_array().unwrap().iter().map(|level| level.as_str().unwrap()).collect();
        let namespace = request::path_segment(&levels.join("\u{1f}"));
        let tables = server.get(&format!("/v1/namespaces/{namespace}/tables")).await.ok();
        for table in tables["identifiers"].as_array().unwrap() {
            let name = request::path_segment(table["name"].as_str().unwrap());
            let path = format!("/v1/namespaces/{namespace}/tables/{name}");
            let loaded = server.get(&path).await;
            assert_eq!(loaded.status, StatusCode::OK, "{path} {when}: {}", loaded.body);
            let metadata = serde_json::from_value::<TableMetadata>(loaded.body["metadata"].clone());
            assert!(metadata.is_ok(), "{path} {when}: {}", metadata.unwrap_err());
            let commit = json!({"requirements": [
                {"type": "assert-table-uuid", "uuid": loaded.body["metadata"]["table-uuid"]},
            ], "updates": [{"action": "set-properties", "updates": {"checked": "yes"}}]});
            let committed = server.post(&path, &commit).await;
            assert_eq!(committed.status, StatusCode::OK, "{path} {when}: {}", committed.body);
        }
    }
}

/// Requests as clients send them.
fn requests() -> Vec<(&'static str, Value)> {
    let snapshot = |id: i64, parent: Option<i64>| {
        let table = json!({"metadata": {
            "location": LOCATION, "table-uuid": UUID, "last-updated-ms": NOW_MS}});
        add_snapshot(&table, id, parent, "")
    };
    let mut create = new_table("u");
    create["schema"]["fields"].as_array_mut().unwrap().extend([
        json!({"id": 3, "name": "m", "required": false, "type": {"type": "map", "key-id": 4,
            "key": "string", "value-id": 5, "value-required": false, "value": "decimal(9, 2)"}}),
        json!({"id": 6, "name": "l", "required": false, "type": {"type": "list", "element-id": 7,
            "element-required": true, "element": {"type": "struct", "fields": [
                {"id": 8, "name": "x", "required": true, "type": "fixed[16]"},
                {"id": 9, "name": "y", "required": false, "type": "uuid", "doc": "d"}]}}}),
    ]);
    create["location"] = json!(format!("{LOCATION}-2"));
    create["write-order"] = json!({"order-id": 1, "fields": [{"source-id": 1, "direction": "asc",
        "transform": "bucket[4]", "null-order": "nulls-first"}]});
    let mut staged = new_table("s");
    staged["stage-create"] = json!(true);
    let updates = table_updates();
    let schema = new_table("")["schema"].clone();
    let first = json!([
        {"action": "assign-uuid", "uuid": "9c12d441-03fe-4693-9a96-a0705ddf69c1"},
        {"action": "upgrade-format-version", "format-version": 2},
        {"action": "add-schema", "schema": schema, "last-column-id": 2},
        {"action": "set-current-schema", "schema-id": -1},
        {"action": "add-spec", "spec": {"spec-id": 0, "fields": [
            {"name": "dt", "transform": "day", "source-id": 2, "field-id": 1000}]}},
        {"action": "set-default-spec", "spec-id": -1},
        {"action": "add-sort-order", "sort-order": {"order-id": 0, "fields": []}},
        {"action": "set-default-sort-order", "sort-order-id": -1},
        {"action": "set-location", "location": format!("{LOCATION}-3")},
    ]);
    let uuid = json!({"type": "assert-table-uuid", "uuid": UUID});
    let mut requests = vec![
        ("/v1/namespaces", json!({"namespace": ["ns", "in"], "properties": {"a": "b"}})),
        ("/v1/namespaces/ns/properties", json!({"removals": ["a"], "updates": {"b": "c"}})),
        ("/v1/namespaces/ns/tables", create),
        ("/v1/namespaces/ns/tables", staged),
        (TABLE, snapshot(11, None)),
        (TABLE, snapshot(11, None)),
        (TABLE, snapshot(11, None)),
        (TABLE, snapshot(12, Some(11))),
        (TABLE, snapshot(12, Some(11))),
        (TABLE, snapshot(13, Some(11))),
        (TABLE, json!({"requirements": requirements(), "updates": []})),
        (
            "/v1/namespaces/ns/tables/made",
            json!({"requirements": [{"type": "assert-create"}], "updates": first}),
        ),
        ("/v1/transactions/commit", json!({"table-changes": [snapshot(21, None)]})),
        (
            "/v1/namespaces/ns/register",
            json!({"name": "r", "metadata-location": format!("{LOCATION}/metadata/x.json")}),
        ),
        (
            "/v1/tables/rename",
            json!({"source": {"namespace": ["ns"], "name": "u"},
                "destination": {"namespace": ["ns"], "name": "v"}}),
        ),
        ("/v1/namespaces/ns/tables/t/metrics", json!({"report-type": "commit-report"})),
    ];
    requests.extend(
        updates.iter().map(|one| (TABLE, json!({"requirements": [uuid], "updates": [one]}))),
    );
    requests.push((TABLE, json!({"requirements": [uuid], "updates": updates})));
    requests
}

fn requirements() -> Value {
    json!([
        {"type": "assert-table-uuid", "uuid": UUID},
        {"type": "assert-ref-snapshot-id", "ref": "main", "snapshot-id": null},
        {"type": "assert-last-assigned-field-id", "last-assigned-field-id": 2},
        {"type": "assert-current-schema-id", "current-schema-id": 0},
        {"type": "assert-last-assigned-partition-id", "last-assigned-partition-id": 1000},
        {"type": "assert-default-spec-id", "default-spec-id": 0},
        {"type": "assert-default-sort-order-id", "default-sort-order-id": 0},
    ])
}

fn table_updates() -> Vec<Value> {
    let statistics = json!({"snapshot-id": 11, "file-size-in-bytes": 9,
        "statistics-path": format!("{LOCATION}/metadata/1.puffin"),
        "file-footer-size-in-bytes": 5, "blob-metadata": [{"type": "apache-datasketches-theta-v1",
        "snapshot-id": 11, "sequence-number": 1, "fields": [1], "properties": {"ndv": "3"}}]});
    let mut schema = new_table("")["schema"].clone();
    schema["fields"]
        .as_array_mut()
        .unwrap()
        .push(json!({"id": 3, "name": "more", "required": false, "type": "double",
            "initial-default": 1.5, "write-default": 2}));
    let list = json!([
        {"action": "upgrade-format-version", "format-version": 3},
        {"action": "add-schema", "schema": schema, "last-column-id": 3},
        {"action": "set-current-schema", "schema-id": -1},
        {"action": "add-spec", "spec": {"spec-id": 1, "fields": [
            {"source-id": 1, "transform": "bucket[16]", "name": "b", "field-id": 1001},
            {"source-id": 1, "transform": "truncate[4]", "name": "t"}]}},
        {"action": "set-default-spec", "spec-id": -1},
        {"action": "add-sort-order", "sort-order": {"order-id": 1, "fields": [
            {"transform": "identity", "source-id": 1, "direction": "asc",
             "null-order": "nulls-first"}]}},
        {"action": "set-default-sort-order", "sort-order-id": -1},
        {"action": "set-snapshot-ref", "ref-name": "audit", "snapshot-id": 11, "type": "tag",
         "max-ref-age-ms": 1000},
        {"action": "set-snapshot-ref", "ref-name": "main", "snapshot-id": 11, "type": "branch",
         "min-snapshots-to-keep": 1, "max-snapshot-age-ms": 1, "max-ref-age-ms": null},
        {"action": "remove-snapshot-ref", "ref-name": "main"},
        {"action": "remove-snapshots", "snapshot-ids": [11]},
        {"action": "set-location", "location": LOCATION},
        {"action": "set-properties", "updates": {"write.metadata.previous-versions-max": "2"}},
        {"action": "remove-properties", "removals": ["owner"]},
        {"action": "set-statistics", "snapshot-id": 11, "statistics": statistics},
        {"action": "remove-statistics", "snapshot-id": 11},
        {"action": "set-partition-statistics", "partition-statistics": {"snapshot-id": 11,
            "statistics-path": format!("{LOCATION}/metadata/1.parquet"), "file-size-in-bytes": 9}},
        {"action": "remove-partition-specs", "spec-ids": [0]},
        {"action": "remove-schemas", "schema-ids": [0]},
        {"action": "add-encryption-key", "encryption-key": {"key-id": "k",
            "encrypted-key-metadata": "AAEC"}},
        {"action": "remove-encryption-key", "key-id": "k"},
    ]);
    list.as_array().unwrap().clone()
}
