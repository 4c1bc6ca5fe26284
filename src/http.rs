//! The HTTP surface: routes, limits, request ids; one mapping from errors to replies.
//!
//! Handlers parse at the edge, call one module below, and shape the reply. They hold no state but
//! counters.

pub mod admin;
pub mod body;
mod branches;
mod bulk_changes;
mod change_events;
pub mod collection_refresh;
mod collection_schema;
pub mod collections;
pub mod compression;
pub mod conservation;
pub mod dead_letters;
mod documents;
pub mod erasures;
pub mod error;
pub mod events;
pub mod fsck;
pub mod guard;
pub mod gzip;
pub mod health;
pub mod holds;
pub mod ingest;
pub mod jobs;
pub mod loads;
pub mod materialized;
mod namespace_tags;
pub mod namespaces;
pub mod openapi;
pub mod origin_check;
pub mod points;
pub mod query;
pub mod query_string;
pub mod record;
mod restore;
pub mod routes;
mod rows;
pub mod search;
pub mod serve;
mod sql_writes;
mod state_rows;
pub mod table_admin;
pub mod tables;
pub mod things;
mod turns;
pub mod views;
pub mod webhooks;

use crate::{
    flush::Flush,
    http::error::ApiError,
    ingest::Ingest,
    maintenance::{JobRegistry, TableJobs, erasure::Erasures},
    owner::LogOwnership,
    sql::Sql,
};
use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use icecore_catalog::{
    access::AccessControl,
    body::{BodyMemory, bounded},
    catalog::Catalog,
};
use icecore_lake::{
    clock::Clock,
    event::EventLimits,
    ids::IdGenerator,
    metrics::{Metrics, StatusLabel},
    wal::Wal,
};
use icecore_schemas::{error_code::ErrorCode, names::Namespace};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};
use tokio::sync::Semaphore;

/// The reply header that names a request in the log.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest request id taken over from a client.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Replies that may be sent before the request's body is read.
const LEAVES_BODY_UNREAD: [StatusCode; 4] = [
    StatusCode::REQUEST_TIMEOUT,
    StatusCode::PAYLOAD_TOO_LARGE,
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    StatusCode::SERVICE_UNAVAILABLE,
];

/// What the handlers work with. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AppState {
    parts: Arc<AppParts>,
    /// Owners of catalog names.
    owners: Arc<tables::NameOwners>,
    /// Held from the first gauge that is set for an answer of `/metrics` to its text.
    scrape: Arc<Mutex<()>>,
    /// Turns of large bodies that are decoded, and of events that are compared.
    decodes: Arc<Semaphore>,
    /// Turns of audits of rows.
    row_audits: Arc<Semaphore>,
    /// Turns of documents that are written by their keys.
    document_turns: Arc<turns::WriterTurns>,
    /// Turns of branches that are written, and of namespaces that get one.
    branch_turns: Arc<turns::WriterTurns>,
    /// Turns of requests that copy events to a branch.
    branch_copies: Arc<Semaphore>,
    /// Turns of namespaces that are restored.
    restore_turns: Arc<turns::WriterTurns>,
}

/// Most large bodies that are decoded, or whose events are compared, at a time; the others wait.
const DECODES_MAX: usize = 16;

/// The parts of an [`AppState`].
#[derive(Debug)]
pub struct AppParts {
    /// Whether events are taken here at all.
    pub owner: LogOwnership,
    /// The way in.
    pub ingest: Ingest,
    /// Commits on demand.
    pub flush: Flush,
    /// Queries.
    pub sql: Sql,
    /// The log, to see how full it is.
    pub wal: Wal,
    /// Tables.
    pub catalog: Catalog,
    /// Who is let in.
    pub access: AccessControl,
    /// Time of arrival.
    pub clock: Clock,
    /// Request ids and event ids.
    pub ids: IdGenerator,
    /// Secrets of webhook providers that hold for every namespace without its own.
    pub webhook_secrets: BTreeMap<String, Vec<String>>,
    /// Limits of events.
    pub limits: EventLimits,
    /// Largest body, before and after decompression.
    pub body_bytes_max: usize,
    /// The memory for bodies in work.
    pub room: BodyMemory,
    /// What is counted and timed.
    pub metrics: Metrics,
    /// What runs beside requests.
    pub jobs: JobRegistry,
    /// What looks after tables, by hand.
    pub tables: TableJobs,
    /// Erasures.
    pub erasures: Erasures,
    /// The name of the build.
    pub build: Option<&'static str>,
}

