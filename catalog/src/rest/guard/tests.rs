use super::*;
use crate::{
    access::{AccessControl, PeerAddress, TokenRequest, make_token},
    audit::{AuditedCall, details},
    catalog::Catalog,
    metastore::Metastore,
    rest::{router, router_for},
    storage::{S3Options, Storage},
};
use axum::Router;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tower::ServiceExt;

struct Server {
    router: Router,
    access: AccessControl,
    store: Metastore,
    _folder: tempfile::TempDir,
}

struct Answer {
    status: u16,
    headers: axum::http::HeaderMap,
    body: Value,
}

async fn catalog() -> (tempfile::TempDir, Metastore, Catalog) {
    let folder = tempfile::tempdir().unwrap();
    let warehouse = format!("file://{}/warehouse", folder.path().display());
    let storage = Storage::open(&warehouse, &S3Options::default()).unwrap();
    let store = Metastore::sqlite(&folder.path().join("icecore.db")).await.unwrap();
    let now = Arc::new(|| 1_800_000_000_000);
    let catalog = Catalog::new("icecore", storage, store.clone(), now);
    (folder, store, catalog)
}

impl Server {
    /// With namespaces `a`, `a/sub` and `b`, and a table `t` in each of `a` and `b`.
    async fn start() -> (Self, String) {
        let (folder, store, catalog) = catalog().await;
        let access = AccessControl::on(store.clone(), Arc::new(|| 1_800_000_000_000), None);
        let router = router_for(catalog, access.clone());
        let server = Self { router, access, store, _folder: folder };
        let admin = server.token(&["admin:*"]).await;
        for namespace in [json!(["a"]), json!(["a", "sub"]), json!(["b"])] {
            let made = json!({"namespace": namespace});
            assert_eq!(server.post(&admin, "/v1/namespaces", made).await.status, 200);
        }
        for namespace in ["a", "b"] {
            let path = format!("/v1/namespaces/{namespace}/tables");
            assert_eq!(server.post(&admin, &path, table("t")).await.status, 200);
        }
        (server, admin)
    }

    async fn token(&self, scopes: &[&str]) -> String {
        self.token_for(scopes, None).await
    }

    async fn token_for(&self, scopes: &[&str], lifetime: Option<Duration>) -> String {
        let request = TokenRequest {
            name: "test".to_owned(),
            home: None,
            scopes: scopes.iter().map(|scope| scope.parse().unwrap()).collect(),
            lifetime,
        };
        make_token(&self.store, request, 1_800_000_000_000).await.unwrap().text
    }

    async fn send(&self, method: &str, token: &str, path: &str, body: String) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !token.is_empty() {
            request = request.header("authorization", token);
        }
        let request = request.header("x-request-id", "r1").body(Body::from(body)).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        Answer { status, headers, body: serde_json::from_slice(&bytes).unwrap_or_default() }
    }

    async fn call(&self, method: &str, token: &str, path: &str) -> Answer {
        self.send(method, &format!("Bearer {token}"), path, String::new()).await
    }

    async fn get(&self, token: &str, path: &str) -> Answer {
        self.call("GET", token, path).await
    }

    async fn post(&self, token: &str, path: &str, body: Value) -> Answer {
        self.send("POST", &format!("Bearer {token}"), path, body.to_string()).await
    }

    async fn form(&self, authorization: &str, form: &str) -> Answer {
        self.send("POST", authorization, "/v1/oauth/tokens", form.to_owned()).await
    }
}

fn table(name: &str) -> Value {
    json!({"name": name, "schema": {"type": "struct", "fields": [
        {"id": 1, "name": "n", "type": "long", "required": false}]}})
}

/// Method and path of each route, from how the router describes itself.
fn routes_of(router: &Router) -> BTreeSet<(String, String)> {
    let text = format!("{router:?}");
    let (routes, paths) = text.split_once("Node { paths: {").expect("the router shows its paths");
    let path_of = |id: &str| {
        let (_, after) = paths.split_once(&format!("RouteId({id}): \"")).unwrap();
        after.split_once('"').unwrap().0.to_owned()
    };
    let mut found = BTreeSet::new();
    for route in routes.split("RouteId(").skip(1) {
        let (id, route) = route.split_once("): MethodRouter(").expect("every route has methods");
        let path = path_of(id);
        let fields = route.split_once("fallback:").unwrap().0;
        let mut methods = 0;
        for method in ["get", "head", "delete", "options", "patch", "post", "put", "trace"] {
            let (_, value) = fields.split_once(&format!("{method}: ")).unwrap();
            if !value.starts_with("None") {
                methods += 1;
                found.insert((method.to_uppercase(), path.clone()));
            }
        }
        if methods == 0 {
            found.insert(("any".to_owned(), path));
        }
    }
    found
}

