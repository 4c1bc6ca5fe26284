//! The rows of one file against what its manifest says of them: how many, between which bounds, in which
//! partition.
//!
//! Columns of texts, whole numbers, days and times are compared; others are read and no more.

use crate::table::{
    file_columns::{FileColumns, OpenFile},
    integrity::CheckDepth,
    partition::field_id,
};
use arrow::{
    array::{Array, AsArray},
    compute::{max, max_string, min, min_string},
    datatypes::{DataType, Date32Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType},
    record_batch::RecordBatch,
};
use iceberg::spec::{DataContentType, Literal, PrimitiveLiteral, TableMetadata, Transform};
use icecore_catalog::scan::manifests::PlannedFile;
use icecore_schemas::fsck::FindingKind;
use parquet::{
    basic::ConvertedType,
    data_type::ByteArray,
    file::{metadata::ColumnChunkMetaData, statistics::Statistics},
};
use std::{cmp::Ordering, collections::HashMap};

const DAY_US: i64 = 86_400_000_000;
/// Ids from here on are those of columns that the format itself has, such as the ids of rows.
const RESERVED_IDS_MIN: i32 = i32::MAX - 200;

/// The lowest and the highest value of some rows.
type ValueRange = (PrimitiveLiteral, PrimitiveLiteral);

/// What was seen of a file's rows.
#[derive(Debug)]
pub(super) struct FileRows {
    rows: u64,
    columns: Vec<ColumnValues>,
    partition: Vec<PartitionValues>,
}

/// A column with what its manifest says of it.
#[derive(Debug)]
struct ColumnValues {
    /// Its place in a batch.
    at: usize,
    id: i32,
    name: String,
    lower: Option<PrimitiveLiteral>,
    upper: Option<PrimitiveLiteral>,
    nulls: Option<u64>,
    /// None where the footer does not tell.
    seen_nulls: Option<u64>,
    /// Whether its values are times.
    is_time: bool,
    is_outside: bool,
}

/// A column that is read of a data file.
#[derive(Debug)]
struct PlacedColumn {
    /// Its place in a batch.
    at: usize,
    id: i32,
    name: String,
    /// Whether its values are times.
    is_time: bool,
}

/// A partition field with the value that its manifest has.
#[derive(Debug)]
struct PartitionValues {
    at: usize,
    id: i32,
    name: String,
    /// Whether the values of its column are times.
    is_time: bool,
    is_day: bool,
    value: Option<PrimitiveLiteral>,
    is_wrong: bool,
}

impl FileRows {
    /// Nothing is seen yet.
    pub(super) fn of(
        table: &TableMetadata,
        file: &PlannedFile,
        columns: &FileColumns,
        opened: &OpenFile,
    ) -> Self {
        let fields = columns.schema().fields().iter().enumerate();
        let is_data = file.content == DataContentType::Data;
        // A delete file's bounds are of the rows that it names, and it may be of any partition.
        let with_ids = fields.filter_map(|(at, field)| {
            let (id, name) = (field_id(field)?, field.name().clone());
            let is_time = matches!(field.data_type(), DataType::Timestamp(_, _));
            is_data.then_some(PlacedColumn { at, id, name, is_time })
        });
        let placed: Vec<PlacedColumn> = with_ids.collect();
        let column = |placed: &PlacedColumn| {
            let known = file.column(placed.id)?;
            // Rows of a file that lacks the column have its default, of which no manifest tells.
            opened.leaf(placed.id)?;
            Some(ColumnValues {
                at: placed.at,
                id: placed.id,
                name: placed.name.clone(),
                lower: known.lower.as_ref().map(|bound| bound.literal().clone()),
                upper: known.upper.as_ref().map(|bound| bound.literal().clone()),
                nulls: known.nulls,
                seen_nulls: Some(0),
                is_time: placed.is_time,
                is_outside: false,
            })
        };
        Self {
            rows: 0,
            columns: placed.iter().filter_map(column).collect(),
            partition: partition(table, file, &placed, opened),
        }
    }

    /// Takes a batch into account.
    pub(super) fn take(&mut self, batch: &RecordBatch) {
        self.rows += batch.num_rows() as u64;
        for column in &mut self.columns {
            let values = batch.column(column.at);
            if let Some(nulls) = &mut column.seen_nulls {
                *nulls += values.null_count() as u64;
            }
            if let Some(range) = range(values.as_ref()) {
                column.take(&range);
            }
        }
        for field in &mut self.partition {
            let values = batch.column(field.at);
            field.take(range(values.as_ref()).as_ref(), values.null_count(), values.len());
        }
    }

