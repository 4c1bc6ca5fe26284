use super::*;

#[track_caller]
fn check(text: &str, normal: Option<&str>) {
    assert_eq!(Location::parse(text).as_ref().map(Location::as_str), normal, "{text}");
}

#[test]
fn every_spelling_of_a_location_has_one_normal_form() {
    check("file:///a/b", Some("file:///a/b"));
    check("file:/a/b", Some("file:///a/b"));
    check("file:///a/b/", Some("file:///a/b"));
    check("s3://bucket", Some("s3://bucket"));
    check("s3://bucket/a/b/", Some("s3://bucket/a/b"));
    check("s3a://bucket/a", Some("s3://bucket/a"));
}

#[test]
fn names_that_only_look_odd_are_left_alone() {
    for path in [
        "type=a%2Fb%20c/x",
        "type=a./x",
        "a..b",
        "..a",
        "...a",
        "100%",
        "50%zz",
        "a%ffb",
        "ü＋／．．",
        "a*b",
        "a'\"b",
        "%25252525",
    ] {
        check(&format!("s3://bucket/{path}"), Some(&format!("s3://bucket/{path}")));
    }
}

#[test]
fn what_could_be_taken_for_another_place_is_no_location() {
    let paths = [
        "a//b",
        "a//",
        "/a",
        ".",
        "..",
        "a/./b",
        "a/../b",
        "a/..",
        "a/.../b",
        "a/ /b",
        "a/.. /b",
        "a/%2e%2e/b",
        "a/%2E./b",
        "a/.%2e",
        "a%2f..%2Fb",
        "a%2f%2fb",
        "a/%252e%252e/b",
        "a/%25252525252e/b",
        "a/%%32e/b",
        "a%00b",
        "a\0b",
        "a\nb",
        "a%0ab",
        "a\\b",
        "a%5cb",
        "a%255cb",
        "a\u{85}b",
        "a?b",
        "a?versionId=1",
        "a#b",
        "%2e",
        "%20",
    ];
    for path in paths {
        check(&format!("file:///{path}"), None);
        check(&format!("s3://bucket/{path}"), None);
    }
}

#[test]
fn other_schemes_and_authorities_are_no_locations() {
    let others = [
        "",
        "a",
        "/a",
        "file:",
        "file:/",
        "file:///",
        "file://host/a",
        "file://a",
        "file:a",
        "FILE:///a",
        "File:/a",
        "S3://bucket/a",
        "s3:///a",
        "s3://",
        "s3:/bucket/a",
        "s3n://bucket/a",
        "S3A://bucket/a",
        "s3://user@bucket/a",
        "s3://user:word@bucket/a",
        "s3://bucket:80/a",
        "s3://buck%65t/a",
        "s3://büc/a",
        "http://127.0.0.1/a",
        "hdfs://a/b",
        "gs://bucket/a",
        " s3://bucket/a",
        "s3://../a",
    ];
    for other in others {
        check(other, None);
    }
    check(&format!("file:///{}", "a".repeat(4096)), None);
    check(&format!("s3://bucket/{}", "a".repeat(1025)), None);
}

#[test]
fn folders_are_compared_by_whole_segments() {
    let at = |text: &str| Location::parse(text).unwrap();
    let folder = at("s3://bucket/a/test");
    assert!(at("s3://bucket/a/test/x").is_inside(&folder));
    for beside in [
        "s3://bucket/a/test",
        "s3://bucket/a/test2/x",
        "s3://bucket/a/Test/x",
        "s3://bucket2/a/test/x",
        "file:///bucket/a/test/x",
    ] {
        assert!(!at(beside).is_inside(&folder), "{beside}");
    }
    assert_eq!(folder.folders().collect::<Vec<_>>(), ["s3://bucket", "s3://bucket/a"]);
    assert_eq!(at("file:///a/b/c").folders().collect::<Vec<_>>(), ["file:///a", "file:///a/b"]);
}