#[tokio::test]
async fn every_route_is_in_the_table_of_what_it_needs() {
    let (_folder, _, catalog) = catalog().await;
    let routes = routes_of(&router(catalog));
    assert!(40 < routes.len(), "{routes:?}");
    for (method, matched) in routes {
        let path = below_version(&matched, "icecore");
        let is_listed = match method.as_str() {
            // It answers every method alike; the table says which of them reach it.
            "any" => ROUTES.iter().any(|(_, known, _)| *known == path),
            method => ROUTES.iter().any(|row| (row.0, row.1) == (method, path.as_str())),
        };
        assert!(is_listed, "{method} {matched}: no row `{path}` in ROUTES");
    }
}

#[tokio::test]
async fn nobody_is_let_in_without_a_valid_token() {
    let (server, admin) = Server::start().await;
    for (method, path, need) in ROUTES {
        let path = format!("/v1{}", path.replace("{}", "a"));
        for (token, challenge) in
            [("", "Bearer"), ("Bearer nonsense", "Bearer error=\"invalid_token\"")]
        {
            let answer = server.send(method, token, &path, String::new()).await;
            if *need == AccessNeed::Open {
                assert_eq!(answer.body["error"], "invalid_request");
                continue;
            }
            assert_eq!(answer.status, 401, "{method} {path}");
            assert_eq!(answer.headers["www-authenticate"], challenge);
            if *method != "HEAD" {
                assert_eq!(answer.body["error"]["type"], "NotAuthorizedException");
                assert_eq!(answer.body["error"]["code"], 401);
            }
        }
    }
    assert_eq!(server.get(&admin, "/v1/config?warehouse=x").await.status, 200);
    assert_eq!(server.get(&server.token(&["ingest:a"]).await, "/v1/config").await.status, 200);
    let wrong = server.call("PATCH", &admin, "/v1/namespaces/a").await;
    assert_eq!((wrong.status, &wrong.headers["allow"]), (405, &"GET,HEAD,DELETE".parse().unwrap()));
}

/// What is there and foreign, what is not there and foreign, and what is not there at all.
#[tokio::test]
async fn foreign_and_missing_objects_answer_alike() {
    let (server, admin) = Server::start().await;
    let stranger = server.token(&["write:c"]).await;
    for (method, path, need) in ROUTES.iter().filter(|(_, path, _)| path.contains("/{}")) {
        assert!(matches!(need, AccessNeed::In(_) | AccessNeed::Makes), "{path}");
        let at = |namespace: &str| {
            format!("/v1{}", path.replacen("{}", namespace, 1).replace("{}", "t"))
        };
        let foreign = server.call(method, &stranger, &at("b")).await;
        let missing = server.call(method, &stranger, &at("x")).await;
        assert_eq!((foreign.status, missing.status), (404, 404), "{method} {path}");
        let renamed = foreign.body.to_string().replace("exist: b", "exist: x");
        assert_eq!(renamed, missing.body.to_string());
        if !path.contains("plan") && !path.contains("tasks") && !path.contains("credentials") {
            let body = table("t").to_string();
            let body = if path.ends_with("/{}") { json!({}).to_string() } else { body };
            let absent = server.send(method, &format!("Bearer {admin}"), &at("x"), body).await;
            let kinds = (&absent.body["error"]["type"], &missing.body["error"]["type"]);
            if absent.status == 404 && !path.contains("views") {
                assert_eq!(kinds.0, kinds.1, "{method} {path}");
                assert_eq!(absent.body, missing.body, "{method} {path}");
            }
        }
    }
    for (path, body) in [
        ("/v1/tables/rename", rename("b", "c")),
        ("/v1/tables/rename", rename("x", "c")),
        ("/v1/tables/rename", rename("c", "b")),
        ("/v1/transactions/commit", commits(&["c", "b"])),
        ("/v1/transactions/commit", commits(&["x"])),
        ("/v1/namespaces", json!({"namespace": ["b", "sub"]})),
        ("/v1/namespaces", json!({"namespace": ["x", "sub"]})),
    ] {
        assert_eq!(server.post(&stranger, path, body.clone()).await.status, 404, "{body}");
    }
    for name in ["b", "x"] {
        let answer = server.post(&stranger, "/v1/namespaces", json!({"namespace": [name]})).await;
        assert_eq!(answer.status, 403);
    }
    assert_eq!(server.get(&stranger, "/v1/namespaces?parent=b").await.status, 404);
    assert_eq!(server.get(&admin, "/v1/icecore/namespaces/b/tables/t").await.status, 200);
    assert_eq!(server.get(&stranger, "/v1/icecore/namespaces/b/tables/t").await.status, 404);
}

fn rename(from: &str, to: &str) -> Value {
    json!({"source": {"namespace": [from], "name": "t"},
           "destination": {"namespace": [to], "name": "u"}})
}

