//! A metastore that is lost is rebuilt from the warehouse and the log: every name, snapshot and row is there
//! again, once. A table that lost a file goes back to its last whole snapshot.

use crate::{
    backup::{json_of, refused, text},
    harness::{TestServer, events, files_below},
    postgres::Databases,
    process::{self, post_and_die},
};
use icecore_lake::faults::POINTS;
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs,
    ops::Range,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

const SHOP: &str = "shop.example";
/// A namespace whose text differs from its name in the catalog.
const ODD: &str = "Startups.Studio (EU)";
const ODD_PATH: &str = "Startups.Studio%20(EU)";
const ODD_NAME: &str = "startups_studio__eu_";
const COUNT: &str = "SELECT count(*), count(DISTINCT id), count(DISTINCT seq) FROM events";
const SETTINGS: [(&str, &str); 1] = [("compaction.enabled", "off")];

/// A server's folder, and what its metastore is where that is no file in it.
struct House {
    folder: TempDir,
    metastore: Option<String>,
    /// Snapshots of `events` in [`SHOP`], a hundred rows apart.
    snapshots: Vec<Value>,
}

impl House {
    /// Two namespaces with odd names, events and dead letters, a tag, a branch, a table and a view of another
    /// engine, a dropped table, merged files, and rows that are in the log alone.
    async fn build(metastore: Option<String>) -> Self {
        let mut house =
            Self { folder: tempfile::tempdir().unwrap(), metastore, snapshots: Vec::new() };
        let server = house.start().await;
        for n in 0..3 {
            take(&server, n * 100..n * 100 + 100).await;
            house.snapshots.push(server.commit(SHOP).await["events"].clone());
        }
        let odd = json!([{ "id": "o-1", "type": "a", "ns": ODD }]);
        assert_eq!(server.ingest(&odd).await.0, 200);
        server.ingest(&json!([{ "id": "d", "type": "", "ns": ODD }])).await;
        server.commit(ODD_PATH).await;
        let refs = format!("/v1/{SHOP}/tables/events/refs");
        for (name, kind, at) in [("first", "tag", 0), ("trial", "branch", 1)] {
            let body = json!({ "name": name, "type": kind, "snapshot": house.snapshots[at] });
            let made = server.post(&refs, "application/json", body.to_string()).await;
            assert_eq!(made.status(), 200, "{}", made.text().await.unwrap());
        }
        make_foreign(&server).await;
        let compact = format!("/admin/jobs/compact?namespace={SHOP}");
        let compacted = server.post(&compact, "application/json", "").await;
        assert_eq!(compacted.status(), 200, "{}", compacted.text().await.unwrap());
        take(&server, 300..320).await;
        house.stop(server).await
    }

    async fn start(&self) -> TestServer {
        let data_dir = text(self.folder.path());
        let mut settings = vec![("data_dir", data_dir)];
        settings.extend(SETTINGS);
        settings.extend(self.metastore.as_deref().map(|url| ("metastore", url)));
        TestServer::start_in(tempfile::tempdir().unwrap(), &settings).await
    }

    async fn stop(self, server: TestServer) -> Self {
        server.stop().await;
        self
    }

