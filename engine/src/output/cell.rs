//! One value of an Arrow array as text.
//!
//! Integers are JSON numbers whatever their size, times are RFC 3339 in UTC, decimals and binary
//! (base64) are texts, NaN and infinities are null, lists and structs are JSON.

use crate::error::SqlError;
use arrow::{
    array::{
        Array, ArrayRef, AsArray, FixedSizeListArray, GenericListArray, MapArray, OffsetSizeTrait,
        PrimitiveArray, StructArray,
    },
    compute::cast,
    datatypes::{
        ArrowNativeType, ArrowPrimitiveType, DataType, Date32Type, Date64Type, Decimal32Type,
        Decimal64Type, Decimal128Type, Decimal256Type, Fields, Float16Type, Float32Type,
        Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType,
        TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type,
        UInt16Type, UInt32Type, UInt64Type,
    },
    record_batch::RecordBatch,
    temporal_conversions::as_datetime,
    util::display::{ArrayFormatter, FormatOptions},
};
use base64::{display::Base64Display, engine::general_purpose::STANDARD};
use chrono::SecondsFormat;
use std::{
    fmt::{self, Display},
    io::Write,
    sync::Arc,
};

/// Lists, structs and maps stop when there is so much text. Whoever writes rows looks whether there is more.
pub(super) const TEXT_BYTES_MAX: usize = 256 << 20;

/// The columns of a batch, each with the function that writes its values.
pub struct CellWriter {
    names: Vec<Vec<u8>>,
    columns: Vec<CellColumn>,
}

/// Writes the value of a row that is not null.
type WriteValue = Box<dyn Fn(&mut Vec<u8>, usize) + Send>;

impl fmt::Debug for CellWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CellWriter").field("columns", &self.columns.len()).finish_non_exhaustive()
    }
}

struct CellColumn {
    nulls: Option<arrow::buffer::NullBuffer>,
    /// Whether the written value is already valid JSON and needs no quotes.
    shape: ValueShape,
    write: WriteValue,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ValueShape {
    /// A JSON number, `true`, `false` or `null`.
    Plain,
    /// Text without quotes.
    Text,
    /// A JSON array or object.
    Json,
}

impl CellWriter {
    /// The values of a batch.
    ///
    /// # Errors
    /// [`SqlError::Internal`] when a column has a type that has no text.
    pub fn new(batch: &RecordBatch) -> Result<Self, SqlError> {
        Self::of(batch.schema().fields(), batch.columns())
    }

    fn of(fields: &Fields, columns: &[ArrayRef]) -> Result<Self, SqlError> {
        let names = fields.iter().map(|field| {
            let mut name = Vec::new();
            write_json_text(&mut name, field.name());
            name
        });
        let columns = columns.iter().map(column).collect::<Result<_, _>>()?;
        Ok(Self { names: names.collect(), columns })
    }

    /// One value as JSON, `null` where there is none.
    pub fn write_json(&self, out: &mut Vec<u8>, column: usize, row: usize) {
        self.columns[column].write_json(out, row);
    }

    /// The values of a row, separated by commas.
    pub(super) fn write_json_values(&self, out: &mut Vec<u8>, row: usize) {
        write_list(out, &self.columns, |out, column| column.write_json(out, row));
    }

    /// A row as an object.
    pub(super) fn write_json_object(&self, out: &mut Vec<u8>, row: usize) {
        out.push(b'{');
        write_list(out, self.names.iter().zip(&self.columns), |out, (name, column)| {
            out.extend_from_slice(name);
            out.push(b':');
            column.write_json(out, row);
        });
        out.push(b'}');
    }

    /// A row as fields of a CSV line.
    pub(super) fn write_csv(&self, out: &mut Vec<u8>, row: usize) {
        write_list(out, &self.columns, |out, column| column.write_csv(out, row));
    }
}

impl CellColumn {
    fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }

