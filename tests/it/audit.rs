//! The audit log: what is in it, who reads it, and that it is whole after a crash.

use crate::{
    access::Guarded,
    admin::icecore,
    harness::{TestServer, events},
};
use icecore::http::{
    record::is_recorded,
    routes::{ROUTES, Route},
};
use icecore_catalog::{
    access::AccessControl,
    audit::{AuditEntry, ChainCheck, ChainEnds, ChainRecord},
    metastore::Metastore,
};
use icecore_lake::{clock::Clock, ids::IdGenerator};
use reqwest::Method;
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

const COLUMNS: &str =
    "number, principal, address, request, action, object, outcome, details, hash, previous_hash";

/// What `GET /admin/audit` has of the records, as the rows of a query for [`COLUMNS`].
fn rows_of(page: &Value) -> Value {
    let records = page["records"].as_array().unwrap();
    let mut before = page["start"]["hash"].clone();
    let row = |record: &Value| {
        let fields = COLUMNS.split(", ").take(9);
        let mut row: Vec<Value> = fields.map(|field| record[field].clone()).collect();
        row.push(std::mem::replace(&mut before, record["hash"].clone()));
        Value::from(row)
    };
    records.iter().map(row).collect()
}

fn verify(page: &Value) -> Result<(), String> {
    let records: Vec<ChainRecord> = serde_json::from_value(page["records"].clone()).unwrap();
    let ends: ChainEnds = serde_json::from_value(page.clone()).unwrap();
    let mut check = ChainCheck::new(ends, None);
    check.page(&records).map_err(|broken| broken.to_string())?;
    check.finish().map(|_| ()).map_err(|broken| broken.to_string())
}

impl Guarded {
    async fn ask(&self, token: &str, sql: &str) -> (u16, Value) {
        self.post(token, "/v1/default/sql", &json!({ "sql": sql })).await
    }

    async fn answer(&self, sql: &str) -> Value {
        let (status, answer) = self.ask(&self.admin, sql).await;
        assert_eq!(status, 200, "{sql}: {answer}");
        answer["rows"].clone()
    }

