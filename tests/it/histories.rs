//! Many clients over HTTP at real server processes over one metastore. Clients give up in the
//! middle of a request, send it again to another server, connections to the database are killed,
//! and so are the servers; for what all clients were told there has to be an order.
//!
//! Each operation is asked for under a name of its own, by which the feed of changes tells of it.

use crate::process::Process;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures::future::join_all;
use icecore_histories::{Asked, NAMES, Operation, Rng, SeedableRng, StdRng, Told, any, check};
use reqwest::{Client, Method};
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use sqlx::{AnyPool, any::AnyPoolOptions};
use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tempfile::TempDir;
use tokio::{sync::RwLock, time::timeout};

/// Names the PostgreSQL server that the tests may make databases in. `./check` starts one.
const SERVER: &str = "TEST_POSTGRES";
/// Longest an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// A client that gives up does so within this many milliseconds.
const IMPATIENCE_MS: u64 = 20;
/// Who names the operations.
const ISSUER: &str = "https://id.example";
/// The id of what no client of a run asks for.
const NOBODY: u64 = 0;

/// How a run goes.
#[derive(Clone, Copy, Debug)]
struct Run {
    seed: u64,
    clients: u64,
    operations: u64,
    /// How often a server is ended with `kill -9`.
    kills: u64,
}

/// The servers of a run and what its clients were told.
struct World {
    run: Run,
    folder: TempDir,
    /// Written while one is down, so that clients wait for it.
    processes: Vec<RwLock<Process>>,
    database: Option<AnyPool>,
    names: Names,
    clock: AtomicU64,
    history: Mutex<Vec<Operation>>,
}

impl World {
    /// One server on SQLite.
    async fn on_sqlite(run: Run) -> Self {
        Self::start(run, &[String::new()], None).await
    }

    /// Two servers on a new PostgreSQL database; none without a PostgreSQL server, which only CI
    /// forbids.
    async fn on_postgres(run: Run) -> Option<Self> {
        let (url, pool) = database(run).await?;
        Some(Self::start(run, &[url.clone(), url], Some(pool)).await)
    }

    async fn start(run: Run, metastores: &[String], database: Option<AnyPool>) -> Self {
        let (folder, names) = (tempfile::tempdir().unwrap(), Names::new());
        let mut processes = Vec::new();
        for (number, metastore) in metastores.iter().enumerate() {
            let settings = [
                ("auth", "on".to_owned()),
                ("oidc.issuer", ISSUER.to_owned()),
                ("oidc.audience", "icecore".to_owned()),
                ("oidc.algorithms", "EdDSA".to_owned()),
                ("oidc.jwks", names.keys().to_string()),
                ("oidc.grants", "all=admin:*".to_owned()),
                ("metastore", metastore.clone()),
                ("data_dir", format!("{}/{number}", folder.path().display())),
                ("warehouse", format!("file://{}/warehouse", folder.path().display())),
                ("wal.segment_bytes", "1MiB".to_owned()),
            ];
            processes.push(RwLock::new(Process::start(&settings).await));
        }
        let namespaces = format!("{}/catalog/v1/namespaces", processes[0].read().await.url);
        let made = Client::new().post(namespaces).bearer_auth(names.token(NOBODY));
        let made = made.json(&json!({"namespace": ["a"]})).send().await.unwrap();
        assert_eq!(made.status(), 200);
        let (clock, history) = (AtomicU64::new(0), Mutex::new(Vec::new()));
        Self { run, folder, processes, database, names, clock, history }
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    /// Runs the clients and then reads every table at every server.
    async fn run(&self) {
        join_all((0..self.run.clients).map(|client| self.work(client))).await;
        let http = Client::new();
        for (server, name) in
            (0..self.processes.len()).flat_map(|s| (0..NAMES).map(move |n| (s, n)))
        {
            let (called, asked) = (self.tick(), Asked::Read { name });
            let told = self.ask(&http, (NOBODY, asked), server, PATIENCE).await;
            assert!(matches!(told, Told::Seen { .. } | Told::Missing), "{told:?}");
            self.note(Operation { id: NOBODY, called, returned: self.tick(), asked, told });
        }
    }

    fn note(&self, operation: Operation) {
        self.history.lock().unwrap().push(operation);
    }

    async fn work(&self, client: u64) {
        let mut random = StdRng::seed_from_u64(self.run.seed * 1000 + client);
        let http = Client::new();
        let servers = self.processes.len();
        let server = usize::try_from(client).unwrap() % servers;
        let turns = self.run.operations / self.run.clients;
        for turn in 1..=turns {
            if client == 0 && turn % (turns / (self.run.kills + 1)) == 0 && turn < turns {
                let victim = &self.processes[random.random_range(0..servers)];
                victim.write().await.kill_and_restart().await;
            }
            if random.random_ratio(1, 200) {
                self.kill_a_connection().await;
            }
            let id = client * 1_000_000 + turn;
            let asked = any(&mut random, id);
            let gives_up = random.random_ratio(1, 20);
            let patience = match gives_up {
                true => Duration::from_millis(random.random_range(0..IMPATIENCE_MS)),
                false => PATIENCE,
            };
            let again = random.random_bool(0.5).then(|| random.random_range(0..servers));
            let called = self.tick();
            let mut told = self.ask(&http, (id, asked), server, patience).await;
            if told == Told::Unknown
                && let Some(server) = again
            {
                told = match self.ask(&http, (id, asked), server, PATIENCE).await {
                    // That only says that the repeat has not done it.
                    Told::NotDone => Told::Unknown,
                    told => told,
                };
            }
            self.note(Operation { id, called, returned: self.tick(), asked, told });
        }
    }

    async fn ask(
        &self,
        http: &Client,
        (id, asked): (u64, Asked),
        server: usize,
        patience: Duration,
    ) -> Told {
        let url = self.processes[server].read().await.url.clone();
        let (method, path, body) = request(asked);
        let request = http
            .request(method, format!("{url}/catalog/v1/{path}"))
            .bearer_auth(self.names.token(id))
            .header("idempotency-key", format!("00000000-0000-4000-8000-{id:012x}"))
            .json(&body);
        let answered = timeout(patience, async {
            let response = request.send().await?;
            Ok((response.status().as_u16(), response.bytes().await?))
        });
        let answered: Result<_, reqwest::Error> = match answered.await {
            Ok(answered) => answered,
            Err(_) if patience == PATIENCE => panic!("{asked:?}: no answer within {PATIENCE:?}"),
            // The connection is cut. The server may have heard it all.
            Err(_) => return Told::Unknown,
        };
        match answered {
            Ok((status, body)) => told(asked, status, &body),
            Err(cause) if cause.is_connect() => Told::NotDone,
            Err(_) => Told::Unknown,
        }
    }

    /// Ends some connection of a server to PostgreSQL, in use or not.
    async fn kill_a_connection(&self) {
        let Some(database) = &self.database else { return };
        sqlx::raw_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()
             ORDER BY random() LIMIT 1",
        )
        .execute(database)
        .await
        .unwrap();
    }

