//! `/v1/{ns}/branches`: branches of a namespace, which are refs of its `events` with events of their own.
//!
//! A request to a branch is one commit of `events`, which has the rows when the request is answered. Its one
//! invariant: whatever is written to a branch, `main` and its log are as before.

pub(in crate::http) mod append;
pub(in crate::http) mod batch;
mod create;
pub(in crate::http) mod diff;
pub(in crate::http) mod documents;
pub(in crate::http) mod merge;
mod squash;

use crate::{
    flush::FlushError,
    http::{
        self, AppState, body, change_events,
        error::ApiError,
        guard::{self, CatalogNamespace},
        health::not_taken,
        record::ChangeCaller,
        rows::{number_at, written_time},
        state_rows::{self, first_row},
    },
};
use append::{ATTEMPTS_MAX, BranchHead};
use axum::{
    body::Body,
    extract::{Extension, Path, State},
    http::HeaderMap,
    response::Response,
};
use create::BranchRequest;
pub(in crate::http) use create::COPIES_MAX;
use icecore_catalog::{
    body::parse_object,
    catalog::LoadedTable,
    error::{CatalogError, with_causes},
};
use icecore_lake::{
    branch::{Branch, last_seq},
    table::schema::ident,
};
use icecore_schemas::{
    branches::{BranchDropped, BranchEntry, BranchList, NewBranch, check_branch_name},
    error_code::ErrorCode,
    names::Namespace,
    query::SqlRequest,
    service_table::EVENTS_TABLE,
};
use serde_json::json;
use tracing::error;

/// Most names of branches in a text.
const NAMES_SHOWN_MAX: usize = 10;

/// `POST /v1/{ns}/branches`: on return the branch is there.
///
/// # Errors
/// 400, 404 for a point that is still to come, 409 for a name that is taken, 410 for a point that was removed, 429, 503.
pub(super) async fn create(
    State(app): State<AppState>,
    Extension(CatalogNamespace(levels)): Extension<CatalogNamespace>,
    Path(namespace): Path<String>,
    caller: ChangeCaller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let body = body::read(&app, &headers, body).await?;
    let new: NewBranch = parse_object(&body.bytes)
        .map_err(|problem| invalid(format!("the body is not {{\"name\": \"try\"}}: {problem}")))?;
    check_branch_name(&new.name).map_err(|problem| invalid(problem.to_string()))?;
    let namespace = writable(&app, &caller, &levels, &namespace).await?;
    caller.call.about(&format!("{} {}", namespace.name(), new.name));
    let request =
        BranchRequest { app: &app, caller: &caller, levels: &levels, namespace: &namespace };
    let made = Box::pin(request.create(&new)).await?;
    Ok(http::json(201, &made))
}

/// `GET /v1/{ns}/branches`: by name.
///
/// # Errors
/// 404 for a namespace without events.
pub(super) async fn list(
    State(app): State<AppState>,
    Extension(CatalogNamespace(levels)): Extension<CatalogNamespace>,
) -> Result<Response, ApiError> {
    let namespace = named(&levels)?;
    let table = events(&app, &namespace).await?;
    let mut branches = Vec::new();
    for branch in Branch::all(&table.metadata) {
        let head = head(&app, &namespace, &table, &branch.name).await?;
        branches.push(entry(&table, &head));
    }
    Ok(http::json(200, &BranchList { branches }))
}

