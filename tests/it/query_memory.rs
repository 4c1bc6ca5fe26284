//! What queries take of the machine's memory: what `sql.memory_bytes_max` lets them take together, and
//! little in proportion that is not counted.

use crate::{harness::events, process::Process};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

const BOUND: u64 = 256 << 20;
/// What is not counted in the bound: batches on their way from one operator to the next, in each of the
/// sessions, and pages of earlier statements that the allocator still keeps.
const ALLOWANCE: u64 = 768 << 20;
/// Sessions at once.
const SESSIONS: usize = 8;
/// How often they ask everything.
const ROUNDS: usize = 4;
/// Four million rows with texts of more than 200 bytes.
const ROWS: &str = "(SELECT a.id || '-' || b.id || repeat('x', 200) AS x, a.seq * 2000 + b.seq AS k \
                     FROM events a, events b) t";

/// Each would need some 800 MB.
fn statements() -> Vec<String> {
    vec![
        format!("SELECT cardinality(array_agg(x)) FROM {ROWS}"),
        format!("SELECT length(string_agg(x, ',')) FROM {ROWS}"),
        format!("SELECT max(c) FROM (SELECT x, count(*) AS c FROM {ROWS} GROUP BY x) u"),
        format!("SELECT max(length(x)) FROM (SELECT DISTINCT x FROM {ROWS}) u"),
        format!("SELECT x FROM {ROWS} ORDER BY k DESC, x LIMIT 900000"),
        format!("SELECT max(length(l)) FROM (SELECT lag(x) OVER (ORDER BY x) AS l FROM {ROWS}) u"),
        format!(
            "SELECT sum(length(m)) FROM (SELECT max(x) OVER (PARTITION BY k % 3) AS m FROM {ROWS}) u"
        ),
        format!(
            "SELECT max(cardinality(l)) FROM (SELECT array_agg(x) AS l FROM {ROWS} GROUP BY k % 100000) u"
        ),
        format!("SELECT count(*) FROM {ROWS} JOIN (SELECT x AS y FROM {ROWS}) u ON t.x = u.y"),
    ]
}

/// Sends it and reads the whole answer.
async fn post(http: &Client, url: String, body: &Value) -> (StatusCode, Value) {
    let request = http.post(url).header("content-type", "application/json");
    let answer = request.body(body.to_string()).send().await.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

async fn check_refused(http: &Client, url: &str, sql: &str) {
    let url = format!("{url}/v1/shop.example/sql");
    let (status, answer) = post(http, url, &json!({ "sql": sql })).await;
    let told = answer["error"].as_str().unwrap_or_default();
    assert!(status == 422 && told.contains("needs more memory"), "{sql}: {status} {answer}");
}

/// One statement, and with `LARGE=1` all of them, one after the other and in several sessions at once,
/// for which a release build of the server in `ICECORE_BIN` does:
/// `LARGE=1 cargo test --test it -- what_queries_take --nocapture`.
#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stdout, reason = "says how much it was")]
async fn what_queries_take_together_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(&[
        ("data_dir", folder.path().display().to_string()),
        ("sql.memory_bytes_max", format!("{}MiB", BOUND >> 20)),
        ("sql.spill_bytes_max", "0B".to_owned()),
    ])
    .await;
    let http = Client::new();
    let sent = post(&http, format!("{}/ingest", process.url), &events(0..2_000)).await;
    assert_eq!(sent.0, 200, "{}", sent.1);
    let before = process.memory_peak();
    let statements = statements();
    if std::env::var_os("LARGE").is_some() {
        for sql in &statements {
            check_refused(&http, &process.url, sql).await;
        }
        for _ in 0..ROUNDS {
            let asked = statements.iter().take(SESSIONS);
            futures::future::join_all(asked.map(|sql| check_refused(&http, &process.url, sql)))
                .await;
        }
    } else {
        check_refused(&http, &process.url, &statements[0]).await;
    }
    let taken = process.memory_peak() - before;
    println!("beyond the {} MiB of an idle server: {} MiB", before >> 20, taken >> 20);
    assert!(taken <= BOUND + ALLOWANCE, "{taken} bytes");
    // What was taken is there for others again.
    let (status, answer) = post(
        &http,
        format!("{}/v1/shop.example/sql", process.url),
        &json!({ "sql": "SELECT count(DISTINCT id) FROM events" }),
    )
    .await;
    assert_eq!((status.as_u16(), &answer["rows"]), (200, &json!([[2_000]])), "{answer}");
}
