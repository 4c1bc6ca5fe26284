//! Times as text in the other forms that systems write: basic, ordinal and week dates of ISO 8601,
//! what Go, JavaScript, BigQuery and Java print, RFC 1123, the common log format, epochs as text.
//!
//! A form is read when it can mean one moment only. `02/03/2024`, years of two digits and names of
//! zones other than UTC cannot.

use super::{SECOND_US, clock_us, days, epoch, fraction, is_leap, offset_seconds, two};

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// Names of the zone that has no offset.
const UTC: [&str; 8] = ["z", "utc", "gmt", "ut", "etc/utc", "etc/gmt", "zulu", "uct"];
/// Fewest digits of an epoch in whole seconds: shorter ones may be dates (`20240229`) or years.
const EPOCH_DIGITS_MIN: usize = 9;

/// The microseconds since 1970 that the text stands for, if it has one of these forms.
pub(super) fn parse(text: &str) -> Option<i64> {
    if let Some(us) = epoch_text(text) {
        return Some(us);
    }
    let (text, zone) = without_suffixes(text)?;
    let moment = iso(text).or_else(|| words(text))?;
    match (moment.offset, zone) {
        // A zone's name alone would need its history of offsets.
        (None, Some(zone)) if !is_utc(zone) => None,
        _ => Some(moment.us()),
    }
}

/// Day, time of day and offset.
#[derive(Clone, Copy, Debug, Default)]
struct ParsedTime {
    days: i64,
    time_us: i64,
    offset: Option<i64>,
}

impl ParsedTime {
    fn us(self) -> i64 {
        (self.days * 86_400 - self.offset.unwrap_or(0)) * SECOND_US + self.time_us
    }
}

/// An epoch with a fraction, a minus or an exponent, or of nine digits and more.
fn epoch_text(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let whole = digits.bytes().take_while(u8::is_ascii_digit).count();
    if whole == 0 || text.bytes().any(|b| !b.is_ascii_digit() && !b"+-.eE".contains(&b)) {
        return None;
    }
    let is_negative = digits.len() < text.len();
    // `-2024` may be a year.
    let is_sure = EPOCH_DIGITS_MIN <= whole
        || (is_negative && (whole != 4 || whole < digits.len()))
        || (digits.contains(['e', 'E']) && text.parse::<f64>().is_ok_and(|n| 1e8 <= n));
    if is_sure { epoch(text) } else { None }
}

/// The text without what RFC 9557 puts in brackets behind it, and the zone among that.
fn without_suffixes(text: &str) -> Option<(&str, Option<&str>)> {
    let (mut text, mut zone) = (text, None);
    while let Some(inside) = text.strip_suffix(']') {
        let (before, tag) = inside.rsplit_once('[')?;
        if tag.starts_with('!') {
            // Critical, and not understood.
            return None;
        }
        if !tag.contains('=') {
            zone = Some(tag);
        }
        text = before.trim_end();
    }
    Some((text, zone))
}

fn is_utc(zone: &str) -> bool {
    UTC.iter().any(|name| name.eq_ignore_ascii_case(zone))
}

/// The forms that begin with the year.
fn iso(text: &str) -> Option<ParsedTime> {
    let bytes = text.as_bytes();
    let (days, used, is_basic) = date(bytes)?;
    let rest = text.get(used..)?;
    if rest.is_empty() {
        // Eight digits alone may be an epoch as well.
        return (!is_basic).then_some(ParsedTime { days, ..ParsedTime::default() });
    }
    let time = rest.strip_prefix(['T', 't']).or_else(|| rest.strip_prefix(' '))?;
    let (time_us, used) = time_of_day(time.trim_start().as_bytes())?;
    let zone = time.trim_start().get(used..)?.trim_start();
    Some(ParsedTime { days, time_us, offset: zone_offset(zone)? })
}

/// A date at the start: its day, its length, and whether it is written without separators.
fn date(text: &[u8]) -> Option<(i64, usize, bool)> {
    if let [b'+' | b'-', year @ ..] = text {
        // Six digits: JavaScript's form of years that four cannot say.
        let century = two(year.get(..2)?)?;
        let (day, used, is_basic) = date(&year[2..])?;
        return (text[0] == b'+' && century == 0 && !is_basic).then_some((day, used + 3, false));
    }
    let year = two(text.get(..2)?)? * 100 + two(text.get(2..4)?)?;
    let digits = text.iter().take_while(|b| b.is_ascii_digit()).count();
    let number = |range: std::ops::Range<usize>| {
        let part = text.get(range)?;
        let is_number = part.iter().all(u8::is_ascii_digit);
        is_number.then(|| part.iter().fold(0, |sum, b| sum * 10 + i64::from(b - b'0')))
    };
    let calendar = |month: i64, day: i64| days(format!("{year:04}-{month:02}-{day:02}").as_bytes());
    match (digits, text.get(4..)?) {
        (8, _) => Some((calendar(number(4..6)?, number(6..8)?)?, 8, true)),
        (7, _) => Some((ordinal(year, number(4..7)?)?, 7, true)),
        (4, [b'-', b'W' | b'w', _, _, b'-', _, ..]) => {
            Some((week(year, number(6..8)?, number(9..10)?)?, 10, false))
        }
        (4, [b'W' | b'w', _, _, _, ..]) => {
            Some((week(year, number(5..7)?, number(7..8)?)?, 8, true))
        }
        (4, [b'-' | b'/', _, _, b'-' | b'/', ..]) if text[4] == text[7] => {
            Some((calendar(number(5..7)?, number(8..10)?)?, 10, false))
        }
        (4, [b'-', _, _, _, ..]) => Some((ordinal(year, number(5..8)?)?, 8, false)),
        _ => None,
    }
}

