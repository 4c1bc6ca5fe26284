//! `/v1/{ns}/holds`: legal holds. While a namespace has one, or one above it has, nothing of it is deleted
//! for its age: the jobs `retention`, `dead-letters` and `expire` pass over it.

use crate::http::{
    AppState, body, error::ApiError, guard::CatalogNamespace, json, record::ChangeCaller,
};
use axum::{
    body::Body,
    extract::{Extension, Path, State},
    http::HeaderMap,
    response::Response,
};
use chrono::{DateTime, SecondsFormat};
use icecore_catalog::{
    body::parse_object,
    metastore::{Levels, holds::LegalHold},
};
use icecore_schemas::{
    error_code::ErrorCode,
    holds::{HoldEntry, HoldList, HoldRemoved, NewHold},
};

/// Longest name of a hold, in bytes.
const NAME_BYTES_MAX: usize = 128;
/// Longest reason, in bytes.
const REASON_BYTES_MAX: usize = 1024;

/// `GET /v1/{ns}/holds`: those of the namespace itself.
///
/// # Errors
/// 404 for a namespace that is not there.
pub(super) async fn list(
    State(app): State<AppState>,
    Extension(CatalogNamespace(levels)): Extension<CatalogNamespace>,
) -> Result<Response, ApiError> {
    let metastore = app.catalog.metastore();
    let holds = metastore.holds(&levels).await?;
    if holds.is_empty() {
        // Says so of one that is not there.
        metastore.namespaces(&levels).await?;
    }
    Ok(json(200, &HoldList { holds: holds.into_iter().map(describe).collect() }))
}

/// `PUT /v1/{ns}/holds/{name}`: durable on return.
///
/// # Errors
/// 400, 404 for a namespace that is not there.
pub(super) async fn set(
    State(app): State<AppState>,
    Path((_, name)): Path<(String, String)>,
    Extension(CatalogNamespace(levels)): Extension<CatalogNamespace>,
    caller: ChangeCaller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let wrong = |text: String| ApiError::new(ErrorCode::InvalidRequest, text);
    check_name(&name)?;
    let body = body::read(&app, &headers, body).await?;
    let NewHold { reason } = match body.bytes.trim_ascii().is_empty() {
        true => NewHold::default(),
        false => parse_object(&body.bytes).map_err(|problem| {
            wrong(format!("the body is neither empty nor {{\"reason\": \"…\"}}: {problem}"))
        })?,
    };
    let is_long = |text: &String| REASON_BYTES_MAX < text.len() || text.contains('\0');
    if reason.as_ref().is_some_and(is_long) {
        let text = format!("`reason` may have {REASON_BYTES_MAX} bytes and no zero byte");
        return Err(wrong(text));
    }
    let hold = LegalHold { levels, name, reason, since_ms: app.clock.now_ms() };
    app.catalog.metastore().for_call(&caller.call).set_hold(&hold).await?;
    let LegalHold { levels, name, .. } = hold;
    // One that was there keeps its time.
    let stored = app.catalog.metastore().holds(&levels).await?;
    let stored = stored.into_iter().find(|hold| hold.name == name);
    stored.map(|hold| json(200, &describe(hold))).ok_or_else(|| none_here(&levels, &name))
}

/// `DELETE /v1/{ns}/holds/{name}`: durable on return.
///
/// # Errors
/// 404 where there is none.
pub(super) async fn remove(
    State(app): State<AppState>,
    Path((_, name)): Path<(String, String)>,
    Extension(CatalogNamespace(levels)): Extension<CatalogNamespace>,
    caller: ChangeCaller,
) -> Result<Response, ApiError> {
    let metastore = app.catalog.metastore().for_call(&caller.call);
    if !metastore.remove_hold(&levels, &name).await? {
        return Err(none_here(&levels, &name));
    }
    Ok(json(200, &HoldRemoved { removed: name, namespace: levels.join(".") }))
}

fn check_name(name: &str) -> Result<(), ApiError> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(is_allowed) {
        return Ok(());
    }
    let text = format!(
        "the name of a hold has 1 to {NAME_BYTES_MAX} letters, digits, `-`, `_` and `.`: choose another one"
    );
    Err(ApiError::new(ErrorCode::InvalidRequest, text))
}

fn none_here(levels: &Levels, name: &str) -> ApiError {
    let namespace = levels.join(".");
    let text = format!(
        "the namespace `{namespace}` has no hold `{name}`; GET /v1/{{ns}}/holds lists those it has"
    );
    ApiError::new(ErrorCode::NotFound, text)
}

fn describe(hold: LegalHold) -> HoldEntry {
    let since = DateTime::from_timestamp_millis(hold.since_ms).unwrap_or_default();
    HoldEntry {
        namespace: hold.levels.join("."),
        name: hold.name,
        reason: hold.reason,
        since: since.to_rfc3339_opts(SecondsFormat::Millis, true),
    }
}
