//! The feed of changes, after the draft of the specification (apache/iceberg pull request 12584, not
//! merged) as it stood in November 2026.
//!
//! From the draft are the path of the POST, the members of the request, of the answer, of an event
//! and of the operations; registering a view, which has no type there, is told as creating one.
//! Ours are the GET without filters and, in operations beside what the draft names, the ids of the
//! snapshots that were added and the metadata locations before and after. A member of the request
//! that the draft does not have is refused: a filter that is not known cannot be obeyed, and whoever
//! reads more than they asked for would not notice.
//!
//! A reader follows the feed with the continuation token of its last answer. Events come in the
//! order of the commits and none is left out, however many server processes write. Its one
//! invariant: a token is taken only while the event that it names is still there, so a reader that
//! missed something, or whose catalog was restored from a copy, is told so.

use super::{
    RestState,
    error::RestError,
    request::{JsonBody, UrlParameters},
};
use crate::metastore::{ChangeEvent, ChangeFeed, Levels, Metastore};
use axum::{Json, extract::State, http::StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use uuid::Uuid;

/// Events of an answer when the client does not say.
const PAGE_SIZE: usize = 100;
/// Most events of an answer.
const PAGE_SIZE_MAX: usize = 1000;
/// Most bytes of them, but for a single one that is longer.
const PAGE_BYTES_MAX: u64 = 4 << 20;
/// Most events that are looked at for one answer; a filter may leave few or none of them.
const LOOKED_AT_MAX: u32 = 5000;
/// Operations that always have updates, as the draft has it.
const WITH_UPDATES: [&str; 4] = ["create-table", "update-table", "create-view", "update-view"];

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct FeedQuery {
    continuation_token: Option<String>,
    page_size: Option<usize>,
    since_timestamp_ms: Option<i64>,
    operation_types: Option<Vec<String>>,
    /// Namespaces with all that is in them, tables, views.
    catalog_objects_by_name: Option<Vec<Levels>>,
    catalog_objects_by_uuid: Option<Vec<Uuid>>,
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

/// The parameters of a GET, which has no filters.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct GetQuery {
    continuation_token: Option<String>,
    page_size: Option<usize>,
    since_timestamp_ms: Option<i64>,
}

/// Where a reader is: behind an event of a feed, or at its beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FeedToken {
    feed: u64,
    number: u64,
    /// The request of that event, which no other event of its number has; empty at the beginning.
    request: String,
}

impl FeedToken {
    fn after(feed: ChangeFeed, event: &ChangeEvent) -> Self {
        Self { feed: feed.id, number: event.number, request: event.request.clone() }
    }

    fn write(&self) -> String {
        format!("{:016x}.{}.{}", self.feed, self.number, self.request)
    }

    /// None for a text that was not written here.
    fn read(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '.');
        let feed = u64::from_str_radix(parts.next()?, 16).ok()?;
        let number: u64 = parts.next()?.parse().ok().filter(|n| i64::try_from(*n).is_ok())?;
        Some(Self { feed, number, request: parts.next()?.to_owned() })
    }
}

/// `POST /events`
pub(super) async fn query(
    State(rest): State<RestState>,
    JsonBody(query): JsonBody<FeedQuery>,
) -> Result<Json<Value>, RestError> {
    if let Some(filter) = query.custom_filters.iter().flatten().map(|(filter, _)| filter).next() {
        let message = format!("custom-filters: unknown filter `{filter}`: remove it");
        return Err(RestError::bad_request(message));
    }
    page(rest.catalog.metastore(), &query).await.map(Json)
}

/// `GET /events`: the same without a body.
pub(super) async fn get(
    State(rest): State<RestState>,
    UrlParameters(asked): UrlParameters<GetQuery>,
) -> Result<Json<Value>, RestError> {
    let query = FeedQuery {
        continuation_token: asked.continuation_token,
        page_size: asked.page_size,
        since_timestamp_ms: asked.since_timestamp_ms,
        ..FeedQuery::default()
    };
    page(rest.catalog.metastore(), &query).await.map(Json)
}

