//! Tables of a namespace for operators: list, snapshots, commit now.

use crate::{
    http::{
        AppState,
        error::ApiError,
        guard::{self, CatalogNamespace},
        health::not_taken,
        json, namespaces, parse_namespace,
        query_string::{QueryParameters, page_size},
        table_admin::{self, PathTable},
    },
    sql::view,
};
use axum::{
    extract::{Extension, Path, State},
    response::Response,
};
use futures::{StreamExt, TryStreamExt, stream};
use icecore_catalog::{
    access::{Action, Principal},
    catalog::LoadedTable,
    commit::{FIRST_SEQ, LAST_SEQ},
    error::CatalogError,
};
use icecore_lake::table::schema::{TableIdent, ident};
use icecore_schemas::{
    error_code::ErrorCode,
    names::Namespace,
    snapshot_id::SnapshotIds,
    tables::{
        CommitAllReply, CommitReply, NamespaceEntry, NamespaceList, SnapshotEntry, SnapshotList,
        SnapshotPage, TableEntry, TableList, TableState, TableSummary,
    },
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
};

/// Most catalog names whose owners are remembered.
const OWNERS_MAX: usize = 10_000;
/// Snapshots of an answer to who names no limit, and most of any answer.
const PAGE_SNAPSHOTS: usize = 100;
const PAGE_SNAPSHOTS_MAX: usize = 10_000;
/// Most namespaces of one answer.
const NAMESPACES_MAX: usize = 10_000;
/// Namespaces that wait for their commits at a time; the flush job takes them together.
const COMMITS_AT_ONCE: usize = 256;

/// `GET /v1/namespaces`: every namespace that the caller may see.
///
/// # Errors
/// 500.
pub async fn all_namespaces(
    State(app): State<AppState>,
    Extension(principal): Extension<Principal>,
) -> Result<Response, ApiError> {
    let metastore = app.catalog.metastore();
    // Before the catalog is asked: what is committed meanwhile is gone from the log.
    let pending = app.wal.pending().into_iter().filter(|table| table.kind.is_rows());
    let mut uncommitted: BTreeMap<_, _> =
        pending.map(|table| (guard::levels(&table.namespace), table.namespace)).collect();
    let mut found = Vec::new();
    let mut waiting = metastore.namespaces(&Vec::new()).await?;
    waiting.reverse();
    while let Some(levels) = waiting.pop() {
        if NAMESPACES_MAX <= found.len() {
            return Err(too_many_namespaces());
        }
        match metastore.namespaces(&levels).await {
            Ok(below) => waiting.extend(below.into_iter().rev()),
            // Dropped since its name was listed.
            Err(CatalogError::NoSuchNamespace(_)) => continue,
            Err(cause) => return Err(cause.into()),
        }
        uncommitted.remove(&levels);
        if !principal.sees(&levels) {
            continue;
        }
        let properties = metastore.namespace(&levels).await?.unwrap_or_default();
        let noted = Namespace::from_properties(&levels, &properties);
        found.push(NamespaceEntry {
            name: levels.join("."),
            levels,
            ns: noted.map(|noted| noted.text().to_owned()),
        });
    }
    for (levels, namespace) in uncommitted {
        if principal.sees(&levels) {
            let ns = Some(namespace.text().to_owned());
            found.push(NamespaceEntry { name: levels.join("."), levels, ns });
        }
    }
    if NAMESPACES_MAX < found.len() {
        return Err(too_many_namespaces());
    }
    found.sort_by(|one, other| one.levels.cmp(&other.levels));
    Ok(json(200, &NamespaceList { namespaces: found }))
}

fn too_many_namespaces() -> ApiError {
    let text = format!(
        "there are more than {NAMESPACES_MAX} namespaces; list them in pages with GET /catalog/v1/namespaces"
    );
    ApiError::new(ErrorCode::InvalidRequest, text)
}

/// `GET /v1/{ns}/tables`: name, rows, files, bytes and snapshot of each table.
///
/// # Errors
/// 404 for a namespace that is not there.
pub async fn list(
    State(app): State<AppState>,
    Extension(principal): Extension<Principal>,
    Extension(CatalogNamespace(levels)): Extension<CatalogNamespace>,
) -> Result<Response, ApiError> {
    let waiting = waiting(&app, &levels);
    let names = match app.catalog.metastore().tables(&levels).await {
        // Its first events are on their way into tables.
        Err(CatalogError::NoSuchNamespace(_)) if !waiting.is_empty() => Vec::new(),
        Err(CatalogError::NoSuchNamespace(_)) => {
            return Err(nothing(&app, &principal, &levels).await);
        }
        names => names?,
    };
    let mut tables = Vec::new();
    for name in waiting.into_iter().filter(|name| !names.iter().any(|found| found == name)) {
        let state = TableState::Waiting { snapshots: 0, snapshot: SnapshotIds::default() };
        tables.push(TableEntry { name: name.to_owned(), state });
    }
    for name in names {
        let table = table_admin::ident(&levels, &name)?;
        match app.catalog.tables().load(&table).await {
            Ok(loaded) => {
                tables.push(TableEntry { name, state: TableState::Read(describe(&loaded)) });
            }
            // Dropped since the names were listed.
            Err(CatalogError::NoSuchTable(_)) => (),
            // One bad table must not hide the others.
            Err(cause) => match app.catalog.tables().why_unreadable(&table, &cause).await? {
                Some(error) => {
                    tables.push(TableEntry { name, state: TableState::Unreadable { error } });
                }
                None => return Err(cause.into()),
            },
        }
    }
    tables.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(json(200, &TableList { tables }))
}

