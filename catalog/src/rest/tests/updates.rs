//! Each update and each requirement of the specification, over HTTP.

use super::*;

const PATH: &str = "/v1/namespaces/ns/tables/t";

/// A table of format version 3 with one snapshot on `main`, and its answer.
async fn with_snapshot() -> (Server, Value) {
    let (server, table) = Server::with_table().await;
    server.post(PATH, add_snapshot(&table, 11, None, &server.root)).await.ok();
    let upgrade = json!({"updates": [{"action": "upgrade-format-version", "format-version": 3}]});
    let table = server.post(PATH, upgrade).await.ok();
    (server, table)
}

fn schema(fields: &[(i32, &str)]) -> Value {
    let field = |(id, name): &(i32, &str)| {
        let kind = if *name == "at" { "timestamptz" } else { "long" };
        json!({"id": id, "name": name, "type": kind, "required": false})
    };
    json!({"type": "struct", "fields": fields.iter().map(field).collect::<Vec<_>>()})
}

/// The metadata with its lists in the order of their ids: in answers they have none.
fn sorted(answer: &Value) -> Value {
    let mut metadata = answer["metadata"].clone();
    for (list, id) in
        [("schemas", "schema-id"), ("partition-specs", "spec-id"), ("sort-orders", "order-id")]
    {
        let items = metadata[list].as_array_mut().unwrap();
        items.sort_by_key(|item| item[id].as_i64());
    }
    metadata
}

/// Sends `updates` one after the other and checks `pointer` of the metadata after the last.
async fn check(updates: &[Value], pointer: &str, expected: Value) {
    let (server, table) = with_snapshot().await;
    let location = table["metadata"]["location"].as_str().unwrap();
    let mut last = Value::Null;
    for update in updates {
        let update = update.to_string().replace("{location}", location);
        last = server.post(PATH, format!("{{\"updates\": [{update}]}}")).await.ok();
    }
    let metadata = sorted(&last);
    let found = metadata.pointer(pointer).cloned().unwrap_or_default();
    assert_eq!(found, expected, "{updates:?}: {pointer}");
    let loaded = server.get(PATH).await.ok();
    assert_eq!(sorted(&loaded), metadata, "a load shows what the commit answered");
}

#[tokio::test]
async fn schemas_specs_and_orders_are_added_set_and_removed() {
    let add_schema = json!({"action": "add-schema", "last-column-id": 3,
        "schema": schema(&[(1, "id"), (2, "at"), (3, "n")])});
    let set_schema = json!({"action": "set-current-schema", "schema-id": 1});
    check(std::slice::from_ref(&add_schema), "/schemas/1/fields/2/name", json!("n")).await;
    let add = add_schema.clone();
    check(&[add_schema.clone(), set_schema], "/current-schema-id", json!(1)).await;
    let remove = json!({"action": "remove-schemas", "schema-ids": [1]});
    check(&[add, remove], "/schemas/1", Value::Null).await;

    let add_spec = json!({"action": "add-spec", "spec": {"fields": [
        {"source-id": 1, "transform": "bucket[16]", "name": "b"}]}});
    check(std::slice::from_ref(&add_spec), "/partition-specs/1/fields/0/name", json!("b")).await;
    let set = json!({"action": "set-default-spec", "spec-id": 1});
    check(&[add_spec.clone(), set], "/default-spec-id", json!(1)).await;
    let remove = json!({"action": "remove-partition-specs", "spec-ids": [1]});
    check(&[add_spec, remove], "/partition-specs/1", Value::Null).await;

    let add_order = json!({"action": "add-sort-order", "sort-order": {"order-id": 1, "fields": [
        {"transform": "identity", "source-id": 1, "direction": "asc",
         "null-order": "nulls-first"}]}});
    let count = std::slice::from_ref(&add_order);
    check(count, "/sort-orders/1/fields/0/source-id", json!(1)).await;
    let set = json!({"action": "set-default-sort-order", "sort-order-id": 1});
    check(&[add_order, set], "/default-sort-order-id", json!(1)).await;
}

#[tokio::test]
async fn refs_and_snapshots_are_added_set_and_removed() {
    // Every check has the snapshot 11, which `add-snapshot` and `set-snapshot-ref` made.
    check(
        &[json!({"action": "set-snapshot-ref", "ref-name": "v1", "type": "tag", "snapshot-id": 11,
            "max-ref-age-ms": 5})],
        "/refs/v1",
        json!({"snapshot-id": 11, "type": "tag", "max-ref-age-ms": 5}),
    )
    .await;
    let branch = json!({"action": "set-snapshot-ref", "ref-name": "b", "type": "branch",
        "snapshot-id": 11, "min-snapshots-to-keep": 3});
    let remove = json!({"action": "remove-snapshot-ref", "ref-name": "b"});
    check(&[branch, remove.clone()], "/refs/b", Value::Null).await;
    let remove_main = json!({"action": "remove-snapshot-ref", "ref-name": "main"});
    check(std::slice::from_ref(&remove_main), "/current-snapshot-id", Value::Null).await;
    // With the snapshot goes the history, and it does not go before the branch that names it.
    let expire = json!({"action": "remove-snapshots", "snapshot-ids": [11]});
    let both = [remove_main, expire.clone()];
    for pointer in ["/snapshots/0", "/refs/main", "/current-snapshot-id", "/snapshot-log/0"] {
        check(&both, pointer, Value::Null).await;
    }
    let (server, _) = with_snapshot().await;
    let refused = server.post(PATH, json!({"updates": [expire]})).await;
    let text = refused.refused(409, "CommitFailedException");
    assert!(text.contains("`main`"), "{text}");
    let made = server.post(PATH, json!({"updates": both})).await.ok();
    assert_eq!(made["metadata"]["refs"]["main"], Value::Null);
}