    /// The history, which has to be one of a catalog that was used, and have an order.
    #[expect(clippy::print_stdout, reason = "the long form reports what it did")]
    async fn verify(self) {
        let history = std::mem::take(&mut *self.history.lock().unwrap());
        let count = |wanted: fn(&Told) -> bool| {
            history.iter().filter(|operation| wanted(&operation.told)).count()
        };
        let done = count(|told| matches!(told, Told::Done | Told::Seen { .. }));
        let (failed, unknown) = (count(|t| *t == Told::NotDone), count(|t| *t == Told::Unknown));
        let (run, servers) = (self.run, self.processes.len());
        println!("{run:?}, {servers} servers: {done} done, {failed} failed, {unknown} unknown");
        assert!(history.len() / 4 < done && 0 < unknown);
        let changes = self.changes().await;
        drop(self.processes);
        if let Err(cause) = check(&history, &changes) {
            // The tables are worth a look then.
            panic!("{run:?} in {} has no order: {cause}", self.folder.keep().display());
        }
    }

    /// Who asked for each change, in order.
    async fn changes(&self) -> Vec<u64> {
        let (mut changes, mut token) = (Vec::new(), String::new());
        let url = format!("{}/catalog/v1/events", self.processes[0].read().await.url);
        loop {
            let asked = json!({"continuation-token": token, "page-size": 1000});
            let page = Client::new().post(&url).bearer_auth(self.names.token(NOBODY)).json(&asked);
            let page: Value = page.send().await.unwrap().json().await.unwrap();
            let events = page["events"].as_array().unwrap();
            if events.is_empty() {
                return changes;
            }
            token = page["continuation-token"].as_str().unwrap().to_owned();
            let principals = events.iter().filter_map(|e| e["actor"]["id"].as_str());
            let ids =
                principals.map(|name| name.strip_prefix("oidc:").unwrap().parse::<u64>().unwrap());
            changes.extend(ids.filter(|id| *id != NOBODY));
        }
    }
}

/// Gives each operation a token that names it.
struct Names(Ed25519KeyPair);

impl Names {
    fn new() -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap())
    }

    /// The JWK set by which the servers know the tokens.
    fn keys(&self) -> Value {
        let point = URL_SAFE_NO_PAD.encode(self.0.public_key());
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": point}]})
    }

    fn token(&self, id: u64) -> String {
        let claims = json!({"iss": ISSUER, "aud": "icecore", "sub": id.to_string(),
            "exp": 4_000_000_000_i64, "scope": "all"});
        let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let signed = format!("{}.{}", encode(&json!({"alg": "EdDSA"})), encode(&claims));
        let signature = URL_SAFE_NO_PAD.encode(self.0.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }
}

