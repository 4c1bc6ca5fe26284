use crate::{
    cli::ingest::{
        InputPart, csv, elements,
        identity::InputIdentity,
        lines::{LineRequests, push_with_id},
        rows::RowFile,
        source::{self, InputSource},
    },
    http::gzip,
};
use arrow::{
    array::{
        ArrayRef, BinaryArray, BooleanArray, Decimal128Array, Float64Array, Int64Array, ListArray,
        StringArray, StructArray, TimestampMicrosecondArray, UInt8Array,
    },
    datatypes::{DataType, Field, Int64Type},
    record_batch::RecordBatch,
};
use expect_test::expect;
use indicatif::ProgressBar;
use parquet::{arrow::ArrowWriter, file::properties::WriterProperties};
use std::{
    fs::File,
    io::{self, BufReader, Cursor, Read, Write},
    path::Path,
    sync::Arc,
};

#[test]
fn an_event_without_an_id_gets_one_and_others_stay_as_they_are() {
    let check = |event: &str, expected: &str| {
        let mut body = Vec::new();
        push_with_id(&mut body, event.as_bytes(), |it| file().id(1, it));
        let id = file().id(1, event.as_bytes());
        let found = String::from_utf8(body).unwrap().replace(&id, "f-1");
        assert_eq!(found, format!("{expected}\n"));
    };
    check(r#"{"type":"a"}"#, r#"{"type":"a","id":"f-1"}"#);
    check(r#"{"id":null,"op":"c"}"#, r#"{"id":null,"op":"c","id":"f-1"}"#);
    check(r#"{"specversion":"1.0"}"#, r#"{"specversion":"1.0","id":"f-1"}"#);
    check(r#"{"table":"t","after":{}}"#, r#"{"table":"t","after":{},"id":"f-1"}"#);
    for whole in [
        r#"{"id":"x","type":"a"}"#,
        r#"{"events":[{"type":"a"}]}"#,
        r#"{"type":"#,
        "[1]",
        "{}",
        // What a database wrote is known by its members, or by having no others.
        r#"{"order_no":7,"name":"x","__op":"c","__lsn":5}"#,
        r#"{"type":"t","__deleted":"false"}"#,
        r#"{"ts_ms":1795183200000}"#,
        r#"{"resolved":"1795183200000000000.0000000000"}"#,
        r#"{"schema":{},"payload":{"databaseName":"d"}}"#,
        r#"{"payload":[{"after":{"id":1},"key":[1],"topic":"t"}],"length":1}"#,
    ] {
        check(whole, whole);
    }
}

/// The identity of a file that is always at the same place.
fn file() -> InputIdentity {
    InputIdentity::of_file(Path::new("/")).unwrap()
}

/// A body without what its ids are made of.
fn without_hashes(body: &str) -> String {
    let is_id = |text: &str| {
        let mut parts = text.split('-').map(str::len);
        (parts.next(), parts.next(), parts.next(), parts.next())
            == (Some(16), Some(8), Some(16), None)
    };
    let shorten =
        |text: &str| if is_id(text) { format!("f-{}", &text[17..25]) } else { text.to_owned() };
    body.split('"').map(shorten).collect::<Vec<_>>().join("\"")
}

#[test]
fn an_id_tells_files_places_and_contents_apart() {
    let folder = tempfile::tempdir().unwrap();
    let of_file = |name: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "").unwrap();
        InputIdentity::of_file(&path).unwrap()
    };
    let (one, other) = (of_file("h1/app.ndjson"), of_file("h2/app.ndjson"));
    let id = one.id(1, b"{}");
    assert_eq!(of_file("h2/../h1/app.ndjson").id(1, b"{}"), id);
    assert_ne!(other.id(1, b"{}"), id);
    assert_ne!(one.id(2, b"{}"), id);
    assert_ne!(one.id(1, b"{ }"), id);
}

#[test]
fn the_same_file_gives_the_same_bodies_from_any_batch_border() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.ndjson");
    let text: String = (0..12_000).map(|n| format!("{{\"type\":\"t\",\"n\":{n}}}\n\n")).collect();
    std::fs::write(&path, text).unwrap();
    let source = InputSource::new(&path).unwrap();
    let parts = |place: (u64, u64)| lines_of(&source, place).map(Result::unwrap);
    let all: Vec<InputPart> = parts((0, 0)).collect();
    assert_eq!(all.iter().map(|part| part.places.len()).collect::<Vec<_>>(), [5_000, 5_000, 2_000]);
    let second = parts((all[0].next, all[0].lines)).next().unwrap();
    assert_eq!(second.body, all[1].body);
    // Each event stands on its own line, with an empty one behind it.
    assert_eq!((all[1].places[0], all[0].lines), (10_001, 9_999));
}

fn lines_of(source: &InputSource, (start, line): (u64, u64)) -> LineRequests {
    let reader = source.open(start, &ProgressBar::hidden()).unwrap();
    LineRequests { reader, identity: source.identity.clone(), offset: start, line, fault: None }
}

#[test]
fn what_is_compressed_is_read_whatever_it_is_called() {
    let folder = tempfile::tempdir().unwrap();
    let text = "{\"type\":\"a\"}\n{\"type\":\"b\"}\n";
    let gzip = |text: &str| {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        writer.write_all(text.as_bytes()).unwrap();
        writer.finish().unwrap()
    };
    let zstd = |text: &str| zstd::encode_all(text.as_bytes(), 1).unwrap();
    let (first, second) = text.split_at(13);
    for (name, bytes) in [
        ("e.ndjson", text.as_bytes().to_vec()),
        ("e.ndjson.gz", gzip(text)),
        ("two-members.gz", [gzip(first), gzip(second)].concat()),
        // As `tar` and copies in blocks fill up.
        ("padded.gz", [gzip(first), gzip(second), vec![0; 10_240]].concat()),
        ("e.ndjson.zst", zstd(text)),
        ("two-frames.zst", [zstd(first), zstd(second)].concat()),
        ("rotated.1", gzip(text)),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let source = InputSource::new(&path).unwrap();
        let part = lines_of(&source, (0, 0)).next().unwrap().unwrap();
        assert_eq!((part.places, part.next), (vec![1, 2], 26), "{name}");
        let rest = lines_of(&source, (13, 1)).next().unwrap().unwrap();
        let body = String::from_utf8(rest.body).unwrap();
        assert_eq!(without_hashes(&body), "{\"type\":\"b\",\"id\":\"f-00000002\"}\n");
    }
}

#[test]
fn zeros_behind_gzip_are_padding_however_many_they_are() {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(b"text").unwrap();
    let packed = Cursor::new(writer.finish().unwrap());
    let zeros = BufReader::with_capacity(1 << 20, io::repeat(0).take(65 << 20));
    assert_eq!(io::read_to_string(gzip::plain_bytes(packed.chain(zeros))).unwrap(), "text");
}

#[test]
fn a_name_says_how_a_file_is_written() {
    let check = |name: &str, expected: &str| {
        let format = source::format_of_name(Path::new(name));
        assert_eq!(
            format.map_or("-".to_owned(), |format| format!("{format:?}")),
            expected,
            "{name}"
        );
    };
    check("a.ndjson", "Ndjson");
    check("a.jsonl.gz", "Ndjson");
    check("a.json.ZST", "Json");
    check("a.csv.gz", "Csv");
    check("a.tsv", "Csv");
    check("a.parquet", "Parquet");
    check("a.gz", "-");
    check("-", "-");
}

#[test]
fn patterns_stand_for_the_files_that_match() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["b.ndjson", "a.ndjson", "a.ndjson.icecore-progress", "x[1].ndjson", "c.csv"] {
        std::fs::write(folder.path().join(name), "{}").unwrap();
    }
    let inputs = |pattern: &str| {
        let found = source::inputs(&[folder.path().join(pattern)]);
        found.map(|sources| {
            let name = |source: &InputSource| {
                source.path().file_name().unwrap().to_string_lossy().into_owned()
            };
            sources.iter().map(name).collect::<Vec<String>>()
        })
    };
    assert_eq!(inputs("?.ndjson*").unwrap(), ["a.ndjson", "b.ndjson"]);
    assert_eq!(inputs("x[1].ndjson").unwrap(), ["x[1].ndjson"]);
    assert_eq!(inputs("c.csv").unwrap(), ["c.csv"]);
    let problem = inputs("*.avro").unwrap_err().to_string();
    assert!(problem.starts_with("no file matches"), "{problem}");
    let problem = inputs("missing.csv").unwrap_err().to_string();
    assert!(problem.starts_with("read `") && problem.contains("missing.csv"), "{problem}");
    let problem = inputs("").unwrap_err().to_string();
    assert!(problem.contains("is a folder; name its files"), "{problem}");
}

