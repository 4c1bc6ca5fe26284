use super::*;
use crate::{commit::apply_updates, metadata_file::refs};
use serde_json::{Value, json};

const FILE: &str = "file:///w/t/metadata/00000-a.metadata.json";

/// A table with something in each member of the format.
fn table() -> TableMetadata {
    let snapshot = |id: i64, parent: Option<i64>| {
        json!({
            "snapshot-id": id, "parent-snapshot-id": parent, "sequence-number": id, "timestamp-ms": 1_000 + id, "schema-id": id % 2,
            "manifest-list": format!("file:///w/t/metadata/\"{id}\".avro"),
            "summary": {"operation": "append", "added-records": id.to_string(), "text": "\u{e9}\n\"\\"},
        })
    };
    let mut other = snapshot(4, None);
    other.as_object_mut().unwrap().remove("schema-id");
    other.as_object_mut().unwrap().remove("parent-snapshot-id");
    let metadata = json!({
        "format-version": 2, "table-uuid": "9c12d441-03fe-4693-9a96-a0705ddf69c1", "location": "file:///w/t",
        "last-sequence-number": 4, "last-updated-ms": 1_004, "last-column-id": 3,
        "schemas": [
            {"type": "struct", "schema-id": 0, "fields": [{"id": 1, "name": "id", "required": true, "type": "string"}]},
            {"type": "struct", "schema-id": 1, "identifier-field-ids": [1], "fields": [
                {"id": 1, "name": "id", "required": true, "type": "string"},
                {"id": 2, "name": "ts", "required": false, "type": "timestamptz", "doc": "when"},
                {"id": 3, "name": "size", "required": false, "type": "decimal(10, 2)"},
            ]},
        ],
        "current-schema-id": 1,
        "partition-specs": [
            {"spec-id": 0, "fields": []},
            {"spec-id": 1, "fields": [{"source-id": 2, "field-id": 1000, "name": "dt", "transform": "day"}]},
        ],
        "default-spec-id": 1, "last-partition-id": 1000,
        "properties": {"write.parquet.compression-codec": "zstd"},
        "current-snapshot-id": 3,
        "snapshots": [snapshot(1, None), snapshot(2, Some(1)), snapshot(3, Some(2)), other],
        "snapshot-log": [{"snapshot-id": 1, "timestamp-ms": 1_001}, {"snapshot-id": 2, "timestamp-ms": 1_002}, {"snapshot-id": 3, "timestamp-ms": 1_003}],
        "metadata-log": [{"metadata-file": FILE, "timestamp-ms": 1_000}],
        "sort-orders": [{"order-id": 0, "fields": []}, {"order-id": 1, "fields": [
            {"transform": "identity", "source-id": 2, "direction": "asc", "null-order": "nulls-first"},
        ]}],
        "default-sort-order-id": 1,
        "refs": {
            "main": {"snapshot-id": 3, "type": "branch", "min-snapshots-to-keep": 5},
            "other": {"snapshot-id": 4, "type": "branch", "max-ref-age-ms": 7},
            "first": {"snapshot-id": 1, "type": "tag", "max-ref-age-ms": 9},
        },
        "statistics": [{"snapshot-id": 3, "statistics-path": "file:///w/t/metadata/s.puffin", "file-size-in-bytes": 4, "file-footer-size-in-bytes": 2, "blob-metadata": []}],
        "partition-statistics": [{"snapshot-id": 3, "statistics-path": "file:///w/t/metadata/p.parquet", "file-size-in-bytes": 4}],
    });
    serde_json::from_value(metadata).unwrap()
}

/// JSON with lists in an order of their own: the crate writes them in any.
fn ordered(bytes: &[u8]) -> Value {
    let mut json: Value = serde_json::from_slice(bytes).unwrap();
    for list in ["snapshots", "schemas", "partition-specs", "sort-orders"] {
        if let Some(items) = json[list].as_array_mut() {
            items.sort_by_key(Value::to_string);
        }
    }
    json
}

#[test]
fn a_table_is_written_as_the_iceberg_crate_writes_it() {
    let full = table();
    assert_eq!(ordered(&encode_table(&full, &EncodedParts::of(&full))), ordered(&encode(&full)));

    let ids: Vec<i64> = full.snapshots().map(|snapshot| snapshot.snapshot_id()).collect();
    let removals = json!([
        {"action": "remove-snapshot-ref", "ref-name": "main"},
        {"action": "remove-snapshots", "snapshot-ids": ids},
        {"action": "remove-statistics", "snapshot-id": 3},
        {"action": "remove-partition-statistics", "snapshot-id": 3},
        {"action": "remove-properties", "removals": ["write.parquet.compression-codec"]},
    ]);
    let updates: Vec<iceberg::TableUpdate> = serde_json::from_value(removals).unwrap();
    let bare = apply_updates(&full, FILE, &updates).unwrap();
    assert_eq!(bare.snapshots().len(), 0);
    assert_eq!(ordered(&encode_table(&bare, &EncodedParts::of(&bare))), ordered(&encode(&bare)));
}

