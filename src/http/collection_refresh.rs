//! `POST /v1/{ns}/collections/{collection}/refresh`: has the table of a collection follow its events now.

use crate::{
    http::{
        AppState,
        branches::documents::{self, DocumentsRequest},
        collections::check_collection,
        error::ApiError,
        guard::CatalogNamespace,
        jobs::materialize::erasures_of,
        json,
        query_string::QueryParameters,
        record::ChangeCaller,
        sql_writes::commit_waiting,
    },
    maintenance::erasure::Erasures,
    sql::{
        Sql, collection_refresh::RefreshedCollection, materialized::RefreshCaller,
        writes::WriteFailure,
    },
};
use axum::{
    extract::{Extension, Path, State},
    response::Response,
};
use icecore_catalog::error::CatalogError;
use icecore_schemas::{
    collection_refresh::{RefreshParameters, RefreshReply},
    error_code::ErrorCode,
    point::MAIN_BRANCH,
    service_table::EVENTS_TABLE,
    snapshot_id::SnapshotId,
};

/// Why a table is not refreshed now.
const IS_ERASING: &str = "an erasure takes documents of the collection out of its table: refresh it when the erasure is done; GET /v1/{ns}/erase tells how far it is";
/// How often a table is refreshed because another commit to it came first, the first time included.
const TRIES_MAX: usize = 3;

/// Refreshes a table, or makes it; with `branch` that branch of it. Durable on return.
///
/// # Errors
/// 400 where another table has its name, 403 for who does not see every row, 404 for a collection without events or
/// where there is no such branch, 409 where other commits to the table came first again and again, 422, 429, 503 also
/// while an erasure takes documents of the collection.
pub(super) async fn refresh(
    State(app): State<AppState>,
    Path((namespace, collection)): Path<(String, String)>,
    Extension(CatalogNamespace(levels)): Extension<CatalogNamespace>,
    caller: ChangeCaller,
    QueryParameters(RefreshParameters { full, branch }): QueryParameters<RefreshParameters>,
) -> Result<Response, ApiError> {
    app.owner.check()?;
    // The answer counts documents of every visibility.
    app.sql.check_sees_all(&caller.principal, &levels, EVENTS_TABLE)?;
    check_collection(&collection)?;
    let branch = branch.filter(|branch| branch != MAIN_BRANCH);
    // Documents of others with these keys would be taken out once more, and be told as rows of the subject. A branch has
    // a check of its own.
    if branch.is_none() && app.erasures.takes_documents_of(&levels, &collection).await? {
        return Err(ApiError::new(ErrorCode::Unavailable, IS_ERASING));
    }
    commit_waiting(&app, &levels).await?;
    let done = match &branch {
        Some(branch) => {
            let (namespace, levels, collection) = (&namespace, &levels, &collection);
            let request = DocumentsRequest { namespace, levels, collection, branch, is_full: full };
            Box::pin(documents::refresh(&app, &caller, request)).await?
        }
        None => {
            let erasures = erasures_of(&app.erasures, &levels).await?;
            let by = RefreshCaller { catalog: caller.catalog(&app), ids: &app.ids, erasures };
            let place = (levels.as_slice(), collection.as_str());
            Box::pin(follow_events(&app.sql, &app.erasures, by, place, full)).await?
        }
    };
    let reply = RefreshReply {
        collection,
        branch,
        applied_seq: done.applied_seq,
        snapshot: done.snapshot.map(SnapshotId),
        documents: done.documents,
        buckets: done.buckets,
        rows: done.rows,
    };
    Ok(json(200, &reply))
}

/// Has the table of a collection, given by its namespace and its name, follow its events; where another commit to it
/// came first, again, of what is there then. Durable on return.
///
/// # Errors
/// As [`Sql::refresh_collection`]; `CommitFailed` also where an erasure began that the caller does not know of.
pub(in crate::http) async fn follow_events(
    sql: &Sql,
    erasures: &Erasures,
    mut caller: RefreshCaller<'_>,
    (levels, collection): (&[String], &str),
    is_full: bool,
) -> Result<RefreshedCollection, WriteFailure> {
    let mut tries = 1;
    loop {
        let done = Box::pin(sql.refresh_collection(&caller, levels, collection, is_full)).await;
        // A table that another refresh made meanwhile has to be read before it is written.
        let is_lost = matches!(
            done,
            Err(WriteFailure::Catalog(
                CatalogError::CommitFailed(_) | CatalogError::AlreadyExists(_)
            ))
        );
        if !is_lost {
            return done;
        }
        // The commit may have been of an erasure: with those of before the table would pass for one without its data.
        let Ok(now) = erasures_of(erasures, levels).await else { return done };
        let has_begun = caller.erasures.is_some() && now.is_none();
        // One that went on before may have found out only now which documents it takes.
        let Ok(is_taken) = erasures.takes_documents_of(levels, collection).await else {
            return done;
        };
        if has_begun || is_taken || TRIES_MAX <= tries {
            return done;
        }
        caller.erasures = now;
        tries += 1;
    }
}
