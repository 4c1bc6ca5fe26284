//! Timestamps: ISO 8601 text and epoch numbers to microseconds since 1970 UTC.
//!
//! Leaves the accepted window to `normalize`, and rarer forms of text to `forms`.

mod forms;

use crate::event::json::{JsonKind, JsonValue};
use std::ops::RangeInclusive;

const SECOND_US: i64 = 1_000_000;
/// What every engine can read: 0001-01-01T00:00:00Z to 9999-12-31T23:59:59.999999Z.
const READABLE_US: RangeInclusive<i64> = -62_135_596_800_000_000..=253_402_300_799_999_999;

/// The microseconds a timestamp stands for; none when it is not one, or lies outside of the years
/// 0001 to 9999 in UTC.
///
/// A number is seconds, milliseconds, microseconds or nanoseconds by its size: below 10¹¹
/// (the year 5138 in seconds, 1973 in milliseconds) it is seconds, and so on by thousands.
pub(crate) fn parse(value: JsonValue<'_>) -> Option<i64> {
    let us = match value.kind {
        JsonKind::Number => epoch(value.raw),
        JsonKind::Plain | JsonKind::Escaped => {
            let text = value.text()?;
            let text = text.trim();
            iso(text.as_bytes()).or_else(|| forms::parse(text))
        }
        JsonKind::Null | JsonKind::Bool | JsonKind::Array | JsonKind::Object => None,
    };
    us.filter(|us| READABLE_US.contains(us))
}

fn epoch(number: &str) -> Option<i64> {
    if let Ok(whole) = number.parse::<i64>() {
        return match whole.unsigned_abs() {
            0..100_000_000_000 => whole.checked_mul(SECOND_US),
            100_000_000_000..100_000_000_000_000 => whole.checked_mul(1_000),
            100_000_000_000_000..100_000_000_000_000_000 => Some(whole),
            _ => Some(whole.div_euclid(1_000)),
        };
    }
    let number: f64 = number.parse().ok()?;
    let us = match number.abs() {
        size if size < 1e11 => number * 1e6,
        size if size < 1e14 => number * 1e3,
        size if size < 1e17 => number,
        _ => number / 1e3,
    };
    // The cast is exact to the microsecond: a double has 53 bits, today's microseconds need 51.
    (us.abs() < 9.2e18).then_some(us.round() as i64)
}

/// `2026-11-20`, `2026-11-20T14:03`, `2026-11-20 14:03:05.123456+02:00` and forms between them;
/// without an offset it is UTC, digits beyond microseconds are cut.
fn iso(text: &[u8]) -> Option<i64> {
    let (date, rest) = text.split_at_checked(10)?;
    let day = days(date)?;
    if rest.is_empty() {
        return day.checked_mul(86_400 * SECOND_US);
    }
    if !matches!(rest[0], b'T' | b't' | b' ') || rest.get(3) != Some(&b':') {
        return None;
    }
    let hour = two(&rest[1..3])?;
    let minute = two(rest.get(4..6)?)?;
    let mut rest = &rest[6..];
    let (mut second, mut fraction_us) = (0, 0);
    if let Some(b':') = rest.first() {
        second = two(rest.get(1..3)?)?;
        rest = &rest[3..];
        if let Some(b'.' | b',') = rest.first() {
            let (us, digits) = fraction(&rest[1..])?;
            fraction_us = us;
            rest = &rest[1 + digits..];
        }
    }
    let clock_us = clock_us(hour, minute, second, fraction_us)?;
    Some((day * 86_400 - offset_seconds(rest)?) * SECOND_US + clock_us)
}

/// The digits of a fraction of a second: its microseconds, and how many digits there are.
fn fraction(text: &[u8]) -> Option<(i64, usize)> {
    let digits = text.iter().take_while(|b| b.is_ascii_digit()).count();
    let mut us = 0;
    for place in 0..6 {
        let digit = text.get(place).filter(|_| place < digits);
        us = us * 10 + digit.map_or(0, |digit| i64::from(digit - b'0'));
    }
    (digits > 0).then_some((us, digits))
}

/// The microseconds of a day until this time of it.
fn clock_us(hour: i64, minute: i64, second: i64, fraction_us: i64) -> Option<i64> {
    // Second 60 is a leap second; as elsewhere it is the first of the next minute. Hour 24 is the
    // end of the day.
    let is_end = hour == 24 && minute == 0 && second == 0 && fraction_us == 0;
    if (hour > 23 && !is_end) || minute > 59 || second > 60 {
        return None;
    }
    Some((hour * 3_600 + minute * 60 + second) * SECOND_US + fraction_us)
}

/// Empty, `Z`, `+02:00`, `+0200`, `+02` or, as zones once had it, `+00:53:28`.
fn offset_seconds(text: &[u8]) -> Option<i64> {
    let (sign, rest) = match text {
        [] | [b'Z' | b'z'] => return Some(0),
        [b'+', rest @ ..] => (1, rest),
        [b'-', rest @ ..] => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = match rest.len() {
        2 => (two(rest)?, 0),
        4 => (two(&rest[..2])?, two(&rest[2..])?),
        5 | 8 if rest[2] == b':' => (two(&rest[..2])?, two(&rest[3..5])?),
        _ => return None,
    };
    let seconds = match rest.get(5..) {
        Some([b':', seconds @ ..]) => two(seconds)?,
        _ => 0,
    };
    let is_offset = hours < 24 && minutes < 60 && seconds < 60;
    is_offset.then_some(sign * (hours * 3_600 + minutes * 60 + seconds))
}

/// Days from 1970-01-01 to `YYYY-MM-DD` in the Gregorian calendar.
fn days(date: &[u8]) -> Option<i64> {
    if date[4] != b'-' || date[7] != b'-' {
        return None;
    }
    let year = two(&date[..2])? * 100 + two(&date[2..4])?;
    let month = two(&date[5..7])?;
    let day = two(&date[8..10])?;
    let length = match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(is_leap(year)),
        1..=12 => 31,
        _ => return None,
    };
    if day < 1 || day > length {
        return None;
    }
    // Years counted from March, so that the leap day is the last of its year.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn two(digits: &[u8]) -> Option<i64> {
    match digits {
        [a @ b'0'..=b'9', b @ b'0'..=b'9'] => Some(i64::from((a - b'0') * 10 + (b - b'0'))),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