fn commits(namespaces: &[&str]) -> Value {
    let change = |namespace: &&str| {
        json!({"identifier": {"namespace": [namespace], "name": "t"},
               "requirements": [], "updates": []})
    };
    json!({"table-changes": namespaces.iter().map(change).collect::<Vec<_>>()})
}

#[tokio::test]
async fn a_reader_reads_its_namespace_and_is_told_what_it_may_not() {
    let (server, _) = Server::start().await;
    let reader = server.token(&["read:a"]).await;
    for path in ["/v1/namespaces/a", "/v1/namespaces/a/tables", "/v1/namespaces/a/tables/t"] {
        assert_eq!(server.get(&reader, path).await.status, 200, "{path}");
    }
    assert_eq!(server.get(&reader, "/v1/namespaces/a%1Fsub").await.status, 200);
    let refused = [
        server.call("DELETE", &reader, "/v1/namespaces/a/tables/t").await,
        server.post(&reader, "/v1/namespaces/a/tables", table("u")).await,
        server.post(&reader, "/v1/namespaces/a/tables/t", json!({})).await,
        server.post(&reader, "/v1/tables/rename", rename("a", "a")).await,
        server.post(&reader, "/v1/transactions/commit", commits(&["a"])).await,
        server.post(&reader, "/v1/namespaces", json!({"namespace": ["a", "new"]})).await,
    ];
    for answer in refused {
        assert_eq!(answer.status, 403, "{}", answer.body);
        assert_eq!(answer.body["error"]["type"], "ForbiddenException");
    }
    let writer = server.token(&["write:a"]).await;
    assert_eq!(server.post(&writer, "/v1/tables/rename", rename("a", "a")).await.status, 204);
    let made = server.post(&writer, "/v1/namespaces", json!({"namespace": ["a", "new"]})).await;
    assert_eq!(made.status, 200);
}

#[tokio::test]
async fn lists_show_only_what_the_caller_may_see() {
    let (server, admin) = Server::start().await;
    let check = async |scopes: &[&str], path: &str, expected: Value| {
        let token = server.token(scopes).await;
        let answer = server.get(&token, path).await;
        assert_eq!(answer.body["namespaces"], expected, "{scopes:?} {path}");
    };
    check(&["read:*"], "/v1/namespaces", json!([["a"], ["b"]])).await;
    check(&["read:b"], "/v1/namespaces", json!([["b"]])).await;
    check(&["read:a/sub"], "/v1/namespaces", json!([["a"]])).await;
    check(&["read:a/sub"], "/v1/namespaces?parent=a", json!([["a", "sub"]])).await;
    check(&["read:a/other"], "/v1/namespaces?parent=a", json!([])).await;
    check(&["ingest:*"], "/v1/namespaces", json!([])).await;
    let all = server.get(&admin, "/v1/namespaces?pageSize=1&pageToken=").await;
    assert!(all.body["next-page-token"].is_string(), "{}", all.body);
    // A page has the size that was asked for, whatever is left out of the list.
    let reader = server.token(&["read:b"]).await;
    let page = server.get(&reader, "/v1/namespaces?pageSize=1&pageToken=").await;
    assert_eq!(page.body["namespaces"], json!([["b"]]));
    assert_eq!(page.body["next-page-token"], Value::Null);
}

#[tokio::test]
async fn every_change_is_one_record_also_when_it_is_refused() {
    let (server, admin) = Server::start().await;
    let reader = server.token(&["read:a"]).await;
    let before = server.store.audit_ends().await.unwrap().head.number;
    assert_eq!(before, 5, "three namespaces and two tables");
    server.get(&admin, "/v1/namespaces/a/tables/t").await;
    server.post(&admin, "/v1/namespaces/a/tables/t/metrics", json!({})).await;
    server.send("DELETE", "", "/v1/namespaces/a/tables/t", String::new()).await;
    assert_eq!(server.store.audit_ends().await.unwrap().head.number, before, "nothing to record");

    server.call("DELETE", &reader, "/v1/namespaces/a/tables/t").await;
    server.call("DELETE", &reader, "/v1/namespaces/b/tables/t").await;
    server.post(&admin, "/v1/icecore/transactions/commit", commits(&["a", "b"])).await;
    server.send("POST", &format!("Bearer {admin}"), "/v1/namespaces", "{".to_owned()).await;
    server.call("DELETE", &admin, "/v1/namespaces/a/tables/t?purgeRequested=true").await;
    let records = server.store.audit(before, 100).await.unwrap();
    let told: Vec<_> = records
        .iter()
        .map(|record| {
            let entry = &record.entry;
            let who =
                if entry.principal == records[0].entry.principal { "reader" } else { "admin" };
            (who, entry.action.as_str(), entry.object.as_str(), entry.outcome.as_str())
        })
        .collect();
    let drop = "DELETE /v1/namespaces/{}/tables/{}";
    assert_eq!(
        told,
        [
            ("reader", drop, "a.t", "403"),
            ("reader", drop, "b.t", "404"),
            // It has nothing to change.
            ("admin", "POST /v1/transactions/commit", "a.t b.t", "204"),
            ("admin", "POST /v1/namespaces", "", "400"),
            ("admin", drop, "a.t", "done"),
        ]
    );
    assert_eq!(records[0].entry.request, "r1");
    assert_eq!(records[0].entry.details, details("/v1/namespaces/a/tables/t", b""));
}

