use super::*;
use crate::event::json;

fn check(text: &str, expected: Option<i64>) {
    assert_eq!(parse(json::one_value(text).unwrap()), expected, "{text}");
}

fn peer(text: &str) -> Option<i64> {
    chrono::DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp_micros())
}

#[test]
fn rfc_3339_is_read_as_chrono_reads_it() {
    for text in [
        "1970-01-01T00:00:00Z",
        "2026-11-20T14:03:05Z",
        "2026-11-20T14:03:05.1Z",
        "2026-11-20T14:03:05.123456Z",
        "2026-11-20T14:03:05.123456789Z",
        "2026-11-20T14:03:05+02:00",
        "2026-11-20T14:03:05.5-09:30",
        "2024-02-29T23:59:59Z",
        "2000-02-29T00:00:00Z",
        "1969-12-31T23:59:59.999999Z",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "2023-02-29T00:00:00Z",
        "1900-02-29T00:00:00Z",
        "2026-04-31T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-00-01T00:00:00Z",
        "2026-01-00T00:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T00:60:00Z",
        "2026-01-01T00:00:00.Z",
    ] {
        check(&format!("\"{text}\""), peer(text));
    }
}

#[test]
fn every_day_of_400_years_follows_the_one_before() {
    let mut date = chrono::NaiveDate::from_ymd_opt(1890, 1, 1).unwrap();
    for _ in 0..146_097 {
        let text = date.format("%Y-%m-%d").to_string();
        let expected = date.and_hms_opt(0, 0, 0).unwrap().and_utc().timestamp() / 86_400;
        assert_eq!(days(text.as_bytes()), Some(expected), "{text}");
        date = date.succ_opt().unwrap();
    }
}

#[test]
fn looser_forms_of_iso_8601_are_read() {
    let at = |text| peer(text);
    check("\"2026-11-20T14:03:05\"", at("2026-11-20T14:03:05Z"));
    check("\"2026-11-20 14:03:05\"", at("2026-11-20T14:03:05Z"));
    check("\"2026-11-20 14:03:05.25+0100\"", at("2026-11-20T13:03:05.25Z"));
    check("\"2026-11-20T14:03:05+01\"", at("2026-11-20T13:03:05Z"));
    check("\"2026-11-20T14:03\"", at("2026-11-20T14:03:00Z"));
    check("\"2026-11-20t14:03:05z\"", at("2026-11-20T14:03:05Z"));
    check("\"2026-11-20\"", at("2026-11-20T00:00:00Z"));
    check("\"2026-12-31T23:59:60Z\"", at("2027-01-01T00:00:00Z"));
    check(r#""2026-11-20T14:03:05\u005a""#, at("2026-11-20T14:03:05Z"));
}

#[test]
fn an_epoch_is_seconds_milliseconds_or_microseconds_by_its_size() {
    let second = 1_795_183_385;
    let us = second * 1_000_000;
    check("1795183385", Some(us));
    check("1795183385.25", Some(us + 250_000));
    check("1795183385000", Some(us));
    check("1795183385000.5", Some(us + 500));
    check("1795183385000001", Some(us + 1));
    check("1795183385000001999", Some(us + 1));
    check("\"1795183385000\"", Some(us));
    check("1.795183385e9", Some(us));
    check("-1", Some(-1_000_000));
    check("0", Some(0));
}

#[test]
fn what_is_no_time_is_refused() {
    for text in [
        "\"yesterday-ish\"",
        "\"\"",
        "\"2026\"",
        "\"2026-11\"",
        "\"2026-11-20T\"",
        "\"2026-11-20T14\"",
        "\"2026-11-20T14:03:05Zjunk\"",
        "\"2026-11-20T14:03:05+\"",
        "\"2026-11-20T14:03:05+25:00\"",
        "\"20261120\"",
        "\"日本語日本語\"",
        "\"2026-11-20日\"",
        "1e300",
        "true",
        "[]",
        "{}",
    ] {
        check(text, None);
    }
}
