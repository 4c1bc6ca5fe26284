//! One Parquet file of the row groups of several, as they are stored.
//!
//! Pure: bytes and values, no IO. Pages with their checksums, dictionaries, statistics, page indexes and bloom
//! filters stay as they are. A column that a file leaves out, because it had no values, gets a chunk of nulls.
//! Its one invariant: a column is copied only where its description, field id included, is what this file has.

use crate::table::{
    encode::{
        DescribedFile, EncodedFile, ROW_GROUP_ROWS_MAX, column_stats, empty_file, plain, properties,
    },
    layout::{FileLayout, WriteError},
    pages::{ColumnSource, PagedFile, PlainFile},
    partition::{FIELD_ID, field_id},
    stats::ColumnStats,
};
use arrow::{
    array::new_null_array,
    datatypes::{Field, Schema as ArrowSchema, SchemaRef},
    record_batch::RecordBatch,
};
use bytes::Bytes;
use iceberg::{arrow::type_to_arrow_type, spec::Struct};
use parquet::{
    arrow::ArrowSchemaConverter,
    errors::ParquetError,
    file::metadata::{
        PageIndexPolicy, ParquetMetaData, ParquetMetaDataOptions, ParquetMetaDataReader,
    },
    schema::types::SchemaDescriptor,
};
use std::sync::Arc;

/// The columns that files are copied with: those of the layout that one of the files has.
#[derive(Debug)]
pub(in crate::table) struct CopiedColumns {
    /// All columns of the layout.
    schema: SchemaRef,
    leaves: SchemaDescriptor,
    /// Whether a file has it, of each.
    is_written: Vec<bool>,
}

impl CopiedColumns {
    /// The columns of a layout; no file has one yet.
    pub(in crate::table) fn of(layout: &FileLayout) -> Result<Self, WriteError> {
        let fields = layout.schema.as_struct().fields().iter().map(|field| {
            let kind = type_to_arrow_type(&field.field_type).map_err(WriteError::Describe)?;
            let metadata = [(FIELD_ID.to_owned(), field.id.to_string())];
            Ok(Field::new(&field.name, kind, !field.required).with_metadata(metadata.into()))
        });
        let fields = fields.collect::<Result<Vec<Field>, WriteError>>()?;
        let schema = Arc::new(ArrowSchema::new(fields));
        let leaves = ArrowSchemaConverter::new().convert(&schema).map_err(WriteError::Encode)?;
        let is_written = vec![false; leaves.num_columns()];
        Ok(Self { schema, leaves, is_written })
    }

    /// Takes the columns of a file, going by its footer; their field ids.
    ///
    /// # Errors
    /// Why its row groups cannot be copied.
    pub(in crate::table) fn add(
        &mut self,
        layout: &FileLayout,
        footer: &ParquetMetaData,
    ) -> Result<Vec<i32>, &'static str> {
        let found = self.found_in(footer)?;
        let mut ids = Vec::new();
        for (at, field) in layout.schema.as_struct().fields().iter().enumerate() {
            if found[at].is_some() {
                self.is_written[at] = true;
                ids.push(field.id);
            }
            if found[at].is_none() && (field.required || field.initial_default.is_some()) {
                return Err("a file lacks a column whose values are to be filled in");
            }
        }
        for group in footer.row_groups() {
            if usize::try_from(group.num_rows()).is_ok_and(|rows| ROW_GROUP_ROWS_MAX < rows) {
                return Err("a row group has more rows than a file of the service has");
            }
            // A file with an index for some columns alone counts as one without.
            if group.columns().iter().any(|chunk| chunk.offset_index_offset().is_none()) {
                return Err("a file has no index of its pages");
            }
        }
        Ok(ids)
    }

    /// By column of the layout, which leaf of a file it is.
    fn found_in(&self, footer: &ParquetMetaData) -> Result<Vec<Option<usize>>, &'static str> {
        let mut found = vec![None; self.leaves.num_columns()];
        for (leaf, column) in footer.file_metadata().schema_descr().columns().iter().enumerate() {
            let mut known = self.leaves.columns().iter();
            let Some(at) = known.position(|known| known.as_ref() == column.as_ref()) else {
                return Err("a column has another name, type or description in a file");
            };
            found[at] = Some(leaf);
        }
        Ok(found)
    }
}

