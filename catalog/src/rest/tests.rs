use super::*;
use crate::{
    audit::{AuditEntry, AuditedCall},
    catalog::{CatalogOptions, DropPolicy},
    error::CatalogError,
    metastore::Metastore,
    storage::{S3Options, Storage},
};
use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header},
    response::IntoResponse,
};
use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::{Value, json, value::RawValue};
use tower::ServiceExt;

mod clients;
mod events;
mod fuzz;
mod keys;
mod lists;
mod refusals;
mod repeats;
mod updates;
mod views;

/// What the clock of a server shows.
const NOW_MS: i64 = 1_800_000_000_000;

struct Server {
    router: Router,
    catalog: Catalog,
    root: String,
    folder: tempfile::TempDir,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

impl Server {
    async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    async fn start_in(folder: tempfile::TempDir) -> Self {
        Self::start_with(folder, |catalog| catalog).await
    }

    /// A server process over what is in `folder`.
    async fn open(folder: tempfile::TempDir, now_ms: i64) -> Self {
        Self::begin(folder, now_ms, |catalog| catalog).await
    }

    async fn start_with(
        folder: tempfile::TempDir,
        change: impl FnOnce(Catalog) -> Catalog,
    ) -> Self {
        Self::begin(folder, NOW_MS, change).await
    }

    async fn begin(
        folder: tempfile::TempDir,
        now_ms: i64,
        change: impl FnOnce(Catalog) -> Catalog,
    ) -> Self {
        let warehouse = format!("file://{}/warehouse", folder.path().display());
        let storage = Storage::open(&warehouse, &S3Options::default()).unwrap();
        let metastore = Metastore::sqlite(&folder.path().join("icecore.db")).await.unwrap();
        let root = storage.root().to_owned();
        let now = Arc::new(move || now_ms);
        // Dropped tables are gone at once: tests make others in their places.
        let drop_policy = DropPolicy { undrop_ms: 0, purge: false };
        let options =
            CatalogOptions { drop_policy, checks_contents: false, ..CatalogOptions::default() };
        let catalog = Catalog::with_options("icecore", storage, metastore, now, options);
        let catalog = change(catalog);
        Self { router: router(catalog.clone()), catalog, root, folder }
    }

    /// With the namespace `ns` and, in it, the table `t`.
    async fn with_table() -> (Self, Value) {
        let server = Self::start().await;
        server.post("/v1/namespaces", json!({"namespace": ["ns"]})).await.ok();
        let table = server.post("/v1/namespaces/ns/tables", new_table("t")).await.ok();
        (server, table)
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let body = match bytes.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&bytes).unwrap(),
        };
        Answer { status, headers, body }
    }

    async fn call(&self, method: Method, path: &str) -> Answer {
        self.send(Request::builder().method(method).uri(path).body(Body::empty()).unwrap()).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path).await
    }

    async fn post(&self, path: &str, body: impl ToString) -> Answer {
        let body = Body::from(body.to_string());
        self.send(Request::post(path).body(body).unwrap()).await
    }
}

impl Answer {
    #[track_caller]
    fn ok(self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.body);
        self.body
    }

    #[track_caller]
    fn empty(self) {
        assert_eq!(self.status, StatusCode::NO_CONTENT, "{}", self.body);
        assert_eq!(self.body, Value::Null);
    }

    /// Asserts the specification's error form and gives the message.
    #[track_caller]
    fn refused(self, status: u16, kind: &str) -> String {
        let error = &self.body["error"];
        assert_eq!(self.status.as_u16(), status, "{error}");
        assert_eq!((&error["type"], &error["code"]), (&json!(kind), &json!(status)), "{error}");
        error["message"].as_str().unwrap().to_owned()
    }
}

/// A create as PyIceberg sends it.
fn new_table(name: &str) -> Value {
    json!({
        "name": name,
        "location": null,
        "schema": {
            "type": "struct",
            "fields": [
                {"id": 1, "name": "id", "type": "long", "required": true},
                {"id": 2, "name": "at", "type": "timestamptz", "required": false, "doc": "when"},
            ],
            "schema-id": 0,
            "identifier-field-ids": [],
        },
        "partition-spec": {"spec-id": 0, "fields": [
            {"source-id": 2, "field-id": 1000, "transform": "day", "name": "dt"},
        ]},
        "write-order": {"order-id": 0, "fields": []},
        "stage-create": false,
        "properties": {"owner": "ann"},
    })
}

#[tokio::test]
async fn config_accepts_any_warehouse_and_lists_the_routes() {
    let server = Server::start().await;
    for path in ["/v1/config", "/v1/config?warehouse=whatever"] {
        let config = server.get(path).await.ok();
        let overrides = json!({"namespace-separator": "%1F"});
        assert_eq!((&config["defaults"], &config["overrides"]), (&json!({}), &overrides));
        let endpoints = config["endpoints"].as_array().unwrap();
        assert!(endpoints.contains(&json!("POST /v1/{prefix}/transactions/commit")));
        assert_eq!(config["idempotency-key-lifetime"], "PT30M");
    }
}

#[tokio::test]
async fn unknown_routes_and_methods_are_refused_in_the_error_form() {
    let server = Server::start().await;
    server.get("/v1/nothing").await.refused(404, "NotFoundException");
    server.get("/elsewhere").await.refused(404, "NotFoundException");
    server.get("/v1/other-prefix/namespaces").await.refused(404, "NotFoundException");
    for path in ["/v1/namespaces", "/v1/icecore/namespaces"] {
        let answer = server.call(Method::DELETE, path).await;
        let allow = answer.headers[header::ALLOW].to_str().unwrap().to_owned();
        assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
        answer.refused(405, "MethodNotAllowedException");
    }
    let signed = server.post("/v1/namespaces/ns/tables/t/sign", "{}").await;
    signed.refused(406, "UnsupportedOperationException");
}

