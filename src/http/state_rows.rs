//! The state of collections as the service itself reads it: statements over the relations of collections, without
//! anybody's rights, and the cells of their rows.

use crate::http::{AppState, error::ApiError};
use arrow::{
    array::{Array, AsArray},
    compute::cast,
    datatypes::{DataType, Int64Type},
    record_batch::RecordBatch,
};
use futures::TryStreamExt;
use icecore_engine::{QueryAnswer, error::SqlError, references::QueryScope};
use icecore_lake::collection::table_name;
use icecore_schemas::query::SqlRequest;

/// The relation of a collection, as a statement has it.
pub(super) fn relation(collection: &str) -> String {
    format!("\"{}\"", table_name(collection))
}

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

/// The first row of these batches, as a batch.
pub(super) fn first_row(batches: &[RecordBatch]) -> Option<RecordBatch> {
    batches.iter().find(|batch| batch.num_rows() != 0).map(|batch| batch.slice(0, 1))
}

/// The text in a cell; none where it is null.
pub(super) fn text_at(batch: &RecordBatch, name: &str, row: usize) -> Option<String> {
    let column = cast(&batch.column_by_name(name)?.slice(row, 1), &DataType::Utf8).ok()?;
    let column = column.as_string_opt::<i32>()?;
    column.is_valid(0).then(|| column.value(0).to_owned())
}

/// The whole number in a cell; none where it is null, or below 0.
pub(super) fn number_at(batch: &RecordBatch, name: &str, row: usize) -> Option<u64> {
    let column = cast(&batch.column_by_name(name)?.slice(row, 1), &DataType::Int64).ok()?;
    let column = column.as_primitive_opt::<Int64Type>()?;
    let value = column.is_valid(0).then(|| column.value(0))?;
    u64::try_from(value).ok()
}
