use crate::cli::ingest::{next_batch, open, push_with_id, rows::RowFile};
use arrow::{
    array::{
        ArrayRef, BinaryArray, BooleanArray, Decimal128Array, Float64Array, Int64Array, ListArray,
        StringArray, StructArray, TimestampMicrosecondArray, UInt8Array,
    },
    datatypes::{DataType, Field, Int64Type},
    record_batch::RecordBatch,
};
use expect_test::expect;
use parquet::{arrow::ArrowWriter, file::properties::WriterProperties};
use std::{fs::File, path::Path, sync::Arc};

#[test]
fn an_event_without_an_id_gets_one_and_others_stay_as_they_are() {
    let check = |event: &str, expected: &str| {
        let mut body = Vec::new();
        push_with_id(&mut body, event.as_bytes(), || "f-1".to_owned());
        assert_eq!(String::from_utf8(body).unwrap(), format!("{expected}\n"));
    };
    check(r#"{"type":"a"}"#, r#"{"id":"f-1","type":"a"}"#);
    check("{}", r#"{"id":"f-1"}"#);
    check(r#"{"id":"x","type":"a"}"#, r#"{"id":"x","type":"a"}"#);
    check(r#"{"events":[{}]}"#, r#"{"events":[{}]}"#);
    check(r#"{"type":"#, r#"{"type":"#);
    check("[1]", "[1]");
}

#[test]
fn the_same_file_gives_the_same_bodies_from_any_batch_border() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.ndjson");
    let text: String = (0..12_000).map(|n| format!("{{\"type\":\"t\",\"n\":{n}}}\n\n")).collect();
    std::fs::write(&path, text).unwrap();
    let read_from = |start: u64| {
        let (mut reader, _, identity) = open(&path).unwrap();
        reader.seek_to(start).unwrap();
        next_batch(&mut reader, &identity, start).unwrap()
    };
    let (first, events, border) = read_from(0);
    assert_eq!(events, 5_000);
    assert_eq!(read_from(0).0, first);
    let (second, _, _) = read_from(border);
    let (mut reader, _, identity) = open(&path).unwrap();
    next_batch(&mut reader, &identity, 0).unwrap();
    assert_eq!(next_batch(&mut reader, &identity, border).unwrap().0, second);
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
    let parts = RowFile::open(path).unwrap().parts(path, start).unwrap().map(Result::unwrap);
    parts.map(|part| (String::from_utf8(part.body).unwrap(), part.events, part.next)).collect()
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
    let identity = RowFile::open(&path).unwrap().identity;
    let bodies = bodies(&path, 0);
    assert_eq!((bodies.len(), bodies[0].1, bodies[0].2), (1, 2, 2));
    expect![[r#"
        {"id":"own\"id","type":"a","ts":"2023-11-14T22:13:20.123456Z","after":{"n": 1},"data":{"k":"\n"},"do":{"class":"Cart"},"tags":[1,null],"lsn":9223372036854775807,"ratio":0.5,"success":true,"price":"123.45","blob":"AP8=","note":"{\"stays\":\"text\"}"}
        {"id":"IDENTITY-000000000001","type":"b","ts":"1970-01-01T00:00:00Z","data":"not JSON","do":{"class":null},"ratio":null,"price":"0.01","blob":"","note":"x"}
    "#]]
    .assert_eq(&bodies[0].0.replace(&identity, "IDENTITY"));
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
        assert!(line.contains(&format!("-{n:012x}\",\"type\":\"t{n}\",")), "{line:.100}");
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
