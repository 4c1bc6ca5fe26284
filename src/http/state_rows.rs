//! The state of collections as the service itself reads it, before it writes on it: statements over the relations of
//! collections without anybody's rights.

use crate::{
    http::{AppState, error::ApiError},
    sql::document_lookup::DocumentLookup,
};
use arrow::record_batch::RecordBatch;
use futures::TryStreamExt;
use icecore_engine::{QueryAnswer, error::SqlError, references::QueryScope};
use icecore_schemas::query::SqlRequest;

/// Starts a query of the service's own; none where the namespace has no events.
///
/// # Errors
/// As queries.
pub(super) async fn ask(
    app: &AppState,
    levels: &[String],
    request: SqlRequest,
) -> Result<Option<QueryAnswer>, ApiError> {
    let asked = Box::pin(app.sql.query(levels, QueryScope::Namespace, None, request)).await;
    started(app, levels, asked).await
}

/// The same with as many rows as there are, for a query whose rows are read one after the other.
///
/// # Errors
/// As queries.
pub(super) async fn ask_all(
    app: &AppState,
    levels: &[String],
    request: SqlRequest,
) -> Result<Option<QueryAnswer>, ApiError> {
    let asked = Box::pin(app.sql.query_all(levels, request)).await;
    started(app, levels, asked).await
}

/// A query that started; none where the namespace has no events.
async fn started(
    app: &AppState,
    levels: &[String],
    asked: Result<QueryAnswer, SqlError>,
) -> Result<Option<QueryAnswer>, ApiError> {
    match asked {
        Ok(answer) => Ok(Some(answer)),
        Err(SqlError::NoNamespace(_)) => Ok(None),
        // A namespace may have tables of other engines alone.
        Err(cause @ (SqlError::Invalid(_) | SqlError::NotFound(_))) => {
            match Box::pin(app.sql.has_things(levels)).await? {
                true => Err(cause.into()),
                false => Ok(None),
            }
        }
        Err(cause) => Err(cause.into()),
    }
}

/// All rows of a query; none where the namespace has no events.
///
/// # Errors
/// As queries.
pub(super) async fn rows(
    app: &AppState,
    levels: &[String],
    request: SqlRequest,
) -> Result<Vec<RecordBatch>, ApiError> {
    let Some(answer) = ask(app, levels, request).await? else { return Ok(Vec::new()) };
    Ok(answer.batches.try_collect().await?)
}

/// The row of a document, if it is there.
///
/// # Errors
/// As queries.
pub(super) async fn document(
    app: &AppState,
    levels: &[String],
    lookup: DocumentLookup,
) -> Result<Option<RecordBatch>, ApiError> {
    let asked = Box::pin(app.sql.look_up(levels, QueryScope::Namespace, None, lookup)).await;
    let Some(answer) = started(app, levels, asked).await? else { return Ok(None) };
    let rows: Vec<RecordBatch> = answer.batches.try_collect().await?;
    Ok(first_row(&rows))
}

/// The first row of these batches, as a batch.
pub(super) fn first_row(batches: &[RecordBatch]) -> Option<RecordBatch> {
    batches.iter().find(|batch| batch.num_rows() != 0).map(|batch| batch.slice(0, 1))
}
