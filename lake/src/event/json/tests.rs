use super::*;

fn check(text: &str, expected: bool) {
    assert_eq!(one_value(text).is_some(), expected, "{text}");
    // serde_json agrees on what JSON is.
    let peer = serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok();
    assert_eq!(peer, expected, "serde_json on {text}");
}

#[test]
fn of_several_members_with_one_name_the_last_counts() {
    let many = (0..100).map(|n| format!("\"m{n}\":{n}")).collect::<Vec<_>>().join(",");
    for (object, expected) in [
        ("{}".to_owned(), "{}".to_owned()),
        (r#"{"a":1,"b":2}"#.to_owned(), r#"{"a":1,"b":2}"#.to_owned()),
        (r#"{"a":1,"b":2,"a":3}"#.to_owned(), r#"{"b":2,"a":3}"#.to_owned()),
        (r#"{"a":1,"\u0061":null}"#.to_owned(), r#"{"\u0061":null}"#.to_owned()),
        (r#"{"\u0061":1,"":2,"a":3,"":4}"#.to_owned(), r#"{"a":3,"":4}"#.to_owned()),
        (format!("{{{many}}}"), format!("{{{many}}}")),
        (format!("{{\"m99\":0,{many}}}"), format!("{{{many}}}")),
    ] {
        let members = members_of(one_value(&object).unwrap());
        let last = last_of_each(&members);
        let texts: Vec<&str> = last.iter().map(|member| member.text).collect();
        assert_eq!(format!("{{{}}}", texts.join(",")), expected);
    }
}

#[test]
fn only_json_is_read() {
    for text in [
        "null",
        "true",
        "false",
        "0",
        "-0",
        "-1.5e+10",
        "1E5",
        "1e-7",
        "\"\"",
        "\"a\"",
        "[]",
        "{}",
        " [1 , 2]\n",
        "{\"a\":{\"b\":[null,{\"c\":\"d\"}]}}",
        r#""\u00e9\n\"\\\/""#,
        "\"日本語\"",
        "\"a long string that is more than eight bytes\"",
        r#"{"a":"12345678\"9"}"#,
    ] {
        check(text, true);
    }
    for text in [
        "",
        " ",
        "nul",
        "truex",
        "01",
        "-",
        "1.",
        ".5",
        "1e",
        "1e+",
        "+1",
        "\"",
        "\"a",
        "\"\\x\"",
        r#""\u12g4""#,
        r#""\u12""#,
        "\"a\nb\"",
        "[",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "{",
        "{a:1}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{\"a\":1 \"b\":2}",
        "[1}",
        "{]",
        "1 2",
        "é",
        "\"tab\tinside the string\"",
        "NaN",
    ] {
        check(text, false);
    }
}

#[test]
fn the_eight_byte_steps_find_what_single_steps_find() {
    for length in 0..40 {
        for at in 0..length {
            for byte in ['"', '\\', '\n', '\u{1}', '\u{7f}', 'é', ' '] {
                let mut text = "!".repeat(length);
                text.replace_range(at..=at, &byte.to_string());
                let quoted = format!("\"{text}\"");
                let peer = serde_json::from_str::<String>(&quoted);
                let ours = one_value(&quoted).and_then(|value| value.text());
                assert_eq!(ours.as_deref(), peer.ok().as_deref(), "{quoted}");
            }
        }
    }
}

#[test]
fn strings_are_unescaped_as_serde_json_does() {
    for text in [
        r#""plain""#,
        r#""a\nb\t\r\b\f\/\\\"c""#,
        r#""\u00e9\u65e5""#,
        r#""\ud83d\ude00!""#,
        r#""\u0000""#,
    ] {
        let peer: String = serde_json::from_str(text).unwrap();
        assert_eq!(one_value(text).unwrap().text().unwrap(), peer);
    }
}

#[test]
fn half_of_a_surrogate_pair_is_kept_as_its_escape() {
    for (json, text) in [
        (r#""\ud83dx""#, r"\ud83dx"),
        (r#""\ude00\ud83d\u0041""#, r"\ude00\ud83dA"),
        (r#""\uD83D\uD83D\uDE00""#, "\\uD83D\u{1f600}"),
        (r#""\ud83d\\ude00""#, r"\ud83d\ude00"),
        (r#""a\udbff""#, r"a\udbff"),
    ] {
        let value = one_value(json).unwrap();
        assert_eq!(value.text().unwrap(), text, "{json}");
        assert!(value.has_lone_surrogate(), "{json}");
        let mended = without_lone_surrogates(json).unwrap();
        assert_eq!(serde_json::from_str::<String>(&mended).unwrap(), text, "{json}");
        let mut parts = EventParts::default();
        let object = format!("{{\"a\":[{json}]}}");
        JsonScanner::new(&object).object(9, &mut parts).unwrap();
        assert!(parts.has_lone_surrogate, "{json}");
    }
    for json in [r#""\ud83d\ude00""#, r#""\\ud83d""#, r#""\ue000\ud7ff""#, r#""plain""#, "7"] {
        assert!(!one_value(json).unwrap().has_lone_surrogate(), "{json}");
        assert_eq!(without_lone_surrogates(json), None, "{json}");
    }
}

#[test]
fn a_member_is_found_while_its_text_is_read() {
    let check = |text: &str, names: &[&str], expected: Option<Option<&str>>| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let searched = find_member(text, &names);
        assert_eq!(searched.map(|searched| searched.found), expected, "{names:?} of {text:.80}");
    };
    let text = r#" {"a":{"b":[1, "x"]},"ab":1,"a":{"b":2,"\u0062":{"c":3}}} "#;
    check(text, &[], Some(Some(text.trim())));
    check(text, &["a", "b"], Some(Some(r#"{"c":3}"#)));
    check(text, &["a", "b", "c"], Some(Some("3")));
    check(text, &["ab", "b"], Some(None));
    check(text, &["b"], Some(None));
    check(r#"{"a":{"b":1},"a":[]}"#, &["a", "b"], Some(None));
    check(r#"{"a":1,"b":tru}"#, &["a"], None);
    check(r#"{"a":1} 2"#, &["a"], None);
    let deep = format!("{{\"a\":1,\"b\":{}{}}}", "[".repeat(NESTING_MAX), "]".repeat(NESTING_MAX));
    check(&deep, &["a"], None);

    for (text, expected) in
        [(r#"{"a":1,"b":["\ud800"]}"#, true), (r#"{"a":"\ud83d\ude00"}"#, false)]
    {
        let searched = find_member(text, &["a".to_owned()]).unwrap();
        assert_eq!(searched.has_lone_surrogate, expected, "{text}");
    }
}

#[test]
fn what_is_pushed_reads_back() {
    for text in ["", "plain", "q\"b\\n\nr\rt\t\u{0}\u{1f}\u{7f}é日"] {
        let mut out = String::new();
        push_string(&mut out, text);
        assert_eq!(one_value(&out).unwrap().text().unwrap(), text);
    }
}

#[test]
fn depth_is_bounded() {
    let nested = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
    assert!(JsonScanner::new(&nested(3)).value(3).is_ok());
    assert_eq!(JsonScanner::new(&nested(4)).value(3).unwrap_err(), JsonError::TooDeep);
    assert_eq!(JsonScanner::new(&"[".repeat(1_000_000)).value(64).unwrap_err(), JsonError::TooDeep);
    for (text, levels, expected) in [
        (nested(3), 3, false),
        (nested(4), 3, true),
        ("1".to_owned(), 0, false),
        ("{}".to_owned(), 0, true),
        (format!("{{\"[[[\":{}}}", nested(2)), 3, false),
        (nested(NESTING_MAX), usize::MAX, false),
        (nested(NESTING_MAX + 1), usize::MAX, true),
        ("[}".to_owned(), 3, false),
    ] {
        assert_eq!(is_deeper(&text, levels), expected, "{levels}: {text}");
    }
}

#[test]
fn an_object_too_deep_to_read_can_be_skipped() {
    let text = format!("{}\"]}}\"{} ,1", "[".repeat(900), "]".repeat(900));
    let mut scan = JsonScanner::new(&text);
    scan.skip_blindly(0).unwrap();
    assert_eq!(scan.since(0).len(), text.len() - 3);
    assert!(scan.take(b','));
    assert!(JsonScanner::new("[[é]]").skip_blindly(0).is_err());
    assert!(JsonScanner::new("[[").skip_blindly(0).is_err());
}

#[test]
fn members_keep_their_text() {
    let text = r#" { "a" : 1 ,"data":{"x":"y","z":{}}, "b":[ ] }"#;
    let mut parts = EventParts::default();
    JsonScanner::new(text).object(9, &mut parts).unwrap();
    let show = |members: &[JsonMember<'_>]| {
        members.iter().map(|m| m.text.to_owned()).collect::<Vec<_>>().join("|")
    };
    assert_eq!(show(&parts.top), r#""a" : 1|"data":{"x":"y","z":{}}|"b":[ ]"#);
    assert_eq!(show(&parts.data), r#""x":"y"|"z":{}"#);
}
