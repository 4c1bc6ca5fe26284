//! Leases of snapshots: whoever loaded a table goes on with the snapshots that it had then.
//!
//! Its one invariant: a lease only becomes longer, and ends by its time alone. A dropped table keeps
//! what it has, and has it again when it comes back in time.

use super::{Metastore, failed};
use crate::error::CatalogError;
use uuid::Uuid;

pub(super) const STEP: &str = r"
CREATE TABLE snapshot_leases (
    uuid TEXT NOT NULL,
    snapshot_id BIGINT NOT NULL,
    until_ms BIGINT NOT NULL,
    line_until_ms BIGINT NOT NULL,
    PRIMARY KEY (uuid, snapshot_id)
);
CREATE INDEX snapshot_leases_by_time ON snapshot_leases (until_ms);
";

/// Most leases of a table that are looked at, those that end last.
const LEASES_MAX: i64 = 2_000;

/// A lease of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotLease {
    /// The snapshot.
    pub snapshot_id: i64,
    /// Until when it stays, ms since 1970.
    pub until_ms: i64,
    /// Until when what comes after it on `main` stays as well, ms since 1970; 0 for a snapshot that was
    /// loaded as the head of another branch, or of a tag.
    pub line_until_ms: i64,
}

impl Metastore {
    /// Leases snapshots of a table, durable on return. A lease that ends later stays as it is.
    ///
    /// # Errors
    /// `Metastore`.
    pub(crate) async fn lease_snapshots(
        &self,
        uuid: Uuid,
        leases: &[SnapshotLease],
    ) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        for lease in leases {
            sqlx::query(
                "INSERT INTO snapshot_leases (uuid, snapshot_id, until_ms, line_until_ms)
                 VALUES ($1, $2, $3, $4)
                 ON CONFLICT (uuid, snapshot_id) DO UPDATE SET
                     until_ms = CASE WHEN snapshot_leases.until_ms < excluded.until_ms
                         THEN excluded.until_ms ELSE snapshot_leases.until_ms END,
                     line_until_ms = CASE WHEN snapshot_leases.line_until_ms < excluded.line_until_ms
                         THEN excluded.line_until_ms ELSE snapshot_leases.line_until_ms END",
            )
            .bind(uuid.to_string())
            .bind(lease.snapshot_id)
            .bind(lease.until_ms)
            .bind(lease.line_until_ms)
            .execute(&mut *tx)
            .await
            .map_err(failed("lease snapshots"))?;
        }
        tx.commit().await.map_err(failed("lease snapshots"))
    }

    /// The leases of a table that have not ended.
    ///
    /// # Errors
    /// `Metastore`.
    pub async fn snapshot_leases(
        &self,
        uuid: Uuid,
        now_ms: i64,
    ) -> Result<Vec<SnapshotLease>, CatalogError> {
        let rows: Vec<(i64, i64, i64)> = sqlx::query_as(
            "SELECT snapshot_id, until_ms, line_until_ms FROM snapshot_leases
             WHERE uuid = $1 AND until_ms > $2 ORDER BY until_ms DESC, snapshot_id LIMIT $3",
        )
        .bind(uuid.to_string())
        .bind(now_ms)
        .bind(LEASES_MAX)
        .fetch_all(&self.database.readers)
        .await
        .map_err(failed("read the leases of snapshots"))?;
        let lease = |(snapshot_id, until_ms, line_until_ms)| SnapshotLease {
            snapshot_id,
            until_ms,
            line_until_ms,
        };
        Ok(rows.into_iter().map(lease).collect())
    }

    /// Forgets leases that have ended.
    pub(crate) async fn forget_leases(&self, now_ms: i64) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        sqlx::query("DELETE FROM snapshot_leases WHERE until_ms <= $1")
            .bind(now_ms)
            .execute(&mut *tx)
            .await
            .map_err(failed("forget leases of snapshots"))?;
        tx.commit().await.map_err(failed("forget leases of snapshots"))
    }
}

#[cfg(test)]
mod tests;
