//! Idempotency keys: requests that are sent more than once.
//!
//! A client that lost an answer sends its request again under the same `Idempotency-Key`. The key
//! is kept in the transaction that carries the request out, so a repeat, at whatever process and
//! after whatever restart, changes nothing and is answered as the first was. A refusal that no
//! repeat would change is kept too; a server error is not.

use super::{
    REQUEST_BYTES_MAX, RestState,
    access::{self, DelegatedAccess, TableCaller},
    change_context::IdempotencyKey,
    commit::CommitAnswer,
    error::RestError,
    ordered::SnapshotMode,
    request::parse_body,
    tables::{self, StagedTable},
    views,
};
use crate::{
    access::{Action, Principal},
    body::whole,
    catalog::{LoadedTable, LoadedView},
    error::CatalogError,
    metastore::{AnsweredRequest, AnsweredTable, RecordedAnswer},
};
use axum::{
    body::Body,
    extract::{Request, State},
    http::{Method, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use iceberg::{NamespaceIdent, TableIdent};
use uuid::Uuid;

/// What repeats of a request are recognised by.
const HEADER: &str = "idempotency-key";
/// Length of a UUID as clients write it.
const KEY_LENGTH: usize = 36;
/// Refusals that a repeat would get again.
const FINAL: [StatusCode; 5] = [
    StatusCode::BAD_REQUEST,
    StatusCode::NOT_FOUND,
    StatusCode::NOT_ACCEPTABLE,
    StatusCode::CONFLICT,
    StatusCode::UNPROCESSABLE_ENTITY,
];

/// Answers a repeated request as it was answered before.
pub(super) async fn once(State(rest): State<RestState>, request: Request, next: Next) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let Some(id) = request.headers().get(HEADER).filter(|_| !reads) else {
        return next.run(request).await;
    };
    let id = id.to_str().ok().filter(|id| id.len() == KEY_LENGTH);
    let Some(id) = id.and_then(|id| Uuid::try_parse(id).ok()) else {
        return RestError::bad_request("Idempotency-Key is not a UUID of 36 characters")
            .into_response();
    };
    match carried_out_once(&rest, id, request, next).await {
        Ok(response) | Err(response) => response,
    }
}

async fn carried_out_once(
    rest: &RestState,
    id: Uuid,
    request: Request,
    next: Next,
) -> Result<Response, Response> {
    let refused = |cause: CatalogError| RestError::from(cause).into_response();
    let (mut parts, body) = request.into_parts();
    let body = whole(&parts.headers, body, REQUEST_BYTES_MAX).await;
    let body = body.map_err(|cause| RestError::from(cause).into_response())?;
    let key = IdempotencyKey { id, fingerprint: fingerprint(&parts, &body) };
    let caller = TableCaller::of(&parts);
    if let Some(done) = rest.catalog.metastore().request(id).await.map_err(refused)? {
        return Ok(answer_again(rest, &caller, &key, done).await);
    }
    parts.extensions.insert(key.clone());
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    if !FINAL.contains(&response.status()) {
        return Ok(response);
    }
    let status = response.status().as_u16();
    let body = axum::body::to_bytes(response.into_body(), REQUEST_BYTES_MAX).await;
    let body = String::from_utf8(body.unwrap_or_default().to_vec()).unwrap_or_default();
    // Another sending of the same request may have been carried out meanwhile: what is kept first
    // is the answer to both.
    let asked = key.clone().with(RecordedAnswer::Empty);
    let kept = rest.catalog.metastore().refuse_request(&asked, status, &body).await;
    match kept.map_err(refused)? {
        Some(done) => Ok(answer_again(rest, &caller, &key, done).await),
        None => Ok(json(status, body)),
    }
}

async fn answer_again(
    rest: &RestState,
    caller: &TableCaller,
    key: &IdempotencyKey,
    done: AnsweredRequest,
) -> Response {
    if done.fingerprint != key.fingerprint {
        let text = format!("Idempotency-Key {} was used for another request", key.id);
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        return RestError::new(status, "UnprocessableEntityException", text).into_response();
    }
    answered(rest, caller, done).await.unwrap_or_else(IntoResponse::into_response)
}

async fn answered(
    rest: &RestState,
    caller: &TableCaller,
    done: AnsweredRequest,
) -> Result<Response, RestError> {
    Ok(match (done.answer, done.table) {
        (RecordedAnswer::Json(body), _) => json(done.status, body),
        (RecordedAnswer::Table, Some(made)) => loaded(rest, caller, made).await?,
        (RecordedAnswer::Commit, Some(made)) => {
            now_at(rest, caller, made.uuid).await?;
            CommitAnswer::new(rest, table(rest, made).await?).into_response()
        }
        (RecordedAnswer::View, Some(made)) => {
            now_at(rest, caller, made.uuid).await?;
            views::answer(view(rest, made).await?).into_response()
        }
        (RecordedAnswer::Staged(text), _) => {
            parse_body::<StagedTable>(text.as_bytes())?.answer(rest, caller).await?
        }
        (
            RecordedAnswer::Empty
            | RecordedAnswer::Table
            | RecordedAnswer::Commit
            | RecordedAnswer::View,
            _,
        ) => StatusCode::NO_CONTENT.into_response(),
    })
}

async fn loaded(
    rest: &RestState,
    caller: &TableCaller,
    made: AnsweredTable,
) -> Result<Response, CatalogError> {
    let ident = now_at(rest, caller, made.uuid).await?;
    let table = table(rest, made).await?;
    let access = match ident {
        Some(ident) => access::delegated(rest, caller, &ident, table.metadata.location()).await?,
        // It was dropped since; nobody gets at its files any more.
        None => DelegatedAccess::default(),
    };
    Ok(tables::loaded(rest, &table, &access, SnapshotMode::All))
}

/// Where a table or view is now, if the caller may know of it: since the request it may have been
/// moved to where the caller may not read. None when it was dropped.
async fn now_at(
    rest: &RestState,
    caller: &TableCaller,
    uuid: Uuid,
) -> Result<Option<TableIdent>, CatalogError> {
    let Some((levels, name)) = rest.catalog.metastore().name_of(uuid).await? else {
        return Ok(None);
    };
    if !caller.principal().may(Action::Read, &levels) {
        return Err(CatalogError::NoSuchTable(uuid.to_string()));
    }
    Ok(NamespaceIdent::from_vec(levels).ok().map(|levels| TableIdent::new(levels, name)))
}

/// The table as the request made it or, when that file is gone, as it is now.
async fn table(rest: &RestState, made: AnsweredTable) -> Result<LoadedTable, CatalogError> {
    let AnsweredTable { uuid, metadata_location } = made;
    if let Ok(table) = rest.catalog.tables().load_file(uuid, &metadata_location).await {
        return Ok(table);
    }
    let now = rest.catalog.metastore().table_by_uuid(uuid).await?;
    let now = now.ok_or_else(|| CatalogError::NoSuchTable(uuid.to_string()))?;
    rest.catalog.tables().load_file(uuid, &now.metadata_location).await
}

/// As [`table`].
async fn view(rest: &RestState, made: AnsweredTable) -> Result<LoadedView, CatalogError> {
    let AnsweredTable { uuid, metadata_location } = made;
    if let Ok(view) = rest.catalog.views().load_file(uuid, &metadata_location).await {
        return Ok(view);
    }
    let now = rest.catalog.metastore().table_by_uuid(uuid).await?;
    let now = now.ok_or_else(|| CatalogError::NoSuchView(uuid.to_string()))?;
    rest.catalog.views().load_file(uuid, &now.metadata_location).await
}

fn json(status: u16, body: String) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// Names what is asked for, and by whom.
fn fingerprint(parts: &Parts, body: &[u8]) -> String {
    let actor = parts.extensions.get::<Principal>().map_or("", Principal::id);
    let mut text = format!("{}\0{}\0{actor}\0", parts.method, parts.uri).into_bytes();
    text.extend_from_slice(body);
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128(&text))
}
