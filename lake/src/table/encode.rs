//! One partition's rows as one Parquet file and its description for the manifest.
//!
//! Pure: bytes and values, no IO. What depends on the rows (dictionaries, page statistics,
//! bloom filters) is chosen per column and file, because a commit makes a file per
//! type and day. Most of their columns are empty: those are described in the manifest but not
//! written, and every reader of Iceberg takes a column that a file lacks as null.

pub(super) mod copied;
pub(super) mod rows;

use crate::table::{
    layout::{FileLayout, WriteError},
    pages::{PagedFile, PlainFile},
    partition::{field_id, sort_keys},
    schema::{BLOOM_FILTERS, UNBOUNDED},
    stats::{self, ColumnStats},
};
use arrow::{
    array::{Array, ArrayRef, UInt64Array},
    compute::take,
    datatypes::{DataType, SchemaRef},
    error::ArrowError,
    record_batch::RecordBatch,
    row::{RowConverter, SortField},
};
use bytes::Bytes;
use iceberg::{
    Error, ErrorKind,
    spec::{DataContentType, DataFile, DataFileBuilder, DataFileFormat, Datum, Struct},
};
use parquet::{
    arrow::{ArrowSchemaConverter, ArrowWriter, arrow_writer::ArrowWriterOptions},
    basic::{Compression, Encoding},
    errors::ParquetError,
    file::{
        metadata::{ParquetMetaData, RowGroupMetaData, SortingColumn},
        properties::{
            EnabledStatistics, WriterProperties, WriterPropertiesBuilder, WriterPropertiesPtr,
        },
    },
    schema::types::ColumnPath,
};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// Rows of a data page: the grain at which a reader can skip within a row group.
const PAGE_ROWS_MAX: usize = 10_240;
/// Rows of a row group: the grain of parallel reading.
pub(super) const ROW_GROUP_ROWS_MAX: usize = 131_072;
/// Share of look-ups of an absent value that a bloom filter lets through.
const BLOOM_FALSE_POSITIVES: f64 = 0.01;
/// Rows of a column that are looked at to see whether its values repeat.
const SAMPLE_ROWS: usize = 512;
/// How often a value has to occur among them for a dictionary to be smaller than what compression
/// makes of the values as they are.
const REPEATS_MIN: usize = 4;
/// Below this size a column chunk has one page, and an index of its pages says nothing.
const PAGE_BYTES_MAX: usize = 1 << 20;
/// Bytes of a page in a file with an index of its pages, before compression: who needs one row of a wide column
/// decompresses as much.
const INDEXED_PAGE_BYTES_MAX: usize = 128 << 10;

/// Numbers that mostly count up from row to row.
const DELTA: &[&str] = &["ts", "seq", "lsn", "received_at"];

/// A file that is not stored yet.
#[derive(Debug)]
pub(super) struct EncodedFile {
    /// Its contents.
    pub bytes: Bytes,
    /// What the manifest says about it.
    pub file: DataFile,
}

/// Encodes the rows of one partition, already in order; `sorted` says whether that is the table's.
pub(super) fn encode(
    layout: &FileLayout,
    location: String,
    rows: &RecordBatch,
    values: Struct,
    sorted: bool,
) -> Result<EncodedFile, WriteError> {
    let fields = rows.schema_ref().fields();
    let stats = column_stats(rows);
    let ids: Vec<i32> = fields.iter().filter_map(|field| field_id(field)).collect();
    assert_eq!(ids.len(), stats.len(), "every aligned column has a field id");
    let written: Vec<usize> = (0..stats.len())
        .filter(|at| !fields[*at].is_nullable() || stats[*at].nulls < stats[*at].values)
        .collect();
    let written_ids: Vec<i32> = written.iter().map(|at| ids[*at]).collect();
    let written_stats: Vec<&ColumnStats> = written.iter().map(|at| &stats[*at]).collect();
    let written = rows.project(&written).map_err(WriteError::Split)?;
    let one_page = is_one_page(&written);
    let properties = properties(layout, &written, &written_stats, sorted, one_page)
        .map_err(WriteError::Split)?;
    let file = parquet(&written, properties).map_err(WriteError::Encode)?;
    let described =
        DescribedFile { location, values, sorted, ids: &ids, stats: &stats, written_ids };
    described.encoded(layout, file)
}

