//! Which data files of a snapshot a query has to read.
//!
//! Manifests are pruned by their partition summaries, files by bounds, null counts and partition
//! values, both through DataFusion's own pruning. Its one invariant: a file is left out only if no
//! row of it can make the filters true.

use crate::sql::{
    SqlError,
    deletes::{self, Deletes},
    manifests::{Files, ManifestCache, PlannedFile, has_deletes, unreadable},
};
use arrow::{
    array::{ArrayRef, BooleanArray, UInt64Array},
    datatypes::{DataType, SchemaRef, TimeUnit},
};
use datafusion::{
    common::{Column, ScalarValue, pruning::PruningStatistics},
    error::DataFusionError,
    physical_expr::PhysicalExpr,
    physical_optimizer::pruning::PruningPredicate,
};
use iceberg::spec::{
    Datum, FieldSummary, Literal, ManifestFile, PartitionSpec, PrimitiveLiteral, PrimitiveType,
    Schema, TableMetadata, Transform,
};
use icecore_catalog::storage::Storage;
use std::{collections::HashSet, sync::Arc};

/// One snapshot of one table, as its files are planned.
#[derive(Clone, Debug)]
pub struct Snapshot {
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
pub struct Planned {
    /// The data files.
    pub files: Files,
    /// Rows of them that other engines deleted.
    pub deletes: Deletes,
}

impl Snapshot {
    /// The files that may hold a row for which `predicate` is true.
    ///
    /// # Errors
    /// [`SqlError::Invalid`] for delete files that cannot be applied; [`SqlError::NotFound`],
    /// [`SqlError::Internal`] as external errors when files do not read.
    pub async fn plan(
        &self,
        manifests: &ManifestCache,
        storage: &Storage,
        predicate: Option<&Arc<dyn PhysicalExpr>>,
    ) -> Result<Planned, DataFusionError> {
        let listed =
            manifests.manifests(storage, &self.metadata, self.id).await.map_err(external)?;
        let (deletes, data): (Vec<&ManifestFile>, Vec<&ManifestFile>) =
            listed.iter().partition(|manifest| has_deletes(manifest));
        let pruning = predicate
            .map(|predicate| {
                PruningPredicate::try_new(Arc::clone(predicate), Arc::clone(&self.schema))
            })
            .transpose()?
            .filter(|pruning| !pruning.always_true());
        let data = match &pruning {
            Some(pruning) => {
                let keep = pruning.prune(&Summaries { manifests: &data, snapshot: self })?;
                data.into_iter()
                    .zip(keep)
                    .filter_map(|(manifest, keep)| keep.then_some(manifest))
                    .collect()
            }
            None => data,
        };
        let files = manifests.files(storage, &self.metadata, &data).await.map_err(external)?;
        let files: Files = match &pruning {
            Some(pruning) => {
                let keep = pruning.prune(&FileBounds { files: &files, snapshot: self })?;
                files
                    .into_iter()
                    .zip(keep)
                    .filter_map(|(file, keep)| keep.then_some(file))
                    .collect()
            }
            None => files,
        };
        // The data files are opened by DataFusion and not through the storage, which would look.
        let locations = files.iter().map(|file| storage.normalize(&file.location));
        let locations: Result<Vec<_>, _> = locations.collect();
        let locations = locations.map_err(|cause| external(unreadable(&cause)))?;
        let links = storage.check_links(locations).await;
        links.map_err(|cause| external(unreadable(&cause)))?;
        let deletes = manifests.files(storage, &self.metadata, &deletes).await.map_err(external)?;
        let deletes = deletes::read(storage, &deletes, &files).await.map_err(external)?;
        Ok(Planned { files, deletes })
    }

    /// Field id and Arrow type of a column.
    fn field(&self, column: &Column) -> Option<(i32, &DataType)> {
        let id = self.columns.field_by_name(&column.name)?.id;
        Some((id, self.schema.field_with_name(&column.name).ok()?.data_type()))
    }

