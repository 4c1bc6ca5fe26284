//! What a manifest says of a data file that a scan reads, kept beside the file for rules that see only the plan.
//!
//! Its one invariant: the value of every row lies in the range of its column. So a file with deleted rows has
//! no such entry, a text has a range only as the partition's own value, since bounds of texts may be cut, and floats
//! have none, since no bound covers NaN.

use crate::{
    counts::FileCounts,
    plan::{SnapshotScan, scalar},
};
use arrow::datatypes::DataType;
use datafusion::common::{ColumnStatistics, ScalarValue, Statistics, stats::Precision};
use iceberg::spec::{Datum, Literal, NestedField, NestedFieldRef, PrimitiveLiteral, Transform};
use icecore_catalog::scan::manifests::{ColumnBounds, PlannedFile};
use icecore_lake::table::schema::MANAGED;
use std::{cmp::Ordering, collections::HashSet, sync::Arc};

/// Letters of a text that writers keep as its bound, and some count bytes. An upper bound is rounded up where it was
/// cut, but a writer may not know that.
const CUT_BYTES: usize = 16;

/// Values from the lowest to the highest, both included. Neither is null.
#[derive(Clone, Debug)]
pub struct ValueRange {
    /// Not above any value.
    pub lowest: ScalarValue,
    /// Not below any value.
    pub highest: ScalarValue,
}

impl ValueRange {
    /// One value.
    #[must_use]
    pub fn at(value: ScalarValue) -> Self {
        Self { lowest: value.clone(), highest: value }
    }

    /// The value, where it is only one.
    #[must_use]
    pub fn only(&self) -> Option<&ScalarValue> {
        (self.lowest == self.highest).then_some(&self.lowest)
    }
}

/// A data file of a scan, none of whose rows is deleted.
#[derive(Clone, Debug)]
pub struct ScannedFile {
    snapshot: Arc<SnapshotScan>,
    file: Arc<PlannedFile>,
    counts: Arc<FileCounts>,
}

impl ScannedFile {
    /// The file of a snapshot; `counts` has it as one that is read.
    #[must_use]
    pub fn new(
        snapshot: Arc<SnapshotScan>,
        file: Arc<PlannedFile>,
        counts: Arc<FileCounts>,
    ) -> Self {
        Self { snapshot, file, counts }
    }

    /// How many rows it has.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.file.rows
    }

    /// How many rows have no value in a column; none where the manifest does not say it.
    #[must_use]
    pub fn nulls(&self, column: &str) -> Option<u64> {
        let field = self.field(column)?;
        nulls_of(field, self.file.column(field.id)?, self.file.rows)
    }

    /// Where the values of a column are, which reads as `data_type`; none where a row may have no value.
    #[must_use]
    pub fn range(&self, column: &str, data_type: &DataType) -> Option<ValueRange> {
        let field = self.field(column)?;
        if self.nulls(column)? != 0 || self.file.rows == 0 || data_type.is_floating() {
            return None;
        }
        let is_fixed = matches!(
            data_type,
            DataType::Boolean
                | DataType::Int32
                | DataType::Int64
                | DataType::Date32
                | DataType::Timestamp(..)
        );
        if !is_fixed {
            let value = scalar(partition_value(&self.snapshot, &self.file, field.id)?, data_type)?;
            return (!value.is_null()).then(|| ValueRange::at(value));
        }
        let known = self.file.column(field.id)?;
        let lowest = scalar(known.lower.as_ref()?.literal(), data_type)?;
        let highest = scalar(known.upper.as_ref()?.literal(), data_type)?;
        let order = lowest.partial_cmp(&highest);
        let is_range = matches!(order, Some(Ordering::Less | Ordering::Equal));
        is_range.then_some(ValueRange { lowest, highest })
    }

    /// The file is not read after all.
    pub fn leave_out(&self) {
        self.counts.leave_out(self.file.bytes);
    }

    fn field(&self, column: &str) -> Option<&NestedFieldRef> {
        // A name with a dot is not a path here.
        self.snapshot.columns.as_struct().field_by_name(column)
    }
}

