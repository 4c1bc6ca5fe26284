//! The last runs of each server's jobs, so that they are known after a restart.

use super::{Store, StoreError, failed};
use icecore_schemas::jobs::{JobOutcome, JobRun, JobTrigger};
use serde::Serialize;

pub(super) const STEP: &str = r#"
CREATE TABLE service_job_runs (
    server TEXT NOT NULL,
    job TEXT NOT NULL,
    started_ms BIGINT NOT NULL,
    elapsed_ms BIGINT NOT NULL,
    outcome TEXT NOT NULL,
    error TEXT,
    PRIMARY KEY (server, job, started_ms)
);
"#;

/// What a run cost, and why it did nothing.
pub(super) const USAGE_STEP: &str = r#"
ALTER TABLE service_job_runs ADD COLUMN run_usage TEXT;
ALTER TABLE service_job_runs ADD COLUMN reason TEXT;
"#;

/// Runs of one job that are kept.
const KEPT_MAX: i64 = 10;
/// Those of a server that is gone are kept for so long.
const KEPT_MS: i64 = 30 * 24 * 3_600_000;

impl Store {
    /// Keeps runs of this server's jobs, and forgets those before the last ten of each job.
    ///
    /// # Errors
    /// [`StoreError::Database`]; then none is kept.
    pub async fn keep_runs(&self, runs: &[(&str, JobRun)]) -> Result<(), StoreError> {
        let mut tx = self.database.begin().await.map_err(failed("begin"))?;
        for (job, run) in runs {
            sqlx::query(
                "INSERT INTO service_job_runs
                     (server, job, started_ms, elapsed_ms, outcome, error, run_trigger, report,
                      run_usage, reason)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
                 ON CONFLICT DO NOTHING",
            )
            .bind(&*self.server)
            .bind(*job)
            .bind(run.started_ms)
            .bind(i64::try_from(run.elapsed_ms).unwrap_or(i64::MAX))
            .bind(run.outcome.name())
            .bind(run.error.as_deref())
            .bind(run.trigger.map(JobTrigger::name))
            .bind(run.report.as_ref().map(json_text))
            .bind(run.usage.as_ref().map(json_text))
            .bind(run.reason.as_deref())
            .execute(&mut *tx)
            .await
            .map_err(failed("keep a job's run"))?;
            sqlx::query(
                "DELETE FROM service_job_runs WHERE server = $1 AND job = $2 AND started_ms <=
                     (SELECT started_ms FROM service_job_runs WHERE server = $1 AND job = $2
                      ORDER BY started_ms DESC LIMIT 1 OFFSET $3)",
            )
            .bind(&*self.server)
            .bind(*job)
            .bind(KEPT_MAX)
            .execute(&mut *tx)
            .await
            .map_err(failed("forget a job's runs"))?;
        }
        sqlx::query("DELETE FROM service_job_runs WHERE started_ms < $1")
            .bind(self.clock.now_ms().saturating_sub(KEPT_MS))
            .execute(&mut *tx)
            .await
            .map_err(failed("forget jobs' runs"))?;
        tx.commit().await.map_err(failed("keep jobs' runs"))
    }

    /// The runs of this server's jobs that are kept, the newest first.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn runs(&self) -> Result<Vec<(String, JobRun)>, StoreError> {
        let rows: Vec<RunRow> = sqlx::query_as(
            "SELECT job, started_ms, elapsed_ms, outcome, error, run_trigger, report, run_usage,
                 reason
             FROM service_job_runs WHERE server = $1 ORDER BY started_ms DESC",
        )
        .bind(&*self.server)
        .fetch_all(self.database.readers())
        .await
        .map_err(failed("read jobs' runs"))?;
        Ok(rows.into_iter().map(run_of).collect())
    }
}

/// Job, start, milliseconds, outcome, error, trigger, report, usage, reason.
type RunRow = (
    String,
    i64,
    i64,
    String,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
);

fn run_of(row: RunRow) -> (String, JobRun) {
    let (job, started_ms, elapsed_ms, outcome, error, trigger, report, usage, reason) = row;
    let outcomes = [JobOutcome::Idle, JobOutcome::Worked, JobOutcome::Skipped];
    let outcome = outcomes.into_iter().find(|known| known.name() == outcome);
    let run = JobRun {
        started_ms,
        elapsed_ms: elapsed_ms.cast_unsigned(),
        outcome: outcome.unwrap_or(JobOutcome::Failed),
        error,
        reason,
        trigger: JobTrigger::ALL.into_iter().find(|known| trigger.as_deref() == Some(known.name())),
        // Those of a later version may not read here.
        usage: usage.and_then(|text| serde_json::from_str(&text).ok()),
        report: report.and_then(|text| serde_json::from_str(&text).ok()),
    };
    (job, run)
}

fn json_text(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("reports and costs have texts and numbers alone")
}
