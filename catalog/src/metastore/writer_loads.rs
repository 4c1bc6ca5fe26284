//! Loads of tables by engines that may change rows and look at the table themselves before they commit.
//!
//! Its one invariant: one row for a table, of the last load alone, so it does not grow with the loads.

use super::{Metastore, failed};
use crate::error::CatalogError;
use uuid::Uuid;

pub(super) const STEP: &str = r"
CREATE TABLE writer_loads (
    uuid TEXT PRIMARY KEY,
    since_ms BIGINT NOT NULL,
    loaded_ms BIGINT NOT NULL,
    refreshed_ms BIGINT NOT NULL
);
CREATE INDEX writer_loads_by_time ON writer_loads (loaded_ms);
";

/// When such engines loaded a table, ms since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterLoads {
    /// When the first load came of those that followed one another.
    pub since_ms: i64,
    /// When the last one came.
    pub loaded_ms: i64,
    /// When an engine last loaded the table again that it had, as it does before a commit; 0 for never.
    pub refreshed_ms: i64,
}

/// A load of a table by such an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterLoad {
    /// When, ms since 1970.
    pub at_ms: i64,
    /// Whether the engine had the table already.
    pub is_refresh: bool,
}

impl Metastore {
    /// Notes a load, durable on return. It follows the one before if that came at most `pause_ms` earlier.
    ///
    /// # Errors
    /// `Metastore`.
    pub async fn note_writer_load(
        &self,
        uuid: Uuid,
        load: WriterLoad,
        pause_ms: i64,
    ) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        // The clock of this server, or of another one, may have been set back.
        sqlx::query(
            "INSERT INTO writer_loads (uuid, since_ms, loaded_ms, refreshed_ms)
             VALUES ($1, $2, $3, $4)
             ON CONFLICT (uuid) DO UPDATE SET
                 since_ms = CASE WHEN writer_loads.loaded_ms < $5
                         OR excluded.loaded_ms < writer_loads.since_ms
                     THEN excluded.since_ms ELSE writer_loads.since_ms END,
                 loaded_ms = excluded.loaded_ms,
                 refreshed_ms = CASE WHEN excluded.refreshed_ms = 0
                     THEN writer_loads.refreshed_ms ELSE excluded.refreshed_ms END",
        )
        .bind(uuid.to_string())
        .bind(load.at_ms)
        .bind(load.at_ms)
        .bind(if load.is_refresh { load.at_ms } else { 0 })
        .bind(load.at_ms.saturating_sub(pause_ms))
        .execute(&mut *tx)
        .await
        .map_err(failed("note a load of a table"))?;
        tx.commit().await.map_err(failed("note a load of a table"))
    }

    /// The loads of a table by such engines, if it had any of late.
    ///
    /// # Errors
    /// `Metastore`.
    pub async fn writer_loads(&self, uuid: Uuid) -> Result<Option<WriterLoads>, CatalogError> {
        let row: Option<(i64, i64, i64)> = sqlx::query_as(
            "SELECT since_ms, loaded_ms, refreshed_ms FROM writer_loads WHERE uuid = $1",
        )
        .bind(uuid.to_string())
        .fetch_optional(&self.database.readers)
        .await
        .map_err(failed("read the loads of a table"))?;
        let loads =
            |(since_ms, loaded_ms, refreshed_ms)| WriterLoads { since_ms, loaded_ms, refreshed_ms };
        Ok(row.map(loads))
    }

    /// Forgets tables whose last load came before that.
    pub(crate) async fn forget_writer_loads(&self, before_ms: i64) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        sqlx::query("DELETE FROM writer_loads WHERE loaded_ms < $1")
            .bind(before_ms)
            .execute(&mut *tx)
            .await
            .map_err(failed("forget loads of tables"))?;
        tx.commit().await.map_err(failed("forget loads of tables"))
    }
}

#[cfg(test)]
mod tests;