/// `GET /v1/{ns}/branches/{branch}`.
///
/// # Errors
/// 404.
pub(super) async fn show(
    State(app): State<AppState>,
    Extension(CatalogNamespace(levels)): Extension<CatalogNamespace>,
    Path((_, branch)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let namespace = named(&levels)?;
    let table = events(&app, &namespace).await?;
    let head = head(&app, &namespace, &table, &branch).await?;
    Ok(http::json(200, &entry(&table, &head)))
}

/// `DELETE /v1/{ns}/branches/{branch}`: its events are gone with it. What only it needs of files goes when its
/// snapshots expire.
///
/// # Errors
/// 404, 409 where others write to it again and again, 503.
pub(super) async fn remove(
    State(app): State<AppState>,
    Extension(CatalogNamespace(levels)): Extension<CatalogNamespace>,
    Path((namespace, branch)): Path<(String, String)>,
    caller: ChangeCaller,
) -> Result<Response, ApiError> {
    let namespace = writable(&app, &caller, &levels, &namespace).await?;
    caller.call.about(&format!("{} {branch}", namespace.name()));
    // A merge that goes on reads the branch by its name, and says of it in the end that it is merged.
    let _merges = app.restore_turns.take(&[namespace.name()]).await?;
    let _turn = app.branch_turns.take(&[namespace.name(), &branch]).await?;
    let catalog = caller.catalog(&app);
    app.sql.fault("branch.before_drop")?;
    let mut attempt = 1;
    loop {
        let head = append::load(&app, &namespace, &branch).await?;
        let place = (branch.as_str(), head.snapshot);
        match app.flush.drop_branch(&catalog, &namespace, place).await {
            Ok(()) => break,
            Err(CatalogError::CommitFailed(_)) if attempt < ATTEMPTS_MAX => attempt += 1,
            Err(cause) => return Err(cause.into()),
        }
    }
    app.sql.fault("branch.after_drop")?;
    // What only other engines read goes after the branch, so that none of it is missing where the branch is not dropped.
    let changes = app.catalog.on_behalf_of(caller.principal.id());
    Box::pin(documents::drop_left(&app, &changes, &namespace, &branch)).await;
    Ok(http::json(200, &BranchDropped { dropped: true }))
}

/// `POST /v1/{ns}/branches/{branch}/squash`.
///
/// # Errors
/// 404, 409 where another engine wrote to the branch, 410 where its beginning is gone, 429, 503.
pub(super) async fn squash(
    State(app): State<AppState>,
    Extension(CatalogNamespace(levels)): Extension<CatalogNamespace>,
    Path((namespace, branch)): Path<(String, String)>,
    caller: ChangeCaller,
) -> Result<Response, ApiError> {
    let namespace = writable(&app, &caller, &levels, &namespace).await?;
    caller.call.about(&format!("{} {branch}", namespace.name()));
    let request =
        BranchRequest { app: &app, caller: &caller, levels: &levels, namespace: &namespace };
    let squashed = Box::pin(request.squash(&branch)).await?;
    Ok(http::json(200, &squashed))
}

/// The namespace of a path for who may write to its branches.
async fn writable(
    app: &AppState,
    caller: &ChangeCaller,
    levels: &[String],
    namespace: &str,
) -> Result<Namespace, ApiError> {
    let principal = &caller.principal;
    app.owner.check().map_err(|reason| not_taken(Some(principal), &reason))?;
    app.sql.check_sees_all(principal, levels, EVENTS_TABLE)?;
    change_events::namespace_of(app, principal, levels, namespace).await
}

/// The namespace whose tables are in these levels of the catalog.
fn named(levels: &[String]) -> Result<Namespace, ApiError> {
    match levels {
        [name] => http::parse_namespace(name),
        _ => {
            let text = format!("namespace `{}` has no events", levels.join("."));
            Err(ApiError::new(ErrorCode::NotFound, text))
        }
    }
}

/// Table `events` of a namespace.
async fn events(app: &AppState, namespace: &Namespace) -> Result<LoadedTable, ApiError> {
    let table = app.catalog.tables().load(&ident(namespace, EVENTS_TABLE)).await;
    table.map_err(|cause| match cause {
        CatalogError::NoSuchTable(_) | CatalogError::NoSuchNamespace(_) => {
            let text = format!(
                "namespace `{namespace}` has no table `events` yet: send an event, and commit it with POST /v1/{namespace}/commit"
            );
            ApiError::new(ErrorCode::NotFound, text)
        }
        cause => cause.into(),
    })
}

/// The error where a statement about a table that was there finds none: its rows are not taken for none.
fn no_events(namespace: &Namespace) -> ApiError {
    let text = format!("namespace `{namespace}` has no events any more");
    ApiError::new(ErrorCode::NotFound, text)
}

/// Where a branch of the table is.
async fn head(
    app: &AppState,
    namespace: &Namespace,
    table: &LoadedTable,
    name: &str,
) -> Result<BranchHead, ApiError> {
    let snapshot = table.metadata.snapshot_for_ref(name).map(|head| head.snapshot_id());
    let Some((branch, snapshot)) = Branch::of(&table.metadata, name).zip(snapshot) else {
        return Err(no_branch(table, name));
    };
    let seq = match last_seq(&table.metadata, snapshot) {
        Some(seq) => seq,
        None => newest(app, namespace, snapshot).await?,
    };
    // Another event of such a number would be taken for one that is merged.
    let seq = seq.max(branch.named_seq(&Branch::all(&table.metadata)));
    Ok(BranchHead { branch, snapshot, seq })
}

/// The last event in a snapshot, by its rows.
async fn newest(app: &AppState, namespace: &Namespace, snapshot: i64) -> Result<u64, ApiError> {
    let request = SqlRequest {
        sql: "SELECT CAST(max(seq) AS bigint) AS seq FROM events".to_owned(),
        as_of: Some(json!(snapshot)),
        ..SqlRequest::default()
    };
    let rows = state_rows::rows(app, &guard::levels(namespace), request).await?;
    Ok(first_row(&rows).and_then(|row| number_at(&row, "seq", 0)).unwrap_or(0))
}

fn no_branch(table: &LoadedTable, name: &str) -> ApiError {
    let branches = Branch::all(&table.metadata);
    let known = branches.iter().take(NAMES_SHOWN_MAX);
    let names: Vec<String> = known.map(|branch| format!("`{}`", branch.name)).collect();
    let there = match names.len() {
        0 => "there is none but `main`".to_owned(),
        _ if names.len() < branches.len() => format!("there are {} and others", names.join(", ")),
        _ => format!("there are {}", names.join(", ")),
    };
    let text = format!("the namespace has no branch `{name}`: {there}");
    ApiError::new(ErrorCode::NotFound, text)
}

/// A branch as requests are told of it.
fn entry(table: &LoadedTable, BranchHead { branch, snapshot, seq }: &BranchHead) -> BranchEntry {
    let created_us = branch.created_at.saturating_mul(1000);
    BranchEntry {
        name: branch.name.clone(),
        head: *snapshot,
        head_seq: *seq,
        forked_from: branch.forked_from.clone(),
        fork_seq: branch.fork_seq,
        collection: branch.collection.clone(),
        created_at: written_time(created_us).unwrap_or_default(),
        base: branch.base(&table.metadata),
    }
}

/// The error for a commit to a branch.
fn failed(cause: FlushError) -> ApiError {
    match cause {
        FlushError::Commit(cause) => cause.into(),
        FlushError::NotOwner(not) => not.into(),
        cause => {
            error!(error = &cause as &dyn std::error::Error, "commit to a branch failed");
            let told = match (cause.is_lasting(), cause.of_storage()) {
                (true, _) => with_causes(&cause),
                (false, Some(reason)) => format!("the commit failed because {reason}"),
                (false, None) => "the commit failed".to_owned(),
            };
            let text = format!("{told}; nothing of it is on the branch, send it again");
            ApiError::new(ErrorCode::Unavailable, text)
        }
    }
}

fn invalid(text: String) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, text)
}
