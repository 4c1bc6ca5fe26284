//! `PUT` and `DELETE /v1/{ns}/collections/{c}/docs/{key}`: one document is written on the state that it has.
//!
//! The state is read and the change is appended in one turn of the key, so of two writers that expect the same version
//! one is told of a mismatch, also where both send the same document. The change is an ordinary event: readers of
//! `events`, of the collection and of subscriptions see it as any other. Its one invariant: a repeat of a request with
//! an `Idempotency-Key` that was carried out answers the same and appends nothing.

pub(in crate::http) mod identity;

use crate::http::{
    self, AppState, body,
    branches::{
        self,
        append::{ATTEMPTS_MAX, BranchHead, BranchReceipt},
    },
    change_events::{self, ADMIN_VISIBILITY, ChangeEvent},
    collections,
    error::ApiError,
    guard::CatalogNamespace,
    health::not_taken,
    points::basis,
    query_string::QueryParameters,
    rows::{number_at, text_at},
    sent_request_id,
    state_rows::{self, first_row},
};
use crate::sql::document_lookup::DocumentLookup;
use axum::{
    body::Body,
    extract::{Extension, Path, State},
    http::HeaderMap,
    response::Response,
};
use icecore_catalog::access::Principal;
use icecore_engine::collections::{relation, relation_at};
use icecore_lake::{collection::ChangeOp, event::json::is_deeper};
use icecore_schemas::{
    batch::{Ack, IngestReply, SeqRange},
    error_code::ErrorCode,
    names::Namespace,
    point::MAIN_BRANCH,
    query::SqlRequest,
    restore::{DocumentParameters, DocumentWritten},
    service_table::EVENTS_TABLE,
};
use identity::{RequestKey, WriteRequest};
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::runtime::Handle;

/// `PUT /v1/{ns}/collections/{c}/docs/{key}?expected_version=&ack=`: the body is the document. Durable on return.
///
/// # Errors
/// 400 413 no document, 409 another version than was expected, 429 503 as `POST /ingest`.
pub(super) async fn put(
    State(app): State<AppState>,
    (Extension(principal), Extension(CatalogNamespace(levels))): (
        Extension<Principal>,
        Extension<CatalogNamespace>,
    ),
    Path((namespace, collection, key)): Path<(String, String, String)>,
    QueryParameters(parameters): QueryParameters<DocumentParameters>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    app.owner.check().map_err(|reason| not_taken(Some(&principal), &reason))?;
    app.sql.check_sees_all(&principal, &levels, EVENTS_TABLE)?;
    collections::check_place(&collection, &key)?;
    let body = body::read(&app, &headers, body).await?;
    let doc = document(&app, &body.bytes)?;
    let namespace = change_events::namespace_of(&app, &principal, &levels, &namespace).await?;
    let branch = parameters.branch.filter(|branch| branch != MAIN_BRANCH);
    let place = DocumentPlace { levels, namespace, collection, key, branch };
    let request_id = sent_request_id(&headers).map(str::to_owned);
    let expected = parameters.expected_version;
    let request = WriteRequest { doc: Some(doc), expected, request_id };
    let key = RequestKey::of(&headers)?;
    let (place, written) = carry_out(&app, place, request, key).await?;
    reply(&app, &place, written, parameters.ack).await
}

/// `DELETE /v1/{ns}/collections/{c}/docs/{key}?expected_version=&ack=`. Durable on return.
///
/// # Errors
/// 404 no such document, 409 another version than was expected, 429 503 as `POST /ingest`.
pub(super) async fn delete(
    State(app): State<AppState>,
    Extension(principal): Extension<Principal>,
    Extension(CatalogNamespace(levels)): Extension<CatalogNamespace>,
    Path((namespace, collection, key)): Path<(String, String, String)>,
    QueryParameters(parameters): QueryParameters<DocumentParameters>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    app.owner.check().map_err(|reason| not_taken(Some(&principal), &reason))?;
    app.sql.check_sees_all(&principal, &levels, EVENTS_TABLE)?;
    collections::check_place(&collection, &key)?;
    let namespace = change_events::namespace_of(&app, &principal, &levels, &namespace).await?;
    let branch = parameters.branch.filter(|branch| branch != MAIN_BRANCH);
    let place = DocumentPlace { levels, namespace, collection, key, branch };
    let request_id = sent_request_id(&headers).map(str::to_owned);
    let expected = parameters.expected_version;
    let request = WriteRequest { doc: None, expected, request_id };
    let key = RequestKey::of(&headers)?;
    let (place, written) = carry_out(&app, place, request, key).await?;
    reply(&app, &place, written, parameters.ack).await
}

