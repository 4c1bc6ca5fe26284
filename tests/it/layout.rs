//! Folders of the earlier layout: what `icecore import` takes of them, and what `icecore export` writes.

use crate::{
    harness::TestServer,
    process::{command, run},
};
use arrow::{
    array::{ArrayRef, StringArray, TimestampMillisecondArray},
    record_batch::RecordBatch,
};
use icecore_schemas::columns::EVENTS;
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

/// 2026-11-20T14:00:00Z.
const HOUR_MS: i64 = 1_795_183_200_000;
const DAY: &str = "events/2026/11/20";

fn write(root: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    path
}

fn write_lines(root: &Path, name: &str, events: &[Value]) {
    let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
    write(root, name, lines.as_bytes());
}

fn write_rows(root: &Path, name: &str, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, array)| (name, array, true)),
    )
    .unwrap();
    let path = write(root, name, b"");
    let mut writer =
        ArrowWriter::try_new(fs::File::create(&path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn texts(values: Vec<String>) -> ArrayRef {
    Arc::new(StringArray::from(values))
}

/// Events as earlier writers put them into Parquet: some columns, and the whole event.
fn write_events(root: &Path, name: &str, events: &[Value]) {
    let text = |name: &str| {
        texts(events.iter().map(|event| event[name].as_str().unwrap().to_owned()).collect())
    };
    let times = events.iter().map(|event| event["timestamp"].as_i64().unwrap());
    let times: ArrayRef = Arc::new(TimestampMillisecondArray::from_iter_values(times));
    let whole = texts(events.iter().map(ToString::to_string).collect());
    write_rows(root, name, vec![("ts", times), ("type", text("type")), ("payload", whole)]);
}

/// The event of this number: each second one has an id.
fn event(number: i64) -> Value {
    let mut event = json!({ "type": "order.placed", "ns": "shop",
        "timestamp": HOUR_MS + number * 1_000, "actor": "a", "data": { "n": number, "sum": 1.50 } });
    if number % 2 == 0 {
        event["id"] = json!(format!("e-{number}"));
    }
    event
}

fn numbered(numbers: std::ops::Range<i64>) -> Vec<Value> {
    numbers.map(event).collect()
}

/// A bucket with raw and compacted copies, messages and files that are none of it.
fn bucket(root: &Path) {
    let (mut lines, rows) = (numbered(0..20), numbered(20..30));
    // Two equal rows without an id.
    lines.push(event(1));
    let all = [&lines[..], &rows].concat();
    write_lines(root, &format!("{DAY}/14/a.jsonl"), &lines);
    write_events(root, &format!("{DAY}/14/b.parquet"), &rows);
    write_events(root, &format!("{DAY}/14/_compact_c.parquet"), &all);
    write_events(root, &format!("{DAY}/_compact_d.parquet"), &all);
    // A later run of the compaction, whose inputs were still there.
    write_events(root, &format!("{DAY}/14/_compact_e.parquet"), &lines);
    let change = json!({ "id": "change", "type": "collection.update", "ns": "shop", "docId": "7",
        "collection": "users", "timestamp": HOUR_MS, "bookmark": "b-1", "doc": { "n": 1 } });
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for event in numbered(30..40).into_iter().chain([change]) {
        writeln!(packer, "{event}").unwrap();
    }
    write(root, &format!("{DAY}/15/e.jsonl.gz"), &packer.finish().unwrap());
    let tenant: Vec<Value> = (0..3).map(|n| json!({ "type": "t", "data": { "n": n } })).collect();
    write_lines(root, "ns/acme/events/2026/11/20/14/f.jsonl", &tenant);
    write_rows(
        root,
        "cdc/w/users/data.parquet",
        vec![
            ("id", texts(vec!["7".to_owned(), "8".to_owned()])),
            ("name", texts(vec!["Ada".to_owned(), "Bo".to_owned()])),
        ],
    );
    let pair = |first: &str, second: &str| texts(vec![first.to_owned(), second.to_owned()]);
    let ts = "2026-11-20T14:00:00.000Z";
    write_rows(
        root,
        "cdc/w/users/deltas/001.parquet",
        vec![
            ("op", pair("update", "insert")),
            ("pk", pair("7", "8")),
            ("ts", pair(ts, ts)),
            ("data", pair("{\"n\":1}", "{\"n\":2}")),
            ("bookmark", pair("b-1", "b-2")),
        ],
    );
    let body = json!({ "events": [event(0), { "no": "type", "ns": "shop" }] });
    let message = json!({ "messageId": "m1", "attempts": 3, "error": "x", "body": body });
    write(root, "dead-letter/queue/2026-11-20/m1.json", message.to_string().as_bytes());
    write(root, "dead-letter/queue/2026-11-20/m2.json", b"not JSON");
    write(root, "events/notes.txt", b"odd");
    write(root, &format!("{DAY}/14/broken.parquet"), b"PAR1");
    write(root, "manifest.json", b"{\"files\":[\"events/gone.parquet\"]}");
    write(root, "dedup/e-0", b"");
}

/// Runs `icecore import --json`: exit code, report, and what it said beside.
fn import(server: &TestServer, folder: &Path, words: &[&str]) -> (Option<i32>, Value, String) {
    let fixed = ["import", "--layout", "r2", "--json", "--url", &server.url];
    let words = [&fixed[..], words, &[folder.to_str().unwrap()]].concat();
    let output = run(&words, &[], b"");
    let said = String::from_utf8(output.stderr).unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|cause| {
        panic!("{cause}: {}{said}", String::from_utf8_lossy(&output.stdout))
    });
    (output.status.code(), report, said)
}

async fn counts(server: &TestServer, namespace: &str) -> Value {
    server.rows(namespace, "SELECT count(*), count(DISTINCT id) FROM events").await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_lands_each_event_once_and_a_second_one_none() {
    let server = TestServer::start().await;
    let root = server.folder.path().join("bucket");
    bucket(&root);
    let (code, report, said) = import(&server, &root, &["--dry-run"]);
    assert_eq!((code, &report["total"]["events"]), (Some(1), &json!(135)), "{said}");
    assert_eq!(report["total"]["accepted"], 0);

    let (code, report, said) = import(&server, &root, &[]);
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(
        report["total"],
        json!({ "events": 135, "accepted": 48, "duplicates": 85, "rejected": 2, "unsent": 0 }),
        "{said}"
    );
    let kinds: Vec<(&str, u64, u64)> = report["kinds"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| {
            let number = |name: &str| it[name].as_u64().unwrap();
            (it["kind"].as_str().unwrap(), number("files"), number("accepted"))
        })
        .collect();
    let (files, documents) = (("compacted", 3, 0), ("documents", 1, 2));
    assert_eq!(
        kinds,
        [("events", 5, 45), files, ("deltas", 1, 1), documents, ("dead letters", 2, 0)]
    );
    let skipped: Vec<&str> = report["skipped"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["file"].as_str().unwrap())
        .collect();
    assert_eq!(skipped, [format!("{DAY}/14/broken.parquet").as_str(), "events/notes.txt"]);
    assert!(report["notes"][0]["reason"].as_str().unwrap().contains("events/gone.parquet"));
    assert_eq!(report["aside"][0]["files"], 1);
    for part in ["m1.json:1: MISSING_TYPE", "m2.json:1: INVALID_JSON", "2 files skipped"] {
        assert!(said.contains(part), "`{part}` in {said}");
    }
    assert!(!root.with_file_name("bucket.icecore-progress").exists());

    for (namespace, events) in [("shop", 42), ("acme", 3), ("w", 3)] {
        assert_eq!(counts(&server, namespace).await, json!([[events, events]]), "{namespace}");
    }
    let twins = "SELECT count(*), min(ts) FROM events WHERE json_extract_string(data, '$.n') = '1' GROUP BY actor";
    assert_eq!(server.rows("shop", twins).await, json!([[2, "2026-11-20T14:00:01Z"]]));
    let hour = server.rows("acme", "SELECT DISTINCT ts FROM events").await;
    assert_eq!(hour, json!([["2026-11-20T14:00:00Z"]]));
    let users =
        server.rows("w", "SELECT op, collection, key, after FROM events ORDER BY op, key").await;
    assert_eq!(
        users,
        json!([
            ["c", "users", "8", "{\"n\":2}"],
            ["r", "users", "7", "{\"name\":\"Ada\"}"],
            ["r", "users", "8", "{\"name\":\"Bo\"}"],
        ])
    );

    let (code, report, said) = import(&server, &root, &[]);
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(
        report["total"],
        json!({ "events": 135, "accepted": 0, "duplicates": 133, "rejected": 2, "unsent": 0 }),
        "{said}"
    );
    let letters = server.rows("shop", "SELECT count(*) FROM dead_letters").await;
    assert_eq!(letters, json!([[1]]));
    assert_eq!(counts(&server, "shop").await, json!([[42, 42]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_is_killed_goes_on_where_it_was() {
    const FILES: i64 = 80;
    let server = TestServer::start().await;
    let root = server.folder.path().join("bucket");
    for file in 0..FILES {
        write_lines(
            &root,
            &format!("{DAY}/14/{file:03}.jsonl"),
            &numbered(file * 20..file * 20 + 20),
        );
    }
    let notes = root.with_file_name("bucket.icecore-progress");
    let mut killed = command();
    killed.args(["import", "--layout", "r2", "--url", &server.url]).arg(&root);
    let mut killed = killed.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let noted = || fs::read_to_string(&notes).map_or(0, |text| text.lines().count());
    let mut looks = tokio::time::interval(Duration::from_millis(1));
    while killed.try_wait().unwrap().is_none() && noted() < 5 {
        looks.tick().await;
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    let before = noted();
    let (code, report, said) = import(&server, &root, &[]);
    assert_eq!((code, report["total"]["events"].as_i64()), (Some(0), Some(20 * FILES)), "{said}");
    // The first line says where the events go. The last one may be half-written.
    let sent_before = report["sent_before"].as_u64().unwrap();
    assert!(before.saturating_sub(2) as u64 <= sent_before, "{before} lines, {report}");
    assert_eq!(counts(&server, "shop").await, json!([[20 * FILES, 20 * FILES]]));
    assert!(!notes.exists());
    server.stop().await;
}

/// What a run that was stopped leaves: its first file is noted. The equal row in the second file is the
/// second one all the same.
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_files_that_were_sent_before_count_among_equal_rows() {
    let server = TestServer::start().await;
    let root = server.folder.path().join("bucket");
    write_lines(&root, &format!("{DAY}/14/a.jsonl"), &[event(1)]);
    let (code, _, said) = import(&server, &root, &[]);
    assert_eq!(code, Some(0), "{said}");
    write_lines(&root, &format!("{DAY}/14/b.jsonl"), &[event(1), event(3)]);
    let file = fs::metadata(root.join(format!("{DAY}/14/a.jsonl"))).unwrap();
    let written = file.modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
    let target = json!({ "url": server.url, "ns": null });
    let note = json!({ "file": format!("{DAY}/14/a.jsonl"), "bytes": file.len(),
        "modified_ms": u64::try_from(written.as_millis()).unwrap(),
        "events": 1, "accepted": 1, "duplicates": 0, "rejected": 0, "unsent": 0 });
    let notes = root.with_file_name("bucket.icecore-progress");
    fs::write(notes, format!("{target}\n{note}\n{{\"file\":")).unwrap();
    let (code, report, said) = import(&server, &root, &[]);
    assert_eq!((code, &report["sent_before"]), (Some(0), &json!(1)), "{said}");
    assert_eq!((&report["total"]["accepted"], &report["total"]["events"]), (&json!(3), &json!(3)));
    assert_eq!(counts(&server, "shop").await, json!([[3, 3]]));
    server.stop().await;
}

/// Runs `icecore export --json` for the namespace `shop`.
fn export(server: &TestServer, folder: &Path, words: &[&str]) -> (Option<i32>, Value, String) {
    let fixed =
        ["export", "--layout", "r2", "--ns", "shop", "--json", "--url", server.url.as_str()];
    let words = [&fixed[..], words, &[folder.to_str().unwrap()]].concat();
    let output = run(&words, &[], b"");
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default(), said)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_exported_is_imported_as_it_was_and_later_events_are_added() {
    let server = TestServer::start().await;
    let mut events = numbered(0..10);
    events.extend([
        json!({ "id": "late", "type": "t", "ns": "shop", "ts": "2026-11-20T15:30:00Z", "more": [1] }),
        json!({ "id": "cdc", "ns": "shop", "ts": "0900-01-02T03:04:05Z", "op": "u", "collection": "o",
            "key": "1", "before": { "a": 1 }, "after": { "a": 2.50 }, "lsn": 7 }),
        json!({ "id": "cloud", "specversion": "1.0", "source": "/a", "type": "com.a/b",
            "time": "2026-11-20T14:00:00Z", "data": { "a": 1 }, "ns": "shop" }),
    ]);
    let (status, reply) =
        server.ingest_at("/ingest?backfill=true", &json!({ "events": events })).await;
    assert_eq!(status, 200, "{reply}");
    let snapshot = server.commit("shop").await["events"].to_string();
    let later = json!({ "id": "later", "type": "t", "ns": "shop", "ts": "2026-11-20T14:59:59Z" });
    let (status, reply) = server.ingest_at("/ingest?backfill=true", &later).await;
    assert_eq!(status, 200, "{reply}");

    let then = server.folder.path().join("then");
    let (code, report, said) = export(&server, &then, &["--as-of", &snapshot]);
    assert_eq!(
        (code, &report["files"], &report["events"]),
        (Some(0), &json!(3), &json!(13)),
        "{said}"
    );
    let (folder, all) = (server.folder.path().join("copy"), json!(14));
    let (code, report, said) = export(&server, &folder, &["--dry-run"]);
    assert_eq!((code, &report["events"], folder.exists()), (Some(0), &all, false), "{said}");
    let (code, report, said) = export(&server, &folder, &[]);
    assert_eq!((code, &report["files"], &report["events"]), (Some(0), &json!(3), &all), "{said}");
    for file in [
        "events/0900/01/02/03/events-12-12.parquet",
        "events/2026/11/20/14/events-1-14.parquet",
        "events/2026/11/20/15/events-11-11.parquet",
        "manifest.json",
    ] {
        assert!(folder.join(file).exists(), "{file}");
    }

    let (code, report, said) = import(&server, &folder, &["--ns", "other"]);
    assert_eq!((code, &report["total"]["accepted"]), (Some(0), &all), "{said}{report}");
    let (_, report, _) = import(&server, &folder, &["--ns", "other"]);
    assert_eq!(report["total"]["duplicates"], all, "{report}");
    let given = ["ns", "seq", "ingested_at", "bookmark"];
    let columns: Vec<String> = EVENTS
        .iter()
        .filter(|column| !given.contains(&column.name))
        .map(|column| format!("\"{}\"", column.name))
        .collect();
    let sql = format!("SELECT {} FROM events ORDER BY id", columns.join(", "));
    assert_eq!(server.rows("other", &sql).await, server.rows("shop", &sql).await);

    // What was left half-written goes, and what came since is a further file.
    let unfinished = write(&folder, "events/2026/11/20/14/events-15-16.parquet.part", b"PAR1");
    let again = json!({ "id": "again", "type": "t", "ns": "shop", "ts": "2026-11-20T14:30:00Z" });
    assert_eq!(server.ingest_at("/ingest?backfill=true", &again).await.0, 200);
    let (code, report, said) = export(&server, &folder, &[]);
    let told = (code, &report["files"], &report["events"], &report["kept"]);
    assert_eq!(told, (Some(0), &json!(1), &json!(1), &json!(3)), "{said}");
    assert!(folder.join("events/2026/11/20/14/events-15-15.parquet").exists());
    assert!(!unfinished.exists());
    let elsewhere = TestServer::start().await;
    let (code, _, said) = export(&elsewhere, &folder, &[]);
    assert_eq!((code, said.contains("name a new folder")), (Some(1), true), "{said}");
    elsewhere.stop().await;
    let (code, _, said) = export(&server, &folder, &["--since", "2026-11-20"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("name a new folder"), "{said}");
    let bounded = server.folder.path().join("bounded");
    let bounds = ["--since", "2026-11-20T14:00:05Z", "--until", "2026-11-20T15:00:00Z"];
    let (code, report, said) = export(&server, &bounded, &bounds);
    assert_eq!((code, &report["events"]), (Some(0), &json!(7)), "{said}");
    server.stop().await;
}