#[test]
fn the_elements_of_a_json_file_are_events() {
    let check = |text: &str, expected: &str| {
        let parts = elements::parts(text.as_bytes(), &file(), 0, "shop");
        let lines = parts.map(|parts| {
            parts.into_iter().map(|part| String::from_utf8(part.body).unwrap()).collect::<String>()
        });
        let lines = lines.map_or("-".to_owned(), |lines| without_hashes(&lines));
        assert_eq!(lines, expected, "{text}");
    };
    check(
        "[{\"id\":\"a\"},\n {\"type\":\"t\",\"n\":\n1.50}]",
        "{\"id\":\"a\"}\n{\"type\":\"t\",\"n\": 1.50,\"id\":\"f-00000002\"}\n",
    );
    check("{\"events\":[{\"id\":\"a\"}]}", "{\"id\":\"a\"}\n");
    check("{\"id\":\"a\"} {\"id\":\"b\"}", "{\"id\":\"a\"}\n{\"id\":\"b\"}\n");
    check("{\"events\":[{}],\"batchId\":\"b\"}", "-");
    check("{\"events\":[{}],\"branch\":\"trial\",\"batchId\":\"b\"}", "-");
    let of_branch = b"{\"events\":[{}],\"branch\":\"trial\"}";
    let parts = elements::parts(of_branch, &file(), 0, "shop").unwrap();
    assert!(parts[0].unsent[0].1.contains("`batchId`"));
    check("{\"ns\":\"shop\",\"events\":[{\"id\":\"a\"}]}", "{\"id\":\"a\"}\n");
    let calls = "{\"batch\":[{\"id\":\"a\"}],\"events\":[]}";
    check(calls, &format!("{calls}\n"));
    let refused = "{\"ns\":\"other\",\"events\":[{\"type\":\"a\"},{\"type\":\"b\"}]}";
    let text =
        format!("[{{\"type\":\"c\"}},{{\"type\":\"d\"}}] {refused} {{\"type\":\"e\"}} {refused}");
    check(&text, "");
    let parts = elements::parts(text.as_bytes(), &file(), 0, "shop").unwrap();
    let unsent = &parts[0].unsent;
    assert_eq!(unsent.iter().map(|(place, _)| *place).collect::<Vec<_>>(), [3, 5]);
    assert!(unsent[0].1.contains("X-Namespace"), "{unsent:?}");
    check("[{]", "-");
    check("", "");
    let many: Vec<String> = (0..5_001).map(|n| format!("{{\"id\":\"{n}\"}}")).collect();
    let text = format!("[{}]", many.join(","));
    let parts = |start| elements::parts(text.as_bytes(), &file(), start, "shop").unwrap();
    let (parts, rest) = (parts(0), parts(5_000));
    assert_eq!(parts.iter().map(|part| part.next).collect::<Vec<_>>(), [5_000, 5_001]);
    assert_eq!((rest.len(), &rest[0].places, &rest[0].body), (1, &vec![5_001], &parts[1].body));
}