/// The day of the year, from 1.
fn ordinal(year: i64, day: i64) -> Option<i64> {
    let length = 365 + i64::from(is_leap(year));
    let first = days(format!("{year:04}-01-01").as_bytes())?;
    (1..=length).contains(&day).then(|| first + day - 1)
}

/// The day of a week, both from 1; week 1 is the one with January 4th, and begins on a Monday.
fn week(year: i64, week: i64, day: i64) -> Option<i64> {
    let monday = |year: i64| {
        let fourth = days(format!("{year:04}-01-04").as_bytes())?;
        // 1970-01-01 was a Thursday.
        Some(fourth - (fourth + 3).rem_euclid(7))
    };
    let found = monday(year)? + (week - 1) * 7 + day - 1;
    let is_inside =
        (1..=7).contains(&day) && 1 <= week && monday(year + 1).is_none_or(|next| found < next);
    is_inside.then_some(found)
}

/// `HH:MM`, `HH:MM:SS`, `HHMM` or `HHMMSS`, with a fraction of a second: microseconds and length.
fn time_of_day(text: &[u8]) -> Option<(i64, usize)> {
    let colon = usize::from(text.get(2) == Some(&b':'));
    let hour = two(text.get(..2)?)?;
    let minute = two(text.get(2 + colon..4 + colon)?)?;
    let mut used = 4 + colon;
    let (mut second, mut fraction_us) = (0, 0);
    let has_seconds = match colon {
        1 => text.get(used) == Some(&b':'),
        _ => text.get(used).is_some_and(u8::is_ascii_digit),
    };
    if has_seconds {
        second = two(text.get(used + colon..used + colon + 2)?)?;
        used += colon + 2;
        if let Some(b'.' | b',') = text.get(used) {
            let (us, digits) = fraction(&text[used + 1..])?;
            fraction_us = us;
            used += 1 + digits;
        }
    }
    Some((clock_us(hour, minute, second, fraction_us)?, used))
}

/// What stands behind a time: nothing, UTC, an offset, and the zone's name or Go's monotonic clock
/// behind that. The outer option says whether it was understood.
fn zone_offset(text: &str) -> Option<Option<i64>> {
    let mut offset = None;
    for word in text.split_ascii_whitespace() {
        let is_name = word.len() <= 5 && word.bytes().all(|b| b.is_ascii_alphabetic());
        match (one_zone(word), offset) {
            (Some(found), None) => offset = Some(found),
            // Go names a zone that has no name by its offset once more.
            (Some(found), Some(before)) if found == before => {}
            (_, Some(_)) if is_name || word.starts_with("m=") => {}
            _ => return None,
        }
    }
    Some(offset)
}

/// `Z`, `UTC`, `+02:00`, `GMT+0200`.
fn one_zone(word: &str) -> Option<i64> {
    if is_utc(word) {
        return Some(0);
    }
    let sign = word.find(['+', '-'])?;
    let (name, offset) = word.split_at(sign);
    if name.is_empty() || is_utc(name) { offset_seconds(offset.as_bytes()) } else { None }
}

/// The forms with the month's name, in any order that leaves no doubt.
fn words(text: &str) -> Option<ParsedTime> {
    let text = text.split('(').next().unwrap_or("").trim_end();
    let separated: String = match text.split_once(':') {
        // `29/Feb/2024:12:34:56 +0000` of web servers' logs.
        Some((date, time)) if date.len() == 11 && date.as_bytes()[2] == b'/' => {
            format!("{} {time}", date.replace('/', " "))
        }
        _ => text.replace(',', " "),
    };
    let (mut day, mut month, mut year, mut time_us, mut offset) = (None, None, None, None, None);
    for word in separated.split_ascii_whitespace() {
        // `29-Feb-2024` of cookies.
        let parts: Vec<&str> = match word.split('-').collect::<Vec<_>>() {
            parts if parts.len() == 3 => parts,
            _ => vec![word],
        };
        for part in parts {
            let is_new = if let Some(number) = small_number(part) {
                day.replace(number).is_none()
            } else if let Some(number) = four_digits(part) {
                year.replace(number).is_none()
            } else if part.contains(':') && !part.starts_with(['+', '-']) && time_us.is_none() {
                let (us, used) = time_of_day(part.as_bytes())?;
                time_us.replace(us).is_none() && used == part.len()
            } else if let Some(number) = named(part, &MONTHS) {
                month.replace(number).is_none()
            } else if named(part, &WEEKDAYS).is_some() {
                true
            } else if let Some(found) = one_zone(part) {
                offset.replace(found).is_none()
            } else {
                // The zone's name behind its offset.
                offset.is_some() && part.len() <= 5 && part.bytes().all(|b| b.is_ascii_uppercase())
            };
            if !is_new {
                return None;
            }
        }
    }
    let date = format!("{:04}-{:02}-{:02}", year?, month? + 1, day?);
    Some(ParsedTime { days: days(date.as_bytes())?, time_us: time_us.unwrap_or(0), offset })
}

fn small_number(text: &str) -> Option<u32> {
    if text.len() <= 2 { digits(text) } else { None }
}

fn four_digits(text: &str) -> Option<u32> {
    if text.len() == 4 { digits(text) } else { None }
}

fn digits(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Which of the names the text is, in full or as its first three letters.
fn named(text: &str, names: &[&str]) -> Option<usize> {
    let start = text.get(..3)?.to_ascii_lowercase();
    let is_word = text.len() <= 9 && text.bytes().all(|b| b.is_ascii_alphabetic());
    names.iter().position(|name| *name == start).filter(|_| is_word)
}
