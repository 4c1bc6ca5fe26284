//! Compressed bodies take the memory that they need, and no more.

use crate::{
    harness::{TestServer, events},
    process::run,
};
use flate2::{Compression, write::GzEncoder};
use std::io::{Read, Write};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

async fn send(server: &TestServer, encoding: &str, body: Vec<u8>) -> u16 {
    let request = server.http.post(format!("{}/ingest", server.url));
    let request = request.header("content-type", "application/json");
    let answer = request.header("content-encoding", encoding).body(body).send().await.unwrap();
    answer.status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_bodies_at_once_are_all_taken() {
    let server = TestServer::start().await;
    let sent = (0..400_u32).map(|n| {
        let plain = events(n * 3..n * 3 + 3).to_string();
        match n % 2 {
            0 => send(&server, "gzip", gzip(plain.as_bytes())),
            _ => send(&server, "zstd", zstd::encode_all(plain.as_bytes(), 1).unwrap()),
        }
    });
    let statuses = futures::future::join_all(sent).await;
    let refused = statuses.iter().filter(|status| **status != 200).count();
    assert_eq!(refused, 0, "{statuses:?}");
    let rows = server.rows("shop.example", "SELECT count(*) FROM events").await;
    assert_eq!(rows, serde_json::json!([[1200]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_becomes_larger_than_the_room_is_refused() {
    let settings = [("ingest.queue_bytes_max", "1MiB")];
    let server = TestServer::start_in(tempfile::tempdir().unwrap(), &settings).await;
    let spaces = |bytes: usize| {
        let mut plain = vec![b' '; bytes];
        plain.extend_from_slice(events(0..1).to_string().as_bytes());
        plain
    };
    assert_eq!(send(&server, "gzip", gzip(&spaces(4 << 20))).await, 503);
    assert_eq!(send(&server, "gzip", gzip(&spaces(20 << 20))).await, 503);
    assert_eq!(send(&server, "gzip", gzip(&spaces(200 << 10))).await, 200);
    assert_eq!(
        send(&server, "zstd", zstd::encode_all(&spaces(4 << 20)[..], 1).unwrap()).await,
        503
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_held_against_its_bound_as_it_is_decompressed() {
    let settings = [("ingest.body_bytes_max", "64KiB")];
    let server = TestServer::start_in(tempfile::tempdir().unwrap(), &settings).await;
    let mut plain = events(0..1).to_string().into_bytes();
    plain.resize(64 << 10, b' ');
    assert_eq!(send(&server, "gzip", gzip(&plain)).await, 200);
    plain.push(b' ');
    assert_eq!(send(&server, "gzip", gzip(&plain)).await, 413);
    assert_eq!(send(&server, "zstd", zstd::encode_all(&plain[..], 1).unwrap()).await, 413);
    // Each layer is, also where the last one is short.
    let event = gzip(events(1..2).to_string().as_bytes());
    for (members, expected) in [(2_000, 200), (4_000, 413)] {
        let layer = [event.clone(), gzip(b"").repeat(members)].concat();
        assert_eq!(send(&server, "gzip, gzip", gzip(&layer)).await, expected, "{members}");
        let packed = zstd::encode_all(&layer[..], 1).unwrap();
        assert_eq!(send(&server, "gzip, zstd", packed).await, expected, "{members}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn zeros_behind_the_end_of_gzip_are_padding_and_other_bytes_are_an_error() {
    let server = TestServer::start().await;
    let whole = |n: u32| gzip(events(n..n + 1).to_string().as_bytes());
    let zeros = vec![0; 100_000];
    for (n, behind, expected) in [
        (0, &b""[..], 200),
        (1, &[0], 200),
        (2, &zeros, 200),
        (3, &gzip(b"  "), 200),
        (4, b"\0x", 400),
        (5, b"x", 400),
        (6, &[0x1f], 400),
    ] {
        let body = [&whole(n)[..], behind].concat();
        assert_eq!(send(&server, "gzip", body).await, expected, "{n}");
    }
    let (broken, padded) = (whole(7), [whole(8), zeros].concat());
    assert_eq!(send(&server, "gzip", broken[..broken.len() - 4].to_vec()).await, 400);
    let twice = [whole(9), vec![0; 512]].concat();
    assert_eq!(send(&server, "gzip, gzip", gzip(&twice)).await, 200);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.json.gz");
    for (bytes, code) in [(padded, 0), ([whole(10), b"\0x".to_vec()].concat(), 1)] {
        std::fs::write(&path, bytes).unwrap();
        let output = run(&["ingest", path.to_str().unwrap(), "--url", &server.url], &[], b"");
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert_eq!(said.contains("neither gzip nor zeros"), code == 1, "{said}");
    }
    let rows = server.rows("shop.example", "SELECT count(*) FROM events").await;
    assert_eq!(rows, serde_json::json!([[6]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_breaks_off_says_what_was_sent_before() {
    let server = TestServer::start().await;
    let lines: String =
        (0..12_000).map(|n| format!("{{\"id\":\"{n}\",\"type\":\"t\"}}\n")).collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.ndjson.gz");
    let whole = gzip(lines.as_bytes());
    std::fs::write(&file, &whole[..whole.len() - 20]).unwrap();
    let ingest = || run(&["ingest", file.to_str().unwrap(), "--url", &server.url], &[], b"");
    let output = ingest();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stdout).unwrap();
    let sent: u32 = told.split(' ').next().unwrap().parse().unwrap();
    assert!((10_001..12_000).contains(&sent), "{told}");
    assert_eq!(
        told,
        format!("{sent} events sent: {sent} new, 0 duplicates, 0 rejected, and then it stopped\n")
    );
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("a.ndjson.gz") && said.contains(&format!("after line {sent}: ")),
        "{said}"
    );
    std::fs::write(&file, &whole).unwrap();
    let told = String::from_utf8(ingest().stdout).unwrap();
    let rest = 12_000 - sent;
    assert_eq!(told, format!("{rest} events sent: {rest} new, 0 duplicates, 0 rejected\n"));
    let rows: String = (0..2_000).map(|n| format!("c{n},t\n")).collect();
    let packed = gzip(format!("id,type\n{rows}").as_bytes());
    let path = folder.path().join("a.csv.gz");
    std::fs::write(&path, &packed[..packed.len() - 20]).unwrap();
    let output = run(&["ingest", path.to_str().unwrap(), "--url", &server.url], &[], b"");
    let told = String::from_utf8(output.stdout).unwrap();
    let last = told.split(' ').next().unwrap().parse::<u32>().unwrap() + 1;
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(2 < last && said.contains(&format!("after line {last}: ")), "{told}{said}");
    // Nothing is lost before bytes that are not gzip, with a line end or not.
    let event = |end: &str| gzip(format!("{{\"type\":\"t\"}}{end}").as_bytes());
    for (bytes, expected) in [
        ([event("\n"), b"junk".to_vec()].concat(), "1 event sent: 1 new, "),
        ([event(""), b"junk".to_vec()].concat(), "1 event sent: 0 new, "),
        (gzip(b"")[..12].to_vec(), "0 events sent: 0 new, "),
    ] {
        std::fs::write(&file, bytes).unwrap();
        let output = ingest();
        let told = String::from_utf8(output.stdout).unwrap();
        assert!(told.starts_with(expected) && told.ends_with(", and then it stopped\n"), "{told}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.contains("a.ndjson.gz")), (Some(1), true), "{said}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_compressed_as_their_readers_ask() {
    let server = TestServer::start().await;
    assert_eq!(server.ingest(&events(0..1)).await.0, 200);
    // Batches of a table may be cut in another way the next time, and then an Arrow stream has other bytes.
    let rows: Vec<String> = (0..500).map(|n| format!("({n}, 'Order.placed')")).collect();
    let sql = format!("SELECT * FROM (VALUES {}) AS v(n, kind) ORDER BY n", rows.join(", "));
    let ask = async |media: &str, accepted: &str| {
        let request = server.http.post(format!("{}/v1/shop.example/sql", server.url));
        let request = request.header("accept", media).header("accept-encoding", accepted);
        let answer = request.body(serde_json::json!({ "sql": sql }).to_string());
        let answer = answer.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let coding = answer.headers().get("content-encoding").cloned();
        let coding = coding.map(|coding| coding.to_str().unwrap().to_owned());
        (coding, answer.bytes().await.unwrap())
    };
    for media in ["application/x-ndjson", "text/csv", "application/vnd.apache.arrow.stream"] {
        let (coding, plain) = ask(media, "identity").await;
        assert_eq!(coding, None, "{media}");
        let (coding, bytes) = ask(media, "gzip, deflate").await;
        assert_eq!(coding.as_deref(), Some("gzip"), "{media}");
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut unpacked).unwrap();
        assert!(unpacked == plain && bytes.len() * 2 < plain.len(), "{media}");
        let (coding, bytes) = ask(media, "gzip, zstd").await;
        assert_eq!(coding.as_deref(), Some("zstd"), "{media}");
        assert!(zstd::decode_all(&bytes[..]).unwrap() == plain, "{media}");
    }
    let (coding, bytes) = ask("application/vnd.apache.parquet", "gzip").await;
    assert_eq!((coding, &bytes[..4]), (None, b"PAR1".as_slice()));
    server.stop().await;
}
