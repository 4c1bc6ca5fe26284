//! Tables: list, create, register, load, drop, rename, metrics.

use super::{
    RestState,
    access::{DelegatedAccess, StorageCredential, TableCaller, delegated},
    change_context::ChangeContext,
    commit::CommitAnswer,
    error::RestError,
    etag::{etag, has_etag},
    lists::{self, NamesAnswer, PageParameters},
    ordered::{self, OrderedMetadata, SnapshotMode},
    places,
    request::{JsonBody, NamespacePath, ObjectName, TablePath, UrlParameters},
};
use crate::{
    access::Action,
    catalog::{CreateTable, LoadedTable},
    error::CatalogError,
    metastore::{Levels, NameKind, RecordedAnswer},
    retention,
};
use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use iceberg::{
    TableIdent,
    spec::{Schema, SortOrder, TableMetadata, UnboundPartitionSpec},
};
use serde::{Deserialize, Serialize};
use std::{collections::HashMap, sync::Arc};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct CreateTableBody {
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
    pub(super) name: String,
    pub(super) metadata_location: String,
    overwrite: Option<bool>,
}

#[derive(Debug, Deserialize)]
pub(super) struct RenameBody {
    pub(super) source: ObjectName,
    pub(super) destination: ObjectName,
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

/// A table that its client is going to create.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct StagedTable {
    ident: TableIdent,
    metadata: TableMetadata,
}

impl StagedTable {
    /// To be kept: without the keys that its answer may hold.
    fn text(&self) -> String {
        serde_json::to_string(self).expect("table metadata has only string keys")
    }

    pub(super) async fn answer(
        &self,
        rest: &RestState,
        caller: &TableCaller,
    ) -> Result<Response, RestError> {
        let location = self.metadata.location();
        let access = delegated(rest, caller, &self.ident, location).await?;
        let metadata = Arc::new(self.metadata.clone());
        // No snapshots yet, and so nothing that names one.
        let (encoded, snapshots) = (Arc::default(), SnapshotMode::All);
        Ok(ordered::json(encode(&access, None, &OrderedMetadata { metadata, encoded, snapshots })))
    }
}

/// The answer to a load, and to all that ends with a table.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct TableAnswer<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata_location: Option<&'a str>,
    metadata: &'a OrderedMetadata,
    config: &'a HashMap<String, String>,
    #[serde(skip_serializing_if = "<[StorageCredential]>::is_empty")]
    storage_credentials: &'a [StorageCredential],
}

/// `GET /namespaces/{namespace}/tables`
pub(super) async fn list(
    State(rest): State<RestState>,
    path: NamespacePath,
    UrlParameters(page): UrlParameters<PageParameters>,
) -> Result<Json<NamesAnswer>, RestError> {
    lists::names(&rest, NameKind::Table, path, &page).await
}

/// `POST /namespaces/{namespace}/tables`
pub(super) async fn create(
    asked: ChangeContext,
    path: NamespacePath,
    caller: TableCaller,
    JsonBody(body): JsonBody<CreateTableBody>,
) -> Result<Response, RestError> {
    let properties = body.properties.unwrap_or_default();
    if let Some(mark) = retention::mark_in(&properties) {
        let message = format!("the property `{mark}` is reserved for this server");
        return Err(RestError::bad_request(message));
    }
    if let Some(location) = &body.location {
        places::check(asked.rest(), &caller, location)?;
    }
    let table = CreateTable {
        name: body.name,
        schema: body.schema,
        partition_spec: body.partition_spec,
        sort_order: body.write_order,
        file_order: None,
        location: body.location,
        properties,
    };
    if body.stage_create.unwrap_or_default() {
        let ident = path.table(&table.name)?;
        let metadata = asked.rest().catalog.tables().stage(&path.0, table).await?;
        let staged = StagedTable { ident, metadata };
        asked.catalog(RecordedAnswer::Staged(staged.text())).metastore().keep_request(None).await?;
        return staged.answer(asked.rest(), &caller).await;
    }
    let ident = path.table(&table.name)?;
    let table = asked.catalog(RecordedAnswer::Table).tables().create(&path.0, table).await?;
    let access = delegated(asked.rest(), &caller, &ident, table.metadata.location()).await?;
    Ok(loaded(asked.rest(), &table, &access, SnapshotMode::All))
}

/// `POST /namespaces/{namespace}/register`
pub(super) async fn register(
    asked: ChangeContext,
    path: NamespacePath,
    caller: TableCaller,
    JsonBody(body): JsonBody<RegisterBody>,
) -> Result<Response, RestError> {
    let (name, location) = (&body.name, &body.metadata_location);
    asked.rest().catalog.check_registers(caller.principal().may(Action::Admin, &path.0))?;
    places::check(asked.rest(), &caller, location)?;
    let may_lie = |place: &str| places::check(asked.rest(), &caller, place);
    let catalog = asked.catalog(RecordedAnswer::Table);
    let registered = if body.overwrite.unwrap_or_default() {
        catalog.tables().register_over(&path.0, name, location, &may_lie).await
    } else {
        catalog.tables().register(&path.0, name, location, &may_lie).await
    };
    let table = match registered {
        Ok(table) => table,
        Err(cause) => return Err(not_registered(asked.rest(), &caller, cause).await),
    };
    let ident = path.table(&body.name)?;
    let access = delegated(asked.rest(), &caller, &ident, table.metadata.location()).await?;
    Ok(loaded(asked.rest(), &table, &access, SnapshotMode::All))
}