/// A new, empty database, and connections to it.
#[expect(clippy::disallowed_methods, reason = "says where the tests' PostgreSQL is")]
async fn database(run: Run) -> Option<(String, AnyPool)> {
    let Ok(server) = std::env::var(SERVER) else {
        assert!(std::env::var_os("CI").is_none(), "{SERVER} is not set: PostgreSQL is not tested");
        return None;
    };
    sqlx::any::install_default_drivers();
    let name = format!("histories_{}_{}", uuid::Uuid::new_v4().simple(), run.seed);
    let made = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
    let pool = AnyPool::connect(&server).await.unwrap();
    sqlx::raw_sql(made).execute(&pool).await.unwrap();
    let mut url = url::Url::parse(&server).unwrap();
    url.set_path(&name);
    // With one connection of its own it cannot end another one of its own.
    let pool = AnyPoolOptions::new().max_connections(1).connect(url.as_str()).await.unwrap();
    Some((url.into(), pool))
}

fn request(asked: Asked) -> (Method, String, Value) {
    let tables = "namespaces/a/tables";
    let ident = |name: usize| json!({"namespace": ["a"], "name": format!("t{name}")});
    let change = |name: usize, mark: u64| {
        let updates = json!([{"action": "set-properties", "updates": {mark.to_string(): "x"}}]);
        json!({"identifier": ident(name), "requirements": [], "updates": updates})
    };
    match asked {
        Asked::Read { name } => (Method::GET, format!("{tables}/t{name}"), Value::Null),
        Asked::Create { name, made } => {
            let schema = json!({"type": "struct", "schema-id": 0, "fields": [
                {"id": 1, "name": "id", "required": true, "type": "string"}]});
            let properties = json!({"made": made.to_string()});
            let table =
                json!({"name": format!("t{name}"), "schema": schema, "properties": properties});
            (Method::POST, tables.to_owned(), table)
        }
        Asked::Drop { name } => (Method::DELETE, format!("{tables}/t{name}"), Value::Null),
        Asked::Rename { from, to } => {
            let names = json!({"source": ident(from), "destination": ident(to)});
            (Method::POST, "tables/rename".to_owned(), names)
        }
        Asked::Commit { name, mark } => {
            (Method::POST, format!("{tables}/t{name}"), change(name, mark))
        }
        Asked::CommitBoth { names: [one, other], mark } => {
            let changes = json!({"table-changes": [change(one, mark), change(other, mark)]});
            (Method::POST, "transactions/commit".to_owned(), changes)
        }
    }
}

/// What an answer says.
fn told(asked: Asked, status: u16, body: &[u8]) -> Told {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    if (200..300).contains(&status) {
        let properties = &answer["metadata"]["properties"];
        return match asked {
            Asked::Read { .. } => {
                let number = |text: &str| text.parse::<u64>().ok();
                let keys = properties.as_object().unwrap().keys();
                let made = properties["made"].as_str().and_then(number).unwrap();
                Told::Seen { made, marks: keys.filter_map(|key| number(key)).collect() }
            }
            Asked::Commit { mark, .. } => {
                assert!(
                    properties[mark.to_string()].is_string(),
                    "the answer is without its commit"
                );
                Told::Done
            }
            _ => Told::Done,
        };
    }
    match answer["error"]["type"].as_str().unwrap_or_default() {
        "NoSuchTableException" => Told::Missing,
        "AlreadyExistsException" => Told::Exists,
        // The catalog says that nothing happened, and is taken at its word.
        "CommitFailedException" | "ServiceUnavailableException" | "InternalServerError" => {
            Told::NotDone
        }
        "CommitStateUnknownException" => Told::Unknown,
        _ => panic!("{asked:?}: {status} {answer}"),
    }
}

/// The short run, and with `LARGE=1` long ones. Those want a release build of the server in
/// `ICECORE_BIN`: `LARGE=1 cargo test --test it -- histories::a_history_of --nocapture`.
fn runs(short: Run, long: impl Iterator<Item = u64>) -> Vec<Run> {
    let mut runs = vec![short];
    if std::env::var_os("LARGE").is_some() {
        runs.extend(long.map(|seed| Run {
            seed,
            clients: 8 + seed % 9,
            operations: 8000,
            kills: 4,
        }));
    }
    runs
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_of_one_server_on_sqlite_has_an_order() {
    let short = Run { seed: 1, clients: 8, operations: 600, kills: 1 };
    for run in runs(short, (100..120).step_by(2)) {
        let world = World::on_sqlite(run).await;
        world.run().await;
        world.verify().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_of_two_servers_on_postgres_has_an_order() {
    let short = Run { seed: 2, clients: 12, operations: 900, kills: 1 };
    for run in runs(short, (101..120).step_by(2)) {
        let Some(world) = World::on_postgres(run).await else { return };
        world.run().await;
        world.verify().await;
    }
}