/// A document's text, if it is one.
fn document(app: &AppState, bytes: &[u8]) -> Result<String, ApiError> {
    let wrong = |text: String| ApiError::new(ErrorCode::InvalidJson, text);
    let most = app.limits.event_bytes_max;
    if most < bytes.len() {
        let text = format!("the document has {} bytes, at most {most} are allowed", bytes.len());
        return Err(ApiError::new(ErrorCode::EventTooLarge, text));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| wrong("the body is not UTF-8".to_owned()))?;
    let text = text.trim_ascii();
    serde_json::from_str::<IgnoredAny>(text)
        .map_err(|problem| wrong(format!("the body is not a JSON object: {problem}")))?;
    if !text.starts_with('{') {
        return Err(wrong("the body must be a JSON object: it is the document".to_owned()));
    }
    // The event is a level around it.
    let levels = app.limits.depth_max.saturating_sub(1);
    if is_deeper(text, levels) {
        let text = format!("the document is nested deeper than {levels} levels: make it flatter");
        return Err(ApiError::new(ErrorCode::TooDeep, text));
    }
    Ok(text.to_owned())
}

/// Which document is written.
#[derive(Debug)]
struct DocumentPlace {
    levels: Vec<String>,
    namespace: Namespace,
    collection: String,
    key: String,
    /// The branch; none for `main`.
    branch: Option<String>,
}

/// A document as it is.
#[derive(Debug)]
struct DocumentState {
    doc: Option<String>,
    store: Option<String>,
    version: u64,
    /// Who sees its last change, where rows are told apart by that.
    visibility: Option<String>,
}

/// What became of a request.
#[derive(Debug)]
struct WriteOutcome {
    seq: u64,
    version: u64,
    event_id: String,
    is_repeat: bool,
    /// The snapshot that has it, where that is known: of a branch it always is.
    snapshot: Option<i64>,
}

/// Carries out a request to its end, also where nobody waits for the answer any more: the next writer of the document
/// gets its turn when it is known what became of this one.
async fn carry_out(
    app: &AppState,
    document: DocumentPlace,
    request: WriteRequest,
    key: Option<RequestKey>,
) -> Result<(DocumentPlace, WriteOutcome), ApiError> {
    let app = app.clone();
    let work = async move {
        let written = Box::pin(write(&app, &document, &request, key.as_ref())).await;
        written.map(|written| (document, written))
    };
    let done = Handle::current().spawn(work).await;
    done.unwrap_or_else(|ended| std::panic::resume_unwind(ended.into_panic()))
}

/// Writes a document in its turn, or finds that the request was carried out before.
async fn write(
    app: &AppState,
    document: &DocumentPlace,
    request: &WriteRequest,
    key: Option<&RequestKey>,
) -> Result<WriteOutcome, ApiError> {
    let DocumentPlace { namespace, collection, key: name, branch, .. } = document;
    let mut turn = vec![namespace.name(), collection.as_str(), name.as_str()];
    turn.extend(branch.as_deref());
    let _turn = app.document_turns.take(&turn).await?;
    // What is read of a branch holds until the write: nobody else writes to it meanwhile.
    let _turn_of_branch = match branch {
        Some(branch) => Some(app.branch_turns.take(&[namespace.name(), branch]).await?),
        None => None,
    };
    for _ in 0..ATTEMPTS_MAX {
        if let Some(written) = Box::pin(write_once(app, document, request, key)).await? {
            return Ok(written);
        }
    }
    Err(branches::append::moved(branch.as_deref().unwrap_or(MAIN_BRANCH)))
}

/// Writes a document on what it is; none where another server or engine changed its branch meanwhile.
async fn write_once(
    app: &AppState,
    document: &DocumentPlace,
    request: &WriteRequest,
    key: Option<&RequestKey>,
) -> Result<Option<WriteOutcome>, ApiError> {
    let DocumentPlace { namespace, collection, key: name, branch, .. } = document;
    let head = match branch {
        Some(branch) => Some(branches::append::load(app, namespace, branch).await?),
        None => None,
    };
    let head = head.as_ref();
    if let Some(key) = key
        && let Some(done) = identity::named(app, (document, head), request, key).await?
    {
        return Ok(Some(done));
    }
    let state = state(app, document, head).await?;
    let actual = state.as_ref().map_or(0, |state| state.version);
    if let Some(expected) = request.expected.filter(|expected| *expected != actual) {
        return Err(mismatch(document, expected, actual));
    }
    if request.doc.is_none() && state.is_none() {
        let text = format!("collection `{collection}` has no document `{name}`");
        return Err(ApiError::new(ErrorCode::NotFound, text));
    }
    let id = match key {
        Some(key) => identity::of_key(document, key),
        None => app.ids.mint().to_string(),
    };
    let meta = json!({ "version": actual + 1 });
    let change = event(document, request, state.as_ref(), &id, &meta);
    let request_id = request.request_id.as_deref();
    let Some(receipt) = append(app, (document, head), change, request_id).await? else {
        return Ok(None);
    };
    // Its event is gone, and its id is still known: nothing was written.
    let is_repeat = receipt.duplicates != 0;
    let version = actual + u64::from(!is_repeat);
    let (seq, snapshot) = (receipt.last, receipt.snapshot);
    Ok(Some(WriteOutcome { seq, version, event_id: id, is_repeat, snapshot }))
}

