//! What operators do to tables: statistics, names of snapshots, rollback, protection, rename, drop,
//! undrop and purge.
//!
//! A namespace in a path is its catalog name (levels apart by `%1F`), or the name its events carry.
//! The guard has looked at what the caller may do there.

use crate::http::{
    AppState,
    error::ApiError,
    guard::{self, CatalogNamespace},
    json,
    query_string::QueryParameters,
    record::ChangeCaller,
    tables,
};
use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Request, State},
    http::request::Parts,
    response::Response,
};
use icecore_catalog::{
    access::{Action, Principal},
    body::parse_object,
    catalog,
    error::CatalogError,
    metastore::TrashRow,
    retention,
};
use icecore_lake::table::{
    as_of,
    schema::{self, TableIdent},
};
use icecore_schemas::{
    as_of::{AsOf, InvalidAsOf},
    error_code::ErrorCode,
    snapshot_id::{SnapshotId, SnapshotIds},
    tables::{
        DropRef, DropTable, DroppedList, DroppedTable, FastForward, NewRef, NewTableName,
        ProtectedList, ProtectedTable, Protection, RefDropped, RefEntry, RefKind, RefList,
        RefReply, Rollback, TableDropped, TableName, TablePurging, TableStats,
    },
};
use serde::{Deserialize, de::DeserializeOwned};

/// Most protected tables in a list.
const PROTECTED_LISTED_MAX: u32 = 10_000;

/// The table that a path names, in the namespace that the guard found.
#[derive(Debug)]
pub struct PathTable(pub TableIdent);

#[derive(Deserialize)]
struct TablePart {
    table: String,
}

impl FromRequestParts<AppState> for PathTable {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, ApiError> {
        let name = Path::<TablePart>::from_request_parts(parts, app).await;
        let Path(TablePart { table }) = name.map_err(|problem| invalid(problem.body_text()))?;
        let levels = parts.extensions.get::<CatalogNamespace>();
        let levels = levels.map_or(&[][..], |CatalogNamespace(levels)| levels);
        Ok(Self(ident(levels, &table)?))
    }
}

/// The branch or tag that a path names.
#[derive(Debug, Deserialize)]
pub(super) struct RefName {
    name: String,
}

/// A JSON body, or what is wrong with it; none is an object without members. Its content type is
/// not asked for, so that a line with curl needs no header.
pub(super) struct OptionalBody<T>(Result<T, String>);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for OptionalBody<T> {
    type Rejection = std::convert::Infallible;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        let read = Bytes::from_request(request, state).await;
        Ok(Self(read.map_err(|problem| problem.body_text()).and_then(|bytes| {
            let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
            parse_object(text).map_err(|problem| format!("the body is not valid: {problem}"))
        })))
    }
}

fn ref_kind(kind: RefKind) -> catalog::RefKind {
    match kind {
        RefKind::Branch => catalog::RefKind::Branch,
        RefKind::Tag => catalog::RefKind::Tag,
    }
}

fn parsed<T>(OptionalBody(body): OptionalBody<T>) -> Result<T, ApiError> {
    body.map_err(invalid)
}

fn invalid(text: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, text)
}

/// A table of a namespace of the catalog.
pub(super) fn ident(levels: &[String], name: &str) -> Result<TableIdent, ApiError> {
    schema::foreign_ident(levels, name).ok_or_else(|| invalid("a namespace has a name"))
}

/// A table that a body names, if the caller may write there.
async fn target(
    app: &AppState,
    principal: &Principal,
    namespace: &str,
    name: &str,
) -> Result<TableIdent, ApiError> {
    ident(&guard::catalog_levels(app, principal, Action::Write, namespace).await?, name)
}

pub(super) async fn stats(
    State(app): State<AppState>,
    PathTable(table): PathTable,
) -> Result<Response, ApiError> {
    let stats = app.catalog.tables().stats(&table).await;
    let stats = stats.map_err(|cause| tables::failed(&app, &table, cause))?;
    Ok(json(
        200,
        &TableStats {
            data_files: stats.data_files,
            data_bytes: stats.data_bytes,
            data_rows: stats.data_rows,
            small_files: stats.small_files,
            delete_files: stats.delete_files,
            delete_rows: stats.delete_rows,
            manifests: stats.manifests,
            snapshots: stats.snapshots,
            metadata_bytes: stats.metadata_bytes,
            last_updated_ms: stats.last_updated_ms,
            age_ms: stats.age_ms,
            is_protected: stats.is_protected,
        },
    ))
}

pub(super) async fn protect(
    State(app): State<AppState>,
    caller: ChangeCaller,
    PathTable(table): PathTable,
) -> Result<Response, ApiError> {
    set_protected(&app, &caller, &table, true).await
}

