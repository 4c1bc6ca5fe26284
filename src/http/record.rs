//! The record of a call that changes something: one each, whatever became of it.
//!
//! Its one invariant: a route is recorded unless its method reads, it takes events or it mostly asks,
//! so a new route is recorded without being told.

use crate::http::{AppState, error::ApiError, guard::RouteNeed};
use axum::{
    body::Body,
    extract::{FromRequestParts, MatchedPath, RawPathParams, Request},
    http::{Method, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use icecore_catalog::{
    access::{Action, AuditRecorder, Principal, request_entry},
    audit::{AuditEntry, AuditedCall},
    body::whole,
    catalog::{Catalog, NAMESPACE_SEPARATOR},
};
use icecore_schemas::error_code::ErrorCode;
use std::sync::Arc;

/// Longest body of a change.
const BODY_BYTES_MAX: usize = 64 << 10;

/// The routes that only ask, although their method is not one that reads. Statements of the first that change
/// something are recorded where they are carried out.
const QUERIES: [&str; 2] = ["/v1/{namespace}/sql", "/v1/{namespace}/resolve"];

/// Who asks for a change, as its handler needs it.
#[derive(Clone, Debug)]
pub struct ChangeCaller {
    /// Who it is.
    pub principal: Principal,
    /// What the record is written by.
    pub call: Arc<AuditedCall>,
}

impl ChangeCaller {
    /// The catalog for the change.
    #[must_use]
    pub fn catalog(&self, app: &AppState) -> Catalog {
        app.catalog.for_call(&self.call)
    }
}

impl FromRequestParts<AppState> for ChangeCaller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
        let found = parts.extensions.get::<Self>().cloned();
        found.ok_or_else(|| ApiError::new(ErrorCode::Forbidden, "nobody is known to call"))
    }
}

/// Whether calls of this route are recorded. Events are kept themselves; a record each would cost a
/// metastore's transaction for what takes microseconds otherwise.
#[must_use]
pub fn is_recorded(method: &Method, need: RouteNeed, path: &str) -> bool {
    let takes_events = matches!(need, RouteNeed::Open | RouteNeed::Somewhere(Action::Ingest));
    let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    !reads && !takes_events && !QUERIES.contains(&path)
}

/// Carries out a call of `principal`, if it is `allowed`, and records it either way.
///
/// # Errors
/// 400, 408, 413 for a body that does not arrive or is too long, 503 when there is no room for it or
/// too many records wait.
pub async fn record(
    recorder: &AuditRecorder,
    principal: Principal,
    allowed: Result<(), ApiError>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let (mut parts, body) = request.into_parts();
    let bytes = whole(&parts.headers, body, BODY_BYTES_MAX).await?;
    let entry = entry(&mut parts, &principal, &bytes).await;
    let recording = recorder.begin(entry).ok_or_else(|| {
        ApiError::new(ErrorCode::Unavailable, "the audit log is behind; send the request again")
    })?;
    let response = match allowed {
        Err(refused) => refused.into_response(),
        Ok(()) => {
            parts.extensions.insert(ChangeCaller { principal, call: Arc::clone(recording.call()) });
            next.run(Request::from_parts(parts, Body::from(bytes))).await
        }
    };
    recording.end(response.status().as_u16()).await;
    Ok(response)
}

async fn entry(parts: &mut Parts, principal: &Principal, body: &[u8]) -> AuditEntry {
    let names = RawPathParams::from_request_parts(parts, &()).await;
    let names = names.iter().flatten().map(|(_, name)| name.replace(NAMESPACE_SEPARATOR, "."));
    let object = names.collect::<Vec<_>>().join(".");
    let matched = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let action = format!("{} {matched}", parts.method);
    AuditEntry { action, object, ..request_entry(parts, principal, body) }
}
