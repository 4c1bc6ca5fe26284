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
    let mut column = with_column("long", "2");
    column["schema"]["fields"][0]["initial-default"] = json!(7);
    let text = server.post(tables, column.clone()).await.refused(400, "BadRequestException");
    assert!(text.contains("initial-default needs format version 3"), "{text}");
    let mut spec = with_column("long", "2");
    spec["partition-spec"]["fields"][0]["transform"] = json!("zorder");
    let text = server.post(tables, spec).await.refused(400, "BadRequestException");
    assert!(text.contains("field `dt`: there is no transform `zorder`"), "{text}");
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