#[tokio::test]
async fn routes_work_where_the_router_is_nested() {
    let server = Server::start().await;
    let nested = Router::new().nest("/catalog", server.router.clone());
    let server = Server { router: nested, ..server };
    server.get("/catalog/v1/namespaces").await.ok();
    server.get("/catalog/v1/nothing").await.refused(404, "NotFoundException");
    let answer = server.call(Method::DELETE, "/catalog/v1/config").await;
    answer.refused(405, "MethodNotAllowedException");
}

#[tokio::test]
async fn tokens_are_refused_in_the_form_of_oauth() {
    let server = Server::start().await;
    let form = "grant_type=client_credentials&client_id=a&client_secret=b";
    let answer = server.post("/v1/oauth/tokens", form).await;
    assert_eq!(answer.status, StatusCode::NOT_IMPLEMENTED);
    assert_eq!(answer.body["error"], json!("unsupported_grant_type"));
}

#[tokio::test]
async fn a_namespace_lives_from_create_to_drop() {
    let server = Server::start().await;
    let body = json!({"namespace": ["a"], "properties": {"owner": "ann"}});
    assert_eq!(server.post("/v1/namespaces", &body).await.ok(), body);
    let again = server.post("/v1/namespaces", &body).await;
    again.refused(409, "AlreadyExistsException");
    assert_eq!(server.get("/v1/icecore/namespaces/a").await.ok(), body);
    server.call(Method::HEAD, "/v1/namespaces/a").await.empty();

    let update = json!({"removals": ["owner", "none"], "updates": {"team": "core"}});
    let updated = server.post("/v1/namespaces/a/properties", update).await.ok();
    let expected = json!({"updated": ["team"], "removed": ["owner"], "missing": ["none"]});
    assert_eq!(updated, expected);
    let properties = &server.get("/v1/namespaces/a").await.ok()["properties"];
    assert_eq!(*properties, json!({"team": "core"}));

    server.call(Method::DELETE, "/v1/namespaces/a").await.empty();
    server.get("/v1/namespaces/a").await.refused(404, "NoSuchNamespaceException");
    let head = server.call(Method::HEAD, "/v1/namespaces/a").await;
    assert_eq!(head.status, StatusCode::NOT_FOUND);
    let gone = server.call(Method::DELETE, "/v1/namespaces/a").await;
    gone.refused(404, "NoSuchNamespaceException");
}

#[tokio::test]
async fn namespaces_nest_and_their_levels_are_separated_by_1f() {
    let server = Server::start().await;
    for namespace in [json!(["a"]), json!(["a", "b"]), json!(["a", "c"]), json!(["d"])] {
        server.post("/v1/namespaces", json!({"namespace": namespace})).await.ok();
    }
    let list = async |query: &str| server.get(&format!("/v1/namespaces{query}")).await.ok();
    assert_eq!(list("").await["namespaces"], json!([["a"], ["d"]]));
    assert_eq!(list("?parent=&pageToken=").await["namespaces"], json!([["a"], ["d"]]));
    assert_eq!(list("?parent=a").await["namespaces"], json!([["a", "b"], ["a", "c"]]));
    assert_eq!(list("?parent=a%1Fb").await["namespaces"], json!([]));
    server.get("/v1/namespaces?parent=x").await.refused(404, "NoSuchNamespaceException");
    let nested = server.get("/v1/namespaces/a%1Fb").await.ok();
    assert_eq!(nested["namespace"], json!(["a", "b"]));
    let parent = server.call(Method::DELETE, "/v1/namespaces/a").await;
    parent.refused(409, "NamespaceNotEmptyException");
}