/// A file that row groups are copied to.
#[derive(Debug)]
pub(in crate::table) struct CopiedFile {
    layout: Arc<FileLayout>,
    location: String,
    values: Struct,
    columns: CopiedColumns,
    /// The columns that are written.
    schema: SchemaRef,
    /// Of all columns of the layout.
    stats: Vec<ColumnStats>,
    sorted: bool,
    file: PagedFile,
}

impl CopiedFile {
    /// A file without rows, for row groups of files of one partition. The statistics are those of all rows
    /// that will come, of each column of the layout.
    pub(in crate::table) fn new(
        layout: Arc<FileLayout>,
        location: String,
        values: Struct,
        columns: CopiedColumns,
        stats: Vec<ColumnStats>,
    ) -> Result<Self, WriteError> {
        assert_eq!(stats.len(), columns.is_written.len(), "each column has statistics");
        let written: Vec<usize> =
            (0..columns.is_written.len()).filter(|at| columns.is_written[*at]).collect();
        let schema = Arc::new(columns.schema.project(&written).map_err(WriteError::Split)?);
        let (file, sorted) = empty_file(&layout, &schema)?;
        Ok(Self { layout, location, values, columns, schema, stats, sorted, file })
    }

    /// Whether the rows are to come in the table's order.
    pub(in crate::table) fn is_sorted(&self) -> bool {
        self.sorted
    }

    /// Adds the row groups of a file that comes next in order.
    pub(in crate::table) fn add(&mut self, stored: Bytes) -> Result<(), WriteError> {
        // As a mask the statistics of encodings would not be written again.
        let options = ParquetMetaDataOptions::new().with_encoding_stats_as_mask(false);
        let footer = ParquetMetaDataReader::new()
            .with_page_index_policy(PageIndexPolicy::Optional)
            .with_metadata_options(Some(options))
            .parse_and_finish(&stored)
            .map_err(WriteError::Encode)?;
        let changed =
            |reason: &'static str| WriteError::Encode(ParquetError::General(reason.to_owned()));
        let found = self.columns.found_in(&footer).map_err(changed)?;
        let (mut sources, mut missing) = (Vec::new(), Vec::new());
        let written = (0..found.len()).filter(|at| self.columns.is_written[*at]);
        for (place, at) in written.enumerate() {
            sources.push(match found[at] {
                Some(leaf) => ColumnSource::Stored(leaf),
                None => {
                    missing.push(place);
                    ColumnSource::Null(missing.len() - 1)
                }
            });
        }
        let stored = (stored, footer);
        for group in 0..stored.1.num_row_groups() {
            let rows = usize::try_from(stored.1.row_group(group).num_rows()).unwrap_or(0);
            let nulls = self.nulls(&missing, rows)?;
            let copied = self.file.copy(&stored, group, &sources, nulls.as_ref());
            copied.map_err(WriteError::Encode)?;
        }
        Ok(())
    }

    /// A row group of these columns without values; none where there are no such columns.
    fn nulls(&self, missing: &[usize], rows: usize) -> Result<Option<PlainFile>, WriteError> {
        if missing.is_empty() {
            return Ok(None);
        }
        let schema = Arc::new(self.schema.project(missing).map_err(WriteError::Split)?);
        let columns =
            schema.fields().iter().map(|field| new_null_array(field.data_type(), rows)).collect();
        let nulls = RecordBatch::try_new(schema, columns).map_err(WriteError::Split)?;
        let stats = column_stats(&nulls);
        let of_nulls: Vec<&ColumnStats> = stats.iter().collect();
        let properties = properties(&self.layout, &nulls, &of_nulls, false, false);
        let properties = Arc::new(properties.map_err(WriteError::Split)?);
        plain(&nulls, &properties).map(Some).map_err(WriteError::Encode)
    }

    /// The whole file.
    pub(in crate::table) fn finish(self) -> Result<EncodedFile, WriteError> {
        let Self { layout, location, values, columns, schema, stats, sorted, file } = self;
        let file = file.finish().map_err(WriteError::Encode)?;
        let ids_of = |schema: &SchemaRef| -> Vec<i32> {
            schema.fields().iter().filter_map(|field| field_id(field)).collect()
        };
        let (ids, written_ids) = (ids_of(&columns.schema), ids_of(&schema));
        DescribedFile { location, values, sorted, ids: &ids, stats: &stats, written_ids }
            .encoded(&layout, file)
    }
}
