//! Starts and stops as an operator meets them: where a server cannot be, what its log says, and how it
//! ends.

use crate::{
    harness::{TestServer, config, events},
    postgres::Databases,
    process::{Process, bound_command, command, run, run_with},
};
use icecore_lake::clock::Clock;
use serde_json::{Value, json};
use std::{
    fs::{self, Permissions},
    io::{BufRead, BufReader, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Stdio,
    time::Duration,
};

/// Longest a server takes to stop, on a slow machine.
const STOP_TIME_MAX: Duration = Duration::from_secs(60);

/// The settings of a server in that folder.
fn settings(data: &Path) -> Vec<(&'static str, String)> {
    vec![
        ("data_dir", data.display().to_string()),
        ("listen", "127.0.0.1:0".to_owned()),
        ("wal.disk_free_min", "0".to_owned()),
    ]
}

/// What doctor finds in the way, each behind the name of its check.
fn failed_checks(stdout: &[u8]) -> Vec<String> {
    let report: Value = serde_json::from_slice(stdout).unwrap();
    let checks = report["checks"].as_array().unwrap().iter().filter(|check| check["ok"] == false);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    checks.map(|check| format!("{}: {}", text(&check["check"]), text(&check["text"]))).collect()
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// What a command says that fails for a user whom modes bind.
fn refused(words: &[&str], data: &Path) -> String {
    let output = run_with(bound_command().unwrap(), words, &settings(data), b"");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{words:?}: {said}");
    said
}

/// What doctor finds for such a user.
fn examined(data: &Path) -> Vec<String> {
    failed_checks(
        &run_with(bound_command().unwrap(), &["doctor", "--json"], &settings(data), b"").stdout,
    )
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    if bound_command().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    set_mode(folder.path(), 0o555);
    let said = refused(&["serve"], &data);
    let expected = format!(
        "start the server: create data folder `{}`; choose another with --data-dir: Permission denied",
        data.display()
    );
    assert!(said.contains(&expected), "{said}");
    let cannot = format!("`{}` cannot be written: Permission denied", folder.path().display());
    let found = examined(&data);
    assert_eq!(found.len(), 2, "{found:?}");
    for (found, check) in found.iter().zip(["data folder", "warehouse"]) {
        assert!(found.starts_with(&format!("{check}: {cannot}")), "{found}");
    }
    set_mode(folder.path(), 0o755);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_of_somebody_else_is_not_taken_for_an_empty_one() {
    if bound_command().is_none() {
        return;
    }
    let folder = TestServer::start().await.stop().await;
    let (data, backup) = (folder.path(), tempfile::tempdir().unwrap());
    let backup = backup.path().join("backup").display().to_string();
    set_mode(data, 0o000);
    let shown = data.display().to_string();
    for words in [
        &["serve"][..],
        &["wal", "inspect"],
        &["wal", "quarantine"],
        &["token", "list"],
        &["audit", "verify"],
        &["backup", "create", backup.as_str()],
    ] {
        let said = refused(words, data);
        assert!(said.contains("Permission denied") && said.contains(&shown), "{words:?}: {said}");
        assert!(!said.contains("there is no"), "{words:?}: {said}");
    }
    let found = examined(data);
    assert!(
        found[0].starts_with(&format!("data folder: `{shown}` cannot be written")),
        "{found:?}"
    );
    assert!(found[1].starts_with("metastore: ") && found[1].contains("denied"), "{found:?}");

    // The folder may be used, its metastore may not.
    set_mode(data, 0o700);
    let file = data.join("icecore.db");
    set_mode(&file, 0o000);
    let expected = format!("cannot open the metastore file `{}` (", file.display());
    for words in [&["serve"][..], &["token", "list"]] {
        let said = refused(words, data);
        assert!(said.contains(&expected) && said.contains("must be able to read"), "{said}");
    }
    let found = examined(data);
    assert!(found.len() == 1 && found[0].contains(&expected), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_without_room_is_told_by_doctor_the_probe_and_each_refusal() {
    // More than any disk has free.
    let full = ("wal.disk_free_min", "0.9999999999");
    let server = TestServer::start_in(tempfile::tempdir().unwrap(), &[full]).await;
    let (status, reply) = server.ingest(&events(0..1)).await;
    let told = reply["error"].as_str().unwrap();
    assert_eq!((status, &reply["code"]), (503, &json!("UNAVAILABLE")), "{reply}");
    assert!(told.contains("its disk has no more free than `wal.disk_free_min` leaves"), "{told}");
    let ready = server.get("/readyz").await;
    assert_eq!(ready.status(), 503);
    let told = ready.text().await.unwrap();
    for part in
        ["queries still work", "bytes of its disk are free", "(wal.disk_free_min) must stay"]
    {
        assert!(told.contains(part), "`{part}` in: {told}");
    }
    let (status, answer) = server.query("n", &json!({ "sql": "SELECT 1" })).await;
    assert_eq!(status, 200, "{answer}");
    server.stop().await;

    let folder = tempfile::tempdir().unwrap();
    let full = (full.0, full.1.to_owned());
    let settings = [settings(folder.path()), vec![full]].concat();
    let found = failed_checks(&run(&["doctor", "--json"], &settings, b"").stdout);
    assert_eq!(found.len(), 1, "{found:?}");
    for part in ["disk: ", "MiB are free and", "needed: one wal.segment_bytes above the share"] {
        assert!(found[0].contains(part), "`{part}` in: {}", found[0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_knows_whose_server_has_the_address_and_warns_of_variables_that_nobody_reads() {
    let server = TestServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let address = ("listen", server.url.trim_start_matches("http://").to_owned());
    let taken = [settings(folder.path()), vec![address]].concat();
    let found = failed_checks(&run(&["doctor", "--json"], &taken, b"").stdout);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("with another data folder"), "{found:?}");
    server.stop().await;

    let mut mistyped = command();
    mistyped.env("ICECORE_COMIT_INTERVAL", "1s");
    let output = run_with(mistyped, &["doctor"], &settings(folder.path()), b"");
    let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains("WARN  settings "), "{told}");
    assert_eq!(told.matches("ICECORE_COMIT_INTERVAL is not a setting").count(), 1, "{told}");
}

#[test]
fn who_sends_to_nobody_is_told_at_once() {
    let mut sender = command();
    sender.args(["ingest", "-", "--url", "http://127.0.0.1:1"]);
    let mut sender = sender.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    sender.stdin.take().unwrap().write_all(br#"{"id":"1","type":"t"}"#).unwrap();
    let mut line = String::new();
    BufReader::new(sender.stderr.take().unwrap()).read_line(&mut line).unwrap();
    sender.kill().unwrap();
    sender.wait().unwrap();
    assert!(line.starts_with("no answer from http://127.0.0.1:1: "), "{line}");
    assert!(line.ends_with("; trying again for 30 s\n"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn why_postgresql_is_not_to_be_had_is_said_without_the_place_in_its_source() {
    let Some(databases) = Databases::new("starts").await else { return };
    let mut stranger = url::Url::parse(&databases.url("other")).unwrap();
    stranger.set_username("nobody_here").unwrap();
    stranger.set_password(Some("hush_hush")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (metastore, reason) in [
        (databases.url("other"), "does not exist"),
        (stranger.to_string(), "nobody_here"),
        ("postgres://nobody_here:hush_hush@127.0.0.1:1/none".to_owned(), "Connection refused"),
    ] {
        let url = url::Url::parse(&metastore).unwrap();
        let place = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5432));
        let settings = [settings(folder.path()), vec![("metastore", metastore)]].concat();
        let output = run(&["serve"], &settings, b"");
        assert_eq!(output.status.code(), Some(1));
        let found = failed_checks(&run(&["doctor", "--json"], &settings, b"").stdout);
        assert_eq!(found.len(), 1, "{found:?}");
        for said in [String::from_utf8(output.stderr).unwrap(), found[0].clone()] {
            let told = said.split_once(&format!("cannot connect to PostgreSQL at {place}: "));
            let told = told.unwrap_or_else(|| panic!("{said}")).1;
            assert!(told.contains(reason), "`{reason}` in: {said}");
            assert!(!told.contains("at line") && !said.contains("hush_hush"), "{said}");
        }
    }
}

#[test]
fn a_command_shows_no_password() {
    let mistyped = ["config", "--set", "metastore:postgres://u:hush@h/d"];
    let colon = ["config", "--set", "s3.secret_access_key:hush=="];
    let login = ["snapshots", "events", "--url", "http://u:hush@127.0.0.1:1"];
    let keys = [("warehouse", "s3://AK:hush@b/p".to_owned())];
    let set = |url: &str| [("metastore", url.to_owned())];
    let folder = tempfile::tempdir().unwrap();
    let unknown = set("postgres://u@127.0.0.1:1/d?Password=hush");
    let unknown = [settings(folder.path()), unknown.to_vec()].concat();
    for (output, code, shown) in [
        (run(&["serve"], &unknown, b""), 1, "cannot connect to PostgreSQL at 127.0.0.1:1"),
        (run(&mistyped, &[], b""), 2, "--set `metastore…` is not KEY=VALUE"),
        (run(&colon, &[], b""), 2, "unknown setting `s3.secret_access_key…`"),
        (run(&login, &[], b""), 1, "no answer from http://127.0.0.1:1"),
        (run(&["config"], &keys, b""), 2, "`s3://b/p` must be"),
        (run(&["config"], &set("postgress://u:hush@h/d"), b""), 2, "`postgress://h/d` must be"),
        (run(&["config"], &set("postgres://u@h/d?password=hush"), b""), 0, "postgres://h/d"),
    ] {
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(shown) && !said.contains("hush"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_right_after_the_first_answer_is_a_clean_one() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [("data_dir", folder.path().display().to_string())];
    let http = reqwest::Client::new();
    let post = async |url: String, body: Value| {
        let request = http.post(url).header("content-type", "application/json");
        let answer = request.body(body.to_string()).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    // Also right after it listens.
    for sent in [Some(0), None, Some(1), None] {
        let mut process = Process::start(&settings).await;
        if let Some(n) = sent {
            let reply = post(format!("{}/ingest", process.url), events(n..n + 1)).await;
            assert_eq!(reply.0, 200, "{}", reply.1);
        }
        let is_clean = process.terminate(STOP_TIME_MAX).await;
        let log = process.log();
        assert!(is_clean && log.last().is_some_and(|line| line.ends_with("stopped")), "{log:?}");
    }
    let process = Process::start(&settings).await;
    let ask = json!({ "sql": "SELECT id FROM events ORDER BY id" });
    let (_, answer) = post(format!("{}/v1/shop.example/sql", process.url), ask).await;
    assert_eq!(answer["rows"], json!([["e-0"], ["e-1"]]), "{answer}");
}

/// Starts a server twice and gives each log to its end.
async fn logs(settings: &[(&str, String)]) -> Vec<Vec<String>> {
    let mut logs = Vec::new();
    for _ in 0..2 {
        let mut process = Process::start(settings).await;
        assert!(process.terminate(STOP_TIME_MAX).await);
        logs.push(process.log());
    }
    logs
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_a_start_has_no_notices_of_the_database() {
    let folder = tempfile::tempdir().unwrap();
    let mut all = logs(&[("data_dir", folder.path().display().to_string())]).await;
    let databases = Databases::new("notices").await;
    if let Some(databases) = &databases {
        databases.make("folder").await;
        let folder = tempfile::tempdir().unwrap();
        let data = ("data_dir", folder.path().display().to_string());
        all.extend(logs(&[data, ("metastore", databases.url("folder"))]).await);
        databases.remove().await;
    }
    let version = format!("started version=\"{}", env!("CARGO_PKG_VERSION"));
    for log in all {
        assert!(log.iter().any(|line| line.contains(&version)), "{log:?}");
        for told in ["sqlx", "already exists", "rows=0"] {
            assert!(!log.iter().any(|line| line.contains(told)), "{told}: {log:?}");
        }
    }
}

/// Why a commit fails whose warehouse is gone.
const OUTAGE: &str = "its folder does not exist";

/// The log of a server that fails two queries and a commit.
async fn log_of_failures(format: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let settings = [
        ("data_dir", data.display().to_string()),
        ("commit.interval", "10min".to_owned()),
        ("log_format", format.to_owned()),
    ];
    let process = Process::start(&settings).await;
    let http = reqwest::Client::new();
    let post = async |path: &str, body: Value| {
        let request = http.post(format!("{}{path}", process.url)).body(body.to_string());
        let answer = request.header("content-type", "application/json").send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(post("/ingest", events(0..3)).await.0, 200);
    for sql in ["SELECT 1/0", "SELECT 1 / (seq - 2) FROM events"] {
        let (status, answer) = post("/v1/shop.example/sql", json!({ "sql": sql })).await;
        assert!(status == 400 && answer.contains("division by zero"), "{status}: {answer}");
    }
    fs::rename(data.join("warehouse"), folder.path().join("away")).unwrap();
    let (status, answer) = post("/v1/shop.example/commit", json!({})).await;
    assert_eq!(status, 503, "{answer}");
    process.log()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_logged_once_with_its_cause() {
    let log = log_of_failures("text").await;
    let failed: Vec<&String> = log.iter().filter(|line| line.contains("query failed")).collect();
    assert_eq!(failed.len(), 2, "{log:?}");
    for line in failed {
        assert!(line.contains(" WARN ") && line.contains("request{id="), "{line}");
        assert_eq!(line.matches("division by zero").count(), 1, "{line}");
    }
    assert!(log.iter().any(|line| line.contains("commit failed") && line.contains(OUTAGE)));
    assert!(log.iter().all(|line| line.matches(OUTAGE).count() < 2), "{log:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_json_has_the_causes_too() {
    let log = log_of_failures("json").await;
    let lines: Vec<Value> = log.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let found = |message: &str| lines.iter().filter(|line| line["message"] == message).count();
    assert_eq!((found("query failed"), found("commit failed")), (2, 1), "{log:?}");
    for line in &lines {
        let error = line["error"].as_str().unwrap_or_default();
        let expected = match line["message"].as_str().unwrap_or_default() {
            "query failed" => ("WARN", "icecore::http::query", "division by zero"),
            "commit failed" => ("ERROR", "icecore::http::error", OUTAGE),
            _ => continue,
        };
        assert_eq!((&line["level"], &line["target"]), (&json!(expected.0), &json!(expected.1)));
        assert_eq!(error.matches(expected.2).count(), 1, "{line}");
        assert!(line["timestamp"].is_string() && line["span"]["id"].is_string(), "{line}");
        assert_eq!(line["spans"][0]["name"], "request", "{line}");
    }
}

#[tokio::test]
async fn a_server_tells_the_name_of_its_build() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder, &[]);
    config.build = Some("1a2b3c4");
    let server = TestServer::start_with(folder, &config, Clock::system()).await;
    let told: Value = server.get("/version").await.json().await.unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(told, json!({ "name": "icecore", "version": version, "build": "1a2b3c4" }));
    server.stop().await;
}