/// Routes that take another method than one that reads, and change nothing.
const READING: &[(&str, &str)] = &[
    // What a reader measured, asks for, or may do anyhow.
    ("POST", "/namespaces/{}/tables/{}/metrics"),
    ("POST", "/namespaces/{}/tables/{}/plan"),
    ("DELETE", "/namespaces/{}/tables/{}/plan/{}"),
    ("POST", "/namespaces/{}/tables/{}/tasks"),
    ("POST", "/namespaces/{}/tables/{}/sign"),
    ("POST", "/events"),
];

fn new_view(name: &str) -> Value {
    json!({"name": name, "properties": {}, "schema": table("v")["schema"], "view-version": {
        "version-id": 1, "timestamp-ms": 1, "schema-id": 0, "summary": {},
        "default-namespace": ["n"],
        "representations": [{"type": "sql", "sql": "select 1", "dialect": "spark"}]}})
}

fn renames(from: &str, to: &str) -> Value {
    json!({"source": {"namespace": ["n"], "name": from},
           "destination": {"namespace": ["n"], "name": to}})
}

/// Calls each route that changes something, once or more, so that it does. `{t}` and `{v}` in a
/// body stand for the metadata files of a table and a view that were given up.
fn changes() -> Vec<(&'static str, &'static str, String, Value)> {
    let set = json!({"action": "set-properties", "updates": {"k": "v"}});
    let all = json!({"table-changes": [{"identifier": {"namespace": ["n"], "name": "t"},
                                        "requirements": [], "updates": [set]}]});
    let change = json!({"requirements": [], "updates": [set]});
    let at = |path: &str| format!("/v1/namespaces/n{path}");
    let (one_table, one_view) = ("/namespaces/{}/tables/{}", "/namespaces/{}/views/{}");
    vec![
        ("POST", "/namespaces", "/v1/namespaces".to_owned(), json!({"namespace": ["n"]})),
        ("POST", "/namespaces/{}/properties", at("/properties"), json!({"updates": {"k": "v"}})),
        ("POST", "/namespaces/{}/tables", at("/tables"), table("t")),
        ("POST", one_table, at("/tables/t"), change.clone()),
        ("POST", "/transactions/commit", "/v1/icecore/transactions/commit".to_owned(), all),
        ("POST", "/tables/rename", "/v1/tables/rename".to_owned(), renames("t", "u")),
        ("POST", "/namespaces/{}/tables/{}/unregister", at("/tables/u/unregister"), json!({})),
        (
            "POST",
            "/namespaces/{}/register",
            at("/register"),
            json!({"name": "t", "metadata-location": "{t}"}),
        ),
        ("DELETE", one_table, at("/tables/t"), Value::Null),
        ("POST", "/namespaces/{}/views", at("/views"), new_view("v")),
        ("POST", one_view, at("/views/v"), change),
        ("POST", "/views/rename", "/v1/views/rename".to_owned(), renames("v", "w")),
        ("DELETE", one_view, at("/views/w"), Value::Null),
        (
            "POST",
            "/namespaces/{}/register-view",
            at("/register-view"),
            json!({"name": "v", "metadata-location": "{v}"}),
        ),
        ("DELETE", one_view, at("/views/v"), Value::Null),
        ("DELETE", "/namespaces/{}", "/v1/namespaces/n".to_owned(), Value::Null),
    ]
}

