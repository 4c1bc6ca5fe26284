//! Splits rows into partitions and sorts each of them, in one pass over row keys.
//!
//! Knows the transforms that our own tables use, buckets of text among them; what another engine may have made of a partition
//! spec beyond them is refused, because a wrong partition value hides rows from every reader.

use crate::table::layout::{FileLayout, WriteError};
use arrow::{
    array::{Array, ArrayRef, AsArray, Int32Array, UInt32Array, make_array},
    compute::take,
    datatypes::{DataType, Field, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType},
    error::ArrowError,
    record_batch::RecordBatch,
};
use iceberg::{
    Error, ErrorKind,
    spec::{Literal, PrimitiveType, SortDirection, Struct, TableMetadata, Transform},
    transform::create_transform_function,
};
use std::{collections::HashMap, hash::Hash, ops::Range};

/// The key of a field's Iceberg id in Arrow's metadata.
pub const FIELD_ID: &str = "PARQUET:field_id";

/// Rows in memory take about this many times what they take as zstd Parquet.
const MEMORY_BYTES_PER_FILE_BYTE: usize = 4;

/// Most files of one partition in one commit; they become longer instead.
const FILES_MAX: usize = 64;

const DAY_US: i64 = 86_400_000_000;

/// Rows in the order of their files.
#[derive(Debug)]
pub struct PartitionSplit {
    /// All rows, partition after partition.
    pub rows: RecordBatch,
    /// The partitions.
    pub parts: Vec<PartitionRows>,
    /// Whether each partition is in the table's sort order.
    pub sorted: bool,
}

/// The rows of one partition.
#[derive(Clone, Debug, PartialEq)]
pub struct PartitionRows {
    /// Its rows in [`PartitionSplit::rows`].
    pub rows: Range<usize>,
    /// Its partition values, in the order of the spec's fields.
    pub values: Struct,
}

impl PartitionRows {
    /// The same rows as parts of about `bytes_max` bytes in memory each, at least a row and at most
    /// [`FILES_MAX`] parts.
    fn cut(self, rows: &RecordBatch, bytes_max: usize) -> Vec<Self> {
        let count = self.rows.len();
        let size = |column: &ArrayRef| {
            let data = column.slice(self.rows.start, count).to_data();
            data.get_slice_memory_size().unwrap_or_default()
        };
        let bytes: usize = rows.columns().iter().map(size).sum();
        let files = bytes.div_ceil(bytes_max.max(1)).clamp(1, count.clamp(1, FILES_MAX));
        let start = |file: usize| self.rows.start + file * count / files;
        let range = |file| start(file)..start(file + 1);
        (0..files).map(|file| Self { rows: range(file), values: self.values.clone() }).collect()
    }
}

/// A row's place in the split: partition, sort keys, and the row itself, which keeps the order of
/// equals.
type RowKey = (u32, i64, i64, u32);

/// Brings `rows` into partition and sort order.
///
/// # Errors
/// [`WriteError::Describe`] for a partition transform that is not ours, [`WriteError::Split`] when
/// Arrow fails.
pub fn split(layout: &FileLayout, rows: &RecordBatch) -> Result<PartitionSplit, WriteError> {
    let (numbers, values) = partition_numbers(layout, rows)?;
    let sort_keys = sort_keys(layout, rows);
    let key = |column: usize, row: usize| {
        sort_keys.as_ref().and_then(|keys| keys.get(column)).map_or(0, |key| key[row])
    };
    let mut order: Vec<RowKey> = numbers
        .iter()
        .enumerate()
        .map(|(row, number)| {
            let index = u32::try_from(row).expect("a commit is bounded far below 2^32 rows");
            (*number, key(0, row), key(1, row), index)
        })
        .collect();
    let in_order = order.is_sorted();
    if !in_order {
        order.sort_unstable();
    }
    let rows = if in_order { rows.clone() } else { take_rows(rows, &order)? };
    Ok(PartitionSplit { rows, parts: parts(&order, values), sorted: sort_keys.is_some() })
}