#[test]
fn a_row_of_csv_is_the_object_of_its_columns() {
    let check = |text: &str, expected: &str| {
        let reader: source::InputReader = Box::new(Cursor::new(text.to_owned().into_bytes()));
        let rows = csv::CsvRequests::new(reader, Path::new("x.csv"), file(), 0).unwrap();
        let mut lines = String::new();
        for part in rows {
            match part {
                Ok(part) => {
                    lines.push_str(&without_hashes(&String::from_utf8(part.body).unwrap()));
                    for (line, reason) in part.unsent {
                        lines.push_str(&format!("{line}: {reason}\n"));
                    }
                }
                Err(problem) => lines.push_str(&format!("{problem}\n")),
            }
        }
        assert_eq!(lines, expected, "{text}");
    };
    check(
        "id,type,user_id,duration_ms,success,data\n007,a,42,1.5,true,\"{\"\"k\"\":\"\"x,y\"\"}\"\n",
        "{\"id\":\"007\",\"type\":\"a\",\"user_id\":\"42\",\"duration_ms\":1.5,\"success\":true,\"data\":{\"k\":\"x,y\"}}\n",
    );
    check(
        "\u{feff}\"type\";durationMs;data\na;x;{\n",
        "{\"type\":\"a\",\"durationMs\":\"x\",\"data\":\"{\",\"id\":\"f-00000002\"}\n",
    );
    check(
        "type\tn\n\t\na\t\"b\nc\"\n",
        "{}\n{\"type\":\"a\",\"n\":\"b\\nc\",\"id\":\"f-00000003\"}\n",
    );
    check("type\n", "");
    check("", "");
    check(
        "id,type\n1,t\n2\n3,t,x\n4,t\n",
        "{\"id\":\"1\",\"type\":\"t\"}\n{\"id\":\"4\",\"type\":\"t\"}\n3: fields in the row: 1, in the header: 2\n4: fields in the row: 3, in the header: 2\n",
    );
    check(
        "id,type\n1,t\n2,\"t\n3,t\n",
        "{\"id\":\"1\",\"type\":\"t\"}\nx.csv:3: unterminated CSV quoted field: the quote that begins on line 3 is never closed; the rows before it were sent\n",
    );
}