#[test]
fn what_is_read_back_is_what_was_written() {
    let full = table();
    let read: TableMetadata =
        serde_json::from_slice(&encode_table(&full, &EncodedParts::of(&full))).unwrap();
    assert_eq!(read, full);
}

#[test]
fn other_formats_are_written_with_their_own_members() {
    let upgrade = json!([{"action": "upgrade-format-version", "format-version": 3}]);
    let updates: Vec<iceberg::TableUpdate> = serde_json::from_value(upgrade).unwrap();
    let third = apply_updates(&table(), FILE, &updates).unwrap();
    let bytes = encode_table(&third, &EncodedParts::of(&third));
    assert_eq!(ordered(&bytes), ordered(&encode(&third)));
    assert_eq!(ordered(&bytes)["format-version"], 3);
}

#[test]
fn what_is_carried_follows_every_update() {
    let mut metadata = table();
    let mut encoded = EncodedParts::of(&metadata);
    assert_eq!(encoded.refs.len(), 3);
    let steps = [
        json!([{"action": "set-snapshot-ref", "ref-name": "second", "type": "tag", "snapshot-id": 2, "max-ref-age-ms": 11}]),
        json!([{"action": "set-snapshot-ref", "ref-name": "main", "type": "branch", "snapshot-id": 2}]),
        json!([
            {"action": "add-snapshot", "snapshot": {
                "snapshot-id": 9, "parent-snapshot-id": 2, "sequence-number": 5, "timestamp-ms": 2_000, "schema-id": 1,
                "manifest-list": "file:///w/t/metadata/9.avro", "summary": {"operation": "append"},
            }},
            {"action": "set-snapshot-ref", "ref-name": "main", "type": "branch", "snapshot-id": 9},
        ]),
        json!([{"action": "remove-snapshot-ref", "ref-name": "first"}]),
        json!([{"action": "set-properties", "updates": {"a": "b"}}]),
        json!([{"action": "remove-snapshots", "snapshot-ids": [4]}]),
        json!([{"action": "remove-snapshot-ref", "ref-name": "main"}, {"action": "remove-snapshots", "snapshot-ids": [9]}]),
    ];
    for step in steps {
        let updates: Vec<iceberg::TableUpdate> = serde_json::from_value(step.clone()).unwrap();
        metadata = apply_updates(&metadata, FILE, &updates).unwrap();
        encoded = encoded.after(&updates, &metadata);
        assert_eq!(encoded.refs, refs::of(&metadata), "after {step}");
        let written = encode_table(&metadata, &encoded);
        assert_eq!(ordered(&written), ordered(&encode(&metadata)), "after {step}");
        assert_eq!(encoded.whole(&metadata).unwrap().get().as_bytes(), written, "after {step}");
    }
    assert_eq!(encoded.refs.keys().collect::<Vec<_>>(), ["second"]);
}

#[test]
fn a_long_file_is_not_kept_whole() {
    let grow = json!([{"action": "set-properties", "updates": {"a": "b".repeat(64 << 10)}}]);
    let updates: Vec<iceberg::TableUpdate> = serde_json::from_value(grow).unwrap();
    let metadata = apply_updates(&table(), FILE, &updates).unwrap();
    let encoded = EncodedParts::of(&metadata);
    assert!(encoded.whole(&metadata).is_none());
    assert_eq!(ordered(&encode_table(&metadata, &encoded)), ordered(&encode(&metadata)));
}

#[test]
fn a_high_column_id_reserves_no_memory() {
    let far = json!([{"action": "add-schema", "schema": {"type": "struct", "schema-id": 2, "fields": [
        {"id": 1, "name": "id", "required": true, "type": "string"},
        {"id": 2, "name": "ts", "required": false, "type": "timestamptz"},
        {"id": 2_000_000_000, "name": "far", "required": false, "type": "long"},
    ]}}]);
    let updates: Vec<iceberg::TableUpdate> = serde_json::from_value(far).unwrap();
    let metadata = apply_updates(&table(), FILE, &updates).unwrap();
    let encoded = EncodedParts::of(&metadata);
    let written = encode_table(&metadata, &encoded);
    assert!(encoded.length(&metadata) < 2 * written.len());
    assert!(length_estimate(&metadata) < 4 * written.len());
}
