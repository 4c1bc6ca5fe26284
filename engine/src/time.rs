//! Functions of time in microseconds, which reach all dates that a table can hold.
//!
//! DataFusion 54 reckons `date_trunc`, `date_bin`, `to_char` and `AT TIME ZONE` in nanoseconds, so one
//! date before 1677 or after 2262 fails the whole query, and bins and truncations differ with zones
//! (apache/datafusion#25167). Here `AT TIME ZONE` means what it does in PostgreSQL and DuckDB: a time with
//! zone becomes the wall clock's time there, and a wall clock's time the instant.

mod zones;

use crate::{functions::returned, time_format::TimeFormat};
use arrow::{
    array::{Array, ArrayRef, AsArray, StringViewBuilder, TimestampMicrosecondArray},
    compute::cast,
    datatypes::{
        DataType, Field, FieldRef, IntervalMonthDayNanoType, IntervalUnit, TimeUnit,
        TimestampMicrosecondType, TimestampNanosecondType,
    },
};
use chrono::{DateTime, Datelike, Months, NaiveDate, NaiveDateTime};
use datafusion::{
    common::{ScalarValue, exec_datafusion_err, exec_err, plan_err},
    error::DataFusionError,
    logical_expr::{
        ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
        Volatility,
    },
};
use icecore_lake::event::rows::UTC;
use std::sync::Arc;

/// What `AT TIME ZONE` is planned as.
pub const AT_TIME_ZONE: &str = "at_time_zone";

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;
/// Years that calendar and zones are reckoned in; what they are made with ends some years later.
const YEARS_MAX: i32 = 200_000;
/// The Monday that `time_bucket` counts from, as TimescaleDB and DuckDB do: 2000-01-03.
const BUCKET_ORIGIN: i64 = 10_959 * DAY;
/// The month that its months count from: 2000-01-01.
const BUCKET_MONTH_ORIGIN: i64 = 10_957 * DAY;

/// Every function of this module.
#[must_use]
pub fn all() -> Vec<ScalarUDF> {
    [
        TimeFunctionKind::Trunc,
        TimeFunctionKind::Bin,
        TimeFunctionKind::Bucket,
        TimeFunctionKind::ToChar,
        TimeFunctionKind::Strftime,
        TimeFunctionKind::AtTimeZone,
    ]
    .into_iter()
    .map(|kind| {
        let signature = Signature::user_defined(Volatility::Immutable);
        let aliases = match kind {
            TimeFunctionKind::Trunc => vec!["datetrunc".to_owned()],
            TimeFunctionKind::ToChar => vec!["date_format".to_owned()],
            _ => Vec::new(),
        };
        ScalarUDF::from(TimeFunction { kind, aliases, signature })
    })
    .collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum TimeFunctionKind {
    Trunc,
    Bin,
    Bucket,
    ToChar,
    Strftime,
    AtTimeZone,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TimeFunction {
    kind: TimeFunctionKind,
    aliases: Vec<String>,
    signature: Signature,
}

fn stamp(zone: Option<&Arc<str>>) -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, zone.cloned())
}

/// The type in which a function gets a time.
fn given(function: &str, given: &DataType) -> Result<DataType, DataFusionError> {
    match given {
        DataType::Timestamp(TimeUnit::Nanosecond, _) => Ok(given.clone()),
        _ => reckoned(function, given),
    }
}

/// The type in which a time is reckoned.
fn reckoned(function: &str, given: &DataType) -> Result<DataType, DataFusionError> {
    match given {
        DataType::Timestamp(_, zone) => Ok(stamp(zone.as_ref())),
        DataType::Date32
        | DataType::Date64
        | DataType::Null
        | DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View => Ok(stamp(None)),
        other => plan_err!("`{function}` takes a timestamp or a date, not {other}"),
    }
}

impl ScalarUDFImpl for TimeFunction {
    fn name(&self) -> &str {
        match self.kind {
            TimeFunctionKind::Trunc => "date_trunc",
            TimeFunctionKind::Bin => "date_bin",
            TimeFunctionKind::Bucket => "time_bucket",
            TimeFunctionKind::ToChar => "to_char",
            TimeFunctionKind::Strftime => "strftime",
            TimeFunctionKind::AtTimeZone => AT_TIME_ZONE,
        }
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(match (self.kind, types) {
            (
                TimeFunctionKind::Trunc | TimeFunctionKind::Bin | TimeFunctionKind::Bucket,
                [_, time, ..],
            ) => reckoned(self.name(), time)?,
            (TimeFunctionKind::ToChar | TimeFunctionKind::Strftime, _) => DataType::Utf8View,
            (TimeFunctionKind::AtTimeZone, [DataType::Timestamp(_, Some(_)), ..]) => stamp(None),
            (TimeFunctionKind::AtTimeZone, _) => stamp(Some(&Arc::from(UTC))),
            (_, _) => return plan_err!("`{}` takes more arguments", self.name()),
        })
    }

