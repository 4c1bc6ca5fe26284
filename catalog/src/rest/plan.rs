//! Server-side scan planning: what a client has to read, told instead of found out by it.
//!
//! Every plan is complete when it is answered. A plan or a part of one is named by a token that
//! holds the request itself, so nothing is kept between requests. Its one invariant: a token names
//! no file; files come from the table's own manifests each time.
//!
//! A filter that is too long to be carried along is left to the client: the plan is of all files,
//! and says nothing of residual filters, in place of which the client takes its own.

mod content_file;
pub(super) mod limits;
mod token;

use super::{
    RestState,
    error::RestError,
    request::{JsonBody, TablePath},
};
use crate::{
    catalog::LoadedTable,
    scan::{
        Deadline, ManifestSelection, ManifestSource, ScanError, ScanPlan, filter::Filter, json,
        manifests::PlannedFile,
    },
};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use iceberg::spec::{ManifestFile, Schema, TableMetadata};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};
use token::PlanToken;

/// Most data files that one answer describes; a larger scan is handed out in parts of about as many.
const FILES_MAX: u64 = 1_000;
/// Most parts that a scan is cut into; beyond it they grow.
const PARTS_MAX: u64 = 256;
/// Longest filter in bytes that is planned with: each part of a plan carries it, and each file.
const FILTER_BYTES_MAX: usize = 64 << 10;
/// Longest plan id in bytes, as it is part of a path. One that would be longer names the plan
/// without its filter and the columns to describe.
const PLAN_ID_BYTES_MAX: usize = 8 << 10;
/// Columns that rows have without the schema.
const METADATA_COLUMNS: [&str; 7] = [
    "_file",
    "_pos",
    "_deleted",
    "_spec_id",
    "_partition",
    "_row_id",
    "_last_updated_sequence_number",
];

/// What a client asks to be planned.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", default)]
pub(super) struct PlanBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot_id: Option<i64>,
    #[serde(skip_serializing)]
    select: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    filter: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_rows_requested: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    case_sensitive: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    use_snapshot_schema: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_snapshot_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_snapshot_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stats_fields: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct TasksBody {
    plan_task: String,
}

/// `POST …/plan`
pub(super) async fn plan(
    State(rest): State<RestState>,
    TablePath(table): TablePath,
    JsonBody(body): JsonBody<PlanBody>,
) -> Result<Json<Value>, RestError> {
    let table = rest.catalog.tables().load(&table).await?;
    let scan = ScanRequest::new(table, body)?;
    scan.check_selected()?;
    let plan = async |until| Ok(scan.completed(&rest, until).await?);
    rest.planning.run(plan).await.map(Json)
}

/// `GET …/plan/{plan-id}`
pub(super) async fn fetch(
    State(rest): State<RestState>,
    TablePath(table): TablePath,
    Path(names): Path<HashMap<String, String>>,
) -> Result<Json<Value>, RestError> {
    let scan = named(&rest, &table, &names).await?;
    let plan = async |until| {
        scan.completed(&rest, until).await.map_err(|error| gone(error, no_such_plan()))
    };
    rest.planning.run(plan).await.map(Json)
}