    /// Makes `events` in `shop.example` with two snapshots, whose ids these are, and `t` in `Up`.
    async fn with_tables(&self) -> Vec<i64> {
        let schema = json!({"type": "struct", "fields": []});
        for (path, body) in [
            ("/ingest", events(0..5)),
            ("/v1/shop.example/commit", Value::Null),
            ("/ingest", events(10..15)),
            ("/v1/shop.example/commit", Value::Null),
            ("/catalog/v1/namespaces", json!({"namespace": ["Up"]})),
            ("/catalog/v1/namespaces/Up/tables", json!({"name": "t", "schema": schema})),
        ] {
            assert_eq!(self.post(&self.admin, path, &body).await.0, 200, "{path}");
        }
        let path = "/v1/shop.example/tables/events/snapshots";
        let (_, snapshots) = self.get(&self.admin, path).await;
        let ids = snapshots["snapshots"].as_array().unwrap().iter().rev();
        ids.map(|row| row["snapshot"].as_i64().unwrap()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_queries_the_audit_log_and_nobody_else_knows_of_it() {
    let guarded = Guarded::start().await;
    for n in 0..3 {
        let body = json!({"namespace": [format!("a{n}")]});
        assert_eq!(guarded.post(&guarded.admin, "/catalog/v1/namespaces", &body).await.0, 200);
    }
    let reader = guarded.token(&json!({"name": "r", "scopes": ["read:*"]})).await;
    let local = guarded.token(&json!({"name": "l", "scopes": ["admin:default"]})).await;
    let drop = "/catalog/v1/namespaces/a0";
    assert_eq!(guarded.call(Method::DELETE, &reader, drop, &Value::Null).await.0, 403);

    let (_, page) = guarded.get(&guarded.admin, "/admin/audit").await;
    verify(&page).unwrap();
    let expected = rows_of(&page);
    assert_eq!(expected.as_array().unwrap().len(), 6);
    for table in ["system.audit", "icecore.system.audit"] {
        let found = guarded.answer(&format!("SELECT {COLUMNS} FROM {table} ORDER BY number")).await;
        assert_eq!(found, expected);
    }
    assert_eq!(
        guarded.answer("SELECT count(*), max(number) FROM system.audit").await,
        json!([[6, 6]])
    );
    // The newest come first, as they are read.
    assert_eq!(guarded.answer("SELECT number FROM system.audit LIMIT 2").await, json!([[6], [5]]));
    let refused = "SELECT object, outcome FROM system.audit WHERE outcome NOT IN ('done')";
    assert_eq!(guarded.answer(refused).await, json!([["a0", "403"]]));
    let some = "SELECT number FROM system.audit WHERE number > 1 AND number < 4 ORDER BY 1";
    assert_eq!(guarded.answer(some).await, json!([[2], [3]]));
    let recent = "SELECT count(*) FROM system.audit WHERE time > now() - INTERVAL '1' HOUR";
    assert_eq!(guarded.answer(recent).await, json!([[6]]));
    let past = "SELECT count(*) FROM system.audit WHERE time < '2020-01-01T00:00:00Z'";
    assert_eq!(guarded.answer(past).await, json!([[0]]));
    let body = json!({"sql": "SELECT 1 FROM system.audit", "as_of": "2026-01-01T00:00:00Z"});
    let (status, answer) = guarded.post(&guarded.admin, "/v1/default/sql", &body).await;
    assert_eq!(status, 400);
    assert!(answer["error"].as_str().unwrap().contains("filter by their time"), "{answer}");

    // It is listed beside the namespace's tables, for who may read it.
    let events = json!([{"id": "1", "type": "a", "ns": "default"}]);
    assert_eq!(guarded.post(&guarded.admin, "/ingest", &events).await.0, 200);
    let listed = "SELECT table_schema, table_name FROM information_schema.tables
                  WHERE table_schema <> 'information_schema' ORDER BY 1, 2";
    let own = [json!(["default", "dead_letters"]), json!(["default", "events"])];
    let system = json!(["system", "audit"]);
    assert_eq!(guarded.answer(listed).await, json!([own[0], own[1], system]));
    assert!(guarded.answer("SHOW TABLES").await.to_string().contains("audit"));
    let both =
        "SELECT (SELECT count(*) FROM events) AS e, (SELECT count(*) FROM system.audit) AS a";
    assert_eq!(guarded.answer(both).await, json!([[1, 6]]));
    for token in [&reader, &local] {
        let (_, answer) = guarded.ask(token, listed).await;
        assert_eq!(answer["rows"], json!(own));
        let refusal = async |table: &str| {
            let (status, answer) = guarded.ask(token, &format!("SELECT * FROM {table}")).await;
            assert_eq!(status, 400);
            answer["error"].as_str().unwrap().replace(table, "T")
        };
        for missing in ["system.audit", "icecore.system.audit"] {
            assert_eq!(refusal(missing).await, refusal(&missing.replace("audit", "other")).await);
        }
    }
    guarded.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_is_read_in_pages() {
    let server = TestServer::start().await;
    let store = Metastore::sqlite(&server.folder.path().join("icecore.db")).await.unwrap();
    // The server would cut what is old.
    let access = AccessControl::recorded(store, Arc::new(|| Clock::system().now_ms()));
    for batch in 0..25 {
        for n in 0..100 {
            let object = format!("{batch}.{n}");
            let entry = AuditEntry { object, ..AuditEntry::default() };
            drop(access.recorder().unwrap().begin(entry));
        }
        access.tick().await.unwrap();
    }
    let counts =
        "SELECT count(*), count(DISTINCT number), count(DISTINCT object) FROM system.audit";
    assert_eq!(server.rows("default", counts).await, json!([[2500, 2500, 2500]]));
    let rows = server.rows("default", "SELECT number FROM system.audit LIMIT 1500").await;
    let numbers: Vec<i64> =
        rows.as_array().unwrap().iter().map(|row| row[0].as_i64().unwrap()).collect();
    assert!(numbers.iter().copied().eq((1001..=2500).rev()), "{} rows", numbers.len());
    // The newest are asked for without a look at the rest.
    let newest = "SELECT object, number FROM system.audit ORDER BY number DESC LIMIT 1";
    assert_eq!(server.rows("default", newest).await, json!([["24.99", 2500]]));
    let plan = server.rows("default", &format!("EXPLAIN {newest}")).await.to_string();
    assert!(!plan.contains("SortExec"), "{plan}");
    server.stop().await;
}

/// The audit of rows, which notes what it finds.
const ROWS: &str = "/v1/{namespace}/audit/events";

/// One call of each route that changes something: the route, what is sent, and the outcome.
fn changes(ids: &[i64]) -> Vec<(&'static str, &'static str, &'static str, Value, &'static str)> {
    const TABLE: &str = "/v1/{namespace}/tables/{table}";
    const REFS: &str = "/v1/{namespace}/tables/{table}/refs";
    const REF: &str = "/v1/{namespace}/tables/{table}/refs/{name}";
    const FORWARD: &str = "/v1/{namespace}/tables/{table}/refs/{name}/fast-forward";
    const SECRET: &str = "/admin/webhooks/{namespace}/{provider}";
    const PROTECTION: &str = "/v1/{namespace}/tables/{table}/protection";
    const EVENTS: &str = "/v1/shop.example/tables/events";
    let branch = json!({"name": "b", "type": "branch", "snapshot": ids[0]});
    let path = |end: &'static str| -> &'static str { Box::leak(format!("{EVENTS}{end}").into()) };
    let null = Value::Null;
    vec![
        ("POST", "/v1/{namespace}/commit", "/v1/shop.example/commit", null.clone(), "200"),
        ("POST", "/admin/commit", "/admin/commit", null.clone(), "200"),
        ("POST", ROWS, "/v1/shop.example/audit/events", null.clone(), "200"),
        (
            "POST",
            "/v1/{namespace}/dead-letters/retry",
            "/v1/shop.example/dead-letters/retry",
            json!({"all": true}),
            "200",
        ),
        (
            "DELETE",
            "/v1/{namespace}/dead-letters",
            "/v1/shop.example/dead-letters?before=2026-01-01T00:00:00Z",
            null.clone(),
            "200",
        ),
        ("POST", REFS, path("/refs"), branch, "done"),
        ("POST", FORWARD, path("/refs/b/fast-forward"), json!({"to": "main"}), "done"),
        ("DELETE", REF, path("/refs/b"), null.clone(), "done"),
        // The service writes this table: it does not go back.
        (
            "POST",
            "/v1/{namespace}/tables/{table}/rollback",
            path("/rollback"),
            json!({"snapshot": ids[0]}),
            "400",
        ),
        ("POST", "/admin/jobs/{job}", "/admin/jobs/compact", null.clone(), "200"),
        ("PUT", PROTECTION, "/v1/Up/tables/t/protection", null.clone(), "done"),
        ("DELETE", PROTECTION, "/v1/Up/tables/t/protection", null.clone(), "done"),
        (
            "POST",
            "/v1/{namespace}/tables/{table}/rename",
            "/v1/Up/tables/t/rename",
            json!({"name": "u"}),
            "done",
        ),
        ("DELETE", TABLE, "/v1/Up/tables/u", null.clone(), "done"),
        ("POST", "/admin/dropped/{uuid}/undrop", "/admin/dropped/UUID/undrop", json!({}), "done"),
        ("DELETE", TABLE, "/v1/Up/tables/u", null.clone(), "done"),
        ("DELETE", "/admin/dropped/{uuid}", "/admin/dropped/UUID", null.clone(), "done"),
        (
            "POST",
            "/admin/tokens",
            "/admin/tokens",
            json!({"name": "n", "scopes": ["read:a"]}),
            "done",
        ),
        (
            "PUT",
            SECRET,
            "/admin/webhooks/shop.example/github",
            json!({"secret": "not to be shown"}),
            "done",
        ),
        ("DELETE", SECRET, "/admin/webhooks/shop.example/github", null.clone(), "done"),
        ("DELETE", "/admin/tokens/{id}", "/admin/tokens/TOKEN", null, "done"),
    ]
}

/// The same of legal holds, views, materialised tables, tags, erasures, branches and checks.
fn of_maintenance() -> [(&'static str, &'static str, &'static str, Value, &'static str); 18] {
    const HOLD: &str = "/v1/{namespace}/holds/{hold}";
    const CASE: &str = "/v1/shop.example/holds/case-7";
    const VIEW: &str = "/v1/{namespace}/views/{view}";
    const KINDS: &str = "/v1/shop.example/views/kinds";
    const MATERIALIZED: &str = "/v1/{namespace}/materialized/{table}";
    const COLLECTION: &str = "/v1/{namespace}/collections/{collection}/restore";
    const MERGE: &str = "/v1/{namespace}/branches/{branch}/merge";
    const REFRESH: &str = "/v1/{namespace}/collections/{collection}/refresh";
    const SCHEMA: &str = "/v1/{namespace}/collections/{collection}/schema";
    const USERS: &str = "/v1/shop.example/collections/users/schema?dry_run=true";
    const ROLLUP: &str = "/v1/shop.example/materialized/rollup";
    const TAGS: &str = "/v1/{namespace}/tags";
    const TAG: &str = "/v1/{namespace}/tags/{name}";
    const BRANCHES: &str = "/v1/{namespace}/branches";
    const BRANCH: &str = "/v1/{namespace}/branches/{branch}";
    const SQUASH: &str = "/v1/{namespace}/branches/{branch}/squash";
    const TRY: &str = "/v1/shop.example/branches/try";
    let view = json!({"sql": "SELECT DISTINCT type FROM events"});
    let rollup = json!({"sql": "SELECT DISTINCT type FROM events", "every": "0 0 1 1 *"});
    let restore = json!({"at": "seq:1", "dry_run": true});
    let erasure = json!({"subject": {"id": "nobody"}, "dry_run": true});
    let schema = json!({"type": "object", "properties": {"name": {"type": "string"}}});
    [
        ("PUT", HOLD, CASE, json!({}), "done"),
        ("DELETE", HOLD, CASE, Value::Null, "done"),
        ("PUT", VIEW, KINDS, view, "done"),
        ("DELETE", VIEW, KINDS, Value::Null, "done"),
        ("PUT", MATERIALIZED, ROLLUP, rollup, "done"),
        ("DELETE", MATERIALIZED, ROLLUP, Value::Null, "done"),
        ("POST", TAGS, "/v1/shop.example/tags", json!({"name": "release-1"}), "done"),
        ("DELETE", TAG, "/v1/shop.example/tags/release-1", Value::Null, "done"),
        ("POST", REFRESH, "/v1/shop.example/collections/none/refresh", Value::Null, "404"),
        ("PUT", SCHEMA, USERS, schema, "200"),
        ("POST", "/v1/{namespace}/erase", "/v1/shop.example/erase", erasure, "202"),
        ("POST", COLLECTION, "/v1/shop.example/collections/users/restore", restore.clone(), "200"),
        ("POST", "/v1/{namespace}/restore", "/v1/shop.example/restore", restore, "200"),
        ("POST", MERGE, "/v1/shop.example/branches/none/merge", json!({}), "404"),
        ("POST", BRANCHES, "/v1/shop.example/branches", json!({"name": "try"}), "201"),
        ("POST", SQUASH, "/v1/shop.example/branches/try/squash", Value::Null, "200"),
        ("DELETE", BRANCH, TRY, Value::Null, "done"),
        ("POST", "/admin/fsck", "/admin/fsck?quick=true", Value::Null, "200"),
    ]
}

/// The log as people read it.
fn check_command_line(server: &TestServer, page: &Value) {
    let (done, listed) = icecore(server, &["audit", "list", "--limit", "1000"]);
    assert!(done, "{listed}");
    let records = page["records"].as_array().unwrap();
    assert_eq!(listed.lines().skip(1).count(), records.len(), "{listed}");
    for (line, record) in listed.lines().skip(1).zip(records) {
        for field in ["action", "outcome", "request"] {
            assert!(line.contains(record[field].as_str().unwrap()), "{line}");
        }
    }
    let (done, text) = icecore(server, &["audit", "verify"]);
    assert!(done && text.contains("none changed"), "{text}");
    let count = ["sql", "SELECT count(*) FROM system.audit", "--format", "csv"];
    let (done, text) = icecore(server, &count);
    assert!(done && text.contains(&records.len().to_string()), "{text}");
}

/// With access control and without.
#[tokio::test(flavor = "multi_thread")]
async fn every_route_that_changes_something_leaves_one_record() {
    let open = Guarded { server: TestServer::start().await, admin: String::new() };
    for guarded in [Guarded::start().await, open] {
        let is_open = guarded.admin.is_empty();
        let admin = guarded.admin.clone();
        let call = async |method: &str, path: &str, body: &Value| {
            guarded.call(method.parse().unwrap(), &admin, path, body).await
        };
        let page = async || call("GET", "/admin/audit", &Value::Null).await.1;
        let ids = guarded.with_tables().await;
        let mut walked = BTreeSet::new();
        let (mut uuid, mut token) = (String::new(), "none".to_owned());
        for (method, route, path, body, expected) in
            changes(&ids).into_iter().chain(of_maintenance())
        {
            let before = page().await["head"]["number"].as_i64().unwrap();
            let sent = path.replace("UUID", &uuid).replace("TOKEN", &token);
            let (status, answer) = call(method, &sent, &body).await;
            let expected = if is_open && path.contains("tokens") { "404" } else { expected };
            let page = page().await;
            let records = &page["records"].as_array().unwrap()[usize::try_from(before).unwrap()..];
            assert_eq!(records.len(), 1, "{method} {path}: {status} {answer}");
            let told = (&records[0]["action"], &records[0]["outcome"]);
            assert_eq!(told, (&json!(format!("{method} {route}")), &json!(expected)), "{answer}");
            let is_anonymous = records[0]["principal"] == "anonymous";
            assert_eq!(is_anonymous, is_open);
            assert_eq!(records[0]["request"].as_str().unwrap().len(), 26);
            let is_done = matches!(status, 200 | 201);
            assert_eq!(is_done, matches!(expected, "200" | "201" | "done"), "{path}: {answer}");
            if path.contains("UUID") {
                assert_eq!(records[0]["object"], format!("{uuid} Up.u"));
            }
            if let Some(id) = answer["id"].as_str() {
                id.clone_into(&mut token);
                assert_eq!(records[0]["object"], format!("{id} n"));
            }
            let (_, dropped) = call("GET", "/admin/dropped", &Value::Null).await;
            if let Some(found) = dropped["dropped"][0]["uuid"].as_str() {
                found.clone_into(&mut uuid);
            }
            walked.insert((method, route));
        }
        for Route { method, path: route, need, .. } in ROUTES {
            if is_recorded(&method.parse().unwrap(), *need, route) {
                assert!(walked.contains(&(*method, *route)), "{method} {route} has no test");
            }
        }
        // Whatever is not recorded either reads or is an event.
        let others = ROUTES.iter().filter(|route| {
            let Route { method, path, need, .. } = route;
            *method != "GET" && !is_recorded(&method.parse().unwrap(), *need, path)
        });
        let others: Vec<&str> = others.map(|route| route.path).collect();
        let document = "/v1/{namespace}/collections/{collection}/docs/{key}";
        let events = ["/ingest", "/ingest/", "/e", "/e/", "/webhooks/{provider}", document];
        let is_call = |route: &str| route.starts_with("/v1/") && route.matches('/').count() == 2;
        assert!(others.iter().all(|route| {
            let asks = ["/v1/{namespace}/sql", "/v1/{namespace}/resolve"].contains(route);
            events.contains(route) || is_call(route) || asks
        }));
        let page = page().await;
        verify(&page).unwrap();
        assert_eq!(rows_of(&page), {
            let sql = json!({"sql": format!("SELECT {COLUMNS} FROM system.audit ORDER BY number")});
            call("POST", "/v1/default/sql", &sql).await.1["rows"].clone()
        });
        if is_open {
            check_command_line(&guarded.server, &page);
        }
        guarded.server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_by_hand_is_recorded_with_what_it_was_asked_for() {
    let guarded = Guarded::start().await;
    guarded.with_tables().await;
    for (query, object) in [
        ("", "expire"),
        ("?dry_run=true", "expire dry_run=true"),
        ("?namespace=shop.example&table=events", "expire namespace=shop.example table=events"),
    ] {
        let path = format!("/admin/jobs/expire{query}");
        assert_eq!(guarded.post(&guarded.admin, &path, &Value::Null).await.0, 200, "{path}");
        let (_, page) = guarded.get(&guarded.admin, "/admin/audit").await;
        let last = page["records"].as_array().unwrap().last().unwrap();
        assert_eq!(last["object"], object, "{last}");
    }
}

/// What is older than it has to be is deleted; the command line says so, and where it begins.
#[tokio::test]
async fn a_log_that_was_cut_verifies_on_the_command_line() {
    const DAY_MS: i64 = 24 * 3_600_000;
    let folder = tempfile::tempdir().unwrap();
    let store = Metastore::sqlite(&folder.path().join("icecore.db")).await.unwrap();
    let clock = Clock::manual(0);
    let now = clock.clone();
    let access = AccessControl::recorded(store, Arc::new(move || now.now_ms()));
    let recorder = access.recorder().unwrap();
    for _ in 0..10 {
        recorder.begin(AuditEntry::default()).unwrap().end(200).await;
        clock.advance_ms(DAY_MS);
    }
    let verify = |args: &[&str]| {
        let done = Command::new(env!("CARGO_BIN_EXE_icecore"))
            .args(["audit", "verify", "--data-dir"])
            .arg(folder.path())
            .args(args)
            .output()
            .unwrap();
        let text = String::from_utf8([done.stdout, done.stderr].concat()).unwrap();
        (done.status.success(), text)
    };
    let (done, before) = verify(&[]);
    assert!(done && before.starts_with("10 records"), "{before}");
    let kept = before.split("--expect ").nth(1).unwrap();
    // On the error output it says which metastore it read.
    let kept = kept.lines().next().unwrap().to_owned();
    recorder.cut(Duration::from_hours(3 * 24)).await.unwrap();
    let (done, after) = verify(&["--expect", &kept]);
    assert!(done && after.starts_with("4 records"), "{after}");
    assert!(after.contains("those up to 7 were deleted for their age"), "{after}");
    let (done, text) = verify(&["--expect", "6:ff"]);
    assert!(!done && text.contains("expect a later one"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_bad_tokens_is_one_record() {
    let guarded = Guarded::start().await;
    for n in 0..100 {
        let path = if n % 2 == 0 { "/admin/tokens" } else { "/catalog/v1/namespaces" };
        let (status, _) = guarded.post(&format!("ice_{n}"), path, &json!({})).await;
        assert_eq!(status, 401);
    }
    let folder = guarded.server.stop().await;
    let store = Metastore::sqlite(&folder.path().join("icecore.db")).await.unwrap();
    let records = store.audit(0, 100).await.unwrap();
    let told: Vec<_> = records
        .iter()
        .map(|one| {
            (one.entry.principal.as_str(), one.entry.address.as_str(), one.entry.object.as_str())
        })
        .collect();
    assert_eq!(told, [("unknown", "127.0.0.1", "100")]);
}

/// A server in a process of its own.
struct Process {
    child: Child,
    url: String,
}

impl Process {
    fn start(folder: &Path, metastore: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_icecore"))
            .args(["serve", "--listen", "127.0.0.1:0", "--metastore", metastore, "--data-dir"])
            .arg(folder)
            .env("NO_COLOR", "1")
            .env("ICECORE_WAL_DISK_FREE_MIN", "0")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let url = lines
            .find_map(|line| {
                Some(format!("http://{}", line.unwrap().split_once("listening on http://")?.1))
            })
            .expect("it says where it listens");
        // Its log goes on being read, or it would wait for that.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url }
    }
}

/// The URL of a new, empty PostgreSQL database; none without a server, which only CI forbids.
#[expect(clippy::disallowed_methods, reason = "says where the tests' PostgreSQL is")]
async fn postgres() -> Option<String> {
    let Ok(server) = std::env::var("TEST_POSTGRES") else {
        assert!(std::env::var_os("CI").is_none(), "PostgreSQL is not tested");
        return None;
    };
    sqlx::any::install_default_drivers();
    let pool = sqlx::AnyPool::connect(&server).await.unwrap();
    let name = format!("test_{}", IdGenerator::new(Clock::system()).mint()).to_lowercase();
    let made = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
    sqlx::raw_sql(made).execute(&pool).await.unwrap();
    let (server, _) = server.rsplit_once('/').unwrap();
    Some(format!("{server}/{name}"))
}

/// Servers on one metastore make namespaces, and end one after the other, each at a time when it
/// has others to answer. Gives the names of those that were answered.
async fn make_and_kill(mut servers: Vec<Process>, round: usize, calls: usize) -> BTreeSet<String> {
    let http = reqwest::Client::new();
    let (answered, mut answers) = tokio::sync::mpsc::unbounded_channel();
    let callers = (0..4).map(|caller| {
        let url = format!("{}/catalog/v1/namespaces", servers[caller % servers.len()].url);
        let (http, answered) = (http.clone(), answered.clone());
        async move {
            for n in 0.. {
                let name = format!("n{round}-{caller}-{n}");
                let body = json!({"namespace": [name]});
                let Ok(answer) = http.post(&url).json(&body).send().await else { return };
                assert_eq!(answer.status(), 200);
                answered.send(name).unwrap();
            }
        }
    });
    let callers: Vec<_> = callers.collect();
    let mut names = BTreeSet::new();
    let killer = async {
        for (index, server) in servers.iter_mut().enumerate() {
            while names.len() < calls * (index + 1) {
                names.insert(answers.recv().await.unwrap());
            }
            server.child.kill().unwrap();
            server.child.wait().unwrap();
        }
    };
    tokio::join!(futures::future::join_all(callers), killer);
    while let Ok(name) = answers.try_recv() {
        names.insert(name);
    }
    names
}

/// Processes end at any moment of many calls: each change that was made has its record, also those
/// that were not answered. On PostgreSQL two servers write the chain.
#[tokio::test(flavor = "multi_thread")]
async fn killed_servers_leave_each_change_with_its_record() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("icecore.db");
    let sqlite = format!("sqlite://{}", file.display());
    for (metastore, count) in [(Some(sqlite), 1), (postgres().await, 2)] {
        let Some(metastore) = metastore else { return };
        for (round, calls) in [10, 30].into_iter().enumerate() {
            let start = |n: usize| Process::start(&folder.path().join(n.to_string()), &metastore);
            let servers = (0..count).map(start).collect();
            let answered = make_and_kill(servers, round, calls).await;

            let store = match metastore.starts_with("postgres") {
                true => Metastore::postgres(&metastore).await.unwrap(),
                false => Metastore::sqlite(&file).await.unwrap(),
            };
            // PostgreSQL may still carry out what a server sent last.
            let (events, records, ends) = loop {
                let events = store.events(0, 10_000).await.unwrap();
                let ends = store.audit_ends().await.unwrap();
                let records = store.audit(0, 10_000).await.unwrap();
                if store.events(0, 10_000).await.unwrap().len() == events.len() {
                    break (events, records, ends);
                }
            };
            let changed = events.iter().map(|event| event.operation["namespace"][0].as_str());
            let changed: Vec<&str> = changed.map(Option::unwrap).collect();
            let done = records.iter().filter(|one| one.entry.outcome == "done");
            let recorded: Vec<&str> = done.map(|one| one.entry.object.as_str()).collect();
            assert_eq!(recorded, changed, "in the order of the commits");
            assert!(answered.iter().all(|name| changed.contains(&name.as_str())));
            let mut check = ChainCheck::new(ends, None);
            check.page(&records).unwrap();
            check.finish().unwrap();
        }
    }
}
