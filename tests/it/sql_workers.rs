//! Queries in processes of their own: the same answers, a lock that the system keeps, and an end of one
//! that costs its query alone.

use crate::{
    harness::{TestServer, config, events},
    metadata_tables::view,
    mixed_names::{self, changes},
    process::{self, Process},
};
use icecore_lake::clock::Clock;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use std::{collections::BTreeSet, fs, path::Path, process::Command, time::Duration};
use tempfile::TempDir;
use tokio::task::JoinSet;

/// How often a process is looked at, and how often at most.
const LOOK: Duration = Duration::from_millis(20);
const LOOKS_MAX: usize = 1_500;

/// Statements whose answers are compared: rows of a snapshot and of the log, every kind of type, errors.
const STATEMENTS: &[&str] = &[
    "SELECT 1",
    "SELECT 1 WHERE false",
    "SELECT count(*) FROM events",
    "SELECT * FROM events ORDER BY seq LIMIT 5",
    "SELECT id, type, ts, data FROM events WHERE seq BETWEEN 180 AND 230 ORDER BY seq",
    "SELECT type, count(*) AS n, min(seq), max(seq), avg(duration_ms) FROM events GROUP BY type ORDER BY type",
    "SELECT type, p50(duration_ms), p99(duration_ms) FROM events GROUP BY type ORDER BY 1",
    "SELECT a.id, b.id FROM events a JOIN events b ON a.seq = b.seq + 1 ORDER BY a.seq LIMIT 20",
    "SELECT id, row_number() OVER (PARTITION BY type ORDER BY seq) AS n FROM events ORDER BY seq",
    "SELECT array_agg(seq ORDER BY seq) AS l, min(ts) AS t FROM events WHERE seq < 10",
    "SELECT sum(CAST(seq AS decimal(20, 3))) AS d, CAST('2024-01-02' AS date) AS day FROM events",
    "SELECT json_extract_string(data, '$.n') AS n FROM events ORDER BY seq DESC LIMIT 3",
    "SELECT NULL AS nothing, true AS yes, 'é' AS text, interval '1 day' AS i",
    "SELECT id FROM events WHERE id = 'e-7' OR id = 'e-307' ORDER BY id",
    "SELECT count(*) FROM dead_letters",
    "SELECT DISTINCT type FROM events ORDER BY type",
    "WITH t AS (SELECT seq % 7 AS g FROM events) SELECT g, count(*) FROM t GROUP BY g ORDER BY g",
    "SELECT a.seq + b.seq AS n FROM events a, events b WHERE a.seq < 100 AND b.seq < 100 ORDER BY n, a.seq LIMIT 9000",
    "SHOW TABLES",
    "SHOW SCHEMAS",
    "SHOW FUNCTIONS",
    "SHOW CREATE TABLE events",
    "DESCRIBE events",
    "SELECT count(*) > 0 FROM system.audit",
    "EXPLAIN SELECT type FROM events WHERE seq = 3",
    "SELECT 5/0",
    // An aggregate: no row can be on its way before the error, so the status is 400 whatever part is read first.
    "SELECT sum(1/(seq - 40)) FROM events",
    "SELECT CAST(type AS int) FROM events WHERE type = 'rpc.call'",
    "SELECT nothing FROM events",
    "SELECT * FROM nowhere",
    "SELEC 1",
    "DROP TABLE events",
];

fn workers_of(config: &mut icecore::config::Config) {
    config.worker_program = Some(process::binary());
}

/// The answer to a request, without what differs from time to time.
async fn answer(server: &TestServer, namespace: &str, request: &Value) -> (u16, Value) {
    let (status, mut answer) = server.query(namespace, request).await;
    let members = answer.as_object_mut().unwrap();
    for changing in ["elapsedMs", "requestId"] {
        members.remove(changing);
    }
    if let Some(basis) = members.get_mut("basis").and_then(Value::as_object_mut) {
        basis.remove("clock");
    }
    (status, answer)
}