/// With access control and without.
#[tokio::test]
async fn every_route_that_changes_something_leaves_one_record() {
    let (guarded, admin) = Server::start().await;
    let (folder, store, catalog) = catalog().await;
    let access = AccessControl::recorded(store.clone(), Arc::new(|| 1_800_000_000_000));
    let router = router_for(catalog, access.clone());
    let open = Server { router, access, store, _folder: folder };
    let id = admin.split('_').nth(1).unwrap();
    for (server, token, principal) in
        [(guarded, admin.as_str(), format!("token:{id}")), (open, "", "anonymous".to_owned())]
    {
        let mut given_up = (String::new(), String::new());
        let mut walked = BTreeSet::new();
        for (method, route, path, body) in changes() {
            let before = server.store.audit_ends().await.unwrap().head.number;
            let body = body.to_string().replace("{t}", &given_up.0).replace("{v}", &given_up.1);
            let token = if token.is_empty() { String::new() } else { format!("Bearer {token}") };
            let answer = server.send(method, &token, &path, body).await;
            assert!(answer.status < 300, "{method} {path}: {}", answer.body);
            let records = server.store.audit(before, 10).await.unwrap();
            assert_eq!(records.len(), 1, "{method} {path}");
            let entry = &records[0].entry;
            let told = (entry.action.as_str(), entry.outcome.as_str(), entry.principal.as_str());
            let action = format!("{method} /v1{route}");
            assert_eq!(told, (action.as_str(), "done", principal.as_str()), "{path}");
            assert!(entry.object.starts_with('n'), "{path}: {}", entry.object);
            let location = answer.body["metadata-location"].as_str().unwrap_or_default();
            match route {
                "/namespaces/{}/tables/{}/unregister" => location.clone_into(&mut given_up.0),
                "/namespaces/{}/views/{}" if method == "POST" => {
                    location.clone_into(&mut given_up.1);
                }
                _ => (),
            }
            walked.insert((method, route));
        }
        if !token.is_empty() {
            let before = server.store.audit_ends().await.unwrap().head.number;
            let form = format!("grant_type=client_credentials&client_secret={token}");
            assert_eq!(server.form("", &form).await.status, 200);
            let records = server.store.audit(before, 10).await.unwrap();
            let entry = &records[0].entry;
            assert_eq!(records.len(), 1);
            assert_eq!(
                (entry.action.as_str(), entry.outcome.as_str(), entry.principal.as_str()),
                ("POST /v1/oauth/tokens", "done", principal.as_str())
            );
            assert!(!entry.object.is_empty() && entry.request == "r1");
        }
        walked.insert(("POST", "/oauth/tokens"));
        let reads = |method: &str| ["GET", "HEAD"].contains(&method);
        for (method, path, _) in ROUTES.iter().filter(|(method, ..)| !reads(method)) {
            let is_known = walked.contains(&(method, path)) || READING.contains(&(method, path));
            assert!(is_known, "{method} {path} leaves no record, or no test sees it");
        }
        let ends = server.store.audit_ends().await.unwrap();
        let mut check = crate::audit::ChainCheck::new(ends, None);
        assert!(!check.page(&server.store.audit(0, 1000).await.unwrap()).unwrap());
        check.finish().unwrap();
    }
}

