//! Tables: list, create, register, load, drop, rename, metrics.

use super::{
    Rest,
    asked::Asked,
    error::Refused,
    request::{Body, Name, NamespacePath, PageParameters, Parameters, TablePath},
};
use crate::{
    catalog::{CreateTable, LoadedTable},
    error::CatalogError,
    metastore::{Answer, Levels},
    retention,
};
use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use iceberg::{
    ErrorKind,
    spec::{Schema, SortOrder, TableMetadata, UnboundPartitionSpec},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Mutex, PoisonError},
};

/// Most bytes of answers that are kept for clients that load a table again.
const ANSWERS_BYTES_MAX: usize = 16 << 20;

#[derive(Debug, Serialize)]
pub(super) struct ListAnswer {
    identifiers: Vec<Name>,
    #[serde(rename = "next-page-token")]
    next_page_token: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct CreateBody {
    name: String,
    location: Option<String>,
    schema: Schema,
    partition_spec: Option<UnboundPartitionSpec>,
    write_order: Option<SortOrder>,
    stage_create: Option<bool>,
    properties: Option<HashMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct RegisterBody {
    name: String,
    metadata_location: String,
    overwrite: Option<bool>,
}

#[derive(Debug, Deserialize)]
pub(super) struct RenameBody {
    source: Name,
    destination: Name,
}

#[derive(Debug, Deserialize)]
pub(super) struct LoadParameters {
    snapshots: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct DropParameters {
    #[serde(rename = "purgeRequested")]
    purge_requested: Option<String>,
}

/// Which of a table's snapshots an answer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Snapshots {
    All,
    /// Only those that a branch or tag names.
    Refs,
}

/// The answer to a load, and to all that ends with a table.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct LoadAnswer<'a, M: Serialize> {
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata_location: Option<&'a str>,
    metadata: &'a M,
    config: HashMap<String, String>,
}

/// `GET /namespaces/{namespace}/tables`
pub(super) async fn list(
    State(rest): State<Rest>,
    path: NamespacePath,
    Parameters(page): Parameters<PageParameters>,
) -> Result<Json<ListAnswer>, Refused> {
    let names = rest.catalog.metastore().tables(&path.0).await?;
    let (names, next_page_token) = page.cut(names, String::clone)?;
    let identifiers =
        names.into_iter().map(|name| Name { namespace: path.0.clone(), name }).collect();
    Ok(Json(ListAnswer { identifiers, next_page_token }))
}

/// `POST /namespaces/{namespace}/tables`
pub(super) async fn create(
    asked: Asked,
    path: NamespacePath,
    Body(body): Body<CreateBody>,
) -> Result<Response, Refused> {
    let table = CreateTable {
        name: body.name,
        schema: body.schema,
        partition_spec: body.partition_spec,
        sort_order: body.write_order,
        location: body.location,
        properties: body.properties.unwrap_or_default(),
    };
    if body.stage_create.unwrap_or_default() {
        let metadata = asked.rest().catalog.stage_table(&path.0, table).await?;
        return Ok(json(encode(asked.rest(), None, &metadata)));
    }
    let table = asked.catalog(Answer::Table).create_table(&path.0, table).await?;
    Ok(loaded(asked.rest(), &table, Snapshots::All))
}

/// `POST /namespaces/{namespace}/register`
pub(super) async fn register(
    asked: Asked,
    path: NamespacePath,
    Body(body): Body<RegisterBody>,
) -> Result<Response, Refused> {
    if body.overwrite.unwrap_or_default() {
        return Err(Refused::bad_request("a table cannot be registered over another"));
    }
    let catalog = asked.catalog(Answer::Table);
    let registered = catalog.register_table(&path.0, &body.name, &body.metadata_location).await;
    let table = match registered {
        // The client named the file, so its contents are the client's mistake.
        Err(CatalogError::Iceberg { source, .. }) if source.kind() == ErrorKind::DataInvalid => {
            let location = body.metadata_location;
            return Err(Refused::bad_request(format!("no table metadata at `{location}`")));
        }
        registered => registered?,
    };
    Ok(loaded(asked.rest(), &table, Snapshots::All))
}

/// `GET /namespaces/{namespace}/tables/{table}`
pub(super) async fn load(
    State(rest): State<Rest>,
    TablePath(table): TablePath,
    Parameters(parameters): Parameters<LoadParameters>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let snapshots = match parameters.snapshots.as_deref() {
        None | Some("" | "all") => Snapshots::All,
        Some("refs") => Snapshots::Refs,
        Some(other) => {
            return Err(Refused::bad_request(format!("snapshots is `all` or `refs`, not {other}")));
        }
    };
    let table = rest.catalog.load_table(&table).await?;
    let etag = etag(&table, snapshots);
    if has_etag(&headers, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response());
    }
    Ok(loaded(&rest, &table, snapshots))
}