impl PartitionSplit {
    /// Parts for files of about `file_bytes`; those of one partition follow one another in its order.
    #[must_use]
    pub fn cut(mut self, file_bytes: usize) -> Self {
        let bytes_max = file_bytes.saturating_mul(MEMORY_BYTES_PER_FILE_BYTE);
        let all: usize = self.rows.columns().iter().map(Array::get_array_memory_size).sum();
        // Nearly always: what one commit takes of the log is bounded far below.
        if bytes_max < all {
            let rows = &self.rows;
            self.parts =
                self.parts.into_iter().flat_map(|part| part.cut(rows, bytes_max)).collect();
        }
        self
    }
}

/// The first partition field of a table that rows cannot be split by here, with its transform; none where
/// they can.
#[must_use]
pub fn refused_field(table: &TableMetadata) -> Option<(String, Transform)> {
    let mut fields = table.default_partition_spec().fields().iter();
    let refused = fields.find(|field| {
        let column = table.current_schema().field_by_id(field.source_id);
        let kind = column.and_then(|column| column.field_type.as_primitive_type());
        !matches!(
            (field.transform, kind),
            (Transform::Void, _)
                | (Transform::Identity, Some(PrimitiveType::String))
                | (Transform::Day, Some(PrimitiveType::Timestamptz))
        )
    });
    refused.map(|field| (field.name.clone(), field.transform))
}

/// The Iceberg id that a field carries.
#[must_use]
pub fn field_id(field: &Field) -> Option<i32> {
    field.metadata().get(FIELD_ID)?.parse().ok()
}

fn parts(order: &[RowKey], values: Vec<Struct>) -> Vec<PartitionRows> {
    let mut start = 0;
    // Numbers are dense and count up, so the runs and the values go side by side.
    let runs = order.chunk_by(|a, b| a.0 == b.0);
    runs.zip(values)
        .map(|(run, values)| {
            let rows = start..start + run.len();
            start = rows.end;
            PartitionRows { rows, values }
        })
        .collect()
}

fn take_rows(rows: &RecordBatch, order: &[RowKey]) -> Result<RecordBatch, WriteError> {
    let indices = UInt32Array::from_iter_values(order.iter().map(|key| key.3));
    let columns = rows.columns().iter().map(|column| {
        // Most columns of most events are empty, and any order of nulls is the same.
        if column.null_count() == column.len() {
            Ok(ArrayRef::clone(column))
        } else {
            take(column, &indices, None)
        }
    });
    let columns = columns.collect::<Result<Vec<_>, ArrowError>>().map_err(WriteError::Split)?;
    RecordBatch::try_new(rows.schema(), columns).map_err(WriteError::Split)
}

/// For each row the number of its partition, and the values of each partition by number.
fn partition_numbers(
    layout: &FileLayout,
    rows: &RecordBatch,
) -> Result<(Vec<u32>, Vec<Struct>), WriteError> {
    let mut numbers = vec![0_u32; rows.num_rows()];
    let mut values: Vec<Vec<Option<Literal>>> = vec![Vec::new()];
    for field in layout.spec.fields() {
        let column = column_by_id(rows, field.source_id);
        let kind = column.map(Array::data_type);
        match (field.transform, column, kind) {
            (Transform::Identity, Some(column), Some(DataType::Utf8)) => {
                let texts = column.as_string::<i32>().iter();
                refine(&mut numbers, &mut values, texts, Literal::string);
            }
            (
                Transform::Day,
                Some(column),
                Some(DataType::Timestamp(TimeUnit::Microsecond, Some(_))),
            ) => {
                let times = column.as_primitive::<TimestampMicrosecondType>().iter();
                let days = times.map(|time| time.map(day));
                refine(&mut numbers, &mut values, days, Literal::date);
            }
            (Transform::Bucket(count), Some(column), Some(DataType::Utf8)) => {
                let of_texts = buckets(&make_array(column.to_data()), count);
                let of_texts = of_texts.map_err(WriteError::Describe)?;
                refine(&mut numbers, &mut values, of_texts.iter(), Literal::int);
            }
            (Transform::Void, _, _) => {
                values.iter_mut().for_each(|values| values.push(None));
            }
            (transform, _, _) => {
                let text = format!("partition field `{}` with transform {transform}", field.name);
                let error = Error::new(ErrorKind::FeatureUnsupported, text);
                return Err(WriteError::Describe(error));
            }
        }
    }
    Ok((numbers, values.into_iter().map(Struct::from_iter).collect()))
}