/// Writes row groups of at most `group_rows` rows.
fn write_parquet(path: &Path, batch: &RecordBatch, group_rows: usize) {
    let properties =
        WriterProperties::builder().set_max_row_group_row_count(Some(group_rows)).build();
    let mut writer =
        ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(properties))
            .unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

fn bodies(path: &Path, start: u64) -> Vec<(String, usize, u64)> {
    let identity = InputIdentity::of_file(path).unwrap();
    let parts = RowFile::open(path).unwrap().parts(path, identity, start).unwrap();
    let parts = parts.map(Result::unwrap);
    parts
        .map(|part| (String::from_utf8(part.body).unwrap(), part.places.len(), part.next))
        .collect()
}

#[test]
fn a_row_is_the_object_of_its_columns() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.parquet");
    let object = StructArray::from(vec![(
        Arc::new(Field::new("class", DataType::Utf8, true)),
        Arc::new(StringArray::from(vec![Some("Cart"), None])) as ArrayRef,
    )]);
    let lists =
        ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), None]);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(StringArray::from(vec![Some("own\"id"), None]))),
        ("type", Arc::new(StringArray::from(vec!["a", "b"]))),
        (
            "ts",
            Arc::new(
                TimestampMicrosecondArray::from(vec![1_700_000_000_123_456, 0])
                    .with_timezone("UTC"),
            ),
        ),
        ("after", Arc::new(BinaryArray::from(vec![Some(b"{\"n\":\n1}".as_slice()), None]))),
        ("data", Arc::new(StringArray::from(vec!["{\"k\":\"\\n\"}", "not JSON"]))),
        ("do", Arc::new(object)),
        ("tags", Arc::new(lists)),
        ("lsn", Arc::new(Int64Array::from(vec![Some(i64::MAX), None]))),
        ("ratio", Arc::new(Float64Array::from(vec![0.5, f64::NAN]))),
        ("success", Arc::new(BooleanArray::from(vec![Some(true), None]))),
        (
            "price",
            Arc::new(
                Decimal128Array::from(vec![12_345, 1]).with_precision_and_scale(9, 2).unwrap(),
            ),
        ),
        ("blob", Arc::new(BinaryArray::from(vec![b"\x00\xff".as_slice(), b""]))),
        ("note", Arc::new(StringArray::from(vec!["{\"stays\":\"text\"}", "x"]))),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, array)| (name, array, true)),
    )
    .unwrap();
    write_parquet(&path, &batch, 10);
    let bodies = bodies(&path, 0);
    assert_eq!((bodies.len(), bodies[0].1, bodies[0].2), (1, 2, 2));
    expect![[r#"
        {"id":"own\"id","type":"a","ts":"2023-11-14T22:13:20.123456Z","after":{"n": 1},"data":{"k":"\n"},"do":{"class":"Cart"},"tags":[1,null],"lsn":9223372036854775807,"ratio":0.5,"success":true,"price":"123.45","blob":"AP8=","note":"{\"stays\":\"text\"}"}
        {"type":"b","ts":"1970-01-01T00:00:00Z","data":"not JSON","do":{"class":null},"ratio":"NaN","price":"0.01","blob":"","note":"x","id":"f-00000002"}
    "#]]
    .assert_eq(&without_hashes(&bodies[0].0));
}

#[test]
fn rows_are_the_same_from_any_border_and_parts_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("many.parquet");
    let rows = 12_000;
    let types: ArrayRef =
        Arc::new(StringArray::from_iter_values((0..rows).map(|n| format!("t{n}"))));
    let text: ArrayRef =
        Arc::new(StringArray::from_iter_values((0..rows).map(|n| format!("{n:02000}"))));
    let batch = RecordBatch::try_from_iter([("type", types), ("text", text)]).unwrap();
    write_parquet(&path, &batch, 1_000);
    let whole = bodies(&path, 0);
    assert_eq!(whole.iter().map(|(_, events, _)| events).sum::<usize>(), rows);
    assert_eq!(whole.last().unwrap().2, rows as u64);
    for (body, events, next) in &whole {
        assert!(*events <= 5_000 && body.len() < 5 << 20, "{events} events, {} bytes", body.len());
        let rest: String = bodies(&path, *next).into_iter().map(|(body, ..)| body).collect();
        let expected: String =
            whole.iter().filter(|part| next < &part.2).map(|part| &*part.0).collect();
        assert!(rest == expected, "what follows row {next} differs");
    }
    let lines: String = whole.into_iter().map(|(body, ..)| body).collect();
    for (n, line) in lines.lines().enumerate() {
        assert!(line.starts_with(&format!("{{\"type\":\"t{n}\",")), "{line:.100}");
        assert!(line.contains(&format!("-{:08x}-", n + 1)), "{n}");
    }
}

#[test]
fn a_file_that_is_no_parquet_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("no.parquet");
    std::fs::write(&path, "{}").unwrap();
    let problem = RowFile::open(&path).unwrap_err().to_string();
    assert!(problem.contains("no.parquet") && problem.contains("Parquet"), "{problem}");
}

#[test]
fn a_file_without_rows_has_no_parts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("empty.parquet");
    let numbers: ArrayRef = Arc::new(UInt8Array::from(Vec::<u8>::new()));
    write_parquet(&path, &RecordBatch::try_from_iter([("n", numbers)]).unwrap(), 1);
    assert!(bodies(&path, 0).is_empty());
}
