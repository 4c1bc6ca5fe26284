//! Tables and rows of the service for tests alone: every column kind, odd text, the same for the same
//! seed.

use arrow::{
    array::{
        Array, ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, StringArray,
        TimestampMicrosecondArray,
    },
    datatypes::SchemaRef,
    record_batch::RecordBatch,
};
use iceberg::spec::{FormatVersion, SortOrder, TableMetadata, TableMetadataBuilder};
use icecore_catalog::catalog::CreateTable;
use icecore_lake::{event::rows, table::schema::create};
use icecore_schemas::{
    columns::{Column, ColumnKind, DEAD_LETTERS, EVENTS},
    service_table::SERVICE_TABLES,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::sync::Arc;

/// 2026-03-01 00:00 UTC.
pub const START_US: i64 = 1_772_323_200_000_000;
/// Microseconds of a day.
pub const DAY_US: i64 = 86_400_000_000;

const CHARS: [char; 14] = [
    'a',
    'b',
    'z',
    '~',
    '\u{7f}',
    'ÿ',
    '\u{7ff}',
    '\u{d7ff}',
    '\u{e000}',
    '\u{ffff}',
    '😀',
    '\u{10ffff}',
    '\u{10ffff}',
    '0',
];

/// `events`, as a release makes it.
pub fn events_table() -> CreateTable {
    create(&SERVICE_TABLES[0])
}

/// `dead_letters`, as a release makes it.
pub fn dead_letters_table() -> CreateTable {
    create(&SERVICE_TABLES[1])
}

/// A table as the catalog would make it at `location`.
pub fn metadata(new: CreateTable, location: &str) -> TableMetadata {
    let builder = TableMetadataBuilder::new(
        new.schema,
        new.partition_spec.expect("a service table is partitioned"),
        new.sort_order.unwrap_or_else(SortOrder::unsorted_order),
        location.to_owned(),
        FormatVersion::V2,
        new.properties,
    );
    let mut builder = builder.expect("a valid table");
    if let Some(order) = new.file_order {
        builder = builder.add_sort_order(order).expect("a valid order");
    }
    builder.build().expect("a valid table").metadata
}

/// `count` random rows of `events` with `seq` from `first_seq`, of `types` types, in three days.
pub fn events(count: usize, types: usize, first_seq: i64, seed: u64) -> RecordBatch {
    let rng = &mut StdRng::seed_from_u64(seed);
    batch(&rows::event_schema(), EVENTS, |column| match column.name {
        "type" => {
            let texts = (0..count).map(|_| format!("type.{}", rng.random_range(0..types)));
            Arc::new(StringArray::from_iter_values(texts))
        }
        "id" => {
            let texts = (0..count).map(|row| format!("01JMABCDEFGHJKMNPQ{first_seq}-{row}"));
            Arc::new(StringArray::from_iter_values(texts))
        }
        "seq" => Arc::new(Int64Array::from_iter_values((first_seq..).take(count))),
        _ => random(column, count, rng),
    })
}

/// `count` random rows of `dead_letters`.
pub fn dead_letters(count: usize, seed: u64) -> RecordBatch {
    let rng = &mut StdRng::seed_from_u64(seed);
    batch(&rows::dead_letter_schema(), DEAD_LETTERS, |column| random(column, count, rng))
}

fn batch(
    schema: &SchemaRef,
    columns: &[Column],
    array: impl FnMut(&Column) -> ArrayRef,
) -> RecordBatch {
    let columns = columns.iter().map(array).collect();
    RecordBatch::try_new(Arc::clone(schema), columns).expect("columns of the schema")
}

/// A random column: full when required, else empty, half full or full.
fn random(column: &Column, count: usize, rng: &mut StdRng) -> ArrayRef {
    let share =
        if column.required { 1.0 } else { [0.0, 0.5, 1.0][column.id.unwrap_or(0) as usize % 3] };
    let mut has = Vec::new();
    has.resize_with(count, || rng.random_bool(share));
    macro_rules! column {
        ($array:ty, $value:expr) => {{
            let values = has.iter().map(|has| has.then(|| $value));
            values.collect::<$array>()
        }};
    }
    match column.kind {
        ColumnKind::String => Arc::new(column!(StringArray, text(rng))),
        ColumnKind::Long => Arc::new(column!(Int64Array, rng.random::<i64>())),
        ColumnKind::Int => Arc::new(column!(Int32Array, rng.random::<i32>())),
        ColumnKind::Double => Arc::new(column!(Float64Array, double(rng))),
        ColumnKind::Boolean => Arc::new(column!(BooleanArray, rng.random::<bool>())),
        ColumnKind::Timestamptz => {
            let times =
                column!(TimestampMicrosecondArray, START_US + rng.random_range(0..3 * DAY_US));
            Arc::new(times.with_timezone("+00:00"))
        }
    }
}

/// Any text: short or long, often sharing a prefix, often at the end of the code points.
pub fn text(rng: &mut StdRng) -> String {
    let prefix = if rng.random_bool(0.3) { "\u{10ffff}".repeat(16) } else { String::new() };
    let length = rng.random_range(0..24);
    prefix + &(0..length).map(|_| CHARS[rng.random_range(0..CHARS.len())]).collect::<String>()
}

fn double(rng: &mut StdRng) -> f64 {
    match rng.random_range(0..6) {
        0 => f64::NAN,
        1 => -0.0,
        2 => f64::NEG_INFINITY,
        _ => rng.random_range(-1e6..1e6),
    }
}

/// The text column `name`.
pub fn texts<'a>(rows: &'a RecordBatch, name: &str) -> &'a StringArray {
    rows[name].as_any().downcast_ref().expect("a column of this type")
}

/// The time column `name`, in microseconds.
pub fn times<'a>(rows: &'a RecordBatch, name: &str) -> &'a TimestampMicrosecondArray {
    rows[name].as_any().downcast_ref().expect("a column of this type")
}

/// The number column `name`.
pub fn longs<'a>(rows: &'a RecordBatch, name: &str) -> &'a Int64Array {
    rows[name].as_any().downcast_ref().expect("a column of this type")
}