#[tokio::test]
async fn bad_namespaces_and_bodies_are_refused() {
    let server = Server::start().await;
    for body in ["", "[", r#"{"namespace": "a"}"#, r#"{"namespace": []}"#, r#"{"namespace":[""]}"#]
    {
        server.post("/v1/namespaces", body).await.refused(400, "BadRequestException");
    }
    server.post("/v1/namespaces", json!({"namespace": ["a"]})).await.ok();
    let both = json!({"removals": ["k"], "updates": {"k": "v"}});
    let answer = server.post("/v1/namespaces/a/properties", both).await;
    answer.refused(422, "UnprocessableEntityException");
    let long = " ".repeat(REQUEST_BYTES_MAX + 1);
    server.post("/v1/namespaces", long).await.refused(413, "PayloadTooLargeException");
}

#[tokio::test]
async fn a_default_that_the_library_breaks_down_over_is_refused() {
    let server = Server::start().await;
    server.post("/v1/namespaces", json!({"namespace": ["ns"]})).await.ok();
    for (kind, default) in [("time", "23:59:60.999999999"), ("decimal(9, 2)", "NaN")] {
        let column = json!({"id": 1, "name": "a", "required": false, "type": kind,
            "initial-default": default, "write-default": default});
        let body = json!({"name": "t", "properties": {"format-version": "3"},
            "schema": {"type": "struct", "schema-id": 0, "fields": [column]}});
        let refused = server.post("/v1/namespaces/ns/tables", body).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{}", refused.body);
        assert!(refused.body.to_string().contains("default value of column"), "{}", refused.body);
    }
}

#[tokio::test]
async fn a_table_is_created_loaded_listed_renamed_and_dropped() {
    let (server, created) = Server::with_table().await;
    let metadata = &created["metadata"];
    assert_eq!(metadata["format-version"], json!(2));
    assert_eq!(metadata["properties"]["owner"], json!("ann"));
    assert_eq!(created["config"], json!({}));
    let loaded = server.get("/v1/icecore/namespaces/ns/tables/t").await.ok();
    assert_eq!(loaded, created);
    let again = server.post("/v1/namespaces/ns/tables", new_table("t")).await;
    again.refused(409, "AlreadyExistsException");

    let list = server.get("/v1/namespaces/ns/tables").await.ok();
    assert_eq!(list["identifiers"], json!([{"namespace": ["ns"], "name": "t"}]));
    server.call(Method::HEAD, "/v1/namespaces/ns/tables/t").await.empty();

    let rename = json!({
        "source": {"namespace": ["ns"], "name": "t"},
        "destination": {"namespace": ["ns"], "name": "u"},
    });
    server.post("/v1/tables/rename", rename).await.empty();
    server.get("/v1/namespaces/ns/tables/t").await.refused(404, "NoSuchTableException");
    let head = server.call(Method::HEAD, "/v1/namespaces/ns/tables/t").await;
    assert_eq!(head.status, StatusCode::NOT_FOUND);
    let full = server.call(Method::DELETE, "/v1/namespaces/ns").await;
    full.refused(409, "NamespaceNotEmptyException");
    server.post("/v1/namespaces/ns/tables/u/metrics", json!({"report-type": "scan"})).await.empty();
    let path = "/v1/namespaces/ns/tables/u?purgeRequested=True";
    server.call(Method::DELETE, path).await.empty();
    server.call(Method::DELETE, path).await.refused(404, "NoSuchTableException");
}

/// A server over other files and with other rules for what is dropped.
async fn over(storage: Storage, drop_policy: DropPolicy) -> Server {
    let folder = tempfile::tempdir().unwrap();
    let metastore = Metastore::sqlite(&folder.path().join("icecore.db")).await.unwrap();
    let root = storage.root().to_owned();
    let options = CatalogOptions { drop_policy, ..CatalogOptions::default() };
    let now = Arc::new(|| 1_800_000_000_000);
    let catalog = Catalog::with_options("icecore", storage, metastore, now, options);
    let server = Server { router: router(catalog.clone()), catalog, root, folder };
    server.post("/v1/namespaces", json!({"namespace": ["ns"]})).await.ok();
    server
}

#[tokio::test]
async fn a_purge_is_asked_for_in_any_spelling_of_true() {
    let bucket = || Storage::bucket_in_memory("s3://bucket/warehouse");
    let drop_policy = DropPolicy { purge: true, ..DropPolicy::default() };
    let (allowed, usual) =
        (over(bucket(), drop_policy).await, over(bucket(), DropPolicy::default()).await);
    for (query, purge) in [
        ("?purgeRequested=True", true),
        ("?purgeRequested=true", true),
        ("?purgeRequested=TRUE", true),
        ("?purgeRequested=False", false),
        ("?purgeRequested=", false),
        ("", false),
    ] {
        for (server, purge) in [(&allowed, purge), (&usual, false)] {
            let made = server.post("/v1/namespaces/ns/tables", new_table("t")).await.ok();
            let path = format!("/v1/namespaces/ns/tables/t{query}");
            server.call(Method::DELETE, &path).await.empty();
            let dropped = server.catalog.trash().list().await.unwrap();
            let is_it = |row: &&crate::metastore::TrashRow| {
                json!(row.uuid) == made["metadata"]["table-uuid"]
            };
            let row = dropped.iter().find(is_it).unwrap();
            assert_eq!(row.trash.purge, purge, "{query}");
        }
    }
}

#[tokio::test]
async fn an_answer_with_keys_is_another_than_one_without() {
    let storage = Storage::bucket_in_memory("s3://bucket/warehouse");
    let server = over(storage, DropPolicy::default()).await;
    server.post("/v1/namespaces/ns/tables", new_table("t")).await.ok();
    let load = async |access: &str, etag: Option<&HeaderValue>| {
        let mut request = Request::get("/v1/namespaces/ns/tables/t")
            .header("x-iceberg-access-delegation", access);
        if let Some(etag) = etag {
            request = request.header(header::IF_NONE_MATCH, etag);
        }
        server.send(request.body(Body::empty()).unwrap()).await
    };
    let without = load("remote-signing", None).await;
    assert_eq!(without.body.get("storage-credentials"), None);
    let with = load("vended-credentials", without.headers.get(header::ETAG)).await;
    assert_ne!(with.headers[header::ETAG], without.headers[header::ETAG]);
    let credentials = &with.ok()["storage-credentials"];
    let location = format!("{}/", without.body["metadata"]["location"].as_str().unwrap());
    assert_eq!(credentials[0]["prefix"], json!(location));
}

#[tokio::test]
async fn tables_of_a_missing_namespace_are_missing_tables() {
    let server = Server::start().await;
    for path in ["/v1/namespaces/no/tables/t", "/v1/namespaces/no%1Fdb/tables/files"] {
        server.get(path).await.refused(404, "NoSuchTableException");
        server.post(path, json!({"updates": []})).await.refused(404, "NoSuchTableException");
        server.call(Method::DELETE, path).await.refused(404, "NoSuchTableException");
    }
    server.get("/v1/namespaces/no/tables").await.refused(404, "NoSuchNamespaceException");
    let create = server.post("/v1/namespaces/no/tables", new_table("t")).await;
    create.refused(404, "NoSuchNamespaceException");
}

#[tokio::test]
async fn a_load_that_the_client_already_has_is_304() {
    let (server, _) = Server::with_table().await;
    let path = "/v1/namespaces/ns/tables/t";
    let set = json!({"updates": [{"action": "set-properties", "updates": {"first": "v"}}]});
    let committed = server.post(path, set).await.headers[header::ETAG].clone();
    let etag = server.get(path).await.headers[header::ETAG].clone();
    assert_eq!(committed, etag, "a commit is answered with the name of what it made");
    let known = async |etag: &str| {
        let request = Request::get(path).header(header::IF_NONE_MATCH, etag);
        server.send(request.body(Body::empty()).unwrap()).await
    };
    let tag = etag.to_str().unwrap();
    for header in [tag.to_owned(), format!("W/{tag}"), format!("\"x\", {tag}")] {
        let answer = known(&header).await;
        assert_eq!((answer.status, &answer.body), (StatusCode::NOT_MODIFIED, &Value::Null));
        assert_eq!(answer.headers[header::ETAG], etag);
    }
    let refs = server.get(&format!("{path}?snapshots=refs")).await;
    assert_ne!(refs.headers[header::ETAG], etag);
    let change = json!({"updates": [{"action": "set-properties", "updates": {"k": "v"}}]});
    server.post(path, change).await.ok();
    assert_eq!(known(tag).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_table_whose_metadata_file_is_gone_is_not_loaded_from_memory() {
    let (server, table) = Server::with_table().await;
    let location = table["metadata-location"].as_str().unwrap();
    let path = "/v1/namespaces/ns/tables/t";
    let etag = server.get(path).await.headers[header::ETAG].clone();
    std::fs::remove_file(location.strip_prefix("file://").unwrap()).unwrap();
    let text = server.get(path).await.refused(404, "NotFoundException");
    assert!(text.contains(location), "{text}");
    let known = Request::get(path).header(header::IF_NONE_MATCH, etag);
    let known = server.send(known.body(Body::empty()).unwrap()).await;
    known.refused(404, "NotFoundException");
}

#[tokio::test]
async fn a_staged_table_exists_once_its_commit_is_made() {
    let server = Server::start().await;
    server.post("/v1/namespaces", json!({"namespace": ["ns"]})).await.ok();
    let mut staged = new_table("t");
    staged["stage-create"] = json!(true);
    let staged = server.post("/v1/namespaces/ns/tables", staged).await.ok();
    assert_eq!(staged.get("metadata-location"), None);
    // DuckDB writes there and makes no folders.
    let location = staged["metadata"]["location"].as_str().unwrap();
    let folder = std::path::Path::new(location.strip_prefix("file://").unwrap());
    assert!(folder.join("data").is_dir() && folder.join("metadata").is_dir());
    let path = "/v1/namespaces/ns/tables/t";
    server.get(path).await.refused(404, "NoSuchTableException");

    // As DuckDB and Spark end a staged create.
    let metadata = &staged["metadata"];
    let commit = json!({
        "requirements": [{"type": "assert-create"}],
        "updates": [
            {"action": "assign-uuid", "uuid": metadata["table-uuid"]},
            {"action": "upgrade-format-version", "format-version": 2},
            {"action": "add-schema", "schema": metadata["schemas"][0], "last-column-id": 2},
            {"action": "set-current-schema", "schema-id": -1},
            {"action": "add-spec", "spec": {"spec-id": 0, "fields": [
                {"name": "dt", "transform": "day", "source-id": 2},
            ]}},
            {"action": "set-default-spec", "spec-id": -1},
            {"action": "add-sort-order", "sort-order": {"order-id": 0, "fields": []}},
            {"action": "set-default-sort-order", "sort-order-id": -1},
            {"action": "set-location", "location": metadata["location"]},
            {"action": "set-properties", "updates": {}},
        ],
    });
    let created = server.post(path, &commit).await.ok();
    assert_eq!(created["metadata"]["table-uuid"], metadata["table-uuid"]);
    server.get(path).await.ok();
    // Sent again after a broken connection it is there already; another table is another matter.
    let again = server.post(path, &commit).await.ok();
    assert_eq!(again["metadata-location"], created["metadata-location"]);
    let mut other = commit;
    other["updates"][0]["uuid"] = json!("9c12d441-03fe-4693-9a96-a0705ddf69c1");
    server.post(path, other).await.refused(409, "CommitFailedException");
}

/// A commit of one snapshot as Spark and DuckDB send it.
fn add_snapshot(table: &Value, id: i64, parent: Option<i64>, root: &str) -> Value {
    let location = table["metadata"]["location"].as_str().unwrap();
    assert!(location.starts_with(root));
    let made_ms = table["metadata"]["last-updated-ms"].as_i64().unwrap();
    json!({
        "identifier": {"namespace": ["ns"], "name": "t"},
        "requirements": [
            {"type": "assert-table-uuid", "uuid": table["metadata"]["table-uuid"]},
            {"type": "assert-ref-snapshot-id", "ref": "main", "snapshot-id": parent},
        ],
        "updates": [
            {"action": "add-snapshot", "snapshot": {
                "snapshot-id": id,
                "parent-snapshot-id": parent,
                "sequence-number": if parent.is_some() { 2 } else { 1 },
                "timestamp-ms": made_ms + id,
                "manifest-list": format!("{location}/metadata/snap-{id}.avro"),
                "summary": {"operation": "append", "added-records": "1"},
                "schema-id": 0,
            }},
            {"action": "set-snapshot-ref", "ref-name": "main", "type": "branch",
             "snapshot-id": id},
        ],
    })
}

#[tokio::test]
async fn a_commit_is_made_once_and_a_lost_race_is_409() {
    let (server, table) = Server::with_table().await;
    let path = "/v1/namespaces/ns/tables/t";
    let first = add_snapshot(&table, 11, None, &server.root);
    let made = server.post(path, &first).await.ok();
    assert_eq!(made["metadata"]["current-snapshot-id"], json!(11));
    // DuckDB sends it again when the connection broke: it is there, so it succeeded.
    let again = server.post(path, &first).await.ok();
    assert_eq!(again["metadata-location"], made["metadata-location"]);
    let lost = add_snapshot(&table, 12, None, &server.root);
    server.post(path, lost).await.refused(409, "CommitFailedException");

    let second = add_snapshot(&table, 13, Some(11), &server.root);
    server.post(path, second).await.ok();
    let all = server.get(&format!("{path}?snapshots=all")).await.ok();
    assert_eq!(all["metadata"]["snapshots"].as_array().unwrap().len(), 2);
    let refs = server.get(&format!("{path}?snapshots=refs")).await.ok();
    let mut expected = all;
    expected["metadata"]["snapshots"].as_array_mut().unwrap().retain(|s| s["snapshot-id"] == 13);
    assert_eq!(refs, expected, "all else is the same, the snapshot log too");
    let tag = json!({"updates": [{"action": "set-snapshot-ref", "ref-name": "old", "type": "tag",
        "snapshot-id": 11}]});
    server.post(path, tag).await.ok();
    let refs = server.get(&format!("{path}?snapshots=refs")).await.ok();
    assert_eq!(refs["metadata"]["snapshots"].as_array().unwrap().len(), 2);
    server.get(&format!("{path}?snapshots=some")).await.refused(400, "BadRequestException");
}

#[tokio::test]
async fn lists_of_an_answer_are_always_in_the_same_order() {
    let (server, table) = Server::with_table().await;
    let path = "/v1/namespaces/ns/tables/t";
    let made_ms = table["metadata"]["last-updated-ms"].as_i64().unwrap();
    let (mut parent, mut expected) = (None, Vec::new());
    for (number, id) in [93, 11, 57, 2, 71, 35, 88].into_iter().enumerate() {
        let mut commit = add_snapshot(&table, id, parent, &server.root);
        let snapshot = &mut commit["updates"][0]["snapshot"];
        snapshot["sequence-number"] = json!(number + 1);
        snapshot["timestamp-ms"] = json!(made_ms + i64::try_from(number).unwrap());
        expected.push(id);
        let answer = server.post(path, commit).await.ok();
        for metadata in [&answer["metadata"], &server.get(path).await.ok()["metadata"]] {
            let snapshots = metadata["snapshots"].as_array().unwrap().iter();
            let ids: Vec<i64> = snapshots.map(|s| s["snapshot-id"].as_i64().unwrap()).collect();
            assert_eq!(ids, expected);
        }
        parent = Some(id);
    }
}

#[tokio::test]
async fn a_commit_without_requirements_is_accepted() {
    let (server, _) = Server::with_table().await;
    let path = "/v1/namespaces/ns/tables/t";
    let updates = json!([{"action": "set-properties", "updates": {"k": "v"}}]);
    for body in [
        json!({"updates": updates}),
        json!({"requirements": null, "updates": updates}),
        json!({"requirements": [], "updates": updates, "identifier": null}),
    ] {
        server.post(path, body).await.ok();
    }
}

#[tokio::test]
async fn updates_and_requirements_that_are_not_known_are_named() {
    let (server, _) = Server::with_table().await;
    let path = "/v1/namespaces/ns/tables/t";
    for (body, name) in [
        (json!({"updates": [{"action": "enable-row-lineage"}]}), "enable-row-lineage"),
        (json!({"updates": [{"action": "set-current-schema"}]}), "set-current-schema"),
        (
            json!({"requirements": [{"type": "assert-view-uuid"}], "updates": []}),
            "assert-view-uuid",
        ),
    ] {
        let message = server.post(path, body).await.refused(400, "BadRequestException");
        assert!(message.contains(name), "{message}");
    }
}

/// The shapes that Java, PyIceberg and DuckDB write, as far as this crate's parser had to be
/// checked against them: left out ids, extra members, flattened references.
#[test]
fn updates_and_requirements_of_real_clients_are_understood() {
    let check = |items: &[&str], what: &str, tag: &str| {
        let raw: Vec<Box<RawValue>> =
            items.iter().map(|item| RawValue::from_string((*item).to_owned()).unwrap()).collect();
        if what == "update" {
            commit::parse::<iceberg::TableUpdate>(Some(&raw), what, tag).unwrap().len()
        } else {
            commit::parse::<iceberg::TableRequirement>(Some(&raw), what, tag).unwrap().len()
        }
    };
    let updates = [
        r#"{"action":"assign-uuid","uuid":"9c12d441-03fe-4693-9a96-a0705ddf69c1"}"#,
        r#"{"action":"upgrade-format-version","format-version":3}"#,
        r#"{"action":"add-schema","last-column-id":5,"schema":{"type":"struct","fields":[
            {"id":1,"name":"l","required":false,"type":{"type":"list","element-id":3,
             "element-required":false,"element":"string"}},
            {"id":2,"name":"m","required":false,"type":{"type":"map","key-id":4,"key":"string",
             "value-id":5,"value-required":false,"value":"decimal(9, 2)"}}]}}"#,
        r#"{"action":"set-current-schema","schema-id":-1}"#,
        r#"{"action":"add-spec","spec":{"spec-id":1,"fields":[
            {"source-id":1,"transform":"bucket[16]","name":"b"},
            {"source-id":1,"field-id":1001,"transform":"truncate[4]","name":"t"}]}}"#,
        r#"{"action":"add-spec","spec":{"fields":[]}}"#,
        r#"{"action":"set-default-spec","spec-id":-1}"#,
        r#"{"action":"add-sort-order","sort-order":{"order-id":1,"fields":[{"transform":"identity",
            "source-id":1,"direction":"asc","null-order":"nulls-first"}]}}"#,
        r#"{"action":"set-default-sort-order","sort-order-id":-1}"#,
        r#"{"action":"set-snapshot-ref","ref-name":"audit","snapshot-id":1,"type":"tag",
            "max-ref-age-ms":1000}"#,
        r#"{"action":"set-snapshot-ref","ref-name":"main","snapshot-id":1,"type":"branch",
            "min-snapshots-to-keep":null,"max-snapshot-age-ms":null,"max-ref-age-ms":null}"#,
        r#"{"action":"remove-snapshot-ref","ref-name":"audit"}"#,
        r#"{"action":"remove-snapshots","snapshot-ids":[9007199254740993]}"#,
        r#"{"action":"set-location","location":"file:///w/t"}"#,
        r#"{"action":"set-properties","updates":{"a":"b"}}"#,
        r#"{"action":"remove-properties","removals":["a"]}"#,
        r#"{"action":"set-statistics","snapshot-id":1,"statistics":{"snapshot-id":1,
            "statistics-path":"file:///w/t/metadata/1.puffin","file-size-in-bytes":9,
            "file-footer-size-in-bytes":5,"blob-metadata":[{"type":"apache-datasketches-theta-v1",
            "snapshot-id":1,"sequence-number":1,"fields":[1],"properties":{"ndv":"3"}}]}}"#,
        r#"{"action":"remove-statistics","snapshot-id":1}"#,
        r#"{"action":"set-partition-statistics","partition-statistics":{"snapshot-id":1,
            "statistics-path":"file:///w/t/metadata/1.parquet","file-size-in-bytes":9}}"#,
        r#"{"action":"remove-partition-statistics","snapshot-id":1}"#,
        r#"{"action":"remove-partition-specs","spec-ids":[0]}"#,
        r#"{"action":"remove-schemas","schema-ids":[0]}"#,
    ];
    assert_eq!(check(&updates, "update", "action"), updates.len());
    let requirements = [
        r#"{"type":"assert-create"}"#,
        r#"{"type":"assert-table-uuid","uuid":"9c12d441-03fe-4693-9a96-a0705ddf69c1"}"#,
        r#"{"type":"assert-ref-snapshot-id","ref":"main","snapshot-id":null}"#,
        r#"{"type":"assert-ref-snapshot-id","ref":"main"}"#,
        r#"{"type":"assert-last-assigned-field-id","last-assigned-field-id":2}"#,
        r#"{"type":"assert-current-schema-id","current-schema-id":0}"#,
        r#"{"type":"assert-last-assigned-partition-id","last-assigned-partition-id":999}"#,
        r#"{"type":"assert-default-spec-id","default-spec-id":0}"#,
        r#"{"type":"assert-default-sort-order-id","default-sort-order-id":0}"#,
    ];
    assert_eq!(check(&requirements, "requirement", "type"), requirements.len());
}

