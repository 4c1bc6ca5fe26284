use super::{
    BODY_BYTES_MAX, FromWorker, HEAD_BYTES_MAX, PIECE_BYTES, ToWorker, batch_bytes, batch_of,
    bytes_of, json_of, pieces, read_frame, receive_frame, schema_bytes, schema_of, send_frame,
    write_frame,
};
use arrow::{
    array::{ArrayRef, DictionaryArray, Int64Array, StringArray, StringViewArray},
    datatypes::{DataType, Field, Int32Type, Schema},
    ipc::{
        CompressionType, root_as_message,
        writer::{IpcWriteOptions, StreamWriter},
    },
    record_batch::{RecordBatch, RecordBatchOptions},
};
use icecore_catalog::storage::remote::FileCall;
use std::{io::ErrorKind, sync::Arc};

fn batch() -> RecordBatch {
    let kinds: DictionaryArray<Int32Type> = ["a", "b", "a"].into_iter().collect();
    let columns: [(&str, ArrayRef); 4] = [
        ("n", Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]))),
        ("t", Arc::new(StringArray::from(vec!["x", "", "zz"]))),
        ("v", Arc::new(StringViewArray::from(vec!["a text that is longer than a view", "", "b"]))),
        ("d", Arc::new(kinds)),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

#[tokio::test]
async fn both_ways_of_writing_are_read_both_ways() {
    let call = FileCall::Range(3..8);
    let head = FromWorker::File { id: 7, location: "file:///w/t/é.parquet".to_owned(), call };
    let mut bytes = Vec::new();
    write_frame(&mut bytes, &head, b"body").unwrap();
    let end = FromWorker::End { bytes_read: 1, is_idle: true };
    send_frame(&mut bytes, &end, b"").await.unwrap();

    let mut from = bytes.as_slice();
    let (first, body) = read_frame::<FromWorker>(&mut from).unwrap().unwrap();
    assert_eq!((format!("{first:?}"), body.as_ref()), (format!("{head:?}"), b"body".as_slice()));
    let (second, body) = receive_frame::<FromWorker>(&mut from).await.unwrap().unwrap();
    assert!(matches!(second, FromWorker::End { bytes_read: 1, is_idle: true }) && body.is_empty());
    assert!(read_frame::<FromWorker>(&mut from).unwrap().is_none());
    assert!(receive_frame::<FromWorker>(&mut from).await.unwrap().is_none());
}

/// The error of reading `bytes` as a frame, both ways.
async fn refused(bytes: &[u8]) -> ErrorKind {
    let kind = read_frame::<ToWorker>(&mut &*bytes).unwrap_err().kind();
    assert_eq!(receive_frame::<ToWorker>(&mut &*bytes).await.unwrap_err().kind(), kind);
    kind
}

#[tokio::test]
async fn what_is_no_frame_is_refused_before_memory_is_taken_for_it() {
    let lengths = |head: usize, body: usize| {
        let length = |bytes: usize| u32::try_from(bytes).unwrap().to_le_bytes();
        [length(head), length(body)].concat()
    };
    assert_eq!(refused(&lengths(HEAD_BYTES_MAX + 1, 0)).await, ErrorKind::InvalidData);
    assert_eq!(refused(&lengths(2, BODY_BYTES_MAX + 1)).await, ErrorKind::InvalidData);
    assert_eq!(refused(&lengths(9, 0)).await, ErrorKind::UnexpectedEof);
    let unknown = [lengths(2, 0), b"{}".to_vec()].concat();
    assert_eq!(refused(&unknown).await, ErrorKind::InvalidData);
}

#[test]
fn a_value_that_is_too_long_for_a_body_is_refused() {
    let value = ["some", "texts"];
    assert_eq!(json_of(&value, 16).unwrap(), br#"["some","texts"]"#);
    assert_eq!(json_of(&value, 15).unwrap_err().kind(), ErrorKind::FileTooLarge);
}

#[test]
fn rows_and_columns_come_back_as_they_were() {
    let batch = batch();
    assert_eq!(batch_of(&batch_bytes(&batch).unwrap()).unwrap(), batch);
    assert_eq!(schema_of(&schema_bytes(&batch.schema()).unwrap()).unwrap(), batch.schema());
    // Rows without a column are counted all the same.
    let options = RecordBatchOptions::new().with_row_count(Some(5));
    let empty = Arc::new(Schema::empty());
    let rows = RecordBatch::try_new_with_options(empty, Vec::new(), &options).unwrap();
    assert_eq!(batch_of(&batch_bytes(&rows).unwrap()).unwrap().num_rows(), 5);
}

#[test]
fn bytes_that_are_no_rows_are_an_error() {
    let whole = batch_bytes(&batch()).unwrap();
    assert!(batch_of(&[]).is_err() && batch_of(b"no rows at all, just a text").is_err());
    assert!(batch_of(&schema_bytes(&batch().schema()).unwrap()).is_err());
    assert!(batch_of(&whole[..whole.len() / 2]).is_err());
}

/// The stream with another length of its rows than they have.
fn with_body_length(stream: &[u8], length: i64) -> Vec<u8> {
    let length_at = |at: usize| {
        let bytes = stream[at..at + 4].try_into().unwrap();
        usize::try_from(u32::from_le_bytes(bytes)).unwrap()
    };
    // The first message has the columns, and no body.
    let rows = 8 + length_at(4) + 8;
    let head = &stream[rows..rows + length_at(rows - 4)];
    let told = root_as_message(head).unwrap().bodyLength().to_le_bytes();
    let at = rows + head.windows(8).position(|bytes| bytes == told).unwrap();
    [&stream[..at], &length.to_le_bytes(), &stream[at + 8..]].concat()
}

#[test]
fn a_stream_that_lies_about_its_lengths_takes_no_memory() {
    let n: ArrayRef = Arc::new(Int64Array::from(vec![7; 1_001]));
    let batch = RecordBatch::try_from_iter([("n", n)]).unwrap();
    let whole = batch_bytes(&batch).unwrap();
    // More than any machine has, where the process would end.
    for length in [1 << 45, i64::MAX, -1] {
        assert!(batch_of(&with_body_length(&whole, length)).is_err(), "{length}");
    }
    let options = IpcWriteOptions::default();
    let options = options.try_with_compression(Some(CompressionType::ZSTD)).unwrap();
    let schema = batch.schema();
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), &schema, options).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    let compressed = writer.into_inner().unwrap();
    // Its lengths are those of what comes out.
    assert!(batch_of(&compressed).unwrap_err().to_string().contains("compressed"));
}

#[test]
fn a_large_batch_goes_in_pieces_and_each_row_once() {
    let text = "x".repeat(PIECE_BYTES / 4);
    let texts: Vec<String> = (0..10).map(|row| format!("{row}{text}")).collect();
    let schema = Arc::new(Schema::new(vec![Field::new("t", DataType::Utf8, false)]));
    let column: ArrayRef = Arc::new(StringArray::from(texts));
    let whole = RecordBatch::try_new(schema, vec![column]).unwrap();
    let parts = pieces(whole.clone());
    assert!(2 < parts.len() && parts.iter().all(|part| bytes_of(part) <= PIECE_BYTES));
    // A piece is written without the bytes of the others.
    assert!(batch_bytes(&parts[0]).unwrap().len() < 2 * PIECE_BYTES);
    assert_eq!(arrow::compute::concat_batches(&whole.schema(), &parts).unwrap(), whole);
    assert_eq!(pieces(batch()), vec![batch()]);
}