    /// Takes the statistics of the footer into account, where they are exact.
    pub(super) fn take_footer(&mut self, opened: &OpenFile) {
        let groups = opened.footer().row_groups();
        for column in &mut self.columns {
            let Some(leaf) = flat_leaf(opened, column.id) else {
                column.seen_nulls = None;
                continue;
            };
            for group in groups {
                if let Some(range) = exact_range(group.column(leaf), column.is_time) {
                    column.take(&range);
                }
            }
            column.seen_nulls = groups.iter().map(|group| nulls(group.column(leaf))).sum();
        }
        for field in &mut self.partition {
            let Some(leaf) = flat_leaf(opened, field.id) else { continue };
            for group in groups {
                let chunk = group.column(leaf);
                let Some(nulls) = nulls(chunk) else { continue };
                let rows = u64::try_from(group.num_rows()).unwrap_or(0);
                let range = exact_range(chunk, field.is_time);
                field.take(range.as_ref(), nulls as usize, rows as usize);
            }
        }
    }

    /// What does not fit.
    pub(super) fn faults(
        &self,
        file: &PlannedFile,
        depth: CheckDepth,
    ) -> Vec<(FindingKind, String)> {
        let mut faults = Vec::new();
        let is_read = depth == CheckDepth::Rows;
        if is_read && self.rows != file.rows {
            let text = format!("{} rows were read, and its manifest says {}", self.rows, file.rows);
            faults.push((FindingKind::Counts, text));
        }
        for column in &self.columns {
            if column.is_outside {
                let text = format!("values of `{}` are outside of its bounds", column.name);
                faults.push((FindingKind::Bounds, text));
            }
            if let (Some(nulls), Some(seen)) = (column.nulls, column.seen_nulls)
                && nulls != seen
            {
                let text = format!(
                    "`{}` has no value in {seen} rows, and its manifest says {nulls}",
                    column.name
                );
                faults.push((FindingKind::Counts, text));
            }
        }
        for field in self.partition.iter().filter(|field| field.is_wrong) {
            let text = format!("rows are not of its partition: see `{}`", field.name);
            faults.push((FindingKind::Partition, text));
        }
        faults
    }
}

impl ColumnValues {
    fn take(&mut self, (lowest, highest): &ValueRange) {
        let is_below = |bound: &PrimitiveLiteral| compare(lowest, bound) == Some(Ordering::Less);
        let is_above =
            |bound: &PrimitiveLiteral| compare(highest, bound) == Some(Ordering::Greater);
        self.is_outside |=
            self.lower.as_ref().is_some_and(is_below) || self.upper.as_ref().is_some_and(is_above);
    }
}

impl PartitionValues {
    fn take(&mut self, range: Option<&ValueRange>, nulls: usize, rows: usize) {
        let Some(value) = &self.value else {
            self.is_wrong |= nulls != rows;
            return;
        };
        // Of a type that is not compared nothing is known.
        let Some((lowest, highest)) = range else {
            self.is_wrong |= 0 < rows && nulls == rows;
            return;
        };
        let is_it = |found: &PrimitiveLiteral| match (self.is_day, found) {
            (true, PrimitiveLiteral::Long(us)) => {
                compare(&PrimitiveLiteral::Long(us.div_euclid(DAY_US)), value)
            }
            (_, found) => compare(found, value),
        };
        // Kinds that do not compare are not held against each other.
        let differs = |found| is_it(found).is_some_and(|order| order != Ordering::Equal);
        let is_wrong = 0 < nulls || differs(lowest) || differs(highest);
        self.is_wrong |= is_wrong;
    }
}

/// The fields of the file's partition that are compared. Where the file lacks the column, the partition's
/// value is that of its rows.
fn partition(
    table: &TableMetadata,
    file: &PlannedFile,
    columns: &[PlacedColumn],
    opened: &OpenFile,
) -> Vec<PartitionValues> {
    let Some(spec) = table.partition_spec_by_id(file.spec_id) else { return Vec::new() };
    let fields = spec.fields().iter().zip(file.partition.fields());
    let compared = fields.filter_map(|(field, value)| {
        let is_day = match field.transform {
            Transform::Identity => false,
            Transform::Day => true,
            _ => return None,
        };
        let PlacedColumn { at, id, is_time, .. } =
            columns.iter().find(|column| column.id == field.source_id)?;
        opened.leaf(field.source_id)?;
        let value = match value {
            Some(Literal::Primitive(value)) => Some(value.clone()),
            Some(_) => return None,
            None => None,
        };
        let (at, id, is_time, name) = (*at, *id, *is_time, field.name.clone());
        Some(PartitionValues { at, id, name, is_time, is_day, value, is_wrong: false })
    });
    compared.collect()
}