pub(super) async fn unprotect(
    State(app): State<AppState>,
    caller: ChangeCaller,
    PathTable(table): PathTable,
) -> Result<Response, ApiError> {
    set_protected(&app, &caller, &table, false).await
}

async fn set_protected(
    app: &AppState,
    caller: &ChangeCaller,
    table: &TableIdent,
    is_protected: bool,
) -> Result<Response, ApiError> {
    let (levels, name) = (table.namespace().as_ref(), table.name());
    caller.catalog(app).metastore().protect_table(levels, name, is_protected).await?;
    Ok(json(200, &Protection { protected: is_protected }))
}

pub(super) async fn rename(
    State(app): State<AppState>,
    caller: ChangeCaller,
    PathTable(from): PathTable,
    body: OptionalBody<NewTableName>,
) -> Result<Response, ApiError> {
    let NewTableName { ns, name } = parsed(body)?;
    let name = name.as_deref().unwrap_or(from.name());
    let to = match ns {
        Some(ns) => target(&app, &caller.principal, &ns, name).await?,
        None => ident(from.namespace().as_ref(), name)?,
    };
    caller.call.about(&format!("{from} {to}"));
    caller.catalog(&app).tables().rename(&from, &to).await?;
    Ok(json(200, &TableName { table: to.to_string() }))
}

pub(super) async fn drop_table(
    State(app): State<AppState>,
    caller: ChangeCaller,
    PathTable(table): PathTable,
    QueryParameters(DropTable { purge }): QueryParameters<DropTable>,
) -> Result<Response, ApiError> {
    let uuid = caller.catalog(&app).tables().drop(&table, purge).await?;
    Ok(json(200, &TableDropped { dropped: true, uuid: uuid.to_string() }))
}

pub(super) async fn rollback(
    State(app): State<AppState>,
    caller: ChangeCaller,
    PathTable(table): PathTable,
    body: OptionalBody<Rollback>,
) -> Result<Response, ApiError> {
    let to = match parsed(body)? {
        Rollback { snapshot: Some(SnapshotId(id)), time: None } => id,
        Rollback { snapshot: None, time: Some(text) } => {
            let Ok(time @ AsOf::Time(_)) = text.parse() else {
                return Err(invalid(format!("`time` is not an RFC 3339 time: `{text}`")));
            };
            let metadata = app.catalog.tables().load(&table).await?.metadata;
            as_of::resolve(&time, table.name(), Some(&metadata), app.catalog.now_ms())
                .map_err(|cause| invalid(cause.to_string()))?
        }
        _ => return Err(invalid("set either `snapshot` or `time`")),
    };
    caller.catalog(&app).refs().rollback(&table, to).await?;
    Ok(json(200, &SnapshotIds::from(to)))
}

pub(super) async fn list_refs(
    State(app): State<AppState>,
    PathTable(table): PathTable,
) -> Result<Response, ApiError> {
    let refs = app.catalog.refs().list(&table).await;
    let refs = refs.map_err(|cause| tables::failed(&app, &table, cause))?;
    let refs = refs
        .into_iter()
        .map(|(name, reference)| {
            let kind = if reference.is_branch() { RefKind::Branch } else { RefKind::Tag };
            RefEntry { name, kind, snapshot: reference.snapshot_id.into() }
        })
        .collect();
    Ok(json(200, &RefList { refs }))
}

pub(super) async fn create_ref(
    State(app): State<AppState>,
    caller: ChangeCaller,
    PathTable(table): PathTable,
    body: OptionalBody<NewRef>,
) -> Result<Response, ApiError> {
    let NewRef { name, kind, snapshot } = parsed(body)?;
    caller.call.about(&format!("{table}.{name}"));
    check_readable(&name)?;
    caller
        .catalog(&app)
        .refs()
        .create(&table, &name, ref_kind(kind), snapshot.map(|SnapshotId(id)| id))
        .await
        .map_err(|cause| tables::failed(&app, &table, cause))?;
    reference(&app, &table, name).await
}

/// Refuses a name that no query could read: a time or a number is never looked for among names.
fn check_readable(name: &str) -> Result<(), ApiError> {
    let read_as = match name.parse() {
        Ok(AsOf::Snapshot(_)) => "a snapshot id",
        Ok(AsOf::Time(_)) => "a time",
        Ok(AsOf::Reference(_)) | Err(InvalidAsOf) => return Ok(()),
    };
    Err(invalid(format!(
        "a branch or tag `{name}` could not be queried, because as_of reads it as {read_as}; start its name with a letter, such as v{name}"
    )))
}