/// Why nothing was registered; names the table or view that stands in the way to who may know.
pub(super) async fn not_registered(
    rest: &RestState,
    caller: &TableCaller,
    cause: CatalogError,
) -> RestError {
    let CatalogError::Registered(uuid) = cause else { return cause.into() };
    match rest.catalog.metastore().name_of(uuid).await {
        Ok(Some((levels, name))) if caller.principal().may(Action::Read, &levels) => {
            let text = format!("this one is {}.{name}", levels.join("."));
            CatalogError::AlreadyExists(format!("{cause} ({text})")).into()
        }
        Ok(_) => cause.into(),
        Err(failed) => failed.into(),
    }
}

/// `GET /namespaces/{namespace}/tables/{table}`
pub(super) async fn load(
    State(rest): State<RestState>,
    TablePath(ident): TablePath,
    UrlParameters(parameters): UrlParameters<LoadParameters>,
    caller: TableCaller,
) -> Result<Response, RestError> {
    let snapshots = match parameters.snapshots.as_deref() {
        None | Some("" | "all") => SnapshotMode::All,
        Some("refs") => SnapshotMode::Refs,
        Some(other) => {
            return Err(RestError::bad_request(format!(
                "snapshots must be `all` or `refs`, not {other}"
            )));
        }
    };
    let table = rest.catalog.tables().load_present(&ident).await?;
    if caller.validates_commits(&ident) {
        // It asks for a mode where it opens a table, and for none where it loads again what it has.
        rest.catalog.note_writer(&table, parameters.snapshots.is_none()).await;
    }
    let access = delegated(&rest, &caller, &ident, table.metadata.location()).await?;
    // Also for a client that knows this state: it goes on with it.
    rest.catalog.lease(&table).await;
    let etag = etag(&table, &access.tag, snapshots);
    if has_etag(&caller.headers, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response());
    }
    Ok(loaded(&rest, &table, &access, snapshots))
}

/// `HEAD /namespaces/{namespace}/tables/{table}`
pub(super) async fn exists(
    State(rest): State<RestState>,
    TablePath(table): TablePath,
) -> Result<StatusCode, RestError> {
    let levels: &Levels = table.namespace().as_ref();
    match rest.catalog.metastore().table(levels, table.name()).await? {
        Some(_) => Ok(StatusCode::NO_CONTENT),
        None => Err(CatalogError::NoSuchTable(table.to_string()).into()),
    }
}

/// `DELETE /namespaces/{namespace}/tables/{table}`
pub(super) async fn drop(
    asked: ChangeContext,
    TablePath(table): TablePath,
    UrlParameters(parameters): UrlParameters<DropParameters>,
) -> Result<StatusCode, RestError> {
    // PyIceberg writes it as Python does: `True`.
    let purge = parameters.purge_requested.is_some_and(|flag| flag.eq_ignore_ascii_case("true"));
    asked.catalog(RecordedAnswer::Empty).tables().drop(&table, purge).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /namespaces/{namespace}/tables/{table}/unregister`
pub(super) async fn unregister(
    asked: ChangeContext,
    TablePath(table): TablePath,
) -> Result<CommitAnswer, RestError> {
    let table = asked.catalog(RecordedAnswer::Commit).tables().unregister(&table).await?;
    Ok(CommitAnswer::new(asked.rest(), table))
}

/// `POST /tables/rename`
pub(super) async fn rename(
    asked: ChangeContext,
    JsonBody(RenameBody { source, destination }): JsonBody<RenameBody>,
) -> Result<StatusCode, RestError> {
    let (source, destination) = (source.ident()?, destination.ident()?);
    asked.catalog(RecordedAnswer::Empty).tables().rename(&source, &destination).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) fn loaded(
    rest: &RestState,
    table: &LoadedTable,
    access: &DelegatedAccess,
    snapshots: SnapshotMode,
) -> Response {
    let etag = etag(table, &access.tag, snapshots);
    let encode = || {
        let location = Some(table.metadata_location.as_str());
        let (metadata, encoded) = (Arc::clone(&table.metadata), rest.catalog.encoded_parts(table));
        encode(access, location, &OrderedMetadata { metadata, encoded, snapshots })
    };
    let body = if access.lasts { rest.answers.get_or_encode(&etag, encode) } else { encode() };
    ([(header::ETAG, etag)], ordered::json(body)).into_response()
}

fn encode(
    access: &DelegatedAccess,
    metadata_location: Option<&str>,
    metadata: &OrderedMetadata,
) -> Bytes {
    let DelegatedAccess { config, storage_credentials, .. } = access;
    let answer = TableAnswer { metadata_location, metadata, config, storage_credentials };
    ordered::encode(&answer, metadata)
}
