//! The tables of a metastore, made and changed in steps that each run once.
//!
//! A step never changes after a release: what has to change comes as a step of its own at the end.

use super::{
    Metastore, access, audit, backups,
    database::{DatabaseLayout, Dialect},
    failed, fence, holds, leases, orphans, outbox, places, reports, requests, row_accounts, tables,
    trash, writer_loads,
};
use crate::error::CatalogError;
use sqlx::AnyConnection;

const LAYOUT: DatabaseLayout = DatabaseLayout { table: "layout", steps: &STEPS };

const STEPS: [&str; 21] = [
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
    row_accounts::STEP,
    orphans::STEP,
    holds::STEP,
    leases::STEP,
    writer_loads::STEP,
];

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
        self.database.dialect.lock_layout(&mut tx).await?;
        make(&mut tx, self.database.dialect).await?;
        tx.commit().await.map_err(failed("make tables"))?;
        Ok(self)
    }
}

/// Brings the database to the last step, in the caller's transaction.
pub(super) async fn make(tx: &mut AnyConnection, dialect: Dialect) -> Result<(), CatalogError> {
    dialect.make(tx, &LAYOUT).await?;
    outbox::name_feed(tx).await
}
