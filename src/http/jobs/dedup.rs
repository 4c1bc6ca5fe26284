//! The job `dedup`: ids whose time is over are forgotten, and it is told how many were.
//!
//! The ingest thread forgets them by itself, so that they take no room however seldom the job runs; the job
//! makes it visible, and does it now. It is here because ingest and the jobs of tables do not know each
//! other.

use crate::{
    ingest::{IdExpiry, Ingest, IngestError},
    maintenance::planned::{PlannedJob, RunRequest},
};
use icecore_schemas::jobs::{BeforeAfter, JobReport};
use tokio::time::Instant;

/// Why a run failed: the server stops.
#[derive(Debug, thiserror::Error)]
#[error("forget ids: run the job again once the server is back")]
pub struct DedupError(#[from] IngestError);

/// The job that does it, always for all namespaces: their ids are in the same files. Cheap to clone.
#[derive(Clone, Debug)]
pub struct DedupExpiry(pub Ingest);

impl PlannedJob for DedupExpiry {
    const NAME: &'static str = "dedup";
    type Error = DedupError;

    async fn run(&self, request: &RunRequest) -> Result<JobReport, DedupError> {
        let started = Instant::now();
        let IdExpiry { expired, left } = self.0.expire_ids(request.dry_run).await?;
        let both = |gone: u64, left: u64| BeforeAfter { before: left + gone, after: left };
        Ok(JobReport {
            job: Self::NAME.to_owned(),
            files: both(expired.files, left.files),
            bytes: both(expired.bytes, left.bytes),
            rows: expired.ids,
            elapsed_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            ..JobReport::default()
        })
    }
}
