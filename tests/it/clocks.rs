//! The machine's clock is wrong for a moment, or at a start: nothing is dated by it, and no id is
//! forgotten.

use crate::{
    harness::{TestServer, config, events, files_below, rfc3339},
    restores::{copy, try_copy},
};
use icecore_lake::{clock::Clock, faults::Failpoints};
use serde_json::{Value, json};
use std::{fs, io, path::Path, sync::Arc};
use tempfile::TempDir;

const NOW_MS: i64 = 1_790_000_000_000;
const DAY_MS: i64 = 86_400_000;
const COUNT: &str = "SELECT count(*), count(DISTINCT id) FROM events";

async fn duplicates(server: &TestServer, range: std::ops::Range<u32>) -> Value {
    let (status, reply) = server.ingest_at("/ingest?backfill=true", &events(range)).await;
    assert_eq!(status, 200, "{reply}");
    reply["duplicates"].clone()
}

/// Every id is in a file; the clock then jumps, for some seconds while events come.
async fn jumps(by_ms: i64) {
    let clock = Clock::manual(NOW_MS);
    let server = TestServer::start_at(tempfile::tempdir().unwrap(), &[], clock.clone()).await;
    duplicates(&server, 0..100).await;
    server.commit("shop.example").await;
    let server = TestServer::start_at(server.stop().await, &[], clock.clone()).await;
    clock.jump_ms(by_ms);
    // Each group has a look at the index.
    for n in 0..3 {
        duplicates(&server, 100 + n..101 + n).await;
        clock.advance_ms(1000);
    }
    server.commit("shop.example").await;
    clock.jump_ms(-by_ms);
    assert_eq!(duplicates(&server, 0..103).await, 103, "after {by_ms} ms");
    clock.advance_ms(60_000);
    // What was committed under the wrong time is there now and was not there before.
    let asked = async |at_ms: i64| {
        let time = rfc3339(at_ms);
        let (_, answer) =
            server.query("shop.example", &json!({ "sql": COUNT, "as_of": time })).await;
        answer["rows"].clone()
    };
    assert_eq!(asked(clock.now_ms()).await, json!([[103, 103]]), "after {by_ms} ms");
    assert_eq!(asked(NOW_MS + 1).await, json!([[100, 100]]), "after {by_ms} ms");
    let late = "SELECT count(*) FROM events WHERE ingested_at > TIMESTAMP '2026-09-22T00:00:00Z'";
    assert_eq!(server.rows("shop.example", late).await, json!([[0]]), "after {by_ms} ms");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_for_seconds_dates_and_expires_nothing() {
    for by_ms in [8 * DAY_MS, 400 * DAY_MS, -8 * DAY_MS] {
        jumps(by_ms).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_wrong_at_a_start_makes_no_id_too_old() {
    let clock = Clock::manual(NOW_MS);
    let server = TestServer::start_at(tempfile::tempdir().unwrap(), &[], clock.clone()).await;
    duplicates(&server, 0..100).await;
    server.commit("shop.example").await;
    let mut folder = server.stop().await;
    // Far ahead twice, far behind, right again.
    for off_ms in [8 * DAY_MS, 9 * DAY_MS, -20_000 * DAY_MS, 60_000] {
        let clock = Clock::manual(NOW_MS + off_ms);
        let server = TestServer::start_at(folder, &[], clock.clone()).await;
        clock.advance_ms(2000);
        assert_eq!(duplicates(&server, 0..100).await, 100, "off by {off_ms} ms");
        clock.advance_ms(2000);
        assert_eq!(duplicates(&server, 0..100).await, 100, "off by {off_ms} ms");
        folder = server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_are_forgotten_by_the_time_that_passes() {
    let clock = Clock::manual(NOW_MS);
    let server = TestServer::start_at(tempfile::tempdir().unwrap(), &[], clock.clone()).await;
    duplicates(&server, 0..100).await;
    server.commit("shop.example").await;
    let server = TestServer::start_at(server.stop().await, &[], clock.clone()).await;
    clock.advance_ms(7 * DAY_MS + 2);
    // The first group has a look at the index after its verdicts.
    duplicates(&server, 100..101).await;
    assert_eq!(duplicates(&server, 0..10).await, 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_start_with_a_clock_that_was_ahead_a_time_is_refused_until_it_is_right_again() {
    let late_ms = NOW_MS + 20_000 * DAY_MS;
    let mut folder = tempfile::tempdir().unwrap();
    for (n, at_ms) in [(0, NOW_MS), (1, late_ms), (2, NOW_MS + DAY_MS)] {
        let server = TestServer::start_at(folder, &[], Clock::manual(at_ms)).await;
        assert_eq!(duplicates(&server, 10 * n..10 * n + 10).await, 0);
        server.commit("shop.example").await;
        folder = server.stop().await;
    }
    let server = TestServer::start_at(folder, &[], Clock::manual(NOW_MS + 2 * DAY_MS)).await;
    let asked = async |at_ms: i64| {
        let request = json!({ "sql": COUNT, "as_of": rfc3339(at_ms) });
        server.query("shop.example", &request).await
    };
    // The table was made in the millisecond before its first snapshot.
    for at_ms in [NOW_MS + 2, NOW_MS + DAY_MS + 1, NOW_MS + 2 * DAY_MS] {
        let (status, answer) = asked(at_ms).await;
        let told = answer["error"].as_str().unwrap_or_default();
        assert_eq!(status, 400, "{at_ms}: {answer}");
        assert!(told.contains("is dated 2081-") && told.contains("in the future"), "{told}");
    }
    assert_eq!(asked(NOW_MS + 1).await.1["rows"], json!([[10, 10]]));
    assert_eq!(server.rows("shop.example", COUNT).await, json!([[30, 30]]));
    server.stop().await;
}

/// When the process ends: once events are acknowledged, or while they are committed.
const MOMENTS: [Option<&str>; 5] = [
    None,
    Some("flush.after_data_file"),
    Some("flush.before_commit"),
    Some("flush.lost_answer"),
    Some("flush.after_commit"),
];

/// A server whose clock jumps, and that takes events then: its folder, and what `kill -9` at that
/// moment leaves there.
async fn killed(by_ms: i64, moment: Option<&'static str>) -> (TempDir, TempDir) {
    let clock = Clock::manual(NOW_MS);
    let server = TestServer::start_at(tempfile::tempdir().unwrap(), &[], clock.clone()).await;
    duplicates(&server, 0..100).await;
    server.commit("shop.example").await;
    let folder = server.stop().await;
    let mut config = config(&folder, &[]);
    let meeting = moment.map(|point| {
        let (faults, meeting) = Failpoints::meeting(point);
        config.faults = faults;
        meeting
    });
    let server = TestServer::start_with(folder, &config, clock.clone()).await;
    clock.jump_ms(by_ms);
    for n in 0..3 {
        assert_eq!(duplicates(&server, 100 + 10 * n..110 + 10 * n).await, 0);
        clock.advance_ms(1000);
    }
    let left = tempfile::tempdir().unwrap();
    let Some(meeting) = meeting else {
        copy_running(server.folder.path(), left.path());
        return (server.stop().await, left);
    };
    let meet = async || {
        let meeting = Arc::clone(&meeting);
        tokio::task::spawn_blocking(move || meeting.wait()).await.unwrap();
    };
    let kill = async {
        meet().await;
        copy_running(server.folder.path(), left.path());
        meet().await;
    };
    tokio::join!(server.commit("shop.example"), kill);
    (server.stop().await, left)
}

/// Copies a server's folder as a kill leaves it. A checkpoint of the metastore between its two files, or
/// files of the log and of ids that come and go meanwhile, would make a folder of the copy that never was.
pub(crate) fn copy_running(from: &Path, to: &Path) {
    let state = || {
        let names = ["wal", "ids"].map(|name| files_below(&from.join(name), ""));
        (names, ["icecore.db", "icecore.db-wal"].map(|name| fs::read(from.join(name)).unwrap()))
    };
    let mut before = state();
    loop {
        fs::remove_dir_all(to).unwrap();
        let copied = try_copy(from, to);
        let after = state();
        match copied {
            Ok(()) if after == before => return,
            Ok(()) => (),
            Err(gone) => assert_eq!(gone.kind(), io::ErrorKind::NotFound, "{gone}"),
        }
        before = after;
    }
}

/// Makes a folder what it was, at its place: elsewhere it would be a copy, which does not start.
pub(crate) fn put_back(folder: &TempDir, left: &TempDir) {
    for entry in fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => fs::remove_dir_all(path).unwrap(),
            false => fs::remove_file(path).unwrap(),
        }
    }
    copy(left.path(), folder.path());
}

/// A start with that clock has every event once, whatever is sent again, and dates none by a jump.
async fn has_all(folder: TempDir, at_ms: i64, case: &str) -> TempDir {
    let server = TestServer::start_at(folder, &[], Clock::manual(at_ms)).await;
    let count = "SELECT count(*), count(DISTINCT id), count(DISTINCT seq) FROM events";
    for _ in 0..2 {
        assert_eq!(duplicates(&server, 0..130).await, 130, "{case}");
        assert_eq!(server.rows("shop.example", count).await, json!([[130, 130, 130]]), "{case}");
        server.commit("shop.example").await;
    }
    let elsewhen = "SELECT count(*) FROM events WHERE ingested_at NOT BETWEEN \
                    TIMESTAMP '2026-09-21T00:00:00Z' AND TIMESTAMP '2026-09-22T00:00:00Z'";
    assert_eq!(server.rows("shop.example", elsewhen).await, json!([[0]]), "{case}");
    server.stop().await
}

/// A clock that was ahead at each moment, and one that was behind around the commit; with `LARGE=1` also
/// at each.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_after_its_clock_jumped_loses_and_repeats_nothing() {
    let behind = if std::env::var_os("LARGE").is_some() { &MOMENTS[..] } else { &MOMENTS[2..4] };
    for (by_ms, moments) in [(400 * DAY_MS, &MOMENTS[..]), (-8 * DAY_MS, behind)] {
        for moment in moments {
            let (folder, left) = killed(by_ms, *moment).await;
            put_back(&folder, &left);
            let case = format!("{by_ms} ms, killed at {moment:?}, right again at the start");
            let folder = has_all(folder, NOW_MS + 60_000, &case).await;
            put_back(&folder, &left);
            let case = format!("{by_ms} ms, killed at {moment:?}, still wrong at the start");
            let folder = has_all(folder, NOW_MS + by_ms + 60_000, &case).await;
            has_all(folder, NOW_MS + 120_000, &case).await;
        }
    }
}
