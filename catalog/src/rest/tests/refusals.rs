//! Requests that are refused, and what their clients are told to change.

use super::*;

fn with_column(kind: &str, version: &str) -> Value {
    let mut table = new_table("u");
    table["schema"]["fields"][0]["type"] = json!(kind);
    table["properties"] = json!({"format-version": version});
    table
}

#[tokio::test]
async fn columns_that_no_reader_could_read_are_refused_by_name() {
    let (server, table) = Server::with_table().await;
    let tables = "/v1/namespaces/ns/tables";
    for (kind, version, expected) in [
        ("variant", "3", "column `id`: the type `variant` is not supported here"),
        ("unknown", "3", "`unknown`"),
        ("geometry", "3", "`geometry`"),
        ("geography", "3", "`geography`"),
        ("decimal(40, 2)", "2", "1 to 38 digits"),
        ("decimal(5, 9)", "2", "1 to 38 digits"),
        ("fixed[0]", "2", "1 or more"),
        ("timestamp_ns", "2", "format version 3"),
        ("timestamptz_ns", "2", "format version 3"),
    ] {
        let refused = server.post(tables, with_column(kind, version)).await;
        let text = refused.refused(400, "BadRequestException");
        assert!(text.contains(expected), "{kind}: {text}");
        let mut schema = with_column(kind, version)["schema"].clone();
        schema["schema-id"] = json!(7);
        schema["fields"][0]["id"] = json!(9);
        let add = json!({"updates": [{"action": "add-schema", "schema": schema}]});
        if version == "2" {
            let refused = server.post(&format!("{tables}/t"), add).await;
            let text = refused.refused(400, "BadRequestException");
            assert!(text.contains(expected), "{kind}: {text}");
        }
    }
    let column = |members: Value| json!({"type": "struct", "fields": [members]});
    let nested =
        |kind: Value| column(json!({"id": 1, "name": "n", "required": true, "type": kind}));
    for (schema, expected) in [
        (column(json!({"name": "n", "required": true, "type": "long"})), "column `n` has no `id`"),
        (column(json!({"id": 1, "name": "n", "type": "long"})), "column `n` has no `required`"),
        (nested(json!({"type": "list", "element": "long"})), "a list has no `element-id`"),
        (
            nested(column(json!({"id": 2, "name": "m", "required": true}))),
            "column `m` has no `type`",
        ),
        (
            json!({"type": "struct", "fields": [
                {"id": 1, "name": "n", "required": true, "type": "long"},
                {"id": 2, "name": "n", "required": true, "type": "long"}]}),
            "request body: Invalid schema: multiple fields for name n",
        ),
    ] {
        let refused = server.post(tables, json!({"name": "u", "schema": schema})).await;
        let text = refused.refused(400, "BadRequestException");
        assert!(text.contains(expected), "{text}");
    }
    let mut column = with_column("long", "2");
    column["schema"]["fields"][0]["initial-default"] = json!(7);
    let text = server.post(tables, column.clone()).await.refused(400, "BadRequestException");
    assert!(text.contains("initial-default needs format version 3"), "{text}");
    let mut spec = with_column("long", "2");
    spec["partition-spec"]["fields"][0]["transform"] = json!("zorder");
    let text = server.post(tables, spec).await.refused(400, "BadRequestException");
    assert!(text.contains("field `dt`: unknown transform `zorder`"), "{text}");
    // With version 3 it is right.
    column["properties"]["format-version"] = json!("3");
    server.post(tables, column).await.ok();
    server.call(Method::DELETE, &format!("{tables}/u")).await.empty();
    server.post(tables, with_column("timestamp_ns", "3")).await.ok();

    let mut of_no_schema = add_snapshot(&table, 11, None, &server.root);
    of_no_schema["updates"][0]["snapshot"]["schema-id"] = json!(5);
    let refused = server.post(&format!("{tables}/t"), of_no_schema).await;
    let text = refused.refused(400, "BadRequestException");
    assert!(text.contains("the table has no schema 5"), "{text}");
}

