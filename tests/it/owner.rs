//! Several servers over one metastore, one of which takes events: whoever goes on after another one,
//! no acknowledged event is lost, none is there twice, and no `seq` is given twice.

use crate::process::{Process, run};
use reqwest::{Client, Response};
use serde_json::{Value, json};
use sqlx::AnyPool;
use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};
use tempfile::TempDir;

/// Names the PostgreSQL server that the tests may make databases in. `./check` starts one.
const SERVER: &str = "TEST_POSTGRES";
/// Longest that a server may take to learn that it is no longer the owner.
const LEARNING_MAX: Duration = Duration::from_secs(20);
/// Longest that a stop may take.
const STOPPING_MAX: Duration = Duration::from_secs(20);
const COUNT: &str = "SELECT count(*), count(DISTINCT id), count(DISTINCT seq) FROM events";

/// Servers that share metastore and warehouse, each with a data folder of its own.
struct House {
    folder: TempDir,
    metastore: String,
    http: Client,
}

impl House {
    /// A database file that lies in no server's folder, so any of them may be running.
    fn on_sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let metastore = format!("sqlite://{}/shared.db", folder.path().display());
        Self { folder, metastore, http: Client::new() }
    }

    /// A new PostgreSQL database; none without a PostgreSQL server, which only CI forbids.
    #[expect(clippy::disallowed_methods, reason = "says where the tests' PostgreSQL is")]
    async fn on_postgres() -> Option<Self> {
        let Ok(server) = std::env::var(SERVER) else {
            assert!(std::env::var_os("CI").is_none(), "{SERVER} is not set");
            return None;
        };
        sqlx::any::install_default_drivers();
        let pool = AnyPool::connect(&server).await.unwrap();
        let name = format!("owner_{}", uuid::Uuid::new_v4().simple());
        let made = sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}")));
        made.execute(&pool).await.unwrap();
        let mut url = url::Url::parse(&server).unwrap();
        url.set_path(&name);
        Some(Self { metastore: url.into(), ..Self::on_sqlite() })
    }

    fn settings(&self, server: &str) -> Vec<(&'static str, String)> {
        let path = self.folder.path().display();
        vec![
            ("data_dir", format!("{path}/{server}")),
            ("warehouse", format!("file://{path}/warehouse")),
            ("metastore", self.metastore.clone()),
            // Nothing is committed unless a test asks for it.
            ("commit.interval", "10min".to_owned()),
            ("wal.segment_bytes", "1MiB".to_owned()),
        ]
    }

    async fn start(&self, server: &str) -> Process {
        Process::start(&self.settings(server)).await
    }

    /// What a command that must succeed writes.
    fn command(&self, server: &str, arguments: &[&str], input: &[u8]) -> String {
        let output = run(arguments, &self.settings(server), input);
        let (out, told) = (output.stdout, String::from_utf8_lossy(&output.stderr).into_owned());
        assert!(output.status.success(), "{arguments:?}: {told}");
        String::from_utf8(out).unwrap()
    }

    async fn post(&self, server: &Process, path: &str, body: &Value) -> Response {
        let request = self.http.post(format!("{}{path}", server.url)).json(body);
        request.send().await.unwrap()
    }

    /// Sends events of these ids, all of which must be taken; the reply.
    async fn take(&self, server: &Process, ids: &[String]) -> Value {
        let answer = self.post(server, "/ingest", &events(ids)).await;
        assert_eq!(answer.status(), 200);
        answer.json().await.unwrap()
    }

    async fn commit(&self, server: &Process) {
        let answer = self.post(server, "/v1/shop/commit", &json!({})).await;
        assert_eq!(answer.status(), 200);
    }

    async fn rows(&self, server: &Process, sql: &str) -> Value {
        let answer = self.post(server, "/v1/shop/sql", &json!({ "sql": sql })).await;
        assert_eq!(answer.status(), 200);
        answer.json::<Value>().await.unwrap()["rows"].clone()
    }

    async fn is_ready(&self, server: &Process) -> bool {
        self.http.get(format!("{}/readyz", server.url)).send().await.unwrap().status() == 200
    }

    /// A server that takes no events says why wherever it is asked to, and answers queries.
    async fn takes_no_events(&self, server: &Process) {
        let ready = self.http.get(format!("{}/readyz", server.url)).send().await.unwrap();
        let ingest = self.post(server, "/ingest", &events(&ids("refused", 1))).await;
        let committed =
            self.post(server, "/ingest?ack=committed", &events(&ids("refused", 1))).await;
        let commit = self.post(server, "/v1/shop/commit", &json!({})).await;
        let compact = self.post(server, "/admin/jobs/compact", &json!({})).await;
        for answer in [ready, ingest, committed, commit, compact] {
            assert_eq!(answer.status(), 503, "{}", answer.url());
            assert!(answer.headers().contains_key("retry-after"));
            let told: Value = answer.json().await.unwrap();
            let text = told["error"].as_str().unwrap();
            assert!(text.contains("events are taken by the server with log"), "{text}");
            assert!(text.contains("icecore wal take-over"), "{text}");
        }
        let config = self.http.get(format!("{}/catalog/v1/config", server.url)).send().await;
        assert_eq!(config.unwrap().status(), 200);
    }

    /// Status and answer of a count that waits until it sees so many events.
    async fn count_from(&self, server: &Process, min_seq: u64) -> (u16, Value) {
        let body = json!({ "sql": COUNT, "min_seq": min_seq, "timeout_ms": 300 });
        let answer = self.post(server, "/v1/shop/sql", &body).await;
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// The events that are in a server's log alone, sent to the server that takes events.
    fn send_again(&self, from: (&str, &[&str]), to: &Process) -> (usize, String) {
        let left = self.command(from.0, &[&["wal", "export"], from.1].concat(), b"");
        let sent = run(&["ingest", "--url", &to.url], &self.settings(from.0), left.as_bytes());
        (left.lines().count(), String::from_utf8(sent.stdout).unwrap())
    }
}

