//! Columns of a table, mostly of single values, read from a Parquet file of the warehouse in batches of rows.
//!
//! A column is found by its field id and comes in the type that it has today. Where the file lacks it,
//! each row has the column's initial default, mostly null. Rows come in the file's order, all of them or
//! those of some row groups. One row group's chunks of the wanted columns are in memory at a time, at
//! most [`ROW_GROUP_BYTES_MAX`], and one batch of about [`BATCH_BYTES`] or [`BATCH_ROWS`], or of fewer bytes
//! for whoever has many files open. Where a footer does not tell how long values are once they are decoded,
//! a batch has so few rows that they take no more than [`sizes::BATCH_BYTES_MOST`] whatever they are. A file
//! that is missing or damaged is an error that names it, never an empty one.

mod nested;
mod sizes;
mod stored;

use crate::table::{
    field_ids::{FieldAliases, FieldFinder},
    partition::FIELD_ID,
};
use arrow::{
    array::{
        Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Decimal128Array, Float32Array,
        Float64Array, Int32Array, Int64Array, StringArray, UInt32Array, new_null_array,
    },
    compute::{CastOptions, cast_with_options, is_null, nullif, take},
    datatypes::{DataType, Field, Schema as ArrowSchema, SchemaRef},
    error::ArrowError,
    record_batch::RecordBatch,
};
use futures::{Stream, StreamExt};
use iceberg::{
    arrow::type_to_arrow_type,
    spec::{Literal, NestedField, NestedFieldRef, PrimitiveLiteral, Schema, TableMetadata},
};
use icecore_catalog::{scan::manifests::PlannedFile, storage::Storage};
use parquet::{
    arrow::{
        ParquetRecordBatchStreamBuilder, ProjectionMask,
        arrow_reader::{ArrowReaderOptions, RowSelection},
    },
    errors::ParquetError,
    file::metadata::{PageIndexPolicy, ParquetMetaData, RowGroupMetaData},
};
use sizes::GroupBytes;
use std::sync::Arc;
use stored::StoredFile;

/// Most rows of a batch.
const BATCH_ROWS: usize = 8192;
/// About the most that the values of a batch take in memory, going by what a row takes on average.
pub(super) const BATCH_BYTES: usize = 16 << 20;
/// Most bytes of a row group in the columns that are read. Writers make row groups of 128 MiB in all
/// columns by default.
const ROW_GROUP_BYTES_MAX: u64 = 256 << 20;

/// Why a file's columns do not read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is missing or damaged.
    #[error("read `{location}`")]
    Parquet {
        /// Which file.
        location: String,
        /// Why it failed.
        source: ParquetError,
    },
    /// A column has values that are none of the table's column.
    #[error("use the columns of `{location}`")]
    Columns {
        /// Which file.
        location: String,
        /// Why it failed.
        source: ArrowError,
    },
    /// It cannot be read within the bounds, or not by this reader.
    #[error("`{location}` {reason}")]
    Refused {
        /// Which file.
        location: String,
        /// What is in the way, and what to do.
        reason: &'static str,
    },
}

impl FileError {
    /// Which file.
    #[must_use]
    pub fn location(&self) -> &str {
        match self {
            Self::Parquet { location, .. }
            | Self::Columns { location, .. }
            | Self::Refused { location, .. } => location,
        }
    }
}

/// The columns that are read, in this order.
#[derive(Clone, Debug)]
pub struct FileColumns {
    fields: Vec<NestedFieldRef>,
    schema: SchemaRef,
    /// Whether one of them is inside of a struct, or has no single values.
    is_nested: bool,
    aliases: Arc<FieldAliases>,
}