#[tokio::test]
async fn a_file_that_is_not_read_or_is_there_already_is_refused_with_the_cause() {
    let (server, table) = Server::with_table().await;
    let register = "/v1/namespaces/ns/register";
    let location = table["metadata-location"].as_str().unwrap();
    let again = json!({"name": "other", "metadata-location": location});
    let text = server.post(register, &again).await.refused(409, "AlreadyExistsException");
    assert!(text.contains("this one is ns.t") && !text.contains("other"), "{text}");

    let view = super::views::new_view("v", "select 1");
    let view = server.post("/v1/namespaces/ns/views", view).await.ok();
    let again = json!({"name": "w", "metadata-location": view["metadata-location"]});
    let again = server.post("/v1/namespaces/ns/register-view", again).await;
    let text = again.refused(409, "AlreadyExistsException");
    assert!(text.contains("this one is ns.v"), "{text}");

    let path = location.strip_prefix("file://").unwrap();
    let mut file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    file["schemas"][0]["fields"][0]["type"] = json!("variant");
    let other = format!("{}.other.metadata.json", location.strip_suffix(".metadata.json").unwrap());
    std::fs::write(other.strip_prefix("file://").unwrap(), file.to_string()).unwrap();
    let body = json!({"name": "x", "metadata-location": other});
    let text = server.post(register, body).await.refused(400, "BadRequestException");
    assert!(text.contains("column `id`: the type `variant` is not supported"), "{text}");
    // A view's file is looked at as a table's is.
    let location = view["metadata-location"].as_str().unwrap();
    let mut file: Value =
        serde_json::from_slice(&std::fs::read(location.strip_prefix("file://").unwrap()).unwrap())
            .unwrap();
    file["view-uuid"] = json!(uuid::Uuid::from_u128(5));
    file["schemas"][0]["fields"][0] = json!({"id": 1, "name": "c", "required": false,
        "type": "time", "initial-default": "23:59:60.5"});
    let other = format!("{}.other.metadata.json", location.strip_suffix(".metadata.json").unwrap());
    std::fs::write(other.strip_prefix("file://").unwrap(), file.to_string()).unwrap();
    let body = json!({"name": "x", "metadata-location": other});
    let refused = server.post("/v1/namespaces/ns/register-view", body).await;
    let text = refused.refused(400, "BadRequestException");
    assert!(text.contains("initial-default") && text.contains("column \"c\""), "{text}");
}

#[tokio::test]
async fn a_width_that_no_engine_can_count_with_is_refused_wherever_it_comes_from() {
    let (server, made) = Server::with_table().await;
    let field = |transform: &str| json!({"source-id": 1, "name": "p", "transform": transform});
    let sorted = |transform: &str| json!({"source-id": 1, "transform": transform, "direction": "asc", "null-order": "nulls-first"});
    let schema = made["metadata"]["schemas"][0].clone();
    for transform in [
        "bucket[0]",
        "bucket[2147483648]",
        "bucket[4294967295]",
        "bucket[4294967296]",
        "bucket[-1]",
        "truncate[0]",
        "truncate[2147483648]",
        "bucket[]",
        "bucket[1.5]",
    ] {
        let spec = json!({"name": "x", "schema": schema, "partition-spec": {"fields": [field(transform)]}});
        let order = json!({"name": "x", "schema": schema, "write-order": {"order-id": 1, "fields": [sorted(transform)]}});
        let staged = json!({"name": "x", "schema": schema, "stage-create": true, "partition-spec": {"fields": [field(transform)]}});
        for body in [spec, order, staged] {
            let refused = server.post("/v1/namespaces/ns/tables", body).await;
            let text = refused.refused(400, "BadRequestException");
            assert!(text.contains(transform.split('[').next().unwrap()), "{text}");
        }
        for update in [
            json!({"action": "add-spec", "spec": {"fields": [field(transform)]}}),
            json!({"action": "add-sort-order", "sort-order": {"order-id": 1, "fields": [sorted(transform)]}}),
        ] {
            let refused =
                server.post("/v1/namespaces/ns/tables/t", json!({"updates": [update]})).await;
            refused.refused(400, "BadRequestException");
        }
        let create = json!({"requirements": [{"type": "assert-create"}], "updates": [
            {"action": "add-schema", "schema": schema}, {"action": "set-current-schema", "schema-id": -1},
            {"action": "add-spec", "spec": {"spec-id": 0, "fields": [{"source-id": 1, "field-id": 1000, "name": "p", "transform": transform}]}},
            {"action": "set-default-spec", "spec-id": -1}]});
        let refused = server.post("/v1/namespaces/ns/tables/x", create).await;
        refused.refused(400, "BadRequestException");
        // One that an earlier version took, or another catalog.
        let mut metadata = made["metadata"].clone();
        metadata["partition-specs"] = json!([{"spec-id": 0, "fields": [{"source-id": 1, "field-id": 1000, "name": "p", "transform": transform}]}]);
        metadata["location"] = json!(format!("{}/elsewhere", server.root));
        metadata["table-uuid"] = json!("9c12d441-03fe-4693-9a96-a0705ddf69c1");
        metadata["metadata-log"] = json!([]);
        let file = format!("{}/elsewhere/metadata/v1.metadata.json", server.root);
        server.catalog.storage().put(&file, metadata.to_string().into()).await.unwrap();
        let register = json!({"name": "y", "metadata-location": file});
        let refused = server.post("/v1/namespaces/ns/register", register).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{transform} {}", refused.body);
    }
    for transform in ["bucket[1]", "bucket[2147483647]", "truncate[1]", "truncate[2147483647]"] {
        let update = json!({"action": "add-spec", "spec": {"fields": [
            {"source-id": 1, "name": transform, "transform": transform}]}});
        server.post("/v1/namespaces/ns/tables/t", json!({"updates": [update]})).await.ok();
    }
}

