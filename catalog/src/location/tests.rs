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
fn whatever_a_writer_makes_of_a_partition_value_is_a_name() {
    for path in [
        "type=a%2Fb%20c/x",
        "type=a./x",
        "a..b",
        "..a",
        "...",
        "...a",
        "a/ /b",
        "a/.. /b",
        "100%",
        "50%zz",
        "a%ffb",
        "ü＋／．．",
        "a*b",
        "a'\"b",
        "%25252525",
        "k=%2F/x",
        "k=a%2F/x",
        "k=a%2F%2Fb/x",
        "k=https%3A%2F%2Fexample.com%2F/x",
        "k=.%2F/x",
        "k=..%2F..%2F..%2Fx/x",
        "k=%252F/x",
        "k=%252e%252e/x",
        "a/%252e%252e/b",
        "a/%%32e/b",
        "k=C%3A%5Clogs/x",
        "k=C:\\logs/x",
        "a\\..\\b",
        "k=a%09b/x",
        "k=a%0Ab/x",
        "k=%00/x",
        "a?b",
        "a?versionId=1",
        "a#b",
        "a\u{85}b",
        "%20",
        "%2e%2e%2f",
    ] {
        check(&format!("s3://bucket/{path}"), Some(&format!("s3://bucket/{path}")));
        check(&format!("file:///t/{path}"), Some(&format!("file:///t/{path}")));
    }
}

#[test]
fn an_empty_segment_is_a_name_in_a_bucket_and_nothing_on_a_disk() {
    check("s3://bucket/a//b", Some("s3://bucket/a//b"));
    check("file:///a//b", Some("file:///a/b"));
    check("file:///a///b//", Some("file:///a/b"));
}

#[test]
fn what_only_a_disk_can_name_is_refused_of_a_bucket() {
    for path in ["a\tb", "a\nb", "a\u{7f}b", "a//"] {
        check(&format!("s3://bucket/{path}"), None);
    }
    check("file:///a\tb", Some("file:///a\tb"));
    check("file:///a\nb", Some("file:///a\nb"));
}

#[test]
fn what_could_be_taken_for_another_place_is_no_location() {
    let paths = [
        "/a",
        ".",
        "..",
        "a/.",
        "a/./b",
        "a/../b",
        "a/../../other/x.parquet",
        "a/..",
        "a/../",
        "a/%2e%2e/b",
        "a/%2E%2E/b",
        "a/%2E./b",
        "a/.%2e",
        "a/.\t./b",
        "a/.\n/b",
        "a/.%0a./b",
        "a\0b",
        "%2e",
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

#[test]
fn a_table_lies_where_every_client_finds_it() {
    let is_fit = |text: &str| Location::parse(text).unwrap().is_fit_for_a_table();
    assert!(is_fit("s3://bucket/a b/100%/ü"));
    for odd in [
        "a?b",
        "a#b",
        "a\\b",
        "a//b",
        "a/ /b",
        "a/.../b",
        "a./b",
        "a /b",
        " a",
        "a\u{85}",
        "a%2f..%2fb",
        "%252e%252e",
        "a%5cb",
        "a%00",
    ] {
        assert!(!is_fit(&format!("s3://bucket/{odd}/t")), "{odd}");
    }
}