fn ids(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}-{n}")).collect()
}

fn events(ids: &[String]) -> Value {
    let event = |id: &String| json!({ "id": id, "type": "order.placed", "ns": "shop", "data": { "id": id }, "colour": "red" });
    ids.iter().map(event).collect()
}

/// First and last `seq` of a reply.
fn range(reply: &Value) -> (u64, u64) {
    (reply["seq"]["first"].as_u64().unwrap(), reply["seq"]["last"].as_u64().unwrap())
}

/// The owner is gone with acknowledged events in its log alone; another server goes on, the first
/// one comes back, and takes over again when the other one is gone.
async fn fail_over(house: House) {
    let mut x = house.start("x").await;
    house.take(&x, &ids("one", 10)).await;
    house.commit(&x).await;
    let (_, last) = range(&house.take(&x, &ids("two", 10)).await);
    assert_eq!(last, 20);
    x.kill();

    // Another server takes nothing until an operator says so.
    let mut y = house.start("y").await;
    house.takes_no_events(&y).await;
    assert_eq!(house.rows(&y, COUNT).await, json!([[10, 10, 10]]));
    y.kill();
    let told = house.command("y", &["wal", "take-over"], b"");
    assert!(told.contains("start the server") && !told.contains("export"), "{told}");
    let again = house.command("y", &["wal", "take-over"], b"");
    assert!(again.contains("already"), "{again}");
    let mut y = house.start("y").await;
    assert!(house.is_ready(&y).await);
    let (first, _) = range(&house.take(&y, &ids("three", 50)).await);
    assert!(last < first, "{first}");
    assert_eq!(house.take(&y, &ids("one", 10)).await["duplicates"], 10);
    house.commit(&y).await;
    // A namespace that only the first log knew begins above what that one may have given out.
    let elsewhere = json!([{ "id": "e", "type": "a", "ns": "elsewhere" }]);
    let reply: Value = house.post(&y, "/ingest", &elsewhere).await.json().await.unwrap();
    assert!(last < range(&reply).0, "{reply}");

    // The first one comes back: it keeps what no table has, and changes nothing.
    let mut x = house.start("x").await;
    house.takes_no_events(&x).await;
    assert_eq!(house.rows(&x, COUNT).await, json!([[60, 60, 60]]));
    x.kill_and_restart().await;
    house.takes_no_events(&x).await;
    x.kill();
    let (left, sent) = house.send_again(("x", &[]), &y);
    assert_eq!(left, 10, "{sent}");
    let (_, sent) = house.send_again(("x", &[]), &y);
    assert!(sent.contains("10 events sent: 0 new, 10 duplicates, 0 rejected"), "{sent}");
    assert_eq!(house.rows(&y, COUNT).await, json!([[70, 70, 70]]));
    // A member without a column is kept, and nothing is kept whole but for its sake.
    let kept = "SELECT count(*) FROM events WHERE id LIKE 'two-%' AND payload LIKE '%colour%'";
    assert_eq!(house.rows(&y, kept).await, json!([[10]]));
    let seq = "SELECT count(*) FROM events WHERE payload LIKE '%\"seq\"%'";
    assert_eq!(house.rows(&y, seq).await, json!([[0]]));
    house.commit(&y).await;
    let (_, last) = range(&house.take(&y, &ids("four", 5)).await);
    y.kill();

    let told = house.command("x", &["wal", "take-over"], b"");
    assert!(told.contains("icecore wal export --folder"), "{told}");
    let x = house.start("x").await;
    let (first, _) = range(&house.take(&x, &ids("five", 5)).await);
    assert!(last < first, "{first}");
    let (left, sent) = house.send_again(("y", &[]), &x);
    assert_eq!(left, 6, "four and the one elsewhere: {sent}");
    // What it had itself before is in the tables by now, under the ids it had.
    let aside = aside(&house, "x");
    let (_, sent) = house.send_again(("x", &["--folder", aside.to_str().unwrap()]), &x);
    assert!(sent.contains("10 events sent: 0 new, 10 duplicates, 0 rejected"), "{sent}");
    house.commit(&x).await;
    assert_eq!(house.rows(&x, COUNT).await, json!([[80, 80, 80]]));
}