#[tokio::test]
async fn a_transaction_changes_all_its_tables_or_none() {
    let (server, table) = Server::with_table().await;
    server.post("/v1/namespaces/ns/tables", new_table("u")).await.ok();
    let set = |name: &str, uuid: &Value| {
        json!({
            "identifier": {"namespace": ["ns"], "name": name},
            "requirements": [{"type": "assert-table-uuid", "uuid": uuid}],
            "updates": [{"action": "set-properties", "updates": {"k": "v"}}],
        })
    };
    let uuid = &table["metadata"]["table-uuid"];
    let other = server.get("/v1/namespaces/ns/tables/u").await.ok();
    let other = &other["metadata"]["table-uuid"];
    let property = async |name: &str| {
        let table = server.get(&format!("/v1/namespaces/ns/tables/{name}")).await.ok();
        table["metadata"]["properties"].get("k").cloned()
    };
    let path = "/v1/transactions/commit";

    let torn = json!({"table-changes": [set("t", uuid), set("u", uuid)]});
    server.post(path, torn).await.refused(409, "CommitFailedException");
    assert_eq!((property("t").await, property("u").await), (None, None));
    let whole = json!({"table-changes": [set("t", uuid), set("u", other)]});
    server.post(path, whole).await.empty();
    assert_eq!((property("t").await, property("u").await), (Some(json!("v")), Some(json!("v"))));
    let nameless = json!({"table-changes": [{"updates": []}]});
    server.post(path, nameless).await.refused(400, "BadRequestException");
}

