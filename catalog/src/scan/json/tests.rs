use super::*;
use iceberg::spec::NestedField;
use serde_json::json;
use std::sync::Arc;

fn schema() -> Schema {
    let kinds = [
        ("i", PrimitiveType::Int),
        ("l", PrimitiveType::Long),
        ("f", PrimitiveType::Double),
        ("s", PrimitiveType::String),
        ("d", PrimitiveType::Date),
        ("tm", PrimitiveType::Time),
        ("t", PrimitiveType::Timestamp),
        ("tz", PrimitiveType::Timestamptz),
        ("tn", PrimitiveType::TimestampNs),
        ("u", PrimitiveType::Uuid),
        ("x", PrimitiveType::Binary),
        ("fx", PrimitiveType::Fixed(2)),
        ("dec", PrimitiveType::Decimal { precision: 9, scale: 2 }),
        ("b", PrimitiveType::Boolean),
    ];
    let fields = kinds
        .into_iter()
        .zip(1..)
        .map(|((name, kind), id)| Arc::new(NestedField::optional(id, name, Type::Primitive(kind))));
    Schema::builder().with_fields(fields).build().unwrap()
}

/// Reads an expression and writes it again.
fn check(expression: &Value, expected: &Value) {
    let read =
        parse(expression, &schema(), true).unwrap_or_else(|error| panic!("{expression}: {error}"));
    assert_eq!(&write(&read), expected, "{expression}");
}

#[test]
fn every_form_of_the_specification_is_read_and_written_the_same() {
    for expression in [
        json!(true),
        json!(false),
        json!({"type": "is-null", "term": "i"}),
        json!({"type": "not-null", "term": "i"}),
        json!({"type": "is-nan", "term": "f"}),
        json!({"type": "not-nan", "term": "f"}),
        json!({"type": "lt", "term": "i", "value": 42}),
        json!({"type": "lt-eq", "term": "l", "value": 9_223_372_036_854_775_807_i64}),
        json!({"type": "gt", "term": "f", "value": 123.456}),
        json!({"type": "gt-eq", "term": "d", "value": "2007-12-03"}),
        json!({"type": "eq", "term": "tm", "value": "22:31:08.123456"}),
        json!({"type": "not-eq", "term": "t", "value": "2007-12-03T10:15:30.123456"}),
        json!({"type": "eq", "term": "tz", "value": "1969-12-31T23:59:59.999999+00:00"}),
        json!({"type": "eq", "term": "tn", "value": "2007-12-03T10:15:30.123456789"}),
        json!({"type": "eq", "term": "u", "value": "eb26bdb1-a1d8-4aa6-990e-da940875492c"}),
        json!({"type": "eq", "term": "x", "value": "78797A"}),
        json!({"type": "eq", "term": "fx", "value": "7879"}),
        json!({"type": "eq", "term": "dec", "value": "123.45"}),
        json!({"type": "eq", "term": "b", "value": true}),
        json!({"type": "starts-with", "term": "s", "value": "hel"}),
        json!({"type": "not-starts-with", "term": "s", "value": "hel"}),
        json!({"type": "in", "term": "s", "values": ["a", "b"]}),
        json!({"type": "not-in", "term": "i", "values": [1, 2]}),
        json!({"type": "eq", "term": {"type": "transform", "transform": "bucket[256]", "term": "s"}, "value": 7}),
        json!({"type": "eq", "term": {"type": "transform", "transform": "truncate[3]", "term": "s"}, "value": "hel"}),
        json!({"type": "eq", "term": {"type": "transform", "transform": "day", "term": "tz"}, "value": "2007-12-03"}),
        json!({"type": "and",
            "left": {"type": "or", "left": {"type": "is-null", "term": "i"}, "right": {"type": "not-null", "term": "s"}},
            "right": {"type": "eq", "term": "i", "value": 5}}),
    ] {
        check(&expression, &expression);
    }
}