impl FileColumns {
    /// The table's columns with these field ids. One that was dropped is found in an older schema.
    ///
    /// # Errors
    /// What is wrong with an id: there is no such column, or it is not one with single values.
    pub fn of(table: &TableMetadata, ids: &[i32]) -> Result<Self, String> {
        let mut schemas: Vec<&Arc<Schema>> = table.schemas_iter().collect();
        schemas.sort_by_key(|schema| std::cmp::Reverse(schema.schema_id()));
        schemas.insert(0, table.current_schema());
        let mut fields = Vec::new();
        let mut is_nested = false;
        for id in ids {
            let found = schemas.iter().find_map(|schema| Some((schema, schema.field_by_id(*id)?)));
            let (schema, field) = found.ok_or_else(|| format!("it has no column with id {id}"))?;
            if !field.field_type.is_primitive() || schema.accessor_by_field_id(*id).is_none() {
                return Err(format!("its column `{}` has no single values", field.name));
            }
            is_nested |= schema.as_struct().field_by_id(*id).is_none();
            let current = table.current_schema();
            let is_dropped = current.field_by_id(*id).is_none();
            fields.push(match is_dropped && current.field_by_name(&field.name).is_some() {
                // In a file without ids the name is the current column's.
                true => Arc::new(NestedField {
                    name: format!("dropped_{id}"),
                    ..field.as_ref().clone()
                }),
                false => Arc::clone(field),
            });
        }
        let aliases = FieldAliases::of(table).map_err(|cause| cause.to_string())?;
        Self::new(fields, is_nested, aliases)
    }

    /// These columns, which files without ids have under their names.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn new(
        fields: Vec<NestedFieldRef>,
        is_nested: bool,
        aliases: FieldAliases,
    ) -> Result<Self, String> {
        let arrow = fields.iter().map(|field| {
            let kind = type_to_arrow_type(&field.field_type).map_err(|cause| cause.to_string())?;
            let metadata = [(FIELD_ID.to_owned(), field.id.to_string())];
            Ok(Field::new(&field.name, kind, true).with_metadata(metadata.into()))
        });
        let arrow = arrow.collect::<Result<Vec<_>, String>>()?;
        let schema = Arc::new(ArrowSchema::new(arrow));
        Ok(Self { fields, schema, is_nested, aliases: Arc::new(aliases) })
    }

    /// The columns as Arrow has them.
    #[must_use]
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Rows of a file with these columns.
    fn bind(&self, rows: &RecordBatch, has_ids: bool) -> Result<RecordBatch, ArrowError> {
        let of_file = rows.schema();
        let finder = FieldFinder { has_ids, aliases: &self.aliases };
        let columns = self.fields.iter().zip(self.schema.fields()).map(|(column, target)| {
            let target = target.data_type();
            match finder.path(of_file.fields(), column) {
                Some(path) => {
                    nested::bind(&value_at(rows, &path)?, &column.field_type, target, finder)
                }
                None => repeated(&default_of(column, target)?, rows.num_rows()),
            }
        });
        let columns = columns.collect::<Result<Vec<_>, ArrowError>>()?;
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
    }
}

/// A file whose footer is read.
pub struct OpenFile {
    location: String,
    columns: FileColumns,
    mask: ProjectionMask,
    batch_bytes: usize,
    builder: ParquetRecordBatchStreamBuilder<StoredFile>,
}

/// What the wanted columns of a file take, going by its footer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FileBytes {
    /// All of their values in memory, as far as the footer tells.
    pub(super) values: u64,
    /// The chunks of the largest row group, as they are stored and unpacked: about the most that is held
    /// of the file while it is read, beside a batch.
    pub(super) open: u64,
}

impl std::fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenFile").field("location", &self.location).finish_non_exhaustive()
    }
}

impl OpenFile {
    /// Reads the footer of a data or delete file.
    ///
    /// # Errors
    /// [`FileError`].
    pub async fn new(
        storage: &Storage,
        file: &PlannedFile,
        columns: &FileColumns,
    ) -> Result<Self, FileError> {
        Self::open(storage, file, columns, PageIndexPolicy::Skip).await
    }

    /// The same with the index of the pages, if there is one: where rows are selected, their pages alone are read.
    pub(super) async fn with_pages(
        storage: &Storage,
        file: &PlannedFile,
        columns: &FileColumns,
    ) -> Result<Self, FileError> {
        Self::open(storage, file, columns, PageIndexPolicy::Optional).await
    }

