//! The backups that were begun, what they hold from deletion, and a copy of the database.
//!
//! Its one invariant: while a backup holds, no file leaves the deletion queue that came into it
//! after the first of those that hold began.

mod rows;

use super::{
    Metastore,
    database::{Database, Dialect},
    failed,
};
use crate::error::CatalogError;
use sqlx::{AnyConnection, AssertSqlSafe};
use std::path::Path;

/// `unheld` marks what nothing needed any more when the first backup that holds began.
pub(super) const STEP: &str = r"
CREATE TABLE backups (
    id TEXT PRIMARY KEY,
    place TEXT NOT NULL,
    begun_ms BIGINT NOT NULL,
    ended_ms BIGINT,
    files BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    holds BIGINT NOT NULL
);
ALTER TABLE obsolete ADD COLUMN unheld BIGINT NOT NULL DEFAULT 0;
";

/// What may leave the deletion queue.
pub(super) const IS_FREE: &str =
    "(unheld = 1 OR NOT EXISTS (SELECT 1 FROM backups WHERE holds = 1))";

/// One backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// Its name.
    pub id: String,
    /// Where it is, as it was given.
    pub place: String,
    /// When it was begun, ms since 1970.
    pub begun_ms: i64,
    /// When it was whole; none while it is not.
    pub ended_ms: Option<i64>,
    /// How many files it has.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Whether files that it names are kept in the warehouse.
    pub holds: bool,
}

type BackupRow = (String, String, i64, Option<i64>, i64, i64, i64);

impl Metastore {
    /// Writes down that a backup begins, which holds every file that is needed now. Durable on
    /// return.
    ///
    /// # Errors
    /// [`CatalogError::Metastore`].
    pub async fn begin_backup(
        &self,
        id: &str,
        place: &str,
        now_ms: i64,
    ) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        self.lock_backups(&mut tx).await?;
        let holding: i64 = sqlx::query_scalar("SELECT count(*) FROM backups WHERE holds = 1")
            .fetch_one(&mut *tx)
            .await
            .map_err(failed("read the backups"))?;
        if holding == 0 {
            let marked = sqlx::query("UPDATE obsolete SET unheld = 1").execute(&mut *tx).await;
            marked.map_err(failed("hold files for a backup"))?;
        }
        sqlx::query("INSERT INTO backups VALUES ($1, $2, $3, NULL, 0, 0, 1)")
            .bind(id)
            .bind(place)
            .bind(now_ms)
            .execute(&mut *tx)
            .await
            .map_err(failed("begin a backup"))?;
        tx.commit().await.map_err(failed("begin a backup"))
    }

    /// Of two that begin at once, one begins after the other.
    async fn lock_backups(&self, tx: &mut AnyConnection) -> Result<(), CatalogError> {
        if self.database.dialect == Dialect::Sqlite {
            return Ok(());
        }
        let locked = sqlx::raw_sql("LOCK TABLE backups IN EXCLUSIVE MODE").execute(tx).await;
        locked.map(|_| ()).map_err(failed("begin a backup"))
    }

    /// Writes down that a backup is whole, and whether it goes on to hold files.
    ///
    /// # Errors
    /// [`CatalogError::Metastore`].
    pub async fn end_backup(&self, backup: &Backup) -> Result<(), CatalogError> {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let mut tx = self.begin().await?;
        sqlx::query(
            "UPDATE backups SET ended_ms = $1, files = $2, bytes = $3, holds = $4 WHERE id = $5",
        )
        .bind(backup.ended_ms)
        .bind(number(backup.files))
        .bind(number(backup.bytes))
        .bind(i64::from(backup.holds))
        .bind(&backup.id)
        .execute(&mut *tx)
        .await
        .map_err(failed("end a backup"))?;
        tx.commit().await.map_err(failed("end a backup"))
    }

    /// All backups, the oldest first.
    ///
    /// # Errors
    /// [`CatalogError::Metastore`].
    pub async fn backups(&self) -> Result<Vec<Backup>, CatalogError> {
        let rows: Vec<BackupRow> = sqlx::query_as(
            "SELECT id, place, begun_ms, ended_ms, files, bytes, holds FROM backups
             ORDER BY begun_ms, id",
        )
        .fetch_all(&mut *self.reader().await?)
        .await
        .map_err(failed("read the backups"))?;
        let backups = rows.into_iter().map(|row| {
            let (id, place, begun_ms, ended_ms, files, bytes, holds) = row;
            let (files, bytes) = (files.unsigned_abs(), bytes.unsigned_abs());
            Backup { id, place, begun_ms, ended_ms, files, bytes, holds: holds != 0 }
        });
        Ok(backups.collect())
    }

    /// Forgets a backup and what it holds. False when there is none of that name.
    ///
    /// # Errors
    /// [`CatalogError::Metastore`].
    pub async fn forget_backup(&self, id: &str) -> Result<bool, CatalogError> {
        let mut tx = self.begin().await?;
        let gone = sqlx::query("DELETE FROM backups WHERE id = $1")
            .bind(id)
            .execute(&mut *tx)
            .await
            .map_err(failed("forget a backup"))?;
        tx.commit().await.map_err(failed("forget a backup"))?;
        Ok(gone.rows_affected() == 1)
    }

    /// Writes a copy of the database as it is at one moment, while others write to it, to a new
    /// SQLite file.
    ///
    /// # Errors
    /// [`CatalogError::Metastore`]; the file is no copy.
    pub async fn copy_to(&self, file: &Path) -> Result<(), CatalogError> {
        if self.database.dialect == Dialect::Postgres {
            return rows::to_sqlite(self, file).await;
        }
        let path = file.to_str().ok_or_else(|| {
            CatalogError::Invalid(format!("`{}` is not a UTF-8 path", file.display()))
        })?;
        let statement = format!("VACUUM INTO '{}'", path.replace('\'', "''"));
        // Readers may write nothing at all, a copy included.
        let mut connection = self.database.writer.acquire().await.map_err(failed("connect"))?;
        let copied = sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *connection).await;
        copied.map(|_| ()).map_err(failed("copy the metastore"))
    }

    /// Makes a metastore in a PostgreSQL database that has none out of a copy, which is changed when
    /// an earlier version wrote it. Either all of it is there on return, or nothing.
    ///
    /// # Errors
    /// [`CatalogError::Metastore`]; [`CatalogError::Invalid`] where there is a metastore.
    pub async fn copy_to_postgres(file: &Path, url: &str) -> Result<(), CatalogError> {
        let from = Self::sqlite(file).await?;
        let to = Self::on(Database::postgres(url).await?);
        let copied = rows::to_postgres(&from, &to).await;
        from.close().await;
        to.close().await;
        copied
    }

    /// Refuses a PostgreSQL database that has a metastore.
    ///
    /// # Errors
    /// [`CatalogError::Metastore`]; [`CatalogError::Invalid`] where there is one.
    pub async fn check_empty_postgres(url: &str) -> Result<(), CatalogError> {
        let metastore = Self::on(Database::postgres(url).await?);
        let checked = rows::check_empty(&mut *metastore.reader().await?).await;
        metastore.close().await;
        checked
    }

    /// Closes all connections; a file is then whole without the files beside it.
    pub async fn close(self) {
        self.database.writer.close().await;
        self.database.readers.close().await;
    }
}

#[cfg(test)]
mod tests;
