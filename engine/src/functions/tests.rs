use crate::functions::{
    JsonPath, PathStep, extracted, mended, of_mended, parse_path, parsed, shown, within,
};
use arrow::array::StringViewArray;
use datafusion::error::DataFusionError;
use serde_json::value::RawValue;

fn value_at(
    text: &str,
    path: &[PathStep],
    unquote: bool,
) -> Result<Option<String>, DataFusionError> {
    let searched = JsonPath::new(path.to_vec()).find(text)?;
    Ok(searched.found.and_then(|raw| shown(raw, unquote)).map(|shown| shown.into_owned()))
}

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
    for path in [r#"$."a\""#, r#"$."a\\"b""#, r#"$."a"b""#] {
        assert!(parse_path(path).is_none(), "{path}");
    }
}

#[test]
fn a_name_in_quotes_may_have_quotes_and_backslashes() {
    let text = r#"{"a\"b":1,"a\\":{"\\\"":2},"a\\d":3,"\"\u00e9":4}"#;
    for (path, expected) in [
        (r#"$."a\"b""#, Some("1")),
        (r#"$."a\\"."\\\"""#, Some("2")),
        (r#"$."a\\d""#, Some("3")),
        (r#"$."a\d""#, Some("3")),
        (r#"$."\"é""#, Some("4")),
        (r#"$."a""#, None),
    ] {
        let found = value_at(text, &parse_path(path).unwrap(), false).unwrap();
        assert_eq!(found.as_deref(), expected, "{path}");
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

    let paths = StringViewArray::from(vec!["a", "a"]);
    let of = |texts: &StringViewArray| extracted(texts, &paths, true);
    let values = of_mended(&texts.slice(0, 2), of).unwrap();
    assert_eq!((values.value(0), values.value(1)), (r"x\ud800", "\u{1f600}"));
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

#[test]
fn a_value_is_the_one_that_a_parser_finds_step_by_step() {
    let nested = |levels: usize| format!("{}{{\"b\":1}}{}", "[".repeat(levels), "]".repeat(levels));
    let texts = [
        r#"{"a":{"b":[1,{"c":"x"}]},"b":2}"#.to_owned(),
        " { \"a\" : { \"b\" : \"\u{e9} \\\" \" } ,\t\"a b\" : [ ] }\n".to_owned(),
        r#"{"a":{"b":1},"a":{}}"#.to_owned(),
        r#"{"a":{},"a":{"b":1,"b":2}}"#.to_owned(),
        r#"{"a":{"b":1},"a":7}"#.to_owned(),
        r#"{"\u0061":{"\u0062":null},"a\u0020b":3}"#.to_owned(),
        r#"{"":1,"aa":2,"A":3,"a ":4,"ab":5}"#.to_owned(),
        r#"{"a":12345678901234567890.5e-300,"b":-0}"#.to_owned(),
        r#"{"a":"]}","b":"{\"a\":1}"}"#.to_owned(),
        r#"[{"a":1},"a"]"#.to_owned(),
        r#""a""#.to_owned(),
        "{}".to_owned(),
        "null".to_owned(),
        nested(3),
        format!("{{\"x\":{},\"a\":{{\"b\":\"deep\"}}}}", nested(600)),
        format!("{{\"a\":{}}}", nested(600)),
        r#"{"a":{"b":1}"#.to_owned(),
        r#"{"a":{"b":1}}}"#.to_owned(),
        r#"{"a":1,}"#.to_owned(),
        r#"{"a":01,"b":2}"#.to_owned(),
        r#"{"a":{"b":tru}}"#.to_owned(),
        "{\"a\":\"\n\"}".to_owned(),
    ];
    let paths = ["$", "a", "$.a.b", "$.a.b[1].c", "$.a.b[0]", "$.\"a b\"", "$[0].a", "b", "$.\"\""];
    for text in &texts {
        paths.iter().for_each(|path| check_with_parser(text, path));
    }

    // With one byte of it replaced, most of them are no JSON.
    for text in texts.iter().filter(|text| text.len() < 100) {
        let bytes_of = |at| b"\"\\{}[],:0e \n".iter().map(move |byte| (at, *byte));
        for (at, byte) in (0..text.len()).flat_map(bytes_of) {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = byte;
            if let Ok(text) = String::from_utf8(bytes) {
                paths.iter().for_each(|path| check_with_parser(&text, path));
            }
        }
    }
}

fn check_with_parser(text: &str, path: &str) {
    let steps = parse_path(path).unwrap();
    let parser = parsed(text).ok().map(|whole| within(whole, &steps).map(RawValue::get));
    let searched = JsonPath::new(steps).find(text).ok().map(|searched| searched.found);
    assert_eq!(searched, parser, "{path} of {text:.80}");
}
