//! Look-ups of single events: bloom filters leave files out, and no event with them.

use crate::harness::{TestServer, events};
use serde_json::{Value, json};
use std::ops::Range;

const NAMESPACE: &str = "shop.example";

/// The files that queries read until now.
async fn files_read(server: &TestServer) -> f64 {
    let text = server.get("/metrics").await.text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("icecore_query_files_total "));
    line.unwrap_or_else(|| panic!("no such metric in {text}")).trim().parse().unwrap()
}

/// The ids that a condition finds, and how many files were read for them.
async fn found(server: &TestServer, condition: &str) -> (Value, f64) {
    let before = files_read(server).await;
    let sql = format!("SELECT id FROM events WHERE {condition} ORDER BY seq");
    let rows = server.rows(NAMESPACE, &sql).await;
    (rows, files_read(server).await - before)
}

/// A key that says nothing of when its event came: files have their keys between the same bounds.
fn key(n: u32) -> String {
    format!("k-{:03}", n * 77 % 211)
}

/// Bookmarks go up with `seq`. With the key they take more bytes than their bloom filter; a merged file keeps
/// no other one.
fn bookmark(n: u32) -> String {
    format!("b-{n:04}-{}", key(n))
}

/// Events with keys and bookmarks.
fn sent(range: Range<u32>) -> Value {
    let mut sent = events(range.clone());
    for (n, event) in range.zip(sent["events"].as_array_mut().unwrap()) {
        event["key"] = json!(key(n));
        event["bookmark"] = json!(bookmark(n));
    }
    sent
}

/// Finds events of every commit and of the log by their keys and by their bookmarks.
async fn find_by_columns(server: &TestServer, files: f64) {
    for column in ["key", "bookmark"] {
        let value = |n| if column == "key" { key(n) } else { bookmark(n) };
        let (rows, mut read) = found(server, &format!("{column} = '{}x'", value(57))).await;
        assert_eq!(rows, json!([]), "{column}");
        for n in [0, 57, 133, 199, 205] {
            let (rows, more) = found(server, &format!("{column} = '{}'", value(n))).await;
            assert_eq!(rows, json!([[format!("e-{n}")]]), "{column}");
            read += more;
        }
        // Six look-ups, for each of which one file is needed at most. A bloom filter lets some through by chance.
        assert!(read < 4.0 * files, "{column}: {read} files, of {files}");
    }
}

/// Finds events of every commit and of the log, one by one and together.
async fn find_all(server: &TestServer, files: f64) {
    for id in ["e-0", "e-57", "e-133", "e-199", "e-205"] {
        // The second time the filters are in memory.
        for _ in 0..2 {
            let (rows, read) = found(server, &format!("id = '{id}'")).await;
            assert_eq!(rows, json!([[id]]));
            assert!(read < files, "{read} of {files} files for {id}");
        }
    }
    let (rows, _) = found(server, "id IN ('e-133', 'e-57', 'e-205', 'nobody')").await;
    assert_eq!(rows, json!([["e-57"], ["e-133"], ["e-205"]]));
    let (rows, _) = found(server, "id = 'e-57' OR id = 'e-0' OR seq = 10").await;
    assert_eq!(rows, json!([["e-0"], ["e-9"], ["e-57"]]));
    let (rows, _) = found(server, "id = 'e-57' AND type = 'order.placed'").await;
    assert_eq!(rows, json!([]));
    let (rows, read) = found(server, "id = 'nobody'").await;
    assert_eq!(rows, json!([]));
    assert!(read < files, "{read} of {files} files for nobody");
    let (rows, _) = found(server, "id <> 'e-57' AND seq BETWEEN 57 AND 59").await;
    assert_eq!(rows, json!([["e-56"], ["e-58"]]));
}

