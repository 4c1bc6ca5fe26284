//! Columns of metadata tables: Arrow's types of Iceberg's values, and arrays of them.

use arrow::{
    array::{
        ArrayBuilder, ArrayRef, BinaryBuilder, Int32Builder, Int64Builder, MapBuilder,
        MapFieldNames, StringBuilder, new_null_array,
    },
    datatypes::{DataType, Field, Fields, SchemaRef, TimeUnit},
    record_batch::{RecordBatch, RecordBatchOptions},
};
use datafusion::{common::ScalarValue, error::DataFusionError};
use iceberg::spec::{PrimitiveLiteral, PrimitiveType};
use icecore_lake::event::rows::UTC;
use std::sync::Arc;

/// What a map's parts are called, as Iceberg has it.
const ENTRIES: &str = "key_value";
const KEY: &str = "key";
const VALUE: &str = "value";

/// A column that may be null.
pub(super) fn column(name: &str, kind: DataType) -> Field {
    Field::new(name, kind, true)
}

/// A time with microseconds.
pub(super) fn timestamptz() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into()))
}

/// A map with these keys and values.
pub(super) fn map(key: DataType, value: DataType) -> DataType {
    let pair = Fields::from(vec![Field::new(KEY, key, false), Field::new(VALUE, value, true)]);
    DataType::Map(Arc::new(Field::new(ENTRIES, DataType::Struct(pair), false)), false)
}

fn names() -> Option<MapFieldNames> {
    let (entry, key, value) = (ENTRIES.to_owned(), KEY.to_owned(), VALUE.to_owned());
    Some(MapFieldNames { entry, key, value })
}

/// A batch with the columns that are asked for, each made by its name.
pub(super) fn batch(
    schema: &SchemaRef,
    rows: usize,
    mut array: impl FnMut(&Field) -> Result<ArrayRef, DataFusionError>,
) -> Result<RecordBatch, DataFusionError> {
    let arrays = schema.fields().iter().map(|field| array(field));
    let arrays = arrays.collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options)?)
}

/// Maps of text, in the order of their keys.
pub(super) fn text_maps<'a>(
    rows: impl Iterator<Item = Vec<(&'a str, &'a str)>>,
) -> Result<ArrayRef, DataFusionError> {
    let mut maps = MapBuilder::new(names(), StringBuilder::new(), StringBuilder::new());
    for mut row in rows {
        row.sort_unstable();
        for (key, value) in row {
            maps.keys().append_value(key);
            maps.values().append_value(value);
        }
        maps.append(true)?;
    }
    Ok(Arc::new(maps.finish()))
}

/// Maps of numbers by field id, null where there is nothing.
pub(super) fn number_maps(
    rows: impl Iterator<Item = Vec<(i32, i64)>>,
) -> Result<ArrayRef, DataFusionError> {
    field_maps(Int64Builder::new(), rows, |values, value| values.append_value(value))
}

/// Maps of bytes by field id, null where there is nothing.
pub(super) fn byte_maps(
    rows: impl Iterator<Item = Vec<(i32, Vec<u8>)>>,
) -> Result<ArrayRef, DataFusionError> {
    field_maps(BinaryBuilder::new(), rows, |values, value| values.append_value(value))
}

fn field_maps<T: Ord, B: ArrayBuilder>(
    values: B,
    rows: impl Iterator<Item = Vec<(i32, T)>>,
    append: impl Fn(&mut B, T),
) -> Result<ArrayRef, DataFusionError> {
    let mut maps = MapBuilder::new(names(), Int32Builder::new(), values);
    for mut row in rows {
        row.sort_unstable();
        let is_there = !row.is_empty();
        for (key, value) in row {
            maps.keys().append_value(key);
            append(maps.values(), value);
        }
        maps.append(is_there)?;
    }
    Ok(Arc::new(maps.finish()))
}

