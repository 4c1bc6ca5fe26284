//! A query that fails: its status says so, or the end of its answer does, in every format, and the
//! command ends with 1 and the reason.

use crate::{
    harness::{TestServer, events},
    process,
};
use reqwest::Response;
use serde_json::{Value, json};
use std::process::Output;

/// Media types and what the command calls them.
const FORMATS: [(&str, &str); 5] = [
    ("application/json", "json"),
    ("application/x-ndjson", "ndjson"),
    ("text/csv", "csv"),
    ("application/vnd.apache.arrow.stream", "arrow"),
    ("application/vnd.apache.parquet", "parquet"),
];

/// Rows of each of two copies that statements pair up: 160 000 pairs.
const EVENTS: u32 = 400;
/// Pairs with a number that divides by zero far behind the first rows, and behind the first row
/// group of a Parquet file.
const LATE: &str = "SELECT n, 1 / (n - 150000) AS x FROM (SELECT row_number() OVER () AS n FROM events a, events b)";

async fn server() -> TestServer {
    let settings = [("sql.memory_bytes_max", "24MiB"), ("sql.rows_max", "155000")];
    let server = TestServer::start_in(tempfile::tempdir().unwrap(), &settings).await;
    assert_eq!(server.ingest(&events(0..EVENTS)).await.0, 200);
    server
}

async fn ask(server: &TestServer, media: &str, request: &Value) -> Response {
    let url = format!("{}/v1/shop.example/sql", server.url);
    let request = server.http.post(url).header("accept", media).body(request.to_string());
    request.send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_before_the_first_rows_is_the_status() {
    let server = server().await;
    let wide = "SELECT a.id, b.id AS other, a.data, b.data AS more, a.type, b.type AS kind FROM events a, events b ORDER BY b.data, a.data";
    // Small in memory, also while the one before it is being ended: 62 500 pairs at most.
    let endless = "WITH s AS (SELECT seq FROM events LIMIT 250) \
                   SELECT count(*) FROM s a, s b, s c WHERE (a.seq + b.seq + c.seq) % 7 = 8";
    let cases = [
        (json!({ "sql": "SELECT 5/0" }), 400, "INVALID_SQL", "division by zero"),
        (
            json!({ "sql": "SELECT 7 % (seq - seq) FROM events" }),
            400,
            "INVALID_SQL",
            "division by zero",
        ),
        (
            json!({ "sql": "SELECT CAST(type AS int) FROM events" }),
            400,
            "INVALID_SQL",
            "Cannot cast string",
        ),
        (
            json!({ "sql": "SELECT count(*) FROM events WHERE CAST(id AS date) > now()" }),
            400,
            "INVALID_SQL",
            "e-",
        ),
        (json!({ "sql": endless, "timeout_ms": 100 }), 422, "QUERY_LIMIT", "longer than 100 ms"),
        (json!({ "sql": wide }), 422, "QUERY_LIMIT", "memory"),
    ];
    for (request, status, code, text) in &cases {
        for (media, _) in FORMATS {
            let answer = ask(&server, media, request).await;
            assert_eq!(answer.status(), *status, "{media} {request}");
            let body: Value = answer.json().await.unwrap();
            assert_eq!(body["code"], *code, "{media} {request}: {body}");
            assert!(body["error"].as_str().unwrap().contains(text), "{media} {request}: {body}");
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_after_the_first_rows_ends_the_answer_visibly() {
    let server = server().await;
    let over = json!({ "sql": "SELECT a.seq AS n FROM events a, events b" });
    for (request, code, text) in [
        (json!({ "sql": LATE }), "INVALID_SQL", "division by zero"),
        (over, "QUERY_LIMIT", "more than 155000 rows"),
    ] {
        for (media, format) in FORMATS {
            let answer = ask(&server, media, &request).await;
            assert_eq!(answer.status(), 200, "{media}");
            let body = answer.text().await;
            match format {
                "json" => {
                    let body: Value = serde_json::from_str(&body.unwrap()).unwrap();
                    assert_eq!(body["code"], code);
                    assert!(body["error"].as_str().unwrap().contains(text), "{}", body["error"]);
                    assert!(100_000 < body["rows"].as_array().unwrap().len());
                }
                "ndjson" => {
                    let body = body.unwrap();
                    let last = body.lines().last().unwrap();
                    assert!(last.starts_with(' '), "a row would look like {last}");
                    let last: Value = serde_json::from_str(last).unwrap();
                    assert_eq!(last["code"], code);
                    assert!(last["error"].as_str().unwrap().contains(text), "{last}");
                }
                _ => drop(body.expect_err("the body breaks off")),
            }
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_trailers_learns_the_reason_in_every_format() {
    let server = server().await;
    let outcome = async |media: &str, sql: &str| {
        let url = format!("{}/v1/shop.example/sql", server.url);
        let request = server.http.post(url).header("accept", media).header("te", "trailers");
        let request = request.header("x-icecore-outcome", "trailer");
        let answer = request.body(json!({ "sql": sql }).to_string()).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["trailer"], "x-icecore-outcome");
        let body = http_body_util::BodyExt::collect(reqwest::Body::from(answer)).await.unwrap();
        body.trailers().unwrap()["x-icecore-outcome"].to_str().unwrap().to_owned()
    };
    for (media, _) in FORMATS {
        assert_eq!(outcome(media, "SELECT id, 'ü%' AS x FROM events").await, "ok", "{media}");
        let told = outcome(media, LATE).await;
        assert!(told.contains("division by zero"), "{media}: {told}");
    }
    server.stop().await;
}

/// Runs `icecore sql` against a server.
async fn command(server: &TestServer, arguments: &[&str], input: &str) -> Output {
    let arguments = [&["sql", "--ns", "shop.example", "--url", &server.url], arguments].concat();
    let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    let input = input.to_owned();
    let run = move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        process::run(&arguments, &[], input.as_bytes())
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

fn check_failed(output: &Output, reason: &str) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains(reason), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_ends_with_the_reason_in_every_format() {
    let server = server().await;
    for format in ["table", "json", "ndjson", "csv", "arrow", "parquet"] {
        let early = command(&server, &["--format", format, "SELECT 5/0"], "").await;
        check_failed(&early, "400: division by zero");
        assert!(early.stdout.is_empty(), "{format}");
        let late = command(&server, &["--format", format, LATE], "").await;
        check_failed(&late, "division by zero");
        let printed = String::from_utf8_lossy(&late.stdout);
        assert!(format == "json" || !printed.contains("Divide"), "{format}");
    }
    // A row that looks like an error is a row.
    let row = "SELECT 'x' AS error, 'INVALID_SQL' AS code";
    let output = command(&server, &["--format", "ndjson", row], "").await;
    assert!(output.status.success());
    assert_eq!(output.stdout, b"{\"error\":\"x\",\"code\":\"INVALID_SQL\"}\n");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_from_a_pipe_run_to_the_first_that_fails() {
    let server = server().await;
    let csv = ["--format", "csv"];
    let output = command(&server, &csv, "select 1 as a; select ';' as b;\n\nselect 3 as c").await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "a\n1\nb\n;\nc\n3\n");
    for script in ["select 1 as a; select 5/0; select 3;", "select 1 as a;\nselec"] {
        let output = command(&server, &csv, script).await;
        check_failed(&output, "400: ");
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "a\n1\n");
    }
    let output = command(&server, &["--format", "parquet"], "SELECT id FROM events;").await;
    assert!(output.status.success());
    assert!(output.stdout.starts_with(b"PAR1") && output.stdout.ends_with(b"PAR1"));
    server.stop().await;
}