    /// A command with the settings of this house.
    fn command<'a>(&'a self, words: &[&'a str]) -> Vec<&'a str> {
        let mut words = words.to_vec();
        words.extend(["--data-dir", text(self.folder.path())]);
        words.extend(self.metastore.iter().flat_map(|url| ["--metastore", url.as_str()]));
        words
    }

    fn repair(&self, more: &[&str]) -> Value {
        let words = [&["repair", "metastore"][..], more].concat();
        json_of(&self.command(&words))
    }

    /// Removes the SQLite file.
    fn lose_metastore(&self) {
        for name in ["icecore.db", "icecore.db-wal", "icecore.db-shm"] {
            remove(&self.folder.path().join(name));
        }
    }

    /// Leaves nothing but the warehouse.
    fn lose_all_but_warehouse(&self) {
        for entry in fs::read_dir(self.folder.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap() != "warehouse" {
                remove(&path);
            }
        }
    }

    fn warehouse(&self) -> PathBuf {
        self.folder.path().join("warehouse")
    }

    /// Everything that has to be as it was.
    async fn state(&self, server: &TestServer) -> Value {
        let mut old = Vec::new();
        for at in self.snapshots.iter().chain(&[json!("first"), json!("trial")]) {
            let sql = "SELECT count(*), max(seq) FROM events";
            let (status, answer) = server.query(SHOP, &json!({ "sql": sql, "as_of": at })).await;
            assert_eq!(status, 200, "{answer}");
            old.push(answer["rows"].clone());
        }
        let get = async |path: &str, member: &str| {
            let answer = server.get(path).await;
            assert_eq!(answer.status(), 200, "{path}");
            answer.json::<Value>().await.unwrap()[member].clone()
        };
        let catalog = format!("/catalog/v1/namespaces/{ODD_NAME}");
        json!({
            "rows": server.rows(SHOP, "SELECT id, seq FROM events ORDER BY seq").await,
            "odd": server.rows(ODD_PATH, "SELECT id, ns, seq FROM events").await,
            "letters": server.rows(ODD_PATH, "SELECT id, payload FROM dead_letters").await,
            "old": old,
            "refs": get(&format!("/v1/{SHOP}/tables/events/refs"), "refs").await,
            "mine": get(&format!("{catalog}/tables/mine"), "metadata-location").await,
            "view": get(&format!("{catalog}/views/v"), "metadata-location").await,
            "properties": get(&catalog, "properties").await,
            "dropped": get("/admin/dropped", "dropped").await.as_array().map(Vec::len),
        })
    }
}

fn remove(path: &Path) {
    match path.is_dir() {
        true => fs::remove_dir_all(path).unwrap(),
        false if path.exists() => fs::remove_file(path).unwrap(),
        false => (),
    }
}

async fn take(server: &TestServer, range: Range<u32>) -> u64 {
    let (status, reply) = server.ingest(&events(range)).await;
    assert_eq!(status, 200, "{reply}");
    reply["duplicates"].as_u64().unwrap()
}

/// How many rows were acknowledged, by an audit of the rows that agrees and knows all that was before.
async fn acked(server: &TestServer) -> i64 {
    let path = format!("/v1/{SHOP}/audit/events");
    let answer = server.post(&path, "application/json", "").await;
    let answer: Value = answer.json().await.unwrap();
    let events = &answer["tables"]["events"];
    assert!(answer["agrees"] == true && events["begins"] == false, "{answer}");
    events["acked"]["rows"].as_i64().unwrap()
}

/// Two tables, one of which is dropped, and a view.
async fn make_foreign(server: &TestServer) {
    let schema = json!({ "type": "struct", "schema-id": 0, "fields": [
        { "id": 1, "name": "a", "required": false, "type": "long" },
    ]});
    let version = json!({ "version-id": 1, "timestamp-ms": 1, "schema-id": 0, "summary": {},
        "default-namespace": [ODD_NAME],
        "representations": [{ "type": "sql", "sql": "SELECT 1 AS a", "dialect": "spark" }] });
    let view = json!({ "name": "v", "schema": schema, "view-version": version, "properties": {} });
    let table = |name: &str| json!({ "name": name, "schema": schema });
    for (kind, body) in [("tables", table("mine")), ("tables", table("gone")), ("views", view)] {
        let path = format!("/catalog/v1/namespaces/{ODD_NAME}/{kind}");
        let made = server.post(&path, "application/json", body.to_string()).await;
        assert_eq!(made.status(), 200, "{kind}: {}", made.text().await.unwrap());
    }
    let gone = format!("{}/catalog/v1/namespaces/{ODD_NAME}/tables/gone", server.url);
    assert_eq!(server.http.delete(gone).send().await.unwrap().status(), 204);
}

/// Repairs what was lost, and looks at everything.
async fn everything_comes_back(house: House, lose: impl AsyncFnOnce(&House)) {
    let server = house.start().await;
    let before = house.state(&server).await;
    let house = house.stop(server).await;
    lose(&house).await;
    let planned = house.repair(&["--dry-run"]);
    let report = house.repair(&[]);
    assert_eq!((&planned["dry_run"], &report["dry_run"]), (&json!(true), &json!(false)));
    assert_eq!(planned["tables"], report["tables"]);
    assert_eq!(report["rows_in_log"], 20, "{report}");
    assert_eq!(report["notes"], json!([]), "{report}");
    let again = refused(&house.command(&["repair", "metastore"]));
    assert!(again.contains("not empty"), "{again}");

    let server = house.start().await;
    assert_eq!(server.get("/readyz").await.status(), 200);
    assert_eq!(house.state(&server).await, before);
    // What was sent before is known, what comes now goes on, and what was in the log alone is landed once.
    assert_eq!(take(&server, 0..330).await, 320);
    server.commit(SHOP).await;
    assert_eq!(server.rows(SHOP, COUNT).await, json!([[330, 330, 330]]));
    let newest = "SELECT min(seq) > 320 FROM events WHERE id IN ('e-320', 'e-329')";
    assert_eq!(server.rows(SHOP, newest).await, json!([[true]]));
    assert_eq!(acked(&server).await, 330);
    let house = house.stop(server).await;
    let server = house.start().await;
    assert_eq!(server.rows(SHOP, COUNT).await, json!([[330, 330, 330]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_metastore_comes_back_with_every_name_snapshot_and_row() {
    let house = House::build(None).await;
    everything_comes_back(house, async |house| house.lose_metastore()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_metastore_comes_back_to_postgres() {
    let Some(databases) = Databases::new("repair").await else { return };
    databases.make("folder").await;
    let house = House::build(Some(databases.url("folder"))).await;
    everything_comes_back(house, async |_| databases.make("folder").await).await;
    databases.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_log_everything_that_was_committed_comes_back_and_seq_goes_on_above() {
    let house = House::build(None).await;
    house.lose_all_but_warehouse();
    let report = house.repair(&[]);
    assert_eq!(report["rows_in_log"], 0, "{report}");
    let server = house.start().await;
    assert_eq!(server.get("/readyz").await.status(), 200);
    assert_eq!(take(&server, 0..320).await, 300);
    server.commit(SHOP).await;
    assert_eq!(server.rows(SHOP, COUNT).await, json!([[320, 320, 320]]));
    let far = "SELECT min(seq) > 4294967296 FROM events WHERE id IN ('e-300', 'e-319')";
    assert_eq!(server.rows(SHOP, far).await, json!([[true]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warehouse_without_a_list_of_names_tells_most_of_them() {
    let house = House::build(None).await;
    house.lose_all_but_warehouse();
    remove(&house.warehouse().join(".icecore"));
    let report = house.repair(&[]);
    assert_eq!(report["names_listed_ms"], json!(null));
    let tables: BTreeSet<String> = report["tables"]
        .as_array()
        .unwrap()
        .iter()
        .map(|table| {
            format!("{}.{}", table["ns"][0].as_str().unwrap(), table["table"].as_str().unwrap())
        })
        .collect();
    for table in
        ["shop_example.events", "startups_studio__eu_.events", "startups_studio__eu_.dead_letters"]
    {
        assert!(tables.contains(table), "{tables:?}");
    }
    let server = house.start().await;
    // The text of the namespace is in the rows.
    assert_eq!(server.rows(ODD_PATH, "SELECT id, ns FROM events").await, json!([["o-1", ODD]]));
    let (status, reply) = server.ingest(&json!([{ "id": "o-1", "type": "a", "ns": ODD }])).await;
    assert_eq!((status, &reply["duplicates"]), (200, &json!(1)), "{reply}");
    assert_eq!(take(&server, 0..300).await, 300);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_in_a_table_and_in_the_log_are_landed_once() {
    let house = House::build(None).await;
    // The process ends after the metadata file of the last twenty rows was written; whether the pointer
    // moved is not known to anybody without the metastore.
    let commit = format!("/v1/{SHOP}/commit");
    post_and_die(house.folder.path(), "flush.after_commit=abort", &commit, String::new()).await;
    house.lose_metastore();
    let report = house.repair(&[]);
    assert_eq!(report["rows_in_log"], 0, "{report}");
    let server = house.start().await;
    assert_eq!(take(&server, 0..325).await, 320);
    server.commit(SHOP).await;
    assert_eq!(server.rows(SHOP, COUNT).await, json!([[325, 325, 325]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_another_server_is_refused() {
    let house = House::build(None).await;
    let other = TestServer::start().await;
    take(&other, 0..5).await;
    let other = other.stop().await;
    remove(&house.folder.path().join("wal"));
    fs::rename(other.path().join("wal"), house.folder.path().join("wal")).unwrap();
    house.lose_metastore();
    let text = refused(&house.command(&["repair", "metastore"]));
    assert!(text.contains("--force"), "{text}");
}

#[test]
fn a_data_folder_that_is_mistyped_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = folder.path().join("wrong");
    let at = ["--data-dir", text(&wrong)];
    for words in [&["repair", "metastore"][..], &["repair", "table", "shop.events"]] {
        let told = refused(&[words, &at].concat());
        assert!(told.contains(text(&wrong)), "{told}");
        assert!(!wrong.exists(), "{words:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_on_an_older_metastore_leaves_the_list_of_names_alone() {
    let house =
        House { folder: tempfile::tempdir().unwrap(), metastore: None, snapshots: Vec::new() };
    let server = house.start().await;
    take(&server, 0..5).await;
    server.commit(SHOP).await;
    let house = house.stop(server).await;
    let database = house.folder.path().join("icecore.db");
    let older = house.folder.path().join("older.db");
    fs::copy(&database, &older).unwrap();
    let server = house.start().await;
    assert_eq!(server.ingest(&json!([{ "id": "l", "type": "a", "ns": "later" }])).await.0, 200);
    server.commit("later").await;
    let house = house.stop(server).await;
    let lists = || -> Vec<String> {
        let files = fs::read_dir(house.warehouse().join(".icecore")).unwrap();
        files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap()).collect()
    };
    let before = lists();
    assert!(before.len() == 1 && before[0].contains("later"), "{before:?}");
    house.lose_metastore();
    fs::rename(&older, &database).unwrap();
    let server = house.start().await;
    assert_eq!(server.get("/readyz").await.status(), 503);
    server.stop().await;
    assert_eq!(lists(), before);
}

/// Gives a command that ends at this failpoint as by `kill -9`.
fn killed(house: &House, words: &[&str], point: &str) {
    let more = format!("failpoints={point}=abort");
    let output = process::command().args(house.command(words)).args(["--set", &more]).output();
    let output = output.unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), None, "{point}: {told}");
}

/// The failpoints of the repair of a metastore and of that of a table, in their order.
const REPAIRS: [[&str; 3]; 2] = [
    ["repair.before_marks", "repair.before_rebuild", "repair.after_rebuild"],
    ["repair.before_note", "repair.before_move", "repair.after_move"],
];

#[test]
fn every_failpoint_of_a_repair_is_met() {
    let points: Vec<&str> =
        POINTS.iter().copied().filter(|point| point.starts_with("repair.")).collect();
    assert_eq!(points, REPAIRS.concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_of_the_metastore_that_is_killed_anywhere_is_repeated() {
    let house = House::build(None).await;
    let server = house.start().await;
    let before = house.state(&server).await;
    let house = house.stop(server).await;
    house.lose_metastore();
    for point in REPAIRS[0] {
        killed(&house, &["repair", "metastore"], point);
    }
    // The last one had rebuilt it.
    let again = refused(&house.command(&["repair", "metastore"]));
    assert!(again.contains("not empty"), "{again}");
    let server = house.start().await;
    assert_eq!(server.get("/readyz").await.status(), 200);
    assert_eq!(house.state(&server).await, before);
    assert_eq!(take(&server, 0..330).await, 320);
    server.commit(SHOP).await;
    assert_eq!(server.rows(SHOP, COUNT).await, json!([[330, 330, 330]]));
    assert_eq!(acked(&server).await, 330);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_of_a_table_that_is_killed_anywhere_is_repeated() {
    let house = damaged().await;
    let words = ["repair", "table", "shop.example.events"];
    for point in REPAIRS[1] {
        killed(&house, &words, point);
    }
    let again = json_of(&house.command(&words));
    assert_eq!(again["from"], again["to"], "{again}");
    let server = house.start().await;
    assert_eq!(server.get("/readyz").await.status(), 200);
    assert_eq!(server.rows(SHOP, COUNT).await, json!([[80, 80, 80]]));
    assert_eq!(take(&server, 0..90).await, 80);
    server.commit(SHOP).await;
    assert_eq!(server.rows(SHOP, COUNT).await, json!([[90, 90, 90]]));
    assert_eq!(acked(&server).await, 90);
    server.stop().await;
}

/// Fifty rows in a snapshot, and thirty in a second one of which a file is lost.
async fn damaged() -> House {
    let house =
        House { folder: tempfile::tempdir().unwrap(), metastore: None, snapshots: Vec::new() };
    let server = house.start().await;
    take(&server, 0..50).await;
    server.commit(SHOP).await;
    let before = files_below(&house.warehouse(), ".parquet");
    take(&server, 50..80).await;
    server.commit(SHOP).await;
    let house = house.stop(server).await;
    let after = files_below(&house.warehouse(), ".parquet");
    remove(after.iter().find(|file| !before.contains(file)).unwrap());
    house
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_table_goes_back_and_its_rows_come_again_from_the_log() {
    let house = damaged().await;
    let words = ["repair", "table", "shop.example.events"];
    let planned = json_of(&house.command(&[&words[..], &["--dry-run"]].concat()));
    let report = json_of(&house.command(&words));
    assert_eq!(planned["to"], report["to"]);
    assert_eq!(report["rows"], json!([80, 50]), "{report}");
    assert_eq!((&report["relanded"], &report["lost"]), (&json!([51, 80]), &json!(null)));
    assert!(report["damaged"][0]["damage"].as_str().unwrap().contains("is not there"), "{report}");
    let again = json_of(&house.command(&words));
    assert_eq!((&again["from"], &again["to"]), (&report["to"], &report["to"]));

    let server = house.start().await;
    assert_eq!(server.get("/readyz").await.status(), 200);
    assert_eq!(server.rows(SHOP, COUNT).await, json!([[80, 80, 80]]));
    server.commit(SHOP).await;
    assert_eq!(take(&server, 0..90).await, 80);
    server.commit(SHOP).await;
    let ends = "SELECT count(*), count(DISTINCT id), min(seq), max(seq) FROM events";
    assert_eq!(server.rows(SHOP, ends).await, json!([[90, 90, 1, 90]]));
    assert_eq!(acked(&server).await, 90, "rows that came again are counted once");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_the_log_does_not_have_any_more_are_named() {
    let house = damaged().await;
    remove(&house.folder.path().join("wal"));
    let report = json_of(&house.command(&["repair", "table", "shop.example.events"]));
    assert_eq!((&report["relanded"], &report["lost"]), (&json!(null), &json!([51, 80])));
    let told = fs::read_to_string(house.folder.path().join("accepted-losses.ndjson")).unwrap();
    assert!(told.contains("\"first\":51"), "{told}");
    let server = house.start().await;
    assert_eq!(server.rows(SHOP, COUNT).await, json!([[50, 50, 50]]));
    // They are taken when they are sent again, and no `seq` is given twice.
    assert_eq!(take(&server, 0..80).await, 50);
    let again =
        "SELECT count(*), count(DISTINCT id), count(DISTINCT seq), max(seq) > 80 FROM events";
    assert_eq!(server.rows(SHOP, again).await, json!([[80, 80, 80, true]]));
    server.stop().await;
}