#[tokio::test]
async fn the_newest_metrics_of_a_table_are_kept_and_shown() {
    let (server, _) = Server::with_table().await;
    let path = "/v1/namespaces/ns/tables/t/metrics";
    for number in 0..102 {
        let report = json!({"report-type": "scan-report", "table-name": "t", "n": number});
        server.post(path, report).await.empty();
    }
    let shown = server.get(path).await.ok();
    let reports = shown["reports"].as_array().unwrap();
    assert_eq!((reports.len(), &reports[0]["report"]["n"]), (100, &json!(101)));
    assert_eq!(reports[0]["received-ms"], json!(1_800_000_000_000i64));
    for wrong in ["", "[]", "{}", r#"{"report-type": 1}"#] {
        server.post(path, wrong).await.refused(400, "BadRequestException");
    }
    let long = json!({"report-type": "scan-report", "text": " ".repeat(64 << 10)});
    server.post(path, long).await.refused(413, "PayloadTooLargeException");
    let missing = "/v1/namespaces/ns/tables/none/metrics";
    server.get(missing).await.refused(404, "NoSuchTableException");
    let report = json!({"report-type": "scan-report"});
    server.post(missing, report).await.refused(404, "NoSuchTableException");
}

#[tokio::test]
async fn a_table_is_unregistered_and_registered_over_another() {
    let (server, table) = Server::with_table().await;
    let left = server.post("/v1/icecore/namespaces/ns/tables/t/unregister", "").await.ok();
    let location = &table["metadata-location"];
    assert_eq!(left, json!({"metadata-location": location, "metadata": table["metadata"]}));
    let again = server.post("/v1/namespaces/ns/tables/t/unregister", "").await;
    again.refused(404, "NoSuchTableException");

    let other = server.post("/v1/namespaces/ns/tables", new_table("t")).await.ok();
    let etag = server.get("/v1/namespaces/ns/tables/t").await.headers[header::ETAG].clone();
    let register = |overwrite: bool| json!({"name": "t", "metadata-location": location, "overwrite": overwrite});
    let taken = server.post("/v1/namespaces/ns/register", register(false)).await;
    taken.refused(409, "AlreadyExistsException");
    let over = server.post("/v1/namespaces/ns/register", register(true)).await.ok();
    assert_eq!(over["metadata"], table["metadata"]);
    assert_ne!(over["metadata"]["table-uuid"], other["metadata"]["table-uuid"]);
    let loaded = server.get("/v1/namespaces/ns/tables/t").await;
    assert_ne!(loaded.headers[header::ETAG], etag);
    assert_eq!(loaded.ok()["metadata"], table["metadata"]);
}

