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
    sql::materialized::RefreshCaller,
};
use axum::{
    extract::{Extension, Path, State},
    response::Response,
};
use icecore_schemas::{
    collection_refresh::{RefreshParameters, RefreshReply},
    error_code::ErrorCode,
    point::MAIN_BRANCH,
    service_table::EVENTS_TABLE,
    snapshot_id::SnapshotId,
};

/// Why a table is not refreshed now.
const IS_ERASING: &str = "an erasure takes documents of the collection out of its table: refresh it when the erasure is done; GET /v1/{ns}/erase tells how far it is";

/// Refreshes a table, or makes it; with `branch` that branch of it. Durable on return.
///
/// # Errors
/// 400 where another table has its name, 403 for who does not see every row, 404 for a collection without events or
/// where there is no such branch, 409 where another commit to the table came first, 422, 429, 503 also while an erasure
/// takes documents of the collection.
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
            Box::pin(app.sql.refresh_collection(&by, &levels, &collection, full)).await?
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
