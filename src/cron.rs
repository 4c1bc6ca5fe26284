//! Times of day at which something runs, written as a cron expression, in UTC.
//!
//! Its one invariant: an expression that was taken has a next time, so nothing waits for a day that
//! never comes.

use chrono::{DateTime, Utc};
use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use std::fmt;

/// Where an expression is tried: whoever has no time after it has none at all that matters.
const TRIED_MS: i64 = 0;
/// The fields of an expression, each with its values.
const FIELDS: [(&str, &str); 5] = [
    ("minute", "0 to 59"),
    ("hour", "0 to 23"),
    ("day", "1 to 31"),
    ("month", "1 to 12 or `jan` to `dec`"),
    ("weekday", "0 to 7 or `sun` to `sat`"),
];

/// Why a text is no cron expression.
#[derive(Debug, thiserror::Error)]
pub enum CronError {
    /// It does not read.
    #[error(
        "is not five fields, minute hour day month weekday in UTC, such as `0 0 * * *` for each \
         midnight or `*/15 * * * *` for each quarter of an hour"
    )]
    Form(#[source] croner::errors::CronError),
    /// One of the five fields does not read.
    #[error(
        "has `{text}` for the {field}: write {range}, `*`, or lists, ranges from low to high and steps, \
         such as `1,3`, `1-5` or `*/2`"
    )]
    Field {
        /// Which one.
        field: &'static str,
        /// What it has.
        text: String,
        /// Its values.
        range: &'static str,
        /// Why it does not read.
        source: croner::errors::CronError,
    },
    /// No day is like that.
    #[error("names a day that never comes; `0 0 1 * *` is the first of each month")]
    Never(#[source] croner::errors::CronError),
}

/// The times of a cron expression, each at the start of a minute.
#[derive(Clone, PartialEq, Eq)]
pub struct CronTimes {
    text: String,
    cron: Cron,
}

impl CronTimes {
    /// Reads five fields, or one of `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`.
    ///
    /// # Errors
    /// [`CronError`]; its text follows the expression.
    pub fn parse(text: &str) -> Result<Self, CronError> {
        let cron = read(text).map_err(|cause| fault(text, cause))?;
        let tried = second_of(TRIED_MS).unwrap_or_default();
        cron.find_next_occurrence(&tried, false).map_err(CronError::Never)?;
        Ok(Self { text: text.trim().to_owned(), cron })
    }

    /// The first time after this one, both in milliseconds since 1970; none beyond the calendar.
    #[must_use]
    pub fn after(&self, ms: i64) -> Option<i64> {
        let next = self.cron.find_next_occurrence(&second_of(ms)?, false);
        next.ok().map(|time| time.timestamp_millis())
    }

    /// The last time that is not after this one, both in milliseconds since 1970; none before the calendar.
    #[must_use]
    pub fn last(&self, ms: i64) -> Option<i64> {
        let last = self.cron.find_previous_occurrence(&second_of(ms)?, true);
        last.ok().map(|time| time.timestamp_millis())
    }
}

impl fmt::Display for CronTimes {
    /// As it was written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for CronTimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CronTimes").field(&self.text).finish()
    }
}

fn read(text: &str) -> Result<Cron, croner::errors::CronError> {
    CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build().parse(text)
}

/// What is wrong with a text that does not read: the first of five fields that does not read alone either.
fn fault(text: &str, cause: croner::errors::CronError) -> CronError {
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return CronError::Form(cause);
    }
    for (at, (text, (field, range))) in fields.into_iter().zip(FIELDS).enumerate() {
        let mut alone = ["*"; FIELDS.len()];
        alone[at] = text;
        if let Err(source) = read(&alone.join(" ")) {
            return CronError::Field { field, text: text.to_owned(), range, source };
        }
    }
    CronError::Form(cause)
}

/// The second that a moment is in.
fn second_of(ms: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(ms.div_euclid(1000), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(time: &str) -> i64 {
        time.parse::<DateTime<Utc>>().unwrap().timestamp_millis()
    }

    /// The last time that is not after `now`, and the first after it.
    fn check(expression: &str, now: &str, (last, next): (&str, &str)) {
        let times = CronTimes::parse(expression).unwrap();
        assert_eq!(times.last(ms(now)), Some(ms(last)), "{expression} at {now}");
        assert_eq!(times.after(ms(now)), Some(ms(next)), "{expression} at {now}");
        assert_eq!(times.to_string(), expression);
    }

    #[test]
    fn times_are_those_of_the_expression_in_utc() {
        let midnights = ("2026-11-29T00:00:00Z", "2026-11-30T00:00:00Z");
        for now in ["2026-11-29T00:00:00Z", "2026-11-29T00:00:00.500Z", "2026-11-29T23:59:59.999Z"]
        {
            check("0 0 * * *", now, midnights);
        }
        check(
            "5 * * * *",
            "2026-11-29T12:00:00Z",
            ("2026-11-29T11:05:00Z", "2026-11-29T12:05:00Z"),
        );
        check(
            "*/15 8-9 * * mon-fri",
            "2026-11-29T12:00:00Z",
            ("2026-11-27T09:45:00Z", "2026-11-30T08:00:00Z"),
        );
        check(
            "30 2 1 * *",
            "2026-12-31T23:59:59Z",
            ("2026-12-01T02:30:00Z", "2027-01-01T02:30:00Z"),
        );
        check(
            "0 0 29 2 *",
            "2026-11-29T12:00:00Z",
            ("2024-02-29T00:00:00Z", "2028-02-29T00:00:00Z"),
        );
        check("@daily", "2026-11-29T12:00:00Z", midnights);
        // An hour that summer time leaves out or repeats elsewhere is an hour like any other.
        check(
            "30 2 * * *",
            "2026-03-29T02:30:00Z",
            ("2026-03-29T02:30:00Z", "2026-03-30T02:30:00Z"),
        );
    }

    #[test]
    fn a_text_that_is_no_expression_is_refused() {
        for text in ["", "daily", "@reboot", "* * * *", "0 0 0 * * *"] {
            assert!(matches!(CronTimes::parse(text), Err(CronError::Form(_))), "{text}");
        }
        for (text, told) in [
            ("60 * * * *", "has `60` for the minute: write 0 to 59,"),
            ("5-1 * * * *", "has `5-1` for the minute: write 0 to 59,"),
            ("*/0 * * * *", "has `*/0` for the minute: write 0 to 59,"),
            ("5 25 * * *", "has `25` for the hour: write 0 to 23,"),
            ("x 0 * * *", "has `x` for the minute: write 0 to 59,"),
            ("0 0 32 * *", "has `32` for the day: write 1 to 31,"),
            ("0 0 * 13 *", "has `13` for the month: write 1 to 12"),
            ("0 0 * * 8", "has `8` for the weekday: write 0 to 7"),
        ] {
            let cause = CronTimes::parse(text).unwrap_err();
            assert!(matches!(cause, CronError::Field { .. }), "{text}: {cause:?}");
            assert!(cause.to_string().starts_with(told), "{text}: {cause}");
        }
        for text in ["0 0 30 2 *", "0 0 31 4,6 *"] {
            assert!(matches!(CronTimes::parse(text), Err(CronError::Never(_))), "{text}");
        }
    }
}
