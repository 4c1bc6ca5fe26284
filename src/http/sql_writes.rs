//! `POST /v1/{ns}/sql` with a statement that writes: who may, its record, and its answer.

use crate::{
    http::{AppState, error::ApiError, guard, json},
    sql::writes::{WriteCaller, WriteReport},
};
use arrow::{
    array::{ArrayRef, Int64Array},
    datatypes::{DataType, Field, Schema},
    record_batch::RecordBatch,
};
use axum::{
    http::{HeaderMap, request::Parts},
    response::Response,
};
use futures::{StreamExt, stream};
use icecore_catalog::{
    access::{Action, Principal, request_entry},
    audit::AuditEntry,
    catalog::{Catalog, KeyedRequest, KeyedViewRequest},
};
use icecore_engine::{
    QueryAnswer,
    references::QueryScope,
    write_statement::{WriteKind, WriteStatement},
};
use icecore_schemas::{error_code::ErrorCode, query::SqlRequest};
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

/// The header that names a statement, so that a repeat is answered and not carried out again.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Who sends a statement, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct StatementSender<'a> {
    pub(super) parts: &'a Parts,
    pub(super) body: &'a [u8],
    pub(super) principal: &'a Principal,
    /// The levels of the namespace.
    pub(super) levels: &'a [String],
    pub(super) reach: QueryScope,
}

/// Carries out a statement that writes, if its sender may, and records it either way.
///
/// # Errors
/// 400, 403 without the scope `write`, 404, 409 where another one came first, 422, 429, 500, 503.
pub(super) async fn write(
    app: &AppState,
    sender: StatementSender<'_>,
    statement: WriteStatement,
    request: SqlRequest,
) -> Result<WriteReport, ApiError> {
    let StatementSender { parts, body, principal, levels, .. } = sender;
    let allowed = guard::allow_levels(principal, Action::Write, levels);
    let entry = AuditEntry {
        action: format!("POST /v1/{{namespace}}/sql {}", statement.kind.verb()),
        object: format!("{}.{}", levels.join("."), statement.table),
        ..request_entry(parts, principal, body)
    };
    let key = StatementKey::of(&parts.headers, &entry)?;
    let statement = KeyedStatement { statement, request, key };
    let Some(recorder) = app.access.recorder() else {
        allowed?;
        let catalog = app.catalog.on_behalf_of(principal.id());
        return carry_out(app, sender, catalog, statement).await;
    };
    let recording = recorder.begin(entry).ok_or_else(|| {
        ApiError::new(ErrorCode::Unavailable, "the audit log is behind; send the request again")
    })?;
    let outcome = match allowed {
        Ok(()) => {
            let catalog = app.catalog.for_call(recording.call());
            carry_out(app, sender, catalog, statement).await
        }
        Err(refused) => Err(refused),
    };
    let status = outcome.as_ref().map_or_else(|error| error.code().status(), |_| 200);
    recording.end(status).await;
    outcome
}

/// A statement as it was sent.
struct KeyedStatement {
    statement: WriteStatement,
    request: SqlRequest,
    key: Option<StatementKey>,
}

/// What repeats of a statement are known by.
pub(super) struct StatementKey {
    id: Uuid,
    /// Names what was sent, and by whom.
    fingerprint: String,
}

impl StatementKey {
    /// The key of a request with this record, if it has one.
    pub(super) fn of(headers: &HeaderMap, entry: &AuditEntry) -> Result<Option<Self>, ApiError> {
        let Some(text) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
        let id = text.to_str().ok().and_then(|text| Uuid::try_parse(text).ok());
        let id = id.ok_or_else(|| {
            ApiError::new(ErrorCode::InvalidRequest, "Idempotency-Key is not a UUID")
        })?;
        // The details are a hash of the path and the body.
        let fingerprint = format!("{} {} {}", entry.principal, entry.action, entry.details);
        Ok(Some(Self { id, fingerprint }))
    }