/// The rows of the commits and of the log, counted and given without a column.
async fn count_all(server: &TestServer) {
    for (sql, expected) in [
        ("SELECT count(*) FROM events", json!([[210]])),
        ("SELECT count(*), count(1) FROM events", json!([[210, 210]])),
        ("SELECT sum(1) FROM events", json!([[210]])),
        ("SELECT count(*) FROM events a CROSS JOIN events b", json!([[44_100]])),
        ("SELECT count(*) FROM (SELECT 1 FROM events LIMIT 205)", json!([[205]])),
        ("SELECT count(*) FROM events WHERE id LIKE 'e-20_'", json!([[10]])),
        ("SELECT count(*) FROM events WHERE false", json!([[0]])),
    ] {
        assert_eq!(server.rows(NAMESPACE, sql).await, expected, "{sql}");
    }
    // Records and manifests say how many rows there are, so nothing is read for that.
    let explain = "EXPLAIN SELECT count(*) FROM events";
    let plan = server.rows(NAMESPACE, explain).await.to_string();
    assert!(plan.contains("PlaceholderRowExec") && !plan.contains("DataSourceExec"), "{plan}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_found_by_one_value_in_few_of_the_files_before_and_after_compaction() {
    let settings = [("compaction.enabled", "off")];
    let server = TestServer::start_in(tempfile::tempdir().unwrap(), &settings).await;
    for part in 0..4 {
        server.ingest(&sent(50 * part..50 * (part + 1))).await;
        server.commit(NAMESPACE).await;
    }
    server.ingest(&sent(200..210)).await;
    let (rows, files) = found(&server, "true").await;
    assert_eq!(rows.as_array().unwrap().len(), 210);
    assert!(8.0 <= files, "{files} files");
    find_all(&server, files).await;
    find_by_columns(&server, files).await;
    count_all(&server).await;

    let path = format!("/admin/jobs/compact?namespace={NAMESPACE}");
    let done = server.post(&path, "application/json", "").await;
    assert_eq!(done.status(), 200);
    let (rows, merged) = found(&server, "true").await;
    assert_eq!(rows.as_array().unwrap().len(), 210);
    assert!(merged < files, "{merged} files");
    find_all(&server, merged).await;
    find_by_columns(&server, merged).await;

    // A commit that came after the filters were read.
    server.commit(NAMESPACE).await;
    assert_eq!(found(&server, "id = 'e-205'").await.0, json!([["e-205"]]));
    server.stop().await;
}

/// Events of ten types in turns: each file of a type has numbers between nearly the same bounds.
fn in_turns(range: Range<u32>) -> Value {
    let mut sent = events(range.clone());
    for (n, event) in range.zip(sent["events"].as_array_mut().unwrap()) {
        event["type"] = json!(format!("kind.{}", n % 10));
    }
    sent
}

#[tokio::test(flavor = "multi_thread")]
async fn from_the_second_look_up_of_a_number_on_only_the_files_that_have_it_are_read() {
    let settings = [("compaction.enabled", "off")];
    let server = TestServer::start_in(tempfile::tempdir().unwrap(), &settings).await;
    server.ingest(&in_turns(0..100)).await;
    server.commit(NAMESPACE).await;
    let expected = json!([["e-49"]]);
    let mut read = Vec::new();
    for _ in 0..4 {
        let (rows, files) = found(&server, "seq = 50").await;
        assert_eq!(rows, expected);
        read.push(files);
    }
    assert!(8.0 <= read[0], "{read:?}");
    // It is asked for once, and then the numbers are read before the files are.
    assert!(read[1..].iter().all(|files| (0.5..1.5).contains(files)), "{read:?}");
    for (condition, expected, files) in [
        ("seq IN (50, 51)", json!([["e-49"], ["e-50"]]), 2.0),
        ("50 = seq OR seq = 41", json!([["e-40"], ["e-49"]]), 2.0),
        ("seq = 50 AND type = 'kind.9'", json!([["e-49"]]), 1.0),
        ("seq = 50 AND seq = 51", json!([]), 0.0),
        ("seq = 50 OR id = 'e-3'", json!([["e-3"], ["e-49"]]), read[0]),
    ] {
        let (rows, more) = found(&server, condition).await;
        assert_eq!(rows, expected, "{condition}");
        assert!(more <= files, "{condition}: {more} files");
    }
    let (rows, _) = found(&server, "seq <> 50 AND seq BETWEEN 49 AND 51").await;
    assert_eq!(rows, json!([["e-48"], ["e-50"]]));
    // Rows of the log, and those of a later commit.
    server.ingest(&in_turns(100..110)).await;
    assert_eq!(found(&server, "seq = 105").await.0, json!([["e-104"]]));
    server.commit(NAMESPACE).await;
    for _ in 0..3 {
        assert_eq!(found(&server, "seq = 105").await.0, json!([["e-104"]]));
        assert_eq!(found(&server, "seq = 50").await.0, expected);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_without_a_value_of_a_column_are_not_read_for_a_pattern_of_it() {
    let server = TestServer::start().await;
    let mut sent = in_turns(0..100);
    for n in (3_usize..100).step_by(10) {
        sent["events"][n]["key"] = json!(format!("k-{n}"));
    }
    server.ingest(&sent).await;
    server.commit(NAMESPACE).await;
    assert!(8.0 <= found(&server, "true").await.1);
    let others: Vec<Value> =
        (3..100).step_by(10).filter(|n| *n != 33).map(|n| json!([format!("e-{n}")])).collect();
    for (condition, expected) in [
        ("key LIKE '%-33'", json!([["e-33"]])),
        ("key ILIKE '%K-33'", json!([["e-33"]])),
        ("key NOT LIKE '%-33'", json!(others)),
        ("key LIKE '%nobody'", json!([])),
    ] {
        let (rows, files) = found(&server, condition).await;
        assert_eq!(rows, expected, "{condition}");
        assert!(files < 2.5, "{condition}: {files} files");
    }
    let (rows, _) = found(&server, "(key LIKE '%-33') IS NOT TRUE").await;
    assert_eq!(rows.as_array().unwrap().len(), 99);
    server.stop().await;
}

/// The bytes of data files that a query reads, as its analysis tells.
async fn bytes_read(server: &TestServer, sql: &str) -> u64 {
    let rows = server.rows(NAMESPACE, &format!("EXPLAIN ANALYZE {sql}")).await;
    let report = rows.as_array().unwrap().last().unwrap()[1].as_str().unwrap().to_owned();
    let (_, bytes) = report.split_once("bytes read: ").unwrap_or_else(|| panic!("{rows}"));
    let (bytes, _) = bytes.split_once(',').unwrap_or_else(|| panic!("{rows}"));
    bytes.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_is_not_asked_for_is_not_read() {
    let server = TestServer::start().await;
    // Text that no compression makes short.
    let mut state = 68_u64;
    let mut noise = || {
        let words = (0..250).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            format!("{:08x}", state >> 32)
        });
        words.collect::<String>()
    };
    let events: Vec<Value> = (0..200)
        .map(|n| {
            json!({ "id": format!("e-{n}"), "type": "order.placed", "ns": NAMESPACE, "data": { "text": noise() } })
        })
        .collect();
    server.ingest(&json!(events)).await;
    server.commit(NAMESPACE).await;
    let all = bytes_read(&server, "SELECT max(length(data)) FROM events").await;
    assert!(150_000 < all, "{all} bytes with the documents");
    // As small as the other columns are, they take some bytes.
    let some = all / 2;
    for (sql, bytes_max) in [
        ("SELECT count(*) FROM events", 0),
        ("SELECT type, count(*), count(data) FROM events GROUP BY type", 0),
        // The manifest has the one type of the file, and NULL for who acted.
        ("SELECT type, actor FROM events", 0),
        ("SELECT sum(seq), count(DISTINCT id) FROM events", some),
        ("SELECT id FROM events WHERE seq % 2 = 0 ORDER BY ts DESC LIMIT 5", some),
        // The reader has the condition, and no row meets it.
        ("SELECT data FROM events WHERE id LIKE '%nobody'", some),
    ] {
        let bytes = bytes_read(&server, sql).await;
        assert!(bytes <= bytes_max, "{bytes} of {all} bytes for {sql}");
    }
    server.stop().await;
}
