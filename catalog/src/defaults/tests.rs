use super::*;

#[rustfmt::skip]
const DEFAULTS: &[&str] = &[
    "0", "-1", "1e300", "-1e-320", "99999999999999999999", "2147483648", "true", "[]", "{}", "[1]",
    "null", r#"{"keys":[1],"values":[]}"#, r#"{"9":1}"#, r#""""#, r#""x""#, r#""00""#, r#""zz""#,
    r#""1.5""#, r#""-1e400""#, r#""1e-400""#, r#""99999999999999999999999999999999999999999.9""#,
    r#""79228162514264337593543950336""#, r#""-0.0000000000000000000000000000000000000001""#,
    r#""NaN""#, r#""+262142-12-31""#, r#""-262143-01-01""#, r#""2026-02-30""#, r#""25:61:61""#,
    r#""23:59:60.999999999""#, r#""+262142-12-31T23:59:59.999999""#,
    r#""2026-01-01T00:00:00+23:59""#, r#""9999-12-31T23:59:59.999999999+00:00""#,
    r#""1600-01-01T00:00:00.000000001""#, r#""f79c3e09-677c-4bbd-a479-3f349cb785e7""#,
];
#[rustfmt::skip]
const TYPES: &[&str] = &[
    r#""boolean""#, r#""int""#, r#""long""#, r#""float""#, r#""double""#, r#""date""#,
    r#""time""#, r#""timestamp""#, r#""timestamptz""#, r#""timestamp_ns""#, r#""timestamptz_ns""#,
    r#""string""#, r#""uuid""#, r#""fixed[2]""#, r#""fixed[18446744073709551615]""#, r#""binary""#,
    r#""decimal(9, 2)""#, r#""decimal(38, 38)""#, r#""decimal(1, 4294967295)""#,
    r#"{"type":"list","element-id":9,"element":"int","element-required":true}"#,
    r#"{"type":"map","key-id":9,"key":"string","value-id":10,"value":"int","value-required":false}"#,
    r#"{"type":"struct","fields":[{"id":9,"name":"b","required":false,"type":"float"}]}"#,
];

#[test]
fn what_passes_can_be_read_and_written() {
    let (mut refused, mut passed) = (0, 0);
    for kind in TYPES {
        for default in DEFAULTS {
            for member in MEMBERS {
                let column = format!(
                    r#"{{"id":1,"name":"a","required":false,"type":{kind},"{member}":{default}}}"#
                );
                let body = format!(r#"{{"schema":{{"type":"struct","fields":[{column}]}}}}"#);
                if check(body.as_bytes()).is_err() {
                    refused += 1;
                } else if let Ok(field) = serde_json::from_str::<NestedField>(&column) {
                    // It panics where the check let something through.
                    let back = serde_json::to_value(&field).unwrap();
                    let is_null = back.get(member).is_none_or(Value::is_null);
                    assert_eq!(is_null, *default == "null", "{column} became {back}");
                    passed += 1;
                }
            }
        }
    }
    assert!(refused > 0 && passed > 100, "{refused} are refused, {passed} pass");
}

#[test]
fn a_default_is_stored_as_it_was_given_or_refused() {
    let check_one = |kind: &str, default: Value| {
        let column = serde_json::json!({"id": 1, "name": "c", "required": false, "type": kind,
            "write-default": default});
        check(column.to_string().as_bytes())
    };
    for (kind, default) in [
        ("int", serde_json::json!(7)),
        ("long", serde_json::json!(i64::MAX)),
        ("float", serde_json::json!(0.1)),
        ("double", serde_json::json!(0.1)),
        ("boolean", serde_json::json!(false)),
        ("string", serde_json::json!("1.50")),
        ("decimal(9, 2)", serde_json::json!("14.20")),
        ("date", serde_json::json!("2026-01-02")),
        ("time", serde_json::json!("10:00:00.123456")),
        ("timestamp", serde_json::json!("2026-01-01T10:00:00")),
        ("timestamp", serde_json::json!("2026-01-01T10:00:00.120000")),
        ("timestamptz", serde_json::json!("2026-01-01T10:00:00.000000+00:00")),
        ("uuid", serde_json::json!("F79C3E09-677C-4BBD-A479-3F349CB785E7")),
        ("binary", serde_json::json!("00FF")),
        ("fixed[2]", serde_json::json!("00ff")),
    ] {
        check_one(kind, default.clone()).unwrap_or_else(|text| panic!("{kind} {default}: {text}"));
    }
    for (kind, default) in [
        ("int", serde_json::json!("x")),
        ("int", serde_json::json!(2_147_483_648_i64)),
        ("long", serde_json::json!(1.5)),
        ("float", serde_json::json!(1e300)),
        ("boolean", serde_json::json!("true")),
        ("timestamp", serde_json::json!("2026-01-01T10:00:00.123456789")),
        ("timestamp_ns", serde_json::json!("2026-01-01T10:00:00.123456789")),
        ("timestamptz_ns", serde_json::json!("2026-01-01T10:00:00.123456789+00:00")),
    ] {
        let text = check_one(kind, default.clone()).expect_err(&format!("{kind} {default}"));
        assert!(text.contains("write-default") && text.contains("\"c\""), "{text}");
    }
}

#[test]
fn only_columns_with_a_default_are_looked_at() {
    check(b"no json with an initial-default").unwrap();
    check(br#"{"initial-default": 1}"#).unwrap();
    check(br#"{"type": "decimal(9, 2)", "default": "NaN"}"#).unwrap();
    let column =
        br#"{"id":1,"name":"c","required":false,"type":"time","write-default":"23:59:60.5"}"#;
    assert!(check(column).is_err_and(|text| text.contains("column \"c\"")));
}
