//! The command line as its users and their scripts meet it: pipes, exit codes, environment, files.

use crate::{
    access::Guarded,
    harness::TestServer,
    process::{command, run},
};
use serde_json::json;
use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::Output,
};

/// Runs `icecore` with words against a server, and `input` on stdin.
fn icecore(server: &TestServer, words: &[&str], input: &str) -> Output {
    let arguments = [words, &["--url", &server.url]].concat();
    run(&arguments, &[], input.as_bytes())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn check(output: &Output, code: i32, stdout: &str, stderr: &str) {
    let found = (output.status.code(), text(&output.stdout), text(&output.stderr));
    assert_eq!(found.0, Some(code), "{found:?}");
    assert_eq!(found.1, stdout, "{found:?}");
    assert!(found.2.contains(stderr) && stderr.is_empty() == found.2.is_empty(), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_from_a_pipe_run_in_order_and_a_failing_one_is_the_exit_code() {
    let server = TestServer::start().await;
    server.ingest(&json!({"id": "1", "type": "t"})).await;
    let sql = |words: &[&str], input: &str| {
        icecore(&server, &[&["sql", "--format", "csv"], words].concat(), input)
    };
    check(&sql(&[], "select 3 as a"), 0, "a\n3\n", "");
    check(&sql(&[], "select 1 as a; select ';' as b;\n"), 0, "a\n1\nb\n;\n", "");
    check(&sql(&["select 1 as a; select 2 as b"], ""), 0, "a\n1\nb\n2\n", "");
    check(&sql(&[], " -- nothing\n"), 0, "", "");
    check(&sql(&[""], ""), 2, "", "there is no statement");
    // What stands behind the failing one is not run.
    check(&sql(&[], "select 1 as a; selec; select 2 as b"), 1, "a\n1\n", "selec");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("q.sql");
    std::fs::write(&file, "select 5 as a;").unwrap();
    check(&sql(&["-f", file.to_str().unwrap()], "select 6 as b"), 0, "a\n5\n", "");
    check(&sql(&["-f", "/nowhere.sql"], ""), 1, "", "/nowhere.sql");
    check(&sql(&["--output", "x.csv"], "select 1; select 2"), 2, "", "one statement");
    // The form of a file is the one of its name.
    let out = folder.path().join("x.parquet");
    let saved = icecore(&server, &["sql", "select 1", "--output", out.to_str().unwrap()], "");
    check(&saved, 0, "", "");
    assert!(std::fs::read(&out).unwrap().starts_with(b"PAR1"));
    // An address without a scheme is one of HTTP.
    let address = server.url.trim_start_matches("http://").to_owned();
    let output = run(&["sql", "--url", &address, "--format", "csv", "select 7 as a"], &[], b"");
    check(&output, 0, "a\n7\n", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_sent_however_they_are_written_and_refused_events_have_a_place() {
    let server = TestServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let sent = |words: &[&str], input: &str| {
        icecore(&server, &[&["ingest", "--ns", "n"], words].concat(), input)
    };
    let lines = "{\"id\":\"a1\",\"type\":\"t\"}\n\nnot json\n{\"id\":\"a2\",\"type\":\"t\"}\n{\"id\":\"a3\"}\n";
    let zipped = zstd::encode_all(lines.as_bytes(), 1).unwrap();
    let path = write("a.ndjson.zst", &zipped);
    let output = sent(&[&path], "");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout), "4 events sent: 2 new, 0 duplicates, 2 rejected\n");
    let said = text(&output.stderr);
    assert!(said.contains("a.ndjson.zst:3: INVALID_JSON"), "{said}");
    assert!(said.contains("a.ndjson.zst:5: MISSING_TYPE"), "{said}");
    assert!(
        said.contains(
            "2 events rejected and kept as dead letters: icecore deadletters list --ns n"
        ),
        "{said}"
    );

    let array = "[{\"id\":\"b1\",\"type\":\"t\"},\n{\"type\":\"t\"}]";
    let output = sent(&[], array);
    check(&output, 0, "2 events sent: 2 new, 0 duplicates, 0 rejected\n", "");
    // Another input without a name is another input, though its events have no ids.
    let output = sent(&[], "{\"type\":\"u\"}");
    check(&output, 0, "1 event sent: 1 new, 0 duplicates, 0 rejected\n", "");

    write("c1.csv", b"id,type,user_id,duration_ms\n007,t,42,1.5\n008,t,,\n");
    write("c2.csv", b"id;type\n009;t\n");
    let pattern = folder.path().join("c*.csv");
    let output = sent(&[pattern.to_str().unwrap()], "");
    check(&output, 0, "3 events sent: 3 new, 0 duplicates, 0 rejected\n", "");
    let rows = server
        .rows("n", "SELECT id, user_id, duration_ms FROM events WHERE id LIKE '00%' ORDER BY id")
        .await;
    assert_eq!(rows, json!([["007", "42", 1.5], ["008", null, null], ["009", null, null]]));

    let json = write("d.json", b"{\"events\":[{\"id\":\"d1\",\"type\":\"t\"}]}");
    let output = sent(&[&json, &json], "");
    check(&output, 0, "2 events sent: 1 new, 1 duplicate, 0 rejected\n", "");
    // All inputs are looked at before one is sent.
    let new = write("e.ndjson", b"{\"id\":\"e1\",\"type\":\"t\"}\n");
    let output = sent(&[&new, folder.path().to_str().unwrap()], "");
    check(&output, 2, "", "is a folder");
    let other = write("f.json", b"{\"ns\":\"m\",\"events\":[{\"id\":\"e1\",\"type\":\"t\"}]}");
    let none = "0 events sent: 0 new, 0 duplicates, 0 rejected\n";
    check(&sent(&[&other], ""), 1, none, "f.json:1: not sent: an `ns` beside the list");
    let rows = server.rows("n", "SELECT count(*) FROM events WHERE id = 'e1'").await;
    assert_eq!(rows, json!([[0]]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_the_feed_that_is_none_is_refused_with_the_servers_reason() {
    let server = TestServer::start().await;
    let output = icecore(&server, &["catalog", "events", "--after", "nonsense"], "");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("continuation-token") && !said.contains("check --url"), "{said}");
    server.stop().await;
}

#[test]
fn variables_of_others_stop_no_command_and_typing_errors_are_said() {
    let mut kubernetes = command();
    kubernetes.env("ICECORE_SERVICE_HOST", "10.0.0.1").env("ICECORE_PORT", "tcp://10.0.0.1:8181");
    check(&kubernetes.arg("config").output().unwrap(), 0, &config_text(&[]), "");
    let mut typed = command();
    typed.env("ICECORE_COMIT_INTERVAL", "1s").arg("config");
    let output = typed.output().unwrap();
    assert!(output.status.success());
    let said = text(&output.stderr);
    assert!(said.contains("did you mean ICECORE_COMMIT_INTERVAL?"), "{said}");
    assert!(!said.contains('\u{1b}'), "colours are for terminals: {said:?}");
}

fn config_text(settings: &[(&str, String)]) -> String {
    text(&run(&["config"], settings, b"").stdout)
}

#[test]
fn a_sample_of_the_settings_is_printed_even_where_they_are_wrong() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("icecore.toml"), "colour = 1").unwrap();
    let mut sample = command();
    let output = sample.args(["config", "--sample"]).current_dir(&folder).output().unwrap();
    let documented = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/icecore.toml");
    check(&output, 0, &std::fs::read_to_string(documented).unwrap(), "");
    let version = command().arg("version").current_dir(&folder).output().unwrap();
    assert_eq!(version.status.code(), Some(0));
    assert!(text(&version.stdout).starts_with(concat!("icecore ", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn shells_and_man_know_every_command() {
    let printed = |words: &[&str]| {
        let output = run(words, &[], b"");
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    for (shell, first) in [("bash", "_icecore()"), ("zsh", "#compdef icecore"), ("fish", "# Print")]
    {
        let script = printed(&["completions", shell]);
        assert!(script.starts_with(first), "{script}");
        for word in ["deadletters", "take-over", "cloudevents", "data-dir"] {
            assert!(script.contains(word), "{shell}: {word}: {script}");
        }
    }
    let page = printed(&["man"]);
    assert!(page.contains(".TH icecore 1") && page.contains("icecore quickstart"), "{page}");
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    assert_eq!(printed(&["man", pages.to_str().unwrap()]), "");
    for name in ["icecore.1", "icecore-sql.1", "icecore-wal-take-over.1"] {
        assert!(pages.join(name).exists(), "{name}");
    }
    let names = std::fs::read_dir(&pages).unwrap().map(|page| page.unwrap().file_name());
    let of_help: Vec<_> = names.filter(|name| name.to_string_lossy().contains("help")).collect();
    assert!(of_help.is_empty() && !page.contains("icecore\\-help"), "{of_help:?}");
    assert_eq!(printed(&["-V"]), printed(&["version"]));
}

#[test]
fn log_lines_are_json_where_that_is_set() {
    let mut command = command();
    command.env("ICECORE_COMIT_INTERVAL", "1s").env("ICECORE_LOG_FORMAT", "json").arg("config");
    let said = text(&command.output().unwrap().stderr);
    let line: serde_json::Value = serde_json::from_str(said.trim()).unwrap();
    assert_eq!(line["level"], "WARN");
    assert!(line["message"].as_str().unwrap().contains("ICECORE_COMIT_INTERVAL"), "{line}");
}

#[test]
fn a_start_on_a_taken_address_leaves_nothing_behind() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let settings = [("listen", address), ("data_dir", data.display().to_string())];
    let output = run(&["serve"], &settings, b"");
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("choose another with --listen HOST:PORT"), "{said}");
    assert!(!data.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_in_use_names_the_process_that_has_it() {
    let server = TestServer::start().await;
    let settings = [
        ("listen", "127.0.0.1:0".to_owned()),
        ("data_dir", server.folder.path().display().to_string()),
    ];
    let output = run(&["serve"], &settings, b"");
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    let process = format!("is open in process {}: stop that server first", std::process::id());
    assert!(said.contains(&process), "{said}");
    // Nobody wants to start a server here.
    for (words, operation) in [
        (["wal", "take-over"], "take over the events"),
        (["wal", "inspect"], "read the log"),
        (["wal", "quarantine"], "read the log"),
        (["wal", "export"], "read the log"),
    ] {
        let output = run(&words, &settings, b"");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {said}");
        assert!(output.stdout.is_empty(), "{words:?}: {}", text(&output.stdout));
        assert!(
            said.starts_with(&format!("icecore: {operation}: ")) && said.contains(&process),
            "{words:?}: {said}"
        );
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_without_a_token_is_told_where_it_goes() {
    let guarded = Guarded::start().await;
    let said = |words: &[&str]| {
        let output = icecore(&guarded.server, words, "{\"type\":\"t\"}");
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        text(&output.stderr)
    };
    let missing = "401: this server requires a token: send `Authorization: Bearer TOKEN`";
    let help = "; for this command: set ICECORE_TOKEN, or pass --token\n";
    for words in [
        &["sql", "select 1"][..],
        &["ingest"],
        &["tables"],
        &["jobs"],
        &["token", "list"],
        &["catalog", "check"],
        &["catalog", "events"],
        &["deadletters", "show", "x"],
    ] {
        assert_eq!(said(words), format!("icecore: ask the server: {missing}{help}"), "{words:?}");
    }
    let said = said(&["tables", "--token", "ice_wrong"]);
    assert!(said.contains("the token is not valid here") && said.ends_with(help), "{said}");
    // The help is true.
    let mut command = command();
    command.args(["tables", "--url", &guarded.server.url]).env("ICECORE_TOKEN", &guarded.admin);
    assert!(command.output().unwrap().status.success());
    assert!(icecore(&guarded.server, &["tables", "--token", &guarded.admin], "").status.success());
    guarded.server.stop().await;
}

#[test]
fn doctor_says_what_is_in_the_way_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let doctor = |more: &[(&str, String)]| {
        let settings = [
            ("data_dir", data.display().to_string()),
            ("listen", "127.0.0.1:0".to_owned()),
            ("wal.disk_free_min", "0".to_owned()),
        ];
        let output = run(&["doctor", "--json"], &[&settings[..], more].concat(), b"");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let failed: Vec<String> = report["checks"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|check| check["ok"] == false)
            .map(|check| format!("{}: {}", check["check"], check["text"]).replace('"', ""))
            .collect();
        assert_eq!(output.status.code(), Some(i32::from(!failed.is_empty())));
        assert_eq!(report["ok"], failed.is_empty());
        failed
    };
    assert_eq!(doctor(&[]), Vec::<String>::new());
    assert!(!data.exists());
    std::fs::write(&data, "").unwrap();
    let failed = doctor(&[]);
    assert!(failed[0].contains("is a file, not a folder"), "{failed:?}");
    std::fs::remove_file(&data).unwrap();

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let postgres = "postgres://nobody@127.0.0.1:1/none".to_owned();
    let failed = doctor(&[("listen", address), ("metastore", postgres)]);
    assert_eq!(failed.len(), 2, "{failed:?}");
    assert!(failed[0].starts_with("metastore: postgres://127.0.0.1:1/none: "), "{failed:?}");
    assert!(failed[1].contains("choose another with --listen"), "{failed:?}");

    let bucket = [
        ("warehouse", "s3://lake/x".to_owned()),
        ("s3.endpoint", "http://127.0.0.1:1".to_owned()),
        ("s3.access_key_id", "k".to_owned()),
        ("s3.secret_access_key", "s".to_owned()),
    ];
    let failed = doctor(&bucket);
    assert!(failed[0].starts_with("warehouse: s3://lake/x does not "), "{failed:?}");
    assert!(!Path::new(&data).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_in_a_statement_has_its_line_and_a_mark_under_the_place() {
    let server = TestServer::start().await;
    let output = icecore(&server, &["sql", "SELECT 1,\n\tcount(*) fro events"], "");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("at line 2, column 15: "), "{said}");
    assert!(said.ends_with("\n   count(*) fro events\n                ^\n"), "{said}");
    // Which one of several it is shows by its text.
    let said = text(&icecore(&server, &["sql"], "select 1; selec 2; select 3").stderr);
    assert!(said.ends_with("\n  selec 2\n  ^\n"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_goes_on_behind_a_failing_statement_when_it_is_told_to() {
    let server = TestServer::start().await;
    let script = "select 1 as a; selec 2; select 3 as b";
    let words = ["sql", "--format", "csv", "--keep-going"];
    let output = icecore(&server, &words, script);
    check(&output, 1, "a\n1\nb\n3\n", "\n  selec 2\n  ^\n");
    assert!(text(&output.stderr).ends_with("1 statement failed\n"), "{output:?}");
    check(&icecore(&server, &words, "select 1 as a"), 0, "a\n1\n", "");
    let words = ["sql", "--format", "csv", "-c", "select 1 as a; select 2 as b"];
    check(&icecore(&server, &words, ""), 0, "a\n1\nb\n2\n", "");
    check(
        &icecore(&server, &["sql", "-c", "select 1", "select 2"], ""),
        2,
        "",
        "cannot be used with",
    );
    // What is no terminal gets the plain table.
    let output = icecore(&server, &["sql", "select 1 as a"], "");
    check(&output, 0, "+---+\n| a |\n+---+\n| 1 |\n+---+\n", "");
}

/// Where the text behind an example begins: after two spaces or more.
fn remark_column(example: &str) -> Option<usize> {
    let example = example.trim_end();
    let gap =
        example.trim_start().find("  ").map(|at| at + example.len() - example.trim_start().len());
    gap.map(|gap| gap + example[gap..].len() - example[gap..].trim_start().len())
}

#[test]
fn help_has_examples_and_defaults_and_a_foreign_flag_the_right_one() {
    let help = text(&command().arg("help").output().unwrap().stdout);
    for part in ["icecore quickstart", "127.0.0.1:8181", "./icecore-data", "DATA_DIR/warehouse"] {
        assert!(help.contains(part), "{part}: {help}");
    }
    let examples = help.lines().skip_while(|line| *line != "Examples:").skip(1);
    let remarks: Vec<usize> =
        examples.take_while(|line| !line.is_empty()).filter_map(remark_column).collect();
    assert!(5 < remarks.len() && remarks.iter().all(|at| *at == remarks[0]), "{remarks:?}: {help}");
    let output = command().args(["serve", "--port", "9000"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(said.contains("tip: --listen HOST:PORT"), "{said}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("data");
    std::fs::write(&file, "").unwrap();
    let output = command()
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir", file.to_str().unwrap()])
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert!(said.contains("it is a file"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_namespace_is_told() {
    let server = TestServer::start().await;
    server.ingest(&json!({"type": "t", "ns": "shop.example"})).await;
    let said = text(&icecore(&server, &["sql", "SELECT count(*) FROM events"], "").stderr);
    let expected = "namespace `default` has no events; there is: shop.example; use --ns\n";
    assert!(said.ends_with(expected), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_snapshots_come_first_and_not_all_of_them() {
    let server = TestServer::start().await;
    for n in 0..3 {
        server.ingest(&json!({"id": n.to_string(), "type": "t"})).await;
        server.commit("default").await;
    }
    let output = icecore(&server, &["snapshots", "--limit", "2"], "");
    let rows = text(&output.stdout);
    let last_seqs: Vec<&str> =
        rows.lines().skip(1).filter_map(|line| line.split_whitespace().last()).collect();
    assert_eq!(last_seqs, ["3", "2"], "{rows}");
    assert_eq!(text(&output.stderr), "the newest 2 of 3 snapshots; --limit N lists more\n");
    let all = icecore(&server, &["snapshots"], "");
    assert_eq!((text(&all.stdout).lines().count(), text(&all.stderr)), (4, String::new()));
}

/// A pipe with a name.
fn fifo(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_with_a_name_is_read_once_and_written_as_it_is() {
    let server = TestServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = fifo(folder.path(), "events");
    let name = path.to_str().unwrap().to_owned();
    let zipped = zstd::encode_all(b"{\"id\":\"1\",\"type\":\"t\"}\n".as_slice(), 1).unwrap();
    for bytes in [b"{\"id\":\"2\",\"type\":\"t\"}\n".to_vec(), zipped] {
        let end = path.clone();
        let writer = std::thread::spawn(move || std::fs::write(end, bytes).unwrap());
        let output = icecore(&server, &["ingest", &name], "");
        writer.join().unwrap();
        check(&output, 0, "1 event sent: 1 new, 0 duplicates, 0 rejected\n", "");
    }
    check(&icecore(&server, &["ingest", "--format", "parquet", &name], ""), 2, "", "a pipe");

    let end = path.clone();
    let reader = std::thread::spawn(move || std::fs::read_to_string(end).unwrap());
    let select = ["sql", "select 1 as a", "--format", "csv", "--output"];
    check(&icecore(&server, &[&select[..], &[&name]].concat(), ""), 0, "", "");
    assert_eq!(reader.join().unwrap(), "a\n1\n");
    assert!(!path.metadata().unwrap().is_file());
    // A link stays, too.
    let (link, file) = (folder.path().join("link"), folder.path().join("file"));
    std::fs::write(&file, "before").unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    check(&icecore(&server, &[&select[..], &[link.to_str().unwrap()]].concat(), ""), 0, "", "");
    assert!(link.is_symlink());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "a\n1\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_no_request_can_hold_stops_no_other_and_has_a_place() {
    let settings = [("ingest.body_bytes_max", "64KiB")];
    let server = TestServer::start_in(tempfile::tempdir().unwrap(), &settings).await;
    let large = "x".repeat(70_000);
    let small = "y".repeat(20_000);
    let events = [&small, &large, &small, &small, &small]
        .map(|text| json!({"type": "t", "data": {"text": text}}).to_string());
    let output = icecore(&server, &["ingest", "-"], &events.join("\n"));
    assert_eq!(text(&output.stdout), "4 events sent: 4 new, 0 duplicates, 0 rejected\n");
    let said = text(&output.stderr);
    assert!(said.contains("stdin:2: not sent: "), "{said}");
    assert!(said.contains("65536 bytes"), "{said}");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(server.rows("default", "SELECT count(*) FROM events").await, json!([[4]]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_order_mark_is_no_part_of_a_statement_and_a_line_break_none_of_a_token() {
    let server = TestServer::start().await;
    let file = server.folder.path().join("q.sql");
    std::fs::write(&file, "\u{feff}SELECT 1 AS one").unwrap();
    let words = ["sql", "-f", file.to_str().unwrap(), "--format", "csv", "--token", "ice_x\n"];
    check(&icecore(&server, &words, ""), 0, "one\n1\n", "");
    server.stop().await;
}

/// The first number of the first row of the table that is printed below a title.
fn number_below(printed: &str, title: &str) -> u64 {
    let mut rows =
        printed.split_once(title).unwrap().1.lines().filter(|line| line.starts_with('|'));
    // Behind the row with the names of the columns.
    let row = rows.nth(1).unwrap();
    row.split('|').nth(1).unwrap().trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quickstart_travels_to_another_count_and_says_what_stays() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        ("listen", "127.0.0.1:0".to_owned()),
        ("data_dir", folder.path().display().to_string()),
        ("wal.disk_free_min", "0".to_owned()),
    ];
    let output = run(&["quickstart", "--exit", "--events", "600"], &settings, b"");
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(number_below(&printed, "Now, including what is not in a snapshot yet"), 600);
    assert_eq!(number_below(&printed, "Time travel: the same at the first snapshot"), 300);
    let place = folder.path().display();
    let count = "SELECT count(*) FROM events";
    let last = format!(
        "The events stay in {place}. To continue: icecore serve --data-dir {place}, and in another terminal: icecore sql --ns shop.example \"{count}\"\n"
    );
    assert!(printed.ends_with(&last), "{printed}");
    let server = TestServer::start_in(folder, &[("wal.segment_bytes", "64MiB")]).await;
    let words = ["sql", "--ns", "shop.example", count, "--format", "csv"];
    check(&icecore(&server, &words, ""), 0, "count(*)\n600\n", "");
    server.stop().await;
}