async fn page(metastore: &Metastore, query: &FeedQuery) -> Result<Value, RestError> {
    let size = match query.page_size {
        None => PAGE_SIZE,
        Some(0) => return Err(RestError::bad_request("page-size is not a positive number: 0")),
        Some(size) => size.min(PAGE_SIZE_MAX),
    };
    let feed = metastore.feed().await?;
    let token = query.continuation_token.as_deref().filter(|token| !token.is_empty());
    let after = match token {
        Some(token) => resumed(metastore, feed, token).await?,
        None => {
            let since_ms = query.since_timestamp_ms.unwrap_or(i64::MIN);
            start(metastore, feed, metastore.events_before(since_ms).await?).await?
        }
    };
    let events = metastore.events(after.number, LOOKED_AT_MAX).await?;
    let is_next = |first: &ChangeEvent| first.number == after.number + 1;
    if token.is_some() && !events.first().is_none_or(is_next) {
        return Err(not_kept());
    }
    let (mut last, mut bytes, mut wanted) = (after, 0, Vec::new());
    for event in events {
        let is_wanted = is_wanted(query, &event);
        let is_full = wanted.len() == size || PAGE_BYTES_MAX < bytes + event.bytes;
        if is_wanted && is_full && !wanted.is_empty() {
            break;
        }
        last = FeedToken::after(feed, &event);
        if is_wanted {
            bytes += event.bytes;
            wanted.push(event);
        }
    }
    let numbers: Vec<u64> = wanted.iter().map(|event| event.number).collect();
    let mut changes: HashMap<u64, Option<String>> =
        metastore.event_changes(&numbers).await?.into_iter().collect();
    let told = wanted.into_iter().map(|event| {
        // They may be forgotten between the two reads.
        let changes = changes.remove(&event.number).ok_or_else(not_kept)?;
        Ok::<_, RestError>(written(event, changes.as_deref()))
    });
    let told: Vec<Value> = told.collect::<Result<_, RestError>>()?;
    Ok(json!({"continuation-token": last.write(), "events": told}))
}

/// The place that a client's token names.
async fn resumed(
    metastore: &Metastore,
    feed: ChangeFeed,
    text: &str,
) -> Result<FeedToken, RestError> {
    let token = FeedToken::read(text).ok_or_else(|| {
        RestError::bad_request("continuation-token was not issued by this catalog")
    })?;
    if token.feed != feed.id || feed.last < token.number {
        return Err(of_another_state());
    }
    if token.number == 0 {
        return Ok(token);
    }
    let at = metastore.events(token.number - 1, 1).await?.into_iter().next();
    let at = at.filter(|at| at.number == token.number).ok_or_else(not_kept)?;
    // A number is given again after an older copy of the metastore was put back.
    if at.request == token.request { Ok(token) } else { Err(of_another_state()) }
}

/// The place behind the event of this number, or at the beginning of what is kept.
async fn start(
    metastore: &Metastore,
    feed: ChangeFeed,
    number: u64,
) -> Result<FeedToken, RestError> {
    let before = metastore.events(number.saturating_sub(1), 1).await?.into_iter().next();
    let at = before.filter(|event| event.number == number);
    Ok(at.map_or(FeedToken { feed: feed.id, number, request: String::new() }, |event| {
        FeedToken::after(feed, &event)
    }))
}

fn gone(message: &str) -> RestError {
    RestError::new(StatusCode::GONE, "GoneException", message)
}

fn not_kept() -> RestError {
    gone(
        "the events after this continuation-token are no longer kept: load what you follow, and \
         start again without a token",
    )
}

fn of_another_state() -> RestError {
    gone(
        "this continuation-token belongs to another state of the catalog, such as before a \
         restore: load what you follow, and start again without a token",
    )
}

fn is_wanted(query: &FeedQuery, event: &ChangeEvent) -> bool {
    let operation = &event.operation;
    let kind = operation["operation-type"].as_str().unwrap_or_default();
    let (about, uuid) = object(operation);
    let is_type = |wanted: &Vec<String>| wanted.iter().any(|wanted| wanted == kind);
    let is_object = |wanted: &Vec<ObjectType>| wanted.contains(&about);
    let is_named = |wanted: &Vec<Levels>| {
        names(operation).iter().any(|name| wanted.iter().any(|wanted| name.starts_with(wanted)))
    };
    let is_identical = |wanted: &Vec<Uuid>| uuid.is_some_and(|uuid| wanted.contains(&uuid));
    query.since_timestamp_ms.is_none_or(|since_ms| since_ms <= event.at_ms)
        && query.operation_types.as_ref().is_none_or(is_type)
        && query.object_types.as_ref().is_none_or(is_object)
        && query.catalog_objects_by_name.as_ref().is_none_or(is_named)
        && query.catalog_objects_by_uuid.as_ref().is_none_or(is_identical)
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

fn written(event: ChangeEvent, changes: Option<&str>) -> Value {
    let mut operation = event.operation;
    let changes = changes.and_then(|text| serde_json::from_str::<Map<String, Value>>(text).ok());
    for (member, value) in changes.into_iter().flatten() {
        operation[member] = value;
    }
    let kind = operation["operation-type"].as_str();
    // A change of before updates were kept, or one that only puts a metadata file in place.
    if kind.is_some_and(|kind| WITH_UPDATES.contains(&kind)) && operation.get("updates").is_none() {
        operation["updates"] = json!([]);
    }
    json!({
        "event-id": event.number.to_string(),
        "request-id": event.request,
        "request-event-count": event.request_events,
        "timestamp-ms": event.at_ms,
        "actor": {"id": event.actor},
        "operation": operation,
    })
}
