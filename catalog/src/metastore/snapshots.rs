//! The snapshot index: which snapshots a table has, and the first and last number of their rows where
//! the holder of the fence has numbered them.

use super::{Metastore, SnapshotRow, failed, stored};
use crate::error::CatalogError;
use sqlx::AnyConnection;
use uuid::Uuid;

impl Metastore {
    /// Snapshot index of a table, oldest first; empty for an unknown one.
    pub(crate) async fn snapshots(&self, uuid: Uuid) -> Result<Vec<SnapshotRow>, CatalogError> {
        let rows: Vec<(i64, i64, Option<i64>, Option<i64>)> = sqlx::query_as(
            "SELECT snapshot_id, timestamp_ms, first_seq, last_seq FROM snapshots
             WHERE uuid = $1 ORDER BY timestamp_ms, number",
        )
        .bind(uuid.to_string())
        .fetch_all(&self.database.readers)
        .await
        .map_err(failed("read the snapshot index"))?;
        let row =
            |(snapshot_id, timestamp_ms, first, last): (i64, i64, Option<i64>, Option<i64>)| {
                let seq = first
                    .zip(last)
                    .map(|(first, last)| (first.cast_unsigned(), last.cast_unsigned()));
                SnapshotRow { snapshot_id, timestamp_ms, seq }
            };
        Ok(rows.into_iter().map(row).collect())
    }
}

pub(super) async fn add(
    tx: &mut AnyConnection,
    uuid: Uuid,
    snapshots: &[SnapshotRow],
) -> Result<(), CatalogError> {
    for snapshot in snapshots {
        let first = snapshot.seq.map(|(first, _)| stored(first)).transpose()?;
        let last = snapshot.seq.map(|(_, last)| stored(last)).transpose()?;
        sqlx::query(
            "INSERT INTO snapshots (uuid, snapshot_id, timestamp_ms, first_seq, last_seq)
             VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (uuid, snapshot_id) DO UPDATE SET timestamp_ms = excluded.timestamp_ms,
                 first_seq = excluded.first_seq, last_seq = excluded.last_seq",
        )
        .bind(uuid.to_string())
        .bind(snapshot.snapshot_id)
        .bind(snapshot.timestamp_ms)
        .bind(first)
        .bind(last)
        .execute(&mut *tx)
        .await
        .map_err(failed("extend the snapshot index"))?;
    }
    Ok(())
}
