//! `/v1/{ns}/erase`: erasures. A request is written down and goes on by itself; its report says how far it
//! is.

use crate::{
    http::{AppState, body, error::ApiError, guard::CatalogNamespace, json},
    maintenance::erasure::EraseError,
};
use axum::{
    body::Body,
    extract::{Extension, Path, State},
    http::HeaderMap,
    response::Response,
};
use icecore_catalog::body::parse_object;
use icecore_schemas::{erasure::NewErasure, error_code::ErrorCode};

/// `GET /v1/{ns}/erase`: those of the namespace.
///
/// # Errors
/// 500.
pub(super) async fn list(
    State(app): State<AppState>,
    Extension(CatalogNamespace(levels)): Extension<CatalogNamespace>,
) -> Result<Response, ApiError> {
    Ok(json(200, &app.erasures.list(&levels).await?))
}

/// `POST /v1/{ns}/erase`: durable on return; what was acknowledged before is brought into tables at once.
///
/// # Errors
/// 400, 404 for a namespace that is not there, 409 where it is held, 429, 503 on a server that takes no
/// events.
pub(super) async fn begin(
    State(app): State<AppState>,
    Extension(CatalogNamespace(levels)): Extension<CatalogNamespace>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    app.owner.check()?;
    let body = body::read(&app, &headers, body).await?;
    let asked: NewErasure = parse_object(&body.bytes).map_err(|problem| {
        let text = format!(
            "the body is not {{\"subject\": {{\"user_id\": \"…\"}}, \"dry_run\": false}}: {problem}"
        );
        ApiError::new(ErrorCode::InvalidRequest, text)
    })?;
    // Tables of a namespace whose events are in the log alone are made by that. What fails now is tried
    // again by itself, and the erasure waits for it.
    let through = *app.wal.durable().borrow();
    if let [name] = levels.as_slice() {
        for namespace in app.wal.namespaces_named(name) {
            if let Err(cause) = app.flush.commit_now(&namespace, through).await {
                let error = cause.as_ref() as &dyn std::error::Error;
                tracing::warn!(%namespace, error, "an erasure waits for rows of the log");
            }
        }
    }
    Ok(json(202, &app.erasures.begin(levels, asked).await?))
}

/// `GET /v1/{ns}/erase/{id}`: how far it is.
///
/// # Errors
/// 404 where there is none.
pub(super) async fn show(
    State(app): State<AppState>,
    Path((_, id)): Path<(String, String)>,
    Extension(CatalogNamespace(levels)): Extension<CatalogNamespace>,
) -> Result<Response, ApiError> {
    Ok(json(200, &app.erasures.show(&levels, &id).await?))
}

impl From<EraseError> for ApiError {
    fn from(cause: EraseError) -> Self {
        match cause {
            EraseError::Catalog(cause) => cause.into(),
            EraseError::Invalid(text) => Self::new(ErrorCode::InvalidRequest, text),
            EraseError::Held(_) => Self::new(ErrorCode::Conflict, cause.to_string()),
            EraseError::Busy => Self::new(ErrorCode::TooManyRequests, cause.to_string()),
            EraseError::NotFound { .. } => Self::new(ErrorCode::NotFound, cause.to_string()),
            EraseError::Table { .. }
            | EraseError::Store(_)
            | EraseError::Ledger(_)
            | EraseError::Scan(_)
            | EraseError::Fault(_) => Self::internal(&cause),
        }
    }
}