#[tokio::test]
async fn a_metadata_file_becomes_a_table() {
    let (server, table) = Server::with_table().await;
    let location = table["metadata-location"].clone();
    server.call(Method::DELETE, "/v1/namespaces/ns/tables/t").await.empty();
    let path = "/v1/namespaces/ns/register";
    let body = json!({"name": "again", "metadata-location": location});
    let registered = server.post(path, &body).await.ok();
    assert_eq!(registered["metadata"]["table-uuid"], table["metadata"]["table-uuid"]);
    server.post(path, &body).await.refused(409, "AlreadyExistsException");

    let missing = format!("{}/none/metadata/00000-x.metadata.json", server.root);
    let body = json!({"name": "none", "metadata-location": missing});
    server.post(path, body).await.refused(400, "BadRequestException");
    let garbage = format!("{}/garbage.metadata.json", server.root);
    std::fs::write(garbage.strip_prefix("file://").unwrap(), "{}").unwrap();
    let body = json!({"name": "garbage", "metadata-location": garbage});
    server.post(path, body).await.refused(400, "BadRequestException");
    let body = json!({"name": "", "metadata-location": location});
    server.post(path, body).await.refused(400, "BadRequestException");
    let body = json!({"name": "passwd", "metadata-location": "file:///etc/passwd"});
    server.post(path, body).await.refused(403, "ForbiddenException");
}