/// The bucket of each value of a column, of `count` buckets, as Iceberg reckons it: null where there is none.
///
/// # Errors
/// The column's type has no buckets, or there are none.
pub fn buckets(column: &ArrayRef, count: u32) -> Result<Int32Array, Error> {
    if count == 0 || i32::try_from(count).is_err() {
        let text = format!("{count} is no number of buckets: take 1 to {}", i32::MAX);
        return Err(Error::new(ErrorKind::DataInvalid, text));
    }
    let reckoned = create_transform_function(&Transform::Bucket(count))?;
    let made = reckoned.transform(ArrayRef::clone(column))?;
    Ok(made.as_primitive::<Int32Type>().clone())
}

/// Days since 1970 of a time in microseconds, also before 1970.
fn day(time_us: i64) -> i32 {
    i32::try_from(time_us.div_euclid(DAY_US)).expect("an i64 of microseconds has 2^27 days at most")
}

/// Splits each partition further by one more value. New numbers count up in order of appearance.
fn refine<V: Copy + Eq + Hash>(
    numbers: &mut [u32],
    values: &mut Vec<Vec<Option<Literal>>>,
    of_rows: impl Iterator<Item = Option<V>>,
    literal: impl Fn(V) -> Literal,
) {
    let mut known: HashMap<(u32, Option<V>), u32> = HashMap::new();
    let mut refined: Vec<Vec<Option<Literal>>> = Vec::new();
    let mut last: Option<((u32, Option<V>), u32)> = None;
    for (number, value) in numbers.iter_mut().zip(of_rows) {
        let key = (*number, value);
        *number = match last {
            // Neighbours are mostly alike, which saves the hash.
            Some((same, number)) if same == key => number,
            _ => *known.entry(key).or_insert_with(|| {
                let mut of_part = values[key.0 as usize].clone();
                of_part.push(value.map(&literal));
                refined.push(of_part);
                u32::try_from(refined.len() - 1).expect("there are fewer partitions than rows")
            }),
        };
        last = Some((key, *number));
    }
    *values = refined;
}

/// The sort columns as numbers that sort the same way; none when the table's order needs more than
/// that (another engine has changed it), and then files are written as unsorted.
pub(super) fn sort_keys(layout: &FileLayout, rows: &RecordBatch) -> Option<Vec<Vec<i64>>> {
    let fields = &layout.sort_order.fields;
    if fields.is_empty() || 2 < fields.len() {
        return None;
    }
    fields
        .iter()
        .map(|field| {
            let column = column_by_id(rows, field.source_id)?;
            if field.transform != Transform::Identity || 0 < column.null_count() {
                return None;
            }
            let values = match column.data_type() {
                DataType::Int64 => column.as_primitive::<Int64Type>().values(),
                DataType::Timestamp(TimeUnit::Microsecond, _) => {
                    column.as_primitive::<TimestampMicrosecondType>().values()
                }
                _ => return None,
            };
            Some(match field.direction {
                SortDirection::Ascending => values.to_vec(),
                SortDirection::Descending => values.iter().map(|value| !value).collect(),
            })
        })
        .collect()
}

fn column_by_id(rows: &RecordBatch, id: i32) -> Option<&dyn Array> {
    let index = rows.schema_ref().fields().iter().position(|field| field_id(field) == Some(id))?;
    Some(rows.column(index).as_ref())
}

#[cfg(test)]
mod tests;
