//! The metastore in an SQLite file: write-ahead journal, `synchronous=FULL`, one writer.
//!
//! Every change runs in one `BEGIN IMMEDIATE` transaction on the only writing connection, so what
//! it reads cannot change before it writes, and it is on the disk when its COMMIT returns.

mod namespaces;
mod tables;

use crate::{
    error::CatalogError,
    metastore::{
        Levels, LostCommit, Metastore, NewTable, Obsolete, PointerSwap, Properties, SnapshotRow,
        SwapOutcome, TableRow, outcome_of_lost_commit,
    },
};
use async_trait::async_trait;
use sqlx::{
    Sqlite, Transaction,
    sqlite::{
        SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
    },
};
use std::{path::Path, time::Duration};
use tracing::warn;
use uuid::Uuid;

/// The tables' layout this program reads and writes.
const SCHEMA_VERSION: i64 = 1;
/// Connections that read; a look-up takes well below a millisecond.
const READERS: u32 = 4;
/// Longest wait for another process (a backup, a shell) that holds the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Separates the levels of a namespace in its key.
const SEPARATOR: char = '\u{1f}';

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS counters (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL CHECK (value >= 0)
) STRICT;
CREATE TABLE IF NOT EXISTS namespaces (
    path TEXT PRIMARY KEY,
    parent TEXT NOT NULL,
    properties TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS namespaces_of_parent ON namespaces (parent, path);
CREATE TABLE IF NOT EXISTS tables (
    uuid TEXT PRIMARY KEY,
    namespace TEXT NOT NULL REFERENCES namespaces (path),
    name TEXT NOT NULL,
    metadata_location TEXT NOT NULL,
    version INTEGER NOT NULL,
    epoch INTEGER CHECK (epoch >= 0),
    position INTEGER CHECK (position >= 0),
    last_seq INTEGER CHECK (last_seq >= 0),
    UNIQUE (namespace, name)
) STRICT;
CREATE TABLE IF NOT EXISTS dropped (
    uuid TEXT PRIMARY KEY,
    epoch INTEGER NOT NULL CHECK (epoch >= 0),
    position INTEGER NOT NULL CHECK (position >= 0),
    last_seq INTEGER NOT NULL CHECK (last_seq >= 0)
) STRICT;
CREATE TABLE IF NOT EXISTS snapshots (
    uuid TEXT NOT NULL REFERENCES tables (uuid) ON DELETE CASCADE,
    snapshot_id INTEGER NOT NULL,
    timestamp_ms INTEGER NOT NULL,
    first_seq INTEGER CHECK (first_seq >= 0),
    last_seq INTEGER CHECK (last_seq >= 0),
    PRIMARY KEY (uuid, snapshot_id)
) STRICT;
CREATE TABLE IF NOT EXISTS obsolete (
    location TEXT PRIMARY KEY,
    not_before_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS obsolete_by_time ON obsolete (not_before_ms);
INSERT OR IGNORE INTO counters VALUES ('schema_version', 1), ('epoch', 0);
";

/// A metastore in one file.
#[derive(Clone, Debug)]
pub struct SqliteMetastore {
    writer: SqlitePool,
    readers: SqlitePool,
}

impl SqliteMetastore {
    /// Opens the file, which is made when missing (its folder is not).
    ///
    /// # Errors
    /// [`CatalogError::Metastore`]; [`CatalogError::Invalid`] when a newer program made the file.
    pub async fn open(path: &Path) -> Result<Self, CatalogError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let writer = SqlitePoolOptions::new().max_connections(1).connect_with(options.clone());
        let writer = writer.await.map_err(failed("open"))?;
        sqlx::raw_sql(SCHEMA).execute(&writer).await.map_err(failed("make tables"))?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_lazy_with(options.pragma("query_only", "ON"));
        let metastore = Self { writer, readers };
        let version = metastore.counter("schema_version").await?;
        if version != SCHEMA_VERSION {
            return Err(CatalogError::Invalid(format!(
                "metastore `{}` has layout {version}, this program knows {SCHEMA_VERSION}",
                path.display()
            )));
        }
        Ok(metastore)
    }

    async fn counter(&self, name: &str) -> Result<i64, CatalogError> {
        sqlx::query_scalar("SELECT value FROM counters WHERE name = ?")
            .bind(name)
            .fetch_one(&self.readers)
            .await
            .map_err(failed("read a counter"))
    }

    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, CatalogError> {
        self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(failed("begin"))
    }

    /// What became of a commit whose COMMIT failed.
    async fn find_out(
        &self,
        cause: sqlx::Error,
        new: &[NewTable],
        swaps: &[PointerSwap],
    ) -> Result<SwapOutcome, CatalogError> {
        warn!(error = &cause as &dyn std::error::Error, "commit failed, reading back");
        let uuids = new.iter().map(|table| table.uuid).chain(swaps.iter().map(|swap| swap.uuid));
        let mut found = Vec::new();
        for uuid in uuids {
            let row = self.table_by_uuid(uuid).await;
            found.push(row.map_err(|_| CatalogError::CommitStateUnknown(cause.to_string()))?);
        }
        match outcome_of_lost_commit(new, swaps, &found) {
            LostCommit::Happened => Ok(SwapOutcome::Done),
            LostCommit::DidNotHappen => Err(failed("commit")(cause)),
            LostCommit::Unknown => Err(CatalogError::CommitStateUnknown(cause.to_string())),
        }
    }
}

#[async_trait]
impl Metastore for SqliteMetastore {
    async fn create_namespace(
        &self,
        levels: &Levels,
        properties: &Properties,
    ) -> Result<(), CatalogError> {
        namespaces::check(levels)?;
        let mut tx = self.begin().await?;
        namespaces::create(&mut tx, levels, properties).await?;
        tx.commit().await.map_err(failed("create a namespace"))
    }

    async fn namespace(&self, levels: &Levels) -> Result<Option<Properties>, CatalogError> {
        let mut connection = self.readers.acquire().await.map_err(failed("connect"))?;
        namespaces::get(&mut connection, levels).await
    }

    async fn namespaces(&self, parent: &Levels) -> Result<Vec<Levels>, CatalogError> {
        let mut tx = self.readers.begin().await.map_err(failed("begin"))?;
        if !parent.is_empty() {
            namespaces::require(&mut tx, parent).await?;
        }
        namespaces::list(&mut tx, parent).await
    }

    async fn update_namespace(
        &self,
        levels: &Levels,
        set: &Properties,
        remove: &[String],
    ) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        namespaces::update(&mut tx, levels, set, remove).await?;
        tx.commit().await.map_err(failed("update a namespace"))
    }

    async fn drop_namespace(&self, levels: &Levels) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        namespaces::drop(&mut tx, levels).await?;
        tx.commit().await.map_err(failed("drop a namespace"))
    }

    async fn table(&self, levels: &Levels, name: &str) -> Result<Option<TableRow>, CatalogError> {
        let mut connection = self.readers.acquire().await.map_err(failed("connect"))?;
        tables::by_name(&mut connection, levels, name).await
    }

    async fn tables(&self, levels: &Levels) -> Result<Vec<String>, CatalogError> {
        let mut tx = self.readers.begin().await.map_err(failed("begin"))?;
        namespaces::require(&mut tx, levels).await?;
        tables::list(&mut tx, levels).await
    }

    async fn drop_table(&self, levels: &Levels, name: &str) -> Result<TableRow, CatalogError> {
        let mut tx = self.begin().await?;
        let row = tables::drop(&mut tx, levels, name).await?;
        tx.commit().await.map_err(failed("drop a table"))?;
        Ok(row)
    }

    async fn rename_table(
        &self,
        from: (&Levels, &str),
        to: (&Levels, &str),
    ) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        tables::rename(&mut tx, from, to).await?;
        tx.commit().await.map_err(failed("rename a table"))
    }

    async fn commit_with_new(
        &self,
        new: &[NewTable],
        swaps: &[PointerSwap],
    ) -> Result<SwapOutcome, CatalogError> {
        let mut tx = self.begin().await?;
        for table in new {
            tables::create(&mut tx, table).await?;
        }
        for swap in swaps {
            match tables::swap(&mut tx, swap).await? {
                SwapOutcome::Done => (),
                // Dropping the transaction rolls it back.
                undone @ (SwapOutcome::Lost(_) | SwapOutcome::Deposed(_)) => return Ok(undone),
            }
        }
        match tx.commit().await {
            Ok(()) => Ok(SwapOutcome::Done),
            Err(cause) => self.find_out(cause, new, swaps).await,
        }
    }

    async fn table_by_uuid(&self, uuid: Uuid) -> Result<Option<TableRow>, CatalogError> {
        let mut connection = self.readers.acquire().await.map_err(failed("connect"))?;
        tables::by_uuid(&mut connection, uuid).await
    }

    async fn highest_position(&self) -> Result<u64, CatalogError> {
        let position: i64 = sqlx::query_scalar(
            "SELECT max(coalesce((SELECT max(position) FROM tables), 0),
                        coalesce((SELECT max(position) FROM dropped), 0))",
        )
        .fetch_one(&self.readers)
        .await
        .map_err(failed("read the highest position"))?;
        Ok(position.cast_unsigned())
    }

    async fn next_epoch(&self) -> Result<u64, CatalogError> {
        let epoch: i64 = sqlx::query_scalar(
            "UPDATE counters SET value = value + 1 WHERE name = 'epoch' RETURNING value",
        )
        .fetch_one(&self.writer)
        .await
        .map_err(failed("take an epoch"))?;
        Ok(epoch.cast_unsigned())
    }

    async fn snapshots(&self, uuid: Uuid) -> Result<Vec<SnapshotRow>, CatalogError> {
        let mut connection = self.readers.acquire().await.map_err(failed("connect"))?;
        tables::snapshots(&mut connection, uuid).await
    }

    async fn add_obsolete(&self, files: &[Obsolete]) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        tables::add_obsolete(&mut tx, files).await?;
        tx.commit().await.map_err(failed("queue files for deletion"))
    }

    async fn obsolete(&self, now_ms: i64, limit: u32) -> Result<Vec<String>, CatalogError> {
        sqlx::query_scalar(
            "SELECT location FROM obsolete WHERE not_before_ms <= ?
             ORDER BY not_before_ms, location LIMIT ?",
        )
        .bind(now_ms)
        .bind(limit)
        .fetch_all(&self.readers)
        .await
        .map_err(failed("read the deletion queue"))
    }

    async fn forget_obsolete(&self, locations: &[String]) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        for location in locations {
            sqlx::query("DELETE FROM obsolete WHERE location = ?")
                .bind(location)
                .execute(&mut *tx)
                .await
                .map_err(failed("shorten the deletion queue"))?;
        }
        tx.commit().await.map_err(failed("shorten the deletion queue"))
    }
}

fn failed(operation: &'static str) -> impl FnOnce(sqlx::Error) -> CatalogError {
    move |source| CatalogError::Metastore { operation, source }
}

/// A namespace's key.
fn path(levels: &Levels) -> String {
    levels.join(SEPARATOR.encode_utf8(&mut [0; 4]))
}

/// SQLite's integers are signed.
fn stored(number: u64) -> Result<i64, CatalogError> {
    i64::try_from(number).map_err(|_| CatalogError::Invalid(format!("{number} is out of range")))
}

#[cfg(test)]
mod tests;
