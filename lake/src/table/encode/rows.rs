//! A Parquet file of another engine's table, from rows in the order in which they come.
//!
//! Pure: bytes and values, no IO. Columns may be of any type, and all of them are written, with their field ids
//! at each depth. What the table's properties ask of Parquet files and of metrics is done as far as it can
//! be: a codec that is not built in becomes zstd. Its one invariant: the partition is what its caller gives;
//! nothing is computed from the rows but counts and bounds.

use crate::table::{
    encode::{EncodedFile, row_group_offset},
    layout::WriteError,
    schema::BLOOM_FILTER,
    stats::{
        ColumnStats,
        foreign::{self, MetricsMode},
    },
};
use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
use bytes::Bytes;
use iceberg::{
    Error, ErrorKind,
    spec::{
        DataContentType, DataFileBuilder, DataFileFormat, Datum, PrimitiveType, Struct,
        TableMetadata,
    },
};
use icecore_catalog::retention;
use parquet::{
    arrow::{ArrowWriter, arrow_writer::ArrowWriterOptions},
    basic::{Compression, GzipLevel, ZstdLevel},
    file::{metadata::ParquetMetaData, properties::WriterProperties},
    schema::types::ColumnPath,
};
use std::{collections::HashMap, mem, sync::Arc};

/// Rows of a row group at most.
const GROUP_ROWS_MAX: usize = 1 << 20;
/// A row group ends once what is held of it takes so much memory.
const GROUP_BYTES_MAX: usize = 64 << 20;
/// Rows of a data page of a collection's table: a look-up of a document reads one page of each column.
const DOCUMENT_PAGE_ROWS: usize = 2_048;
/// Columns of such a table whose values differ from row to row: each look-up would read all of a dictionary of them.
const DISTINCT_COLUMNS: [&str; 5] = ["key", "doc", "bookmark", "seq", "event_id"];
/// The property that names the codec.
const CODEC: &str = "write.parquet.compression-codec";

/// A column of which the manifest tells something.
#[derive(Clone, Debug)]
pub(in crate::table) struct MeasuredColumn {
    /// Its place among the columns of a row.
    pub(in crate::table) at: usize,
    /// Its field id.
    pub(in crate::table) id: i32,
    /// The type of its values.
    pub(in crate::table) kind: PrimitiveType,
    /// What is told.
    pub(in crate::table) mode: MetricsMode,
}

/// What files of one partition have in common.
#[derive(Clone, Debug)]
pub(in crate::table) struct RowsLayout {
    /// The columns, each with its field id.
    pub(in crate::table) schema: SchemaRef,
    /// Those of which the manifest tells.
    pub(in crate::table) measured: Vec<MeasuredColumn>,
    /// How they are written.
    pub(in crate::table) properties: WriterProperties,
    /// The id of their partition spec.
    pub(in crate::table) spec_id: i32,
    /// Their partition.
    pub(in crate::table) partition: Struct,
    /// How their rows are known to be sorted.
    pub(in crate::table) sort_order_id: Option<i32>,
}

/// How a table wants its Parquet files with these columns.
pub(in crate::table) fn properties(table: &TableMetadata, schema: &SchemaRef) -> WriterProperties {
    let mut builder = WriterProperties::builder()
        .set_compression(compression(table))
        .set_max_row_group_row_count(Some(GROUP_ROWS_MAX));
    for field in schema.fields() {
        let asked = table.properties().get(&format!("{BLOOM_FILTER}{}", field.name()));
        if asked.is_some_and(|text| text.eq_ignore_ascii_case("true"))
            && !field.data_type().is_nested()
        {
            let path = ColumnPath::from(vec![field.name().clone()]);
            builder = builder.set_column_bloom_filter_enabled(path, true);
        }
    }
    if retention::collection_of(table).is_some() {
        builder = builder.set_data_page_row_count_limit(DOCUMENT_PAGE_ROWS);
        for name in DISTINCT_COLUMNS {
            let path = ColumnPath::from(vec![name.to_owned()]);
            builder = builder.set_column_dictionary_enabled(path, false);
        }
    }
    builder.build()
}

fn compression(table: &TableMetadata) -> Compression {
    let codec = table.properties().get(CODEC).map(|text| text.to_ascii_lowercase());
    match codec.as_deref() {
        Some("snappy") => Compression::SNAPPY,
        Some("gzip") => Compression::GZIP(GzipLevel::default()),
        Some("uncompressed" | "none") => Compression::UNCOMPRESSED,
        Some("lz4_raw") => Compression::LZ4_RAW,
        _ => Compression::ZSTD(ZstdLevel::default()),
    }
}

/// A file that rows are added to.
#[derive(Debug)]
pub(in crate::table) struct RowsFile {
    layout: Arc<RowsLayout>,
    location: String,
    writer: ArrowWriter<Vec<u8>>,
    /// Of each measured column, once there are rows.
    stats: Vec<Option<ColumnStats>>,
    rows: u64,
}

