//! Which data files of a snapshot a query has to read, as the catalog's planner tells.
//!
//! Its one invariant: a file is left out only if no row of it can make the filters true.

use crate::{
    deletes::{self, DeletedByFile},
    error::SqlError,
    file_failure::of_scan,
    filters,
};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use datafusion::{common::ScalarValue, error::DataFusionError, logical_expr::Expr};
use iceberg::spec::{DataFileFormat, PrimitiveLiteral, Schema, TableMetadata};
use icecore_catalog::{
    scan::{
        Deadline, ManifestSource, ScanError,
        filter::Filter,
        manifests::{ManifestCache, PlannedFile, PlannedFiles},
    },
    storage::Storage,
};
use std::sync::Arc;

/// One snapshot of one table, as its files are planned.
#[derive(Clone, Debug)]
pub struct SnapshotScan {
    /// The table.
    pub metadata: Arc<TableMetadata>,
    /// Which snapshot.
    pub id: i64,
    /// The columns that are read, in Iceberg's terms: names here decide field ids.
    pub columns: Arc<Schema>,
    /// The same as DataFusion reads them.
    pub schema: SchemaRef,
}

/// What is left to read.
#[derive(Debug)]
pub struct QueryFiles {
    /// The data files.
    pub files: PlannedFiles,
    /// Rows of them that other engines deleted.
    pub deletes: DeletedByFile,
}

/// What the summary of a snapshot calls the number of its data files.
const TOTAL_DATA_FILES: &str = "total-data-files";
/// What it calls the number of its delete files, and the bytes of all files.
const TOTAL_DELETE_FILES: &str = "total-delete-files";
const TOTAL_BYTES: &str = "total-files-size";

impl SnapshotScan {
    /// How many data files the whole snapshot has; 0 where its writer did not say.
    #[must_use]
    pub fn file_count(&self) -> u64 {
        let snapshot = self.metadata.snapshot_by_id(self.id);
        let summary = snapshot.map(|snapshot| &snapshot.summary().additional_properties);
        let count = summary.and_then(|summary| summary.get(TOTAL_DATA_FILES));
        count.and_then(|count| count.parse().ok()).unwrap_or(0)
    }

    /// How many bytes the data files of the whole snapshot have; 0 where its writer did not say, or counted files
    /// of deletes with them.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        let Some(snapshot) = self.metadata.snapshot_by_id(self.id) else { return 0 };
        let summary = &snapshot.summary().additional_properties;
        let total = |name: &str| summary.get(name)?.parse::<u64>().ok();
        match total(TOTAL_DELETE_FILES) {
            None | Some(0) => total(TOTAL_BYTES).unwrap_or(0),
            Some(_) => 0,
        }
    }

    /// The files that may hold a row for which all `filters` are true.
    ///
    /// # Errors
    /// [`SqlError::Invalid`] for delete files that cannot be applied; [`SqlError::NotFound`],
    /// [`SqlError::Limit`] when it does not end in time, [`SqlError::Internal`] when files do not read,
    /// all as external errors.
    pub async fn plan(
        &self,
        cache: &ManifestCache,
        storage: &Storage,
        filters: &[Expr],
        until: Deadline,
    ) -> Result<QueryFiles, DataFusionError> {
        let filter = filters
            .iter()
            .map(|expression| filters::translate(expression, &self.columns, &self.schema))
            .fold(Filter::True, Filter::and);
        let source = ManifestSource { storage, cache, metadata: &self.metadata, until };
        let plan =
            source.plan(self.id, &filter).await.map_err(|cause| external(of_scan(&cause)))?;
        let other = plan.files.iter().find(|file| file.format != DataFileFormat::Parquet);
        if let Some(file) = other {
            return Err(external(SqlError::Invalid(format!(
                "the table has {} data files, and only Parquet is read here; rewrite them with the engine that wrote them, or query it there",
                file.format
            ))));
        }
        // The data files are opened by DataFusion and not through the storage, which would look.
        let locations = plan.files.iter().map(|file| storage.normalize(&file.location));
        let locations: Result<Vec<_>, _> = locations.collect();
        let links = match locations {
            Ok(locations) => storage.check_links(locations).await,
            Err(cause) => Err(cause),
        };
        links.map_err(|cause| external(of_scan(&ScanError::from(cause))))?;
        let (files, deletes) = deletes::applied(source, plan).await.map_err(external)?;
        Ok(QueryFiles { files, deletes })
    }

    /// Whether every column is in `file` and is there under the name and type that are read: only
    /// then may a filter run inside the Parquet reader.
    #[must_use]
    pub fn is_current(&self, file: &PlannedFile) -> bool {
        let fields = self.columns.as_struct().fields();
        fields.iter().all(|field| {
            field.field_type.is_primitive()
                && is_written_as_it_is(&field.name)
                && file.column(field.id).is_some()
        })
    }

    /// Whether a column had another type or name once, or a name another column.
    #[must_use]
    pub fn has_changed_columns(&self) -> bool {
        let current = self.columns.as_struct();
        let differs = |then: &iceberg::spec::NestedFieldRef| {
            let by_id = current.field_by_id(then.id);
            let by_name = current.field_by_name(&then.name);
            by_id.is_some_and(|now| now.name != then.name || now.field_type != then.field_type)
                || by_name.is_some_and(|now| now.id != then.id)
        };
        self.metadata.schemas_iter().any(|schema| schema.as_struct().fields().iter().any(differs))
    }
}

/// Whether every writer puts the name into its files as it is. Iceberg's Java library makes
/// `created_x20At` of `created At`.
fn is_written_as_it_is(name: &str) -> bool {
    let mut letters = name.bytes();
    letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == b'_')
}

fn external(cause: SqlError) -> DataFusionError {
    DataFusionError::External(Box::new(cause))
}

/// An Iceberg value as DataFusion's; none for types that are not pruned on.
pub(super) fn scalar(value: &PrimitiveLiteral, data_type: &DataType) -> Option<ScalarValue> {
    let plain = match value {
        PrimitiveLiteral::Boolean(value) => ScalarValue::Boolean(Some(*value)),
        PrimitiveLiteral::Int(value) => ScalarValue::Int32(Some(*value)),
        PrimitiveLiteral::Long(value) => ScalarValue::Int64(Some(*value)),
        PrimitiveLiteral::Float(value) => ScalarValue::Float32(Some(value.0)),
        PrimitiveLiteral::Double(value) => ScalarValue::Float64(Some(value.0)),
        PrimitiveLiteral::String(value) => ScalarValue::Utf8(Some(value.clone())),
        _ => return None,
    };
    let fits = matches!(
        (&plain, data_type),
        (ScalarValue::Boolean(_), DataType::Boolean)
            | (ScalarValue::Int32(_), DataType::Int32 | DataType::Int64 | DataType::Date32)
            | (ScalarValue::Int64(_), DataType::Int64)
            | (
                ScalarValue::Int64(_),
                DataType::Timestamp(TimeUnit::Microsecond | TimeUnit::Nanosecond, _),
            )
            | (ScalarValue::Float32(_), DataType::Float32 | DataType::Float64)
            | (ScalarValue::Float64(_), DataType::Float64)
            | (ScalarValue::Utf8(_), DataType::Utf8 | DataType::Utf8View)
    );
    // A microsecond bound of a column that is nanoseconds now would be off by a thousand, but no
    // version of Iceberg promotes one to the other.
    if fits { plain.cast_to(data_type).ok() } else { None }
}

#[cfg(test)]
mod tests;
