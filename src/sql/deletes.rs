//! Rows of data files that other engines deleted: position deletes, applied while scanning.
//!
//! Its one invariant: a delete file is applied or the query is refused, never passed over.

use crate::sql::{SqlError, conform::id_of, plan::unreadable};
use arrow::{
    array::{Array, AsArray},
    compute::cast,
    datatypes::{DataType, Int64Type},
};
use bytes::Bytes;
use datafusion::datasource::physical_plan::parquet::{ParquetAccessPlan, RowGroupAccess};
use futures::{StreamExt, TryStreamExt, stream};
use iceberg::spec::DataContentType;
use icecore_catalog::{
    scan::{
        deletes::applies,
        manifests::{Files, PlannedFile},
    },
    storage::Storage,
};
use parquet::{
    arrow::arrow_reader::{ParquetRecordBatchReaderBuilder, RowSelection},
    errors::ParquetError,
    file::metadata::ParquetMetaData,
};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

/// Most bytes of delete files that a query reads.
const BYTES_MAX: u64 = 256 << 20;
/// Delete files read at the same time.
const READS_AT_ONCE: usize = 8;

/// Id and name of the column with the data file's location (Iceberg specification, "Reserved Field
/// IDs").
const FILE_PATH: (i32, &str) = (2_147_483_546, "file_path");
/// Id and name of the column with the row's place in it.
const POSITION: (i32, &str) = (2_147_483_545, "pos");

/// Deleted rows by the location of their data file, counted from 0.
pub type Deletes = HashMap<String, BTreeSet<u64>>;

/// Reads `deletes`, the delete files that reach any of `files`.
///
/// # Errors
/// [`SqlError::Invalid`] for equality deletes and deletion vectors, [`SqlError::Limit`] for too
/// many, [`SqlError::Internal`] when a file does not read.
pub async fn read(
    storage: &Storage,
    deletes: &Files,
    files: &[Arc<PlannedFile>],
) -> Result<Deletes, SqlError> {
    if deletes.is_empty() || files.is_empty() {
        return Ok(Deletes::new());
    }
    let is_plain = |delete: &Arc<PlannedFile>| {
        delete.content == DataContentType::PositionDeletes && delete.location.ends_with(".parquet")
    };
    if !deletes.iter().all(is_plain) {
        return Err(SqlError::Invalid(
            "the table has delete files of a kind that is not applied here (equality deletes or deletion vectors); compact it with the engine that wrote them, or query it there".to_owned(),
        ));
    }
    if BYTES_MAX < deletes.iter().map(|delete| delete.bytes).sum::<u64>() {
        return Err(SqlError::Limit(
            "the table has too many delete files; compact it with the engine that wrote them"
                .to_owned(),
        ));
    }
    let by_location: HashMap<&str, &PlannedFile> =
        files.iter().map(|file| (file.location.as_str(), file.as_ref())).collect();
    let read: Vec<(Arc<PlannedFile>, Runs)> = stream::iter(deletes.iter().map(Arc::clone))
        .map(|delete| async move {
            let bytes = storage.get(&delete.location).await.map_err(|cause| unreadable(&cause))?;
            let parsed = tokio::task::spawn_blocking(move || positions(bytes)).await;
            let parsed = parsed.map_err(|cause| unreadable(&cause))?;
            Ok((delete, parsed.map_err(|cause| unreadable(&cause))?))
        })
        .buffer_unordered(READS_AT_ONCE)
        .try_collect()
        .await?;
    let mut found = Deletes::new();
    for (delete, parts) in read {
        for (location, positions) in parts {
            let reaches = by_location
                .get(location.as_str())
                .is_some_and(|file| file.sequence <= delete.sequence && applies(&delete, file));
            if reaches {
                found.entry(location).or_default().extend(positions);
            }
        }
    }
    Ok(found)
}

/// What a delete file holds: runs of a data file and rows of it.
type Runs = Vec<(String, Vec<u64>)>;

fn positions(bytes: Bytes) -> Result<Runs, ParquetError> {
    let mut runs: Runs = Vec::new();
    for batch in ParquetRecordBatchReaderBuilder::try_new(bytes)?.build()? {
        let batch = batch?;
        let schema = batch.schema();
        let column = |(id, name): (i32, &str), data_type: &DataType| {
            let fields = schema.fields();
            let by_id = fields.iter().position(|field| id_of(field) == Some(id));
            let at = by_id.or_else(|| fields.iter().position(|field| field.name() == name));
            let at = at.ok_or_else(|| {
                ParquetError::General(format!("a position delete file has no column {name}"))
            })?;
            cast(batch.column(at), data_type).map_err(ParquetError::from)
        };
        let paths = column(FILE_PATH, &DataType::Utf8)?;
        let rows = column(POSITION, &DataType::Int64)?;
        let (paths, rows) = (paths.as_string::<i32>(), rows.as_primitive::<Int64Type>());
        for at in 0..paths.len() {
            let row = u64::try_from(rows.value(at)).map_err(|_| {
                ParquetError::General("a position delete file has a negative position".to_owned())
            })?;
            match runs.last_mut() {
                Some((path, run)) if path == paths.value(at) => run.push(row),
                _ => runs.push((paths.value(at).to_owned(), vec![row])),
            }
        }
    }
    Ok(runs)
}

/// What is left of a file without its deleted rows.
#[must_use]
pub fn access(footer: &ParquetMetaData, deleted: &BTreeSet<u64>) -> ParquetAccessPlan {
    let mut start = 0_u64;
    let groups = footer.row_groups().iter().map(|group| {
        let rows = u64::try_from(group.num_rows()).unwrap_or(0);
        let end = start + rows;
        let mut kept = Vec::new();
        let mut next = start;
        for row in deleted.range(start..end) {
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
