//! What operators do to tables: statistics, names of snapshots, rollback, protection, rename, drop,
//! undrop and purge.
//!
//! A namespace in a path is its catalog name (levels apart by `%1F`), or the name its events carry.
//! What the caller may do there is looked at here, by the name alone and before anything is looked
//! up, so that an answer tells nobody what is there.

use crate::{
    http::{
        App,
        error::ApiError,
        guard, json, namespaces, parse_namespace,
        query_string::Parameters,
        record::{Caller, SEPARATOR},
        snapshot_id::{SnapshotId, with_id},
    },
    table::schema::{self, TableIdent},
};
use axum::{
    Router,
    body::Bytes,
    extract::{Extension, FromRequest, Path, Request, State},
    response::Response,
    routing::{delete, get, post, put},
};
use icecore_catalog::{
    access::{Action, Principal},
    catalog::RefKind,
    metastore::TrashRow,
    retention,
};
use icecore_schemas::error_code::ErrorCode;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json as value};

/// Most protected tables in a list.
const PROTECTED_LISTED_MAX: u32 = 10_000;

/// Every route of this module.
pub fn routes() -> Router<App> {
    let table = "/v1/{namespace}/tables/{table}";
    Router::new()
        .route(table, delete(drop_table))
        .route(&format!("{table}/stats"), get(stats))
        .route(&format!("{table}/protection"), put(protect).delete(unprotect))
        .route(&format!("{table}/rename"), post(rename))
        .route(&format!("{table}/rollback"), post(rollback))
        .route(&format!("{table}/refs"), get(list_refs).post(create_ref))
        .route(&format!("{table}/refs/{{name}}"), delete(drop_ref))
        .route(&format!("{table}/refs/{{name}}/fast-forward"), post(fast_forward))
        .route("/admin/protected", get(protected))
        .route("/admin/dropped", get(dropped))
        .route("/admin/dropped/{uuid}", delete(purge))
        .route("/admin/dropped/{uuid}/undrop", post(undrop))
}

type TablePath = Path<(String, String)>;

/// A JSON body, or what is wrong with it; none is an object without members. Its content type is
/// not asked for, so that a line with curl needs no header.
struct Body<T>(Result<T, String>);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = std::convert::Infallible;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        let read = Bytes::from_request(request, state).await;
        Ok(Self(read.map_err(|problem| problem.body_text()).and_then(|bytes| {
            let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
            serde_json::from_slice(text)
                .map_err(|problem| format!("the body does not fit: {problem}"))
        })))
    }
}

/// Where a table is to be.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Target {
    ns: Option<String>,
    name: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewRef {
    name: String,
    #[serde(rename = "type")]
    kind: Kind,
    snapshot: Option<SnapshotId>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Branch,
    Tag,
}

impl From<Kind> for RefKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Branch => Self::Branch,
            Kind::Tag => Self::Tag,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FastForward {
    to: String,
}

/// One of the two.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rollback {
    snapshot: Option<SnapshotId>,
    time: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Drop {
    #[serde(default)]
    purge: bool,
}

/// What is to be dropped; whatever has the name when left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct DropRef {
    #[serde(rename = "type")]
    kind: Option<Kind>,
}

fn parsed<T>(Body(body): Body<T>) -> Result<T, ApiError> {
    body.map_err(invalid)
}

fn invalid(text: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, text)
}

/// The levels of a namespace where the caller may do this.
pub(super) async fn levels(
    app: &App,
    principal: &Principal,
    action: Action,
    namespace: &str,
) -> Result<Vec<String>, ApiError> {
    let written: Vec<String> = namespace.split(SEPARATOR).map(str::to_owned).collect();
    // One level may be the text that events carry. It is the catalog's name where there is one, but
    // only who may know of that learns it.
    let carried = parse_namespace(namespace).ok().filter(|_| written.len() == 1);
    let levels = match carried {
        Some(carried)
            if !principal.may(action, &written)
                || app.catalog.metastore().namespace(&written).await?.is_none() =>
        {
            guard::levels(&carried)
        }
        _ => written,
    };
    match guard::allow_levels(principal, action, &levels) {
        Ok(()) => Ok(levels),
        // What it tells depends on the caller alone, whatever was asked for.
        Err(error) if error.code() == ErrorCode::NotFound => {
            Err(namespaces::with_others(app, principal, error).await)
        }
        Err(error) => Err(error),
    }
}

/// The table of a path, if the caller may do this there.
async fn find(
    app: &App,
    principal: &Principal,
    action: Action,
    (namespace, name): (String, String),
) -> Result<TableIdent, ApiError> {
    let levels = levels(app, principal, action, &namespace).await?;
    schema::foreign_ident(&levels, &name).ok_or_else(|| invalid("a namespace has a name"))
}

