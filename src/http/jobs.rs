//! Jobs that an operator runs by hand.

pub mod dedup;
pub mod materialize;
pub mod refresh;
pub mod tags;

use crate::{
    http::{
        AppState, error::ApiError, guard, json, parse_namespace, query_string::QueryParameters,
        record::ChangeCaller,
    },
    maintenance::{
        JOBS, REFRESH, TAGS,
        compaction::{
            CompactionError,
            planned::{CompactDays, CompactHours, CompactNow},
        },
        expiry::ExpiryError,
        orphans::OrphansError,
        planned::{PlannedJob, RunRefusal, RunRequest},
        retention::RetentionError,
    },
};
use axum::{
    extract::{Path, State},
    response::Response,
};
use dedup::{DedupError, DedupExpiry};
use icecore_lake::table::compaction::condition::PartitionCondition;
use icecore_schemas::{
    error_code::ErrorCode,
    jobs::{JobParameters, JobReport},
};
use materialize::RefreshNow;
use refresh::RefreshCollections;
use tags::TagNamespaces;

/// `POST /admin/jobs/{name}?namespace=&table=&where=&dry_run=&wait=`: runs it now, and answers when it ended.
///
/// # Errors
/// 400 for a condition that does not read or that fits no table; 404 for a job that is not run by hand, and
/// for a namespace or its table that is not there; 429 while another run goes on; 503 on a server that takes
/// no events.
pub async fn run(
    State(app): State<AppState>,
    caller: ChangeCaller,
    Path(name): Path<String>,
    QueryParameters(asked): QueryParameters<JobParameters>,
) -> Result<Response, ApiError> {
    caller.call.about(&described(&name, &asked));
    match name.as_str() {
        "compact" => answer(&app, &asked, CompactNow(app.tables.compaction.clone())).await,
        "compact-hour" => {
            answer(&app, &asked, CompactHours::at_full_speed(app.tables.compaction.clone())).await
        }
        "compact-day" => {
            answer(&app, &asked, CompactDays::at_full_speed(app.tables.compaction.clone())).await
        }
        "orphans" => answer(&app, &asked, app.tables.orphans.clone()).await,
        "retention" => answer(&app, &asked, app.tables.retention.events.clone()).await,
        "dead-letters" => answer(&app, &asked, app.tables.retention.letters.clone()).await,
        "dedup" if asked.namespace.is_some() || asked.table.is_some() => Err(ApiError::new(
            ErrorCode::InvalidRequest,
            "the ids of all namespaces are in the same files: run this job without `namespace` and `table`",
        )),
        "dedup" => answer(&app, &asked, DedupExpiry(app.ingest.clone())).await,
        "materialize" => {
            let job = RefreshNow::new(&app.catalog, &app.sql, &app.erasures, &app.ids);
            answer(&app, &asked, job).await
        }
        REFRESH => {
            let of_events = (&app.sql, &app.wal, &app.ingest);
            let job = RefreshCollections::new(&app.catalog, of_events, &app.erasures, &app.ids);
            answer(&app, &asked, job).await
        }
        TAGS => answer(&app, &asked, tag_namespaces(&app)).await,
        "expire" => answer(&app, &asked, app.tables.retention.expiry.clone()).await,
        _ => Err(not_by_hand(&name)),
    }
}

/// What tags the tables of namespaces.
fn tag_namespaces(app: &AppState) -> TagNamespaces {
    let of_events = (&app.sql, &app.wal, &app.ingest);
    let collections = RefreshCollections::new(&app.catalog, of_events, &app.erasures, &app.ids);
    TagNamespaces::new(
        (&app.catalog, &app.owner),
        (&app.flush, &app.wal),
        &app.erasures,
        collections,
        (&app.clock, app.tables.day_tags),
    )
}

