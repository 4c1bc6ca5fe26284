//! The feed of changes, after the draft of the specification (apache/iceberg pull request 12584).
//!
//! A reader follows it with the continuation token of its last answer. Events come in the order of
//! the commits and none is left out, however many server processes write; each operation carries,
//! beside the draft's members, the ids of the snapshots it added and the metadata locations before
//! and after.

use super::{
    Rest,
    error::Refused,
    request::{Body, Parameters},
};
use crate::metastore::Event;
use axum::{Json, extract::State};
use serde::Deserialize;
use serde_json::{Value, json};

/// Events of an answer when the client does not say.
const PAGE_SIZE: usize = 100;
/// Most events of an answer.
const PAGE_SIZE_MAX: usize = 1000;
/// Most events that are looked at for one answer; a filter may leave few or none of them.
const LOOKED_AT_MAX: u32 = 5000;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Query {
    continuation_token: Option<String>,
    page_size: Option<usize>,
    after_timestamp_ms: Option<i64>,
    operation_types: Option<Vec<String>>,
    catalog_objects_by_name: Option<Value>,
    catalog_objects_by_id: Option<Value>,
    object_types: Option<Value>,
    custom_filters: Option<Value>,
}

/// The parameters of a GET, which has no filters.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct GetQuery {
    continuation_token: Option<String>,
    page_size: Option<usize>,
    after_timestamp_ms: Option<i64>,
}

/// `POST /events`
pub(super) async fn query(
    State(rest): State<Rest>,
    Body(query): Body<Query>,
) -> Result<Json<Value>, Refused> {
    let unknown = [
        ("catalog-objects-by-name", &query.catalog_objects_by_name),
        ("catalog-objects-by-id", &query.catalog_objects_by_id),
        ("object-types", &query.object_types),
        ("custom-filters", &query.custom_filters),
    ];
    if let Some((filter, _)) = unknown.iter().find(|(_, asked)| asked.is_some()) {
        return Err(Refused::bad_request(format!("the filter `{filter}` is not supported")));
    }
    page(&rest, &query).await.map(Json)
}

/// `GET /events`: the same without a body.
pub(super) async fn get(
    State(rest): State<Rest>,
    Parameters(asked): Parameters<GetQuery>,
) -> Result<Json<Value>, Refused> {
    let query = Query {
        continuation_token: asked.continuation_token,
        page_size: asked.page_size,
        after_timestamp_ms: asked.after_timestamp_ms,
        ..Query::default()
    };
    page(&rest, &query).await.map(Json)
}

async fn page(rest: &Rest, query: &Query) -> Result<Value, Refused> {
    let size = match query.page_size {
        None => PAGE_SIZE,
        Some(0) => return Err(Refused::bad_request("page-size is no positive number: 0")),
        Some(size) => size.min(PAGE_SIZE_MAX),
    };
    let metastore = rest.catalog.metastore();
    let token = query.continuation_token.as_deref().filter(|token| !token.is_empty());
    let after = match (token, query.after_timestamp_ms) {
        (Some(token), _) => number(token)?,
        (None, Some(at_ms)) => metastore.events_before(at_ms).await?,
        (None, None) => metastore.events_before(i64::MIN).await?,
    };
    let events = metastore.events(after, LOOKED_AT_MAX).await?;
    if let Some(first) = events.first().filter(|first| first.number != after + 1) {
        return Err(Refused::bad_request(format!(
            "the events after this continuation-token are not kept any more, the oldest is {}: \
             start again without a token",
            first.number
        )));
    }
    let (mut last, mut last_ms, mut wanted) = (after, 0, Vec::new());
    for event in events {
        if wanted.len() == size {
            break;
        }
        (last, last_ms) = (event.number, event.at_ms.max(last_ms));
        if is_wanted(query, &event) {
            wanted.push(written(&event));
        }
    }
    Ok(json!({
        "continuation-token": last.to_string(),
        "highest-processed-timestamp-ms": last_ms,
        "events": wanted,
    }))
}

fn number(token: &str) -> Result<u64, Refused> {
    let number = token.parse().ok().filter(|number| i64::try_from(*number).is_ok());
    number.ok_or_else(|| {
        Refused::bad_request("continuation-token is none that an answer of this catalog held")
    })
}

fn is_wanted(query: &Query, event: &Event) -> bool {
    let operation = event.operation["operation-type"].as_str().unwrap_or_default();
    query.operation_types.as_ref().is_none_or(|types| types.iter().any(|kind| kind == operation))
}

fn written(event: &Event) -> Value {
    json!({
        "event-id": event.number.to_string(),
        "request-id": event.request,
        "request-event-count": event.request_events,
        "timestamp-ms": event.at_ms,
        "actor": {"principal": event.actor},
        "operation": event.operation,
    })
}