#[test]
fn other_spellings_mean_the_same() {
    let five = json!({"type": "eq", "term": "i", "value": 5});
    for (spelled, expected) in [
        (json!({"type": "true"}), json!(true)),
        (json!({"type": "FALSE"}), json!(false)),
        (json!({"type": "literal", "value": true}), json!(true)),
        (
            json!({"type": "EQ", "term": {"type": "reference", "term": "i"},
                "value": {"type": "literal", "value": 5}}),
            five.clone(),
        ),
        (json!({"type": "not", "child": {"type": "not_eq", "term": "i", "value": 5}}), five),
        (
            json!({"type": "not", "child": {"type": "and",
                "left": {"type": "lt", "term": "i", "value": 1},
                "right": {"type": "in", "term": "s", "values": ["a"]}}}),
            json!({"type": "or",
                "left": {"type": "gt-eq", "term": "i", "value": 1},
                "right": {"type": "not-in", "term": "s", "values": ["a"]}}),
        ),
    ] {
        check(&spelled, &expected);
    }
    let noon = json!({"type": "eq", "term": "tz", "value": "2026-01-01T12:00:00.000000+00:00"});
    for text in [
        "2026-01-01T12:00",
        "2026-01-01T12:00:00Z",
        "2026-01-01T14:30:00.0+02:30",
        "2026-01-01T08:00:00-04:00",
    ] {
        check(&json!({"type": "eq", "term": "tz", "value": text}), &noon);
    }
    // More than the column holds is more than each of its values.
    let large = json!({"type": "lt", "term": "i", "value": 3_000_000_000_i64});
    check(&large, &large);
}

#[test]
fn what_is_not_understood_is_refused_with_its_reason() {
    for (expression, expected) in [
        (json!({"type": "like", "term": "s", "value": "x"}), "`like` is not a type of expression"),
        (json!({"term": "s"}), "an object with a `type`"),
        (json!(5), "an object with a `type`"),
        (json!({"type": "and", "left": true}), "has no `right`"),
        (json!({"type": "eq", "term": "nothing", "value": 1}), "there is no column `nothing`"),
        (json!({"type": "eq", "term": "I", "value": 1}), "there is no column `I`"),
        (json!({"type": "eq", "term": "i"}), "has no `value`"),
        (json!({"type": "eq", "term": "i", "value": "five"}), "\"five\" is not of type int"),
        (json!({"type": "eq", "term": "i", "value": null}), "null is not of type int"),
        (json!({"type": "in", "term": "i", "values": 5}), "`values` must be a list"),
        (json!({"type": "eq", "term": "dec", "value": "1.205"}), "more than the 2 decimals"),
        (
            json!({"type": "eq", "term": "t", "value": "2026-01-01T00:00:00+01:00"}),
            "is not of type timestamp",
        ),
        (json!({"type": "eq", "term": "t", "value": "yesterday"}), "is not of type timestamp"),
        (json!({"type": "starts-with", "term": "i", "value": "5"}), "only strings have a prefix"),
        (
            json!({"type": "eq", "term": {"type": "transform", "transform": "week", "term": "t"}, "value": 1}),
            "`week` is not a transform",
        ),
        (
            json!({"type": "eq", "term": {"type": "transform", "transform": "day", "term": "s"}, "value": 1}),
            "does not take `s`",
        ),
        (
            json!({"type": "eq", "term": {"type": "sum"}, "value": 1}),
            "a term must be a column's name",
        ),
    ] {
        let error = parse(&expression, &schema(), true).unwrap_err();
        assert!(error.contains(expected), "{expression}: {error}");
    }
    assert!(parse(&json!({"type": "eq", "term": "I", "value": 1}), &schema(), false).is_ok());
}

#[test]
fn an_expression_is_only_so_deep() {
    let nested = |levels: usize| {
        (1..levels).fold(json!({"type": "is-null", "term": "i"}), |inner, _| {
            json!({"type": "and", "left": {"type": "not-null", "term": "s"}, "right": inner})
        })
    };
    let deepest = nested(DEPTH_MAX);
    check(&deepest, &deepest);
    let error = parse(&nested(DEPTH_MAX + 1), &schema(), true).unwrap_err();
    assert!(error.contains("100 levels deep"), "{error}");
}
