use super::*;
use crate::event::json::one_value;

fn check(column: usize, json: &str, expected: impl Into<Option<CellValue<'static>>>) {
    assert_eq!(convert(column, one_value(json).unwrap()), expected.into(), "{json}");
}

#[test]
fn integers_are_read_in_every_form_that_is_exact() {
    for (json, expected) in [
        ("7", Some(7)),
        ("-7", Some(-7)),
        ("7.0", Some(7)),
        ("7e2", Some(700)),
        ("\"7\"", Some(7)),
        ("\"-7\"", Some(-7)),
        ("9223372036854775807", Some(i64::MAX)),
        ("9223372036854775808", None),
        ("1e18", None),
        ("7.5", None),
        ("\"7x\"", None),
        ("\"\"", None),
        ("\"7.5\"", None),
        ("true", None),
        ("[7]", None),
    ] {
        check(names::LSN, json, expected.map(CellValue::Long));
    }
    check(names::LSN, "\"16/B374D848\"", Some(CellValue::Long(0x16_B374_D848)));
    check(names::LSN, "\"0/0\"", Some(CellValue::Long(0)));
    for text in ["\"/\"", "\"1/\"", "\"+1/1\"", "\"FFFFFFFF/FFFFFFFF\"", "\"123456789/1\""] {
        check(names::LSN, text, None);
    }
    check(names::CLOSE_CODE, "2147483648", None);
    check(names::CLOSE_CODE, "2147483647", Some(CellValue::Long(2_147_483_647)));
}

#[test]
fn null_fits_no_column() {
    for column in 0..COLUMNS {
        check(column, "null", None);
    }
}

#[test]
fn a_value_of_another_type_becomes_text_or_what_is_sure() {
    let text = |text: &'static str| Some(CellValue::Text(text.into()));
    let (duration, success) = (column("duration_ms"), column("success"));
    for (column, json, expected, is_kept) in [
        (names::SOURCE, "{\"a\": 1}", text("{\"a\": 1}"), false),
        (names::SOURCE, "[]", text("[]"), false),
        (names::SOURCE, "true", text("true"), false),
        (names::SOURCE, "1.50", text("1.50"), true),
        (names::SOURCE, "\"a\"", text("a"), true),
        (names::AFTER, "\"a\"", text("\"a\""), false),
        (names::AFTER, "{}", text("{}"), true),
        (names::META, "[1]", text("[1]"), false),
        (names::OP, "\"send\"", None, false),
        (names::OP, "{}", None, false),
        (success, "\"True\"", Some(CellValue::Bool(true)), false),
        (success, "0", Some(CellValue::Bool(false)), false),
        (success, "2", None, false),
        (success, "\"yes\"", None, false),
        (duration, "\"12.5\"", Some(CellValue::Double(12.5)), false),
        (duration, "\"12,5\"", None, false),
        (duration, "1e400", None, false),
        (duration, "-0", Some(CellValue::Double(-0.0)), true),
        (duration, "0.30000000000000004", Some(CellValue::Double(0.300_000_000_000_000_04)), true),
        (duration, "12.50000000000000000", Some(CellValue::Double(12.5)), true),
        (
            duration,
            "0.1234567890123456789",
            Some(CellValue::Double(0.123_456_789_012_345_68)),
            false,
        ),
        (duration, "9007199254740993", Some(CellValue::Double(9_007_199_254_740_992.0)), false),
        (names::CLOSE_CODE, "\"1000\"", Some(CellValue::Long(1000)), false),
    ] {
        let value = one_value(json).unwrap();
        assert_eq!(convert(column, value), expected, "{json}");
        let kept = convert(column, value).is_some() && cell::is_kept(column, value);
        assert_eq!(kept, is_kept, "{json}");
    }
}

fn column(name: &str) -> usize {
    names::find(name).unwrap().slot
}

#[test]
fn messages_cut_long_values_between_characters() {
    let long = "日".repeat(100);
    assert_eq!(excerpt(&long), format!("{}…", "日".repeat(60)));
    assert_eq!(excerpt("short"), "short");
}