pub(super) async fn drop_ref(
    State(app): State<AppState>,
    caller: ChangeCaller,
    PathTable(table): PathTable,
    Path(RefName { name }): Path<RefName>,
    QueryParameters(DropRef { kind }): QueryParameters<DropRef>,
) -> Result<Response, ApiError> {
    if retention::is_managed(&app.catalog.tables().load(&table).await?.metadata) {
        // The history of the service's own tables is not every writer's to shorten.
        guard::allow_levels(&caller.principal, Action::Admin, table.namespace().as_ref())?;
    }
    caller.call.about(&format!("{table}.{name}"));
    caller.catalog(&app).refs().drop(&table, &name, kind.map(ref_kind)).await?;
    Ok(json(200, &RefDropped { dropped: true }))
}

pub(super) async fn fast_forward(
    State(app): State<AppState>,
    caller: ChangeCaller,
    PathTable(table): PathTable,
    Path(RefName { name }): Path<RefName>,
    body: OptionalBody<FastForward>,
) -> Result<Response, ApiError> {
    let FastForward { to } = parsed(body)?;
    caller.catalog(&app).refs().fast_forward(&table, &name, &to).await?;
    reference(&app, &table, name).await
}

/// Where a branch or tag is now.
async fn reference(app: &AppState, table: &TableIdent, name: String) -> Result<Response, ApiError> {
    let refs = app.catalog.refs().list(table).await?;
    let snapshot = refs.get(&name).map(|reference| reference.snapshot_id).into();
    Ok(json(200, &RefReply { name, snapshot }))
}

pub(super) async fn dropped(State(app): State<AppState>) -> Result<Response, ApiError> {
    let describe = |row: TrashRow| DroppedTable {
        uuid: row.uuid.to_string(),
        namespace: row.levels.join("."),
        levels: row.levels,
        name: row.name,
        dropped_ms: row.trash.dropped_ms,
        until_ms: row.trash.until_ms,
        purge: row.trash.purge,
        purging: row.is_purging,
    };
    let dropped = app.catalog.trash().list().await?.into_iter().map(describe).collect();
    let queued_files = app.catalog.metastore().count_obsolete().await?;
    Ok(json(200, &DroppedList { dropped, queued_files }))
}

pub(super) async fn protected(State(app): State<AppState>) -> Result<Response, ApiError> {
    let tables = app.catalog.metastore().protected(PROTECTED_LISTED_MAX).await?;
    let describe = |(levels, name): (Vec<String>, String)| ProtectedTable {
        namespace: levels.join("."),
        levels,
        name,
    };
    Ok(json(200, &ProtectedList { protected: tables.into_iter().map(describe).collect() }))
}

pub(super) async fn undrop(
    State(app): State<AppState>,
    caller: ChangeCaller,
    Path(uuid): Path<String>,
    body: OptionalBody<NewTableName>,
) -> Result<Response, ApiError> {
    let uuid = uuid.parse().map_err(|_| invalid(format!("`{uuid}` is not a UUID")))?;
    let name = match parsed(body)? {
        NewTableName { ns: None, name: None } => None,
        NewTableName { ns: Some(ns), name: Some(name) } => {
            Some(target(&app, &caller.principal, &ns, &name).await?)
        }
        _ => return Err(invalid("set both `ns` and `name`, or neither")),
    };
    let row = app.catalog.metastore().dropped(uuid).await?;
    name_dropped(&caller, row.as_ref(), name.as_ref());
    let back = caller.catalog(&app).trash().restore(uuid, name.as_ref()).await;
    let back = back.map_err(|cause| match cause {
        CatalogError::NoSuchNamespace(_) => {
            let text =
                format!("{cause}; create it first, or set `ns` and `name` to restore it elsewhere");
            ApiError::new(ErrorCode::NotFound, text)
        }
        cause => cause.into(),
    })?;
    Ok(json(200, &TableName { table: back.to_string() }))
}

/// The record of a change to a dropped table says which one it was, and what it is to be.
fn name_dropped(caller: &ChangeCaller, row: Option<&TrashRow>, to: Option<&TableIdent>) {
    if let Some(row) = row {
        let to = to.map_or_else(String::new, |to| format!(" {to}"));
        caller.call.about(&format!("{} {}.{}{to}", row.uuid, row.levels.join("."), row.name));
    }
}

pub(super) async fn purge(
    State(app): State<AppState>,
    caller: ChangeCaller,
    Path(uuid): Path<String>,
) -> Result<Response, ApiError> {
    let uuid = uuid.parse().map_err(|_| invalid(format!("`{uuid}` is not a UUID")))?;
    let row = app.catalog.metastore().dropped(uuid).await?;
    name_dropped(&caller, row.as_ref(), None);
    caller.catalog(&app).trash().purge(uuid).await?;
    Ok(json(200, &TablePurging { purging: true }))
}
