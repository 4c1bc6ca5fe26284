use crate::functions::{mended, parse_path, value_at};
use arrow::array::StringViewArray;

#[test]
fn a_value_comes_out_of_json_text_by_its_path() {
    let text = r#"{"a":{"b":[1,2.50,"x\"\u00e9"]},"c d":null,"e":true,"f":{"g": 1}}"#;
    let check = |path: &str, json: Option<&str>, string: Option<&str>| {
        let nodes = parse_path(path).unwrap();
        assert_eq!(value_at(text, &nodes, false).unwrap().as_deref(), json, "{path}");
        assert_eq!(value_at(text, &nodes, true).unwrap().as_deref(), string, "{path}");
    };
    check("$.a.b[1]", Some("2.50"), Some("2.50"));
    check("$.a.b[2]", Some(r#""x\"\u00e9""#), Some("x\"é"));
    check("$.\"c d\"", Some("null"), None);
    check("e", Some("true"), Some("true"));
    check("$.f", Some(r#"{"g": 1}"#), Some(r#"{"g": 1}"#));
    check("$.a.b[3]", None, None);
    check("$.nothing.here", None, None);
}

#[test]
fn a_path_that_is_none_is_refused() {
    for path in ["$a", "$.", "$..a", "$[x]", "$[0", "$.\"a", "$.*", "$.a.*", "$[*]", "", "/a/b/0"] {
        assert!(parse_path(path).is_none(), "{path}");
    }
}

#[test]
fn half_of_a_surrogate_pair_is_its_escape() {
    let texts =
        [r#"{"a":"x\ud800","\udc00":1,"b":2}"#, r#"{"a":"\ud83d\ude00"}"#, r#"no JSON \ud800"#];
    let texts = StringViewArray::from(texts.to_vec());
    let whole = mended(&texts).unwrap();
    let value = |path: &str| value_at(whole.value(0), &parse_path(path).unwrap(), true).unwrap();
    assert_eq!(value("a").as_deref(), Some(r"x\ud800"));
    assert_eq!(value("b").as_deref(), Some("2"), "the others are there as well");
    assert_eq!((whole.value(1), whole.value(2)), (texts.value(1), texts.value(2)));
    assert!(mended(&texts.slice(1, 2)).is_none());
}

#[test]
fn hostile_text_is_refused_and_harmless() {
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(200_000), "]".repeat(200_000));
    let path = parse_path("$.b").unwrap();
    assert_eq!(value_at(&deep, &path, true).unwrap(), None);
    for text in ["", "{", "{\"b\":", "nul", "[1,2", "not json", "{\"a\":1"] {
        let error = value_at(text, &path, true).unwrap_err().to_string();
        assert!(error.contains("is not JSON"), "{text}: {error}");
    }
}
