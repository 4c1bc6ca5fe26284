mod reference;

use super::{PatchError, json_patch, json_patch_within, kind, merge_patch, merge_patch_of_none};
use crate::collection::entry::ImageKind;

fn check_merge(document: &str, patch: &str, expected: &str) {
    assert_eq!(merge_patch(document, patch).as_deref(), Ok(expected), "{document} {patch}");
}

fn check_json(document: &str, patch: &str, expected: &str) {
    assert_eq!(json_patch(document, patch).as_deref(), Ok(expected), "{document} {patch}");
}

fn check_refused(document: &str, patch: &str, expected: &str) {
    let error = json_patch(document, patch).expect_err(patch);
    assert_eq!(error.to_string(), expected, "{document} {patch}");
}

#[test]
fn the_examples_of_rfc_7396_hold() {
    check_merge(r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#);
    check_merge(r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#);
    check_merge(r#"{"a":"b"}"#, r#"{"a":null}"#, "{}");
    check_merge(r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#);
    check_merge(r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#);
    check_merge(r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#);
    check_merge(r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#);
    check_merge(r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#);
    check_merge(r#"["a","b"]"#, r#"["c","d"]"#, r#"["c","d"]"#);
    check_merge(r#"{"a":"foo"}"#, "null", "null");
    check_merge(r#"{"e":null}"#, r#"{"a":1}"#, r#"{"e":null,"a":1}"#);
    check_merge("[1,2]", r#"{"a":"b","c":null}"#, r#"{"a":"b"}"#);
    check_merge("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#);
}

#[test]
fn a_merge_patch_of_nothing_is_one_of_an_empty_object() {
    assert_eq!(merge_patch_of_none(r#"{"a":{"b":null,"c":1},"d":null}"#), r#"{"a":{"c":1}}"#);
}

#[test]
fn the_examples_of_rfc_6902_hold() {
    let add = r#"[{"op":"add","path":"/baz","value":"qux"}]"#;
    check_json(r#"{"foo":"bar"}"#, add, r#"{"foo":"bar","baz":"qux"}"#);
    let insert = r#"[{"op":"add","path":"/foo/1","value":"qux"}]"#;
    check_json(r#"{"foo":["bar","baz"]}"#, insert, r#"{"foo":["bar","qux","baz"]}"#);
    let remove = r#"[{"op":"remove","path":"/baz"}]"#;
    check_json(r#"{"baz":"qux","foo":"bar"}"#, remove, r#"{"foo":"bar"}"#);
    let remove = r#"[{"op":"remove","path":"/foo/1"}]"#;
    check_json(r#"{"foo":["bar","qux","baz"]}"#, remove, r#"{"foo":["bar","baz"]}"#);
    let replace = r#"[{"op":"replace","path":"/baz","value":"boo"}]"#;
    check_json(r#"{"baz":"qux","foo":"bar"}"#, replace, r#"{"baz":"boo","foo":"bar"}"#);
    let moved = r#"[{"op":"move","from":"/foo/waldo","path":"/qux/thud"}]"#;
    check_json(
        r#"{"foo":{"bar":"baz","waldo":"fred"},"qux":{"corge":"grault"}}"#,
        moved,
        r#"{"foo":{"bar":"baz"},"qux":{"corge":"grault","thud":"fred"}}"#,
    );
    let moved = r#"[{"op":"move","from":"/foo/1","path":"/foo/3"}]"#;
    check_json(
        r#"{"foo":["all","grass","cows","eat"]}"#,
        moved,
        r#"{"foo":["all","cows","eat","grass"]}"#,
    );
    let test =
        r#"[{"op":"test","path":"/baz","value":"qux"},{"op":"test","path":"/foo/1","value":2}]"#;
    check_json(r#"{"baz":"qux","foo":["a",2,"c"]}"#, test, r#"{"baz":"qux","foo":["a",2,"c"]}"#);
    let nested = r#"[{"op":"add","path":"/child","value":{"grandchild":{}}}]"#;
    check_json(r#"{"foo":"bar"}"#, nested, r#"{"foo":"bar","child":{"grandchild":{}}}"#);
    let other = r#"[{"op":"add","path":"/baz","value":"qux","xyz":123}]"#;
    check_json(r#"{"foo":"bar"}"#, other, r#"{"foo":"bar","baz":"qux"}"#);
    let escaped = r#"[{"op":"test","path":"/~01","value":10}]"#;
    check_json(r#"{"/":9,"~1":10}"#, escaped, r#"{"/":9,"~1":10}"#);
    let last = r#"[{"op":"add","path":"/foo/-","value":["abc","def"]}]"#;
    check_json(r#"{"foo":["bar"]}"#, last, r#"{"foo":["bar",["abc","def"]]}"#);
}

#[test]
fn an_operation_that_cannot_be_done_refuses_the_whole_patch() {
    let test = r#"[{"op":"test","path":"/baz","value":"bar"}]"#;
    check_refused(
        r#"{"baz":"qux"}"#,
        test,
        "operation 0 of the patch tests for another value than there is",
    );
    let add =
        r#"[{"op":"add","path":"/a","value":1},{"op":"add","path":"/baz/bat","value":"qux"}]"#;
    check_refused(
        r#"{"foo":"bar"}"#,
        add,
        "operation 1 of the patch names a place that the document does not have",
    );
    let test = r#"[{"op":"test","path":"/~01","value":"10"}]"#;
    check_refused(
        r#"{"/":9,"~1":10}"#,
        test,
        "operation 0 of the patch tests for another value than there is",
    );
    for (patch, refusal) in [
        (r#"[3]"#, "has no `path` that is a JSON pointer"),
        (r#"[{"op":"add","value":1}]"#, "has no `path` that is a JSON pointer"),
        (r#"[{"op":"add","path":"a","value":1}]"#, "has no `path` that is a JSON pointer"),
        (r#"[{"op":"add","path":"/~2","value":1}]"#, "has no `path` that is a JSON pointer"),
        (r#"[{"op":"add","path":"/a"}]"#, "has no `value`"),
        (r#"[{"op":"copy","path":"/b"}]"#, "has no `from` that is a JSON pointer"),
        (r#"[{"op":"set","path":"/b","value":1}]"#, "has no `op` of RFC 6902"),
        (r#"[{"path":"/b","value":1}]"#, "has no `op` of RFC 6902"),
        (r#"[{"op":"remove","path":""}]"#, "takes the whole document away; send a delete instead"),
        (r#"[{"op":"move","from":"/a","path":"/a/0"}]"#, "moves a value into itself"),
        (
            r#"[{"op":"replace","path":"/c","value":1}]"#,
            "names a place that the document does not have",
        ),
        (
            r#"[{"op":"add","path":"/a/2","value":1}]"#,
            "names a place that the document does not have",
        ),
        (r#"[{"op":"add","path":"/a/01","value":1}]"#, "names a place of an array by no number"),
        (r#"[{"op":"remove","path":"/a/-"}]"#, "names a place of an array by no number"),
    ] {
        check_refused(r#"{"a":[1]}"#, patch, &format!("operation 0 of the patch {refusal}"));
    }
    assert_eq!(json_patch("{", "[]"), Err(PatchError::NotJson));
}

#[test]
fn what_no_patch_touches_keeps_its_text() {
    let document =
        r#" { "n" : 12345678901234567890.10e2, "s":"\u00e9\/", "o" : {"z": 1.0,  "a":[ 1 ]} } "#;
    let patch = r#"[{"op":"add","path":"/new","value":100000000000000000000001}]"#;
    check_json(
        document,
        patch,
        r#"{"n":12345678901234567890.10e2,"s":"\u00e9\/","o":{"z": 1.0,  "a":[ 1 ]},"new":100000000000000000000001}"#,
    );
    check_merge(
        document,
        r#"{"o":{"b":0.10},"s":null}"#,
        r#"{"n":12345678901234567890.10e2,"o":{"z":1.0,"a":[ 1 ],"b":0.10}}"#,
    );
}

#[test]
fn values_are_compared_by_what_they_say() {
    let document =
        r#"{"a":1.0,"b":"\u0041","c":{"x":[1],"y":null},"a\u0062":12345678901234567890}"#;
    for (path, value) in [
        ("/a", "1"),
        ("/a", "10e-1"),
        ("/b", r#""A""#),
        ("/c", r#"{ "y":null, "x":[ 1 ] }"#),
        ("/ab", "12345678901234567890"),
    ] {
        let patch = format!(r#"[{{"op":"test","path":"{path}","value":{value}}}]"#);
        assert!(json_patch(document, &patch).is_ok(), "{patch}");
    }
    for (path, value) in
        [("/c", r#"{"x":[1]}"#), ("/ab", "12345678901234567891"), ("/a", r#""1""#), ("/a", "true")]
    {
        let patch = format!(r#"[{{"op":"test","path":"{path}","value":{value}}}]"#);
        assert!(json_patch(document, &patch).is_err(), "{patch}");
    }
}

#[test]
fn a_whole_document_can_be_set_and_moved_about() {
    check_json("{}", r#"[{"op":"replace","path":"","value":[1]}]"#, "[1]");
    check_json("3", r#"[{"op":"add","path":"","value":{}}]"#, "{}");
    check_json(r#"{"a":1}"#, r#"[{"op":"copy","from":"","path":"/b"}]"#, r#"{"a":1,"b":{"a":1}}"#);
    check_json(r#"{"a":1}"#, r#"[{"op":"move","from":"/a","path":""}]"#, "1");
    check_json(r#"{"a":1}"#, r#"[{"op":"move","from":"/a","path":"/a"}]"#, r#"{"a":1}"#);
    // Of two members of one name the last counts.
    check_json(
        r#"{"a":1,"a":2}"#,
        r#"[{"op":"copy","from":"/a","path":"/b"}]"#,
        r#"{"a":2,"b":2}"#,
    );
}

#[test]
fn a_small_patch_cannot_make_a_large_or_deep_document() {
    let doubled = |path: &str| format!(r#"{{"op":"copy","from":"","path":"{path}"}}"#);
    let wide: Vec<String> = (0..64).map(|at| doubled(&format!("/m{at}"))).collect();
    let text = format!(r#"{{"text":"{}"}}"#, "x".repeat(1000));
    let error = json_patch(&text, &format!("[{}]", wide.join(","))).expect_err("too much");
    assert!(error.to_string().contains("work than one patch may do"), "{error}");

    let deep: Vec<String> = (0..200).map(|_| doubled("/a")).collect();
    let error = json_patch("{}", &format!("[{}]", deep.join(","))).expect_err("too deep");
    assert!(error.to_string().ends_with("nests the document too deep"), "{error}");

    // Each look at the members of an object counts.
    let names: Vec<String> =
        (0..500).map(|at| format!(r#"{{"op":"add","path":"/{at}","value":0}}"#)).collect();
    let names = format!("[{}]", names.join(","));
    assert!(json_patch("{}", &names).is_ok());
    let error = json_patch_within(1 << 17, "{}", &names).expect_err("too slow");
    assert!(error.to_string().contains("work than one patch may do"), "{error}");
}

#[test]
fn the_kind_of_a_patch_is_told_by_its_json() {
    for (patch, expected) in [
        (" [ ]", ImageKind::JsonPatch),
        ("{}", ImageKind::MergePatch),
        ("[", ImageKind::UnknownPatch),
        ("null", ImageKind::UnknownPatch),
        ("3", ImageKind::UnknownPatch),
    ] {
        assert_eq!(kind(patch), expected, "{patch}");
    }
}