impl RowsFile {
    /// A file without rows.
    pub(in crate::table) fn new(
        layout: Arc<RowsLayout>,
        location: String,
    ) -> Result<Self, WriteError> {
        // Field ids and Parquet's own types say all of the columns.
        let options = ArrowWriterOptions::new()
            .with_properties(layout.properties.clone())
            .with_skip_arrow_metadata(true);
        let schema = Arc::clone(&layout.schema);
        let writer = ArrowWriter::try_new_with_options(Vec::new(), schema, options);
        let writer = writer.map_err(WriteError::Encode)?;
        let stats = vec![None; layout.measured.len()];
        Ok(Self { layout, location, writer, stats, rows: 0 })
    }

    /// Adds the rows that come next. A row that lacks a required value is an error.
    pub(in crate::table) fn add(&mut self, rows: &RecordBatch) -> Result<(), WriteError> {
        let rows = RecordBatch::try_new(Arc::clone(&self.layout.schema), rows.columns().to_vec());
        let rows = rows.map_err(WriteError::Split)?;
        for (all, measured) in self.stats.iter_mut().zip(&self.layout.measured) {
            let column = rows.column(measured.at);
            let added = foreign::of_column(column.as_ref(), &measured.kind, measured.mode);
            *all = Some(all.as_ref().map_or_else(|| added.clone(), |before| before.and(&added)));
        }
        self.writer.write(&rows).map_err(WriteError::Encode)?;
        self.rows += rows.num_rows() as u64;
        if GROUP_BYTES_MAX <= self.writer.memory_size() {
            self.writer.flush().map_err(WriteError::Encode)?;
        }
        Ok(())
    }

    /// About how long it is so far.
    pub(in crate::table) fn bytes(&self) -> usize {
        self.writer.bytes_written() + self.writer.in_progress_size()
    }

    /// The whole file.
    pub(in crate::table) fn finish(self) -> Result<EncodedFile, WriteError> {
        let Self { layout, location, mut writer, stats, rows } = self;
        let metadata = writer.finish().map_err(WriteError::Encode)?;
        let bytes = Bytes::from(mem::take(writer.inner_mut()));
        let told: Vec<(i32, ColumnStats)> = layout
            .measured
            .iter()
            .zip(stats)
            .filter_map(|(measured, stats)| Some((measured.id, stats?)))
            .collect();
        let mut file = DataFileBuilder::default();
        file.content(DataContentType::Data)
            .file_path(location)
            .file_format(DataFileFormat::Parquet)
            .partition(layout.partition.clone())
            .partition_spec_id(layout.spec_id)
            .record_count(rows)
            .file_size_in_bytes(bytes.len() as u64)
            .column_sizes(column_sizes(&metadata))
            .value_counts(by_id(&told, |stats| Some(stats.values)))
            .null_value_counts(by_id(&told, |stats| Some(stats.nulls)))
            .nan_value_counts(by_id(&told, |stats| stats.nans))
            .lower_bounds(by_id::<Datum>(&told, |stats| stats.lower.clone()))
            .upper_bounds(by_id::<Datum>(&told, |stats| stats.upper.clone()))
            .split_offsets(Some(metadata.row_groups().iter().map(row_group_offset).collect()));
        if let Some(order) = layout.sort_order_id {
            file.sort_order_id(order);
        }
        let file = file.build().map_err(|error| {
            WriteError::Describe(Error::new(ErrorKind::DataInvalid, error.to_string()))
        })?;
        Ok(EncodedFile { bytes, file })
    }
}

fn by_id<T>(
    told: &[(i32, ColumnStats)],
    value: impl Fn(&ColumnStats) -> Option<T>,
) -> HashMap<i32, T> {
    told.iter().filter_map(|(id, stats)| Some((*id, value(stats)?))).collect()
}

/// What leaf columns take, by field id.
fn column_sizes(metadata: &ParquetMetaData) -> HashMap<i32, u64> {
    let mut sizes: HashMap<i32, u64> = HashMap::new();
    for column in metadata.row_groups().iter().flat_map(|group| group.columns()) {
        let leaf = column.column_descr().self_type().get_basic_info();
        if leaf.has_id() {
            let bytes = u64::try_from(column.compressed_size()).unwrap_or(0);
            *sizes.entry(leaf.id()).or_default() += bytes;
        }
    }
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{documents, lake::TestLake};
    use arrow::datatypes::Schema;
    use parquet::file::properties::DEFAULT_DATA_PAGE_ROW_COUNT_LIMIT;

    #[test]
    fn tables_of_documents_have_short_pages_and_no_dictionary_of_what_differs() {
        let create = documents::create("orders");
        let orders = icecore_samples::metadata(create, "file:///warehouse/table/");
        let plain = TestLake::of_people(false).metadata;
        let schema = Arc::new(Schema::empty());
        let path = |name: &str| ColumnPath::from(vec![name.to_owned()]);
        for (table, rows, has_dictionary) in
            [(orders, DOCUMENT_PAGE_ROWS, false), (plain, DEFAULT_DATA_PAGE_ROW_COUNT_LIMIT, true)]
        {
            let properties = properties(&table, &schema);
            assert_eq!(properties.data_page_row_count_limit(), rows);
            assert_eq!(properties.dictionary_enabled(&path("key")), has_dictionary);
            assert!(properties.dictionary_enabled(&path("op")));
        }
    }
}