    fn return_field_from_args(
        &self,
        args: ReturnFieldArgs<'_>,
    ) -> Result<FieldRef, DataFusionError> {
        // What is wrong whatever the rows are is refused even if there are none.
        let second = args.scalar_arguments.get(1).copied().flatten();
        if let Some(text) = second.and_then(ScalarValue::try_as_str).flatten() {
            match self.kind {
                TimeFunctionKind::AtTimeZone => zones::zone(text).map(|_| ()),
                TimeFunctionKind::ToChar => TimeFormat::of_to_char(text).map(|_| ()),
                TimeFunctionKind::Strftime => TimeFormat::of_strftime(text).map(|_| ()),
                TimeFunctionKind::Trunc | TimeFunctionKind::Bin | TimeFunctionKind::Bucket => {
                    Ok(())
                }
            }?;
        }
        let types: Vec<DataType> =
            args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, true)))
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>, DataFusionError> {
        let interval = || DataType::Interval(IntervalUnit::MonthDayNano);
        let text = || DataType::Utf8View;
        match (self.kind, types) {
            (TimeFunctionKind::Trunc, [_, time]) => Ok(vec![text(), given(self.name(), time)?]),
            (TimeFunctionKind::Bin | TimeFunctionKind::Bucket, [_, time]) => {
                Ok(vec![interval(), given(self.name(), time)?])
            }
            (TimeFunctionKind::Bin | TimeFunctionKind::Bucket, [_, time, _]) => {
                let time = given(self.name(), time)?;
                Ok(vec![interval(), time.clone(), time])
            }
            (TimeFunctionKind::ToChar | TimeFunctionKind::AtTimeZone, [time, _]) => {
                Ok(vec![given(self.name(), time)?, text()])
            }
            // DuckDB takes both orders.
            (TimeFunctionKind::Strftime, [pattern, time]) if is_text(pattern) && !is_text(time) => {
                Ok(vec![text(), given(self.name(), time)?])
            }
            (TimeFunctionKind::Strftime, [time, _]) => Ok(vec![given(self.name(), time)?, text()]),
            _ => plan_err!("`{}` does not take {} arguments", self.name(), types.len()),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let arrays: Vec<ArrayRef> = arrays.into_iter().map(in_micros).collect();
        let made = match self.kind {
            TimeFunctionKind::Trunc => trunc(&arrays)?,
            TimeFunctionKind::Bin => bin(&arrays, 0, 0)?,
            TimeFunctionKind::Bucket => bin(&arrays, BUCKET_ORIGIN, BUCKET_MONTH_ORIGIN)?,
            TimeFunctionKind::ToChar => format(&arrays[0], &arrays[1], TimeFormat::of_to_char)?,
            TimeFunctionKind::Strftime if is_text(arrays[0].data_type()) => {
                format(&arrays[1], &arrays[0], TimeFormat::of_strftime)?
            }
            TimeFunctionKind::Strftime => format(&arrays[0], &arrays[1], TimeFormat::of_strftime)?,
            TimeFunctionKind::AtTimeZone => zones::at_time_zone(&arrays)?,
        };
        returned(&args.args, made)
    }
}

/// Times in microseconds: those in nanoseconds are cut to the one before, also where they are before 1970.
fn in_micros(array: ArrayRef) -> ArrayRef {
    let DataType::Timestamp(TimeUnit::Nanosecond, zone) = array.data_type() else { return array };
    let nanos = array.as_primitive::<TimestampNanosecondType>();
    let micros = nanos.unary::<_, TimestampMicrosecondType>(|nanos| nanos.div_euclid(1_000));
    Arc::new(micros.with_timezone_opt(zone.clone()))
}

