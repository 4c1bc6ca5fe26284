//! Offsets of time zones.
//!
//! The table of zones ends with 2099. What holds then goes on by rules such as the last Sunday of March, so a
//! later day has the offset of the same day of a year with the same days of the week.

use crate::time::{SECOND, each, naive, out_of_range, times};
use arrow::{
    array::{Array, ArrayRef, TimestampMicrosecondArray, timezone::Tz},
    datatypes::DataType,
};
use chrono::{Datelike, Days, NaiveDateTime, Offset, TimeZone};
use datafusion::{
    common::{exec_datafusion_err, exec_err},
    error::DataFusionError,
};
use icecore_lake::event::rows::UTC;
use std::{ops::RangeInclusive, sync::Arc};

/// Years of the table by which later ones go: after the last exception, which is Morocco's of 2087, and with
/// each day of the week for each day of a year.
const LAST_YEARS: RangeInclusive<i32> = 2089..=2099;

/// The zone of this name.
///
/// # Errors
/// There is none.
pub(super) fn zone(name: &str) -> Result<Tz, DataFusionError> {
    if name.starts_with(['+', '-']) {
        return exec_err!(
            "the offset `{name}` is not a time zone here: it counts to the west in PostgreSQL, and to the east elsewhere; use a name such as Europe/Berlin, or add an interval"
        );
    }
    name.parse().map_err(|_| {
        exec_datafusion_err!("`{name}` is not a time zone; use a name such as Europe/Berlin")
    })
}

/// `x AT TIME ZONE zone` of each row.
///
/// # Errors
/// A zone that is none, or a time beyond the calendar.
pub(super) fn at_time_zone(arrays: &[ArrayRef]) -> Result<ArrayRef, DataFusionError> {
    let is_instant = matches!(arrays[0].data_type(), DataType::Timestamp(_, Some(_)));
    let mut made = Vec::with_capacity(arrays[0].len());
    each(times(&arrays[0]), &arrays[1], zone, |row| {
        let time = row.map(|(time, zone)| {
            let moment = within_table(naive(time)?);
            let offset = if is_instant {
                zone.offset_from_utc_datetime(&moment).fix().local_minus_utc()
            } else {
                -offset_of_local(zone, &moment)
            };
            time.checked_add(i64::from(offset) * SECOND).ok_or_else(|| out_of_range(time))
        });
        made.push(time.transpose()?);
        Ok(())
    })?;
    let array = TimestampMicrosecondArray::from(made);
    let array = if is_instant { array } else { array.with_timezone(UTC) };
    Ok(Arc::new(array))
}

/// The offset of a wall clock's time. One that the clock shows twice is the second, one that it
/// leaves out is reckoned as if it had not been set yet, as PostgreSQL and DuckDB have it.
fn offset_of_local(zone: &Tz, moment: &NaiveDateTime) -> i32 {
    use chrono::offset::LocalResult;
    match zone.offset_from_local_datetime(moment) {
        LocalResult::Single(offset) => offset.fix().local_minus_utc(),
        LocalResult::Ambiguous(one, other) => {
            one.fix().local_minus_utc().min(other.fix().local_minus_utc())
        }
        LocalResult::None => {
            let before = moment.checked_sub_days(Days::new(1)).unwrap_or(*moment);
            zone.offset_from_utc_datetime(&before).fix().local_minus_utc()
        }
    }
}

/// A moment of the table that the zones treat like this one.
fn within_table(moment: NaiveDateTime) -> NaiveDateTime {
    if moment.year() <= *LAST_YEARS.end() {
        return moment;
    }
    let mut date = moment.date();
    // A year of the table for this one is no leap year, and no rule begins on that day.
    if (date.month(), date.day()) == (2, 29) {
        date = date.pred_opt().unwrap_or(date);
    }
    let mut same = LAST_YEARS
        .filter_map(|year| date.with_year(year))
        .filter(|other| !other.leap_year() && other.weekday() == date.weekday());
    same.next().map_or(moment, |date| date.and_time(moment.time()))
}