/// The answers to all statements.
async fn answers(server: &TestServer) -> Vec<(String, u16, Value)> {
    let mut answers = Vec::new();
    for sql in STATEMENTS {
        let (status, answer) = answer(server, "shop.example", &json!({ "sql": sql })).await;
        answers.push(((*sql).to_owned(), status, answer));
    }
    let request = json!({ "sql": "SELECT id FROM events WHERE seq = $1", "params": [220] });
    let (status, answer) = server.query("shop.example", &request).await;
    answers.push(("$1".to_owned(), status, answer["rows"].clone()));
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_answer_as_the_server_itself_does() {
    let server = TestServer::start().await;
    assert_eq!(server.ingest(&events(0..200)).await.0, 200);
    server.commit("shop.example").await;
    assert_eq!(server.ingest(&events(200..320)).await.0, 200);
    let own = answers(&server).await;
    let folder = server.stop().await;
    let mut config = config(&folder, &[]);
    workers_of(&mut config);
    let server = TestServer::start_with(folder, &config, Clock::system()).await;
    assert_eq!(server.get("/readyz").await.status(), 200);
    for (own, workers) in own.iter().zip(answers(&server).await) {
        assert_eq!(*own, workers);
    }
    // Every event that is acknowledged is seen by the next query.
    for n in 320..330 {
        assert_eq!(server.ingest(&events(n..n + 1)).await.0, 200);
        let count = server.rows("shop.example", "SELECT count(*) FROM events").await;
        assert_eq!(count, json!([[n + 1]]));
    }
    server.stop().await;
}

/// Requests of statements that read more than the tables of a namespace as they are now. `first` is a snapshot.
fn mixed_requests(first: i64) -> Vec<(&'static str, Value)> {
    let versions = format!(
        "SELECT count(*), count(old.id) FROM events LEFT JOIN events FOR VERSION AS OF {first} AS old ON events.docId = old.docId"
    );
    let statements = [
        versions.as_str(),
        "SELECT docId, doc FROM events FOR SEQ AS OF 4 ORDER BY docId",
        "SELECT count(*) FROM events AT (TIMESTAMP => now())",
        "SELECT count(*), max(o.docId) FROM events AS e JOIN other.events AS o ON o.docId = e.docId",
        "SELECT count(*), sum(record_count) FROM events.files",
        "SELECT count(*), (SELECT count(*) FROM other.events.snapshots) FROM events.snapshots",
        "SELECT id, op FROM things ORDER BY rowid",
        "SELECT max(pk) FROM other.cdc_users_deltas",
        "SELECT pk FROM theirs ORDER BY pk",
        "SELECT count(*) FROM nowhere.events",
        "SELECT count(*) FROM other.events FOR SEQ AS OF 2",
        "SELECT max(pk), (SELECT max(pk) FROM theirs) FROM theirs FOR SEQ AS OF 2 AS t",
    ];
    statements.map(|sql| ("shop", json!({ "sql": sql }))).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_read_versions_namespaces_and_what_is_made_of_tables() {
    let (server, first) = mixed_names::server().await;
    // Of the last namespace there is only the log.
    for (namespace, numbers) in [("other", 4..6), ("fresh", 1..4)] {
        assert_eq!(server.ingest(&changes(namespace, numbers)).await.0, 200);
    }
    let query = "SELECT docId FROM other.events";
    let body = view("theirs", "shop", &["pk"], &[("duckdb", query)]).to_string();
    let path = "/catalog/v1/namespaces/shop/views";
    assert_eq!(server.post(path, "application/json", body).await.status(), 200);
    let mut requests = mixed_requests(first);
    let every = "SELECT count(*), max(seq), max(docId) FROM events";
    let cut = "SELECT count(*), max(seq), max(docId) FROM events FOR SEQ AS OF 4";
    let repeated = [
        ("shop", every, json!([[4, 4, "u-4"]])),
        ("shop", cut, json!([[4, 4, "u-4"]])),
        ("fresh", every, json!([[3, 3, "u-3"]])),
    ];
    for (namespace, sql, rows) in &repeated {
        let (status, answer) = server.query(namespace, &json!({ "sql": sql })).await;
        assert_eq!((status, &answer["rows"]), (200, rows), "{answer}");
        requests.push((*namespace, json!({ "sql": sql, "basis": answer["basis"] })));
    }
    // What comes later is in no answer that is repeated.
    for (namespace, numbers) in [("shop", 5..6), ("fresh", 4..5)] {
        assert_eq!(server.ingest(&changes(namespace, numbers)).await.0, 200);
    }
    let mut own = Vec::new();
    for (namespace, request) in &requests {
        own.push(answer(&server, namespace, request).await);
    }
    for (answer, (_, _, rows)) in own.iter().rev().zip(repeated.iter().rev()) {
        assert_eq!((answer.0, &answer.1["rows"]), (200, rows), "{}", answer.1);
    }
    assert_eq!(own[3].1["rows"], json!([[5, "u-5"]]), "{}", own[3].1);
    let folder = server.stop().await;
    let mut config = config(&folder, &[]);
    workers_of(&mut config);
    let server = TestServer::start_with(folder, &config, Clock::system()).await;
    for ((namespace, request), own) in requests.iter().zip(own) {
        assert_eq!(answer(&server, namespace, request).await, own, "{request}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_needs_too_much_is_refused_and_the_next_one_runs() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [("sql.memory_bytes_max", "24MiB"), ("sql.spill_bytes_max", "0B")];
    let mut config = config(&folder, &settings);
    workers_of(&mut config);
    let server = TestServer::start_with(folder, &config, Clock::system()).await;
    assert_eq!(server.ingest(&events(0..400)).await.0, 200);
    let wide = "SELECT a.id, b.id AS other, a.data, b.data AS more, a.type, b.type AS kind FROM events a, events b ORDER BY b.data, a.data";
    // It holds no rows, so it never meets the bound of memory, and no machine counts as far.
    let endless = "SELECT count(*) FROM range(0, 1000000000000000) AS a";
    for (request, text) in [
        (json!({ "sql": wide }), "needs more memory"),
        (json!({ "sql": endless, "timeout_ms": 300 }), "longer than 300 ms"),
    ] {
        let (status, answer) = server.query("shop.example", &request).await;
        let told = answer["error"].as_str().unwrap_or_default();
        assert!(status == 422 && told.contains(text), "{request}: {status} {answer}");
        let count = server.rows("shop.example", "SELECT count(DISTINCT id) FROM events").await;
        assert_eq!(count, json!([[400]]));
    }
    server.stop().await;
}

/// What has no bound of its own, and its rows. Each reads a table or a query: the others have little time.
fn unbounded() -> Vec<(&'static str, Value)> {
    vec![
        ("SELECT * FROM range(3)", json!([[0], [1], [2]])),
        ("SELECT sum(i) FROM generate_series(1, 1000) AS g(i)", json!([[500_500]])),
        (
            "SELECT r.range, e.seq FROM range(1, 3) r JOIN events e ON e.seq = r.range ORDER BY 1",
            json!([[1, 1], [2, 2]]),
        ),
        (
            "SELECT range(2, 5) AS l, generate_series(1, 2) AS m, array_repeat('a', 2) AS r FROM events WHERE seq = 1",
            json!([[[2, 3, 4], [1, 2], ["a", "a"]]]),
        ),
        ("SELECT unnest([1, 2]) AS u FROM events WHERE seq = 1", json!([[1], [2]])),
        ("SELECT unnest, u.unnest + 1 AS n FROM unnest([1, 2]) u", json!([[1, 2], [2, 3]])),
        (
            "SELECT s.a, s['b'], s FROM (SELECT {'a': 1, 'b': 'x'} AS s)",
            json!([[1, "x", {"a": 1, "b": "x"}]]),
        ),
        (
            "SELECT struct_pack(a := seq) AS s, struct_extract({'a': 7}, 'a') AS e FROM events WHERE seq = 3",
            json!([[{"a": 3}, 7]]),
        ),
        (
            "SELECT MAP {'a': 1, 'b': 2} AS m, map_keys(MAP {'k': 1}) AS k FROM events WHERE seq = 1",
            json!([[{"a": 1, "b": 2}, ["k"]]]),
        ),
        (
            "SELECT id FROM events WHERE id ~ ('^' || id || '$') AND seq < 3 ORDER BY seq",
            json!([["e-0"], ["e-1"]]),
        ),
        ("SELECT length(repeat('a', 100000)) AS n FROM events WHERE seq = 1", json!([[100_000]])),
        (
            "SELECT count(*), max(range) FROM range(9223372036854775806, 9223372036854775807)",
            json!([[1, i64::MAX - 1]]),
        ),
        (
            "SELECT count(*) AS n, max(range) = TIMESTAMP '2026-01-02' AS m FROM range(TIMESTAMP '2026-01-01', TIMESTAMP '2026-01-03', INTERVAL '1 day')",
            json!([[2, true]]),
        ),
        (
            "SELECT (struct_pack(a := 1)).a AS a, ({'b': {'C': [4, 5]}}).b.\"C\"[2] AS c FROM events WHERE seq = 1",
            json!([[1, 5]]),
        ),
        (
            "SELECT map_extract(MAP {'k': 1}, 'z') AS none, map_extract(MAP {'k': 1}, 'k') AS one FROM events WHERE seq = 1",
            json!([[[], [1]]]),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_bound_of_its_own_runs_in_a_worker_alone() {
    let server = TestServer::start().await;
    assert_eq!(server.ingest(&events(0..20)).await.0, 200);
    for sql in ["SELECT * FROM range(3)", "SELECT {'a': 1} AS s", "SELECT id ~ type FROM events"] {
        let (status, answer) = server.query("shop.example", &json!({ "sql": sql })).await;
        assert_eq!((status, &answer["code"]), (400, &json!("INVALID_SQL")), "{sql}: {answer}");
    }
    let folder = server.stop().await;
    let mut config = config(&folder, &[("sql.memory_bytes_max", "32MiB")]);
    workers_of(&mut config);
    let server = TestServer::start_with(folder, &config, Clock::system()).await;
    let doubled = (0..30).fold("SELECT {'a': 1} AS s".to_owned(), |query, _| {
        format!("SELECT {{'a': s, 'b': s}} AS s FROM ({query})")
    });
    for (sql, told) in [
        ("SELECT repeat('a', 1000000000) FROM events", "shorten its arguments"),
        ("SELECT array_repeat('abc', 1000000000) FROM events", "shorten its arguments"),
        ("SELECT array_resize([1], 1000000000) FROM events", "shorten its arguments"),
        ("SELECT unnest([1, 2]) AS u, random() AS r FROM events", "beside unnest"),
        ("SELECT count(*) FROM range(0, 1000000000000000) a", "longer than"),
        ("SELECT range(0, 1000000000000)", ""),
        (doubled.as_str(), ""),
    ] {
        let mut request = json!({ "sql": sql });
        // The others end by themselves, however slow the machine is: they read a table, so they have their time.
        if told.is_empty() || told == "longer than" {
            request["timeout_ms"] = json!(1_500);
        }
        let (status, answer) = server.query("shop.example", &request).await;
        let text = answer["error"].as_str().unwrap_or_default();
        assert!([400, 422, 500].contains(&status) && text.contains(told), "{sql:.80}: {answer}");
        let count = server.rows("shop.example", "SELECT count(*) FROM events").await;
        assert_eq!(count, json!([[20]]), "the next query, after {sql:.80}");
    }
    for (sql, rows) in unbounded() {
        let (status, answer) = server.query("shop.example", &json!({ "sql": sql })).await;
        assert_eq!((status, &answer["rows"]), (200, &rows), "{sql}: {answer}");
    }
    server.stop().await;
}

/// A server that is a process, with some events.
async fn started(folder: &TempDir, settings: &[(&str, &str)]) -> Process {
    let folder = ("data_dir", folder.path().to_str().unwrap());
    let settings = [settings, &[folder]].concat();
    let settings: Vec<_> =
        settings.into_iter().map(|(key, value)| (key, value.to_owned())).collect();
    let server = Process::start(&settings).await;
    let url = format!("{}/ingest", server.url);
    let sent = Client::new().post(url).header("content-type", "application/json");
    let sent = sent.body(events(0..400).to_string()).send().await.unwrap();
    assert_eq!(sent.status(), 200);
    server
}

async fn ask(url: String, namespace: &'static str, sql: &'static str) -> (StatusCode, Value) {
    let url = format!("{url}/v1/{namespace}/sql");
    let request = Client::new().post(url).header("content-type", "application/json");
    let answer = request.body(json!({ "sql": sql }).to_string()).send().await.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

/// The workers of a server.
fn workers(server: u32) -> BTreeSet<u32> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let number: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        is_worker_of(number, server).then_some(number)
    });
    processes.collect()
}

fn is_worker_of(process: u32, server: u32) -> bool {
    let line = fs::read_to_string(format!("/proc/{process}/cmdline")).unwrap_or_default();
    line.contains("sql-worker") && parent_of_running(process) == Some(server)
}

/// The number of a process's parent; none where it does not run, also while it waits to be seen by its
/// parent.
fn parent_of_running(process: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // What follows the name, which may have spaces.
    let mut fields = stat.rsplit(')').next()?.split_whitespace();
    let (state, parent) = (fields.next()?, fields.next()?.parse().ok()?);
    (!["Z", "X"].contains(&state)).then_some(parent)
}

fn kill_all(workers: &BTreeSet<u32>) {
    let mut kill = Command::new("kill");
    kill.arg("-9").args(workers.iter().map(u32::to_string));
    // One may have ended by itself.
    let _told = kill.output().unwrap();
}

/// Looks until it is so.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let mut looks = tokio::time::interval(LOOK);
    for _ in 0..LOOKS_MAX {
        looks.tick().await;
        if is_so() {
            return;
        }
    }
    panic!("it never comes: {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_costs_its_query_alone() {
    let folder = tempfile::tempdir().unwrap();
    let server = started(&folder, &[]).await;
    let endless = "SELECT count(*) FROM events a, events b, events c, events d WHERE (a.seq + b.seq + c.seq + d.seq) % 7 = 8";
    let (mut asked, mut told) = (JoinSet::new(), None);
    asked.spawn(ask(server.url.clone(), "shop.example", endless));
    until("an end of the query", || {
        kill_all(&workers(server.id()));
        told = asked.try_join_next();
        told.is_some()
    })
    .await;
    let (status, answer) = told.unwrap().unwrap();
    assert!([422, 500].contains(&status.as_u16()), "{status} {answer}");
    until("an end of the workers", || {
        let left = workers(server.id());
        kill_all(&left);
        left.is_empty()
    })
    .await;
    let count = "SELECT count(*) FROM events";
    let (status, answer) = ask(server.url.clone(), "shop.example", count).await;
    assert_eq!((status.as_u16(), &answer["rows"]), (200, &json!([[400]])), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_serves_one_namespace_and_is_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let server = started(&folder, &[]).await;
    let count = "SELECT count(*) FROM events";
    let ask = async |namespace| ask(server.url.clone(), namespace, count).await.0;
    assert_eq!(ask("shop.example").await, 200);
    // One that served, and one for the next.
    until("the workers", || workers(server.id()).len() == 2).await;
    let one = workers(server.id());
    assert_eq!(ask("shop.example").await, 200);
    assert_eq!(workers(server.id()), one);
    // Nothing is known of another namespace, which a worker of its own finds out or nobody does.
    let sql = "SELECT 1";
    assert_eq!(self::ask(server.url.clone(), "other.example", sql).await.0, 200);
    until("a worker more", || workers(server.id()).len() == 3).await;
    let both = workers(server.id());
    assert!(one.is_subset(&both), "{one:?} {both:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_read_two_namespaces_serves_none_of_them_alone() {
    let folder = tempfile::tempdir().unwrap();
    let server = started(&folder, &[]).await;
    let url = format!("{}/ingest", server.url);
    let sent = Client::new().post(url).header("content-type", "application/json");
    let sent = sent.body(changes("bank", 1..3).to_string()).send().await.unwrap();
    assert_eq!(sent.status(), 200);
    let mut known = BTreeSet::new();
    let count = "SELECT count(*) FROM events";
    for (namespace, sql, rows, added) in [
        ("shop.example", "SELECT count(*) FROM events, bank.events AS b", 800, 2),
        ("shop.example", count, 400, 1),
        ("bank", count, 2, 1),
        ("shop.example", count, 400, 0),
        ("bank", "SELECT count(*) FROM events, shop_example.events AS s", 800, 0),
    ] {
        let (status, answer) = ask(server.url.clone(), namespace, sql).await;
        assert_eq!((status.as_u16(), &answer["rows"]), (200, &json!([[rows]])), "{answer}");
        let (id, all) = (server.id(), known.len() + added);
        until("the workers", || workers(id).len() == all).await;
        let now = workers(id);
        let is_more = known.is_subset(&now) && now.len() == all;
        assert!(is_more, "{namespace}: {sql}: {known:?} {now:?}");
        known = now;
    }
}

/// A server whose queries run in workers of little memory, and may put so much on disk.
async fn with_spill(bytes_max: &str) -> TestServer {
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        ("sql.memory_bytes_max", "24MiB"),
        ("sql.spill_bytes_max", bytes_max),
        // How fast this machine is is no matter.
        ("sql.timeout_max", "10min"),
    ];
    let mut config = config(&folder, &settings);
    workers_of(&mut config);
    let server = TestServer::start_with(folder, &config, Clock::system()).await;
    let event = |n: u32| json!({"id": format!("e-{n}"), "type": "a", "ns": "shop.example", "data": {"x": "y".repeat(4_000)}});
    let events: Vec<Value> = (0..500).map(event).collect();
    assert_eq!(server.ingest(&json!(events)).await.0, 200);
    server
}

/// The files in a folder and its folders.
fn files_within(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let counts = entries.map(|entry| match entry.path() {
        path if path.is_dir() => files_within(&path),
        _ => 1,
    });
    counts.sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sort_that_is_larger_than_memory_is_told_which_bound_it_met() {
    let sorted = "SELECT count(*), sum(CASE WHEN k <= before THEN 1 ELSE 0 END), length(max(x)) \
                  FROM (SELECT k, x, lag(k) OVER (ORDER BY k) AS before FROM \
                  (SELECT b.seq * 1000 + a.seq AS k, a.data AS x FROM events a, events b WHERE b.seq <= 200) t) u";
    for (bytes_max, told) in
        [("0B", "needs more memory than it may use"), ("1MiB", "sql.spill_bytes_max")]
    {
        let server = with_spill(bytes_max).await;
        let (status, answer) = server.query("shop.example", &json!({ "sql": sorted })).await;
        let text = answer["error"].as_str().unwrap_or_default();
        assert!(status == 422 && text.contains(told), "{bytes_max}: {status} {answer}");
        let count = server.rows("shop.example", "SELECT count(*) FROM events").await;
        assert_eq!(count, json!([[500]]));
        let spill = server.folder.path().join("spill");
        until("an end of the rows on disk", || files_within(&spill) == 0).await;
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_workers_nor_spilled_rows_outlive_a_server_that_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = started(&folder, &[("sql.spill_bytes_max", "64MiB")]).await;
    let count = "SELECT count(*) FROM events";
    assert_eq!(ask(server.url.clone(), "shop.example", count).await.0, 200);
    let before = server.id();
    let left = workers(before);
    let spill = folder.path().join("spill");
    assert!(!left.is_empty() && spill.exists());
    fs::write(spill.join("rows"), "spilled").unwrap();
    server.kill();
    until("an end of the workers", || {
        left.iter().all(|worker| parent_of_running(*worker).is_none())
    })
    .await;
    server.kill_and_restart().await;
    assert!(!spill.join("rows").exists());
    assert_eq!(ask(server.url.clone(), "shop.example", count).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_whether_the_server_is_ready_is_told_what_the_system_does_not_enforce() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder, &[]);
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    config.worker_program = Some(tests.join("worker_without_landlock.sh"));
    let server = TestServer::start_with(folder, &config, Clock::system()).await;
    let ready = server.get("/readyz").await;
    assert_eq!(ready.status(), 200);
    let told = "ready\nqueries run without a bound: Landlock: this kernel does not have it\n";
    assert_eq!(ready.text().await.unwrap(), told);
    server.stop().await;
}

/// What came of each call of a worker that is locked in, and what this system does not enforce.
fn probe(spill: &Path, calls: &[String]) -> (Vec<String>, Vec<String>) {
    let spill = format!("--spill={}", spill.display());
    let bounds = ["--memory-bytes-max=67108864", "--spill-bytes-max=1048576", spill.as_str()];
    let calls: Vec<String> = calls.iter().map(|call| format!("--probe={call}")).collect();
    let calls: Vec<&str> = calls.iter().map(String::as_str).collect();
    let arguments = [&["sql-worker"][..], &bounds[..], &calls[..]].concat();
    let output = process::run(&arguments, &[], b"");
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    let lines = told.lines().map(|line| line.split_once('\t').unwrap());
    let (missing, outcomes): (Vec<_>, Vec<_>) = lines.partition(|(call, _)| *call == "missing");
    let texts =
        |lines: Vec<(&str, &str)>| lines.iter().map(|(_, text)| (*text).to_owned()).collect();
    (texts(missing), texts(outcomes))
}

#[test]
#[expect(clippy::print_stderr, reason = "whoever runs the tests is told")]
fn the_system_refuses_what_a_worker_does_not_need() {
    let (folder, spill) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let outside = folder.path().join("file");
    fs::write(&outside, "another's").unwrap();
    fs::write(spill.path().join("rights"), "").unwrap();
    let (outside, new) = (outside.display(), folder.path().join("new"));
    let (new, inside, old) =
        (new.display(), spill.path().join("rows"), spill.path().join("rights"));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let refused = [
        format!("read:{outside}"),
        "read:/etc/passwd".to_owned(),
        "read:/proc/self/environ".to_owned(),
        format!("memory-of:{}", std::process::id()),
        format!("list:{}", folder.path().display()),
        format!("write:{outside}"),
        format!("write:{new}"),
        format!("remove:{outside}"),
        format!("rename:{outside}"),
        format!("link:{outside}"),
        format!("folder:{new}"),
        format!("rights:{outside}"),
        format!("rights:{}", old.display()),
        format!("tcp-connect:{address}"),
        "tcp-listen:127.0.0.1:0".to_owned(),
        "udp:127.0.0.1:0".to_owned(),
        format!("unix:{}", folder.path().join("socket").display()),
        "program:/bin/true".to_owned(),
    ];
    let (mut missing, outcomes) = probe(spill.path(), &refused);
    // A part of Landlock and the list of calls refuse all of these.
    missing.retain(|text| !text.contains("a part of it"));
    if !missing.is_empty() {
        eprintln!("not tested, this system does not lock processes in: {missing:?}");
        return;
    }
    assert_eq!(outcomes.len(), refused.len());
    for (call, outcome) in refused.iter().zip(&outcomes) {
        let is_refused = ["Permission denied", "Operation not permitted"];
        assert!(is_refused.iter().any(|text| outcome.contains(text)), "{call}: {outcome}");
    }
    assert_eq!(fs::read_to_string(folder.path().join("file")).unwrap(), "another's");
    let allowed = [
        "thread".to_owned(),
        "memory:1000000".to_owned(),
        format!("write:{}", inside.display()),
        format!("read:{}", inside.display()),
        format!("list:{}", spill.path().display()),
        format!("remove:{}", inside.display()),
    ];
    assert_eq!(probe(spill.path(), &allowed).1, vec!["done"; allowed.len()]);
    let (_, outcomes) = probe(spill.path(), &["memory:9000000000".to_owned()]);
    assert_ne!(outcomes, ["done"], "more than its bound");
}