/// The tables of a namespace that the log has rows for.
fn waiting(app: &AppState, levels: &[String]) -> Vec<&'static str> {
    let pending = app.wal.pending().into_iter();
    let mut names: Vec<&str> = pending
        .filter(|pending| levels == guard::levels(&pending.namespace))
        .filter_map(|pending| pending.kind.table_name())
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The error of a call about a table, with what to do where its first rows are on their way into it.
pub fn failed(app: &AppState, table: &TableIdent, cause: CatalogError) -> ApiError {
    let levels = table.namespace().as_ref();
    match cause {
        CatalogError::NoSuchTable(_) if waiting(app, levels).contains(&table.name()) => {
            let text = format!(
                "{cause}: its first events wait for POST /v1/{{ns}}/commit, or for `commit.interval`"
            );
            ApiError::new(ErrorCode::NotFound, text)
        }
        cause => cause.into(),
    }
}

/// The error for a namespace that is not there.
async fn nothing(app: &AppState, principal: &Principal, levels: &[String]) -> ApiError {
    let error = CatalogError::NoSuchNamespace(levels.join(".")).into();
    namespaces::with_others(app, principal, error).await
}

/// `GET /v1/{ns}/tables/{t}/snapshots?limit=`: the retained snapshots, newest first, and how many
/// there are.
///
/// # Errors
/// 404.
pub async fn snapshots(
    State(app): State<AppState>,
    Extension(principal): Extension<Principal>,
    PathTable(table): PathTable,
    QueryParameters(page): QueryParameters<SnapshotPage>,
) -> Result<Response, ApiError> {
    let levels = table.namespace().as_ref();
    let loaded = match app.catalog.tables().load(&table).await {
        Ok(loaded) => loaded,
        Err(CatalogError::NoSuchTable(_)) if waiting(&app, levels).contains(&table.name()) => {
            return Ok(json(200, &SnapshotList { snapshots: Vec::new(), total: 0 }));
        }
        Err(CatalogError::NoSuchTable(_))
            if waiting(&app, levels).is_empty()
                && app.catalog.metastore().namespace(levels).await?.is_none() =>
        {
            return Err(nothing(&app, &principal, levels).await);
        }
        Err(cause) => match app.catalog.tables().why_unreadable(&table, &cause).await? {
            Some(error) => return Err(ApiError::new(ErrorCode::NotFound, error)),
            None => return Err(cause.into()),
        },
    };
    let mut snapshots: Vec<_> = loaded.metadata.snapshots().collect();
    // In the first version of the format all sequence numbers are 0.
    snapshots
        .sort_by_key(|snapshot| Reverse((snapshot.sequence_number(), snapshot.timestamp_ms())));
    let total = snapshots.len() as u64;
    let limit = page_size(page.limit, PAGE_SNAPSHOTS, PAGE_SNAPSHOTS_MAX)?;
    let rows = snapshots
        .into_iter()
        .take(limit)
        .map(|snapshot| {
            let summary = &snapshot.summary().additional_properties;
            SnapshotEntry {
                timestamp_ms: snapshot.timestamp_ms(),
                operation: snapshot.summary().operation.as_str().to_owned(),
                added_records: number(summary.get("added-records")),
                total_records: number(summary.get("total-records")),
                first_seq: number(summary.get(FIRST_SEQ)),
                // A snapshot without rows of its own may tell how far the table is.
                last_seq: number(summary.get(FIRST_SEQ)).and(number(summary.get(LAST_SEQ))),
                snapshot: snapshot.snapshot_id().into(),
            }
        })
        .collect();
    Ok(json(200, &SnapshotList { snapshots: rows, total }))
}

