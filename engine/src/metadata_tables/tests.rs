use super::*;
use crate::guard;
use iceberg::spec::{Literal, Struct};
use serde_json::{Value, json};

#[test]
fn a_name_is_split_at_its_last_sign() {
    for (name, expected) in [
        ("events$snapshots", Some(("events", MetadataTable::Snapshots))),
        ("a$b$all_files", Some(("a$b", MetadataTable::AllFiles))),
        ("events$Snapshots", None),
        ("events$", None),
        ("$files", None),
        ("files", None),
    ] {
        assert_eq!(MetadataTable::split(name), expected, "{name}");
    }
    for kind in MetadataTable::ALL {
        assert_eq!(MetadataTable::split(&kind.of("t")), Some(("t", kind)));
    }
}

#[test]
fn names_are_written_as_what_they_mean() {
    let names = [RewrittenName {
        written: vec!["events".to_owned(), "refs".to_owned()],
        schema: "a.b".to_owned(),
        table: "events$refs".to_owned(),
    }];
    let check = |sql: &str, expected: &str| {
        let mut statement = guard::check(sql).unwrap().statement;
        rename(&mut statement, &names);
        assert_eq!(statement.to_string(), expected);
    };
    let table = r#""icecore"."a.b"."events$refs""#;
    check("SELECT 1 FROM Events.REFS", &format!(r#"SELECT 1 FROM {table} AS "refs""#));
    check("SELECT 1 FROM events.refs AS r", &format!("SELECT 1 FROM {table} AS r"));
    check("SELECT 1 FROM \"Events\".refs", "SELECT 1 FROM \"Events\".refs");
    check("SELECT 1 FROM refs", "SELECT 1 FROM refs");
    check("EXPLAIN SELECT 1 FROM events.refs r", &format!("EXPLAIN SELECT 1 FROM {table} r"));
}

/// A table whose first spec was by day of `b`, the second by `a`, the third by `a` under another name.
fn metadata() -> Value {
    let field = |id: i32, name: &str, kind: &str| json!({ "id": id, "name": name, "required": false, "type": kind });
    let partition = |source: i32, id: i32, name: &str, transform: &str| json!({ "source-id": source, "field-id": id, "name": name, "transform": transform });
    json!({
        "format-version": 2, "table-uuid": "7f0c6a76-3f0d-4d59-a1f8-4b1f0b0b6a11",
        "location": "file:///w/t", "last-sequence-number": 0, "last-updated-ms": 1,
        "last-column-id": 2, "current-schema-id": 0, "default-spec-id": 2,
        "schemas": [{
            "type": "struct", "schema-id": 0,
            "fields": [field(1, "a", "long"), field(2, "b", "timestamptz")],
        }],
        "partition-specs": [
            { "spec-id": 0, "fields": [partition(2, 1000, "b_day", "day")] },
            { "spec-id": 1, "fields": [partition(1, 1001, "a", "identity")] },
            {
                "spec-id": 2,
                "fields": [partition(1, 1001, "a_now", "identity"), partition(2, 1000, "b_day", "day")],
            },
        ],
        "last-partition-id": 1001,
        "sort-orders": [{ "order-id": 0, "fields": [] }], "default-sort-order-id": 0,
        "properties": {}, "current-snapshot-id": -1, "snapshots": [], "refs": {},
    })
}

#[test]
fn partitions_of_all_specs_are_one_struct() {
    let metadata: TableMetadata = serde_json::from_value(metadata()).unwrap();
    let layout = TableLayout::of(&metadata);
    let day = Struct::from_iter([Some(Literal::date(3))]);
    let number = Struct::from_iter([Some(Literal::long(7))]);
    let both = Struct::from_iter([None, Some(Literal::date(4))]);
    let rows = [(0, &day), (1, &number), (2, &both), (9, &both)];
    let array = layout.partitions(&rows.into_iter()).unwrap();
    let column = arrow::util::pretty::pretty_format_columns("partition", &[array]).unwrap();
    expect_test::expect![[r"
        +------------------------------+
        | partition                    |
        +------------------------------+
        | {b_day: 1970-01-04, a_now: } |
        | {b_day: , a_now: 7}          |
        | {b_day: 1970-01-05, a_now: } |
        | {b_day: , a_now: }           |
        +------------------------------+"]]
    .assert_eq(&column.to_string());
    let leaves: Vec<&str> = layout.leaves.iter().map(|leaf| leaf.name.as_str()).collect();
    assert_eq!(leaves, ["a", "b"]);
    assert!(!TableLayout::default().is_partitioned());
}
