//! What clients measured in their scans and commits: the newest reports of each table.
//!
//! Its one invariant: a table never has more than the caller's bound, and none outlives its table.

use super::{Metastore, failed};
use crate::error::CatalogError;
use uuid::Uuid;

/// What a client measured in a scan or a commit of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsReport {
    /// When it came, ms since 1970.
    pub received_ms: i64,
    /// The client's JSON object as it sent it.
    pub body: String,
}

impl Metastore {
    /// Adds a report of a table and forgets all but its `keep` newest; nothing for an unknown one.
    pub(crate) async fn add_report(
        &self,
        uuid: Uuid,
        report: &MetricsReport,
        keep: u32,
    ) -> Result<(), CatalogError> {
        let mut tx = self.begin().await?;
        // A table that was dropped meanwhile takes no report.
        sqlx::query(
            "INSERT INTO reports (uuid, received_ms, body)
             SELECT uuid, $2, $3 FROM tables WHERE uuid = $1",
        )
        .bind(uuid.to_string())
        .bind(report.received_ms)
        .bind(&report.body)
        .execute(&mut *tx)
        .await
        .map_err(failed("add a report"))?;
        sqlx::query(
            "DELETE FROM reports WHERE uuid = $1 AND number <= (SELECT number FROM reports
                 WHERE uuid = $1 ORDER BY number DESC LIMIT 1 OFFSET $2)",
        )
        .bind(uuid.to_string())
        .bind(i64::from(keep))
        .execute(&mut *tx)
        .await
        .map_err(failed("forget old reports"))?;
        tx.commit().await.map_err(failed("add a report"))
    }

    /// The reports of a table, newest first; empty for an unknown one.
    pub(crate) async fn reports(&self, uuid: Uuid) -> Result<Vec<MetricsReport>, CatalogError> {
        let rows: Vec<(i64, String)> = sqlx::query_as(
            "SELECT received_ms, body FROM reports WHERE uuid = $1 ORDER BY number DESC",
        )
        .bind(uuid.to_string())
        .fetch_all(&self.database.readers)
        .await
        .map_err(failed("read reports"))?;
        Ok(rows
            .into_iter()
            .map(|(received_ms, body)| MetricsReport { received_ms, body })
            .collect())
    }
}

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