/// Runs a job as a task of the server, and answers when it ended or, with `wait=false`, at once.
async fn answer<J: PlannedJob>(
    app: &AppState,
    asked: &JobParameters,
    job: J,
) -> Result<Response, ApiError>
where
    ApiError: From<J::Error>,
{
    app.owner.check()?;
    let condition = condition_of::<J>(asked)?;
    let namespace = asked.namespace.as_deref().map(parse_namespace).transpose()?;
    let levels = namespace.as_ref().map(guard::levels);
    let (table, dry_run) = (asked.table.clone(), asked.dry_run);
    let request = RunRequest { levels, table, dry_run, condition };
    if asked.wait == Some(false) {
        // Nobody would be told of a name that is not there.
        request.check_names(&app.catalog).await?;
    }
    let answered = app.jobs.run_by_hand(job, request)?;
    if asked.wait == Some(false) {
        // The list of jobs and the log tell how it ended.
        drop(answered);
        let job = J::NAME.to_owned();
        return Ok(json(202, &JobReport { job, is_running: true, ..JobReport::default() }));
    }
    match answered.await {
        Ok(ended) => Ok(json(200, &ended?)),
        // The run is dropped with its end.
        Err(_) => Err(ApiError::new(
            ErrorCode::Unavailable,
            "the server stops before the run has ended: run it again, and it goes on",
        )),
    }
}

/// A run as its record in the audit log names it.
fn described(name: &str, asked: &JobParameters) -> String {
    let named =
        [("namespace", &asked.namespace), ("table", &asked.table), ("where", &asked.condition)]
            .into_iter();
    let named = named.filter_map(|(key, value)| Some(format!(" {key}={}", value.as_ref()?)));
    let dry = asked.dry_run.then(|| " dry_run=true".to_owned());
    named.chain(dry).fold(name.to_owned(), |text, part| text + &part)
}

/// The partitions that a run is about, where it is about some of them.
fn condition_of<J: PlannedJob>(
    asked: &JobParameters,
) -> Result<Option<PartitionCondition>, ApiError> {
    let Some(condition) = &asked.condition else { return Ok(None) };
    if ![CompactNow::NAME, CompactHours::NAME, CompactDays::NAME].contains(&J::NAME) {
        let text = format!(
            "the job `{}` takes no condition on partitions: leave out `where`; `{}`, `{}` and `{}` take one",
            J::NAME,
            CompactNow::NAME,
            CompactHours::NAME,
            CompactDays::NAME
        );
        return Err(ApiError::new(ErrorCode::InvalidRequest, text));
    }
    let parsed = PartitionCondition::parse(condition);
    let parsed = parsed.map_err(|cause| {
        ApiError::new(ErrorCode::InvalidRequest, format!("query parameter `where`: {cause}"))
    })?;
    Ok(Some(parsed))
}

fn not_by_hand(name: &str) -> ApiError {
    let lines = JOBS.iter().filter(|line| line.is_run_by_hand());
    let names: Vec<String> = lines.map(|line| format!("`{}`", line.name)).collect();
    let text = format!("no job `{name}` is run by hand; these are: {}", names.join(", "));
    ApiError::new(ErrorCode::NotFound, text)
}

impl From<RunRefusal> for ApiError {
    fn from(cause: RunRefusal) -> Self {
        match cause {
            RunRefusal::Busy => Self::new(ErrorCode::TooManyRequests, cause.to_string()),
        }
    }
}

impl From<OrphansError> for ApiError {
    fn from(cause: OrphansError) -> Self {
        match cause {
            OrphansError::Catalog(cause) => cause.into(),
            OrphansError::Fault(_) => Self::internal(&cause),
        }
    }
}

impl From<DedupError> for ApiError {
    fn from(cause: DedupError) -> Self {
        Self::new(ErrorCode::Unavailable, cause.to_string())
    }
}

impl From<CompactionError> for ApiError {
    fn from(cause: CompactionError) -> Self {
        match cause {
            CompactionError::Catalog(cause) => cause.into(),
            CompactionError::Stopped => Self::new(ErrorCode::Unavailable, cause.to_string()),
            CompactionError::Condition { table, source } => {
                let text = format!("query parameter `where`: table `{table}`: {source}");
                Self::new(ErrorCode::InvalidRequest, text)
            }
            CompactionError::Scan(_)
            | CompactionError::Rewrite { .. }
            | CompactionError::Fault(_) => Self::internal(&cause),
        }
    }
}

impl From<RetentionError> for ApiError {
    fn from(cause: RetentionError) -> Self {
        match cause {
            RetentionError::Catalog(cause) => cause.into(),
            RetentionError::Removal(_) | RetentionError::Fault(_) => Self::internal(&cause),
        }
    }
}

impl From<ExpiryError> for ApiError {
    fn from(cause: ExpiryError) -> Self {
        match cause {
            ExpiryError::Catalog(cause) => cause.into(),
            ExpiryError::Fault(_) => Self::internal(&cause),
        }
    }
}
