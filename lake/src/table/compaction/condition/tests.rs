use super::*;
use iceberg::spec::{
    FormatVersion, NestedField, SortOrder, TableMetadataBuilder, Type, UnboundPartitionSpec,
};
use icecore_catalog::scan::json::write;
use std::{collections::HashMap, sync::Arc};

/// Partitioned by its type, its day and buckets of its user.
fn table() -> TableMetadata {
    let column =
        |id, name: &str, kind| Arc::new(NestedField::optional(id, name, Type::Primitive(kind)));
    let schema = Schema::builder().with_fields([
        column(1, "type", PrimitiveType::String),
        column(2, "ts", PrimitiveType::Timestamptz),
        column(3, "user", PrimitiveType::String),
        column(4, "n", PrimitiveType::Long),
    ]);
    let spec = UnboundPartitionSpec::builder()
        .add_partition_field(1, "type", Transform::Identity)
        .and_then(|spec| spec.add_partition_field(2, "dt", Transform::Day))
        .and_then(|spec| spec.add_partition_field(3, "user_bucket", Transform::Bucket(4)))
        .and_then(|spec| spec.add_partition_field(4, "n", Transform::Identity))
        .unwrap()
        .build();
    of(schema.build().unwrap(), spec)
}

fn of(schema: Schema, spec: UnboundPartitionSpec) -> TableMetadata {
    let (unsorted, location) = (SortOrder::unsorted_order(), "file:///t".to_owned());
    let version = FormatVersion::V2;
    let built =
        TableMetadataBuilder::new(schema, spec, unsorted, location, version, HashMap::new());
    built.unwrap().build().unwrap().metadata
}

fn bound(condition: &str) -> Result<Filter, ConditionError> {
    PartitionCondition::parse(condition)?.bind(&table())
}

#[test]
fn a_condition_is_what_it_says_of_columns_and_partition_fields() {
    let day = json!({ "type": "transform", "transform": "day", "term": "ts" });
    let filter = bound("type = 'it''s' AND dt >= '2026-11-01'").unwrap();
    let expected = json!({
        "type": "and",
        "left": { "type": "eq", "term": "type", "value": "it's" },
        "right": { "type": "gt-eq", "term": day, "value": "2026-11-01" },
    });
    assert_eq!(write(&filter), expected);
    let filter = bound("ts < '2026-11-01 12:00'").unwrap();
    assert_eq!(write(&filter)["value"], "2026-11-01T12:00:00.000000+00:00");
    let filter = bound("n IN (-1, 2)").unwrap();
    assert_eq!(write(&filter)["values"], json!([-1, 2]));
}

#[test]
fn other_ways_to_say_it_are_the_same_condition() {
    for (one, other) in [
        ("TYPE='a'", "\"type\" = 'a'"),
        (
            "dt between '2026-11-01' and '2026-11-30'",
            "dt >= DATE '2026-11-01' AND dt <= DATE '2026-11-30'",
        ),
        ("NOT (type = 'a' OR dt < '2026-11-01')", "type <> 'a' AND dt >= '2026-11-01'"),
        ("type NOT IN ('a', 'b')", "NOT type IN ('a', 'b')"),
        ("dt NOT BETWEEN '2026-11-01' AND '2026-11-02'", "dt < '2026-11-01' OR dt > '2026-11-02'"),
        ("NOT NOT type IS NOT NULL", "NOT type IS NULL"),
        ("type = 'a' OR type = 'b' AND n = 1", "type = 'a' OR (type = 'b' AND n = 1)"),
        ("ts >= '2026-11-01'", "ts >= TIMESTAMP '2026-11-01T00:00:00Z'"),
        ("type != 'a'", "`type` <> 'a'"),
    ] {
        assert_eq!(bound(one).unwrap(), bound(other).unwrap(), "{one}");
    }
}

#[test]
fn what_does_not_read_is_told_with_its_place() {
    for (condition, place) in [
        ("", "its end at character 1, where a column must be"),
        ("type", "its end at character 5, where a comparison, IN, BETWEEN or IS NULL must be"),
        ("type = a", "`a` at character 8, where a value such as 5 or 'text' must be"),
        ("type = 'a", "`'` at character 8, where a text with a closing quote must be"),
        ("type = 'a' dt", "`dt` at character 12, where AND, OR or the end must be"),
        ("(type = 'a'", "its end at character 12, where `)` must be"),
        ("type NOT = 'a'", "`=` at character 10, where IN or BETWEEN must be"),
        ("type LIKE 'a%'", "`LIKE` at character 6"),
        ("type IN ()", "`)` at character 10"),
        ("dt BETWEEN '2026-11-01'", "its end at character 24, where AND and the upper end must be"),
        ("type IS 'a'", "`'a'` at character 9, where NULL must be"),
        ("type = 'a'; DROP", "`;` at character 11"),
    ] {
        let text = PartitionCondition::parse(condition).unwrap_err().to_string();
        assert!(text.contains(place) && text.contains("allowed are"), "{condition}: {text}");
    }
    let deep = format!("{}type = 'a'{}", "(".repeat(1_000), ")".repeat(1_000));
    assert!(PartitionCondition::parse(&deep).is_err());
    let long = format!("type = '{}'", "a".repeat(CHARS_MAX));
    assert_eq!(PartitionCondition::parse(&long), Err(ConditionError::Length));
    let wide = vec!["n = 1"; 400].join(" OR ");
    assert!(bound(&wide).is_ok());
}

#[test]
fn what_partitions_do_not_decide_is_refused() {
    for (condition, told) in [
        (
            "id = 'x'",
            "`id` is no partition column; this table's are `dt`, `n`, `ts`, `type`, `user`, `user_bucket`",
        ),
        (
            "ts <> '2026-11-01'",
            "`ts` <> leaves out no partition, because the table is partitioned by `dt` of it",
        ),
        ("user > 'a'", "`user` > leaves out no partition"),
        ("NOT user = 'a'", "`user` <> leaves out no partition"),
        ("dt = 'yesterday'", "`dt`: \"yesterday\" is not of type date"),
        ("n = 'a'", "`n`: \"a\" is not of type long"),
        ("type = 5", "`type`: 5 is not of type string"),
    ] {
        let text = bound(condition).unwrap_err().to_string();
        assert!(text.contains(told), "{condition}: {text}");
    }
    assert!(bound("user = 'a' AND user_bucket <> 3 AND user IN ('a', 'b')").is_ok());
    let plain = of(table().current_schema().as_ref().clone(), UnboundPartitionSpec::default());
    let text = PartitionCondition::parse("n = 1").unwrap().bind(&plain).unwrap_err().to_string();
    assert_eq!(text, "the table has no partitions to choose from");
}
