//! Which values of a column may lie behind a partition value.
//!
//! Its one invariant: every value that a writer puts under the partition value is in the range.

use super::filter::datum;
use iceberg::spec::{Datum, PrimitiveLiteral, PrimitiveType, Transform};

const DAY_SECONDS: i64 = 86_400;

/// The end of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RangeEnd {
    Lower,
    Upper,
}

/// The lowest or highest value of the column behind a value of its partition field; none where
/// nothing follows.
pub(super) fn end(
    transform: Transform,
    value: &PrimitiveLiteral,
    source: &PrimitiveType,
    end: RangeEnd,
) -> Option<Datum> {
    match transform {
        Transform::Identity => datum(value, source),
        Transform::Truncate(width) => truncated(width, value, source, end),
        Transform::Year | Transform::Month | Transform::Day | Transform::Hour => {
            let PrimitiveLiteral::Int(unit) = value else { return None };
            let unit = i64::from(*unit);
            let per_second = match source {
                PrimitiveType::Date => None,
                PrimitiveType::Timestamp | PrimitiveType::Timestamptz => Some(1_000_000),
                PrimitiveType::TimestampNs | PrimitiveType::TimestamptzNs => Some(1_000_000_000),
                _ => return None,
            };
            // Old writers cut times before 1970 towards it, into the unit after theirs.
            let first = if unit <= 0 { unit - 1 } else { unit };
            let seconds = match end {
                RangeEnd::Lower => start_seconds(transform, first)?,
                RangeEnd::Upper => start_seconds(transform, unit + 1)?,
            };
            let start = match per_second {
                None => seconds / DAY_SECONDS,
                Some(per_second) => seconds.checked_mul(per_second)?,
            };
            let value = if end == RangeEnd::Upper { start.checked_sub(1)? } else { start };
            let value = match per_second {
                None => PrimitiveLiteral::Int(i32::try_from(value).ok()?),
                Some(_) => PrimitiveLiteral::Long(value),
            };
            datum(&value, source)
        }
        Transform::Bucket(_) | Transform::Void | Transform::Unknown => None,
    }
}

fn truncated(
    width: u32,
    value: &PrimitiveLiteral,
    source: &PrimitiveType,
    end: RangeEnd,
) -> Option<Datum> {
    use PrimitiveLiteral::{Int, Int128, Long, String};
    if is_wrapped(width, value) {
        return None;
    }
    if end == RangeEnd::Lower {
        return datum(value, source);
    }
    let last = i64::from(width) - 1;
    let value = match value {
        Int(value) => Long(i64::from(*value) + last),
        Long(value) => Long(value.checked_add(last)?),
        Int128(value) => Int128(value.checked_add(i128::from(last))?),
        String(text) if text.chars().count() < usize::try_from(width).ok()? => String(text.clone()),
        String(text) => String(successor(text)?),
        _ => return None,
    };
    match (&value, source) {
        // The end may lie beyond what the column can hold.
        (Long(value), PrimitiveType::Int | PrimitiveType::Long) => Some(Datum::long(*value)),
        _ => datum(&value, source),
    }
}

/// Whether a value that was cut went below the least one of its type and came out among the greatest,
/// as in Java. It is no multiple of the width then: if two to the power of the bits were one, the least
/// value would be one itself.
fn is_wrapped(width: u32, value: &PrimitiveLiteral) -> bool {
    number(value).is_some_and(|value| value.rem_euclid(i64::from(width.max(1))) != 0)
}

/// Whether values that wrapped around may lie in a range of cut values that ends here: then nothing
/// follows from where it begins.
pub(super) fn may_hide_wrapped(transform: Transform, highest: &PrimitiveLiteral) -> bool {
    let Transform::Truncate(width) = transform else { return false };
    let is_near = |most: i64, value: i64| value <= most && most - i64::from(width) < value;
    // A column of `long` may have been one of `int`.
    number(highest)
        .is_some_and(|value| is_near(i64::from(i32::MAX), value) || is_near(i64::MAX, value))
}

fn number(value: &PrimitiveLiteral) -> Option<i64> {
    match value {
        PrimitiveLiteral::Int(value) => Some(i64::from(*value)),
        PrimitiveLiteral::Long(value) => Some(*value),
        _ => None,
    }
}

/// A text above every text that starts with this one; none when there is none.
fn successor(text: &str) -> Option<String> {
    let mut kept = text;
    while let Some(last) = kept.chars().next_back() {
        kept = &kept[..kept.len() - last.len_utf8()];
        let next = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32);
        if let Some(next) = next {
            return Some(format!("{kept}{next}"));
        }
    }
    None
}

/// Seconds from 1970 to the start of a year, month, day or hour counted from there.
fn start_seconds(transform: Transform, unit: i64) -> Option<i64> {
    let days = match transform {
        Transform::Year => first_day(1970_i64.checked_add(unit)?, 1),
        Transform::Month => first_day(1970 + unit.div_euclid(12), unit.rem_euclid(12) + 1),
        Transform::Day => unit,
        Transform::Hour => return unit.checked_mul(3_600),
        _ => return None,
    };
    days.checked_mul(DAY_SECONDS)
}

/// Days from 1970 to the first of a month, in the Gregorian calendar.
fn first_day(year: i64, month: i64) -> i64 {
    // Counted in years that start in March, so that the leap day is a year's last.
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * month + 2) / 5;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}