/// `DELETE …/plan/{plan-id}`: there is nothing to stop or to free.
pub(super) async fn cancel(
    State(rest): State<RestState>,
    TablePath(table): TablePath,
    Path(names): Path<HashMap<String, String>>,
) -> Result<StatusCode, RestError> {
    named(&rest, &table, &names).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST …/tasks`
pub(super) async fn tasks(
    State(rest): State<RestState>,
    TablePath(table): TablePath,
    JsonBody(body): JsonBody<TasksBody>,
) -> Result<Json<Value>, RestError> {
    let table = rest.catalog.tables().load(&table).await?;
    let token = PlanToken::read(&body.plan_task).ok_or_else(no_such_task)?;
    let part = token.part.ok_or_else(no_such_task)?;
    let scan = ScanRequest::again(table, token).ok_or_else(no_such_task)?;
    let plan = async |until| {
        let source = scan.source(&rest, until);
        let listed = scan.list(source).await.map_err(|error| gone(error, no_such_task()))?;
        // The list may differ only when another version of this server made the token.
        let manifests = listed.data.get(part.from..part.to);
        let manifests =
            manifests.filter(|_| digest(&listed.data) == part.of).ok_or_else(no_such_task)?;
        let plan = source.read(manifests, &listed.deletes, &scan.filter).await?;
        Ok(Value::Object(scan.described(source, &plan)?))
    };
    rest.planning.run(plan).await.map(Json)
}

async fn named(
    rest: &RestState,
    table: &iceberg::TableIdent,
    names: &HashMap<String, String>,
) -> Result<ScanRequest, RestError> {
    let table = rest.catalog.tables().load(table).await?;
    let token = names.get("plan").and_then(|plan| PlanToken::read(plan));
    let token = token.filter(|token| token.part.is_none());
    token.and_then(|token| ScanRequest::again(table, token)).ok_or_else(no_such_plan)
}

/// What is said of the filter that the rows of a file still have to pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ResidualMode {
    Told,
    /// Nothing: files were planned without it.
    Left,
}

/// A request that fits its table.
struct ScanRequest {
    metadata: Arc<TableMetadata>,
    schema: Arc<Schema>,
    filter: Filter,
    /// What of the filter is the client's to find out.
    residuals: ResidualMode,
    /// Columns whose counts and bounds are told.
    described: HashSet<i32>,
    /// The request with the snapshot that it is about.
    body: PlanBody,
}

impl ScanRequest {
    fn new(table: LoadedTable, mut body: PlanBody) -> Result<Self, RestError> {
        let metadata = table.metadata;
        match (body.snapshot_id, body.start_snapshot_id, body.end_snapshot_id) {
            (_, None, None) => {
                body.snapshot_id = body.snapshot_id.or(metadata.current_snapshot_id())
            }
            (None, Some(_), Some(_)) => (),
            (Some(_), _, _) => {
                return Err(RestError::bad_request(
                    "a scan takes either one snapshot-id, or a start-snapshot-id and an end-snapshot-id, not both",
                ));
            }
            (None, _, _) => {
                return Err(RestError::bad_request(
                    "an incremental scan needs both a start-snapshot-id and an end-snapshot-id",
                ));
            }
        }
        let schema = schema_of(&metadata, &body)?;
        Self::with_schema(metadata, schema, body, ResidualMode::Told)
    }

    /// The scan that a token names; none when it is of another table.
    fn again(table: LoadedTable, token: PlanToken) -> Option<Self> {
        let schema = table.metadata.schema_by_id(token.schema).map(Arc::clone)?;
        let is_same = table.metadata.uuid() == token.table;
        let residuals = if token.leaves_filter { ResidualMode::Left } else { ResidualMode::Told };
        is_same
            .then(|| Self::with_schema(table.metadata, schema, token.body, residuals).ok())
            .flatten()
    }

    fn with_schema(
        metadata: Arc<TableMetadata>,
        schema: Arc<Schema>,
        mut body: PlanBody,
        mut residuals: ResidualMode,
    ) -> Result<Self, RestError> {
        let case_sensitive = body.case_sensitive.unwrap_or(true);
        let mut filter = match &body.filter {
            None | Some(Value::Null) => Filter::True,
            Some(filter) => json::parse(filter, &schema, case_sensitive)
                .map_err(|error| RestError::bad_request(format!("filter: {error}")))?,
        };
        if body.filter.as_ref().is_some_and(|filter| FILTER_BYTES_MAX < filter.to_string().len()) {
            (filter, residuals, body.filter) = (Filter::True, ResidualMode::Left, None);
        }
        let mut described = HashSet::new();
        for name in body.stats_fields.iter().flatten() {
            let id = field_id(&schema, name, case_sensitive).ok_or_else(|| {
                RestError::bad_request(format!("stats-fields: there is no column `{name}`"))
            })?;
            described.insert(id);
        }
        Ok(Self { metadata, schema, filter, residuals, described, body })
    }

    /// The columns do not change which files are read, but a wrong name is a mistake.
    fn check_selected(&self) -> Result<(), RestError> {
        let case_sensitive = self.body.case_sensitive.unwrap_or(true);
        for name in self.body.select.iter().flatten() {
            let known = METADATA_COLUMNS.contains(&name.as_str())
                || field_id(&self.schema, name, case_sensitive).is_some();
            if !known {
                return Err(RestError::bad_request(format!("select: there is no column `{name}`")));
            }
        }
        Ok(())
    }

    fn source<'a>(&'a self, rest: &'a RestState, until: Deadline) -> ManifestSource<'a> {
        let storage = rest.catalog.storage();
        ManifestSource { storage, cache: &rest.manifests, metadata: &self.metadata, until }
    }

    async fn list(&self, source: ManifestSource<'_>) -> Result<ManifestSelection, ScanError> {
        match (self.body.snapshot_id, self.body.start_snapshot_id, self.body.end_snapshot_id) {
            (Some(id), _, _) => source.list(id, &self.filter).await,
            (None, Some(start), Some(end)) => source.list_appended(start, end, &self.filter).await,
            // A table without a snapshot has no files.
            (None, _, _) => Ok(ManifestSelection { data: Vec::new(), deletes: Vec::new() }),
        }
    }

    async fn completed(&self, rest: &RestState, until: Deadline) -> Result<Value, ScanError> {
        let source = self.source(rest, until);
        let listed = self.list(source).await?;
        let total: u64 = listed.data.iter().map(|(manifest, _)| live_files(manifest)).sum();
        let mut answer = if total <= FILES_MAX || listed.data.len() == 1 {
            let plan = source.read(&listed.data, &listed.deletes, &self.filter).await?;
            self.described(source, &plan)?
        } else {
            Map::from_iter([
                ("file-scan-tasks".to_owned(), json!([])),
                ("plan-tasks".to_owned(), json!(self.parts(&listed, total))),
            ])
        };
        answer.insert("status".to_owned(), json!("completed"));
        answer.insert("plan-id".to_owned(), json!(self.plan_id()));
        Ok(Value::Object(answer))
    }

    /// Tokens for runs of manifests with about the same number of files.
    fn parts(&self, listed: &ManifestSelection, total: u64) -> Vec<String> {
        let files_max = FILES_MAX.max(total.div_ceil(PARTS_MAX));
        let of = digest(&listed.data);
        let mut parts = Vec::new();
        let (mut from, mut files) = (0, 0);
        for (at, (manifest, _)) in listed.data.iter().enumerate() {
            let more = live_files(manifest);
            if from < at && files_max < files + more {
                parts.push(self.token(Some(token::PlanPart { from, to: at, of })));
                (from, files) = (at, 0);
            }
            files += more;
        }
        parts.push(self.token(Some(token::PlanPart { from, to: listed.data.len(), of })));
        parts
    }

    fn token(&self, part: Option<token::PlanPart>) -> String {
        let (table, schema) = (self.metadata.uuid(), self.schema.schema_id());
        let leaves_filter = self.residuals == ResidualMode::Left;
        PlanToken { table, schema, body: self.body.clone(), part, leaves_filter }.write()
    }

    /// Names the plan, or one with more files where its name would be too long.
    fn plan_id(&self) -> String {
        let plan_id = self.token(None);
        if plan_id.len() <= PLAN_ID_BYTES_MAX {
            return plan_id;
        }
        let (table, schema) = (self.metadata.uuid(), self.schema.schema_id());
        let body = PlanBody { filter: None, stats_fields: None, ..self.body.clone() };
        let leaves_filter = self.residuals == ResidualMode::Left || self.filter != Filter::True;
        PlanToken { table, schema, body, part: None, leaves_filter }.write()
    }

    /// The files of a plan with what else their readers need.
    fn described(
        &self,
        source: ManifestSource<'_>,
        plan: &ScanPlan,
    ) -> Result<Map<String, Value>, ScanError> {
        let mut deletes = Vec::new();
        let mut numbers: HashMap<*const PlannedFile, usize> = HashMap::new();
        let mut tasks = Vec::new();
        let wanted = self.body.min_rows_requested.and_then(|rows| u64::try_from(rows).ok());
        let mut rows_left = wanted.filter(|rows| 0 < *rows);
        for file in &plan.files {
            source.until.check()?;
            if rows_left == Some(0) {
                break;
            }
            let reached = plan.deletes.of(file);
            let residual = source.residual(file, &self.filter);
            // Only of such a file is it known how many rows the client keeps.
            let is_known = self.residuals == ResidualMode::Told && residual == Filter::True;
            if is_known && reached.is_empty() {
                rows_left = rows_left.map(|rows| rows.saturating_sub(file.rows));
            }
            let mut task = Map::new();
            let data_file = content_file::write(&self.metadata, file, &self.described);
            task.insert("data-file".to_owned(), data_file);
            let references = reached.iter().map(|delete| {
                *numbers.entry(Arc::as_ptr(delete)).or_insert_with(|| {
                    deletes.push(content_file::write(&self.metadata, delete, &HashSet::new()));
                    deletes.len() - 1
                })
            });
            let references: Vec<usize> = references.collect();
            if !references.is_empty() {
                task.insert("delete-file-references".to_owned(), json!(references));
            }
            if self.residuals == ResidualMode::Told {
                task.insert("residual-filter".to_owned(), json::write(&residual));
            }
            tasks.push(Value::Object(task));
        }
        let mut answer = Map::from_iter([("file-scan-tasks".to_owned(), Value::Array(tasks))]);
        if !deletes.is_empty() {
            answer.insert("delete-files".to_owned(), Value::Array(deletes));
        }
        Ok(answer)
    }
}

/// The schema that names in the request are of.
fn schema_of(metadata: &TableMetadata, body: &PlanBody) -> Result<Arc<Schema>, RestError> {
    let then = body.snapshot_id.or(body.end_snapshot_id);
    let then = then.filter(|_| body.use_snapshot_schema.unwrap_or_default());
    let Some(id) = then else { return Ok(Arc::clone(metadata.current_schema())) };
    let snapshot = metadata.snapshot_by_id(id).ok_or(ScanError::NoSuchSnapshot(id))?;
    let schema = snapshot.schema_id().and_then(|id| metadata.schema_by_id(id));
    Ok(Arc::clone(schema.unwrap_or_else(|| metadata.current_schema())))
}

fn field_id(schema: &Schema, name: &str, case_sensitive: bool) -> Option<i32> {
    let field = if case_sensitive {
        schema.field_by_name(name)
    } else {
        schema.field_by_name_case_insensitive(name)
    };
    field.map(|field| field.id)
}

/// Names the manifests that parts of a scan are counted in.
fn digest(manifests: &[(ManifestFile, Option<i64>)]) -> u64 {
    let paths = manifests.iter().map(|(manifest, _)| manifest.manifest_path.as_str());
    xxhash_rust::xxh3::xxh3_64(paths.collect::<Vec<_>>().join("\n").as_bytes())
}

/// How many files a manifest lists; many when it does not say.
fn live_files(manifest: &ManifestFile) -> u64 {
    match (manifest.added_files_count, manifest.existing_files_count) {
        (Some(added), Some(existing)) => u64::from(added) + u64::from(existing),
        _ => FILES_MAX,
    }
}

/// A snapshot that is gone takes its plans with it.
fn gone(error: ScanError, refused: RestError) -> RestError {
    match error {
        ScanError::NoSuchSnapshot(_) | ScanError::Invalid(_) => refused,
        ScanError::Unsupported(_)
        | ScanError::TooSlow
        | ScanError::Damaged { .. }
        | ScanError::Catalog(_) => error.into(),
    }
}

fn no_such_plan() -> RestError {
    let message = "there is no plan with that id for this table: ask for a new one";
    RestError::new(StatusCode::NOT_FOUND, "NoSuchPlanIdException", message)
}

fn no_such_task() -> RestError {
    let message = "there is no such plan task for this table: plan the scan again";
    RestError::new(StatusCode::NOT_FOUND, "NoSuchPlanTaskException", message)
}

impl From<ScanError> for RestError {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::Catalog(cause) => cause.into(),
            error @ ScanError::Damaged { .. } => {
                tracing::error!(error = &error as &dyn std::error::Error, "a table does not read");
                let (status, text) = (StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
                Self::new(status, "InternalServerError", text)
            }
            ScanError::Unsupported(text) => {
                Self::new(StatusCode::NOT_ACCEPTABLE, "UnsupportedOperationException", text)
            }
            ScanError::TooSlow => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "ServiceUnavailableException",
                "planning the scan takes too long: use a filter that selects fewer files, or plan \
                 it in the client",
            ),
            error @ (ScanError::NoSuchSnapshot(_) | ScanError::Invalid(_)) => {
                Self::bad_request(error.to_string())
            }
        }
    }
}

#[cfg(test)]
mod tests;
