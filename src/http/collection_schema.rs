//! `PUT` and `GET /v1/{ns}/collections/{collection}/schema`: which members of a collection's documents its table has
//! as typed columns.

use crate::{
    http::{
        AppState, body, collection_refresh::follow_events, collections::check_collection,
        error::ApiError, guard::CatalogNamespace, jobs::materialize::erasures_of, json,
        query_string::QueryParameters, record::ChangeCaller, sql_writes::commit_waiting,
    },
    sql::{
        collection_schema::{self, CollectionSchemaError, RegisteredSchema},
        materialized::RefreshCaller,
        writes::WriteFailure,
    },
};
use axum::{
    body::Body,
    extract::{Extension, Path, State},
    http::HeaderMap,
    response::Response,
};
use icecore_catalog::body::parse_object;
use icecore_engine::error::SqlError;
use icecore_lake::table::typed_columns::{
    TypedColumn,
    json_schema::{DocumentSchema, check_names},
};
use icecore_schemas::{
    collection_schema::{
        CollectionSchema, ColumnChange, SchemaParameters, SchemaRegistration, TypedColumnEntry,
    },
    error_code::ErrorCode,
};
use serde_json::Value;

/// Why rows have no values in new columns yet.
const IS_ERASING: &str =
    "an erasure goes on in the namespace: the table gets the values by the first refresh after it";

/// Registers a schema, and has the table of the collection follow; with `dry_run` it tells what would change.
/// Durable on return.
///
/// # Errors
/// 400 for what is no schema of columns, 404 for a namespace that is not there, 409 where columns would go or become
/// narrower, 429, 503.
pub(super) async fn put(
    State(app): State<AppState>,
    (Path((_, collection)), Extension(CatalogNamespace(levels))): (
        Path<(String, String)>,
        Extension<CatalogNamespace>,
    ),
    caller: ChangeCaller,
    QueryParameters(SchemaParameters { dry_run }): QueryParameters<SchemaParameters>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    app.owner.check()?;
    check_collection(&collection)?;
    let body = body::read(&app, &headers, body).await?;
    let invalid = |text: String| ApiError::new(ErrorCode::InvalidRequest, text);
    let schema: Value = parse_object(&body.bytes)
        .map_err(|problem| invalid(format!("the body is no JSON Schema: {problem}")))?;
    let wanted = check_names(&body.bytes).and_then(|()| DocumentSchema::parse(&schema));
    let wanted = wanted.map_err(|cause| invalid(cause.to_string()))?;
    commit_waiting(&app, &levels).await?;
    let catalog = caller.catalog(&app);
    if !dry_run {
        // A caller that goes away ends this where it waits.
        app.sql.note_pending_values(&levels, &collection);
    }
    let registered = collection_schema::register(&catalog, &levels, &collection, &wanted, dry_run);
    let made = Box::pin(registered).await;
    if made.as_ref().is_err_and(CollectionSchemaError::is_definite) {
        app.sql.end_pending_values(&levels, &collection);
    }
    let made = made?;
    let pending = match dry_run {
        true => None,
        false => Box::pin(refresh(&app, &caller, &levels, &collection)).await.err(),
    };
    let changes = made.changes().iter().map(|change| ColumnChange {
        column: change.column.clone(),
        before: change.before.clone(),
        now: change.now.clone(),
    });
    let reply = SchemaRegistration {
        collection,
        columns: entries(made.columns()),
        changes: changes.collect(),
        dry_run,
        pending: pending.map(|cause| cause.to_string()),
    };
    Ok(json(200, &reply))
}

/// The schema of a collection.
///
/// # Errors
/// 404 where none was registered.
pub(super) async fn get(
    State(app): State<AppState>,
    Path((_, collection)): Path<(String, String)>,
    Extension(CatalogNamespace(levels)): Extension<CatalogNamespace>,
) -> Result<Response, ApiError> {
    check_collection(&collection)?;
    let found = RegisteredSchema::load(&app.catalog, &levels, &collection).await?;
    let Some(RegisteredSchema { text, columns }) = found else {
        let text = format!(
            "collection `{collection}` has no schema: register one with PUT /v1/{{namespace}}/collections/{{collection}}/schema"
        );
        return Err(ApiError::new(ErrorCode::NotFound, text));
    };
    let schema = serde_json::from_str(&text).unwrap_or(Value::String(text));
    let reply = CollectionSchema { collection, schema, columns: entries(columns.columns()) };
    Ok(json(200, &reply))
}

/// Has the rows of the table get their values. A collection without events has none.
async fn refresh(
    app: &AppState,
    caller: &ChangeCaller,
    levels: &[String],
    collection: &str,
) -> Result<(), ApiError> {
    let erasures = erasures_of(&app.erasures, levels).await?;
    if erasures.is_none() {
        return Err(ApiError::new(ErrorCode::Unavailable, IS_ERASING));
    }
    // The job may have looked before the columns were there.
    app.sql.note_pending_values(levels, collection);
    let by = RefreshCaller { catalog: caller.catalog(app), ids: &app.ids, erasures };
    let place = (levels, collection);
    match Box::pin(follow_events(&app.sql, &app.erasures, by, place, false)).await {
        Ok(_) | Err(WriteFailure::Query(SqlError::NotFound(_))) => {
            app.sql.end_pending_values(levels, collection);
            Ok(())
        }
        Err(cause) => Err(cause.into()),
    }
}

fn entries(columns: &[TypedColumn]) -> Vec<TypedColumnEntry> {
    let entry = |column: &TypedColumn| TypedColumnEntry {
        column: column.name.clone(),
        property: column.of.member.clone(),
        kind: column.of.kind.to_string(),
        nullable: column.of.nullable,
        required: column.of.required,
    };
    columns.iter().map(entry).collect()
}
