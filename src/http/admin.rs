//! Tokens, the audit log and the jobs for those who govern them.
//!
//! A caller makes, sees and revokes only tokens whose every scope lies where it has `admin`; to it,
//! others are not there.

use crate::http::{
    AppState, body,
    error::ApiError,
    guard, json, parse_namespace,
    query_string::{QueryParameters, page_size},
    record::ChangeCaller,
};
use axum::{
    body::Body,
    extract::{Extension, Path, State},
    http::HeaderMap,
    response::Response,
};
use icecore_catalog::{
    access::{self, AccessScope, Action, Principal, TokenControl, TokenRequest},
    audit::{AuditEntry, ChainHead, ChainRecord},
    body::parse_object,
    metastore::access::ApiToken,
};
use icecore_schemas::{
    error_code::ErrorCode,
    tokens::{
        AuditHead, AuditPage, AuditRecord, AuditRecords, NewToken, TokenEntry, TokenList,
        TokenReply, TokenRevoked,
    },
};
use std::time::Duration;

/// Most audit records of one page.
const PAGE_RECORDS_MAX: u32 = 1000;

/// `GET /admin/tokens`
///
/// # Errors
/// 404 while access control is off.
pub async fn tokens(
    State(app): State<AppState>,
    Extension(principal): Extension<Principal>,
) -> Result<Response, ApiError> {
    let tokens = control(&app)?.store().tokens().await?;
    let governed = tokens.iter().filter(|token| principal.governs(&token.scopes));
    Ok(json(200, &TokenList { tokens: governed.map(describe).collect() }))
}

/// `POST /admin/tokens`: the reply is the only place that ever has the token.
///
/// # Errors
/// 400, 403 for scopes that the caller does not govern, 404 while access control is off.
pub async fn make_token(
    State(app): State<AppState>,
    caller: ChangeCaller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let control = control(&app)?;
    let body = body::read(&app, &headers, body).await?;
    let request = token_request(parse(&body.bytes)?)?;
    if !caller.principal.governs(&request.scopes) {
        return Err(ApiError::new(
            ErrorCode::Forbidden,
            "a token can only be given scopes where you have `admin`",
        ));
    }
    let store = control.store().for_call(&caller.call);
    let made = access::make_token(&store, request, control.now_ms()).await?;
    let reply = TokenReply { id: made.id, token: made.text, expires_ms: made.expires_ms };
    Ok(json(200, &reply))
}

/// `DELETE /admin/tokens/{id}`: on return the token is refused here, within a second elsewhere.
///
/// # Errors
/// 404.
pub async fn revoke_token(
    State(app): State<AppState>,
    Path(id): Path<String>,
    caller: ChangeCaller,
) -> Result<Response, ApiError> {
    let control = control(&app)?;
    let tokens = control.store().tokens().await?;
    let token = tokens.iter().find(|token| token.id == id);
    let governed = token.is_some_and(|token| caller.principal.governs(&token.scopes));
    if governed && control.revoke_token(&id, &caller.call).await? {
        return Ok(json(200, &TokenRevoked { revoked: id }));
    }
    Err(ApiError::new(ErrorCode::NotFound, "no such token; GET /admin/tokens lists them"))
}

/// `GET /admin/jobs`: every job of this server and its last runs.
pub async fn jobs(State(app): State<AppState>) -> Response {
    json(200, &app.jobs.list())
}

/// `GET /admin/audit?after=&limit=`: records in order, and both ends of the chain.
///
/// # Errors
/// 400.
pub async fn audit(
    State(app): State<AppState>,
    QueryParameters(page): QueryParameters<AuditPage>,
) -> Result<Response, ApiError> {
    let store = app.access.recorder().ok_or_else(not_recorded)?.store();
    let ends = store.audit_ends().await?;
    let limit = page_size(page.limit, PAGE_RECORDS_MAX, PAGE_RECORDS_MAX)?;
    let records = store.audit(page.after.unwrap_or(0), limit).await?;
    let head = |head: ChainHead| AuditHead { number: head.number, hash: head.hash };
    Ok(json(
        200,
        &AuditRecords {
            records: records.into_iter().map(record).collect(),
            head: head(ends.head),
            start: head(ends.start),
        },
    ))
}

fn record(record: ChainRecord) -> AuditRecord {
    let ChainRecord { number, entry, hash } = record;
    let AuditEntry { time_ms, principal, address, request, action, object, outcome, details } =
        entry;
    AuditRecord {
        number,
        time_ms,
        principal,
        address,
        request,
        action,
        object,
        outcome,
        details,
        hash,
    }
}

fn not_recorded() -> ApiError {
    ApiError::new(ErrorCode::NotFound, "this server keeps no audit log")
}

fn control(app: &AppState) -> Result<&TokenControl, ApiError> {
    app.access.control().ok_or_else(|| {
        let text = "access control is off, so there are no tokens: set `auth = on`";
        ApiError::new(ErrorCode::NotFound, text)
    })
}

fn parse(bytes: &[u8]) -> Result<NewToken, ApiError> {
    parse_object(bytes).map_err(|problem| {
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
pub fn scopes(texts: &[String], namespace: Option<&str>) -> Result<Vec<AccessScope>, String> {
    let home = namespace.map(parse_namespace).transpose().map_err(|problem| problem.to_string())?;
    let parse = |text: &String| -> Result<AccessScope, String> {
        match (&home, text.parse::<Action>()) {
            (Some(home), Ok(action)) => Ok(AccessScope { action, namespace: guard::levels(home) }),
            _ => text.parse::<AccessScope>().map_err(|problem| problem.to_string()),
        }
    };
    texts.iter().map(parse).collect()
}

/// A token as it is listed.
#[must_use]
pub fn describe(token: &ApiToken) -> TokenEntry {
    TokenEntry {
        id: token.id.clone(),
        name: token.name.clone(),
        namespace: token.home.clone(),
        scopes: token.scopes.iter().map(AccessScope::to_string).collect(),
        created_ms: token.created_ms,
        expires_ms: token.expires_ms,
        last_used_ms: token.last_used_ms,
    }
}