/// Sends a body's bytes as Iceberg's Java client does.
async fn send_as_java(server: &Server, path: &str, body: &[u8]) -> Answer {
    let request = Request::builder().method("POST").uri(path);
    let request = request.header("content-type", "application/json");
    let request = request.header("x-client-version", "Apache Iceberg 1.10.1 (commit 1234)");
    server.send(request.body(Body::from(body.to_vec())).unwrap()).await
}

fn latin1(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect()
}

#[tokio::test]
async fn names_arrive_whole_from_a_client_that_sends_latin1_or_are_refused() {
    let server = Server::start().await;
    let create = |name: &str| latin1(&json!({"namespace": [name]}).to_string());
    for name in ["größe", "\u{a0}ÿ", "plain", "a?b"] {
        let made = send_as_java(&server, "/v1/namespaces", &create(name)).await.ok();
        assert_eq!(made["namespace"], json!([name]));
    }
    let table = json!({"name": "tä", "schema": {"type": "struct", "schema-id": 0, "fields": [
        {"id": 1, "name": "spälte", "type": "long", "required": false}]}});
    let path = format!("/v1/namespaces/{}/tables", crate::rest::request::path_segment("größe"));
    let made = send_as_java(&server, &path, &latin1(&table.to_string())).await.ok();
    assert_eq!(made["metadata"]["schemas"][0]["fields"][0]["name"], json!("spälte"));
    for name in ["日", "日本", "ü日"] {
        let refused = send_as_java(&server, "/v1/namespaces", &create(name)).await;
        let text = refused.refused(400, "BadRequestException");
        assert!(text.contains("ISO-8859-1") && text.contains("PyIceberg"), "{text}");
    }
    // Anybody else is told what JSON is.
    let request = Request::builder().method("POST").uri("/v1/namespaces");
    let refused = server.send(request.body(Body::from(create("ü"))).unwrap()).await;
    let text = refused.refused(400, "BadRequestException");
    assert!(text.contains("UTF-8"), "{text}");
    server.post("/v1/namespaces", json!({"namespace": ["?"]})).await.ok();
    server.post("/v1/namespaces", json!({"namespace": ["日本"]})).await.ok();
}

#[tokio::test]
async fn a_client_that_adds_a_column_does_not_spoil_the_names_of_others() {
    let server = Server::start().await;
    server.post("/v1/namespaces", json!({"namespace": ["ns"]})).await.ok();
    let columns = |name: &str, more: &[&str]| {
        let names = std::iter::once(name).chain(more.iter().copied());
        let fields: Vec<Value> = names
            .zip(1..)
            .map(|(name, id)| json!({"id": id, "name": name, "type": "long", "required": false}))
            .collect();
        json!({"type": "struct", "schema-id": 0, "fields": fields})
    };
    let table = json!({"name": "t", "schema": columns("x日y", &[])});
    server.post("/v1/namespaces/ns/tables", table).await.ok();
    let add = |schema: Value| {
        json!({"updates": [{"action": "add-schema", "schema": schema},
        {"action": "set-current-schema", "schema-id": -1}]})
    };
    let body = latin1(&add(columns("x日y", &["new"])).to_string());
    let refused = send_as_java(&server, "/v1/namespaces/ns/tables/t", &body).await;
    let text = refused.refused(400, "BadRequestException");
    assert!(text.contains("`x日y`"), "{text}");
    server.post("/v1/namespaces/ns/tables/t", add(columns("x日y", &["new"]))).await.ok();
    server.post("/v1/namespaces/ns/tables/t", add(columns("xy", &["new"]))).await.ok();
}
