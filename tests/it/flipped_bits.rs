//! A bit that flips in a data file fails the query that reads it; it is never another value.

use crate::harness::{TestServer, events, files_below};
use bytes::Bytes;
use parquet::file::metadata::ParquetMetaDataReader;
use serde_json::{Value, json};
use std::{fs, ops::Range};

const EVERYTHING: &str = "SELECT * FROM events ORDER BY seq";
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Columns whose one value the manifest has, so that their pages are not read.
const KNOWN: [&str; 2] = ["type", "ns"];

/// Where the columns of a file are that are not known.
fn unknown_columns(bytes: &[u8]) -> Vec<Range<usize>> {
    let file = Bytes::copy_from_slice(bytes);
    let footer = ParquetMetaDataReader::new().parse_and_finish(&file).unwrap();
    let columns = footer.row_groups().iter().flat_map(|group| group.columns());
    let unknown = columns.filter(|column| !KNOWN.contains(&column.column_path().string().as_str()));
    let place = |at: u64| usize::try_from(at).unwrap();
    unknown
        .map(|column| {
            let (start, length) = column.byte_range();
            place(start)..place(start + length)
        })
        .collect()
}

/// The compressed pages of a file.
fn frames(bytes: &[u8]) -> Vec<Range<usize>> {
    let starts = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(&ZSTD_MAGIC));
    let whole = starts.filter_map(|at| {
        let length = zstd::zstd_safe::find_frame_compressed_size(&bytes[at..]).ok()?;
        Some(at..at + length)
    });
    whole.collect()
}

/// What SQL says, if it is no error: the answer may be refused, or have begun and break off.
async fn answer(server: &TestServer) -> Option<Value> {
    let asked = server.http.post(format!("{}/v1/shop.example/sql", server.url));
    let asked = asked.header("content-type", "application/json");
    let response = asked.body(json!({ "sql": EVERYTHING }).to_string()).send().await.ok()?;
    let is_done = response.status() == 200;
    let answer: Value = serde_json::from_slice(&response.bytes().await.ok()?).ok()?;
    (is_done && answer["error"].is_null()).then_some(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_over_a_flipped_bit_fails() {
    let server = TestServer::start().await;
    // At several times, so that more columns have several values: those of one value are not read at all.
    for n in 0..4 {
        let (status, reply) = server.ingest(&events(n * 30..n * 30 + 30)).await;
        assert_eq!(status, 200, "{reply}");
    }
    server.commit("shop.example").await;
    let whole = server.rows("shop.example", EVERYTHING).await;
    let files = files_below(&server.folder.path().join("warehouse"), ".parquet");
    assert_eq!(files.len(), 2, "{files:?}");

    assert!(answer(&server).await.is_some());
    let (mut noticed, mut unread) = (0, 0);
    for file in files {
        let bytes = fs::read(&file).unwrap();
        let frames = frames(&bytes);
        assert!(8 < frames.len(), "{frames:?}");
        let columns = unknown_columns(&bytes);
        let is_unknown =
            |frame: &Range<usize>| columns.iter().any(|column| column.contains(&frame.start));
        for frame in frames.into_iter().filter(is_unknown) {
            let mut errors = 0;
            // After magic number and frame header, in the middle, and in the checksum.
            for at in [frame.start + 9, frame.start.midpoint(frame.end) + 2, frame.end - 1] {
                let mut flipped = bytes.clone();
                flipped[at] ^= 0x04;
                fs::write(&file, flipped).unwrap();
                match answer(&server).await {
                    Some(answer) => assert_eq!(answer["rows"], whole, "byte {at}"),
                    None => errors += 1,
                }
            }
            // A column of one value is known from the footer, and its page is not read. Of a page
            // that is read, some bits of the frame mean nothing: the page is the same without them.
            match errors {
                0 => unread += 1,
                _ => noticed += 1,
            }
        }
        fs::write(&file, bytes).unwrap();
    }
    assert!(6 < noticed && unread <= noticed / 2, "{noticed} noticed, {unread} not read");
    assert_eq!(server.rows("shop.example", EVERYTHING).await, whole);
    server.stop().await;
}