impl std::ops::Deref for AppState {
    type Target = AppParts;

    fn deref(&self) -> &AppParts {
        &self.parts
    }
}

impl AppState {
    /// An app of these parts.
    #[must_use]
    pub fn new(parts: AppParts) -> Self {
        let decodes = Arc::new(Semaphore::new(DECODES_MAX));
        let row_audits = Arc::new(Semaphore::new(conservation::AUDITS_MAX));
        let (owners, scrape) = (Arc::default(), Arc::default());
        let (document_turns, restore_turns) = (Arc::default(), Arc::default());
        Self {
            parts: Arc::new(parts),
            owners,
            scrape,
            decodes,
            row_audits,
            document_turns,
            branch_turns: Arc::default(),
            branch_copies: Arc::new(Semaphore::new(branches::COPIES_MAX)),
            restore_turns,
        }
    }
}

/// Every route of the server, the catalog's included.
pub fn router(app: AppState) -> Router {
    let catalog = icecore_catalog::rest::router_for(app.catalog.clone(), app.access.clone())
        .route_layer(middleware::from_fn_with_state(app.clone(), loads::before_load));
    routes::router(&app)
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .with_state(app.clone())
        .nest("/catalog", catalog)
        .route_layer(middleware::from_fn_with_state(app.clone(), health::time))
        .layer(middleware::from_fn_with_state(app, identify))
}

async fn no_such_path() -> ApiError {
    ApiError::new(ErrorCode::NotFound, "no such path; /openapi.json lists all of them")
}

async fn no_such_method() -> ApiError {
    ApiError::new(
        ErrorCode::MethodNotAllowed,
        "this path does not support that method; see the Allow header",
    )
}

/// The layer around every route, one for all that comes first: each layer costs every request copies
/// of those inside it. Gives each request an id, in its log lines and its reply.
async fn identify(State(app): State<AppState>, mut request: Request, next: Next) -> Response {
    let given = request
        .headers()
        .get(&REQUEST_ID)
        .filter(|id| id.len() <= REQUEST_ID_BYTES_MAX && id.to_str().is_ok());
    let id = given.cloned().unwrap_or_else(|| {
        let id = app.ids.mint().to_string();
        let mut id = HeaderValue::from_str(&id).expect("a ULID is letters and digits");
        // So it is told from one that the client sent, see `sent_request_id`.
        id.set_sensitive(true);
        id
    });
    // The audit log reads it there.
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let span = tracing::info_span!("request", id = id.to_str().unwrap_or(""));
    let mut response = if let Some(refused) = origin_check::refusal(&app, &request) {
        refused
    } else if is_text(request.uri().path()) {
        use tracing::Instrument;
        bounded(State(app.room.clone()), request, next).instrument(span).await
    } else {
        ApiError::new(ErrorCode::InvalidRequest, "the percent-decoded path is not UTF-8")
            .into_response()
    };
    let status = response.status();
    app.metrics.http_replies.get_or_create(&StatusLabel::of(status.as_u16())).inc();
    response.headers_mut().insert(REQUEST_ID, id);
    // These may be answered before the body is read, and hyper then ends the connection: a client
    // that is not told would send its next request into it.
    if LEAVES_BODY_UNREAD.contains(&status) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The name that the client itself gave to its request. One that it was given here is in no event: most of them would
/// be a text of its own for each event.
fn sent_request_id(headers: &HeaderMap) -> Option<&str> {
    let id = headers.get(&REQUEST_ID).filter(|id| !id.is_sensitive())?;
    id.to_str().ok().filter(|id| !id.is_empty())
}

/// Whether a path can be taken apart. The catalog answers in a form of its own.
fn is_text(path: &str) -> bool {
    path.starts_with("/catalog/")
        || percent_encoding::percent_decode_str(path).decode_utf8().is_ok()
}

/// The namespace of a path or header.
///
/// # Errors
/// [`ErrorCode::InvalidNamespace`].
pub fn parse_namespace(text: &str) -> Result<Namespace, ApiError> {
    Namespace::parse(text)
        .map_err(|problem| ApiError::new(ErrorCode::InvalidNamespace, problem.to_string()))
}

/// Where events go that name no namespace.
fn default_namespace() -> Namespace {
    Namespace::parse("default").expect("letters only")
}

/// A JSON reply.
fn json(status: u16, body: &impl serde::Serialize) -> Response {
    let status =
        axum::http::StatusCode::from_u16(status).expect("the code's table has valid statuses");
    (status, axum::Json(body)).into_response()
}
