//! Databases of one test in the PostgreSQL server that the tests share.

use sqlx::{AnyPool, AssertSqlSafe};

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