    async fn open(
        storage: &Storage,
        file: &PlannedFile,
        columns: &FileColumns,
        pages: PageIndexPolicy,
    ) -> Result<Self, FileError> {
        let location = file.location.clone();
        let reader = StoredFile::new(storage, &location, file.bytes);
        let options = ArrowReaderOptions::new().with_page_index_policy(pages);
        let opened = ParquetRecordBatchStreamBuilder::new_with_options(reader, options).await;
        let builder =
            opened.map_err(|source| FileError::Parquet { location: location.clone(), source })?;
        let finder = FieldFinder::of(builder.schema(), &columns.aliases);
        if columns.is_nested && !finder.has_ids {
            let reason = "has no field ids, so fields inside structs cannot be found in it; rewrite it with the engine that wrote it";
            return Err(FileError::Refused { location, reason });
        }
        let found = columns
            .fields
            .iter()
            .filter_map(|column| finder.path(builder.schema().fields(), column)?.first().copied());
        let mask = ProjectionMask::roots(builder.parquet_schema(), found.collect::<Vec<_>>());
        let (columns, batch_bytes) = (columns.clone(), BATCH_BYTES);
        Ok(Self { location, columns, mask, batch_bytes, builder })
    }

    /// With batches whose values take about so many bytes, where that is less than [`BATCH_BYTES`].
    #[must_use]
    pub(super) fn with_batches_of(self, bytes: usize) -> Self {
        Self { batch_bytes: bytes.min(BATCH_BYTES), ..self }
    }

    /// What the wanted columns take.
    #[must_use]
    pub(super) fn bytes(&self) -> FileBytes {
        let groups = self.footer().row_groups().iter();
        groups.fold(FileBytes::default(), |bytes, group| {
            let of_group = self.bytes_in(group);
            FileBytes {
                values: bytes.values.saturating_add(of_group.values),
                open: bytes.open.max(of_group.open()),
            }
        })
    }

    /// The chunks of the wanted columns in a row group, as they are stored and unpacked.
    #[must_use]
    pub(super) fn open_bytes(&self, group: usize) -> u64 {
        self.bytes_in(self.footer().row_group(group)).open()
    }

    /// The wanted columns of a row group.
    fn bytes_in(&self, group: &RowGroupMetaData) -> GroupBytes {
        GroupBytes::of(group, &self.mask, &self.columns.schema)
    }

    /// What the footer says.
    #[must_use]
    pub fn footer(&self) -> &Arc<ParquetMetaData> {
        self.builder.metadata()
    }

    /// The leaf column of the file that is this column of the table; none where it is inside of a
    /// struct or the file lacks it.
    #[must_use]
    pub fn leaf(&self, field_id: i32) -> Option<usize> {
        let column = self.columns.fields.iter().find(|column| column.id == field_id)?;
        let finder = FieldFinder::of(self.builder.schema(), &self.columns.aliases);
        let root = finder.find(self.builder.schema().fields(), column)?;
        let leaves = self.builder.parquet_schema();
        (0..leaves.num_columns()).find(|leaf| leaves.get_column_root_idx(*leaf) == root)
    }

    /// Whether the file has this column of the table, which may be inside of structs.
    #[must_use]
    pub(super) fn has_column(&self, column: &NestedField) -> bool {
        let finder = FieldFinder::of(self.builder.schema(), &self.columns.aliases);
        finder.path(self.builder.schema().fields(), column).is_some()
    }

    /// Fails where the file lacks a column, instead of giving it a default.
    ///
    /// # Errors
    /// [`FileError::Refused`].
    pub fn with_every_column(self) -> Result<Self, FileError> {
        let finder = FieldFinder::of(self.builder.schema(), &self.columns.aliases);
        let fields = self.builder.schema().fields();
        match self.columns.fields.iter().all(|column| finder.path(fields, column).is_some()) {
            true => Ok(self),
            false => {
                let reason = "lacks a required column";
                Err(FileError::Refused { location: self.location, reason })
            }
        }
    }

    /// All rows, in the file's order.
    ///
    /// # Errors
    /// [`FileError::Refused`] for a row group that is too large.
    pub fn rows(
        self,
    ) -> Result<impl Stream<Item = Result<RecordBatch, FileError>> + use<>, FileError> {
        let groups = (0..self.footer().num_row_groups()).collect();
        self.rows_of(groups, None)
    }