/// What is wrong with the ids of a data file's columns: a reader takes one for another column by them.
pub(super) fn id_faults(table: &TableMetadata, opened: &OpenFile) -> Vec<String> {
    let mut faults = Vec::new();
    let mut names: HashMap<i32, &str> = HashMap::new();
    let file = opened.footer().file_metadata();
    for column in file.schema_descr().root_schema().get_fields() {
        let (info, name) = (column.get_basic_info(), column.name());
        if !info.has_id() {
            continue;
        }
        let id = info.id();
        if table.last_column_id() < id && id < RESERVED_IDS_MIN {
            faults.push(format!("its column `{name}` has the id {id}, which the table never gave"));
        }
        if let Some(other) = names.insert(id, name) {
            faults.push(format!("its columns `{other}` and `{name}` have the same id {id}"));
        }
    }
    faults
}

/// The leaf of a column that is no list, map or struct: the statistics of these count what is inside.
fn flat_leaf(opened: &OpenFile, id: i32) -> Option<usize> {
    let leaf = opened.leaf(id)?;
    let column = opened.footer().file_metadata().schema_descr().column(leaf);
    (column.max_rep_level() == 0 && column.path().parts().len() == 1).then_some(leaf)
}

/// How many rows of a chunk have no value, where its statistics tell.
fn nulls(chunk: &ColumnChunkMetaData) -> Option<u64> {
    chunk.statistics()?.null_count_opt()
}

/// The lowest and highest value of a chunk, where its statistics have them as they are: of whole numbers, days,
/// times and texts.
fn exact_range(chunk: &ColumnChunkMetaData, is_time: bool) -> Option<ValueRange> {
    let statistics = chunk.statistics()?;
    match statistics {
        Statistics::Int64(known) => {
            // Other engines may write times in another unit.
            let unit = chunk.column_descr().converted_type();
            if is_time && unit != ConvertedType::TIMESTAMP_MICROS {
                return None;
            }
            let long = |value: &i64| PrimitiveLiteral::Long(*value);
            Some((long(known.min_opt()?), long(known.max_opt()?)))
        }
        Statistics::Int32(known) => {
            let int = |value: &i32| PrimitiveLiteral::Int(*value);
            Some((int(known.min_opt()?), int(known.max_opt()?)))
        }
        Statistics::ByteArray(known) => {
            // Long ones may be cut, and old ones are in the order of signed bytes.
            let is_exact = known.min_is_exact() && known.max_is_exact();
            if !is_exact || statistics.is_min_max_deprecated() {
                return None;
            }
            let text = |value: &ByteArray| {
                Some(PrimitiveLiteral::String(value.as_utf8().ok()?.to_owned()))
            };
            Some((text(known.min_opt()?)?, text(known.max_opt()?)?))
        }
        _ => None,
    }
}

/// The lowest and highest value; none where there is none, and for types that are not compared.
fn range(values: &dyn Array) -> Option<ValueRange> {
    let long = PrimitiveLiteral::Long;
    let int = PrimitiveLiteral::Int;
    match values.data_type() {
        DataType::Utf8 => {
            let texts = values.as_string::<i32>();
            let text = |text: &str| PrimitiveLiteral::String(text.to_owned());
            Some((text(min_string(texts)?), text(max_string(texts)?)))
        }
        DataType::Int64 => {
            let numbers = values.as_primitive::<Int64Type>();
            Some((long(min(numbers)?), long(max(numbers)?)))
        }
        DataType::Int32 => {
            let numbers = values.as_primitive::<Int32Type>();
            Some((int(min(numbers)?), int(max(numbers)?)))
        }
        DataType::Date32 => {
            let days = values.as_primitive::<Date32Type>();
            Some((int(min(days)?), int(max(days)?)))
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let times = values.as_primitive::<TimestampMicrosecondType>();
            Some((long(min(times)?), long(max(times)?)))
        }
        _ => None,
    }
}

/// The order of two values, also where a column was widened since; none for other kinds.
fn compare(one: &PrimitiveLiteral, other: &PrimitiveLiteral) -> Option<Ordering> {
    if let (PrimitiveLiteral::String(one), PrimitiveLiteral::String(other)) = (one, other) {
        return Some(one.cmp(other));
    }
    let whole = |value: &PrimitiveLiteral| match value {
        PrimitiveLiteral::Int(value) => Some(i64::from(*value)),
        PrimitiveLiteral::Long(value) => Some(*value),
        _ => None,
    };
    Some(whole(one)?.cmp(&whole(other)?))
}
