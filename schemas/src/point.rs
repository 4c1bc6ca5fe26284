//! A point in the history of a namespace's documents, as requests write it in `at`.
//!
//! A prefix says what a text is. A text without one is told by its form, as far as that goes; what it means in the
//! end depends on what the namespace has.

use chrono::{DateTime, NaiveDate};
use std::str::FromStr;

/// Longest text of a point, in bytes: a bookmark is a text of its sender.
const POINT_BYTES_MAX: usize = 1024;

/// The branch that every namespace has, whose state is what is acknowledged.
pub const MAIN_BRANCH: &str = "main";

/// A point in the history of documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HistoryPoint {
    /// Everything that is acknowledged.
    Now,
    /// After the event with this `seq`.
    Seq(u64),
    /// After the last event with this bookmark.
    Bookmark(String),
    /// This time, microseconds since 1970 UTC.
    Time(i64),
    /// What a snapshot of `events` has.
    Snapshot(i64),
    /// What a tag of `events` has.
    Tag(String),
    /// The head of a branch, which may be `main`.
    Branch(String),
    /// Before the first event of a request.
    Before(String),
    /// So many versions before the newest one of a document.
    Back(u32),
    /// A snapshot of `events` with this id, else the event with this `seq`.
    Number(u64),
    /// A bookmark, else a tag or a branch.
    Named(String),
}

/// Why a text is no point.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPoint {
    /// There is nothing.
    #[error("it is empty: leave it out for the state of now")]
    Empty,
    /// It is long.
    #[error("it is longer than {POINT_BYTES_MAX} bytes")]
    TooLong,
    /// A number should follow.
    #[error("`{0}` is not a whole number that fits: write it as in {1}")]
    NoNumber(String, &'static str),
    /// A time should follow.
    #[error(
        "`{0}` is no RFC 3339 time: write it as 2026-11-20T12:00:00Z, a `+` of its zone as %2B"
    )]
    NoTime(String),
}

impl HistoryPoint {
    /// The version that stands behind `@` in the address of a thing, where its form tells that it is one: `main`,
    /// `v17`, `~1`, a time, or the day of one.
    #[must_use]
    pub fn of_address(text: &str) -> Option<Self> {
        if text == MAIN_BRANCH {
            return Some(Self::Branch(MAIN_BRANCH.to_owned()));
        }
        let number = |digits: &str| digits.parse().ok().filter(|_| is_digits(digits));
        if let Some(seq) = text.strip_prefix('v').and_then(number) {
            return Some(Self::Seq(seq));
        }
        if let Some(back) = text.strip_prefix('~') {
            return back.parse().ok().filter(|_| is_digits(back)).map(Self::Back);
        }
        time(text).ok().map(Self::Time)
    }
}

impl FromStr for HistoryPoint {
    type Err = InvalidPoint;

