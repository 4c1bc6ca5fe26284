//! The tables of a metastore, made and changed in steps that each run once.
//!
//! A step never changes after a release: what has to change comes as a step of its own at the end.

use super::{
    Metastore, access, audit, backups, dialect::Dialect, failed, fence, outbox, places, reports,
    requests, tables, trash,
};
use crate::error::CatalogError;
use sqlx::{AnyConnection, AssertSqlSafe};

/// The steps in order, as PostgreSQL reads them; [`adapted`] makes SQLite's of them.
const STEPS: [&str; 16] = [
    BASE,
    places::STEP,
    trash::STEP,
    reports::STEP,
    access::TABLES,
    audit::TABLES,
    requests::STEP,
    outbox::STEP,
    tables::VERSIONS,
    requests::WITHOUT_EFFECT,
    audit::CUT_STEP,
    fence::STEP,
    outbox::CHANGES_STEP,
    backups::STEP,
    access::webhooks::STEP,
    fence::NEUTRAL_STEP,
];

/// Only the first process that opens a database makes its tables.
const POSTGRES_LOCK: &str = "SELECT pg_advisory_xact_lock(5283040761123)";

const BASE: &str = r#"
CREATE TABLE counters (
    name TEXT PRIMARY KEY,
    value BIGINT NOT NULL CHECK (value >= 0)
);
CREATE TABLE namespaces (
    path TEXT COLLATE "C" PRIMARY KEY,
    parent TEXT COLLATE "C" NOT NULL,
    properties TEXT NOT NULL
);
CREATE INDEX namespaces_of_parent ON namespaces (parent, path);
CREATE TABLE tables (
    uuid TEXT PRIMARY KEY,
    namespace TEXT COLLATE "C" NOT NULL REFERENCES namespaces (path),
    name TEXT COLLATE "C" NOT NULL,
    metadata_location TEXT NOT NULL,
    version BIGINT NOT NULL,
    epoch BIGINT CHECK (epoch >= 0),
    position BIGINT CHECK (position >= 0),
    last_seq BIGINT CHECK (last_seq >= 0),
    kind TEXT NOT NULL CHECK (kind IN ('table', 'view')),
    UNIQUE (namespace, name)
);
CREATE TABLE dropped (
    uuid TEXT PRIMARY KEY,
    epoch BIGINT NOT NULL CHECK (epoch >= 0),
    position BIGINT NOT NULL CHECK (position >= 0),
    last_seq BIGINT NOT NULL CHECK (last_seq >= 0)
);
CREATE TABLE snapshots (
    number BIGSERIAL,
    uuid TEXT NOT NULL REFERENCES tables (uuid) ON DELETE CASCADE,
    snapshot_id BIGINT NOT NULL,
    timestamp_ms BIGINT NOT NULL,
    first_seq BIGINT CHECK (first_seq >= 0),
    last_seq BIGINT CHECK (last_seq >= 0),
    UNIQUE (uuid, snapshot_id)
);
CREATE TABLE obsolete (
    location TEXT COLLATE "C" PRIMARY KEY,
    not_before_ms BIGINT NOT NULL
);
CREATE INDEX obsolete_by_time ON obsolete (not_before_ms);
INSERT INTO counters VALUES ('epoch', 0);
"#;

impl Metastore {
    /// Brings the database to the last step in one transaction.
    pub(super) async fn made(self) -> Result<Self, CatalogError> {
        let mut tx = self.begin().await?;
        lock(&mut tx, self.dialect).await?;
        make(&mut tx, self.dialect).await?;
        tx.commit().await.map_err(failed("make tables"))?;
        Ok(self)
    }
}

/// Keeps everybody else from making tables until the transaction ends.
pub(super) async fn lock(tx: &mut AnyConnection, dialect: Dialect) -> Result<(), CatalogError> {
    if dialect == Dialect::Sqlite {
        return Ok(());
    }
    let locked = sqlx::raw_sql(POSTGRES_LOCK).execute(tx).await;
    locked.map(|_| ()).map_err(failed("wait for others who make tables"))
}

/// Brings the database to the last step, in the caller's transaction.
pub(super) async fn make(tx: &mut AnyConnection, dialect: Dialect) -> Result<(), CatalogError> {
    let made = "CREATE TABLE IF NOT EXISTS layout (step INTEGER NOT NULL PRIMARY KEY)";
    sqlx::raw_sql(made).execute(&mut *tx).await.map_err(failed("make tables"))?;
    let done: i64 = sqlx::query_scalar("SELECT count(*) FROM layout")
        .fetch_one(&mut *tx)
        .await
        .map_err(failed("read the layout"))?;
    let known = STEPS.len();
    let done = usize::try_from(done).unwrap_or(usize::MAX);
    if done > known {
        return Err(CatalogError::Invalid(format!(
            "the metastore has layout {done}, this program knows {known}: use a newer program"
        )));
    }
    for (step, statements) in STEPS.iter().enumerate().skip(done) {
        let statements = adapted(statements, dialect);
        let made = sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut *tx).await;
        made.map_err(failed("make tables"))?;
        sqlx::query("INSERT INTO layout VALUES ($1)")
            .bind(i32::try_from(step + 1).unwrap_or(i32::MAX))
            .execute(&mut *tx)
            .await
            .map_err(failed("make tables"))?;
    }
    outbox::name_feed(tx).await
}

/// SQLite checks types only in tables that are STRICT, and those know no other integers. It orders
/// text by its bytes without being told.
pub(super) fn adapted(statements: &str, dialect: Dialect) -> String {
    match dialect {
        Dialect::Postgres => statements.to_owned(),
        Dialect::Sqlite => statements
            .replace("BIGSERIAL", "INTEGER PRIMARY KEY AUTOINCREMENT")
            .replace("BIGINT", "INTEGER")
            .replace(" COLLATE \"C\"", "")
            .replace("\n);", "\n) STRICT;"),
    }
}