fn column_stats(rows: &RecordBatch) -> Vec<ColumnStats> {
    let fields = rows.schema_ref().fields().iter().zip(rows.columns());
    let is_bounded = |name: &str| !UNBOUNDED.contains(&name);
    fields
        .map(|(field, column)| stats::of_column(column.as_ref(), is_bounded(field.name())))
        .collect()
}

/// A file that is encoded a row group at a time. It has all columns but those of which its caller knows that
/// none of its rows will have a value.
#[derive(Debug)]
pub(super) struct GroupedFile {
    layout: Arc<FileLayout>,
    location: String,
    values: Struct,
    ids: Vec<i32>,
    /// Which columns are in the file.
    written: Vec<usize>,
    stats: Vec<ColumnStats>,
    sorted: bool,
    file: PagedFile,
}

impl GroupedFile {
    /// A file without rows, for rows with these columns of one partition. Those of `empty` will have no
    /// values, and are left out unless they are required.
    pub(super) fn new(
        layout: Arc<FileLayout>,
        location: String,
        values: Struct,
        schema: &SchemaRef,
        empty: &HashSet<i32>,
    ) -> Result<Self, WriteError> {
        let stats = column_stats(&RecordBatch::new_empty(Arc::clone(schema)));
        let ids: Vec<i32> = schema.fields().iter().filter_map(|field| field_id(field)).collect();
        assert_eq!(ids.len(), schema.fields().len(), "every aligned column has a field id");
        let is_written =
            |at: &usize| !schema.field(*at).is_nullable() || !empty.contains(&ids[*at]);
        let mut written: Vec<usize> = (0..ids.len()).filter(is_written).collect();
        if written.is_empty() {
            // A file without columns has no rows.
            written.extend(0..ids.len());
        }
        let of_file = Arc::new(schema.project(&written).map_err(WriteError::Split)?);
        let (file, sorted) = empty_file(&layout, &of_file)?;
        Ok(Self { layout, location, values, ids, written, stats, sorted, file })
    }

    /// Adds rows that come next in order, as one row group; how long that is without compression.
    pub(super) fn add(&mut self, rows: &RecordBatch) -> Result<usize, WriteError> {
        let stats = column_stats(rows);
        let has_values = |at: usize| stats[at].nulls < stats[at].values;
        if let Some(at) = (0..stats.len()).find(|at| has_values(*at) && !self.written.contains(at))
        {
            let name = rows.schema_ref().field(at).name();
            let text = format!("column `{name}` has values, and its file was begun without it");
            return Err(WriteError::Split(ArrowError::InvalidArgumentError(text)));
        }
        let of_rows: Vec<&ColumnStats> = self.written.iter().map(|at| &stats[*at]).collect();
        let written = rows.project(&self.written).map_err(WriteError::Split)?;
        let properties = properties(&self.layout, &written, &of_rows, self.sorted, false);
        let properties = Arc::new(properties.map_err(WriteError::Split)?);
        let plain = plain(&written, &properties).map_err(WriteError::Encode)?;
        self.file.append(&plain).map_err(WriteError::Encode)?;
        for (all, added) in self.stats.iter_mut().zip(&stats) {
            *all = all.and(added);
        }
        Ok(plain.0.len())
    }

    /// How long it is so far.
    pub(super) fn bytes(&self) -> usize {
        self.file.bytes()
    }

    /// The whole file.
    pub(super) fn finish(self) -> Result<EncodedFile, WriteError> {
        let Self { layout, location, values, ids, written, stats, sorted, file } = self;
        let file = file.finish().map_err(WriteError::Encode)?;
        let written_ids = written.iter().map(|at| ids[*at]).collect();
        let (ids, stats) = (&ids, &stats);
        DescribedFile { location, values, sorted, ids, stats, written_ids }.encoded(&layout, file)
    }
}

/// A file without rows that will have these columns; whether its rows will be in the table's order.
fn empty_file(layout: &FileLayout, schema: &SchemaRef) -> Result<(PagedFile, bool), WriteError> {
    let none = RecordBatch::new_empty(Arc::clone(schema));
    let sorted = sort_keys(layout, &none).is_some();
    let stats = column_stats(&none);
    let of_none: Vec<&ColumnStats> = stats.iter().collect();
    let properties = properties(layout, &none, &of_none, sorted, false);
    let properties = Arc::new(properties.map_err(WriteError::Split)?);
    let parquet = ArrowSchemaConverter::new().convert(schema).map_err(WriteError::Encode)?;
    let file = PagedFile::new(parquet.root_schema_ptr(), properties);
    Ok((file.map_err(WriteError::Encode)?, sorted))
}

