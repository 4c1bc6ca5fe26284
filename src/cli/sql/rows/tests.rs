use super::*;
use arrow::{
    array::{ArrayRef, Int64Array, StringArray, TimestampMicrosecondArray},
    ipc::writer::StreamWriter,
};
use std::sync::Arc;

fn numbers(range: std::ops::Range<i64>) -> RecordBatch {
    let array: ArrayRef = Arc::new(Int64Array::from_iter_values(range));
    RecordBatch::try_from_iter([("n", array)]).unwrap()
}

fn stream(batches: &[RecordBatch]) -> Vec<u8> {
    let mut writer = StreamWriter::try_new(Vec::new(), &batches[0].schema()).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.finish().unwrap();
    writer.into_inner().unwrap()
}

/// The stream comes in pieces of so many bytes.
fn read(stream: &[u8], piece: usize) -> Result<ShownRows, CliError> {
    let mut reader = RowReader::new(ROWS_SHOWN_MAX);
    for bytes in stream.chunks(piece) {
        reader.push(Bytes::copy_from_slice(bytes))?;
    }
    reader.finish()
}

#[test]
fn the_first_and_the_last_rows_of_a_long_answer_are_kept() {
    let check = |batches: &[RecordBatch], first: usize, last: usize, left_out: usize| {
        let stream = stream(batches);
        for piece in [7, stream.len()] {
            let rows = read(&stream, piece).unwrap();
            let found = (rows.first.len(), rows.last.len(), rows.left_out());
            assert_eq!(found, (first, last, left_out), "in pieces of {piece}");
            let ends = rows.first.first().zip(rows.last.back().or(rows.first.last()));
            let expected = (vec!["0".to_owned()], vec![(rows.count - 1).to_string()]);
            assert_eq!(ends, Some((&expected.0, &expected.1)));
        }
    };
    check(&[numbers(0..3)], 3, 0, 0);
    check(&[numbers(0..40)], 20, 20, 0);
    check(&[numbers(0..15), numbers(15..30), numbers(30..41)], 20, 20, 1);
    check(&[numbers(0..10_000)], 20, 20, 9_960);
    check(&[numbers(0..1_000), numbers(1_000..1_005)], 20, 20, 965);
}

#[test]
fn values_are_texts_that_a_terminal_shows() {
    let text: ArrayRef = Arc::new(StringArray::from(vec![Some("\u{1b}[2J"), None]));
    let time = TimestampMicrosecondArray::from(vec![0, 1]).with_timezone("+00:00");
    let batch = RecordBatch::try_from_iter_with_nullable([
        ("text\n", text, true),
        ("ts", Arc::new(time) as ArrayRef, false),
        ("n", Arc::new(Int64Array::from(vec![Some(-7), None])) as ArrayRef, true),
    ]);
    let rows = read(&stream(&[batch.unwrap()]), 64).unwrap();
    let column = |name: &str, kind: &str, is_number| ShownColumn {
        name: name.to_owned(),
        kind: kind.to_owned(),
        is_number,
    };
    let expected = [
        column("text\\n", "varchar", false),
        column("ts", "timestamptz", false),
        column("n", "bigint", true),
    ];
    assert_eq!(rows.columns, expected);
    assert_eq!(rows.first[0], ["\\u{1b}[2J", "1970-01-01T00:00:00Z", "-7"]);
    assert_eq!(rows.first[1], ["NULL", "1970-01-01T00:00:00.000001Z", "NULL"]);
}

#[test]
fn a_stream_that_breaks_off_is_an_error() {
    let whole = stream(&[numbers(0..3)]);
    assert!(matches!(read(&whole[..whole.len() - 40], 16), Err(CliError::Arrow(_))));
}
