//! Jobs that an operator runs by hand.

use crate::{
    http::{
        AppState, error::ApiError, guard, json, parse_namespace, query_string::QueryParameters,
    },
    maintenance::compaction::{CompactionError, CompactionRequest},
};
use axum::{
    extract::{Path, State},
    response::Response,
};
use icecore_lake::table::compaction::choice::CompactionMode;
use icecore_schemas::{
    error_code::ErrorCode,
    jobs::{JobParameters, JobReport},
};

/// `POST /admin/jobs/{name}?namespace=&table=&dry_run=&wait=`: runs it now, and answers when it ended.
///
/// # Errors
/// 404 for a job that is not run by hand, and for a namespace that is not there; 429 while another run
/// goes on; 503 on a server that takes no events.
pub async fn run(
    State(app): State<AppState>,
    Path(name): Path<String>,
    QueryParameters(asked): QueryParameters<JobParameters>,
) -> Result<Response, ApiError> {
    let mode = match name.as_str() {
        "compact" => CompactionMode::Now,
        "compact-day" => CompactionMode::ClosedDays,
        _ => {
            let text = format!("no job `{name}` is run by hand; `compact` and `compact-day` are");
            return Err(ApiError::new(ErrorCode::NotFound, text));
        }
    };
    app.owner.check()?;
    let namespace = asked.namespace.as_deref().map(parse_namespace).transpose()?;
    let levels = namespace.as_ref().map(guard::levels);
    let JobParameters { table, dry_run, .. } = asked;
    let request = CompactionRequest { mode, levels, table, dry_run };
    if asked.wait == Some(false) {
        // The log tells how it ended.
        drop(app.compaction.start(request)?);
        return Ok(json(202, &JobReport { job: name, ..JobReport::default() }));
    }
    Ok(json(200, &app.compaction.start_and_wait(request).await?))
}

impl From<CompactionError> for ApiError {
    fn from(cause: CompactionError) -> Self {
        match cause {
            CompactionError::Catalog(cause) => cause.into(),
            CompactionError::Busy => Self::new(ErrorCode::TooManyRequests, cause.to_string()),
            CompactionError::Stopped => Self::new(ErrorCode::Unavailable, cause.to_string()),
            CompactionError::Scan(_)
            | CompactionError::Rewrite { .. }
            | CompactionError::Fault(_) => Self::internal(&cause),
        }
    }
}
