//! Who is let in, over HTTP and on the command line.

use crate::harness::{TestServer, config, files_below};
use icecore::{
    http::{
        guard::RouteNeed,
        routes::{ROUTES, Route},
    },
    server::Server,
};
use icecore_catalog::{
    access::{AccessScope, TokenRequest, make_token},
    metastore::Metastore,
};
use icecore_lake::clock::Clock;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use std::{fs::Permissions, os::unix::fs::PermissionsExt, path::Path, time::Duration};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

/// A server with access control on, and a token that may do everything.
pub(crate) struct Guarded {
    pub(crate) server: TestServer,
    pub(crate) admin: String,
}

impl Guarded {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same with further settings.
    pub(crate) async fn start_with(settings: &[(&str, &str)]) -> Self {
        let settings = [settings, &[("auth", "on")]].concat();
        let server = TestServer::start_in(tempfile::tempdir().unwrap(), &settings).await;
        // As `icecore token create` does it beside a server that runs.
        let store = Metastore::sqlite(&server.folder.path().join("icecore.db")).await.unwrap();
        let request = TokenRequest {
            name: "first".to_owned(),
            home: None,
            scopes: vec!["admin:*".parse::<AccessScope>().unwrap()],
            lifetime: None,
        };
        let now_ms = Clock::system().now_ms();
        let admin = make_token(&store, request, now_ms).await.unwrap().text;
        Self { server, admin }
    }

    pub(crate) async fn call(
        &self,
        method: Method,
        token: &str,
        path: &str,
        body: &Value,
    ) -> (u16, Value) {
        self.call_in(method, token, path, body, None).await
    }