async fn stats(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(path): TablePath,
) -> Result<Response, ApiError> {
    let stats = app.catalog.table_stats(&find(&app, &principal, Action::Read, path).await?).await?;
    Ok(json(200, &stats))
}

async fn protect(
    State(app): State<App>,
    caller: Caller,
    Path(path): TablePath,
) -> Result<Response, ApiError> {
    set_protected(&app, &caller, path, true).await
}

async fn unprotect(
    State(app): State<App>,
    caller: Caller,
    Path(path): TablePath,
) -> Result<Response, ApiError> {
    set_protected(&app, &caller, path, false).await
}

async fn set_protected(
    app: &App,
    caller: &Caller,
    (namespace, name): (String, String),
    is_protected: bool,
) -> Result<Response, ApiError> {
    let levels = levels(app, &caller.principal, Action::Admin, &namespace).await?;
    caller.catalog(app).metastore().protect_table(&levels, &name, is_protected).await?;
    Ok(json(200, &value!({ "protected": is_protected })))
}

async fn rename(
    State(app): State<App>,
    caller: Caller,
    Path(path): TablePath,
    body: Body<Target>,
) -> Result<Response, ApiError> {
    let target = parsed(body)?;
    let (namespace, name) = path.clone();
    let to = (target.ns.unwrap_or(namespace), target.name.unwrap_or(name));
    let (from, to) = (
        find(&app, &caller.principal, Action::Write, path).await?,
        find(&app, &caller.principal, Action::Write, to).await?,
    );
    caller.call.about(&format!("{from} {to}"));
    caller.catalog(&app).rename_table(&from, &to).await?;
    Ok(json(200, &value!({ "table": to.to_string() })))
}

async fn drop_table(
    State(app): State<App>,
    caller: Caller,
    Path(path): TablePath,
    Parameters(Drop { purge }): Parameters<Drop>,
) -> Result<Response, ApiError> {
    let table = find(&app, &caller.principal, Action::Write, path).await?;
    let uuid = caller.catalog(&app).drop_table(&table, purge).await?;
    Ok(json(200, &value!({ "dropped": true, "uuid": uuid.to_string() })))
}

async fn rollback(
    State(app): State<App>,
    caller: Caller,
    Path(path): TablePath,
    body: Body<Rollback>,
) -> Result<Response, ApiError> {
    let table = find(&app, &caller.principal, Action::Write, path).await?;
    let to = match parsed(body)? {
        Rollback { snapshot: Some(SnapshotId(id)), time: None } => id,
        Rollback { snapshot: None, time: Some(text) } => {
            let at = chrono::DateTime::parse_from_rfc3339(&text)
                .map_err(|_| invalid(format!("`time` is no RFC 3339 time: `{text}`")))?;
            app.catalog.snapshot_at(&table, at.timestamp_millis()).await?
        }
        _ => return Err(invalid("say either `snapshot` or `time`")),
    };
    caller.catalog(&app).rollback(&table, to).await?;
    Ok(json(200, &with_id(value!({}), Some(to))))
}

async fn list_refs(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(path): TablePath,
) -> Result<Response, ApiError> {
    let refs = app.catalog.refs(&find(&app, &principal, Action::Read, path).await?).await?;
    let refs: Vec<Value> = refs
        .iter()
        .map(|(name, reference)| {
            let kind = if reference.is_branch() { "branch" } else { "tag" };
            with_id(value!({ "name": name, "type": kind }), Some(reference.snapshot_id))
        })
        .collect();
    Ok(json(200, &value!({ "refs": refs })))
}

async fn create_ref(
    State(app): State<App>,
    caller: Caller,
    Path(path): TablePath,
    body: Body<NewRef>,
) -> Result<Response, ApiError> {
    let table = find(&app, &caller.principal, Action::Write, path).await?;
    let NewRef { name, kind, snapshot } = parsed(body)?;
    caller.call.about(&format!("{table}.{name}"));
    check_readable(&name)?;
    caller
        .catalog(&app)
        .create_ref(&table, &name, kind.into(), snapshot.map(|SnapshotId(id)| id))
        .await?;
    let made = app.catalog.refs(&table).await?;
    let snapshot = made.get(&name).map(|reference| reference.snapshot_id);
    Ok(json(200, &with_id(value!({ "name": name }), snapshot)))
}