    /// The rows of these row groups, or those of them that are selected.
    ///
    /// # Errors
    /// As [`Self::rows`].
    pub fn rows_of(
        self,
        groups: Vec<usize>,
        selection: Option<RowSelection>,
    ) -> Result<impl Stream<Item = Result<RecordBatch, FileError>> + use<>, FileError> {
        let mut batch_rows = BATCH_ROWS;
        for group in &groups {
            let bytes = self.bytes_in(self.footer().row_group(*group));
            if ROW_GROUP_BYTES_MAX < bytes.stored {
                let reason = "has a row group of more than 256 MiB in the columns that are read; rewrite the table with smaller ones";
                return Err(FileError::Refused { location: self.location, reason });
            }
            batch_rows = batch_rows.min(bytes.batch_rows(self.batch_bytes));
        }
        let Self { location, columns, mask, builder, .. } = self;
        let FieldFinder { has_ids, .. } = FieldFinder::of(builder.schema(), &columns.aliases);
        let mut builder =
            builder.with_projection(mask).with_row_groups(groups).with_batch_size(batch_rows);
        if let Some(selection) = selection {
            builder = builder.with_row_selection(selection);
        }
        let rows = builder.build();
        let rows = match rows {
            Ok(rows) => rows,
            Err(source) => return Err(FileError::Parquet { location, source }),
        };
        Ok(rows.map(move |batch| {
            let location = || location.clone();
            let batch =
                batch.map_err(|source| FileError::Parquet { location: location(), source })?;
            columns
                .bind(&batch, has_ids)
                .map_err(|source| FileError::Columns { location: location(), source })
        }))
    }
}

/// The values at a path through structs: a field of no struct has none.
fn value_at(rows: &RecordBatch, path: &[usize]) -> Result<ArrayRef, ArrowError> {
    let mut value = Arc::clone(rows.column(path[0]));
    for at in &path[1..] {
        value = nullif(value.as_struct().column(*at), &is_null(&value)?)?;
    }
    Ok(value)
}

/// The values in another type. One that does not fit is an error, not a null.
///
/// # Errors
/// Arrow's.
pub fn cast(array: &ArrayRef, target: &DataType) -> Result<ArrayRef, ArrowError> {
    if array.data_type() == target {
        return Ok(Arc::clone(array));
    }
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(array, target, &strict)
}

/// The value of a column in rows of files that were written before it was there, as one row.
///
/// # Errors
/// The column's default has a type that has none here.
pub fn default_of(column: &NestedField, target: &DataType) -> Result<ArrayRef, ArrowError> {
    match &column.initial_default {
        None => Ok(new_null_array(target, 1)),
        Some(Literal::Primitive(value)) => one_value(value, target),
        Some(_) => {
            let text = format!("column `{}` has a default that is not read here", column.name);
            Err(ArrowError::NotYetImplemented(text))
        }
    }
}

/// A value of Iceberg's as one row of this type.
pub(super) fn one_value(
    value: &PrimitiveLiteral,
    target: &DataType,
) -> Result<ArrayRef, ArrowError> {
    let plain: ArrayRef = match value {
        PrimitiveLiteral::Boolean(value) => Arc::new(BooleanArray::from(vec![*value])),
        PrimitiveLiteral::Int(value) => Arc::new(Int32Array::from(vec![*value])),
        PrimitiveLiteral::Long(value) => Arc::new(Int64Array::from(vec![*value])),
        PrimitiveLiteral::Float(value) => Arc::new(Float32Array::from(vec![value.0])),
        PrimitiveLiteral::Double(value) => Arc::new(Float64Array::from(vec![value.0])),
        PrimitiveLiteral::String(value) => Arc::new(StringArray::from(vec![value.as_str()])),
        PrimitiveLiteral::Binary(value) => Arc::new(BinaryArray::from_vec(vec![value])),
        PrimitiveLiteral::UInt128(value) => {
            Arc::new(BinaryArray::from_vec(vec![&value.to_be_bytes()]))
        }
        PrimitiveLiteral::Int128(value) => {
            let plain = Decimal128Array::from(vec![*value]);
            match target {
                DataType::Decimal128(precision, scale) => {
                    Arc::new(plain.with_precision_and_scale(*precision, *scale)?)
                }
                _ => Arc::new(plain),
            }
        }
        PrimitiveLiteral::AboveMax | PrimitiveLiteral::BelowMin => {
            return Err(ArrowError::InvalidArgumentError("a bound is no value".to_owned()));
        }
    };
    cast(&plain, target)
}

fn repeated(value: &ArrayRef, rows: usize) -> Result<ArrayRef, ArrowError> {
    if value.null_count() == value.len() {
        return Ok(new_null_array(value.data_type(), rows));
    }
    take(value, &UInt32Array::from_value(0, rows), None)
}