    fn write_json(&self, out: &mut Vec<u8>, row: usize) {
        if self.is_null(row) {
            out.extend_from_slice(b"null");
            return;
        }
        match self.shape {
            ValueShape::Plain | ValueShape::Json => (self.write)(out, row),
            ValueShape::Text => {
                let start = out.len();
                (self.write)(out, row);
                let text = out.split_off(start);
                write_json_text(out, &String::from_utf8_lossy(&text));
            }
        }
    }

    fn write_csv(&self, out: &mut Vec<u8>, row: usize) {
        if self.is_null(row) {
            return;
        }
        let start = out.len();
        (self.write)(out, row);
        match self.shape {
            // NaN and infinities are null here as well.
            ValueShape::Plain if out[start..] == *b"null" => out.truncate(start),
            ValueShape::Plain => (),
            ValueShape::Text | ValueShape::Json => {
                let text = out.split_off(start);
                write_csv_text(out, &String::from_utf8_lossy(&text));
            }
        }
    }
}

/// Each of `items` as `write` writes it, with commas between them, until there is more than [`TEXT_BYTES_MAX`].
pub(super) fn write_list<T>(
    out: &mut Vec<u8>,
    items: impl IntoIterator<Item = T>,
    write: impl Fn(&mut Vec<u8>, T),
) {
    for (at, item) in items.into_iter().enumerate() {
        if TEXT_BYTES_MAX < out.len() {
            return;
        }
        if 0 < at {
            out.push(b',');
        }
        write(out, item);
    }
}

/// A text as a JSON string.
pub fn write_json_text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("writing to memory does not fail");
}

