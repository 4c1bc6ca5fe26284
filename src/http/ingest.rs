//! `POST /ingest`: body to events to the log; the reply is the acknowledgement.

pub(in crate::http) mod admission;
pub(in crate::http) mod calls;
pub(in crate::http) mod compare;
pub(in crate::http) mod expected;
mod grid;
mod media;

use crate::{
    http::{
        AppState, body,
        branches::batch::{self, BranchBatch},
        default_namespace,
        error::ApiError,
        health::not_taken,
        json, parse_namespace,
        query_string::QueryParameters,
        sent_request_id, tables,
    },
    ingest::{Receipt, RefusedEvent, Submission, refusal::aborted},
};
use admission::{shelters, turn_away};
use axum::{
    body::Body,
    extract::{Extension, State},
    http::{HeaderMap, header},
    response::Response,
};
use icecore_catalog::access::Principal;
use icecore_lake::event::{
    BodyError, BodyFormat, DecodedBody, EventLimits, RejectedEvent, RequestContext, RequestIds,
    cloud::header_text, dead_letter, decode,
};
use icecore_schemas::{
    batch::{
        Ack, EventError, EventStatus, IngestParameters, IngestReply, NamespaceRange, SeqRange,
    },
    error_code::ErrorCode,
    names::Namespace,
    point::MAIN_BRANCH,
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};
use tokio::time::Instant;

/// Bodies above this size are decoded off the async threads: some milliseconds of work.
const DECODE_INLINE_BYTES_MAX: usize = 64 * 1024;
/// The header for events that name no `correlation_id`.
const CORRELATION_ID: &str = "x-correlation-id";
/// Longest of them: each event of the request has it.
const CORRELATION_ID_BYTES_MAX: usize = 1024;

/// Takes a body of events.
///
/// # Errors
/// 400 406 413 415 429 500 503; an event that is refused alone is no error but part of the reply.
pub async fn ingest(
    State(app): State<AppState>,
    Extension(principal): Extension<Principal>,
    QueryParameters(parameters): QueryParameters<IngestParameters>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    take(&app, &principal, parameters, &headers, body, None).await
}

/// As [`ingest`]; an object without a type is one of `kind`, if that is given.
async fn take(
    app: &AppState,
    principal: &Principal,
    parameters: IngestParameters,
    headers: &HeaderMap,
    body: Body,
    kind: Option<&str>,
) -> Result<Response, ApiError> {
    if grid::is_validation(headers) {
        return grid::validate(app, headers, body).await;
    }
    app.owner.check().map_err(|reason| not_taken(Some(principal), &reason))?;
    let format = media::body_format(headers)?;
    let arrival = arrival(app, principal, headers).await?;
    let request_namespace = arrival.namespace.clone();
    let correlation_id = arrival.correlation_id.clone();
    let mut body = body::read(app, headers, body).await?;
    // What is longer is no single call.
    if let Some(kind) = kind.filter(|_| body.bytes.len() <= app.limits.event_bytes_max) {
        body.bytes = calls::with_type(body.bytes, kind);
    }
    let (mut decoded, batch_id) =
        decode_body(app, body.bytes.clone(), format, arrival, parameters.backfill).await?;
    let _copies = app.room.take(decoded.copied)?;
    let bytes = body.bytes.len() + decoded.copied;
    let fallback = first_namespace(&decoded, &request_namespace);
    let shelters = shelters(principal, &request_namespace);
    let turned_away = turn_away(&mut decoded, principal, &shelters);
    expected::check_rights(app, principal, &decoded)?;
    let branch = branch_of(parameters.branch, decoded.branch.take())?;
    let atomic = parameters.atomic || branch.is_some();
    if atomic && !turned_away.is_empty() {
        // One event that may not be there makes the whole batch one that is refused.
        decoded.rejected.extend(aborted(&decoded, &[]));
        decoded.accepted.clear();
    }
    if let Some(branch) = branch {
        expected::check_none(&decoded)?;
        let batch = BranchBatch { decoded, turned_away, fallback };
        return Box::pin(batch::answer(app, principal, &branch, batch)).await;
    }
    let request = RequestIds { batch_id, correlation_id };
    let submission =
        Submission { decoded, request, atomic, bytes, shelters, ..Submission::default() };
    answer(app, submission, turned_away, fallback, parameters.ack).await
}

/// The branch that a request names by its parameter or beside the events of its batch; none for `main`.
fn branch_of(
    parameter: Option<String>,
    member: Option<String>,
) -> Result<Option<String>, ApiError> {
    if let (Some(parameter), Some(member)) = (&parameter, &member)
        && parameter != member
    {
        let text = format!(
            "the query parameter `branch` names `{parameter}`, and the batch `{member}`: name one branch"
        );
        return Err(ApiError::new(ErrorCode::InvalidRequest, text));
    }
    Ok(parameter.or(member).filter(|branch| branch != MAIN_BRANCH))
}

