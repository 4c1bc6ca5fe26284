//! Files that `icecore ingest` sends: what they hold is stored once each, as it is, or said with its
//! place.

use crate::{harness::TestServer, process::run};
use arrow::{
    array::{ArrayRef, Float64Array, ListArray, StringArray},
    datatypes::Float64Type,
    record_batch::RecordBatch,
};
use parquet::arrow::ArrowWriter;
use serde_json::json;
use std::{fs, path::Path, sync::Arc};

/// What a run printed and how it ended.
struct Sent {
    code: Option<i32>,
    said: String,
    problems: String,
}

fn ingest(server: &TestServer, file: &Path) -> Sent {
    let words = ["ingest", "--url", &server.url, "--ns", "n", file.to_str().unwrap()];
    let output = run(&words, &[], b"");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Sent { code: output.status.code(), said: text(output.stdout), problems: text(output.stderr) }
}

fn write(server: &TestServer, name: &str, bytes: &[u8]) -> std::path::PathBuf {
    let path = server.folder.path().join("files").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quote_without_an_end_swallows_no_rows() {
    let server = TestServer::start().await;
    let path = write(&server, "open.csv", b"id,type,note\n1,t,a\n2,t,\"unclosed\n3,t,x\n4,t,y\n");
    let sent = ingest(&server, &path);
    assert_eq!(sent.code, Some(1));
    assert!(
        sent.problems.contains("open.csv:3: unterminated CSV quoted field"),
        "{}",
        sent.problems
    );
    let rows = server.rows("n", "SELECT id FROM events ORDER BY id").await;
    assert_eq!(rows, json!([["1"]]));
    // Mended, the rest comes, and what was sent is there once.
    let path = write(&server, "open.csv", b"id,type,note\n1,t,a\n2,t,\"closed\"\n3,t,x\n4,t,y\n");
    let sent = ingest(&server, &path);
    assert_eq!((sent.code, sent.problems.as_str()), (Some(0), ""), "{}", sent.said);
    let rows = server.rows("n", "SELECT count(*), count(DISTINCT id) FROM events").await;
    assert_eq!(rows, json!([[4, 4]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_not_utf_8_or_does_not_fit_the_header_is_refused_with_its_line() {
    let server = TestServer::start().await;
    let text =
        b"id,type,note\ngr\xf6\xdfe,t,1\ngr\xe4\xe4e,t,2\n1,t,3\n2,t\n3,t,x,y\n4,t,\"a\nb\"\n5\n";
    let path = write(&server, "latin.csv", text);
    let sent = ingest(&server, &path);
    assert_eq!(sent.code, Some(1));
    assert_eq!(sent.said, "2 events sent: 2 new, 0 duplicates, 0 rejected\n");
    for line in [
        "latin.csv:2: not sent: the value of column `id` is not UTF-8",
        "latin.csv:3: not sent: the value of column `id` is not UTF-8",
        "latin.csv:5: not sent: fields in the row: 2, in the header: 3",
        "latin.csv:6: not sent: fields in the row: 4, in the header: 3",
        "latin.csv:9: not sent: fields in the row: 1, in the header: 3",
        "5 rows not sent",
    ] {
        assert!(sent.problems.contains(line), "{line} in {}", sent.problems);
    }
    let rows = server.rows("n", "SELECT id FROM events ORDER BY id").await;
    assert_eq!(rows, json!([["1"], ["4"]]));
    let path = write(&server, "header.csv", b"id,gr\xf6\xdfe\n1,2\n");
    let sent = ingest(&server, &path);
    assert_eq!(sent.code, Some(1));
    assert!(sent.problems.contains("header.csv:1: the header is not UTF-8"), "{}", sent.problems);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_goes_on_says_again_what_the_stopped_one_did_not_send() {
    let server = TestServer::start().await;
    let row = |n: u32| if n == 1 { "t\n".to_owned() } else { format!("t,{n:012}\n") };
    let rows: String = (0..6_000).map(row).collect();
    for (last, told) in [
        ("t,\"open", "5999 events sent: 5999 new, 0 duplicates, 0 rejected, and then it stopped\n"),
        ("t,\"closed\"", "6000 events sent: 1 new, 5999 duplicates, 0 rejected\n"),
    ] {
        // The start, by which a file is known again, is the same.
        let path = write(&server, "long.csv", format!("type,note\n{rows}{last}").as_bytes());
        let sent = ingest(&server, &path);
        assert_eq!((sent.code, sent.said.as_str()), (Some(1), told), "{}", sent.problems);
        let problem = "long.csv:3: not sent: fields in the row: 1, in the header: 2";
        assert!(sent.problems.contains(problem), "{}", sent.problems);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_names_a_column_twice_is_refused() {
    let server = TestServer::start().await;
    let path = write(&server, "twice.csv", b"id,type,note,note\n1,t,a,b\n");
    let sent = ingest(&server, &path);
    assert_eq!(sent.code, Some(1));
    let text = "twice.csv:1: the header has `note` more than once: rename one";
    assert!(sent.problems.contains(text), "{}", sent.problems);
    // What spreadsheets leave at the edge has no name and no values.
    let path = write(&server, "edge.csv", b"id,type,,\n1,t,,\n");
    let sent = ingest(&server, &path);
    assert_eq!((sent.code, sent.problems.as_str()), (Some(0), ""));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_refused_keeps_its_file_from_being_sent_and_no_other() {
    let server = TestServer::start().await;
    let (b, c) = (r#"{"type":"b"}"#, r#"{"type":"c"}"#);
    let one_list = format!(r#"{{"events":[{b},{c}]}}"#);
    for (name, refused, corrected) in [
        (
            "ns",
            format!(r#"{{"ns":"other","events":[{b},{c}]}}"#),
            format!(r#"{{"ns":"n","events":[{b},{c}]}}"#),
        ),
        (
            "id",
            format!(r#"{{"ns":"other","batchId":"b1","events":[{b},{c}]}}"#),
            format!(r#"{{"batchId":"b1","events":[{b},{c}]}}"#),
        ),
        ("two", format!(r#"{{"events":[{b}],"batch":[{c}]}}"#), one_list.clone()),
        ("twice", format!(r#"{{"events":[{b}],"events":[{c}]}}"#), one_list),
    ] {
        let values = |batch: &str| {
            let text = format!("{{\"type\":\"a\"}}\n{batch}\n{{\"type\":\"d\"}}");
            write(&server, &format!("{name}/values.json"), text.as_bytes())
        };
        let first = values(&refused);
        let second = write(&server, &format!("{name}/more.json"), b"[{\"type\":\"e\"}]");
        let files = [&first, &second].map(|path| path.to_str().unwrap());
        let words = [&["ingest", "--url", &server.url, "--ns", "n"][..], &files].concat();
        let output = run(&words, &[], b"");
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        for part in ["values.json:2: not sent: ", "nothing of the file is sent", "1 row not sent"] {
            assert!(said.contains(part), "`{part}` in: {said}");
        }
        let told = String::from_utf8(output.stdout).unwrap();
        assert_eq!(told, "1 event sent: 1 new, 0 duplicates, 0 rejected\n", "{name}");
        values(&corrected);
        let output = run(&words, &[], b"");
        let told = String::from_utf8(output.stdout).unwrap();
        assert_eq!(told, "5 events sent: 4 new, 1 duplicate, 0 rejected\n", "{name}");
        assert_eq!(output.status.code(), Some(0), "{name}");
    }
    let rows = server.rows("n", "SELECT count(*) FROM events").await;
    assert_eq!(rows, json!([[20]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_lines_of_two_files_are_two_events_and_a_file_that_grew_brings_what_is_new() {
    let server = TestServer::start().await;
    for name in ["app.ndjson", "app.csv", "app.json"] {
        let (line, more) = match name {
            "app.csv" => ("type\nhb\n", "hb\n"),
            "app.json" => ("[{\"type\":\"hb\"}]", ""),
            _ => ("{\"type\":\"hb\"}\n", "{\"type\":\"hb\"}\n"),
        };
        for host in ["host1", "host2"] {
            let path = write(&server, &format!("{host}/{name}"), line.as_bytes());
            let first = ingest(&server, &path).said;
            assert_eq!(first, "1 event sent: 1 new, 0 duplicates, 0 rejected\n", "{path:?}");
            let again = ingest(&server, &path).said;
            assert_eq!(again, "1 event sent: 0 new, 1 duplicate, 0 rejected\n", "{path:?}");
            let grown = match more {
                "" => "[{\"type\":\"hb\"},{\"type\":\"hb\"}]".to_owned(),
                more => format!("{line}{more}"),
            };
            fs::write(&path, grown).unwrap();
            let grown = ingest(&server, &path).said;
            assert_eq!(grown, "2 events sent: 1 new, 1 duplicate, 0 rejected\n", "{path:?}");
        }
    }
    // The same file by another way to write its name.
    let path = server.folder.path().join("files/host1/../host2/app.ndjson");
    let said = ingest(&server, &path).said;
    assert_eq!(said, "2 events sent: 0 new, 2 duplicates, 0 rejected\n");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_stopped_goes_on_in_a_file_that_grew_but_not_in_another() {
    let server = TestServer::start().await;
    let line = |n: usize| format!("{{\"type\":\"t\",\"n\":{n}}}\n");
    let text: String = (0..6_000).map(line).collect();
    let path = write(&server, "long.ndjson", text.as_bytes());
    assert!(ingest(&server, &path).said.contains("6000 new"));
    // As a run that was stopped after its first request leaves it.
    let first: String = (0..5_000).map(line).collect();
    let note = |bytes: &[u8]| {
        let head = &bytes[..bytes.len().min(64 * 1024)];
        let hash = xxhash_rust::xxh3::xxh3_64(head);
        json!({ "head": { "bytes": head.len(), "hash": hash }, "offset": first.len(), "lines": 5_000 })
    };
    let progress = path.with_file_name("long.ndjson.icecore-progress");
    fs::write(&progress, note(text.as_bytes()).to_string()).unwrap();
    fs::write(&path, format!("{text}{}", line(6_000))).unwrap();
    let said = ingest(&server, &path).said;
    assert_eq!(said, "1001 events sent: 1 new, 1000 duplicates, 0 rejected\n");
    assert!(!progress.exists());
    // Another file took its place: nothing of it is passed over.
    fs::write(&progress, note(text.as_bytes()).to_string()).unwrap();
    let other: String = (10_000..15_001).map(line).collect();
    fs::write(&path, other).unwrap();
    let said = ingest(&server, &path).said;
    assert_eq!(said, "5001 events sent: 5001 new, 0 duplicates, 0 rejected\n");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_json_has_not_are_kept_as_texts() {
    let server = TestServer::start().await;
    let numbers = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1.5];
    let ids: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "c", "d"]));
    let types: ArrayRef = Arc::new(StringArray::from(vec!["t"; 4]));
    let floats: ArrayRef = Arc::new(Float64Array::from(numbers.to_vec()));
    let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(
        numbers.map(|number| Some(vec![Some(number), None])),
    ));
    let columns = [
        ("id", ids),
        ("type", types),
        ("f", Arc::clone(&floats)),
        ("duration_ms", floats),
        ("list", lists),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let path = write(&server, "numbers.parquet", b"");
    let mut writer =
        ArrowWriter::try_new(fs::File::create(&path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let sent = ingest(&server, &path);
    assert_eq!(sent.said, "4 events sent: 4 new, 0 duplicates, 0 rejected\n", "{}", sent.problems);
    let rows = server
        .rows(
            "n",
            "SELECT id, duration_ms, json_extract_string(payload, '$.f'),
                    json_extract_string(payload, '$.duration_ms'),
                    json_extract_string(payload, '$.list')
             FROM events ORDER BY id",
        )
        .await;
    assert_eq!(
        rows,
        json!([
            ["a", null, "NaN", "NaN", "[null,null]"],
            ["b", null, "Infinity", "Infinity", "[null,null]"],
            ["c", null, "-Infinity", "-Infinity", "[null,null]"],
            ["d", 1.5, "1.5", "1.5", "[1.5,null]"],
        ])
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_reads_over_around_an_event_doubles_none() {
    let server = TestServer::start().await;
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packer, "\u{feff}{\"type\":\"A.b\"}\n".as_bytes()).unwrap();
    let packed = packer.finish().unwrap();
    let event = r#"{"type":"A.b"}"#;
    let mut total = 0;
    for (name, bytes, events) in [
        ("mark.ndjson", format!("\u{feff}{event}\n{event},\n{event}\n").into_bytes(), 3),
        ("mark.json", format!("\u{feff}[{event},{event}]").into_bytes(), 2),
        ("mark.ndjson.gz", packed, 1),
        ("mark", format!("\u{feff}[\n{event}]").into_bytes(), 1),
        ("records.ndjson", format!("\u{1e}{event}\n\u{1e}{event}\n").into_bytes(), 2),
        ("commas.json", format!("{event},\n{event},\n").into_bytes(), 2),
        ("several.ndjson", format!("{event}{event}\n{event},{event},\n").into_bytes(), 4),
    ] {
        let path = write(&server, name, &bytes);
        for new in [events, 0] {
            let sent = ingest(&server, &path);
            let told = format!("events sent: {new} new, ");
            let said = sent.said.replace("event sent", "events sent");
            assert_eq!((sent.code, said.contains(&told)), (Some(0), true), "{name}: {said}");
        }
        total += events;
    }
    for (name, text, told) in [
        ("broken.ndjson", format!("{event} {{\"type\":\n"), "broken.ndjson:1: not sent: it has"),
        ("broken.json", format!("{event}\n{{\"type\":"), "broken.json:2: not sent: not JSON"),
    ] {
        let sent = ingest(&server, &write(&server, name, text.as_bytes()));
        assert_eq!(sent.code, Some(1), "{}", sent.said);
        assert!(sent.problems.contains(told), "{}", sent.problems);
    }
    let rows = server.rows("n", "SELECT count(*) FROM events").await;
    assert_eq!(rows, json!([[total]]));
    server.stop().await;
}