fn aside(house: &House, server: &str) -> PathBuf {
    let folders = std::fs::read_dir(house.folder.path().join(server)).unwrap();
    let mut paths = folders.map(|found| found.unwrap().path());
    paths.find(|path| path.to_string_lossy().contains("wal.left-")).unwrap()
}

/// Another log takes over while the owner runs.
async fn depose(house: House) {
    let mut x = house.start("x").await;
    house.take(&x, &ids("one", 10)).await;
    house.commit(&x).await;
    house.take(&x, &ids("two", 10)).await;
    house.command("y", &["wal", "take-over"], b"");
    // Also when it has not heard of it yet, and the new owner has not committed anything.
    let commit = house.post(&x, "/v1/shop/commit", &json!({})).await;
    assert_eq!(commit.status(), 503);
    let y = house.start("y").await;
    house.take(&y, &ids("three", 50)).await;
    house.commit(&y).await;
    let learned = async {
        while house.is_ready(&x).await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LEARNING_MAX, learned).await.unwrap();
    house.takes_no_events(&x).await;
    assert_eq!(house.rows(&x, COUNT).await, json!([[60, 60, 60]]));
    x.kill_and_restart().await;
    house.takes_no_events(&x).await;
    x.kill();
    let (left, sent) = house.send_again(("x", &[]), &y);
    assert_eq!(left, 10);
    assert!(sent.contains("10 events sent: 10 new"), "{sent}");
    house.commit(&y).await;
    assert_eq!(house.rows(&y, COUNT).await, json!([[70, 70, 70]]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_loses_nothing_and_gives_no_seq_twice_on_sqlite() {
    fail_over(House::on_sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_loses_nothing_and_gives_no_seq_twice_on_postgres() {
    let Some(house) = House::on_postgres().await else { return };
    fail_over(house).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_is_deposed_keeps_what_no_table_has_on_sqlite() {
    depose(House::on_sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_is_deposed_keeps_what_no_table_has_on_postgres() {
    let Some(house) = House::on_postgres().await else { return };
    depose(house).await;
}

/// What stands between a server and its database, and can be taken away.
struct Wire {
    address: SocketAddr,
    /// None once it is cut.
    streams: Arc<Mutex<Option<Vec<TcpStream>>>>,
}

impl Wire {
    fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let streams = Arc::new(Mutex::new(Some(Vec::new())));
        let (server, open) = (server.to_owned(), Arc::clone(&streams));
        thread::spawn(move || {
            for here in listener.incoming() {
                let (here, there) = (here.unwrap(), TcpStream::connect(&server).unwrap());
                let Some(streams) = &mut *open.lock().unwrap() else { break };
                for (from, to) in [(&here, &there), (&there, &here)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    // It ends with the connection, however that ends.
                    thread::spawn(move || drop(std::io::copy(&mut from, &mut to)));
                }
                streams.extend([here, there]);
            }
        });
        Self { address, streams }
    }

    /// Ends every connection, and from now on nobody listens.
    fn cut(&self) {
        for stream in self.streams.lock().unwrap().take().unwrap() {
            // One whose other end is gone is as good as ended.
            let _ended = stream.shutdown(std::net::Shutdown::Both);
        }
        drop(TcpStream::connect(self.address).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_metastore_a_server_says_so_takes_events_and_stops_in_time() {
    let Some(mut house) = House::on_postgres().await else { return };
    let mut url = url::Url::parse(&house.metastore).unwrap();
    let wire = Wire::to(&format!("{}:{}", url.host_str().unwrap(), url.port().unwrap()));
    url.set_host(Some("127.0.0.1")).unwrap();
    url.set_port(Some(wire.address.port())).unwrap();
    house.metastore = url.into();
    let mut x = house.start("x").await;
    house.take(&x, &ids("one", 10)).await;
    house.commit(&x).await;
    wire.cut();
    let answer = house.post(&x, "/v1/shop/sql", &json!({ "sql": COUNT })).await;
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    house.take(&x, &ids("two", 10)).await;
    assert!(x.terminate(STOPPING_MAX).await, "it does not stop in time");
}

/// One server whose metastore lies in its data folder: nobody else can be running on it.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_log_beside_its_metastore_is_followed_by_a_new_one() {
    let house = House::on_sqlite();
    let data = house.folder.path().join("x");
    let metastore = format!("sqlite://{}/icecore.db", data.display());
    let house = House { metastore, ..house };
    let mut x = house.start("x").await;
    house.take(&x, &ids("one", 10)).await;
    house.commit(&x).await;
    let (_, last) = range(&house.take(&x, &ids("two", 10)).await);
    x.kill();
    std::fs::rename(data.join("wal"), data.join("found.later")).unwrap();
    // What was acknowledged and is in no table is named, and an operator has to give it up.
    let mut x = house.start("x").await;
    let ready = house.http.get(format!("{}/readyz", x.url)).send().await.unwrap();
    assert_eq!(ready.status(), 503);
    let told = ready.text().await.unwrap();
    assert!(told.contains("namespace `shop`, table events: seq 11..20"), "{told}");
    assert!(told.contains("icecore wal accept-loss"), "{told}");
    x.kill();
    let looked = house.command("x", &["wal", "accept-loss", "--all", "--dry-run", "--json"], b"");
    let looked: Value = serde_json::from_str(&looked).unwrap();
    let missing = json!([{ "ns": "shop", "table": "events", "first": 11, "last": 20 }]);
    assert_eq!(looked["given_up"], missing);
    let less = ["wal", "accept-loss", "--ns", "shop", "--through", "19"];
    let refused = run(&less, &house.settings("x"), b"");
    assert_eq!(refused.status.code(), Some(1), "some would still be missing");
    house.command("x", &["wal", "accept-loss", "--ns", "shop", "--through", "20"], b"");
    let x = house.start("x").await;
    assert!(house.is_ready(&x).await);
    let (first, _) = range(&house.take(&x, &ids("three", 10)).await);
    assert!(last < first, "{first}");
    // Of the lost ones, those that are sent again are taken; the others come from the log.
    assert_eq!(house.take(&x, &[ids("one", 10), ids("two", 3)].concat()).await["duplicates"], 10);
    let found = data.join("found.later");
    let (left, sent) = house.send_again(("x", &["--folder", found.to_str().unwrap()]), &x);
    assert_eq!(left, 10);
    // Those that a client was quicker with are there already.
    assert!(sent.contains("10 events sent: 7 new, 3 duplicates, 0 rejected"), "{sent}");
    house.commit(&x).await;
    assert_eq!(house.rows(&x, COUNT).await, json!([[30, 30, 30]]));
    let checked: Value = house.post(&x, "/admin/fsck", &json!({})).await.json().await.unwrap();
    assert_eq!(checked["whole"], true, "what was given up is explained: {checked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_know_a_namespace_yet_waits_for_its_min_seq() {
    let house = House::on_sqlite();
    let (first, second) = (house.start("first").await, house.start("second").await);
    house.take(&first, &ids("e", 3)).await;
    let (status, answer) = house.count_from(&second, 3).await;
    assert_eq!((status, &answer["code"]), (503, &json!("NOT_YET")), "{answer}");
    let commit = house.post(&first, "/v1/shop/commit", &json!({})).await;
    assert_eq!(commit.status(), 200);
    let (status, answer) = house.count_from(&second, 3).await;
    assert_eq!((status, &answer["rows"]), (200, &json!([[3, 3, 3]])), "{answer}");
    // The server that takes the events knows all of their namespaces.
    let body = json!({ "sql": COUNT, "min_seq": 1 });
    assert_eq!(house.post(&first, "/v1/nowhere/sql", &body).await.status(), 404);
}