/// What a manifest says of a file beside what its footer does.
struct DescribedFile<'a> {
    location: String,
    values: Struct,
    sorted: bool,
    ids: &'a [i32],
    stats: &'a [ColumnStats],
    /// Ids of the columns that are in the file.
    written_ids: Vec<i32>,
}

impl DescribedFile<'_> {
    fn encoded(
        self,
        layout: &FileLayout,
        (bytes, metadata): PlainFile,
    ) -> Result<EncodedFile, WriteError> {
        let Self { location, values, sorted, ids, stats, written_ids } = self;
        let rows = stats.first().map_or(0, |stats| stats.values);
        let mut file = DataFileBuilder::default();
        file.content(DataContentType::Data)
            .file_path(location)
            .file_format(DataFileFormat::Parquet)
            .partition(values)
            .partition_spec_id(layout.spec.spec_id())
            .record_count(rows)
            .file_size_in_bytes(bytes.len() as u64)
            .column_sizes(column_sizes(&written_ids, &metadata))
            .value_counts(by_id(ids, stats, |stats| Some(stats.values)))
            .null_value_counts(by_id(ids, stats, |stats| Some(stats.nulls)))
            .nan_value_counts(by_id(ids, stats, |stats| stats.nans))
            .lower_bounds(by_id::<Datum>(ids, stats, |stats| stats.lower.clone()))
            .upper_bounds(by_id::<Datum>(ids, stats, |stats| stats.upper.clone()))
            .split_offsets(Some(metadata.row_groups().iter().map(row_group_offset).collect()));
        if sorted && let Ok(order) = i32::try_from(layout.sort_order.order_id) {
            file.sort_order_id(order);
        }
        let file = file.build().map_err(|error| {
            WriteError::Describe(Error::new(ErrorKind::DataInvalid, error.to_string()))
        })?;
        Ok(EncodedFile { bytes, file })
    }
}

fn parquet(rows: &RecordBatch, properties: WriterProperties) -> Result<PlainFile, ParquetError> {
    let schema = ArrowSchemaConverter::new().convert(&rows.schema())?.root_schema_ptr();
    let properties = Arc::new(properties);
    let mut file = PagedFile::new(schema, Arc::clone(&properties))?;
    for from in (0..rows.num_rows()).step_by(ROW_GROUP_ROWS_MAX) {
        let count = ROW_GROUP_ROWS_MAX.min(rows.num_rows() - from);
        file.append(&plain(&rows.slice(from, count), &properties)?)?;
    }
    file.finish()
}

/// A file of one row group, without compression.
fn plain(rows: &RecordBatch, properties: &WriterPropertiesPtr) -> Result<PlainFile, ParquetError> {
    // The Arrow schema would add more bytes to a small file than its rows do; the field ids and
    // Parquet's own types say all of it.
    let options = ArrowWriterOptions::new()
        .with_properties(properties.as_ref().clone())
        .with_skip_arrow_metadata(true);
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new_with_options(&mut bytes, rows.schema(), options)?;
    writer.write(rows)?;
    let metadata = writer.close()?;
    Ok((Bytes::from(bytes), metadata))
}

fn properties(
    layout: &FileLayout,
    rows: &RecordBatch,
    stats: &[&ColumnStats],
    sorted: bool,
    one_page: bool,
) -> Result<WriterProperties, ArrowError> {
    let columns = rows.columns();
    let page_bytes_max = if one_page { PAGE_BYTES_MAX } else { INDEXED_PAGE_BYTES_MAX };
    let mut builder = WriterProperties::builder()
        .set_compression(Compression::UNCOMPRESSED)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_data_page_row_count_limit(PAGE_ROWS_MAX)
        .set_data_page_size_limit(page_bytes_max)
        .set_offset_index_disabled(one_page)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS_MAX))
        .set_sorting_columns(sorted.then(|| sorting_columns(layout, rows)));
    for ((field, column), stats) in rows.schema_ref().fields().iter().zip(columns).zip(stats) {
        builder = column_properties(builder, field.name(), column, stats)?;
    }
    Ok(builder.build())
}

