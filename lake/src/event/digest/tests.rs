use super::*;

fn of(text: &str) -> u128 {
    digest(json::one_value(text).unwrap())
}

#[test]
fn texts_that_say_the_same_have_one_digest() {
    for texts in [
        &["1", "1.0", "10e-1", "0.1e1", "1E0", "1000e-3", "0.001E+3"][..],
        &["0", "-0", "0.00", "0e9"],
        &["-12.50", "-12.5", "-125e-1"],
        &["\"é\"", "\"\\u00e9\"", "\"\\u00E9\""],
        &["\"a/b\"", "\"a\\/b\""],
        &["\"😀\"", "\"\\ud83d\\ude00\""],
        &["{\"a\":1,\"b\":2}", "{ \"b\" : 2.0, \"a\":1 }", "{\"\\u0061\":1,\"b\":2,\"c\":null}"],
        &["{\"a\":2}", "{\"a\":1,\"a\":2}", "{\"\\u0061\":1,\"a\":2.0}"],
        &["{}", "{\"a\":1,\"a\":null}", "{\"a\":null}"],
        &["[{\"a\":{\"b\":1}}]", "[{\"a\":2,\"a\":{\"b\":2,\"b\":1}}]"],
        &["[1,[],{}]", "[ 1.0, [ ], { } ]"],
        &["12345678901234567890123", "12345678901234567890123.0"],
    ] {
        for text in texts {
            assert_eq!(of(text), of(texts[0]), "{text} and {}", texts[0]);
        }
    }
}

#[test]
fn texts_that_say_something_else_have_another() {
    let texts = [
        "null",
        "true",
        "false",
        "0",
        "1",
        "-1",
        "10",
        "1e400",
        "1e401",
        "\"1\"",
        "\"\"",
        "\"null\"",
        "[]",
        "{}",
        "[null]",
        "[[]]",
        "[1,2]",
        "[2,1]",
        "[12]",
        "{\"a\":1}",
        "{\"a\":\"1\"}",
        "{\"a\":[1]}",
        "{\"b\":1}",
        "{\"a\":1,\"b\":1}",
        "9007199254740993",
        "9007199254740992",
        "\"\\ud800\"",
        "\"\\ud801\"",
        "\"\u{fffd}\"",
        "1e99999999999999999999",
        "2e99999999999999999999",
    ];
    for (at, text) in texts.iter().enumerate() {
        for other in &texts[at + 1..] {
            assert_ne!(of(text), of(other), "{text} and {other}");
        }
    }
}

#[test]
fn members_can_be_left_out() {
    let value = json::one_value("{\"a\":1,\"ts\":5}").unwrap();
    let other = json::one_value("{\"ts\":6,\"a\":1.0}").unwrap();
    assert_ne!(digest(value), digest(other));
    assert_eq!(object(value, |name| name != "ts"), object(other, |name| name != "ts"));
}

#[test]
fn a_number_has_one_name() {
    for (texts, expected) in [
        (&["10", "1e1", "10.0", "1.0E+1", "100e-1"][..], "10"),
        (&["0", "-0", "0.0", "0e5"], "0"),
        (&["-7", "-7.0", "-0.7e1"], "-7"),
        (&["1.5", "15e-1", "1.50"], "1.5"),
        (&["0.05", "5e-2", "0.050"], "0.05"),
        (&["12345678901234567890123", "1.2345678901234567890123e22"], "12345678901234567890123"),
        (&["1e21", "1E+21", "1000000000000000000000"], "1000000000000000000000"),
        (&["1e300", "10e299"], "1e300"),
        (&["1e-300", "0.1e-299"], "1e-300"),
        (&["1e99999999999999999999"], "1e99999999999999999999"),
    ] {
        for text in texts {
            assert_eq!(name(text), expected, "{text}");
        }
    }
    let zeros = "0".repeat(50);
    assert_eq!(name(&format!("1{zeros}")), name("1e50"));
}