    async fn call_in(
        &self,
        method: Method,
        token: &str,
        path: &str,
        body: &Value,
        namespace: Option<&str>,
    ) -> (u16, Value) {
        let mut request = self.server.http.request(method, format!("{}{path}", self.server.url));
        if !token.is_empty() {
            request = request.bearer_auth(token);
        }
        if let Some(namespace) = namespace {
            request = request.header("x-namespace", namespace);
        }
        let request = request.header("content-type", "application/json").body(body.to_string());
        let response: Response = request.send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap_or_default())
    }

    pub(crate) async fn post(&self, token: &str, path: &str, body: &Value) -> (u16, Value) {
        self.call(Method::POST, token, path, body).await
    }

    pub(crate) async fn get(&self, token: &str, path: &str) -> (u16, Value) {
        self.call(Method::GET, token, path, &Value::Null).await
    }

    pub(crate) async fn token(&self, body: &Value) -> String {
        let (status, made) = self.post(&self.admin, "/admin/tokens", body).await;
        assert_eq!(status, 200, "{made}");
        made["token"].as_str().unwrap().to_owned()
    }

    async fn rows(&self, namespace: &str, sql: &str) -> Value {
        let path = format!("/v1/{namespace}/sql");
        let (status, answer) = self.post(&self.admin, &path, &json!({ "sql": sql })).await;
        assert_eq!(status, 200, "{answer}");
        answer["rows"].clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_only_health_is_answered() {
    let guarded = Guarded::start().await;
    for path in ["/healthz", "/readyz", "/version", "/openapi.json"] {
        assert_eq!(guarded.server.get(path).await.status(), 200, "{path}");
    }
    let closed = [
        (Method::POST, "/ingest"),
        (Method::POST, "/e"),
        (Method::POST, "/v1/default/sql"),
        (Method::POST, "/v1/default/commit"),
        (Method::GET, "/v1/default/tables"),
        (Method::GET, "/v1/namespaces"),
        (Method::GET, "/metrics"),
        (Method::GET, "/admin/tokens"),
        (Method::GET, "/admin/audit"),
        (Method::GET, "/catalog/v1/config"),
    ];
    for (method, path) in closed {
        let url = format!("{}{path}", guarded.server.url);
        let response = guarded.server.http.request(method, url).send().await.unwrap();
        assert_eq!(response.status(), 401, "{path}");
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
        let body: Value = response.json().await.unwrap();
        if path.starts_with("/catalog") {
            assert_eq!(body["error"]["type"], "NotAuthorizedException");
        } else {
            assert_eq!(body["code"], "UNAUTHENTICATED");
        }
    }
    let (status, _) = guarded.get(&guarded.admin, "/v1/default/commit").await;
    assert_eq!(status, 405);
    guarded.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_server_is_not_ready_is_told_to_who_may_know_of_every_namespace() {
    let guarded = Guarded::start().await;
    let event = json!({"id": "1", "type": "t", "ns": "acme_payroll"});
    assert_eq!(guarded.post(&guarded.admin, "/ingest", &event).await.0, 200);
    let commit = guarded.post(&guarded.admin, "/v1/acme_payroll/commit", &Value::Null).await;
    assert_eq!(commit.0, 200, "{}", commit.1);
    let other = json!({"name": "o", "namespace": "other", "scopes": ["ingest", "read"]});
    let other = guarded.token(&other).await;
    let Guarded { server, admin } = guarded;
    let folder = server.stop().await;
    for file in files_below(&folder.path().join("warehouse"), ".metadata.json") {
        std::fs::rename(&file, file.with_extension("aside")).unwrap();
    }
    let server = TestServer::start_in(folder, &[("auth", "on")]).await;
    let guarded = Guarded { server, admin };
    let event = json!({"id": "2", "type": "t"});
    let calls = [(Method::GET, "/readyz"), (Method::POST, "/ingest")];
    for (method, path) in &calls {
        let (status, told) = guarded.call(method.clone(), &guarded.admin, path, &event).await;
        let told = told["error"].as_str().unwrap();
        assert_eq!(status, 503, "{path}: {told}");
        assert!(told.contains(".metadata.json` of `acme_payroll.events`"), "{path}: {told}");
    }
    let hook = (Method::POST, "/webhooks/github");
    let strangers = [("", &calls[0]), ("", &hook), ("wrong", &calls[0])];
    let tenants = calls.iter().map(|call| (other.as_str(), call));
    for (token, (method, path)) in strangers.into_iter().chain(tenants) {
        let (status, told) = guarded.call(method.clone(), token, path, &event).await;
        let told = told["error"].as_str().unwrap();
        assert_eq!(status, 503, "{path}: {told}");
        assert!(!told.contains("acme") && !told.contains(".json"), "{path}: {told}");
        assert!(*path != "/readyz" || told.contains("not ready (metadata)"), "{told}");
    }
    guarded.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_token_sends_asks_and_attaches_and_sees_nothing_else() {
    let guarded = Guarded::start().await;
    let shop = guarded
        .token(&json!({"name": "shop", "namespace": "Shop.Example", "scopes": ["ingest", "read"]}))
        .await;
    // The token's own namespace, as its senders write it.
    let (status, reply) = guarded.post(&shop, "/ingest", &json!([{"id": "1", "type": "a"}])).await;
    assert_eq!((status, &reply["namespace"]), (200, &json!("Shop.Example")), "{reply}");
    let (status, answer) =
        guarded.post(&shop, "/v1/shop_example/sql", &json!({"sql": "SELECT id FROM events"})).await;
    assert_eq!((status, &answer["rows"]), (200, &json!([["1"]])), "{answer}");
    assert_eq!(guarded.post(&shop, "/v1/Shop.Example/commit", &Value::Null).await.0, 200);
    let table = "/catalog/v1/namespaces/shop_example/tables/events";
    assert_eq!(guarded.get(&shop, table).await.0, 200);

    let other = json!([{"id": "1", "type": "a", "ns": "other"}]);
    assert_eq!(guarded.post(&guarded.admin, "/ingest", &other).await.0, 200);
    assert_eq!(guarded.post(&guarded.admin, "/v1/other/commit", &Value::Null).await.0, 200);
    let (_, listed) = guarded.get(&shop, "/v1/namespaces").await;
    assert_eq!(listed["namespaces"][0]["name"], "shop_example");
    assert_eq!(listed["namespaces"].as_array().unwrap().len(), 1);
    for namespace in ["other", "missing"] {
        for (method, path) in [
            (Method::GET, format!("/v1/{namespace}/tables")),
            (Method::GET, format!("/v1/{namespace}/tables/events/snapshots")),
            (Method::POST, format!("/v1/{namespace}/sql")),
            (Method::POST, format!("/v1/{namespace}/commit")),
        ] {
            let (status, body) =
                guarded.call(method, &shop, &path, &json!({"sql": "SELECT 1"})).await;
            assert_eq!((status, &body["code"]), (404, &json!("NOT_FOUND")), "{path}");
            let expected = format!("Namespace does not exist: {namespace}; there is: Shop.Example");
            assert_eq!(body["error"], expected);
        }
    }
    let (status, body) = guarded.get(&shop, "/metrics").await;
    assert_eq!((status, &body["code"]), (403, &json!("FORBIDDEN")));
    assert_eq!(guarded.get(&shop, "/admin/tokens").await.0, 403);
    let sender = guarded.token(&json!({"name": "s", "scopes": ["ingest:shop_example"]})).await;
    let (status, _) =
        guarded.post(&sender, "/v1/shop_example/sql", &json!({"sql": "SELECT 1"})).await;
    assert_eq!(status, 404, "who may only send does not learn what is there");
    // Its only namespace, under the spelling that owns the name.
    let (status, reply) =
        guarded.post(&sender, "/ingest", &json!([{"id": "2", "type": "a"}])).await;
    assert_eq!((status, &reply["namespace"]), (200, &json!("Shop.Example")), "{reply}");
    guarded.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_must_be_in_a_namespace_that_its_sender_may_send_to() {
    let guarded = Guarded::start().await;
    let sender =
        guarded.token(&json!({"name": "s", "namespace": "mine", "scopes": ["ingest"]})).await;
    let events = json!([
        {"id": "1", "type": "a"},
        {"id": "2", "type": "a", "ns": "other"},
        {"id": "3", "type": "a", "ns": "mine"},
        {"id": "4", "ns": "other"},
    ]);
    let (status, reply) = guarded.post(&sender, "/ingest", &events).await;
    assert_eq!(status, 207, "{reply}");
    let told: Vec<_> = reply["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| {
            (error["index"].as_u64(), error["code"].as_str(), error["deadLetter"].is_string())
        })
        .collect();
    let expected = [(Some(1), Some("FORBIDDEN"), true), (Some(3), Some("MISSING_TYPE"), true)];
    assert_eq!(told, expected);
    assert_eq!(
        guarded.rows("mine", "SELECT id FROM events ORDER BY id").await,
        json!([["1"], ["3"]])
    );
    let letters = "SELECT event_id, reason FROM dead_letters ORDER BY event_id";
    let kept = guarded.rows("mine", letters).await;
    assert_eq!(kept, json!([["2", "FORBIDDEN"], ["4", "MISSING_TYPE"]]));

    // With all or none, none. Where the request's own namespace is closed to the sender, too, the
    // token's keeps what is refused.
    let (status, reply) = guarded.post(&sender, "/ingest?atomic=true", &events).await;
    assert_eq!((status, reply["errors"].as_array().unwrap().len()), (400, 4), "{reply}");
    assert_eq!(reply["errors"][0]["code"], "BATCH_ABORTED", "{reply}");
    let foreign =
        json!([{"id": "5", "type": "a"}, {"id": "6"}, {"id": "7", "type": "a", "ns": "mine"}]);
    let (status, reply) =
        guarded.call_in(Method::POST, &sender, "/ingest", &foreign, Some("other")).await;
    assert_eq!(status, 207, "{reply}");
    let errors = reply["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 2);
    assert!(errors.iter().all(|error| error["deadLetter"].is_string()), "{reply}");
    let kept = guarded.rows("mine", letters).await;
    let rest = json!([
        ["2", "FORBIDDEN"],
        ["4", "MISSING_TYPE"],
        ["5", "FORBIDDEN"],
        ["6", "MISSING_TYPE"]
    ]);
    assert_eq!(kept, rest);
    let (status, reply) = guarded
        .call_in(Method::POST, &sender, "/ingest?atomic=true", &foreign, Some("other"))
        .await;
    assert_eq!((status, reply["errors"].as_array().unwrap().len()), (400, 3), "{reply}");
    assert_eq!(reply["errors"][2]["code"], "BATCH_ABORTED", "{reply}");
    assert_eq!(guarded.rows("mine", "SELECT count(*) FROM events").await, json!([[3]]));
    let (status, _) = guarded.get(&guarded.admin, "/v1/other/tables").await;
    assert_eq!(status, 404, "nothing was made of the foreign name");
    guarded.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_governed_by_who_is_admin_where_they_reach() {
    let guarded = Guarded::start().await;
    let local = guarded.token(&json!({"name": "local", "scopes": ["admin:shop"]})).await;
    let far = guarded.token(&json!({"name": "far", "scopes": ["read:other"]})).await;
    let id = |token: &str| token.split('_').nth(1).unwrap().to_owned();
    for scopes in [json!(["read:other"]), json!(["read:*"]), json!(["read:shop", "read:other"])] {
        let (status, body) =
            guarded.post(&local, "/admin/tokens", &json!({"name": "x", "scopes": scopes})).await;
        assert_eq!((status, &body["code"]), (403, &json!("FORBIDDEN")));
    }
    let made = json!({"name": "x", "scopes": ["read:shop"], "expires_in": 60});
    let (status, made) = guarded.post(&local, "/admin/tokens", &made).await;
    assert_eq!(status, 200, "{made}");
    let token = made["token"].as_str().unwrap();
    assert_eq!(guarded.get(token, "/v1/namespaces").await.0, 200);

    let (_, listed) = guarded.get(&local, "/admin/tokens").await;
    let names: Vec<&str> = listed["tokens"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["local", "x"]);
    assert!(!listed.to_string().contains(token), "no secret is listed");
    let path = |token: &str| format!("/admin/tokens/{}", id(token));
    for gone in [path(&far), "/admin/tokens/none".to_owned()] {
        assert_eq!(guarded.call(Method::DELETE, &local, &gone, &Value::Null).await.0, 404);
    }
    assert_eq!(guarded.call(Method::DELETE, &local, &path(token), &Value::Null).await.0, 200);
    assert_eq!(guarded.get(token, "/v1/namespaces").await.0, 401);
    for (body, expected) in [
        (json!({"name": "x"}), "missing field `scopes`"),
        (json!({"name": "x", "scopes": ["read"]}), "names no namespace"),
        (json!({"name": "x", "scopes": ["read:a.b"]}), "has a dot"),
        (json!({"name": "", "scopes": ["read:a"]}), "1 to 128 bytes"),
    ] {
        let (status, answer) = guarded.post(&guarded.admin, "/admin/tokens", &body).await;
        assert_eq!(status, 400);
        assert!(answer["error"].as_str().unwrap().contains(expected), "{answer}");
    }
    guarded.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_has_catalog_and_token_changes_in_one_chain() {
    let guarded = Guarded::start().await;
    let reader = guarded.token(&json!({"name": "r", "scopes": ["read:a"]})).await;
    let namespaces = "/catalog/v1/namespaces";
    assert_eq!(guarded.post(&guarded.admin, namespaces, &json!({"namespace": ["a"]})).await.0, 200);
    let drop = "/catalog/v1/namespaces/a";
    assert_eq!(guarded.call(Method::DELETE, &reader, drop, &Value::Null).await.0, 403);
    assert_eq!(guarded.get(&reader, "/admin/audit").await.0, 403);
    let (_, page) = guarded.get(&guarded.admin, "/admin/audit?after=1&limit=1").await;
    let record = &page["records"][0];
    assert_eq!(page["records"].as_array().unwrap().len(), 1);
    assert_eq!(record["action"], "POST /v1/namespaces");
    assert_eq!((&record["object"], &record["outcome"]), (&json!("a"), &json!("done")));
    assert_eq!(record["address"], "127.0.0.1");
    assert_eq!(record["request"].as_str().unwrap().len(), 26, "the id of the reply");
    assert_eq!(page["head"]["number"], 3);
    let (_, all) = guarded.get(&guarded.admin, "/admin/audit").await;
    let outcomes: Vec<_> =
        all["records"].as_array().unwrap().iter().map(|one| one["outcome"].clone()).collect();
    assert_eq!(outcomes, ["done", "done", "403"]);
    assert_eq!(guarded.get(&guarded.admin, "/admin/audit?page=2").await.0, 400);
    guarded.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_access_control_off_there_are_no_tokens() {
    let server = TestServer::start().await;
    assert_eq!(server.get("/admin/tokens").await.status(), 404);
    for path in ["/admin/audit", "/v1/namespaces"] {
        assert_eq!(server.get(path).await.status(), 200);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_outlives_a_restart() {
    let guarded = Guarded::start().await;
    let token = guarded.token(&json!({"name": "r", "scopes": ["read:a"]})).await;
    let folder: TempDir = guarded.server.stop().await;
    let server = Server::start(&config(&folder, &[("auth", "on")]), Clock::system()).await.unwrap();
    let url = format!("http://{}/catalog/v1/config", server.address());
    let http = reqwest::Client::new();
    let ask = async |token: &str| http.get(&url).bearer_auth(token).send().await.unwrap().status();
    assert_eq!(
        (ask(&token).await, ask("ice_x").await),
        (200.try_into().unwrap(), 401.try_into().unwrap())
    );
    server.stop().await;
}

/// One route of each kind that takes events, answers queries, or is the catalog's.
const CALLS: [(Method, &str); 4] = [
    (Method::POST, "/ingest"),
    (Method::POST, "/v1/shop/sql"),
    (Method::GET, "/v1/shop/tables"),
    (Method::GET, "/catalog/v1/namespaces/shop/tables/events"),
];

fn body_for(path: &str) -> Value {
    match path {
        "/ingest" => json!([{"id": "1", "type": "a", "ns": "shop"}]),
        _ => json!({"sql": "SELECT count(*) FROM events"}),
    }
}

impl Guarded {
    /// With events in the namespaces `shop` and `other`.
    pub(crate) async fn with_events() -> Self {
        let guarded = Self::start().await;
        for namespace in ["shop", "other"] {
            let events = json!([{"id": "0", "type": "a", "ns": namespace}]);
            assert_eq!(guarded.post(&guarded.admin, "/ingest", &events).await.0, 200);
            let commit = format!("/v1/{namespace}/commit");
            assert_eq!(guarded.post(&guarded.admin, &commit, &Value::Null).await.0, 200);
        }
        guarded
    }

    /// What each of [`CALLS`] is answered.
    async fn statuses(&self, token: &str) -> Vec<u16> {
        let mut statuses = Vec::new();
        for (method, path) in CALLS {
            statuses.push(self.call(method, token, path, &body_for(path)).await.0);
        }
        statuses
    }

    /// Calls until each of [`CALLS`] is answered as expected, for less than a second.
    async fn within_a_second(&self, token: &str, expected: [u16; 4]) {
        let began = Instant::now();
        loop {
            let asked = began.elapsed();
            let statuses = self.statuses(token).await;
            if statuses == expected {
                return;
            }
            // What was asked within the second may be answered later.
            assert!(asked.as_millis() < 1000, "{statuses:?}");
        }
    }
}

/// It is revoked by another process, as `icecore token revoke` does it.
#[tokio::test(flavor = "multi_thread")]
async fn both_routers_refuse_a_revoked_token_within_a_second() {
    let guarded = Guarded::with_events().await;
    let scopes = json!(["ingest:shop", "read:shop"]);
    let token = guarded.token(&json!({"name": "t", "scopes": scopes})).await;
    assert_eq!(guarded.statuses(&token).await, [200; 4]);
    let file = guarded.server.folder.path().join("icecore.db");
    let store = Metastore::sqlite(&file).await.unwrap();
    assert!(store.revoke_token(token.split('_').nth(1).unwrap()).await.unwrap());
    guarded.within_a_second(&token, [401; 4]).await;
    guarded.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_namespace_takes_its_grants_along_on_both_routers() {
    let guarded = Guarded::start().await;
    let scopes = json!(["ingest:shop", "read:shop", "ingest:other"]);
    let token = guarded.token(&json!({"name": "t", "scopes": scopes})).await;
    let namespace = json!({"namespace": ["shop"]});
    let make = "/catalog/v1/namespaces";
    assert_eq!(guarded.post(&guarded.admin, make, &namespace).await.0, 200);
    let table = json!({"name": "goods", "schema": {"type": "struct", "fields": []}});
    let tables = "/catalog/v1/namespaces/shop/tables";
    assert_eq!(guarded.post(&guarded.admin, tables, &table).await.0, 200);
    let answers = async || {
        let sql = json!({"sql": "SELECT 1"});
        [
            guarded.post(&token, "/v1/shop/commit", &Value::Null).await.0,
            guarded.post(&token, "/v1/shop/sql", &sql).await.0,
            guarded.get(&token, "/v1/shop/tables").await.0,
            guarded.get(&token, "/catalog/v1/namespaces/shop/tables").await.0,
        ]
    };
    assert_eq!(answers().await, [200; 4]);

    for path in ["/tables/goods", ""] {
        let path = format!("{make}/shop{path}");
        let (status, answer) =
            guarded.call(Method::DELETE, &guarded.admin, &path, &Value::Null).await;
        assert_eq!(status, 204, "{path}: {answer}");
    }
    assert_eq!(guarded.post(&guarded.admin, make, &namespace).await.0, 200);
    let began = Instant::now();
    loop {
        let asked = began.elapsed();
        let found = answers().await;
        if found == [404; 4] {
            break;
        }
        assert!(asked.as_millis() < 1000, "{found:?}");
    }
    let event = |namespace: &str| json!([{"id": "5", "type": "a", "ns": namespace}]);
    let (status, refused) = guarded.post(&token, "/ingest", &event("shop")).await;
    assert_eq!((status, &refused["errors"][0]["code"]), (400, &json!("FORBIDDEN")), "{refused}");
    let (status, _) = guarded.post(&token, "/ingest", &event("other")).await;
    assert_eq!(status, 200, "the other grant stays");
    guarded.server.stop().await;
}

/// A body that the route would take.
pub(crate) fn well_formed(route: &str) -> Value {
    match route.rsplit('/').next().unwrap() {
        "rename" => json!({"name": "new"}),
        "rollback" => json!({"snapshot": 1}),
        "refs" => json!({"name": "new", "type": "tag"}),
        "fast-forward" => json!({"to": "main"}),
        _ => json!({"sql": "SELECT 1"}),
    }
}

/// Every route outside the catalog; the catalog has the same test beside its own table.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_foreign_and_what_is_missing_answer_alike() {
    let guarded = Guarded::with_events().await;
    let stranger = guarded.token(&json!({"name": "t", "scopes": ["admin:mine"]})).await;
    let mut walked = 0;
    let named = ROUTES.iter().filter(|route| route.path.contains("{namespace}"));
    for Route { method, path: route, .. } in named {
        let answer = async |namespace: &str| {
            let path = route
                .replace("{namespace}", namespace)
                .replace("{table}", "events")
                .replace("{name}", "main");
            let method = method.parse().unwrap();
            let (status, body) = guarded.call(method, &stranger, &path, &well_formed(route)).await;
            (status, body.to_string().replace(namespace, "NAMESPACE"))
        };
        let (foreign, missing) = (answer("other").await, answer("absent").await);
        assert_eq!(foreign, missing, "{method} {route}");
        assert_eq!(foreign.0, 404, "{method} {route}: {}", foreign.1);
        walked += 1;
    }
    assert!(10 < walked, "{walked}");
    guarded.server.stop().await;
}

/// Whether something is there must not be told either, so the answer is the same for what exists.
#[tokio::test]
async fn a_place_in_anothers_folder_is_refused_whatever_lies_there() {
    let house = Guarded::start().await;
    for name in ["evil", "vic"] {
        let body = json!({"namespace": [name]});
        assert_eq!(house.post(&house.admin, "/catalog/v1/namespaces", &body).await.0, 200);
    }
    let schema = json!({"type": "struct", "schema-id": 0, "fields": []});
    let tables = |namespace: &str| format!("/catalog/v1/namespaces/{namespace}/tables");
    let table = json!({"name": "t", "schema": schema});
    let (_, victim) = house.post(&house.admin, &tables("vic"), &table).await;
    let evil = house.token(&json!({"name": "evil", "scopes": ["write:evil"]})).await;
    let (status, own) = house.post(&evil, &tables("evil"), &table).await;
    assert_eq!(status, 200, "{own}");
    let location = own["metadata"]["location"].as_str().unwrap();
    let (root, _) = location.rsplit_once("/evil/").unwrap();
    let view = |location: &str| {
        json!({"name": "v", "location": location, "schema": schema, "properties": {},
            "view-version": {"version-id": 1, "timestamp-ms": 1, "schema-id": 0, "summary": {},
                "default-namespace": ["evil"],
                "representations": [{"type": "sql", "sql": "select 1", "dialect": "spark"}]}})
    };
    let beside = view(&format!("{location}-v"));
    let made = house.post(&evil, "/catalog/v1/namespaces/evil/views", &beside).await;
    assert_eq!(made.0, 200);
    let victims = victim["metadata-location"].as_str().unwrap();
    for place in [
        victims.to_owned(),
        victims.replace(".metadata.json", ".none.json"),
        format!("{root}/vic"),
        format!("{root}/vic/x"),
        format!("{root}/none/x"),
        format!("{root}/evil"),
        format!("{root}/evil2/x"),
        format!("{root}/x"),
    ] {
        let moves = json!({"updates": [{"action": "set-location", "location": place}]});
        let mut change = moves.clone();
        change["identifier"] = json!({"namespace": ["evil"], "name": "t"});
        let mut created = table.clone();
        created["name"] = json!("n");
        created["location"] = json!(place);
        let mut staged = created.clone();
        staged["stage-create"] = json!(true);
        let register = json!({"name": "n", "metadata-location": place});
        let mut over = register.clone();
        over["overwrite"] = json!(true);
        for (path, body) in [
            ("namespaces/evil/tables", created),
            ("namespaces/evil/tables", staged),
            ("namespaces/evil/tables/t", moves.clone()),
            ("transactions/commit", json!({"table-changes": [change]})),
            ("namespaces/evil/register", register.clone()),
            ("namespaces/evil/register", over),
            ("namespaces/evil/views", view(&place)),
            ("namespaces/evil/views/v", moves.clone()),
            ("namespaces/evil/register-view", register.clone()),
        ] {
            let (status, answer) = house.post(&evil, &format!("/catalog/v1/{path}"), &body).await;
            assert_eq!(status, 403, "{path} {place}: {answer}");
            let message = answer["error"]["message"].as_str().unwrap();
            assert!(message.contains("not in the folder of a namespace"), "{message}");
        }
    }
    // Where it is it may stay, and who may write everywhere chooses freely.
    let stays = json!({"updates": [{"action": "set-location", "location": location}]});
    let (status, answer) = house.post(&evil, &format!("{}/t", tables("evil")), &stays).await;
    assert_eq!(status, 200, "{answer}");
    let mut anywhere = table.clone();
    anywhere["name"] = json!("free");
    anywhere["location"] = json!(format!("{root}/elsewhere/x"));
    let (status, answer) = house.post(&house.admin, &tables("evil"), &anywhere).await;
    assert_eq!(status, 200, "{answer}");
}

/// The names of namespaces of several levels, and those that only engines give.
#[tokio::test(flavor = "multi_thread")]
async fn no_route_tells_a_stranger_which_namespaces_there_are() {
    let guarded = Guarded::with_events().await;
    for namespace in [json!(["other", "sub"]), json!(["Other"]), json!(["a b"])] {
        let body = json!({ "namespace": namespace });
        assert_eq!(guarded.post(&guarded.admin, "/catalog/v1/namespaces", &body).await.0, 200);
    }
    let stranger = guarded.token(&json!({"name": "t", "scopes": ["admin:mine"]})).await;
    let shown =
        |name: &str| percent_encoding::percent_decode_str(name).decode_utf8_lossy().into_owned();
    let routes = ROUTES.iter().filter(|route| matches!(route.need, RouteNeed::InCatalog(_)));
    let mut walked = 0;
    for Route { method, path: route, .. } in routes {
        let answer = async |namespace: &str| {
            let path = route
                .replace("{namespace}", namespace)
                .replace("{table}", "events")
                .replace("{name}", "main");
            let method = method.parse().unwrap();
            let (status, body) = guarded.call(method, &stranger, &path, &well_formed(route)).await;
            // One level may be the text of events: who may not know is told of their namespace.
            let name = shown(namespace);
            let name = match name.contains('\u{1f}') {
                true => name.replace('\u{1f}', "."),
                false => name.to_lowercase().replace(' ', "_"),
            };
            (status, body.to_string().replace(&name, "NAME"))
        };
        for (there, absent) in
            [("other%1Fsub", "other%1Fgone"), ("Other", "Absent"), ("a%20b", "a%20c")]
        {
            let (there, absent) = (answer(there).await, answer(absent).await);
            assert_eq!(there, absent, "{method} {route}");
            assert_eq!(there.0, 404, "{method} {route}: {}", there.1);
            walked += 1;
        }
    }
    assert!(20 < walked, "{walked}");
    let rename = async |to: &str| {
        let body = json!({ "ns": to, "name": "t" });
        let (status, body) = guarded.post(&stranger, "/v1/mine/tables/t/rename", &body).await;
        (status, body.to_string().replace(&to.replace('\u{1f}', "."), "NAME"))
    };
    assert_eq!(rename("other\u{1f}sub").await, rename("other\u{1f}gone").await);
    guarded.server.stop().await;
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_the_server_are_for_its_user_alone() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("new/data");
    let at = [("data_dir", data.to_str().unwrap())];
    let server = TestServer::start_in(tempfile::tempdir().unwrap(), &at).await;
    assert_eq!(server.ingest(&json!([{"type": "a"}])).await.0, 200);
    for (path, expected) in [("", 0o700), ("wal", 0o700), ("icecore.db", 0o600)] {
        assert_eq!(mode(&data.join(path)), expected, "{path}");
    }
    assert_eq!(mode(&data.join("icecore.db-wal")), 0o600);
    for file in std::fs::read_dir(data.join("wal")).unwrap() {
        let path = file.unwrap().path();
        // The lock is empty.
        if !path.ends_with("lock") {
            assert_eq!(mode(&path), 0o600, "{}", path.display());
        }
    }
    server.stop().await;

    // What the operator made stays as it is.
    let own = folder.path().join("own");
    std::fs::create_dir(&own).unwrap();
    std::fs::set_permissions(&own, Permissions::from_mode(0o750)).unwrap();
    let at = [("data_dir", own.to_str().unwrap())];
    let server = TestServer::start_in(tempfile::tempdir().unwrap(), &at).await;
    assert_eq!((mode(&own), mode(&own.join("icecore.db"))), (0o750, 0o600));
    server.stop().await;
}

/// With access control off, which a browser on the same machine could otherwise use for any page.
#[tokio::test(flavor = "multi_thread")]
async fn an_open_server_answers_neither_other_names_nor_other_pages() {
    let server = TestServer::start().await;
    let own = server.url.strip_prefix("http://").unwrap();
    let send = async |method: Method, path: &str, headers: &[(&str, &str)]| {
        let mut request = server.http.request(method, format!("{}{path}", server.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.body(r#"{"namespace":["made"]}"#).send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap_or_default())
    };
    for headers in [
        &[("host", "evil.example")][..],
        &[("origin", "https://evil.example"), ("content-type", "text/plain")],
        &[("origin", "null")],
    ] {
        for (method, path) in [
            (Method::POST, "/catalog/v1/namespaces"),
            (Method::GET, "/catalog/v1/config"),
            (Method::POST, "/ingest"),
            (Method::GET, "/v1/namespaces"),
            (Method::GET, "/healthz"),
        ] {
            let (status, answer) = send(method, path, headers).await;
            assert_eq!(status, 403, "{path} {headers:?}");
            let text = if path.starts_with("/catalog") {
                &answer["error"]["message"]
            } else {
                &answer["error"]
            };
            assert!(text.as_str().unwrap().contains("set `auth = on`"), "{answer}");
        }
    }
    let (_, listed) = send(Method::GET, "/v1/namespaces", &[]).await;
    assert_eq!(listed, json!({"namespaces": []}), "nothing was made");
    let origin = format!("http://{own}");
    assert_eq!(send(Method::POST, "/catalog/v1/namespaces", &[("origin", &origin)]).await.0, 200);
    server.stop().await;

    // With access control on a page has no token, and a name is what the operator's proxy makes it.
    let guarded = Guarded::start().await;
    let url = format!("{}/catalog/v1/config", guarded.server.url);
    let request =
        guarded.server.http.get(url).header("host", "lake.example").bearer_auth(&guarded.admin);
    assert_eq!(request.send().await.unwrap().status(), 200);
    guarded.server.stop().await;
}

/// Whoever may send nothing gets no memory for it.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_answered_before_a_long_body_is_there() {
    let guarded = Guarded::start().await;
    let address = guarded.server.url.strip_prefix("http://").unwrap().to_owned();
    let first_line = async |path: &str, headers: &str| {
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\n{headers}content-length: 33000000\r\n\r\na="
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut line = [0; 12];
        let read = stream.read_exact(&mut line);
        tokio::time::timeout(Duration::from_secs(5), read).await.expect("in time").unwrap();
        String::from_utf8(line.to_vec()).unwrap()
    };
    assert_eq!(first_line("/catalog/v1/oauth/tokens", "").await, "HTTP/1.1 400");
    let key = "idempotency-key: 018f3a10-5f0e-7000-8000-000000000001\r\n";
    assert_eq!(first_line("/catalog/v1/oauth/tokens", key).await, "HTTP/1.1 400");
    for path in ["/catalog/v1/namespaces", "/ingest", "/v1/a/sql", "/admin/tokens"] {
        assert_eq!(first_line(path, "").await, "HTTP/1.1 401", "{path}");
        assert_eq!(first_line(path, key).await, "HTTP/1.1 401", "{path}");
    }
    guarded.server.stop().await;
}
