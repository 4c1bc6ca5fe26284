//! What clients measured in their scans and commits: the newest reports of each table.
//!
//! Its one invariant: a table never has more than the caller's bound, and none outlives its table.

use super::failed;
use crate::{error::CatalogError, metastore::Report};
use sqlx::AnyConnection;
use uuid::Uuid;

/// The step that makes the table.
pub(super) const STEP: &str = r#"
CREATE TABLE reports (
    number BIGSERIAL,
    uuid TEXT NOT NULL REFERENCES tables (uuid) ON DELETE CASCADE,
    received_ms BIGINT NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX reports_of_table ON reports (uuid, number);
"#;

pub(super) async fn add(
    tx: &mut AnyConnection,
    uuid: Uuid,
    report: &Report,
    keep: u32,
) -> Result<(), CatalogError> {
    // A table that was dropped meanwhile takes no report.
    let added = sqlx::query(
        "INSERT INTO reports (uuid, received_ms, body)
         SELECT uuid, $2, $3 FROM tables WHERE uuid = $1",
    )
    .bind(uuid.to_string())
    .bind(report.received_ms)
    .bind(&report.body)
    .execute(&mut *tx)
    .await
    .map_err(failed("add a report"))?;
    if added.rows_affected() == 0 {
        return Ok(());
    }
    sqlx::query(
        "DELETE FROM reports WHERE uuid = $1 AND number <=
             (SELECT number FROM reports WHERE uuid = $1 ORDER BY number DESC LIMIT 1 OFFSET $2)",
    )
    .bind(uuid.to_string())
    .bind(i64::from(keep))
    .execute(tx)
    .await
    .map_err(failed("forget old reports"))?;
    Ok(())
}

pub(super) async fn list(
    connection: &mut AnyConnection,
    uuid: Uuid,
) -> Result<Vec<Report>, CatalogError> {
    let rows: Vec<(i64, String)> = sqlx::query_as(
        "SELECT received_ms, body FROM reports WHERE uuid = $1 ORDER BY number DESC",
    )
    .bind(uuid.to_string())
    .fetch_all(connection)
    .await
    .map_err(failed("read reports"))?;
    Ok(rows.into_iter().map(|(received_ms, body)| Report { received_ms, body }).collect())
}