#[tokio::test]
async fn a_record_names_what_was_made_however_long_its_name_is() {
    let (server, admin) = Server::start().await;
    let long = "l".repeat(crate::names::NAME_CHARS_MAX);
    let object = async || {
        let head = server.store.audit_ends().await.unwrap().head.number;
        server.store.audit(head - 1, 1).await.unwrap()[0].entry.object.clone()
    };
    for name in ["u", &long] {
        assert_eq!(server.post(&admin, "/v1/namespaces/a/tables", table(name)).await.status, 200);
        assert_eq!(object().await, format!("a.{name}"));
    }
    let odd = "x b.t";
    assert_eq!(server.post(&admin, "/v1/namespaces/a/tables", table(odd)).await.status, 200);
    assert_eq!(object().await, r#"a."x b.t""#, "it is one table, not two");
    assert_eq!(server.post(&admin, "/v1/namespaces/a/views", new_view("v")).await.status, 200);
    assert_eq!(object().await, "a.v");
    assert_eq!(server.post(&admin, "/v1/tables/rename", rename("a", "b")).await.status, 204);
    assert_eq!(object().await, "a.t b.u");
    let gone = json!({"name": "w", "metadata-location": "file:///nowhere"});
    for route in ["register", "register-view"] {
        let path = format!("/v1/namespaces/a/{route}");
        assert!(400 <= server.post(&admin, &path, gone.clone()).await.status);
        assert_eq!(object().await, "a.w", "{route}");
    }
    let change = |name: &str| json!({"identifier": {"namespace": ["a"], "name": name}, "requirements": [], "updates": []});
    let many: Vec<Value> = (0..20).map(|n| change(&format!("{n}{}", &long[2..]))).collect();
    let all = json!({ "table-changes": many });
    assert_eq!(server.post(&admin, "/v1/transactions/commit", all).await.status, 404);
    assert!(object().await.ends_with(&format!(" a.19{}", &long[2..])));
    let many: Vec<Value> = (0..400).map(|n| change(&format!("{n}{}", &long[3..]))).collect();
    let all = json!({ "table-changes": many });
    assert_eq!(server.post(&admin, "/v1/transactions/commit", all).await.status, 404);
    assert!(object().await.ends_with("… (cut)"));
}

/// Its key is of a time when the caller could read it.
#[tokio::test]
async fn a_repeated_request_tells_nothing_of_a_table_that_went_where_the_caller_may_not_read() {
    let (server, admin) = Server::start().await;
    let writer = server.token(&["write:a"]).await;
    let send = async |path: &str, key: u8, body: &Value| {
        let request = Request::post(path)
            .header("authorization", format!("Bearer {writer}"))
            .header("idempotency-key", format!("018f3a10-5f0e-7000-8000-0000000000{key:02}"))
            .body(Body::from(body.to_string()))
            .unwrap();
        server.router.clone().oneshot(request).await.unwrap().status().as_u16()
    };
    let set = json!({"action": "set-properties", "updates": {"k": "v"}});
    let change = json!({"requirements": [], "updates": [set]});
    let requests = [
        ("/v1/namespaces/a/tables", table("new")),
        ("/v1/namespaces/a/tables/new", change),
        ("/v1/namespaces/a/views", new_view("seen")),
    ];
    let all = async || {
        let mut statuses = Vec::new();
        for (key, (path, body)) in (0..).zip(&requests) {
            statuses.push(send(path, key, body).await);
        }
        statuses
    };
    assert_eq!(all().await, [200; 3]);
    assert_eq!(all().await, [200; 3]);
    for (kind, name) in [("tables", "new"), ("views", "seen")] {
        let moved = json!({"source": {"namespace": ["a"], "name": name},
                           "destination": {"namespace": ["b"], "name": name}});
        let path = format!("/v1/{kind}/rename");
        assert_eq!(server.post(&admin, &path, moved).await.status, 204);
    }
    assert_eq!(all().await, [404; 3]);
}

/// They become one metadata file and one transaction.
#[tokio::test]
async fn commits_that_are_folded_have_a_record_each() {
    let (server, admin) = Server::start().await;
    let before = server.store.audit_ends().await.unwrap().head.number;
    let calls = (0..20).map(|n| {
        let update = json!({"action": "set-properties", "updates": {format!("k{n}"): "v"}});
        let body = json!({"requirements": [], "updates": [update]});
        server.post(&admin, "/v1/namespaces/a/tables/t", body)
    });
    let answers = futures::future::join_all(calls).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    let events = server.store.events(0, 100).await.unwrap();
    let files: BTreeSet<&str> =
        events.iter().filter_map(|event| event.operation["metadata-location"].as_str()).collect();
    assert!(files.len() < 2 + 20, "some were folded: {files:?}");
    let records = server.store.audit(before, 100).await.unwrap();
    assert_eq!(records.len(), 20);
    for record in &records {
        assert_eq!((record.entry.object.as_str(), record.entry.outcome.as_str()), ("a.t", "done"));
    }
    let bodies: BTreeSet<&str> =
        records.iter().map(|record| record.entry.details.as_str()).collect();
    assert_eq!(bodies.len(), 20, "each is of another call");
}

/// An answer that is repeated for its key is a call as well.
#[tokio::test]
async fn a_repeated_request_is_recorded_as_what_it_is() {
    let (server, admin) = Server::start().await;
    let before = server.store.audit_ends().await.unwrap().head.number;
    for _ in 0..2 {
        let request = Request::post("/v1/namespaces")
            .header("authorization", format!("Bearer {admin}"))
            .header("idempotency-key", "018f3a10-5f0e-7000-8000-000000000001")
            .body(Body::from(json!({"namespace": ["once"]}).to_string()))
            .unwrap();
        assert_eq!(server.router.clone().oneshot(request).await.unwrap().status(), 200);
    }
    let records = server.store.audit(before, 10).await.unwrap();
    let outcomes: Vec<&str> = records.iter().map(|one| one.entry.outcome.as_str()).collect();
    assert_eq!(outcomes, ["done", "200"]);
}

#[tokio::test]
async fn client_credentials_give_a_token_that_works_until_the_api_token_is_revoked() {
    let (server, _) = Server::start().await;
    let token = server.token(&["read:a"]).await;
    let (id, secret) = token.strip_prefix("ice_").unwrap().split_once('_').unwrap();
    let basic = |text: String| {
        format!(
            "Basic {}",
            base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text)
        )
    };
    let grant = "grant_type=client_credentials&scope=PRINCIPAL_ROLE:ALL%20catalog";
    let mut sessions = Vec::new();
    for (authorization, form) in [
        (String::new(), format!("{grant}&client_id={id}&client_secret={secret}")),
        (String::new(), format!("{grant}&client_secret={token}")),
        (basic(format!("{id}:{secret}")), grant.to_owned()),
    ] {
        let answer = server.form(&authorization, &form).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.headers["cache-control"], "no-store");
        assert_eq!(
            (&answer.body["token_type"], &answer.body["expires_in"]),
            (&json!("bearer"), &json!(3600))
        );
        assert_eq!(
            answer.body["issued_token_type"],
            "urn:ietf:params:oauth:token-type:access_token"
        );
        sessions.push(answer.body["access_token"].as_str().unwrap().to_owned());
    }
    let exchange = "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&subject_token";
    let other = server.token(&["read:a"]).await;
    for (authorization, status) in [
        (String::new(), 200),
        (format!("Bearer {}", sessions[0]), 200),
        (format!("Bearer {other}"), 401),
        (basic(format!("{id}:{secret}")), 200),
        (basic(format!("{id}:wrong")), 401),
    ] {
        let form = format!("{exchange}={}", sessions[0]);
        let answer = server.form(&authorization, &form).await;
        assert_eq!(answer.status, status, "{authorization} {}", answer.body);
        if status == 200 {
            sessions.push(answer.body["access_token"].as_str().unwrap().to_owned());
        }
    }
    for session in &sessions {
        assert_eq!(server.get(session, "/v1/namespaces/a/tables/t").await.status, 200);
        assert_eq!(server.get(session, "/v1/namespaces/b/tables/t").await.status, 404);
    }
    let call = AuditedCall::new(AuditEntry::default(), Arc::new(|| 0));
    server.access.control().unwrap().revoke_token(id, &call).await.unwrap();
    for session in &sessions {
        assert_eq!(server.get(session, "/v1/config").await.status, 401);
    }
}