/// `POST /v1/{ns}/commit`: everything acknowledged before the call is in a snapshot on return.
///
/// # Errors
/// 404 for a namespace that is not there, 503 when the commit failed; what waits is safe and tried
/// again.
pub async fn commit(
    State(app): State<AppState>,
    Extension(principal): Extension<Principal>,
    Path(namespace): Path<String>,
) -> Result<Response, ApiError> {
    app.owner.check().map_err(|reason| not_taken(Some(&principal), &reason))?;
    let namespace = owner(&app, &principal, parse_namespace(&namespace)?).await?;
    let through = *app.wal.durable().borrow();
    let committed = app
        .flush
        .commit_now(&namespace, through)
        .await
        .map_err(|cause| ApiError::from(cause.as_ref()))?;
    if committed.is_empty() {
        let levels = guard::levels(&namespace);
        if app.catalog.metastore().namespace(&levels).await?.is_none() {
            return Err(nothing(&app, &principal, &levels).await);
        }
    }
    let mut snapshots = BTreeMap::new();
    let mut seq = None;
    for (kind, snapshot) in committed {
        let Some(name) = kind.table_name() else { continue };
        if kind.has_seq() {
            let loaded = app.catalog.tables().load(&ident(&namespace, name)).await?;
            seq = loaded.watermark.map(|watermark| watermark.last_seq);
        }
        snapshots.insert(name.to_owned(), snapshot);
    }
    Ok(json(200, &CommitReply { seq, snapshots }))
}

/// `POST /admin/commit`: everything acknowledged before the call, in every namespace, is in a
/// snapshot on return.
///
/// # Errors
/// 503 when a commit failed; what waits is safe and tried again.
pub async fn commit_all(State(app): State<AppState>) -> Result<Response, ApiError> {
    app.owner.check()?;
    let through = *app.wal.durable().borrow();
    let waiting = app.wal.pending().into_iter().filter(|table| table.kind.is_rows());
    let namespaces: BTreeSet<Namespace> = waiting.map(|table| table.namespace).collect();
    let committed = namespaces.len() as u64;
    let flush = &app.flush;
    stream::iter(namespaces)
        .map(|namespace| async move { flush.commit_now(&namespace, through).await })
        .buffer_unordered(COMMITS_AT_ONCE)
        .try_for_each(|_| async { Ok(()) })
        .await
        .map_err(|cause| ApiError::from(cause.as_ref()))?;
    Ok(json(200, &CommitAllReply { namespaces: committed }))
}

/// The namespace as its events name it, when it was asked for by its catalog name by one who may
/// know of it.
///
/// # Errors
/// 500.
pub async fn owner(
    app: &AppState,
    principal: &Principal,
    asked: Namespace,
) -> Result<Namespace, ApiError> {
    let levels = guard::levels(&asked);
    if !principal.sees(&levels) && !principal.may(Action::Ingest, &levels) {
        return Ok(asked);
    }
    owner_of(app, asked).await
}

/// Which namespace has which catalog name, as far as it was asked for.
#[derive(Debug, Default)]
pub struct NameOwners(Mutex<HashMap<String, Namespace>>);

/// The namespace that a sender means: whoever gives the catalog name means the namespace that has
/// it. Any other text is its own.
///
/// # Errors
/// 503 when the metastore does not answer.
pub async fn named(
    app: &AppState,
    principal: &Principal,
    asked: Namespace,
) -> Result<Namespace, ApiError> {
    if asked.text() != asked.name() || !principal.may(Action::Ingest, &guard::levels(&asked)) {
        return Ok(asked);
    }
    owner_of(app, asked).await
}

/// The namespace that has the catalog name of this one: itself where none has it yet.
async fn owner_of(app: &AppState, asked: Namespace) -> Result<Namespace, ApiError> {
    // Whole entries go in, so a panic elsewhere leaves nothing half done.
    let owners = || app.owners.0.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(owner) = owners().get(asked.name()) {
        return Ok(owner.clone());
    }
    // The name stays its owner's, so this is asked once a name and not once a request.
    let Some(owner) = view::claim(&app.wal, &app.catalog, &asked).await? else {
        return Ok(asked);
    };
    let mut owners = owners();
    if OWNERS_MAX <= owners.len() {
        owners.clear();
    }
    owners.insert(asked.name().to_owned(), owner.clone());
    Ok(owner)
}

fn describe(loaded: &LoadedTable) -> TableSummary {
    let snapshot = loaded.metadata.current_snapshot();
    let total = |key: &str| {
        number(snapshot.and_then(|snapshot| snapshot.summary().additional_properties.get(key)))
    };
    TableSummary {
        records: total("total-records"),
        files: total("total-data-files"),
        bytes: total("total-files-size"),
        snapshots: loaded.metadata.snapshots().len() as u64,
        last_seq: loaded.watermark.map(|watermark| watermark.last_seq),
        location: loaded.metadata.location().to_owned(),
        snapshot: snapshot.map(|snapshot| snapshot.snapshot_id()).into(),
    }
}

fn number(text: Option<&String>) -> Option<u64> {
    text.and_then(|text| text.parse().ok())
}
