//! Keys for files where the service shows rows by who asks.

use super::*;
use crate::{
    access::{AccessControl, TokenRequest, make_token},
    metastore::Metastore,
};

/// A server whose tokens do not all see every row.
struct KeyServer {
    server: Server,
    store: Metastore,
}

impl KeyServer {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Metastore::sqlite(&folder.path().join("icecore.db")).await.unwrap();
        let storage = Storage::bucket_in_memory("s3://bucket/warehouse");
        let root = storage.root().to_owned();
        let options = CatalogOptions { hides_rows: true, ..CatalogOptions::default() };
        let now = || NOW_MS;
        let access = AccessControl::on(store.clone(), Arc::new(now), None);
        let catalog =
            Catalog::with_options("icecore", storage, store.clone(), Arc::new(now), options);
        let router = router_for(catalog.clone(), access);
        Self { server: Server { router, catalog, root, folder }, store }
    }

    async fn token(&self, scope: &str) -> String {
        let request = TokenRequest {
            name: scope.to_owned(),
            home: None,
            scopes: vec![scope.parse().unwrap()],
            lifetime: None,
        };
        make_token(&self.store, request, NOW_MS).await.unwrap().text
    }

    async fn send(&self, token: &str, method: Method, path: &str, body: &Value) -> Answer {
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header("x-iceberg-access-delegation", "vended-credentials");
        self.server.send(request.body(body).unwrap()).await
    }
}

#[tokio::test]
async fn keys_for_files_with_rows_that_are_not_seen_are_for_admin_alone() {
    let house = KeyServer::start().await;
    let admin = house.token("admin:*").await;
    let namespace = json!({"namespace": ["ns"]});
    house.send(&admin, Method::POST, "/v1/namespaces", &namespace).await.ok();
    let tables = "/v1/namespaces/ns/tables";
    house.send(&admin, Method::POST, tables, &new_table("t")).await.ok();
    let table = format!("{tables}/t");
    let credentials = format!("{table}/credentials");
    for scope in ["read:ns", "write:*", "read.team:ns"] {
        let token = house.token(scope).await;
        let loaded = house.send(&token, Method::GET, &table, &Value::Null).await.ok();
        assert_eq!(loaded.get("storage-credentials"), None, "{scope}: {loaded}");
        let config = loaded["config"].to_string();
        assert!(!config.contains("secret-access-key"), "{scope}: {config}");
        let refused = house.send(&token, Method::GET, &credentials, &Value::Null).await;
        let text = refused.refused(403, "ForbiddenException");
        assert!(text.contains("visibility.filter") && text.contains("`admin`"), "{text}");
    }
    let loaded = house.send(&admin, Method::GET, &table, &Value::Null).await.ok();
    assert!(loaded["storage-credentials"][0]["prefix"].is_string(), "{loaded}");
    house.send(&admin, Method::GET, &credentials, &Value::Null).await.ok();
}

#[tokio::test]
async fn the_column_that_hides_rows_is_forgotten_by_those_alone_who_see_all_of_them() {
    let house = KeyServer::start().await;
    let (admin, writer) = (house.token("admin:*").await, house.token("write:*").await);
    let namespace = json!({"namespace": ["ns"]});
    house.send(&admin, Method::POST, "/v1/namespaces", &namespace).await.ok();
    let tables = "/v1/namespaces/ns/tables";
    let schema = |name: &str| json!({"type": "struct", "schema-id": 0, "fields": [{"id": 1, "name": name, "type": "string", "required": false}]});
    for (table, column) in [("t", "Visibility"), ("other", "vis")] {
        let new = json!({"name": table, "schema": schema(column)});
        house.send(&admin, Method::POST, tables, &new).await.ok();
    }
    let rename = json!([
        {"action": "add-schema", "schema": schema("seen")},
        {"action": "set-current-schema", "schema-id": -1},
    ]);
    let forget = json!([{"action": "remove-schemas", "schema-ids": [0]}]);
    let both: Vec<Value> =
        [&rename, &forget].into_iter().flat_map(|part| part.as_array().unwrap().clone()).collect();
    let commit = |updates: &Value| json!({"requirements": [], "updates": updates});
    let path = |table: &str| format!("{tables}/{table}");
    let at_once = commit(&json!(both));
    let refused = house.send(&writer, Method::POST, &path("t"), &at_once).await;
    let text = refused.refused(403, "ForbiddenException");
    assert!(text.contains("visibility.filter") && text.contains("`admin`"), "{text}");
    house.send(&writer, Method::POST, &path("t"), &commit(&rename)).await.ok();
    let change = json!({"identifier": {"namespace": ["ns"], "name": "t"}, "requirements": [], "updates": forget});
    let transaction = json!({"table-changes": [change]});
    for (to, body) in
        [(path("t"), commit(&forget)), ("/v1/transactions/commit".into(), transaction)]
    {
        let refused = house.send(&writer, Method::POST, &to, &body).await;
        refused.refused(403, "ForbiddenException");
    }
    // A column of another name hides nothing, and who sees all rows may do it.
    house.send(&writer, Method::POST, &path("other"), &at_once).await.ok();
    house.send(&admin, Method::POST, &path("t"), &commit(&forget)).await.ok();
    let loaded = house.send(&admin, Method::GET, &path("other"), &Value::Null).await.ok();
    let file = json!({"name": "again", "metadata-location": loaded["metadata-location"]});
    let register = "/v1/namespaces/ns/register";
    let refused = house.send(&writer, Method::POST, register, &file).await;
    let text = refused.refused(403, "ForbiddenException");
    assert!(text.contains("registering"), "{text}");
}
