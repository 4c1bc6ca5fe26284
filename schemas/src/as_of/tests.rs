use super::*;
use serde_json::json;

#[test]
fn as_of_is_a_snapshot_a_time_or_a_name() {
    let check = |value: Value, expected: AsOf| {
        assert_eq!(AsOf::parse(&value).unwrap(), expected, "{value}");
    };
    check(json!(42), AsOf::Snapshot(42));
    check(json!("9007199254740991"), AsOf::Snapshot(9_007_199_254_740_991));
    check(json!("1970-01-01T00:00:01Z"), AsOf::Time(1_000));
    check(json!("1970-01-01T02:00:01.5+02:00"), AsOf::Time(1_500));
    for name in ["daily-2026-11-20", "042", "+42", "-0"] {
        check(json!(name), AsOf::Reference(name.to_owned()));
    }
}

#[test]
fn as_of_of_another_shape_is_refused_with_what_it_may_be() {
    for value in [json!(1.5), json!(null), json!(true), json!([1]), json!({ "ts": 1 }), json!("")] {
        let text = AsOf::parse(&value).unwrap_err().to_string();
        assert!(text.starts_with("as_of must be a snapshot id, an RFC 3339 time"), "{text}");
    }
}
