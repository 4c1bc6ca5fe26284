//! For each job with times of day the last of them that it was run for, whichever server ran it.

use super::{LeaseFence, Store, StoreError, failed};

/// Runs get the reason why they began and what they did, too.
pub(super) const STEP: &str = r#"
ALTER TABLE service_job_runs ADD COLUMN run_trigger TEXT;
ALTER TABLE service_job_runs ADD COLUMN report TEXT;
CREATE TABLE service_job_times (
    job TEXT NOT NULL PRIMARY KEY,
    planned_ms BIGINT NOT NULL
);
"#;

impl Store {
    /// Begins the plan of a job that no server ran before: times up to this one are over.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn plan_from(&self, job: &str, now_ms: i64) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO service_job_times VALUES ($1, $2) ON CONFLICT DO NOTHING")
            .bind(job)
            .bind(now_ms)
            .execute(self.database.writer())
            .await
            .map(|_| ())
            .map_err(failed("begin a job's plan"))
    }

    /// The last time of its plan that a job was run for; none before its plan began.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn planned_time(&self, job: &str) -> Result<Option<i64>, StoreError> {
        sqlx::query_scalar("SELECT planned_ms FROM service_job_times WHERE job = $1")
            .bind(job)
            .fetch_optional(self.database.readers())
            .await
            .map_err(failed("read a job's plan"))
    }

    /// Notes under the job's lease that it was run for this time. When it returns, no server runs it
    /// for this time again.
    ///
    /// # Errors
    /// [`StoreError::Fenced`]; [`StoreError::Database`].
    pub async fn note_time(
        &self,
        job: &str,
        planned_ms: i64,
        fence: &LeaseFence,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin_under(fence).await?;
        sqlx::query(
            "INSERT INTO service_job_times VALUES ($1, $2)
             ON CONFLICT (job) DO UPDATE SET planned_ms = excluded.planned_ms",
        )
        .bind(job)
        .bind(planned_ms)
        .execute(&mut *tx)
        .await
        .map_err(failed("note a job's time"))?;
        tx.commit().await.map_err(failed("note a job's time"))
    }
}