/// Appends the event of a write to the log, or to the branch while that is at its head; none where it is not.
async fn append(
    app: &AppState,
    (DocumentPlace { namespace, .. }, head): (&DocumentPlace, Option<&BranchHead>),
    change: String,
    request_id: Option<&str>,
) -> Result<Option<BranchReceipt>, ApiError> {
    let changes = [change];
    if let Some(BranchHead { branch, snapshot, .. }) = head {
        let at = (branch.name.as_str(), *snapshot);
        let appended = branches::append::append_at(app, namespace, at, &changes, request_id);
        return Box::pin(appended).await;
    }
    let receipt = Box::pin(change_events::append(app, namespace, &changes, request_id)).await?;
    let (first, last) = receipt.ranges.first().map_or((0, 0), |(_, first, last)| (*first, *last));
    Ok(Some(BranchReceipt { first, last, duplicates: receipt.duplicates, snapshot: None }))
}

/// The event of a write on this state. What the document was is told to nobody who did not see it: the event is seen as
/// the one before it.
fn event(
    DocumentPlace { collection, key, .. }: &DocumentPlace,
    WriteRequest { doc, .. }: &WriteRequest,
    state: Option<&DocumentState>,
    id: &str,
    meta: &Value,
) -> String {
    let op = match (doc, state) {
        (None, _) => ChangeOp::Delete,
        (Some(_), None) => ChangeOp::Create,
        (Some(_), Some(_)) => ChangeOp::Update,
    };
    let event = ChangeEvent {
        id,
        op,
        collection,
        key,
        store: state.and_then(|state| state.store.as_deref()),
        visibility: state.and_then(|state| state.visibility.as_deref()),
        before: state.and_then(|state| state.doc.as_deref()),
        after: doc.as_deref(),
        meta,
    };
    event.text()
}

fn mismatch(document: &DocumentPlace, expected: u64, actual: u64) -> ApiError {
    let DocumentPlace { collection, key, .. } = document;
    let text = format!(
        "document `{key}` of `{collection}` has version {actual}, not {expected}: read it again, and send the change of what is there"
    );
    ApiError::new(ErrorCode::VersionMismatch, text).with_actual(actual)
}

/// The document now, or at the head of its branch; none where it is not there.
async fn state(
    app: &AppState,
    DocumentPlace { levels, collection, key, .. }: &DocumentPlace,
    head: Option<&BranchHead>,
) -> Result<Option<DocumentState>, ApiError> {
    let relation = match head {
        Some(BranchHead { branch, seq, .. }) => relation_at(collection, Some(&branch.name), *seq),
        None => relation(collection),
    };
    let statement = SqlRequest {
        sql: format!(
            "SELECT doc, store, version, seq FROM {relation} WHERE key = CAST($1 AS text)"
        ),
        params: vec![key.as_str().into()],
        ..SqlRequest::default()
    };
    let lookup = DocumentLookup { statement, key: key.clone() };
    let Some(row) = state_rows::document(app, levels, lookup).await? else {
        return Ok(None);
    };
    let mut visibility = None;
    if app.sql.filters_visibility() {
        let seq = number_at(&row, "seq", 0).unwrap_or(0);
        let sql = format!("SELECT visibility FROM events WHERE seq = {seq}");
        let as_of = head.map(|head| json!(head.snapshot));
        let request = SqlRequest { sql, as_of, ..SqlRequest::default() };
        let event = first_row(&state_rows::rows(app, levels, request).await?);
        visibility = match event {
            Some(event) => text_at(&event, "visibility", 0),
            None => Some(ADMIN_VISIBILITY.to_owned()),
        };
    }
    Ok(Some(DocumentState {
        visibility,
        doc: text_at(&row, "doc", 0),
        store: text_at(&row, "store", 0),
        version: number_at(&row, "version", 0).unwrap_or(0),
    }))
}

async fn reply(
    app: &AppState,
    DocumentPlace { namespace, branch, .. }: &DocumentPlace,
    WriteOutcome { seq, version, event_id, is_repeat, snapshot }: WriteOutcome,
    ack: Ack,
) -> Result<Response, ApiError> {
    let snapshot = match ack {
        Ack::Committed if snapshot.is_none() => committed(app, namespace).await?,
        Ack::Durable | Ack::Committed => snapshot,
    };
    let receipt = IngestReply {
        ok: true,
        received: 1,
        duplicates: u64::from(is_repeat),
        namespace: namespace.text().to_owned(),
        seq: Some(SeqRange { first: seq, last: seq }),
        namespaces: Vec::new(),
        errors: Vec::new(),
        snapshot,
    };
    // An event that is gone has no number.
    let basis = (seq != 0).then(|| basis::at_event(app, branch.as_deref(), seq));
    Ok(http::json(200, &DocumentWritten { receipt, version, event_id, basis }))
}

/// The snapshot of `events` that has everything acknowledged up to now.
async fn committed(app: &AppState, namespace: &Namespace) -> Result<Option<i64>, ApiError> {
    let through = *app.wal.durable().borrow();
    let committed = app.flush.commit_now(namespace, through).await;
    let snapshots = committed.map_err(|cause| ApiError::from(cause.as_ref()))?;
    let events = snapshots.iter().find(|(kind, _)| kind.has_seq());
    Ok(events.map(|(_, snapshot)| *snapshot))
}
