use super::*;
use crate::event::json::one_value;

fn check(column: usize, json: &str, expected: impl Into<Option<Cell<'static>>>) {
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
        check(names::LSN, json, expected.map(Cell::Long));
    }
    check(names::LSN, "\"16/B374D848\"", Some(Cell::Long(0x16_B374_D848)));
    check(names::LSN, "\"0/0\"", Some(Cell::Long(0)));
    for text in ["\"/\"", "\"1/\"", "\"+1/1\"", "\"FFFFFFFF/FFFFFFFF\"", "\"123456789/1\""] {
        check(names::LSN, text, None);
    }
    check(names::CLOSE_CODE, "2147483648", None);
    check(names::CLOSE_CODE, "2147483647", Some(Cell::Long(2_147_483_647)));
}

#[test]
fn null_fits_no_column() {
    for column in 0..COLUMNS {
        check(column, "null", None);
    }
}

#[test]
fn every_refusal_says_what_would_fit() {
    for column in 0..COLUMNS {
        assert!(!cell::wanted(column).is_empty());
    }
}

#[test]
fn messages_cut_long_values_between_characters() {
    let long = "日".repeat(100);
    assert_eq!(excerpt(&long), format!("{}…", "日".repeat(60)));
    assert_eq!(excerpt("short"), "short");
}