#[tokio::test]
async fn a_location_outside_of_the_warehouse_is_forbidden() {
    let (server, _) = Server::with_table().await;
    let mut table = new_table("out");
    table["location"] = json!("file:///tmp/elsewhere");
    server.post("/v1/namespaces/ns/tables", table).await.refused(403, "ForbiddenException");
}

#[tokio::test]
async fn a_location_that_no_disk_takes_is_the_clients_fault() {
    let (server, table) = Server::with_table().await;
    let mut long = new_table("long");
    long["location"] = json!(format!("{}/{}", server.root, "x".repeat(300)));
    let tables = "/v1/namespaces/ns/tables";
    let message = server.post(tables, long).await.refused(400, "BadRequestException");
    assert!(message.contains("too long"), "{message}");
    let namespace = json!({"namespace": ["n".repeat(300)]});
    server.post("/v1/namespaces", namespace).await.refused(400, "BadRequestException");
    // The longest that there may be fits.
    let namespace = "n".repeat(255);
    server.post("/v1/namespaces", json!({"namespace": [namespace]})).await.ok();
    let path = format!("/v1/namespaces/{namespace}/tables");
    server.post(&path, new_table("t")).await.ok();
    let location = table["metadata"]["location"].as_str().unwrap();
    let moved = json!({"updates": [
        {"action": "set-location", "location": format!("{location}{}", "x".repeat(300))},
    ]});
    server.post("/v1/namespaces/ns/tables/t", moved).await.refused(400, "BadRequestException");
    let below = format!("{}/x.json", table["metadata-location"].as_str().unwrap());
    let body = json!({"name": "below", "metadata-location": below});
    server.post("/v1/namespaces/ns/register", body).await.refused(400, "BadRequestException");
}

#[tokio::test]
async fn a_metadata_file_that_cannot_be_read_now_is_503() {
    let (server, table) = Server::with_table().await;
    // Another server, which has not seen the file yet.
    let server = Server::start_in(server.folder).await;
    let location = table["metadata-location"].as_str().unwrap();
    let path = std::path::Path::new(location.strip_prefix("file://").unwrap());
    let load = "/v1/namespaces/ns/tables/t";
    server.catalog.storage().break_for(&["metadata.json"]);
    server.get(load).await.refused(503, "ServiceUnavailableException");
    let commit = json!({"requirements": [], "updates": []});
    server.post(load, &commit).await.refused(503, "ServiceUnavailableException");
    server.catalog.storage().break_for(&[]);
    let bytes = std::fs::read(path).unwrap();
    std::fs::remove_file(path).unwrap();
    server.get(load).await.refused(404, "NotFoundException");
    // A folder is no file, as in an object store.
    std::fs::create_dir(path).unwrap();
    server.get(load).await.refused(404, "NotFoundException");
    std::fs::remove_dir(path).unwrap();
    std::fs::write(path, bytes).unwrap();
    server.get(load).await.ok();
}

#[tokio::test]
async fn errors_of_the_server_tell_nothing_of_its_inside() {
    let secret = "s3://bucket/secret";
    let storage =
        |source| CatalogError::Storage { operation: "read", location: secret.to_owned(), source };
    let source = || Box::<dyn std::error::Error + Send + Sync>::from(secret);
    for (error, status, kind) in [
        (
            storage(object_store::Error::Generic { store: "S3", source: source() }),
            503,
            "ServiceUnavailableException",
        ),
        (
            storage(object_store::Error::NotFound { path: secret.to_owned(), source: source() }),
            500,
            "InternalServerError",
        ),
        (
            CatalogError::Metastore { operation: "commit", source: sqlx::Error::PoolTimedOut },
            503,
            "ServiceUnavailableException",
        ),
        (CatalogError::CommitStateUnknown(secret.to_owned()), 500, "CommitStateUnknownException"),
    ] {
        let response = RestError::from(error).into_response();
        assert_eq!(response.status().as_u16(), status);
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(body["error"]["type"], json!(kind));
        assert!(!body.to_string().contains("secret"), "{body}");
    }
}

