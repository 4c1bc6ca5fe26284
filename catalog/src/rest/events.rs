//! The feed of changes, after the draft of the specification (apache/iceberg pull request 12584, not
//! merged) as it stood in September 2026.
//!
//! From the draft are the path of the POST, the members and filters of the request, the members of
//! the answer and of an event, and the types of operations; registering a view, which has no type
//! there, is told as creating one. Ours are the GET without filters, and in operations the ids of
//! the snapshots that were added and the metadata locations before and after, in the place of the
//! draft's `updates` and `requirements`.
//!
//! A reader follows the feed with the continuation token of its last answer. Events come in the
//! order of the commits and none is left out, however many server processes write.

use super::{
    Rest,
    error::Refused,
    request::{Body, Parameters},
};
use crate::metastore::{Event, Levels};
use axum::{Json, extract::State};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

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
    /// Namespaces with all that is in them, tables, views.
    catalog_objects_by_name: Option<Vec<Levels>>,
    catalog_objects_by_id: Option<Vec<ObjectId>>,
    object_types: Option<Vec<ObjectType>>,
    custom_filters: Option<Map<String, Value>>,
}

/// What an operation is about.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum ObjectType {
    Namespace,
    Table,
    View,
}

/// A table or view by identity.
#[derive(Debug, Deserialize)]
struct ObjectId {
    uuid: Uuid,
    #[serde(rename = "type")]
    kind: ObjectType,
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
    if let Some(filter) = query.custom_filters.iter().flatten().map(|(filter, _)| filter).next() {
        let message = format!("custom-filters: there is no filter `{filter}` here: leave it out");
        return Err(Refused::bad_request(message));
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
    let operation = &event.operation;
    let kind = operation["operation-type"].as_str().unwrap_or_default();
    let (about, uuid) = object(operation);
    let is_type = |wanted: &Vec<String>| wanted.iter().any(|wanted| wanted == kind);
    let is_object = |wanted: &Vec<ObjectType>| wanted.contains(&about);
    let is_named = |wanted: &Vec<Levels>| {
        names(operation).iter().any(|name| wanted.iter().any(|wanted| name.starts_with(wanted)))
    };
    let is_identical = |wanted: &Vec<ObjectId>| {
        wanted.iter().any(|wanted| wanted.kind == about && Some(wanted.uuid) == uuid)
    };
    query.operation_types.as_ref().is_none_or(is_type)
        && query.object_types.as_ref().is_none_or(is_object)
        && query.catalog_objects_by_name.as_ref().is_none_or(is_named)
        && query.catalog_objects_by_id.as_ref().is_none_or(is_identical)
}

/// What an operation is about, and its identity.
fn object(operation: &Value) -> (ObjectType, Option<Uuid>) {
    let uuid = |member: &str| Uuid::parse_str(operation.get(member)?.as_str()?).ok();
    if let Some(uuid) = uuid("table-uuid") {
        return (ObjectType::Table, Some(uuid));
    }
    match uuid("view-uuid") {
        Some(uuid) => (ObjectType::View, Some(uuid)),
        None => (ObjectType::Namespace, None),
    }
}

/// The full name of what an operation is about; two when it is renamed.
fn names(operation: &Value) -> Vec<Levels> {
    let levels = |levels: &Value| -> Levels {
        let levels = levels.as_array().into_iter().flatten();
        levels.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let identifiers = ["identifier", "source", "destination"];
    let identifiers = identifiers.iter().filter_map(|member| operation.get(member));
    let mut names: Vec<Levels> = identifiers
        .map(|identifier| {
            let mut name = levels(&identifier["namespace"]);
            name.extend(identifier["name"].as_str().map(str::to_owned));
            name
        })
        .collect();
    names.extend(operation.get("namespace").map(levels));
    names
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
