//! Databases of one test in the PostgreSQL server that the tests share.

use sqlx::{AnyPool, AssertSqlSafe};
use std::net::SocketAddr;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
};

/// Names the PostgreSQL server that the tests may make databases in. `./check` starts one.
const SERVER: &str = "TEST_POSTGRES";
/// What every database of a test may be called.
const NAMES: [&str; 4] = ["folder", "saved", "older", "other"];

/// Databases whose names begin alike.
pub(crate) struct Databases {
    pool: AnyPool,
    server: String,
    prefix: String,
}

impl Databases {
    /// None without a PostgreSQL server, which only CI forbids.
    #[expect(clippy::disallowed_methods, reason = "says where the tests' PostgreSQL is")]
    pub(crate) async fn new(topic: &str) -> Option<Self> {
        let Ok(server) = std::env::var(SERVER) else {
            assert!(std::env::var_os("CI").is_none(), "{SERVER} is not set");
            return None;
        };
        sqlx::any::install_default_drivers();
        let pool = AnyPool::connect(&server).await.unwrap();
        let prefix = format!("{topic}_{}", uuid::Uuid::new_v4().simple());
        Some(Self { pool, server, prefix })
    }

    pub(crate) fn url(&self, name: &str) -> String {
        let mut url = url::Url::parse(&self.server).unwrap();
        url.set_path(&format!("{}_{name}", self.prefix));
        url.into()
    }

    async fn run(&self, statement: String) {
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&self.pool).await.unwrap();
    }

    async fn drop(&self, name: &str) {
        let prefix = &self.prefix;
        self.run(format!("DROP DATABASE IF EXISTS {prefix}_{name} WITH (FORCE)")).await;
    }

    /// Makes an empty database, in the place of one that was there.
    pub(crate) async fn make(&self, name: &str) {
        self.drop(name).await;
        self.run(format!("CREATE DATABASE {}_{name}", self.prefix)).await;
    }

    /// Makes a database as another one is, which nobody uses.
    pub(crate) async fn copy(&self, from: &str, to: &str) {
        self.drop(to).await;
        let prefix = &self.prefix;
        self.run(format!("CREATE DATABASE {prefix}_{to} TEMPLATE {prefix}_{from}")).await;
    }

    pub(crate) async fn remove(&self) {
        for name in NAMES {
            self.drop(name).await;
        }
    }
}

/// A way to a database that can be cut, as if its server was gone.
pub(crate) struct DatabaseRoute {
    /// The database by this way.
    pub(crate) url: String,
    near: SocketAddr,
    far: String,
    passing: JoinSet<()>,
    /// Keeps the port while the way is cut.
    held: Option<TcpSocket>,
}

impl DatabaseRoute {
    pub(crate) async fn to(url: &str) -> Self {
        let mut url = url::Url::parse(url).unwrap();
        let far = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5432));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = listener.local_addr().unwrap();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(near.port())).unwrap();
        let mut passing = JoinSet::new();
        passing.spawn(pass(listener, far.clone()));
        Self { url: url.into(), near, far, passing, held: None }
    }

    /// Closes all connections; new ones are refused.
    pub(crate) async fn cut(&mut self) {
        self.passing.shutdown().await;
        let held = TcpSocket::new_v4().unwrap();
        held.set_reuseaddr(true).unwrap();
        held.bind(self.near).unwrap();
        self.held = Some(held);
    }

    pub(crate) async fn open(&mut self) {
        self.held = None;
        let listener = TcpListener::bind(self.near).await.unwrap();
        self.passing.spawn(pass(listener, self.far.clone()));
    }
}

/// Passes bytes to and fro. Its connections end with it.
async fn pass(listener: TcpListener, far: String) {
    let mut connections = JoinSet::new();
    while let Ok((mut from, _)) = listener.accept().await {
        let far = far.clone();
        connections.spawn(async move {
            if let Ok(mut to) = TcpStream::connect(far).await {
                drop(copy_bidirectional(&mut from, &mut to).await);
            }
        });
    }
}