    /// Whether every column is in `file` and is there under the name and type that are read: only
    /// then may a filter run inside the Parquet reader.
    #[must_use]
    pub fn is_current(&self, file: &PlannedFile) -> bool {
        let fields = self.columns.as_struct().fields();
        fields
            .iter()
            .all(|field| field.field_type.is_primitive() && file.column(field.id).is_some())
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

fn external(cause: SqlError) -> DataFusionError {
    DataFusionError::External(Box::new(cause))
}

/// What the manifests say of the values in each file.
struct FileBounds<'a> {
    files: &'a [Arc<PlannedFile>],
    snapshot: &'a Snapshot,
}

impl FileBounds<'_> {
    /// The value that every row of a file has, where the column is an identity partition.
    fn partition_value<'a>(&self, file: &'a PlannedFile, id: i32) -> Option<&'a PrimitiveLiteral> {
        let spec = self.snapshot.metadata.partition_spec_by_id(file.spec_id)?;
        let at = spec
            .fields()
            .iter()
            .position(|field| field.source_id == id && field.transform == Transform::Identity)?;
        match file.partition.iter().nth(at)?? {
            Literal::Primitive(value) => Some(value),
            Literal::Struct(_) | Literal::List(_) | Literal::Map(_) => None,
        }
    }

    fn bounds(&self, column: &Column, upper: bool) -> Option<ArrayRef> {
        let (id, data_type) = self.snapshot.field(column)?;
        let bound = |file: &PlannedFile| {
            if let Some(value) = self.partition_value(file, id) {
                return scalar(value, data_type);
            }
            let known = file.column(id)?;
            // DataFusion sorts NaN above every number, Iceberg's bounds leave it out.
            if upper && data_type.is_floating() && known.may_be_nan {
                return None;
            }
            let value = if upper { known.upper.as_ref() } else { known.lower.as_ref() };
            scalar(value?, data_type)
        };
        array(self.files.iter().map(|file| bound(file)), data_type)
    }
}

impl PruningStatistics for FileBounds<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, false)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, true)
    }

    fn num_containers(&self) -> usize {
        self.files.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let (id, _) = self.snapshot.field(column)?;
        let counts = self.files.iter().map(|file| file.column(id).and_then(|known| known.nulls));
        Some(Arc::new(counts.collect::<UInt64Array>()))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(self.files.iter().map(|file| Some(file.rows)).collect::<UInt64Array>()))
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}

/// What a manifest list says of the partitions in each manifest.
struct Summaries<'a> {
    manifests: &'a [&'a ManifestFile],
    snapshot: &'a Snapshot,
}

impl Summaries<'_> {
    fn bounds(&self, column: &Column, upper: bool) -> Option<ArrayRef> {
        let (id, data_type) = self.snapshot.field(column)?;
        let source = self.snapshot.columns.field_by_id(id)?.field_type.as_primitive_type()?.clone();
        // A filter on such a column may be true for NaN, which no summary covers.
        if data_type.is_floating() {
            return None;
        }
        let bound = |manifest: &ManifestFile| {
            let spec = self.snapshot.metadata.partition_spec_by_id(manifest.partition_spec_id)?;
            summary_bound(spec, manifest.partitions.as_deref()?, id, &source, upper)
                .and_then(|value| scalar(&value, data_type))
        };
        array(self.manifests.iter().map(|manifest| bound(manifest)), data_type)
    }
}

impl PruningStatistics for Summaries<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, false)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, true)
    }

    fn num_containers(&self) -> usize {
        self.manifests.len()
    }

    fn null_counts(&self, _: &Column) -> Option<ArrayRef> {
        None
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        None
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}

/// The bound of a source column that follows from the bound of its partition field: of the value
/// itself, or of the day or hour that times were cut to.
fn summary_bound(
    spec: &PartitionSpec,
    summaries: &[FieldSummary],
    source_id: i32,
    source: &PrimitiveType,
    upper: bool,
) -> Option<PrimitiveLiteral> {
    let mut fields = spec.fields().iter().zip(summaries);
    fields.find_map(|(field, summary)| {
        let bytes = if upper { &summary.upper_bound } else { &summary.lower_bound };
        let bytes = bytes.as_ref().filter(|_| field.source_id == source_id)?;
        let seconds = match field.transform {
            Transform::Identity => {
                let datum = Datum::try_from_bytes(bytes, source.clone()).ok()?;
                return Some(datum.literal().clone());
            }
            Transform::Day => 86_400,
            Transform::Hour => 3_600,
            _ => return None,
        };
        let per_second = match source {
            PrimitiveType::Timestamp | PrimitiveType::Timestamptz => 1_000_000,
            PrimitiveType::TimestampNs | PrimitiveType::TimestamptzNs => 1_000_000_000,
            _ => return None,
        };
        let unit = i64::from(i32::from_le_bytes(<[u8; 4]>::try_from(bytes.as_slice()).ok()?));
        let length: i64 = seconds * per_second;
        let start = unit.checked_mul(length)?;
        let value = if upper { start.checked_add(length - 1)? } else { start };
        Some(PrimitiveLiteral::Long(value))
    })
}

fn array(
    values: impl Iterator<Item = Option<ScalarValue>>,
    data_type: &DataType,
) -> Option<ArrayRef> {
    let unknown = ScalarValue::try_from(data_type).ok()?;
    let values: Vec<_> = values.map(|value| value.unwrap_or_else(|| unknown.clone())).collect();
    if values.is_empty() {
        return None;
    }
    ScalarValue::iter_to_array(values).ok()
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
