//! Tokens and the audit log for those who govern them.
//!
//! A caller makes, sees and revokes only tokens whose every scope lies where it has `admin`; to it,
//! others are not there. Each change is a record in the audit log, refused or not.

use crate::http::{App, body, error::ApiError, guard, json, parse_namespace};
use axum::{
    body::Body,
    extract::{Extension, Path, Query, State},
    http::{HeaderMap, Uri},
    response::{IntoResponse, Response},
};
use icecore_catalog::{
    access::{
        Action, Control, Peer, Principal, Scope, TokenRequest,
        audit::{Entry, details},
    },
    metastore::sql::access::ApiToken,
};
use icecore_schemas::error_code::ErrorCode;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{future::Future, time::Duration};

/// Most audit records of one page.
const PAGE_RECORDS_MAX: u32 = 1000;

/// What a token is made from.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    name: String,
    /// `read:sales`, `admin:*`, or only `read` for the namespace in `namespace`.
    scopes: Vec<String>,
    /// Where its events go that name no namespace, as senders write it.
    namespace: Option<String>,
    /// Seconds; for ever when left out.
    expires_in: Option<u64>,
}

/// Which page of the audit log.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditPage {
    after: Option<i64>,
    limit: Option<u32>,
}

/// Where a request comes from, for the audit log.
#[derive(Debug)]
pub(super) struct Origin<'a> {
    pub(super) principal: &'a Principal,
    pub(super) peer: Option<Extension<Peer>>,
    pub(super) headers: &'a HeaderMap,
    pub(super) uri: &'a Uri,
}

/// `GET /admin/tokens`
///
/// # Errors
/// 404 while access control is off.
pub async fn tokens(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
) -> Result<Response, ApiError> {
    let tokens = control(&app)?.store().tokens().await?;
    let governed = tokens.iter().filter(|token| principal.governs(&token.scopes));
    Ok(json(200, &json!({ "tokens": governed.map(describe).collect::<Vec<_>>() })))
}

/// `POST /admin/tokens`: the reply is the only place that ever has the token.
///
/// # Errors
/// 400, 403 for scopes that the caller does not govern, 404 while access control is off.
pub async fn make_token(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    uri: Uri,
    body: Body,
) -> Result<Response, ApiError> {
    let control = control(&app)?;
    let body = body::read(&app, &headers, body).await?;
    let asked = parse(&body.bytes);
    let object = asked.as_ref().map_or("", |asked| asked.name.as_str()).to_owned();
    let origin = Origin { principal: &principal, peer, headers: &headers, uri: &uri };
    let entry = entry(&origin, "POST /admin/tokens", object, &body.bytes);
    recorded(control, entry, async {
        let request = token_request(asked?)?;
        if !principal.governs(&request.scopes) {
            return Err(ApiError::new(
                ErrorCode::Forbidden,
                "a token can only be given scopes where you have `admin`",
            ));
        }
        let made = control.make_token(request).await?;
        let body = json!({ "id": made.id, "token": made.text, "expires_ms": made.expires_ms });
        Ok(json(200, &body))
    })
    .await
}

/// `DELETE /admin/tokens/{id}`: on return the token is refused here, within a second elsewhere.
///
/// # Errors
/// 404.
pub async fn revoke_token(
    State(app): State<App>,
    Path(id): Path<String>,
    Extension(principal): Extension<Principal>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    let control = control(&app)?;
    let origin = Origin { principal: &principal, peer, headers: &headers, uri: &uri };
    let entry = entry(&origin, "DELETE /admin/tokens/{id}", id.clone(), &[]);
    recorded(control, entry, async {
        let tokens = control.store().tokens().await?;
        let token = tokens.iter().find(|token| token.id == id);
        let governed = token.is_some_and(|token| principal.governs(&token.scopes));
        if governed && control.revoke_token(&id).await? {
            return Ok(json(200, &json!({ "revoked": id })));
        }
        Err(ApiError::new(ErrorCode::NotFound, "no such token; GET /admin/tokens lists them"))
    })
    .await
}

