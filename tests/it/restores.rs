//! One of a server's stores is put back from an older copy, deleted, cut, or another server's: no
//! acknowledged event is lost without being named, none is there twice, and the server says what to
//! do.

use crate::{
    harness::{TestServer, config, files_below},
    postgres::Databases,
    process::Process,
};
use icecore::{
    config::Config,
    server::{
        Server,
        accept::{LossScope, accept_loss},
    },
};
use icecore_lake::clock::Clock;
use serde_json::{Value, json};
use std::{
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

const NAMESPACE: &str = "shop.example";
/// Events that the server acknowledged, `seq` 1 to 30, ten at a time.
const ALL: u32 = 30;

/// What is to happen: the state, the store (or two of them, with a `+`), what became of it, and the
/// outcome.
///
/// `whole`: ready, and every event is there once, whatever is sent again.
/// `missing F..L`: not ready until these rows are given up, and then they are taken again.
/// `accepts TEXT`: not ready, and says TEXT; nothing is missing, as the log still has it, and with
/// the metastore as it is everything is there.
/// `waits TEXT`: not ready, and says TEXT.
/// `fails TEXT`: does not start, and says TEXT.
/// After all but the first, putting back what was there makes it whole.
const CELLS: &str = "
    committed   db        older     missing 11..20
    committed   db        deleted   missing 1..20
    committed   db        cut       fails icecore.db` is damaged
    committed   db        other     fails is not the one that this server used
    committed   wal       older     whole
    committed   wal       deleted   whole
    committed   wal       cut       whole
    committed   wal       other     waits the log of another server
    committed   ids       older     whole
    committed   ids       deleted   whole
    committed   ids       cut       fails move the file away and start again
    committed   ids       other     whole
    committed   wal+ids   older     whole
    committed   warehouse older     waits the warehouse lacks files that the metastore references
    committed   warehouse deleted   waits the warehouse lacks files that the metastore references
    committed   warehouse cut       waits is damaged
    committed   warehouse other     waits the warehouse lacks files that the metastore references
    half        db        older     accepts is older than the data
    half        db        deleted   missing 1..10
    half        db        cut       fails icecore.db` is damaged
    half        db        other     fails is not the one that this server used
    half        wal       older     missing 21..30
    half        wal       deleted   missing 21..30
    half        wal       cut       missing 21..30
    half        wal       other     waits the log of another server
    half        ids       older     whole
    half        ids       deleted   whole
    half        ids       cut       fails move the file away and start again
    half        ids       other     whole
    half        wal+ids   older     missing 21..30
    half        warehouse older     waits the warehouse lacks files that the metastore references
    half        warehouse deleted   waits the warehouse lacks files that the metastore references
    half        warehouse cut       waits is damaged
    half        warehouse other     waits the warehouse lacks files that the metastore references
    uncommitted db        older     whole
    uncommitted db        deleted   accepts is not the one that this server used
    uncommitted db        cut       fails icecore.db` is damaged
    uncommitted db        other     fails is not the one that this server used
    uncommitted wal       older     missing 11..30
    uncommitted wal       deleted   missing 11..30
    uncommitted wal       cut       missing 21..30
    uncommitted wal       other     waits the log of another server
    uncommitted ids       older     whole
    uncommitted ids       deleted   whole
    uncommitted ids       cut       fails move the file away and start again
    uncommitted ids       other     whole
    uncommitted wal+ids   older     missing 11..30
    uncommitted warehouse older     whole
    uncommitted warehouse deleted   waits the warehouse lacks files that the metastore references
    uncommitted warehouse cut       waits is damaged
    uncommitted warehouse other     waits the warehouse lacks files that the metastore references
";

/// The same with the metastore in PostgreSQL, where it can be another one: `db` is the database, put
/// back from an older dump, empty, or another server's. Beside such a database another server may be
/// running, so a log that is not its owner's waits for an operator.
const CELLS_POSTGRES: &str = "
    committed   db        older     missing 11..20
    committed   db        deleted   missing 1..20
    committed   db        other     fails is not the one that this server used
    committed   wal       older     whole
    committed   wal       deleted   waits events are taken by the server with log
    committed   wal       other     waits events are taken by the server with log
    committed   wal+ids   older     whole
    committed   warehouse older     waits the warehouse lacks files that the metastore references
    half        db        older     accepts is older than the data
    half        db        deleted   missing 1..10
    half        db        other     fails is not the one that this server used
    half        wal       older     missing 21..30
    half        wal       deleted   waits events are taken by the server with log
    half        wal       other     waits events are taken by the server with log
    half        wal+ids   older     missing 21..30
    uncommitted db        older     whole
    uncommitted db        deleted   accepts is not the one that this server used
    uncommitted db        other     fails is not the one that this server used
    uncommitted wal       older     missing 11..30
    uncommitted wal       deleted   waits events are taken by the server with log
    uncommitted wal       other     waits events are taken by the server with log
    uncommitted wal+ids   older     missing 11..30
";

/// A server's folder at a state, as it was ten events after its first, and another server's.
struct Case {
    folder: TempDir,
    saved: TempDir,
    older: TempDir,
    other: TempDir,
    /// The metastore where it is no file: databases called as the folders are.
    databases: Option<Databases>,
}

fn ids(range: Range<u32>) -> Value {
    let event = |n| json!({ "id": format!("e-{n}"), "type": "order.placed", "ns": NAMESPACE, "data": { "n": n } });
    range.map(event).collect()
}

fn settings(folder: &Path, metastore: Option<String>) -> Vec<(&'static str, String)> {
    let mut settings = vec![
        ("data_dir", folder.display().to_string()),
        ("commit.interval", "10min".to_owned()),
        ("wal.segment_bytes", "1MiB".to_owned()),
    ];
    settings.extend(metastore.map(|url| ("metastore", url)));
    settings
}

async fn send(server: &Process, range: Range<u32>) {
    let http = reqwest::Client::new();
    let answer =
        http.post(format!("{}/ingest", server.url)).json(&ids(range)).send().await.unwrap();
    assert_eq!(answer.status(), 200);
}

async fn commit(server: &Process) {
    let http = reqwest::Client::new();
    let url = format!("{}/v1/{NAMESPACE}/commit", server.url);
    assert_eq!(http.post(url).json(&json!({})).send().await.unwrap().status(), 200);
}

pub(crate) fn copy(from: &Path, to: &Path) {
    try_copy(from, to).unwrap();
}

/// The same of a folder whose files may go meanwhile.
pub(crate) fn try_copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            try_copy(&from, &to)?;
        } else {
            fs::copy(&from, &to)?;
        }
    }
    Ok(())
}

/// The files and folders of a store.
fn parts(folder: &Path, store: &str) -> Vec<PathBuf> {
    let names = match store {
        "db" => vec!["icecore.db", "icecore.db-wal", "icecore.db-shm"],
        _ => vec![store],
    };
    names.iter().map(|name| folder.join(name)).collect()
}

fn remove(folder: &Path, store: &str) {
    for path in parts(folder, store).into_iter().filter(|path| path.exists()) {
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap()
        } else {
            fs::remove_file(path).unwrap()
        }
    }
}

/// Puts a store in place as another folder has it.
fn put(from: &Path, to: &Path, store: &str) {
    remove(to, store);
    for (from, to) in parts(from, store).into_iter().zip(parts(to, store)) {
        if from.is_dir() {
            copy(&from, &to);
        } else if from.exists() {
            fs::copy(&from, &to).unwrap();
        }
    }
}

/// Cuts each file of a store in half; of the log, what was written last.
fn cut(folder: &Path, store: &str) {
    let all: Vec<PathBuf> = match store {
        "db" => {
            fs::remove_file(folder.join("icecore.db-wal")).unwrap();
            vec![folder.join("icecore.db")]
        }
        "ids" => files_below(&folder.join(store), ".ids"),
        "wal" => {
            let mut segments = files_below(&folder.join(store), ".seg");
            let last = segments.pop().unwrap();
            let bytes = fs::read(&last).unwrap();
            let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
            return fs::write(&last, &bytes[..used.saturating_sub(16)]).unwrap();
        }
        _ => files_below(&folder.join(store), ""),
    };
    for path in all {
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    }
}

impl Case {
    async fn new(state: &str, databases: Option<Databases>) -> Self {
        let [folder, saved, older, other] = [(); 4].map(|()| tempfile::tempdir().unwrap());
        let url = |name: &str| databases.as_ref().map(|databases| databases.url(name));
        if let Some(databases) = &databases {
            databases.make("folder").await;
            databases.make("other").await;
        }
        let mut stranger = Process::start(&settings(other.path(), url("other"))).await;
        send(&stranger, 100..120).await;
        commit(&stranger).await;
        send(&stranger, 120..125).await;
        assert!(stranger.terminate(std::time::Duration::from_secs(20)).await);

        let own = settings(folder.path(), url("folder"));
        let mut server = Process::start(&own).await;
        send(&server, 0..10).await;
        commit(&server).await;
        assert!(server.terminate(std::time::Duration::from_secs(20)).await);
        copy(folder.path(), older.path());
        if let Some(databases) = &databases {
            databases.copy("folder", "older").await;
        }
        let mut server = Process::start(&own).await;
        // With the first commit after a start the log lets go of what the tables have.
        commit(&server).await;
        send(&server, 10..20).await;
        if state != "uncommitted" {
            commit(&server).await;
            assert!(server.terminate(std::time::Duration::from_secs(20)).await);
            server = Process::start(&own).await;
            commit(&server).await;
        }
        send(&server, 20..30).await;
        if state == "committed" {
            commit(&server).await;
        }
        server.kill();
        copy(folder.path(), saved.path());
        if let Some(databases) = &databases {
            databases.copy("folder", "saved").await;
        }
        Self { folder, saved, older, other, databases }
    }

    fn config(&self) -> Config {
        let url = self.databases.as_ref().map(|databases| databases.url("folder"));
        let metastore: Vec<(&str, &str)> = url.iter().map(|url| ("metastore", &**url)).collect();
        config(&self.folder, &metastore)
    }

    /// Puts each of these stores in place as another server or another time has it.
    async fn put_all(&self, from: &str, stores: &str) {
        for store in stores.split('+') {
            self.put(from, store).await;
        }
    }

    /// The same for one store.
    async fn put(&self, from: &str, store: &str) {
        if let (Some(databases), "db") = (&self.databases, store) {
            return databases.copy(from, "folder").await;
        }
        let from = match from {
            "saved" => &self.saved,
            "older" => &self.older,
            _ => &self.other,
        };
        put(from.path(), self.folder.path(), store);
    }

    async fn spoil(&self, store: &str, how: &str) {
        for store in ["db", "wal", "ids", "warehouse", "marks"] {
            self.put("saved", store).await;
        }
        match (how, &self.databases) {
            ("older" | "other", _) => self.put_all(how, store).await,
            ("deleted", Some(databases)) if store == "db" => databases.make("folder").await,
            ("deleted", _) => remove(self.folder.path(), store),
            _ => cut(self.folder.path(), store),
        }
    }

    async fn start(&self) -> Result<Running, String> {
        let started = Server::start(&self.config(), Clock::system()).await;
        let server = started.map_err(|failed| {
            let first: Option<&dyn std::error::Error> = Some(&failed);
            let chain = std::iter::successors(first, |cause| cause.source());
            chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
        })?;
        Ok(Running { url: format!("http://{}", server.address()), server })
    }

    /// Everything is there once, before and after everything is sent again.
    async fn is_whole(&self, cell: &str) {
        let running = self.start().await.unwrap_or_else(|told| panic!("{cell}: {told}"));
        let (status, told) = running.get("/readyz").await;
        assert_eq!(status, 200, "{cell}: {told}");
        running.has_all(cell, u64::from(ALL)).await;
        running.server.stop().await;
    }

    async fn check(&self, cell: &str) {
        let words: Vec<&str> = cell.split_whitespace().collect();
        let (store, how, outcome) = (words[1], words[2], words[3]);
        let expected = words[4..].join(" ");
        self.spoil(store, how).await;
        match outcome {
            "whole" => return self.is_whole(cell).await,
            "fails" => {
                let told = self.start().await.err().unwrap_or_else(|| panic!("{cell}: it starts"));
                assert!(told.contains(&expected), "{cell}: {told}");
            }
            _ => {
                let running = self.start().await.unwrap_or_else(|told| panic!("{cell}: {told}"));
                running.takes_no_events(cell, &expected).await;
                running.server.stop().await;
            }
        }
        if outcome == "missing" || outcome == "accepts" {
            if outcome == "missing" {
                self.give_up(cell, &expected).await;
            } else {
                let (config, clock) = (self.config(), Clock::system());
                let done = accept_loss(&config, &clock, &LossScope::All, false).await.unwrap();
                assert!(done.given.is_empty() && done.metastore.is_some(), "{cell}: {done:?}");
                self.is_whole(cell).await;
            }
            self.spoil(store, how).await;
            let again = self.start().await.unwrap_or_else(|told| panic!("{cell}: {told}"));
            again.takes_no_events(cell, &expected).await;
            again.server.stop().await;
        }
        // Nothing was done that keeps the right store from being put back.
        self.put_all("saved", store).await;
        self.is_whole(cell).await;
    }

    /// What is missing is given up, and no more is; then it is taken again.
    async fn give_up(&self, cell: &str, range: &str) {
        let (first, last) = range.split_once("..").unwrap();
        let (first, last): (u64, u64) = (first.parse().unwrap(), last.parse().unwrap());
        let (config, clock) = (self.config(), Clock::system());
        let below = LossScope::Through { namespace: None, seq: last - 1 };
        let refused = accept_loss(&config, &clock, &below, false).await.unwrap();
        assert!(refused.given.is_empty(), "{cell}: {refused:?}");
        let looked = accept_loss(&config, &clock, &LossScope::All, true).await.unwrap();
        let given: Vec<_> = looked.given.iter().map(|one| (one.first, one.last)).collect();
        assert_eq!(given, [(first, last)], "{cell}");
        let through = LossScope::Through { namespace: None, seq: last };
        let done = accept_loss(&config, &clock, &through, false).await.unwrap();
        assert!(done.left.is_empty() && done.given == looked.given, "{cell}: {done:?}");
        let running = self.start().await.unwrap_or_else(|told| panic!("{cell}: {told}"));
        let (status, told) = running.get("/readyz").await;
        assert_eq!(status, 200, "{cell}: {told}");
        running.has_all(cell, u64::from(ALL) - (last - first + 1)).await;
        running.server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_that_are_ahead_of_every_other_store_name_what_is_missing() {
    let case = Case::new("half", None).await;
    for store in ["wal", "marks", "db"] {
        case.put("older", store).await;
    }
    let running = case.start().await.unwrap();
    running.takes_no_events("older log, notes and metastore", "11..20").await;
    running.server.stop().await;
    let (config, clock) = (case.config(), Clock::system());
    let done = accept_loss(&config, &clock, &LossScope::All, false).await.unwrap();
    let given: Vec<_> = done.given.iter().map(|one| (one.first, one.last)).collect();
    assert_eq!(given, [(11, 20)], "{done:?}");
    let running = case.start().await.unwrap();
    assert_eq!(running.get("/readyz").await.0, 200);
    // No store knew of the last ten.
    running.has_all("older log, notes and metastore", 10).await;
    let (status, checked) = running.post("/admin/fsck", &json!({})).await;
    assert_eq!((status, &checked["whole"]), (200, &json!(true)), "{checked}");
    let gaps = checked["tables"][0]["gaps"].as_array().unwrap();
    assert_eq!((gaps.len(), &gaps[0]["first"], &gaps[0]["last"]), (1, &json!(11), &json!(20)));
    let reason = gaps[0]["reason"].as_str().unwrap();
    assert!(reason.contains("it is written down that their rows are lost"), "{reason}");
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_servers_metastore_has_is_no_row_of_this_one() {
    let [own, other, shared] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let warehouse = format!("file://{}", shared.path().display());
    let of = |folder: &TempDir| {
        let mut settings = settings(folder.path(), None);
        settings.push(("warehouse", warehouse.clone()));
        settings
    };
    let mut server = Process::start(&of(&own)).await;
    send(&server, 0..10).await;
    server.kill();
    let mut stranger = Process::start(&of(&other)).await;
    send(&stranger, 100..130).await;
    commit(&stranger).await;
    assert!(stranger.terminate(std::time::Duration::from_secs(20)).await);
    put(other.path(), own.path(), "db");
    remove(own.path(), "wal");

    let config = config(&own, &[("warehouse", &warehouse)]);
    let start = async || {
        let server = Server::start(&config, Clock::system()).await.unwrap();
        Running { url: format!("http://{}", server.address()), server }
    };
    let running = start().await;
    running.takes_no_events("another's metastore", "1..10").await;
    running.server.stop().await;
    let done = accept_loss(&config, &Clock::system(), &LossScope::All, false).await.unwrap();
    let given: Vec<_> = done.given.iter().map(|one| (one.first, one.last)).collect();
    assert_eq!(given, [(1, 10)], "{done:?}");
    let running = start().await;
    let (status, told) = running.get("/readyz").await;
    assert_eq!(status, 200, "{told}");
    let (status, reply) = running.post("/ingest", &ids(0..10)).await;
    assert_eq!((status, &reply["duplicates"]), (200, &json!(0)), "{reply}");
    running.server.stop().await;
}

struct Running {
    server: Server,
    url: String,
}

impl Running {
    async fn get(&self, path: &str) -> (u16, String) {
        let answer = reqwest::get(format!("{}{path}", self.url)).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let http = reqwest::Client::new();
        let answer = http.post(format!("{}{path}", self.url)).json(body).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// Everything is sent again: so many are known, and then all are there once.
    async fn has_all(&self, cell: &str, known: u64) {
        let (status, reply) = self.post("/ingest", &ids(0..ALL)).await;
        assert_eq!((status, &reply["duplicates"]), (200, &json!(known)), "{cell}: {reply}");
        let count = "SELECT count(*), count(DISTINCT id), count(DISTINCT seq) FROM events";
        for _ in 0..2 {
            let (status, answer) =
                self.post(&format!("/v1/{NAMESPACE}/sql"), &json!({ "sql": count })).await;
            assert_eq!(
                (status, &answer["rows"]),
                (200, &json!([[ALL, ALL, ALL]])),
                "{cell}: {answer}"
            );
            let (status, told) = self.post(&format!("/v1/{NAMESPACE}/commit"), &json!({})).await;
            assert_eq!(status, 200, "{cell}: {told}");
        }
    }

    /// It says why wherever it is asked to take events, and answers queries of the catalog.
    async fn takes_no_events(&self, cell: &str, why: &str) {
        let (ready, told) = self.get("/readyz").await;
        let (taken, refused) = self.post("/ingest", &ids(200..201)).await;
        for (status, told) in [(ready, told), (taken, refused.to_string())] {
            assert_eq!(status, 503, "{cell}: {told}");
            assert!(told.contains(why), "{cell}: {told}");
        }
        assert_eq!(self.get("/catalog/v1/config").await.0, 200, "{cell}");
    }
}

/// The cells of one state.
async fn check(state: &str) {
    let case = Case::new(state, None).await;
    assert_eq!(check_all(&case, state, CELLS).await, 17);
}

async fn check_postgres(state: &str) {
    let Some(databases) = Databases::new("restores").await else { return };
    let case = Case::new(state, Some(databases)).await;
    assert!(check_all(&case, state, CELLS_POSTGRES).await >= 6);
    if let Some(databases) = &case.databases {
        databases.remove().await;
    }
}

async fn check_all(case: &Case, state: &str, cells: &str) -> usize {
    let cells = cells.lines().map(str::trim).filter(|cell| cell.starts_with(state));
    let mut checked = 0;
    for cell in cells {
        Box::pin(case.check(cell)).await;
        checked += 1;
    }
    checked
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_a_server_whose_events_are_in_tables_is_put_back_wrong() {
    check("committed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_a_server_half_of_whose_events_are_in_tables_is_put_back_wrong() {
    check("half").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_a_server_whose_events_are_in_its_log_is_put_back_wrong() {
    check("uncommitted").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_a_server_on_postgres_whose_events_are_in_tables_is_put_back_wrong() {
    check_postgres("committed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_a_server_on_postgres_half_of_whose_events_are_in_tables_is_put_back_wrong() {
    check_postgres("half").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_a_server_on_postgres_whose_events_are_in_its_log_is_put_back_wrong() {
    check_postgres("uncommitted").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_or_missing_manifest_is_named() {
    let server = TestServer::start().await;
    let (status, _) = server.ingest(&ids(0..10)).await;
    assert_eq!(status, 200);
    server.commit(NAMESPACE).await;
    let mut folder = server.stop().await;
    let warehouse = folder.path().join("warehouse");
    let manifests = files_below(&warehouse, ".avro");
    assert_eq!(manifests.len(), 2, "a manifest and a list");
    for (path, is_gone) in manifests.iter().flat_map(|path| [(path, false), (path, true)]) {
        let bytes = fs::read(path).unwrap();
        fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
        if is_gone {
            fs::remove_file(path).unwrap();
        }
        let server = TestServer::start_in(folder, &[]).await;
        let (status, told) =
            server.query(NAMESPACE, &json!({ "sql": "SELECT max(id) FROM events" })).await;
        let told = told.to_string();
        assert!(status != 200 && status != 500, "{status} {told}");
        assert!(told.contains(path.file_name().unwrap().to_str().unwrap()), "{told}");
        folder = server.stop().await;
        fs::write(path, bytes).unwrap();
    }
}