/// A text as a CSV field, quoted when it has to be.
pub(super) fn write_csv_text(out: &mut Vec<u8>, text: &str) {
    let plain = !text.is_empty()
        && !text.bytes().any(|byte| matches!(byte, b'"' | b',' | b'\n' | b'\r'))
        && !text.starts_with(' ')
        && !text.ends_with(' ');
    if plain {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    out.push(b'"');
    for byte in text.bytes() {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    out.push(b'"');
}

fn column(array: &ArrayRef) -> Result<CellColumn, SqlError> {
    let (shape, write) = writer(array)?;
    Ok(CellColumn { nulls: array.logical_nulls(), shape, write })
}

fn writer(array: &ArrayRef) -> Result<(ValueShape, WriteValue), SqlError> {
    let plain = |write: WriteValue| Ok((ValueShape::Plain, write));
    let text = |write: WriteValue| Ok((ValueShape::Text, write));
    match array.data_type() {
        DataType::Null => plain(Box::new(|out, _| out.extend_from_slice(b"null"))),
        DataType::Boolean => {
            let values = array.as_boolean().clone();
            plain(Box::new(move |out, row| {
                out.extend_from_slice(if values.value(row) { b"true" } else { b"false" });
            }))
        }
        DataType::Int8 => plain(number::<Int8Type>(array)),
        DataType::Int16 => plain(number::<Int16Type>(array)),
        DataType::Int32 => plain(number::<Int32Type>(array)),
        DataType::Int64 => plain(number::<Int64Type>(array)),
        DataType::UInt8 => plain(number::<UInt8Type>(array)),
        DataType::UInt16 => plain(number::<UInt16Type>(array)),
        DataType::UInt32 => plain(number::<UInt32Type>(array)),
        DataType::UInt64 => plain(number::<UInt64Type>(array)),
        DataType::Float16 => plain(float::<Float16Type>(array, |value| f64::from(value.to_f32()))),
        DataType::Float32 => plain(single(array)),
        DataType::Float64 => plain(float::<Float64Type>(array, |value| value)),
        DataType::Decimal32(_, scale) => text(decimal::<Decimal32Type>(array, *scale)),
        DataType::Decimal64(_, scale) => text(decimal::<Decimal64Type>(array, *scale)),
        DataType::Decimal128(_, scale) => text(decimal::<Decimal128Type>(array, *scale)),
        DataType::Decimal256(_, scale) => text(decimal::<Decimal256Type>(array, *scale)),
        DataType::Date32 => text(date::<Date32Type>(array, 1)),
        DataType::Date64 => text(date::<Date64Type>(array, 86_400_000)),
        DataType::Timestamp(TimeUnit::Second, _) => text(time::<TimestampSecondType>(array, 1)),
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            text(time::<TimestampMillisecondType>(array, 1_000))
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            text(time::<TimestampMicrosecondType>(array, 1_000_000))
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            text(time::<TimestampNanosecondType>(array, 1_000_000_000))
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => text(string(array)?),
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => text(binary(array)?),
        DataType::Dictionary(_, values) => writer(&converted(array, values)?),
        DataType::RunEndEncoded(_, values) => writer(&converted(array, values.data_type())?),
        DataType::List(_) => Ok((ValueShape::Json, list(array.as_list::<i32>())?)),
        DataType::LargeList(_) => Ok((ValueShape::Json, list(array.as_list::<i64>())?)),
        DataType::FixedSizeList(..) => {
            Ok((ValueShape::Json, fixed_size_list(array.as_fixed_size_list())?))
        }
        DataType::ListView(item) => writer(&converted(array, &DataType::List(Arc::clone(item)))?),
        DataType::LargeListView(item) => {
            writer(&converted(array, &DataType::LargeList(Arc::clone(item)))?)
        }
        DataType::Struct(_) => Ok((ValueShape::Json, object(array.as_struct())?)),
        DataType::Map(..) => Ok((ValueShape::Json, map(array.as_map())?)),
        DataType::Time32(_)
        | DataType::Time64(_)
        | DataType::Duration(_)
        | DataType::Interval(_)
        | DataType::Union(..) => text(displayed(array)),
    }
}

fn number<T>(array: &ArrayRef) -> WriteValue
where
    T: ArrowPrimitiveType,
    T::Native: Display,
{
    let values: PrimitiveArray<T> = array.as_primitive::<T>().clone();
    Box::new(move |out, row| write_displayed(out, &values.value(row)))
}

fn float<T: ArrowPrimitiveType>(array: &ArrayRef, wide: fn(T::Native) -> f64) -> WriteValue {
    let values: PrimitiveArray<T> = array.as_primitive::<T>().clone();
    Box::new(move |out, row| {
        let value = wide(values.value(row));
        // serde_json writes `null` for what JSON cannot say, and the shortest text that reads back.
        serde_json::to_writer(out, &value).expect("writing to memory does not fail");
    })
}

/// Apart from [`float`] because the shortest text of an `f32` is not that of the same `f64`.
fn single(array: &ArrayRef) -> WriteValue {
    let values: PrimitiveArray<Float32Type> = array.as_primitive::<Float32Type>().clone();
    Box::new(move |out, row| {
        serde_json::to_writer(out, &values.value(row)).expect("writing to memory does not fail");
    })
}

fn decimal<T: arrow::datatypes::DecimalType>(array: &ArrayRef, scale: i8) -> WriteValue {
    let values: PrimitiveArray<T> = array.as_primitive::<T>().clone();
    Box::new(move |out, row| {
        let text = T::format_decimal(values.value(row), T::MAX_PRECISION, scale);
        out.extend_from_slice(text.as_bytes());
    })
}

/// `per_second` of the type's values are a second. A time that has no date is written in seconds.
fn time<T: ArrowPrimitiveType<Native = i64>>(array: &ArrayRef, per_second: i64) -> WriteValue {
    let values: PrimitiveArray<T> = array.as_primitive::<T>().clone();
    Box::new(move |out, row| {
        let value = values.value(row);
        match as_datetime::<T>(value) {
            Some(time) => {
                let text = time.and_utc().to_rfc3339_opts(SecondsFormat::AutoSi, true);
                out.extend_from_slice(text.as_bytes());
            }
            None => write_displayed(out, &format_args!("{} s", value.div_euclid(per_second))),
        }
    })
}

/// `per_day` of the type's values are a day. A day that has no date is written as its number.
fn date<T>(array: &ArrayRef, per_day: i64) -> WriteValue
where
    T: ArrowPrimitiveType,
    T::Native: Into<i64>,
{
    let values: PrimitiveArray<T> = array.as_primitive::<T>().clone();
    Box::new(move |out, row| {
        let value = values.value(row).into();
        match as_datetime::<T>(value) {
            Some(time) => write_displayed(out, &time.date()),
            None => write_displayed(out, &format_args!("{} d", value / per_day)),
        }
    })
}

fn string(array: &ArrayRef) -> Result<WriteValue, SqlError> {
    let values = converted(array, &DataType::Utf8View)?.as_string_view().clone();
    Ok(Box::new(move |out, row| out.extend_from_slice(values.value(row).as_bytes())))
}

fn binary(array: &ArrayRef) -> Result<WriteValue, SqlError> {
    let values = converted(array, &DataType::LargeBinary)?.as_binary::<i64>().clone();
    Ok(Box::new(move |out, row| {
        write_displayed(out, &Base64Display::new(values.value(row), &STANDARD))
    }))
}

fn converted(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, SqlError> {
    cast(array, to).map_err(|error| {
        SqlError::Internal(format!(
            "a column of type {} cannot be written: {error}",
            array.data_type()
        ))
    })
}

fn list<O: OffsetSizeTrait>(array: &GenericListArray<O>) -> Result<WriteValue, SqlError> {
    let items = column(array.values())?;
    let offsets = array.offsets().clone();
    Ok(Box::new(move |out, row| {
        write_items(out, &items, offsets[row].as_usize()..offsets[row + 1].as_usize());
    }))
}

fn fixed_size_list(array: &FixedSizeListArray) -> Result<WriteValue, SqlError> {
    let items = column(array.values())?;
    let length = usize::try_from(array.value_length()).unwrap_or(0);
    Ok(Box::new(move |out, row| write_items(out, &items, row * length..(row + 1) * length)))
}

fn write_items(out: &mut Vec<u8>, items: &CellColumn, range: std::ops::Range<usize>) {
    out.push(b'[');
    write_list(out, range, |out, item| items.write_json(out, item));
    out.push(b']');
}

fn object(array: &StructArray) -> Result<WriteValue, SqlError> {
    let cells = CellWriter::of(array.fields(), array.columns())?;
    Ok(Box::new(move |out, row| cells.write_json_object(out, row)))
}

/// A map is an object whose members are its keys as text.
fn map(array: &MapArray) -> Result<WriteValue, SqlError> {
    let keys = string(&converted(array.keys(), &DataType::Utf8View)?)?;
    let values = column(array.values())?;
    let offsets = array.offsets().clone();
    Ok(Box::new(move |out, row| {
        out.push(b'{');
        write_list(out, offsets[row].as_usize()..offsets[row + 1].as_usize(), |out, entry| {
            let mut key = Vec::new();
            keys(&mut key, entry);
            write_json_text(out, &String::from_utf8_lossy(&key));
            out.push(b':');
            values.write_json(out, entry);
        });
        out.push(b'}');
    }))
}

/// For the rare types: what Arrow shows.
fn displayed(array: &ArrayRef) -> WriteValue {
    let array = ArrayRef::clone(array);
    Box::new(move |out, row| {
        let options = FormatOptions::default();
        match ArrayFormatter::try_new(array.as_ref(), &options) {
            Ok(formatter) => write_displayed(out, &formatter.value(row)),
            Err(error) => write_displayed(out, &error),
        }
    })
}

fn write_displayed(out: &mut Vec<u8>, value: &dyn Display) {
    write!(out, "{value}").expect("writing to memory does not fail");
}