#[test]
fn remembered_answers_are_bounded_and_the_last_ones_stay() {
    let answers = etag::AnswerCache::default();
    let body = |n: usize| Bytes::from(vec![n as u8; 3 << 20]);
    for n in 0..7 {
        let fresh = answers.get_or_encode(&n.to_string(), || body(n));
        assert_eq!(fresh, body(n));
    }
    let known = answers.get_or_encode("6", || unreachable!("it was sent last"));
    assert_eq!(known, body(6));
    let forgotten = answers.get_or_encode("0", Bytes::new);
    assert_eq!(forgotten, Bytes::new());
}

#[tokio::test]
async fn a_plus_in_a_path_is_a_space_and_its_escape_is_a_plus() {
    let server = Server::start().await;
    for name in ["a b", "a+b", "+", " "] {
        server.post("/v1/namespaces", json!({"namespace": [name]})).await.ok();
        let form = name.replace('+', "%2B").replace(' ', "+");
        let percent = name.replace('+', "%2B").replace(' ', "%20");
        let at = format!("/v1/namespaces/{form}");
        server.post(&format!("{at}/tables"), new_table(name)).await.ok();
        let view = views::new_view(&format!("{name} v"), "select 1");
        server.post(&format!("{at}/views"), view).await.ok();
        for (namespace, table) in [(&form, &form), (&percent, &percent), (&form, &percent)] {
            let found = server.get(&format!("/v1/namespaces/{namespace}")).await.ok();
            assert_eq!(found["namespace"], json!([name]));
            for prefix in ["/v1", "/v1/icecore"] {
                server.get(&format!("{prefix}/namespaces/{namespace}/tables/{table}")).await.ok();
            }
            server.get(&format!("/v1/namespaces/{namespace}/views/{table}+v")).await.ok();
            server.get(&format!("/v1/namespaces/{namespace}/views/{table}%20v")).await.ok();
            let update = json!({"updates": [{"action": "set-properties", "updates": {"k": "v"}}]});
            server.post(&format!("/v1/namespaces/{namespace}/tables/{table}"), update).await.ok();
            let page = server
                .get(&format!("/v1/namespaces/{namespace}/tables?pageSize=1&pageToken="))
                .await
                .ok();
            assert_eq!(page["identifiers"][0]["name"], json!(name));
        }
    }
    // Two levels.
    server.post("/v1/namespaces", json!({"namespace": ["a b", "c d"]})).await.ok();
    let found = server.get("/v1/namespaces/a+b%1Fc+d").await.ok();
    assert_eq!(found["namespace"], json!(["a b", "c d"]));
    let listed = server.get("/v1/namespaces?parent=a+b").await.ok();
    assert_eq!(listed["namespaces"], json!([["a b", "c d"]]));
    server.get("/v1/namespaces/%FF").await.refused(400, "BadRequestException");
}

#[tokio::test]
async fn a_load_leases_the_current_snapshot() {
    let (server, table) = Server::with_table().await;
    let path = "/v1/namespaces/ns/tables/t";
    server.post(path, add_snapshot(&table, 11, None, &server.root)).await.ok();
    let uuid = table["metadata"]["table-uuid"].as_str().unwrap().parse().unwrap();
    let leases = || server.catalog.metastore().snapshot_leases(uuid, NOW_MS);
    assert!(leases().await.unwrap().is_empty(), "a commit leases nothing");
    server.get(path).await.ok();
    let [lease] = leases().await.unwrap()[..] else { panic!("one lease") };
    assert_eq!(lease.snapshot_id, 11);
    assert!(NOW_MS + 3_600_000 <= lease.until_ms && lease.until_ms == lease.line_until_ms);
}

#[tokio::test]
async fn files_of_a_table_stay_after_the_load_of_a_client_that_looks_itself() {
    let (server, table) = Server::with_table().await;
    server.post("/v1/namespaces/ns/tables", new_table("u")).await.ok();
    let uuid = table["metadata"]["table-uuid"].as_str().unwrap().parse().unwrap();
    let load = async |path: &str, library: &str| {
        let url = format!("/v1/namespaces/ns/tables/{path}");
        let request = Request::get(url).header("x-client-version", library);
        server.send(request.body(Body::empty()).unwrap()).await.ok();
    };
    let minutes_left = async |name: &str| {
        let ident = iceberg::TableIdent::from_strs(["ns", name]).unwrap();
        let loaded = server.catalog.tables().load(&ident).await.unwrap();
        let until = server.catalog.upkeep().files_stay_until(&loaded).await.unwrap();
        until.map(|until_ms| (until_ms - NOW_MS) / 60_000)
    };
    server.get("/v1/namespaces/ns/tables/t").await.ok();
    load("t", "0.14.1").await;
    assert_eq!(minutes_left("t").await, None, "PyIceberg");
    let java = "Apache Iceberg 1.10.1 (commit ccb8bc4)";
    load("t?snapshots=all", java).await;
    let noted = server.catalog.metastore().writer_loads(uuid).await.unwrap().unwrap();
    assert_eq!((noted.since_ms, noted.loaded_ms, noted.refreshed_ms), (NOW_MS, NOW_MS, 0));
    assert_eq!(minutes_left("t").await, Some(2));
    load("t", java).await;
    assert_eq!(minutes_left("t").await, Some(2), "Spark without its cache opens it so");
    load("u", java).await;
    assert_eq!(minutes_left("u").await, Some(15), "it had the table");
}
