//! Equality deletes: keys, and the rows of a data file that have one of them.
//!
//! A key is the row format of its values (arrow-row), in which equal values have equal bytes: a missing
//! value equals a missing one, as the specification has it. Of a key only the youngest delete counts,
//! since it reaches every data file that an older one reaches.

use crate::table::{
    deletes::{DeleteMemory, DeletedRows, DeletesError, RowDeletes, rows_of, scope},
    file_columns::{FileColumns, OpenFile},
};
use arrow::{
    array::{ArrayRef, AsArray},
    datatypes::{DataType, Float32Type, Float64Type},
    error::ArrowError,
    record_batch::RecordBatch,
    row::{RowConverter, Rows, SortField},
};
use futures::TryStreamExt;
use iceberg::spec::TableMetadata;
use icecore_catalog::scan::{
    ManifestSource,
    manifests::{PlannedFile, PlannedFiles},
};
use std::{collections::HashMap, pin::pin, sync::Arc};

/// What a key takes in memory beside its bytes: its place in the table, its length, its sequence number
/// and what the allocator adds.
const KEY_BYTES: usize = 64;

/// Keys that are deleted in one partition or everywhere.
#[derive(Debug)]
pub(super) struct KeySet {
    columns: FileColumns,
    converter: RowConverter,
    /// The sequence number of the youngest delete by key.
    youngest: HashMap<Box<[u8]>, i64>,
}

/// Adds the keys of equality delete files.
pub(super) async fn add(
    source: ManifestSource<'_>,
    deletes: PlannedFiles,
    into: &mut RowDeletes,
) -> Result<(), DeletesError> {
    let mut files = Vec::new();
    for delete in deletes {
        let Some(scope) = scope(&delete) else { continue };
        let columns = match into.keys.get(&scope) {
            Some(keys) => keys.columns.clone(),
            None => {
                let keys = KeySet::new(source.metadata, &delete, &scope.0)?;
                let columns = keys.columns.clone();
                into.keys.insert(scope, keys);
                columns
            }
        };
        files.push((delete, columns));
    }
    let mut batches = pin!(rows_of(source.storage, files.into_iter()));
    while let Some((delete, rows)) = batches.try_next().await? {
        source.until.check()?;
        if let Some(keys) = scope(&delete).and_then(|scope| into.keys.get_mut(&scope)) {
            keys.insert(&delete, &rows, &mut into.held)?;
        }
    }
    Ok(())
}

impl KeySet {
    fn new(table: &TableMetadata, delete: &PlannedFile, ids: &[i32]) -> Result<Self, DeletesError> {
        let damaged =
            |reason: String| DeletesError::Damaged { location: delete.location.clone(), reason };
        if ids.is_empty() {
            return Err(damaged("its manifest does not say which columns it compares".to_owned()));
        }
        let columns = FileColumns::of(table, ids).map_err(|reason| {
            DeletesError::Unsupported(format!(
                "the table has an equality delete that is not applied here ({reason}); compact it with the engine that wrote it, or query it there"
            ))
        })?;
        let fields = columns.schema().fields().iter();
        let fields = fields.map(|field| SortField::new(field.data_type().clone())).collect();
        let converter = RowConverter::new(fields).map_err(|cause| damaged(cause.to_string()))?;
        Ok(Self { columns, converter, youngest: HashMap::new() })
    }

    fn insert(
        &mut self,
        delete: &PlannedFile,
        rows: &RecordBatch,
        held: &mut DeleteMemory,
    ) -> Result<(), DeletesError> {
        let keys = self.keys(rows).map_err(|cause| DeletesError::Damaged {
            location: delete.location.clone(),
            reason: cause.to_string(),
        })?;
        for key in &keys {
            match self.youngest.get_mut(key.as_ref()) {
                Some(youngest) => *youngest = delete.sequence.max(*youngest),
                None => {
                    held.take(KEY_BYTES + key.as_ref().len())?;
                    self.youngest.insert(key.as_ref().into(), delete.sequence);
                }
            }
        }
        Ok(())
    }

    /// Adds the rows of a data file that are deleted.
    pub(super) async fn find(
        &self,
        source: ManifestSource<'_>,
        file: &PlannedFile,
        into: &mut DeletedRows,
    ) -> Result<(), DeletesError> {
        let opened = OpenFile::new(source.storage, file, &self.columns).await?;
        let mut batches = pin!(opened.rows()?);
        let mut first = 0_u64;
        while let Some(rows) = batches.try_next().await? {
            source.until.check()?;
            let keys = self.keys(&rows).map_err(|cause| DeletesError::Damaged {
                location: file.location.clone(),
                reason: cause.to_string(),
            })?;
            for (place, key) in (first..).zip(&keys) {
                let youngest = self.youngest.get(key.as_ref());
                if youngest.is_some_and(|youngest| file.sequence < *youngest) {
                    into.insert(place);
                }
            }
            first += rows.num_rows() as u64;
        }
        Ok(())
    }

    fn keys(&self, rows: &RecordBatch) -> Result<Rows, ArrowError> {
        let columns: Vec<ArrayRef> = rows.columns().iter().map(one_nan).collect();
        self.converter.convert_columns(&columns)
    }
}

/// The column with one NaN of the many: as in Iceberg's Java library each is equal to each, and the two
/// zeros are not.
fn one_nan(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Float32 => {
            let one = |value: f32| if value.is_nan() { f32::NAN } else { value };
            Arc::new(column.as_primitive::<Float32Type>().unary::<_, Float32Type>(one))
        }
        DataType::Float64 => {
            let one = |value: f64| if value.is_nan() { f64::NAN } else { value };
            Arc::new(column.as_primitive::<Float64Type>().unary::<_, Float64Type>(one))
        }
        _ => Arc::clone(column),
    }
}
