//! Which row groups of a file may have a row that meets a filter.
//!
//! Its one invariant: a row group is left out only if no row of it can. Statistics are believed where
//! they have the order and the unit of the table's column, and nowhere else.

use crate::table::file_columns::OpenFile;
use iceberg::spec::{Datum, PrimitiveLiteral, PrimitiveType};
use icecore_catalog::scan::{
    facts::{RowShare, TermFacts},
    filter::{Filter, FilterTest, FilterVerdict, datum},
};
use parquet::{
    basic::{LogicalType, TimeUnit},
    data_type::ByteArray,
    file::{
        metadata::{ColumnChunkMetaData, RowGroupMetaData},
        statistics::Statistics,
    },
};

pub(super) fn may_match(filter: &Filter, group: &RowGroupMetaData, file: &OpenFile) -> bool {
    let known = |test: &FilterTest| match file.leaf(test.term.field_id) {
        Some(leaf) => facts(group.column(leaf), &test.term.source)
            .map_or(FilterVerdict::Maybe, |facts| facts.verdict(&test.check)),
        None => FilterVerdict::Maybe,
    };
    filter.verdict(&known) != FilterVerdict::Never
}

fn facts(column: &ColumnChunkMetaData, kind: &PrimitiveType) -> Option<TermFacts> {
    let statistics = column.statistics()?;
    if statistics.is_min_max_deprecated() || !has_unit_of(column, kind) {
        return None;
    }
    let nulls = match statistics.null_count_opt()? {
        0 => RowShare::None,
        nulls if i64::try_from(nulls) == Ok(column.num_values()) => RowShare::All,
        _ => RowShare::Some,
    };
    let (lower, upper) = bounds(statistics, kind);
    Some(TermFacts { nulls, nans: RowShare::None, lower, upper })
}

/// Whether the file counts times as the table does.
pub(super) fn has_unit_of(column: &ColumnChunkMetaData, kind: &PrimitiveType) -> bool {
    let unit = match column.column_descr().logical_type_ref() {
        Some(LogicalType::Timestamp { unit, .. }) => Some(unit),
        _ => None,
    };
    match kind {
        PrimitiveType::Timestamp | PrimitiveType::Timestamptz => {
            matches!(unit, Some(TimeUnit::MICROS))
        }
        _ => unit.is_none(),
    }
}

/// The lowest and highest value; none for types whose order in statistics writers disagree on.
fn bounds(statistics: &Statistics, kind: &PrimitiveType) -> (Option<Datum>, Option<Datum>) {
    let both = |low: Option<PrimitiveLiteral>, high: Option<PrimitiveLiteral>| {
        let bound = |value: Option<PrimitiveLiteral>| value.and_then(|value| datum(&value, kind));
        (bound(low), bound(high))
    };
    let text = |bytes: &ByteArray| text_of(bytes.data());
    match (statistics, kind) {
        (
            Statistics::Int32(values),
            PrimitiveType::Int | PrimitiveType::Long | PrimitiveType::Date,
        ) => {
            let int = |value: Option<&i32>| value.map(|value| PrimitiveLiteral::Int(*value));
            both(int(values.min_opt()), int(values.max_opt()))
        }
        (
            Statistics::Int64(values),
            PrimitiveType::Long | PrimitiveType::Timestamp | PrimitiveType::Timestamptz,
        ) => {
            let long = |value: Option<&i64>| value.map(|value| PrimitiveLiteral::Long(*value));
            both(long(values.min_opt()), long(values.max_opt()))
        }
        (Statistics::ByteArray(values), PrimitiveType::String) => {
            both(values.min_opt().and_then(text), values.max_opt().and_then(text))
        }
        _ => (None, None),
    }
}

/// A bound of texts; none where it is not UTF-8, as one that was cut may be.
pub(super) fn text_of(bytes: &[u8]) -> Option<PrimitiveLiteral> {
    let text = std::str::from_utf8(bytes).ok()?;
    Some(PrimitiveLiteral::String(text.to_owned()))
}