#[tokio::test]
async fn a_session_lives_no_longer_than_the_token_it_was_made_from() {
    let (server, _) = Server::start().await;
    for (lifetime_ms, expires_in) in [(3_999, 3), (7_200_000, 3600)] {
        let lifetime = Some(Duration::from_millis(lifetime_ms));
        let token = server.token_for(&["read:a"], lifetime).await;
        let grant = "grant_type=client_credentials&client_secret";
        let first = server.form("", &format!("{grant}={token}")).await.body;
        let exchange = "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&subject_token";
        let session = first["access_token"].as_str().unwrap();
        let renewed = server.form("", &format!("{exchange}={session}")).await.body;
        for answer in [&first, &renewed] {
            assert_eq!(answer["expires_in"], expires_in, "{lifetime_ms} ms: {answer}");
        }
    }
}

#[tokio::test]
async fn what_oauth_refuses_it_refuses_in_oauths_form() {
    let (server, _) = Server::start().await;
    let check = async |authorization: &str, form: &str, status: u16, error: &str| {
        let answer = server.form(authorization, form).await;
        assert_eq!((answer.status, &answer.body["error"]), (status, &json!(error)), "{form}");
        answer.headers
    };
    check("", "", 400, "invalid_request").await;
    check("", "grant_type=password", 400, "unsupported_grant_type").await;
    check("", "grant_type=client_credentials", 400, "invalid_request").await;
    check("Basic %%%", "grant_type=client_credentials", 400, "invalid_request").await;
    let long = "x".repeat(70_000);
    check("", &long, 400, "invalid_request").await;
    let wrong = "grant_type=client_credentials&client_id=0123456789abcdef&client_secret=x";
    let headers = check("", wrong, 401, "invalid_client").await;
    assert_eq!(headers["www-authenticate"], "Bearer");
    let basic = check("Basic eDp5", "grant_type=client_credentials", 401, "invalid_client").await;
    assert_eq!(basic["www-authenticate"], "Basic");
}

/// Whoever sends wrong secrets, from whichever address and for whichever client, keeps nobody out.
#[tokio::test]
async fn a_right_secret_passes_whatever_came_before_it() {
    let (server, _) = Server::start().await;
    let token = server.token(&["read:a"]).await;
    let id = token.split('_').nth(1).unwrap();
    let grant = format!("grant_type=client_credentials&client_id={id}&client_secret=");
    let send = async |secret: &str| {
        let request = Request::post("/v1/oauth/tokens")
            .extension(PeerAddress("10.0.0.1".parse().unwrap()))
            .body(Body::from(format!("{grant}{secret}")))
            .unwrap();
        server.router.clone().oneshot(request).await.unwrap().status().as_u16()
    };
    for _ in 0..50 {
        assert_eq!(send(&"0".repeat(64)).await, 401);
    }
    assert_eq!(send(&token).await, 200);
}

/// A row for each key of anybody would be a way to fill the database.
#[tokio::test]
async fn a_request_for_a_token_leaves_no_key_behind() {
    let (server, _) = Server::start().await;
    let key = "018f3a10-5f0e-7000-8000-000000000002";
    let request = Request::post("/v1/oauth/tokens")
        .header("idempotency-key", key)
        .body(Body::empty())
        .unwrap();
    assert_eq!(server.router.clone().oneshot(request).await.unwrap().status(), 400);
    assert_eq!(server.store.request(key.parse().unwrap()).await.unwrap(), None);
}