/// Refuses a name that no query could read: a time or a number is never looked for among names.
fn check_readable(name: &str) -> Result<(), ApiError> {
    let read_as = match (name.parse::<i64>(), chrono::DateTime::parse_from_rfc3339(name)) {
        (Ok(_), _) => "a snapshot id",
        (_, Ok(_)) => "a time",
        _ => return Ok(()),
    };
    Err(invalid(format!(
        "a branch or tag `{name}` could not be queried, since as_of reads that as {read_as}; begin it with a letter, such as v{name}"
    )))
}

async fn drop_ref(
    State(app): State<App>,
    caller: Caller,
    Path((namespace, table, name)): Path<(String, String, String)>,
    Parameters(DropRef { kind }): Parameters<DropRef>,
) -> Result<Response, ApiError> {
    let table = find(&app, &caller.principal, Action::Write, (namespace, table)).await?;
    if retention::is_managed(&app.catalog.load_table(&table).await?.metadata) {
        // The history of the service's own tables is not every writer's to shorten.
        guard::allow_levels(&caller.principal, Action::Admin, table.namespace().as_ref())?;
    }
    caller.call.about(&format!("{table}.{name}"));
    caller.catalog(&app).drop_ref(&table, &name, kind.map(RefKind::from)).await?;
    Ok(json(200, &value!({ "dropped": true })))
}

async fn fast_forward(
    State(app): State<App>,
    caller: Caller,
    Path((namespace, table, name)): Path<(String, String, String)>,
    body: Body<FastForward>,
) -> Result<Response, ApiError> {
    let FastForward { to } = parsed(body)?;
    let table = find(&app, &caller.principal, Action::Write, (namespace, table)).await?;
    caller.catalog(&app).fast_forward(&table, &name, &to).await?;
    let moved = app.catalog.refs(&table).await?;
    let snapshot = moved.get(&name).map(|reference| reference.snapshot_id);
    Ok(json(200, &with_id(value!({ "name": name }), snapshot)))
}

async fn dropped(State(app): State<App>) -> Result<Response, ApiError> {
    let describe = |row: &TrashRow| {
        value!({
            "uuid": row.uuid.to_string(),
            "namespace": row.levels.join("."),
            "levels": row.levels,
            "name": row.name,
            "dropped_ms": row.trash.dropped_ms,
            "until_ms": row.trash.until_ms,
            "purge": row.trash.purge,
            "purging": row.is_purging,
        })
    };
    let rows: Vec<Value> = app.catalog.dropped_tables().await?.iter().map(describe).collect();
    let queued = app.catalog.metastore().count_obsolete().await?;
    Ok(json(200, &value!({ "dropped": rows, "queued_files": queued })))
}

async fn protected(State(app): State<App>) -> Result<Response, ApiError> {
    let tables = app.catalog.metastore().protected(PROTECTED_LISTED_MAX).await?;
    let describe = |(levels, name): &(Vec<String>, String)| value!({ "namespace": levels.join("."), "levels": levels, "name": name });
    let rows: Vec<Value> = tables.iter().map(describe).collect();
    Ok(json(200, &value!({ "protected": rows })))
}

async fn undrop(
    State(app): State<App>,
    caller: Caller,
    Path(uuid): Path<String>,
    body: Body<Target>,
) -> Result<Response, ApiError> {
    let uuid = uuid.parse().map_err(|_| invalid(format!("`{uuid}` is no UUID")))?;
    let name = match parsed(body)? {
        Target { ns: None, name: None } => None,
        Target { ns: Some(ns), name: Some(name) } => {
            Some(find(&app, &caller.principal, Action::Write, (ns, name)).await?)
        }
        _ => return Err(invalid("say both `ns` and `name`, or neither")),
    };
    let row = app.catalog.metastore().dropped(uuid).await?;
    name_dropped(&caller, row.as_ref(), name.as_ref());
    let back = caller.catalog(&app).undrop_table(uuid, name.as_ref()).await?;
    Ok(json(200, &value!({ "table": back.to_string() })))
}

/// The record of a change to a dropped table says which one it was, and what it is to be.
fn name_dropped(caller: &Caller, row: Option<&TrashRow>, to: Option<&TableIdent>) {
    if let Some(row) = row {
        let to = to.map_or_else(String::new, |to| format!(" {to}"));
        caller.call.about(&format!("{} {}.{}{to}", row.uuid, row.levels.join("."), row.name));
    }
}

async fn purge(
    State(app): State<App>,
    caller: Caller,
    Path(uuid): Path<String>,
) -> Result<Response, ApiError> {
    let uuid = uuid.parse().map_err(|_| invalid(format!("`{uuid}` is no UUID")))?;
    let row = app.catalog.metastore().dropped(uuid).await?;
    name_dropped(&caller, row.as_ref(), None);
    caller.catalog(&app).purge_dropped(uuid).await?;
    Ok(json(200, &value!({ "purging": true })))
}