fn is_text(kind: &DataType) -> bool {
    matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// Goes over rows whose second value seldom changes: what is made of it is made once.
fn each<T>(
    times: &TimestampMicrosecondArray,
    texts: &ArrayRef,
    parse: impl Fn(&str) -> Result<T, DataFusionError>,
    mut value: impl FnMut(Option<(i64, &T)>) -> Result<(), DataFusionError>,
) -> Result<(), DataFusionError> {
    let mut last: Option<(&str, T)> = None;
    for (time, text) in times.iter().zip(texts.as_string_view()) {
        let (Some(time), Some(text)) = (time, text) else {
            value(None)?;
            continue;
        };
        if last.as_ref().is_none_or(|(known, _)| *known != text) {
            last = Some((text, parse(text)?));
        }
        value(last.as_ref().map(|(_, parsed)| (time, parsed)))?;
    }
    Ok(())
}

/// Times with the zone that `like` has.
fn with_zone_of(like: &ArrayRef, times: Vec<Option<i64>>) -> Result<ArrayRef, DataFusionError> {
    let array: ArrayRef = Arc::new(TimestampMicrosecondArray::from(times));
    let DataType::Timestamp(_, zone) = like.data_type() else { return Ok(array) };
    let array = array.as_primitive::<TimestampMicrosecondType>().clone();
    Ok(Arc::new(array.with_timezone_opt(zone.clone())))
}

fn times(array: &ArrayRef) -> &TimestampMicrosecondArray {
    array.as_primitive::<TimestampMicrosecondType>()
}

fn naive(time: i64) -> Result<NaiveDateTime, DataFusionError> {
    let moment = DateTime::from_timestamp_micros(time).map(|moment| moment.naive_utc());
    let moment = moment.filter(|moment| moment.year().abs() < YEARS_MAX);
    moment.ok_or_else(|| out_of_range(time))
}

fn out_of_range(time: i64) -> DataFusionError {
    exec_datafusion_err!("the time {time} µs since 1970 is out of range")
}

fn micros(moment: NaiveDateTime) -> i64 {
    moment.and_utc().timestamp_micros()
}

/// What a time is cut to.
enum TruncUnit {
    Micros { size: i64, offset: i64 },
    Months(i32),
}

fn unit(name: &str) -> Result<TruncUnit, DataFusionError> {
    let even = |size| Ok(TruncUnit::Micros { size, offset: 0 });
    let lower = name.to_lowercase();
    let one = match lower.as_str() {
        "us" => "microsecond",
        "ms" => "millisecond",
        other => other.strip_suffix('s').unwrap_or(other),
    };
    match one {
        "microsecond" => even(1),
        "millisecond" => even(1_000),
        "second" => even(SECOND),
        "minute" => even(60 * SECOND),
        "hour" => even(3_600 * SECOND),
        "day" => even(DAY),
        // 1970 began on a Thursday, a week begins on a Monday.
        "week" => Ok(TruncUnit::Micros { size: 7 * DAY, offset: -3 * DAY }),
        "month" => Ok(TruncUnit::Months(1)),
        "quarter" => Ok(TruncUnit::Months(3)),
        "year" => Ok(TruncUnit::Months(12)),
        "decade" => Ok(TruncUnit::Months(120)),
        _ => exec_err!(
            "date_trunc does not know `{name}`; it takes microsecond, millisecond, second, minute, hour, day, week, month, quarter, year or decade"
        ),
    }
}

fn trunc(arrays: &[ArrayRef]) -> Result<ArrayRef, DataFusionError> {
    let mut made = Vec::with_capacity(arrays[1].len());
    each(times(&arrays[1]), &arrays[0], unit, |row| {
        made.push(row.map(|(time, unit)| cut(time, unit)).transpose()?);
        Ok(())
    })?;
    with_zone_of(&arrays[1], made)
}

fn cut(time: i64, unit: &TruncUnit) -> Result<i64, DataFusionError> {
    match unit {
        TruncUnit::Micros { size, offset } => floor(time, *size, *offset),
        TruncUnit::Months(months) => {
            let date = naive(time)?.date();
            let month = date.year() * 12 + date.month0().cast_signed();
            first_of_month(month.div_euclid(*months) * months)
        }
    }
}

/// The greatest multiple of `size` from `origin` that is not above `time`.
fn floor(time: i64, size: i64, origin: i64) -> Result<i64, DataFusionError> {
    let (size, origin) = (i128::from(size), i128::from(origin));
    let floor = origin + (i128::from(time) - origin).div_euclid(size) * size;
    i64::try_from(floor).map_err(|_| out_of_range(time))
}

/// The start of a month, counted from the year 0.
fn first_of_month(month: i32) -> Result<i64, DataFusionError> {
    let (year, month) = (month.div_euclid(12), month.rem_euclid(12).cast_unsigned() + 1);
    let date = NaiveDate::from_ymd_opt(year, month, 1)
        .ok_or_else(|| exec_datafusion_err!("the year {year} is out of range"))?;
    Ok(micros(date.and_time(chrono::NaiveTime::MIN)))
}

fn bin(arrays: &[ArrayRef], origin: i64, months_origin: i64) -> Result<ArrayRef, DataFusionError> {
    let strides = arrays[0].as_primitive::<IntervalMonthDayNanoType>();
    let origins = arrays.get(2).map(times);
    let mut made = Vec::with_capacity(strides.len());
    for (row, (stride, time)) in strides.iter().zip(times(&arrays[1])).enumerate() {
        let given = origins.map(|origins| origins.is_valid(row).then(|| origins.value(row)));
        let (Some(stride), Some(time)) = (stride, time) else {
            made.push(None);
            continue;
        };
        if given == Some(None) {
            made.push(None);
            continue;
        }
        let given = given.flatten();
        made.push(Some(match (stride.months, stride.days, stride.nanoseconds) {
            (1.., 0, 0) => bin_months(time, stride.months, given.unwrap_or(months_origin))?,
            (0, days, nanos) => {
                let size = i64::from(days).checked_mul(DAY);
                let size = size.and_then(|size| size.checked_add(nanos / 1_000));
                match size {
                    Some(size) if 0 < size && nanos % 1_000 == 0 => {
                        floor(time, size, given.unwrap_or(origin))?
                    }
                    _ => return exec_err!("the stride of bins must be a positive interval"),
                }
            }
            _ => {
                return exec_err!(
                    "the stride of bins must be a positive interval, of months only or of days and smaller units"
                );
            }
        }));
    }
    with_zone_of(&arrays[1], made)
}

fn bin_months(time: i64, months: i32, origin: i64) -> Result<i64, DataFusionError> {
    let (origin_at, at) = (naive(origin)?, naive(time)?);
    let between = |a: &NaiveDateTime| a.year() * 12 + a.month0().cast_signed();
    let passed = (between(&at) - between(&origin_at)).div_euclid(months) * months;
    let plus = |passed: i32| {
        let step = Months::new(passed.unsigned_abs());
        let moved = if passed < 0 {
            origin_at.checked_sub_months(step)
        } else {
            origin_at.checked_add_months(step)
        };
        moved.map(micros).ok_or_else(|| out_of_range(time))
    };
    let start = plus(passed)?;
    if start <= time { Ok(start) } else { plus(passed - months) }
}

fn format(
    moments: &ArrayRef,
    patterns: &ArrayRef,
    parse: impl Fn(&str) -> Result<TimeFormat, DataFusionError>,
) -> Result<ArrayRef, DataFusionError> {
    let mut texts = StringViewBuilder::with_capacity(moments.len());
    each(times(moments), patterns, parse, |row| {
        match row {
            Some((time, format)) => texts.append_value(format.write(naive(time)?)?),
            None => texts.append_null(),
        }
        Ok(())
    })?;
    Ok(Arc::new(texts.finish()))
}

/// A time of hours and minutes with its seconds, which Arrow wants to see; none for any other text.
#[must_use]
pub fn with_seconds(text: &str) -> Option<String> {
    let text = text.trim();
    let (day, rest) = text.split_at_checked(text.find(['T', 't', ' '])? + 1)?;
    let (clock, zone) = rest.split_at_checked(5)?;
    let is_digit = |at: usize| clock.as_bytes()[at].is_ascii_digit();
    let is_clock = [0, 1, 3, 4].into_iter().all(is_digit) && clock.as_bytes()[2] == b':';
    let ends = !zone.starts_with([':', '.']) && !zone.starts_with(|c: char| c.is_ascii_digit());
    (is_clock && ends).then(|| format!("{day}{clock}:00{zone}"))
}

/// Microseconds of an interval or a duration, a month as 30 days and a day as 24 hours.
///
/// # Errors
/// It is longer than 64 bits of them.
pub(super) fn interval_micros(array: &ArrayRef) -> Result<ArrayRef, DataFusionError> {
    use arrow::array::Int64Array;
    if let DataType::Duration(_) = array.data_type() {
        let micros = cast(array, &DataType::Duration(TimeUnit::Microsecond))?;
        return Ok(cast(&micros, &DataType::Int64)?);
    }
    let intervals = cast(array, &DataType::Interval(IntervalUnit::MonthDayNano))?;
    let values = intervals.as_primitive::<IntervalMonthDayNanoType>().iter().map(|interval| {
        let micros = |interval: arrow::datatypes::IntervalMonthDayNano| {
            let days = i64::from(interval.months) * 30 + i64::from(interval.days);
            let micros = days.checked_mul(DAY)?;
            micros.checked_add(interval.nanoseconds.div_euclid(1_000))
        };
        let too_long = || exec_datafusion_err!("an interval is too long to be compared");
        interval.map(|interval| micros(interval).ok_or_else(too_long)).transpose()
    });
    Ok(Arc::new(values.collect::<Result<Int64Array, _>>()?))
}
