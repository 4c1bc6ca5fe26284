//! Rows of data files that other engines deleted, as DataFusion's Parquet source leaves them out.

use crate::{
    sql::{
        SqlError,
        plan::{failure, unreadable},
    },
    table::deletes::{DeletedRows, Deletes, DeletesError},
};
use datafusion::datasource::physical_plan::parquet::{ParquetAccessPlan, RowGroupAccess};
use icecore_catalog::scan::{Plan, Source, manifests::Files};
use parquet::{arrow::arrow_reader::RowSelection, file::metadata::ParquetMetaData};
use std::collections::HashMap;

/// Deleted rows by the location of their data file.
pub type DeletedByFile = HashMap<String, DeletedRows>;

/// What a plan has to read: its data files, and their rows that are deleted.
///
/// # Errors
/// [`SqlError::Invalid`] for deletes that cannot be applied, [`SqlError::Limit`] for too many or when
/// it takes too long, [`SqlError::Internal`] when a file does not read.
pub async fn applied(source: Source<'_>, plan: Plan) -> Result<(Files, DeletedByFile), SqlError> {
    let Plan { files, deletes } = plan;
    let deleted = match Deletes::read(source, deletes, &files).await {
        Ok(deletes) => deletes.of_all(source, &files).await,
        Err(cause) => Err(cause),
    };
    match deleted {
        Ok(deleted) => Ok((files, deleted)),
        Err(DeletesError::Unsupported(text)) => Err(SqlError::Invalid(text)),
        Err(cause @ DeletesError::TooMany { .. }) => Err(SqlError::Limit(cause.to_string())),
        Err(DeletesError::Scan(cause)) => Err(failure(&cause)),
        Err(cause @ (DeletesError::Damaged { .. } | DeletesError::File(_))) => {
            Err(unreadable(&cause))
        }
    }
}

/// What is left of a file without its deleted rows.
#[must_use]
pub fn access(footer: &ParquetMetaData, deleted: &DeletedRows) -> ParquetAccessPlan {
    let mut deleted = deleted.iter().peekable();
    let mut start = 0_u64;
    let groups = footer.row_groups().iter().map(|group| {
        let rows = u64::try_from(group.num_rows()).unwrap_or(0);
        let end = start + rows;
        let mut kept = Vec::new();
        let mut next = start;
        while let Some(row) = deleted.next_if(|row| *row < end) {
            kept.push(offset(next - start)..offset(row - start));
            next = row + 1;
        }
        kept.push(offset(next - start)..offset(rows));
        start = end;
        if kept.len() == 1 {
            return RowGroupAccess::Scan;
        }
        if kept.iter().all(std::ops::Range::is_empty) {
            return RowGroupAccess::Skip;
        }
        let selection = RowSelection::from_consecutive_ranges(kept.into_iter(), offset(rows));
        RowGroupAccess::Selection(selection)
    });
    ParquetAccessPlan::new(groups.collect())
}

fn offset(rows: u64) -> usize {
    usize::try_from(rows).expect("a row group's rows fit memory")
}