/// Sends events to the log and says what became of them. `turned_away` was refused before; `fallback`
/// is the reply's namespace if nothing is taken.
///
/// # Errors
/// 503.
pub(in crate::http) async fn answer(
    app: &AppState,
    submission: Submission,
    turned_away: Vec<RefusedEvent>,
    fallback: String,
    ack: Ack,
) -> Result<Response, ApiError> {
    let received = submission.decoded.received as u64;
    let started = Instant::now();
    let mut receipt = Box::pin(expected::append(app, submission)).await?;
    app.metrics.count_ack(started.elapsed());
    receipt.refused.extend(turned_away);
    receipt.refused.sort_by_key(|refused| refused.index);
    let snapshot = match ack {
        Ack::Durable => None,
        Ack::Committed => committed(app, &receipt).await?,
    };
    app.metrics.count_events(received, receipt.duplicates, receipt.refused.len() as u64);
    Ok(reply(received, &receipt, fallback, snapshot))
}

async fn arrival(
    app: &AppState,
    principal: &Principal,
    headers: &HeaderMap,
) -> Result<RequestContext, ApiError> {
    if 1 < headers.get_all("x-namespace").iter().count() {
        let text = "the header X-Namespace is there more than once: name one namespace";
        return Err(ApiError::new(ErrorCode::InvalidRequest, text));
    }
    let namespace = match (headers.get("x-namespace"), principal.home()) {
        (Some(value), _) => {
            let Ok(text) = std::str::from_utf8(value.as_bytes()) else {
                let text = "the header X-Namespace is not UTF-8";
                return Err(ApiError::new(ErrorCode::InvalidRequest, text));
            };
            tables::named(app, principal, parse_namespace(text)?).await?
        }
        (None, Some(home)) => tables::owner(app, principal, parse_namespace(home)?).await?,
        (None, None) => default_namespace(),
    };
    let correlation_id = headers.get(CORRELATION_ID).and_then(|value| value.to_str().ok());
    let correlation_id = correlation_id.filter(|id| !id.is_empty()).map(str::to_owned);
    if let Some(id) = correlation_id.as_ref().filter(|id| CORRELATION_ID_BYTES_MAX < id.len()) {
        let reason = format!(
            "`{CORRELATION_ID}` has {} bytes, at most {CORRELATION_ID_BYTES_MAX} are allowed",
            id.len()
        );
        return Err(ApiError::new(ErrorCode::InvalidRequest, reason));
    }
    Ok(RequestContext {
        now_us: app.clock.now_us(),
        namespace,
        first_id: app.ids.first_of_run(),
        cloud_event: cloud_event_attributes(headers),
        correlation_id,
        request_id: sent_request_id(headers).map(str::to_owned),
        again: None,
    })
}

/// The attributes of a CloudEvent in binary mode; none in the other modes, which the media type tells.
fn cloud_event_attributes(headers: &HeaderMap) -> Vec<(String, String)> {
    let media = headers.get(header::CONTENT_TYPE).map(|value| header_text(value.as_bytes()));
    let is_structured = media.as_deref().is_some_and(|media| {
        media.trim_start().to_ascii_lowercase().starts_with("application/cloudevents")
    });
    if is_structured || !headers.contains_key("ce-specversion") {
        return Vec::new();
    }
    let named = headers.iter().filter_map(|(name, value)| {
        let attribute = name.as_str().strip_prefix("ce-")?;
        // The content type is what says it.
        (attribute != "datacontenttype")
            .then(|| (attribute.to_owned(), header_text(value.as_bytes())))
    });
    named.chain(media.map(|media| ("datacontenttype".to_owned(), media))).collect()
}

