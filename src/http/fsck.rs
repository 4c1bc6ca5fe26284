//! `POST /admin/fsck`: whether tables are whole.

use crate::{
    http::{AppState, error::ApiError, guard::catalog_levels, json, query_string::QueryParameters},
    maintenance::fsck::{FsckError, FsckRequest},
};
use axum::{Extension, extract::State, response::Response};
use icecore_catalog::access::{Action, Principal};
use icecore_lake::table::integrity::CheckDepth;
use icecore_schemas::{error_code::ErrorCode, fsck::FsckParameters};

/// `POST /admin/fsck?namespace=&table=&quick=`: checks tables, and answers when that has ended. A client
/// that goes away ends it.
///
/// # Errors
/// 404 for a namespace or table that is not there; 429 while another check goes on; 503 where the
/// warehouse or the metastore does not answer, or the server stops.
pub async fn run(
    State(app): State<AppState>,
    Extension(principal): Extension<Principal>,
    QueryParameters(asked): QueryParameters<FsckParameters>,
) -> Result<Response, ApiError> {
    let FsckParameters { namespace, table, quick } = asked;
    let levels = match &namespace {
        Some(name) => Some(catalog_levels(&app, &principal, Action::Admin, name).await?),
        None => None,
    };
    let depth = if quick { CheckDepth::Footers } else { CheckDepth::Rows };
    let request = FsckRequest { levels, table, depth };
    Ok(json(200, &Box::pin(app.tables.fsck.run(&request)).await?))
}

impl From<FsckError> for ApiError {
    fn from(cause: FsckError) -> Self {
        match cause {
            FsckError::Catalog(cause) => cause.into(),
            FsckError::Busy => Self::new(ErrorCode::TooManyRequests, cause.to_string()),
            FsckError::Stopped => Self::new(ErrorCode::Unavailable, cause.to_string()),
        }
    }
}
