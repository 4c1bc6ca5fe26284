//! A data folder that was moved: the start says so, and `icecore catalog relocate` mends it.

use crate::harness::{TestServer, config, events, files_below};
use icecore::server::Server;
use icecore_lake::clock::Clock;
use serde_json::{Value, json};
use std::{
    fs,
    path::Path,
    process::{Command, Output},
};
use tempfile::TempDir;

const COUNT: &str = "SELECT count(*), count(DISTINCT id), min(seq), max(seq) FROM events";

/// Moves a folder to a new place.
fn moved(folder: TempDir) -> TempDir {
    let new = tempfile::tempdir().unwrap();
    fs::rename(folder.keep(), new.path()).unwrap();
    new
}

fn relocate(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_icecore"));
    command.args(["catalog", "relocate", "--data-dir", folder.to_str().unwrap()]);
    command.args(arguments).output().unwrap()
}

fn relocated(folder: &Path, arguments: &[&str]) -> Value {
    let output = relocate(folder, &[&["--json"], arguments].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Every file below a folder with its bytes, in order.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let files = files_below(folder, "").into_iter();
    files.map(|path| (path.display().to_string(), fs::read(&path).unwrap())).collect()
}

/// Three snapshots, a dropped table, a view, and events that are in the log alone.
async fn house() -> (TempDir, Vec<Value>) {
    let server = TestServer::start().await;
    let mut snapshots = Vec::new();
    for n in 0..3 {
        server.ingest(&events(n * 100..n * 100 + 100)).await;
        snapshots.push(server.commit("shop.example").await["events"].clone());
    }
    server.ingest(&json!([{ "id": "x", "type": "a", "ns": "other" }])).await;
    server.commit("other").await;
    let schema = json!({ "type": "struct", "schema-id": 0, "fields": [
        { "id": 1, "name": "a", "required": false, "type": "long" },
    ]});
    let table = json!({ "name": "mine", "schema": schema });
    let version = json!({ "version-id": 1, "timestamp-ms": 1, "schema-id": 0, "summary": {},
        "default-namespace": ["other"],
        "representations": [{ "type": "sql", "sql": "SELECT 1 AS a", "dialect": "spark" }] });
    let view = json!({ "name": "v", "schema": schema, "view-version": version, "properties": {} });
    for (kind, body) in [("tables", table), ("views", view)] {
        let path = format!("/catalog/v1/namespaces/other/{kind}");
        let made = server.post(&path, "application/json", body.to_string()).await;
        assert_eq!(made.status(), 200, "{kind}: {}", made.text().await.unwrap());
    }
    let dropped = format!("{}/v1/other/tables/mine", server.url);
    assert_eq!(server.http.delete(dropped).send().await.unwrap().status(), 200);
    server.ingest(&events(300..320)).await;
    (server.stop().await, snapshots)
}

async fn refusal(folder: &TempDir) -> String {
    let refused = Server::start(&config(folder, &[]), Clock::system()).await.unwrap_err();
    refused.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_folder_does_not_start_and_says_where_it_was() {
    let (folder, _) = house().await;
    let was = folder.path().display().to_string();
    let folder = moved(folder);
    let before = files(&folder.path().join("warehouse"));
    let text = refusal(&folder).await;
    let is = folder.path().display().to_string();
    for part in [
        &format!("`file://{was}/warehouse`"),
        &format!("`file://{is}/warehouse`"),
        "move them back",
        &format!("`--warehouse file://{was}/warehouse`"),
        "icecore catalog relocate",
    ] {
        assert!(text.to_lowercase().contains(&part.to_lowercase()), "`{part}` in: {text}");
    }
    assert!(!text.contains("drop"), "{text}");
    assert_eq!(files(&folder.path().join("warehouse")), before);
    // Moved back it is as it was.
    fs::rename(folder.path(), &was).unwrap();
    let holder = tempfile::tempdir().unwrap();
    let data_dir = [("data_dir", was.as_str())];
    let server = TestServer::start_in(holder, &data_dir).await;
    assert_eq!(server.rows("shop.example", COUNT).await, json!([[320, 320, 1, 320]]));
    server.stop().await;
    fs::remove_dir_all(was).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relocated_folder_has_every_snapshot_and_takes_events() {
    let (folder, snapshots) = house().await;
    let folder = moved(folder);
    let before = files(folder.path());
    let planned = relocated(folder.path(), &["--dry-run"]);
    assert_eq!(planned["tables"].as_array().unwrap().len(), 4, "{planned}");
    let unchanged = |files: &[(String, Vec<u8>)]| {
        let warehouse = files.iter().filter(|(path, _)| path.contains("/warehouse/"));
        warehouse.cloned().collect::<Vec<_>>()
    };
    assert_eq!(unchanged(&files(folder.path())), unchanged(&before));

    let done = relocated(folder.path(), &[]);
    assert_eq!(done["tables"], planned["tables"]);
    assert_eq!(relocated(folder.path(), &[])["tables"], json!([]));
    let server = TestServer::start_in(folder, &[]).await;
    assert_eq!(server.rows("shop.example", COUNT).await, json!([[320, 320, 1, 320]]));
    for (n, snapshot) in snapshots.iter().enumerate() {
        let sql = "SELECT count(*) FROM events";
        let request = json!({ "sql": sql, "as_of": snapshot });
        let (status, answer) = server.query("shop.example", &request).await;
        assert_eq!((status, &answer["rows"]), (200, &json!([[100 * (n + 1)]])), "{answer}");
    }
    // The ids that were taken before are known, and the rest of the log goes to the table.
    let (status, reply) = server.ingest(&events(0..330)).await;
    assert_eq!((status, &reply["duplicates"]), (200, &json!(320)), "{reply}");
    server.commit("shop.example").await;
    assert_eq!(server.rows("shop.example", COUNT).await, json!([[330, 330, 1, 330]]));
    // The dropped table comes back, and the view is there.
    let dropped: Value = server.get("/admin/dropped").await.json().await.unwrap();
    let uuid = dropped["dropped"][0]["uuid"].as_str().unwrap_or_default().to_owned();
    let undrop = format!("/admin/dropped/{uuid}/undrop");
    let undrop = server.post(&undrop, "application/json", "{}").await;
    assert_eq!(undrop.status(), 200, "{dropped}");
    let both = "SELECT (SELECT count(*) FROM events) AS a, (SELECT count(*) FROM mine) AS b";
    assert_eq!(server.rows("other", both).await, json!([[1, 0]]));
    let view = server.get("/catalog/v1/namespaces/other/views/v").await;
    let view: Value = view.json().await.unwrap();
    let root = server.folder.path().display().to_string();
    assert!(view["metadata"]["location"].as_str().unwrap().contains(&root), "{view}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relocation_goes_on_where_it_was_stopped() {
    let (folder, _) = house().await;
    let folder = moved(folder);
    let was = relocated(folder.path(), &["--dry-run"]);
    // One table alone, as if the run had ended after it.
    let first = was["tables"][0]["from"].as_str().unwrap();
    let to = was["tables"][0]["to"].as_str().unwrap();
    let one = relocated(folder.path(), &["--from", first, "--to", to]);
    assert_eq!(one["tables"].as_array().unwrap().len(), 1, "{one}");
    assert!(refusal(&folder).await.contains("icecore catalog relocate"));
    let rest = relocated(folder.path(), &[]);
    assert_eq!(rest["tables"].as_array().unwrap().len(), 3, "{rest}");
    let server = TestServer::start_in(folder, &[]).await;
    assert_eq!(server.rows("shop.example", COUNT).await, json!([[320, 320, 1, 320]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_with_a_warehouse_of_its_own_is_told_to_share_one() {
    let (folder, _) = house().await;
    let second = tempfile::tempdir().unwrap();
    let metastore = format!("sqlite://{}/icecore.db", folder.path().display());
    let settings = [("metastore", metastore.as_str())];
    let refused =
        Server::start(&config(&second, &settings), Clock::system()).await.unwrap_err().to_string();
    let warehouse = format!("--warehouse file://{}/warehouse", folder.path().display());
    for part in [warehouse.as_str(), "all servers on one metastore need the same warehouse"] {
        assert!(refused.contains(part), "`{part}` in: {refused}");
    }
    assert!(!refused.contains("drop"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_by_another_name_is_the_same_folder() {
    let (folder, _) = house().await;
    let names = tempfile::tempdir().unwrap();
    let link = names.path().join("link");
    std::os::unix::fs::symlink(folder.path(), &link).unwrap();
    let before = files(&folder.path().join("warehouse"));
    assert_eq!(relocated(&link, &[])["tables"], json!([]));
    assert_eq!(files(&folder.path().join("warehouse")), before);
    let settings = [("data_dir", link.to_str().unwrap())];
    for (n, settings) in [&settings[..], &[], &settings[..]].into_iter().enumerate() {
        let more = u32::try_from(n).unwrap();
        let server = match settings {
            [] => Server::start(&config(&folder, &[]), Clock::system()).await,
            _ => Server::start(&config(&names, settings), Clock::system()).await,
        };
        let server = server.unwrap();
        let url = format!("http://{}", server.address());
        let http = reqwest::Client::new();
        let post = async |path: &str, body: Value| -> Value {
            let answer = http.post(format!("{url}{path}")).json(&body).send().await.unwrap();
            assert_eq!(answer.status(), 200);
            answer.json().await.unwrap()
        };
        post("/ingest", events(0..321 + more)).await;
        post("/v1/shop.example/commit", json!({})).await;
        let all = 321 + more;
        let answer = post("/v1/shop.example/sql", json!({ "sql": COUNT })).await;
        assert_eq!(answer["rows"], json!([[all, all, 1, all]]));
        // Clients are given the name that the tables have.
        let table = format!("{url}/catalog/v1/namespaces/shop_example/tables/events");
        let table: Value = http.get(table).send().await.unwrap().json().await.unwrap();
        let root = format!("file://{}/warehouse/", folder.path().display());
        assert!(table["metadata"]["location"].as_str().unwrap().starts_with(&root), "{table}");
        server.stop().await;
    }
    // One that was made under a link's name is one under its own.
    let names = tempfile::tempdir().unwrap();
    let (own, link) = (names.path().join("own"), names.path().join("link"));
    fs::create_dir(&own).unwrap();
    std::os::unix::fs::symlink(&own, &link).unwrap();
    for (data_dir, count) in [(&link, 10), (&own, 20), (&link, 30)] {
        let settings = [("data_dir", data_dir.to_str().unwrap())];
        let server = TestServer::start_in(tempfile::tempdir().unwrap(), &settings).await;
        server.ingest(&events(0..count)).await;
        server.commit("shop.example").await;
        assert_eq!(server.rows("shop.example", COUNT).await, json!([[count, count, 1, count]]));
        server.stop().await;
    }
}