/// Decodes; a body without events to be found becomes one rejected event, so that it is kept.
///
/// # Errors
/// 413 when it has too many events or copies, 500 when decoding panicked.
pub(in crate::http) async fn decode_body(
    app: &AppState,
    bytes: bytes::Bytes,
    format: BodyFormat,
    arrival: RequestContext,
    backfill: bool,
) -> Result<(DecodedBody, Option<String>), ApiError> {
    let limits = if backfill {
        EventLimits { ts_past_us: None, ..app.limits.clone() }
    } else {
        app.limits.clone()
    };
    let small = bytes.len() <= DECODE_INLINE_BYTES_MAX;
    let work = move || {
        let (mut decoded, batch_id) = match decode::decode(&bytes, format, &arrival, &limits) {
            Ok(decoded) => decoded,
            Err(problem)
                if matches!(problem.code, ErrorCode::TooManyEvents | ErrorCode::BodyTooLarge) =>
            {
                // The same events come again in smaller parts: no dead letter of all of them.
                return Err(ApiError::new(problem.code, problem.reason));
            }
            Err(problem) => (unread(&bytes, problem, &arrival, &limits), None),
        };
        if decoded.source.bytes.is_empty() {
            decoded.source.bytes = bytes;
        }
        Ok((decoded, batch_id))
    };
    let work = move || isolated(work);
    let decoded = match small {
        true => work(),
        false => {
            // What a body becomes is counted only once it is known, so few are decoded at a time.
            let turn = Arc::clone(&app.decodes).acquire_owned().await;
            let turn = turn.expect("it is never closed");
            let work = move || (work(), turn).0;
            tokio::task::spawn_blocking(work).await.expect("panics are caught in it")
        }
    };
    decoded.inspect_err(|_| {
        app.metrics.decode_panics.inc();
    })?
}

/// A body without events to be found, as one that is refused.
fn unread(
    bytes: &[u8],
    problem: BodyError,
    arrival: &RequestContext,
    limits: &EventLimits,
) -> DecodedBody {
    let (payload, reason) = dead_letter::keep_body(bytes, problem.reason, limits);
    let rejected = RejectedEvent {
        index: 0,
        namespace: arrival.namespace.clone(),
        kept_in: None,
        code: problem.code,
        actual_version: None,
        reason,
        id: None,
        event_type: None,
        source: None,
        payload,
    };
    DecodedBody { received: 1, rejected: vec![rejected], ..DecodedBody::default() }
}

/// Does pure work of one request. Where it panics the request fails and nothing else: it holds
/// nothing that another request sees.
fn isolated<T>(work: impl FnOnce() -> T) -> Result<T, ApiError> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(ToString::to_string);
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        tracing::error!(panic = text, "decoding a body panicked");
        ApiError::new(
            ErrorCode::Internal,
            "the server failed on this body and accepted nothing of it; its log has the reason under this response's x-request-id",
        )
    })
}

/// The namespace of the reply: that of the first event, or the request's.
fn first_namespace(decoded: &DecodedBody, request: &Namespace) -> String {
    let accepted = decoded.accepted.first().map(|events| &events.namespace);
    let rejected = || decoded.rejected.first().map(|event| &event.namespace);
    accepted.or_else(rejected).unwrap_or(request).text().to_owned()
}

/// Waits until a snapshot of each namespace has the batch; gives that of the first.
async fn committed(app: &AppState, receipt: &Receipt) -> Result<Option<i64>, ApiError> {
    let mut first = None;
    for (namespace, ..) in &receipt.ranges {
        let snapshots = app
            .flush
            .commit_now(namespace, receipt.position)
            .await
            .map_err(|cause| ApiError::from(cause.as_ref()))?;
        let events = snapshots.iter().find(|(kind, _)| kind.has_seq());
        first = first.or(events.map(|(_, snapshot)| *snapshot));
    }
    Ok(first)
}

/// The reply: what became of the events of a body.
pub(in crate::http) fn reply(
    received: u64,
    receipt: &Receipt,
    fallback: String,
    snapshot: Option<i64>,
) -> Response {
    let errors: Vec<EventError> = receipt
        .refused
        .iter()
        .map(|refused| EventError {
            index: u64::from(refused.index),
            id: refused.id.clone(),
            status: if matches!(refused.code, ErrorCode::Conflict | ErrorCode::VersionMismatch) {
                EventStatus::Conflict
            } else {
                EventStatus::Rejected
            },
            code: refused.code,
            actual: refused.actual_version,
            reason: refused.reason.clone(),
            dead_letter: refused.dead_letter.clone(),
        })
        .collect();
    let mut ranges = receipt.ranges.iter().map(|(namespace, first, last)| NamespaceRange {
        namespace: namespace.text().to_owned(),
        seq: SeqRange { first: *first, last: *last },
    });
    let first = ranges.next();
    let body = IngestReply {
        ok: errors.is_empty(),
        received,
        duplicates: receipt.duplicates,
        namespace: first.as_ref().map_or(fallback, |range| range.namespace.clone()),
        seq: first.map(|range| range.seq),
        namespaces: ranges.collect(),
        snapshot,
        errors,
    };
    let status = match (body.errors.is_empty(), receipt.ranges.is_empty()) {
        (true, _) => 200,
        (false, false) => 207,
        (false, true) => 400,
    };
    json(status, &body)
}

#[cfg(test)]
mod tests;
