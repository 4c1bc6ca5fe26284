use super::*;
use arrow::{
    array::{
        Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray,
        Float64Array, Int32Array, Int64Array, IntervalMonthDayNanoArray, ListArray, NullArray,
        StringArray, StringViewArray, StructArray, TimestampMicrosecondArray, TimestampSecondArray,
    },
    buffer::OffsetBuffer,
    compute::concat_batches,
    datatypes::{Int32Type, Int64Type, IntervalMonthDayNano, Schema},
    ipc::reader::StreamReader,
};
use expect_test::{Expect, expect};
use parquet::{
    arrow::arrow_reader::ParquetRecordBatchReaderBuilder,
    basic::{Compression, ZstdLevel},
};
use std::{io::Cursor, sync::Arc};

fn sample() -> RecordBatch {
    let list = ListArray::from_iter_primitive::<Int64Type, _, _>([
        Some(vec![Some(1), None, Some(3)]),
        None,
    ]);
    let object = StructArray::from(vec![(
        Arc::new(Field::new("a b", DataType::Utf8, true)),
        Arc::new(StringArray::from(vec![Some("x\"y"), None])) as ArrayRef,
    )]);
    RecordBatch::try_from_iter_with_nullable(vec![
        (
            "text",
            Arc::new(StringViewArray::from(vec![Some("a,\"b\"\n"), Some("")])) as ArrayRef,
            true,
        ),
        ("big", Arc::new(Int64Array::from(vec![Some(i64::MAX), None])), true),
        ("small", Arc::new(Int32Array::from(vec![-1, 2])), false),
        ("real", Arc::new(Float64Array::from(vec![0.1, f64::NAN])), false),
        ("yes", Arc::new(BooleanArray::from(vec![true, false])), false),
        (
            "ts",
            Arc::new(
                TimestampMicrosecondArray::from(vec![1_700_000_000_123_456, -1])
                    .with_timezone("+00:00"),
            ),
            false,
        ),
        ("second", Arc::new(TimestampSecondArray::from(vec![0, 1])), false),
        ("day", Arc::new(Date32Array::from(vec![0, -1])), false),
        (
            "money",
            Arc::new(
                Decimal128Array::from(vec![12_345, -5]).with_precision_and_scale(10, 2).unwrap(),
            ),
            false,
        ),
        ("bin", Arc::new(BinaryArray::from(vec![b"\x00\xffA".as_slice(), b"a"])), false),
        ("list", Arc::new(list), true),
        ("object", Arc::new(object), true),
        ("word", Arc::new(["w", "w"].into_iter().collect::<DictionaryArray<Int32Type>>()), false),
    ])
    .unwrap()
}

fn answer(batches: Vec<Result<RecordBatch, SqlError>>) -> QueryAnswer {
    let schema = batches
        .iter()
        .find_map(|batch| batch.as_ref().ok().map(RecordBatch::schema))
        .unwrap_or_else(|| Arc::new(Schema::empty()));
    let basis = Some(QueryBasis::default());
    QueryAnswer { schema, batches: stream::iter(batches).boxed(), snapshot: Some(42), basis }
}

/// The body, and what the query failed with after its first rows.
async fn pieces(
    answer: QueryAnswer,
    format: OutputFormat,
    errors: ErrorPlace,
) -> Result<(Vec<u8>, Option<SqlError>), SqlError> {
    let pieces = encode(answer, format, errors, || Duration::from_millis(7)).await?;
    let (mut body, mut failed) = (Vec::new(), None);
    for piece in pieces.collect::<Vec<AnswerPiece>>().await {
        assert!(failed.is_none(), "nothing follows an error");
        match piece {
            AnswerPiece::Bytes(bytes) => body.extend_from_slice(&bytes),
            AnswerPiece::Failed(error) => failed = Some(error),
        }
    }
    Ok((body, failed))
}

async fn encoded(answer: QueryAnswer, format: OutputFormat) -> Result<Vec<u8>, SqlError> {
    let (body, failed) = pieces(answer, format, ErrorPlace::Body).await?;
    failed.map_or(Ok(body), Err)
}