/// `GET /admin/audit?after=&limit=`: records in order, and the head of the chain.
///
/// # Errors
/// 400, 404 while access control is off.
pub async fn audit(
    State(app): State<App>,
    page: Result<Query<AuditPage>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(page) = page.map_err(|problem| {
        let text = format!("{}; known are after=NUMBER and limit=NUMBER", problem.body_text());
        ApiError::new(ErrorCode::InvalidRequest, text)
    })?;
    let store = control(&app)?.store();
    let head = store.audit_head().await?;
    let limit = page.limit.unwrap_or(PAGE_RECORDS_MAX).clamp(1, PAGE_RECORDS_MAX);
    let records = store.audit(page.after.unwrap_or(0), limit).await?;
    Ok(json(200, &json!({ "records": records, "head": head })))
}

/// Carries out a change once there is room for its record, and records how it ended.
pub(super) async fn recorded(
    control: &Control,
    entry: Entry,
    change: impl Future<Output = Result<Response, ApiError>>,
) -> Result<Response, ApiError> {
    let room = control.room_to_record().ok_or_else(|| {
        ApiError::new(ErrorCode::Unavailable, "the audit log is behind; send the request again")
    })?;
    let recording = control.recording(room, entry);
    let response = change.await.unwrap_or_else(IntoResponse::into_response);
    control.record(recording.with_outcome(response.status().as_str())).await;
    Ok(response)
}

fn control(app: &App) -> Result<&Control, ApiError> {
    app.access.control().ok_or_else(|| {
        let text =
            "access control is off, so there are no tokens and no audit log: set `auth = on`";
        ApiError::new(ErrorCode::NotFound, text)
    })
}

fn parse(bytes: &[u8]) -> Result<NewToken, ApiError> {
    serde_json::from_slice(bytes).map_err(|problem| {
        let text = format!(
            "the body is not {{\"name\": \"…\", \"scopes\": [\"read:sales\"], \"namespace\"?, \"expires_in\"?}}: {problem}"
        );
        ApiError::new(ErrorCode::InvalidRequest, text)
    })
}

fn token_request(asked: NewToken) -> Result<TokenRequest, ApiError> {
    let scopes = scopes(&asked.scopes, asked.namespace.as_deref())
        .map_err(|problem| ApiError::new(ErrorCode::InvalidRequest, problem))?;
    Ok(TokenRequest {
        name: asked.name,
        home: asked.namespace,
        scopes,
        lifetime: asked.expires_in.map(Duration::from_secs),
    })
}

/// Scopes from their texts; one without a namespace is for `namespace`, which is as senders write
/// it.
///
/// # Errors
/// What is wrong with which text.
pub fn scopes(texts: &[String], namespace: Option<&str>) -> Result<Vec<Scope>, String> {
    let home = namespace.map(parse_namespace).transpose().map_err(|problem| problem.to_string())?;
    let parse = |text: &String| -> Result<Scope, String> {
        match (&home, text.parse::<Action>()) {
            (Some(home), Ok(action)) => Ok(Scope { action, namespace: guard::levels(home) }),
            _ => text.parse::<Scope>().map_err(|problem| problem.to_string()),
        }
    };
    texts.iter().map(parse).collect()
}

pub(super) fn entry(origin: &Origin<'_>, action: &str, object: String, body: &[u8]) -> Entry {
    let request = origin.headers.get("x-request-id").and_then(|id| id.to_str().ok());
    let path = origin.uri.path_and_query().map_or("", |path| path.as_str());
    Entry {
        time_ms: 0,
        principal: origin.principal.id().to_owned(),
        address: origin
            .peer
            .as_ref()
            .map_or_else(String::new, |Extension(Peer(address))| address.to_string()),
        request: request.unwrap_or_default().to_owned(),
        action: action.to_owned(),
        object,
        outcome: String::new(),
        details: details(path, body),
    }
}

/// A token as it is listed.
#[must_use]
pub fn describe(token: &ApiToken) -> Value {
    json!({
        "id": token.id,
        "name": token.name,
        "namespace": token.home,
        "scopes": token.scopes.iter().map(Scope::to_string).collect::<Vec<_>>(),
        "created_ms": token.created_ms,
        "expires_ms": token.expires_ms,
        "last_used_ms": token.last_used_ms,
    })
}