/// What a type of Iceberg is here: a UUID is text, as it is in the table.
pub(super) fn data_type(kind: &PrimitiveType) -> DataType {
    match kind {
        PrimitiveType::Boolean => DataType::Boolean,
        PrimitiveType::Int => DataType::Int32,
        PrimitiveType::Long => DataType::Int64,
        PrimitiveType::Float => DataType::Float32,
        PrimitiveType::Double => DataType::Float64,
        PrimitiveType::Decimal { precision, scale } => {
            DataType::Decimal128(digits(*precision), places(*scale))
        }
        PrimitiveType::Date => DataType::Date32,
        PrimitiveType::Time => DataType::Time64(TimeUnit::Microsecond),
        PrimitiveType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
        PrimitiveType::Timestamptz => timestamptz(),
        PrimitiveType::TimestampNs => DataType::Timestamp(TimeUnit::Nanosecond, None),
        PrimitiveType::TimestamptzNs => DataType::Timestamp(TimeUnit::Nanosecond, Some(UTC.into())),
        PrimitiveType::String | PrimitiveType::Uuid => DataType::Utf8,
        PrimitiveType::Fixed(_) | PrimitiveType::Binary => DataType::Binary,
    }
}

// Iceberg has at most 38 digits.
fn digits(precision: u32) -> u8 {
    u8::try_from(precision).unwrap_or(u8::MAX)
}

fn places(scale: u32) -> i8 {
    i8::try_from(scale).unwrap_or(i8::MAX)
}

/// Values of a type of Iceberg; null where a value is not of it, as after a change of the type.
pub(super) fn values<'a>(
    kind: &PrimitiveType,
    literals: impl Iterator<Item = Option<&'a PrimitiveLiteral>>,
) -> Result<ArrayRef, DataFusionError> {
    let null = ScalarValue::try_from(&data_type(kind))?;
    let scalars: Vec<ScalarValue> = literals
        .map(|literal| {
            literal.and_then(|literal| scalar(kind, literal)).unwrap_or_else(|| null.clone())
        })
        .collect();
    if scalars.is_empty() {
        return Ok(new_null_array(&data_type(kind), 0));
    }
    ScalarValue::iter_to_array(scalars)
}

fn scalar(kind: &PrimitiveType, literal: &PrimitiveLiteral) -> Option<ScalarValue> {
    let zone = || Some(UTC.into());
    Some(match (kind, literal) {
        (PrimitiveType::Boolean, PrimitiveLiteral::Boolean(value)) => (*value).into(),
        (PrimitiveType::Int, PrimitiveLiteral::Int(value)) => (*value).into(),
        (PrimitiveType::Long, PrimitiveLiteral::Long(value)) => (*value).into(),
        // A column that was narrower when the file was written.
        (PrimitiveType::Long, PrimitiveLiteral::Int(value)) => i64::from(*value).into(),
        (PrimitiveType::Float, PrimitiveLiteral::Float(value)) => value.0.into(),
        (PrimitiveType::Double, PrimitiveLiteral::Double(value)) => value.0.into(),
        (PrimitiveType::Double, PrimitiveLiteral::Float(value)) => f64::from(value.0).into(),
        (PrimitiveType::Decimal { precision, scale }, PrimitiveLiteral::Int128(value)) => {
            ScalarValue::Decimal128(Some(*value), digits(*precision), places(*scale))
        }
        (PrimitiveType::Date, PrimitiveLiteral::Int(value)) => ScalarValue::Date32(Some(*value)),
        (PrimitiveType::Time, PrimitiveLiteral::Long(value)) => {
            ScalarValue::Time64Microsecond(Some(*value))
        }
        (PrimitiveType::Timestamp, PrimitiveLiteral::Long(value)) => {
            ScalarValue::TimestampMicrosecond(Some(*value), None)
        }
        (PrimitiveType::Timestamptz, PrimitiveLiteral::Long(value)) => {
            ScalarValue::TimestampMicrosecond(Some(*value), zone())
        }
        (PrimitiveType::TimestampNs, PrimitiveLiteral::Long(value)) => {
            ScalarValue::TimestampNanosecond(Some(*value), None)
        }
        (PrimitiveType::TimestamptzNs, PrimitiveLiteral::Long(value)) => {
            ScalarValue::TimestampNanosecond(Some(*value), zone())
        }
        (PrimitiveType::String, PrimitiveLiteral::String(value)) => {
            ScalarValue::Utf8(Some(value.clone()))
        }
        (PrimitiveType::Uuid, PrimitiveLiteral::UInt128(value)) => {
            ScalarValue::Utf8(Some(::uuid::Uuid::from_u128(*value).to_string()))
        }
        (PrimitiveType::Fixed(_) | PrimitiveType::Binary, PrimitiveLiteral::Binary(value)) => {
            ScalarValue::Binary(Some(value.clone()))
        }
        _ => return None,
    })
}
