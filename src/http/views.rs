//! `/v1/{ns}/views/{view}`, and `CREATE VIEW` of `POST /v1/{ns}/sql`: views of the catalog whose query is SQL of
//! this server.

use crate::{
    http::{
        AppState, body,
        error::ApiError,
        guard::{CatalogNamespace, allow_levels},
        json,
        record::ChangeCaller,
        sql_writes::{StatementKey, commit_waiting},
    },
    sql::stored_views::{NewStoredView, StoredView, ViewStoreError},
};
use arrow::{
    array::{ArrayRef, StringArray},
    datatypes::{DataType, Field, Schema},
    record_batch::RecordBatch,
};
use axum::{
    body::Body,
    extract::{Extension, Path, State},
    http::{HeaderMap, request::Parts},
    response::Response,
};
use futures::{StreamExt, stream};
use icecore_catalog::{
    access::{Action, Principal, request_entry},
    audit::AuditEntry,
    body::parse_object,
    catalog::Catalog,
    metastore::Levels,
};
use icecore_engine::{QueryAnswer, error::SqlError, view_definition::ViewDefinition};
use icecore_schemas::{
    error_code::ErrorCode,
    query::SqlRequest,
    views::{NewView, ViewColumn, ViewEntry, ViewRemoved},
};
use std::sync::Arc;

/// What the record of a view that a statement makes says was asked for.
const CREATE_VIEW: &str = "CREATE VIEW";

impl From<ViewStoreError> for ApiError {
    fn from(cause: ViewStoreError) -> Self {
        match cause {
            ViewStoreError::Query(cause) => cause.into(),
            ViewStoreError::Catalog(cause) => cause.into(),
        }
    }
}

/// A statement that makes a view, and the request that it came in.
pub(super) struct CreateStatement<'a> {
    pub(super) principal: &'a Principal,
    pub(super) levels: &'a Levels,
    pub(super) parts: &'a Parts,
    pub(super) body: &'a [u8],
    pub(super) request: &'a SqlRequest,
}

/// Carries out `CREATE VIEW`, and records it. The answer has one row, the name of the view.
///
/// # Errors
/// 400, 403 without the scope `write`, 409 for a name that is taken and for a lost race, 503 when too many records
/// wait.
pub(super) async fn create(
    app: &AppState,
    asked: &CreateStatement<'_>,
    view: &ViewDefinition,
) -> Result<QueryAnswer, ApiError> {
    let &CreateStatement { principal, levels, parts, body, .. } = asked;
    let entry = AuditEntry {
        action: CREATE_VIEW.to_owned(),
        object: format!("{}.{}", levels.join("."), view.name),
        ..request_entry(parts, principal, body)
    };
    let key = StatementKey::of(&parts.headers, &entry)?;
    let recording = app.access.recorder().map(|recorder| {
        let busy = "the audit log is behind; send the statement again";
        recorder.begin(entry).ok_or_else(|| ApiError::new(ErrorCode::Unavailable, busy))
    });
    let recording = recording.transpose()?;
    let catalog = match &recording {
        Some(recording) => app.catalog.for_call(recording.call()),
        None => app.catalog.clone(),
    };
    let stored = Box::pin(create_in(app, &catalog, asked, view, key)).await;
    if let Some(recording) = recording {
        let status = stored.as_ref().map_or_else(|error| error.code().status(), |_| 200);
        recording.end(status).await;
    }
    stored?;
    named(&view.name)
}