    /// What a request of this key wrote before; else the catalog for its one change.
    async fn look_up(&self, catalog: &Catalog) -> Result<Result<WriteReport, Catalog>, ApiError> {
        Ok(match catalog.keyed(self.id, &self.fingerprint).await? {
            KeyedRequest::New(catalog) => Err(*catalog),
            KeyedRequest::Done(Some(table)) => {
                let report = WriteReport::of(&table, &self.id.to_string());
                Ok(report.ok_or_else(|| {
                    let text = "this request was carried out, and its snapshot has expired since";
                    ApiError::new(ErrorCode::NotFound, text)
                })?)
            }
            KeyedRequest::Done(None) => {
                let text = "this request was carried out, and its table was dropped since";
                return Err(ApiError::new(ErrorCode::NotFound, text));
            }
            KeyedRequest::Other => return Err(self.of_another()),
        })
    }

    /// The catalog for the one change of a request of this key that makes a view; none where it was carried out.
    pub(super) async fn look_up_view(
        &self,
        catalog: &Catalog,
    ) -> Result<Option<Catalog>, ApiError> {
        match catalog.keyed_view(self.id, &self.fingerprint).await? {
            KeyedViewRequest::New(catalog) => Ok(Some(*catalog)),
            KeyedViewRequest::Done => Ok(None),
            KeyedViewRequest::Other => Err(self.of_another()),
        }
    }

    fn of_another(&self) -> ApiError {
        let text = format!("Idempotency-Key {} was used for another request", self.id);
        ApiError::new(ErrorCode::InvalidRequest, text)
    }
}

async fn carry_out(
    app: &AppState,
    StatementSender { principal, levels, reach, .. }: StatementSender<'_>,
    catalog: Catalog,
    KeyedStatement { statement, request, key }: KeyedStatement,
) -> Result<WriteReport, ApiError> {
    let (keyed, statement_id) = match &key {
        None => (catalog.clone(), app.ids.mint().to_string()),
        Some(key) => match key.look_up(&catalog).await? {
            Ok(report) => return Ok(report),
            Err(keyed) => (keyed, key.id.to_string()),
        },
    };
    if matches!(statement.kind, WriteKind::Create { .. }) {
        commit_waiting(app, levels).await?;
    }
    let (ids, statement_id) = (&app.ids, statement_id.as_str());
    let caller = WriteCaller { levels, reach, principal, catalog: keyed, ids, statement_id };
    let failure = match Box::pin(app.sql.write(&caller, statement, request)).await {
        Ok(report) => return Ok(report),
        Err(failure) => failure,
    };
    // The same request may have been carried out meanwhile.
    if let Some(key) = &key
        && let Ok(Ok(report)) = key.look_up(&catalog).await
    {
        return Ok(report);
    }
    Err(failure.into())
}

/// Commits the events of a namespace that the catalog does not have yet, because they are in the log alone.
pub(super) async fn commit_waiting(app: &AppState, levels: &[String]) -> Result<(), ApiError> {
    let [name] = levels else { return Ok(()) };
    if app.catalog.metastore().namespace(&levels.to_vec()).await?.is_some() {
        return Ok(());
    }
    let through = *app.wal.durable().borrow();
    for namespace in app.wal.namespaces_named(name) {
        let committed = app.flush.commit_now(&namespace, through).await;
        committed.map_err(|cause| ApiError::from(cause.as_ref()))?;
    }
    Ok(())
}

/// The answer in JSON: that of a query without rows, with the count of those that were written.
pub(super) fn in_json(report: WriteReport, elapsed: Duration) -> Response {
    let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    let mut body = serde_json::json!({
        "columns": [],
        "rows": [],
        "rowCount": report.rows,
        "elapsedMs": elapsed_ms,
    });
    if let Some(snapshot) = report.snapshot {
        body["snapshot"] = snapshot.into();
        body["snapshot_str"] = snapshot.to_string().into();
    }
    json(200, &body)
}

/// The answer in the other formats: one row with the count, and the snapshot.
pub(super) fn as_rows(report: WriteReport) -> QueryAnswer {
    let fields = ["row_count", "snapshot"].map(|name| Field::new(name, DataType::Int64, true));
    let schema = Arc::new(Schema::new(fields.to_vec()));
    let rows = i64::try_from(report.rows).unwrap_or(i64::MAX);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![rows])),
        Arc::new(Int64Array::from(vec![report.snapshot])),
    ];
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns);
    let batch = batch.expect("both columns have one row");
    let batches = stream::iter([Ok(batch)]).boxed();
    QueryAnswer { schema, batches, snapshot: report.snapshot, basis: None }
}
