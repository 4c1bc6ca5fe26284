//! `GET /v1/{ns}/events`: the events of a range by `seq`, bookmark, type or time, as JSON or JSON lines.
//!
//! An event is an object of its columns: one without a value is left out, and one with JSON text is that JSON, so
//! its numbers are those of the sender. A page of JSON is bounded in bytes; JSON lines are streamed.

mod cells;
mod lines;

use crate::http::{
    AppState,
    error::ApiError,
    guard::CatalogNamespace,
    json,
    points::{FoundPoint, ReadCaller, basis, statement},
    query_string::{QueryParameters, page_size},
    rows::{PAGE_BYTES_MAX, written_time},
};
use axum::{
    body::Body,
    extract::{Extension, State},
    http::{HeaderMap, header},
    response::Response,
};
use cells::EventBatch;
use chrono::DateTime;
use futures::StreamExt;
use icecore_catalog::access::Principal;
use icecore_engine::QueryAnswer;
use icecore_schemas::{
    collections::{EventColumns, EventList, EventOrder, EventPage, TimeBasis},
    error_code::ErrorCode,
    point::HistoryPoint,
};
use lines::{EventRange, LINES};
use serde_json::Value;

/// Events of a page of JSON that names no limit, and most of any.
const PAGE_EVENTS: usize = 100;
const PAGE_EVENTS_MAX: usize = 10_000;

/// `GET /v1/{ns}/events?after_seq=&until_seq=&after_bookmark=&until_bookmark=&type=&before=&after=&order=&limit=&branch=`
///
/// # Errors
/// 400 for a parameter that is not valid, 404 for a bookmark that is not there, 410 for one whose event was removed,
/// 422 and 429 as queries.
pub(super) async fn events(
    State(app): State<AppState>,
    Extension(principal): Extension<Principal>,
    Extension(CatalogNamespace(levels)): Extension<CatalogNamespace>,
    QueryParameters(wanted): QueryParameters<EventPage>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let caller = ReadCaller { app: &app, principal: &principal, levels: &levels };
    let is_lines = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains(LINES));
    let limit = page_size(wanted.limit, PAGE_EVENTS, PAGE_EVENTS_MAX)?;
    let order = wanted.order();
    if !caller.has_events().await? {
        let basis = basis::at_event(&app, wanted.branch.as_deref(), 0);
        return match is_lines {
            true => Ok(lines::lines_of(Body::empty(), &basis)),
            false => Ok(json(200, &EventList { events: Vec::new(), next: None, basis })),
        };
    }
    let now = HistoryPoint::Now;
    let head = Box::pin(caller.find_on(wanted.branch.as_deref(), &now, TimeBasis::Commit)).await?;
    let (conditions, params) = Box::pin(conditions(caller, &wanted, &head)).await?;
    let events = head.events();
    if is_lines {
        let limit = wanted.limit.unwrap_or(usize::MAX);
        let range = EventRange { events, conditions, params, order, limit };
        return lines::lines(caller, &head, range).await;
    }
    let direction = match order {
        EventOrder::Asc => "ASC",
        EventOrder::Desc => "DESC",
    };
    let sql = format!(
        "SELECT * FROM {events} WHERE true{conditions} ORDER BY seq {direction} LIMIT {}",
        limit + 1
    );
    let mut answer = caller.ask(statement(&sql, params)).await?;
    let basis = basis::of_head(&head, answer.basis.take());
    let page = EventList { events: Vec::new(), next: None, basis };
    Ok(json(200, &Box::pin(event_page(answer, page, limit, order)).await?))
}

/// The conditions on the events that are wanted, and their parameters.
async fn conditions(
    caller: ReadCaller<'_>,
    wanted: &EventPage,
    head: &FoundPoint,
) -> Result<(String, Vec<Value>), ApiError> {
    let EventPage { after_seq, until_seq, after_bookmark, until_bookmark, kind, .. } = wanted;
    let (mut conditions, mut params) = (String::new(), Vec::new());
    for (seq, bookmark, operator, names) in [
        (after_seq, after_bookmark, ">", "after_seq and after_bookmark"),
        (until_seq, until_bookmark, "<=", "until_seq and until_bookmark"),
    ] {
        let bound = match (seq, bookmark) {
            (Some(_), Some(_)) => {
                return Err(invalid(format!("send one of {names}, not both")));
            }
            (Some(seq), None) => *seq,
            (None, Some(bookmark)) => Box::pin(caller.bookmark_on(head, bookmark)).await?,
            (None, None) => continue,
        };
        // A greater one than a seq can be is as good as the greatest.
        let bound = i64::try_from(bound).unwrap_or(i64::MAX);
        conditions.push_str(&format!(" AND seq {operator} {bound}"));
    }
    if let Some(kind) = kind {
        params.push(kind.as_str().into());
        conditions.push_str(&format!(" AND type = ${}", params.len()));
    }
    let times = [("before", &wanted.before, "<"), ("after", &wanted.after, ">=")];
    for (name, time, operator) in times {
        let Some(time) = time else { continue };
        let time = rfc3339(name, time)?;
        conditions.push_str(&format!(" AND ts {operator} CAST('{time}' AS timestamptz)"));
    }
    Ok((conditions, params))
}

/// A page with its events, and where the next one begins.
async fn event_page(
    mut answer: QueryAnswer,
    mut page: EventList,
    limit: usize,
    order: EventOrder,
) -> Result<EventList, ApiError> {
    let (mut bytes, mut last) = (0, None);
    while let Some(batch) = answer.batches.next().await {
        let batch = EventBatch::new(&batch?);
        for row in 0..batch.rows() {
            let event: EventColumns =
                batch.members(row).map(|(name, value)| (name.to_owned(), value)).collect();
            let length: usize = event.values().map(|value| value.get().len()).sum();
            let is_full = limit <= page.events.len() || PAGE_BYTES_MAX < bytes + length;
            if is_full && !page.events.is_empty() {
                page.next = last.map(|seq: u64| match order {
                    EventOrder::Asc => seq,
                    EventOrder::Desc => seq.saturating_sub(1),
                });
                return Ok(page);
            }
            bytes += length;
            last = event.get("seq").and_then(|seq| seq.get().parse().ok());
            page.events.push(event);
        }
    }
    Ok(page)
}

/// A time of a parameter as it stands in a statement.
fn rfc3339(name: &str, text: &str) -> Result<String, ApiError> {
    let time = DateTime::parse_from_rfc3339(text).ok();
    time.and_then(|time| written_time(time.timestamp_micros())).ok_or_else(|| {
        invalid(format!(
            "query parameter `{name}`: `{text}` is no RFC 3339 time such as 2026-11-20T12:00:00Z"
        ))
    })
}

fn invalid(text: String) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, text)
}