async fn check_text(format: OutputFormat, expected: Expect) {
    let bytes = encoded(answer(vec![Ok(sample())]), format).await.unwrap();
    expected.assert_eq(&String::from_utf8(bytes).unwrap());
}

#[tokio::test]
async fn json_has_columns_rows_and_totals() {
    check_text(OutputFormat::Json, expect![[r#"
        {"columns":[{"name":"text","type":"varchar"},{"name":"big","type":"bigint"},{"name":"small","type":"integer"},{"name":"real","type":"double"},{"name":"yes","type":"boolean"},{"name":"ts","type":"timestamptz"},{"name":"second","type":"timestamp"},{"name":"day","type":"date"},{"name":"money","type":"decimal(10,2)"},{"name":"bin","type":"varbinary"},{"name":"list","type":"bigint[]"},{"name":"object","type":"struct"},{"name":"word","type":"varchar"}],"rows":[
        ["a,\"b\"\n",9223372036854775807,-1,0.1,true,"2023-11-14T22:13:20.123456Z","1970-01-01T00:00:00Z","1970-01-01","123.45","AP9B",[1,null,3],{"a b":"x\"y"},"w"],
        ["",null,2,null,false,"1969-12-31T23:59:59.999999Z","1970-01-01T00:00:01Z","1969-12-31","-0.05","YQ==",null,{"a b":null},"w"]],"rowCount":2,"elapsedMs":7,"snapshot":42,"snapshot_str":"42","basis":{"snapshots":{},"clock":""}}
    "#]]).await;
}

#[tokio::test]
async fn json_is_valid_json_whatever_the_number_of_batches() {
    for batches in [vec![], vec![Ok(sample())], vec![Ok(sample()), Ok(sample())]] {
        let rows = 2 * batches.len();
        let bytes = encoded(answer(batches), OutputFormat::Json).await.unwrap();
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(value["rows"].as_array().unwrap().len(), rows);
        assert_eq!(value["rowCount"], rows);
        assert_eq!(value["snapshot"], 42);
        assert_eq!(value["elapsedMs"], 7);
    }
}

#[tokio::test]
async fn ndjson_has_an_object_a_row() {
    check_text(OutputFormat::Ndjson, expect![[r#"
        {"text":"a,\"b\"\n","big":9223372036854775807,"small":-1,"real":0.1,"yes":true,"ts":"2023-11-14T22:13:20.123456Z","second":"1970-01-01T00:00:00Z","day":"1970-01-01","money":"123.45","bin":"AP9B","list":[1,null,3],"object":{"a b":"x\"y"},"word":"w"}
        {"text":"","big":null,"small":2,"real":null,"yes":false,"ts":"1969-12-31T23:59:59.999999Z","second":"1970-01-01T00:00:01Z","day":"1969-12-31","money":"-0.05","bin":"YQ==","list":null,"object":{"a b":null},"word":"w"}
    "#]]).await;
}

#[tokio::test]
async fn csv_has_a_header_and_quotes_what_needs_it() {
    check_text(OutputFormat::Csv, expect![[r#"
        text,big,small,real,yes,ts,second,day,money,bin,list,object,word
        "a,""b""
        ",9223372036854775807,-1,0.1,true,2023-11-14T22:13:20.123456Z,1970-01-01T00:00:00Z,1970-01-01,123.45,AP9B,"[1,null,3]","{""a b"":""x\""y""}",w
        "",,2,,false,1969-12-31T23:59:59.999999Z,1970-01-01T00:00:01Z,1969-12-31,-0.05,YQ==,,"{""a b"":null}",w
    "#]]).await;
}

#[tokio::test]
async fn an_arrow_stream_reads_back() {
    let bytes =
        encoded(answer(vec![Ok(sample()), Ok(sample())]), OutputFormat::ArrowStream).await.unwrap();
    let read: Vec<_> =
        StreamReader::try_new(Cursor::new(bytes), None).unwrap().map(Result::unwrap).collect();
    assert_eq!(read, [sample(), sample()]);
}

const FORMATS: [OutputFormat; 5] = [
    OutputFormat::Json,
    OutputFormat::Ndjson,
    OutputFormat::Csv,
    OutputFormat::ArrowStream,
    OutputFormat::Parquet,
];

#[tokio::test]
async fn an_error_before_the_first_rows_is_no_answer() {
    let nothing = || RecordBatch::new_empty(sample().schema());
    for format in FORMATS {
        let broken = answer(vec![Ok(nothing()), Err(SqlError::Limit("too long".to_owned()))]);
        let error = pieces(broken, format, ErrorPlace::Body).await.unwrap_err();
        assert_eq!(error.to_string(), "too long", "{format:?}");
    }
}

#[tokio::test]
async fn an_error_after_the_first_rows_ends_the_answer() {
    let broken = || answer(vec![Ok(sample()), Err(SqlError::Limit("too \"long\"".to_owned()))]);
    let told = async |format, errors| {
        let (body, failed) = pieces(broken(), format, errors).await.unwrap();
        assert_eq!(failed.unwrap().to_string(), "too \"long\"", "{format:?}");
        String::from_utf8_lossy(&body).into_owned()
    };
    let json = told(OutputFormat::Json, ErrorPlace::Body).await;
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["error"], "too \"long\"");
    assert_eq!(value["code"], "QUERY_LIMIT");
    assert_eq!((&value["rowCount"], value["rows"].as_array().unwrap().len()), (&2.into(), 2));
    assert_eq!(told(OutputFormat::Json, ErrorPlace::Trailer).await, json);
    let lines = told(OutputFormat::Ndjson, ErrorPlace::Body).await;
    let last = r#" {"error":"too \"long\"","code":"QUERY_LIMIT"}"#;
    assert_eq!((lines.lines().last().unwrap(), lines.lines().count()), (last, 3));
    let lines = told(OutputFormat::Ndjson, ErrorPlace::Trailer).await;
    assert_eq!(lines.lines().count(), 2, "with a trailer there are only rows");
    let whole = encoded(answer(vec![Ok(sample())]), OutputFormat::ArrowStream).await.unwrap();
    let broken_off = told(OutputFormat::ArrowStream, ErrorPlace::Body).await;
    assert!(broken_off.len() < String::from_utf8_lossy(&whole).len());
    assert!(!told(OutputFormat::Csv, ErrorPlace::Body).await.contains("too"));
}

#[tokio::test]
async fn parquet_waits_for_its_first_row_group() {
    let broken = answer(vec![Ok(sample()), Err(SqlError::Limit("too long".to_owned()))]);
    let error = pieces(broken, OutputFormat::Parquet, ErrorPlace::Body).await.unwrap_err();
    assert_eq!(error.to_string(), "too long");
}

#[tokio::test]
async fn the_first_rows_of_every_format_come_before_the_last_are_there() {
    // As many rows as a row group of Parquet has.
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..131_072));
    let batch = RecordBatch::try_from_iter([("n", numbers)]).unwrap();
    for format in [
        OutputFormat::Json,
        OutputFormat::Ndjson,
        OutputFormat::Csv,
        OutputFormat::ArrowStream,
        OutputFormat::Parquet,
    ] {
        let batches = stream::iter([Ok(batch.clone())]).chain(stream::pending()).boxed();
        let answer = QueryAnswer { schema: batch.schema(), batches, snapshot: None, basis: None };
        let mut pieces = encode(answer, format, ErrorPlace::Body, || Duration::ZERO).await.unwrap();
        let Some(AnswerPiece::Bytes(bytes)) = pieces.next().await else { unreachable!() };
        assert!(1_000 < bytes.len(), "{format:?}: {} bytes", bytes.len());
    }
}

fn read_parquet(bytes: Vec<u8>) -> ParquetRecordBatchReaderBuilder<Bytes> {
    ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes)).unwrap()
}

#[tokio::test]
async fn a_parquet_file_reads_back() {
    let bytes =
        encoded(answer(vec![Ok(sample()), Ok(sample())]), OutputFormat::Parquet).await.unwrap();
    let file = read_parquet(bytes);
    assert_eq!(
        file.metadata().row_group(0).column(0).compression(),
        Compression::ZSTD(ZstdLevel::try_new(1).unwrap())
    );
    let rows: Vec<_> = file.build().unwrap().map(Result::unwrap).collect();
    let expected = concat_batches(&sample().schema(), [&sample(), &sample()]).unwrap();
    // A map from words to numbers is built anew, so values are compared as they are written.
    let text = |batch: &RecordBatch| {
        let mut out = Vec::new();
        let cells = CellWriter::new(batch).unwrap();
        (0..batch.num_rows()).for_each(|row| cells.write_json_object(&mut out, row));
        String::from_utf8(out).unwrap()
    };
    assert_eq!(rows.iter().map(text).collect::<String>(), text(&expected));
    let empty = encoded(
        QueryAnswer {
            schema: sample().schema(),
            batches: stream::empty().boxed(),
            snapshot: None,
            basis: Some(QueryBasis::default()),
        },
        OutputFormat::Parquet,
    );
    assert_eq!(read_parquet(empty.await.unwrap()).metadata().file_metadata().num_rows(), 0);
}

#[tokio::test]
async fn parquet_row_groups_are_bounded_and_sent_when_full() {
    // Rows that do not compress: 64 a KiB, 48 MiB in all.
    let mut state = 1_u64;
    let mut noise = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 16
    };
    let mut large = || {
        let texts: Vec<String> = (0..256)
            .map(|_| (0..8192).map(|_| char::from((noise() % 94) as u8 + 33)).collect())
            .collect();
        let array: ArrayRef = Arc::new(StringArray::from(texts));
        RecordBatch::try_from_iter([("text", array)]).unwrap()
    };
    let batches: Vec<_> = (0..24).map(|_| Ok(large())).collect();
    let pieces =
        encode(answer(batches), OutputFormat::Parquet, ErrorPlace::Body, || Duration::ZERO);
    let pieces = pieces.await.unwrap().map(|piece| match piece {
        AnswerPiece::Bytes(bytes) => bytes,
        AnswerPiece::Failed(error) => unreachable!("{error}"),
    });
    let chunks: Vec<Bytes> = pieces.collect().await;
    assert!(2 < chunks.len(), "{} chunks", chunks.len());
    let metadata = Arc::clone(read_parquet(chunks.concat()).metadata());
    assert_eq!(metadata.file_metadata().num_rows(), 24 * 256);
    for group in metadata.row_groups() {
        assert!(group.total_byte_size() < 24 << 20, "{} bytes", group.total_byte_size());
    }

    let numbers = || {
        let array: ArrayRef = Arc::new(Int64Array::from_iter_values(0..100_000));
        RecordBatch::try_from_iter([("n", array)]).unwrap()
    };
    let bytes =
        encoded(answer(vec![Ok(numbers()), Ok(numbers())]), OutputFormat::Parquet).await.unwrap();
    let file = read_parquet(bytes);
    let rows: Vec<i64> =
        file.metadata().row_groups().iter().map(|group| group.num_rows()).collect();
    assert_eq!(rows, [131_072, 68_928]);
}

#[tokio::test]
async fn a_type_that_parquet_does_not_have_is_refused_before_the_first_byte() {
    let array: ArrayRef =
        Arc::new(IntervalMonthDayNanoArray::from(vec![Some(IntervalMonthDayNano::new(1, 2, 3))]));
    let batch = RecordBatch::try_from_iter([("lag", array)]).unwrap();
    let error = encoded(answer(vec![Ok(batch)]), OutputFormat::Parquet).await.unwrap_err();
    assert!(
        matches!(&error, SqlError::Invalid(text) if text.contains("CAST(lag AS VARCHAR)")),
        "{error}"
    );
}

#[tokio::test]
async fn columns_of_one_name_are_refused_where_a_reader_would_lose_one() {
    let field = |name| Field::new(name, DataType::Int64, false);
    let schema = Arc::new(Schema::new(vec![field("id"), field("n"), field("id")]));
    for (format, is_refused) in [
        (OutputFormat::Json, false),
        (OutputFormat::Ndjson, true),
        (OutputFormat::Csv, false),
        (OutputFormat::ArrowStream, false),
        (OutputFormat::Parquet, true),
    ] {
        let batches = stream::empty().boxed();
        let (schema, basis) = (Arc::clone(&schema), Some(QueryBasis::default()));
        let answer = QueryAnswer { schema, batches, snapshot: None, basis };
        let answer = encoded(answer, format).await;
        assert_eq!(answer.is_err(), is_refused, "{format:?}");
        if let Err(error) = answer {
            assert!(error.to_string().contains("called `id`"), "{error}");
        }
    }
}

#[tokio::test]
async fn text_that_is_larger_than_its_batch_is_written_in_pieces_and_has_an_end() {
    // A row for each number, of so many objects with a long name.
    let lists = |lengths: Vec<usize>| {
        let nulls = Arc::new(NullArray::new(lengths.iter().sum())) as ArrayRef;
        let member = Arc::new(Field::new("n".repeat(1 << 20), DataType::Null, true));
        let object = StructArray::from(vec![(member, nulls)]);
        let item = Arc::new(Field::new("item", object.data_type().clone(), true));
        let offsets = OffsetBuffer::from_lengths(lengths);
        let list = ListArray::new(item, offsets, Arc::new(object), None);
        RecordBatch::try_from_iter([("l", Arc::new(list) as ArrayRef)]).unwrap()
    };
    let large = answer(vec![Ok(lists(vec![2; 20]))]);
    let written = encode(large, OutputFormat::Json, ErrorPlace::Body, || Duration::ZERO).await;
    let written: Vec<AnswerPiece> = written.unwrap().collect().await;
    let length = |piece: &AnswerPiece| match piece {
        AnswerPiece::Bytes(bytes) => bytes.len(),
        AnswerPiece::Failed(error) => panic!("{error}"),
    };
    let lengths: Vec<usize> = written.iter().map(length).collect();
    assert!(lengths.len() == 4 && lengths.iter().all(|bytes| *bytes < 20 << 20), "{lengths:?}");
    assert!(40 << 20 < lengths.iter().sum::<usize>(), "no row is left out: {lengths:?}");
    for (lengths, expected) in [(vec![1_000], None), (vec![1, 1_000], Some(1 << 20))] {
        let endless = answer(vec![Ok(lists(lengths))]);
        let ended = pieces(endless, OutputFormat::Ndjson, ErrorPlace::Trailer).await;
        let (bytes, error) = match ended {
            Ok((body, failed)) => (Some((body.len() >> 20) << 20), failed.unwrap()),
            Err(error) => (None, error),
        };
        assert_eq!(bytes, expected, "rows before it are answered: {error}");
        assert!(error.to_string().contains("more than 256 MiB of text"), "{error}");
    }
}

#[test]
fn accept_names_the_format() {
    let check = |accept: &str, expected| {
        assert_eq!(OutputFormat::from_accept(accept), expected, "{accept}")
    };
    check("", Some(OutputFormat::Json));
    check("*/*", Some(OutputFormat::Json));
    check("application/json; charset=utf-8", Some(OutputFormat::Json));
    check("application/x-ndjson", Some(OutputFormat::Ndjson));
    check("image/png, Text/CSV;q=0.5", Some(OutputFormat::Csv));
    check("application/vnd.apache.arrow.stream", Some(OutputFormat::ArrowStream));
    check("application/vnd.apache.parquet", Some(OutputFormat::Parquet));
    check("image/png", None);
}

#[test]
fn base64_pads_the_last_group() {
    for (bytes, expected) in
        [("", ""), ("a", "YQ=="), ("ab", "YWI="), ("abc", "YWJj"), ("abcd", "YWJjZA==")]
    {
        let array: ArrayRef = Arc::new(BinaryArray::from(vec![bytes.as_bytes()]));
        let batch = RecordBatch::try_from_iter([("b", array)]).unwrap();
        let mut out = Vec::new();
        CellWriter::new(&batch).unwrap().write_json_values(&mut out, 0);
        assert_eq!(String::from_utf8(out).unwrap(), format!("\"{expected}\""));
    }
}