fn is_one_page(rows: &RecordBatch) -> bool {
    rows.num_rows() <= PAGE_ROWS_MAX
        && rows.columns().iter().all(|column| slice_bytes(column.as_ref()) < PAGE_BYTES_MAX)
}

fn column_properties(
    builder: WriterPropertiesBuilder,
    name: &str,
    column: &ArrayRef,
    stats: &ColumnStats,
) -> Result<WriterPropertiesBuilder, ArrowError> {
    let path = || ColumnPath::from(vec![name.to_owned()]);
    let rows = column.len();
    let delta = DELTA.contains(&name);
    let dictionary = !delta && repeats(column)?;
    let mut builder = builder.set_column_dictionary_enabled(path(), dictionary);
    if delta {
        builder = builder.set_column_encoding(path(), Encoding::DELTA_BINARY_PACKED);
    }
    // With one page the statistics of the chunk say the same.
    let statistics = match stats.lower {
        None => EnabledStatistics::None,
        Some(_) if PAGE_ROWS_MAX < rows => EnabledStatistics::Page,
        Some(_) => EnabledStatistics::Chunk,
    };
    builder = builder.set_column_statistics_enabled(path(), statistics);
    if BLOOM_FILTERS.contains(&name) {
        let distinct = (stats.values - stats.nulls).min(ROW_GROUP_ROWS_MAX as u64);
        builder = builder
            .set_column_bloom_filter_fpp(path(), BLOOM_FALSE_POSITIVES)
            .set_column_bloom_filter_ndv(path(), distinct);
    }
    Ok(builder)
}

/// Whether each value occurs [`REPEATS_MIN`] times, going by rows spread over the column. Booleans
/// are bits already.
fn repeats(column: &ArrayRef) -> Result<bool, ArrowError> {
    if column.data_type() == &DataType::Boolean {
        return Ok(false);
    }
    let rows = column.len();
    let sample = if rows <= SAMPLE_ROWS {
        ArrayRef::clone(column)
    } else {
        let spread = (0..SAMPLE_ROWS).map(|at| (at * rows / SAMPLE_ROWS) as u64);
        take(column, &UInt64Array::from_iter_values(spread), None)?
    };
    let values = sample.len() - sample.null_count();
    let converter = RowConverter::new(vec![SortField::new(sample.data_type().clone())])?;
    let has_null = usize::from(values < sample.len());
    let rows = converter.convert_columns(&[sample])?;
    let distinct = rows.iter().collect::<HashSet<_>>().len() - has_null;
    Ok(distinct * REPEATS_MIN <= values)
}

/// Bytes of a column's values; a type whose size cannot be told counts as large.
fn slice_bytes(column: &dyn Array) -> usize {
    column.to_data().get_slice_memory_size().unwrap_or(usize::MAX)
}

fn sorting_columns(layout: &FileLayout, rows: &RecordBatch) -> Vec<SortingColumn> {
    let fields = rows.schema_ref().fields();
    layout
        .sort_order
        .fields
        .iter()
        .filter_map(|sort| {
            let index = fields.iter().position(|field| field_id(field) == Some(sort.source_id))?;
            Some(SortingColumn {
                column_idx: i32::try_from(index).ok()?,
                descending: sort.direction == iceberg::spec::SortDirection::Descending,
                nulls_first: sort.null_order == iceberg::spec::NullOrder::First,
            })
        })
        .collect()
}

fn by_id<T>(
    ids: &[i32],
    stats: &[ColumnStats],
    value: impl Fn(&ColumnStats) -> Option<T>,
) -> HashMap<i32, T> {
    ids.iter().zip(stats).filter_map(|(id, stats)| Some((*id, value(stats)?))).collect()
}

fn column_sizes(ids: &[i32], metadata: &ParquetMetaData) -> HashMap<i32, u64> {
    let mut sizes: HashMap<i32, u64> = HashMap::new();
    for group in metadata.row_groups() {
        for (id, column) in ids.iter().zip(group.columns()) {
            *sizes.entry(*id).or_default() += u64::try_from(column.compressed_size()).unwrap_or(0);
        }
    }
    sizes
}

fn row_group_offset(group: &RowGroupMetaData) -> i64 {
    let first = group.column(0);
    first
        .dictionary_page_offset()
        .map_or(first.data_page_offset(), |offset| offset.min(first.data_page_offset()))
}