/// How many of the `rows` of a file have no value in a column; none where the manifest does not say it.
fn nulls_of(column: &NestedField, known: &ColumnBounds, rows: u64) -> Option<u64> {
    // A file without the column reads as its default, whatever its manifest counts.
    let is_plain = column.field_type.is_primitive() && column.initial_default.is_none();
    // A count of values that is not the one of rows is of something else.
    let is_of_rows = known.values.is_none_or(|values| values == rows);
    known.nulls.filter(|nulls| is_plain && is_of_rows && *nulls <= rows)
}

/// The value that all rows have in a column, where the file's partition is by it.
fn partition_value<'a>(
    snapshot: &SnapshotScan,
    file: &'a PlannedFile,
    field_id: i32,
) -> Option<&'a PrimitiveLiteral> {
    let fields = snapshot.metadata.partition_spec_by_id(file.spec_id)?.fields();
    let at = fields
        .iter()
        .position(|field| field.source_id == field_id && field.transform == Transform::Identity)?;
    match file.partition.fields().get(at)? {
        Some(Literal::Primitive(value)) => Some(value),
        _ => None,
    }
}

/// The text that all rows with a value have in a column: that of the partition, or in a table of ours that of both
/// bounds. How other engines cut the bounds in tables of theirs is not known.
fn only_text<'a>(
    snapshot: &SnapshotScan,
    file: &'a PlannedFile,
    known: &'a ColumnBounds,
) -> Option<&'a PrimitiveLiteral> {
    let is_ours = snapshot.metadata.properties().contains_key(MANAGED);
    let bound = || text_of_bounds(known).filter(|_| is_ours);
    partition_value(snapshot, file, known.id).or_else(bound)
}

/// The text that is both bounds of a column, if it is too short to be a part of one.
fn text_of_bounds(known: &ColumnBounds) -> Option<&PrimitiveLiteral> {
    let lower = known.lower.as_ref().filter(|lower| known.upper.as_ref() == Some(*lower))?;
    let PrimitiveLiteral::String(text) = lower.literal() else { return None };
    (text.len() < CUT_BYTES).then(|| lower.literal())
}

/// What DataFusion may rely on in one file. Bounds of texts may be cut, so only fixed-width columns have any, and texts
/// that are the same in all rows: DataFusion does not read these. Nothing is told of columns but those at `read`.
#[must_use]
pub fn statistics(
    snapshot: &SnapshotScan,
    file: &PlannedFile,
    read: &HashSet<usize>,
) -> Statistics {
    let rows = usize::try_from(file.rows).unwrap_or(usize::MAX);
    let fields = snapshot.schema.fields().iter();
    let column_statistics = fields.enumerate().map(|(at, field)| {
        let mut statistics = ColumnStatistics::new_unknown();
        if !read.contains(&at) {
            return statistics;
        }
        let column = snapshot.columns.as_struct().field_by_name(field.name());
        let known = column.and_then(|column| Some((column, file.column(column.id)?)));
        let Some((column, known)) = known else { return statistics };
        let nulls = nulls_of(column, known, file.rows);
        if let Some(nulls) = nulls.and_then(|nulls| usize::try_from(nulls).ok()) {
            statistics.null_count = Precision::Exact(nulls);
        }
        let is_fixed = matches!(
            field.data_type(),
            DataType::Int32 | DataType::Int64 | DataType::Date32 | DataType::Timestamp(..)
        );
        if is_fixed {
            let bound = |value: &Option<Datum>| {
                scalar(value.as_ref()?.literal(), field.data_type()).map(Precision::Exact)
            };
            statistics.min_value = bound(&known.lower).unwrap_or_default();
            statistics.max_value = bound(&known.upper).unwrap_or_default();
        } else if matches!(field.data_type(), DataType::Utf8 | DataType::Utf8View) {
            let text = only_text(snapshot, file, known);
            let text = text.and_then(|text| scalar(text, field.data_type()));
            let text = text.map(Precision::Exact).unwrap_or_default();
            statistics.min_value = text.clone();
            statistics.max_value = text;
        }
        statistics
    });
    Statistics {
        num_rows: Precision::Exact(rows),
        total_byte_size: Precision::Absent,
        column_statistics: column_statistics.collect(),
    }
}

#[cfg(test)]
mod tests;