    fn from_str(text: &str) -> Result<Self, InvalidPoint> {
        if text.is_empty() {
            return Err(InvalidPoint::Empty);
        }
        if POINT_BYTES_MAX < text.len() {
            return Err(InvalidPoint::TooLong);
        }
        if let Some(back) = text.strip_prefix('~') {
            return whole(back, "~1").map(Self::Back);
        }
        match text.split_once(':') {
            Some(("seq", seq)) => return whole(seq, "seq:17").map(Self::Seq),
            Some(("snapshot", id)) => {
                return whole(id, "snapshot:3051729675574597004").map(Self::Snapshot);
            }
            Some(("time", written)) => return time(written).map(Self::Time),
            Some((_, "")) => (),
            Some(("bookmark", bookmark)) => return Ok(Self::Bookmark(bookmark.to_owned())),
            Some(("tag", tag)) => return Ok(Self::Tag(tag.to_owned())),
            Some(("branch", branch)) => return Ok(Self::Branch(branch.to_owned())),
            Some(("before", request)) => return Ok(Self::Before(request.to_owned())),
            _ => (),
        }
        if let Some(number) = text.parse().ok().filter(|_| is_digits(text)) {
            return Ok(Self::Number(number));
        }
        if let Ok(time) = DateTime::parse_from_rfc3339(text) {
            return Ok(Self::Time(time.timestamp_micros()));
        }
        Ok(Self::Named(text.to_owned()))
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn whole<N: FromStr>(text: &str, example: &'static str) -> Result<N, InvalidPoint> {
    let number = text.parse().ok().filter(|_| is_digits(text));
    number.ok_or_else(|| InvalidPoint::NoNumber(text.to_owned(), example))
}

/// A time, or the start of a day in UTC.
fn time(text: &str) -> Result<i64, InvalidPoint> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.timestamp_micros());
    }
    let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok();
    let start = day.and_then(|day| day.and_hms_opt(0, 0, 0));
    let start = start.map(|start| start.and_utc().timestamp_micros());
    start.ok_or_else(|| InvalidPoint::NoTime(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_795_176_000_000_000;

    #[test]
    fn a_point_is_told_by_its_prefix_and_else_by_its_form() {
        let text = |text: &str| text.to_owned();
        for (written, expected) in [
            ("seq:17", HistoryPoint::Seq(17)),
            ("bookmark:a:b", HistoryPoint::Bookmark(text("a:b"))),
            ("bookmark:17", HistoryPoint::Bookmark(text("17"))),
            ("time:2026-11-20T12:00:00Z", HistoryPoint::Time(NOON)),
            ("time:2026-11-20T13:00:00.5+01:00", HistoryPoint::Time(NOON + 500_000)),
            ("time:1970-01-02", HistoryPoint::Time(86_400_000_000)),
            ("snapshot:3051729675574597004", HistoryPoint::Snapshot(3_051_729_675_574_597_004)),
            ("tag:daily-2026-11-20", HistoryPoint::Tag(text("daily-2026-11-20"))),
            ("branch:main", HistoryPoint::Branch(text("main"))),
            ("branch:experiment", HistoryPoint::Branch(text("experiment"))),
            ("before:req-1", HistoryPoint::Before(text("req-1"))),
            ("~0", HistoryPoint::Back(0)),
            ("~12", HistoryPoint::Back(12)),
            ("17", HistoryPoint::Number(17)),
            ("2026-11-20T12:00:00Z", HistoryPoint::Time(NOON)),
            ("99999999999999999999", HistoryPoint::Named(text("99999999999999999999"))),
            ("daily-2026-11-20", HistoryPoint::Named(text("daily-2026-11-20"))),
            ("a:b", HistoryPoint::Named(text("a:b"))),
            ("tag:", HistoryPoint::Named(text("tag:"))),
        ] {
            assert_eq!(written.parse::<HistoryPoint>(), Ok(expected), "{written}");
        }
    }

    #[test]
    fn what_is_no_point_says_how_one_is_written() {
        let long = "x".repeat(POINT_BYTES_MAX + 1);
        for (written, expected) in [
            ("", "it is empty"),
            (long.as_str(), "longer than 1024 bytes"),
            ("seq:", "write it as in seq:17"),
            ("seq:-1", "write it as in seq:17"),
            ("seq:+1", "write it as in seq:17"),
            ("snapshot:nightly", "`nightly` is not a whole number"),
            ("time:noon", "write it as 2026-11-20T12:00:00Z"),
            ("~", "write it as in ~1"),
            ("~x", "write it as in ~1"),
        ] {
            let error = written.parse::<HistoryPoint>().unwrap_err().to_string();
            assert!(error.contains(expected), "{written}: {error}");
        }
    }

    #[test]
    fn an_address_has_a_version_only_where_its_form_tells() {
        for (written, expected) in [
            ("main", Some(HistoryPoint::Branch("main".to_owned()))),
            ("v17", Some(HistoryPoint::Seq(17))),
            ("~1", Some(HistoryPoint::Back(1))),
            ("1970-01-02", Some(HistoryPoint::Time(86_400_000_000))),
            ("2026-11-20T12:00:00Z", Some(HistoryPoint::Time(NOON))),
            ("example.com", None),
            ("v1.example", None),
            ("~", None),
            ("17", None),
        ] {
            assert_eq!(HistoryPoint::of_address(written), expected, "{written}");
        }
    }
}