async fn create_in(
    app: &AppState,
    catalog: &Catalog,
    asked: &CreateStatement<'_>,
    view: &ViewDefinition,
    key: Option<StatementKey>,
) -> Result<(), ApiError> {
    let &CreateStatement { principal, levels, request, .. } = asked;
    allow_levels(principal, Action::Write, levels)?;
    let namespace = levels.join(".");
    let invalid = |text: String| ApiError::from(SqlError::Invalid(text));
    if view.namespace.as_ref().is_some_and(|other| *other != namespace) {
        let text = "a view is made in the namespace of the request: write its name alone, and send it to the other namespace";
        return Err(invalid(text.to_owned()));
    }
    if request.as_of.is_some() || request.basis.is_some() || !request.params.is_empty() {
        let text = "CREATE VIEW takes no `as_of`, `basis` and `params`: leave them out";
        return Err(invalid(text.to_owned()));
    }
    let view =
        NewStoredView { levels, name: &view.name, sql: &view.query, replaces: view.replaces };
    let Some(key) = key else { return store(app, catalog, principal, view).await.map(drop) };
    let Some(keyed) = key.look_up_view(catalog).await? else { return Ok(()) };
    let Err(cause) = store(app, &keyed, principal, view).await else { return Ok(()) };
    // The same request may have been carried out meanwhile.
    match key.look_up_view(catalog).await {
        Ok(None) => Ok(()),
        Ok(Some(_)) | Err(_) => Err(cause),
    }
}

/// Stores a view in a namespace that the catalog may not have yet, because its events wait.
async fn store(
    app: &AppState,
    catalog: &Catalog,
    principal: &Principal,
    view: NewStoredView<'_>,
) -> Result<StoredView, ApiError> {
    commit_waiting(app, view.levels).await?;
    Ok(Box::pin(app.sql.store_view(catalog, principal, view)).await?)
}

/// The answer of a statement that made this.
fn named(name: &str) -> Result<QueryAnswer, ApiError> {
    let schema = Arc::new(Schema::new(vec![Field::new("view", DataType::Utf8, false)]));
    let names: ArrayRef = Arc::new(StringArray::from(vec![name]));
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![names]);
    let batch = batch.map_err(|cause| ApiError::internal(&cause))?;
    let batches = stream::iter([Ok(batch)]).boxed();
    Ok(QueryAnswer { schema, batches, snapshot: None, basis: None })
}

/// `PUT /v1/{ns}/views/{view}`: a new view, or another query of one that is there. Durable on return.
///
/// # Errors
/// 400 for a query that does not plan, 404 for a namespace that is not there, 409 for a table of this name.
pub(super) async fn put(
    State(app): State<AppState>,
    Path((_, name)): Path<(String, String)>,
    Extension(CatalogNamespace(levels)): Extension<CatalogNamespace>,
    caller: ChangeCaller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let body = body::read(&app, &headers, body).await?;
    let NewView { sql } = parse_object(&body.bytes).map_err(|problem| {
        let text = format!("the body is not {{\"sql\": \"SELECT …\"}}: {problem}");
        ApiError::new(ErrorCode::InvalidRequest, text)
    })?;
    let view = NewStoredView { levels: &levels, name: &name, sql: &sql, replaces: true };
    let stored = Box::pin(store(&app, &caller.catalog(&app), &caller.principal, view)).await?;
    Ok(json(200, &entry(&levels, &name, stored)))
}

/// `GET /v1/{ns}/views/{view}`
///
/// # Errors
/// 404 where there is none.
pub(super) async fn show(
    State(app): State<AppState>,
    Path((_, name)): Path<(String, String)>,
    Extension(CatalogNamespace(levels)): Extension<CatalogNamespace>,
) -> Result<Response, ApiError> {
    let stored = app.sql.stored_view(&levels, &name).await?;
    Ok(json(200, &entry(&levels, &name, stored)))
}

/// `DELETE /v1/{ns}/views/{view}`: durable on return.
///
/// # Errors
/// 404 where there is none.
pub(super) async fn remove(
    State(app): State<AppState>,
    Path((_, name)): Path<(String, String)>,
    Extension(CatalogNamespace(levels)): Extension<CatalogNamespace>,
    caller: ChangeCaller,
) -> Result<Response, ApiError> {
    app.sql.drop_stored_view(&caller.catalog(&app), &levels, &name).await?;
    Ok(json(200, &ViewRemoved { removed: name, namespace: levels.join(".") }))
}

fn entry(levels: &Levels, name: &str, stored: StoredView) -> ViewEntry {
    let StoredView { sql, dialect, columns, version } = stored;
    let columns = columns.into_iter().map(|(name, kind)| ViewColumn { name, kind }).collect();
    ViewEntry { namespace: levels.join("."), name: name.to_owned(), sql, dialect, columns, version }
}