/// `HEAD /namespaces/{namespace}/tables/{table}`
pub(super) async fn exists(
    State(rest): State<Rest>,
    TablePath(table): TablePath,
) -> Result<StatusCode, Refused> {
    let levels: &Levels = table.namespace().as_ref();
    match rest.catalog.metastore().table(levels, table.name()).await? {
        Some(_) => Ok(StatusCode::NO_CONTENT),
        None => Err(CatalogError::NoSuchTable(table.to_string()).into()),
    }
}

/// `DELETE /namespaces/{namespace}/tables/{table}`
pub(super) async fn drop(
    asked: Asked,
    TablePath(table): TablePath,
    Parameters(parameters): Parameters<DropParameters>,
) -> Result<StatusCode, Refused> {
    // PyIceberg writes it as Python does: `True`.
    let purge = parameters.purge_requested.is_some_and(|flag| flag.eq_ignore_ascii_case("true"));
    asked.catalog(Answer::Empty).drop_table(&table, purge).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /tables/rename`
pub(super) async fn rename(
    asked: Asked,
    Body(RenameBody { source, destination }): Body<RenameBody>,
) -> Result<StatusCode, Refused> {
    asked.catalog(Answer::Empty).rename_table(&source.ident()?, &destination.ident()?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /namespaces/{namespace}/tables/{table}/metrics`: accepted and let go.
pub(super) async fn metrics(TablePath(_): TablePath) -> StatusCode {
    StatusCode::NO_CONTENT
}

pub(super) fn loaded(rest: &Rest, table: &LoadedTable, snapshots: Snapshots) -> Response {
    let etag = etag(table, snapshots);
    let body = rest.answers.get_or_encode(&etag, || match snapshots {
        Snapshots::All => encode(rest, Some(&table.metadata_location), table.metadata.as_ref()),
        Snapshots::Refs => {
            encode(rest, Some(&table.metadata_location), &with_named_snapshots(&table.metadata))
        }
    });
    ([(header::ETAG, etag)], json(body)).into_response()
}

fn encode<M: Serialize>(rest: &Rest, metadata_location: Option<&str>, metadata: &M) -> Bytes {
    let config = rest.catalog.storage().client_config();
    let answer = LoadAnswer { metadata_location, metadata, config };
    serde_json::to_vec(&answer).expect("table metadata has only string keys").into()
}

fn with_named_snapshots(metadata: &TableMetadata) -> Value {
    let named: HashSet<i64> =
        retention::refs(metadata).into_values().map(|reference| reference.snapshot_id).collect();
    let mut json = serde_json::to_value(metadata).expect("table metadata has only string keys");
    if let Some(snapshots) = json.get_mut("snapshots").and_then(Value::as_array_mut) {
        snapshots.retain(|snapshot| {
            snapshot["snapshot-id"].as_i64().is_some_and(|id| named.contains(&id))
        });
    }
    json
}

fn json(body: Bytes) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// Names the answer: each metadata file is written once, under a name of its own.
fn etag(table: &LoadedTable, snapshots: Snapshots) -> String {
    let file = xxhash_rust::xxh3::xxh3_128(table.metadata_location.as_bytes());
    let mode = match snapshots {
        Snapshots::All => "all",
        Snapshots::Refs => "refs",
    };
    format!("\"{file:032x}-{mode}\"")
}

/// Whether the client already has the answer of this name.
fn has_etag(headers: &HeaderMap, etag: &str) -> bool {
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == etag)
}

/// Answers as they were sent last, newest last: a client loads a table for every statement, and
/// its metadata is long.
#[derive(Debug, Default)]
pub(super) struct Answers {
    recent: Mutex<VecDeque<(String, Bytes)>>,
}

impl Answers {
    pub(super) fn get_or_encode(&self, etag: &str, encode: impl FnOnce() -> Bytes) -> Bytes {
        let known = |recent: &VecDeque<(String, Bytes)>| {
            recent.iter().rev().find(|(key, _)| key == etag).map(|(_, body)| body.clone())
        };
        if let Some(body) = known(&self.lock()) {
            return body;
        }
        // Two requests may encode the same table; the lock is not held for that long.
        let body = encode();
        let mut recent = self.lock();
        if known(&recent).is_none() {
            recent.push_back((etag.to_owned(), body.clone()));
        }
        let mut bytes: usize = recent.iter().map(|(_, body)| body.len()).sum();
        while bytes > ANSWERS_BYTES_MAX {
            bytes -= recent.pop_front().map_or(bytes, |(_, body)| body.len());
        }
        body
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<(String, Bytes)>> {
        // Whole entries go in and out, so a panic elsewhere leaves nothing half done.
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