#[tokio::test]
async fn statistics_are_set_and_removed() {
    let set = json!({"action": "set-statistics", "snapshot-id": 11, "statistics": {
        "snapshot-id": 11, "statistics-path": "{location}/metadata/1.puffin",
        "file-size-in-bytes": 9, "file-footer-size-in-bytes": 5, "blob-metadata": []}});
    check(std::slice::from_ref(&set), "/statistics/0/file-size-in-bytes", json!(9)).await;
    let remove = json!({"action": "remove-statistics", "snapshot-id": 11});
    check(&[set, remove], "/statistics/0", Value::Null).await;
    let set = json!({"action": "set-partition-statistics", "partition-statistics": {
        "snapshot-id": 11, "statistics-path": "{location}/metadata/1.parquet",
        "file-size-in-bytes": 7}});
    let size = "/partition-statistics/0/file-size-in-bytes";
    check(std::slice::from_ref(&set), size, json!(7)).await;
    let remove = json!({"action": "remove-partition-statistics", "snapshot-id": 11});
    check(&[set, remove], "/partition-statistics/0", Value::Null).await;
}

#[tokio::test]
async fn properties_location_and_version_are_set() {
    let set = json!({"action": "set-properties", "updates": {"k": "v"}});
    check(std::slice::from_ref(&set), "/properties/k", json!("v")).await;
    let remove = json!({"action": "remove-properties", "removals": ["k", "none"]});
    check(&[set, remove], "/properties", json!({"owner": "ann"})).await;
    // The table that every check starts with was upgraded.
    let upgrade = json!({"action": "upgrade-format-version", "format-version": 3});
    check(&[upgrade], "/format-version", json!(3)).await;

    let (server, table) = with_snapshot().await;
    let to = format!("{}/elsewhere", server.root);
    let update = json!({"updates": [{"action": "set-location", "location": to}]});
    let moved = server.post(PATH, update).await.ok();
    assert_eq!(moved["metadata"]["location"], json!(to));
    let uuid = &table["metadata"]["table-uuid"];
    let same = json!({"updates": [{"action": "assign-uuid", "uuid": uuid}]});
    server.post(PATH, same).await.ok();
    let other = json!({"updates": [{"action": "assign-uuid",
        "uuid": "9c12d441-03fe-4693-9a96-a0705ddf69c1"}]});
    server.post(PATH, other).await.refused(400, "BadRequestException");
    let back = json!({"updates": [{"action": "upgrade-format-version", "format-version": 2}]});
    server.post(PATH, back).await.refused(400, "BadRequestException");
}

#[tokio::test]
async fn encryption_keys_are_kept_where_the_format_has_them() {
    let key = json!({"key-id": "k1", "encrypted-key-metadata": "a2V5", "encrypted-by-id": "kms"});
    let add = json!({"action": "add-encryption-key", "encryption-key": key});
    check(std::slice::from_ref(&add), "/encryption-keys/0/key-id", json!("k1")).await;
    let remove = json!({"action": "remove-encryption-key", "key-id": "k1"});
    check(&[add.clone(), remove], "/encryption-keys/0", Value::Null).await;
    let (server, _) = Server::with_table().await;
    let refused = server.post(PATH, json!({"updates": [add]})).await;
    let text = refused.refused(400, "BadRequestException");
    assert!(text.contains("format version 3"), "{text}");
}

#[tokio::test]
async fn every_requirement_holds_or_is_a_conflict() {
    let (server, table) = with_snapshot().await;
    let uuid = &table["metadata"]["table-uuid"];
    let holds = |kind: &str, member: &str, value: Value| json!({"type": kind, member: value});
    let pairs = [
        ("assert-table-uuid", "uuid", uuid.clone(), json!("9c12d441-03fe-4693-9a96-a0705ddf69c1")),
        ("assert-last-assigned-field-id", "last-assigned-field-id", json!(2), json!(3)),
        ("assert-current-schema-id", "current-schema-id", json!(0), json!(1)),
        ("assert-last-assigned-partition-id", "last-assigned-partition-id", json!(1000), json!(1)),
        ("assert-default-spec-id", "default-spec-id", json!(0), json!(1)),
        ("assert-default-sort-order-id", "default-sort-order-id", json!(0), json!(1)),
    ];
    let mut cases: Vec<(Value, Value)> = pairs
        .into_iter()
        .map(|(kind, member, good, bad)| (holds(kind, member, good), holds(kind, member, bad)))
        .collect();
    let on = |name: &str, id: Value| json!({"type": "assert-ref-snapshot-id", "ref": name, "snapshot-id": id});
    cases.push((on("main", json!(11)), on("main", json!(12))));
    cases.push((on("new", Value::Null), on("main", Value::Null)));
    for (number, (good, bad)) in cases.into_iter().enumerate() {
        let commit = |requirement: Value| {
            json!({"requirements": [requirement], "updates": [
                {"action": "set-properties", "updates": {"k": number.to_string()}}]})
        };
        server.post(PATH, commit(good)).await.ok();
        let failed = server.post(PATH, commit(bad)).await;
        let text = failed.refused(409, "CommitFailedException");
        assert!(text.starts_with("Requirement failed: "), "{text}");
    }
    let create = json!({"requirements": [{"type": "assert-create"}], "updates": []});
    server.post(PATH, create).await.refused(409, "CommitFailedException");
}