#[tokio::test]
async fn a_namespace_made_again_is_closed_to_who_could_read_the_old_one() {
    let (server, admin) = Server::start().await;
    let reader = server.token(&["read:c", "read:a"]).await;
    let made = json!({"namespace": ["c"]});
    server.post(&admin, "/v1/namespaces", made.clone()).await;
    assert_eq!(server.get(&reader, "/v1/namespaces/c").await.status, 200);
    assert_eq!(server.call("DELETE", &admin, "/v1/namespaces/c").await.status, 204);
    server.post(&admin, "/v1/namespaces", made).await;
    let dropped_at = tokio::time::Instant::now();
    loop {
        let asked = dropped_at.elapsed();
        if server.get(&reader, "/v1/namespaces/c").await.status == 404 {
            break;
        }
        assert!(asked.as_secs() < 1);
        tokio::task::yield_now().await;
    }
    assert_eq!(server.get(&reader, "/v1/namespaces/a").await.status, 200);
}

#[tokio::test]
async fn who_registers_a_table_again_is_told_its_name_only_where_they_may_read() {
    let (server, admin) = Server::start().await;
    let table = server.get(&admin, "/v1/namespaces/a/tables/t").await.body;
    // Another file of the same identity, in a place that is theirs to name.
    let location = format!("{}/warehouse/b/copy", server._folder.path().display());
    let mut metadata = table["metadata"].clone();
    metadata["location"] = json!(format!("file://{location}"));
    std::fs::create_dir_all(format!("{location}/metadata")).unwrap();
    let file = format!("{location}/metadata/00001-1.metadata.json");
    std::fs::write(&file, metadata.to_string()).unwrap();
    let body = json!({"name": "u", "metadata-location": format!("file://{file}")});
    let text = async |scopes: &[&str]| {
        let token = server.token(scopes).await;
        let refused = server.post(&token, "/v1/namespaces/b/register", body.clone()).await;
        assert_eq!(refused.status, 409, "{}", refused.body);
        refused.body["error"]["message"].as_str().unwrap().to_owned()
    };
    assert!(text(&["write:b", "read:a"]).await.contains("this one is a.t"));
    let neutral = text(&["write:b"]).await;
    assert!(neutral.contains("already has the table") && !neutral.contains("a.t"), "{neutral}");
}

#[tokio::test]
async fn a_file_to_adopt_claims_no_place_that_its_caller_may_not_write() {
    let (server, admin) = Server::start().await;
    for namespace in [json!(["c"]), json!(["c", "sub"])] {
        let made = json!({"namespace": namespace});
        assert_eq!(server.post(&admin, "/v1/namespaces", made).await.status, 200);
    }
    let path = "/v1/namespaces/c%1Fsub/tables";
    assert_eq!(server.post(&admin, path, table("over")).await.status, 200);
    let path = "/v1/namespaces/c%1Fsub/views";
    let view = server.post(&admin, path, new_view("v")).await.body["metadata"].clone();
    let table = server.get(&admin, "/v1/namespaces/a/tables/t").await.body["metadata"].clone();
    let root = format!("{}/warehouse", server._folder.path().display());
    let folder = format!("{root}/c/sub/x/metadata");
    std::fs::create_dir_all(&folder).unwrap();
    // A file whose own place may be named, and that says that its table lies there.
    let file = |metadata: &Value, uuid: &str, place: &str| {
        let mut metadata = metadata.clone();
        metadata[uuid] = json!(uuid::Uuid::new_v4());
        metadata["location"] = json!(format!("file://{root}/{place}"));
        let file = format!("{folder}/{}.metadata.json", uuid::Uuid::new_v4());
        std::fs::write(&file, metadata.to_string()).unwrap();
        format!("file://{file}")
    };
    let token = server.token(&["write:c/sub"]).await;
    let adopt = async |route: &str, body: Value| {
        let path = format!("/v1/namespaces/c%1Fsub/{route}");
        let answer = server.post(&token, &path, body).await;
        (answer.status, answer.body["error"]["message"].as_str().unwrap_or_default().to_owned())
    };
    // One around the caller's folder, one with a table in it, the folder itself, and no namespace's.
    for place in ["c", "a", "c/sub", "elsewhere"] {
        let location = file(&table, "table-uuid", place);
        let new = json!({"name": "n", "metadata-location": location});
        let over = json!({"name": "over", "metadata-location": location, "overwrite": true});
        let location = file(&view, "view-uuid", place);
        let view = json!({"name": "w", "metadata-location": location});
        for (route, body) in [("register", new), ("register", over), ("register-view", view)] {
            let (status, text) = adopt(route, body).await;
            assert_eq!(status, 403, "{route} {place}: {text}");
            assert!(text.contains("is not in the folder of a namespace"), "{text}");
        }
    }
    let location = file(&table, "table-uuid", "c/sub/x");
    let answer = adopt("register", json!({"name": "n", "metadata-location": location})).await;
    assert_eq!(answer, (200, String::new()));
}
