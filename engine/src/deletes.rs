//! Rows of data files that other engines deleted, as DataFusion's Parquet source leaves them out.

use crate::{
    error::SqlError,
    file_failure::{of_scan, unreadable},
};
use datafusion::datasource::physical_plan::parquet::{ParquetAccessPlan, RowGroupAccess};
use icecore_catalog::scan::{ManifestSource, ScanPlan, manifests::PlannedFiles};
use icecore_lake::table::deletes::{DeletedRows, DeletesError, RowDeletes, kept_ranges};
use parquet::{arrow::arrow_reader::RowSelection, file::metadata::ParquetMetaData};
use std::collections::HashMap;

/// Deleted rows by the location of their data file.
pub type DeletedByFile = HashMap<String, DeletedRows>;

/// What a plan has to read: its data files, and their rows that are deleted.
///
/// # Errors
/// [`SqlError::Invalid`] for deletes that cannot be applied, [`SqlError::Limit`] for too many or when
/// it takes too long, [`SqlError::Internal`] when a file does not read.
pub async fn applied(
    source: ManifestSource<'_>,
    plan: ScanPlan,
) -> Result<(PlannedFiles, DeletedByFile), SqlError> {
    let ScanPlan { files, deletes } = plan;
    let deleted = match RowDeletes::read(source, deletes, &files).await {
        Ok(deletes) => deletes.of_all(source, &files).await,
        Err(cause) => Err(cause),
    };
    match deleted {
        Ok(deleted) => Ok((files, deleted)),
        Err(DeletesError::Unsupported(text)) => Err(SqlError::Invalid(text)),
        Err(cause @ DeletesError::TooMany { .. }) => Err(SqlError::Limit(cause.to_string())),
        Err(DeletesError::Scan(cause)) => Err(of_scan(&cause)),
        Err(cause @ (DeletesError::Damaged { .. } | DeletesError::File(_))) => {
            Err(unreadable(&cause))
        }
    }
}

/// What is left of a file without its deleted rows.
#[must_use]
pub fn access(footer: &ParquetMetaData, deleted: &DeletedRows) -> ParquetAccessPlan {
    let mut start = 0;
    let groups = footer.row_groups().iter().map(|group| {
        let rows = usize::try_from(group.num_rows()).unwrap_or(0);
        let end = start + rows as u64;
        let kept = kept_ranges(Some(deleted), start..end);
        start = end;
        match kept.as_slice() {
            [] => RowGroupAccess::Skip,
            [all] if all.len() == rows => RowGroupAccess::Scan,
            _ => RowGroupAccess::Selection(RowSelection::from_consecutive_ranges(
                kept.into_iter(),
                rows,
            )),
        }
    });
    ParquetAccessPlan::new(groups.collect())
}
