//! Views over HTTP.

use super::*;

/// A create as Java's client sends it.
pub(super) fn new_view(name: &str, sql: &str) -> Value {
    json!({
        "name": name,
        "schema": {"type": "struct", "schema-id": 0, "fields": [
            {"id": 1, "name": "id", "type": "long", "required": false},
        ]},
        "view-version": version(sql),
        "properties": {"owner": "ann"},
    })
}

fn version(sql: &str) -> Value {
    json!({
        "version-id": 1,
        "timestamp-ms": 1_700_000_000_000i64,
        "schema-id": 0,
        "summary": {"engine-name": "spark"},
        "default-catalog": null,
        "default-namespace": ["ns"],
        "representations": [{"type": "sql", "sql": sql, "dialect": "spark"}],
    })
}

#[tokio::test]
async fn a_view_is_created_loaded_listed_replaced_renamed_and_dropped() {
    let (server, _) = Server::with_table().await;
    let path = "/v1/icecore/namespaces/ns/views/v";
    server.get(path).await.refused(404, "NoSuchViewException");
    let head = server.call(Method::HEAD, path).await;
    assert_eq!((head.status, head.body), (StatusCode::NOT_FOUND, Value::Null));
    let created = server.post("/v1/namespaces/ns/views", new_view("v", "select 1")).await.ok();
    let metadata = &created["metadata"];
    assert_eq!(
        (&metadata["format-version"], &metadata["current-version-id"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(metadata["properties"], json!({"owner": "ann"}));
    assert_eq!(created["config"], json!({}));
    assert_eq!(server.get(path).await.ok(), created);
    server.call(Method::HEAD, path).await.empty();
    let list = server.get("/v1/namespaces/ns/views?pageToken=&pageSize=1").await.ok();
    let identifiers = json!([{"namespace": ["ns"], "name": "v"}]);
    assert_eq!(list, json!({"identifiers": identifiers, "next-page-token": null}));
    let tables = server.get("/v1/namespaces/ns/tables").await.ok();
    assert_eq!(tables["identifiers"], json!([{"namespace": ["ns"], "name": "t"}]));

    let replace = json!({
        "requirements": [{"type": "assert-view-uuid", "uuid": metadata["view-uuid"]}],
        "updates": [
            {"action": "add-schema", "schema": {"type": "struct", "schema-id": 1, "fields": [
                {"id": 1, "name": "n", "type": "string", "required": false},
            ]}, "last-column-id": 1},
            {"action": "add-view-version", "view-version": {
                "version-id": 2, "timestamp-ms": 1_700_000_000_001i64, "schema-id": -1,
                "summary": {}, "default-namespace": ["ns"],
                "representations": [{"type": "sql", "sql": "select 2", "dialect": "spark"}]}},
            {"action": "set-current-view-version", "view-version-id": -1},
            {"action": "remove-properties", "removals": ["owner"]},
        ],
    });
    let replaced = server.post(path, &replace).await.ok();
    assert_eq!(replaced["metadata"]["current-version-id"], json!(2));
    assert_eq!(replaced["metadata"]["properties"], json!({}));
    assert_eq!(replaced["metadata"]["schemas"].as_array().unwrap().len(), 2);
    let mut other = replace;
    other["requirements"][0]["uuid"] = json!("9c12d441-03fe-4693-9a96-a0705ddf69c1");
    server.post(path, other).await.refused(409, "CommitFailedException");

    let rename = |from: &str, to: &str| {
        json!({"source": {"namespace": ["ns"], "name": from},
               "destination": {"namespace": ["ns"], "name": to}})
    };
    let taken = server.post("/v1/views/rename", rename("v", "t")).await;
    let text = taken.refused(409, "AlreadyExistsException");
    assert_eq!(text, "Cannot rename ns.v to ns.t. Table already exists");
    let missing = server.post("/v1/views/rename", rename("t", "w")).await;
    missing.refused(404, "NoSuchViewException");
    server.post("/v1/views/rename", rename("v", "w")).await.empty();
    server.get(path).await.refused(404, "NoSuchViewException");

    let path = "/v1/namespaces/ns/views/w";
    server.call(Method::DELETE, path).await.empty();
    server.call(Method::DELETE, path).await.refused(404, "NoSuchViewException");
    let again = json!({"name": "back", "metadata-location": replaced["metadata-location"]});
    let back = server.post("/v1/namespaces/ns/register-view", again).await.ok();
    assert_eq!(back["metadata"], replaced["metadata"]);
}

#[tokio::test]
async fn a_name_is_a_table_or_a_view() {
    let (server, _) = Server::with_table().await;
    server.post("/v1/namespaces/ns/views", new_view("v", "select 1")).await.ok();
    let mut staged = new_table("v");
    for stage in [false, true] {
        staged["stage-create"] = json!(stage);
        let taken = server.post("/v1/namespaces/ns/tables", &staged).await;
        let text = taken.refused(409, "AlreadyExistsException");
        assert_eq!(text, "View with same name already exists: ns.v");
    }
    let commit = json!({"requirements": [{"type": "assert-create"}], "updates": [
        {"action": "add-schema", "schema": new_table("v")["schema"]}]});
    let taken = server.post("/v1/namespaces/ns/tables/v", commit).await;
    let text = taken.refused(409, "AlreadyExistsException");
    assert_eq!(text, "View with same name already exists: ns.v");
    let taken = server.post("/v1/namespaces/ns/views", new_view("t", "select 1")).await;
    let text = taken.refused(409, "AlreadyExistsException");
    assert_eq!(text, "Table with same name already exists: ns.t");
    server.get("/v1/namespaces/ns/tables/v").await.refused(404, "NoSuchTableException");
    server.get("/v1/namespaces/ns/views/t").await.refused(404, "NoSuchViewException");
    server.get("/v1/namespaces/no/views").await.refused(404, "NoSuchNamespaceException");
    server.get("/v1/namespaces/no/views/v").await.refused(404, "NoSuchViewException");
    let homeless = server.post("/v1/namespaces/no/views", new_view("v", "select 1")).await;
    homeless.refused(404, "NoSuchNamespaceException");
}

#[tokio::test]
async fn views_that_make_no_sense_are_refused() {
    let (server, _) = Server::with_table().await;
    let path = "/v1/namespaces/ns/views";
    let mut view = new_view("v", "select 1");
    view["view-version"]["representations"] = json!([]);
    server.post(path, &view).await.refused(400, "IllegalArgumentException");
    let sql = |dialect: &str| json!({"type": "sql", "sql": "select 1", "dialect": dialect});
    view["view-version"]["representations"] = json!([sql("trino"), sql("Trino")]);
    let text = server.post(path, &view).await.refused(400, "IllegalArgumentException");
    assert!(text.contains("multiple queries for dialect"), "{text}");
    view["view-version"]["representations"] = json!([{"type": "plan", "bytes": "x"}]);
    server.post(path, &view).await.refused(400, "BadRequestException");
    server.post(path, new_view("", "select 1")).await.refused(400, "BadRequestException");

    server.post(path, new_view("v", "select 1")).await.ok();
    for (body, name) in [
        (json!({"updates": [{"action": "add-snapshot"}]}), "add-snapshot"),
        (json!({"requirements": [{"type": "assert-create"}], "updates": []}), "assert-create"),
    ] {
        let answer = server.post("/v1/namespaces/ns/views/v", body).await;
        let text = answer.refused(400, "BadRequestException");
        assert!(text.contains(name), "{text}");
    }
}
